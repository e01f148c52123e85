"""Topics of one plug (WIRE.md section 7): the part of `topics` that a plug loads, for its heap is small."""

from watt_wire.errors import EncodeError
from watt_wire.fields import ID_SIZE, bytes_problem

PREFIX = "wp/1"
"""Every topic begins with it; the number is the version of this table."""

NAME_LENGTH_MAX = 32
"""Longest name, characters: five levels of it stay far below what brokers allow for a topic."""

_NAME_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789-"


def is_name(text: str) -> bool:
    """Tell whether text may name a gateway or an area."""
    return 1 <= len(text) <= NAME_LENGTH_MAX and all(c in _NAME_CHARACTERS for c in text)


def plug_batch(gateway: str, plug_id: bytes) -> str:
    """Plug to gateway: a batch (batch.py)."""
    return home(gateway) + "/plug/" + _plug(plug_id) + "/batch"


def plug_ack(gateway: str, plug_id: bytes) -> str:
    """Gateway to plug: a batch is durably stored (batch.encode_ack)."""
    return home(gateway) + "/plug/" + _plug(plug_id) + "/ack"


def plug_command(gateway: str, plug_id: bytes) -> str:
    """Gateway to plug: a switch command (command.py)."""
    return home(gateway) + "/plug/" + _plug(plug_id) + "/command"


def plug_event(gateway: str, plug_id: bytes) -> str:
    """Plug to gateway: a signed event (statement.EVENT); acknowledged like a batch."""
    return home(gateway) + "/plug/" + _plug(plug_id) + "/event"


def plug_status(gateway: str, plug_id: bytes) -> str:
    """Plug to gateway: JSON for eyes and monitors (DEVICE.md section 7); it proves nothing."""
    return home(gateway) + "/plug/" + _plug(plug_id) + "/status"


def plug_ask(gateway: str, plug_id: bytes) -> str:
    """Plug to gateway: a nonce of 8 bytes, which asks for the time."""
    return home(gateway) + "/plug/" + _plug(plug_id) + "/ask"


def plug_time(gateway: str, plug_id: bytes) -> str:
    """Gateway to plug: the signed answer (statement.TIME)."""
    return home(gateway) + "/plug/" + _plug(plug_id) + "/time"


def plug_update(gateway: str, plug_id: bytes) -> str:
    """Gateway to plug: a piece of a firmware bundle (DEVICE.md section 6)."""
    return home(gateway) + "/plug/" + _plug(plug_id) + "/update"


def home(gateway: str) -> str:
    """Return the levels of one gateway; EncodeError when its name is none."""
    return PREFIX + "/home/" + checked_name(gateway)


def checked_name(text: str) -> str:
    """Return the name; EncodeError when it is none."""
    if not isinstance(text, str) or not is_name(text):
        raise EncodeError("name %r is not 1..%d characters of a-z 0-9 -" % (text, NAME_LENGTH_MAX))
    return text


def _plug(plug_id: bytes) -> str:
    text = bytes_problem("plug_id", plug_id, ID_SIZE)
    if text:
        raise EncodeError(text)
    return plug_id.hex()
