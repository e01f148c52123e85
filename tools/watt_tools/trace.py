"""`wattpact trace DIR ...`: the regulator's question, answered from a master's archive; its proofs are checked here.

wattpact trace DIR TXID               one transaction: what it said, what became of it, which votes and anchor hold it
wattpact trace DIR AREA/EVENT/NUMBER  one matched pair: how it stands and every call that made it
wattpact trace DIR 0/EVENT/NUMBER     one trade across areas: as both areas and the main chain have it, and every call
"""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from watt_chain.codec import DecodeError
from watt_chain.genesis import open_genesis
from watt_chain.ledger import CorruptionError
from watt_master.archive import Archive, ArchiveError, TransactionRow
from watt_master.trace import TraceError, Tracer, TransactionTrace, signers

from watt_tools.show import money

PAIR = re.compile(r"(\d+)/(\d+)/(\d+)\Z")
TXID = re.compile(r"[0-9a-f]{64}\Z")


def main(folder: Path, what: str, master: int) -> int:
    """Print the answer; exit code 1 with one line when there is none or a proof fails."""
    try:
        regulator = bytes.fromhex((folder / "trust/regulator.pub").read_text().strip())
        genesis, network = open_genesis((folder / "genesis.bin").read_bytes(), regulator)
        archive = Archive(folder / f"main/node{master}/archive.sqlite", network, read_only=True)
        tracer = Tracer(archive, genesis)
        pair = PAIR.match(what)
        if pair and pair[1] == "0":
            _print_trade(tracer, int(pair[2]), int(pair[3]))
        elif pair:
            _print_contract(tracer, int(pair[1]), int(pair[2]), int(pair[3]))
        elif TXID.match(what):
            _print_transaction(tracer.transaction(bytes.fromhex(what)))
        else:
            raise TraceError(f"{what!r} is neither a transaction id (64 hex digits) nor AREA/EVENT/NUMBER")
    except (OSError, ValueError, DecodeError, ArchiveError, TraceError, CorruptionError) as error:
        print(f"wattpact trace: {error}", file=sys.stderr)
        return 1
    return 0


def _print_transaction(trace: TransactionTrace, margin: str = "") -> None:
    row = trace.row
    moment = datetime.datetime.fromtimestamp(trace.time_s, datetime.UTC).isoformat(sep=" ")
    print(f"{margin}transaction {row.txid.hex()}")
    print(f"{margin}  {row.kind} by account {row.signer_id.hex()}: {row.code or 'accepted'}")
    print(f"{margin}  chain {row.chain}, block {row.height} ({trace.block_hash.hex()[:16]}...), {moment} UTC")
    print(f"{margin}  final by votes of nodes {', '.join(map(str, signers(trace)))}; receipt proof checked")
    if trace.anchor is not None:
        print(f"{margin}  its block is anchored on the main chain:")
        _print_transaction(trace.anchor, margin + "    ")


def _print_contract(tracer: Tracer, area: int, event: int, number: int) -> None:
    trace = tracer.contract(area, event, number)
    pair = trace.pair
    print(f"contract {number} of event {event} in area {area}: {pair.state}")
    print(f"  seller {pair.seller.hex()}, buyer {pair.buyer.hex()}")
    print(f"  Wh per slot {pair.slot_wh}, price u/Wh {pair.price_u_per_wh}")
    print(f"  charge {money(pair.charge_u)}, paid {money(pair.paid_u)}; state proof at height {trace.height} checked")
    print("  calls that made, confirmed or settled it:")
    _print_calls(trace.calls)


def _print_trade(tracer: Tracer, event: int, number: int) -> None:
    trace = tracer.trade(event, number)
    terms = trace.main.terms
    print(f"trade {number} of event {event} across areas: {trace.main.state} {trace.main.reason}".rstrip())
    seller, buyer = (
        f"{terms.seller.hex()} in area {terms.seller_chain}",
        f"{terms.buyer.hex()} in area {terms.buyer_chain}",
    )
    print(f"  seller {seller}, buyer {buyer}")
    print(f"  Wh per slot {terms.slot_wh}, price u/Wh {terms.price_u_per_wh}")
    print(f"  charge {money(terms.charge_u)}, paid {money(trace.main.paid_u)}")
    for chain, half in trace.halves.items():
        if half is None:
            print(f"  area {chain}: never took its part of the matching")
            continue
        held = money(half.escrow_u + half.bond_u)
        print(f"  area {chain}: {half.state}, {held} still held; state proof at height {trace.heights[chain]} checked")
    for chain in trace.heights:
        print(f"  calls on {f'area {chain}' if chain else 'the main chain'}:")
        _print_calls(row for row in trace.calls if row.chain == chain)


def _print_calls(calls: Iterable[TransactionRow]) -> None:
    for row in calls:
        outcome = row.code or "accepted"
        print(f"    block {row.height:>5}  {row.kind:20} by {row.signer_id.hex()}  {outcome:12} {row.txid.hex()}")
