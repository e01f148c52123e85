"""The table of transactions: fields of each kind, who may sign it, in which stage, what it touches, why it is refused.

`TABLE[(place, kind)]` is the one place where a kind is declared; dispatch, access control (J23), CONTRACT.md and the
tests are made from it.  Fields are canonical MessagePack arrays in the order below; a field outside its declared
range is "malformed".  Message bodies between the chains stand at the end.
"""

from typing import Annotated, Final, Literal

import msgspec

from watt_chain.contract.cross_kinds import AREA_KINDS, MAIN_KINDS
from watt_chain.contract.event import EventSpec, State
from watt_chain.contract.fields import Amount, Count, Hash, Id8, Kind, Number, Public, Salt, SlotComforts, SlotEnergies
from watt_chain.contract.market import Border, Slice, Solution
from watt_chain.contract.rematch_kinds import REMATCH_KINDS
from watt_chain.genesis import Validator

BATCH_CALLS_MAX: Final = 32
"Calls of one Batch: eight hours of quarter-hourly checkpoints; some 10 kB, far below what a household may send."
PLUGS_MAX: Final = 64
"Plugs of one metering point; a flat has fewer circuits."
RATED_W_MAX: Final = 25_000
"Three-phase 36 A: above any household plug or circuit."
INBOX_MESSAGES_MAX: Final = 64
"Messages in one Inbox transaction; a main block sends an area a handful."
ANCHOR_MESSAGES_MAX: Final = 1024
"Messages of one area block, or nobody could anchor it: calls that would send more are refused `busy`."
FRAME_SIZE_MAX: Final = 400_000
"A proposal names at most 5,000 digests of 34 bytes; two of them fit a transaction."
PATH_MAX: Final = 32
"Merkle path of a tree of up to 2^32 leaves."
MESSAGE_SIZE_MAX: Final = 1 << 20
"A book of 4,000 bids over 8 slots takes a third of this."


