"""A share of the networks of areas in every test run; that the same seed is the same run, and that faults are seen."""

import json
import os
import subprocess
import sys

import pytest
from watt_chain.crypto import verify
from watt_sim.areas import draw_areas, run_areas
from watt_sim.areas_batch import RARE, Tally
from watt_sim.cheap import cheap_signatures
from watt_sim.streets import key_of
from watt_tools import cli

EVERY_RUN = [
    what
    for what in RARE
    if what.startswith(("main-", "buyer-", "seller-", "run-")) and what not in ("main-VOID", "main-READY", "run-real")
]
"""Rare states that already the share played here has to reach."""


@pytest.mark.row("H16", "H24")
def test_trades_across_areas_end_alike_and_no_money_is_lost_in_any_network() -> None:
    tally = Tally()
    for seed in range(240):
        tally.add(run_areas(seed))
    assert not tally.violations, [(result.seed, result.violation) for result in tally.violations]
    missing = [what for what in EVERY_RUN if what not in tally.coverage]
    assert not missing


def test_a_run_with_real_signatures_takes_the_same_course() -> None:
    seed = next(seed for seed in range(1000) if draw_areas(seed).real)
    result = run_areas(seed)
    assert not result.violation and result.blocks > 20


def test_a_seed_is_the_same_run_whatever_the_order_of_hashes() -> None:
    code = "from watt_sim.areas import run_areas; print([run_areas(seed).hash for seed in range(40, 44)])"
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "77")
    }
    assert len(told) == 1 and len({*json.loads(told.pop().replace("'", '"'))}) == 4


def test_a_batch_says_what_it_found_and_a_replay_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sim", "areas", "--seeds", "0..3", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["runs"] == 3 and report["violations"] == [] and report["final_blocks"] > 60
    assert cli.main(["sim", "areas", "--replay", "2"]) == 0
    told = capsys.readouterr().out
    assert "Inbox: accepted" in told and "no violation" in told and run_areas(2).hash in told
    assert cli.main(["sim", "areas", "--seeds", "0..1", "--rare"]) == 1  # one network reaches few of the rare states
    assert cli.main(["sim", "areas", "--seeds", "0", "--plant", "x"]) == 2
    assert cli.main(["sim", "areas", "--replay", "0", "--plant", "no-such-bug"]) == 2


def test_fake_signatures_are_as_picky_as_real_ones_and_end_with_their_block() -> None:
    key, other = key_of("one"), key_of("other")
    with cheap_signatures():
        cheap = key.sign(b"said")
        assert verify(key.public, b"said", cheap)
        assert not verify(key.public, b"Said", cheap) and not verify(other.public, b"said", cheap)
        assert not verify(key.public, b"said", cheap[:-1] + bytes([cheap[-1] ^ 1]))
        assert not verify(bytes(64), b"said", cheap)
    assert not verify(key.public, b"said", cheap) and verify(key.public, b"said", key.sign(b"said"))
