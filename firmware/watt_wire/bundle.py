"""Manifest of a firmware bundle: which files, which release, and two of three release keys over it (WIRE.md 11).

A bundle is the manifest frame followed by the contents of its files in the order of the manifest. The manifest names
the firmware hash (watt_plug/release.py) instead of one hash per file: that hash covers names, sizes and contents, and
it is the one that every checkpoint carries, so a checkpoint points at the manifest that was signed.
"""

import hashlib

from watt_wire.errors import DecodeError, EncodeError
from watt_wire.fields import (
    HASH_SIZE,
    ID_SIZE,
    SIGNATURE_SIZE,
    SUITE_P256_SHA256,
    U32_MAX,
    bytes_problem,
    integer_problem,
)

TYPE_CHECKING = False  # type checkers take the name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Verify = Callable[[bytes, bytes, bytes], bool]

MAGIC = b"WPM\x01"
DOMAIN = b"wattpact/1/bundle\x00"
FILES_MAX = 64
"""The firmware has about forty files; a device reads the whole list into memory."""
FILE_SIZE_MAX = 65536
TOTAL_SIZE_MAX = 524288
"""Two bundles and two days of batches lie in a 2 MiB file system."""
PATH_LENGTH_MAX = 48
_HEADER_SIZE = 4 + 1 + 4 + HASH_SIZE + 2 * ID_SIZE + 1
MANIFEST_SIZE_MAX = _HEADER_SIZE + FILES_MAX * (1 + PATH_LENGTH_MAX + 4) + 2 * SIGNATURE_SIZE
_FOLDERS = ("watt_wire/", "watt_plug/")
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789_/."


class Files:
    """(path, size) of a frame, read anew at each pass: the smallest heap has no room for all of them at once."""

    def __init__(self, frame: bytes) -> None:
        self._frame = frame

    def __len__(self) -> int:
        return self._frame[_HEADER_SIZE - 1]

    def __iter__(self) -> "Iterator[tuple[str, int]]":
        frame = self._frame
        at = _HEADER_SIZE
        for _ in range(len(self)):
            end = at + 1 + frame[at]
            yield frame[at + 1 : end].decode(), int.from_bytes(frame[end : end + 4], "big")
            at = end + 4


class Manifest:
    """What a bundle holds.

    release         number of the release; a plug takes only a higher one than it runs
    firmware_hash   32 bytes
    signer_a, _b    8 bytes each, ids of the two release keys, ascending
    files           (path, size) in the order in which the firmware hash takes them: a list, or Files of a frame
    """

    def __init__(
        self,
        release: int,
        firmware_hash: bytes,
        signer_a: bytes,
        signer_b: bytes,
        files: "list[tuple[str, int]] | Files",
    ) -> None:
        self.release = release
        self.firmware_hash = firmware_hash
        self.signer_a = signer_a
        self.signer_b = signer_b
        self.files = files

    @property
    def total_size(self) -> int:
        """Bytes of all contents."""
        return sum([size for _, size in self.files])


def encode(manifest: Manifest) -> bytes:
    """Return the body to be signed; EncodeError outside the limits."""
    text = problem(manifest)
    if text:
        raise EncodeError(text)
    parts = [MAGIC, bytes((SUITE_P256_SHA256,)), manifest.release.to_bytes(4, "big"), manifest.firmware_hash]
    parts += [manifest.signer_a, manifest.signer_b, bytes((len(manifest.files),))]
    for path, size in manifest.files:
        name = path.encode()
        parts.append(bytes((len(name),)) + name + size.to_bytes(4, "big"))
    return b"".join(parts)


def seal(body: bytes, signature_a: bytes, signature_b: bytes) -> bytes:
    """Return the frame: body, signature of signer_a, signature of signer_b."""
    text = bytes_problem("signature_a", signature_a, SIGNATURE_SIZE) or bytes_problem(
        "signature_b", signature_b, SIGNATURE_SIZE
    )
    if text:
        raise EncodeError(text)
    return body + signature_a + signature_b


