"""What the doctor sees in files, certificates and reports; with real processes: tests/station/test_doctor.py."""

from __future__ import annotations

import datetime
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from node_bench import Network, Toy, until
from watt_node import certificates, doctor, folder
from watt_node.ask import ANSWER_S, Answer, ask
from watt_node.channel import HANDSHAKE_S, tls_context
from watt_node.config import EndpointSection, TlsSection
from watt_node.diagnose import PHASES, Diagnosis, diagnose
from watt_node.findings import Finding, show
from watt_node.offline import StoppedNode
from watt_node.votelog import peek
from watt_tools import certificates as made

NAMES = [f"area1-node{index}" for index in range(4)]


def status(phase: str = "prepare", missing: tuple[int, ...] = (), **changes: Any) -> dict[str, Any]:
    """Of validator 0 of 4, connected with all others."""
    replica = {"phase": phase, "missing": list(missing), "view": 0, "leader": 1, "silent": "", "doubt": ""}
    link = {"connected": True, "for_s": 60, "problem": "", "dials": False, "queued": 0}
    found = {
        "node": NAMES[0], "height": 10, "validators": NAMES, "q": 3, "n": 4, "key": "00", "rejected_from": {},
        "links": {name: dict(link) for name in NAMES[1:]}, "replica": replica,
    }  # fmt: skip
    return {**found, **changes}


def answer(index: int, ahead_ms: int = 0, problem: str = "", **changes: Any) -> Answer:
    report = {"height": 10, "silent": "", "doubt": "", "key": f"{index:02}", "phase": "prepare", "fetching": None}
    return Answer(NAMES[index], problem, {} if problem else {**report, **changes}, ahead_ms)


def explained(of: dict[str, Any], *answers: Answer, moving: bool = False) -> Diagnosis:
    every = {name: answer(NAMES.index(name)) for name in NAMES[1:]}
    return diagnose(of, {**every, **{one.name: one for one in answers}}, moving, {NAMES[2]: "a4c0"})


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (answer(2, problem="connection-refused"), "nothing listens at its address"),
        (answer(2, problem="timeout"), "the machine is off, or a firewall"),
        (answer(2, problem="certificate-of-area1-node1"), "certificate of area1 node1"),
        (answer(2, silent="following", key="68c1"), "its key 68c1 is not on the list, which has a4c0"),
        (answer(2, silent="doubt", doubt="missing"), "does not trust its memory of votes: missing"),
        (answer(2, silent="below-floor", height=4), "its blocks were lost; it fetches them and is at height 4"),
        (answer(2, silent="asking"), "it has just started and asks"),
        (answer(2, height=4), "behind: at height 4, here it is 10"),
        (answer(2, height=4, fetching=[8, 100, 900]), "it fetches a state: 100 of 900 slots"),
        (answer(2, height=14), "ahead: at height 14"),
        (answer(2, phase="waiting-for-bodies"), "it lacks transactions of the proposal"),
        (answer(2, phase="refused-proposal"), "it has refused the proposal"),
        (answer(2, phase="left-out"), "leaves out what has waited there for long"),
        (answer(2, ahead_ms=-7_300), "its clock is 7.3 s behind this machine's"),
    ],
)
def test_given_a_missing_vote_when_its_validator_answers_then_the_reason_is_named(reply: Answer, expected: str) -> None:
    found = explained(status(missing=(2,)), reply)
    assert [one.name for one in found.waiting] == [NAMES[2]] and found.others == ()
    assert expected in "; ".join(found.waiting[0].reasons)


def test_given_a_link_that_is_gone_when_explained_then_how_long_and_who_answers_instead() -> None:
    gone = status(missing=(2, 3))
    gone["links"][NAMES[2]] = {"connected": False, "for_s": 35, "problem": "certificate-of-area1-node1"}
    gone["links"][NAMES[3]] = {"connected": False, "for_s": None, "problem": ""}
    found = explained(gone, answer(2, problem="connection-refused"))
    assert found.waiting[0].reasons[1] == "not connected for 35 s: area1-node1 answers at its address"
    assert found.waiting[1].reasons == ("not connected since this node started",)
    assert found.able == 2 and found.quorum == 3


def test_given_rejected_messages_when_the_vote_is_missing_then_they_are_counted_by_reason() -> None:
    told = status(missing=(2,), rejected_from={NAMES[2]: {"frame-signature": 14}, NAMES[3]: {"time": 1}})
    found = explained(told, answer(2, height=14))
    assert "14 of its messages were rejected here: frame-signature" in found.waiting[0].reasons
    assert found.others == (), "something rejected once is no reason to name a validator that takes part"


