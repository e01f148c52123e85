"""What a ledger accepts as the next block, and what it can prove afterwards."""

import pytest
from chain_world import START_S, CountingContract, FalseKey, certify, false_verify, make_genesis, make_tx, real_keys
from msgspec.structs import replace
from watt_chain import codec
from watt_chain.block import Block, Certificate, CertifiedBlock, Header, block_hash, decode_certified, message_proofs
from watt_chain.codec import DecodeError
from watt_chain.genesis import network_of
from watt_chain.ledger import BlockContext, CorruptionError, Ledger
from watt_chain.light import LightClient, ProofError, ReceiptProof, StateProof
from watt_chain.state import State
from watt_chain.transaction import DecodedTransaction, decode_transaction, txid

KEYS = [FalseKey(f"node{index}") for index in range(4)]
USER = FalseKey("user")
GENESIS = make_genesis([key.public for key in KEYS])
NETWORK = network_of(GENESIS)
LEADER = 1
"Leader of height 1, view 0."


def ledger() -> Ledger:
    return Ledger(GENESIS, 1, CountingContract(), verify=false_verify)


def light() -> LightClient:
    return LightClient(GENESIS, NETWORK, false_verify)


def txs(count: int = 3, first: int = 1) -> list[bytes]:
    return [make_tx(USER, NETWORK, first + number) for number in range(count)]


def changed(block: Block, **fields: object) -> Block:
    header = codec.decode(block.header, Header)
    values = [fields.get(name, getattr(header, name)) for name in header.__struct_fields__]
    return Block(codec.encode(Header(*values)), block.transactions)  # type: ignore[arg-type]


def test_a_built_block_is_accepted_by_another_node_and_applied_by_both() -> None:
    one, two = ledger(), ledger()
    block = one.build(0, LEADER, START_S + 1, txs())
    assert two.check(block) is None
    certified = certify(one, block, KEYS)
    for node in (one, two):
        applied = node.apply(certified)
        assert [receipt.code for receipt in applied.receipts] == ["", "", ""]
        assert node.head.height == 1 and codec.decode(node.state.get(b"total") or b"", int) == 3
    assert one.state.root() == two.state.root() == codec.decode(block.header, Header).state_root


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"version": 1}, "version"),
        ({"version": 3}, "version"),
        ({"chain": 0}, "chain"),
        ({"height": 2}, "height"),
        ({"height": 0}, "height"),
        ({"previous": bytes(32)}, "previous"),
        ({"term": 1}, "term"),
        ({"view": 1}, "proposer"),
        ({"proposer": 2}, "proposer"),
        ({"proposer": 9}, "proposer"),
        ({"time_s": START_S - 1}, "time"),
        ({"time_s": START_S + 2}, "state-root"),
        ({"tx_root": bytes(32)}, "tx-root"),
        ({"receipt_root": bytes(32)}, "receipt-root"),
        ({"state_root": bytes(32)}, "state-root"),
        ({"outbox_root": bytes(32)}, "outbox-root"),
        ({"inbox_cursor": 1}, "inbox-cursor"),
        ({"rules_version": 2}, "rules-version"),
        ({"next_validators": bytes(32)}, "next-validators"),
        ({"tx_count": 2}, "tx-count"),
        ({"tx_count": 0}, "tx-count"),
    ],
)
def test_a_block_with_one_wrong_header_field_is_refused(fields: dict[str, object], reason: str) -> None:
    node = ledger()
    block = ledger().build(0, LEADER, START_S + 1, txs())
    before = node.state.root()
    assert node.check(changed(block, **fields)) == reason
    assert node.head.height == 0 and node.state.root() == before
    assert node.check(block) is None


def test_a_block_with_other_transactions_than_its_root_is_refused_also_when_known() -> None:
    node = ledger()
    block = node.build(0, LEADER, START_S + 1, txs())
    assert node.check(Block(block.header, txs()[:2])) == "tx-root"
    assert ledger().check(Block(block.header, txs()[:2])) == "tx-count"
    assert ledger().check(Block(block.header, [*txs()[:2], txs(1, 4)[0]])) == "tx-root"
    assert node.check(Block(b"nonsense", txs())) == "header-form"