def decode(frame: bytes) -> Manifest:
    """Return the manifest of a frame that holds nothing else; signatures are NOT checked. DecodeError("bundle-...")."""
    if not isinstance(frame, bytes) or not _HEADER_SIZE + 2 * SIGNATURE_SIZE <= len(frame) <= MANIFEST_SIZE_MAX:
        raise DecodeError("bundle-size", "a manifest has at most %d bytes" % MANIFEST_SIZE_MAX)
    if frame[:4] != MAGIC:
        raise DecodeError("bundle-magic", "manifest begins with " + frame[:4].hex())
    if frame[4] != SUITE_P256_SHA256:
        raise DecodeError("bundle-suite", "suite %d, expected %d" % (frame[4], SUITE_P256_SHA256))
    end = len(frame) - 2 * SIGNATURE_SIZE
    at = 9 + HASH_SIZE
    manifest = Manifest(
        int.from_bytes(frame[5:9], "big"),
        frame[9:at],
        frame[at : at + ID_SIZE],
        frame[at + ID_SIZE : at + 2 * ID_SIZE],
        Files(frame),
    )
    at = _HEADER_SIZE
    for _ in range(frame[_HEADER_SIZE - 1]):
        length = frame[at]
        if at + 1 + length + 4 > end:
            raise DecodeError("bundle-size", "the list of files is longer than the frame")
        try:
            frame[at + 1 : at + 1 + length].decode()
        except (UnicodeError, ValueError):
            raise DecodeError("bundle-field", "a path is not text")
        at += 1 + length + 4
    if at != end:
        raise DecodeError("bundle-size", "%d bytes after the list of files" % (end - at))
    text = problem(manifest)
    if text:
        raise DecodeError("bundle-field", text)
    return manifest


def signing_message(body: "bytes | memoryview") -> bytes:
    """Return what both release keys sign."""
    return DOMAIN + body


def body(frame: bytes) -> memoryview:
    """Return what is signed of a frame that `decode` took, without a copy of it."""
    return memoryview(frame)[: len(frame) - 2 * SIGNATURE_SIZE]


def parts(frame: bytes) -> "tuple[bytes, bytes, bytes]":
    """Return (body, signature of signer_a, signature of signer_b) of a frame that `decode` took."""
    end = len(frame) - 2 * SIGNATURE_SIZE
    return frame[:end], frame[end : end + SIGNATURE_SIZE], frame[end + SIGNATURE_SIZE :]


def signers(manifest: Manifest, keys: "list[bytes]") -> "tuple[bytes, bytes] | None":
    """Return the public keys of the two signers among the three release keys, or None when one is a stranger."""
    found = {}
    for key in keys:
        found[hashlib.sha256(key).digest()[:ID_SIZE]] = key
    if manifest.signer_a not in found or manifest.signer_b not in found:
        return None
    return found[manifest.signer_a], found[manifest.signer_b]


def verify(frame: bytes, keys: "list[bytes]", verify_signature: "Verify") -> bool:
    """Tell whether a manifest is well formed and two different ones of `keys` signed it. Never raises."""
    try:
        pair = signers(decode(frame), keys)
    except DecodeError:
        return False
    if pair is None:
        return False
    body, first, second = parts(frame)
    message = signing_message(body)
    return verify_signature(pair[0], message, first) and verify_signature(pair[1], message, second)


def problem(manifest: Manifest) -> str:
    """Return "" when every field keeps its limits, else what is wrong first."""
    text = (
        integer_problem("release", manifest.release, 1, U32_MAX)
        or bytes_problem("firmware_hash", manifest.firmware_hash, HASH_SIZE)
        or bytes_problem("signer_a", manifest.signer_a, ID_SIZE)
        or bytes_problem("signer_b", manifest.signer_b, ID_SIZE)
        or integer_problem("files", len(manifest.files), 1, FILES_MAX)
    )
    if text:
        return text
    if manifest.signer_a >= manifest.signer_b:
        return "signer_a is not below signer_b"
    position = 0
    for path, size in manifest.files:
        text = _path_problem(path) or integer_problem(path, size, 0, FILE_SIZE_MAX)
        if text:
            return text
        for earlier, (other, _) in enumerate(manifest.files):
            if earlier == position:
                break
            if other == path:
                return "two files " + path
        position += 1
    if manifest.total_size > TOTAL_SIZE_MAX:
        return "bundle of %d bytes, at most %d" % (manifest.total_size, TOTAL_SIZE_MAX)
    return ""


def _path_problem(path: str) -> str:
    """A path stays inside the slot: one of the two packages, no step up, no absolute name."""
    if not 0 < len(path) <= PATH_LENGTH_MAX or not all(c in _CHARACTERS for c in path):
        return "path %r is not 1..%d characters of a-z 0-9 _ / ." % (path, PATH_LENGTH_MAX)
    if not path.startswith(_FOLDERS):
        return "path %r is in neither package" % path
    if ".." in path or "//" in path or not path.endswith((".py", ".mpy")):
        return "path %r is not a module" % path
    return ""
