"""Stage `storage`: bytes on disk of normal nodes and cross-nodes (the paper's Figure 10), and growth per day.

    local    each area has m transactions of its own: the paper's assumption, under which its ratio is 1/s by arithmetic
    mixed    a tenth of them are trades with the other areas in turn

A node's bytes are its block logs and one snapshot of each state it keeps, written by the stores of a station. A
cross-node of the paper's mode keeps those of every area and of the joint chain; a normal node appends decisions. In our
mode a cross-node keeps, for each partner, the last anchored header, the headers since, the accounts of live trades with
their proofs, receipts that are not consumed, and a cursor; sizes are taken when all of a round is still live.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from watt_chain import codec
from watt_chain.block import COMMIT, VoteSignature, block_hash, decode_certified, vote_bytes
from watt_chain.codec import U16, U63, Structure
from watt_chain.crypto import PrivateKey, id8
from watt_chain.genesis import AreaGenesis, Genesis, Validator, network_of
from watt_chain.ledger import AppliedBlock, Ledger
from watt_chain.light import StateProof

from watt_tools.paper import certified, joint
from watt_tools.paper.book import LOCAL, Contract, KnownHeaders, Party, account_key
from watt_tools.paper.network import ASK_U_PER_WH, LATE, MASTERS, MONEY_U, QUOTA_WH, START_S, make_key
from watt_tools.paper.objects import Account, AnchorCall, Bundle, Bundler, InboxCall, Part, SpendCall, Trade, TradeCall
from watt_tools.paper.offline import OfflineChain
from watt_tools.paper.reported import TRANSACTIONS
from watt_tools.paper.results import write_json

SHARDS: Final = (2, 3, 4, 10)
NODES: Final = 4
CROSS_NODES: Final = 2
"""f + 1."""
HOMES: Final = 100
BLOCK: Final = 50
"""Transactions of a block."""
CROSS: Final = 5
"""Trades with other areas in a block of the mixed load."""
LOADS: Final = ("local", "mixed")


class PartnerView(Structure, frozen=True):
    """What a cross-node of ours keeps of a partner area."""

    chain: U16
    anchored: tuple[bytes, bytes]
    recent: list[tuple[bytes, bytes]]
    hot: StateProof | None
    "Accounts there that live trades with this area are about."
    receipts: list[Bundle]
    cursor: U63


class Areas:
    """The chains of s areas under one mode, filled with a load."""

    def __init__(self, folder: Path, mode: str, s: int) -> None:
        self.areas = range(1, s + 1)
        self.mode = mode
        self.node_keys = {chain: [make_key(f"store {chain} {i}") for i in range(NODES)] for chain in self.areas}
        self.node_keys[certified.MAIN] = [make_key(f"store main {i}") for i in range(MASTERS)]
        if mode == "paper":
            self.node_keys[joint.JOINT_CHAIN] = [key for a in self.areas for key in self.node_keys[a][:CROSS_NODES]]
        self.homes = {chain: [make_key(f"store home {chain} {i}") for i in range(HOMES)] for chain in self.areas}
        self.genesis = self._found()
        self.network = network_of(self.genesis)
        self.chains = {
            chain: OfflineChain(self._ledger(chain), keys, folder / f"chain{chain}")
            for chain, keys in self.node_keys.items()
        }
        self.decisions = dict.fromkeys(self.areas, 0)
        "Bytes of the joint decisions that a normal node of an area has appended."
        self._anchored = dict.fromkeys(self.areas, (b"", b""))
        self._receipts: dict[tuple[int, int], Bundle] = {}
        "(source, target) -> what of the last round is on its way."
        self._live: list[Trade] = []
        "Trades of the last round."
        self._number = 0
        self._rounds = 0

    def _found(self) -> Genesis:
        def seats(chain: int, name: str) -> list[Validator]:
            return [Validator(f"{name}-node{i}", key.public) for i, key in enumerate(self.node_keys[chain])]

        areas = [AreaGenesis(chain, f"area{chain}", seats(chain, f"area{chain}")) for chain in self.areas]
        if joint.JOINT_CHAIN in self.node_keys:
            areas.append(AreaGenesis(joint.JOINT_CHAIN, "joint", seats(joint.JOINT_CHAIN, "joint")))
        regulator, grid, aggregator = (make_key(name).public for name in ("regulator", "grid", "aggregator"))
        return Genesis("paper-storage", START_S, regulator, grid, aggregator, seats(0, "main"), areas, [], 1, 0)

    def _ledger(self, chain: int) -> Ledger:
        proofs = KnownHeaders(self.genesis, self.network, _believe)
        account = Account(MONEY_U, 0, 0, QUOTA_WH * 100, 0, ASK_U_PER_WH)
        here = [chain] if chain in self.areas else list(self.areas) if chain == joint.JOINT_CHAIN else []
        parties = [Party(key.public, account) for area in here for key in self.homes[area]]
        calls = {
            certified.MAIN: certified.BEACON_CALLS,
            joint.JOINT_CHAIN: joint.JOINT,
        }.get(chain, certified.AREA if self.mode == "ours" else LOCAL)
        clerks = [key.public for key in self.node_keys[chain]]
        return Ledger(self.genesis, chain, Contract(calls, parties, clerks, proofs), verify=_believe)

    # Load -------------------------------------------------------------------------------------------------

    def fill(self, m: int, load: str) -> None:
        """m transactions in each area."""
        for _ in range(m // BLOCK):
            trades = CROSS if load == "mixed" else 0
            self._rounds += 1
            self._live = []
            blocks = {area: self._round(area, BLOCK - trades, trades) for area in self.areas}
            if trades and self.mode == "ours":
                self._conclude(blocks)
            elif trades:
                self._decide(trades)

    def _round(self, area: int, spends: int, trades: int) -> tuple[bytes, AppliedBlock]:
        """A block of an area: payments at home, and in our mode the locks of its buyers."""
        chain, homes = self.chains[area], self.homes[area]
        txs = [
            chain.call(homes[at % HOMES], "Spend", SpendCall(id8(homes[(at + 1) % HOMES].public), 1 + at))
            for at in range(self._rounds, self._rounds + spends)
        ]
        if trades and self.mode == "ours":
            txs += [chain.call(self._buyer(area, at), "Lock", TradeCall(self._trade(area, at))) for at in range(trades)]
        return chain.extend(txs, START_S + self._rounds)

    def _buyer(self, area: int, at: int) -> PrivateKey:
        return self.homes[area][(self._rounds + 60 + at) % HOMES]

    def _trade(self, area: int, at: int) -> Trade:
        """A trade with another area; they take turns."""
        self._number += 1
        turn = (self._rounds * CROSS + at) % (len(self.areas) - 1)
        target = (area + turn) % len(self.areas) + 1
        seller = id8(self.homes[target][at].public)
        part = Part(target, seller, 100 + at, ASK_U_PER_WH * (100 + at))
        trade = Trade(self._number, area, id8(self._buyer(area, at).public), [part], LATE, LATE)
        self._live.append(trade)
        return trade

    def _conclude(self, blocks: dict[int, tuple[bytes, AppliedBlock]]) -> None:
        """Ours: receipts to the next area, anchors on the main chain, outcomes back."""
        time_s = START_S + self._rounds
        final = [blocks[area] for area in self.areas]
        self._receipts = {
            (source, area): bundle
            for area in self.areas
            for source in self.areas
            if (bundle := self._bundle(source, *blocks[source], area)).entries
        }
        for area in self.areas:
            bundles = [bundle for (_, target), bundle in self._receipts.items() if target == area]
            calls = [self.chains[area].call(self.node_keys[area][0], "Inbox", InboxCall(one)) for one in bundles]
            if calls:
                final.append(self.chains[area].extend(calls, time_s))
        self._anchor(final)
        main = self.chains[certified.MAIN]
        assert self._last_main is not None
        for area in self.areas:
            bundle = self._bundle(certified.MAIN, *self._last_main, area)
            call = self.chains[area].call(self.node_keys[area][1], "Inbox", InboxCall(bundle))
            final.append(self.chains[area].extend([call], time_s))
        self._anchor(final[-len(self.areas) :])
        assert main.ledger.head.height == 2 * self._rounds

    _last_main: tuple[bytes, AppliedBlock] | None = None

    def _bundle(self, source: int, block: bytes, applied: AppliedBlock, target: int) -> Bundle:
        places = [at for at, message in enumerate(applied.out_messages) if message.target_chain == target]
        return Bundler(source, block, applied.out_messages).bundle(places)

    def _anchor(self, blocks: list[tuple[bytes, AppliedBlock]]) -> None:
        main = self.chains[certified.MAIN]
        calls = []
        for block, applied in blocks:
            parts, found, header, _ = decode_certified(block)
            messages = [codec.encode(message) for message in applied.out_messages]
            calls.append(
                main.call(
                    self.node_keys[certified.MAIN][0],
                    "Anchor",
                    AnchorCall(found.header, parts.certificate, messages),
                )
            )
            self._anchored[header.chain] = found.header, parts.certificate
        self._last_main = main.extend(calls, START_S + self._rounds)

    def _decide(self, trades: int) -> None:
        """The paper's mode: one joint block with the trades of all areas, decisions for the normal nodes."""
        chain = self.chains[joint.JOINT_CHAIN]
        made = [self._trade(area, at) for area in self.areas for at in range(trades)]
        keys = [self._buyer(area, at) for area in self.areas for at in range(trades)]
        calls = [chain.call(key, "JointTrade", TradeCall(trade)) for key, trade in zip(keys, made, strict=True)]
        block, applied = chain.extend(calls, START_S + self._rounds)
        header = decode_certified(block)[1].header
        hash_ = block_hash(self.network, header)
        message = vote_bytes(self.network, COMMIT, joint.JOINT_CHAIN, applied.header.height, 0, hash_)
        votes = [VoteSignature(at, key.sign(message)) for at, key in enumerate(self.node_keys[joint.JOINT_CHAIN])]
        for area in self.areas:
            related = joint.related_to(area, [tx.raw for tx in applied.transactions], applied.receipts)
            self.decisions[area] += len(codec.encode(joint.Decision(header, 0, votes, related)))

    # Sizes ------------------------------------------------------------------------------------------------

    def sizes(self) -> dict[str, int]:
        """Bytes of a normal node and of a cross-node of area 1."""
        logs = {chain: one.log_bytes() for chain, one in self.chains.items()}
        states = {chain: one.snapshot_bytes() for chain, one in self.chains.items() if one.last[0]}
        own = logs[1] + states[1]
        if self.mode == "ours":
            views = [codec.encode(self._view(area, 1)) for area in self.areas if area != 1]
            return {"normal": own, "cross": own + sum(map(len, views))}
        others = [chain for chain in self.chains if chain != certified.MAIN]
        return {
            "normal": own + self.decisions[1],
            "cross": sum(logs[chain] + states.get(chain, 0) for chain in others if states.get(chain)),
        }

    def _view(self, area: int, home: int) -> PartnerView:
        """What a cross-node of `home` keeps of another area while everything of a round is under way."""
        ledger = self.chains[area].ledger
        bought = [part.seller for one in self._live if one.chain == home for part in one.parts if part.chain == area]
        sold = [one.buyer for one in self._live if one.chain == area and one.parts[0].chain == home]
        hot = ledger.state_proof([account_key(id8_) for id8_ in (*bought, *sold)]) if bought or sold else None
        receipts = [bundle for (source, target), bundle in self._receipts.items() if (source, target) == (area, home)]
        anchored = self._anchored[area] if self._anchored[area][0] else self.chains[area].last
        since = 3 if self._receipts else 1  # blocks of a round: payments and locks, receipts, outcomes
        return PartnerView(area, anchored, [self.chains[area].last] * since, hot, receipts, self._rounds)

    def close(self) -> None:
        """Release the files."""
        for chain in self.chains.values():
            chain.close()


