"""Firmware bundles: built from the tree, signed by two of three release keys (WIRE.md 11).

The pieces in which a plug takes one are cut by the gateway (watt_gateway/bundles.py) or read from its own flash.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from watt_chain import crypto
from watt_gateway import bundles
from watt_wire import bundle
from watt_wire.errors import DecodeError

from watt_tools import plug_tree


class BundleError(Exception):
    """The bundle cannot be built or read; the text says why."""


@dataclass(frozen=True)
class Bundle:
    """A signed manifest and the contents behind it."""

    manifest: bytes
    content: bytes

    @property
    def frame(self) -> bytes:
        """The whole bundle as it lies in a file."""
        return self.manifest + self.content

    @property
    def release(self) -> int:
        return int(bundle.decode(self.manifest).release)

    def files(self) -> Iterator[tuple[str, bytes]]:
        """(path in the slot, content) in order."""
        at = 0
        for path, size in bundle.decode(self.manifest).files:
            yield path, self.content[at : at + size]
            at += size


def build(release: int, march: str, keys: list[crypto.PrivateKey], source: Path | None = None) -> Bundle:
    """Compile the firmware and sign it with two different keys; BundleError, TreeError."""
    with tempfile.TemporaryDirectory() as folder:
        tree = plug_tree.packages(Path(folder), march, source)
        contents = [(name, tree[name].read_bytes()) for name in plug_tree.release_order(tree)]
    return seal(release, contents, keys)


def seal(release: int, contents: list[tuple[str, bytes]], keys: list[crypto.PrivateKey]) -> Bundle:
    """Make a bundle of files in the order of the firmware hash."""
    signers = sorted(keys, key=lambda key: crypto.id8(key.public))
    if len(signers) != 2 or signers[0].public == signers[1].public:
        raise BundleError("a bundle is signed by two different release keys")
    manifest = bundle.Manifest(
        release,
        plug_tree.hash_of(contents),
        crypto.id8(signers[0].public),
        crypto.id8(signers[1].public),
        [(name, len(data)) for name, data in contents],
    )
    problem = bundle.problem(manifest)
    if problem:
        raise BundleError(problem)
    body = bundle.encode(manifest)
    message = bundle.signing_message(body)
    frame = bundle.seal(body, signers[0].sign(message), signers[1].sign(message))
    return Bundle(frame, b"".join(data for _, data in contents))


def read(path: Path) -> Bundle:
    """Read a bundle file; BundleError when it is none. Signatures are the plug's to check."""
    try:
        _, frame, content = bundles.split(path.read_bytes())
    except DecodeError as error:
        raise BundleError(f"{path}: not a firmware bundle: {error}") from None
    return Bundle(frame, content)
