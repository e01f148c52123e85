"""The inbox relay against real masters over TLS: consecutive, once, past a master that lies or is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from node_bench import Network, until
from watt_chain.block import OutMessage
from watt_chain.codec import decode
from watt_chain.contract.kinds import Inbox
from watt_chain.light import LightClient, ProofError
from watt_chain.state import State
from watt_chain.tree import StateTree
from watt_node.channel import tls_context
from watt_node.config import EndpointSection
from watt_node.log import Log
from watt_node.remote import Remote
from watt_station import inbox as module
from watt_station.inbox import InboxRelay, prover


class Area:
    """Stands in for the area's ledger: consumes Inbox transactions in order."""

    def __init__(self, network: Network, masters: list[int], monkeypatch: pytest.MonkeyPatch, turn: int = 0) -> None:
        monkeypatch.setattr(module, "TURN_S", 0.05)
        monkeypatch.setattr(module, "RETRY_S", 0.3)
        context = tls_context(network.tls("area1-node0"), server=False)
        endpoints = [
            EndpointSection(chain=0, index=index, host="127.0.0.1", port=network.port(0, index)) for index in masters
        ]
        log = Log("relay", "debug", network.log)
        remotes = [Remote(endpoints, context, "area1-node0", network.network, log, first) for first in range(2)]
        self.cursor = 0
        self.bodies: list[bytes] = []
        self.submitted: list[Inbox] = []
        self.deaf = False
        light = LightClient(network.genesis, network.network)
        prove = prover(State(StateTree(), 1), light, 0)
        self.relay = InboxRelay(1, remotes, prove, lambda: self.cursor, lambda: turn * module.TURN_S, self.submit, log)

    async def submit(self, inbox: Inbox) -> str:
        self.submitted.append(inbox)
        if not self.deaf:
            self.consume(inbox)
        return ""

    def consume(self, inbox: Inbox) -> None:
        for entry in inbox.entries:
            message = decode(entry.message, OutMessage)
            assert message.sequence == self.cursor + 1
            self.cursor = message.sequence
            self.bodies.append(message.body)
        self.relay.advanced()


async def tell(network: Network, nonce: int, target: int, body: bytes) -> None:
    node = next(node for (chain, _), node in network.nodes.items() if chain == 0)
    assert await node.submit(network.transaction("ann", nonce, 0, "tell", [target, "Told", body])) == ""


async def test_given_messages_of_the_main_chain_when_relayed_then_the_area_consumes_each_once_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(tmp_path, masters=4)
    await network.start_chain(0)
    await tell(network, 1, 1, b"1")
    area = Area(network, [0, 1, 2, 3], monkeypatch)
    area.relay.start()
    await until(lambda: area.bodies == [b"1"])
    for nonce in range(2, 10):
        await tell(network, nonce, 1 + nonce % 2, b"%d" % nonce)  # half of them for another area
    await until(lambda: area.bodies == [b"1", b"2", b"4", b"6", b"8"])
    assert area.relay.status()["waiting"] == 0
    await area.relay.stop()
    await network.close()
    assert not network.failures


async def test_given_masters_that_stop_when_one_is_left_then_messages_still_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(tmp_path, masters=4)
    await network.start_chain(0)
    area = Area(network, [0, 1], monkeypatch)
    area.relay.start()
    await until(lambda: area.relay.status()["connected"] == ["main-node0", "main-node1"])
    await network.stop(0, 0)
    await tell(network, 1, 1, b"1")
    await until(lambda: area.bodies == [b"1"])
    await area.relay.stop()
    await network.close()


async def test_given_a_submission_without_a_block_when_time_passes_then_it_is_repeated_until_the_cursor_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(tmp_path, masters=1)
    await network.start_chain(0)
    area = Area(network, [0], monkeypatch)
    area.deaf = True
    area.relay.start()
    await tell(network, 1, 1, b"1")
    await until(lambda: len(area.submitted) >= 2)
    area.deaf = False
    await until(lambda: area.bodies == [b"1"])
    count = len(area.submitted)
    await asyncio.sleep(0.5)
    assert len(area.submitted) == count
    await area.relay.stop()
    await network.close()


async def test_given_another_station_whose_turn_comes_first_when_it_delivers_then_this_one_stays_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(tmp_path, masters=1)
    await network.start_chain(0)
    area = Area(network, [0], monkeypatch, turn=1)
    monkeypatch.setattr(module, "TURN_S", 30.0)
    area.relay.start()
    await tell(network, 1, 1, b"1")
    await until(lambda: area.relay._next() is not None)
    inbox = area.relay._next()
    assert inbox is not None
    area.consume(inbox)
    await until(lambda: area.relay.status()["waiting"] == 0)
    assert area.submitted == []
    await area.relay.stop()
    await network.close()


async def test_given_a_batch_that_is_forged_when_it_arrives_then_it_is_counted_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(tmp_path, masters=1)
    (master,) = await network.start_chain(0)
    await tell(network, 1, 1, b"1")
    await tell(network, 2, 2, b"for another area")
    await until(lambda: bool(master.messages(1, 1)) and bool(master.messages(2, 1)))
    area = Area(network, [0], monkeypatch)
    ((_, good),) = master.messages(1, 1)
    ((_, other),) = master.messages(2, 1)
    for forged in (good.replace(b"Told", b"Gold"), other, good[:-1]):
        with pytest.raises(Exception) as caught:
            area.relay._take(forged)
        assert isinstance(caught.value, ProofError | module.DecodeError)
    assert area.relay._next() is None
    area.relay._take(good)
    assert area.relay._next() is not None
    await network.close()
