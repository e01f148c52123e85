"""Firmware bundles on their way to the plugs: pieces out, the plug's status back (firmware/DEVICE.md 6).

A gateway has no release key: whether a bundle may run is the plug's to check. It sends what the plug's status asks for
and nothing ahead of it but a small window, repeats after a silence, and goes on where the plug is after a restart of
either. A transfer ends with the plug's word: it runs the release and has confirmed it, or a signed event says that it
went back, or it refuses the bundle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from watt_wire import bundle, statement
from watt_wire.errors import DecodeError
from watt_wire.fields import SIGNATURE_SIZE

PIECE = 512
"""Bytes of one piece; a plug takes 2048 (DEVICE.md 6), but its smallest heap has no room for several of those."""
WINDOW = 3
"""Pieces ahead of what the plug has said: it keeps four messages until it looks, once a second."""
STALL_MS = 8_000
"""Silence after which a piece is taken for lost: the plug says within a second that it has one."""
BEGIN_MS = 15_000
"""Between two beginnings: two verifications on an ESP32 under load."""
SILENT_MS = 86_400_000
"""A day without a word of the plug ends a transfer."""
TRANSFERS_MAX = 8
"""Plugs that are given a bundle at a time: half a megabyte of memory each, and a house is not updated all at once."""
BUNDLE_BYTES_MAX = bundle.MANIFEST_SIZE_MAX + bundle.TOTAL_SIZE_MAX
BEGIN, DATA, END = b"\x01", b"\x02", b"\x03"
PASSING = (
    "update-offset",
    "update-order",
    "update-piece",
    "update-staged",
    "update-trial",
    "update-disk",
    "update-memory",
)
"""Errors of a plug that a repetition, or waiting, gets over; every other one is about the bundle."""

CONFIRMED, ROLLED_BACK, REFUSED, SILENT = "confirmed", "rolled-back", "refused", "silent"
COUNT_AT, FILES_AT = 57, 58


def split(data: bytes) -> tuple[bundle.Manifest, bytes, bytes]:
    """(manifest, its frame, contents) of a bundle file. DecodeError when it is none; signatures are not checked."""
    if not FILES_AT <= len(data) <= BUNDLE_BYTES_MAX:
        raise DecodeError("bundle-size", f"{len(data)} bytes")
    at = FILES_AT
    for _ in range(data[COUNT_AT]):
        at += 1 + (data[at] if at < len(data) else 0) + 4
    at += 2 * SIGNATURE_SIZE
    manifest = bundle.decode(data[:at])
    if len(data) - at != manifest.total_size:
        raise DecodeError("bundle-size", f"{len(data) - at} bytes of contents, {manifest.total_size} in the manifest")
    return manifest, data[:at], data[at:]


@dataclass(slots=True)
class Transfer:
    """One bundle on its way to one plug. Times are of the machine, ms."""

    plug: bytes
    release: int
    frame: bytes
    content: bytes
    heard_ms: int
    state: str = "waiting"
    offset: int = 0
    "Bytes that the plug has."
    sent_to: int = -1
    sent_ms: int = -BEGIN_MS

    @property
    def name(self) -> str:
        """How the plug's status names this bundle."""
        return hashlib.sha256(self.frame).digest()[:4].hex()

    @property
    def status(self) -> dict[str, object]:
        """For people and for `wattpact plug update`."""
        return {"release": self.release, "state": self.state, "bytes": self.offset, "total": len(self.content)}


