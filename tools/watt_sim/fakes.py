"""What the simulator puts in place of costly parts: fake signatures, a small contract, a founded network.

A fake signature is a hash of the message under the *public* key: it proves nothing against an attacker, but nobody
in the simulator forges one except on purpose, and it is as sensitive to a wrong message, key or byte as a real one.
"""

from functools import cache
from hashlib import blake2b, sha256

from watt_chain import codec, crypto
from watt_chain.contract import AreaContract
from watt_chain.contract.objects import Strength, strength_key
from watt_chain.election import draw
from watt_chain.genesis import AreaGenesis, Genesis, Seat, Validator
from watt_chain.ledger import BlockContext
from watt_chain.pbft.config import Signer
from watt_chain.state import State, StateReader
from watt_chain.transaction import DecodedTransaction
from watt_market.engine import Market

from watt_sim.drbg import MILLION

START_S = 1_800_000_000
"""Protocol time at which simulated networks begin, Unix seconds."""
CHAIN = 1
"""The area under test."""
id8 = cache(crypto.id8)
"""Asked for the same few keys all the time."""
KINDS = ("Add", "Add", "Send", "Refuse", "SendRefuse")
"""What simulated users ask of the tally contract; adding twice as often as the others."""


Listed = list[tuple[int, str, bytes]]
"""A list of validators: (number, name, public key)."""
NOTICE_HEIGHTS = 2
"""A change is this far before the height from which it acts, as in the real contract (CONSENSUS.md 8.2)."""


class FakeSigner:
    """A signer whose signature is a keyed hash; `public` may be any 64 bytes."""

    __slots__ = ("public",)

    def __init__(self, public: bytes) -> None:
        self.public = public

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return blake2b(message, key=self.public).digest()


def fake_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the fake signature is that of `public` for `message`."""
    return blake2b(message, key=public).digest() == signature


def make_signer(name: str, real: bool, point: bool = False) -> Signer:
    """The key named `name`: P-256 when `real`; else fake, on a curve point when a contract will look at it."""
    secret = sha256(name.encode()).digest()
    if real or point:
        key = crypto.PrivateKey.from_bytes(secret)
        return key if real else FakeSigner(key.public)
    return FakeSigner(secret + sha256(secret).digest())


class TallyContract:
    """Counts, and changes the list of validators.

    "Add" and "Send" are accepted, the latter sends a message; "List" sets the validators from a height on; every other
    kind is refused after it wrote.
    """

    def __init__(self, users: tuple[bytes, ...], slots: int = 0) -> None:
        """`users` are the keys that may sign, besides the validators'; `slots`: entries of the first state."""
        self._users = users
        self._slots = slots

    def genesis(self, state: State, genesis: Genesis, chain: int) -> None:
        """The tally starts at zero, the list is that of genesis."""
        state.put(b"total", codec.encode(0))
        listed = [[number, one.name, one.public] for number, one in enumerate(genesis.validators(chain))]
        state.put(b"list", codec.encode(listed))
        for slot in range(self._slots):
            state.put(b"slot/%d" % slot, codec.encode(slot))

    def begin(self, state: State, context: BlockContext) -> None:
        """The block's time is part of the state, so that it is under the root; a list that is due acts."""
        state.put(b"time", codec.encode(context.time_s))
        waiting = state.get(b"list/next")
        if waiting is not None:
            height, listed = codec.decode(waiting, tuple[int, Listed])
            if height == context.height + 1:
                state.put(b"list", codec.encode(listed))

    def execute(self, state: State, context: BlockContext, tx: DecodedTransaction) -> str:
        """Count; what is refused has written by then, so that a missing rollback shows."""
        total = codec.decode(state.get(b"total") or b"\x00", int)
        state.put(b"total", codec.encode(total + 1))
        if tx.kind in ("Send", "SendRefuse"):
            state.emit(0, "Hello", tx.fields_raw)
        if tx.kind == "List":
            height, _ = codec.decode(tx.fields_raw, tuple[int, Listed])
            state.put(b"list/next", tx.fields_raw)
            return "" if height >= context.height + NOTICE_HEIGHTS else "too-soon"
        if tx.kind not in ("Add", "Send"):
            state.put(b"refused/" + tx.txid, b"\x01")
            return "refused"
        return ""

    def next_nonce(self, state: StateReader, signer: bytes) -> int:
        """Nonces run from 1."""
        if signer not in self._users and all(signer != one.validator.public for one in self.seats(state)):
            return -1
        found = state.get(b"nonce/" + id8(signer))
        return 1 if found is None else codec.decode(found, int) + 1

    def consume_nonce(self, state: State, signer: bytes, nonce: int) -> bool:
        """One more."""
        if nonce != self.next_nonce(state, signer):
            return False
        state.put(b"nonce/" + id8(signer), codec.encode(nonce))
        return True

    def resume(self, state: State, context: BlockContext, previous: bytes, tx: DecodedTransaction) -> str:
        """Nobody replaces the list but the list itself."""
        return "unknown-kind"

    def rules_version(self, state: StateReader) -> int:
        """There is one rule."""
        return 1

    def inbox_cursor(self, state: StateReader) -> int:
        """Nothing is received."""
        return 0

    def order(self, state: StateReader, context: BlockContext) -> tuple[int, ...]:
        """An order that follows from the final state: who leads is not known before the block is."""
        weights = [1 + index for index in range(len(context.validators))]
        seed = sha256(state.get(b"total") or b"").digest()
        return tuple(draw(seed, context.height, weights))

    def seats(self, state: StateReader) -> tuple[Seat, ...]:
        """The list of the next height."""
        listed = codec.decode(state.get(b"list") or b"\x90", Listed)
        return tuple(Seat(number, Validator(name, public)) for number, name, public in listed)


class StrongArea(AreaContract):
    """The contract of an area whose nodes have a response strength from the beginning, as after two settled events."""

    def __init__(self, strengths_ppm: tuple[int, ...]) -> None:
        """By number of the node."""
        super().__init__(Market())
        self._strengths_ppm = strengths_ppm

    def genesis(self, state: State, genesis: Genesis, chain: int) -> None:
        """As an area's, with the strengths."""
        super().genesis(state, genesis, chain)
        for node, ppm in enumerate(self._strengths_ppm):
            # The strength after the last event is another: elections go by the one before (CONSENSUS.md 6.2.1).
            state.put(strength_key(node), codec.encode(Strength(2, MILLION - ppm, ppm)))


def found_network(keys: list[Signer], offices: list[Signer], rules: list[bytes]) -> Genesis:
    """A network with one area. The main chain gets keys of its own: a vote there must not count in the area."""
    validators = [Validator(f"node{index}", key.public) for index, key in enumerate(keys)]
    main = [Validator("main0", make_signer("main0", isinstance(keys[0], crypto.PrivateKey), True).public)]
    regulator, grid, aggregator = (office.public for office in offices)
    area = AreaGenesis(CHAIN, "area", validators)
    return Genesis("simulated", START_S, regulator, grid, aggregator, main, [area], rules, 1, 1_000_000)


def make_tx(key: Signer, network: bytes, kind: str, nonce: int, fields: object, chain: int = CHAIN) -> bytes:
    """A signed transaction."""
    payload = codec.encode([kind, chain, nonce, fields])
    return codec.encode([payload, key.public, key.sign(codec.signing_bytes(b"tx", network, payload))])
