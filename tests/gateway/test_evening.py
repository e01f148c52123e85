"""One evening of two households on real ledgers: readings in, bids, confirmations, bill out, with every fault between.

The chains, the contract and the market are the real ones (contract_world); the station is a stand-in that can lose,
repeat, forge and refuse. Nothing sleeps: the tests turn the gateways' tasks by hand.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from contract_world import AGGREGATOR, Plan, Play, World, make_spec
from contract_world import Home as Household
from msgspec.structs import replace
from plug_stand_in import PlugStandIn
from watt_chain import codec
from watt_chain.contract import kinds, rematch
from watt_chain.contract.event import State
from watt_chain.contract.objects import Plug, plug_key
from watt_chain.contract.orders import PairState
from watt_chain.contract.readers import may_read, reader_of
from watt_chain.contract.rematch_kinds import Rematch, Reopen
from watt_chain.contract.rules import RULES_1, RuleSet
from watt_chain.ledger import AppliedBlock
from watt_chain.light import ReceiptProof, StateProof
from watt_chain.question import decode_question, is_signed
from watt_chain.transaction import txid
from watt_gateway import bill
from watt_gateway.follow import Follower
from watt_gateway.lightnode import LightNode, ReceiptMessage, RefusedMessage, cached_light_client
from watt_gateway.lines import Lines
from watt_gateway.outgoing import Outgoing
from watt_gateway.store import Store, StoreUnavailable
from watt_node.clock import ProtocolClock
from watt_node.log import Log
from watt_wire import batch, topics


class Quiet:
    """A stream that keeps the lines."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


class Station:
    """Answers what a station answers, from the world's ledger of one area; faults are switched on by the test."""

    def __init__(self, world: World, chain: int) -> None:
        self.world, self.chain = world, chain
        self.gateways: dict[str, Gateway] = {}
        self.lose_receipts = self.lose_transactions = self.silent = False
        self.dead_nodes: set[int] = set()
        self.asked: list[int] = []
        self.seen: list[bytes] = []
        self.final: dict[bytes, int] = {}
        self.tamper: Callable[[list[Any]], list[Any]] | None = None

    @property
    def ledger(self):  # type: ignore[no-untyped-def]
        return self.world.ledgers[self.chain]

    def publish(self, topic: str, payload: bytes) -> bool:
        if "/tx/" in topic:
            self._transaction(topics.parse_area_tx(topic)[1], payload)
        else:
            _, node, gateway = topics.parse_area_query(topic)
            self.asked.append(node)
            if node not in self.dead_nodes and not self.silent:
                question, body = decode_question(payload)
                assert is_signed(question, self.world.network) and body.gateway == gateway
                reader = reader_of(self.ledger.state, question.signer)
                assert reader is not None
                proof = self.ledger.state_proof([key for key in body.keys if may_read(self.ledger.state, reader, key)])
                self._reply(gateway, ["state", body.nonce, codec.encode(proof)])
        return True

    def _transaction(self, gateway: str, tx: bytes) -> None:
        self.seen.append(tx)
        if self.lose_transactions:
            return
        identity = txid(tx)
        if identity not in self.final:
            expected = self.ledger.next_nonce(codec.decode(tx, list)[1])  # type: ignore[type-var]
            nonce = msgspec.msgpack.decode(codec.decode(tx, list)[0])[2]  # type: ignore[type-var]
            if expected < 0 or nonce < expected:
                self._reply(gateway, ["refused", identity, "signer-unknown" if expected < 0 else "nonce-used"])
                return
            applied: AppliedBlock = self.world.block(self.chain, [tx])
            if not applied.receipts:
                return
            self.final[identity] = applied.header.height
        if not self.lose_receipts:
            proof = self.ledger.receipt_proof(self.final[identity], identity)
            self._reply(gateway, ["receipt", identity, codec.encode(proof)])

    def _reply(self, gateway: str, answer: list[Any]) -> None:
        if self.tamper is not None:
            answer = self.tamper(copy.deepcopy(answer))
        payload = msgspec.msgpack.encode(answer)
        asyncio.get_running_loop().call_soon(self.gateways[gateway].reply, payload)

    def notice(self, number: int = 1) -> None:
        payload = msgspec.msgpack.encode(["event", codec.encode(self.ledger.state_proof([b"event/%d" % number]))])
        for gateway in self.gateways.values():
            gateway.follower.take_notice(payload)


