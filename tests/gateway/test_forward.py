"""The outbox machine: nothing leaves it but by a receipt, whatever stations and brokers do."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from watt_gateway.forward import (
    FLIGHT_MAX,
    JITTER_PPM,
    REASONS_MAX,
    RESEND_MAX_MS,
    RESEND_MIN_MS,
    STALE_REFUSALS_MAX,
    Forwarder,
)
from watt_gateway.store import OutboxItem


def make(kind: str, nonce: int, fields: bytes) -> tuple[bytes, bytes]:
    tx = f"{kind}/{nonce}/".encode() + fields
    return b"id:" + tx, tx


def forwarder(items: int = 3) -> Forwarder:
    machine = Forwarder(make, Random(1))
    machine.add([OutboxItem(seq, "Checkpoint", f"checkpoint/{seq}", b"%d" % seq) for seq in range(1, items + 1)])
    return machine


def sign(machine: Forwarder) -> list[int]:
    attempts = machine.to_sign()
    machine.signed(attempts)
    return [attempt.nonce for attempt in attempts]


def sent(machine: Forwarder, now_ms: int) -> list[bytes]:
    return [send.tx for send in machine.due(now_ms)]


def running(items: int = 3) -> Forwarder:
    machine = forwarder(items)
    machine.account(0, 1)
    sign(machine)
    return machine


def test_nothing_is_signed_before_the_account_is_proven() -> None:
    machine = forwarder()
    assert machine.to_sign() == [] and sent(machine, 0) == []
    assert machine.wants_account(0)
    assert not machine.wants_account(1), "asked for once per RESYNC_MS"
    assert machine.wants_account(5_000)


def test_items_get_consecutive_nonces_in_their_order() -> None:
    machine = forwarder()
    machine.account(41, 9)
    assert sign(machine) == [42, 43, 44]
    assert sent(machine, 0) == [b"Checkpoint/42/1", b"Checkpoint/43/2", b"Checkpoint/44/3"]


def test_a_signature_is_not_sent_before_it_is_durable() -> None:
    machine = forwarder()
    machine.account(0, 1)
    attempts = machine.to_sign()
    assert len(attempts) == 3 and sent(machine, 0) == []
    machine.signed(attempts)
    assert len(sent(machine, 0)) == 3


def test_no_more_than_the_bound_is_on_the_way() -> None:
    machine = running(items=FLIGHT_MAX + 5)
    assert len(sent(machine, 0)) == FLIGHT_MAX
    machine.settled(1, 5)
    assert sign(machine) == [FLIGHT_MAX + 1]


def test_a_lost_transaction_is_repeated_with_growing_pauses_for_ever() -> None:
    machine = running(items=1)
    times: list[int] = []
    now_ms = 0
    while len(times) < 12:
        if sent(machine, now_ms):
            times.append(now_ms)
        deadline = machine.next_deadline_ms()
        assert deadline is not None and deadline > now_ms
        now_ms = deadline
    pauses = [late - early for early, late in pairwise(times)]
    assert RESEND_MIN_MS <= pauses[0] <= RESEND_MIN_MS * (1_000_000 + JITTER_PPM) // 1_000_000
    assert all(pause <= RESEND_MAX_MS * (1_000_000 + JITTER_PPM) // 1_000_000 for pause in pauses)
    assert pauses[-1] >= RESEND_MAX_MS
    assert len(machine) == 1, "silence never ends an item"


def test_silence_makes_it_doubt_the_account() -> None:
    machine = running(items=1)
    now_ms = 0
    for _ in range(5):
        sent(machine, now_ms)
        now_ms = machine.next_deadline_ms() or 0
    assert machine.wants_account(now_ms)


def test_only_a_settlement_ends_an_item_and_a_second_one_changes_nothing() -> None:
    machine = running()
    machine.settled(1, 5)
    assert len(machine) == 2 and machine.find(b"id:Checkpoint/1/1") is None
    machine.settled(1, 5)
    assert len(machine) == 2


def test_an_answer_for_somebody_elses_transaction_is_not_ours() -> None:
    machine = running()
    assert machine.find(b"id:Checkpoint/1/2") is None
    machine.pool_refused(b"another", "nonce-used", 0)
    assert len(machine) == 3


def test_a_refusal_by_a_pool_ends_nothing_and_is_counted() -> None:
    machine = running(items=1)
    for number in range(3 * REASONS_MAX):
        machine.pool_refused(b"id:Checkpoint/1/1", f"reason-{number}", number)
    assert len(machine) == 1 and machine.find(b"id:Checkpoint/1/1") is not None
    assert len(machine.refused) <= REASONS_MAX + 1 and machine.refused["other"] > 0


def test_a_final_transaction_whose_receipt_was_lost_is_sent_again_unchanged() -> None:
    machine = running()
    sent(machine, 0)
    machine.pool_refused(b"id:Checkpoint/1/1", "nonce-used", 10)
    assert machine.wants_account(10)
    machine.account(3, 8)
    assert machine.to_sign() == [], "the same bytes must be offered, for their receipt"
    assert b"Checkpoint/1/1" in sent(machine, 100_000)
    assert machine.find(b"id:Checkpoint/1/1") is not None


def test_a_nonce_used_elsewhere_is_replaced_only_after_every_station_had_its_say() -> None:
    """A restored backup, or the key on a second gateway: our nonce 1 is somebody else's transaction."""
    machine = running(items=2)
    sent(machine, 0)
    machine.pool_refused(b"id:Checkpoint/1/1", "nonce-used", 0)
    machine.account(1, 8)
    for number in range(STALE_REFUSALS_MAX):
        assert machine.to_sign() == [], number
        machine.pool_refused(b"id:Checkpoint/1/1", "nonce-used", number)
    machine.account(1, 8)
    assert sign(machine) == [3], "above the nonce that the second item waits with"
    assert b"Checkpoint/3/1" in sent(machine, 100_000)
    found = machine.find(b"id:Checkpoint/1/1")
    assert found is not None and found[1].nonce == 1, "should the old form win after all, its receipt counts"


