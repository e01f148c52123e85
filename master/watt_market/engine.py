"""The market of a master: the checks that every station re-runs, and the search that only a master does.

`Search` finds an answer in steps and has a certified one after each of them, so that a caller can show the gap and stop
when it likes. `Market.clear` runs it to its end. Every answer is put through the same check as anybody's.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from watt_chain.contract.event import EventSpec
from watt_chain.contract.market import MULTIPLIER_SCALE as SCALE
from watt_chain.contract.market import Book, Solution
from watt_chain.contract.rules import PPM, RuleSet

from watt_market import upper
from watt_market.book import check_book
from watt_market.bound import ceil_div
from watt_market.checker import Checker
from watt_market.greedy import Answer, balance, bounded, idle, least_rho, search_area
from watt_market.options import Options, options_of
from watt_market.primal import Energies, slice_of, value_u
from watt_market.solver import SolverError, solve
from watt_market.upper import AreaProblem

TIME_LIMIT_S: Final = 10
"Of each HiGHS solve; 28 homes take 0.3 s, and a late answer is worth less than one with a slightly larger gap."
EXACT_COLUMNS_MAX: Final = 6_000
"Pairs times slots up to which HiGHS is asked: beyond, it ends at its time limit and the scalable search is as good."

Task = Callable[[AreaProblem, int], Answer]
"Searches one area at one rho."
Run = Callable[[Task, Sequence[AreaProblem], int], Iterable[Answer]]
"How the areas' tasks are run: here one after another, or on a cluster; answers in the order of the areas."


class MarketError(Exception):
    """The books cannot be cleared, or no answer passes the certificate; the text is the failing row."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a search stands; `gap_ppm` is of the bound."""

    stage: str
    value_u: int
    bound_u: int

    @property
    def gap_ppm(self) -> int:
        return (self.bound_u - self.value_u) * PPM // self.bound_u if self.bound_u > 0 else 0


def run_here(task: Task, areas: Sequence[AreaProblem], rho: int) -> Iterator[Answer]:
    """Run the tasks of a search one after another in this process."""
    return (task(area, rho) for area in areas)


