"""What a household's terminal keeps of its user, and in what form."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest
from test_evening import evening, play
from watt_gateway import bill, init
from watt_gateway.config import load_config
from watt_gateway.registry import PlugEntry, Registry
from watt_node.config import ConfigError
from watt_node.keys import read_secret


@pytest.mark.row("D2")
def test_a_terminal_keeps_name_secret_equipment_and_quotas_and_the_secret_in_one_place(tmp_path: Path) -> None:
    """There is no password: a key that the terminal makes stands for it, and no other file ever holds it."""

    async def scenario() -> None:
        world, _, seller, buyer = evening(tmp_path)
        folder, home = seller.folder, seller.household
        assert init.run(folder, "home-1") == 0
        key_file = folder / "household.key"
        key_file.write_text(home.key.to_text())  # the key with which the world enrolled this user
        registry = Registry(folder / "registry.json")
        registry.pair(PlugEntry(home.plug_id.hex(), home.plug.public.hex(), "boiler", 2000, world.now_s))
        registry.close()

        await play(world, seller.station, [seller, buyer], [[110] * 4, [200] * 4])
        seller.store.close()

        assert load_config(folder / "gateway.toml").household.name == "home-1"
        again = Registry(folder / "registry.json")
        assert [(entry.name, entry.rated_w) for entry in again.plugs().values()] == [("boiler", 2000)]
        again.close()
        summary, row = bill.read(folder / "bill.json")["summary"], world.row(home)
        assert summary["quota_wh"] == row.quota_wh and summary["metered_wh"] == row.metered_wh == [110] * 4

        secret = read_secret(key_file)
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
        others = [path for path in folder.rglob("*") if path.is_file() and path != key_file]
        assert {path.name for path in others} >= {"gateway.toml", "registry.json", "bill.json", "gateway.sqlite"}
        for path in others:
            data = path.read_bytes()
            assert secret not in data and secret.hex().encode() not in data.lower(), path
        key_file.chmod(0o644)
        with pytest.raises(ConfigError, match="readable by others"):
            read_secret(key_file)

    asyncio.run(scenario())
