"""Bad input against the running daemons: refused with a reason that is shown, and nothing of anybody else's is lost.

One network of real processes for all cases, none of which may leave a mark: each ends with an honest household whose
transaction is final at the first attempt, or with the honest plug whose batch is acknowledged and final.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bad_input_net import (
    DEPOSIT_U,
    STATIONS,
    Net,
    full_disk,
    stranger,
    until,
)
from node_bench import PROTOCOL_START_S, key
from plug_stand_in import PlugStandIn
from watt_chain import codec, crypto
from watt_chain.block import decode_certified
from watt_chain.contract.kinds import Checkpoint, Deposit, Enrol, EnrolPlug, Reveal, Withdraw
from watt_chain.contract.objects import account_key
from watt_chain.light import StateProof
from watt_chain.pool import NONCE_AHEAD_MAX, SIGNER_TRANSACTIONS_MAX
from watt_chain.question import make_question
from watt_chain.transaction import Transaction, decode_transaction, txid
from watt_gateway.mqtt import MESSAGE_BYTES_MAX
from watt_node.channel import PROTOCOL, Hello, Kind
from watt_node.store import read_blocks
from watt_rig.mosquitto import executable
from watt_station.intake import TX_BYTES_MAX
from watt_wire.batch import SIZE_MAX, encode_ack
from watt_wire.topics import plug_batch

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]

N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"Order of P-256."


class Bench:
    """The network, who speaks on it, and the plug of ann."""

    def __init__(self, folder: Path) -> None:
        self.net = Net(folder)
        # Its readings are a day old: the plug's clock may run ahead of the network's here, never of the contract's.
        self.plug = PlugStandIn(time_s=PROTOCOL_START_S - 86_400)
        self.net.add_gateway(self.plug.key.public)
        self.away: dict[str, list[str]] = {}
        self.sent: list[bytes] = []
        "Checkpoint frames that the plug has sent and must find in a block once."

    def begin(self) -> None:
        """Daemons first, the broker when every one of them has missed it more than once."""
        net = self.net
        net.start(*STATIONS, "ann")
        everybody = (*STATIONS, "ann")
        until(lambda: all(net.daemons[name].said(self.word(name)) for name in everybody), "everybody misses the broker")
        time.sleep(4)  # the second and the third attempt, after 1 s and 2 s
        self.away = {name: net.daemons[name].said(self.word(name)) for name in everybody}
        net.start_broker()
        until(net.connected, "everybody has found the broker")
        self.bob, self.mallory = net.voice("bob"), net.voice("mallory")
        net.enrol(self.bob)

    @staticmethod
    def word(name: str) -> str:
        return "missing endpoint=" if name == "ann" else "broker-away"

    def batch(self, **changes: object) -> bytes:
        """The plug's next batch, one record of a minute."""
        batch = self.plug.batch(1, **changes)
        self.sent.append(batch[6:244])
        self.last = batch
        return batch

    def offer(self, batch: bytes, plug: bytes | None = None) -> None:
        self.bob.say(plug_batch("ann", plug or self.plug.id), batch)

    def acked(self) -> bool:
        return encode_ack(self.plug.counter, self.plug.previous) in self.bob.acks

    def deliver(self, seconds: float = 45) -> None:
        """The plug's next batch is acknowledged, and everything the plug ever sent is final."""
        batch = self.batch()
        deadline_s = time.monotonic() + seconds
        while not self.acked():
            assert time.monotonic() < deadline_s, self.net.shown("ann", "readings")
            self.offer(batch)
            with contextlib.suppress(AssertionError):
                until(self.acked, "acknowledged", 2)
        until(lambda: self.net.shown("ann", "tx", "final") == len(self.sent), "every reading is final", seconds)
        assert self.net.shown("ann", "tx", "pending") == 0

    def well(self) -> None:
        """Everybody lives, and the honest household gets through."""
        assert self.net.all_alive()
        self.net.honest(self.bob)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("bad"))
    try:
        bench.begin()
        yield bench
    finally:
        bench.net.close()


# ---- a broker that is not there yet


def test_without_a_broker_every_daemon_says_so_once_and_finds_it_when_it_comes(bench: Bench) -> None:
    for name in STATIONS:
        assert len(bench.away[name]) == 1
        assert (
            f"port={bench.net.broker_port} reason='cannot connect' next='retried every 1 to 15 s'"
            in bench.away[name][0]
        )
        assert len(bench.net.daemons[name].said("broker-back")) == 1
    assert len(bench.away["ann"]) == 1
    assert f"endpoint=127.0.0.1:{bench.net.broker_port}" in bench.away["ann"][0]
    assert "retry_s_max=30" in bench.away["ann"][0]
    bench.well()
    bench.deliver()


