"""Trades across areas in the state: what an area keeps of a trade, what the main chain keeps of trades and areas.

Every trade is a crossing of a certified matching. Its terms are the same bytes on the main chain and in both areas, and
its id names them: nothing that is said about one trade can be taken for another. Lives: watt_chain.cross.tables.
"""

from typing import Final, Literal

import msgspec

from watt_chain import codec, crypto
from watt_chain.contract.event import EventSpec

TOGETHER_MAX: Final = 8
"Trades that one call may name, and that may stand or fall together; a household has a handful of partners."
CROSSINGS_MAX: Final = 1024
"Trades across areas in one matching: their news to the areas and an anchor of their reports stay below 200 kB."

PORTFOLIO_MAX: Final = 3
"Partner areas that the cross-nodes hold streams to all the time, by energy traded; others are asked when needed."

Side = Literal["sell", "buy"]


class CrossTerms(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What both sides of a trade across areas agree on. Neither bid is in it: no area sees another area's book."""

    event: int
    number: int
    "Of the trade within the event, over all areas, from 1."
    seller_chain: int
    seller: bytes
    buyer_chain: int
    buyer: bytes
    slot_wh: list[int]
    price_u_per_wh: list[int]
    charge_u: int
    "The buyer pays (charge + 1) // 2, the seller charge // 2, each to the grid company of its area."

    @property
    def energy_wh(self) -> int:
        """Energy over all slots, Wh."""
        return sum(self.slot_wh)


class CrossTrade(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One area's half of a trade across areas."""

    terms: CrossTerms
    id: bytes
    side: Side
    "Which side lives in this area."
    state: str
    "tables.Buyer or tables.Seller"
    group: list[int]
    "Trades that the buyer locked together with this one, this one included; empty: it stands alone."
    limit_u_per_wh: int
    "In the buyer's area the price of its bid: what is locked for each Wh. Else 0."
    escrow_u: int
    bond_u: int
    "What the side that lives here has locked for this trade now."
    paid_u: int
    "What the trade came to; 0 until the seller's area has settled it."

    @property
    def user(self) -> bytes:
        """The account in this area."""
        return self.terms.seller if self.side == "sell" else self.terms.buyer


class CrossIndex(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Which trades across areas a user has in an event: what a household asks for by."""

    numbers: list[int]


class MainTrade(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What the main chain has recorded of a trade across areas."""

    terms: CrossTerms
    id: bytes
    state: str
    "tables.Beacon"
    group: list[int]
    value_u: int
    "Energy at the price of the buyer's bid: the most that can leave its area."
    paid_u: int
    reason: str
    "Why it ended without effect; empty otherwise."


class Position(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What an area may send out. Invariant: out + locked <= endowed + in."""

    endowed_u: int
    "Money that the grid company says it has paid into the area."
    rate_u: int
    "Most that the area's buyers may lock for other areas in one event."
    locked_u: int
    "Of trades whose lock is anchored and that are not over."
    out_u: int
    in_u: int
    event: int
    "The event that `rate_locked_u` counts for."
    rate_locked_u: int
    quarantine: str
    "Why nothing of the area is taken any more; empty: it is in good standing."


class Lane(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What the main chain knows of the messages from one area to another."""

    sequence: int
    "Last one that is anchored."
    told_from: int
    "From which height on the list of the source is in force that the target was last told; 0 = none."


class Transit(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Money that left an area for others, and came from others: held = deposited - withdrawn + received - sent."""

    sent_u: int
    received_u: int


def cross_key(event: int, number: int) -> bytes:
    """cross/<n>/<k>: CrossTrade in an area, MainTrade on the main chain."""
    return b"cross/%d/%d" % (event, number)


def position_key(chain: int) -> bytes:
    """position/<chain>: Position (main chain)."""
    return b"position/%d" % chain


def lane_key(source: int, target: int) -> bytes:
    """lane/<source>/<target>: Lane (main chain)."""
    return b"lane/%d/%d" % (source, target)


def source_key(chain: int) -> bytes:
    """inbox/<chain>: InboxCursor of another area's messages (area)."""
    return b"inbox/%d" % chain


def index_key(event: int, account: bytes) -> bytes:
    """trades/<n>/<id8>: CrossIndex (area)."""
    return b"trades/%d/" % event + account.hex().encode()


TRANSIT_KEY: Final = b"transit"
"Transit (area); written when something first crosses"


def trade_id(network: bytes, terms: CrossTerms) -> bytes:
    """Names a trade: SHA-256(signing("cross", terms))."""
    return crypto.sha256(codec.signing_bytes(b"cross", network, codec.encode(terms)))


def kill_after_s(spec: EventSpec) -> int:
    """From this time of the main chain on a trade without outcome may be ended: halfway from the end of confirmations
    to the window, so that both areas know before the first slot."""
    return spec.confirm_close_s + (spec.window_start_s - spec.confirm_close_s) // 2
