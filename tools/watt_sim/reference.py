"""A second implementation of what a final chain must be, for the tally contract (CONSENSUS.md 2 and 3).

It shares no code with watt_chain: a bug planted there, or made there, is not in here as well. Only hashlib and
msgpack are used, and everything is recomputed from the bytes in the plainest way.
"""

import struct
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

from msgspec import msgpack

TERM_HEIGHTS = 64
VerifyCall = Callable[[bytes, bytes, bytes], bool]


def quorum_of(n: int) -> int:
    """ceil((n + f + 1) / 2) with f = floor((n - 1) / 3)."""
    f = (n - 1) // 3
    return -(-(n + f + 1) // 2)


def merkle_root(data: Sequence[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, by its recursive definition."""
    if not data:
        return sha256(b"").digest()
    if len(data) == 1:
        return sha256(b"\x00" + data[0]).digest()
    split = 1
    while split * 2 < len(data):
        split *= 2
    return sha256(b"\x01" + merkle_root(data[:split]) + merkle_root(data[split:])).digest()


def signing(domain: bytes, network: bytes, body: bytes) -> bytes:
    """The bytes a signature covers."""
    return b"wattpact/1/" + domain + b"\x00" + network + body


def hash_of(network: bytes, header: bytes) -> bytes:
    """What validators vote for."""
    return sha256(signing(b"header", network, header)).digest()


def vote_of(network: bytes, phase: str, chain: int, height: int, view: int, hash_: bytes) -> bytes:
    """What a vote signs."""
    return signing(b"vote", network, msgpack.encode([phase, chain, height, view, hash_]))


class Reference:
    """Follows the final blocks of a chain, in height order, and says what is wrong with the first bad one."""

    def __init__(
        self,
        network: bytes,
        publics: Sequence[bytes],
        verify: VerifyCall,
        start_s: int,
        users: Sequence[bytes] | None,
        names: Sequence[str],
    ) -> None:
        """`users`: the keys of the tally contract; None: another contract runs, its state is not followed."""
        listed = [[name, public] for name, public in zip(names, publics, strict=True)]
        self._list_hash = sha256(msgpack.encode(listed)).digest()
        self._network = network
        self._publics = publics
        self._verify = verify
        self._users = users
        self._previous = network
        self.height = 0
        self.time_s = start_s
        self._nonces: dict[bytes, int] = {}
        self._state: dict[bytes, bytes] = {b"total": msgpack.encode(0)}
        self._sent = 0
        self._struck: list[int] = []
        "Leaders skipped in this term."
        self.final: dict[bytes, tuple[int, str]] = {}
        "txid -> (height, outcome)."

    def check_certificate(self, certified: bytes) -> str:
        """ "" or why the certificate does not prove the block that comes with it."""
        block, certificate = msgpack.decode(certified)
        header_bytes, _ = msgpack.decode(block)
        header = msgpack.decode(header_bytes)
        view, votes = msgpack.decode(certificate)
        indices = [index for index, _ in votes]
        if len(votes) != quorum_of(len(self._publics)) or indices != sorted({*indices}):
            return f"the certificate has the votes of {indices}"
        if view < header[5]:
            return "the certificate is older than the block"
        hash_ = hash_of(self._network, header_bytes)
        message = vote_of(self._network, "commit", header[1], header[2], view, hash_)
        for index, signature in votes:
            if not self._verify(self._publics[index], message, signature):
                return f"the vote of {index} in the certificate is not its own"
        return ""

    def follow(self, certified: bytes) -> str:
        """Take the next final block; "" or what is wrong with it."""
        header_bytes, transactions = msgpack.decode(msgpack.decode(certified)[0])
        header = msgpack.decode(header_bytes)
        height, n = self.height + 1, len(self._publics)
        expected = [2, 1, height, self._previous, (height - 1) // TERM_HEIGHTS]
        if header[:5] != expected:
            return f"the header's place {header[:5]} is not {expected}"
        if header[7] != self._leaders(height, n)[header[5] % n]:
            return f"validator {header[7]} may not propose in view {header[5]}"
        if header[15] != self._list_hash:
            return "the header names other validators for the next height"
        leaders = self._leaders(height, n)
        self._struck += [index for index in leaders[: header[5]] if index != header[7]]
        if header[6] < self.time_s:
            return "time runs backwards"
        if header[8] != merkle_root(transactions) or header[14] != len(transactions) or not transactions:
            return "the header does not commit to the transactions"
        self.height, self.time_s = height, header[6]
        self._previous = hash_of(self._network, header_bytes)
        return self._execute(header, transactions)

    def _leaders(self, height: int, n: int) -> list[int]:
        """Who leads the views of a height: drawn with weights 1 ... n by the tally so far.

        Without a tally in turn, those last that were skipped in this term: in this world nobody takes tickets.
        """
        if self._users is None:
            if height % TERM_HEIGHTS == 1:
                self._struck = []
            turn = [(height + view) % n for view in range(n)]
            return sorted(turn, key=self._struck.__contains__)
        seed = sha256(self._state[b"total"]).digest()
        chances = [index for index in range(n) for _ in range(index + 1)]
        found: list[int] = []
        while chances:
            step = b"wattpact/1/draw\x00" + seed + struct.pack(">QH", height, len(found))
            found.append(chances[int(sha256(step).hexdigest(), 16) % len(chances)])
            chances = [index for index in chances if index != found[-1]]
        return found

    def _execute(self, header: list[Any], transactions: list[bytes]) -> str:
        """Signatures, nonces and, for the tally contract, the state."""
        self._state[b"time"] = msgpack.encode(header[6])
        receipts: list[bytes] = []
        messages: list[bytes] = []
        for tx in transactions:
            payload, signer, signature = msgpack.decode(tx)
            kind, chain, nonce, fields = msgpack.decode(payload)
            txid = sha256(b"\x00" + payload + signer).digest()
            if chain != 1 or not self._verify(signer, signing(b"tx", self._network, payload), signature):
                return "a transaction is not signed for this chain"
            if self._users is not None and signer not in self._users:
                return "a stranger's transaction"
            if nonce != self._nonces.get(signer, 0) + 1:
                return f"nonce {nonce} after {self._nonces.get(signer, 0)}"
            self._nonces[signer] = nonce
            code = "" if kind in ("Add", "Send") else "refused"
            self.final[txid] = (header[2], code)
            receipts.append(msgpack.encode([txid, code]))
            self._state[b"nonce/" + sha256(signer).digest()[:8]] = msgpack.encode(nonce)
            if code == "":
                self._state[b"total"] = msgpack.encode(msgpack.decode(self._state[b"total"]) + 1)
            if kind == "Send":
                self._sent += 1
                self._state[b"outbox/0"] = msgpack.encode(self._sent)
                messages.append(msgpack.encode([1, 0, self._sent, "Hello", msgpack.encode(fields)]))
        if self._users is None:
            return ""
        roots = {
            9: merkle_root(receipts),
            10: merkle_root([msgpack.encode([key, value]) for key, value in self._state.items()]),
            11: merkle_root(messages),
        }
        for place, root in roots.items():
            if header[place] != root:
                return {9: "receipt", 10: "state", 11: "outbox"}[place] + " root is wrong"
        return ""
