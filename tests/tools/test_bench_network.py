"""Certificates, child processes and the command line of the bench."""

from __future__ import annotations

import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from watt_tools import cli
from watt_tools.certificates import Authority
from watt_tools.children import ChildFailed, Children, command


def test_a_private_key_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "bench")
    _, key = authority.issue("area1-node0")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["a/b", "#", "+", "", "A", "x" * 33, "gw001\n"])
def test_a_name_that_could_be_a_topic_or_a_path_gets_no_certificate(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not of the form"):
        Authority(tmp_path, "bench").issue(name)


def test_a_certificate_of_another_network_completes_no_handshake(tmp_path: Path) -> None:
    for folder in ("ours", "theirs"):
        (tmp_path / folder).mkdir()
    ours, theirs = Authority(tmp_path / "ours", "ours"), Authority(tmp_path / "theirs", "theirs")
    assert handshake(ours, ours) == ""
    assert handshake(ours, theirs) != ""


def handshake(server: Authority, client: Authority) -> str:
    """ "" when a client of `client`'s network can talk to a server of `server`'s, else the error."""
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listening.load_cert_chain(*server.issue("server"))
    listening.load_verify_locations(server.ca_path)
    listening.verify_mode = ssl.CERT_REQUIRED
    calling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    calling.load_cert_chain(*client.issue("client"))
    calling.load_verify_locations(server.ca_path)
    failed: list[str] = []

    def serve(door: socket.socket) -> None:
        try:
            with listening.wrap_socket(door.accept()[0], server_side=True) as channel:
                channel.sendall(channel.recv(4))
        except OSError as error:
            failed.append(str(error))

    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=serve, args=(door,))
        thread.start()
        try:
            with (
                socket.create_connection(door.getsockname()) as plain,
                calling.wrap_socket(plain, server_hostname="localhost") as channel,
            ):
                channel.sendall(b"ping")
                if channel.recv(4) != b"ping":
                    failed.append("closed")
        except OSError as error:
            failed.append(str(error))
        thread.join()
    return failed[0] if failed else ""


def test_a_child_that_refuses_to_start_is_reported_with_its_last_line(tmp_path: Path) -> None:
    children = Children(tmp_path / "pids.json")
    children.start("node", [sys.executable, "-c", "print('port 1 is in use'); raise SystemExit(1)"], tmp_path / "log")
    with pytest.raises(ChildFailed, match="node: port 1 is in use"):
        for _ in range(100):
            children.watch()
            time.sleep(0.05)


def test_no_child_outlives_stop(tmp_path: Path) -> None:
    children = Children(tmp_path / "pids.json")
    child = children.start("node", [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log")
    process = child.process
    assert process is not None
    children.stop()
    assert process.poll() is not None
    assert not children.children


def test_a_killed_child_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watt_tools.children.RESTART_DELAY_S", 0)
    children = Children(tmp_path / "pids.json")
    child = children.start("node", [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log")
    first = child.process
    assert first is not None
    first.kill()
    first.wait()
    children.watch()
    children.watch()
    assert child.pid not in (None, first.pid)
    assert any("signal 9" in note for note in children.notes)
    children.stop()


@pytest.mark.parametrize(
    ("words", "limit"), [(["--homes", "3"], "24..200"), (["--areas", "9"], "1..4"), (["--speed", "0"], "1..600")]
)
def test_a_demo_option_out_of_range_names_value_and_limit(
    words: list[str], limit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["demo", *words])
    assert left.value.code == 2
    assert limit in capsys.readouterr().err


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letter.txt").write_text("dear all")
    assert cli.main(["demo", "--dir", str(tmp_path)]) == 1
    assert cli.main(["demo", "--dir", str(tmp_path), "--fresh"]) == 1
    assert (tmp_path / "letter.txt").read_text() == "dear all"
    assert "not empty" in capsys.readouterr().err


def test_the_broker_says_in_one_line_that_its_port_is_taken(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "bench")
    certificate, key = authority.issue("broker")
    with socket.create_server(("127.0.0.1", 0)) as door:
        words = ["rig", "broker", "--port", str(door.getsockname()[1]), "--ca", str(authority.ca_path)]
        words += ["--cert", str(certificate), "--key", str(key)]
        done = subprocess.run(command(*words), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert "cannot serve on 127.0.0.1" in lines[0]
