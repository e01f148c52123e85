"""One plug whose books are kept on LittleFS, for test_power_cuts.py: killed in its writes.

    micropython books_child.py IMAGE CUT      CUT writes of the block device later the process kills itself

Every start goes on where the journal ends, measures twenty-five minutes and hands each batch to a broker of its
own, which answers as a gateway does. Prints "sent <counter> <hash> <register>" before
and "acknowledged <counter>" after each batch.
"""

import sys

import plug_tools as tools
import torn_flash
from watt_plug.storage import DirectoryStorage
from watt_wire import batch, checkpoint

image, cut = sys.argv[1], int(sys.argv[2])
torn_flash.mount(image, cut)


def deliver(plug: "tools.Plug", data: bytes) -> None:
    plug.network(b"\xd0\x00")  # the answer to a ping, asked for or not
    for packet_id, payload in tools.publishes(data):
        plug.network(b"\x40\x02" + packet_id)
        if payload[:3] != b"WPB":
            continue
        head, _ = batch.decode(payload)
        counter = checkpoint.decode(head).counter
        print("sent", counter, checkpoint.frame_hash(head).hex(), checkpoint.decode(head).import_mwh)
        tools.acknowledge(plug, payload)
        if counter not in plug.unacknowledged:
            print("acknowledged", counter)


plug = tools.make_plug(DirectoryStorage("/flash/state"))
now_s = max(plug.resume_s, tools.START_S)
plug.start(now_s)
deliver(plug, tools.connect(plug))
position = (now_s - tools.START_S) // 10 * 40
for _ in range(150):
    now_s += 10
    position += 40
    plug.uart(tools.frame(position % 131072))
    plug.tick(now_s)
    deliver(plug, plug.take_output())
print("end", plug.counter, plug.import_mwh, len(plug.unacknowledged))
