"""`wattpact master run`: a validator of the main chain that follows every area, archives, anchors, and runs offices.

The pure parts do the deciding (`areas`, `offices`); this module only moves bytes and time: certified blocks from the
stations into the replicas, what is due out to the chains, and blocks of the main chain into the archive.
"""

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from watt_chain import codec
from watt_chain.block import HEADER_SIZE_MAX, Header, block_hash
from watt_chain.contract import AreaContract, MainContract
from watt_chain.contract.cross_kinds import CrossEnd, Readmit
from watt_chain.contract.kinds import Anchor
from watt_chain.ledger import AppliedBlock, Ledger
from watt_chain.transaction import decode_transaction
from watt_market.engine import Market
from watt_node.clock import ProtocolClock, monotonic_ms
from watt_node.config import ConfigError
from watt_node.log import Log
from watt_node.node import Node, NodeSettings
from watt_node.probe import AreaTimes, Prober
from watt_node.remote import Remote
from watt_node.service import Fatal, Service, run_service

from watt_master.aggregator import Aggregator
from watt_master.archive import DAMAGED, Archive, ArchiveDamage, ArchiveError, BlockRow, mark, open_archive
from watt_master.areas import Anchoring, AreaHalted, AreaReplica, rows_of
from watt_master.clearing import Clearing
from watt_master.config import MasterConfig, load_config, load_event, load_key
from watt_master.desk import Outgoing
from watt_master.grid import Grid
from watt_master.links import Link
from watt_master.offices import Offices
from watt_master.overdue import Overdue
from watt_master.progress import event_status
from watt_master.registrar import Registrar, read_file
from watt_master.restart import AreaSnapshots, Inspection, restore, rows_of_stored, set_aside_old_list, take_list
from watt_master.view import MAIN, View

TICK_S = 0.25
"Offices look at the clock this often when no block wakes them; a deadline is met within it."
ANCHORS_PENDING_MAX = 64
"Own anchors without a block at most; the pool takes 256 of one signer."
RESTORE_YIELD = 20
"Archived area blocks executed at start before consensus gets a turn (some 5 ms each)."
RESTORE_TOLD_S = 5.0
"A start that takes long says how far it is."
SNAPSHOT_LOOK_S = 1.0
"How often it is looked whether an area has a new state to be stored."


