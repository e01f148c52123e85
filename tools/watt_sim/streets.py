"""A network of several areas whose households trade with each other, up to the moment at which their trades are made.

Real ledgers with the real contracts, real keys and bytes; a chain is one ledger and the keys of its validators, and a
block is certified as soon as it is made (how validators agree is `world`'s matter). The event is prepared once; every
run begins on a copy of it. Buyers live in areas 1 and, with four areas, 4; sellers in areas 2 and 3.
"""

import copy
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256

from msgspec.structs import replace
from watt_chain import block as blocks
from watt_chain import codec
from watt_chain.block import Certificate, CertifiedBlock, VoteSignature
from watt_chain.contract import AreaContract, MainContract, cross_kinds, kinds
from watt_chain.contract.bidding import commitment_of
from watt_chain.contract.cross_objects import Side, source_key
from watt_chain.contract.event import EventSpec, Unit
from watt_chain.contract.market import Book, budgeted
from watt_chain.contract.objects import INBOX_KEY, AnchorState, InboxCursor, anchor_key, main_book_key
from watt_chain.contract.rules import RULES_1, RuleSet
from watt_chain.crypto import PrivateKey, id8
from watt_chain.genesis import AreaGenesis, Genesis, Validator, quorum
from watt_chain.ledger import AppliedBlock, Ledger
from watt_chain.state import FinalState
from watt_chain.transaction import DecodedTransaction, decode_transaction, make_transaction
from watt_chain.tree import StateTree
from watt_market.engine import Market
from watt_wire import checkpoint, merkle

from watt_sim.fakes import START_S

VALIDATORS = 4
DEPOSIT_U = 10_000_000
ENDOWED_U = 1_000_000_000
RULES: RuleSet = replace(RULES_1, version=3, crossings=8)
MARKET = Market()
EVENT = 1
NOBODY = -1
"""No area, and not the main chain either, which is 0."""


@cache
def key_of(name: str) -> PrivateKey:
    """The key named `name`, the same in every run."""
    return PrivateKey.from_bytes(sha256(b"wattpact areas " + name.encode()).digest())


@dataclass(slots=True)
class Made:
    """A final block and what other chains are shown of it."""

    certified: bytes
    header: bytes
    certificate: bytes
    applied: AppliedBlock
    _proven: dict[int, tuple[int, list[tuple[int, kinds.InboxEntry]]]] = field(default_factory=dict)

    @property
    def height(self) -> int:
        """Of the block."""
        return self.applied.header.height

    def inbox(self, target: int, above: int = 0) -> kinds.Inbox | None:
        """What another chain is told of the block: messages numbered above `above`; None when there are none."""
        known = self._proven.get(target)
        if known is None:
            known = self._prove(target)
            self._proven[target] = known
        entries = [entry for sequence, entry in known[1] if sequence > above]
        return kinds.Inbox(self.header, self.certificate, known[0], entries) if entries else None

    def _prove(self, target: int) -> tuple[int, list[tuple[int, kinds.InboxEntry]]]:
        messages = self.applied.out_messages
        if not messages:
            return 0, []
        size, proofs = blocks.message_proofs(messages, target)
        entries = [codec.decode(codec.encode(proof), kinds.InboxEntry) for proof in proofs]
        return size, [(codec.decode(entry.message, blocks.OutMessage).sequence, entry) for entry in entries]


