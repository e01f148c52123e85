"""A trade across areas has one life on each chain it touches: three tables, and nothing else decides.

Strategy. The buyer's area locks the money first and decides nothing. The seller's area holds the offer and decides
exactly once. The main chain records at most one outcome of a trade, whatever reaches it, and only what it recorded
has effect: the buyer's area never gives money back by its own clock, and a seller's acceptance binds nobody until it
is anchored. With one fallible party left when the decision falls there is no state in doubt. When the seller's area
stays silent the main chain's KILL ends the trade after a deadline in the main chain's heights.

With three areas or more nobody is the single seller: every area locks its part and the main chain decides itself.

    table[state][trigger] = (next state, effects)

A trigger that is not in the row of the state is refused with "stage" when a caller makes it, and is without effect when
a message brings it (a replay, or an outcome that comes after the end). What each effect does to accounts and boxes is
the contract's part; `watt_sim.cross_model` explores these same tables exhaustively.
"""

from enum import StrEnum
from typing import Final


class Buyer(StrEnum):
    """Life of a trade in the area of a buyer."""

    NONE = "NONE"
    LOCKED = "LOCKED"
    BOUND = "BOUND"
    REFUNDED = "REFUNDED"
    PAID = "PAID"
    REFUSED = "REFUSED"
    "The main chain recorded an outcome before anything was locked here; nothing can be locked any more."


class Seller(StrEnum):
    """Life of a trade in the area of a seller."""

    NONE = "NONE"
    HELD = "HELD"
    "Three areas or more: the offer is locked and the main chain decides."
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    EFFECTIVE = "EFFECTIVE"
    RELEASED = "RELEASED"
    SETTLED = "SETTLED"
    CREDITED = "CREDITED"


class Beacon(StrEnum):
    """Outcome of a trade on the main chain."""

    NONE = "NONE"
    ACCEPT = "ACCEPT"
    REJECT = "REJECT"
    KILL = "KILL"


class Trigger(StrEnum):
    """What moves a trade. Calls are made by anyone entitled; the others are messages of another chain."""

    LOCK = "lock"
    "Call: the intent, signed by both; the buyer's money is free and enough."
    HOLD = "hold"
    "Call, three areas or more: the seller's part; the offer is open."
    LOCKED = "locked"
    "Message of the buyer's area; the offer is open and the seller's deadline is not over."
    LOCKED_LATE = "locked-late"
    "The same message when the offer is gone or the deadline over."
    EXPIRE = "expire"
    "Call: the seller's deadline is over and nothing was decided."
    ACCEPT = "accept"
    "Message of the seller's area, taken by the main chain after it re-executed the block that sent it."
    REJECT = "reject"
    ALL_LOCKED = "all-locked"
    "Three areas or more: the last LOCKED reached the main chain in time."
    KILL = "kill"
    "Call: the main chain's deadline is over and nothing was recorded."
    ANCHORED_ACCEPT = "anchored-accept"
    "Message of the main chain."
    ANCHORED_END = "anchored-end"
    "Message of the main chain: REJECT or KILL."
    SETTLE = "settle"
    "Call: metered, and the time for disputes is over."
    SETTLED = "settled"
    "Message of the seller's area: what was delivered and what it costs."
    PAY = "pay"
    "Message of the buyer's area."


class Effect(StrEnum):
    """What a step does besides changing the state."""

    ESCROW = "escrow"
    "Buyer's money to escrow."
    REFUND = "refund"
    "Escrow back to the buyer."
    CONSUME = "consume"
    "The offer is taken."
    RELEASE = "release"
    "The offer is open again, the seller's bond free."
    CREDIT = "credit"
    "The payment to the seller."
    SPEND = "spend"
    "Escrow to the payment, the rest back to the buyer."
    SEND_LOCKED = "send-locked"
    SEND_ACCEPT = "send-accept"
    SEND_REJECT = "send-reject"
    SEND_OUTCOME = "send-outcome"
    SEND_SETTLED = "send-settled"
    SEND_PAY = "send-pay"


BuyerTable = dict[Buyer, dict[Trigger, tuple[Buyer, tuple[Effect, ...]]]]
SellerTable = dict[Seller, dict[Trigger, tuple[Seller, tuple[Effect, ...]]]]
BeaconTable = dict[Beacon, dict[Trigger, tuple[Beacon, tuple[Effect, ...]]]]

BUYER: Final[BuyerTable] = {
    Buyer.NONE: {
        Trigger.LOCK: (Buyer.LOCKED, (Effect.ESCROW, Effect.SEND_LOCKED)),
        # Only a seller's area that lies can bring this about: money locked after the last word would stay locked.
        Trigger.ANCHORED_ACCEPT: (Buyer.REFUSED, ()),
        Trigger.ANCHORED_END: (Buyer.REFUSED, ()),
    },
    Buyer.LOCKED: {
        Trigger.ANCHORED_ACCEPT: (Buyer.BOUND, ()),
        Trigger.ANCHORED_END: (Buyer.REFUNDED, (Effect.REFUND,)),
    },
    Buyer.BOUND: {Trigger.SETTLED: (Buyer.PAID, (Effect.SPEND, Effect.SEND_PAY))},
    Buyer.REFUNDED: {},
    Buyer.PAID: {},
    Buyer.REFUSED: {},
}
SELLER: Final[SellerTable] = {
    Seller.NONE: {
        Trigger.LOCKED: (Seller.ACCEPTED, (Effect.CONSUME, Effect.SEND_ACCEPT)),
        Trigger.LOCKED_LATE: (Seller.REJECTED, (Effect.SEND_REJECT,)),
        Trigger.EXPIRE: (Seller.REJECTED, (Effect.SEND_REJECT,)),
        Trigger.HOLD: (Seller.HELD, (Effect.CONSUME, Effect.SEND_LOCKED)),
        # The main chain gave the trade up before it came here: nothing may be accepted any more.
        Trigger.ANCHORED_END: (Seller.REJECTED, ()),
    },
    Seller.HELD: {
        Trigger.ANCHORED_ACCEPT: (Seller.EFFECTIVE, ()),
        Trigger.ANCHORED_END: (Seller.RELEASED, (Effect.RELEASE,)),
    },
    Seller.ACCEPTED: {
        Trigger.ANCHORED_ACCEPT: (Seller.EFFECTIVE, ()),
        Trigger.ANCHORED_END: (Seller.RELEASED, (Effect.RELEASE,)),
    },
    Seller.REJECTED: {},
    Seller.EFFECTIVE: {Trigger.SETTLE: (Seller.SETTLED, (Effect.SEND_SETTLED,))},
    Seller.RELEASED: {},
    Seller.SETTLED: {Trigger.PAY: (Seller.CREDITED, (Effect.CREDIT,))},
    Seller.CREDITED: {},
}
BEACON: Final[BeaconTable] = {
    Beacon.NONE: {
        Trigger.ACCEPT: (Beacon.ACCEPT, (Effect.SEND_OUTCOME,)),
        Trigger.REJECT: (Beacon.REJECT, (Effect.SEND_OUTCOME,)),
        Trigger.ALL_LOCKED: (Beacon.ACCEPT, (Effect.SEND_OUTCOME,)),
        Trigger.KILL: (Beacon.KILL, (Effect.SEND_OUTCOME,)),
    },
    Beacon.ACCEPT: {},
    Beacon.REJECT: {},
    Beacon.KILL: {},
}
