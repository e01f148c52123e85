"""`wattpact plug status`: what a plug is and what it has made, read over the cable.

The plug is stopped for a second and started again. Keys and passwords are never read: the script below names every
file that it opens.
"""

from __future__ import annotations

from typing import Any

from watt_tools.plug_link import Cable

STATUS = """
import sys, json, os, gc
gc.collect()
r = {"heap_free": gc.mem_free(), "heap_used": gc.mem_alloc()}
n = os.listdir("/")
def load(f, names):
    try:
        d = json.load(open(f))
        return {k: d[k] for k in names if k in d}
    except Exception:
        return None
r["board"] = load("board.json", ("model", "chip", "rated_w", "key"))
r["config"] = load("config.json", ("wifi_ssid", "gateway", "broker_host", "broker_port", "essential"))
r["calibration"] = load("calibration.json", ("reference", "operator", "date", "power_ppm"))
s = "a" if "a" in n else ""
try:
    from watt_boot.slots import Slots
    q = Slots("/")
    s = q.folder(q.active)[1:]
    r["slots"] = {"active": s, "release": q.releases[q.active], "trial": q.trial, "boots": q.boots,
     "other": q.releases[1 - q.active], "roll_backs": q.roll_backs, "rolled_back": q.rolled_back}
except Exception:
    pass
sys.path.insert(0, s)
try:
    from watt_plug.journal import Journal
    from watt_plug.storage import DirectoryStorage
    j = Journal(DirectoryStorage("state")).load()
    r["journal"] = {"boots": j.boot_id, "checkpoints": j.counter, "records": j.next_sequence - 1,
     "open": len(j.open_records), "import_mwh": j.import_mwh, "time_s": j.time_s,
     "waiting": len([x for x in os.listdir("state") if x[:1] == "b" and x[1:2].isdigit()])}
except Exception as e:
    r["journal"] = {"error": str(e)}
print("WATTPACT " + json.dumps(r))
"""


def status(port: str, start: bool = True) -> dict[str, Any]:
    """Ask, start the plug again unless told not to, and return what it said. LinkError."""
    cable = Cable(port)
    facts = cable.facts()
    found = cable.ask(STATUS)
    if start:
        cable.reset()
    assert isinstance(found, dict)
    return {
        "port": port,
        "machine": facts.machine,
        "micropython": ".".join(str(part) for part in facts.version),
        "flash_free": facts.free,
        "flash_size": facts.size,
        "files": len(facts.files),
        **found,
    }


def text(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {inner}" for key, inner in value.items())
        lines.append(f"{name:<12} {'none' if value is None else value}")
    return "\n".join(lines)
