"""`wattpact station resume`: stations of a readmitted area go on under the regulator's word, as a person does it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from node_bench import Network, key, speaks, until
from watt_chain import codec
from watt_chain.block import Header, decode_certified
from watt_chain.contract import AreaContract, kinds
from watt_chain.genesis import Validator
from watt_chain.ledger import Ledger
from watt_chain.resume import Resume
from watt_chain.transaction import make_transaction
from watt_market.checker import Checker
from watt_node.config import PeerSection
from watt_node.log import Log
from watt_node.node import Node, NodeSettings
from watt_node.resumption import NAME
from watt_tools.cli import main

ANCHORED = 3
"Height of the last block that the main chain has; the old station has made more."
NEW = (1, 2)


def settings_of(net: Network, index: int) -> NodeSettings:
    """A station that joins: its key is in no genesis file."""
    made = net.settings(1, index)
    peers = [PeerSection(index=at, host="127.0.0.1", port=net.port(1, at)) for at in NEW if at != index]
    return replace(made, node=msgspec.structs.replace(made.node, joins=True), peers=peers)


def written(net: Network, settings: NodeSettings) -> str:
    sections: dict[str, dict[str, object]] = {
        "network": {"genesis": settings.network.genesis, "regulator": settings.network.regulator},
        "node": {
            "chain": 1,
            "index": settings.node.index,
            "key": settings.node.key,
            "data": settings.node.data,
            "joins": settings.node.joins,
        },
        "tls": {"ca": settings.tls.ca, "cert": settings.tls.cert, "key": settings.tls.key},
        "listen": {"host": "127.0.0.1", "port": settings.listen.port},
    }
    text = ""
    for name, values in sections.items():
        shown = {field: str(value) if isinstance(value, Path) else value for field, value in values.items()}
        text += f"[{name}]\n" + "".join(f"{field} = {json.dumps(value)}\n" for field, value in shown.items())
    path = net.folder / f"station{settings.node.index}.toml"
    path.write_text(
        text + "".join(f'[[peers]]\nindex = {p.index}\nhost = "{p.host}"\nport = {p.port}\n' for p in settings.peers)
    )
    return str(path)


def enrolment(net: Network, number: int) -> bytes:
    plug = kinds.EnrolPlug(key(f"plug{number}").public, "plain", 3680)
    fields = kinds.Enrol(key(f"home{number}").public, 0, [plug], False, 4000, "h25", False)
    return make_transaction(key("regulator"), net.network, "Enrol", 1, number, fields)


def word(
    net: Network, previous: bytes, nonce: int, who: str = "regulator", kind: str = "Resume", **other: object
) -> bytes:
    seats = [Validator(f"c1n{at}", key(f"1/{at}").public) for at in NEW]
    fields = msgspec.structs.replace(Resume(1, ANCHORED + 1, previous, seats), **other)
    return make_transaction(key(who), net.network, kind, 1, nonce, fields)


async def start(net: Network, index: int) -> Node:
    node = Node(settings_of(net, index), AreaContract(Checker()), net.clock, Log("bench", "debug", net.log))
    await node.start()
    net.nodes[1, index] = node
    return node


def test_given_a_readmitted_area_when_new_stations_are_told_the_word_then_they_go_on_and_the_old_one_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = Network(tmp_path, areas=(1,), contract=lambda: AreaContract(Checker()))  # type: ignore[arg-type, return-value]

    async def old_list() -> Node:
        station = await net.start(1, 0)
        for number in range(1, ANCHORED + 3):
            await station.submit(enrolment(net, number))
            await until(lambda number=number: station.height() >= number)  # type: ignore[misc]
        await net.close()
        return station

    old = asyncio.run(old_list())
    ledger = Ledger(net.genesis, 1, AreaContract(Checker()))
    for height in range(1, ANCHORED + 1):
        ledger.replay(old.ledger.certified(height) or b"")
    previous, nonce = ledger.head.block_hash, ledger.next_nonce(key("regulator").public)
    old_config = written(net, net.settings(1, 0))
    chain, told = str(tmp_path / "area.blocks"), tmp_path / "word"
    assert main(["station", "export", "--config", old_config, "--out", chain, "--to", str(ANCHORED)]) == 0
    assert f"heights 1 to {ANCHORED}" in capsys.readouterr().out
    configs = [written(net, settings_of(net, at)) for at in NEW]
    for config in configs:
        assert main(["station", "import", "--config", config, chain]) == 0
    for data, reason in (
        (word(net, bytes(32), nonce), "previous: the last block here is not the one"),
        (
            word(net, previous, nonce, height=9),
            f"height: it is for another height than the one after block {ANCHORED} here",
        ),
        (word(net, previous, nonce + 1), "nonce: "),
        (word(net, previous, 1, who="grid"), "role: the regulator has not signed it"),
        (word(net, previous, nonce, kind="Enrol"), "unknown-kind: "),
        (word(net, previous, nonce, validators=[]), "size: the list in it breaks a rule"),
        (word(net, previous, nonce)[:-1], "tx-form: it is no transaction"),
        (bytes(2 << 20), "tx-form: it is no transaction"),
    ):
        told.write_bytes(data)
        capsys.readouterr()
        assert main(["station", "resume", "--config", configs[0], str(told)]) == 1
        shown = capsys.readouterr().err
        assert reason in shown and str(told) in shown and shown.count("\n") == 1, shown
    told.write_bytes(word(net, previous, nonce))
    assert main(["station", "resume", "--config", old_config, str(told)]) == 1  # it has blocks above
    assert "height: it is for another height than the one after" in capsys.readouterr().err
    for config in configs:
        assert main(["station", "resume", "--config", config, str(told)]) == 0
        assert f"height {ANCHORED + 1} is made by c1n1, c1n2; this node is one of them" in capsys.readouterr().out

    def turn(node: Node) -> int:
        return node.ledger.next_nonce(key("regulator").public)

    async def enrol(at: Node, seen_by: list[Node]) -> None:
        """One more call, until it is final; blocks come for the nodes' own calls too."""
        nonce = turn(at)
        assert await at.submit(enrolment(net, nonce)) == ""
        await until(lambda: all(turn(node) > nonce for node in seen_by))

    async def new_list() -> None:
        nodes = [await start(net, at) for at in NEW]
        await until(lambda: all(node.height() > ANCHORED for node in nodes))
        first = decode_certified(nodes[0].ledger.certified(ANCHORED + 1) or b"")[1]
        assert first.transactions[0] == told.read_bytes()
        theirs = decode_certified(old.ledger.certified(ANCHORED + 1) or b"")[1]
        assert first.header != theirs.header and codec.decode(first.header, Header).previous == previous
        await enrol(nodes[0], nodes)
        await net.stop(1, 1)
        again = await start(net, 1)  # the word is over, and nothing comes of the file
        assert (again.data / NAME).exists() and not again.ledger.resuming
        await until(lambda: speaks(again) and speaks(net.nodes[1, 2]))
        await enrol(again, [again])
        await net.close()
        assert not net.failures, net.failures

    asyncio.run(new_list())
