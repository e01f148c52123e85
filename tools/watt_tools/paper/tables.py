"""The report's tables as rows of text, from which the terminal and the document are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from watt_chain.genesis import faults_tolerated

from watt_tools.paper import stats, verdicts
from watt_tools.paper.data import Data
from watt_tools.paper.modes import MODES
from watt_tools.paper.plan import COMPARED, MAIN_DELAY_US, PAPER_CELLS
from watt_tools.paper.reported import NODES, SHARDS, TABLE_1

SHOWN: Final = (2, 3, 5, 10)
"""Numbers of shards in the tables of times; all of them are in the figures and the CSV."""
SIZES: Final = (250, 1000)


@dataclass(frozen=True, slots=True)
class Table:
    """A table under a name: that of its marks in the document."""

    name: str
    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self) -> str:
        """As GitHub's markdown; numbers to the right."""
        right = [all(_is_number(row[at]) for row in self.rows) for at in range(len(self.head))]
        line = "|" + "|".join("--:" if one else "---" for one in right) + "|"
        return "\n".join(["| " + " | ".join(self.head) + " |", line, *("| " + " | ".join(r) + " |" for r in self.rows)])

    def text(self) -> str:
        """For a terminal."""
        widths = [max(len(row[at]) for row in (self.head, *self.rows)) for at in range(len(self.head))]
        right = [all(_is_number(row[at]) for row in self.rows) for at in range(len(self.head))]

        def line(row: Sequence[str]) -> str:
            cells = [
                cell.rjust(width) if to_right else cell.ljust(width)
                for cell, width, to_right in zip(row, widths, right, strict=True)
            ]
            return "  " + "  ".join(cells).rstrip()

        return "\n".join([self.title, line(self.head), *map(line, self.rows)])


def _is_number(cell: str) -> bool:
    text = cell.split(" ")[0].rstrip("%").lstrip("+-")
    return cell in ("", "-") or text.replace(".", "", 1).replace(",", "").isdigit()


def percent(value: float | None) -> str:
    """A ratio as the paper prints it."""
    return "-" if value is None else f"{100 * value:.1f}%"


def _ms(value: float) -> str:
    return "-" if not value else f"{value:.0f}" if value >= 99.95 else f"{value:.1f}"


def all_tables(data: Data) -> list[Table]:
    """Every table that the run has something for."""
    made = [
        the_run(data),
        table_1(),
        modes(),
        eleven(data),
        by_delay(data),
        aims(data),
        findings(data),
        resemblance(data),
        price(data),
        times(data),
        work(data),
        larger(data),
        variants(data),
        real(data),
        crashed(data),
        lying(data),
        batching(data),
        charge(data),
        *storage(data),
        processes(data),
    ]
    return [table for table in made if table.rows]


def the_run(data: Data) -> Table:
    """Where the results come from."""
    cells = [cell for cell, _ in data.cells.values()]
    machine = data.machine
    rows = [
        ("run", "a share of the grid (--quick)" if data.settings.get("quick") else "the whole grid"),
        ("cells", f"{len(cells)}, {sum(cell.repetitions for cell in cells)} repetitions of 20 trades"),
        (
            "machine",
            f"{machine.get('cores', '?')} cores of {machine.get('processor', '?')}, {machine.get('system', '')}",
        ),
        ("Python", str(machine.get("python", "?"))),
    ]
    if cells and min(cell.repetitions for cell in cells if cell.seed == 1) < stats.ENOUGH:
        rows.append(
            ("intervals", f"with fewer than {stats.ENOUGH} repetitions: the whole range, which is less sure than 95 %")
        )
    return Table("run", "The run", ("", ""), rows)


def table_1() -> Table:
    """The paper's Table 1, from its text."""
    head = ("parameter", "time experiments", "storage experiment")
    return Table("table-1", "Table 1 of the paper, from its text", head, list(TABLE_1))


def modes() -> Table:
    """What the modes are."""
    rows = [(mode.name, mode.text) for mode in MODES.values()]
    return Table("modes", "Modes", ("mode", "what it is"), rows)


