"""A small real export: two households, two areas, one whole event, made by the real ledgers in memory.

The network is that of tests/master (real offices, contracts, market; blocks certified by a quorum of keys). Added here:
plugs whose checkpoints stand on records, and the writing of the export in the form of tools/README.md.
"""

from __future__ import annotations

import importlib.util
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from watt_chain import codec
from watt_chain.contract import kinds
from watt_chain.contract.bidding import commitment_of
from watt_chain.contract.objects import Sealed, account_key, sealed_key
from watt_chain.contract.rules import RULES_1, RuleSet
from watt_chain.crypto import id8, sha256
from watt_chain.genesis import sign_genesis
from watt_tools.export import canonical
from watt_tools.readout import Readout, statement
from watt_wire import checkpoint, merkle, record

ROOT = Path(__file__).parents[1]
END_S = 9000
RECORDS = 2


def load_master_world() -> Any:
    """The helper module of tests/master under a name of its own."""
    name = "verify_master_world"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "master" / "conftest.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


class Habits:
    """What a household does besides being honest; the default is a model household."""

    def __init__(self, commits: bool = True, reveals: bool = True, accepts: bool = True, misses: tuple[int, ...] = (),
                 breaks: tuple[int, ...] = (), withdraws_u: int = 0) -> None:  # fmt: skip
        self.commits, self.reveals, self.accepts = commits, reveals, accepts
        self.misses, self.breaks, self.withdraws_u = misses, breaks, withdraws_u
        "misses, breaks: numbers of the checkpoints that never arrive, or report a discontinuity."


def make_home(master: Any, records: dict[bytes, list[bytes]], habits: Habits, *args: Any) -> Any:
    """A household whose checkpoints stand on records; the records are left in `records` by checkpoint."""

    class Home(master.Home):  # type: ignore[name-defined,misc]
        sequence = 1

        def __init__(self) -> None:
            super().__init__(*args)
            self.habits = habits

        def records(self, time_s: int) -> list[bytes]:
            made = []
            for start_s in range(time_s - RECORDS * 60, time_s, 60):
                energy = self.register_mwh(start_s + 60) if start_s + 60 > master.START_S else 0
                values = (self.sequence, start_s, 60, ord("S"), energy, 0, *range(1, 10), 1, 0)
                made.append(record.encode(record.Record(id8(self.plug.public), *values)))
                self.sequence += 1
            return made

        def checkpoint(self, time_s: int) -> bytes:
            self.counter += 1
            first, frames = self.sequence, self.records(time_s)
            root = merkle.root([merkle.leaf_hash(one) for one in frames])
            reason = checkpoint.DISCONTINUITY if self.counter in self.habits.breaks else checkpoint.PERIODIC
            body = checkpoint.encode(
                checkpoint.Checkpoint(
                    1, id8(self.plug.public), 1, self.counter, self.previous, root, first, len(frames), time_s,
                    ord("S"), self.register_mwh(time_s), 0, bytes(32), bytes(32), reason,
                )
            )  # fmt: skip
            frame = body + self.plug.sign(checkpoint.signing_message(body))
            self.previous = checkpoint.frame_hash(frame)
            records[self.previous] = frames
            return bytes(frame)

    return Home()


