"""A whole network in memory: main chain and areas as real ledgers, one transaction per block, messages relayed.

After every block the sum of free, escrow and bond over all accounts of an area must equal what was deposited less what
was withdrawn, and the contract may not have raised.  Times are protocol seconds; the world's clock is set by the test.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec.structs import replace
from watt_chain import block as blocks
from watt_chain import codec, crypto
from watt_chain.block import Certificate, CertifiedBlock, Header, OutMessage, VoteSignature
from watt_chain.contract import AreaContract, MainContract, kinds
from watt_chain.contract.bidding import commitment_of
from watt_chain.contract.cross_objects import (
    TRANSIT_KEY,
    CrossTrade,
    MainTrade,
    Position,
    Transit,
    cross_key,
    position_key,
    source_key,
)
from watt_chain.contract.event import EventSpec, State, Unit
from watt_chain.contract.market import Book, Solution, budgeted
from watt_chain.contract.objects import (
    Account,
    AreaEvent,
    InboxCursor,
    MainEvent,
    Pair,
    ResultRow,
    Sealed,
    Supply,
    account_key,
    event_key,
    main_book_key,
    pair_key,
    result_row_key,
    rules_key,
    sealed_key,
)
from watt_chain.contract.rules import RULES_1, RULES_2, RuleSet
from watt_chain.genesis import AreaGenesis, Genesis, Validator, quorum
from watt_chain.ledger import AppliedBlock, BlockContext, Ledger
from watt_chain.state import State as ChainState
from watt_chain.transaction import decode_transaction, make_transaction
from watt_market.engine import Market
from watt_wire import checkpoint as wire
from watt_wire import merkle

START_S = 1_700_000_000 // 900 * 900
DEPOSIT_U = 200_000_000


def key_of(number: int) -> crypto.PrivateKey:
    return crypto.PrivateKey.from_bytes((1000 + number).to_bytes(32, "big"))


REGULATOR, GRID, AGGREGATOR = key_of(1), key_of(2), key_of(3)
STRANGER = key_of(4)


@dataclass
class Home:
    """A household of the tests: key, plug key, and the plug's chain of checkpoints."""

    number: int
    area: int
    annual_kwh: int = 4000
    rated_w: int = 2000
    key_class: str = "secure"
    node: int = 0
    counter: int = 0
    previous: bytes = wire.NO_PREVIOUS
    register_mwh: int = 5_000_000
    pending: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.key = key_of(100 + self.number)
        self.plug = key_of(10_000 + self.number)
        self.id = crypto.id8(self.key.public)
        self.plug_id = crypto.id8(self.plug.public)

    def enrol(self) -> kinds.Enrol:
        plug = kinds.EnrolPlug(self.plug.public, self.key_class, self.rated_w)  # type: ignore[arg-type]
        return kinds.Enrol(self.key.public, self.node, [plug], True, self.annual_kwh, "h25", False)

    def checkpoint(self, time_s: int, add_mwh: int = 0, **changes: object) -> bytes:
        """The plug's next frame; `changes` override fields, signed by the plug all the same."""
        self.register_mwh += add_mwh
        body = wire.Checkpoint(
            1,
            self.plug_id,
            1,
            self.counter + 1,
            self.previous,
            merkle.root([]),
            1,
            0,
            time_s,
            ord("S"),
            self.register_mwh,
            0,
            bytes(32),
            bytes(32),
            wire.PERIODIC,
        )
        for name, value in changes.items():
            setattr(body, name, value)
        encoded = wire.encode(body)
        frame = wire.seal(encoded, self.plug.sign(wire.signing_message(encoded)))
        self.counter, self.previous = body.counter, wire.frame_hash(frame)
        return frame


