"""Trades across areas: replays their lives on every chain from the blocks (CONTRACT.md 17; a bare number: its section).

A part of the independent verifier: written from the document, shares no code with the network. What an area reports and
what the main chain tells must be what the calls and messages before it lead to, word by word and in order; states,
positions and money follow. What an area says was delivered is recomputed with its bills (verify.py).
"""

from hashlib import sha256
from types import SimpleNamespace as Space
from typing import Any

import msgspec

M = 1_000_000
encode = msgspec.msgpack.encode
LIVES = {
    "buy": "NONE lock LOCKED  NONE decline REFUSED  NONE lapse REFUSED  NONE anchored-end REFUSED  LOCKED "
    "anchored-accept BOUND  LOCKED anchored-end REFUNDED  BOUND settled PAID  BOUND returned RETURNED "
    "BOUND void RETURNED",
    "sell": "NONE consent OFFERED  NONE locked ASKED  NONE decline REJECTED  NONE lapse REJECTED  NONE anchored-end "
    "REJECTED  OFFERED locked ACCEPTED  OFFERED decline REJECTED  OFFERED lapse REJECTED  OFFERED anchored-end "
    "REJECTED  ASKED consent ACCEPTED  ASKED decline REJECTED  ASKED lapse REJECTED  ASKED anchored-end REJECTED "
    "ACCEPTED anchored-accept EFFECTIVE  ACCEPTED anchored-end RELEASED  EFFECTIVE settle SETTLED  EFFECTIVE "
    "settle-empty RETURNED  EFFECTIVE void RETURNED  SETTLED pay CREDITED  SETTLED void RETURNED",
    "main": "NONE locked LOCKED  NONE accept ACCEPTED  NONE reject REJECT  NONE over KILL  NONE kill KILL  LOCKED "
    "accept ACCEPT  LOCKED join READY  LOCKED reject REJECT  LOCKED kill KILL  ACCEPTED locked ACCEPT  ACCEPTED join "
    "READY  ACCEPTED over KILL  ACCEPTED kill KILL  READY all-ready ACCEPT  READY kill KILL  ACCEPT settled SETTLED "
    "ACCEPT returned RETURNED  ACCEPT void VOID  SETTLED pay PAID",
}  # 17.3
WORDS = {side: text.split() for side, text in LIVES.items()}
STEPS = {side: {tuple(row[i : i + 2]): row[i + 2] for i in range(0, len(row), 3)} for side, row in WORDS.items()}
REPORTS = {"ACCEPTED": "accept", "REJECTED": "reject", "SETTLED": "settled", "RETURNED": "returned", "PAID": "pay"}
TOLD = {"ACCEPT": "anchored-accept", "REJECT": "anchored-end", "KILL": "anchored-end", "VOID": "void"}
STOOD = ("BOUND", "PAID", "RETURNED", "EFFECTIVE", "SETTLED", "CREDITED")
HELD, ENDS = ("LOCKED", "READY", "ACCEPT", "SETTLED"), ("NONE", "LOCKED", "ACCEPTED", "READY")


