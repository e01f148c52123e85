"""The whole network as real processes: one evening, twice, once with a station of each area killed in the middle."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from evening import VICTIMS, Evening, play
from watt_node.store import read_blocks

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(500)]


@pytest.mark.row("A2", "B1", "B7", "B8", "B9", "B12", "B13", "C1", "G9", "J1", "J20", "J21")
def test_one_evening_ends_with_every_check_held(quiet: Evening) -> None:
    failed = [check for check in quiet.data["checks"] if not check["held"]]
    assert not failed
    assert quiet.code == 0
    assert len(quiet.data["checks"]) == 11
    assert quiet.data["trades"] >= 5
    real = [name for name, kind in quiet.data["interpreters"].items() if kind == "micropython"]
    assert len(real) >= 4


@pytest.mark.row("H2", "H24", "H26")
def test_households_of_both_areas_trade_with_each_other(quiet: Evening) -> None:
    trades = [trade for trade in quiet.data["statement"]["trades"] if trade["state"] == "PAID"]
    assert quiet.data["trades_across"] == len(trades) >= 3
    assert {(trade["seller_chain"], trade["buyer_chain"]) for trade in trades} == {(1, 2), (2, 1)}
    told = trace(quiet.folder, f"0/1/{trades[0]['number']}")
    assert told.returncode == 0 and "CREDITED, 0.0000 still held; state proof" in told.stdout, told.stderr
    assert all(kind in told.stdout for kind in ("CrossOp", "Inbox", "Match", "Anchor", "SettlementAmount"))
    assert trace(quiet.folder, "0/1/999").stderr == "wattpact trace: the main chain has no trade 999 in event 1\n"
    totals = quiet.data["statement"]["totals"]
    for chain, other in (("1", "2"), ("2", "1")):
        assert totals[chain]["sent_u"] == totals[other]["received_u"] > 0


@pytest.mark.row("H16")
def test_who_bought_in_an_area_that_went_dark_has_its_money_back(quiet: Evening) -> None:
    """Its stations were killed before they took their part of the matching, and came back when the main chain had
    ended its trades; the other areas' evening went on meanwhile."""
    assert quiet.data["mishaps"] == {"halted": 3, "killed": []}
    trades = [trade for trade in quiet.data["statement"]["trades"] if trade["state"] != "PAID"]
    assert trades and {(trade["seller_chain"], trade["state"]) for trade in trades} == {(3, "KILL")}
    ends = [check for check in quiet.data["checks"] if "went dark" in check["check"]]
    assert [check["held"] for check in ends] == [True]
    told = trace(quiet.folder, f"0/1/{trades[0]['number']}")
    assert f"trade {trades[0]['number']} of event 1 across areas: KILL late" in told.stdout
    assert "CrossEnd" in told.stdout
    halves = ("area 3: never took its part of the matching", "area 3: REJECTED, 0.0000 still held")
    assert any(half in told.stdout for half in halves), "it was killed before or just after the matching reached it"
    logs = [list(read_blocks(quiet.folder / f"area3/node{node}/blocks.log")) for node in range(4)]
    assert {len(blocks) for blocks in logs} == {quiet.data["statement"]["chains"]["3"]["height"]}


@pytest.mark.row("K1", "K2", "J16")
def test_the_defaulter_loses_four_and_every_other_party_gains_two(quiet: Evening) -> None:
    changes = [
        home["event"]["credit_after"] - home["event"]["credit_before"]
        for home in quiet.data["statement"]["homes"]
        if home["event"]
    ]
    assert sorted(changes) == [-4] + [2] * (len(changes) - 1)


@pytest.mark.row("F11", "F12", "H16")
def test_a_killed_station_of_each_area_changes_nothing_in_the_outcome(quiet: Evening, stormy: Evening) -> None:
    assert stormy.killed.keys() == set(VICTIMS), "the stations were not killed during the window"
    assert len(stormy.data["mishaps"]["killed"]) == 2, "no cross-nodes were killed while trades were being taken"
    assert stormy.code == 0, [check for check in stormy.data["checks"] if not check["held"]]
    assert stormy.data["outcome_hash"] == quiet.data["outcome_hash"]


def test_a_killed_station_catches_up_after_its_restart(stormy: Evening) -> None:
    for name, height in stormy.killed.items():
        area = name.split("-")[0]
        logs = {node.name: list(read_blocks(node / "blocks.log")) for node in (stormy.folder / area).glob("node?")}
        own = logs[name.split("-")[1]]
        longest = max(len(blocks) for blocks in logs.values())
        assert len(own) > height, f"{name} has nothing beyond the height at which it was killed"
        assert len(own) == longest, f"{name} stands at {len(own)}, its area at {longest}"


def test_any_flipped_byte_of_the_export_is_found(quiet: Evening, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    shutil.copytree(quiet.folder / "export", folder / "export")
    shutil.copytree(quiet.folder / "trust", folder / "trust")
    dice = random.Random(20)
    paths = sorted((folder / "export").iterdir())
    weights = [path.stat().st_size for path in paths]
    for _ in range(20):
        path = dice.choices(paths, weights)[0]
        good = path.read_bytes()
        at, flip = dice.randrange(len(good)), dice.randrange(1, 256)
        path.write_bytes(good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :])
        found = verify(folder)
        assert found.returncode == 1, f"byte {at} of {path.name} xor {flip} was not found"
        assert path.name in found.stdout + found.stderr
        path.write_bytes(good)
    assert verify(folder).returncode == 0


def trace(folder: Path, what: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "watt_tools.cli", "trace", str(folder), what]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def verify(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "watt_tools.cli", "verify", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_second_run_in_the_same_directory_shows_the_same_result(quiet: Evening) -> None:
    again = play(quiet.folder, kill=False)
    assert again.code == 0
    assert again.data["outcome_hash"] == quiet.data["outcome_hash"]
