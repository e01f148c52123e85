"""Who is who in an experiment: keys, chains, accounts, cross-nodes, addresses; the same for every mode and shell."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace
from watt_chain import codec, crypto
from watt_chain.block import OutMessage
from watt_chain.contract.rules import RULES_1
from watt_chain.cross import selection
from watt_chain.genesis import AreaGenesis, Genesis, Validator, network_of, quorum
from watt_chain.ledger import Contract as LedgerContract
from watt_chain.ledger import Ledger
from watt_chain.transaction import Verify

from watt_tools.paper import certified, fullshard, joint, product
from watt_tools.paper.book import Call, Contract, KnownHeaders, Party
from watt_tools.paper.objects import Account, Handed, Part, Said, Trade

START_S: Final = 1_700_000_000
MASTERS: Final = 4
"""Masters of the main chain: f = 1, whatever the areas have (model: U5)."""
MONEY_U: Final = 10**9
QUOTA_WH: Final = 10_000
ASK_U_PER_WH: Final = 100
WH: Final = 500
LATE: Final = 1 << 40
"""Deadlines that never come; the tests of deadlines bring their own."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Shape of a network."""

    s: int
    n: int
    mode: str
    "full, step, joint, certified, product or local: which contract the chains run."
    trades: int
    "One buyer and s - 1 sellers each."
    seed: int = 0
    cross: int = 0
    "Cross-nodes of an area; 0: f + 1 (selection.seats)."
    handed: bool = True
    "joint: accounts are in the committee's hands from the beginning."


def make_key(name: str) -> crypto.PrivateKey:
    """A key that is the same in every run."""
    return crypto.PrivateKey.from_bytes(crypto.sha256(b"wattpact paper " + name.encode()))


