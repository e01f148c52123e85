"""A plug that has no room for what an update needs: said, nothing lost, and gone on with when there is room again."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from watt_boot import slots
from watt_plug import update
from watt_wire import bundle

sys.path.insert(0, str(Path(__file__).resolve().parent))
bundle_of = importlib.import_module("test_power_cuts").bundle_of

FILES = {"watt_wire/a.py": bytes(range(256)) * 9, "watt_plug/b.mpy": b"\x07" * 900, "watt_plug/meters/c.py": b""}


class Sender:
    """One bundle and the plug that takes it."""

    def __init__(self, folder: Path) -> None:
        data = bundle_of(folder / "new", 1, FILES)
        size = int.from_bytes(data[:4], "big")
        self.keys = [data[4 + 64 * index : 68 + 64 * index] for index in range(3)]
        self.manifest, self.contents = data[196 : 196 + size], data[196 + size :]
        (folder / "plug").mkdir()
        self.slots = slots.Slots(str(folder / "plug") + "/")
        self.updater = update.Updater(self.slots, self.keys)

    def begin(self) -> None:
        self.updater.take(b"\x01" + self.manifest)
        while self.updater.work():
            pass

    def go_on(self, pieces: int = 99) -> None:
        """Send pieces of 512 bytes from where the plug is."""
        for _ in range(pieces):
            at = self.updater.received
            if self.updater.error or at == len(self.contents):
                return
            self.updater.take(b"\x02" + at.to_bytes(4, "big") + self.contents[at : at + 512])


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    return Sender(tmp_path)


def test_a_bundle_is_taken_in_pieces_of_any_size(sender: Sender) -> None:
    sender.begin()
    sender.go_on()
    sender.updater.take(b"\x03")
    assert (sender.updater.error, sender.updater.ready, sender.slots.releases) == ("", True, [0, 1])


@pytest.mark.parametrize(("failure", "reason"), [(MemoryError, "update-memory"), (OSError, "update-disk")])
@pytest.mark.parametrize("where", ["manifest", "slot", "piece", "end"])
def test_no_room_is_said_and_the_update_goes_on_where_it_was(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, where: str, failure: type[Exception], reason: str
) -> None:
    def full(*_: object) -> None:
        raise failure

    places = {
        "manifest": "watt_wire.bundle.decode",
        "slot": "watt_plug.update._make_folders",
        "piece": "builtins.open",
        "end": "watt_plug.update._size",
    }
    if where in ("piece", "end"):
        sender.begin()
        sender.go_on(3)
        assert sender.updater.received == 3 * 512
    with monkeypatch.context() as patch:
        if where == "end":
            sender.go_on()
        patch.setattr(places[where], full)
        if where == "end":
            sender.updater.take(b"\x03")
        elif where == "piece":
            sender.go_on()
        else:
            sender.begin()
    assert sender.updater.error == reason and not sender.updater.ready
    before = sender.updater.received
    sender.begin()
    assert (sender.updater.error, sender.updater.state) == ("", "receiving")
    assert sender.updater.received == before, "what is on the flash is not sent again"
    sender.go_on()
    sender.updater.take(b"\x03")
    assert sender.updater.ready and sender.slots.releases == [0, 1]


def test_a_list_of_files_is_read_from_its_frame_at_each_pass(sender: Sender) -> None:
    manifest = bundle.decode(sender.manifest)
    named = [(name, len(FILES[name])) for name in ("watt_wire/a.py", "watt_plug/b.mpy", "watt_plug/meters/c.py")]
    assert list(manifest.files) == named and list(manifest.files) == named
    assert len(manifest.files) == 3 and manifest.total_size == len(sender.contents)
