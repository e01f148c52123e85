"""Runs on the device side: imports one portable test module and calls every test_* function in it.

Portable subset (MicroPython has no pytest). Prints the traceback of every failure and, last, `RESULT passed failed`;
run_device.py adds these up. A file that cannot be imported counts as one failure.
"""

import gc
import sys

LOADING_BYTES = 12288


def run(root: str, folder: str, name: str) -> None:
    """Run ROOT/FOLDER/NAME.py with firmware, its own folder and the bench's fakes on the path, nothing frozen in."""
    sys.path[:] = [root + "/firmware", root + "/" + folder, root + "/tools/watt_rig/device"]
    # As device.py does before it loads what follows.
    gc.threshold(LOADING_BYTES)
    passed = 0
    failed = 0
    try:
        module = __import__(name)
    except Exception as error:  # a file that cannot be imported is one failure
        report(folder + "/" + name, error)
        print("RESULT 0 1")
        return
    for test in sorted(dir(module)):  # a module's names come in no particular order
        if not test.startswith("test_"):
            continue
        gc.collect()
        try:
            getattr(module, test)()
            passed += 1
        except Exception as error:  # a test may raise anything; that is a failure, not an end
            failed += 1
            report(folder + "/" + name + " " + test, error)
    print("RESULT", passed, failed)


def report(what: str, error: Exception) -> None:
    """Print a failure with its traceback."""
    print("FAIL", what)
    sys.print_exception(error)
