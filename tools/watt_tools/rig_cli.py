"""The `wattpact rig` subcommands that describe, run and steer a bench (watt_rig/benchfile.py has the file)."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from watt_tools.rig_line import ask

Commands = argparse._SubParsersAction  # the only name argparse has for it
START_S = 30
"Seconds until a detached bench must answer: brokers and interpreters start within two."
VIEW_S = 0.5
DIR = Path("rig-run")


def add(actions: Commands[argparse.ArgumentParser]) -> None:
    """Add the subcommands to `rig`."""
    up = actions.add_parser("up", help="start the bench that a TOML file describes; with a live view on a terminal")
    up.add_argument("--config", type=Path, required=True, metavar="FILE")
    up.add_argument("--detach", action="store_true", help="return when it runs; `rig down` ends it")
    down = actions.add_parser("down", help="end a running bench")
    status = actions.add_parser("status", help="what the bench shows now")
    status.add_argument("--json", action="store_true")
    view = actions.add_parser("view", help="watch a running bench")
    fault = actions.add_parser("fault", help="do something to the bench: power-cut, wifi-loss, broker-death, ...")
    fault.add_argument("name", help="power-cut, brown-out, cut-in-write, uart-noise, clock-jump, wifi-loss, button, "
                       "broker-death")  # fmt: skip
    fault.add_argument("plug", nargs="?", default="", help="the plug; not for broker-death")
    fault.add_argument("value", nargs="?", type=int, default=0, help="seconds, ppm, ms or nth write, by the fault")
    field = actions.add_parser("field", help="three plugs through a day with faults, then everything counted again")
    field.add_argument("--hours", type=int, default=24, help="world hours (default 24)")
    field.add_argument("--seed", type=int, default=1, help="of the faults (default 1)")
    field.add_argument("--speed", type=int, default=160, help="world seconds per second (default 160)")
    field.add_argument("--json", action="store_true")
    for parser, handler in (
        (field, _field),
        (up, _up),
        (down, _down),
        (status, _status),
        (view, _view),
        (fault, _fault),
    ):
        parser.add_argument("--dir", type=Path, default=DIR, help=f"where the bench lives (default {DIR})")
        parser.set_defaults(handler=handler)


def _up(chosen: argparse.Namespace) -> int:
    if chosen.detach:
        return _detach(chosen)
    from watt_node.config import ConfigError
    from watt_rig import benchfile
    from watt_rig.bluez import BluetoothError
    from watt_rig.load import LoadError
    from watt_rig.meters import MeterPortError
    from watt_rig.mosquitto import BrokerError
    from watt_rig.vplug import PlugError

    from watt_tools import rig_setup

    try:
        file = benchfile.read(chosen.config)
        bench, trust = rig_setup.make_bench(file, chosen.dir, chosen.config.resolve().parent)
        codes = {part.name: trust.code(part.name) for part in file.plugs}
        asyncio.run(_run(bench, codes, show=sys.stdout.isatty()))
    except (ConfigError, LoadError, BrokerError, BluetoothError, MeterPortError, PlugError, OSError) as error:
        print(f"wattpact rig: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(bench: Any, codes: dict[str, str], show: bool) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, bench.stop_wanted.set)
    try:
        await bench.start()
        if not show:
            for name, code in codes.items():
                print(f"plug {name}: port {bench.plugs[name].port}, code {code}", flush=True)
            await bench.run()
            return
        from watt_tools.rig_view import live

        watching = asyncio.create_task(bench.run())
        with live() as screen:
            while not watching.done():
                screen.show(bench.status(), codes)
                await asyncio.wait([watching], timeout=VIEW_S)
    finally:
        await bench.stop()


def _detach(chosen: argparse.Namespace) -> int:
    chosen.dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "watt_tools.cli", "rig", "up", "--config", str(chosen.config)]
    with (chosen.dir / "rig.log").open("ab") as log:
        child = subprocess.Popen(
            [*command, "--dir", str(chosen.dir)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    end = time.monotonic() + START_S
    while time.monotonic() < end and child.poll() is None:
        try:
            if ask(chosen.dir, {"do": "status"}).get("pid") == child.pid:
                print(f"the bench runs in {chosen.dir} (process {child.pid}); wattpact rig down ends it")
                return 0
        except (OSError, ValueError):
            time.sleep(0.2)
    print(f"wattpact rig: the bench did not start; see {chosen.dir / 'rig.log'}", file=sys.stderr)
    return 1


def _request(chosen: argparse.Namespace, request: dict[str, object]) -> dict[str, Any] | None:
    try:
        answer = ask(chosen.dir, request)
    except (OSError, ValueError):
        print(f"wattpact rig: no bench runs in {chosen.dir}", file=sys.stderr)
        return None
    if "error" in answer:
        print(f"wattpact rig: {answer['error']}", file=sys.stderr)
        return None
    return answer


def _down(chosen: argparse.Namespace) -> int:
    answer = _request(chosen, {"do": "down"})
    if answer is None:
        return 1
    end = time.monotonic() + START_S
    while (chosen.dir / "rig.sock").exists() and time.monotonic() < end:
        time.sleep(0.1)
    print(answer["done"])
    return 0


def _fault(chosen: argparse.Namespace) -> int:
    answer = _request(chosen, {"do": "fault", "name": chosen.name, "plug": chosen.plug, "value": chosen.value})
    if answer is None:
        return 1
    print(answer["done"])
    return 0


def _status(chosen: argparse.Namespace) -> int:
    answer = _request(chosen, {"do": "status"})
    if answer is None:
        return 1
    if chosen.json:
        print(json.dumps(answer, indent=1))
    else:
        from watt_tools.rig_view import once

        once(answer)
    return 0


def _view(chosen: argparse.Namespace) -> int:
    from watt_tools.rig_view import live

    with live() as screen:
        while True:
            answer = _request(chosen, {"do": "status"})
            if answer is None:
                return 1
            screen.show(answer, {})
            time.sleep(VIEW_S)


def _field(chosen: argparse.Namespace) -> int:
    from watt_tools import field

    options = field.Options(chosen.dir, chosen.hours, chosen.seed, chosen.speed)
    return field.main(options, chosen.json)
