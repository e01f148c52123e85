"""The household's bill of one event, with everything that is needed to check it without us.

`make` puts together what was proven; `check` recomputes it from the bill, the genesis file and the regulator's key
alone: signatures of the stations, Merkle paths, the plug's own signatures, metered energy from the registers in the
signed checkpoints, sums of money. A bill holds the household's own data only.

    summary       read by people; every number stands in a proven object below
    state         StateProofs (hex): event, account, user, plugs, pairs, trades with other areas, result row
    checkpoints   per plug and slot boundary: the frame, the transaction that carried it, its ReceiptProof
    calls         our own calls of this event with their ReceiptProofs
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from watt_chain import codec, crypto
from watt_chain.codec import DecodeError
from watt_chain.contract.cross_area import stood
from watt_chain.contract.cross_objects import CrossTrade
from watt_chain.contract.kinds import Checkpoint as CheckpointFields
from watt_chain.contract.objects import (
    Account,
    AreaEvent,
    Pair,
    Plug,
    ResultRow,
    User,
    account_key,
    event_key,
    plug_key,
    result_row_key,
    user_key,
)
from watt_chain.contract.orders import PairState
from watt_chain.cross.tables import Buyer, Seller
from watt_chain.light import LightClient, ProofError, ReceiptProof, StateProof
from watt_chain.transaction import decode_transaction
from watt_wire import checkpoint as checkpoints
from watt_wire.errors import DecodeError as WireError

from watt_gateway.store import StoredReceipt

VERSION = 2
"""2: with trades across areas."""
BILL_BYTES_MAX = 8 << 20
"""64 plugs at 97 boundaries of 2 kB each in hex are some 25 MB at the very worst; 8 MiB holds 20 plugs over a day."""
BASELINE_NOTE = "standard profile h25, scaled to the yearly use (fewer than 10 days of own history)"
_TRADE_PAID = (Buyer.PAID, Seller.SETTLED, Seller.CREDITED)
_TRADED = (PairState.CONFIRMED, PairState.SETTLED, PairState.RETURNED)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything a bill is made of; `proofs` cover every object in it."""

    network: bytes
    chain: int
    me: bytes
    event: AreaEvent
    account: Account
    row: ResultRow
    pairs: Sequence[Pair]
    trades: Sequence[CrossTrade]
    proofs: Sequence[bytes]
    frames: Sequence[tuple[bytes, bytes, StoredReceipt | None]]
    "(plug, frame, receipt) at slot boundaries."
    calls: Sequence[StoredReceipt]


def make(evidence: Evidence) -> dict[str, Any]:
    """The bill as a JSON document."""
    row, event = evidence.row, evidence.event
    return {
        "version": VERSION,
        "network": evidence.network.hex(),
        "chain": evidence.chain,
        "account": evidence.me.hex(),
        "event": event.event,
        "state": event.state.value,
        "summary": {
            **{
                name: value
                for name, value in msgspec.to_builtins(msgspec.structs.asdict(row)).items()
                if name != "user"
            },
            "net_u": net_u(row),
            "credit_now": evidence.account.credit,
            "points_now": evidence.account.points,
            "free_u": evidence.account.free_u,
            "baseline": BASELINE_NOTE,
        },
        "pairs": [
            {
                "number": pair.number,
                "role": "seller" if pair.seller == evidence.me else "buyer",
                "slot_wh": pair.slot_wh,
                "price_u_per_wh": pair.price_u_per_wh,
                "charge_u": pair.charge_u // 2 if pair.seller == evidence.me else (pair.charge_u + 1) // 2,
                "paid_u": pair.paid_u,
                "state": pair.state,
            }
            for pair in evidence.pairs
        ],
        "trades": [_shown(trade) for trade in evidence.trades],
        "proofs": {
            "state": [proof.hex() for proof in evidence.proofs],
            "checkpoints": [
                {"plug": plug.hex(), "frame": frame.hex(), **_receipt(receipt)}
                for plug, frame, receipt in evidence.frames
            ],
            "calls": [{"label": call.label, **_receipt(call)} for call in evidence.calls],
        },
    }


def _shown(trade: CrossTrade) -> dict[str, Any]:
    """What a bill shows of a trade with another area."""
    terms, sells = trade.terms, trade.side == "sell"
    return {
        "number": terms.number,
        "role": "seller" if sells else "buyer",
        "other_area": terms.buyer_chain if sells else terms.seller_chain,
        "slot_wh": terms.slot_wh,
        "price_u_per_wh": terms.price_u_per_wh,
        "charge_u": (terms.charge_u + (not sells)) // 2,
        "paid_u": trade.paid_u,
        "state": trade.state,
    }


