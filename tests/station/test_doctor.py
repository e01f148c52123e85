"""`wattpact station doctor` beside real stations: one was killed, one has a wrong key, and exactly these are named."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from watt_node.channel import tls_context
from watt_node.config import EndpointSection
from watt_node.log import Log
from watt_node.remote import Remote
from watt_tools.bench_net import AREA, CLIENT, HOST, BenchNet, make_key
from watt_tools.children import command

KILLED, WRONG = "area1-node3", "area1-node2"
TIMEOUT_MS = 1000
WAIT_S = 40

pytestmark = pytest.mark.e2e


@pytest.fixture
def net(tmp_path: Path) -> Iterator[BenchNet]:
    net = BenchNet(tmp_path / "net", 4, 500, timeout_ms=TIMEOUT_MS)
    try:
        net.start()
        yield net
    finally:
        net.stop()


def examined(net: BenchNet, index: int) -> tuple[int, dict[str, Any]]:
    """(exit code, the doctor's JSON) for a station."""
    words = command("station", "doctor", "--config", str(net.folder / f"node{index}.toml"), "--json")
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def submit(net: BenchNet, tx: bytes) -> None:
    """Hand a transaction to station 0."""

    async def hand_in() -> None:
        endpoint = EndpointSection(chain=AREA, index=0, host=HOST, port=net.ports[0])
        context = tls_context(net.tls(CLIENT), server=False)
        remote = Remote([endpoint], context, CLIENT, net.network, Log("test"))
        assert await remote.submit(tx) == ""
        remote.close()

    asyncio.run(hand_in())


def until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.2)


def restart_with_wrong_key(net: BenchNet) -> None:
    """Kill station 2 and start it again with a key that is on no list."""
    child = net.children.children[2]
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    path = net.folder / "node2.toml"
    key = net.folder / "wrong.key"
    key.touch(mode=0o600)
    key.write_text(make_key("nobody").to_text())
    text = path.read_text().replace(str((net.folder / "area1-node2.key").absolute()), str(key.absolute()))
    path.write_text(text.replace("[node]", "[node]\njoins = true"))
    net.children.start("wrong", command("station", "run", "--config", str(path)), net.folder / "wrong.log")


def test_given_one_station_killed_and_one_with_a_wrong_key_when_examined_then_exactly_these_are_named(
    net: BenchNet,
) -> None:
    code, told = examined(net, 0)
    bad = [one for one in told["findings"] if one["level"] == "bad"]
    assert not [one for one in bad if "file system" not in one["what"]], "a healthy area"
    assert told["running"] and told["able"] == 4 and told["others"] == []

    killed = net.children.children[3].pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    restart_with_wrong_key(net)
    until(lambda: WRONG in net.status(0)["peers"] and KILLED not in net.status(0)["peers"], "links settle")
    submit(net, net.enrolments()[0])
    until(lambda: net.status(0)["replica"]["phase"] not in ("idle", "waiting-for-proposal"), "something waits")

    code, told = examined(net, 0)
    assert code == 1
    assert (told["able"], told["votes_needed"], told["moving"]) == (2, 3, False)
    reasons = {one["validator"]: "; ".join(one["reasons"]) for one in told["waiting_for"]}
    assert set(reasons) == {WRONG, KILLED} and told["others"] == []
    wanted, shown = (make_key(name).public.hex()[:16] for name in ("node 2", "nobody"))
    assert f"its key {shown} is not on the list, which has {wanted}" in reasons[WRONG]
    assert "it does not run" in reasons[KILLED] and "not connected for" in reasons[KILLED]
    stands = [one["what"] for one in told["findings"] if "stands in view" in one["what"]]
    assert len(stands) == 1 and stands[0].endswith("2 can sign")

    code, told = examined(net, 2)  # the one with the wrong key says what is wrong with itself
    assert told["phase"] == "following"
    assert any(one["level"] == "warn" and f"genesis names {wanted}" in one["what"] for one in told["findings"])
    code, told = examined(net, 3)  # the one that does not run
    assert code == 1 and not told["running"]
    text = json.dumps(told["findings"])
    assert "the node does not run" in text and "area1-node0 at height" in text and "is free to listen on" in text


def test_given_no_configuration_when_examined_then_one_line_and_exit_code_1(tmp_path: Path) -> None:
    words = [*command("station", "doctor"), "--config", str(tmp_path / "none.toml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "cannot read the configuration" in done.stdout and done.stdout.endswith("1 to repair\n")
