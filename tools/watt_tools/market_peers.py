"""`wattpact market peers`: the same books cleared by others' code, each in a virtual environment of its own.

Peers clear each slot as a market of its own; they are told what a seller's Wh costs with its comfort. What they accept
is cut to whole Wh, balanced, and paired as well as we can (they name no pairs); then it is counted like everything
else: surplus before charges, value after them, and what of the budget it takes. HiGHS gets the whole program and a
limit of time. An environment is built once, from the package index that pip uses, and kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from watt_tools import marks

if TYPE_CHECKING:
    from watt_market.primal import Energies
    from watt_market.upper import AreaProblem, Integers

Actions = argparse._SubParsersAction  # the only name argparse has for it

PEERS: Final = {
    "assume-framework": (("assume-framework==0.6.0",), ("pay-as-clear", "pay-as-bid")),
    "pymarket": (("pymarket==0.7.6", "pandas<2", "numpy<1.25"), ("huang", "muda", "p2p")),
}
"Name -> (what pip installs, mechanisms)."
CANNOT: Final = {
    "assume-framework": "several slots under one total, comfort, a charge for each pair, who trades with whom, "
    "a budget, a proof; chance decides between equal prices",
    "pymarket": "several slots under one total, comfort, a charge for each pair, a budget, a proof; MUDA and P2P "
    "draw lots",
    "sort-merge": "a charge for each pair, a total, a budget; best without them",
    "greedy": "a bound: nothing says how good it is",
    "HiGHS LP": "a contract: it splits pairs, and its figure is a bound in floats",
    "HiGHS MILP": "large books; its gap is in floats and no station can check it",
}
SIZES: Final = (40, 200, 1_000)
"Households, of one area: no peer knows areas."
P2P_MOST: Final = 200
"Households up to which pymarket's P2P is run: it grows faster than the square."
COLUMNS_MAX: Final = 400_000
"Of a program that is handed to HiGHS; a larger one fills the memory before it is solved."
WORKER: Final = Path(__file__).parent / "peers/worker.py"
PIP_S: Final = 1_200
MARK: Final = "market-peers"


@dataclass(frozen=True)
class Row:
    """One mechanism on one book; parts are in ppm."""

    peer: str
    mechanism: str
    households: int
    budget: str
    seconds: float
    energy_ppm: int
    "Of what a merge of every slot trades."
    surplus_ppm: int
    "Before charges and budget, of what a merge of every slot attains."
    value_ppm: int
    "Of the certified bound of the whole program."
    budget_ppm: int
    pairs: int
    note: str


def add(actions: Actions[argparse.ArgumentParser]) -> None:
    """Add `peers` to the market's actions."""
    peers = actions.add_parser("peers", help="the same books cleared by others' code, in environments of its own")
    peers.add_argument("--households", type=int, nargs="*", default=list(SIZES), help="sizes of the books")
    peers.add_argument("--budget", choices=("quarter", "tight", "both"), default="both")
    peers.add_argument("--peer", nargs="*", choices=tuple(PEERS), default=list(PEERS), help="only these peers")
    peers.add_argument("--time-limit", type=int, default=60, metavar="S", help="of each HiGHS solve (default 60)")
    peers.add_argument("--dir", type=Path, default=cache(), help=f"environments of the peers (default {cache()})")
    peers.add_argument("--seed", type=int, default=0)
    peers.add_argument("--json", action="store_true", help="print one JSON object")
    peers.add_argument("--markdown", action="store_true", help="print the table of master/BIDDING.md")
    peers.add_argument("--write", type=Path, metavar="FILE", help="put the table into this document, between its marks")
    peers.set_defaults(handler=run_peers)


