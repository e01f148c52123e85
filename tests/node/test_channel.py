"""Who may connect for what, and what breaks a connection: framing limits, names, networks, purposes."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import msgspec
import pytest
from node_bench import Network, until
from watt_node import channel as channels
from watt_node import links
from watt_node import peers as peering
from watt_node.channel import MAX_FRAME, PROTOCOL, Channel, ChannelError, Hello, Kind, dial, tls_context
from watt_node.config import ConfigError, ListenSection, TlsSection


def hello(bench: Network, cn: str, aim: str = "follow", **change: object) -> Hello:
    return msgspec.structs.replace(Hello(PROTOCOL, aim, bench.network, 1, cn), **change)


async def connect(network: Network, name: str, mine: Hello, index: int = 0) -> Channel:
    context = tls_context(network.tls(name), server=False)
    return await dial("127.0.0.1", network.port(1, index), context, mine, f"area1-node{index}")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("main-node0", {"network": bytes(32)}, "refused-network"),
        ("main-node0", {"version": 2}, "refused-version"),
        ("main-node0", {"chain": 2}, "refused-chain"),
        ("main-node0", {"name": "main-node1"}, "refused-name"),
        ("somebody", {}, "refused-name"),
        ("main-node0", {"purpose": "rule"}, "refused-purpose"),
    ],
)
async def test_given_a_hello_that_does_not_fit_when_dialled_then_it_is_refused_with_its_reason(
    tmp_path: Path, name: str, change: dict[str, object], reason: str
) -> None:
    network = Network(tmp_path, areas=(1,))
    node = await network.start(1, 0)
    with pytest.raises(ChannelError, match=f"^{reason}$"):
        await connect(network, name, hello(network, name, **change))
    await until(lambda: sum(node.peers.refused.values()) == 1)
    await network.close()
    assert not network.failures


async def test_given_a_master_when_it_asks_for_a_validators_place_then_it_is_refused(tmp_path: Path) -> None:
    network = Network(tmp_path)
    node = await network.start(1, 1)
    for name in ("main-node0", "area1-node0", "area1-node1", "regulator"):  # 0 is dialled by 1, never the reverse
        channel = await connect(network, name, hello(network, name, "consensus"), 1)
        assert await channel.read() == (Kind.ERROR, b"not-your-place")
    await until(lambda: node.peers.refused.get("not-your-place") == 4)
    await network.close()


@pytest.mark.row("E9")
async def test_given_the_wrong_node_at_an_address_when_dialled_then_it_is_not_spoken_to(tmp_path: Path) -> None:
    network = Network(tmp_path)
    await network.start(1, 1)
    context = tls_context(network.tls("main-node0"), server=False)
    with pytest.raises(ChannelError, match="certificate-of-area1-node1"):
        await dial("127.0.0.1", network.port(1, 1), context, hello(network, "main-node0"), "area1-node0")
    await network.close()


async def test_given_no_certificate_or_a_foreign_one_when_dialled_then_tls_ends_it(tmp_path: Path) -> None:
    network = Network(tmp_path, areas=(1,))
    await network.start(1, 0)
    (tmp_path / "other").mkdir()
    other = Network(tmp_path / "other")
    own = other.tls("main-node0")
    foreign = TlsSection(ca=network.authority.ca_path, cert=own.cert, key=own.key)
    for context in (tls_context(foreign, server=False), ssl._create_unverified_context()):
        with pytest.raises(ChannelError, match=r"closed|tls"):
            reader, writer = await asyncio.open_connection("127.0.0.1", network.port(1, 0), ssl=context)
            channel = Channel(reader, writer)
            await channel.send(Kind.HELLO, msgspec.msgpack.encode(hello(network, "main-node0")))
            await channel.read()
    await network.close()


@pytest.mark.row("E12")
async def test_given_tls_1_2_when_dialled_then_the_handshake_fails(tmp_path: Path) -> None:
    network = Network(tmp_path, areas=(1,))
    await network.start(1, 0)
    context = tls_context(network.tls("main-node0"), server=False)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ChannelError, match=r"tls|closed|certificate"):
        await dial("127.0.0.1", network.port(1, 0), context, hello(network, "main-node0"), "area1-node0")
    await network.close()


@pytest.mark.parametrize("length", [0, MAX_FRAME + 1, 0xFFFFFFFF])
async def test_given_a_frame_length_outside_the_limits_when_sent_then_the_connection_ends(
    tmp_path: Path, length: int
) -> None:
    network = Network(tmp_path, areas=(1,))
    node = await network.start(1, 0)
    channel = await connect(network, "main-node0", hello(network, "main-node0", "submit"))
    channel._writer.write(length.to_bytes(4, "big") + b"\x08")
    with pytest.raises(ChannelError):
        await channel.read()
    await until(lambda: node.peers.refused == {"frame-length": 1})
    await network.close()


async def test_given_a_stranger_when_its_first_frame_is_large_or_no_hello_then_it_is_cut_off(tmp_path: Path) -> None:
    network = Network(tmp_path, areas=(1,))
    node = await network.start(1, 0)
    context = tls_context(network.tls("main-node0"), server=False)
    for payload, kind, reason in ((bytes(5000), Kind.HELLO, "frame-length"), (b"x", Kind.BLOCK, "no-hello")):
        reader, writer = await asyncio.open_connection("127.0.0.1", network.port(1, 0), ssl=context)
        channel = Channel(reader, writer)
        await channel.send(kind, payload)
        with pytest.raises(ChannelError):
            await channel.read()
        await until(lambda reason=reason: reason in node.peers.refused)  # type: ignore[misc]
    await network.close()


async def test_given_a_silent_stranger_when_the_time_for_its_hello_is_over_then_it_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "HANDSHAKE_S", 0.1)
    network = Network(tmp_path, areas=(1,))
    node = await network.start(1, 0)
    context = tls_context(network.tls("main-node0"), server=False)
    reader, _ = await asyncio.open_connection("127.0.0.1", network.port(1, 0), ssl=context)
    with pytest.raises(ConnectionError):
        if not await reader.read():
            raise ConnectionError
    assert node.peers.refused == {"handshake-timeout": 1}
    await network.close()


async def test_given_one_name_when_it_opens_too_many_connections_then_the_last_is_refused(tmp_path: Path) -> None:
    network = Network(tmp_path, areas=(1,))
    node = await network.start(1, 0)
    mine = hello(network, "main-node0", "submit")
    kept = [await connect(network, "main-node0", mine) for _ in range(peering.CONNECTIONS_PER_NAME)]
    with pytest.raises(ChannelError):
        await connect(network, "main-node0", mine)
    assert node.peers.refused == {"too-many-connections": 1}
    kept.pop().close()
    await until(lambda: sum(node.peers._open.values()) < peering.CONNECTIONS_PER_NAME)
    (await connect(network, "main-node0", mine)).close()
    for channel in kept:
        channel.close()
    await network.close()


@pytest.mark.parametrize(
    "request_bytes", [b"", b"\xc1", msgspec.msgpack.encode([-1]), msgspec.msgpack.encode([1, 2, 3])]
)
async def test_given_a_malformed_request_when_sent_then_the_connection_ends(
    tmp_path: Path, request_bytes: bytes
) -> None:
    network = Network(tmp_path, areas=(1,))
    node = await network.start(1, 0)
    channel = await connect(network, "main-node0", hello(network, "main-node0", "follow"))
    await channel.send(Kind.FOLLOW, request_bytes)
    with pytest.raises(ChannelError):
        await channel.read()
    assert node.peers.refused == {"request": 1}
    await network.close()


def test_given_a_peer_that_is_away_when_frames_are_queued_then_the_newest_stay_within_the_bounds() -> None:
    link = links.Link(1, None)  # type: ignore[arg-type]
    for number in range(1000):
        link.put(b"%d" % number)
    assert len(link) == links.QUEUE_FRAMES_AWAY
    assert link.dropped == 1000 - links.QUEUE_FRAMES_AWAY
    assert link.take()[-1] == b"999"
    for _ in range(10):
        link.put(bytes(MAX_FRAME))
    assert 0 < link.queued_bytes <= links.QUEUE_BYTES
    waiting = link.queued_bytes
    assert waiting == sum(len(frame) for _ in range(10) for frame in link.take())
    assert link.queued_bytes == 0


async def test_given_a_port_in_use_when_a_node_starts_then_one_line_says_so(tmp_path: Path) -> None:
    network = Network(tmp_path, areas=(1,))
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", network.port(1, 0))
    with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1:\d+: .*in use"):
        await network.start(1, 0)
    server.close()


def test_given_missing_tls_files_when_read_then_the_file_is_named(tmp_path: Path) -> None:
    section = TlsSection(ca=tmp_path / "ca", cert=tmp_path / "c", key=tmp_path / "k")
    with pytest.raises(ConfigError, match=r"tls\.ca: no such file"):
        tls_context(section, server=True)
    for name in ("ca", "c", "k"):
        (tmp_path / name).write_text("nothing")
    with pytest.raises(ConfigError, match=r"^tls: "):
        tls_context(section, server=True)
    assert ListenSection(host="x", port=0).port == 0
