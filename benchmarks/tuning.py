"""What does a private search for settings cost and gain? AUC against fixed settings at one epsilon.

    python -m benchmarks.tuning [--seeds 5] [--data ../shared/data] [--json]

Logistic regression on support2 (death in hospital), tested on rows that nothing sees. The grid has
settings that are far off beside good ones; `train` with the worst of them and with the defaults
stand beside `tune`, which pays for the search out of the same epsilon.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import training_studies
from benchmarks.common import give_out, machine, parser
from benchmarks.table import auc
from benchmarks.training_studies import Study, support
from engine import Engine
from models.model import Model

EPSILONS = (1.0, 3.0)
GRID = {"learning_rate": [0.001, 0.01, 0.1, 1.0], "clip": [0.1, 1.0, 10.0]}
WORST = {"learning_rate": 0.001, "clip": 10.0}
Way = Callable[[Engine, Study, dict[str, Any]], Model]
WAYS: dict[str, Way] = {
    "train, the defaults": lambda engine, study, how: engine.train(
        study.view, holdout=0.0, **how),
    "train, the worst of the grid": lambda engine, study, how: engine.train(
        study.view, holdout=0.0, **WORST, **how),
    "tune, about 10 runs": lambda engine, study, how: engine.tune(
        study.view, candidates=GRID, holdout=0.3, **how),
}


def measure(study: Study, seeds: int) -> list[dict[str, Any]]:
    """Measure every way at every epsilon, seed by seed."""
    rows = []
    with Engine.open(study.policy) as engine:
        for epsilon in EPSILONS:
            how = {"label": study.label, "epsilon": epsilon, "delta": study.delta}
            for name, way in WAYS.items():
                found = [auc(study.truth, way(engine, study, how).predict(study.test))
                         for _ in range(seeds)]
                spread = float(np.std(found, ddof=1)) if seeds > 1 else math.nan
                rows.append({
                    "epsilon": epsilon, "way": name, "runs": seeds,
                    "auc": round(float(np.mean(found)), 4), "least": round(min(found), 4),
                    "interval": round(1.96 * spread / math.sqrt(seeds), 4),
                })
    return rows


def main() -> None:
    """Measure, and print a table or JSON."""
    found = parser(__doc__)
    found.add_argument("--seeds", type=int, default=5)
    found.add_argument("--data", type=Path, default=None)
    asked = found.parse_args()
    if asked.data is not None:
        training_studies.TABLES = asked.data
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for study in support(Path(folder)):
            rows += measure(study, asked.seeds)
    lines = [f"eps {r['epsilon']:<5g} {r['way']:30} AUC {r['auc']:.3f} +- {r['interval']:.3f} "
             f"(least {r['least']:.3f})" for r in rows]
    give_out({"machine": machine("duckdb", "numpy"), "rows": rows}, asked,
             "\n".join(lines) or "the tables are not beside the project")


if __name__ == "__main__":
    main()
