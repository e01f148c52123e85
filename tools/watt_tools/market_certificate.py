"""A matching in a file that anybody can check without a solver: the book, the solution, and what ties them together.

    format        1
    book          BOOK.json as it was read
    solution      Solution of station/CONTRACT.md, fields in order
    trace         [ms since the start, stage, value_u, bound_u] of the search; for the plot
    book_sha256   over the canonical JSON of `book`
    sha256        over the canonical JSON of everything else

`check` answers "" or the name of the failing row: first those of BIDDING.md section 3, then `certificate-book` and
`certificate-hash`, which catch what is no row of the mathematics (a changed trace, a bid that trades nothing).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from watt_chain.contract.market import Solution
from watt_market.engine import Market

from watt_tools import market_book
from watt_tools.market_book import BookError, Instance

FORMAT: Final = 1
FIELDS: Final = ("format", "book", "solution", "trace", "book_sha256", "sha256")

Trace = list[tuple[int, str, int, int]]


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON of a value: keys sorted, no white space."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def make(instance: Instance, solution: Solution, trace: Trace) -> dict[str, Any]:
    """The certificate of a solution as JSON-able data."""
    made: dict[str, Any] = {
        "format": FORMAT,
        "book": instance.document,
        "solution": msgspec.to_builtins(solution),
        "trace": [list(step) for step in trace],
        "book_sha256": digest(instance.document),
    }
    return made | {"sha256": digest(made)}


def open_(document: object) -> tuple[Instance, Solution, Trace]:
    """Book, solution and trace of a certificate. Raises BookError, or ValueError with the failing row."""
    if not isinstance(document, dict) or sorted(document) != sorted(FIELDS) or document["format"] != FORMAT:
        raise ValueError("certificate-form")
    try:
        solution = msgspec.convert(document["solution"], Solution, strict=True)
        trace = msgspec.convert(document["trace"], Trace)
    except msgspec.ValidationError:
        raise ValueError("certificate-form") from None
    if msgspec.to_builtins(solution) != document["solution"]:
        raise ValueError("certificate-form")
    return market_book.read(document["book"]), solution, trace


def check(document: object) -> str:
    """Name the failing row of a certificate, "" when it holds. Raises BookError when its book is none."""
    try:
        instance, solution, _ = open_(document)
    except BookError:
        raise
    except ValueError as error:
        return str(error)
    # A search that was stopped early is still certified: its own gap is what it says, not what the rules ask for.
    rules = replace(instance.rules, gap_ppm=1_000_000)
    reason = Market().check(solution, instance.books, instance.spec, rules)
    if reason:
        return reason
    assert isinstance(document, dict)
    if document["book_sha256"] != digest(document["book"]):
        return "certificate-book"
    rest = {name: value for name, value in document.items() if name != "sha256"}
    return "" if document["sha256"] == digest(rest) else "certificate-hash"


def gap_ppm(solution: Solution) -> int:
    """Certified distance to the optimum, as a fraction of the bound."""
    return (solution.bound_u - solution.value_u) * 1_000_000 // max(1, solution.bound_u)
