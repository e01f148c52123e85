"""How inputs are changed: as bytes, and as the structures they are (which gets past the first check)."""

import random
from typing import Any

import msgspec

INTERESTING = (0x00, 0x01, 0x7F, 0x80, 0x90, 0x9F, 0xC0, 0xC4, 0xC6, 0xCF, 0xDC, 0xDD, 0xDF, 0xFF)
"""Bytes that are types or lengths in msgpack."""
NUMBERS = (0, 1, 2, 3, 4, 63, 64, 65, 255, 256, 65535, 65536, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -1)
"""Limits of the integers that messages hold, and heights and views near those of the seeds."""
DEPTH = 8
"""Arrays within arrays, and structures within byte strings, that are opened."""


def change_bytes(data: bytes, dice: random.Random) -> bytes:
    """One to three changes: a byte, a bit, a cut, a doubled, missing or foreign part."""
    out = bytearray(data)
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(out)) if out else 0
        end = min(len(out), at + dice.randint(1, 32))
        kind = dice.randrange(6)
        if kind == 0 and out:
            out[at] = dice.choice(INTERESTING)
        elif kind == 1 and out:
            out[at] ^= 1 << dice.randrange(8)
        elif kind == 2:
            del out[at:]
        elif kind == 3:
            del out[at:end]
        elif kind == 4:
            out[at:at] = out[at:end]
        else:
            out[at:at] = dice.randbytes(dice.randint(1, 8))
    return bytes(out)


def change_value(data: bytes, dice: random.Random) -> bytes:
    """One field changed, anywhere in the structure or in one inside it; what is no msgpack is changed as bytes."""
    try:
        value = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return change_bytes(data, dice)
    try:
        return msgspec.msgpack.encode(_changed(value, dice, DEPTH))
    except (msgspec.MsgspecError, OverflowError, RecursionError, TypeError):
        return change_bytes(data, dice)


def _changed(value: Any, dice: random.Random, depth: int) -> Any:
    if isinstance(value, list) and value and depth:
        return _changed_list(list(value), dice, depth)
    if isinstance(value, bytes):
        if depth and value and value[0] & 0xF0 == 0x90 and dice.random() < 0.7:
            return change_value(value, dice) if depth == 1 else _inside(value, dice, depth - 1)
        return change_bytes(value, dice) if dice.random() < 0.7 else dice.randbytes(dice.choice((0, 1, 31, 32, 64)))
    if isinstance(value, bool) or value is None:
        return dice.choice((None, True, 0, [], b""))
    if isinstance(value, int):
        return dice.choice((value + 1, max(0, value - 1), dice.choice(NUMBERS)))
    if isinstance(value, str):
        return dice.choice((value + "x", value[:-1], "", "prepare", "commit", "view-change", "new-view", "x" * 33))
    return dice.choice((0, b"", [], None))


def _changed_list(items: list[Any], dice: random.Random, depth: int) -> list[Any]:
    at = dice.randrange(len(items))
    kind = dice.randrange(10)
    if kind == 0:
        del items[at]
    elif kind == 1:
        items.insert(at, items[at])
    elif kind == 2:
        other = dice.randrange(len(items))
        items[at], items[other] = items[other], items[at]
    else:
        items[at] = _changed(items[at], dice, depth - 1)
    return items


def _inside(data: bytes, dice: random.Random, depth: int) -> bytes:
    """A byte string that holds a structure: the structure is changed."""
    try:
        return msgspec.msgpack.encode(_changed(msgspec.msgpack.decode(data), dice, depth))
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, TypeError):
        return change_bytes(data, dice)