class Gateway:
    """The gateway of one household of the world, without MQTT."""

    def __init__(self, world: World, station: Station, household: Household, folder: Path, plan: object) -> None:
        self.world, self.station, self.household, self.folder = world, station, household, folder
        self.name = f"home{household.number}"
        folder.mkdir(exist_ok=True)
        (folder / "plan.json").write_text(json.dumps(plan))
        self.acks: list[tuple[int, bytes]] = []
        self.plans: list[dict[str, Any]] = []
        self.stream = Quiet()
        self.now_ms = 0
        self.start()
        station.gateways[self.name] = self

    def start(self) -> None:
        """Start, or start again from what is on disk."""
        lines = Lines(Log("test", "info", self.stream), lambda: self.now_ms)  # type: ignore[arg-type]
        self.store = Store(self.folder / "gateway.sqlite")
        client = cached_light_client(self.world.genesis, self.world.network)
        chain = self.station.chain
        self.light = LightNode(
            client, self.household.key, chain, 4, 0, f"area{chain}", self.name, self.station.publish, query_ms=20
        )
        self.plug = PlugStandIn(self.household.number)
        publics = {self.household.plug_id: self.household.plug.public}
        self.outgoing = Outgoing(
            self.name, f"area{chain}", chain, self.world.network, self.household.key, self.store, publics, self.light,
            self.home, self.station.publish, lambda time_s: -1, lines, lambda: self.now_ms,
        )  # fmt: skip
        clock = ProtocolClock(0, 0, 1, lambda: self.world.now_s * 1000)
        self.follower = Follower(
            self.outgoing, self.light, self.store, clock, self.folder / "plan.json", self.folder, self.world.network,
            chain, lambda payload: self.plans.append(json.loads(payload)) is None, lines,
        )  # fmt: skip
        self.outgoing.on_settled = self.follower.settled

    def home(self, topic: str, payload: bytes) -> bool:
        assert topic == topics.plug_ack(self.name, self.household.plug_id)
        self.acks.append(batch.decode_ack(payload))
        return True

    def reply(self, payload: bytes) -> None:
        answer = self.light.take(payload)
        if isinstance(answer, ReceiptMessage):
            self.outgoing.take_receipt(answer)
        elif isinstance(answer, RefusedMessage):
            self.outgoing.take_refusal(answer)

    async def turn(self, times: int = 6) -> None:
        """Let the gateway work until nothing moves: commit, ask, sign, send, settle."""
        for _ in range(times):
            await self.outgoing.turn()
            if self.outgoing._account_task is not None:
                await self.outgoing._account_task
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.now_ms += 5

    async def look(self) -> None:
        await self.follower.look()
        await self.turn()

    def reading(self, time_s: int, add_mwh: int = 0) -> bytes:
        """A batch of the household's plug, handed to the gateway."""
        payload = batch.encode(self.household.checkpoint(time_s, add_mwh), [])
        self.outgoing.take_batch(topics.plug_batch(self.name, self.household.plug_id), payload)
        return payload


def evening(tmp_path: Path, homes: int = 2, rules: RuleSet = RULES_1) -> tuple[World, Station, Gateway, Gateway]:
    world = World(areas=1, rules=rules, homes=[Household(number, 1) for number in range(homes)])
    station = Station(world, 1)
    seller = Gateway(
        world, station, world.homes[0], tmp_path / "a", {"side": "sell", "price_u_per_wh": 300, "slot_wh": [50] * 4}
    )
    buyer = Gateway(
        world, station, world.homes[1], tmp_path / "b", {"side": "buy", "price_u_per_wh": 900, "slot_wh": [40] * 4}
    )
    # The world enrolled the plugs with a first checkpoint of its own; the gateways begin after it.
    for gateway in (seller, buyer):
        gateway.outgoing.intake._patience_is_over = lambda plug, counter, frame: True  # type: ignore[method-assign]
    return world, station, seller, buyer


