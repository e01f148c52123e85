"""A whole household in a process: what it reads at start, what it refuses, how it stops."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from contract_world import REGULATOR, World
from plug_stand_in import PlugStandIn
from watt_chain.genesis import sign_genesis
from watt_gateway import service
from watt_gateway.service import load_all, make_homes, serve
from watt_node.config import ConfigError
from watt_node.log import Log

CONFIG = """\
[household]
name = "{name}"
key = "{name}.key"
[area]
chain = 1
serving = 1
[network]
genesis = "genesis.bin"
regulator = "{regulator}"
[mqtt.home]
host = "127.0.0.1"
port = 1
[mqtt.area]
host = "127.0.0.1"
port = 1
[store]
path = "{name}"
[[plugs]]
public = "{plug}"
name = "kettle"
rated_w = 2000
"""


def household(folder: Path, name: str = "home1") -> Path:
    if not (folder / "genesis.bin").exists():
        (folder / "genesis.bin").write_bytes(sign_genesis(World(areas=1, homes=[]).genesis, REGULATOR))
    key = folder / f"{name}.key"
    key.write_text("07" * 32 + "\n")
    key.chmod(0o600)
    path = folder / f"{name}.toml"
    plug = PlugStandIn().key.public.hex()
    path.write_text(CONFIG.format(name=name, regulator=REGULATOR.public.hex(), plug=plug))
    return path


def quiet() -> Log:
    return Log("test", "error")


def test_it_runs_without_any_broker_shows_its_status_and_stops_cleanly(tmp_path: Path) -> None:
    async def scenario() -> int:
        homes = make_homes(load_all([household(tmp_path), household(tmp_path, "home2")]), quiet())
        asyncio.get_running_loop().call_later(0.3, os.kill, os.getpid(), signal.SIGTERM)
        return await serve(homes, quiet())

    assert asyncio.run(scenario()) == 0
    status = json.loads((tmp_path / "home1/status.json").read_text())
    assert status["brokers"] == {"home": False, "area": False} and status["tx"]["pending"] == 0
    registry = json.loads((tmp_path / "home2/registry.json").read_text())
    assert [plug["name"] for plug in registry["plugs"].values()] == ["kettle"]
    # The folders are free again: the next start is not refused.
    assert len(make_homes(load_all([tmp_path / "home1.toml"]), quiet())) == 1


def test_two_gateways_may_not_hold_one_folder(tmp_path: Path) -> None:
    configs = load_all([household(tmp_path)])
    homes = make_homes(configs, quiet())
    with pytest.raises(ConfigError, match="in use by another gateway"):
        make_homes(configs, quiet())
    assert len(homes) == 1


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("home1.key", "07" * 31 + "\n", "not a key file"),
        ("home1.key", "ff" * 32 + "\n", "group order"),
        ("genesis.bin", "not a genesis", "genesis.bin"),
        ("home1/gateway.sqlite", "not a database" * 400, "gateway.sqlite"),
        ("home1/registry.json", "[", "registry.json"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_1(
    tmp_path: Path, name: str, content: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = household(tmp_path)
    (tmp_path / "home1").mkdir()
    (tmp_path / name).write_text(content)
    assert service.run([path]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and says in lines[0]


def test_a_key_that_others_may_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = household(tmp_path)
    (tmp_path / "home1.key").chmod(0o644)
    assert service.run([path]) == 1
    error = capsys.readouterr().err
    assert "readable by others" in error and "07" * 32 not in error


def test_one_damaged_household_does_not_stop_the_others(tmp_path: Path) -> None:
    paths = [household(tmp_path), household(tmp_path, "home2")]
    (tmp_path / "home1").mkdir()
    (tmp_path / "home1/gateway.sqlite").write_bytes(b"\x01" * 5000)
    assert [home.name for home in make_homes(load_all(paths), quiet())] == ["home2"]


def test_a_task_that_breaks_ends_the_process_with_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> int:
        homes = make_homes(load_all([household(tmp_path)]), quiet())

        async def broken() -> None:
            raise ArithmeticError("ours")

        homes[0].outgoing.run = broken  # type: ignore[method-assign]
        return await serve(homes, quiet())

    assert asyncio.run(scenario()) == 1
    assert "ArithmeticError" in capsys.readouterr().err
