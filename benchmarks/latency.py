"""How long does one wait? Planning, a whole question on a small table, the import, hard texts.

    python -m benchmarks.latency [--repetitions 31] [--json]

Targets, in CPU time: explain() at most 10 ms, a question over a small table at most 25 ms, the
widest case planned within 50 ms, `import engine` within 0.5 s; and hard texts (500 levels of
nesting, 1 MB, 1,000 columns) planned or refused within 2 s, never a RecursionError.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.common import (
    cpu_ms,
    give_out,
    in_turns,
    machine,
    median,
    parser,
    target,
)
from engine import Engine, OverBudget, Refused
from engine.clinic import clinic_policy, write_clinic

EXPLAIN_TARGET, QUERY_TARGET, WIDEST_TARGET = 10.0, 25.0, 50.0  # CPU ms
IMPORT_TARGET, HARD_TARGET = 0.5, 2.0  # CPU s
PATIENTS = 100
COLUMNS = 1_000
DEEP = 500
MEGABYTE = 2**20

ORDINARY = {
    "count": "SELECT COUNT(*) FROM visits",
    "average by group": "SELECT department, COUNT(*), AVG(cost) FROM visits GROUP BY department",
    "filter": "SELECT SUM(cost) FROM visits WHERE los > 3 AND department = 'oncology'",
    "join": "SELECT p.sex, AVG(v.cost) FROM visits v "
            "JOIN patients p ON v.patient_id = p.patient_id GROUP BY p.sex",
    "unknown keys": "SELECT diagnosis, COUNT(*) FROM visits GROUP BY diagnosis",
    "median": "SELECT MEDIAN(cost) FROM visits",
}  # fmt: skip
WIDEST = """
WITH heavy AS (
    SELECT v.patient_id, p.sex, p.region, v.department, v.cost, l.value,
           ROW_NUMBER() OVER (PARTITION BY v.patient_id ORDER BY v.visit_date) AS nth
    FROM visits v
    JOIN patients p ON v.patient_id = p.patient_id
    JOIN labs l ON l.visit_id = v.visit_id
    WHERE v.cost > 10
), each AS (
    SELECT patient_id, sex, region, SUM(cost) AS total, MAX(value) AS worst, COUNT(*) AS n
    FROM heavy WHERE nth <= 10 GROUP BY patient_id, sex, region
)
SELECT sex, region, COUNT(*), AVG(total), (SELECT QUANTILE_CONT(worst, 0.9) FROM each) AS q
FROM each WHERE total > 100 GROUP BY ROLLUP (sex, region)
"""


def hard_texts() -> dict[str, str]:
    """Return texts that are no question anybody asks, but that somebody will send."""
    count = "SELECT COUNT(*) FROM visits"
    nested = "SELECT * FROM visits"
    for level in range(DEEP):
        nested = f"SELECT * FROM ({nested}) AS t{level}"
    steps = ", ".join(
        f"s{level} AS (SELECT * FROM {f's{level - 1}' if level else 'visits'})"
        for level in range(DEEP)
    )
    inside = "cost"
    for _ in range(DEEP):
        inside = f"CASE WHEN cost > 1 THEN {inside} ELSE 0 END"
    listed = ", ".join(f"SUM(cost + {i})" for i in range(COLUMNS))
    return {
        "500 brackets": f"{count} WHERE {'(' * DEEP}cost > 1{')' * DEEP}",
        "500 functions": f"SELECT SUM({'abs(' * DEEP}cost{')' * DEEP}) FROM visits",
        "500 NOT": f"{count} WHERE {'NOT ' * DEEP}(cost > 1)",
        "500 CASE": f"SELECT SUM({inside}) FROM visits",
        "500 divisions": f"SELECT SUM({'1 / (' * DEEP}cost{')' * DEEP}) FROM visits",
        "500 subqueries": f"SELECT COUNT(*) FROM ({nested}) AS t",
        "500 CTEs": f"WITH {steps} SELECT COUNT(*) FROM s{DEEP - 1}",
        "500 UNION ALL": " UNION ALL ".join([count] * DEEP),
        "500 additions": f"SELECT SUM(cost{' + 1' * DEEP}) FROM visits",
        "100,000 brackets": f"{count} WHERE {'(' * 45_000}1{')' * 45_000} = 1",
        "10,000 AND": f"{count} WHERE {' AND '.join(['cost>1'] * 10_000)}",
        "1 MB of comment": f"{count} -- {'x' * MEGABYTE}",
        "1 MB of blanks": f"{count}{' ' * MEGABYTE}",
        "1 MB of string": f"{count} WHERE diagnosis = '{'x' * MEGABYTE}'",
        "1 MB of IN": f"{count} WHERE los IN ({', '.join(['1'] * (MEGABYTE // 3))})",
        "1 MB of brackets": f"{count} WHERE {'(' * MEGABYTE}",
        "1,000 sums": f"SELECT {listed} FROM visits",
        "1,000 times one column": f"SELECT {', '.join(['COUNT(*)'] * COLUMNS)} FROM visits",
    }


def wide_policy(folder: Path) -> tuple[Path, str]:
    """Write a table of 1,000 columns and its policy; return it and a question about all."""
    names = [f"c{i}" for i in range(COLUMNS)]
    connection = duckdb.connect(str(folder / "wide.duckdb"))
    values = ", ".join(f"i % 7 AS {name}" for name in names)
    connection.execute(f"CREATE TABLE people AS SELECT i AS id, {values} FROM range(50) r(i)")
    connection.close()
    columns = "".join(f"      {name}: {{integer: [0, 6]}}\n" for name in names)
    path = folder / "wide.yaml"
    path.write_text(
        f"discreet: 1\ndatabase: {folder / 'wide.duckdb'}\n"
        f"ledger: {folder / 'wide.ledger.sqlite'}\nbudget: {{epsilon: 1.0, delta: 1e-6}}\n"
        "defaults: {epsilon: 0.1, delta: 1.0e-9, rows_per_unit: 20, max_rows_per_unit: 200}\n"
        "unit: people.id\ntables:\n  people:\n    one_row_per_unit: true\n    columns:\n"
        f"      id: unit\n{columns}"
    )
    return path, f"SELECT {', '.join(f'AVG({name})' for name in names)} FROM people"


def attempt(engine: Engine, sql: str) -> dict[str, Any]:
    """Explain one hard text, three times: what came of it, and the median CPU seconds."""
    ends: list[str] = []

    def step() -> None:
        try:
            engine.explain(sql, epsilon=1.0)
            ends.append("planned")
        except (Refused, OverBudget) as refusal:
            ends.append(f"refused: {getattr(refusal, 'rule', type(refusal).__name__)}")
        except Exception as error:  # what must not happen is what is looked for
            ends.append(f"FAILED: {type(error).__name__}")

    spent = [cpu_ms(step) / 1e3 for _ in range(3)]
    return {"ended": ends[-1], "CPU s": median(spent)}


def import_seconds(repetitions: int) -> dict[str, float]:
    """Return the CPU seconds of imports in a fresh interpreter, beyond the interpreter itself.

    `import engine` alone loads nothing yet; naming Engine loads everything that opening needs.
    """

    def one(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    codes = ("pass", "import engine", "from engine import Engine")
    one(codes[-1])
    bare, package, name = ([one(code) for _ in range(repetitions)] for code in codes)
    return {
        "import engine": round(median(package) - median(bare), 3),
        "from engine import Engine": round(median(name) - median(bare), 3),
    }


def measure(folder: Path, repetitions: int) -> dict[str, Any]:
    """Measure everything on a clinic of a hundred patients."""
    database = write_clinic(folder / "clinic.duckdb", PATIENTS, labs_per_patient=10)
    policy = folder / "clinic.yaml"
    policy.write_text(clinic_policy(database, epsilon=1000.0))
    found: dict[str, Any] = {"ordinary": {}, "hard": {}}
    with Engine.open(policy) as engine:
        for name, sql in ORDINARY.items():
            # Each a little more accurate than the last one, so that no kept answer serves.
            epsilons = iter(0.1 + turn / 1000 for turn in range(repetitions + 3))
            ask = lambda sql=sql, epsilons=epsilons: engine.query(  # noqa: E731
                sql, epsilon=next(epsilons)
            )
            explain = partial(engine.explain, sql, epsilon=0.1)
            (planning,) = in_turns([explain], repetitions, warm=3)
            (whole,) = in_turns([ask], repetitions, warm=3)
            found["ordinary"][name] = {"explain ms": median(planning), "query ms": median(whole)}
        (widest,) = in_turns([partial(engine.explain, WIDEST, epsilon=1.0)], repetitions, warm=3)
        found["widest ms"] = median(widest)
        for name, text in hard_texts().items():
            found["hard"][name] = attempt(engine, text)
    path, sql = wide_policy(folder)
    begun = time.process_time()
    with Engine.open(path, insecure_testing=True) as engine:
        found["opening 1,000 columns CPU s"] = round(time.process_time() - begun, 3)
        found["hard"]["a table of 1,000 columns"] = attempt(engine, sql)
    found["import"] = import_seconds(7)
    return found


def targets(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold the results against the targets."""
    ordinary, hard = found["ordinary"].values(), found["hard"].values()
    failed = [name for name, entry in found["hard"].items() if "FAILED" in entry["ended"]]
    return [
        target("explain CPU ms, the slowest", max(r["explain ms"] for r in ordinary),
               EXPLAIN_TARGET),
        target("question CPU ms with ledger, the slowest", max(r["query ms"] for r in ordinary),
               QUERY_TARGET),
        target("explain CPU ms of the widest case", found["widest ms"], WIDEST_TARGET),
        *(target(f"{code}, CPU s", spent, IMPORT_TARGET)
          for code, spent in found["import"].items()),
        target("hard text CPU s, the slowest", max(r["CPU s"] for r in hard), HARD_TARGET),
        target(f"hard texts that failed {failed or ''}".strip(), len(failed), 0),
    ]  # fmt: skip


def table(document: dict[str, Any]) -> str:
    """Print what was found."""
    found = document["results"]
    lines = [f"{'CPU ms over 100 patients':32}{'explain':>9}{'query':>9}"]
    lines += [
        f"{name:32}{row['explain ms']:9.2f}{row['query ms']:9.2f}"
        for name, row in found["ordinary"].items()
    ]
    lines.append(f"{'the widest case':32}{found['widest ms']:9.2f}")
    lines += [f"{code:32}{spent:9.3f} s" for code, spent in found["import"].items()]
    lines.append(f"opening a table of 1,000 columns: {found['opening 1,000 columns CPU s']} s")
    lines += [f"{name:32}{row['CPU s']:9.3f} s  {row['ended']}" for name, row in
              found["hard"].items()]
    return "\n".join(lines)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--repetitions", type=int, default=31)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="discreet-latency-") as name:
        found = measure(Path(name), asked.repetitions)
    document = {"machine": machine("pandas", "sqlalchemy"), "results": found,
                "targets": targets(found)}
    give_out(document, asked, table(document))


if __name__ == "__main__":
    main()
