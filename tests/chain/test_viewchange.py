"""The pure functions of the view change: what binds a new view, and when to join others."""

import itertools

import pytest
from chain_world import FalseKey, false_verify, make_genesis
from hypothesis import given
from hypothesis import strategies as st
from watt_chain import block as blocks
from watt_chain import codec
from watt_chain.block import Header, VoteSignature
from watt_chain.genesis import faults_tolerated, network_of, quorum
from watt_chain.pbft.messages import Frame, NewView, Prepared, ViewChange, signed_bytes
from watt_chain.pbft.viewchange import Place, check_prepared, choose, judge_new_view, view_to_join

KEYS = [FalseKey(f"node{index}") for index in range(4)]
PUBLICS = tuple(key.public for key in KEYS)
NETWORK = network_of(make_genesis(list(PUBLICS)))
PLACE = Place(NETWORK, 1, 1, NETWORK, PUBLICS, false_verify)
VIEW = 5


def header(view: int, mark: int = 0, height: int = 1, previous: bytes = NETWORK) -> bytes:
    roots = [bytes([mark]) * 32] * 4
    return codec.encode(Header(2, 1, height, previous, 0, view, 1000, (1 + view) % 4, *roots, 0, 1, 1, roots[0]))


def prepared(view: int, head: bytes, signers: tuple[int, ...] = (0, 1, 2), phase: str = "prepare") -> Prepared:
    hash_ = blocks.block_hash(NETWORK, head)
    message = blocks.vote_bytes(NETWORK, phase, 1, 1, view, hash_)
    return Prepared(view, head, [VoteSignature(index, KEYS[index].sign(message)) for index in signers])


def vote(
    sender: int, certificate: Prepared | None, view: int = VIEW, height: int = 1, signer: int | None = None
) -> bytes:
    message = ViewChange(1, sender, height, view, certificate)
    body = codec.encode(message)
    key = KEYS[sender if signer is None else signer]
    return codec.encode(Frame(body, key.sign(signed_bytes(NETWORK, message, body))))


def judge(*votes: bytes) -> tuple[str, Prepared | None]:
    return judge_new_view(NewView(1, VIEW % 4, 1, VIEW, list(votes)), PLACE, {})


OLD, NEW = prepared(0, header(0, 1)), prepared(3, header(3, 2))
BAD = [
    prepared(4, header(4, 9), signers=(0, 1)),
    prepared(4, header(4, 9), signers=(1, 0, 2)),
    prepared(4, header(4, 9), signers=(0, 0, 1)),
    prepared(4, header(4, 9), phase="commit"),
    Prepared(4, header(4, 9), NEW.votes),
    Prepared(4, b"nonsense", NEW.votes),
    prepared(VIEW, header(VIEW, 9)),
    prepared(2, header(4, 9)),
    prepared(4, header(4, 9, height=2)),
    prepared(4, header(4, 9, previous=bytes(32))),
]


def test_the_certificate_of_the_highest_view_binds_in_every_order_of_every_subset() -> None:
    votes = [vote(0, OLD), vote(1, NEW), vote(2, None), vote(3, OLD)]
    for count in (3, 4):
        for subset in itertools.permutations(votes, count):
            expected = NEW if votes[1] in subset else OLD
            assert judge(*subset) == ("", expected)


def test_nobody_prepared_leaves_the_new_leader_free() -> None:
    assert judge(vote(0, None), vote(2, None), vote(3, None)) == ("", None)


@pytest.mark.parametrize("forged", BAD)
@pytest.mark.row("F11")
def test_a_forged_certificate_hides_no_good_one_and_counts_for_nothing(forged: Prepared) -> None:
    assert check_prepared(forged, VIEW, PLACE)
    good = [vote(0, None), vote(1, NEW), vote(2, OLD)]
    assert judge(vote(3, forged), *good) == ("", NEW)
    assert judge(vote(3, forged), *good[:2]) == ("new-view-quorum", None)


def test_votes_that_do_not_count() -> None:
    good = [vote(0, None), vote(1, NEW)]
    for bad in (
        vote(0, None),  # the same sender again
        vote(2, None, view=VIEW + 1),
        vote(2, None, view=VIEW - 1),
        vote(2, None, height=2),
        vote(2, None, signer=3),
        b"nonsense",
        codec.encode(Frame(b"", bytes(64))),
    ):
        assert judge(*good, bad) == ("new-view-quorum", None)
    assert judge(*good, vote(2, None)) == ("", NEW)


def test_the_choice_between_two_certificates_of_one_view_is_the_same_for_everybody() -> None:
    twins = [ViewChange(1, index, 1, VIEW, prepared(3, header(3, index))) for index in (2, 1, 3)]
    assert len({choose(order).header for order in itertools.permutations(twins)}) == 1  # type: ignore[union-attr]


def test_one_liar_with_a_huge_view_moves_nobody() -> None:
    assert view_to_join([2**31, 0, 0], 0, 4) is None
    assert view_to_join([2**31, 1, 0], 0, 4) == 1
    assert view_to_join([2**31, 7, 3], 0, 4) == 7
    assert view_to_join([3, 3, 3], 3, 4) is None


@given(st.integers(2, 10), st.data())
def test_the_view_joined_was_reached_by_an_honest_validator(n: int, data: st.DataObject) -> None:
    f = faults_tolerated(n)
    honest = data.draw(st.lists(st.integers(0, 9), min_size=n - 1 - f, max_size=n - 1 - f))
    liars = data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=f, max_size=f))
    own = data.draw(st.integers(0, 9))
    target = view_to_join(honest + liars, own, n)
    if target is not None:
        assert own < target <= max(honest, default=-1)
    if sum(view > own for view in honest) > f:
        assert target is not None
    assert quorum(n) <= n
