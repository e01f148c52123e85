"""The independent verifier follows money between areas: honest runs hold, and whoever bends one of them is found."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import verify_world as vw
from watt_chain import codec
from watt_chain.contract import cross_area, cross_kinds, cross_main, kinds
from watt_chain.cross.tables import SELLER, Effect, Seller, Trigger
from watt_chain.crypto import sha256
from watt_chain.genesis import sign_genesis
from watt_tools import lists, verify
from watt_tools.export import canonical
from watt_tools.readout import Readout, statement
from watt_wire import checkpoint

CONTRACT = Path(__file__).parents[1] / "contract"


def load(name: str) -> Any:
    """A helper module of tests/contract; they import each other by their plain names."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, CONTRACT / f"{name}.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


contract_world, cross_world = load("contract_world"), load("cross_world")
load("test_cross_messages")
cross_guard = load("test_cross_guard")
resumption = load("test_resume")


def export(world: Any, event: int = 1) -> dict[str, bytes]:
    """The files of an export of a contract test's world."""
    readout = Readout(world.genesis, world.network, {}, {})
    files = {"genesis.bin": sign_genesis(world.genesis, contract_world.REGULATOR)}
    leaves: dict[tuple[bytes, int], bytes] = {}
    for chain, ledger in world.ledgers.items():
        readout.ledgers[chain] = ledger
        readout.blocks[chain] = [ledger.certified(height) for height in range(1, ledger.head.height + 1)]
        files[f"chain-{chain}.blocks"] = vw.framed(readout.blocks[chain])
        applied = [one for one, _, _ in world.applied[chain]]
        files[f"chain-{chain}.codes"] = vw.framed(codec.encode([r.code for r in one.receipts]) for one in applied)
        files[f"chain-{chain}.state"] = vw.framed(codec.encode([k, v]) for k, v in ledger.state.items())
        for one in applied:
            for tx, receipt in zip(one.transactions, one.receipts, strict=True):
                if tx.kind == "Checkpoint" and not receipt.code:
                    frame = codec.decode(tx.fields_raw, kinds.Checkpoint).frame
                    about, hash_ = checkpoint.decode(frame), checkpoint.frame_hash(frame)
                    leaves[about.plug_id, about.counter] = codec.encode([about.plug_id, hash_, []])
    files["leaves.bin"] = vw.framed(leaves[key] for key in sorted(leaves))
    files["statement.json"] = canonical(statement(readout, event))
    return vw.with_manifest(files)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> vw.Folder:
    return vw.Folder(tmp_path_factory.mktemp("cross") / "export")


@pytest.fixture
def judge(folder: vw.Folder) -> Callable[[Any], list[str]]:
    return lambda world: verify.verify(folder.write(export(world)), contract_world.REGULATOR.public)


def finish(play: Any) -> Any:
    for step in (play.window, play.deliver, play.settle, play.close):
        step()
    play.world.relay_all()
    assert play.world.main_event().state == "CLOSED"
    return play.world


def honest() -> Any:
    play = cross_world.Across(cross_world.streets()).matched()
    play.confirm()
    return finish(play)


def declined() -> Any:
    """One trade is refused by its seller, the other one comes about."""
    play = cross_world.Across(cross_world.streets()).matched()
    play.take()
    assert (play.op("buy", [1]), play.op("sell", [1], accept=False)) == ("", "")
    assert (play.op("buy", [2]), play.op("sell", [2])) == ("", "")
    play.world.relay_all()
    play.world.tick_all(play.spec.confirm_close_s)
    return finish(play)


def killed() -> Any:
    """Both locks come too late for the seller's area; one is ended by the main chain."""
    play = cross_world.Across(cross_world.streets()).matched()
    world = play.world
    play.take()
    assert [play.op("buy", [n]) for n in (1, 2)] + [play.op("sell", [1])] == ["", "", ""]
    world.relay_up()
    world.now_s = cross_world.kill_after_s(play.spec)
    assert world.call(0, world.validators[0][0], "CrossEnd", cross_kinds.CrossEnd(1)) == ""
    world.tick_all(world.now_s)
    world.relay_all()
    return finish(play)


