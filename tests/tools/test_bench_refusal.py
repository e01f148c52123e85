"""What is refused costs one signature check and changes nothing; what is genuine is not refused for its signature."""

from __future__ import annotations

import json

import pytest
from watt_chain.pbft.messages import TALK
from watt_node.links import FAULTS
from watt_tools import cli
from watt_tools.bench_refusal import Stand, forged

KINDS = list(Stand().samples())


@pytest.mark.parametrize("kind", KINDS)
def test_a_forged_message_costs_at_most_one_check_and_changes_nothing(kind: str) -> None:
    stand = Stand()
    before = (stand.ledger.head, stand.ledger.state.root(), len(stand.replica.pool))
    message = stand.samples()[kind]
    frame = stand.spoiled(message)
    checks = stand.checks
    stand.refuse(frame)
    output = stand.replica.take_output()
    is_talk = isinstance(message, TALK)
    assert stand.checks - checks == (0 if is_talk else 1)
    assert [rejected.reason for rejected in output.rejected] == ["wrong-chain" if is_talk else "frame-signature"]
    assert not output.persist and not output.send and not output.commit
    assert (stand.ledger.head, stand.ledger.state.root(), len(stand.replica.pool)) == before
    assert not stand.replica.evidence


@pytest.mark.parametrize("kind", KINDS)
def test_the_genuine_message_passes_its_signature(kind: str) -> None:
    stand = Stand()
    stand.refuse(stand.seal(stand.samples()[kind]))
    assert "frame-signature" not in [rejected.reason for rejected in stand.replica.take_output().rejected]


@pytest.mark.parametrize(
    ("kind", "reason", "checks", "later"),
    [
        ("view-change, last vote", "prepared-signature", 4, "set-aside"),
        ("new-view, last vote", "new-view-quorum", 7, "set-aside"),
        ("sync-blocks, last vote", "sync-block", 3, "sync-distrusted"),
    ],
)
def test_what_only_a_validator_can_send_is_refused_after_its_last_vote_and_then_unread(
    kind: str, reason: str, checks: int, later: str
) -> None:
    stand = Stand()
    frame = stand.insiders()[kind]
    stand.checks = 0
    stand.refuse(frame)
    assert [rejected.reason for rejected in stand.replica.take_output().rejected] == [reason]
    assert stand.checks == checks and stand.ledger.head.height == 0
    assert reason in FAULTS or reason == "sync-block"  # an honest one may send a block of a list that is over
    for _ in range(15):
        stand.refuse(frame)
    assert [rejected.reason for rejected in stand.replica.take_output().rejected] == [later] * 15
    assert stand.checks == checks


def test_a_forged_transaction_costs_one_check() -> None:
    stand = Stand()
    assert stand.replica.submit(forged(stand.transaction()), 1) == "tx-signature"
    assert stand.checks == 1


def test_the_command_prints_every_kind(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watt_tools.bench_refusal.ROUNDS", 2)
    assert cli.main(["bench", "refusals", "--json"]) in (0, 1)  # the ratio of two repetitions proves nothing
    found = json.loads(capsys.readouterr().out)
    inside = [name for kind in Stand().insiders() for name in (f"{kind} inside", f"{kind}, each of 16 in a row")]
    assert list(found) == [*KINDS, *inside, "transaction"]
    assert {row["checks"] for name, row in found.items() if "vote" not in name} == {0, 1}
    assert all(row["checks"] < 1 for name, row in found.items() if "in a row" in name)