@pytest.mark.parametrize(
    ("tx", "reason"),
    [
        (make_tx(USER, NETWORK, 2), "nonce"),
        (make_tx(USER, NETWORK, 0), "nonce"),
        (make_tx(USER, NETWORK, 1, chain=2), "tx-chain"),
        (make_tx(USER, bytes(32), 1), "tx-signature"),
        (make_tx(USER, NETWORK, 1)[:-1], "tx-form"),
        (codec.encode([codec.encode(["Add", 1, 1, [1]]), bytes(64), USER.sign(b"")]), "tx-signature"),
    ],
)
@pytest.mark.row("E7")
def test_a_transaction_that_may_not_be_in_a_block_is_left_out_by_the_builder_and_refused_by_others(
    tx: bytes, reason: str
) -> None:
    good = [make_tx(FalseKey("other"), NETWORK, 1)]
    block = ledger().build(0, LEADER, START_S + 1, [tx, *good])
    assert block.transactions == good

    class Blind(Ledger):
        """A leader that checks nothing: it pretends to have read a good transaction of its own."""

        def _admit(self, raw: bytes, digest: bytes) -> DecodedTransaction:
            read = decode_transaction(good[0])
            if raw == good[0]:
                return read
            return replace(read, signer=USER.public, raw=raw, digest=digest)

    liar = Blind(GENESIS, 1, CountingContract(), verify=false_verify)
    forged = liar.build(0, LEADER, START_S + 1, [tx, *good])
    assert tx in forged.transactions
    assert ledger().check(forged) == reason


def test_a_refused_transaction_leaves_its_receipt_and_nonce_and_nothing_else() -> None:
    node = ledger()
    refused = make_tx(USER, NETWORK, 1, kind="Refuse")
    block = node.build(0, LEADER, START_S + 1, [refused, make_tx(USER, NETWORK, 2)])
    applied = node.apply(certify(node, block, KEYS))
    assert [receipt.code for receipt in applied.receipts] == ["refused", ""]
    assert codec.decode(node.state.get(b"total") or b"", int) == 1
    assert node.state.keys(b"refused/") == [] and node.next_nonce(USER.public) == 3


@pytest.mark.row("E1", "E2")
def test_a_final_transaction_cannot_come_again_and_a_final_block_cannot_be_replaced() -> None:
    node = ledger()
    node.apply(certify(node, node.build(0, LEADER, START_S + 1, txs()), KEYS))
    assert node.build(0, 2, START_S + 2, txs()).transactions == []
    rival = ledger().build(0, LEADER, START_S + 1, txs(1))
    root = node.state.root()
    assert node.check(rival) == "height"
    with pytest.raises(DecodeError):
        node.apply(certify(ledger(), rival, KEYS))
    assert node.state.root() == root and node.head.height == 1


def test_messages_of_a_block_are_under_its_outbox_root() -> None:
    node = ledger()
    calls = [make_tx(USER, NETWORK, 1, kind="Send"), make_tx(USER, NETWORK, 2, kind="Send")]
    applied = node.apply(certify(node, node.build(0, LEADER, START_S + 1, calls), KEYS))
    size, entries = message_proofs(applied.out_messages, 0)
    recent = node.certified(1)
    assert recent is not None
    parts, block, _, _ = decode_certified(recent)
    items = [(int(e[0]), bytes(e[1]), list(e[2])) for e in entries]  # type: ignore[call-overload]
    messages = light().check_messages(1, block.header, parts.certificate, size, items)
    assert [message.sequence for message in messages] == [1, 2]
    wrong = [(items[0][0], items[1][1], items[0][2])]
    with pytest.raises(ProofError, match="path"):
        light().check_messages(1, block.header, parts.certificate, size, wrong)


def test_a_certified_block_with_another_body_is_the_senders_fault() -> None:
    node = ledger()
    block = ledger().build(0, LEADER, START_S + 1, txs())
    certified = decode_certified(certify(node, block, KEYS))[0]
    forged = CertifiedBlock(codec.encode(Block(block.header, txs(2))), certified.certificate)
    with pytest.raises(DecodeError, match="tx-root"):
        node.apply(codec.encode(forged))
    assert node.head.height == 0


def test_a_quorum_that_certifies_what_does_not_execute_stops_the_node() -> None:
    node = ledger()
    block = changed(ledger().build(0, LEADER, START_S + 1, txs()), state_root=bytes(32))
    with pytest.raises(CorruptionError, match="state-root"):
        node.apply(certify(node, block, KEYS))
    assert node.head.height == 0


