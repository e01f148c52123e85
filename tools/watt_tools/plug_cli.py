"""The `wattpact plug` subcommands: what an installer does with one plug."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

Commands = argparse._SubParsersAction  # the only name argparse has for it
PORT_HELP = "/dev/ttyUSB0, a pseudo-terminal, or socket://host:port"


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add `plug` to the command line."""
    plug = commands.add_parser("plug", help="flash, provision, watch, calibrate and update a plug")
    actions = plug.add_subparsers(metavar="ACTION", required=True)
    _add_board(actions)
    _add_flash(actions)
    _add_provision(actions)
    _add_monitor(actions)
    _add_calibrate(actions)
    _add_bundle(actions)
    _add_update(actions)


def _add_board(actions: Commands[argparse.ArgumentParser]) -> None:
    board = actions.add_parser("board", help="make what a new plug gets beside the firmware: board, printed code, keys")
    board.add_argument("--model", required=True, help="esp32-pzem or athom-plug-v3 (firmware/README.md)")
    board.add_argument("--rated-w", type=int, default=0, metavar="W", help="of the plug, where it is not the model's")
    board.add_argument("--release", type=Path, action="append", required=True, metavar="PUB", help="three times")
    board.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder for this plug alone")
    board.add_argument("--json", action="store_true")
    board.set_defaults(handler=guarded(_board))
    release = actions.add_parser("release-key", help="a key for one of the three offices that release firmware")
    release.add_argument("--out", type=Path, required=True, metavar="FILE", help="the public key goes beside it, .pub")
    release.set_defaults(handler=guarded(_release_key))


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


def _add_provision(actions: Commands[argparse.ArgumentParser]) -> None:
    provision = actions.add_parser("provision", help="take a new plug into a household, over Bluetooth")
    provision.add_argument("--scan", action="store_true", help="only list the plugs that wait to be paired")
    provision.add_argument("--code", help="the code printed on the plug (asked for when absent)")
    provision.add_argument("--address", default="", help="Bluetooth address; needed when several plugs are in the air")
    provision.add_argument("--name", default="plug", help="the household's name for it, [a-z0-9-]{1,32}")
    provision.add_argument("--gateway", type=Path, metavar="FILE", help="the household's gateway.toml")
    provision.add_argument("--authority", type=Path, metavar="DIR", help="ca.pem and ca.key that certify plugs")
    provision.add_argument("--wifi", default="", help="Wi-Fi name; password by prompt or WATTPACT_WIFI_PASSWORD")
    provision.add_argument("--broker", default="", metavar="HOST[:PORT]", help="as the plug reaches it")
    provision.add_argument("--party", action="append", default=[], metavar="N=KEY", help="who may sign commands")
    provision.add_argument("--rig", type=Path, metavar="DIR", help="a plug of the bench running in DIR instead")
    provision.add_argument("--json", action="store_true")
    provision.set_defaults(handler=guarded(_provision))


def _add_monitor(actions: Commands[argparse.ArgumentParser]) -> None:
    monitor = actions.add_parser("monitor", help="show what a plug says on its console, without stopping it")
    monitor.add_argument("--port", required=True, help=PORT_HELP)
    monitor.add_argument("--seconds", type=float, default=0, help="end after so long (default: Ctrl-C)")
    monitor.add_argument("--json", action="store_true", help="a JSON object a line")
    monitor.set_defaults(handler=guarded(_monitor))
    status = actions.add_parser("status", help="what a plug is and has made; stops it for a second")
    status.add_argument("--port", required=True, help=PORT_HELP)
    status.add_argument("--no-start", action="store_true", help="leave the plug at its prompt")
    status.add_argument("--json", action="store_true")
    status.set_defaults(handler=guarded(_status))


def _add_calibrate(actions: Commands[argparse.ArgumentParser]) -> None:
    calibrate = actions.add_parser("calibrate", help="gains against a reference meter on the same resistive load")
    calibrate.add_argument("--port", required=True, help=PORT_HELP)
    calibrate.add_argument("--reference", required=True, help="serial number of the reference")
    calibrate.add_argument("--operator", required=True, help="who does it")
    calibrate.add_argument("--modbus", metavar="HOST[:PORT]|LINE", help="a Modbus reference, on a network or a line")
    calibrate.add_argument("--map", default="sdm120", help="its map (default sdm120)")
    calibrate.add_argument("--unit", type=int, default=1)
    calibrate.add_argument("--voltage-mv", type=int, help="or what the reference shows, typed in")
    calibrate.add_argument("--power-mw", type=int)
    calibrate.add_argument("--json", action="store_true")
    calibrate.set_defaults(handler=guarded(_calibrate))