def eleven(data: Data) -> Table:
    """The eleven ratios at the main delay."""
    rows = []
    at = f"{MAIN_DELAY_US / 1000:g}"
    for one in verdicts.eleven(data):
        place = str(one["number"]), one["row"], one["section"], str(one["s"]), str(one["n"] or "")
        f = str(faults_tolerated(one["n"])) if one["n"] else ""
        if "storage" in one:
            found = one["storage"]
            rows.append((*place, f, percent(one["paper"]), *_beside(found), "", "", ""))
        elif at in one.get("full-seq", {}):
            found = one["full-seq"][at]
            others = [percent(one[name].get(at, {}).get("ratio")) for name in verdicts.BASELINES[1:]]
            rows.append((*place, f, percent(one["paper"]), *_beside(found), *others))
    head = ("#", "row", "in", "s", "n", "f", "paper", "ours", "95 %", "apart", "vs full-last", "vs full-par", "vs step")
    title = f"The paper's eleven ratios, its mode against full sharding one area after the other, {at} ms one way"
    return Table("eleven", title, head, rows)


def _beside(found: dict[str, float]) -> tuple[str, str, str]:
    low, high = f"{100 * found['low']:.1f}", f"{100 * found['high']:.1f}"
    return percent(found["ratio"]), f"{low} to {high}", f"{100 * found['apart']:+.1f}"


def by_delay(data: Data) -> Table:
    """The eight time ratios at every delay, against every baseline."""
    rows = []
    ratios = verdicts.eleven(data)
    known = {delay for one in ratios for baseline in verdicts.BASELINES for delay in one.get(baseline, {})}
    delays = sorted(known, key=float)
    for one in ratios:
        for baseline in verdicts.BASELINES:
            found = one.get(baseline, {})
            if found and one["number"] != 5:  # the paper gives two numbers for one cell
                cells = [percent(found.get(delay, {}).get("ratio")) for delay in delays]
                rows.append((str(one["s"]), str(one["n"]), baseline, percent(one["paper"]), *cells))
    head = ("s", "n", "baseline", "paper", *(f"{delay} ms" for delay in delays))
    return Table("by-delay", "The same at every one-way delay, one trade at a time", head, rows)


def aims(data: Data) -> Table:
    """The project's aims."""
    rows = []
    for one in verdicts.aims(data):
        kind = "aim" if one["is_aim"] else "shown"
        rows.append((kind, one["aim"], _aim_figure(one), _word(one["pass"])))
    return Table("aims", "Aims", ("", "what", "found", "holds"), rows)


def _aim_figure(one: dict[str, Any]) -> str:
    if "below" in one:
        return f"{one['below']} of {one['cells']} cells, largest {percent(one['largest'])}"
    if "worse" in one:
        return f"{one['cells'] - len(one['worse'])} of {one['cells']}"
    if "ratio" in one:
        return f"{one['ratio']:.3f}" if one["ratio"] is not None else "-"
    return f"at most {one['worst']:.2f} local trades" if one["worst"] is not None else "-"


def _word(verdict: bool | None) -> str:
    return "not run" if verdict is None else "yes" if verdict else "NO"


def findings(data: Data) -> Table:
    """The paper's findings in our data."""
    rows = []
    for one in verdicts.findings(data):
        if "growth" in one:
            grown = ", ".join(f"{mode} x {value:.2f}" for mode, value in one["growth"].items())
            figure = f"{grown} from n = 2 to 5" if grown else "-"
        else:
            figure = f"{one['holds']} of {one['of']}"
        rows.append((one["row"], one["finding"], figure, _word(one["pass"])))
    return Table("findings", "What the paper found, looked for here", ("row", "finding", "found", "holds"), rows)


def resemblance(data: Data) -> Table:
    """Which baseline is nearest to the paper's numbers."""
    rows = [(one["baseline"], f"{one['delay_ms']:g}", f"{one['points']:.1f}") for one in verdicts.resemblance(data)[:6]]
    head = ("baseline", "delay ms", "mean distance, points")
    return Table("resemblance", "Distance of our eight time ratios from the paper's, nearest first", head, rows)


def price(data: Data) -> Table:
    """The price of safety."""
    rows = []
    names = ("ours/paper", "ours/full-seq", "ours/full-par", "paper/full-seq", "paper/full-par")
    for row in verdicts.safety_price(data):
        if row["s"] in SHOWN:
            rows.append((f"{row['delay_ms']:g}", str(row["s"]), *(percent(row.get(name)) for name in names)))
    head = ("delay ms", "s", *names)
    return Table("price", "Times as parts of each other, bursts of 20 trades, median over n = 2 to 5", head, rows)


def times(data: Data) -> Table:
    """Absolute times."""
    rows = []
    for delay_us in data.delays():
        for s in SHOWN:
            for n in (2, 4, 5):
                cells = [_with_interval(data.times(mode, s, n, delay_us)) for mode in COMPARED]
                if any(cell != "-" for cell in cells):
                    rows.append((f"{delay_us / 1000:g}", str(s), str(n), str(faults_tolerated(n)), *cells))
    head = ("delay ms", "s", "n", "f", *COMPARED)
    return Table("times", "Time of a trade in a burst of 20, ms: median and 95 % interval of it", head, rows)


