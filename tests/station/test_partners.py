"""Locks of partner areas reach this one: by a cross-node, by who stands in, never from an area not introduced."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace
from node_bench import Network, until
from watt_chain import codec
from watt_chain.block import OutMessage, decode_certified
from watt_chain.contract.cross_kinds import CrossLocked, CrossReady
from watt_chain.contract.cross_objects import CrossTerms, CrossTrade
from watt_chain.contract.cross_seats import CrossNodes, CrossSeat
from watt_chain.contract.event import EventSpec, State, Unit
from watt_chain.contract.kinds import Inbox
from watt_chain.contract.objects import AreaEvent, InboxCursor, KnownList, OpenEvents
from watt_chain.light import LightClient
from watt_node.channel import tls_context
from watt_node.config import EndpointSection
from watt_node.log import Log
from watt_node.remote import Remote
from watt_station import inbox as relays
from watt_station import partners as module
from watt_station.partners import Partners

SOURCE, HERE = 1, 2


class Area:
    """Stands in for the ledger of area 2: consumes Inbox transactions, and holds the state that a test gives it."""

    def __init__(self, network: Network, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(relays, "RETRY_S", 0.3)
        monkeypatch.setattr(module, "TURN_S", 0.05)
        monkeypatch.setattr(module, "LOOK_S", 0.05)
        self.values: dict[bytes, bytes] = {}
        self.submitted: list[tuple[str, object]] = []
        self.bodies: list[bytes] = []
        context = tls_context(network.tls(f"area{HERE}-node{number}"), server=False)
        ends = [
            EndpointSection(chain=SOURCE, index=index, host="127.0.0.1", port=network.port(SOURCE, index))
            for index in range(network.size(SOURCE))
        ]
        log = Log("station", "debug", network.log)

        def remote(endpoints: Sequence[EndpointSection], at: int) -> Remote:
            return Remote(endpoints, context, f"area{HERE}-node{number}", network.network, log, number + at)

        light = LightClient(network.genesis, network.network)
        self.partners = Partners(HERE, number, self, ends, remote, light, lambda: 0, self.submit, log)  # type: ignore[arg-type]

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key)

    def keys(self, prefix: bytes) -> list[bytes]:
        return [key for key in self.values if key.startswith(prefix)]

    async def submit(self, kind: str, fields: object) -> str:
        self.submitted.append((kind, fields))
        if isinstance(fields, Inbox):
            for entry in fields.entries:
                message = codec.decode(entry.message, OutMessage)
                self.values[b"inbox/1"] = codec.encode(InboxCursor(message.sequence, 1, bytes(32)))
                self.bodies.append(message.body)
            self.partners.advanced()
        return ""

    def introduce(self, network: Network) -> None:
        self.values[b"validators/1"] = codec.encode(KnownList(1, list(network.genesis.validators(SOURCE))))

    def seat(self, *numbers: int, chosen: tuple[int, ...] = ()) -> None:
        seats = [CrossSeat(number, 1) for number in numbers]
        self.values[b"crossnodes"] = codec.encode(CrossNodes(3, seats, list(chosen or numbers), [SOURCE]))

    def wait_for_a_lock(self) -> None:
        """A seller of this area waits for a buyer of the other."""
        spec = EventSpec(
            1, "peak", 900, 1, 0, 1, 2, 3, 4, 5, 5, 905, 906, [0], 0, 0, 0, [Unit(1, [1])], 0, 0, [0]
        )  # fmt: skip
        event = AreaEvent(1, State.MATCHED, False, 1, spec, bytes(32), 0, 0, [], 0, False, False, bytes(32), "")
        terms = CrossTerms(1, 1, HERE, b"seller--", SOURCE, b"buyer---", [1], [1], 0)
        self.values[b"open"] = codec.encode(OpenEvents([1], 1))
        self.values[b"event/1"] = codec.encode(event)
        self.values[b"cross/1/1"] = codec.encode(CrossTrade(terms, bytes(32), "sell", "NONE", [], 0, 0, 0, 0))


async def source_area(tmp_path: Path) -> Network:
    network = Network(tmp_path, areas=(4, 1))
    await network.start_chain(SOURCE)
    node = network.nodes[SOURCE, 0]
    await until(lambda: node.height() >= 0)
    return network


async def tell(network: Network, nonce: int, body: bytes) -> None:
    node = next(iter(network.nodes.values()))
    tx = network.transaction("ann", nonce, SOURCE, "tell", [HERE, "CrossLocked", body])
    assert await node.submit(tx) == ""


async def test_given_a_partner_when_it_is_introduced_then_its_messages_arrive_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = await source_area(tmp_path)
    area = Area(network, 0, monkeypatch)
    await tell(network, 1, b"1")
    area.partners.start()
    await asyncio.sleep(0.4)
    assert area.submitted == [] and area.partners.status()["lanes"] == {}
    area.introduce(network)
    await until(lambda: area.bodies == [b"1"])
    await tell(network, 2, b"2")
    await until(lambda: area.bodies == [b"1", b"2"])
    await area.partners.stop()
    await network.close()
    assert not network.failures


async def test_given_cross_nodes_that_withhold_when_a_trade_waits_then_a_normal_node_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ledger.md 6.6 attack 4: withholding costs T_r and nothing else."""
    monkeypatch.setattr(module, "OVERDUE_S", 0.5)
    network = await source_area(tmp_path)
    area = Area(network, 3, monkeypatch)
    area.introduce(network)
    area.seat(0, 1)
    area.partners.start()
    await tell(network, 1, b"1")
    await asyncio.sleep(0.8)
    assert area.submitted == [] and area.partners.status()["lanes"] == {}  # nobody waits for it: a normal node is idle
    area.wait_for_a_lock()
    await until(lambda: area.bodies == [b"1"])
    del area.values[b"cross/1/1"]
    await until(lambda: area.partners.status()["lanes"] == {})
    await area.partners.stop()
    await network.close()
    assert not network.failures


