"""A bounded share of the fuzzing: seeded changes of genuine input; `make fuzz` runs the same targets under coverage."""

import random

import pytest
from fuzz_changes import change_bytes, change_value
from fuzz_targets import Target, make_targets

EXECUTIONS = 3000
"""Per target: some seconds each."""
TARGETS = make_targets()


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_parser(name: str) -> None:
    target: Target = TARGETS[name]
    dice = random.Random(name)
    for seed in target.seeds:
        target.run(seed)
    for _ in range(EXECUTIONS):
        target.run(dice.choice((change_bytes, change_value))(dice.choice(target.seeds), dice))


def test_genuine_input_is_accepted() -> None:
    """A target that refuses its own seeds would fuzz nothing but the first check."""
    kinds = set()
    for body in TARGETS["signed-frame"].seeds:
        kinds.add(body[2 : 2 + body[1] - 0xA0] if body[1] < 0xC0 else b"?")
    assert {b"pre-prepare", b"prepare", b"commit", b"view-change", b"status"} <= kinds
    assert len(TARGETS["block"].seeds) == 2 and len(TARGETS["vote-record"].seeds) > 4
