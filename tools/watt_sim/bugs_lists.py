"""The planted bugs of membership, of states in place of blocks, and of a memory that cannot be trusted."""

from functools import partial

from watt_sim.planting import bug

_AGREEMENT = "watt_chain.pbft.agreement"
_REPLICA = "watt_chain.pbft.replica"
_LEDGER = "watt_chain.ledger"
_DESK = "watt_chain.pbft.desk"
_SYNC = "watt_chain.pbft.sync"
_SILENCE = "watt_chain.pbft.silence"
_TRANSFER = "watt_chain.pbft.transfer"
_SNAPSHOT = "watt_chain.snapshot"
_BLOCK = "watt_chain.block"
_LIGHT = "watt_chain.light"
_LISTS = "watt_chain.contract.validators"

TESTS = ("chain/test_members.py", "chain/test_silence.py", "contract/test_validators.py", "node/test_crash.py")
_CAUGHT_UP = "if caught_up and not (self._doubt and height == 0):"


_bug = partial(bug, tests=TESTS)


LISTS = (
    _bug("old-list-certifies-on", "8.1", (_LEDGER, "Ledger.apply", "self._seat(seats)", "pass")),
    _bug(
        "header-names-the-present-list",
        "8.1",
        (_LEDGER, "Ledger._close", "[seat.validator for seat in self._seats_after(state)]", "list(self.validators)"),
        (_LEDGER, "Ledger.check", "if ours != block.header:", "if executed.header.state_root != header.state_root:"),
    ),
    _bug(
        "votes-recalled-off-the-list",
        "8.3",
        (_AGREEMENT, "Agreement._begin_height", "if self._desk.votes:", "if True:"),
    ),
    _bug(
        "old-height-under-the-new-list",
        "8.3",
        (_AGREEMENT, "Agreement.resend", "if self.round is not round_:", "if False:"),
    ),
    _bug(
        "peers-of-the-old-list",
        "8.1",
        (_DESK, "Desk.seat", "self.index_of = {", "self.index_of = self.index_of if hasattr(self, 'index_of') else {"),
    ),
    _bug(
        "quorum-of-the-old-list",
        "8.1",
        (_DESK, "Desk.seat", "self.q = quorum(self.n)", "self.q = getattr(self, 'q', quorum(self.n))"),
    ),
    _bug("new-key-not-looked-for", "8.2", (_DESK, "Desk.seat", "for key in self.keys:", "for key in self.keys[:1]:")),
    _bug(
        "who-left-is-told-nothing",
        "8.4",
        (_REPLICA, "Replica._take_status", "left_behind = ", "left_behind = False and "),
    ),
    _bug("who-follows-tells-nobody", "8.4", (_SYNC, "CatchUp.announce", "elif known:", "elif False:")),
    _bug(
        "change-of-the-last-block-forgotten",
        "8.7",
        (_LEDGER, "Ledger.apply", "self.changes = [*self.changes, change][-CHANGES_MAX:]", "self.changes = [change]"),
    ),
    _bug(
        "change-without-certificate",
        "8.7",
        (_BLOCK, "follow", "    if reason:\n", "    if False:\n"),
    ),
    _bug(
        "change-to-any-list",
        "8.7",
        (_BLOCK, "follow", "list_hash(change.validators) != header.next_validators", "False"),
    ),
    _bug("client-keeps-the-first-list", "7.6", (_LIGHT, "LightClient._publics", "lists[at - 1][1]", "lists[0][1]")),
    _bug(
        "client-knows-the-newest-list-only", "7.6", (_LIGHT, "LightClient._publics", "lists[at - 1][1]", "lists[-1][1]")
    ),
    _bug(
        "change-acts-at-once",
        "8.2",
        (_LISTS, "begin", "now.next_from != acting", "not now.next_from"),
    ),
    _bug("removed-key-signs-on", "8.2", (_LISTS, "_take_over", "if validator not in now.next:", "if False:")),
    _bug(
        "old-key-comes-back",
        "8.2",
        (_LISTS, "_check_list", 'Signer) is not None, "key-used"', 'Signer) is not None and False, "key-used"'),
    ),
)

