"""The shell around the household's app: follows the newest event by proofs and carries out what `decide` says.

Notices of the stations make it quick; a question every LOOK_MS makes it independent of them. A proof of an event that
is older than one already seen is left aside, so a station cannot send the household back in time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from watt_chain import codec
from watt_chain.codec import DecodeError, T
from watt_chain.contract.cross_area import stood
from watt_chain.contract.cross_objects import CrossIndex, CrossTrade, index_key
from watt_chain.contract.event import State
from watt_chain.contract.objects import (
    OPEN_KEY,
    Account,
    AreaEvent,
    OpenEvents,
    Pair,
    ResultRow,
    Sealed,
    User,
    account_key,
    event_key,
    result_row_key,
    sealed_key,
    user_key,
)
from watt_chain.contract.orders import PairState
from watt_chain.question import KEYS_MAX
from watt_node.clock import ProtocolClock, monotonic_ms
from watt_node.config import ConfigError

from watt_gateway import bill
from watt_gateway.config import Plan, load_plan
from watt_gateway.household import (
    REPUBLISH_S,
    Decision,
    Facts,
    HomePlan,
    SealedBid,
    decide,
    decode_bid,
    encode_bid,
    is_open,
    is_owed,
    keys_of_interest,
    pair_keys,
    plug_keys,
    trade_keys,
)
from watt_gateway.lightnode import QUIET_FAILURES, LightNode, Proven, QueryFailed
from watt_gateway.lines import Lines
from watt_gateway.outgoing import Outgoing
from watt_gateway.store import NewItem, Store, StoredReceipt, StoreUnavailable

LOOK_MS = 10_000
"""Machine time between looks when nothing is known to happen: one question per household."""
LOOK_SOON_MS = 1_000
"""While pairs await the other side, or a bid can still be made."""
RETRY_MS = 2_000
"""After a question that nobody answered; the question itself has taken its time-outs already."""
OVERTAKEN_MS = 200
"""After answers that newer blocks overtook: about the time of a block."""
OVERTAKEN_MAX = 3
"""Questions in a row whose answers a newer notice may overtake; then the look is repeated a little later."""
LABELS_MAX = 10_000
"""Calls remembered as made; some ten per event."""
APP_KINDS = ("commit", "reveal", "choice", "confirm", "cross")
"""First parts of the labels of the app's calls."""


