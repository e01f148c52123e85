"""The `wattpact plug` subcommands: what an installer does with one plug."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

Commands = argparse._SubParsersAction  # the only name argparse has for it
PORT_HELP = "/dev/ttyUSB0, a pseudo-terminal, or socket://host:port"


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add `plug` to the command line."""
    plug = commands.add_parser("plug", help="flash, provision, watch, calibrate and update a plug")
    actions = plug.add_subparsers(metavar="ACTION", required=True)
    _add_flash(actions)


def _add_flash(actions: Commands[argparse.ArgumentParser]) -> None:
    flash = actions.add_parser("flash", help="bring a plug to this firmware, by cable; sends what differs")
    flash.add_argument("--port", required=True, action="append", metavar="PORT", help=PORT_HELP)
    flash.add_argument("--config", type=Path, metavar="DIR", help="folder with config.json, keys and certificates")
    flash.add_argument("--all", action="store_true", help="send every file, also those the plug holds already")
    flash.add_argument("--source", action="store_true", help="send .py files instead of compiled ones")
    flash.add_argument("--no-start", action="store_true", help="leave the plug at its prompt")
    flash.add_argument("--base", type=Path, metavar="BIN", help="first write MicroPython itself, with esptool")
    flash.add_argument("--chip", default="esp32", help="chip of --base (default esp32)")
    flash.add_argument("--baud", type=int, default=460800, help="baud rate of --base (default 460800)")
    flash.add_argument("--esptool", action="append", default=[], metavar="ARG", help="further argument of esptool")
    flash.add_argument("--json", action="store_true")
    flash.set_defaults(handler=guarded(_flash))


def guarded(handler: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Turn the world's errors into one line and exit code 1."""

    def run(chosen: argparse.Namespace) -> int:
        from watt_tools import plug_flash, plug_link, plug_tree

        try:
            return handler(chosen)
        except (plug_flash.FlashError, plug_link.LinkError, plug_tree.TreeError, OSError) as error:
            print(f"wattpact plug: {error}", file=sys.stderr)
            return 1

    return run


def _flash(chosen: argparse.Namespace) -> int:
    from watt_tools import plug_flash

    results = []
    for port in chosen.port:
        if chosen.base is not None:
            plug_flash.flash_base(port, chosen.base, chosen.chip, chosen.baud, chosen.esptool)
            _say(chosen, f"{port}: base image written and verified")
        result = plug_flash.flash(
            port,
            config=chosen.config,
            whole=chosen.all,
            as_source=chosen.source,
            start=not chosen.no_start,
            progress=_progress(chosen, port),
        )
        results.append(asdict(result))
        _say(
            chosen,
            f"{port}: {result.machine}, {result.march}: {result.sent} files sent ({result.sent_bytes} bytes), "
            f"{result.unchanged} unchanged, {result.removed} removed, {result.verified} verified in {result.seconds} s",
        )
        _say(chosen, f"{port}: firmware {result.firmware_hash}")
    if chosen.json:
        print(json.dumps(results, indent=1))
    return 0


def _progress(chosen: argparse.Namespace, port: str) -> Callable[[int, int, str], None]:
    """A line that is overwritten on a terminal; every tenth file elsewhere; nothing beside --json."""

    def show(number: int, count: int, path: str) -> None:
        if chosen.json:
            return
        text = f"{port}: {number}/{count} {path}"
        if sys.stdout.isatty():
            print(f"\r{text:<78.78}", end="\r" if number < count else "\n", flush=True)
        elif number % 10 == 0 or number == count:
            print(text, flush=True)

    return show


def _say(chosen: argparse.Namespace, text: str) -> None:
    if not chosen.json:
        print(text, flush=True)
