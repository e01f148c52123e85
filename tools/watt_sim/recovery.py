"""The way back of a bad area: the regulator readmits it under new keys, and its old history must count for nothing.

The new validators go on from the last anchored block (CONTRACT.md 17.7, CONSENSUS.md 8.8); from then on the area is as
good as any other and held to it. The old keys are stolen, and what they certified beyond that block is shown around.
"""

from typing import TYPE_CHECKING

from watt_chain import codec
from watt_chain.contract.cross_kinds import Readmit
from watt_chain.contract.objects import VALIDATORS_KEY, Plug, ValidatorList, plug_key
from watt_chain.crypto import id8
from watt_chain.genesis import Validator
from watt_chain.resume import RESUME, Resume

from watt_sim.guards import fork_of
from watt_sim.streets import NOBODY, VALIDATORS, Chain, Made, anchor_of, anchored_height, cursor_of, key_of
from watt_sim.violation import Violation

if TYPE_CHECKING:
    from watt_sim.areas import Areas

REFUSED = ("stale", "sequence", "proof", "height", "previous", "outbox", "message", "chain", "busy", "known")
"""What may be said to a block of the old history; "" only where the new list is not known yet."""
WORDS_MAX = 3
BAD_AGAIN_PPM = 300_000
"""How often the new validators of an area are no better than the old ones; the last ones are."""


class Recovery:
    """What becomes of the bad area of a run."""

    def __init__(self, world: "Areas") -> None:
        self._world = world
        self.area = NOBODY
        "The area that was readmitted and is good now."
        self.listed: list[Validator] = []
        "Its new list."
        self._words = 0
        "Readmissions so far: the new validators may be bad as well."
        bad = world.config.bad
        self._ground: Chain | None = world.chains[bad].fork() if bad else None
        "The bad area as it was when its present list began."
        self._old: list[Made] = []
        "What old lists certified beyond the anchored block, in all histories."
        self._pairs: list[tuple[Made, Made]] = []
        "Blocks of one height in two of them."

    @property
    def is_over(self) -> bool:
        """Whether the bad area was readmitted for good."""
        return self.area != NOBODY

    def is_due(self) -> bool:
        """Whether the bad area is in quarantine."""
        bad = self._world.bad
        return bad != NOBODY and self._world.judge.position(bad).quarantine != ""

    def readmit(self) -> None:
        """The regulator's two words, one to the main chain and one that the new validators begin with."""
        world, area = self._world, self._world.bad
        keys = [key_of(f"node {area} {index} readmitted {self._words}") for index in range(VALIDATORS)]
        listed = [Validator(f"node{index}", key.public) for index, key in enumerate(keys)]
        last = anchored_height(world.chains[0], area)
        world.put(0, key_of("regulator"), "Readmit", Readmit(area, listed))
        while world.queues[0] and world.block(0) is not None:
            pass
        if world.judge.position(area).quarantine:
            raise Violation("I13", f"area {area} cannot be readmitted")
        self._words += 1
        self._pairs += world.guards.bad_pairs()
        chain = self._rebuilt(area, last)
        world.stolen.setdefault(area, []).extend(world.chains[area].keys)
        world.chains[area], chain.keys, world.twin = chain, keys, None
        world.queues[area].clear()
        world.next_keys.pop(area, None)
        world.executed[area] = {height: made for height, made in world.executed[area].items() if height <= last}
        if area in world.halted:
            world.halted.remove(area)
        for home in world.network.homes:
            if home.chain == area:
                plug = codec.decode(chain.ledger.state.get(plug_key(id8(home.plug.public))) or b"", Plug)
                world.delivered[home.number] = plug.counter - 1
        world.guards.forget(area)
        world.note(f"area {area} is readmitted from height {last + 1} on")
        if self._words < WORDS_MAX and world.chance.chance(BAD_AGAIN_PPM):
            world.count("bad-again")
            self._ground, world.mirror = chain.fork(), chain.fork()
        else:
            world.bad, self.area, self.listed = NOBODY, area, listed
            world.judge.readmitted(area)
        self._begin(chain, listed)
        world.count("readmitted")

    def _rebuilt(self, area: int, last: int) -> Chain:
        """The area after its last anchored block, from the blocks that the masters executed."""
        world = self._world
        assert self._ground is not None
        histories = [world.chains[area], *([world.twin] if world.twin else [])]
        made = {one.header: one for chain in histories for one in chain.made}
        fresh = self._ground.fork()
        for height in range(fresh.ledger.head.height + 1, last + 1):
            one = made[world.executed[area][height]]
            fresh.ledger.apply(one.certified)
            fresh.made.append(one)
        self._old += [one for one in made.values() if one.height > last]
        return fresh

    def _begin(self, chain: Chain, listed: list[Validator]) -> None:
        """The first block of the new list."""
        world, ledger = self._world, chain.ledger
        now = codec.decode(ledger.state.get(VALIDATORS_KEY) or b"", ValidatorList)
        world.sequences[chain.number] = now.sequence + self._words
        fields = Resume(now.sequence + self._words, ledger.head.height + 1, ledger.head.block_hash, listed)
        word = chain.tx(key_of("regulator"), RESUME, fields)
        if reason := ledger.resume(word.raw):
            raise Violation("I13", f"the regulator's word does not hold in area {chain.number}: {reason}")
        made = chain.make(max(world.clocks_s[chain.number], ledger.head.time_s), [word])
        if made is None or made.applied.receipts[0].code:
            raise Violation("I13", f"area {chain.number} does not begin under its new list")
        world.taken(chain, made)

    def show_old_history(self) -> None:
        """Somebody brings what the old list certified: to the main chain, to a partner, or as a fork once more."""
        world, chance = self._world, self._world.chance
        draw = chance.below(3)
        if draw == 0 and self._pairs:
            body: object = fork_of(*chance.choice(self._pairs))
            self._brought(0, "Fork", body, known=True)
        elif draw == 1 and self._old:
            self._brought(0, "Anchor", anchor_of(chance.choice(self._old)), known=True)
        elif self._old:
            target = chance.choice([area for area in world.network.areas if area != self.area])
            inbox = chance.choice(self._old).inbox(target, cursor_of(world.chains[target], self.area).sequence)
            if inbox is not None and target not in world.halted:
                self._brought(target, "Inbox", inbox, known=world.judge.knows_list(self.area, target))

    def _brought(self, target: int, kind: str, body: object, *, known: bool) -> None:
        world = self._world
        world.queues[target].clear()
        world.put(target, world.chance.choice(world.chains[target].keys), kind, body)
        if kind == "Anchor":  # the masters have set it aside, so none of them supports it; a bad leader alone may try
            made = world.chains[0].make(world.clocks_s[0], world.queues[0])
            world.queues[0] = []
            if made is not None:
                world.taken(world.chains[0], made)
        else:
            made = world.block(target)
        code = made.applied.receipts[-1].code if made is not None else "no-block"
        world.count(f"old-history-{kind}")
        if not code and known:
            raise Violation("I5", f"chain {target} takes {kind} of the old list of area {self.area}")
        if code and code not in (*REFUSED, "no-block"):
            raise Violation("I5", f"chain {target} says {code} to {kind} of the old list of area {self.area}")
