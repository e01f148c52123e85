"""What a bench needs before it runs: an authority, certificates, the household's key, release keys, printed codes.

All of it lies below DIR/trust and is made once. These keys are for a bench: they protect nothing else.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from watt_chain import crypto
from watt_rig.bench import HOME, Bench, Identities
from watt_rig.bench import Household as BenchHousehold
from watt_rig.benchfile import BenchFile
from watt_wire import pairing

from watt_tools.certificates import Authority, write_private
from watt_tools.plug_pair import Household, fresh_secret

RELEASE_KEYS = 3
PINS: dict[str, dict[str, object]] = {
    "cse7766": {"chip": "cse7766", "uart": 1, "rx_pin": 3, "tx_pin": 1},
    "bl0942": {"chip": "bl0942", "uart": 1, "rx_pin": 3, "tx_pin": 1},
    "pzem004t": {"chip": "pzem004t", "uart": 2, "rx_pin": 16, "tx_pin": 17},
    "bl0937": {"chip": "bl0937", "cf_pin": 5, "cf1_pin": 14, "sel_pin": 12},
}
"What board.json says of each chip; the pins of the rest are those of a common board."
BOARD: dict[str, object] = {
    "relay_pin": 26, "relay_on": 1, "button_pin": 0, "led_pin": 2, "led_on": 1, "sda_pin": 21, "scl_pin": 22,
}  # fmt: skip


class Trust:
    """Keys and certificates of one bench."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder / "tls", "rig")
        self.gateway_key = key_of(folder / "gateway.key")
        self.release_keys = [key_of(folder / f"release-{number}.key") for number in range(1, RELEASE_KEYS + 1)]
        self.parties = [(number, key_of(folder / f"party-{number}.key")) for number in (1, 2)]
        self.network = crypto.sha256(b"a bench has no chain: " + self.gateway_key.public)

    def identities(self) -> Identities:
        """Certificates of the bench's own ends."""
        return Identities(self.authority.ca_path, self.authority.issue("broker"), self.authority.issue(HOME))

    def code(self, plug: str) -> str:
        """The code that would be printed on a plug; made once."""
        path = self.folder / f"{plug}.code"
        if not path.exists():
            write_private(path, (pairing.code_of(secrets.token_bytes(pairing.CODE_LENGTH)) + "\n").encode())
        return path.read_text().strip()


def key_of(path: Path) -> crypto.PrivateKey:
    """Read a private key file (64 hex digits), making it when it is not there."""
    if not path.exists():
        write_private(path, crypto.PrivateKey(fresh_secret()).to_text().encode())
    return crypto.PrivateKey.from_text(path.read_text())


def board_files(trust: Trust, file: BenchFile, plug: str) -> dict[str, bytes]:
    """What the cable writes beside the firmware: board.json, code.txt, release.bin."""
    part = next(part for part in file.plugs if part.name == plug)
    board = {"model": f"rig-{part.chip}", **PINS[part.chip], "rated_w": part.rated_w, **BOARD, "key": part.key}
    return {
        "board.json": json.dumps(board).encode(),
        "code.txt": trust.code(plug).encode(),
        "release.bin": b"".join(key.public for key in trust.release_keys),
    }


def household(trust: Trust, broker_port: int) -> Household:
    """What a plug of the bench is told; every plug has its own way to the broker (watt_rig/airline.py)."""
    return Household(
        "rig",
        "rig",
        HOME,
        "localhost",
        broker_port,
        trust.authority.ca_der,
        trust.gateway_key.public,
        trust.network,
        [(number, key.public) for number, key in trust.parties],
    )


def make_bench(file: BenchFile, folder: Path, base: Path) -> tuple[Bench, Trust]:
    """A bench ready to start in `folder`."""
    trust = Trust(folder.resolve() / "trust")
    parties = [(number, key.public) for number, key in trust.parties]
    us = BenchHousehold(trust.gateway_key, trust.network, parties)
    return Bench(file, folder.resolve(), base, trust.identities(), us), trust