class Network:
    """Everything that follows from a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.areas = tuple(range(1, plan.s + 1))
        self.keys: dict[int, list[crypto.PrivateKey]] = {
            area: [make_key(f"area {area} node {i}") for i in range(plan.n)] for area in self.areas
        }
        self.has_main = plan.mode in ("certified", "product")
        self.keys[certified.MAIN] = [make_key(f"main {i}") for i in range(MASTERS)]
        self.buyers = [make_key(f"buyer {plan.seed} {i}") for i in range(plan.trades)]
        self.crossers = {area: self._choose(area) for area in self.areas}
        "Indices of the cross-nodes of each area, ascending."
        if plan.mode == "joint":
            self.keys[joint.JOINT_CHAIN] = [self.keys[area][i] for area in self.areas for i in self.crossers[area]]
        self.genesis = self._found()
        self.id = network_of(self.genesis)
        self.trades = [self._trade(number) for number in range(plan.trades)]
        self.committee = self._committee()

    def _choose(self, area: int) -> tuple[int, ...]:
        """Cross-nodes by the product's own selection, from credits drawn with the seed."""
        plan = self.plan
        if plan.cross >= plan.n:
            return tuple(range(plan.n))
        chance = random.Random(f"credits {plan.seed} {area} {plan.n}")
        standings = [
            selection.Standing(
                index,
                tuple(chance.randint(50, 100) for _ in range(20)),
                tuple(1000 + 10 * epoch + chance.randint(0, 40) for epoch in range(selection.HISTORY)),
            )
            for index in range(plan.n)
        ]
        mode: selection.Mode = "paper" if plan.mode == "joint" else "ours"
        return selection.choose(standings, crypto.sha256(b"epoch %d" % plan.seed), mode)

    def _found(self) -> Genesis:
        regulator, grid, aggregator = (make_key(name).public for name in ("regulator", "grid", "aggregator"))

        def seats(chain: int, label: str) -> list[Validator]:
            return [Validator(f"{label}-node{i}", key.public) for i, key in enumerate(self.keys[chain])]

        areas = [AreaGenesis(area, f"area{area}", seats(area, f"area{area}")) for area in self.areas]
        if joint.JOINT_CHAIN in self.keys:
            areas.append(AreaGenesis(joint.JOINT_CHAIN, "joint", seats(joint.JOINT_CHAIN, "joint")))
        name = f"paper-{self.plan.mode}-{self.plan.seed}"
        rules = [codec.encode(RULES_1)]
        return Genesis(name, START_S, regulator, grid, aggregator, seats(0, "main"), areas, rules, RULES_1.version, 0)

    def _trade(self, number: int) -> Trade:
        plan = self.plan
        sellers = [
            Part(area, crypto.id8(self.seller(area, number)), WH + number % 50, ASK_U_PER_WH * (WH + number % 50))
            for area in (self.areas[1:] if plan.mode != "local" else (1,))
        ]
        buyer = crypto.id8(self.buyers[number].public)
        return Trade(number, 1, buyer, sellers, LATE, LATE)

    def seller(self, area: int, number: int) -> bytes:
        """Public key of the seller of a trade in an area. It signs nothing (its offer stands), so any 64 bytes do."""
        name = crypto.sha256(b"seller %d %d %d" % (self.plan.seed, area, number))
        return name + crypto.sha256(name)

    def parties(self, area: int) -> list[Party]:
        """Accounts of an area at the beginning: buyers in area 1, a seller for each trade in the others."""
        locked = self.plan.mode == "joint" and self.plan.handed
        found = []
        if area == 1:
            buyer = Account(MONEY_U, 0, 0, QUOTA_WH, 0, 0, locked)
            found += [Party(key.public, buyer) for key in self.buyers]
        if area != 1 or self.plan.mode == "local":
            seller = Account(0, 0, 0, QUOTA_WH, 0, ASK_U_PER_WH, locked)
            found += [Party(self.seller(area, number), seller) for number in range(self.plan.trades)]
        return found

    def clerks(self, chain: int) -> list[bytes]:
        """Who else signs on a chain: its nodes, and the buyers, who carry their trades everywhere."""
        return [*(key.public for key in self.keys[chain]), *(key.public for key in self.buyers)]

    def proofs(self, verify: Verify) -> KnownHeaders:
        """What a node has checked of other chains, one per node."""
        return KnownHeaders(self.genesis, self.id, verify)

    def _contract(self, chain: int, proofs: KnownHeaders) -> LedgerContract:
        """The contract of a chain."""
        if self.plan.mode == "product":
            return product.contract(self, chain)
        calls: Mapping[str, Call]
        parties: Sequence[Party] = ()
        if chain == certified.MAIN:
            calls = certified.BEACON_CALLS
        elif chain == joint.JOINT_CHAIN:
            calls = joint.JOINT
            if self.plan.handed:
                parties = [Party(one.public, _freed(one.account)) for area in self.areas for one in self.parties(area)]
        else:
            tables = {"certified": certified.AREA, "joint": joint.JOINT_AREA}
            calls = tables.get(self.plan.mode, fullshard.FULL)
            parties = self.parties(chain)
        return Contract(calls, parties, self.clerks(chain), proofs)

    def ledger(self, chain: int, verify: Verify, proofs: KnownHeaders | None = None) -> Ledger:
        """A ledger at height 0."""
        contract = self._contract(chain, proofs or self.proofs(verify))
        return Ledger(self.genesis, chain, contract, verify=verify)

    def _committee(self) -> joint.Committee:
        publics = tuple(key.public for key in self.keys.get(joint.JOINT_CHAIN, ()))
        parts, first = [], 0
        for area in self.areas:
            parts.append((first, len(self.crossers[area])))
            first += len(self.crossers[area])
        part_of = tuple(place for place, (_, count) in enumerate(parts) for _ in range(count))
        return joint.Committee(publics, tuple(parts), part_of)

    def seat_of(self, area: int, index: int) -> int | None:
        """Index in the joint committee of a node; None for a normal node."""
        if joint.JOINT_CHAIN not in self.keys or index not in self.crossers[area]:
            return None
        return self.committee.parts[area - 1][0] + self.crossers[area].index(index)

    def spoken(self, message: OutMessage) -> list[tuple[int, str]]:
        """(number of a trade, step) that a message tells."""
        if self.plan.mode == "product":
            return product.spoken_of(message, self.plan.s - 1)
        if message.kind == "Handed":
            return [(codec.decode(message.body, Handed).number, "handed")]
        said = codec.decode(message.body, Said)
        step = ("ended" if said.end else "committed") if message.kind == "Outcome" else message.kind.lower()
        return [(said.number, step)]

    def quorum(self, chain: int) -> int:
        """Nodes that must have a block before its chain counts as done."""
        return quorum(len(self.keys[chain]))

    # Addresses: masters, area nodes, then one client per buyer ------------------------------------------

    def address(self, chain: int, index: int) -> int:
        """Address of a node; a seat of the joint committee has that of the node that sits on it."""
        if chain == certified.MAIN:
            return index
        if chain == joint.JOINT_CHAIN:
            for area, (first, count) in zip(self.areas, self.committee.parts, strict=True):
                if first <= index < first + count:
                    return self.address(area, self.crossers[area][index - first])
        return MASTERS + (chain - 1) * self.plan.n + index

    def addresses(self, chain: int) -> list[int]:
        """Of all nodes of a chain, by index."""
        return [self.address(chain, index) for index in range(len(self.keys[chain]))]

    def client(self, number: int) -> int:
        """Address of the gateway of a trade's buyer."""
        return MASTERS + self.plan.s * self.plan.n + number


def _freed(account: Account) -> Account:
    return replace(account, locked=False)
