"""`wattpact audit readmit`: an area in quarantine goes on under other validators (CONTRACT.md 17.7, CONSENSUS.md 8.8).

The regulator signs two calls: `Readmit`, which is brought before the main chain, and `Resume`, the word that the area's
new stations begin with. It names the last anchored block, which is looked up in our own copy of the main chain; the
area's state after it comes from the auditor's archive, executed block by block. Run again, the command writes the
same word for a list that the main chain has taken already: a lost file is no harm.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from watt_chain import codec
from watt_chain.codec import DecodeError
from watt_chain.contract import AreaContract
from watt_chain.contract.cross_kinds import Readmit
from watt_chain.contract.cross_objects import Position, position_key
from watt_chain.contract.objects import (
    VALIDATORS_KEY,
    AnchorState,
    KnownList,
    ValidatorList,
    anchor_key,
    known_list_key,
)
from watt_chain.crypto import PrivateKey
from watt_chain.genesis import Validator
from watt_chain.ledger import CorruptionError, Ledger
from watt_chain.resume import RESUME, Resume
from watt_chain.transaction import TRANSACTION_SIZE_MAX, make_transaction, txid
from watt_market.checker import Checker
from watt_node import resumption
from watt_node.byhand import by_hand, show
from watt_node.config import FieldProblem, Section, load
from watt_node.names import chain_name

from watt_master.archive import Archive, ArchiveError
from watt_master.audit import AuditConfig
from watt_master.bring import BringError, Copy, bring, check_wait, limited, sign, within
from watt_master.config import load_key

WHY = {
    "chain": "the main chain has no such area",
    "not-quarantined": "the area is in good standing",
    "key": "a public key of the list is no point of the curve",
    "key-used": "a key of the list before is in it: each new validator makes a new one",
    "role": "only the regulator readmits",
}


class SeatSection(Section, frozen=True, kw_only=True):
    """`[[validators]]`: one of the new list, in the order of their indexes."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9-]{1,32}$")]
    public: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{128}$")]


class ListFile(Section, frozen=True, kw_only=True):
    """The whole file of `--validators FILE`."""

    validators: list[SeatSection]

    def __post_init__(self) -> None:
        for what, values in (
            ("name", [one.name for one in self.validators]),
            ("public key", [one.public for one in self.validators]),
        ):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise FieldProblem("validators", f"{what} {twice[0]} stands there twice")
        if not self.validators:
            raise FieldProblem("validators", "at least one; four tolerate one that lies")

    def seats(self) -> list[Validator]:
        """As the chain has them."""
        return [Validator(one.name, bytes.fromhex(one.public)) for one in self.validators]


class Start(NamedTuple):
    """The area's last anchored block, that the new list goes on from."""

    height: int
    block_hash: bytes
    "Empty when the main chain has taken the list: it may have anchored others since."

    @property
    def is_taken(self) -> bool:
        """Whether the main chain knows the list already."""
        return not self.block_hash


def start_of(copy: Copy, chain: int, seats: list[Validator]) -> Start:
    """Where an area goes on, by our copy of the main chain. BringError."""
    state = copy.ledger.state
    held, known, anchored = map(state.get, (position_key(chain), known_list_key(chain), anchor_key(chain)))
    if known is None or anchored is None:
        raise BringError(f"{chain_name(chain)}: {WHY['chain']}")
    listed = codec.decode(known, KnownList)
    quarantine = held is not None and codec.decode(held, Position).quarantine
    if not quarantine and listed.validators == seats:
        return Start(listed.from_height - 1, b"")
    last = codec.decode(anchored, AnchorState)
    return Start(last.height, last.block_hash)


def area_at(copy: Copy, chain: int, start: Start) -> Ledger:
    """The area's ledger after a block, executed from the auditor's archive. BringError, ArchiveError."""
    ledger = Ledger(copy.genesis, chain, AreaContract(Checker()))

    def executed() -> Iterator[int]:
        with contextlib.closing(Archive(copy.archive_path, copy.network, read_only=True)) as archive:
            for certified in archive.blocks(chain):
                if ledger.head.height == start.height:
                    return
                yield ledger.replay(certified).header.height

    if start.height:
        if not copy.archive_path.exists():
            raise BringError(f"{copy.archive_path} is not there: `wattpact audit run` fetches the area's blocks")
        show(f"{chain_name(chain)} height", executed())
    head = ledger.head
    if head.height < start.height:
        where = f"{chain_name(chain)} up to height {head.height} of {start.height}"
        raise BringError(f"the archive has {where}; let `wattpact audit run` follow")
    if not start.is_taken and head.block_hash != start.block_hash:
        raise BringError(f"{chain_name(chain)}: the archive's block {head.height} is not the one that is anchored")
    return ledger


