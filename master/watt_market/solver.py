"""The one module with floats: (P-U) over all areas' books in HiGHS, and its multipliers as integers.

Two solves. The linear relaxation with the strong rows w <= M y gives the multipliers u, q, rho of the bound; the
mixed-integer program gives the energies. Both are only proposals: energies are rounded down and repaired in integers,
multipliers are rounded and made least, and the certificate judges the result like anybody else's.

Deterministic: one thread, fixed seed, rows and columns in the order of the books. A solve that runs into the time
limit still gives its incumbent; its gap is then what the certificate says.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import highspy
import numpy as np
from watt_chain.contract.market import MULTIPLIER_SCALE

from watt_market.book import SLOT_WH_MAX
from watt_market.border import MULTIPLIER_MAX, Multipliers
from watt_market.network import Network, within_headroom
from watt_market.primal import Energies, Filling, Links, cost_u
from watt_market.upper import NO_TOTAL, AreaProblem

MIP_GAP = 2e-4
"Relative; below the distance of the linear bound itself, which no further search closes."
NODES_MAX = 2_000
"Branch-and-bound nodes: a limit that, unlike seconds, is the same on every machine."
ROUND_UP = 1e-6
"A float this close below an integer is that integer."
SEED = 1


class SolverError(Exception):
    """HiGHS gave no usable answer; the caller falls back on `greedy`."""


@dataclass(slots=True)
class _Model:
    """Columns: w of every (area, pair, slot) with room, then y of every pair. Rows: budget, caps, totals, links."""

    cost: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    entries: list[list[tuple[int, float]]] = field(default_factory=list)
    energy: list[tuple[int, int, int, int]] = field(default_factory=list)
    "(area, offer, bid, slot) of the leading columns; the area after the last one holds the crossings."
    rooms: list[int] = field(default_factory=list)
    rows: dict[tuple[str, int, int, int], int] = field(default_factory=dict)
    "(multiplier, area, row, slot) of the caps and totals; slot is 0 for a total, row for a headroom."

    def row(self, limit: float) -> int:
        self.limits.append(limit)
        self.entries.append([])
        return len(self.limits) - 1

    def enter(self, column: int, key: tuple[str, int, int, int], limit: int, sign: float = 1.0) -> None:
        if key not in self.rows:
            self.rows[key] = self.row(float(limit))
        self.entries[self.rows[key]].append((column, sign))


BUDGET_ROW = 0


@dataclass(slots=True)
class Told:
    """What HiGHS proposes, as integers."""

    rho_scaled: int
    energies: list[Energies]
    "Feasible, of every area."
    crossings: Energies
    "Feasible beside them; keys number all rows."
    starts: list[Multipliers]


def solve(areas: Sequence[AreaProblem], network: Network | None, budget_u: int, time_limit_s: int) -> Told:
    """Ask HiGHS for energies and multipliers of all areas, and of crossings where there is a network.

    Raises SolverError when HiGHS ends without a solution of either program, crashes, or answers with nonsense.
    """
    model = _build(areas, network, budget_u)
    starts = [Multipliers.zeros(area) for area in areas]
    proposal: list[Energies] = [{} for _ in range(len(areas) + 1)]
    if not model.energy:
        return Told(0, *_repaired(areas, network, budget_u, 0, proposal), starts)
    _, duals = _run(model, integral=False, time_limit_s=time_limit_s)
    values, _ = _run(model, integral=True, time_limit_s=time_limit_s)
    for column, (a, offer, bid, slot) in enumerate(model.energy):
        wh = min(math.floor(values[column] + ROUND_UP), SLOT_WH_MAX)
        if wh > 0:
            proposal[a].setdefault((offer, bid), np.zeros(areas[0].slots, dtype=np.int64))[slot] = wh
    for (name, a, number, slot), row in model.rows.items():
        if name != "h":
            table = getattr(starts[a], name)
            table[(number, slot) if table.ndim == 2 else number] = _scaled(duals[row])
    rho_scaled = _scaled(duals[BUDGET_ROW])
    return Told(rho_scaled, *_repaired(areas, network, budget_u, rho_scaled, proposal), starts)


def _repaired(
    areas: Sequence[AreaProblem], network: Network | None, budget_u: int, rho_scaled: int, proposal: Sequence[Energies]
) -> tuple[list[Energies], Energies]:
    """Integers of the crossings and of every area, within what those before left of the budget."""
    crossings: Energies = {}
    if network is not None:
        area = network.only_across()
        filling = Filling(area, budget_u, links=Links.crossing(area, np.full(len(area.values), area.crossings)))
        for pair in sorted(proposal[-1]):
            filling.add(*pair, proposal[-1][pair])
        for pair in filling.losers():
            filling.drop(*pair)
        crossings = within_headroom(network, 0, filling.energies)
        budget_u -= cost_u(area, crossings)
        areas = network.rests(crossings)
    fillings = []
    for area, rows in zip(areas, proposal, strict=False):
        filling = Filling(area, budget_u)
        for pair in sorted(rows):
            filling.add(*pair, rows[pair])
        for pair in filling.losers():
            filling.drop(*pair)
        budget_u = filling.left_u
        fillings.append(filling)
    for filling in fillings:
        filling.left_u, filling.rho_scaled = budget_u, rho_scaled
        filling.settle()
        budget_u = filling.left_u
    for filling in fillings:  # what HiGHS has at the margin of the budget is worth less than its price, by a charge
        filling.left_u, filling.rho_scaled = budget_u, 0
        filling.pair_up(filling.offers_left, filling.bids_left)
        budget_u = filling.left_u
    return [filling.energies for filling in fillings], crossings


def _scaled(dual: float) -> int:
    """HiGHS minimises, so a row "<= limit" has a dual <= 0; the multiplier is its negative."""
    if not math.isfinite(dual):
        raise SolverError("a dual is not a number")
    return min(max(0, round(-dual * MULTIPLIER_SCALE)), MULTIPLIER_MAX)


def _build(areas: Sequence[AreaProblem], network: Network | None, budget_u: int) -> _Model:
    """The program: columns of the areas, then those of the crossings, whose rows are the areas' own."""
    model = _Model()
    model.row(float(budget_u))
    for a, area in enumerate(areas):
        _enter(
            model,
            a,
            area,
            [(a, offer) for offer in range(len(area.costs))],
            [(a, bid) for bid in range(len(area.values))],
        )
    if network is not None:
        _enter(model, len(areas), network.only_across(), network.offer_places(), network.bid_places())
        for column, (a, offer, bid, slot) in enumerate(model.energy):
            if a < len(areas):
                continue
            for number, sign in ((int(network.bid_area[bid]), 1.0), (int(network.offer_area[offer]), -1.0)):
                most = network.headroom.get(areas[number].chain)
                if most is not None:
                    model.enter(column, ("h", number, 0, slot), most[slot], sign)
    _link(model, [*areas, *([] if network is None else [network.both])])
    return model


