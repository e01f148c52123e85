"""`wattpact audit accuse`: brings a proven fork of an area before the main chain (CONTRACT.md 17.7).

The proof is the file that `wattpact audit run` left as `proof-fork-<chain>-<height>`: the bytes of the call. What it
says is tried on our own copy of the main chain first, so a proof that cannot convict costs nothing and is told why.
Nothing that a master answers is believed: the copy is executed from certified blocks, and the outcome is the receipt
in one of them.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from watt_chain import codec
from watt_chain.block import CERTIFICATE_SIZE_MAX, HEADER_SIZE_MAX, Header, Receipt
from watt_chain.codec import DecodeError
from watt_chain.contract import MainContract
from watt_chain.contract.cross_guard import ForkProof, fork_key
from watt_chain.contract.cross_kinds import MAIN_KINDS, Fork
from watt_chain.crypto import PrivateKey
from watt_chain.genesis import faults_tolerated
from watt_chain.ledger import CorruptionError, Ledger
from watt_chain.transaction import make_transaction, txid
from watt_market.checker import Checker
from watt_node.ask import ask_all
from watt_node.byhand import by_hand, show
from watt_node.channel import tls_context
from watt_node.config import load
from watt_node.log import Log
from watt_node.names import chain_name
from watt_node.node import load_genesis
from watt_node.peers import HEARTBEAT_S
from watt_node.remote import Remote
from watt_wire import merkle

from watt_master.archive import Archive, ArchiveError
from watt_master.audit import AuditConfig
from watt_master.config import load_key
from watt_master.view import MAIN

KIND = "Fork"
PROOF_BYTES_MAX = 2 * (HEADER_SIZE_MAX + CERTIFICATE_SIZE_MAX) + 64
"""Two headers with their certificates."""
WAIT_MOST_S = 3600
"""A main chain that makes no block for an hour needs a person before this call does."""
RETRY_S = HEARTBEAT_S / 2
"""Between two tries to hand in a call that nobody took: a node that has too many followers of our name notices within
HEARTBEAT_S which of them are gone."""
TAKEN = ("", "duplicate", "final", "nonce-used", "nonce-taken")
"""Answers after which a block says what became of the call, or that another call of the key was faster."""
TRIES_MAX = 3
"""Somebody else may use the key's next nonce meanwhile; who is beaten three times has another service running on it."""
WHY = {
    "proof": "one of the two blocks is not certified by the list of the area that the main chain knows",
    "no-conflict": "the two are one block, or of different heights or areas: that is no fork",
    "chain": "the main chain has no such area",
    "known": "the area is in quarantine for a fork already",
    "stale": "the area has been readmitted under another list since: those who signed this are out",
    "unknown-signer": "this key may not sign on the main chain: it takes the key of an office or of a master",
}


class AccuseError(Exception):
    """Why nothing was done, or nothing came of it; one line for the operator."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A fork, and what it is about."""

    fields: Fork
    chain: int
    height: int


def read_proof(path: Path) -> Proof:
    """The proof of a file. AccuseError; OSError when it cannot be read."""
    with path.open("rb") as file:
        data = file.read(PROOF_BYTES_MAX + 1)
    if len(data) > PROOF_BYTES_MAX:
        raise AccuseError(f"{path}: larger than {PROOF_BYTES_MAX} bytes, the most that a fork's proof has")
    try:
        fields = codec.decode(data, Fork)
        headers = [codec.decode(one.header, Header, HEADER_SIZE_MAX) for one in (fields.first, fields.second)]
    except DecodeError as error:
        raise AccuseError(f"{path}: not the proof of a fork (proof-fork-... of an auditor): {error}") from None
    return Proof(fields, headers[0].chain, headers[0].height)


