"""The registrar's file: read strictly, submitted until each entry had its turn."""

from pathlib import Path
from typing import Any

import pytest
from watt_chain import codec
from watt_chain.block import Receipt
from watt_chain.contract.kinds import Deposit
from watt_chain.crypto import PrivateKey
from watt_chain.transaction import decode_transaction, make_transaction
from watt_master.registrar import ANSWER_MS, WINDOW, Registrar, read_file
from watt_node.config import ConfigError

GRID = PrivateKey((2).to_bytes(32, "big"))


class Ledgers:
    """Stands in for the ledgers: the next nonce of the one key."""

    def __init__(self) -> None:
        self.next = {1: 1, 2: 1}

    def next_nonce(self, chain: int, signer: bytes) -> int:
        return self.next[chain]


def deposits(count: int, chain: int = 1) -> list[bytes]:
    return [
        make_transaction(GRID, bytes(32), "Deposit", chain, nonce, Deposit(bytes(8), nonce))
        for nonce in range(1, count + 1)
    ]


def packed(chain: int, tx: bytes) -> bytes:
    entry = codec.encode([chain, tx])
    return len(entry).to_bytes(4, "big") + entry


def test_given_a_file_when_read_then_its_entries_come_in_order(tmp_path: Path) -> None:
    path = tmp_path / "r.bin"
    path.write_bytes(b"".join(packed(1, tx) for tx in deposits(3)))
    assert [tx.nonce for tx in read_file(path, [1, 2])] == [1, 2, 3]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (packed(1, deposits(1)[0])[:-1], "entry 1 at byte 0"),
        (packed(1, deposits(1)[0]) + b"\x00\x00", "entry 2 at byte"),
        (b"\x00\x00\x00\x00", "entry 1"),
        (packed(1, b"no transaction"), "not .chain, transaction"),
        (packed(2, deposits(1)[0]), "is for chain 1, labelled 2"),
        (packed(3, deposits(1, chain=3)[0]), "chain 3 is not one"),
    ],
)
def test_given_a_damaged_file_when_read_then_the_entry_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "r.bin"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        read_file(path, [1, 2])


def test_given_no_file_when_read_then_the_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.bin: cannot read"):
        read_file(tmp_path / "none.bin", [1])


def test_given_many_entries_when_stepped_then_a_window_is_under_way_and_each_is_repeated_only_after_a_time_out() -> (
    None
):
    ledgers = Ledgers()
    registrar = Registrar([decode_transaction(tx) for tx in deposits(WINDOW + 10)], ledgers)
    first = registrar.step(0)
    assert len(first) == WINDOW
    assert registrar.step(10) == []
    ledgers.next[1] = 21  # twenty had their turn
    assert len(registrar.step(20)) == 10
    again = registrar.step(ANSWER_MS)
    assert [one.tx for one in again] == [one.tx for one in first[20:]]
    ledgers.next[1] = WINDOW + 11
    assert registrar.step(2 * ANSWER_MS) == []
    assert registrar.left == 0 and not registrar.signs_on(1, GRID.public)


def test_given_entries_that_are_done_when_started_anew_then_nothing_is_submitted() -> None:
    ledgers = Ledgers()
    ledgers.next[1] = 4
    registrar = Registrar([decode_transaction(tx) for tx in deposits(3)], ledgers)
    assert registrar.step(0) == []
    assert registrar.status()["done"] == 3


def test_given_a_refused_entry_when_its_block_comes_then_the_reason_is_counted_and_it_is_not_repeated() -> None:
    ledgers = Ledgers()
    registrar = Registrar([decode_transaction(tx) for tx in deposits(2)], ledgers)
    first, _ = registrar.step(0)
    registrar.on_block(1, [Receipt(first.txid, "unknown-user")])
    ledgers.next[1] = 2
    assert registrar.step(ANSWER_MS)[0].txid != first.txid
    status: dict[str, Any] = registrar.status()
    assert status["refused"] == {"unknown-user": 1} and status["wrong"] == ["chain 1 Deposit nonce 1: unknown-user"]


def test_given_a_key_that_the_chain_does_not_know_when_stepped_then_its_entries_wait() -> None:
    ledgers = Ledgers()
    ledgers.next[1] = -1
    registrar = Registrar([decode_transaction(tx) for tx in deposits(2)], ledgers)
    assert registrar.step(0) == []
    assert registrar.left == 2


def test_given_enrolments_and_deposits_when_submitted_then_no_deposit_overtakes_an_enrolment() -> None:
    """Two signers: a block may take their transactions in either order, and a refused deposit would be lost."""
    regulator = PrivateKey((3).to_bytes(32, "big"))
    signed = [make_transaction(regulator, bytes(32), "Enrol", 1, nonce, nonce) for nonce in (1, 2)]
    first, last = [decode_transaction(tx) for tx in signed], [decode_transaction(tx) for tx in deposits(2)]
    following = {GRID.public: 1, regulator.public: 1}

    class Nonces:
        def next_nonce(self, chain: int, signer: bytes) -> int:
            return following[signer]

    registrar = Registrar([*first, *last], Nonces())
    assert [one.kind for one in registrar.step(0)] == ["Enrol", "Enrol"]
    following[regulator.public] = 2
    assert registrar.step(100) == []
    following[regulator.public] = 3
    assert [one.kind for one in registrar.step(200)] == ["Deposit", "Deposit"]
