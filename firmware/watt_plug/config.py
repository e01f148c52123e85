"""How one plug works: what the owner of a `Plug` decides."""

from watt_plug.meters.sample import PPM, Parser
from watt_plug.register import PULSE_SPAN
from watt_plug.switch import Switch

TYPE_CHECKING = False  # type checkers take the name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from watt_plug.calibration import Calibration


class Config:
    """How one plug works.

    gateway         name of the household's gateway in topics
    rated_w         rated power; bounds what the register accepts
    firmware_hash   32 bytes, of the code that runs (release.py)
    record_s        length of a record; divides slot_s
    slot_s          length of a slot; checkpoints at its multiples
    sample_s        expected time between frames; fewer samples mark a record as partial
    save_records    journal after this many records; at a checkpoint always
    keep_alive_s    of MQTT, in `timer_s` seconds
    time_quality    letter of U, I, S, R (WIRE.md)
    voltage_ppm     voltage divider of a CSE7766 or HLW8032 module
    parser          of another chip that talks over a UART; a CSE7766 without it
    span            of the chip's energy counter, where it is not a CSE7766
    calibration     gains and offsets over the chip's own constants
    switch          the relay; without it the record says "on" and no command is taken
    appliances      sign when the appliance went on and off
    """

    def __init__(
        self,
        gateway: str,
        rated_w: int,
        firmware_hash: bytes,
        record_s: int = 60,
        slot_s: int = 900,
        sample_s: int = 10,
        save_records: int = 1,
        keep_alive_s: int = 60,
        time_quality: str = "S",
        voltage_ppm: int = PPM,
        parser: "Parser | None" = None,
        span: int = PULSE_SPAN,
        calibration: "Calibration | None" = None,
        switch: "Switch | None" = None,
        appliances: bool = False,
    ) -> None:
        assert 0 < record_s <= slot_s and slot_s % record_s == 0
        self.gateway = gateway
        self.rated_w = rated_w
        self.firmware_hash = firmware_hash
        self.record_s = record_s
        self.slot_s = slot_s
        self.sample_s = sample_s
        self.save_records = save_records
        self.keep_alive_s = keep_alive_s
        self.time_quality = time_quality
        if parser is None:
            # Only here: a board with another chip has no heap for this one's parser.
            from watt_plug.meters import cse7766

            parser = cse7766.Parser(voltage_ppm)
        self.parser = parser
        self.span = span
        self.calibration = calibration
        self.switch = switch
        self.appliances = appliances