def _with_interval(times: Sequence[int]) -> str:
    if not times:
        return "-"
    low, high = stats.interval(times)
    return f"{_ms(stats.median(times) / 1000)} ({_ms(low / 1000)} to {_ms(high / 1000)})"


def work(data: Data) -> Table:
    """CPU, messages, bytes, throughput."""
    rows = []
    for s in SHOWN:
        for n in (2, 4):
            for mode in COMPARED:
                found = data.found(mode, s, n, MAIN_DELAY_US)
                if not found:
                    continue
                middle = {
                    name: stats.median([getattr(one, name) for one in found])
                    for name in ("nodes_us", "busiest_us", "messages", "bytes", "last_us")
                }
                rate = 20 / (middle["last_us"] / 1e6) if middle["last_us"] else 0.0
                rows.append(
                    (
                        *(str(s), str(n), mode),
                        f"{middle['nodes_us'] / 1000:.1f}",
                        f"{middle['busiest_us'] / 1000:.2f}",
                        f"{middle['messages']:.0f}",
                        f"{middle['bytes'] / 1000:.1f}",
                        f"{rate:.0f}",
                    )
                )
    head = ("s", "n", "mode", "CPU ms, all nodes", "CPU ms, busiest", "messages", "kB sent", "trades/s")
    return Table("work", "What one trade of a burst of 20 costs, 5 ms one way", head, rows)


def larger(data: Data) -> Table:
    """n = 7 and 10."""
    rows = []
    for n in (7, 10):
        for s in (2, 5, 10):
            cells = [_ms(data.ms(mode, s, n, MAIN_DELAY_US)) for mode in COMPARED]
            if any(cell != "-" for cell in cells):
                seats = faults_tolerated(n) + 1
                rows.append((str(n), str(faults_tolerated(n)), str(s), str(seats * s), *cells))
    head = ("n", "f", "s", "committee", *COMPARED)
    return Table("larger", "Beyond the paper: larger areas, ms, 5 ms one way", head, rows)


def variants(data: Data) -> Table:
    """Variants of the modes beside them."""
    rows = []
    pairs = ("full-seq", "full-last", "paper", "paper-lock", "ours", "ours-client")
    at_one = ("full-seq", "full-par", "paper", "paper-all")
    for s in (2, 3, 5, 10):
        for n in (2, 4):
            five = [_ms(data.ms(mode, s, n, MAIN_DELAY_US)) for mode in pairs]
            one = [_ms(data.ms(mode, s, n, 1000)) for mode in at_one]
            if any(cell != "-" for cell in five):
                rows.append((str(s), str(n), *five, *one))
    head = ("s", "n", *pairs, *(f"{mode}, 1 ms" for mode in at_one))
    title = "Variants, ms: at 5 ms one way, and where it says so at 1 ms"
    return Table("variants", title, head, rows)


def real(data: Data) -> Table:
    """Ours with the product's contracts beside ours with the experiment's."""
    rows = []
    for s in (2, 3, 5, 9):
        for n in (2, 4, 5):
            both = [data.found(mode, s, n, MAIN_DELAY_US) for mode in ("ours", "ours-product")]
            if all(both):
                times = [_ms(stats.median([one.time_us for one in found]) / 1000) for found in both]
                cpu = [f"{stats.median([one.nodes_us for one in found]) / 1000:.1f}" for found in both]
                sent = [f"{stats.median([one.bytes for one in found]) / 1000:.1f}" for found in both]
                rows.append((str(s), str(n), *times, *cpu, *sent))
    head = ("s", "n", *(f"{what}{whose}" for what in ("ms", "CPU ms", "kB") for whose in ("", ", product")))
    return Table("real", "Ours with the experiment's and with the product's contracts, 5 ms one way", head, rows)


def crashed(data: Data) -> Table:
    """One cross-node of the buyer's area is down."""
    rows = []
    for n in (3, 4, 5, 7):
        for s in (2, 3):
            cells = []
            for mode in COMPARED:
                found = data.found(mode, s, n, MAIN_DELAY_US, fault="crash")
                lost = sum(one.unfinished for one in found)
                times = [one.time_us for one in found if one.time_us]
                slow = f"{_ms(stats.median(times) / 1000)} (worst {_ms(max(times) / 1000)})" if times else "none"
                cells.append("-" if not found else slow if not lost else f"{lost} of {20 * len(found)} never")
            if any(cell != "-" for cell in cells):
                rows.append((str(n), str(faults_tolerated(n)), str(s), *cells))
    head = ("n", "f", "s", *COMPARED)
    return Table("crashed", "One crashed cross-node, ms, 5 ms one way (views end after 2 s)", head, rows)


