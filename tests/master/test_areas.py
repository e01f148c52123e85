"""Area replicas, anchoring duty and links, against a fake transport (`FakeStations`: lists of certified blocks)."""

import asyncio
from typing import Any

import pytest
from watt_chain import codec
from watt_chain.block import Certificate, CertifiedBlock, VoteSignature, block_hash, decode_certified, vote_bytes
from watt_chain.contract import AreaContract
from watt_chain.contract.cross_kinds import Refute
from watt_market.engine import Market
from watt_master.archive import Archive
from watt_master.areas import ANCHORS_IN_FLIGHT, ANSWER_MS, STANDBY_MS, Anchoring, AreaHalted, AreaReplica
from watt_master.desk import Outgoing
from watt_master.links import Link, verdict


@pytest.fixture
def stations(world: Any) -> list[bytes]:
    """FakeStations: the certified blocks of area 1 after a while, as honest stations would send them."""
    world.run(world.genesis.protocol_start_s + 4500)
    blocks = [certified for certified, _ in world.chains[1].applied]
    assert len(blocks) > 5
    return blocks


@pytest.fixture
def replica(world: Any, tmp_path: Any) -> AreaReplica:
    archive = Archive(tmp_path / "other.sqlite", world.network)
    return AreaReplica(world.genesis, 1, AreaContract(Market()), archive, lambda: 0)


@pytest.mark.row("B16", "H24")
def test_given_honest_blocks_when_followed_then_state_and_archive_agree_with_the_area(
    world: Any, stations: list[bytes], replica: AreaReplica
) -> None:
    assert [replica.check(block) for block in stations] == [""] * len(stations)
    assert replica.ledger.state.root() == world.chains[1].ledger.state.root()
    assert list(replica._sink.blocks(1)) == stations  # type: ignore[attr-defined]
    assert len(replica.waiting) == len(stations)


def test_given_a_station_that_lies_when_its_block_comes_then_it_is_refused_and_the_next_station_is_heard(
    stations: list[bytes], replica: AreaReplica
) -> None:
    parts, block, _, certificate = decode_certified(stations[0])
    votes = [VoteSignature(vote.index, bytes(64)) for vote in certificate.votes]
    unsigned = codec.encode(CertifiedBlock(parts.block, codec.encode(Certificate(certificate.view, votes))))
    emptied = codec.encode(CertifiedBlock(codec.encode([block.header, block.transactions[:-1]]), parts.certificate))
    assert replica.check(unsigned) == "certificate-signature"
    assert replica.check(emptied) == "tx-root"
    assert replica.check(stations[1]).startswith("expected height 1")
    assert replica.check(b"\x00garbage") != ""
    assert replica.height == 0 and not replica.halted and sum(replica.refused.values()) == 4
    assert replica.check(stations[0]) == ""
    assert replica.height == 1


@pytest.mark.row("B17")
def test_given_a_quorum_that_certifies_a_false_state_when_followed_then_the_area_is_halted_and_refuted(
    world: Any, stations: list[bytes], replica: AreaReplica
) -> None:
    """All validators of the area sign a header whose state root is not what the block executes to."""
    replica.check(stations[0])
    _, block, header, certificate = decode_certified(stations[1])
    import msgspec

    forged = codec.encode(msgspec.structs.replace(header, state_root=bytes(32)))
    hash_ = block_hash(world.network, forged)
    message = vote_bytes(world.network, "commit", 1, header.height, certificate.view, hash_)
    votes = [VoteSignature(vote.index, world.chains[1].keys[vote.index].sign(message)) for vote in certificate.votes]
    bad = codec.encode(
        CertifiedBlock(codec.encode([forged, block.transactions]), codec.encode(Certificate(certificate.view, votes)))
    )
    with pytest.raises(AreaHalted, match="height 2"):
        replica.check(bad)
    assert replica.height == 1 and "state-root" in replica.halted
    with pytest.raises(AreaHalted):
        replica.check(stations[1])
    duty = Anchoring(1, 4)
    assert [block.height for block in duty.due(replica, 0, 10**6)] == [1], "what came before it is sound"
    assert duty.refutes(replica, 0, 10**6) is None
    assert duty.refutes(replica, 1, 10**6) == Refute(forged, decode_certified(bad)[0].certificate)
    assert duty.refutes(replica, 1, 10**6 + ANSWER_MS - 1) is None
    assert duty.refutes(replica, 1, 10**6 + ANSWER_MS) is not None
    assert replica.status()["halted"]


def test_given_a_restart_when_the_archive_is_replayed_then_the_replica_continues_at_the_same_state(
    world: Any, stations: list[bytes], replica: AreaReplica
) -> None:
    for block in stations[:4]:
        replica.check(block)
    again = AreaReplica(world.genesis, 1, AreaContract(Market()), replica._sink, lambda: 0)
    for block in replica._sink.blocks(1):  # type: ignore[attr-defined]
        again.restore(block)
    assert again.height == 4 and again.ledger.head.block_hash == replica.ledger.head.block_hash
    assert [again.check(block) for block in stations[4:]] == [""] * (len(stations) - 4)


def test_given_four_masters_when_blocks_wait_then_one_is_on_duty_and_the_others_stand_by_in_order(
    stations: list[bytes], replica: AreaReplica
) -> None:
    for block in stations:
        replica.check(block)
    masters = [Anchoring(index, 4) for index in range(4)]
    assert [one.rank(1) for one in masters] == [3, 0, 1, 2]
    assert sorted(one.rank(2) for one in masters) == [0, 1, 2, 3]
    heights = list(range(1, min(len(stations), ANCHORS_IN_FLIGHT) + 1))
    assert [block.height for block in masters[1].due(replica, 0, 0)] == heights
    assert masters[1].due(replica, 0, 100) == []  # under way
    assert masters[2].due(replica, 0, STANDBY_MS - 1) == []
    assert [block.height for block in masters[2].due(replica, 0, STANDBY_MS)] == heights
    assert [block.height for block in masters[1].due(replica, 0, ANSWER_MS)] == heights
    assert [block.height for block in masters[0].due(replica, 3, 10 * STANDBY_MS)] == heights[3:]
    masters[0].failed(1, 5)
    assert [block.height for block in masters[0].due(replica, 3, 10 * STANDBY_MS)] == [5]


class FakeDoor:
    """A station that answers what the test says."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.taken: list[bytes] = []

    async def submit(self, tx: bytes) -> str:
        self.taken.append(tx)
        return self.answer


def test_given_two_stations_when_transactions_are_sent_then_both_get_each_in_order_and_once() -> None:
    async def run() -> None:
        refused: list[str] = []
        doors = [FakeDoor("pool-full"), FakeDoor("")]
        link = Link(doors, lambda sent, reason: refused.append(reason))
        work = asyncio.ensure_future(link.run())
        for number in (1, 2, 2, 3):
            link.put(Outgoing(1, bytes([number]), bytes([number]) * 32, "Qualify", "event 1"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert doors[0].taken == doors[1].taken == [b"\x01", b"\x02", b"\x03"]
        assert refused == []
        doors[1].answer = "nonce-used"
        link.put(Outgoing(1, b"\x04", bytes(32), "Qualify", "event 1"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert refused == ["pool-full"]
        work.cancel()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["", "unreachable"], ""),
        (["signature", "duplicate"], ""),
        (["unreachable", "signature"], "signature"),
        (["unreachable", "unreachable"], "unreachable"),
        (["final"], ""),
    ],
)
def test_given_answers_of_several_stations_when_judged_then_one_that_took_it_is_enough(
    answers: list[str], expected: str
) -> None:
    assert verdict(answers) == expected
