"""Names of nodes: the same in certificates (CN), logs, configuration and status."""

import re

_NAME = re.compile(r"(?:main|area([1-9][0-9]{0,4}))-node(0|[1-9][0-9]?)")


_CLIENT = re.compile(r"regulator|witness-[a-z0-9-]{1,32}")


def is_client_name(name: str) -> bool:
    """Whether a name is of somebody who is no validator and may still follow, and submit what others signed: the
    regulator (model: it can trace any transaction) and witnesses of the main chain (CONSENSUS.md 10)."""
    return _CLIENT.fullmatch(name) is not None


def node_name(chain: int, index: int) -> str:
    """`main-node2` for the main chain (0), `area1-node0` for the others."""
    return f"{chain_name(chain)}-node{index}"


def chain_name(chain: int) -> str:
    """`main` for chain 0, `area1` and so on for the others."""
    return "main" if chain == 0 else f"area{chain}"


def parse_node_name(name: str) -> tuple[int, int] | None:
    """(chain, index) of a node name, None when it is not one."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    return int(found[1] or 0), int(found[2])
