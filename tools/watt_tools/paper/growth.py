"""Growth per day of a normal node, a cross-node and a master, with the product's own contracts.

Every home of an area has one plug that signs a checkpoint each quarter of an hour; its gateway passes it on at once, so
they arrive within some seconds (SPREAD_S). Two rounds are carried out in full by the area contracts, the blocks are
anchored by the main contract and archived as a master does it; a day has 48 times as much. Trades are not in it: fifty
homes of an area that trade once a day add less than one part in a hundred.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from watt_chain import codec
from watt_chain.block import decode_certified
from watt_chain.contract import AreaContract, MainContract, kinds
from watt_chain.contract.rules import RULES_1
from watt_chain.crypto import PrivateKey, id8, sha256
from watt_chain.genesis import AreaGenesis, Genesis, Validator, network_of
from watt_chain.ledger import AppliedBlock, Ledger
from watt_market.checker import Checker
from watt_master.archive import Archive
from watt_master.areas import rows_of
from watt_wire import checkpoint

from watt_tools.paper.network import MASTERS, make_key
from watt_tools.paper.offline import OfflineChain
from watt_tools.paper.results import write_json

START_S: Final = 1_700_000_100
HOMES: Final = 500
NODES: Final = 4
ROUND_S: Final = 900
ROUNDS: Final = 2
ROUNDS_PER_DAY: Final = 96
SPREAD_S: Final = 10
"""Clocks of plugs differ by seconds."""
BATCHES_MS: Final = (100, 10_000)
"""How long a leader waits for company: a station's default, and the longest it may be told."""
SHARDS: Final = (2, 4, 10)
KEPT_PER_DAY: Final = 1440
"""Headers of each partner, one a minute, that a cross-node would keep if it had to prove old receipts by itself.

It has not: the last anchored header is enough, so what it keeps of its partners does not grow (`cross`).
"""
ENROLLED_AT_ONCE: Final = 250


class Home:
    """A household with a plug whose checkpoints stand on nothing but its register."""

    def __init__(self, area: int, number: int) -> None:
        self.key = make_key(f"growth home {area} {number}")
        self.plug = make_key(f"growth plug {area} {number}")
        self._plug_id = id8(self.plug.public)
        self._counter = 0
        self._previous = checkpoint.NO_PREVIOUS
        self._register_mwh = 1_000_000

    def enrol(self, node: int) -> kinds.Enrol:
        """Its enrolment."""
        plug = kinds.EnrolPlug(self.plug.public, "plain", 3680)
        return kinds.Enrol(self.key.public, node, [plug], False, 3500, "h25", False)

    def frame(self, time_s: int) -> bytes:
        """The next checkpoint: fifteen records of a minute."""
        self._counter += 1
        self._register_mwh += 90_000
        root = sha256(b"records" + self._plug_id + self._counter.to_bytes(4, "big"))
        first = 15 * (self._counter - 1) + 1
        about = (time_s, ord("S"), self._register_mwh, 0, bytes(32), bytes(32), checkpoint.PERIODIC)
        body = checkpoint.encode(
            checkpoint.Checkpoint(1, self._plug_id, 1, self._counter, self._previous, root, first, 15, *about)
        )
        frame = checkpoint.seal(body, self.plug.sign(checkpoint.signing_message(body)))
        self._previous = checkpoint.frame_hash(frame)
        return bytes(frame)


