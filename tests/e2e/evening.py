"""One evening of the whole network as real processes, played once for all tests that look at it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = "7"
"The same keys in both networks, so that their outcomes can be compared as one hash."
VICTIMS = ("area1-node2", "area2-node1")
"Killed while the plugs deliver."
RUN_MAX_S = 300


@dataclass
class Evening:
    folder: Path
    data: dict[str, Any]
    code: int
    killed: dict[str, int]
    "Victim -> height its area had when it was killed."
    carriers: tuple[str, ...] = ()
    "Cross-nodes that were killed when trades across areas had been matched and not been taken."


def play(folder: Path, *, kill: bool, broker: str = "embedded") -> Evening:
    command = [sys.executable, "-m", "watt_tools.cli", "demo", "--dir", str(folder), "--json", "--seed", SEED]
    killed: dict[str, int] = {}
    carriers: tuple[str, ...] = ()
    with (
        (folder.parent / f"{folder.name}.out").open("w+") as out,
        (folder.parent / f"{folder.name}.err").open("w+") as err,
        subprocess.Popen([*command, "--broker", broker], stdout=out, stderr=err, env=dict(os.environ)) as process,
    ):
        deadline_s = time.monotonic() + RUN_MAX_S
        while process.poll() is None and time.monotonic() < deadline_s:
            if kill and not carriers:
                carriers = kill_cross_nodes(folder)
            if kill and not killed:
                killed = kill_stations(folder)
            time.sleep(0.2 if kill and not carriers else 0.5)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        code = process.wait(timeout=60)
        out.seek(0)
        err.seek(0)
        text, errors = out.read(), err.read()
    assert text.strip(), f"no result, exit code {code}:\n{errors[-3000:]}"
    return Evening(folder, json.loads(text), code, killed, carriers)


def kill_cross_nodes(folder: Path) -> tuple[str, ...]:
    """kill -9 the first cross-node of each area that has one and still waits for locks; () until there are some."""
    found: list[str] = []
    for area in (1, 2):
        try:
            status = json.loads((folder / f"area{area}/node0/status.json").read_text())
        except (OSError, ValueError):
            return ()
        seats = status.get("partners", {}).get("cross_nodes", [])
        if seats:
            found.append(f"area{area}-node{seats[0]}")
    if not found:
        return ()
    pids = json.loads((folder / "pids.json").read_text())
    for name in found:
        os.kill(pids[name], signal.SIGKILL)
    return tuple(found)


def kill_stations(folder: Path) -> dict[str, int]:
    """kill -9 one station per area once the delivery window is open; {} until then."""
    event = folder / "main/event.json"
    if not (folder / "clock.json").exists() or not event.exists():
        return {}
    clock, spec = json.loads((folder / "clock.json").read_text()), json.loads(event.read_text())
    elapsed_ms = max(0, time.time_ns() // 1_000_000 - clock["machine_start_ms"])
    if clock["protocol_start_s"] + elapsed_ms * clock["speed"] // 1000 < spec["window_start_s"] + 1800:
        return {}
    pids = json.loads((folder / "pids.json").read_text())
    heights = {}
    for name in VICTIMS:
        area, node = name.split("-")
        heights[name] = json.loads((folder / area / node / "status.json").read_text())["height"]
        os.kill(pids[name], signal.SIGKILL)
    return heights
