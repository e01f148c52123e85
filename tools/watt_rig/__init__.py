"""The bench: emulated metering chips and meters around the real plug application.

What is fake says so in its name (`FakeCse7766`, `FakeModbusMeter`). The plug itself is the firmware of `firmware/`, run
by a real MicroPython interpreter or by CPython.
"""
