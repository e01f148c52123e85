"""Asking other nodes where they stand (purpose `status` of peers.py), for a doctor."""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from watt_node.channel import HANDSHAKE_S, PROTOCOL, ChannelError, Hello, Kind, dial
from watt_node.clock import machine_ms
from watt_node.config import EndpointSection
from watt_node.names import node_name

ANSWER_S = 5.0
REPORT_BYTES_MAX = 64 * 1024
"""A report has some hundred bytes, and a name and a number for each of at most 64 validators."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking one node."""

    name: str
    problem: str = ""
    "Why there is no report, in the words of channel.py."
    report: dict[str, Any] = field(default_factory=dict)
    ahead_ms: int = 0
    "How far its machine's clock is ahead of ours, half of the way there and back taken off."


async def ask(endpoint: EndpointSection, context: ssl.SSLContext, name: str, network: bytes) -> Answer:
    """Ask a node, as the node `name` with its certificate; never raises."""
    who = node_name(endpoint.chain, endpoint.index)
    mine = Hello(PROTOCOL, "status", network, endpoint.chain, name)
    try:
        async with asyncio.timeout(HANDSHAKE_S + ANSWER_S):
            channel = await dial(endpoint.host, endpoint.port, context, mine, who)
            try:
                begun_ms = machine_ms()
                await channel.send(Kind.STATUS, b"")
                kind, payload = await channel.read(REPORT_BYTES_MAX)
                middle_ms = (begun_ms + machine_ms()) // 2
            finally:
                channel.close()
        if kind != Kind.STATUS:
            return Answer(who, "unexpected-frame")
        report = msgspec.json.decode(payload, type=dict[str, Any])
        return Answer(who, "", report, int(report["machine_ms"]) - middle_ms)
    except ChannelError as error:
        return Answer(who, str(error))
    except TimeoutError:
        return Answer(who, "timeout")
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        return Answer(who, "report")


async def ask_all(
    endpoints: Sequence[EndpointSection], context: ssl.SSLContext, name: str, network: bytes
) -> dict[str, Answer]:
    """All at once, by name."""
    answers = await asyncio.gather(*(ask(endpoint, context, name, network) for endpoint in endpoints))
    return {answer.name: answer for answer in answers}