def test_given_our_own_silence_or_no_reason_when_explained_then_it_says_so() -> None:
    silent = status(missing=(0, 2))
    silent["replica"] |= {"silent": "doubt", "doubt": "copied"}
    found = explained(silent)
    assert found.waiting[0].reasons == ("this node itself: it does not trust its memory of votes: copied",)
    assert "look at its own doctor" in found.waiting[1].reasons[0]
    led = explained(status("waiting-for-proposal", missing=(1,)))
    assert "it leads this view and has not proposed" in led.waiting[0].reasons[0]


@pytest.mark.parametrize(
    ("of", "replies", "level", "text"),
    [
        (status("idle"), (), "ok", "nothing waits for a block"),
        (status("following"), (), "warn", "only follows"),
        (status("prepare", (2,)), (), "warn", "waits in view 0, led by area1-node1"),
        (status("prepare", (2, 3)), (answer(2, problem="timeout"), answer(3, problem="timeout")), "bad", "2 can sign"),
    ],
)  # fmt: skip
def test_given_a_diagnosis_when_told_then_the_first_line_says_whether_the_chain_stands(
    of: dict[str, Any], replies: tuple[Answer, ...], level: str, text: str
) -> None:
    lines = doctor.explain(explained(of, *replies), "area1")
    assert lines[0].level == level and text in lines[0].what
    assert all(one.level == "bad" for one in lines if one.what.startswith("missing")) == (
        level == "bad" or len(lines) < 2
    )


def test_every_phase_of_a_replica_has_words() -> None:
    from watt_chain.pbft import diagnosis

    source = Path(str(diagnosis.__file__)).read_text()
    for phase in ("view-change", "waiting-for-proposal", "idle", "waiting-for-bodies", "refused-proposal", "left-out"):
        assert f'"{phase}"' in source
        assert phase in PHASES
    assert {"commit", "prepare", "following"} <= set(PHASES)


# --- over the network


async def test_given_running_nodes_when_asked_then_each_tells_where_it_stands(tmp_path: Path) -> None:
    network = Network(tmp_path, areas=(4, 1))
    nodes = await network.start_chain(1)
    await nodes[0].submit(network.transaction("ann", 1))
    await until(lambda: all(node.height() >= 1 for node in nodes))
    context = tls_context(network.tls("area1-node3"), server=False)

    async def asked(index: int, chain: int = 1, name: str = "area1-node3", net: bytes = network.network) -> Answer:
        place = EndpointSection(chain=chain, index=index, host="127.0.0.1", port=network.port(1, index % 4))
        return await ask(place, context, name, net)

    told = await asked(1)
    assert told.problem == "" and abs(told.ahead_ms) <= (HANDSHAKE_S + ANSWER_S) * 500  # half of the longest way
    assert told.report["node"] == "area1-node1" and told.report["height"] >= 1 and told.report["silent"] == ""
    assert told.report["key"] == nodes[1].key.public.hex()[:16]
    assert set(told.report["connected"]) == {"area1-node0", "area1-node2", "area1-node3"}
    assert not set(told.report) & {"rejected_from", "refused", "outcomes"}
    assert (await asked(1, net=bytes(32))).problem == "refused-network"
    assert (await asked(5)).problem == "certificate-of-area1-node1"
    assert (await asked(1, name="area1-node2")).problem == "refused-name"
    await network.stop(1, 2)
    assert (await asked(2)).problem == "connection-refused"
    links = nodes[1].status()["links"]
    assert isinstance(links, dict)
    await until(lambda: not nodes[1].status()["links"]["area1-node2"]["connected"])  # type: ignore[index]
    assert nodes[1].status()["links"]["area1-node2"]["for_s"] < 30  # type: ignore[index]
    await network.close()
    assert not network.failures


# --- files


def levels(findings: list[Finding]) -> dict[str, str]:
    return {finding.what: finding.level for finding in findings}


def test_given_files_of_a_stopped_node_when_looked_at_then_damage_is_named_and_nothing_changes(tmp_path: Path) -> None:
    network = Network(tmp_path)
    data = tmp_path / "data"
    assert folder.look(data)[0].what.endswith("new, made at the first start")
    node = StoppedNode(data, network.genesis, network.network, 1, Toy(), doctor_keeping())
    assert folder.is_used(data)
    node.close()
    assert not folder.is_used(data)
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    found = folder.look_at_stores(data, 1, network.network, whole=True)
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before
    assert [one.level for one in found] == ["warn", "ok"]  # a new folder remembers no votes, and says so
    assert "does not trust its memory: missing" in found[0].what and found[1].what == "no block yet"
    (data / "blocks.log").write_bytes(before["blocks.log"] + b"half")
    (data / "snapshot-000000000007.state").write_bytes(b"rubbish")
    (data / "blocks.log.damaged").touch()
    found = folder.look_at_stores(data, 1, network.network, whole=True)
    text = "\n".join(one.what for one in found)
    assert "blocks.log: an unfinished record at its end" in text
    assert (
        "snapshot-000000000007.state: it belongs to another" in text or "snapshot-000000000007.state: it is cut" in text
    )
    assert "blocks.log.damaged was set aside" in text
    other = folder.look_at_stores(data, 2, network.network, whole=True)
    assert other[0].level == "bad" and "belongs to another network or chain" in other[0].what
    assert peek(data, 1, network.network).doubt == "missing"
    (data / "copy").write_bytes((data / "votes.log").read_bytes()[:-3])
    (data / "copy").replace(data / "votes.log")
    assert peek(data, 1, network.network).doubt != ""


