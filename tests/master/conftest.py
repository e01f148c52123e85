"""A whole network in memory: real ledgers with the real contracts and market, no consensus, no transport.

`World` stands in for what is not under test here: it certifies blocks with a quorum of keys, plays the stations'
inbox relay, the households (sealed bids, confirmations) and their plugs (signed checkpoints). Offices, desks, area
replicas, anchoring and the archive are the real ones of `watt_master`.
"""

import io
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from watt_chain import block as blocks
from watt_chain import codec
from watt_chain.block import Block, Certificate, CertifiedBlock, VoteSignature, decode_certified, message_proofs
from watt_chain.contract import AreaContract, MainContract, kinds
from watt_chain.contract.bidding import commitment_of
from watt_chain.contract.event import State
from watt_chain.contract.objects import (
    Account,
    Pair,
    Result,
    ResultRow,
    Sealed,
    account_key,
    pair_key,
    result_key,
    result_row_key,
    sealed_key,
)
from watt_chain.contract.orders import PairState
from watt_chain.contract.rules import RULES_1, RuleSet
from watt_chain.crypto import PrivateKey, id8, sha256
from watt_chain.genesis import AreaGenesis, Genesis, Validator, network_of, quorum
from watt_chain.ledger import AppliedBlock, Ledger
from watt_chain.transaction import decode_transaction, make_transaction
from watt_market.engine import Market
from watt_master.aggregator import Aggregator
from watt_master.archive import Archive
from watt_master.areas import Anchoring, AreaReplica, rows_of
from watt_master.clearing import Clearing
from watt_master.config import EventFile, UnitSection
from watt_master.desk import Outgoing
from watt_master.grid import Grid
from watt_master.offices import Offices
from watt_master.registrar import Registrar
from watt_master.view import View
from watt_node.log import Log
from watt_wire import checkpoint

START_S = 1_700_000_100
SLOT_S = 900
SLOTS = 2
WINDOW_S = START_S + 4500
STEP_S = 150
QUOTA_WH = 216
"profile 60 Wh per MWh * 4000 kWh, less 10 %."
DEPOSIT_U = 50_000_000
NODES = 4
HOMES = 4
"Per area: two sellers, two buyers."


def key(number: int) -> PrivateKey:
    return PrivateKey.from_bytes(number.to_bytes(32, "big"))


REGULATOR, GRID, AGGREGATOR = key(1), key(2), key(3)


def event_file() -> EventFile:
    return EventFile(
        announce_s=START_S + 1500,
        event=1,
        slot_s=SLOT_S,
        slots=SLOTS,
        required_ppm=100_000,
        open_s=START_S + 1800,
        commit_close_s=START_S + 2400,
        reveal_close_s=START_S + 3000,
        match_by_s=START_S + 3600,
        confirm_close_s=START_S + 4200,
        window_start_s=WINDOW_S,
        meter_close_s=WINDOW_S + 2 * SLOT_S + 1800,
        settle_by_s=WINDOW_S + 2 * SLOT_S + 5400,
        alpha_u_per_wh=[20, 30],
        x_ms=100,
        y_ms=300,
        budget_u=10_000_000,
        normal_price_u_per_wh=550,
        compensation_price_u_per_wh=900,
        profile_wh_per_mwh=[60, 60],
        units=[
            UnitSection(cost_u_per_wh=800, capacity_wh=[100, 100]),
            UnitSection(cost_u_per_wh=1500, capacity_wh=[9999, 9999]),
        ],
    )


