"""The independent verifier: recomputes an exported run from its bytes and the regulator's public key.

Written from the documents (firmware/WIRE.md, station/CONSENSUS.md, station/CONTRACT.md, tools/README.md; numbers in
comments are sections of CONTRACT.md); it shares no code with the network. Cheap before dear, and nothing is computed
from bytes that an earlier step refuses: form, hashes, roots; signatures; contract; state objects; statement. Receipts
are read, not derived: which bids qualify and how near the optimum a matching is stays with the certifying quorum.
"""

import json
import struct
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace as Space
from typing import Any

import ecdsa
import msgspec

M = 1_000_000
NONE = bytes(32)
HALF_N = int(ecdsa.NIST256p.order) // 2
PARALLEL_MIN = 400
"Signatures from which a second process pays for its start."
PROBLEMS_MAX = 50
LAYOUTS = """
Genesis name protocol_start_s regulator grid aggregator main areas rules active_rules pool_points
Header version chain height previous term view time_s proposer tx_root receipt_root state_root outbox_root
 inbox_cursor rules_version tx_count
Message source target sequence kind body
Account id role public nonce free_u escrow_u bond_u arrears_u points credit chain node suspended warned
RuleSet version credit_start credit_cap credit_reward credit_penalty credit_bar warn_below mode eps_ppm beta_ppm
 sigma_ppm gamma_u_per_ms price_cap_u_per_wh commit_deposit_u gap_ppm risk_u_per_wh rho_max_ppm sigma_max_ppm
 price_floor_ppm price_top_ppm block_points points_per_event excluded_classes break_even_ppm full_weight_wh fresh_s
EventSpec event kind slot_s slots required_ppm open_s commit_close_s reveal_close_s match_by_s confirm_close_s
 window_start_s meter_close_s settle_by_s alpha_u_per_wh x_ms y_ms budget_u units normal_price_u_per_wh
 compensation_price_u_per_wh profile_wh_per_mwh
Event event state open rules_version spec book_root rho_scaled pairs lambda_u_per_wh mean_price_u_per_wh
 incentives_done punish_done result_root reason
Plug id owner public key_class rated_w from_height to_height counter previous boot_id time_s import_mwh export_mwh
 next_sequence gaps discontinuities
Pair event number offer bid seller buyer slot_wh limit_u_per_wh price_u_per_wh charge_u buyer_escrow_u seller_escrow_u
 buyer_bond_u seller_bond_u state paid_u
Row user side status sold_wh bought_wh quota_wh metered_wh outside_wh agreed_wh delivered_wh short_wh credit_before
 credit_after traded_u charge_u penalty_u arrears_u rp_u_per_wh notice points
Check version suite plug boot_id counter previous root first count time_s quality import_mwh export_mwh firmware
 calibration reason
"""
NAMES = {line.split()[0]: tuple(line.split()[1:]) for line in LAYOUTS.strip().replace("\n ", " ").split("\n")}
CHECK, RECORD = ">BB8sII32s32sIHIBQQ32s32sB", ">B8sIIHBQQ6I3iBH"
ROLES = {
    **dict.fromkeys(("Enrol", "Rotate", "Revoke", "RuleSet"), "regulator"),
    **dict.fromkeys(("Deposit", "Initial", "PriceIncentives", "Punish", "Points"), "grid"),
    **dict.fromkeys(("Qualify", "Match", "SettlementCredit"), "aggregator"),
    **dict.fromkeys(("Inbox", "Anchor"), "validator"),
}
"3: who may call; households all others, and SettlementAmount its chain's office."
DUE = {
    **{"ANNOUNCED": ("open_s", "COMMIT"), "COMMIT": ("commit_close_s", "REVEAL")},
    **{"REVEAL": ("confirm_close_s", "ABORTED"), "QUALIFIED": ("confirm_close_s", "ABORTED")},
    **{"MATCHED": ("confirm_close_s", "CONFIRMED"), "CONFIRMED": ("window_start_s", "DELIVERING")},
    **{"DELIVERING": ("settle_by_s", "ABORTED"), "METERED": ("settle_by_s", "ABORTED")},
}
"5: state of an area's event -> its deadline and what comes then."
STAGES = {
    **{"Commit": "COMMIT", "Reveal": "REVEAL", "Qualify": "REVEAL", "Confirmtransaction": "MATCHED"},
    **{"Confirm": "MATCHED", "SettlementCredit": "DELIVERING", "SettlementAmount": "METERED"},
    **dict.fromkeys(("PriceIncentives", "Punish", "Points"), "SETTLED"),
}


class Wrong(Exception):
    """What contradicts the documents; the text becomes a problem."""


class Structure(Space):
    """A named list: what one line of LAYOUTS says."""


def need(held: object, text: str) -> None:
    """Raise Wrong unless the condition holds."""
    if not held:
        raise Wrong(text)


def named(name: str, values: Iterable[Any]) -> Any:
    """Plain values with the field names of a structure."""
    return Structure(**dict(zip(NAMES[name], values, strict=True)))


def plain(value: Any) -> Any:
    """The list that a structure is on the chain."""
    if isinstance(value, Structure):
        return [plain(field) for field in vars(value).values()]
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def encode(value: object) -> bytes:
    return msgspec.msgpack.encode(plain(value))


def decode(data: bytes) -> Any:
    """The value, if `data` is its one spelling (CONSENSUS.md 2.1)."""
    value = msgspec.msgpack.decode(data)
    need(encode(value) == data, "not the canonical encoding")
    return value


def digest(data: bytes) -> bytes:
    return sha256(data).digest()


def id8(public: bytes) -> bytes:
    return digest(public)[:8]


