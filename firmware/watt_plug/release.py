"""The hash of the code that runs: what a checkpoint names as its firmware.

    SHA-256 over, for each file of watt_wire and watt_plug in the order of package and path:
    length of the name u16, name ("watt_plug/app.py"), length of the content u32, content

A shell: it reads files. On a device that was flashed with compiled files the same rule covers those (.mpy).
"""

import hashlib
import os

TYPE_CHECKING = False  # type checkers take the name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("watt_wire", "watt_plug")
CHUNK_SIZE = 512
"A whole file at once would need a hole of its size in a fragmented heap."
ENDINGS = (".py", ".mpy")


def firmware_hash(root: str) -> bytes:
    """Return the hash of the two packages in the directory `root`."""
    state = hashlib.sha256()
    for package in PACKAGES:
        for name in _files(root, package):
            label = name.encode()
            size = os.stat(root + "/" + name)[6]
            state.update(len(label).to_bytes(2, "big") + label + size.to_bytes(4, "big"))
            with open(root + "/" + name, "rb") as file:
                while True:
                    chunk = file.read(CHUNK_SIZE)
                    if not chunk:
                        break
                    state.update(chunk)
    return state.digest()


def root_of(module_file: str) -> str:
    """Return the directory that holds the packages, from the `__file__` of a module of watt_plug."""
    parts = module_file.replace("\\", "/").split("/")
    return "/".join(parts[:-2]) or "."


def _files(root: str, folder: str) -> "Iterator[str]":
    """Yield the code files below root/folder, sorted by path, folders' own after; never a list of all of them."""
    names = sorted(os.listdir(root + "/" + folder))
    for name in names:
        if name.endswith(ENDINGS):
            yield folder + "/" + name
    for name in names:
        if "." not in name and name != "__pycache__":
            yield from _files(root, folder + "/" + name)
