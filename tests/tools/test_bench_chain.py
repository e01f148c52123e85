"""The benchmark of the chain: one small run of real processes, and what its figures must add up to."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from watt_tools import bench_cli, cli
from watt_tools.bench_chain import PARTS
from watt_tools.bench_load import Phase


@pytest.mark.e2e
def test_a_run_of_real_stations_accounts_for_its_time_and_its_transactions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "chain", "--nodes", "1", "--seconds", "1", "--dir", str(tmp_path), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert run["rate"] > 0 and run["limit"] > 0 and run["p99_ms"] >= run["p50_ms"] > 0
    assert list(run["parts_us"]) == list(PARTS)
    assert sum(run["parts_us"].values()) == pytest.approx(run["cpu_us"], rel=0.2)
    assert run["parts_us"]["verify"] > 0.5 * run["unit_us"]  # every signature was really checked
    assert run["disk_bytes"] > run["tx_bytes"]
    assert run["syncs_per_block"] >= 2  # the vote before it is sent, the block before it is told
    assert set(run["refused"]) <= {"nonce-used", "duplicate"}


def test_a_quantile_is_one_of_the_latencies() -> None:
    phase = Phase(0.0, latencies=[0.3, 0.1, 0.2])
    assert [phase.quantile(share) for share in (0.0, 0.5, 0.99)] == [0.1, 0.2, 0.3]
    assert Phase(0.0).quantile(0.5) == 0.0


@pytest.mark.parametrize("text", ["", "0", "4,", "17", "four"])
def test_a_number_of_stations_out_of_range_is_refused_with_the_limit(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"1\.\.16|4,7,10"):
        bench_cli._counts(text)