# ---- transactions


def in_blocks(bench: Bench, station: str) -> list[bytes]:
    """Every transaction in the final blocks of a station."""
    blocks = read_blocks(bench.net.data(station) / "blocks.log")
    return [tx for certified in blocks for tx in decode_certified(certified)[1].transactions]


def rise(bench: Bench, *path: str) -> Any:
    """A wait for a counter of all four stations to rise above what it shows now."""
    before = bench.net.all_shown(*path)

    def risen() -> bool:
        return all(now > then for now, then in zip(bench.net.all_shown(*path), before, strict=True))

    return lambda: until(risen, f"counted as {'.'.join(path)}: {bench.net.all_shown(*path[:-1])}")


def resigned(tx: bytes, signature: bytes) -> bytes:
    sent = codec.decode(tx, Transaction)
    return codec.encode(Transaction(sent.payload, sent.signer, signature))


def signature_of(tx: bytes) -> bytes:
    return codec.decode(tx, Transaction).signature


@pytest.mark.parametrize(
    ("payload", "counted"),
    [
        (b"", ("intake", "undecodable")),
        (b"\xff" * 300, ("intake", "undecodable")),
        (b"\x93\xc4\x01\x00\xc4\x40", ("intake", "undecodable")),
        (b"\x91" * 50_000, ("intake", "undecodable")),
        (bytes(TX_BYTES_MAX + 1), ("intake", "size")),
        (bytes(300_000), ("broker", "oversized")),
    ],
    ids=["empty", "noise", "cut short", "nested", "oversized", "far oversized"],
)
def test_bytes_that_are_no_transaction_are_counted_by_every_station(
    bench: Bench, payload: bytes, counted: tuple[str, str]
) -> None:
    seen = rise(bench, *counted)
    bench.net.send(bench.mallory, payload, "mallory")
    seen()
    bench.well()


def refusable(net: Net, name: str) -> tuple[bytes, str]:
    """A transaction that no pool may take, and the reason."""
    nonce = net.nonces.get("mallory", 0) + 1
    good = net.tx("mallory", "Withdraw", Withdraw(1), nonce)
    r, s = signature_of(good)[:32], int.from_bytes(signature_of(good)[32:], "big")
    match name:
        case "wrong signature":
            return resigned(good, r + (s ^ 1).to_bytes(32, "big")), "signature"
        case "high s":
            return resigned(good, r + (N - s).to_bytes(32, "big")), "signature"
        case "somebody else's key":
            return resigned(good, signature_of(net.tx("bob", "Withdraw", Withdraw(1), nonce))), "signature"
        case "unknown signer":
            return net.tx("eve", "Withdraw", Withdraw(1), 1), "signer-unknown"
        case "wrong chain":
            return net.tx("mallory", "Withdraw", Withdraw(1), nonce, chain=2), "chain"
        case "used nonce":
            return net.tx("mallory", "Withdraw", Withdraw(2), 0), "nonce-used"
        case "far nonce":
            return net.tx("mallory", "Withdraw", Withdraw(2), nonce + NONCE_AHEAD_MAX + 1), "nonce-far"
    raise AssertionError(name)


@pytest.mark.parametrize(
    "name",
    ["wrong signature", "high s", "somebody else's key", "unknown signer", "wrong chain", "used nonce", "far nonce"],
)
def test_a_transaction_that_cannot_be_taken_is_refused_with_its_reason(bench: Bench, name: str) -> None:
    tx, reason = refusable(bench.net, name)
    bench.mallory.replies.clear()  # the id leaves the signature out: two of these have the same
    seen = rise(bench, "intake", reason)
    bench.net.send(bench.mallory, tx, "mallory")
    until(lambda: bench.mallory.answers(txid(tx), "refused") == [reason] * 4, "four stations say why")
    seen()
    assert not bench.mallory.answers(txid(tx), "receipt")
    bench.well()


