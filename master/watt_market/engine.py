"""The market of a master: the checks that every station re-runs, and the search that only a master does.

`Search` finds an answer in steps and has a certified one after each of them, so that a caller can show the gap and stop
when it likes. `Market.clear` runs it to its end. Every answer is put through the same check as anybody's.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from watt_chain.contract.event import EventSpec
from watt_chain.contract.market import MULTIPLIER_SCALE as SCALE
from watt_chain.contract.market import Across, Book, Slice, Solution
from watt_chain.contract.rules import PPM, RuleSet

from watt_market import upper
from watt_market.across import NOTHING
from watt_market.book import check_book
from watt_market.bound import ceil_div
from watt_market.checker import Checker
from watt_market.greedy import (
    Answer,
    bounded,
    cut,
    falling,
    idle,
    least_rho,
    opening_scaled,
    priced,
    search_area,
    use_up,
)
from watt_market.improve import ROUNDS
from watt_market.network import Network, Trade, finish_inside, search_inside
from watt_market.options import Options, options_of
from watt_market.primal import Energies, slice_of, value_u
from watt_market.solver import SolverError, solve

TIME_LIMIT_S: Final = 10
"Of each HiGHS solve; 28 homes take 0.3 s, and a late answer is worth less than one with a slightly larger gap."
EXACT_COLUMNS_MAX: Final = 6_000
"Pairs times slots up to which HiGHS is asked: beyond, it ends at its time limit and the scalable search is as good."

Task = Callable[..., Answer]
"Searches one area; its arguments are plain data."
Run = Callable[[Task, Sequence[tuple[Any, ...]]], Iterable[Answer]]
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


def run_here(task: Task, arguments: Sequence[tuple[Any, ...]]) -> Iterator[Answer]:
    """Run the tasks of a search one after another in this process."""
    return (task(*one) for one in arguments)


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
        self._opening = [0] * len(self.areas)
        "The bound of each area before it is searched."
        self.across: Trade | None = None
        if self.options.crossings and self.areas:
            self.across = Trade(Network(self.areas, self.books, self.options.headroom_wh))

    def steps(self) -> Iterator[Progress]:
        """Search; after every step `solution()` is a certified answer, and the step says how good it is."""
        if self.areas:
            merged = self.areas if self.across is None else [self.across.network.both]
            self.rho_scaled = least_rho(merged, self.spec.budget_u, self.areas[0].charge_u)
        self._opening = [self._opened(number) for number in range(len(self.areas))]
        if self.across is None:
            answers = self.run(search_area, [(area, self.rho_scaled) for area in self.areas])
        else:
            answers = self.run(search_inside, self.across.tasks(self.rho_scaled))
        for number, answer in enumerate(answers):
            self.answers[number] = answer
            yield self._progress(f"area {number + 1} of {len(self.areas)}")
        if self.across is not None:
            self.across.find(self.rho_scaled, self._energies())
            yield self._progress("crossings")
            last = self.run(finish_inside, self.across.last_tasks(self.rho_scaled, self._found()))
            self.answers = [*last]
            self.across.is_finished = True
            self.across.pair_all(self.rho_scaled, self._found())
            self.across.improve(self.rho_scaled, self._found(), range(ROUNDS, 2 * ROUNDS))
        self._balance(self._found())
        yield self._progress("budget")
        pairs = sum(int(area.allowed.sum()) for area in self.areas)
        pairs = self.across.network.pairs() if self.across is not None else pairs
        if pairs * self.spec.slots <= EXACT_COLUMNS_MAX:
            self._ask_solver()
            yield self._progress("exact")

    def solution(self) -> Solution:
        """The best answer so far, complete with its certificate; areas not searched yet trade nothing."""
        rho, across = self.rho_scaled, self.across
        answers = [found or self._idle(number) for number, found in enumerate(self.answers)]
        if across is not None and not across.is_finished:
            answers = [finish_inside(*one) for one in across.last_tasks(rho, answers)]
        if any(found is None for found in self.answers):
            self._balance(answers)
        slices = [
            slice_of(area, answer.energies, answer.at, answer.scaled)
            for area, answer in zip(self.areas, answers, strict=True)
        ]
        beyond = NOTHING if self.options.crossings else None
        if across is not None:
            beyond = across.stated(sum(answer.scaled for answer in answers))
        terms: list[Slice | Across] = [*slices, *([] if beyond is None else [beyond])]
        return Solution(
            event=self.spec.event,
            rho_scaled=rho,
            slices=slices,
            value_u=sum(term.value_u for term in terms),
            bound_u=ceil_div(rho * self.spec.budget_u, SCALE) + sum(term.bound_u for term in terms),
            across=beyond,
        )

    def _opened(self, number: int) -> int:
        if self.across is not None:
            return self.across.opening_scaled(number, self.rho_scaled)
        area = self.areas[number]
        return opening_scaled(area, self.rho_scaled, priced(area, self.rho_scaled).prices)

    def _idle(self, number: int) -> Answer:
        if self.across is not None:
            return self.across.idle(number, self.rho_scaled)
        return idle(self.areas[number], self.rho_scaled)

    def _found(self) -> list[Answer]:
        return [answer for answer in self.answers if answer is not None]

    def _energies(self) -> list[Energies]:
        return [answer.energies for answer in self._found()]

    def _balance(self, answers: Sequence[Answer]) -> None:
        """Fit the matching into the budget (8), and use what is left of it."""
        energies, budget_u = [answer.energies for answer in answers], self.spec.budget_u
        pairs = sum(map(len, energies)) + len(self._crossings())
        if self.across is None:
            left_u = cut(self.areas, energies, budget_u)
        else:
            left_u = self.across.cut(self.rho_scaled, energies, budget_u)
        is_cut = pairs > sum(map(len, energies)) + len(self._crossings())
        for lower, rounds in falling(self.rho_scaled, is_cut=is_cut):
            if self.across is None:
                left_u = use_up(self.areas, answers, left_u, lower, rounds)
            else:
                left_u = self.across.improve(lower, answers, rounds, left_u)
                left_u = use_up(self.across.rests(), answers, left_u, lower, rounds)

    def _ask_solver(self) -> None:
        """Put HiGHS' energies and multipliers beside ours, and keep the better of each. Its failure changes nothing."""
        network = None if self.across is None else self.across.network
        try:
            told = solve(self.areas, network, self.spec.budget_u, TIME_LIMIT_S)
        except SolverError:
            return  # the answer found so far stands in (U28): an event never stalls
        found, budget_u = self._found(), self.spec.budget_u
        if self._value(told.energies, told.crossings) > self._value(self._energies(), self._crossings()):
            for answer, better in zip(found, told.energies, strict=True):
                answer.energies = better
            if self.across is not None:
                self.across.energies = told.crossings
        ours = self._bound_scaled(found)
        other = self.across and Trade(self.across.network, self.across.energies)
        if other is None:
            pairs = zip(self.areas, told.starts, strict=True)
            bounds = [bounded(area, told.rho_scaled, start) for area, start in pairs]
        else:
            bounds = other.bounded(told.rho_scaled, told.starts)
        theirs = sum(scaled for _, scaled in bounds)
        theirs += told.rho_scaled * budget_u + (other.terms_scaled(theirs) if other else 0)
        if theirs < ours:
            self.rho_scaled, self.across = told.rho_scaled, other
            for answer, (at, scaled) in zip(found, bounds, strict=True):
                answer.at, answer.scaled = at, scaled

    def _crossings(self) -> Energies:
        return {} if self.across is None else self.across.energies

    def _value(self, energies: Sequence[Energies], crossings: Energies) -> int:
        inside = sum(value_u(area, rows) for area, rows in zip(self.areas, energies, strict=True))
        return inside + (0 if self.across is None else value_u(self.across.network.both, crossings))

    def _bound_scaled(self, answers: Sequence[Answer], missing_scaled: int = 0) -> int:
        areas = sum(answer.scaled for answer in answers) + missing_scaled
        beyond = 0 if self.across is None else self.across.terms_scaled(areas)
        return self.rho_scaled * self.spec.budget_u + beyond + areas

    def _progress(self, stage: str) -> Progress:
        known = [(area, answer) for area, answer in zip(self.areas, self.answers, strict=True) if answer is not None]
        value = sum(value_u(area, answer.energies) for area, answer in known)
        value += 0 if self.across is None else value_u(self.across.network.both, self.across.energies)
        missing = sum(opening for opening, found in zip(self._opening, self.answers, strict=True) if found is None)
        bound = self._bound_scaled([answer for _, answer in known], missing)
        return Progress(stage, value, ceil_div(bound, SCALE))


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
