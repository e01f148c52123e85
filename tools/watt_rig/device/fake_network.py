"""A fake `network` and `ntptime`: the air is there or not as the host says; sockets are the host's own."""

import fake_host

STA_IF = 0
AP_IF = 1
STAT_IDLE = 1000
STAT_CONNECTING = 1001
STAT_GOT_IP = 1010


class WLAN:
    IF_STA = 0
    IF_AP = 1

    def __init__(self, _interface=0):
        self._active = False
        self._wanted = False

    def active(self, value=None):
        if value is None:
            return self._active
        self._active = bool(value)
        return self._active

    def connect(self, *_credentials):
        self._wanted = True

    def disconnect(self):
        self._wanted = False

    def isconnected(self):
        fake_host.pump()
        return self._active and self._wanted and fake_host.wifi

    def status(self, what=None):
        if what == "rssi":
            return -55
        return STAT_GOT_IP if self.isconnected() else STAT_CONNECTING

    def config(self, *_args, **_options):
        return bytes.fromhex(fake_host.settings["unique_id"])

    def ifconfig(self, *_args):
        return ("127.0.0.1", "255.0.0.0", "127.0.0.1", "127.0.0.1")

    ipconfig = ifconfig


def hostname(*_args):
    return "plug"


def country(*_args):
    return "XX"


class NtpTime:
    """The module `ntptime`: right when there is air, unless the host makes the source lie."""

    host = "pool"
    timeout = 1

    @staticmethod
    def time():
        if not fake_host.wifi:
            raise OSError(110)
        return fake_host.world_s() + fake_host.jump_s

    @staticmethod
    def settime():
        if not fake_host.wifi:
            raise OSError(110)
        fake_host.error_s = fake_host.jump_s
