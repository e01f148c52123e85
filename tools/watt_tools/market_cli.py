"""`wattpact market clear|check|explain|plot`: a market from a file, without any network.

Exit codes: 0 done, 1 a certificate does not hold, 2 a file or an entry is wrong (nothing is written then).
Results go to stdout, progress and problems to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watt_tools import market_bench, market_gain, market_peers

if TYPE_CHECKING:
    from watt_chain.contract.market import Solution
    from watt_market.engine import Run

    from watt_tools.market_book import Instance
    from watt_tools.market_certificate import Trace

PROBLEMS_SHOWN = 20
"Problems of a book printed one by one; the rest are counted."

Commands = argparse._SubParsersAction  # the only name argparse has for it


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add `market` and what it can do."""
    market = commands.add_parser("market", help="clear a book of offers and bids, check and explain the result")
    actions = market.add_subparsers(dest="action", metavar="ACTION", required=True)
    clear = actions.add_parser("clear", help="match a book and certify how near the best the matching is")
    clear.add_argument("book", type=Path, metavar="BOOK.json")
    clear.add_argument("--certificate", type=Path, metavar="FILE", help="write the matching with its certificate")
    clear.add_argument("--jobs", type=int, default=1, metavar="N", help="local processes for books of many areas")
    clear.add_argument("--scheduler", metavar="ADDRESS", help="Dask scheduler to use instead; 'local' starts one")
    check = actions.add_parser("check", help="check a certificate, without a solver; 1 and the failing row if not")
    check.add_argument("certificate", type=Path, metavar="CERT")
    check.add_argument("--book", type=Path, metavar="BOOK.json", help="it must be of this book")
    explain = actions.add_parser("explain", help="why an entry was not matched, and at what price it would have been")
    explain.add_argument("file", type=Path, metavar="BOOK.json|CERT")
    explain.add_argument("entry", metavar="OFFER", help="id of an entry")
    plot = actions.add_parser("plot", help="supply and demand, matched volume per slot, gap over time as PNG")
    plot.add_argument("certificate", type=Path, metavar="CERT")
    plot.add_argument("--out", type=Path, metavar="PNG", help="default: the certificate's name with .png")
    market_bench.add(actions)
    market_gain.add(actions)
    market_peers.add(actions)
    for parser, handler in ((clear, _clear), (check, _check), (explain, _explain), (plot, _plot)):
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.set_defaults(handler=_guarded(handler))


