"""The planted bugs: what goes wrong in consensus cores, one at a time (table: `wattpact sim mutants`)."""

from watt_sim import bugs_lists
from watt_sim.bugs_cross import CROSS
from watt_sim.bugs_election import ELECTION
from watt_sim.bugs_inclusion import DEAF, INCLUSION
from watt_sim.planting import Mutant, bug

_AGREEMENT = "watt_chain.pbft.agreement"
_VIEWCHANGE = "watt_chain.pbft.viewchange"
_REPLICA = "watt_chain.pbft.replica"
_MESSAGES = "watt_chain.pbft.messages"
_LEDGER = "watt_chain.ledger"
_ATTEST = "watt_chain.pbft.attest"
_LIGHT = "watt_chain.light"
_BLOCK = "watt_chain.block"


_EITHER_PHASE = (
    "prepared = vote_bytes(network, PREPARE, header.chain, header.height, certificate.view, hash_)\n"
    "    return check_votes(certificate.votes, message, publics, verify) and "
    "check_votes(certificate.votes, prepared, publics, verify)"
)
_TIME_RULE = "not max(before_s, clock(now_ms - bound_ms)) <= header.time_s <= max(before_s, clock(now_ms + bound_ms))"
_RESENT = "for mine in (round_.my_new_view, round_.my_proposal):"


_VOTING = (
    bug("quorum-one-less", "1", ("watt_chain.genesis", "quorum", "+ 2) // 2", ") // 2")),
    bug(
        "prepared-one-less",
        "4.3.4",
        (_AGREEMENT, "Agreement._maybe_prepared", "proposal.hash) < desk.q:", "proposal.hash) < desk.q - 1:"),
    ),
    bug(
        "final-one-less",
        "4.3.5",
        (_AGREEMENT, "Agreement._maybe_final", "winners(desk.q)", "winners(desk.q - 1)"),
    ),
    bug(
        "votes-of-all-views-together",
        "4.3.4",
        (
            "watt_chain.pbft.round",
            "VoteBook.count",
            "self._votes.get((view, hash_), ())",
            "{s for (v, h), found in self._votes.items() if h == hash_ for s in found}",
        ),
        (
            "watt_chain.pbft.round",
            "VoteBook.votes",
            "votes = self._votes[(view, hash_)]",
            "votes = {s: x for (v, h), found in self._votes.items() if h == hash_ for s, x in found.items()}",
        ),
    ),
    bug(
        "commit-while-leaving",
        "4.3.4",
        (_AGREEMENT, "Agreement._maybe_prepared", "not round_.active or proposal is None", "proposal is None"),
        (_AGREEMENT, "Agreement._move_to", "round_.proposal = None", "round_.proposal = round_.proposal"),
        (
            _AGREEMENT,
            "Agreement._maybe_prepared",
            "view, proposal = round_.view, round_.proposal",
            "proposal = round_.proposal; view = max(round_.signed_prepares, default=0)",
        ),
    ),
    bug(
        "vote-signature-unchecked",
        "4.2.3",
        (_MESSAGES, "is_genuine", "return verify(", "return isinstance(message, Prepare | Commit) or verify("),
    ),
    bug("sender-unchecked", "4.2.2", (_REPLICA, "Replica._agree", "elif message.sender != index:", "elif False:")),
    bug(
        "frame-signature-unchecked",
        "4.2.3",
        (_MESSAGES, "is_genuine", "return verify(", "return not isinstance(message, Prepare | Commit) or verify("),
    ),
    bug(
        "block-not-executed-before-vote",
        "4.3.3",
        (_AGREEMENT, "Agreement._complete", "self._app.check(proposal.block())", "None"),
    ),
    bug(
        "second-proposal-replaces-first",
        "4.3.2",
        (_AGREEMENT, "Agreement.handle_pre_prepare", "if round_.proposal is not None:", "if False:"),
        ("watt_chain.pbft.round", "judge_proposal", "signed is not None and signed != hash_", "False"),
        (_AGREEMENT, "Agreement._support", "round_.signed_prepares.get(view, hash_) != hash_", "False"),
        (_AGREEMENT, "Agreement._support", "if view not in round_.signed_prepares:", "if True:"),
    ),
    bug(
        "anybody-proposes",
        "4.3.2",
        (_AGREEMENT, "Agreement.handle_pre_prepare", "message.sender != self._leader(message.view)", "False"),
        (
            "watt_chain.pbft.round",
            "judge_proposal",
            "header.view != message.view or header.proposer != message.sender",
            "False",
        ),
        (
            _LEDGER,
            "Ledger._check_place",
            "header.proposer != self.schedule.leader(header.height, header.view)",
            "False",
        ),
    ),
    bug(
        "time-unchecked",
        "3.3",
        (
            "watt_chain.pbft.round",
            "judge_proposal",
            _TIME_RULE,
            "False",
        ),
    ),
    bug(
        "certificate-unsorted",
        "2.8",
        ("watt_chain.pbft.round", "VoteBook.votes", "sorted(votes)[:count]", "list(votes)[:count]"),
    ),
    bug(
        "certificate-with-every-vote",
        "2.8",
        ("watt_chain.pbft.round", "VoteBook.votes", "sorted(votes)[:count]", "sorted(votes)"),
    ),
    bug(
        "repeated-vote-is-evidence",
        "4.8",
        (_AGREEMENT, "Agreement.handle_vote", "if before[0] != message.block_hash:", "if True:"),
    ),
    bug(
        "votes-of-other-views-are-evidence",
        "4.8",
        (
            _AGREEMENT,
            "Agreement.handle_vote",
            "before = book.seen(message.view, message.sender)",
            "before = book.seen(message.view, message.sender) or book.seen(message.view - 1, message.sender)",
        ),
    ),
    bug(
        "doubted-is-supported",
        "4.3.7",
        ("watt_chain.pbft.exchange", "Exchange.vouches", "return required or all(", "return True or all("),
    ),
    bug(
        "doubted-is-proposed",
        "4.3.7",
        (_AGREEMENT, "Agreement.propose", "*limits, desk.config.vouch)", "*limits)"),
    ),
)

