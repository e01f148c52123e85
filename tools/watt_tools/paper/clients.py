"""The gateways of buyers: each drives one trade through the areas, as its mode wants it.

A client passes proofs on without checking them: whoever acts on one checks it, and a wrong one costs a refusal.
"""

from __future__ import annotations

from msgspec import Struct
from watt_chain import codec
from watt_chain.block import OutMessage
from watt_chain.transaction import make_transaction

from watt_tools.paper import product
from watt_tools.paper.actors import RELAY_MS, Actor, Kind, Settings
from watt_tools.paper.joint import JOINT_CHAIN
from watt_tools.paper.network import Network
from watt_tools.paper.objects import AccountCall, Bundle, ProvenCall, StepCall, TradeCall, trade_id


class Client(Actor):
    """What all have: a key, a nonce for every chain, and what the chains have said about the trade."""

    def __init__(self, network: Network, number: int, settings: Settings) -> None:
        super().__init__(network.client(number))
        self.network = network
        self.trade = network.trades[number]
        self.id = trade_id(self.trade)
        self._key = network.buyers[number]
        self._nonces: dict[int, int] = {}
        self.said: dict[tuple[int, str], Bundle] = {}
        "(chain, kind of message) -> its proof."
        self._heard_ms: int | None = None
        "When something last happened; None before the start."

    def start(self, now_ms: int) -> None:
        """Submit the trade."""
        self._heard_ms = now_ms

    def receive(self, sender: int, kind: int, payload: bytes, now_ms: int) -> None:
        """Certified messages from a node; the first of each kind counts."""
        self._heard_ms = now_ms
        bundle = codec.decode(payload, Bundle)
        message = codec.decode(bundle.entries[0].message, OutMessage)
        name = bundle.chain, message.kind
        if name not in self.said:
            self.said[name] = bundle
            self.hear(bundle, message, payload)

    def hear(self, bundle: Bundle, message: OutMessage, payload: bytes) -> None:
        """A message that is new."""

    def awaited(self) -> list[int]:
        """Areas that have not answered what was asked of them last."""
        return []

    def deadline_ms(self) -> int | None:
        """When to ask all nodes, because those whose turn it was have not answered."""
        return self._heard_ms + RELAY_MS if self._heard_ms is not None and self.awaited() else None

    def expire(self, now_ms: int) -> None:
        """As deadline_ms."""
        due = self.deadline_ms()
        if due is not None and now_ms >= due:
            self._heard_ms = now_ms
            for chain in self.awaited():
                self.send(self.network.addresses(chain), Kind.ASK, self.trade.number.to_bytes(4, "big"))

    def unheard(self, *kinds: str) -> list[int]:
        """Areas that have said none of these."""
        chains = dict.fromkeys(self.trade.chains)
        return [chain for chain in chains if not any((chain, kind) in self.said for kind in kinds)]

    def submit(self, chain: int, kind: str, fields: Struct) -> None:
        """Sign a transaction and send it to every node of a chain."""
        self._nonces[chain] = self._nonces.get(chain, 0) + 1
        tx = make_transaction(self._key, self.network.id, kind, chain, self._nonces[chain], fields)
        self.send(self.network.addresses(chain), Kind.JOINT_SUBMIT if chain == JOINT_CHAIN else Kind.SUBMIT, tx)

    def proofs_of(self, kind: str, but: int) -> list[Bundle]:
        """What the other areas said, in the order of the trade."""
        return [self.said[(chain, kind)] for chain in dict.fromkeys(self.trade.chains) if chain != but]


class Parallel(Client):
    """Two-phase commit, all areas at once."""

    def awaited(self) -> list[int]:
        """Those of the phase; after a refusal it is over."""
        refused = any(kind == "Refused" for _, kind in self.said)
        return self.unheard("Prepared", "Refused") or ([] if refused else self.unheard("Committed"))

    def start(self, now_ms: int) -> None:
        """First phase."""
        super().start(now_ms)
        for chain in self.trade.chains:
            self.submit(chain, "Prepare", TradeCall(self.trade))

    def hear(self, bundle: Bundle, message: OutMessage, payload: bytes) -> None:
        """Second phase, once all have answered."""
        answered = [chain for chain in self.trade.chains if (chain, "Prepared") in self.said]
        refusal = next((self.said[one] for one in self.said if one[1] == "Refused"), None)
        refused = [chain for chain in self.trade.chains if (chain, "Refused") in self.said]
        if message.kind == "Committed" or len(answered) + len(refused) < len(self.trade.chains):
            return
        for chain in answered:
            if refusal is not None:
                self.submit(chain, "Abort", ProvenCall(self.id, [refusal]))
            else:
                self.submit(chain, "Commit", ProvenCall(self.id, self.proofs_of("Prepared", chain)))


