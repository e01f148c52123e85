"""`wattpact gateway run`: one process, one asyncio loop, one or many households.

Exit codes: 0 after SIGTERM or Ctrl-C, 1 with one line on standard error when it cannot start or something of ours
broke. A household that cannot be served (a damaged store) does not stop the others of its process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from watt_chain.codec import DecodeError
from watt_chain.genesis import open_genesis
from watt_node.config import ConfigError, NetworkSection
from watt_node.log import Log
from watt_node.notify import notify, watchdog_ms

from watt_gateway.commands import Offices
from watt_gateway.config import GatewayConfig, load_config
from watt_gateway.home import Home, Network
from watt_gateway.lightnode import cached_light_client

HOMES_MAX = 200
"""Households in one process: a bench; a Raspberry Pi serves one or a block of flats."""


def load_all(paths: Sequence[Path]) -> list[tuple[Path, GatewayConfig]]:
    """Read the configurations; ConfigError when one is wrong or two households share what they must not."""
    if len(paths) > HOMES_MAX:
        raise ConfigError(f"{len(paths)} configurations; one process serves at most {HOMES_MAX}")
    configs = [(path, load_config(path)) for path in paths]
    names: dict[str, Path] = {}
    folders: dict[Path, Path] = {}
    for path, config in configs:
        folder = Path(os.path.abspath(config.store.path))
        name = config.household.name
        if name in names:
            raise ConfigError(f"{path}: household.name {name} is in {names[name]} too")
        if folder in folders:
            raise ConfigError(f"{path}: store.path {config.store.path} is in {folders[folder]} too")
        names[name] = folders[folder] = path
    return configs


def open_network(section: NetworkSection) -> Network:
    """What a genesis file says; ConfigError when the file is not the regulator's."""
    try:
        data = section.genesis.read_bytes()
    except OSError as error:
        raise ConfigError(f"{section.genesis}: cannot read the genesis file: {error.strerror}") from None
    try:
        genesis, network = open_genesis(data, bytes.fromhex(section.regulator))
    except DecodeError as error:
        raise ConfigError(f"{section.genesis}: {error}") from None
    return Network(cached_light_client(genesis, network), Offices.of(genesis))


def make_homes(configs: Sequence[tuple[Path, GatewayConfig]], log: Log) -> list[Home]:
    """The households that can be served; ConfigError when none can, a line for each that cannot."""
    networks: dict[tuple[Path, str], Network] = {}
    homes: list[Home] = []
    problem: ConfigError | None = None
    for path, config in configs:
        try:
            network = (config.network.genesis, config.network.regulator)
            if network not in networks:
                networks[network] = open_network(config.network)
            homes.append(Home(config, path.parent, networks[network], log))
        except ConfigError as error:
            problem = error
            if len(configs) > 1:
                log.error("household-not-served", config=path, why=str(error))
    if not homes:
        raise problem or ConfigError("no configuration given")
    return homes


async def serve(homes: Sequence[Home], log: Log) -> int:
    """Run until a signal; returns the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tasks = [task for home in homes for task in home.start()]
    log.info("serving", homes=len(homes))
    notify("READY=1")
    watchdog = asyncio.create_task(_watchdog())
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
    notify("STOPPING=1")
    code = 0
    for task in done:
        error = None if task is stopping or task.cancelled() else task.exception()
        if error is not None:  # the supervisor: a task of ours ended, which none may
            traceback.print_exception(error, file=sys.stderr)
            log.error("task-broke", home=task.get_name(), error=repr(error))
            code = 1
    stopping.cancel()
    watchdog.cancel()
    await asyncio.gather(*(home.stop() for home in homes))
    log.info("stopped")
    return code


async def _watchdog() -> None:
    """Tell systemd that the loop turns; it restarts us when this stops."""
    period_ms = watchdog_ms()
    while period_ms:
        await asyncio.sleep(period_ms / 2000)
        notify("WATCHDOG=1")


def run(config_paths: list[Path]) -> int:
    """Serve the households of these files in the foreground; the exit code."""
    try:
        configs = load_all(config_paths)
        level = configs[0][1].log.level if configs else "info"
        log = Log("gateway", level)
        homes = make_homes(configs, log)
    except ConfigError as error:
        print(f"wattpact gateway: {error}", file=sys.stderr)
        return 1
    return asyncio.run(serve(homes, log))
