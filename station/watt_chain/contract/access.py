"""What every function of the contract stands on: typed access to the state, money moves, event moves, refusal.

A function refuses by raising `Refused(reason)`; `execute` of the two contracts is the one place that catches it,
rolls the state back and returns the reason.  Nothing else leaves a contract.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn, TypeVar

import msgspec
from msgspec.structs import replace

from watt_chain import codec, crypto
from watt_chain.contract.event import OPEN_STATES, TRANSITIONS, State, Trigger
from watt_chain.contract.market import Market
from watt_chain.contract.objects import (
    KEYS_MAX,
    OPEN_KEY,
    POOL_KEY,
    RULES_KEY,
    SUPPLY_KEY,
    Account,
    AreaEvent,
    OpenEvents,
    Plug,
    Pool,
    Role,
    RulesIndex,
    Sealed,
    Signer,
    Supply,
    User,
    account_key,
    event_key,
    rules_key,
    sealed_key,
    signer_key,
    user_key,
)
from watt_chain.contract.rules import RuleSet
from watt_chain.ledger import BlockContext
from watt_chain.state import State as ChainState
from watt_chain.state import StateReader

T = TypeVar("T", bound=msgspec.Struct)

FLAT = frozenset((Account, Signer, Plug, Supply, Pool))
"""What every transaction reads, and reads again: objects without lists, which the state keeps as objects (tree.py)."""


class Refused(Exception):
    """A call that the contract does not accept. Caught in `execute`; never leaves the contract."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def refuse(reason: str) -> NoReturn:
    """Refuse the running call."""
    raise Refused(reason)


def refuse_if(condition: bool, reason: str) -> None:
    """Refuse the running call when the condition holds."""
    if condition:
        raise Refused(reason)


def read(state: StateReader, key: bytes, kind: type[T]) -> T | None:
    """The object under a key, None when it was never written."""
    found = state.look(key)
    if found is None or isinstance(found, kind):
        return found
    assert isinstance(found, bytes), "a key has objects of one kind"
    value = codec.decode(found, kind)
    if kind in FLAT:
        state.keep(key, value)
    return value


def signer_of(state: StateReader, public: bytes) -> Signer | None:
    """Which account a key signs or signed for."""
    return read(state, _signer_key_of(public), Signer)


@lru_cache(maxsize=KEYS_MAX)
def _signer_key_of(public: bytes) -> bytes:
    return signer_key(crypto.id8(public))


