"""A household's question about the state, signed: a station tells each asker only what is its own.

    Question = [body bytes, signer 64, signature 64]        signature over `signing_bytes("question", network, body)`
    body     = [chain, gateway, nonce bytes, [keys]]

The gateway's name is signed too, for it says where the answer goes: whoever copies a question from a broker and asks it
again under a name of its own gets nothing. What an asker may be told: `contract.readers`.
"""

from collections.abc import Sequence

from watt_chain import codec, crypto
from watt_chain.codec import U16, DecodeError, Key64, Signature64, Structure
from watt_chain.transaction import Verify

KEYS_MAX = 32
"""Keys of one question: their proofs fill a message of a broker (256 KiB) by a quarter at most."""
KEY_BYTES_MAX = 96
"""The longest key of the state, that of a piece of evidence, has under 64."""
NONCE_BYTES_MAX = 32
QUESTION_BYTES_MAX = 8 * 1024
"""Of which the keys take under half."""


class Question(Structure, frozen=True):
    """What is sent."""

    body: bytes
    signer: Key64
    signature: Signature64


class Body(Structure, frozen=True):
    """What is signed. The nonce is the asker's and comes back with the answer."""

    chain: U16
    gateway: str
    nonce: bytes
    keys: list[bytes]


def make_question(
    key: crypto.PrivateKey, network: bytes, chain: int, gateway: str, nonce: bytes, keys: Sequence[bytes]
) -> bytes:
    """Sign a question of at most KEYS_MAX keys and return its bytes."""
    assert len(keys) <= KEYS_MAX
    body = codec.encode(Body(chain, gateway, nonce, list(keys)))
    return codec.encode(Question(body, key.public, key.sign(codec.signing_bytes(b"question", network, body))))


def decode_question(payload: bytes) -> tuple[Question, Body]:
    """Take a question apart; the signature is not checked here. Raises DecodeError."""
    question = codec.decode(payload, Question, QUESTION_BYTES_MAX)
    body = codec.decode(question.body, Body, QUESTION_BYTES_MAX)
    if len(body.nonce) > NONCE_BYTES_MAX:
        raise DecodeError(f"nonce: expected at most {NONCE_BYTES_MAX} bytes, got {len(body.nonce)}")
    if len(body.keys) > KEYS_MAX:
        raise DecodeError(f"keys: expected at most {KEYS_MAX}, got {len(body.keys)}")
    if any(len(key) > KEY_BYTES_MAX for key in body.keys):
        raise DecodeError(f"keys: expected at most {KEY_BYTES_MAX} bytes each")
    return question, body


def is_signed(question: Question, network: bytes, verify: Verify = crypto.verify) -> bool:
    """Whether the signer asked this, in this network."""
    return verify(question.signer, codec.signing_bytes(b"question", network, question.body), question.signature)
