"""The independent verifier against an honest run, against attackers without keys, and against a lying quorum."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ecdsa
import msgspec
import pytest
import verify_world as vw
from verify_export import Tree, open_tree, parts
from watt_chain import codec
from watt_chain.contract import area, bidding, credit, incentive, metering, points, settlement
from watt_chain.contract.rules import RULES_2
from watt_chain.crypto import PrivateKey, sha256
from watt_chain.genesis import sign_genesis
from watt_market.engine import Market
from watt_tools import verdict, verify
from watt_tools.structures import NAMES

N = int(ecdsa.NIST256p.order)
CONTRACT = Path(__file__).parents[2] / "station" / "CONTRACT.md"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, bytes]]:
    """(world, files) of one honest event with two households."""
    world, records = vw.play(tmp_path_factory.mktemp("world"))
    return world, vw.export(world, records)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> vw.Folder:
    return vw.Folder(tmp_path_factory.mktemp("export") / "export")


@pytest.fixture
def judge(folder: vw.Folder) -> Callable[[dict[str, bytes]], list[str]]:
    """Problems of an export; signatures that an earlier case computed are not computed again."""
    regulator = vw.load_master_world().REGULATOR.public
    return lambda files: verify.verify(folder.write(files), regulator)


@pytest.fixture
def tree(run: tuple[Any, dict[str, bytes]]) -> Tree:
    return open_tree(run[1])


@pytest.mark.row("E1", "E2", "E3", "E4", "E6", "E7", "E22")
def test_an_honest_export_holds(run: Any, judge: Any) -> None:
    world, files = run
    assert judge(files) == []
    kinds = {tx.kind for chain in world.chains.values() for _, one in chain.applied for tx in one.transactions}
    assert len(kinds) == 18, "the run no longer shows most kinds of calls"
    codes = {receipt.code for chain in world.chains.values() for _, one in chain.applied for receipt in one.receipts}
    assert codes == {"", "balance", "role"}
    assert {home["event"]["status"] for home in json.loads(files["statement.json"])["homes"]} == {
        "performed",
        "breached",
    }


def test_an_export_taken_apart_and_put_together_is_the_same(tree: Tree, run: Any) -> None:
    assert tree.files() == run[1]
    assert tree.forged() == run[1]


def test_what_is_printed_counts_what_was_checked(run: Any, tmp_path: Path, capsys: Any) -> None:
    vw.Folder(tmp_path / "export").write(run[1])
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust/regulator.pub").write_text(vw.load_master_world().REGULATOR.public.hex() + "\n")
    assert verdict.main(tmp_path, None, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "everything holds"
    assert [line.split()[-1] for line in lines[:3]] == ["signatures", "certificates", "blocks"]
    assert verify.main(tmp_path, None, as_json=True) == 0
    checked = json.loads(capsys.readouterr().out)["checked"]
    assert checked["records"] == vw.RECORDS * checked["checkpoints"] > 0
    assert checked["bills"] == 2 and checked["micro-units"] == 100_000_000 + 12_345
    (tmp_path / "export" / "leaves.bin").write_bytes(b"")
    assert verify.main(tmp_path, None, as_json=False) == 1
    assert "leaves.bin" in capsys.readouterr().out


@pytest.mark.parametrize("key", ["00" * 64, "zz", "00"])
def test_a_wrong_trust_anchor_or_a_missing_folder_is_one_clear_line(
    run: Any, tmp_path: Path, key: str, capsys: Any
) -> None:
    assert verdict.main(tmp_path, key, as_json=False) == 1
    assert len(capsys.readouterr().out.splitlines()) == 1
    vw.Folder(tmp_path / "export").write(run[1])
    assert verdict.main(tmp_path, key, as_json=False) == 1
    assert "everything holds" not in capsys.readouterr().out


def test_the_field_names_are_those_of_the_contract() -> None:
    rows = {}
    for line in CONTRACT.read_text().splitlines():
        cells = line.split("|")
        fields = next((cell.strip() for cell in cells if cell.strip().startswith("`[")), "")
        if fields:
            rows[cells[1].strip(" `")] = [part.split(":")[0] for part in fields[2:-2].split(", ") if ":" in part]
    pairs = {
        "Account": "account/<id8>",
        "Rules": "rules/<version>",
        "Event": "event/<n> (area)",
        "Pair": "pair/<n>/<k>",
    }
    pairs |= {"Row": "result/<n>/<id8>", "Spec": "EventSpec"}
    for name, key in pairs.items():
        assert NAMES[name] == rows[key], name


# Attackers without a key ------------------------------------------------------------------------------------


def attacks() -> Iterator[tuple[str, str, Callable[[Tree], None]]]:
    """(name, the file that must be named, what the attacker does to the export before he forges every hash)."""
    yield "drop-a-vote", "chain-1.blocks", lambda t: t.block(1, 5).certificate[1].pop()
    yield "swap-two-votes", "chain-1.blocks", lambda t: t.block(1, 5).certificate[1].reverse()
    yield "a-vote-twice", "chain-1.blocks", lambda t: repeat_vote(t)
    yield "a-vote-of-another-block", "chain-1.blocks", lambda t: borrow_vote(t)
    yield "a-vote-with-high-s", "chain-1.blocks", lambda t: high_s_vote(t)
    yield "a-transaction-with-high-s", "chain-1.blocks", lambda t: high_s_tx(t)
    yield "genesis-with-high-s", "genesis.bin", lambda t: setattr(t, "signature", high_s(t.signature))
    yield "two-transactions-in-the-other-order", "chain-1.blocks", lambda t: many(t).reverse()
    yield "a-transaction-dropped", "chain-1.blocks", lambda t: many(t).pop()
    yield "a-transaction-twice", "chain-1.blocks", lambda t: many(t).append(many(t)[0])
    yield "a-transaction-of-another-area", "chain-2.blocks", lambda t: move_tx(t)
    yield "a-block-dropped-in-the-middle", "chain-1.blocks", lambda t: t.chains[1].blocks.pop(7)
    yield (
        "two-blocks-in-the-other-order",
        "chain-1.blocks",
        lambda t: t.chains[1].blocks.insert(8, t.chains[1].blocks.pop(7)),
    )
    yield "the-codes-of-a-refusal-made-good", "chain-1.blocks", lambda t: accept_all(t)
    yield "a-checkpoint's-leaves-removed", "leaves.bin", lambda t: t.leaves.pop(3)
    yield "a-record-removed", "leaves.bin", lambda t: t.leaves[3][2].pop()
    yield "a-record-changed", "leaves.bin", lambda t: t.leaves[3][2].__setitem__(1, bump(t.leaves[3][2][1]))
    yield "leaves-under-another-checkpoint", "leaves.bin", lambda t: t.leaves[3].__setitem__(1, t.leaves[4][1])
    yield "leaves-in-another-order", "leaves.bin", lambda t: t.leaves.reverse()
    yield "a-bill-changed", "statement.json", lambda t: t.statement["homes"][0].__setitem__("free_u", 1)
    yield "a-bill-removed", "statement.json", lambda t: t.statement["homes"].pop()
    yield "another-event", "statement.json", lambda t: t.statement.__setitem__("event", 2)
    yield "a-state-object-removed", "chain-1.blocks", lambda t: t.chains[1].state.pop()
    yield "a-state-object-added", "chain-1.blocks", lambda t: t.chains[1].state.append([b"account/00", [1]])
    yield "two-state-objects-in-the-other-order", "chain-1.blocks", lambda t: t.chains[1].state.reverse()
    yield "a-block-without-codes", "chain-1", lambda t: t.chains[1].codes.pop()
    yield "main-chain-forgets-its-end", "chain-0", lambda t: cut_main(t)


def bump(frame: bytes) -> bytes:
    """A record with another mean voltage: no number that the contract uses."""
    return frame[:43] + bytes([frame[43] ^ 1]) + frame[44:]


def repeat_vote(tree: Tree) -> None:
    votes = tree.block(1, 5).certificate[1]
    votes[2] = votes[1]


def borrow_vote(tree: Tree) -> None:
    tree.block(1, 5).certificate[1][0] = tree.block(1, 6).certificate[1][0]


def high_s(signature: bytes) -> bytes:
    """The other root of the same equation: what anybody can make of a good signature."""
    return signature[:32] + (N - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")


def high_s_vote(tree: Tree) -> None:
    vote = tree.block(1, 5).certificate[1][0]
    vote[1] = high_s(vote[1])


def high_s_tx(tree: Tree) -> None:
    tx = tree.block(1, 5).txs[0]
    tx.signature = high_s(tx.signature)


def many(tree: Tree) -> list[Any]:
    """The transactions of the first area block that has several, from different signers."""
    return next(b.txs for b in tree.chains[1].blocks if len({tx.signer for tx in b.txs}) > 1)


def move_tx(tree: Tree) -> None:
    tree.block(2, 3).txs.append(tree.block(1, 3).txs[0])
    tree.chains[2].codes[2].append("")


def accept_all(tree: Tree) -> None:
    tree.chains[1].codes = [["" for _ in codes] for codes in tree.chains[1].codes]


def cut_main(tree: Tree) -> None:
    """A true older main chain: nothing in it is wrong, but it no longer holds what the areas sent."""
    blocks = tree.chains[0].blocks
    while len(blocks) > 5:
        blocks.pop()
        tree.chains[0].codes.pop()


ATTACKS = list(attacks())


@pytest.mark.row("E1", "E2", "E3", "E6", "E22")
@pytest.mark.parametrize(("name", "file", "attack"), ATTACKS, ids=[name for name, _, _ in ATTACKS])
def test_an_attacker_who_forges_every_hash_but_holds_no_key_is_found(
    tree: Tree, judge: Any, name: str, file: str, attack: Callable[[Tree], None]
) -> None:
    attack(tree)
    problems = judge(tree.forged())
    assert problems, name
    assert file in problems[0], problems[:3]


@pytest.mark.row("E2")
@pytest.mark.parametrize("chain", [0, 1, 2])
def test_an_older_state_of_a_chain_does_not_pass_as_the_last(run: Any, judge: Any, chain: int) -> None:
    """Everything in a cut chain is genuine, its old state too; what the others have seen of it gives it away."""
    world, files = run
    ledger = world.chains[chain].ledger
    cut = (
        1
        if chain
        else next(  # the main chain's end must hold what an area knows: a message, or an anchor it needs
            number
            for number, (_, applied) in enumerate(reversed(world.chains[0].applied), 1)
            if any(receipt.code == "" and applied.out_messages for receipt in applied.receipts)
        )
    )
    older = type(ledger)(world.genesis, chain, ledger.contract)
    for certified, _ in world.chains[chain].applied[:-cut]:
        older.apply(certified)
    tree = open_tree(files)
    del tree.chains[chain].blocks[-cut:], tree.chains[chain].codes[-cut:]
    tree.chains[chain].state = [[key, msgspec.msgpack.decode(value)] for key, value in older.state.items()]
    tree.statement["chains"][str(chain)] = {"height": older.head.height, "hash": older.head.block_hash.hex()}
    problems = judge(tree.files())
    assert problems and any(f"chain-{other}" in problems[0] for other in range(3)), problems[:2]


@pytest.mark.row("E3")
def test_a_genesis_of_ones_own_is_not_the_networks(run: Any, judge: Any) -> None:
    """Self-made network, self-made regulator: consistent in itself, and refused by the one trusted key."""
    world, files = run
    own = PrivateKey.from_bytes(sha256(b"mallory"))
    genesis = msgspec.structs.replace(world.genesis, regulator=own.public)
    forged = {**files, "genesis.bin": sign_genesis(genesis, own)}
    assert judge(vw.with_manifest(forged))[0] == "genesis.bin: it is by another regulator"
    body = codec.encode(world.genesis)
    signature = own.sign(codec.signing_bytes(b"genesis", codec.ZERO32, body))
    forged = {**files, "genesis.bin": codec.encode([body, signature])}
    assert "genesis.bin" in judge(vw.with_manifest(forged))[0]


def test_a_forged_record_with_a_root_that_fits_is_found_by_the_plugs_signature(tree: Tree, judge: Any) -> None:
    _, hash_, frames = tree.leaves[3]
    frames[0] = frames[0][:27] + bytes([frames[0][27] ^ 1]) + frames[0][28:]
    checkpoints = (tx for block in tree.chains[1].blocks for tx in block.txs if tx.kind == "Checkpoint")
    tx = next(tx for tx in checkpoints if sha256(tx.fields[0][:174]) == hash_)
    root = verify.merkle(frames)
    tx.fields[0] = tx.fields[0][:50] + root + tx.fields[0][82:]
    tree.leaves[3][1] = sha256(tx.fields[0][:174])
    problems = judge(tree.forged())
    assert problems and "chain-1.blocks" in problems[0] and "Checkpoint" in problems[0], problems


# A lying quorum: every block, root and certificate is genuine, and the contract was not followed --------------


def lying(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, change: Callable[..., Any]) -> None:
    """Let every validator run `change(original, ...)` in the place of a function of the contract."""
    original = getattr(place, name)
    monkeypatch.setattr(place, name, lambda *args, **kwargs: change(original, *args, **kwargs))


def _shift_split(original: Any, total: int, weights: list[int]) -> list[int]:
    shares = list(original(total, weights))
    return [shares[0] + 1, shares[1] - 1, *shares[2:]] if len(shares) > 1 and shares[1] > 0 else shares


def _dearer(original: Any, *args: Any) -> Any:
    return [msgspec.structs.replace(one, lambda_u_per_wh=one.lambda_u_per_wh + 1) for one in original(*args)]


def _steal(original: Any, session: Any, event: Any) -> Any:
    rows = original(session, event)
    for row in rows[:1]:
        session.move(row.user, free_u=-1)
        session.move(session.office("grid").id, free_u=1)
    return rows


LIES: dict[str, tuple[list[tuple[Any, str, Any]], str]] = {
    "a better credit": ([(credit, "credit_after", lambda f, *a: f(*a) + 1)], "credit"),
    "a smaller penalty": ([(settlement, "penalty_u", lambda f, *a: f(*a) // 2)], "penalty_u"),
    "another mean price": ([(settlement, "mean_price_u_per_wh", lambda f, *a: f(*a) + 1)], "mean_price_u_per_wh"),
    "a split that favours one slot": ([(credit, "largest_remainder", _shift_split)], "short_wh"),
    "another strength": ([(points, "strength_now", lambda f, *a: f(*a) + 1)], "strength"),
    "points for nobody": ([(points, "largest_remainder", lambda f, n, w: [0 for _ in w])], "points"),
    "a free quota": ([(bidding, "reduced_wh", lambda f, *a: [wh + 1 for wh in f(*a)])], "quota_wh"),
    "a meter that flatters": ([(metering, "metered_wh", lambda f, *a: [wh - 1 for wh in f(*a)])], "metered_wh"),
    "a dearer peak": (
        [(Market, "dispatch", _dearer), (Market, "check_dispatch", lambda f, *a: "")],
        "chain-0.state: event/1",
    ),
    "a dearer offer": ([(bidding, "Offer", lambda f, i, u, p, *rest: f(i, u, p + 1, *rest))], "not what was revealed"),
    "a larger deviation": ([(credit, "Metered", lambda f, e, o, u: f(e, [wh + 1 for wh in o], u))], "Metered"),
    "points from nowhere": ([(area, "Pool", lambda f, p, i: f(p + 1, i))], "pool"),
    "money from nowhere": ([(area, "Supply", lambda f, d, w: f(d + 1, w))], "supply"),
    "a theft": ([(incentive, "rows_of", _steal)], "account/"),
    "any opening": (
        [(bidding, "commitment_of", lambda f, *a: bytes(32)), (vw, "commitment_of", lambda f, *a: bytes(32))],
        "not its opening",
    ),
    "another incentive": ([(Market, "incentive_price", lambda f, *a: f(*a) + 1)], "rp/"),
}


@pytest.mark.row("E7", "E22", "A12", "A15")
@pytest.mark.parametrize("lie", LIES)
def test_a_quorum_that_signs_a_wrong_result_is_found(
    lie: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, judge: Any
) -> None:
    changes, word = LIES[lie]
    for place, name, change in changes:
        lying(monkeypatch, place, name, change)
    world, records = vw.play(tmp_path)
    problems = judge(vw.export(world, records))
    assert problems, "the lie passed"
    assert any(word in problem for problem in problems), problems


@pytest.mark.parametrize("seed", range(3))
def test_the_verifier_and_the_contract_agree_on_households_of_every_kind(
    seed: int, tmp_path: Path, judge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No reveal, a refused match, late checkpoints, discontinuities, over- and under-use; rule set 2 in one of them."""
    master = vw.load_master_world()
    if seed == 1:
        rules = msgspec.structs.replace(RULES_2, version=1, excluded_classes=[])
        monkeypatch.setattr(master, "RULES_1", rules)
    habits = [
        vw.Habits(), vw.Habits(reveals=False), vw.Habits(accepts=False), vw.Habits(misses=(5 + seed,)),
        vw.Habits(breaks=(6,)), vw.Habits(withdraws_u=77), vw.Habits(), vw.Habits(commits=False),
    ]  # fmt: skip
    sides = ["sell", "buy", "sell", "buy", "buy", "sell", "sell", "buy"]
    people = []
    for number in range(8):
        side = sides[(number + seed) % 8]
        use = master.QUOTA_WH + (-60 + 7 * number if side == "sell" else 60 - 9 * seed + number)
        price = 200 + 11 * number if side == "sell" else 700 + 13 * number
        people.append((habits[number], 1 + number % 2, 1 + number // 2, side, price, use))
    world, records = vw.play(tmp_path, *people)
    assert judge(vw.export(world, records)) == []


def test_bytes_that_are_no_export_give_problems_and_never_an_exception(run: Any, judge: Any, tmp_path: Path) -> None:
    _, files = run
    regulator = vw.load_master_world().REGULATOR.public
    assert len(verify.verify(tmp_path / "nowhere", regulator)) == 1
    nested = b"\x91" * 5000 + b"\x90"
    for name in files:
        for data in (
            b"",
            b"\x00",
            b"\xc1" * 9,
            nested,
            b"\xff\xff\xff\xff" + nested,
            files[name] + b"\x00",
            b"[" * 5000,
        ):
            problems = judge(
                vw.with_manifest({**files, name: data}) if name != "manifest.json" else {**files, name: data}
            )
            assert problems, (name, data[:9])
            assert any(one in problems[0] for one in files), problems
        without = {other: data for other, data in files.items() if other != name}
        assert judge(without)
        assert name == "manifest.json" or judge(vw.with_manifest(without))
    assert judge(vw.with_manifest({**files, "more.bin": b""}))


def test_a_second_spelling_of_the_same_content_is_refused(run: Any, judge: Any) -> None:
    """What no hash and no signature covers: certificates, lengths, JSON."""
    _, files = run
    spaced = json.dumps(json.loads(files["statement.json"]), sort_keys=True).encode() + b"\n"
    assert "canonical" in judge(vw.with_manifest({**files, "statement.json": spaced}))[0]
    first, *rest = parts(files["chain-1.blocks"])
    block, certificate = msgspec.msgpack.decode(first)
    assert certificate[:2] == b"\x92\x00"
    longer = codec.encode([block, b"\x92\xcc\x00" + certificate[2:]])
    assert "canonical" in judge(vw.with_manifest({**files, "chain-1.blocks": vw.framed([longer, *rest])}))[0]
    last = parts(files["leaves.bin"])[-1]
    at = len(files["leaves.bin"]) - len(last) - 4
    size = (len(last) + 1).to_bytes(4, "big")
    overlong = files["leaves.bin"][:at] + size + last
    assert "leaves.bin" in judge(vw.with_manifest({**files, "leaves.bin": overlong}))[0]


@pytest.mark.parametrize("change", ["pop", "reverse"])
def test_a_state_that_was_not_certified_is_named(tree: Tree, judge: Any, change: str) -> None:
    getattr(tree.chains[1].state, change)()
    assert judge(tree.files()) == ["chain-1.state: not under the state root of the last block"]


def test_an_event_that_is_not_over_gives_no_verdict_on_its_bills(tmp_path: Path, judge: Any) -> None:
    world, records = vw.play(tmp_path, until_s=5000)
    problems = judge(vw.export(world, records))
    assert len(problems) == 1 and problems[0].endswith("event 1 is not over"), problems


@pytest.mark.row("E1", "E22")
def test_a_flipped_byte_is_found_with_and_without_a_manifest_that_fits(run: Any, judge: Any) -> None:
    """Every 101st byte of the export, one bit each."""
    _, files = run
    for name, data in files.items():
        for at in range(len(name) % 7, len(data), 101):
            flipped = data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
            problems = judge({**files, name: flipped})
            assert problems and (name in problems[0] or name == "manifest.json"), (name, at, problems)
            if name != "manifest.json":
                problems = judge(vw.with_manifest({**files, name: flipped}))
                assert problems and any(other in problems[0] for other in files), (name, at, problems)


def test_an_aborted_event_moves_no_money_and_has_no_bills(tmp_path: Path, judge: Any) -> None:
    """The master sleeps until the matching is late: the accounts hold, and the statement has nothing to state."""
    world, records = vw.play(tmp_path, until_s=2_850)
    step, world.master_step = world.master_step, list
    world.run(world.event.confirm_close_s)
    world.master_step = step
    world.boot()
    world.run(world.genesis.protocol_start_s + vw.END_S)
    assert judge(vw.export(world, records)) == ["statement.json: event 1 is not CLOSED"]
