"""The regulator's reading side (rows A14, E13, E16): any transaction or contract, with everything that proves it.

Works on the archive alone, while the master runs or after it is gone. What is returned is a record plus proofs that a
light client checks without trusting this master: the certified header of the area's block, the transaction's receipt
under its receipts root, and the main-chain transaction that anchored that block. A contract (a matched pair) is read
from the state that the archived blocks re-execute to, with a proof under the last certified state root, together with
the calls of both sides.
"""

from dataclasses import dataclass

import msgspec
from watt_chain import codec
from watt_chain.block import HEADER_SIZE_MAX, Certificate, Header, decode_certified
from watt_chain.contract import AreaContract, MainContract, kinds, objects
from watt_chain.contract.cross_kinds import CrossOp
from watt_chain.contract.cross_objects import CrossTrade, MainTrade, cross_key
from watt_chain.contract.objects import Pair
from watt_chain.genesis import Genesis, network_of
from watt_chain.ledger import CorruptionError, Ledger
from watt_chain.light import LightClient, ReceiptProof, StateProof
from watt_chain.transaction import DecodedTransaction, decode_transaction
from watt_market.engine import Market

from watt_master.archive import Archive, TransactionRow

MAIN = objects.MAIN_CHAIN
SPOKEN = ("Confirmtransaction", "Confirm", "Qualify", "SettlementCredit", "SettlementAmount", "Inbox")
"Calls by which a contract comes to be, is confirmed and is settled."


SPOKEN_ACROSS = (*SPOKEN, "CrossOp", "Match", "Anchor", "CrossEnd")
"The same for a trade of two areas, with what the main chain recorded."
WORDS_ACROSS = ("CrossLocked", "CrossReport", "CrossNews")
"Messages that name single trades."


class TraceError(Exception):
    """What was asked for cannot be answered; the text is for the person who asked."""


@dataclass(frozen=True, slots=True)
class TransactionTrace:
    """A transaction, its outcome, and the proofs of both."""

    row: TransactionRow
    tx: bytes
    fields: object
    "Its arguments as plain values; bytes stay bytes."
    time_s: int
    "Protocol time of its block (E13: transaction time)."
    block_hash: bytes
    proof: ReceiptProof
    anchor: "TransactionTrace | None"
    "The main-chain transaction that took in its block; None on the main chain, or while it is on its way."


@dataclass(frozen=True, slots=True)
class ContractTrace:
    """A matched pair as it stands, with its proof and the calls about it in chain order."""

    pair: Pair
    height: int
    proof: StateProof
    calls: tuple[TransactionRow, ...]


@dataclass(frozen=True, slots=True)
class TradeTrace:
    """A trade across areas as its three chains have it, each with its proof, and the calls about it."""

    main: MainTrade
    halves: dict[int, CrossTrade | None]
    "By area, the seller's first; None where the area never took its part of the matching."
    heights: dict[int, int]
    "Up to where each chain was executed."
    calls: tuple[TransactionRow, ...]
    "Chain by chain: the seller's area, the buyer's, the main chain."


