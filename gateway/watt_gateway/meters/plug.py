"""Signed batches of plugs: what is taken, what is refused and why.

Strategy. `watt_wire.batch.accept` holds the rules that a batch obeys alone (shape, signature, Merkle root, order of
its records); this module adds the rules that need memory: is the plug ours, does the checkpoint continue the chain
of counters and hashes that is on our disk, do the registers continue. A batch is *ahead* from the moment it was found
good until the store has it on disk; only then is it the plug's tip, and only then may an acknowledgement go out.

A missing counter may be a message that comes later or one the plug had to give up (its flash was full). The first
must not be skipped, the second must not stop the plug for ever: a batch behind a gap is refused until the plug has
offered the very same frame GAP_OFFERS times and nothing older; then it is stored with the gap marked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from watt_chain import crypto
from watt_wire import batch as batches
from watt_wire import checkpoint as checkpoints
from watt_wire.errors import DecodeError
from watt_wire.record import Record

from watt_gateway.store import Batch, Tip

GAP_OFFERS = 3
"""A plug offers its oldest four batches in order and again every 20 s: three offers mean nothing older exists."""
GAP_OFFERS_ALONE = 2 * GAP_OFFERS
"""Offers after which an older frame that was seen once, and never again, no longer holds the plug up."""
GAP_FRAMES_MAX = 8
"""Frames behind a gap that are watched per plug: twice the plug's window."""
REASONS_MAX = 64
"""Distinct reasons counted; they are constants of watt_wire and this module, the bound is a seat belt."""
PAST_TIP_MAX = 16
"""Batches of one plug between "found good" and "on disk"; more wait in the plug."""

StoredHash = Callable[[bytes, int], bytes | None]
"""(plug, counter) -> hash of the stored checkpoint, None when there is none."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """A good batch that is not on disk yet."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class Known:
    """A batch that is on disk already: acknowledge it again, store nothing."""

    plug: bytes
    counter: int
    frame_hash: bytes


@dataclass(frozen=True, slots=True)
class Waiting:
    """The same batch is on its way to the disk: its acknowledgement follows, nothing to do."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A batch that is not taken; the reason is counted."""

    reason: str


Verdict = Fresh | Known | Waiting | Refused


