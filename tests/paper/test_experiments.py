"""The paper's experiments on small cells: what its section 6 says is looked for in the harness that measures it.

No test asserts a time of this machine: what is compared ran on one virtual clock with delays of 5 ms.
"""

import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from experiment import FIVE_MS, Kind, Stage, checks, ms, run
from watt_chain import codec, crypto
from watt_chain.crypto import id8
from watt_tools import scenario
from watt_tools.paper import plan, reported, stats
from watt_tools.paper.book import account_key
from watt_tools.paper.cell import Cell, Run
from watt_tools.paper.certified import MAIN, Anchored
from watt_tools.paper.crossnode import JointNode
from watt_tools.paper.network import MASTERS
from watt_tools.paper.relay import Master
from watt_tools.paper.virtual import Signatures


@pytest.mark.row("M1", "M13", "M16", "M36", "M44")
@pytest.mark.parametrize("n", [2, 4])
def test_partial_sharding_is_faster_than_full_sharding(n: int) -> None:
    assert ms("paper", 2, n) < ms("full-par", 2, n) < ms("full-seq", 2, n)


@pytest.mark.row("M2", "M3", "M42", "M15", "M22")
def test_the_sweep_has_every_cell_of_table_1() -> None:
    cells = plan.cells("sweep")
    for mode in ("full-seq", "full-par", "paper", "ours"):
        found = {(cell.s, cell.n) for cell in cells if cell.mode == mode and cell.delay_us == FIVE_MS}
        assert found == {(s, n) for s in range(2, 11) for n in range(2, 6)}
    assert {cell.delay_us for cell in cells} == {0, 1000, 5000, 20000}
    assert min(cell.repetitions for cell in cells) >= 30
    single = {(cell.s, cell.n) for cell in plan.cells("single") if cell.mode == "paper" and cell.delay_us == FIVE_MS}
    assert single >= {(s, n) for s in (2, 3, 4, 5) for n in (2, 3, 4)} | {(2, 5)}


@pytest.mark.row("M23", "M54", "M43")
def test_full_rises_with_the_shards_and_partial_is_stable() -> None:
    shards = (2, 3, 5)
    full = [ms("full-seq", s, 2, "single") for s in shards]
    partial = [ms("paper", s, 2, "single") for s in shards]
    assert full == sorted(full) and full[-1] > 2 * full[0]
    mean = statistics.mean(partial)
    assert max(abs(one - mean) for one in partial) < 0.25 * mean


@pytest.mark.row("M55", "H29")
def test_the_gap_grows_with_the_shards_of_a_trade() -> None:
    ratios = [ms("paper", s, 2, "single") / ms("full-seq", s, 2, "single") for s in (2, 3, 5)]
    assert ratios == sorted(ratios, reverse=True) and ratios[-1] < 0.6 * ratios[0]


@pytest.mark.row("M17", "M51", "M56")
def test_a_larger_area_needs_more_messages_and_more_work_for_a_consensus() -> None:
    for mode in ("full-seq", "paper"):
        small, large = run(mode, 2, 2)[0], run(mode, 2, 5)[0]
        assert large.messages > 2 * small.messages, "2 n (n - 1) votes an instance"
        assert checks(mode, 2, 5) > 2 * checks(mode, 2, 2), "and a signature on each"


@pytest.mark.row("M35")
def test_partial_rises_only_slightly_with_the_nodes_of_an_area() -> None:
    assert ms("paper", 2, 5) < 1.25 * ms("paper", 2, 2)


@pytest.mark.row("M57", "H29")
def test_more_shards_cost_full_sharding_more_consensus_and_more_communication() -> None:
    few, many = run("full-seq", 2, 2)[0], run("full-seq", 5, 2)[0]
    assert many.messages > 2 * few.messages and many.bytes > 2 * few.bytes
    assert checks("full-seq", 5, 2) > 2 * checks("full-seq", 2, 2)


@pytest.mark.row("M24", "H4", "M58")
def test_partial_sharding_holds_one_consensus_and_full_sharding_two_in_every_area() -> None:
    for mode, heights in (("paper", 0), ("full-par", 2)):
        stage = Stage(mode, 3, 2)
        stage.start(0)
        assert stage.over(0)
        stage.wait(200)
        assert {node.member.ledger.head.height for area in (1, 2, 3) for node in stage.nodes(area)} == {heights}
        if mode == "paper":
            seats = [
                node for area in (1, 2, 3) for node in stage.nodes(area) if isinstance(node, JointNode) and node.joint
            ]
            assert [node.joint.ledger.head.height for node in seats if node.joint] == [1, 1, 1]


