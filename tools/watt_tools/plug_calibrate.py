"""`wattpact plug calibrate`: the gains that make a plug read as a reference meter does (firmware/DEVICE.md 4).

The plug's own parser reads its chip over the cable for some seconds; the reference is a Modbus meter on the same load,
or values typed in. One load gives the gains. The file carries who did it, when, and against which instrument; its hash
is in every checkpoint from then on.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from watt_gateway.config import ModbusSection
from watt_gateway.meters.main import MeterError
from watt_gateway.meters.modbus import ModbusMeter, load_map
from watt_plug.calibration import GAIN_MAX_PPM, GAIN_MIN_PPM

from watt_tools.plug_link import Cable

PPM = 1_000_000
POWER_MIN_MW = 40_000
"Below 40 W the resolution of the cheap chips is no better than the gain that is sought."
SPREAD_MAX_PPM = 10_000
"The load must hold still: one per cent between the smallest and the largest sample."
SAMPLES_MIN = 5
READ_S = 10
MEASURE = """
import sys, json, time
sys.path.insert(0, "a")
import machine
b = json.load(open("board.json"))
name = {{"hlw8032": "cse7766"}}.get(b["chip"], b["chip"])
chip = getattr(__import__("watt_plug.meters." + name, None, None, (name,)), "Parser")()
u = machine.UART(b["uart"], baudrate=9600 if name == "pzem004t" else 4800, bits=8,
 parity=0 if name == "cse7766" else None, stop=1, rx=b["rx_pin"], tx=b["tx_pin"], rxbuf=256)
out = []
end = time.ticks_add(time.ticks_ms(), {seconds} * 1000)
while time.ticks_diff(end, time.ticks_ms()) > 0:
    if getattr(chip, "request", b""):
        u.write(chip.request)
    time.sleep_ms(500)
    d = u.read()
    for s in chip.feed(d) if d else ():
        if s.valid == 7:
            out.append((s.voltage_mv, s.current_ma, s.power_mw))
    out = out[-50:]
print("WATTPACT " + json.dumps(out))
"""
"Runs on the plug: its own parser on its own UART, without calibration. 50 samples fit the heap beside it."


class CalibrationError(Exception):
    """No calibration was made; the text says why and what to do."""


@dataclass(frozen=True)
class Measured:
    """Means over the time of measuring."""

    voltage_mv: int
    current_ma: int
    power_mw: int


@dataclass(frozen=True)
class Calibration:
    """calibration.json."""

    voltage_ppm: int
    current_ppm: int
    power_ppm: int
    voltage_mv: int
    current_ma: int
    power_mw: int
    reference: str
    operator: str
    date: str


def measure(cable: Cable, seconds: int = READ_S) -> Measured:
    """Let the plug read its chip; CalibrationError when it hears too little or the load moves."""
    samples = cable.ask(MEASURE.format(seconds=seconds))
    if len(samples) < SAMPLES_MIN:
        raise CalibrationError(f"{len(samples)} good samples in {seconds} s, at least {SAMPLES_MIN}: is the load on?")
    powers = [sample[2] for sample in samples]
    mean_mw = sum(powers) // len(powers)
    if mean_mw < POWER_MIN_MW:
        raise CalibrationError(f"a load of {mean_mw} mW, at least {POWER_MIN_MW}: take a lamp of 60 W or a heater")
    if (max(powers) - min(powers)) * PPM > mean_mw * SPREAD_MAX_PPM:
        raise CalibrationError(f"the load moves between {min(powers)} and {max(powers)} mW: take a resistive one")
    return Measured(*(sum(sample[column] for sample in samples) // len(samples) for column in range(3)))


async def reference_of(section: ModbusSection, base: Path) -> Measured:
    """Read a Modbus reference; its current follows from power and voltage, as the load is resistive."""
    meter_map = load_map(section.map, base)
    if meter_map.power is None or meter_map.voltage is None:
        raise CalibrationError(f"map {meter_map.name}: power and voltage are needed")
    meter = ModbusMeter(section, meter_map)
    try:
        power_mw = await meter.read(meter_map.power)
        voltage_mv = await meter.read(meter_map.voltage)
    except MeterError as error:
        raise CalibrationError(f"reference {meter.where}: {error}") from None
    finally:
        meter.close()
    return Measured(voltage_mv, power_mw * 1000 // max(1, voltage_mv), power_mw)


def gains(plug: Measured, reference: Measured, provenance: tuple[str, str, str]) -> Calibration:
    """The calibration that makes `plug` read as `reference`; CalibrationError for a gain that cannot be one."""
    found = []
    for what, measured, wanted in (
        ("voltage", plug.voltage_mv, reference.voltage_mv),
        ("current", plug.current_ma, reference.current_ma),
        ("power", plug.power_mw, reference.power_mw),
    ):
        gain = (wanted * PPM + measured // 2) // measured if measured > 0 else 0
        if not GAIN_MIN_PPM <= gain <= GAIN_MAX_PPM:
            raise CalibrationError(
                f"{what}: the plug reads {measured}, the reference {wanted}: a gain of {gain} ppm is outside "
                f"{GAIN_MIN_PPM}..{GAIN_MAX_PPM}"
            )
        found.append(gain)
    voltage_ppm, current_ppm, power_ppm = found
    return Calibration(voltage_ppm, current_ppm, power_ppm, 0, 0, 0, *provenance)


def calibrate(port: str, reference: Measured | ModbusSection, provenance: tuple[str, str, str]) -> Calibration:
    """Measure, compute, write calibration.json and start the plug."""
    cable = Cable(port)
    plug = measure(cable)
    seen = asyncio.run(reference_of(reference, Path.cwd())) if isinstance(reference, ModbusSection) else reference
    calibration = gains(plug, seen, provenance)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "calibration.json"
        path.write_text(json.dumps(asdict(calibration)))
        # Under another name, then renamed: a cable that falls out leaves the old one (DEVICE.md V1.1).
        cable.write([(path, "calibration.new")], lambda _path: None)
    cable.run("import os; os.rename('/calibration.new', '/calibration.json')")
    cable.reset()
    return calibration
