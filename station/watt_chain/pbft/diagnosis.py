"""Where a height stands and whose votes it lacks: what a status file shows and the doctor explains."""

from collections.abc import Callable

from watt_chain.pbft.round import Round


def phase_of(round_: Round, pending: bool) -> str:
    """The phase in one word; `pending`: something waits for a block (4.5.1)."""
    if not round_.active:
        return "view-change"
    if round_.proposal is None:
        return "waiting-for-proposal" if pending else "idle"
    if round_.proposal.waiting:
        return "waiting-for-bodies"
    if round_.proposal.checked is False:
        return "refused-proposal"
    if round_.proposal.lacks and round_.proposal.header.view == round_.view:
        return "left-out"
    return "commit" if round_.view in round_.signed_commits else "prepare"


def missing_in(round_: Round, phase: str, n: int, leader: int, view_of: Callable[[int], int]) -> list[int]:
    """Validators whose word the phase still needs, by index; `view_of(index)`: the view each says it is in."""
    if phase == "view-change":
        return [index for index in range(n) if view_of(index) < round_.view]
    if phase == "waiting-for-proposal":
        return [leader]
    if phase in ("prepare", "commit") and round_.proposal is not None:
        book = round_.prepares if phase == "prepare" else round_.commits
        return [index for index in range(n) if book.seen(round_.view, index) is None]
    return []
