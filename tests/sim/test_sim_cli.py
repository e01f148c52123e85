"""`wattpact sim` as its user sees it."""

import argparse
import json
from pathlib import Path

import pytest
from watt_tools import sim_cli


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    sim_cli.add(parser.add_subparsers(required=True))
    chosen = parser.parse_args(["sim", *arguments])
    code: int = chosen.handler(chosen)
    return code


def test_a_batch_says_what_it_found_and_how_fast(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run", "--seeds", "0..6", "--replicas", "4", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["runs"] == 6 and report["violations"] == [] and report["runs_per_second"] > 0
    assert report["coverage"]["view-change"] and "states_not_reached" in report


def test_two_processes_find_what_one_finds(capsys: pytest.CaptureFixture[str]) -> None:
    reports = []
    for jobs in ("1", "2"):
        assert run("run", "--seeds", "20..36", "--jobs", jobs, "--json") == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0]["coverage"] == reports[1]["coverage"] and reports[0]["events"] == reports[1]["events"]


def test_twins_are_played_by_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("twins", "--scenarios", "0..4") == 0
    assert "4 scenarios" in capsys.readouterr().out


def test_a_replay_tells_every_frame_and_the_hash_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("replay", "3") == 0
    told = capsys.readouterr().out
    assert "pre-prepare height 1 view 0" in told and "stores height 1" in told and "no violation" in told


def test_a_seed_that_breaks_nothing_cannot_be_shrunk(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("shrink", "3") == 0
    assert "breaks nothing" in capsys.readouterr().err


def test_an_unknown_bug_and_a_bad_range_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("mutants", "no-such-bug") == 2
    assert run("replay", "3", "--plant", "no-such-bug") == 2
    for text in ("5..5", "x", "-1..3"):
        with pytest.raises(SystemExit):
            run("run", f"--seeds={text}")


def test_the_table_names_who_killed_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("mutants", "refused-writes-stay", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["planted"] == 1 and report["mutants"][0]["killed_by"] == "seeds" and not report["survivors"]


def test_hunts_go_on_where_they_were_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kills"
    words = ["mutants", "quorum-one-less", "--hunts", "2", "--seconds", "3", "--markdown", "--keep", str(kept)]
    assert run(*words) == 0
    first = capsys.readouterr().out
    assert "| quorum-one-less | 1 | seeds, I1 | 1 |" in first and "| 2 of 2 | 1 |" in first
    lines = kept.read_text().splitlines()
    assert len(lines) == 2
    kept.write_text("\n".join(lines).replace('"seeds"', '"twins"', 1) + "\n")
    assert run(*words) == 0  # what the file says is taken, not hunted again
    assert "| quorum-one-less | 1 | twins, I1 | 1 |" in capsys.readouterr().out
    assert kept.read_text().count("\n") == 2


def test_the_negative_control_forks_and_names_liars_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("control", "--seeds", "0..20") == 0
    out = capsys.readouterr().out
    assert " 0 forks" not in out and "0 name an honest validator" in out


def test_rare_states_can_be_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run", "--seeds", "0..2", "--rare") == 1
    assert "not reached" in capsys.readouterr().err
