"""`wattpact station|master export, import, accept-disk`, as a person types them."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from watt_chain import codec
from watt_chain.contract import AreaContract, kinds
from watt_chain.contract.cross_objects import CrossTerms, CrossTrade, MainTrade
from watt_chain.transaction import make_transaction
from watt_market.engine import Market
from watt_master.archive import Archive
from watt_node import holdings
from watt_node.offline import StoppedNode
from watt_node.vault import ARCHIVE, Keeping
from watt_tools.cli import main

sys.path.insert(0, str(Path(__file__).parents[1] / "node"))

from node_bench import Network, key, until


def written(net: Any, chain: int) -> str:
    """The configuration of the chain's first node, in a file."""
    settings = net.settings(chain, 0)
    sections: dict[str, dict[str, object]] = {
        "network": {"genesis": settings.network.genesis, "regulator": settings.network.regulator},
        "node": {
            "chain": chain,
            "index": 0,
            "key": settings.node.key,
            "data": settings.node.data,
            "snapshot_blocks": 2,
        },
        "tls": {"ca": settings.tls.ca, "cert": settings.tls.cert, "key": settings.tls.key},
        "listen": {"host": "127.0.0.1", "port": settings.listen.port},
    }
    text = ""
    for name, values in sections.items():
        text += f"[{name}]\n"
        for field, value in values.items():
            text += f"{field} = {json.dumps(str(value) if isinstance(value, Path) else value)}\n"
    path = net.folder / f"chain{chain}.toml"
    path.write_text(text)
    return str(path)


@pytest.fixture
def net(tmp_path: Path) -> Any:
    """An area of one station, some blocks high, that does not run any more; a master that never ran."""
    network = Network(tmp_path, areas=(1,), masters=1, contract=lambda: AreaContract(Market()))

    async def grow() -> None:
        station = await network.start(1, 0)
        for number in range(1, 6):
            plug = kinds.EnrolPlug(key(f"plug{number}").public, "plain", 3680)
            enrol = kinds.Enrol(key(f"home{number}").public, 0, [plug], False, 4000, "h25", False)
            await station.submit(make_transaction(key("regulator"), network.network, "Enrol", 1, number, enrol))
            await until(lambda number=number: station.height() >= number)  # type: ignore[misc]
        await network.close()

    asyncio.run(grow())
    return network


