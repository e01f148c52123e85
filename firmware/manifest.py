"""Freeze manifest: builds the two packages into a MicroPython image (ports/esp32, FROZEN_MANIFEST=...)."""

# `opt` 0 keeps the assertions: they state invariants and stay on in production.
include("$(PORT_DIR)/boards/manifest.py")  # noqa: F821  # names of MicroPython's manifest language
package("watt_wire", base_path=".", opt=0)  # noqa: F821
package("watt_plug", base_path=".", opt=0)  # noqa: F821
module("boot.py", base_path=".", opt=0)  # noqa: F821
module("main.py", base_path=".", opt=0)  # noqa: F821
