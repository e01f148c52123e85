"""The read-only auditor: two that see the same say so, two that are shown different chains find out, and who did it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from watt_chain import codec
from watt_chain.block import Certificate, Header, VoteSignature, block_hash, decode_certified, vote_bytes
from watt_chain.contract import AreaContract, MainContract
from watt_chain.contract.cross_kinds import Endow, Fork
from watt_chain.contract.kinds import Anchor
from watt_chain.light import LightClient, ProofError
from watt_chain.transaction import make_transaction
from watt_chain.witness import Checkpoint, check, compare, cosign
from watt_market.checker import Checker
from watt_master.audit import AuditConfig, Auditor, WitnessSection
from watt_node.config import EndpointSection
from watt_node.log import Log
from watt_node.status import StatusFile
from watt_tools.cli import main

sys.path.insert(0, str(Path(__file__).parents[1] / "node"))

from node_bench import Network, key, until

EVERY = 2


def config_of(net: Network, name: str, others: dict[str, Path], chain: int = 0) -> AuditConfig:
    path = net.folder / f"{name}.key"
    path.touch(mode=0o600)
    path.write_text(key("sign " + name).to_text())
    settings = net.settings(0, 0)
    ends = [
        EndpointSection(chain=chain, index=at, host="127.0.0.1", port=net.port(chain, at))
        for at in range(net.size(chain))
    ]
    return AuditConfig(
        network=settings.network,
        key=path,
        name=name,
        data=net.folder / name,
        tls=net.tls(name),
        main=ends if chain == 0 else [EndpointSection(chain=0, index=0, host="127.0.0.1", port=net.port(0, 0))],
        areas=ends if chain else [],
        witnesses=[
            WitnessSection(name=other, public=key("sign " + other).public.hex(), at=str(folder / "checkpoints"))
            for other, folder in others.items()
        ],
        checkpoint_blocks=EVERY,
    )


def auditor_of(net: Network, config: AuditConfig) -> Auditor:
    return Auditor(config, Log("audit", "debug", net.log))


async def masters(folder: Path) -> Network:
    folder.mkdir()
    net = Network(folder, areas=(1,), masters=4, contract=lambda: MainContract(Checker()))  # type: ignore[arg-type, return-value]
    await net.start_chain(0)
    return net


async def grow(net: Network, to: int, endowed_u: int) -> None:
    """More blocks; `endowed_u` makes them others than another network's."""
    node = net.nodes[0, 0]
    nonce = net.nonce = getattr(net, "nonce", 0)  # type: ignore[attr-defined]
    while node.height() < to:
        nonce += 1
        fields = Endow(1, endowed_u + nonce, endowed_u)
        height = node.height()
        assert await node.submit(make_transaction(key("grid"), net.network, "Endow", 0, nonce, fields)) == ""
        await until(lambda height=height: node.height() > height)  # type: ignore[misc]
    net.nonce = nonce  # type: ignore[attr-defined]


def test_given_one_main_chain_when_two_witnesses_follow_it_then_each_cosigns_what_the_other_signed(
    tmp_path: Path,
) -> None:
    async def scenario() -> tuple[Auditor, AuditConfig]:
        net = await masters(tmp_path / "net")
        ours = config_of(net, "regulator", {"witness-grid": net.folder / "witness-grid"})
        theirs = config_of(net, "witness-grid", {"regulator": net.folder / "regulator"})
        first, second = auditor_of(net, ours), auditor_of(net, theirs)
        await first.start()
        await second.start()
        await grow(net, 2 * EVERY, 100)
        await until(lambda: first.cosigned.get("witness-grid", 0) >= 2 * EVERY)
        await until(lambda: second.cosigned.get("regulator", 0) >= 2 * EVERY)
        assert first.alarms == second.alarms == []
        assert first.replicas[0].ledger.state.root() == net.nodes[0, 0].ledger.state.root()
        StatusFile(first.folder).write(first.status(), 0)
        await second.stop()
        await first.stop()
        again = auditor_of(net, ours)  # goes on from its archive
        await again.start()
        assert again.replicas[0].height == net.nodes[0, 0].height()
        await again.stop()
        await net.close()
        assert not net.failures, net.failures
        return first, ours

    auditor, config = asyncio.run(scenario())
    path = tmp_path / "audit.toml"
    path.write_text(
        f'key = "{config.key}"\nname = "{config.name}"\ndata = "{config.data}"\ncheckpoint_blocks = {EVERY}\n'
        "areas = []\n"
        f'[network]\ngenesis = "{config.network.genesis}"\nregulator = "{config.network.regulator}"\n'
        f'[tls]\nca = "{config.tls.ca}"\ncert = "{config.tls.cert}"\nkey = "{config.tls.key}"\n'
        f'[[main]]\nchain = 0\nindex = 0\nhost = "127.0.0.1"\nport = {config.main[0].port}\n'
    )
    assert main(["audit", "show", "--config", str(path)]) == 0
    auditor.alarms.append({"kind": "split", "chain": 0, "height": 2, "text": "two blocks"})
    StatusFile(auditor.folder).write(auditor.status(), 0)
    assert main(["audit", "show", "--config", str(path), "--json"]) == 1


