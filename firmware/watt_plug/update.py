"""Takes a firmware bundle in pieces into the slot that does not run (DEVICE.md 6). Loaded only while one comes in.

    piece   0x01 || manifest frame | 0x02 || offset u32 || bytes | 0x03

**Invariant:** nothing is written before two of three release keys have signed the manifest, and the slot counts as
empty from before the first write until every file is there with the right hash.
"""

import gc
import hashlib
import os

from watt_wire import bundle, p256
from watt_wire.errors import DecodeError

from watt_plug import release

BEGIN = 1
DATA = 2
END = 3
PIECE_MAX = 2048
SLICE = 16
"Doublings per step of a verification, as in orders.py."


class Updater:
    """One update. `slots` is watt_boot's record; `keys` the three release keys, 64 bytes each.

    received   bytes of contents that lie in the slot
    error      reason of the last refusal, "" while all is well
    name       of the bundle that all this is about: SHA-256 of its manifest frame, 4 bytes in hex
    ready      the new slot is recorded: shut down the books and restart
    """

    def __init__(self, slots: object, keys: "list[bytes]") -> None:
        self._slots = slots
        self._keys = keys
        self._frame = b""
        self._signers: list[bytes] = []
        "Keys whose signatures of the manifest are still to be verified."
        self._work: "p256.Verification | None" = None
        self._manifest: "bundle.Manifest | None" = None
        self._taking = False
        "The manifest is good: its contents may come."
        self._folder = ""
        self.received = 0
        self.error = ""
        self.name = ""
        self.ready = False

    @property
    def state(self) -> str:
        """What the status shows: "none", "verifying", "receiving" or "staged" (DEVICE.md 7)."""
        if self.ready:
            return "staged"
        if self._signers:
            return "verifying"
        return "receiving" if self._taking else "none"

    def take(self, piece: bytes) -> None:
        """Take a piece from network or cable. Never raises on hostile input; a full disk or heap is an error."""
        try:
            if piece[:1] == bytes((BEGIN,)):
                self._begin(piece[1:])
            elif piece[:1] == bytes((DATA,)) and 5 < len(piece) <= 5 + PIECE_MAX:
                self._data(int.from_bytes(piece[1:5], "big"), memoryview(piece)[5:])
            elif piece == bytes((END,)):
                self._end()
            else:
                raise DecodeError("update-piece")
        except DecodeError as error:
            self.error = error.reason
        except OSError:
            self.error = "update-disk"
        except MemoryError:
            self._give_up("update-memory")

    def work(self) -> bool:
        """Verify a slice of the manifest; return whether more is to be done."""
        if not self._signers:
            return False
        try:
            self._verify()
        except OSError:
            self._give_up("update-disk")
        except MemoryError:
            self._give_up("update-memory")
        return bool(self._signers)

    def _verify(self) -> None:
        if self._work is None:
            # One at a time, and the message anew for each: a small heap has no room for both.
            end = len(self._frame) - 64 * len(self._signers)
            message = bundle.signing_message(bundle.body(self._frame))
            self._work = p256.Verification(self._signers[0], message, self._frame[end : end + 64])
        if not self._work.step(SLICE):
            return
        good = self._work.good
        self._work = None
        self._signers.pop(0)
        if not good:
            self._give_up("update-signature")
        elif not self._signers:
            self._open()

    def _give_up(self, reason: str) -> None:
        """The sender begins again; the files on flash stay, so that it goes on where they end."""
        self._signers = []
        self._work = None
        self._taking = False
        self.error = reason
        gc.collect()

    def _begin(self, frame: bytes) -> None:
        slots = self._slots
        if self.ready:
            raise DecodeError("update-staged")
        if slots.trial:  # type: ignore[attr-defined]
            # The slot that does not run is what a failing trial goes back to.
            raise DecodeError("update-trial")
        if self._taking and frame == self._frame:
            self.error = ""
            return  # the sender did not hear that this bundle is being taken
        self.name = hashlib.sha256(frame).digest()[:4].hex()
        manifest = bundle.decode(frame)
        if manifest.release <= slots.releases[slots.active]:  # type: ignore[attr-defined]
            raise DecodeError("update-old")
        pair = bundle.signers(manifest, self._keys)
        if pair is None or not p256.is_low_s(frame[-128:-64]) or not p256.is_low_s(frame[-64:]):
            raise DecodeError("update-signature")
        self._work = None
        self._signers = list(pair)
        self._taking = False
        self._manifest = manifest
        self._frame = frame
        self.error = ""

    def _open(self) -> None:
        """The manifest is good: go on where the files of the same one end, or begin with an empty slot."""
        slots = self._slots
        manifest = self._manifest
        assert manifest is not None
        folder = slots.folder(slots.begin_update())  # type: ignore[attr-defined]
        self._folder = folder
        if _read(folder + "/manifest.bin") != self._frame:
            _remove_tree(folder)
            _make_folders(folder, "manifest.bin")
            with open(folder + "/manifest.new", "wb") as file:
                file.write(self._frame)
            os.rename(folder + "/manifest.new", folder + "/manifest.bin")
        self.received = 0
        whole = True
        for path, size in manifest.files:
            _make_folders(folder, path)
            there = max(0, min(_size(folder + "/" + path), size)) if whole else 0
            self.received += there
            whole = whole and there == size
        self._taking = True

    def _data(self, offset: int, data: memoryview) -> None:
        manifest = self._manifest
        if not self._taking or manifest is None:
            raise DecodeError("update-order")
        if offset != self.received or offset + len(data) > manifest.total_size:
            raise DecodeError("update-offset")
        start = 0
        for path, size in manifest.files:
            end = start + size
            if data and start <= self.received < end:
                part = data[: end - self.received]
                # Append: what a power cut left of this file is the beginning of it.
                with open(self._folder + "/" + path, "ab" if self.received > start else "wb") as file:
                    file.write(part)
                self.received += len(part)
                data = data[len(part) :]
            start = end
        self.error = ""

    def _end(self) -> None:
        manifest = self._manifest
        if not self._taking or manifest is None or self.received != manifest.total_size:
            raise DecodeError("update-order")
        for path, size in manifest.files:
            if not size and _size(self._folder + "/" + path) < 0:
                with open(self._folder + "/" + path, "wb"):
                    pass
        self._taking = False
        if release.firmware_hash(self._folder) != manifest.firmware_hash:
            # Begin anew next time: one of these files is not what was signed.
            _remove_tree(self._folder)
            raise DecodeError("update-hash")
        self._slots.finish_update(manifest.release, manifest.firmware_hash)  # type: ignore[attr-defined]
        self.ready = True


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _size(path: str) -> int:
    try:
        return int(os.stat(path)[6])
    except OSError:
        return -1


def _make_folders(root: str, path: str) -> None:
    parts = path.split("/")
    for depth in range(len(parts)):
        folder = "/".join([root] + parts[:depth])
        if _size(folder) < 0:
            os.mkdir(folder)


def _remove_tree(folder: str) -> None:
    """Remove a folder and what is in it; nothing when it is not there."""
    if _size(folder) < 0:
        return
    for name in os.listdir(folder):
        path = folder + "/" + name
        try:
            os.remove(path)
        except OSError:
            _remove_tree(path)
    os.rmdir(folder)