def over_the_bound() -> Any:
    play = cross_world.Across(cross_world.streets()).matched()
    world = play.world
    first = world.main_trade(1).value_u
    assert world.call(0, contract_world.GRID, "Endow", cross_kinds.Endow(1, first, first)) == ""
    play.confirm()
    assert {play.states(n)[2] for n in play.numbers()} == {"ACCEPT", "KILL"}
    return finish(play)


def together() -> Any:
    play = cross_world.Across(cross_world.streets(3)).matched()
    play.take()
    assert play.op("buy", play.numbers()) == ""
    assert [play.op("sell", [n]) for n in play.numbers()] == ["", ""]
    play.world.relay_all()
    play.world.tick_all(play.spec.confirm_close_s)
    return finish(play)


def defaults() -> Any:
    """The seller delivers half, the buyer's data is missing; another seller has no data."""
    world = cross_world.streets()
    homes = world.homes
    plans = [
        contract_world.Plan(homes[0], "buy", 900, [60] * 4, [0] * 4, late_registers=True),
        contract_world.Plan(homes[1], "buy", 800, [30] * 4, [190] * 4),
        contract_world.Plan(homes[2], "sell", 300, [60] * 4, [130] * 4),
        contract_world.Plan(homes[3], "sell", 350, [30] * 4, [0] * 4, late_registers=True),
    ]
    play = cross_world.Across(world, plans)
    for step in (play.announce, play.open, play.commit, play.reveal, play.match, play.confirm):
        step()
    return finish(play)


def void() -> Any:
    """The seller's area settles when the main chain has given up waiting."""
    play = cross_world.Across(cross_world.streets()).matched()
    world = play.world
    play.confirm()
    play.window()
    silent = world.ledgers.pop(2), world.anchored.pop(2)
    everybody, play.plans = play.plans, [plan for plan in play.plans if plan.home.area == 1]
    contract_world.Play.deliver(play)
    world.now_s = (play.spec.meter_close_s + play.spec.settle_by_s) // 2
    contract_world.Play.settle(play)
    buyers = world.ledgers.pop(1), world.anchored.pop(1)
    world.ledgers[2], world.anchored[2] = silent
    play.plans = [plan for plan in everybody if plan.home.area == 2]
    contract_world.Play.deliver(play)
    world.ledgers[2], silent = buyers[0], world.ledgers[2]
    world.ledgers = {0: world.ledgers[0], 1: buyers[0], 2: silent}
    world.anchored[1] = buyers[1]
    world.relay_all()
    play.settle_area(2)
    play.close()
    world.relay_all()
    assert {world.main_trade(n).state for n in play.numbers()} == {"VOID"}
    return world


def aborted() -> Any:
    """The seller's area gives the event up after the window: the buyer's closes, and nothing is paid."""
    play = cross_world.Across(cross_world.streets()).matched()
    world = play.world
    play.confirm()
    play.window()
    everybody, play.plans = play.plans, [plan for plan in play.plans if plan.home.area == 1]
    sellers = world.ledgers.pop(2), world.anchored.pop(2)
    contract_world.Play.deliver(play)
    world.ledgers[2], world.anchored[2] = sellers
    world.tick(2, play.spec.settle_by_s)
    world.now_s = play.spec.meter_close_s
    world.relay_all()
    del world.ledgers[2], world.anchored[2]
    contract_world.Play.settle(play)
    play.close()
    world.ledgers[2], world.anchored[2] = sellers[0], len(world.applied[2])
    world.relay_all()
    assert {play.states(n) for n in play.numbers()} == {("RETURNED", "RETURNED", "RETURNED")}
    play.plans = everybody
    return world


def quarantined() -> Any:
    """Sellers have accepted, then two blocks of their area at one height are shown: nothing of it counts any more."""
    play = cross_guard.quarantined()
    world = play.world
    world.relay_all()
    assert {world.main_trade(n).state for n in play.numbers()} == {"KILL"}
    assert {play.states(n)[0] for n in play.numbers()} == {"REFUNDED"}
    world.tick_all(play.spec.confirm_close_s)
    for step in (play.window, play.deliver):
        step()
    barred = world.ledgers.pop(2), world.anchored.pop(2)
    for step in (play.settle, play.close):
        step()
    world.ledgers[2], world.anchored[2] = barred
    world.tick(2, play.spec.settle_by_s)
    world.relay_all()
    assert world.main_event().state == "CLOSED"
    return world


