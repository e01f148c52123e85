"""One node of a pysyncobj cluster, inside the peer's own environment: nothing of ours is imported here.

argv     [own address, journal, "sync" or "as-shipped", address of the others ...]
stdin    {"do": "leader"} | {"do": "closed", "window": N, "seconds": S, "bytes": B} | {"do": "open", "rate": R, ...}
stdout   one line each: true or false | {"count": calls that became final, "seconds": s, "latencies_ms": [...]}

The load runs in the node that leads, which spares pysyncobj a hop that the others' clients have to make.
"""

import importlib
import json
import sys
import threading
import time
from typing import Any

TICK_S = 0.005


def make_node(address: str, journal: str, sync: bool, others: list[str]) -> Any:
    """A replicated dictionary with a journal on disk; `sync`: each entry is synced; pysyncobj never does."""
    raft = importlib.import_module("pysyncobj")
    if sync:
        files = importlib.import_module("pysyncobj.journal").FileJournal
        shipped = files.add

        def add(self: Any, *entry: Any) -> None:
            shipped(self, *entry)
            self.flush()

        files.add = add

    class Store(raft.SyncObj):  # type: ignore[misc,name-defined]  # of a package that is not installed here
        """Keys and values."""

        def __init__(self) -> None:
            super().__init__(address, others, raft.SyncObjConf(journalFile=journal, fullDumpFile=journal + ".dump"))
            self.data: dict[int, bytes] = {}

        @raft.replicated  # type: ignore[untyped-decorator]  # as above
        def put(self, key: int, value: bytes) -> None:
            """Write a key."""
            self.data[key] = value

    return Store()


class Load:
    """Calls of one phase."""

    def __init__(self, node: Any, size: int) -> None:
        self._node = node
        self._value = b"x" * size
        self._lock = threading.Lock()
        self._next = 0
        self.waiting = 0
        self.failed = 0
        self.latencies_ms: list[float] = []

    def put(self, due_s: float) -> None:
        """One call; its latency counts from `due_s`."""
        with self._lock:
            self.waiting += 1
            self._next += 1

        def done(_: object, error: object) -> None:
            with self._lock:
                self.waiting -= 1
                self.failed += bool(error)
                self.latencies_ms.append((time.perf_counter() - due_s) * 1000)

        self._node.put(self._next % 1000, self._value, callback=done)

    def closed(self, window: int, seconds: float) -> None:
        """Keep `window` calls under way."""
        ends_s = time.perf_counter() + seconds
        while (now_s := time.perf_counter()) < ends_s:
            for _ in range(window - self.waiting):
                self.put(now_s)
            time.sleep(TICK_S)

    def open(self, rate: float, seconds: float) -> None:
        """So many calls a second, then wait for the last."""
        began_s, sent = time.perf_counter(), 0
        while (passed_s := time.perf_counter() - began_s) < seconds:
            while sent < passed_s * rate:
                self.put(began_s + sent / rate)
                sent += 1
            time.sleep(TICK_S)
        while self.waiting and time.perf_counter() < began_s + 2 * seconds + 10:
            time.sleep(TICK_S)


def main() -> None:
    """Serve the orders on stdin until it ends."""
    address, journal, mode, *others = sys.argv[1:]
    node = make_node(address, journal, mode == "sync", others)
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "leader":
            answer: Any = bool(node.isReady() and node._isLeader())
        else:
            load, began_s = Load(node, order["bytes"]), time.perf_counter()
            if order["do"] == "closed":
                load.closed(order["window"], order["seconds"])
            else:
                load.open(order["rate"], order["seconds"])
            seconds = time.perf_counter() - began_s
            done = len(load.latencies_ms) - load.failed
            answer = {"count": done, "seconds": seconds, "latencies_ms": list(load.latencies_ms)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