class InlineExecutor(Executor):
    """Runs a job at once; the test has no second thread to wait for."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # as a real executor does
            future.set_exception(error)
        return future


@dataclass
class Home:
    """A household with one plug; `use_wh` is what it draws in each slot of the window."""

    area: int
    number: int
    side: str
    price: int
    use_wh: int
    slot_wh: list[int] = field(default_factory=lambda: [60, 60])
    counter: int = 0
    previous: bytes = checkpoint.NO_PREVIOUS

    @property
    def key(self) -> PrivateKey:
        return key(1000 * self.area + self.number)

    @property
    def plug(self) -> PrivateKey:
        return key(1000 * self.area + 500 + self.number)

    @property
    def id(self) -> bytes:
        return id8(self.key.public)

    def reveal(self) -> kinds.Reveal:
        return kinds.Reveal(1, self.side, self.price, self.slot_wh, bytes([self.number]) * 16)

    def register_mwh(self, time_s: int) -> int:
        """Constant draw of use_wh per slot, from the start on."""
        return (time_s - START_S) * self.use_wh * 1000 // SLOT_S

    def checkpoint(self, time_s: int) -> bytes:
        self.counter += 1
        body = checkpoint.encode(
            checkpoint.Checkpoint(
                1, id8(self.plug.public), 1, self.counter, self.previous, sha256(b""), 1, 0, time_s, ord("S"),
                self.register_mwh(time_s), 0, bytes(32), bytes(32), checkpoint.PERIODIC,
            )
        )  # fmt: skip
        frame = body + self.plug.sign(checkpoint.signing_message(body))
        self.previous = checkpoint.frame_hash(frame)
        return frame


class Chain:
    """A chain as its validators keep it: a ledger, a pool, and blocks signed by a quorum."""

    def __init__(self, genesis: Genesis, number: int) -> None:
        contract = MainContract(Market()) if number == 0 else AreaContract(Market())
        self.number = number
        self.keys = [key(100 + number * 10 + index) for index in range(NODES)]
        self.ledger = Ledger(genesis, number, contract)
        self.pool: dict[bytes, bytes] = {}
        self.applied: list[tuple[bytes, AppliedBlock]] = []

    def submit(self, tx: bytes) -> str:
        decoded = decode_transaction(tx)
        if decoded.txid in self.pool:
            return "duplicate"
        if decoded.nonce < self.ledger.next_nonce(decoded.signer):
            return "nonce-used"
        self.pool[decoded.txid] = tx
        return ""

    def call(self, signer: PrivateKey, kind: str, fields: object) -> None:
        """Sign at the next nonce after everything of this key that waits here, and pool it."""
        waiting = [decode_transaction(tx) for tx in self.pool.values()]
        taken = [tx.nonce for tx in waiting if tx.signer == signer.public]
        nonce = max([self.ledger.next_nonce(signer.public), *(one + 1 for one in taken)])
        self.submit(make_transaction(signer, self.ledger.network, kind, self.number, nonce, fields))

    def certify(self, block: Block) -> bytes:
        header = codec.decode(block.header, blocks.Header)
        hash_ = blocks.block_hash(self.ledger.network, block.header)
        message = blocks.vote_bytes(self.ledger.network, "commit", header.chain, header.height, header.view, hash_)
        votes = [VoteSignature(index, self.keys[index].sign(message)) for index in range(quorum(NODES))]
        return codec.encode(CertifiedBlock(codec.encode(block), codec.encode(Certificate(header.view, votes))))

    def produce(self, time_s: int) -> tuple[bytes, AppliedBlock] | None:
        """One block of everything that waits; None when nothing of it may be in a block."""
        txs = sorted(self.pool.values(), key=lambda tx: decode_transaction(tx).nonce)
        self.pool.clear()
        if not txs:
            return None
        leader = self.ledger.schedule.leader(self.ledger.head.height + 1, 0)
        block = self.ledger.build(0, leader, time_s, txs)
        if not block.transactions:
            return None
        certified = self.certify(block)
        applied = self.ledger.apply(certified)
        self.applied.append((certified, applied))
        return certified, applied


class World:
    """The network and one master; `run` lets the protocol clock go until the event is over."""

    def __init__(self, folder: Path, homes: list[Home] | None = None, rules: RuleSet = RULES_1) -> None:
        self.folder = folder
        self.refusing: set[bytes] = set()  # households that do not take their matching result; never iterated
        self.homes = homes if homes is not None else [home for area in (1, 2) for home in default_homes(area)]
        validators = {
            number: [Validator(f"c{number}-n{index}", key(100 + number * 10 + index).public) for index in range(NODES)]
            for number in (0, 1, 2)
        }
        self.genesis = Genesis(
            "test", START_S, REGULATOR.public, GRID.public, AGGREGATOR.public, validators[0],
            [AreaGenesis(1, "area1", validators[1]), AreaGenesis(2, "area2", validators[2])],
            [codec.encode(rules)], rules.version, 1_000_000,
        )  # fmt: skip
        self.network = network_of(self.genesis)
        self.chains = {number: Chain(self.genesis, number) for number in (0, 1, 2)}
        self.now_s = START_S
        self.now_ms = 0
        self.output = io.StringIO()
        self.registered = self.registrations()
        self.archive = Archive(folder / "archive.sqlite", self.network)
        self.event: EventFile | None = event_file()
        self.measured: Callable[[], tuple[int, int] | None] = lambda: None
        self.file = [decode_transaction(tx) for tx in self.registered]
        self.boot()

    # The master under test

    def boot(self) -> None:
        """(Re)start the master: everything in memory is new, the archive is what it was."""
        self.archive.close()
        self.archive = Archive(self.folder / "archive.sqlite", self.network)
        self.replicas = {
            chain: AreaReplica(self.genesis, chain, AreaContract(Market()), self.archive, lambda: self.now_ms)
            for chain in (1, 2)
        }
        for chain, replica in self.replicas.items():
            for certified in self.archive.blocks(chain):
                replica.restore(certified)
            for certified, _ in self.chains[chain].applied[replica.height :]:
                assert replica.check(certified) == ""
        self.view = View({0: self.chains[0].ledger, **{chain: one.ledger for chain, one in self.replicas.items()}})
        self.anchoring = Anchoring(0, 1)  # the only master: on duty for every area
        self.offices = Offices(
            self.view,
            self.network,
            Log("master", stream=self.output),
            (Grid(self.event, lambda: self.measured()), GRID),
            (Aggregator(Clearing(Market().clear, InlineExecutor())), AGGREGATOR),
            Registrar(self.file, self.view),
        )

    def master_step(self) -> list[Outgoing]:
        sent = self.offices.step(self.now_s, self.now_ms)
        for one in sent:
            reason = self.chains[one.chain].submit(one.tx)
            if reason:
                self.offices.refused(one, reason, self.now_ms)
        for chain, replica in self.replicas.items():
            for block in self.anchoring.due(replica, self.view.anchor_height(chain), self.now_ms):
                self.chains[0].call(key(100), "Anchor", block.fields)
        return sent

    # The rest of the world

    def registrations(self) -> list[bytes]:
        txs: list[bytes] = []
        nonces: dict[tuple[bytes, int], int] = {}

        def add(signer: PrivateKey, chain: int, kind: str, fields: object) -> None:
            nonce = nonces[signer.public, chain] = nonces.get((signer.public, chain), 0) + 1
            txs.append(make_transaction(signer, self.network, kind, chain, nonce, fields))

        for home in self.homes:
            plug = kinds.EnrolPlug(home.plug.public, "plain", 3680)
            enrol = kinds.Enrol(home.key.public, home.number % NODES, [plug], False, 4000, "h25", False)
            add(REGULATOR, home.area, "Enrol", enrol)
        for home in self.homes:
            add(GRID, home.area, "Deposit", kinds.Deposit(home.id, DEPOSIT_U))
        return txs

    def relay(self) -> None:
        """The stations' inbox: each area consumes the main chain's messages of one block at a time."""
        for area in (1, 2):
            chain = self.chains[area]
            cursor = chain.ledger.contract.inbox_cursor(chain.ledger.state)
            for certified, applied in self.chains[0].applied:
                wanted = [m for m in applied.out_messages if m.target_chain == area and m.sequence > cursor]
                if wanted:
                    parts, block, _, _ = decode_certified(certified)
                    size, entries = message_proofs(applied.out_messages, area)
                    inbox = kinds.Inbox(
                        block.header, parts.certificate, size, [kinds.InboxEntry(*entry) for entry in entries]
                    )
                    chain.call(chain.keys[0], "Inbox", inbox)
                    break

    def live(self) -> None:
        """What households and plugs do at this moment."""
        for home in self.homes:
            chain = self.chains[home.area]
            state = chain.ledger.state
            if state.get(account_key(home.id)) is None:
                continue
            if (self.now_s - START_S) % SLOT_S == 0:
                chain.call(home.key, "Checkpoint", kinds.Checkpoint(home.checkpoint(self.now_s), -1))
            spec = event_file()
            value = state.get(sealed_key(1, home.id))
            sealed = None if value is None else codec.decode(value, Sealed)
            if spec.open_s <= self.now_s < spec.commit_close_s and sealed is None:
                chain.call(home.key, "Commit", kinds.Commit(1, commitment_of(home.reveal(), home.id)))
            elif spec.commit_close_s <= self.now_s < spec.reveal_close_s and sealed and not sealed.revealed:
                chain.call(home.key, "Reveal", home.reveal())
            self._confirm(home, chain, sealed)

    def _confirm(self, home: Home, chain: Chain, sealed: Sealed | None) -> None:
        event = View({home.area: chain.ledger}).area_event(home.area, 1)
        if event is None or event.state is not State.MATCHED or sealed is None or sealed.choice == "refuse":
            return
        pairs = [codec.decode(chain.ledger.state.get(pair_key(1, k)) or b"", Pair) for k in range(1, event.pairs + 1)]
        done = (PairState.SELLER_CONFIRMED if home.side == "sell" else PairState.BUYER_CONFIRMED, PairState.CONFIRMED)
        mine = [pair for pair in pairs if home.id in (pair.seller, pair.buyer) and pair.state != PairState.DROPPED]
        if mine:
            accepts = home.id not in self.refusing
            if sealed.choice == "open":
                chain.call(home.key, "Confirmtransaction", kinds.Confirmtransaction(1, accepts))
            for pair in (pair for pair in mine if accepts and pair.state not in done):
                chain.call(home.key, "Confirm", kinds.Confirm(1, pair.number, True))

    def settle(self) -> None:
        """Blocks on every chain until nothing moves any more at this instant."""
        for _ in range(40):
            self.now_ms += 100
            moved = bool(self.master_step())
            self.relay()
            for chain in self.chains.values():
                produced = chain.produce(self.now_s)
                if produced is None:
                    continue
                moved = True
                certified, applied = produced
                if chain.number:
                    assert self.replicas[chain.number].check(certified) == ""
                else:
                    self.archive.add(*rows_of(applied, certified))
                self.offices.on_block(chain.number, applied.receipts, self.now_ms)
            if not moved:
                return
        raise AssertionError("the network does not come to rest")

    def tick(self) -> None:
        self.live()
        self.settle()
        self.now_s += STEP_S
        self.now_ms += 10_000

    def run(self, until_s: int, before: Callable[[], None] | None = None) -> None:
        while self.now_s < until_s:
            if before is not None:
                before()
            self.tick()

    # What came out

    def calls(self, kind: str, chain: int) -> list[str]:
        """Receipt codes of every transaction of a kind on a chain."""
        return [
            receipt.code
            for _, applied in self.chains[chain].applied
            for tx, receipt in zip(applied.transactions, applied.receipts, strict=True)
            if tx.kind == kind
        ]

    def money_u(self, chain: int) -> int:
        state = self.chains[chain].ledger.state
        accounts = [codec.decode(state.get(name) or b"", Account) for name in state.keys(b"account/")]
        return sum(one.free_u + one.escrow_u + one.bond_u for one in accounts)

    def free_u(self, home: Home) -> int:
        value = self.chains[home.area].ledger.state.get(account_key(home.id))
        assert value is not None
        return codec.decode(value, Account).free_u

    def row(self, home: Home) -> ResultRow:
        value = self.chains[home.area].ledger.state.get(result_row_key(1, home.id))
        assert value is not None
        return codec.decode(value, ResultRow)

    def root(self, chain: int) -> bytes:
        value = self.chains[chain].ledger.state.get(result_key(1))
        assert value is not None
        return codec.decode(value, Result).root


def default_homes(area: int) -> list[Home]:
    """Two sellers (the second delivers nothing) and two buyers who keep to their quota after trade."""
    return [
        Home(area, 1, "sell", 200, QUOTA_WH - 60),
        Home(area, 2, "sell", 250, QUOTA_WH),
        Home(area, 3, "buy", 900, QUOTA_WH + 60),
        Home(area, 4, "buy", 800, QUOTA_WH + 60),
    ]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def make_world(tmp_path: Path) -> Callable[..., World]:
    def make(name: str = "w", homes: list[Home] | None = None, rules: RuleSet = RULES_1) -> World:
        (tmp_path / name).mkdir()
        return World(tmp_path / name, homes, rules)

    return make
