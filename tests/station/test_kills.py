"""Real stations killed at random moments under load: a share of what `make kills` does with two hundred."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from watt_tools import bench_kills, cli
from watt_tools.bench_kills import Found


@pytest.mark.e2e
def test_given_stations_under_load_when_killed_at_random_then_nothing_told_is_lost_and_the_chain_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kill of a single station comes with a changed bit in one of its files."""
    monkeypatch.setattr(bench_kills, "DAMAGE_SHARE", 1.0)
    words = ["--kills", "5", "--seed", "5", "--damage", "--dir", str(tmp_path), "--json"]
    assert cli.main(["bench", "kills", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kills"] >= 5 and found["level_s"]["max"] > 0
    assert sum(found["damaged"].values()) >= 1 and not found["unnoticed"]
    assert found["transactions"] > 2 * bench_kills.USERS and found["blocks"] > 10
    assert not (found["contradictions"] or found["lost"] or found["signed_twice"] or found["stuck"] or found["doubts"])


@pytest.mark.parametrize(
    "found",
    [
        Found(contradictions=["x"]),
        Found(lost=["x"]),
        Found(signed_twice=1),
        Found(stuck="x"),
        Found(doubts=["x"]),
        Found(unnoticed=["x"]),
    ],
)
def test_whatever_breaks_is_told_and_makes_the_exit_code_1(
    found: Found, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_kills, "measure", lambda *_: found)
    assert bench_kills.main(1, 0, None, damage=True, as_json=False) == 1
    assert "x" in capsys.readouterr().out or found.signed_twice