@pytest.mark.row("F14", "H3")
def test_a_cross_node_judges_by_its_own_copies_and_asks_no_area() -> None:
    stage = Stage("paper", 3, 3)
    stage.watch()
    stage.start(0)
    assert stage.over(0)
    said = {(Kind(kind), phase) for _, _, kind, phase in stage.said()}
    agreement = {(Kind.JOINT_FRAME, phase) for phase in ("pre-prepare", "prepare", "commit")}
    assert said == {(Kind.JOINT_SUBMIT, ""), (Kind.DECISION, ""), *agreement}, "no area is asked anything"


@pytest.mark.row("H1", "H2", "M14", "D7", "D13")
def test_full_sharding_has_normal_nodes_only_and_its_ledgers_are_disjoint() -> None:
    stage = Stage("full-par", 3, 3)
    stage.start(0)
    assert stage.over(0)
    seen: dict[bytes, int] = {}
    for area in (1, 2, 3):
        for node in stage.nodes(area):
            assert node.member.ledger.chain == area and not isinstance(node, JointNode)
            for height in range(1, node.member.ledger.head.height + 1):
                certified = node.member.ledger.certified(height)
                assert certified is not None and seen.setdefault(certified, area) == area
    assert {seen[block] for block in seen} == {1, 2, 3}


@pytest.mark.row("F14", "H30", "D9", "D10", "D11", "M34")
def test_a_cross_node_of_the_papers_mode_has_every_account_and_every_trade_of_all_areas() -> None:
    stage = Stage("paper", 3, 4)
    numbers = range(3)
    for number in numbers:
        stage.start(number)
    assert stage.over(*numbers)
    stage.wait(200)
    everybody = sum(len(stage.network.parties(area)) for area in (1, 2, 3))
    for area in (1, 2, 3):
        for index, node in enumerate(stage.nodes(area)):
            assert isinstance(node, JointNode)
            assert (node.joint is not None) == (index in stage.network.crossers[area])
            if node.joint is not None:
                state = node.joint.ledger.state
                assert len(state.keys(b"account/")) == everybody and len(state.keys(b"trade/")) == len(numbers)


@pytest.mark.row("D8", "H23")
def test_a_normal_node_appends_what_concerns_its_area_without_a_vote() -> None:
    stage = Stage("paper", 3, 4)
    stage.watch()
    stage.start(0)
    assert stage.over(0)
    stage.wait(100)
    for area in (1, 2, 3):
        for node in stage.nodes(area):
            assert isinstance(node, JointNode) and node.decided == 1
            if node.joint is None:
                assert node.appendix.height == 1 and node.member.ledger.head.height == 0
                assert node.address not in {sender for sender, _, _, _ in stage.said()}


@pytest.mark.row("K12")
def test_accounts_that_trade_points_stand_on_the_chain_of_their_area_and_on_no_other() -> None:
    """'The blockchain accounts participating in the power points transaction are distributed in different shards
    according to the station area they are located in'"""
    stage = Stage("full-par", 3, 3)
    homes = {area: {account_key(id8(one.public)) for one in stage.network.parties(area)} for area in (1, 2, 3)}
    before = {area: stage.totals(area) for area in homes}
    stage.start(0)
    assert stage.over(0)
    for area, keys in homes.items():
        for node in stage.nodes(area):
            assert {
                key for key in node.member.ledger.state.keys(b"account/") if key in set().union(*homes.values())
            } == keys
    stage.wait(200)
    after = {area: stage.totals(area) for area in homes}
    moved = {area: after[area][1] - before[area][1] for area in homes}
    assert moved[1] > 0 and moved[2] < 0 and moved[3] < 0 and sum(moved.values()) == 0  # bought in 1, sold in 2 and 3


@pytest.mark.row("M7", "M8")
def test_trades_are_real_transactions_and_both_costs_are_measured() -> None:
    stage = Stage("full-par", 2, 2)
    stage.watch()
    stage.start(0)
    assert stage.over(0)
    submitted = {payload for _, _, kind, payload in stage.frames if kind == Kind.SUBMIT}
    assert len(submitted) == 4, "one signed transaction per area and phase"
    ledgers = [stage.node(area, 0).member.ledger for area in (1, 2)]
    stored = b"".join(ledger.certified(height) or b"" for ledger in ledgers for height in (1, 2))
    assert all(tx in stored for tx in submitted)
    found = run("full-par", 2, 2)[0]
    assert found.time_us > 0 and found.nodes_us > 0 and found.bytes > 0


