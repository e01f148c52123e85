"""The daemon over real TLS: one master and one station; what is registered becomes final and anchored."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from watt_chain import codec
from watt_chain.contract import AreaContract, kinds
from watt_chain.contract.cross_kinds import Endow
from watt_chain.transaction import make_transaction
from watt_market.engine import Market
from watt_master.archive import Archive
from watt_master.config import AggregatorSection, GridSection, MasterConfig, RegistrarSection, ServicesSection
from watt_master.service import Master
from watt_node.config import ClockSection, EndpointSection
from watt_node.log import Log
from watt_node.service import Fatal

sys.path.insert(0, str(Path(__file__).parents[1] / "node"))

from node_bench import Network, key, until  # the bench of the node kit's own tests


def config_of(net: Any, index: int = 0) -> MasterConfig:
    settings = net.settings(0, index)
    enrol = kinds.Enrol(
        key("home").public, 0, [kinds.EnrolPlug(key("plug").public, "plain", 3680)], False, 4000, "h25", False
    )
    tx = make_transaction(key("regulator"), net.network, "Enrol", 1, 1, enrol)
    entry = codec.encode([1, tx])
    endow = codec.encode([0, make_transaction(key("grid"), net.network, "Endow", 0, 1, Endow(1, 5_000_000, 5_000_000))])
    data = b"".join(len(one).to_bytes(4, "big") + one for one in (entry, endow))
    (net.folder / "registrar.bin").write_bytes(data)
    for office in ("grid", "aggregator"):
        path = net.folder / f"{office}.key"
        path.touch(mode=0o600)
        path.write_text(key(office).to_text())
    clock = net.clock
    return MasterConfig(
        network=settings.network, node=settings.node, tls=settings.tls, listen=settings.listen, peers=settings.peers,
        areas=[EndpointSection(chain=1, index=at, host="127.0.0.1", port=net.port(1, at)) for at in range(net.size(1))],
        services=ServicesSection() if index else ServicesSection(
            grid=GridSection(key=net.folder / "grid.key"),
            aggregator=AggregatorSection(key=net.folder / "aggregator.key"),
            registrar=RegistrarSection(file=net.folder / "registrar.bin"),
        ),
        clock=ClockSection(
            machine_start_ms=clock.machine_start_ms, protocol_start_s=clock.protocol_start_s, speed=clock.speed
        ),
    )  # fmt: skip


@pytest.mark.row("H24", "B16")
def test_given_a_master_and_a_station_when_a_user_is_registered_then_the_block_is_archived_and_anchored_once(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        net = Network(tmp_path, areas=(1,), masters=1, contract=lambda: AreaContract(Market()))
        station = await net.start(1, 0)
        master = Master(config_of(net), Log("master", "debug", net.log))
        await master.start()
        try:
            await until(lambda: bool(list(master.archive.transactions(1, ("Enrol",)))), what="registered")
            await until(lambda: master.view.anchor_height(1) == station.height(), what="anchored")
            status: Any = master.status()
            assert status["offices"]["registrar"]["left"] == 0
            assert status["areas"]["1"]["halted"] == ""
            await until(
                lambda: bool(list(master.archive.transactions(0, ("Endow",)))), what="carried to the main chain"
            )
            await until(lambda: master.archive.height(0) >= 1)
            await until(lambda: master.archive.height(1) == station.height())
            assert [row.kind for row in master.archive.transactions(1, ("Enrol",))] == ["Enrol"]
            assert master.anchors_refused == {}
            await until(lambda: len(list(master.archive.transactions(0, ("Anchor",)))) == station.height())
        finally:
            await master.stop()
        assert not net.failures, net.failures

        # The archive lost its last main block, as in a crash between block log and archive: a new start repairs it.
        path = master.folder / "archive.sqlite"
        network = master.node.network
        damaged = Archive(path, network)
        damaged._db.execute("DELETE FROM block WHERE chain = 0")
        damaged._db.execute("DELETE FROM tx WHERE chain = 0")
        damaged.close()
        again = Master(config_of(net), Log("master", "debug", net.log))
        await again.start()
        try:
            assert again.archive.height(0) == again.node.height() >= 1
            height = station.height()
            assert again.view.ledger(1).head.height == height
            await asyncio.sleep(0)
            assert again.offices.registrar.left in (0, 1)
            await until(lambda: again.offices.registrar.left == 0)
            assert station.height() == height  # nothing was registered twice
        finally:
            await again.stop()
            await net.close()
        assert not net.failures, net.failures

    asyncio.run(scenario())


def test_given_four_masters_and_four_stations_when_one_of_each_is_gone_then_every_block_is_still_anchored_once(
    tmp_path: Path,
) -> None:
    """The master on duty for area 1 is never started, nor is one station; a stand-in anchors."""

    async def scenario() -> None:
        net = Network(tmp_path, areas=(4,), masters=4, contract=lambda: AreaContract(Market()))
        for index in (0, 1, 2):
            await net.start(1, index)
        masters = [Master(config_of(net, index), Log(f"m{index}", "debug", net.log)) for index in (0, 2, 3)]
        try:
            for master in masters:
                await master.start()
            await until(lambda: all(one.view.anchor_height(1) >= 1 for one in masters), 40, "anchored")
            height = min(one.view.anchor_height(1) for one in masters)
            anchors = list(masters[0].archive.transactions(0, ("Anchor",)))
            assert [row.code for row in anchors[:height]] == [""] * height
            assert all(one.view.ledger(1).head.height >= height for one in masters)
            assert all(not one.status()["areas"]["1"]["halted"] for one in masters)
        finally:
            for master in masters:
                await master.stop()
            await net.close()
        assert not net.failures, net.failures

    asyncio.run(scenario())


def test_given_a_changed_byte_in_the_archive_when_started_then_it_stops_with_one_line_and_the_next_start_heals(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        net = Network(tmp_path, areas=(1,), masters=1, contract=lambda: AreaContract(Market()))
        station = await net.start(1, 0)
        master = Master(config_of(net), Log("master", "debug", net.log))
        await master.start()
        await until(lambda: station.height() > 0 and master.archive.height(1) == station.height(), what="archived")
        await until(lambda: bool(master.status()["archive"]["whole"]), what="looked through")  # type: ignore[index]
        height = station.height()
        certified = station.block(1)
        assert certified is not None
        await master.stop()
        path = master.folder / "archive.sqlite"
        end = certified[-40:]
        data = path.read_bytes()
        assert end in data
        # Everywhere: the file may still hold an older copy of the page, and a change of that one means nothing.
        path.write_bytes(data.replace(end, bytes([end[0] ^ 1]) + end[1:]))

        stopped = Master(config_of(net), Log("master", "debug", net.log))
        with pytest.raises(Fatal, match="block 1 of chain 1 does not check; the next start"):
            await stopped.start()
        await stopped.stop()

        healed = Master(config_of(net), Log("master", "debug", net.log))
        await healed.start()
        try:
            await until(lambda: healed.archive.height(1) >= height, what="fetched again")
            await until(lambda: bool(healed.status()["archive"]["whole"]), what="whole")  # type: ignore[index]
            assert healed.archive.block(1, 1).certified == certified
            assert "archive-repaired" in net.log.getvalue()
        finally:
            await healed.stop()
            await net.close()
        assert not net.failures, net.failures

    asyncio.run(scenario())