def make_spec(event: int = 1, start_s: int = START_S, **changes: object) -> EventSpec:
    """Four quarter hours, 200 Wh baseline and 160 Wh quota per slot for 4,000 kWh a year."""
    spec = EventSpec(
        event=event,
        kind="peak",
        slot_s=900,
        slots=4,
        required_ppm=200_000,
        open_s=start_s + 100,
        commit_close_s=start_s + 200,
        reveal_close_s=start_s + 300,
        match_by_s=start_s + 500,
        confirm_close_s=start_s + 800,
        window_start_s=start_s + 900,
        meter_close_s=start_s + 4600,
        settle_by_s=start_s + 6000,
        alpha_u_per_wh=[20, 30, 40, 20],
        x_ms=7,
        y_ms=20,
        budget_u=1_000_000,
        units=[Unit(400, [60, 60, 60, 60]), Unit(900, [10_000] * 4)],
        normal_price_u_per_wh=600,
        compensation_price_u_per_wh=0,
        profile_wh_per_mwh=[50, 50, 50, 50],
    )
    return replace(spec, **changes)


class World:
    """Ledgers of all chains with their validators' keys."""

    def __init__(
        self, areas: int = 2, rules: RuleSet = RULES_1, homes: list[Home] | None = None, nodes: int = 2
    ) -> None:
        self.validators = {chain: [key_of(10 * (chain + 1) + i) for i in range(nodes)] for chain in range(areas + 1)}
        named = {
            chain: [Validator(f"node{i}", key.public) for i, key in enumerate(keys)]
            for chain, keys in self.validators.items()
        }
        self.genesis = Genesis(
            "test",
            START_S,
            REGULATOR.public,
            GRID.public,
            AGGREGATOR.public,
            named[0],
            [AreaGenesis(chain, f"area{chain}", named[chain]) for chain in range(1, areas + 1)],
            sorted({codec.encode(RULES_1), codec.encode(RULES_2), codec.encode(rules)}),
            rules.version,
            1_000_000,
        )
        self.market = Market()
        self.ledgers = {chain: Ledger(self.genesis, chain, self._contract(chain)) for chain in self.validators}
        self.network = self.ledgers[0].network
        self.now_s = START_S
        self.applied: dict[int, list[tuple[AppliedBlock, bytes, bytes]]] = {chain: [] for chain in self.validators}
        self.anchored = dict.fromkeys(range(1, areas + 1), 0)
        self.homes = homes if homes is not None else [Home(n, 1 + n % areas) for n in range(4 * areas)]
        for home in self.homes:
            assert self.call(home.area, REGULATOR, "Enrol", home.enrol()) == ""
            assert self.call(home.area, GRID, "Deposit", kinds.Deposit(home.id, DEPOSIT_U)) == ""
            frame = home.checkpoint(START_S)
            assert self.call(home.area, home.key, "Checkpoint", kinds.Checkpoint(frame, -1)) == ""

    def _contract(self, chain: int) -> AreaContract | MainContract:
        return MainContract(self.market) if chain == 0 else AreaContract(self.market)

    @property
    def areas(self) -> list[int]:
        return [chain for chain in self.ledgers if chain]

    # Blocks

    def block(self, chain: int, txs: list[bytes]) -> AppliedBlock:
        """A certified block of these transactions, applied."""
        ledger = self.ledgers[chain]
        height = ledger.head.height + 1
        proposer = ledger.schedule.leader(height, 0)
        built = ledger.build(0, proposer, self.now_s, txs)
        header = codec.decode(built.header, Header)
        hash_ = blocks.block_hash(self.network, built.header)
        message = blocks.vote_bytes(self.network, "commit", chain, height, 0, hash_)
        keys = self.validators[chain]
        votes = [VoteSignature(i, keys[i].sign(message)) for i in range(quorum(len(keys)))]
        certificate = codec.encode(Certificate(0, votes))
        applied = ledger.apply(codec.encode(CertifiedBlock(codec.encode(built), certificate)))
        assert applied.header == header
        self.applied[chain].append((applied, built.header, certificate))
        if chain:
            self.check_money(chain)
        return applied

    def tx(self, chain: int, key: crypto.PrivateKey, kind: str, fields: object) -> bytes:
        nonce = max(1, self.ledgers[chain].next_nonce(key.public))  # negative for a key that may not sign
        return make_transaction(key, self.network, kind, chain, nonce, fields)

    def call(self, chain: int, key: crypto.PrivateKey, kind: str, fields: object) -> str:
        """One transaction in a block of its own; its receipt."""
        receipts = self.block(chain, [self.tx(chain, key, kind, fields)]).receipts
        assert len(receipts) == 1
        return receipts[0].code

    def dry(self, chain: int, key: crypto.PrivateKey, kind: str, fields: object) -> tuple[str, dict[bytes, bytes]]:
        """The outcome of a call in a block of its own that never becomes final, and what execute wrote."""
        ledger = self.ledgers[chain]
        tx = decode_transaction(self.tx(chain, key, kind, fields))
        context = BlockContext(
            self.network, chain, ledger.head.height + 1, max(self.now_s, ledger.head.time_s), 0, ledger.validators
        )
        state = ChainState(ledger._tree, chain)  # an overlay: the ledger's own state is not touched
        ledger.contract.begin(state, context)
        ledger.contract.consume_nonce(state, key.public, ledger.contract.next_nonce(state, key.public))
        before = dict(state.overlay.writes)
        sent = len(state.messages())
        code = ledger.contract.execute(state, context, tx)
        if code:
            assert state.overlay.writes == before, f"{kind} was refused ({code}) and wrote"
            assert len(state.messages()) == sent
        changed = [key for key, value in state.overlay.writes.items() if before.get(key) != value]
        return code, {key: state.get(key) or b"" for key in changed}

    def tick(self, chain: int, time_s: int | None = None) -> None:
        """A block that does nothing but carry the time."""
        self.now_s = self.now_s if time_s is None else time_s
        assert self.call(chain, GRID, "Validators", [b""]) == "role"

    def tick_all(self, time_s: int) -> None:
        for chain in self.ledgers:
            self.tick(chain, time_s)

    # Messages

    def anchor_fields(self, chain: int, position: int) -> kinds.Anchor:
        applied, header, certificate = self.applied[chain][position]
        return kinds.Anchor(header, certificate, [codec.encode(one) for one in applied.out_messages])

    def relay_up(self) -> None:
        """Anchor every area block that the main chain has not seen."""
        for chain in self.areas:
            while self.anchored[chain] < len(self.applied[chain]):
                fields = self.anchor_fields(chain, self.anchored[chain])
                if self.dry(0, self.validators[0][0], "Anchor", fields)[0] == "quarantine":
                    break
                assert self.call(0, self.validators[0][0], "Anchor", fields) == ""
                self.anchored[chain] += 1

    def inbox_fields(self, chain: int, source: int = 0) -> list[kinds.Inbox]:
        """One Inbox call for every block of `source` with messages that this area has not consumed."""
        held = self.ledgers[chain].state.get(source_key(source) if source else b"inbox")
        cursor = codec.decode(held, InboxCursor).sequence if held else 0
        found: list[kinds.Inbox] = []
        for applied, header, certificate in self.applied[source]:
            messages: tuple[OutMessage, ...] = applied.out_messages
            size, proofs = blocks.message_proofs(messages, chain)
            entries = [
                kinds.InboxEntry(index, data, path)  # type: ignore[arg-type]
                for index, data, path in proofs
                if codec.decode(data, OutMessage).sequence > cursor  # type: ignore[arg-type]
            ]
            if entries:
                found.append(kinds.Inbox(header, certificate, size, entries))
        return found

    def relay_down(self) -> None:
        for chain in self.areas:
            for fields in self.inbox_fields(chain):
                assert self.call(chain, self.validators[chain][0], "Inbox", fields) == ""

    def relay_across(self) -> None:
        """Carry every lock from area to area."""
        for source in self.areas:
            for target in self.areas:
                for fields in self.inbox_fields(target, source) if source != target else []:
                    assert self.call(target, self.validators[target][0], "Inbox", fields) == ""

    def relay_all(self) -> None:
        """Every message to where it goes, until no chain has anything to say to another."""
        while True:
            before = [ledger.head.height for ledger in self.ledgers.values()]
            self.relay_down()
            self.relay_across()
            self.relay_up()
            if [ledger.head.height for ledger in self.ledgers.values()] == before:
                return

    # Reading

    def trade(self, chain: int, number: int = 1, event: int = 1) -> CrossTrade:
        return codec.decode(self.ledgers[chain].state.get(cross_key(event, number)) or b"", CrossTrade)

    def main_trade(self, number: int = 1, event: int = 1) -> MainTrade:
        return codec.decode(self.ledgers[0].state.get(cross_key(event, number)) or b"", MainTrade)

    def position(self, chain: int) -> Position:
        return codec.decode(self.ledgers[0].state.get(position_key(chain)) or b"", Position)

    def transit(self, chain: int) -> Transit:
        held = self.ledgers[chain].state.get(TRANSIT_KEY)
        return codec.decode(held, Transit) if held else Transit(0, 0)

    def account(self, chain: int, public: bytes) -> Account:
        return codec.decode(self.ledgers[chain].state.get(account_key(crypto.id8(public))) or b"", Account)

    def account_at(self, chain: int, key: bytes) -> Account:
        return codec.decode(self.ledgers[chain].state.get(key) or b"", Account)

    def event(self, chain: int, number: int = 1) -> AreaEvent:
        return codec.decode(self.ledgers[chain].state.get(event_key(number)) or b"", AreaEvent)

    def main_event(self, number: int = 1) -> MainEvent:
        return codec.decode(self.ledgers[0].state.get(event_key(number)) or b"", MainEvent)

    def pairs(self, chain: int, number: int = 1) -> list[Pair]:
        state = self.ledgers[chain].state
        count = self.event(chain, number).pairs
        return [codec.decode(state.get(pair_key(number, k)) or b"", Pair) for k in range(1, count + 1)]

    def row(self, home: Home, number: int = 1) -> ResultRow:
        return codec.decode(self.ledgers[home.area].state.get(result_row_key(number, home.id)) or b"", ResultRow)

    def sealed(self, home: Home, number: int = 1) -> Sealed:
        return codec.decode(self.ledgers[home.area].state.get(sealed_key(number, home.id)) or b"", Sealed)

    def check_money(self, chain: int) -> None:
        state = self.ledgers[chain].state
        accounts = [codec.decode(state.get(key) or b"", Account) for key in state.keys(b"account/")]
        held = sum(one.free_u + one.escrow_u + one.bond_u for one in accounts)
        supply = codec.decode(state.get(b"supply") or b"", Supply)
        transit = self.transit(chain)
        assert held == supply.deposited_u - supply.withdrawn_u + transit.received_u - transit.sent_u
        for one in accounts:
            assert min(one.free_u, one.escrow_u, one.bond_u) >= 0