def lying(data: Data) -> Table:
    """One cross-node of the seller's area lies."""
    rows = []
    for n in NODES:
        cells = []
        for mode in COMPARED:
            found = data.found(mode, 2, n, MAIN_DELAY_US, fault="liar")
            split = sum(one.split for one in found)
            lost = sum(one.unfinished for one in found)
            whole = f"{_ms(data.ms(mode, 2, n, MAIN_DELAY_US, fault='liar'))} ms"
            broken = f"{split} of {20 * len(found)} half done" + (f", {lost - split} never" if lost > split else "")
            cells.append("-" if not found else broken if lost else whole)
        if any(cell != "-" for cell in cells):
            rows.append((str(n), str(faults_tolerated(n)), *cells))
    return Table("lying", "One lying cross-node, two areas, 5 ms one way", ("n", "f", *COMPARED), rows)


def batching(data: Data) -> Table:
    """How long leaders wait for company."""
    rows = []
    for s, n in PAPER_CELLS:
        cells = []
        for batch_ms in (0, 5, 100):
            for mode in ("paper", "ours"):
                cells.append(percent(data.quick_ratio(mode, "full-seq", s, n, MAIN_DELAY_US, batch_ms=batch_ms)))
        if any(cell != "-" for cell in cells):
            rows.append((str(s), str(n), *cells))
    head = ("s", "n", *(f"{mode}, {batch_ms} ms" for batch_ms in (0, 5, 100) for mode in ("paper", "ours")))
    return Table("batching", "Parts of full-seq, by how long a leader waits for company", head, rows)


def charge(data: Data) -> Table:
    """The check of the charge."""
    rows = [
        (row["cell"].replace(" seed=2", ""), f"{100 * row['cpu']:+.1f}%", f"{100 * row['time']:+.1f}%")
        for row in verdicts.charge(data)["rows"]
    ]
    title = "Signature checks looked up, against all of them done: differences of the medians"
    return Table("charge", title, ("cell", "CPU of all nodes", "time"), rows)


def storage(data: Data) -> list[Table]:
    """Storage of the nodes."""
    rows = []
    places = [
        (load, mode, s, m)
        for load in ("local", "mixed")
        for mode in ("paper", "ours")
        for s in (2, 3, 4, 10)
        for m in SIZES
    ]
    for load, mode, s, m in places:
        sizes = {
            one["role"]: one["bytes"]
            for one in data.storage.get("ledger", ())
            if (one["mode"], one["load"], one["s"], one["m"]) == (mode, load, s, m)
        }
        if "cross" in sizes:
            kb = [f"{sizes[role] / 1000:.0f}" for role in ("normal", "cross")]
            rows.append((load, mode, str(s), str(m), *kb, percent(sizes["normal"] / sizes["cross"])))
    head = ("load", "mode", "s", "m", "normal kB", "cross kB", "normal / cross")
    first = Table("storage", "Bytes on disk, each area with m transactions", head, rows)
    roles = ("normal", "cross", "kept", "paper", "master")
    growth = [
        (str(one["s"]), f"{one['batch_ms'] / 1000:g}", *(f"{one[role] / 1e6:.1f}" for role in roles))
        for one in data.storage.get("growth", ())
    ]
    head = ("s", "batch s", "normal", "cross, ours", "... with a header a minute", "cross, paper", "master")
    title = "Growth per day, MB: 500 homes an area, a signed checkpoint every 15 minutes"
    return [first, Table("growth", title, head, growth)]


def processes(data: Data) -> Table:
    """The paper's cells as real processes."""
    rows = []
    for one in data.processes.get("cells", ()):
        virtual = data.quick_ratio("paper", "full-seq", one["s"], one["n"], one["delay_us"], load="single")
        row = [str(one["s"]), str(one["n"]), f"{one['delay_us'] / 1000:g}"]
        row += [_ms(one["ms"].get(mode, 0.0)) for mode in COMPARED]
        part = one["ms"].get("paper", 0.0) / one["ms"]["full-seq"] if one["ms"].get("full-seq") else None
        rows.append((*row, percent(part), percent(virtual)))
    head = ("s", "n", "delay ms", *COMPARED, "paper / full-seq", "on the virtual clock")
    return Table("processes", "Real processes on one machine, ms, one trade at a time", head, rows)


__all__ = ["NODES", "SHARDS", "Table", "all_tables", "percent"]
