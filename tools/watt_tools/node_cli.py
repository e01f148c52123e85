"""The words of `wattpact station` and `wattpact master`: run, and what is done by hand to a node's folder."""

from __future__ import annotations

import argparse
from pathlib import Path

Commands = argparse._SubParsersAction  # the only name argparse has for it


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add both daemons."""
    _add_station(commands.add_parser("station", help="a station-area node: the alliance chain of one area"))
    _add_master(commands.add_parser("master", help="a master node: main chain, market, settlement"))
    _add_audit(
        commands.add_parser("audit", help="the regulator's read-only node: executes everything, signs checkpoints")
    )


def _action(actions: Commands[argparse.ArgumentParser], name: str, help_text: str) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=help_text, description=help_text)
    action.add_argument("--config", type=Path, required=True, metavar="FILE")
    return action


def _doctor(actions: Commands[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    doctor = _action(actions, "doctor", "whose vote is missing and why; keys, certificates, disk, ports, the others")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    return doctor


def _storage(actions: Commands[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    storage = _action(
        actions, "storage", "bytes on disk by kind: blocks, votes, state, what trading across areas needs"
    )
    storage.add_argument("--json", action="store_true")
    return storage


def _by_hand(
    actions: Commands[argparse.ArgumentParser],
) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser, argparse.ArgumentParser]:
    """export, import, accept-disk, with what both daemons understand."""
    out = _action(actions, "export", "write a chain's certified blocks to a file, also while the node runs")
    out.add_argument("--out", type=Path, required=True, metavar="FILE")
    out.add_argument("--from", dest="first", type=int, default=1, metavar="HEIGHT", help="first height (default 1)")
    out.add_argument("--to", dest="last", type=int, metavar="HEIGHT", help="last height (default: all there are)")
    into = _action(actions, "import", "check and execute the blocks of a file, and keep them; the node must not run")
    into.add_argument("file", type=Path, help="as `export` writes it, or chain-<id>.blocks of an export")
    accept = _action(actions, "accept-disk", "end the doubt of a node whose disk was moved or restored (dangerous)")
    accept.add_argument("--yes", action="store_true", help="this disk is the newest that exists of this node")
    return out, into, accept


def _add_station(station: argparse.ArgumentParser) -> None:
    def run(chosen: argparse.Namespace) -> int:
        from watt_station import service

        return service.run(chosen.config)

    def take_out(chosen: argparse.Namespace) -> int:
        from watt_station import byhand

        return byhand.run_export(chosen.config, chosen.out, chosen.first, chosen.last)

    def take_in(chosen: argparse.Namespace) -> int:
        from watt_station import byhand

        return byhand.run_import(chosen.config, chosen.file)

    def accept(chosen: argparse.Namespace) -> int:
        from watt_station import byhand

        return byhand.run_accept_disk(chosen.config, chosen.yes)

    def storage(chosen: argparse.Namespace) -> int:
        from watt_station import byhand

        return byhand.run_storage(chosen.config, as_json=chosen.json)

    def resume(chosen: argparse.Namespace) -> int:
        from watt_station import byhand

        return byhand.run_resume(chosen.config, chosen.word)

    def doctor(chosen: argparse.Namespace) -> int:
        from watt_station import doctor as module

        return module.run(chosen.config, as_json=chosen.json)

    actions = station.add_subparsers(metavar="ACTION", required=True)
    _action(actions, "run", "run the daemon in the foreground").set_defaults(handler=run)
    _doctor(actions).set_defaults(handler=doctor)
    _storage(actions).set_defaults(handler=storage)
    for action, handler in zip(_by_hand(actions), (take_out, take_in, accept), strict=True):
        action.set_defaults(handler=handler)
    going_on = _action(
        actions, "resume", "go on under the list that the regulator gives a readmitted area; not while running"
    )
    going_on.add_argument("word", type=Path, help="the regulator's Resume transaction")
    going_on.set_defaults(handler=resume)


def _add_audit(audit: argparse.ArgumentParser) -> None:
    def run(chosen: argparse.Namespace) -> int:
        from watt_master import audit as module

        return module.run(chosen.config)

    def show(chosen: argparse.Namespace) -> int:
        from watt_master import audit as module

        return module.show(chosen.config, as_json=chosen.json)

    def accuse(chosen: argparse.Namespace) -> int:
        from watt_master import accuse as module

        return module.run(chosen.config, chosen.key, chosen.proof, chosen.wait, as_json=chosen.json)

    def readmit(chosen: argparse.Namespace) -> int:
        from watt_master import readmit as module

        return module.run(
            chosen.config, chosen.chain, chosen.validators, chosen.key, chosen.out, chosen.wait, as_json=chosen.json
        )

    actions = audit.add_subparsers(metavar="ACTION", required=True)
    _action(actions, "run", "run the auditor in the foreground").set_defaults(handler=run)
    showing = _action(actions, "show", "what it has followed and found wrong; exit code 1 if anything")
    showing.add_argument("--json", action="store_true")
    showing.set_defaults(handler=show)
    accusing = _action(
        actions, "accuse", "bring the proof of a fork before the main chain: its area goes into quarantine"
    )
    accusing.add_argument("proof", type=Path, help="DATA/proof-fork-CHAIN-HEIGHT, as the auditor has left it")
    accusing.add_argument("--key", type=Path, required=True, metavar="FILE", help="of an office, as the regulator's")
    accusing.add_argument("--wait", type=int, default=60, metavar="S", help="for the block that holds the call (60)")
    accusing.add_argument("--json", action="store_true")
    accusing.set_defaults(handler=accuse)
    back = _action(
        actions, "readmit", "give an area in quarantine other validators, and write the word they begin with"
    )
    back.add_argument("--chain", type=int, required=True, metavar="N", help="number of the area")
    back.add_argument(
        "--validators", type=Path, required=True, metavar="FILE", help="[[validators]] with name and public, in TOML"
    )
    back.add_argument("--key", type=Path, required=True, metavar="FILE", help="the regulator's")
    back.add_argument("--out", type=Path, required=True, metavar="FILE", help="for the word: `wattpact station resume`")
    back.add_argument("--wait", type=int, default=60, metavar="S", help="for the block that holds the call (60)")
    back.add_argument("--json", action="store_true")
    back.set_defaults(handler=readmit)


def _add_master(master: argparse.ArgumentParser) -> None:
    def run(chosen: argparse.Namespace) -> int:
        from watt_master import service

        return service.run(chosen.config)

    def take_out(chosen: argparse.Namespace) -> int:
        from watt_master import byhand

        return byhand.run_export(chosen.config, chosen.out, chosen.chain, chosen.first, chosen.last)

    def take_in(chosen: argparse.Namespace) -> int:
        from watt_master import byhand

        return byhand.run_import(chosen.config, chosen.file, chosen.chain)

    def accept(chosen: argparse.Namespace) -> int:
        from watt_master import byhand

        return byhand.run_accept_disk(chosen.config, chosen.yes)

    def storage(chosen: argparse.Namespace) -> int:
        from watt_master import byhand

        return byhand.run_storage(chosen.config, as_json=chosen.json)

    def doctor(chosen: argparse.Namespace) -> int:
        from watt_master import doctor as module

        return module.run(chosen.config, as_json=chosen.json)

    actions = master.add_subparsers(metavar="ACTION", required=True)
    _action(actions, "run", "run the daemon in the foreground").set_defaults(handler=run)
    _doctor(actions).set_defaults(handler=doctor)
    _storage(actions).set_defaults(handler=storage)
    by_hand = _by_hand(actions)
    for action in by_hand[:2]:
        action.add_argument("--chain", type=int, default=0, metavar="N", help="0 is the main chain (default)")
    for action, handler in zip(by_hand, (take_out, take_in, accept), strict=True):
        action.set_defaults(handler=handler)
