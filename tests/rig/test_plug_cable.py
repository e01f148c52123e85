"""A plug on a cable: flashed by the unmodified mpremote, cut off its supply, started again. Virtual or real."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench_plug import PlugUnderTest
from bench_tools import boot_rom
from watt_tools import plug_flash
from watt_tools.plug_link import Cable, LinkError
from watt_tools.plug_monitor import MonitorError, monitor
from watt_wire.fields import HASH_SIZE

TINY = {
    "main.py": "import watt_wire\nprint('value', watt_wire.VALUE)\n",
    "boot.py": "",
    "watt_wire/__init__.py": "VALUE = 7\n",
    "watt_plug/__init__.py": "",
    "watt_plug/meters/__init__.py": "",
    "watt_plug/meters/one.py": "def parse(data):\n    return len(data)\n",
}


def firmware(folder: Path, **changes: str) -> Path:
    """A small firmware of the real form, so that a flash takes a second."""
    for name, text in {**TINY, **{key.replace("__", "/") + ".py": value for key, value in changes.items()}}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.device
def test_a_flash_sends_the_tree_then_only_what_changed(plug: PlugUnderTest, tmp_path: Path) -> None:
    source = firmware(tmp_path / "source")
    first = plug_flash.flash(plug.port, source=source, start=False)
    assert first.sent == len(TINY) and first.verified == len(TINY) and len(first.firmware_hash) == 2 * HASH_SIZE
    again = plug_flash.flash(plug.port, source=source, start=False)
    assert (again.sent, again.unchanged) == (0, len(TINY))
    firmware(source, watt_plug__more="MORE = 1\n")
    (source / "watt_plug/meters/one.py").unlink()
    seen: list[str] = []
    third = plug_flash.flash(
        plug.port, source=source, start=False, progress=lambda number, count, path: seen.append(path)
    )
    assert (third.sent, third.removed) == (1, 1) and seen == ["watt_plug/more.mpy"]
    files = Cable(plug.port).facts().files
    assert "watt_plug/meters/one.mpy" not in files and "watt_plug/more.mpy" in files


@pytest.mark.device
def test_a_file_that_arrived_damaged_is_found(plug: PlugUnderTest, tmp_path: Path) -> None:
    cable = Cable(plug.port)
    cable.run("f = open('x.bin', 'wb'); f.write(b'damaged'); f.close()")
    wanted = {"x.bin": hashlib.sha256(b"whole").hexdigest()}
    with pytest.raises(plug_flash.FlashError, match=r"x\.bin"):
        plug_flash.verify(cable, wanted)
    wanted = {"x.bin": hashlib.sha256(b"damaged").hexdigest()}
    assert plug_flash.verify(cable, wanted) == 1


@pytest.mark.device
def test_settings_and_state_outlive_a_flash(plug: PlugUnderTest, tmp_path: Path) -> None:
    cable = Cable(plug.port)
    cable.run("import os; os.mkdir('state'); f = open('state/journal0', 'w'); f.write('kept'); f.close()")
    plug_flash.flash(plug.port, source=firmware(tmp_path / "source"), start=False)
    assert cable.ask("import json; print('WATTPACT ' + json.dumps(open('state/journal0').read()))") == "kept"


@pytest.mark.device
def test_the_plug_runs_what_was_flashed(plug: PlugUnderTest, tmp_path: Path) -> None:
    plug_flash.flash(plug.port, source=firmware(tmp_path / "source"))
    if plug.virtual is not None:
        plug.wait(lambda virtual: b"value 7" in virtual.console)


@contextlib.contextmanager
def over_tcp(port: str) -> Iterator[str]:
    """A serial port behind a socket, as ser2net or an RFC 2217 box gives it."""
    line = os.open(port, os.O_RDWR | os.O_NOCTTY)
    server = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def carry() -> None:
        peers: list[socket.socket] = []
        while not stop.is_set():
            readable, _, _ = select.select([server, line, *peers], [], [], 0.1)
            if server in readable:
                peers = [server.accept()[0]]
            for peer in [peer for peer in peers if peer in readable]:
                data = peer.recv(4096)
                if data:
                    os.write(line, data)
                else:
                    peer.close()
                    peers = []
            if line in readable:
                data = os.read(line, 4096)
                for peer in peers:
                    with contextlib.suppress(OSError):
                        peer.sendall(data)

    carrier = threading.Thread(target=carry)
    carrier.start()
    try:
        yield f"socket://127.0.0.1:{server.getsockname()[1]}"
    finally:
        stop.set()
        carrier.join()
        server.close()
        os.close(line)


@pytest.mark.device
def test_a_plug_is_flashed_over_a_socket_as_over_a_line(plug: PlugUnderTest, tmp_path: Path) -> None:
    if plug.virtual is None:
        pytest.skip("the line of a real plug is held by the cable")
    with over_tcp(plug.port) as port:
        flashed = plug_flash.flash(port, source=firmware(tmp_path / "source"), start=False)
        assert (flashed.port, flashed.sent, flashed.verified) == (port, len(TINY), len(TINY))
        assert plug_flash.flash(port, source=tmp_path / "source", start=False).sent == 0


@pytest.mark.device
def test_the_monitor_shows_what_a_plug_says_and_does_not_stop_it(
    plug: PlugUnderTest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = "import time\nnumber = 0\nwhile True:\n    print('count', number)\n    number += 1\n    time.sleep_ms(50)\n"
    plug_flash.flash(plug.port, source=firmware(tmp_path / "source", main=talk))
    counts = []
    for as_json in (False, True):
        assert monitor(plug.port, as_json, 1.5) > 5
        lines = capsys.readouterr().out.splitlines()
        texts = [json.loads(line)["line"] if as_json else line.split("  ", 1)[1] for line in lines]
        counts.append(
            [int(text.split()[1]) for text in texts if text.startswith("count ") and text.split()[1].isdigit()]
        )
    assert counts[0] and counts[1][0] > counts[0][-1], "it counts on"
    with pytest.raises(MonitorError, match="nothing-here"):
        monitor(str(tmp_path / "nothing-here"), False, 0.1)


@pytest.mark.device
def test_a_plug_that_starts_while_it_is_called_is_called_again(plug: PlugUnderTest) -> None:
    """What mpremote sends to a plug without supply is lost; its second call is heard."""
    plug.on_loop(lambda virtual: virtual.power_off())
    later = threading.Timer(4, plug.on_loop, [lambda virtual: virtual.power_on()])
    later.start()
    try:
        assert Cable(plug.port).ask("print('WATTPACT 7')") == 7
    finally:
        later.join()


def test_no_plug_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="nothing-here"):
        Cable(str(tmp_path / "nothing-here")).facts()


COUNTER = """
import os
try:
    os.mkdir('/log')
