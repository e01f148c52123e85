"""The independent verifier: recomputes an exported run from its bytes and the regulator's public key.

Written from the documents (firmware/WIRE.md, station/CONSENSUS.md, station/CONTRACT.md, tools/README.md; bare numbers in
comments are sections of CONTRACT.md); it shares no code with the network. Cheap before dear, and nothing is computed
from bytes that an earlier step refuses: form, hashes, roots; signatures; accepted calls; state objects; statement.
It does not execute calls one by one: which calls are refused, which bids qualify and how near the optimum a matching
is, is what the certificates say. Everything that is owned, owed, metered or earned is computed anew, to the micro-unit.
"""

import json
import struct
import sys
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ecdsa
import msgspec

M = 1_000_000
NONE = bytes(32)
HALF_N = int(ecdsa.NIST256p.order) // 2
PROBLEMS_MAX = 50
LAYOUTS = """
Header version chain height previous term view time_s proposer tx_root receipt_root state_root outbox_root
 inbox_cursor rules_version tx_count
Account id role public nonce free_u escrow_u bond_u arrears_u points credit chain node suspended warned
Rules version credit_start credit_cap credit_reward credit_penalty credit_bar warn_below mode eps_ppm beta_ppm
 sigma_ppm gamma_u_per_ms price_cap_u_per_wh commit_deposit_u gap_ppm risk_u_per_wh rho_max_ppm sigma_max_ppm
 price_floor_ppm price_top_ppm block_points points_per_event excluded_classes break_even_ppm full_weight_wh fresh_s
Spec event kind slot_s slots required_ppm open_s commit_close_s reveal_close_s match_by_s confirm_close_s
 window_start_s meter_close_s settle_by_s alpha_u_per_wh x_ms y_ms budget_u units normal_price_u_per_wh
 compensation_price_u_per_wh profile_wh_per_mwh
Event event state open rules_version spec book_root rho_scaled pairs lambda_u_per_wh mean_price_u_per_wh
 incentives_done punish_done result_root reason
Pair event number offer bid seller buyer slot_wh limit_u_per_wh price_u_per_wh charge_u buyer_escrow_u seller_escrow_u
 buyer_bond_u seller_bond_u state paid_u
Row user side status sold_wh bought_wh quota_wh metered_wh outside_wh agreed_wh delivered_wh short_wh credit_before
 credit_after traded_u charge_u penalty_u arrears_u rp_u_per_wh notice points
Check version suite plug boot_id counter previous root first count time_s quality import_mwh export_mwh firmware
 calibration reason
"""
NAMES = {line.split()[0]: line.split()[1:] for line in LAYOUTS.strip().replace("\n ", " ").split("\n")}
CHECK, RECORD = ">BB8sII32s32sIHIBQQ32s32sB", ">B8sIIHBQQ6I3iBH"
ROLES = {
    **dict.fromkeys(("Enrol", "Rotate", "Revoke", "RuleSet"), "regulator"),
    **dict.fromkeys(("Deposit", "Initial", "PriceIncentives", "Punish", "Points", "SettlementAmount0"), "grid"),
    **dict.fromkeys(("Qualify", "Match", "SettlementCredit", "SettlementAmount"), "aggregator"),
    **dict.fromkeys(("Inbox", "Anchor"), "validator"),
}
"3: whose calls a chain may accept; all others are the households'."


class Wrong(Exception):
    """What contradicts the documents; the text becomes a problem."""


def need(held: object, text: str) -> None:
    """Raise Wrong unless the condition holds."""
    if not held:
        raise Wrong(text)


def named(name: str, values: Iterable[Any]) -> Any:
    """Plain values with the field names of a structure; `vars` gives them back in order."""
    return SimpleNamespace(**dict(zip(NAMES[name], values, strict=True)))


def plain(structure: Any) -> list[Any]:
    return list(vars(structure).values())