@pytest.mark.row("J23")
@pytest.mark.parametrize(
    ("kind", "fields", "code"),
    [
        ("Deposit", Deposit(crypto.id8(key("mallory").public), 10**6), "role"),
        (
            "Enrol",
            Enrol(key("eve").public, 1, [EnrolPlug(key("evil plug").public, "plain", 1)], False, 1, "h25", True),
            "role",
        ),
        ("Reveal", Reveal(1, "sell", 1, [1], bytes(16)), "unknown-event"),
        ("Withdraw", Withdraw(DEPOSIT_U + 1), "balance"),
        ("Withdraw", [-1], "malformed"),
        ("Withdraw", [2**63], "malformed"),
        ("Checkpoint", [b"not a frame", -1], "frame"),
        ("Rob", [], "unknown-kind"),
    ],
    ids=["out of role", "enrols herself", "out of stage", "overdrawn", "negative", "too large", "no frame", "no kind"],
)
def test_a_call_that_may_not_be_made_is_final_with_its_reason_and_changes_nothing(
    bench: Bench, kind: str, fields: object, code: str
) -> None:
    seen = rise(bench, "outcomes", code)
    assert bench.net.outcome(bench.mallory, bench.net.tx("mallory", kind, fields), "mallory") == code
    seen()
    bench.well()


def test_fields_nested_to_the_brink_of_the_decoder_stop_nobody(bench: Bench) -> None:
    seen = rise(bench, "intake", "undecodable")
    nonce = bench.net.nonces.get("mallory", 0) + 1
    for depth in range(940, 1000):
        nested = msgspec.Raw(b"\x91" * depth + b"\x00")
        bench.net.send(bench.mallory, bench.net.tx("mallory", "Withdraw", nested, nonce), "mallory")
    seen()
    bench.well()


def test_a_replayed_transaction_runs_once_and_its_receipt_is_repeated(bench: Bench) -> None:
    net = bench.net
    tx = net.tx("mallory", "Withdraw", Withdraw(7))
    assert net.outcome(bench.mallory, tx, "mallory") == ""
    seen = rise(bench, "intake", "final")
    known = len(bench.mallory.answers(txid(tx), "receipt"))
    for _ in range(5):
        net.send(bench.mallory, tx, "mallory")
    until(lambda: len(bench.mallory.answers(txid(tx), "receipt")) >= known + 20, "each station repeats the receipt")
    seen()
    bench.well()
    for name in STATIONS:
        assert [decode_transaction(raw).txid for raw in in_blocks(bench, name)].count(txid(tx)) == 1


def test_a_forged_copy_does_not_turn_an_honest_receipt_away(bench: Bench) -> None:
    net = bench.net
    txs = [net.tx("bob", "Withdraw", Withdraw(1)) for _ in range(10)]
    for tx in txs:
        forged = resigned(tx, signature_of(tx)[:63] + bytes([signature_of(tx)[63] ^ 1]))
        net.send(bench.bob, tx, "bob")
        net.send(bench.bob, forged, "mallory")  # on the same connection, so that it arrives right behind
    until(lambda: all(bench.bob.answers(txid(tx), "receipt") for tx in txs), "the receipts reach bob")
    assert not any(bench.mallory.answers(txid(tx), "receipt") for tx in txs)


def test_a_nonce_gap_and_a_flood_behind_it_fill_only_the_signers_own_place(bench: Bench) -> None:
    net = bench.net
    seen = rise(bench, "refused", "signer-full")
    first = net.nonces.get("mallory", 0) + 1
    flood = [net.tx("mallory", "Withdraw", Withdraw(1), first + 1 + at) for at in range(SIGNER_TRANSACTIONS_MAX + 40)]
    for tx in flood:
        net.send(bench.mallory, tx, "mallory")
    seen()
    taken = net.tx("mallory", "Withdraw", Withdraw(2), first + 1)
    net.send(bench.mallory, taken, "mallory")
    until(lambda: bench.mallory.answers(txid(taken), "refused") == ["nonce-taken"] * 4, "a place is given once")
    bench.well()
    # What fills the gap finds no place until one is free; the signer harms nobody but herself, and not for ever.
    net.nonces["mallory"] = first - 1


def test_questions_that_are_none_and_topics_are_counted(bench: Bench) -> None:
    net = bench.net
    network = net.network.network
    good = make_question(key("mallory"), network, 1, "mallory", b"1", [b"rules"])
    elsewhere = make_question(key("mallory"), bytes(32), 1, "mallory", b"1", [])
    reasons = {
        "query-form": [b"\xc1", good[:-1], msgspec.msgpack.encode(["state", 1, [b"k"]])],
        "query-address": [make_question(key("mallory"), network, 1, "bob", b"1", [b"rules"])],
        "query-signature": [good[:-1] + bytes([good[-1] ^ 1]), elsewhere],
    }
    counted = [rise(bench, "intake", reason) for reason in (*reasons, "topic")]
    for index in range(4):
        for questions in reasons.values():
            for question in questions:
                bench.mallory.say(f"wp/1/area/area1/node/{index}/query/mallory", question)
    bench.mallory.say("wp/1/area/area1/tx/UPPER_CASE", b"x")
    for seen in counted:
        seen()
    bench.well()


