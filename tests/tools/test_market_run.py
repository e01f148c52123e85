"""Clearing on several processes and on a real Dask cluster: the same integers whichever way it ran."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest
from msgspec import msgpack
from watt_chain.contract.rules import RULES_1
from watt_market.engine import Market, Progress, Search
from watt_tools import market_bench, market_gain, market_run
from watt_tools.market_homes import SLOTS, homes

MADE = homes(60, 4)


def cleared(run: market_run.Run) -> bytes:
    return msgpack.encode(Market().clear(MADE.books, MADE.spec, RULES_1, run=run))


@pytest.fixture(scope="module")
def alone() -> bytes:
    return cleared(market_run.run_here)


def test_given_two_processes_then_the_integers_are_the_same(alone: bytes) -> None:
    with market_run.processes(2) as run:
        assert cleared(run) == alone
    with market_run.processes(1) as run:
        assert run is market_run.run_here


@pytest.mark.timeout(240)
def test_given_a_dask_cluster_then_the_integers_are_the_same(alone: bytes) -> None:
    with market_run.cluster(None, 2) as run:
        assert cleared(run) == alone


@pytest.mark.timeout(240)
def test_given_the_address_of_a_scheduler_then_its_workers_do_the_tasks(alone: bytes) -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50) as workers,
        market_run.cluster(workers.scheduler_address) as run,
    ):
        assert cleared(run) == alone


def test_books_follow_from_the_seed_and_their_rows_trade() -> None:
    assert homes(60, 4).books == MADE.books
    assert homes(60, 4, seed=1).books != MADE.books
    rows = [row for book in MADE.books for row in [*book.offers, *book.bids]]
    assert len(rows) == len({row.user for row in rows}) == 60
    assert all(len(row.slot_wh) == SLOTS and sum(row.slot_wh) >= 150 for row in rows)


@pytest.mark.parametrize("budget", ["quarter", "tight"])
def test_a_row_of_the_bench_is_certified_and_says_what_it_misses(budget: str) -> None:
    chosen = argparse.Namespace(seed=0, jobs=1, scheduler=None)
    row = market_bench.measure(60, 4, budget, chosen)
    assert row["reason"] == ""
    assert (row["offers"] + row["bids"], row["areas"]) == (60, 4)
    assert 0 <= row["gap_ppm"] <= market_bench.GAP_AIM_PPM or "gap" in row["missed"]
    assert (row["rho_scaled"] > 0) == (budget == "tight")
    assert market_bench.line(row).count("|") == market_bench.HEAD.split("\n")[0].count("|")


def test_given_a_search_that_is_stopped_then_every_step_leaves_a_certified_answer() -> None:
    search = Search(MADE.books, MADE.spec, RULES_1)
    bounds: list[int] = []
    for progress in search.steps():
        assert isinstance(progress, Progress)
        solution = search.solution()
        reason = Market().check(solution, search.books, MADE.spec, RULES_1)
        assert reason in ("", "solution-gap")  # an area not searched yet trades nothing
        bounds.append(solution.value_u)
    assert bounds == sorted(bounds)


def test_importing_the_market_loads_no_cluster() -> None:
    code = "import sys, watt_tools.market_run, watt_market.engine; print('distributed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.timeout(240)
def test_lying_about_the_price_never_pays_less_than_the_truth_and_pays_most_under_the_midpoint() -> None:
    rows = {row["rule"]: row for row in market_gain.measure(1, 16)}
    assert set(rows) == {"k-double", "uniform", "reduction"}
    assert all(
        row[side]["tried"] > 0 and row[side]["mean"] >= 0 for row in rows.values() for side in ("sellers", "buyers")
    )
    assert rows["k-double"]["sellers"]["mean"] > rows["uniform"]["sellers"]["mean"]
    assert rows["k-double"]["value"] == 100
    assert rows["reduction"]["value"] < rows["uniform"]["value"] <= 100
