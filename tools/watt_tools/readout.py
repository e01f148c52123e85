"""Reads a stopped network's stores: replays every chain through the real ledger and collects what people ask for.

Invariant: nothing is believed that does not replay; a block log that contradicts itself raises CorruptionError.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from watt_chain import codec
from watt_chain.block import Receipt, decode_certified
from watt_chain.contract import AreaContract, MainContract, kinds, objects
from watt_chain.contract.cross_objects import TRANSIT_KEY, MainTrade, Transit
from watt_chain.contract.market import Book
from watt_chain.crypto import sha256
from watt_chain.genesis import MAIN_CHAIN, Genesis, open_genesis
from watt_chain.ledger import Ledger
from watt_chain.transaction import DecodedTransaction, decode_transaction
from watt_market.checker import Checker
from watt_node.store import StoreError, read_blocks
from watt_wire import checkpoint

OBJECT_SIZE_MAX = 1 << 22
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Final:
    """A transaction in a block, with its outcome ("" = accepted)."""

    chain: int
    height: int
    tx: DecodedTransaction
    code: str


@dataclass
class Readout:
    """Every chain of a network at its last height."""

    genesis: Genesis
    network: bytes
    ledgers: dict[int, Ledger]
    blocks: dict[int, list[bytes]]
    transactions: list[Final] = field(default_factory=list)

    def object(self, chain: int, key: bytes, kind: type[T]) -> T | None:
        """The state object at `key`, decoded; None when it was never written."""
        value = self.ledgers[chain].state.get(key)
        return None if value is None else codec.decode(value, kind, OBJECT_SIZE_MAX)

    def need(self, chain: int, key: bytes, kind: type[T]) -> T:
        """As `object`; KeyError when it is missing."""
        found = self.object(chain, key, kind)
        if found is None:
            raise KeyError(key.decode())
        return found

    def areas(self) -> list[int]:
        return [chain for chain in self.ledgers if chain != MAIN_CHAIN]

    def accounts(self, chain: int) -> list[objects.Account]:
        """All accounts of a chain in the order of their creation."""
        state = self.ledgers[chain].state
        keys = state.keys(b"account/")
        return [self.need(chain, key, objects.Account) for key in keys]

    def checkpoints(self) -> list[tuple[Final, Any]]:
        """Accepted checkpoints, in block order: (transaction, decoded checkpoint)."""
        found = []
        for final in self.transactions:
            if final.tx.kind == "Checkpoint" and not final.code:
                fields = codec.decode(final.tx.fields_raw, kinds.Checkpoint, OBJECT_SIZE_MAX)
                found.append((final, checkpoint.decode(fields.frame)))
        return found

    def checkpoint_hashes(self) -> set[bytes]:
        """Hash of every plug checkpoint that is final in a block."""
        found = set()
        for final in self.transactions:
            if final.tx.kind == "Checkpoint" and not final.code:
                fields = codec.decode(final.tx.fields_raw, kinds.Checkpoint, OBJECT_SIZE_MAX)
                found.add(checkpoint.frame_hash(fields.frame))
        return found


def read(folder: Path) -> Readout:
    """Replay the longest intact block log of each chain. Raises StoreError, CorruptionError, DecodeError."""
    regulator = bytes.fromhex((folder / "trust/regulator.pub").read_text().strip())
    genesis, network = open_genesis((folder / "genesis.bin").read_bytes(), regulator)
    readout = Readout(genesis, network, {}, {})
    market = Checker()
    for chain in genesis.chains():
        prefix = "main" if chain == MAIN_CHAIN else f"area{chain}"
        blocks = _longest(folder / prefix)
        contract = MainContract(market) if chain == MAIN_CHAIN else AreaContract(market)
        ledger = Ledger(genesis, chain, contract)
        for certified in blocks:
            applied = ledger.replay(certified)
            _, block, header, _ = decode_certified(certified)
            for raw, receipt in zip(block.transactions, applied.receipts, strict=True):
                code = receipt.code if isinstance(receipt, Receipt) else codec.decode(receipt, Receipt).code
                readout.transactions.append(Final(chain, header.height, decode_transaction(raw), code))
        readout.ledgers[chain] = ledger
        readout.blocks[chain] = blocks
    return readout


def _longest(folder: Path) -> list[bytes]:
    best: list[bytes] = []
    for path in sorted(folder.glob("node*/blocks.log")):
        try:
            blocks = list(read_blocks(path))
        except StoreError:
            continue  # a node killed in the middle of a write; another has the block
        if len(blocks) > len(best):
            best = blocks
    return best


def statement(readout: Readout, event: int) -> dict[str, Any]:
    """What the run comes to, as plain data: the content of export/statement.json (tools/README.md)."""
    main_event = readout.object(MAIN_CHAIN, objects.event_key(event), objects.MainEvent)
    return {
        "format": 2,
        "network": readout.network.hex(),
        "event": event,
        "event_state": main_event.state.value if main_event else "none",
        "chains": {
            str(chain): {"height": ledger.head.height, "hash": ledger.head.block_hash.hex()}
            for chain, ledger in readout.ledgers.items()
        },
        "prices": {
            "lambda_u_per_wh": main_event.lambda_u_per_wh if main_event else [],
            "need_wh": main_event.need_wh if main_event else [],
        },
        "homes": [home for chain in readout.areas() for home in _homes(readout, chain, event)],
        "pairs": [pair for chain in readout.areas() for pair in _pairs(readout, chain, event)],
        "trades": _trades(readout, event),
        "totals": {str(chain): _totals(readout, chain) for chain in readout.areas()},
    }


def _homes(readout: Readout, chain: int, event: int) -> list[dict[str, Any]]:
    rows = []
    for account in readout.accounts(chain):
        if account.role != "user":
            continue
        row = readout.object(chain, objects.result_row_key(event, account.id), objects.ResultRow)
        rows.append(
            {
                "chain": chain,
                "user": account.id.hex(),
                "free_u": account.free_u,
                "escrow_u": account.escrow_u,
                "bond_u": account.bond_u,
                "arrears_u": account.arrears_u,
                "credit": account.credit,
                "points": account.points,
                "suspended": account.suspended,
                "event": _result(row) if row else None,
            }
        )
    return sorted(rows, key=lambda row: str(row["user"]))


RESULT_FIELDS = (
    *("side", "status", "sold_wh", "bought_wh", "quota_wh", "metered_wh", "agreed_wh", "delivered_wh", "short_wh"),
    *("credit_before", "credit_after", "traded_u", "charge_u", "penalty_u", "arrears_u", "rp_u_per_wh", "notice"),
    "points",
)


def _result(row: objects.ResultRow) -> dict[str, Any]:
    return {name: msgspec.to_builtins(getattr(row, name)) for name in RESULT_FIELDS}


def _pairs(readout: Readout, chain: int, event: int) -> list[dict[str, Any]]:
    area_event = readout.object(chain, objects.event_key(event), objects.AreaEvent)
    rows = []
    for number in range(1, (area_event.pairs if area_event else 0) + 1):
        pair = readout.need(chain, objects.pair_key(event, number), objects.Pair)
        rows.append(
            {
                "chain": chain,
                "number": number,
                "seller": pair.seller.hex(),
                "buyer": pair.buyer.hex(),
                "slot_wh": pair.slot_wh,
                "price_u_per_wh": pair.price_u_per_wh,
                "charge_u": pair.charge_u,
                "paid_u": pair.paid_u,
                "state": str(pair.state),
            }
        )
    return rows


def _trades(readout: Readout, event: int) -> list[dict[str, Any]]:
    """Trades across areas as the main chain has them."""
    state = readout.ledgers[MAIN_CHAIN].state
    found = [readout.need(MAIN_CHAIN, key, MainTrade) for key in state.keys(b"cross/%d/" % event)]
    rows = []
    for trade in sorted(found, key=lambda one: one.terms.number):
        terms = trade.terms
        rows.append(
            {
                "number": terms.number,
                "seller_chain": terms.seller_chain,
                "seller": terms.seller.hex(),
                "buyer_chain": terms.buyer_chain,
                "buyer": terms.buyer.hex(),
                "slot_wh": terms.slot_wh,
                "price_u_per_wh": terms.price_u_per_wh,
                "charge_u": terms.charge_u,
                "paid_u": trade.paid_u,
                "state": trade.state,
            }
        )
    return rows


def _totals(readout: Readout, chain: int) -> dict[str, int]:
    supply = readout.need(chain, objects.SUPPLY_KEY, objects.Supply)
    pool = readout.need(chain, objects.POOL_KEY, objects.Pool)
    transit = readout.object(chain, TRANSIT_KEY, Transit)
    accounts = readout.accounts(chain)

    def money(role: str) -> int:
        return sum(a.free_u + a.escrow_u + a.bond_u for a in accounts if (a.role == "user") == (role == "user"))

    return {
        "deposited_u": supply.deposited_u,
        "withdrawn_u": supply.withdrawn_u,
        "users_u": money("user"),
        "offices_u": money("office"),
        "points_issued": pool.issued,
        "sent_u": transit.sent_u if transit else 0,
        "received_u": transit.received_u if transit else 0,
    }


def outcome_hash(stated: dict[str, Any]) -> str:
    """One hash over matches, settlements, credit and points: equal for equal outcomes whatever the blocks were.

    With trades across areas points are left out: they go by who was drawn as cross-node (CONTRACT.md 17.6), and so by
    which masters opened their seeds before the first partner was introduced. It names accounts by their keys: two
    networks compare only when made with the same `--seed`.
    """
    kept = {name: stated[name] for name in ("event", "homes", "pairs", "prices")}
    if stated["trades"]:  # whether a payment has arrived yet is no outcome
        kept["homes"] = [_without_points(home) for home in stated["homes"]]
        kept["trades"] = [{k: v for k, v in trade.items() if k != "state"} for trade in stated["trades"]]
    return sha256(msgspec.json.encode(kept, order="sorted")).hex()


def _without_points(home: dict[str, Any]) -> dict[str, Any]:
    event = home["event"] and {key: value for key, value in home["event"].items() if key != "points"}
    return {**{key: value for key, value in home.items() if key != "points"}, "event": event}


def books(readout: Readout, event: int) -> dict[int, Book]:
    """The sealed books after their opening, by area."""
    found = {chain: readout.object(chain, objects.book_key(event), Book) for chain in readout.areas()}
    return {chain: book for chain, book in found.items() if book}