def make_world(master: Any, folder: Path, people: list[Any], rules: RuleSet) -> Any:
    """The master's world with households that follow their habits."""

    class World(master.World):  # type: ignore[name-defined,misc]
        def live(self) -> None:
            spec, now_s = master.event_file(), self.now_s
            for home in self.homes:
                chain, habits = self.chains[home.area], home.habits
                if chain.ledger.state.get(account_key(home.id)) is None:
                    continue
                if (now_s - master.START_S) % master.SLOT_S == 0:
                    frame = home.checkpoint(now_s)
                    if home.counter not in habits.misses:
                        chain.call(home.key, "Checkpoint", kinds.Checkpoint(frame, -1 if home.number % 2 else now_s))
                value = chain.ledger.state.get(sealed_key(1, home.id))
                sealed = None if value is None else codec.decode(value, Sealed)
                if spec.open_s <= now_s < spec.commit_close_s and sealed is None and habits.commits:
                    chain.call(home.key, "Commit", kinds.Commit(1, commitment_of(home.reveal(), home.id)))
                opens = sealed is not None and not sealed.revealed and habits.reveals
                if spec.commit_close_s <= now_s < spec.reveal_close_s and opens:
                    chain.call(home.key, "Reveal", home.reveal())
                self.confirm(home, chain, sealed)
                if now_s == spec.meter_close_s + 600 and habits.withdraws_u:
                    chain.call(home.key, "Withdraw", kinds.Withdraw(habits.withdraws_u))
                    chain.call(home.key, "Withdraw", kinds.Withdraw(10**12))  # refused: balance
                    chain.call(home.key, "Deposit", kinds.Deposit(home.id, 1))  # refused: role
                    chain.call(master.GRID, "Deposit", kinds.Deposit(home.id, 12_345))

        def confirm(self, home: Any, chain: Any, sealed: Any) -> None:
            if home.habits.accepts:
                self._confirm(home, chain, sealed)
            elif sealed is not None and sealed.choice == "open" and sealed.status == "qualified":
                chain.call(home.key, "Confirmtransaction", kinds.Confirmtransaction(1, False))

    return World(folder, people, rules)


def play(
    folder: Path, *people: Any, until_s: int = END_S, rules: RuleSet = RULES_1
) -> tuple[Any, dict[bytes, list[bytes]]]:
    """Run a whole event. `people` are (habits, area, number, side, price, use_wh); by default a seller that keeps two
    thirds of its promise and a buyer that keeps its quota, both in area 1."""
    master = load_master_world()
    records: dict[bytes, list[bytes]] = {}
    usual = (
        (Habits(withdraws_u=1_000), 1, 1, "sell", 200, master.QUOTA_WH - 40),
        (Habits(), 1, 2, "buy", 900, master.QUOTA_WH + 60),
    )
    homes = [make_home(master, records, habits, *about) for habits, *about in people or usual]
    world = make_world(master, folder, homes, rules)
    world.run(world.genesis.protocol_start_s + until_s)
    return world, records


def framed(parts: Iterable[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def export(world: Any, records: dict[bytes, list[bytes]]) -> dict[str, bytes]:
    """The files of an export, manifest included."""
    readout = Readout(world.genesis, world.network, {}, {})
    files = {"genesis.bin": sign_genesis(world.genesis, load_master_world().REGULATOR)}
    leaves: dict[tuple[bytes, int], bytes] = {}
    for number, chain in world.chains.items():
        readout.ledgers[number] = chain.ledger
        readout.blocks[number] = [certified for certified, _ in chain.applied]
        files[f"chain-{number}.blocks"] = framed(readout.blocks[number])
        codes = [[receipt.code for receipt in applied.receipts] for _, applied in chain.applied]
        files[f"chain-{number}.codes"] = framed(codec.encode(block) for block in codes)
        files[f"chain-{number}.state"] = framed(codec.encode([k, v]) for k, v in chain.ledger.state.items())
        for tx, receipt in (
            (t, r) for _, one in chain.applied for t, r in zip(one.transactions, one.receipts, strict=True)
        ):
            if tx.kind == "Checkpoint" and not receipt.code:
                frame = codec.decode(tx.fields_raw, kinds.Checkpoint).frame
                about, hash_ = checkpoint.decode(frame), checkpoint.frame_hash(frame)
                leaves[about.plug_id, about.counter] = codec.encode([about.plug_id, hash_, records[hash_]])
    files["leaves.bin"] = framed(leaves[key] for key in sorted(leaves))
    files["statement.json"] = canonical(statement(readout, 1))
    return with_manifest(files)


def with_manifest(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files with a manifest that fits them."""
    hashes = {name: sha256(data).hex() for name, data in files.items() if name != "manifest.json"}
    return {**files, "manifest.json": canonical({"format": 1, "sha256": hashes})}


class Folder:
    """An export on disk; writes only what differs from last time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held: dict[str, bytes] = {}
        path.mkdir()

    def write(self, files: dict[str, bytes]) -> Path:
        for name in self.held.keys() - files.keys():
            (self.path / name).unlink()
        for name, data in files.items():
            if self.held.get(name) != data:
                (self.path / name).write_bytes(data)
        self.held = dict(files)
        return self.path
