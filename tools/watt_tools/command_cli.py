"""The `wattpact command` subcommands: how two offices switch one deferrable plug, and hear what became of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

Commands = argparse._SubParsersAction  # the only name argparse has for it
CONNECT_S = 10
WAIT_S = 60


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add `command` to the command line."""
    group = commands.add_parser("command", help="switch a plug: drafted, signed by two offices, sent, answered")
    actions = group.add_subparsers(metavar="ACTION", required=True)
    draft = actions.add_parser("draft", help="write a command that two offices are to sign")
    draft.add_argument("--plug", required=True, metavar="ID", help="the plug's id, 16 hex digits")
    draft.add_argument("--action", choices=("off", "on", "release"), required=True)
    draft.add_argument("--hold", type=int, default=0, metavar="S", help="how long, at most 14400; not for release")
    draft.add_argument("--spread", type=int, default=600, metavar="S", help="upper end of the random delay (600)")
    draft.add_argument("--at", type=int, metavar="UNIX", help="from when it is valid (default: now)")
    draft.add_argument("--within", type=int, default=900, metavar="S", help="how long it is valid (900)")
    draft.add_argument("--counter", type=int, help="above that of every earlier command (default: the time)")
    draft.add_argument("--reference", default="", metavar="TEXT", help="contract, event or policy that gives the right")
    draft.add_argument("--signers", default="grid,aggregator", help="two of grid, aggregator, regulator")
    draft.add_argument("--out", type=Path, required=True, metavar="FILE")
    show = actions.add_parser("show", help="what a command says and who has signed it")
    sign = actions.add_parser("sign", help="read a command and sign it with an office's key")
    sign.add_argument("--key", type=Path, required=True, metavar="FILE", help="the office's key file")
    sign.add_argument("--yes", action="store_true", help="do not ask (a script has read it)")
    send = actions.add_parser("send", help="bring a signed command to the household's gateway")
    send.add_argument("--tray", type=Path, metavar="DIR", help="the gateway's tray (STORE/tray) on this machine")
    send.add_argument("--broker", metavar="HOST:PORT", help="the area's broker")
    send.add_argument("--area", type=int, default=1, help="number of the area chain (1)")
    send.add_argument("--gateway", default="", help="name of the household's gateway in topics")
    for name in ("ca", "cert", "tls-key"):
        send.add_argument(f"--{name}", type=Path, metavar="FILE", help="of the office at the broker")
    send.add_argument("--wait", type=float, default=WAIT_S, help=f"seconds to wait for the plug's word ({WAIT_S})")
    for parser, handler in ((draft, _draft), (show, _show), (sign, _sign), (send, _send)):
        if parser is not draft:
            parser.add_argument("file", type=Path)
        parser.add_argument("--genesis", type=Path, required=parser is not show, metavar="FILE", help="genesis.bin")
        parser.add_argument("--regulator", default="", metavar="KEY", help="the regulator's public key one trusts")
        parser.set_defaults(handler=guarded(handler))


