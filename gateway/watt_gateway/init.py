"""`wattpact gateway init`: a household key and a configuration to fill in. Never overwrites anything."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from watt_chain import crypto
from watt_wire.topics import is_name

CONFIG = """\
# Wattpact household gateway. Check it with: wattpact gateway doctor --config {path}

[household]
name = "{name}"                    # the name in topics; the certificate's CN must be the same
key = "household.key"              # signs this household's transactions; keep a copy offline

[area]
chain = 1                          # your station area
nodes = 4                          # its station nodes
serving = 0                        # the node asked first

[network]
genesis = "genesis.bin"            # from the operator
regulator = "{zeros}"              # the regulator's public key, from a source you trust

[mqtt.home]                        # the broker of your plugs (on this machine)
host = "127.0.0.1"
port = 8883
ca = "tls/ca.pem"
cert = "tls/{name}.pem"
key = "tls/{name}.key"

[mqtt.area]                        # the broker of the station area
host = "station.example"
port = 8883
ca = "tls/ca.pem"
cert = "tls/{name}.pem"
key = "tls/{name}.key"

[store]
path = "data"

# One section per plug; `wattpact plug provision` prints the public key.
# [[plugs]]
# public = "128 hex digits"
# name = "kettle"
# rated_w = 3680

# A main meter (Eastron SDM120) behind Modbus TCP.
# [modbus]
# host = "127.0.0.1"
# port = 502
# unit = 1
# map = "sdm120"

[plan]
file = "plan.json"                 # {{"side": "sell", "price_u_per_wh": 400, "slot_wh": [100, 100, 100, 100]}}
"""


def run(folder: Path, name: str) -> int:
    """Write FOLDER/gateway.toml and FOLDER/household.key; 0, or 1 with one line when that cannot be done."""
    if not is_name(name):
        print(f"wattpact gateway: name {name!r}: allowed is [a-z0-9-]{{1,32}}", file=sys.stderr)
        return 1
    config, key_file = folder / "gateway.toml", folder / "household.key"
    present = [path for path in (config, key_file) if path.exists()]
    if present:
        print(f"wattpact gateway: {present[0]} exists; init never overwrites", file=sys.stderr)
        return 1
    key = new_key()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(key_file, key.to_text(), 0o600)
        _write(config, CONFIG.format(path=config, name=name, zeros="0" * 128), 0o644)
    except OSError as error:
        print(f"wattpact gateway: {folder}: cannot write: {error.strerror}", file=sys.stderr)
        return 1
    print(f"wrote {config} and {key_file}")
    print(f"public key (give it to the regulator to be enrolled): {key.public.hex()}")
    print(f"account: {crypto.id8(key.public).hex()}")
    print("next: fill in [area], [network] and the brokers, then run the doctor")
    return 0


def new_key() -> crypto.PrivateKey:
    """A fresh P-256 key from the system's randomness."""
    while True:
        try:
            return crypto.PrivateKey.from_bytes(os.urandom(32))
        except ValueError:
            continue  # zero or above the group order: once in 2^32


def _write(path: Path, text: str, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
