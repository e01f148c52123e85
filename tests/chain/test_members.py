"""Validators that join, leave, rotate and lose keys at a height: CONSENSUS.md 8, in a network in memory."""

import contextlib

import pytest
from chain_world import FalseKey, World, false_verify, make_tx
from msgspec.structs import replace
from watt_chain import codec
from watt_chain.block import Certificate, Change, Header, VoteSignature, block_hash, decode_certified, vote_bytes
from watt_chain.genesis import Validator, list_hash, quorum
from watt_chain.ledger import Ledger
from watt_chain.light import LightClient, ProofError
from watt_chain.pbft.messages import Commit, Frame, signed_bytes
from watt_chain.resume import Resume

USER = FalseKey("user")
TIMES = {"batch_ms": 5, "timeout_ms": 400, "timeout_max_ms": 2000, "resend_ms": 100, "status_ms": 200}


class Members:
    """A world, and who is to validate from which height."""

    def __init__(self, n: int, founders: int, seed: int = 1, assigned: bool = False) -> None:
        self.world = World(n, seed, founders=founders, assigned=assigned, **TIMES)
        self.nonce = 0
        self.now = list(range(founders))

    def ask(self, kind: str = "Add", fields: object = None, to: int | None = None) -> None:
        self.nonce += 1
        tx = make_tx(USER, self.world.network, self.nonce, kind, fields=fields)
        assert self.world.submit(tx, self.now[0] if to is None else to) == ""

    def change(self, numbers: list[int], ahead: int = 3, keys: dict[int, FalseKey] | None = None) -> int:
        """Ask for a new list from `ahead` heights above the present one on; that height."""
        at = self.world.height(self.now[0]) + ahead
        key = {number: self.world.keys[number] for number in numbers} | (keys or {})
        self.ask("Seats", [at, [[number, f"node{number}", key[number].public] for number in numbers]])
        self.after = numbers
        return at

    def reach(self, height: int, among: list[int] | None = None, ms: int = 60_000) -> None:
        """Work until everybody `among` (the present validators) is at the height."""
        watched = self.now if among is None else among
        end_ms = self.world.now_ms + ms
        while min(self.world.height(number) for number in watched) < height:
            assert self.world.now_ms < end_ms, [self.world.height(number) for number in watched]
            if max(self.world.height(number) for number in watched) < height and not any(
                len(r.pool) for r in self.world.replicas if r is not None
            ):
                self.ask(to=next(number for number in watched if self.world.replicas[number] is not None))
            self.world.run(50)

    def pass_over(self, at: int) -> None:
        """Work until the new list has made a block of its own."""
        self.reach(at - 1)
        self.now = self.after
        self.reach(at)

    def signers(self, height: int) -> tuple[int, list[int]]:
        """(validators, indices in the certificate) of a height."""
        ledger = next(ledger for ledger in self.world.ledgers if ledger is not None and ledger.head.height >= height)
        certified = ledger.certified(height)
        assert certified is not None
        return len(ledger.validators), [vote.index for vote in decode_certified(certified)[3].votes]


def test_a_fifth_validator_follows_joins_at_its_height_and_is_needed_then() -> None:
    net = Members(5, founders=4)
    net.reach(3)
    net.reach(3, among=[4])  # it follows without a seat
    fifth = net.world.replicas[4]
    assert fifth is not None and fifth.status()["index"] is None and fifth.status()["phase"] == "following"
    at = net.change([0, 1, 2, 3, 4])
    net.pass_over(at)
    status = fifth.status()
    assert (status["index"], status["n"], status["f"], status["q"]) == (4, 5, 1, 4)
    net.world.crash(0)  # q of 5 is 4: from here nothing is final without the new one
    net.now = [1, 2, 3, 4]
    net.reach(at + 5)
    assert net.signers(at + 5) == (5, [1, 2, 3, 4])


def test_whoever_is_left_out_follows_and_the_others_move_up() -> None:
    net = Members(5, founders=5)
    net.reach(2)
    at = net.change([1, 2, 3, 4])
    net.pass_over(at)
    net.reach(at + 3)
    net.reach(at + 3, among=[0])
    first, second = net.world.replicas[0], net.world.replicas[1]
    assert first is not None and first.status()["index"] is None and not first.take_output().send
    assert second is not None and second.status()["index"] == 0 and second.status()["number"] == 1
    assert net.signers(at + 3)[0] == 4 and len(net.signers(at + 3)[1]) == 3


