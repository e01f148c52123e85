"""The two layers of chains as an evening left them on the disks of its processes."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from evening import Evening
from watt_chain import codec
from watt_chain.block import Block, Certificate, Header, block_hash, check_certificate, decode_certified
from watt_chain.contract import kinds
from watt_chain.genesis import Genesis, open_genesis, quorum
from watt_chain.light import ReceiptProof
from watt_chain.transaction import DecodedTransaction, decode_transaction
from watt_node.store import read_blocks
from watt_tools import readout

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(500)]
MAIN, AREAS, HAMLET = 0, (1, 2), 3
"The hamlet is the small area that goes dark for a while."
NODES = 4


@dataclass(frozen=True)
class Final:
    """A final block of somebody's log."""

    data: bytes
    block: Block
    header: Header
    certificate: Certificate
    txs: tuple[DecodedTransaction, ...]


def folder_of(evening: Evening, chain: int, node: int) -> Path:
    return evening.folder / (f"area{chain}" if chain else "main") / f"node{node}"


@cache
def blocks(path: Path) -> tuple[Final, ...]:
    found = []
    for data in read_blocks(path / "blocks.log"):
        _, block, header, certificate = decode_certified(data)
        found.append(
            Final(data, block, header, certificate, tuple(decode_transaction(tx) for tx in block.transactions))
        )
    return tuple(found)


def chain_of(evening: Evening, chain: int) -> tuple[Final, ...]:
    """The longest log of a chain."""
    return max((blocks(folder_of(evening, chain, node)) for node in range(NODES)), key=len)


def genesis_of(evening: Evening) -> tuple[Genesis, bytes]:
    return open_genesis((evening.folder / "genesis.bin").read_bytes())


def archived(evening: Evening, master: int) -> dict[tuple[int, int], bytes]:
    """(chain, height) -> header hash in a master's archive."""
    path = folder_of(evening, MAIN, master) / "archive.sqlite"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as archive:
        return {
            (chain, height): hash_ for chain, height, hash_ in archive.execute("SELECT chain, height, hash FROM block")
        }


@cache
def replayed(folder: Path) -> tuple[readout.Final, ...]:
    return tuple(readout.read(folder).transactions)


def calls(evening: Evening, chain: int, kind: str) -> list[tuple[Header, DecodedTransaction]]:
    """Calls that were carried out. What was refused depends on who was faster: two nodes may bring one message."""
    headers = {final.header.height: final.header for final in chain_of(evening, chain)}
    done = [one for one in replayed(evening.folder) if one.chain == chain and not one.code and one.tx.kind == kind]
    return [(headers[one.height], one.tx) for one in done]


@pytest.mark.row("B2", "B4", "B5", "B14", "B29", "B38")
def test_every_master_holds_every_block_of_every_area(quiet: Evening) -> None:
    _, network = genesis_of(quiet)
    for master in range(NODES):
        known = archived(quiet, master)
        for chain in AREAS:
            for final in chain_of(quiet, chain):
                assert known[chain, final.header.height] == block_hash(network, final.block.header)
        assert len(blocks(folder_of(quiet, MAIN, master))) == len(chain_of(quiet, MAIN))


@pytest.mark.row("B3", "B6", "B24", "M47")
def test_one_chain_per_area_below_one_of_the_grid_company(quiet: Evening) -> None:
    genesis, _ = genesis_of(quiet)
    assert [area.chain for area in genesis.areas] == [*AREAS, HAMLET]
    seats = [validator.public for chain in genesis.chains() for validator in genesis.validators(chain)]
    assert len(seats) == len(set(seats)) == NODES * (2 + len(AREAS)), "no node sits in two chains"
    office = {
        name
        for name in ("main", "area1", "area2", "area3")
        for node in range(NODES)
        if "[services.grid]" in (quiet.folder / name / f"node{node}.toml").read_text()
    }
    assert office == {"main"}, "the grid company's office runs on the main chain's nodes only"


