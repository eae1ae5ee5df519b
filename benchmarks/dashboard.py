"""What does a dashboard gain from one price? Against its questions asked one by one.

    python -m benchmarks.dashboard [--repetitions 40] [--json]

Twenty questions over visits: four numbers (visits, patients, their costs, the mean cost), each in
total, by sex, by age band, by both and by month. Asked one by one, each gets a twentieth of epsilon
(and of delta); as a batch they share one charge. Both are asked of the same engine, repetition by
repetition, with fresh noise. A question's error is the root mean square over its groups, relative
to their mean size; given is the root mean square over questions, with a 95 % interval of the mean
difference, the ratio for each question, and how often the batch's intervals hold the truth.

The gain has two sources: what questions share is paid once, and levels are answered from one
another. Counts alone show the second by itself; a condition on rows has parts scaled in place of
rows left out. There is no leaky form: the strategy depends on no data.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from benchmarks.common import give_out, machine, parser, target
from engine import Engine

EPSILON = 1.0
PATIENTS = 20_000
POLICY = """
discreet: 1
database: clinic.duckdb
ledger: ledger.sqlite
budget: {epsilon: 1000, delta: 1e-3}
unit: patients.patient_id
tables:
  patients:
    one_row_per_unit: true
    columns:
      patient_id: unit
      sex: {category: [F, M], not_null: true}
      birth_year: {integer: [1930, 2009], not_null: true}
  visits:
    rows_per_unit: 8
    max_rows_per_unit: 16
    columns:
      patient_id: {references: patients}
      day: {date: [2025-01-01, 2025-12-31], not_null: true}
      cost: {real: [0, 1000], not_null: true}
      los: {integer: [0, 14], not_null: true}
"""
FROM = "FROM visits JOIN patients USING (patient_id)"
NUMBERS = ("COUNT(*)", "COUNT(DISTINCT patient_id)", "SUM(cost)", "AVG(cost)")
BAND, MONTH = "birth_year // 10", "date_trunc('month', day)"
LEVELS: tuple[tuple[str, ...], ...] = ((), ("sex",), (BAND,), ("sex", BAND), (MONTH,))


def write_clinic(folder: Path) -> Path:
    """Write patients with one to eight visits in a year, and the policy."""
    with duckdb.connect(str(folder / "clinic.duckdb")) as c:
        c.execute("CREATE TABLE patients AS SELECT i AS patient_id, CASE WHEN hash(i) % 2 = 0 "
                  "THEN 'F' ELSE 'M' END AS sex, 1930 + hash(i * 7) % 80 AS birth_year "
                  f"FROM range({PATIENTS}) t(i)")
        c.execute("CREATE TABLE visits AS SELECT i AS patient_id, DATE '2025-01-01' + "
                  "CAST(hash(i * 31 + j) % 365 AS INTEGER) AS day, "
                  "(hash(i * 13 + j) % 100000) / 100.0 AS cost, hash(i * 17 + j) % 15 AS los "
                  f"FROM range({PATIENTS}) t(i), range(8) s(j) WHERE j <= hash(i * 3) % 8")
    (folder / "clinic.yaml").write_text(POLICY)
    return folder / "clinic.yaml"


def questions(numbers: Sequence[str], condition: str = "") -> list[str]:
    """Write each number at each level."""
    return [
        f"SELECT {', '.join([*(f'{key} AS k{i}' for i, key in enumerate(keys)), f'{n} AS x'])} "
        f"{FROM}{condition}{' GROUP BY ' + ', '.join(keys) if keys else ''}"
        for n in numbers for keys in LEVELS
    ]


def truths(policy: Path, sqls: Sequence[str]) -> list[dict[Any, float]]:
    """Answer the questions without noise, in plain DuckDB."""
    with duckdb.connect(str(policy.parent / "clinic.duckdb"), read_only=True) as c:
        return [{tuple(map(str, row[:-1])): float(row[-1]) for row in c.execute(sql).fetchall()}
                for sql in sqls]


def errors(rows: Any, truth: dict[Any, float]) -> float:
    """Return a question's root mean square error, relative to the mean size of its groups."""
    found = [(0.0 if row[-1] is None else float(row[-1])) - truth.get(tuple(map(str, row[:-1])), 0)
             for row in rows]
    size = float(np.mean([abs(value) for value in truth.values()]))
    return math.sqrt(float(np.mean(np.square(found)))) / size


