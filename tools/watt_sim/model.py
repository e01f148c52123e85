"""The view change and the lock rule of one height as a small transition system, explored completely.

Normative text: CONSENSUS.md 4.3 and 4.4. The form is that of a TLA+ specification with a growing set of messages:
a state is what each honest validator has signed; a step is one honest validator signing one thing more; nothing is
ever taken back, so loss, delay, order and repetition need no steps of their own (a message that is never used was
lost). Bad validators have no state: whatever they could sign counts as signed, to whom it helps, at any time.
Every view is led by a bad validator unless said otherwise: an honest leader only removes steps. A validator restarts
with all it signed (4.7), so a restart is no step; the variants that forget something are faults.

    Prepare(i, v, b)  v is not below what i promised; b is what the new view requires, or free (4.3.2, 4.4.4-4.4.6)
    Commit(i, v)      v is i's present view; q prepares for what it prepared (4.3.4)
    Leave(i, v)       i promises v and sends its certificate of the highest view below v (4.4.1)

Checked in every reachable state: no two blocks have q commits in one view each, whichever views (agreement). And
in every reachable state of a system whose last view has an honest leader: the honest validators alone can still
finish (nothing is stuck; the bad ones help nobody).

A validator is one integer: for each view two bits of blocks prepared, two bits of blocks committed, and one bit
for its view change. Blocks are 1 and 2; which is which makes no difference, nor does the order of validators that
lead no view, so states are compared after sorting both.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

BLOCKS = (1, 2)
"""Two blocks are enough to disagree; the bit of each in a mask."""
STATES_MAX = 20_000_000
"""States of one run: above it the machine's memory is at risk (about 150 bytes each)."""

Nodes = tuple[int, ...]
Certificate = tuple[int, int]
"(view, block); (-1, 0) stands for none."
NONE: Certificate = (-1, 0)


@dataclass(frozen=True, slots=True)
class Variant:
    """The protocol, or one deliberate fault in it."""

    name: str
    quorum_less: int = 0
    "q is this much too small."
    new_view_less: int = 0
    "A new view rests on so many view changes fewer."
    lock_ignored: bool = False
    lowest_lock: bool = False
    lock_hidden: bool = False
    "View changes carry no certificate."
    forged_locks: bool = False
    "Certificates of view changes are not checked."
    bad_lock_spoils: bool = False
    "One bad certificate makes the new view free."
    votes_below_promise: bool = False
    prepares_twice: bool = False
    commits_after_leaving: bool = False
    never_unlocks: bool = False
    "Who committed a block prepares no other, whatever the new view shows."
    judges_again: bool = False
    "A required block is refused (as if its time were judged a second time)."


SOUND = Variant("as specified")
UNSAFE = (
    Variant("quorum-one-less", quorum_less=1),
    Variant("new-view-of-too-few", new_view_less=1),
    Variant("lock-ignored", lock_ignored=True),
    Variant("lowest-lock-wins", lowest_lock=True),
    Variant("lock-not-reported", lock_hidden=True),
    Variant("lock-signatures-unchecked", forged_locks=True),
    Variant("bad-lock-spoils-good-ones", bad_lock_spoils=True),
    Variant("votes-in-views-left", votes_below_promise=True),
    Variant("prepares-forgotten-at-restart", prepares_twice=True),
    Variant("commits-in-views-left", commits_after_leaving=True),
)
STUCK = (Variant("locked-for-ever", never_unlocks=True), Variant("required-block-judged-again", judges_again=True))


