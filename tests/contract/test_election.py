"""The election on a chain: tickets, shares, turns of terms, strikes, evidence; every refusal (CONSENSUS.md 4.8, 6)."""

from __future__ import annotations

import pytest
from contract_world import GRID, STRANGER, key_of
from election_world import ElectionWorld
from watt_chain import crypto, election
from watt_chain.contract import kinds
from watt_chain.contract.area import AreaContract
from watt_chain.contract.objects import ELECTION_KEY
from watt_chain.election import Demotion, Pledge
from watt_chain.pbft.messages import Commit, Prepare, PrePrepare
from watt_chain.state import FinalState
from watt_chain.tree import build_tree
from watt_market.engine import Market

ALL = [0, 1, 2, 3]


def in_term(term: int, tickets: list[int] = ALL) -> ElectionWorld:
    """A world at the first height of a term; all took part in the terms before."""
    world = ElectionWorld()
    for _ in range(term):
        world.take_part(tickets, ALL)
    return world


@pytest.mark.row("F1", "F7", "F8", "F9")
def test_terms_are_drawn_among_those_who_hold_a_ticket_and_two_ledgers_agree_about_every_height() -> None:
    """F1: "response strength + PoW + PBFT"
    F8: "All nodes in the station region use their computing power to solve a mathematical problem"
    F9: "The nodes that get the correct results will be eligible to generate new blocks, thus obtaining the accounting
    right of the block"
    """
    world = ElectionWorld()
    for tickets in (ALL, [0, 2, 3]):
        assert world.order() == [(world.height + view) % 4 for view in range(4)]
        world.take_part(tickets, ALL)
    firsts = set()
    for _ in range(64):
        order = world.order()
        assert order[3] == 1, "without a ticket one comes after all who have one"
        firsts.add(order[0])
        world.block()
    assert firsts == {0, 2, 3}
    assert world.election().term == 2 and len(world.election().eligible) == 3


def test_the_leader_of_a_drawn_term_is_the_one_of_the_document() -> None:
    world = in_term(2)
    world.block()
    seed = world.election().seed
    for _ in range(20):
        assert world.order() == election.draw(seed, world.height, [1, 1, 1, 1])
        world.block()


def test_the_seed_takes_the_shares_that_were_shown_and_only_those() -> None:
    world = in_term(2)
    world.take_part(ALL, ALL, shown=[1, 2])
    before = world.election().seed
    world.block()
    shares = [(world.ids[at], world.share(at, 3)) for at in (1, 2)]
    assert world.election().seed == election.next_seed(world.network, 1, 3, before, shares)
    assert world.election().demoted == [Demotion(world.ids[0], 4), Demotion(world.ids[3], 4)]
    assert sorted(world.order()[2:]) == [0, 3]


def test_nobody_taking_part_leaves_rotation_and_a_chain_of_hashes() -> None:
    world = ElectionWorld()
    for term in range(1, 4):
        before = world.election().seed if term > 1 else election.first_seed(world.network, 1)
        world.go_to(term, 0)
        assert world.order() == list(election.rotation(world.height, 4))
        world.block()
        assert world.election().seed == election.next_seed(world.network, 1, term, before, [])
        assert world.election().demoted == []


def test_one_more_ticket_nonce_changes_nothing_in_the_election() -> None:
    """The nonce never enters the draw: a second solution is worth nothing."""
    seen = []
    for start in (0, 1 << 17):
        world = ElectionWorld()
        world.take_part(ALL, ALL)
        world.block()
        assert world.send(0, "Ticket", world.ticket(0, start)) == ""
        world.go_to(2, 1)
        seen.append((world.election(), world.order()))
    assert seen[0] == seen[1]


@pytest.mark.row("B30")
def test_a_restart_and_a_snapshot_know_the_order_from_the_state_alone() -> None:
    world = in_term(2, tickets=[0, 1, 3])
    contract = AreaContract(Market())
    for _ in range(70):
        snapshot = FinalState(build_tree(world.ledger.state.items()))
        assert list(contract.order(snapshot, world.context())) == world.order()
        world.block(view=1 if world.height % 40 == 0 else 0)
    again = world.new_ledger()
    for certified in world.certified:
        again.replay(certified)
    assert [again.schedule.leader(world.height, view) for view in range(4)] == world.order()
    assert again.state.root() == world.ledger.state.root()


def test_masters_weigh_the_same() -> None:
    world = ElectionWorld(chain=0)
    assert [(one.strength_ppm, one.bits) for one in world.election().entrants] == [(10**6, 8)] * 4
    world.take_part(ALL, ALL)
    world.take_part(ALL, ALL)
    world.block()
    assert [one.weight for one in world.election().eligible] == [10**6 + 1] * 4
    assert world.order() == election.draw(world.election().seed, world.height, [10**6 + 1] * 4)


