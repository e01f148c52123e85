"""Tables that commands write into documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from watt_tools import market_bench, market_peers, marks
from watt_tools.cli import main

BIDDING = Path(__file__).parents[2] / "master" / "BIDDING.md"


def test_what_stands_between_the_marks_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- begin: one -->\nold\\1\n<!-- end -->\nb\n<!-- begin: two -->\nkept\n<!-- end -->\n")
    marks.replace(page, "one", "| x\\1 |\n")
    assert page.read_text() == (
        "a\n<!-- begin: one -->\n| x\\1 |\n<!-- end -->\nb\n<!-- begin: two -->\nkept\n<!-- end -->\n"
    )


def test_given_no_marks_or_no_page_then_both_are_named(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    with pytest.raises(marks.MarkError, match=r"page\.md"):
        marks.replace(page, "one", "x")
    page.write_text("nothing\n")
    with pytest.raises(marks.MarkError, match="begin: one"):
        marks.replace(page, "one", "x")
    assert page.read_text() == "nothing\n"


@pytest.mark.parametrize("name", [market_bench.MARK, market_peers.MARK])
def test_the_page_of_the_market_has_the_marks_of_its_tables(name: str) -> None:
    assert BIDDING.read_text().count(f"<!-- begin: {name} -->\n") == 1


def test_the_bench_writes_its_table_into_a_page(tmp_path: Path, capsys: Any) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"<!-- begin: {market_bench.MARK} -->\n<!-- end -->\n")
    wanted = ["--households", "100", "--budget", "quarter", "--markdown", "--write", str(page)]
    assert main(["market", "bench", *wanted]) == 0
    table = capsys.readouterr().out.strip()
    assert table in page.read_text() and "| 100 | 2 | quarter |" in table
