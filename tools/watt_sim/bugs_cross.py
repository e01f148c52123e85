"""The planted bugs of trades across areas, one at a time; looked for in networks of areas (`areas`)."""

from watt_sim.planting import Edit, Mutant

_AREA = "watt_chain.contract.cross_area"
_MAIN = "watt_chain.contract.cross_main"
_INBOX = "watt_chain.contract.inbox"
_ANCHOR = "watt_chain.contract.main"
_PROOFS = "watt_chain.contract.proofs"
_GUARD = "watt_chain.contract.cross_guard"
_EXCHANGE = "watt_chain.pbft.exchange"

TESTS = (
    "contract/test_cross_trades.py",
    "contract/test_cross_messages.py",
    "contract/test_cross_tables.py",
    "contract/test_cross_guard.py",
    "contract/test_cross_attacks.py",
    "contract/test_chains.py",
    "chain/test_vouch.py",
)
_OWN_CLOCK = (
    "BUYER[Buyer(trade.state)].get(trigger)\n        if trigger is Trigger.LAPSE and trade.state == Buyer.LOCKED:\n"
    "            buyer = BUYER[Buyer.LOCKED][Trigger.ANCHORED_END]"
)
_PAID_AT_ONCE = (
    "docket.step(trade, Trigger.JOIN if joins else Trigger(word), paid_u)\n"
    "        if word == 'settled':\n            docket._tell(trade, terms.seller_chain, 'pay')"
)


def _bug(name: str, rule: str, *edits: tuple[str, str, str, str]) -> Mutant:
    return Mutant(name, rule, tuple(Edit(*edit) for edit in edits), TESTS, "areas")


