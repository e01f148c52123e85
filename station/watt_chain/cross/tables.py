"""A trade across areas has one life on each chain it touches: three tables, and nothing else decides.

Strategy. The main chain makes the trade (it is part of a certified matching) and tells both areas. The seller consents
in its area, the buyer's area locks the money and decides nothing; the seller's area decides exactly once. The main
chain records at most one outcome of a trade, whatever reaches it, and only what it recorded has effect: the buyer's
area never gives money back by its own clock, and a seller's acceptance binds nobody until it is anchored. With one
fallible party left when the decision falls there is no state in doubt. When an area stays silent the main chain's KILL
ends the trade after a deadline, and VOID ends an accepted trade that nobody settles.

An acceptance is recorded only beside the lock it answers, both taken from blocks that the masters executed again: a
lock that the buyer's area made up binds no seller, an acceptance made up by the seller's area binds no buyer. What an
area's seller delivered, and the money that pays for it, pass through the main chain for the same reason.

Trades that a buyer locks together (three areas or more) have no single seller: each seller's area accepts its part,
and the main chain decides when the last part is there.

    table[state][trigger] = (next state, effects)

A trigger that is not in the row of the state is refused with "decided" when a caller makes it, and is without effect
when a message brings it (a replay, or an outcome that comes after the end). What each effect does to accounts and boxes
is the contract's part; `watt_sim.cross_model` explores these same tables exhaustively.
"""

from enum import StrEnum
from typing import Final


class Buyer(StrEnum):
    """Life of a trade in the area of its buyer."""

    NONE = "NONE"
    LOCKED = "LOCKED"
    BOUND = "BOUND"
    REFUNDED = "REFUNDED"
    PAID = "PAID"
    RETURNED = "RETURNED"
    "The contract stood, and nothing is paid: the seller's data is missing, or its area did not settle in time."
    REFUSED = "REFUSED"
    "Nothing was locked in time, or the main chain recorded an outcome before: nothing can be locked any more."


class Seller(StrEnum):
    """Life of a trade in the area of its seller."""

    NONE = "NONE"
    OFFERED = "OFFERED"
    "The seller consents; its bond is locked."
    ASKED = "ASKED"
    "The buyer's money is locked, the seller has not said anything yet."
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    EFFECTIVE = "EFFECTIVE"
    RELEASED = "RELEASED"
    SETTLED = "SETTLED"
    CREDITED = "CREDITED"
    RETURNED = "RETURNED"


class Beacon(StrEnum):
    """Life of a trade on the main chain. ACCEPT, REJECT and KILL are outcomes; the first that is recorded stands."""

    NONE = "NONE"
    LOCKED = "LOCKED"
    ACCEPTED = "ACCEPTED"
    "The seller's area accepted; the block with the buyer's lock is not anchored yet."
    READY = "READY"
    "One of several trades that stand or fall together: both its parts are there."
    ACCEPT = "ACCEPT"
    REJECT = "REJECT"
    KILL = "KILL"
    SETTLED = "SETTLED"
    PAID = "PAID"
    RETURNED = "RETURNED"
    VOID = "VOID"


class Trigger(StrEnum):
    """What moves a trade. Calls and deadlines act in an area; the others are messages of another chain."""

    LOCK = "lock"
    "Call of the buyer; its money is free and enough."
    CONSENT = "consent"
    "Call of the seller; its money is enough for the bond."
    DECLINE = "decline"
    "Call of either side, before it has locked or the area has accepted."
    LAPSE = "lapse"
    "The deadline for confirmations is over, or the area's event was aborted."
    LOCKED = "locked"
    "Message of the buyer's area."
    ACCEPT = "accept"
    "Message of the seller's area, taken by the main chain after the block that sent it was executed again."
    REJECT = "reject"
    JOIN = "join"
    "As `locked` or `accept`, whichever comes last, for a trade that stands or falls with others."
    ALL_READY = "all-ready"
    "The last trade of those that stand or fall together has both its parts."
    OVER = "over"
    "A lock above what the buyer's area may send out, or of an area in quarantine."
    KILL = "kill"
    "The main chain's deadline is over and nothing was recorded; or a trade it stands or falls with has ended."
    ANCHORED_ACCEPT = "anchored-accept"
    "Message of the main chain."
    ANCHORED_END = "anchored-end"
    "Message of the main chain: REJECT or KILL."
    SETTLE = "settle"
    "The seller's area has metered what was delivered."
    SETTLE_EMPTY = "settle-empty"
    "The same when there is nothing to pay for: the seller's data is missing, or its area's event was aborted."
    SETTLED = "settled"
    "What was delivered and what it costs: message of the seller's area to the main chain, which tells the buyer's."
    RETURNED = "returned"
    "The same with nothing to pay."
    VOID = "void"
    "The main chain closes an event, or its last deadline is over, and the trade was accepted but never settled."
    PAY = "pay"
    "Money has left the buyer's area: message to the main chain, which tells the seller's area."