class Tracer:
    """Answers from one archive. Re-executes a chain at most once, when a question needs its state or receipts."""

    def __init__(self, archive: Archive, genesis: Genesis) -> None:
        self._archive = archive
        self._genesis = genesis
        self._ledgers: dict[int, Ledger] = {}
        self._anchors: dict[tuple[int, int], TransactionRow] = {}
        "(area, height) -> the main-chain transaction that took it in; filled by the first question."
        self.light = LightClient(genesis, network_of(genesis))

    def transaction(self, txid: bytes) -> TransactionTrace:
        """A transaction by id. TraceError when no archived block holds it."""
        row = self._archive.transaction(txid)
        if row is None:
            raise TraceError(f"transaction {txid.hex()} is in no archived block")
        return self._trace(row)

    def _trace(self, row: TransactionRow) -> TransactionTrace:
        block = self._archive.block(row.chain, row.height)
        assert block is not None, "the archive stores a block with its transactions"
        _, body, header, _ = decode_certified(block.certified)
        tx = body.transactions[row.position]
        proof = self._receipt_proof(row)
        code = self.light.check_receipt(proof, tx)
        if code != row.code:
            raise TraceError(f"the archive says {row.code!r} where the certified block says {code!r}")
        anchor = None if row.chain == MAIN else self._anchor_of(row.chain, row.height)
        decoded = decode_transaction(tx)
        return TransactionTrace(row, tx, _plain(decoded), header.time_s, block.block_hash, proof, anchor)

    def _receipt_proof(self, row: TransactionRow) -> ReceiptProof:
        proof = self.ledger(row.chain).receipt_proof(row.height, row.txid)
        if proof is None:  # older than what a ledger keeps in memory: execute up to that block only
            proof = self._execute(row.chain, row.height).receipt_proof(row.height, row.txid)
        if proof is None:
            raise TraceError(f"block {row.height} of chain {row.chain} does not hold what the archive's index says")
        return proof

    def _anchor_of(self, chain: int, height: int) -> TransactionTrace | None:
        """The accepted Anchor of an area block."""
        if not self._anchors:
            for row in self._archive.transactions(MAIN, ("Anchor",)):
                if row.code == "":
                    fields = codec.decode(decode_transaction(self._raw(row)).fields_raw, kinds.Anchor)
                    header = codec.decode(fields.header, Header, HEADER_SIZE_MAX)
                    self._anchors[header.chain, header.height] = row
        found = self._anchors.get((chain, height))
        return None if found is None else self._trace(found)

    def _raw(self, row: TransactionRow) -> bytes:
        """A transaction as sent."""
        block = self._archive.block(row.chain, row.height)
        assert block is not None, "the archive stores a block with its transactions"
        return decode_certified(block.certified)[1].transactions[row.position]

    def contract(self, chain: int, event: int, number: int) -> ContractTrace:
        """A matched pair by area, event and number. TraceError when there is none."""
        ledger = self.ledger(chain)
        key = objects.pair_key(event, number)
        value = ledger.state.get(key)
        proof = ledger.state_proof([key])
        if value is None or proof is None:
            raise TraceError(f"area {chain} has no contract {number} in event {event}")
        if self.light.check_state(proof, chain)[key] != value:
            raise TraceError("the proof of the contract does not hold")
        pair = codec.decode(value, Pair)
        parties = (pair.seller, pair.buyer)
        calls = tuple(
            row for row in self._archive.transactions(chain, SPOKEN) if self._concerns(row, event, number, parties)
        )
        return ContractTrace(pair, ledger.head.height, proof, calls)

    def trade(self, event: int, number: int) -> TradeTrace:
        """A trade across areas by event and number. TraceError when there is none."""
        key = cross_key(event, number)
        value, heights = self._proven(MAIN, key), {}
        if value is None:
            raise TraceError(f"the main chain has no trade {number} in event {event}")
        main = codec.decode(value, MainTrade)
        halves: dict[int, CrossTrade | None] = {}
        calls: list[TransactionRow] = []
        for chain in (main.terms.seller_chain, main.terms.buyer_chain, MAIN):
            if chain != MAIN:
                half = self._proven(chain, key)
                halves[chain] = None if half is None else codec.decode(half, CrossTrade)
            heights[chain] = self.ledger(chain).head.height
            parties = (main.terms.seller, main.terms.buyer)
            rows = self._archive.transactions(chain, SPOKEN_ACROSS)
            calls += [row for row in rows if self._concerns_trade(row, event, number, parties)]
        return TradeTrace(main, halves, heights, tuple(calls))

    def _proven(self, chain: int, key: bytes) -> bytes | None:
        """A value of a chain's state, once its proof has been checked; None when the chain has none there."""
        ledger = self.ledger(chain)
        value, proof = ledger.state.get(key), ledger.state_proof([key])
        if value is None or proof is None:
            return None
        if self.light.check_state(proof, chain)[key] != value:
            raise TraceError("the proof of the trade does not hold")
        return value

    def _concerns_trade(self, row: TransactionRow, event: int, number: int, parties: tuple[bytes, bytes]) -> bool:
        raw = decode_transaction(self._raw(row)).fields_raw
        try:
            if row.kind == "CrossOp":
                call = codec.decode(raw, CrossOp)
                return call.event == event and number in call.trades
            if row.kind in ("Inbox", "Anchor"):
                messages = (
                    codec.decode(raw, kinds.Anchor).messages
                    if row.kind == "Anchor"
                    else [entry.message for entry in codec.decode(raw, kinds.Inbox).entries]
                )
                return any(_names_trade(one, event, number) or self._carries(one, event) for one in messages)
            if row.kind == "Match":
                return codec.decode(raw, kinds.Match, len(raw)).solution.event == event
        except codec.DecodeError:
            return False
        return row.kind != "Confirm" and self._concerns(row, event, number, parties)

    def _concerns(self, row: TransactionRow, event: int, number: int, parties: tuple[bytes, bytes]) -> bool:
        """Whether a call made, confirmed or settled the contract."""
        raw = decode_transaction(self._raw(row)).fields_raw
        try:
            if row.kind == "Confirm":
                confirm = codec.decode(raw, kinds.Confirm)
                return (confirm.event, confirm.pair) == (event, number)
            if row.kind == "Confirmtransaction":
                return codec.decode(raw, kinds.Confirmtransaction).event == event and row.signer_id in parties
            if row.kind == "Inbox":
                return any(self._carries(entry.message, event) for entry in codec.decode(raw, kinds.Inbox).entries)
            return codec.decode(raw, kinds.EventCall).event == event
        except codec.DecodeError:
            return False  # a malformed call that its block refused concerns no contract

    def _carries(self, message: bytes, event: int) -> bool:
        """Whether an inbox message is the event's matching or its prices."""
        try:
            _, _, _, kind, body = msgspec.msgpack.decode(message, type=tuple[int, int, int, str, bytes])
            if kind == "Match":
                return codec.decode(body, kinds.AreaMatch).event == event
            return kind == "Prices" and codec.decode(body, kinds.Prices).event == event
        except (msgspec.MsgspecError, codec.DecodeError):
            return False

    def ledger(self, chain: int) -> Ledger:
        """A chain re-executed from the archive; every certificate and every header is checked on the way."""
        if chain not in self._ledgers:
            self._ledgers[chain] = self._execute(chain, self._archive.height(chain))
        return self._ledgers[chain]

    def _execute(self, chain: int, height: int) -> Ledger:
        contract = MainContract(Market()) if chain == MAIN else AreaContract(Market())
        try:
            ledger = Ledger(self._genesis, chain, contract)
        except KeyError:
            raise TraceError(f"the network has no chain {chain}") from None
        try:
            for certified in self._archive.blocks(chain):
                if ledger.head.height == height:
                    break
                ledger.replay(certified)
        except (codec.DecodeError, CorruptionError) as error:
            raise TraceError(
                f"the archive of chain {chain} is damaged after block {ledger.head.height}: {error}"
            ) from None
        return ledger


def _names_trade(message: bytes, event: int, number: int) -> bool:
    """Whether a message between chains says something about a trade."""
    _, _, _, kind, body = msgspec.msgpack.decode(message, type=tuple[int, int, int, str, bytes])
    if kind not in WORDS_ACROSS:
        return False
    about, trades, *_ = msgspec.msgpack.decode(body)
    return bool(about == event and any(item[0] == number for item in trades))


def _plain(tx: DecodedTransaction) -> object:
    """The arguments of a call as lists, numbers, text and bytes."""
    return msgspec.msgpack.decode(tx.fields_raw)


def signers(trace: TransactionTrace) -> list[int]:
    """Indexes of the validators whose votes made the transaction's block final."""
    return [vote.index for vote in codec.decode(trace.proof.certificate, Certificate).votes]
