"""`wattpact market peers`: how others' answers are counted; their own code runs only where somebody asks for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from watt_tools import market_peers
from watt_tools.cli import main
from watt_tools.market_peers import PEERS, PeerError, Row, compare, environment, line


def rows_of(budget: str) -> dict[str, Row]:
    return {f"{row.peer} {row.mechanism}": row for row in compare(24, budget, 3, {}, 5)}


def test_given_one_book_then_every_mechanism_is_measured_by_the_same_yardstick() -> None:
    rows = rows_of("quarter")
    ours, relaxed, exact = (rows[name] for name in ("wattpact certified", "HiGHS LP", "HiGHS MILP"))
    assert 995_000 <= ours.value_ppm <= 1_000_000
    assert ours.value_ppm <= relaxed.value_ppm <= 1_001_000
    for name in ("ours sort-merge", "ours greedy"):
        assert rows[name].surplus_ppm > 990_000  # without charges a merge of every slot is best ...
        assert rows[name].value_ppm < ours.value_ppm  # ... and with them it opens too many pairs
        assert rows[name].pairs > ours.pairs
    assert exact.budget_ppm <= 1_000_000


def test_given_a_tight_budget_then_who_does_not_know_it_is_shown_over_it() -> None:
    rows = rows_of("tight")
    assert rows["wattpact certified"].budget_ppm <= 1_000_000
    assert rows["ours sort-merge"].budget_ppm > 1_000_000
    assert "over budget" in line(rows["ours sort-merge"]) and "over budget" not in line(rows["wattpact certified"])


def test_given_a_peer_s_answer_then_it_is_cut_to_whole_energies_within_the_caps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def asked(_: Path, peer: str, mechanisms: list[str], area: Any) -> dict[str, Any]:
        everything = {"supply": (area.offer_caps.T + 0.5).tolist(), "demand": (area.bid_caps.T * 9).tolist()}
        return {name: {"seconds": 1.0, **everything} for name in mechanisms}

    monkeypatch.setattr(market_peers, "_asked", asked)
    rows = [row for row in compare(24, "quarter", 3, {"pymarket": Path("python")}, 5) if row.peer == "pymarket"]
    assert [row.mechanism for row in rows] == ["huang", "muda", "p2p"]
    assert all(row.pairs and row.seconds == 1.0 for row in rows)


def test_the_worker_imports_nothing_of_ours_and_names_what_is_missing() -> None:
    wanted = json.dumps({"peer": "pymarket", "mechanisms": ["huang"], "slots": []})
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(market_peers.WORKER)],
        input=wanted,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "No module named 'pymarket'" in done.stderr


def test_given_a_peer_that_cannot_be_installed_then_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="warning\nERROR: no matching distribution\n")

    monkeypatch.setattr(market_peers.venv, "create", lambda *_, **__: None)
    monkeypatch.setattr(market_peers.subprocess, "run", fails)
    with pytest.raises(PeerError, match="pymarket cannot be installed: ERROR: no matching distribution"):
        environment(tmp_path, "pymarket", PEERS["pymarket"][0])
    assert main(["market", "peers", "--dir", str(tmp_path), "--peer", "pymarket", "--households", "24"]) == 1
    assert "wattpact market peers: pymarket cannot be installed" in capsys.readouterr().err