class Effect(StrEnum):
    """What a step does besides changing the state."""

    ESCROW = "escrow"
    "Buyer's money to escrow and bond."
    REFUND = "refund"
    "Escrow and bond back to the buyer."
    CONSUME = "consume"
    "Seller's part of the charge to escrow, its bond locked."
    RELEASE = "release"
    "Escrow and bond back to the seller."
    CREDIT = "credit"
    "The payment to the seller."
    SPEND = "spend"
    "Escrow to the payment, which leaves the area, and to the charge; the rest back to the buyer."
    RESERVE = "reserve"
    "The value counts as leaving the buyer's area."
    UNRESERVE = "unreserve"
    TRANSFER = "transfer"
    "The payment counts as moved from one area to the other."
    SEND_LOCKED = "send-locked"
    SEND_ACCEPT = "send-accept"
    SEND_REJECT = "send-reject"
    SEND_OUTCOME = "send-outcome"
    SEND_SETTLED = "send-settled"
    SEND_RETURNED = "send-returned"
    SEND_PAY = "send-pay"


BuyerTable = dict[Buyer, dict[Trigger, tuple[Buyer, tuple[Effect, ...]]]]
SellerTable = dict[Seller, dict[Trigger, tuple[Seller, tuple[Effect, ...]]]]
BeaconTable = dict[Beacon, dict[Trigger, tuple[Beacon, tuple[Effect, ...]]]]

