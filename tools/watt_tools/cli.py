"""The `wattpact` command: one entry point, one subcommand per role and task.

Each subcommand imports what it needs when it is called, so that a gateway never loads the solver and a station never
loads a plotting library. Exit codes: 0 success, 1 refused or a check failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from watt_tools import bench_cli, command_cli, market_cli, node_cli, plug_cli, rig_cli, sim_cli
from watt_tools.paper import cli as paper_cli

Handler = Callable[[argparse.Namespace], int]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    handler: Handler | None = getattr(chosen, "handler", None)
    if handler is None:
        parser.print_help()
        return 2
    try:
        return handler(chosen)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        role = chosen.command
        print(f"wattpact {role}: {error.name} is not installed; pip install 'wattpact[{role}]'", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wattpact",
        description="Residential demand response whose every kWh and every cent a household can prove.",
    )
    parser.add_argument("--version", action="version", version=f"wattpact {version('wattpact')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_demo(commands)
    _add_verify(commands)
    _add_daemons(commands)
    _add_rig(commands)
    _add_reading(commands)
    _add_bench(commands)
    sim_cli.add(commands)
    plug_cli.add(commands)
    command_cli.add(commands)
    market_cli.add(commands)
    paper_cli.add(commands)
    return parser


Commands = argparse._SubParsersAction  # the only name argparse has for it


def _add_demo(commands: Commands[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser("demo", help="one evening peak, end to end, on this machine")
    demo.add_argument("--dir", type=Path, default=Path("demo-run"), help="where the network lives (default demo-run)")
    demo.add_argument("--json", action="store_true", help="print the result as JSON instead of tables")
    demo.add_argument("--speed", type=int, default=200, help="protocol seconds per second (default 200)")
    demo.add_argument("--homes", type=int, default=28, help="households, 24 to 200 (default 28)")
    demo.add_argument("--areas", type=int, default=2, help="station areas, 1 to 4 (default 2)")
    demo.add_argument("--broker", choices=("embedded", "mosquitto"), default="embedded")
    demo.add_argument("--fresh", action="store_true", help="forget an earlier run in the same directory")
    demo.add_argument("--calm", action="store_true", help="kill no cross-node while trades are taken")
    demo.add_argument("--seed", type=int, help="derive all keys from a number (tests: such keys protect nothing)")

    def run(chosen: argparse.Namespace) -> int:
        from watt_tools import demo as module

        return module.run(module.Options.from_arguments(chosen))

    demo.set_defaults(handler=run)


def _add_verify(commands: Commands[argparse.ArgumentParser]) -> None:
    verify = commands.add_parser("verify", help="re-compute an exported run with the independent verifier")
    verify.add_argument("dir", type=Path, help="a demo directory: DIR/export and DIR/trust/regulator.pub")
    verify.add_argument("--regulator", help="the regulator's public key, 128 hex digits (default DIR/trust)")
    verify.add_argument("--json", action="store_true")

    def run(chosen: argparse.Namespace) -> int:
        from watt_tools import verify as module

        return module.main(chosen.dir, chosen.regulator, as_json=chosen.json)

    verify.set_defaults(handler=run)


def _add_daemons(commands: Commands[argparse.ArgumentParser]) -> None:
    def gateway(chosen: argparse.Namespace) -> int:
        from watt_gateway import service

        return service.run(chosen.config)

    def doctor(chosen: argparse.Namespace) -> int:
        from watt_gateway import doctor as module

        return module.run(chosen.config)

    def init(chosen: argparse.Namespace) -> int:
        from watt_gateway import init as module

        return module.run(chosen.dir, chosen.name)

    def plugs(chosen: argparse.Namespace) -> int:
        from watt_gateway import plugs as module

        return module.run(chosen.config, chosen.limit, chosen.json)

    node_cli.add(commands)
    gateway_actions = commands.add_parser("gateway", help="a household gateway: readings, outbox, app")
    actions = gateway_actions.add_subparsers(metavar="ACTION", required=True)
    run = actions.add_parser("run", help="run one or several gateways in the foreground")
    run.add_argument("--config", type=Path, required=True, action="append", metavar="FILE")
    run.set_defaults(handler=gateway)
    check = actions.add_parser("doctor", help="check the configuration, the keys, the stores and the brokers")
    check.add_argument("--config", type=Path, required=True, metavar="FILE")
    check.set_defaults(handler=doctor)
    listing = actions.add_parser("plugs", help="each plug: what it told last, its signed events, its commands")
    listing.add_argument("--config", type=Path, required=True, metavar="FILE")
    listing.add_argument("--limit", type=int, default=20, help="newest events and commands of each (20)")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(handler=plugs)
    start = actions.add_parser("init", help="write a configuration and a household key to fill in")
    start.add_argument("--dir", type=Path, required=True)
    start.add_argument("--name", required=True, help="household name, [a-z0-9-]{1,32}")
    start.set_defaults(handler=init)


def _add_rig(commands: Commands[argparse.ArgumentParser]) -> None:
    rig = commands.add_parser("rig", help="the bench: emulated meter chips, plugs, broker")
    actions = rig.add_subparsers(metavar="ACTION", required=True)
    plugs = actions.add_parser("plugs", help="run the plugs of a bench (real firmware, emulated meter chips)")
    plugs.add_argument("--config", type=Path, required=True, action="append", metavar="FILE")
    broker = actions.add_parser("broker", help="run the embedded MQTT broker with mutual TLS")
    broker.add_argument("--host", default="127.0.0.1")
    broker.add_argument("--port", type=int, default=8883)
    for name in ("ca", "cert", "key"):
        broker.add_argument(f"--{name}", type=Path, required=True)

    def run_plugs(chosen: argparse.Namespace) -> int:
        from watt_rig import service

        return service.run(chosen.config)

    def run_broker(chosen: argparse.Namespace) -> int:
        from watt_tools import broker as module

        return module.run(chosen.host, chosen.port, chosen.ca, chosen.cert, chosen.key)

    plugs.set_defaults(handler=run_plugs)
    broker.set_defaults(handler=run_broker)
    rig_cli.add(actions)


def _add_reading(commands: Commands[argparse.ArgumentParser]) -> None:
    export = commands.add_parser("export", help="write DIR/export from the stores of a stopped network")
    export.add_argument("dir", type=Path)
    bill = commands.add_parser("bill", help="show one household's bill and where its proofs are")
    bill.add_argument("dir", type=Path, help="a demo directory")
    bill.add_argument("home", nargs="?", help="household name (default: list all)")
    bill.add_argument("--json", action="store_true")

    def run_export(chosen: argparse.Namespace) -> int:
        from watt_tools import export as module

        return module.main(chosen.dir)

    def run_bill(chosen: argparse.Namespace) -> int:
        from watt_tools import bill as module

        return module.main(chosen.dir, chosen.home, as_json=chosen.json)

    trace = commands.add_parser("trace", help="the regulator's view of a transaction or a contract, with proofs")
    trace.add_argument("dir", type=Path)
    trace.add_argument("what", metavar="TXID|AREA/EVENT/NUMBER", help="AREA 0: a trade across areas")
    trace.add_argument("--master", type=int, default=0, help="whose archive to read (default 0)")

    def run_trace(chosen: argparse.Namespace) -> int:
        from watt_tools import trace as module

        return module.main(chosen.dir, chosen.what, chosen.master)

    trace.set_defaults(handler=run_trace)
    export.set_defaults(handler=run_export)
    bill.set_defaults(handler=run_bill)


def _add_bench(commands: Commands[argparse.ArgumentParser]) -> None:
    bench = commands.add_parser("bench", help="figures, as ratios to a limit of the same run")
    actions = bench.add_subparsers(metavar="WHAT", required=True)
    bench_cli.add(actions)


if __name__ == "__main__":
    raise SystemExit(main())
