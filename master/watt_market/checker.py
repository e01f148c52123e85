"""The market as the contract needs it: everything that checks, nothing that solves.

A station re-computes integer certificates only (ARCHITECTURE.md D7) and is installed without a solver;
`watt_market.engine.Market` adds the search.
"""

from collections.abc import Sequence

from msgspec.structs import replace
from watt_chain.contract.event import EventSpec, Unit
from watt_chain.contract.market import Book, Border, Crossing, Dispatch, Offer, PairTerms, Slice, Solution
from watt_chain.contract.rules import RuleSet

from watt_market import across, certificate, incentive, lower, upper
from watt_market.book import check_book, stepped
from watt_market.border import MULTIPLIER_MAX
from watt_market.options import Options, options_of


class Checker:
    """Implements watt_chain.contract.market.Market; see there for what each function answers."""

    def rows(self, offer: Offer, spec: EventSpec, rules: RuleSet) -> list[Offer]:
        """See book.stepped."""
        rows = stepped(offer, spec, options_of(spec, rules).comfort_steps_ppm)
        return [replace(row, index=offer.index + k) for k, row in enumerate(rows)]

    def check_slice(
        self, book: Book, part: Slice, rho_scaled: int, spec: EventSpec, rules: RuleSet, border: Border | None = None,
        options: Options | None = None,
    ) -> str:  # fmt: skip
        """See certificate.check_slice."""
        return certificate.check_slice(book, part, rho_scaled, spec, rules, border, options)

    def check(
        self, solution: Solution, books: Sequence[Book], spec: EventSpec, rules: RuleSet,
        options: Options | None = None,
    ) -> str:  # fmt: skip
        """Check a whole solution against all books: the crossings, every slice, then what ties them together.

        "" or the first failing row; a row of one slice after "chain-C-".
        """
        options, by_chain = options or options_of(spec, rules), {book.chain: book for book in books}
        parts = solution.slices
        if [part.chain for part in parts] != sorted(by_chain):
            return "solution-slices"
        if (solution.across is None) != (options.crossings == 0):
            return "solution-across"
        if not 0 <= solution.rho_scaled <= MULTIPLIER_MAX:
            return "solution-rho"
        listed = [by_chain[chain] for chain in sorted(by_chain)]
        for book in listed:
            reason = check_book(book, spec)
            if reason:
                return f"chain-{book.chain}-{reason}"
        areas = [upper.problem(book, spec, rules, options) for book in listed]
        rho, headroom = solution.rho_scaled, options.headroom_wh
        rows = across.Rows(areas, listed) if areas else None
        told: list[Border | None] = [None] * len(areas)
        if solution.across is not None:
            reason = across.check_crossings(solution.across, rows, listed, headroom)
            if reason:
                return reason
            told = across.borders(solution.across, rows, listed)
        for area, part, border in zip(areas, parts, told, strict=True):
            reason = certificate.check_area(area, part, rho, border)
            if reason:
                return f"chain-{part.chain}-{reason}"
        reason = across.check_terms(solution.across, rows, parts, rho, headroom) if solution.across else ""
        return reason or certificate.check_solution(solution, spec, rules, options)

    def borders(
        self, solution: Solution, books: Sequence[Book], spec: EventSpec, rules: RuleSet
    ) -> list[Border | None]:
        """What each area of a checked matching is told of the others; see across.borders."""
        if solution.across is None:
            return [None] * len(books)
        areas = [upper.problem(book, spec, rules) for book in books]
        return across.borders(solution.across, across.Rows(areas, books) if areas else None, books)

    def slice_terms(self, book: Book, part: Slice, spec: EventSpec, rules: RuleSet) -> list[PairTerms]:
        """Terms of every assignment of a checked slice; see upper.slice_terms."""
        return upper.slice_terms(book, part, spec, rules)

    def crossing_terms(
        self, offers: Book, bids: Book, crossing: Crossing, spec: EventSpec, rules: RuleSet
    ) -> PairTerms:
        """Terms of a checked crossing; see upper.crossing_terms."""
        return upper.crossing_terms(offers, bids, crossing, spec, rules)

    def dispatch(self, units: Sequence[Unit], need_wh: Sequence[int], rules: RuleSet) -> list[Dispatch]:
        """See lower.dispatch."""
        return lower.dispatch(units, need_wh, rules)

    def check_dispatch(
        self, units: Sequence[Unit], need_wh: Sequence[int], dispatches: Sequence[Dispatch], rules: RuleSet
    ) -> str:
        """See lower.check_dispatch."""
        return lower.check_dispatch(units, need_wh, dispatches, rules)

    def incentive_price(
        self, credit: int, performed: bool, spec: EventSpec, mean_price_u_per_wh: int, rules: RuleSet
    ) -> int:
        """See incentive.incentive_price."""
        return incentive.incentive_price(credit, performed, spec, mean_price_u_per_wh, rules)
