"""What a plug gets by cable beside its firmware, and the commands that firmware/README.md gives an installer."""

from __future__ import annotations

import json
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench_plug import PlugUnderTest
from bench_tools import boot_rom
from watt_tools import cli, plug_board, plug_flash
from watt_tools.plug_link import Cable
from watt_wire import pairing

README = Path(__file__).resolve().parents[2] / "firmware" / "README.md"
GOOD = {"model": "mine", "chip": "cse7766", "uart": 1, "rx_pin": 3, "tx_pin": 1, "rated_w": 3680, "key": "plain"}


def blocks(kind: str) -> Iterator[str]:
    for found in re.finditer(rf"^```{kind}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL):
        yield found.group(1)


def typed(start: str) -> list[list[str]]:
    """The command lines of the section on flashing that begin with `start`, as a shell splits them."""
    section = README.read_text().split("## Flash a plug")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith(start)]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.fixture
def offices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the release keys, made as the page says."""
    monkeypatch.chdir(tmp_path)
    for command in typed("wattpact plug release-key"):
        assert cli.main(command[1:]) == 0
    return tmp_path


def test_the_boards_of_the_page_are_those_of_the_tool() -> None:
    shown = [plug_board.check("README.md", text.encode()) for text in blocks("json")]
    assert shown == list(plug_board.BOARDS.values())


def test_the_pages_commands_make_what_a_plug_needs(offices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = typed("wattpact plug board")
    assert len(commands) == len(plug_board.BOARDS)
    for command in commands:
        assert cli.main(command[1:]) == 0
        folder = offices / command[command.index("--out") + 1]
        code = (folder / "code.txt").read_text()
        assert pairing.is_code(code) and plug_board.label(code) in capsys.readouterr().out
        assert stat.S_IMODE((folder / "code.txt").stat().st_mode) == 0o600
        keys = (folder / "release.bin").read_bytes()
        assert keys.hex() == "".join((offices / f"release-{number}.pub").read_text().strip() for number in (1, 2, 3))
        assert set(plug_flash.config_files(folder)) == {"board.json", "code.txt", "release.bin"}
        assert cli.main(command[1:]) == 1, "a code is never made twice"
    assert cli.main(typed("wattpact plug release-key")[0][1:]) == 1, "a key is never overwritten"


@pytest.mark.device
@pytest.mark.timeout(300)
def test_the_pages_commands_flash_a_plug(plug: PlugUnderTest, offices: Path) -> None:
    """The firmware itself, compiled and compared; MicroPython's image goes to the fake boot ROM in the next test."""
    assert cli.main(typed("wattpact plug board")[1][1:]) == 0
    (command,) = [line for line in typed("wattpact plug flash") if "--base" not in line]
    with_port = [plug.port if word == "/dev/ttyUSB0" else word for word in command[1:]]
    assert cli.main([*with_port, "--no-start"]) == 0
    held = Cable(plug.port).facts().files
    assert {"board.json", "code.txt", "release.bin", "main.py", "a/watt_plug/device.mpy"} <= set(held)


@pytest.mark.parametrize("command", typed("esptool"), ids=lambda command: command[2])
def test_the_pages_esptool_is_the_real_one(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ESP32_GENERIC_C3.bin").write_bytes(b"\xe9\x01\x02\x20" + bytes(range(256)) * 16)
    with boot_rom(command[2], tmp_path) as port:
        words = [port if word == "/dev/ttyUSB0" else word for word in command[1:]]
        real = [sys.executable, "-m", "esptool", "--before", "no-reset", "--after", "no-reset", *words]
        done = subprocess.run(real, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"chip": "cse7777"}, "cse7777"),
        ({"led": 1}, "led"),
        ({"rx_pin": 99}, r"48.*rx_pin"),
        ({"rated_w": 0}, r"1.*rated_w"),
        ({"tx_pin": 3}, "same pin"),
        ({"chip": "bl0937"}, "cf_pin, cf1_pin, sel_pin"),
        ({"key": "secure"}, "sda_pin, scl_pin"),
        ({"model": None}, "model"),
    ],
)
def test_a_board_that_no_firmware_could_use_never_reaches_a_plug(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    assert plug_board.check("board.json", json.dumps(GOOD).encode()).chip == "cse7766"
    (tmp_path / "board.json").write_text(json.dumps({**GOOD, **changes}))
    with pytest.raises(plug_flash.FlashError, match=rf"board\.json.*{said}"):
        plug_flash.flash(str(tmp_path / "no-port-is-asked"), config=tmp_path)


def test_release_keys_are_three_and_are_keys(offices: Path) -> None:
    public = [Path(f"release-{number}.pub") for number in (1, 2, 3)]
    with pytest.raises(plug_board.BoardError, match="2 different release keys"):
        plug_board.make(Path("one"), "esp32-pzem", 0, [public[0], public[1], public[1]])
    with pytest.raises(plug_board.BoardError, match="not a public key"):
        plug_board.make(Path("one"), "esp32-pzem", 0, [public[0], public[1], Path("release-3.key")])
    with pytest.raises(plug_board.BoardError, match=r"nothing\.pub"):
        plug_board.make(Path("one"), "esp32-pzem", 0, [public[0], public[1], Path("nothing.pub")])
    with pytest.raises(plug_board.BoardError, match=r"rated_w"):
        plug_board.make(Path("one"), "esp32-pzem", -1, public)
    assert not Path("one").exists()
