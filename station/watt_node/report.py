"""What a node tells the doctor of another one: where it stands, whom it waits for, and whether it signs.

A report is a claim: it helps a person to find what is wrong, and nothing acts on it. It says nothing about households.
"""

from typing import Any

from watt_node.clock import machine_ms

FIELDS = ("node", "chain", "height", "block", "block_time_s", "n", "f", "q", "validators", "votes", "key")
"""Of the node's status, as they are."""
OF_REPLICA = ("number", "view", "leader", "phase", "silent", "doubt", "missing", "pool", "behind", "fetching")
"""Of the replica's."""


def reported(status: dict[str, Any], protocol_s: int) -> dict[str, object]:
    """The part of a node's status that others may ask for, and what its clocks show."""
    replica: dict[str, Any] = status["replica"]
    links: dict[str, dict[str, Any]] = status["links"]
    return {
        **{name: status[name] for name in FIELDS},
        **{name: replica.get(name) for name in OF_REPLICA},
        "connected": [name for name, link in links.items() if link["connected"]],
        "machine_ms": machine_ms(),
        "protocol_s": protocol_s,
    }
