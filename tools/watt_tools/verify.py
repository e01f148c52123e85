"""The independent verifier: recomputes an exported run from its bytes and the regulator's public key.

From WIRE.md, CONSENSUS.md, CONTRACT.md (a bare number: its section) and tools/README.md; no code of the network. From
the certificates: refusals, qualification, quotas from history, prices of other rules than k-double, gaps, arrears."""

import json
import struct
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace as Space
from typing import Any

import ecdsa
import msgspec

from watt_tools.crossing import Crossing
from watt_tools.leaders import problems as wrong_leaders
from watt_tools.leaders import respond
from watt_tools.lists import Lists, need
from watt_tools.stated import statement_of
from watt_tools.structures import NAMES
from watt_tools.verdict import main as main

M, HALF_N = 1_000_000, int(ecdsa.NIST256p.order) // 2
CHECKED: dict[tuple[bytes, bytes, bytes], bool] = {}  # public key, message, signature: each is computed once
encode = msgspec.msgpack.encode


def named(name: str, values: Any) -> Any:
    return Space(**dict(zip(NAMES[name], values, strict=True)))


def decode(data: bytes) -> Any:  # The value, if `data` is its one spelling
    value = msgspec.msgpack.decode(data)
    need(encode(value) == data, "not the canonical encoding")
    return value


def digest(data: bytes) -> bytes:
    return sha256(data).digest()


def merkle(items: Any) -> bytes:  # RFC 9162 root
    nodes = [digest(b"\0" + item) for item in items] or [digest(b"")]
    while len(nodes) > 1:
        even = len(nodes) & ~1
        nodes = [digest(b"\1" + nodes[i] + nodes[i + 1]) for i in range(0, even, 2)] + nodes[even:]
    return nodes[0]


def climb(at: bytes, index: int, size: int, path: list[bytes]) -> bytes:  # RFC 9162 2.1.3: where a path leads
    if size == 1:
        return b"" if path else at
    half = 1 << ((size - 1).bit_length() - 1)
    if index < half:
        return digest(b"\1" + climb(at, index, half, path[:-1]) + path[-1])
    return digest(b"\1" + path[-1] + climb(at, index - half, size - half, path[:-1]))


def check(claim: tuple[bytes, bytes, bytes]) -> bool:  # ECDSA P-256, SHA-256, low s only (WIRE.md W2.4)
    try:
        key = ecdsa.VerifyingKey.from_string(claim[0], curve=ecdsa.NIST256p, hashfunc=sha256)
        return int.from_bytes(claim[2][32:], "big") <= HALF_N and bool(key.verify(claim[2], claim[1]))
    except Exception:  # the package raises many kinds on crafted keys and signatures: all of them mean no
        return False