@dataclass
class Plan:
    """What a home bids, and what it then does."""

    home: Home
    side: str
    price_u_per_wh: int
    slot_wh: list[int]
    load_wh: list[int]
    confirm: bool = True
    reveal: bool = True
    late_registers: bool = False

    def bid(self, event: int = 1) -> kinds.Reveal:
        return kinds.Reveal(event, self.side, self.price_u_per_wh, self.slot_wh, bytes([self.home.number] * 16))  # type: ignore[arg-type]


class Play:
    """One event, stage by stage; each step leaves all chains in the named state."""

    def __init__(self, world: World, plans: list[Plan], spec: EventSpec | None = None) -> None:
        self.world, self.plans = world, plans
        self.spec = spec or make_spec()
        self.number = self.spec.event

    def run(self, until: State) -> Play:
        steps = {
            State.ANNOUNCED: self.announce,
            State.COMMIT: self.open,
            State.REVEAL: self.commit,
            State.QUALIFIED: self.reveal,
            State.MATCHED: self.match,
            State.CONFIRMED: self.confirm,
            State.DELIVERING: self.window,
            State.METERED: self.deliver,
            State.SETTLED: self.settle,
            State.CLOSED: self.close,
        }
        for state, step in steps.items():
            step()
            for chain in self.world.areas:
                assert self.world.event(chain, self.number).state is state, (chain, state)
            if state is until:
                break
        return self

    def announce(self) -> None:
        assert self.world.call(0, GRID, "Initial", kinds.Initial(self.spec)) == ""
        self.world.relay_down()

    def open(self) -> None:
        self.world.tick_all(self.spec.open_s)

    def commit(self) -> None:
        for plan in self.plans:
            fields = kinds.Commit(self.number, commitment_of(plan.bid(self.number), plan.home.id))
            assert self.world.call(plan.home.area, plan.home.key, "Commit", fields) == ""
        self.world.tick_all(self.spec.commit_close_s)

    def reveal(self) -> None:
        for plan in self.plans:
            if plan.reveal:
                assert self.world.call(plan.home.area, plan.home.key, "Reveal", plan.bid(self.number)) == ""
        self.world.tick_all(self.spec.reveal_close_s)
        for chain in self.world.areas:
            assert self.world.call(chain, AGGREGATOR, "Qualify", kinds.EventCall(self.number)) == ""
        self.world.relay_up()

    def solution(self) -> Solution:
        state = self.world.ledgers[0].state
        found = [state.get(main_book_key(self.number, chain)) for chain in self.world.areas]
        opened = [codec.decode(book, Book) for book in found if book is not None]
        return self.world.market.clear(opened, budgeted(self.spec, self.rules(), opened), self.rules())

    def rules(self) -> RuleSet:
        version = self.world.main_event(self.number).rules_version
        return codec.decode(self.world.ledgers[0].state.get(rules_key(version)) or b"", RuleSet)

    def match(self) -> None:
        assert self.world.call(0, AGGREGATOR, "Match", [self.solution()]) == ""
        if self.rules().improve_s:  # the window for better matchings ends with the next block after it
            self.world.tick(0, min(self.world.now_s + self.rules().improve_s, self.spec.match_by_s))
        self.world.relay_down()
        self.world.relay_up()

    def confirm(self) -> None:
        for plan in self.plans:
            area, home = plan.home.area, plan.home
            mine = [pair for pair in self.world.pairs(area, self.number) if home.id in (pair.seller, pair.buyer)]
            if not mine or not plan.confirm:
                continue
            choice = kinds.Confirmtransaction(self.number, True)
            assert self.world.call(area, home.key, "Confirmtransaction", choice) == ""
            for pair in mine:
                fields = kinds.Confirm(self.number, pair.number, True)
                assert self.world.call(area, home.key, "Confirm", fields) == ""
        self.world.tick_all(self.spec.confirm_close_s)

    def window(self) -> None:
        self.world.tick_all(self.spec.window_start_s)

    def deliver(self) -> None:
        boundaries = self.spec.boundaries_s()
        for position, time_s in enumerate(boundaries):
            self.world.now_s = time_s
            for plan in self.plans:
                if plan.late_registers:
                    continue
                home = plan.home
                add = plan.load_wh[position - 1] * 1000 if position else 0
                frame = home.checkpoint(time_s, add)
                fields = kinds.Checkpoint(frame, 9_000_000 + home.register_mwh)
                assert self.world.call(home.area, home.key, "Checkpoint", fields) == ""
        self.world.now_s = self.spec.meter_close_s
        for chain in self.world.areas:
            assert self.world.call(chain, AGGREGATOR, "SettlementCredit", kinds.EventCall(self.number)) == ""
        self.world.relay_up()

    def prices(self) -> None:
        assert self.world.call(0, GRID, "SettlementAmount", kinds.EventCall(self.number)) == ""
        self.world.relay_down()

    def settle(self) -> None:
        self.prices()
        for chain in self.world.areas:
            assert self.world.call(chain, AGGREGATOR, "SettlementAmount", kinds.EventCall(self.number)) == ""

    def close(self) -> None:
        for chain in self.world.areas:
            for kind in ("PriceIncentives", "Punish", "Points"):
                assert self.world.call(chain, GRID, kind, kinds.EventCall(self.number)) == ""
        self.world.relay_up()


def usual_plans(world: World) -> list[Plan]:
    """In every area: a seller, a defaulting seller, two buyers; quota is 160 Wh per slot."""
    plans: list[Plan] = []
    for chain in world.areas:
        homes = [home for home in world.homes if home.area == chain]
        plans += [
            Plan(homes[0], "sell", 300, [50, 50, 50, 50], [110, 110, 110, 110]),
            Plan(homes[1], "sell", 350, [40, 40, 40, 40], [140, 145, 140, 150]),
            Plan(homes[2], "buy", 900, [60, 60, 60, 60], [220, 220, 220, 220]),
            Plan(homes[3], "buy", 800, [30, 30, 30, 30], [190, 190, 190, 190]),
        ]
    return plans
