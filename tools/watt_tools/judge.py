"""Judges a finished run: replays it, exports it, checks every promise of the demo and prints what it comes to.

Each check is computed from the stores of the daemons or from the export, never from what the demo meant to happen.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from watt_chain import codec
from watt_chain.block import decode_certified
from watt_chain.contract import credit, kinds, objects, rematch, settlement
from watt_chain.contract.cross_objects import CrossTrade, cross_key
from watt_chain.contract.event import EventSpec
from watt_chain.contract.rematch_kinds import Rematch
from watt_chain.contract.rules import RULES_1, RULES_2
from watt_chain.genesis import MAIN_CHAIN
from watt_chain.ledger import CorruptionError
from watt_market import lower
from watt_node.status import read_json
from watt_node.store import StoreError, read_blocks

from watt_tools import export, picture, progress, verify
from watt_tools.network import NODES_PER_AREA, Network
from watt_tools.readout import OBJECT_SIZE_MAX, Readout, outcome_hash, read

TRADES_MIN = 5
"A demo with fewer matched trades shows no market."
QUARTER_S = 900
TABLE_WIDTH = 112

Check = tuple[str, bool, str]


@dataclass
class Result:
    """Everything the demo prints, as data."""

    stated: dict[str, Any]
    evening: picture.Evening
    checks: list[Check]
    grid: dict[str, int]
    clearing: dict[str, int]
    side_by_side: list[dict[str, Any]]
    "The same evening under rule sets 1 and 2 and under both readings of the settlement."


def report(net: Network, *, as_json: bool) -> int:
    """Judge and print; 0 only if every check held."""
    try:
        readout = read(net.folder)
        stated = export.write(net, readout)
        result = judge(net, readout, stated)
    except (StoreError, CorruptionError, codec.DecodeError, KeyError, OSError) as error:
        print(f"wattpact demo: the run cannot be judged: {error}", file=sys.stderr)
        return 1
    picture.png(result.evening, net.folder / "evening.png")
    if as_json:
        print(json.dumps(_as_data(net, result), indent=1))
    else:
        _print(net, result)
    return 0 if all(held for _, held, _ in result.checks) else 1


def judge(net: Network, readout: Readout, stated: dict[str, Any]) -> Result:
    """Compute all checks and figures of a finished run."""
    event = int(net.description["event"])
    main_event = readout.need(MAIN_CHAIN, objects.event_key(event), objects.MainEvent)
    names = {home["user"]: home["name"] for home in net.homes}
    for home in stated["homes"]:
        home["name"] = names[home["user"]]
    evening = _evening(net, readout, main_event.spec)
    problems = verify.verify(net.folder / "export", net.regulator)
    checks = [
        ("the event closed", main_event.state.value == "CLOSED", f"main chain says {main_event.state.value}"),
        _readings_final(net, readout),
        _money(stated),
        _energy(stated),
        _trades(stated),
        *_across(stated),
        *_halted(net, readout, stated),
        *_second_round(net, readout, main_event),
        _credit(net, stated),
        _certificate(net, readout, event),
        _bills(net, stated),
        ("the independent verifier agrees", not problems, problems[0] if problems else "wattpact verify: no problem"),
    ]
    clearing = {"value_u": main_event.value_u, "bound_u": main_event.bound_u}
    clearing |= {"x_ms": main_event.spec.x_ms, "y_ms": main_event.spec.y_ms}
    clearing["gap_ppm"] = 1_000_000 * (main_event.bound_u - main_event.value_u) // max(1, main_event.bound_u)
    compared = side_by_side(readout, names, main_event)
    return Result(stated, evening, checks, _grid_cost(net, readout, main_event), clearing, compared)


def side_by_side(readout: Readout, names: dict[str, str], event: objects.MainEvent) -> list[dict[str, Any]]:
    """What each rule set, and each reading of equation (9), makes of the same metered evening; one row per home.

    Settlement under the other rule set is computed by the contract's own functions from the same result row; the
    matching is the one that took place.
    """
    found: list[dict[str, Any]] = []
    own = _rules(readout, event)
    for report in event.areas:
        result = readout.object(report.chain, objects.result_key(event.event), objects.Result)
        for user in [] if result is None else result.users:
            row = readout.need(report.chain, objects.result_row_key(event.event, user), objects.ResultRow)
            performance = credit.Performance(row.status, row.delivered_wh, row.short_wh)
            line: dict[str, Any] = {"home": names[user.hex()], "status": row.status, "before": row.credit_before}
            line["delivered_ppm"] = 1_000_000 * row.delivered_wh // max(1, row.agreed_wh)
            for rules in (RULES_1, RULES_2):
                after = credit.credit_after(rules, row.credit_before, performance, row.agreed_wh)
                line[f"credit_{rules.version}"] = after
            for reading in ("A", "C"):
                rules = msgspec.structs.replace(own, reading=reading)
                line[f"penalty_{reading}_u"] = settlement.penalty_u(row, event.lambda_u_per_wh, event.spec, rules)
            found.append(line)
    return sorted(found, key=lambda line: str(line["home"]))


def _readings_final(net: Network, readout: Readout) -> Check:
    """Each plug's own count of what it signed against what stands in blocks."""
    signed: dict[str, dict[str, int]] = {}
    for path in sorted((net.folder / "rig").glob("plugs-*.status.json")):
        signed.update(read_json(path).get("plugs", {}))
    checkpoints = readings = 0
    missing = []
    for home in net.homes:
        plug = readout.need(home["area"], objects.plug_key(bytes.fromhex(home["plug"])), objects.Plug)
        own = signed.get(home["name"], {})
        checkpoints += plug.counter
        readings += plug.next_sequence - 1
        if plug.counter != own.get("counter") or plug.gaps:
            missing.append(f"{home['name']} signed {own.get('counter')}, final {plug.counter}, gaps {plug.gaps}")
    detail = f"{checkpoints} checkpoints over {readings} readings of {len(net.homes)} plugs, none missing"
    return ("every reading that a plug signed is final in a block", not missing, missing[0] if missing else detail)


