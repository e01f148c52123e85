"""`wattpact station doctor`: a station and its area, and what a station needs besides: masters and the broker."""

import socket
from pathlib import Path

from watt_node import doctor
from watt_node.config import ConfigError, MqttSection, load
from watt_node.findings import Finding
from watt_node.node import NodeSettings

from watt_station.service import StationConfig

CONNECT_S = 3.0


def run(config_path: Path, *, as_json: bool) -> int:
    """Print the findings; exit code 0 when nothing is bad."""
    try:
        config = load(config_path, StationConfig)
    except ConfigError as error:
        return doctor.refuse(error, as_json=as_json)
    settings = NodeSettings(config.network, config.node, config.tls, config.listen, config.peers)
    return doctor.run(settings, config.main, _broker(config.mqtt), as_json=as_json)


def _broker(section: MqttSection | None) -> list[Finding]:
    """Whether anything listens where the broker should be; the running station's own word is in its status."""
    if section is None:
        return [Finding("warn", "no broker configured: gateways are not heard", "add [mqtt], unless this is a bench")]
    where = f"broker {section.host}:{section.port}"
    try:
        socket.create_connection((section.host, section.port), CONNECT_S).close()
    except OSError as error:
        return [Finding("bad", f"{where}: {error.strerror or error}", "is it running, and reachable from here?")]
    return [Finding("ok", f"{where} listens")]