async def test_given_a_lock_when_the_matching_is_not_here_yet_then_it_is_kept_and_carried_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = await source_area(tmp_path)
    area = Area(network, 0, monkeypatch)
    area.introduce(network)
    area.wait_for_a_lock()
    matched = area.values[b"event/1"]
    event = codec.decode(matched, AreaEvent)
    area.values[b"event/1"] = codec.encode(replace(event, state=State.QUALIFIED))
    area.partners.start()
    body = codec.encode(CrossLocked(1, [(1, bytes(32))], []))
    await tell(network, 1, body)
    await asyncio.sleep(0.5)
    assert area.submitted == []
    area.values[b"event/1"] = matched
    area.partners.advanced()
    await until(lambda: area.bodies == [body])
    await area.partners.stop()
    await network.close()
    assert not network.failures


async def test_given_a_seat_when_messages_come_then_cross_nodes_take_turns_and_the_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(tmp_path, areas=(1, 1))
    turns = {}
    for number in (0, 1, 2):
        area = Area(network, number, monkeypatch)
        area.seat(0, 2)
        turns[number] = area.partners.turn_s(SOURCE)
    assert turns == {0: 0.05, 1: module.OVERDUE_S, 2: 0.0}  # message 1 is first the turn of seat 1 mod 2: node 2


async def test_given_a_node_that_was_drawn_when_it_follows_the_partners_then_it_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = await source_area(tmp_path)
    await tell(network, 1, b"1")
    await until(lambda: network.nodes[SOURCE, 1].height() >= 1)
    area = Area(network, 2, monkeypatch)
    area.introduce(network)
    area.seat(0, 1, chosen=(1, 2))
    area.partners.start()
    await until(lambda: [kind for kind, _ in area.submitted] == ["CrossReady"])
    ((_, fields),) = area.submitted
    assert isinstance(fields, CrossReady) and fields.event == 3
    certified = network.nodes[SOURCE, 1].block(1)
    assert certified is not None
    _, block, _, _ = decode_certified(certified)
    assert [one.header for one in fields.blocks] == [block.header]
    await asyncio.sleep(0.4)
    assert len(area.submitted) == 1
    await area.partners.stop()
    await network.close()
    assert not network.failures


async def test_given_no_endpoints_when_a_partner_is_introduced_then_the_operator_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(tmp_path, areas=(1, 1))
    area = Area(network, 0, monkeypatch)
    area.values[b"validators/9"] = codec.encode(KnownList(1, []))
    area.partners.start()
    await until(lambda: "partner-unknown" in network.log.getvalue())
    await asyncio.sleep(0.3)
    assert network.log.getvalue().count("partner-unknown") == 1
    await area.partners.stop()
