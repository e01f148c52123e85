"""Types of fields of calls and messages, with their ranges, and the form of a row of the table of kinds."""

from typing import Annotated

import msgspec

from watt_chain.contract.event import MONEY_MAX, SLOTS_MAX, State

Id8 = Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Public = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
Salt = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Amount = Annotated[int, msgspec.Meta(ge=1, le=MONEY_MAX)]
Money = Annotated[int, msgspec.Meta(ge=0, le=MONEY_MAX)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
Number = Annotated[int, msgspec.Meta(ge=1, le=2**32)]
"Events, pairs and trades across areas are counted from 1."
Chain = Annotated[int, msgspec.Meta(ge=1, le=2**16 - 1)]
"An area."
Energy = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
"Wh in one slot."
SlotComforts = Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=10**9)]], msgspec.Meta(max_length=SLOTS_MAX)]
SlotEnergies = Annotated[list[Energy], msgspec.Meta(min_length=1, max_length=SLOTS_MAX)]


class Kind(msgspec.Struct, frozen=True):
    """One row of the table of kinds."""

    roles: tuple[str, ...]
    stages: tuple[State, ...]
    "States of the named event in which the call may be accepted; empty = not tied to an event's state."
    fields: type[msgspec.Struct]
    reads: str
    writes: str
    reasons: tuple[str, ...]
    "Besides COMMON_REASONS."
