"""The modes of the experiment: which contract the chains run, who drives a trade, what a node is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from watt_chain.transaction import Verify

from watt_tools.paper import clients
from watt_tools.paper.actors import Actor, AreaNode, Settings
from watt_tools.paper.certified import MAIN
from watt_tools.paper.crossnode import JointNode
from watt_tools.paper.network import Network, Plan
from watt_tools.paper.relay import CertifiedNode, Master, ProductNode


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to trade across areas."""

    name: str
    contract: str
    "Plan.mode."
    client: type[clients.Client]
    text: str
    cross: int = 0
    handed: bool = True
    overlap: bool = True


ALL: Final = 64
"""More cross-nodes than an area has nodes: all of them are."""
MODES: Final = {
    mode.name: mode
    for mode in (
        Mode("full-seq", "full", clients.Sequential, "full sharding, two phases, one area after the other"),
        Mode("full-par", "full", clients.Parallel, "full sharding, two phases, all areas at once"),
        Mode("full-last", "full", clients.LastDecides, "full-seq in which the last area prepares and commits at once"),
        Mode("paper", "joint", clients.Joint, "partial sharding as printed, f + 1 cross-nodes an area"),
        Mode("paper-all", "joint", clients.Joint, "as printed, every node is a cross-node", cross=ALL),
        Mode("paper-lock", "joint", clients.Joint, "as printed, accounts locked for each trade", handed=False),
        Mode("ours", "certified", clients.Certified, "certified receipts, carried by cross-nodes"),
        Mode("ours-client", "certified", clients.Certified, "certified receipts, carried by the client", overlap=False),
        Mode("ours-product", "product", clients.Product, "ours with the product's own contracts, s up to 9"),
        Mode("step", "step", clients.Stepping, "one consensus an area, one after the other, not atomic"),
        Mode("local", "local", clients.Local, "a trade inside one area"),
    )
}


def plan_of(mode: Mode, s: int, n: int, trades: int, seed: int) -> Plan:
    """The network of a cell."""
    return Plan(s, n, mode.contract, trades, seed, mode.cross, mode.handed)


def settings_of(mode: Mode, batch_ms: int) -> Settings:
    """What the actors of a cell are told."""
    return Settings(batch_ms=batch_ms, overlap=mode.overlap)


def make_node(network: Network, chain: int, index: int, verify: Verify, settings: Settings) -> AreaNode | Master:
    """A node of a chain."""
    if chain == MAIN:
        return Master(network, index, verify, settings)
    kind = {"certified": CertifiedNode, "product": ProductNode, "joint": JointNode}.get(network.plan.mode, AreaNode)
    return kind(network, chain, index, verify, settings)


def make_actors(mode: Mode, network: Network, verify: Verify, settings: Settings) -> list[Actor]:
    """All nodes, then all clients."""
    chains = [*network.areas, *([MAIN] if network.has_main else [])]
    places = [(chain, index) for chain in chains for index in range(len(network.keys[chain]))]
    nodes: list[Actor] = [make_node(network, chain, index, verify, settings) for chain, index in places]
    return [*nodes, *(mode.client(network, number, settings) for number in range(network.plan.trades))]