def merkle(items: Iterable[bytes]) -> bytes:
    """RFC 9162 root."""
    nodes = [digest(b"\0" + item) for item in items] or [digest(b"")]
    while len(nodes) > 1:
        even = len(nodes) & ~1
        nodes = [digest(b"\1" + nodes[i] + nodes[i + 1]) for i in range(0, even, 2)] + nodes[even:]
    return nodes[0]


def climb(item: bytes, node: int, size: int, path: list[bytes]) -> bytes:
    """RFC 9162 2.1.3.2: the root to which a path leads."""
    at, last = digest(b"\0" + item), size - 1
    for sibling in path:
        if node & 1 or node == last:
            at = digest(b"\1" + sibling + at)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            at = digest(b"\1" + at + sibling)
        node, last = node >> 1, last >> 1
    return at if last == 0 else b""


Claim = tuple[bytes, bytes, bytes]
"Public key, message, signature."
CHECKED: dict[Claim, bool] = {}


@lru_cache(maxsize=4096)
def key_of(public: bytes) -> Any:
    return ecdsa.VerifyingKey.from_string(public, curve=ecdsa.NIST256p, hashfunc=sha256)


def check(claim: Claim) -> bool:
    """ECDSA P-256, SHA-256, low s only (WIRE.md W2.4)."""
    try:
        return int.from_bytes(claim[2][32:], "big") <= HALF_N and bool(key_of(claim[0]).verify(claim[2], claim[1]))
    except Exception:  # the package raises many kinds on crafted keys and signatures: all of them mean no
        return False


def check_all(claims: list[tuple[str, Claim]]) -> list[str]:
    """Places of the signatures that do not hold; each one is computed once, many on two cores."""
    fresh = [claim for claim in dict.fromkeys(claim for _, claim in claims) if claim not in CHECKED]
    if len(fresh) >= PARALLEL_MIN:
        with ProcessPoolExecutor(2) as pool:
            CHECKED.update(zip(fresh, pool.map(check, fresh, chunksize=100), strict=True))
    for where, claim in claims:
        if claim not in CHECKED:
            CHECKED[claim] = check(claim)
        if not CHECKED[claim]:
            return [f"{where} the signature does not hold"]
    return []


def share(total: int, weights: list[int]) -> list[int]:
    """10: largest remainder."""
    whole = sum(weights) or 1
    shares = [total * weight // whole for weight in weights]
    ranked = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in ranked[: total - sum(shares) if any(weights) else 0]:
        shares[i] += 1
    return shares


def differences(where: str, got: Any, wanted: Any, names: tuple[str, ...] = ()) -> list[str]:
    """One line per field in which two plain values differ; 1 and true differ."""
    if isinstance(got, dict) and isinstance(wanted, dict) and got.keys() == wanted.keys():
        return [text for key in wanted for text in differences(f"{where} {key}", got[key], wanted[key])]
    if isinstance(got, list) and isinstance(wanted, list) and len(got) == len(wanted):
        labelled = zip(names or range(len(got)), got, wanted, strict=False)
        return [text for name, one, other in labelled for text in differences(f"{where} {name}", one, other)]
    same = type(got) is type(wanted) and got == wanted
    return [] if same else [f"{where}: is {got!r:.90}, recomputed {wanted!r:.90}"]


class Chain:
    """Accounts of a chain and the money-relevant effect of its accepted transactions."""

    def __init__(self, audit: "Audit", number: int) -> None:
        self.audit, self.number, self.height, self.time_s = audit, number, 0, 0
        self.s: dict[str, Any] = {}
        self.signers: dict[bytes, Any] = {}
        self.rules = {rules.version: rules for rules in (named("RuleSet", decode(r)) for r in audit.genesis.rules)}
        self.active, self.sequences = audit.genesis.active_rules, dict.fromkeys(audit.validators, 0)
        for role in ("regulator", "grid", "aggregator"):
            self.open(role, getattr(audit.genesis, role), 0, 0)
        for node, public in enumerate(audit.validators[number]):
            self.open("validator", public, node, 0)

    def open(self, role: str, public: bytes, node: int, credit: int) -> Any:
        values = (id8(public), role, public, 0, 0, 0, 0, 0, 0, credit, self.number, node, False, False)
        account = self.signers[public] = named("Account", values)
        self.s[f"account/{account.id.hex()}"] = account
        return account

    def run(self, block: Any) -> None:
        """Execute a block's accepted transactions; a refused one counts its nonce."""
        self.height, self.time_s = block.header.height, block.header.time_s
        self.begin()
        for tx, code in zip(block.txs, block.codes, strict=True):
            self.audit.where = f"{block.where} {tx.kind} nonce {tx.nonce}:"
            signer = self.signers[tx.signer]
            signer.nonce += 1
            need(tx.nonce == signer.nonce, "not the signer's next nonce")
            if not code:
                role = "grid" if tx.kind == "SettlementAmount" and not self.number else ROLES.get(tx.kind, "user")
                if tx.kind == "SettlementAmount" and self.number:
                    role = "aggregator"
                need(signer.role == role, f"accepted from a {signer.role}")
                getattr(self, "do_" + tx.kind)(signer, *tx.fields)
        self.audit.where = block.where

    def begin(self) -> None:
        """What a block does before its first transaction."""

    def message(self, raw: bytes, source: int, target: int) -> Any:
        """A message of another chain, in sequence."""
        message = named("Message", decode(raw))
        key = source or target
        self.sequences[key] += 1
        wanted = (source, target, self.sequences[key])
        need((message.source, message.target, message.sequence) == wanted, "a message is not the next of its chain")
        return message

    def do_nothing(self, *_: Any) -> None:
        """Calls without an effect on money."""
