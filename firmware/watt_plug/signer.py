"""Who signs a checkpoint. A secure element would be another `Signer`; the application does not change."""

from watt_wire import p256


class Signer:
    """Holds one key. `public` is X||Y, 64 bytes; `sign` returns raw r||s, 64 bytes, low s (WIRE.md)."""

    public = b""

    def sign(self, message: bytes) -> bytes:
        raise NotImplementedError


class SoftwareSigner(Signer):
    """A key in memory. It protects nobody who can read the flash: switch on flash encryption, see README.md."""

    def __init__(self, private: bytes) -> None:
        assert len(private) == 32
        self._private = private
        self.public = p256.public_key(private)

    def sign(self, message: bytes) -> bytes:
        """Return the deterministic signature (RFC 6979) over SHA-256 of `message`."""
        return p256.sign(self._private, message)
