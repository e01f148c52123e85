"""MaxUsersProfit() on the main chain: the best certified matching of an event wins.

Anybody with an account on the main chain may hand in a matching; its certificate is checked here by every master, so
it does not matter who found it (model.md U28).  The first that holds opens a window of `improve_s`; until its end a
matching of larger value replaces it, and nothing else can.  Then each booked area gets its slice.  With `improve_s` 0
the first one stands at once.
"""

import msgspec
from msgspec.structs import replace

from watt_chain.contract import cross_main
from watt_chain.contract.access import Session, refuse, refuse_if
from watt_chain.contract.event import MAIN_TRANSITIONS, MainTrigger, State
from watt_chain.contract.kinds import Abort, AreaMatch, Match
from watt_chain.contract.market import Book, Solution, budgeted
from watt_chain.contract.objects import LAST_STATES, Account, AreaReport, MainEvent, event_key, main_book_key


class Best(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """best/<n>: the best matching handed in so far, whose it is, and until when a better one replaces it."""

    by: bytes
    closes_s: int
    found: int
    "Matchings that held, this one included."
    solution: Solution


def best_key(event: int) -> bytes:
    """best/<n>: Best (main chain)."""
    return b"best/%d" % event


def main_event(session: Session, number: int) -> MainEvent:
    """An event of the main chain. Refuses "unknown-event"."""
    event = session.get(event_key(number), MainEvent)
    if event is None:
        refuse("unknown-event")
    return event


def advance(session: Session, event: MainEvent, trigger: MainTrigger) -> MainEvent:
    """Store the event in the state that the table gives. Refuses "stage" when the table has no such step."""
    target = MAIN_TRANSITIONS[event.state].get(trigger)
    if target is None:
        refuse("stage")
    moved = replace(event, state=target)
    session.put(event_key(event.event), moved)
    if target in (State.CLOSED, State.ABORTED):
        session.forget_open(event.event)
    return moved


def end_if_reported(session: Session, event: MainEvent) -> None:
    """The event is over when nothing more is awaited from any area."""
    over = all(report.state in LAST_STATES for report in event.areas)
    if over and MainTrigger.ALL_REPORTED in MAIN_TRANSITIONS[event.state]:
        advance(session, event, MainTrigger.ALL_REPORTED)


def halfway(early_s: int, late_s: int) -> int:
    """The instant from which on nobody is waited for any more."""
    return early_s + (late_s - early_s) // 2


def match(session: Session, signer: Account, fields: Match) -> None:
    """MaxUsersProfit(): take a matching if its certificate holds and none as good is there (J11).

    An area whose book is missing is left out once half the time for matching is over, so one dead area stalls nobody.
    """
    solution = fields.solution
    event = main_event(session, solution.event)
    refuse_if(event.state is not State.ANNOUNCED, "stage")
    best = session.get(best_key(event.event), Best)
    booked = [report.chain for report in event.areas if report.state == "booked"]
    if best is None:
        awaited = any(report.state == "waiting" for report in event.areas)
        half_s = halfway(event.spec.reveal_close_s, event.spec.match_by_s)
        refuse_if(not booked or (awaited and session.context.time_s < half_s), "books")
    else:  # the areas of the first matching are the areas of the event: a later book does not void what was found
        booked = [part.chain for part in best.solution.slices]
        refuse_if(solution.value_u <= best.solution.value_u, "not-better")
    refuse_if([part.chain for part in solution.slices] != booked, "slices")
    _check(session, event, solution)
    rules = session.rules(event.rules_version)
    closes_s = session.context.time_s + rules.improve_s if best is None else best.closes_s
    candidate = Best(signer.id, closes_s, 1 if best is None else best.found + 1, solution)
    session.put(best_key(event.event), candidate)
    if not rules.improve_s:
        _decide(session, event, candidate)


def _check(session: Session, event: MainEvent, solution: Solution) -> None:
    """Every row of BIDDING.md section 3. Refuses with the name of the first that fails."""
    cross_main.check_crossings(session, solution)
    rules = session.rules(event.rules_version)
    books = _books(session, event, solution)
    reason = session.market.check(solution, books, budgeted(event.spec, rules, books), rules)
    refuse_if(reason != "", reason if reason.startswith(FAMILIES) else "solution-" + reason)


FAMILIES = ("chain-", "across-", "solution-")
"What the market's reasons begin with; CONTRACT.md lists them by these."


def _books(session: Session, event: MainEvent, solution: Solution) -> list[Book]:
    return [session.need(main_book_key(event.event, part.chain), Book) for part in solution.slices]


def pass_deadlines(session: Session, event: MainEvent) -> None:
    """The window for better matchings ends, or nobody has found one in time."""
    now_s, best = session.context.time_s, session.get(best_key(event.event), Best)
    if best is not None and now_s >= min(best.closes_s, event.spec.match_by_s):
        _decide(session, event, best)
    elif now_s >= event.spec.match_by_s:
        for report in event.areas:
            session.emit(report.chain, "Abort", Abort(event.event, "no-match"))
        advance(session, event, MainTrigger.MATCH_DUE)


def _decide(session: Session, event: MainEvent, best: Best) -> None:
    """The best matching stands: slices go to its areas, every other area is left out."""
    solution = best.solution
    rules = session.rules(event.rules_version)
    books = _books(session, event, solution)
    borders = session.market.borders(solution, books, event.spec, rules)
    cross_main.open_trades(session, event, solution, books)
    parts = {part.chain: (part, border) for part, border in zip(solution.slices, borders, strict=True)}
    reports: list[AreaReport] = []
    for report in event.areas:
        if report.state == "refused":  # in quarantine since it was matched
            reports.append(report)
        elif report.chain in parts:
            session.emit(report.chain, "Match", AreaMatch(event.event, solution.rho_scaled, *parts[report.chain]))
            reports.append(replace(report, state="sliced"))
        else:
            session.emit(report.chain, "Abort", Abort(event.event, "left-out"))
            reports.append(replace(report, state="left-out"))
    decided = replace(
        event,
        areas=reports,
        rho_scaled=solution.rho_scaled,
        value_u=solution.value_u,
        bound_u=solution.bound_u,
    )
    advance(session, decided, MainTrigger.MATCH)
    docket = cross_main.Docket(session)
    for report in reports:
        if report.state == "refused":
            cross_main.end_of_area(session, docket, event.event, report.chain, report.reason)
    docket.flush()
