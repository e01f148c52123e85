"""Planting a bug: a function of the core is compiled again from its own source with one piece of text changed.

This happens only in a child process of `mutants`; no file changes and the production code has no switch. The piece must
occur exactly once, so a bug whose place has changed is reported instead of silently planting nothing.
"""

import inspect
import sys
import textwrap
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

PLANTED = "__planted__"
"""Where a changed function keeps its source, for a second change."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change: in `module`, in the function or `Class.method` named `place`, `old` becomes `new`."""

    module: str
    place: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """A planted bug: its name, the rule of CONSENSUS.md that it breaks, and the edits that make it."""

    name: str
    rule: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...] = ()
    "Test files to be tried first, as `mutants.TEST_FILES` names them."
    world: Literal["area", "areas"] = "area"
    "Where seeds look for it: in one area (`world`), or in a network of areas (`areas`), and then `tests` are all."


def bug(name: str, rule: str, *edits: tuple[str, str, str, str], tests: tuple[str, ...] = ()) -> Mutant:
    """A planted bug of one area from (module, place, old, new) of each edit."""
    return Mutant(name, rule, tuple(Edit(*edit) for edit in edits), tests)


class PlantError(Exception):
    """The core has changed and the bug does not fit it any more."""


def plant(mutant: Mutant) -> None:
    """Change the loaded core. Raises PlantError."""
    for edit in mutant.edits:
        _apply(edit)


def check(mutant: Mutant) -> None:
    """See whether a bug still fits the core; nothing is changed. Raises PlantError or SyntaxError."""
    sources: dict[tuple[str, str], str] = {}
    for edit in mutant.edits:
        place = edit.module, edit.place
        source = _changed(edit, sources.get(place) or _source_of(_found(edit)[2]))
        compile(source, f"<planted in {edit.place}>", "exec")
        sources[place] = source


def _found(edit: Edit) -> tuple[Any, str, Any]:
    """(owner, name, function) of the place of an edit."""
    owner: Any = import_module(edit.module)
    *outer, name = edit.place.split(".")
    for part in outer:
        owner = getattr(owner, part)
    return owner, name, owner.__dict__[name]


def _source_of(function: Any) -> str:
    return getattr(function, PLANTED, None) or textwrap.dedent(inspect.getsource(function))


def _changed(edit: Edit, source: str) -> str:
    if source.count(edit.old) != 1:
        raise PlantError(f"{edit.module}.{edit.place} has {source.count(edit.old)} times: {edit.old!r}")
    return source.replace(edit.old, edit.new)


def _apply(edit: Edit) -> None:
    module = import_module(edit.module)
    owner, name, before = _found(edit)
    source = _changed(edit, _source_of(before))
    made: dict[str, Any] = {}
    exec(compile(source, f"<planted in {edit.place}>", "exec"), module.__dict__, made)
    setattr(made[name], PLANTED, source)
    setattr(owner, name, made[name])
    if owner is module:
        _rebind(before, made[name])


def _rebind(before: object, after: object) -> None:
    """A function imported by name is known to other modules too, and to their tables of functions."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("watt_chain", "watt_node", "watt_master", "watt_sim") and isinstance(
            module, ModuleType
        ):
            for key, value in list(vars(module).items()):
                if value is before:
                    setattr(module, key, after)
                elif type(value) is dict and key != "__builtins__":
                    value.update({row: after for row, function in value.items() if function is before})