def _money(stated: dict[str, Any]) -> Check:
    held = all(
        total["users_u"] + total["offices_u"]
        == total["deposited_u"] - total["withdrawn_u"] + total["received_u"] - total["sent_u"]
        for total in stated["totals"].values()
    )
    amount_u = sum(total["deposited_u"] for total in stated["totals"].values())
    return ("money conserves exactly", held, f"{amount_u} micro-units deposited, every one accounted for")


def _energy(stated: dict[str, Any]) -> Check:
    homes = [home["event"] for home in stated["homes"] if home["event"]]
    sold = [sum(slot) for slot in zip(*(home["sold_wh"] for home in homes), strict=True)]
    bought = [sum(slot) for slot in zip(*(home["bought_wh"] for home in homes), strict=True)]
    return ("energy conserves exactly", sold == bought, f"{sum(sold)} Wh of quota sold, {sum(bought)} Wh bought")


def _trades(stated: dict[str, Any]) -> Check:
    settled = sum(1 for pair in stated["pairs"] if pair["state"].lower() == "settled")
    paid = sum(1 for trade in stated["trades"] if trade["state"] == "PAID")
    detail = f"{settled} pairs settled, {paid} trades across areas paid"
    return (f"at least {TRADES_MIN} matched trades", settled + paid >= TRADES_MIN, detail)


def _across(stated: dict[str, Any]) -> list[Check]:
    """With several areas: every trade between them came to its end, and what left one area arrived in another."""
    if len(stated["totals"]) < 2:
        return []
    ended = [trade["state"] for trade in stated["trades"] if trade["state"] in progress.TRADE_OVER]
    sent, received = (sum(total[name] for total in stated["totals"].values()) for name in ("sent_u", "received_u"))
    paid = sum(trade["paid_u"] for trade in stated["trades"])
    held = bool(ended) and len(ended) == len(stated["trades"]) and sent == received == paid
    detail = f"{len(ended)} of {len(stated['trades'])} ended, {paid} micro-units crossed, none on the way"
    return [("trades across areas ended alike on both sides", held, detail)]


