"""Proven equivocation: two frames that no honest validator signs both (CONSENSUS.md 4.8).

The frames are judged by their bytes alone, with the key they are said to be by; who submits them does not matter.
"""

from typing import Final

from watt_chain import codec, crypto
from watt_chain.codec import DecodeError
from watt_chain.contract import tickets
from watt_chain.contract.access import Session, refuse, refuse_if, signer_of
from watt_chain.contract.kinds import Evidence
from watt_chain.contract.objects import FOREVER, Account, Conviction, evidence_key
from watt_chain.election import term_of
from watt_chain.pbft.messages import Commit, Frame, Prepare, PrePrepare, is_genuine, open_any
from watt_chain.state import StateReader

PHASES: Final = {PrePrepare: "pre-prepare", Prepare: "prepare", Commit: "commit"}
Supporting = PrePrepare | Prepare | Commit
PER_TERM_MAX: Final = 8
"Convictions of one validator in one term: more add nothing, and each leaves an object in the state."


def convict(session: Session, signer: Account, fields: Evidence) -> None:
    """Take a validator's rank for two frames that contradict each other; once per height, view and phase."""
    (frame_a, a), (frame_b, b) = _open(session, fields.first), _open(session, fields.second)
    place = (type(a), a.sender, a.height, a.view)
    refuse_if(place != (type(b), b.sender, b.height, b.view) or not _differ(a, b), "no-conflict")
    key = signer_of(session.state, fields.public)
    if key is None or session.account(key.account).role != "validator":
        refuse("unknown-validator")
    in_force = key.from_height <= a.height and (key.to_height == FOREVER or a.height < key.to_height)
    refuse_if(not in_force, "key-height")  # what a stolen old key signs later is nobody's fault
    where = evidence_key(key.account, a.height, a.view, PHASES[type(a)])
    refuse_if(session.get(where, Conviction) is not None, "known")
    term = term_of(session.context.height)
    refuse_if(_convictions(session, key.account, term) >= PER_TERM_MAX, "enough")
    for frame, message in ((frame_a, a), (frame_b, b)):
        genuine = is_genuine(frame, message, session.context.network, fields.public, crypto.verify)
        refuse_if(not genuine, "signature")
    session.put(where, Conviction(term, crypto.sha256(codec.encode(fields))))
    tickets.punish_equivocation(session, key.account)


def is_known(state: StateReader, public: bytes, height: int, view: int, phase: str) -> bool:
    """Whether the validator with this key is convicted for this place already, or nothing could convict it."""
    key = signer_of(state, public)
    return key is None or state.get(evidence_key(key.account, height, view, phase)) is not None


def _open(session: Session, data: bytes) -> tuple[Frame, Supporting]:
    """A frame of this chain that supports a block. Refuses "form"."""
    try:
        frame, message = open_any(data)
    except DecodeError:
        refuse("form")
    if not isinstance(message, PrePrepare | Prepare | Commit) or message.chain != session.context.chain:
        refuse("form")
    return frame, message


def _differ(a: Supporting, b: Supporting) -> bool:
    """Whether the two support different blocks. A proposal is its header: two bodies under one root do not exist."""
    if isinstance(a, PrePrepare):
        return isinstance(b, PrePrepare) and a.header != b.header
    return not isinstance(b, PrePrepare) and a.block_hash != b.block_hash


def _convictions(session: Session, validator: bytes, term: int) -> int:
    keys = session.state.keys(b"evidence/" + validator.hex().encode() + b"/")
    return sum(session.need(key, Conviction).term == term for key in keys)
