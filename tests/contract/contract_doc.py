"""Renders the tables of station/CONTRACT.md from the code, between its `<!-- begin: NAME -->` and `<!-- end -->` lines.

`python tests/contract/contract_doc.py` rewrites the document; a test compares, so the document cannot lie.
"""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path

import msgspec
from watt_chain import election
from watt_chain.contract import (
    access,
    baseline,
    contest,
    cross_guard,
    cross_kinds,
    cross_objects,
    cross_seats,
    event,
    kinds,
    market,
    objects,
    orders,
    rematch,
    rules,
)
from watt_chain.contract import main as main_chain
from watt_chain.cross import tables
from watt_chain.genesis import Validator

DOCUMENT = Path(__file__).parents[2] / "station" / "CONTRACT.md"
BLOCK = re.compile(r"(<!-- begin: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.S)

OBJECTS: dict[str, tuple[str, type[msgspec.Struct], str]] = {
    "account/<id8>": ("both", objects.Account, "a registered party"),
    "signer/<id8 of a key>": ("both", objects.Signer, "which account a key signs for; to_height 0 = still"),
    "office/<role>": ("both", access.Office, "holder of grid, aggregator, regulator"),
    "validators": ("both", objects.ValidatorList, "who certifies the next block of this chain, a waiting change"),
    "validators/<chain>": (
        "both",
        objects.KnownList,
        "of other chains: in an area 0 and its partners, on 0 every area",
    ),
    "member/<name>": ("both", objects.Member, "a name that is or was on the list"),
    "rules": ("both", objects.RulesIndex, "active version, pending ones"),
    "rules/<version>": ("both", rules.RuleSet, "a rule set"),
    "open": ("both", objects.OpenEvents, "events that are not over"),
    "user/<id8>": ("area", objects.User, "metering point"),
    "plug/<id8>": ("area", objects.Plug, "plug and its last checkpoint"),
    "election": ("both", election.Election, "seed and order of the running term"),
    "candidate/<id8>": ("both", election.Candidate, "a validator's ticket, faults and shares of coming seeds"),
    "evidence/<id8>/<height>/<view>/<phase>": ("both", objects.Conviction, "proven equivocation"),
    "inbox": ("area", objects.InboxCursor, "last consumed message of the main chain"),
    "inbox/<chain>": ("area", objects.InboxCursor, "the same of another area"),
    "supply": ("area", objects.Supply, "money in and out"),
    "pool": ("area", objects.Pool, "points held by the grid"),
    "event/<n> (area)": ("area", objects.AreaEvent, "an area's child of an event"),
    "sealed/<n>/<id8>": ("area", objects.Sealed, "a sealed bid"),
    "history/<id8>/<day mod 32>": ("area", baseline.DayRegisters, "a plug's registers of one day, for the baseline"),
    "book/<n>": ("area", market.Book, "the qualified bids"),
    "rebook/<n>": ("area", rematch.Rebook, "what the second round of a matching may use"),
    "pair/<n>/<k>": ("area", objects.Pair, "a matched pair"),
    "cross/<n>/<k> (area)": ("area", cross_objects.CrossTrade, "the area's half of a trade across areas"),
    "trades/<n>/<id8>": ("area", cross_objects.CrossIndex, "a user's trades across areas"),
    "crossnodes": ("area", cross_seats.CrossNodes, "who carries the area's messages; none where areas do not trade"),
    "crossnodes/<n>": ("area", cross_seats.SeatsOf, "who did when event n was closed"),
    "duty/<node>": ("area", cross_seats.Duty, "what the choice of cross-nodes goes by"),
    "beacon": ("area", cross_seats.BeaconSeed, "the main chain's randomness of an event"),
    "transit": ("area", cross_objects.Transit, "money that went to and came from other areas; none before the first"),
    "register/<n>/<id8>": ("area", objects.EventMeter, "registers at slot boundaries"),
    "result/<n>": ("area", objects.Result, "users with a row, result root"),
    "result/<n>/<id8>": ("area", objects.ResultRow, "what the event did to one user"),
    "rp/<id8>": ("area", objects.Incentive, "incentive price of the later period"),
    "standing/<id8>": ("area", objects.Standing, "what the limits on credit remember of a user"),
    "strength/<node>": ("area", objects.Strength, "response strength of a serving node"),
    "areas": ("main", main_chain.Areas, "chain numbers"),
    "anchor/<chain>": ("main", objects.AnchorState, "last block taken in"),
    "event/<n> (main)": ("main", objects.MainEvent, "the event"),
    "best/<n>": ("main", contest.Best, "best matching handed in so far"),
    "book/<n>/<chain>": ("main", market.Book, "an area's book"),
    "cross/<n>/<k> (main)": ("main", cross_objects.MainTrade, "what is recorded of a trade across areas"),
    "position/<chain>": ("main", cross_objects.Position, "what an area may send out"),
    "fork/<chain>/<height>": ("main", cross_guard.ForkProof, "who certified two blocks of one height"),
    "refuted/<chain>": ("main", cross_guard.Refuted, "masters that could not execute a certified block"),
    "lane/<source>/<target>": ("main", cross_objects.Lane, "messages from one area to another"),
}
"Key -> (chain, structure, meaning)."

PARTS: tuple[type[msgspec.Struct], ...] = (
    kinds.Call,
    event.EventSpec,
    event.Unit,
    market.Offer,
    market.Bid,
    market.Assignment,
    market.Leaf,
    market.Slice,
    market.Crossing,
    market.Across,
    market.Leg,
    market.Border,
    market.Solution,
    cross_objects.CrossTerms,
    cross_seats.CrossSeat,
    cross_kinds.PartnerBlock,
    objects.PlugRegisters,
    objects.AreaReport,
    kinds.EnrolPlug,
    kinds.InboxEntry,
    Validator,
    election.Eligible,
    election.Entrant,
    election.Demotion,
    election.Pledge,
)
"Structures inside others."

UP = (
    kinds.BookClosed,
    kinds.Matched,
    kinds.MatchRefused,
    kinds.Metered,
    kinds.EventClosed,
    cross_kinds.CrossReport,
)
DOWN = {
    "RuleSet": kinds.RuleSetActive,
    "Initial": kinds.Announced,
    "Match": kinds.AreaMatch,
    "Prices": kinds.Prices,
    "Abort": kinds.Abort,
    "Partner": cross_kinds.Partner,
    "Beacon": cross_kinds.Beacon,
    "CrossNews": cross_kinds.CrossNews,
}


LIVES = {"life-cross-buyer": tables.BUYER, "life-cross-seller": tables.SELLER, "life-cross-main": tables.BEACON}


def fields(kind: type[msgspec.Struct]) -> str:
    """Field names with short type names, in order."""
    hints = typing.get_type_hints(kind)
    return ", ".join(f"{name}: {_type(hints[name])}" for name in kind.__struct_fields__)


def _type(hint: object) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _type(args[0])
    if origin is types.UnionType:
        return " or ".join(_type(arg) for arg in args)
    if hint is type(None):
        return "null"
    if origin is typing.Literal:
        return "str"
    if origin is list:
        return f"[{_type(args[0])}]"
    if origin is tuple:
        return "(" + ", ".join(_type(arg) for arg in args) + ")"
    return str(getattr(hint, "__name__", hint))


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def render(name: str) -> str:
    """The text of one block."""
    if name == "objects":
        rows = [(f"`{k}`", c, meaning, f"`[{fields(kind)}]`") for k, (c, kind, meaning) in OBJECTS.items()]
        return table(("key", "chain", "what", "fields in order"), rows)
    if name == "parts":
        return table(("structure", "fields in order"), [(part.__name__, f"`[{fields(part)}]`") for part in PARTS])
    if name == "messages":
        up = [("up", kind.__name__, f"`[{fields(kind)}]`") for kind in UP]
        down = [("down", label, f"`[{fields(kind)}]`") for label, kind in DOWN.items()]
        both = [("both", "Validators", f"`[{fields(kinds.ValidatorsActing)}]`")]
        lane = [("area to area", "CrossLocked", f"`[{fields(cross_kinds.CrossLocked)}]`")]
        return table(("way", "kind", "body"), [*down, *up, *both, *lane])
    if name in ("kinds-area", "kinds-main"):
        place = name.removeprefix("kinds-")
        rows = [
            (
                f"`{label}`",
                " ".join(row.roles),
                " ".join(row.stages) or "any",
                f"`[{fields(row.fields)}]`",
                row.reads,
                row.writes,
                " ".join(row.reasons),
            )
            for (where, label), row in kinds.TABLE.items()
            if where == place
        ]
        return table(("kind", "signer", "stage", "fields", "reads", "writes", "refused for"), rows)
    if name == "life-area":
        return _matrix([*event.TRANSITIONS], [*event.Trigger], event.TRANSITIONS)
    if name == "life-main":
        states = [*event.MAIN_TRANSITIONS]
        return _matrix(states, [*event.MainTrigger], event.MAIN_TRANSITIONS)
    if name == "life-pair":
        return _matrix([*orders.PairState], [*orders.PairStep], orders.PAIR_TRANSITIONS)
    if name in LIVES:
        return _life(LIVES[name])
    if name == "rule-sets":
        rows = [
            (f"`{label}`", str(getattr(rules.RULES_1, label)), str(getattr(rules.RULES_2, label)))
            for label in rules.RuleSet.__struct_fields__
        ]
        return table(("field", "rule set 1", "rule set 2"), rows)
    raise KeyError(name)


def _life(life: typing.Any) -> str:
    """A table with effects as rows: state, trigger, next state, effects."""
    rows = [
        (str(state), str(trigger), str(goal), " ".join(effects))
        for state, steps in life.items()
        for trigger, (goal, effects) in steps.items()
    ]
    return table(("state", "trigger", "next", "effects"), rows)


def _matrix(states: list[typing.Any], triggers: list[typing.Any], life: typing.Any) -> str:
    rows = [(str(state), *(str(life[state].get(trigger, "")) for trigger in triggers)) for state in states]
    return table(("state", *(str(trigger) for trigger in triggers)), rows)


def rendered(text: str) -> str:
    """The document with every block made anew."""
    return BLOCK.sub(lambda found: found[1] + render(found[2]) + found[4], text)


if __name__ == "__main__":
    DOCUMENT.write_text(rendered(DOCUMENT.read_text()))
