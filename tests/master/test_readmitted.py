"""A master and an area that is readmitted: the old list's blocks are set aside, the new station's anchored."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from watt_chain import codec
from watt_chain.contract import AreaContract
from watt_chain.contract.cross_kinds import Fork, Readmit
from watt_chain.contract.objects import AnchorState, anchor_key
from watt_chain.genesis import Validator
from watt_chain.ledger import Ledger
from watt_chain.resume import Resume
from watt_chain.transaction import make_transaction
from watt_market.engine import Market
from watt_master.archive import Archive
from watt_master.service import Master
from watt_node.byhand import take_in
from watt_node.config import EndpointSection
from watt_node.log import Log
from watt_node.node import Node, NodeSettings
from watt_node.offline import StoppedNode, read_chain, write_chain
from watt_node.resumption import keep
from watt_node.service import Fatal
from watt_node.vault import ARCHIVE, Keeping

sys.path.insert(0, str(Path(__file__).parents[1] / "node"))
sys.path.insert(0, str(Path(__file__).parent))

from node_bench import Network, key, until
from test_accuse import HEADER, certified
from test_audit import auditor_of
from test_audit import config_of as audit_config
from test_daemon import config_of

SEATS = [Validator("c1n1", key("1/1").public)]


async def say(net: Network, node: Node, kind: str, fields: object) -> None:
    """A call of the regulator, until its block is there."""
    nonce = node.ledger.next_nonce(key("regulator").public)
    assert await node.submit(make_transaction(key("regulator"), net.network, kind, node.chain, nonce, fields)) == ""
    await until(lambda: node.ledger.next_nonce(key("regulator").public) > nonce, what=kind)


def new_station(net: Network, blocks: list[bytes], held: AnchorState) -> NodeSettings:
    """Import, and the regulator's word, as `wattpact station import` and `resume` do it."""
    made = net.settings(1, 1)
    ledger = Ledger(net.genesis, 1, AreaContract(Market()))
    for one in blocks:
        ledger.replay(one)
    assert (ledger.head.height, ledger.head.block_hash) == (held.height, held.block_hash)
    fields = Resume(1, held.height + 1, held.block_hash, SEATS)
    nonce = ledger.next_nonce(key("regulator").public)
    chain, word = net.folder / "area.blocks", net.folder / "area.word"
    word.write_bytes(make_transaction(key("regulator"), net.network, "Resume", 1, nonce, fields))
    assert list(write_chain(chain, blocks))
    node = StoppedNode(made.node.data, net.genesis, net.network, 1, AreaContract(Market()), Keeping(ARCHIVE))
    take_in(chain, node, net.network)
    assert "this node is one of them" in keep(node, made.node.data, word, key("1/1").public)
    node.close()
    return dataclasses.replace(made, node=replace(made.node, joins=True), peers=[])


@pytest.mark.row("H16")
def test_given_an_area_beyond_its_bound_when_readmitted_then_a_master_sets_the_old_blocks_aside_and_anchors_the_new(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        net = Network(tmp_path, areas=(1,), masters=1, contract=lambda: AreaContract(Market()))  # type: ignore[arg-type, return-value]
        station = await net.start(1, 0)
        config = replace(config_of(net), node=replace(config_of(net).node, snapshot_blocks=2))
        master = Master(config, Log("master", "debug", net.log))
        await master.start()
        await until(lambda: 1 <= master.view.anchor_height(1) == station.height(), what="anchored")
        watching = replace(
            audit_config(net, "regulator", {}), areas=config.areas, data=net.folder / "watching", checkpoint_blocks=4096
        )
        auditor = auditor_of(net, watching)
        await auditor.start()
        proof = Fork(certified(net, replace(HEADER, height=99)), certified(net, replace(HEADER, height=99, time_s=2)))
        await say(net, master.node, "Fork", proof)
        await until(lambda: master.view.is_quarantined(1))
        held = codec.decode(master.node.ledger.state.get(anchor_key(1)) or b"", AnchorState)
        for _ in range(2):  # they go on, and masters execute it and anchor nothing
            await say(net, station, "Validators", [b""])
        await until(lambda: master.view.ledger(1).head.height == station.height() >= held.height + 2)
        await until(lambda: auditor.replicas[1].height == station.height())
        old = station.block(held.height + 1)
        await say(net, master.node, "Readmit", Readmit(1, SEATS))
        await until(lambda: len(net.failures) == 2, what="master and auditor stop")
        for told in net.failures:
            assert isinstance(told, Fatal) and f"readmitted from height {held.height + 1} on; start again" in str(told)
        net.failures.clear()
        await auditor.stop()
        await master.stop()
        await net.stop(1, 0)
        archive = Archive(master.folder / "archive.sqlite", net.network, read_only=True)
        blocks = list(archive.blocks(1))
        archive.close()
        settings = new_station(net, blocks[: held.height], held)
        fresh = Node(settings, AreaContract(Market()), net.clock, Log("new", "debug", net.log))
        await fresh.start()
        net.nodes[1, 1] = fresh
        ends = [EndpointSection(chain=1, index=1, host="127.0.0.1", port=net.port(1, 1))]
        again = Master(replace(config, areas=ends), Log("again", "debug", net.log))
        await again.start()
        kept = again.folder / f"area1-from-{held.height + 1}.old"
        assert list(read_chain(kept)) == blocks[held.height :] and blocks[held.height] == old
        await until(lambda: held.height < again.view.anchor_height(1) == fresh.height(), what="anchored")
        await say(net, fresh, "Validators", [b""])
        await until(lambda: again.view.anchor_height(1) == fresh.height(), what="anchored")
        anchored = codec.decode(again.node.ledger.state.get(anchor_key(1)) or b"", AnchorState)
        assert anchored.block_hash == fresh.ledger.head.block_hash
        auditor = auditor_of(net, replace(watching, areas=ends))
        await auditor.start()
        assert list(read_chain(auditor.folder / kept.name)) == blocks[held.height :]
        await until(lambda: auditor.replicas[1].ledger.head.block_hash == anchored.block_hash)
        assert auditor.alarms == []
        await auditor.stop()
        # A master that had nothing beyond takes the old list's block from nobody.
        replica = again._replicas[1]
        replica.ledger = Ledger(net.genesis, 1, AreaContract(Market()))
        for one in blocks[: held.height]:
            replica.ledger.replay(one)
        assert replica.check(blocks[held.height]) == "old-list"
        assert replica.height == held.height
        await again.stop()
        third = Master(replace(config, areas=ends), Log("third", "debug", net.log))
        await third.start()  # nothing is set aside twice
        assert third.view.ledger(1).head.block_hash == anchored.block_hash
        await third.stop()
        await net.close()
        assert not net.failures, net.failures

    asyncio.run(scenario())