def covered(result: Any, truth: dict[Any, float]) -> list[bool]:
    """Return for each group whether its interval holds the truth."""
    return [ends[-1][0] <= truth.get(tuple(map(str, row[:-1])), 0) <= ends[-1][1]
            for row, ends in zip(result.rows, result.intervals, strict=True) if ends[-1]]


def compare(
    engine: Engine, policy: Path, case: str, sqls: Sequence[str], delta: float, repetitions: int
) -> dict[str, Any]:
    """Ask in both ways, repetition by repetition."""
    exact = truths(policy, sqls)
    apart: list[list[float]] = []
    together: list[list[float]] = []
    inside: list[bool] = []
    for _ in range(repetitions):
        ones = [engine.query(sql, epsilon=f"{EPSILON / len(sqls):.6f}", delta=delta / len(sqls))
                for sql in sqls]
        many = engine.query_many(sqls, epsilon=EPSILON, delta=delta)
        apart.append([errors(r.rows, t) for r, t in zip(ones, exact, strict=True)])
        together.append([errors(r.rows, t) for r, t in zip(many, exact, strict=True)])
        inside += [held for r, t in zip(many, exact, strict=True) for held in covered(r, t)]
    plan = engine.explain_many(sqls, epsilon=EPSILON, delta=delta)
    pooled = [np.sqrt(np.mean(np.square(way), axis=1)) for way in (apart, together)]
    each = [np.sqrt(np.mean(np.square(way), axis=0)) for way in (apart, together)]
    gain = pooled[0] - pooled[1]
    half = 1.96 * float(np.std(gain, ddof=1)) / math.sqrt(repetitions)
    whole = [float(np.sqrt(np.mean(np.square(way)))) for way in (apart, together)]
    return {
        "case": case, "questions": len(sqls), "delta": delta, "mechanism": plan.mechanism,
        "measured": len(plan.releases), "one by one": whole[0], "batch": whole[1],
        "ratio": whole[1] / whole[0],
        "difference": [float(np.mean(gain)) - half, float(np.mean(gain)) + half],
        "ratios": dict(zip(sqls, (each[1] / each[0]).round(3).tolist(), strict=True)),
        "covered": float(np.mean(inside)), "repetitions": repetitions,
    }


def table(document: dict[str, Any]) -> str:
    """Print what was found."""
    lines = [f"{'relative RMSE over all questions':44}{'one by one':>12}{'batch':>9}{'ratio':>7}"
             "   95 % of the difference   noise      questions: best, worst   intervals hold"]
    for row in document["results"]:
        (low, high), each = row["difference"], sorted(row["ratios"].values())
        lines.append(
            f"{row['case']:44}{row['one by one']:12.4f}{row['batch']:9.4f}{row['ratio']:7.3f}   "
            f"[{low:.4f}, {high:.4f}]         {row['mechanism']:10} {each[0]:.2f}, {each[-1]:.2f}"
            f"{'':14}{row['covered']:.1%}"
        )
    return "\n".join(lines)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--repetitions", type=int, default=40)
    asked = options.parse_args()
    twenty, filtered = questions(NUMBERS), questions(NUMBERS, " WHERE los >= 2")
    cases = (("20 questions, delta 0", twenty, 0.0), ("20 questions, delta 1e-6", twenty, 1e-6),
             ("20 questions of some visits, delta 0", filtered, 0.0),
             ("5 questions: counts only, delta 0", questions(NUMBERS[:1]), 0.0))
    with tempfile.TemporaryDirectory(prefix="discreet-dashboard-") as name:
        policy = write_clinic(Path(name))
        with Engine.open(policy, insecure_testing=True, seed=1) as engine:
            results = [compare(engine, policy, case, sqls, delta, asked.repetitions)
                       for case, sqls, delta in cases]
    document = {
        "machine": machine(), "results": results,
        "targets": [target(f"RMSE of a dashboard of {row['case']}, share of one by one",
                           row["ratio"], 0.5)
                    for row in results if row["case"] == "20 questions, delta 0"],
    }
    give_out(document, asked, table(document))


if __name__ == "__main__":
    main()
