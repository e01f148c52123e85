"""Response strength, and who had to lead: recomputes the elections of a chain (CONSENSUS.md 4.8, 6).

A part of the independent verifier: written from the document, shares no code with the network. What a call did is
taken from its receipt; that it could do it (puzzle, commitment, seats) is checked here again.
"""

from hashlib import sha256
from typing import Any

import msgspec

TERM, ENTRY, FULL = 64, 32, 1_000_000
encode = msgspec.msgpack.encode


def hashed(domain: bytes, network: bytes, *body: Any, tail: bytes = b"") -> bytes:
    """SHA-256(signing(domain, body) || tail)."""
    return sha256(b"wattpact/1/" + domain + b"\0" + network + encode(list(body)) + tail).digest()


class Leaders:
    """Feed it every final block of a chain in order."""

    def __init__(self, network: bytes, chain: int, seats: list[tuple[int, bytes]]) -> None:
        self.network, self.chain = network, chain
        self.sit(seats)
        self.term, self.seed = 0, hashed(b"seed", network, chain, 0)
        self.eligible: list[tuple[bytes, int]] = []
        self.struck: list[bytes] = []
        self.demoted: dict[bytes, int] = {}
        self.tickets: dict[bytes, int] = {}
        self.faults: dict[bytes, int] = {}
        self.pledges: dict[tuple[bytes, int], tuple[bytes, bytes]] = {}
        self.strengths: dict[int, list[int]] = {}
        "Number -> strength after every settled event."
        self.entrants = self.enter({})

    def sit(self, seats: list[tuple[int, bytes]]) -> None:
        """(number, account) of the validators of the next block, by index."""
        self.numbers, self.ids = [number for number, _ in seats], [one for _, one in seats]

    def enter(self, faults: dict[bytes, int]) -> dict[bytes, tuple[int, int]]:
        """6.2: strength and bits of everybody, for the tickets of this term."""
        found = {}
        for number, validator in zip(self.numbers, self.ids, strict=True):
            strength = FULL if self.chain == 0 else [0, 0, *self.strengths.get(number, [])][-2]
            bits = 16 - 8 * strength // FULL + 4 * faults.get(validator, 0)
            found[validator] = strength, min(24, bits)
        return found

    def turn(self) -> None:
        """6.5.5."""
        self.term, self.struck, shares = self.term + 1, [], []
        self.demoted = {one: last for one, last in self.demoted.items() if last >= self.term}
        for validator in self.ids:
            commitment, share = self.pledges.pop((validator, self.term), (b"", b""))
            if share:
                shares.append([validator, share])
            elif commitment:
                self.demote(validator, self.term + 1)
        self.seed = hashed(b"seed", self.network, self.chain, self.term, self.seed, shares)
        holders = [one for one in self.ids if self.tickets.get(one) == self.term]
        weights = [self.entrants.get(one, (0, 0))[0] + 1 for one in holders]
        ordered, m = sorted(weights), len(weights)
        cap = ordered[(m - 1) // 2] + ordered[m // 2] if m else 0
        self.eligible = [(one, min(weight, cap)) for one, weight in zip(holders, weights, strict=True)]
        self.entrants = self.enter(self.faults)
        self.faults = {one: count - 1 for one, count in self.faults.items() if count > 1}

    def demote(self, validator: bytes, last: int) -> None:
        """A fault, and the end of every order up to the end of term `last`."""
        self.demoted[validator] = max(last, self.demoted.pop(validator, 0))
        self.faults[validator] = min(4, self.faults.get(validator, 0) + 1)

    def order(self, height: int) -> list[int]:
        """6.1.2: indexes in the order in which they lead."""
        left, drawn, n = list(self.eligible), list[bytes](), len(self.ids)
        while left:
            mark = sha256(b"wattpact/1/draw\0" + self.seed + height.to_bytes(8, "big") + len(drawn).to_bytes(2, "big"))
            lot = int(mark.hexdigest(), 16) % sum(weight for _, weight in left)
            upper = [sum(weight for _, weight in left[: at + 1]) for at in range(len(left))]
            drawn.append(left.pop(next(at for at, limit in enumerate(upper) if lot < limit))[0])
        ahead = [self.ids.index(one) for one in drawn if one in self.ids]
        rest = [(height + step) % n for step in range(n) if (height + step) % n not in ahead]
        return sorted(ahead + rest, key=lambda at: 2 if self.ids[at] in self.demoted else self.ids[at] in self.struck)

    def block(self, header: Any, calls: list[tuple[str, bytes, list[Any]]]) -> str:
        """The next final block and its accepted calls (kind, account, fields); "" or what is wrong with it."""
        height, n = header.height, len(self.ids)
        if height % TERM == 1 and height > 1:
            self.turn()
        ranked = self.order(height)
        if header.proposer != ranked[header.view % n]:
            return f"proposer: is {header.proposer}, recomputed {ranked[header.view % n]}"
        for at in ranked[: header.view]:
            if at != header.proposer and self.ids[at] not in self.struck:
                self.struck.append(self.ids[at])
        for kind, me, fields in calls:
            if not self.call(kind, me, fields, (height - 1) % TERM < ENTRY):
                return f"{kind}: it could not be accepted"
        return ""

    def call(self, kind: str, me: bytes, fields: list[Any], early: bool) -> bool:
        """Whether an accepted call of the election could be."""
        place = (me, fields[0])
        if kind == "Ticket":
            tail = fields[1].to_bytes(8, "big")
            hash_ = hashed(b"ticket", self.network, self.chain, fields[0], self.seed, me, tail=tail)
            good = (
                early and fields[0] == self.term + 1 > 1 and self.tickets.get(me) != fields[0] and me in self.entrants
            )
            self.tickets[me] = fields[0]
            return good and int.from_bytes(hash_, "big") >> (256 - self.entrants[me][1]) == 0
        if kind == "SeedCommit":
            good = early and fields[0] == self.term + 2 and place not in self.pledges and me in self.ids
            self.pledges[place] = (fields[1], b"")
            return good
        if kind == "SeedReveal":
            commitment, shown = self.pledges.get(place, (b"", b""))
            self.pledges[place] = (commitment, fields[1])
            made = hashed(b"share", self.network, self.chain, fields[0], me, fields[1])
            return not early and fields[0] == self.term + 1 and not shown and made == commitment
        if kind == "Evidence":
            self.demote(sha256(fields[0]).digest()[:8], self.term + 16)
        return True

    def state(self) -> list[Any]:
        """What must stand under `election`."""
        entrants = [[one, *values] for one, values in self.entrants.items()]
        demoted = [list(item) for item in self.demoted.items()]
        return [self.term, self.seed, [list(pair) for pair in self.eligible], entrants, self.struck, demoted]


def respond(of: Any, number: int, pairs: list[Any], rows: dict[bytes, Any]) -> dict[int, tuple[int, int]]:
    """CONTRACT.md 13: response strength of every node after an event, and before it; it becomes the audit's."""
    found, opened = {}, of.events[number].opened
    for node in range(len(of.lists.names[of.chain])):
        ours = {user for user in of.homes if of.users[user].node == node}
        sides = [pair.state != "DROPPED" for pair in pairs for user in (pair.seller, pair.buyer) if user in ours]
        sides += [stood for user, stood in of.across.sides(number) if user in ours]
        energy = [(row.delivered_wh, row.agreed_wh) for user, row in rows.items() if user in ours]
        parts = [(600_000, sum(one for one, _ in energy), sum(one for _, one in energy))]
        parts += [(200_000, len(ours & opened.keys()), len(ours)), (200_000, sum(sides), len(sides))]
        now = sum(weight * part // whole for weight, part, whole in parts if whole)
        found[node] = (3 * of.strength.get(node, now) + now) // 4, of.strength.get(node, 0)
        of.strength[node] = found[node][0]
    of.settled[of.chain, of.of("Points", number)[0].header.height] = dict(of.strength)
    return found


def problems(chain: int, of: Any) -> list[str]:
    """What is wrong with the leaders of a chain; `of` is the audit of the whole export."""
    leaders, calls = Leaders(of.network, chain, of.lists.ids(chain, 1)), dict[int, list[Any]]()
    for call in of.calls[chain]:
        calls.setdefault(call.header.height, []).append((call.kind, call.me.id, call.fields))
    for block in of.blocks[chain]:
        leaders.sit(of.lists.ids(chain, block.header.height))
        text = leaders.block(block.header, calls.get(block.header.height, []))
        if text:
            return [f"{block.where} {text}"]
        for index, strength in of.settled.get((chain, block.header.height), {}).items():
            leaders.strengths.setdefault(index, []).append(strength)
    good = leaders.state() == of.state[chain].get("election")
    return [] if good else [f"chain-{chain}.state: election: it does not follow from the blocks"]
