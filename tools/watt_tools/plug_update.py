"""`wattpact plug update`: a signed bundle into a plug, over the household's gateway or over the cable (DEVICE.md 6).

Over the gateway: the bundle goes into the gateway's tray, and the gateway's status tells how far it is. The end is the
plug's word: it runs the release and has confirmed it after a minute, it signed that it went back, or it refused.
Over the cable: the bundle is copied to the plug, whose own updater then checks and takes it; the plug starts the new
slot on trial and confirms it, or goes back, by itself.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from watt_gateway import bundles
from watt_gateway.config import load_config
from watt_gateway.home import TRAY
from watt_gateway.registry import Registry

from watt_tools import plug_bundle
from watt_tools.plug_link import Cable

LOOK_S = 0.5
STATUS_AGE_S = 20
"""A gateway writes its status every five seconds at least; an older one is of a gateway that does not run."""
RESERVE = 64 * 1024
"""Bytes of flash that must stay free for journal and batches (as plug_flash.py)."""
FILE = "update.bin"
TAKE = """
import json, os, sys
from watt_boot.slots import Slots
s = Slots("/")
sys.path.insert(0, s.folder(s.active))
from watt_plug.update import Updater
k = open("/release.bin", "rb").read()
u = Updater(s, [k[i : i + 64] for i in range(0, len(k), 64)])
f = open("/{file}", "rb")
u.take(b"\\x01" + f.read({manifest}))
while u.work():
    pass
while not u.error and u.received < {total}:
    at = u.received
    f.seek({manifest} + at)
    u.take(b"\\x02" + at.to_bytes(4, "big") + f.read(2048))
if not u.error:
    u.take(b"\\x03")
f.close()
os.remove("/{file}")
print("WATTPACT " + json.dumps({{"ready": u.ready, "error": u.error, "received": u.received}}))
"""
"""Runs on the plug: its own updater, its own keys, in its own running slot."""

Progress = Callable[[str, int, int], None]
"(state, bytes, total)"


class UpdateError(Exception):
    """The plug does not run the new release; the text says why."""


def over_cable(port: str, path: Path, progress: Progress = lambda state, at, total: None) -> int:
    """Copy the bundle, let the plug take it, start it on trial; returns the release. UpdateError, LinkError."""
    bundle = plug_bundle.read(path)
    cable = Cable(port)
    facts = cable.facts()
    needed = 2 * len(bundle.frame) + RESERVE
    if facts.free < needed:
        raise UpdateError(
            f"{port}: {facts.free} bytes free, an update needs {needed}: the bundle and the slot it fills"
        )
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / FILE
        local.write_bytes(bundle.frame)
        progress("copying", 0, len(bundle.content))
        cable.write([(local, FILE)], lambda _path: None)
    progress("verifying", 0, len(bundle.content))
    script = TAKE.format(file=FILE, manifest=len(bundle.manifest), total=len(bundle.content))
    found = cable.ask(script)
    if not found["ready"]:
        raise UpdateError(f"{port}: the plug refuses the bundle: {found['error']}")
    progress("staged", len(bundle.content), len(bundle.content))
    cable.reset()
    return bundle.release


def over_gateway(
    config_path: Path, plug: str, path: Path, wait_s: float, progress: Progress = lambda state, at, total: None
) -> int:
    """Hand the bundle to the running gateway and follow it; returns the release that the plug confirmed.

    `plug` is its name or its id. UpdateError when it ends otherwise or takes longer than `wait_s`.
    """
    bundle = plug_bundle.read(path)
    config = load_config(config_path)
    folder = config_path.resolve().parent / config.store.path
    plug_id = _find(folder, plug)
    _updates(folder)  # a gateway that does not run is said before anything is written
    tray = folder / TRAY
    tray.mkdir(exist_ok=True)
    (tray / f"{plug_id}.new").write_bytes(bundle.frame)
    (tray / f"{plug_id}.new").replace(tray / f"{plug_id}.bundle")
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        time.sleep(LOOK_S)
        found = _updates(folder).get(plug_id)
        if found is None or found["release"] != bundle.release:
            continue
        state = str(found["state"])
        progress(state, int(found["bytes"]), len(bundle.content))
        if state == bundles.CONFIRMED:
            return bundle.release
        if state in (bundles.ROLLED_BACK, bundles.SILENT) or state.startswith(bundles.REFUSED):
            raise UpdateError(f"plug {plug}: release {bundle.release} ended {state}")
    raise UpdateError(
        f"plug {plug}: release {bundle.release} is still on its way after {wait_s:.0f} s; the gateway goes on"
    )


def _find(folder: Path, plug: str) -> str:
    registry = Registry(folder / "registry.json")
    try:
        known = {entry.name: plug_id.hex() for plug_id, entry in registry.plugs().items()}
    finally:
        registry.close()
    if plug in known.values():
        return plug
    if plug not in known:
        raise UpdateError(f"plug {plug!r}: the gateway has {', '.join(sorted(known)) or 'none'}")
    return known[plug]


def _updates(folder: Path) -> dict[str, dict[str, Any]]:
    """What the gateway's status says of its transfers, by plug."""
    path = folder / "status.json"
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise UpdateError(f"{path}: no gateway runs here") from None
    age_s = time.time() - found["written_ms"] / 1000
    if age_s > STATUS_AGE_S:
        raise UpdateError(f"{path} is {age_s:.0f} s old: the gateway does not run")
    updates = found["updates"]
    assert isinstance(updates, dict)
    return updates
