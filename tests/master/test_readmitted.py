"""A master and an area that is readmitted: the old list's blocks are set aside, the new station's anchored."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from watt_chain import codec
from watt_chain.contract import AreaContract
from watt_chain.contract.cross_kinds import Fork
from watt_chain.contract.objects import AnchorState, anchor_key
from watt_chain.genesis import Validator
from watt_chain.ledger import Ledger
from watt_chain.resume import Resume, open_word
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
from watt_tools.cli import main

sys.path.insert(0, str(Path(__file__).parents[1] / "node"))
sys.path.insert(0, str(Path(__file__).parent))

from node_bench import Network, key, until
from test_accuse import HEADER, certified, configured, key_file, refused, written
from test_audit import auditor_of
from test_audit import config_of as audit_config
from test_daemon import config_of

SEATS = [Validator("c1n1", key("1/1").public)]


async def say(net: Network, node: Node, kind: str, fields: object) -> None:
    """A call of the regulator, until its block is there."""
    nonce = node.ledger.next_nonce(key("regulator").public)
    assert await node.submit(make_transaction(key("regulator"), net.network, kind, node.chain, nonce, fields)) == ""
    await until(lambda: node.ledger.next_nonce(key("regulator").public) > nonce, what=kind)


async def readmit(
    net: Network, folder: Path, show: pytest.CaptureFixture[str], seats: list[Validator], who: str, *more: str
) -> tuple[int, str, str]:
    """`wattpact audit readmit` with the files of an auditor."""
    text = "".join(f'[[validators]]\nname = "{one.name}"\npublic = "{one.public.hex()}"\n' for one in seats)
    listed = written(net, "list.toml", text.encode())
    files = ["--config", str(configured(net, folder)), "--validators", str(listed), "--key", str(key_file(net, who))]
    words = ["audit", "readmit", *files, "--chain", "1", "--out", str(net.folder / "area.word"), *more]
    code = await asyncio.get_running_loop().run_in_executor(None, main, words)
    shown = show.readouterr()
    return code, shown.out, shown.err


def new_station(net: Network, blocks: list[bytes], held: AnchorState) -> NodeSettings:
    """Import, and the regulator's word, as `wattpact station import` and `resume` do it."""
    made = net.settings(1, 1)
    chain, word = net.folder / "area.blocks", net.folder / "area.word"
    fields = open_word(word.read_bytes())[1]
    assert fields == Resume(1, held.height + 1, held.block_hash, SEATS)
    assert list(write_chain(chain, blocks))
    node = StoppedNode(made.node.data, net.genesis, net.network, 1, AreaContract(Market()), Keeping(ARCHIVE))
    take_in(chain, node, net.network)
    assert "this node is one of them" in keep(node, made.node.data, word, key("1/1").public)
    node.close()
    return dataclasses.replace(made, node=replace(made.node, joins=True), peers=[])


