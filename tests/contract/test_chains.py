"""What passes between the chains: anchors, inbox, rule sets, areas that are missing."""

from __future__ import annotations

from contract_world import AGGREGATOR, GRID, REGULATOR, START_S, Home, Plan, Play, World, make_spec, usual_plans
from msgspec.structs import replace
from watt_chain import codec
from watt_chain.block import Header
from watt_chain.contract import kinds
from watt_chain.contract.event import State
from watt_chain.contract.objects import RULES_KEY, RulesIndex
from watt_chain.contract.rules import RULES_1, RULES_2


def anchored() -> World:
    world = World(areas=2)
    Play(world, usual_plans(world)).run(State.REVEAL)
    return world


def test_an_anchor_is_refused_by_name() -> None:
    world = anchored()
    node = world.validators[0][0]
    first, second = world.anchor_fields(1, 0), world.anchor_fields(1, 1)
    foreign = world.anchor_fields(2, 0)
    header = codec.decode(first.header, Header)
    cases = {
        "chain": replace(first, header=codec.encode(replace(header, chain=9))),
        "height": second,
        "previous": replace(first, header=codec.encode(replace(header, previous=bytes(32)))),
        "proof": replace(first, certificate=foreign.certificate),
        "outbox": replace(first, messages=[b"x"]),
    }
    for reason, fields in cases.items():
        assert world.dry(0, node, "Anchor", fields)[0] == reason
    assert world.dry(0, node, "Anchor", replace(first, header=b"x"))[0] == "proof"
    changed = replace(first, header=codec.encode(replace(header, time_s=header.time_s + 1)))
    assert world.dry(0, node, "Anchor", changed)[0] == "proof"
    assert world.call(0, node, "Anchor", first) == ""
    assert world.call(0, node, "Anchor", first) == "stale"
    assert world.call(0, node, "Anchor", second) == ""


def test_an_anchor_cannot_leave_out_a_message() -> None:
    world = World(areas=1)
    play = Play(world, usual_plans(world)).run(State.REVEAL)
    world.relay_up()
    for plan in play.plans:
        world.call(1, plan.home.key, "Reveal", plan.bid())
    world.relay_up()
    world.now_s = play.spec.reveal_close_s
    assert world.call(1, AGGREGATOR, "Qualify", kinds.EventCall(1)) == ""
    fields = world.anchor_fields(1, len(world.applied[1]) - 1)
    node = world.validators[0][0]
    assert len(fields.messages) == 1
    assert world.dry(0, node, "Anchor", replace(fields, messages=[]))[0] == "outbox"
    assert world.dry(0, node, "Anchor", fields)[0] == ""


def test_an_inbox_is_refused_by_name_and_consumes_a_message_once() -> None:
    world = World(areas=2, homes=[])
    assert world.call(0, GRID, "Initial", kinds.Initial(make_spec())) == ""
    node = world.validators[1][0]
    good, other = world.inbox_fields(1)[0], world.inbox_fields(2)[0]
    entry = good.entries[0]
    assert world.dry(1, node, "Inbox", replace(good, certificate=b""))[0] == "proof"
    assert world.dry(1, node, "Inbox", replace(good, size=good.size + 1))[0] == "proof"
    wrong = replace(good, entries=[replace(entry, message=entry.message[:-1] + b"\x00")])
    assert world.dry(1, node, "Inbox", wrong)[0] == "proof"
    assert world.dry(1, node, "Inbox", other)[0] == "sequence"
    area = world.anchor_fields(2, 0) if world.applied[2] else None
    assert area is None
    assert world.call(1, node, "Inbox", good) == ""
    assert world.call(1, node, "Inbox", good) == "sequence"
    assert world.event(1).state is State.ANNOUNCED
    assert world.ledgers[1].contract.inbox_cursor(world.ledgers[1].state) == 1


def test_messages_out_of_sequence_wait_for_the_missing_one() -> None:
    world = World(areas=1, homes=[])
    rules = kinds.RuleSetChange(codec.encode(RULES_2), world.ledgers[0].head.height + 2)
    assert world.call(0, REGULATOR, "RuleSet", rules) == ""
    assert world.call(0, GRID, "Initial", kinds.Initial(make_spec())) == ""
    assert world.call(0, GRID, "Initial", kinds.Initial(make_spec(2, START_S + 4500))) == ""
    first, second = world.inbox_fields(1)
    node = world.validators[1][0]
    assert world.call(1, node, "Inbox", second) == "sequence"
    assert world.call(1, node, "Inbox", first) == ""
    assert world.call(1, node, "Inbox", second) == ""
    assert world.event(1, 2).rules_version == 2


