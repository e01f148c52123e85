"""Power cuts on LittleFS in a real MicroPython: kill -9 inside writes of an update and of the books."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from watt_boot import slots
from watt_plug import release
from watt_wire import bundle, p256

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
MICROPYTHON = ROOT / ".venv-mpy" / "bin" / "micropython"
KEYS = sorted((bytes([n]) * 32 for n in (1, 2, 3)), key=lambda key: hashlib.sha256(p256.public_key(key)).digest())
IMAGE_SIZE = 96 * 4096
EVERY = bool(os.environ.get("EVERY_CUT"))
"Every write instead of one in three or nine (`make cuts`)."

needs_micropython = pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine")


def run(child: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [MICROPYTHON, "-X", "heapsize=1M", HERE / f"{child}.py", *(str(item) for item in arguments)]
    environment = {**os.environ, "MICROPYPATH": str(ROOT / "firmware")}
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)


def formatted(path: Path, files: dict[str, bytes]) -> None:
    """Make an image with LittleFS and some files."""
    path.write_bytes(b"\xff" * IMAGE_SIZE)
    listing = repr(sorted(files.items()))
    code = f"""
import os, sys, vfs
sys.path[:] = [{str(HERE)!r}]
class Flash:
    def __init__(self): self.f = open({str(path)!r}, "r+b")
    def readblocks(self, n, buf, off=0): self.f.seek(n * 4096 + off); self.f.readinto(buf)
    def writeblocks(self, n, buf, off=0): self.f.seek(n * 4096 + off); self.f.write(buf); self.f.flush()
    def ioctl(self, op, arg): return {{4: 96, 5: 4096}}.get(op, 0)
flash = Flash()
vfs.VfsLfs2.mkfs(flash, progsize=256, readsize=256, lookahead=32)
vfs.mount(vfs.VfsLfs2(flash, progsize=256, readsize=256, lookahead=32), "/flash")
made = []
for name, data in {listing}:
    parts = name.split("/")
    for depth in range(1, len(parts)):
        folder = "/flash/" + "/".join(parts[:depth])
        if folder not in made:
            made.append(folder)
            os.mkdir(folder)
    with open("/flash/" + name, "wb") as file:
        file.write(data)
"""
    subprocess.run([MICROPYTHON, "-c", code], check=True, timeout=60)


def bundle_of(folder: Path, number: int, files: dict[str, bytes]) -> bytes:
    """The bundle as update_child.py reads it: size of the manifest, three keys, manifest, contents."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    ids = [hashlib.sha256(p256.public_key(key)).digest()[:8] for key in KEYS]
    paths = sorted(files, key=lambda name: (not name.startswith("watt_wire"), name))
    order = [(name, len(files[name])) for name in paths]
    made = bundle.Manifest(number, release.firmware_hash(str(folder)), ids[0], ids[2], order)
    body = bundle.encode(made)
    message = bundle.signing_message(body)
    frame = bundle.seal(body, p256.sign(KEYS[0], message), p256.sign(KEYS[2], message))
    contents = b"".join(files[name] for name, _ in order)
    return len(frame).to_bytes(4, "big") + b"".join(p256.public_key(key) for key in KEYS) + frame + contents


def test_the_base_and_the_bundle_hash_alike(tmp_path: Path) -> None:
    assert slots.tree_hash(str(ROOT / "firmware")) == release.firmware_hash(str(ROOT / "firmware"))


@needs_micropython
@pytest.mark.device
@pytest.mark.timeout(2400)
def test_an_update_cut_in_any_phase_ends_with_the_old_or_the_new_release_whole(tmp_path: Path) -> None:
    """Every plug ends up on release 1 after enough starts; a whole slot runs at each of them."""
    files = {"watt_wire/a.py": bytes(range(256)) * 40, "watt_plug/b.mpy": b"\x07" * 9000, "watt_plug/c.py": b""}
    data = tmp_path / "bundle"
    data.write_bytes(bundle_of(tmp_path / "new", 1, files))
    clean = tmp_path / "clean"
    formatted(clean, {"a/watt_wire/a.py": b"old", "a/watt_plug/b.py": b"old too"})
    image = tmp_path / "image"
    cuts = survived = 0
    cut = 0
    while True:
        image.write_bytes(clean.read_bytes())
        first = run("update_child", image, cut, data)
        if "done" in first.stdout:
            break
        assert first.returncode == -9, first.stdout + first.stderr
        cuts += 1
        for attempt in range(3):
            # A second cut in the recovery of every fourth one.
            again = run("update_child", image, 7 if attempt == 0 and cut % 4 == 0 else 1 << 30, data)
            if again.returncode != -9:
                assert "runs 0" in again.stdout and "no file system" not in again.stdout, (
                    cut,
                    again.stdout,
                    again.stderr,
                )
            else:
                cuts += 1
        assert "healthy" in again.stdout, (cut, again.stdout, again.stderr)
        survived += 1
        cut += 1 if EVERY else 3
    assert cuts > 15 and survived > 10, (cuts, survived)
    print(f"an update: {cuts} power cuts, {survived} updates, each ended on the new release whole")


