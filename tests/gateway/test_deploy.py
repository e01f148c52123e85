"""The unit file stays hardened and the example configuration is one that the gateway takes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from watt_gateway.config import load_config

DEPLOY = Path(__file__).parents[2] / "gateway" / "deploy"
UNIT = DEPLOY / "wattpact-gateway.service"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_exposure_of_the_unit_is_at_most_two() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_the_example_takes_its_keys_from_the_units_credentials() -> None:
    lines = UNIT.read_text().splitlines()
    for line in ("Type=notify", "DynamicUser=yes", "CapabilityBoundingSet=", "NoNewPrivileges=yes", "WatchdogSec=30"):
        assert line in lines
    config = load_config(DEPLOY / "gateway.toml")
    given = {line.split("=")[1].split(":")[0] for line in lines if line.startswith("LoadCredential=")}
    keys = {config.household.key, config.mqtt.home.key, config.mqtt.area.key}
    assert {key.name for key in keys if key is not None} == given
    assert all(str(key).startswith("/run/credentials/wattpact-gateway.service/") for key in keys)
    assert str(config.store.path) == "/var/lib/wattpact-gateway"
