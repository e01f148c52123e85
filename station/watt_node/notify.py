"""What systemd is told (sd_notify protocol): a datagram of KEY=VALUE lines to the socket named in NOTIFY_SOCKET."""

import os
import socket


def notify(state: str) -> bool:
    """Send `state` (READY=1, STOPPING=1, WATCHDOG=1, STATUS=...); False when nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or address[0] not in "/@":
        return False
    if address[0] == "@":  # the abstract namespace is written with a leading NUL
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
            link.connect(address)
            link.sendall(state.encode())
    except OSError:
        return False
    return True


def watchdog_ms() -> int:
    """How often at most WATCHDOG=1 must be sent, in milliseconds; 0 = no watchdog. Half of it is a good period."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    owner = os.environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or (owner.isdecimal() and int(owner) != os.getpid()):
        return 0
    return int(usec) // 1000
