"""`wattpact paper run` and `paper report` as a person or a script uses them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from watt_tools.cli import main
from watt_tools.paper import plan, results

ROOT = Path(__file__).parents[2]
SHARE = ["--quick", "--stages", "sweep", "--cells", "s=2", "n=2", "0ms"]


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four cells."""
    folder = tmp_path_factory.mktemp("paper")
    assert main(["paper", "run", "--out", str(folder), *SHARE]) == 0
    return folder


def test_a_share_of_a_run_has_whole_cells_with_their_repetitions(share: Path) -> None:
    rows = list(csv.DictReader((share / results.FILE).open()))
    assert {row["mode"] for row in rows} == {"full-seq", "full-par", "paper", "ours"}
    assert len(rows) == 4 * plan.QUICK_REPETITIONS
    assert all(int(row["time_us"]) > 0 and row["unfinished"] == "0" for row in rows)


@pytest.mark.row("M9", "M10", "M11", "M12")
def test_the_machine_of_a_run_is_written_down(share: Path) -> None:
    machine = json.loads((share / "machine.json").read_text())
    assert machine["cores"] >= 1 and machine["processor"] and machine["python"] and machine["system"]


def test_a_second_run_repeats_nothing_and_other_settings_are_refused(
    share: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (share / results.FILE).read_bytes()
    assert main(["paper", "run", "--out", str(share), *SHARE]) == 0
    assert (share / results.FILE).read_bytes() == before
    assert "4 cells, 4 of them from before" in capsys.readouterr().err
    assert main(["paper", "run", "--out", str(share), *SHARE[1:]]) == 1
    assert "holds another run" in capsys.readouterr().err


def test_a_torn_end_is_repeated(share: Path, tmp_path: Path) -> None:
    for name in ("settings.json", "machine.json", results.FILE):
        (tmp_path / name).write_bytes((share / name).read_bytes())
    path = tmp_path / results.FILE
    path.write_bytes(path.read_bytes()[:-7])
    assert len(results.read(path)) == 3
    assert main(["paper", "run", "--out", str(tmp_path), *SHARE]) == 0
    assert len(results.read(path)) == 4
    assert path.read_text().count("\n") == 1 + 4 * plan.QUICK_REPETITIONS


def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / results.FILE).write_text(",".join(results.COLUMNS) + "\nfull-seq,two\n")
    assert main(["paper", "report", "--dir", str(tmp_path)]) == 1
    assert f"{tmp_path / results.FILE}:2" in capsys.readouterr().err


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "watt_tools.cli", "paper", "run", "--out", str(tmp_path), "--quick", "--jobs", "1"]
    command += ["--stages", "sweep", "--cells", "s=3", "n=2"]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    path = tmp_path / results.FILE
    until = time.monotonic() + 60
    while time.monotonic() < until and not (path.exists() and results.read(path)):
        time.sleep(0.05)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    kept = results.read(path)
    assert 1 <= len(kept) < 8
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"{len(kept)} of them from before" in done.stderr
    found = results.read(path)
    assert len(found) == 8 and all(found[name] == kept[name] for name in kept)


@pytest.mark.row("M39", "M40", "M49", "M50")
def test_the_report_draws_the_papers_figures_and_prints_every_number_beside_ours(
    share: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = share / results.FILE
    full = tmp_path / "full"
    full.mkdir()
    cells = [*plan.cells("sweep"), *plan.cells("single")]
    cells += [cell for cell in plan.cells("beyond") if cell.mode == "full-last"]
    sample = next(iter(results.read(path).values()))[1]
    for cell in cells:  # one measured repetition stands in for every cell: the form is what is looked at
        results.append(full / results.FILE, replace(cell, repetitions=1), sample[:1])
    assert main(["paper", "report", "--dir", str(full)]) == 1, "no mode is below another here, so aims are missed"
    text = capsys.readouterr().out
    for number in ("54.3%", "51.9%", "75.5%", "47.5%", "28.7%", "16.6%", "17.1%"):
        assert number in text
    assert "missed: partial below full (sequential) in every cell" in text
    for figure in (6, 7, 8, 9):
        assert (full / f"figure{figure}.png").read_bytes()[:4] == b"\x89PNG"
        panels = {row["panel"] for row in csv.DictReader((full / f"figure{figure}.csv").open())}
        assert len(panels) == 3
    assert main(["paper", "report", "--dir", str(full), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["row"] for one in found["ratios"]] == [
        *("M18", "M19", "M20", "M21", "M25", "M26", "M27", "M28"),
        *("M30", "M31", "M32"),
    ]
    assert all(abs(one["full-seq"]["5"]["ratio"] - 1) < 1e-9 for one in found["ratios"][:8])
    assert {one["pass"] for one in found["aims"] if "below" in one} == {False}
    assert [one["pass"] for one in found["aims"] if "storage" in one["aim"]] == [None], "not run is no verdict"


def test_no_results_and_wrong_words_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "report", "--dir", str(tmp_path)]) == 1
    assert "wattpact paper run --out" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["paper", "run", "--out", str(tmp_path), "--stages", "sweeep"])
    assert stopped.value.code == 2 and "allowed are sweep" in capsys.readouterr().err