def share(total: int, weights: list[int]) -> list[int]:  # 10: largest remainder
    whole = sum(weights) or 1
    shares = [total * weight // whole for weight in weights]
    ranked = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in ranked[: total - sum(shares) if any(weights) else 0]:
        shares[i] += 1
    return shares


def differences(where: str, got: Any, wanted: Any, names: Any = None) -> list[str]:  # 1 and true differ
    if isinstance(got, dict) and isinstance(wanted, dict) and got.keys() == wanted.keys():
        names, got, wanted = list(wanted), [got[name] for name in wanted], list(wanted.values())
    if isinstance(got, list) and isinstance(wanted, list) and len(got) == len(wanted):
        rows = zip(names or range(len(got)), got, wanted, strict=False)
        return [line for name, one, other in rows for line in differences(f"{where} {name}", one, other)]
    same = type(got) is type(wanted) and got == wanted
    return [] if same else [f"{where}: is {got!r:.90}, recomputed {wanted!r:.90}"]


class Audit:  # one export: `load` checks form, hashes, roots and collects signatures; the rest must come out
    def __init__(self) -> None:
        self.where, self.problems, self.files = "manifest.json:", list[str](), dict[str, bytes]()
        self.claims = list[tuple[str, tuple[bytes, bytes, bytes]]]()
        self.across = Crossing(self)
        self.blocks, self.calls, self.state, self.parties = (dict[int, Any]() for _ in range(4))
        self.plugs, self.events, self.reports, self.sequence, self.raws = (dict[Any, Any]() for _ in range(5))
        self.settled = dict[tuple[int, int], dict[int, int]]()  # chain, height of Points: strength by node

    def json(self, name: str) -> Any:
        self.where, value = name + ":", json.loads(self.files[name])
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
        need(text.encode() == self.files[name], "not canonical JSON")
        return value

    def parts(self, name: str) -> list[bytes]:
        self.where, found, at, data = name + ":", [], 0, self.files[name]
        while at < len(data):
            found.append(data[at + 4 : at + 4 + struct.unpack_from(">I", data, at)[0]])
            at += 4 + len(found[-1])
        need(b"".join(struct.pack(">I", len(one)) + one for one in found) == data, "ends inside an item")
        return found

    def load(self, regulator: bytes) -> None:  # every file in its one spelling: CONSENSUS.md 2, 3; WIRE.md
        self.where = "genesis.bin:"
        body, signature = decode(self.files["genesis.bin"])
        self.genesis, self.network = decode(body), digest(body)
        main, areas, rules, self.active, self.points = self.genesis[5:]
        need(self.genesis[2] == regulator, "it is by another regulator")
        self.claims.append((self.where, (regulator, b"wattpact/1/genesis\0" + bytes(32) + body, signature)))
        self.rules = {raw[0]: named("Rules", raw) for raw in map(decode, rules)}
        self.lists = Lists({0: main, **{chain: listed for chain, _, listed in areas}})
        names = {f"chain-{chain}.{kind}" for chain in self.lists.founders for kind in ("blocks", "codes", "state")}
        names |= {"genesis.bin", "leaves.bin", "manifest.json", "statement.json"}
        need(self.files.keys() == names, f"the files should be {sorted(names)}")
        for chain in self.lists.founders:
            self.blocks[chain], self.calls[chain], self.parties[chain] = [], [], {}
            keys = self.genesis[2:5] + self.lists.founders[chain]
            roles = ["regulator", "grid", "aggregator"] + ["validator"] * (len(keys) - 3)
            for seat, (role, public) in enumerate(zip(roles, keys, strict=True), -3):
                self.enter(chain, role, public, max(0, seat), 0)
            codes, parts = self.parts(f"chain-{chain}.codes"), self.parts(f"chain-{chain}.blocks")
            previous, time_s = self.network, self.genesis[1]
            for height, (raw, raw_codes) in enumerate(zip(parts, map(decode, codes), strict=True), 1):
                place = self.where = f"chain-{chain}.blocks: height {height}:"
                (raw_header, raws), certificate = map(decode, decode(raw))
                listed = decode(raw_header)
                header, calls = named("Header", listed), zip(raws, raw_codes, strict=True)
                receipts = [encode([self.transaction(chain, header, data, code), code]) for data, code in calls]
                self.where, view = place, header.view
                made = [2, chain, height, previous, (height - 1) // 64, view, header.time_s, header.proposer]
                made += [merkle(raws), merkle(receipts), *listed[10:14], len(raws)]
                made.append(self.lists.hash(chain, height, raws))
                for line in differences("", listed, made, NAMES["Header"]):
                    raise ValueError(line.strip() + f", by chain-{chain}.codes too" * (listed[9] != made[9]))
                need(raws and header.time_s >= time_s, "time_s: time runs backwards")
                previous, time_s = self.certify(raw_header, certificate), header.time_s
                block = self.raws[raw_header] = Space(header=header, hash=previous, anchored=not chain, where=place)
                self.blocks[chain].append(block)
            items = self.parts(f"chain-{chain}.state")
            self.state[chain] = {key.decode(): decode(value) for key, value in map(decode, items)}
            good = not self.blocks[chain] or merkle(items) == self.blocks[chain][-1].header.state_root
            need(good and len(self.state[chain]) == len(items), "not under the state root of the last block")
        wanted = [check for _, plug in sorted(self.plugs.items()) for check in plug.checks]
        items, last = self.parts("leaves.bin"), Space(plug=b"", counter=0, first=0, count=0)
        need(len(items) == len(wanted), f"{len(items)} items for {len(wanted)} checkpoints")
        for item, check in zip(items, wanted, strict=True):
            self.where = f"leaves.bin: plug {check.plug.hex()} checkpoint {check.counter}:"
            plug, hash_, frames = decode(item)
            need((plug, hash_) == (check.plug, check.hash), "not the checkpoint that is next in order")
            need(len(frames) == check.count and merkle(frames) == check.root, "not the records under the Merkle root")
            apart = (last.plug, last.counter + 1) != (plug, check.counter)  # WIRE.md 4.4
            need(apart or check.first == last.first + last.count, "records are missing before it")
            rows = [struct.unpack(">B8sIIHBQQ6I3iBH", frame) for frame in frames]
            numbers = [(1, plug, number) for number in range(check.first, check.first + check.count)]
            need([row[:3] for row in rows] == numbers, "version, plug or sequence of a record")
            steps = [*(row[6:8] for row in rows), (check.import_mwh, check.export_mwh)]
            need(all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(steps)), "a register fell")
            last = check

    def enter(self, chain: int, role: str, public: bytes, node: int, credit: int) -> None:
        values = (digest(public)[:8], role, public, 0, 0, 0, 0, 0, 0, credit, chain, node, False, False)
        self.parties[chain][public] = named("Account", values)

    def certify(self, raw: bytes, certificate: list[Any]) -> bytes:  # claims q votes; the hash of the block
        header, hash_ = named("Header", decode(raw)), digest(b"wattpact/1/header\0" + self.network + raw)
        (view, votes), keys = certificate, self.lists.keys(header.chain, header.height)
        order = [seat for seat, _ in votes]
        quorum = (len(keys) + (len(keys) - 1) // 3 + 2) // 2
        need(view >= header.view and len(votes) == quorum, f"certificate: not {quorum} votes of a view from its own on")
        need(order == sorted({*order} & {*range(len(keys))}), "certificate: order of the votes")
        for seat, signature in votes:
            vote = encode(["commit", header.chain, header.height, view, hash_])
            self.claims.append((self.where, (keys[seat], b"wattpact/1/vote\0" + self.network + vote, signature)))
        return hash_

    def transaction(self, chain: int, header: Any, raw: bytes, code: str) -> bytes:  # form and nonce; its id
        payload, signer, signature = decode(raw)
        kind, target, nonce, fields = msgspec.msgpack.decode(payload, type=tuple[str, int, int, msgspec.Raw])
        self.where = f"chain-{chain}.blocks: height {header.height}: {kind:.32} nonce {nonce}:"
        need(target == chain and encode([kind, target, nonce, fields]) == payload, "chain, or not canonical")
        self.claims.append((self.where, (signer, b"wattpact/1/tx\0" + self.network + payload, signature)))
        me = self.parties[chain].get(signer)
        need(me and nonce == me.nonce + 1, "nobody known has signed it, or not with its next nonce")
        me.nonce += 1
        inner = [] if code else decode(bytes(fields))[0] if kind == "Batch" else [[kind, decode(bytes(fields))]]
        for kind, listed in inner:  # a batch is its calls, in order
            call = Space(kind=kind, fields=listed, me=me, header=header, where=self.where)
            self.calls[chain].append(call)
            if kind in ("Inbox", "Anchor", "Refute", "Fork"):
                shown = call.fields if kind == "Fork" else [call.fields[:2]]
                call.hashes = {self.certify(raw_header, decode(votes)) for raw_header, votes in shown}
            elif kind == "Enrol":
                public, node, plugs, *_ = call.fields
                self.enter(chain, "user", public, node, self.rules[header.rules_version].credit_start)
                for key, _, rated_w in plugs:
                    party = self.parties[chain][public]
                    self.plugs[digest(key)[:8]] = Space(key=key, owner=party, rated_w=rated_w, checks=[])
            elif kind == "Rotate":
                owner = next(party for party in self.parties[chain].values() if party.id == call.fields[0])
                self.parties[chain][call.fields[1]], owner.public = owner, call.fields[1]
            elif kind == "RuleSet":
                self.rules[decode(call.fields[0])[0]] = named("Rules", decode(call.fields[0]))
            elif kind == "Checkpoint":
                body = call.fields[0][:174]
                now = call.check = named("Check", struct.unpack(">BB8sII32s32sIHIBQQ32s32sB", body))
                now.hash, plug = digest(body), self.plugs[now.plug]
                self.claims.append((self.where, (plug.key, b"wattpact/1/checkpoint\0" + body, call.fields[0][174:])))
                last = plug.checks[-1] if plug.checks else Space(counter=0, hash=bytes(32), import_mwh=0, export_mwh=0)
                follows = now.counter > last.counter and (now.counter > last.counter + 1 or now.previous == last.hash)
                fell = now.import_mwh < last.import_mwh or now.export_mwh < last.export_mwh
                need(plug.owner is me and now.version == now.suite == 1, "another household's plug, or its version")
                need(follows and not (fell and now.reason != 3), "counter, previous or a register does not follow")
                plug.checks.append(now)
            self.lists.take(self, chain, call, raw)
        return digest(b"\0" + payload + signer)

    def message(self, data: bytes, source: int, reader: int) -> tuple[Any, ...]:  # 4: it must be the next; chain 0
        *way, kind, body = decode(data)  # reads all that an area sends
        last = self.sequence[source, way[1], reader] = self.sequence.get((source, way[1], reader), 0) + 1
        need(way == [source, way[1], last] and reader in (0, way[1]), "a message is not the next of its chain")
        return kind, *decode(body)

    def main_chain(self) -> None:  # signals, matchings, prices; areas report all that is under their outbox roots (4)
        self.chain = 0
        for call in self.calls[0]:
            self.where, value, sent = call.where, call.fields[0], list[Any]()
            if call.kind == "Initial":
                need(self.state[0][f"event/{value[0]}"][1] in ("CLOSED", "ABORTED"), f"event {value[0]} is not over")
                rules = self.rules[call.header.rules_version]
                self.events[value[0]] = Space(spec=named("Spec", value), rules=rules, slices={}, prices=[[], [], []])
            elif call.kind == "Match":
                self.events[value[0]].slices = {part[0]: part[1] for part in value[2]}
                self.across.match(value[0], value[5])
            elif call.kind == "Anchor":
                block: Any = self.raws.get(value)
                need(block and not block.anchored, "not a block of this export, or for the second time")
                need(merkle(call.fields[2]) == block.header.outbox_root, "not all that the area's block sent")
                block.anchored = True
                for data in call.fields[2]:
                    kind, number, *rest = self.message(data, block.header.chain, 0)
                    self.reports[block.header.chain, kind, number] = rest
                    sent.append([block.header.chain, decode(data)[1], kind, number, *rest])
            elif call.kind == "SettlementAmount":
                event = self.events[value]
                for t in range(event.spec.slots):  # 11: lambda by order of merit
                    metered = [self.reports.get((chain, "Metered", value)) for chain in event.slices]
                    units = sorted((cost, capacity[t]) for cost, capacity in event.spec.units)
                    left = wanted = max(0, sum(one[0][t] - one[1][t] for one in metered if one))
                    spent, price = 0, min((cost for cost, capacity in units if capacity), default=units[-1][0])
                    for cost, capacity in [*units, (units[-1][0], left)]:
                        if (used := min(left, capacity)) > 0:
                            left, spent, price = left - used, spent + used * cost, cost
                    for listed, item in zip(event.prices, (wanted, price, spent), strict=True):
                        listed.append(item)
                self.same(f"event/{value}", [*self.state[0][f"event/{value}"][:8], *event.prices])
            self.across.main(call, sent)
        for block in self.raws.values():
            self.where = block.where
            barred = self.across.position(block.header.chain).quarantine  # 17.7
            need(block.anchored or barred or block.header.outbox_root == merkle([]), "what it sent is not anchored")
        self.across.close()

    def same(self, key: str, wanted: Any, name: str = "") -> None:
        found = self.state[self.chain].get(key)
        self.problems += differences(f"chain-{self.chain}.state: {key}", found, wanted, NAMES.get(name))

    def of(self, kind: str, number: int | None = None) -> list[Any]:
        return [call for call in self.calls[self.chain] if call.kind == kind and number in (None, call.fields[0])]

    def area(self, chain: int) -> None:  # Money, credit and points of an area; its events in their order
        self.chain, self.strength, self.issued, self.standing = chain, dict[int, int](), 0, dict[bytes, Any]()
        self.users, self.grid = {p.id: p for p in self.parties[chain].values()}, self.parties[chain][self.genesis[3]]
        self.homes = {digest(call.fields[0])[:8]: call.fields for call in self.of("Enrol")}
        for call in self.of("Inbox"):
            self.where, call.taken = call.where, list[Any]()
            block: Any = self.raws.get(call.fields[0])
            need(block, "not a block of this export")
            for index, data, path in call.fields[3]:
                root = climb(digest(b"\0" + data), index, call.fields[2], path)
                need(root == block.header.outbox_root, "a message is not under its root on its chain")
                call.taken.append([block.header.chain, *self.message(data, block.header.chain, chain)])
        ways = [(self.users[call.fields[0]], call.fields[1]) for call in self.of("Deposit")]
        ways += [(call.me, -call.fields[0]) for call in self.of("Withdraw")]
        self.same("supply", [sum(max(0, sign * u) for _, u in ways) for sign in (1, -1)])
        for number, event in self.events.items():
            event.opened = {call.me.id: call.fields for call in self.of("Reveal", number)}
            for call in self.of("Commit", number):
                self.where, opening = call.where, event.opened.get(call.me.id)
                need(not opening or digest(encode(opening) + call.me.id) == call.fields[1], "not its opening")
                if not opening and self.of("Qualify", number):
                    ways += [(call.me, -event.rules.commit_deposit_u), (self.grid, event.rules.commit_deposit_u)]
        for party, amount_u in ways:
            party.free_u += amount_u
        self.across.area(chain)
        for call in self.calls[chain]:
            if call.kind == "SettlementCredit" and self.of("Points", call.fields[0]):
                self.settle(call.fields[0], self.events[call.fields[0]])
            elif call.kind == "Rehabilitate":  # 12
                rules, party = self.rules[call.header.rules_version], self.users[call.fields[0]]
                days = (call.header.time_s - self.standing[party.id][3]) // 86_400
                party.credit = max(party.credit, min(rules.credit_bar, party.credit + days * rules.rehab_per_day))
                self.standing[party.id][3] += days * 86_400
                party.suspended = party.credit < rules.credit_bar
        versions = [self.active, *(block.header.rules_version for block in self.blocks[chain])]
        made = self.points + sum(self.rules[version].block_points for version in versions[:-1])
        self.same("pool", [made - self.issued, self.issued])
        for user, party in self.users.items():  # free_u was less arrears until here: so repayments need no order
            party.arrears_u = self.state[chain][f"account/{user.hex()}"][7]
            party.free_u, self.grid.free_u = party.free_u + party.arrears_u, self.grid.free_u - party.arrears_u
        for user, party in self.users.items():
            self.same(f"account/{user.hex()}", list(vars(party).values()), "Account")
            known = self.standing.get(user, [-1, 0, [], 0])
            self.same(f"standing/{user.hex()}", known if known[0] >= 0 or known[3] else None)

    def pairs(self, number: int, event: Any) -> list[Any]:  # 8: the slice at revealed prices
        rules, book, found = event.rules, self.state[self.chain][f"book/{number}"][2:4], []
        for side, rows in zip(("sell", "buy"), book, strict=True):
            opened = [[number, side, *row[2:4]] for row in rows]
            need([event.opened[row[1]][:4] for row in rows] == opened, "the book is not what was revealed")
        said = {(c.me.id, c.fields[1], c.fields[2]) for c in self.of("Confirm", number)}
        said |= {(c.me.id, 0, c.fields[1]) for c in self.of("Confirmtransaction", number)}
        rest, second = self.state[self.chain].get(f"rebook/{number}"), self.of("Rematch", number)
        again = [(rest[1][o], rest[2][b], wh) for call in second for o, b, wh in call.fields[1][2][0][1]]
        for k, (o, b, slot_wh) in enumerate([*event.slices[self.chain], *again], 1):
            (_, seller, ask, _, credit, *_), (_, buyer, limit, *_) = book[0][o], book[1][b]
            risk = rules.risk_u_per_wh * (rules.credit_cap - min(credit, rules.credit_cap)) // rules.credit_cap
            told = self.state[self.chain][f"pair/{number}/{k}"][8] if rules.price_rule != "k-double" else []
            prices = told or [(limit + ask + risk + alpha) // 2 for alpha in event.spec.alpha_u_per_wh]
            live = all((u, at, True) in said and (u, at, False) not in said for u in (seller, buyer) for at in (0, k))
            charge = rules.gamma_u_per_ms * (2 * event.spec.x_ms + event.spec.y_ms * (rules.charge_rule == "2x+y"))
            values = [number, k, o, b, seller, buyer, slot_wh, limit, prices, charge, 0, 0, 0, 0]
            found.append(named("Pair", [*values, "SETTLED" if live else "DROPPED", 0]))
        return found

    def meter(self, number: int, spec: Any) -> dict[bytes, list[int]]:  # 9: loads per slot, -1: not verified
        calls, registers, breaks, timed = self.calls[self.chain], dict[Any, int](), list[Any](), dict[bytes, int]()
        for call in calls[: calls.index(self.of("SettlementCredit", number)[0])]:
            if call.kind == "Checkpoint":
                now, sure = call.check, call.check.quality != ord("U")
                if now.reason == 3:
                    breaks.append((now.plug, timed.get(now.plug, 0), now.time_s if sure else call.header.time_s))
                if sure:
                    timed[now.plug] = now.time_s
                    registers.setdefault((now.plug, now.time_s), now.import_mwh)
        loads = {user: [0] * spec.slots for user in self.homes}
        for user, key, t in ((u, row[0], t) for u, h in self.homes.items() for row in h[2] for t in range(spec.slots)):
            start, plug, load = spec.window_start_s + t * spec.slot_s, digest(key)[:8], loads[user]
            low, high = registers.get((plug, start), -1), registers.get((plug, start + spec.slot_s), -1)
            bad = any(p == plug and start < until and since < start + spec.slot_s for p, since, until in breaks)
            bad |= low == -1 or high < low or (high - low) * 18 > 10 * self.plugs[plug].rated_w * spec.slot_s
            load[t] = -1 if bad or load[t] == -1 else load[t] + high // 1000 - low // 1000
        return loads

    def deliver(self, user: bytes, mine: list[Any], load: list[int], event: Any) -> Any:  # 10: quota, delivery
        spec, rules, party, slots = event.spec, event.rules, self.users[user], range(event.spec.slots)
        sign = 1 if spec.kind == "peak" else -1  # 10: in a valley excess is use below the allowance
        asked, annual = M - sign * spec.required_ppm, self.homes[user][4]
        quota = [wh * annual // 1000 * asked // M for wh in spec.profile_wh_per_mwh]
        if rules.baseline_days:  # 7: history comes from the certificates, and cannot be better than the profile
            most, quota = quota, self.state[self.chain][f"sealed/{mine[0].event}/{user.hex()}"][10]
            need(all(sign * wh <= sign * top for wh, top in zip(quota, most, strict=True)), "a quota above the profile")
        sells, agreed = mine[0].seller == user, [sum(pair.slot_wh[t] for pair in mine) for t in slots]
        delta = [sign * (load[t] - quota[t]) + (agreed[t] if sells else -agreed[t]) for t in slots]
        total, net, cells = sum(agreed), sum(delta), [wh for pair in mine for wh in pair.slot_wh]
        status, delivered, change, zero = "performed", total, rules.credit_reward, [0] * spec.slots
        before, short = party.credit, zero
        if -1 in load:
            status, delivered, change, delta = "unverified", 0, 0, zero
        elif sells and (total - net) * M < (M - rules.eps_ppm) * total:
            status, delivered, change = "breached", max(0, total - net), -rules.credit_penalty
            lacks = [wh - part for wh, part in zip(cells, share(delivered, cells), strict=True)]
            short = [sum(lacks[t :: spec.slots]) for t in slots]
        elif not sells and abs(net) * M > rules.eps_ppm * (sum(quota) + sign * total):
            status, delivered, change = "breached", max(0, total - abs(net)), -rules.credit_penalty
            short = share(abs(net), [max(0, d if net > 0 else -d) for d in delta])
        known, day = self.standing.setdefault(user, [-1, 0, [], 0]), spec.window_start_s // 86_400
        runs, counted = {who: [first, n] for who, first, n in known[2] if day - first < rules.partner_days}, 0
        for pair in mine:  # 10, limits: the k-th trade with a partner counts a k-th part
            run = runs.setdefault(pair.buyer if sells else pair.seller, [day, 0])
            run[1] += 1
            counted += sum(pair.slot_wh) // (run[1] if rules.partner_days else 1)
        if rules.mode == "energy" and change:
            gain, full = M * delivered // total - rules.break_even_ppm, rules.full_weight_wh
            gain *= rules.credit_reward * min(counted if gain >= 0 else total, full)
            change = max(gain // (full * (M - rules.break_even_ppm)), -rules.credit_penalty)
        elif change > 0:
            change = change * counted // total
        if status != "unverified":
            idle = (day - known[0]) // rules.decay_days if rules.decay_days and known[0] >= 0 else 0
            base, today = max(min(before, rules.credit_start), before - idle), known[1] * (known[0] == day)
            gains = max(0, (rules.daily_gain_max or M) - today)
            party.credit = min(max(base + min(change, gains), 0), rules.credit_cap)
            if rules.partner_days or rules.daily_gain_max or rules.decay_days:
                known[:2] = day, today + max(0, party.credit - base)
                known[2] = [[who, *runs[who]] for who in sorted(runs) if rules.partner_days]
        side, sold, bought = ("sell", agreed, zero) if sells else ("buy", zero, agreed)
        values = [user, side, status, sold, bought, quota, load, 0, total, delivered, short, before, party.credit]
        row = named("Row", [*values, 0, 0, 0, 0, 0, "none", 0])
        row.cells, row.delta, row.node = share(delivered, cells), delta, party.node
        less = net < 0 and not sells  # 11: under-use
        row.rate = rules.sigma_ppm if less else M + rules.beta_ppm * (rules.reading == "A")
        row.recovered = spec.normal_price_u_per_wh if rules.reading == "C" and not less else 0
        return row

    def settle(self, number: int, event: Any) -> None:  # 11: payments; 12: prices, notices; 13: strength, points, root
        spec, rules, slots, normal = event.spec, event.rules, event.spec.slots, event.spec.normal_price_u_per_wh
        pairs, loads, prices = self.pairs(number, event), self.meter(number, event.spec), event.prices[1]
        live = [pair for pair in pairs if pair.state == "SETTLED"]
        ends = [(u, pair) for pair in live for u in (pair.seller, pair.buyer)] + self.across.ends(number)
        mine = {user: [pair for owner, pair in ends if owner == user] for user, _ in ends}
        rows = {user: self.deliver(user, mine[user], loads[user], event) for user in sorted(mine)}
        told = [[sum(max(0, sign * r.delta[t]) for r in rows.values()) for t in range(slots)] for sign in (1, -1)]
        self.problems += differences(f"{self.where} Metered", self.reports.get((self.chain, "Metered", number)), told)
        for pair in live:
            seller, buyer, charge = rows[pair.seller], rows[pair.buyer], pair.charge_u
            cells, seller.cells = seller.cells[:slots], seller.cells[slots:]
            pair.state = "RETURNED" if seller.status == "unverified" else "SETTLED"
            if pair.state == "SETTLED":
                pair.paid_u = sum(price * wh for price, wh in zip(pair.price_u_per_wh, cells, strict=True))
                seller.traded_u, seller.charge_u = seller.traded_u + pair.paid_u, seller.charge_u + charge // 2
                buyer.traded_u, buyer.charge_u = buyer.traded_u - pair.paid_u, buyer.charge_u + (charge + 1) // 2
        self.across.deliver(number, rows)
        traded = [*live, *(leg for _, leg in self.across.ends(number))]
        weights = [sum(pair.slot_wh[t] for pair in traded) for t in range(slots)] if traded else [1] * slots
        value = sum(price * weight for price, weight in zip(prices, weights, strict=True))
        mean = (M + rules.beta_ppm) * value // (M * sum(weights))
        for user, row in rows.items():
            party, credit, state = self.users[user], row.credit_after, self.state[self.chain]
            row.outside_wh, row.arrears_u = (state[f"result/{number}/{user.hex()}"][i] for i in (7, 16))
            costs = [max(0, price - row.recovered) * wh for price, wh in zip(prices, row.short_wh, strict=True)]
            owed = row.rate * sum(costs) // M
            row.penalty_u = owed - row.arrears_u
            party.free_u += row.traded_u - row.charge_u - owed
            self.grid.free_u += row.charge_u + owed
            bar, span = rules.credit_bar, rules.credit_cap - rules.credit_bar
            phi = min(max(credit - bar, 0), span) * M // span if span else M * (credit >= rules.credit_cap)
            rise = rules.sigma_max_ppm * (2 * M - phi) * mean // (2 * M * M)
            low, high = (normal * part // M for part in (rules.price_floor_ppm, rules.price_top_ppm))
            best = max(min(low, normal), normal - rules.rho_max_ppm * phi * mean // M**2)
            worst = min(max(high, normal), normal + rise)
            if row.status != "unverified":
                row.rp_u_per_wh = best if row.status == "performed" else worst
            row.notice = "suspended" if credit < bar else "warned" if credit < rules.warn_below else "none"
            if row.notice == "suspended" and not party.suspended:
                self.standing[user][3] = spec.settle_by_s
            party.suspended, party.warned = party.suspended or row.notice == "suspended", row.notice == "warned"
        self.across.settle(number, rows)
        factor, gains = rules.rp_energy_factor, [row for row in rows.values() if 0 < row.rp_u_per_wh < normal]
        spent = factor * sum((normal - row.rp_u_per_wh) * row.agreed_wh for row in gains)
        allowed = rules.response_budget_u + sum(row.penalty_u for row in rows.values())
        for row in gains if spent > allowed else []:
            row.rp_u_per_wh = normal - (normal - row.rp_u_per_wh) * allowed // spent
        for user, row in [item for item in rows.items() if item[1].status != "unverified"]:
            until_s = spec.settle_by_s + rules.rp_days * 86_400
            self.same(f"rp/{user.hex()}", [number, row.rp_u_per_wh, until_s, factor * row.agreed_wh])
        for node, strengths in respond(self, number, pairs, rows).items():
            self.same(f"strength/{node}", [number, *strengths])
        sits = self.state[self.chain].get(f"crossnodes/{number}", [[]])[0]  # 17.6: a quarter more behind a cross-node
        power = [row.credit_after * (row.status == "performed") * self.strength[row.node] for row in rows.values()]
        power = [w * 5 // 4 if row.node in sits else w for w, row in zip(power, rows.values(), strict=True)]
        for (user, row), points in zip(rows.items(), share(rules.points_per_event, power), strict=True):
            row.points = points
            self.users[user].points += points
            self.issued += points
        made = [(f"result/{number}/{user.hex()}", list(vars(row).values())[:20], "Row") for user, row in rows.items()]
        made += [(f"pair/{number}/{pair.number}", list(vars(pair).values()), "Pair") for pair in pairs]
        for key, values, name in made:
            self.same(key, values, name)
        root = merkle(encode(values) for values in [*(values for _, values, _ in made), *self.across.leaves(number)])
        self.same(f"result/{number}", [list(rows), root])
        wanted = [*self.state[self.chain][f"event/{number}"][:7], len(pairs), prices, mean, True, True, root, ""]
        self.same(f"event/{number}", wanted, "Event")

    def statement(self) -> None:  # The statement is what the state objects, now known to be right, say
        stated = self.json("statement.json")
        event = self.state[0].get(f"event/{stated['event']}")
        need(event and event[1] == "CLOSED", f"event {stated['event']} is not CLOSED")
        self.problems += differences("statement.json", stated, statement_of(self, stated["event"], event))

    def run(self, folder: Path, regulator: bytes) -> list[str]:  # the problems of the first step that has some
        try:
            self.files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
            hashes = {name: digest(data).hex() for name, data in self.files.items() if name != "manifest.json"}
            self.problems = differences("manifest.json", self.json("manifest.json"), {"format": 1, "sha256": hashes})
            if not self.problems:
                self.load(regulator)
                for place, claim in self.claims:
                    CHECKED[claim] = CHECKED[claim] if claim in CHECKED else check(claim)
                    self.where = place
                    need(CHECKED[claim], "the signature does not hold")
                self.main_chain()
                for chain in list(self.lists.founders)[1:]:
                    self.area(chain)
                for chain in self.lists.founders:
                    self.problems += wrong_leaders(chain, self)
            if not self.problems:
                self.statement()
        except Exception as error:  # ours (need), or whatever crafted bytes break: a problem, never a crash
            what = "" if type(error) is ValueError else f" ({type(error).__name__})"
            self.problems.append(f"{self.where} {error!s:.300}{what}")
        return self.problems[:50]


def verify(export: Path, regulator: bytes) -> list[str]:  # [] when everything holds; never raises on any bytes
    return Audit().run(export, regulator)
