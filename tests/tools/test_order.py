"""A switch command between two offices: drafted, shown, signed, sealed; nothing but the body is believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from watt_chain import crypto
from watt_gateway.commands import Offices
from watt_tools import order
from watt_tools.cli import main
from watt_tools.order import Order, OrderError, Wish
from watt_wire import command


def key_of(number: int) -> crypto.PrivateKey:
    return crypto.PrivateKey.from_bytes((40_000 + number).to_bytes(32, "big"))


GRID, AGGREGATOR, REGULATOR, STRANGER = (key_of(number) for number in range(4))
OFFICES = Offices([(1, GRID.public), (2, AGGREGATOR.public), (3, REGULATOR.public)])
NETWORK = bytes(range(32))
PLUG = bytes(range(8))


def drafted(**changes: object) -> Order:
    values: dict[str, object] = {"plug": PLUG, "action": "off", "at_s": 1_772_442_000, "counter": 5, "hold_s": 3_690}
    return order.draft(NETWORK, OFFICES, ("grid", "aggregator"), Wish(**{**values, **changes}))  # type: ignore[arg-type]


def test_two_offices_sign_on_their_own_and_the_frame_is_a_command(tmp_path: Path) -> None:
    path = tmp_path / "order.json"
    drafted(reference="contract 7").write(path)
    for key in (AGGREGATOR, GRID):
        found = order.read(path)
        with pytest.raises(OrderError, match="not signed yet by"):
            found.frame(OFFICES)
        found.sign(key)
        found.write(path)
    frame = order.read(path).frame(OFFICES)
    said = command.decode(frame)
    assert (said.plug_id, said.counter, said.hold_s, said.expires_s - said.not_before_s) == (PLUG, 5, 3_690, 900)
    assert said.reference == crypto.sha256(b"contract 7")
    assert OFFICES.have_signed(said, frame)


def test_what_a_person_reads_is_what_is_signed() -> None:
    text = order.text(drafted(), OFFICES, NETWORK)
    for words in (
        "0001020304050607", "switch off for 1 h 1 min 30 s", "2026-03-02 09:00:00 .. 2026-03-02 09:15:00 UTC",
        "0 .. 600 s", "grid", "aggregator", "not signed yet",
    ):  # fmt: skip
        assert words in text, words
    assert "give the relay back" in order.text(drafted(action="release", hold_s=0), OFFICES)
    assert "ANOTHER ONE" in order.text(drafted(), OFFICES, bytes(32))


def test_strangers_and_changed_bodies_are_refused(tmp_path: Path) -> None:
    made = drafted()
    with pytest.raises(OrderError, match="neither"):
        made.sign(STRANGER)
    with pytest.raises(OrderError, match="neither"):
        made.sign(REGULATOR)
    made.sign(GRID)
    made.sign(AGGREGATOR)
    made.frame(OFFICES)
    longer = drafted(hold_s=14_400)
    longer.signatures = made.signatures
    with pytest.raises(OrderError, match="not those of two"):
        longer.frame(OFFICES)
    path = tmp_path / "order.json"
    made.write(path)
    saved = json.loads(path.read_text())
    for bad in (
        "",
        "[]",
        json.dumps({**saved, "format": 2}),
        json.dumps({**saved, "body": saved["body"][:-2]}),
        "x" * 5000,
    ):
        path.write_text(bad)
        with pytest.raises(OrderError, match="not an order"):
            order.read(path)


@pytest.mark.parametrize(
    ("changes", "signers", "said"),
    [
        ({"hold_s": 14_401}, ("grid", "aggregator"), "14400"),
        ({"hold_s": 0}, ("grid", "aggregator"), "hold_s is 0"),
        ({"within_s": 86_401}, ("grid", "aggregator"), "window"),
        ({}, ("grid", "grid"), "two different"),
        ({}, ("grid", "butcher"), "two different"),
    ],
)
def test_what_no_plug_would_take_is_not_drafted(
    changes: dict[str, object], signers: tuple[str, str], said: str
) -> None:
    values: dict[str, object] = {"plug": PLUG, "action": "off", "at_s": 1_772_442_000, "counter": 5, "hold_s": 900}
    with pytest.raises(OrderError, match=said):
        order.draft(NETWORK, OFFICES, signers, Wish(**{**values, **changes}))  # type: ignore[arg-type]


def test_an_id_that_is_none_is_named() -> None:
    for text in ("", "00", "zz" * 8, "00" * 9):
        with pytest.raises(OrderError, match="16 hex digits"):
            order.plug_id(text)


def test_files_that_are_missing_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["command", "show", str(tmp_path / "none.json")]) == 1
    (tmp_path / "genesis.bin").write_bytes(b"no genesis")
    drafted().write(tmp_path / "order.json")
    assert main(["command", "show", str(tmp_path / "order.json"), "--genesis", str(tmp_path / "genesis.bin")]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2 and all(line.startswith("wattpact command: ") for line in lines)
