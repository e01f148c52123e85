"""A broker for tests, in a thread: enough MQTT 3.1.1 for plugs and residents, and it plays the gateway.

Written on its own from the OASIS standard, sharing no code with watt_plug.mqtt. It keeps every batch that it was
sent and, as a gateway would, acknowledges it (counter and SHA-256 of the 174-byte body) unless told not to.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import threading


class SmallBroker:
    """Listens on 127.0.0.1; `batches` holds (topic, payload) in order of arrival."""

    def __init__(self, context: ssl.SSLContext | None = None, acknowledges: bool = True) -> None:
        self._context = context
        self.acknowledges = acknowledges
        self.batches: list[tuple[str, bytes]] = []
        self.retained: dict[str, bytes] = {}
        self.client_ids: list[str] = []
        self.arrived = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._clients: dict[socket.socket, set[str]] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self.drop_clients()

    def drop_clients(self) -> None:
        """Cut every connection, as a broker that is restarted does."""
        with self._lock:
            clients = list(self._clients)
            self._clients.clear()
        for client in clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
                client.close()

    def wait(self, count: int, timeout_s: float = 60) -> list[tuple[str, bytes]]:
        """Return all batches once there are `count` different ones."""
        with self.arrived:
            done = self.arrived.wait_for(lambda: len(set(self.batches)) >= count, timeout_s)
            assert done, f"{len(set(self.batches))} different batches, expected {count}"
            return list(self.batches)

    def publish(self, topic: str, payload: bytes) -> None:
        with self._lock:
            targets = [client for client, names in self._clients.items() if topic in names]
        for target in targets:
            self._send(target, 0x30, _text(topic) + payload)

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        try:
            client = self._context.wrap_socket(raw, server_side=True) if self._context else raw
            stream = client.makefile("rb")
            while True:
                first = stream.read(1)
                if not first:
                    return
                length = shift = 0
                while True:
                    digit = stream.read(1)[0]
                    length |= (digit & 127) << shift
                    shift += 7
                    if digit < 128:
                        break
                self._handle(client, first[0], stream.read(length))
        except (OSError, IndexError, ValueError):
            return
        finally:
            with self._lock:
                self._clients.pop(raw, None)

    def _handle(self, client: socket.socket, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == 1:
            assert body[:7] == b"\x00\x04MQTT\x04", body[:7]
            size = int.from_bytes(body[10:12], "big")
            with self._lock:
                self._clients[client] = set()
                self.client_ids.append(body[12 : 12 + size].decode())
            self._send(client, 0x20, b"\x00\x00")
        elif kind == 8:
            size = int.from_bytes(body[2:4], "big")
            topic = body[4 : 4 + size].decode()
            with self._lock:
                self._clients[client].add(topic)
            self._send(client, 0x90, body[:2] + b"\x01")
            if topic in self.retained:
                self._send(client, 0x30, _text(topic) + self.retained[topic])
        elif kind == 12:
            self._send(client, 0xD0, b"")
        elif kind == 3:
            assert first & 6 == 2, "batches are sent at QoS 1"
            size = int.from_bytes(body[:2], "big")
            topic, payload = body[2 : 2 + size].decode(), body[4 + size :]
            self._send(client, 0x40, body[2 + size : 4 + size])
            if self.acknowledges:
                frame = payload[6 : 6 + 238]
                counter = frame[14:18]
                self.publish(topic.replace("/batch", "/ack"), counter + hashlib.sha256(frame[:174]).digest())
            with self.arrived:
                self.batches.append((topic, payload))
                self.arrived.notify_all()

    def _send(self, client: socket.socket, first: int, body: bytes) -> None:
        header = bytearray((first,))
        length = len(body)
        while True:
            length, digit = length >> 7, length & 127
            header.append(digit | (128 if length else 0))
            if not length:
                break
        with contextlib.suppress(OSError):
            client.sendall(bytes(header) + body)


def _text(value: str) -> bytes:
    data = value.encode()
    return len(data).to_bytes(2, "big") + data