BUYER: Final[BuyerTable] = {
    Buyer.NONE: {
        Trigger.LOCK: (Buyer.LOCKED, (Effect.ESCROW, Effect.SEND_LOCKED)),
        Trigger.DECLINE: (Buyer.REFUSED, ()),
        Trigger.LAPSE: (Buyer.REFUSED, ()),
        # Money locked after the last word would stay locked.
        Trigger.ANCHORED_END: (Buyer.REFUSED, ()),
    },
    Buyer.LOCKED: {
        Trigger.ANCHORED_ACCEPT: (Buyer.BOUND, ()),
        Trigger.ANCHORED_END: (Buyer.REFUNDED, (Effect.REFUND,)),
    },
    Buyer.BOUND: {
        Trigger.SETTLED: (Buyer.PAID, (Effect.SPEND, Effect.SEND_PAY)),
        Trigger.RETURNED: (Buyer.RETURNED, (Effect.REFUND,)),
        Trigger.VOID: (Buyer.RETURNED, (Effect.REFUND,)),
    },
    Buyer.REFUNDED: {},
    Buyer.PAID: {},
    Buyer.RETURNED: {},
    Buyer.REFUSED: {},
}
SELLER: Final[SellerTable] = {
    Seller.NONE: {
        Trigger.CONSENT: (Seller.OFFERED, (Effect.CONSUME,)),
        Trigger.LOCKED: (Seller.ASKED, ()),
        Trigger.DECLINE: (Seller.REJECTED, (Effect.SEND_REJECT,)),
        Trigger.LAPSE: (Seller.REJECTED, (Effect.SEND_REJECT,)),
        # The main chain gave the trade up before anybody moved: nothing may be accepted any more.
        Trigger.ANCHORED_END: (Seller.REJECTED, ()),
    },
    Seller.OFFERED: {
        Trigger.LOCKED: (Seller.ACCEPTED, (Effect.SEND_ACCEPT,)),
        Trigger.DECLINE: (Seller.REJECTED, (Effect.RELEASE, Effect.SEND_REJECT)),
        Trigger.LAPSE: (Seller.REJECTED, (Effect.RELEASE, Effect.SEND_REJECT)),
        Trigger.ANCHORED_END: (Seller.REJECTED, (Effect.RELEASE,)),
    },
    Seller.ASKED: {
        Trigger.CONSENT: (Seller.ACCEPTED, (Effect.CONSUME, Effect.SEND_ACCEPT)),
        Trigger.DECLINE: (Seller.REJECTED, (Effect.SEND_REJECT,)),
        Trigger.LAPSE: (Seller.REJECTED, (Effect.SEND_REJECT,)),
        Trigger.ANCHORED_END: (Seller.REJECTED, ()),
    },
    Seller.ACCEPTED: {
        Trigger.ANCHORED_ACCEPT: (Seller.EFFECTIVE, ()),
        Trigger.ANCHORED_END: (Seller.RELEASED, (Effect.RELEASE,)),
    },
    Seller.REJECTED: {},
    Seller.EFFECTIVE: {
        Trigger.SETTLE: (Seller.SETTLED, (Effect.SEND_SETTLED,)),
        Trigger.SETTLE_EMPTY: (Seller.RETURNED, (Effect.RELEASE, Effect.SEND_RETURNED)),
        Trigger.VOID: (Seller.RETURNED, (Effect.RELEASE,)),
    },
    Seller.RELEASED: {},
    Seller.SETTLED: {
        Trigger.PAY: (Seller.CREDITED, (Effect.CREDIT,)),
        Trigger.VOID: (Seller.RETURNED, (Effect.RELEASE,)),
    },
    Seller.CREDITED: {},
    Seller.RETURNED: {},
}
_END: Final = (Effect.UNRESERVE, Effect.SEND_OUTCOME)
BEACON: Final[BeaconTable] = {
    Beacon.NONE: {
        Trigger.LOCKED: (Beacon.LOCKED, (Effect.RESERVE,)),
        Trigger.ACCEPT: (Beacon.ACCEPTED, ()),
        Trigger.REJECT: (Beacon.REJECT, (Effect.SEND_OUTCOME,)),
        Trigger.OVER: (Beacon.KILL, (Effect.SEND_OUTCOME,)),
        Trigger.KILL: (Beacon.KILL, (Effect.SEND_OUTCOME,)),
    },
    Beacon.LOCKED: {
        Trigger.ACCEPT: (Beacon.ACCEPT, (Effect.SEND_OUTCOME,)),
        Trigger.JOIN: (Beacon.READY, ()),
        Trigger.REJECT: (Beacon.REJECT, _END),
        Trigger.KILL: (Beacon.KILL, _END),
    },
    Beacon.ACCEPTED: {
        Trigger.LOCKED: (Beacon.ACCEPT, (Effect.RESERVE, Effect.SEND_OUTCOME)),
        Trigger.JOIN: (Beacon.READY, (Effect.RESERVE,)),
        Trigger.OVER: (Beacon.KILL, (Effect.SEND_OUTCOME,)),
        Trigger.KILL: (Beacon.KILL, (Effect.SEND_OUTCOME,)),
    },
    Beacon.READY: {
        Trigger.ALL_READY: (Beacon.ACCEPT, (Effect.SEND_OUTCOME,)),
        Trigger.KILL: (Beacon.KILL, _END),
    },
    Beacon.ACCEPT: {
        Trigger.SETTLED: (Beacon.SETTLED, (Effect.SEND_SETTLED,)),
        Trigger.RETURNED: (Beacon.RETURNED, (Effect.UNRESERVE, Effect.SEND_RETURNED)),
        Trigger.VOID: (Beacon.VOID, _END),
    },
    Beacon.REJECT: {},
    Beacon.KILL: {},
    Beacon.SETTLED: {Trigger.PAY: (Beacon.PAID, (Effect.TRANSFER, Effect.SEND_PAY))},
    Beacon.PAID: {},
    Beacon.RETURNED: {},
    Beacon.VOID: {},
}

UNDECIDED: Final = (Beacon.NONE, Beacon.LOCKED, Beacon.ACCEPTED, Beacon.READY)
"Without an outcome."
BUYER_STOOD: Final = (Buyer.BOUND, Buyer.PAID, Buyer.RETURNED)
"The trade was a contract: quota and performance of the buyer go by it, whatever is paid in the end."
SELLER_STOOD: Final = (Seller.EFFECTIVE, Seller.SETTLED, Seller.CREDITED, Seller.RETURNED)
"The same for the seller."
