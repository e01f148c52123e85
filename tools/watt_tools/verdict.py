"""What `wattpact verify` prints; what holds and what does not is decided in verify.py alone."""

import json
from pathlib import Path


def main(folder: Path, regulator_hex: str | None, *, as_json: bool) -> int:
    """`wattpact verify DIR`: what was checked, then the problems; 0 only when everything holds."""
    from watt_tools.verify import Audit

    audit = Audit()
    try:
        text = regulator_hex or (folder / "trust" / "regulator.pub").read_text()
        problems = audit.run(folder / "export", bytes.fromhex(text.strip()))
    except (OSError, ValueError) as error:
        problems = [f"the regulator's key: {error}"]
    calls = [call for calls in audit.calls.values() for call in calls]
    blocks = [block for blocks in audit.blocks.values() for block in blocks]
    counts = {
        "signatures": len({claim for _, claim in audit.claims}),
        "certificates": len(blocks),
        "blocks": len(blocks),
        "transactions": sum(block.header.tx_count for block in blocks),
        "checkpoints": sum(call.kind == "Checkpoint" for call in calls),
        "records": sum(call.check.count for call in calls if call.kind == "Checkpoint"),
        "bills": sum(call.kind == "Enrol" for call in calls),
        "micro-units": sum(call.fields[1] for call in calls if call.kind == "Deposit"),
    }
    if as_json:
        print(json.dumps({"holds": not problems, "checked": counts, "problems": problems}, indent=1))
        return 1 if problems else 0
    if not problems:
        print("\n".join(f"{count:>15,} {name}" for name, count in counts.items()))
    print("\n".join(problems) or "everything holds")
    return 1 if problems else 0
