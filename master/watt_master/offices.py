"""The offices that a master runs, as one machine: ledgers and clock in, signed transactions out.

Each office says what is due (`grid`, `aggregator`) or carries what others signed (`registrar`); each key has its desk.
No socket and no clock in here: the shell submits what `step` returns, reports refusals and blocks back, and the same
object runs a whole event in memory in the tests.
"""

from collections.abc import Sequence

from watt_chain.block import Receipt
from watt_chain.crypto import PrivateKey
from watt_node.log import Log

from watt_master.aggregator import Aggregator
from watt_master.desk import Desk, Outgoing, Wish
from watt_master.grid import Grid
from watt_master.registrar import Registrar
from watt_master.view import View


class Offices:
    """All services of one master."""

    def __init__(
        self,
        view: View,
        network: bytes,
        log: Log,
        grid: tuple[Grid, PrivateKey] | None = None,
        aggregator: tuple[Aggregator, PrivateKey] | None = None,
        registrar: Registrar | None = None,
    ) -> None:
        self._view = view
        self._log = log
        self.grid = None if grid is None else grid[0]
        self.aggregator = None if aggregator is None else aggregator[0]
        self.registrar = registrar
        self._desks: dict[str, Desk] = {}
        if grid is not None:
            self._desks["grid"] = Desk(grid[1], network, view)
        if aggregator is not None:
            self._desks["aggregator"] = Desk(aggregator[1], network, view)

    def step(self, now_s: int, now_ms: int) -> list[Outgoing]:
        """Look at the ledgers and return what to submit now. `now_s` protocol clock, `now_ms` machine (monotonic)."""
        out: list[Outgoing] = []
        if self.registrar is not None:
            out += self.registrar.step(now_ms)
        if self.grid is not None:
            self._ask("grid", self.grid.due(self._view, now_s), now_ms)
        if self.aggregator is not None:
            self._ask("aggregator", self.aggregator.due(self._view, now_s, now_ms), now_ms)
            for note in self.aggregator.clearing.take_progress():
                tell = self._log.warning if note.what == "failed" else self._log.info
                tell(
                    "clearing",
                    event_number=note.event,
                    state=note.what,
                    running_ms=note.running_ms,
                    detail=note.detail or "-",
                )
        for desk in self._desks.values():
            out += desk.take_output()
        return out

    def _ask(self, office: str, wishes: Sequence[Wish], now_ms: int) -> None:
        desk = self._desks[office]
        for wish in wishes:
            if self.registrar is not None and self.registrar.signs_on(wish.chain, desk.public):
                continue  # the file's transactions were signed with the next nonces of this key; they go first
            if desk.want(wish, now_ms):
                self._log.info("submit", office=office, chain=wish.chain, kind=wish.kind, subject=wish.subject)

    def refused(self, sent: Outgoing, reason: str, now_ms: int) -> None:
        """A chain's pool answered the submission with something else than "" (taken)."""
        for desk in self._desks.values():
            desk.refused(sent.chain, sent.txid, reason, now_ms)
        self._tell()

    def on_block(self, chain: int, receipts: Sequence[Receipt], now_ms: int) -> None:
        """A block was executed here; call after the ledger shows its state."""
        if self.registrar is not None:
            self.registrar.on_block(chain, receipts)
        for desk in self._desks.values():
            desk.on_block(chain, receipts, now_ms)
        self._tell()

    def _tell(self) -> None:
        for office, desk in self._desks.items():
            for answer in desk.take_answers():
                fields = {"office": office, "chain": answer.chain, "kind": answer.kind, "subject": answer.subject}
                if answer.code == "":
                    self._log.info("accepted", **fields)
                else:
                    self._log.warning("refused", **fields, by="block" if answer.final else "pool", reason=answer.code)

    def status(self) -> dict[str, object]:
        """For status.json."""
        shown: dict[str, object] = {}
        if self.grid is not None:
            shown["grid"] = {**self.grid.status(), **self._desks["grid"].status()}
        if self.aggregator is not None:
            shown["aggregator"] = {**self.aggregator.status(), **self._desks["aggregator"].status()}
        if self.registrar is not None:
            shown["registrar"] = self.registrar.status()
        return shown
