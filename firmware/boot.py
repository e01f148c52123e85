"""First file the ESP32 runs: quiet the ROM's log on the shared UART and leave the heap in one piece."""

import gc

import esp

esp.osdebug(None)
gc.collect()