def test_a_refusal_without_proof_never_replaces_a_nonce() -> None:
    """A lying station says nonce-used as often as it likes; the proven account says otherwise."""
    machine = running(items=1)
    for number in range(10 * STALE_REFUSALS_MAX):
        machine.pool_refused(b"id:Checkpoint/1/1", "nonce-used", number)
        machine.account(0, 8)
    assert machine.to_sign() == []
    assert machine.find(b"id:Checkpoint/1/1") is not None


def test_a_hole_that_nothing_fills_is_signed_anew_in_order() -> None:
    """The chain was set back, or signatures were lost: what we hold can never run."""
    machine = forwarder()
    machine.account(10, 5)
    assert sign(machine) == [11, 12, 13]
    machine.pool_refused(b"id:Checkpoint/11/1", "nonce-far", 0)
    machine.account(2, 6)
    assert sign(machine) == [3, 4, 5]


def test_an_account_proof_older_than_a_receipt_is_left_aside() -> None:
    machine = running()
    machine.settled(1, 50)
    machine.account(0, 49)
    assert machine.to_sign() == []
    machine.add([OutboxItem(9, "Commit", "commit/1", b"9")])
    assert sign(machine) == [4]


def test_a_restart_sends_the_same_bytes_again() -> None:
    machine = forwarder()
    machine.account(0, 1)
    attempts = machine.to_sign()
    machine.signed(attempts)
    restarted = Forwarder(make, Random(1))
    restarted.restore(
        [
            OutboxItem(a.seq, "Checkpoint", f"checkpoint/{a.seq}", b"%d" % a.seq, a.nonce, a.txid, a.tx)
            for a in attempts
        ],
        attempts,
    )
    assert sent(restarted, 0) == [attempt.tx for attempt in attempts]
    restarted.account(1, 9)
    assert restarted.to_sign() == []
    restarted.add([OutboxItem(9, "Commit", "commit/1", b"9")])
    assert sign(restarted) == [4]


def test_without_a_broker_nothing_counts_as_tried_and_its_return_sends_at_once() -> None:
    machine = running(items=2)
    sends = machine.due(0)
    machine.not_sent(sends)
    assert machine.due(1) == []
    machine.due(10_000)
    machine.broker_up()
    assert len(sent(machine, 10_001)) == 2


@pytest.mark.parametrize("reason", ["signer-unknown", "nonce-taken"])
def test_not_being_enrolled_yet_asks_for_the_account_again(reason: str) -> None:
    machine = running(items=1)
    assert not machine.wants_account(0)
    machine.pool_refused(b"id:Checkpoint/1/1", reason, 0)
    assert machine.wants_account(0)