@dataclass(frozen=True, slots=True)
class Session:
    """The state of the running block, its context, and the market's arithmetic."""

    state: ChainState
    context: BlockContext
    market: Market

    def get(self, key: bytes, kind: type[T]) -> T | None:
        """The object under a key, None when it was never written."""
        return read(self.state, key, kind)

    def need(self, key: bytes, kind: type[T]) -> T:
        """The object under a key that the contract itself has written."""
        found = read(self.state, key, kind)
        assert found is not None, "an object of the contract is missing"
        return found

    def put(self, key: bytes, value: msgspec.Struct) -> None:
        """Write an object; an equal one is not written again."""
        kind = type(value)
        if kind in FLAT:
            if read(self.state, key, kind) != value:
                self.state.put(key, value)
            return
        encoded = codec.encode(value)
        if self.state.get(key) != encoded:
            self.state.put(key, encoded)

    def emit(self, target_chain: int, kind: str, body: msgspec.Struct) -> None:
        """Send a message to another chain."""
        self.state.emit(target_chain, kind, codec.encode(body))

    # Accounts -------------------------------------------------------------------------------------------

    def account(self, account: bytes) -> Account:
        """An account that exists."""
        return self.need(account_key(account), Account)

    def store_account(self, account: Account) -> None:
        """Write an account; no part of it is ever negative."""
        parts = (account.free_u, account.escrow_u, account.bond_u, account.arrears_u, account.points, account.credit)
        assert min(parts) >= 0, "no part of an account is negative"
        self.put(account_key(account.id), account)

    def move(self, account: bytes, *, free_u: int = 0, escrow_u: int = 0, bond_u: int = 0) -> None:
        """Add to the parts of an account. The caller keeps the sum over all accounts."""
        now = self.account(account)
        self.store_account(
            replace(now, free_u=now.free_u + free_u, escrow_u=now.escrow_u + escrow_u, bond_u=now.bond_u + bond_u)
        )

    def user(self, account: bytes) -> User:
        """The metering point of a user."""
        return self.need(user_key(account), User)

    def office(self, role: Role) -> Account:
        """The account of the grid company, the aggregator or the regulator."""
        return self.need(account_key(self.need(b"office/" + role.encode(), Office).account), Account)

    def supply(self) -> Supply:
        """Money in and out."""
        return self.need(SUPPLY_KEY, Supply)

    def put_supply(self, supply: Supply) -> None:
        """Write the supply."""
        self.put(SUPPLY_KEY, supply)

    def pool(self) -> Pool:
        """Points held by the grid."""
        return self.need(POOL_KEY, Pool)

    # Rules ----------------------------------------------------------------------------------------------

    def rules_index(self) -> RulesIndex:
        """Active version and pending ones."""
        return self.need(RULES_KEY, RulesIndex)

    def rules(self, version: int | None = None) -> RuleSet:
        """A rule set; without a version the active one."""
        return self.need(rules_key(self.rules_index().active if version is None else version), RuleSet)

    # Events ---------------------------------------------------------------------------------------------

    def open_events(self) -> OpenEvents:
        """Numbers of events that are not over."""
        return self.need(OPEN_KEY, OpenEvents)

    def event(self, number: int) -> AreaEvent:
        """An area's event. Refuses "unknown-event"."""
        found = self.get(event_key(number), AreaEvent)
        if found is None:
            refuse("unknown-event")
        return found

    def event_in(self, number: int, *states: State) -> AreaEvent:
        """An event in one of these states. Refuses "unknown-event" and "stage"."""
        found = self.event(number)
        refuse_if(found.state not in states, "stage")
        return found

    def advance(self, event: AreaEvent, trigger: Trigger) -> AreaEvent:
        """Store the event in the state that the table gives. Refuses "stage" when the table has no such step."""
        target = TRANSITIONS[event.state].get(trigger)
        if target is None:
            refuse("stage")
        moved = replace(event, state=target, open=target in OPEN_STATES)
        self.put(event_key(event.event), moved)
        if target in (State.CLOSED, State.ABORTED):
            self.forget_open(event.event)
        return moved

    def forget_open(self, number: int) -> None:
        """Take an event off the list of open ones."""
        opened = self.open_events()
        self.put(OPEN_KEY, replace(opened, numbers=[one for one in opened.numbers if one != number]))

    def sealed(self, event: int, account: bytes) -> Sealed | None:
        """A user's sealed bid."""
        return self.get(sealed_key(event, account), Sealed)

    def all_sealed(self, event: int) -> list[Sealed]:
        """All sealed bids of an event, ascending by user id (never in order of arrival)."""
        found = [self.need(key, Sealed) for key in self.state.keys(b"sealed/%d/" % event)]
        return sorted(found, key=lambda one: one.user)


class Office(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """office/<role>: which account holds the office."""

    account: bytes


def largest_remainder(total: int, weights: list[int]) -> list[int]:
    """Split `total` in proportion to `weights`, exactly.

    share_i = total * weight_i // sum; the units left over go one each to the largest remainders
    (total * weight_i) mod sum, ties to the lower index. All zero when the weights are.
    """
    whole = sum(weights)
    if whole == 0:
        return [0] * len(weights)
    shares = [total * weight // whole for weight in weights]
    order = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for index in order[: total - sum(shares)]:
        shares[index] += 1
    return shares
