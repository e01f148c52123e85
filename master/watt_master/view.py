"""What the services see: the ledgers of the main chain and of every area, read through the contract's own structs.

Read only. Every answer is taken from final state, so a service that was restarted sees exactly what the one before
it saw; nothing is remembered here.
"""

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from watt_chain import codec
from watt_chain.contract import objects
from watt_chain.contract.cross_objects import CrossTrade, MainTrade, Position, position_key
from watt_chain.contract.event import State
from watt_chain.contract.market import Book
from watt_chain.contract.objects import AnchorState, AreaEvent, KnownList, MainEvent, OpenEvents, ResultRow, RulesIndex
from watt_chain.contract.rules import RuleSet
from watt_chain.ledger import Ledger

T = TypeVar("T", bound=msgspec.Struct)

MAIN = objects.MAIN_CHAIN
FINISHED = (State.CLOSED, State.ABORTED)


class View:
    """Ledgers by chain number; 0 is the main chain."""

    def __init__(self, ledgers: Mapping[int, Ledger]) -> None:
        self._ledgers = ledgers

    def areas(self) -> list[int]:
        """Chain numbers of the areas, ascending."""
        return sorted(chain for chain in self._ledgers if chain != MAIN)

    def ledger(self, chain: int) -> Ledger:
        """The ledger of a chain; KeyError when this master does not keep it."""
        return self._ledgers[chain]

    def next_nonce(self, chain: int, signer: bytes) -> int:
        """The nonce a key must use next on a chain; negative when that chain does not know it."""
        return self._ledgers[chain].next_nonce(signer)

    def read(self, chain: int, key: bytes, kind: type[T]) -> T | None:
        """An object of the state, None when it was never written."""
        value = self._ledgers[chain].state.get(key)
        return None if value is None else codec.decode(value, kind)

    def known_list(self, chain: int) -> KnownList | None:
        """Who certifies an area, and from which height, as the main chain knows it."""
        return self.read(MAIN, objects.known_list_key(chain), KnownList)

    def main_event(self, event: int) -> MainEvent | None:
        """The event on the main chain."""
        return self.read(MAIN, objects.event_key(event), MainEvent)

    def area_event(self, chain: int, event: int) -> AreaEvent | None:
        """One area's child of the event."""
        return self.read(chain, objects.event_key(event), AreaEvent)

    def numbers(self, chain: int) -> list[int]:
        """Events of a chain that are not finished, ascending."""
        held = self.read(chain, objects.OPEN_KEY, OpenEvents)
        return [] if held is None else sorted(held.numbers)

    def last_event(self, chain: int) -> int:
        """The largest event number that a chain has seen, 0 before the first."""
        held = self.read(chain, objects.OPEN_KEY, OpenEvents)
        return 0 if held is None else held.last

    def book(self, event: int, chain: int) -> Book | None:
        """An area's book as anchored on the main chain."""
        return self.read(MAIN, objects.main_book_key(event, chain), Book)

    def rows(self, chain: int, event: int) -> list[ResultRow]:
        """The results of an event in an area, in the order in which they were written."""
        found = [
            self.read(chain, key, ResultRow)
            for key in self._ledgers[chain].state.keys(objects.result_row_key(event, b""))
        ]
        return [row for row in found if row is not None]

    def cross_trades(self, chain: int, event: int) -> list[CrossTrade]:
        """An area's halves of trades across areas, by number."""
        found = [self.read(chain, key, CrossTrade) for key in self._ledgers[chain].state.keys(b"cross/%d/" % event)]
        return sorted((trade for trade in found if trade is not None), key=lambda trade: trade.terms.number)

    def main_trades(self, event: int) -> list[MainTrade]:
        """What the main chain has recorded of trades across areas, by number."""
        found = [self.read(MAIN, key, MainTrade) for key in self._ledgers[MAIN].state.keys(b"cross/%d/" % event)]
        return sorted((trade for trade in found if trade is not None), key=lambda trade: trade.terms.number)

    def anchor_height(self, chain: int) -> int:
        """Height of the last block of an area that the main chain has taken in."""
        held = self.read(MAIN, objects.anchor_key(chain), AnchorState)
        return 0 if held is None else held.height

    def is_quarantined(self, chain: int) -> bool:
        """Whether the main chain takes nothing of an area any more."""
        held = self.read(MAIN, position_key(chain), Position)
        return held is not None and held.quarantine != ""

    def active_rules(self, chain: int) -> int:
        """Version of the rule set that is active on a chain."""
        held = self.read(chain, objects.RULES_KEY, RulesIndex)
        return 0 if held is None else held.active

    def rules(self, chain: int, version: int) -> RuleSet | None:
        """A rule set by version."""
        return self.read(chain, objects.rules_key(version), RuleSet)
