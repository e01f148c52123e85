"""Whose vote is missing, and why: from what a node knows itself and what the others answer. Pure.

A chain that "is stuck, keeps changing view" has fewer than q validators that sign and reach each other. This module
names each of the others with everything that is known about it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from watt_node.ask import Answer

CLOCK_MS_MAX = 2_000
"""Clocks further apart are worth a line; a proposal whose time is more than 5 s off is not voted for (3.3)."""
PROBLEMS = {
    "connection-refused": "nothing listens at its address: it does not run",
    "timeout": "no answer from its address: the machine is off, or a firewall drops it",
    "closed": "it cuts the connection off at once",
    "certificate": "its certificate is not of this network's CA, or has ended",
    "tls": "it refuses this node's certificate, or speaks no TLS",
    "version": "it runs another version of the protocol",
    "network": "it belongs to another network (another genesis.bin)",
    "chain": "it serves another chain",
    "refused-purpose": "it runs an older version that cannot be asked",
    "refused-faulty": "it has cut this node off for sending what no honest one sends",
    "refused-too-many-connections": "it has no place for another connection",
}
PHASES = {
    "idle": "nothing waits for a block",
    "waiting-for-proposal": "the leader's proposal is missing",
    "waiting-for-bodies": "transactions of the proposal are missing here",
    "refused-proposal": "this node has refused the proposal: by its own execution the block is wrong",
    "left-out": "this node does not support the proposal: it leaves out what has waited for long",
    "prepare": "prepare votes are missing",
    "commit": "commit votes are missing",
    "view-change": "its leader was given up, and too few others have followed into the next view",
    "following": "this node is not on the list and only follows",
}


@dataclass(frozen=True, slots=True)
class Absent:
    """A validator that does not do its part."""

    name: str
    reasons: tuple[str, ...]
    down: bool
    "Whether it can do no part at all now: not reachable, silent, or not on the list."


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """How a chain stands at one node."""

    height: int
    view: int
    phase: str
    leader: str
    quorum: int
    waiting: tuple[Absent, ...]
    "Whose word the phase still needs."
    others: tuple[Absent, ...]
    "Further validators that something is wrong with."
    moving: bool
    n: int
    "Validators on the list."

    @property
    def able(self) -> int:
        """Validators of the list that nothing keeps from signing, as far as can be seen."""
        return self.n - sum(one.down for one in (*self.waiting, *self.others))


def diagnose(
    status: Mapping[str, Any], answers: Mapping[str, Answer], moving: bool, keys: Mapping[str, str]
) -> Diagnosis:
    """Explain a node's own status (`Node.status`).

    answers   of the other validators, by name
    moving    whether the height grew while one looked
    keys      name -> first 16 hex digits of the key that genesis names, for comparison
    """
    replica = status["replica"]
    names: list[str] = status["validators"]
    missing = [names[index] for index in replica["missing"] if index < len(names)]
    absent = {name: _reasons(name, status, answers.get(name), keys.get(name, "")) for name in names}
    waiting = [
        Absent(name, *absent[name]) if absent[name][0] else Absent(name, (_unexplained(name, status, replica),), False)
        for name in missing
    ]
    others = [Absent(name, *absent[name]) for name in names if name not in missing and absent[name][0]]
    leader = names[replica["leader"]] if replica["leader"] < len(names) else "?"
    return Diagnosis(
        status["height"], replica["view"], replica["phase"], leader, status["q"], tuple(waiting), tuple(others), moving,
        len(names),
    )  # fmt: skip


def _unexplained(name: str, status: Mapping[str, Any], replica: Mapping[str, Any]) -> str:
    if name == status["node"]:
        return "this node itself: it has not got that far"
    if replica["phase"] == "waiting-for-proposal":
        return "it leads this view and has not proposed; nothing else is wrong with it that can be seen from here"
    return "connected, at the same height, no reason to be seen from here: look at its own doctor"


def _reasons(name: str, status: Mapping[str, Any], answer: Answer | None, key: str) -> tuple[tuple[str, ...], bool]:
    """(everything that is wrong with a validator, whether it can do no part at all)."""
    if name == status["node"]:
        replica = status["replica"]
        silent = _silence(replica["silent"], replica["doubt"], status["key"], key, status["height"])
        return ((f"this node itself: {silent}",), True) if silent else ((), False)
    found: list[str] = []
    down = False
    link = status["links"].get(name, {})
    if answer is not None and answer.problem:
        found.append(PROBLEMS.get(answer.problem, answer.problem.replace("-", " ")))
        down = True
    if not link.get("connected"):
        found.append(_away(link))
        down = True
    if answer is not None and not answer.problem:
        report = answer.report
        silent = _silence(report["silent"], report["doubt"], report["key"], key, report["height"])
        if silent:
            found.append(silent)
            down = True
        found += _place(report, status)
        if abs(answer.ahead_ms) > CLOCK_MS_MAX:
            where = "ahead of" if answer.ahead_ms > 0 else "behind"
            found.append(f"its clock is {abs(answer.ahead_ms) / 1000:.1f} s {where} this machine's")
    for reason, count in sorted(status["rejected_from"].get(name, {}).items()):
        found.append(f"{count} of its messages were rejected here: {reason}")
    # What was rejected once, long ago, is no reason to name a validator that is there and signs.
    return tuple(found) if down or len(found) > len(status["rejected_from"].get(name, {})) else (), down


def _away(link: Mapping[str, Any]) -> str:
    if link.get("for_s") is None:
        text = "not connected since this node started"
    else:
        text = f"not connected for {link['for_s']} s"
    problem = str(link.get("problem") or "")
    if problem.startswith("certificate-of-"):
        return f"{text}: {problem.removeprefix('certificate-of-')} answers at its address"
    return f"{text} ({problem})" if problem else text


def _silence(silent: str, doubt: str, key: str, wanted: str, height: int) -> str:
    """Why a validator signs nothing, in words; "" when it does."""
    if silent == "following":
        return f"it only follows: its key {key} is not on the list" + (f", which has {wanted}" if wanted else "")
    if silent == "doubt":
        return f"it does not trust its memory of votes: {doubt}"
    if silent == "below-floor":
        return f"its blocks were lost; it fetches them and is at height {height}"
    if silent == "asking":
        return "it has just started and asks the others where they are"
    return ""


def _place(report: Mapping[str, Any], status: Mapping[str, Any]) -> list[str]:
    """How far it is from where this node is."""
    mine, theirs = status["height"], report["height"]
    if theirs < mine - 1:
        fetching = report.get("fetching")
        how = f"; it fetches a state: {fetching[1]} of {fetching[2]} slots" if fetching else ""
        return [f"behind: at height {theirs}, here it is {mine}{how}"]
    if theirs > mine + 1:
        return [f"ahead: at height {theirs}, here it is {mine}"]
    if report["phase"] == "waiting-for-bodies" and theirs == mine:
        return ["it lacks transactions of the proposal"]
    if report["phase"] == "refused-proposal" and theirs == mine:
        return ["it has refused the proposal: by its own execution the block is wrong"]
    if report["phase"] == "left-out" and theirs == mine:
        return ["it does not support the proposal: it leaves out what has waited there for long"]
    return []
