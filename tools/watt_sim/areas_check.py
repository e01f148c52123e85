"""What must hold in a network of areas after every block (I4, I5, I6), and when everything has come to rest (I13)."""

from typing import TYPE_CHECKING

from watt_chain import codec
from watt_chain.block import OutMessage
from watt_chain.contract.cross_kinds import CrossOp, Partner
from watt_chain.contract.cross_objects import (
    TRANSIT_KEY,
    CrossTrade,
    MainTrade,
    Position,
    Transit,
    cross_key,
    kill_after_s,
    position_key,
)
from watt_chain.contract.event import State
from watt_chain.contract.kinds import Inbox
from watt_chain.contract.objects import SUPPLY_KEY, Account, AreaEvent, MainEvent, Supply, account_key, event_key
from watt_chain.ledger import AppliedBlock
from watt_chain.transaction import DecodedTransaction

from watt_sim.streets import EVENT, Home, cursor_of
from watt_sim.violation import Violation

if TYPE_CHECKING:
    from watt_sim.areas import Areas

RESERVED = ("LOCKED", "READY", "ACCEPT", "SETTLED")
ENDED = ("REJECT", "KILL")
STOOD = ("ACCEPT", "SETTLED", "PAID", "RETURNED", "VOID")
OVER = ("REJECT", "KILL", "PAID", "RETURNED", "VOID")
BUYER_STOOD = ("BOUND", "PAID", "RETURNED")
ASKED, NO_LOCK = ("ASKED", "ACCEPTED"), ("NONE", "REFUSED")
SELLER_STOOD = ("EFFECTIVE", "SETTLED", "CREDITED", "RETURNED")
"""The states of CONTRACT.md 17.3, written down once more: a fault in the product's tables must not be in here."""


