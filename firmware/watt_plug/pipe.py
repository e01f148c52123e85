"""The loop of an emulated plug: lines of ASCII on a pipe instead of UART, RTC and socket.

    host to plug   C <json>                 first and once, see `build`
                   U <hex>                  bytes of the metering chip
                   T <unix s> [<timer s>]   it is this time; the first one starts the plug
                   O | X                    the transport to the broker opened | closed
                   N <hex>                  bytes from the broker, at most 512 a line
                   Q                        stop
    plug to host   R <unix s> <counter> <unacknowledged>   ready for the next tick; after C: the time to resume from
                   N <hex>                  bytes for the broker
                   X                        close the transport
                   L <text>                 log

The WASM build has no sockets and no files that last: its host injects a module `hostio` with `readline`,
`writeline`, `load`, `save`, `remove` and `names`. On CPython the host may also call `build` and use the plug directly.
"""

import json
import sys

from watt_plug import release
from watt_plug.app import Plug
from watt_plug.config import Config
from watt_plug.signer import SoftwareSigner
from watt_plug.storage import DirectoryStorage, MemoryStorage, Storage


def build(settings: dict[str, object], storage: "Storage | None" = None) -> Plug:
    """Make a plug from the settings of the C line.

    key, gateway, rated_w    needed; key is 64 hex digits
    flash                    directory for the journal; without it nothing lasts
    record_s, slot_s, sample_s, save_records, keep_alive_s, time_quality   as in Config
    """
    options = {}
    for name in ("record_s", "slot_s", "sample_s", "save_records", "keep_alive_s", "time_quality"):
        if name in settings:
            options[name] = settings[name]
    if storage is None:
        storage = DirectoryStorage(str(settings["flash"])) if "flash" in settings else MemoryStorage()
    config = Config(
        str(settings["gateway"]),
        int(str(settings["rated_w"])),
        release.firmware_hash(release.root_of(__file__)),
        **options,  # type: ignore[arg-type]  # JSON: the host that wrote the line is ours
    )
    return Plug(config, SoftwareSigner(bytes.fromhex(str(settings["key"]))), storage)


class Pipe:
    """One plug behind the line protocol: a line in, lines out."""

    def __init__(self, storage: "Storage | None" = None) -> None:
        self._storage = storage
        self._plug: "Plug | None" = None
        self._started = False
        self.stopped = False

    def handle(self, line: str) -> list[str]:
        """Take one line without its end; return the lines to answer."""
        kind = line[:1]
        rest = line[2:]
        if kind == "C":
            self._plug = build(json.loads(rest), self._storage)
            return [self._ready(self._plug, self._plug.resume_s)]
        plug = self._plug
        if kind == "Q" or plug is None:
            self.stopped = True
            return []
        if kind == "U":
            plug.uart(bytes.fromhex(rest))
            return []
        answer = []
        if kind == "T":
            numbers = rest.split(" ")
            now_s = int(numbers[0])
            timer_s = int(numbers[1]) if len(numbers) > 1 else now_s
            if self._started:
                plug.tick(now_s, timer_s)
            else:
                self._started = True
                plug.start(now_s, True, timer_s)
            answer.append(self._ready(plug, now_s))
        elif kind == "N":
            plug.network(bytes.fromhex(rest))
        elif kind == "O":
            plug.opened()
        elif kind == "X":
            plug.closed()
        return self._drain(plug) + answer

    def _ready(self, plug: Plug, time_s: int) -> str:
        return "R " + str(time_s) + " " + str(plug.counter) + " " + str(len(plug.unacknowledged))

    def _drain(self, plug: Plug) -> list[str]:
        lines = ["L " + text for text in plug.take_log()]
        output = plug.take_output()
        if output:
            lines.append("N " + output.hex())
        if plug.must_close:
            plug.closed()
            lines.append("X")
        return lines


def run_stdio() -> None:
    """Serve the pipe on standard input and output until Q or the end of the input."""
    pipe = Pipe()
    while not pipe.stopped:
        line = sys.stdin.readline()
        if not line:
            return
        lines = pipe.handle(line.rstrip("\r\n"))
        if lines:
            sys.stdout.write("\n".join(lines) + "\n")
            if hasattr(sys.stdout, "flush"):
                sys.stdout.flush()


class HostStorage(Storage):
    """Files of the host that runs the WASM build; content crosses as hexadecimal text."""

    def __init__(self, hostio: object) -> None:
        self._hostio = hostio

    def read(self, name: str) -> "bytes | None":
        text = self._hostio.load(name)  # type: ignore[attr-defined]  # an injected JavaScript module
        return bytes.fromhex(text[1:]) if text else None

    def write(self, name: str, data: bytes) -> None:
        self._hostio.save(name, data.hex())  # type: ignore[attr-defined]  # as above

    def remove(self, name: str) -> None:
        self._hostio.remove(name)  # type: ignore[attr-defined]  # as above

    def names(self) -> list[str]:
        text = self._hostio.names()  # type: ignore[attr-defined]  # as above
        return sorted(text.split(" ")) if text else []


async def run_hostio(hostio: object) -> None:
    """Serve the pipe over the injected module until Q or the end of the input (an empty line)."""
    pipe = Pipe(HostStorage(hostio))
    while not pipe.stopped:
        line = await hostio.readline()  # type: ignore[attr-defined]  # as above
        if not line:
            return
        lines = pipe.handle(line)
        if lines:
            hostio.writeline("\n".join(lines))  # type: ignore[attr-defined]  # as above


if __name__ == "__main__":
    run_stdio()