class Utility:
    """The areas and the main chain of one utility, for half an hour."""

    def __init__(self, folder: Path, s: int, homes: int) -> None:
        self.s = s
        keys = {chain: [make_key(f"growth {chain} {i}") for i in range(NODES)] for chain in range(1, s + 1)}
        keys[0] = [make_key(f"growth main {i}") for i in range(MASTERS)]
        self._masters = keys[0]
        self._regulator = make_key("growth regulator")
        genesis = _found(keys, self._regulator)
        self._network = network_of(genesis)
        self.areas = {
            chain: OfflineChain(Ledger(genesis, chain, AreaContract(Checker())), keys[chain], folder / f"area{chain}")
            for chain in range(1, s + 1)
        }
        self.main = OfflineChain(Ledger(genesis, 0, MainContract(Checker())), keys[0], folder / "main")
        self.archive_path = folder / "archive.sqlite"
        self._homes = {chain: [Home(chain, number) for number in range(homes)] for chain in self.areas}
        self._blocks: list[tuple[bytes, AppliedBlock]] = []
        for chain, area in self.areas.items():
            people = self._homes[chain]
            for first in range(0, homes, ENROLLED_AT_ONCE):
                group = people[first : first + ENROLLED_AT_ONCE]
                calls = [area.call(self._regulator, "Enrol", home.enrol(at % NODES)) for at, home in enumerate(group)]
                self._blocks.append(area.extend(calls, START_S))
        self._anchor(START_S)
        self.before = self.sizes()

    def live(self, batch_ms: int) -> None:
        """Two rounds of checkpoints."""
        per_batch = max(1, len(self._homes[1]) * batch_ms // (SPREAD_S * 1000))
        for number in range(1, ROUNDS + 1):
            time_s = START_S + ROUND_S * number
            for first in range(0, len(self._homes[1]), per_batch):
                for chain, area in self.areas.items():
                    group = self._homes[chain][first : first + per_batch]
                    calls = [area.call(one.key, "Checkpoint", kinds.Checkpoint(one.frame(time_s), -1)) for one in group]
                    self._blocks.append(area.extend(calls, time_s))
                self._anchor(time_s)

    def _anchor(self, time_s: int) -> None:
        """One main block with what the areas have made meanwhile; all of it into the archive."""
        calls = []
        for certified, applied in self._blocks:
            parts, block, _, _ = decode_certified(certified)
            messages = [codec.encode(message) for message in applied.out_messages]
            anchor = kinds.Anchor(block.header, parts.certificate, messages)
            calls.append(self.main.call(self._masters[applied.header.chain % MASTERS], "Anchor", anchor))
        main = self.main.extend(calls, time_s)
        archive = Archive(self.archive_path, self._network)
        for certified, applied in [*self._blocks, main]:
            archive.add(*rows_of(applied, certified))
        archive.close()
        self._blocks = []

    def sizes(self) -> dict[str, int]:
        """Bytes of an area's log and of a master's log and archive."""
        archive = sum(path.stat().st_size for path in self.archive_path.parent.glob("archive.sqlite*"))
        return {"area": self.areas[1].log_bytes(), "master": self.main.log_bytes() + archive}

    def header_bytes(self) -> int:
        """A certified header."""
        return sum(map(len, self.areas[1].last))

    def close(self) -> None:
        """Release the files."""
        for chain in (*self.areas.values(), self.main):
            chain.close()


def _found(keys: dict[int, list[PrivateKey]], regulator: PrivateKey) -> Genesis:
    def seats(chain: int, name: str) -> list[Validator]:
        return [Validator(f"{name}-node{i}", key.public) for i, key in enumerate(keys[chain])]

    areas = [AreaGenesis(chain, f"area{chain}", seats(chain, f"area{chain}")) for chain in keys if chain]
    grid, aggregator = make_key("growth grid").public, make_key("growth aggregator").public
    main, rules = seats(0, "main"), [codec.encode(RULES_1)]
    return Genesis("growth", START_S, regulator.public, grid, aggregator, main, areas, rules, RULES_1.version, 0)


def measure(s: int, batch_ms: int, homes: int = HOMES) -> dict[str, Any]:
    """Bytes per day by role."""
    folder = Path(tempfile.mkdtemp(prefix="wattpact-growth-"))
    try:
        utility = Utility(folder, s, homes)
        utility.live(batch_ms)
        after = utility.sizes()
        grown = {name: (after[name] - utility.before[name]) * ROUNDS_PER_DAY // ROUNDS for name in after}
        kept = KEPT_PER_DAY * utility.header_bytes() * (s - 1)
        utility.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "s": s,
        "homes": homes,
        "batch_ms": batch_ms,
        "normal": grown["area"],
        "cross": grown["area"],
        "kept": grown["area"] + kept,
        "paper": s * grown["area"],
        "master": grown["master"],
    }


def run(path: Path, data: dict[str, Any], *, quick: bool) -> None:
    """Measure what `data` does not have yet."""
    wanted: Sequence[tuple[int, int]] = [(s, batch_ms) for s in SHARDS for batch_ms in BATCHES_MS]
    if quick:
        wanted = [(2, batch_ms) for batch_ms in BATCHES_MS]
    known = {(one["s"], one["batch_ms"]) for one in data["growth"]}
    for s, batch_ms in wanted:
        if (s, batch_ms) not in known:
            data["growth"].append(measure(s, batch_ms))
            write_json(path, data)
            print(f"  growth s={s} batch {batch_ms} ms", file=sys.stderr)
