"""The bench end to end: real interpreters, a broker, and batches that a second implementation verifies."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
from pathlib import Path

import ecdsa
import pytest
from bench_tools import START_S, Bench, decoded, need, register_mwh, watts
from small_broker import SmallBroker
from watt_wire import batch, checkpoint, merkle

HOUR_S = START_S + 3600
HOUR_BATCHES = 5
"BOOT and four quarter hours."


def public_of(name: str) -> bytes:
    secret = hashlib.sha256(name.encode()).digest()
    return bytes(ecdsa.SigningKey.from_string(secret, ecdsa.NIST256p, hashlib.sha256).verifying_key.to_string())


def assert_verifies(data: bytes, public: bytes) -> None:
    """Check a batch with the ecdsa package and hashlib alone, from the offsets of WIRE.md."""
    count, body, signature, records = int.from_bytes(data[4:6], "big"), data[6:180], data[180:244], data[244:]
    key = ecdsa.VerifyingKey.from_string(public, ecdsa.NIST256p, hashlib.sha256)
    assert key.verify(signature, b"wattpact/1/checkpoint\x00" + body)
    assert body[2:10] == hashlib.sha256(public).digest()[:8]
    leaves = [merkle.leaf_hash(records[at : at + 75]) for at in range(0, len(records), 75)]
    assert len(leaves) == count and merkle.root(leaves) == body[50:82]


def run_hour(folder: Path, interpreter: str) -> list[tuple[str, bytes]]:
    broker = SmallBroker()
    with Bench(folder, broker.port, [{"name": "one", "interpreter": interpreter}], HOUR_S) as bench:
        batches = broker.wait(HOUR_BATCHES)
        code, errors = bench.stop()
        assert (code, errors) == (0, "")
    broker.close()
    return batches


@pytest.mark.device
@pytest.mark.row("C3", "C12", "E6")
@pytest.mark.parametrize("interpreter", ["cpython", "micropython", "wasm"])
def test_a_plug_signs_what_its_chip_measured(tmp_path: Path, interpreter: str) -> None:
    need(interpreter)
    batches = run_hour(tmp_path, interpreter)
    plug_id = hashlib.sha256(public_of("one")).digest()[:8]
    for topic, data in batches:
        assert topic == f"wp/1/home/home-one/plug/{plug_id.hex()}/batch"
        assert_verifies(data, public_of("one"))
    found = decoded(batches)
    assert [head.reason for head, _ in found] == [checkpoint.BOOT] + [checkpoint.PERIODIC] * 4
    for head, records in found:
        assert head.import_mwh == register_mwh(watts(0), head.time_s)
        for item in records:
            assert item.import_mwh == register_mwh(watts(0), item.start_s + item.duration_s)
            power_mw = watts(0)[(item.start_s - START_S) // 60] * 1000
            # One step of the chip's power cycle is coefficient / power counts: below 1 in 1000 here.
            assert item.p_min_mw == item.p_max_mw and abs(item.p_mean_mw - power_mw) <= 1 + power_mw // 1000
            assert abs(item.v_mean_mv - 230_000) < 300 and item.relay == 1
            assert item.flags == 0 and item.duration_s == 60


@pytest.mark.device
def test_all_interpreters_make_byte_identical_batches(tmp_path: Path) -> None:
    for interpreter in ("micropython", "wasm"):
        need(interpreter)
    runs = [set(run_hour(tmp_path / name, name)) for name in ("cpython", "micropython", "wasm")]
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.row("E5")
@pytest.mark.parametrize("interpreter", ["cpython", "micropython"])
def test_a_power_cut_loses_no_energy_and_counts_none_twice(tmp_path: Path, interpreter: str) -> None:
    need(interpreter)
    broker = SmallBroker()
    plugs = [{"name": "one", "interpreter": interpreter}]
    with Bench(tmp_path, broker.port, [dict(plug) for plug in plugs], HOUR_S, speed=900) as bench:
        broker.wait(3)
        bench.kill()
    with Bench(tmp_path, broker.port, plugs, HOUR_S) as bench:
        batches = broker.wait(HOUR_BATCHES + 1)
        assert bench.stop()[0] == 0
    broker.close()
    found = decoded(batches)
    assert [head.counter for head, _ in found] == list(range(1, len(found) + 1))
    assert [head.reason for head, _ in found].count(checkpoint.BOOT) == 2
    assert {head.boot_id for head, _ in found} == {1, 2}
    for head, _ in found:
        assert head.import_mwh == register_mwh(watts(0), head.time_s)
    sequence = [item.sequence for _, records in found for item in records]
    assert sequence == list(range(1, 61))
    frames = sorted((batch.decode(data)[0] for _, data in set(batches)), key=lambda frame: frame[14:18])
    for before, after in itertools.pairwise(frames):
        assert checkpoint.decode(after).previous == checkpoint.frame_hash(before)


@pytest.mark.device
def test_a_dead_interpreter_is_started_again_and_goes_on(tmp_path: Path) -> None:
    need("micropython")
    broker = SmallBroker()
    with Bench(tmp_path, broker.port, [{"name": "one", "interpreter": "micropython"}], HOUR_S, speed=900) as bench:
        broker.wait(2)
        assert bench.process is not None
        children = subprocess.run(["pgrep", "-P", str(bench.process.pid)], capture_output=True, text=True, check=True)
        os.kill(int(children.stdout.split()[0]), 9)
        found = decoded(broker.wait(HOUR_BATCHES + 1))
        code, errors = bench.stop()
    broker.close()
    assert code == 0 and "ended with exit code" in errors
    assert found[-1][0].import_mwh == register_mwh(watts(0), HOUR_S)


def test_batches_survive_a_broker_that_cuts_connections_and_a_gateway_that_is_away(tmp_path: Path) -> None:
    broker = SmallBroker(acknowledges=False)
    with Bench(tmp_path, broker.port, [{"name": "one"}], HOUR_S) as bench:
        broker.wait(1)
        bench.wait_status(lambda found: found["unacknowledged"] == HOUR_BATCHES)
        broker.acknowledges = True
        broker.drop_clients()
        broker.wait(HOUR_BATCHES)
        code, _ = bench.stop()
    broker.close()
    assert code == 0
    assert [head.counter for head, _ in decoded(broker.batches)] == [1, 2, 3, 4, 5]


def test_the_connection_is_mutual_tls(tmp_path: Path) -> None:
    import ssl

    from watt_tools.certificates import Authority

    authority = Authority(tmp_path / "tls", "test")
    server, client = authority.issue("broker"), authority.issue("rig-one")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(*server)
    context.load_verify_locations(authority.ca_path)
    context.verify_mode = ssl.CERT_REQUIRED
    broker = SmallBroker(context)
    tls = "".join(
        f"{key} = {json.dumps(str(path))}\n"
        for key, path in (("ca", authority.ca_path), ("cert", client[0]), ("key", client[1]))
    )
    with Bench(tmp_path, broker.port, [{"name": "one"}], HOUR_S, tls=tls) as bench:
        broker.wait(HOUR_BATCHES)
        assert bench.stop() == (0, "")
    broker.close()


def test_a_cooperative_household_keeps_to_its_plan_and_a_defaulter_does_not(tmp_path: Path) -> None:
    quota_wh = [100, 37, 250]
    broker = SmallBroker()
    plan = {"event": 1, "state": "CONFIRMED", "slots": quota_wh, "window_start_s": START_S + 900, "slot_s": 900}
    names = ("good", "bad")
    for name in names:
        broker.retained[f"wp/1/home/home-{name}/plan"] = json.dumps({**plan, "trades": 1}).encode()
    broker.retained["wp/1/home/home-idle/plan"] = json.dumps({**plan, "trades": 0}).encode()
    plugs: list[dict[str, object]] = [
        {"name": "good", "resident": "cooperative", "watts": watts(0)},
        {"name": "bad", "resident": "defaulter", "watts": watts(0)},
        {"name": "idle", "resident": "cooperative", "watts": watts(0)},
    ]
    with Bench(tmp_path, broker.port, plugs, HOUR_S, speed=600) as bench:
        batches = broker.wait(3 * HOUR_BATCHES)
        assert bench.stop()[0] == 0
    broker.close()

    def metered_wh(name: str) -> list[int]:
        mine = decoded([entry for entry in batches if f"/home-{name}/" in entry[0]])
        values = [head.import_mwh // 1000 for head, _ in mine if head.time_s > START_S]
        return [after - before for before, after in itertools.pairwise(values)]

    natural = [register_mwh(watts(0), START_S + 900 * n) // 1000 for n in range(1, 5)]
    unplanned = [after - before for before, after in itertools.pairwise(natural)]
    assert metered_wh("good") == quota_wh
    assert metered_wh("bad") == metered_wh("idle") == unplanned


def test_many_plugs_share_one_process_and_the_status_shows_them(tmp_path: Path) -> None:
    broker = SmallBroker()
    plugs: list[dict[str, object]] = [{"name": f"p{number}"} for number in range(10)]
    with Bench(tmp_path, broker.port, plugs, START_S + 900) as bench:
        broker.wait(20)
        status = bench.wait_status(lambda found: found["unacknowledged"] == 0)
        assert bench.stop() == (0, "")
    broker.close()
    assert status["signed"] == 20 and status["lag_s"] == 0
    assert isinstance(status["plugs"], dict) and len(status["plugs"]) == 10


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('interpreter = "cpython"', 'interpreter = "java"'), "micropython"),
        (("rated_w = 3680", "rated_w = 0"), "rated_w = 0"),
        (("rated_w = 3680", "rated_watts = 3680"), "did you mean 'rated_w'"),
        ((".json", ".jsn"), "not a load file"),
        ((".key", ".kee"), "cannot read the key"),
        (('interpreter = "cpython"', 'interpreter = "micropython"\ninterpreter_path = "/nowhere/mpy"'), "cannot start"),
    ],
)
def test_a_rig_that_cannot_run_says_why_in_one_line(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    bench = Bench(tmp_path, 1, [{"name": "one"}], HOUR_S)
    bench.path.write_text(bench.path.read_text().replace(*change))
    with bench:
        code, errors = bench.finish()
    assert code == 1 and said in errors and errors.count("\n") == 1


def test_a_damaged_journal_stops_the_rig_instead_of_signing(tmp_path: Path) -> None:
    broker = SmallBroker()
    with Bench(tmp_path, broker.port, [{"name": "one"}], START_S + 900) as bench:
        broker.wait(2)
        bench.stop()
    for path in (tmp_path / "one/flash").glob("journal*"):
        path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    sent = len(broker.batches)
    with Bench(tmp_path, broker.port, [{"name": "one"}], HOUR_S) as bench:
        code, errors = bench.finish()
    broker.close()
    assert code == 1 and "no valid journal slot" in errors
    assert len(broker.batches) == sent
