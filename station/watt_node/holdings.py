"""`wattpact station storage`, `wattpact master storage`: what a node keeps on its disk, in bytes by kind.

Reads the folder while the node runs, and changes nothing. The parts of a block log are told apart by decoding it; the
state is made from the newest snapshot and the blocks after it. `across` is what trading with other areas costs a node
beyond its own chain: who certifies for the partners, how far their messages are consumed, the trades themselves, and
the cross-nodes' figures. A cross-node keeps nothing else of its partners: a message that it carries waits in memory.
Source: model.md U9; ledger.md 6.4.
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from watt_chain.block import decode_certified
from watt_chain.codec import DecodeError
from watt_chain.cross.tables import Beacon, Buyer, Seller
from watt_chain.ledger import Ledger

from watt_node.blocklog import read_stored
from watt_node.disk import ReadOnlyFile
from watt_node.records import title_of
from watt_node.snapshots import SnapshotError, read_snapshot

TRADE_OVER = frozenset({
    Buyer.REFUSED, Buyer.REFUNDED, Buyer.PAID, Buyer.RETURNED, Seller.REJECTED, Seller.RELEASED, Seller.CREDITED,
    Beacon.REJECT, Beacon.KILL, Beacon.VOID,
})  # fmt: skip
"States after which a trade is history; the others are live."
_ACROSS = {"inbox": "partners", "validators": "partners", "lane": "partners", "position": "partners",
           "crossnodes": "cross-nodes", "duty": "cross-nodes", "beacon": "cross-nodes",
           "trades": "trades", "transit": "trades"}  # fmt: skip
STATE_AT = 2
"Index of the state of a trade in its encoding: after the terms and the id, and in an area after the side."


@dataclass
class Holdings:
    """Bytes by kind."""

    chain: int
    height: int
    blocks: dict[str, int] = field(default_factory=dict)
    "transactions, headers, certificates, results (receipts and messages of one's own blocks), framing"
    files: dict[str, int] = field(default_factory=dict)
    "blocks, votes, snapshots, archive, other: everything in the folder"
    state: dict[str, int] = field(default_factory=dict)
    "own, and of trading across areas: partners, cross-nodes, trades-live, trades-over"

    @property
    def total(self) -> int:
        """Bytes in the folder."""
        return sum(self.files.values())

    @property
    def across(self) -> int:
        """Bytes of state that only trading across areas needs."""
        return sum(size for kind, size in self.state.items() if kind != "own")


def of_folder(data: Path, ledger: Ledger, network: bytes) -> Holdings:
    """What the folder of a node holds. `ledger` is new, of the node's chain. StoreError, DecodeError, OSError."""
    held = Holdings(ledger.chain, 0)
    held.files = _files(data)
    parts = dict.fromkeys(("transactions", "headers", "certificates", "results", "framing"), 0)
    _install_newest(data, ledger, network)
    for stored in read_stored(data / "blocks.log"):
        certified, block, header, _ = decode_certified(stored.certified)
        parts["transactions"] += sum(map(len, block.transactions))
        parts["headers"] += len(block.header)
        parts["certificates"] += len(certified.certificate)
        parts["results"] += sum(map(len, stored.codes)) + sum(map(len, stored.messages))
        if header.height == ledger.head.height + 1:
            ledger.replay(stored.certified)
    held.height = ledger.head.height
    parts["framing"] = held.files["blocks"] - sum(parts.values())
    held.blocks = parts
    held.state = by_kind(ledger.state.items())
    return held


def _install_newest(data: Path, ledger: Ledger, network: bytes) -> None:
    """Begin with the newest snapshot that proves itself, if there is one."""
    for path in sorted(data.glob("snapshot-*.state"), reverse=True):
        with contextlib.suppress(SnapshotError, DecodeError):
            ledger.install(*read_snapshot(ReadOnlyFile(path), title_of("state", ledger.chain, network)))
            return


def _files(data: Path) -> dict[str, int]:
    kinds = dict.fromkeys(("blocks", "votes", "snapshots", "archive", "other"), 0)
    for path in sorted(data.rglob("*")):
        if path.is_file():
            known = [kind for kind in kinds if path.name.startswith(kind.removesuffix("s"))]
            kinds[known[0] if known else "other"] += path.stat().st_size
    return kinds


def by_kind(entries: Iterable[tuple[bytes, bytes]]) -> dict[str, int]:
    """Bytes of keys and values of a state, by kind."""
    kinds = dict.fromkeys(("own", "partners", "cross-nodes", "trades-live", "trades-over"), 0)
    for key, value in entries:
        kinds[_kind(key.decode("latin-1"), value)] += len(key) + len(value)
    return kinds


def _kind(key: str, value: bytes) -> str:
    first, _, rest = key.partition("/")
    if first == "cross":
        fields = msgspec.msgpack.decode(value)
        state = fields[STATE_AT] if fields[STATE_AT] not in ("buy", "sell") else fields[STATE_AT + 1]
        return "trades-over" if state in TRADE_OVER else "trades-live"
    kind = _ACROSS.get(first, "own")
    if kind == "partners" and first in ("inbox", "validators") and rest in ("", "0"):
        return "own"  # of the main chain
    return "trades-live" if kind == "trades" else kind


def shown(held: Holdings) -> str:
    """The figures as a table for a terminal."""
    lines = [f"chain {held.chain} at height {held.height}: {held.total:,} bytes in the folder"]
    for title, kinds in (("files", held.files), ("in the blocks", held.blocks), ("in the state", held.state)):
        lines.append(f"  {title}")
        lines += [f"    {kind:<14} {size:>14,}" for kind, size in kinds.items() if size]
    lines.append(f"  trading across areas needs {held.across:,} bytes of state")
    return "\n".join(lines)


def as_data(held: Holdings) -> dict[str, object]:
    """The figures for a script."""
    return {**msgspec.to_builtins(held), "total": held.total, "across": held.across}