def test_a_rule_set_becomes_active_at_its_height_and_flows_down() -> None:
    world = World(areas=2, homes=[])

    def active(chain: int) -> int:
        return codec.decode(world.ledgers[chain].state.get(RULES_KEY) or b"", RulesIndex).active

    height = world.ledgers[0].head.height
    new = replace(RULES_1, version=7, credit_reward=3)
    cases = {
        "malformed": kinds.RuleSetChange(b"x", height + 9),
        "version": kinds.RuleSetChange(codec.encode(replace(RULES_1, credit_reward=9)), height + 9),
        "height": kinds.RuleSetChange(codec.encode(new), height + 1),
        "rule-range": kinds.RuleSetChange(codec.encode(replace(new, gap_ppm=-1)), height + 9),
        "rule-zero": kinds.RuleSetChange(codec.encode(replace(new, full_weight_wh=0)), height + 9),
        "rule-credit": kinds.RuleSetChange(codec.encode(replace(new, warn_below=49)), height + 9),
        "rule-fraction": kinds.RuleSetChange(codec.encode(replace(new, eps_ppm=10**6 + 1)), height + 9),
        "rule-headroom": kinds.RuleSetChange(codec.encode(replace(new, headroom_w=[(2, 5), (1, 5)])), height + 9),
        "rule-comfort": kinds.RuleSetChange(codec.encode(replace(new, comfort_steps_ppm=[2, 1, 3])), height + 9),
        "rule-baseline": kinds.RuleSetChange(codec.encode(replace(new, baseline_high=11)), height + 9),
        "rule-class": kinds.RuleSetChange(codec.encode(replace(new, excluded_classes=["secure", "plain"])), height + 9),
    }
    for reason, fields in cases.items():
        assert world.dry(0, REGULATOR, "RuleSet", fields)[0] == reason
    assert world.call(0, REGULATOR, "RuleSet", kinds.RuleSetChange(codec.encode(new), height + 3)) == ""
    assert active(0) == 1
    world.tick(0)
    assert active(0) == 1
    world.tick(0)
    assert active(0) == 7
    assert (active(1), active(2)) == (1, 1)
    world.relay_down()
    assert (active(1), active(2)) == (7, 7)
    assert world.ledgers[1].contract.rules_version(world.ledgers[1].state) == 7


def test_an_event_keeps_the_rules_it_was_announced_with() -> None:
    world = World(areas=1)
    play = Play(world, usual_plans(world)).run(State.MATCHED)
    new = replace(RULES_1, version=9, credit_reward=7)
    change = kinds.RuleSetChange(codec.encode(new), world.ledgers[0].head.height + 2)
    assert world.call(0, REGULATOR, "RuleSet", change) == ""
    world.tick(0)
    world.relay_down()
    for step in (play.confirm, play.window, play.deliver):
        step()
    assert world.row(play.plans[0].home).credit_after == 62


def test_one_dead_area_stalls_nobody() -> None:
    homes = [Home(0, 1), Home(1, 1)]
    world = World(areas=2, homes=homes)
    plans = [Plan(homes[0], "sell", 300, [60] * 4, [100] * 4), Plan(homes[1], "buy", 900, [60] * 4, [220] * 4)]
    play = Play(world, plans)
    dead = world.ledgers.pop(2)
    world.anchored.pop(2)
    play.run(State.QUALIFIED)
    solution = play.solution()
    assert world.call(0, AGGREGATOR, "Match", kinds.Match(solution)) == "books"
    world.now_s = (play.spec.reveal_close_s + play.spec.match_by_s) // 2
    play.match()
    assert [report.state for report in world.main_event().areas] == ["matched", "left-out"]
    for step in (play.confirm, play.window, play.deliver, play.settle, play.close):
        step()
    assert world.main_event().state is State.CLOSED
    world.ledgers[2], world.anchored[2] = dead, 0
    world.relay_down()
    assert (world.event(2).state, world.event(2).reason) == (State.ABORTED, "match-late")
    world.relay_up()
    assert world.main_event().areas[1].state == "left-out"


def test_settlement_does_not_wait_for_ever_for_an_area_that_went_silent() -> None:
    world = World(areas=2)
    play = Play(world, usual_plans(world)).run(State.DELIVERING)
    silent, position = world.ledgers.pop(2), world.anchored.pop(2)
    play.plans = [plan for plan in play.plans if plan.home.area == 1]
    play.deliver()
    assert world.call(0, GRID, "SettlementAmount", kinds.EventCall(1)) == "not-metered"
    world.now_s = (play.spec.meter_close_s + play.spec.settle_by_s) // 2
    play.settle()
    play.close()
    assert world.main_event().state is State.SETTLED
    world.ledgers[2], world.anchored[2] = silent, position
    world.tick_all(play.spec.settle_by_s)
    world.relay_up()
    assert world.main_event().state is State.CLOSED
    assert world.event(2).reason == "settle-late"


def test_an_event_that_nobody_matches_is_aborted_everywhere() -> None:
    world = World(areas=2)
    play = Play(world, usual_plans(world)).run(State.QUALIFIED)
    world.tick(0, play.spec.match_by_s)
    assert world.main_event().state is State.ABORTED
    world.relay_down()
    assert {world.event(chain).state for chain in world.areas} == {State.ABORTED}
    assert {world.event(chain).reason for chain in world.areas} == {"no-match"}


def test_the_prices_are_the_dual_of_what_all_areas_needed_together() -> None:
    world = World(areas=2)
    Play(world, usual_plans(world)).run(State.SETTLED)
    event = world.main_event()
    assert [report.over_wh for report in event.areas] == [[20, 25, 20, 30]] * 2
    assert event.need_wh == [40, 50, 40, 60]
    assert event.lambda_u_per_wh == [400] * 4
    assert [world.event(chain).lambda_u_per_wh for chain in world.areas] == [[400] * 4] * 2
