"""The regulator's reading side on the archive of a whole event."""

from typing import Any

import pytest
from watt_chain.light import ProofError
from watt_chain.transaction import decode_transaction
from watt_master.archive import Archive
from watt_master.trace import TraceError, Tracer, signers


@pytest.fixture
def finished(world: Any) -> Any:
    world.run(world.genesis.protocol_start_s + 9000)
    return world


def find(world: Any, chain: int, kind: str) -> Any:
    return next(iter(world.archive.transactions(chain, (kind,))))


@pytest.mark.row("A14", "E13", "E16")
def test_given_an_archive_when_any_transaction_is_asked_for_then_it_comes_with_proofs_a_light_client_accepts(
    finished: Any,
) -> None:
    tracer = Tracer(finished.archive, finished.genesis)
    for chain, kind in ((1, "Confirm"), (2, "Checkpoint"), (1, "Points"), (0, "Match")):
        row = find(finished, chain, kind)
        trace = tracer.transaction(row.txid)
        assert tracer.light.check_receipt(trace.proof, trace.tx) == row.code == ""
        assert decode_transaction(trace.tx).kind == kind
        assert signers(trace) == [0, 1, 2]
        assert finished.genesis.protocol_start_s <= trace.time_s <= finished.now_s
        if chain:  # the main chain took in the block: its own record is proven likewise
            assert trace.anchor is not None
            assert tracer.light.check_receipt(trace.anchor.proof, trace.anchor.tx) == ""
            assert trace.anchor.row.kind == "Anchor"


def test_given_a_traced_transaction_when_one_byte_of_it_is_changed_then_its_proof_does_not_hold(finished: Any) -> None:
    tracer = Tracer(finished.archive, finished.genesis)
    trace = tracer.transaction(find(finished, 1, "Confirm").txid)
    other = find(finished, 1, "Reveal")
    wrong = tracer.transaction(other.txid).tx
    with pytest.raises(ProofError):
        tracer.light.check_receipt(trace.proof, wrong)


@pytest.mark.row("A14", "E16", "E21")
def test_given_a_contract_between_two_users_when_it_is_traced_then_both_sides_calls_and_its_state_are_shown(
    finished: Any,
) -> None:
    found = Tracer(finished.archive, finished.genesis).contract(2, 1, 1)
    sellers = [home.id for home in finished.homes if home.area == 2 and home.side == "sell"]
    assert found.pair.seller in sellers and found.pair.state == "SETTLED"
    confirms = [row for row in found.calls if row.kind == "Confirm"]
    assert sorted(row.signer_id for row in confirms) == sorted([found.pair.seller, found.pair.buyer])
    kinds = [row.kind for row in found.calls]
    assert kinds.index("Qualify") < kinds.index("Inbox") < kinds.index("Confirmtransaction") < kinds.index("Confirm")
    assert kinds[-1] == "SettlementAmount"


def test_given_an_unknown_id_when_it_is_traced_then_the_answer_says_so(finished: Any) -> None:
    tracer = Tracer(finished.archive, finished.genesis)
    with pytest.raises(TraceError, match="no archived block"):
        tracer.transaction(bytes(32))
    with pytest.raises(TraceError, match="no contract 99"):
        tracer.contract(1, 1, 99)
    with pytest.raises(TraceError, match="no chain 7"):
        tracer.contract(7, 1, 1)


@pytest.mark.row("E21", "E23")
def test_given_an_index_that_lies_about_an_outcome_when_it_is_traced_then_the_certified_block_wins(
    finished: Any, tmp_path: Any
) -> None:
    import sqlite3

    row = find(finished, 1, "Points")
    finished.archive.close()
    with sqlite3.connect(finished.folder / "archive.sqlite") as db:
        db.execute("UPDATE tx SET code = 'forged' WHERE txid = ?", (row.txid,))
    db.close()
    archive = Archive(finished.folder / "archive.sqlite", finished.network, read_only=True)
    with pytest.raises(TraceError, match="forged"):
        Tracer(archive, finished.genesis).transaction(row.txid)
