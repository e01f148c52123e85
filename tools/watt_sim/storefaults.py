"""Faults planted in the stores, and who finds each: the crash images, the second crash, or the changed bytes.

Each is planted in a process of its own (planting.py); no file changes and the production code has no switch. A fault
that nobody finds would mean that the tables of `storecrash` and `storeflips` prove nothing about it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from watt_master.archive import ArchiveError
from watt_node.disk import StoreError

from watt_sim import archivecrash
from watt_sim.planting import Edit, Mutant, plant
from watt_sim.storecrash import cuts, second_cuts
from watt_sim.storeflips import flip
from watt_sim.storeworld import Broken

STRIDE = 101
"""Crashes and changed bytes are tried with this stride, in turn, then those between: a fault anywhere shows early."""
SECONDS_MAX = 900
"""All images of an unchanged store take less; a planted fault that hangs the stores would take for ever."""

_VAULT, _VOTES, _BLOCKS = "watt_node.vault", "watt_node.votelog", "watt_node.blocklog"
_SNAPSHOTS, _RECORDS = "watt_node.snapshots", "watt_node.records"


def _fault(name: str, rule: str, *edits: tuple[str, str, str, str]) -> Mutant:
    return Mutant(name, rule, tuple(Edit(*edit) for edit in edits))


FAULTS = (
    _fault(
        "sends before it writes",
        "4.7.1",
        (
            _VAULT,
            "Vault.carry_out",
            "if output.persist:\n",
            "for index, frame in output.send:\n        send(index, frame)\n    if output.persist:\n",
        ),
    ),
    _fault("votes are not synced", "4.7.1", (_VOTES, "VoteLog.add", "self._log.append(", "self._log.write(")),
    _fault(
        "rewritten votes are not synced",
        "4.7.1",
        (_VOTES, "VoteLog._rewrite", "file.sync()\n    self._disk.replace", "self._disk.replace"),
    ),
    _fault(
        "the folder is not synced after the votes' rename",
        "4.7.1",
        (
            _VOTES,
            "VoteLog._rewrite",
            "self._disk.replace(fresh, NAME)\n    self._disk.sync()",
            "self._disk.replace(fresh, NAME)",
        ),
    ),
    _fault(
        "rewriting forgets the open height",
        "4.7.4",
        (_VOTES, "VoteLog._rewrite", "for height, record in self._kept:", "for height, record in ():"),
    ),
    _fault(
        "rewriting does not raise the floor",
        "4.7.5",
        (_VOTES, "VoteLog._rewrite", "self.floor = max(self.floor, head)", "pass"),
    ),
    _fault(
        "a doubt is not written down",
        "4.7.6",
        (
            _VOTES,
            "VoteLog._open",
            "self.add([codec.encode(Record(DOUBT, 0, 0, ZERO32, problem.encode()))], 0)",
            "self.doubt = problem",
        ),
    ),
    _fault(
        "a write that fails is taken for done",
        "4.7.1",
        (
            _VOTES,
            "VoteLog.add",
            "self._log.append(codec.encode(_Entry(head, self.floor, self._place, list(records))))",
            (
                "import contextlib\n    with contextlib.suppress(StoreError):\n"
                "        self._log.append(codec.encode(_Entry(head, self.floor, self._place, list(records))))"
            ),
        ),
    ),
    _fault(
        "a last record that does not check is cut in silence",
        "4.7.6",
        (
            _RECORDS,
            "Scan._read",
            "self.whole_tail = True\n        return \"the record's content",
            "return \"the record's content",
        ),
    ),
    _fault(
        "checksums of the content are not looked at",
        "-",
        (_RECORDS, "Scan._read", "zlib.crc32(payload) != payload_check", "False"),
    ),
    _fault(
        "no checksum over the length",
        "-",
        (_RECORDS, "Scan._read", "or zlib.crc32(head[4:8]) != length_check or", "or"),
    ),
    _fault("blocks are not synced", "4.7.1", (_BLOCKS, "BlockLog.add", "self._log.append(", "self._log.write(")),
    _fault(
        "blocks are told before they are written",
        "4.7.1",
        (
            _VAULT,
            "Vault.carry_out",
            "self.store(certified, applied)\n",
            "told(certified, applied)\n        self.store(certified, applied)\n",
        ),
    ),
    _fault(
        "the folder is not synced after a new segment",
        "-",
        (
            _BLOCKS,
            "BlockLog._begin_segment",
            'base.to_bytes(8, "big"))\n    self._disk.sync()',
            'base.to_bytes(8, "big"))',
        ),
    ),
    _fault(
        "the folder is not synced after closing a segment",
        "-",
        (
            _BLOCKS,
            "BlockLog._close_segment",
            "self._disk.replace(ACTIVE, segment_name(index.base))\n    self._disk.sync()",
            "self._disk.replace(ACTIVE, segment_name(index.base))",
        ),
    ),
    _fault(
        "pruning begins with the newest segment",
        "4.6.8",
        (
            _BLOCKS,
            "BlockLog.prune",
            "gone = 0\n",
            (
                "gone = 0\n"
                "    for base, end in reversed(self._closed[1:]):\n"
                "        if end <= below:\n"
                "            self._disk.remove(segment_name(base))\n"
                "            self._disk.sync()\n"
            ),
        ),
    ),
    _fault(
        "pruning does not wait for the older snapshot",
        "4.6.8",
        (_VAULT, "Vault.prune", "min(heights[0], self._blocks.end - self.keeping.retain)", "self._blocks.end"),
    ),
    _fault(
        "a snapshot takes its name before it is whole",
        "4.6.8",
        (_SNAPSHOTS, "Snapshots.write", "file.sync()\n    file.close()", "file.close()"),
    ),
    _fault(
        "blocks go before the fetched state is durable",
        "4.6.8",
        (
            _VAULT,
            "Vault._install_fetched",
            "self._snapshots.write(state)\n    self._written = state.height\n    self._blocks.restart_at(state.height)",
            "self._written = state.height\n    self._blocks.restart_at(state.height)\n    self._snapshots.write(state)",
        ),
    ),
    _fault(
        "the older snapshot is not looked at",
        "-",
        (
            _VAULT,
            "Vault._check_snapshot",
            "except SnapshotError as error:",
            "except SnapshotError as error:\n        return",
        ),
    ),
    _fault(
        "a damaged index stays",
        "-",
        (_BLOCKS, "BlockLog._open_closed", "if index.stored(self._disk) != index:", "if False:"),
    ),
)


_ARCHIVE = "watt_master.archive"
_SYNC = "PRAGMA synchronous=FULL"

ARCHIVE_FAULTS = (
    _fault("the archive syncs copies only", "-", (_ARCHIVE, "Archive._open", _SYNC, "PRAGMA synchronous=NORMAL")),
    _fault("the archive never syncs", "-", (_ARCHIVE, "Archive._open", _SYNC, "PRAGMA synchronous=OFF")),
    _fault(
        "block and transactions are two commits",
        "-",
        (
            _ARCHIVE,
            "Archive._add",
            "self._db.executemany(",
            'self._db.execute("COMMIT")\n        self._db.execute("BEGIN")\n        self._db.executemany(',
        ),
    ),
    _fault(
        "a block's checksum is not looked at", "-", (_ARCHIVE, "Archive._block_of", "_sum(values) != total", "False")
    ),
    _fault(
        "transactions are under no checksum",
        "-",
        (_ARCHIVE, "Archive.check", "or _sum(txs) != block[-1]", ""),
    ),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What became of one planted fault."""

    name: str
    rule: str
    by: str
    '"crash", "second crash", "changed byte" or "undisturbed run"; empty when nobody found it.'
    where: str
    tries: int
    ms: int


