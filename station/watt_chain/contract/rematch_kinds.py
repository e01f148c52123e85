"""Calls of the second round of a matching: their fields, and their rows in the table of kinds."""

from typing import Final

import msgspec

from watt_chain.contract.event import State
from watt_chain.contract.fields import Kind, Number
from watt_chain.contract.market import Solution


class Reopen(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The first round ends in this area."""

    event: Number


class Rematch(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The second matching of an area's event with its certificate (U25)."""

    event: Number
    solution: Solution


_EVENT: Final = ("unknown-event", "stage")

REMATCH_KINDS: Final[dict[str, Kind]] = {
    "Reopen": Kind(
        ("aggregator",),
        (State.MATCHED,),
        Reopen,
        "event, rules, book, pair, cross, sealed, account",
        "pair, account, rebook",
        (*_EVENT, "rule-off", "done", "early", "late"),
    ),
    "Rematch": Kind(
        ("aggregator",),
        (State.MATCHED,),
        Rematch,
        "event, rules, rebook",
        "event, pair, rebook",
        (*_EVENT, "no-round", "late", "chain-*", "solution-*"),
    ),
}
"Rows of the table of an area's kinds (kinds.py)."
