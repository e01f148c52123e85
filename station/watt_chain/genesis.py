"""The founding document of a network: who may sign, and the first rules (CONSENSUS.md 2.3).

A genesis file is `[genesis bytes, regulator signature]`. The network is named by the SHA-256 of the genesis
bytes, and every signature in the network covers that name: nothing can be replayed in another network.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

from msgspec import Meta

from watt_chain import codec, crypto
from watt_chain.codec import U16, U32, U63, DecodeError, Key64, Name, Signature64, Structure

VALIDATORS_MAX = 64
"""Validators of one chain: votes grow with n squared; 64 is far above the normal 4, 7 and 10."""
AREAS_MAX = 1024
"""Areas of one network: one genesis file stays below a megabyte."""
GENESIS_SIZE_MAX = 1024 * 1024
MAIN_CHAIN = 0


class Validator(Structure, frozen=True):
    """One node that votes: its name and public key."""

    name: Name
    public: Key64


class Seat(NamedTuple):
    """A validator in the list of one height. Its index, the position in that list, is what certificates name."""

    number: int
    "Given when the name first appears, in genesis its index; stays through every change of key and list."
    validator: Validator


class AreaGenesis(Structure, frozen=True):
    """One station area: its chain number (1 or more) and its validators."""

    chain: U16
    name: Name
    validators: Annotated[list[Validator], Meta(min_length=1, max_length=VALIDATORS_MAX)]


class Genesis(Structure, frozen=True):
    """What every node of a network starts from."""

    name: Name
    protocol_start_s: U63
    regulator: Key64
    grid: Key64
    aggregator: Key64
    main: Annotated[list[Validator], Meta(min_length=1, max_length=VALIDATORS_MAX)]
    areas: Annotated[list[AreaGenesis], Meta(max_length=AREAS_MAX)]
    rules: list[bytes]
    "Encoded rule sets; the chain core does not read them."
    active_rules: U32
    pool_points: U63

    def validators(self, chain: int) -> tuple[Validator, ...]:
        """The validators of a chain, by index. Raises KeyError when the network has no such chain."""
        if chain == MAIN_CHAIN:
            return tuple(self.main)
        for area in self.areas:
            if area.chain == chain:
                return tuple(area.validators)
        raise KeyError(chain)

    def seats(self, chain: int) -> tuple[Seat, ...]:
        """The first list of a chain. Raises KeyError when the network has no such chain."""
        return tuple(Seat(index, validator) for index, validator in enumerate(self.validators(chain)))

    def chains(self) -> tuple[int, ...]:
        """Every chain number, main chain first."""
        return (MAIN_CHAIN, *(area.chain for area in self.areas))


class GenesisFile(Structure, frozen=True):
    """The signed file: exactly the bytes the regulator signed, and the signature."""

    genesis: bytes
    signature: Signature64


def faults_tolerated(n: int) -> int:
    """f: how many of n validators may behave arbitrarily (CONSENSUS.md 1)."""
    return (n - 1) // 3


def quorum(n: int) -> int:
    """q = ceil((n + f + 1) / 2): any two quorums share f + 1 validators, also when n is not 3f + 1."""
    return (n + faults_tolerated(n) + 2) // 2


def sign_genesis(genesis: Genesis, regulator: crypto.PrivateKey) -> bytes:
    """The bytes of genesis.bin. Raises ValueError when the document is not one a node would accept."""
    reason = check_genesis(genesis)
    if reason:
        raise ValueError(reason)
    if regulator.public != genesis.regulator:
        raise ValueError("the signing key is not the regulator of the document")
    body = codec.encode(genesis)
    signature = regulator.sign(codec.signing_bytes(b"genesis", codec.ZERO32, body))
    return codec.encode(GenesisFile(body, signature))


def open_genesis(data: bytes, regulator: bytes | None = None) -> tuple[Genesis, bytes]:
    """Read genesis.bin; returns the document and the network's name (32 bytes).

    `regulator` is the key one trusts from elsewhere; None takes the key in the file (a test, a listing).
    Raises DecodeError when the bytes, the signature, the signer or the content are wrong.
    """
    file = codec.decode(data, GenesisFile, GENESIS_SIZE_MAX)
    genesis = codec.decode(file.genesis, Genesis, GENESIS_SIZE_MAX)
    if regulator is not None and genesis.regulator != regulator:
        raise DecodeError("the genesis file is by another regulator")
    message = codec.signing_bytes(b"genesis", codec.ZERO32, file.genesis)
    if not crypto.verify(genesis.regulator, message, file.signature):
        raise DecodeError("the regulator's signature on the genesis file is wrong")
    reason = check_genesis(genesis)
    if reason:
        raise DecodeError(reason)
    return genesis, crypto.sha256(file.genesis)


def list_hash(validators: Sequence[Validator]) -> bytes:
    """What a header says about the validators of the next height: SHA-256 of their encoded list (CONSENSUS.md 2.5)."""
    return crypto.sha256(codec.encode(list(validators)))


def network_of(genesis: Genesis) -> bytes:
    """The network's name: SHA-256 of the genesis bytes."""
    return crypto.sha256(codec.encode(genesis))


def check_genesis(genesis: Genesis) -> str:
    """ "" or why no network can start from this document: bad chain numbers, a key that is no key, a key twice."""
    seen_chains = [0]
    for area in genesis.areas:
        if area.chain in seen_chains:
            return f"chain {area.chain} is named twice"
        seen_chains.append(area.chain)
    for chain in seen_chains:
        validators = genesis.validators(chain)
        publics = [validator.public for validator in validators]
        if len({*publics}) != len(publics):  # a key with two seats would have two votes
            return f"chain {chain} lists one validator key twice"
        if not all(crypto.is_public_key(public) for public in publics):
            return f"chain {chain} lists a validator key that is no P-256 point"
    if not all(crypto.is_public_key(key) for key in (genesis.regulator, genesis.grid, genesis.aggregator)):
        return "an office key is no P-256 point"
    return ""
