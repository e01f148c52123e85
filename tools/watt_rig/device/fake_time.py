"""A fake `time`: the calendar is the plug's clock in the bench's world; ticks and sleeps run at `timer_speed`."""

import sys
import time as real

import fake_host

SLEEP_MS_MIN = 15
"On a fast bench a loop that polls every 50 ms would otherwise only poll."
SPEED = fake_host.settings["timer_speed"]
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


def follow_world():
    """On a fast bench, let the plug's clock run with the world between two answers of its gateway.

    The firmware counts timer seconds from the last answer; there are only `timer_speed` of them in a second of a bench
    whose world runs at `speed`. Question, answer, signature and quality stay the firmware's own.
    """
    if fake_host.settings["speed"] == SPEED or "watt_plug.clock" not in sys.modules:
        return
    kind = sys.modules["watt_plug.clock"].Clock
    if hasattr(kind, "bench_error_s"):
        return
    kind.bench_error_s = 0
    kind.bench_timer_s = -1
    fake_host.stepped = True
    boot_s = fake_host.world_s()
    work = kind.work

    def followed_work(self, timer_s):
        before = self._set_s
        busy = work(self, timer_s)
        if self._set_s != before:
            self.bench_error_s = timer_s + self._offset_s - fake_host.world_s()
        return busy

    def followed_now_s(self, timer_s):
        if timer_s != self.bench_timer_s:
            self.bench_timer_s = timer_s
            fake_host.step_world()
        now_s = fake_host.world_s()
        return now_s - boot_s if self._set_s < 0 else now_s + self.bench_error_s

    kind.work = followed_work
    kind.now_s = followed_now_s


def ticks_ms():
    return real.ticks_ms() * SPEED


def ticks_us():
    return real.ticks_us() * SPEED


def sleep_ms(duration_ms):
    if SPEED > 1 and duration_ms > 0:
        duration_ms = max(duration_ms // SPEED, SLEEP_MS_MIN)
    real.sleep_ms(duration_ms)
    fake_host.pump()


def sleep(duration_s):
    sleep_ms(int(duration_s * 1000))
