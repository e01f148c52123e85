"""The planted bugs of the election and of evidence: who leads although it must not, and who keeps its place."""

from functools import partial

from watt_sim.planting import bug

_ELECTION = "watt_chain.election"
_TICKETS = "watt_chain.contract.tickets"
_EVIDENCE = "watt_chain.contract.evidence"


TESTS = ("chain/test_election.py", "contract/test_election.py", "paper/test_election_rows.py")


_bug = partial(bug, tests=TESTS)


ELECTION = (
    _bug(
        "order-of-the-height-before",
        "6.1.1",
        ("watt_chain.contract.tickets", "order", "context.height, _valid", "context.height - 1, _valid"),
    ),
    _bug("draw-off-by-one", "6.5.1", (_ELECTION, "draw", "while mark >= weights", "while mark > weights")),
    _bug(
        "draw-without-weights",
        "6.5.1",
        (_ELECTION, "draw", "total = sum(weights)", "weights = [1] * len(weights); total = sum(weights)"),
    ),
    _bug(
        "one-draw-for-the-term",
        "6.5.1",
        (_ELECTION, "draw", 'seed + height.to_bytes(8, "big")', "seed + bytes(8)"),
    ),
    _bug("weights-uncapped", "6.2.3", (_ELECTION, "capped", "min(weight, cap)", "weight")),
    _bug(
        "skipped-leaders-keep-their-place",
        "6.5.3",
        (_ELECTION, "strike", "if skipped else election", "if False else election"),
    ),
    _bug("proposer-struck-too", "6.5.3", (_ELECTION, "strike", "one != proposer and ", "")),
    _bug("strikes-for-ever", "6.5.3", (_ELECTION, "turn", "entrants, [], demoted", "entrants, before.struck, demoted")),
    _bug(
        "the-demoted-are-left-out-of-the-draw",
        "6.5.2",
        (
            _ELECTION,
            "order",
            "[one.weight for one in election.eligible])",
            "[one.weight for one in election.eligible if one.validator not in election.struck])",
        ),
    ),
    _bug("demotion-without-effect", "6.5.4", (_ELECTION, "order", "2 if validator in demoted else ", "")),
    _bug("demotion-one-term-short", "6.5.4", (_ELECTION, "turn", "one.to_term >= term", "one.to_term > term")),
    _bug("share-kept-back-unpunished", "6.4.4", (_ELECTION, "turn", "elif pledge.term == term:", "elif False:")),
    _bug("shares-not-in-the-seed", "6.4.3", (_ELECTION, "turn", "before.seed, shares)", "before.seed, [])")),
    _bug("share-unchecked", "6.4.2", (_TICKETS, "reveal", "made != pledge.commitment", "False")),
    _bug(
        "share-shown-while-tickets-are-taken",
        "6.4.2",
        (_TICKETS, "reveal", "fields.term > now.term + 1 or not in_time", "fields.term > now.term + 1"),
    ),
    _bug(
        "commitment-changed-later",
        "6.4.1",
        (_TICKETS, "commit", "any(pledge.term == fields.term for pledge in candidate.pledges)", "False"),
        (_TICKETS, "commit", "[*candidate.pledges, ", "[*(p for p in candidate.pledges if p.term != fields.term), "),
    ),
    _bug(
        "commitment-after-the-shares",
        "6.4.1",
        (_TICKETS, "commit", "fields.term < now.term + 2 or not in_time", "fields.term < now.term + 2"),
    ),
    _bug(
        "puzzle-unsolved",
        "6.3.1",
        (_TICKETS, "take_ticket", "not election.is_solved(puzzle, fields.nonce, entrant.bits)", "False"),
    ),
    _bug(
        "ticket-after-the-shares",
        "6.3.1",
        (_TICKETS, "take_ticket", " or election.place_of(context.height) >= election.ENTRY_BLOCKS", ""),
    ),
    _bug("puzzle-of-another-validator", "6.3.1", (_ELECTION, "puzzle", "seed, validator]", "seed, b'']")),
    _bug("no-harder-after-faults", "6.3.3", (_ELECTION, "bits_for", " + FAULT_BITS * faults", "")),
    _bug("strength-of-the-last-epoch", "6.2.1", (_TICKETS, "_strength", "found.before_ppm", "found.strength_ppm")),
    _bug("evidence-unsigned", "4.8.2", (_EVIDENCE, "convict", "refuse_if(not genuine,", "refuse_if(False,")),
    _bug(
        "evidence-of-two-views",
        "4.8.2",
        (_EVIDENCE, "convict", "b.sender, b.height, b.view)", "b.sender, b.height, a.view)"),
    ),
    _bug("one-vote-twice-is-evidence", "4.8.2", (_EVIDENCE, "convict", " or not _differ(a, b)", "")),
    _bug(
        "evidence-counts-again",
        "4.8.3",
        (_EVIDENCE, "convict", "session.get(where, Conviction) is not None", "False"),
    ),
    _bug(
        "conviction-without-demotion",
        "4.8.3",
        (_TICKETS, "punish_equivocation", "replace(now, demoted=demoted)", "now"),
    ),
)
