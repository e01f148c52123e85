"""The independent verifier follows a second round of the matching, and finds who bends its pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import verify_world as vw
from msgspec.structs import replace
from watt_chain.contract import orders
from watt_chain.contract.rules import RULES_1
from watt_tools import verify

RULES = replace(RULES_1, rematch_s=450, gap_ppm=1_000_000)


def second_round(folder: Path) -> tuple[Any, dict[str, bytes]]:
    """The dearer of two buyers refuses; what the seller has goes to the other one."""
    quota_wh = vw.load_master_world().QUOTA_WH
    people = (
        (vw.Habits(), 1, 1, "sell", 200, quota_wh - 60),
        (vw.Habits(accepts=False), 1, 2, "buy", 900, quota_wh),
        (vw.Habits(), 1, 3, "buy", 800, quota_wh + 60),
    )
    world, records = vw.play(folder, *people, rules=RULES)
    assert world.calls("Rematch", 1) == [""]
    return world, vw.export(world, records)


def judge(folder: Path, files: dict[str, bytes]) -> list[str]:
    return verify.verify(vw.Folder(folder).write(files), vw.load_master_world().REGULATOR.public)


@pytest.mark.row("E1", "J15")
def test_a_second_round_holds(tmp_path: Path) -> None:
    world, files = second_round(tmp_path)
    assert judge(tmp_path / "export", files) == []
    assert world.view.area_event(1, 1).pairs == 2
    assert world.row(world.homes[2]).agreed_wh == 120


def test_two_trades_with_one_partner_count_alike_where_the_rules_discount_none(tmp_path: Path) -> None:
    """What is set free may go to a buyer who trades with that seller already."""
    quota_wh = vw.load_master_world().QUOTA_WH
    people = (
        (vw.Habits(), 1, 1, "sell", 200, quota_wh - 120, [120, 120]),
        (vw.Habits(accepts=False), 1, 2, "buy", 900, quota_wh, [60, 60]),
        (vw.Habits(), 1, 3, "buy", 800, quota_wh + 120, [120, 120]),
    )
    world, records = vw.play(tmp_path, *people, rules=RULES)
    assert world.view.area_event(1, 1).pairs == 3
    rows = [world.row(world.homes[place]) for place in (0, 2)]
    assert [(row.agreed_wh, row.credit_after - row.credit_before) for row in rows] == [(240, RULES.credit_reward)] * 2
    assert judge(tmp_path / "export", vw.export(world, records)) == []


@pytest.mark.parametrize("change", ["price_u_per_wh", "charge_u", "slot_wh"])
def test_a_quorum_that_bends_a_pair_of_the_second_round_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    honest = orders.make_pair

    def bent(event: Any, book: Any, number: int, *rest: Any) -> Any:
        pair = honest(event, book, number, *rest)
        value = getattr(pair, change)
        return (
            pair
            if number == 1
            else replace(pair, **{change: value + 1 if change == "charge_u" else [value[0] - 1, *value[1:]]})
        )

    monkeypatch.setattr(orders, "make_pair", bent)
    _, files = second_round(tmp_path)
    assert any("pair/1/2" in problem and change in problem for problem in judge(tmp_path / "export", files))