async def play(
    world: World,
    station: Station,
    gateways: list[Gateway],
    loads: list[list[int]],
    others: list[Plan] | None = None,
    second_round: Callable[[], None] | None = None,
) -> None:
    """The whole event; what the households do, their gateways do. `others` have no gateway and play along."""
    spec = make_spec()
    steps = Play(world, others or [], spec)
    steps.announce()

    async def all_look() -> None:
        station.notice()
        for gateway in gateways:
            await gateway.look()

    steps.open()
    await all_look()
    steps.commit()
    await all_look()
    steps.reveal()
    steps.match()
    await all_look()
    await all_look()
    if second_round is not None:
        second_round()
        await all_look()
        await all_look()
    steps.confirm()
    await all_look()
    steps.window()
    await all_look()
    for position, time_s in enumerate(spec.boundaries_s()):
        world.now_s = time_s
        for gateway, load in zip(gateways, loads, strict=True):
            gateway.reading(time_s, load[position - 1] * 1000 if position else 0)
            await gateway.turn()
    steps.deliver()
    await all_look()
    steps.settle()
    await all_look()
    steps.close()
    await all_look()


def check(world: World, folder: Path) -> list[str]:
    return bill.check(bill.read(folder / "bill.json"), cached_light_client(world.genesis, world.network))


@pytest.mark.row("B9", "B31", "B33", "C12", "J13", "J14", "L1")
def test_an_evening_ends_with_a_bill_that_can_be_checked(tmp_path: Path) -> None:
    async def scenario() -> None:
        world, station, seller, buyer = evening(tmp_path)
        await play(world, station, [seller, buyer], [[110] * 4, [200] * 4])
        assert world.event(1).state is State.CLOSED
        pairs = world.pairs(1)
        assert pairs and all(pair.state == PairState.SETTLED for pair in pairs)
        for gateway in (seller, buyer):
            assert gateway.plans[0]["trades"] == 1 and len(gateway.outgoing.forwarder) == 0
            assert gateway.outgoing.refused == {} and gateway.outgoing.final >= 9
            assert len(gateway.acks) == 5
            assert check(world, gateway.folder) == []
            row = world.row(gateway.household)
            document = bill.read(gateway.folder / "bill.json")
            assert document["state"] == "CLOSED" and document["summary"]["net_u"] == bill.net_u(row)
            assert document["summary"]["status"] == "performed" and document["summary"]["points"] == row.points > 0
        assert seller.plans[0]["slots"] == [160 - wh for wh in pairs[0].slot_wh]
        assert buyer.plans[0]["slots"] == [160 + wh for wh in pairs[0].slot_wh]
        _every_changed_number_is_found(world, bill.read(seller.folder / "bill.json"))

    asyncio.run(scenario())


def _every_changed_number_is_found(world: World, document: dict[str, Any]) -> None:
    light = cached_light_client(world.genesis, world.network)

    def places(node: Any, path: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if isinstance(node, dict):
            return [found for key, value in node.items() for found in places(value, (*path, key))]
        if isinstance(node, list):
            return [found for at, value in enumerate(node) for found in places(value, (*path, at))]
        return [path]

    # Shown beside the proof and derived from it, or a text: no number a household relies on.
    free = {"baseline", "txid", "height", "label", "plug", "role"}
    for path in places(document, ()):
        changed = copy.deepcopy(document)
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        value = parent[path[-1]]
        if path[-1] in free or (path[-1] == "code" and "checkpoints" in path):
            continue
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, int):
            parent[path[-1]] = value + 1
        elif len(value) > 100:
            middle = len(value) // 2
            parent[path[-1]] = value[:middle] + ("0" if value[middle] != "0" else "1") + value[middle + 1 :]
        else:
            parent[path[-1]] = "0" + value[1:] if value[:1] != "0" else "1" + value[1:]
        if path == ("pairs", 0, "charge_u"):
            continue  # the sum is proven by the row; the share of one pair follows from the proven pair
        assert bill.check(changed, light), path