def certificates(good: Certificate) -> list[tuple[Certificate, str]]:
    votes = good.votes
    swapped = [votes[1], votes[0], votes[2]]
    outside = [*votes[:2], type(votes[0])(9, votes[2].signature)]
    forged = [*votes[:2], type(votes[0])(3, votes[2].signature)]
    return [
        (Certificate(0, votes[:2]), "certificate-size"),
        (Certificate(0, [*votes, type(votes[0])(3, votes[2].signature)]), "certificate-size"),
        (Certificate(0, [votes[0], votes[0], votes[1]]), "certificate-order"),
        (Certificate(0, swapped), "certificate-order"),
        (Certificate(0, outside), "certificate-index"),
        (Certificate(0, forged), "certificate-signature"),
        (Certificate(1, votes), "certificate-signature"),
    ]


@pytest.mark.row("E3")
def test_a_certificate_that_is_not_exactly_q_good_votes_in_order_is_refused_by_ledger_and_light_client() -> None:
    node = ledger()
    block = node.build(0, LEADER, START_S + 1, txs())
    certified, _, _, good = decode_certified(certify(node, block, KEYS))
    for certificate, reason in certificates(good):
        data = codec.encode(certificate)
        with pytest.raises(DecodeError, match=reason):
            node.apply(codec.encode(CertifiedBlock(certified.block, data)))
        with pytest.raises(ProofError, match=reason):
            light().check_header(1, block.header, data)
    assert node.head.height == 0
    light().check_header(1, block.header, certified.certificate)


def test_a_certificate_of_a_later_view_holds_and_of_an_earlier_does_not() -> None:
    node = ledger()
    block = node.build(1, 2, START_S + 1, txs())
    later = decode_certified(certify(node, block, KEYS, view=4))[0]
    light().check_header(1, block.header, later.certificate)
    earlier = decode_certified(certify(node, block, KEYS, view=0))[0]
    with pytest.raises(ProofError, match="certificate-view"):
        light().check_header(1, block.header, earlier.certificate)


@pytest.mark.row("E10", "E4")
def test_receipts_are_proven_and_every_forgery_is_refused() -> None:
    node = ledger()
    calls = [make_tx(USER, NETWORK, 1), make_tx(USER, NETWORK, 2, kind="Refuse"), make_tx(USER, NETWORK, 3)]
    node.apply(certify(node, node.build(0, LEADER, START_S + 1, calls), KEYS))
    client = light()
    proofs = [node.receipt_proof(1, txid(tx)) for tx in calls]
    for tx, proof, code in zip(calls, proofs, ["", "refused", ""], strict=True):
        assert proof is not None and client.check_receipt(proof, tx) == code
        assert node.find_receipt(txid(tx)) == 1
    good, other = proofs[0], proofs[1]
    assert good is not None and other is not None
    values = {name: getattr(good, name) for name in good.__struct_fields__}
    forgeries: list[tuple[dict[str, object], str]] = [
        ({"receipt": other.receipt}, "receipt-txid"),
        ({"receipt": codec.encode([txid(calls[0]), "refused"])}, "path"),
        ({"receipt": b"x"}, "receipt-form"),
        ({"index": 1}, "path"),
        ({"index": 3}, "path-form"),
        ({"size": 2}, "receipt-size"),
        ({"path": other.path}, "path"),
        ({"path": []}, "path"),
        ({"header": good.header[:-1] + b"\x09"}, "certificate-signature"),
        ({"header": b""}, "header-form"),
        ({"certificate": b""}, "certificate-form"),
    ]
    for fields, reason in forgeries:
        with pytest.raises(ProofError) as caught:
            client.check_receipt(ReceiptProof(**{**values, **fields}), calls[0])  # type: ignore[arg-type]
        assert caught.value.reason == reason, fields
    assert node.receipt_proof(1, bytes(32)) is None and node.receipt_proof(2, txid(calls[0])) is None


@pytest.mark.row("E10")
def test_state_is_proven_and_every_forgery_is_refused() -> None:
    node = ledger()
    assert node.state_proof([b"total"]) is None  # genesis has no certificate
    node.apply(certify(node, node.build(0, LEADER, START_S + 1, txs()), KEYS))
    client = light()
    proof = node.state_proof([b"total", b"time", b"unknown", b"total"])
    assert proof is not None
    assert client.check_state(proof, 1) == {b"total": codec.encode(3), b"time": codec.encode(START_S + 1)}
    with pytest.raises(ProofError, match="chain"):
        client.check_state(proof, 0)
    slot, key, value, path = proof.entries[0]
    for entries, reason in [
        ([(slot, key, codec.encode(4), path)], "path"),
        ([(slot, b"other", value, path)], "path"),
        ([(slot + 1, key, value, path)], "path"),
        ([(slot, key, value, path[:-1])], "path"),
        ([(slot, key, value, path * 30)], "path-form"),
        ([(slot, key, value, path)] * 2, "key-twice"),
    ]:
        with pytest.raises(ProofError) as caught:
            client.check_state(StateProof(proof.header, proof.certificate, proof.size, entries), 1)
        assert caught.value.reason == reason


