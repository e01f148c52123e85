"""The arithmetic of the election: draw, cap, order, seed, puzzle and the turn of a term (CONSENSUS.md 6)."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from watt_chain import election
from watt_chain.election import NEW_CANDIDATE, Candidate, Demotion, Election, Eligible, Entrant, Pledge

SEED = bytes(range(32))
NETWORK = b"n" * 32
IDS = [bytes([65 + number]) * 8 for number in range(10)]
WEIGHTS = st.lists(st.integers(1, 10**6 + 1), min_size=1, max_size=12)


def of_term(
    term: int = 5, holders: int = 4, weights: list[int] | None = None, struck: tuple[int, ...] = (), **more: object
) -> Election:
    chosen = weights or [1] * holders
    eligible = [Eligible(IDS[at], weight) for at, weight in enumerate(chosen)]
    entrants = [Entrant(one, 0, 16) for one in IDS[: len(chosen)]]
    demoted = [Demotion(IDS[at], term) for at in more.get("demoted", ())]  # type: ignore[attr-defined]
    return Election(term, SEED, eligible, entrants, [IDS[at] for at in struck], demoted)


# The draw ---------------------------------------------------------------------------------------------------------


def plain_draw(seed: bytes, height: int, weights: list[int]) -> list[int]:
    """CONSENSUS.md 6.5.1 read literally: every unit of weight is a lot of its own."""
    lots = [at for at, weight in enumerate(weights) for _ in range(weight)]
    found: list[int] = []
    while lots:
        hashed = b"wattpact/1/draw\x00" + seed + height.to_bytes(8, "big") + len(found).to_bytes(2, "big")
        winner = lots[int(hashlib.sha256(hashed).hexdigest(), 16) % len(lots)]
        found.append(winner)
        lots = [at for at in lots if at != winner]
    return found


@given(st.binary(min_size=32, max_size=32), st.integers(1, 2**40), st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_the_draw_is_the_one_of_the_document(seed: bytes, height: int, weights: list[int]) -> None:
    assert election.draw(seed, height, weights) == plain_draw(seed, height, weights)


@given(st.binary(min_size=32, max_size=32), st.integers(1, 2**40), WEIGHTS)
def test_a_draw_is_a_permutation_in_whole_numbers(seed: bytes, height: int, weights: list[int]) -> None:
    found = election.draw(seed, height, weights)
    assert sorted(found) == list(range(len(weights)))
    assert all(type(at) is int for at in found)


def test_places_go_to_validators_in_proportion_to_their_weights() -> None:
    weights, draws = [1, 2, 3, 4], 20_000
    first: Counter[int] = Counter()
    second: Counter[int] = Counter()
    for height in range(1, draws + 1):
        one, two, *_ = election.draw(SEED, height, weights)
        first[one] += 1
        second[two] += one == 3
    expected = [draws * weight // 10 for weight in weights]
    chi_squared = sum((first[at] - want) ** 2 / want for at, want in enumerate(expected))
    assert chi_squared < 16.27, first  # 3 degrees of freedom, 0.1 %: the seed is fixed, so this holds or is wrong
    behind = [first[3] * weight / 6 for weight in weights[:3]]
    chi_squared = sum((second[at] - want) ** 2 / want for at, want in enumerate(behind))
    assert chi_squared < 13.82, second  # 2 degrees of freedom: without replacement, the rest in proportion again


@given(WEIGHTS)
def test_no_weight_is_above_twice_the_median(weights: list[int]) -> None:
    found = election.capped(weights)
    ordered = sorted(weights)
    twice = ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]
    assert found == [min(weight, twice) for weight in weights]
    assert 2 * sum(found) <= 2 * sum(weights) and max(found) <= twice


def test_the_cap_of_an_odd_and_of_an_even_number() -> None:
    assert election.capped([1, 10, 100]) == [1, 10, 20]
    assert election.capped([1, 10, 20, 100]) == [1, 10, 20, 30]
    assert election.capped([7]) == [7] and election.capped([]) == []


# The order ---------------------------------------------------------------------------------------------------------

ORDERS = st.tuples(
    st.lists(st.integers(1, 1000), min_size=0, max_size=8),
    st.sets(st.integers(0, 9)),
    st.sets(st.integers(0, 9)),
    st.integers(321, 384),
    st.permutations(range(10)),
    st.integers(1, 10),
)


@given(ORDERS)
def test_faults_move_a_validator_and_reshuffle_nobody_else(
    case: tuple[list[int], set[int], set[int], int, list[int], int],
) -> None:
    weights, struck, demoted, height, places, count = case
    listed = [IDS[place] for place in places[:count]]
    clean = election.order(of_term(weights=weights or None, holders=0), height, listed)
    assert sorted(clean) == list(range(count))
    marked = of_term(weights=weights or None, holders=0, struck=tuple(sorted(struck)), demoted=sorted(demoted))
    found = election.order(marked, height, listed)
    group = [2 if places[at] in demoted else 1 if places[at] in struck else 0 for at in range(count)]
    assert list(found) == sorted(clean, key=lambda at: group[at])


def test_without_tickets_the_order_is_the_rotation() -> None:
    empty = Election(0, SEED, [], [], [], [])
    for height in range(1, 65):
        assert election.order(empty, height, IDS[:4]) == election.rotation(height, 4)
    assert election.rotation(6, 4) == (2, 3, 0, 1)


def test_holders_of_a_ticket_come_before_the_others() -> None:
    found = {election.order(of_term(holders=2), height, IDS[:4]) for height in range(321, 385)}
    assert {order[:2] for order in found} == {(0, 1), (1, 0)}
    assert {order[2:] for order in found} == {(2, 3), (3, 2)}


def test_a_block_of_a_later_view_strikes_those_before_but_not_its_own_proposer() -> None:
    ranked = [IDS[2], IDS[0], IDS[1], IDS[3]]
    struck = election.strike(of_term(), ranked, 2)
    assert struck.struck == [IDS[2], IDS[0]]
    assert election.strike(struck, ranked, 1) == struck, "once is enough"
    assert election.strike(of_term(), ranked, 0).struck == []
    assert election.strike(of_term(), ranked, 6).struck == [IDS[2], IDS[0], IDS[3]], "view 6 is led by the third"


# Seed, puzzle ---------------------------------------------------------------------------------------------------------


def test_every_part_of_the_seed_counts() -> None:
    base = (NETWORK, 1, 5, SEED, ((IDS[0], b"x" * 32), (IDS[1], b"y" * 32)))
    others = (
        (bytes(32), *base[1:]),
        (NETWORK, 2, *base[2:]),
        (NETWORK, 1, 6, *base[3:]),
        (NETWORK, 1, 5, bytes(32), base[4]),
        (NETWORK, 1, 5, SEED, base[4][:1]),
        (NETWORK, 1, 5, SEED, (base[4][0], (IDS[1], b"z" * 32))),
        (NETWORK, 1, 5, SEED, (base[4][0], (IDS[2], b"y" * 32))),
        (NETWORK, 1, 5, SEED, ()),
    )
    seeds = [election.next_seed(*case) for case in (base, *others)]
    assert len({*seeds}) == len(seeds)
    assert election.first_seed(NETWORK, 1) != election.first_seed(NETWORK, 2)


def test_a_commitment_binds_its_validator_and_its_term() -> None:
    made = {
        election.commitment_of(network, chain, term, validator, share)
        for network in (NETWORK, bytes(32))
        for chain in (1, 2)
        for term in (2, 3)
        for validator in IDS[:2]
        for share in (b"x" * 32, b"y" * 32)
    }
    assert len(made) == 32


@pytest.mark.row("F10", "F19")
def test_the_puzzle_gets_easier_with_strength_and_harder_with_faults() -> None:
    """F10: "the station-area node does not need to do more PoW consensus proof, which can avoid the formation of
    computing power competition"
    F19: "The full name of PoW is Proof of Work"
    """
    table = {(0, 0): 16, (124_999, 0): 16, (125_000, 0): 15, (500_000, 0): 12, (10**6, 0): 8, (2 * 10**6, 0): 8}
    table |= {(10**6, 1): 12, (10**6, 4): 24, (0, 1): 20, (0, 2): 24, (0, 4): 24}
    for (strength, faults), bits in table.items():
        assert election.bits_for(strength, faults) == bits
    puzzle = election.puzzle(NETWORK, 1, 5, SEED, IDS[0])
    tries = 0
    for number in range(40):
        puzzle = election.puzzle(NETWORK, 1, 5 + number, SEED, IDS[0])
        nonce = election.search(puzzle, election.BITS_MIN, 0, 1 << 14)
        assert nonce is not None
        tries += nonce + 1
    assert 40 * 128 < tries < 40 * 512, "256 hashes each on average: no race"


@given(st.integers(0, 2**63 - 1), st.integers(0, 24))
def test_a_nonce_solves_a_puzzle_when_the_hash_has_the_zeros(nonce: int, bits: int) -> None:
    puzzle = election.puzzle(NETWORK, 1, 5, SEED, IDS[0])
    hash_ = hashlib.sha256(puzzle + nonce.to_bytes(8, "big")).digest()
    zeros = 256 - int.from_bytes(hash_, "big").bit_length()
    assert election.is_solved(puzzle, nonce, bits) == (zeros >= bits)


def test_a_ticket_of_one_validator_term_seed_or_chain_is_none_of_another() -> None:
    puzzles = {
        election.puzzle(network, chain, term, seed, validator)
        for network in (NETWORK, bytes(32))
        for chain in (0, 1)
        for term in (5, 6)
        for seed in (SEED, bytes(32))
        for validator in IDS[:2]
    }
    assert len(puzzles) == 32
    assert election.search(election.puzzle(NETWORK, 1, 5, SEED, IDS[0]), 24, 0, 50) is None


# The turn ----------------------------------------------------------------------------------------------------------


def turned(
    before: Election, *candidates: Candidate, strengths: list[int] | None = None
) -> tuple[Election, list[Candidate]]:
    rows = [(IDS[at], candidate, strengths[at] if strengths else 0) for at, candidate in enumerate(candidates)]
    return election.turn(NETWORK, 1, before, rows)


def test_a_turn_takes_tickets_shares_and_strengths_for_what_they_are_meant() -> None:
    before = Election(5, SEED, [], [Entrant(IDS[at], 100 * at, 16) for at in range(4)], [IDS[1]], [])
    share = b"s" * 32
    after, records = turned(
        before,
        Candidate(6, 0, [Pledge(6, bytes(32), share), Pledge(7, bytes(32), b"")]),
        Candidate(5, 0, []),
        Candidate(6, 0, []),
        Candidate(6, 0, []),
        strengths=[10**6, 500_000, 0, 0],
    )
    assert after.term == 6 and after.struck == [] and after.demoted == []
    assert after.seed == election.next_seed(NETWORK, 1, 6, SEED, [(IDS[0], share)])
    assert after.eligible == [Eligible(IDS[0], 1), Eligible(IDS[2], 201), Eligible(IDS[3], 301)]
    assert [(one.strength_ppm, one.bits) for one in after.entrants] == [(10**6, 8), (500_000, 12), (0, 16), (0, 16)]
    assert records[0].pledges == [Pledge(7, bytes(32), b"")]


def test_a_share_kept_back_costs_two_terms_and_a_fault_that_is_forgotten() -> None:
    kept_back = Candidate(6, 0, [Pledge(6, bytes(32), b"")])
    now, records = turned(of_term(5), kept_back, NEW_CANDIDATE, NEW_CANDIDATE, NEW_CANDIDATE)
    assert now.demoted == [Demotion(IDS[0], 7)]
    assert records[0].faults == 0 and [one.bits for one in now.entrants] == [20, 16, 16, 16]
    assert election.order(now, 400, IDS[:4])[-1] == 0, "it holds a ticket and stands at the end all the same"
    now, records = turned(now, *records)
    assert now.demoted == [Demotion(IDS[0], 7)] and now.entrants[0].bits == 16
    now, _ = turned(now, *records)
    assert now.demoted == []


def test_faults_add_up_within_a_bound() -> None:
    record, seen = Candidate(0, 4, [Pledge(6, bytes(32), b"")]), []
    for _ in range(5):
        now, (record,) = turned(of_term(5, holders=1), record)
        seen.append((now.entrants[0].bits, record.faults))
    assert seen == [(24, 3), (24, 2), (24, 1), (20, 0), (16, 0)]


def test_the_longer_demotion_stands() -> None:
    long = election.demote([], IDS[0], 20)
    assert election.demote(long, IDS[0], 7) == long
    assert election.demote(long, IDS[1], 7) == [*long, Demotion(IDS[1], 7)]
    now, _ = turned(of_term(5), Candidate(0, 0, [Pledge(6, bytes(32), b"")]))
    assert election.demote(now.demoted, IDS[0], 30) == [Demotion(IDS[0], 30)]


def test_the_order_of_a_height_that_is_not_next_is_not_asked_for() -> None:
    schedule = election.Schedule(7, (1, 0))
    assert [schedule.leader(7, view) for view in range(3)] == [1, 0, 1]
    with pytest.raises(AssertionError):
        schedule.leader(8, 0)
