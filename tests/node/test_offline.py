"""A chain taken out of a folder and put into another, and a doubt ended by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_bench import Network, Toy, until
from watt_node.byhand import accept_disk, log_of, take_in, take_out
from watt_node.disk import StoreError
from watt_node.offline import ChainFileError, StoppedNode, read_chain, write_chain
from watt_node.vault import ARCHIVE, Keeping

HEIGHT = 7
KEEPING = Keeping(ARCHIVE, snapshot_blocks=3, segment_blocks=2)


async def grown(network: Network, height: int = HEIGHT) -> Path:
    """Folder of a validator that runs, at least at a height."""
    nodes = await network.start_chain(1)
    for nonce in range(1, height + 1):
        await nodes[0].submit(network.transaction("ann", nonce))
        await until(lambda nonce=nonce: nodes[0].height() >= nonce)  # type: ignore[misc]
    return nodes[0].data


def stopped(network: Network, folder: Path, keeping: Keeping = KEEPING) -> StoppedNode:
    return StoppedNode(folder, network.genesis, network.network, 1, Toy(), keeping)


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path)


async def test_given_a_running_node_when_exported_and_imported_then_the_new_folder_has_chain_and_state(
    network: Network, tmp_path: Path
) -> None:
    data = await grown(network)
    path = tmp_path / "chain.blocks"
    text = take_out(log_of(data), path, 1)  # the node runs on meanwhile
    root, height = network.nodes[1, 0].ledger.state.root(), network.nodes[1, 0].height()
    assert text == f"{path}: {height} blocks, heights 1 to {height}"
    node = stopped(network, tmp_path / "fresh")
    assert take_in(path, node, network.network) == f"{path}: {height} blocks; height {height}"
    assert node.ledger.state.root() == root
    assert take_in(path, node, network.network) == f"{path}: nothing new; height {height}"
    node.close()
    again = stopped(network, tmp_path / "fresh")  # the snapshots that were made on the way are used
    assert again.height == height and again.ledger.state.root() == root
    assert [again.block(at) for at in range(1, height + 1)] == list(read_chain(path))
    again.close()
    await network.close()
    assert not network.failures


async def test_given_a_new_folder_filled_by_an_import_when_the_node_starts_then_it_takes_part_again(
    network: Network, tmp_path: Path
) -> None:
    data = await grown(network)
    take_out(log_of(data), tmp_path / "chain.blocks", 1)
    await network.stop(1, 3)
    folder = network.settings(1, 3).node.data
    folder.rename(tmp_path / "lost")
    node = stopped(network, folder, Keeping())
    take_in(tmp_path / "chain.blocks", node, network.network)
    height = node.height
    node.close()
    again = await network.start(1, 3)
    assert again.height() == height
    assert again.status()["replica"]["doubt"] == "missing"  # type: ignore[index]  # its votes are not in a chain
    await until(lambda: again.status()["replica"]["doubt"] == "")  # type: ignore[index]
    await network.close()
    assert not network.failures


async def test_given_a_node_that_runs_when_something_is_put_in_then_it_is_refused(
    network: Network, tmp_path: Path
) -> None:
    data = await grown(network, 1)
    with pytest.raises(StoreError, match="in use by another process"):
        stopped(network, data)
    await network.close()


@pytest.fixture
def blocks(network: Network) -> list[bytes]:
    async def made() -> list[bytes]:
        found = list(log_of(await grown(network)))
        await network.close()
        return found

    return asyncio.run(made())


def written(path: Path, blocks: list[bytes]) -> Path:
    for _ in write_chain(path, blocks):
        pass
    return path


@pytest.fixture
def node(network: Network, tmp_path: Path) -> Iterator[StoppedNode]:
    node = stopped(network, tmp_path / "fresh")
    yield node
    node.close()


def test_given_a_cut_or_foreign_file_when_put_in_then_what_came_before_is_kept_and_the_place_named(
    network: Network, blocks: list[bytes], node: StoppedNode, tmp_path: Path
) -> None:
    path = written(tmp_path / "chain.blocks", blocks)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(ChainFileError, match="cut at byte"):
        take_in(path, node, network.network)
    assert node.height == len(blocks) - 1
    path.write_bytes(whole + b"\xff\xff\xff\xff?")
    with pytest.raises(ChainFileError, match=f"byte {len(whole)} is not the length of a block"):
        take_in(path, node, network.network)
    assert node.height == len(blocks)
    path.write_bytes(b"\x00\x00\x00\x05hello")
    with pytest.raises(ChainFileError, match="is no block"):
        take_in(path, node, network.network)


def test_given_a_changed_or_later_block_when_put_in_then_it_is_refused_by_its_height(
    network: Network, blocks: list[bytes], node: StoppedNode, tmp_path: Path
) -> None:
    path = tmp_path / "chain.blocks"
    with pytest.raises(ChainFileError, match="begins at height 3; the next one here is 1"):
        take_in(written(path, blocks[2:]), node, network.network)
    forged = blocks[1][:-1] + bytes([blocks[1][-1] ^ 1])
    with pytest.raises(ChainFileError, match="block 2 is refused: certificate-signature"):
        take_in(written(path, [blocks[0], forged]), node, network.network)
    assert node.height == 1


async def test_given_blocks_of_another_network_when_put_in_then_the_first_that_differs_is_named(
    network: Network, blocks: list[bytes], node: StoppedNode, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Network(tmp_path / "other", areas=(4, 1))
    theirs = list(log_of(await grown(other, 2)))
    await other.close()
    path = tmp_path / "chain.blocks"
    take_in(written(path, blocks), node, network.network)
    with pytest.raises(ChainFileError, match=r"block 1 is [0-9a-f]{16}, the one here is"):
        take_in(written(path, theirs), node, network.network)


def test_given_a_later_height_when_exported_then_only_from_there_and_none_is_an_error(
    blocks: list[bytes], tmp_path: Path
) -> None:
    out = tmp_path / "part.blocks"
    assert take_out(iter(blocks), out, 5) == f"{out}: {len(blocks) - 4} blocks, heights 5 to {len(blocks)}"
    assert list(read_chain(out)) == blocks[4:]
    text = take_out(iter(blocks[3:]), out, 1)
    assert text.endswith(f"heights 4 to {len(blocks)}; those before height 4 are not kept here")
    with pytest.raises(ChainFileError, match="no block from height 99 on is kept"):
        take_out(iter(blocks), out, 99)
    assert not out.exists()
    with pytest.raises(ChainFileError, match="height 6 came after 4"):
        take_out(iter([*blocks[:4], *blocks[5:]]), out, 1)
    assert not out.exists()


async def test_given_all_machines_moved_at_once_when_each_disk_is_accepted_then_the_chain_goes_on(
    network: Network, tmp_path: Path
) -> None:
    await grown(network, 2)
    height = max(node.height() for node in network.nodes.values())
    await network.close()
    for index in range(4):  # a copy of each folder, as on new machines
        folder = network.settings(1, index).node.data
        (folder / "copy").write_bytes((folder / "votes.log").read_bytes())
        (folder / "copy").replace(folder / "votes.log")
        node = stopped(network, folder, Keeping())
        with pytest.raises(StoreError, match=r"(?s)copied or moved to another disk.*--yes"):
            accept_disk(node, False)
        assert "signs again for the heights after" in accept_disk(node, True)
        assert "nothing to do" in accept_disk(node, True)
        node.close()
    nodes = await network.start_chain(1)
    await nodes[0].submit(network.transaction("ann", 3))
    await until(lambda: min(node.height() for node in nodes) > height, what="goes on")
    await network.close()
    assert not network.failures
