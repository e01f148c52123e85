"""What this machine can verify at best, measured in the same run as whatever is compared with it."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from watt_chain.crypto import PrivateKey, sha256, verify

SECONDS = 1.0
BURST = 16
"Verifications of one probe: 2 ms, so that a probe during a run takes half a per cent of one core."


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


class Probe:
    """CPU of one P-256 verification, sampled while something else runs."""

    def __init__(self) -> None:
        self._key = PrivateKey.from_bytes(sha256(b"wattpact bench probe"))
        self._message = b"x" * 200
        self._signature = self._key.sign(self._message)
        self._samples: list[float] = []

    def take(self) -> None:
        """One sample, by the clock of this thread's CPU."""
        public, message, signature = self._key.public, self._message, self._signature
        started = time.thread_time()
        for _ in range(BURST):
            verify(public, message, signature)
        self._samples.append((time.thread_time() - started) / BURST)

    def unit_s(self) -> float:
        """Median of the samples since the last call, seconds of CPU: the *verify-unit*."""
        if not self._samples:
            self.take()
        samples, self._samples = self._samples, []
        return statistics.median(samples)

    def count(self, seconds: float) -> int:
        """Verifications in so many seconds of the wall clock."""
        public, message, signature = self._key.public, self._message, self._signature
        ended, count = time.perf_counter() + seconds, 0
        while time.perf_counter() < ended:
            for _ in range(BURST):
                assert verify(public, message, signature)
            count += BURST
        return count


def verifications_per_s() -> float:
    """What all cores together verify in a second, by the wall clock."""
    words = [sys.executable, "-m", "watt_tools.bench_limit"]
    pipe = subprocess.PIPE
    workers = [subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) for _ in range(cores())]
    for worker in workers:  # all are loaded before any begins to count
        assert worker.stdout is not None
        worker.stdout.readline()
    counts = []
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        counts.append(int(worker.communicate()[0]))
    return sum(counts) / SECONDS


def main() -> int:
    """One core's part: say that it is ready, wait for the word, count."""
    probe = Probe()
    probe.count(0.05)
    print("ready", flush=True)
    sys.stdin.readline()
    print(probe.count(SECONDS))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
