"""One call of an office, brought before the main chain by hand: tried on a copy of our own, handed in, waited for.

Nothing that a master answers is believed: the copy is executed from certified blocks, and the outcome is the receipt
in one of them. A call that the next block would refuse is not sent.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from watt_chain import codec
from watt_chain.block import HEADER_SIZE_MAX, Header, Receipt
from watt_chain.codec import DecodeError
from watt_chain.contract import MainContract
from watt_chain.contract.cross_kinds import MAIN_KINDS, Readmit
from watt_chain.crypto import PrivateKey
from watt_chain.genesis import faults_tolerated
from watt_chain.ledger import AppliedBlock, Ledger
from watt_chain.transaction import decode_transaction, make_transaction, txid
from watt_market.checker import Checker
from watt_node.ask import ask_all
from watt_node.channel import tls_context
from watt_node.log import Log
from watt_node.node import load_genesis
from watt_node.peers import HEARTBEAT_S
from watt_node.remote import Remote
from watt_wire import merkle

from watt_master.archive import Archive
from watt_master.audit import AuditConfig
from watt_master.view import MAIN

WAIT_MOST_S = 3600
"""A main chain that makes no block for an hour needs a person before this call does."""
RETRY_S = HEARTBEAT_S / 2
"""Between two tries when nobody answered or took the call: a node that has too many followers of our name notices
within HEARTBEAT_S which of them are gone."""
TAKEN = ("", "duplicate", "final", "nonce-used", "nonce-taken")
"""Answers after which a block says what became of the call, or that another call of the key was faster."""
TRIES_MAX = 3
"""Somebody else may use the key's next nonce meanwhile; who is beaten three times has another service running on it."""
UNKNOWN_SIGNER = "this key may not sign on the main chain: it takes the key of an office or of a master"

T = TypeVar("T")


class BringError(Exception):
    """Why nothing was done, or nothing came of it; one line for the operator."""


class Copy:
    """Our own main chain: executed from the auditor's archive, then from the masters' blocks."""

    def __init__(self, config: AuditConfig) -> None:
        """Reads the files that the configuration names. ConfigError."""
        self._config = config
        self.genesis, self.network = load_genesis(config.network)
        self.ledger = Ledger(self.genesis, MAIN, MainContract(Checker()))
        self.codes: dict[bytes, tuple[int, str]] = {}
        "txid -> (height, code) of every call in the blocks that we followed."
        self.readmissions: dict[int, int] = {}
        "Area -> how often it was readmitted; each time the regulator's word needs a larger number."
        self._context = tls_context(config.tls, server=False)
        self.remote = Remote(config.main, self._context, config.name, self.network, Log("audit", "error"))

    @property
    def archive_path(self) -> Path:
        """What an auditor in this folder has archived."""
        return self._config.data / "archive.sqlite"

    def from_archive(self) -> Iterator[int]:
        """Execute what an auditor in this folder has; yields each height. ArchiveError, CorruptionError."""
        if not self.archive_path.exists():
            return  # everything is asked of the masters
        with contextlib.closing(Archive(self.archive_path, self.network, read_only=True)) as archive:
            for certified in archive.blocks(MAIN):
                applied = self.ledger.replay(certified)
                self._note(applied)
                yield applied.header.height

    async def catch_up(self) -> None:
        """To a height that an honest master tells, as far as f of them lie. BringError."""
        for again in range(TRIES_MAX + 1):
            await asyncio.sleep(RETRY_S if again else 0)
            answers = await ask_all(self._config.main, self._context, self._config.name, self.network)
            claims = [answer.report.get("height") for answer in answers.values() if not answer.problem]
            told = sorted((claim for claim in claims if isinstance(claim, int)), reverse=True)
            if told:
                break
        else:
            problems = ", ".join(f"{name} ({answer.problem})" for name, answer in sorted(answers.items()))
            raise BringError(f"no master of [[main]] can be asked: {problems}")
        height = told[min(faults_tolerated(len(self.ledger.validators)), len(told) - 1)]
        await self.follow(lambda: self.ledger.head.height >= height)

    async def follow(self, enough: Callable[[], bool]) -> None:
        """Take the masters' blocks until it is enough. CorruptionError."""
        if enough():
            return
        stream = self.remote.follow(self.ledger.head.height + 1, self._take)
        async with contextlib.aclosing(stream) as blocks:  # type: ignore[type-var]
            async for _ in blocks:
                if enough():
                    return

    def _take(self, certified: bytes) -> str:
        try:
            applied = self.ledger.apply(certified)
        except DecodeError as error:
            return str(error)
        for receipt in applied.receipts:
            self.codes[receipt.txid] = applied.header.height, receipt.code
        self._note(applied)
        return ""

    def _note(self, applied: AppliedBlock) -> None:
        for tx, receipt in zip(applied.transactions, applied.receipts, strict=True):
            if tx.kind == "Readmit" and not receipt.code:
                chain = codec.decode(tx.fields_raw, Readmit).chain
                self.readmissions[chain] = self.readmissions.get(chain, 0) + 1

    def tried(self, kind: str, tx: bytes) -> str:
        """What the next block would say of this call: "" or the reason."""
        leader = self.ledger.schedule.leader(self.ledger.head.height + 1, 0)
        block = self.ledger.build(0, leader, 0, [tx])
        if not block.transactions:
            return "nonce"
        root = codec.decode(block.header, Header, HEADER_SIZE_MAX).receipt_root
        codes = ("", *MAIN_KINDS[kind].reasons, "revoked", "role", "malformed")
        roots = {merkle.root([merkle.leaf_hash(codec.encode(Receipt(txid(tx), code)))]): code for code in codes}
        return roots[root]


