"""`wattpact station export | import | accept-disk | storage`."""

import json
from pathlib import Path

from watt_chain.contract import AreaContract
from watt_chain.crypto import PrivateKey
from watt_chain.ledger import CorruptionError, Ledger
from watt_market.checker import Checker
from watt_node import holdings
from watt_node.byhand import accept_disk, by_hand, log_of, take_in, take_out
from watt_node.config import load
from watt_node.keys import read_secret
from watt_node.node import keeping_of, load_genesis
from watt_node.offline import StoppedNode
from watt_node.resumption import keep

from watt_station.service import StationConfig


def run_export(config_path: Path, out: Path, first: int, last: int | None) -> int:
    """Write the station's blocks to a file; also while it runs."""

    def work() -> str:
        return take_out(log_of(load(config_path, StationConfig).node.data), out, first, last)

    return by_hand("station export", work)


def run_import(config_path: Path, path: Path) -> int:
    """Put a file's blocks in; the station must not run."""

    def work() -> str:
        node = _stopped(config_path)
        try:
            return take_in(path, node, node.ledger.network)
        finally:
            node.close()

    return by_hand("station import", work)


def run_accept_disk(config_path: Path, yes: bool) -> int:
    """End the doubt of a station that does not run."""

    def work() -> str:
        node = _stopped(config_path)
        try:
            return accept_disk(node, yes)
        finally:
            node.close()

    return by_hand("station accept-disk", work)


def run_resume(config_path: Path, path: Path) -> int:
    """Let a station that does not run go on under the regulator's word."""

    def work() -> str:
        section = load(config_path, StationConfig).node
        node = _stopped(config_path)
        try:
            return keep(node, section.data, path, PrivateKey(read_secret(section.key)).public)
        finally:
            node.close()

    return by_hand("station resume", work)


def _stopped(config_path: Path) -> StoppedNode:
    config = load(config_path, StationConfig)
    genesis, network = load_genesis(config.network)
    section = config.node
    contract = AreaContract(Checker())
    return StoppedNode(section.data, genesis, network, section.chain, contract, keeping_of(section))


def run_storage(config_path: Path, *, as_json: bool) -> int:
    """Bytes on disk by kind; also while the station runs."""

    def work() -> str:
        config = load(config_path, StationConfig)
        genesis, network = load_genesis(config.network)
        ledger = Ledger(genesis, config.node.chain, AreaContract(Checker()))
        held = holdings.of_folder(config.node.data, ledger, network)
        return json.dumps(holdings.as_data(held)) if as_json else holdings.shown(held)

    return by_hand("station storage", work, (CorruptionError,))
