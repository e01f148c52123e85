"""Delivery: checkpoints of plugs, registers at slot boundaries, metered load.

The household only carries a plug's frame; what counts is the plug's own signature, counter and hash chain (C12, D1).
Registers are kept for every open event of which the owner has a qualified bid.  A register that is missing, or a slot
that a discontinuity touched, makes the user "unverified" for that event: never a breach.
"""

from typing import Final

from msgspec.structs import replace
from watt_wire import checkpoint as wire
from watt_wire.errors import DecodeError
from watt_wire.fields import QUALITY_UNSYNCHRONISED

from watt_chain import crypto
from watt_chain.contract import baseline
from watt_chain.contract.access import Session, refuse, refuse_if
from watt_chain.contract.event import EventSpec, State
from watt_chain.contract.kinds import Checkpoint
from watt_chain.contract.objects import (
    NO_REGISTER,
    Account,
    AreaEvent,
    EventMeter,
    Plug,
    PlugRegisters,
    User,
    plug_key,
    register_key,
)

SKEW_S: Final = 300
"A synchronised clock is within seconds; five minutes cover a proposer whose clock lags."
LATE_S_MAX: Final = 40 * 86_400
"A gateway may be without uplink for a billing month and ten days."

PLAUSIBLE: Final = 2
"No plug carries twice its rated power through a slot: a register that says so is a fault, not a load."

METERING_STATES: Final = (
    State.ANNOUNCED,
    State.COMMIT,
    State.REVEAL,
    State.QUALIFIED,
    State.MATCHED,
    State.CONFIRMED,
    State.DELIVERING,
)
"States in which registers are still taken for an event."


def take_checkpoint(session: Session, signer: Account, fields: Checkpoint) -> None:
    """Verify a plug's checkpoint, move its chain forward, store registers at boundaries of open events."""
    try:
        frame = wire.decode(fields.frame)
    except DecodeError:
        refuse("frame")
    plug = session.get(plug_key(frame.plug_id), Plug)
    if plug is None:
        refuse("unknown-plug")
    refuse_if(plug.owner != signer.id, "not-yours")
    refuse_if(plug.to_height != 0, "plug-revoked")
    refuse_if(frame.counter <= plug.counter, "counter")
    refuse_if(frame.counter == plug.counter + 1 and frame.previous != plug.previous, "previous")
    message = wire.signing_message(wire.body_of(fields.frame))
    refuse_if(not crypto.verify(plug.public, message, wire.signature_of(fields.frame)), "signature")
    broken = frame.reason == wire.DISCONTINUITY
    fell = frame.import_mwh < plug.import_mwh or frame.export_mwh < plug.export_mwh
    refuse_if(fell and not broken, "register-fell")
    timed = frame.time_quality != QUALITY_UNSYNCHRONISED
    if timed:
        _check_time(session, plug, frame)
    # An unsynchronised clock says nothing about when: such a discontinuity reaches up to this block.
    time_s = frame.time_s if timed else session.context.time_s
    if timed and not broken:
        baseline.note_register(session, plug.id, frame.time_s, frame.import_mwh)
    _note_events(session, plug, frame, time_s if broken or timed else -1, broken, timed, fields.main_meter_mwh)
    session.put(
        plug_key(plug.id),
        replace(
            plug,
            counter=frame.counter,
            previous=wire.frame_hash(fields.frame),
            boot_id=frame.boot_id,
            time_s=frame.time_s if timed else plug.time_s,
            import_mwh=frame.import_mwh,
            export_mwh=frame.export_mwh,
            next_sequence=frame.first_sequence + frame.count,
            gaps=plug.gaps + frame.counter - plug.counter - 1,
            discontinuities=plug.discontinuities + int(broken),
        ),
    )


def _check_time(session: Session, plug: Plug, frame: wire.Checkpoint) -> None:
    now_s = session.context.time_s
    refuse_if(frame.time_s > now_s + SKEW_S, "time-future")
    refuse_if(frame.time_s < now_s - LATE_S_MAX, "time-past")
    may_step_back = frame.reason in (wire.CLOCK_STEP, wire.BOOT)
    refuse_if(frame.time_s < plug.time_s and not may_step_back, "time-backwards")


