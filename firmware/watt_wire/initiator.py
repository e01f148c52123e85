"""The tool's end of the pairing conversation (WIRE.md 12): used by `wattpact plug provision` and by tests.

Not needed on a plug. Sans I/O: `hello` and `write` return fragments for the write characteristic, `receive` takes the
notifications and returns what the plug said.
"""

import hashlib

from watt_wire import p256, pairing
from watt_wire.errors import DecodeError
from watt_wire.fields import PUBLIC_KEY_SIZE


class Initiator:
    """One attempt. `code` is the printed code; `private` 32 random bytes (an ephemeral key), `nonce` 16."""

    def __init__(self, code: str, private: bytes, nonce: bytes) -> None:
        assert pairing.is_code(code) and len(nonce) == pairing.NONCE_SIZE
        self._code = code
        self._private = private
        self._hello = bytes((pairing.VERSION,)) + p256.public_key(private) + nonce
        self._assembler = pairing.Assembler()
        self._keys: "pairing.Keys | None" = None
        self._out: "pairing.Sealer | None" = None
        self._in: "pairing.Sealer | None" = None

    def hello(self) -> "list[bytes]":
        """Return the first fragments to write."""
        return pairing.fragments(bytes((pairing.HELLO,)) + self._hello)

    def write(self, kind: int, body: bytes = b"") -> "list[bytes]":
        """Return the fragments of one sealed message; only after the plug has confirmed."""
        assert self._out is not None
        return pairing.fragments(bytes((pairing.SEALED,)) + self._out.seal(bytes((kind,)) + body))

    def receive(self, notification: bytes) -> "tuple[list[bytes], int, bytes] | None":
        """Take a notification; return (fragments to write now, kind, body) of a whole message, else None.

        kind is CONFIRM_REPLY once the plug has proved the code, then the inner kinds (IDENTITY, ACCEPTED, APPLIED,
        REJECTED); 0 for a step of the handshake. DecodeError("pairing-...") when the other end is not that plug.
        """
        message = self._assembler.add(notification)
        if message is None:
            return None
        kind, body = message[0], message[1:]
        if kind == pairing.HELLO_REPLY:
            return pairing.fragments(bytes((pairing.CONFIRM,)) + self._agree(body)), 0, b""
        if kind == pairing.CONFIRM_REPLY and self._keys is not None:
            if not pairing.same(body, self._keys.plug_proof):
                raise DecodeError("pairing-proof", "the plug does not know the code")
            self._out = pairing.Sealer(self._keys.to_plug)
            self._in = pairing.Sealer(self._keys.to_tool)
            return [], pairing.CONFIRM_REPLY, b""
        if kind == pairing.SEALED_REPLY and self._in is not None:
            plain = self._in.open(body)
            return [], plain[0], plain[1:]
        if kind == pairing.REFUSED:
            raise DecodeError("pairing-refused", "the plug says: " + body.decode())
        raise DecodeError("pairing-order", "message %d is not due" % kind)

    def _agree(self, body: bytes) -> bytes:
        """Compute the keys from the plug's answer; return the tool's proof."""
        if len(body) != len(self._hello) or body[0] != pairing.VERSION:
            raise DecodeError("pairing-hello", "answer of %d bytes" % len(body))
        public = body[1 : 1 + PUBLIC_KEY_SIZE]
        if not p256.is_public_key(public):
            raise DecodeError("pairing-hello", "not a point of the curve")
        transcript = hashlib.sha256(self._hello + body).digest()
        self._keys = pairing.Keys(self._code, p256.shared_secret(self._private, public), transcript)
        return self._keys.tool_proof
