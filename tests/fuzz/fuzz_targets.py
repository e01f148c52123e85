"""What the fuzzers call: one function of bytes for each parser that strangers or disks feed.

A target lets only unexpected exceptions out: what a format refuses is refused by its own error type, and whatever
is accepted must be something that a quorum or an office really signed. The seeds are made by a small network that
has lived through a view change, so that a change of format changes them too.
"""

from collections.abc import Callable
from dataclasses import dataclass

from chain_world import START_S, CountingContract, World, false_verify, make_genesis, make_tx, real_keys
from watt_chain import codec
from watt_chain.codec import DecodeError
from watt_chain.genesis import GenesisFile, open_genesis
from watt_chain.ledger import Ledger
from watt_chain.light import LightClient, ProofError, ReceiptProof, StateProof
from watt_chain.pbft import Replica, ReplicaConfig
from watt_chain.pbft.messages import Frame, Message, signed_bytes
from watt_chain.transaction import decode_transaction

VALIDATORS = 4
HEIGHTS = 6
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
        self.regulator = real_keys(1)[0]
        self._runs = 0
        self.replica = self._fresh_replica()

    def _fresh_ledger(self, blocks: int) -> Ledger:
        ledger = Ledger(self.world.genesis, 1, CountingContract(), verify=false_verify)
        for certified in self.blocks[:blocks]:
            ledger.replay(certified)
        return ledger

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
    return {
        "frame": Target(lab.frame, lab.frames),
        "signed-frame": Target(lab.signed_frame, bodies),
        "block": Target(lab.block, lab.blocks[:2]),
        "transaction": Target(lab.transaction, lab.txs, 1024),
        "genesis": Target(lab.genesis, [genesis]),
        "receipt-proof": Target(lab.receipt_proof, [codec.encode(receipt)], 2048),
        "state-proof": Target(lab.state_proof, [codec.encode(state)], 2048),
        "vote-record": Target(lab.vote_record, lab.records),
    }
