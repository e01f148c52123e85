"""The words of `wattpact bench`."""

from __future__ import annotations

import argparse
from pathlib import Path

Commands = argparse._SubParsersAction  # the only name argparse has for it

PEERS = ("etcd", "pysyncobj", "wattpact")


def add(actions: Commands[argparse.ArgumentParser]) -> None:
    """Add the benchmarks of the chain."""
    chain = actions.add_parser("chain", help="an area of real stations under load, against the limit of the same run")
    chain.add_argument("--nodes", type=_counts, default=[4], metavar="N,N", help="stations, such as 4,7,10 (default 4)")
    chain.add_argument("--seconds", type=float, default=15.0, help="length of each of the two phases (default 15)")
    chain.add_argument("--block", type=int, default=500, help="most transactions of a block (default 500)")
    ways = ("all", "assigned", "all,assigned")
    chain.add_argument("--verifiers", choices=ways, default="all", help="who checks a signature: all, or f + 1 for all")
    chain.add_argument("--calls", type=_calls, default=[1], metavar="K,K", help="calls under one signature (default 1)")
    chain.add_argument("--dir", type=Path, help="where the stations live (default: a temporary folder)")
    chain.add_argument("--inside", type=int, metavar="COUNT", help="cores only, COUNT transactions in this process")
    chain.add_argument("--json", action="store_true")
    chain.add_argument(
        "--write", type=Path, metavar="FILE", help="put the tables into this document, between their marks"
    )
    chain.add_argument("--markdown", action="store_true", help="the runs and the tables of station/CONSENSUS.md")
    chain.set_defaults(handler=_run)
    peers = actions.add_parser("peers", help="etcd and pysyncobj beside an area: the same bytes, ordered and durable")
    peers.add_argument("--seconds", type=float, default=10.0, help="length of each of the two phases (default 10)")
    peers.add_argument("--only", nargs="*", choices=PEERS, default=list(PEERS), help="only these (default all)")
    peers.add_argument("--dir", type=Path, help="where peers are installed (default: a folder of the user's cache)")
    peers.add_argument(
        "--write", type=Path, metavar="FILE", help="put the tables into this document, between their marks"
    )
    peers.add_argument("--markdown", action="store_true", help="print the table of station/CONSENSUS.md")
    peers.add_argument("--json", action="store_true")
    peers.set_defaults(handler=_run_peers)
    flood = actions.add_parser("flood", help="whether a flooding validator and client delay the others")
    flood.add_argument("--nodes", type=int, choices=(4, 7, 10), default=4)
    flood.add_argument("--seconds", type=float, default=10.0)
    flood.add_argument("--json", action="store_true")
    _add_write(flood)
    flood.set_defaults(handler=_run_flood)
    refusals = actions.add_parser("refusals", help="what it costs to refuse each kind of message, in verifications")
    refusals.add_argument("--json", action="store_true")
    _add_write(refusals)
    refusals.set_defaults(handler=_run_refusals)
    stores = actions.add_parser("stores", help="crashes at every operation on the disk, every byte changed")
    stores.add_argument("--share", type=int, default=1, metavar="N", help="try every Nth image only (default 1: all)")
    stores.add_argument("--faults", action="store_true", help="also plant faults in the stores, and see each found")
    stores.add_argument("--json", action="store_true")
    stores.set_defaults(handler=_run_stores)
    kills = actions.add_parser("kills", help="kill -9 of real stations under load, at random moments")
    kills.add_argument("--kills", type=int, default=200, metavar="N", help="how many (default 200, some 15 minutes)")
    kills.add_argument("--seed", type=int, default=0, help="of the random moments; what they hit the machine decides")
    kills.add_argument("--damage", action="store_true", help="also change a bit of a killed station's files at times")
    kills.add_argument("--dir", type=Path, help="where the stations live (default: a temporary folder)")
    kills.add_argument("--json", action="store_true")
    _add_write(kills)
    kills.set_defaults(handler=_run_kills)
    soak = actions.add_parser("soak", help="whether the memory of real stations stays flat under a steady load")
    soak.add_argument("--nodes", type=int, choices=(1, 4, 7), default=4)
    soak.add_argument("--minutes", type=float, default=60.0, metavar="N", help="(default 60)")
    soak.add_argument("--rate", type=float, default=200.0, metavar="N", help="transactions a second (default 200)")
    soak.add_argument("--batch-ms", type=int, default=100, metavar="N", help="less makes more blocks (default 100)")
    soak.add_argument("--json", action="store_true")
    _add_write(soak)
    soak.set_defaults(handler=_run_soak)


def _add_write(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the table into this document, between its marks"
    )


def _run(chosen: argparse.Namespace) -> int:
    if chosen.inside:
        from watt_tools import bench

        return bench.main(chosen.nodes[0], chosen.inside, chosen.block, as_json=chosen.json)
    from watt_tools import bench_chain

    if chosen.markdown or chosen.write:
        plans = [bench_chain.Plan(n, chosen.seconds, chosen.block, who, k) for n, who, k in bench_chain.TABLE]
        return bench_chain.main(plans, chosen.dir, as_json=chosen.json, markdown=True, write=chosen.write)
    plans = [
        bench_chain.Plan(nodes, chosen.seconds, chosen.block, verifiers, calls)
        for nodes in chosen.nodes
        for calls in chosen.calls
        for verifiers in chosen.verifiers.split(",")
    ]
    return bench_chain.main(plans, chosen.dir, as_json=chosen.json)


def _run_peers(chosen: argparse.Namespace) -> int:
    from watt_tools import bench_peers, market_peers

    folder = chosen.dir or market_peers.cache()
    shown = {"as_json": chosen.json, "markdown": chosen.markdown or bool(chosen.write), "write": chosen.write}
    return bench_peers.main(folder, chosen.seconds, chosen.only, **shown)


def _run_flood(chosen: argparse.Namespace) -> int:
    from watt_tools import bench_flood

    return bench_flood.main(chosen.nodes, chosen.seconds, as_json=chosen.json, write=chosen.write)


def _run_refusals(chosen: argparse.Namespace) -> int:
    from watt_tools import bench_refusal

    return bench_refusal.main(as_json=chosen.json, write=chosen.write)


def _run_stores(chosen: argparse.Namespace) -> int:
    from watt_tools import bench_stores

    return bench_stores.main(max(1, chosen.share), chosen.faults, as_json=chosen.json)


def _run_kills(chosen: argparse.Namespace) -> int:
    from watt_tools import bench_kills

    how = {"damage": chosen.damage, "as_json": chosen.json, "write": chosen.write}
    return bench_kills.main(chosen.kills, chosen.seed, chosen.dir, **how)


def _run_soak(chosen: argparse.Namespace) -> int:
    from watt_tools import bench_soak

    how = {"as_json": chosen.json, "write": chosen.write}
    return bench_soak.main(chosen.nodes, chosen.minutes, chosen.rate, chosen.batch_ms, **how)


def _counts(text: str) -> list[int]:
    """Numbers of stations."""
    return _numbers(text, 16)


def _calls(text: str) -> list[int]:
    """Numbers of calls in a transaction; the contract takes 32."""
    return _numbers(text, 32)


def _numbers(text: str, most: int) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: numbers separated by commas, such as 4,7,10") from None
    if not all(1 <= number <= most for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is 1..{most} each")
    return numbers
