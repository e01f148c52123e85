"""`wattpact demo`: one evening peak on a complete local network, from signal to checked bills.

Makes the network (network.py), starts the same daemons a deployment runs as child processes, watches the event through
their status files, stops them, and judges the result: replay of all chains, conservation, every signed reading final,
and the independent verifier. Exit code 0 only if every check held; 1 if one failed; 130 after Ctrl-C (all children are
stopped and a later run in the same directory goes on).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from watt_rig import mosquitto

from watt_tools import judge, network, progress
from watt_tools.children import ChildFailed, Children, command
from watt_tools.mishaps import Mishaps
from watt_tools.scenario import build

START_LEAD_MS = progress.START_LOOK_BACK_MS
"The protocol clock stands still this long: some 25 Python processes start on two cores."
BROKER_WAIT_S = 15
GATEWAY_WAIT_S = 20
"Then the plugs start anyway: they keep their readings until a gateway takes them."
DRAIN_S = 120
"After the event outboxes empty and bills are written: seconds on a quiet machine, a minute on a busy one."
DRAIN_QUIET_S = 2.5
"Status files are a second old; two of them in agreement mean that nothing is on its way."
RUN_MAX_S = 600
"Bound of the whole run: a network that has not closed its event by then is broken, and the logs say where."
HOMES_MIN, HOMES_MAX = 24, 200
AREAS_MAX = 4
SPEED_MAX = 600
"Above this the shortest phase is shorter than two block times of a busy two-core machine."


class DemoFailed(Exception):
    """The demo cannot go on; the text is for the person who started it."""


@dataclass(frozen=True)
class Options:
    """What the command line says, validated."""

    folder: Path
    as_json: bool
    speed: int
    homes: int
    areas: int
    broker: str
    fresh: bool
    seed: int | None
    calm: bool

    @staticmethod
    def from_arguments(chosen: argparse.Namespace) -> Options:
        """Raises SystemExit(2) with the value and the limit when an argument is out of range."""
        for name, value, low, high in (
            ("--homes", chosen.homes, HOMES_MIN, HOMES_MAX),
            ("--areas", chosen.areas, 1, AREAS_MAX),
            ("--speed", chosen.speed, 1, SPEED_MAX),
        ):
            if not low <= value <= high:
                print(f"wattpact demo: {name} {value} is outside {low}..{high}", file=sys.stderr)
                raise SystemExit(2)
        return Options(
            chosen.dir.absolute(),
            chosen.json,
            chosen.speed,
            chosen.homes,
            chosen.areas,
            chosen.broker,
            chosen.fresh,
            chosen.seed,
            chosen.calm,
        )


def run(options: Options) -> int:
    """Run or resume the demo; see the module text for exit codes."""
    say = progress.Reporter(quiet=options.as_json)
    _turn_signals_into_interrupt()
    try:
        net = _open(options, say)
        if not (options.folder / "done.json").exists():
            _play(options, net, say)
        else:
            say.line(f"The evening in {_shown(options.folder)} is complete; --fresh plays a new one.")
        return judge.report(net, as_json=options.as_json)
    except (DemoFailed, ChildFailed, FileExistsError) as error:
        print(f"wattpact demo: {error}", file=sys.stderr)
        return 1


def _open(options: Options, say: progress.Reporter) -> network.Network:
    if options.fresh and options.folder.exists():
        if not (options.folder / "network.json").exists():
            raise DemoFailed(f"{options.folder} is not a demo directory; --fresh removes only those")
        shutil.rmtree(options.folder)
    resumed, complete = ((options.folder / name).exists() for name in ("network.json", "done.json"))
    scenario = build(homes=options.homes, areas=options.areas, hamlet=options.areas > 1)
    micropython, node = find_micropython(), find_node()
    if not micropython:
        if not node:
            raise DemoFailed("no MicroPython interpreter: `make install` brings one (or set WATTPACT_MICROPYTHON)")
        say.line("No MicroPython wheel for this machine: the plugs run on the WASM build of MicroPython.")
    net = network.make(options.folder, scenario, micropython=micropython, wasm_node=node, seed=options.seed)
    real = sum(1 for home in net.homes if home["interpreter"] != "cpython")
    masters, stations = network.MASTERS, net.areas * network.NODES_PER_AREA
    state = "Finished" if complete else "Resuming" if resumed else "New"
    say.line(
        f"{state} network in {_shown(options.folder)}: {len(net.homes)} homes "
        f"({real} with the real firmware on real MicroPython), {net.areas} areas of {network.NODES_PER_AREA} stations "
        f"({stations} processes), {masters} masters, broker: {options.broker}"
    )
    return net


def _play(options: Options, net: network.Network, say: progress.Reporter) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    children = Children(options.folder / "pids.json", environment)
    try:
        start_broker(options.broker, net, children)
        net.start_clock(options.speed, START_LEAD_MS)
        start_daemons(net, children)
        spec = json.loads((options.folder / "main/event.json").read_text())
        _watch(net, children, Mishaps(net, children, not options.calm), spec, say)
        _drain(net, children, say)
    except KeyboardInterrupt:
        say.line("Interrupted: stopping every daemon; the same command goes on from here.")
        raise
    finally:
        net_has_clock = (options.folder / "clock.json").exists()
        if net_has_clock:
            net.save_clock()
        for first in ("rig", "gateway", "area", "main"):  # the broker last: nobody should wait for one that is gone
            children.stop((first,))
        children.stop()
        for note in children.notes:
            say.line(note)
        say.close()


def start_daemons(net: network.Network, children: Children) -> None:
    """Nodes and gateways first; the plugs when their gateways listen, so that no first reading waits for a repeat."""
    processes = net.processes()
    for process in processes:
        if not process.name.startswith("rig"):
            children.start(process.name, command(*process.words), process.log)
    deadline_s = time.monotonic() + GATEWAY_WAIT_S
    while time.monotonic() < deadline_s and not progress.gateways_listen(net):
        children.watch()
        time.sleep(0.2)
    for process in processes:
        if process.name.startswith("rig"):
            children.start(process.name, command(*process.words), process.log)


def _watch(
    net: network.Network, children: Children, mishaps: Mishaps, spec: dict[str, Any], say: progress.Reporter
) -> None:
    """Follow the event until the main chain says CLOSED. Raises DemoFailed when it aborts or takes too long."""
    deadline_s = time.monotonic() + RUN_MAX_S
    while True:
        children.watch()
        for note in [*children.notes, *mishaps.step()]:
            say.line(note)
        children.notes.clear()
        seen = progress.observe(net)
        say.show(seen, net.protocol_now_s(), spec)
        if seen.main_state == "CLOSED":
            mishaps.save()
            event_s = int(time.time()) - int(net.clock["machine_start_ms"]) // 1000
            say.line(f"  The event took {event_s} s at {net.clock['speed']}-fold speed; books are closed.")
            return
        if seen.main_state == "ABORTED" or seen.aborted:
            raise DemoFailed(f"the event was aborted ({seen.aborted or 'main chain'}); logs: {net.folder / 'logs'}")
        if time.monotonic() > deadline_s:
            raise DemoFailed(f"the event did not close within {RUN_MAX_S} s; logs: {net.folder / 'logs'}")
        time.sleep(0.25)


def _drain(net: network.Network, children: Children, say: progress.Reporter) -> None:
    """Stop the plugs, then let gateways and nodes finish what the plugs had signed, and the bills be written."""
    children.stop(("rig",))
    deadline_s = time.monotonic() + DRAIN_S
    quiet_since_s = time.monotonic()
    while time.monotonic() < deadline_s and time.monotonic() - quiet_since_s < DRAIN_QUIET_S:
        children.watch()
        seen = progress.observe(net)
        say.show(seen, net.protocol_now_s(), None)
        if seen.unbilled or seen.across_open or not (seen.outboxes_empty and seen.level):
            quiet_since_s = time.monotonic()
        time.sleep(0.25)
    (net.folder / "done.json").write_text(json.dumps({"finished_ms": time.time_ns() // 1_000_000}))


def start_broker(kind: str, net: network.Network, children: Children) -> None:
    """Start the broker of a network, "embedded" or "mosquitto", and wait until it listens. Raises DemoFailed."""
    port = int(net.description["broker_port"])
    tls = net.folder / "tls"
    log = net.folder / "logs/broker.log"
    if kind == "mosquitto":
        binary = mosquitto.executable()
        if binary is None:
            raise DemoFailed("mosquitto is not installed (apt-get install mosquitto); or use --broker embedded")
        config = net.folder / "mosquitto.conf"
        config.write_text(
            f"listener {port} {network.HOST}\ncafile {tls}/ca.pem\n"
            f"certfile {tls}/broker.pem\nkeyfile {tls}/broker.key\n"
            "require_certificate true\nuse_identity_as_username true\nallow_anonymous false\ntls_version tlsv1.3\n"
            "persistence false\nmax_packet_size 1048576\nmax_queued_messages 1000\nlog_type error\nlog_type warning\n"
            f"user {_user_name()}\n"
        )
        children.start("broker", [binary, "-c", str(config)], log)
    else:
        words = ["rig", "broker", "--host", network.HOST, "--port", str(port)]
        words += ["--ca", f"{tls}/ca.pem", "--cert", f"{tls}/broker.pem", "--key", f"{tls}/broker.key"]
        children.start("broker", command(*words), log)
    deadline_s = time.monotonic() + BROKER_WAIT_S
    while time.monotonic() < deadline_s:
        children.watch()
        with contextlib.suppress(OSError), socket.create_connection((network.HOST, port), timeout=1):
            return
        time.sleep(0.1)
    raise DemoFailed(f"the broker does not listen on {network.HOST}:{port} after {BROKER_WAIT_S} s (log: {log})")


def _user_name() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def find_micropython() -> str:
    """Path of the MicroPython unix port: WATTPACT_MICROPYTHON, the project's own environment, or the PATH; or "".

    WATTPACT_MICROPYTHON=wasm takes none of them: the WASM build then stands in, as on a machine without the wheel.
    """
    if os.environ.get("WATTPACT_MICROPYTHON") == "wasm":
        return ""
    for candidate in (
        os.environ.get("WATTPACT_MICROPYTHON", ""),
        str(Path(__file__).parents[2] / ".venv-mpy/bin/micropython"),
        shutil.which("micropython") or "",
    ):
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    return ""


def find_node() -> str:
    """Path of a Node for the WASM interpreter, or ""."""
    beside = Path(sys.executable).parent / "node"
    return str(beside) if beside.exists() else shutil.which("node") or ""


def _turn_signals_into_interrupt() -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # SIGINT too: a shell starts background jobs with it ignored, and a demo nobody can stop would leave 20 daemons.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _shown(folder: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(folder.relative_to(Path.cwd()))
    return str(folder)
