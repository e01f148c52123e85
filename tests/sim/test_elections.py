"""`wattpact sim elections`: no attack pays, the controls do, and a broken rule is seen in the figures."""

from __future__ import annotations

import json

import pytest
from watt_chain import election
from watt_sim import elections
from watt_sim.elections import Row, failures, play_one, upper_tail
from watt_tools import cli

DRAWS = 6_400
"""100 terms: enough to see the controls' advantage."""


@pytest.mark.row("F1", "F7", "F10")
@pytest.mark.parametrize("name", [name for name in elections.PLAYS if not name.startswith("control-")])
def test_no_attack_on_the_election_pays(name: str) -> None:
    """F10: "can avoid the formation of computing power competition": solving more puzzles brings no more blocks."""
    row = play_one((name, 7, DRAWS))
    assert failures([row]) == []
    assert row.name == name and 0 < row.players <= 7


@pytest.mark.parametrize("name", ["control-nonce-in-seed", "control-no-demotion", "control-running-epoch"])
def test_the_measure_sees_an_advantage_where_there_is_one(name: str) -> None:
    row = play_one((name, 7, 4 * DRAWS))
    assert row.ratio > elections.AIM and failures([row]) == []


def test_many_solutions_of_a_puzzle_lead_to_one_state() -> None:
    assert len({*elections.nonce_outcomes(8)}) == 1


def test_the_figures_show_when_keeping_a_share_back_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(election, "demote", lambda demoted, validator, to_term: list(demoted))
    row = play_one(("last-revealer", 7, DRAWS))
    assert row.ratio > 1.1 and failures([row])


def test_the_figures_show_when_the_cap_on_weights_or_the_draw_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(election, "draw", lambda seed, height, weights: list(range(len(weights))))
    assert failures([play_one(("honest", 7, DRAWS))])


def row_of(name: str, ratio: float, p: float = 0.5) -> Row:
    return Row(name, 1, 1000, 100, 100.0, ratio, 0.001, 1.0, 6, p, "")


def test_what_counts_as_a_failure() -> None:
    assert failures([row_of("honest", 1.0), row_of("whale", 1.05), row_of("chosen-height", 1.5)]) == []
    assert failures([row_of("whale", 1.06)]) and failures([row_of("honest", 1.0, p=0.0001)])
    assert failures([row_of("control-no-demotion", 1.0)])


def test_the_tail_of_chi_squared_is_that_of_the_tables() -> None:
    for freedom, chi_squared, p in (
        (1, 3.841, 0.05),
        (2, 5.991, 0.05),
        (3, 16.266, 0.001),
        (6, 12.592, 0.05),
        (9, 21.666, 0.01),
    ):
        assert upper_tail(freedom, chi_squared) == pytest.approx(p, rel=2e-3)
    assert upper_tail(6, 0.0) == pytest.approx(1.0)


def test_the_command_prints_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["sim", "elections", "--elections", "640", "--replicas", "4", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in printed["rows"]] == list(elections.PLAYS)
    assert code == (1 if printed["failures"] else 0)
    assert cli.main(["sim", "elections", "--replicas", "3"]) == 2