class Enrol(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Register a user with its metering point (J2, C9)."""

    public: Public
    node: Annotated[int, msgspec.Meta(ge=0, le=255)]
    plugs: Annotated[list["EnrolPlug"], msgspec.Meta(min_length=1, max_length=PLUGS_MAX)]
    main_meter: bool
    annual_kwh: Annotated[int, msgspec.Meta(ge=1, le=10**6)]
    profile: Literal["h25"]
    essential: bool


class EnrolPlug(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One plug of a metering point."""

    public: Public
    key_class: Literal["secure", "encrypted", "plain"]
    rated_w: Annotated[int, msgspec.Meta(ge=1, le=RATED_W_MAX)]


class Rotate(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Give an account a new key; the account keeps its id."""

    account: Id8
    public: Public


class Revoke(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """End the validity of a plug, or of an account's present key."""

    subject: Literal["user", "plug"]
    id: Id8


class Rehabilitate(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The regulator approves that days without violation count for a suspended user (U14)."""

    user: Id8


class Deposit(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Money that the grid company has received for a user."""

    user: Id8
    amount_u: Amount


class Withdraw(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Money that leaves the system from the signer's free money."""

    amount_u: Amount


class InboxEntry(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One message of a main block with its Merkle path under the block's outbox root."""

    index: Count
    message: Annotated[bytes, msgspec.Meta(max_length=MESSAGE_SIZE_MAX)]
    path: Annotated[list[Hash], msgspec.Meta(max_length=PATH_MAX)]


class Inbox(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Consecutive messages of one main block to this area."""

    header: bytes
    certificate: bytes
    size: Count
    "Leaves under the block's outbox root."
    entries: Annotated[list[InboxEntry], msgspec.Meta(min_length=1, max_length=INBOX_MESSAGES_MAX)]


class Commit(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Sealed bid: SHA-256 of the encoded Reveal fields followed by the account id (bidding.commitment_of)."""

    event: Number
    commitment: Hash


class Reveal(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The content of a sealed bid (J7, J8)."""

    event: Number
    side: Literal["sell", "buy"]
    price_u_per_wh: Annotated[int, msgspec.Meta(ge=0, le=10**12)]
    slot_wh: SlotEnergies
    salt: Salt
    total_wh: Annotated[int, msgspec.Meta(ge=0, le=10**8)] = 0
    "Most over all slots, as a battery has it; 0 means that only the slots limit it."
    alpha_u_per_wh: SlotComforts = []
    "A seller's own comfort coefficient per slot (U17); empty means the event's."


class EventCall(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Fields of every call that names only its event."""

    event: Number


class Confirmtransaction(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The user's choice on its matching result (J12, J13)."""

    event: Number
    accept: bool


class Confirm(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One side's confirmation of one pair (J14)."""

    event: Number
    pair: Number
    accept: bool


class Checkpoint(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A plug's signed checkpoint frame, and the household's main meter at that instant (-1 = none)."""

    frame: Annotated[bytes, msgspec.Meta(max_length=1024)]
    main_meter_mwh: Annotated[int, msgspec.Meta(ge=-1, le=2**62)]


class Call(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One call of a Batch: its kind, and the fields of that kind."""

    kind: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    fields: msgspec.Raw


class Batch(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Several calls of one user under one signature and one nonce: all of them are carried out, in order, or none."""

    calls: Annotated[list[Call], msgspec.Meta(min_length=1, max_length=BATCH_CALLS_MAX)]


class Anchor(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One certified area block: header, certificate, and all messages under its outbox root, in order."""

    header: bytes
    certificate: bytes
    messages: Annotated[
        list[Annotated[bytes, msgspec.Meta(max_length=MESSAGE_SIZE_MAX)]], msgspec.Meta(max_length=ANCHOR_MESSAGES_MAX)
    ]


class RuleSetChange(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A new rule set (encoded RuleSet) and the main height from which it is active."""

    rules: Annotated[bytes, msgspec.Meta(max_length=4096)]
    active_from_height: Count


class Initial(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The demand signal (J4)."""

    spec: EventSpec


class Match(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """MaxUsersProfit(): a whole matching with its certificate (J11)."""

    solution: Solution


class Ticket(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A solved puzzle: the signer may lead in `term`, the next one (F8, F9)."""

    term: Count
    nonce: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class SeedCommit(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Commitment to the signer's share of the seed of `term`, the one after the next (election.commitment_of)."""

    term: Count
    commitment: Hash


class SeedReveal(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The share behind the commitment, for `term`, the next one."""

    term: Count
    share: Hash


class Evidence(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Two frames with which the validator of key `public` supports different blocks in one height, view and phase."""

    public: Public
    first: Annotated[bytes, msgspec.Meta(max_length=FRAME_SIZE_MAX)]
    second: Annotated[bytes, msgspec.Meta(max_length=FRAME_SIZE_MAX)]


class ListChange(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The whole list of validators of this chain from a height on: join, leave, rotate, lost key (B7, B11)."""

    sequence: Count
    "Number of the change, 1 more than the last one: two hands cannot overwrite each other."
    from_height: Count
    validators: list[Validator]
    "By index; sizes outside 1 ... 64 are refused by name."


COMMON_REASONS: Final = ("unknown-signer", "revoked", "unknown-kind", "role", "malformed")
"Any transaction can be refused for these, tested in this order."

Place = Literal["area", "main"]
_EVENT: Final = ("unknown-event", "stage")

_TICKET: Final = Kind(
    ("validator",), (), Ticket, "election", "candidate", ("not-validator", "late", "early", "twice", "bits")
)
_SEED_COMMIT: Final = Kind(
    ("validator",), (), SeedCommit, "election", "candidate", ("not-validator", "late", "early", "twice")
)
_SEED_REVEAL: Final = Kind(
    ("validator",),
    (),
    SeedReveal,
    "candidate",
    "candidate",
    ("not-validator", "late", "early", "no-commitment", "twice", "commitment"),
)
_EVIDENCE: Final = Kind(
    ("validator",),
    (),
    Evidence,
    "signer, account, evidence",
    "evidence, election, candidate",
    ("form", "no-conflict", "unknown-validator", "key-height", "known", "enough", "signature"),
)
_VALIDATORS: Final = Kind(
    ("regulator",),
    (),
    ListChange,
    "validators, member, signer",
    "validators; at its height validators, member, account, signer; emits Validators",
    (
        "sequence",
        "too-soon",
        "too-far",
        "size",
        "unchanged",
        "name-twice",
        "key-twice",
        "name",
        "key",
        "key-used",
    ),
)

TABLE: Final[dict[tuple[Place, str], Kind]] = {
    ("area", "Enrol"): Kind(
        ("regulator",),
        (),
        Enrol,
        "validators, plug",
        "account, signer, user, plug",
        ("key", "exists", "node", "plug-exists"),
    ),
    ("area", "Rotate"): Kind(
        ("regulator",), (), Rotate, "account, signer", "account, signer", ("unknown-user", "key", "exists")
    ),
    ("area", "Revoke"): Kind(
        ("regulator",), (), Revoke, "signer, plug", "signer, plug", ("unknown-user", "unknown-plug", "already")
    ),
    ("area", "Rehabilitate"): Kind(
        ("regulator",),
        (),
        Rehabilitate,
        "account, standing, rules",
        "account, standing",
        ("unknown-user", "rule-off", "not-suspended", "early"),
    ),
    ("area", "Deposit"): Kind(("grid",), (), Deposit, "account", "account, supply", ("unknown-user", "amount")),
    ("area", "Withdraw"): Kind(("user",), (), Withdraw, "account", "account, supply", ("balance", "arrears")),
    ("area", "Inbox"): Kind(
        ("validator",),
        (),
        Inbox,
        "inbox, validators/<chain>",
        "inbox, rules, event, open, pair, account, sealed, cross, validators",
        ("proof", "stale", "sequence", "message", "busy", "early", "unknown-event"),
    ),
    ("area", "Commit"): Kind(
        ("user",),
        (State.COMMIT,),
        Commit,
        "event, account, rules",
        "sealed, account",
        (*_EVENT, "suspended", "committed", "balance"),
    ),
    ("area", "Reveal"): Kind(
        ("user",),
        (State.REVEAL,),
        Reveal,
        "event, sealed, rules",
        "sealed",
        (*_EVENT, "late", "no-commitment", "revealed", "commitment", "slots", "empty", "price", "comfort"),
    ),
    ("area", "Qualify"): Kind(
        ("aggregator",),
        (State.REVEAL,),
        EventCall,
        "event, sealed, account, user, plug, rules",
        "event, sealed, account, book; emits BookClosed",
        (*_EVENT, "early"),
    ),
    ("area", "Confirmtransaction"): Kind(
        ("user",),
        (State.MATCHED,),
        Confirmtransaction,
        "event, sealed, pair, cross",
        "sealed, pair, cross, account; emits CrossReport",
        (*_EVENT, "not-matched", "decided"),
    ),
    ("area", "Confirm"): Kind(
        ("user",),
        (State.MATCHED,),
        Confirm,
        "event, sealed, pair, account, rules",
        "pair, account",
        (*_EVENT, "unknown-pair", "not-yours", "no-choice", "decided", "suspended", "balance"),
    ),
    ("area", "Checkpoint"): Kind(
        ("user",),
        (),
        Checkpoint,
        "plug, user, open, event",
        "plug, register",
        (
            "frame",
            "unknown-plug",
            "not-yours",
            "plug-revoked",
            "signature",
            "counter",
            "previous",
            "register-fell",
            "time-future",
            "time-past",
            "time-backwards",
        ),
    ),
    ("area", "SettlementCredit"): Kind(
        ("aggregator",),
        (State.DELIVERING,),
        EventCall,
        "event, pair, cross, register, user, rules",
        "event, account, result, cross; emits CrossReport, Metered",
        (*_EVENT, "early", "cross-open"),
    ),
    ("area", "SettlementAmount"): Kind(
        ("aggregator",),
        (State.METERED,),
        EventCall,
        "event, pair, cross, result, rules",
        "event, pair, cross, account, result",
        (*_EVENT, "no-prices"),
    ),
    ("area", "PriceIncentives"): Kind(
        ("grid",), (State.SETTLED,), EventCall, "event, result, rules", "event, rp, result", (*_EVENT, "done")
    ),
    ("area", "Punish"): Kind(
        ("grid",),
        (State.SETTLED,),
        EventCall,
        "event, result, account, rules",
        "event, account, result",
        (*_EVENT, "done", "order"),
    ),
    ("area", "Points"): Kind(
        ("grid",),
        (State.SETTLED,),
        EventCall,
        "event, result, account, pool, strength",
        "event, account, pool, strength, result; emits EventClosed",
        (*_EVENT, "order"),
    ),
    ("area", "Batch"): Kind(("user",), (), Batch, "as its calls", "as its calls", ("nested",)),
    ("area", "Ticket"): _TICKET,
    ("area", "SeedCommit"): _SEED_COMMIT,
    ("area", "SeedReveal"): _SEED_REVEAL,
    ("area", "Evidence"): _EVIDENCE,
    ("area", "Validators"): _VALIDATORS,
    ("main", "Anchor"): Kind(
        ("validator",),
        (),
        Anchor,
        "anchor, validators, cross, position, lane",
        "anchor, event, book, cross, position, lane, validators; emits CrossNews, Partner",
        (
            "chain",
            "quarantine",
            "proof",
            "stale",
            "height",
            "previous",
            "outbox",
            "sequence",
            "message",
            "unknown-event",
        ),
    ),
    ("main", "RuleSet"): Kind(
        ("regulator",),
        (),
        RuleSetChange,
        "rules",
        "rules; emits RuleSet when active",
        (
            "version",
            "height",
            *("rule-range", "rule-zero", "rule-credit", "rule-fraction", "rule-class"),
            *("rule-headroom", "rule-comfort", "rule-baseline", "rule-crossings"),
        ),
    ),
    ("main", "Initial"): Kind(
        ("grid",),
        (),
        Initial,
        "rules, open",
        "event, open; emits Initial",
        (
            "event-number",
            "overlap",
            "late",
            "valley",
            "spec-size",
            "spec-time",
            "spec-lists",
            "spec-range",
            "spec-price",
        ),
    ),
    ("main", "Match"): Kind(
        ("aggregator", "grid", "regulator", "validator"),
        (State.ANNOUNCED,),
        Match,
        "event, book, rules, best",
        "best, event, cross, lane; emits Match per area when decided, Partner",
        (*_EVENT, "books", "not-better", "slices", "chain-*", "across-*", "solution-*"),
    ),
    ("main", "SettlementAmount"): Kind(
        ("grid",),
        (State.MATCHED,),
        EventCall,
        "event, rules",
        "event; emits Prices per area",
        (*_EVENT, "not-metered", "dispatch"),
    ),
    ("main", "Ticket"): _TICKET,
    ("main", "SeedCommit"): _SEED_COMMIT,
    ("main", "SeedReveal"): _SEED_REVEAL,
    ("main", "Evidence"): _EVIDENCE,
    ("main", "Validators"): _VALIDATORS,
    **{("area", name): row for name, row in (REMATCH_KINDS | AREA_KINDS).items()},
    **{("main", name): row for name, row in MAIN_KINDS.items()},
}


# Body of a message both ways.


class ValidatorsActing(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """kind "Validators": the list that certifies the blocks after the one that sends this."""

    validators: list[Validator]


# Bodies of messages from an area to the main chain.


class BookClosed(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """kind "BookClosed"."""

    event: Number
    book: bytes
    book_root: Hash


class Matched(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """kind "Matched": the area has checked its slice and made its pairs."""

    event: Number
    pairs: Count


class MatchRefused(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """kind "MatchRefused": the area's event is ABORTED, everything returned."""

    event: Number
    reason: str


class Metered(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """kind "Metered": deviation of the users under contract, Wh per slot."""

    event: Number
    over_wh: list[int]
    under_wh: list[int]


class EventClosed(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """kind "EventClosed"."""

    event: Number
    result_root: Hash


# Bodies of messages from the main chain to an area.


class RuleSetActive(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """kind "RuleSet": sent when the rule set becomes active on the main chain."""

    rules: bytes


class Announced(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """kind "Initial"."""

    spec: EventSpec
    rules_version: int


class AreaMatch(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """kind "Match"."""

    event: Number
    rho_scaled: int
    part: Slice
    border: Border | None
    "None where the rules keep every pair inside its area."


class Prices(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """kind "Prices": equation (9) to (11), one value per slot."""

    event: Number
    lambda_u_per_wh: list[int]
    need_wh: list[int]
    cost_u: list[int]


class Abort(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """kind "Abort"."""

    event: Number
    reason: str
