"""`wattpact audit run`: follows the main chain and every area for the regulator, and can change nothing.

It has no seat and no office: it executes every certified block again, archives it, compares what the main chain
anchored with what the areas' own stations show, and cosigns checkpoints of the main chain (watt_chain.witness), which
it compares with those of other witnesses and with a second master's view. What it finds wrong stays in `alarms.json`
with the bytes that prove it beside it; `wattpact audit show` prints it and ends with 1.

    DATA/archive.sqlite, area<n>/   as a master's
    DATA/checkpoints/<height>       our checkpoints, for others to read: share this folder, by any web server or disk
    DATA/proof-<what>               evidence, as encoded structures
"""

import asyncio
import contextlib
import json
import sys
import urllib.request
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated

import msgspec
from watt_chain import codec
from watt_chain.block import HEADER_SIZE_MAX, Header, block_hash, decode_certified
from watt_chain.codec import DecodeError
from watt_chain.contract import AreaContract, MainContract
from watt_chain.contract.cross_kinds import Fork, PartnerBlock, Readmit
from watt_chain.contract.kinds import Anchor
from watt_chain.ledger import AppliedBlock
from watt_chain.light import LightClient, ProofError
from watt_chain.witness import CHECKPOINT_BLOCKS, CHECKPOINT_SIZE_MAX, Checkpoint, Split, check, compare, cosign
from watt_market.checker import Checker
from watt_node.channel import tls_context
from watt_node.clock import monotonic_ms
from watt_node.config import (
    ConfigError,
    EndpointSection,
    FieldProblem,
    LogSection,
    NetworkSection,
    Section,
    TlsSection,
    load,
)
from watt_node.log import Log
from watt_node.names import chain_name
from watt_node.node import load_genesis
from watt_node.remote import Remote, certified_under
from watt_node.service import Fatal, Service, run_service

from watt_master.archive import Archive, ArchiveError, BlockRow, open_archive
from watt_master.areas import AreaHalted, AreaReplica
from watt_master.config import load_key
from watt_master.restart import AreaSnapshots, restore, set_aside_old_list, take_list
from watt_master.view import MAIN, View

LOOK_S = 1.0
"How often other witnesses' checkpoints are looked for."
COMPARED = 2
"Newest checkpoints that are compared on each look: what is apart shows within two."
FETCH_S = 10.0
"For one checkpoint of another witness, or a second master's view of one block."
PENDING_MAX = 4096
"Anchors that wait for their area's block; more means the area shows us nothing, which is an alarm of its own kind."
RESTORE_YIELD = 20
"Archived blocks executed at start before the loop gets a turn."
SNAPSHOT_BLOCKS = 512
"""Blocks of an area between two states kept for the next start."""


class WitnessSection(Section, frozen=True, kw_only=True):
    """`[[witnesses]]`: another one, and where its checkpoints are read: a folder, or an http(s) URL of one."""

    name: str
    public: str
    at: str


class AuditConfig(Section, frozen=True, kw_only=True):
    """The whole file of `wattpact audit run --config FILE`."""

    network: NetworkSection
    key: Path
    "Signs checkpoints, and nothing else."
    name: str
    "Common name of the certificate."
    data: Path
    tls: TlsSection
    main: list[EndpointSection]
    areas: list[EndpointSection]
    witnesses: Annotated[list[WitnessSection], msgspec.Meta(max_length=64)] = msgspec.field(default_factory=list)
    checkpoint_blocks: Annotated[int, msgspec.Meta(ge=1, le=4096)] = CHECKPOINT_BLOCKS
    log: LogSection = LogSection()

    def __post_init__(self) -> None:
        if not self.main or any(endpoint.chain != MAIN for endpoint in self.main):
            raise FieldProblem("main", "at least one endpoint, and all of the main chain (0)")
        if any(endpoint.chain == MAIN for endpoint in self.areas):
            raise FieldProblem("areas", "chain 0 is the main chain; an area has a number from 1 on")


