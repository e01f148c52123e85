"""TLS identities of one network: a private CA and one P-256 certificate per daemon.

These keys protect transport only; what is paid and signed rests on the chain keys (watt_chain.crypto).
Certificates follow the machine's real date, never the protocol clock. Invariant: a common name matches
`[a-z0-9-]{1,32}`, because brokers and peers turn it into topics and identities.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LEAF_DAYS = 90
"Short-lived by design: a lost device key dies within a quarter even if nobody revokes it."
CA_DAYS = 3650
NAME = re.compile(r"[a-z0-9-]{1,32}\Z")


def write_private(path: Path, data: bytes) -> None:
    """Write `data` so that only the owner can ever have read it (the mode is set before the first byte)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)


class Authority:
    """A certificate authority that lives in one folder: `ca.pem` is public, `ca.key` is not."""

    def __init__(self, folder: Path, network_name: str) -> None:
        self.folder = folder
        self.ca_path = folder / "ca.pem"
        self._key_path = folder / "ca.key"
        if self.ca_path.exists():
            self._certificate = x509.load_pem_x509_certificate(self.ca_path.read_bytes())
            key = serialization.load_pem_private_key(self._key_path.read_bytes(), password=None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            self._key = key
            return
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{network_name} CA")])
        self._certificate = (
            _builder(name, name, self._key.public_key(), CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        write_private(self._key_path, _key_pem(self._key))
        self.ca_path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return (certificate path, key path) for `name`, made once, good for server and client on this host.

        Raises ValueError when the name could be mistaken for a topic or a path.
        """
        if not NAME.match(name):
            raise ValueError(f"certificate name {name!r} is not of the form [a-z0-9-]{{1,32}}")
        certificate_path, key_path = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        if certificate_path.exists() and key_path.exists():
            return certificate_path, key_path
        key = ec.generate_private_key(ec.SECP256R1())
        certificate_path.write_bytes(self._certify(name, key.public_key()).public_bytes(serialization.Encoding.PEM))
        write_private(key_path, _key_pem(key))
        return certificate_path, key_path

    def certify(self, name: str, public: bytes) -> bytes:
        """Return a certificate (DER) for somebody else's key, X || Y: a plug makes its own and never shows it.

        Raises ValueError for a name that could be mistaken for a topic or a path, and for a point off the curve.
        """
        if not NAME.match(name):
            raise ValueError(f"certificate name {name!r} is not of the form [a-z0-9-]{{1,32}}")
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + public)
        return self._certify(name, point).public_bytes(serialization.Encoding.DER)

    @property
    def ca_der(self) -> bytes:
        """The authority's own certificate, DER."""
        return self._certificate.public_bytes(serialization.Encoding.DER)

    def _certify(self, name: str, public: ec.EllipticCurvePublicKey) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.DNSName("localhost"), x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return (
            _builder(subject, self._certificate.subject, public, LEAF_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def der_of(path: Path) -> bytes:
    """A certificate or private key file of ours, PEM, in the form that a plug reads."""
    data = path.read_bytes()
    if b"CERTIFICATE" in data:
        return x509.load_pem_x509_certificate(data).public_bytes(serialization.Encoding.DER)
    key = serialization.load_pem_private_key(data, password=None)
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
