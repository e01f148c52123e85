"""Which of two bundles runs (DEVICE.md 2): counted starts, trial, roll-back, safe mode.

    magic "WPS1" | sequence u32 | active u8 | trial u8 | boots u8 | roll-backs u16 | release rolled back u32
    | twice: release u32, firmware hash 32 (zeros: empty) | first 16 bytes of SHA-256 of all before

Two files written in turn: a power cut spoils at most the one being written, and the other says what was true before.
"""

import hashlib
import os

MAGIC = b"WPS1"
FILES = ("slots0", "slots1")
FOLDERS = ("a", "b")
CHECK_SIZE = 16
BODY_SIZE = 4 + 4 + 3 + 2 + 4 + 2 * 36
EMPTY = b"\x00" * 32
TRIAL_STARTS = 3
"Starts on trial without a healthy report; the next one rolls back. One power cut is no reason to."
SAFE_STARTS = 10
"Starts off trial without a healthy report; the next one is safe mode."
SAFE_AGAIN = 5
"What the counter is set to when safe mode ends: half the patience."
CHUNK = 1024
PACKAGES = ("watt_wire", "watt_plug")

RUN = 0
SAFE = 1


class Slots:
    """The record of both slots, in the directory `root` ("" for the root of the flash)."""

    def __init__(self, root: str = "") -> None:
        self._root = root
        self._sequence = 0
        self.active = 0
        self.trial = False
        self.boots = 0
        self.roll_backs = 0
        self.rolled_back = 0
        self.releases = [0, 0]
        self.hashes = [EMPTY, EMPTY]
        for name in FILES:
            self._take(_read(root + name))

    def folder(self, slot: int) -> str:
        """Return the directory of a slot."""
        return self._root + FOLDERS[slot]

    def save(self) -> None:
        """Write the older file."""
        self._sequence += 1
        body = MAGIC + self._sequence.to_bytes(4, "big")
        body += bytes((self.active, 1 if self.trial else 0, min(self.boots, 255)))
        body += min(self.roll_backs, 65535).to_bytes(2, "big") + self.rolled_back.to_bytes(4, "big")
        for slot in (0, 1):
            body += self.releases[slot].to_bytes(4, "big") + self.hashes[slot]
        name = self._root + FILES[self._sequence & 1]
        with open(name + ".tmp", "wb") as file:
            file.write(body + hashlib.sha256(body).digest()[:CHECK_SIZE])
        os.rename(name + ".tmp", name)

    def choose(self) -> "tuple[int, int]":
        """A start: count it, decide, write the decision; return (RUN or SAFE, slot)."""
        if self.hashes[0] == EMPTY and self.hashes[1] == EMPTY:
            # The first start after flashing: what the cable put into slot a is what runs.
            self.hashes[0] = tree_hash(self.folder(0))
            self.active = 0
        self.boots += 1
        if self.trial and self.boots > TRIAL_STARTS and self._is_whole(1 - self.active):
            self.roll_back()
            self.boots = 1
        if not self._is_whole(self.active):
            if self._is_whole(1 - self.active):
                self.roll_back()
            else:
                self.save()
                return SAFE, self.active
        mode = SAFE if not self.trial and self.boots > SAFE_STARTS else RUN
        self.save()
        return mode, self.active

    def healthy(self) -> None:
        """The application runs as it should: the trial is over."""
        if self.trial or self.boots:
            self.trial = False
            self.boots = 0
            self.save()

    def leave_safe_mode(self) -> None:
        """Try again, with half the patience."""
        self.boots = SAFE_AGAIN
        self.save()

    def begin_update(self) -> int:
        """Mark the slot that does not run as empty, before a byte of it changes; return it."""
        slot = 1 - self.active
        self.hashes[slot] = EMPTY
        self.releases[slot] = 0
        self.save()
        return slot

    def finish_update(self, release: int, firmware_hash: bytes) -> None:
        """The files of the other slot are there and right: it runs next, on trial."""
        slot = 1 - self.active
        self.hashes[slot] = firmware_hash
        self.releases[slot] = release
        self.active = slot
        self.trial = True
        self.boots = 0
        self.save()

    def roll_back(self) -> None:
        """Run the other slot again; the one that failed is not tried a second time."""
        self.rolled_back = self.releases[self.active]
        self.hashes[self.active] = EMPTY
        self.active = 1 - self.active
        self.trial = False
        self.roll_backs += 1

    def _is_whole(self, slot: int) -> bool:
        if self.hashes[slot] == EMPTY:
            return False
        try:
            return tree_hash(self.folder(slot)) == self.hashes[slot]
        except OSError:
            return False

    def _take(self, data: bytes) -> None:
        body, check = data[:BODY_SIZE], data[BODY_SIZE:]
        if len(data) != BODY_SIZE + CHECK_SIZE or data[:4] != MAGIC:
            return
        if hashlib.sha256(body).digest()[:CHECK_SIZE] != check:
            return
        sequence = int.from_bytes(body[4:8], "big")
        if sequence <= self._sequence:
            return
        self._sequence = sequence
        self.active, self.trial, self.boots = body[8] & 1, body[9] == 1, body[10]
        self.roll_backs = int.from_bytes(body[11:13], "big")
        self.rolled_back = int.from_bytes(body[13:17], "big")
        for slot in (0, 1):
            at = 17 + 36 * slot
            self.releases[slot] = int.from_bytes(body[at : at + 4], "big")
            self.hashes[slot] = body[at + 4 : at + 36]


def tree_hash(folder: str) -> bytes:
    """Return the firmware hash of a slot: the rule of watt_plug/release.py; a base trusts no bundle."""
    state = hashlib.sha256()
    for package in PACKAGES:
        for name in _files(folder, package):
            label = name.encode()
            size = os.stat(folder + "/" + name)[6]
            state.update(len(label).to_bytes(2, "big") + label + size.to_bytes(4, "big"))
            with open(folder + "/" + name, "rb") as file:
                while True:
                    chunk = file.read(CHUNK)
                    if not chunk:
                        break
                    state.update(chunk)
    return state.digest()


def _files(root: str, folder: str) -> "list[str]":
    names = sorted(os.listdir(root + "/" + folder))
    files = [folder + "/" + name for name in names if name.endswith((".py", ".mpy"))]
    for name in names:
        if "." not in name and name != "__pycache__":
            files += _files(root, folder + "/" + name)
    return files


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