@dataclass(frozen=True, slots=True)
class Scope:
    """How large the explored world is: `honest` + `bad` validators, `views` views; who leads which."""

    honest: int
    bad: int
    views: int
    quorum: int
    honest_last: bool = False
    "The last view is led by honest validator 0."


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an exploration found."""

    states: int
    fault: str
    "Empty, `two blocks`, or `stuck`."
    path: tuple[str, ...]
    "The shortest way to the fault, a step a line."


class System:
    """The steps of one scope and variant."""

    def __init__(self, scope: Scope, variant: Variant) -> None:
        self.scope = scope
        self.variant = variant
        self.quorum = scope.quorum - variant.quorum_less
        self._width = 5 * scope.views

    # Reading a validator ------------------------------------------------------------------------------------

    def prepared(self, node: int, view: int) -> int:
        """Mask of the blocks it prepared in a view."""
        return node >> 2 * view & 3

    def committed(self, node: int, view: int) -> int:
        """Mask of the blocks it committed in a view."""
        return node >> 2 * (self.scope.views + view) & 3

    def left_for(self, node: int, view: int) -> int:
        """1 when it sent a view change for that view."""
        return node >> 4 * self.scope.views + view & 1

    def promised(self, node: int) -> int:
        """The highest view it voted in or left for."""
        for view in range(self.scope.views - 1, 0, -1):
            if self.prepared(node, view) or self.left_for(node, view):
                return view
        return 0

    def lock(self, node: int, below: int) -> Certificate:
        """The certificate its view change for view `below` carries (4.4.1)."""
        if self.variant.lock_hidden:
            return NONE
        for view in range(below - 1, -1, -1):
            mask = self.committed(node, view)
            if mask:
                return (view, mask & -mask)
        return NONE

    # Counting -----------------------------------------------------------------------------------------------

    def _count(self, nodes: Nodes, read: Callable[[int, int], int], view: int, block: int) -> int:
        return sum(1 for node in nodes if read(node, view) & block)

    def certifiable(self, nodes: Nodes, view: int, block: int, bad: int) -> bool:
        """Whether q prepares exist when `bad` bad validators add theirs."""
        return self._count(nodes, self.prepared, view, block) + bad >= self.quorum

    def final(self, nodes: Nodes, bad: int) -> int:
        """Mask of the blocks with q commits of one view."""
        mask = 0
        for view in range(self.scope.views):
            for block in BLOCKS:
                if self._count(nodes, self.committed, view, block) + bad >= self.quorum:
                    mask |= block
        return mask

    # What a new view may require (4.4.4, 4.4.5) ---------------------------------------------------------------

    def required(self, nodes: Nodes, view: int, bad: int) -> frozenset[int]:
        """Every outcome some quorum of view changes gives: a block, or 0 for free choice; empty: no quorum."""
        senders = [node for node in nodes if self.left_for(node, view)]
        wanted = self.scope.quorum - self.variant.new_view_less
        claims = [NONE]
        if bad:
            claims += [
                (w, b)
                for w in range(view)
                for b in BLOCKS
                if self.variant.forged_locks or self.certifiable(nodes, w, b, bad)
            ]
        found: set[int] = set()
        for chosen in range(1 << len(senders)):
            picked = [senders[i] for i in range(len(senders)) if chosen >> i & 1]
            if len(picked) + bad < wanted:
                continue
            locks = [self.lock(node, view) for node in picked]
            for claim in claims if len(picked) < wanted or bad else [NONE]:
                found.add(self.choose([*locks, claim]))
            if self.variant.bad_lock_spoils and bad:
                found.add(0)
        return frozenset(found)

    def choose(self, locks: list[Certificate]) -> int:
        """The required block of a set of certificates, 0 when free; the rule of `pbft.viewchange.choose`."""
        real = [lock for lock in locks if lock != NONE]
        if not real or self.variant.lock_ignored:
            return 0
        best = min(real) if self.variant.lowest_lock else min(real, key=lambda lock: (-lock[0], lock[1]))
        return best[1]

    # Steps --------------------------------------------------------------------------------------------------

    def steps(self, nodes: Nodes, helped: bool = True) -> Iterator[tuple[str, Nodes]]:
        """Every step from a state; not `helped`: only those that need no bad validator's vote or proposal."""
        bad = self.scope.bad if helped else 0
        for view in range(self.scope.views):
            required = frozenset((0,)) if view == 0 else self.required(nodes, view, bad)
            ready = tuple(block for block in BLOCKS if self.certifiable(nodes, view, block, bad))
            for i, node in enumerate(nodes):
                for block in self._preparable(nodes, i, view, required, helped):
                    yield f"{i} prepares {block} in view {view}", _with(nodes, i, node | block << 2 * view)
                for block in ready:
                    if self._may_commit(node, view, block):
                        done = node | block << 2 * (self.scope.views + view)
                        yield f"{i} commits {block} in view {view}", _with(nodes, i, done)
                if view > self.promised(node):
                    yield f"{i} leaves for view {view}", _with(nodes, i, node | 1 << 4 * self.scope.views + view)

    def _preparable(self, nodes: Nodes, i: int, view: int, required: frozenset[int], helped: bool) -> list[int]:
        node, variant = nodes[i], self.variant
        if view < self.promised(node) and not variant.votes_below_promise:
            return []
        have = self.prepared(node, view)
        if have and not variant.prepares_twice:
            return []
        allowed = [block for block in BLOCKS if not have & block and (0 in required or block in required)]
        if variant.judges_again:
            allowed = [block for block in allowed if 0 in required]
        led_by_0 = self.scope.honest_last and view == self.scope.views - 1
        if led_by_0 and i != 0:  # an honest leader proposes one block, which it prepares itself
            allowed = [block for block in BLOCKS if not have & block and self.prepared(nodes[0], view) & block]
        elif not led_by_0 and not helped:
            allowed = []  # the leader of every other view is bad and proposes nothing
        if variant.never_unlocks:
            lock = self.lock(node, view)
            allowed = [block for block in allowed if lock == NONE or lock[1] == block]
        return allowed

    def _may_commit(self, node: int, view: int, block: int) -> bool:
        if not self.prepared(node, view) & block or self.committed(node, view) & block:
            return False
        return view == self.promised(node) or self.variant.commits_after_leaving or self.variant.votes_below_promise

    # Sameness -----------------------------------------------------------------------------------------------

    def canonical(self, nodes: Nodes) -> Nodes:
        """The same state under the least naming of blocks and of validators that lead nothing."""
        swapped = tuple(self._swap(node) for node in nodes)
        if self.scope.honest_last:
            return min((nodes[0], *sorted(nodes[1:])), (swapped[0], *sorted(swapped[1:])))
        return min(tuple(sorted(nodes)), tuple(sorted(swapped)))

    def _swap(self, node: int) -> int:
        votes = node & (1 << 4 * self.scope.views) - 1
        low = int("01" * (2 * self.scope.views), 2)
        return (node ^ votes) | (votes & low) << 1 | votes >> 1 & low


