"""The soak: what it calls flat, and one short run of real stations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from watt_tools import bench_soak, cli, marks
from watt_tools.bench_soak import Found, Point, report


def run_of(mib_at: list[float], blocks_each: int = 1000) -> Found:
    """One point for each value; the second station is always 1 MiB larger."""
    found = Found(100.0, 100)
    for number, mib in enumerate(mib_at, 1):
        found.points.append(Point(float(number), number * blocks_each, number * 20_000, [mib, mib + 1]))
    return found


def test_memory_that_rises_and_falls_with_the_segments_is_flat() -> None:
    teeth = [80 + number % 4 * 3.0 for number in range(24)]
    found = run_of([60, 70, 75, *teeth])
    assert found.verdict == "flat" and found.growth() == [0, 0] and found.slopes() == [0, 0]


def test_memory_that_grows_below_its_teeth_grows() -> None:
    found = run_of([80 + number % 4 * 3.0 + number * 0.3 for number in range(24)])
    assert found.verdict == "grows"
    assert all(0.2 < one < 0.4 for one in found.slopes())
    assert "grows" in report(found)


def test_a_run_shorter_than_three_segments_is_not_judged() -> None:
    assert run_of([80.0] * 12).verdict.startswith("too short")
    assert run_of([80.0] * 12, blocks_each=2000).verdict.startswith("too short")


@pytest.mark.parametrize(("growth", "code"), [(0.0, 0), (1.0, 1)])
def test_the_exit_code_is_1_when_memory_grows(growth: float, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def measured(_net: object, found: Found, _minutes: float) -> None:
        found.points = run_of([80 + growth * number for number in range(24)]).points

    monkeypatch.setattr(bench_soak, "_measure", measured)
    monkeypatch.setattr(bench_soak.BenchNet, "start", lambda *_, **__: None)
    assert bench_soak.main(4, 1, 100, 100, as_json=True) == code


@pytest.mark.e2e
def test_a_short_run_reads_the_memory_of_every_station(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "soak", "--minutes", "0.1", "--rate", "50", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"].startswith("too short") and found["transactions"] > 50
    assert len(found["points"]) > 10 and all(mib > 20 for point in found["points"] for mib in point[2:])


@pytest.mark.parametrize("name", ["bench-kills", "bench-soak", "bench-flood", "bench-refusals"])
def test_the_tables_of_the_document_have_their_marks(name: str, tmp_path: Path) -> None:
    document = tmp_path / "CONSENSUS.md"
    document.write_text((Path(__file__).parents[2] / "station/CONSENSUS.md").read_text())
    assert marks.show_or_write("| a table |", document, name) == 0
    assert f"<!-- begin: {name} -->\n| a table |\n<!-- end -->" in document.read_text()


def test_a_table_without_its_marks_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.md").write_text("# Nothing\n")
    assert marks.show_or_write("x", tmp_path / "empty.md", "bench-soak") == 1
    assert "stands there 0 times, not once" in capsys.readouterr().err
