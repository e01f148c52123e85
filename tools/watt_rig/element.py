"""The secure element of a virtual plug: the fake ATECC608 of device/fake_atecc.py, with a key that outlives power.

Signatures come from the second implementation (second.py): what the plug's own arithmetic would accept by mistake, it
would not make.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from watt_rig import second

FILE = "element.json"
HERE = Path(__file__).resolve().parent


class Element:
    """One chip, kept in `folder`. `write` and `read` are what the bus sees; None is a NACK."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        kept = json.loads(self._path.read_text()) if self._path.exists() else {"key": "", "counters": [0, 0]}
        self._secret = str(kept["key"])
        self.chip = _fake().FakeAtecc608(self)
        self.chip.counters = list(kept["counters"])

    def write(self, address: int, data: bytes) -> bool:
        """A write to an address; whether somebody acknowledged it."""
        before = list(self.chip.counters)
        try:
            self.chip.writeto(address, data)
        except OSError:
            return False
        if self.chip.counters != before:
            self._keep()
        return True

    def read(self, address: int, size: int) -> bytes | None:
        """A read from an address."""
        try:
            return bytes(self.chip.readfrom(address, size))
        except OSError:
            return None

    # What the fake asks for: slot 0 may make its key once, as a preconfigured part whose key is made at the customer's.

    def public(self, slot: int) -> bytes | None:
        return second.public_of(bytes.fromhex(self._secret)) if slot == 0 and self._secret else None

    def make(self, slot: int) -> bytes | None:
        if slot == 0 and not self._secret:
            self._secret = second.new_secret().hex()
            self._keep()
        return self.public(slot)

    def sign(self, slot: int, digest: bytes) -> bytes | None:
        return second.sign_digest(bytes.fromhex(self._secret), digest) if slot == 0 and self._secret else None

    def _keep(self) -> None:
        self._path.write_text(json.dumps({"key": self._secret, "counters": self.chip.counters}))
        self._path.chmod(0o600)


def _fake() -> Any:
    """The module that runs on the interpreters too; its folder is no package."""
    spec = importlib.util.spec_from_file_location("fake_atecc", HERE / "device" / "fake_atecc.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