class PlugIntake:
    """Judges the batches of one household's plugs."""

    def __init__(self, publics: Mapping[bytes, bytes], tips: Mapping[bytes, Tip], stored_hash: StoredHash) -> None:
        """`publics`: public key by plug id; `tips`: what is on disk."""
        self._publics = dict(publics)
        self._tips = dict(tips)
        self._stored_hash = stored_hash
        self._ahead: dict[bytes, list[Batch]] = {}
        self._offers: dict[bytes, dict[tuple[int, bytes], int]] = {}
        self.refused: dict[str, int] = {}
        "How often a batch was refused, by reason."

    def admit(self, publics: Mapping[bytes, bytes]) -> None:
        """Take batches of these plugs from now on: one may have been paired, or forgotten, since the start."""
        self._publics = dict(publics)

    def judge(self, plug: bytes, payload: bytes) -> Verdict:
        """Look at a batch that came under the topic of `plug`; a refusal is counted and changes nothing else."""
        verdict = self._judge(plug, payload)
        if isinstance(verdict, Refused):
            reason = verdict.reason if len(self.refused) < REASONS_MAX else "other"
            self.refused[reason] = self.refused.get(reason, 0) + 1
        elif isinstance(verdict, Fresh):
            self._ahead.setdefault(plug, []).append(verdict.batch)
            self._offers.pop(plug, None)
        return verdict

    def stored(self, stored: Batch) -> None:
        """The batch is on disk: it is the tip now."""
        self._tips[stored.plug] = stored.tip
        waiting = self._ahead.get(stored.plug, [])
        self._ahead[stored.plug] = [batch for batch in waiting if batch.counter > stored.counter]

    def not_stored(self) -> None:
        """The store refused: forget everything that is ahead of the disk; the plugs offer it again."""
        self._ahead.clear()

    def tip(self, plug: bytes) -> Tip | None:
        """The newest checkpoint, on disk or ahead of it, that the next one must continue."""
        ahead = self._ahead.get(plug)
        return ahead[-1].tip if ahead else self._tips.get(plug)

    def _judge(self, plug: bytes, payload: bytes) -> Verdict:
        public = self._publics.get(plug)
        if public is None:
            return Refused("plug-unknown")
        try:
            checkpoint, records = batches.accept(payload, public, crypto.verify)
            frame, frames = batches.decode(payload)
            frame_hash = checkpoints.frame_hash(frame)
        except DecodeError as error:
            return Refused(error.reason)
        known = self._known(plug, checkpoint.counter, frame_hash)
        if known is not None:
            return known
        tip = self.tip(plug)
        gap = False
        if tip is None or checkpoint.counter != tip.counter + 1:
            if tip is None and checkpoint.counter == 1:
                if checkpoint.previous != checkpoints.NO_PREVIOUS:
                    return Refused("chain-previous")
            elif not self._patience_is_over(plug, checkpoint.counter, frame_hash):
                return Refused("chain-gap")
            else:
                gap = True
        elif checkpoint.previous != tip.frame_hash:
            return Refused("chain-previous")
        reason = _against_tip(checkpoint, records, tip, gap)
        if reason:
            return Refused(reason)
        if len(self._ahead.get(plug, [])) >= PAST_TIP_MAX:
            return Refused("busy")
        return Fresh(
            Batch(
                plug,
                checkpoint.counter,
                frame_hash,
                frame,
                b"".join(frames),
                checkpoint.first_sequence,
                checkpoint.count,
                checkpoint.time_s,
                checkpoint.import_mwh,
                checkpoint.export_mwh,
                gap,
            )
        )

    def _known(self, plug: bytes, counter: int, frame_hash: bytes) -> Verdict | None:
        for batch in self._ahead.get(plug, []):
            if batch.counter == counter:
                return Waiting() if batch.frame_hash == frame_hash else Refused("chain-fork")
        tip = self._tips.get(plug)
        if tip is None or counter > tip.counter:
            return None
        stored = frame_hash if counter == tip.counter and frame_hash == tip.frame_hash else None
        stored = stored or self._stored_hash(plug, counter)
        if stored is None:
            return Refused("chain-old")
        # Two signed bodies under one counter: the plug's key was copied or its memory restored.
        return Known(plug, counter, frame_hash) if stored == frame_hash else Refused("chain-fork")

    def _patience_is_over(self, plug: bytes, counter: int, frame_hash: bytes) -> bool:
        offers = self._offers.setdefault(plug, {})
        frame = (counter, frame_hash)
        if frame not in offers and len(offers) >= GAP_FRAMES_MAX:
            del offers[max(offers)]
        offers[frame] = offers.get(frame, 0) + 1
        return offers[frame] >= (GAP_OFFERS if frame == min(offers) else GAP_OFFERS_ALONE)


def _against_tip(checkpoint: checkpoints.Checkpoint, records: list[Record], tip: Tip | None, gap: bool) -> str:
    """ "" or why the registers and numbers do not continue what is on disk."""
    if tip is None:
        return ""
    if checkpoint.first_sequence < tip.next_sequence or (not gap and checkpoint.first_sequence > tip.next_sequence):
        return "sequence"
    if checkpoint.reason == checkpoints.DISCONTINUITY:
        return ""  # a register may fall then; the plug has signed it and the contract judges it
    first = records[0] if records else checkpoint
    if first.import_mwh < tip.import_mwh or first.export_mwh < tip.export_mwh:
        return "register-fell"
    if checkpoint.import_mwh < tip.import_mwh or checkpoint.export_mwh < tip.export_mwh:
        return "register-fell"
    return ""