class Updates:
    """The transfers of one household."""

    def __init__(self) -> None:
        self._transfers: dict[bytes, Transfer] = {}
        self._ended: dict[bytes, Transfer] = {}

    def offer(self, plug: bytes, data: bytes, now_ms: int) -> str:
        """Begin, or go on after a restart of ours; returns "" or why not."""
        try:
            manifest, frame, content = split(data)
        except DecodeError as error:
            return error.reason
        running = self._transfers.get(plug)
        if running is not None and running.frame == frame:
            return ""
        if running is None and len(self._transfers) >= TRANSFERS_MAX:
            return "update-crowd"
        self._transfers[plug] = Transfer(plug, manifest.release, frame, content, now_ms)
        self._ended.pop(plug, None)
        return ""

    def event(self, event: statement.Statement) -> None:
        """A plug's signed event: a roll-back ends the transfer of that release."""
        plug = event.data("plug_id")
        transfer = self._transfers.get(plug)
        if event.number("kind") == statement.ROLL_BACK and transfer and event.number("first") == transfer.release:
            self._end(transfer, ROLLED_BACK)

    def heard(self, plug: bytes, told: Mapping[str, object], now_ms: int) -> None:
        """A plug's status."""
        transfer = self._transfers.get(plug)
        if transfer is None:
            return
        transfer.heard_ms = now_ms
        release, trial = told.get("release"), told.get("trial")
        ours = told.get("update_name") == transfer.name
        state, error = told.get("update_state"), str(told.get("update_error") or "")
        if isinstance(release, int) and release >= transfer.release:
            if release == transfer.release and not trial:
                self._end(transfer, CONFIRMED)
            elif release == transfer.release:
                transfer.state = "trial"
            else:
                self._end(transfer, f"{REFUSED} update-old")
        elif not ours:
            transfer.state = "waiting"
        elif error and error not in PASSING:
            self._end(transfer, f"{REFUSED} {error}")
        elif state in ("none", "verifying", "receiving", "staged"):
            transfer.state = "waiting" if state == "none" else str(state)
            offset = told.get("update")
            if state == "receiving" and isinstance(offset, int) and 0 <= offset <= len(transfer.content):
                if error or offset < transfer.offset:
                    transfer.sent_to = -1  # what is on its way does not fit any more
                transfer.offset = offset

    def due(self, ready: Collection[bytes], now_ms: int) -> list[tuple[bytes, bytes]]:
        """(plug, piece) to send now, for the plugs that are there."""
        found: list[tuple[bytes, bytes]] = []
        for transfer in list(self._transfers.values()):
            if now_ms - transfer.heard_ms > SILENT_MS:
                self._end(transfer, SILENT)
            elif transfer.plug in ready:
                found += [(transfer.plug, piece) for piece in _pieces(transfer, now_ms)]
        return found

    def ended(self) -> list[bytes]:
        """Plugs whose transfer is over: their files can go."""
        return list(self._ended)

    def status(self) -> dict[str, dict[str, object]]:
        """Running transfers and the last end of each plug, by plug in hex."""
        return {plug.hex(): transfer.status for plug, transfer in {**self._ended, **self._transfers}.items()}

    def _end(self, transfer: Transfer, state: str) -> None:
        transfer.state = state
        transfer.content = b"" if state != CONFIRMED else transfer.content
        self._ended[transfer.plug] = transfer
        del self._transfers[transfer.plug]


def _pieces(transfer: Transfer, now_ms: int) -> list[bytes]:
    """What this plug needs next."""
    silent_ms = now_ms - transfer.sent_ms
    if transfer.state == "waiting":
        if silent_ms < BEGIN_MS:
            return []
        transfer.sent_ms, transfer.sent_to = now_ms, -1
        return [BEGIN + transfer.frame]
    if transfer.state != "receiving":
        return []
    total = len(transfer.content)
    if transfer.sent_to < 0 or silent_ms >= STALL_MS:
        transfer.sent_to = transfer.offset
    pieces = []
    while transfer.sent_to < min(total, transfer.offset + WINDOW * PIECE):
        at = transfer.sent_to
        pieces.append(DATA + at.to_bytes(4, "big") + transfer.content[at : at + PIECE])
        transfer.sent_to = min(total, at + PIECE)
    if transfer.offset == total and (transfer.sent_to == total or silent_ms >= STALL_MS):
        pieces.append(END)
        transfer.sent_to = total + 1
    if pieces:
        transfer.sent_ms = now_ms
    return pieces
