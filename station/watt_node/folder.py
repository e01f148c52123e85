"""A node's data folder as a doctor looks at it: room, whether a sync is one, whether the files are sound.

Nothing is changed. Whether a disk keeps what it says it has written cannot be seen from a program: what can be seen is
a file system that has no disk, mount options that give up the promise, and a sync that takes no time at all.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from watt_node import blocklog, snapshots, votelog
from watt_node.disk import ReadOnlyFile, StoreError
from watt_node.findings import Finding
from watt_node.records import Damage, Scan, title_of

FREE_BAD = 64 << 20
"""Less than this: some hours of a busy area, and the next snapshot may not fit."""
FREE_LOW = 1 << 30
PROBES = 20
"""Syncs that are timed; some 0.2 s on a slow card."""
PROBE_BYTES = 4096
SYNC_NOTHING_S = 5e-6
"""No disk answers in less; a drive with a battery-backed cache takes some 20 microseconds."""
SYNC_SLOW_S = 0.05
"""A block needs three syncs of a station, one after the other."""
NO_DISK = ("tmpfs", "ramfs")
REMOTE = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs")
UNSAFE_OPTIONS = ("nobarrier", "barrier=0", "noflush", "nolock")


def is_used(data: Path) -> bool:
    """Whether a node runs on the folder: it holds the lock of its votes."""
    try:
        handle = os.open(data / votelog.NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def look(data: Path) -> list[Finding]:
    """Room, file system and syncs."""
    parent = data
    while not parent.exists():
        parent = parent.parent
    if not data.exists():
        return [Finding("ok", f"data folder {data}: new, made at the first start"), _room(parent)]
    if not os.access(data, os.W_OK | os.X_OK):
        return [
            Finding("bad", f"data folder {data}: not writable for this user", "run as the service's user, or chown it")
        ]
    return [_room(data), *_filesystem(data), _syncs(data)]


def _room(path: Path) -> Finding:
    usage = shutil.disk_usage(path)
    text = f"disk of {path}: {usage.free >> 20:,} MiB of {usage.total >> 20:,} free"
    if usage.free < FREE_BAD:
        return Finding("bad", text, "free some space: the node stops when a write fails")
    if usage.free < FREE_LOW:
        return Finding("warn", text, 'free some space, or keep fewer blocks (retention = "normal")')
    return Finding("ok", text)


def _filesystem(data: Path) -> list[Finding]:
    kind, options = _mount_of(data)
    found: list[Finding] = []
    if kind in NO_DISK:
        action = "use a folder on a disk: after a power cut this node forgets what it signed and stays silent"
        found.append(Finding("bad", f"file system of {data}: {kind}, which is gone with the power", action))
    elif kind in REMOTE:
        action = "locks and syncs of network file systems are not what a disk's are; use a local one"
        found.append(Finding("warn", f"file system of {data}: {kind}", action))
    unsafe = [option for option in UNSAFE_OPTIONS if option in options]
    if unsafe:
        action = "mount it without: a sync then returns before the data is on the disk"
        found.append(Finding("bad", f"file system of {data}: mounted with {', '.join(unsafe)}", action))
    return found or [Finding("ok", f"file system of {data}: {kind or 'unknown'}")]


def _mount_of(path: Path) -> tuple[str, list[str]]:
    """(type, options) of the file system that holds a path; ("", []) where /proc does not tell."""
    best, found = -1, ("", [""])
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return "", []
    place = path.resolve()
    for line in lines:
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(), right.split()
        point = Path(fields[4].encode().decode("unicode_escape"))
        if len(point.parts) > best and place.is_relative_to(point):
            best, found = len(point.parts), (kinds[0], fields[5].split(",") + kinds[-1].split(","))
    return found


def sync_times(data: Path) -> list[float]:
    """Seconds of PROBES writes with their sync, in a file that is removed again. OSError."""
    path = data / ".doctor"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    times: list[float] = []
    try:
        for number in range(PROBES):
            begun = time.perf_counter()
            os.pwrite(handle, os.urandom(PROBE_BYTES), number * PROBE_BYTES)
            os.fdatasync(handle)
            times.append(time.perf_counter() - begun)
    finally:
        os.close(handle)
        path.unlink()
    return times


def _syncs(data: Path) -> Finding:
    try:
        middle_s = median(sync_times(data))
    except OSError as error:
        return Finding(
            "bad", f"data folder {data}: cannot write: {error.strerror}", "the node stops at its first write"
        )
    return judge_sync(middle_s)


def judge_sync(middle_s: float) -> Finding:
    """What the median time of a sync says."""
    text = f"a write and its sync take {middle_s * 1000:.2f} ms"
    if middle_s < SYNC_NOTHING_S:
        action = (
            "nothing waits for the disk (eatmydata, a virtual disk with unsafe caching?): a power cut will lose votes"
        )
        return Finding("bad", text, action)
    if middle_s > SYNC_SLOW_S:
        return Finding("warn", text, "a slow or worn card: blocks take at least three of these; use an SSD")
    return Finding("ok", text)


def look_at_stores(data: Path, chain: int, network: bytes, whole: bool) -> list[Finding]:
    """The files of a node, read only. `whole`: no node runs, so every byte may be looked at."""
    if not (data / votelog.NAME).exists() and not (data / blocklog.ACTIVE).exists():
        return [Finding("ok", "nothing stored yet")]
    found: list[Finding] = []
    try:
        votes = votelog.peek(data, chain, network)
        found.append(_votes(votes))
        if whole:
            found += _logs(data)
            found += _snapshots(data, chain, network)
    except StoreError as error:
        found.append(Finding("bad", str(error), "point node.data to this node's own folder"))
    for path in sorted(data.glob("*.damaged")):
        found.append(Finding("warn", f"{path.name} was set aside", "look at the disk (smartctl), then remove the file"))
    return found


def _votes(votes: votelog.Peek) -> Finding:
    if votes.doubt:
        action = "it follows and signs nothing until the others have made a block with its Rejoin; see README"
        return Finding("warn", f"votes.log: the node does not trust its memory: {votes.doubt}", action)
    return Finding("ok", f"votes.log: sound; written last at height {votes.head}")


def _logs(data: Path) -> Iterator[Finding]:
    begin: int | None = None
    end = 0
    for name in [*sorted(path.name for path in data.glob("blocks-*.log")), blocklog.ACTIVE]:
        if not (data / name).exists():
            continue
        file = ReadOnlyFile(data / name)
        scan, count = Scan(file), 0
        try:
            for count, (_, payload) in enumerate(scan):
                if not count:
                    base = int.from_bytes(payload[-8:], "big")
                    if begin is None:
                        begin = base
                    elif base != end:
                        yield Finding(
                            "bad", f"{name}: begins after height {base}, not after {end}", "start: it is healed"
                        )
            end = base + count if scan.end else end
            if scan.end < scan.size:
                yield Finding(
                    "warn", f"{name}: an unfinished record at its end", "left by a crash; the start cuts it off"
                )
        except Damage as damage:
            yield Finding("bad", f"{name}: {damage}", "start: it is set aside, and fetched again from the others")
        finally:
            file.close()
    if begin is not None:
        yield Finding("ok", f"blocks {begin + 1} to {end}" if end > begin else "no block yet")


def _snapshots(data: Path, chain: int, network: bytes) -> Iterator[Finding]:
    for path in sorted(data.glob("snapshot-*.state")):
        file = ReadOnlyFile(path)
        try:
            snapshots.check_file(file, title_of("state", chain, network))
            yield Finding("ok", f"{path.name}: sound")
        except snapshots.SnapshotError as error:
            yield Finding("bad", f"{path.name}: {error}", "start: it is set aside; an older one is used")
        finally:
            file.close()
