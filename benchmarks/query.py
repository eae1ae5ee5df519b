"""What does privacy cost in CPU? A private question against the plain SQL on the raw table.

    python -m benchmarks.query [--visits 1000000 10000000] [--repetitions 7] [--json]

The ratio is (CPU of engine.query - fixed) / CPU of the same SQL in plain DuckDB on the raw table.
"Fixed" is what the same question costs over a clinic of 100 patients: planning, noise and
post-processing, whatever the size of the data. The ledger's part is measured apart, once. Targets:
a ratio of at most 1.5 where rows are bounded by rank, at most 6 where each patient is clipped
group by group, and at most 25 ms fixed.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from benchmarks.common import (
    cpu_ms,
    give_out,
    in_turns,
    machine,
    median,
    parser,
    target,
    write_clinic_apart,
)
from engine import Engine

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TINY = 930
THREADS = 2
FIXED_TARGET = 25.0
RATIO_TARGETS = {"b": 1.5, "c": 1.5, "f": 1.5, "h": 1.5, "a'": 6.0, "d": 6.0, "e": 6.0}
QUESTIONS = {
    "a": "SELECT COUNT(*) FROM visits",
    "a'": "SELECT COUNT(*) FROM visits WHERE cost >= 0",
    "b": "SELECT SUM(cost), AVG(cost) FROM visits",
    "c": "SELECT department, COUNT(*), AVG(cost) FROM visits GROUP BY department",
    "d": "SELECT department, COUNT(DISTINCT patient_id) FROM visits GROUP BY department",
    "e": "SELECT department, COUNT(*), SUM(cost) FROM visits WHERE cost > 500 "
         "GROUP BY department",
    "f": "SELECT p.sex, COUNT(*), AVG(v.cost) FROM visits v "
         "JOIN patients p ON v.patient_id = p.patient_id GROUP BY p.sex",
    "g": "SELECT AVG(total) FROM (SELECT patient_id, SUM(cost) AS total FROM visits "
         "GROUP BY patient_id) AS t",
    "h": "SELECT MEDIAN(cost) FROM visits",
}  # fmt: skip
# Plain DuckDB answers it from metadata, without reading a row: there is nothing to compare with.
FROM_METADATA = frozenset({"a"})

# CPU ms at 1 M visits, measured earlier on another machine (research/peers.md, section 6; 926,077
# visits of 100,000 patients); None: the system cannot answer it.
PEERS_SOURCE = "measured earlier, other machine: research/peers.md, section 6, 1 M visits"
PEERS: dict[str, dict[str, float | None]] = {
    "COUNT(DISTINCT patient)": {"plain": 26, "SmartNoise on DuckDB": 294, "Qrlew on DuckDB": 354},
    "SUM and AVG": {"plain": 3.5, "SmartNoise on DuckDB": 394, "Qrlew on DuckDB": 377},
    "COUNT and AVG by department": {
        "plain": 22, "SmartNoise on DuckDB": 682, "Qrlew on DuckDB": 740,
    },
    "join by sex": {"plain": 24, "SmartNoise on DuckDB": 491, "Qrlew on DuckDB": 674},
    "median": {"plain": 24, "SmartNoise on DuckDB": None, "Qrlew on DuckDB": None},
}  # fmt: skip


def strategies(engine: Engine, sql: str) -> str:
    """Say how the plan of a question bounds each patient."""
    releases = engine.explain(sql, epsilon=1.0).releases
    return ", ".join(dict.fromkeys(str(release.strategy) for release in releases))


def fixed_costs(folder: Path, repetitions: int) -> dict[str, dict[str, float]]:
    """Return for each question what it costs whatever the data: over a hundred patients."""
    policy = write_clinic_apart(folder, TINY, dirty=True)
    found = {}
    with Engine.open(policy, insecure_testing=True) as engine:
        for name, sql in QUESTIONS.items():
            ask = partial(engine.query, sql, epsilon=1.0)
            plan = partial(engine.explain, sql, epsilon=1.0)
            whole, planning = in_turns([ask, plan], repetitions, warm=3)
            found[name] = {"fixed ms": median(whole), "of it planning ms": median(planning)}
    return found


def ledgers_part(folder: Path, repetitions: int) -> dict[str, float]:
    """Return what a charge and keeping the answer add: the same question, with a ledger."""
    policy = write_clinic_apart(folder, TINY, dirty=True)
    sql = QUESTIONS["c"]
    costs, clock = [], []
    with Engine.open(policy) as engine:
        for turn in range(repetitions + 3):
            # Each a little more accurate than the last one, so that no kept answer serves.
            ask = partial(engine.query, sql, epsilon=0.1 + turn / 1000)
            begun = time.perf_counter()
            spent = cpu_ms(ask)
            if turn >= 3:
                costs.append(spent)
                clock.append((time.perf_counter() - begun) * 1e3)
        again = [cpu_ms(partial(engine.query, sql, epsilon=0.1)) for _ in range(repetitions)]
    with Engine.open(policy, insecure_testing=True) as engine:
        (bare,) = in_turns([partial(engine.query, sql, epsilon=0.1)], repetitions, warm=3)
    return {
        "with ledger, CPU ms": median(costs),
        "with ledger, by the clock ms": median(clock),
        "without, CPU ms": median(bare),
        "ledger's part, CPU ms": round(median(costs) - median(bare), 3),
        "a kept answer again, CPU ms": median(again),
    }


def plain(connection: DuckDBPyConnection, sql: str) -> Callable[[], object]:
    """Return a step that runs plain SQL and fetches all of its rows."""
    return lambda: connection.execute(sql).fetchall()


def measure(
    folder: Path, visits: int, repetitions: int, fixed: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """Measure every question at one size."""
    policy = write_clinic_apart(folder, visits, dirty=True)
    rows = []
    raw = duckdb.connect(
        str(folder / "clinic.duckdb"), read_only=True, config={"threads": THREADS}
    )
    with Engine.open(policy, insecure_testing=True) as engine:
        counted = raw.execute("SELECT COUNT(*) FROM visits").fetchone()
        for name, sql in QUESTIONS.items():
            ask = partial(engine.query, sql, epsilon=1.0)
            theirs, ours = in_turns([plain(raw, sql), ask], repetitions)
            base, spent = median(theirs), median(ours)
            ratio = None if name in FROM_METADATA else (spent - fixed[name]["fixed ms"]) / base
            rows.append({
                "question": name, "sql": sql, "strategy": strategies(engine, sql),
                "plain ms": base, "ours ms": spent, **fixed[name],
                "ratio": None if ratio is None else round(ratio, 2),
            })  # fmt: skip
    raw.close()
    return {
        "visits": counted[0] if counted else 0,
        "peak RSS MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "questions": rows,
    }


def table(document: dict[str, Any]) -> str:
    """Print what was found."""
    lines = []
    for size in document["results"]:
        lines += [
            f"{size['visits']:,} visits (CPU ms, medians; peak {size['peak RSS MB']:,} MB)",
            f"  {'':3}{'strategy':42}{'plain':>9}{'ours':>9}{'fixed':>8}{'ratio':>8}",
        ]
        for row in size["questions"]:
            ratio = "n/a" if row["ratio"] is None else f"{row['ratio']:.2f}"
            lines.append(
                f"  {row['question']:3}{row['strategy']:42}{row['plain ms']:9.1f}"
                f"{row['ours ms']:9.1f}{row['fixed ms']:8.1f}{ratio:>8}"
            )
    lines += [f"  {name:3}{sql}" for name, sql in QUESTIONS.items()]
    lines += [
        "  n/a: plain DuckDB answers COUNT(*) from metadata; compare a' instead",
        "ledger: " + ", ".join(f"{what} {ms}" for what, ms in document["ledger"].items()),
        f"peers, CPU over plain ({PEERS_SOURCE})",
    ]
    for name, times in PEERS.items():
        base = times["plain"] or 1.0
        shown = (
            f"{peer} {'cannot' if ms is None else f'{ms / base:.0f}'}"
            for peer, ms in times.items() if peer != "plain"
        )
        lines.append(f"  {name:32}{', '.join(shown)}")
    return "\n".join(lines)


def targets(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold the results against the targets."""
    found = []
    for size in document["results"]:
        for row in size["questions"]:
            limit = RATIO_TARGETS.get(row["question"])
            if limit is not None:
                what = f"ratio of {row['question']} at {size['visits']:,} visits"
                found.append(target(what, row["ratio"], limit))
    most = max(cost["fixed ms"] for cost in document["fixed"].values())
    found.append(target("fixed CPU ms of a question, the dearest", most, FIXED_TARGET))
    charged = document["ledger"]["with ledger, CPU ms"]
    found.append(target("fixed CPU ms of question c with the ledger", charged, FIXED_TARGET))
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--visits", type=int, nargs="+", default=[1_000_000, 10_000_000])
    options.add_argument("--repetitions", type=int, default=7)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="discreet-query-") as name:
        folder = Path(name)
        fixed = fixed_costs(folder / "tiny", 31)
        document: dict[str, Any] = {
            "machine": machine("pandas"),
            "fixed": fixed,
            "ledger": ledgers_part(folder / "ledger", 31),
            "results": [
                measure(folder / str(visits), visits, asked.repetitions, fixed)
                for visits in asked.visits
            ],
            "peers": {"source": PEERS_SOURCE, "CPU ms": PEERS},
        }
    document["targets"] = targets(document)
    give_out(document, asked, table(document))


if __name__ == "__main__":
    main()
