"""What the statement of an export must say (tools/README.md): a part of the independent verifier.

Made from the state objects, which are known to be right by then; shares no code with the network.
"""

from typing import Any

from watt_tools.structures import NAMES


def statement_of(of: Any, number: int, event: list[Any]) -> dict[str, Any]:
    """The statement about an event; `of` is the audit of the whole export. Raises ValueError where money is missing."""
    homes, pairs, totals = list[Any](), list[Any](), dict[str, Any]()
    for chain, state in [item for item in of.state.items() if item[0]]:
        accounts = [value for key, value in sorted(state.items()) if key.startswith("account/")]
        for value in (value for value in accounts if value[1] == "user"):
            party = dict(zip(NAMES["Account"], value, strict=True))
            row = dict(zip(NAMES["Row"], state.get(f"result/{number}/{value[0].hex()}", ()), strict=False))
            bill = {name: row[name] for name in row if name not in ("user", "outside_wh")} or None
            homes.append({name: party[name] for name in NAMES["Home"]} | {"user": value[0].hex(), "event": bill})
        for k in range(1, state.get(f"event/{number}", [0] * 8)[7] + 1):
            pair = dict(zip(NAMES["Pair"], state[f"pair/{number}/{k}"], strict=True))
            ends = {"chain": chain, "seller": pair["seller"].hex(), "buyer": pair["buyer"].hex()}
            pairs.append({name: pair[name] for name in NAMES["Trade"]} | ends)
        money = [sum(sum(v[4:7]) for v in accounts if (v[1] == "user") == users) for users in (True, False)]
        (came, went), (sent, received) = state["supply"], state.get("transit", [0, 0])
        if sum(money) != came - went + received - sent:
            raise ValueError(f"money of chain {chain} is not conserved")
        values = [came, went, *money, state["pool"][1], sent, received]
        totals[str(chain)] = dict(zip(NAMES["Totals"], values, strict=True))
    lasts = {str(chain): [of.network, *(b.hash for b in blocks)] for chain, blocks in of.blocks.items()}
    wanted = {"network": of.network.hex(), "event": number, "format": 2, "event_state": "CLOSED", "homes": homes}
    wanted |= {"prices": {"need_wh": event[8], "lambda_u_per_wh": event[9]}, "pairs": pairs, "totals": totals}
    wanted["chains"] = {chain: {"height": len(last) - 1, "hash": last[-1].hex()} for chain, last in lasts.items()}
    return wanted | {"trades": of.across.stated(number)}
