"""The paper's third experiment: what a normal node and a cross-node keep, in bytes of the real stores."""

import csv
import json
import sys
from pathlib import Path

import pytest
from watt_tools.cli import main
from watt_tools.paper import figures, growth, plan, processes, reported, storage, verdicts
from watt_tools.paper.cell import Cell
from watt_tools.paper.data import Data

sys.path.insert(0, str(Path(__file__).parent))

MODES = ("paper", "ours")


def sizes(folder: Path, mode: str, s: int, m: int, load: str = "local") -> dict[str, int]:
    areas = storage.Areas(folder / f"{mode}-{load}-{s}-{m}", mode, s)
    areas.fill(m, load)
    found = areas.sizes()
    areas.close()
    return found


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int, int], dict[str, int]]:
    """Sizes of the paper's slices, with fewer transactions than its largest."""
    folder = tmp_path_factory.mktemp("storage")
    return {(mode, s, m): sizes(folder, mode, s, m) for mode in MODES for s in (2, 3, 4) for m in (250, 500)}


@pytest.mark.row("M4", "M5", "M6", "M29")
def test_the_storage_stage_has_the_papers_grid_with_equal_shards(tmp_path: Path) -> None:
    assert {2, 3, 4} <= set(storage.SHARDS) and storage.TRANSACTIONS == (250, 500, 750, 1000)
    areas = storage.Areas(tmp_path / "areas", "paper", 3)
    areas.fill(250, "local")
    counts = []
    for area in areas.areas:
        ledger = areas.chains[area].ledger
        headers = [ledger.certified(height) for height in range(1, ledger.head.height + 1)]
        counts.append(sum(len(data) > 0 for data in headers if data) * storage.BLOCK)
        assert ledger.head.header is not None and ledger.head.header.tx_count == storage.BLOCK
    areas.close()
    assert counts == [250, 250, 250]


@pytest.mark.row("M30", "M31", "M32", "M53")
def test_the_papers_ratio_is_one_through_s(grid: dict[tuple[str, int, int], dict[str, int]]) -> None:
    for (mode, s, _), found in grid.items():
        if mode == "paper":
            assert abs(found["normal"] / found["cross"] - 1 / s) < 0.01


@pytest.mark.row("M33", "M52", "M34", "M58", "H30", "D9")
def test_a_cross_node_of_the_papers_mode_grows_with_the_shards_and_ours_hardly_does(
    grid: dict[tuple[str, int, int], dict[str, int]],
) -> None:
    for m in (250, 500):
        paper = [grid["paper", s, m]["cross"] for s in (2, 3, 4)]
        ours = [grid["ours", s, m]["cross"] for s in (2, 3, 4)]
        assert paper[0] < paper[1] < paper[2] and paper[2] > 1.9 * paper[0]
        assert ours[2] < 1.1 * ours[0]


@pytest.mark.row("D8", "D10", "D11")
def test_with_trades_across_areas_ours_keeps_no_partners_ledger(tmp_path: Path) -> None:
    ours, paper = (sizes(tmp_path, mode, 10, 250, "mixed") for mode in ("ours", "paper"))
    assert ours["normal"] / ours["cross"] >= verdicts.STORAGE_AIM
    assert paper["normal"] / paper["cross"] < 0.2
    local = sizes(tmp_path, "paper", 10, 250)
    assert paper["normal"] > local["normal"], "a normal node has the decisions that concern its area"


@pytest.mark.row("D12", "M8")
def test_a_master_keeps_everything_and_so_grows_with_the_areas() -> None:
    few, many = (growth.measure(s, 10_000, homes=20) for s in (1, 3))
    assert few["normal"] == many["normal"] > 0
    assert many["master"] > 2.5 * few["master"] > 2.5 * few["normal"]
    assert many["paper"] == 3 * many["normal"] and many["cross"] == many["normal"] < many["kept"]


@pytest.mark.row("M41")
def test_figure_10_is_drawn_from_the_storage_stage(tmp_path: Path, grid: object) -> None:
    ledger = [
        {"mode": mode, "load": "local", "s": s, "m": m, "role": role, "bytes": found[role]}
        for (mode, s, m), found in grid.items()  # type: ignore[attr-defined]
        for role in ("normal", "cross")
    ]
    (tmp_path / "storage.json").write_text(json.dumps({"ledger": ledger, "growth": []}))
    drawn = figures.draw(Data(tmp_path), tmp_path)
    assert [path.name for path in drawn] == ["figure10.png"]
    rows = list(csv.DictReader((tmp_path / "figure10.csv").open()))
    assert {row["panel"] for row in rows} == {"s = 2", "s = 3", "s = 4"}
    found = verdicts.eleven(Data(tmp_path))[8:]
    assert [round(one["storage"]["ratio"], 2) for one in found] == [0.5, 0.33, 0.25]
    assert [one.ppm for one in reported.STORAGE_RATIOS] == [500_000, 335_000, 250_000]


def test_the_storage_stage_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["paper", "run", "--out", str(tmp_path), "--quick", "--stages", "storage"]
    assert main(command) == 0
    before = (tmp_path / "storage.json").read_bytes()
    capsys.readouterr()
    assert main(command) == 0
    assert "8 ledgers, 8 of them from before" in capsys.readouterr().err
    assert (tmp_path / "storage.json").read_bytes() == before


@pytest.mark.row("M12", "M1")
@pytest.mark.parametrize("mode", ["full-par", "paper", "ours"])
def test_real_processes_carry_the_same_trades(mode: str) -> None:
    times = processes.measure(Cell(mode, 2, 2, 0), repetitions=1)
    assert len(times) == 1 and times[0] > 0


@pytest.mark.row("M42")
def test_the_processes_are_those_of_the_papers_eight_ratios() -> None:
    assert set(plan.PAPER_CELLS) == {(one.s, one.n) for one in reported.TIME_RATIOS}
    assert processes.DELAYS_US == (0, 5000)
