"""Who is told what: after a whole event in two streets that trade, no household is shown another's data."""

from __future__ import annotations

import re
from functools import cache

import pytest
from contract_doc import DOCUMENT, OBJECTS
from contract_world import GRID, REGULATOR, STRANGER, Home, Plan, World, make_spec
from cross_world import CROSS_RULES, Across, plans_of
from watt_chain import codec
from watt_chain.contract import cross_kinds, kinds
from watt_chain.contract.cross_objects import CrossTrade
from watt_chain.contract.event import State
from watt_chain.contract.objects import Pair
from watt_chain.contract.readers import COMMON, OWN, may_read, reader_of

WITHHELD = {"book", "rebook"}
"""Everybody's bids: for the stations alone."""
PARTY = {"signer", "plug", "history", "pair", "cross"}
"""Objects that name whose they are."""


@cache
def played() -> World:
    """Streets as in cross_world, and a pair inside area 1: home 5 sells there."""
    homes = [Home(0, 1), Home(1, 1), Home(2, 2, node=1), Home(3, 2), Home(5, 1)]
    world = World(areas=2, rules=CROSS_RULES, homes=homes, nodes=2)
    for chain in world.areas:
        assert world.call(0, GRID, "Endow", cross_kinds.Endow(chain, 1_000_000_000, 1_000_000_000)) == ""
    home = homes[4]
    world.homes = homes[:4]
    plans = [*plans_of(world), Plan(home, "sell", 300, [20, 20, 20, 20], [140, 140, 140, 140])]
    world.homes = homes
    Across(world, plans, make_spec()).run(State.CLOSED)
    return world


def readable(world: World, chain: int, public: bytes) -> dict[bytes, bytes]:
    state = world.ledgers[chain].state
    reader = reader_of(state, public)
    assert reader is not None
    return {key: value for key, value in state.items() if may_read(state, reader, key)}


@pytest.mark.row("D4", "E11")
def test_no_household_is_shown_what_is_not_its_own() -> None:
    world = played()
    shared = 0
    for home in world.homes:
        others = [other.id for other in world.homes if other.id != home.id]
        plugs = [other.plug_id for other in world.homes if other.id != home.id]
        for key, value in readable(world, home.area, home.key.public).items():
            word = key.split(b"/")[0]
            if word in (b"pair", b"cross"):  # the two sides of a trade know each other
                trade = codec.decode(value, Pair if word == b"pair" else CrossTrade)
                sides = trade if isinstance(trade, Pair) else trade.terms
                assert home.id in (sides.seller, sides.buyer)
                shared += 1
                continue
            about = key + value
            assert not any(name in about or name.hex().encode() in about for name in others + plugs), key
    assert shared >= 6


def test_every_household_is_shown_all_that_is_its_own() -> None:
    world = played()
    for home in world.homes:
        state = world.ledgers[home.area].state
        mine = readable(world, home.area, home.key.public)
        name, plug = home.id.hex().encode(), home.plug_id.hex().encode()
        assert {key for key in state.keys(b"") if key.endswith(b"/" + name) or plug in key} <= set(mine)
        assert b"event/1" in mine and b"rules" in mine
        for key in state.keys(b"pair/"):
            pair = codec.decode(state.get(key) or b"", Pair)
            assert (key in mine) == (home.id in (pair.seller, pair.buyer))


def test_a_stranger_is_shown_what_is_common_and_the_regulator_everything() -> None:
    world = played()
    state = world.ledgers[1].state
    assert {key.split(b"/")[0] for key in readable(world, 1, STRANGER.public)} <= COMMON
    assert readable(world, 1, REGULATOR.public) == dict(state.items())
    offices = readable(world, 1, GRID.public)
    assert {key.split(b"/")[0] for key in offices} <= COMMON | {b"account", b"signer"}


@pytest.mark.row("E15")
def test_an_area_has_nothing_to_show_of_a_home_elsewhere() -> None:
    world = played()
    far = world.homes[2]
    assert {key.split(b"/")[0] for key in readable(world, 1, far.key.public)} <= COMMON


def test_a_key_that_was_taken_from_its_account_reads_nothing_any_more() -> None:
    world = World(areas=1)
    home = world.homes[0]
    assert reader_of(world.ledgers[1].state, home.key.public) is not None
    new = STRANGER
    assert world.call(1, REGULATOR, "Rotate", kinds.Rotate(home.id, new.public)) == ""
    state = world.ledgers[1].state
    assert reader_of(state, home.key.public) is None
    reader = reader_of(state, new.public)
    assert reader is not None and may_read(state, reader, b"account/" + home.id.hex().encode())


@pytest.mark.parametrize(
    "key",
    [b"", b"/", b"account", b"account/", b"event" * 20, b"sealed/1", b"result/1", b"pair/9/9", b"cross/9/9", b"plug/00",
     b"history/00", b"history/00/1/2", b"book/1", b"rebook/1", b"nothing/1", b"\xff\xfe"],
)  # fmt: skip
def test_a_key_of_no_known_form_is_nobodys(key: bytes) -> None:
    world = played()
    state = world.ledgers[1].state
    reader = reader_of(state, world.homes[0].key.public)
    assert reader is not None
    assert may_read(state, reader, key) == (key.split(b"/")[0] in COMMON)


def test_every_object_of_an_area_is_in_one_class() -> None:
    words = {name.split()[0].split("/")[0] for name, (chain, *_) in OBJECTS.items() if chain in ("area", "both")}
    classes = [{word.decode() for word in COMMON}, {word.decode() for word in OWN}, PARTY, WITHHELD]
    assert words <= set().union(*classes)
    assert sum(map(len, classes)) == len(set().union(*classes)), "a word in two classes"


def test_the_page_says_the_same() -> None:
    lines = DOCUMENT.read_text().splitlines()
    table = lines[lines.index("| first word of the key | shown to |") + 2 :][:5]
    words = [set(re.findall(r"`([a-z]+)[`/]", line)) for line in table]
    assert words[:2] == [{word.decode() for word in COMMON}, {word.decode() for word in OWN}]
    assert words[2] | words[3] == PARTY and words[4] == {*WITHHELD, "result"}