_VIEWS = (
    bug("lock-ignored", "4.4.5", (_VIEWCHANGE, "choose", "if prepared is None:", "if True:")),
    bug("lowest-lock-wins", "4.4.5", (_VIEWCHANGE, "choose", "prepared.view > best.view", "prepared.view < best.view")),
    bug("lock-not-reported", "4.4.1", (_AGREEMENT, "Agreement._say_view_change", "round_.prepared)", "None)")),
    bug(
        "required-block-not-required",
        "4.4.5",
        ("watt_chain.pbft.round", "judge_proposal", "round_.required.header != message.header", "False"),
    ),
    bug(
        "new-view-of-too-few",
        "4.4.4",
        (_VIEWCHANGE, "judge_new_view", "len(genuine) < quorum(len(place.publics))", "not genuine"),
    ),
    bug(
        "new-view-counts-one-twice",
        "4.4.4",
        (_VIEWCHANGE, "judge_new_view", " or vote.sender in genuine", ""),
        (_VIEWCHANGE, "judge_new_view", "genuine[vote.sender] = vote", "genuine[len(genuine)] = vote"),
    ),
    bug(
        "new-view-of-another-view",
        "4.4.4",
        (_VIEWCHANGE, "judge_new_view", "vote.view != message.view or ", ""),
    ),
    bug(
        "new-view-by-anybody",
        "4.4.4",
        (_AGREEMENT, "Agreement.handle_new_view", "message.sender != self._leader(message.view)", "False"),
        (_AGREEMENT, "Agreement.handle_pre_prepare", "message.sender != self._leader(message.view)", "False"),
    ),
    bug(
        "prepared-signatures-unchecked",
        "4.4.2",
        (_VIEWCHANGE, "check_prepared", "reason = check_votes(", 'reason = "" and check_votes('),
    ),
    bug(
        "prepared-place-unchecked",
        "4.4.2",
        (
            _VIEWCHANGE,
            "check_prepared",
            "if (header.chain, header.height, header.previous) != (place.chain, place.height, place.previous):",
            "if False:",
        ),
        (
            _VIEWCHANGE,
            "check_prepared",
            "place.chain, place.height, prepared.view",
            "header.chain, header.height, prepared.view",
        ),
    ),
    bug(
        "bad-prepared-accepted-in-view-change",
        "4.4.2",
        (_AGREEMENT, "Agreement.handle_view_change", "if message.prepared is not None:", "if False:"),
        (_VIEWCHANGE, "_open_vote", "message.prepared is not None and check_prepared(", "False and check_prepared("),
    ),
    bug("one-liar-moves-all", "4.4.3", (_VIEWCHANGE, "view_to_join", "faults_tolerated(n) + 1", "1")),
    bug(
        "highest-claim-is-joined",
        "4.4.3",
        (_VIEWCHANGE, "view_to_join", "above[needed - 1]", "above[0]"),
    ),
    bug(
        "nobody-joins",
        "4.4.3",
        (_VIEWCHANGE, "view_to_join", "if len(above) >= needed else None", "if False else None"),
    ),
    bug(
        "own-vote-in-a-view-left",
        "4.4.1",
        (_AGREEMENT, "Agreement.handle_pre_prepare", "message.view < round_.view or ", ""),
        (
            _AGREEMENT,
            "Agreement.handle_pre_prepare",
            "message.view > round_.view or not round_.active",
            "message.view > round_.view",
        ),
    ),
)