def _with(nodes: Nodes, i: int, node: int) -> Nodes:
    return (*nodes[:i], node, *nodes[i + 1 :])


def explore(scope: Scope, variant: Variant = SOUND, progress: Callable[[int], None] | None = None) -> Outcome:
    """Every state of the system, breadth first. With `honest_last` also whether each can still finish.

    Raises MemoryError above STATES_MAX states.
    """
    system = System(scope, variant)
    start = (0,) * scope.honest
    parents: dict[Nodes, Nodes] = {start: start}
    frontier = [start]
    while frontier:
        following: list[Nodes] = []
        for nodes in frontier:
            for _, reached in system.steps(nodes):
                same = system.canonical(reached)
                if same in parents:
                    continue
                parents[same] = nodes
                if system.final(same, scope.bad) == BLOCKS[0] | BLOCKS[1]:
                    return Outcome(len(parents), "two blocks", _path(system, parents, same))
                following.append(same)
        if len(parents) > STATES_MAX:
            raise MemoryError(f"more than {STATES_MAX} states: choose fewer views or validators")
        if progress is not None:
            progress(len(parents))
        frontier = following
    if scope.honest_last:
        stuck = _stuck(system, parents)
        if stuck is not None:
            return Outcome(len(parents), "stuck", _path(system, parents, stuck))
    return Outcome(len(parents), "", ())


def _stuck(system: System, states: dict[Nodes, Nodes]) -> Nodes | None:
    """The first state found from which the honest alone cannot make a block final, or None."""
    before: dict[Nodes, list[Nodes]] = {}
    hopeful: list[Nodes] = []
    for nodes in states:
        if system.final(nodes, 0):
            hopeful.append(nodes)
            continue
        for _, reached in system.steps(nodes, helped=False):
            before.setdefault(system.canonical(reached), []).append(nodes)
    saved = dict.fromkeys(hopeful)
    while hopeful:
        for earlier in before.get(hopeful.pop(), ()):
            if earlier not in saved:
                saved[earlier] = None
                hopeful.append(earlier)
    return next((nodes for nodes in states if nodes not in saved), None)


def _path(system: System, parents: dict[Nodes, Nodes], last: Nodes) -> tuple[str, ...]:
    """The steps from the first state to `last`, with the names of validators and blocks as in the first state."""
    chain = [last]
    while parents[chain[-1]] != chain[-1]:
        chain.append(parents[chain[-1]])
    nodes = chain[-1]
    lines: list[str] = []
    for goal in reversed(chain[:-1]):
        for line, reached in system.steps(nodes):
            if system.canonical(reached) == goal:
                lines.append(line)
                nodes = reached
                break
    return tuple(lines)
