"""What the tests of a plug with a switch share: the plug, signed commands, a broker's answers, what lies in storage."""

import gc

gc.collect()
import plug_tools as tools  # noqa: E402  # a small heap wants its garbage out first

gc.collect()
from watt_plug.app import Plug  # noqa: E402
from watt_plug.config import Config  # noqa: E402
from watt_plug.interlock import Rules  # noqa: E402
from watt_plug.signer import SoftwareSigner  # noqa: E402
from watt_plug.storage import MemoryStorage  # noqa: E402
from watt_plug.switch import Switch  # noqa: E402

gc.collect()
from watt_wire import batch, checkpoint, command, p256, record, statement  # noqa: E402

START_S = 1700000000 // 86400 * 86400 + 43200
NETWORK = b"\x22" * 32
KEYS = sorted([b"\x01" * 32, b"\x02" * 32], key=lambda key: p256.hashlib.sha256(p256.public_key(key)).digest())
PUBLICS = [p256.public_key(key) for key in KEYS]
PUBLIC = p256.public_key(tools.KEY)
PLUG_ID = p256.hashlib.sha256(PUBLIC).digest()[:8]
WATTS = 0x0053E9
"Power cycle of 249 W."
NO_LOAD = 0xFFFFFF


def make(storage: MemoryStorage, rated_w: int = 3680, **options: object) -> Plug:
    parties = [(1, PUBLICS[0]), (2, PUBLICS[1])]
    switch = Switch(NETWORK, parties, Rules(), lambda n: 0)
    config = Config(tools.GATEWAY, rated_w, bytes(32), switch=switch, appliances=True, **options)
    return Plug(config, SoftwareSigner(tools.KEY), storage)


def frame(action: int, counter: int, now_s: int, hold_s: int = 600) -> bytes:
    ids = [p256.hashlib.sha256(public).digest()[:8] for public in PUBLICS]
    hold_s = 0 if action == command.RELEASE else hold_s
    order = command.Command(
        1, NETWORK, PLUG_ID, counter, action, now_s, now_s + 900, hold_s, 0, bytes(32), ids[0], ids[1]
    )
    body = command.encode(order)
    message = command.signing_message(body)
    return command.seal(body, p256.sign(KEYS[0], message), p256.sign(KEYS[1], message))


def send(plug: Plug, topic: str, payload: bytes) -> None:
    name = topic.encode()
    body = bytes((0, len(name))) + name + payload
    size = len(body)
    head = bytes((size,)) if size < 128 else bytes((size & 127 | 128, size >> 7))
    plug.network(b"\x30" + head + body)


def connect(plug: Plug) -> None:
    """Answer as a broker does, to CONNECT and to every SUBSCRIBE."""
    plug.opened()
    plug.take_output()
    plug.network(b"\x20\x02\x00\x00")
    data = plug.take_output()
    while data:
        assert data[0] == 0x82
        plug.network(b"\x90\x03" + data[2:4] + b"\x01")
        data = data[2 + data[1] :]


def run(plug: Plug, start_s: int, seconds: int, position: int = 0, cycle: int = WATTS) -> int:
    for now_s in range(start_s + 10, start_s + seconds + 1, 10):
        position += 40 if cycle == WATTS else 0
        plug.uart(tools.frame(position, cycle))
        plug.tick(now_s)
    return position


def checkpoints(storage: MemoryStorage) -> "list[tuple[checkpoint.Checkpoint, list[record.Record]]]":
    found = []
    for name in storage.names():
        if name[0] == "b":
            head, records = batch.accept(storage.files[name], PUBLIC, p256.verify)
            found.append((head, records))
    return found


def events(storage: MemoryStorage) -> "list[statement.Statement]":
    found = []
    for name in storage.names():
        if name[0] == "e":
            data = storage.files[name]
            message = statement.EVENT.message(statement.EVENT.body_of(data))
            assert p256.verify(PUBLIC, message, statement.EVENT.signature_of(data))
            found.append(statement.EVENT.decode(data))
    return found


def work(plug: Plug) -> int:
    slices = 1
    while plug.work():
        slices += 1
    return slices