@pytest.mark.row("B10", "B22")
def test_every_household_belongs_to_exactly_one_area(quiet: Evening) -> None:
    homes = json.loads((quiet.folder / "network.json").read_text())["homes"]
    enrolled: dict[bytes, list[int]] = {}
    for chain in (*AREAS, HAMLET):
        for _, tx in calls(quiet, chain, "Enrol"):
            fields = codec.decode(tx.fields_raw, kinds.Enrol)
            for plug in fields.plugs:
                enrolled.setdefault(plug.public, []).append(chain)
    assert len(homes) >= 24
    for home in homes:
        assert enrolled[bytes.fromhex(home["plug_public"])] == [home["area"]]
    for chain in AREAS:
        served = {home["node"] for home in homes if home["area"] == chain}
        assert served == set(range(NODES)), "every station node serves terminals"
        reporting = {tx.signer for _, tx in calls(quiet, chain, "Checkpoint")}
        assert len(reporting) == sum(home["area"] == chain for home in homes)


@pytest.mark.row("B11", "B15", "A19")
def test_each_chain_is_certified_by_a_quorum_of_its_own_nodes(quiet: Evening) -> None:
    genesis, network = genesis_of(quiet)
    for chain in (MAIN, *AREAS):
        own = tuple(validator.public for validator in genesis.validators(chain))
        other = tuple(validator.public for validator in genesis.validators((chain + 1) % 3))
        for final in chain_of(quiet, chain)[-10:]:
            hash_ = block_hash(network, final.block.header)
            assert len(final.certificate.votes) == quorum(NODES)
            assert check_certificate(final.certificate, network, final.header, hash_, own) == ""
            assert check_certificate(final.certificate, network, final.header, hash_, other) != ""


@pytest.mark.row("B16", "B18", "B19")
def test_the_signal_and_the_prices_reach_every_area_and_every_household(quiet: Evening) -> None:
    assert len(calls(quiet, MAIN, "Initial")) == 1 and len(calls(quiet, MAIN, "SettlementAmount")) == 1
    prices = quiet.data["statement"]["prices"]["lambda_u_per_wh"]
    for chain in AREAS:
        brought = [
            codec.decode(entry.message, list)[3]
            for _, tx in calls(quiet, chain, "Inbox")
            for entry in codec.decode(tx.fields_raw, kinds.Inbox).entries
        ]
        assert [kind for kind in brought if kind in ("Initial", "Match", "Prices")] == ["Initial", "Match", "Prices"]
    bills = sorted(quiet.folder.glob("homes/*/bill-1.json"))
    assert len(bills) >= 10
    for path in bills:
        bill = json.loads(path.read_text())
        assert bill["state"] == "CLOSED" and bill["summary"]["rp_u_per_wh"] > 0
        assert any(prices)


@pytest.mark.row("B13", "B18", "B39")
def test_a_main_block_packs_area_blocks_that_were_final_before(quiet: Evening) -> None:
    at: dict[tuple[int, int], Header] = {
        (chain, final.header.height): final.header for chain in (*AREAS, HAMLET) for final in chain_of(quiet, chain)
    }
    anchored = set()
    for header, tx in calls(quiet, MAIN, "Anchor"):
        area = codec.decode(codec.decode(tx.fields_raw, kinds.Anchor).header, Header)
        assert area == at[area.chain, area.height]
        assert area.time_s <= header.time_s
        anchored.add((area.chain, area.height))
    closing = {chain: max(header.height for header, _ in calls(quiet, chain, "Points")) for chain in AREAS}
    assert all((chain, height) in anchored for chain in AREAS for height in range(1, closing[chain] + 1))


@pytest.mark.row("B25")
def test_the_areas_work_at_the_same_time(quiet: Evening) -> None:
    first, second = ([final.header.time_s for final in chain_of(quiet, chain)] for chain in AREAS)
    start, end = max(first[0], second[0]), min(first[-1], second[-1])
    together = sum(start <= time_s <= end for time_s in first) / len(first)
    assert together > 0.8
    order = sorted([(time_s, 1) for time_s in first] + [(time_s, 2) for time_s in second])
    changes = sum(before[1] != after[1] for before, after in pairwise(order))
    assert changes > len(order) // 5, "their blocks come in turn, not one area after the other"


