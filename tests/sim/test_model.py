"""The model of the view change: sound as specified, and it can tell every faulty variant from the sound one."""

from itertools import product

import pytest
from watt_chain.pbft.messages import Prepared, ViewChange
from watt_chain.pbft.viewchange import choose
from watt_sim.model import NONE, SOUND, STUCK, UNSAFE, Certificate, Scope, System, Variant, explore
from watt_tools.cli import main

SMALL = Scope(honest=3, bad=1, views=2, quorum=3)
LIVE = Scope(honest=3, bad=1, views=2, quorum=3, honest_last=True)


@pytest.mark.row("F11")
@pytest.mark.parametrize("scope", [SMALL, LIVE, Scope(3, 0, 2, 2), Scope(2, 0, 3, 2, honest_last=True)])
def test_the_rules_hold_in_every_state(scope: Scope) -> None:
    outcome = explore(scope)
    assert (outcome.fault, outcome.path) == ("", ())
    assert outcome.states > 100


@pytest.mark.parametrize("variant", [v for v in UNSAFE if not v.lowest_lock], ids=lambda v: v.name)
def test_a_faulty_rule_lets_two_blocks_become_final(variant: Variant) -> None:
    outcome = explore(SMALL, variant)
    assert outcome.fault == "two blocks"
    assert len(outcome.path) >= 4


@pytest.mark.parametrize("variant", STUCK, ids=lambda v: v.name)
def test_a_faulty_rule_gets_stuck(variant: Variant) -> None:
    assert explore(LIVE, variant).fault == "stuck"


def test_with_more_than_f_bad_validators_the_model_forks() -> None:
    assert explore(Scope(honest=2, bad=2, views=2, quorum=3)).fault == "two blocks"


def test_a_path_leads_where_it_says() -> None:
    """Each step of a reported path is a step of the system, and the last state has two final blocks."""
    variant = next(v for v in UNSAFE if v.lock_ignored)
    system = System(SMALL, variant)
    nodes: tuple[int, ...] = (0, 0, 0)
    for line in explore(SMALL, variant).path:
        nodes = dict(system.steps(nodes))[line]
    assert system.final(nodes, 1) == 3


def test_the_model_and_the_code_choose_alike() -> None:
    """`choose` of the model is the rule of `pbft.viewchange.choose`, for all triples of certificates."""
    system = System(Scope(3, 1, 3, 3), SOUND)
    possible: list[Certificate] = [NONE, *product(range(3), (1, 2))]
    for locks in product(possible, repeat=3):
        chosen = choose(_view_change(i, lock) for i, lock in enumerate(locks))
        assert (0 if chosen is None else chosen.header[0]) == system.choose(list(locks)), locks


def _view_change(sender: int, lock: Certificate) -> ViewChange:
    """A view change whose certificate names a block by one byte; genuine ones are tested elsewhere."""
    prepared = None if lock == NONE else Prepared(lock[0], bytes([lock[1]]), [])
    return ViewChange(1, sender, 1, 3, prepared)


def test_the_command_reports_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "model", "--views", "2", "--protocol", "view-change"]) == 0
    out = capsys.readouterr().out
    assert "0 not as expected" in out
    for variant in (*UNSAFE, *STUCK):
        assert variant.lowest_lock or variant.name in out
