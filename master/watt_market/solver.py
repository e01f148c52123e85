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

from watt_market.dual import Multipliers
from watt_market.primal import Energies, repaired
from watt_market.upper import AreaProblem

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
    """Columns: w of every (area, pair, slot) with room, then y of every pair. Rows: caps, budget, links."""

    cost: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    entries: list[list[tuple[int, float]]] = field(default_factory=list)
    energy: list[tuple[int, int, int]] = field(default_factory=list)
    "(area, pair, slot) of the leading columns."
    offer_rows: dict[tuple[int, int, int], int] = field(default_factory=dict)
    bid_rows: dict[tuple[int, int, int], int] = field(default_factory=dict)
    budget_row: int = 0

    def row(self, limit: float) -> int:
        self.limits.append(limit)
        self.entries.append([])
        return len(self.limits) - 1


def solve(
    areas: Sequence[AreaProblem], budget_u: int, time_limit_s: int
) -> tuple[int, list[Energies], list[tuple[Multipliers, Multipliers]]]:
    """Return rho (scaled), feasible energies of every area, and (offer, bid) multipliers of every area.

    Raises SolverError when HiGHS ends without a solution of either program.
    """
    model = _build(areas, budget_u)
    if not model.energy:
        return 0, repaired(areas, budget_u, 0, [{} for _ in areas]), [_blank(area) for area in areas]
    _, duals = _run(model, integral=False, time_limit_s=time_limit_s)
    values, _ = _run(model, integral=True, time_limit_s=time_limit_s)
    rho_scaled = _scaled(duals[model.budget_row])
    proposal: list[dict[int, list[int]]] = [{} for _ in areas]
    for column, (a, p, slot) in enumerate(model.energy):
        wh = math.floor(values[column] + ROUND_UP)
        if wh > 0:
            proposal[a].setdefault(p, [0] * areas[a].slots)[slot] = wh
    multipliers = [_blank(area) for area in areas]
    for (a, s, slot), row in model.offer_rows.items():
        multipliers[a][0][s][slot] = _scaled(duals[row])
    for (a, b, slot), row in model.bid_rows.items():
        multipliers[a][1][b][slot] = _scaled(duals[row])
    return rho_scaled, repaired(areas, budget_u, rho_scaled, proposal), multipliers


def _blank(area: AreaProblem) -> tuple[Multipliers, Multipliers]:
    return [[0] * area.slots for _ in area.offer_caps], [[0] * area.slots for _ in area.bid_caps]


def _scaled(dual: float) -> int:
    """HiGHS minimises, so a row "<= limit" has a dual <= 0; the multiplier is its negative."""
    return max(0, round(-dual * MULTIPLIER_SCALE))


def _build(areas: Sequence[AreaProblem], budget_u: int) -> _Model:
    model = _Model()
    model.budget_row = model.row(float(budget_u))
    links: list[tuple[int, int, int, int]] = []  # energy column, area, pair, room
    for a, area in enumerate(areas):
        for p, pair in enumerate(area.pairs):
            for slot, room in enumerate(pair.room_wh):
                alpha = area.alpha_u_per_wh[slot]
                if not room or pair.margin_u_per_wh <= alpha:
                    continue
                column = len(model.energy)
                model.energy.append((a, p, slot))
                model.cost.append(float(alpha - pair.margin_u_per_wh))
                model.upper.append(float(room))
                for rows, key, cap in (
                    (model.offer_rows, (a, pair.offer, slot), area.offer_caps[pair.offer][slot]),
                    (model.bid_rows, (a, pair.bid, slot), area.bid_caps[pair.bid][slot]),
                ):
                    if key not in rows:
                        rows[key] = model.row(float(cap))
                    model.entries[rows[key]].append((column, 1.0))
                if alpha:
                    model.entries[model.budget_row].append((column, float(alpha)))
                links.append((column, a, p, room))
    columns: dict[tuple[int, int], int] = {}
    for energy_column, a, p, room in links:
        if (a, p) not in columns:
            columns[a, p] = len(model.cost)
            model.cost.append(float(areas[a].charge_u))
            model.upper.append(1.0)
            if areas[a].charge_u:
                model.entries[model.budget_row].append((columns[a, p], float(areas[a].charge_u)))
        row = model.row(0.0)
        model.entries[row] += [(energy_column, 1.0), (columns[a, p], -float(room))]
    return model


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
    solver.passModel(_lp(model, integral))
    solver.run()
    solution = solver.getSolution()
    status = highspy.HighsModelStatus
    usable = (status.kOptimal, status.kTimeLimit, status.kSolutionLimit)
    if solver.getModelStatus() not in usable or len(solution.col_value) != len(model.cost):
        raise SolverError(f"status {solver.modelStatusToString(solver.getModelStatus())}")
    return list(solution.col_value), list(solution.row_dual)


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
