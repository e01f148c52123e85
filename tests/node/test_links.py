"""A flood from one validator or client: bounded, served last, cut off when it is rubbish, and no others delayed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from node_bench import Network, key, until
from watt_chain import codec
from watt_chain.pbft.messages import Frame, Gossip, Message, Prepare, SyncRequest, kind_of, signed_bytes
from watt_node import links
from watt_node.channel import PROTOCOL, Channel, ChannelError, Hello, Kind, dial, tls_context
from watt_node.links import FAULTS_MAX, FRAMES_AT_ONCE, FRAMES_PER_S, Blame, Budget, Link


def frame(message: Message) -> bytes:
    body = codec.encode(message)
    return codec.encode(Frame(body, bytes(64)))


def test_votes_leave_before_transactions_and_each_sort_in_order() -> None:
    link = Link(1, None)  # type: ignore[arg-type]
    link.connected = True
    bulk = [frame(Gossip(1, 0, 1, [bytes([number]) * 1000])) for number in range(3)]
    votes = [frame(Prepare(1, 0, 1, view, bytes(32))) for view in range(3)]
    for one in (*bulk, *votes):
        link.put(one)
    assert [kind_of(one) for one in votes] == ["prepare"] * 3
    assert link.take() == [*votes, *bulk]
    assert link.take() == [] and link.queued_bytes == 0


def test_a_full_queue_loses_transactions_and_keeps_the_votes() -> None:
    link = Link(1, None)  # type: ignore[arg-type]
    vote = frame(Prepare(1, 0, 1, 0, bytes(32)))
    link.put(vote)
    for number in range(1000):
        link.put(frame(Gossip(1, 0, 1, [b"%d" % number])))
    taken = link.take()
    assert taken[0] == vote and len(taken) == links.QUEUE_FRAMES_AWAY


def test_a_budget_lets_a_burst_through_and_then_the_rate() -> None:
    budget = Budget(0.0)
    assert all(budget.spend(0.0) == 0.0 for _ in range(FRAMES_AT_ONCE))
    assert budget.spend(0.0) == pytest.approx(1 / FRAMES_PER_S)
    assert budget.spend(1.0) == 0.0  # a second later it is full again by the rate


def test_each_kind_has_a_share_of_its_own() -> None:
    budget = Budget(0.0)
    question, vote = frame(SyncRequest(1, 3, 0)), frame(Prepare(1, 3, 1, 0, bytes(32)))
    share = links.KIND_PER_S["sync-request"] * links.BURST_S
    assert [budget.admits(question, 0.0) for _ in range(share + 5)] == [True] * share + [False] * 5
    assert budget.admits(vote, 0.0)  # votes are not held up by questions
    assert budget.admits(question, 1.0)
    assert budget.admits(b"rubbish", 0.0)  # the replica refuses it, and blames


def test_every_kind_of_message_has_a_share() -> None:
    names = {kind.__struct_config__.tag for kind in Message.__args__}  # type: ignore[attr-defined]
    assert names == set(links.KIND_PER_S)


def test_blame_comes_after_many_faults_in_a_short_time_and_passes() -> None:
    blame = Blame()
    assert not any(blame.note("a", float(second)) for second in range(10 * FAULTS_MAX))  # one a second for ten minutes
    assert not blame.note("b", 0.0, FAULTS_MAX - 1)
    assert blame.note("b", 0.0)
    assert blame.is_banned("b", 1.0) and not blame.is_banned("b", links.BAN_S + 0.1)
    assert not blame.is_banned("a", 1.0)


async def attacker(network: Network, index: int) -> Channel:
    """A connection to node 0 as the validator that does not run."""
    name = f"area1-node{index}"
    context = tls_context(network.tls(name), server=False)
    mine = Hello(PROTOCOL, "consensus", network.network, 1, name)
    return await dial("127.0.0.1", network.port(1, 0), context, mine, "area1-node0")


def least_nonce(network: Network) -> int:
    return min(node.ledger.next_nonce(key("ann").public) for node in network.nodes.values())


async def order(network: Network, count: int, first: int) -> None:
    """Transactions one after the other, final at everybody who runs."""
    for nonce in range(first, first + count):
        await network.nodes[1, 1].submit(network.transaction("ann", nonce))
        await until(lambda nonce=nonce: least_nonce(network) > nonce)  # type: ignore[misc]


async def test_rubbish_from_a_validator_cuts_it_off_and_the_others_go_on(tmp_path: Path) -> None:
    network = Network(tmp_path)
    for index in range(3):
        await network.start(1, index)
    channel = await attacker(network, 3)
    for number in range(FAULTS_MAX + 5):
        channel.put(Kind.CONSENSUS, b"rubbish %d" % number)
    await order(network, 2, 1)
    node = network.nodes[1, 0]
    await until(lambda: node.peers.refused.get("faulty", 0) >= 1)
    with pytest.raises(ChannelError):
        while True:
            await channel.read()
    with pytest.raises(ChannelError):  # and it is not let back at once
        await attacker(network, 3)
    await order(network, 2, 3)
    await network.close()
    assert not network.failures


async def test_a_flood_of_genuine_frames_is_read_at_its_budget_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "FRAMES_AT_ONCE", 50)
    monkeypatch.setattr(links, "FRAMES_PER_S", 5)
    network = Network(tmp_path)
    for index in range(3):
        await network.start(1, index)
    channel = await attacker(network, 3)
    asked = SyncRequest(1, 3, 0)
    body = codec.encode(asked)
    genuine = codec.encode(Frame(body, key("1/3").sign(signed_bytes(network.network, asked, body))))
    received: list[int] = []
    node = network.nodes[1, 0]
    receive = node.receive

    def counted(sender: int, data: bytes) -> None:
        received.append(sender)
        receive(sender, data)

    node.receive = counted  # type: ignore[method-assign]
    for _ in range(2000):
        channel.put(Kind.CONSENSUS, genuine)
    await order(network, 3, 1)
    assert 40 <= received.count(3) < 400  # the burst, and then a few a second
    assert node.peers.ignored() > 0
    assert node.peers.refused.get("faulty", 0) == 0  # genuine frames are no fault
    channel.close()
    await network.close()
    assert not network.failures


async def test_a_client_that_delivers_forgeries_is_cut_off_and_the_others_are_served(tmp_path: Path) -> None:
    network = Network(tmp_path)
    await network.start_chain(1)
    context = tls_context(network.tls("main-node0"), server=False)
    mine = Hello(PROTOCOL, "deliver", network.network, 1, "main-node0")
    channel = await dial("127.0.0.1", network.port(1, 0), context, mine, "area1-node0")
    forged = [network.transaction(f"mallory{number}", 1)[:-64] + bytes(64) for number in range(3 * FAULTS_MAX)]
    channel.put_all(Kind.SUBMIT, forged)
    node = network.nodes[1, 0]
    await until(lambda: node.peers.refused.get("faulty", 0) == 1)
    assert node.counters["signature"] >= FAULTS_MAX
    assert len(node.ledger._executed) == 0 and node.status()["replica"]["pool"] == 0  # type: ignore[index]
    await order(network, 2, 1)
    await network.close()
    assert not network.failures


async def test_a_delivering_client_gets_everything_into_blocks_without_an_answer(tmp_path: Path) -> None:
    network = Network(tmp_path)
    await network.start_chain(1)
    context = tls_context(network.tls("main-node0"), server=False)
    mine = Hello(PROTOCOL, "deliver", network.network, 1, "main-node0")
    txs = [network.transaction("ann", nonce) for nonce in range(1, 101)]
    for index in range(4):
        channel = await dial("127.0.0.1", network.port(1, index), context, mine, f"area1-node{index}")
        channel.put_all(Kind.SUBMIT, txs)
    await until(lambda: all(n.ledger.next_nonce(key("ann").public) == 101 for n in network.nodes.values()))
    await network.close()
    assert not network.failures


async def test_a_peers_gossip_beyond_its_share_is_dropped_and_counted(tmp_path: Path) -> None:
    network = Network(tmp_path, areas=(4,))
    node = await network.start(1, 0)
    message = Gossip(1, 3, 0, [network.transaction("ann", 1)])
    body = codec.encode(message)
    data = codec.encode(Frame(body, key("1/3").sign(signed_bytes(network.network, message, body))))
    for _ in range(50):
        node.receive(3, data)
    assert node.counters["gossip-busy"] == 50 - 4
    await until(lambda: node.status()["replica"]["pool"] == 1)  # type: ignore[index]
    await network.close()


def test_the_name_of_a_message_is_read_from_any_bytes_without_harm() -> None:
    for data in (
        b"",
        b"\x92",
        b"\x92\xc4",
        b"\x92\xc4\x01",
        b"\x92\xc4\x05\x95\xa9ab",
        b"\xff" * 20,
        msgspec.msgpack.encode([1, 2]),
    ):
        assert isinstance(kind_of(data), str)
    assert kind_of(frame(SyncRequest(1, 0, 0))) == "sync-request"