@pytest.mark.row("M18", "M19", "M20", "M21", "M25", "M26", "M27", "M28", "M30", "M31", "M32")
def test_every_reported_ratio_is_known_and_has_its_cell() -> None:
    ppm = [one.ppm for one in (*reported.TIME_RATIOS, *reported.STORAGE_RATIOS)]
    assert ppm == [543_000, 519_000, 543_000, 755_000, 475_000, 287_000, 166_000, 171_000, 500_000, 335_000, 250_000]
    measured = {(cell.mode, cell.s, cell.n) for cell in plan.cells("single") if cell.load == "single"}
    for one in reported.TIME_RATIOS:
        assert {("paper", one.s, one.n), ("full-seq", one.s, one.n), ("full-par", one.s, one.n)} <= measured


@pytest.mark.row("M37", "H15", "H24")
def test_a_trade_spreads_to_both_areas_and_to_every_master() -> None:
    stage = Stage("ours", 2, 4)
    stage.start(0)
    assert stage.over(0)
    stage.wait(500)
    heights = {node.member.ledger.head.height for area in (1, 2) for node in stage.nodes(area)}
    assert heights == {2}, "lock and outcome in one area, acceptance and outcome in the other"
    for index in range(MASTERS):
        master = stage.world.machines[stage.network.address(MAIN, index)].actor
        assert isinstance(master, Master)
        for area in (1, 2):
            value = master.member.ledger.state.get(b"anchor/%d" % area)
            assert value is not None and codec.decode(value, Anchored).height == 2
            assert master.executed(area) == stage.node(area, 0).member.ledger.head.block_hash


@pytest.mark.row("M45")
def test_the_demos_evening_has_a_high_and_short_peak_and_the_event_covers_it() -> None:
    evening = scenario.build(60, 2)
    load_w = [sum(home.watts[at] for home in evening.homes) for at in range(len(evening.homes[0].watts))]
    steps = evening.spec.slot_s // evening.step_s
    slots = [statistics.mean(load_w[at : at + steps]) for at in range(0, len(load_w), steps)]
    high = [slot for slot, load in enumerate(slots) if load > 0.8 * max(slots)]
    first = (evening.spec.window_start_s - evening.start_s) // evening.spec.slot_s
    assert max(slots) > 1.7 * statistics.mean(slots)
    assert len(high) <= 6 and set(high) <= set(range(first, first + evening.spec.slots))


def test_the_interval_of_thirty_values_is_the_tenth_and_the_twenty_first() -> None:
    assert stats.interval(list(range(1, 31))) == (10.0, 21.0)
    assert stats.interval([5.0]) == (5.0, 5.0)
    low, high = stats.ratio_interval([1, 2, 3] * 10, [4, 5, 6] * 10)
    assert 0.2 < low <= 0.4 <= high < 0.7


def test_looked_up_signature_checks_are_charged_what_a_check_costs() -> None:
    key = crypto.PrivateKey.from_bytes(crypto.sha256(b"key"))
    signatures = Signatures()
    signature = key.sign(b"message")
    assert signatures.verify(key.public, b"message", signature) and signatures.take_owed_ns() == 0, "done, so measured"
    assert all(signatures.verify(key.public, b"message", signature) for _ in range(10))
    unit_ns, rest = divmod(signatures.take_owed_ns(), 10)
    assert rest == 0 and unit_ns > 10_000 and signatures.looked_up == 10
    assert not signatures.verify(key.public, b"massage", signature)
    assert not signatures.verify(key.public, b"massage", signature), "a bad one stays bad"
    every = Signatures(every=True)
    assert all(every.verify(key.public, b"message", signature) for _ in range(3))
    assert every.looked_up == 0 and every.take_owed_ns() == 0


def test_the_sample_with_every_check_done_makes_as_many_checks() -> None:
    looked_up, done = (Run(Cell("full-par", 2, 4, FIVE_MS, load, repetitions=1)) for load in ("burst", "burst-checked"))
    for one in (looked_up, done):
        one.repetitions()
    assert done.signatures.looked_up == 0 < looked_up.signatures.looked_up
    assert abs(done.signatures.checks - looked_up.signatures.checks) < 0.05 * done.signatures.checks
