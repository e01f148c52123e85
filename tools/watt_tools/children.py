"""Child processes of a bench network: start, watch, restart like a service manager would, stop.

The children are the daemons a deployment runs. Invariant: no child outlives `Children.stop`, and a child that keeps
dying is not restarted more than RESTARTS_MAX times.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

RESTARTS_MAX = 5
"A daemon that dies this often has a fault that a further start does not mend."
RESTART_DELAY_S = 5
"As RestartSec=5 in the units of a deployment."
STOP_GRACE_S = 12
"Time for a daemon to close its stores after SIGTERM before it is killed."
FAILED_START_S = 3
"A child that leaves with code 1 this soon refused to start (port, configuration): a restart would repeat it."


class ChildFailed(Exception):
    """A daemon refused to run; the text is its last line and names its log."""


@dataclass
class Child:
    name: str
    arguments: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    dead_since_s: float | None = None
    restarts: int = 0
    halted: bool = False
    "Killed on purpose, and not to be started before `resume`."

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.process.poll() is None else None


@dataclass
class Children:
    """All daemons of one network. `pids_path` always names the living ones, for people and for tests."""

    pids_path: Path
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    children: list[Child] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def start(self, name: str, arguments: list[str], log: Path) -> Child:
        log.parent.mkdir(parents=True, exist_ok=True)
        child = Child(name, arguments, log)
        self.children.append(child)
        self._spawn(child)
        return child

    def again(self, child: Child) -> None:
        """Start a child that has ended, at once and however often."""
        assert child.pid is None
        self._spawn(child)

    def watch(self) -> None:
        """Restart what died. Raises ChildFailed for a daemon that refuses to run."""
        now_s = time.monotonic()
        for child in self.children:
            assert child.process is not None
            code = child.process.poll()
            if code is None or child.halted:
                continue
            if child.dead_since_s is None:
                child.dead_since_s = now_s
                self.notes.append(f"{child.name} ended with {_exit_text(code)}; restart in {RESTART_DELAY_S} s")
                refused = code == 1 and now_s - child.started_s < FAILED_START_S
                if refused or child.restarts >= RESTARTS_MAX:
                    raise ChildFailed(f"{child.name}: {_last_line(child.log)} (log: {child.log})")
            if now_s - child.dead_since_s >= RESTART_DELAY_S:
                child.restarts += 1
                self._spawn(child)
                self.notes.append(f"{child.name} restarted")

    def kill(self, name: str) -> None:
        """kill -9 one child; `watch` starts it again like any that died."""
        for child in self.children:
            if child.name == name and child.process is not None:
                child.process.kill()

    def halt(self, prefix: str) -> None:
        """kill -9 the children whose name begins with `prefix`; they stay down until `resume`."""
        for child in self.children:
            if child.name.startswith(prefix) and child.process is not None:
                child.halted = True
                child.process.kill()

    def resume(self, prefix: str) -> None:
        """Start what `halt` killed."""
        for child in self.children:
            if child.name.startswith(prefix) and child.halted:
                assert child.process is not None
                child.process.wait()
                child.halted = False
                self._spawn(child)

    def stop(self, names: tuple[str, ...] = ("",)) -> None:
        """Stop children whose name begins with one of `names`; the default stops all."""
        chosen = [child for child in self.children if child.name.startswith(names)]
        for child in chosen:
            if child.pid is not None:
                assert child.process is not None
                with contextlib.suppress(ProcessLookupError):
                    child.process.send_signal(signal.SIGTERM)
        deadline_s = time.monotonic() + STOP_GRACE_S
        for child in chosen:
            assert child.process is not None
            try:
                child.process.wait(timeout=max(0.1, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.notes.append(f"{child.name} did not stop in {STOP_GRACE_S} s and was killed")
                child.process.kill()
                child.process.wait()
        self.children = [child for child in self.children if child not in chosen]
        self._write_pids()

    def _spawn(self, child: Child) -> None:
        with child.log.open("ab") as log:
            child.process = subprocess.Popen(
                child.arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                # A group of its own: Ctrl-C reaches only the parent, which stops the children in order.
                start_new_session=True,
            )
        child.started_s = time.monotonic()
        child.dead_since_s = None
        self._write_pids()

    def _write_pids(self) -> None:
        pids = {child.name: child.pid for child in self.children}
        temporary = self.pids_path.with_suffix(".tmp")
        temporary.write_text(json.dumps(pids, indent=1))
        temporary.replace(self.pids_path)


def command(*words: str) -> list[str]:
    """The `wattpact` command with these words, run by this interpreter."""
    return [sys.executable, "-m", "watt_tools.cli", *words]


def _exit_text(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no output"
