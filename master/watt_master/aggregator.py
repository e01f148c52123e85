"""The aggregator's office: closes the collection of bids, clears the market, settles credit and amounts.

Functions of the paper it signs (section 4.1): GetUsersInformation() and QualificationVerification() end with Qualify in
each area; MaxUsersProfit() is the clearing and its Match on the main chain, and where the rules have a second round
Reopen and Rematch in each area; SettlementCredit() and SettlementAmount() in each area.

`due` is a function of the ledgers and the clock; only the clearing, which takes time, is remembered, and a restart
simply clears again: the certificate makes one correct answer as good as another.
"""

from watt_chain.contract import cross_area, objects, rematch
from watt_chain.contract.bidding import book_root
from watt_chain.contract.contest import Best, best_key
from watt_chain.contract.credit import contracts_of
from watt_chain.contract.event import State
from watt_chain.contract.kinds import EventCall, Match
from watt_chain.contract.market import budgeted
from watt_chain.contract.objects import NO_REGISTER, AreaEvent, EventMeter, MainEvent, Pair
from watt_chain.contract.rematch import Rebook
from watt_chain.contract.rematch_kinds import Rematch, Reopen

from watt_master.clearing import Clearing
from watt_master.desk import Wish
from watt_master.view import MAIN, View

COLLECTING = (State.ANNOUNCED, State.COMMIT, State.REVEAL)
"""Qualify is asked for in all of them once the reveals are closed: chains make no empty blocks, so it is often the
Qualify transaction itself whose block moves the event from COMMIT to REVEAL."""
UNDER_WAY = (State.MATCHED, State.CONFIRMED, State.DELIVERING)
"Likewise for SettlementCredit once metering is closed."


class Aggregator:
    """What the aggregator has to sign now."""

    role = "aggregator"

    def __init__(self, clearing: Clearing) -> None:
        self.clearing = clearing

    def due(self, view: View, now_s: int, now_ms: int) -> list[Wish]:
        """Transactions that are due at `now_s` (protocol seconds); `now_ms` (machine) paces the clearing."""
        wishes: list[Wish] = []
        for number in view.numbers(MAIN):
            main = view.main_event(number)
            if main is not None and main.state is State.ANNOUNCED:
                wishes += self._matching(view, main, now_s, now_ms)
            elif main is None or main.state is not State.MATCHED:  # until then areas may be cleared a second time
                self.clearing.forget(number)
        for chain in view.areas():
            for number in view.numbers(chain):
                event = view.area_event(chain, number)
                if event is not None:
                    wishes += _area_calls(view, chain, event, now_s)
                    wishes += self._second_round(view, chain, event, now_s, now_ms)
        return wishes

    def _matching(self, view: View, main: MainEvent, now_s: int, now_ms: int) -> list[Wish]:
        spec = main.spec
        if now_s >= spec.match_by_s:
            self.clearing.forget(main.event)
            return []
        booked = [report for report in main.areas if report.state == "booked"]
        # While an area has not reported, the clearing waits for it, but keeps half of the time for itself.
        last_call_s = (spec.reveal_close_s + spec.match_by_s) // 2
        if not booked or (any(report.state == "waiting" for report in main.areas) and now_s < last_call_s):
            return []
        books = [book for report in booked if (book := view.book(main.event, report.chain)) is not None]
        rules = view.rules(MAIN, main.rules_version)
        if rules is None or len(books) != len(booked):
            return []
        roots = [report.book_root for report in booked]
        solution = self.clearing.solution(budgeted(spec, rules, books), roots, books, rules, now_ms)
        if solution is None:
            return []
        stage = ",".join(f"{report.chain}:{report.state}" for report in main.areas)
        best = view.read(MAIN, best_key(main.event), Best)
        if best is not None and now_s >= best.closes_s:
            stage += " decide"  # chains make no empty blocks: this call's block ends the window, and then refuses it
        elif best is not None and best.solution.value_u >= solution.value_u:
            return []
        return [Wish(MAIN, "Match", f"event {main.event}", Match(solution), stage)]

    def _second_round(self, view: View, chain: int, event: AreaEvent, now_s: int, now_ms: int) -> list[Wish]:
        """Reopen(), then the matching of what is left (U25)."""
        rules = view.rules(chain, event.rules_version)
        opens_s = None if rules is None else rematch.opens_s(event.spec, rules)
        if event.state is not State.MATCHED or rules is None or opens_s is None:
            return []
        if not opens_s <= now_s < rematch.ends_s(event.spec, rules):
            return []
        name, rebook = f"event {event.event}", view.read(chain, rematch.rebook_key(event.event), Rebook)
        if rebook is None:
            return [Wish(chain, "Reopen", name, Reopen(event.event), str(event.state))]
        if rebook.over:
            return []
        spec, inside = rematch.terms_of(event, rebook, rules)
        roots, books = [book_root(rebook.book)], [rebook.book]
        solution = self.clearing.solution(spec, roots, books, inside, now_ms)
        if solution is None or not solution.value_u:
            return []
        return [Wish(chain, "Rematch", name, Rematch(event.event, solution), "reopened")]

    def status(self) -> dict[str, object]:
        """For status.json."""
        return {"clearing": self.clearing.running()}


def _area_calls(view: View, chain: int, event: AreaEvent, now_s: int) -> list[Wish]:
    """The one call of the aggregator that this area's event waits for, if any."""
    kind = ""
    spec = event.spec
    if event.state in COLLECTING and spec.reveal_close_s <= now_s < spec.confirm_close_s:
        kind = "Qualify"
    elif event.state in UNDER_WAY and now_s < spec.settle_by_s:
        if now_s >= spec.meter_close_s or (now_s >= spec.window_end_s and is_metered(view, chain, event)):
            kind = "SettlementCredit"
    elif event.state is State.METERED and len(event.lambda_u_per_wh) == spec.slots:
        kind = "SettlementAmount"
    if not kind:
        return []
    return [Wish(chain, kind, f"event {event.event}", EventCall(event.event), str(event.state))]


def is_metered(view: View, chain: int, event: AreaEvent) -> bool:
    """Whether every user under contract has a register at every slot boundary: then nothing is to be waited for."""
    if event.state is State.MATCHED:
        return False  # which pairs stand is decided by the next block only
    trades = view.cross_trades(chain, event.event)
    if cross_area.are_undecided(trades):
        return False
    across = [(trade.user, cross_area.as_pair(trade, event)) for trade in trades if cross_area.stood(trade)]
    pairs = [view.read(chain, objects.pair_key(event.event, k), Pair) for k in range(1, event.pairs + 1)]
    for user in contracts_of([pair for pair in pairs if pair is not None], across):
        meter = view.read(chain, objects.register_key(event.event, user), EventMeter)
        if meter is None or any(NO_REGISTER in row.import_mwh for row in meter.plugs):
            return False
    return True
