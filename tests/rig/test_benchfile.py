"""The bench: its file, its socket, the air that can fall silent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from watt_node.config import ConfigError
from watt_rig import benchfile
from watt_rig.airline import AirLine
from watt_rig.bench import FAULTS, BenchError
from watt_rig.load import LoadError
from watt_rig.loads import START_S, load_of
from watt_tools import rig_setup


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("speed = 0", "speed"),
        ("wrong = 1", "wrong"),
        ('[[plugs]]\nname = "a"\nchip = "other"', "chip"),
        ('[[plugs]]\nname = "a"\n[[plugs]]\nname = "a"', "same name"),
        ('[[plugs]]\nname = "UPPER"', "name"),
        ('[[meters]]\nname = "m"\nkind = "sdm120"\nline = "rs485"', "line"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        benchfile.read(path)


def test_measured_appliances_keep_the_energy_that_their_files_name(tmp_path: Path) -> None:
    """The first line of dishwasher-1 says 1778 Wh a day."""
    load = load_of("dishwasher-1", 3680, tmp_path)
    assert load.energy_uj(START_S + 86_400) // 3_600_000_000 in (1777, 1778)
    assert load_of("60", 100, tmp_path).energy_uj(START_S + 3600) == 60 * 3_600_000_000
    with pytest.raises(LoadError, match="toaster"):
        load_of("toaster", 3680, tmp_path)


def test_a_bench_answers_its_socket_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_text('[broker]\nkind = "none"\n[[meters]]\nname = "main"\nkind = "sdm120"\nload = "500"\n')

    async def scenario() -> None:
        bench, _ = rig_setup.make_bench(benchfile.read(path), tmp_path / "run", tmp_path)
        await bench.start()
        try:
            status = bench.handle({"do": "status"})
            assert status["plugs"] == {} and status["broker"] is None
            for request, named in (
                ({"do": "dance"}, "dance"),
                ({"do": "fault", "name": "broker-death"}, "no broker"),
                ({"do": "fault", "name": "power-cut", "plug": "x"}, "'x'"),
                ({"do": "fault", "name": "power-cut", "plug": "x", "value": "long"}, "integer"),
            ):
                with pytest.raises(BenchError, match=named):
                    bench.handle(request)
            reader, writer = await asyncio.open_unix_connection(tmp_path / "run" / "rig.sock")
            writer.write(b"not json\n")
            assert b"error" in await reader.readline()
            writer.close()
            bench.handle({"do": "down"})
            assert bench.stop_wanted.is_set()
        finally:
            await bench.stop()
        assert not (tmp_path / "run" / "rig.sock").exists()

    asyncio.run(scenario())


def test_every_fault_has_a_name_in_the_list() -> None:
    assert len(set(FAULTS)) == len(FAULTS) == 8


def test_air_that_is_gone_resets_nothing_and_carries_again() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    async def scenario() -> None:
        broker = await asyncio.start_server(echo, "127.0.0.1", 0)
        air = AirLine(broker.sockets[0].getsockname()[1])
        await air.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", air.port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        air.set_there(False)
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.3)
        air.set_there(True)
        assert await reader.readexactly(3) == b"two"
        writer.close()
        await air.stop()
        broker.close()

    asyncio.run(scenario())
