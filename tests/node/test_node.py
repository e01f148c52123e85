"""Nodes over TLS on loopback: blocks, catching up, following, messages, restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from node_bench import Network, key, until
from watt_chain.block import decode_certified
from watt_chain.codec import decode
from watt_chain.light import LightClient, ReceiptProof, StateProof
from watt_node.channel import tls_context
from watt_node.config import ConfigError, EndpointSection
from watt_node.log import Log
from watt_node.node import Node
from watt_node.remote import Remote
from watt_node.store import StoreError, read_blocks


def heights(network: Network) -> set[int]:
    return {node.height() for node in network.nodes.values()}


@pytest.mark.row("F13", "F18")
async def test_given_four_nodes_when_a_transaction_is_submitted_to_one_then_all_store_the_same_block(
    tmp_path: Path,
) -> None:
    network = Network(tmp_path)
    nodes = await network.start_chain(1)
    assert await nodes[2].submit(network.transaction("ann", 1)) == ""
    await until(lambda: heights(network) == {1})
    assert len({node.ledger.head.block_hash for node in nodes}) == 1
    assert len({tuple(sorted(node.ledger.state.items())) for node in nodes}) == 1
    await network.close()
    stored = [list(read_blocks(tmp_path / f"area1-node{index}.data" / "blocks.log")) for index in range(4)]
    assert all(len(blocks) == 1 for blocks in stored)
    assert not network.failures


async def test_given_a_final_transaction_when_asked_then_its_receipt_and_state_proofs_hold(tmp_path: Path) -> None:
    network = Network(tmp_path)
    nodes = await network.start_chain(1)
    tx, refused = network.transaction("ann", 1), network.transaction("ann", 2, kind="no", fields=[])
    await nodes[0].submit(tx)
    await nodes[0].submit(refused)
    await until(lambda: all(node.ledger.next_nonce(key("ann").public) == 3 for node in nodes))
    light = LightClient(network.genesis, network.network)
    from watt_chain.transaction import txid

    for node in nodes:
        proof = node.receipt_proof(txid(tx))
        assert proof is not None
        assert light.check_receipt(decode(proof, ReceiptProof), tx) == ""
        proof = node.receipt_proof(txid(refused))
        assert proof is not None
        assert light.check_receipt(decode(proof, ReceiptProof), refused) == "no-such-kind"
        state = node.state_proof([b"key/ann", b"absent"])
        assert state is not None
        assert light.check_state(decode(state, StateProof), 1) == {b"key/ann": b"1"}
    assert await nodes[1].submit(tx) == "final"
    await network.close()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda network: b"\x93rubbish", "undecodable"),
        (lambda network: network.transaction("ann", 1, chain=2), "chain"),
        (lambda network: network.transaction("ann", 1)[:-1] + b"\x01", "signature"),
        (lambda network: network.transaction("ann", 5000), "nonce-far"),
        (lambda network: b"x" * (2 << 20), "undecodable"),
    ],
)
async def test_given_a_wrong_transaction_when_submitted_then_it_is_refused_and_counted(
    tmp_path: Path, make: object, reason: str
) -> None:
    network = Network(tmp_path, areas=(1,))
    node = await network.start(1, 0)
    assert await node.submit(make(network)) == reason  # type: ignore[operator]
    assert node.status()["refused"] == {reason: 1}
    assert node.height() == 0
    await network.close()


async def test_given_a_killed_node_when_it_restarts_then_it_catches_up_and_takes_part_again(tmp_path: Path) -> None:
    network = Network(tmp_path)
    nodes = await network.start_chain(1)
    await nodes[0].submit(network.transaction("ann", 1))
    await until(lambda: heights(network) == {1})
    await network.stop(1, 3)
    for nonce in range(2, 5):
        await nodes[0].submit(network.transaction("ann", nonce))
        await until(lambda nonce=nonce: min(heights(network)) >= nonce)  # type: ignore[misc]
    again = await network.start(1, 3)
    assert again.height() == 1
    await until(lambda: len(heights(network)) == 1 and again.height() >= 4)
    await network.stop(1, 1)  # without node 3's votes there is no quorum now
    await again.submit(network.transaction("ann", 5))
    await until(lambda: min(heights(network)) >= 5)
    assert len({node.ledger.head.block_hash for node in network.nodes.values()}) == 1
    await network.close()
    assert not network.failures


async def test_given_all_nodes_stopped_when_they_restart_then_the_ledger_continues(tmp_path: Path) -> None:
    network = Network(tmp_path)
    nodes = await network.start_chain(1)
    await nodes[0].submit(network.transaction("ann", 1))
    await until(lambda: heights(network) == {1})
    head = nodes[0].ledger.head.block_hash
    await network.close()
    nodes = await network.start_chain(1)
    assert {node.ledger.head.block_hash for node in nodes} == {head}
    await nodes[1].submit(network.transaction("ann", 2))
    await until(lambda: heights(network) == {2})
    await network.close()


async def test_given_two_endpoints_when_the_followed_node_stops_then_the_stream_goes_on_at_the_other(
    tmp_path: Path,
) -> None:
    network = Network(tmp_path)
    nodes = await network.start_chain(1)
    remote = _remote(network, [0, 1])
    seen: list[int] = []

    def check(block: bytes) -> str:
        height = decode_certified(block)[2].height
        return "" if height == len(seen) + 1 else "gap"

    async def follow() -> None:
        async for block in remote.follow(1, check):
            seen.append(decode_certified(block)[2].height)

    task = asyncio.ensure_future(follow())
    await nodes[2].submit(network.transaction("ann", 1))
    await until(lambda: seen == [1])
    first = remote.connected
    await network.stop(1, int(first[-1]))
    await nodes[2].submit(network.transaction("ann", 2))
    await until(lambda: seen == [1, 2])
    assert remote.connected not in ("", first)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await network.close()


async def test_given_a_wrong_block_when_followed_then_the_end_is_left_and_nothing_is_yielded(tmp_path: Path) -> None:
    network = Network(tmp_path)
    nodes = await network.start_chain(1)
    await nodes[2].submit(network.transaction("ann", 1))
    await until(lambda: heights(network) == {1})
    remote = _remote(network, [0, 1])
    asked: list[str] = []

    def check(block: bytes) -> str:
        asked.append(remote.connected)
        return "" if len(asked) == 3 else "wrong"

    async with asyncio.timeout(20):
        async for _ in remote.follow(1, check):
            break
    assert len(set(asked)) == 2
    await network.close()


async def test_given_out_messages_when_asked_from_a_sequence_then_proven_batches_arrive_and_new_ones_follow(
    tmp_path: Path,
) -> None:
    network = Network(tmp_path)
    nodes = await network.start_chain(1)
    await nodes[0].submit(network.transaction("ann", 1, kind="tell", fields=[0, "Told", b"one"]))
    await until(lambda: heights(network) == {1})
    remote = _remote(network, [3])
    light = LightClient(network.genesis, network.network)
    bodies: list[bytes] = []

    def check(batch: bytes) -> str:
        header, certificate, size, entries = decode(batch, list)
        bodies.extend(m.body for m in light.check_messages(1, header, certificate, size, entries))
        return ""

    async def collect() -> None:
        async for _ in remote.messages(0, lambda: 1, check):
            pass

    task = asyncio.ensure_future(collect())
    await until(lambda: bodies == [b"one"])
    for nonce in range(2, 72):  # more than one batch may hold
        await nodes[0].submit(network.transaction("ann", nonce, kind="tell", fields=[0, "Told", b"%d" % nonce]))
    await until(lambda: len(bodies) == 71)
    assert bodies[1:] == [b"%d" % nonce for nonce in range(2, 72)]
    assert nodes[1].messages(0, 72) == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await network.close()


async def test_given_a_node_that_restarted_when_asked_for_messages_then_those_of_old_blocks_are_there(
    tmp_path: Path,
) -> None:
    network = Network(tmp_path, areas=(1,))
    node = await network.start(1, 0)
    for nonce in (1, 2):
        await node.submit(network.transaction("ann", nonce, kind="tell", fields=[0, "Told", b"%d" % nonce]))
        await until(lambda nonce=nonce: node.height() == nonce)  # type: ignore[misc]
    before = node.messages(0, 1)
    await network.stop(1, 0)
    again = await network.start(1, 0)
    assert [last for last, _ in before] == [1, 2]
    assert again.messages(0, 1) == before
    assert again.messages(0, 2) == before[1:]
    await network.close()


async def test_given_another_daemon_when_it_submits_over_tls_then_it_gets_the_answer(tmp_path: Path) -> None:
    network = Network(tmp_path)
    await network.start_chain(1)
    remote = _remote(network, [0, 1])
    assert await remote.submit(network.transaction("ann", 1)) == ""
    assert await remote.submit(b"rubbish") == "undecodable"
    await until(lambda: heights(network) == {1})
    remote.close()
    await network.close()
    assert await remote.submit(network.transaction("ann", 2)) == "unreachable"


async def test_given_the_validator_key_when_it_submits_several_then_their_nonces_follow_each_other(
    tmp_path: Path,
) -> None:
    network = Network(tmp_path)
    nodes = await network.start_chain(1)
    for value in range(3):
        assert await nodes[1].submit_own("put", [b"own", b"%d" % value]) == ""
    assert nodes[1].own_pending() == 3
    await until(lambda: all(node.ledger.state.get(b"own") == b"2" for node in nodes))
    await until(lambda: nodes[1].own_pending() == 0)
    await network.close()


async def test_given_a_disk_that_refuses_when_a_vote_is_due_then_nothing_is_sent_and_the_node_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(tmp_path)
    leader = (await network.start_chain(1))[1]  # leads height 1
    for index in (0, 2, 3):
        await network.stop(1, index)
    sent: list[int] = []
    monkeypatch.setattr(leader.peers, "send", lambda index, frame: sent.append(index))
    monkeypatch.setattr(
        "watt_node.disk.os.fdatasync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    assert await leader.submit(network.transaction("ann", 1), shared=True) == ""
    await until(lambda: len(network.failures) == 1)
    assert isinstance(network.failures[0], StoreError)
    assert "No space left" in str(network.failures[0])
    assert sent == []
    assert await leader.submit(network.transaction("ann", 2)) == "stopping"
    monkeypatch.undo()
    await network.close()


async def test_given_a_vote_that_was_stored_when_the_node_restarts_then_it_does_not_sign_another_block(
    tmp_path: Path,
) -> None:
    network = Network(tmp_path)
    leader = (await network.start_chain(1))[1]
    for index in (0, 2, 3):
        await network.stop(1, index)
    size = (tmp_path / "area1-node1.data" / "votes.log").stat().st_size
    await leader.submit(network.transaction("ann", 1))
    await until(lambda: (tmp_path / "area1-node1.data" / "votes.log").stat().st_size > size + 200)
    proposed = leader.status()["replica"]
    await network.stop(1, 1)
    again = await network.start(1, 1)
    assert again.status()["replica"]["phase"] == proposed["phase"] != "idle"  # type: ignore[index]
    for index in (0, 2):
        await network.start(1, index)
    await again.submit(network.transaction("bob", 1))
    await until(lambda: all(node.height() >= 2 for node in network.nodes.values()))
    assert all(not node.status()["replica"]["evidence"] for node in network.nodes.values())  # type: ignore[index]
    first = decode_certified(again.block(1) or b"")[1]
    assert first.transactions == [network.transaction("ann", 1)]
    await network.close()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"chain": 7}, "node.chain = 7: allowed is one of 0, 1 (genesis)"),
        ({"index": 9}, "node.index = 9: allowed is 0..3"),
        ({"index": 1}, "not the key that genesis names for area1 validator 1"),
        ({"batch_ms": 900}, "node.batch_ms = 900: allowed is at most half"),
    ],
)
def test_given_settings_that_do_not_fit_genesis_when_a_node_is_made_then_the_line_says_what_is_allowed(
    tmp_path: Path, change: dict[str, int], text: str
) -> None:
    import dataclasses

    import msgspec
    from node_bench import Toy

    network = Network(tmp_path)
    settings = network.settings(1, 0)
    settings = dataclasses.replace(settings, node=msgspec.structs.replace(settings.node, **change))
    with pytest.raises(ConfigError, match=text.replace("(", r"\(").replace(")", r"\)")):
        Node(settings, Toy(), network.clock, Log("t"))


def test_given_a_genesis_of_another_regulator_when_a_node_is_made_then_it_is_refused(tmp_path: Path) -> None:
    from node_bench import Toy

    network = Network(tmp_path)
    network.regulator = key("somebody").public.hex()
    with pytest.raises(ConfigError, match="another regulator"):
        Node(network.settings(1, 0), Toy(), network.clock, Log("t"))


def _remote(network: Network, indexes: list[int]) -> Remote:
    context = tls_context(network.tls("main-node0"), server=False)
    endpoints = [
        EndpointSection(chain=1, index=index, host="127.0.0.1", port=network.port(1, index)) for index in indexes
    ]
    return Remote(endpoints, context, "main-node0", network.network, Log("remote", "debug", network.log))