@pytest.mark.row("H16")
def test_given_an_area_beyond_its_bound_when_readmitted_then_a_master_sets_the_old_blocks_aside_and_anchors_the_new(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
        code, out, err = await readmit(net, watching.data, capsys, SEATS, "regulator")
        assert (code, out) == (1, "") and "area1: not-quarantined: the area is in good standing" in err
        proof = Fork(certified(net, replace(HEADER, height=99)), certified(net, replace(HEADER, height=99, time_s=2)))
        await say(net, master.node, "Fork", proof)
        await until(lambda: master.view.is_quarantined(1))
        held = codec.decode(master.node.ledger.state.get(anchor_key(1)) or b"", AnchorState)
        for _ in range(2):  # they go on, and masters execute it and anchor nothing
            await say(net, station, "Validators", [b""])
        await until(lambda: master.view.ledger(1).head.height == station.height() >= held.height + 2)
        await until(lambda: auditor.replicas[1].height == station.height())
        old = station.block(held.height + 1)
        again = [Validator("c1n1", net.genesis.validators(1)[0].public)]
        for seats, who, reason in (
            (again, "regulator", "area1: key-used: "),
            (SEATS, "grid", "area1: role: only the regulator readmits"),
            (SEATS, "a stranger", "this key may not sign on the main chain"),
        ):
            code, out, err = await readmit(net, watching.data, capsys, seats, who)
            assert (code, out) == (1, "") and reason in err and err.count("\n") == 1, err
        code, out, err = await readmit(net, net.folder / "elsewhere", capsys, SEATS, "regulator")
        assert code == 1 and "archive.sqlite is not there: `wattpact audit run` fetches" in err
        code, out, err = await readmit(net, watching.data, capsys, SEATS, "regulator", "--chain", "7")
        assert code == 1 and "area7: the main chain has no such area" in err
        assert not (net.folder / "area.word").exists() and master.view.is_quarantined(1)
        other = written(net, "area.word", b"somebody's notes")
        code, out, err = await readmit(net, watching.data, capsys, SEATS, "regulator")
        assert (
            code == 1 and "area.word exists and holds something else" in err and other.read_bytes()[:8] == b"somebody"
        )
        other.unlink()
        assert master.view.is_quarantined(1), "the main chain was told nothing"
        code, out, err = await readmit(net, watching.data, capsys, SEATS, "regulator")
        assert (code, err) == (0, "") and f"area1: height {held.height + 1} is made by c1n1; recorded in block" in out
        await until(lambda: len(net.failures) == 2, what="master and auditor stop")
        code, out, err = await readmit(net, watching.data, capsys, SEATS, "regulator", "--json")
        assert code == 0 and json.loads(out)["recorded"] == 0, "a second run finds the list taken and the word written"
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


@pytest.mark.row("H16")
def test_given_new_validators_that_lie_as_well_when_readmitted_again_then_the_second_word_outranks_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        net = Network(tmp_path, areas=(1,), masters=1, contract=lambda: AreaContract(Market()))  # type: ignore[arg-type, return-value]
        station = await net.start(1, 0)
        config = config_of(net)
        master = Master(config, Log("master", "debug", net.log))
        await master.start()
        await until(lambda: 1 <= master.view.anchor_height(1) == station.height(), what="anchored")
        watching = replace(audit_config(net, "regulator", {}), areas=config.areas, data=net.folder / "watching")
        auditor = auditor_of(net, watching)
        await auditor.start()
        await until(lambda: auditor.replicas[1].height == station.height())
        last = station.height()
        await net.stop(1, 0)
        words = []
        for who, seat, height in (("1/0", "liar", last + 9), ("liar", "1/1", last + 1)):
            first = replace(HEADER, height=height)
            pair = Fork(certified(net, first, who), certified(net, replace(first, time_s=2), who))
            await say(net, master.node, "Fork", pair)
            await until(lambda: master.view.is_quarantined(1))
            code, _, err = await readmit(net, watching.data, capsys, [Validator("c1n1", key(seat).public)], "regulator")
            assert (code, err) == (0, ""), err
            words.append(open_word((net.folder / "area.word").read_bytes())[1])
            (net.folder / "area.word").unlink()
        assert [one.sequence for one in words] == [1, 2] and words[0].height == words[1].height == last + 1
        await auditor.stop()
        await master.stop()
        await net.close()
        assert not net.failures, net.failures

    asyncio.run(scenario())


def test_given_unusable_files_when_readmitting_then_one_line_names_the_file_and_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = Network(tmp_path, areas=(1,))
    config, office = configured(net), key_file(net, "regulator")
    seat = f'[[validators]]\nname = "{{}}"\npublic = "{SEATS[0].public.hex()}"\n'
    cases: list[tuple[str, Path, list[str], str]] = [
        ("", office, [], "list.toml:1: missing key validators"),
        ("validators = []\n", office, [], "list.toml:1: validators = []: at least one"),
        (seat.format("Upper"), office, [], "list.toml:2: validators[0].name"),
        (
            seat.format("a") + '[[validators]]\nname = "b"\npublic = "12"\n',
            office,
            [],
            "list.toml:6: validators[1].public",
        ),
        (seat.format("a") * 2, office, [], ": name a stands there twice"),
        (seat.format("a") + seat.format("b"), office, [], "stands there twice"),
        (seat.format("a"), tmp_path / "none", [], "none: cannot read the key"),
        (seat.format("a"), office, ["--wait", "0"], "--wait 0: from 1 to 3600"),
    ]
    for text, secret, more, reason in cases:
        listed = written(net, "list.toml", text.encode())
        files = ["--config", str(config), "--validators", str(listed), "--key", str(secret)]
        options = ["--chain", "1", "--out", str(tmp_path / "word"), *more]
        refused(capsys, ["audit", "readmit", *files, *options], reason)
