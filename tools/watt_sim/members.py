"""Changes of the list of validators in a simulated area: who joins, leaves, takes a new key or loses one.

The regulator of these worlds is careful, as CONSENSUS.md 8 asks: a list it asks for has at most f bad validators and a
quorum of reliable ones, and a key is given up only when the others can go on. What it cannot know is when its call
becomes final: a call that comes too late is refused, and a later one replaces one that waits.
"""

from typing import TYPE_CHECKING

from watt_chain.genesis import Validator

from watt_sim.disk import Disk
from watt_sim.fakes import make_signer, make_tx
from watt_sim.plain import quorum_of
from watt_sim.reference import Listed

if TYPE_CHECKING:
    from watt_chain.pbft.config import Signer

    from watt_sim.station import Station
    from watt_sim.world import World

LOSE_AHEAD = 12
"""Heights between the call and the height from which a lost key is replaced: it must not come too late, nobody repeats
it."""
SIZE_MIN = 3


class Members:
    """Asks for lists and sees to it that nodes have the keys these name."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._sequence = 0
        self._asked: list[tuple[int, Listed]] = []
        "(height, list) of every call so far; it may still become final."
        world.hooks.append(self._block)

    def lists_ahead(self) -> list[Listed]:
        """The list in force and every one that may come."""
        reference = self._world.watch.reference
        height = reference.height + 1
        return [reference.lists[height], *(listed for first, listed in self._asked if first > height)]

    def propose(self, operation: str, node: int, ahead: int, nonce: int) -> bytes | None:
        """The regulator's call for a list with this change; None when it would not dare."""
        world = self._world
        reference = world.watch.reference
        now = self.lists_ahead()[-1]
        key = self._next_key(node)
        listed = self._changed(operation, node, list(now), key.public)
        if listed is None or len(listed) < SIZE_MIN:
            return None
        if not self._is_safe(listed, (node,) if operation == "lose" else ()):
            return None
        if operation in ("rotate", "lose"):
            self._give(node, key, keep=operation == "rotate")
        first = reference.height + (LOSE_AHEAD if operation == "lose" else ahead)
        if operation == "lose":
            self._lose(node)
        elif operation == "rotate":
            for station in world.stations:
                if station.node == node and station.replica is not None:
                    station.replica.add_key(world.keys[node], station.clock(world.now_ms))
                    world.carry_out(station)
        world.watch.count(f"list-{operation}")
        self._asked.append((first, listed))
        office = world.users[0]
        if world.config.contract == "area":
            self._sequence += 1
            validators = [Validator(name, public) for _, name, public in listed]
            return make_tx(office, world.id, "Validators", nonce, [self._sequence, first, validators])
        return make_tx(office, world.id, "List", nonce, [first, listed])

    def _changed(self, operation: str, node: int, listed: Listed, public: bytes) -> Listed | None:
        world = self._world
        places = {number: place for place, (number, _, _) in enumerate(listed)}
        if operation in ("join", "replace"):
            fresh = next((one for one in range(world.config.n, world.nodes) if one not in places), None)
            if fresh is None:
                return None
            known = max(number for held in world.watch.reference.lists.values() for number, _, _ in held)
            if fresh > known + 1:
                return None  # numbers are given in order
            listed.insert(node % (len(listed) + 1), (fresh, f"node{fresh}", world.keys[fresh].public))
            return [one for one in listed if one[0] != node] if operation == "replace" else listed
        if operation == "shuffle":
            return listed[::-1]
        if node not in places:
            return None
        if operation == "leave":
            return [one for one in listed if one[0] != node]
        listed[places[node]] = (node, f"node{node}", public)
        return listed

    def _next_key(self, node: int) -> "Signer":
        world, config = self._world, self._world.config
        count = sum(owner == node for owner in world.owners.values())
        return make_signer(f"node{node}.{count}", config.real, config.contract == "area")

    def _give(self, node: int, key: "Signer", keep: bool) -> None:
        """A further key for a node; without `keep` its only one from now on."""
        world = self._world
        world.keys[node] = key
        world.owners[key.public] = node
        for station in world.stations:
            if station.node == node:
                station.keys = [*station.keys, key] if keep else [key]

    def _is_safe(self, listed: Listed, without: tuple[int, ...]) -> bool:
        world = self._world
        bad = sum(node in world.guilty for node, _, _ in listed)
        good = sum(world.reliable(node) and node not in without for node, _, _ in listed)
        return bad <= (len(listed) - 1) // 3 and good >= quorum_of(len(listed)) and world.can_spare(*without)

    def _lose(self, node: int) -> None:
        """Key and disk of a node are gone; it starts with the new key once a list has it."""
        home = self._world.homes[node]
        self._world.crash(home, "key-lost")
        home.lost = home.wiped = True
        home.disk = Disk(written=home.disk.written)
        home.disk.lose_votes()

    def _block(self, station: "Station", height: int) -> None:
        """A node that lost its key comes back when the list has its new one."""
        world = self._world
        publics = world.watch.reference.publics(height + 1)
        for home in world.homes:
            if home.lost and home.keys[-1].public in publics:
                home.lost = False
                world.watch.count("key-replaced")
                world.restart(home)
