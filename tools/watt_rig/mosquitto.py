"""A real Mosquitto with mutual TLS as a child process, on the configuration that a household deploys.

The directives and the access rules are those of gateway/deploy; only paths, port and what a bench must see change.
It can be killed and started again: that is a fault of the bench.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

START_S = 10
"Seconds until it must listen; it takes 50 ms."
REPLACED = ("listener", "cafile", "certfile", "keyfile", "acl_file", "log_type", "connection_messages", "log_dest")
"Directives of the deployed file that a bench sets itself."
DEPLOY = Path(__file__).resolve().parents[2] / "gateway" / "deploy"


def executable() -> str | None:
    """Path of Mosquitto, which Debian keeps out of a user's path; None when it is not installed."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


class BrokerError(Exception):
    """The broker cannot be started; the text says why and what to do."""


@dataclass(frozen=True)
class Identity:
    """Certificate files of the broker."""

    ca: Path
    certificate: Path
    key: Path


class Mosquitto:
    """One broker in `folder`, on 127.0.0.1:`port`."""

    def __init__(self, folder: Path, port: int, identity: Identity) -> None:
        self.port = port or free_port()
        self.deaths = 0
        self._folder = folder
        self._config = folder / "mosquitto.conf"
        self._identity = identity
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start it and return when it listens; BrokerError when it does not."""
        binary = executable()
        if binary is None:
            raise BrokerError("mosquitto is not installed: apt-get install mosquitto (tools/need-mosquitto.sh)")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._config.write_text(self._text())
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._child = subprocess.Popen(
                [binary, "-c", str(self._config)], stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            with socket.socket() as probe:
                probe.settimeout(0.5)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self._child.poll() is not None:
                break
            time.sleep(0.02)
        raise BrokerError(f"mosquitto does not listen on 127.0.0.1:{self.port}; see {self._folder / 'mosquitto.log'}")

    def kill(self) -> None:
        """End it without warning."""
        if self._child is not None:
            self.deaths += 1
            self._child.kill()
            self._child.wait()

    def stop(self) -> None:
        """End it."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(3)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def _text(self) -> str:
        deployed = (DEPLOY / "mosquitto.conf").read_text().splitlines()
        kept = [line for line in deployed if line.split(" ")[0] not in REPLACED]
        acl = self._folder / "wattpact.acl"
        acl.write_text((DEPLOY / "wattpact.acl").read_text())
        acl.chmod(0o600)
        ours = [
            f"listener {self.port} 127.0.0.1",
            f"cafile {self._identity.ca}",
            f"certfile {self._identity.certificate}",
            f"keyfile {self._identity.key}",
            *kept,
            f"acl_file {acl}",
            "log_dest stderr",
            "log_type warning",
            "log_type error",
            "log_type notice",
            # Mosquitto drops root for a user that may not read a bench's folder.
            "user root" if os.geteuid() == 0 else "",
        ]
        return "\n".join(ours) + "\n"


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has now."""
    with socket.socket() as handle:
        handle.bind(("127.0.0.1", 0))
        return int(handle.getsockname()[1])
