"""`wattpact audit accuse`: the proof that an auditor left convicts an area before running masters, or says why not."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from watt_chain import codec
from watt_chain.block import Certificate, Header, VoteSignature, block_hash, vote_bytes
from watt_chain.contract.cross_guard import ForkProof, fork_key
from watt_chain.contract.cross_kinds import Fork, PartnerBlock, Readmit
from watt_chain.contract.cross_objects import Position, position_key
from watt_chain.genesis import Validator
from watt_chain.transaction import make_transaction
from watt_tools.cli import main

sys.path.insert(0, str(Path(__file__).parents[1] / "node"))
sys.path.insert(0, str(Path(__file__).parent))

from node_bench import Network, key, until
from test_audit import auditor_of, config_of, grow, masters

HEADER = Header(2, 1, 7, bytes(32), 0, 0, 1, 0, *[bytes(32)] * 4, 0, 1, 1, bytes(32))


def certified(net: Network, header: Header, by: str = "1/0") -> PartnerBlock:
    data = codec.encode(header)
    vote = vote_bytes(net.network, "commit", header.chain, header.height, 0, block_hash(net.network, data))
    return PartnerBlock(data, codec.encode(Certificate(0, [VoteSignature(0, key(by).sign(vote))])))


def written(net: Network, name: str, data: bytes) -> Path:
    path = net.folder / name
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def key_file(net: Network, name: str) -> Path:
    return written(net, f"{name}.accuser", key(name).to_text().encode())


def configured(net: Network, data: Path | None = None) -> Path:
    """The auditor's own file."""
    config = config_of(net, "regulator", {})
    ends = "".join(
        f'[[main]]\nchain = 0\nindex = {end.index}\nhost = "127.0.0.1"\nport = {end.port}\n' for end in config.main
    )
    path = net.folder / "audit.toml"
    path.write_text(
        f'key = "{config.key}"\nname = "regulator"\ndata = "{data or config.data}"\nareas = []\n'
        f'[network]\ngenesis = "{config.network.genesis}"\nregulator = "{config.network.regulator}"\n'
        f'[tls]\nca = "{config.tls.ca}"\ncert = "{config.tls.cert}"\nkey = "{config.tls.key}"\n{ends}'
    )
    return path


def proof_of(net: Network) -> Fork:
    return Fork(certified(net, HEADER), certified(net, replace(HEADER, time_s=2)))


def refused(capsys: pytest.CaptureFixture[str], words: list[str], reason: str) -> None:
    """The command ends with exit code 1 and one line, which names it and says this."""
    assert main(words) == 1, reason
    shown = capsys.readouterr()
    assert reason in shown.err and shown.err.startswith(f"wattpact {words[0]} {words[1]}: "), shown.err
    assert shown.err.count("\n") == 1 and not shown.out


