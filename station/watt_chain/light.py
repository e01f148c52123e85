"""The light client: believes nothing but the genesis file and mathematics (CONSENSUS.md 7).

Pure functions of bytes. A household's gateway, the intake of another chain and the contracts use it; it keeps nothing
besides the lists of validators that it was led to from genesis, so it may be asked from several threads.
"""

from bisect import bisect_right
from collections.abc import Sequence

from watt_wire import merkle

from watt_chain import block as blocks
from watt_chain import codec, crypto
from watt_chain.block import Certificate, Change, Header, OutMessage, Receipt
from watt_chain.codec import U32, DecodeError, Hash32, Structure, T
from watt_chain.genesis import Genesis
from watt_chain.resume import open_word
from watt_chain.transaction import Verify, decode_transaction
from watt_chain.tree import leaf_of

PATH_LENGTH_MAX = 40
"""A path longer than this belongs to a tree nobody has."""
ENTRIES_MAX = 4096
"""Keys or messages in one proof."""
LISTS_MAX = 4096
"""Lists of one chain that a client remembers, each some hundred bytes; the oldest go first, and their headers."""


class ProofError(Exception):
    """The proof does not prove what it claims: the sender's fault; `reason` is a short word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ReceiptProof(Structure, frozen=True):
    """That a transaction is final, and with which outcome."""

    header: bytes
    certificate: bytes
    receipt: bytes
    index: U32
    size: U32
    path: list[Hash32]


class StateProof(Structure, frozen=True):
    """That keys had these values after a final block: entries are [slot, key, value, path]."""

    header: bytes
    certificate: bytes
    size: U32
    entries: list[tuple[U32, bytes, bytes, list[Hash32]]]


class LightClient:
    """Checks headers, receipts, state and messages of every chain of one network."""

    __slots__ = ("_lists", "_regulator", "_verify", "_words", "network")

    def __init__(self, genesis: Genesis, network: bytes, verify: Verify = crypto.verify) -> None:
        self.network = network
        self._verify = verify
        self._regulator = genesis.regulator
        self._words: dict[int, int] = {}
        "Chain -> sequence of the newest word of the regulator that we know of."
        self._lists: dict[int, tuple[tuple[int, tuple[bytes, ...]], ...]] = {
            chain: ((1, tuple(validator.public for validator in genesis.validators(chain))),)
            for chain in genesis.chains()
        }
        "Chain -> (first height, keys) of every list we know of, ascending; replaced as a whole."

    def follow(self, chain: int, changes: Sequence[Change]) -> int:
        """Learn the lists that these changes lead to (CONSENSUS.md 7.6); how many were new. Raises ProofError.

        What was learned before a bad one stays: each change proves itself by the list before it, or by the regulator's
        word. A word replaces whatever lists we were shown from its height on; an older word than the newest is skipped.
        """
        learned = 0
        for change in changes:
            lists = self._lists.get(chain)
            if lists is None:
                raise ProofError("chain-unknown")
            height = _decode(change.header, Header, blocks.HEADER_SIZE_MAX, "header-form").height
            try:
                known = self._words.get(chain, 0)
                if open_word(change.word)[1].sequence <= known if change.word else height < lists[-1][0]:
                    continue
                from_height, sequence = blocks.follow(
                    change, self.network, chain, lists[-1][1], self._regulator, self._verify
                )
            except DecodeError as error:
                raise ProofError(str(error)) from None
            self._words[chain] = max(known, sequence)
            kept = [listed for listed in lists if listed[0] < from_height]
            listed = (from_height, tuple(validator.public for validator in change.validators))
            self._lists[chain] = (*kept, listed)[-LISTS_MAX:]
            learned += 1
        return learned

    def trust(self, chain: int, from_height: int, publics: Sequence[bytes]) -> None:
        """Believe these validators of a chain from a height on, and none before: the caller has them from a chain that
        it follows itself (CONTRACT.md 17.4)."""
        listed = ((from_height, tuple(publics)),)
        if self._lists.get(chain) != listed:
            self._lists[chain] = listed

    def height_of_list(self, chain: int) -> int:
        """The height from which the newest list that is known acts: what to ask a station for changes after."""
        return self._lists[chain][-1][0]

    def _publics(self, chain: int, height: int) -> tuple[bytes, ...]:
        """Keys of the list of a height, as far as we know of changes. Raises ProofError."""
        lists = self._lists.get(chain)
        if lists is None:
            raise ProofError("chain-unknown")
        at = bisect_right(lists, height, key=lambda listed: listed[0])
        if at == 0:
            raise ProofError("list-forgotten")
        return lists[at - 1][1]

    def check_header(self, chain: int, header_bytes: bytes, certificate_bytes: bytes) -> Header:
        """The header, once it is certain that a quorum of `chain` made it final. Raises ProofError."""
        if chain not in self._lists:
            raise ProofError("chain-unknown")
        header = _decode(header_bytes, Header, blocks.HEADER_SIZE_MAX, "header-form")
        certificate = _decode(certificate_bytes, Certificate, blocks.CERTIFICATE_SIZE_MAX, "certificate-form")
        if header.version != blocks.HEADER_VERSION:
            raise ProofError("version")
        if header.chain != chain:
            raise ProofError("chain")
        hash_ = blocks.block_hash(self.network, header_bytes)
        publics = self._publics(chain, header.height)
        reason = blocks.check_certificate(certificate, self.network, header, hash_, publics, self._verify)
        if reason:
            raise ProofError(reason)
        return header

    def check_receipt(self, proof: ReceiptProof, tx: bytes) -> str:
        """The outcome of `tx`: "" accepted, else why it was refused. Raises ProofError."""
        try:
            sent = decode_transaction(tx)
        except DecodeError:
            raise ProofError("tx-form") from None
        header = self.check_header(sent.chain, proof.header, proof.certificate)
        receipt = _decode(proof.receipt, Receipt, codec.MESSAGE_SIZE_MAX, "receipt-form")
        if receipt.txid != sent.txid:
            raise ProofError("receipt-txid")
        if proof.size != header.tx_count:  # one receipt per transaction: the header fixes the tree's size
            raise ProofError("receipt-size")
        self._check_path(merkle.leaf_hash(proof.receipt), proof.index, proof.size, proof.path, header.receipt_root)
        return receipt.code

    def check_state(self, proof: StateProof, chain: int | None = None) -> dict[bytes, bytes | None]:
        """The values that the proof shows, by key. Raises ProofError.

        `chain`, when given, must be the proof's. A key that is not in the answer is neither proven nor
        refuted: the tree is ordered by first use, so absence cannot be shown (CONSENSUS.md 7.4).
        """
        header = self._header_of(proof.header, proof.certificate, chain)
        if len(proof.entries) > ENTRIES_MAX:
            raise ProofError("proof-size")
        values: dict[bytes, bytes | None] = {}
        for slot, key, value, path in proof.entries:
            if key in values:
                raise ProofError("key-twice")
            self._check_path(leaf_of(key, value), slot, proof.size, path, header.state_root)
            values[key] = value
        return values

    def check_messages(
        self,
        chain: int,
        header_bytes: bytes,
        certificate_bytes: bytes,
        size: int,
        entries: Sequence[tuple[int, bytes, Sequence[bytes]]],
    ) -> list[OutMessage]:
        """Messages a final block of `chain` sent; entries are (index, message bytes, path). Raises ProofError."""
        header = self.check_header(chain, header_bytes, certificate_bytes)
        if len(entries) > ENTRIES_MAX:
            raise ProofError("proof-size")
        messages: list[OutMessage] = []
        for index, data, path in entries:
            message = _decode(data, OutMessage, codec.MESSAGE_SIZE_MAX, "message-form")
            if message.source_chain != chain:
                raise ProofError("message-chain")
            self._check_path(merkle.leaf_hash(data), index, size, path, header.outbox_root)
            messages.append(message)
        return messages

    def _header_of(self, header_bytes: bytes, certificate_bytes: bytes, chain: int | None) -> Header:
        """check_header for the chain the header names, unless the caller names one."""
        if chain is None:
            chain = _decode(header_bytes, Header, blocks.HEADER_SIZE_MAX, "header-form").chain
        return self.check_header(chain, header_bytes, certificate_bytes)

    def _check_path(self, leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
        if len(path) > PATH_LENGTH_MAX or not 0 <= index < size:
            raise ProofError("path-form")
        if not merkle.verify_proof(leaf, index, size, list(path), root):
            raise ProofError("path")


def _decode(data: bytes, kind: type[T], size_max: int, reason: str) -> T:
    try:
        return codec.decode(data, kind, size_max)
    except DecodeError:
        raise ProofError(reason) from None
