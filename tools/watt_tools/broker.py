"""The embedded MQTT broker of a bench network: amqtt behind mutual TLS, in a process of its own.

The one module that imports amqtt. A deployment uses Mosquitto (gateway/deploy/mosquitto.conf); this broker is what
pip alone can install. Invariant: a client without a certificate of the network's CA never completes a handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

from amqtt.broker import Broker

CONNECTIONS_MAX = 512
"A bench of 100 homes needs about 220 (plug, gateway, station); more is a leak or an attack."


class MutualTlsBroker(Broker):  # type: ignore[misc]  # amqtt ships no types
    """amqtt asks for client certificates but accepts none (CERT_OPTIONAL); here they are required."""

    @staticmethod
    def _create_ssl_context(listener: Any) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Stock MicroPython speaks TLS 1.2 only; gateway/deploy/mosquitto.conf has the same minimum.
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(listener["certfile"], listener["keyfile"])
        context.load_verify_locations(listener["cafile"])
        context.verify_mode = ssl.CERT_REQUIRED
        return context


async def serve(host: str, port: int, ca: Path, certificate: Path, key: Path) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError when the port is taken."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    config: dict[str, Any] = {
        "listeners": {
            "default": {
                "type": "tcp",
                "bind": f"{host}:{port}",
                "ssl": True,
                "cafile": str(ca),
                "certfile": str(certificate),
                "keyfile": str(key),
                "max_connections": CONNECTIONS_MAX,
            }
        },
        "timeout_disconnect_delay": 2,
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    broker = MutualTlsBroker(config)
    await broker.start()
    await stop.wait()
    with contextlib.suppress(Exception):  # amqtt raises on its own closed sessions; we are leaving anyway
        await asyncio.wait_for(broker.shutdown(), timeout=2)


def run(host: str, port: int, ca: Path, certificate: Path, key: Path) -> int:
    """Run the broker in the foreground; exit code 1 with one line when it cannot start."""
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    logging.getLogger("transitions").setLevel(logging.CRITICAL)
    try:
        asyncio.run(serve(host, port, ca, certificate, key))
    except Exception as error:  # the supervisor of this process: amqtt wraps OSError in its own classes
        print(f"wattpact broker: cannot serve on {host}:{port}: {error}", file=sys.stderr)
        return 1
    return 0
