"""Who runs the plug's code: a MicroPython or Node child behind a pipe, or CPython in this process.

All three take and give the lines of `watt_plug.pipe`.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import watt_plug
from watt_plug.journal import CorruptionError
from watt_plug.pipe import Pipe

HEAP = "320K"
"An ESP32 without PSRAM leaves MicroPython about 160 KiB; objects of the 64-bit port are nearly twice as large."
INPUT_MAX = 1_048_576
"Bytes of a child's unfinished line, and bytes waiting for a child: beyond it the child has hung."
STOP_S = 3
WASM_MODULE = "micropython/node_modules/@micropython/micropython-webassembly-pyscript/micropython.mjs"


class EngineError(Exception):
    """The interpreter cannot be started or has died; the text says which and why."""


class Engine(Protocol):
    """Lines in, lines out. `failed` says why it ended by itself; "" while it runs."""

    failed: str

    def start(self, settings: dict[str, object]) -> None: ...
    def write(self, lines: list[str]) -> None: ...
    def stop(self) -> None: ...


def firmware_root() -> Path:
    """Return the directory that holds watt_plug and watt_wire."""
    return Path(str(watt_plug.__file__)).resolve().parents[1]


class LocalEngine:
    """The same files under CPython, in this process."""

    def __init__(self, answer: Callable[[str], None]) -> None:
        self._answer = answer
        self._pipe = Pipe()
        self.failed = ""

    def start(self, settings: dict[str, object]) -> None:
        """Make the plug; EngineError when its journal is damaged: starting again would not mend it."""
        try:
            self.write(["C " + json.dumps(settings)])
        except CorruptionError as error:
            raise EngineError(f"{settings.get('flash')}: {error}") from None

    def write(self, lines: list[str]) -> None:
        for line in lines:
            for answer in self._pipe.handle(line):
                self._answer(answer)

    def stop(self) -> None:
        self.write(["Q"])


class ChildEngine:
    """An interpreter in a child process; its standard error goes to `log`."""

    def __init__(
        self, selector: selectors.BaseSelector, command: list[str], log: Path, answer: Callable[[str], None]
    ) -> None:
        self._selector = selector
        self._command = command
        self._log = log
        self._answer = answer
        self._child: subprocess.Popen[bytes] | None = None
        self._input = b""
        self._output = b""
        self._mask = 0
        self.failed = ""

    def start(self, settings: dict[str, object]) -> None:
        """Start the child and send it its settings; EngineError when it cannot be started."""
        try:
            with self._log.open("ab") as log:
                # A session of its own: Ctrl-C in a terminal reaches this process, which then ends its children.
                self._child = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
                )
        except OSError as error:
            raise EngineError(f"cannot start {self._command[0]}: {error.strerror}") from None
        assert self._child.stdin is not None and self._child.stdout is not None
        os.set_blocking(self._child.stdin.fileno(), False)
        os.set_blocking(self._child.stdout.fileno(), False)
        self._selector.register(self._child.stdout, selectors.EVENT_READ, self._readable)
        self.write(["C " + json.dumps(settings)])

    def write(self, lines: list[str]) -> None:
        """Queue lines for the child."""
        self._output += "".join(line + "\n" for line in lines).encode()
        if len(self._output) > INPUT_MAX:
            self._fail("does not read its input")
        self._flush()

    def stop(self) -> None:
        """Ask the child to end, then make it."""
        child = self._child
        if child is None:
            return
        self._output = b""
        self.write(["Q"])
        self._release()
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _fail(self, what: str) -> None:
        self.failed = f"{Path(self._command[0]).name} {what}; see {self._log}"
        child = self._child
        self._release()
        if child is not None:
            child.kill()
            child.wait()

    def _release(self) -> None:
        child = self._child
        self._child = None
        if child is None or child.stdin is None or child.stdout is None:
            return
        self._selector.unregister(child.stdout)
        if self._mask:
            self._selector.unregister(child.stdin)
            self._mask = 0
        child.stdout.close()
        with contextlib.suppress(OSError):  # a broken pipe at the last flush: the child has ended already
            child.stdin.close()

    def _flush(self, _now_ms: int = 0) -> None:
        child = self._child
        if child is None or child.stdin is None:
            return
        try:
            while self._output:
                self._output = self._output[os.write(child.stdin.fileno(), self._output) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(f"ended: {error.strerror}")
            return
        mask = selectors.EVENT_WRITE if self._output else 0
        if mask != self._mask:
            if mask:
                self._selector.register(child.stdin, mask, self._flush)
            else:
                self._selector.unregister(child.stdin)
            self._mask = mask

    def _readable(self, _now_ms: int) -> None:
        child = self._child
        if child is None or child.stdout is None:
            return
        try:
            data = os.read(child.stdout.fileno(), 65_536)
        except BlockingIOError:
            return
        if not data:
            self._fail(f"ended with exit code {child.wait()}")
            return
        self._input += data
        if len(self._input) > INPUT_MAX:
            self._fail("sent a line without end")
            return
        *lines, self._input = self._input.split(b"\n")
        for line in lines:
            self._answer(line.decode("ascii", "replace"))


def micropython_command(interpreter: str) -> list[str]:
    """Return the command that runs the pipe loop in the unix port."""
    code = f"import sys; sys.path[:] = [{str(firmware_root())!r}]; from watt_plug import pipe; pipe.run_stdio()"
    return [interpreter, "-X", f"heapsize={HEAP}", "-c", code]


def wasm_command(node: str, module: str, state_dir: Path) -> list[str]:
    """Return the command that runs the pipe loop in the WASM build under Node; EngineError when it is missing."""
    here = Path(__file__).resolve().parent
    path = Path(module) if module else here.parent / WASM_MODULE
    if not path.exists():
        raise EngineError(f"{path} is missing: npm ci --prefix tools/micropython installs it")
    return [node, str(here / "plug.mjs"), str(path), str(firmware_root()), str(state_dir)]


def default_micropython() -> str:
    """Return the interpreter that `make` installs beside this Python, or the one on the path."""
    beside = Path(sys.prefix).parent / ".venv-mpy/bin/micropython"
    return str(beside) if beside.exists() else "micropython"
