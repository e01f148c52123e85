"""The plug's application: chip frames in, signed checkpoints out.

Portable subset (ARCHITECTURE.md, "portable subset"): the same files run on the ESP32, on the unix port of
MicroPython, on its WASM build and on CPython. Nothing in here imports a clock, a socket or a file, except
`pipe` (the loop of an emulated plug) and `release` (the hash of these files), which are shells.
"""
