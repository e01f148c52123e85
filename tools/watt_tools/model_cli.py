"""`wattpact sim model`: every state of two protocols at small scope, and every deliberate fault in them found.

The view change with its lock rule (`watt_sim.model`), and trades across areas (`watt_sim.cross_model`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from watt_sim.cross_model import Outcome as CrossOutcome
    from watt_sim.model import Outcome

    Explore = Callable[[Callable[[int], None]], Outcome | CrossOutcome]


VIEW_CHANGE, ACROSS = PROTOCOLS = ("view-change", "across-areas")


def add(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `model` under `sim`."""
    model = actions.add_parser("model", help="explore every state of the protocols at small scope")
    model.add_argument("--views", type=int, choices=(2, 3), default=3, help="views of the largest scopes (default 3)")
    model.add_argument("--protocol", choices=PROTOCOLS, help="only this one (default both)")
    model.add_argument("--paths", action="store_true", help="print the way to the fault of every faulty variant")
    model.add_argument("--json", action="store_true", help="print one JSON object")
    model.set_defaults(handler=run)


def _cases(views: int) -> list[tuple[str, str, Explore, str]]:
    """(protocol, what the case shows, how to explore it, fault that must be found; "any" = some fault)."""
    from watt_sim import cross_model, model
    from watt_sim.model import SOUND, STUCK, UNSAFE, Scope, Variant

    def view_change(scope: Scope, variant: Variant = SOUND) -> Explore:
        return lambda progress: model.explore(scope, variant, progress)

    def across(rules: cross_model.Rules) -> Explore:
        return lambda progress: cross_model.explore(rules, progress)

    small, deep = Scope(3, 1, 2, 3), Scope(3, 1, views, 3)
    title = VIEW_CHANGE
    cases = [
        (title, "n 4, 1 bad: agreement", view_change(deep), ""),
        (title, "n 4, 1 bad: can always finish", view_change(Scope(3, 1, views, 3, honest_last=True)), ""),
        (title, "n 5, 1 bad: agreement", view_change(Scope(4, 1, 2, 4)), ""),
        (title, "n 3, crashes only: can always finish", view_change(Scope(3, 0, views, 2, honest_last=True)), ""),
        (title, "n 4, 2 bad: more than f", view_change(Scope(2, 2, 2, 3)), "two blocks"),
    ]
    for variant in UNSAFE:
        needs_three = variant.lowest_lock  # one lock cannot be the lower of two
        if not needs_three or views == 3:
            cases.append((title, variant.name, view_change(deep if needs_three else small, variant), "two blocks"))
    live = Scope(3, 1, 2, 3, honest_last=True)
    cases += [(title, variant.name, view_change(live, variant), "stuck") for variant in STUCK]
    title = ACROSS
    cases += [(title, rules.name, across(rules), "") for rules in cross_model.SOUND]
    cases += [(title, rules.name, across(rules), "any") for rules in cross_model.UNSAFE]
    return cases


def run(chosen: argparse.Namespace) -> int:
    """Explore all cases; 0 when the rules hold everywhere and every fault was found."""

    def progress(states: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{states} states   ", end="", file=sys.stderr, flush=True)

    rows: list[dict[str, object]] = []
    failed = 0
    for protocol, name, explore, expected in _cases(chosen.views):
        if chosen.protocol not in (None, protocol):
            continue
        began = time.monotonic()
        outcome = explore(progress)
        seconds = time.monotonic() - began
        if sys.stderr.isatty():
            print("\r" + " " * 24 + "\r", end="", file=sys.stderr)
        good = bool(outcome.fault) if expected == "any" else outcome.fault == expected
        failed += not good
        rows.append({"protocol": protocol, "case": name, "states": outcome.states, "fault": outcome.fault})
        rows[-1] |= {"expected": expected, "seconds": round(seconds, 1), "path": list(outcome.path)}
        if not chosen.json:
            found = f"{outcome.fault} after {len(outcome.path)} steps" if outcome.fault else "no fault"
            verdict = "ok" if good else f"EXPECTED {expected or 'no fault'}"
            print(
                f"{protocol:12} {name:38} {outcome.states:>9,} states {seconds:7.1f} s  {verdict:4} {found}", flush=True
            )
            if chosen.paths:
                print("".join(f"    {line}\n" for line in outcome.path), end="", flush=True)
    if chosen.json:
        print(json.dumps({"cases": rows, "failed": failed}, indent=2))
    else:
        print(f"{len(rows)} cases, {failed} not as expected")
    return 1 if failed else 0
