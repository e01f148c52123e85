"""The hash that names the constants in use: of the chip alone, or with the calibration over it (DEVICE.md 4)."""

import hashlib


def calibration_hash(coefficients: "tuple[int, int, int]", calibration: object = None) -> bytes:
    """Return the hash of the constants in use: of the chip alone, or of those and the calibration over them."""
    data = b"wattpact/1/cse7766\x00"
    for value in coefficients:
        data += value.to_bytes(4, "big")
    plain = hashlib.sha256(data).digest()
    if calibration is None:
        return plain
    return hashlib.sha256(b"wattpact/1/calibration\x00" + plain + calibration.text()).digest()  # type: ignore[attr-defined]
