"""Makes the helpers of this folder, and the benches of the node's and the gateway's tests, importable."""

import os
import sys
from pathlib import Path

import pytest
from watt_rig.mosquitto import executable

for folder in ("e2e", "node", "gateway"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))

from evening import Evening, play  # noqa: E402  # beside this file: the path above makes it importable


@pytest.fixture(scope="session")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Evening:
    return play(tmp_path_factory.mktemp("quiet") / "net", kill=False)


@pytest.fixture(scope="session")
def stormy(tmp_path_factory: pytest.TempPathFactory) -> Evening:
    broker = "mosquitto" if executable() else "embedded"
    if broker == "embedded" and os.environ.get("CI") == "true":
        pytest.fail("mosquitto is missing in CI")
    return play(tmp_path_factory.mktemp("stormy") / "net", kill=True, broker=broker)
