"""A configuration that cannot be used, and a port that is taken: exit code 1 and one line that says what to do."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_input_net import Net, run_once, toml
from node_bench import key
from watt_node.config import ClockSection
from watt_rig.service import PlugSection, RigConfig

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

ROLES = {"station": "area1-node0", "master": "main-node0", "gateway": "ann", "rig": "rig"}


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    net = Net(tmp_path_factory.mktemp("config"))
    net.add_gateway(key("plug").public)
    load = net.folder / "load.json"
    load.write_text(json.dumps({"start_s": 0, "step_s": 900, "watts": [100]}))
    plug = PlugSection(
        name="plug-1", gateway="ann", key=net.secret("plug"), interpreter="cpython", load=load, rated_w=2300,
        state_dir=net.folder / "rig",
    )  # fmt: skip
    net.config("rig").write_text(toml(RigConfig(mqtt=net.mqtt("rig"), plugs=[plug], clock=ClockSection())))
    yield net
    net.close()


def words(net: Net, role: str, path: Path) -> list[str]:
    return [sys.executable, "-m", "watt_tools.cli", role, "plugs" if role == "rig" else "run", "--config", str(path)]


def broken(net: Net, role: str, number: int, old: str, new: str) -> tuple[Path, int]:
    """The role's good configuration with one thing wrong, and the line it stands in."""
    good = net.config(ROLES[role]).read_text()
    assert re.search(old, good, re.MULTILINE), f"{old} is not in the configuration of the {role}"
    text = re.sub(old, new, good, count=1, flags=re.MULTILINE)
    path = net.folder / f"{role}-{number}.toml"
    path.write_text(text)
    return path, 1 + text[: text.index(new.strip().splitlines()[-1])].count("\n")


CASES = [
    (
        "station",
        r"^\[listen\]$",
        "[listen]\nprot = 1",
        "unknown key listen.prot; did you mean 'port'? (allowed: host, port)",
    ),
    ("station", r"^port = \d+$", "port = 70000", "port = 70000: allowed is an integer 0..65535"),
    ("master", r"^\[node\]$", "[node]\nindx = 0", "unknown key node.indx; did you mean 'index'? (allowed: batch_ms, "),
    ("master", r"^speed = 10$", 'speed = "fast"', "clock.speed = 'fast': allowed is an integer 1..100000"),
    (
        "gateway",
        r"^\[area\]$",
        "[area]\nservin = 1",
        "unknown key area.servin; did you mean 'serving'? (allowed: chain, ",
    ),
    ("gateway", r"^serving = 1$", "serving = 4", "area.serving = 4: an area of 4 nodes has the indexes 0..3"),
    (
        "rig",
        r"^\[\[plugs\]\]$",
        "[[plugs]]\ncolour = 1",
        "unknown key plugs[0].colour (allowed: gateway, interpreter, ",
    ),
    (
        "rig",
        r'^interpreter = "cpython"$',
        'interpreter = "java"',
        "plugs[0].interpreter = 'java': allowed is one of cpython, micropython, wasm",
    ),
]


def test_a_wrong_configuration_names_file_line_key_and_what_is_allowed(net: Net) -> None:
    running = []
    for number, (role, old, new, text) in enumerate(CASES):
        path, line = broken(net, role, number, old, new)
        child = subprocess.Popen(words(net, role, path), stderr=subprocess.PIPE, text=True)
        running.append((child, f"wattpact {role}: {path}:{line}: ", text))
    for child, start, text in running:
        said = child.communicate(timeout=60)[1].splitlines()
        assert (child.returncode, len(said)) == (1, 1), said
        assert said[0].startswith(start)
        assert text in said[0]


@pytest.mark.parametrize("role", ["station", "master", "rig broker"])
def test_a_port_in_use_is_one_line_and_exit_code_1(net: Net, role: str) -> None:
    place = {"station": (1, 0), "master": (0, 0)}.get(role)
    port = net.broker_port if place is None else net.network.ports[place]
    net.add_broker()
    command = net.daemons["broker"].words if place is None else words(net, role, net.config(ROLES[role]))
    with socket.create_server(("127.0.0.1", port)):
        code, said = run_once(command)
    said = [line for line in said if line.startswith("wattpact ")] if place else said
    assert (code, len(said)) == (1, 1), said
    assert f"127.0.0.1:{port}" in said[0]
    assert "address already in use" in said[0].lower()


def test_a_second_gateway_on_one_store_is_one_line_and_exit_code_1(net: Net) -> None:
    net.start("ann")
    daemon = net.daemons["ann"]
    try:
        while not daemon.said("serving"):
            assert daemon.alive, daemon.said("")
        code, said = run_once(words(net, "gateway", net.config("ann")))
        assert (code, said) == (1, [f"wattpact gateway: {net.data('ann')}: in use by another gateway process"])
    finally:
        daemon.end()
