"""The market of a master: the checks that every station re-runs, and the search that only a master does.

`Market` has no state. `clear` is the master's own search, and its answer is put through the same check before it is
returned.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from watt_chain.contract.event import EventSpec
from watt_chain.contract.market import MULTIPLIER_SCALE, Book, Solution
from watt_chain.contract.rules import RuleSet

from watt_market import upper
from watt_market.book import check_book
from watt_market.certificate import ceil_div
from watt_market.checker import Checker
from watt_market.dual import Multipliers, polish, zeros
from watt_market.greedy import greedy
from watt_market.primal import Energies, slice_of, total_u
from watt_market.solver import SolverError, solve
from watt_market.upper import AreaProblem

TIME_LIMIT_S: Final = 10
"Of each HiGHS solve; 28 homes take 0.3 s, and a late answer is worth less than one with a slightly larger gap."


class MarketError(Exception):
    """The books cannot be cleared, or no answer passes the certificate; the text is the failing row."""


class Market(Checker):
    """Checks, and clears."""

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
