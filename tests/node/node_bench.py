"""A small network for the tests of the shell kit: a toy contract, keys, genesis, TLS and nodes in one event loop."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from watt_chain import codec, crypto
from watt_chain.contract.rules import RULES_1
from watt_chain.election import rotation
from watt_chain.genesis import AreaGenesis, Genesis, Seat, Validator, open_genesis, sign_genesis
from watt_chain.ledger import BlockContext
from watt_chain.state import State, StateReader
from watt_chain.transaction import DecodedTransaction, make_transaction
from watt_node.clock import ProtocolClock, machine_ms
from watt_node.config import ListenSection, NetworkSection, NodeSection, PeerSection, TlsSection
from watt_node.log import Log
from watt_node.node import Node, NodeSettings
from watt_tools.certificates import Authority

PROTOCOL_START_S = 1_780_000_000


def key(name: str) -> crypto.PrivateKey:
    """A key that is the same in every run."""
    return crypto.PrivateKey(crypto.sha256(name.encode()))


class Toy:
    """Contract of the bench: "put" writes a key, "tell" sends a message to another chain, "no" is refused."""

    def genesis(self, state: State, genesis: Genesis, chain: int) -> None:
        state.put(b"born", codec.encode(chain))

    def begin(self, state: State, context: BlockContext) -> None:
        pass

    def execute(self, state: State, context: BlockContext, tx: DecodedTransaction) -> str:
        if tx.kind == "put":
            name, value = codec.decode(tx.fields_raw, list[bytes])
            state.put(name, value)
            return ""
        if tx.kind == "tell":
            target, kind, body = codec.decode(tx.fields_raw, tuple[int, str, bytes])
            state.emit(target, kind, body)
            return ""
        return "no-such-kind"

    def next_nonce(self, state: StateReader, signer: bytes) -> int:
        raw = state.get(b"nonce/" + crypto.id8(signer))
        return 1 + (codec.decode(raw, int) if raw else 0)

    def consume_nonce(self, state: State, signer: bytes, nonce: int) -> bool:
        if nonce != self.next_nonce(state, signer):
            return False
        state.put(b"nonce/" + crypto.id8(signer), codec.encode(nonce))
        return True

    def resume(self, state: State, context: BlockContext, previous: bytes, tx: DecodedTransaction) -> str:
        return "unknown-kind"

    def rules_version(self, state: StateReader) -> int:
        return 1

    def inbox_cursor(self, state: StateReader) -> int:
        return 0

    def order(self, state: StateReader, context: BlockContext) -> tuple[int, ...]:
        return rotation(context.height, len(context.validators))

    def seats(self, state: StateReader) -> tuple[Seat, ...] | None:
        return None


@dataclass
class Network:
    """Keys, genesis and certificates of a network in one folder; starts and stops its nodes."""

    folder: Path
    areas: tuple[int, ...] = (4,)
    masters: int = 1
    nodes: dict[tuple[int, int], Node] = field(default_factory=dict)
    ports: dict[tuple[int, int], int] = field(default_factory=dict)
    log: io.StringIO = field(default_factory=io.StringIO)
    failures: list[BaseException] = field(default_factory=list)
    contract: Callable[[], Toy] = Toy

    def __post_init__(self) -> None:
        regulator = key("regulator")
        areas = [
            AreaGenesis(chain, f"area{chain}", self._validators(chain, n))
            for chain, n in enumerate(self.areas, start=1)
        ]
        self.genesis = Genesis(
            "bench", PROTOCOL_START_S, regulator.public, key("grid").public, key("aggregator").public,
            self._validators(0, self.masters), areas, [codec.encode(RULES_1)], 1, 10**9,
        )  # fmt: skip
        data = sign_genesis(self.genesis, regulator)
        self.genesis_path = self.folder / "genesis.bin"
        self.genesis_path.write_bytes(data)
        self.network = open_genesis(data)[1]
        self.regulator = regulator.public.hex()
        (self.folder / "tls").mkdir()
        self.authority = Authority(self.folder / "tls", "bench")
        self.clock = ProtocolClock(machine_ms(), PROTOCOL_START_S + 60, 10)

    def _validators(self, chain: int, n: int) -> list[Validator]:
        return [Validator(f"c{chain}n{index}", key(f"{chain}/{index}").public) for index in range(n)]

    def size(self, chain: int) -> int:
        return self.masters if chain == 0 else self.areas[chain - 1]

    def port(self, chain: int, index: int) -> int:
        """A port that was free a moment ago, the same for every start of the node."""
        if (chain, index) not in self.ports:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.ports[chain, index] = probe.getsockname()[1]
        return self.ports[chain, index]

    def tls(self, name: str) -> TlsSection:
        certificate, private = self.authority.issue(name)
        return TlsSection(ca=self.authority.ca_path, cert=certificate, key=private)

    def settings(self, chain: int, index: int) -> NodeSettings:
        name = f"main-node{index}" if chain == 0 else f"area{chain}-node{index}"
        key_path = self.folder / f"{name}.key"
        key_path.touch(mode=0o600)
        key_path.write_text(key(f"{chain}/{index}").to_text())
        peers = [
            PeerSection(index=other, host="127.0.0.1", port=self.port(chain, other))
            for other in range(self.size(chain))
            if other != index
        ]
        return NodeSettings(
            NetworkSection(genesis=self.genesis_path, regulator=self.regulator),
            NodeSection(
                chain=chain, index=index, key=key_path, data=self.folder / f"{name}.data", batch_ms=20, timeout_ms=1000
            ),
            self.tls(name),
            ListenSection(host="127.0.0.1", port=self.port(chain, index)),
            peers,
        )

    async def start(self, chain: int, index: int) -> Node:
        asyncio.get_running_loop().set_exception_handler(self._failed)
        node = Node(self.settings(chain, index), self.contract(), self.clock, Log("bench", "debug", self.log))
        await node.start()
        self.nodes[chain, index] = node
        return node

    async def start_chain(self, chain: int) -> list[Node]:
        nodes = [await self.start(chain, index) for index in range(self.size(chain))]
        # A validator that hears of a block before it was founded makes one more block to end its doubt (4.7.7).
        await until(lambda: all(speaks(node) for node in nodes), what="everybody has heard where the others are")
        return nodes

    async def stop(self, chain: int, index: int) -> None:
        await self.nodes.pop((chain, index)).stop()

    async def close(self) -> None:
        for place in list(self.nodes):
            await self.stop(*place)

    def transaction(self, who: str, nonce: int, chain: int = 1, kind: str = "put", fields: object = None) -> bytes:
        body = [b"key/" + who.encode(), b"%d" % nonce] if fields is None else fields
        return make_transaction(key(who), self.network, kind, chain, nonce, body)

    def _failed(self, _: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        self.failures.append(error if isinstance(error, BaseException) else RuntimeError(str(context)))


def speaks(node: Node) -> bool:
    """Whether a validator signs: it trusts its memory and has heard enough others."""
    replica = node.status()["replica"]
    return isinstance(replica, dict) and replica.get("silent") == ""


async def until(condition: Callable[[], bool], seconds: float = 20.0, what: str = "") -> None:
    """Wait for a condition; the deadline only ends a hopeless test."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
