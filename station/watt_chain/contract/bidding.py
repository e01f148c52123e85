"""Stage 2, information release: sealed bids, GetUsersInformation() and QualificationVerification().

A bid is committed by hash with a deposit and revealed when nobody can commit any more; so neither the aggregator nor a
station can leak or insert a bid (U20).  `qualify` closes the collection, verifies every revealed bid, and writes the
canonical book.  Source: paper section 4.1; model.md rows J6 to J10, J24, G4, K4; U15, U16, U24.
"""

from msgspec.structs import replace
from watt_wire import merkle

from watt_chain import codec, crypto
from watt_chain.contract import baseline
from watt_chain.contract.access import Session, refuse, refuse_if
from watt_chain.contract.event import ALPHA_MAX, EventSpec, State, Trigger
from watt_chain.contract.kinds import BookClosed, Commit, EventCall, Reveal
from watt_chain.contract.market import Bid, Book, Offer, dearest_charge_u, rank
from watt_chain.contract.objects import (
    MAIN_CHAIN,
    Account,
    AreaEvent,
    Plug,
    Sealed,
    User,
    book_key,
    event_key,
    plug_key,
    sealed_key,
)
from watt_chain.contract.orders import bond_u
from watt_chain.contract.rules import PPM, RuleSet

HOUR_S = 3_600


def commitment_of(reveal: Reveal, account: bytes) -> bytes:
    """SHA-256 of the encoded Reveal fields (with their salt) followed by the account id; what Commit carries."""
    return crypto.sha256(codec.encode(reveal) + account)


def quota_wh(user: User, spec: EventSpec) -> list[int]:
    """Quota per slot of a metering point without history (P15, U24)."""
    return reduced_wh(baseline.profile_wh(user, spec), spec)


