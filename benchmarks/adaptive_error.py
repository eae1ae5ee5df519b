"""What does an accuracy target cost? Against a fixed epsilon of 1 and against asking again.

    python -m benchmarks.adaptive_error [--repetitions 40] [--json]

A count is wanted within 5 or 10 % at 95 %. The engine's target reveals levels of one noise, coarse
to fine, and is charged for the last. Asking again doubles the epsilon from 0.01 with fresh noise
until the answer is as exact by the same rule, and pays for every try. Both ask the same question of
the same ledger, repetition by repetition, each repetition another question with the same answer;
given are the mean epsilon, a 95 % interval of the mean difference, and how often the error was
beyond the target. How often the intervals of stopped answers hold is simulated with the engine's
own noise and rule of stopping, 20,000 counts each.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from benchmarks.common import give_out, machine, parser, target
from engine import Engine
from mechanisms import gradual, laplace
from mechanisms.randomness import Randomness
from planner.target import LEVELS, Target, is_close, read_target
from planner.uncertainty import CONFIDENCE

CASES = ((200, "10%"), (1_000, "10%"), (1_000, "5%"), (5_000, "10%"))
FIXED, FIRST = 1.0, 0.01
POLICY = """
discreet: 1
database: people.duckdb
ledger: ledger.sqlite
budget: {epsilon: 100000, delta: 1e-3}
unit: people.person
tables:
  people:
    one_row_per_unit: true
    columns:
      person: unit
      visits: {integer: [0, 365], not_null: true}
"""


def people(folder: Path, count: int) -> Path:
    """Write a table of so many persons, and its policy."""
    folder.mkdir()
    with duckdb.connect(str(folder / "people.duckdb")) as c:
        c.execute("CREATE TABLE people AS SELECT i AS person, 1 AS visits "
                  f"FROM range({count}) t(i)")
    (folder / "people.yaml").write_text(POLICY)
    return folder / "people.yaml"


def asked_again(engine: Engine, sql: str, wanted: Target) -> tuple[float, float]:
    """Double the epsilon until the answer is exact enough; return what was paid and the answer."""
    epsilon, paid = FIRST, 0.0
    while True:
        result = engine.query(sql, epsilon=epsilon)
        paid += result.cost.epsilon
        if is_close(result.rows[0][0], result.intervals[0][0], wanted) or epsilon >= FIXED:
            return paid, float(result.rows[0][0])
        epsilon *= 2


def measure(policy: Path, count: int, error: str, repetitions: int) -> dict[str, Any]:
    """Ask each question in both ways; the target comes first, so that nothing is kept for it."""
    wanted = read_target(error)
    spent: dict[str, list[float]] = {"target": [], "again": []}
    missed = dict.fromkeys(spent, 0)
    with Engine.open(policy) as engine:
        for i in range(repetitions):
            sql = f"SELECT COUNT(*) FROM people WHERE visits < {i + 2}"
            result = engine.query(sql, epsilon=FIXED, error=error)
            answers = {"target": (result.cost.epsilon, float(result.rows[0][0]))}
            # The same rows in words that are told apart: the kept answer is not used.
            answers["again"] = asked_again(engine, f"{sql} AND person IS NOT NULL", wanted)
            for way, (epsilon, answer) in answers.items():
                spent[way].append(epsilon)
                missed[way] += abs(answer / count - 1) > float(wanted.error)
    apart = np.asarray(spent["again"]) - np.asarray(spent["target"])
    half = 1.96 * float(np.std(apart, ddof=1)) / math.sqrt(repetitions)
    return {
        "case": f"COUNT of {count:,} within {error} at 95 %", "fixed": FIXED,
        "again": float(np.mean(spent["again"])), "target": float(np.mean(spent["target"])),
        "difference": [float(np.mean(apart)) - half, float(np.mean(apart)) + half],
        "missed": missed, "repetitions": repetitions,
    }


def stopped(count: int, error: str, runs: int) -> dict[str, Any]:
    """Draw stopped answers to one count; how often the interval holds, and the error is missed."""
    wanted = read_target(error)
    scales = gradual.scales_of(1 / FIXED, LEVELS)
    noise = gradual.sample(scales, runs, Randomness.seeded(count))
    widths = [laplace.quantile(scale, CONFIDENCE) for scale in scales]
    held = missed = 0
    for run in noise.T.tolist():
        level = next((i for i, (z, h) in enumerate(zip(run, widths, strict=True))
                      if is_close(count + z, (count + z - h, count + z + h), wanted)), -1)
        held += abs(run[level]) <= widths[level]
        missed += abs(run[level]) > float(wanted.error) * count
    return {"count": count, "error": error, "runs": runs, "held": held / runs,
            "missed": missed / runs}


def table(document: dict[str, Any]) -> str:
    """Print what was found."""
    lines = [f"{'mean epsilon spent':36}{'fixed':>8}{'again':>8}{'target':>8}"
             "   saved over asking again (95 %)   missed by target, again"]
    for row in document["results"]:
        low, high = row["difference"]
        lines.append(
            f"{row['case']:36}{row['fixed']:8.3f}{row['again']:8.4f}{row['target']:8.4f}   "
            f"[{low:.4f}, {high:.4f}]{'':15}{row['missed']['target']}, {row['missed']['again']} "
            f"of {row['repetitions']}"
        )
    for row in document["stopped"]:
        lines.append(f"{row['count']:>8,} within {row['error']:>4}: the interval holds in "
                     f"{row['held']:.1%} of {row['runs']:,}, the error is missed in "
                     f"{row['missed']:.1%}")
    return "\n".join(lines)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--repetitions", type=int, default=40)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="discreet-adaptive-error-") as name:
        results = [
            measure(people(Path(name) / str(i), count), count, error, asked.repetitions)
            for i, (count, error) in enumerate(CASES)
        ]
    document = {
        "machine": machine(), "results": results,
        "stopped": [stopped(count, error, 20_000) for count in (200, 1_000, 5_000)
                    for error in ("1%", "5%", "10%", "50%")],
        "targets": [target("epsilon for a count of 1,000 within 10 %", row["target"], 0.040)
                    for row in results if row["case"].startswith("COUNT of 1,000 within 10%")],
    }  # fmt: skip
    give_out(document, asked, table(document))


if __name__ == "__main__":
    main()