def _add_bundle(actions: Commands[argparse.ArgumentParser]) -> None:
    bundle = actions.add_parser("bundle", help="build a firmware bundle and sign it with two of three release keys")
    bundle.add_argument("--out", type=Path, required=True, metavar="FILE")
    bundle.add_argument("--release", type=int, required=True)
    bundle.add_argument("--march", default="xtensawin", help="processor, in mpy-cross's words (default xtensawin)")
    bundle.add_argument("--key", type=Path, action="append", required=True, metavar="FILE", help="twice")
    bundle.set_defaults(handler=guarded(_bundle))


def _add_update(actions: Commands[argparse.ArgumentParser]) -> None:
    update = actions.add_parser("update", help="bring a signed bundle into a plug, by its gateway or by cable")
    update.add_argument("--bundle", type=Path, required=True, metavar="FILE", help="made by `wattpact plug bundle`")
    update.add_argument("--port", help=f"by cable: {PORT_HELP}")
    update.add_argument(
        "--gateway", type=Path, metavar="FILE", help="by the household's running gateway: its TOML file"
    )
    update.add_argument("--plug", metavar="NAME|ID", help="which plug of the gateway")
    update.add_argument("--wait", type=float, default=900, help="seconds to follow it over the gateway (900)")
    update.add_argument("--json", action="store_true")
    update.set_defaults(handler=guarded(_update))