@needs_micropython
@pytest.mark.device
@pytest.mark.timeout(2400)
@pytest.mark.row("C12", "E5")
def test_books_cut_in_any_phase_lose_nothing_acknowledged_and_sign_nothing_twice(tmp_path: Path) -> None:
    """Three lives of a plug, two of them cut short: counters without a gap, one content each, a register that rises."""
    clean, image = tmp_path / "clean", tmp_path / "image"
    formatted(clean, {})
    cuts = cut = 0
    while True:
        image.write_bytes(clean.read_bytes())
        lives = [run("books_child", image, number) for number in (cut, 5 + cut % 7, 1 << 30)]
        cuts += sum(life.returncode == -9 for life in lives)
        output = "".join(life.stdout for life in lives)
        assert lives[2].returncode == 0 and "end" in lives[2].stdout, (cut, output, lives[2].stderr)
        signed: dict[int, tuple[str, int]] = {}
        acknowledged: set[int] = set()
        for line in output.splitlines():
            words = line.split()
            if words[:1] == ["sent"] and len(words) == 4:
                content = (words[2], int(words[3]))
                assert signed.setdefault(int(words[1]), content) == content, (cut, output)
            elif words[:1] == ["acknowledged"] and len(words) == 2:
                acknowledged.add(int(words[1]))
        assert sorted(signed) == list(range(1, max(signed) + 1)), (cut, output)
        assert acknowledged <= set(signed) and lives[2].stdout.split()[-1] == "0", (
            "the last life delivered what was left"
        )
        registers = [signed[counter][1] for counter in sorted(signed)]
        assert registers == sorted(registers)
        if lives[0].returncode == 0:
            break
        cut += 1 if EVERY else 9
    assert cuts >= 20, cuts
    print(f"the books: {cuts} power cuts, nothing acknowledged lost, nothing signed twice with other content")


PULSE_UJ = 0x51A658
PULSES_A_SECOND = 4
WORLD_S = 1_772_442_000
RECORD_S = 60
COUNTER = 60_000
"High enough that no chip could have made it since a start: one that began anew is told apart."


@pytest.mark.parametrize("cause", [1, 6])
@needs_micropython
@pytest.mark.device
@pytest.mark.timeout(600)
def test_the_register_survives_cuts_at_every_write_within_the_stated_error(tmp_path: Path, cause: int) -> None:
    """V3.4: a loss of supply costs at most a record's energy, a brown-out nothing, and neither is a discontinuity."""
    clean, image = tmp_path / "clean", tmp_path / "image"
    formatted(clean, {})
    first = run("energy_child", clean, 1 << 30, WORLD_S, WORLD_S, COUNTER, 0)
    assert first.returncode == 0, first.stdout + first.stderr
    began_s = WORLD_S + 10
    cuts = cut = 0
    worst_uj = 0
    while True:
        image.write_bytes(clean.read_bytes())
        world_s = WORLD_S + 190
        second = run("energy_child", image, cut, world_s, WORLD_S, COUNTER, 0)
        if second.returncode == 0:
            break
        cuts += 1
        died_s = max([world_s, *(int(line.split()[1]) for line in second.stdout.splitlines() if "world" in line)])
        # The processor comes back after ten seconds; the chip began anew there, or never stopped.
        back_s = died_s + 10
        supply = (back_s, 0) if cause == 1 else (WORLD_S, COUNTER)
        third = run("energy_child", image, 1 << 30, back_s, *supply, cause)
        assert third.returncode == 0, (cut, third.stdout + third.stderr)
        register_uj, discontinuities = (int(word) for word in third.stdout.splitlines()[-1].split()[1:])
        flowed_uj = (back_s + 190 - began_s) * PULSES_A_SECOND * PULSE_UJ
        missing_uj = flowed_uj - register_uj
        # What flowed while there was no supply, and until the chip was first read, is nobody's to count.
        worst_uj = max(worst_uj, missing_uj - (10 + 20) * PULSES_A_SECOND * PULSE_UJ if cause == 1 else missing_uj)
        assert discontinuities == 0, (cut, third.stdout)
        assert missing_uj >= 0, (cut, "energy that never flowed", missing_uj)
        cut += 1
    assert cuts > 30, "every write of the second life"
    print(f"the register: {cuts} power cuts, at most {worst_uj / 3_600_000_000:.3f} Wh missing")
    assert worst_uj <= (RECORD_S * PULSES_A_SECOND * PULSE_UJ if cause == 1 else 0), worst_uj
