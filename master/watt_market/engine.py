"""The market as one object: what the contract injects to check a matching, and what the master calls to find one.

`Market` has no state. Everything but `clear` is a pure function of integers that every station re-runs; `clear` is the
master's own search, and its answer is put through the same check before it is returned.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from watt_chain.contract.event import EventSpec, Unit
from watt_chain.contract.market import MULTIPLIER_SCALE, Bid, Book, Dispatch, Offer, PairTerms, Slice, Solution
from watt_chain.contract.rules import RuleSet

from watt_market import certificate, incentive, lower, upper
from watt_market.book import check_book
from watt_market.certificate import ceil_div
from watt_market.dual import Multipliers, polish, zeros
from watt_market.greedy import greedy
from watt_market.primal import Energies, slice_of, total_u
from watt_market.solver import SolverError, solve
from watt_market.upper import AreaProblem

TIME_LIMIT_S: Final = 10
"Of each HiGHS solve; 28 homes take 0.3 s, and a late answer is worth less than one with a slightly larger gap."


class MarketError(Exception):
    """The books cannot be cleared, or no answer passes the certificate; the text is the failing row."""


class Market:
    """Implements watt_chain.contract.market.Market, and clears."""

    def pairs(self, book: Book, spec: EventSpec, rules: RuleSet) -> list[tuple[int, int]]:
        """Admissible (offer index, bid index) of a book, ascending; [] for a malformed book."""
        return [] if check_book(book, spec) else upper.admissible(book, rules)

    def check_slice(self, book: Book, part: Slice, rho_scaled: int, spec: EventSpec, rules: RuleSet) -> str:
        """See certificate.check_slice."""
        return certificate.check_slice(book, part, rho_scaled, spec, rules)

    def check_solution(self, solution: Solution, spec: EventSpec, rules: RuleSet) -> str:
        """See certificate.check_solution."""
        return certificate.check_solution(solution, spec, rules)

    def pair_terms(self, offer: Offer, bid: Bid, slot_wh: Sequence[int], spec: EventSpec, rules: RuleSet) -> PairTerms:
        """See upper.pair_terms."""
        return upper.pair_terms(offer, bid, slot_wh, spec, rules)

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

    def clear(self, books: Sequence[Book], spec: EventSpec, rules: RuleSet) -> Solution:
        """Match all areas' books together: the best energies found, under the lowest bound found.

        HiGHS and the greedy merge both answer; energies and multipliers are chosen independently, since any
        multipliers bound any energies. Raises MarketError when a book is malformed or the certificate refuses.
        """
        ordered = sorted(books, key=lambda book: book.chain)
        for book in ordered:
            reason = check_book(book, spec)
            if reason:
                raise MarketError(f"chain {book.chain}: {reason}")
        areas = [upper.problem(book, spec, rules) for book in ordered]
        answers = [greedy(areas, spec.budget_u)]
        with suppress(SolverError):  # then the greedy answer stands in (U28): an event never stalls
            answers.insert(0, solve(areas, spec.budget_u, TIME_LIMIT_S))
        energies = max((answer[1] for answer in answers), key=lambda found: total_u(areas, found))
        rho_scaled, multipliers = _lowest_bound(areas, spec.budget_u, [(rho, duals) for rho, _, duals in answers])
        solution = assemble(spec, areas, energies, rho_scaled, multipliers)
        reason = self.check(solution, ordered, spec, rules)
        if reason:
            raise MarketError(reason)
        return solution

    def check(self, solution: Solution, books: Sequence[Book], spec: EventSpec, rules: RuleSet) -> str:
        """Check a whole solution against all books: every slice, then what ties them together."""
        by_chain = {book.chain: book for book in books}
        if [part.chain for part in solution.slices] != sorted(by_chain):
            return "solution-slices"
        for part in solution.slices:
            reason = self.check_slice(by_chain[part.chain], part, solution.rho_scaled, spec, rules)
            if reason:
                return f"chain-{part.chain}-{reason}"
        return self.check_solution(solution, spec, rules)


def assemble(
    spec: EventSpec,
    areas: Sequence[AreaProblem],
    energies: Sequence[Energies],
    rho_scaled: int,
    multipliers: Sequence[tuple[Multipliers, Multipliers]],
) -> Solution:
    """Write energies and least multipliers as a solution."""
    slices = [
        slice_of(area, rows, rho_scaled, u, q) for area, rows, (u, q) in zip(areas, energies, multipliers, strict=True)
    ]
    return Solution(
        event=spec.event,
        rho_scaled=rho_scaled,
        slices=slices,
        value_u=sum(part.value_u for part in slices),
        bound_u=ceil_div(rho_scaled * spec.budget_u, MULTIPLIER_SCALE) + sum(part.bound_u for part in slices),
    )


def _lowest_bound(
    areas: Sequence[AreaProblem],
    budget_u: int,
    candidates: Sequence[tuple[int, Sequence[tuple[Multipliers, Multipliers]]]],
) -> tuple[int, list[tuple[Multipliers, Multipliers]]]:
    """Polish every candidate and keep the one with the lowest bound; ties: the earlier one."""
    found: list[tuple[int, int, list[tuple[Multipliers, Multipliers]]]] = []
    for rho_scaled, multipliers in [*candidates, (0, [zeros(area) for area in areas])]:
        settled = [polish(area, rho_scaled, u, q) for area, (u, q) in zip(areas, multipliers, strict=True)]
        bound = rho_scaled * budget_u + sum(
            upper.bound_scaled(area, rho_scaled, u, q) for area, (u, q) in zip(areas, settled, strict=True)
        )
        found.append((bound, rho_scaled, settled))
    _, rho_scaled, settled = min(found, key=lambda candidate: candidate[0])
    return rho_scaled, settled