def test_a_notice_that_overtakes_an_answer_does_not_mix_two_heights_in_a_bill(tmp_path: Path) -> None:
    async def scenario() -> None:
        world, station, seller, buyer = evening(tmp_path)
        closings: list[Callable[[], None]] = []

        def overtake(answer: list[Any]) -> list[Any]:
            if closings and answer[0] == "state":
                closings.pop()()
                station.notice()
            return answer

        original = Play.close

        def close(steps: Play) -> None:
            closings.append(lambda: original(steps))

        Play.close = close  # type: ignore[method-assign]
        station.tamper = overtake
        try:
            await play(world, station, [seller, buyer], [[110] * 4, [200] * 4])
        finally:
            Play.close = original  # type: ignore[method-assign]
        assert world.event(1).state is State.CLOSED
        for gateway in (seller, buyer):
            assert check(world, gateway.folder) == []
            assert bill.read(gateway.folder / "bill.json")["state"] == "CLOSED"

    asyncio.run(scenario())


@pytest.mark.row("C7", "C8")
def test_a_station_has_the_registers_of_every_terminal_that_it_serves(tmp_path: Path) -> None:
    """What each gateway has on its disk is what the station's ledger says of its plug, under its user."""

    async def scenario() -> None:
        world, station, seller, buyer = evening(tmp_path)
        for time_s in range(world.now_s, world.now_s + 3600, 900):
            world.now_s = time_s
            for number, gateway in enumerate((seller, buyer)):
                gateway.reading(time_s, 100_000 * (number + 1))
                await gateway.turn()
        owners = set()
        for gateway in (seller, buyer):
            key = plug_key(gateway.household.plug_id)
            proof = station.ledger.state_proof([key])
            plug = codec.decode(proof.entries[0][2], Plug)
            tip = gateway.store.tips()[gateway.household.plug_id]
            assert (plug.counter, plug.import_mwh, plug.time_s) == (tip.counter, tip.import_mwh, tip.time_s)
            assert plug.owner == gateway.household.id and plug.import_mwh > 0
            owners.add(plug.owner)
        assert len(owners) == 2, "one station, several terminals, each bound to its own user"

    asyncio.run(scenario())


@pytest.mark.row("D1")
def test_a_bill_holds_nothing_of_other_households(tmp_path: Path) -> None:
    async def scenario() -> None:
        world, station, seller, buyer = evening(tmp_path, homes=4)
        others = [
            Plan(world.homes[2], "sell", 310, [50] * 4, [110] * 4),
            Plan(world.homes[3], "buy", 950, [45] * 4, [205] * 4),
        ]
        await play(world, station, [seller, buyer], [[110] * 4, [200] * 4], others)
        assert len(world.pairs(1)) > len([pair for pair in world.pairs(1) if seller.household.id == pair.seller])
        for gateway in (seller, buyer):
            # After a restart all pairs of the area are looked through again, on the way to the bill.
            gateway.store.close()
            (gateway.folder / "bill.json").unlink()
            gateway.start()
            await gateway.look()
            assert check(world, gateway.folder) == []
            document = bill.read(gateway.folder / "bill.json")
            proofs = [codec.decode(bytes.fromhex(text), StateProof) for text in document["proofs"]["state"]]
            for _, key, value, _ in [entry for proof in proofs for entry in proof.entries]:
                assert key.startswith(b"event/") or gateway.household.id in value or b"user/" in key, key
                assert not key.startswith((b"account/", b"user/", b"result/")) or key.endswith(
                    gateway.household.id.hex().encode()
                )

    asyncio.run(scenario())