def _believe(public: bytes, message: bytes, signature: bytes) -> bool:
    """Everything here is made by this process; what is measured is bytes."""
    return True


def run(out: Path, *, quick: bool = False) -> None:
    """Measure what is not there yet, item by item."""
    path = out / "storage.json"
    data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"ledger": [], "growth": []}
    shards, sizes = ((2, 10), (250,)) if quick else (SHARDS, TRANSACTIONS)
    known = {(one["mode"], one["load"], one["s"], one["m"]) for one in data["ledger"]}
    wanted = [(mode, load, s, m) for s in shards for m in sizes for mode in ("paper", "ours") for load in LOADS]
    missing = [one for one in wanted if one not in known]
    print(f"storage: {len(wanted)} ledgers, {len(wanted) - len(missing)} of them from before", file=sys.stderr)
    for mode, load, s, m in missing:
        folder = Path(tempfile.mkdtemp(prefix="wattpact-storage-"))
        try:
            areas = Areas(folder, mode, s)
            areas.fill(m, load)
            for role, size in areas.sizes().items():
                data["ledger"].append({"mode": mode, "load": load, "s": s, "m": m, "role": role, "bytes": size})
            areas.close()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        write_json(path, data)
        print(f"  {mode} {load} s={s} m={m}", file=sys.stderr)
    from watt_tools.paper import growth

    growth.run(path, data, quick=quick)
