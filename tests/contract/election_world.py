"""One chain of real ledgers for the election: one block at a time, in the view and with the calls a test wants."""

from __future__ import annotations

from contract_world import AGGREGATOR, GRID, REGULATOR, key_of
from watt_chain import block as blocks
from watt_chain import codec, crypto, election
from watt_chain.block import Certificate, CertifiedBlock, VoteSignature
from watt_chain.contract import AreaContract, MainContract, kinds, tickets
from watt_chain.contract.objects import ELECTION_KEY, Conviction, evidence_key
from watt_chain.contract.rules import RULES_1
from watt_chain.election import Candidate, Election
from watt_chain.genesis import AreaGenesis, Genesis, Validator, quorum
from watt_chain.ledger import BlockContext, Ledger
from watt_chain.pbft.messages import Commit, Frame, Prepare, PrePrepare, signed_bytes
from watt_chain.transaction import make_transaction
from watt_market.engine import Market

START_S = 1_700_000_000


class ElectionWorld:
    """A chain with n validators, and a second ledger that only follows it."""

    def __init__(self, n: int = 4, chain: int = 1) -> None:
        self.chain = chain
        self.validators = [key_of(20 + number) for number in range(n)]
        self.ids = [crypto.id8(key.public) for key in self.validators]
        named = [Validator(f"node{at}", key.public) for at, key in enumerate(self.validators)]
        offices = (REGULATOR.public, GRID.public, AGGREGATOR.public)
        main = named if chain == 0 else [Validator("main0", key_of(19).public)]
        areas = [] if chain == 0 else [AreaGenesis(chain, "area", named)]
        self.genesis = Genesis("test", START_S, *offices, main, areas, [codec.encode(RULES_1)], 1, 1000)
        self.ledger, self.follower = self.new_ledger(), self.new_ledger()
        self.network = self.ledger.network
        self.certified: list[bytes] = []

    def new_ledger(self) -> Ledger:
        contract = MainContract(Market()) if self.chain == 0 else AreaContract(Market())
        return Ledger(self.genesis, self.chain, contract)

    # Blocks

    @property
    def height(self) -> int:
        """Of the block that is made next."""
        return self.ledger.head.height + 1

    def call(self, key: crypto.PrivateKey, kind: str, fields: object) -> bytes:
        nonce = self.ledger.next_nonce(key.public)
        return make_transaction(key, self.network, kind, self.chain, nonce, fields)

    def block(self, *txs: bytes, view: int = 0) -> list[str]:
        """The codes of these calls, or of a filler, in a block first proposed in `view`."""
        given = list(txs) or [self.call(GRID, "Nothing", [])]
        leader = self.ledger.schedule.leader(self.height, view)
        assert leader == self.follower.schedule.leader(self.height, view)
        block = self.ledger.build(view, leader, START_S + self.height, given)
        assert len(block.transactions) == len(given)
        hash_ = blocks.block_hash(self.network, block.header)
        message = blocks.vote_bytes(self.network, "commit", self.chain, self.height, view, hash_)
        votes = [VoteSignature(at, self.validators[at].sign(message)) for at in range(quorum(len(self.validators)))]
        certified = codec.encode(CertifiedBlock(codec.encode(block), codec.encode(Certificate(view, votes))))
        receipts = self.ledger.apply(certified, certificate_known=True).receipts
        self.follower.apply(certified)
        self.certified.append(certified)
        return [receipt.code for receipt in receipts]

    def send(self, number: int, kind: str, fields: object) -> str:
        """One call of a validator in a block of its own."""
        (code,) = self.block(self.call(self.validators[number], kind, fields))
        return code

    def go_to(self, term: int, place: int) -> None:
        """Fillers until the next block is at this place (0 to 63) of this term."""
        while (election.term_of(self.height), election.place_of(self.height)) != (term, place):
            assert election.term_of(self.height) <= term
            self.block()

    def order(self) -> list[int]:
        """Of the next height."""
        return [self.ledger.schedule.leader(self.height, view) for view in range(len(self.validators))]

    # What the state says

    def election(self) -> Election:
        """As written; at the first height of a term that of the term before."""
        return codec.decode(self.ledger.state.get(ELECTION_KEY) or b"", Election)

    def candidate(self, number: int) -> Candidate:
        return tickets.candidate_of(self.ledger.state, self.ids[number])

    def convicted(self, number: int, height: int, view: int, phase: str) -> Conviction | None:
        found = self.ledger.state.get(evidence_key(self.ids[number], height, view, phase))
        return None if found is None else codec.decode(found, Conviction)

    def context(self) -> BlockContext:
        """Of the next height, as the ledger asks with it."""
        return BlockContext(self.network, self.chain, self.height, 0, 0, self.ledger.validators)

    # Taking part

    def share(self, number: int, term: int) -> bytes:
        return crypto.sha256(b"share of %d for %d" % (number, term))

    def ticket(self, number: int, start: int = 0) -> kinds.Ticket:
        """The first ticket from nonce `start` on for the next term, with the difficulty that the state asks for."""
        now = self.election()
        entrant = next(one for one in now.entrants if one.validator == self.ids[number])
        puzzle = election.puzzle(self.network, self.chain, now.term + 1, now.seed, self.ids[number])
        nonce = election.search(puzzle, entrant.bits, start, 1 << 22)
        assert nonce is not None
        return kinds.Ticket(now.term + 1, nonce)

    def commitment(self, number: int, term: int) -> kinds.SeedCommit:
        share = self.share(number, term)
        return kinds.SeedCommit(term, election.commitment_of(self.network, self.chain, term, self.ids[number], share))

    def take_part(self, tickets: list[int], shares: list[int], shown: list[int] | None = None) -> None:
        """One whole term: who enters for the next, who commits for the one after, who shows its share."""
        term = election.term_of(self.height)
        assert election.place_of(self.height) == 0
        self.block()
        calls = [self.call(self.validators[at], "SeedCommit", self.commitment(at, term + 2)) for at in shares]
        if calls:
            assert self.block(*calls) == [""] * len(calls)
        if term:
            calls = [self.call(self.validators[at], "Ticket", self.ticket(at)) for at in tickets]
            if calls:
                assert self.block(*calls) == [""] * len(calls)
        self.go_to(term, election.ENTRY_BLOCKS)
        if term:
            calls = [
                self.call(self.validators[at], "SeedReveal", kinds.SeedReveal(term + 1, self.share(at, term + 1)))
                for at in (shares if shown is None else shown)
            ]
            if calls:
                assert self.block(*calls) == [""] * len(calls)
        self.go_to(term + 1, 0)

    # Frames

    def frame(self, number: int, message: Prepare | Commit | PrePrepare, key: crypto.PrivateKey | None = None) -> bytes:
        body = codec.encode(message)
        signer = key or self.validators[number]
        return codec.encode(Frame(body, signer.sign(signed_bytes(self.network, message, body))))

    def two_votes(self, number: int, height: int = 5, view: int = 0) -> kinds.Evidence:
        """Evidence of an equivocation in the commits of a height."""
        frames = [self.frame(number, Commit(self.chain, number, height, view, bytes([fill]) * 32)) for fill in (1, 2)]
        return kinds.Evidence(self.validators[number].public, *frames)
