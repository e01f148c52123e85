"""A state that was being fetched when the power went: what had come is there at the next start."""

from watt_chain import codec
from watt_chain.pbft import Output
from watt_chain.snapshot import Manifest, StateRange
from watt_node.vault import Keeping, Vault
from watt_sim.power import PowerDisk

NETWORK = bytes(range(32))


def test_given_parts_of_a_fetched_state_when_started_again_then_the_transfer_goes_on_from_them() -> None:
    disk = PowerDisk()
    manifest = Manifest(b"header", b"certificate", 300, [bytes(32), bytes(32)], [])
    parts = [StateRange(0, [(b"key", b"value")], [bytes(32)]), StateRange(256, [(b"other", b"value")], [])]
    vault = Vault(disk, 1, NETWORK, Keeping())
    output = Output(parts=(codec.encode(manifest), *(codec.encode(part) for part in parts)))
    vault.carry_out(output, lambda to, frame: None, lambda certified, applied: None)
    vault.close()
    assert Vault(disk, 1, NETWORK, Keeping()).interrupted() == (manifest, parts)
