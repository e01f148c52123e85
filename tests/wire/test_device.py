"""The device runner: the portable tests pass on both MicroPythons, and a failure on a device is seen."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNNER = ROOT / "tools" / "micropython" / "run_device.py"

spec = importlib.util.spec_from_file_location("run_device", RUNNER)
assert spec is not None and spec.loader is not None
run_device = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run_device)

FILES = sorted((ROOT / "tests" / "wire").glob("portable_*.py"))


def need(interpreter: str) -> None:
    """Skip when the interpreter is not installed; with CI set nothing is skipped."""
    try:
        run_device.unix_command(1, "") if interpreter == "unix" else run_device.wasm_command(1, "")
    except run_device.MissingPart as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.mark.device
@pytest.mark.parametrize(("interpreter", "heap"), [("unix", 128 * 1024), ("wasm", 128 * 1024)])
@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in FILES])
def test_a_portable_file_passes_on_a_device(interpreter: str, heap: int, path: Path) -> None:
    need(interpreter)
    passed, failed, output = run_device.run_file(interpreter, heap, path)
    assert failed == 0, output
    assert passed == sum(line.startswith("def test_") for line in path.read_text().splitlines())


@pytest.mark.device
@pytest.mark.parametrize("interpreter", ["unix", "wasm"])
def test_a_failure_a_broken_import_and_an_early_exit_are_counted(
    interpreter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(interpreter)
    folder = tmp_path / "tests" / "wire"
    folder.mkdir(parents=True)
    (folder / "portable_mixed.py").write_text(
        "def test_good():\n    assert True\ndef test_bad():\n    assert False, 'seen'\ndef helper():\n    1 / 0\n"
    )
    (folder / "portable_broken.py").write_text("import no_such_module\n")
    (folder / "portable_exit.py").write_text("import sys\ndef test_leaves():\n    sys.exit(0)\n")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "micropython").symlink_to(ROOT / "tools" / "micropython")
    (tmp_path / ".venv-mpy").symlink_to(ROOT / ".venv-mpy")
    monkeypatch.setattr(run_device, "ROOT", tmp_path)
    passed, failed, output = run_device.run_file(interpreter, 128 * 1024, folder / "portable_mixed.py")
    assert (passed, failed) == (1, 1)
    assert "FAIL tests/wire/portable_mixed test_bad" in output
    assert "seen" in output
    assert run_device.run_file(interpreter, 128 * 1024, folder / "portable_broken.py")[:2] == (0, 1)
    assert run_device.run_file(interpreter, 128 * 1024, folder / "portable_exit.py")[:2] == (0, 1)


@pytest.mark.device
def test_the_heap_of_the_unix_port_is_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("unix")
    command = run_device.unix_command(128 * 1024, "bytearray(200000)")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "MemoryError" in done.stdout + done.stderr


def test_heap_sizes_are_read_with_their_units() -> None:
    assert [run_device.heap_bytes(text) for text in ("131072", "128k", "128K", "1m")] == [131072, 131072, 131072, 2**20]


def test_every_firmware_file_compiles_for_the_esp32() -> None:
    done = subprocess.run([sys.executable, str(RUNNER), "--compile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "watt_wire/p256.py" in done.stdout
    assert done.stdout.strip().endswith("0 failed")