def encode(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


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


def check(claim: Claim) -> bool:
    """ECDSA P-256, SHA-256, low s only (WIRE.md W2.4)."""
    try:
        key = ecdsa.VerifyingKey.from_string(claim[0], curve=ecdsa.NIST256p, hashfunc=sha256)
        return int.from_bytes(claim[2][32:], "big") <= HALF_N and bool(key.verify(claim[2], claim[1]))
    except Exception:  # the package raises many kinds on crafted keys and signatures: all of them mean no
        return False


def share(total: int, weights: list[int]) -> list[int]:
    """10: largest remainder."""
    whole = sum(weights) or 1
    shares = [total * weight // whole for weight in weights]
    ranked = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in ranked[: total - sum(shares) if any(weights) else 0]:
        shares[i] += 1
    return shares


def differences(where: str, got: Any, wanted: Any, names: Any = None) -> list[str]:
    """One line per field in which two plain values differ; 1 and true differ."""
    if isinstance(got, dict) and isinstance(wanted, dict) and got.keys() == wanted.keys():
        return [text for key in wanted for text in differences(f"{where} {key}", got[key], wanted[key])]
    if isinstance(got, list) and isinstance(wanted, list) and len(got) == len(wanted):
        labelled = zip(names or range(len(got)), got, wanted, strict=False)
        return [text for name, one, other in labelled for text in differences(f"{where} {name}", one, other)]
    same = type(got) is type(wanted) and got == wanted
    return [] if same else [f"{where}: is {got!r:.90}, recomputed {wanted!r:.90}"]


class Audit:
    """One export: its files read and checked (load), then what they must come to (watt by watt: area)."""

    def __init__(self, folder: Path, regulator: bytes) -> None:
        self.regulator, self.where, self.problems = regulator, "manifest.json:", list[str]()
        self.files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        self.claims: list[tuple[str, Claim]] = []
        self.blocks: dict[int, list[Any]] = {}
        self.txs: dict[int, list[Any]] = {}
        self.state: dict[int, dict[str, Any]] = {}
        self.plugs: dict[bytes, Any] = {}
        self.records = 0

    def json(self, name: str) -> Any:
        self.where = name + ":"
        value = json.loads(self.files[name])
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
        need(text.encode() == self.files[name], "not canonical JSON")
        return value

    def parts(self, name: str) -> list[bytes]:
        """The items of a file, each behind its length."""
        self.where, found, at, data = name + ":", [], 0, self.files[name]
        while at < len(data):
            end = at + 4 + struct.unpack_from(">I", data, at)[0]
            found.append(data[at + 4 : end])
            at = end
        need(at == len(data), "ends inside an item")
        return found

    def load(self) -> None:
        """Form, hashes and roots of every file; signatures are collected."""
        hashes = {name: digest(data).hex() for name, data in self.files.items() if name != "manifest.json"}
        self.problems = differences("manifest.json", self.json("manifest.json"), {"format": 1, "sha256": hashes})
        self.stop()
        self.where = "genesis.bin:"
        body, signature = decode(self.files["genesis.bin"])
        self.genesis = decode(body)
        _, self.start_s, regulator, self.grid, self.aggregator, main, areas, rules, active, self.points = self.genesis
        need(regulator == self.regulator, "it is by another regulator")
        self.claims.append((self.where, (regulator, b"wattpact/1/genesis\0" + NONE + body, signature)))
        self.network = digest(body)
        self.validators = {0: [key for _, key in main], **{a[0]: [key for _, key in a[2]] for a in areas}}
        need(all(len(set(keys)) == len(keys) for keys in self.validators.values()), "a validator has two seats")
        names = {f"chain-{c}.{kind}" for c in self.validators for kind in ("blocks", "codes", "state")}
        self.where = "manifest.json:"
        need(hashes.keys() == names | {"genesis.bin", "leaves.bin", "statement.json"}, f"files are {sorted(hashes)}")
        for chain in self.validators:
            self.load_chain(chain)
            pairs = [decode(item) for item in self.parts(f"chain-{chain}.state")]
            self.state[chain] = {key.decode(): decode(value) for key, value in pairs}
            root = merkle(self.parts(f"chain-{chain}.state"))
            last = self.blocks[chain][-1].header.state_root if self.blocks[chain] else root
            need(root == last and len(self.state[chain]) == len(pairs), "not under the state root of the last block")
        self.load_leaves()

    def stop(self) -> None:
        if self.problems:
            raise Wrong("")

    def load_chain(self, chain: int) -> None:
        """Blocks from height 1 on: place, roots, certificate; transactions with their receipts' codes."""
        self.blocks[chain], self.txs[chain] = [], []
        codes, parts = self.parts(f"chain-{chain}.codes"), self.parts(f"chain-{chain}.blocks")
        need(len(codes) == len(parts), f"chain-{chain}.codes has {len(codes)} items for {len(parts)} blocks")
        previous, time_s, seats = self.network, self.start_s, len(self.validators[chain])
        for height, (raw, raw_codes) in enumerate(zip(parts, codes, strict=True), 1):
            place = self.where = f"chain-{chain}.blocks: height {height}:"
            block, certificate = decode(raw)
            raw_header, raws = decode(block)
            listed = decode(raw_header)
            header = named("Header", listed)
            txs = [self.transaction(chain, header, *pair) for pair in zip(raws, decode(raw_codes), strict=True)]
            self.where = place
            view, leader = header.view, (height + header.view) % seats
            receipts = merkle(encode([tx.id, tx.code]) for tx in txs)
            first = [
                1,
                chain,
                height,
                previous,
                (height - 1) // 64,
                view,
                header.time_s,
                leader,
                merkle(raws),
                receipts,
            ]
            for line in differences(place, listed, [*first, *listed[10:14], len(raws)], NAMES["Header"]):
                raise Wrong(line.removeprefix(place) + f" (or chain-{chain}.codes)" * ("receipt" in line))
            need(raws and header.time_s >= time_s, "time_s: time runs backwards")
            previous, time_s = self.certify(raw_header, decode(certificate)), header.time_s
            self.blocks[chain].append(SimpleNamespace(header=header, raw=raw_header, anchored=False, where=place))
            self.txs[chain] += txs

    def certify(self, raw_header: bytes, certificate: list[Any]) -> bytes:
        """Claim the q votes of a certificate; returns the hash of the block."""
        header, (view, votes) = named("Header", decode(raw_header)), certificate
        keys = self.validators[header.chain]
        seats = [seat for seat, _ in votes]
        quorum = (len(keys) + (len(keys) - 1) // 3 + 2) // 2
        need(view >= header.view and len(votes) == quorum, f"certificate: needs exactly {quorum} votes of its view")
        need(seats == sorted(set(seats)) and set(seats) <= set(range(len(keys))), "certificate: order of the votes")
        hash_ = digest(b"wattpact/1/header\0" + self.network + raw_header)
        vote = encode(["commit", header.chain, header.height, view, hash_])
        for seat, signature in votes:
            self.claims.append(
                (self.where + " certificate:", (keys[seat], b"wattpact/1/vote\0" + self.network + vote, signature))
            )
        return hash_

    def transaction(self, chain: int, header: Any, raw: bytes, code: str) -> Any:
        payload, signer, signature = decode(raw)
        kind, target, nonce, fields = msgspec.msgpack.decode(payload)
        where = self.where = f"chain-{chain}.blocks: height {header.height}: {kind!s:.32} nonce {nonce}:"
        need(target == chain and isinstance(code, str), "chain: signed for another chain")
        self.claims.append((where, (signer, b"wattpact/1/tx\0" + self.network + payload, signature)))
        tx = SimpleNamespace(
            kind=kind, nonce=nonce, fields=fields, signer=signer, code=code, header=header, where=where
        )
        tx.id, tx.me = digest(b"\0" + payload + signer), b""
        need(code or decode(payload), "")
        if not code and kind in ("Inbox", "Anchor"):
            self.certify(fields[0], decode(fields[1]))
        if not code and kind == "Enrol":
            for public, _, rated_w in fields[2]:
                plug = SimpleNamespace(public=public, owner=id8(fields[0]), rated_w=rated_w, checks=[])
                self.plugs[id8(public)] = plug
        if not code and kind == "Checkpoint":
            body = fields[0][:174]
            tx.check = named("Check", struct.unpack(CHECK, body))
            tx.check.hash, plug = digest(body), self.plugs[tx.check.plug]
            self.claims.append((where, (plug.public, b"wattpact/1/checkpoint\0" + body, fields[0][174:])))
            last = (
                plug.checks[-1]
                if plug.checks
                else SimpleNamespace(counter=0, hash=NONE, first=1, count=0, import_mwh=0, export_mwh=0)
            )
            self.follows(last, tx.check)
            plug.checks.append(tx.check)
        return tx

    def follows(self, last: Any, now: Any) -> None:
        """WIRE.md 4: a checkpoint against the one before of its plug."""
        need(now.version == now.suite == 1 and now.quality in b"UISR" and 1 <= now.reason <= 9, "checkpoint: a field")
        need(now.counter > last.counter, "checkpoint: counter")
        fell = now.import_mwh < last.import_mwh or now.export_mwh < last.export_mwh
        need(not fell or now.reason == 3, "checkpoint: a register fell")
        if now.counter == last.counter + 1:
            need(now.previous == last.hash, "checkpoint: previous")
            need(now.first == last.first + last.count, "checkpoint: first_sequence")

    def load_leaves(self) -> None:
        """Records under every accepted checkpoint: form, root, sequence, registers."""
        wanted = [check for key in sorted(self.plugs) for check in self.plugs[key].checks]
        items = self.parts("leaves.bin")
        need(len(items) == len(wanted), f"{len(items)} items for {len(wanted)} checkpoints")
        for item, check in zip(items, wanted, strict=True):
            self.where = f"leaves.bin: plug {check.plug.hex()} checkpoint {check.counter}:"
            plug, hash_, frames = decode(item)
            need((plug, hash_) == (check.plug, check.hash), "not the checkpoint that is next in order")
            need(len(frames) == check.count and merkle(frames) == check.root, "not the records under the Merkle root")
            last = (0, 0)
            for number, raw in enumerate(frames, check.first):
                version, name, sequence, _, duration, quality, *rest = struct.unpack(RECORD, raw)
                ordered = all(rest[i] <= rest[i + 1] <= rest[i + 2] for i in (2, 5, 8))
                need(
                    ordered and 0 < duration <= 900 and quality in b"UISR" and rest[11] < 3 and rest[12] < 128,
                    "a field",
                )
                need((version, name, sequence) == (1, plug, number), f"sequence {sequence} is not {number}")
                need(last[0] <= rest[0] and last[1] <= rest[1], "a register fell")
                last = (rest[0], rest[1])
            need(last[0] <= check.import_mwh and last[1] <= check.export_mwh, "a register fell")
            self.records += len(frames)

    def calls(self, chain: int, *kinds: str) -> list[Any]:
        return [tx for tx in self.txs[chain] if not tx.code and tx.kind in kinds]

    def open(self, chain: int) -> None:
        """Accounts of a chain; who signs, with which nonce, in which role (3)."""
        self.accounts: dict[bytes, Any] = {}
        owners: dict[bytes, Any] = {}

        def enter(role: str, public: bytes, node: int, credit: int) -> None:
            values = (id8(public), role, public, 0, 0, 0, 0, 0, 0, credit, chain, node, False, False)
            owners[public] = self.accounts[id8(public)] = named("Account", values)

        for role, public in zip(("regulator", "grid", "aggregator"), self.genesis[2:5], strict=True):
            enter(role, public, 0, 0)
        for node, public in enumerate(self.validators[chain]):
            enter("validator", public, node, 0)
        for tx in self.txs[chain]:
            self.where, account = tx.where, owners[tx.signer]
            tx.me, account.nonce = account.id, account.nonce + 1
            need(tx.nonce == account.nonce, "nonce: not the signer's next")
            if not tx.code:
                kind = tx.kind + "0" * (tx.kind == "SettlementAmount" and chain == 0)
                need(account.role == ROLES.get(kind, "user"), f"accepted from a {account.role}")
                if kind == "Enrol":
                    enter("user", *tx.fields[:2], self.rules[tx.header.rules_version].credit_start)
                elif kind == "Rotate":
                    owners[tx.fields[1]] = self.accounts[tx.fields[0]]
                    owners[tx.fields[1]].public = tx.fields[1]

    def other(self, raw: bytes) -> Any:
        """The block of this export with this header."""
        _, chain, height, *_ = decode(raw)
        block = self.blocks[chain][height - 1]
        need(block.raw == raw, f"names another block {height} of chain {chain} than chain-{chain}.blocks has")
        return block

    def message(self, data: bytes, source: int, target: int) -> tuple[str, int, list[Any]]:
        """Kind, event and rest of a message between chains, which must be the next (4)."""
        *way, kind, body = decode(data)
        self.sequence[source, target] = self.sequence.get((source, target), 0) + 1
        need(way == [source, target, self.sequence[source, target]], "a message is not the next of its chain")
        event, *rest = decode(body)
        return kind, event, rest

    def main(self) -> None:
        """Signals, matchings and prices; what areas reported is what their outbox roots hold (4, 11)."""
        self.events: dict[int, Any] = {}
        self.reports: dict[Any, Any] = {}
        self.sequence: dict[tuple[int, int], int] = {}
        self.rules = {raw[0]: named("Rules", raw) for raw in map(decode, self.genesis[7])}
        for tx in self.calls(0, "RuleSet"):
            self.rules[decode(tx.fields[0])[0]] = named("Rules", decode(tx.fields[0]))
        self.open(0)
        for tx in self.calls(0, "Initial", "Match", "Anchor", "SettlementAmount"):
            self.where, value = tx.where, tx.fields[0]
            if tx.kind == "Initial":
                spec, rules = named("Spec", value), self.rules[tx.header.rules_version]
                self.events[value[0]] = SimpleNamespace(spec=spec, raw=value, rules=rules, solution=[0, 0, [], 0, 0])
            elif tx.kind == "Match":
                self.events[value[0]].solution = value
            elif tx.kind == "Anchor":
                block = self.other(value)
                before = self.blocks[block.header.chain][: block.header.height - 1]
                need(not block.anchored and all(b.anchored for b in before[-1:]), "not the area's next block")
                need(merkle(tx.fields[2]) == block.header.outbox_root, "not all that the area's block sent")
                block.anchored = True
                for data in tx.fields[2]:
                    kind, event, rest = self.message(data, block.header.chain, 0)
                    self.reports[block.header.chain, kind, event] = rest
            else:
                self.price(value)
        for block in (block for chain in self.blocks if chain for block in self.blocks[chain]):
            need(
                block.anchored or block.header.outbox_root == merkle([]), f"{block.where} what it sent is not anchored"
            )

    def price(self, number: int) -> None:
        """11: lambda by order of merit over what the areas metered; the main chain's event agrees."""
        event, prices = self.events[number], [list[int](), list[int](), list[int]()]
        reports = [self.reports.get((part[0], "Metered", number)) for part in event.solution[2]]
        for t in range(event.spec.slots):
            units = sorted((cost, capacity[t]) for cost, capacity in event.spec.units)
            left = wanted = max(0, sum(report[0][t] - report[1][t] for report in reports if report))
            value, price = 0, min((cost for cost, capacity in units if capacity), default=units[-1][0])
            for cost, capacity in [*units, (units[-1][0], left)]:
                if (used := min(left, capacity)) > 0:
                    left, value, price = left - used, value + used * cost, cost
            for listed, item in zip(prices, (wanted, price, value), strict=True):
                listed.append(item)
        event.prices = prices
        got = self.state[0][f"event/{number}"]
        wanted_ = [*event.solution[1:2], *event.solution[3:], *prices]
        self.problems += differences(f"chain-0.state: event/{number}", got[5:], wanted_)

    def same(self, chain: int, key: str, wanted: Any, name: str = "") -> None:
        """Compare a state object with what it must be."""
        where, found = f"chain-{chain}.state: {key}", self.state[chain].get(key)
        self.problems += differences(where, found, wanted, NAMES.get(name))

    def area(self, chain: int) -> None:
        """Accounts, money, bids, registers and results of an area, from its accepted calls in their order."""
        self.open(chain)
        self.homes = {id8(tx.fields[0]): tx.fields for tx in self.calls(chain, "Enrol")}
        self.strength: dict[int, int] = {}
        grid, self.supply, issued = self.accounts[id8(self.genesis[3])], [0, 0], 0
        for event in self.events.values():
            event.bids, event.no, event.yes, event.rows, event.registers, event.open = {}, set(), set(), {}, {}, False
        for tx in self.calls(chain, *(kind for kind in {tx.kind for tx in self.txs[chain]})):
            self.where, me, first = tx.where, self.accounts[tx.me], tx.fields[0]
            event = self.events.get(first) if isinstance(first, int) else None
            if tx.kind == "Deposit":
                user, amount = self.accounts[first], tx.fields[1]
                owed = min(user.arrears_u, amount)
                user.arrears_u, user.free_u, grid.free_u = (
                    user.arrears_u - owed,
                    user.free_u + amount - owed,
                    grid.free_u + owed,
                )
                self.supply[0] += amount
            elif tx.kind == "Withdraw":
                me.free_u, self.supply[1] = me.free_u - first, self.supply[1] + first
            elif tx.kind == "Inbox":
                self.inbox(chain, *tx.fields)
            elif tx.kind == "Commit":
                event.bids[me.id] = [tx.fields[1], "", 0, []]
            elif tx.kind == "Reveal":
                need(digest(encode(tx.fields) + me.id) == event.bids[me.id][0], "does not open its commitment")
                event.bids[me.id][1:] = tx.fields[1:4]
            elif tx.kind == "Qualify":
                lost = [user for user, bid in event.bids.items() if not bid[1]]
                for user in lost:
                    self.accounts[user].free_u -= event.rules.commit_deposit_u
                grid.free_u += len(lost) * event.rules.commit_deposit_u
                self.book(chain, event)
            elif tx.kind in ("Confirm", "Confirmtransaction"):
                (event.yes if tx.fields[-1] else event.no).add((me.id, tx.fields[1] if tx.kind == "Confirm" else 0))
            elif tx.kind == "Checkpoint":
                for event in self.events.values():
                    self.register(tx, event)
            elif tx.kind == "SettlementCredit":
                self.credit(chain, event)
            elif tx.kind == "SettlementAmount":
                self.amount(event, grid)
            elif tx.kind == "PriceIncentives":
                self.incentives(chain, event)
            elif tx.kind == "Points":
                issued += self.close(chain, event)
        versions = [self.genesis[8], *(block.header.rules_version for block in self.blocks[chain])]
        made = self.genesis[9] + sum(self.rules[version].block_points for version in versions[:-1])
        self.same(chain, "pool", [made - issued, issued])
        self.same(chain, "supply", self.supply)
        for user, account in self.accounts.items():
            self.same(chain, f"account/{user.hex()}", plain(account), "Account")
        for prefix, count in (("account/", len(self.accounts)), ("user/", len(self.homes))):
            need(sum(key.startswith(prefix) for key in self.state[chain]) == count, f"more than {count} {prefix}")

    def inbox(self, chain: int, raw: bytes, _: bytes, size: int, entries: list[Any]) -> None:
        """4: messages are under the main chain's root, consecutive, and say what the main chain decided."""
        block = self.other(raw)
        for index, data, path in entries:
            need(climb(data, index, size, path) == block.header.outbox_root, "a message is not under the root")
            kind, first, rest = self.message(data, 0, chain)
            if kind in ("Match", "Prices"):
                event = self.events[first]
                slices = {part[0]: part for part in event.solution[2]}
                decided = (
                    [event.solution[1], slices[chain]] if kind == "Match" else [event.prices[i] for i in (1, 0, 2)]
                )
                self.problems += differences(self.where + " " + kind, rest, decided)
            elif kind == "Initial":
                need(first == self.events[first[0]].raw, "another signal than on the main chain")

    def book(self, chain: int, event: Any) -> None:
        """7: the book holds what was revealed, and the main chain has it."""
        number, state = event.spec.event, self.state[chain]
        book = event.book = state[f"book/{number}"]
        for kind, side in ((2, "sell"), (3, "buy")):
            for i, row in enumerate(book[kind]):
                need([side, *row[2:4]] == event.bids[row[1]][1:] and row[0] == i, "the book is not what was revealed")
                event.registers[row[1]] = []
        root = merkle(map(encode, book[2] + book[3]))
        self.problems += differences(self.where, self.reports.get((chain, "BookClosed", number)), [encode(book), root])
        for user in event.registers:
            _, _, plugs, *_ = self.homes[user]
            rows = [[id8(plug[0]), [-1] * (event.spec.slots + 1), [False] * event.spec.slots] for plug in plugs]
            event.registers[user] = [rows, [-1] * (event.spec.slots + 1)]
        event.open, event.seen = True, set()

    def register(self, tx: Any, event: Any) -> None:
        """9: registers at slot boundaries, and slots that a discontinuity breaks."""
        check, spec, timed = tx.check, event.spec, tx.check.quality != ord("U")
        plug = self.plugs[check.plug]
        at, rest = divmod(check.time_s - spec.window_start_s, spec.slot_s)
        boundary = timed and rest == 0 and 0 <= at <= spec.slots
        if not event.open or tx.me not in event.registers or not (boundary or check.reason == 3):
            return
        rows, whole = event.registers[tx.me]
        event.seen.add(tx.me)
        _, registers, broken = next(row for row in rows if row[0] == check.plug)
        if check.reason == 3:
            before = [c.time_s for c in plug.checks[: plug.checks.index(check)] if c.quality != ord("U")]
            until = check.time_s if timed else tx.header.time_s
            for t in range(spec.slots):
                start = spec.window_start_s + t * spec.slot_s
                broken[t] = broken[t] or (start < until and (before or [0])[-1] < start + spec.slot_s)
        if boundary:
            registers[at] = check.import_mwh if registers[at] == -1 else registers[at]
            whole[at] = tx.fields[1] if whole[at] == -1 else whole[at]

    def loads(self, event: Any, user: bytes) -> list[int]:
        """9: Wh per slot, -1 where it is not verified."""
        found = []
        for t in range(event.spec.slots):
            slot = 0
            for plug, values, broken in event.registers[user][0]:
                start, end = values[t], values[t + 1]
                most = 2 * self.plugs[plug].rated_w * event.spec.slot_s * 5
                if broken[t] or start == -1 or end < start or (end - start) * 18 > most or slot == -1:
                    slot = -1
                else:
                    slot += end // 1000 - start // 1000
            found.append(slot)
        return found

    def pairs(self, chain: int, event: Any) -> None:
        """8: pairs of the slice, at their terms, with what both sides answered."""
        spec, rules, number = event.spec, event.rules, event.spec.event
        _, _, offers, bids = event.book
        slices = {part[0]: part[1] for part in event.solution[2]}
        event.pairs = []
        for k, (o, b, slot_wh) in enumerate(slices[chain], 1):
            (_, seller, ask, _, credit), (_, buyer, limit, _, _) = offers[o], bids[b]
            risk = rules.risk_u_per_wh * (rules.credit_cap - min(credit, rules.credit_cap)) // rules.credit_cap
            prices = [(limit + ask + risk + alpha) // 2 for alpha in spec.alpha_u_per_wh]
            need(all(ask <= price <= limit for price, wh in zip(prices, slot_wh, strict=True) if wh), "price of a pair")
            agreed = {(seller, k), (buyer, k)} <= event.yes and not {
                (seller, k),
                (buyer, k),
                (seller, 0),
                (buyer, 0),
            } & event.no
            charge = rules.gamma_u_per_ms * 2 * spec.x_ms
            end = "CONFIRMED" if agreed else "DROPPED"
            values = (number, k, o, b, seller, buyer, slot_wh, limit, prices, charge, 0, 0, 0, 0, end, 0)
            event.pairs.append(named("Pair", values))
        for rows, at in ((offers, 0), (bids, 1)):
            for row in rows:
                for t, most in enumerate(row[3]):
                    need(sum(a[2][t] for a in slices[chain] if a[at] == row[0]) <= most, "more energy than was offered")

    def credit(self, chain: int, event: Any) -> None:
        """10: quota, load, delivery, credit of every user with a confirmed pair; what the main chain was told."""
        self.pairs(chain, event)
        event.open, rules, spec = False, event.rules, event.spec
        event.live = [pair for pair in event.pairs if pair.state == "CONFIRMED"]
        over, under, zero = [0] * spec.slots, [0] * spec.slots, [0] * spec.slots
        for user in sorted({user for pair in event.live for user in (pair.seller, pair.buyer)}):
            mine = [pair for pair in event.live if user in (pair.seller, pair.buyer)]
            sells, load = mine[0].seller == user, self.loads(event, user)
            base = [wh * self.homes[user][4] // 1000 for wh in spec.profile_wh_per_mwh]
            quota = [wh * (M - spec.required_ppm) // M for wh in base]
            agreed = [sum(pair.slot_wh[t] for pair in mine) for t in range(spec.slots)]
            allowed = [q - a if sells else q + a for q, a in zip(quota, agreed, strict=True)]
            delta = [used - may for used, may in zip(load, allowed, strict=True)]
            total, saved, net, short = sum(agreed), sum(quota) - sum(load), sum(delta), zero
            status, delivered = "breached", max(0, saved if sells else total - abs(net))
            cells = [wh for pair in mine for wh in pair.slot_wh]
            if -1 in load:
                status, delivered = "unverified", 0
            elif saved * M >= (M - rules.eps_ppm) * total if sells else abs(net) * M <= rules.eps_ppm * sum(allowed):
                status, delivered = "performed", total
            elif sells:
                lacks = [wh - part for wh, part in zip(cells, share(delivered, cells), strict=True)]
                short = [sum(lacks[t :: spec.slots]) for t in range(spec.slots)]
            else:
                short = share(abs(net), [max(0, d if net > 0 else -d) for d in delta])
            event.cells = {**getattr(event, "cells", {}), **({user: share(delivered, cells)} if sells else {})}
            account, outside = self.accounts[user], -1
            before, change = account.credit, 0
            if status != "unverified":
                over = [o + max(0, d) for o, d in zip(over, delta, strict=True)]
                under = [u + max(0, -d) for u, d in zip(under, delta, strict=True)]
                whole = event.registers[user][1]
                if -1 not in (whole[0], whole[-1]):
                    outside = max(0, whole[-1] // 1000 - whole[0] // 1000 - sum(load))
                change = rules.credit_reward if status == "performed" else -rules.credit_penalty
                if rules.mode == "energy":
                    gain = (
                        rules.credit_reward
                        * min(total, rules.full_weight_wh)
                        * (M * delivered // total - rules.break_even_ppm)
                    )
                    change = max(gain // (rules.full_weight_wh * (M - rules.break_even_ppm)), -rules.credit_penalty)
            account.credit = min(max(before + change, 0), rules.credit_cap)
            sold, bought = (agreed, zero) if sells else (zero, agreed)
            values = (
                user,
                "sell" if sells else "buy",
                status,
                sold,
                bought,
                quota,
                load,
                outside,
                total,
                delivered,
                short,
            )
            event.rows[user] = named("Row", (*values, before, account.credit, 0, 0, 0, 0, 0, "none", 0))
        told = self.reports.get((chain, "Metered", spec.event))
        self.problems += differences(f"{self.where} Metered", told, [over, under])

    def amount(self, event: Any, grid: Any) -> None:
        """11: payments, charges, penalties."""
        prices, rules, slots = event.prices[1], event.rules, event.spec.slots
        taken = dict.fromkeys(event.rows, 0)
        for pair in event.live:
            seller, buyer = event.rows[pair.seller], event.rows[pair.buyer]
            pair.state = "RETURNED" if seller.status == "unverified" else "SETTLED"
            at, taken[seller.user] = taken[seller.user], taken[seller.user] + slots
            if pair.state == "SETTLED":
                cells = event.cells[seller.user][at : at + slots]
                pair.paid_u = sum(price * wh for price, wh in zip(pair.price_u_per_wh, cells, strict=True))
                seller.traded_u, buyer.traded_u = seller.traded_u + pair.paid_u, buyer.traded_u - pair.paid_u
                seller.charge_u, buyer.charge_u = (
                    seller.charge_u + pair.charge_u // 2,
                    buyer.charge_u + (pair.charge_u + 1) // 2,
                )
        for row in event.rows.values():
            account = self.accounts[row.user]
            account.free_u += row.traded_u - row.charge_u
            under = row.side == "buy" and sum(row.metered_wh) < sum(row.quota_wh) + sum(row.bought_wh)
            rate = rules.sigma_ppm if under else M + rules.beta_ppm
            owed = rate * sum(p * s for p, s in zip(prices, row.short_wh, strict=True)) // M
            row.penalty_u = min(owed, account.free_u)
            row.arrears_u = owed - row.penalty_u
            account.free_u, account.arrears_u = account.free_u - row.penalty_u, account.arrears_u + row.arrears_u
            grid.free_u += row.charge_u + row.penalty_u
        traded = [sum(pair.slot_wh[t] for pair in event.live) for t in range(slots)]
        traded = traded if any(traded) else [1] * slots
        event.mean = (M + rules.beta_ppm) * sum(p * w for p, w in zip(prices, traded, strict=True)) // (M * sum(traded))

    def incentives(self, chain: int, event: Any) -> None:
        """12: RP, warnings and lost market rights (Punish follows in the same stage)."""
        rules, normal = event.rules, event.spec.normal_price_u_per_wh
        for row in event.rows.values():
            span, credit = rules.credit_cap - rules.credit_bar, row.credit_after
            phi = min(max(credit - rules.credit_bar, 0), span) * M // span if span else M * (credit >= rules.credit_cap)
            if row.status == "performed":
                low = min(normal * rules.price_floor_ppm // M, normal)
                row.rp_u_per_wh = max(low, normal - rules.rho_max_ppm * phi * event.mean // (M * M))
            elif row.status == "breached":
                high = max(normal * rules.price_top_ppm // M, normal)
                row.rp_u_per_wh = min(high, normal + rules.sigma_max_ppm * (2 * M - phi) * event.mean // (2 * M * M))
            if row.status != "unverified":
                until = event.spec.settle_by_s + 30 * 86_400
                self.same(chain, f"rp/{row.user.hex()}", [event.spec.event, row.rp_u_per_wh, until, 10 * row.agreed_wh])
            warned = "warned" if credit < rules.warn_below else "none"
            row.notice = "suspended" if credit < rules.credit_bar else warned
            account = self.accounts[row.user]
            account.suspended, account.warned = account.suspended or row.notice == "suspended", row.notice == "warned"

    def close(self, chain: int, event: Any) -> int:
        """13: strength, points, result root; the event's objects as they must be. Returns the points issued."""
        number, rows, node = event.spec.event, list(event.rows.values()), {u: a.node for u, a in self.accounts.items()}
        for k in range(len(self.validators[chain])):
            ours = [row for row in rows if node[row.user] == k]
            sides = [pair for pair in event.pairs for user in (pair.seller, pair.buyer) if node[user] == k]
            parts = (
                (600_000, sum(row.delivered_wh for row in ours), sum(row.agreed_wh for row in ours)),
                (
                    200_000,
                    sum(bool(bid[1]) for user, bid in event.bids.items() if node[user] == k),
                    sum(node[u] == k for u in self.homes),
                ),
                (200_000, sum(pair.state != "DROPPED" for pair in sides), len(sides)),
            )
            now = sum(weight * part // whole for weight, part, whole in parts if whole)
            self.strength[k] = (3 * self.strength[k] + now) // 4 if k in self.strength else now
            self.same(chain, f"strength/{k}", [number, self.strength[k]])
        weights = [row.credit_after * self.strength[node[row.user]] * (row.status == "performed") for row in rows]
        for row, points in zip(rows, share(event.rules.points_per_event, weights), strict=True):
            row.points = points
            self.accounts[row.user].points += points
            self.same(chain, f"result/{number}/{row.user.hex()}", plain(row), "Row")
            self.same(chain, f"register/{number}/{row.user.hex()}", event.registers[row.user])
        for pair in event.pairs:
            self.same(chain, f"pair/{number}/{pair.number}", plain(pair), "Pair")
        root = merkle(encode(plain(one)) for one in (*rows, *event.pairs))
        self.same(chain, f"result/{number}", [list(event.rows), root])
        book_root = merkle(map(encode, event.book[2] + event.book[3]))
        values = [
            number,
            "CLOSED",
            False,
            event.rules.version,
            event.raw,
            book_root,
            event.solution[1],
            len(event.pairs),
        ]
        self.same(chain, f"event/{number}", [*values, event.prices[1], event.mean, True, True, root, ""], "Event")
        self.problems += differences(
            f"{self.where} EventClosed", self.reports.get((chain, "EventClosed", number)), [root]
        )
        return sum(row.points for row in rows)

    def statement(self) -> None:
        """The statement is what the state objects, now known to be right, say."""
        stated = self.json("statement.json")
        number = stated["event"]
        event, areas = self.state[0].get(f"event/{number}"), [chain for chain in self.blocks if chain]
        need(event and event[1] == "CLOSED", f"event {number} is not CLOSED")
        made: dict[str, Any] = {"format": 1, "network": self.network.hex(), "event": number, "event_state": "CLOSED"}
        made.update(chains={}, prices={"need_wh": event[8], "lambda_u_per_wh": event[9]}, homes=[], pairs=[], totals={})
        for chain, blocks in self.blocks.items():
            last = digest(b"wattpact/1/header\0" + self.network + blocks[-1].raw) if blocks else self.network
            made["chains"][str(chain)] = {"height": len(blocks), "hash": last.hex()}
        for chain in areas:
            state = self.state[chain]
            parties = [named("Account", value) for key, value in sorted(state.items()) if key.startswith("account/")]
            for party in (party for party in parties if party.role == "user"):
                row = state.get(f"result/{number}/{party.id.hex()}")
                home = {name: getattr(party, name) for name in ("free_u", "escrow_u", "bond_u", "arrears_u", "credit")}
                home.update(chain=chain, user=party.id.hex(), points=party.points, suspended=party.suspended)
                left_out = ("user", "outside_wh")
                bill = {name: v for name, v in zip(NAMES["Row"], row or [], strict=False) if name not in left_out}
                made["homes"].append({**home, "event": bill if row else None})
            for k in range(1, state.get(f"event/{number}", [0] * 8)[7] + 1):
                pair = named("Pair", state[f"pair/{number}/{k}"])
                listed = {
                    name: getattr(pair, name)
                    for name in ("number", "slot_wh", "price_u_per_wh", "charge_u", "paid_u", "state")
                }
                made["pairs"].append({**listed, "chain": chain, "seller": pair.seller.hex(), "buyer": pair.buyer.hex()})
            money = {
                users: sum(p.free_u + p.escrow_u + p.bond_u for p in parties if (p.role == "user") == users)
                for users in (True, False)
            }
            (deposited, withdrawn), (_, issued) = state["supply"], state["pool"]
            total = {"deposited_u": deposited, "withdrawn_u": withdrawn, "points_issued": issued}
            made["totals"][str(chain)] = {**total, "users_u": money[True], "offices_u": money[False]}
            need(sum(money.values()) == deposited - withdrawn, f"money of chain {chain} is not conserved")
        self.problems += differences("statement.json", stated, made)

    def run(self) -> list[str]:
        """All steps; the problems of the first step that has some."""
        try:
            self.load()
            for where, claim in self.claims:
                if claim not in CHECKED:
                    CHECKED[claim] = check(claim)
                if not CHECKED[claim]:
                    self.where = where
                    raise Wrong("the signature does not hold")
            self.main()
            for chain in self.blocks:
                if chain:
                    self.area(chain)
            self.stop()
            self.statement()
        except Wrong as wrong:
            if str(wrong):
                self.problems.append(f"{self.where} {wrong}")
        except Exception as error:  # crafted bytes may break any assumption above: that is a problem, not a crash
            self.problems.append(f"{self.where} {type(error).__name__}: {error!s:.200}")
        return self.problems[:PROBLEMS_MAX]


def verify(export: Path, regulator: bytes) -> list[str]:
    """The problems of an export, [] when everything holds. Never raises on any bytes."""
    try:
        return Audit(export, regulator).run()
    except OSError as error:
        return [f"{export}: {error}"]


def main(folder: Path, regulator_hex: str | None, *, as_json: bool) -> int:
    """`wattpact verify DIR`: 0 only when everything holds."""
    try:
        text = regulator_hex or (folder / "trust" / "regulator.pub").read_text()
        audit = Audit(folder / "export", bytes.fromhex(text.strip()))
    except (OSError, ValueError) as error:
        print(f"wattpact verify: {error}", file=sys.stderr)
        return 1
    problems = audit.run()
    txs = [tx for listed in audit.txs.values() for tx in listed]
    counts = {
        "signatures": len({claim for _, claim in audit.claims}),
        "certificates": sum(map(len, audit.blocks.values())),
        "blocks": sum(map(len, audit.blocks.values())),
        "transactions": len(txs),
        "checkpoints": sum(len(plug.checks) for plug in audit.plugs.values()),
        "records": audit.records,
        "bills": sum(tx.kind == "Enrol" for tx in txs),
        "micro-units": sum(tx.fields[1] for tx in txs if tx.kind == "Deposit" and not tx.code),
    }
    if as_json:
        print(json.dumps({"holds": not problems, "checked": counts, "problems": problems}, indent=1))
    else:
        print("\n".join(f"{count:>15,} {name}" for name, count in counts.items()))
        print("\n".join(problems) or "everything holds")
    return 1 if problems else 0
