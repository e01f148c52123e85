"""The shell around store and forwarder: what one household writes, signs, sends and settles, in that order.

One task per household does all writing, so nothing in the machines is ever entered twice. Each turn: commit what came
in (readings and calls, one durable transaction), acknowledge it to the plugs, settle verified receipts, make new
signatures durable, send what is due. SQLite runs in a worker thread; a slow disk delays one household, not the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from random import Random

import msgspec
from watt_chain import codec, crypto
from watt_chain.codec import DecodeError
from watt_chain.contract.kinds import Checkpoint
from watt_chain.contract.objects import Account, Signer, account_key, signer_key
from watt_chain.transaction import make_transaction, txid
from watt_node.clock import monotonic_ms
from watt_wire import batch as batches
from watt_wire import topics
from watt_wire.errors import DecodeError as WireError

from watt_gateway.forward import Forwarder
from watt_gateway.household import SALT_SIZE
from watt_gateway.lightnode import QUIET_FAILURES, LightNode, QueryFailed, ReceiptMessage, RefusedMessage
from watt_gateway.lines import Lines
from watt_gateway.meters.plug import Fresh, Known, PlugIntake, Refused
from watt_gateway.store import (
    Batch,
    NewItem,
    OutboxFull,
    Store,
    StoredReceipt,
    StoreUnavailable,
    checkpoint_label,
)

GROUP_MS = 20
"""How long a turn waits for company before it commits: one sync for a burst of batches."""
TURN_MS_MAX = 1_000
"""A turn runs at least this often, for repetitions."""
DISK_RETRY_MS = 10_000
"""Pause after the disk refused a write; until then batches are not even looked at (the plugs keep them)."""
SETTLING_MAX = 256
"""Verified receipts waiting for the disk; the rest comes again with the next repetition."""

Publish = Callable[[str, bytes], bool]
MainMeterAt = Callable[[int], int]
"""Protocol time -> main meter register, mWh; -1 = none."""


class Outgoing:
    """Everything between a plug's batch and a verified receipt, for one household."""

    def __init__(
        self,
        name: str,
        area: str,
        chain: int,
        network: bytes,
        key: crypto.PrivateKey,
        store: Store,
        publics: dict[bytes, bytes],
        light: LightNode,
        publish_home: Publish,
        publish_area: Publish,
        main_meter_at: MainMeterAt,
        lines: Lines,
        now_ms: Callable[[], int] = monotonic_ms,
    ) -> None:
        self._name = name
        self._tx_topic = topics.area_tx(area, name)
        self._network, self._chain, self._key = network, chain, key
        self._key_id = crypto.id8(key.public)
        self._store = store
        self._light = light
        self._publish_home, self._publish_area = publish_home, publish_area
        self._main_meter_at = main_meter_at
        self._lines = lines
        self._now_ms = now_ms
        self.intake = PlugIntake(publics, store.tips(), store.frame_hash)
        # The jitter only spreads load; seeded by the key, so that two gateways do not move in step.
        self.forwarder = Forwarder(self._make, Random(self._key_id))
        self.forwarder.restore(store.outbox(), store.attempts())
        counts = store.counts()
        self.readings_received = self.readings_acked = counts.readings
        self.batches_acked = counts.batches
        self.gaps = counts.gaps
        self.final = counts.final
        self.refused = dict(counts.refused)
        "Transactions that are final with a reject code, by code."
        self.disk = "ok"
        self.account_id: bytes | None = None
        "Our account, once the chain has shown whose key this is."
        self.on_settled: Callable[[StoredReceipt], None] = lambda receipt: None
        self._fresh: list[Batch] = []
        self._calls: list[NewItem] = []
        self._settling: dict[int, StoredReceipt] = {}
        self._disk_until_ms = 0
        self._wake = asyncio.Event()
        self._account_task: asyncio.Task[None] | None = None

    # ---- what comes in (on the loop, never blocks) --------------------------------------------------------------

    def take_batch(self, topic: str, payload: bytes) -> None:
        """A message under a batch topic of ours."""
        try:
            _, plug = topics.parse_plug_batch(topic)
        except WireError:
            self.intake.refused["topic"] = self.intake.refused.get("topic", 0) + 1
            return
        if self._now_ms() < self._disk_until_ms:
            self.intake.refused[self.disk] = self.intake.refused.get(self.disk, 0) + 1
            return
        verdict = self.intake.judge(plug, payload)
        if isinstance(verdict, Fresh):
            self.readings_received += verdict.batch.record_count
            self._fresh.append(verdict.batch)
            self._wake.set()
        elif isinstance(verdict, Known):
            self._acknowledge(verdict.plug, verdict.counter, verdict.frame_hash)
        elif isinstance(verdict, Refused):
            self._lines.warn(f"batch-refused-{verdict.reason}", plug=plug)

    def admit(self, publics: dict[bytes, bytes]) -> None:
        """The household has these plugs from now on."""
        self.intake.admit(publics)

    def take_receipt(self, message: ReceiptMessage) -> None:
        """A station claims that a transaction is final: believe the proof, not the station."""
        found = self.forwarder.find(message.txid)
        if found is None or found[0].seq in self._settling or len(self._settling) >= SETTLING_MAX:
            return  # settled already (every station may answer), or the next repetition brings it
        item, attempt = found
        outcome = self._light.check_receipt(message.proof, attempt.tx)
        if outcome is None:
            self._lines.warn("receipt-proves-nothing", txid=message.txid)
            return
        code, height, time_s = outcome
        receipt = StoredReceipt(item.label, item.kind, attempt.txid, code, height, time_s, attempt.tx, message.proof)
        self._settling[item.seq] = receipt
        self._wake.set()

    def take_refusal(self, message: RefusedMessage) -> None:
        """A station's pool did not take a transaction."""
        self.forwarder.pool_refused(message.txid, message.reason, self._now_ms())
        self._wake.set()

    def call(self, items: tuple[NewItem, ...]) -> None:
        """Queue calls of the household's app."""
        self._calls.extend(items)
        self._wake.set()

    def broker_up(self) -> None:
        """The area's broker is back."""
        self.forwarder.broker_up()
        self._wake.set()

    # ---- the one writing task -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Turn for ever; cancelled at stop. Whatever is not on disk then was not acknowledged either."""
        while True:
            deadline = self.forwarder.next_deadline_ms()
            wait_ms = TURN_MS_MAX if deadline is None else min(TURN_MS_MAX, max(GROUP_MS, deadline - self._now_ms()))
            try:
                await asyncio.wait_for(self._wake.wait(), wait_ms / 1000)
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(GROUP_MS / 1000)
            self._wake.clear()
            await self.turn()

    async def turn(self) -> None:
        """One turn; a disk that refuses ends it and nothing is lost or acknowledged."""
        if self._now_ms() < self._disk_until_ms:
            return
        try:
            await self._commit()
            await self._settle()
            await self._sign()
        except StoreUnavailable as error:
            self.disk = error.reason
            self._disk_until_ms = self._now_ms() + DISK_RETRY_MS
            self._drop_uncommitted()
            action = "readings stay in the plugs; free some space"
            self._lines.warn("disk-refuses", reason=error.reason, folder=self._store.path.parent, action=action)
            return
        if self.disk != "ok":
            self.disk = "ok"
            self._lines.clear("disk-refuses")
        self._ask_account()
        self._send()

    async def _commit(self) -> None:
        fresh, self._fresh = self._fresh, []
        calls, self._calls = self._calls, []
        if not fresh and not calls:
            return
        stored = [replace(batch, main_meter_mwh=self._main_meter_at(batch.time_s)) for batch in fresh]
        items = [
            NewItem(
                "Checkpoint",
                checkpoint_label(batch.plug, batch.counter),
                codec.encode(Checkpoint(batch.frame, batch.main_meter_mwh)),
            )
            for batch in stored
        ]
        try:
            queued = await asyncio.to_thread(self._store.commit, stored, [*items, *calls])
        except OutboxFull as error:
            self._fresh = fresh + self._fresh
            self._drop_uncommitted()
            self._lines.warn("outbox-full", detail=str(error), action="readings stay in the plugs")
            if stored:
                self._calls = calls + self._calls  # they have places of their own: the next turn takes them
            return
        except StoreUnavailable:
            self._fresh = fresh + self._fresh
            self._calls = calls + self._calls
            raise
        self._lines.clear("outbox-full")
        self.forwarder.add(queued)
        for batch in stored:
            self.intake.stored(batch)
            self.batches_acked += 1
            self.readings_acked += batch.record_count
            if batch.gap:
                self.gaps += 1
                self._lines.warn("counter-gap", plug=batch.plug, counter=batch.counter)
            self._acknowledge(batch.plug, batch.counter, batch.frame_hash)

    def _drop_uncommitted(self) -> None:
        # The plugs hold these batches and offer them again.
        self.readings_received -= sum(batch.record_count for batch in self._fresh)
        self._fresh.clear()
        self.intake.not_stored()

    async def _settle(self) -> None:
        if not self._settling:
            return
        settled = list(self._settling.items())
        await asyncio.to_thread(self._store.settle, settled)
        for seq, receipt in settled:
            del self._settling[seq]
            self.forwarder.settled(seq, receipt.height)
            if receipt.code:
                self.refused[receipt.code] = self.refused.get(receipt.code, 0) + 1
                self._lines.warn(f"final-but-refused-{receipt.kind}", label=receipt.label, code=receipt.code)
            else:
                self.final += 1
            self.on_settled(receipt)

    async def _sign(self) -> None:
        attempts = self.forwarder.to_sign()
        if attempts:
            await asyncio.to_thread(self._store.record_attempts, attempts)
            self.forwarder.signed(attempts)

    def _send(self) -> None:
        sends = self.forwarder.due(self._now_ms())
        missed = [send for send in sends if not self._publish_area(self._tx_topic, send.tx)]
        self.forwarder.not_sent(missed)

    # ---- the account's nonce ------------------------------------------------------------------------------------

    def _ask_account(self) -> None:
        if self._account_task is not None and not self._account_task.done():
            return
        if self.forwarder.wants_account(self._now_ms()):
            self._account_task = asyncio.ensure_future(self.fetch_account())

    async def fetch_account(self) -> None:
        """Learn by proof which account our key signs for and the last nonce it used; silent when nobody answers."""
        try:
            key_of = signer_key(self._key_id)
            keys = [key_of, account_key(self.account_id or self._key_id)]
            proven = await self._light.state(keys)
            if key_of not in proven.values:
                self._lines.warn("not-enrolled", key=self._key_id, action="have the regulator enrol this key")
                return
            signer = codec.decode(proven.values[key_of], Signer)
            if keys[1] not in proven.values or signer.account != (self.account_id or self._key_id):
                self.account_id = signer.account  # a rotated key: the account keeps its first key's id
                proven = await self._light.state([account_key(signer.account)])
            self.account_id = signer.account
            raw = proven.values.get(account_key(signer.account))
            if raw is None:
                return
            self.forwarder.account(codec.decode(raw, Account).nonce, proven.height)
        except QueryFailed as failure:
            if failure.reason not in QUIET_FAILURES:
                self._lines.warn("stations-silent", reason=failure.reason)
            return
        except DecodeError as error:
            self._lines.warn("state-of-another-version", error=str(error))
            return
        self._lines.clear("not-enrolled")
        self._lines.clear("stations-silent")
        self._wake.set()

    def bid_salt(self, event: int) -> bytes:
        """Salt of this household's one sealed bid in an event: a secret of its key, so a lost disk can be replaced."""
        label = b"bid-salt/" + self._network + self._chain.to_bytes(4, "big") + event.to_bytes(8, "big")
        return self._key.derive(label)[:SALT_SIZE]

    # ---- inside -------------------------------------------------------------------------------------------------

    def _make(self, kind: str, nonce: int, fields: bytes) -> tuple[bytes, bytes]:
        tx = make_transaction(self._key, self._network, kind, self._chain, nonce, msgspec.Raw(fields))
        return txid(tx), tx

    def _acknowledge(self, plug: bytes, counter: int, frame_hash: bytes) -> None:
        # A lost acknowledgement costs one repetition of the plug.
        self._publish_home(topics.plug_ack(self._name, plug), batches.encode_ack(counter, frame_hash))
