"""Pairing on any interpreter: both ends agree, a wrong code learns nothing, nothing is repeated or changed."""

from watt_wire import p256, pairing
from watt_wire.errors import DecodeError, EncodeError
from watt_wire.initiator import Initiator
from wire_vectors import raises

CODE = "0123456789ABCDEF"


def test_shared_secrets_agree_and_strangers_points_are_refused() -> None:
    a, b = b"\x07" * 32, b"\x09" * 32
    secret = p256.shared_secret(a, p256.public_key(b))
    assert secret == p256.shared_secret(b, p256.public_key(a)) and len(secret) == 32
    raises(EncodeError, p256.shared_secret, a, bytes(64))
    raises(EncodeError, p256.shared_secret, bytes(32), p256.public_key(b))


def test_the_published_exchange_of_rfc_5903() -> None:
    """RFC 5903 section 8.1: 256-bit random ECP group."""
    private = bytes.fromhex("C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433")
    public = bytes.fromhex(
        "D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63"
        "56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB"
    )
    secret = "D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE"
    assert p256.shared_secret(private, public) == bytes.fromhex(secret)


def test_messages_of_every_size_come_back_from_their_fragments() -> None:
    for size in (1, 178, 179, 180, 358, 1000, pairing.MESSAGE_MAX):
        message = bytes([size & 255]) * size
        assembler = pairing.Assembler()
        parts = pairing.fragments(message)
        assert all(len(part) <= pairing.FRAGMENT_MAX for part in parts)
        message = b""  # a small heap does not hold four copies of the largest one
        while parts:
            joined = assembler.add(parts.pop(0))
            assert (joined is None) == bool(parts)
        assert joined == bytes([size & 255]) * size
    raises(EncodeError, pairing.fragments, b"")
    raises(EncodeError, pairing.fragments, bytes(pairing.MESSAGE_MAX + 1))


def test_a_lost_a_repeated_and_an_endless_fragment_are_refused() -> None:
    parts = pairing.fragments(bytes(500))
    for order in ((1,), (0, 2), (0, 1, 1)):
        assembler = pairing.Assembler()
        for number in order[:-1]:
            assembler.add(parts[number])
        raises(DecodeError, assembler.add, parts[order[-1]])
    assembler = pairing.Assembler()
    for number in range(pairing.MESSAGE_MAX // 179):
        assembler.add(bytes([number]) + bytes(179))
    raises(DecodeError, assembler.add, bytes([pairing.MESSAGE_MAX // 179]) + bytes(179))
    raises(DecodeError, assembler.add, b"\x80")


def test_a_sealed_message_is_hidden_and_cannot_be_changed_repeated_or_skipped() -> None:
    key = b"k" * 32
    out, there = pairing.Sealer(key), pairing.Sealer(key)
    first, second = out.seal(b"secret" * 20), out.seal(b"secret" * 20)
    assert b"secret" not in first and first[4:] != second[4:]
    for position in range(len(first)):
        changed = bytearray(first)
        changed[position] ^= 1
        raises(DecodeError, there.open, bytes(changed))
    raises(DecodeError, there.open, second)
    assert there.open(first) == b"secret" * 20
    raises(DecodeError, there.open, first)
    assert there.open(second) == b"secret" * 20
    raises(DecodeError, there.open, b"")


def test_fields_come_back_and_unknown_or_cut_ones_are_refused() -> None:
    fields = [(pairing.FIELD_WIFI_SSID, b"net"), (pairing.FIELD_CA, bytes(700)), (pairing.FIELD_PARTY, b"")]
    data = pairing.encode_fields(fields)
    assert pairing.decode_fields(data) == fields
    for bad in (data[:-1], b"\x63\x00\x00", b"\x01", b"\x01\x00"):
        raises(DecodeError, pairing.decode_fields, bad)
    raises(EncodeError, pairing.encode_fields, [(99, b"")])


def test_codes_have_eighty_bits_and_one_spelling() -> None:
    assert pairing.is_code(CODE) and pairing.code_of(bytes(range(16))) == CODE
    for bad in ("", CODE[:-1], CODE + "0", CODE.lower(), "O" + CODE[1:]):
        assert not pairing.is_code(bad)


def test_an_initiator_refuses_a_plug_that_does_not_know_the_code_or_speaks_out_of_turn() -> None:
    tool = Initiator(CODE, b"\x05" * 32, bytes(16))
    tool.hello()
    private, nonce = b"\x06" * 32, b"\x01" * 16
    answer = bytes((pairing.HELLO_REPLY, pairing.VERSION)) + p256.public_key(private) + nonce
    for part in pairing.fragments(answer):
        step = tool.receive(part)
    assert step is not None and step[1] == 0 and len(step[0]) == 1
    for message in (bytes((pairing.CONFIRM_REPLY,)) + bytes(32), b"\x83\x00", b"\xff" + b"locked", b"\x20x"):
        raises(DecodeError, tool.receive, pairing.fragments(message)[0])
    for body in (b"\x02" + bytes(80), bytes((pairing.VERSION,)) + bytes(80), b"\x01"):
        fresh = Initiator(CODE, b"\x05" * 32, bytes(16))
        message = bytes((pairing.HELLO_REPLY,)) + body
        raises(DecodeError, fresh.receive, pairing.fragments(message)[0])