def cache() -> Path:
    """Where environments of peers are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wattpact/peers"


class PeerError(Exception):
    """A peer cannot be installed or run; the text is for the person who asked."""


def run_peers(chosen: argparse.Namespace) -> int:
    """Build the environments, run everything, print the table. 1 when a peer could not be had."""
    try:
        pythons = {peer: environment(chosen.dir, peer, PEERS[peer][0]) for peer in chosen.peer}
        budgets = ("quarter", "tight") if chosen.budget == "both" else (chosen.budget,)
        rows: list[Row] = []
        for households in chosen.households:
            for budget in budgets:
                for row in compare(households, budget, chosen.seed, pythons, chosen.time_limit):
                    rows.append(row)
                    if not chosen.json:
                        print(line(row) if len(rows) > 1 else f"{HEAD}\n{line(row)}", flush=True)
    except PeerError as error:
        print(f"wattpact market peers: {error}", file=sys.stderr)
        return 1
    if chosen.write is not None:
        said = [f"- {name}: {words}." for name, words in CANNOT.items()]
        try:
            marks.replace(
                chosen.write, MARK, "\n".join([HEAD, *map(line, rows), "", "What each cannot express:", "", *said])
            )
        except marks.MarkError as error:
            print(f"wattpact market peers: {error}", file=sys.stderr)
            return 2
    if chosen.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "cannot_express": CANNOT}, indent=1))
        return 0
    print("\nWhat each cannot express:")
    for name, words in CANNOT.items():
        print(f"{'- ' if chosen.markdown else '  '}{name}: {words}.")
    return 0


def environment(folder: Path, peer: str, packages: tuple[str, ...]) -> Path:
    """The Python of a peer's environment, built with `packages` where it is missing. Raises PeerError."""
    home = folder / peer
    python, done = home / "bin/python", home / "installed"
    if done.exists() and done.read_text().split() == list(packages):
        return python
    print(f"wattpact: installing {' '.join(packages)} into {home}", file=sys.stderr, flush=True)
    try:
        venv.create(home, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
        subprocess.run(command, check=True, timeout=PIP_S, stderr=subprocess.PIPE, text=True)
    except (OSError, subprocess.SubprocessError) as error:
        told = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise PeerError(f"{peer} cannot be installed: {told[-1] if told else error}") from None
    done.write_text("\n".join(packages))
    return python


def compare(households: int, budget: str, seed: int, pythons: dict[str, Path], time_limit_s: int) -> Iterator[Row]:
    """Every mechanism on one book."""
    from msgspec.structs import replace
    from watt_chain.contract.rules import PPM, RULES_1
    from watt_market.engine import Search
    from watt_market.greedy import priced
    from watt_market.primal import cost_u, value_u
    from watt_market.upper import problem

    from watt_tools.market_bench import TIGHT_PERCENT, _free_cost_u
    from watt_tools.market_homes import homes

    made = homes(households, 1, seed)
    spec, area = made.spec, problem(made.books[0], made.spec, RULES_1)
    if budget == "tight":
        spec = replace(spec, budget_u=_free_cost_u(made.books, spec) * TIGHT_PERCENT // 100)
    begun = time.monotonic()
    search = Search(made.books, spec, RULES_1)
    for _ in search.steps():
        pass
    solution = search.solution()
    seconds = time.monotonic() - begun
    best = priced(area, 0)
    most_wh, most_u = int(best.sells.sum()), _surplus_u(area, best.sells, best.buys)

    def row(peer: str, mechanism: str, seconds: float, energies: Energies, note: str = "") -> Row:
        sells, buys = _sums(area, energies)
        return Row(
            peer, mechanism, households, budget, round(seconds, 3), int(sells.sum()) * PPM // max(most_wh, 1),
            _surplus_u(area, sells, buys) * PPM // max(most_u, 1), value_u(area, energies) * PPM // solution.bound_u,
            cost_u(area, energies) * PPM // max(spec.budget_u, 1), len(energies), note,
        )  # fmt: skip

    found = next(answer.energies for answer in search.answers if answer is not None)
    gap = (solution.bound_u - solution.value_u) / max(solution.bound_u, 1) * 100
    yield row("wattpact", "certified", seconds, found, f"certified gap {gap:.3f} %")
    yield from _highs(area, spec.budget_u, time_limit_s, solution.bound_u, row)
    for name, pairing in (("sort-merge", _merged), ("greedy", _greedy)):
        begun = time.monotonic()
        energies = pairing(area)
        yield row("ours", name, time.monotonic() - begun, energies)
    for peer, python in pythons.items():
        mechanisms = [name for name in PEERS[peer][1] if name != "p2p" or households <= P2P_MOST]
        for mechanism, told in _asked(python, peer, mechanisms, area).items():
            energies, lost_wh = _paired(area, told)
            note = f"{lost_wh:,} Wh not paired" if lost_wh else ""
            yield row(peer, mechanism, told["seconds"], energies, note)


def _surplus_u(area: AreaProblem, sells: Integers, buys: Integers) -> int:
    """Value of what is bought less cost and comfort of what is sold."""
    costs = area.costs[:, None] + area.alpha
    return int((buys * area.values[:, None]).sum() - (sells * costs).sum())


def _sums(area: AreaProblem, energies: Energies) -> tuple[Integers, Integers]:
    from watt_market.network import traded

    return traded(area, energies)


def _highs(area: AreaProblem, budget_u: int, time_limit_s: int, bound_u: int, row: Any) -> Iterator[Row]:
    """The relaxation and the program itself, as HiGHS answers them within the time."""
    import numpy as np
    from watt_chain.contract.rules import PPM
    from watt_market import solver

    columns = int(area.allowed.sum()) * (area.slots + 1)
    if columns > COLUMNS_MAX:
        for name in ("LP", "MILP"):
            yield row("HiGHS", name, 0.0, {}, f"not run: {columns:,} columns")
        return
    begun = time.monotonic()
    model = solver._build([area], None, budget_u)
    values, _ = solver._run(model, integral=False, time_limit_s=time_limit_s)
    relaxed_u = -sum(cost * value for cost, value in zip(model.cost, values, strict=True))
    seconds = time.monotonic() - begun
    note = f"stopped at {time_limit_s} s: no bound" if seconds >= time_limit_s else "splits pairs: no matching"
    told: Row = row("HiGHS", "LP", seconds, {}, note)
    yield Row(**(asdict(told) | {"value_ppm": round(relaxed_u * PPM / bound_u)}))
    begun = time.monotonic()
    try:
        values, _ = solver._run(model, integral=True, time_limit_s=time_limit_s)
    except solver.SolverError as error:
        yield row("HiGHS", "MILP", time.monotonic() - begun, {}, str(error))
        return
    found: Energies = {}
    for column, (_, offer, bid, slot) in enumerate(model.energy):
        wh = int(values[column] + solver.ROUND_UP)
        if wh > 0:
            found.setdefault((offer, bid), np.zeros(area.slots, dtype=np.int64))[slot] = wh
    seconds = time.monotonic() - begun
    yield row("HiGHS", "MILP", seconds, found, f"limit {time_limit_s} s" if seconds >= time_limit_s else "")


def _merged(area: AreaProblem) -> Energies:
    """Every slot merged by itself: the dearest buyer with the cheapest seller, the next with what is left."""
    import numpy as np
    from watt_market.greedy import priced

    merged = priced(area, 0)
    found: Energies = {}
    for slot in range(area.slots):
        sells, buys = merged.sells[:, slot].copy(), merged.buys[:, slot].copy()
        costs = area.costs + area.alpha[:, slot]
        sellers = [s for s in np.argsort(costs, kind="stable").tolist() if sells[s]]
        buyers = [b for b in np.argsort(-area.values, kind="stable").tolist() if buys[b]]
        while sellers and buyers:
            seller, buyer = sellers[0], buyers[0]
            wh = min(int(sells[seller]), int(buys[buyer]))
            found.setdefault((seller, buyer), np.zeros(area.slots, dtype=np.int64))[slot] += wh
            sells[seller] -= wh
            buys[buyer] -= wh
            sellers = sellers if sells[seller] else sellers[1:]
            buyers = buyers if buys[buyer] else buyers[1:]
    return found


def _greedy(area: AreaProblem) -> Energies:
    """All pairs by falling margin, each with as much as is left, if that pays its charge."""
    import numpy as np
    from watt_market.primal import UNLIMITED, Filling

    filling = Filling(area, UNLIMITED)
    margins = area.values[None, :] - area.costs[:, None]
    order = np.argwhere(area.allowed)
    order = order[np.argsort(-margins[order[:, 0], order[:, 1]], kind="stable")]
    for offer, bid in order.tolist():
        if filling.offers_left[offer].any() and filling.bids_left[bid].any():
            filling.add(offer, bid, filling.offers_left[offer])
    for pair in filling.losers():
        filling.drop(*pair)
    return filling.energies


def _asked(python: Path, peer: str, mechanisms: list[str], area: AreaProblem) -> dict[str, Any]:
    """What a peer answers to the slots of an area. Raises PeerError."""
    costs = area.costs[:, None] + area.alpha
    slots = [
        {
            "supply": list(zip(costs[:, slot].tolist(), area.offer_caps[:, slot].tolist(), strict=True)),
            "demand": list(zip(area.values.tolist(), area.bid_caps[:, slot].tolist(), strict=True)),
        }
        for slot in range(area.slots)
    ]
    wanted = json.dumps({"peer": peer, "mechanisms": mechanisms, "slots": slots})
    done = subprocess.run(
        [str(python.absolute()), "-I", "-W", "ignore", str(WORKER.resolve())],
        cwd=python.parent,  # a peer leaves its log where it is started
        input=wanted,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        told = done.stderr.strip().splitlines()
        raise PeerError(f"{peer} failed: {told[-1] if told else done.returncode}")
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


def _paired(area: AreaProblem, told: dict[str, Any]) -> tuple[Energies, int]:
    """A peer's energies in whole Wh, balanced and paired; and how many Wh found no partner worth its charge."""
    import numpy as np
    from watt_market.primal import UNLIMITED, Filling

    sells = np.minimum(np.array(told["supply"]).T.astype(np.int64), area.offer_caps)
    buys = np.minimum(np.array(told["demand"]).T.astype(np.int64), area.bid_caps)
    filling = Filling(area, UNLIMITED)
    filling.pair_up(sells, buys)
    filling.join()
    for pair in filling.losers():
        filling.drop(*pair)
    paired = int(sum(int(wh.sum()) for wh in filling.energies.values()))
    return filling.energies, int(min(sells.sum(), buys.sum())) - paired


HEAD: Final = (
    "| mechanism | households | budget | energy % | surplus % | value % | budget used % | pairs | s | note |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def line(row: Row) -> str:
    """One row of the table."""
    name = row.mechanism if row.peer == "ours" else f"{row.peer} {row.mechanism}"
    parts = [f"{part / 1e4:.1f}" if row.pairs else "-" for part in (row.energy_ppm, row.surplus_ppm)]
    value = "over budget" if row.budget_ppm > 1_000_000 else f"{row.value_ppm / 1e4:.2f}"
    return (
        f"| {name} | {row.households:,} | {row.budget} | {' | '.join(parts)} | {value} "
        f"| {row.budget_ppm / 1e4:.0f} | {row.pairs:,} | {row.seconds:.2f} | {row.note or '-'} |"
    )
