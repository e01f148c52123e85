"""What a field run tries on the plugs before its day: commands that must be refused, one that must be obeyed, an update
that is taken and one that is rolled back. What is good goes the gateway's own way; what is bad is put on the broker
past it, for the gateway would not carry it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

from watt_chain import crypto
from watt_gateway import bundles, plugbook
from watt_rig.bench import HOME, Bench
from watt_wire import command, plug_topics

from watt_tools import plug_bundle, plug_tree
from watt_tools.plug_link import LinkError
from watt_tools.plug_pair import fresh_secret
from watt_tools.rig_setup import Trust

PACE = 6
"World and timers of the plugs during the trials: a minute is ten seconds, and a round trip still short."
BETWEEN_S = 0.5
"Between two commands: the plug takes one at a time and looks once a second."
OUTCOME_S = 60
"Until a plug has said what became of a command: it has to be heard of, and to verify two signatures."
UPDATE_S = 180
"Until a bundle of ninety kilobytes is confirmed or taken back: a minute of trial, or three failed starts, at PACE."
MARCH = "x64"
"Of a virtual plug; its mpy number is asked for at every flash."
RELEASE = 2
BROKEN = "watt_plug/device"
EXPECTED = (
    "command-size", "command-network", "command-plug", "command-party", "command-signature", "command-expired",
    "command-early", "command-replayed",
)  # fmt: skip
"Every one of these must be counted by the plug at the end."


class Trials:
    """`publics` gives a plug's public key by name."""

    def __init__(self, bench: Bench, trust: Trust, public: Callable[[str], bytes]) -> None:
        assert bench.collector is not None
        self._bench = bench
        self._collector = bench.collector
        self._trust = trust
        self._public = public
        self.refused: dict[str, int] = {}
        self.outcomes: list[str] = []
        "What the plug signed about the commands that it should obey."

    def id_of(self, name: str) -> bytes:
        """The plug's id."""
        return crypto.id8(self._public(name))

    def knows_the_time(self, name: str) -> bool:
        """Whether its last stored checkpoint carries a good time."""
        return self._collector.qualities.get(self.id_of(name)) == ord("S")

    async def commands(self, name: str, now_s: Callable[[], int]) -> None:
        """Send what must be refused, then one command that must be obeyed, then that one again."""
        for frame in self._bad_frames(name, now_s()):
            self._send(name, frame)
            await asyncio.sleep(BETWEEN_S)
        good = self._frame(name, now_s(), counter=10)
        self.outcomes.append(await self._carried(name, good, 10))
        self._send(name, good)
        await asyncio.sleep(4 * BETWEEN_S)
        release = self._frame(name, now_s(), counter=11, action=command.RELEASE)
        self.outcomes.append(await self._carried(name, release, 11))
        # The button moves the relay, and a plug whose relay moves says at once what it has counted.
        self._bench.fault("button", name, 200)
        self._bench.faults.pop("button", None)

    async def _carried(self, name: str, frame: bytes, counter: int) -> str:
        """Give a command to the gateway; return what the plug signed that it did with it."""
        self._collector.desk.take_command(frame)
        end = time.monotonic() + OUTCOME_S
        while time.monotonic() < end:
            await asyncio.sleep(BETWEEN_S)
            for known in self._collector.book.commands(self.id_of(name), 8):
                if known.counter == counter and known.state != plugbook.WAITING:
                    return known.state
        return plugbook.WAITING

    def counted(self, name: str) -> bool:
        """Whether the plug has told of every refusal; what it told is kept."""
        told = self._collector.desk.status(self.id_of(name)).get("refused")
        if isinstance(told, dict):
            self.refused = {str(reason): int(count) for reason, count in sorted(told.items())}
        return all(reason in self.refused for reason in EXPECTED)

    async def update(self, name: str, bundle: plug_bundle.Bundle) -> str:
        """Hand a bundle to the gateway; return how its transfer ended: by the plug's status or its signed event."""
        plug = self.id_of(name).hex()
        tray = self._collector.tray
        tray.mkdir(exist_ok=True)
        (tray / "bundle.new").write_bytes(bundle.frame)
        (tray / "bundle.new").rename(tray / f"{plug}.bundle")
        end = time.monotonic() + UPDATE_S
        while time.monotonic() < end:
            await asyncio.sleep(BETWEEN_S)
            state = str(self._collector.desk.updates.status().get(plug, {}).get("state", ""))
            if state in (bundles.CONFIRMED, bundles.ROLLED_BACK) or state.startswith(bundles.REFUSED):
                return state
        raise LinkError(f"plug {name}: the transfer of release {bundle.release} did not end in {UPDATE_S} s")

    def good_bundle(self) -> plug_bundle.Bundle:
        """The same firmware as a new release."""
        return plug_bundle.build(RELEASE, MARCH, self._trust.release_keys[:2])

    def broken_bundle(self) -> plug_bundle.Bundle:
        """Signed by two release keys, and it does not start: what a mistake of ours would be."""
        whole = plug_bundle.build(RELEASE, MARCH, self._trust.release_keys[1:])
        contents = [
            (path, b"raise RuntimeError('broken on purpose')\n" if path.startswith(BROKEN) else data)
            for path, data in whole.files()
        ]
        renamed = {path: path.replace(".mpy", ".py") for path, _ in contents if path.startswith(BROKEN)}
        renewed = {renamed.get(path, path): data for path, data in contents}
        ordered = [(path, renewed[path]) for path in plug_tree.release_order(renewed)]
        return plug_bundle.seal(RELEASE, ordered, self._trust.release_keys[1:])

    def _bad_frames(self, name: str, now_s: int) -> list[bytes]:
        good = self._frame(name, now_s, counter=5)
        stranger = crypto.PrivateKey(fresh_secret())
        return [
            good[:-1],
            self._frame(name, now_s, counter=5, network=bytes(32)),
            self._frame(name, now_s, counter=5, plug=bytes(8)),
            self._frame(name, now_s, counter=5, keys=[self._trust.parties[0][1], stranger]),
            good[:-1] + bytes((good[-1] ^ 1,)),
            self._frame(name, now_s - 7200, counter=5),
            self._frame(name, now_s + 7200, counter=5),
        ]

    def _frame(
        self,
        name: str,
        now_s: int,
        counter: int,
        action: int = command.OFF,
        network: bytes = b"",
        plug: bytes = b"",
        keys: list[crypto.PrivateKey] | None = None,
    ) -> bytes:
        signers = sorted(keys or [key for _, key in self._trust.parties], key=lambda key: crypto.id8(key.public))
        body = command.encode(
            command.Command(
                1,
                network or self._trust.network,
                plug or self.id_of(name),
                counter,
                action,
                now_s - 600,
                now_s + 600,
                0 if action == command.RELEASE else 900,
                0,
                secrets.token_bytes(32),
                crypto.id8(signers[0].public),
                crypto.id8(signers[1].public),
            )
        )
        message = command.signing_message(body)
        return command.seal(body, signers[0].sign(message), signers[1].sign(message))

    def _send(self, name: str, frame: bytes) -> None:
        if not self._collector.send(plug_topics.plug_command(HOME, self.id_of(name)), frame):
            raise LinkError(f"the gateway has no broker at {time.strftime('%H:%M:%S')}")
