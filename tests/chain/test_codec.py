"""One value, one encoding; signatures in one form only; a genesis document that names its network."""

import contextlib
import hashlib
from hashlib import sha256

import ecdsa
import msgspec
import pytest
from chain_world import make_genesis, real_keys
from hypothesis import given
from hypothesis import strategies as st
from watt_chain import codec, crypto
from watt_chain.block import Header, block_hash
from watt_chain.codec import DecodeError
from watt_chain.genesis import (
    Genesis,
    GenesisFile,
    Validator,
    check_genesis,
    faults_tolerated,
    list_hash,
    network_of,
    open_genesis,
    quorum,
    sign_genesis,
)
from watt_chain.transaction import (
    VerifiedTransactions,
    check_signature,
    decode_transaction,
    make_transaction,
    txid,
)

HEADER = Header(2, 1, 7, bytes(32), 0, 0, 1000, 2, *(bytes([n]) * 32 for n in range(4)), 3, 1, 5, b"\x05" * 32)


HEADER_BYTES = bytes.fromhex(
    "dc0010020107c420"
    + "00" * 32
    + "0000cd03e802"
    + "".join("c420" + f"{n:02x}" * 32 for n in range(4))
    + "030105c420"
    + "05" * 32
)
"""Header version 2, written by hand from CONSENSUS.md 2.1 and 2.5."""
HEADER_HASH = "64ffb3d5deaddde879ffd088e3c87a4a80b4d2e1e1bc0a944558c96a818c8c5b"
"""Its block hash in the network named by 32 bytes of 0x07: SHA-256("wattpact/1/header" 00 07...07 header)."""


def test_a_header_comes_back_as_it_was() -> None:
    assert codec.decode(codec.encode(HEADER), Header) == HEADER


def test_the_bytes_and_the_hash_of_a_header_are_those_of_the_document() -> None:
    assert codec.encode(HEADER) == HEADER_BYTES
    assert block_hash(bytes([7]) * 32, HEADER_BYTES).hex() == HEADER_HASH
    assert sha256(b"wattpact/1/header\x00" + bytes([7]) * 32 + HEADER_BYTES).hexdigest() == HEADER_HASH


def test_the_hash_of_a_validator_list_covers_names_keys_and_order() -> None:
    one, two = Validator("area1-node0", b"\x01" * 64), Validator("area1-node1", b"\x02" * 64)
    listed = "9292ab61726561312d6e6f646530c440" + "01" * 64 + "92ab61726561312d6e6f646531c440" + "02" * 64
    assert list_hash([one, two]) == sha256(bytes.fromhex(listed)).digest()
    renamed = Validator("area1-node9", one.public)
    assert len({list_hash(seats) for seats in ([one, two], [two, one], [one], [renamed, two])}) == 4


@pytest.mark.parametrize(
    "spelling",
    [
        b"\x92\xcd\x00\x01\xc4\x00",  # 1 as a 16-bit integer
        b"\xdc\x00\x02\x01\xc4\x00",  # the array's length in two bytes
        b"\x92\x01\xc5\x00\x00",  # the length of empty bytes in two bytes
        b"\x92\x01\xc4\x00\x00",  # a byte more
        b"\x92\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00\xc4\x00",  # 1.0
        b"\x92\x01\xa0",  # text where bytes belong
        b"\x93\x01\xc4\x00\x01",  # a field more
        b"\x91\x01",  # a field less
        b"",
    ],
)
def test_any_other_spelling_of_a_value_is_refused(spelling: bytes) -> None:
    class Pair(codec.Structure, frozen=True):
        number: int
        data: bytes

    assert codec.decode(b"\x92\x01\xc4\x00", Pair) == Pair(1, b"")
    with pytest.raises(DecodeError):
        codec.decode(spelling, Pair)


def test_more_bytes_than_allowed_are_refused_before_they_are_read() -> None:
    with pytest.raises(DecodeError, match="at most 10 bytes"):
        codec.decode(codec.encode(HEADER), Header, 10)


@given(st.binary(max_size=400))
def test_decode_raises_nothing_but_decode_error(data: bytes) -> None:
    for kind in (Header, Genesis, msgspec.Raw):
        with contextlib.suppress(DecodeError):
            codec.decode(data, kind)


def test_every_changed_byte_of_a_header_is_another_header_or_none() -> None:
    data = codec.encode(HEADER)
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with contextlib.suppress(DecodeError):
            assert codec.decode(changed, Header) != HEADER


@pytest.mark.row("E6")
def test_signatures_agree_with_an_independent_implementation() -> None:
    for number in range(20):
        key = real_keys(1, offset=1000 + number)[0]
        other = ecdsa.SigningKey.from_string(key.to_bytes(), curve=ecdsa.NIST256p, hashfunc=hashlib.sha256)
        message = b"message %d" % number
        theirs = other.sign_deterministic(
            message, hashfunc=hashlib.sha256, sigencode=ecdsa.util.sigencode_string_canonize
        )
        assert key.sign(message) == theirs  # RFC 6979, low s
        assert key.public == other.verifying_key.to_string()
        assert crypto.verify(key.public, message, theirs)


def test_the_higher_s_of_a_good_signature_is_refused() -> None:
    key = real_keys(1)[0]
    good = key.sign(b"m")
    high = good[:32] + (crypto.ORDER - int.from_bytes(good[32:], "big")).to_bytes(32, "big")
    assert crypto.verify(key.public, b"m", good)
    assert not crypto.verify(key.public, b"m", high)