def _halted(net: Network, readout: Readout, stated: dict[str, Any]) -> list[Check]:
    """Trades with the area that went dark: ended by the main chain, and in both areas nothing of them is held."""
    if not read_json(net.folder / "mishaps.json").get("halted"):
        return []
    event, wrong, freed = int(net.description["event"]), [], 0
    trades = [trade for trade in stated["trades"] if net.hamlet in (trade["seller_chain"], trade["buyer_chain"])]
    for trade in trades:
        bought = readout.need(trade["buyer_chain"], cross_key(event, trade["number"]), CrossTrade)
        sold = readout.object(trade["seller_chain"], cross_key(event, trade["number"]), CrossTrade)
        held_u = sum(side.escrow_u + side.bond_u for side in (bought, sold) if side is not None)
        if trade["state"] != "KILL" or bought.state != "REFUNDED" or held_u:
            wrong.append(f"trade {trade['number']}: {trade['state']}, buyer {bought.state}, {held_u} still held")
        freed += bought.state == "REFUNDED"
    title = f"area {net.hamlet} went dark: who bought there has its money back"
    detail = ", ".join(wrong) or f"{freed} of {len(trades)} trades killed by the main chain and refunded"
    return [(title, bool(trades) and not wrong, detail)]


def _second_round(net: Network, readout: Readout, event: objects.MainEvent) -> list[Check]:
    """Where refusals set something free, the area was opened a second time and that was matched again."""
    if not _rules(readout, event).rematch_s:
        return []
    missed, late, dropped, again = [], [], 0, 0
    for area in net.trading_areas:
        calls = [final.tx for final in readout.transactions if final.chain == area and not final.code]
        solutions = [codec.decode(tx.fields_raw, Rematch).solution for tx in calls if tx.kind == "Rematch"]
        reopened = any(tx.kind == "Reopen" for tx in calls)
        book = readout.object(area, rematch.rebook_key(event.event), rematch.Rebook)
        again += sum(len(solution.slices[0].assignments) for solution in solutions)
        count = readout.need(area, objects.event_key(event.event), objects.AreaEvent).pairs
        pairs = [readout.need(area, objects.pair_key(event.event, k), objects.Pair) for k in range(1, count + 1)]
        dropped += sum(pair.state == "DROPPED" for pair in pairs)
        if book is None or not (book.over or reopened):
            missed.append(f"area {area} was not opened again")
        elif not reopened:
            late.append(f"; in area {area} the matching came too late for a second round: this machine is busy")
    detail = f"{dropped} pairs dropped, {again} made of what they freed" + "".join(late)
    return [("what was refused was matched a second time", not missed, ", ".join(missed) or detail)]


def _credit(net: Network, stated: dict[str, Any]) -> Check:
    defaulters = {home["name"] for home in net.homes if home["behaviour"] == "defaulter"}
    wrong = []
    for home in stated["homes"]:
        if home["event"] is None:
            continue
        change = home["event"]["credit_after"] - home["event"]["credit_before"]
        if change != (-4 if home["name"] in defaulters else 2):
            wrong.append(f"{home['name']} changed by {change:+d}")
    breached = sum(1 for home in stated["homes"] if home["event"] and home["event"]["status"] == "breached")
    held = not wrong and breached == len(defaulters) == 1
    return ("one default with -4, all others +2", held, ", ".join(wrong) or f"{breached} default")


def _bills(net: Network, stated: dict[str, Any]) -> Check:
    """The bill each household's gateway made by itself, from proofs alone, against the settled row."""
    wrong: list[str] = []
    held = 0
    for home in stated["homes"]:
        if home["event"] is None:
            continue
        bill = progress.bill_of(net, home["name"])
        same = all(bill.get("summary", {}).get(name) == value for name, value in home["event"].items())
        if bill.get("state") == "CLOSED" and same:
            held += 1
        else:
            wrong.append(f"{home['name']}: " + ("its bill differs" if bill else "no bill"))
    return ("every household holds its own bill", not wrong, ", ".join(wrong[:3]) or f"{held} bills agree")


