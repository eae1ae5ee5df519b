"""How far from the truth are answers at epsilon 1? Against plain SQL, on 100,000 visits.

    python -m benchmarks.accuracy [--visits 100000] [--repetitions 80] [--epsilon 1] [--json]

The error is that of the answer as an analyst gets it, |answer / plain SQL - 1|: the noise and the
bias from bounding patients together. Each repetition has a seed of its own, which draws other noise
and other rows of each patient. The clinic is clean: over dirty rows the plain answer is NaN. The
median over repetitions is taken (and over groups, where there are several). Targets: MEDIAN and
QUANTILE_CONT at most 1 %, AVG by department 3 %, COUNT(DISTINCT patient_id) 0.2 %.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.common import give_out, machine, parser, target, write_clinic_apart
from engine import Engine

ROWS = (None, 5, 10, 20, 50)  # None: what the planner chooses
QUESTIONS = {
    "COUNT(*)": "SELECT COUNT(*) FROM visits",
    "SUM(cost)": "SELECT SUM(cost) FROM visits",
    "AVG(cost)": "SELECT AVG(cost) FROM visits",
    "MEDIAN(cost)": "SELECT MEDIAN(cost) FROM visits",
    "QUANTILE_CONT(cost, 0.9)": "SELECT QUANTILE_CONT(cost, 0.9) FROM visits",
    "COUNT(DISTINCT patient_id)": "SELECT COUNT(DISTINCT patient_id) FROM visits",
    "COUNT(*) by department": "SELECT department, COUNT(*) FROM visits GROUP BY department",
    "AVG(cost) by department": "SELECT department, AVG(cost) FROM visits GROUP BY department",
}
TARGETS = {
    "MEDIAN(cost)": 0.01, "QUANTILE_CONT(cost, 0.9)": 0.01, "AVG(cost) by department": 0.03,
    "COUNT(DISTINCT patient_id)": 0.002,
}  # fmt: skip

Table = dict[tuple[Any, ...], float]


def as_table(rows: Any) -> Table:
    """Return each row's number by its keys; the clinic is clean, so no key is NULL."""
    return {tuple(row[:-1]): float(row[-1]) for row in rows if None not in row[:-1]}


def errors(answer: Table, truth: Table) -> list[float]:
    """Return the signed relative error of each group of the truth."""
    return [answer[key] / value - 1 for key, value in truth.items()]


def measure(folder: Path, visits: int, repetitions: int, epsilon: float) -> list[dict[str, Any]]:
    """Ask every question with every bound, once for each seed."""
    policy = write_clinic_apart(folder, visits, dirty=False)
    raw = duckdb.connect(str(folder / "clinic.duckdb"), read_only=True)
    truths = {name: as_table(raw.execute(sql).fetchall()) for name, sql in QUESTIONS.items()}
    raw.close()
    cells = [(name, rows) for name in QUESTIONS for rows in ROWS]
    noisy: dict[Any, list[float]] = {cell: [] for cell in cells}
    exact: dict[Any, list[float]] = {cell: [] for cell in cells}
    words: dict[Any, tuple[str, str]] = {}
    for seed in range(1, repetitions + 1):
        with Engine.open(policy, insecure_testing=True, seed=seed) as engine:
            for name, rows in cells:
                sql, truth = QUESTIONS[name], truths[name]
                given = engine.query(sql, epsilon=epsilon, rows=rows)
                noisy[name, rows] += errors(as_table(given.rows), truth)
                bare = engine.query(sql, epsilon=epsilon, rows=rows, noiseless=True)
                exact[name, rows] += errors(as_table(bare.rows), truth)
                if (name, rows) not in words:
                    releases = engine.explain(sql, epsilon=epsilon, rows=rows).releases
                    words[name, rows] = (
                        ", ".join(dict.fromkeys(str(r.strategy) for r in releases)),
                        ", ".join(dict.fromkeys(str(r.mechanism) for r in releases)),
                    )
        for old in folder.glob("*insecure.snapshot*"):
            old.unlink()
    return [
        {
            "question": name, "rows": rows, "strategy": words[name, rows][0],
            "mechanism": words[name, rows][1],
            "error": statistics.median(map(abs, noisy[name, rows])),
            "bias": statistics.median(exact[name, rows]),
        }
        for name, rows in cells
    ]  # fmt: skip


def table(document: dict[str, Any]) -> str:
    """Print what was found."""
    lines = [
        f"epsilon {document['epsilon']:g}, {document['repetitions']} repetitions: median absolute "
        "relative error, and (in brackets) the bias from bounding alone",
        f"{'':27}{'strategy, unless rows= is given':34}"
        + "".join(f"{'default' if rows is None else f'rows={rows}':>18}" for rows in ROWS),
    ]
    for name in QUESTIONS:
        found = [r for r in document["results"] if r["question"] == name]
        cells = "".join(f"{r['error']:9.3%} {'(' + format(r['bias'], '+.2%') + ')':>8}"
                        for r in found)
        lines.append(f"{name:27}{found[0]['strategy'] + ', ' + found[0]['mechanism']:34}{cells}")
    return "\n".join(lines)


def targets(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hold the planner's own choices against the targets."""
    return [
        target(f"relative error of {row['question']}", row["error"], TARGETS[row["question"]])
        for row in results if row["rows"] is None and row["question"] in TARGETS
    ]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--visits", type=int, default=100_000)
    options.add_argument("--repetitions", type=int, default=80)
    options.add_argument("--epsilon", type=float, default=1.0)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="discreet-accuracy-") as name:
        results = measure(Path(name), asked.visits, asked.repetitions, asked.epsilon)
    document = {
        "machine": machine("scipy"), "visits": asked.visits, "epsilon": asked.epsilon,
        "repetitions": asked.repetitions, "results": results, "targets": targets(results),
    }  # fmt: skip
    give_out(document, asked, table(document))


if __name__ == "__main__":
    main()
