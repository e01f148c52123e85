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
    ("kind", "reason", "checks"),
    [
        ("view-change, last vote inside", "prepared-signature", 4),
        ("new-view, last vote inside", "new-view-quorum", 7),
        ("sync-blocks, last vote inside", "sync-block", 3),
    ],
)
def test_what_only_a_validator_can_send_is_refused_after_its_last_vote(kind: str, reason: str, checks: int) -> None:
    stand = Stand()
    frame = stand.insiders()[kind]
    stand.checks = 0
    stand.refuse(frame)
    assert [rejected.reason for rejected in stand.replica.take_output().rejected] == [reason]
    assert stand.checks == checks and stand.ledger.head.height == 0
    assert reason in FAULTS or reason == "sync-block"  # an honest one may send a block of a list that is over


def test_a_forged_transaction_costs_one_check() -> None:
    stand = Stand()
    assert stand.replica.submit(forged(stand.transaction()), 1) == "tx-signature"
    assert stand.checks == 1


def test_the_command_prints_every_kind(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watt_tools.bench_refusal.ROUNDS", 2)
    assert cli.main(["bench", "refusals", "--json"]) in (0, 1)  # the ratio of two repetitions proves nothing
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [*KINDS, *Stand().insiders(), "transaction"]
    assert {row["checks"] for name, row in found.items() if "inside" not in name} == {0, 1}
