"""Fixed base, second file: choose a bundle, run it; safe mode when neither can be trusted (DEVICE.md 2).

Nothing of metering or signing lives here, and nothing here changes over the air. Whatever goes wrong ends in a reset:
the counted starts of `watt_boot.slots` turn repeated failure into a roll-back or into safe mode.
"""

import sys
import time

import machine
from watt_boot.slots import SAFE, Slots

SAFE_S = 300
"Safe mode lasts five minutes, then the plug tries again."


def run():
    slots = Slots("/")
    mode, slot = slots.choose()
    sys.path.insert(0, slots.folder(slot))
    if mode == SAFE:
        print("safe mode")
        try:
            from watt_plug import device

            device.run_safe(SAFE_S)
        finally:
            slots.leave_safe_mode()
            machine.reset()
    from watt_plug import device

    device.run(slots)


if __name__ == "__main__":
    try:
        run()
    except Exception as error:  # the one supervisor of the device: say why, then start over from the journal
        print("fatal:")
        sys.print_exception(error)
        time.sleep(5)
        machine.reset()