class Sequential(Client):
    """Two-phase commit, one area after the other in both phases."""

    def awaited(self) -> list[int]:
        """The area whose turn it is; after a refusal it is over."""
        refused = any(kind == "Refused" for _, kind in self.said)
        return [] if refused else (self.unheard("Prepared") or self.unheard("Committed"))[:1]

    def start(self, now_ms: int) -> None:
        """The first area."""
        super().start(now_ms)
        self.submit(self.trade.chains[0], "Prepare", TradeCall(self.trade))

    def hear(self, bundle: Bundle, message: OutMessage, payload: bytes) -> None:
        """On to the next area, or back through those that are prepared."""
        chains = self.trade.chains
        if message.kind == "Refused":
            for chain in chains[: chains.index(bundle.chain)]:
                self.submit(chain, "Abort", ProvenCall(self.id, [bundle]))
            return
        at = chains.index(bundle.chain) + 1
        if message.kind == "Prepared" and at < len(chains):
            self.submit(chains[at], "Prepare", TradeCall(self.trade))
        elif at < len(chains) or message.kind == "Prepared":
            chain = chains[at % len(chains)]
            self.submit(chain, "Commit", ProvenCall(self.id, self.proofs_of("Prepared", chain)))


class LastDecides(Sequential):
    """As Sequential, but the last area that is asked prepares and commits at once: one consensus fewer."""

    def awaited(self) -> list[int]:
        """The area whose turn it is; after a refusal it is over."""
        if any(kind == "Refused" for _, kind in self.said):
            return []
        last = self.trade.chains[-1]
        asked = [chain for chain in self.unheard("Prepared") if chain != last]
        done = self.unheard("Committed")
        return (asked or ([last] if last in done else done))[:1]

    def hear(self, bundle: Bundle, message: OutMessage, payload: bytes) -> None:
        """On to the next area; back from the last, which has decided."""
        chains = self.trade.chains
        at = chains.index(bundle.chain) + 1
        if message.kind == "Prepared":
            if at == len(chains) - 1:
                proofs = self.proofs_of("Prepared", chains[at])
                self.submit(chains[at], "Conclude", StepCall(self.trade, proofs))
            elif at < len(chains):
                self.submit(chains[at], "Prepare", TradeCall(self.trade))
        elif message.kind == "Committed":
            chain = chains[at % len(chains)]
            if chain != chains[-1]:
                self.submit(chain, "Commit", ProvenCall(self.id, self.proofs_of("Prepared", chain)))
        else:
            super().hear(bundle, message, payload)


class Stepping(Client):
    """One consensus per area, one after the other, each with effect at once; not atomic."""

    def awaited(self) -> list[int]:
        """The area whose turn it is."""
        return self.unheard("Committed")[:1]

    def start(self, now_ms: int) -> None:
        """The first area."""
        super().start(now_ms)
        self.submit(self.trade.chains[0], "Step", StepCall(self.trade, []))

    def hear(self, bundle: Bundle, message: OutMessage, payload: bytes) -> None:
        """The next area."""
        at = self.trade.chains.index(bundle.chain) + 1
        if at < len(self.trade.chains):
            self.submit(self.trade.chains[at], "Step", StepCall(self.trade, [bundle]))


class Local(Client):
    """A trade inside one area."""

    def start(self, now_ms: int) -> None:
        """The one step."""
        self.submit(self.trade.chain, "Local", TradeCall(self.trade))


class Joint(Client):
    """The paper's partial sharding: every party asks at the cross-nodes of its area (H14), so all of them hear it."""

    def start(self, now_ms: int) -> None:
        """Ask the committee; when the accounts are not in its hands yet, have them handed over first."""
        super().start(now_ms)
        if self.network.plan.handed:
            self.submit(JOINT_CHAIN, "JointTrade", TradeCall(self.trade))
            return
        number = self.trade.number
        self.submit(self.trade.chain, "LockAccount", AccountCall(self.trade.buyer, number))
        for part in self.trade.parts:
            self.submit(part.chain, "LockAccount", AccountCall(part.seller, number))

    def awaited(self) -> list[int]:
        """Areas that have not handed over their accounts."""
        return [] if self.network.plan.handed else self.unheard("Handed")

    def hear(self, bundle: Bundle, message: OutMessage, payload: bytes) -> None:
        """All accounts are handed over."""
        if message.kind == "Handed" and all((chain, "Handed") in self.said for chain in self.trade.chains):
            self.submit(JOINT_CHAIN, "JointTrade", TradeCall(self.trade))


class Product(Client):
    """Ours with the product's contract: one `CrossOp` names all pairs of the trade."""

    def start(self, now_ms: int) -> None:
        """All that is to be signed."""
        self.submit(self.trade.chain, "CrossOp", product.call_of(self.trade))


class Certified(Client):
    """Ours: the buyer locks; the nodes do the rest."""

    def __init__(self, network: Network, number: int, settings: Settings) -> None:
        super().__init__(network, number, settings)
        self._carried: dict[bytes, None] = {}

    def start(self, now_ms: int) -> None:
        """All that is to be signed."""
        self.submit(self.trade.chain, "Lock", TradeCall(self.trade))

    def receive(self, sender: int, kind: int, payload: bytes, now_ms: int) -> None:
        """Without overlap the client is the carrier: each bundle goes on to the nodes of its target, once."""
        target = codec.decode(codec.decode(payload, Bundle).entries[0].message, OutMessage).target_chain
        if payload not in self._carried:
            self._carried[payload] = None
            self.send(self.network.addresses(target), Kind.BUNDLE, payload)
