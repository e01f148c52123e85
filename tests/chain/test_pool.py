"""The pool: order, bounds, and reasons."""

from chain_world import FalseKey, make_tx
from watt_chain.pool import Pool
from watt_chain.transaction import DecodedTransaction, decode_transaction

NETWORK = bytes(32)
A, B = FalseKey("a"), FalseKey("b")


def tx(key: FalseKey, nonce: int, kind: str = "Add") -> DecodedTransaction:
    return decode_transaction(make_tx(key, NETWORK, nonce, kind))


def test_transactions_leave_by_arrival_and_within_a_signer_by_nonce() -> None:
    pool = Pool()
    for at, entry in enumerate([tx(A, 2), tx(B, 1), tx(A, 1), tx(B, 2), tx(A, 4)]):
        assert pool.add(entry, at, 1) == ""
    chosen = [(entry.signer, entry.nonce) for entry in pool.select(lambda signer: 1, 10, 10_000)]
    assert chosen == [(B.public, 1), (A.public, 1), (A.public, 2), (B.public, 2)]  # nonce 3 of A is missing
    assert len(pool.select(lambda signer: 1, 2, 10_000)) == 2
    assert len(pool.select(lambda signer: 1, 10, 1)) == 1  # one is taken however large it is


def test_every_refusal_has_its_reason_and_changes_nothing() -> None:
    pool = Pool(transactions_max=4, signer_max=3, nonce_ahead_max=10)
    first = tx(A, 1)
    assert pool.add(first, 0, 1) == ""
    assert pool.add(first, 0, 1) == "duplicate"
    assert pool.add(tx(A, 1, "Send"), 0, 1) == "nonce-taken"
    assert pool.add(tx(A, 0), 0, 1) == "nonce-used"
    assert pool.add(tx(A, 12), 0, 1) == "nonce-far"
    assert pool.add(tx(B, 1), 0, -1) == "signer-unknown"
    assert pool.add(tx(A, 2), 0, 1) == pool.add(tx(A, 3), 0, 1) == ""
    assert pool.add(tx(A, 4), 0, 1) == "signer-full"
    assert pool.add(tx(B, 1), 0, 1) == ""
    assert pool.add(tx(B, 2), 0, 1) == "pool-full"
    assert len(pool) == 4 and pool.refused["pool-full"] == 1
    small = Pool(bytes_max=10)
    assert small.add(first, 0, 1) == "pool-full" and small.size_bytes == 0


def test_a_final_block_clears_what_can_no_longer_run() -> None:
    pool = Pool()
    entries = [tx(A, 1), tx(A, 2), tx(A, 3), tx(B, 1)]
    for entry in entries:
        pool.add(entry, 5, 1)
    pool.settle([tx(A, 2, "Send")])  # another transaction with nonce 2 was final elsewhere
    assert [entry.txid in pool for entry in entries] == [False, False, True, True]
    assert pool.find(entries[2].digest) == entries[2].raw and pool.find(entries[0].digest) is None
    pool.forget(entries[2].txid)
    pool.forget(entries[3].txid)
    assert len(pool) == 0 and pool.size_bytes == 0


def test_nothing_is_ready_while_a_nonce_is_missing() -> None:
    pool = Pool()
    pool.add(tx(A, 2), 5, 1)
    assert pool.ready_since(lambda signer: 1) is None
    pool.add(tx(A, 1), 9, 1)
    assert pool.ready_since(lambda signer: 1) == 9
    pool.settle([tx(A, 1)])
    assert pool.ready_since(lambda signer: 2) == 5
