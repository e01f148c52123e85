"""`wattpact bench stores`: what is left of a node's stores after a crash at any operation, and after any changed byte.

Not a benchmark of speed but of promises: the tables of CONSENSUS.md 9 are its output. Everything runs in memory on a
disk that loses power (watt_sim.power); the stores are those of the daemons.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import chain
from typing import Any

from watt_sim import archivecrash
from watt_sim.power import VARIANTS
from watt_sim.storecrash import FAILURES, OUTCOMES, SCENARIOS, Row, cuts, second_cuts, sequences, steps_of, store_of
from watt_sim.storefaults import ARCHIVE_FAULTS, FAULTS, Found, hunt_all
from watt_sim.storeflips import Tally, flip

PROGRESS_S = 0.5


class Progress:
    """One living line on a terminal; nothing in a pipe."""

    def __init__(self) -> None:
        self._shown_s = 0.0
        self._terminal = sys.stderr.isatty()

    def show(self, text: str) -> None:
        """At most twice a second."""
        if self._terminal and time.monotonic() - self._shown_s > PROGRESS_S:
            self._shown_s = time.monotonic()
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave no line behind."""
        if self._terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _crashes(share: int, progress: Progress) -> tuple[list[Row], float]:
    """The rows, and images tried per second of CPU."""
    rows: dict[str, Row] = {}
    for scenario in SCENARIOS:
        for step in steps_of(scenario):
            store = store_of(step.name)
            rows.setdefault(store, Row(store)).steps += 1
    rows[archivecrash.STORE] = Row(archivecrash.STORE, archivecrash.operations())
    begun = time.process_time()
    count = 0
    for tries in (cuts(share), archivecrash.cuts(share), second_cuts(share)):
        for store, found in tries:
            rows.setdefault(store, Row(store)).add(found)
            count += 1
            progress.show(f"{count} images, {sum(row.bad for row in rows.values())} bad ({found.scenario})")
    return list(rows.values()), count / max(time.process_time() - begun, 1e-9)


def _flips(share: int, progress: Progress) -> list[Tally]:
    tallies: dict[str, Tally] = {}
    for tally in chain(flip(share), archivecrash.flip(share)):
        tallies[tally.kind] = tally
        tried = sum(one.flips + one.cuts for one in tallies.values())
        progress.show(f"{tried} changed files, {sum(len(one.wrong) for one in tallies.values())} wrong ({tally.kind})")
    return list(tallies.values())


def main(share: int, faults: bool, as_json: bool) -> int:
    """Print; exit code 1 when a promise was broken, or a planted fault was found by nobody."""
    progress = Progress()
    ways = sequences()
    rows, rate = _crashes(share, progress)
    tallies = _flips(share, progress)
    found: list[Found] = []
    if faults:
        for one in hunt_all():
            found.append(one)
            progress.show(f"{len(found)} of {len(FAULTS) + len(ARCHIVE_FAULTS)} planted faults: {one.name}")
    progress.clear()
    bad = sum(row.bad for row in rows) + sum(len(tally.wrong) for tally in tallies) + sum(not one.by for one in found)
    if as_json:
        print(json.dumps(_as_json(ways, rows, rate, tallies, found), indent=1))
    else:
        _print(ways, rows, rate, tallies, found)
        for text in [row.first for row in rows if row.first] + [tally.wrong[0] for tally in tallies if tally.wrong]:
            print(f"\n{text}")
    return int(bad > 0)


def _as_json(
    ways: list[tuple[str, str, str]], rows: list[Row], rate: float, tallies: list[Tally], found: list[Found]
) -> dict[str, Any]:
    return {
        "variants": [*VARIANTS, *FAILURES],
        "images_per_cpu_s": round(rate, 1),
        "operations": [dict(zip(("store", "act", "operations"), way, strict=True)) for way in ways],
        "crashes": [asdict(row) for row in rows],
        "changed_bytes": [asdict(tally) for tally in tallies],
        "planted": [asdict(one) for one in found],
    }


def table(head: list[str], rows: Iterable[list[object]]) -> str:
    """A table in Markdown; numbers to the right."""
    body = list(rows)
    marks = [
        "--:" if all(isinstance(line[at], int) or not line[at] for line in body) else "---" for at in range(len(head))
    ]
    lines: list[list[object]] = [[*head], [*marks], *body]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def ways_table(ways: list[tuple[str, str, str]]) -> str:
    """What each call of a store does on the disk, in order."""
    return table(
        ["store", "call", "operations, in order"],
        [[store, f"`{act.replace('.__init__', '()')}`", how] for store, act, how in ways],
    )


def _print(
    ways: list[tuple[str, str, str]], rows: list[Row], rate: float, tallies: list[Tally], found: list[Found]
) -> None:
    say: Callable[[str], None] = print
    say(ways_table(ways))
    say("")
    head = ["crash before an operation of", "operations", "images", *OUTCOMES, "in doubt", "most replayed"]
    say(
        table(
            head,
            [
                [row.store, row.steps or "", row.images, *row.outcomes.values(), row.doubted, row.replayed_max]
                for row in rows
            ],
        )
    )
    say(f"\n{len(VARIANTS)} images and {len(FAILURES)} refusals for each operation; {rate:.0f} a second of CPU\n")
    head = ["file", "bits flipped", "cuts", "noticed", "harmless", "like a crash", "in doubt", "refused", "wrong"]
    say(
        table(
            head,
            [
                [
                    *(one.kind, one.flips, one.cuts, one.noticed, one.harmless, one.like_a_crash),
                    *(one.doubted, one.refused, len(one.wrong)),
                ]
                for one in tallies
            ],
        )
    )
    if found:
        say("")
        lines: list[list[object]] = [
            [one.name, one.by or "**nobody**", one.tries, one.where.replace("|", "/")] for one in found
        ]
        say(table(["planted fault", "found by", "tries", "what was seen"], lines))