class Search:
    """One search over the books of an event. Raises MarketError when a book is malformed."""

    def __init__(
        self, books: Sequence[Book], spec: EventSpec, rules: RuleSet, options: Options | None = None,
        run: Run = run_here,
    ) -> None:  # fmt: skip
        self.books = sorted(books, key=lambda book: book.chain)
        for book in self.books:
            reason = check_book(book, spec)
            if reason:
                raise MarketError(f"chain {book.chain}: {reason}")
        self.spec, self.rules, self.options, self.run = spec, rules, options or options_of(spec, rules), run
        self.areas = [upper.problem(book, spec, rules, self.options) for book in self.books]
        self.rho_scaled = 0
        self.answers: list[Answer | None] = [None] * len(self.areas)

    def steps(self) -> Iterator[Progress]:
        """Search; after every step `solution()` is a certified answer, and the step says how good it is."""
        self.rho_scaled = least_rho(self.areas, self.spec.budget_u) if self.areas else 0
        value_so_far_u, scaled_so_far = 0, self.rho_scaled * self.spec.budget_u
        for number, answer in enumerate(self.run(search_area, self.areas, self.rho_scaled)):
            self.answers[number] = answer
            value_so_far_u += value_u(self.areas[number], answer.energies)
            scaled_so_far += answer.scaled
            stage = f"area {number + 1} of {len(self.areas)}"
            yield Progress(stage, value_so_far_u, ceil_div(scaled_so_far, SCALE))
        self._settle()
        yield self._progress("budget")
        if sum(int(area.allowed.sum()) for area in self.areas) * self.spec.slots <= EXACT_COLUMNS_MAX:
            self._ask_solver()
            yield self._progress("exact")

    def solution(self) -> Solution:
        """The best answer so far, complete with its certificate; areas not searched yet trade nothing."""
        answers = [found or idle(area, self.rho_scaled) for area, found in zip(self.areas, self.answers, strict=True)]
        if any(found is None for found in self.answers):
            balance(self.areas, answers, self.spec.budget_u, 0)
        slices = [
            slice_of(area, answer.energies, answer.at, answer.scaled)
            for area, answer in zip(self.areas, answers, strict=True)
        ]
        return Solution(
            event=self.spec.event,
            rho_scaled=self.rho_scaled,
            slices=slices,
            value_u=sum(part.value_u for part in slices),
            bound_u=ceil_div(self.rho_scaled * self.spec.budget_u, SCALE) + sum(part.bound_u for part in slices),
        )

    def _found(self) -> list[Answer]:
        return [answer for answer in self.answers if answer is not None]

    def _settle(self) -> None:
        balance(self.areas, self._found(), self.spec.budget_u, self.rho_scaled)

    def _ask_solver(self) -> None:
        """Put HiGHS' energies and multipliers beside ours, and keep the better of each. Its failure changes nothing."""
        try:
            rho_scaled, energies, starts = solve(self.areas, self.spec.budget_u, TIME_LIMIT_S)
        except SolverError:
            return  # the answer found so far stands in (U28): an event never stalls
        if self._value(energies) > self._value([answer.energies for answer in self._found()]):
            for answer, better in zip(self._found(), energies, strict=True):
                answer.energies = better
        bounds = [bounded(area, rho_scaled, start) for area, start in zip(self.areas, starts, strict=True)]
        ours = self.rho_scaled * self.spec.budget_u + sum(answer.scaled for answer in self._found())
        if rho_scaled * self.spec.budget_u + sum(scaled for _, scaled in bounds) < ours:
            self.rho_scaled = rho_scaled
            for answer, (at, scaled) in zip(self._found(), bounds, strict=True):
                answer.at, answer.scaled = at, scaled

    def _value(self, energies: Sequence[Energies]) -> int:
        return sum(value_u(area, rows) for area, rows in zip(self.areas, energies, strict=True))

    def _progress(self, stage: str) -> Progress:
        known = [(area, answer) for area, answer in zip(self.areas, self.answers, strict=True) if answer is not None]
        bound = self.rho_scaled * self.spec.budget_u + sum(answer.scaled for _, answer in known)
        return Progress(stage, sum(value_u(area, a.energies) for area, a in known), ceil_div(bound, SCALE))


class Market(Checker):
    """Checks, and clears."""

    def clear(
        self, books: Sequence[Book], spec: EventSpec, rules: RuleSet, options: Options | None = None,
        on_progress: Callable[[Progress], None] | None = None, run: Run = run_here,
    ) -> Solution:  # fmt: skip
        """Match all areas' books together: the best energies found, under the lowest bound found.

        Raises MarketError when a book is malformed or the certificate refuses. A KeyboardInterrupt inside the search
        ends it with the best certified answer so far.
        """
        search = Search(books, spec, rules, options, run)
        try:
            for progress in search.steps():
                if on_progress:
                    on_progress(progress)
        except KeyboardInterrupt:
            pass
        solution = search.solution()
        reason = self.check(solution, search.books, spec, rules, options)
        if reason:
            raise MarketError(reason)
        return solution

    def check(
        self, solution: Solution, books: Sequence[Book], spec: EventSpec, rules: RuleSet,
        options: Options | None = None,
    ) -> str:  # fmt: skip
        """Check a whole solution against all books: every slice, then what ties them together."""
        by_chain = {book.chain: book for book in books}
        if [part.chain for part in solution.slices] != sorted(by_chain):
            return "solution-slices"
        for part in solution.slices:
            reason = self.check_slice(by_chain[part.chain], part, solution.rho_scaled, spec, rules, options)
            if reason:
                return f"chain-{part.chain}-{reason}"
        return self.check_solution(solution, spec, rules)