class Judge:
    """Looks at every block; raises Violation."""

    def __init__(self, world: "Areas") -> None:
        self._world = world
        self._outcomes: dict[int, str] = {}
        "Trade -> first outcome on the main chain."
        self._seen: dict[tuple[int, int], str] = {}
        self._said: dict[tuple[int, int, int], OutMessage] = {}
        "(source, target, sequence) -> message, of every block of this run."
        self._consumed: dict[tuple[int, int], int] = {}
        "(source, target) -> last message taken."
        self._introduced: dict[tuple[int, int], bool] = {}
        "(source, target) -> whether the target was told the list under which the source was readmitted."
        for target, chain in world.chains.items():
            for source in world.chains:
                self._consumed[source, target] = cursor_of(chain, source).sequence
        for chain in world.chains.values():
            for made in chain.made:
                self.said(made.applied)

    # Reading ------------------------------------------------------------------------------------------------

    def main(self, number: int) -> MainTrade:
        """A trade on the main chain."""
        return codec.decode(self._world.chains[0].ledger.state.get(cross_key(EVENT, number)) or b"", MainTrade)

    def half(self, area: int, number: int) -> CrossTrade | None:
        """An area's half of a trade."""
        held = self._world.chains[area].ledger.state.get(cross_key(EVENT, number))
        return None if held is None else codec.decode(held, CrossTrade)

    def account(self, home: Home) -> Account:
        """A household's account."""
        held = self._world.chains[home.chain].ledger.state.get(account_key(home.id))
        return codec.decode(held or b"", Account)

    def event(self, area: int) -> AreaEvent:
        """The event in an area."""
        return codec.decode(self._world.chains[area].ledger.state.get(event_key(EVENT)) or b"", AreaEvent)

    def main_event(self) -> MainEvent:
        """The event on the main chain."""
        return codec.decode(self._world.chains[0].ledger.state.get(event_key(EVENT)) or b"", MainEvent)

    def _transit(self, area: int) -> Transit:
        held = self._world.chains[area].ledger.state.get(TRANSIT_KEY)
        return Transit(0, 0) if held is None else codec.decode(held, Transit)

    def position(self, area: int) -> Position:
        """What the main chain lets an area send out."""
        held = self._world.chains[0].ledger.state.get(position_key(area))
        return Position(0, 0, 0, 0, 0, 0, 0, "") if held is None else codec.decode(held, Position)

    def _is_good(self, area: int) -> bool:
        return area != self._world.bad

    # After every block --------------------------------------------------------------------------------------

    def block(self, chain: int, applied: AppliedBlock) -> None:
        """A block of a chain is final."""
        if chain == 0:
            self._main_chain(applied.header.time_s)
            self._world.guards.check()
        elif self._is_good(chain):
            self._messages(chain, applied)
            self._money(chain)
        self._atomic()
        self._on_its_way()

    def _messages(self, area: int, applied: AppliedBlock) -> None:
        """I4: a chain consumes what another said, in its order, nothing twice and nothing left out."""
        for tx, receipt in zip(applied.transactions, applied.receipts, strict=True):
            if tx.kind == "CrossOp" and not receipt.code:
                self._by_its_owner(area, tx)
            if tx.kind != "Inbox" or receipt.code:
                continue
            for entry in codec.decode(tx.fields_raw, Inbox).entries:
                message = codec.decode(entry.message, OutMessage)
                source = message.source_chain
                lane = (source, area)
                if message.sequence != self._consumed.get(lane, 0) + 1:
                    raise Violation("I4", f"area {area} takes message {message.sequence} of {source} out of its turn")
                self._consumed[lane] = message.sequence
                if self._answers_for(source, area) and self._said.get((source, area, message.sequence)) != message:
                    raise Violation("I4", f"area {area} takes a message of {source} that {source} never sent")
                if message.kind == "Partner":
                    partner = codec.decode(message.body, Partner)
                    self._consumed[partner.chain, area] = partner.sequence
                    told = partner.validators == self._world.recovery.listed
                    self._introduced[partner.chain, area] = told or self.knows_list(partner.chain, area)

    def _answers_for(self, source: int, target: int) -> bool:
        """Whether what `target` takes of `source` must have been said there: not before it knows the list of a
        readmitted area, and never of a bad one."""
        if source != self._world.recovery.area:
            return source != self._world.bad
        return self.knows_list(source, target)

    def knows_list(self, source: int, target: int) -> bool:
        """Whether `target` has been told the list of a readmitted area."""
        return self._introduced.get((source, target), False)

    def readmitted(self, area: int) -> None:
        """An area goes on from its last anchored block, as a good one: what it has taken and said stands there."""
        chain = self._world.chains[area]
        for source in self._world.chains:
            self._consumed[source, area] = cursor_of(chain, source).sequence
        for made in chain.made:
            self.said(made.applied)

    def _by_its_owner(self, area: int, tx: DecodedTransaction) -> None:
        """I3: nobody locks, consents or declines for another."""
        for number in codec.decode(tx.fields_raw, CrossOp).trades:
            half = self.half(area, number)
            if half is None or half.user != tx.signer_id:
                raise Violation("I3", f"somebody else decides about trade {number} in area {area}")

    def said(self, applied: AppliedBlock) -> None:
        """Remember what a block tells other chains."""
        for message in applied.out_messages:
            self._said[message.source_chain, message.target_chain, message.sequence] = message

    def _on_its_way(self) -> None:
        """I6 over all areas: what has left one and not reached another is exactly what is paid and not credited."""
        world = self._world
        if world.config.bad:
            return
        transits = [self._transit(area) for area in world.network.areas]
        between = sum(transit.sent_u - transit.received_u for transit in transits)
        owed = 0
        for number in world.network.trades:
            terms = self.main(number).terms
            buyer, seller = self.half(terms.buyer_chain, number), self.half(terms.seller_chain, number)
            if buyer is not None and buyer.state == "PAID" and (seller is None or seller.state != "CREDITED"):
                owed += buyer.paid_u
        if between != owed:
            raise Violation("I6", f"{between} is between areas, {owed} is paid and not credited")

    def _money(self, area: int) -> None:
        """I4, I6: no account below zero; what an area holds is what came in less what went out."""
        state = self._world.chains[area].ledger.state
        accounts = [codec.decode(state.get(key) or b"", Account) for key in state.keys(b"account/")]
        for account in accounts:
            if min(account.free_u, account.escrow_u, account.bond_u) < 0:
                raise Violation("I4", f"an account of area {area} is below zero")
        supply = codec.decode(state.get(SUPPLY_KEY) or b"", Supply)
        transit = self._transit(area)
        held = sum(account.free_u + account.escrow_u + account.bond_u for account in accounts)
        if held != supply.deposited_u - supply.withdrawn_u + transit.received_u - transit.sent_u:
            raise Violation("I6", f"area {area} holds {held}, {supply}, {transit}")
        for home in self._world.network.homes:
            if home.chain == area:
                self._bound(home)

    def _bound(self, home: Home) -> None:
        """What is locked in an account is locked for trades, and no slot of a seller is sold twice."""
        halves = [self.half(home.chain, number) for number in self._world.network.trades]
        mine = [half for half in halves if half is not None and half.user == home.id]
        account = self.account(home)
        if account.escrow_u != sum(half.escrow_u for half in mine):
            raise Violation("I6", f"household {home.number} has {account.escrow_u} in escrow, its trades {mine}")
        if account.bond_u != sum(half.bond_u for half in mine):
            raise Violation("I6", f"household {home.number} has a bond of {account.bond_u}, its trades {mine}")
        standing = [half for half in mine if half.state in (*BUYER_STOOD, *SELLER_STOOD)]
        for slot, bid_wh in enumerate(home.slot_wh):
            if sum(half.terms.slot_wh[slot] for half in standing) > bid_wh:
                raise Violation("I4", f"household {home.number} trades more of slot {slot} than it bid")

    def _main_chain(self, time_s: int) -> None:
        """At most one outcome of a trade; no area sends out more than it may, whatever it says."""
        world = self._world
        mains = [self.main(number) for number in world.network.trades]
        for trade in mains:
            number = trade.terms.number
            outcome = "ACCEPT" if trade.state in STOOD else trade.state if trade.state in ENDED else ""
            if outcome and self._outcomes.setdefault(number, outcome) != outcome:
                raise Violation("I5", f"trade {number} is {outcome} after {self._outcomes[number]}")
            if self._seen.get((0, number)) != trade.state:
                self._seen[0, number] = trade.state
                world.count(f"main-{trade.state}")
                if trade.reason:
                    world.count(f"ended-{trade.reason}")
                due_s = world.network.spec.settle_by_s if trade.state == "VOID" else kill_after_s(world.network.spec)
                if trade.reason == "late" and time_s < due_s:
                    raise Violation("I5", f"trade {number} is {trade.state} as late, {due_s - time_s} s early")
                if trade.group and trade.state in STOOD:
                    world.count("group")
        positions = [self.position(area) for area in world.network.areas]
        if sum(held.out_u for held in positions) != sum(held.in_u for held in positions):
            raise Violation("I6", f"what areas sent is not what others got: {positions}")
        for trade in mains:
            states = [self.main(number).state for number in trade.group]
            if any(state in STOOD for state in states) and not all(state in STOOD for state in states):
                raise Violation("I5", f"trades {trade.group} were locked together and are {states}")
        for area, held in zip(world.network.areas, positions, strict=True):
            mine = [trade for trade in mains if trade.terms.buyer_chain == area]
            if held.locked_u != sum(trade.value_u for trade in mine if trade.state in RESERVED):
                raise Violation("I6", f"the position of area {area} has {held.locked_u} locked")
            if held.out_u != sum(trade.paid_u for trade in mine if trade.state == "PAID"):
                raise Violation("I6", f"the position of area {area} has {held.out_u} sent out")
            if held.rate_locked_u > held.rate_u:
                raise Violation("I6", f"area {area} locked {held.rate_locked_u} in an event, its rate is {held.rate_u}")
            if held.out_u + held.locked_u > held.endowed_u + held.in_u:
                raise Violation("I6", f"area {area} may send out more than it has: {held}")
            if self._is_good(area) and held.out_u > self._transit(area).sent_u:
                raise Violation("I6", f"area {area} is said to have sent {held.out_u}")

    def _atomic(self) -> None:
        """I5: good areas act on what the main chain recorded and on nothing else; nobody is paid out of nothing."""
        for number in self._world.network.trades:
            main = self.main(number)
            terms = main.terms
            buyer = self.half(terms.buyer_chain, number) if self._is_good(terms.buyer_chain) else None
            seller = self.half(terms.seller_chain, number) if self._is_good(terms.seller_chain) else None
            for side, half, stood, ended in (
                ("buyer", buyer, BUYER_STOOD, ("REFUNDED",)),
                ("seller", seller, SELLER_STOOD, ("RELEASED",)),
            ):
                if half is None:
                    continue
                if half.state in stood and main.state not in STOOD:
                    raise Violation("I5", f"the {side} of trade {number} is {half.state}, recorded is {main.state}")
                if half.state in ended and main.state not in ENDED:
                    raise Violation("I5", f"the {side} of trade {number} is {half.state}, recorded is {main.state}")
                if self._seen.get((half.terms.number, side == "buyer")) != half.state:
                    self._seen[half.terms.number, side == "buyer"] = half.state
                    self._world.count(f"{side}-{half.state}")
            went_back = terms.buyer_chain == self._world.recovery.area  # its lock may have been in a block that is gone
            locked = buyer is None or buyer.state not in NO_LOCK or went_back
            if seller is not None and seller.state in ASKED and not locked:
                raise Violation("I5", f"the seller of trade {number} is {seller.state}, the buyer has no lock")
            if seller is not None and seller.state == "CREDITED" and main.state != "PAID":
                raise Violation("I6", f"the seller of trade {number} is credited, recorded is {main.state}")
            if seller is not None and buyer is not None and seller.state == "CREDITED" and buyer.state != "PAID":
                raise Violation("I6", f"the seller of trade {number} is credited, the buyer is {buyer.state}")
            if buyer is not None and buyer.state == "PAID" and main.state not in ("SETTLED", "PAID"):
                raise Violation("I6", f"the buyer of trade {number} has paid, recorded is {main.state}")

    # At rest ------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Everything was carried: nothing is open, nothing locked, wherever an area is good and running."""
        world = self._world
        for number in world.network.trades:
            self._ended(number)
        for home in world.network.homes:
            if not self._is_good(home.chain) or home.chain in world.halted:
                continue
            account = self.account(home)
            if account.escrow_u or account.bond_u:
                raise Violation("I13", f"household {home.number} has money locked for ever: {account}")
        running = [area for area in world.network.areas if self._is_good(area) and area not in world.halted]
        for area in running:
            event = self.event(area)
            if event.state not in (State.ABORTED, State.SETTLED, State.CLOSED):
                raise Violation("I13", f"the event of area {area} is still {event.state}")
            if self.position(area).locked_u:
                raise Violation("I13", f"the position of area {area} has money locked for ever")
        for source, target in self._introduced:
            if source == world.recovery.area and target in running and not self.knows_list(source, target):
                raise Violation("I13", f"area {target} never hears of the new list of area {source}")
        if running == world.network.areas:
            sent = sum(self._transit(area).sent_u for area in running)
            received = sum(self._transit(area).received_u for area in running)
            if sent != received:
                raise Violation("I6", f"{sent} was sent, {received} arrived")

    def _ended(self, number: int) -> None:
        world = self._world
        main = self.main(number)
        buyer_area, seller_area = main.terms.buyer_chain, main.terms.seller_chain
        live = [self._is_good(area) and area not in world.halted for area in (buyer_area, seller_area)]
        if all(live) and main.state not in OVER:
            raise Violation("I13", f"trade {number} is still {main.state} on the main chain")
        buyer, seller = self.half(buyer_area, number), self.half(seller_area, number)
        if buyer is not None and live[0] and buyer.state in ("NONE", "LOCKED", "BOUND"):
            raise Violation("I13", f"the buyer of trade {number} is still {buyer.state}, recorded is {main.state}")
        waiting = ("NONE", "OFFERED", "ASKED", "ACCEPTED", "EFFECTIVE", "SETTLED")
        owed = seller is not None and seller.state == "SETTLED" and main.state == "SETTLED" and not live[0]
        if seller is not None and live[1] and seller.state in waiting and not owed:
            raise Violation("I13", f"the seller of trade {number} is still {seller.state}, recorded is {main.state}")
        if buyer is None or seller is None or not all(live):
            return
        if (buyer.state in BUYER_STOOD) != (seller.state in SELLER_STOOD):
            raise Violation("I5", f"trade {number} ended as {buyer.state} and {seller.state}")