def reduced_wh(baseline_wh: list[int], spec: EventSpec) -> list[int]:
    """A baseline less what the event requires; in a valley plus it."""
    return [wh * (PPM - spec.sign * spec.required_ppm) // PPM for wh in baseline_wh]


def tie_seed(all_sealed: list[Sealed]) -> bytes:
    """What decides between equal prices: SHA-256 over (commitment, salt) of all opened bids, ascending by user id.

    Nobody knew it before the collection closed, since every salt was secret; who withholds one loses the deposit.
    """
    return crypto.sha256(b"".join(one.commitment + one.salt for one in all_sealed if one.revealed))


def book_root(book: Book) -> bytes:
    """Merkle root over the seed, the encoded offers, then the encoded bids."""
    rows = [book.seed, *(codec.encode(row) for row in (*book.offers, *book.bids))]
    return merkle.root([merkle.leaf_hash(row) for row in rows])


def commit(session: Session, signer: Account, fields: Commit) -> None:
    """Take a sealed bid and its deposit."""
    event = session.event_in(fields.event, State.COMMIT)
    refuse_if(signer.suspended, "suspended")
    refuse_if(session.sealed(event.event, signer.id) is not None, "committed")
    deposit = session.rules(event.rules_version).commit_deposit_u
    refuse_if(signer.free_u < deposit, "balance")
    session.move(signer.id, free_u=-deposit, bond_u=deposit)
    bid = Sealed(signer.id, fields.commitment, deposit, False, "sell", 0, [], "committed", "open", b"", [], "")
    session.put(sealed_key(event.event, signer.id), bid)


def reveal(session: Session, signer: Account, fields: Reveal) -> None:
    """Open a sealed bid."""
    event = session.event_in(fields.event, State.REVEAL)
    refuse_if(session.context.time_s >= event.spec.reveal_close_s, "late")
    bid = session.sealed(event.event, signer.id)
    if bid is None:
        refuse("no-commitment")
    refuse_if(bid.revealed, "revealed")
    refuse_if(commitment_of(fields, signer.id) != bid.commitment, "commitment")
    refuse_if(len(fields.slot_wh) != event.spec.slots, "slots")
    refuse_if(sum(fields.slot_wh) == 0, "empty")
    refuse_if(fields.price_u_per_wh > session.rules(event.rules_version).price_cap_u_per_wh, "price")
    own = fields.alpha_u_per_wh
    refuse_if(bool(own) and (fields.side == "buy" or len(own) != event.spec.slots or max(own) > ALPHA_MAX), "comfort")
    opened = replace(
        bid,
        revealed=True,
        side=fields.side,
        price_u_per_wh=fields.price_u_per_wh,
        slot_wh=fields.slot_wh,
        status="revealed",
        salt=fields.salt,
        total_wh=fields.total_wh,
        alpha_u_per_wh=own,
    )
    session.put(sealed_key(event.event, signer.id), opened)


def qualify(session: Session, signer: Account, fields: EventCall) -> None:
    """GetUsersInformation() ends, QualificationVerification() runs; the area's book is written and sent up."""
    event = session.event_in(fields.event, State.REVEAL)
    refuse_if(session.context.time_s < event.spec.reveal_close_s, "early")
    rules = session.rules(event.rules_version)
    offers: list[Offer] = []
    bids: list[Bid] = []
    all_sealed = session.all_sealed(event.event)
    seed = tie_seed(all_sealed)
    for sealed in sorted(all_sealed, key=lambda one: rank(seed, one.user)):
        _settle_deposit(session, sealed)
        own_wh, source = baseline.baseline_wh(session, session.user(sealed.user), event.spec, rules)
        sealed = replace(sealed, quota_wh=reduced_wh(own_wh, event.spec), baseline=source)
        status = _qualification(session, event, rules, sealed) if sealed.revealed else "no-reveal"
        session.put(sealed_key(event.event, sealed.user), replace(sealed, deposit_u=0, status=status))
        if status != "qualified":
            continue
        baseline.mark_event(session, session.user(sealed.user), event.spec, rules)
        account = session.account(sealed.user)
        if sealed.side == "sell":
            offer = Offer(
                len(offers), sealed.user, sealed.price_u_per_wh, sealed.slot_wh, account.credit, sealed.total_wh,
                sealed.alpha_u_per_wh,
            )  # fmt: skip
            offers += session.market.rows(offer, event.spec, rules)
        else:
            limit_u = account.free_u - bond_u(rules, most_wh(sealed))
            limit_u = min(limit_u, rules.escrow_cap_u) if rules.escrow_cap_u else limit_u
            bid = Bid(len(bids), sealed.user, sealed.price_u_per_wh, sealed.slot_wh, limit_u, sealed.total_wh)
            bids.append(bid)
    book = Book(event.event, session.context.chain, offers, bids, seed)
    root = book_root(book)
    session.put(book_key(event.event), book)
    session.put(event_key(event.event), replace(event, book_root=root))
    session.advance(session.event(event.event), Trigger.QUALIFY)
    session.emit(MAIN_CHAIN, "BookClosed", BookClosed(event.event, codec.encode(book), root))


def most_wh(row: Sealed | Offer | Bid) -> int:
    """The most energy that an opened bid, or a row of a book, can be matched with."""
    energy_wh = sum(row.slot_wh)
    return min(energy_wh, row.total_wh) if row.total_wh else energy_wh


def _settle_deposit(session: Session, sealed: Sealed) -> None:
    """A valid reveal gets its deposit back; a bid that was never opened loses it to the grid company."""
    if sealed.revealed:
        session.move(sealed.user, free_u=sealed.deposit_u, bond_u=-sealed.deposit_u)
    else:
        session.move(sealed.user, bond_u=-sealed.deposit_u)
        session.move(session.office("grid").id, free_u=sealed.deposit_u)


def _qualification(session: Session, event: AreaEvent, rules: RuleSet, sealed: Sealed) -> str:
    """ "qualified", or the first reason why this bid is not in the book, in the order of CONTRACT.md."""
    account = session.account(sealed.user)
    user = session.user(sealed.user)
    plugs = [session.need(plug_key(plug), Plug) for plug in user.plugs]
    energy_wh = most_wh(sealed)
    if account.suspended:
        return "suspended"
    if account.credit < rules.credit_bar:
        return "credit"
    if any(plug.key_class in rules.excluded_classes for plug in plugs):
        return "class"
    if any(plug.to_height for plug in plugs):
        return "plug-revoked"
    rated_wh = sum(plug.rated_w for plug in plugs) * event.spec.slot_s // HOUR_S
    quota = sealed.quota_wh
    # What a seller of a valley event adds comes on top of its quota; elsewhere the quota is the wider bound.
    floor = quota if sealed.side == "sell" and event.spec.kind == "valley" else [0] * event.spec.slots
    if any(wh + base > rated_wh for wh, base in zip(sealed.slot_wh, floor, strict=True)):
        return "above-rated"
    gives_up = (sealed.side == "sell") == (event.spec.kind == "peak")
    over_quota = gives_up and any(wh > own for wh, own in zip(sealed.slot_wh, quota, strict=True))
    left_u, charge_u = account.free_u - bond_u(rules, energy_wh), dearest_charge_u(event.spec, rules)
    if over_quota:
        return "over-quota"
    if sealed.side == "buy":
        return "balance" if left_u < sealed.price_u_per_wh + (charge_u + 1) // 2 else "qualified"
    if rules.fresh_s and min(plug.time_s for plug in plugs) < session.context.time_s - rules.fresh_s:
        return "stale"
    return "balance" if left_u < charge_u // 2 else "qualified"
