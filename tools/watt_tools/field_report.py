"""What a field run has shown: figures, what must hold, and whether it did."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from watt_gateway import plugbook
from watt_rig.bench import Bench
from watt_rig.load import Load
from watt_rig.recount import Recount, recount

from watt_tools.field_stages import Stages
from watt_tools.field_trials import EXPECTED, RELEASE

CUTS_MIN = 200
"Power cuts that a run of 24 hours must survive; a shorter run fewer in proportion."
RECORD_S = 60
UJ_PER_MWH = 3_600_000
GRACE_S = 30
"World seconds that a plug may look at its chip late: three steps of the fast clock."
OVERLOAD_PPM = 1_250_000
FRESH_S = 90
"DEVICE.md V3.4 (b), with starts that were cut short before and the fast world's late looks."


@dataclass
class PlugReport:
    """One plug."""

    name: str
    made: int
    signed: int
    waiting: int
    "Signed and not acknowledged at the end."
    stored: int
    lost: int
    duplicated: int
    cuts: int
    torn_writes: int
    boots: int
    starts_signed: int
    register_wh: int
    true_wh: int
    unmeasured_wh: int
    explained_wh: int
    """What may be missing: energy that flowed between the last journal before a cut and the first look at the chip
    after it, the same for resets after which the chip's counter was so low that it may have begun anew, as many of the
    longest other resets as discontinuities were signed, and what is not journaled at the end."""
    resets: int = 0
    "Resets of the processor alone."
    resets_left_out: int = 0
    "Of these, the ones whose energy cannot be told from that of a chip that began anew."
    discontinuities: int = 0
    faults_found: list[str] = field(default_factory=list)
    recount: Recount = field(default_factory=Recount)


@dataclass
class Report:
    """The whole run."""

    hours: float
    seconds: int
    readings_made: int
    readings_signed: int
    readings_acknowledged: int
    readings_lost: int
    readings_duplicated: int
    power_cuts: int
    power_cuts_survived: int
    power_cuts_wanted: int
    updates_taken: int
    updates_rolled_back: int
    commands_obeyed: int
    outcomes: list[str]
    "What the plug signed about the commands that it should obey."
    commands_refused: dict[str, int]
    events: int
    "Signed events that the gateway has."
    batches_refused: dict[str, int]
    faults: dict[str, int]
    plugs: list[PlugReport]
    problems: list[str]

    @property
    def holds(self) -> bool:
        """Whether everything that must hold does."""
        return not self.problems

    def json(self) -> str:
        """The report as JSON."""
        return json.dumps({**asdict(self), "holds": self.holds}, indent=1)

    def text(self) -> str:
        """The report for people."""
        rows = [
            ("simulated", f"{self.hours:.1f} h in {self.seconds} s"),
            ("readings made", str(self.readings_made)),
            ("  signed", str(self.readings_signed)),
            ("  acknowledged", str(self.readings_acknowledged)),
            ("  lost", str(self.readings_lost)),
            ("  duplicated", str(self.readings_duplicated)),
            (
                "power cuts",
                f"{self.power_cuts}, survived {self.power_cuts_survived} (at least {self.power_cuts_wanted})",
            ),
            ("updates", f"{self.updates_taken} taken, {self.updates_rolled_back} rolled back"),
            ("commands", f"{self.commands_obeyed} obeyed, refused: {_counts(self.commands_refused)}"),
            ("events", str(self.events)),
            ("batches refused", _counts(self.batches_refused)),
            ("faults", _counts(self.faults)),
        ]
        lines = [f"{name:<16} {value}" for name, value in rows]
        lines.append(
            f"\n{'plug':<9}{'made':>6}{'stored':>8}{'cuts':>6}{'torn':>6}{'boots':>7}{'resets':>8}{'discont.':>10}"
            "  register / true Wh"
        )
        for plug in self.plugs:
            lines.append(
                f"{plug.name:<9}{plug.made:>6}{plug.stored:>8}{plug.cuts:>6}{plug.torn_writes:>6}{plug.boots:>7}"
                f"{plug.resets:>8}{plug.discontinuities:>10}  {plug.register_wh} / {plug.true_wh}"
                f"  (missing {plug.unmeasured_wh}, explained {plug.explained_wh})"
            )
        lines.append("\neverything holds" if self.holds else "\nDOES NOT HOLD")
        return "\n".join([*lines, *(f"  - {problem}" for problem in self.problems)])


def judge(bench: Bench, stages: Stages, told: dict[str, dict[str, int]], began_s: int, seconds: int) -> Report:
    """Compare what the plugs made with what the household holds."""
    assert bench.collector is not None
    plugs = [_plug(bench, stages, name, made) for name, made in told.items()]
    hours = (min(plug.world_s for plug in bench.plugs.values()) - began_s) / 3600
    lives = [plug.life for plug in bench.plugs.values()]
    cuts = sum(life.cuts for life in lives)
    report = Report(
        hours=round(hours, 2),
        seconds=seconds,
        readings_made=sum(plug.made for plug in plugs),
        readings_signed=sum(plug.signed for plug in plugs),
        readings_acknowledged=sum(plug.stored for plug in plugs),
        readings_lost=sum(plug.lost for plug in plugs),
        readings_duplicated=sum(plug.duplicated for plug in plugs),
        power_cuts=cuts,
        power_cuts_survived=cuts if all(not plug.failed for plug in bench.plugs.values()) else 0,
        power_cuts_wanted=int(CUTS_MIN * min(24, round(hours)) / 24),
        updates_taken=sum(made["release"] == RELEASE for made in told.values()),
        updates_rolled_back=sum(made["roll_backs"] for made in told.values()),
        commands_obeyed=sum(plug.recount.reasons.get("command", 0) for plug in plugs),
        outcomes=stages.trials.outcomes,
        commands_refused=stages.trials.refused,
        events=bench.collector.desk.events,
        batches_refused=dict(sorted(bench.collector.intake.refused.items())),
        faults=dict(sorted(bench.faults.items())),
        plugs=plugs,
        problems=[],
    )
    report.problems = _problems(report)
    return report


def _plug(bench: Bench, stages: Stages, name: str, made: dict[str, int]) -> PlugReport:
    plug, chip = bench.plugs[name], bench.chips[name]
    found = recount(bench.folder / "gateway" / "gateway.sqlite", stages.public(name))
    first_s = found.first_s
    true_uj = chip.load.energy_uj(plug.world_s) - chip.load.energy_uj(first_s)
    shown_mwh = made["import_mwh"] - found.first_mwh
    gaps = [_gap_uj(chip.load, looks) for looks in chip.lives if looks[0] > first_s]
    after = [looks for looks in chip.resets if looks[0] > first_s]
    low_uj = chip.load.rated_w * OVERLOAD_PPM * FRESH_S
    low = [looks for looks in after if looks[2] <= low_uj]
    resets = sorted((_gap_uj(chip.load, looks[:2]) for looks in after if looks[2] > low_uj), reverse=True)
    gaps += [_gap_uj(chip.load, looks[:2]) for looks in low]
    # What was measured after the last journal of the run is still in the plug's memory when it is asked.
    tail = _gap_uj(chip.load, [stages.peace_s[name], plug.world_s])
    explained_uj = sum(gaps) + sum(resets[: found.discontinuities]) + tail
    return PlugReport(
        name=name,
        made=made["made"],
        signed=made["signed"],
        waiting=made["waiting"],
        stored=found.records - found.duplicate_records,
        lost=max(0, made["signed"] - (found.records - found.duplicate_records)),
        duplicated=found.duplicate_records,
        cuts=plug.life.cuts,
        torn_writes=plug.life.torn_writes,
        boots=plug.life.boots,
        starts_signed=found.boots,
        register_wh=shown_mwh // 1000,
        true_wh=true_uj // UJ_PER_MWH // 1000,
        unmeasured_wh=(true_uj // UJ_PER_MWH - shown_mwh) // 1000,
        explained_wh=explained_uj // UJ_PER_MWH // 1000,
        resets=len(after),
        resets_left_out=len(low),
        discontinuities=found.reasons.get("discontinuity", 0),
        faults_found=_store_faults(found),
        recount=found,
    )


def _gap_uj(load: Load, looks: list[int]) -> int:
    """Energy from the last journal before a start to the first look at the chip after it."""
    began_s, looked_s = looks
    until_s = (looked_s if looked_s >= 0 else began_s) + GRACE_S
    return load.energy_uj(until_s) - load.energy_uj(began_s - RECORD_S - GRACE_S)


def _store_faults(found: Recount) -> list[str]:
    """What is wrong with what is stored of one plug."""
    counted = {
        "checkpoints missing": found.missing_checkpoints,
        "broken links": found.broken_links,
        "bad signatures": found.bad_signatures,
        "records missing": found.missing_records,
        "records twice": found.duplicate_records,
        "registers that fell": found.fallen_registers,
    }
    return [f"{count} {what}" for what, count in counted.items() if count]


def _problems(report: Report) -> list[str]:
    found = []
    for plug in report.plugs:
        found += [f"{plug.name}: {fault}" for fault in plug.faults_found]
        if plug.waiting:
            found.append(f"{plug.name}: {plug.waiting} batches are not acknowledged")
        if plug.unmeasured_wh > plug.explained_wh + 1:
            found.append(f"{plug.name}: {plug.unmeasured_wh} Wh are missing, {plug.explained_wh} are explained")
        if plug.unmeasured_wh < -1:
            found.append(f"{plug.name}: the register shows {-plug.unmeasured_wh} Wh that never flowed")
    if report.readings_lost or report.readings_duplicated:
        found.append(f"{report.readings_lost} readings lost, {report.readings_duplicated} duplicated")
    if report.power_cuts_survived < report.power_cuts_wanted:
        found.append(f"{report.power_cuts_survived} power cuts survived, wanted are {report.power_cuts_wanted}")
    if report.batches_refused.get("chain-fork", 0):
        found.append("a plug signed two checkpoints under one counter")
    if (report.updates_taken, report.updates_rolled_back) != (1, 1):
        found.append(
            f"{report.updates_taken} updates taken, {report.updates_rolled_back} rolled back, 1 of each was sent"
        )
    if report.commands_obeyed < 2 or set(report.outcomes) != {plugbook.ACCEPTED}:
        found.append(f"of the good commands {report.commands_obeyed} were obeyed, the plug signed {report.outcomes}")
    found += [f"no command was refused as {reason}" for reason in EXPECTED if reason not in report.commands_refused]
    return found


def _counts(values: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in values.items()) or "none"