def dark() -> Any:
    """The seller's area hears of nothing from its book on: locked money comes back, its own event has no matching."""
    play = cross_world.Across(cross_world.streets())
    play.run(contract_world.State.QUALIFIED)
    world = play.world
    assert world.call(0, contract_world.AGGREGATOR, "Match", [play.solution()]) == ""
    out = world.ledgers.pop(2), world.anchored.pop(2)
    world.relay_all()
    everybody, play.plans = play.plans, [plan for plan in play.plans if plan.home.area == 1]
    play.take()
    assert [play.op("buy", [n]) for n in play.numbers()] == ["", ""]
    world.relay_all()
    assert {world.trade(1, n).state for n in play.numbers()} == {"LOCKED"}
    world.tick_all(cross_world.kill_after_s(play.spec))
    assert world.call(0, world.validators[0][0], "CrossEnd", cross_kinds.CrossEnd(1)) == ""
    world.relay_all()
    assert {world.trade(1, n).state for n in play.numbers()} == {"REFUNDED"}
    world.ledgers[2], world.anchored[2] = out
    world.relay_all()
    play.window()
    out = world.ledgers.pop(2), world.anchored.pop(2)
    for step in (play.deliver, play.settle, play.close):
        step()
    world.ledgers[2], world.anchored[2] = out
    world.relay_all()
    assert world.main_event().state == "CLOSED" and world.event(2).state == "ABORTED"
    play.plans = everybody
    return world


RUNS = [honest, declined, killed, over_the_bound, together, defaults, void, aborted, quarantined, dark]


@pytest.mark.row("E22", "H16")
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
def test_an_honest_run_with_trades_across_areas_holds(run: Callable[[], Any], judge: Any) -> None:
    world = run()
    assert judge(world) == []


def readmitted(area: Any = None) -> Any:
    """The sellers' area breaks its bound, goes on under another list, and the next evening trades again."""
    area = area or resumption.readmitted()
    area.world.block(2, [])
    return resumption.trade_again(area).world


def test_an_area_that_goes_on_under_the_regulator_s_word_holds(folder: vw.Folder) -> None:
    world = readmitted()
    assert verify.verify(folder.write(export(world, 2)), contract_world.REGULATOR.public) == []


def test_an_area_that_goes_on_otherwise_than_the_main_chain_was_told_is_found(folder: vw.Folder) -> None:
    area = resumption.readmitted()
    world, regulator = area.world, contract_world.REGULATOR.public
    fresh = resumption.at_anchor(world, 2, area.old)
    honest_, world.ledgers[2] = (
        world.ledgers[2],
        area.old,
    )  # the old list, after the main chain has heard of the new one
    applied, world.applied[2] = world.applied[2], area.applied
    assert any("word is missing" in line for line in verify.verify(folder.write(export(world)), regulator))
    world.ledgers[2], world.applied[2] = fresh, list(applied)  # the regulator tells the area another list
    world.validators[2] = [contract_world.key_of(970)]
    other = [resumption.Validator("node2", world.validators[2][0].public)]
    assert fresh.resume(resumption.word(world, 2, validators=other)) == ""
    world.block(2, [])
    assert any("main chain was told" in line for line in verify.verify(folder.write(export(world)), regulator))
    world.ledgers[2], world.applied[2], world.validators[2] = honest_, applied, resumption.NEW
    world.block(2, [])
    world.relay_all()
    text = "\n".join(verify.verify(folder.write(export(world)), regulator))
    assert "is not" in text and "signature" not in text, text  # its event is not over; nothing else is wrong


