"""What a master reads: wrong files are refused with file, line, key and what is allowed."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from watt_chain.contract.event import check_spec
from watt_chain.contract.rules import RULES_1
from watt_master.config import load_config, load_event, load_key
from watt_master.service import run
from watt_node.config import ConfigError

DEPLOY = Path(__file__).parents[2] / "master/deploy"


def changed(tmp_path: Path, name: str, *replacements: tuple[str, str]) -> Path:
    text = (DEPLOY / name).read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new, 1)
    path = tmp_path / name
    path.write_text(text)
    return path


def test_given_the_example_files_when_loaded_then_they_are_accepted() -> None:
    config = load_config(DEPLOY / "master.toml")
    assert config.node.chain == 0 and len(config.peers) == 3 and list(config.endpoints()) == [1]
    assert config.services.grid is not None and config.services.registrar is None
    event = load_event(DEPLOY / "event.toml", RULES_1.price_cap_u_per_wh)
    assert check_spec(event.spec(), RULES_1.price_cap_u_per_wh) == ""
    assert len(event.units) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("chain = 0", "chain = 1", r"node.*a master is a validator of the main chain, allowed is 0"),
        ("chain = 1", "chain = 0", r"areas.*an area has a number from 1 on"),
        ("index = 1\nhost = \"10.1.0.12\"", "index = 0\nhost = \"10.1.0.12\"", "one station is listed twice"),
        ("[[peers]]\nindex = 1", "[[peers]]\nindex = 0", "index 0 is this master itself"),
        ("[services.aggregator]", "[services.agregator]", r"unknown key services.agregator; did you mean 'aggregator'"),
        ("[services.aggregator]\n", "[services.aggregator]\nspeed = 3\n", r"unknown key services.aggregator.speed"),
        ('level = "info"', 'level = "loud"', r"log.level = 'loud': allowed is one of debug, error, info, warning"),
        ("port = 7400", "port = 70000", r"listen.port = 70000: allowed is an integer 0..65535"),
        ("[tls]", "[tsl]", r"unknown key tsl"),
    ],
)  # fmt: skip
def test_given_a_wrong_key_or_value_when_loaded_then_file_line_and_key_are_named(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = changed(tmp_path, "master.toml", (old, new))
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}:")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("reveal_close_s = 1893511800", "reveal_close_s = 1", "refused on chain: spec-time"),
        ("alpha_u_per_wh = [24, 24, 24, 24]", "alpha_u_per_wh = [24]", "refused on chain: spec-lists"),
        ("announce_s = 1893502800", "announce_s = 1893506400", "announce_s 1893506400 must be before open_s"),
        ('kind = "peak"', 'kind = "noon"', "kind = 'noon': allowed is one of peak, valley"),
        ("slots = 4", "slots = 0", "slots = 0: allowed is an integer 1..96"),
        ("budget_u = 50000000", "budget_u = 5.5", "budget_u = 5.5: allowed is an integer >= 0"),
    ],
)
def test_given_a_signal_that_a_chain_would_refuse_when_loaded_then_the_file_is_refused_at_once(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_event(changed(tmp_path, "event.toml", (old, new)), RULES_1.price_cap_u_per_wh)


def test_given_a_valley_signal_when_loaded_then_it_is_taken(tmp_path: Path) -> None:
    path = changed(tmp_path, "event.toml", ('kind = "peak"', 'kind = "valley"'))
    assert load_event(path, RULES_1.price_cap_u_per_wh).spec().kind == "valley"


def test_given_a_key_file_with_zeros_when_loaded_then_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "grid.key"
    path.touch(mode=0o600)
    path.write_text("00" * 32 + "\n")
    with pytest.raises(ConfigError, match="not a P-256 private key"):
        load_key(path)


def test_given_a_config_that_cannot_be_used_when_the_daemon_runs_then_one_line_and_exit_code_1(
    tmp_path: Path, capfd: Any
) -> None:
    path = changed(tmp_path, "master.toml")
    assert run(path) == 1  # the genesis file it names does not exist
    error = capfd.readouterr().err
    assert error.startswith("wattpact master: ") and "genesis.bin" in error and error.count("\n") == 1


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_given_the_unit_when_systemd_rates_it_then_its_exposure_is_low() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager",
         str(DEPLOY / "wattpact-master.service")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