def word(copy: Copy, key: PrivateKey, chain: int, seats: list[Validator]) -> bytes:
    """The Resume of the area, tried on its state after the last anchored block. BringError, ArchiveError."""
    start = start_of(copy, chain, seats)
    ledger = area_at(copy, chain, start)
    now = codec.decode(ledger.state.get(VALIDATORS_KEY) or b"", ValidatorList)
    # Of two words the larger counts, and the state may have lost the one before: so the readmissions are counted.
    before = copy.readmissions.get(chain, 0) - start.is_taken
    fields = Resume(now.sequence + before + 1, ledger.head.height + 1, ledger.head.block_hash, seats)
    nonce = ledger.next_nonce(key.public)
    if nonce < 0:
        _refuse(chain, "role")
    raw = make_transaction(key, copy.network, RESUME, chain, nonce, fields)
    _refuse(chain, ledger.resume(raw))
    return raw


def check(copy: Copy, key: PrivateKey, chain: int, seats: list[Validator]) -> bool:
    """Whether the main chain has yet to take the list. BringError when it would not."""
    if start_of(copy, chain, seats).is_taken:
        return False
    _refuse(chain, sign(copy, key, "Readmit", Readmit(chain, seats))[1])
    return True


async def readmit(copy: Copy, key: PrivateKey, chain: int, seats: list[Validator]) -> int:
    """Have the list recorded; the block's height. BringError."""
    height, code = await bring(copy, key, "Readmit", Readmit(chain, seats))
    _refuse(chain, code)
    return height


def _refuse(chain: int, code: str) -> None:
    if code:
        raise BringError(f"{chain_name(chain)}: {code}: {WHY.get(code, 'CONTRACT.md 17.7')}")


def write(path: Path, raw: bytes) -> None:
    """The word's file, safe on the disk. BringError when the name is taken by something else; OSError."""
    if path.exists():
        with path.open("rb") as file:
            held = file.read(TRANSACTION_SIZE_MAX)
        with contextlib.suppress(DecodeError):
            if txid(held) == txid(raw):
                return
        raise BringError(f"{path} exists and holds something else; choose another name")
    resumption.write(path, raw)


def run(
    config_path: Path, chain: int, list_path: Path, key_path: Path, out: Path, wait_s: int, *, as_json: bool
) -> int:
    """Readmit an area; 0 when the main chain has taken the list and the word is written, 1 with one line otherwise."""

    def work() -> str:
        check_wait(wait_s)
        seats, key = load(list_path, ListFile).seats(), load_key(key_path)
        copy = Copy(load(config_path, AuditConfig))
        show("height", copy.from_archive())

        async def steps() -> int:
            await limited(copy, wait_s, copy.catch_up())
            is_new = check(copy, key, chain, seats)  # no word is signed against an area in good standing
            raw = await asyncio.to_thread(word, copy, key, chain, seats)
            write(out, raw)  # before the main chain is told: without the word nobody could go on
            return await limited(copy, wait_s, readmit(copy, key, chain, seats)) if is_new else 0

        recorded = within(copy, steps())
        first = start_of(copy, chain, seats).height + 1
        if as_json:
            return json.dumps({"chain": chain, "from_height": first, "recorded": recorded, "word": str(out)})
        said = (
            f"recorded in block {recorded} of the main chain"
            if recorded
            else "the main chain had taken the list before"
        )
        names = ", ".join(seat.name for seat in seats)
        return (
            f"{chain_name(chain)}: height {first} is made by {names}; {said}\n"
            f"{out}: bring it to each of them, for `wattpact station resume` (station/README.md, readmitted)"
        )

    return by_hand("audit readmit", work, (BringError, ArchiveError, CorruptionError))
