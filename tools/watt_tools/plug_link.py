"""The cable to a plug: the unmodified `mpremote` as a child process, on a serial port, a pseudo-terminal or socket://.

Nothing here knows what is flashed. `mpremote` stops the plug's program to talk to its interpreter; `reset` starts it
again. Errors are the world's (no port, no answer): one LinkError with mpremote's last line.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND_TIMEOUT_S = 120
"One mpremote call without file transfer; the hash of 100 files on an ESP32 takes about 5 s."
FILE_TIMEOUT_S = 60
"One file more in a call: 64 KiB at 115200 baud take 12 s with mpremote's overhead."
ENTER_ATTEMPTS = 3
"""Calls of mpremote until the plug's prompt answers. Each waits 10 s; a plug that starts up just then hears nothing
of the first, and an ESP32 is up after two seconds."""
ENTER_PAUSE_S = 1.0
NO_PROMPT = "could not enter raw repl"
"What mpremote says when the prompt did not come: none of its command has been carried out."
FILES_PER_CALL = 40
"Files of one mpremote command line: keeps it far below the limit of every system."
MARK = "WATTPACT "
"Begins the one line of a device script that is its answer."
FILE = "FILE "
"Begins a line that names a file's hash and path: one by one, as a plug's heap holds no list of all of them."
FACTS = """
import sys, os, hashlib, json, binascii
try:
    import machine
    if sys.platform == "esp32":
        machine.WDT(timeout=600000)
except Exception as e:
    pass
def walk(d):
    for e in os.ilistdir(d or "/"):
        p = d + "/" + e[0]
        if e[1] & 0x4000:
            yield from walk(p)
        else:
            h = hashlib.sha256()
            with open(p, "rb") as f:
                while True:
                    b = f.read(512)
                    if not b:
                        break
                    h.update(b)
            yield p[1:], binascii.hexlify(h.digest()).decode()
i = sys.implementation
v = os.statvfs("/")
print("WATTPACT " + json.dumps({"name": i.name, "version": list(i.version)[:3], "mpy": getattr(i, "_mpy", 0),
 "machine": getattr(i, "_machine", ""), "platform": sys.platform, "free": v[0] * v[3], "size": v[0] * v[2]}))
for p, h in walk(""):
    print("FILE", h, p)
"""
"""What the plug is and holds. A hardware watchdog that the application armed outlives a soft reset: it is given ten
minutes here, so that it does not end a transfer; the reset after it brings the application's own back."""


class LinkError(Exception):
    """No answer from the plug; the text is complete and meant for the operator."""


@dataclass(frozen=True)
class Facts:
    """What a plug says of itself. `files`: SHA-256 in hex by path without a leading slash; `mpy`: sys's own number."""

    name: str
    version: tuple[int, ...]
    mpy: int
    machine: str
    platform: str
    free: int
    size: int
    files: dict[str, str]


class Cable:
    """One port. Every call stops the plug's program; `reset` starts it."""

    def __init__(self, port: str) -> None:
        self.port = port
        self._resumed = False

    def facts(self) -> Facts:
        """Ask what the plug is and which files it holds."""
        output = self.run(FACTS)
        data = _answer(self.port, output)
        files = [line[len(FILE) :].partition(" ") for line in output.splitlines() if line.startswith(FILE)]
        return Facts(
            str(data["name"]),
            tuple(int(part) for part in data["version"]),
            int(data["mpy"]),
            str(data["machine"]),
            str(data["platform"]),
            int(data["free"]),
            int(data["size"]),
            {path: digest for digest, _, path in files},
        )

    def ask(self, script: str) -> Any:
        """Run a script on the plug and return the JSON behind its MARK; LinkError when there is none."""
        return _answer(self.port, self.run(script))

    def run(self, script: str) -> str:
        """Run a script on the plug and return what it printed."""
        return self._run(["exec", script], COMMAND_TIMEOUT_S)

    def start(self, script: str) -> None:
        """Start a script on the plug and leave it running."""
        self._run(["exec", "--no-follow", script], COMMAND_TIMEOUT_S)

    def write(self, files: Sequence[tuple[Path, str]], done: Callable[[str], None]) -> None:
        """Copy local files to paths on the plug; `done(path)` as each one begins. Folders must exist."""
        for at in range(0, len(files), FILES_PER_CALL):
            part = files[at : at + FILES_PER_CALL]
            command: list[str] = []
            for local, remote in part:
                command += [*(["+"] if command else []), "cp", "-f", str(local), f":{remote}"]
            self._run(command, FILE_TIMEOUT_S * len(part), done)

    def reset(self) -> None:
        """Start the plug's program anew."""
        self._run(["reset"], COMMAND_TIMEOUT_S)
        self._resumed = False

    def _run(self, command: list[str], timeout_s: int, done: Callable[[str], None] | None = None) -> str:
        """Run mpremote, again while the plug does not hear it."""
        for attempt in range(1, ENTER_ATTEMPTS + 1):
            try:
                return self._run_once(command, timeout_s, done)
            except LinkError as error:
                if NO_PROMPT not in str(error) or attempt == ENTER_ATTEMPTS:
                    raise
            time.sleep(ENTER_PAUSE_S)
        raise AssertionError("the last attempt returns or raises")

    def _run_once(self, command: list[str], timeout_s: int, done: Callable[[str], None] | None) -> str:
        """Run mpremote; the first call resets the interpreter, later ones go on in the same one."""
        resume = ["resume"] if self._resumed else []
        full = [sys.executable, "-u", "-m", "mpremote", "connect", self.port, *resume, *command]
        lines: list[str] = []
        try:
            child = subprocess.Popen(full, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        except OSError as error:
            raise LinkError(f"cannot run mpremote: {error.strerror}") from None
        try:
            output, _ = child.communicate(timeout=timeout_s) if done is None else (_follow(child, done), b"")
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            raise LinkError(f"{self.port}: no answer within {timeout_s} s") from None
        text = output.decode(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        if child.wait() != 0:
            raise LinkError(f"{self.port}: {lines[-1] if lines else 'mpremote failed'}")
        self._resumed = True
        return text


def _answer(port: str, output: str) -> Any:
    """The JSON behind MARK; LinkError when the plug said something else."""
    for line in output.splitlines():
        if line.startswith(MARK):
            return json.loads(line[len(MARK) :])
    raise LinkError(f"{port}: no answer to a script; the plug said {output.strip()[-200:]!r}")


def _follow(child: subprocess.Popen[bytes], done: Callable[[str], None]) -> bytes:
    """Read what mpremote says while it copies; every `cp` begins with a line that names the target."""
    assert child.stdout is not None
    output = b""
    for line in child.stdout:
        output += line
        if line.startswith(b"cp "):
            done(line.decode(errors="replace").rstrip().rpartition(" :")[2])
    return output
