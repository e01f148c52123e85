"""Configurations and plans: a mistake is one line that names file, line, key and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from watt_chain import crypto
from watt_gateway import doctor, init, service
from watt_gateway.config import load_config, load_plan
from watt_node.config import ConfigError
from watt_node.keys import read_secret

GOOD = """\
[household]
name = "home1"
key = "home1.key"

[area]
chain = 1
nodes = 4
serving = 2

[network]
genesis = "genesis.bin"
regulator = "{regulator}"

[clock]
machine_start_ms = 5
protocol_start_s = 1000
speed = 240

[mqtt.home]
host = "127.0.0.1"
port = 1883

[mqtt.area]
host = "127.0.0.1"
port = 1883

[store]
path = "data"

[[plugs]]
public = "{plug}"
name = "kettle"
rated_w = 2000

[modbus]
host = "127.0.0.1"
port = 5020
unit = 1
map = "sdm120"

[plan]
file = "plan.json"
""".format(regulator="ab" * 64, plug="cd" * 64)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "home1.toml"
    path.write_text(text)
    return path


def test_a_good_file_is_read_with_paths_beside_it(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert config.household.key == tmp_path / "home1.key" and config.store.path == tmp_path / "data"
    assert config.area.serving == 2 and config.plugs[0].rated_w == 2000 and config.clock.speed == 240


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ('name = "home1"', 'name = "Home One"', 2, "household.name"),
        ("chain = 1", "chain = 0", 6, "65535"),
        ("serving = 2", "serving = 4", 8, "0..3"),
        ("nodes = 4", "nods = 4", 7, "did you mean 'nodes'"),
        ("speed = 240", "speed = 0", 17, "clock.speed"),
        ('host = "127.0.0.1"\nport = 1883\n\n[mqtt.area]', 'host = "10.0.0.9"\nport = 1883\n\n[mqtt.area]', 20, "ca"),
        ("rated_w = 2000", "rated_w = -5", 33, "rated_w"),
        ("port = 5020", 'port = "5020"', 37, "modbus.port"),
        ('[plan]\nfile = "plan.json"', "[plan]", 41, "missing key plan.file"),
        ("[area]", "[area", 5, "not TOML"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, GOOD.replace(old, new, 1)))
    assert says in str(error.value)
    assert f"home1.toml:{line}:" in str(error.value)


def test_the_same_plug_twice_is_refused(tmp_path: Path) -> None:
    twice = GOOD + f'\n[[plugs]]\npublic = "{"cd" * 64}"\nname = "oven"\nrated_w = 3000\n'
    with pytest.raises(ConfigError, match="twice"):
        load_config(write(tmp_path, twice))


def test_the_daemon_refuses_with_one_line_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert service.run([tmp_path / "absent.toml"]) == 1
    assert service.run([write(tmp_path, GOOD)]) == 1  # no genesis file
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2 and "absent.toml" in lines[0] and "genesis.bin" in lines[1]


def test_two_households_may_not_share_a_name_or_a_folder(tmp_path: Path) -> None:
    one = write(tmp_path, GOOD)
    two = tmp_path / "home2.toml"
    two.write_text(GOOD)
    with pytest.raises(ConfigError, match="home1 is in"):
        service.load_all([one, two])
    two.write_text(GOOD.replace('name = "home1"', 'name = "home2"'))
    with pytest.raises(ConfigError, match=r"store\.path"):
        service.load_all([one, two])


def test_a_plan_is_read_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    assert load_plan(path) is None
    path.write_text('{"side": "sell", "price_u_per_wh": 300, "slot_wh": [1, 2]}')
    plan = load_plan(path)
    assert plan is not None and plan.slot_wh == [1, 2]
    for wrong in ('{"side": "give", "price_u_per_wh": 300, "slot_wh": [1]}', "{", '{"side": "sell"}', "[]"):
        path.write_text(wrong)
        with pytest.raises(ConfigError, match=r"plan\.json: not a plan"):
            load_plan(path)


def test_init_writes_what_the_configuration_reader_takes_and_never_overwrites(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new"
    assert init.run(folder, "my-home") == 0
    config = load_config(folder / "gateway.toml")
    assert config.household.name == "my-home"
    assert (folder / "household.key").stat().st_mode & 0o777 == 0o600
    key = (folder / "household.key").read_text()
    assert init.run(folder, "my-home") == 1 and (folder / "household.key").read_text() == key
    assert init.run(tmp_path / "other", "My Home") == 1
    assert not (tmp_path / "other").exists()
    assert key.strip() not in capsys.readouterr().out


@pytest.mark.row("E8")
def test_every_household_makes_a_user_code_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = []
    for name in ("home-1", "home-2"):
        assert init.run(tmp_path / name, name) == 0
        key = crypto.PrivateKey.from_bytes(read_secret(tmp_path / name / "household.key"))
        out = capsys.readouterr().out
        assert f"account: {crypto.id8(key.public).hex()}\n" in out and key.public.hex() in out
        codes.append(crypto.id8(key.public))
    assert codes[0] != codes[1]


def test_the_doctor_says_what_to_do_and_that_it_is_not_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "CONNECT_S", 0.3)
    text = GOOD.replace("port = 1883", "port = 1").replace("[modbus]", "[modbus]\n# none")
    text = text[: text.index("[modbus]")]
    assert doctor.run(write(tmp_path, text)) == 1
    out = capsys.readouterr().out
    for part in ("household key", "genesis", "home broker 127.0.0.1:1", "->", "to repair"):
        assert part in out
    assert doctor.run(tmp_path / "absent.toml") == 1