@dataclass(slots=True)
class Chain:
    """A chain: its ledger, the keys of those who validate its next height, and the blocks of this run."""

    number: int
    ledger: Ledger
    keys: list[PrivateKey]
    made: list[Made] = field(default_factory=list)

    def fork(self) -> "Chain":
        """A copy that goes its own way."""
        ledger = copy.copy(self.ledger)
        ledger._tree = copy_tree(self.ledger._tree)
        ledger.state = FinalState(ledger._tree)
        ledger._executed, ledger._blocks = {}, dict(ledger._blocks)
        ledger._recent, ledger._where = dict(ledger._recent), dict(ledger._where)
        return Chain(self.number, ledger, list(self.keys), list(self.made))

    def make(self, time_s: int, txs: list[DecodedTransaction]) -> Made | None:
        """Execute a block of these transactions and make it final; None when none of them may be in one."""
        ledger = self.ledger
        ledger.waiting = {tx.digest: tx for tx in txs}.get
        leader = ledger.schedule.leader(ledger.head.height + 1, 0)
        built = ledger.build(0, leader, time_s, [tx.raw for tx in txs])
        if not built.transactions:
            return None
        certificate = self.certify(built.header)
        certified = codec.encode(CertifiedBlock(codec.encode(built), certificate))
        made = Made(certified, built.header, certificate, ledger.apply(certified, certificate_known=True))
        self.made.append(made)
        return made

    def certify(self, header: bytes, keys: list[PrivateKey] | None = None) -> bytes:
        """A certificate of a quorum of `keys`, by default of those in force: whoever holds them can make one of any
        header."""
        signers = self.keys if keys is None else keys
        decoded = codec.decode(header, blocks.Header)
        hash_ = blocks.block_hash(self.ledger.network, header)
        vote = blocks.vote_bytes(self.ledger.network, "commit", decoded.chain, decoded.height, decoded.view, hash_)
        votes = [VoteSignature(index, signers[index].sign(vote)) for index in range(quorum(len(signers)))]
        return codec.encode(Certificate(decoded.view, votes))

    def tx(self, key: PrivateKey, kind: str, body: object, ahead: int = 0) -> DecodedTransaction:
        """A call by a key, with its next number, or one further ahead."""
        nonce = max(1, self.ledger.next_nonce(key.public)) + ahead
        tx = decode_transaction(make_transaction(key, self.ledger.network, kind, self.number, nonce, body))
        self.ledger.verified.add(tx.digest)  # we have just signed it
        return tx

    def call(self, time_s: int, key: PrivateKey, kind: str, body: object) -> str:
        """One call in a block of its own; why it was refused, or ""."""
        made = self.make(time_s, [self.tx(key, kind, body)])
        assert made is not None, f"{kind} may not be in a block"
        return made.applied.receipts[0].code


def copy_tree(tree: StateTree) -> StateTree:
    """A state of its own with the same content."""
    copied = copy.copy(tree)
    for name in StateTree.__slots__:
        value = getattr(tree, name)
        if name == "levels":
            setattr(copied, name, [list(level) for level in value])
        elif name == "groups":
            setattr(copied, name, {prefix: list(slots) for prefix, slots in value.items()})
        else:
            setattr(copied, name, value.copy())
    return copied


@dataclass(frozen=True, slots=True)
class Home:
    """A household: where it lives, what it bids, and its plug's checkpoints at every boundary of the event."""

    number: int
    chain: int
    side: Side
    price_u_per_wh: int
    slot_wh: list[int]
    key: PrivateKey
    plug: PrivateKey
    first: bytes
    frames: list[bytes]

    @property
    def id(self) -> bytes:
        """Its account."""
        return id8(self.key.public)


@dataclass(slots=True)
class Network:
    """All chains of a run; 0 is the main chain."""

    chains: dict[int, Chain]
    homes: list[Home]
    spec: EventSpec
    trades: list[int]
    "Numbers of the trades across areas of the event."

    def fork(self) -> "Network":
        """A copy for one run."""
        return replace_chains(self, {number: chain.fork() for number, chain in self.chains.items()})

    @property
    def areas(self) -> list[int]:
        """Numbers of the areas."""
        return [number for number in self.chains if number]


def replace_chains(network: Network, chains: dict[int, Chain]) -> Network:
    """The network with other chains."""
    return Network(chains, network.homes, network.spec, network.trades)


