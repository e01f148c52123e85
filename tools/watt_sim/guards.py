"""What masters and bystanders do about an area beyond its faults: they show its forks, and refute what it made up.

One master is bad. It refutes blocks of good areas too, and alone it must not get anywhere.
"""

from typing import TYPE_CHECKING

from watt_chain.contract.cross_kinds import Fork, PartnerBlock, Refute

from watt_sim.streets import Made, anchored_height, key_of
from watt_sim.violation import Violation

if TYPE_CHECKING:
    from watt_sim.areas import Areas

BAD_MASTER = 0
UNDECIDED = ("NONE", "LOCKED", "ACCEPTED", "READY")
"""Of CONTRACT.md 17.3, written down once more, as in `areas_check`."""


class Guards:
    """The masters and offices that look after the areas of a run."""

    def __init__(self, world: "Areas") -> None:
        self._world = world
        self._stopped: dict[int, int] = {}
        "Area in quarantine -> height of its last anchored block."

    def look(self) -> None:
        """Somebody shows what it has found; what it shows of a good area must come to nothing."""
        draw = self._world.chance.below(10)
        if draw < 3:
            self._show_fork()
        elif draw < 7:
            self._refute()
        elif draw < 9:
            self._accuse()
        else:
            self._show_no_fork()

    def forget(self, area: int) -> None:
        """An area was readmitted: it is anchored again."""
        self._stopped.pop(area, None)

    def bad_pairs(self) -> list[tuple[Made, Made]]:
        """Blocks of one height in both histories of the bad area."""
        world = self._world
        if world.twin is None:
            return []
        mine = {made.height: made for made in world.chains[world.bad].made}
        pairs = [(mine[other.height], other) for other in world.twin.made if other.height in mine]
        return [pair for pair in pairs if pair[0].header != pair[1].header]

    def _show_fork(self) -> None:
        pairs = self.bad_pairs()
        if pairs:
            world = self._world
            key = world.chance.choice([world.chains[0].keys[1], key_of("regulator"), key_of("grid")])
            world.put(0, key, "Fork", fork_of(*world.chance.choice(pairs)))
            made = world.block(0)
            if made is not None and not made.applied.receipts[-1].code:
                world.count("fork-shown")

    def _show_no_fork(self) -> None:
        """Two blocks of a good area, of different heights, or the same twice."""
        world = self._world
        area = world.chance.choice([area for area in world.network.areas if area != world.bad])
        made = world.chains[area].made
        if made:
            fork = fork_of(world.chance.choice(made), world.chance.choice(made))
            world.put(0, world.chains[0].keys[BAD_MASTER], "Fork", fork)
            world.block(0)

    def _refute(self) -> None:
        """The masters execute what the bad area certified next, find that it is not so, and say it."""
        world = self._world
        false = world.carriers.unexecuted(world.bad)
        if false is None:
            return
        anchor = false[2]
        assert not world.executed_here(anchor.header)
        for key in world.chance.some(world.chains[0].keys, 2):
            world.put(0, key, "Refute", Refute(anchor.header, anchor.certificate))
        world.block(0)
        world.count("refuted")

    def _accuse(self) -> None:
        """The bad master refutes the next block of a good area."""
        world = self._world
        area = world.chance.choice([area for area in world.network.areas if area != world.bad])
        known = anchored_height(world.chains[0], area)
        following = [made for made in world.chains[area].made if made.height == known + 1]
        if following:
            body = Refute(following[0].header, following[0].certificate)
            world.put(0, world.chains[0].keys[BAD_MASTER], "Refute", body)
            world.block(0)
            world.count("accused")

    def check(self) -> None:
        """I10: no good area is in quarantine. I5: nothing of one in quarantine is taken, and nothing waits for it."""
        world = self._world
        for area in world.network.areas:
            reason = world.judge.position(area).quarantine
            if not reason:
                continue
            height = anchored_height(world.chains[0], area)
            if self._stopped.setdefault(area, height) != height:
                raise Violation("I5", f"a block of area {area}, which is in quarantine, is anchored")
            for number in world.network.trades:
                main = world.judge.main(number)
                if area in (main.terms.buyer_chain, main.terms.seller_chain) and main.state in UNDECIDED:
                    raise Violation("I5", f"trade {number} waits for area {area}, which is in quarantine: {main.state}")
            if area != world.bad:
                raise Violation("I10", f"area {area} did nothing wrong and is in quarantine: {reason}")
            if not world.coverage.get(f"quarantine-{reason}"):
                world.count(f"quarantine-{reason}")


def fork_of(first: Made, second: Made) -> Fork:
    """The call that shows two blocks of one height."""
    return Fork(*(PartnerBlock(made.header, made.certificate) for made in (first, second)))
