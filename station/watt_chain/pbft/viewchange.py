"""The arithmetic of the view change: pure functions, no state (CONSENSUS.md 4.4).

Strategy. A block can have been final in view v only if q replicas signed commit, each holding q prepares.
Any q view changes share at least f + 1 signers with them, one of them honest, and an honest one reports its
best prepared certificate. So the certificate of the highest view among any q genuine view changes names the
only block that may have become final, and the new leader must propose exactly that. Who lies about having
prepared nothing only takes part in the f that do not count; who brings a forged certificate is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from watt_chain import block as blocks
from watt_chain import codec
from watt_chain.block import PREPARE, Header, check_votes, vote_bytes
from watt_chain.codec import DecodeError
from watt_chain.genesis import faults_tolerated, quorum
from watt_chain.pbft.messages import NewView, Prepared, ViewChange, is_genuine, open_frame
from watt_chain.transaction import Verify


@dataclass(frozen=True, slots=True)
class Place:
    """Which chain and height a certificate must be about, and whose votes count."""

    network: bytes
    chain: int
    height: int
    previous: bytes
    publics: tuple[bytes, ...]
    verify: Verify


def check_prepared(prepared: Prepared, below_view: int, place: Place) -> str:
    """ "" or why this is no prepared certificate of a view below `below_view` at this place (4.4.2)."""
    try:
        header = codec.decode(prepared.header, Header, blocks.HEADER_SIZE_MAX)
    except DecodeError:
        return "prepared-header"
    if (header.chain, header.height, header.previous) != (place.chain, place.height, place.previous):
        return "prepared-place"
    # The block may be older than its certificate (it was proposed again), never younger.
    if not header.view <= prepared.view < below_view:
        return "prepared-view"
    hash_ = blocks.block_hash(place.network, prepared.header)
    message = vote_bytes(place.network, PREPARE, place.chain, place.height, prepared.view, hash_)
    reason = check_votes(prepared.votes, message, place.publics, place.verify)
    return "prepared-" + reason.removeprefix("certificate-") if reason else ""


def choose(votes: Iterable[ViewChange]) -> Prepared | None:
    """The certificate that binds the new view (4.4.5): that of the highest view, or None when nobody prepared anything.

    The votes must be genuine. Independent of their order; two certificates of one view name the same block
    unless more than f validators lie, and then the lower header bytes win, the same for everybody.
    """
    best: Prepared | None = None
    for vote in votes:
        prepared = vote.prepared
        if prepared is None:
            continue
        if best is None or prepared.view > best.view or (prepared.view == best.view and prepared.header < best.header):
            best = prepared
    return best


def judge_new_view(message: NewView, place: Place, known: Mapping[bytes, ViewChange]) -> tuple[str, Prepared | None]:
    """("", certificate to continue with or None), or (reason, None) when the new view proves nothing.

    `known` maps frames already verified to their content. Each vote is judged alone: one that is forged, for
    another view or height, or with a bad certificate is left out, and q must remain from different senders.
    """
    genuine: dict[int, ViewChange] = {}
    for data in message.votes:
        vote = known.get(data) or _open_vote(data, place)
        if vote is None or vote.view != message.view or vote.height != message.height or vote.sender in genuine:
            continue
        genuine[vote.sender] = vote
    if len(genuine) < quorum(len(place.publics)):
        return "new-view-quorum", None
    return "", choose(genuine.values())


def _open_vote(data: bytes, place: Place) -> ViewChange | None:
    """A relayed view change when it is genuine in every part, else None."""
    try:
        frame = codec.decode(data, list[bytes])
        sender = codec.decode(frame[0], ViewChange).sender
        opened, message = open_frame(data, place.chain, sender)
    except (DecodeError, IndexError):
        return None
    if not isinstance(message, ViewChange) or sender >= len(place.publics) or message.height != place.height:
        return None
    if not is_genuine(opened, message, place.network, place.publics[sender], place.verify):
        return None
    if message.prepared is not None and check_prepared(message.prepared, message.view, place):
        return None
    return message


def view_to_join(views: Sequence[int], own_view: int, n: int) -> int | None:
    """The view to move to because others left ours, or None (4.4.3).

    `views` are the views that distinct other validators want. f + 1 of them above our own contain an honest
    one; the (f + 1)-th largest is a view that an honest validator really reached, however high f liars aim.
    """
    above = sorted((view for view in views if view > own_view), reverse=True)
    needed = faults_tolerated(n) + 1
    return above[needed - 1] if len(above) >= needed else None