def _certificate(net: Network, readout: Readout, event: int) -> Check:
    """Every station has executed, and so checked, the block that carries its area's slice of the matching."""
    missing = []
    stations = 0
    for area in net.trading_areas:  # the hamlet's event ended without one
        height = _match_height(readout, area)
        wanted = readout.blocks[area][height - 1] if height else b""
        for index in range(NODES_PER_AREA):
            path = net.folder / f"area{area}/node{index}/blocks.log"
            own = list(read_blocks(path))[height - 1 : height] if height else []
            if own and decode_certified(own[0])[0].block == decode_certified(wanted)[0].block:
                stations += 1
            else:
                missing.append(f"area{area}-node{index}")
    detail = f"missing at {', '.join(missing)}" if missing else f"{stations} stations executed the check"
    detail += f"; area {net.hamlet} took no part" if net.hamlet else ""
    return ("the matching certificate was verified by all stations", not missing, detail)


def _match_height(readout: Readout, area: int) -> int:
    for final in readout.transactions:
        if final.chain == area and final.tx.kind == "Inbox" and not final.code:
            fields = codec.decode(final.tx.fields_raw, kinds.Inbox, OBJECT_SIZE_MAX)
            if any(codec.decode(entry.message, list)[3] == "Match" for entry in fields.entries):
                return final.height
    return 0


