"""MQTT topic names, and the filters to subscribe with (WIRE.md section 7).

A name (gateway, area) is 1..32 characters of a-z 0-9 and "-", so that no name can hold a level separator or a
wildcard. A plug is named by 16 lower-case hex digits of its id. Builders raise EncodeError, parsers DecodeError.
"""

from watt_wire.errors import DecodeError, EncodeError
from watt_wire.fields import ID_SIZE, integer_problem
from watt_wire.plug_topics import (
    NAME_LENGTH_MAX,
    PREFIX,
    checked_name,
    home,
    is_name,
    plug_ack,
    plug_ask,
    plug_batch,
    plug_command,
    plug_event,
    plug_status,
    plug_time,
    plug_update,
)

__all__ = (
    "NAME_LENGTH_MAX", "PREFIX", "is_name",
    "plug_ack", "plug_ask", "plug_batch", "plug_command", "plug_event", "plug_status", "plug_time", "plug_update",
)  # fmt: skip

NODE_MAX = 99
"""Largest index of a node of an area: two digits are plenty for a committee."""

_HEX_CHARACTERS = "0123456789abcdef"


def home_plan(gateway: str) -> str:
    """Gateway to the household's app and automation: JSON of the quota after trade."""
    return home(gateway) + "/plan"


def area_tx(area: str, gateway: str) -> str:
    """Gateway to every node of its area: one transaction."""
    return _area(area) + "/tx/" + checked_name(gateway)


def area_query(area: str, node: int, gateway: str) -> str:
    """Gateway to node `node` of its area: a question."""
    return _area(area) + "/node/" + _node(node) + "/query/" + checked_name(gateway)


def area_reply(area: str, gateway: str) -> str:
    """Node to gateway: a receipt, a refusal or an answer."""
    return _area(area) + "/reply/" + checked_name(gateway)


def area_notice(area: str) -> str:
    """Node to every gateway of its area: an event changed its state."""
    return _area(area) + "/notice"


def area_command(area: str, gateway: str) -> str:
    """Office to gateway: a switch command (command.py) for a plug of its household."""
    return _area(area) + "/command/" + checked_name(gateway)


def area_outcome(area: str, gateway: str) -> str:
    """Gateway to offices: JSON, what became of a command (gateway/README.md)."""
    return _area(area) + "/outcome/" + checked_name(gateway)


def plug_batch_filter(gateway: str) -> str:
    """Batches of every plug of one gateway."""
    return home(gateway) + "/plug/+/batch"


def plug_level_filter(gateway: str, level: str) -> str:
    """One kind of topic (event, status, ask) of every plug of one gateway."""
    return home(gateway) + "/plug/+/" + level


def all_plug_batch_filter() -> str:
    """Batches of every plug of every gateway on a broker."""
    return PREFIX + "/home/+/plug/+/batch"


def all_home_plan_filter() -> str:
    """Plans of every household on a broker."""
    return PREFIX + "/home/+/plan"


def area_tx_filter(area: str) -> str:
    """Transactions of every gateway of one area."""
    return _area(area) + "/tx/+"


def area_query_filter(area: str, node: int) -> str:
    """Questions of every gateway to one node."""
    return _area(area) + "/node/" + _node(node) + "/query/+"


def parse_plug_batch(topic: str) -> tuple[str, bytes]:
    """Return (gateway, plug id)."""
    found = _match(topic, PREFIX + "/home/+/plug/+/batch")
    return _parsed_name(found[0]), _parsed_plug(found[1])


def parse_plug_ack(topic: str) -> tuple[str, bytes]:
    """Return (gateway, plug id)."""
    found = _match(topic, PREFIX + "/home/+/plug/+/ack")
    return _parsed_name(found[0]), _parsed_plug(found[1])


def parse_plug_level(topic: str, level: str) -> tuple[str, bytes]:
    """Return (gateway, plug id) of a plug's topic that ends in `level`: command, event, status, ask, time, update."""
    found = _match(topic, PREFIX + "/home/+/plug/+/" + level)
    return _parsed_name(found[0]), _parsed_plug(found[1])


def parse_home_plan(topic: str) -> str:
    """Return the gateway."""
    return _parsed_name(_match(topic, PREFIX + "/home/+/plan")[0])


def parse_area_tx(topic: str) -> tuple[str, str]:
    """Return (area, gateway)."""
    found = _match(topic, PREFIX + "/area/+/tx/+")
    return _parsed_name(found[0]), _parsed_name(found[1])


def parse_area_query(topic: str) -> tuple[str, int, str]:
    """Return (area, node index, gateway)."""
    found = _match(topic, PREFIX + "/area/+/node/+/query/+")
    return _parsed_name(found[0]), _parsed_node(found[1]), _parsed_name(found[2])


def parse_area_reply(topic: str) -> tuple[str, str]:
    """Return (area, gateway)."""
    found = _match(topic, PREFIX + "/area/+/reply/+")
    return _parsed_name(found[0]), _parsed_name(found[1])


def parse_area_notice(topic: str) -> str:
    """Return the area."""
    return _parsed_name(_match(topic, PREFIX + "/area/+/notice")[0])


def parse_area_command(topic: str) -> tuple[str, str]:
    """Return (area, gateway)."""
    found = _match(topic, PREFIX + "/area/+/command/+")
    return _parsed_name(found[0]), _parsed_name(found[1])


def parse_area_outcome(topic: str) -> tuple[str, str]:
    """Return (area, gateway)."""
    found = _match(topic, PREFIX + "/area/+/outcome/+")
    return _parsed_name(found[0]), _parsed_name(found[1])


def _area(area: str) -> str:
    return PREFIX + "/area/" + checked_name(area)


def _node(node: int) -> str:
    text = integer_problem("node", node, 0, NODE_MAX)
    if text:
        raise EncodeError(text)
    return str(node)


def _match(topic: str, pattern: str) -> list[str]:
    """Return the levels of topic that stand where pattern has "+"; DecodeError("topic") when the shapes differ."""
    levels = topic.split("/")
    wanted = pattern.split("/")
    found = []
    if len(levels) == len(wanted):
        for index in range(len(wanted)):
            if wanted[index] == "+":
                found.append(levels[index])
            elif levels[index] != wanted[index]:
                break
        else:
            return found
    raise DecodeError("topic", "topic is not " + pattern)


def _parsed_name(text: str) -> str:
    if not is_name(text):
        raise DecodeError("topic-name", "a level is not 1..%d characters of a-z 0-9 -" % NAME_LENGTH_MAX)
    return text


def _parsed_plug(text: str) -> bytes:
    if len(text) != 2 * ID_SIZE or not all(c in _HEX_CHARACTERS for c in text):
        raise DecodeError("topic-plug", "a plug is %d lower-case hex digits" % (2 * ID_SIZE))
    return bytes.fromhex(text)


def _parsed_node(text: str) -> int:
    for node in range(NODE_MAX + 1):  # "07" and other scripts' digits are not the one spelling
        if text == str(node):
            return node
    raise DecodeError("topic-node", "a node is 0..%d" % NODE_MAX)
