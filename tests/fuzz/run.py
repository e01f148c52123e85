"""Coverage-guided fuzzing of every target with atheris (libFuzzer): `make fuzz`.

run.py [--runs N] [TARGET ...]      all targets in turn, one line each; exit code 1 when one failed
run.py --one TARGET [libFuzzer options]
"""

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "chain")]
RUNS = 1_000_000
MEMORY_MB = 400
"""Interpreter, instrumentation and corpus take about 150 MB; an input that makes a parser take the rest is a fault."""
STRUCTURED = 0.5
"""Share of inputs made by changing a field; the rest are libFuzzer's own changes of bytes."""
HANG_S = 5
"""libFuzzer counts whole seconds; the slowest input stands in the report."""


def fuzz_one(name: str, options: list[str]) -> None:
    """Fuzz one target in this process; does not return."""
    import atheris
    from fuzz_changes import change_value

    with atheris.instrument_imports(include=["watt_chain", "watt_wire"]):
        from fuzz_targets import make_targets
    target = make_targets()[name]

    def mutate(data: bytes, size_max: int, seed: int) -> bytes:
        dice = random.Random(seed)
        if dice.random() < STRUCTURED:
            return change_value(data, dice)[:size_max]
        changed: bytes = atheris.Mutate(data, size_max)
        return changed

    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(target.seeds):
            (Path(folder) / f"seed{number}").write_bytes(seed)
        limits = [f"-max_len={target.size_max}", f"-rss_limit_mb={MEMORY_MB}", f"-timeout={HANG_S}"]
        atheris.Setup(
            [sys.argv[0], folder, *limits, "-print_final_stats=1", *options], target.run, custom_mutator=mutate
        )
        atheris.Fuzz()


def fuzz_all(names: list[str], runs: int) -> int:
    """Fuzz the targets one after the other in child processes; 0 when all lived."""
    failed = 0
    print(f"{'target':16} {'executions':>12} {'per second':>11} {'edges':>7} {'slowest':>8}  result", flush=True)
    for name in names:
        began = time.monotonic()
        command = [sys.executable, __file__, "--one", name, f"-runs={runs}"]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "0"})
        seconds = max(time.monotonic() - began, 0.001)
        said = done.stdout + done.stderr
        executed = _last(said, r"stat::number_of_executed_units:\s*(\d+)")
        edges = _last(said, r"cov: (\d+)")
        slowest = _last(said, r"stat::slowest_unit_time_sec:\s*(\d+)")
        bad = done.returncode != 0 or executed < runs
        failed += bad
        result = "FAILED" if bad else "ok"
        print(f"{name:16} {executed:>12,} {executed / seconds:>11,.0f} {edges:>7} {slowest:>6} s  {result}", flush=True)
        if bad:
            print(said[-3000:], file=sys.stderr)
    return 1 if failed else 0


def _last(text: str, pattern: str) -> int:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def main() -> int:
    """Read the command line."""
    if sys.argv[1:2] == ["--one"]:
        fuzz_one(sys.argv[2], sys.argv[3:])
    from fuzz_targets import make_targets

    known = list(make_targets())
    parser = argparse.ArgumentParser(description="coverage-guided fuzzing of the parsers of the chain")
    parser.add_argument("targets", nargs="*", help=f"default: all of {', '.join(known)}")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"executions of each target (default {RUNS:,})")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.targets if name not in known]
    if unknown:
        parser.error(f"unknown target {unknown[0]}: known are {', '.join(known)}")
    return fuzz_all(chosen.targets or known, chosen.runs)


if __name__ == "__main__":
    sys.exit(main())