def guarded(handler: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Turn the world's errors into one line and exit code 1."""

    def run(chosen: argparse.Namespace) -> int:
        from watt_gateway.registry import RegistryError
        from watt_node.config import ConfigError

        from watt_tools import plug_board, plug_bundle, plug_calibrate, plug_flash, plug_link, plug_monitor, plug_pair
        from watt_tools.plug_tree import TreeError
        from watt_tools.plug_update import UpdateError

        try:
            return handler(chosen)
        except (
            plug_board.BoardError,
            plug_bundle.BundleError,
            plug_calibrate.CalibrationError,
            plug_flash.FlashError,
            plug_link.LinkError,
            plug_monitor.MonitorError,
            plug_pair.PairingError,
            TreeError,
            UpdateError,
            RegistryError,
            ConfigError,
            OSError,
        ) as error:
            print(f"wattpact plug: {error}", file=sys.stderr)
            return 1

    return run


def _board(chosen: argparse.Namespace) -> int:
    from watt_tools import plug_board

    code = plug_board.make(chosen.out, chosen.model, chosen.rated_w, chosen.release)
    if chosen.json:
        print(json.dumps({"folder": str(chosen.out), "code": code}))
    else:
        print(f"{chosen.out}: board.json, release.bin, code.txt; print on the plug: {plug_board.label(code)}")
    return 0


def _release_key(chosen: argparse.Namespace) -> int:
    from watt_tools import plug_board

    print(f"{chosen.out}: keep it offline; the plugs get {plug_board.new_release_key(chosen.out)}")
    return 0


def _provision(chosen: argparse.Namespace) -> int:
    from watt_tools import plug_pair, plug_provision

    if chosen.scan:
        found = plug_provision.find(chosen.rig)
        if chosen.json:
            print(json.dumps([asdict(plug) for plug in found], indent=1))
        for plug in [] if chosen.json else found:
            print(f"{plug.address}  {plug.name}  {plug.rssi} dBm")
        return 0 if found else 1
    if chosen.rig is not None:
        target = plug_provision.of_rig(chosen.rig, chosen.name)
    elif chosen.gateway is not None and chosen.authority is not None:
        wifi = (chosen.wifi, os.environ.get("WATTPACT_WIFI_PASSWORD") or getpass.getpass("Wi-Fi password: "))
        parties = [_party(text) for text in chosen.party]
        target = plug_provision.of_gateway(
            chosen.gateway, chosen.authority, wifi, chosen.broker, parties, int(time.time())
        )
    else:
        raise plug_pair.PairingError("name the household: --gateway FILE and --authority DIR, or --rig DIR")
    code = plug_pair.code_of_label(chosen.code or getpass.getpass("printed code: "))
    new = asyncio.run(plug_provision.over_the_air(target, code, chosen.name, chosen.address))
    if chosen.json:
        said = {"plug": new.plug_id.hex(), "public": new.public.hex(), "key_class": new.key_class}
        print(json.dumps({**said, "rated_w": new.rated_w, "firmware": new.firmware_hash.hex()}, indent=1))
    else:
        print(f"plug {new.plug_id.hex()} ({chosen.name}): key class {new.key_class}, {new.rated_w} W, enrolled")
    return 0


def _party(text: str) -> tuple[int, bytes]:
    from watt_tools import plug_pair

    number, _, public = text.partition("=")
    try:
        return int(number), bytes.fromhex(public)
    except ValueError:
        raise plug_pair.PairingError(f"--party {text!r}: allowed is NUMBER=128 hex digits") from None


def _monitor(chosen: argparse.Namespace) -> int:
    from watt_tools import plug_monitor

    plug_monitor.monitor(chosen.port, chosen.json, chosen.seconds)
    return 0


def _status(chosen: argparse.Namespace) -> int:
    from watt_tools import plug_status

    found = plug_status.status(chosen.port, not chosen.no_start)
    print(json.dumps(found, indent=1) if chosen.json else plug_status.text(found))
    return 0


def _calibrate(chosen: argparse.Namespace) -> int:
    from watt_gateway.config import ModbusSection

    from watt_tools import plug_calibrate

    reference: plug_calibrate.Measured | ModbusSection
    if chosen.modbus:
        host, _, port = chosen.modbus.partition(":")
        if chosen.modbus.startswith("/"):
            reference = ModbusSection(serial=chosen.modbus, map=chosen.map, unit=chosen.unit)
        else:
            reference = ModbusSection(host=host, port=int(port or 502), map=chosen.map, unit=chosen.unit)
    elif chosen.voltage_mv and chosen.power_mw:
        current_ma = chosen.power_mw * 1000 // chosen.voltage_mv
        reference = plug_calibrate.Measured(chosen.voltage_mv, current_ma, chosen.power_mw)
    else:
        raise plug_calibrate.CalibrationError("name the reference: --modbus, or --voltage-mv and --power-mw")
    provenance = (chosen.reference, chosen.operator, time.strftime("%Y-%m-%d", time.gmtime()))
    found = plug_calibrate.calibrate(chosen.port, reference, provenance)
    if chosen.json:
        print(json.dumps(asdict(found), indent=1))
    else:
        print(f"gains in ppm: voltage {found.voltage_ppm}, current {found.current_ppm}, power {found.power_ppm}")
    return 0


def _bundle(chosen: argparse.Namespace) -> int:
    from watt_chain import crypto
    from watt_node.keys import read_secret

    from watt_tools import plug_bundle

    keys = [crypto.PrivateKey(read_secret(path)) for path in chosen.key]
    bundle = plug_bundle.build(chosen.release, chosen.march, keys)
    chosen.out.write_bytes(bundle.frame)
    print(f"{chosen.out}: release {chosen.release}, {len(bundle.frame)} bytes for {chosen.march}")
    return 0


def _update(chosen: argparse.Namespace) -> int:
    from watt_tools import plug_update

    if chosen.port and not chosen.gateway:
        release = plug_update.over_cable(chosen.port, chosen.bundle, _transfer(chosen))
        said = {"release": release, "state": "staged"}
        text = f"release {release} is staged and starts on trial: after a minute it is confirmed, or the plug goes back"
    elif chosen.gateway and chosen.plug and not chosen.port:
        release = plug_update.over_gateway(chosen.gateway, chosen.plug, chosen.bundle, chosen.wait, _transfer(chosen))
        said = {"release": release, "state": "confirmed"}
        text = f"plug {chosen.plug} runs release {release} and has confirmed it"
    else:
        raise plug_update.UpdateError("name the way: --port PORT, or --gateway FILE and --plug NAME")
    print(json.dumps(said) if chosen.json else text)
    return 0


def _transfer(chosen: argparse.Namespace) -> Callable[[str, int, int], None]:
    """One line that is overwritten on a terminal; a line for each new state elsewhere; nothing beside --json."""
    last = [""]

    def show(state: str, at: int, total: int) -> None:
        if chosen.json:
            return
        if sys.stdout.isatty():
            print(f"\r{state:<12} {at}/{total} bytes".ljust(60), end="\n" if state == "confirmed" else "\r", flush=True)
        elif state != last[0]:
            last[0] = state
            print(f"{state} {at}/{total}", flush=True)

    return show


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
