"""What goes wrong in the demo's evening, on purpose, while areas trade with each other.

A cross-node of each trading area is killed with SIGKILL as soon as it is one: trades have just been matched, and their
locks have not been carried yet. All stations of the hamlet are killed when its book has gone to the main chain and its
seller has been matched, and stay down until the main chain has ended its trades: the money of the buyers is locked in
their area all the while, and comes back without a word from the hamlet. Neither changes what the evening comes to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from watt_chain.cross.tables import UNDECIDED
from watt_node.status import read_json

from watt_tools import progress
from watt_tools.children import Children
from watt_tools.network import Network

WAITING = "waiting"
"Report of an area that the main chain has nothing of yet."


@dataclass
class Mishaps:
    """Each strikes once, at its moment; `step` is called every fraction of a second while the event runs."""

    net: Network
    children: Children
    kill_cross_nodes: bool
    halted: bool = False
    resumed: bool = False
    killed: list[str] = field(default_factory=list)
    "Cross-nodes."

    def step(self) -> list[str]:
        """Do what is due; sentences for whoever watches."""
        said: list[str] = []
        hamlet = self.net.hamlet
        early = self.net.protocol_now_s() < self._spec["confirm_close_s"]
        if hamlet and early and not self.halted and self._booked(hamlet):
            self.halted = True
            self.children.halt(f"area{hamlet}-")
            said.append(f"  ! area {hamlet} goes dark: its stations are killed; others have bought there")
        elif self.halted and not self.resumed and self._ended():
            self.resumed = True
            self.children.resume(f"area{hamlet}-")
            said.append(
                f"  ! the main chain has ended area {hamlet}'s trades, the buyers' money is free; it comes back"
            )
        if self.kill_cross_nodes and early and not self.killed:
            self.killed = self._cross_nodes()
            for name in self.killed:
                self.children.kill(name)
            said += [f"  ! {name}, a cross-node, is killed while locks wait to be carried" for name in self.killed]
        return said

    @property
    def dark(self) -> bool:
        """Whether the hamlet is down now."""
        return self.halted and not self.resumed

    def save(self) -> None:
        """Leave a note for whoever judges the run; an earlier one of the same evening stands."""
        path = self.net.folder / "mishaps.json"
        if not path.exists() and (self.halted or self.killed):
            path.write_text(json.dumps({"halted": self.net.hamlet if self.halted else 0, "killed": self.killed}))

    @cached_property
    def _spec(self) -> dict[str, Any]:
        return read_json(self.net.folder / "main/event.json")

    def _booked(self, area: int) -> bool:
        """Whether the main chain has the area's book: from then on others may buy there."""
        report = progress.event_of(self.net).get("reports", {}).get(str(area), WAITING)
        return bool(report != WAITING)

    def _ended(self) -> bool:
        """Whether it is time that the main chain has ended what nobody decides, and it has."""
        close_s, start_s = self._spec["confirm_close_s"], self._spec["window_start_s"]
        across = progress.event_of(self.net).get("across", {})
        late = self.net.protocol_now_s() >= close_s + (start_s - close_s) // 2
        return late and not any(across.get(state) for state in UNDECIDED)

    def _cross_nodes(self) -> list[str]:
        """The first cross-node of each area that trades, all at once; [] until each has one."""
        found: list[str] = []
        for area in self.net.trading_areas:
            seats = read_json(self.net.folder / f"area{area}/node0/status.json").get("partners", {})
            if not seats.get("cross_nodes"):
                return []
            found.append(f"area{area}-node{seats['cross_nodes'][0]}")
        return found
