"""I11: what a light client is told. It must believe every true proof, and nothing that honest validators did not make.

The forgeries are those a station, a broker or f bad validators could try on a household: too few votes, a vote twice,
prepares in place of commits, another view, chain or network, another outcome, another place in the tree.
"""

from collections.abc import Callable, Sequence

from msgspec.structs import replace
from watt_chain import codec
from watt_chain.block import Certificate, Change, Header, VoteSignature, decode_certified
from watt_chain.genesis import Validator, list_hash
from watt_chain.ledger import Ledger
from watt_chain.light import LightClient, ProofError, ReceiptProof, StateProof
from watt_chain.transaction import txid

from watt_sim.fakes import CHAIN
from watt_sim.plain import hash_of, quorum_of, vote_of
from watt_sim.violation import Violation
from watt_sim.world import World

TRUE_FOR_ONE = ("one vote repeated", "votes in another order", "votes of one under several names")
"""What is no forgery when one vote is all there is."""


def check(world: World, ledger: Ledger) -> None:
    """Try proofs about the last final block. Raises Violation."""
    height = ledger.head.height
    certified = world.watch.certified.get(height)
    if certified is None:
        return
    client = LightClient(world.genesis, world.id, world.verify)
    parts, block, header, certificate = decode_certified(certified)
    _changes(world, client, ledger)
    _headers(world, client, block.header, header, certificate)
    tx = block.transactions[-1]
    proof = ledger.receipt_proof(height, txid(tx))
    state = ledger.state_proof(ledger.state.keys(b"")[-3:])
    if proof is None or state is None:
        raise Violation("I11", "a ledger cannot prove what it has just made final")
    _receipts(client, proof, tx, world)
    _states(client, state, ledger)
    _accepts("a true header", lambda: client.check_header(CHAIN, block.header, parts.certificate))


