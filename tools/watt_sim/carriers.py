"""Those who carry between the chains: honest ones that may be slow, and bad ones that repeat, reorder and forge.

A carrier has no power but the bytes it brings (ledger.md 6.5): whatever `forge` brings must be refused, with a reason.
"""

from typing import TYPE_CHECKING

from watt_chain import block as blocks
from watt_chain import codec
from watt_chain.block import Header
from watt_chain.contract import kinds
from watt_chain.contract.cross_kinds import CrossLocked, CrossNews, CrossReport
from watt_chain.genesis import Validator, list_hash
from watt_wire import merkle

from watt_sim.streets import EVENT, Made, anchor_of, anchored_height, cursor_of
from watt_sim.violation import Violation

if TYPE_CHECKING:
    from watt_chain.crypto import PrivateKey

    from watt_sim.areas import Areas
    from watt_sim.streets import Chain

HARMLESS = ("stale", "sequence", "proof", "height", "previous", "outbox", "message", "chain", "busy", "quarantine")
"""Reasons for which carried bytes are refused."""


class Carriers:
    """All carriers of a run."""

    def __init__(self, world: "Areas") -> None:
        self._world = world
        self._chance = world.chance

    def carry(self) -> None:
        """One message, or run of messages, that is due from one chain to another."""
        world = self._world
        source, target = self._chance.some(list(world.chains), 2)
        if self._chance.chance(500_000):
            source, target = target, source
        if target == 0:
            self._up(source, 1 + self._chance.below(3))
        else:
            self._across(source, target, 1 + self._chance.below(2))
        world.block(target)

    def _up(self, area: int, most: int) -> None:
        if self._world.judge.position(area).quarantine and not self._chance.chance(20_000):
            return
        waiting = self._world.anchorable(area)
        for made in sorted(waiting, key=lambda one: one.height)[:most]:
            self._world.anchor(made)

    def _across(self, source: int, target: int, most: int, known_only: bool = False) -> None:
        world = self._world
        cursor = cursor_of(world.chains[target], source)
        chain = world.chains[source]
        if source == world.bad and world.twin is not None and self._chance.chance(500_000):
            chain = world.twin  # the other history, for this area
        sent = 0
        for made in chain.made:
            if made.height <= cursor.height and made.applied.block_hash != cursor.hash:
                continue  # nobody takes it any more
            inbox = made.inbox(target, cursor.sequence)
            if inbox is not None and sent < most and not (known_only and self._is_unknown(target, chain, made)):
                world.put(target, self._chance.choice(world.chains[target].keys), "Inbox", inbox)
                sent += 1

    def _is_unknown(self, target: int, chain: "Chain", made: Made) -> bool:
        """Whether a chain cannot know who certified a block: a change of list that was never anchored stays unknown."""
        held = self._world.chains[target].ledger.state.get(b"validators/%d" % chain.number)
        before = next((one.applied.header for one in chain.made if one.height == made.height - 1), None)
        if held is None or before is None:
            return False
        listed = [Validator(*one) for one in codec.decode(held, list)[1]]
        return list_hash(listed) != before.next_validators

    def carry_everything(self) -> None:
        """All that is due, once; what that causes is due in the next round."""
        world = self._world
        for area in world.network.areas:
            if area not in world.halted:
                self._up(area, 1000)
        while world.queues[0] and world.block(0) is not None:
            pass
        for target in world.network.areas:
            for source in world.chains:
                if source != target:
                    self._across(source, target, 1000, known_only=True)
            while world.queues[target] and world.block(target) is not None:
                pass

    def lie(self) -> None:
        """The bad area shows another one a block that never was: it may be believed, and must bind nobody."""
        world = self._world
        bad = world.bad
        target = self._chance.choice([area for area in world.network.areas if area != bad])
        if target in world.halted:
            return
        inbox = self._invented(bad, target, world.chains[bad].keys)
        world.put(target, self._chance.choice(world.chains[target].keys), "Inbox", inbox)
        made = world.block(target)
        world.count("lie")
        if made is not None and not made.applied.receipts[-1].code:
            world.count("lie-believed")

    # Bad carriers -------------------------------------------------------------------------------------------

    def forge(self) -> None:
        """Bring something that proves nothing; Violation when it is taken."""
        world = self._world
        target = self._chance.choice(list(world.chains))
        if target in world.halted:
            return
        found = self._forged_anchor() if target == 0 else self._forged_inbox(target)
        if found is None:
            return
        what, kind, body = found
        world.queues[target].clear()
        world.put(target, self._chance.choice(world.chains[target].keys), kind, body)
        made = world.block(target)
        if made is None:
            world.count(f"forged-{what}")
            return  # it may not even be in a block
        code = made.applied.receipts[0].code
        world.count(f"forged-{what}")
        if code not in HARMLESS:
            raise Violation("I5", f"chain {target} takes {what} ({code or 'accepted'})")

    def _forged_inbox(self, target: int) -> tuple[str, str, object] | None:
        world, chance = self._world, self._chance
        source = chance.choice([number for number in world.chains if number != target])
        cursor = cursor_of(world.chains[target], source).sequence
        made = [(one, inbox) for one in world.chains[source].made if (inbox := one.inbox(target)) is not None]
        match chance.below(8):
            case 0:  # messages that were consumed
                old = [inbox for one, inbox in made if self._last(inbox) <= cursor]
                return ("replay", "Inbox", chance.choice(old)) if old else None
            case 1:  # one after a gap
                gap = [inbox for one, inbox in made if self._first(inbox) > cursor + 1]
                return ("gap", "Inbox", chance.choice(gap)) if gap else None
            case 2 if made:  # a vote too few
                inbox = chance.choice(made)[1]
                view, votes = codec.decode(inbox.certificate, list)
                return "short-certificate", "Inbox", self._inbox(inbox, certificate=codec.encode([view, votes[1:]]))
            case 3 if made:  # another body under the same proof
                inbox = chance.choice(made)[1]
                entry = inbox.entries[0]
                lie = kinds.InboxEntry(entry.index, entry.message[:-1] + bytes([entry.message[-1] ^ 1]), entry.path)
                return "other-message", "Inbox", self._inbox(inbox, entries=[lie, *inbox.entries[1:]])
            case 4 if made:  # another place in the tree
                inbox = chance.choice(made)[1]
                entry = inbox.entries[0]
                lie = kinds.InboxEntry(entry.index + 1, entry.message, [*entry.path, bytes(32)])
                return "other-place", "Inbox", self._inbox(inbox, entries=[lie, *inbox.entries[1:]])
            case 5:  # what was meant for another area
                other = chance.choice([number for number in world.chains if number != target])
                meant = [inbox for one in world.chains[source].made if (inbox := one.inbox(other)) is not None]
                return ("other-target", "Inbox", chance.choice(meant)) if meant else None
            case 6:  # a lock, or the main chain's word, signed by nobody of that chain
                strangers = world.chains[chance.choice([one for one in world.chains if one != source])].keys
                return "strangers", "Inbox", self._invented(source, target, strangers)
            case 7 if source in world.stolen and len(world.stolen[source]) >= 3:  # keys of validators that have left
                known = self._knows_list(target, source)
                return ("stolen-keys", "Inbox", self._invented(source, target, world.stolen[source])) if known else None
        return None

    def _knows_list(self, target: int, source: int) -> bool:
        """Whether a chain has heard that the stolen keys do not count any more."""
        held = self._world.chains[target].ledger.state.get(b"validators/%d" % source)
        if held is None:
            return True  # it takes nothing of that chain at all
        listed = codec.decode(held, list)[1]
        stolen = [key.public for key in self._world.stolen[source]]
        return sum(public in stolen for _, public in listed) < 3

    def _invented(self, source: int, target: int, keys: "list[PrivateKey]") -> kinds.Inbox:
        """A block of `source` that never was, with the message that would help most, certified by these keys."""
        world = self._world
        chain = world.chains[source]
        sequence = cursor_of(world.chains[target], source).sequence + 1
        trades = [number for number in world.network.trades if world.judge.half(target, number) is not None]
        number = self._chance.choice(trades or world.network.trades)
        main = world.judge.main(number)
        if source == 0:
            word = self._chance.choice(("anchored-accept", "anchored-end", "settled", "pay"))
            body: object = CrossNews(EVENT, [(number, word, main.value_u)])  # type: ignore[list-item]  # one of them
            kind = "CrossNews"
        else:
            body, kind = CrossLocked(EVENT, [(number, main.id)], []), "CrossLocked"
        message = codec.encode(blocks.OutMessage(source, target, sequence, kind, codec.encode(body)))
        last = chain.made[-1].header if chain.made else None
        header = self._header(source, last, merkle.leaf_hash(message))
        certificate = chain.certify(header, keys)
        return kinds.Inbox(header, certificate, 1, [kinds.InboxEntry(0, message, [])])

    def _header(self, source: int, last: bytes | None, outbox_root: bytes) -> bytes:
        chain = self._world.chains[source]
        head = chain.ledger.head
        base = codec.decode(last, Header) if last is not None else head.header
        assert base is not None
        fields = {name: getattr(base, name) for name in Header.__struct_fields__}
        fields.update(height=head.height + 1 + self._chance.below(3), previous=head.block_hash, outbox_root=outbox_root)
        return codec.encode(Header(**fields))

    def _forged_anchor(self) -> tuple[str, str, object] | None:
        world, chance = self._world, self._chance
        area = chance.choice(world.network.areas)
        known = anchored_height(world.chains[0], area)
        made = world.chains[area].made
        match chance.below(6):
            case 0:
                old = [one for one in made if one.height <= known]
                return ("anchor-replay", "Anchor", anchor_of(chance.choice(old))) if old else None
            case 1:
                ahead = [one for one in made if one.height > known + 1]
                return ("anchor-gap", "Anchor", anchor_of(chance.choice(ahead))) if ahead else None
            case 2:
                following = [one for one in made if one.height == known + 1 and one.applied.out_messages]
                if following:
                    anchor = anchor_of(following[0])
                    return "anchor-without-messages", "Anchor", kinds.Anchor(anchor.header, anchor.certificate, [])
            case 3:
                following = [one for one in made if one.height == known + 1]
                if following:
                    anchor = anchor_of(following[0])
                    view, votes = codec.decode(anchor.certificate, list)
                    short = codec.encode([view, votes[:-1]])
                    return "anchor-short", "Anchor", kinds.Anchor(anchor.header, short, anchor.messages)
            case 4 | 5:  # a block that its area certified, perhaps, but that nobody executed
                return self.unexecuted(area)
        return None

    def unexecuted(self, area: int) -> tuple[str, str, kinds.Anchor] | None:
        """What a bad master hands in for a bad area: a certified block that is not what its transactions make."""
        world = self._world
        number = self._chance.choice(world.network.trades)
        main = world.judge.main(number)
        word = self._chance.choice(("accept", "reject", "settled", "pay", "locked"))
        held = world.chains[0].ledger.state.get(b"anchor/%d" % area)
        assert held is not None
        height, previous, sequence = codec.decode(held, tuple[int, bytes, int])
        if word == "locked":
            other = main.terms.seller_chain
            lane = world.chains[0].ledger.state.get(b"lane/%d/%d" % (area, other))
            following = 1 if lane is None else codec.decode(lane, list)[0] + 1
            body: object = CrossLocked(EVENT, [(number, main.id)], [])
            message = codec.encode(blocks.OutMessage(area, other, following, "CrossLocked", codec.encode(body)))
            if other == area:
                return None
        else:
            body = CrossReport(EVENT, [(number, main.id, word, main.value_u if word == "settled" else 0)])  # type: ignore[list-item]
            message = codec.encode(blocks.OutMessage(area, 0, sequence + 1, "CrossReport", codec.encode(body)))
        last = world.chains[area].ledger.head.header
        assert last is not None
        fields = {name: getattr(last, name) for name in Header.__struct_fields__}
        fields.update(height=height + 1, previous=previous, outbox_root=merkle.leaf_hash(message))
        header = codec.encode(Header(**fields))
        keys = world.chains[area].keys if area == world.bad else world.chains[0].keys
        return "unexecuted", "Anchor", kinds.Anchor(header, world.chains[area].certify(header, keys), [message])

    @staticmethod
    def _inbox(inbox: kinds.Inbox, **fields: object) -> kinds.Inbox:
        values = {name: fields.get(name, getattr(inbox, name)) for name in kinds.Inbox.__struct_fields__}
        return kinds.Inbox(**values)  # type: ignore[arg-type]  # names of its own

    @staticmethod
    def _first(inbox: kinds.Inbox) -> int:
        return codec.decode(inbox.entries[0].message, blocks.OutMessage).sequence

    @staticmethod
    def _last(inbox: kinds.Inbox) -> int:
        return codec.decode(inbox.entries[-1].message, blocks.OutMessage).sequence
