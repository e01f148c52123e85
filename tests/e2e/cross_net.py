"""A small network of real processes for one trade across areas, and a watcher that kills a process at a step of it.

Two areas of four stations, four masters, a broker, an auditor, and two households with gateways and plugs: one sells in
area 1, one buys in area 2, so everything they agree on crosses. The watcher reads the block logs on disk while their
nodes write them, executes them again, and so knows at which step each chain is: what is killed is killed within a block
of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from watt_chain import codec
from watt_chain.block import decode_certified
from watt_chain.contract import AreaContract, MainContract
from watt_chain.contract.cross_objects import TRANSIT_KEY, CrossTrade, MainTrade, Transit, cross_key
from watt_chain.contract.cross_seats import NODES_KEY, CrossNodes
from watt_chain.genesis import MAIN_CHAIN, Genesis, open_genesis
from watt_chain.ledger import Ledger
from watt_market.checker import Checker
from watt_node.store import StoreError, read_blocks
from watt_tools import demo, network, progress, scenario
from watt_tools.children import Children, command

SELLS, BUYS = 1, 2
STEPS = ("matched", "locked", "decided", "anchored", "acted", "settled", "paid", "credited")
"In the order in which they happen."
ROLES = ("buyer-leader", "seller-leader", "cross-node", "master-leader", "master-on-duty")
SPEED = int(os.environ.get("EVENING_SPEED", "160"))
LEAD_MS = 14_000
AHEAD_S = 6_300
"From the signal to the window."
DEADLINE_S = 240
SETTLED_QUIET_S = 3.0


@dataclasses.dataclass(frozen=True)
class Kill:
    """kill -9 of who has this role when this step is seen."""

    step: str
    role: str

    @property
    def name(self) -> str:
        return f"{self.step}-{self.role}"


@dataclasses.dataclass
class Outcome:
    """What an evening left."""

    folder: Path
    killed: dict[str, str]
    "Kill -> process."
    states: set[tuple[str, str, str]]
    "(buyer's area, seller's area, main chain) of each trade."
    paid_u: list[int]
    sent_u: int
    received_u: int
    logs: dict[int, list[list[bytes]]]
    "Block hashes of each node, by chain."
    net: network.Network


def evening() -> scenario.Scenario:
    """A window of one quarter hour; one seller in area 1 and one buyer in area 2."""
    drawn = scenario.build(4, 2)
    seller = next(home for home in drawn.homes if home.area == SELLS and home.side == "sell")
    buyer = next(home for home in drawn.homes if home.area == BUYS and home.side == "buy")
    slot = max(range(len(seller.slot_wh)), key=lambda at: min(seller.slot_wh[at], buyer.slot_wh[at]))
    assert min(seller.slot_wh[slot], buyer.slot_wh[slot]) > 0
    homes = [
        dataclasses.replace(
            home,
            name=f"home-{number:03d}",
            node=0,
            behaviour="cooperative",
            interpreter="cpython",
            main_meter=False,
            slot_wh=[home.slot_wh[slot]],
        )
        for number, home in enumerate((seller, buyer), start=1)
    ]
    spec, start_s = drawn.spec, drawn.spec.window_start_s + slot * 900 - AHEAD_S
    skipped = (start_s - drawn.start_s) // drawn.step_s
    homes = [dataclasses.replace(home, watts=home.watts[skipped:]) for home in homes]
    # Plugs report on quarter hours: each deadline that households wait for has one soon after it, which makes a block.
    times = {"open_s": 120, "commit_close_s": 1_500, "reveal_close_s": 2_500, "match_by_s": 3_400}
    times |= {"confirm_close_s": 4_300, "window_start_s": AHEAD_S, "meter_close_s": AHEAD_S + 1_500}
    times |= {"settle_by_s": AHEAD_S + 3_300}
    spec = replace(
        spec,
        slots=1,
        alpha_u_per_wh=spec.alpha_u_per_wh[slot : slot + 1],
        profile_wh_per_mwh=spec.profile_wh_per_mwh[slot : slot + 1],
        units=[replace(unit, capacity_wh=unit.capacity_wh[slot : slot + 1]) for unit in spec.units],
        **{name: start_s + offset for name, offset in times.items()},
    )
    return scenario.Scenario(start_s, drawn.step_s, 2, homes, spec)


class Watcher:
    """The three chains as the disks have them."""

    def __init__(self, folder: Path, genesis: Genesis) -> None:
        self._folder = folder
        market = Checker()
        self.ledgers = {
            chain: Ledger(genesis, chain, MainContract(market) if chain == MAIN_CHAIN else AreaContract(market))
            for chain in (MAIN_CHAIN, SELLS, BUYS)
        }

    def look(self) -> None:
        """Execute what has been written since the last look."""
        for chain, ledger in self.ledgers.items():
            name = f"area{chain}" if chain else "main"
            for path in sorted((self._folder / name).glob("node*/blocks.log")):
                with contextlib.suppress(StoreError, OSError):  # a node may be in the middle of a write
                    for certified in read_blocks(path):
                        if decode_certified(certified)[2].height == ledger.head.height + 1:
                            ledger.replay(certified)

    def reached(self, step: str) -> bool:
        """Whether the first trade has come so far."""
        buyer, seller = self._trade(BUYS, CrossTrade), self._trade(SELLS, CrossTrade)
        main = self._trade(MAIN_CHAIN, MainTrade)
        after = {
            "matched": bool(buyer),
            "locked": buyer in ("LOCKED", "BOUND", "PAID"),
            "decided": seller in ("ACCEPTED", "EFFECTIVE", "SETTLED", "CREDITED"),
            "anchored": main in ("ACCEPT", "SETTLED", "PAID"),
            "acted": buyer in ("BOUND", "PAID"),
            "settled": main in ("SETTLED", "PAID"),
            "paid": buyer == "PAID",
            "credited": seller == "CREDITED",
        }
        return after[step]

    def process_of(self, role: str) -> str:
        """Name of the process that has a role for the next block."""
        if role in ("buyer-leader", "seller-leader"):
            area = BUYS if role == "buyer-leader" else SELLS
            return f"area{area}-node{self._leader(area)}"
        if role == "cross-node":  # it carries the buyer's locks into the seller's area
            held = self.ledgers[SELLS].state.get(NODES_KEY)
            nodes = None if held is None else codec.decode(held, CrossNodes)
            return f"area{SELLS}-node{nodes.seats[0].number if nodes and nodes.seats else 0}"
        if role == "master-leader":
            return f"main-node{self._leader(MAIN_CHAIN)}"
        return f"main-node{SELLS % network.MASTERS}"  # anchors the seller's area (watt_master.areas.Anchoring)

    def _leader(self, chain: int) -> int:
        ledger = self.ledgers[chain]
        return ledger.numbers[ledger.schedule.leader(ledger.head.height + 1, 0)]

    def _trade(self, chain: int, kind: type[Any]) -> str:
        held = self.ledgers[chain].state.get(cross_key(1, 1))
        return "" if held is None else str(codec.decode(held, kind).state)


def play(folder: Path, kills: tuple[Kill, ...]) -> Outcome:
    """One evening; each kill takes place when its step is first seen."""
    net = network.make(folder, evening(), micropython="", wasm_node="", seed=7)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    children = Children(folder / "pids.json", environment)
    genesis, _ = open_genesis((folder / "genesis.bin").read_bytes(), net.regulator)
    watcher = Watcher(folder, genesis)
    killed: dict[str, str] = {}
    try:
        demo.start_broker("embedded", net, children)
        net.start_clock(SPEED, LEAD_MS)
        demo.start_daemons(net, children)
        children.start(
            "auditor", command("audit", "run", "--config", str(folder / "audit.toml")), folder / "logs/auditor.log"
        )
        for _ in _until_over(net, children):
            watcher.look()
            for kill in kills:
                if kill.name not in killed and watcher.reached(kill.step):
                    killed[kill.name] = watcher.process_of(kill.role)
                    children.kill(killed[kill.name])
    finally:
        for first in ("rig", "gateway", "area", "main"):
            children.stop((first,))
        children.stop()
    watcher.look()
    return _outcome(net, watcher, killed)


def _until_over(net: network.Network, children: Children) -> Iterator[None]:
    """Until every chain has ended the event, nothing is on its way and all nodes are level."""
    deadline_s = time.monotonic() + DEADLINE_S
    quiet_since_s = time.monotonic()
    while time.monotonic() - quiet_since_s < SETTLED_QUIET_S:
        assert time.monotonic() < deadline_s, f"the evening did not end in {DEADLINE_S} s: {net.folder}/logs"
        children.watch()
        yield
        seen = progress.observe(net)
        down = any(child.pid is None for child in children.children)
        if down or seen.main_state != "CLOSED" or seen.across_open or not seen.level:
            quiet_since_s = time.monotonic()
        time.sleep(0.05)


def _outcome(net: network.Network, watcher: Watcher, killed: dict[str, str]) -> Outcome:
    def read(chain: int, key: bytes, kind: type[Any]) -> Any:
        return codec.decode(watcher.ledgers[chain].state.get(key) or b"", kind, 1 << 20)

    keys = watcher.ledgers[MAIN_CHAIN].state.keys(b"cross/1/")
    mains = [read(MAIN_CHAIN, key, MainTrade) for key in keys]
    states = {(read(BUYS, key, CrossTrade).state, read(SELLS, key, CrossTrade).state, one.state)
              for key, one in zip(keys, mains, strict=True)}  # fmt: skip
    transits = [read(chain, TRANSIT_KEY, Transit) for chain in (SELLS, BUYS)]
    logs = {
        chain: [list(read_blocks(path)) for path in sorted((net.folder / name).glob("node*/blocks.log"))]
        for chain, name in ((MAIN_CHAIN, "main"), (SELLS, "area1"), (BUYS, "area2"))
    }
    return Outcome(
        net.folder,
        killed,
        states,
        [one.paid_u for one in mains],
        sum(one.sent_u for one in transits),
        sum(one.received_u for one in transits),
        logs,
        net,
    )