def doctor_keeping() -> Any:
    from watt_node.vault import Keeping

    return Keeping()


def test_given_a_folder_when_looked_at_then_room_and_the_truth_of_a_sync_are_judged(tmp_path: Path) -> None:
    found = folder.look(tmp_path)
    assert any("free" in one.what for one in found) and any("sync take" in one.what for one in found)
    assert not list(tmp_path.iterdir())
    assert folder.judge_sync(1e-6).level == "bad" and "eatmydata" in folder.judge_sync(1e-6).action
    assert folder.judge_sync(0.002).level == "ok" and folder.judge_sync(0.3).level == "warn"
    memory = Path("/dev/shm")
    if memory.is_dir():
        assert any(one.level == "bad" and "gone with the power" in one.what for one in folder.look(memory))


def test_given_wrong_certificates_when_looked_at_then_each_fault_is_named(tmp_path: Path) -> None:
    good = made.Authority(tmp_path / "one", "net")
    other = made.Authority(tmp_path / "two", "net")
    cert, key = good.issue("area1-node0")
    strange, _ = other.issue("area1-node0")
    _, another = good.issue("area1-node1")

    def seen(ca: Path, cert: Path, key: Path, name: str = "area1-node0") -> str:
        return "\n".join(
            one.what for one in certificates.look(TlsSection(ca=ca, cert=cert, key=key), name) if one.level == "bad"
        )

    assert seen(good.ca_path, cert, key) == ""
    assert "is of area1-node0, not area1-node7" in seen(good.ca_path, cert, key, "area1-node7")
    assert "is not signed by" in seen(good.ca_path, strange, key)
    assert "is not that of" in seen(good.ca_path, cert, another)
    assert "No such file" in seen(tmp_path / "none", cert, key)
    (tmp_path / "text").write_text("hello")
    assert "not a certificate in PEM" in seen(good.ca_path, tmp_path / "text", key)
    assert "not a private key in PEM" in seen(good.ca_path, cert, tmp_path / "text")


@pytest.mark.parametrize(
    ("days", "level", "text"),
    [(90, "ok", "days left"), (10, "warn", "days left"), (-3, "bad", "ended"), (9_999, "bad", "is good from")],
)
def test_given_the_date_when_a_certificate_is_looked_at_then_its_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, level: str, text: str
) -> None:
    authority = made.Authority(tmp_path, "net")
    cert, key = authority.issue("area1-node0")
    today = datetime.datetime.now(datetime.UTC)

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return today + datetime.timedelta(days=made.LEAF_DAYS - days)

    monkeypatch.setattr(certificates.datetime, "datetime", Later)
    section = TlsSection(ca=authority.ca_path, cert=cert, key=key)
    (found,) = [one for one in certificates.look(section, "area1-node0") if str(cert) in one.what]
    assert found.level == level and text in found.what


async def test_given_a_taken_port_and_a_wrong_key_when_a_stopped_node_is_examined_then_both_are_named(
    tmp_path: Path,
) -> None:
    network = Network(tmp_path)
    settings = network.settings(1, 0)
    settings.node.key.write_text(network_key("somebody"))
    with socket.create_server(("127.0.0.1", settings.listen.port)):
        found = await doctor.examine(settings, [])
    bad = "\n".join(one.what for one in found.findings if one.level == "bad")
    assert "cannot listen on" in bad and "genesis names" in bad and "the node does not run" in bad
    assert not found.running and doctor.summary(found) == {"node": "area1-node0", "running": False}


def network_key(name: str) -> str:
    from node_bench import key

    return key(name).to_text()


def test_findings_are_shown_for_people_and_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert show([Finding("ok", "one")]) == 0
    assert capsys.readouterr().out == "ok   one\nall good\n"
    assert show([Finding("warn", "two", "do"), Finding("bad", "three")]) == 1
    assert capsys.readouterr().out == "warn two\n      -> do\nbad  three\n1 to repair, 1 to look at\n"
    assert show([Finding("bad", "three")], as_json=True, more={"node": "x"}) == 1
    told = json.loads(capsys.readouterr().out)
    assert told == {"node": "x", "findings": [{"level": "bad", "what": "three", "action": ""}], "bad": 1}