@given(st.binary(max_size=70), st.binary(max_size=70))
def test_verify_never_raises(public: bytes, signature: bytes) -> None:
    assert not crypto.verify(public, b"m", signature)


def test_verify_refuses_zero_and_the_order() -> None:
    key = real_keys(1)[0]
    order = crypto.ORDER.to_bytes(32, "big")
    for bad in (bytes(64), order + order, bytes(32) + b"\x01" * 32, b"\x01" * 32 + bytes(32)):
        assert not crypto.verify(key.public, b"m", bad)


def test_a_key_file_reads_back_and_bad_scalars_are_refused() -> None:
    key = real_keys(1)[0]
    assert crypto.PrivateKey.from_text(key.to_text()).public == key.public
    assert key.to_bytes().hex() not in repr(key)
    for bad in (bytes(32), bytes(31), crypto.ORDER.to_bytes(32, "big")):
        with pytest.raises(ValueError):
            crypto.PrivateKey.from_bytes(bad)


def test_the_quorum_shares_an_honest_validator_for_every_n() -> None:
    for n in range(1, 65):
        f, q = faults_tolerated(n), quorum(n)
        assert 3 * f < n and q <= n - f
        assert 2 * q - n >= f + 1  # two quorums share f + 1
        assert 2 * (q - 1) - n < f + 1  # and not one vote could be saved


def test_a_signed_genesis_opens_and_names_the_network() -> None:
    keys = real_keys(5)
    genesis = make_genesis([key.public for key in keys[:4]], keys[4].public)
    data = sign_genesis(genesis, keys[4])
    opened, network = open_genesis(data, keys[4].public)
    assert opened == genesis and network == network_of(genesis) == sha256(codec.encode(genesis)).digest()


def test_a_genesis_of_another_regulator_or_with_a_changed_byte_is_refused() -> None:
    keys = real_keys(5)
    genesis = make_genesis([key.public for key in keys[:4]], keys[4].public)
    data = sign_genesis(genesis, keys[4])
    with pytest.raises(DecodeError):
        open_genesis(data, keys[0].public)
    for at in range(0, len(data), 7):
        with pytest.raises(DecodeError):
            open_genesis(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :], keys[4].public)
    with pytest.raises(ValueError):
        sign_genesis(genesis, keys[0])
    forged = codec.encode(GenesisFile(codec.encode(genesis), keys[0].sign(b"x")))
    with pytest.raises(DecodeError):
        open_genesis(forged)


def test_a_key_with_two_seats_is_no_network() -> None:
    keys = real_keys(5)
    publics = [keys[0].public, keys[0].public, keys[1].public, keys[2].public]
    assert "twice" in check_genesis(make_genesis(publics, keys[4].public))
    publics = [keys[0].public, b"\x01" * 64, keys[1].public, keys[2].public]
    assert "no P-256 point" in check_genesis(make_genesis(publics, keys[4].public))


def test_a_transaction_is_bound_to_its_network_chain_and_nonce() -> None:
    key = real_keys(1)[0]
    tx = make_transaction(key, bytes(32), "Add", 1, 3, [5])
    decoded = decode_transaction(tx)
    assert (decoded.kind, decoded.chain, decoded.nonce, decoded.fields_raw) == ("Add", 1, 3, b"\x91\x05")
    assert decoded.signer_id == crypto.id8(key.public) and decoded.txid == txid(tx)
    assert check_signature(tx, bytes(32)) and not check_signature(tx, b"\x01" * 32)


def test_two_signatures_of_one_payload_share_the_id_but_not_the_digest() -> None:
    key = real_keys(1)[0]
    tx = make_transaction(key, bytes(32), "Add", 1, 3, [5])
    forged = tx[:-64] + bytes(64)
    assert txid(tx) == txid(forged)
    verified = VerifiedTransactions()
    verified.add(decode_transaction(tx).digest)
    assert decode_transaction(tx).digest in verified and decode_transaction(forged).digest not in verified


def test_the_memory_of_verified_transactions_is_bounded() -> None:
    verified = VerifiedTransactions(4)
    digests = [bytes([n]) for n in range(20)]
    for digest in digests:
        verified.add(digest)
    assert 4 <= sum(digest in verified for digest in digests) <= 8
    assert digests[-1] in verified


@pytest.mark.parametrize("depth", [17, 200, 900, 970, 5000])
def test_fields_nested_deeper_than_the_bound_are_no_transaction_however_deep_the_stack_is(depth: int) -> None:
    def read(tx: bytes, frames: int) -> bool:
        if frames:
            return read(tx, frames - 1)
        with contextlib.suppress(DecodeError):
            return decode_transaction(tx).nonce == 1
        return False

    key = real_keys(1)[0]
    deepest = make_transaction(key, bytes(32), "Withdraw", 1, 1, msgspec.Raw(b"\x91" * 16 + b"\x00"))
    deeper = make_transaction(key, bytes(32), "Withdraw", 1, 1, msgspec.Raw(b"\x91" * depth + b"\x00"))
    for frames in (0, 60, 500):
        assert read(deepest, frames)
        assert not read(deeper, frames)


@pytest.mark.parametrize(
    "fields", [b"\x81\x00" * 17 + b"\x00", b"\x81\x91" * 9 + b"\x00" * 10, b"\x81\x80\x00", b"\xc1", b"\x92\x00"]
)
def test_fields_that_hide_depth_in_maps_or_are_no_msgpack_are_no_transaction(fields: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_transaction(make_transaction(real_keys(1)[0], bytes(32), "Withdraw", 1, 1, msgspec.Raw(fields)))
