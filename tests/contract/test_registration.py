"""Enrolment, keys, money in and out."""

from __future__ import annotations

import pytest
from contract_world import DEPOSIT_U, GRID, REGULATOR, START_S, Home, World, key_of, make_spec
from msgspec.structs import replace
from watt_chain import codec, crypto
from watt_chain.contract import AreaContract, kinds
from watt_chain.contract.objects import account_key
from watt_chain.contract.rules import RULES_1
from watt_chain.ledger import Ledger


@pytest.fixture(scope="module")
def world() -> World:
    return World(areas=1)


@pytest.mark.row("C9")
def test_enrolment_is_refused_by_name(world: World) -> None:
    fresh = Home(77, 1)
    enrol = fresh.enrol()
    taken = world.homes[0]
    cases = {
        "key": replace(enrol, public=b"\x01" * 64),
        "exists": replace(enrol, public=taken.key.public),
        "node": replace(enrol, node=2),
        "plug-exists": replace(enrol, plugs=[*enrol.plugs, kinds.EnrolPlug(taken.plug.public, "plain", 10)]),
    }
    for reason, fields in cases.items():
        assert world.dry(1, REGULATOR, "Enrol", fields)[0] == reason
    twice = replace(enrol, plugs=[enrol.plugs[0], enrol.plugs[0]])
    assert world.dry(1, REGULATOR, "Enrol", twice)[0] == "plug-exists"
    no_plug_key = replace(enrol, plugs=[kinds.EnrolPlug(b"\x01" * 64, "plain", 10)])
    assert world.dry(1, REGULATOR, "Enrol", no_plug_key)[0] == "key"


@pytest.mark.row("K5", "J2")
def test_a_registered_user_has_a_credit_account_of_its_own(world: World) -> None:
    """K5: "Each low-voltage user will have the credit value of his/her own account"."""
    account = world.account(1, world.homes[0].key.public)
    assert (account.role, account.credit, account.free_u) == ("user", RULES_1.credit_start, DEPOSIT_U)


def test_money_in_and_out_is_refused_by_name(world: World) -> None:
    home = world.homes[0]
    assert world.dry(1, GRID, "Deposit", kinds.Deposit(b"12345678", 5))[0] == "unknown-user"
    assert world.dry(1, GRID, "Deposit", kinds.Deposit(crypto.id8(GRID.public), 5))[0] == "unknown-user"
    assert world.dry(1, GRID, "Deposit", kinds.Deposit(home.id, 10**15))[0] == "amount"
    assert world.dry(1, home.key, "Withdraw", kinds.Withdraw(DEPOSIT_U + 1))[0] == "balance"
    assert world.dry(1, home.key, "Withdraw", kinds.Withdraw(DEPOSIT_U))[0] == ""


def test_a_rotated_key_takes_over_account_money_and_nonce() -> None:
    world = World(areas=1)
    home, new = world.homes[0], key_of(500)
    before = world.account(1, home.key.public)
    assert world.call(1, REGULATOR, "Rotate", kinds.Rotate(home.id, world.homes[1].key.public)) == "exists"
    assert world.call(1, REGULATOR, "Rotate", kinds.Rotate(b"12345678", new.public)) == "unknown-user"
    assert world.call(1, REGULATOR, "Rotate", kinds.Rotate(home.id, new.public)) == ""
    assert world.ledgers[1].next_nonce(home.key.public) < 0
    assert world.dry(1, home.key, "Withdraw", kinds.Withdraw(1))[0] == "revoked"
    assert world.ledgers[1].next_nonce(new.public) == before.nonce + 1
    assert world.call(1, new, "Withdraw", kinds.Withdraw(1)) == ""
    stored = world.ledgers[1].state.get(account_key(home.id))
    assert stored is not None
    assert world.account(1, home.key.public).free_u == DEPOSIT_U - 1


def test_a_revoked_key_and_a_revoked_plug_end() -> None:
    world = World(areas=1)
    home = world.homes[0]
    frame = home.checkpoint(START_S + 1)
    assert world.call(1, REGULATOR, "Revoke", kinds.Revoke("plug", b"12345678")) == "unknown-plug"
    assert world.call(1, REGULATOR, "Revoke", kinds.Revoke("user", b"12345678")) == "unknown-user"
    assert world.call(1, REGULATOR, "Revoke", kinds.Revoke("plug", home.plug_id)) == ""
    assert world.call(1, REGULATOR, "Revoke", kinds.Revoke("plug", home.plug_id)) == "already"
    assert world.call(1, home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == "plug-revoked"
    assert world.call(1, REGULATOR, "Revoke", kinds.Revoke("user", home.id)) == ""
    assert world.call(1, REGULATOR, "Revoke", kinds.Revoke("user", home.id)) == "already"
    assert world.dry(1, home.key, "Withdraw", kinds.Withdraw(1))[0] == "revoked"
    assert world.call(1, REGULATOR, "Rotate", kinds.Rotate(home.id, key_of(501).public)) == ""
    assert world.call(1, key_of(501), "Withdraw", kinds.Withdraw(1)) == ""


@pytest.mark.row("A16")
def test_a_genesis_that_cannot_be_used_is_found_before_the_first_block() -> None:
    world = World(areas=1, homes=[])
    genesis = world.genesis
    bad = (
        replace(genesis, aggregator=genesis.grid),
        replace(genesis, rules=[codec.encode(replace(RULES_1, eps_ppm=2_000_000))]),
        replace(genesis, active_rules=7),
    )
    for document in bad:
        with pytest.raises(ValueError):
            Ledger(document, 1, AreaContract(world.market))


def test_the_demand_signal_is_refused_by_name() -> None:
    world = World(areas=1, homes=[])
    good = make_spec()
    cases = {
        "spec-size": {"slots": 0},
        "spec-time": {"match_by_s": good.reveal_close_s},
        "spec-lists": {"alpha_u_per_wh": [1]},
        "spec-range": {"required_ppm": 1_000_001},
        "spec-price": {"normal_price_u_per_wh": RULES_1.price_cap_u_per_wh + 1},
        "event-number": {"event": 2},
    }
    for reason, change in cases.items():
        assert world.dry(0, GRID, "Initial", kinds.Initial(replace(good, **change)))[0] == reason
    flat = World(areas=1, homes=[], rules=replace(RULES_1, version=3, valley=False))
    valley = kinds.Initial(replace(good, kind="valley"))
    assert (world.dry(0, GRID, "Initial", valley)[0], flat.dry(0, GRID, "Initial", valley)[0]) == ("", "valley")
    world.now_s = good.commit_close_s
    assert world.dry(0, GRID, "Initial", kinds.Initial(good))[0] == "late"
    assert world.dry(0, GRID, "Initial", kinds.Initial(make_spec(start_s=START_S + 900)))[0] == ""


def test_two_events_whose_windows_touch_are_refused_and_apart_they_are_not() -> None:
    world = World(areas=1, homes=[])
    assert world.call(0, GRID, "Initial", kinds.Initial(make_spec())) == ""
    assert world.call(0, GRID, "Initial", kinds.Initial(make_spec(2, START_S + 3600))) == "overlap"
    assert world.call(0, GRID, "Initial", kinds.Initial(make_spec(2, START_S + 4500))) == ""
