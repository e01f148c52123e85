"""`wattpact bill DIR HOME`: one household's bill in words, after checking every proof it carries.

The bill is the file the household's own gateway wrote. It is checked here with the genesis file and the regulator's
key alone; exit code 1 when one number in it is not proven.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from watt_chain.codec import DecodeError
from watt_chain.genesis import open_genesis
from watt_chain.light import LightClient
from watt_gateway import bill as documents

from watt_tools.show import money, signed


def main(folder: Path, home: str | None, *, as_json: bool) -> int:
    """Print the bill and whether it holds; exit code 1 when there is none or a proof fails."""
    homes = sorted(path.parent.name for path in (folder / "homes").glob("*/bill.json"))
    if home is None:
        print("\n".join(homes) if homes else f"{folder}: no bill yet")
        return 0 if homes else 1
    path = folder / "homes" / home / "bill.json"
    try:
        bill = documents.read(path)
        regulator = bytes.fromhex((folder / "trust/regulator.pub").read_text().strip())
        light = LightClient(*open_genesis((folder / "genesis.bin").read_bytes(), regulator))
    except (OSError, ValueError, DecodeError) as error:
        known = f"; homes with a bill: {', '.join(homes[:6])} ..." if homes and home not in homes else ""
        print(f"wattpact bill: {error}{known}", file=sys.stderr)
        return 1
    problems = documents.check(bill, light)
    if as_json:
        print(json.dumps({"bill": bill, "problems": problems}, indent=1))
    elif not problems or "summary" in bill:
        _print(bill, home, path, problems)
    return 1 if problems else 0


def _print(bill: dict[str, Any], home: str, path: Path, problems: list[str]) -> None:
    summary, proofs = bill["summary"], bill["proofs"]
    sold = sum(summary["sold_wh"])
    print(f"Bill of {home} (account {bill['account']}) for event {bill['event']} in area {bill['chain']}")
    print(f"  quota          {_slots(summary['quota_wh'])}   {summary['baseline']}")
    print(f"  {'sold' if sold else 'bought':14} {_slots(summary['sold_wh'] if sold else summary['bought_wh'])}")
    print(f"  metered        {_slots(summary['metered_wh'])}   from the registers your plug signed")
    print(f"  outside plugs  {summary['outside_wh'] if summary['outside_wh'] >= 0 else 'not metered'}")
    print(f"  result         {summary['status']}: {summary['delivered_wh']} of {summary['agreed_wh']} Wh agreed")
    print()
    for pair in bill["pairs"]:
        energy = sum(pair["slot_wh"])
        verb = "sold to" if pair["role"] == "seller" else "bought in"
        print(f"  {verb} pair {pair['number']:>3}: {energy:>6,} Wh   paid {money(pair['paid_u']):>9}   {pair['state']}")
    for trade in bill["trades"]:
        energy = sum(trade["slot_wh"])
        verb = "sold to" if trade["role"] == "seller" else "bought in"
        print(
            f"  {verb} area {trade['other_area']:>3}: {energy:>6,} Wh   paid {money(trade['paid_u']):>9}   "
            f"{trade['state']}{' (payment on its way)' if trade['state'] == 'SETTLED' else ''}"
        )
    print(f"  for quota      {signed(summary['traded_u']):>12}")
    print(f"  charge         {signed(-summary['charge_u']):>12}   communication, to the grid company")
    print(f"  penalty        {signed(-summary['penalty_u']):>12}   to the grid company")
    print(f"  together       {signed(summary['net_u']):>12}   balance {money(summary['free_u'])}")
    print(f"  credit {summary['credit_before']} -> {summary['credit_after']}, points {summary['points']:,}, ", end="")
    print(f"price of normal use from now on {summary['rp_u_per_wh'] / 1000:.3f} per kWh")
    print()
    print("  your plug's signed checkpoints, each final in a block of your area:")
    for entry in proofs["checkpoints"]:
        print(f"    plug {entry['plug']}   block {entry['height']:>5}   transaction {entry['txid'][:16]}...")
    print("  your own calls:")
    for entry in proofs["calls"]:
        code = entry["code"] or "accepted"
        print(f"    {entry['label']:28} block {entry['height']:>5}   {code}")
    print()
    if problems:
        for problem in problems:
            print(f"  NOT PROVEN: {problem}")
    else:
        count = len(proofs["checkpoints"]) + len(proofs["calls"]) + len(proofs["state"])
        print(f"  every number is proven: {count} proofs checked against the regulator's key. File: {path}")


def _slots(values: list[int]) -> str:
    """Per-slot Wh and their sum; a missing slot is a dash."""
    cells = " ".join("    -" if value < 0 else f"{value:>5,}" for value in values)
    return f"{cells} = {sum(value for value in values if value >= 0):>6,} Wh"