@pytest.mark.row("J12", "J13", "J14", "L6")
def test_households_take_what_the_second_round_of_a_matching_brings_them(tmp_path: Path) -> None:
    """A stranger refuses what it was matched with; the seller it leaves alone and a buyer that had nothing meet."""
    rules = replace(RULES_1, version=3, rematch_s=100, gap_ppm=1_000_000)

    async def scenario() -> None:
        world, station, seller, buyer = evening(tmp_path, 3, rules)
        stranger = Plan(world.homes[2], "buy", 950, [50] * 4, [160] * 4, confirm=False)

        def second_round() -> None:
            assert [pair.buyer for pair in world.pairs(1)] == [stranger.home.id]
            refusal = kinds.Confirmtransaction(1, False)
            assert world.call(1, stranger.home.key, "Confirmtransaction", refusal) == ""
            world.now_s = rematch.opens_s(make_spec(), rules) or 0
            assert world.call(1, AGGREGATOR, "Reopen", Reopen(1)) == ""
            found = codec.decode(world.ledgers[1].state.get(rematch.rebook_key(1)) or b"", rematch.Rebook)
            solution = world.market.clear([found.book], *rematch.terms_of(world.event(1), found, rules))
            assert world.call(1, AGGREGATOR, "Rematch", Rematch(1, solution)) == ""

        await play(world, station, [seller, buyer], [[110] * 4, [200] * 4], [stranger], second_round)
        assert [pair.state for pair in world.pairs(1)] == [PairState.DROPPED, PairState.SETTLED]
        for gateway in (seller, buyer):
            assert gateway.outgoing.refused == {}
            assert check(world, gateway.folder) == []
            assert world.row(gateway.household).agreed_wh == 160
        assert buyer.plans[0]["slots"] == [200] * 4 and buyer.plans[0]["trades"] == 1

    asyncio.run(scenario())


def test_every_receipt_lost_once_changes_nothing_but_the_traffic(tmp_path: Path) -> None:
    async def scenario() -> None:
        world, station, seller, _ = evening(tmp_path)
        station.lose_receipts = True
        world.now_s += 900
        seller.reading(world.now_s, 1000)
        await seller.turn()
        assert len(seller.acks) == 1 and len(seller.outgoing.forwarder) == 1
        height = world.ledgers[1].head.height
        station.lose_receipts = False
        seller.now_ms += 10_000
        await seller.turn()
        assert len(seller.outgoing.forwarder) == 0 and seller.outgoing.final == 1
        assert world.ledgers[1].head.height == height, "the same transaction again is no second transaction"
        assert station.seen[0] == station.seen[-1]

    asyncio.run(scenario())


def test_an_acknowledgement_never_comes_before_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        world, _, seller, _ = evening(tmp_path)
        commit = seller.store.commit

        def full(*arguments: object) -> object:
            raise StoreUnavailable("disk-full", "no space")

        monkeypatch.setattr(seller.store, "commit", full)
        world.now_s += 900
        payload = seller.reading(world.now_s, 1000)
        await seller.turn()
        assert seller.acks == [] and seller.outgoing.disk == "disk-full"
        seller.outgoing.take_batch(topics.plug_batch(seller.name, seller.household.plug_id), payload)
        assert seller.outgoing.intake.refused["disk-full"] == 1, "not even looked at while the disk is full"
        assert seller.stream.text.count("disk-refuses") == 1
        monkeypatch.setattr(seller.store, "commit", commit)
        seller.now_ms += 20_000
        seller.outgoing.take_batch(topics.plug_batch(seller.name, seller.household.plug_id), payload)
        await seller.turn()
        assert len(seller.acks) == 1 and seller.outgoing.disk == "ok"
        assert seller.outgoing.readings_received == seller.outgoing.readings_acked

    asyncio.run(scenario())


def forge_code(answer: list[Any]) -> list[Any]:
    """The receipt of another outcome under the same header."""
    if answer[0] == "receipt":
        proof = codec.decode(answer[2], ReceiptProof)
        leaf = msgspec.msgpack.decode(proof.receipt)
        forged = msgspec.structs.replace(proof, receipt=codec.encode([leaf[0], "refused"]))
        return ["receipt", answer[1], codec.encode(forged)]
    return answer