def _accepts(what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except ProofError as error:
        raise Violation("I11", f"a light client refuses {what}: {error.reason}") from error


def _refuses(what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except ProofError:
        return
    raise Violation("I11", f"a light client believes {what}")


def _headers(world: World, client: LightClient, data: bytes, header: Header, certificate: Certificate) -> None:
    """Certificates with one thing wrong. Bad validators sign whatever helps; honest votes are those that exist."""
    keys = [world.keys[node] for node, _, _ in world.watch.reference.lists[header.height]]
    quorum, n = quorum_of(len(keys)), len(keys)
    hash_ = hash_of(world.id, data)
    view = certificate.view

    def votes(phase: str, indices: Sequence[int], at_view: int = view, chain: int = CHAIN) -> list[VoteSignature]:
        message = vote_of(world.id, phase, chain, header.height, at_view, hash_)
        return [VoteSignature(index, keys[index].sign(message)) for index in indices]

    def believed(votes_: list[VoteSignature], at_view: int = view, bytes_: bytes = data, chain: int = CHAIN) -> None:
        client.check_header(chain, bytes_, codec.encode(Certificate(at_view, votes_)))

    good = certificate.votes
    other = replace(header, state_root=bytes(32))
    forgeries: dict[str, Callable[[], None]] = {
        "a certificate with a vote too few": lambda: believed(good[:-1]),
        "one vote repeated": lambda: believed([good[0]] * quorum),
        "a vote too many": lambda: believed(votes("commit", range(min(quorum + 1, n + 1) if n > quorum else 0))),
        "prepares for commits": lambda: believed(votes("prepare", range(quorum))),
        "votes of another view": lambda: believed(good, view + 1),
        "votes for another header": lambda: believed(good, view, codec.encode(other)),
        "votes in another order": lambda: believed(good[::-1]),
        "signatures of nobody": lambda: believed([VoteSignature(index, bytes(64)) for index in range(quorum)]),
        "validators that do not exist": lambda: believed(
            [VoteSignature(n + i, good[0].signature) for i in range(quorum)]
        ),
        "votes of one under several names": lambda: believed(
            [VoteSignature(i, good[0].signature) for i in range(quorum)]
        ),
        "a header as one of the main chain": lambda: believed(good, view, data, 0),
    }
    if header.view > 0:
        early = header.view - 1
        forgeries["votes from before the block"] = lambda: believed(votes("commit", range(quorum), early), early)
    later = replace(header, version=3)
    hash_later = hash_of(world.id, codec.encode(later))
    message = vote_of(world.id, "commit", CHAIN, header.height, view, hash_later)
    signed = [VoteSignature(index, keys[index].sign(message)) for index in range(quorum)]
    forgeries["a header of another version"] = lambda: believed(signed, view, codec.encode(later))
    for what, call in forgeries.items():
        if quorum > 1 or what not in TRUE_FOR_ONE:
            _refuses(what, call)


def _changes(world: World, client: LightClient, ledger: Ledger) -> None:
    """The way from the list of genesis to that of the head, and what must not lead anywhere."""
    changes = ledger.changes
    if not changes:
        return
    first = changes[0]
    stranger = [*first.validators[1:], Validator("node99", world.users[0].public)]
    _refuses("a list that no header names", lambda: client.follow(CHAIN, [replace(first, validators=stranger)]))
    _refuses("a change of another chain", lambda: client.follow(0, [first]))
    short = codec.decode(first.certificate, Certificate)
    few = codec.encode(Certificate(short.view, short.votes[:-1]))
    _refuses("a change with a vote too few", lambda: client.follow(CHAIN, [replace(first, certificate=few)]))
    before = codec.decode(first.header, Header)
    lie = codec.encode(replace(before, next_validators=list_hash(stranger)))
    _refuses("a change of other bytes", lambda: client.follow(CHAIN, [Change(lie, first.certificate, stranger)]))
    _accepts("true changes", lambda: client.follow(CHAIN, changes))
    _accepts("a header from before the change", lambda: client.check_header(CHAIN, first.header, first.certificate))
    old = [public for _, _, public in world.watch.reference.lists[before.height]]
    new = [public for _, _, public in world.watch.reference.lists[before.height + 1]]
    signers = [world.signer(public) for public in old]
    if len({*old} & {*new}) >= quorum_of(len(new)) or None in signers:
        return  # the old list is the new one in another order, or its keys are gone
    later = codec.encode(replace(before, height=before.height + 1, view=0))
    vote = vote_of(world.id, "commit", CHAIN, before.height + 1, 0, hash_of(world.id, later))
    votes = [
        VoteSignature(i, key.sign(vote)) for i, key in enumerate(signers[: quorum_of(len(old))]) if key is not None
    ]
    sealed = codec.encode(Certificate(0, votes))
    _refuses("a header that only the list before signed", lambda: client.check_header(CHAIN, later, sealed))


def _receipts(client: LightClient, proof: ReceiptProof, tx: bytes, world: World) -> None:
    """A receipt, and the same one with a lie in it."""
    codes: list[str] = []
    _accepts("a true receipt", lambda: codes.append(client.check_receipt(proof, tx)))
    if world.config.contract == "tally" and codes != [world.watch.reference.final[txid(tx)][1]]:
        raise Violation("I11", "a receipt does not say what happened")
    _, signer, signature = codec.decode(tx, tuple[bytes, bytes, bytes])
    another = codec.encode([codec.encode(["Add", CHAIN, 99, [1]]), signer, signature])
    lie = codec.encode([txid(tx), "" if codes[0] else "refused"])
    _refuses("the receipt of another transaction", lambda: client.check_receipt(proof, another))
    _refuses("another outcome", lambda: client.check_receipt(replace(proof, receipt=lie), tx))
    _refuses("another place", lambda: client.check_receipt(replace(proof, index=proof.size), tx))
    longer = replace(proof, path=[*proof.path, bytes(32)])
    _refuses("a longer path", lambda: client.check_receipt(longer, tx))
    _refuses("another size of the tree", lambda: client.check_receipt(replace(proof, size=proof.size + 1), tx))


def _states(client: LightClient, proof: StateProof, ledger: Ledger) -> None:
    """Values under the state root, and lies about them."""
    values: dict[bytes, bytes | None] = {}

    def look() -> None:
        values.update(client.check_state(proof, CHAIN))

    _accepts("a true state", look)
    if any(ledger.state.get(key) != value for key, value in values.items()):
        raise Violation("I11", "a state proof shows another state")
    slot, key, value, path = proof.entries[0]
    forged = {
        "another value": (slot, key, value + b"\x00", path),
        "another key": (slot, key + b"0", value, path),
        "another slot": ((slot + 1) % proof.size, key, value, path),
    }
    for what, entry in forged.items():
        _refuses(what, lambda entry=entry: client.check_state(replace(proof, entries=[entry]), CHAIN))  # type: ignore[misc]
    _refuses("a state of another chain", lambda: client.check_state(proof, 0))
