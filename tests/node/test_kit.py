"""Clock, log lines, keys, status file, sd_notify."""

from __future__ import annotations

import io
import json
import re
import socket
from pathlib import Path

import pytest
from watt_node.clock import ProtocolClock
from watt_node.config import ConfigError
from watt_node.keys import read_secret
from watt_node.log import Log
from watt_node.names import node_name, parse_node_name
from watt_node.notify import notify, watchdog_ms
from watt_node.status import REFRESH_PERIODS, StatusFile


def test_given_a_fast_clock_when_read_then_protocol_time_runs_in_proportion() -> None:
    now = [10_000]
    clock = ProtocolClock(10_000, 1_000_000, 240, lambda: now[0])
    assert clock.now_s() == 1_000_000
    now[0] = 10_999
    assert clock.now_s() == 1_000_239
    assert clock.now_ms() == 1_000_239_760
    assert clock.delay_ms(1_000_240) == 1
    assert clock.delay_ms(1_000_239) == 0
    for target in (1_000_300, 1_000_301, 1_234_567):
        assert clock.at(now[0] + clock.delay_ms(target)) >= target
        assert clock.at(now[0] + clock.delay_ms(target) - 1) < target
    now[0] = 4_000  # it stands still until its start
    assert clock.now_s() == 1_000_000
    assert clock.delay_ms(1_000_240) == 7_000


def test_given_a_log_when_written_then_each_happening_is_one_line_whatever_the_values() -> None:
    stream = io.StringIO()
    log = Log("area", "info", stream)
    log.debug("hidden")
    log.bind("other").warning("event", text='a b\n12:00:00 error fake="x"', raw=b"\x01\x02", long="x" * 1000, n=3)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert re.match(r"\d\d:\d\d:\d\d warning other event text='a b\\n", lines[0])
    assert "raw=0102 " in lines[0]
    assert lines[0].endswith("n=3")
    assert len(lines[0]) < 500


@pytest.mark.parametrize(
    ("chain", "index", "name"), [(0, 2, "main-node2"), (1, 0, "area1-node0"), (12, 63, "area12-node63")]
)
def test_given_a_node_name_when_parsed_then_chain_and_index_come_back(chain: int, index: int, name: str) -> None:
    assert node_name(chain, index) == name
    assert parse_node_name(name) == (chain, index)


@pytest.mark.parametrize(
    "name", ["", "area0-node1", "area01-node1", "main-node01", "area1-node0 ", "area1-node0\n", "x"]
)
def test_given_anything_else_when_parsed_as_node_name_then_it_is_none(name: str) -> None:
    assert parse_node_name(name) is None


def test_given_key_files_when_read_then_only_private_well_formed_ones_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    path.touch(mode=0o600)
    path.write_text("11" * 32 + "\n")
    assert read_secret(path) == b"\x11" * 32
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="readable by others"):
        read_secret(path)
    path.chmod(0o600)
    for text in ("11" * 31, "zz" * 32, "11" * 33, ""):
        path.write_text(text)
        with pytest.raises(ConfigError, match="not a key file") as caught:
            read_secret(path)
        assert not text or text not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot read the key"):
        read_secret(tmp_path / "absent")


def test_given_a_systemd_credential_when_read_then_its_group_bit_is_no_objection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.key"
    path.write_text("11" * 32 + "\n")
    path.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_secret(path) == b"\x11" * 32


def test_given_a_status_when_unchanged_then_it_is_rewritten_only_now_and_then(tmp_path: Path) -> None:
    file = StatusFile(tmp_path)
    assert file.write({"height": 1}, 5)
    assert json.loads((tmp_path / "status.json").read_text()) == {"written_ms": 5, "height": 1}
    written = [file.write({"height": 1}, 6) for _ in range(REFRESH_PERIODS)]
    assert written == [False] * (REFRESH_PERIODS - 1) + [True]
    assert file.write({"height": 2}, 7)
    assert not StatusFile(tmp_path / "absent").write({}, 1)


def test_given_systemd_when_notified_then_the_datagram_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "n"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        assert notify("READY=1")
        assert listener.recv(100) == b"READY=1"
    assert not notify("STOPPING=1")
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert watchdog_ms() == 30_000
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_ms() == 0