def forge_signature(answer: list[Any]) -> list[Any]:
    if answer[0] == "receipt":
        proof = codec.decode(answer[2], ReceiptProof)
        broken = proof.certificate[:-1] + bytes([proof.certificate[-1] ^ 1])
        return ["receipt", answer[1], codec.encode(msgspec.structs.replace(proof, certificate=broken))]
    return answer


def garbage(answer: list[Any]) -> list[Any]:
    return ["receipt", answer[1], b"\xff" * 40] if answer[0] == "receipt" else answer


@pytest.mark.parametrize("tamper", [forge_code, forge_signature, garbage])
def test_a_receipt_that_proves_nothing_drops_nothing(tmp_path: Path, tamper: Callable[[list[Any]], list[Any]]) -> None:
    async def scenario() -> None:
        world, station, seller, _ = evening(tmp_path)
        station.tamper = tamper
        world.now_s += 900
        seller.reading(world.now_s, 1000)
        await seller.turn()
        assert len(seller.outgoing.forwarder) == 1 and len(seller.store.outbox()) == 1
        assert sum(seller.light.rejected.values()) >= 1
        station.tamper = None
        seller.now_ms += 10_000
        await seller.turn()
        assert len(seller.store.outbox()) == 0

    asyncio.run(scenario())


def test_the_receipt_of_one_transaction_does_not_settle_another(tmp_path: Path) -> None:
    async def scenario() -> None:
        world, station, seller, _ = evening(tmp_path)
        world.now_s += 900
        station.lose_receipts = True
        seller.reading(world.now_s, 1000)
        await seller.turn()
        world.now_s += 900
        seller.reading(world.now_s, 1000)
        await seller.turn()
        first, second = sorted(station.final, key=lambda identity: station.final[identity])
        proof = codec.encode(world.ledgers[1].receipt_proof(station.final[first], first))
        seller.reply(msgspec.msgpack.encode(["receipt", second, proof]))
        await seller.turn()
        assert len(seller.store.outbox()) == 2 and seller.light.rejected == {"receipt-txid": 1}

    asyncio.run(scenario())


def test_a_refusal_by_the_contract_is_recorded_shown_and_final(tmp_path: Path) -> None:
    async def scenario() -> None:
        world, _, seller, _ = evening(tmp_path)
        seller.reading(world.now_s + 7200, 1000)  # dated two hours ahead of the chain
        await seller.turn()
        assert seller.outgoing.refused == {"time-future": 1} and len(seller.store.outbox()) == 0
        assert "time-future" in seller.stream.text

    asyncio.run(scenario())


def test_a_key_used_elsewhere_gets_its_nonce_anew(tmp_path: Path) -> None:
    """A backup was restored: the account is further on than the gateway believes."""

    async def scenario() -> None:
        world, station, seller, _ = evening(tmp_path)
        world.now_s += 900
        station.lose_transactions = True
        seller.reading(world.now_s, 1000)
        await seller.turn()
        world.call(1, seller.household.key, "Withdraw", [1])
        station.lose_transactions = False
        for _ in range(12):
            seller.now_ms += 70_000
            await seller.turn()
        assert len(seller.store.outbox()) == 0 and seller.outgoing.final == 1

    asyncio.run(scenario())


@pytest.mark.row("E14")
def test_a_dead_station_is_passed_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        _, station, seller, _ = evening(tmp_path)
        station.dead_nodes = {0, 1}
        await seller.outgoing.fetch_account()
        assert seller.outgoing.account_id == seller.household.id and station.asked == [0, 1, 2]
        station.silent = True
        await seller.outgoing.fetch_account()
        assert "stations-silent" in seller.stream.text

    asyncio.run(scenario())


def test_a_restart_between_commit_and_reveal_still_opens_the_bid(tmp_path: Path) -> None:
    async def scenario() -> None:
        world, station, seller, _ = evening(tmp_path)
        steps = Play(world, [], make_spec())
        steps.announce()
        steps.open()
        station.notice()
        await seller.look()
        assert world.sealed(seller.household).status == "committed"
        seller.store.close()
        (seller.folder / "plan.json").unlink()
        seller.start()
        world.tick_all(steps.spec.commit_close_s)
        station.notice()
        await seller.look()
        assert world.sealed(seller.household).status == "revealed"
        assert world.sealed(seller.household).slot_wh == [50] * 4

    asyncio.run(scenario())


