"""`wattpact market clear|check|explain|plot`, driven as a person would."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from watt_tools import market_certificate, market_cli
from watt_tools.cli import main

BOOK: dict[str, Any] = {
    "format": 1,
    "rules": 1,
    "event": {"slots": 2, "alpha_u_per_wh": [20, 30], "x_ms": 7, "y_ms": 9, "budget_u": 1_000_000},
    "users": {"ann": 1, "bob": 1, "cem": 1, "dia": 2, "eva": 2, "fay": 1},
    "entries": [
        {"id": "ann-sells", "side": "sell", "user": "ann", "price_u_per_wh": 300, "slot_wh": [50, 50], "credit": 60},
        {"id": "cem-sells", "side": "sell", "user": "cem", "price_u_per_wh": 895, "slot_wh": [40, 40]},
        {"id": "fay-sells", "side": "sell", "user": "fay", "price_u_per_wh": 950, "slot_wh": [40, 40]},
        {"id": "bob-buys", "side": "buy", "user": "bob", "price_u_per_wh": 900, "from_slot": 0, "to_slot": 2, "wh": 40},
        {"id": "dia-sells", "side": "sell", "user": "dia", "price_u_per_wh": 200, "slot_wh": [0, 60]},
        {"id": "eva-buys", "side": "buy", "user": "eva", "area": 2, "price_u_per_wh": 500, "slot_wh": [0, 30]},
    ],
}


def write(folder: Path, document: object, name: str = "book.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(document))
    return path


@pytest.fixture(scope="module")
def cleared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("market")
    book, certificate = write(folder, BOOK), folder / "certificate.json"
    assert main(["market", "clear", str(book), "--certificate", str(certificate)]) == 0
    return book, certificate


def test_a_book_is_cleared_to_a_table_and_a_certificate_that_holds(
    cleared: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    book, certificate = cleared
    assert main(["market", "clear", str(book)]) == 0
    text = capsys.readouterr().out
    assert "ann-sells" in text and "2 pairs, 110 Wh; not matched: 2 entries (cem-sells, fay-sells)" in text
    assert main(["market", "check", str(certificate), "--book", str(book)]) == 0
    assert capsys.readouterr().out.startswith("holds: no matching of this book is better by more than 0.0")


def test_json_says_the_same_in_units(cleared: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["market", "clear", str(cleared[0]), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    first = data["pairs"][0]
    assert (first["seller"], first["buyer"], first["slot_wh"]) == ("ann", "bob", [40, 40])
    assert (first["price_u_per_wh"], first["charge_u"], first["paid_u"]) == ([610, 615], 70, 49_000)
    # 40 (900 - 300 - 20) + 40 (900 - 300 - 30) - 70, and 30 (500 - 200 - 30) - 70 in the other area
    assert data["value_u"] == 40 * 580 + 40 * 570 - 70 + 30 * 270 - 70
    assert data["unmatched"] == ["cem-sells", "fay-sells"] and not data["interrupted"]


def entry(**changes: object) -> dict[str, Any]:
    """The book with its first entry changed; None takes a field away."""
    document = copy.deepcopy(BOOK)
    first = document["entries"][0] | changes
    document["entries"][0] = {name: value for name, value in first.items() if value is not None}
    return document


def top(**changes: object) -> dict[str, Any]:
    return copy.deepcopy(BOOK) | changes


BAD = {
    "negative price": (entry(price_u_per_wh=-1), "ann-sells: negative: price_u_per_wh = -1"),
    "negative energy": (entry(slot_wh=[50, -5]), "ann-sells: negative: slot_wh[1] = -5"),
    "huge energy": (entry(slot_wh=[50, 10**7]), "ann-sells: too-large: slot_wh[1] = 10000000: 1000000 is the most"),
    "huge price": (entry(price_u_per_wh=10**40), "ann-sells: too-large: price_u_per_wh"),
    "fraction": (entry(slot_wh=[50, 1.5]), "ann-sells: not-an-integer: slot_wh[1] = 1.5"),
    "text": (entry(price_u_per_wh="300"), 'ann-sells: not-an-integer: price_u_per_wh = "300"'),
    "boolean": (entry(price_u_per_wh=True), "ann-sells: not-an-integer: price_u_per_wh = true"),
    "no price": (entry(price_u_per_wh=None), "ann-sells: not-an-integer: price_u_per_wh = null"),
    "same id": (entry(id="cem-sells"), "cem-sells: duplicate: another entry has this id"),
    "same household": (entry(user="cem"), "cem-sells: duplicate: cem already has the entry ann-sells"),
    "expired": (entry(expires_s=61_199), "ann-sells: expired: expires_s = 61199, the window begins at 61200"),
    "out of area": (entry(area=2), "ann-sells: out-of-area: area = 2, but ann belongs to area 1"),
    "unknown user": (entry(user="zoe"), 'ann-sells: unknown-user: user = "zoe" is not in the list of users'),
    "backwards window": (
        entry(slot_wh=None, from_slot=2, to_slot=1, wh=5),
        "ann-sells: window-ends-before-it-begins: from_slot = 2, to_slot = 1",
    ),
    "empty window": (entry(slot_wh=None, from_slot=1, to_slot=1, wh=5), "ann-sells: window-ends-before-it-begins"),
    "short list": (entry(slot_wh=[50]), "ann-sells: malformed: slot_wh: a list of 2 whole numbers"),
    "unknown field": (entry(colour=1), "ann-sells: malformed: 'colour' is not a field"),
    "no side": (entry(side="give"), 'ann-sells: malformed: side = "give": sell or buy'),
    "headroom": (top(headroom_w={"1": -5}), "area 1: infeasible-headroom: headroom_w = -5"),
    "rules": (top(rules=3), "rules: malformed: 3: rule sets 1 and 2 are known"),
    "rule value": (top(rules={"base": 1, "eps_ppm": 10**7}), "rules: malformed: rule-fraction"),
    "rule name": (top(rules={"base": 1, "speed": 1}), "rules: malformed: unknown: speed"),
    "event": (top(event={"slots": 97}), "event: too-large: slots = 97: 96 is the most"),
    "no event": (top(event=None), "event: malformed: an object is wanted"),
    "entries": (top(entries={}), "file: malformed: entries"),
    "entry": (top(entries=[7]), "entry 0: malformed: an object is wanted"),
    "format": (top(format=2), 'file: malformed: a book begins with "format": 1'),
    "list": ([], "file: malformed"),
    "seed": (top(seed="abc"), "seed: malformed"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_entry_is_named_and_nothing_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document, wanted = BAD[name]
    certificate = tmp_path / "certificate.json"
    assert main(["market", "clear", str(write(tmp_path, document)), "--certificate", str(certificate)]) == 2
    told = capsys.readouterr()
    assert wanted in told.err and told.out == ""
    assert not certificate.exists()


def test_every_problem_of_a_book_is_told_in_one_reading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = entry(price_u_per_wh=-1, slot_wh=[50, 1.5])
    document["entries"][1]["user"] = "zoe"
    assert main(["market", "clear", str(write(tmp_path, document)), "--json"]) == 2
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert [(where, what) for where, what, _ in problems] == [
        ("ann-sells", "negative"),
        ("ann-sells", "not-an-integer"),
        ("cem-sells", "unknown-user"),
    ]


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00", '{"format": NaN}'])
def test_a_file_that_is_no_json_is_named(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "book.json"
    path.write_text(text)
    assert main(["market", "clear", str(path)]) == 2
    assert "malformed" in capsys.readouterr().err
    assert main(["market", "clear", str(tmp_path / "none.json")]) == 2
    assert "unreadable" in capsys.readouterr().err


def integers(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the integers of a document stand."""
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from integers(one, (*path, key))
    elif isinstance(value, int) and not isinstance(value, bool):
        yield path


