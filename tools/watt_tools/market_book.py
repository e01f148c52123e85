"""BOOK.json: a market's offers and bids in a file that a person can write, read into the books the market clears.

The format stands in master/BIDDING.md, "Books in files".  Everything wrong with a file is found in one reading: each
problem names its entry and one of PROBLEMS.  Amounts are whole numbers in the units of the chain; a number with a
fraction, a negative or a huge one is a problem, never rounded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from watt_chain import crypto
from watt_chain.contract.event import EventSpec, Unit, check_spec
from watt_chain.contract.market import Bid, Book, Offer, budgeted
from watt_chain.contract.rules import RULES_1, RULES_2, RuleSet, check_rule_set
from watt_market import book as books_module
from watt_market.comfort import alphas_u_per_wh

FORMAT: Final = 1
ENTRIES_MAX: Final = 400_000
"Two sides of 100,000 households, twice over; more is a mistake."
LIMIT_U: Final = 10**12
"Money of a bid that names no limit: a million currency units, more than any book's energy costs."
START_S: Final = 17 * 3_600
"A window that names no start begins at 17 h of day 0."

PROBLEMS: Final = (
    "negative",
    "too-large",
    "duplicate",
    "not-an-integer",
    "expired",
    "out-of-area",
    "unknown-user",
    "window-ends-before-it-begins",
    "infeasible-headroom",
    "malformed",
)


class BookError(Exception):
    """The file is no book; `problems` are (entry, problem, words)."""

    def __init__(self, problems: list[tuple[str, str, str]]) -> None:
        super().__init__("; ".join(f"{entry}: {problem}: {words}" for entry, problem, words in problems))
        self.problems = problems


@dataclass(frozen=True)
class Instance:
    """What a market needs: books by area, the signal, the rules, and how people call their entries."""

    books: list[Book]
    spec: EventSpec
    "With the budget that the rules allow for these books."
    rules: RuleSet
    entries: dict[tuple[int, str, bytes], str]
    "(area, side, user id) -> entry id"
    users: dict[bytes, str]
    document: dict[str, Any]

    def offer_of(self, entry: str) -> tuple[int, str, bytes]:
        """Where an entry stands. Raises KeyError for an entry that the file does not have."""
        return {name: place for place, name in self.entries.items()}[entry]


class _Reader:
    """Collects problems while reading; a value with a problem reads as 0."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, str, str]] = []

    def wrong(self, entry: str, problem: str, words: str) -> None:
        self.problems.append((entry, problem, words))

    def integer(self, entry: str, name: str, value: object, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(entry, "not-an-integer", f"{name} = {_shown(value)}: a whole number is wanted")
        elif value < 0:
            self.wrong(entry, "negative", f"{name} = {value}: 0 is the least")
        elif value > most:
            self.wrong(entry, "too-large", f"{name} = {_shown(value)}: {most} is the most")
        else:
            return value
        return 0

    def integers(self, entry: str, name: str, value: object, count: int, most: int) -> list[int]:
        if not isinstance(value, list) or len(value) != count:
            self.wrong(entry, "malformed", f"{name}: a list of {count} whole numbers is wanted, one per slot")
            return [0] * count
        return [self.integer(entry, f"{name}[{slot}]", one, most) for slot, one in enumerate(value)]

    def known(self, entry: str, value: Mapping[str, object], names: tuple[str, ...]) -> None:
        for name in value:
            if name not in names:
                self.wrong(entry, "malformed", f"{name!r} is not a field; known are {', '.join(names)}")


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else text[:37] + "..."


def parse(text: str | bytes) -> Instance:
    """Read a book from the text of its file. Raises BookError."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BookError([("file", "malformed", f"not JSON: {error}")]) from None
    return read(document)


def read(document: object) -> Instance:
    """Read a book from its decoded JSON. Raises BookError with every problem found."""
    reader = _Reader()
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise BookError([("file", "malformed", f'a book begins with "format": {FORMAT}')])
    reader.known("file", document, ("format", "rules", "event", "users", "headroom_w", "seed", "entries"))
    rules = _rules(reader, document.get("rules", 1), document.get("headroom_w", {}))
    spec = _spec(reader, document.get("event"), rules)
    users = _users(reader, document.get("users"))
    seed = _seed(reader, document.get("seed", ""))
    entries = document.get("entries")
    if not isinstance(entries, list) or len(entries) > ENTRIES_MAX:
        reader.wrong("file", "malformed", f"entries: a list of at most {ENTRIES_MAX} is wanted")
        entries = []
    if reader.problems:  # an entry cannot be judged without its event and its users
        raise BookError(reader.problems)
    return _assemble(reader, document, entries, users, seed, spec, rules)


def _assemble(
    reader: _Reader,
    document: dict[str, Any],
    entries: list[object],
    users: dict[str, int],
    seed: bytes,
    spec: EventSpec,
    rules: RuleSet,
) -> Instance:
    offers: dict[int, list[Offer]] = {area: [] for area in sorted(set(users.values()))}
    bids: dict[int, list[Bid]] = {area: [] for area in offers}
    places: dict[tuple[int, str, bytes], str] = {}
    names: set[str] = set()
    sides: dict[str, str] = {}
    for number, entry in enumerate(entries):
        row = _entry(reader, number, entry, users, spec)
        if row is None:
            continue
        name, area, user, built = row
        if name in names:
            reader.wrong(name, "duplicate", "another entry has this id")
        elif user in sides:
            reader.wrong(name, "duplicate", f"{user} already has the entry {sides[user]}; one per household and event")
        names.add(name)
        sides.setdefault(user, name)
        side = "sell" if isinstance(built, Offer) else "buy"
        places[area, side, user_id(user)] = name
        if isinstance(built, Offer):
            offers[area].append(built)
        else:
            bids[area].append(built)
    if reader.problems:
        raise BookError(reader.problems)
    books = [books_module.canonical(spec.event, area, offers[area], bids[area], seed) for area in offers]
    for book in books:
        reason = books_module.check_book(book, spec)
        if reason:
            raise BookError([(f"area {book.chain}", "malformed", reason)])
    labels = {user_id(name): name for name in users}
    return Instance(books, budgeted(spec, rules, books), rules, places, labels, document)


def user_id(name: str) -> bytes:
    """The 8 bytes under which a book lists a household: its account id in hex, or made from any other name."""
    if len(name) == 16 and all(digit in "0123456789abcdef" for digit in name):
        return bytes.fromhex(name)
    return crypto.sha256(b"wattpact/1/book-user\0" + name.encode())[:8]


def _rules(reader: _Reader, value: object, headroom: object) -> RuleSet:
    """A rule set by number, or {"base": number, field: value ...}; the areas' headroom is a figure of it."""
    changes = dict(value) if isinstance(value, dict) else {"base": value}
    number = changes.pop("base", 1)
    base = {"1": RULES_1, "2": RULES_2}.get(json.dumps(number, default=str))
    if base is None:
        reader.wrong("rules", "malformed", f"{_shown(value)}: rule sets 1 and 2 are known")
        return RULES_1
    if not isinstance(headroom, dict):
        reader.wrong("headroom_w", "malformed", 'an object {"area": watts} is wanted')
        headroom = {}
    listed: list[tuple[int, int]] = []
    for area, watts in headroom.items():
        if isinstance(watts, int) and not isinstance(watts, bool) and watts < 0:
            words = f"headroom_w = {watts}: even without any trade an area draws more than its transformer carries"
            reader.wrong(f"area {area}", "infeasible-headroom", words)
            continue
        chain = int(area) if area.isascii() and area.isdecimal() else 0
        listed.append((chain, reader.integer(f"area {area}", "headroom_w", watts, 10**9)))
    if listed:
        changes["headroom_w"] = sorted(listed)
    try:
        fields = dict(zip(RuleSet.__struct_fields__, msgspec.structs.astuple(base), strict=True))
        if set(changes) - set(fields):
            reader.wrong("rules", "malformed", f"unknown: {', '.join(sorted(set(changes) - set(fields)))}")
            return base
        rules = msgspec.convert([*(fields | changes).values()], RuleSet)
    except msgspec.ValidationError as error:
        reader.wrong("rules", "malformed", str(error))
        return base
    reason = check_rule_set(rules)
    if reason:
        reader.wrong("rules", "malformed", reason)
    return rules


EVENT_FIELDS: Final = (
    *("kind", "slot_s", "slots", "start_s", "alpha_u_per_wh", "temperature_dc", "x_ms", "y_ms", "budget_u"),
    *("normal_price_u_per_wh", "compensation_price_u_per_wh"),
)


def _spec(reader: _Reader, value: object, rules: RuleSet) -> EventSpec:
    """The signal: only what a market needs of it; the other instants are set around the window."""
    event = value if isinstance(value, dict) else {}
    if not isinstance(value, dict):
        reader.wrong("event", "malformed", "an object is wanted")
    reader.known("event", event, EVENT_FIELDS)
    slots = reader.integer("event", "slots", event.get("slots", 1), 96) or 1
    slot_s = reader.integer("event", "slot_s", event.get("slot_s", 900), 3_600)
    start_s = reader.integer("event", "start_s", event.get("start_s", START_S), 2**39)
    if "temperature_dc" in event:
        degrees = event["temperature_dc"]
        if not isinstance(degrees, list) or len(degrees) != slots or any(type(one) is not int for one in degrees):
            reader.wrong("event", "malformed", f"temperature_dc: {slots} whole tenths of a degree are wanted")
            degrees = [200] * slots
        hours = [(start_s + slot * slot_s) // 3_600 % 24 for slot in range(slots)]
        alpha = alphas_u_per_wh(degrees, hours)
    else:
        alpha = reader.integers("event", "alpha_u_per_wh", event.get("alpha_u_per_wh", [0] * slots), slots, 10**6)
    kind = event.get("kind", "peak")
    if kind not in ("peak", "valley"):
        reader.wrong("event", "malformed", f"kind = {_shown(kind)}: peak or valley")
    spec = EventSpec(
        event=1,
        kind="valley" if kind == "valley" else "peak",
        slot_s=slot_s,
        slots=slots,
        required_ppm=0,
        open_s=start_s - 50,
        commit_close_s=start_s - 40,
        reveal_close_s=start_s - 30,
        match_by_s=start_s - 20,
        confirm_close_s=start_s - 10,
        window_start_s=start_s,
        meter_close_s=start_s + slots * slot_s + 10,
        settle_by_s=start_s + slots * slot_s + 20,
        alpha_u_per_wh=alpha,
        x_ms=reader.integer("event", "x_ms", event.get("x_ms", 0), 10**6),
        y_ms=reader.integer("event", "y_ms", event.get("y_ms", 0), 10**6),
        budget_u=reader.integer("event", "budget_u", event.get("budget_u", LIMIT_U), 10**15),
        units=[Unit(0, [0] * slots)],
        normal_price_u_per_wh=reader.integer(
            "event", "normal_price_u_per_wh", event.get("normal_price_u_per_wh", 0), 10**6
        ),
        compensation_price_u_per_wh=reader.integer(
            "event", "compensation_price_u_per_wh", event.get("compensation_price_u_per_wh", 0), 10**6
        ),
        profile_wh_per_mwh=[0] * slots,
    )
    reason = "" if reader.problems else check_spec(spec, rules.price_cap_u_per_wh)
    if reason:
        reader.wrong("event", "malformed", reason)
    return spec


def _users(reader: _Reader, value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        reader.wrong("users", "malformed", 'an object {"household": area} is wanted')
        return {}
    found: dict[str, int] = {}
    for name, area in value.items():
        found[name] = reader.integer(f"user {name}", "area", area, 2**31)
        if found[name] == 0 and area == 0:
            reader.wrong(f"user {name}", "malformed", "areas are counted from 1")
    if len({user_id(name) for name in found}) != len(found):
        reader.wrong("users", "duplicate", "two names stand for one household")
    return found


def _seed(reader: _Reader, value: object) -> bytes:
    try:
        seed = bytes.fromhex(value) if isinstance(value, str) else b"?"
    except ValueError:
        seed = b"?"
    if len(seed) not in (0, books_module.SEED_BYTES):
        reader.wrong("seed", "malformed", "64 hex digits are wanted, or nothing")
        return b""
    return seed


ENTRY_FIELDS: Final = (
    *("id", "side", "user", "area", "price_u_per_wh", "slot_wh", "from_slot", "to_slot", "wh", "total_wh"),
    *("credit", "alpha_u_per_wh", "limit_u", "expires_s"),
)


def _entry(
    reader: _Reader, number: int, value: object, users: dict[str, int], spec: EventSpec
) -> tuple[str, int, str, Offer | Bid] | None:
    """(id, area, user, row) of one entry; None when there is nothing to place."""
    if not isinstance(value, dict):
        reader.wrong(f"entry {number}", "malformed", "an object is wanted")
        return None
    name = str(value.get("id", f"entry {number}"))
    before = len(reader.problems)
    reader.known(name, value, ENTRY_FIELDS)
    user, side = str(value.get("user", "")), value.get("side")
    if side not in ("sell", "buy"):
        reader.wrong(name, "malformed", f"side = {_shown(side)}: sell or buy")
    if user not in users:
        reader.wrong(name, "unknown-user", f"user = {_shown(value.get('user'))} is not in the list of users")
        return None
    area = value.get("area", users[user])
    if area != users[user] or isinstance(area, bool):
        reader.wrong(name, "out-of-area", f"area = {_shown(area)}, but {user} belongs to area {users[user]}")
    expires_s = reader.integer(name, "expires_s", value.get("expires_s", spec.window_start_s), 2**40)
    if expires_s < spec.window_start_s and len(reader.problems) == before:
        reader.wrong(name, "expired", f"expires_s = {expires_s}, the window begins at {spec.window_start_s}")
    price = reader.integer(name, "price_u_per_wh", value.get("price_u_per_wh"), books_module.PRICE_MAX_U_PER_WH)
    slot_wh = _energies(reader, name, value, spec.slots)
    total_wh = reader.integer(name, "total_wh", value.get("total_wh", 0), books_module.SLOT_WH_MAX * spec.slots)
    account = user_id(user)
    row: Offer | Bid
    if side == "sell":
        credit = reader.integer(name, "credit", value.get("credit", 100), books_module.CREDIT_MAX)
        own = reader.integers(name, "alpha_u_per_wh", value.get("alpha_u_per_wh", [0] * spec.slots), spec.slots, 10**6)
        row = Offer(0, account, price, slot_wh, credit)
        row = replace(row, total_wh=total_wh) if total_wh else row
        row = replace(row, alpha_u_per_wh=own) if "alpha_u_per_wh" in value else row
    else:
        limit_u = reader.integer(name, "limit_u", value.get("limit_u", LIMIT_U), 10**15)
        row = Bid(0, account, price, slot_wh, limit_u)
        row = replace(row, total_wh=total_wh) if total_wh else row
    return None if len(reader.problems) > before else (name, users[user], user, row)


def _energies(reader: _Reader, name: str, value: dict[str, Any], slots: int) -> list[int]:
    """Wh per slot: the list itself, or `wh` in every slot from from_slot up to, not including, to_slot."""
    most = books_module.SLOT_WH_MAX
    if "slot_wh" in value:
        return reader.integers(name, "slot_wh", value["slot_wh"], slots, most)
    first = reader.integer(name, "from_slot", value.get("from_slot", 0), slots)
    last = reader.integer(name, "to_slot", value.get("to_slot", slots), slots)
    wh = reader.integer(name, "wh", value.get("wh"), most)
    if last <= first:
        words = f"from_slot = {first}, to_slot = {last}: the window must end after it begins"
        reader.wrong(name, "window-ends-before-it-begins", words)
    return [wh if first <= slot < last else 0 for slot in range(slots)]
