"""`wattpact station doctor`, `wattpact master doctor`: everything about a node that can be seen from its machine.

It changes nothing, may run beside the node, and ends with exit code 0 only when nothing is bad. A running node is asked
over its own port, as the others are; a stopped one is read from its files. The question that matters most, whose vote
is missing and why, is answered by `diagnose`.
"""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from watt_chain.crypto import PrivateKey
from watt_chain.genesis import Genesis

from watt_node import certificates, folder
from watt_node.ask import Answer, ask_all
from watt_node.channel import tls_context
from watt_node.clock import machine_ms
from watt_node.config import ConfigError, EndpointSection
from watt_node.diagnose import PHASES, PROBLEMS, Absent, Diagnosis, diagnose
from watt_node.findings import Finding, show
from watt_node.keys import read_secret
from watt_node.names import chain_name, node_name
from watt_node.node import NodeSettings, load_genesis
from watt_node.status import read_json

LOOK_S = 2.0
"""Between two looks at a running node: whether its height grows."""
STALE_MS = 15_000
"""Three times the age that a status file of a living node can have."""


@dataclass(frozen=True, slots=True)
class Examined:
    """All that was found."""

    findings: list[Finding]
    node: str
    running: bool
    diagnosis: Diagnosis | None = None


def run(
    settings: NodeSettings, others: Sequence[EndpointSection], more: Sequence[Finding] = (), *, as_json: bool
) -> int:
    """Print what there is to say about a node; 0 when nothing is bad.

    others   nodes of other chains that it needs
    more     what only its kind of daemon has
    """
    examined = asyncio.run(examine(settings, others))
    return show([*examined.findings, *more], as_json=as_json, more=summary(examined))


def refuse(error: ConfigError, *, as_json: bool) -> int:
    """The configuration cannot be read: say so, in the doctor's form."""
    return show([Finding("bad", f"configuration: {error}", "correct that line")], as_json=as_json)


def summary(examined: Examined) -> dict[str, Any]:
    """For a script."""
    found: dict[str, Any] = {"node": examined.node, "running": examined.running}
    diagnosis = examined.diagnosis
    if diagnosis is not None:
        found |= {
            "height": diagnosis.height,
            "view": diagnosis.view,
            "phase": diagnosis.phase,
            "leader": diagnosis.leader,
            "moving": diagnosis.moving,
            "votes_needed": diagnosis.quorum,
            "able": diagnosis.able,
            "waiting_for": [{"validator": one.name, "reasons": list(one.reasons)} for one in diagnosis.waiting],
            "others": [{"validator": one.name, "reasons": list(one.reasons)} for one in diagnosis.others],
        }
    return found


async def examine(settings: NodeSettings, others: Sequence[EndpointSection]) -> Examined:
    """Everything, in the order in which it is repaired best."""
    section = settings.node
    name = node_name(section.chain, section.index)
    findings = [Finding("ok", f"configuration of {name}")]
    founded = _genesis(settings, findings)
    _key(settings, founded, findings)
    findings += certificates.look(settings.tls, name)
    findings += folder.look(section.data)
    running = folder.is_used(section.data)
    if founded is None:
        return Examined(findings, name, running)
    genesis, network = founded
    findings += folder.look_at_stores(section.data, section.chain, network, whole=not running)
    if not running:
        findings.append(_port(settings))
    try:
        context = tls_context(settings.tls, server=False)
    except ConfigError as error:
        findings.append(Finding("bad", str(error), "without its certificate the node cannot talk to anybody"))
        return Examined(findings, name, running)
    peers = [
        EndpointSection(chain=section.chain, index=peer.index, host=peer.host, port=peer.port)
        for peer in settings.peers
    ]
    answers, away = await asyncio.gather(
        ask_all(peers, context, name, network), ask_all(others, context, name, network)
    )
    findings += [_other(answer) for answer in away.values()]
    if not running:
        findings += _stopped(answers)
        return Examined(findings, name, running)
    diagnosis = await _look(settings, genesis, answers, findings)
    return Examined(findings, name, running, diagnosis)


def _genesis(settings: NodeSettings, findings: list[Finding]) -> tuple[Genesis, bytes] | None:
    try:
        genesis, network = load_genesis(settings.network)
    except ConfigError as error:
        action = "get genesis.bin from whoever founded the network, the regulator's key by another way"
        findings.append(Finding("bad", str(error), action))
        return None
    findings.append(Finding("ok", f"genesis of network {network.hex()[:16]}"))
    return genesis, network


def _key(settings: NodeSettings, founded: tuple[Genesis, bytes] | None, findings: list[Finding]) -> None:
    section = settings.node
    try:
        public = PrivateKey.from_bytes(read_secret(section.key)).public
    except (ConfigError, ValueError) as error:
        findings.append(
            Finding("bad", f"validator key: {error}", "restore it; never make a new one for the same place")
        )
        return
    shown = public.hex()[:16]
    wanted = None if founded is None else _wanted(founded[0], section.chain, section.index)
    if wanted is None or wanted == shown:
        findings.append(Finding("ok", f"validator key {shown}"))
    elif section.joins:
        action = "the list of the chain decides; until it has this key the node only follows"
        findings.append(Finding("warn", f"validator key {shown}: genesis names {wanted}", action))
    else:
        action = "restore the right key, or set node.joins if the regulator has given this place to it"
        findings.append(Finding("bad", f"validator key {shown}: genesis names {wanted}", action))


