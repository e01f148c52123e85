"""kill -9 of any one process at any step of a trade across areas: the same end in both areas and on the main chain.

The whole set takes half an hour (`make cross-kills`); CI plays one evening in which three of them happen in turn.
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest
from cross_net import ROLES, STEPS, Kill, Outcome, play
from watt_tools import export, readout, verify

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def check(outcome: Outcome, kills: tuple[Kill, ...]) -> None:
    assert list(outcome.killed) == [kill.name for kill in kills], "a step was not seen"
    assert outcome.states == {("PAID", "CREDITED", "PAID")}
    assert min(outcome.paid_u) > 0
    assert outcome.sent_u == outcome.received_u == sum(outcome.paid_u)
    for chain, logs in outcome.logs.items():
        assert len(logs) == 4
        heights = [len(log) for log in logs]
        assert min(heights) >= max(heights) - 1, f"a node of chain {chain} stays behind: {heights}"
        shared = min(heights)
        for height in range(shared):
            assert len({readout.decode_certified(log[height])[0].block for log in logs}) == 1
    audit = json.loads((outcome.folder / "audit/status.json").read_text())
    assert audit["alarms"] == [] and set(audit["chains"]) == {"0", "1", "2"}
    for chain, about in audit["chains"].items():
        assert about["height"] >= max(map(len, outcome.logs[int(chain)])) - 1, "the auditor follows through every kill"
    assert audit["checkpoint"] > 0
    read = readout.read(outcome.folder)
    export.write(outcome.net, read)
    assert verify.verify(outcome.folder / "export", outcome.net.regulator) == []


THREE = (Kill("locked", "cross-node"), Kill("anchored", "master-on-duty"), Kill("settled", "buyer-leader"))
EVENINGS = [THREE]
if os.environ.get("CROSS_KILLS") == "all":
    EVENINGS += [(Kill(step, role),) for step, role in itertools.product(STEPS, ROLES)]


@pytest.mark.row("H16")
@pytest.mark.parametrize("kills", EVENINGS, ids=lambda kills: "+".join(kill.name for kill in kills))
def test_any_process_killed_at_any_step_of_a_trade_changes_nothing(tmp_path: Path, kills: tuple[Kill, ...]) -> None:
    check(play(tmp_path / "net", kills), kills)