@pytest.mark.row("E11", "E15")
def test_nobody_is_shown_the_account_of_another_household(bench: Bench) -> None:
    net = bench.net
    bob, mallory = (account_key(crypto.id8(key(name).public)) for name in ("bob", "mallory"))
    seen = {}
    for voice, name in ((bench.mallory, "mallory"), (bench.bob, "bob")):
        nonce = f"who reads what: {name}".encode()
        question = make_question(key(name), net.network.network, 1, name, nonce, [b"rules", bob, mallory])
        voice.say(f"wp/1/area/area1/node/2/query/{name}", question)
        until(lambda voice=voice, nonce=nonce: voice.answers(nonce, "state"), "an answer")  # type: ignore[misc]
        proof = codec.decode(voice.answers(nonce, "state")[0], StateProof)
        seen[name] = set(net.light.check_state(proof, 1))
    assert seen == {"mallory": {b"rules", mallory}, "bob": {b"rules", bob}}, "each its own"
    bench.well()


# ---- readings


def bad_batch(plug: PlugStandIn, name: str) -> tuple[bytes, str]:
    """A batch that no gateway may take, and the reason; the plug goes on as if it had not been made."""
    kept = (plug.counter, plug.previous, plug.sequence, plug.register_mwh, plug.time_s)
    try:
        match name:
            case "noise":
                return b"\x00" * 400, "batch-magic"
            case "cut short":
                return plug.batch(1)[:-1], "batch-size"
            case "oversized":
                return plug.batch(1) + bytes(SIZE_MAX), "batch-size"
            case "wrong signature":
                good = plug.batch(1)
                return good[:243] + bytes([good[243] ^ 1]) + good[244:], "batch-signature"
            case "another plug's key":
                other = PlugStandIn(9, plug.counter, plug.previous, plug.sequence, plug.register_mwh, plug.time_s)
                return other.batch(1), "batch-plug"
            case "register falls":
                plug.register_mwh -= 500_000
                return plug.batch(1), "register-fell"
            case "record swapped":
                good, other = plug.batch(1), PlugStandIn(1, time_s=plug.time_s).batch(1)
                return good[:244] + other[244:], "batch-root"
            case "fork":
                plug.counter -= 1
                return plug.batch(1), "chain-fork"
            case "another past":
                plug.previous = bytes(32)
                return plug.batch(1), "chain-previous"
            case "counter gap":
                plug.counter += 3
                return plug.batch(1), "chain-gap"
    finally:
        plug.counter, plug.previous, plug.sequence, plug.register_mwh, plug.time_s = kept
    raise AssertionError(name)


BAD_BATCHES = (
    "noise", "cut short", "oversized", "wrong signature", "another plug's key", "register falls", "record swapped",
    "fork", "another past", "counter gap",
)  # fmt: skip


def test_a_bad_batch_is_counted_by_its_reason_and_the_honest_plug_goes_on(bench: Bench) -> None:
    made = [bad_batch(bench.plug, name) for name in BAD_BATCHES]
    before = {reason: bench.net.shown("ann", "readings", "refused", reason) for _, reason in made}
    expected = {**Counter(reason for _, reason in made), "plug-unknown": 1, "topic": 1}
    stored, acks = bench.net.shown("ann", "readings", "batches"), len(bench.bob.acks)
    for batch, _ in made:
        bench.offer(batch)
    stranger_plug = PlugStandIn(5)
    bench.offer(stranger_plug.batch(1), stranger_plug.id)
    bench.offer(bytes(MESSAGE_BYTES_MAX + 1))
    bench.bob.say("wp/1/home/ann/plug/0123/batch", bench.plug.key.public)

    def counted() -> bool:
        shown = bench.net.shown("ann", "readings", "refused") or {}
        return all(shown.get(reason, 0) == before.get(reason, 0) + more for reason, more in expected.items())

    until(counted, f"every reason is counted: {bench.net.shown('ann', 'readings')}")
    until(lambda: bench.net.shown("ann", "readings", "dropped", "message-too-large"), "the far oversized is counted")
    assert bench.net.shown("ann", "readings", "batches") == stored
    assert len(bench.bob.acks) == acks
    bench.deliver()