def guarded(handler: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Turn the world's errors into one line and exit code 1."""

    def run(chosen: argparse.Namespace) -> int:
        from watt_gateway.mqtt import LinkError
        from watt_node.config import ConfigError

        from watt_tools.order import OrderError

        try:
            return handler(chosen)
        except OSError as error:
            print(f"wattpact command: {error.filename}: {error.strerror}", file=sys.stderr)
            return 1
        except (OrderError, ConfigError, LinkError) as error:
            print(f"wattpact command: {error}", file=sys.stderr)
            return 1

    return run


def _draft(chosen: argparse.Namespace) -> int:
    from watt_tools import order

    network, offices = order.read_network(chosen.genesis, chosen.regulator)
    at_s = chosen.at if chosen.at is not None else int(time.time())
    first, _, second = chosen.signers.partition(",")
    wish = order.Wish(
        order.plug_id(chosen.plug),
        chosen.action,
        at_s,
        chosen.counter or int(time.time()),
        chosen.hold,
        chosen.spread,
        chosen.within,
        chosen.reference,
    )
    made = order.draft(network, offices, (first, second), wish)
    made.write(chosen.out)
    print(order.text(made, offices, network))
    return 0


def _show(chosen: argparse.Namespace) -> int:
    from watt_tools import order

    found = order.read(chosen.file)
    if chosen.genesis is None:
        print(order.text(found, None))
        return 0
    network, offices = order.read_network(chosen.genesis, chosen.regulator)
    print(order.text(found, offices, network))
    found.frame(offices)
    print("complete: two offices have signed it")
    return 0


def _sign(chosen: argparse.Namespace) -> int:
    from watt_chain import crypto
    from watt_node.keys import read_secret

    from watt_tools import order

    found = order.read(chosen.file)
    network, offices = order.read_network(chosen.genesis, chosen.regulator)
    print(order.text(found, offices, network))
    if found.command.network != network:
        raise order.OrderError("this command is for another network")
    if not chosen.yes and input("sign this command? [yes/no] ").strip().lower() != "yes":
        raise order.OrderError("not signed")
    try:
        key = crypto.PrivateKey(read_secret(chosen.key))
    except ValueError as error:
        raise order.OrderError(f"{chosen.key}: {error}") from None
    found.sign(key)
    found.write(chosen.file)
    print(f"signed as {offices.name(crypto.id8(key.public))}")
    return 0


def _send(chosen: argparse.Namespace) -> int:
    from watt_tools import order

    found = order.read(chosen.file)
    _, offices = order.read_network(chosen.genesis, chosen.regulator)
    frame = found.frame(offices)
    said = found.command
    if chosen.tray is not None:
        name = f"{said.plug_id.hex()}-{said.counter}"
        chosen.tray.mkdir(parents=True, exist_ok=True)
        fresh = chosen.tray / f"{name}.new"
        fresh.write_bytes(frame)
        fresh.replace(chosen.tray / f"{name}.command")
        print(f"in the tray: {name}.command")
        return 0
    if not chosen.broker or not chosen.gateway:
        raise order.OrderError("name the way: --tray DIR, or --broker HOST:PORT and --gateway NAME")
    return asyncio.run(_by_broker(chosen, frame, said.plug_id, said.counter))


async def _by_broker(chosen: argparse.Namespace, frame: bytes, plug: bytes, counter: int) -> int:
    """Publish, then print what the gateway says of this command until it has ended; 0 only if the plug obeys."""
    from watt_gateway.lines import Lines
    from watt_gateway.mqtt import Link
    from watt_node.config import ConfigError, MqttSection
    from watt_node.log import Log
    from watt_node.names import chain_name
    from watt_wire import topics
    from watt_wire.errors import EncodeError

    from watt_tools.order import OrderError

    host, _, port = chosen.broker.rpartition(":")
    try:
        section = MqttSection(host=host, port=int(port), ca=chosen.ca, cert=chosen.cert, key=chosen.tls_key)
        area = chain_name(chosen.area)
        outcome, topic = topics.area_outcome(area, chosen.gateway), topics.area_command(area, chosen.gateway)
    except (ValueError, ConfigError, EncodeError) as error:
        raise OrderError(f"--broker {chosen.broker}, --gateway {chosen.gateway}: {error}") from None
    heard: asyncio.Queue[dict[str, object]] = asyncio.Queue(64)
    link = Link("office", f"office-{counter}", section, [outcome], _into(heard), Lines(Log("command", "error")))
    up = asyncio.Event()
    link.when_up(up.set)
    link.start()
    try:
        await asyncio.wait_for(up.wait(), CONNECT_S)
        link.publish(topic, frame)
        end = time.monotonic() + chosen.wait
        while True:
            said = await asyncio.wait_for(heard.get(), max(0.1, end - time.monotonic()))
            if (said.get("plug"), said.get("counter")) != (plug.hex(), counter):
                continue
            print(f"{said.get('state')} (given to the plug {said.get('sends')} times)", flush=True)
            if said.get("state") != "waiting":
                return 0 if said.get("state") == "accepted" else 1
    except TimeoutError:
        what = "no word of the plug yet; it may still obey" if up.is_set() else "the broker does not take us"
        raise OrderError(f"{what} ({chosen.broker})") from None
    finally:
        await asyncio.to_thread(link.stop)


def _into(heard: asyncio.Queue[dict[str, object]]) -> Callable[[str, bytes], None]:
    def take(_topic: str, payload: bytes) -> None:
        try:
            said = json.loads(payload)
        except ValueError:
            return
        if isinstance(said, dict) and not heard.full():
            heard.put_nowait(said)

    return take
