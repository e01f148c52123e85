"""The unit file stays hardened and the example configuration loads."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from watt_node.config import load
from watt_station.service import StationConfig

DEPLOY = Path(__file__).parents[2] / "station" / "deploy"
EXPOSURE_MAX = 2.0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_given_the_unit_when_analysed_then_its_exposure_is_low() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={int(EXPOSURE_MAX * 10)}", "--no-pager",
         str(DEPLOY / "wattpact-station.service")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_given_the_unit_when_read_then_it_has_no_privilege_and_hands_keys_over_as_credentials() -> None:
    lines = (DEPLOY / "wattpact-station.service").read_text().splitlines()
    for line in ("Type=notify", "DynamicUser=yes", "CapabilityBoundingSet=", "NoNewPrivileges=yes", "WatchdogSec=30"):
        assert line in lines
    keys = {line.split("=")[1].split(":")[0] for line in lines if line.startswith("LoadCredential=")}
    config = load(DEPLOY / "station.toml", StationConfig)
    assert {config.node.key.name, config.tls.key.name} == keys
    assert all("/run/credentials/wattpact-station.service/" in str(path) for path in (config.node.key, config.tls.key))


def test_given_the_example_when_loaded_then_it_describes_a_quorum_of_four() -> None:
    config = load(DEPLOY / "station.toml", StationConfig)
    assert sorted({config.node.index} | {peer.index for peer in config.peers}) == [0, 1, 2, 3]
    assert [endpoint.chain for endpoint in config.main] == [0, 0, 0, 0]