def test_forged_answers_to_a_gateway_are_counted_and_believed_by_nobody(bench: Bench) -> None:
    batch = bench.batch()
    bench.offer(batch)  # so that there is something to lie about
    for answer in (b"\x91" * 50_000, b"\xc1", msgspec.msgpack.encode(["paid", b"", b""])):
        bench.mallory.say("wp/1/area/area1/reply/ann", answer)
    bench.mallory.say("wp/1/area/area1/notice", msgspec.msgpack.encode(["event", b"a lie"]))
    for raw in in_blocks(bench, "area1-node0"):
        for lie in (["receipt", txid(raw), b"no proof"], ["refused", txid(raw), "nonce-used"]):
            bench.mallory.say("wp/1/area/area1/reply/ann", msgspec.msgpack.encode(lie))
    rejected = {"reply-form": 2, "reply-kind": 1}
    until(lambda: (bench.net.shown("ann", "light", "rejected") or {}).items() >= rejected.items(), "counted")
    bench.deliver()


def test_a_replayed_batch_is_acknowledged_again_and_stored_once(bench: Bench) -> None:
    bench.deliver()
    stored, final = (bench.net.shown("ann", *path) for path in (("readings", "batches"), ("tx", "final")))
    ack = encode_ack(bench.plug.counter, bench.plug.previous)
    known = bench.bob.acks.count(ack)
    for _ in range(3):
        bench.offer(bench.last)
    until(lambda: bench.bob.acks.count(ack) == known + 3, "acknowledged again")
    bench.deliver()
    assert bench.net.shown("ann", "readings", "batches") == stored + 1
    assert bench.net.shown("ann", "tx", "final") == final + 1


# ---- connections