def test_a_station_cannot_send_the_household_back_in_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        world, station, seller, _ = evening(tmp_path)
        steps = Play(world, [], make_spec())
        steps.announce()
        old = msgspec.msgpack.encode(["event", codec.encode(world.ledgers[1].state_proof([b"event/1"]))])
        steps.open()
        station.notice()
        assert seller.follower.event is not None and seller.follower.event.state is State.COMMIT
        seller.follower.take_notice(old)
        assert seller.follower.event.state is State.COMMIT
        seller.follower.take_notice(b"\xc1")
        seller.follower.take_notice(msgspec.msgpack.encode(["event", b"nothing"]))
        assert seller.follower.event.state is State.COMMIT
        assert seller.light.rejected == {"notice-form": 1, "proof-form": 1}

    asyncio.run(scenario())


def test_a_forged_state_is_never_believed(tmp_path: Path) -> None:
    async def scenario() -> None:
        _, station, seller, _ = evening(tmp_path)

        def richer(answer: list[Any]) -> list[Any]:
            if answer[0] == "state":
                proof = codec.decode(answer[2], StateProof)
                entries = [(slot, key, value[:-1] + b"\x01", path) for slot, key, value, path in proof.entries]
                return [*answer[:2], codec.encode(msgspec.structs.replace(proof, entries=entries))]
            return answer

        station.tamper = richer
        await seller.outgoing.fetch_account()
        assert seller.outgoing.account_id is None and seller.light.rejected["path"] > 0

    asyncio.run(scenario())


def test_the_salt_of_a_bid_is_a_secret_of_the_key_and_survives_a_lost_disk(tmp_path: Path) -> None:
    async def scenario() -> None:
        world, station, seller, buyer = evening(tmp_path)
        spec = make_spec()
        steps = Play(world, [], spec)
        steps.announce()
        steps.open()
        station.notice()
        for gateway in (seller, buyer):
            await gateway.look()
        remembered = seller.follower.bid
        assert remembered is not None
        salts = {remembered.salt, seller.outgoing.bid_salt(2), buyer.outgoing.bid_salt(1)}
        assert len(salts) == 3, "another event or another key gave the same salt"
        seller.store.close()
        (seller.folder / "gateway.sqlite").unlink()
        for leftover in seller.folder.glob("gateway.sqlite-*"):
            leftover.unlink()
        seller.start()
        steps.commit()
        station.notice()
        await seller.look()
        await buyer.look()
        assert seller.follower.bid == remembered
        opened = [world.sealed(home) for home in world.homes]
        assert all(bid.revealed for bid in opened)

    asyncio.run(scenario())


@pytest.mark.row("K11", "L13", "D14")
def test_reward_and_punishment_reach_the_household_in_its_own_bill(tmp_path: Path) -> None:
    """K11: 'will reward or punish users according to their performance', through the household's app."""

    async def scenario() -> None:
        world, station, seller, buyer = evening(tmp_path)
        await play(world, station, [seller, buyer], [[160] * 4, [200] * 4])
        told = {gateway: bill.read(gateway.folder / "bill.json")["summary"] for gateway in (seller, buyer)}
        normal = make_spec().normal_price_u_per_wh
        assert told[seller]["status"] == "breached" and told[buyer]["status"] == "performed"
        assert told[buyer]["rp_u_per_wh"] < normal < told[seller]["rp_u_per_wh"]
        assert told[seller]["penalty_u"] > 0 == told[buyer]["penalty_u"]
        assert told[seller]["credit_after"] < told[seller]["credit_before"]
        assert told[buyer]["credit_after"] > told[buyer]["credit_before"] and told[buyer]["points"] > 0
        for gateway in (seller, buyer):
            assert check(world, gateway.folder) == []

    asyncio.run(scenario())
