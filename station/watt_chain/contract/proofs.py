"""Proofs that calls carry: headers of other chains' final blocks, and bodies of messages under them."""

import msgspec

from watt_chain import codec
from watt_chain.block import (
    CERTIFICATE_SIZE_MAX,
    HEADER_SIZE_MAX,
    Certificate,
    Header,
    OutMessage,
    block_hash,
    check_certificate,
)
from watt_chain.contract import validators
from watt_chain.contract.access import Session, refuse, refuse_if


def proven_header(session: Session, chain: int, header_bytes: bytes, certificate_bytes: bytes) -> Header:
    """The header of a final block of another chain. Refuses "proof"."""
    try:
        header = codec.decode(header_bytes, Header, HEADER_SIZE_MAX)
        certificate = codec.decode(certificate_bytes, Certificate, CERTIFICATE_SIZE_MAX)
    except codec.DecodeError:
        refuse("proof")
    refuse_if(header.chain != chain, "proof")
    # CONSENSUS.md 8.5: the list in force, and no earlier one. Callers admit no header from before it took over.
    publics = [validator.public for validator in validators.known_list(session, chain).validators]
    network = session.context.network
    hash_ = block_hash(network, header_bytes)
    refuse_if(check_certificate(certificate, network, header, hash_, publics) != "", "proof")
    return header


def open_body(message: OutMessage, kind: type[msgspec.Struct]) -> msgspec.Struct:
    """The body of a message. Refuses "message"."""
    try:
        return codec.decode(message.body, kind)
    except codec.DecodeError:
        refuse("message")