def net_u(row: ResultRow) -> int:
    """What the event brought (positive) or cost the household, micro-currency."""
    return row.traded_u - row.charge_u - row.penalty_u


def write(path: Path, document: dict[str, Any]) -> None:
    """Replace the file by the bill; OSError leaves the old one."""
    fresh = path.with_name(path.name + ".new")
    with open(fresh, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(document), indent=1))
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def read(path: Path) -> dict[str, Any]:
    """A bill from disk. Raises ValueError with one line when it is none."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot read the bill: {error.strerror}") from None
    if len(raw) > BILL_BYTES_MAX:
        raise ValueError(f"{path}: {len(raw)} bytes, a bill has at most {BILL_BYTES_MAX}")
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: not a bill: {error}") from None


def check(document: dict[str, Any], light: LightClient) -> list[str]:
    """What is wrong with a bill, as short lines; empty when every number in it is proven. Never raises on content."""
    try:
        return _Check(document, light).run()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        return [f"form: {type(error).__name__}: {error}"]
    except (DecodeError, WireError) as error:
        return [f"form: {error}"]
    except ProofError as error:
        return [f"proof: {error.reason}"]


class _Check:
    """One pass over one bill; problems are collected."""

    def __init__(self, document: dict[str, Any], light: LightClient) -> None:
        self._bill = document
        self._light = light
        self._problems: list[str] = []
        self._values: dict[bytes, bytes] = {}
        self._me = bytes.fromhex(document["account"])
        self._chain: int = document["chain"]

    def run(self) -> list[str]:
        """Check everything, in the order of the document."""
        if self._bill["version"] != VERSION:
            return [f"version: {self._bill['version']}, expected {VERSION}"]
        if self._bill["network"] != self._light.network.hex():
            return ["network: another genesis file"]
        self._take_state()
        event = self._object(event_key(self._bill["event"]), AreaEvent)
        account = self._object(account_key(self._me), Account)
        user = self._object(user_key(self._me), User)
        row = self._object(result_row_key(event.event, self._me), ResultRow)
        plugs = [self._object(plug_key(plug), Plug) for plug in user.plugs]
        self._check_summary(event, account, row)
        pairs, trades = self._check_pairs(event, row)
        self._expect("state", self._bill["state"], event.state.value)
        if row.status != "unverified":
            self._expect("metered", self._metered(event, plugs), row.metered_wh)
        self._check_calls()
        self._expect("pairs", len(pairs), len(self._bill["pairs"]))
        self._expect("trades", len(trades), len(self._bill["trades"]))
        return self._problems

    def _take_state(self) -> None:
        heights: dict[bytes, int] = {}
        for text in self._bill["proofs"]["state"]:
            proof = codec.decode(bytes.fromhex(text), StateProof)
            values = self._light.check_state(proof, self._chain)
            height = self._light.check_header(self._chain, proof.header, proof.certificate).height
            for key, value in values.items():
                if value is not None and height >= heights.get(key, 0):
                    heights[key] = height
                    self._values[key] = value

    def _object(self, key: bytes, kind: type[codec.T]) -> codec.T:
        if key not in self._values:
            raise ValueError(f"{key.decode()} is not proven")
        return codec.decode(self._values[key], kind)

    def _check_summary(self, event: AreaEvent, account: Account, row: ResultRow) -> None:
        summary = self._bill["summary"]
        for name in row.__struct_fields__:
            if name != "user":
                self._expect(f"summary.{name}", summary[name], getattr(row, name))
        self._expect("summary.net_u", summary["net_u"], net_u(row))
        self._expect("summary.credit_now", summary["credit_now"], account.credit)
        self._expect("summary.points_now", summary["points_now"], account.points)
        self._expect("summary.free_u", summary["free_u"], account.free_u)
        self._expect("user", row.user, self._me)
        self._expect("slots", len(row.quota_wh), event.spec.slots)

    def _check_pairs(self, event: AreaEvent, row: ResultRow) -> tuple[list[Pair], list[CrossTrade]]:
        prefix = b"pair/%d/" % event.event
        pairs = [codec.decode(value, Pair) for key, value in self._values.items() if key.startswith(prefix)]
        mine = sorted((pair for pair in pairs if self._me in (pair.seller, pair.buyer)), key=lambda pair: pair.number)
        traded = [pair for pair in mine if pair.state in _TRADED]
        sold = [0] * event.spec.slots
        bought = [0] * event.spec.slots
        money_u = charge_u = 0
        for pair in traded:
            side, sign = (sold, 1) if pair.seller == self._me else (bought, -1)
            for slot, wh in enumerate(pair.slot_wh):
                side[slot] += wh
            if pair.state == PairState.SETTLED:
                money_u += sign * pair.paid_u
                charge_u += pair.charge_u // 2 if pair.seller == self._me else (pair.charge_u + 1) // 2
        trades = self._trades(event)
        for trade in [trade for trade in trades if stood(trade)]:
            side, sign = (sold, 1) if trade.side == "sell" else (bought, -1)
            for slot, wh in enumerate(trade.terms.slot_wh):
                side[slot] += wh
            if trade.state in _TRADE_PAID:
                money_u += sign * trade.paid_u
                charge_u += (trade.terms.charge_u + (trade.side == "buy")) // 2
        self._expect("sold", sold, row.sold_wh)
        self._expect("bought", bought, row.bought_wh)
        self._expect("traded_u", money_u, row.traded_u)
        self._expect("charge_u", charge_u, row.charge_u)
        for shown, pair in zip(self._bill["pairs"], mine, strict=False):
            self._expect("pair.number", shown["number"], pair.number)
            self._expect("pair.slot_wh", shown["slot_wh"], pair.slot_wh)
            self._expect("pair.price_u_per_wh", shown["price_u_per_wh"], pair.price_u_per_wh)
            self._expect("pair.paid_u", shown["paid_u"], pair.paid_u)
            self._expect("pair.state", shown["state"], pair.state)
        return mine, trades

    def _trades(self, event: AreaEvent) -> list[CrossTrade]:
        """Our trades with other areas, as proven; what the bill shows of each must be that."""
        prefix = b"cross/%d/" % event.event
        held = [codec.decode(value, CrossTrade) for key, value in self._values.items() if key.startswith(prefix)]
        mine = sorted((one for one in held if one.user == self._me), key=lambda one: one.terms.number)
        for shown, trade in zip(self._bill["trades"], mine, strict=False):
            for name, proven in _shown(trade).items():
                self._expect(f"trade {trade.terms.number} {name}", shown[name], proven)
        return mine

    def _metered(self, event: AreaEvent, plugs: Sequence[Plug]) -> list[int] | None:
        """Wh per slot from the plugs' own signatures; None when a register is missing."""
        registers: dict[tuple[bytes, int], tuple[int, int]] = {}
        publics = {plug.id: plug.public for plug in plugs}
        for entry in self._bill["proofs"]["checkpoints"]:
            frame = bytes.fromhex(entry["frame"])
            checkpoint = checkpoints.decode(frame)
            public = publics.get(checkpoint.plug_id)
            message = checkpoints.signing_message(checkpoints.body_of(frame))
            if public is None or not crypto.verify(public, message, checkpoints.signature_of(frame)):
                self._problems.append(f"checkpoint {checkpoint.counter} of {checkpoint.plug_id.hex()}: signature")
                continue
            if self._outcome(entry, "checkpoint", frame) != "":
                continue  # refused by the contract: it gave no register
            place = (checkpoint.plug_id, checkpoint.time_s)
            # The first checkpoint of an instant gives its register.
            if place not in registers or checkpoint.counter < registers[place][0]:
                registers[place] = (checkpoint.counter, checkpoint.import_mwh)
        load: list[int] = []
        boundaries = event.spec.boundaries_s()
        for start_s, end_s in pairwise(boundaries):
            total = 0
            for plug in plugs:
                start, end = registers.get((plug.id, start_s)), registers.get((plug.id, end_s))
                if start is None or end is None:
                    return None
                total += end[1] // 1000 - start[1] // 1000
            load.append(total)
        return load

    def _check_calls(self) -> None:
        for entry in self._bill["proofs"]["calls"]:
            self._expect(f"call {entry['label']}", entry["code"], self._outcome(entry, entry["label"], b""))

    def _outcome(self, entry: dict[str, Any], name: str, frame: bytes) -> str | None:
        """The proven code of an entry's transaction; None (a problem) when it has no receipt of ours."""
        if "tx" not in entry:
            self._problems.append(f"{name}: not final")
            return None
        tx = bytes.fromhex(entry["tx"])
        try:
            code = self._light.check_receipt(codec.decode(bytes.fromhex(entry["receipt"]), ReceiptProof), tx)
        except ProofError as error:
            self._problems.append(f"{name}: receipt: {error.reason}")
            return None
        if frame and codec.decode(decode_transaction(tx).fields_raw, CheckpointFields).frame != frame:
            self._problems.append(f"{name}: the transaction carries another frame")
            return None
        return code

    def _expect(self, what: str, found: object, proven: object) -> None:
        if found != proven:
            self._problems.append(f"{what}: {found}, proven is {proven}")


def _receipt(receipt: StoredReceipt | None) -> dict[str, Any]:
    if receipt is None:
        return {}
    return {
        "tx": receipt.tx.hex(),
        "txid": receipt.txid.hex(),
        "height": receipt.height,
        "code": receipt.code,
        "receipt": receipt.proof.hex(),
    }
