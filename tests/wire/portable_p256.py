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


def test_a_coordinate_has_one_spelling() -> None:
    for x in range(100):
        square = (x * x * x - 3 * x + p256.B) % p256.P
        y = pow(square, (p256.P + 1) // 4, p256.P)
        if y * y % p256.P == square:
            break
    tail = y.to_bytes(32, "big")
    assert p256.is_public_key(x.to_bytes(32, "big") + tail)
    assert not p256.is_public_key((x + p256.P).to_bytes(32, "big") + tail)


def test_sums_that_meet_equal_and_opposite_points_come_out_right() -> None:
    for secret in (1, 2, 3):
        public = p256.public_key(secret.to_bytes(32, "big"))
        qx, qy = int.from_bytes(public[:32], "big"), int.from_bytes(public[32:], "big")
        for u1, u2 in (
            (0, 1),
            (1, 0),
            (1, 1),
            (2, 1),
            (3, 1),
            (6, 2),
            (p256.N - 1, 1),
            (1, p256.N - 1),
            (p256.N - 2, 1),
        ):
            total = (u1 + u2 * secret) % p256.N
            product = p256._Product(u1, u2, qx, qy)
            while not product.step(50):
                pass
            point = product.point
            assert (point[2] == 0) == (total == 0)
            if total:
                x, y = p256._affine(point)
                assert x.to_bytes(32, "big") + y.to_bytes(32, "big") == p256.public_key(total.to_bytes(32, "big"))


def test_a_signature_whose_sum_is_the_point_at_infinity_is_refused() -> None:
    """Who knows the private key can make one; some verifiers raise or accept."""
    digest = 0xBA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD  # SHA-256 of "abc", FIPS 180 example
    for secret in (1, 77):
        r = (p256.N - digest) * p256._inverse(secret, p256.N) % p256.N
        public = p256.public_key(secret.to_bytes(32, "big"))
        for s in (1, 2, p256.HALF_N):
            assert not p256.verify(public, b"abc", r.to_bytes(32, "big") + s.to_bytes(32, "big"))


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