def _evening(net: Network, readout: Readout, spec: EventSpec) -> picture.Evening:
    """Quarter-hour means of all homes: metered by the plugs, and as their unchanged profiles would have been."""
    registers: dict[bytes, dict[int, int]] = {}
    for _, checkpoint in readout.checkpoints():
        registers.setdefault(checkpoint.plug_id, {})[checkpoint.time_s] = checkpoint.import_mwh
    start_s = int(net.description["protocol_start_s"])
    first_s = -(-start_s // QUARTER_S) * QUARTER_S
    last_s = min(max(times) for times in registers.values()) // QUARTER_S * QUARTER_S
    slots = (last_s - first_s) // QUARTER_S
    after_w, before_w = [0] * slots, [0] * slots
    for home in net.homes:
        times = registers[bytes.fromhex(home["plug"])]
        profile = json.loads((net.folder / "rig/load" / f"{home['name']}.json").read_text())
        step_s, watts = profile["step_s"], profile["watts"]
        for slot in range(slots):
            begin_s = first_s + slot * QUARTER_S
            if begin_s in times and begin_s + QUARTER_S in times:
                after_w[slot] += (times[begin_s + QUARTER_S] - times[begin_s]) * 3600 // QUARTER_S // 1000
            at = (begin_s - profile["start_s"]) // step_s
            taken = watts[at : at + QUARTER_S // step_s]
            before_w[slot] += sum(taken) // max(1, len(taken))
    opening = (spec.window_start_s - first_s) // QUARTER_S
    closing = (spec.window_end_s - first_s) // QUARTER_S
    quotas = _quota_wh(net, spec)
    cap_w = max(quotas) * 3600 // spec.slot_s
    return picture.Evening(first_s, QUARTER_S, before_w, after_w, (opening, closing), cap_w)


def _quota_wh(net: Network, spec: EventSpec) -> list[int]:
    """Sum of all homes' quotas per slot (CONTRACT.md: baseline from the standard profile, less what is required)."""
    return [
        sum(
            spec.profile_wh_per_mwh[slot] * home["annual_kwh"] // 1000 * (1_000_000 - spec.required_ppm) // 1_000_000
            for home in net.homes
        )
        for slot in range(spec.slots)
    ]


def _grid_cost(net: Network, readout: Readout, event: objects.MainEvent) -> dict[str, int]:
    """Least cost of the energy above the quotas, with and without the event, and the peaks."""
    spec = event.spec
    evening = _evening(net, readout, spec)
    first, last = evening.window
    quotas = _quota_wh(net, spec)
    cost = {}
    for name, load_w in (("without", evening.before_w), ("with", evening.after_w)):
        need = [
            max(0, load_w[slot] * spec.slot_s // 3600 - quota)
            for slot, quota in zip(range(first, last), quotas, strict=True)
        ]
        cost[f"{name}_need_wh"] = sum(need)
        cost[f"{name}_cost_u"] = sum(slot.cost_u for slot in lower.dispatch(spec.units, need, _rules(readout, event)))
        cost[f"{name}_peak_w"] = max(load_w[first:last])
    return cost


def _rules(readout: Readout, event: objects.MainEvent) -> Any:
    from watt_chain.contract.rules import RuleSet

    return readout.need(MAIN_CHAIN, objects.rules_key(event.rules_version), RuleSet)


def _as_data(net: Network, result: Result) -> dict[str, Any]:
    return {
        "ok": all(held for _, held, _ in result.checks),
        "checks": [{"check": title, "held": held, "detail": detail} for title, held, detail in result.checks],
        "outcome_hash": outcome_hash(result.stated),
        "trades": sum(1 for pair in result.stated["pairs"] if pair["state"].lower() == "settled"),
        "trades_across": sum(1 for trade in result.stated["trades"] if trade["state"] == "PAID"),
        "clearing": result.clearing,
        "side_by_side": result.side_by_side,
        "grid": result.grid,
        "load_before_w": result.evening.before_w,
        "load_after_w": result.evening.after_w,
        "mishaps": read_json(net.folder / "mishaps.json"),
        "interpreters": {home["name"]: home["interpreter"] for home in net.homes},
        "statement": result.stated,
        "directory": str(net.folder),
    }


def _print(net: Network, result: Result) -> None:
    from rich.console import Console

    from watt_tools import show

    # Tables need about 110 columns; a narrower terminal wraps lines, which is easier to read than cut cells.
    console = Console(highlight=False, width=max(TABLE_WIDTH, Console().width))
    names = {home["user"]: home["name"] for home in net.homes}
    console.print()
    show.savers(console, result.stated["homes"])
    show.payments(console, result.stated["pairs"], result.stated["trades"], names)
    show.balances(console, result.stated["homes"])
    show.side_by_side(console, result.side_by_side)
    grid = result.grid
    console.print("[bold]The grid[/bold] (energy above all quotas in the window, at least cost)")
    for name, words in (("without", "without the event"), ("with", "with the event   ")):
        console.print(
            f"  {words}: peak {grid[f'{name}_peak_w'] / 1000:6.2f} kW, {grid[f'{name}_need_wh']:,} Wh above quota, "
            f"cost {show.money(grid[f'{name}_cost_u'])}"
        )
    clearing = result.clearing
    console.print(
        f"  matching: value {show.money(clearing['value_u'])}, certified bound {show.money(clearing['bound_u'])}, "
        f"gap {clearing['gap_ppm'] / 10_000:.4f} %"
    )
    console.print(
        f"  communication: {clearing['x_ms']} ms inside an area, {clearing['y_ms']} ms between areas; "
        f"{'fixed by --seed' if net.description['seeded'] else 'measured on this network'}\n"
    )
    print(picture.terminal(result.evening))
    print()
    show.checks(console, result.checks)
    folder = _relative(net.folder)
    defaulter = next((home["name"] for home in net.homes if home["behaviour"] == "defaulter"), net.homes[0]["name"])
    print(f"Outcome {outcome_hash(result.stated)}; picture: {folder}/evening.png")
    command = _relative(Path(sys.argv[0]).absolute())
    print("Check it yourself:")
    print(f"  {command} verify {folder}")
    print(f"  {command} bill {folder} {defaulter}        (data and proofs: {folder}/homes/{defaulter}/bill.json)")


def _relative(folder: Path) -> str:
    try:
        return str(folder.relative_to(Path.cwd()))
    except ValueError:
        return str(folder)