@pytest.mark.row("H16")
def test_given_masters_that_show_two_chains_when_witnesses_compare_then_both_know_within_two_checkpoints(
    tmp_path: Path,
) -> None:
    """Ledger.md 6.6 attack 22: all masters run twice, with the same keys."""

    async def scenario() -> None:
        nets = [await masters(tmp_path / "left"), await masters(tmp_path / "right")]
        assert nets[0].network == nets[1].network
        folders = {name: net.folder / name for name, net in zip(("witness-left", "witness-right"), nets, strict=True)}
        auditors = [
            auditor_of(net, config_of(net, name, {other: folders[other]}))
            for net, name, other in zip(
                nets, ("witness-left", "witness-right"), ("witness-right", "witness-left"), strict=True
            )
        ]
        for auditor in auditors:
            await auditor.start()
        for position, net in enumerate(nets):
            await grow(net, 2 * EVERY, 100 + 1_000 * position)
        for auditor in auditors:
            await until(lambda auditor=auditor: bool(auditor.alarms))  # type: ignore[misc]
            alarm = auditor.alarms[0]
            assert alarm["kind"] == "split" and isinstance(alarm["height"], int) and alarm["height"] <= 2 * EVERY
            named = {f"c0n{index}" for index in range(4) if f"c0n{index}" in str(alarm["text"])}
            assert len(named) >= 2, "two quorums of four share two masters"
            proof = codec.decode((auditor.folder / f"proof-split-0-{alarm['height']}").read_bytes(), list[Checkpoint])
            light = LightClient(nets[0].genesis, nets[0].network)
            headers = [light.check_header(0, one.header, one.certificate) for one in proof]
            assert headers[0].height == headers[1].height and headers[0] != headers[1]
            assert json.loads((auditor.folder / "alarms.json").read_text()) == auditor.alarms
            await auditor.stop()
        for net in nets:
            await net.close()

    asyncio.run(scenario())


def test_given_an_anchored_block_that_the_area_does_not_show_when_compared_then_the_fork_is_kept_as_a_call(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        net = Network(tmp_path, areas=(1,), masters=1, contract=lambda: AreaContract(Checker()))  # type: ignore[arg-type, return-value]
        station = await net.start(1, 0)
        auditor = auditor_of(net, config_of(net, "regulator", {}, chain=1))
        await auditor.start()
        enrolled = make_transaction(key("regulator"), net.network, "Withdraw", 1, 1, 5)
        await station.submit(enrolled)
        await until(lambda: auditor.replicas[1].height >= 1)
        certified = station.block(1)
        assert certified is not None
        parts, block, header, _ = decode_certified(certified)
        auditor._anchored[1, 1] = Anchor(block.header, parts.certificate, [])
        auditor._compare_anchor(1, 1)
        assert auditor.alarms == [] and not auditor._anchored
        other = codec.encode(replace(header, time_s=header.time_s + 1))
        message = vote_bytes(net.network, "commit", 1, 1, 0, block_hash(net.network, other))
        votes = codec.encode(Certificate(0, [VoteSignature(0, key("1/0").sign(message))]))
        auditor._anchored[1, 1] = Anchor(other, votes, [])
        auditor._compare_anchor(1, 1)
        assert [alarm["kind"] for alarm in auditor.alarms] == ["fork"]
        kept = codec.decode((auditor.folder / "proof-fork-1-1").read_bytes(), Fork)
        assert (kept.first.header, kept.second.header) == (other, block.header)
        await auditor.stop()
        await net.close()

    asyncio.run(scenario())


def test_given_checkpoints_when_checked_then_only_a_witness_own_signature_over_a_certified_block_counts(
    world: Any,
) -> None:
    world.run(world.genesis.protocol_start_s + 4500)
    chain = world.chains[0]
    parts, block, header, _ = decode_certified(chain.applied[0][0])
    light = LightClient(world.genesis, world.network)
    made = cosign(key("w"), world.network, header.height, block.header, parts.certificate)
    hash_ = block_hash(world.network, block.header)
    assert check(made, key("w").public, world.network, light) == (header.height, hash_)
    assert compare(made, made, world.network, header.height) is None
    later, later_block, _, _ = decode_certified(chain.applied[1][0])
    wrong = {
        "witness": [(made, key("x").public), (replace(made, signature=bytes(64)), key("w").public)],
        "certificate-signature": [(replace(made, certificate=later.certificate), key("w").public)],
        "header-form": [(replace(made, header=b"x"), key("w").public)],
    }
    wrong["witness"].append((replace(made, header=later_block.header, certificate=later.certificate), key("w").public))
    for reason, cases in wrong.items():
        for one, witness in cases:
            with pytest.raises(ProofError, match=reason):
                check(one, witness, world.network, light)
    assert codec.decode(block.header, Header).chain == 0
