"""A second implementation of what a final chain must be, for the tally contract (CONSENSUS.md 2, 3 and 8).

It shares no code with watt_chain: a bug planted there, or made there, is not in here as well. Only hashlib and
msgpack are used, and everything is recomputed from the bytes in the plainest way. Of an area's contract it follows who
validates and who leads (`reference_election`), not the state.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

from msgspec import msgpack

from watt_sim.plain import draw, hash_of, merkle_root, quorum_of, signing, vote_of
from watt_sim.reference_election import Elections

NOTICE_HEIGHTS = 2
TERM_HEIGHTS = 64
VerifyCall = Callable[[bytes, bytes, bytes], bool]
Listed = list[tuple[int, str, bytes]]
"""A list of validators: (number, name, public key)."""


def hash_of_list(listed: Listed) -> bytes:
    """What a header says of the next height's validators."""
    return sha256(msgpack.encode([[name, public] for _, name, public in listed])).digest()


class Reference:
    """Follows the final blocks of a chain, in height order, and says what is wrong with the first bad one."""

    def __init__(
        self,
        network: bytes,
        verify: VerifyCall,
        start_s: int,
        listed: Listed,
        users: Sequence[bytes] | None,
        slots: int = 0,
        strengths_ppm: Sequence[int] = (),
        proofs: bool = False,
    ) -> None:
        """`users`, `slots`: of the tally contract; None: an area's runs, with nodes of these strengths.

        `proofs`: signatures are real ones, so that an area's contract takes evidence.
        """
        self._network = network
        self._verify = verify
        self._users = users
        self._previous = network
        self.lists: dict[int, Listed] = {1: listed}
        "Validators of every height up to the next one."
        self._waiting: tuple[int, Listed] | None = None
        "(height, list) of a change that is to come."
        self._sequence = 0
        "Of the last change, in an area."
        judge = verify if proofs else None
        self._elections = Elections(network, listed, strengths_ppm, judge) if users is None else None
        self.height = 0
        self.time_s = start_s
        self._nonces: dict[bytes, int] = {}
        self._state: dict[bytes, bytes] = {b"total": msgpack.encode(0), b"list": msgpack.encode(listed)}
        self._state |= {b"slot/%d" % slot: msgpack.encode(slot) for slot in range(slots)}
        self._sent = 0
        self.is_blind = False
        "Blocks are not followed any more."
        self.final: dict[bytes, tuple[int, str]] = {}
        "txid -> (height, outcome)."

    def reached(self) -> list[str]:
        """What is rare about the elections at the present height."""
        return [] if self._elections is None or self.is_blind else self._elections.reached()

    def publics(self, height: int) -> list[bytes]:
        """Keys of the validators of a height, by index; empty when the height is not known yet."""
        return [public for _, _, public in self.lists.get(height, ())]

    def check_certificate(self, certified: bytes) -> str:
        """ "" or why the certificate does not prove the block that comes with it."""
        block, certificate = msgpack.decode(certified)
        return self.check_header(msgpack.decode(block)[0], certificate)

    def check_header(self, header_bytes: bytes, certificate: bytes, listed: Listed | None = None) -> str:
        """ "" or why the certificate does not prove this header; `listed`: its validators, when we cannot know them."""
        header = msgpack.decode(header_bytes)
        view, votes = msgpack.decode(certificate)
        indices = [index for index, _ in votes]
        publics = self.publics(header[2]) if listed is None else [public for _, _, public in listed]
        if len(votes) != quorum_of(len(publics)) or indices != sorted({*indices}):
            return f"the certificate has the votes of {indices}"
        if view < header[5]:
            return "the certificate is older than the block"
        hash_ = hash_of(self._network, header_bytes)
        message = vote_of(self._network, "commit", header[1], header[2], view, hash_)
        for index, signature in votes:
            if not self._verify(publics[index], message, signature):
                return f"the vote of {index} in the certificate is not its own"
        return ""

    def follow(self, certified: bytes) -> str:
        """Take the next final block; "" or what is wrong with it."""
        header_bytes, transactions = msgpack.decode(msgpack.decode(certified)[0])
        header = msgpack.decode(header_bytes)
        if self.is_blind:
            self.height = header[2]
            self.lists[self.height + 1] = self.lists[self.height]
            return ""
        height = self.height + 1
        listed = self.lists[height]
        n = len(listed)
        expected = [2, 1, height, self._previous, (height - 1) // TERM_HEIGHTS]
        if header[:5] != expected:
            return f"the header's place {header[:5]} is not {expected}"
        leaders = self._leaders(height, listed)
        if header[7] != leaders[header[5] % n]:
            return f"validator {header[7]} may not propose in view {header[5]}"
        if header[6] < self.time_s:
            return "time runs backwards"
        if header[8] != merkle_root(transactions) or header[14] != len(transactions) or not transactions:
            return "the header does not commit to the transactions"
        self.height, self.time_s = height, header[6]
        self._previous = hash_of(self._network, header_bytes)
        return self._execute(header, transactions, leaders)

    def jump(self, header_bytes: bytes, entries: Sequence[tuple[bytes, bytes]]) -> str:
        """Go on from a state that only bad validators had made final before; "" or what is wrong with it.

        Of an area's contract the election cannot be taken up again: its blocks are not followed any more.
        """
        header = msgpack.decode(header_bytes)
        if header[10] != merkle_root([msgpack.encode([key, value]) for key, value in entries]):
            return "state root is wrong"
        self._state = dict(entries)
        if self._users is None:
            _, seated, numbers, *_ = msgpack.decode(self._state[b"validators"])
            listed = [(number, *one) for number, one in zip(numbers, seated, strict=True)]
        else:
            listed = [tuple(one) for one in msgpack.decode(self._state[b"list"])]
        if header[15] != hash_of_list(listed):
            return "the state has other validators than its header"
        self.height, self.time_s, self._previous = header[2], header[6], hash_of(self._network, header_bytes)
        self.lists[self.height + 1] = listed
        self.is_blind = self._users is None
        self._sent = msgpack.decode(self._state.get(b"outbox/0", b"\x00"))
        if b"list/next" in self._state:
            first, waiting = msgpack.decode(self._state[b"list/next"])
            self._waiting = (first, [tuple(one) for one in waiting])
        for signer in (*(self._users or ()), *(public for held in self.lists.values() for _, _, public in held)):
            found = self._state.get(b"nonce/" + sha256(signer).digest()[:8])
            if found is not None:
                self._nonces[signer] = msgpack.decode(found)
        return ""

    def _leaders(self, height: int, listed: Listed) -> list[int]:
        """Who leads the views of a height: by election in an area, else drawn with weights 1 ... n by the tally."""
        if self._elections is not None:
            return self._elections.order(height, listed)
        return draw(sha256(self._state[b"total"]).digest(), height, range(1, len(listed) + 1))

    def _execute(self, header: list[Any], transactions: list[bytes], leaders: list[int]) -> str:
        """Signatures, nonces, the list and, for the tally contract, the state."""
        height = header[2]
        after = self.lists[height]
        if self._elections is not None:
            self._elections.begin(height, header[5], after, leaders)
        self._state[b"time"] = msgpack.encode(header[6])
        if self._waiting is not None and self._waiting[0] == height + 1:
            after = self._waiting[1]
            self._state[b"list"] = msgpack.encode(after)
            if self._elections is not None:
                self._elections.seat(after, height + 1)
        self.lists[height + 1] = after
        if header[15] != hash_of_list(after):
            return "the header names other validators for the next height"
        receipts: list[bytes] = []
        messages: list[bytes] = []
        for tx in transactions:
            payload, signer, signature = msgpack.decode(tx)
            kind, chain, nonce, fields = msgpack.decode(payload)
            txid = sha256(b"\x00" + payload + signer).digest()
            if chain != 1 or not self._verify(signer, signing(b"tx", self._network, payload), signature):
                return "a transaction is not signed for this chain"
            if self._users is not None and signer not in self._users and signer not in self.publics(height + 1):
                return "a stranger's transaction"
            if self._elections is not None and self._elections.is_dead(signer):
                return "a transaction by a key that is no validator's any more"
            account = signer if self._elections is None else self._elections.account(signer)
            if nonce != self._nonces.get(account, 0) + 1:
                return f"nonce {nonce} after {self._nonces.get(account, 0)}"
            self._nonces[account] = nonce
            self._state[b"nonce/" + sha256(signer).digest()[:8]] = msgpack.encode(nonce)
            code = self._call(height, kind, signer, fields)
            self.final[txid] = (height, code)
            receipts.append(msgpack.encode([txid, code]))
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

    def _call(self, height: int, kind: str, signer: bytes, fields: Any) -> str:
        """The outcome of a call, as far as it is followed."""
        if self._elections is not None:
            if kind == "Validators":
                self._change(height, *fields)
            else:
                self._elections.call(height, kind, signer, fields, self.lists[height])
            return ""
        if kind == "List":
            if fields[0] < height + NOTICE_HEIGHTS:
                return "too-soon"
            self._waiting = (fields[0], [tuple(one) for one in fields[1]])
            self._state[b"list/next"] = msgpack.encode(fields)
        return "" if kind in ("Add", "Send", "List") else "refused"

    def _change(self, height: int, sequence: int, from_height: int, validators: list[tuple[str, bytes]]) -> None:
        """An area's change of the list, by the regulator; names end with the number of the node."""
        if sequence == self._sequence + 1 and from_height >= height + NOTICE_HEIGHTS:
            self._sequence = sequence
            self._waiting = (from_height, [(int(name[4:]), name, public) for name, public in validators])
