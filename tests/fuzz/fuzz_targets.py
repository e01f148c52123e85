"""What the fuzzers call: one function of bytes for each parser that strangers or disks feed.

A target lets only unexpected exceptions out: what a format refuses is refused by its own error type, and whatever
is accepted must be something that a quorum or an office really signed. The seeds are made by a small network that
has lived through a view change, so that a change of format changes them too.
"""

from collections.abc import Callable
from dataclasses import dataclass

from chain_world import (
    START_S,
    CountingContract,
    FalseKey,
    World,
    certify,
    false_verify,
    make_genesis,
    make_tx,
    real_keys,
)
from watt_chain import codec, crypto
from watt_chain.block import Change, decode_certified, follow
from watt_chain.codec import DecodeError
from watt_chain.contract.readers import COMMON, may_read, reader_of
from watt_chain.genesis import GenesisFile, Validator, open_genesis
from watt_chain.ledger import Ledger
from watt_chain.light import LightClient, ProofError, ReceiptProof, StateProof
from watt_chain.pbft import Replica, ReplicaConfig
from watt_chain.pbft.messages import Attest, Frame, Message, StateOffer, StatePart, StateRequest, signed_bytes
from watt_chain.pbft.transfer import Transfer
from watt_chain.question import Body, Question, decode_question, is_signed
from watt_chain.snapshot import FrozenState, Manifest, StateRange
from watt_chain.state import State
from watt_chain.transaction import decode_transaction

VALIDATORS = 4
HEIGHTS = 6
SLOTS = 700
"""Of the state that is transferred: three chunks, the last one cut."""
REBUILT_AFTER = 500
"""Executions on one replica: what it collects from a liar must not hide what a fresh one would do."""
SENDER = 1
"The validator whose mouth the fuzzer is."


@dataclass
class Target:
    """A parser: its function, inputs it accepts, and the longest input that is worth trying."""

    run: Callable[[bytes], None]
    seeds: list[bytes]
    size_max: int = 4096


