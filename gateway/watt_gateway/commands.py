"""Switch commands on their way to the plugs: what a gateway carries, when, how often, and what became of it.

The gateway has no key for commands and cannot make one; it carries what two offices of different organisations have
signed (WIRE.md 6) and checks it again, so that a broker cannot flood a plug and a mistake of an office does not
reach an appliance that must never be switched. Whether the plug obeys is the plug's decision (DEVICE.md 5); what it
decided is a signed event, and only that ends a command here. A command waits for its plug: one that is away gets it
when it is back and knows the time, or provably never gets it before it lapses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from watt_chain import crypto
from watt_chain.genesis import Genesis
from watt_wire import command as commands
from watt_wire import statement
from watt_wire.errors import DecodeError

from watt_gateway.plugbook import ACCEPTED, EXPIRED, NOT_CARRIED, REFUSED, PlugBook, PlugCommand

SENDS_MAX = 8
"""Times a plug is given a command. It takes one at a time and needs a second for it; more would only be noise."""
RESEND_MS = 15_000
"""Machine time between two of them: two verifications on an ESP32 under load, and the way back."""
DAY_S = 86_400
COMMANDS_PER_DAY = 24
"""Commands for one plug that a gateway carries in a day: a hold and a release an hour. More is an attack or a fault."""
WAITING_MAX = 256
"""Commands of one household that wait; 64 plugs, four each."""
OFFICES = ("grid", "aggregator", "regulator")
"""Organisations whose keys are in the genesis file; their numbers at the plugs count from 1 (WIRE.md 12, party)."""


class Offices:
    """Who may sign commands, by signer id."""

    def __init__(self, parties: Sequence[tuple[int, bytes]]) -> None:
        """`parties`: (number of the organisation, public key), as a plug is told at pairing."""
        self.parties = list(parties)
        self._by_id = {crypto.id8(public): (number, public) for number, public in parties}

    @classmethod
    def of(cls, genesis: Genesis) -> Offices:
        """The three offices of a network, numbered as OFFICES."""
        return cls(list(enumerate((genesis.grid, genesis.aggregator, genesis.regulator), 1)))

    def name(self, signer: bytes) -> str:
        """The office of a signer id; "" for a stranger."""
        found = self._by_id.get(signer)
        return "" if found is None else OFFICES[found[0] - 1]

    def have_signed(self, order: commands.Command, frame: bytes) -> bool:
        """Whether two different offices have signed this frame."""
        first, second = self._by_id.get(order.signer_a), self._by_id.get(order.signer_b)
        if first is None or second is None or first[0] == second[0]:
            return False
        return commands.verify(frame, first[1], second[1], crypto.verify)


class CommandRelay:
    """The commands of one household. The owner calls `take`, `told` and `due`; each may write to the book."""

    def __init__(
        self,
        network: bytes,
        offices: Offices,
        plugs: Mapping[bytes, object],
        essential: Collection[bytes],
        book: PlugBook,
        now_s: Callable[[], int],
    ) -> None:
        """`plugs`: by id, kept up to date by the owner; `essential`: those never to be switched off."""
        self._network = network
        self._offices = offices
        self._plugs = plugs
        self._essential = essential
        self._book = book
        self._now_s = now_s
        self._waiting = {(row.plug, row.counter): row for row in book.waiting()}
        self._sent_ms: dict[bytes, int] = {}
        self.refused: dict[str, int] = {}
        "Commands not carried, by reason."

    @property
    def waiting(self) -> int:
        """Commands whose end is not known."""
        return len(self._waiting)

    def take(self, frame: bytes) -> PlugCommand | None:
        """A frame from an office: the command as it stands now, carried, known already, or not carried and why.

        None for what is no command at all. StoreUnavailable when the disk refuses, with nothing changed.
        """
        try:
            order = commands.decode(frame)
        except DecodeError as error:
            self._count(error.reason)
            return None
        command = PlugCommand(order.plug_id, order.counter, frame, self._now_s())
        known = self._book.command(order.plug_id, order.counter)
        if known is not None and known.frame == frame:
            return known
        reason = "command-known" if known is not None else self._objection(order, frame)
        if reason:
            self._count(reason)
            return replace(command, state=f"{NOT_CARRIED} {reason}")
        self._book.add_command(command)
        self._waiting[command.plug, command.counter] = command
        return command

    def told(self, event: statement.Statement) -> PlugCommand | None:
        """A plug's signed event; the command that it ends, if it does."""
        kind = event.number("kind")
        if kind not in (statement.COMMAND_ACCEPTED, statement.COMMAND_REFUSED):
            return None
        command = self._waiting.get((event.data("plug_id"), event.number("first")))
        if command is None:
            return None
        if kind == statement.COMMAND_ACCEPTED:
            return self._end(command, ACCEPTED)
        reason = event.number("last")
        known = reason < len(statement.COMMAND_REASONS)
        text = statement.COMMAND_REASONS[reason] if known else str(reason)
        return self._end(command, f"{REFUSED} {text}")

    def due(self, ready: Collection[bytes], now_ms: int) -> list[PlugCommand]:
        """What to send now: one command for each plug that can take one (it is there and knows the time)."""
        now_s = self._now_s()
        found: dict[bytes, PlugCommand] = {}
        for (plug, _), command in sorted(self._waiting.items()):
            order = commands.decode(command.frame)
            if plug not in ready or plug in found or command.sends >= SENDS_MAX:
                continue
            if order.not_before_s <= now_s < order.expires_s:
                found[plug] = command
        sent = []
        for plug, command in found.items():
            if now_ms - self._sent_ms.get(plug, now_ms - RESEND_MS) < RESEND_MS:
                continue
            self._sent_ms[plug] = now_ms
            sent.append(self._keep(replace(command, sends=command.sends + 1)))
        return sent

    def lapse(self) -> list[PlugCommand]:
        """End what has lapsed; returns it. A command that nobody obeyed is over, whatever the reason."""
        now_s = self._now_s()
        over = [row for row in self._waiting.values() if now_s >= commands.decode(row.frame).expires_s]
        return [self._end(command, EXPIRED) for command in over]

    def _objection(self, order: commands.Command, frame: bytes) -> str:
        """Why this gateway does not carry a command, or ""."""
        if order.plug_id not in self._plugs:
            return "command-plug"
        reason = commands.refusal(order, self._network, order.plug_id, 0, self._now_s())
        if reason and reason != "command-early":
            return reason
        if not self._offices.have_signed(order, frame):
            return "command-signature"
        if order.action == commands.OFF and order.plug_id in self._essential:
            return "command-essential"
        if len(self._waiting) >= WAITING_MAX:
            return "command-crowd"
        if self._book.commands_since(order.plug_id, self._now_s() - DAY_S) >= COMMANDS_PER_DAY:
            return "command-budget"
        return ""

    def _count(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def _end(self, command: PlugCommand, state: str) -> PlugCommand:
        ended = replace(command, state=state, ended_s=max(1, self._now_s()))
        self._book.mark_command(ended)
        del self._waiting[command.plug, command.counter]
        return ended

    def _keep(self, command: PlugCommand) -> PlugCommand:
        self._book.mark_command(command)
        self._waiting[command.plug, command.counter] = command
        return command