# Refusals ----------------------------------------------------------------------------------------------------


def test_tickets_are_refused_for_what_is_wrong_with_them() -> None:
    world = ElectionWorld()
    world.block()
    early = world.ticket(0)
    assert early.term == 1
    assert world.send(0, "Ticket", early) == "early", "no share can be in the seed of term 1"
    world.go_to(1, 1)
    good = world.ticket(0)
    assert world.send(1, "Ticket", good) == "bits", "another's solution"
    wrong = next(nonce for nonce in range(100) if nonce != good.nonce)
    assert world.send(0, "Ticket", kinds.Ticket(2, wrong)) == "bits"
    assert world.send(0, "Ticket", kinds.Ticket(1, good.nonce)) == "late"
    assert world.send(0, "Ticket", kinds.Ticket(3, good.nonce)) == "early"
    assert world.send(0, "Ticket", good) == ""
    assert world.send(0, "Ticket", good) == "twice"
    assert world.candidate(0).ticket == 2
    other = world.ticket(1)
    world.go_to(1, 31)
    assert world.send(1, "Ticket", other) == "", "the last height of the window"
    last = world.ticket(2)
    assert world.send(2, "Ticket", last) == "late", "the first height after it"
    assert world.block(world.call(GRID, "Ticket", last)) == ["role"]


def test_commitments_are_refused_for_what_is_wrong_with_them() -> None:
    world = ElectionWorld()
    world.block()
    assert world.send(0, "SeedCommit", world.commitment(0, 1)) == "late"
    assert world.send(0, "SeedCommit", world.commitment(0, 3)) == "early"
    assert world.send(0, "SeedCommit", world.commitment(0, 2)) == ""
    assert world.send(0, "SeedCommit", world.commitment(0, 2)) == "twice"
    world.go_to(0, 31)
    assert world.send(1, "SeedCommit", world.commitment(1, 2)) == ""
    assert world.send(2, "SeedCommit", world.commitment(2, 2)) == "late"
    assert world.candidate(2).pledges == []


def test_shares_are_refused_for_what_is_wrong_with_them() -> None:
    world = ElectionWorld()
    world.block()
    assert world.send(0, "SeedCommit", world.commitment(0, 2)) == ""
    good = kinds.SeedReveal(2, world.share(0, 2))
    assert world.send(0, "SeedReveal", good) == "early", "a term too early"
    world.go_to(1, 31)
    assert world.send(0, "SeedReveal", good) == "early", "while tickets are taken nobody may know a share"
    assert world.send(1, "SeedReveal", good) == "no-commitment"
    assert world.send(0, "SeedReveal", kinds.SeedReveal(2, world.share(0, 3))) == "commitment"
    assert world.send(0, "SeedReveal", kinds.SeedReveal(1, world.share(0, 1))) == "late"
    assert world.send(0, "SeedReveal", good) == ""
    assert world.send(0, "SeedReveal", good) == "twice"
    assert world.candidate(0).pledges == [Pledge(2, world.commitment(0, 2).commitment, world.share(0, 2))]
    world.go_to(2, 0)
    assert world.send(0, "SeedReveal", good) == "late"


def test_who_is_no_validator_of_the_height_takes_no_part() -> None:
    """A validator's account outlives its seat: a list without it, while its key may still sign."""
    world = ElectionWorld()
    world.take_part(ALL, ALL)
    world.block()
    ticket = world.ticket(0)
    everybody = world.ledger.validators

    def refused(kind: str, fields: object) -> bool:
        for ledger in (world.ledger, world.follower):
            ledger.validators = everybody[1:]
            ledger._schedule = None
        return world.send(0, kind, fields) == "not-validator"

    assert refused("Ticket", ticket)
    assert refused("SeedCommit", world.commitment(0, 3))
    assert refused("SeedReveal", kinds.SeedReveal(2, world.share(0, 2)))


# Strikes -----------------------------------------------------------------------------------------------------


def test_a_skipped_leader_stands_behind_the_others_until_the_term_ends() -> None:
    world = in_term(2)
    world.block()
    skipped = world.order()[0]
    unmoved = [election.draw(world.election().seed, height, [1] * 4) for height in range(world.height, 193)]
    world.block(view=1)
    assert world.election().struck == [world.ids[skipped]]
    for drawn in unmoved[1:]:
        assert world.order() == [*(at for at in drawn if at != skipped), skipped]
        world.block()
    world.block()
    assert world.election().struck == []
    assert election.term_of(world.height - 1) == 3


def test_a_strike_in_the_first_block_of_a_term_counts_for_the_new_term() -> None:
    world = in_term(2)
    skipped = world.order()[0]
    world.block(view=1)
    assert world.election().term == 2 and world.election().struck == [world.ids[skipped]]


# Evidence ----------------------------------------------------------------------------------------------------


