"""`wattpact sim model`: every state of the view change at small scope, and every deliberate fault in it found."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watt_sim.model import Outcome, Scope, Variant


def add(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `model` under `sim`."""
    model = actions.add_parser("model", help="explore every state of the view change at small scope")
    model.add_argument("--views", type=int, choices=(2, 3), default=3, help="views of the largest scopes (default 3)")
    model.add_argument("--paths", action="store_true", help="print the way to the fault of every faulty variant")
    model.add_argument("--json", action="store_true", help="print one JSON object")
    model.set_defaults(handler=run)


def _cases(views: int) -> list[tuple[str, Scope, Variant, str]]:
    """(what the case shows, scope, variant, fault that must be found)."""
    from watt_sim.model import SOUND, STUCK, UNSAFE, Scope

    small, deep = Scope(3, 1, 2, 3), Scope(3, 1, views, 3)
    cases = [
        ("n 4, 1 bad, agreement", deep, SOUND, ""),
        ("n 4, 1 bad, can always finish", Scope(3, 1, views, 3, honest_last=True), SOUND, ""),
        ("n 5, 1 bad, agreement", Scope(4, 1, 2, 4), SOUND, ""),
        ("n 3, crashes only, can always finish", Scope(3, 0, views, 2, honest_last=True), SOUND, ""),
        ("n 4, 2 bad: more than f", Scope(2, 2, 2, 3), SOUND, "two blocks"),
    ]
    for variant in UNSAFE:
        needs_three = variant.lowest_lock  # one lock cannot be the lower of two
        if not needs_three or views == 3:
            cases.append(("fault", deep if needs_three else small, variant, "two blocks"))
    cases += [("fault", Scope(3, 1, 2, 3, honest_last=True), variant, "stuck") for variant in STUCK]
    return cases


def run(chosen: argparse.Namespace) -> int:
    """Explore all cases; 0 when the rules hold everywhere and every fault was found."""
    from watt_sim.model import explore

    def progress(states: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{states} states   ", end="", file=sys.stderr, flush=True)

    rows: list[dict[str, object]] = []
    failed = 0
    for title, scope, variant, expected in _cases(chosen.views):
        began = time.monotonic()
        outcome = explore(scope, variant, progress)
        seconds = time.monotonic() - began
        if sys.stderr.isatty():
            print("\r" + " " * 24 + "\r", end="", file=sys.stderr)
        failed += outcome.fault != expected
        rows.append({"case": title, "variant": variant.name, "scope": asdict(scope), "states": outcome.states})
        rows[-1] |= {"fault": outcome.fault, "expected": expected, "steps": len(outcome.path)}
        rows[-1] |= {"seconds": round(seconds, 1), "path": list(outcome.path)}
        if not chosen.json:
            _print(title, variant, outcome, expected, seconds, chosen.paths)
    if chosen.json:
        print(json.dumps({"cases": rows, "failed": failed}, indent=2))
    else:
        print(f"{len(rows)} cases, {failed} not as expected")
    return 1 if failed else 0


def _print(title: str, variant: Variant, outcome: Outcome, expected: str, seconds: float, paths: bool) -> None:
    verdict = "ok" if outcome.fault == expected else f"EXPECTED {expected or 'no fault'}"
    found = f"{outcome.fault} after {len(outcome.path)} steps" if outcome.fault else "no fault"
    name = variant.name if title == "fault" else title
    print(f"{name:40} {outcome.states:>9,} states {seconds:7.1f} s  {found:32} {verdict}", flush=True)
    if paths:
        print("".join(f"    {line}\n" for line in outcome.path), end="", flush=True)