STATES = (
    _bug(
        "state-without-certificate",
        "4.6.5",
        (_LEDGER, "Ledger.check_final", "    if reason:\n", "    if False:\n"),
    ),
    _bug("range-unchecked", "4.6.5", (_TRANSFER, "Transfer.take", "check_range(self.manifest, part)", "pass")),
    _bug(
        "range-of-any-path",
        "4.6.5",
        (_SNAPSHOT, "check_range", "if not merkle.verify_proof(", "if False and not merkle.verify_proof("),
        (_LEDGER, "Ledger.install", "or tree.root() != header.state_root", ""),
    ),
    _bug("chunk-roots-unchecked", "4.6.5", (_SNAPSHOT, "open_manifest", "if root != header.state_root:", "if False:")),
    _bug(
        "offer-need-not-be-proven",
        "4.6.6",
        (_TRANSFER, "Transfer.__init__", "dict.fromkeys(peaks(count))", "{}"),
    ),
    _bug(
        "state-shares-the-live-tree",
        "4.6.4",
        (_SNAPSHOT, "FrozenState.__init__", "self._values = list(tree.values)", "self._values = tree.values"),
    ),
    _bug(
        "list-of-the-state-not-taken",
        "4.6.5",
        (_LEDGER, "Ledger.install", "self._seat(self._seats_after(self.state))", "pass"),
    ),
    _bug(
        "whole-state-not-installed-at-start",
        "4.6.8",
        (
            _SYNC,
            "CatchUp.resume",
            "return self._go_on(self.transfer, self._desk.config.number)",
            "self._ask_for_state()",
        ),
    ),
    _bug("round-goes-on-after-a-state", "4.6.5", (_AGREEMENT, "Agreement.jump", "self._begin_height()", "pass")),
    _bug(
        "dead-peer-keeps-a-state-alive",
        "4.6.7",
        (_TRANSFER, "Transfer.questions", "if self._missed[peer] < STATE_MISSES_MAX:", "if True:"),
    ),
    _bug(
        "hopeless-state-stays",
        "4.6.7",
        (_SYNC, "CatchUp.consider_offer", "is not None and not running.hopeless", "is not None"),
    ),
    _bug(
        "older-state-taken",
        "4.6.5",
        (_LEDGER, "Ledger.check_final", "header.height <= self.head.height", "False"),
        (_SYNC, "CatchUp.consider_offer", "message.height <= desk.app.head.height", "False"),
    ),
)

MEMORY = (
    _bug(
        "any-block-ends-a-doubt",
        "4.7.6",
        (_SILENCE, "Silence.advanced", "tx.txid in self._pledges for tx", "True for tx"),
    ),
    _bug("doubt-ends-unwritten", "4.7.6", (_SILENCE, "Silence._clear", "self._desk.persist(CLEAR, height, 0)", "pass")),
    _bug("doubt-ignored", "4.7.5", (_SILENCE, "Silence.reason", "if self._doubt:", "if False:")),
    _bug(
        "doubt-not-recalled",
        "4.7.6",
        (_SILENCE, "Silence.recall", 'self._doubt = text or "unknown" if kind == DOUBT else ""', 'self._doubt = ""'),
    ),
    _bug("floor-ignored", "4.7.5", (_SILENCE, "Silence.reason", "self._desk.app.head.height < self._floor", "False")),
    _bug(
        "liar-prevents-the-founding",
        "4.7.7",
        (_SILENCE, "Silence._consider", "told.count(0) >= desk.q - 1", "not any(told)"),
    ),
    _bug(
        "one-word-founds-a-network",
        "4.7.7",
        (_SILENCE, "Silence._consider", "told.count(0) >= desk.q - 1", "0 in told"),
    ),
    _bug("founding-heard-once", "4.7.7", (_SILENCE, "Silence._consider", _CAUGHT_UP, "if caught_up:")),
    _bug(
        "silent-validator-leaves-views",
        "4.7.5",
        (_AGREEMENT, "Agreement.deadline_ms", "if self.silence.reason():", "if False:"),
    ),
    _bug(
        "silent-validator-prepares",
        "4.7.5",
        (_AGREEMENT, "Agreement._support", "if self.silence.reason():", "if False:"),
    ),
    _bug("commit-of-ours-not-recognised", "4.7.9", (_SILENCE, "Silence.recognise", "height > self._floor", "False")),
    _bug(
        "liars-keep-us-silent", "4.7.8", (_SILENCE, "Silence._consider", "told[min(desk.f, len(told) - 1)]", "told[0]")
    ),
)

_BLOCK_FOLLOW = (_BLOCK, "follow")
RESUMED = tuple(
    bug(name, "8.8", edit, tests=("contract/test_resume.py", "contract/test_cross_guard.py", "chain/test_members.py"))
    for name, edit in (
        ("word-of-anybody", (*_BLOCK_FOLLOW, "said = (tx.chain, tx.signer,", "said = (tx.chain, regulator,")),
        ("word-unsigned", (*_BLOCK_FOLLOW, "if not is_signed(tx, network, verify):", "if False:")),
        (
            "word-for-another-list",
            (*_BLOCK_FOLLOW, "word.previous, word.validators)", "word.previous, change.validators)"),
        ),
        ("older-word-counts", (_LIGHT, "LightClient.follow", "sequence <= known if", "sequence < 0 if")),
        ("lists-after-a-word-stay", (_LIGHT, "LightClient.follow", " if listed[0] < from_height", "")),
        (
            "old-keys-in-the-word",
            (_LISTS, "resume", "fields.validators, now, [])", "fields.validators, now, now.validators)"),
        ),
        ("word-after-any-block", (_LISTS, "resume", "fields.previous != previous", "False")),
        ("word-replayed", (_LISTS, "resume", "fields.sequence <= now.sequence", "False")),
        ("word-anywhere-in-a-block", (_LISTS, "not_first", 'refuse("not-first")', "pass")),
        (
            "old-list-certifies-the-word",
            (_LEDGER, "Ledger.apply", "self.publics if word is None else", "self.publics if True else"),
        ),
        ("told-node-makes-other-blocks", (_LEDGER, "Ledger.check", "(word is None) != (self._word is None)", "False")),
    )
)
"""An area that goes on under the regulator's word."""
