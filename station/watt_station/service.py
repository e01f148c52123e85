"""`wattpact station run`: one validator of an area's chain, with its MQTT intake and its inbox relay."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated

import msgspec
from watt_chain.contract import AreaContract
from watt_chain.contract.kinds import Inbox
from watt_chain.genesis import MAIN_CHAIN, faults_tolerated
from watt_chain.ledger import AppliedBlock, Contract
from watt_chain.light import LightClient
from watt_market.checker import Checker
from watt_node.clock import ProtocolClock
from watt_node.config import (
    ClockSection,
    EndpointSection,
    FieldProblem,
    ListenSection,
    LogSection,
    MqttSection,
    NetworkSection,
    NodeSection,
    PeerSection,
    Section,
    TlsSection,
    load,
)
from watt_node.log import Log
from watt_node.names import chain_name
from watt_node.node import Node, NodeSettings
from watt_node.probe import Prober
from watt_node.remote import Remote
from watt_node.service import Service, run_service

from watt_station.inbox import TURN_S, InboxRelay, prover
from watt_station.intake import Intake
from watt_station.mqtt import Broker
from watt_station.partners import Partners
from watt_station.replies import Replies

NOTICE_S = 5.0
"""Period of the repeated event notice: a gateway that was off knows the event again within it."""


class StationConfig(Section, frozen=True, kw_only=True):
    """The whole file."""

    network: NetworkSection
    node: NodeSection
    tls: TlsSection
    listen: ListenSection
    mqtt: MqttSection | None = None
    peers: Annotated[list[PeerSection], msgspec.Meta(max_length=63)] = msgspec.field(default_factory=list)
    main: Annotated[list[EndpointSection], msgspec.Meta(max_length=64)] = msgspec.field(default_factory=list)
    areas: Annotated[list[EndpointSection], msgspec.Meta(max_length=4096)] = msgspec.field(default_factory=list)
    "Stations of areas that this one may trade with; without them trades with those areas end without effect."
    clock: ClockSection = ClockSection()
    log: LogSection = LogSection()

    def __post_init__(self) -> None:
        if self.node.chain == 0:
            raise FieldProblem("node", "chain 0 is the main chain; a station serves an area (1 or more)")
        if any(endpoint.chain != 0 for endpoint in self.main):
            raise FieldProblem("main", "these endpoints are of the main chain (0)")
        if any(endpoint.chain in (0, self.node.chain) for endpoint in self.areas):
            raise FieldProblem("areas", "these endpoints are of other areas than this one")


class Station:
    """The daemon: a node of an area, the broker, the relay."""

    def __init__(self, config: StationConfig, log: Log, contract: Contract | None = None) -> None:
        """`contract` replaces the area contract in tests."""
        self._log = log
        clock = ProtocolClock(config.clock.machine_start_ms, config.clock.protocol_start_s, config.clock.speed)
        settings = NodeSettings(config.network, config.node, config.tls, config.listen, config.peers)
        self.node = Node(settings, contract or AreaContract(Checker()), clock, log)
        node = self.node
        area = chain_name(node.chain)
        self.replies = Replies(
            node, node.ledger.state, node.network, node.chain, node.index, self._publish, lambda: node.ledger.numbers
        )
        self.intake = Intake(node, area, node.index, self.replies, log.bind("intake"))
        self.broker: Broker | None = None
        if config.mqtt is not None:
            name = f"wattpact-{node.name}"
            self.broker = Broker(config.mqtt, name, self.intake.filters(), self.intake.handle, log.bind("mqtt"))
        light = LightClient(node.genesis, node.network)
        self.relay: InboxRelay | None = None
        if config.main:
            # f + 1 streams, each with all masters to fall back on: one that withholds cannot hold up the area.
            streams = min(len(config.main), faults_tolerated(len(node.genesis.main)) + 1)
            endpoints = sorted(config.main, key=lambda endpoint: endpoint.index)
            start = node.index * streams
            remotes = [
                Remote(endpoints, node.peers.client_context, node.name, node.network, log.bind("main"), start + at)
                for at in range(streams)
            ]
            self.relay = InboxRelay(
                node.chain,
                remotes,
                prover(node.ledger.state, light, MAIN_CHAIN),
                self._cursor,
                lambda: self._turn() * TURN_S,
                self._submit_inbox,
                log.bind("inbox"),
            )
        self.partners = Partners(
            node.chain,
            node.index,
            node.ledger.state,
            config.areas,
            lambda ends, at: Remote(
                ends, node.peers.client_context, node.name, node.network, log.bind("partner"), node.index + at
            ),
            light,
            self._turn,
            node.submit_own,
            log.bind("partner"),
        )
        near = [EndpointSection(chain=node.chain, index=p.index, host=p.host, port=p.port) for p in config.peers]
        self.prober = Prober(near, node.peers.client_context, node.name, node.network)
        node.peers.figures = lambda: (self.prober.one_way_us([node.chain]), 0)
        node.on_commit(self._committed)
        self._notices: asyncio.Task[None] | None = None

    @property
    def folder(self) -> Path:
        """The data folder."""
        return self.node.data

    async def start(self) -> None:
        """Node first: nothing is taken in before the ledger is complete."""
        await self.node.start()
        self.replies.remember_events()
        self.prober.start()
        if self.broker is not None:
            self.broker.start()
            self._notices = asyncio.ensure_future(self._repeat_notices())
        if self.relay is not None:
            self.relay.start()
        self.partners.start()

    async def stop(self) -> None:
        """In the opposite order."""
        if self._notices is not None:
            self._notices.cancel()
        await self.partners.stop()
        if self.relay is not None:
            await self.relay.stop()
        if self.broker is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.broker.stop)
        await self.intake.stop()
        await self.prober.stop()
        await self.node.stop()

    def status(self) -> dict[str, object]:
        """What `status.json` shows."""
        status = self.node.status()
        status["intake"] = dict(sorted(self.intake.counters.items()))
        status["replies"] = dict(self.replies.counters)
        status["x_us"], status["y_us"] = self.node.peers.figures()
        if self.broker is not None:
            status["broker"] = {"connected": self.broker.connected, **self.broker.counters}
        if self.relay is not None:
            status["inbox"] = self.relay.status()
        status["partners"] = self.partners.status()
        return status

    def _publish(self, topic: str, payload: bytes) -> bool:
        return self.broker is not None and self.broker.publish(topic, payload)

    def _committed(self, _: bytes, applied: AppliedBlock) -> None:
        self.replies.committed(applied)
        if self.relay is not None:
            self.relay.advanced()
        self.partners.advanced()

    def _cursor(self) -> int:
        return self.node.ledger.contract.inbox_cursor(self.node.ledger.state)

    def _turn(self) -> int:
        """How many live stations come before this one, counted from the leader of the next height."""
        node, numbers = self.node, self.node.ledger.numbers
        n = len(numbers)
        leader = node.ledger.schedule.leader(node.height() + 1, 0)
        if node.index not in numbers:
            return n  # it only follows, and what it signed would not be taken
        live = {numbers.index(number) for number in (node.index, *node.peers.connected()) if number in numbers}
        return sum((index - leader) % n < (numbers.index(node.index) - leader) % n for index in live)

    def _submit_inbox(self, inbox: Inbox) -> Awaitable[str]:
        return self.node.submit_own("Inbox", inbox)

    async def _repeat_notices(self) -> None:
        """The live station with the lowest index repeats the present events."""
        while True:
            await asyncio.sleep(NOTICE_S)
            if self.node.index <= min(self.node.peers.connected(), default=self.node.index):
                self.replies.repeat_notice()


def run(config_path: Path) -> int:
    """Run a station in the foreground until SIGTERM; returns the exit code."""

    def create() -> tuple[Service, Log]:
        config = load(config_path, StationConfig)
        log = Log("station", config.log.level)
        return Station(config, log), log

    return run_service("station", create)
