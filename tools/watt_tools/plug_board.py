"""`wattpact plug board` and `release-key`: what the cable brings to a plug beside the firmware (firmware/DEVICE.md 1).

    board.json    the board: chip, pins, rated power, key class; of a model known here, or written by hand
    code.txt      the printed code, made here and nowhere else
    release.bin   the public keys of the three release offices

A board.json that no firmware could use is refused before it is on a plug, which would restart for ever.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from watt_chain import crypto
from watt_wire import pairing

from watt_tools.certificates import write_private
from watt_tools.plug_pair import fresh_secret

PULSE_CHIPS = ("hlw8012", "bl0937")
RELEASE_KEYS = 3
KEY_TEXT_MAX = 200
"Bytes of a file with one public key: 128 hex digits and a newline."
LABEL_GROUP = 4

Pin = Annotated[int, msgspec.Meta(ge=0, le=48)]
Level = Annotated[int, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=3600)]


class BoardError(Exception):
    """The files cannot be made or used; the text names file, field and what is allowed."""


class Board(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """board.json as the firmware reads it (DEVICE.md 1)."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    chip: Literal["cse7766", "hlw8032", "bl0942", "pzem004t", "hlw8012", "bl0937"]
    uart: Annotated[int, msgspec.Meta(ge=1, le=2)] | None = None
    rx_pin: Pin | None = None
    tx_pin: Pin | None = None
    cf_pin: Pin | None = None
    cf1_pin: Pin | None = None
    sel_pin: Pin | None = None
    voltage_ppm: Annotated[int, msgspec.Meta(ge=100_000, le=10_000_000)] | None = None
    rated_w: Annotated[int, msgspec.Meta(ge=1, le=100_000)]
    relay_pin: Pin | None = None
    relay_on: Level | None = None
    button_pin: Pin | None = None
    led_pin: Pin | None = None
    led_on: Level | None = None
    key: Literal["plain", "encrypted", "secure"]
    sda_pin: Pin | None = None
    scl_pin: Pin | None = None
    element_address: Annotated[int, msgspec.Meta(ge=8, le=119)] | None = None
    min_off_s: Seconds | None = None
    min_on_s: Seconds | None = None

    def __post_init__(self) -> None:
        needed = ["cf_pin", "cf1_pin", "sel_pin"] if self.chip in PULSE_CHIPS else ["uart", "rx_pin", "tx_pin"]
        needed += ["sda_pin", "scl_pin"] if self.key == "secure" else []
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"chip {self.chip} with key {self.key} needs {', '.join(missing)}")
        names = [name for name in self.__struct_fields__ if name.endswith("_pin") and getattr(self, name) is not None]
        pins = [getattr(self, name) for name in names]
        if len(set(pins)) != len(pins):
            raise ValueError(f"two of {', '.join(names)} are the same pin")


BOARDS = {
    "esp32-pzem": Board(
        model="esp32-pzem", chip="pzem004t", uart=2, rx_pin=16, tx_pin=17, rated_w=3680, relay_pin=26, relay_on=1,
        button_pin=0, led_pin=2, led_on=1, key="plain",
    ),
    "athom-plug-v3": Board(
        model="athom-plug-v3", chip="cse7766", uart=1, rx_pin=20, tx_pin=21, rated_w=3680, relay_pin=5, relay_on=1,
        button_pin=3, led_pin=6, led_on=0, key="plain",
    ),
}  # fmt: skip
"""Boards whose pins are known (firmware/README.md): an ESP32 DevKit with a PZEM-004T, and the Athom Smart Plug V3 as
its maker publishes it."""


def check(name: str, data: bytes) -> Board:
    """Read a board.json; BoardError names the field and what is allowed. `name` is how the error calls the file."""
    try:
        return msgspec.json.decode(data, type=Board)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BoardError(f"{name}: {error} (fields and values: firmware/DEVICE.md 1)") from None


def make(folder: Path, model: str, rated_w: int, releases: list[Path]) -> str:
    """Write the three files into a new folder; return the printed code. BoardError, OSError."""
    if model not in BOARDS:
        raise BoardError(f"model {model!r}: known are {', '.join(BOARDS)}; write board.json by hand for another one")
    keys = [public_key(path) for path in releases]
    if len(set(keys)) != RELEASE_KEYS:
        raise BoardError(f"{len(set(keys))} different release keys: a plug has {RELEASE_KEYS}")
    board = msgspec.json.encode(BOARDS[model])
    if rated_w:
        changed = {**msgspec.json.decode(board), "rated_w": rated_w}
        board = msgspec.json.encode(check("--rated-w", msgspec.json.encode(changed)))
    if (folder / "code.txt").exists():
        raise BoardError(f"{folder / 'code.txt'} exists: a folder is for one plug, and its code is never made twice")
    code = pairing.code_of(secrets.token_bytes(pairing.CODE_LENGTH))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "board.json").write_bytes(board)
    (folder / "release.bin").write_bytes(b"".join(keys))
    write_private(folder / "code.txt", code.encode())
    return code


def label(code: str) -> str:
    """The code as it is printed: in groups."""
    return "-".join(code[at : at + LABEL_GROUP] for at in range(0, len(code), LABEL_GROUP))


def public_key(path: Path) -> bytes:
    """A public key file: 128 hex digits and a newline. BoardError."""
    try:
        with path.open("rb") as file:
            text = file.read(KEY_TEXT_MAX)
        key = bytes.fromhex(text.decode("ascii").strip())
    except OSError as error:
        raise BoardError(f"{path}: {error.strerror}") from None
    except ValueError:
        key = b""
    if not crypto.is_public_key(key):
        raise BoardError(f"{path}: not a public key (128 hex digits of a point of P-256)")
    return key


def new_release_key(path: Path) -> Path:
    """Make a release office's key file and, beside it, its public key; returns the latter's path. BoardError."""
    public = path.with_suffix(".pub")
    taken = [file for file in (path, public) if file.exists()]
    if taken:
        raise BoardError(f"{taken[0]} exists; a key is never overwritten")
    key = crypto.PrivateKey(fresh_secret())
    write_private(path, key.to_text().encode())
    public.write_text(key.public.hex() + "\n")
    return public
