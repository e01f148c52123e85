"""Checkpoints of the main chain that witnesses cosign, and what two that contradict each other prove.

A household believes what f + 1 masters signed. Should more than f of them lie, they could show one chain to one half of
the world and another to the other half; no proof inside either chain tells. So whoever follows the main chain for
itself (the regulator, the aggregator, anybody) signs every CHECKPOINT_BLOCKS-th block it sees, with the block's own
certificate, and compares with what others signed: two certified blocks of one height convict every master that signed
both.  Source: ledger.md 6.6 attack 22.

Rules: CONSENSUS.md 10.
"""

from dataclasses import dataclass
from typing import Final

from watt_chain import codec, crypto
from watt_chain.block import CERTIFICATE_SIZE_MAX, Certificate, block_hash
from watt_chain.codec import Structure
from watt_chain.genesis import MAIN_CHAIN
from watt_chain.light import LightClient, ProofError

CHECKPOINT_BLOCKS: Final = 16
"""Main blocks from one checkpoint to the next: some seconds of a busy network, a quarter of an hour of a quiet one."""
CHECKPOINT_SIZE_MAX: Final = 1 << 17
_PURPOSE: Final = b"checkpoint"


class Checkpoint(Structure, frozen=True):
    """A certified block of the main chain as a witness saw it."""

    header: bytes
    certificate: bytes
    witness: bytes
    "Public key, 64 bytes."
    signature: bytes
    'Over signing("checkpoint", [height, block hash]).'


@dataclass(frozen=True, slots=True)
class Split:
    """Two certified blocks of one height."""

    height: int
    first: Checkpoint
    second: Checkpoint
    signers: tuple[int, ...]
    "Indexes in the height's list of who certified both."


def _signed(network: bytes, height: int, hash_: bytes) -> bytes:
    return codec.signing_bytes(_PURPOSE, network, codec.encode([height, hash_]))


def cosign(key: crypto.PrivateKey, network: bytes, height: int, header: bytes, certificate: bytes) -> Checkpoint:
    """What a witness says about a block that it has executed itself."""
    signature = key.sign(_signed(network, height, block_hash(network, header)))
    return Checkpoint(header, certificate, key.public, signature)


def check(checkpoint: Checkpoint, witness: bytes, network: bytes, light: LightClient) -> tuple[int, bytes]:
    """(height, block hash) of a checkpoint that this witness signed and the main chain's masters certified.

    Raises ProofError: "witness" when it is not signed by this one, or what the light client finds.
    """
    header = light.check_header(MAIN_CHAIN, checkpoint.header, checkpoint.certificate)
    hash_ = block_hash(network, checkpoint.header)
    message = _signed(network, header.height, hash_)
    if checkpoint.witness != witness or not crypto.verify(witness, message, checkpoint.signature):
        raise ProofError("witness")
    return header.height, hash_


def compare(first: Checkpoint, second: Checkpoint, network: bytes, height: int) -> Split | None:
    """None when two checked checkpoints of one height name the same block, else who certified both."""
    if block_hash(network, first.header) == block_hash(network, second.header):
        return None
    voters = [
        {vote.index for vote in codec.decode(one.certificate, Certificate, CERTIFICATE_SIZE_MAX).votes}
        for one in (first, second)
    ]
    return Split(height, first, second, tuple(sorted(voters[0] & voters[1])))
