"""`wattpact rig field`: three virtual plugs live through a day with faults; then everything is counted again.

Order: start a bench, flash every plug with the real mpremote, take them into the household, let 24 hours of world
time pass while the plan of field_plan.py strikes, bring peace, ask each plug what it has made, recount what the
household holds, and compare. The day runs fast; network timers run slower than the day, because round trips are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from watt_gateway import bundles
from watt_rig.benchfile import BenchFile, BlePart, PlugPart
from watt_rig.vplug import Clock

from watt_tools import field_plan, plug_flash, rig_setup
from watt_tools.field_report import Report, judge
from watt_tools.field_stages import Stages
from watt_tools.field_trials import PACE, RELEASE
from watt_tools.plug_link import LinkError
from watt_tools.plug_pair import PairingError

PLUGS = (
    PlugPart(name="kitchen", chip="cse7766", load="dishwasher-1"),
    PlugPart(name="laundry", chip="cse7766", load="washingmachine-5"),
    PlugPart(name="fridge", chip="cse7766", load="fridge", rated_w=2300),
)
SPEED = 160
"World seconds per second: a day in nine minutes. Ten for each second of the plugs' timers, a step of the fast bench."
TIMER_SPEED = 16
"Of the plugs' ticks: five seconds of theirs are a third of one, in which an answer on a loaded machine still fits."
START_S = 1_772_442_000
"2 March 2026, 09:00 UTC: by day, for at night a plug obeys nobody."
STEP_S = 0.05
SAY_S = 10
"Seconds between lines of progress where there is no terminal."
DRAIN_S = 120
"Seconds of peace until everything must be acknowledged."
UP_S = 60
"Seconds until a plug that was flashed and paired must have stored its first batch."


class FieldError(Exception):
    """The run could not be made; the text says why."""


@dataclass(frozen=True)
class Options:
    """What the command line chose."""

    folder: Path
    hours: int = 24
    seed: int = 1
    speed: int = SPEED
    quiet: bool = False


class FieldRun:
    """One run, from an empty folder to a report."""

    def __init__(self, options: Options) -> None:
        self._options = options
        if options.folder.exists():
            # Only what an earlier run made: a folder of somebody else has no trust/ and no gateway/.
            if not (options.folder / "trust").exists():
                raise FieldError(f"{options.folder} exists and is no bench; name another folder")
            shutil.rmtree(options.folder)
        self.file = BenchFile(plugs=list(PLUGS), ble=BlePart(enabled=True), seed=options.seed, start_s=START_S)
        self.bench, self.trust = rig_setup.make_bench(self.file, options.folder, options.folder)
        self.stages = Stages(self.bench, self.trust, self.file)
        self._events: list[field_plan.Event] = []
        self._began_s = 0
        self._clock_start = time.monotonic()

    async def run(self) -> Report:
        """Make the run; FieldError, LinkError and the bench's own errors when it cannot be made."""
        await self.bench.start()
        watching = asyncio.create_task(self.bench.run())
        try:
            await self._prepare()
            await self._try()
            await self._day()
            await self._drain()
            told = await self._ask()
            return judge(self.bench, self.stages, told, self._began_s, self._seconds())
        finally:
            self.bench.stop_wanted.set()
            await watching
            await self.bench.stop()

    # Before the day.

    async def _prepare(self) -> None:
        self._say(f"flashing {len(PLUGS)} virtual plugs with mpremote")
        await asyncio.gather(*(asyncio.to_thread(self._flash, part.name) for part in PLUGS))
        for part in PLUGS:
            plug = await self.stages.take_in(part.name)
            self._say(f"  {part.name}: {plug.hex()} taken in over Bluetooth")
        await self._wait_for(self._all_have_stored, UP_S, "every plug's first batch")

    async def _try(self) -> None:
        """Commands to one plug, an update that is good to another, one that does not start to the third."""
        commanded, updated, broken = (part.name for part in PLUGS)
        self._say("trying commands, an update, and an update that does not start")
        self._set_speed(PACE, PACE)
        trials = self.stages.trials
        names = list(self.bench.plugs)
        await self._wait_for(lambda: all(trials.knows_the_time(name) for name in names), UP_S, "the time on every plug")
        good, bad = await asyncio.gather(asyncio.to_thread(trials.good_bundle), asyncio.to_thread(trials.broken_bundle))
        _, taken, gone_back = await asyncio.gather(
            trials.commands(commanded, lambda: self.bench.plugs[commanded].world_s),
            trials.update(updated, good),
            trials.update(broken, bad),
        )
        if (taken, gone_back) != (bundles.CONFIRMED, bundles.ROLLED_BACK):
            raise FieldError(f"the good update ended {taken}, the one that does not start {gone_back}")
        await self._wait_for(lambda: trials.counted(commanded), UP_S, f"{commanded} to count what it refused")
        refused = ", ".join(f"{reason} {count}" for reason, count in trials.refused.items())
        self._say(f"  {commanded} obeyed: {', '.join(trials.outcomes)}; refused: {refused}")
        self._say(
            f"  {updated} runs release {RELEASE}; {broken} went back after three starts that failed, and signed it"
        )

    def _flash(self, name: str) -> None:
        flashed = self.stages.flash(name)
        self._say(
            f"  {name}: {flashed.sent} files, {flashed.sent_bytes} bytes, {flashed.verified} verified "
            f"in {flashed.seconds} s"
        )

    def _all_have_stored(self) -> bool:
        assert self.bench.collector is not None
        return len(self.bench.collector.store.tips()) == len(PLUGS)

    # The day.

    async def _day(self) -> None:
        options = self._options
        bench = self.bench
        self._began_s = max(plug.world_s for plug in bench.plugs.values())
        self._set_speed(options.speed, TIMER_SPEED)
        self._events = field_plan.plan([part.name for part in PLUGS], options.hours, options.seed)
        self._say(f"{options.hours} hours at {options.speed} times their pace, {len(self._events)} faults")
        end_s = self._began_s + options.hours * field_plan.HOUR_S
        said_s = 0.0
        while min(plug.world_s for plug in bench.plugs.values()) < end_s:
            for name in bench.plugs:
                self._strike(name)
            self._strike("")
            if time.monotonic() - said_s > SAY_S:
                said_s = time.monotonic()
                self._say(self._line())
            failed = [plug.failed for plug in bench.plugs.values() if plug.failed]
            if failed:
                raise FieldError(failed[0])
            await asyncio.sleep(STEP_S)

    def _set_speed(self, speed: int, timer_speed: int) -> None:
        """Every plug is started anew with another pace; the world goes on where the slowest one stands."""
        clock: Clock = self.bench.clock
        clock.protocol_s = max(plug.world_s for plug in self.bench.plugs.values())
        clock.start_ms = time.time_ns() // 1_000_000
        clock.speed, clock.timer_speed = speed, timer_speed
        for plug in self.bench.plugs.values():
            plug.restart()

    def _strike(self, name: str) -> None:
        """What is due for this plug, at most one thing; for the broker when `name` is empty."""
        for event in self._events:
            if event.plug != name:
                continue
            plug = self.bench.plugs.get(name)
            now_s = (
                min(p.world_s for p in self.bench.plugs.values()) if plug is None else plug.world_s
            ) - self._began_s
            if event.at_s > now_s:
                return
            if plug is not None and event.name in CUTS and not event.early and not plug.life.healthy_now:
                return
            self._events.remove(event)
            self.bench.fault(event.name, event.plug, event.value)
            return

    def _hours(self) -> float:
        return (min(plug.world_s for plug in self.bench.plugs.values()) - self._began_s) / field_plan.HOUR_S

    # After it.

    async def _drain(self) -> None:
        """Peace: no more faults, the world at the pace of the machine, until every batch is acknowledged."""
        self._say("peace: waiting until every batch is acknowledged")
        for name, plug in self.bench.plugs.items():
            self.bench.chips[name].noise_ppm = 0
            plug.jump_clock(0)
            plug.cut_in_write(0)
        self.stages.remember_boots()
        self._set_speed(1, 1)
        await self._wait_for(self.stages.all_acknowledged, DRAIN_S, "the last acknowledgement")

    async def _ask(self) -> dict[str, dict[str, int]]:
        self._say("asking each plug what it has made")
        return {name: await asyncio.to_thread(self._made, name) for name in self.bench.plugs}

    def _made(self, name: str) -> dict[str, int]:
        try:
            return self.stages.made(name)
        except LinkError as error:
            raise FieldError(str(error)) from None

    async def _wait_for(self, fits: Callable[[], bool], timeout_s: float, what: str) -> None:
        end = time.monotonic() + timeout_s
        while not fits():
            if time.monotonic() > end:
                raise FieldError(
                    f"waited {timeout_s:.0f} s in vain for {what}; see the consoles in {self.bench.folder}"
                )
            await asyncio.sleep(0.1)

    def _line(self) -> str:
        assert self.bench.collector is not None
        counts = self.bench.collector.store.counts()
        cuts = sum(plug.life.cuts for plug in self.bench.plugs.values())
        torn = sum(plug.life.torn_writes for plug in self.bench.plugs.values())
        return (
            f"  {self._hours():5.1f} h  {counts.readings} readings stored, {counts.batches} batches, "
            f"{cuts} power cuts ({torn} inside a write), "
            f"faults left {len(self._events)}"
        )

    def _seconds(self) -> int:
        return int(time.monotonic() - self._clock_start)

    def _say(self, text: str) -> None:
        if not self._options.quiet:
            print(f"{self._seconds():4d} s  {text}", flush=True, file=sys.stderr)


CUTS = ("power-cut", "brown-out", "cut-in-write")


def main(options: Options, as_json: bool) -> int:
    """Make a run and print its report; exit code 0 only if everything holds that must."""
    try:
        run = FieldRun(options)
        report = asyncio.run(run.run())
    except (FieldError, LinkError, PairingError, plug_flash.FlashError) as error:
        print(f"wattpact rig field: {error}", file=sys.stderr)
        return 1
    with contextlib.suppress(OSError):
        (options.folder / "report.json").write_text(report.json() + "\n")
    print(report.json() if as_json else report.text())
    return 0 if report.holds else 1
