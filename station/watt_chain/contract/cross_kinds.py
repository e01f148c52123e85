"""Calls and messages of trades across areas: rows of the table of kinds, bodies of messages.

`CrossOp` is the one call of both sides in every area (model.md H12): who signs it says which side it is.
"""

from typing import Annotated, Final, Literal

import msgspec

from watt_chain.contract.cross_objects import CROSSINGS_MAX, PORTFOLIO_MAX, TOGETHER_MAX
from watt_chain.contract.event import State
from watt_chain.contract.fields import Chain, Count, Hash, Kind, Money, Number
from watt_chain.genesis import Validator
from watt_chain.resume import RESUME, Resume


class CrossOp(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One side of trades across areas takes them or refuses them (H10 to H13).

    A buyer that takes several at once locks them together: all of them come about, or none.
    """

    event: Number
    trades: Annotated[list[Number], msgspec.Meta(min_length=1, max_length=TOGETHER_MAX)]
    "Ascending."
    accept: bool


class Endow(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """How much money the grid company has paid into an area so far, and the most its buyers may lock in an event."""

    chain: Chain
    endowed_u: Money
    rate_u: Money


class CrossEnd(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """End every trade of an event that is overdue: KILL without outcome, VOID without settlement."""

    event: Number


class PartnerBlock(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A certified block of a partner area: header and certificate."""

    header: bytes
    certificate: bytes


class CrossReady(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A node that was drawn as cross-node follows the partners of the portfolio: one block of each, in its order."""

    event: Number
    "At whose end it was drawn."
    blocks: Annotated[list[PartnerBlock], msgspec.Meta(max_length=PORTFOLIO_MAX)]


class Fork(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Two certified blocks of one area at one height."""

    first: PartnerBlock
    second: PartnerBlock


class Refute(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A certified block of an area, the next after the last anchored one, that does not execute to its own header."""

    header: bytes
    certificate: bytes


class Readmit(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """An area in quarantine goes on from its last anchored block under this list."""

    chain: Chain
    validators: list[Validator]


AREA_KINDS: Final[dict[str, Kind]] = {
    "CrossOp": Kind(
        ("user",),
        (State.MATCHED,),
        CrossOp,
        "event, sealed, cross, account, rules",
        "cross, account; emits CrossLocked to the seller's area, CrossReport",
        (
            "unknown-event",
            "stage",
            "order",
            "unknown-trade",
            "not-yours",
            "same-area",
            "no-choice",
            "suspended",
            "decided",
            "balance",
            "busy",
        ),
    ),
    "CrossReady": Kind(
        ("validator",),
        (),
        CrossReady,
        "crossnodes, validators/<chain>, inbox/<chain>",
        "crossnodes",
        ("stage", "not-chosen", "decided", "partners", "proof", "stale"),
    ),
    RESUME: Kind(
        ("regulator",),
        (),
        Resume,
        "validators, member, signer",
        "validators, member, account, signer, before anything else of its block",
        ("not-first", "height", "previous", "sequence", "size", "name-twice", "key-twice", "name", "key", "key-used"),
    ),
}
MAIN_KINDS: Final[dict[str, Kind]] = {
    "Endow": Kind(("grid",), (), Endow, "areas, position", "position", ("chain", "below")),
    "CrossEnd": Kind(
        ("aggregator", "grid", "regulator", "validator"),
        (),
        CrossEnd,
        "event, cross",
        "cross, position; emits CrossNews to both areas",
        ("unknown-event", "early"),
    ),
    "Fork": Kind(
        ("aggregator", "grid", "regulator", "validator"),
        (),
        Fork,
        "anchor, validators/<chain>, fork",
        "fork, position, cross; emits CrossNews",
        ("proof", "no-conflict", "chain", "known", "stale"),
    ),
    "Refute": Kind(
        ("validator",),
        (),
        Refute,
        "anchor, validators, refuted",
        "refuted; from f + 1 masters on position, cross; emits CrossNews",
        ("proof", "chain", "height", "previous", "not-validator", "known"),
    ),
    "Readmit": Kind(
        ("regulator",),
        (),
        Readmit,
        "anchor, position, lane",
        "position, validators/<chain>; emits Partner",
        ("chain", "not-quarantined", "size", "name-twice", "key-twice", "key", "key-used"),
    ),
}


# Message from one area to another, which the main chain reads when it anchors the block.


class CrossLocked(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """kind "CrossLocked": the buyer's money is locked for these trades, all with sellers of the target."""

    event: Number
    trades: Annotated[list[tuple[Number, Hash]], msgspec.Meta(min_length=1, max_length=TOGETHER_MAX)]
    "(number, id)"
    group: Annotated[list[Number], msgspec.Meta(max_length=TOGETHER_MAX)]
    "All trades that were locked together, in whatever area their sellers are; empty: each stands alone."


# Message from an area to the main chain.


class CrossReport(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """kind "CrossReport": what an area did with its halves of trades."""

    event: Number
    trades: Annotated[
        list[tuple[Number, Hash, Literal["accept", "reject", "settled", "returned", "pay"], Money]],
        msgspec.Meta(min_length=1, max_length=CROSSINGS_MAX),
    ]
    "(number, id, what, what it came to: only of `settled`, else 0)"


# Messages from the main chain to an area.


class CrossNews(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """kind "CrossNews": what the main chain recorded of trades."""

    event: Number
    trades: Annotated[
        list[tuple[Number, Literal["anchored-accept", "anchored-end", "settled", "returned", "void", "pay"], Money]],
        msgspec.Meta(min_length=1, max_length=CROSSINGS_MAX),
    ]
    "(number, what, what it came to: of `settled` and `pay`, else 0)"


class Beacon(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """kind "Beacon": the main chain's seed when it priced an event (CONSENSUS.md 6.4); areas draw their cross-nodes."""

    event: Number
    seed: Hash


class Partner(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """kind "Partner": who certifies the blocks of another area from a height on, and what is known of those before it.

    Messages of `chain` to this area up to `sequence` are done with: their locks that are without an outcome stand in
    `locked`, so no block from before `from_height` is needed any more.
    """

    chain: Chain
    from_height: Count
    validators: list[Validator]
    sequence: Count
    locked: list[tuple[Number, Number]]
    "(event, trade)"
    seed: Hash
    "The main chain's seed at that time: an area without cross-nodes draws its first ones."
