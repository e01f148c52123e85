"""A service key's desk: one transaction per chain, repeated safely, never hammered."""

import itertools

import pytest
from watt_chain.block import Receipt
from watt_chain.contract.kinds import EventCall
from watt_chain.crypto import PrivateKey
from watt_chain.transaction import decode_transaction
from watt_master.desk import ANSWER_MS, REFUSALS_MAX, REFUSED_FIRST_MS, Desk, Wish

KEY = PrivateKey((5).to_bytes(32, "big"))


class Ledgers:
    """Stands in for the ledgers: nonces by chain."""

    def __init__(self) -> None:
        self.nonces = {1: 1, 2: 7, 9: -1}

    def next_nonce(self, chain: int, signer: bytes) -> int:
        return self.nonces[chain]


def wish(chain: int = 1, kind: str = "Qualify", stage: str = "REVEAL") -> Wish:
    return Wish(chain, kind, "event 1", EventCall(1), stage)


@pytest.fixture
def ledgers() -> Ledgers:
    return Ledgers()


@pytest.fixture
def desk(ledgers: Ledgers) -> Desk:
    return Desk(KEY, bytes(32), ledgers)


def test_given_a_wish_when_asked_for_repeatedly_then_it_is_signed_once_with_the_ledgers_nonce(desk: Desk) -> None:
    assert desk.want(wish(), 0)
    assert not desk.want(wish(), 10)
    (sent,) = desk.take_output()
    assert desk.take_output() == ()
    assert decode_transaction(sent.tx).nonce == 1 and sent.chain == 1


def test_given_two_wishes_on_one_chain_when_asked_for_then_the_second_waits_for_the_first(
    desk: Desk, ledgers: Ledgers
) -> None:
    assert desk.want(wish(), 0)
    assert not desk.want(wish(kind="SettlementCredit"), 0)
    assert desk.want(wish(chain=2), 0)  # another chain is another row of nonces
    first, _ = desk.take_output()
    ledgers.nonces[1] = 2
    desk.on_block(1, [Receipt(first.txid, "")], 100)
    assert desk.want(wish(kind="SettlementCredit"), 100)
    assert decode_transaction(desk.take_output()[0].tx).nonce == 2
    assert desk.accepted == 1


def test_given_no_answer_when_the_time_is_over_then_the_same_bytes_are_submitted_again(desk: Desk) -> None:
    desk.want(wish(), 0)
    (first,) = desk.take_output()
    assert not desk.want(wish(), ANSWER_MS - 1)
    assert desk.want(wish(), ANSWER_MS)
    assert desk.take_output()[0].tx == first.tx


def test_given_another_use_of_the_key_when_the_answer_stays_out_then_the_nonce_is_read_anew(
    desk: Desk, ledgers: Ledgers
) -> None:
    desk.want(wish(), 0)
    desk.take_output()
    ledgers.nonces[1] = 5
    desk.want(wish(), ANSWER_MS)
    assert decode_transaction(desk.take_output()[0].tx).nonce == 5


def test_given_a_refusal_by_a_block_when_asked_again_then_pauses_grow_and_end(desk: Desk) -> None:
    now, tries = 0, []
    for _ in range(400):
        if desk.want(wish(), now):
            tries.append(now)
            desk.on_block(1, [Receipt(desk.take_output()[0].txid, "early")], now)
        now += 500
    assert len(tries) == REFUSALS_MAX
    gaps = [b - a for a, b in itertools.pairwise(tries)]
    assert gaps[0] == REFUSED_FIRST_MS and gaps == sorted(gaps)
    assert desk.refusals == {"early": REFUSALS_MAX}


def test_given_a_refused_wish_when_the_ledgers_stage_changes_then_it_is_tried_at_once(desk: Desk) -> None:
    desk.want(wish(), 0)
    desk.on_block(1, [Receipt(desk.take_output()[0].txid, "stage")], 0)
    assert not desk.want(wish(), 1)
    assert desk.want(wish(stage="QUALIFIED"), 1)


def test_given_a_pool_that_is_full_when_asked_again_then_the_trying_never_ends_but_slows(desk: Desk) -> None:
    now = tries = 0
    while now < 600_000:
        if desk.want(wish(), now):
            tries += 1
            desk.refused(1, desk.take_output()[0].txid, "pool-full", now)
        now += 500
    assert REFUSALS_MAX < tries < 40


def test_given_a_station_that_has_the_transaction_already_when_it_says_so_then_the_desk_keeps_waiting(
    desk: Desk,
) -> None:
    for answer in ("duplicate", "final", "unreachable"):
        desk.want(wish(), 0)
        for sent in desk.take_output():
            desk.refused(1, sent.txid, answer, 1)
        assert desk.busy(1)


def test_given_a_chain_that_does_not_know_the_key_when_asked_for_then_nothing_is_sent(desk: Desk) -> None:
    assert not desk.want(wish(chain=9), 0)
    assert desk.take_output() == ()
