"""The same questions through SmartNoise SQL, on DuckDB as well: CPU time and error, side by side.

    python -m benchmarks.smartnoise --python PATH/TO/VENV/bin/python [--visits 100000 1000000]
                                    [--repetitions 7] [--json]

SmartNoise needs an environment of its own, because its pins and ours exclude each other:

    python3.11 -m venv snsql && snsql/bin/pip install smartnoise-sql duckdb pyarrow

Without one this says so and ends. Both systems get 20 rows a patient, the same bounds and the
same total epsilon (SmartNoise spends it per column, so its columns share it). The clinic is
clean, because SmartNoise has no rule for dirty rows. Errors are median absolute relative errors
against plain SQL, over repetitions and groups.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.common import give_out, in_turns, machine, median, parser, write_clinic_apart
from engine import Engine

THREADS, ROWS, EPSILON, ANSWERS = 2, 20, 1.0, 20
MISSING = (
    "smartnoise-sql is not installed in {}, so nothing was measured; "
    "see the head of benchmarks/smartnoise.py for how to install it"
)
QUESTIONS = {
    "count": "SELECT COUNT(*) AS n FROM visits",
    "distinct": "SELECT COUNT(DISTINCT patient_id) AS n FROM visits",
    "sum": "SELECT SUM(cost) AS s FROM visits",
    "sum and avg": "SELECT SUM(cost) AS s, AVG(cost) AS a FROM visits",
    "by group": "SELECT department, COUNT(*) AS n, AVG(cost) AS a FROM visits "
                "GROUP BY department",
    "distinct by group": "SELECT department, COUNT(DISTINCT patient_id) AS n FROM visits "
                         "GROUP BY department",
    "filter": "SELECT department, COUNT(*) AS n, SUM(cost) AS s FROM visits WHERE cost > 500 "
              "GROUP BY department",
    "join": "SELECT p.sex, AVG(v.cost) AS a FROM visits AS v "
            "JOIN patients AS p ON v.patient_id = p.patient_id GROUP BY p.sex",
    "per patient": "SELECT AVG(total) AS a FROM (SELECT patient_id, SUM(cost) AS total "
                   "FROM visits GROUP BY patient_id) AS t",
    "median": "SELECT MEDIAN(cost) AS m FROM visits",
}  # fmt: skip
COLUMNS = {
    "visits": {
        "department": {"type": "string"},
        "cost": {"type": "float", "lower": 0.0, "upper": 20000.0},
    },
    "patients": {"sex": {"type": "string"}},
}


def qualified(sql: str) -> str:
    """Name the schema, without which SmartNoise finds no table."""
    return sql.replace(" visits", " PUBLIC.visits").replace(" patients", " PUBLIC.patients")


def has_smartnoise(python: str) -> bool:
    """Return whether an interpreter can import what the peer's half needs."""
    if python == sys.executable:
        return importlib.util.find_spec("snsql") is not None
    try:
        done = subprocess.run([python, "-c", "import snsql, duckdb, pyarrow"], capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def error(rows: Any, truth: list[tuple[Any, ...]]) -> float | None:
    """Return the median relative error over all numbers of one answer; a lost group counts 1."""
    exact = {row[0] if len(row) > 1 and isinstance(row[0], str) else "": row for row in truth}
    given = {row[0] if len(row) > 1 and isinstance(row[0], str) else "": row for row in rows}
    off = []
    for key, numbers in exact.items():
        for place, number in enumerate(numbers):
            if not isinstance(number, str):
                answer = given[key][place] if key in given else 0.0
                off.append(abs(float(answer if answer is not None else 0.0) / number - 1))
    return statistics.median(off) if off else None


def measure(folder: Path, visits: int, python: str, repetitions: int) -> dict[str, Any]:
    """Measure both systems at one size."""
    policy = write_clinic_apart(folder, visits, dirty=False)
    raw = duckdb.connect(
        str(folder / "clinic.duckdb"), read_only=True, config={"threads": THREADS}
    )
    tables = {name: str(folder / f"{name}.parquet") for name in COLUMNS}
    for name, path in tables.items():
        raw.execute(f"COPY {name} TO '{path}' (FORMAT parquet)")
    job = {
        "threads": THREADS, "rows": ROWS, "epsilon": EPSILON, "answers": ANSWERS,
        "repetitions": repetitions, "tables": tables, "columns": COLUMNS,
        "questions": {name: qualified(sql) for name, sql in QUESTIONS.items()},
    }  # fmt: skip
    script = Path(__file__).with_name("smartnoise_peer.py")
    done = subprocess.run(
        [python, str(script)], input=json.dumps(job), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"SmartNoise's half failed:\n{done.stderr[-2000:]}")
    theirs = json.loads(done.stdout)
    rows = []
    with Engine.open(policy, insecure_testing=True) as engine:
        for name, sql in QUESTIONS.items():
            ask = partial(engine.query, sql, epsilon=EPSILON)
            plain, ours = in_turns([partial(_fetch, raw, sql), ask], repetitions)
            truth = raw.execute(sql).fetchall()
            off = [error(ask().rows, truth) for _ in range(ANSWERS)]
            peer = theirs["questions"][name]
            answers = peer.pop("answers", [])
            rows.append({
                "question": name, "sql": sql,
                "plain ms": median(plain), "ours ms": median(ours),
                "our error": _middle(off), **{f"peer: {k}": v for k, v in peer.items()},
                "peer: error": _middle([error(answer, truth) for answer in answers]),
            })  # fmt: skip
        (counted,) = raw.execute("SELECT COUNT(*) FROM visits").fetchone() or (0,)
    raw.close()
    return {"visits": counted, "peer versions": theirs["versions"],
            "peer peak RSS MB": theirs["peak RSS MB"], "questions": rows}


def _fetch(connection: Any, sql: str) -> object:
    return connection.execute(sql).fetchall()


def _middle(found: list[float | None]) -> float | None:
    known = [one for one in found if one is not None]
    return statistics.median(known) if known else None


def table(document: dict[str, Any]) -> str:
    """Print both systems side by side."""
    lines = []
    for size in document["results"]:
        lines += [
            f"{size['visits']:,} visits, epsilon {EPSILON:g}, CPU ms; SmartNoise "
            f"{size['peer versions']['smartnoise-sql']} on DuckDB "
            f"{size['peer versions']['duckdb']}",
            f"{'':20}{'plain':>8}{'Discreet':>10}{'SmartNoise':>12}{'error':>10}{'theirs':>10}",
        ]
        for row in size["questions"]:
            peer = row.get("peer: ms")
            shown = f"{'cannot':>12}" if peer is None else f"{peer:12.1f}"
            off = row["peer: error"]
            lines.append(
                f"{row['question']:20}{row['plain ms']:8.1f}{row['ours ms']:10.1f}{shown}"
                f"{row['our error']:10.3%}{'' if off is None else format(off, '10.3%')}"
            )
        lines += [f"  {row['question']}: {row['peer: cannot']}" for row in size["questions"]
                  if "peer: cannot" in row]
    return "\n".join(lines)


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--python", default=os.environ.get("SMARTNOISE_PYTHON", sys.executable),
        help="the interpreter that has SmartNoise (or set SMARTNOISE_PYTHON)",
    )
    options.add_argument("--visits", type=int, nargs="+", default=[100_000, 1_000_000])
    options.add_argument("--repetitions", type=int, default=7)
    asked = options.parse_args()
    if not has_smartnoise(asked.python):
        give_out({"skipped": MISSING.format(asked.python)}, asked, MISSING.format(asked.python))
        return
    with tempfile.TemporaryDirectory(prefix="discreet-smartnoise-") as name:
        results = [
            measure(Path(name) / str(visits), visits, asked.python, asked.repetitions)
            for visits in asked.visits
        ]
    document = {"machine": machine(), "epsilon": EPSILON, "results": results}
    give_out(document, asked, table(document))


if __name__ == "__main__":
    main()
