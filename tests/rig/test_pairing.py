"""Taking a plug in: the real bleak against the fake BlueZ, behind which the plug's own end of pairing answers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from bench_tools import need_dbus
from cryptography import x509
from watt_chain import crypto
from watt_plug.provision import Identity, Provisioner
from watt_rig.bluez import Characteristic, FakeBlueZ, Peripheral, PrivateBus
from watt_tools import plug_ble
from watt_tools.certificates import Authority
from watt_tools.plug_pair import Household, NewPlug, PairingError, code_of_label, fresh_secret, pair
from watt_wire import pairing, statement

ADDRESS = "02:00:00:00:00:01"
NETWORK = bytes(range(32))


class BoardIdentity(Identity):
    """Keys as a board would have made them. `forged`: the enrolment is signed by another key."""

    def __init__(self, forged: bool = False) -> None:
        self._key = crypto.PrivateKey(fresh_secret())
        self._signing = crypto.PrivateKey(fresh_secret()) if forged else self._key
        self.public = self._key.public
        self.tls_public = crypto.PrivateKey(fresh_secret()).public
        self.asked: list[bytes] = []

    def enrolment(self, network: bytes, challenge: bytes) -> bytes:
        self.asked.append(challenge)
        said = {"network": network, "public": self.public, "firmware_hash": bytes(32), "calibration_hash": bytes(32)}
        body = statement.ENROLMENT.encode(
            statement.Statement({"key_class": 3, "rated_w": 3680}, {**said, "challenge": self.asked[0]})
        )
        return statement.ENROLMENT.seal(body, self._signing.sign(statement.ENROLMENT.message(body)))


class Board:
    """A plug in the air whose pairing end is the firmware's."""

    def __init__(self, identity: BoardIdentity) -> None:
        self.identity = identity
        self.code = pairing.code_of(secrets.token_bytes(16))
        self.end = Provisioner(self.code, identity, secrets.token_bytes)
        notify = Characteristic(pairing.NOTIFY_UUID, ["notify"])
        write = Characteristic(pairing.WRITE_UUID, ["write"])
        write.write = lambda data: [notify.notify(part) for part in self.end.write(data)] and None
        info = Characteristic(pairing.INFO_UUID, ["read"], read=self.end.info)
        services = {pairing.SERVICE_UUID: [info, write, notify]}
        self.peripheral = Peripheral(
            ADDRESS, "plug", services, [pairing.SERVICE_UUID], disconnected=self.end.disconnected
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls", "home-1")


def household(authority: Authority) -> Household:
    party = (1, crypto.PrivateKey(fresh_secret()).public)
    gateway = crypto.PrivateKey(fresh_secret()).public
    return Household("net", "secret", "home-1", "gateway.local", 8883, authority.ca_der, gateway, NETWORK, [party])


def in_the_air(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board: Board, scenario: Callable[[], Awaitable[None]]
) -> None:
    need_dbus()
    monkeypatch.setattr(plug_ble, "SCAN_S", 2)

    async def run() -> None:
        bus = PrivateBus(tmp_path / "bus")
        await bus.start()
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
        radio = FakeBlueZ(bus.address)
        await radio.start()
        radio.advertise(board.peripheral)
        try:
            await scenario()
        finally:
            radio.stop()
            bus.stop()

    asyncio.run(run())


async def taken_in(board: Board, authority: Authority, code: str) -> NewPlug:
    async with plug_ble.connected(ADDRESS) as carrier:
        return await pair(carrier, code, household(authority), authority.certify)


def test_a_plug_is_found_proves_its_code_and_is_told_its_household(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    board = Board(BoardIdentity())

    async def scenario() -> None:
        found = await plug_ble.scan(1)
        assert [(plug.address, plug.name) for plug in found] == [(ADDRESS, "plug")]
        plug = await taken_in(board, authority, board.code)
        assert plug.public == board.identity.public and plug.plug_id == crypto.id8(plug.public)
        assert (plug.key_class, plug.rated_w) == ("plain", 3680)

    in_the_air(tmp_path, monkeypatch, board, scenario)
    settings = board.end.settings
    assert settings is not None
    assert (settings["gateway"], settings["wifi_password"], settings["broker_port"]) == ("home-1", "secret", 8883)
    assert settings["network"] == NETWORK.hex()
    certificate = x509.load_der_x509_certificate(bytes.fromhex(str(settings["certificate"])))
    assert certificate.subject.rfc4514_string() == "CN=" + crypto.id8(board.identity.public).hex()
    certificate.verify_directly_issued_by(x509.load_der_x509_certificate(authority.ca_der))


def test_a_wrong_code_changes_nothing_and_five_lock_the_plug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    board = Board(BoardIdentity())

    async def scenario() -> None:
        for _ in range(5):
            with pytest.raises(PairingError, match="code is not that of this plug"):
                await taken_in(board, authority, "0" * 16)
        with pytest.raises(PairingError, match="locked"):
            await taken_in(board, authority, board.code)

    in_the_air(tmp_path, monkeypatch, board, scenario)
    assert board.end.settings is None and board.identity.asked == []


def test_an_enrolment_signed_by_another_key_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    board = Board(BoardIdentity(forged=True))

    async def scenario() -> None:
        with pytest.raises(PairingError, match="not signed by the key"):
            await taken_in(board, authority, board.code)

    in_the_air(tmp_path, monkeypatch, board, scenario)
    assert board.end.settings is None


def test_a_replayed_enrolment_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Authority) -> None:
    """The board answers every challenge with the first one it saw."""
    board = Board(BoardIdentity())
    board.identity.asked = [bytes(16)]

    async def scenario() -> None:
        with pytest.raises(PairingError, match="another question"):
            await taken_in(board, authority, board.code)

    in_the_air(tmp_path, monkeypatch, board, scenario)


def test_a_code_is_read_as_people_type_it() -> None:
    assert code_of_label("4jge-fh3t x1fh-89s2") == "4JGEFH3TX1FH89S2"
    assert code_of_label("O0iL" * 4) == "0011" * 4
    assert pairing.is_code(code_of_label("4jge-fh3t x1fh-89s2"))
