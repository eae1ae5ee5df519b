"""What is a noised table worth? AUC of a model learned from it, beside one trained on the rows.

    python -m benchmarks.table [--seeds 5] [--data ../shared/data] [--json]

Both at the same epsilon, on the same rows (support2, death in hospital; with 40 useless columns as
well), tested on rows that neither sees. `engine.release_table` divides a row's epsilon evenly or by
private importance; scikit-learn's logistic regression learns from the released table, columns
encoded as the engine encodes them. `engine.train` is logistic regression by noisy gradients.
Noise is from the operating system, the ledger is real; the tables are left out where absent.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import training_studies
from benchmarks.common import give_out, machine, parser
from benchmarks.training_studies import Study, support
from engine import Engine
from models.encoding import Encoding

EPSILONS = (0.3, 1.0, 3.0, 10.0)
STUDIES = {"support2": 0, "support2 and 40 useless columns": 40}


def auc(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, scores))


def encoded(encoding: Encoding, rows: Any) -> np.ndarray:
    """Encode rows by declared facts, as `predict` does."""
    return encoding.matrix(encoding.columns(rows))


def from_table(
    study: Study, engine: Engine, epsilon: float, importance: float, form: str = "rows"
) -> float:
    """Release a table, learn from it, test."""
    from sklearn.linear_model import LogisticRegression

    asked: dict[str, Any] = {"label": study.label, "epsilon": epsilon, "delta": study.delta}
    encoding = engine.explain_release_table(study.view, **asked).encoding
    frame = engine.release_table(
        study.view, importance=importance, form=form, **asked).to_pandas()
    rows = frame.dropna(subset=[study.label])
    learned = LogisticRegression(max_iter=2_000, C=0.01).fit(
        encoded(encoding, rows), rows[study.label])
    return auc(study.truth, learned.decision_function(encoded(encoding, study.test)))


def from_rows(study: Study, engine: Engine, epsilon: float) -> float:
    """Train on the rows themselves, test."""
    made = engine.train(study.view, label=study.label, epsilon=epsilon, delta=study.delta,
                        holdout=0.0)
    return auc(study.truth, made.predict(study.test))


WAYS = {
    "noised table, even": lambda *given: from_table(*given, 0.0),
    "noised table, by importance": lambda *given: from_table(*given, 0.2),
    "drawn table, even": lambda *given: from_table(*given, 0.0, "marginals"),
    "drawn table, by importance": lambda *given: from_table(*given, 0.2, "marginals"),
    "engine.train, logistic": from_rows,
}


def measure(name: str, seeds: int, folder: Path) -> list[dict[str, Any]]:
    """Measure every way at every epsilon, seed by seed."""
    rows = []
    for study in support(folder, STUDIES[name]):
        for epsilon in EPSILONS:
            for way, found in WAYS.items():
                # A kept table is free: a new one needs a ledger of its own.
                values = []
                for _ in range(seeds):
                    for old in study.policy.parent.glob("study.ledger*"):
                        old.unlink() if old.is_file() else None
                    with Engine.open(study.policy) as engine:
                        values.append(found(study, engine, epsilon))
                        plan = engine.explain_release_table(
                            study.view, label=study.label, epsilon=epsilon, delta=study.delta,
                            form="rows")
                spread = float(np.std(values, ddof=1)) if seeds > 1 else math.nan
                rows.append({
                    "study": name, "epsilon": epsilon, "way": way, "runs": seeds,
                    "auc": round(float(np.mean(values)), 4),
                    "interval": round(1.96 * spread / math.sqrt(seeds), 4),
                    "local_epsilon": round(float(plan.local), 3),
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
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in STUDIES:
            rows += measure(name, asked.seeds, Path(folder))
    lines = [f"{r['study']:32} eps {r['epsilon']:<5g} {r['way']:28} AUC {r['auc']:.3f} "
             f"+- {r['interval']:.3f}" for r in rows]
    document = {"machine": machine("duckdb", "numpy", "scikit-learn"), "rows": rows}
    give_out(document, asked, "\n".join(lines) or "the tables are not beside the project")


if __name__ == "__main__":
    main()