class Auditor:
    """The daemon."""

    def __init__(self, config: AuditConfig, log: Log) -> None:
        """Reads every file that the configuration names; ConfigError when one cannot be used. Opens nothing."""
        self._config, self._log = config, log
        self.genesis, self.network = load_genesis(config.network)
        self._key = load_key(config.key)
        self._context = tls_context(config.tls, server=False)
        self._light = LightClient(self.genesis, self.network)
        self._archive: Archive | None = None
        market = Checker()
        self._endpoints: dict[int, list[EndpointSection]] = {MAIN: list(config.main)}
        for endpoint in config.areas:
            self._endpoints.setdefault(endpoint.chain, []).append(endpoint)
        self.replicas = {
            chain: AreaReplica(
                self.genesis,
                chain,
                MainContract(market) if chain == MAIN else AreaContract(market),
                self,
                monotonic_ms,
                SNAPSHOT_BLOCKS,
            )
            for chain in self._endpoints
        }
        self._view = View({chain: replica.ledger for chain, replica in self.replicas.items()})
        self._snapshots: dict[int, AreaSnapshots] = {}
        self.checkpoints: dict[int, Checkpoint] = {}
        "Ours, by height: the last COMPARED."
        self.cosigned: dict[str, int] = {}
        "Witness -> newest height at which it said what we say."
        self.alarms: list[dict[str, object]] = []
        self._anchored: dict[tuple[int, int], Anchor] = {}
        "Anchors whose area block we do not have yet."
        self._tasks: list[asyncio.Task[None]] = []
        self._masters = tuple(self.genesis.validators(MAIN))
        self._second = 0

    # Life -------------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """The data folder."""
        return self._config.data

    async def start(self) -> None:
        """Bring every chain to what the archive holds, then follow."""
        folder = self.folder
        try:
            (folder / "checkpoints").mkdir(mode=0o755, parents=True, exist_ok=True)
            self._archive, repaired = open_archive(folder / "archive.sqlite", self.network)
            if repaired:
                self._log.error("archive-repaired", reason=repaired)
            self._snapshots = {chain: AreaSnapshots(folder, chain, self.network) for chain in self.replicas}
            self.alarms = _read_alarms(folder)
            for chain, replica in self.replicas.items():
                replica.on_block(self._main_block if chain == MAIN else self._area_block)
                if chain != MAIN:  # the main chain is restored before them, and says who certifies each
                    replica.listed = self._view.known_list(chain)
                    kept_as = set_aside_old_list(self._archive, folder, replica, self._snapshots[chain])
                    if kept_as:
                        self._log.error("old-list-set-aside", chain=chain, kept_as=kept_as)
                for height in restore(replica, self._archive, self._snapshots[chain]):
                    if height % RESTORE_YIELD == 0:
                        await asyncio.sleep(0)
            self._believe_masters()
        except OSError as error:
            raise ConfigError(f"{folder}: cannot use the data folder: {error.strerror}") from None
        except (ArchiveError, AreaHalted) as error:
            raise Fatal(str(error)) from None
        for chain, replica in self.replicas.items():
            self._begin(self._follow(chain, replica))
        self._begin(self._compare_for_ever())

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        task.add_done_callback(_raise_to_loop)
        self._tasks.append(task)

    async def stop(self) -> None:
        """Close connections and files."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._archive is not None:
            self._archive.close()

    def status(self) -> dict[str, object]:
        """What `status.json` shows."""
        return {
            "chains": {str(chain): replica.status() for chain, replica in self.replicas.items()},
            "checkpoint": max(self.checkpoints, default=0),
            "cosigned": dict(sorted(self.cosigned.items())),
            "alarms": self.alarms,
        }

    # Following --------------------------------------------------------------------------------------------------

    def add(self, *rows: object) -> bool:
        """The replicas' sink."""
        assert self._archive is not None
        return self._archive.add(*rows)  # type: ignore[arg-type]  # BlockSink.add, passed through

    def block(self, chain: int, height: int) -> BlockRow | None:
        """As `add`, the way back."""
        assert self._archive is not None
        return self._archive.block(chain, height)

    def _remote(self, chain: int, start: int) -> Remote:
        log = self._log.bind("main" if chain == MAIN else f"area{chain}")
        return Remote(self._endpoints[chain], self._context, self._config.name, self.network, log, start)

    async def _follow(self, chain: int, replica: AreaReplica) -> None:
        try:
            async for _ in self._remote(chain, 0).follow(replica.height + 1, replica.check):
                replica.anchored(replica.height)  # nothing waits here for an anchor
                state = self._snapshots[chain].due(replica)
                if state is not None:
                    await asyncio.get_running_loop().run_in_executor(None, self._snapshots[chain].write, state)
        except AreaHalted as halted:
            evidence = b"" if replica.refutation is None else codec.encode(replica.refutation)
            self._alarm("refuted", chain, replica.height + 1, str(halted), evidence)

    def _believe_masters(self) -> None:
        """Others' checkpoints are checked against the masters of our own chain, as far as we have executed it."""
        ledger = self.replicas[MAIN].ledger
        if ledger.validators != self._masters:
            self._masters = ledger.validators
            self._light.trust(MAIN, ledger.head.height + 1, ledger.publics)

    def _main_block(self, certified: bytes, applied: AppliedBlock) -> None:
        self._believe_masters()
        for tx, receipt in zip(applied.transactions, applied.receipts, strict=True):
            if tx.kind == "Anchor" and not receipt.code:
                fields = codec.decode(tx.fields_raw, Anchor)
                header = decode_header(fields.header)
                if len(self._anchored) < PENDING_MAX and header.chain in self.replicas:
                    self._anchored[header.chain, header.height] = fields
                    self._compare_anchor(header.chain, header.height)
            if tx.kind == "Readmit" and not receipt.code:
                self._readmitted(codec.decode(tx.fields_raw, Readmit).chain)
        height = applied.header.height
        if height % self._config.checkpoint_blocks == 0:
            parts, block, _, _ = decode_certified(certified)
            made = cosign(self._key, self.network, height, block.header, parts.certificate)
            self.checkpoints[height] = made
            for old in sorted(self.checkpoints)[:-COMPARED]:
                del self.checkpoints[old]
            path = self.folder / "checkpoints" / str(height)
            fresh = path.with_suffix(".new")
            fresh.write_bytes(codec.encode(made))
            fresh.replace(path)

    def _readmitted(self, chain: int) -> None:
        """As a master: what the old list made is set aside by the next start. The alarm stays."""
        replica, listed = self.replicas.get(chain), self._view.known_list(chain)
        if replica is None or listed is None:
            return
        assert self._archive is not None
        why = take_list(self._archive, replica, listed)
        if why:
            asyncio.get_running_loop().call_exception_handler({"message": "auditor stopped", "exception": Fatal(why)})

    def _area_block(self, _: bytes, applied: AppliedBlock) -> None:
        self._compare_anchor(applied.header.chain, applied.header.height)

    def _compare_anchor(self, chain: int, height: int) -> None:
        """The block that the main chain took in must be the one that the area's stations show."""
        assert self._archive is not None
        fields = self._anchored.get((chain, height))
        own = self._archive.block(chain, height)
        if fields is None or own is None:
            return
        del self._anchored[chain, height]
        if own.block_hash == block_hash(self.network, fields.header):
            return
        parts, block, _, _ = decode_certified(own.certified)
        both = Fork(PartnerBlock(fields.header, fields.certificate), PartnerBlock(block.header, parts.certificate))
        self._alarm("fork", chain, height, "the anchored block is not the one that the area shows", codec.encode(both))

    # Witnesses --------------------------------------------------------------------------------------------------

    async def _compare_for_ever(self) -> None:
        seen: set[tuple[str, int]] = set()
        while True:
            await asyncio.sleep(LOOK_S)
            for height in sorted(self.checkpoints):
                for witness in self._config.witnesses:
                    if (witness.name, height) not in seen and await self._compare_with(witness, height):
                        seen.add((witness.name, height))
                if ("", height) not in seen and await self._ask_second_master(height):
                    seen.add(("", height))
            seen = {one for one in seen if one[1] in self.checkpoints}

    async def _compare_with(self, witness: WitnessSection, height: int) -> bool:
        """Whether this witness had a checkpoint of that height, right or wrong."""
        try:
            data = await asyncio.get_running_loop().run_in_executor(None, _fetch, witness.at, height)
        except OSError:
            return False  # not there yet, or not reachable: looked for again
        try:
            theirs = codec.decode(data, Checkpoint, CHECKPOINT_SIZE_MAX)
            own = self.checkpoints[height]
            said, _ = check(theirs, bytes.fromhex(witness.public), self.network, self._light)
            if said != height:
                raise ProofError("height")
        except (DecodeError, ProofError) as error:
            self._log.warning("witness-wrong", witness=witness.name, height=height, reason=error)
            return True
        except KeyError:
            return True  # ours has been passed on the way
        if self._judge(compare(own, theirs, self.network, height), witness.name):
            self.cosigned[witness.name] = height
        return True

    async def _ask_second_master(self, height: int) -> bool:
        """Another master's block of a checkpoint's height: the one we follow may show us a chain of its own."""
        self._second += 1
        try:
            stream = self._remote(MAIN, self._second).follow(height, certified_under(self._light, MAIN))
            async with asyncio.timeout(FETCH_S), contextlib.aclosing(stream) as blocks:  # type: ignore[type-var]
                certified = await anext(aiter(blocks))
        except TimeoutError:
            return False
        parts, block, _, _ = decode_certified(certified)
        own = self.checkpoints.get(height)
        if own is not None:
            theirs = Checkpoint(block.header, parts.certificate, b"", b"")
            self._judge(compare(own, theirs, self.network, height), "another master")
        return True

    def _judge(self, split: Split | None, whom: str) -> bool:
        if split is None:
            return True
        names = ", ".join(self._masters[index].name for index in split.signers if index < len(self._masters))
        text = f"{whom} saw another block than we did; both are certified by {names}"
        self._alarm("split", MAIN, split.height, text, codec.encode([split.first, split.second]))
        return False

    def _alarm(self, kind: str, chain: int, height: int, text: str, evidence: bytes) -> None:
        alarm: dict[str, object] = {"kind": kind, "chain": chain, "height": height, "text": text}
        if alarm in self.alarms:
            return
        name = f"proof-{kind}-{chain}-{height}"
        (self.folder / name).write_bytes(evidence)
        self.alarms.append(alarm)
        (self.folder / "alarms.json").write_text(json.dumps(self.alarms, indent=1))
        self._log.error("ALARM", kind=kind, chain=chain, height=height, reason=text, proof=name)


