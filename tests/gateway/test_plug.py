"""Batches of plugs: every rule has a refusal of its own, and a refused batch leaves no trace but its count."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from plug_stand_in import PlugStandIn
from watt_chain import crypto
from watt_gateway.meters.plug import GAP_OFFERS, Fresh, Known, PlugIntake, Refused, Waiting
from watt_wire import batch as batches
from watt_wire import checkpoint, record


def intake_for(*plugs: PlugStandIn) -> PlugIntake:
    return PlugIntake({plug.id: plug.key.public for plug in plugs}, {}, lambda plug_id, counter: None)


def take(intake: PlugIntake, plug: PlugStandIn, payload: bytes) -> None:
    verdict = intake.judge(plug.id, payload)
    assert isinstance(verdict, Fresh), verdict
    intake.stored(verdict.batch)


@pytest.mark.row("C3")
def test_a_good_batch_is_taken_with_all_its_records() -> None:
    plug = PlugStandIn()
    verdict = intake_for(plug).judge(plug.id, plug.batch(count=15))
    assert isinstance(verdict, Fresh)
    assert verdict.batch.record_count == 15 and len(verdict.batch.records) == 15 * record.SIZE
    assert verdict.batch.import_mwh == plug.register_mwh and not verdict.batch.gap


def test_an_empty_batch_is_taken() -> None:
    plug = PlugStandIn()
    assert isinstance(intake_for(plug).judge(plug.id, plug.batch(count=0)), Fresh)


def test_every_flipped_byte_of_a_batch_is_refused_and_counted() -> None:
    plug = PlugStandIn()
    payload = plug.batch(count=2)
    intake = intake_for(plug)
    for at in range(len(payload)):
        broken = payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]
        assert isinstance(intake.judge(plug.id, broken), Refused), f"byte {at}"
    assert sum(intake.refused.values()) == len(payload)
    assert intake.tip(plug.id) is None, "a refused batch must leave nothing behind"
    take(intake, plug, payload)


def foreign_records(plug: PlugStandIn) -> bytes:
    other = PlugStandIn(number=2)
    return plug.seal([record.encode(other.record())], 1)


def skipped_record(plug: PlugStandIn) -> bytes:
    first = record.encode(plug.record())
    plug.record()
    return plug.seal([first, record.encode(plug.record())], 1)


def falling_record(plug: PlugStandIn) -> bytes:
    first = record.encode(plug.record())
    plug.register_mwh -= 5_000
    return plug.seal([first, record.encode(plug.record())], 1)


def signed_by_another(plug: PlugStandIn) -> bytes:
    plug.key = crypto.PrivateKey.from_bytes((99).to_bytes(32, "big"))
    return plug.batch()


@pytest.mark.parametrize(
    ("reason", "make"),
    [
        ("batch-size", lambda plug: b""),
        ("batch-size", lambda plug: plug.batch() + b"\x00"),
        ("batch-magic", lambda plug: b"XXXX" + plug.batch()[4:]),
        ("batch-signature", signed_by_another),
        ("batch-root", lambda plug: plug.batch(merkle_root=bytes(32))),
        ("batch-count", lambda plug: plug.seal([], 1, count=1, merkle_root=bytes(32))),
        ("batch-plug", foreign_records),
        ("batch-plug", lambda plug: plug.batch(plug_id=bytes(8))),
        ("batch-sequence", skipped_record),
        ("batch-register", falling_record),
        ("batch-register", lambda plug: plug.batch(import_mwh=1)),
        ("chain-previous", lambda plug: plug.batch(previous=bytes([7]) * 32)),
        ("chain-gap", lambda plug: plug.batch(counter=5)),
    ],
)
def test_each_broken_rule_has_its_own_reason(reason: str, make: Callable[[PlugStandIn], bytes]) -> None:
    plug = PlugStandIn()
    intake = intake_for(plug)
    assert intake.judge(plug.id, make(plug)) == Refused(reason)
    assert intake.refused == {reason: 1}
    assert intake.tip(plug.id) is None


def test_a_plug_that_is_not_ours_is_refused() -> None:
    ours, other = PlugStandIn(1), PlugStandIn(2)
    intake = intake_for(ours)
    assert intake.judge(other.id, other.batch()) == Refused("plug-unknown")
    assert intake.judge(ours.id, other.batch()) == Refused("batch-plug")


def test_a_register_that_falls_between_batches_is_refused_unless_the_plug_signs_a_discontinuity() -> None:
    plug = PlugStandIn()
    intake = intake_for(plug)
    take(intake, plug, plug.batch())
    plug.register_mwh -= 900_000
    kept = (plug.counter, plug.previous, plug.sequence)
    assert intake.judge(plug.id, plug.batch()) == Refused("register-fell")
    plug.counter, plug.previous, plug.sequence = kept
    assert isinstance(intake.judge(plug.id, plug.batch(reason=checkpoint.DISCONTINUITY)), Fresh)


def test_a_checkpoint_that_does_not_name_the_one_before_is_refused() -> None:
    plug = PlugStandIn()
    intake = intake_for(plug)
    take(intake, plug, plug.batch())
    assert intake.judge(plug.id, plug.batch(previous=bytes(32))) == Refused("chain-previous")


def test_records_that_do_not_follow_the_stored_ones_are_refused() -> None:
    plug = PlugStandIn()
    intake = intake_for(plug)
    take(intake, plug, plug.batch())
    plug.sequence += 1
    assert intake.judge(plug.id, plug.batch()) == Refused("sequence")


def test_a_repeated_batch_is_acknowledged_again_but_not_stored_again() -> None:
    plug = PlugStandIn()
    stored: dict[int, bytes] = {}
    intake = PlugIntake({plug.id: plug.key.public}, {}, lambda plug_id, counter: stored.get(counter))
    payloads = [plug.batch() for _ in range(3)]
    first = intake.judge(plug.id, payloads[0])
    assert isinstance(first, Fresh)
    assert intake.judge(plug.id, payloads[0]) == Waiting(), "not on disk yet: no acknowledgement"
    intake.stored(first.batch)
    stored[1] = first.batch.frame_hash
    for payload in payloads[1:]:
        take(intake, plug, payload)
    assert intake.judge(plug.id, payloads[0]) == Known(plug.id, 1, first.batch.frame_hash)
    assert intake.refused == {}


def test_two_signed_bodies_under_one_counter_are_a_fork() -> None:
    plug = PlugStandIn()
    stored: dict[int, bytes] = {}
    intake = PlugIntake({plug.id: plug.key.public}, {}, lambda plug_id, counter: stored.get(counter))
    verdict = intake.judge(plug.id, plug.batch())
    assert isinstance(verdict, Fresh)
    twin = PlugStandIn()
    assert intake.judge(plug.id, twin.batch(count=1)) == Refused("chain-fork")
    intake.stored(verdict.batch)
    stored[1] = verdict.batch.frame_hash
    again = PlugStandIn()
    assert intake.judge(plug.id, again.batch(count=1)) == Refused("chain-fork")


def test_a_message_that_overtook_another_waits_for_it() -> None:
    plug = PlugStandIn()
    intake = intake_for(plug)
    first, second, third = (plug.batch() for _ in range(3))
    take(intake, plug, first)
    assert intake.judge(plug.id, third) == Refused("chain-gap")
    take(intake, plug, second)
    take(intake, plug, third)


def test_a_batch_the_plug_gave_up_does_not_stop_it_for_ever() -> None:
    plug = PlugStandIn()
    intake = intake_for(plug)
    take(intake, plug, plug.batch())
    plug.batch()  # lost: the plug's flash was full
    window = [plug.batch() for _ in range(3)]
    for _ in range(GAP_OFFERS - 1):
        for payload in window:
            assert intake.judge(plug.id, payload) == Refused("chain-gap")
    verdict = intake.judge(plug.id, window[0])
    assert isinstance(verdict, Fresh) and verdict.batch.gap
    intake.stored(verdict.batch)
    take(intake, plug, window[1])
    take(intake, plug, window[2])


def test_a_new_gateway_takes_over_a_plug_in_the_middle_of_its_life() -> None:
    plug = PlugStandIn()
    plug.batch()
    intake = intake_for(plug)
    payload = plug.batch()
    verdicts = [intake.judge(plug.id, payload) for _ in range(GAP_OFFERS)]
    assert isinstance(verdicts[-1], Fresh) and verdicts[-1].batch.gap


def test_batches_ahead_of_a_failed_commit_are_forgotten_and_taken_again() -> None:
    plug = PlugStandIn()
    intake = intake_for(plug)
    payloads = [plug.batch() for _ in range(3)]
    for payload in payloads:
        assert isinstance(intake.judge(plug.id, payload), Fresh)
    intake.not_stored()
    assert intake.tip(plug.id) is None
    for payload in payloads:
        take(intake, plug, payload)


def test_hostile_bytes_never_raise() -> None:
    plug = PlugStandIn()
    intake = intake_for(plug)
    good = plug.batch()
    for payload in (b"\x00" * 300, b"WPB\x01", good[:100], good[:-1], bytes(batches.SIZE_MAX + 1), b"\xff" * 5000):
        assert isinstance(intake.judge(plug.id, payload), Refused)
