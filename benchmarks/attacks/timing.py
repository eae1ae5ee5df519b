"""Time as an answer: a question that is slow for one patient's rows, and a clock.

Haeberlen, Pierce and Narayan 2011. The target's rows, and nobody else's, make a condition
expensive; the time of each question, always a new one, is compared between tables with and
without those rows. The answers themselves are not looked at.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.attacks.curators import policy_text, write_table
from engine import Engine

ROWS, LETTERS = 1_000, 4_000
DECLARED = (
    "  people:\n    one_row_per_unit: true\n    columns: {id: unit}\n"
    "  notes:\n    columns:\n      id: {references: people}\n"
    "      day: {integer: [0, 100000], not_null: true}\n      words: text\n"
)


def _table(folder: Path, heavy: bool) -> Path:
    """Write a thousand patients with a short note each, and perhaps one with long ones."""
    folder.mkdir(parents=True)
    write_table(folder / "data.duckdb", "people", {"id": np.arange(1_001)})
    own = np.arange(1_000)
    many = ROWS if heavy else 0
    write_table(folder / "data.duckdb", "notes", {
        "id": np.concatenate([own, np.full(many, 1_000)]),
        "day": np.concatenate([own % 90, np.arange(many)]),
        "words": np.array(["fine"] * 1_000 + ["a" * LETTERS] * many, dtype=object),
    })
    path = folder / "policy.yaml"
    path.write_text(policy_text(folder, DECLARED, 1e5, rows=ROWS), encoding="utf-8")
    return path


def question(n: int) -> str:
    """Return a new question whose condition is slow for long texts."""
    return (f"SELECT COUNT(*) FROM notes WHERE day <> {n} AND "
            "regexp_matches(words, '(a|b)*(a|b)*(a|b)*cccd')")


def timed(folder: Path, questions: int, slot: float | None) -> dict[str, Any]:
    """Return how well times alone tell the tables apart: the share of right guesses by the best
    threshold, chosen on one half of the questions and judged on the other."""
    times: dict[bool, list[float]] = {True: [], False: []}
    engines = {heavy: Engine.open(_table(folder / str(heavy), heavy), time_slot=slot)
               for heavy in times}
    for n in range(questions):
        for heavy, engine in engines.items():
            started = time.perf_counter()
            engine.query(question(100 + n), epsilon=0.001)
            times[heavy].append(time.perf_counter() - started)
    for engine in engines.values():
        engine.close()
    half = questions // 2
    levels = sorted(times[True][:half] + times[False][:half])

    def right(level: float, part: slice) -> float:
        hits = sum(t > level for t in times[True][part]) + sum(
            t <= level for t in times[False][part])
        return hits / (2 * len(times[True][part]))

    best = max(levels, key=lambda level: right(level, slice(0, half)))
    return {
        "right": round(right(best, slice(half, None)), 4),
        "milliseconds with": round(1000 * median(times[True]), 3),
        "milliseconds without": round(1000 * median(times[False]), 3),
        "residual milliseconds": round(
            1000 * abs(median(times[True]) - median(times[False])), 4),
    }