def test_a_first_block_that_the_word_does_not_begin_is_refused() -> None:
    held = lists.Lists({0: [["m", b"m"]], 2: [["node0", b"a"]]})
    said = [1, 1, b"network", [["node1", b"b"]]]
    regulator = SimpleNamespace(role="regulator")
    of = SimpleNamespace(network=b"network", parties={2: {b"a": SimpleNamespace()}}, enter=lambda *_: None)
    header = SimpleNamespace(height=1, previous=b"network")
    held.take(of, 0, SimpleNamespace(kind="Readmit", fields=[2, said[3]], me=regulator, where=""), b"")
    with pytest.raises(ValueError, match="missing"):
        held.hash(2, 1, [b"other"])
    held.take(of, 2, SimpleNamespace(kind="Resume", fields=said, me=regulator, where="", header=header), b"word")
    with pytest.raises(ValueError, match="first"):
        held.hash(2, 1, [b"other", b"word"])
    assert held.hash(2, 1, [b"word", b"other"]) == held.hash(2, 2, [b"other"])
    assert held.keys(2, 7) == [b"b"] and b"endeda" in of.parties[2]
    for fields in ([1, 1, b"network", [["node1", b"c"]]], [1, 2, b"network", said[3]], [1, 1, b"x", said[3]]):
        call = SimpleNamespace(kind="Resume", fields=fields, me=regulator, where="", header=header)
        with pytest.raises(ValueError, match="main chain was told"):
            held.take(of, 2, call, b"word")
    with pytest.raises(ValueError, match="old key"):
        held.take(of, 0, SimpleNamespace(kind="Readmit", fields=[2, [["node1", b"b"]]], me=regulator, where=""), b"")


def pay_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seller's area settles for more than was delivered."""
    step = cross_area.Desk.step

    def greedy(self: Any, trade: Any, trigger: Any, paid_u: int = 0) -> Any:
        return step(self, trade, trigger, paid_u + (trigger == "settle"))

    monkeypatch.setattr(cross_area.Desk, "step", greedy)


def keep_money(monkeypatch: pytest.MonkeyPatch) -> None:
    """The buyer's area reports a payment that it did not make."""
    spend = cross_area.Desk._spend

    def keeps(self: Any, trade: Any) -> Any:
        return spend(self, cross_area.replace(trade, paid_u=0))

    monkeypatch.setattr(cross_area.Desk, "_spend", keeps)


def lock_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The main chain does not count what is locked."""
    monkeypatch.setattr(
        cross_main, "_of_event", lambda held, event: cross_main.replace(held, event=event, rate_locked_u=0)
    )


def other_charge(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seller's charge stays with the seller."""
    close = cross_area.close

    def free(session: Any, event: Any, rows: Any, grid: bytes) -> None:
        close(session, event, rows, next(iter(rows)))

    monkeypatch.setattr(cross_area, "close", free)


LIES = [pay_more, keep_money, lock_nothing, other_charge]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_a_quorum_that_bends_the_rules_is_found(lie: Any, judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lie(monkeypatch)
    world = honest()
    assert judge(world)


def test_an_acceptance_without_the_sellers_call_is_found(judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Area 2 takes a lock for a consent."""
    row = SELLER[Seller.NONE]
    taken = (Seller.ACCEPTED, (Effect.CONSUME, Effect.SEND_ACCEPT))
    monkeypatch.setitem(SELLER, Seller.NONE, {**row, Trigger.LOCKED: taken})
    play = cross_world.Across(cross_world.streets()).matched()
    play.take()
    for number in play.numbers():
        assert play.op("buy", [number]) == ""
    play.world.relay_all()
    play.world.tick_all(play.spec.confirm_close_s)
    assert any("reports" in line for line in judge(finish(play)))


def test_the_statement_names_the_trades(judge: Any, folder: vw.Folder) -> None:
    world = honest()
    files = export(world)
    text = files["statement.json"].replace(b'"state":"PAID"', b'"state":"VOID"')
    assert text != files["statement.json"]
    problems = verify.verify(
        folder.write(vw.with_manifest({**files, "statement.json": text})), contract_world.REGULATOR.public
    )
    assert len(problems) == 2 and all("trades" in line for line in problems)
    assert sha256(text) != sha256(files["statement.json"])
