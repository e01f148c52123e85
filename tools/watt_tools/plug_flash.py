"""`wattpact plug flash`: base image by esptool, firmware by mpremote, and the proof that it arrived.

Order: ask the plug what it holds, compile for its processor, send what differs, remove what is no longer part of the
firmware, ask again and compare every hash, start it. A transfer that was interrupted is simply begun again.
Configuration, key and state of the plug are no part of the firmware: nothing here touches them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from watt_tools import plug_board, plug_tree
from watt_tools.plug_link import Cable, Facts, LinkError

ESPTOOL_TIMEOUT_S = 600
"1.7 MiB at 460800 baud take a minute; erasing a slow 16 MiB chip another."
BOOTLOADER_OFFSET = {"esp32": "0x1000", "esp32s2": "0x1000"}
"Where MicroPython's combined image begins; 0 on every later chip."
RECORDS = ("slots0", "slots1")
RESERVE = 64 * 1024
"Bytes of flash that must stay free for journal and batches."


class FlashError(Exception):
    """The plug does not hold what it should; the text says what and what to do."""


@dataclass(frozen=True)
class Difference:
    """What must be sent and what removed, by path on the plug, sorted."""

    send: list[str]
    remove: list[str]
    same: int


@dataclass(frozen=True)
class Flashed:
    """What a flash has done."""

    port: str
    machine: str
    march: str
    sent: int
    sent_bytes: int
    removed: int
    unchanged: int
    verified: int
    seconds: int
    firmware_hash: str


Progress = Callable[[int, int, str], None]
"(number of the file, files, path)"


def flash(
    port: str,
    config: Path | None = None,
    whole: bool = False,
    as_source: bool = False,
    start: bool = True,
    source: Path | None = None,
    progress: Progress = lambda number, count, path: None,
) -> Flashed:
    """Bring the plug on `port` to this firmware.

    config     folder whose files go to the plug's root (config.json, key material, certificates)
    whole      send files that the plug holds already
    as_source  send .py files instead of compiled ones
    start      reset the plug at the end, so that the firmware runs

    Raises LinkError, TreeError, FlashError.
    """
    began_s = time.monotonic()
    beside = {} if config is None else config_files(config)
    cable = Cable(port)
    facts = cable.facts()
    march = "" if as_source else plug_tree.architecture(facts.mpy)
    with tempfile.TemporaryDirectory() as folder:
        tree = plug_tree.build(Path(folder), march, source)
        wanted = tree | beside
        difference = compare(plug_tree.hashes(wanted), facts.files, whole)
        sizes = {name: wanted[name].stat().st_size for name in difference.send}
        _check_room(facts, sum(sizes.values()))
        if difference.remove or difference.send:
            cable.run(_prepare_script(difference, facts))
        sent: list[str] = []

        def done(path: str) -> None:
            sent.append(path)
            progress(len(sent), len(difference.send), path)

        cable.write([(wanted[name], name) for name in difference.send], done)
        verified = verify(cable, plug_tree.hashes(wanted))
        digest = plug_tree.firmware_hash(tree).hex()
    if start:
        cable.reset()
    return Flashed(
        port,
        facts.machine,
        march or "source",
        len(difference.send),
        sum(sizes.values()),
        len(difference.remove),
        difference.same,
        verified,
        int(time.monotonic() - began_s),
        digest,
    )


def compare(wanted: Mapping[str, str], held: Mapping[str, str], whole: bool) -> Difference:
    """Say what differs. Only the firmware's own folders are ever cleaned."""
    send = sorted(name for name, digest in wanted.items() if whole or held.get(name) != digest)
    ours = tuple(slot + package + "/" for slot in ("", plug_tree.SLOT) for package in plug_tree.PACKAGES)
    ours += (plug_tree.BASE + "/",)
    remove = sorted(name for name in held if name.startswith(ours) and name not in wanted)
    if send and any(name.startswith(plug_tree.SLOT) for name in wanted):
        # What the cable puts into slot a is what runs: the record of an earlier life, and the other slot, go.
        remove += sorted(name for name in held if name in RECORDS or name.startswith("b/"))
    return Difference(send, remove, len(wanted) - len(send))


def config_files(folder: Path) -> dict[str, Path]:
    """The files of a folder, for the plug's root; FlashError for a .json that is none or a board that cannot be."""
    files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    for name in [name for name in files if name.endswith(".json")]:
        try:
            json.loads(files[name].read_text())
        except ValueError as error:
            raise FlashError(f"{files[name]}: not JSON: {error}") from None
    if "board.json" in files:
        try:
            plug_board.check(str(files["board.json"]), files["board.json"].read_bytes())
        except plug_board.BoardError as error:
            raise FlashError(str(error)) from None
    return files


def verify(cable: Cable, wanted: Mapping[str, str]) -> int:
    """Compare every hash on the plug; return how many files were compared. FlashError names those that differ."""
    held = cable.facts().files
    bad = sorted(name for name, digest in wanted.items() if held.get(name) != digest)
    if bad:
        raise FlashError(f"{cable.port}: {len(bad)} files differ after the transfer, first {bad[0]}; flash again")
    return len(wanted)


def flash_base(port: str, image: Path, chip: str, baud: int, extra: list[str]) -> str:
    """Write MicroPython itself with esptool; return what it said. FlashError when it failed."""
    if not image.is_file():
        raise FlashError(f"{image}: no such image (MicroPython's .bin for your board)")
    offset = BOOTLOADER_OFFSET.get(chip, "0x0")
    command = [sys.executable, "-m", "esptool", "--chip", chip, "--port", port, "--baud", str(baud), *extra]
    command += ["write-flash", "--compress", offset, str(image)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ESPTOOL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise FlashError(f"{port}: esptool did not end within {ESPTOOL_TIMEOUT_S} s") from None
    if done.returncode != 0 or "Hash of data verified" not in done.stdout:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise FlashError(f"{port}: esptool: {lines[-1] if lines else 'failed'}")
    return done.stdout


def _check_room(facts: Facts, needed: int) -> None:
    if needed + RESERVE > facts.free:
        raise FlashError(f"the plug has {facts.free} bytes free, {needed} are to be sent and {RESERVE} must stay")


def _prepare_script(difference: Difference, facts: Facts) -> str:
    """A script for the plug: remove what is stale, make the folders that are missing."""
    held = {name.rpartition("/")[0] for name in facts.files}
    folders: list[str] = []
    for name in difference.send:
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder not in folders and folder not in held:
                folders.append(folder)
    return (
        "import os\n"
        f"for p in {difference.remove!r}:\n    os.remove('/' + p)\n"
        f"for p in {folders!r}:\n"
        "    try:\n        os.mkdir('/' + p)\n    except OSError:\n        pass\n"
    )


__all__ = ["Flashed", "FlashError", "LinkError", "flash", "flash_base"]
