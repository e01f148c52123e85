"""A fake `time`: the calendar is the plug's clock in the bench's world, the ticks are the machine's own."""

import time as real

import fake_host

ticks_ms = real.ticks_ms
ticks_us = real.ticks_us
ticks_cpu = real.ticks_cpu
ticks_add = real.ticks_add
ticks_diff = real.ticks_diff
mktime = real.mktime
sleep_us = real.sleep_us


def time():
    return fake_host.world_s() + fake_host.error_s


def time_ns():
    return time() * 1000000000


def gmtime(seconds=None):
    return real.gmtime(time() if seconds is None else seconds)


localtime = gmtime


def sleep_ms(duration_ms):
    real.sleep_ms(duration_ms)
    fake_host.pump()


def sleep(duration_s):
    real.sleep(duration_s)
    fake_host.pump()
