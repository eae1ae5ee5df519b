"""How much does privacy cost a model? AUC on test rows that no training sees, against peers.

    python -m benchmarks.training [--seeds 10] [--only NAME ...] [--models NAME ...] [--json]
                                  [--keep benchmarks/results/training.json]

A whole run takes long, so `--keep` puts each row into a file as soon as it is there, in place of
an older row of the same study, model and epsilon.

Every run goes the whole road: a governed snapshot, a charge in a real ledger, noise from the
operating system's entropy. `ceilings` are models without privacy on the same rows. Peers run on
breast cancer alone: diffprivlib's logistic regression, and tensorflow-privacy's DPModel, whose
epsilon is claimed for shuffled batches as if they had been drawn, and is not provable.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import give_out, machine, parser, target
from benchmarks.training_studies import Study, breast_cancer, diabetes, pneumonia, support
from engine import Engine

STUDIES: dict[str, tuple[Callable[[Path], Iterator[Study]], tuple[str, ...], tuple[float, ...]]] = {
    "breast cancer": (breast_cancer, ("logistic", "mlp"), (1.0, 3.0)),
    "support2": (support, ("logistic", "mlp"), (1.0, 3.0)),
    "diabetes130": (diabetes, ("logistic", "mlp"), (1.0, 3.0)),
    "useless columns": (
        lambda folder: support(folder, useless=40),
        ("mlp", "mlp with optimizer sgd", "mlp with importance 0.2",
         "mlp with importance 0.2, importance_by information",
         "logistic", "logistic with optimizer sgd", "logistic with importance 0.2"), (0.3,),
    ),
    "support2 at 0.3": (
        support, ("mlp", "mlp with optimizer sgd", "mlp with importance 0.2",
                  "logistic", "logistic with optimizer sgd", "logistic with importance 0.2",
                  "mlp with clip 10", "mlp with clip 10, clip_quantile 0.7",
                  "mlp with clip 0.1, clip_quantile 0.7", "mlp with noise_end 0.5"), (0.3,),
    ),
    "pneumonia28": (pneumonia, ("logistic", "cnn"), (0.52, 3.0)),
}
# study, model, epsilon -> least AUC
TARGETS = {
    ("breast cancer", "logistic", 1.0): 0.989, ("breast cancer", "mlp", 1.0): 0.989,
    ("support2", "logistic", 1.0): 0.747, ("support2", "logistic", 3.0): 0.757,
    ("support2", "mlp", 1.0): 0.743, ("support2", "mlp", 3.0): 0.753,
    ("diabetes130", "logistic", 1.0): 0.636, ("diabetes130", "logistic", 3.0): 0.646,
    ("diabetes130", "mlp", 1.0): 0.639, ("diabetes130", "mlp", 3.0): 0.649,
    ("pneumonia28", "logistic", 0.52): 0.90, ("pneumonia28", "logistic", 3.0): 0.92,
}  # fmt: skip
# what, study, the run that adapts, the constant ones (the best of them counts), least difference
DIFFERENCES = tuple(
    (f"importance over the best constant {family}, {named}", study,
     f"{family} with importance 0.2", (family, f"{family} with optimizer sgd"), least)
    for study, named, least in (("useless columns", "40 useless columns", 0.02),
                                ("support2 at 0.3", "no useless columns", -0.005))
    for family in ("mlp", "logistic")
) + tuple(
    (f"clip norm that starts at {start} and follows a quantile, over the default",
     "support2 at 0.3", f"mlp with clip {start}, clip_quantile 0.7", ("mlp",), -0.02)
    for start in ("10", "0.1")
)


def auc(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, scores))


def measured(study: Study, model: str, epsilon: float, seeds: int) -> list[float]:
    """Train and test `seeds` times, each with noise of its own."""
    found = []
    family, _, settings = model.partition(" with ")
    options = dict(study.options)
    for setting in filter(None, settings.split(", ")):
        name, _, value = setting.partition(" ")
        options[name] = float(value) if value[0].isdigit() else value
    with Engine.open(study.policy) as engine:
        for _ in range(seeds):
            made = engine.train(study.view, label=study.label, model=family, epsilon=epsilon,
                                delta=study.delta, holdout=0.0, **options)
            found.append(auc(study.truth, made.predict(study.test)))
    return found


def measure(name: str, seeds: int, only: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    """Measure one study, row by row; breast cancer has a split for each seed."""
    make, models, epsilons = STUDIES[name]
    studies = list(make(folder))
    if not studies:
        yield {"study": name, "skipped": "its tables are not beside the project"}
        return
    if len(studies) > 1:
        studies = studies[:seeds]
    for model in models:
        if only and model not in only:
            continue
        ceilings = [s.ceilings[model] for s in studies if model in s.ceilings]
        for epsilon in epsilons:
            found = [auc_ for study in studies
                     for auc_ in measured(study, model, epsilon, max(1, seeds // len(studies)))]
            yield _row(name, model, epsilon, found, float(np.mean(ceilings)) if ceilings else None)
    if name == "breast cancer":
        for peer in (diffprivlib_logistic, tensorflow_privacy_claimed):
            called = peer.__name__.replace("_", " ")
            if not only or called in only:
                yield _row(name, called, 1.0, [peer(s) for s in studies], None)


def _row(name: str, model: str, epsilon: float, found: list[float], ceiling: float | None
         ) -> dict[str, Any]:
    spread = float(np.std(found, ddof=1)) if len(found) > 1 else math.nan
    return {
        "study": name, "model": model, "epsilon": epsilon, "runs": len(found),
        "auc": round(float(np.mean(found)), 4), "sd": round(spread, 4),
        "interval": round(1.96 * spread / math.sqrt(len(found)), 4), "least": round(min(found), 4),
        "without_privacy": None if ceiling is None else round(ceiling, 4),
    }


# ---- peers -------------------------------------------------------------------------------------


def _arrays(study: Study) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a study's training rows, their labels and its test rows, scaled to [0, 1]."""
    import duckdb

    from planner.policy import read_policy

    policy = read_policy(study.policy)
    declared = policy.tables["tumours"].columns
    names = [name for name in declared if name not in ("patient", "benign")]
    with duckdb.connect(str(policy.database_path()), read_only=True) as connection:
        rows = np.array(connection.execute(
            f"SELECT {', '.join(names)}, benign FROM tumours").fetchall(), dtype=float)
    low = np.array([float(declared[n].low) for n in names])  # type: ignore[arg-type]
    high = np.array([float(declared[n].high) for n in names])  # type: ignore[arg-type]
    test = np.array([study.test[n] for n in names]).T
    return (rows[:, :-1] - low) / (high - low), rows[:, -1], (test - low) / (high - low)


