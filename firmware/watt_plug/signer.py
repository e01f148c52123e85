"""Who signs a checkpoint: a key in flash here, one in a secure element in atecc.py. The application knows neither."""

from watt_wire import p256, statement


class Signer:
    """Holds one key. `public` is X||Y, 64 bytes; `sign` returns raw r||s, 64 bytes, low s (WIRE.md).

    key_class   what protects the key, as the plug's enrolment says it (WIRE.md 10.2)
    """

    public = b""
    key_class = statement.KEY_PLAIN

    def sign(self, message: bytes) -> bytes:
        raise NotImplementedError

    def count_start(self) -> int:
        """Count this start where no copied flash takes it back; 0 where there is no such place."""
        return 0


class SoftwareSigner(Signer):
    """A key in memory. It protects nobody who can read the flash: switch on flash encryption, see README.md."""

    def __init__(self, private: bytes, key_class: int = statement.KEY_PLAIN) -> None:
        assert len(private) == 32 and key_class != statement.KEY_SECURE
        self._private = private
        self.key_class = key_class
        self.public = p256.public_key(private)

    def sign(self, message: bytes) -> bytes:
        """Return the deterministic signature (RFC 6979) over SHA-256 of `message`."""
        return p256.sign(self._private, message)


def new_private(random: object) -> bytes:
    """Return a fresh private key: 32 random bytes in 1..n-1."""
    while True:
        private = random(32)  # type: ignore[operator]
        if 0 < int.from_bytes(private, "big") < p256.N:
            return bytes(private)
