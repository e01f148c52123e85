"""`wattpact master doctor`: a master and the main chain, the stations it follows, and its archive."""

import contextlib
from pathlib import Path

from watt_node import doctor
from watt_node.config import ConfigError
from watt_node.findings import Finding
from watt_node.node import NodeSettings, load_genesis

from watt_master.archive import DAMAGED, Archive, ArchiveError
from watt_master.config import MasterConfig, load_config


def run(config_path: Path, *, as_json: bool) -> int:
    """Print the findings; exit code 0 when nothing is bad."""
    try:
        config = load_config(config_path)
    except ConfigError as error:
        return doctor.refuse(error, as_json=as_json)
    settings = NodeSettings(config.network, config.node, config.tls, config.listen, config.peers)
    return doctor.run(settings, config.areas, _archive(config), as_json=as_json)


def _archive(config: MasterConfig) -> list[Finding]:
    """Heights of the archive; the running master looks through the rows itself."""
    path = config.node.data / "archive.sqlite"
    if not path.exists():
        return [Finding("ok", f"archive {path}: new, made at the first start")]
    found: list[Finding] = []
    try:
        with contextlib.closing(Archive(path, load_genesis(config.network)[1], read_only=True)) as archive:
            chains = [0, *config.endpoints()]
            heights = ", ".join(f"chain {chain} at {archive.height(chain)}" for chain in chains)
            found.append(Finding("ok", f"archive: {heights}"))
    except ArchiveError as error:
        found.append(
            Finding("bad", f"archive: {error}", "restart the master: it keeps what is sound, fetches the rest")
        )
    except ConfigError:
        pass  # the genesis file: told already
    if path.with_name(path.name + DAMAGED).exists():
        action = "look at the disk (smartctl), then remove it"
        found.append(Finding("warn", f"{path.name}{DAMAGED} was set aside by a repair", action))
    return found