class Master:
    """The daemon."""

    def __init__(self, config: MasterConfig, log: Log) -> None:
        """Reads every file that the configuration names; ConfigError when one cannot be used. Opens nothing."""
        self._config = config
        self._log = log
        self._clock = ProtocolClock(config.clock.machine_start_ms, config.clock.protocol_start_s, config.clock.speed)
        settings = NodeSettings(config.network, config.node, config.tls, config.listen, config.peers)
        self.node = Node(settings, MainContract(Market()), self._clock, log)
        self._endpoints = config.endpoints()
        self._check_areas()
        self.archive: Archive | None = None
        self._archive_path = self.node.data / "archive.sqlite"
        self._snapshots: dict[int, AreaSnapshots] = {}
        self._inspection = Inspection(self._archive_path, self.node.network)
        self._replicas = {
            chain: AreaReplica(
                self.node.genesis, chain, AreaContract(Market()), self, monotonic_ms, config.node.snapshot_blocks
            )
            for chain in self._endpoints
        }
        ledgers: dict[int, Ledger] = {chain: replica.ledger for chain, replica in self._replicas.items()}
        self.view = View({MAIN: self.node.ledger, **ledgers})
        self._anchoring = Anchoring(self.node.index, len(self.node.genesis.main))
        self._overdue = Overdue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="clearing")
        peers = self.node.peers
        self._prober = Prober(config.areas, peers.client_context, self.node.name, self.node.network)
        self._times = AreaTimes(self._prober, list(self._endpoints))
        self.offices = self._make_offices()
        self._links: dict[int, Link] = {}
        self._remotes: list[Remote] = []
        self._followed: dict[int, Remote] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._live = False
        self.anchors_refused: dict[str, int] = {}
        self.node.on_commit(self._committed)
        self.node.vouch = self._vouch

    def _check_areas(self) -> None:
        known = [area.chain for area in self.node.genesis.areas]
        for chain in self._endpoints:
            if chain not in known:
                raise ConfigError(f"[[areas]] chain {chain}: the genesis file has {known}")
        missing = [chain for chain in known if chain not in self._endpoints]
        services = self._config.services
        if missing and (services.grid or services.aggregator or services.registrar):
            raise ConfigError(f"[services] needs every area of the network; [[areas]] lacks chain {missing}")

    def _make_offices(self) -> Offices:
        services = self._config.services
        grid = aggregator = registrar = None
        genesis = self.node.genesis
        if services.grid is not None:
            event = None
            if services.grid.event is not None:
                rules = self.view.rules(MAIN, self.view.active_rules(MAIN))
                assert rules is not None, "the genesis file holds its active rule set"
                event = load_event(services.grid.event, rules.price_cap_u_per_wh)
            key = load_key(services.grid.key)
            if key.public != genesis.grid:
                raise ConfigError(f"{services.grid.key}: not the grid company's key of this network")
            grid = (Grid(event, self._times.figures_ms), key)
        if services.aggregator is not None:
            key = load_key(services.aggregator.key)
            if key.public != genesis.aggregator:
                raise ConfigError(f"{services.aggregator.key}: not the aggregator's key of this network")
            aggregator = (Aggregator(Clearing(Market().clear, self._thread)), key)
        if services.registrar is not None:
            registrar = Registrar(read_file(services.registrar.file, [MAIN, *self._endpoints]), self.view)
        log = self._log.bind("office")
        return Offices(self.view, self.node.network, log, grid, aggregator, registrar)

    # --- life

    @property
    def folder(self) -> Path:
        """The data folder."""
        return self.node.data

    async def start(self) -> None:
        """Archive and consensus first; then the areas are brought up to the archive, and followed."""
        try:
            self.node.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.archive, repaired = open_archive(self._archive_path, self.node.network)
            self._snapshots = {
                chain: AreaSnapshots(self.node.data, chain, self.node.network) for chain in self._replicas
            }
        except OSError as error:
            raise ConfigError(f"{self.node.data}: cannot use the data folder: {error.strerror}") from None
        except ArchiveError as error:
            raise Fatal(str(error)) from None
        if repaired:
            kept_as = self._archive_path.name + DAMAGED
            self._log.error("archive-repaired", reason=repaired, kept_as=kept_as)
        await self.node.start()
        try:
            self._archive_missed()
            self._live = True
            for replica in self._replicas.values():
                await self._restore(replica)
        except ArchiveError as error:
            raise self._fatal(error) from None
        context, name = self.node.peers.client_context, self.node.name
        self._links[MAIN] = Link([self.node], self._refused)
        for chain, endpoints in self._endpoints.items():
            log = self._log.bind(f"area{chain}")
            # Two halves of the stations, so that two different ones get every transaction.
            halves = [half for half in (endpoints[::2], endpoints[1::2]) if half]
            doors = [Remote(half, context, name, self.node.network, log, self.node.index) for half in halves]
            self._links[chain] = Link(doors, self._refused)
            self._followed[chain] = Remote(endpoints, context, name, self.node.network, log, self.node.index)
            self._remotes += [*doors, self._followed[chain]]
            self._begin(self._follow(self._replicas[chain], self._followed[chain]))
        if self.offices.grid is not None:  # only who makes the signal needs to know how far its areas are
            self._prober.start()
        for link in self._links.values():
            self._begin(link.run())
        self._begin(self._steps())
        self._begin(self._write_snapshots())
        self._begin(self._inspection.run())

    def _fatal(self, error: ArchiveError) -> Fatal:
        """The line that ends the daemon; the next start repairs what is damaged."""
        if not isinstance(error, ArchiveDamage):
            return Fatal(str(error))
        mark(self._archive_path, str(error))
        return Fatal(f"{error}; the next start keeps what is sound and fetches the rest again")

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """A task that fails ends the daemon: half a master would look alive and do nothing."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            fatal = self._fatal(error) if isinstance(error, ArchiveError) else error
            context = {"message": "master stopped", "exception": fatal}
            asyncio.get_running_loop().call_exception_handler(context)

    async def stop(self) -> None:
        """Close connections and files; every archived block is already on disk."""
        self._inspection.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._prober.stop()
        for remote in self._remotes:
            remote.close()
        self._thread.shutdown(wait=False, cancel_futures=True)
        await self.node.stop()
        if self.archive is not None:
            self.archive.close()

    # --- the areas

    def add(self, *rows: object) -> bool:
        """The replicas' sink: the archive, which is open before the first block comes."""
        assert self.archive is not None
        return self.archive.add(*rows)  # type: ignore[arg-type]  # BlockSink.add, passed through

    def block(self, chain: int, height: int) -> BlockRow | None:
        """As `add`, the way back."""
        assert self.archive is not None
        return self.archive.block(chain, height)

    async def _restore(self, replica: AreaReplica) -> None:
        """Bring an area to what the archive holds of it."""
        assert self.archive is not None
        snapshots = self._snapshots[replica.chain]
        told_s = time.monotonic()
        replica.listed = self.view.known_list(replica.chain)
        kept_as = set_aside_old_list(self.archive, self.folder, replica, snapshots)
        if kept_as:
            self._log.error("old-list-set-aside", chain=replica.chain, kept_as=kept_as)
        try:
            for height in restore(replica, self.archive, snapshots):
                if height % RESTORE_YIELD == 0:
                    await asyncio.sleep(0)
                if time.monotonic() - told_s > RESTORE_TOLD_S:
                    told_s = time.monotonic()
                    of = self.archive.height(replica.chain)
                    self._log.info("restoring", chain=replica.chain, height=height, of=of)
        except AreaHalted as halted:
            raise Fatal(f"{self._archive_path}: {halted}") from None
        for event, fields in snapshots.reports:
            self._log.error(event, chain=replica.chain, **fields)
        replica.anchored(self.view.anchor_height(replica.chain))
        self._log.info("area-restored", chain=replica.chain, height=replica.height, from_snapshot=snapshots.written)

    async def _write_snapshots(self) -> None:
        """One state after the other, so that the next start need not execute everything."""
        while True:
            for chain, replica in self._replicas.items():
                state = self._snapshots[chain].due(replica)
                if state is not None:
                    await asyncio.get_running_loop().run_in_executor(None, self._snapshots[chain].write, state)
                    self._log.debug("area-snapshot", chain=chain, height=state.height)
            await asyncio.sleep(SNAPSHOT_LOOK_S)

    async def _follow(self, replica: AreaReplica, remote: Remote) -> None:
        """Take in an area's blocks for ever, or until its quorum proves broken."""
        applied: list[AppliedBlock] = []
        replica.on_block(lambda _, block: applied.append(block))
        try:
            async for _ in remote.follow(replica.height + 1, replica.check):
                for block in applied:
                    self.offices.on_block(replica.chain, block.receipts, monotonic_ms())
                applied.clear()
                self._wake.set()
                self.node.reconsider()
        except AreaHalted as halted:
            self._log.error("ALARM", chain=replica.chain, reason=halted)

    # --- the main chain

    def _committed(self, certified: bytes, applied: AppliedBlock) -> None:
        if not self._live or self.archive is None:
            return  # a block that became final while starting: _archive_missed stores it
        try:
            self.archive.add(*rows_of(applied, certified))
        except ArchiveError as error:
            context = {"message": "master stopped", "exception": self._fatal(error)}
            asyncio.get_running_loop().call_exception_handler(context)
            return
        for tx, receipt in zip(applied.transactions, applied.receipts, strict=True):
            if tx.kind == "Anchor" and receipt.code and tx.signer == self.node.key.public:
                self._anchor_refused(tx.fields_raw, receipt.code)
            if tx.kind == "Readmit" and not receipt.code:
                self._readmitted(codec.decode(tx.fields_raw, Readmit).chain)
        self.offices.on_block(MAIN, applied.receipts, monotonic_ms())
        numbers = self.node.ledger.numbers
        if self.node.index in numbers:
            self._anchoring.index, self._anchoring.masters = numbers.index(self.node.index), len(numbers)
        self._wake.set()

    def _readmitted(self, chain: int) -> None:
        """An area goes on from its anchored block under another list; what the old one made after it is in the way."""
        replica, listed = self._replicas.get(chain), self.view.known_list(chain)
        if replica is None or listed is None:
            return
        self._log.warning("readmitted", chain=chain, from_height=listed.from_height)
        assert self.archive is not None
        why = take_list(self.archive, replica, listed)
        if why:
            asyncio.get_running_loop().call_exception_handler({"message": "master stopped", "exception": Fatal(why)})

    def _archive_missed(self) -> None:
        """Store main blocks that the node has and the archive lacks, as after a crash between the two."""
        assert self.archive is not None
        have, head = self.archive.height(MAIN), self.node.height()
        if have >= head:
            return
        self._log.info("archive-behind", archived=have, height=head)
        for height in range(have + 1, head + 1):
            stored = self.node.stored(height)
            assert stored is not None, "a master keeps every block (MasterConfig)"
            self.archive.add(*rows_of_stored(stored, self.node.network))

    def _anchor_refused(self, fields_raw: bytes, code: str) -> None:
        header = codec.decode(codec.decode(fields_raw, Anchor).header, Header, HEADER_SIZE_MAX)
        self._anchoring.failed(header.chain, header.height)
        self.anchors_refused[code] = self.anchors_refused.get(code, 0) + 1
        if code != "stale":  # another master was faster: expected when this one stood in
            self._log.warning("anchor-refused", chain=header.chain, height=header.height, reason=code)

    async def _steps(self) -> None:
        """Look at ledgers and clock, and hand out what is due."""
        while True:
            self._wake.clear()
            for outgoing in self.offices.step(self._clock.now_s(), monotonic_ms()):
                self._links[outgoing.chain].put(outgoing)
            await self._anchor()
            await self._refute()
            await self._end_overdue()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()

    async def _anchor(self) -> None:
        for chain, replica in self._replicas.items():
            for block in self._anchoring.due(replica, self.view.anchor_height(chain), monotonic_ms()):
                reason = "too-many" if self.node.own_pending() >= ANCHORS_PENDING_MAX else ""
                reason = reason or await self.node.submit_own("Anchor", block.fields)
                if reason:
                    self._anchoring.failed(chain, block.height)
                    self.anchors_refused[reason] = self.anchors_refused.get(reason, 0) + 1

    async def _refute(self) -> None:
        """Say on chain that an area's certified block does not execute, until the area is in quarantine for it."""
        for chain, replica in self._replicas.items():
            barred = self.view.is_quarantined(chain) or self.node.index not in self.node.ledger.numbers
            fields = (
                None if barred else self._anchoring.refutes(replica, self.view.anchor_height(chain), monotonic_ms())
            )
            if fields is not None:
                await self.node.submit_own("Refute", fields)

    async def _end_overdue(self) -> None:
        """Trades across areas that wait for an area in vain are ended by whoever's turn it is."""
        numbers = self.node.ledger.numbers
        if self.node.index not in numbers:
            return
        rank = (numbers.index(self.node.index) - self.node.height()) % len(numbers)
        for event in self._overdue.due(self.view, rank, self._clock.now_s(), monotonic_ms()):
            await self.node.submit_own("CrossEnd", CrossEnd(event))

    def _vouch(self, tx: bytes) -> bool:
        """CONSENSUS.md 4.3.7: an anchor is supported only when its block was executed here with the same result."""
        decoded = decode_transaction(tx)
        if decoded.kind != "Anchor" or self.archive is None:
            return True
        try:
            header_bytes = codec.decode(decoded.fields_raw, Anchor).header
            header = codec.decode(header_bytes, Header, HEADER_SIZE_MAX)
        except codec.DecodeError:
            return True  # the contract refuses it, and that is on chain
        if header.height <= self.view.anchor_height(header.chain):
            return True  # "stale": refused as well
        return self.archive.hash_of(header.chain, header.height) == block_hash(self.node.network, header_bytes)

    def _refused(self, outgoing: Outgoing, reason: str) -> None:
        self.offices.refused(outgoing, reason, monotonic_ms())

    def status(self) -> dict[str, object]:
        """What `status.json` shows."""
        status = self.node.status()
        status["protocol_s"] = self._clock.now_s()
        status["areas"] = {
            str(chain): {
                **replica.status(),
                "anchored": self.view.anchor_height(chain),
                "connected": self._followed[chain].connected if chain in self._followed else "",
                "anchor_rank": self._anchoring.rank(chain),
            }
            for chain, replica in self._replicas.items()
        }
        status["archive"] = {"looked_at": self._inspection.blocks, "whole": self._inspection.done}
        status["anchors"] = {
            "submitted": self._anchoring.submitted,
            "refused": dict(sorted(self.anchors_refused.items())),
        }
        status["ended"] = self._overdue.submitted
        event = event_status(self.view)
        status["events"] = {} if event is None else {str(event["number"]): event}
        status["offices"] = self.offices.status()
        return status


def run(config_path: Path | str) -> int:
    """Run a master in the foreground until SIGTERM; returns the exit code."""

    def create() -> tuple[Service, Log]:
        config = load_config(config_path)
        log = Log("master", config.log.level)
        return Master(config, log), log

    return run_service("master", create)