def test_a_rotated_key_votes_from_its_height_and_the_old_one_never_again() -> None:
    net = Members(4, founders=4)
    net.reach(2)
    fresh = FalseKey("fresh")
    net.world.spare_keys[2] = [fresh]
    replica = net.world.replicas[2]
    assert replica is not None
    at = net.change([0, 1, 2, 3], keys={2: fresh})
    replica.add_key(fresh, net.world.now_ms)
    net.pass_over(at)
    net.world.crash(3)
    net.now = [0, 1, 2]
    net.reach(at + 3)  # needs its votes under the new key
    # A restart finds its place again, by the key the list names.
    net.world.crash(2)
    net.world.start(2)
    net.reach(at + 6)
    # A commit under the old key for a height of the new list.
    body = Commit(1, 2, net.world.height(0) + 1, 0, bytes(32))
    old = net.world.keys[2].sign(signed_bytes(net.world.network, body, codec.encode(body)))
    other = net.world.replicas[0]
    assert other is not None
    other.receive(2, codec.encode(Frame(codec.encode(body), old)), net.world.now_ms)
    assert [item.reason for item in other.take_output().rejected] == ["frame-signature"]


def test_a_lost_key_is_replaced_by_the_others_alone() -> None:
    net = Members(4, founders=4)
    net.reach(2)
    net.world.crash(1)  # its disk and key are gone
    net.now = [0, 2, 3]
    net.world.disks[1] = type(net.world.disks[1])()
    fresh = FalseKey("fresh")
    net.world.spare_keys[1] = [fresh]
    at = net.change([0, 1, 2, 3], keys={1: fresh})
    net.after = [0, 2, 3]
    net.pass_over(at)
    net.world.keys[1] = fresh
    net.world.start(1)
    net.now = [0, 1, 2, 3]
    net.reach(at + 2)
    net.world.crash(0)
    net.now = [1, 2, 3]
    net.reach(at + 4)


def test_the_whole_list_may_change_at_one_height() -> None:
    net = Members(8, founders=4)
    net.reach(3, among=[0, 1, 2, 3, 4, 5, 6, 7])
    at = net.change([4, 5, 6, 7], ahead=4)
    net.pass_over(at)
    for number in range(4):
        net.world.crash(number)
    net.reach(at + 4)


def test_new_validators_go_on_under_the_regulator_s_word_without_the_old_ones() -> None:
    net = Members(8, founders=4)
    world = net.world
    net.reach(3, among=[0, 1, 2, 3, 4, 5, 6, 7])
    for number in range(8):
        world.crash(number)
    blocks = world.disks[4].blocks
    at = len(blocks) + 1
    listed = [Validator(f"node{number}", world.keys[number].public) for number in (4, 5, 6, 7)]
    previous = block_hash(world.network, decode_certified(blocks[-1])[1].header)
    office = FalseKey("office")
    assert office.public == world.genesis.regulator
    world.word = make_tx(office, world.network, 1, "Resume", fields=Resume(1, at, previous, listed))
    for number in range(4, 8):
        world.start(number)
    world.run(3_000)
    assert [world.height(number) for number in range(4, 8)] == [at - 1] * 4  # nothing waits, and nobody else votes
    assert world.submit(world.word, 4) == ""
    net.now = [4, 5, 6, 7]
    net.reach(at + 3)
    assert net.signers(at)[0] == 4 and len(net.signers(at)[1]) == 3
    first = decode_certified(world.disks[5].blocks[at - 1])[1]
    assert first.transactions == [world.word]
    world.word = b""
    world.start(0)  # an old validator that has stood still there, and was not told
    net.reach(at + 4, among=[0, 4, 5, 6, 7])
    client = LightClient(world.genesis, world.network, false_verify)
    ledger = world.ledgers[0]
    assert ledger is not None and client.follow(1, ledger.changes) == 1 and client.height_of_list(1) == at


def test_who_slept_through_two_changes_catches_up_with_the_lists_of_every_height() -> None:
    net = Members(6, founders=4)
    net.reach(2)
    net.world.crash(3)
    net.now = [0, 1, 2]
    net.change([0, 1, 2, 3, 4])
    net.after = [0, 1, 2, 4]
    net.pass_over(net.world.height(0) + 3)
    net.reach(net.world.height(0) + 2)
    at = net.change([1, 2, 3, 4, 5])
    net.after = [1, 2, 4, 5]
    net.pass_over(at)
    net.world.start(3)
    net.now = [1, 2, 3, 4, 5]
    net.reach(at + 3)
    ledger = net.world.ledgers[3]
    assert ledger is not None and ledger.numbers == (1, 2, 3, 4, 5)


def test_headers_name_the_list_of_the_next_height_and_certificates_have_its_quorum() -> None:
    net = Members(7, founders=4)
    net.reach(2)
    for numbers in ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6], [2, 3, 4]):
        at = net.change(numbers)
        net.pass_over(at)
    ledger = net.world.ledgers[2]
    assert ledger is not None
    sizes: list[int] = []
    hashes: list[bytes] = [list_hash(net.world.genesis.validators(1))]
    for height in range(1, ledger.head.height + 1):
        certified = ledger.certified(height)
        assert certified is not None
        _, _, header, certificate = decode_certified(certified)
        sizes.append(len(certificate.votes))
        hashes.append(header.next_validators)
    assert sizes[0] == quorum(4) and sizes[-1] == quorum(3) and {quorum(5), quorum(7)} <= {*sizes}
    assert hashes[-1] == list_hash(ledger.validators) and len({*hashes}) == 4


