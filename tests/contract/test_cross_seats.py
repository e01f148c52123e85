"""Cross-nodes on chain: drawn from settled figures and the beacon, paid in points, replaced when the next is ready."""

from __future__ import annotations

import dataclasses

import pytest
from contract_world import World, make_spec
from cross_world import Across, streets
from msgspec.structs import replace
from test_cross_tables import session_of
from watt_chain import codec, crypto
from watt_chain.contract import cross_kinds, cross_seats, tickets
from watt_chain.contract.access import Refused, Session
from watt_chain.contract.cross_seats import BeaconSeed, CrossNodes, CrossSeat, Duty, SeatsOf, duty_key, seats_key
from watt_chain.contract.event import State
from watt_chain.contract.rules import RULES_1
from watt_chain.cross.selection import PPM, TENURE_MIN, Standing, choose
from watt_chain.election import Election


def read(world: World, chain: int, key: bytes, kind: type) -> object:
    value = world.ledgers[chain].state.get(key)
    return None if value is None else codec.decode(value, kind)


def nodes(world: World, chain: int) -> CrossNodes:
    found = read(world, chain, b"crossnodes", CrossNodes)
    assert isinstance(found, CrossNodes)
    return found


def play_events(world: World, count: int) -> list[Across]:
    plays, start_s = [], make_spec().open_s - 100
    for number in range(1, count + 1):
        play = Across(world, spec=make_spec(number, start_s))
        play.run(State.CLOSED)
        world.relay_all()
        plays.append(play)
        start_s = (play.spec.settle_by_s // 900 + 1) * 900
    return plays


@pytest.fixture(scope="module")
def town() -> World:
    """Four nodes an area, two events over."""
    world = streets(nodes=4)
    play_events(world, 2)
    return world


@pytest.mark.row("H5", "H8")
def test_an_area_that_trades_has_f_plus_one_cross_nodes_from_the_first_epoch_on(town: World) -> None:
    for chain, partner in ((1, 2), (2, 1)):
        held = nodes(town, chain)
        assert held.event == 2 and len(held.seats) == len(held.chosen) == 2
        assert held.portfolio == [partner]
        assert {seat.number for seat in held.seats} <= {0, 1, 2, 3}


def test_where_areas_do_not_trade_nothing_is_written() -> None:
    world = World(areas=1, rules=replace(RULES_1, version=4, crossings=0))
    Across(world, []).run(State.CLOSED)
    assert not [key for key, _ in world.ledgers[1].state.items() if key.startswith((b"crossnodes", b"duty", b"beacon"))]


@pytest.mark.row("H5", "B22")
def test_the_draw_goes_by_what_was_settled_before_the_epoch_and_by_the_main_chains_seed() -> None:
    """Nothing that is done while the epoch runs changes it: the figures at its beginning and the seed are enough."""
    world = streets(nodes=4)
    (first,) = play_events(world, 1)
    before = {number: read(world, 1, duty_key(number), Duty) for number in range(4)}
    seats = nodes(world, 1).seats
    second = Across(world, spec=make_spec(2, (first.spec.settle_by_s // 900 + 1) * 900))
    second.run(State.CLOSED)
    world.relay_all()
    beacon = read(world, 1, b"beacon", BeaconSeed)
    election = read(world, 0, b"election", Election)
    assert isinstance(beacon, BeaconSeed) and isinstance(election, Election)
    assert beacon.event == 2 and beacon.seed == election.seed
    body = codec.encode([1, 2, beacon.seed])
    seed = crypto.sha256(codec.signing_bytes(b"cross-seats", world.network, body))
    standings = [
        Standing(number, tuple(duty.credits), tuple(duty.totals), duty.available_ppm, duty.relayed_ppm, False,
                 duty.tenure, next((seat.terms for seat in seats if seat.number == number), 0))
        for number, duty in before.items() if isinstance(duty, Duty)
    ]  # fmt: skip
    assert len(standings) == 4
    assert nodes(world, 1).chosen == list(choose(standings, seed))
    after = read(world, 1, duty_key(0), Duty)
    assert isinstance(after, Duty) and after.credits == [64, 64] and after.totals == [124, 128]
    assert after.tenure == TENURE_MIN + 1


def test_two_areas_draw_by_different_seeds(town: World) -> None:
    seeds = set()
    for chain in (1, 2):
        session = session_of(town, chain)
        seeds.add(cross_seats._seed(session, session.event(2)))
    assert len(seeds) == 2 and all(len(seed) == 32 for seed in seeds)


@pytest.mark.row("H9")
def test_users_behind_a_cross_node_get_a_quarter_more_points(town: World) -> None:
    """H9: "power incentive points will be awarded to corresponding lightweight users". Homes 2 and 3 of area 2 are
    served by nodes 1 and 0; what they get follows the seats that were there when the event was closed."""
    held = read(town, 2, seats_key(2), SeatsOf)
    assert isinstance(held, SeatsOf) and len(held.numbers) == 2
    rows = {home.node: town.row(home, number=2) for home in town.homes[2:]}
    weights = {node: row.credit_after * (5 if node in held.numbers else 4) for node, row in rows.items()}
    if {0, 1} <= set(held.numbers) or not {0, 1} & set(held.numbers):
        assert rows[0].points == rows[1].points
    else:
        assert abs(rows[0].points * weights[1] - rows[1].points * weights[0]) <= max(weights.values())
    session = session_of(town, 2)
    seat = nodes(town, 2).seats[0].number
    empty = next(number for number in range(4) if number not in [one.number for one in nodes(town, 2).seats])
    assert (cross_seats.weigh(session, seat, 1000), cross_seats.weigh(session, empty, 1000)) == (1250, 1000)


def blocks_of(world: World, chain: int) -> list[cross_kinds.PartnerBlock]:
    _, header, certificate = world.applied[chain][-1]
    return [cross_kinds.PartnerBlock(header, certificate)]


@pytest.mark.row("H7", "H8")
def test_who_is_drawn_sits_once_it_shows_that_it_follows_the_partners() -> None:
    world = streets(nodes=4)
    play_events(world, 1)
    held = nodes(world, 2)
    sitting = [seat.number for seat in held.seats]
    new, other = (number for number in range(4) if number not in sitting)
    session = session_of(world, 2)
    session.put(b"crossnodes", replace(held, chosen=sorted([sitting[0], new]), seats=[
        CrossSeat(sitting[0], 1), CrossSeat(sitting[1], 2)]))  # fmt: skip
    account = session.account(session_signer(world, 2, new))
    good = cross_kinds.CrossReady(held.event, blocks_of(world, 1))

    def answer(fields: cross_kinds.CrossReady, who: int = new) -> str:
        mark = session.state.savepoint()
        try:
            cross_seats.ready(session, session.account(session_signer(world, 2, who)), fields)
        except Refused as refused:
            session.state.rollback(mark)
            return refused.reason
        return ""

    assert answer(replace(good, event=9)) == "stage"
    assert answer(good, other) == "not-chosen"
    assert answer(good, sitting[0]) == "decided"
    assert answer(replace(good, blocks=[])) == "partners"
    assert answer(replace(good, blocks=blocks_of(world, 2))) == "proof"
    early = world.applied[1][0]
    assert answer(replace(good, blocks=[cross_kinds.PartnerBlock(early[1], early[2])])) == "stale"
    assert account.role == "validator" and answer(good) == ""
    now = cross_seats.nodes_of(session)
    assert [seat.number for seat in now.seats] == sorted([sitting[0], new])
    assert answer(good) == "decided"


def session_signer(world: World, chain: int, number: int) -> bytes:
    return crypto.id8(world.validators[chain][number].public)


@pytest.mark.row("H14")
def test_a_message_counts_for_the_cross_node_whose_turn_it_was() -> None:
    world = streets(nodes=4)
    (first,) = play_events(world, 1)
    sitting = [seat.number for seat in nodes(world, 2).seats]
    play = Across(world, spec=make_spec(2, (first.spec.settle_by_s // 900 + 1) * 900)).matched()
    play.take()
    for number in play.numbers():
        assert play.op("buy", [number]) == ""
    carried = 0
    for fields in world.inbox_fields(2, 1):
        entry = fields.entries[0]
        sequence = codec.decode(entry.message, list)[2]  # type: ignore[type-var]
        duty = sitting[sequence % 2]
        own = carried == 0
        node = duty if own else next(number for number in range(4) if number != duty)
        assert world.call(2, world.validators[2][node], "Inbox", fields) == ""
        held = read(world, 2, duty_key(duty), Duty)
        assert isinstance(held, Duty) and held.due >= 1
        carried += 1
    duties = [read(world, 2, duty_key(number), Duty) for number in sitting]
    assert sum(one.due for one in duties if isinstance(one, Duty)) == carried == 2
    assert sum(one.done for one in duties if isinstance(one, Duty)) == 1


def test_a_leader_that_was_skipped_has_missed_a_height_and_an_epoch_forgets_it() -> None:
    world = streets(nodes=4)
    play_events(world, 1)
    ledger = world.ledgers[1]
    session = session_of(world, 1)
    skipped = [ledger.schedule.leader(ledger.head.height + 1, 0)]
    late = replace_context(session, view=1, proposer=ledger.schedule.leader(ledger.head.height + 1, 1))
    assert tickets.begin(late) == skipped
    cross_seats.begin(late, skipped)
    held = late.get(duty_key(skipped[0]), Duty)
    assert held is not None and held.missed == 1
    closed = cross_seats._closed(late, replace(held, from_height=late.context.height - 8), [60], 4, False)
    assert (closed.available_ppm, closed.missed) == (PPM // 2, 0)


def replace_context(session: Session, **changes: int) -> Session:
    return dataclasses.replace(session, context=dataclasses.replace(session.context, **changes))  # type: ignore[arg-type]


@pytest.mark.row("H5")
def test_an_area_has_cross_nodes_as_soon_as_there_is_something_to_carry() -> None:
    world = streets(nodes=4)
    Across(world).matched()
    election = read(world, 0, b"election", Election)
    assert isinstance(election, Election)
    body = codec.encode([2, 0, election.seed])
    seed = crypto.sha256(codec.signing_bytes(b"cross-seats", world.network, body))
    equals = [Standing(number, (), ()) for number in range(4)]
    held = nodes(world, 2)
    assert (held.event, held.portfolio, held.chosen) == (0, [1], list(choose(equals, seed)))
    assert [seat.number for seat in held.seats] == held.chosen
    assert world.ledgers[1].state.get(b"crossnodes") is None, "buyers' areas are brought nothing by other areas"
