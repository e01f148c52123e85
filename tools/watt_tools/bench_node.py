"""A station daemon under measurement: the same program, watched from inside its process.

`python -m watt_tools.bench_node CONFIG DUMP` runs `wattpact station run --config CONFIG`; SIGUSR1 writes its counters
to DUMP. What is measured never changes what is done: the process clock interrupts the main thread every SAMPLE_S of CPU
and the innermost known function is counted; verification threads and syncs measure their own CPU; disk and sockets are
counted. Where the main thread waits while the others compute (`idle`: for sockets, for the disk) nothing is put down.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from watt_node import channel, verify
from watt_station import service

SAMPLE_S = 0.004
"A few hundred samples a second of a busy node; a sample costs about 10 us."
TCP_BYTES = struct.Struct("=QQ")
TCP_BYTES_AT = 120
"Offset of tcpi_bytes_acked and tcpi_bytes_received in Linux's struct tcp_info."

PARTS = (
    ("/selectors.py", "", "idle"),
    ("/watt_tools/bench_node.py", "synced", "idle"),
    ("/watt_chain/crypto.py", "sign", "sign"),
    ("/watt_chain/crypto.py", "verify", "verify"),
    ("/watt_chain/crypto.py", "_load", "verify"),
    ("/watt_chain/crypto.py", "", "hash, codec"),
    ("/watt_wire/merkle.py", "", "hash, codec"),
    ("/watt_chain/codec.py", "", "hash, codec"),
    ("/watt_chain/transaction.py", "", "hash, codec"),
    ("/watt_chain/block.py", "", "hash, codec"),
    ("/watt_chain/tree.py", "", "execute"),
    ("/watt_chain/state.py", "", "execute"),
    ("/watt_chain/ledger.py", "", "execute"),
    ("/watt_chain/contract/", "", "execute"),
    ("/watt_chain/pbft/", "", "agree, pool"),
    ("/watt_chain/pool.py", "", "agree, pool"),
    ("/watt_node/disk.py", "", "disk"),
    ("/watt_node/records.py", "", "disk"),
    ("/watt_node/blocklog.py", "", "disk"),
    ("/watt_node/blockindex.py", "", "disk"),
    ("/watt_node/votelog.py", "", "disk"),
    ("/watt_node/vault.py", "", "disk"),
    ("/watt_node/channel.py", "", "network"),
    ("/watt_node/peers.py", "", "network"),
    ("/asyncio/sslproto.py", "", "network"),
    ("/asyncio/selector_events.py", "", "network"),
    ("/asyncio/streams.py", "", "network"),
    ("/ssl.py", "", "network"),
    ("/watt_node/", "", "loop"),
    ("/watt_station/", "", "loop"),
    ("/asyncio/", "", "loop"),
    ("/threading.py", "", "loop"),
    ("/concurrent/", "", "loop"),
)
"(file, function or any, part): the first that fits, from the innermost frame outwards."


class Probe:
    """Counters of this process."""

    def __init__(self, dump_path: Path) -> None:
        self._dump_path = dump_path
        self._samples: dict[str, int] = {}
        self._known: dict[object, str] = {}
        self._lock = threading.Lock()
        self._worker_s = 0.0
        self._checks = 0
        self._syncs = 0
        self._sync_s = 0.0
        self._sync_cpu_s = 0.0
        self._sockets: list[Any] = []

    def install(self) -> None:
        """Hook on; before the daemon starts."""
        self._watch_threads()
        self._watch_disk()
        self._watch_sockets()
        signal.signal(signal.SIGUSR1, self._dump)
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, SAMPLE_S, SAMPLE_S)

    def _sample(self, _: int, frame: FrameType | None) -> None:
        part = "other"
        while frame is not None:
            found = self._part_of(frame.f_code)
            if found:
                part = found
                break
            frame = frame.f_back
        self._samples[part] = self._samples.get(part, 0) + 1

    def _part_of(self, code: Any) -> str:
        found = self._known.get(code)
        if found is None:
            file, name = code.co_filename, code.co_name
            fitting = (part for place, function, part in PARTS if place in file and function in ("", name))
            found = self._known[code] = next(fitting, "")
        return found

    def _watch_threads(self) -> None:
        run = verify.VerifyPool.run

        async def measured(pool: verify.VerifyPool, job: Callable[[], Any], checks: int = 1) -> Any:
            def timed() -> Any:
                started = time.thread_time()
                try:
                    return job()
                finally:
                    with self._lock:
                        self._worker_s += time.thread_time() - started
                        self._checks += checks

            return await run(pool, timed, checks)

        verify.VerifyPool.run = measured  # type: ignore[method-assign,assignment]  # this process only measures

    def _watch_disk(self) -> None:
        sync = os.fdatasync

        def synced(handle: int) -> None:
            started, started_cpu = time.perf_counter(), time.thread_time()
            sync(handle)
            self._syncs += 1
            self._sync_s += time.perf_counter() - started
            self._sync_cpu_s += time.thread_time() - started_cpu

        os.fdatasync = synced  # type: ignore[assignment]  # as above

    def _watch_sockets(self) -> None:
        begin = channel.Channel.__init__

        def measured(one: channel.Channel, reader: Any, writer: Any) -> None:
            begin(one, reader, writer)
            self._sockets.append(writer.get_extra_info("socket"))

        channel.Channel.__init__ = measured  # type: ignore[method-assign,assignment]  # as above

    def _dump(self, _: int, __: FrameType | None) -> None:
        sent = received = 0
        for link in self._sockets:
            try:
                info = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
            except OSError:
                continue  # closed; its bytes are those of an earlier phase
            one = TCP_BYTES.unpack_from(info, TCP_BYTES_AT)
            sent, received = sent + one[0], received + one[1]
        usage = resource.getrusage(resource.RUSAGE_SELF)
        written = 0
        for line in Path("/proc/self/io").read_text().splitlines():
            if line.startswith("write_bytes:"):
                written = int(line.split()[1])
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        values = {
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "system_s": usage.ru_stime,
            "worker_s": self._worker_s,
            "checks": self._checks,
            "samples": self._samples,
            "syncs": self._syncs,
            "sync_s": self._sync_s,
            "sync_cpu_s": self._sync_cpu_s,
            "sent": sent,
            "received": received,
            "written": written,
            "resident": resident,
            "switches": usage.ru_nivcsw + usage.ru_nvcsw,
        }
        temporary = self._dump_path.with_suffix(".tmp")
        temporary.write_text(json.dumps(values))
        temporary.replace(self._dump_path)


def main() -> int:
    """Run the station named on the command line under measurement."""
    Probe(Path(sys.argv[2])).install()
    return service.run(Path(sys.argv[1]))


if __name__ == "__main__":
    raise SystemExit(main())