def decode_header(data: bytes) -> Header:
    """A header that the contract has accepted."""
    return codec.decode(data, Header, HEADER_SIZE_MAX)


def _fetch(at: str, height: int) -> bytes:
    """A witness's checkpoint. OSError when it is not there, or not to be had."""
    if not at.startswith(("http://", "https://")):
        with (Path(at) / str(height)).open("rb") as file:
            return file.read(CHECKPOINT_SIZE_MAX + 1)
    with urllib.request.urlopen(f"{at.rstrip('/')}/{height}", timeout=FETCH_S) as answer:
        data: bytes = answer.read(CHECKPOINT_SIZE_MAX + 1)
        return data


def _read_alarms(folder: Path) -> list[dict[str, object]]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / "alarms.json").read_text())
        return found if isinstance(found, list) else []
    return []


def _raise_to_loop(task: "asyncio.Task[None]") -> None:
    """A task that fails ends the daemon: half an auditor would look as if all were well."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        fatal = Fatal(str(error)) if isinstance(error, ArchiveError) else error
        asyncio.get_running_loop().call_exception_handler({"message": "auditor stopped", "exception": fatal})


def run(config_path: Path) -> int:
    """Run an auditor in the foreground until SIGTERM; returns the exit code."""

    def create() -> tuple[Service, Log]:
        config = load(config_path, AuditConfig)
        log = Log("audit", config.log.level)
        return Auditor(config, log), log

    return run_service("audit", create)


def show(config_path: Path, *, as_json: bool) -> int:
    """Print what the auditor says now: 0 when it has found nothing wrong, 1 when it has, or has said nothing yet."""
    try:
        folder = load(config_path, AuditConfig).data
        status = json.loads((folder / "status.json").read_text())
    except ConfigError as error:
        print(f"wattpact audit show: {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError):
        print(f"wattpact audit show: {folder} has no status yet; does `wattpact audit run` run?", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(status))
    else:
        for chain, about in sorted(status["chains"].items(), key=lambda item: int(item[0])):
            halted = f"; HALTED: {about['halted']}" if about["halted"] else ""
            print(f"{chain_name(int(chain)):<7} executed to height {about['height']}{halted}")
        print(f"checkpoint of the main chain at height {status['checkpoint']}")
        for witness, height in status["cosigned"].items():
            print(f"  {witness} says the same up to height {height}")
        for alarm in status["alarms"]:
            print(f"ALARM {alarm['kind']} {chain_name(alarm['chain'])} height {alarm['height']}: {alarm['text']}")
        print("nothing wrong found" if not status["alarms"] else f"proofs are in {folder}")
    return 1 if status["alarms"] else 0