def _wanted(genesis: Genesis, chain: int, index: int) -> str | None:
    try:
        validators = genesis.validators(chain)
    except KeyError:
        return None
    return validators[index].public.hex()[:16] if index < len(validators) else None


def _port(settings: NodeSettings) -> Finding:
    """Whether the node could listen."""
    listen = settings.listen
    where = f"{listen.host}:{listen.port}"
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((listen.host, listen.port))
    except OSError as error:
        action = "another process has it (ss -ltnp), or the address is not of this machine"
        return Finding("bad", f"cannot listen on {where}: {error.strerror or error}", action)
    return Finding("ok", f"{where} is free to listen on")


def _other(answer: Answer) -> Finding:
    """A node of another chain."""
    if answer.problem:
        return Finding(
            "warn", f"{answer.name}: {PROBLEMS.get(answer.problem, answer.problem)}", "others are used instead"
        )
    return Finding("ok", f"{answer.name} at height {answer.report['height']}")


def _stopped(answers: dict[str, Answer]) -> list[Finding]:
    """The node does not run: how the others are."""
    found = [Finding("bad", "the node does not run", "start it, and look at its log if it ends")]
    for answer in answers.values():
        if answer.problem:
            found.append(Finding("warn", f"{answer.name}: {PROBLEMS.get(answer.problem, answer.problem)}"))
        else:
            report = answer.report
            silent = f", silent ({report['silent']})" if report["silent"] else ""
            found.append(Finding("ok", f"{answer.name} at height {report['height']}, {report['phase']}{silent}"))
    return found


async def _look(
    settings: NodeSettings, genesis: Genesis, answers: dict[str, Answer], findings: list[Finding]
) -> Diagnosis | None:
    """The running node's own word, twice, and what it comes to."""
    path = settings.node.data / "status.json"
    first = read_json(path)
    await asyncio.sleep(LOOK_S)
    status = read_json(path)
    if not status or not first or machine_ms() - status["written_ms"] > STALE_MS:
        action = "it hangs, is still starting, or its disk is full; look at its log, then restart it"
        findings.append(Finding("bad", f"the node runs, but {path} is missing or old", action))
        return None
    if not status["replica"]:
        findings.append(Finding("warn", "the node is still starting", "wait until its log says ready"))
        return None
    chain = settings.node.chain
    names = [node_name(chain, index) for index in range(len(genesis.validators(chain)))]
    keys = {name: validator.public.hex()[:16] for name, validator in zip(names, genesis.validators(chain), strict=True)}
    status["validators"] = [_node_of(chain, listed, names, genesis) for listed in status["validators"]]
    found = diagnose(status, answers, status["height"] > first["height"], keys)
    findings += explain(found, chain_name(chain))
    broker = status.get("broker")
    if broker is not None and not broker["connected"]:
        findings.append(
            Finding("bad", "the broker cannot be reached", "gateways are not heard; look at [mqtt] and the broker")
        )
    return found


def _node_of(chain: int, listed: str, names: list[str], genesis: Genesis) -> str:
    """The node's name of a validator on the list: its own name ends with its number (CONSENSUS.md 8.1)."""
    for name, validator in zip(names, genesis.validators(chain), strict=True):
        if validator.name == listed:
            return name
    digits = listed[len(listed.rstrip("0123456789")) :]
    return node_name(chain, int(digits)) if digits else listed


def explain(found: Diagnosis, chain: str) -> list[Finding]:
    """The diagnosis in sentences."""
    where = f"{chain}: height {found.height}"
    stands = not found.moving and found.phase not in ("idle", "following")
    lines: list[Finding] = []
    if found.phase == "following":
        action = "the regulator puts it on the list, or it gets back the key that is there"
        lines.append(Finding("warn", f"{where}: {PHASES[found.phase]}", action))
    elif found.moving:
        lines.append(Finding("ok", f"{where}, growing"))
    elif not stands:
        lines.append(Finding("ok", f"{where}: {PHASES[found.phase]}"))
    elif found.able < found.quorum:
        action = f"bring {found.quorum - found.able} of those below back; {found.quorum} have to sign"
        text = f"{where} stands in view {found.view}: {PHASES.get(found.phase, found.phase)}; {found.able} can sign"
        lines.append(Finding("bad", text, action))
    else:
        text = f"{where} waits in view {found.view}, led by {found.leader}: {PHASES.get(found.phase, found.phase)}"
        lines.append(Finding("warn", text, "normal for a moment; when it lasts, look at those below"))
    level = "bad" if stands and found.able < found.quorum else "warn"
    lines += [Finding(level, f"missing: {one.name}: {'; '.join(one.reasons)}") for one in found.waiting if stands]
    shown = [*found.others, *(one for one in found.waiting if not stands and one.down)]
    lines += [Finding("warn", _about(one)) for one in shown]
    if lines[0].level != "bad" and found.able == found.quorum and found.able < found.n:
        lines.append(Finding("warn", f"{found.able} of {found.n} can sign: one more loss stops the chain"))
    return lines


def _about(one: Absent) -> str:
    return f"{one.name}: {'; '.join(one.reasons)}"
