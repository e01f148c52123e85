"""X and Y of equation (3) on a running network: what is measured, and who cannot move it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from pathlib import Path

import pytest
from node_bench import Network, until
from test_channel import connect, hello
from watt_node import probe as probing
from watt_node.channel import Kind, tls_context
from watt_node.config import EndpointSection
from watt_node.probe import AreaTimes, Prober


def prober(bench: Network, ends: list[tuple[int, int]], name: str = "main-node0") -> Prober:
    endpoints = [EndpointSection(chain=c, index=i, host="127.0.0.1", port=bench.port(c, i)) for c, i in ends]
    return Prober(endpoints, tls_context(bench.tls(name), server=False), name, bench.network)


@pytest.mark.row("I11")
async def test_given_a_node_that_answers_late_when_probed_then_half_the_round_trip_is_measured(tmp_path: Path) -> None:
    """'X to denote the time cost of a single communication between a cross-node and a node in a station'."""
    bench = Network(tmp_path, areas=[1])
    node = await bench.start(1, 0)
    node.peers.figures = lambda: (1_500, 7_000)
    ours = prober(bench, [(1, 0)])
    ours.start()
    await until(lambda: ours.one_way_us([1]) > 0, what="an answer")
    quick_us = ours.one_way_us([1])
    assert ours.told == {(1, 0): (1_500, 7_000)} and ours.one_way_us([2]) == 0
    await ours.stop()

    def slow() -> tuple[int, int]:
        time.sleep(0.12)  # a node whose loop is busy answers late, to everybody
        return 0, 0

    node.peers.figures = slow
    again = prober(bench, [(1, 0)], "main-node1")
    again.start()
    await until(lambda: again.one_way_us([1]) > 0, what="a late answer")
    await again.stop()
    assert again.one_way_us([1]) >= 60_000 > quick_us
    await bench.close()


async def test_given_a_flood_of_probes_then_answers_keep_their_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watt_node.peers.PROBE_LEAST_S", 0.05)
    bench = Network(tmp_path, areas=[1])
    await bench.start(1, 0)
    channel = await connect(bench, "main-node0", hello(bench, "main-node0", "probe"))
    begun = asyncio.get_running_loop().time()
    for _ in range(10):
        channel.put(Kind.PROBE, b"")
    await channel.drain()
    for _ in range(10):
        assert (await channel.read())[0] == Kind.PROBE
    assert asyncio.get_running_loop().time() - begun >= 9 * 0.05
    channel.close()
    await bench.close()


async def test_given_an_end_that_is_away_then_it_is_probed_when_it_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "RETRY_S", 0.05)
    bench = Network(tmp_path, areas=[1])
    ours = prober(bench, [(1, 0)])
    ours.start()
    await asyncio.sleep(0.2)
    assert ours.told == {}
    await bench.start(1, 0)
    await until(lambda: (1, 0) in ours.told, what="the end that came back")
    await ours.stop()
    await bench.close()


def times(told: dict[tuple[int, int], tuple[int, int]], ways_us: dict[int, int]) -> AreaTimes:
    ours = Prober([], None, "main-node0", b"")  # type: ignore[arg-type]  # nothing is dialled
    ours.told = told
    ours._samples = {(chain, 0): deque([us]) for chain, us in ways_us.items()}
    return AreaTimes(ours, [1, 2, 3])


def test_x_is_the_median_over_areas_and_y_goes_by_a_master_where_stations_know_no_other_area() -> None:
    quick = {(1, 0): (2_100, 0), (2, 0): (3_900, 0), (3, 0): (9_000, 0)}
    # Ways: 1-2 10 ms, 1-3 24 ms, 2-3 26 ms.
    assert times(quick, {1: 4_000, 2: 6_000, 3: 20_000}).figures_ms() == (4, 24)
    assert times({}, {}).figures_ms() is None
    assert times({(1, 0): (2_000, 0)}, {}).figures_ms() is None


def test_where_stations_know_other_areas_their_figure_counts_and_a_minority_cannot_move_it() -> None:
    honest = {(chain, index): (2_000, 30_000) for chain in (1, 2, 3) for index in range(3)}
    liars = {(chain, 3): (900_000, 1) for chain in (1, 2, 3)}
    assert times(honest | liars, {}).figures_ms() == (2, 30)
