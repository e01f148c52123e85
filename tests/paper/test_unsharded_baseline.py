"""What sharding saves: the same load on one chain where everybody hears everything, and on one chain per area."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "chain"))

from chain_world import World, make_tx

AREAS, NODES, TXS = 3, 4, 12


def traffic(n: int, txs: int, seed: int) -> tuple[int, int, int]:
    """(frames, bytes sent, bytes stored by all nodes) until `txs` transactions are final at every one of n nodes."""
    world = World(n, seed)
    frames = sent = 0

    def count(sender: int, receiver: int, frame: bytes) -> bytes:
        nonlocal frames, sent
        frames += 1
        sent += len(frame)
        return frame

    world.tamper = count
    for number in range(txs):
        world.submit(make_tx(world.keys[0], world.network, number + 1), to=number % n)
        height = number + 1
        assert world.run(60_000, lambda height=height: min(world.height(i) for i in range(n)) >= height)
    stored = sum(len(block) for disk in world.disks for block in disk.blocks)
    return frames, sent, stored


@pytest.mark.row("B24", "B35", "B36")
def test_one_chain_of_all_nodes_costs_more_of_everything_than_one_per_area() -> None:
    whole = traffic(AREAS * NODES, TXS, seed=1)
    parts = [traffic(NODES, TXS // AREAS, seed=2 + area) for area in range(AREAS)]
    shards = [sum(figures) for figures in zip(*parts, strict=True)]
    # A block costs each chain about 2 n (n - 1) votes: one chain of 12 needs 264, a chain of 4 needs 24.
    assert whole[0] > 6 * shards[0]
    assert whole[1] > 4 * shards[1]
    assert whole[2] > 2 * shards[2], "every node stores everything"