class Lab:
    """A chain of a few blocks, what its validators said on the way, and one replica to talk to."""

    def __init__(self) -> None:
        world = World(VALIDATORS, seed=3)
        self.world = world
        self.frames: list[bytes] = []

        def listen(sender: int, receiver: int, frame: bytes) -> bytes:
            if sender == SENDER and receiver == 0 and frame not in self.frames:
                self.frames.append(frame)
            return frame

        world.tamper = listen
        self.client = world.keys[0]
        self.txs: list[bytes] = []
        for nonce in range(1, HEIGHTS + 1):
            self.txs.append(make_tx(self.client, world.network, nonce, "Send" if nonce % 2 else "Add"))
            if nonce == 3:
                world.crash(3)
            world.submit(self.txs[-1], to=1)
            assert world.run(60_000, lambda height=nonce: min(world.height(i) for i in (0, 1, 2)) >= height)
            if nonce == 4:
                world.start(3)
        self.blocks = list(world.disks[0].blocks)
        self.records = list(world.disks[0].votes)
        self.hashes = {height: world.chain[height] for height in world.chain}
        ledger = world.ledgers[0]
        assert ledger is not None
        self.ledger = ledger
        self.light = LightClient(world.genesis, world.network, false_verify)
        self.wide = self._wide_ledger()
        self.frozen: FrozenState = self.wide.frozen[-1]
        fifth = FalseKey("node4")
        self.listed = [*world.genesis.validators(1), Validator("node4", fifth.public)]
        self.change = self._change_of_validators()
        self.regulator = real_keys(1)[0]
        self._runs = 0
        self.replica = self._fresh_replica()

    def _fresh_ledger(self, blocks: int) -> Ledger:
        ledger = Ledger(self.world.genesis, 1, CountingContract(), verify=false_verify)
        for certified in self.blocks[:blocks]:
            ledger.replay(certified)
        return ledger

    def _wide_ledger(self) -> Ledger:
        """The same chain's first height with a state of some hundred slots, frozen."""

        class Wide(CountingContract):
            def genesis(self, state: State, genesis: object, chain: int) -> None:
                for slot in range(SLOTS):
                    state.put(b"slot/%d" % slot, codec.encode(slot))

        ledger = Ledger(self.world.genesis, 1, Wide(), verify=false_verify, freeze_every=1)
        block = ledger.build(0, ledger.schedule.leader(1, 0), START_S, [self.txs[0]])
        ledger.apply(certify(ledger, block, self.world.keys))
        return ledger

    def _change_of_validators(self) -> Change:
        """A fifth validator joins at height 3."""
        seats = [[number, one.name, one.public] for number, one in enumerate(self.listed)]
        ledger = Ledger(self.world.genesis, 1, CountingContract(), verify=false_verify)
        for height, kind, fields in ((1, "Seats", [3, seats]), (2, "Add", [1])):
            tx = make_tx(self.client, self.world.network, height, kind, fields=fields)
            block = ledger.build(0, ledger.schedule.leader(height, 0), START_S, [tx])
            ledger.apply(certify(ledger, block, self.world.keys))
        return ledger.changes[-1]

    def _fresh_replica(self) -> Replica:
        self.replica_ledger = self._fresh_ledger(HEIGHTS // 2)
        config = ReplicaConfig(
            number=0, key=self.world.keys[0], protocol_time=lambda now_ms: START_S + now_ms // 1000, verify=false_verify
        )
        replica = Replica(config, self.replica_ledger)
        replica.restore([], 1_000)
        self._now_ms = 1_000
        return replica

    # Targets ------------------------------------------------------------------------------------------------

    def frame(self, data: bytes) -> None:
        """Bytes from the connection of a validator."""
        self._runs += 1
        if self._runs % REBUILT_AFTER == 0:
            self.replica = self._fresh_replica()
        self._now_ms += 7
        self.replica.receive(SENDER, data, self._now_ms)
        self.replica.expire(self._now_ms)
        self.replica.take_output()
        head = self.replica_ledger.head
        assert head.height == 0 or head.block_hash == self.hashes[head.height], "a block that nobody made is final"

    def signed_frame(self, data: bytes) -> None:
        """A message body of the fuzzer's choice, signed properly by a bad validator."""
        key = self.world.keys[SENDER]
        try:
            message: Message = codec.decode(data, Message)  # type: ignore[arg-type]  # a union
            signature = key.sign(signed_bytes(self.world.network, message, data))
        except DecodeError:
            signature = bytes(64)
        self.frame(codec.encode(Frame(data, signature)))

    def block(self, data: bytes) -> None:
        """A certified block, as a peer or a disk would bring it."""
        ledger = self._fresh_ledger(0)
        try:
            applied = ledger.apply(data)
        except DecodeError:
            assert ledger.head.height == 0
            return
        assert applied.block_hash == self.hashes[1], "a block that nobody certified is final"

    def transaction(self, data: bytes) -> None:
        """A transaction, as any client may send it."""
        try:
            decoded = decode_transaction(data)
        except DecodeError:
            decoded = None
        self._runs += 1
        if self._runs % REBUILT_AFTER == 0:
            self.replica = self._fresh_replica()
        reason = self.replica.submit(data, self._now_ms)
        self.replica.take_output()
        assert (decoded is None) <= bool(reason), "what does not decode is refused"

    def genesis(self, data: bytes) -> None:
        """A genesis document of the fuzzer's choice, signed properly by the regulator."""
        message = codec.signing_bytes(b"genesis", codec.ZERO32, data)
        try:
            genesis, _ = open_genesis(codec.encode(GenesisFile(data, self.regulator.sign(message))))
        except DecodeError:
            return
        assert codec.encode(genesis) == data, "a second spelling of a genesis is accepted"

    def receipt_proof(self, data: bytes) -> None:
        """A proof that a transaction is final."""
        try:
            proof = codec.decode(data, ReceiptProof)
            code = self.light.check_receipt(proof, self.txs[0])
        except (DecodeError, ProofError):
            return
        assert code == "", "a receipt that nobody certified is believed"

    def state_proof(self, data: bytes) -> None:
        """A proof of state entries."""
        try:
            values = self.light.check_state(codec.decode(data, StateProof))
        except (DecodeError, ProofError):
            return
        for key, value in values.items():
            assert self.ledger.state.get(key) == value, "a value that nobody certified is believed"

    def question(self, data: bytes) -> None:
        """A question's body of the fuzzer's choice, signed properly by somebody whom the chain does not know."""
        asker = self.client
        message = codec.signing_bytes(b"question", self.world.network, data)
        try:
            question, body = decode_question(codec.encode(Question(data, asker.public, asker.sign(message))))
        except DecodeError:
            return
        assert is_signed(question, self.world.network, false_verify)
        reader = reader_of(self.ledger.state, question.signer)
        assert reader is not None
        for key in body.keys:
            own = key.split(b"/")[-1] == reader.key_id.hex().encode()
            assert own or key.split(b"/")[0] in COMMON or not may_read(self.ledger.state, reader, key)

    def manifest(self, data: bytes) -> None:
        """What a peer says a state consists of; a new ledger of that chain judges."""
        ledger = Ledger(self.world.genesis, 1, CountingContract(), verify=false_verify)
        try:
            manifest = codec.decode(data, Manifest)
            ledger.check_final(manifest)
        except DecodeError:
            return
        assert manifest.header == self.frozen.header, "a state that nobody certified is believed"

    def state_part(self, data: bytes) -> None:
        """A range of a state that is being fetched."""
        transfer = Transfer(1, self.frozen.manifest(), 1, (1, 2, 3))
        try:
            part = codec.decode(data, StateRange)
            kept = transfer.take(part)
        except DecodeError:
            return
        if kept:
            truth = list(self.frozen.entries())[part.slot : part.slot + len(part.entries)]
            assert part.entries == truth, "slots that nobody certified are kept"

    def list_change(self, data: bytes) -> None:
        """A change of the validators."""
        publics = tuple(key.public for key in self.world.keys)
        try:
            change = codec.decode(data, Change)
            follow(change, self.world.network, 1, publics, self.world.genesis.regulator, false_verify)
        except DecodeError:
            return
        assert change.validators in (self.listed, self.listed[:-1]), "a list that nobody certified is followed"

    def vote_record(self, data: bytes) -> None:
        """A record of `votes.log` whose checksum was good."""
        config = ReplicaConfig(
            number=0, key=self.world.keys[0], protocol_time=lambda now_ms: START_S + now_ms // 1000, verify=false_verify
        )
        replica = Replica(config, self.replica_ledger)
        try:
            replica.restore([data], 1_000)
        except DecodeError:
            return
        replica.take_output()


def make_targets() -> dict[str, Target]:
    """Every target by name, each with its own seeds."""
    lab = Lab()
    height = lab.ledger.head.height
    txid = decode_transaction(lab.txs[0]).txid
    receipt = lab.ledger.receipt_proof(1, txid)
    state = lab.ledger.state_proof([b"total", b"time"])
    assert receipt is not None and state is not None and height == HEIGHTS
    genesis = codec.encode(make_genesis([key.public for key in real_keys(VALIDATORS, 1)], lab.regulator.public))
    bodies = [codec.decode(frame, Frame).body for frame in lab.frames]
    parts = [part for slot in (0, 256, 512, 640, 672) if (part := lab.frozen.range(slot)) is not None]
    head = lab.blocks[HEIGHTS - 1]
    _, block, _, _ = decode_certified(head)
    talk: list[Message] = [
        StateOffer(1, SENDER, 1, lab.frozen.manifest()),
        StateRequest(1, SENDER, 1, 256),
        StatePart(1, SENDER, 1, parts[-1]),
        Attest(1, SENDER, HEIGHTS // 2 + 1, [decode_transaction(tx).digest for tx in block.transactions]),
    ]
    keys = [b"total", b"event/1", b"account/" + crypto.id8(lab.client.public).hex().encode(), b"pair/1/1", b"book/1"]
    questions = [codec.encode(Body(1, "home-1", b"12345678", keys)), codec.encode(Body(1, "gw", b"", []))]
    bodies += [codec.encode(message) for message in talk]
    return {
        "frame": Target(lab.frame, lab.frames),
        "signed-frame": Target(lab.signed_frame, bodies),
        "block": Target(lab.block, lab.blocks[:2]),
        "transaction": Target(lab.transaction, lab.txs, 1024),
        "genesis": Target(lab.genesis, [genesis]),
        "receipt-proof": Target(lab.receipt_proof, [codec.encode(receipt)], 2048),
        "state-proof": Target(lab.state_proof, [codec.encode(state)], 2048),
        "vote-record": Target(lab.vote_record, lab.records),
        "question": Target(lab.question, questions, 2048),
        "manifest": Target(lab.manifest, [codec.encode(lab.frozen.manifest())]),
        "state-part": Target(lab.state_part, [codec.encode(part) for part in parts], 8192),
        "list-change": Target(lab.list_change, [codec.encode(lab.change)]),
    }
