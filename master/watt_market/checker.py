"""The market as the contract needs it: everything that checks, nothing that solves.

A station re-computes integer certificates only (ARCHITECTURE.md D7) and is installed without a solver;
`watt_market.engine.Market` adds the search.
"""

from collections.abc import Sequence

from watt_chain.contract.event import EventSpec, Unit
from watt_chain.contract.market import Bid, Book, Dispatch, Offer, PairTerms, Slice, Solution
from watt_chain.contract.rules import RuleSet

from watt_market import certificate, incentive, lower, upper
from watt_market.book import check_book
from watt_market.options import Options


class Checker:
    """Implements watt_chain.contract.market.Market; see there for what each function answers."""

    def pairs(self, book: Book, spec: EventSpec, rules: RuleSet) -> list[tuple[int, int]]:
        """Admissible (offer index, bid index) of a book, ascending; [] for a malformed book."""
        return [] if check_book(book, spec) else upper.admissible(book, rules)

    def check_slice(
        self, book: Book, part: Slice, rho_scaled: int, spec: EventSpec, rules: RuleSet, options: Options | None = None
    ) -> str:
        """See certificate.check_slice."""
        return certificate.check_slice(book, part, rho_scaled, spec, rules, options)

    def check_solution(self, solution: Solution, spec: EventSpec, rules: RuleSet) -> str:
        """See certificate.check_solution."""
        return certificate.check_solution(solution, spec, rules)

    def pair_terms(self, offer: Offer, bid: Bid, slot_wh: Sequence[int], spec: EventSpec, rules: RuleSet) -> PairTerms:
        """See upper.pair_terms."""
        return upper.pair_terms(offer, bid, slot_wh, spec, rules)

    def slice_terms(self, book: Book, part: Slice, spec: EventSpec, rules: RuleSet) -> list[PairTerms]:
        """Terms of every assignment of a checked slice; see upper.slice_terms."""
        return upper.slice_terms(book, part, spec, rules)

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
