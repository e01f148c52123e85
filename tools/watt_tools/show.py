"""Tables a person can read: who saved what, who paid whom, what the grid gained. The one module that imports rich."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

MICRO = 1_000_000


def money(amount_u: int) -> str:
    """Micro-units as currency with four decimals, sign always shown for a change."""
    return f"{amount_u / MICRO:,.4f}"


def signed(amount_u: int) -> str:
    """As `money`, with + or - in front."""
    return f"{amount_u / MICRO:+,.4f}"


def savers(console: Console, homes: list[dict[str, Any]]) -> None:
    """One row per home that took part."""
    table = Table(title="Who saved what, and who needed more (Wh over the event window)", title_justify="left")
    for column in ("home", "area", "role", "quota", "traded", "quota after", "metered", "result", "credit", "points"):
        table.add_column(column, justify="left" if column in ("home", "role", "result") else "right")
    for home in sorted(homes, key=lambda home: str(home["name"])):
        event = home["event"]
        if event is None:
            continue
        quota = sum(event["quota_wh"])
        traded = sum(event["bought_wh"]) - sum(event["sold_wh"])
        metered = sum(event["metered_wh"]) if min(event["metered_wh"], default=0) >= 0 else None
        table.add_row(
            home["name"],
            str(home["chain"]),
            "seller" if event["side"] == "sell" else "buyer",
            f"{quota:,}",
            f"{traded:+,}",
            f"{quota + traded:,}",
            "missing" if metered is None else f"{metered:,}",
            {"breached": "[red]breached[/red]", "performed": "performed"}.get(event["status"], event["status"]),
            f"{event['credit_before']} -> {event['credit_after']}",
            f"{event['points']:,}",
        )
    console.print(table)
    idle = sum(1 for home in homes if home["event"] is None)
    console.print(f"{idle} more homes were metered and took no part.\n")


def payments(
    console: Console, pairs: list[dict[str, Any]], trades: list[dict[str, Any]], names: dict[str, str]
) -> None:
    """One row per matched pair, then one per trade across areas ("2>1": from the seller's area to the buyer's)."""
    table = Table(title="Who paid whom", title_justify="left")
    for column in ("pair", "seller", "buyer", "Wh", "price per kWh", "paid", "state"):
        table.add_column(column, justify="left" if column in ("seller", "buyer", "state") else "right")
    across = [{**one, "chain": f"{one['seller_chain']}>{one['buyer_chain']}"} for one in trades]
    for pair in [*pairs, *across]:
        energy = sum(pair["slot_wh"])
        worth = sum(wh * price for wh, price in zip(pair["slot_wh"], pair["price_u_per_wh"], strict=True))
        table.add_row(
            f"{pair['chain']}/{pair['number']}",
            names.get(pair["seller"], pair["seller"]),
            names.get(pair["buyer"], pair["buyer"]),
            f"{energy:,}",
            money(worth * 1000 // energy) if energy else "-",
            money(pair["paid_u"]),
            pair["state"],
        )
    console.print(table)


def balances(console: Console, homes: list[dict[str, Any]]) -> None:
    """What each participant gained or lost in money."""
    table = Table(title="Money of the participants (currency units)", title_justify="left")
    for column in ("home", "for quota", "charge", "penalty to grid", "together", "balance", "normal price next"):
        table.add_column(column, justify="left" if column == "home" else "right")
    for home in sorted(homes, key=lambda home: str(home["name"])):
        event = home["event"]
        if event is None:
            continue
        together = event["traded_u"] - event["charge_u"] - event["penalty_u"]
        table.add_row(
            home["name"],
            signed(event["traded_u"]),
            signed(-event["charge_u"]),
            signed(-event["penalty_u"]) if event["penalty_u"] else "0",
            signed(together),
            money(home["free_u"] + home["escrow_u"] + home["bond_u"]),
            f"{event['rp_u_per_wh'] / 1000:.3f}/kWh" if event["rp_u_per_wh"] else "unchanged",
        )
    console.print(table)


SIDE_BY_SIDE_SHOWN = 6
"Homes that performed, of which a few show the rule; `--json` has them all. Those that did not are always shown."


def side_by_side(console: Console, lines: list[dict[str, Any]]) -> None:
    """The same evening under both rule sets and both readings of the settlement."""
    table = Table(title="The same evening under rule sets 1 and 2, readings A and C", title_justify="left")
    for column in (
        "home",
        "result",
        "delivered",
        "credit before",
        "rule set 1",
        "rule set 2",
        "penalty A",
        "penalty C",
    ):
        table.add_column(column, justify="left" if column in ("home", "result") else "right")
    kept = [line for line in lines if line["status"] == "performed"]
    shown = [line for line in lines if line["status"] != "performed"] + kept[:SIDE_BY_SIDE_SHOWN]
    for line in sorted(shown, key=lambda one: str(one["home"])):
        table.add_row(
            line["home"],
            line["status"],
            f"{line['delivered_ppm'] / 10_000:.1f} %",
            str(line["before"]),
            str(line["credit_1"]),
            str(line["credit_2"]),
            money(line["penalty_A_u"]),
            money(line["penalty_C_u"]),
        )
    console.print(table)
    if len(lines) > len(shown):
        console.print(f"{len(lines) - len(shown)} more homes performed; --json has them.\n")


def checks(console: Console, found: list[tuple[str, bool, str]]) -> None:
    """One line per check: what, whether it held, the figures behind it."""
    console.print("[bold]Checks[/bold]")
    for title, held, detail in found:
        mark = "[green]holds[/green]" if held else "[red]FAILS[/red]"
        console.print(f"  {mark}  {title}: {detail}", soft_wrap=True)
    console.print()


PAIRS_SHOWN = 40
"Pairs of a clearing printed one by one; `--json` has them all."


def market_pairs(pairs: list[dict[str, Any]]) -> None:
    """One row per matched pair of `wattpact market clear`."""
    # Seven columns need about 100 characters; a narrower terminal wraps lines, which is easier to read than cut cells.
    console = Console(highlight=False, width=max(100, Console().width))
    table = Table(title="Matched pairs", title_justify="left")
    for column in ("area", "offer", "bid", "Wh", "slots", "price u/Wh", "to the seller", "charge"):
        table.add_column(column, justify="left" if column in ("offer", "bid", "price u/Wh") else "right")
    for pair in pairs[:PAIRS_SHOWN]:
        used = [price for price, wh in zip(pair["price_u_per_wh"], pair["slot_wh"], strict=True) if wh]
        span = f"{min(used)}" if min(used) == max(used) else f"{min(used)} .. {max(used)}"
        place = str(pair["area"]) if pair["area"] == pair["bid_area"] else f"{pair['area']} > {pair['bid_area']}"
        cells = [place, pair["offer"], pair["bid"], f"{sum(pair['slot_wh']):,}", str(len(used)), span]
        table.add_row(*cells, money(pair["paid_u"]), money(pair["charge_u"]))
    console.print(table if pairs else "No pair is worth a contract.")
    if len(pairs) > PAIRS_SHOWN:
        console.print(f"and {len(pairs) - PAIRS_SHOWN} pairs more; --json prints all")