class Follower:
    """Follows events for one household."""

    def __init__(
        self,
        outgoing: Outgoing,
        light: LightNode,
        store: Store,
        clock: ProtocolClock,
        plan_file: Path | None,
        folder: Path,
        network: bytes,
        chain: int,
        publish_plan: Callable[[bytes], bool],
        lines: Lines,
    ) -> None:
        self._outgoing, self._light, self._store, self._clock = outgoing, light, store, clock
        self._plan_file, self._folder = plan_file, folder
        self._network, self._chain = network, chain
        self._publish_plan = publish_plan
        self._lines = lines
        self.event: AreaEvent | None = None
        self.account: Account | None = None
        self.row: ResultRow | None = None
        self.bid: SealedBid | None = None
        self.note = ""
        self.trades = 0
        "Confirmed pairs and trades of ours in the present event."
        self._user: User | None = None
        self._pairs: dict[int, Pair] = {}
        self._across: dict[int, CrossTrade] = {}
        "Our trades with other areas."
        self._searched = 0
        "Pairs of the event that were looked through; a second round of the matching adds some."
        self._height = 0
        self._plan: HomePlan | None = None
        self._plan_next_s = 0
        self._billed: tuple[int, str, int] = (0, "", 0)
        self._look_at_ms = 0
        self._wake = asyncio.Event()
        self._codes: dict[str, str] = {}
        for kind in APP_KINDS:
            self._codes.update({receipt.label: receipt.code for receipt in store.receipts_like(f"{kind}/")})
        self._made = set(self._codes) | {item.label for item in store.outbox()}

    # ---- what comes in --------------------------------------------------------------------------------------------

    def take_notice(self, payload: bytes) -> None:
        """A station says that an event moved; it counts if it is proven and newer than what we know."""
        proven = self._light.check_notice(payload)
        if proven is not None and self._take_event(proven):
            self._look_soon(0)

    def settled(self, receipt: StoredReceipt) -> None:
        """A transaction of ours is final."""
        if receipt.kind != "Checkpoint":
            self._codes[receipt.label] = receipt.code
            self._look_soon(0)

    def broker_up(self) -> None:
        """The area's broker is back: questions can be answered again."""
        self._look_soon(0)

    # ---- the task -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look and act for ever; cancelled at stop."""
        while True:
            now = monotonic_ms()
            wait_ms = max(0, self._look_at_ms - now)
            if self._plan is not None:
                wait_ms = min(wait_ms, self._clock.delay_ms(self._plan_next_s))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(wait_ms, 20) / 1000)
            self._wake.clear()
            self._republish()
            if monotonic_ms() >= self._look_at_ms:
                self._look_at_ms = monotonic_ms() + LOOK_MS
                try:
                    await self.look()
                except QueryFailed as failure:
                    self._look_soon(OVERTAKEN_MS if failure.reason == "overtaken" else RETRY_MS)
                    if failure.reason not in QUIET_FAILURES:
                        self._lines.warn("stations-silent", reason=failure.reason)
                except DecodeError as error:
                    self._lines.warn("state-of-another-version", error=str(error))
                except StoreUnavailable as error:
                    self._lines.warn("disk-refuses", reason=error.reason, action="no bids until there is space")

    async def look(self) -> None:
        """Prove where the event and we stand, decide, act."""
        if self._outgoing.account_id is None:
            await self._outgoing.fetch_account()
        me = self._outgoing.account_id
        if me is None:
            self._look_soon(LOOK_SOON_MS)
            return
        if self.event is None or self.event.state in (State.CLOSED, State.ABORTED):
            await self._find_event(me)
        if self.event is None:
            return
        facts, proofs = await self._facts(me, self.event)
        self.event = facts.event
        decision = decide(
            facts, self.bid, self._read_plan(facts.event), lambda: self._outgoing.bid_salt(facts.event.event)
        )
        await self._act(decision, facts, proofs)
        if self._may_move(facts, decision):
            self._look_soon(LOOK_SOON_MS)

    async def _find_event(self, me: bytes) -> None:
        proven = await self._light.state([OPEN_KEY, account_key(me)])
        self.account = _object(proven, account_key(me), Account) or self.account
        events = _object(proven, OPEN_KEY, OpenEvents)
        newest = 0 if events is None else max([events.last, *events.numbers])
        if newest and (self.event is None or newest > self.event.event):
            self._take_event(await self._light.state([event_key(newest)], self._height))

    async def _facts(self, me: bytes, event: AreaEvent) -> tuple[Facts, list[Proven]]:
        proven = await self._prove(me, event)
        event = self.event or event
        self.account = _object(proven, account_key(me), Account)
        self._user = _object(proven, user_key(me), User)
        self.row = _object(proven, result_row_key(event.event, me), ResultRow)
        sealed = _object(proven, sealed_key(event.event, me), Sealed)
        proofs = [proven]
        if event.pairs and sealed is not None and (self._pairs or event.pairs > self._searched):
            proofs += await self._fetch_pairs(me, event)
            self._searched = event.pairs
        index = _object(proven, index_key(event.event, me), CrossIndex)
        if index is not None:
            proofs += await self._fetch_trades(event, index.numbers)
        self.trades = sum(pair.state in (PairState.CONFIRMED, PairState.SETTLED) for pair in self._pairs.values())
        self.trades += sum(map(stood, self._across.values()))
        facts = Facts(
            me,
            self._clock.now_s(),
            event,
            self.account,
            self._user,
            sealed,
            tuple(self._pairs[number] for number in sorted(self._pairs)),
            tuple(self._across[number] for number in sorted(self._across)),
            self.row,
            self._codes,
        )
        return facts, proofs

    async def _prove(self, me: bytes, event: AreaEvent) -> Proven:
        """The event and what goes with it, all at one height: a notice that overtakes the answer makes it old."""
        for _ in range(OVERTAKEN_MAX):
            event = self.event or event
            proven = await self._light.state([event_key(event.event), *keys_of_interest(event, me)], self._height)
            self._take_event(proven)
            if proven.height >= self._height:
                return proven
        raise QueryFailed("overtaken")

    async def _fetch_pairs(self, me: bytes, event: AreaEvent) -> list[Proven]:
        """Our pairs at present. Each pair is asked for once; then only those that are ours."""
        numbered = [(key, int(key.rsplit(b"/", 1)[1])) for key in pair_keys(event)]
        keys = [key for key, number in numbered if number in self._pairs or number > self._searched]
        proofs: list[Proven] = []
        for start in range(0, len(keys), KEYS_MAX):
            proven = await self._light.state(keys[start : start + KEYS_MAX], self._height)
            proofs.append(proven)
            for value in proven.values.values():
                pair = codec.decode(value, Pair)
                if me in (pair.seller, pair.buyer):
                    self._pairs[pair.number] = pair
        return proofs

    async def _fetch_trades(self, event: AreaEvent, numbers: list[int]) -> list[Proven]:
        """Our trades with other areas at present; there are a handful."""
        keys = trade_keys(event, numbers)
        proofs: list[Proven] = []
        for start in range(0, len(keys), KEYS_MAX):
            proven = await self._light.state(keys[start : start + KEYS_MAX], self._height)
            proofs.append(proven)
            for value in proven.values.values():
                trade = codec.decode(value, CrossTrade)
                self._across[trade.terms.number] = trade
        return proofs

    # ---- acting ---------------------------------------------------------------------------------------------------

    async def _act(self, decision: Decision, facts: Facts, proofs: list[Proven]) -> None:
        self.note = decision.note
        if decision.remember is not None and self.bid is None:
            await asyncio.to_thread(self._store.remember, _bid_key(facts.event.event), encode_bid(decision.remember))
            self.bid = decision.remember
        fresh: list[NewItem] = [item for item in decision.calls if item.label not in self._made]
        if fresh:
            if len(self._made) > LABELS_MAX:
                self._made.clear()  # the store refuses doubles anyway
            self._made.update(item.label for item in fresh)
            self._outgoing.call(tuple(fresh))
        if decision.plan is not None and decision.plan != self._plan:
            self._plan, self._plan_next_s = decision.plan, 0
            self._republish()
        if decision.bill:
            await self._write_bill(facts, proofs)

    def _republish(self) -> None:
        """Publish the plan of the home now and then until its window ends."""
        plan, now_s = self._plan, self._clock.now_s()
        if plan is None or now_s < self._plan_next_s:
            return
        if now_s >= plan.window_start_s + plan.slot_s * len(plan.slots):
            self._plan = None
        elif self._publish_plan(plan.encode()):
            self._plan_next_s = now_s + REPUBLISH_S
        else:
            self._plan_next_s = now_s + max(1, LOOK_SOON_MS * self._clock.speed // 1000)  # no broker: in a moment

    async def _write_bill(self, facts: Facts, proofs: list[Proven]) -> None:
        event, account, row, user = facts.event, facts.account, facts.row, facts.user
        if account is None or row is None or user is None:
            return
        stage = (event.event, event.state.value, hash(codec.encode([row, *facts.trades])))
        if self._billed == stage:
            return
        wanted = plug_keys(user)
        for start in range(0, len(wanted), KEYS_MAX):
            proofs.append(await self._light.state(wanted[start : start + KEYS_MAX], self._height))
        document = await asyncio.to_thread(self._make_bill, facts, account, row, proofs)
        try:
            bill.write(self._folder / f"bill-{event.event}.json", document)
            bill.write(self._folder / "bill.json", document)
        except OSError as error:
            self._lines.warn("bill-not-written", error=str(error.strerror))
            return
        self._billed = stage

    def _make_bill(self, facts: Facts, account: Account, row: ResultRow, proofs: list[Proven]) -> dict[str, object]:
        event = facts.event
        frames: list[tuple[bytes, bytes, StoredReceipt | None]] = []
        for boundary_s in event.spec.boundaries_s():
            for plug, frame, label in self._store.frames_at(boundary_s):
                frames.append((plug, frame, self._store.receipt(label)))
        calls: list[StoredReceipt] = []
        for kind in APP_KINDS:
            receipts = self._store.receipts_like(f"{kind}/{event.event}")
            calls += [receipt for receipt in receipts if receipt.label.split("/")[1] == str(event.event)]
        evidence = bill.Evidence(
            self._network,
            self._chain,
            facts.me,
            event,
            account,
            row,
            facts.pairs,
            facts.trades,
            [proof.proof for proof in proofs],
            frames,
            calls,
        )
        return bill.make(evidence)

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _take_event(self, proven: Proven) -> bool:
        """Take over a proven event when it is newer than ours; returns whether anything changed."""
        if proven.height < self._height:
            return False
        changed = False
        for key, value in proven.values.items():
            if not key.startswith(b"event/"):
                continue
            try:
                event = codec.decode(value, AreaEvent)
            except DecodeError as error:
                self._lines.warn("state-of-another-version", error=str(error))
                continue
            if self.event is not None and event.event < self.event.event:
                continue
            if self.event is None or event.event > self.event.event:
                self._begin(event)
            changed = changed or event != self.event or self.event is None
            self.event = event
            self._height = proven.height
        return changed

    def _begin(self, event: AreaEvent) -> None:
        self._pairs, self._searched, self._plan, self.row, self.trades = {}, 0, None, None, 0
        self._across = {}
        raw = self._store.recall(_bid_key(event.event))
        self.bid = None if raw is None else decode_bid(raw)

    def _may_move(self, facts: Facts, decision: Decision) -> bool:
        """Whether something is about to happen that no notice need tell us of."""
        state = facts.event.state
        if state is State.COMMIT:
            return self.bid is None and decision.note in ("no-plan", "not-enrolled")
        if any(map(is_open, facts.trades)) or any(map(is_owed, facts.trades)):
            return True  # another area, or the main chain, moves next
        if state is State.MATCHED:
            return self.bid is not None and decision.plan is None and bool(facts.pairs)
        return False

    def _read_plan(self, event: AreaEvent) -> Plan | None:
        if self._plan_file is None or event.state not in (State.COMMIT, State.REVEAL, State.MATCHED):
            return None
        if self.bid is not None and event.state is not State.MATCHED:
            return None
        try:
            return load_plan(self._plan_file)
        except ConfigError as error:
            self._lines.warn("plan-unusable", error=str(error))
            return None

    def _look_soon(self, in_ms: int) -> None:
        self._look_at_ms = min(self._look_at_ms, monotonic_ms() + in_ms)
        self._wake.set()


def _bid_key(event: int) -> str:
    return f"bid/{event}"


def _object(proven: Proven, key: bytes, kind: type[T]) -> T | None:
    raw = proven.values.get(key)
    return None if raw is None else codec.decode(raw, kind)
