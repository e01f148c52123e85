"""Every object of the replicated state: its key and its fields, in the order in which they are encoded.

Keys are ASCII: a word, then parts joined by "/"; ids are lower-case hex of 8 bytes, numbers are decimal.
A value is the canonical MessagePack array of the struct (watt_chain.codec). Normative text: station/CONTRACT.md.
"""

from functools import lru_cache
from typing import Final, Literal

import msgspec

from watt_chain.contract.event import EventSpec, State
from watt_chain.genesis import Validator

Role = Literal["user", "grid", "aggregator", "regulator", "validator"]
Side = Literal["sell", "buy"]
Status = Literal["performed", "breached", "unverified", "none"]

MAIN_CHAIN: Final = 0
FOREVER: Final = 0
"`to_height` of a key that is still valid."
VALIDATORS_KEY: Final = b"validators"
KEYS_MAX: Final = 8192
"Keys of accounts and signers spelt once: those of an area, as `crypto.LOADED_KEYS_MAX`."
NO_REGISTER: Final = -1
"Stands in a register list where no checkpoint was taken at that boundary."


class Account(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """A registered party on one chain. free + escrow + bond is what it owns."""

    id: bytes
    role: Role
    public: bytes
    nonce: int
    "Last nonce used; the next transaction carries nonce + 1."
    free_u: int
    escrow_u: int
    bond_u: int
    arrears_u: int
    "Penalties that bond and free money could not cover; not money, a claim of the grid."
    points: int
    credit: int
    chain: int
    node: int
    "Number of the serving station node; the own number for a validator."
    suspended: bool
    warned: bool


class Signer(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """Which account a key may sign for, and from which to which height (0 = no end)."""

    account: bytes
    from_height: int
    to_height: int


class User(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A metering point: the declared plugs that quota, baseline and delivery refer to."""

    plugs: list[bytes]
    main_meter: bool
    annual_kwh: int
    profile: str
    essential: bool


class Plug(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """An enrolled plug and its last accepted checkpoint (counter 0 = none yet)."""

    id: bytes
    owner: bytes
    public: bytes
    key_class: str
    rated_w: int
    from_height: int
    to_height: int
    counter: int
    previous: bytes
    boot_id: int
    time_s: int
    import_mwh: int
    export_mwh: int
    next_sequence: int
    gaps: int
    "Counters that were skipped."
    discontinuities: int


class ValidatorList(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Who certifies the next block of this chain, in the order of their indexes, and a change that waits."""

    sequence: int
    "Changes taken so far; the next one carries this plus 1."
    validators: list[Validator]
    numbers: list[int]
    "Number of each; given when its name first appears, kept for life."
    given: int
    "Numbers given so far."
    next_from: int
    "Height from which `next` is the list; 0 = no change waits."
    next: list[Validator]


class KnownList(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Who certifies the blocks of another chain from a height on, by index, as far as it has told."""

    from_height: int
    validators: list[Validator]


class Member(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A name that is or was on the list of this chain."""

    number: int
    account: bytes


class RulesIndex(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Which rule set is active; pending = [version, main height from which it is active]."""

    active: int
    pending: list[tuple[int, int]]


class OpenEvents(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Numbers of the events that are neither CLOSED nor ABORTED, ascending, and the largest number seen."""

    numbers: list[int]
    last: int


class InboxCursor(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Last message of another chain that this area consumed, and the block it came from."""

    sequence: int
    height: int
    hash: bytes
    "Its hash: of an earlier block, or another one at that height, nothing is consumed any more."


class Supply(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """Money that came in and went out; their difference equals the sum of all accounts, always."""

    deposited_u: int
    withdrawn_u: int


class Pool(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """Incentive points held by the grid for this area, and points issued so far."""

    points: int
    issued: int


class AreaEvent(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One area's child of an event."""

    event: int
    state: State
    open: bool
    "J5: true while sealed bids are taken (COMMIT, REVEAL)."
    rules_version: int
    spec: EventSpec
    book_root: bytes
    rho_scaled: int
    pairs: int
    "Pairs are numbered 1..pairs."
    lambda_u_per_wh: list[int]
    "Prices from the main chain; empty until they arrive."
    mean_price_u_per_wh: int
    incentives_done: bool
    punish_done: bool
    result_root: bytes
    reason: str
    "Why the event was aborted."


class Sealed(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A user's bid of one event: its commitment, and after the reveal its content."""

    user: bytes
    commitment: bytes
    deposit_u: int
    revealed: bool
    side: Side
    price_u_per_wh: int
    slot_wh: list[int]
    status: str
    "committed, revealed, qualified, no-reveal, or the reason why the bid is not in the book."
    choice: Literal["open", "accept", "refuse"]
    "Confirmtransaction: the user's answer to its matching result."
    salt: bytes
    "Of the reveal; part of the seed that decides between equal prices."
    quota_wh: list[int]
    "Per slot, fixed when the collection closes; empty until then."
    baseline: str
    "What the quota was made from: profile or history; empty until then."
    total_wh: int = 0
    alpha_u_per_wh: list[int] = []


class Pair(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A matched offer and bid. Escrows and bonds are what each side has locked for this pair now."""

    event: int
    number: int
    offer: int
    bid: int
    seller: bytes
    buyer: bytes
    slot_wh: list[int]
    limit_u_per_wh: int
    price_u_per_wh: list[int]
    charge_u: int
    buyer_escrow_u: int
    seller_escrow_u: int
    buyer_bond_u: int
    seller_bond_u: int
    state: str
    "orders.PairState"
    paid_u: int
    "What the buyer paid the seller; 0 until settled."


class PlugRegisters(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Import registers of one plug at the slot boundaries, and which slots a discontinuity touched."""

    plug: bytes
    import_mwh: list[int]
    "slots + 1 values, mWh; NO_REGISTER where missing."
    broken: list[bool]
    "One per slot."


class EventMeter(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Registers of one user's metering point for one event."""

    plugs: list[PlugRegisters]
    main_mwh: list[int]
    "Main meter at the boundaries as the household reported it; information only."


class ResultRow(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What one event did to one user with at least one confirmed pair. No height and no instant in it."""

    user: bytes
    side: Side
    status: Status
    sold_wh: list[int]
    bought_wh: list[int]
    quota_wh: list[int]
    "Quota before trade, one per slot."
    metered_wh: list[int]
    "One per slot; NO_REGISTER where unverified."
    outside_wh: int
    "Main meter minus plugs over the window; NO_REGISTER if unknown."
    agreed_wh: int
    "Energy agreed in confirmed pairs."
    delivered_wh: int
    "Part of it that counts as delivered."
    short_wh: list[int]
    "Wh per slot charged to a defaulter."
    credit_before: int
    credit_after: int
    traded_u: int
    "Received for sold quota (positive) or paid for bought quota (negative)."
    charge_u: int
    penalty_u: int
    "Paid to the grid."
    arrears_u: int
    "Penalty that could not be paid."
    rp_u_per_wh: int
    "Price of normal use in the later period; 0 = not set."
    notice: Literal["none", "warned", "suspended"]
    points: int


class Result(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Users that have a row, ascending, and the root over their encoded rows and the event's pairs."""

    users: list[bytes]
    root: bytes


class Incentive(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """RP of one user: a price for normal use until `until_s`, for at most `energy_wh`."""

    event: int
    price_u_per_wh: int
    until_s: int
    energy_wh: int


class Standing(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What the limits on credit remember of one user; days are Unix days of an event's window."""

    day: int
    "Of the last event with a confirmed trade and verified data; -1 = none yet."
    gained: int
    "Credit gained on that day."
    partners: list[tuple[bytes, int, int]]
    "(partner, day of the first trade of its run, trades of the run), ascending by partner."
    since_s: int
    "Since when days without violation count: the suspension, then the last restoration; 0 = never suspended."


class Strength(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Response strength of a serving node after `event` (model.md U1), and before it: the one elections go by."""

    event: int
    strength_ppm: int
    before_ppm: int


class Conviction(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """That a validator has signed two different things in one height, view and phase; `term` is when it was proven."""

    term: int
    evidence: bytes
    "SHA-256 of the transaction's fields."


class AnchorState(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The last block of an area that the main chain has taken in."""

    height: int
    block_hash: bytes
    sequence: int
    "Last message of the area that was consumed."


class AreaReport(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What one area has reported of an event."""

    chain: int
    state: Literal["waiting", "booked", "left-out", "sliced", "matched", "metered", "closed", "refused"]
    book_root: bytes
    over_wh: list[int]
    under_wh: list[int]
    result_root: bytes
    reason: str


LAST_STATES: Final = ("closed", "refused", "left-out")
"Reports after which nothing more is awaited from an area."


class MainEvent(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The event on the main chain."""

    event: int
    state: State
    rules_version: int
    spec: EventSpec
    areas: list[AreaReport]
    rho_scaled: int
    value_u: int
    bound_u: int
    need_wh: list[int]
    lambda_u_per_wh: list[int]
    cost_u: list[int]
    "Least cost of supplying the need, per slot."


@lru_cache(maxsize=KEYS_MAX)
def account_key(account: bytes) -> bytes:
    """account/<id8>: Account."""
    return b"account/" + account.hex().encode()


@lru_cache(maxsize=KEYS_MAX)
def signer_key(key_id: bytes) -> bytes:
    """signer/<id8 of a public key>: Signer."""
    return b"signer/" + key_id.hex().encode()


def user_key(account: bytes) -> bytes:
    """user/<id8>: User."""
    return b"user/" + account.hex().encode()


def plug_key(plug: bytes) -> bytes:
    """plug/<id8>: Plug."""
    return b"plug/" + plug.hex().encode()


def known_list_key(chain: int) -> bytes:
    """validators/<chain>: KnownList, of another chain."""
    return b"validators/%d" % chain


def member_key(name: str) -> bytes:
    """member/<name>: Member."""
    return b"member/" + name.encode()


def rules_key(version: int) -> bytes:
    """rules/<version>: RuleSet."""
    return b"rules/%d" % version


def event_key(event: int) -> bytes:
    """event/<n>: AreaEvent in an area, MainEvent on the main chain."""
    return b"event/%d" % event


def sealed_key(event: int, account: bytes) -> bytes:
    """sealed/<n>/<id8>: Sealed."""
    return b"sealed/%d/" % event + account.hex().encode()


def book_key(event: int) -> bytes:
    """book/<n>: Book (area)."""
    return b"book/%d" % event


def main_book_key(event: int, chain: int) -> bytes:
    """book/<n>/<chain>: Book (main chain)."""
    return b"book/%d/%d" % (event, chain)


def pair_key(event: int, number: int) -> bytes:
    """pair/<n>/<k>: Pair."""
    return b"pair/%d/%d" % (event, number)


def register_key(event: int, account: bytes) -> bytes:
    """register/<n>/<id8>: EventMeter."""
    return b"register/%d/" % event + account.hex().encode()


def result_key(event: int) -> bytes:
    """result/<n>: Result."""
    return b"result/%d" % event


def result_row_key(event: int, account: bytes) -> bytes:
    """result/<n>/<id8>: ResultRow."""
    return b"result/%d/" % event + account.hex().encode()


def incentive_key(account: bytes) -> bytes:
    """rp/<id8>: Incentive."""
    return b"rp/" + account.hex().encode()


def standing_key(account: bytes) -> bytes:
    """standing/<id8>: Standing."""
    return b"standing/" + account.hex().encode()


def strength_key(node: int) -> bytes:
    """strength/<node>: Strength."""
    return b"strength/%d" % node


def candidate_key(validator: bytes) -> bytes:
    """candidate/<id8>: election.Candidate."""
    return b"candidate/" + validator.hex().encode()


def evidence_key(validator: bytes, height: int, view: int, phase: str) -> bytes:
    """evidence/<id8>/<height>/<view>/<phase>: Conviction."""
    return b"evidence/%s/%d/%d/%s" % (validator.hex().encode(), height, view, phase.encode())


def anchor_key(chain: int) -> bytes:
    """anchor/<chain>: AnchorState (main chain)."""
    return b"anchor/%d" % chain


ELECTION_KEY: Final = b"election"
"election.Election"
RULES_KEY: Final = b"rules"
"RulesIndex"
OPEN_KEY: Final = b"open"
"OpenEvents"
INBOX_KEY: Final = b"inbox"
"InboxCursor (area)"
SUPPLY_KEY: Final = b"supply"
"Supply (area)"
POOL_KEY: Final = b"pool"
"Pool (area)"
