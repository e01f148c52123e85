"""P-256 on any interpreter: RFC 6979, golden signatures of another implementation, Wycheproof, the strict rule."""

from watt_wire import p256
from watt_wire.errors import EncodeError
from wire_vectors import FOLDER, blocks, raises

ORDER = p256.N.to_bytes(32, "big")


def test_the_signatures_of_rfc_6979_come_out_in_their_low_form() -> None:
    for block in blocks("rfc6979_p256_sha256.txt"):
        private, message = block.data("private"), block.data("message")
        assert p256.public_key(private) == block.data("public")
        assert p256.sign(private, message) == block.data("r") + block.data("s_low")
        assert p256.verify_ecdsa(block.data("public"), message, block.data("r") + block.data("s"))


def test_golden_keys_and_signatures_of_another_implementation() -> None:
    for block in blocks("signature.txt"):
        private, message, signature = block.data("private"), block.data("message"), block.data("signature")
        assert p256.public_key(private) == block.data("public")
        assert p256.sign(private, message) == signature
        assert p256.verify(block.data("public"), message, signature)


def test_wycheproof_agrees_and_the_strict_rule_refuses_high_s_on_top() -> None:
    counts = [0, 0, 0]
    with open(FOLDER + "wycheproof/ecdsa_secp256r1_sha256_p1363.txt") as file:
        for line in file:
            if line.startswith("#"):
                continue
            number, result, public_hex, message_hex, signature_hex = line.split()
            public = bytes.fromhex(public_hex)
            message = b"" if message_hex == "-" else bytes.fromhex(message_hex)
            signature = b"" if signature_hex == "-" else bytes.fromhex(signature_hex)
            plain = p256.verify_ecdsa(public, message, signature)
            assert plain == (result == "valid"), number
            low = p256.is_low_s(signature)
            # `verify` is exactly these two steps; calling it here for every case would double the time on a device.
            counts[0] += 1
            counts[1] += plain
            counts[2] += plain and low
            if plain and not low:
                assert not p256.verify(public, message, signature), number
    assert counts[0] == 262
    assert counts[1] == 173
    assert 0 < counts[2] < counts[1]


def test_the_mirrored_signature_is_good_ecdsa_and_refused() -> None:
    block = blocks("signature.txt")[3]
    public, message, signature = block.data("public"), block.data("message"), block.data("signature")
    high = signature[:32] + (p256.N - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    assert p256.verify_ecdsa(public, message, high)
    assert not p256.verify(public, message, high)


def test_half_the_order_is_the_last_low_s() -> None:
    assert p256.is_low_s(bytes(32) + p256.HALF_N.to_bytes(32, "big"))
    assert not p256.is_low_s(bytes(32) + (p256.HALF_N + 1).to_bytes(32, "big"))


def test_r_or_s_of_zero_or_of_the_order_and_above_is_refused() -> None:
    block = blocks("signature.txt")[4]
    public, message, signature = block.data("public"), block.data("message"), block.data("signature")
    top = b"\xff" * 32
    for bad in (bytes(32), ORDER, top):
        assert not p256.verify_ecdsa(public, message, bad + signature[32:])
        assert not p256.verify_ecdsa(public, message, signature[:32] + bad)
    assert not p256.verify_ecdsa(public, message, bytes(64))


def test_another_message_key_or_length_is_refused() -> None:
    block = blocks("signature.txt")[5]
    public, message, signature = block.data("public"), block.data("message"), block.data("signature")
    other = blocks("signature.txt")[6].data("public")
    assert not p256.verify(public, message + b"\x00", signature)
    assert not p256.verify(other, message, signature)
    for length in (0, 1, 32, 63):
        assert not p256.verify(public, message, signature[:length])
    assert not p256.verify(public, message, signature + b"\x00")


def test_a_key_that_is_no_point_is_refused() -> None:
    block = blocks("signature.txt")[7]
    public, message, signature = block.data("public"), block.data("message"), block.data("signature")
    modulus = p256.P.to_bytes(32, "big")
    assert p256.is_public_key(public)
    for bad in (
        b"",
        public[:63],
        public + b"\x00",
        bytes(64),
        public[32:] + public[:32],
        public[:63] + bytes([public[63] ^ 1]),
        modulus + public[32:],
        public[:32] + modulus,
        b"\xff" * 64,
    ):
        assert not p256.is_public_key(bad)
        assert not p256.verify(bad, message, signature)


def test_a_private_key_outside_one_to_n_minus_one_is_refused() -> None:
    for bad in (bytes(32), ORDER, b"\xff" * 32, b"", bytes(31) + b"\x01\x00", b"\x01"):
        raises(EncodeError, p256.sign, bad, b"m")
        raises(EncodeError, p256.public_key, bad)


def test_hmac_agrees_with_rfc_4231_case_1_and_2() -> None:
    assert (
        p256.hmac_sha256(b"\x0b" * 20, b"Hi There").hex()
        == "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    )
    assert (
        p256.hmac_sha256(b"Jefe", b"what do ya want for nothing?").hex()
        == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
    raises(EncodeError, p256.hmac_sha256, bytes(65), b"")
