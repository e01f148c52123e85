"""The TLS files of a node as a doctor looks at them. The one module of this package that knows `cryptography`."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from watt_node.config import TlsSection
from watt_node.findings import Finding

DAYS_MIN = 14
"""Time to renew."""


def look(section: TlsSection, name: str) -> list[Finding]:
    """Dates, name, issuer and key of the certificates of the node `name`."""
    found: list[Finding] = []
    ca, mine = _read(section.ca, found), _read(section.cert, found)
    for certificate, path in ((ca, section.ca), (mine, section.cert)):
        if certificate is not None:
            found.append(_dates(certificate, path))
    if mine is None:
        return found
    names = [str(part.value) for part in mine.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [name]:
        action = "the others take this node for somebody else; get a certificate with its name"
        found.append(
            Finding("bad", f"certificate {section.cert} is of {', '.join(names) or 'nobody'}, not {name}", action)
        )
    if ca is not None:
        found.extend(_issuer(mine, ca, section))
    found.extend(_key(mine, section))
    return found


def _read(path: Path, found: list[Finding]) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        found.append(Finding("bad", f"certificate {path}: {error.strerror}", "get it from whoever founded the network"))
    except ValueError:
        found.append(Finding("bad", f"certificate {path}: not a certificate in PEM", "get it again"))
    return None


def _dates(certificate: x509.Certificate, path: Path) -> Finding:
    now = datetime.datetime.now(datetime.UTC)
    if now < certificate.not_valid_before_utc:
        begins = certificate.not_valid_before_utc.date()
        return Finding("bad", f"certificate {path} is good from {begins} on only", "check this machine's date")
    days = (certificate.not_valid_after_utc - now).days
    if days < 0:
        return Finding("bad", f"certificate {path} ended {-days} days ago", "renew it, then restart the node")
    if days < DAYS_MIN:
        return Finding("warn", f"certificate {path}: {days} days left", "renew it, then restart the node")
    return Finding("ok", f"certificate {path}: {days} days left")


def _issuer(mine: x509.Certificate, ca: x509.Certificate, section: TlsSection) -> list[Finding]:
    try:
        mine.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        action = "the others will not talk to this node; take certificate and CA from the same network"
        return [Finding("bad", f"certificate {section.cert} is not signed by {section.ca}", action)]
    return []


def _key(mine: x509.Certificate, section: TlsSection) -> list[Finding]:
    try:
        key = load_pem_private_key(section.key.read_bytes(), password=None)
    except OSError as error:
        return [Finding("bad", f"TLS key {section.key}: {error.strerror}", "give the service's user access to it")]
    except (ValueError, TypeError):
        return [Finding("bad", f"TLS key {section.key}: not a private key in PEM", "restore it")]
    public = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*public) != mine.public_key().public_bytes(*public):
        return [Finding("bad", f"TLS key {section.key} is not that of {section.cert}", "restore the pair")]
    return []