def _spec(start_s: int) -> EventSpec:
    """Four quarter hours in which some must draw less and others may draw more."""
    return EventSpec(
        event=EVENT,
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


Plan = tuple[int, Side, int, int, int]
PLANS: dict[int, tuple[Plan, ...]] = {
    2: ((1, "buy", 900, 60, 220), (1, "buy", 800, 30, 190), (2, "sell", 300, 60, 100), (2, "sell", 350, 30, 130)),
    3: ((1, "buy", 900, 60, 220), (2, "sell", 300, 30, 130), (3, "sell", 300, 30, 130)),
    4: ((1, "buy", 900, 60, 220), (4, "buy", 850, 30, 190), (2, "sell", 300, 60, 100), (3, "sell", 320, 30, 130)),
}
"""By number of areas: (area, side, price of the bid, Wh a slot, Wh drawn a slot) of each household."""


def _make_home(number: int, plan: Plan, spec: EventSpec) -> Home:
    chain, side, price, slot_wh, load_wh = plan
    plug, register_mwh, previous = key_of(f"plug{number}"), 5_000_000, checkpoint.NO_PREVIOUS
    frames: list[bytes] = []
    for counter, time_s in enumerate((START_S, *spec.boundaries_s()), start=1):
        register_mwh += load_wh * 1000 if counter > 2 else 0
        body = checkpoint.encode(
            checkpoint.Checkpoint(*(1, id8(plug.public), 1, counter, previous, merkle.root([]), 1, 0, time_s, ord("S")),
                                  *(register_mwh, 0, bytes(32), bytes(32), checkpoint.PERIODIC))
        )  # fmt: skip
        frames.append(checkpoint.seal(body, plug.sign(checkpoint.signing_message(body))))
        previous = checkpoint.frame_hash(frames[-1])
    return Home(number, chain, side, price, [slot_wh] * 4, key_of(f"home{number}"), plug, frames[0], frames[1:])


@cache
def template(areas: int, real: bool) -> Network:
    """A network of 2, 3 or 4 areas; the main chain has just decided the matching of an event and told nobody.

    `real`: what its plugs signed must hold under P-256; the signatures in force make them, this only keeps both apart.
    """
    spec = _spec(START_S)
    homes = [_make_home(number, plan, spec) for number, plan in enumerate(PLANS[areas])]
    keys = {chain: [key_of(f"node {chain} {i}") for i in range(VALIDATORS)] for chain in range(areas + 1)}
    listed = {chain: [Validator(f"node{i}", key.public) for i, key in enumerate(held)] for chain, held in keys.items()}
    regulator, grid, aggregator = (key_of(name).public for name in ("regulator", "grid", "aggregator"))
    named = [AreaGenesis(chain, f"area{chain}", listed[chain]) for chain in range(1, areas + 1)]
    rules = [codec.encode(RULES_1), codec.encode(RULES)]
    offices = (regulator, grid, aggregator)
    genesis = Genesis("areas", START_S, *offices, listed[0], named, rules, RULES.version, 1_000_000)
    chains = {
        chain: Chain(chain, Ledger(genesis, chain, AreaContract(MARKET) if chain else MainContract(MARKET)), held)
        for chain, held in keys.items()
    }
    network = Network(chains, homes, spec, [])
    _prepare(network)
    network.trades = sorted(int(key.rsplit(b"/", 1)[1]) for key in chains[0].ledger.state.keys(b"cross/%d/" % EVENT))
    return network


def bid_of(home: Home) -> kinds.Reveal:
    """What the household bids in the event."""
    salt = bytes([home.number] * 16)
    return kinds.Reveal(EVENT, home.side, home.price_u_per_wh, home.slot_wh, salt)


def _prepare(network: Network) -> None:
    """From the first block to the matching, stage by stage, with everything carried at once."""
    spec, chains = network.spec, network.chains

    def calls(time_s: int, many: list[tuple[int, PrivateKey, str, object]]) -> None:
        for chain, key, kind, body in many:
            code = chains[chain].call(time_s, key, kind, body)
            assert not code, (kind, code)

    regulator, grid, aggregator = (key_of(name) for name in ("regulator", "grid", "aggregator"))
    for home in network.homes:
        plug = kinds.EnrolPlug(home.plug.public, "secure", 2000)
        enrol = kinds.Enrol(home.key.public, 0, [plug], True, 4000, "h25", False)
        calls(START_S, [(home.chain, regulator, "Enrol", enrol)])
        calls(START_S, [(home.chain, grid, "Deposit", kinds.Deposit(home.id, DEPOSIT_U))])
        calls(START_S, [(home.chain, home.key, "Checkpoint", kinds.Checkpoint(home.first, -1))])
    calls(START_S, [(0, grid, "Endow", cross_kinds.Endow(area, ENDOWED_U, ENDOWED_U)) for area in network.areas])
    calls(START_S, [(0, grid, "Initial", kinds.Initial(spec))])
    carry_all(network, START_S)
    tick(network, spec.open_s)
    bids = {home.number: bid_of(home) for home in network.homes}
    for home in network.homes:
        commit = kinds.Commit(EVENT, commitment_of(bids[home.number], home.id))
        calls(spec.open_s, [(home.chain, home.key, "Commit", commit)])
    tick(network, spec.commit_close_s)
    calls(spec.commit_close_s, [(home.chain, home.key, "Reveal", bids[home.number]) for home in network.homes])
    tick(network, spec.reveal_close_s)
    calls(spec.reveal_close_s, [(area, aggregator, "Qualify", kinds.EventCall(EVENT)) for area in network.areas])
    carry_all(network, spec.reveal_close_s)
    found = [chains[0].ledger.state.get(main_book_key(EVENT, area)) for area in network.areas]
    books = [codec.decode(book, Book) for book in found if book is not None]
    solution = MARKET.clear(books, budgeted(spec, RULES, books), RULES)
    for chain in chains.values():
        chain.made.clear()
    calls(spec.reveal_close_s, [(0, aggregator, "Match", [solution])])
    tick(network, spec.match_by_s, (0,))


def tick(network: Network, time_s: int, chains: tuple[int, ...] = ()) -> None:
    """A block on each of these chains (all) that does nothing but carry the time."""
    for number in chains or tuple(network.chains):
        assert network.chains[number].call(time_s, key_of("grid"), "Validators", [b""]) == "role"


def anchor_of(made: Made) -> kinds.Anchor:
    """What the main chain is told of an area's block."""
    return kinds.Anchor(made.header, made.certificate, [codec.encode(one) for one in made.applied.out_messages])


def cursor_of(chain: Chain, source: int) -> InboxCursor:
    """What this chain has consumed of another's messages."""
    held = chain.ledger.state.get(INBOX_KEY if source == 0 else source_key(source))
    return InboxCursor(0, 0, codec.ZERO32) if held is None else codec.decode(held, InboxCursor)


def carry_all(network: Network, time_s: int) -> None:
    """Every message to where it goes, until no chain has anything to say to another."""
    chains = network.chains
    while True:
        before = [chain.ledger.head.height for chain in chains.values()]
        for area in network.areas:
            known = anchored_height(chains[0], area)
            for made in [made for made in chains[area].made if made.height > known]:
                code = chains[0].call(time_s, chains[0].keys[0], "Anchor", anchor_of(made))
                assert not code, code
            for source in (0, *network.areas):
                for made in chains[source].made if source != area else ():
                    inbox = made.inbox(area, cursor_of(chains[area], source).sequence)
                    if inbox is not None:
                        code = chains[area].call(time_s, chains[area].keys[0], "Inbox", inbox)
                        assert not code, code
        if [chain.ledger.head.height for chain in chains.values()] == before:
            return


def anchored_height(main: Chain, area: int) -> int:
    """Height of the last block of an area that the main chain has taken in."""
    held = main.ledger.state.get(anchor_key(area))
    return 0 if held is None else codec.decode(held, AnchorState).height
