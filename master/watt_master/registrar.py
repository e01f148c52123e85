"""The registrar: brings transactions that were signed elsewhere to their chains until each has had its turn.

The file is a sequence of `u32 big-endian length + msgpack [chain, tx bytes]`. The regulator signs enrolments and the
grid company deposits (for the main chain: rule sets, readmissions, endowments) on a machine without a network, and this
service only carries them. Whether a transaction has had its turn is read from the ledger (the signer's next nonce is
above its own), so a restart continues where it was and running it twice changes nothing.

Entries of one signer in a row are under way together; a change of signer waits until all before it are done: a block
may take transactions of two signers in either order, and a deposit before its enrolment would be refused for ever.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from watt_chain.block import Receipt
from watt_chain.codec import DecodeError
from watt_chain.transaction import TRANSACTION_SIZE_MAX, DecodedTransaction, decode_transaction
from watt_node.config import ConfigError

from watt_master.desk import NonceSource, Outgoing

FILE_MAX_BYTES = 64 << 20
"About 100,000 enrolments: a whole distribution area in one file."
WINDOW = 64
"Transactions of one chain under way at once: a block's worth, far below the 256 that a pool takes of one signer."
ANSWER_MS = 6_000
"Without an answer for this long a transaction is submitted again (the same bytes: it cannot act twice)."
WRONG_SHOWN_MAX = 16
"Refused entries kept by name for the status file."


def read_file(path: Path, chains: Sequence[int]) -> list[DecodedTransaction]:
    """The transactions of a registrar file in order; ConfigError naming the entry that is wrong."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {error.strerror}") from None
    if len(data) > FILE_MAX_BYTES:
        raise ConfigError(f"{path}: {len(data)} bytes; at most {FILE_MAX_BYTES}")
    found: list[DecodedTransaction] = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        entry = data[at + 4 : at + 4 + length]
        place = f"{path}: entry {len(found) + 1} at byte {at}"
        if len(entry) != length or not 0 < length <= TRANSACTION_SIZE_MAX + 16:
            raise ConfigError(f"{place}: {len(entry)} bytes where {length} were announced")
        try:
            chain, tx = msgspec.msgpack.decode(entry, type=tuple[int, bytes])
            decoded = decode_transaction(tx)
        except (msgspec.MsgspecError, DecodeError) as error:
            raise ConfigError(f"{place}: not [chain, transaction]: {error}") from None
        if decoded.chain != chain:
            raise ConfigError(f"{place}: is for chain {decoded.chain}, labelled {chain}")
        if chain not in chains:
            raise ConfigError(f"{place}: chain {chain} is not one that this master follows ({list(chains)})")
        found.append(decoded)
        at += 4 + length
    return found


class Registrar:
    """State-driven: `step` names what to submit now; the ledger says what is done."""

    def __init__(self, transactions: Sequence[DecodedTransaction], nonces: NonceSource) -> None:
        self._nonces = nonces
        self._open: dict[int, list[DecodedTransaction]] = {}
        for tx in transactions:
            self._open.setdefault(tx.chain, []).append(tx)
        self._sent: dict[bytes, int] = {}
        self.total = len(transactions)
        self.refused: dict[str, int] = {}
        "Entries whose block refused them, by reason."
        self.wrong: list[str] = []
        "The first of them by name, for a person."

    @property
    def left(self) -> int:
        """Entries that no block has answered yet."""
        return sum(len(waiting) for waiting in self._open.values())

    def signs_on(self, chain: int, signer: bytes) -> bool:
        """Whether entries of this key still wait for this chain: nobody else may use its nonces before."""
        return any(tx.signer == signer for tx in self._open.get(chain, ()))

    def step(self, now_ms: int) -> list[Outgoing]:
        """Entries to submit now, in file order, at most WINDOW under way per chain."""
        out: list[Outgoing] = []
        for chain in sorted(self._open):
            signers = dict.fromkeys(tx.signer for tx in self._open[chain])
            following = {signer: self._nonces.next_nonce(chain, signer) for signer in signers}
            waiting: list[DecodedTransaction] = []
            for tx in self._open[chain]:
                if tx.nonce >= following[tx.signer]:
                    waiting.append(tx)
                else:
                    self._sent.pop(tx.txid, None)
            self._open[chain] = waiting
            for tx in waiting[:WINDOW]:
                if tx.signer != waiting[0].signer:
                    break  # nonces keep one signer's entries in order; another's may need what they do
                sent_ms = self._sent.get(tx.txid)
                if sent_ms is not None and now_ms - sent_ms < ANSWER_MS:
                    continue
                if following[tx.signer] < 0:
                    continue  # the key is not registered on this chain (yet); status shows it as left
                self._sent[tx.txid] = now_ms
                out.append(Outgoing(chain, tx.raw, tx.txid, tx.kind, f"nonce {tx.nonce}"))
        return out

    def on_block(self, chain: int, receipts: Sequence[Receipt]) -> None:
        """Count what a block refused."""
        mine = {tx.txid: tx for tx in self._open.get(chain, ())}
        for receipt in receipts:
            tx = mine.get(receipt.txid)
            if tx is not None and receipt.code:
                self.refused[receipt.code] = self.refused.get(receipt.code, 0) + 1
                if len(self.wrong) < WRONG_SHOWN_MAX:
                    self.wrong.append(f"chain {chain} {tx.kind} nonce {tx.nonce}: {receipt.code}")

    def status(self) -> dict[str, object]:
        """For status.json."""
        return {
            "total": self.total,
            "done": self.total - self.left,
            "left": self.left,
            "refused": dict(sorted(self.refused.items())),
            "wrong": list(self.wrong),
        }
