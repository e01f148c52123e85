"""The table of attacks in tools/watt_sim/README.md: all thirty are there, and every test it names exists."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ATTACKS = 30


def table() -> dict[int, list[str]]:
    """Attack -> tests, as `path::name` below `tests/`."""
    text = (ROOT / "tools" / "watt_sim" / "README.md").read_text()
    section = text.split("## Attacks on trades across areas\n", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:2] == "| "]
    return {int(row[0]): row[3].replace("`", "").split() for row in rows if row[0].isdigit()}


def names(path: Path) -> list[str]:
    """Everything that a test file defines or sets at its top level."""
    found: list[str] = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign):
            found += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return found


def test_every_attack_is_in_the_table_with_a_test() -> None:
    assert list(table()) == list(range(1, ATTACKS + 1))
    assert all(table().values())


@pytest.mark.parametrize("attack", range(1, ATTACKS + 1))
def test_the_tests_of_an_attack_exist(attack: int) -> None:
    for test in table()[attack]:
        file, _, name = test.partition("::")
        path = ROOT / "tests" / file
        assert path.is_file(), test
        assert name in names(path), test
        assert name.startswith(("test_", "Test")), test