def test_given_an_areas_chain_in_a_file_when_put_into_a_master_then_its_archive_has_it_and_gives_it_back(
    net: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    station, master = written(net, 1), written(net, 0)
    out, back = str(tmp_path / "area.blocks"), str(tmp_path / "back.blocks")
    assert main(["station", "export", "--config", station, "--out", out]) == 0
    told = capsys.readouterr().out
    height = int(told.rsplit(" ", 1)[1])
    assert told == f"{out}: {height} blocks, heights 1 to {height}\n" and height >= 5
    assert main(["master", "import", "--config", master, "--chain", "1", out]) == 0
    assert capsys.readouterr().out == f"{out}: {height} blocks; height {height}\n"
    folder = net.settings(0, 0).node.data
    archive = Archive(folder / "archive.sqlite", net.network, read_only=True)
    assert archive.height(1) == height and len(list(archive.transactions(1, ("Enrol",)))) == 5
    assert sum(1 for _ in archive.check()) >= 1
    assert len(list((folder / "area1").glob("snapshot-*.state"))) == 2
    archive.close()
    assert main(["master", "export", "--config", master, "--chain", "1", "--out", back]) == 0
    assert Path(back).read_bytes() == Path(out).read_bytes()
    assert main(["station", "import", "--config", station, back]) == 0
    assert "nothing new" in capsys.readouterr().out


def test_given_a_wrong_chain_a_wrong_file_or_no_blocks_when_asked_then_one_line_says_so(
    net: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    station, master = written(net, 1), written(net, 0)
    out = str(tmp_path / "area.blocks")
    assert main(["station", "export", "--config", station, "--out", out]) == 0
    for words, expected in (
        (["master", "import", "--config", master, "--chain", "7", out], "the network has no chain 7"),
        (["master", "import", "--config", master, out], "block 1 is refused: expected height 1"),
        (["master", "export", "--config", master, "--chain", "1", "--out", out + "2"], "no block from height 1 on"),
        (["station", "import", "--config", station, str(tmp_path / "none")], "No such file"),
        (["station", "export", "--config", station, "--out", str(tmp_path / "no/such")], "No such file"),
        (["station", "export", "--config", str(tmp_path / "none.toml"), "--out", out], "cannot read the configuration"),
        (["station", "accept-disk", "--config", station], "nothing to do"),
    ):
        capsys.readouterr()
        code = main(words)
        shown = capsys.readouterr()
        assert expected in shown.out + shown.err, shown
        assert code == (0 if "nothing" in expected else 1)
        assert len((shown.out + shown.err).splitlines()) == 1


def test_given_a_master_that_does_not_run_when_examined_then_its_archive_and_its_files_are_told(
    net: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    station, master = written(net, 1), written(net, 0)
    out = str(tmp_path / "area.blocks")
    main(["station", "export", "--config", station, "--out", out])
    main(["master", "import", "--config", master, "--chain", "1", out])
    capsys.readouterr()
    assert main(["master", "doctor", "--config", master, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    lines = [one["what"] for one in told["findings"]]
    assert told["node"] == "main-node0" and not told["running"]
    assert "archive: chain 0 at 0" in lines and "the node does not run" in lines
    assert main(["master", "doctor", "--config", str(tmp_path / "none.toml")]) == 1
    assert "cannot read the configuration" in capsys.readouterr().out


def test_given_a_folder_when_its_storage_is_asked_for_then_every_byte_has_a_kind(
    net: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    station, folder = written(net, 1), net.settings(1, 0).node.data
    assert main(["station", "storage", "--config", station, "--json"]) == 0
    held = json.loads(capsys.readouterr().out)
    assert held["total"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert held["files"]["blocks"] == (folder / "blocks.log").stat().st_size == sum(held["blocks"].values())
    assert min(held["blocks"].values()) >= 0 and held["height"] >= 5
    assert held["state"]["own"] > 1_000 and held["across"] == 0
    out = str(tmp_path / "area.blocks")
    assert main(["station", "export", "--config", station, "--out", out]) == 0
    assert main(["station", "storage", "--config", station]) == 0
    text = capsys.readouterr().out
    assert f"{held['total']:,} bytes in the folder" in text and "certificates" in text
    # A snapshot gives the same state as all blocks.
    node = StoppedNode(folder, net.genesis, net.network, 1, AreaContract(Market()), Keeping(ARCHIVE, 2))
    node.vault.write_snapshot(node.ledger.frozen[-1])
    node.close()
    assert main(["station", "storage", "--config", station, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["state"] == held["state"] and again["files"]["snapshots"] > 0


def test_given_state_of_trades_when_sorted_then_partners_and_live_trades_are_told_from_the_own_chain() -> None:
    terms = CrossTerms(1, 1, 2, b"seller--", 1, b"buyer---", [1], [1], 0)
    entries = [
        (b"account/00", b"a" * 10),
        (b"inbox", b"own"),
        (b"validators/0", b"own"),
        (b"inbox/2", b"123"),
        (b"validators/2", b"45"),
        (b"cross/1/1", codec.encode(CrossTrade(terms, bytes(32), "buy", "LOCKED", [], 0, 0, 0, 0))),
        (b"cross/1/2", codec.encode(CrossTrade(terms, bytes(32), "buy", "REFUNDED", [], 0, 0, 0, 0))),
        (b"cross/1/3", codec.encode(MainTrade(terms, bytes(32), "ACCEPT", [], 5, 0, ""))),
        (b"duty/1", b"6"),
    ]
    sizes = [len(key) + len(value) for key, value in entries]
    assert holdings.by_kind(entries) == {
        "own": sum(sizes[:3]),
        "partners": sizes[3] + sizes[4],
        "cross-nodes": sizes[8],
        "trades-live": sizes[5] + sizes[7],
        "trades-over": sizes[6],
    }
