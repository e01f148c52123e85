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
SPEED = os.environ.get("EVENING_SPEED", "200")
"Protocol seconds per second; a machine that is busy with other things wants 100."
RUN_MAX_S = 400


@dataclass
class Evening:
    folder: Path
    data: dict[str, Any]
    code: int
    killed: dict[str, int]
    "Victim -> height its area had when it was killed."


def play(folder: Path, *, kill: bool, broker: str = "embedded") -> Evening:
    """`kill`: the demo kills cross-nodes (as it does by itself), and we a station of each area."""
    command = [sys.executable, "-m", "watt_tools.cli", "demo", "--dir", str(folder), "--json"]
    command += ["--seed", SEED, "--speed", SPEED]
    command += [] if kill else ["--calm"]
    killed: dict[str, int] = {}
    with (
        (folder.parent / f"{folder.name}.out").open("w+") as out,
        (folder.parent / f"{folder.name}.err").open("w+") as err,
        subprocess.Popen([*command, "--broker", broker], stdout=out, stderr=err, env=dict(os.environ)) as process,
    ):
        deadline_s = time.monotonic() + RUN_MAX_S
        while process.poll() is None and time.monotonic() < deadline_s:
            if kill and not killed:
                killed = kill_stations(folder)
            time.sleep(0.5)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        code = process.wait(timeout=60)
        out.seek(0)
        err.seek(0)
        text, errors = out.read(), err.read()
    assert text.strip(), f"no result, exit code {code}:\n{errors[-3000:]}"
    return Evening(folder, json.loads(text), code, killed)


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