CROSS = (
    _bug(
        "outcome-may-change",
        "17.3",
        (
            _MAIN,
            "Docket.step",
            "BEACON[Beacon(trade.state)].get(trigger)",
            "BEACON[Beacon.NONE if trigger is Trigger.KILL else Beacon(trade.state)].get(trigger)",
        ),
    ),
    _bug(
        "acceptance-without-a-lock",
        "17.3",
        (
            _MAIN,
            "Docket.step",
            "goal, effects = step",
            "goal, effects = BEACON[Beacon.LOCKED][Trigger.ACCEPT] if trigger is Trigger.ACCEPT else step",
        ),
    ),
    _bug("refund-by-the-own-clock", "17.3", (_AREA, "Desk.step", "BUYER[Buyer(trade.state)].get(trigger)", _OWN_CLOCK)),
    _bug(
        "seller-bound-before-the-anchor",
        "17.3",
        (
            _AREA,
            "Desk.step",
            "goal, effects = seller[0].value, seller[1]",
            "goal, effects = seller[0].value.replace('ACCEPTED', 'EFFECTIVE'), seller[1]",
        ),
    ),
    _bug(
        "seller-told-at-once",
        "17.3",
        (
            _MAIN,
            "take_report",
            "docket.step(trade, Trigger.JOIN if joins else Trigger(word), paid_u)",
            _PAID_AT_ONCE,
        ),
    ),
    _bug("anchor-not-executed", "4.3.7", (_EXCHANGE, "Exchange.vouches", "return required or", "return True or")),
    _bug(
        "messages-left-out-of-an-anchor",
        "8.5",
        (_ANCHOR, "anchor", "merkle.root(leaves) != header.outbox_root", "False"),
    ),
    _bug("anchor-of-another-history", "8.5", (_ANCHOR, "anchor", "header.previous != last.block_hash", "False")),
    _bug(
        "anchor-again",
        "8.5",
        (_ANCHOR, "anchor", "header.height <= last.height", "False"),
        (_ANCHOR, "anchor", "header.height != last.height + 1", "False"),
        (_ANCHOR, "anchor", "header.previous != last.block_hash", "False"),
    ),
    _bug(
        "message-taken-again",
        "17.4",
        (_INBOX, "take_messages", "message.sequence != sequence + 1", "False"),
        (_INBOX, "take_messages", "header.height <= cursor.height or header.height < first", "False"),
    ),
    _bug(
        "message-after-a-gap",
        "17.4",
        (_INBOX, "take_messages", "message.sequence != sequence + 1", "message.sequence <= sequence"),
    ),
    _bug("message-without-its-path", "17.4", (_INBOX, "take_messages", "refuse_if(not proven,", "refuse_if(False,")),
    _bug(
        "message-of-another-target",
        "17.4",
        (
            _INBOX,
            "take_messages",
            "(message.source_chain, message.target_chain) != (source, session.context.chain)",
            "message.source_chain != source",
        ),
    ),
    _bug(
        "header-without-certificate",
        "17.4",
        (_PROOFS, "proven_header", 'check_certificate(certificate, network, header, hash_, publics) != ""', "False"),
    ),
    _bug(
        "bound-unchecked",
        "17.3",
        (_MAIN, "_lock", "held.locked_u + held.out_u + value_u > held.endowed_u + held.in_u", "False"),
    ),
    _bug("rate-unchecked", "17.3", (_MAIN, "_lock", "held.rate_locked_u + value_u > held.rate_u", "False")),
    _bug(
        "reserved-for-ever",
        "17.3",
        (_MAIN, "Docket._effect", "replace(held, locked_u=held.locked_u - trade.value_u)", "held"),
    ),
    _bug(
        "payment-not-counted-in",
        "17.3",
        (_MAIN, "Docket._effect", "replace(taker, in_u=taker.in_u + trade.paid_u)", "taker"),
    ),
    _bug(
        "one-of-a-group-ends-alone",
        "17.2",
        (_MAIN, "Docket._end_together", "if other.state in UNDECIDED:", "if False:"),
    ),
    _bug(
        "one-of-a-group-comes-about-alone",
        "17.2",
        (_MAIN, "_lock", "elif group and trade.state == Beacon.ACCEPTED:", "elif False:"),
        (_MAIN, "take_report", "joins = word", "joins = False and word"),
    ),
    _bug(
        "no-end-by-the-main-chain",
        "17.2",
        (_MAIN, "end_overdue", "if now_s >= due_s:", "if False:"),
        (_MAIN, "close", "docket.end(", "(lambda *_: None)("),
    ),
    _bug("ended-before-its-time", "17.2", (_MAIN, "end_overdue", "if now_s >= due_s:", "if True:")),
    _bug(
        "outcome-told-to-one-side",
        "17.3",
        (_MAIN, "Docket._effect", "self._tell(trade, terms.seller_chain, word)", "pass"),
    ),
    _bug(
        "rest-of-the-escrow-kept",
        "17.3",
        (
            _AREA,
            "Desk._spend",
            "return self.give_back(replace(trade, escrow_u=trade.escrow_u - trade.paid_u - charge_u))",
            "return replace(trade, escrow_u=0)",
        ),
    ),
    _bug(
        "payment-not-counted-out",
        "17.3",
        (_AREA, "Desk._spend", "sent_u=transit.sent_u + trade.paid_u", "sent_u=transit.sent_u"),
    ),
    _bug(
        "credited-without-payment",
        "17.3",
        (_AREA, "Desk._effect", "received_u=transit.received_u + trade.paid_u", "received_u=transit.received_u"),
    ),
    _bug(
        "locked-without-the-money",
        "17.2",
        (_AREA, "Desk._lock", "self.session.account(trade.user).free_u < escrow_u + bond_u", "False"),
    ),
    _bug("lock-of-another-area", "17.3", (_AREA, "take_locks", "trade.terms.buyer_chain != source", "False")),
    _bug(
        "lock-lost-with-its-validators",
        "17.4",
        (_MAIN, "_introduce", "known.validators, lane.sequence, locked", "known.validators, lane.sequence, []"),
    ),
    _bug("trade-of-somebody-else", "17.2", (_AREA, "_mine", "refuse_if(trade.user != signer.id", "refuse_if(False")),
    _bug(
        "two-heights-are-a-fork",
        "17.7",
        (_GUARD, "fork", "(first.chain, first.height) != (second.chain, second.height)", "first.chain != second.chain"),
    ),
    _bug("one-block-twice-is-a-fork", "17.7", (_GUARD, "fork", "hashes[0] == hashes[1]", "False")),
    _bug("one-master-refutes-an-area", "17.7", (_GUARD, "refute", "> faults_tolerated(len(numbers))", ">= 1")),
    _bug(
        "quarantined-and-still-anchored",
        "17.7",
        (_ANCHOR, "anchor", 'cross_main.position(session, chain).quarantine != ""', "False"),
    ),
    _bug(
        "quarantine-ends-no-trade",
        "17.7",
        (_GUARD, "quarantine", "cross_main.end_of_area(session, docket, number, chain, QUARANTINE)", "pass"),
    ),
    _bug(
        "readmitted-and-still-in-quarantine",
        "17.7",
        (_GUARD, "readmit", 'replace(held, quarantine="")', "held"),
    ),
    _bug(
        "readmitted-under-the-old-list",
        "17.7",
        (
            _GUARD,
            "readmit",
            "KnownList(last.height + 1, fields.validators)",
            "validators.known_list(session, fields.chain)",
        ),
    ),
    _bug(
        "second-list-of-a-height-not-told",
        "17.7",
        (
            _MAIN,
            "introduce_again",
            "if session.need(key, Lane).told_from:",
            "if session.need(key, Lane).told_from and not _has_told(session, source, int(key.rsplit(b'/', 1)[1])):",
        ),
    ),
    _bug(
        "readmitted-and-nobody-told",
        "17.7",
        (_GUARD, "readmit", "cross_main.introduce_again(session, fields.chain)", "pass"),
    ),
)
"""All of them are looked for by seeds of `areas` first."""
