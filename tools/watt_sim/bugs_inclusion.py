"""The planted bugs of the inclusion list (CONSENSUS.md 4.10), and of whom nobody listens to any more (4.4.7, 4.6.2)."""

from functools import partial

from watt_sim.planting import bug

_INCLUSION = "watt_chain.pbft.inclusion"
_POOL = "watt_chain.pool"
_REPLICA = "watt_chain.pbft.replica"
TESTS = ("chain/test_inclusion.py", "tools/test_bench_refusal.py")


_bug = partial(bug, tests=TESTS)


INCLUSION = (
    _bug(
        "censor-unopposed",
        "4.10.2",
        (_INCLUSION, "is_lacking", "if proposal.header.view != view or view > desk.f:", "if True:"),
    ),
    _bug(
        "required-block-held-up",
        "4.10.2",
        (_INCLUSION, "is_lacking", "proposal.header.view != view", "proposal.header.view > view"),
    ),
    _bug(
        "objection-forgotten",
        "4.10.2",
        (_INCLUSION, "is_lacking", "return bool(proposal.lacks)", "return False"),
    ),
    _bug("listed-before-n-blocks", "4.10.1", (_POOL, "Pool.overdue", "entry.blocks + blocks > self._blocks or ", "")),
    _bug("listed-before-it-went-round", "4.10.1", (_POOL, "Pool.overdue", " or entry.arrival_ms > before_ms", "")),
    _bug("listed-before-its-turn", "4.10.1", (_POOL, "Pool._ready", "if entry.tx.nonce == nonce and ", "if ")),
    _bug(
        "listed-though-unsupported",
        "4.10.1",
        (_POOL, "Pool.overdue", "self._ready(next_nonce, vouch)", "self._ready(next_nonce, None)"),
    ),
    _bug("list-without-bound", "4.10.1", (_POOL, "Pool.overdue", "len(found) == count_max or ", "")),
    _bug(
        "taken-turn-no-excuse",
        "4.10.3",
        (_INCLUSION, "_left_out", " and (tx.signer, tx.nonce) not in turns", ""),
    ),
    _bug("full-block-no-excuse", "4.10.3", (_INCLUSION, "_left_out", "if not is_full and ", "if ")),
    _bug(
        "fresh-company-is-an-excuse",
        "4.10.3",
        (_INCLUSION, "_left_out", " if pool.is_older(tx.digest, desk.now_ms - GOSSIP_REPEAT_MS)", ""),
    ),
    _bug("bytes-no-excuse", "4.10.3", (_INCLUSION, "_left_out", " or len(tx.raw) > room", "")),
    _bug("objection-without-end", "4.10.2", (_INCLUSION, "is_lacking", " or view > desk.f", "")),
    _bug(
        "wanted-is-not-repeated",
        "4.10.4",
        ("watt_chain.pbft.exchange", "Exchange.repeat", "urgent + waiting", "waiting"),
    ),
)

DEAF = (
    _bug(
        "forgers-listened-to",
        "4.4.7",
        ("watt_chain.pbft.agreement", "Agreement._set_aside", "self.round.set_aside[index] = None", "pass"),
    ),
    _bug(
        "forgers-votes-unread-too",
        "4.4.7",
        (_REPLICA, "Replica._agree", "isinstance(message, ViewChange | NewView) and index", "index"),
    ),
    _bug(
        "bad-blocks-checked-again",
        "4.6.2",
        (_REPLICA, "Replica._handle_blocks", "if not self._catch_up.is", "if False and self._catch_up.is"),
    ),
    _bug(
        "bad-blocks-never-forgiven",
        "4.6.2",
        ("watt_chain.pbft.sync", "CatchUp.is_trusted", ">= SYNC_TIMEOUT_MS", "< 0"),
    ),
)
