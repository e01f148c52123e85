"""`wattpact audit accuse`: brings a proven fork of an area before the main chain (CONTRACT.md 17.7).

The proof is the file that `wattpact audit run` left as `proof-fork-<chain>-<height>`: the bytes of the call. One that
cannot convict costs nothing and is told why.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from watt_chain import codec
from watt_chain.block import CERTIFICATE_SIZE_MAX, HEADER_SIZE_MAX, Header
from watt_chain.codec import DecodeError
from watt_chain.contract.cross_guard import ForkProof, fork_key
from watt_chain.contract.cross_kinds import Fork
from watt_chain.crypto import PrivateKey
from watt_chain.ledger import CorruptionError
from watt_node.byhand import by_hand, show
from watt_node.config import load
from watt_node.names import chain_name

from watt_master.archive import ArchiveError
from watt_master.audit import AuditConfig
from watt_master.bring import BringError, Copy, bring, check_wait, limited, within
from watt_master.config import load_key

PROOF_BYTES_MAX = 2 * (HEADER_SIZE_MAX + CERTIFICATE_SIZE_MAX) + 64
"""Two headers with their certificates."""
WHY = {
    "proof": "one of the two blocks is not certified by the list of the area that the main chain knows",
    "no-conflict": "the two are one block, or of different heights or areas: that is no fork",
    "chain": "the main chain has no such area",
    "known": "the area is in quarantine for a fork already",
    "stale": "the area has been readmitted under another list since: those who signed this are out",
}


@dataclass(frozen=True, slots=True)
class Proof:
    """A fork, and what it is about."""

    fields: Fork
    chain: int
    height: int


def read_proof(path: Path) -> Proof:
    """The proof of a file. BringError; OSError when it cannot be read."""
    with path.open("rb") as file:
        data = file.read(PROOF_BYTES_MAX + 1)
    if len(data) > PROOF_BYTES_MAX:
        raise BringError(f"{path}: larger than {PROOF_BYTES_MAX} bytes, the most that a fork's proof has")
    try:
        fields = codec.decode(data, Fork)
        headers = [codec.decode(one.header, Header, HEADER_SIZE_MAX) for one in (fields.first, fields.second)]
    except DecodeError as error:
        raise BringError(f"{path}: not the proof of a fork (proof-fork-... of an auditor): {error}") from None
    return Proof(fields, headers[0].chain, headers[0].height)


async def accuse(copy: Copy, key: PrivateKey, proof: Proof) -> tuple[int, list[str]]:
    """Have the proof recorded; the block's height and who signed both. BringError."""
    await copy.catch_up()
    height, code = await bring(copy, key, "Fork", proof.fields)
    if code:
        raise BringError(f"{chain_name(proof.chain)} height {proof.height}: {code}: {WHY.get(code, 'refused')}")
    held = copy.ledger.state.get(fork_key(proof.chain, proof.height))
    return height, codec.decode(held or b"", ForkProof).signers


def run(config_path: Path, key_path: Path, proof_path: Path, wait_s: int, *, as_json: bool) -> int:
    """Accuse an area; 0 when the main chain has recorded the fork, 1 with one line when it has not."""

    def work() -> str:
        check_wait(wait_s)
        proof, key, copy = read_proof(proof_path), load_key(key_path), Copy(load(config_path, AuditConfig))
        show("height", copy.from_archive())
        height, signers = within(copy, limited(copy, wait_s, accuse(copy, key, proof)))
        about = {"chain": proof.chain, "height": proof.height, "signers": signers, "recorded": height}
        if as_json:
            return json.dumps(about)
        named = ", ".join(signers)
        return (
            f"{chain_name(proof.chain)}: two blocks of height {proof.height}, both signed by {named}\n"
            f"recorded in block {height} of the main chain; the area is in quarantine (CONTRACT.md 17.7)"
        )

    return by_hand("audit accuse", work, (BringError, ArchiveError, CorruptionError))