_MEMORY = (
    bug(
        "prepare-not-written",
        "4.7.1",
        (_AGREEMENT, "Agreement._support", 'desk.persist("prepare",', '(lambda *a: None)("prepare",'),
    ),
    bug(
        "proposal-not-written",
        "4.7.1",
        (_AGREEMENT, "Agreement._support", 'desk.persist("proposal",', '(lambda *a: None)("proposal",'),
    ),
    bug(
        "commit-not-written",
        "4.7.1",
        (_AGREEMENT, "Agreement._maybe_prepared", "desk.persist(", "(lambda *a: None)("),
    ),
    bug(
        "view-change-not-written",
        "4.7.1",
        (_AGREEMENT, "Agreement._leave_view", "self._desk.persist(", "(lambda *a: None)("),
    ),
    bug(
        "all-votes-forgotten-at-restart",
        "4.7.2",
        (_AGREEMENT, "Agreement.restore", "record.height > self._app.head.height", "False"),
    ),
    bug(
        "prepares-forgotten-at-restart",
        "4.7.2",
        (_AGREEMENT, "Agreement._recall", 'case "proposal" | "prepare":', 'case "nothing":'),
    ),
    bug(
        "lock-forgotten-at-restart",
        "4.7.3",
        (_AGREEMENT, "Agreement._recall", "round_.prepared = codec.decode(record.payload, Prepared)", "pass"),
    ),
    bug(
        "view-forgotten-at-restart",
        "4.7.3",
        (_AGREEMENT, "Agreement._recall", "self._move_to(view, active=False)", "pass"),
    ),
    bug(
        "next-heights-votes-dropped",
        "4.7.4",
        (
            _AGREEMENT,
            "Agreement.restore",
            "record.height > self._app.head.height",
            "record.height == self._app.head.height + 1",
        ),
        (_AGREEMENT, "Agreement._begin_height", "number < height", "number <= height + 1 and len(self._records) > 1"),
    ),
    bug(
        "own-proposal-forgotten-at-restart",
        "4.7.2",
        (
            _AGREEMENT,
            "Agreement._recall",
            "round_.my_proposal, data = (view, mine.frame), mine.block",
            "continue_ = round_.my_proposal; return",
        ),
    ),
)

_PROGRESS = (
    bug("votes-not-repeated", "4.3.6", (_AGREEMENT, "Agreement.resend", "round_.resends += 1", "return")),
    bug("laggards-do-not-ask", "4.6.1", ("watt_chain.pbft.sync", "CatchUp.expire", "self._next_ms = None", "return")),
    bug("no-patience-runs-out", "4.5.2", (_AGREEMENT, "Agreement.expire", "if due_ms is not None", "if False")),
    bug(
        "bodies-not-fetched",
        "4.3.3",
        ("watt_chain.pbft.exchange", "Exchange.fetch", "if others:", "if False:"),
        ("watt_chain.pbft.exchange", "Exchange._gossip", "full = ", "return; full = "),
    ),
    bug(
        "required-block-not-fetched",
        "4.4.6",
        (_AGREEMENT, "Agreement._adopt_required", "block = Block(", "return; block = Block("),
    ),
    bug(
        "missed-new-view-not-repeated",
        "4.3.6",
        (_AGREEMENT, "Agreement.handle_view_change", "if mine is not None", "if False"),
        (_AGREEMENT, "Agreement.resend", _RESENT, "for mine in (round_.my_proposal,):"),
    ),
    bug(
        "early-frames-dropped",
        "4.2.4",
        (_REPLICA, "Replica._is_current", "waiting.setdefault(", "(lambda *a: None)("),
        (_AGREEMENT, "Agreement.handle_pre_prepare", "round_.early.setdefault(", "(lambda *a: None)("),
        (_AGREEMENT, "Agreement.resend", _RESENT, "for mine in ():"),
    ),
    bug(
        "first-fetch-answer-only",
        "4.2.4",
        ("watt_chain.pbft.desk", "Throttle.allows", "0 <= now_ms - last[1] < self._interval_ms", "True"),
    ),
)