def diffprivlib_logistic(study: Study) -> float:
    """Pure epsilon 1, by its documented use: a data norm from the public bounds."""
    import warnings

    from diffprivlib.models import LogisticRegression

    inputs, targets, test = _arrays(study)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(epsilon=1.0, data_norm=math.sqrt(inputs.shape[1])).fit(
            inputs, targets)
    return auc(study.truth, model.predict_proba(test)[:, 1])


def tensorflow_privacy_claimed(study: Study) -> float:
    """DPModel, 64-64, batches of 64 shuffled, 20 epochs: epsilon 1 is claimed, 3 provable."""
    from models.tensors import tensorflow

    tf = tensorflow()
    from tensorflow_privacy.privacy.fast_gradient_clipping import layer_registry
    from tensorflow_privacy.privacy.keras_models.dp_keras_model import DPModel

    inputs, targets, test = (x.astype(np.float32) for x in _arrays(study))
    layers = tf.keras.layers
    given = tf.keras.Input(inputs.shape[1:])
    out = layers.Dense(1)(layers.Dense(64, "tanh")(layers.Dense(64, "tanh")(given)))
    model = DPModel(
        l2_norm_clip=1.0, noise_multiplier=6.31, inputs=given, outputs=out, use_xla=False,
        layer_registry=layer_registry.make_default_layer_registry(),
    )
    loss = tf.keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer=tf.keras.optimizers.legacy.Adam(0.01), loss=loss)
    whole = len(inputs) // 64 * 64  # it divides the last, smaller batch by the wrong number
    model.fit(inputs[:whole], targets[:whole, None], batch_size=64, epochs=20, verbose=0)
    return auc(study.truth, model.predict(test, verbose=0)[:, 0])


def document_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rows with the machine and what was aimed at, as the results folder keeps them."""
    found = {(r["study"], r["model"], r["epsilon"]): r["auc"] for r in rows if "auc" in r}
    return {
        "benchmark": "training", "machine": machine("tensorflow", "tensorflow-privacy",
                                                    "diffprivlib", "dp-accounting"),
        "rows": rows,
        "targets": [
            target(f"AUC of {model} on {study} at epsilon {epsilon:g}", found[key], least,
                   at_least=True)
            for key, least in TARGETS.items() if key in found
            for study, model, epsilon in [key]
        ] + [
            target(what, found[study, more, 0.3] - max(found[study, other, 0.3] for other in less),
                   least, at_least=True)
            for what, study, more, less, least in DIFFERENCES
            if all((study, name, 0.3) in found for name in (more, *less))
        ],
    }


def keep(path: Path, row: dict[str, Any]) -> None:
    """Put a row into a file of results, in place of an older one of the same name."""
    def name(r: dict[str, Any]) -> tuple[Any, ...]:
        return r["study"], r.get("model"), r.get("epsilon")

    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [r for r in kept if name(r) != name(row)] + [row]
    order = list(STUDIES)
    rows.sort(key=lambda r: order.index(r["study"]) if r["study"] in order else len(order))
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(document_of(rows), indent=2) + "\n")
    draft.rename(path)


def main() -> None:
    """Measure, and print a table or JSON."""
    made = parser(__doc__)
    made.add_argument("--seeds", type=int, default=10)
    made.add_argument("--only", nargs="*", default=list(STUDIES), choices=list(STUDIES))
    made.add_argument("--models", nargs="*", default=[])
    made.add_argument("--keep", type=Path)
    asked = made.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.only:
            for row in measure(name, asked.seeds, asked.models, Path(folder) / name):
                rows.append(row)
                print(_line(row), file=sys.stderr, flush=True)
                if asked.keep is not None:
                    keep(asked.keep, row)
    lines = [f"{'study':16} {'model':28} {'epsilon':>7} {'runs':>4} {'AUC':>7} {'+-':>7} "
             f"{'least':>7} {'without privacy':>16}"]
    give_out(document_of(rows), asked, "\n".join(lines + [_line(row) for row in rows]))


def _line(r: dict[str, Any]) -> str:
    if "skipped" in r:
        return f"{r['study']:16} skipped: {r['skipped']}"
    ceiling = "" if r["without_privacy"] is None else f"{r['without_privacy']:.4f}"
    return (f"{r['study']:16} {r['model']:28} {r['epsilon']:7g} {r['runs']:4} {r['auc']:7.4f} "
            f"{r['interval']:7.4f} {r['least']:7.4f} {ceiling:>16}")


if __name__ == "__main__":
    main()
