"""Access control: every kind against every role, unknown and revoked keys, malformed fields."""

from __future__ import annotations

import itertools

import pytest
from contract_world import AGGREGATOR, GRID, REGULATOR, STRANGER, World
from watt_chain import crypto
from watt_chain.contract import kinds
from watt_chain.contract.area import FUNCTIONS as AREA_FUNCTIONS
from watt_chain.contract.main import FUNCTIONS as MAIN_FUNCTIONS

WORLD = World(areas=1)
"Only dry calls are made on it."


def keys(chain: int) -> dict[str, crypto.PrivateKey]:
    found = {
        "regulator": REGULATOR,
        "grid": GRID,
        "aggregator": AGGREGATOR,
        "validator": WORLD.validators[chain][0],
    }
    return {**found, "user": WORLD.homes[0].key} if chain else found


def test_every_kind_of_the_table_has_its_function() -> None:
    assert {kind for place, kind in kinds.TABLE if place == "area"} == set(AREA_FUNCTIONS)
    assert {kind for place, kind in kinds.TABLE if place == "main"} == set(MAIN_FUNCTIONS)


@pytest.mark.row("J23", "J2", "A1")
@pytest.mark.parametrize(("place", "kind"), kinds.TABLE)
def test_a_kind_is_refused_from_every_role_that_may_not_sign_it(place: str, kind: str) -> None:
    """J23: "According to the different roles of registration, they perform different functions"."""
    chain = 1 if place == "area" else 0
    for role, key in keys(chain).items():
        code, _ = WORLD.dry(chain, key, kind, [b"x"] * 40)
        allowed = role in kinds.TABLE[place, kind].roles  # type: ignore[index]
        assert code == ("malformed" if allowed else "role")


@pytest.mark.parametrize(("place", "kind"), kinds.TABLE)
def test_an_unknown_key_is_refused_for_every_kind(place: str, kind: str) -> None:
    chain = 1 if place == "area" else 0
    assert WORLD.dry(chain, STRANGER, kind, [1])[0] == "unknown-signer"
    assert WORLD.ledgers[chain].next_nonce(STRANGER.public) < 0


@pytest.mark.parametrize("chain", [0, 1])
def test_a_kind_of_the_other_chain_is_unknown(chain: int) -> None:
    other = "area" if chain == 0 else "main"
    here = "main" if chain == 0 else "area"
    for place, kind in kinds.TABLE:
        if place == other and (here, kind) not in kinds.TABLE:
            assert WORLD.dry(chain, GRID, kind, [1])[0] == "unknown-kind"


BAD = [None, 5, "text", b"bytes", [], [1.5], [None], [[1]], {"event": 1}, [1, 2, 3, 4, 5, 6, 7, 8, 9], [-1], [0]]


@pytest.mark.parametrize(("row", "fields"), [*itertools.product(kinds.TABLE, BAD)], ids=str)
def test_fields_of_the_wrong_form_are_malformed(row: tuple[str, str], fields: object) -> None:
    place, kind = row
    chain = 1 if place == "area" else 0
    role = kinds.TABLE[place, kind].roles[0]  # type: ignore[index]
    assert WORLD.dry(chain, keys(chain)[role], kind, fields)[0] == "malformed"
