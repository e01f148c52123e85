"""`wattpact bench peers`: what it prints, and what it says when a peer cannot be had."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from watt_tools import bench_peers, marks
from watt_tools.bench_peers import Row, table
from watt_tools.cli import main


def test_given_no_etcd_and_no_package_then_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(100, command)

    monkeypatch.setattr(bench_peers.shutil, "which", lambda _: None)
    monkeypatch.setattr(bench_peers.subprocess, "run", fails)
    assert main(["bench", "peers", "--only", "etcd", "--dir", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "etcd: not installed, and apt-get cannot download etcd-server" in told.err and not told.out


def test_the_table_has_as_many_cells_as_its_head() -> None:
    rows = [Row("etcd, plain writes", 3, 1, 0, 125, 8567.4, 21.3, 0.31, 4000.0, 26.0, 106.0)]
    head, rule, line = table(rows).splitlines()
    assert head.count("|") == rule.count("|") == line.count("|")
    assert "| 8,567 | 21 | 0.31 | 26 | 106 |" in line


@pytest.mark.parametrize(
    ("name", "mark"),
    [
        ("station/CONSENSUS.md", "bench-chain"),
        ("station/CONSENSUS.md", "bench-peers"),
        ("tools/watt_sim/README.md", "sim-mutants"),
    ],
)
def test_the_pages_have_the_marks_of_the_commands_that_write_them(tmp_path: Path, name: str, mark: str) -> None:
    page = tmp_path / "page.md"
    page.write_text((Path(__file__).parents[2] / name).read_text())
    assert marks.show_or_write("| new |", page, mark) == 0
    assert f"<!-- begin: {mark} -->\n| new |\n<!-- end -->" in page.read_text()
    assert marks.show_or_write("| new |", page, "nothing") == 1
