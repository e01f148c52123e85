"""The network of a simulated area: what happens to a frame between two stations."""

from dataclasses import dataclass

from watt_sim.config import Config
from watt_sim.drbg import Drbg

SLOW_FACTOR = 10
QUIET = ("status", "gossip", "sync-blocks", "sync-request")
"""What does not travel while every view has its own sides: it would mend what the scenario tears apart."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Which frames do not arrive at present."""

    mode: str = "heal"
    node: int = 0
    kind: str = ""
    sides: tuple[int, ...] = ()
    "Side of each station, the copies of twins behind the validators; in mode `views` for one view after the other."
    stations: int = 0

    def blocks(self, sender: int, receiver: int, kind: str, view: int) -> bool:
        """`sender` and `receiver` are numbers of stations, `view` that of the message, -1 when it has none."""
        match self.mode:
            case "views":
                start = max(view, 0) * self.stations
                sides = self.sides[start : start + self.stations]
                return kind in QUIET or bool(sides and sides[sender] != sides[receiver])
            case "split":
                return self.sides[sender] != self.sides[receiver]
            case "isolate":
                return self.node in (sender, receiver)
            case "one-way":  # the node hears everybody and nobody hears it, or the other way round
                return self.node == (sender if self.sides[0] else receiver)
            case "kind":
                return kind == self.kind and self.sides[receiver] == 0
        return False


class Network:
    """Loss, doubles, changed bytes, delay and cuts, all drawn from the seed; perfect after `heal`."""

    def __init__(self, config: Config, chance: Drbg) -> None:
        self._chance = chance
        self._loss_ppm = config.loss_ppm
        self._double_ppm = config.double_ppm
        self._corrupt_ppm = config.corrupt_ppm
        self._jitter_ppm = config.jitter_ppm
        self._delay_ms = config.delay_ms
        self.cut = Cut()

    def heal(self) -> None:
        """From now on every frame arrives, once, unchanged, and not too late."""
        self._loss_ppm = self._double_ppm = self._corrupt_ppm = self._jitter_ppm = 0
        self.cut = Cut()

    def carry(self, sender: int, receiver: int, kind: str, view: int, frame: bytes) -> list[tuple[int, bytes]]:
        """(delay in ms, frame) of each copy that will arrive."""
        if self.cut.blocks(sender, receiver, kind, view):
            return []
        chance = self._chance
        arriving: list[tuple[int, bytes]] = []
        for _ in range(2 if chance.chance(self._double_ppm) else 1):
            if chance.chance(self._loss_ppm):
                continue
            delay_ms = chance.between(*self._delay_ms)
            if chance.chance(self._jitter_ppm):
                delay_ms *= SLOW_FACTOR
            data = frame
            if chance.chance(self._corrupt_ppm):
                place = chance.below(len(frame))
                data = frame[:place] + bytes([frame[place] ^ (1 << chance.below(8))]) + frame[place + 1 :]
            arriving.append((delay_ms, data))
        return arriving
