"""First file of a virtual plug: gives MicroPython's Unix port the flash, the modules and the boot of an ESP32.

The host (watt_rig/vplug.py) starts `micropython -i shim.py` on a terminal of its own, with a socket, and its settings
in the environment variable WATT_RIG (JSON: image, flash_size, world_s, start_ms, protocol_s, speed, cause, run, and
`line`, the socket's descriptor). The file image becomes a real LittleFS at `/`; boot.py and main.py run from there
unless `run` is false (a soft reset inside the raw REPL). Everything fake is imported before the host's files go out
of sight.
"""

import json
import os
import sys

import vfs

SETTINGS = json.loads(os.getenv("WATT_RIG"))
sys.path.insert(0, SETTINGS["here"])

import fake_host  # noqa: E402  # only now is it on the path

fake_host.start(SETTINGS)

import fake_bluetooth  # noqa: E402
import fake_flash  # noqa: E402
import fake_machine  # noqa: E402
import fake_network  # noqa: E402
import fake_time  # noqa: E402


def install():
    """Put the fakes where `import machine` finds them, and mount the flash in place of the host's files."""
    for name, module in (
        ("time", fake_time),
        ("machine", fake_machine),
        ("network", fake_network),
        ("bluetooth", fake_bluetooth),
        ("ntptime", fake_network.NtpTime),
        ("esp", fake_machine.Esp),
        ("esp32", fake_machine.Esp32),
    ):
        sys.modules[name] = module
    flash = fake_flash.FileFlash(SETTINGS["image"], SETTINGS["flash_size"])
    os.umount("/")
    try:
        vfs.mount(vfs.VfsLfs2(flash, progsize=128, readsize=128, lookahead=128), "/")
    except OSError:
        vfs.VfsLfs2.mkfs(flash, progsize=128, readsize=128, lookahead=128)
        vfs.mount(vfs.VfsLfs2(flash, progsize=128, readsize=128, lookahead=128), "/")
    os.chdir("/")
    sys.path[:] = ["", ".frozen", "/lib"]


def scale_polls():
    """asyncio waits for I/O in real milliseconds; its timers run at `timer_speed`."""
    import asyncio.core

    speed = SETTINGS["timer_speed"]
    wait = asyncio.core.IOQueue.wait_io_event

    def scaled(self, duration_ms):
        wait(self, duration_ms if duration_ms <= 0 else max(1, duration_ms // speed))

    asyncio.core.IOQueue.wait_io_event = scaled


install()
if SETTINGS["timer_speed"] > 1:
    scale_polls()
fake_host.send("B boot")
if SETTINGS["run"]:
    for _name in ("boot.py", "main.py"):
        try:
            os.stat(_name)
        except OSError:
            continue
        try:
            execfile(_name)  # noqa: F821  # a built-in of MicroPython
        except KeyboardInterrupt:
            # Ctrl-C on the console, as mpremote sends it: leave the program, give the prompt.
            break
        except Exception as error:  # as on the board: say what failed, then give the prompt
            sys.print_exception(error)
            break
