"""One plug whose register is kept on LittleFS, for test_power_cuts.py: killed in its writes, started without a clock.

    micropython energy_child.py IMAGE CUT WORLD_S SUPPLY_S COUNTER CAUSE

The world stands at WORLD_S; the chip has had its supply since SUPPLY_S and showed COUNTER then; 40 pulses flow in
ten seconds. CUT writes of the block device later the process kills itself. The gateway answers after 70 s. Prints the
world's time before each look at the chip, then "register <uJ> <discontinuities>".
"""

import sys

import plug_tools as tools
import torn_flash
from watt_plug.storage import DirectoryStorage
from watt_wire import batch, checkpoint

image = sys.argv[1]
cut, world_s, supply_s, counter, cause = [int(text) for text in sys.argv[2:]]
torn_flash.mount(image, cut)

ANSWER_S = 70
LIFE_S = 190
storage = DirectoryStorage("/flash/state")
plug = tools.make_plug(storage)
plug.start(0, False, 0, cause, 1, "U")
for age_s in range(10, LIFE_S + 10, 10):
    now_s = world_s + age_s
    print("world", now_s)
    plug.uart(tools.frame((counter + (now_s - supply_s) * 4) % 131072))
    if age_s < ANSWER_S:
        plug.tick(age_s, age_s, "U")
    else:
        plug.tick(now_s, age_s, "S")
plug.stop(world_s + LIFE_S)
reasons = [checkpoint.decode(batch.decode(storage.read(name))[0]).reason for name in storage.names() if name[0] == "b"]
state = plug._state
print("register", state.import_mwh * 3600000 + state.remainder_uj, reasons.count(checkpoint.DISCONTINUITY))
