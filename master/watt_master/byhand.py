"""`wattpact master export | import | accept-disk | storage`: as a station's, for the main chain and all areas."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from watt_chain.codec import DecodeError
from watt_chain.contract import AreaContract, MainContract
from watt_chain.ledger import CorruptionError, Ledger
from watt_market.engine import Market
from watt_node import holdings
from watt_node.byhand import accept_disk, by_hand, log_of, take_in, take_out
from watt_node.clock import monotonic_ms
from watt_node.config import ConfigError
from watt_node.node import keeping_of, load_genesis
from watt_node.offline import StoppedNode

from watt_master.archive import Archive, ArchiveError, open_archive
from watt_master.areas import AreaHalted, AreaReplica
from watt_master.config import load_config
from watt_master.restart import AreaSnapshots, restore
from watt_master.view import MAIN

ERRORS = (ArchiveError, AreaHalted)


def run_export(config_path: Path, out: Path, chain: int, first: int, last: int | None) -> int:
    """Write a chain's blocks to a file; also while the master runs."""

    def work() -> str:
        config = load_config(config_path)
        if chain == MAIN:
            return take_out(log_of(config.node.data), out, first, last)
        archive = Archive(config.node.data / "archive.sqlite", load_genesis(config.network)[1], read_only=True)
        with contextlib.closing(archive):
            return take_out(archive.blocks(chain, first), out, first, last)

    return by_hand("master export", work, ERRORS)


def run_storage(config_path: Path, *, as_json: bool) -> int:
    """Bytes on disk by kind; also while the master runs."""

    def work() -> str:
        config = load_config(config_path)
        genesis, network = load_genesis(config.network)
        held = holdings.of_folder(config.node.data, Ledger(genesis, MAIN, MainContract(Market())), network)
        return json.dumps(holdings.as_data(held)) if as_json else holdings.shown(held)

    return by_hand("master storage", work, (CorruptionError,))


def run_import(config_path: Path, path: Path, chain: int) -> int:
    """Put a file's blocks in; the master must not run."""

    def work() -> str:
        with _stopped(config_path) as node:  # its lock keeps the daemon away from the archive too
            if chain == MAIN:
                return take_in(path, node, node.ledger.network)
            data = load_config(config_path).node.data
            with contextlib.closing(open_archive(data / "archive.sqlite", node.ledger.network)[0]) as archive:
                return take_in(path, _Area(node, data, archive, chain), node.ledger.network)

    return by_hand("master import", work, ERRORS)


def run_accept_disk(config_path: Path, yes: bool) -> int:
    """End the doubt of a master that does not run."""

    def work() -> str:
        with _stopped(config_path) as node:
            return accept_disk(node, yes)

    return by_hand("master accept-disk", work)


@contextlib.contextmanager
def _stopped(config_path: Path) -> Iterator[StoppedNode]:
    config = load_config(config_path)
    genesis, network = load_genesis(config.network)
    section = config.node
    node = StoppedNode(section.data, genesis, network, MAIN, MainContract(Market()), keeping_of(section))
    try:
        yield node
    finally:
        node.close()


class _Area:
    """`Taker` of an area's blocks: executed and archived as those of a station."""

    def __init__(self, node: StoppedNode, data: Path, archive: Archive, chain: int) -> None:
        if chain not in node.ledger.genesis.chains():
            raise ConfigError(f"the network has no chain {chain}")
        contract = AreaContract(Market())
        every = node.vault.keeping.snapshot_blocks
        self._replica = AreaReplica(node.ledger.genesis, chain, contract, archive, monotonic_ms, every)
        self._archive = archive
        self._snapshots = AreaSnapshots(data, chain, node.ledger.network)
        for _ in restore(self._replica, archive, self._snapshots):
            pass

    @property
    def height(self) -> int:
        """`Taker`."""
        return self._replica.height

    def block(self, height: int) -> bytes | None:
        """`Taker`."""
        stored = self._archive.block(self._replica.chain, height)
        return None if stored is None else stored.certified

    def take(self, certified: bytes) -> None:
        """`Taker`."""
        reason = self._replica.check(certified)
        if reason:
            raise DecodeError(reason)
        state = self._snapshots.due(self._replica)
        if state is not None:
            self._snapshots.write(state)