@pytest.mark.row("B12", "B26", "B27", "B31", "B33", "M37")
def test_a_reading_goes_up_layer_by_layer_and_arrives_unchanged(quiet: Evening) -> None:
    """Plug -> gateway's store -> area block -> every master's archive and the main chain's anchors."""
    home = next(one for one in json.loads((quiet.folder / "network.json").read_text())["homes"] if one["area"] == 1)
    store = quiet.folder / "homes" / home["name"] / "gateway.sqlite"
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as gateway:
        frames = dict(gateway.execute("SELECT counter, frame FROM batches ORDER BY counter"))
        open_entries = gateway.execute("SELECT count(*) FROM outbox").fetchone()[0]
    on_chain = {
        codec.decode(tx.fields_raw, kinds.Checkpoint).frame: header.height
        for header, tx in calls(quiet, 1, "Checkpoint")
    }
    known = archived(quiet, 2)
    assert frames and open_entries == 0
    for frame in frames.values():
        assert (1, on_chain[frame]) in known
    assert list(frames) == list(range(min(frames), max(frames) + 1)), "none is missing in between"


@pytest.mark.row("B28", "B35", "D5", "D6")
def test_a_station_holds_its_whole_area_and_nothing_of_another(quiet: Evening) -> None:
    for chain in AREAS:
        longest = [final.block.header for final in chain_of(quiet, chain)]
        for node in range(NODES):
            held = blocks(folder_of(quiet, chain, node))
            assert [final.block.header for final in held] == longest[: len(held)] and len(held) >= len(longest) - 1
            assert {final.header.chain for final in held} == {chain}
    whole = sum(len(final.data) for chain in AREAS for final in chain_of(quiet, chain))
    for chain in AREAS:
        assert sum(len(final.data) for final in chain_of(quiet, chain)) < 0.75 * whole


@pytest.mark.row("B9", "B37")
def test_a_household_keeps_receipts_and_no_chain(quiet: Evening) -> None:
    area = sum(len(final.data) for final in chain_of(quiet, 1))
    for store in sorted(quiet.folder.glob("homes/*/gateway.sqlite")):
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as gateway:
            proofs = [bytes(row[0]) for row in gateway.execute("SELECT proof FROM receipts")]
        assert proofs
        for proof in proofs:
            codec.decode(proof, ReceiptProof)
        assert sum(map(len, proofs)) < area / 4


@pytest.mark.row("B20", "B21", "M46")
def test_three_layers_and_only_the_contract_moves_money(quiet: Evening) -> None:
    """Hardware: plugs and their interpreters; core: chains and contract; application: bills for households."""
    assert "micropython" in quiet.data["interpreters"].values()
    moves = {"Deposit", "Withdraw"}
    for chain in AREAS:
        done = [one for one in replayed(quiet.folder) if one.chain == chain]
        seen = {one.tx.kind for one in done if not one.code}
        assert seen <= {kind for place, kind in kinds.TABLE if place == "area"}
        strange = {one.code for one in done if ("area", one.tx.kind) not in kinds.TABLE}
        assert strange <= {"unknown-kind"}, (
            "what the contract does not know does nothing (a node that came late rejoins so)"
        )
        assert moves & seen == {"Deposit"}, "after the deposits only the contract's own rules move money"
    assert list(quiet.folder.glob("homes/*/bill.json"))


@pytest.mark.row("B17", "B30", "B32", "A12", "E18", "E24")
def test_anybody_can_audit_with_the_export_and_the_regulators_key_alone(quiet: Evening, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    for part in ("export", "trust"):
        shutil.copytree(quiet.folder / part, folder / part)
    command = [sys.executable, "-m", "watt_tools.cli", "verify", str(folder)]
    assert subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0
    key = folder / "trust/regulator.pub"
    other = json.loads((quiet.folder / "network.json").read_text())["homes"][0]["plug_public"]
    key.write_text(other + "\n")
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, text=True)
    assert done.returncode == 1 and "genesis" in done.stdout + done.stderr
