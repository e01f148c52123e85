"""Starts `watt_rig.service` as a process of its own on a configuration made for the test."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import pytest
from watt_rig.mosquitto import free_port
from watt_wire import batch, checkpoint, record

ROOT = Path(__file__).resolve().parents[2]
START_S = 1_700_000_100 // 900 * 900
SPEED = 3000
MICROPYTHON = ROOT / ".venv-mpy/bin/micropython"
WASM = ROOT / "tools/micropython/node_modules/@micropython/micropython-webassembly-pyscript/micropython.mjs"
NODE = Path(sys.executable).parent / "node"
PULSE_UJ = 5_351_000


def need(interpreter: str) -> None:
    """Skip when the interpreter is not installed; with CI set nothing is skipped."""
    missing = (interpreter == "micropython" and not MICROPYTHON.exists()) or (
        interpreter == "wasm" and not (WASM.exists() and NODE.exists())
    )
    if missing and not os.environ.get("CI"):
        pytest.skip(f"{interpreter} is not installed: make device installs it")


def need_dbus() -> None:
    """Skip when there is no dbus-daemon; with CI set nothing is skipped."""
    if shutil.which("dbus-daemon") is None and not os.environ.get("CI"):
        pytest.skip("dbus-daemon is not installed: tools/need-dbus.sh")


def watts(number: int) -> list[int]:
    return [(minute * 37 + number * 411) % 2300 for minute in range(120)]


class Bench:
    """A configuration file with `plugs` (name, interpreter, more keys) and, within `with`, its process."""

    def __init__(
        self, folder: Path, port: int, plugs: list[dict[str, object]], until_s: int, speed: int = SPEED, tls: str = ""
    ) -> None:
        self.folder = folder
        self.path = folder / "rig.toml"
        self.process: subprocess.Popen[str] | None = None
        folder.mkdir(exist_ok=True)
        text = (
            f"until_s = {until_s}\n[clock]\nmachine_start_ms = {int(time.time() * 1000)}\n"
            f"protocol_start_s = {START_S}\nspeed = {speed}\n"
            f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\n{tls}'
        )
        for number, plug in enumerate(plugs):
            name = str(plug["name"])
            key = folder / f"{name}.key"
            key.write_text(hashlib.sha256(name.encode()).hexdigest() + "\n")
            key.chmod(0o600)
            load = folder / f"{name}.json"
            load.write_text(json.dumps({"start_s": START_S, "step_s": 60, "watts": plug.pop("watts", watts(number))}))
            values = {
                "gateway": f"home-{name}",
                "key": str(key),
                "load": str(load),
                "rated_w": 3680,
                "state_dir": str(folder / name),
                "interpreter": "cpython",
                **plug,
            }
            if values["interpreter"] == "micropython":
                values["interpreter_path"] = str(MICROPYTHON)
            if values["interpreter"] == "wasm":
                values["interpreter_path"] = str(NODE)
            text += "[[plugs]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        self.path.write_text(text)

    def __enter__(self) -> Bench:
        code = f"from watt_rig import service; raise SystemExit(service.run([{str(self.path)!r}]))"
        self.process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def kill(self) -> None:
        """End the process without warning, as a power cut does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> tuple[int, str]:
        """End it cleanly; return exit code and standard error."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors

    def finish(self) -> tuple[int, str]:
        """Wait for it to end by itself."""
        assert self.process is not None
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors

    def wait_status(self, fits: Callable[[dict[str, object]], bool], timeout_s: float = 10) -> dict[str, object]:
        """Return the status file once it fits; it is written every second."""
        path = self.path.with_suffix(".status.json")
        end = time.monotonic() + timeout_s
        found: dict[str, object] = {}
        while time.monotonic() < end:
            if path.exists():
                found = json.loads(path.read_text())
                if fits(found):
                    return found
            time.sleep(0.05)
        raise AssertionError(found)


def decoded(batches: list[tuple[str, bytes]]) -> list[tuple[checkpoint.Checkpoint, list[record.Record]]]:
    """Return the different batches in counter order."""
    found = []
    for _, data in set(batches):
        frame, records = batch.decode(data)
        found.append((checkpoint.decode(frame), [record.decode(item) for item in records]))
    return sorted(found, key=lambda item: item[0].counter)


def register_mwh(values: list[int], time_s: int) -> int:
    """What a register must show that counted every pulse since START_S, computed from the watts alone."""
    seconds = time_s - START_S
    joules = sum(values[second // 60 % len(values)] for second in range(seconds))
    return joules * 1_000_000 // PULSE_UJ * PULSE_UJ // 3_600_000


@contextlib.contextmanager
def boot_rom(chip: str, folder: Path) -> Iterator[str]:
    """A fake of the ESP32's ROM boot loader that keeps what it is told (esp32-mock-bootloader); yields its port."""
    port = free_port()
    fake = [sys.executable, "-m", "esp32_mock_bootloader.cli", "run", "--chip", chip, "--port", str(port)]
    running = subprocess.Popen(fake, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    try:
        _until_listening(port)
        yield f"socket://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(10)


def _until_listening(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the fake boot loader does not listen")
