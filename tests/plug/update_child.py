"""One plug that is updated, for test_power_cuts.py: runs in a real MicroPython on LittleFS and is killed in its writes.

    micropython update_child.py IMAGE CUT BUNDLE      CUT writes of the block device later the process kills itself

Every start mounts the image, chooses a slot, reports health when the new release runs, else goes on with the update.
Prints "runs <release>" once a slot is chosen, and "done" when the update is recorded.
"""

import sys

import torn_flash

image, cut, source = sys.argv[1], int(sys.argv[2]), sys.argv[3]

with open(source, "rb") as file:
    data = file.read()
size = int.from_bytes(data[:4], "big")
keys = [data[4 + 64 * index : 68 + 64 * index] for index in range(3)]
manifest, contents = data[196 : 196 + size], data[196 + size :]
torn_flash.mount(image, cut)
from watt_boot import slots as boot  # noqa: E402
from watt_plug import update  # noqa: E402
from watt_wire import bundle  # noqa: E402

slots = boot.Slots("/flash/")
mode, slot = slots.choose()
print("runs", mode, slots.releases[slot], slots.trial)
if slots.releases[slot] == bundle.decode(manifest).release:
    slots.healthy()
    print("healthy")
    sys.exit(0)
slots.healthy()
updater = update.Updater(slots, keys)
updater.take(b"\x01" + manifest)
while updater.work():
    pass
while not updater.error and updater.received < len(contents):
    at = updater.received
    updater.take(b"\x02" + at.to_bytes(4, "big") + contents[at : at + 2048])
updater.take(b"\x03")
print("done" if updater.ready else "error " + updater.error)