@pytest.mark.row("H16")
def test_given_a_proven_fork_when_the_regulator_accuses_then_the_area_is_in_quarantine_with_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        net = await masters(tmp_path / "net")
        config, proof = configured(net), written(net, "proof-fork-1-7", codec.encode(proof_of(net)))
        wrong = written(net, "wrong", codec.encode(Fork(certified(net, HEADER), certified(net, HEADER))))

        async def command(file: Path, who: str, *more: str) -> tuple[int, str, str]:
            words = ["audit", "accuse", "--config", str(config), "--key", str(key_file(net, who)), str(file), *more]
            code = await asyncio.get_running_loop().run_in_executor(None, main, words)
            shown = capsys.readouterr()
            return code, shown.out, shown.err

        auditor = auditor_of(net, config_of(net, "regulator", {}))  # it has archived what there is
        await auditor.start()
        await grow(net, 3, 100)
        await until(lambda: auditor.replicas[0].height == net.nodes[0, 0].height())
        node = net.nodes[0, 0]
        await until(lambda: node.ledger.next_nonce(key("grid").public) == net.nonce + 1)  # type: ignore[attr-defined]
        before = [node.ledger.next_nonce(key(who).public) for who in ("regulator", "grid")]
        for file, who, reason in (
            (wrong, "regulator", "area1 height 7: no-conflict: the two are one block"),
            (proof, "a stranger", "this key may not sign on the main chain"),
            (written(net, "alien", codec.encode(Fork(*[certified(net, HEADER, "x")] * 2))), "grid", "no-conflict"),
            (
                written(
                    net,
                    "forged",
                    codec.encode(Fork(certified(net, HEADER), certified(net, replace(HEADER, time_s=2), "x"))),
                ),
                "grid",
                "proof: one of the two blocks is not certified",
            ),
        ):
            code, out, err = await command(file, who)
            assert (code, out) == (1, "") and reason in err and err.count("\n") == 1, err
        assert before == [node.ledger.next_nonce(key(who).public) for who in ("regulator", "grid")], "nothing was sent"
        code, out, err = await command(proof, "regulator")
        assert (code, err) == (0, ""), err
        assert "area1: two blocks of height 7, both signed by c1n0" in out and "quarantine" in out
        held = node.ledger.state.get(position_key(1))
        assert codec.decode(held or b"", Position).quarantine == "fork"
        assert codec.decode(node.ledger.state.get(fork_key(1, 7)) or b"", ForkProof).signers == ["c1n0"]
        code, out, err = await command(proof, "grid", "--json")
        assert code == 1 and "known: the area is in quarantine" in err
        # The way back, and what counted once does not count again.
        seats = [Validator("c1n0", key("new").public)]
        nonce = node.ledger.next_nonce(key("regulator").public)
        tx = make_transaction(key("regulator"), net.network, "Readmit", 0, nonce, Readmit(1, seats))
        assert await node.submit(tx) == ""
        await until(lambda: node.ledger.next_nonce(key("regulator").public) > nonce)
        code, out, err = await command(proof, "grid")
        assert code == 1 and "proof" in err
        again = Fork(certified(net, HEADER, "new"), certified(net, replace(HEADER, time_s=2), "new"))
        code, out, err = await command(written(net, "again", codec.encode(again)), "aggregator", "--json")
        assert code == 0, err
        said = json.loads(out)
        assert (said["chain"], said["height"], said["signers"]) == (1, 7, ["c1n0"]) and said["recorded"] > 3
        await auditor.stop()
        await net.close()
        code, out, err = await command(proof, "regulator")
        assert code == 1 and "no master of [[main]] can be asked: main-node0 (" in err
        assert not net.failures, net.failures

    asyncio.run(scenario())


def test_given_unusable_files_when_accusing_then_one_line_names_the_file_and_the_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = Network(tmp_path, areas=(1,))
    config, office = configured(net), key_file(net, "regulator")
    good = written(net, "proof", codec.encode(proof_of(net)))
    open_key = written(net, "open.key", key("regulator").to_text().encode())
    open_key.chmod(0o644)
    cases: list[tuple[Path, Path, Path, list[str], str]] = [
        (config, office, tmp_path / "none", [], "none: No such file"),
        (config, office, written(net, "text", b"fork"), [], "text: not the proof of a fork"),
        (config, office, written(net, "big", bytes(20_000)), [], "big: larger than 17472 bytes"),
        (config, tmp_path / "none", good, [], "none: cannot read the key"),
        (config, open_key, good, [], "allowed is 0600"),
        (config, written(net, "key", b"x"), good, [], "not a key file"),
        (tmp_path / "none.toml", office, good, [], "none.toml"),
        (config, office, good, ["--wait", "0"], "--wait 0: from 1 to 3600"),
        (config, office, good, ["--wait", "3601"], "--wait 3601: from 1 to 3600"),
    ]
    for file, secret, proof, more, reason in cases:
        words = ["audit", "accuse", "--config", str(file), "--key", str(secret), str(proof), *more]
        refused(capsys, words, reason)
    for words in (["audit", "accuse", "--help"], ["audit", "accuse", str(good)]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == (0 if "--help" in words else 2)
    assert "proof-fork-CHAIN-HEIGHT" in capsys.readouterr().out