@pytest.mark.row("F11")
@pytest.mark.parametrize("phase", ["pre-prepare", "prepare", "commit"])
def test_two_frames_that_contradict_each_other_cost_their_signer_its_rank(phase: str) -> None:
    world = in_term(2)
    world.block()
    kind = {"prepare": Prepare, "commit": Commit}.get(phase)
    frames = [
        world.frame(
            2, PrePrepare(1, 2, 9, 1, bytes([fill]), []) if kind is None else kind(1, 2, 9, 1, bytes([fill]) * 32)
        )
        for fill in (1, 2)
    ]
    evidence = kinds.Evidence(world.validators[2].public, frames[0], frames[1])
    assert world.send(0, "Evidence", evidence) == ""
    assert world.election().demoted == [Demotion(world.ids[2], 2 + election.CONVICTED_TERMS)]
    assert world.candidate(2).faults == 1
    assert world.convicted(2, 9, 1, phase) is not None
    assert world.order()[-1] == 2
    for sender in (1, 2):
        other = kinds.Evidence(evidence.public, evidence.second, evidence.first)
        assert world.send(sender, "Evidence", evidence if sender == 1 else other) == "known"
    assert world.candidate(2).faults == 1
    while election.term_of(world.height) == 2:
        assert world.order()[-1] == 2
        world.block()


def test_proven_faults_make_the_puzzle_harder_until_they_are_forgotten() -> None:
    world = ElectionWorld()
    for height in (5, 6):
        assert world.send(0, "Evidence", world.two_votes(3, height)) == ""
    assert world.candidate(3).faults == 2
    seen = []
    for term in (1, 2, 3):
        world.go_to(term, 1)
        seen.append([one.bits for one in world.election().entrants])
    assert seen == [[16, 16, 16, 24], [16, 16, 16, 20], [16] * 4]


def test_evidence_is_refused_for_what_is_wrong_with_it() -> None:
    world = ElectionWorld()
    frame, public = world.frame, [key.public for key in world.validators]
    one, two = (Commit(1, 3, 5, 0, bytes([fill]) * 32) for fill in (1, 2))
    good = world.two_votes(3)

    def code(first: bytes, second: bytes, key: bytes = public[3]) -> str:
        return world.send(0, "Evidence", kinds.Evidence(key, first, second))

    assert code(b"", frame(3, two)) == "form"
    assert code(frame(3, one), b"\x92\x01\x02") == "form"
    assert code(frame(3, Commit(2, 3, 5, 0, bytes(32))), frame(3, Commit(2, 3, 5, 0, b"x" * 32))) == "form", "chain 2"
    assert code(frame(3, one), frame(3, one)) == "no-conflict", "one vote twice is one vote"
    assert code(frame(3, one), frame(3, Commit(1, 3, 6, 0, two.block_hash))) == "no-conflict"
    assert code(frame(3, one), frame(3, Commit(1, 3, 5, 1, two.block_hash))) == "no-conflict"
    assert code(frame(3, one), frame(3, Commit(1, 2, 5, 0, two.block_hash))) == "no-conflict"
    assert code(frame(3, one), frame(3, Prepare(1, 3, 5, 0, two.block_hash))) == "no-conflict"
    proposals = [frame(3, PrePrepare(1, 3, 5, 0, b"same", digests)) for digests in ([], [bytes(32)])]
    assert code(*proposals) == "no-conflict", "a proposal is its header"
    assert code(frame(3, one), frame(3, two), public[2]) == "signature"
    assert code(frame(3, one), frame(3, two, world.validators[2])) == "signature"
    assert code(frame(3, one), frame(3, two), STRANGER.public) == "unknown-validator"
    assert code(frame(3, one, GRID), frame(3, two, GRID), GRID.public) == "unknown-validator"
    assert world.block(world.call(GRID, "Evidence", good)) == ["role"]
    assert world.election().demoted == [] and world.candidate(3).faults == 0
    assert world.send(3, "Evidence", good) == "", "who submits it does not matter"


def test_convictions_of_a_term_are_bounded() -> None:
    world = ElectionWorld()
    codes = [world.send(0, "Evidence", world.two_votes(3, height)) for height in range(1, 11)]
    assert codes == [""] * 8 + ["enough"] * 2
    assert world.candidate(3).faults == election.FAULTS_MAX
    world.go_to(1, 1)
    assert world.send(0, "Evidence", world.two_votes(3, 9)) == ""
    assert world.send(0, "Evidence", world.two_votes(3, 1)) == "known", "once, for ever"


def test_the_state_of_the_election_starts_the_same_everywhere() -> None:
    one, two = ElectionWorld(), ElectionWorld()
    assert one.ledger.state.get(ELECTION_KEY) == two.ledger.state.get(ELECTION_KEY)
    assert crypto.id8(key_of(20).public) == one.ids[0]
