"""A validator that does not trust its memory, and a state that nobody sends: CONSENSUS.md 4.6.6, 4.7.7."""

from itertools import permutations

import pytest
from chain_world import START_S, CountingContract, FalseKey, certify, false_verify, make_genesis, make_tx
from msgspec.structs import replace
from watt_chain import codec
from watt_chain.codec import ZERO32, DecodeError
from watt_chain.genesis import Genesis
from watt_chain.ledger import Ledger
from watt_chain.pbft import Output, Replica, ReplicaConfig
from watt_chain.pbft.config import STATE_MISSES_MAX, SYNC_TIMEOUT_MS
from watt_chain.pbft.messages import (
    NO_SIGNATURE,
    Frame,
    Prepare,
    Prepared,
    PrePrepare,
    StateOffer,
    StatePart,
    StateRequest,
    Status,
    open_any,
    signed_bytes,
)
from watt_chain.pbft.outputs import DOUBT, Record
from watt_chain.snapshot import CHUNK_SLOTS, FrozenState, Manifest, StateRange
from watt_chain.state import State
from watt_wire import merkle

KEYS = [FalseKey(f"node{index}") for index in range(4)]
GENESIS = make_genesis([key.public for key in KEYS])
SLOTS = 600
"""Of a state of three chunks."""


class WideContract(CountingContract):
    """Begins with a state of several chunks."""

    def genesis(self, state: State, genesis: Genesis, chain: int) -> None:
        for slot in range(SLOTS):
            state.put(b"slot/%d" % slot, codec.encode(slot))