@contextlib.contextmanager
def dialled(port: int, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        yield secure


@pytest.mark.row("E12")
def test_a_client_with_a_certificate_of_another_authority_reaches_no_port(bench: Bench, tmp_path: Path) -> None:
    net = bench.net
    certificate, private = stranger(tmp_path / "stranger").issue("area1-node0")
    station = net.network.ports[1, 1]
    before = len(net.daemons["area1-node1"].said(""))
    for port in (station, net.broker_port):
        for shown in (True, False):
            context = ssl.create_default_context(cafile=str(net.network.authority.ca_path))
            if shown:
                context.load_cert_chain(certificate, private)
            # TLS 1.3: the refusal of a client's certificate arrives with the first read.
            with pytest.raises((ssl.SSLError, ConnectionError)), dialled(port, context) as secure:
                secure.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")
                if not secure.recv(4):
                    raise ConnectionError("closed")
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", station), timeout=10) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                plain.recv(100)
    until(lambda: net.shown("area1-node1", "connections_refused", "tls") >= 52, "refused handshakes are counted")
    assert len(net.daemons["area1-node1"].said("")) - before < 10, "a stranger fills the log"
    bench.well()


def test_a_member_that_is_no_validator_may_not_vote_and_a_rude_one_is_cut_off(bench: Bench) -> None:
    net = bench.net

    async def say(name: str, hello: Hello, then: bytes = b"") -> bytes:
        tls = net.network.tls(name)
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.load_cert_chain(tls.cert, tls.key)
        port = net.network.ports[1, 1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        body = bytes([Kind.HELLO]) + msgspec.msgpack.encode(hello)
        writer.write(len(body).to_bytes(4, "big") + body + then)
        answer = await asyncio.wait_for(reader.read(4096), 10)
        with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
            while more := await asyncio.wait_for(reader.read(4096), 10):
                answer += more
        writer.close()
        return answer

    network = net.network.network
    frame = (100).to_bytes(4, "big") + bytes([Kind.SUBMIT]) + bytes(99)
    huge = (1 << 31).to_bytes(4, "big") + bytes([Kind.SUBMIT]) + bytes(99)
    for name, hello, then, expected in (
        ("mallory", Hello(PROTOCOL, "consensus", network, 1, "mallory"), b"", b"name"),
        ("mallory", Hello(PROTOCOL, "consensus", network, 1, "area1-node0"), b"", b"name"),
        ("main-node0", Hello(PROTOCOL, "consensus", network, 1, "main-node0"), b"", b"not-your-place"),
        ("main-node0", Hello(PROTOCOL, "submit", bytes(32), 1, "main-node0"), b"", b"network"),
        ("main-node0", Hello(PROTOCOL, "submit", network, 1, "main-node0"), frame + huge, b"undecodable"),
    ):
        assert expected in asyncio.run(say(name, hello, then)), expected
    shown = until(
        lambda: net.shown("area1-node1", "connections_refused", "frame-length") and net.status("area1-node1"), ""
    )
    assert {"name", "not-your-place", "network", "frame-length"} <= shown["connections_refused"].keys()
    assert shown["refused"]["undecodable"] >= 1
    bench.well()


# ---- a broker that dies, a disk that is full


@pytest.mark.row("B31")
@pytest.mark.parametrize("kind", ["embedded", "mosquitto"])
def test_a_broker_killed_in_the_middle_loses_nothing_and_everything_arrives_once(bench: Bench, kind: str) -> None:
    if kind == "mosquitto" and executable() is None:
        assert os.environ.get("CI") != "true", "mosquitto is missing in CI"
        pytest.skip("mosquitto is not installed")
    net = bench.net
    bench.deliver()
    backs = [len(net.daemons[name].said("broker-back")) for name in STATIONS]
    for _ in range(4):
        bench.offer(bench.batch())
    until(bench.acked, "the gateway has them")
    net.daemons["broker"].end(signal.SIGKILL)  # most receipts are still on their way
    until(lambda: not any(net.all_shown("broker", "connected")), "the stations notice")
    assert net.shown("ann", "brokers", "area") is False or until(
        lambda: net.status("ann")["brokers"]["area"] is False, "the gateway notices"
    )
    net.start_broker(kind)
    until(net.connected, "everybody is back", 45)
    bench.deliver()
    bench.well()
    assert [len(net.daemons[name].said("broker-back")) for name in STATIONS] == [count + 1 for count in backs]
    for name in STATIONS:
        frames = [checkpoint_of(raw) for raw in in_blocks(bench, name)]
        assert sorted(frame for frame in frames if frame) == sorted(bench.sent), "each reading is in a block once"


def checkpoint_of(raw: bytes) -> bytes | None:
    tx = decode_transaction(raw)
    if tx.signer != key("ann").public or tx.kind != "Checkpoint":
        return None
    return codec.decode(tx.fields_raw, Checkpoint).frame


def disk_refusals(net: Net) -> int:
    refused = net.shown("ann", "readings", "refused") or {}
    return sum(refused.get(name, 0) for name in ("disk-full", "disk-error"))


def test_a_gateway_with_a_full_disk_acknowledges_nothing_says_so_and_goes_on_when_there_is_room(bench: Bench) -> None:
    net, daemon = bench.net, bench.net.daemons["ann"]
    bench.deliver()
    said = len(daemon.said("disk-refuses"))
    with full_disk(daemon, 8192):
        batch = bench.batch()
        for _ in range(3):
            bench.offer(batch)
        until(lambda: net.shown("ann", "disk") != "ok", "the status shows it")
        until(lambda: len(daemon.said("disk-refuses")) == said + 1, "one line says so")
        assert f"folder={net.data('ann')}" in daemon.said("disk-refuses")[said]
        before = disk_refusals(net)
        for _ in range(3):
            bench.offer(batch)
        until(lambda: disk_refusals(net) >= before + 3, "batches are counted and not looked at")
        assert not bench.acked()
        assert len(daemon.said("disk-refuses")) == said + 1
        net.honest(bench.bob)

    def offered() -> bool:
        bench.offer(batch)
        return bench.acked()

    until(offered, "acknowledged as soon as there is room")
    bench.deliver()
    assert daemon.said("disk-refuses-over")
    bench.well()


def test_a_station_with_a_full_disk_stops_with_one_line_and_the_area_goes_on_without_it(bench: Bench) -> None:
    net, daemon = bench.net, bench.net.daemons["area1-node3"]
    size = (net.data("area1-node3") / "votes.log").stat().st_size
    lines = len(daemon.said(""))
    with full_disk(daemon, size + 100):
        net.honest(bench.bob)
        assert daemon.process is not None
        assert daemon.process.wait(timeout=20) == 1
    said = [line for line in daemon.said("")[lines:] if line.startswith("wattpact ")]
    assert len(said) == 1
    assert said[0].startswith(f"wattpact station: {net.data('area1-node3')}/")
    assert "cannot write: " in said[0]
    assert not daemon.said("Traceback")
    net.honest(bench.bob)
    bench.deliver()
    net.start("area1-node3")
    until(lambda: len({*net.all_shown("height")}) == 1 and net.connected(), "the station catches up")
    bench.well()
