"""A plug for the gateway's tests: signs batches as the firmware does, with the host's signature code."""

from __future__ import annotations

from dataclasses import dataclass

from watt_chain import crypto
from watt_wire import batch, checkpoint, merkle, record

START_S = 1_700_000_100 // 900 * 900


@dataclass
class PlugStandIn:
    """Keeps counters and registers; every `batch` continues the one before unless told otherwise."""

    number: int = 1
    counter: int = 0
    previous: bytes = checkpoint.NO_PREVIOUS
    sequence: int = 1
    register_mwh: int = 1_000_000
    time_s: int = START_S

    def __post_init__(self) -> None:
        self.key = crypto.PrivateKey.from_bytes((20_000 + self.number).to_bytes(32, "big"))
        self.id = crypto.id8(self.key.public)

    def record(self, step_mwh: int = 1_000) -> record.Record:
        self.register_mwh += step_mwh
        one = record.Record(
            self.id, self.sequence, self.time_s, 60, ord("S"), self.register_mwh, 0,
            229_000, 230_000, 231_000, 200, 260, 300, 50_000, 60_000, 70_000, record.RELAY_ON, 0,
        )  # fmt: skip
        self.sequence += 1
        self.time_s += 60
        return one

    def batch(self, count: int = 3, step_mwh: int = 1_000, **changes: object) -> bytes:
        """The next batch; `changes` override fields of the checkpoint before it is signed."""
        first = self.sequence
        records = [record.encode(self.record(step_mwh)) for _ in range(count)]
        return self.seal(records, first, **changes)

    def seal(self, records: list[bytes], first: int, **changes: object) -> bytes:
        body = checkpoint.Checkpoint(
            1, self.id, 1, self.counter + 1, self.previous, merkle.root([merkle.leaf_hash(r) for r in records]),
            first, len(records), self.time_s, ord("S"), self.register_mwh, 0, bytes(32), bytes(32),
            checkpoint.PERIODIC,
        )  # fmt: skip
        for name, value in changes.items():
            setattr(body, name, value)
        encoded = checkpoint.encode(body)
        frame = encoded + self.key.sign(checkpoint.signing_message(encoded))
        self.counter, self.previous = body.counter, checkpoint.frame_hash(frame)
        return batch.encode(frame, records)
