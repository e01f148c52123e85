"""Where the event stands, for `status.json`: what the demo and the operator's console show while it runs."""

from watt_chain.contract.objects import AreaEvent, MainEvent

from watt_master.view import MAIN, View

PPM = 1_000_000


def gap_ppm(value_u: int, bound_u: int) -> int:
    """Certified distance of a matching from its bound, as a fraction of the bound in ppm, rounded up."""
    return -(-(bound_u - value_u) * PPM // bound_u) if bound_u > 0 else 0


def event_status(view: View) -> dict[str, object] | None:
    """The latest event with all its areas; None before the first announcement."""
    number = view.last_event(MAIN)
    main = view.main_event(number) if number else None
    if main is None:
        return None
    children = [(chain, view.area_event(chain, number)) for chain in view.areas()]
    return {
        "number": number,
        "state": str(main.state),
        "matches": sum(event.pairs for _, event in children if event is not None),
        "across": _across(view, number),
        "reports": {str(report.chain): report.state for report in main.areas},
        "value_u": main.value_u,
        "bound_u": main.bound_u,
        "gap_ppm": gap_ppm(main.value_u, main.bound_u),
        "lambda_u_per_wh": list(main.lambda_u_per_wh),
        "need_wh": list(main.need_wh),
        "areas": {str(chain): _area(view, chain, main, event) for chain, event in children},
    }


def _across(view: View, number: int) -> dict[str, int]:
    """Trades across areas by their state on the main chain."""
    counts: dict[str, int] = {}
    for trade in view.main_trades(number):
        counts[trade.state] = counts.get(trade.state, 0) + 1
    return dict(sorted(counts.items()))


def _area(view: View, chain: int, main: MainEvent, event: AreaEvent | None) -> dict[str, object]:
    if event is None:
        return {"state": "UNKNOWN"}
    book = view.book(main.event, chain)
    return {
        "state": str(event.state),
        "reason": event.reason,
        "offers": 0 if book is None else len(book.offers),
        "bids": 0 if book is None else len(book.bids),
        "matches": event.pairs,
        "users": _users(view, chain, event),
    }


def _users(view: View, chain: int, event: AreaEvent) -> dict[str, int]:
    """How many users stand in which status after SettlementCredit."""
    counts: dict[str, int] = {}
    for row in view.rows(chain, event.event):
        counts[row.status] = counts.get(row.status, 0) + 1
    return dict(sorted(counts.items()))