def hunt(fault: Mutant) -> Found:
    """Plant the fault in this process and look for it."""
    plant(fault)
    begun = time.monotonic()
    tries, by, where = 0, "", ""
    try:
        for tries, (by, where) in enumerate(_trials(fault in ARCHIVE_FAULTS), start=1):  # noqa: B007  # the last values are used below
            if where:
                break
    except (StoreError, ArchiveError, Broken) as error:
        by, where = "undisturbed run", str(error)
    return Found(
        fault.name, fault.rule, by if where else "", where[:150], tries, int((time.monotonic() - begun) * 1000)
    )


def _trials(archive: bool) -> Iterator[tuple[str, str]]:
    """(who looks, what is wrong or "") of every crash and every changed byte, in turn."""
    crashes = (("crash", archivecrash.cuts),) if archive else (("crash", cuts), ("second crash", second_cuts))
    for first in range(STRIDE):
        for by, strides in crashes:
            for _, one in strides(STRIDE, first=first):
                yield by, one.outcome and f"{one.scenario}, operation {one.step}, {one.variant}: {one.text}"
        for tally in (archivecrash.flip if archive else flip)(STRIDE, first):
            yield "changed byte", tally.wrong[0] if tally.wrong else ""


def hunt_all(names: list[str] | None = None) -> Iterator[Found]:
    """One child process for each fault, in order."""
    for fault in [fault for fault in (*FAULTS, *ARCHIVE_FAULTS) if names is None or fault.name in names]:
        command = [sys.executable, "-m", "watt_sim.storefaults", fault.name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
        if done.returncode:
            text = (done.stderr.strip().splitlines() or ["?"])[-1]
            yield Found(fault.name, fault.rule, "", f"does not fit the stores any more: {text[:120]}", 0, 0)
        else:
            yield Found(**json.loads(done.stdout.splitlines()[-1]))


def main(name: str) -> int:
    """In the child; one line of JSON."""
    print(json.dumps(asdict(hunt(next(fault for fault in (*FAULTS, *ARCHIVE_FAULTS) if fault.name == name)))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
