"""CONTRACT.md cannot lie: its tables are those of the code, its worked example is run."""

from __future__ import annotations

import re

import pytest
from contract_doc import BLOCK, DOCUMENT, OBJECTS, rendered
from contract_world import GRID, START_S, Home, Plan, Play, World, make_spec, usual_plans
from watt_chain import codec
from watt_chain.contract.event import State, Unit
from watt_chain.contract.kinds import TABLE
from watt_chain.contract.objects import Incentive, Strength, incentive_key, strength_key

TEXT = DOCUMENT.read_text()


def test_the_tables_of_the_page_are_those_of_the_code() -> None:
    assert len(BLOCK.findall(TEXT)) == 12
    assert rendered(TEXT) == TEXT, "run: python tests/contract/contract_doc.py"


def test_every_key_that_an_event_writes_is_in_the_page() -> None:
    world = World(areas=1)
    Play(world, usual_plans(world)).run(State.CLOSED)
    named = {"outbox/<chain>"} | set(OBJECTS)
    shapes = {re.sub(r" .*", "", re.sub(r"<[^>]*>", "*", name)) for name in named}
    for chain in (0, 1):
        for key, _ in world.ledgers[chain].state.items():
            text = key.decode()
            word, *parts = text.split("/")
            starred = "/".join([word, *("*" for _ in parts)])
            assert text in shapes or starred in shapes or f"{word}/*" in shapes, text


@pytest.mark.parametrize(
    "name", ["Initial", "GetUsersInformation", "QualificationVerification", "MaxUsersProfit", "Confirmtransaction",
             "Confirm", "SettlementCredit", "SettlementAmount", "PriceIncentives", "Punish"],
)  # fmt: skip
def test_every_function_of_the_paper_has_its_line(name: str) -> None:
    assert f"`{name}()`" in TEXT


@pytest.mark.row("J16", "J17", "J18", "F16")
def test_the_worked_example_of_the_page_holds_to_the_last_micro_unit() -> None:
    homes = [Home(0, 1, node=0), Home(1, 1, node=0), Home(2, 1, node=0)]
    world = World(areas=1, homes=homes)
    s, t, b = homes
    plans = [
        Plan(s, "sell", 300, [50, 50], [110, 110]),
        Plan(t, "sell", 350, [40, 40], [150, 150]),
        Plan(b, "buy", 900, [70, 71], [230, 231]),
    ]
    spec = make_spec(
        1,
        START_S,
        slots=2,
        alpha_u_per_wh=[20, 30],
        units=[Unit(400, [1000, 1000])],
        profile_wh_per_mwh=[50, 50],
    )
    Play(world, plans, spec).run(State.CLOSED)
    found = {(pair.seller, pair.buyer): pair for pair in world.pairs(1)}
    assert found[s.id, b.id].slot_wh == [50, 50]
    assert found[s.id, b.id].price_u_per_wh == [610, 615]
    assert found[t.id, b.id].slot_wh == [20, 21]
    assert found[t.id, b.id].price_u_per_wh == [635, 640]
    assert (found[s.id, b.id].paid_u, found[t.id, b.id].paid_u) == (61_250, 12_750)
    rows = [world.row(home) for home in homes]
    assert [row.status for row in rows] == ["performed", "breached", "performed"]
    assert [row.delivered_wh for row in rows] == [100, 20, 141]
    assert rows[1].short_wh == [10, 11]
    assert [row.traded_u for row in rows] == [61_250, 12_750, -74_000]
    assert [row.charge_u for row in rows] == [35, 35, 70]
    assert [row.penalty_u for row in rows] == [0, 10_080, 0]
    assert world.account(1, GRID.public).free_u == 10_220
    assert [row.credit_after for row in rows] == [62, 56, 62]
    assert world.event(1).mean_price_u_per_wh == 480
    assert [row.rp_u_per_wh for row in rows] == [589, 690, 589]
    incentive = codec.decode(world.ledgers[1].state.get(incentive_key(t.id)) or b"", Incentive)
    assert incentive == Incentive(1, 690, spec.settle_by_s + 30 * 86_400, 410)
    strength = codec.decode(world.ledgers[1].state.get(strength_key(0)) or b"", Strength)
    assert strength.strength_ppm == 955_319
    assert [row.points for row in rows] == [50_000, 0, 50_000]
    for figure in ("61,250", "12,750", "10,080", "10,220", "955,319", "589", "690", "36,935", "90,035"):
        assert figure in TEXT


def test_every_reject_reason_of_the_table_is_raised_somewhere() -> None:
    root = DOCUMENT.parent / "watt_chain" / "contract"
    sources = "\n".join(path.read_text() for path in sorted(root.glob("*.py")) if path.name != "kinds.py")
    for row in TABLE.values():
        for reason in row.reasons:
            assert f'"{reason.removesuffix("*")}"' in sources, reason
