"""Who may be told what of an area's state (CONTRACT.md 15).

A household reads what is common to all and what is its own; the regulator's office reads everything. Keys come from
outside: whatever is not listed here is nobody's but the regulator's.
"""

from dataclasses import dataclass
from typing import Final

from watt_chain import crypto
from watt_chain.codec import DecodeError
from watt_chain.contract.access import read, signer_of
from watt_chain.contract.cross_objects import CrossTrade
from watt_chain.contract.objects import FOREVER, Account, Pair, Plug, Signer, account_key
from watt_chain.state import StateReader

COMMON: Final = frozenset(
    {
        b"beacon",
        b"candidate",
        b"crossnodes",
        b"duty",
        b"election",
        b"event",
        b"evidence",
        b"inbox",
        b"member",
        b"office",
        b"open",
        b"pool",
        b"rules",
        b"strength",
        b"supply",
        b"transit",
        b"validators",
    }
)
"""First words of keys that say nothing of a single household."""
OWN: Final = {
    b"account": 2,
    b"user": 2,
    b"rp": 2,
    b"standing": 2,
    b"sealed": 3,
    b"register": 3,
    b"result": 3,
    b"trades": 3,
}
"""First words of keys whose last part is the account that the object is about, and of how many parts they consist."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who asks: a key, and what the chain knows of it."""

    key_id: bytes
    account: bytes
    "The account that the key signs for; while there is none, the one that it would get."
    everything: bool
    "Whether it is the regulator's."


def reader_of(state: StateReader, public: bytes) -> Reader | None:
    """Who a public key is; None for a key that was taken from its account."""
    key_id = crypto.id8(public)
    signer = signer_of(state, public)
    if signer is None:
        return Reader(key_id, key_id, False)
    if signer.to_height != FOREVER:
        return None
    account = read(state, account_key(signer.account), Account)
    return Reader(key_id, signer.account, account is not None and account.role == "regulator")


def may_read(state: StateReader, reader: Reader, key: bytes) -> bool:
    """Whether the object under `key` may be shown to the reader."""
    if reader.everything:
        return True
    word, *rest = key.split(b"/")
    if word in COMMON:
        return True
    if word in OWN:
        return len(rest) + 1 == OWN[word] and rest[-1] == reader.account.hex().encode()
    try:
        return _is_party(state, reader, key, word, rest)
    except DecodeError:
        return False


def _is_party(state: StateReader, reader: Reader, key: bytes, word: bytes, rest: list[bytes]) -> bool:
    """Whether the object itself names the reader; an object that is not there names nobody."""
    if word == b"signer":
        signer = read(state, key, Signer)
        return rest == [reader.key_id.hex().encode()] or (signer is not None and signer.account == reader.account)
    if (word, len(rest)) in ((b"plug", 1), (b"history", 2)):
        plug = read(state, b"plug/" + rest[0], Plug)
        return plug is not None and plug.owner == reader.account
    if word == b"pair":
        pair = read(state, key, Pair)
        return pair is not None and reader.account in (pair.seller, pair.buyer)
    if word == b"cross":
        trade = read(state, key, CrossTrade)
        return trade is not None and reader.account == trade.user
    return False