def _enter(
    model: _Model, a: int, area: AreaProblem, offers: Sequence[tuple[int, int]], bids: Sequence[tuple[int, int]]
) -> None:
    """The energy columns of one area; `offers` and `bids` say in which area and row each of its rows stands."""
    for offer, bid in np.argwhere(area.allowed).tolist():
        for slot in range(area.slots):
            room = int(min(area.offer_caps[offer, slot], area.bid_caps[bid, slot]))
            alpha = int(area.alpha[offer, slot])
            net = int(area.values[bid] - area.costs[offer]) - alpha
            if not room or net <= 0:
                continue
            column = len(model.energy)
            model.energy.append((a, offer, bid, slot))
            model.rooms.append(room)
            model.cost.append(float(-net))
            model.upper.append(float(room))
            model.enter(column, ("u", *offers[offer], slot), int(area.offer_caps[offer, slot]))
            model.enter(column, ("q", *bids[bid], slot), int(area.bid_caps[bid, slot]))
            if area.offer_totals[offer] < NO_TOTAL:
                model.enter(column, ("e", *offers[offer], 0), int(area.offer_totals[offer]))
            if area.bid_totals[bid] < NO_TOTAL:
                model.enter(column, ("d", *bids[bid], 0), int(area.bid_totals[bid]))
            if alpha:
                model.entries[BUDGET_ROW].append((column, float(alpha)))