@pytest.mark.row("J11")
def test_a_certificate_with_any_changed_integer_is_refused_with_its_row(cleared: tuple[Path, Path]) -> None:
    good = json.loads(cleared[1].read_text())
    assert market_certificate.check(good) == ""
    rows = set()
    for path in integers(good):
        for change in (1, -1, 10**7):
            document = copy.deepcopy(good)
            place = document
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] += change
            try:
                row = market_certificate.check(document)
            except market_certificate.BookError as error:
                row = error.problems[0][1]
            assert row, f"{path} changed by {change} passed"
            rows.add(row)
    assert {"solution-value", "chain-1-slice-value", "certificate-book", "certificate-form"} <= rows


def test_a_refused_certificate_names_the_row_and_gives_exit_code_1(
    cleared: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(cleared[1].read_text())
    document["solution"][3] += 1
    path = write(tmp_path, document)
    assert main(["market", "check", str(path)]) == 1
    assert capsys.readouterr().out == "refused: solution-value\n"
    assert main(["market", "plot", str(path)]) == 1
    other = write(tmp_path, entry(price_u_per_wh=301), "other.json")
    assert main(["market", "check", str(cleared[1]), "--book", str(other)]) == 1
    assert "certificate-of-another-book" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "reason", "price"),
    [
        ("fay-sells", "it asks 950 u/Wh; the dearest bid in its slots offers 900", 299),
        ("cem-sells", "the best margin of 5 u/Wh does not cover the comfort cost of 20 u/Wh", 299),
    ],
)
def test_an_entry_learns_why_it_was_not_matched_and_what_would_have_been(
    cleared: tuple[Path, Path], name: str, reason: str, price: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ann sells at 300 to the only buyer: whoever is to sell in her place must ask less."""
    assert main(["market", "explain", str(cleared[1]), name, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["reason"] == reason and told["trades"] == []
    assert told["matched_at_u_per_wh"] == pytest.approx(price, abs=6)
    found = told["matched_at_u_per_wh"]
    assert told["would_pay_u_per_wh"] == [(900 + found + 20) // 2, (900 + found + 30) // 2]
    assert main(["market", "explain", str(cleared[0]), name]) == 0
    assert f"An ask of {found} u/Wh would have been matched" in capsys.readouterr().out


def test_a_matched_entry_learns_with_whom_and_what_kept_the_rest(
    cleared: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["market", "explain", str(cleared[1]), "ann-sells"]) == 0
    text = capsys.readouterr().out
    assert "matched with bob-buys: 80 Wh at 610 to 615 u/Wh, charge 70 u" in text and "only 80 Wh matched" in text
    assert main(["market", "explain", str(cleared[1]), "nobody"]) == 2
    assert "nobody: unknown-entry: the book has ann-sells, bob-buys" in capsys.readouterr().err


def test_the_plot_is_a_picture(cleared: tuple[Path, Path], tmp_path: Path) -> None:
    picture = tmp_path / "market.png"
    assert main(["market", "plot", str(cleared[1]), "--out", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_ctrl_c_gives_the_best_certified_answer_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from watt_market.engine import Search

    steps = Search.steps

    def interrupted(self: Search) -> Iterator[Any]:
        for step in steps(self):
            yield step
            raise KeyboardInterrupt

    monkeypatch.setattr(Search, "steps", interrupted)
    certificate = tmp_path / "certificate.json"
    assert main(["market", "clear", str(write(tmp_path, BOOK)), "--certificate", str(certificate), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["interrupted"] and "best certified answer so far" in told.err
    assert main(["market", "check", str(certificate)]) == 0


def test_the_help_names_every_action(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["market", "--help"])
    text = capsys.readouterr().out
    assert all(action in text for action in ("clear", "check", "explain", "plot"))
    assert market_cli.PROBLEMS_SHOWN == 20


ACROSS: dict[str, Any] = copy.deepcopy(BOOK) | {
    "rules": {"base": 1, "crossings": 2},
    "headroom_w": {"2": 200},
    "users": BOOK["users"] | {"gus": 2},
    "entries": [
        *BOOK["entries"],
        {"id": "gus-buys", "side": "buy", "user": "gus", "price_u_per_wh": 990, "slot_wh": [100, 100]},
    ],
}


def test_pairs_of_two_areas_are_shown_checked_explained_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book, certificate = write(tmp_path, ACROSS), tmp_path / "certificate.json"
    assert main(["market", "clear", str(book), "--certificate", str(certificate), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    crossings = [pair for pair in data["pairs"] if pair["area"] != pair["bid_area"]]
    assert crossings and all(pair["charge_u"] == 5 * (2 * 7 + 9) for pair in crossings)
    into = [sum(pair["slot_wh"][t] for pair in crossings if pair["bid_area"] == 2) for t in (0, 1)]
    assert max(into) <= 200 * 900 // 3_600
    assert data["charge_u"] == sum(pair["charge_u"] for pair in data["pairs"])
    assert main(["market", "clear", str(book)]) == 0
    assert "1 > 2" in capsys.readouterr().out
    assert main(["market", "check", str(certificate)]) == 0
    assert main(["market", "explain", str(certificate), crossings[0]["bid"]]) == 0
    assert f"matched with {crossings[0]['offer']}" in capsys.readouterr().out
    assert main(["market", "plot", str(certificate)]) == 0
    assert certificate.with_suffix(".png").stat().st_size > 10_000


def test_a_book_cleared_by_two_processes_has_the_same_certificate(tmp_path: Path) -> None:
    book = write(tmp_path, ACROSS)
    for jobs in (1, 2):
        target = tmp_path / f"{jobs}.json"
        assert main(["market", "clear", str(book), "--certificate", str(target), "--jobs", str(jobs)]) == 0
    one, two = (json.loads((tmp_path / f"{jobs}.json").read_text()) for jobs in (1, 2))
    assert one["solution"] == two["solution"]