def _note_events(
    session: Session, plug: Plug, frame: wire.Checkpoint, time_s: int, broken: bool, timed: bool, main_mwh: int
) -> None:
    """Register and breaks of this plug in every open event of its owner."""
    if time_s < 0:
        return
    for number in session.open_events().numbers:
        event = session.event(number)
        if event.state not in METERING_STATES:
            continue
        spec = event.spec
        boundary = _boundary(spec, frame.time_s) if timed else -1
        if boundary < 0 and not broken:
            continue
        sealed = session.sealed(number, plug.owner)
        if sealed is None or sealed.status != "qualified":
            continue
        meter = session.get(register_key(number, plug.owner), EventMeter)
        meter = meter or empty_meter(session.user(plug.owner), spec)
        if broken:
            meter = _mark_broken(meter, plug, spec, time_s)
        if boundary >= 0:
            meter = _note_registers(meter, plug.id, boundary, frame.import_mwh, main_mwh)
        session.put(register_key(number, plug.owner), meter)


def _boundary(spec: EventSpec, time_s: int) -> int:
    """Index of the slot boundary at exactly this instant, -1 when there is none."""
    since_s = time_s - spec.window_start_s
    if since_s < 0 or since_s % spec.slot_s or since_s // spec.slot_s > spec.slots:
        return -1
    return since_s // spec.slot_s


def empty_meter(user: User, spec: EventSpec) -> EventMeter:
    """Registers of a metering point before its first boundary."""
    missing = [NO_REGISTER] * (spec.slots + 1)
    return EventMeter([PlugRegisters(plug, list(missing), [False] * spec.slots) for plug in user.plugs], missing)


def _note_registers(meter: EventMeter, plug: bytes, boundary: int, import_mwh: int, main_mwh: int) -> EventMeter:
    """The first checkpoint at a boundary gives its register; a later one of the same second changes nothing."""
    rows: list[PlugRegisters] = []
    for row in meter.plugs:
        values = list(row.import_mwh)
        if row.plug == plug and values[boundary] == NO_REGISTER:
            values[boundary] = import_mwh
        rows.append(replace(row, import_mwh=values))
    whole = list(meter.main_mwh)
    if whole[boundary] == NO_REGISTER:
        whole[boundary] = main_mwh
    return EventMeter(rows, whole)


def _mark_broken(meter: EventMeter, plug: Plug, spec: EventSpec, time_s: int) -> EventMeter:
    """A discontinuity somewhere after the plug's last checkpoint and up to time_s breaks every slot it may be in."""
    rows: list[PlugRegisters] = []
    for row in meter.plugs:
        marks = list(row.broken)
        if row.plug == plug.id:
            for slot in range(spec.slots):
                start_s = spec.window_start_s + slot * spec.slot_s
                if start_s < time_s and plug.time_s < start_s + spec.slot_s:
                    marks[slot] = True
        rows.append(replace(row, broken=marks))
    return replace(meter, plugs=rows)


def metered_wh(meter: EventMeter | None, rated_w: list[int], spec: EventSpec) -> list[int]:
    """Load of a metering point per slot, Wh: sum over plugs of floor(end / 1000) - floor(start / 1000).

    rated_w     rated power of the metering point's plugs, in its order
    Returns     NO_REGISTER in a slot where any register is missing or fell, any plug is broken, or any plug counted
                more than PLAUSIBLE times its rated power
    """
    if meter is None:
        return [NO_REGISTER] * spec.slots
    return [_slot_wh(meter, rated_w, spec.slot_s, slot) for slot in range(spec.slots)]


def _slot_wh(meter: EventMeter, rated_w: list[int], slot_s: int, slot: int) -> int:
    load_wh = 0
    for row, power_w in zip(meter.plugs, rated_w, strict=True):
        start_mwh, end_mwh = row.import_mwh[slot], row.import_mwh[slot + 1]
        if row.broken[slot] or start_mwh == NO_REGISTER or end_mwh < start_mwh:
            return NO_REGISTER
        if (end_mwh - start_mwh) * 18 > PLAUSIBLE * power_w * slot_s * 5:  # 1 W s = 5/18 mWh
            return NO_REGISTER
        load_wh += end_mwh // 1000 - start_mwh // 1000
    return load_wh


def outside_wh(meter: EventMeter | None, metered: list[int]) -> int:
    """Load of the home that no plug measures, over the window, Wh; NO_REGISTER when it is not known."""
    if meter is None or NO_REGISTER in metered or NO_REGISTER in (meter.main_mwh[0], meter.main_mwh[-1]):
        return NO_REGISTER
    return max(0, meter.main_mwh[-1] // 1000 - meter.main_mwh[0] // 1000 - sum(metered))


def is_complete(session: Session, event: AreaEvent, users: list[bytes]) -> bool:
    """Whether nothing that could still arrive can change the metered load of these users."""
    for user in users:
        meter = session.get(register_key(event.event, user), EventMeter)
        if meter is None or any(NO_REGISTER in row.import_mwh for row in meter.plugs):
            return False
    return True