class Crossing:
    """All trades of an export: `match`, `main` and `area` are fed the calls of the chains in their order."""

    def __init__(self, of: Any) -> None:
        self.of, self.trades = of, dict[tuple[int, int], Any]()
        self.positions, self.said, self.told, self.locked, self.refuted = (dict[int, Any]() for _ in range(5))

    def match(self, number: int, across: Any) -> None:
        """17.1: terms and ids of the crossings of a matching; a better one replaces them."""
        of, event = self.of, self.of.events[number]
        spec, rules = event.spec, event.rules
        for key in [key for key in self.trades if key[0] == number]:
            del self.trades[key]
        for k, (offer_chain, offer, bid_chain, bid, slot_wh) in enumerate(across[0] if across else [], 1):
            book = [of.state[0][f"book/{number}/{chain}"] for chain in (offer_chain, bid_chain)]
            (_, seller, ask, _, credit, *_), (_, buyer, limit, *_) = book[0][2][offer], book[1][3][bid]
            risk = rules.risk_u_per_wh * (rules.credit_cap - min(credit, rules.credit_cap)) // rules.credit_cap
            listed = of.state[0][f"cross/{number}/{k}"][0][7] if rules.price_rule != "k-double" else []
            prices = listed or [(limit + ask + risk + alpha) // 2 for alpha in spec.alpha_u_per_wh]
            charge = rules.gamma_u_per_ms * (2 * spec.x_ms + spec.y_ms)
            terms = [number, k, offer_chain, seller, bid_chain, buyer, slot_wh, prices, charge]
            id_ = sha256(b"wattpact/1/cross\0" + of.network + encode(terms)).digest()
            wh = sum(slot_wh)
            bond = (M + rules.beta_ppm) * rules.price_cap_u_per_wh * wh // M
            self.trades[number, k] = Space(
                terms=terms, id=id_, chains={"sell": offer_chain, "buy": bid_chain},
                users={"sell": seller, "buy": buyer}, state={"main": "NONE", "sell": "NONE", "buy": "NONE"},
                group={"main": [], "sell": [], "buy": []},
                paid={"main": 0, "sell": 0, "buy": 0}, value=limit * wh, limit=limit, reason="", bond=bond,
                escrow={"buy": limit * wh + (charge + 1) // 2, "sell": charge // 2}, slot_wh=slot_wh, charge=charge,
            )  # fmt: skip

    def named(self, number: int, k: int, id_: bytes) -> Any:
        trade = self.trades.get((number, k))
        return trade if trade and trade.id == id_ else None

    def position(self, chain: int) -> Any:
        first = Space(endowed=0, rate=0, locked=0, out=0, into=0, event=0, rate_locked=0, quarantine="")
        return self.positions.setdefault(chain, first)

    # The main chain -----------------------------------------------------------------------------------------------

    def step(self, trade: Any, word: str, paid: int = 0, reason: str = "") -> None:
        """One step of the main chain with its effects (17.3)."""
        before, goal = trade.state["main"], STEPS["main"].get((trade.state["main"], word))
        if goal is None:
            return
        (number, k, *_), giver, taker = trade.terms, self.position(trade.chains["buy"]), trade.chains["sell"]
        trade.state["main"], trade.reason = goal, reason or trade.reason
        trade.paid["main"] = paid if word == "settled" else trade.paid["main"]
        if before not in HELD and goal in HELD:
            giver.rate_locked = trade.value + (giver.rate_locked if giver.event == number else 0)
            giver.event, giver.locked = number, giver.locked + trade.value
        if before in HELD and goal not in HELD:
            giver.locked -= trade.value
        sides = ["buy", "sell"] if goal in TOLD else ["sell"] if goal == "PAID" else []
        sides = ["buy"] if goal in ("SETTLED", "RETURNED") else sides
        if goal == "PAID":
            giver.out += trade.paid["main"]
            self.position(taker).into += trade.paid["main"]
        for side in sides:
            amount = trade.paid["main"] if goal in ("SETTLED", "PAID") else 0
            self.news.setdefault((trade.chains[side], number), []).append([k, TOLD.get(goal, word), amount])
        others = [self.trades[number, other] for other in trade.group["main"]]
        if goal in ("REJECT", "KILL"):
            for other in [one for one in others if one.state["main"] in ENDS]:
                self.step(other, "kill", reason="together")
        elif goal == "READY" and all(one.state["main"] == "READY" for one in others):
            for other in others:
                self.step(other, "all-ready")

    def main(self, call: Any, messages: list[Any]) -> None:
        """A call of the main chain, with the messages of the block that it anchors: (source, target, kind, *body)."""
        self.news, time_s = dict[tuple[int, int], list[Any]](), call.header.time_s
        if call.kind == "Endow":
            held = self.position(call.fields[0])
            held.endowed, held.rate = call.fields[1:]
        for source, target, kind, *body in messages:
            if kind == "CrossLocked":
                for k, id_ in body[1]:
                    self.locked.setdefault(source, []).append([target, body[0], k, id_])
                    self.lock(self.named(body[0], k, id_), source, body[2])
            elif kind == "CrossReport":
                self.said.setdefault(source, []).extend([body[0], *item] for item in body[1])
                for k, id_, word, paid in body[1]:
                    trade, side = self.named(body[0], k, id_), "buy" if word == "pay" else "sell"
                    if trade and source == trade.chains[side] and paid <= trade.value:
                        joins = word == "accept" and trade.group["main"] and trade.state["main"] == "LOCKED"
                        self.step(trade, "join" if joins else word, paid)
            elif kind == "MatchRefused":
                self.end(body[0], source, True, False, "area")
        if call.kind == "CrossEnd":
            spec = self.of.events[call.fields[0]].spec
            due_s = spec.confirm_close_s + (spec.window_start_s - spec.confirm_close_s) // 2
            self.end(call.fields[0], None, time_s >= due_s, time_s >= spec.settle_by_s, "late")
        elif call.kind == "SettlementAmount":
            self.end(call.fields[0], None, True, True, "unsettled")
        elif call.kind in ("Fork", "Refute"):
            self.accuse(call)
        elif call.kind == "Readmit":
            self.position(call.fields[0]).quarantine = ""
        for (chain, number), items in sorted(self.news.items()):
            self.told.setdefault(chain, []).append([number, items])

    def accuse(self, call: Any) -> None:
        """17.7: two blocks of one height, or a block that f + 1 masters could not execute, end what is undecided."""
        first, hashes = call.fields[0][0] if call.kind == "Fork" else call.fields[0], call.hashes
        chain, masters = msgspec.msgpack.decode(first)[1], self.of.lists.founders[0]
        if call.kind == "Refute":
            before = self.refuted.get(chain, (hashes, set()))
            _, found = self.refuted[chain] = (hashes, {call.me.id} | (before[1] if before[0] == hashes else set()))
        enough = len(hashes) > 1 if call.kind == "Fork" else len(found) > (len(masters) - 1) // 3
        held, numbers = self.position(chain), sorted({number for number, _ in self.trades})
        ending = numbers if enough and not held.quarantine else []
        held.quarantine = {"Fork": "fork", "Refute": "refuted"}[call.kind] if enough else held.quarantine
        for number in ending:
            self.end(number, chain, True, False, "quarantine")

    def end(self, number: int, chain: int | None, kills: bool, voids: bool, reason: str) -> None:
        for trade in [one for (event, _), one in sorted(self.trades.items()) if event == number]:
            if chain not in (None, *trade.chains.values()):
                continue
            if trade.state["main"] in ENDS and kills:
                self.step(trade, "kill", reason=reason)
            elif trade.state["main"] == "ACCEPT" and voids:
                self.step(trade, "void", reason=reason)

    def lock(self, trade: Any, source: int, group: list[int]) -> None:
        if not trade or source != trade.chains["buy"]:
            return
        held, value, number = self.position(source), trade.value, trade.terms[0]
        rated = held.rate_locked if held.event == number else 0
        over = "bound" if held.locked + held.out + value > held.endowed + held.into else ""
        over = over or ("rate" if rated + value > held.rate else "")
        trade.group["main"] = group
        joins = group and trade.state["main"] == "ACCEPTED"
        self.step(trade, "over" if over else "join" if joins else "locked", reason=over)

    def close(self) -> None:
        """What stands on the main chain at the end."""
        of = self.of
        for (number, k), trade in self.trades.items():
            state, group, paid = (where["main"] for where in (trade.state, trade.group, trade.paid))
            of.same(f"cross/{number}/{k}", [trade.terms, trade.id, state, group, trade.value, paid, trade.reason])
        for chain, held in self.positions.items():
            if any(values := list(vars(held).values())):
                of.same(f"position/{chain}", values)

    # An area ------------------------------------------------------------------------------------------------------

    def area(self, chain: int) -> None:
        """17.2, 17.5: replay an area's halves from its calls, deadlines and news; its money; what it had to report."""
        of, self.reports, self.locks, told = self.of, list[Any](), list[Any](), list[Any]()
        self.chain, self.transit = chain, [0, 0]
        mine = [(trade, side) for _, trade in sorted(self.trades.items()) for side in ("buy", "sell")]
        self.mine = [(trade, side) for trade, side in mine if trade.chains[side] == chain]
        self.there, lapsed, settled = set[int](), set[int](), set[int]()
        for call in [*of.calls[chain], *(Space(header=block.header, kind="") for block in of.blocks[chain][-1:])]:
            for number in sorted(self.there):
                if call.header.time_s >= of.events[number].spec.confirm_close_s and number not in lapsed:
                    lapsed.add(number)
                    self.all(number, "lapse")
                if call.header.time_s >= of.events[number].spec.settle_by_s and number not in settled:
                    settled.add(number)  # the event is aborted
                    self.all(number, "settle-empty")
            if call.kind == "CrossOp":
                self.operate(call)
            elif call.kind == "Confirmtransaction" and not call.fields[1]:
                self.all(call.fields[0], "decline", call.me.id)
            elif call.kind == "SettlementCredit":
                self.all(call.fields[0], "settle")
            elif call.kind == "SettlementAmount":
                settled.add(call.fields[0])
                for trade in self.of_event(call.fields[0], "sell"):
                    if trade.state["sell"] in ("SETTLED", "CREDITED"):
                        self.pay(trade.users["sell"], trade.charge // 2, True)
            for source, kind, *body in getattr(call, "taken", []):
                self.there |= {body[0]} if kind == "Match" and (chain, "Matched", body[0]) in of.reports else set()
                told += [body[:2]] if kind == "CrossNews" else []
                for k, *word in body[1] if kind == "CrossNews" else []:
                    for trade, side in [one for one in self.mine if one[0].terms[:2] == [body[0], k]]:
                        self.hear(trade, side, word[0], word[1], body[0] in settled)
                for k, id_ in body[1] if kind == "CrossLocked" else []:
                    trade = self.named(body[0], k, id_)
                    if trade and (trade, "sell") in self.mine and trade.chains["buy"] == source:
                        self.move(trade, "sell", "locked")
                for number, k in body[4] if kind == "Partner" else []:
                    self.move(self.trades[number, k], "sell", "locked")
        said, locked, news = (found.get(chain, []) for found in (self.said, self.locked, self.told))
        if self.position(chain).quarantine:  # what is not anchored counts for nobody else
            self.reports, self.locks = self.reports[: len(said)], self.locks[: len(locked)]
        checks = {"reports": self.reports == said, "locks": self.locks == locked, "news": told == news[: len(told)]}
        for what, held in checks.items():
            of.problems += [] if held else [f"chain-{chain}: its {what} of trades do not follow from its blocks"]
        self.leave()

    def operate(self, call: Any) -> None:
        """CrossOp."""
        (number, names, accept), me = call.fields, call.me.id
        side = "buy" if self.trades[number, names[0]].users["buy"] == me else "sell"
        word = ("lock" if side == "buy" else "consent") if accept else "decline"
        for k in names:
            trade = self.trades[number, k]
            if word == "lock" and len(names) > 1:
                trade.group["buy"] = names
            good = (trade, side) in self.mine and trade.users[side] == me and self.move(trade, side, word)
            self.of.problems += [] if good else [f"{call.where} it could not be accepted"]

    def of_event(self, number: int, *sides: str) -> list[Any]:
        return [trade for trade, side in self.mine if trade.terms[0] == number and side in sides]

    def all(self, number: int, word: str, user: bytes = b"") -> None:
        """A step of every half of an event, or of one user's."""
        for trade, side in [one for one in self.mine if one[0].terms[0] == number]:
            if word == "settle":
                said = [item for item in self.said.get(self.chain, []) if item[:2] == trade.terms[:2]]
                paid = [item[4] for item in said if item[3] == "settled"]
                self.move(trade, side, "settle" if paid else "settle-empty", *paid)
            elif user in (b"", trade.users[side]):
                self.move(trade, side, word)

    def move(self, trade: Any, side: str, word: str, paid: int = 0) -> bool:
        """One step of a half, and what the area has to tell of it."""
        goal = STEPS[side].get((trade.state[side], word))
        if goal is None or trade.terms[0] not in self.there:  # an area that never took its part has no trades
            return False
        trade.state[side] = goal
        trade.paid[side] = paid if word in ("settle", "settled") else trade.paid[side]
        if word == "lock":
            self.locks.append([trade.chains["sell"], *trade.terms[:2], trade.id])
        elif goal in REPORTS and word not in ("anchored-end", "void", "returned"):
            amount = paid if goal == "SETTLED" else 0
            self.reports.append([*trade.terms[:2], trade.id, REPORTS[goal], amount])
        return True

    def hear(self, trade: Any, side: str, word: str, paid: int, over: bool) -> None:
        """News of the main chain, and the money that moves with them."""
        if not self.move(trade, side, word, paid):
            return
        if trade.state[side] == "EFFECTIVE" and over:
            self.move(trade, side, "settle-empty")
        elif word == "settled":
            self.pay(trade.users[side], (trade.charge + 1) // 2, True)
            self.pay(trade.users[side], paid, False)
            self.transit[0] += paid
        elif word == "pay":
            self.pay(trade.users[side], -trade.paid[side], False)
            self.transit[1] += trade.paid[side]

    def pay(self, user: bytes, amount: int, grid: bool) -> None:
        self.of.users[user].free_u -= amount
        self.of.grid.free_u += amount if grid else 0

    def leave(self) -> None:
        """What the area's halves and accounts hold at the end, when every event is over."""
        of = self.of
        for trade, side in self.mine:
            waits = trade.state[side] in ("LOCKED", "ACCEPTED")
            escrow = trade.escrow[side] if waits or trade.state[side] == "BOUND" else 0
            bond = trade.bond if waits else 0
            party = of.users[trade.users[side]]
            party.free_u, party.escrow_u, party.bond_u = (
                party.free_u - escrow - bond, party.escrow_u + escrow, party.bond_u + bond
            )  # fmt: skip
            group = trade.group["buy"] if side == "buy" else []
            limit_u = trade.limit * (side == "buy")
            values = [trade.terms, trade.id, side, trade.state[side], group, limit_u, escrow, bond]
            met = trade.terms[0] in self.there
            of.same(f"cross/{trade.terms[0]}/{trade.terms[1]}", [*values, trade.paid[side]] if met else None)
        of.same("transit", self.transit if any(self.transit) else None)

    def ends(self, number: int) -> list[tuple[bytes, Any]]:
        """The area's trades of an event that stood, in the form of pairs, each with its user of the area."""
        mine = [one for one in self.mine if one[0].terms[0] == number and one[0].state[one[1]] in STOOD]
        return [(trade.users[side], self.leg(trade, side)) for trade, side in mine]

    def leg(self, trade: Any, side: str) -> Any:
        counts = (trade.state[side] in ("PAID", "SETTLED", "CREDITED")) * (1 if side == "sell" else -1)
        charge = (trade.charge + (side == "buy")) // 2 * abs(counts)
        return Space(
            trade=trade, side=side, event=trade.terms[0], slot_wh=trade.slot_wh, seller=trade.users["sell"],
            buyer=trade.users["buy"], charge_u=charge, traded_u=trade.paid[side] * counts,
        )  # fmt: skip

    def deliver(self, number: int, rows: dict[bytes, Any]) -> None:
        """17.5: what a seller's trades came to is its price for the cells that its own pairs have left."""
        for user, leg in [one for one in self.ends(number) if one[1].side == "sell"]:
            row, trade, slots = rows[user], leg.trade, len(leg.slot_wh)
            cells, row.cells = row.cells[:slots], row.cells[slots:]
            price = sum(price * wh for price, wh in zip(trade.terms[7], cells, strict=True))
            made, said = 0 if row.status == "unverified" else price, trade.paid["sell"]
            good = said == made or (trade.state["main"] == "VOID" and not said)
            text = f"cross/{number}/{trade.terms[1]}: settled for {said}, recomputed {made}"
            self.of.problems += [] if good else [f"chain-{self.chain}.state: {text}"]

    def settle(self, number: int, rows: dict[bytes, Any]) -> None:
        """Into the rows; the money has moved with the news."""
        for user, leg in self.ends(number):
            rows[user].traded_u += leg.traded_u
            rows[user].charge_u += leg.charge_u

    def sides(self, number: int) -> list[tuple[bytes, bool]]:
        """13: whose trades were matched, and whether they were confirmed."""
        mine = [one for one in self.mine if one[0].terms[0] == number]
        return [(trade.users[side], trade.state[side] in STOOD) for trade, side in mine]

    def leaves(self, number: int) -> list[Any]:
        """13: what the result root says of them."""
        found = []
        for trade, side in [one for one in self.mine if one[0].terms[0] == number]:
            state = trade.state[side]
            word = "settled" if state in ("PAID", "SETTLED", "CREDITED") else "ended"
            word = "returned" if state == "RETURNED" else word
            found.append([trade.terms[1], side, word, trade.paid[side] if word == "settled" else 0])
        return found

    def stated(self, number: int) -> list[dict[str, Any]]:
        """What the statement says of them."""
        names = ("number", "seller_chain", "seller", "buyer_chain", "buyer", "slot_wh", "price_u_per_wh", "charge_u")
        found = []
        for (event, _), trade in sorted(self.trades.items()):
            values = [one.hex() if isinstance(one, bytes) else one for one in trade.terms[1:]]
            ends = {"paid_u": trade.paid["main"], "state": trade.state["main"]}
            found += [dict(zip(names, values, strict=True)) | ends] if event == number else []
        return found