def test_a_vote_names_its_sender_s_place_on_the_list_of_its_own_height() -> None:
    net = Members(4, founders=4, assigned=True)
    net.reach(2)
    places = {0: [0, 1, 2, 3]}
    wrong: list[tuple[int, int, int]] = []

    def listen(sender: int, receiver: int, frame: bytes) -> bytes | None:
        body = codec.decode(codec.decode(frame, Frame).body, list)
        if body[0] in ("prepare", "commit") and sender == 3:
            listed = places[max(first for first in places if first <= body[3])]
            if listed[body[2]] != 3:
                wrong.append((body[3], body[2], receiver))
        # It waits for attestations in vain, and decides when it has checked for itself what the others voted for.
        return None if body[0] == "attest" and receiver == 3 else frame

    net.world.tamper = listen
    for turn in range(8):  # it is one of the two who check a transaction in every other case
        listed = [3, 2, 1, 0] if turn % 2 == 0 else [0, 1, 2, 3]
        at = net.change(listed)
        places[at] = listed
        net.pass_over(at)
    assert not wrong


def changed_three_times() -> tuple[Members, Ledger]:
    """A chain whose list changed at three heights, and a ledger of it."""
    net = Members(7, founders=4)
    net.reach(2)
    for numbers in ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6], [2, 3, 4]):
        net.pass_over(net.change(numbers))
    net.reach(net.world.height(2) + 2)
    ledger = net.world.ledgers[2]
    assert ledger is not None and len(ledger.changes) == 3
    return net, ledger


def test_a_light_client_follows_the_lists_and_judges_every_header_by_its_own() -> None:
    net, ledger = changed_three_times()
    client = LightClient(net.world.genesis, net.world.network, false_verify)

    def believed() -> list[int]:
        found = []
        for height in range(1, ledger.head.height + 1):
            parts, block, _, _ = decode_certified(ledger.certified(height) or b"")
            with contextlib.suppress(ProofError):
                client.check_header(1, block.header, parts.certificate)
                found.append(height)
        return found

    first = codec.decode(ledger.changes[0].header, Header).height
    assert believed() == list(range(1, first + 1))  # to the last block of the list of genesis
    assert client.follow(1, ledger.changes[:1]) == 1
    assert client.height_of_list(1) == first + 1
    assert client.follow(1, ledger.changes) == 2 and client.follow(1, ledger.changes) == 0
    assert believed() == list(range(1, ledger.head.height + 1))


def test_a_light_client_is_led_astray_by_no_forged_change() -> None:
    net, ledger = changed_three_times()
    client = LightClient(net.world.genesis, net.world.network, false_verify)
    one, two = ledger.changes[:2]
    mine = [Validator("node9", FalseKey("liar").public)]
    header = codec.decode(one.header, Header)
    lie = codec.encode(replace(header, next_validators=list_hash(mine)))
    hash_ = block_hash(net.world.network, lie)
    vote = vote_bytes(net.world.network, "commit", 1, header.height, header.view, hash_)
    few = [VoteSignature(index, net.world.keys[index].sign(vote)) for index in (0, 1)]
    signed = Certificate(header.view, few)
    forged = {
        "change-list": Change(one.header, one.certificate, mine),
        "certificate-size": Change(lie, codec.encode(signed), mine),
        "certificate-signature": Change(lie, one.certificate, mine),
    }
    for reason, change in forged.items():
        with pytest.raises(ProofError, match=reason):
            client.follow(1, [change])
    with pytest.raises(ProofError, match="certificate"):
        client.follow(1, [two])  # by a list that it does not know
    with pytest.raises(ProofError, match="chain"):
        client.follow(0, [one])
    with pytest.raises(ProofError, match="chain-unknown"):
        client.follow(7, [one])
    assert client.height_of_list(1) == 1
    client.follow(1, ledger.changes)
    # The founders sign another block of a later height: they are not the list of that height any more.
    later = replace(header, height=ledger.head.height, next_validators=list_hash(mine))
    data = codec.encode(later)
    vote = vote_bytes(net.world.network, "commit", 1, later.height, later.view, block_hash(net.world.network, data))
    votes = [VoteSignature(index, net.world.keys[index].sign(vote)) for index in range(3)]
    with pytest.raises(ProofError, match="certificate"):
        client.check_header(1, data, codec.encode(Certificate(later.view, votes)))


@pytest.mark.parametrize("seed", range(8))
def test_changes_hold_under_loss_crashes_and_new_views(seed: int) -> None:
    net = Members(6, founders=4, seed=seed)
    net.world.loss, net.world.double = 0.1, 0.1
    net.reach(2)
    for numbers in ([0, 1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4, 5], [5, 4, 3, 2]):
        at = net.change(numbers, ahead=5 + seed % 3)
        down = numbers[seed % len(numbers)]
        if down in net.now and down != net.now[0]:
            net.world.crash(down)
            net.world.run(300)
            net.world.start(down)
        net.pass_over(at)
    assert net.world.replicas[2] is not None and net.world.replicas[2].status()["index"] == 3
