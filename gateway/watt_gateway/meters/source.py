"""Which main meter a household has: by `[modbus]`, by `[ble]`, or none."""

from __future__ import annotations

from pathlib import Path

from watt_gateway.config import GatewayConfig
from watt_gateway.meters.main import MainMeter


def main_meter(config: GatewayConfig, base: Path) -> MainMeter | None:
    """Make the source that the configuration names; ConfigError when its map cannot be used.

    Imported here and not above: a gateway without Bluetooth needs no D-Bus.
    """
    if config.modbus is not None:
        from watt_gateway.meters import modbus

        return modbus.ModbusMeter(config.modbus, modbus.load_map(config.modbus.map, base))
    if config.ble is not None:
        from watt_gateway.meters import ble

        return ble.BleMeter(config.ble, ble.load_ble_map(config.ble.map, base))
    return None