def make_replica(
    records: list[bytes],
    contract: CountingContract | None = None,
    manifest: Manifest | None = None,
    parts: list[StateRange] | None = None,
    floor: int = 0,
) -> Replica:
    ledger = Ledger(GENESIS, 1, contract or CountingContract(), verify=false_verify)
    config = ReplicaConfig(0, KEYS[0], lambda now_ms: START_S + now_ms // 1000, verify=false_verify)
    replica = Replica(config, ledger)
    replica.restore(records, 1000, floor, manifest, parts or [])
    return replica


def hear(replica: Replica, sender: int, message: Status | StateOffer | StatePart, now_ms: int = 1000) -> Output:
    replica.receive(sender, codec.encode(Frame(codec.encode(message), NO_SIGNATURE)), now_ms)
    return replica.take_output()


def in_doubt() -> Replica:
    return make_replica([codec.encode(Record(DOUBT, 0, 0, ZERO32, b"missing"))])


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
def test_a_liar_that_claims_blocks_cannot_prevent_a_network_from_being_founded(order: tuple[int, ...]) -> None:
    replica = in_doubt()
    assert replica.doubt == "missing"
    for sender in order:
        hear(replica, sender, Status(1, sender, 900 if sender == 3 else 0, 0, False))
    assert not replica.doubt


def test_what_others_say_later_still_founds_a_network() -> None:
    replica = in_doubt()
    hear(replica, 1, Status(1, 1, 0, 0, False))
    hear(replica, 3, Status(1, 3, 7, 0, False))
    assert replica.doubt == "missing"
    hear(replica, 2, Status(1, 2, 3, 0, False))
    assert replica.doubt == "missing"
    hear(replica, 2, Status(1, 2, 0, 0, False))
    assert not replica.doubt


def test_one_liar_that_claims_blocks_does_not_keep_a_validator_silent() -> None:
    replica = make_replica([])
    assert replica.status()["silent"] == "asking"
    hear(replica, 3, Status(1, 3, 900, 0, False))
    assert replica.status()["silent"] == "asking"
    hear(replica, 1, Status(1, 1, 0, 0, False))
    assert replica.status()["silent"] == ""


def is_prepared(replica: Replica) -> bool:
    """Whether the replica supports a good block of height 1 that its leader proposes."""
    ledger = Ledger(GENESIS, 1, CountingContract(), verify=false_verify)
    tx = make_tx(FalseKey("user"), ledger.network, 1)
    leader = ledger.schedule.leader(1, 0)
    block = ledger.build(0, leader, START_S + 1, [tx])
    message = PrePrepare(1, leader, 1, 0, block.header, [merkle.leaf_hash(tx)])
    body = codec.encode(message)
    frame = codec.encode(Frame(body, KEYS[leader].sign(signed_bytes(ledger.network, message, body))))
    assert replica.submit(tx, 1000) == ""
    replica.receive(leader, frame, 1000)
    output = replica.take_output()
    sent = [open_any(frame)[1] for _, frame in output.send]
    assert not output.rejected
    return any(isinstance(one, Prepare) for one in sent)


def test_a_validator_supports_a_block_only_while_it_trusts_its_memory() -> None:
    trusting, below, doubting = make_replica([]), make_replica([], floor=1), in_doubt()
    for replica, silent in ((trusting, ""), (below, "below-floor")):
        for sender in (1, 2):
            hear(replica, sender, Status(1, sender, 0, 0, False))
        assert replica.status()["silent"] == silent
    assert is_prepared(trusting)
    assert not is_prepared(below), "its votes of height 1 may be forgotten"
    assert not is_prepared(doubting)


def test_a_state_whose_certificate_does_not_hold_is_refused() -> None:
    ledger, whole = Ledger(GENESIS, 1, WideContract(), verify=false_verify), frozen()[0].manifest()
    view, votes = codec.decode(whole.certificate, list)
    forged = codec.encode([view, [*votes[:-1], [votes[-1][0], bytes(64)]]])
    with pytest.raises(DecodeError, match="certificate"):
        ledger.check_final(replace(whole, certificate=forged))


def frozen() -> list[FrozenState]:
    """The states after heights 1 and 2."""
    ledger = Ledger(GENESIS, 1, WideContract(), verify=false_verify, freeze_every=1)
    for height in (1, 2):
        tx = make_tx(FalseKey("user"), ledger.network, height)
        ledger.apply(certify(ledger, ledger.build(0, ledger.schedule.leader(height, 0), START_S, [tx]), KEYS))
    return ledger.frozen


def asked(output: Output) -> list[int]:
    """Whom the replica asks for a part of a state."""
    return [peer for peer, frame in output.send if isinstance(open_any(frame)[1], StateRequest)]


def test_a_list_of_contents_that_does_not_fit_its_header_is_refused() -> None:
    ledger, whole = Ledger(GENESIS, 1, WideContract(), verify=false_verify), frozen()[0].manifest()
    assert ledger.check_final(whole).height == 1
    for roots in ([ZERO32, *whole.chunk_roots[1:]], [*whole.chunk_roots[:-1], ZERO32], whole.chunk_roots[::-1]):
        with pytest.raises(DecodeError, match="manifest-root"):
            ledger.check_final(replace(whole, chunk_roots=roots))
    for size in (len(whole.chunk_roots) * CHUNK_SLOTS + 1, (len(whole.chunk_roots) - 1) * CHUNK_SLOTS):
        with pytest.raises(DecodeError, match="manifest-size"):
            ledger.check_final(replace(whole, size=size))


def test_a_state_that_its_offerer_does_not_send_is_asked_of_the_next_who_offers_the_same() -> None:
    replica = make_replica([], WideContract())
    offer = frozen()[0].manifest()
    assert asked(hear(replica, 1, StateOffer(1, 1, 1, offer))) == [1]
    assert asked(hear(replica, 2, StateOffer(1, 2, 1, offer))) == []  # the first is still being waited for
    replica.expire(1000 + SYNC_TIMEOUT_MS)
    replica.take_output()
    assert asked(hear(replica, 2, StateOffer(1, 2, 1, offer), 1000 + SYNC_TIMEOUT_MS)) == [2]


def test_a_dead_peer_does_not_keep_alive_a_state_that_all_others_have_left_behind() -> None:
    replica = make_replica([], WideContract())
    old, new = frozen()
    hear(replica, 1, StateOffer(1, 1, 1, old.manifest()))
    for slot, following in ((0, [1]), (512, [2])):  # the first chunk of each peak by who made the offer, then by others
        part = old.range(slot)
        assert part is not None
        assert asked(hear(replica, 1, StatePart(1, 1, 1, part))) == following
    for peer in (1, 2):
        hear(replica, peer, StateOffer(1, peer, 2, new.manifest()))
    now_ms = 1000
    for _ in range(STATE_MISSES_MAX):  # nobody but the dead one is left to ask
        now_ms += SYNC_TIMEOUT_MS
        replica.expire(now_ms)
        assert {*asked(replica.take_output())} <= {3}
    assert asked(hear(replica, 2, StateOffer(1, 2, 2, new.manifest()), now_ms)) == [2]


def test_a_state_whose_last_part_came_just_before_a_crash_is_installed_at_the_next_start() -> None:
    state = frozen()[0]
    parts = [part for slot in (0, 256, 512) if (part := state.range(slot)) is not None]
    half = make_replica([], WideContract(), state.manifest(), parts[:2])
    assert half.take_output().installed is None and half.status()["height"] == 0
    whole = make_replica([], WideContract(), state.manifest(), parts)
    installed = whole.take_output().installed
    assert installed is not None and installed.height == 1 and whole.status()["height"] == 1


def test_records_of_heights_on_whose_list_it_is_not_are_no_votes_of_a_node() -> None:
    """CONSENSUS.md 8.3: somebody gave it the disk of another validator, or its key was replaced."""
    record = codec.encode(Record("commit", 1, 0, bytes(32), codec.encode(Prepared(0, b"", []))))
    ledger = Ledger(GENESIS, 1, CountingContract(), verify=false_verify)
    config = ReplicaConfig(4, FalseKey("stranger"), lambda now_ms: START_S + now_ms // 1000, verify=false_verify)
    replica = Replica(config, ledger)
    replica.restore([record], 1000)
    replica.expire(5000)
    assert replica.status()["phase"] == "following"
    assert {type(open_any(frame)[1]) for _, frame in replica.take_output().send} <= {Status}


def test_a_range_that_is_not_the_state_s_is_counted_not_kept_and_its_sender_not_asked_again() -> None:
    replica = make_replica([], WideContract())
    state = frozen()[0]
    hear(replica, 1, StateOffer(1, 1, 1, state.manifest()))
    for slot in (0, 512):
        part = state.range(slot)
        assert part is not None
        hear(replica, 1, StatePart(1, 1, 1, part))
    true = state.range(256)
    assert true is not None
    entries = [(key, value + b"\x00") for key, value in true.entries]
    output = hear(replica, 2, StatePart(1, 2, 1, StateRange(256, entries, true.path)))
    assert [item.reason for item in output.rejected] == ["state-part"] and asked(output) == [3]
    hear(replica, 3, StatePart(1, 3, 1, true))
    assert replica.status()["height"] == 1
