"""What a replica asks its shell to do, what it writes down, and what it has seen others do wrong."""

from dataclasses import dataclass
from typing import Final, Literal

from watt_chain import codec
from watt_chain.codec import U32, U63, Hash32, Structure
from watt_chain.ledger import AppliedBlock
from watt_chain.snapshot import FrozenState

DOUBT: Final = "doubt"
CLEAR: Final = "clear"
"""Records that are no votes: what was signed may be forgotten; it cannot be in heights above this one."""
EVIDENCE_MAX = 64
"""Proofs of equivocation kept: one convicts a node; more of the same add nothing."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that was dropped, and why; the shell counts it and may log it."""

    reason: str
    sender: int
    "Number of the node at the other end of the connection."


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two frames signed by one validator of which an honest one signs at most one.

    Of kind "attest": an attestation, and a transaction among those that it names with a signature that does not hold.
    """

    kind: str
    "pre-prepare, prepare, commit or attest."
    sender: int
    "Index in the list of the height."
    height: int
    view: int
    first: bytes
    second: bytes
    public: bytes
    "Its key at that height."


@dataclass(frozen=True, slots=True)
class Output:
    """What the shell must do, in this order. Empty tuples mean: nothing to do."""

    persist: tuple[bytes, ...] = ()
    "Records: append to the log and fsync BEFORE anything below is sent."
    send: tuple[tuple[int, bytes], ...] = ()
    "(number of the node, frame); may be lost, repeated or reordered on the way."
    parts: tuple[bytes, ...] = ()
    "Of a state that is being fetched: keep them for a restart; what is lost is fetched again."
    installed: FrozenState | None = None
    "The ledger went on from this state, without the blocks before it: make it durable, then forget older blocks."
    commit: tuple[bytes, ...] = ()
    "CertifiedBlock bytes, final, in height order: store them. The ledger has applied them already."
    applied: tuple[AppliedBlock, ...] = ()
    "What came of each block in `commit`."
    rejected: tuple[Rejected, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.persist or self.send or self.parts or self.installed or self.commit or self.rejected)


class Record(Structure, frozen=True):
    """One line of the durable memory of what this replica has signed (CONSENSUS.md 4.7).

    kind         payload
    proposal     [frame, block]; the leader's proposal, which is its prepare vote too
    prepare      block bytes; empty when an earlier record of the height holds the same block
    commit       Prepared, encoded: the certificate the vote rests on
    view-change  empty; `block_hash` is zero
    new-view     the NewView frame; `block_hash` is zero
    doubt        why what was signed may be forgotten, UTF-8; height and view are zero
    clear        empty; nothing signed in heights above this one is forgotten
    """

    kind: Literal["proposal", "prepare", "commit", "view-change", "new-view", "doubt", "clear"]
    height: U63
    view: U32
    block_hash: Hash32
    payload: bytes


class ProposalRecord(Structure, frozen=True):
    """Payload of a proposal record."""

    frame: bytes
    block: bytes


def record_height(record: bytes) -> int:
    """The height a record is about; once that height is final in the block log the record may go.

    Raises codec.DecodeError: the log is damaged.
    """
    return codec.decode(record, Record).height
