"""The bytes that plugs, gateways and stations share (normative text: firmware/WIRE.md).

Portable: the same files run on CPython 3.11 and on MicroPython (unix, WebAssembly, ESP32). Nothing here reads a
clock, makes randomness, opens a file or keeps state between calls. Every integer is range-checked before it is
packed, because MicroPython's struct wraps silently, and every length before it is unpacked, because it ignores
trailing bytes.
"""