_EXECUTION = (
    bug(
        "synced-block-without-proof",
        "4.6.2",
        (_AGREEMENT, "Agreement.adopt", "self._app.apply(certified)", "self._app.apply(certified, True)"),
    ),
    bug(
        "forged-body-stops-the-node",
        "4.6.2",
        (_LEDGER, "Ledger.apply", "!= header.tx_root:\n", "!= header.tx_root and False:\n"),
    ),
    bug("refused-writes-stay", "3.1", (_LEDGER, "Ledger._execute", "state.rollback(mark)", "pass")),
    bug(
        "refused-messages-stay",
        "3.1",
        ("watt_chain.state", "State.rollback", "del self._messages[mark[1] :]", "pass"),
    ),
    bug(
        "nonce-unchecked",
        "3.2",
        (
            _LEDGER,
            "Ledger._execute",
            "(state, tx.signer, tx.nonce)",
            "(state, tx.signer, self.contract.next_nonce(state, tx.signer))",
        ),
    ),
    bug(
        "nonce-counted-for-accepted-only",
        "3.1",
        (_LEDGER, "Ledger._execute", "mark = state.savepoint()", "pass"),
        (
            _LEDGER,
            "Ledger._execute",
            "if not self.contract.consume_nonce",
            "mark = state.savepoint()\n    if not self.contract.consume_nonce",
        ),
    ),
    bug(
        "transaction-signature-unchecked",
        "3.2",
        (_LEDGER, "Ledger._admit", "not is_signed(tx, self.network, self._verify)", "False"),
    ),
    bug(
        "signature-remembered-by-id",
        "2.4",
        (_LEDGER, "Ledger._admit", "if tx.digest not in self.verified:", "if tx.txid not in self.verified:"),
        (_LEDGER, "Ledger._admit", "self.verified.add(tx.digest)", "self.verified.add(tx.txid)"),
        (
            "watt_chain.pbft.exchange",
            "Exchange.take_decoded",
            "if not verified and tx.digest not in known:",
            "if not verified and tx.txid not in known:",
        ),
        (
            "watt_chain.pbft.exchange",
            "Exchange.take_decoded",
            "    known.add(tx.digest)\n    self.attest",
            "    known.add(tx.txid)\n    self.attest",
        ),
    ),
    bug(
        "one-attestation-is-enough",
        "4.9.2",
        (_ATTEST, "Attestations.is_proven", "return all(", "return any("),
    ),
    bug(
        "unattested-is-believed-in-the-end",
        "4.9.3",
        (
            "watt_chain.pbft.exchange",
            "Exchange._check",
            "is_signed(tx, self._desk.app.network, self._desk.config.verify)",
            "True",
        ),
    ),
    bug(
        "silence-is-waited-for-in-vain",
        "4.9.3",
        (_ATTEST, "Attestations.due_ms", "over_ms = first[1] + ATTEST_WAIT_MS", "return self._due_ms"),
        (_ATTEST, "Attestations.overdue", "for digest, (_, since_ms)", "return []\n    for digest, (_, since_ms)"),
        (_ATTEST, "Attestations.wanted", "if digest in self._room", "if False"),
    ),
    bug(
        "the-innocent-are-convicted",
        "4.9.4",
        (_ATTEST, "Attestations.convict", "said.pop(tx.digest, None)", "next(iter(said.values()), None)"),
    ),
    bug("transaction-of-another-chain", "3.2", (_LEDGER, "Ledger._admit", "tx.chain != self.chain", "False")),
    bug(
        "previous-unchecked",
        "3.2",
        (_LEDGER, "Ledger._check_place", "header.previous != head.block_hash", "False"),
        (_LEDGER, "Ledger.check", "if ours != block.header:", "if executed.header.state_root != header.state_root:"),
    ),
    bug(
        "state-root-unchecked",
        "3.2",
        (
            _LEDGER,
            "Ledger.check",
            "if ours != block.header:",
            "if executed.header.tx_root != header.tx_root:",
        ),
    ),
    bug(
        "time-runs-backwards",
        "3.2",
        (_LEDGER, "Ledger._check_place", "header.time_s < head.time_s", "False"),
        (
            "watt_chain.pbft.round",
            "judge_proposal",
            _TIME_RULE,
            "header.time_s > max(before_s, clock(now_ms + bound_ms))",
        ),
    ),
    bug(
        "slots-of-refused-keys-stay",
        "2.9",
        ("watt_chain.tree", "Overlay.rollback", "self.new_keys.pop()", "pass"),
        (
            "watt_chain.tree",
            "Overlay.rollback",
            'assert self.new_keys[-1] == key, "slots are given and taken back in order"',
            "pass",
        ),
        ("watt_chain.tree", "Overlay.rollback", "del self.writes[key]", 'self.writes[key] = b""'),
    ),
    bug(
        "stale-root-after-write",
        "2.9",
        ("watt_chain.tree", "StateTree.merge", "level[index] = nodes[index]", "pass"),
    ),
    bug(
        "pool-gives-nonces-out-of-order",
        "4.1.3",
        ("watt_chain.pool", "Pool.select", "entry = waiting.get(next_nonce(signer))", "entry = waiting[max(waiting)]"),
    ),
    bug("pool-never-forgets", "4.1.1", ("watt_chain.pool", "Pool.settle", "for tx in txs:", "for tx in ():")),
)