def _guarded(handler: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Turn what is wrong with a file into named lines and exit code 2."""

    def run(chosen: argparse.Namespace) -> int:
        from watt_market.engine import MarketError

        from watt_tools.market_book import BookError

        try:
            return handler(chosen)
        except BookError as error:
            problems = error.problems
        except OSError as error:
            problems = [(str(error.filename), "unreadable", error.strerror or str(error))]
        except MarketError as error:
            problems = [("book", "not-cleared", str(error))]
        if chosen.json:
            print(json.dumps({"problems": [list(problem) for problem in problems]}, indent=1))
        for entry, problem, words in problems[:PROBLEMS_SHOWN]:
            print(f"wattpact market: {entry}: {problem}: {words}", file=sys.stderr)
        if len(problems) > PROBLEMS_SHOWN:
            print(f"wattpact market: and {len(problems) - PROBLEMS_SHOWN} problems more", file=sys.stderr)
        return 2

    return run


def _load(path: Path) -> Any:
    from watt_tools.market_book import BookError

    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BookError([(str(path), "malformed", f"not JSON: {error}")]) from None


def search(instance: Instance, *, quiet: bool, run: Run | None = None) -> tuple[Solution, Trace, bool]:
    """Clear with progress on stderr. Returns (solution, trace, whether Ctrl-C ended the search early)."""
    from msgspec.structs import replace
    from watt_market.engine import Market, MarketError, Search, run_here

    begin = time.monotonic()
    trace: Trace = []
    shown = sys.stderr.isatty() and not quiet
    found = Search(instance.books, instance.spec, instance.rules, run=run or run_here)
    interrupted = False
    try:
        for step in found.steps():
            elapsed_ms = int((time.monotonic() - begin) * 1000)
            trace.append((elapsed_ms, step.stage, step.value_u, step.bound_u))
            if shown:
                text = f"\r{elapsed_ms / 1000:7.1f} s  {step.stage:<20.20} gap {step.gap_ppm / 10_000:.4f} %\033[K"
                print(text, end="", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        interrupted = True
    if shown:
        print("\r\033[K", end="", file=sys.stderr)
    solution = found.solution()
    # Who stops early takes a larger gap than the rules would: it is certified and said.
    rules = replace(instance.rules, gap_ppm=1_000_000) if interrupted else instance.rules
    reason = Market().check(solution, instance.books, instance.spec, rules)
    if reason:
        raise MarketError(reason)
    return solution, trace, interrupted


def _clear(chosen: argparse.Namespace) -> int:
    from watt_tools import market_book, market_certificate, market_run, market_show

    instance = market_book.parse(chosen.book.read_bytes())
    with market_run.chosen(chosen.scheduler, chosen.jobs) as run:
        solution, trace, interrupted = search(instance, quiet=chosen.json, run=run)
    made = market_certificate.make(instance, solution, trace)
    if chosen.certificate:
        chosen.certificate.write_text(json.dumps(made) + "\n")
    data = market_show.as_data(instance, solution) | {"interrupted": interrupted}
    if chosen.json:
        print(json.dumps(data, indent=1))
    else:
        market_show.clearing(data)
        if chosen.certificate:
            print(f"certificate: {chosen.certificate}")
    if interrupted:
        print("wattpact market: stopped early; this is the best certified answer so far", file=sys.stderr)
    return 0


def _check(chosen: argparse.Namespace) -> int:
    from watt_tools import market_book, market_certificate

    document = _load(chosen.certificate)
    reason = market_certificate.check(document)
    if not reason and chosen.book:
        wanted = market_certificate.digest(market_book.parse(chosen.book.read_bytes()).document)
        reason = "" if document["book_sha256"] == wanted else "certificate-of-another-book"
    gap = 0 if reason else market_certificate.gap_ppm(market_certificate.open_(document)[1])
    if chosen.json:
        print(json.dumps({"holds": not reason, "row": reason, "gap_ppm": None if reason else gap}, indent=1))
    elif reason:
        print(f"refused: {reason}")
    else:
        print(f"holds: no matching of this book is better by more than {gap / 10_000:.4f} %")
    return 1 if reason else 0


def _explain(chosen: argparse.Namespace) -> int:
    from watt_tools import market_book, market_certificate, market_explain, market_show
    from watt_tools.market_book import BookError

    document = _load(chosen.file)
    if isinstance(document, dict) and "solution" in document:
        reason = market_certificate.check(document)
        if reason:
            print(f"wattpact market: {chosen.file}: refused: {reason}", file=sys.stderr)
            return 1
        instance, solution, _ = market_certificate.open_(document)
    else:
        instance = market_book.read(document)
        solution, _, _ = search(instance, quiet=chosen.json)
    try:
        explained = market_explain.explain(instance, solution, chosen.entry)
    except KeyError:
        known = sorted(instance.entries.values())
        some = ", ".join(known[:8]) + (" ..." if len(known) > 8 else "")
        raise BookError([(chosen.entry, "unknown-entry", f"the book has {some or 'no entry'}")]) from None
    if chosen.json:
        print(json.dumps(asdict(explained) | {"matched_wh": explained.matched_wh}, indent=1))
    else:
        market_show.explanation(explained)
    return 0


def _plot(chosen: argparse.Namespace) -> int:
    from watt_tools import market_certificate, market_show, picture

    document = _load(chosen.certificate)
    reason = market_certificate.check(document)
    if reason:
        print(f"wattpact market: {chosen.certificate}: refused: {reason}", file=sys.stderr)
        return 1
    instance, solution, trace = market_certificate.open_(document)
    out = chosen.out or chosen.certificate.with_suffix(".png")
    picture.market_png(market_show.panels(instance, solution, trace), out)
    print(json.dumps({"picture": str(out)}) if chosen.json else f"picture: {out}")
    return 0
