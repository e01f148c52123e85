"""The verifier's own computation of the leaders against the chain's, over terms with all kinds of events."""

from __future__ import annotations

from types import SimpleNamespace as Space
from typing import Any

import msgspec
import pytest
from election_world import ElectionWorld
from watt_chain.block import decode_certified
from watt_chain.contract.objects import ELECTION_KEY
from watt_chain.crypto import id8
from watt_chain.transaction import decode_transaction
from watt_tools.leaders import problems
from watt_tools.lists import Lists

ALL = [0, 1, 2, 3]


def audit(world: ElectionWorld) -> Any:
    """What the verifier knows of the chain when it comes to the leaders."""
    blocks, calls = [], []
    for certified in world.certified:
        _, block, header, _ = decode_certified(certified)
        blocks.append(Space(header=header, where=f"height {header.height}:"))
        for raw in block.transactions:
            tx = decode_transaction(raw)
            if tx.kind != "Nothing":
                fields = msgspec.msgpack.decode(tx.fields_raw)
                calls.append(Space(kind=tx.kind, me=Space(id=id8(tx.signer)), fields=fields, header=header))
    state = {"election": msgspec.msgpack.decode(world.ledger.state.get(ELECTION_KEY) or b"")}
    chain = world.chain
    listed = [[f"node{number}", key.public] for number, key in enumerate(world.validators)]
    return Space(
        network=world.network,
        lists=Lists({chain: listed}),
        blocks={chain: blocks},
        calls={chain: calls},
        state={chain: state},
        settled={},
    )


def played(chain: int = 1) -> ElectionWorld:
    """Five terms: a missing ticket, a share kept back, a conviction, skipped leaders."""
    world = ElectionWorld(chain=chain)
    world.take_part(ALL, ALL)
    world.take_part([0, 1, 3], ALL)
    world.block(view=2)
    assert world.send(1, "Evidence", world.two_votes(3)) == ""
    world.go_to(3, 0)  # nobody shows a share: all are demoted
    world.take_part([0] if chain else [0, 1, 2], [0, 1, 2], shown=[])  # at 20 bits one ticket is enough to wait for
    world.block(view=5)
    world.go_to(4, 20)
    return world


@pytest.fixture(scope="module")
def world() -> ElectionWorld:
    return played(0)


@pytest.mark.row("B17")
@pytest.mark.parametrize("chain", [0, 1])
def test_it_comes_to_the_leaders_and_the_state_of_the_chain(chain: int) -> None:
    assert problems(chain, audit(played(chain))) == []


def test_another_leader_is_found_at_its_height(world: ElectionWorld) -> None:
    for height in (1, 100, 140, 200):
        export = audit(world)
        header = export.blocks[0][height - 1].header
        changed = Space(**{name: getattr(header, name) for name in ("height", "view", "proposer")})
        changed.proposer = (header.proposer + 1) % 4
        export.blocks[0][height - 1].header = changed
        (text,) = problems(0, export)
        assert text.startswith(f"height {height}: proposer: is {changed.proposer}")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("Ticket", lambda fields: [fields[0], fields[1] + 1]),
        ("Ticket", lambda fields: [fields[0] + 1, fields[1]]),
        ("SeedCommit", lambda fields: [fields[0] + 1, fields[1]]),
        ("SeedReveal", lambda fields: [fields[0], bytes(32)]),
    ],
)
def test_what_could_not_be_accepted_is_found(world: ElectionWorld, kind: str, change: Any) -> None:
    export = audit(world)
    call = next(call for call in export.calls[0] if call.kind == kind)
    call.fields = change(call.fields)
    (text,) = problems(0, export)
    assert text == f"height {call.header.height}: {kind}: it could not be accepted"


@pytest.mark.parametrize("kind", ["Ticket", "SeedCommit", "SeedReveal", "Evidence"])
def test_what_is_left_out_is_found(world: ElectionWorld, kind: str) -> None:
    export = audit(world)
    export.calls[0].remove(next(call for call in export.calls[0] if call.kind == kind))
    assert len(problems(0, export)) == 1


def test_a_state_that_does_not_follow_is_found(world: ElectionWorld) -> None:
    for at in range(6):
        export = audit(world)
        export.state[0]["election"][at] = [] if at > 1 else 0
        wanted = [] if at == 4 and not audit(world).state[0]["election"][4] else 1
        assert bool(problems(0, export)) == bool(wanted)