def sign(copy: Copy, key: PrivateKey, kind: str, fields: object) -> tuple[bytes, str]:
    """The call with the key's next nonce, and what the next block would say of it. BringError."""
    nonce = copy.ledger.next_nonce(key.public)
    if nonce < 0:
        raise BringError(UNKNOWN_SIGNER)
    tx = make_transaction(key, copy.network, kind, MAIN, nonce, fields)
    return tx, copy.tried(kind, tx)


async def bring(copy: Copy, key: PrivateKey, kind: str, fields: object) -> tuple[int, str]:
    """Have a call recorded: the height of its block and the block's code; height 0: it was not sent, for it would be
    refused with this code. BringError."""
    for _ in range(TRIES_MAX):
        tx, code = sign(copy, key, kind, fields)
        if code:
            return 0, code
        answer = await copy.remote.submit(tx)
        for _ in range(TRIES_MAX):
            if answer != "unreachable":
                break
            await asyncio.sleep(RETRY_S)
            answer = await copy.remote.submit(tx)
        if answer not in TAKEN:
            raise BringError(f"no master takes the call: {answer}")
        nonce = decode_transaction(tx).nonce
        await copy.follow(lambda tx=tx, nonce=nonce: txid(tx) in copy.codes or _passed(copy, key, nonce))  # type: ignore[misc]
        if txid(tx) in copy.codes:
            return copy.codes[txid(tx)]
    raise BringError(f"other calls of this key took its nonce {TRIES_MAX} times; stop what else signs with it")


async def limited(copy: Copy, wait_s: int, work: Coroutine[Any, Any, T]) -> T:
    """Wait for `work`. BringError when it takes longer than `wait_s`."""
    try:
        async with asyncio.timeout(wait_s):
            return await work
    except TimeoutError:
        at = copy.ledger.head.height
        raise BringError(f"no block with the call within {wait_s} s; the main chain is at height {at}") from None


def within(copy: Copy, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a loop of its own and end the copy's connections."""

    async def closed() -> T:
        try:
            return await work
        finally:
            copy.remote.close()

    return asyncio.run(closed())


def check_wait(wait_s: int) -> None:
    """BringError for a time that nobody should wait."""
    if not 0 < wait_s <= WAIT_MOST_S:
        raise BringError(f"--wait {wait_s}: from 1 to {WAIT_MOST_S} seconds")


def _passed(copy: Copy, key: PrivateKey, nonce: int) -> bool:
    return copy.ledger.next_nonce(key.public) > nonce