except OSError:
    pass
count = 0
for name in os.listdir('/log'):
    if name != 'new':
        with open('/log/' + name) as f:
            count = max(count, int(f.read().split()[0]) + 1)
while True:
    with open('/log/new', 'w') as f:
        f.write('%d ' % count * 50)
    os.rename('/log/new', '/log/%d' % (count % 20))
    print('kept', count)
    count += 1
"""
CUTS = 30


@pytest.mark.device
def test_power_cuts_inside_writes_lose_no_file_that_was_closed(plug: PlugUnderTest, tmp_path: Path) -> None:
    """Thirty cuts, each inside a flash write: every file whose name was printed is whole at the end."""
    plug_flash.flash(plug.port, source=firmware(tmp_path / "source", main=COUNTER))
    if plug.virtual is None:
        pytest.skip("a real plug has no power switch here")
    console = bytearray()
    plug.on_loop(lambda virtual: setattr(virtual, "on_console", console.extend))
    for number in range(CUTS):
        mark = len(console)
        plug.wait(lambda virtual, mark=mark: b"kept" in console[mark:])  # type: ignore[misc]
        before = plug.virtual.life.torn_writes
        plug.on_loop(lambda virtual, nth=7 * number % 23 + 1: virtual.cut_in_write(nth))  # type: ignore[misc]
        plug.wait(lambda virtual, before=before: virtual.life.torn_writes > before)  # type: ignore[misc]
    mark = len(console)
    plug.wait(lambda virtual: b"kept" in console[mark:])
    said = [int(word) for word in bytes(console).decode().split() if word.isdigit()]
    cable = Cable(plug.port)
    for slot in range(0, 20, 5):
        text = cable.ask(f"import json; print('WATTPACT ' + json.dumps(open('/log/{slot}').read()))")
        assert len(set(text.split())) == 1 and len(text.split()) == 50
        assert int(text.split()[0]) >= max((number for number in said if number % 20 == slot), default=0)


def test_a_base_image_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """Real esptool, no board."""
    image = tmp_path / "micropython.bin"
    with pytest.raises(plug_flash.FlashError, match=r"micropython\.bin"):
        plug_flash.flash_base("socket://127.0.0.1:1", image, "esp32", 460800, [])
    image.write_bytes(b"\xe9" + bytes(1000))
    with pytest.raises(plug_flash.FlashError, match="esptool"):
        plug_flash.flash_base("socket://127.0.0.1:1", image, "esp32", 460800, [])


def test_a_base_image_is_written_and_verified_by_the_real_esptool(tmp_path: Path) -> None:
    image = tmp_path / "micropython.bin"
    image.write_bytes(b"\xe9\x01\x02\x20" + bytes(range(256)) * 64)
    with boot_rom("esp32", tmp_path) as port:
        quiet = ["--before", "no-reset", "--after", "no-reset"]
        said = plug_flash.flash_base(port, image, "esp32", 460800, quiet)
        assert "Hash of data verified" in said and "0x00001000" in said