def _link(model: _Model, areas: Sequence[AreaProblem]) -> None:
    """The columns y of the pairs, and the strong rows w <= M y."""
    columns: dict[tuple[int, int, int], int] = {}
    for energy_column, ((a, offer, bid, _), room) in enumerate(zip(model.energy, model.rooms, strict=True)):
        if (a, offer, bid) not in columns:
            columns[a, offer, bid] = len(model.cost)
            model.cost.append(float(areas[a].charge_u))
            model.upper.append(1.0)
            if areas[a].charge_u:
                model.entries[BUDGET_ROW].append((columns[a, offer, bid], float(areas[a].charge_u)))
        row = model.row(0.0)
        model.entries[row] += [(energy_column, 1.0), (columns[a, offer, bid], -float(room))]


def _run(model: _Model, *, integral: bool, time_limit_s: int) -> tuple[list[float], list[float]]:
    """Solve the relaxation or the program itself; return column values and row duals (empty for the latter)."""
    solver = highspy.Highs()  # type: ignore[no-untyped-call]  # highspy ships no annotations here
    for name, value in (
        ("output_flag", False),
        ("threads", 1),
        ("random_seed", SEED),
        ("time_limit", float(time_limit_s)),
        ("mip_rel_gap", MIP_GAP),
        ("mip_max_nodes", NODES_MAX),
    ):
        solver.setOptionValue(name, value)
    try:
        solver.passModel(_lp(model, integral))
        solver.run()
        solution = solver.getSolution()
    except Exception as error:  # whatever goes wrong in there: an event must not stall for it
        raise SolverError(f"{type(error).__name__}: {error}") from None
    status = highspy.HighsModelStatus
    usable = (status.kOptimal, status.kTimeLimit, status.kSolutionLimit)
    if solver.getModelStatus() not in usable or len(solution.col_value) != len(model.cost):
        raise SolverError(f"status {solver.modelStatusToString(solver.getModelStatus())}")
    values = list(solution.col_value)
    if not all(math.isfinite(value) for value in values):
        raise SolverError("a value is not a number")
    duals = list(solution.row_dual)
    if not integral and len(duals) != len(model.limits):
        raise SolverError(f"{len(duals)} duals of {len(model.limits)} rows")
    return values, duals


def _lp(model: _Model, integral: bool) -> "highspy.HighsLp":
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(model.cost), len(model.limits)
    lp.col_cost_ = np.array(model.cost)
    lp.col_lower_, lp.col_upper_ = np.zeros(len(model.cost)), np.array(model.upper)
    lp.row_lower_ = np.full(len(model.limits), -highspy.kHighsInf)
    lp.row_upper_ = np.array(model.limits)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    starts = np.cumsum([0] + [len(row) for row in model.entries])
    lp.a_matrix_.start_ = np.array(starts, dtype=np.int32)
    lp.a_matrix_.index_ = np.array([column for row in model.entries for column, _ in row], dtype=np.int32)
    lp.a_matrix_.value_ = np.array([value for row in model.entries for _, value in row])
    if integral:
        continuous = len(model.energy)
        kinds = highspy.HighsVarType
        lp.integrality_ = [kinds.kContinuous if c < continuous else kinds.kInteger for c in range(len(model.cost))]
    return lp