class Copy:
    """Our own main chain: executed from the auditor's archive, then from the masters' blocks."""

    def __init__(self, config: AuditConfig) -> None:
        """Reads the files that the configuration names. ConfigError."""
        self._config = config
        genesis, self.network = load_genesis(config.network)
        self.ledger = Ledger(genesis, MAIN, MainContract(Checker()))
        self.codes: dict[bytes, tuple[int, str]] = {}
        "txid -> (height, code) of every call in the blocks that we followed."
        self._context = tls_context(config.tls, server=False)
        self.remote = Remote(config.main, self._context, config.name, self.network, Log("accuse", "error"))

    def from_archive(self) -> Iterator[int]:
        """Execute what an auditor in this folder has; yields each height. ArchiveError, CorruptionError."""
        path = self._config.data / "archive.sqlite"
        if not path.exists():
            return  # everything is asked of the masters
        with contextlib.closing(Archive(path, self.network, read_only=True)) as archive:
            for certified in archive.blocks(MAIN):
                yield self.ledger.replay(certified).header.height

    async def catch_up(self) -> None:
        """To a height that an honest master tells, as far as f of them lie. AccuseError."""
        answers = await ask_all(self._config.main, self._context, self._config.name, self.network)
        claims = [answer.report.get("height") for answer in answers.values() if not answer.problem]
        told = sorted((claim for claim in claims if isinstance(claim, int)), reverse=True)
        if not told:
            problems = ", ".join(f"{name} ({answer.problem})" for name, answer in sorted(answers.items()))
            raise AccuseError(f"no master of [[main]] can be asked: {problems}")
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
        return ""

    def tried(self, tx: bytes) -> str:
        """What the next block would say of this call: "" or the reason."""
        leader = self.ledger.schedule.leader(self.ledger.head.height + 1, 0)
        block = self.ledger.build(0, leader, 0, [tx])
        if not block.transactions:
            return "nonce"
        root = codec.decode(block.header, Header, HEADER_SIZE_MAX).receipt_root
        codes = ("", *MAIN_KINDS[KIND].reasons, "revoked", "role", "malformed")
        roots = {merkle.root([merkle.leaf_hash(codec.encode(Receipt(txid(tx), code)))]): code for code in codes}
        return roots[root]


async def accuse(copy: Copy, key: PrivateKey, proof: Proof) -> tuple[int, list[str]]:
    """Have the proof recorded; the block's height and who signed both. AccuseError."""
    await copy.catch_up()
    for _ in range(TRIES_MAX):
        nonce = copy.ledger.next_nonce(key.public)
        if nonce < 0:
            raise AccuseError(WHY["unknown-signer"])
        tx = make_transaction(key, copy.network, KIND, MAIN, nonce, proof.fields)
        code = copy.tried(tx)
        if not code:
            answer = await copy.remote.submit(tx)
            for _ in range(TRIES_MAX):
                if answer != "unreachable":
                    break
                await asyncio.sleep(RETRY_S)
                answer = await copy.remote.submit(tx)
            if answer not in TAKEN:
                raise AccuseError(f"no master takes the call: {answer}")
            await copy.follow(lambda tx=tx, nonce=nonce: txid(tx) in copy.codes or _passed(copy, key, nonce))  # type: ignore[misc]
            if txid(tx) not in copy.codes:
                continue  # another call of this key was faster
            height, code = copy.codes[txid(tx)]
        if code:
            raise AccuseError(f"{chain_name(proof.chain)} height {proof.height}: {code}: {WHY.get(code, 'refused')}")
        held = copy.ledger.state.get(fork_key(proof.chain, proof.height))
        return height, codec.decode(held or b"", ForkProof).signers
    raise AccuseError(f"other calls of this key took its nonce {TRIES_MAX} times; stop what else signs with it")


def _passed(copy: Copy, key: PrivateKey, nonce: int) -> bool:
    return copy.ledger.next_nonce(key.public) > nonce


def run(config_path: Path, key_path: Path, proof_path: Path, wait_s: int, *, as_json: bool) -> int:
    """Accuse an area; 0 when the main chain has recorded the fork, 1 with one line when it has not."""

    async def within(copy: Copy, key: PrivateKey, proof: Proof) -> tuple[int, list[str]]:
        try:
            async with asyncio.timeout(wait_s):
                return await accuse(copy, key, proof)
        except TimeoutError:
            at = copy.ledger.head.height
            raise AccuseError(f"no block with the call within {wait_s} s; the main chain is at height {at}") from None
        finally:
            copy.remote.close()

    def work() -> str:
        if not 0 < wait_s <= WAIT_MOST_S:
            raise AccuseError(f"--wait {wait_s}: from 1 to {WAIT_MOST_S} seconds")
        proof, key, copy = read_proof(proof_path), load_key(key_path), Copy(load(config_path, AuditConfig))
        show("height", copy.from_archive())
        height, signers = asyncio.run(within(copy, key, proof))
        about = {"chain": proof.chain, "height": proof.height, "signers": signers, "recorded": height}
        if as_json:
            return json.dumps(about)
        named = ", ".join(signers)
        return (
            f"{chain_name(proof.chain)}: two blocks of height {proof.height}, both signed by {named}\n"
            f"recorded in block {height} of the main chain; the area is in quarantine (CONTRACT.md 17.7)"
        )

    return by_hand("audit accuse", work, (AccuseError, ArchiveError, CorruptionError))