def test_a_light_client_of_another_network_believes_nothing() -> None:
    node = ledger()
    block = node.build(0, LEADER, START_S + 1, txs())
    certificate = decode_certified(certify(node, block, KEYS))[0].certificate
    with pytest.raises(ProofError, match="certificate-signature"):
        LightClient(GENESIS, bytes(32), false_verify).check_header(1, block.header, certificate)
    with pytest.raises(ProofError, match="chain-unknown"):
        light().check_header(7, block.header, certificate)


@pytest.mark.row("B9")
def test_a_household_checks_a_receipt_with_real_signatures_and_the_genesis_file_only() -> None:
    keys = real_keys(5)
    genesis = make_genesis([key.public for key in keys[:4]], keys[4].public)
    node = Ledger(genesis, 1, CountingContract())
    tx = make_tx(keys[4], node.network, 1)
    node.apply(certify(node, node.build(0, LEADER, START_S + 1, [tx]), keys[:4]))
    proof = node.receipt_proof(1, txid(tx))
    assert proof is not None
    client = LightClient(genesis, network_of(genesis))
    assert client.check_receipt(proof, tx) == ""
    assert len(codec.encode(proof)) < 2048  # what one receipt costs on a thin link
    other = LightClient(make_genesis([key.public for key in keys[1:]], keys[4].public), network_of(genesis))
    with pytest.raises(ProofError, match="certificate-signature"):
        other.check_receipt(proof, tx)


def test_a_ledger_replays_its_own_blocks_to_the_same_state_and_serves_them() -> None:
    node, stored = ledger(), []
    for number in range(5):
        leader = (node.head.height + 1) % 4
        certified = certify(node, node.build(0, leader, START_S + number, txs(2, 1 + 2 * number)), KEYS)
        node.apply(certified)
        stored.append(certified)
    again = ledger()
    for certified in stored:
        again.replay(certified)
    assert again.state.root() == node.state.root() and again.head == node.head
    assert [again.certified(height) for height in range(1, 6)] == stored and again.certified(6) is None
    hash_ = block_hash(NETWORK, decode_certified(stored[-1])[1].header)
    assert again.head.block_hash == hash_


def test_a_signature_is_verified_once_and_a_block_executed_once() -> None:
    checks: list[bytes] = []
    runs: list[bytes] = []

    class Watched(CountingContract):
        def execute(self, state: State, context: BlockContext, tx: DecodedTransaction) -> str:
            runs.append(tx.txid)
            return super().execute(state, context, tx)

    def counting(public: bytes, message: bytes, signature: bytes) -> bool:
        checks.append(signature)
        return false_verify(public, message, signature)

    node = Ledger(GENESIS, 1, Watched(), verify=counting)
    block = node.build(0, LEADER, START_S + 1, txs())
    assert node.check(block) is None
    node.apply(certify(node, block, KEYS), certificate_known=True)
    assert len(checks) == 3 and len(runs) == 3
    other = Ledger(GENESIS, 1, Watched(), node.verified, counting)
    assert other.check(block) is None and len(checks) == 3


def test_proofs_of_blocks_long_ago_are_forgotten_and_their_blocks_served_from_the_archive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("watt_chain.ledger.RECENT_BLOCKS_MAX", 2)
    archive: dict[int, bytes] = {}
    node = Ledger(GENESIS, 1, CountingContract(), verify=false_verify, archive=archive.get)
    for height in range(1, 5):
        archive[height] = certify(node, node.build(0, height % 4, START_S, txs(1, height)), KEYS)
        node.apply(archive[height])
    assert node.find_receipt(txid(txs(1, 1)[0])) is None and node.find_receipt(txid(txs(1, 3)[0])) == 3
    assert len(node._blocks) == 2
    assert [node.certified(height) for height in (1, 4, 5)] == [archive[1], archive[4], None]