_CLIENT = (
    bug(
        "client-takes-fewer-votes",
        "7.1",
        (_BLOCK, "check_votes", "len(votes) != quorum(len(publics))", "len(votes) < quorum(len(publics)) - 1"),
    ),
    bug("client-counts-one-twice", "2.8", (_BLOCK, "check_votes", "vote.index <= before", "vote.index < before")),
    bug(
        "client-takes-prepares",
        "2.8",
        (_BLOCK, "check_certificate", "return check_votes(certificate.votes, message, publics, verify)", _EITHER_PHASE),
    ),
    bug(
        "client-checks-one-signature",
        "7.1",
        (
            _BLOCK,
            "check_votes",
            "for vote in votes:\n        if not verify",
            "for vote in votes[:1]:\n        if not verify",
        ),
    ),
    bug(
        "client-takes-older-certificate",
        "2.8",
        (_BLOCK, "check_certificate", "certificate.view < header.view", "False"),
    ),
    bug(
        "client-takes-any-version",
        "7.1",
        (_LIGHT, "LightClient.check_header", "header.version != blocks.HEADER_VERSION", "False"),
    ),
    bug(
        "client-takes-any-chain",
        "7.1",
        (_LIGHT, "LightClient.check_header", "if chain not in self._lists:", "if False:"),
        (_LIGHT, "LightClient._publics", "self._lists.get(chain)", "self._lists.get(1)"),
        (_LIGHT, "LightClient.check_header", "header.chain != chain", "False"),
    ),
    bug(
        "client-takes-anothers-receipt",
        "7.2",
        (_LIGHT, "LightClient.check_receipt", "receipt.txid != sent.txid", "False"),
    ),
    bug(
        "client-takes-any-size", "7.2", (_LIGHT, "LightClient.check_receipt", "proof.size != header.tx_count", "False")
    ),
    bug(
        "client-skips-the-path",
        "7.2",
        (_LIGHT, "LightClient._check_path", "not merkle.verify_proof(", "False and not merkle.verify_proof("),
    ),
)

_NEWER = bugs_lists.LISTS + bugs_lists.STATES + bugs_lists.MEMORY + bugs_lists.RESUMED
BUGS: tuple[Mutant, ...] = (
    _VOTING + _VIEWS + _MEMORY + _PROGRESS + _EXECUTION + _CLIENT + _NEWER + INCLUSION + DEAF + ELECTION + CROSS
)
"""Every planted bug, by what it breaks."""


def find(name: str) -> Mutant:
    """A bug by name. Raises KeyError."""
    return {bug.name: bug for bug in BUGS}[name]
