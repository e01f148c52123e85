"""The house rules as a test: what the layers, the cores and the documents promise is checked on the text itself."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("firmware", "gateway", "station", "master", "tools")
TOP_LEVEL = {
    *FOLDERS, ".ci", ".gitignore", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile",
    "README.md", "SECURITY.md", "pyproject.toml", "requirements.lock", "tests",
}  # fmt: skip
CORES = ("firmware/watt_wire", "station/watt_chain", "master/watt_market")
SOLVER = "master/watt_market/solver.py"
"The one core module with floats: HiGHS works in doubles, what leaves it is integers (ARCHITECTURE.md D7)."
MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
VERIFIER_LINES_MAX = 500
VERIFIER_PARTS = {"leaders": 150, "crossing": 330, "stated": 50, "lists": 75}
IMPURE = {
    "asyncio", "datetime", "http", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "selectors",
    "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "urllib",
}  # fmt: skip
ONE_MODULE_PER_LIBRARY = {
    "amqtt", "bleak", "cryptography", "dbus_fast", "ecdsa", "highspy", "matplotlib", "pymodbus", "tinydb", "lmdb",
    "sqlite3",
}  # fmt: skip
"A change of a library's interface must touch one file per package."


def tracked() -> list[str]:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if (ROOT / line).is_file()]


TRACKED = tracked()
SOURCES = [path for path in TRACKED if path.endswith(".py") and path.split("/")[0] in FOLDERS]
CORE_SOURCES = [path for path in SOURCES if path.startswith(CORES)]


@cache
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), path)


@cache
def imported(path: str) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return frozenset(names)


def test_the_top_level_holds_what_it_should() -> None:
    """A run that leaves a file behind where it was started must not get it committed."""
    assert {path.split("/")[0] for path in tracked()} == TOP_LEVEL


def test_there_are_sources_in_every_folder() -> None:
    assert {path.split("/")[0] for path in SOURCES} == set(FOLDERS)
    assert len(CORE_SOURCES) > 20


def test_only_the_agreed_top_level_folders_exist() -> None:
    folders = {path.split("/")[0] for path in TRACKED if "/" in path}
    assert folders <= {*FOLDERS, "tests", ".ci"}, f"unexpected top-level folder: {folders}"


@pytest.mark.parametrize("path", CORE_SOURCES)
def test_a_core_imports_nothing_of_the_world(path: str) -> None:
    assert not imported(path) & IMPURE, f"{path} is a core and imports {sorted(imported(path) & IMPURE)}"


@pytest.mark.parametrize("path", [path for path in CORE_SOURCES if path != SOLVER])
def test_a_core_has_no_float(path: str) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and type(node.value) is float:
            pytest.fail(f"{path}:{node.lineno}: float literal; use integer sub-units")
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            pytest.fail(f"{path}:{node.lineno}: true division makes a float; use //")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float":
            pytest.fail(f"{path}:{node.lineno}: float()")


@pytest.mark.parametrize("path", CORE_SOURCES)
def test_a_core_does_not_iterate_over_a_set(path: str) -> None:
    for node in ast.walk(tree(path)):
        iterated = node.iter if isinstance(node, ast.For | ast.comprehension) else None
        bare = isinstance(iterated, ast.Set | ast.SetComp)
        call = isinstance(iterated, ast.Call) and isinstance(iterated.func, ast.Name) and iterated.func.id == "set"
        assert not (bare or call), f"{path}: iteration over a set has no order; sort it"


@pytest.mark.parametrize("path", SOURCES)
def test_a_module_and_its_functions_stay_short(path: str) -> None:
    lines = (ROOT / path).read_text().count("\n")
    assert lines <= MODULE_LINES_MAX, f"{path} has {lines} lines"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{path}:{node.lineno}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES)
def test_a_module_says_what_it_is(path: str) -> None:
    if (ROOT / path).read_text().strip():
        assert ast.get_docstring(tree(path)), f"{path} has no module docstring"


@pytest.mark.parametrize("path", SOURCES)
def test_no_bare_except_and_no_broad_one_without_its_reason(path: str) -> None:
    lines = (ROOT / path).read_text().splitlines()
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        assert node.type is not None, f"{path}:{node.lineno}: bare except"
        if isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"):
            assert "#" in lines[node.lineno - 1], f"{path}:{node.lineno}: a broad except says why on its line"


@pytest.mark.parametrize("library", sorted(ONE_MODULE_PER_LIBRARY))
def test_a_library_is_imported_by_one_module_per_package(library: str) -> None:
    users: dict[str, list[str]] = {}
    for path in SOURCES:
        if library in imported(path):
            users.setdefault("/".join(path.split("/")[:2]), []).append(path)
    for package, paths in users.items():
        assert len(paths) == 1, f"{library} is imported in {package} by {paths}"


def test_the_verifier_is_short_and_shares_no_code() -> None:
    # verify.py decides, structures.py is its table of field names, verdict.py prints and decides nothing. Parts with
    # budgets of their own: who had to lead, trades across areas, what the statement must say.
    deciding = ["tools/watt_tools/verify.py", "tools/watt_tools/structures.py"]
    lines = [line for path in deciding for line in (ROOT / path).read_text().splitlines() if line.strip()]
    assert len(lines) < VERIFIER_LINES_MAX, f"{len(lines)} lines that are not blank"
    parts = [f"tools/watt_tools/{name}.py" for name in VERIFIER_PARTS]
    for path, most in zip(parts, VERIFIER_PARTS.values(), strict=True):
        count = sum(bool(line.strip()) for line in (ROOT / path).read_text().splitlines())
        assert count < most, f"{count} lines of {path} that are not blank"
    shared = {"watt_wire", "watt_chain", "watt_node", "watt_market", "watt_station", "watt_master", "watt_gateway"}
    allowed = {f"watt_tools.{name}" for name in ("structures", "verdict", "verify", *VERIFIER_PARTS)}
    for path in [*deciding, "tools/watt_tools/verdict.py", *parts]:
        assert not imported(path) & shared, f"{path} imports {imported(path) & shared}"
        assert "cryptography" not in imported(path), "the second implementation uses the ecdsa package"
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("watt_"):
                assert node.module in allowed, f"{path} imports {node.module}"


@pytest.mark.parametrize("path", [path for path in TRACKED if path.endswith((".py", ".md", ".toml", ".sh", ".lock"))])
def test_nothing_points_at_one_machine_or_one_registry(path: str) -> None:
    if path == "tests/test_tidy.py":
        return
    text = (ROOT / path).read_text(errors="replace")
    hosts = re.findall(r"pypi\.org|pythonhosted|registry\.npmjs|deb\.debian\.org|\.\./shared|/work/|/root/", text)
    assert not hosts, f"{path} names {sorted(set(hosts))}"


def test_every_marked_row_exists() -> None:
    known = {line.split(",")[0] for line in (ROOT / "tests/paper/rows.csv").read_text().splitlines()[1:]}
    assert len(known) == 326
    for path in TRACKED:
        if path.startswith("tests/") and path.endswith(".py"):
            for call in ast.walk(tree(path)):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.row":
                    ids = {arg.value for arg in call.args if isinstance(arg, ast.Constant)}
                    assert ids <= known, f"{path}:{call.lineno}: unknown rows {ids - known}"
