"""What the portable tests of the plug share: chip frames, a plug with a short slot, answers of a broker."""

import gc

gc.collect()
from watt_plug.meters import cse7766  # noqa: E402  # a small heap wants its garbage out before each import

gc.collect()
from watt_plug.signer import SoftwareSigner  # noqa: E402
from watt_plug.storage import MemoryStorage  # noqa: E402

gc.collect()
from watt_plug.app import Plug  # noqa: E402
from watt_plug.config import Config  # noqa: E402

gc.collect()
from watt_wire import batch, checkpoint, topics  # noqa: E402

KEY = b"\x11" * 32
START_S = 1700000100 // 900 * 900
GATEWAY = "home-1"
PULSE_UJ = 0x51A658


def frame(pulses: int, power_cycle: int = 0x0053E9, coefficient: int = PULSE_UJ) -> bytes:
    """A frame of 207 V with the counter at `pulses`; `power_cycle` 0x0053E9 is 249 W."""
    body = bytes.fromhex("02f7600003ab004010026 05d".replace(" ", ""))
    body += coefficient.to_bytes(3, "big") + power_cycle.to_bytes(3, "big")
    body += bytes((0x71 | (pulses >> 16 & 1) << 7, pulses >> 8 & 255, pulses & 255))
    assert len(body) == 21
    data = b"\x55\x5a" + body
    return data + bytes((cse7766.checksum(data + b"\x00"),))


def make_plug(storage: "MemoryStorage", rated_w: int = 3680, save_records: int = 1) -> "Plug":
    config = Config(GATEWAY, rated_w, bytes(32), save_records=save_records)
    return Plug(config, SoftwareSigner(KEY), storage)


def run_plug(plug: "Plug", start_s: int, end_s: int, pulses_per_tick: int, position: int = 0) -> int:
    """Tick every ten seconds from after `start_s` to `end_s`; return the counter's last position."""
    now_s = start_s
    while now_s < end_s:
        now_s += 10
        position += pulses_per_tick
        plug.uart(frame(position))
        plug.tick(now_s)
    return position


def connect(plug: "Plug") -> bytes:
    """Open the transport and answer as a broker does; return what the plug sent after its SUBACK."""
    plug.opened()
    plug.take_output()
    plug.network(b"\x20\x02\x00\x00")
    subscribe = plug.take_output()
    plug.network(b"\x90\x03" + subscribe[2:4] + b"\x01")
    return plug.take_output()


def acknowledge(plug: "Plug", data: bytes) -> None:
    """Answer a batch as the gateway does."""
    frame, _ = batch.decode(data)
    head = checkpoint.decode(frame)
    topic = topics.plug_ack(GATEWAY, plug.plug_id).encode()
    body = bytes((0, len(topic))) + topic + batch.encode_ack(head.counter, checkpoint.frame_hash(frame))
    plug.network(b"\x30" + bytes((len(body),)) + body)


def deliver(plug: "Plug", data: bytes) -> "list[bytes]":
    """Acknowledge every batch in the output `data` and in what that brings forth; return all of them."""
    sent = []
    while True:
        payloads = [payload for _, payload in publishes(data)]
        if not payloads:
            return sent
        sent += payloads
        for payload in payloads:
            acknowledge(plug, payload)
        data = plug.take_output()


def publishes(data: bytes) -> "list[tuple[bytes, bytes]]":
    """Split MQTT output into (packet id, payload) of its QoS 1 publications."""
    found = []
    while data:
        length = 0
        shift = 0
        offset = 1
        while True:
            digit = data[offset]
            offset += 1
            length |= (digit & 127) << shift
            shift += 7
            if digit < 128:
                break
        body = data[offset : offset + length]
        if data[0] == 0x32:
            size = body[0] << 8 | body[1]
            found.append((body[2 + size : 4 + size], body[4 + size :]))
        data = data[offset + length :]
    return found
