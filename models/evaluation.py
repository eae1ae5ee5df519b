"""Held-out patients' scores in, noisy histograms and the metrics read off them out.

Each held-out patient counts once, by one of its rows, in one cell of one histogram. That is all
that is ever read of them; every metric is post-processing of the noisy cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mechanisms.randomness import Randomness
from models.counts import noised_counts
from models.descent import Predictor, Vector
from models.encoding import Doubles, Encoding, Task, rates
from models.linear import sigmoid
from models.table import Places, Table

# Log-odds from -4.5 to 4.5 in steps of 0.3, and beyond: rare outcomes have small probabilities.
EDGES = np.linspace(-4.5, 4.5, 31)
BINS = len(EDGES) + 1
CENTRES = sigmoid(np.concatenate(([-5.0], (EDGES[1:] + EDGES[:-1]) / 2, [5.0])))
ERROR_BINS = 40
# Errors in units of what the model learns: even steps for numbers; for counts, which lie mostly
# near zero, each bin is a third wider than the one before it.
_WIDER = np.geomspace(1 / 256, 2, ERROR_BINS // 2)
ERROR_EDGES = {Task.REAL: np.linspace(-2, 2, ERROR_BINS + 1),
               Task.COUNT: np.concatenate((-_WIDER[::-1], [0], _WIDER))}
REPEATS = 200
CONFIDENCE = 0.95
WITHIN = 1.96  # deviations of a normal number in 95 %
MEANS_TRIED = 1_001


@dataclass(frozen=True, slots=True)
class Metric:
    """One number about a model with its 95 % interval, noise and sampling of patients included."""

    name: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Noisy counts of held-out patients, [rows, bins], and the metrics they give.

    Binary: rows are the label 0 and 1, bins are log-odds in equal steps. Classes: rows are
    labels, columns predictions. Numbers and counts: one row, bins of the error (ERROR_EDGES) from
    -2 to 2 of `Encoding.unit`.
    """

    task: Task
    counts: tuple[tuple[int, ...], ...]
    deviation: float
    metrics: tuple[Metric, ...]

    def __getitem__(self, name: str) -> float:
        for metric in self.metrics:
            if metric.name == name:
                return metric.value
        raise KeyError(name)

    def __str__(self) -> str:
        return "; ".join(map(str, self.metrics)) or "no metrics: no patients were held out"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "task": self.task.value, "counts": [list(row) for row in self.counts],
            "deviation": self.deviation,
            "metrics": [[m.name, m.value, m.low, m.high] for m in self.metrics],
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Evaluation:
        """Read what `to_dict` wrote."""
        return cls(
            Task(fields["task"]), tuple(tuple(row) for row in fields["counts"]),
            fields["deviation"], tuple(Metric(*m) for m in fields["metrics"]),
        )


def evaluate(
    network: Predictor, parameters: Vector, table: Table, units: Places, multiplier: float,
    randomness: Randomness,
) -> Evaluation:
    """Count the held-out `units` by score and label, and add noise.

    Guarantee: adding or removing one patient changes one cell by one, whatever its rows hold;
    every cell, empty or not, gets its own Gaussian draw of sigma `multiplier` (counts.py).
    """
    encoding = network.encoding
    rows = table.starts[units]  # a patient's first row, in the secret random order of its rows
    cells = np.zeros(_shape(encoding), dtype=np.int64)
    for first in range(0, len(rows), 8192):
        part = rows[first : first + 8192]
        pixels = None if table.pixels is None else table.pixels[part]
        scores = network.scores(parameters, table.inputs[part], pixels)
        np.add.at(cells, _cells(encoding, scores, table.targets[part]), 1)
    noisy = np.rint(noised_counts(cells, multiplier, randomness))
    return Evaluation(
        encoding.task, tuple(tuple(int(n) for n in row) for row in noisy), multiplier,
        _metrics(encoding, noisy, multiplier, randomness),
    )


def _shape(encoding: Encoding) -> tuple[int, int]:
    if encoding.task is Task.BINARY:
        return 2, BINS
    if encoding.task is Task.CLASSES:
        return encoding.outputs, encoding.outputs
    return 1, ERROR_BINS


def _cells(encoding: Encoding, scores: Doubles, targets: Any) -> tuple[Places, Places]:
    safe = np.nan_to_num(scores)
    if encoding.task is Task.BINARY:
        return targets.astype(np.int64), np.searchsorted(EDGES, safe[:, 0], side="right")
    if encoding.task is Task.CLASSES:
        return targets.astype(np.int64), np.argmax(safe, axis=1)
    scores, low = safe[:, 0], encoding.label.low / encoding.unit
    counted = encoding.task is Task.COUNT
    predicted = np.clip(rates(scores), low, 2) if counted else np.clip(scores, -1, 1)
    place = np.searchsorted(ERROR_EDGES[encoding.task], predicted - targets, side="right") - 1
    return np.zeros(len(place), dtype=np.int64), np.clip(place, 0, ERROR_BINS - 1)


# ---- reading metrics off noisy counts --------------------------------------------------------


def _metrics(
    encoding: Encoding, noisy: Doubles, deviation: float, randomness: Randomness
) -> tuple[Metric, ...]:
    found = []
    for name, read in _readings(encoding).items():
        value = read(noisy)
        again = [read(_redrawn(noisy, deviation, randomness)) for _ in range(REPEATS)]
        finite = sorted(x for x in again if math.isfinite(x))
        if not math.isfinite(value) or len(finite) < REPEATS // 2:
            continue
        tail = int(len(finite) * (1 - CONFIDENCE) / 2)
        spread = (finite[tail], finite[-1 - tail])
        # The second draw adds its own error to that of the first: centre it on the value.
        middle = finite[len(finite) // 2]
        found.append(Metric(name, value, value + spread[0] - middle, value + spread[1] - middle))
    for name, ratio in _ratios(encoding).items():
        found.extend(_ratio_metric(name, ratio, noisy, deviation))
    return tuple(found)


def _redrawn(noisy: Doubles, deviation: float, randomness: Randomness) -> Doubles:
    """Draw counts like these again: as many patients, and as much noise."""
    spread = np.sqrt(np.maximum(noisy, 0) + deviation**2)
    uniform = (randomness.uint64(2 * noisy.size) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    first, second = uniform[: noisy.size] + 2.0**-54, uniform[noisy.size :]
    normal = np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)
    found: Doubles = noisy + spread * normal.reshape(noisy.shape)
    return found


def _readings(encoding: Encoding) -> dict[str, Callable[[Doubles], float]]:
    """Return the metrics that are no ratio of two sums of cells."""
    if encoding.task is Task.BINARY:
        return {"auc": _auc, "calibration_error": _calibration}
    return {}


@dataclass(frozen=True, slots=True)
class _Ratio:
    """A metric that is a mean over patients: each cell's value, the bounds of the mean, and how
    the mean is shown."""

    values: Doubles
    low: float
    high: float
    shown: Callable[[float], float] = float


def _ratios(encoding: Encoding) -> dict[str, _Ratio]:
    if encoding.task is Task.BINARY:
        right, positive = np.zeros((2, BINS)), np.zeros((2, BINS))
        right[0, : BINS // 2] = right[1, BINS // 2 :] = positive[1] = 1
        return {"accuracy": _Ratio(right, 0, 1), "positive_share": _Ratio(positive, 0, 1)}
    if encoding.task is Task.CLASSES:
        return {"accuracy": _Ratio(np.eye(encoding.outputs), 0, 1)}
    edges = ERROR_EDGES[encoding.task]
    middle = ((edges[1:] + edges[:-1]) / 2)[None, :]
    return {
        "rmse": _Ratio(middle**2, 0, 4, lambda mean: encoding.unit * math.sqrt(mean)),
        "bias": _Ratio(middle, -2, 2, lambda mean: encoding.unit * mean),
    }


def _ratio_metric(
    name: str, ratio: _Ratio, noisy: Doubles, deviation: float
) -> tuple[Metric, ...]:
    """Return a mean with Fieller's interval: all means r that the noisy cells do not speak
    against, which is where |sum (value - r) count| is within 1.96 of its deviation.

    Unlike a spread around the mean it stays honest where the count of patients is hardly known:
    then every r within the bounds may be left. Nothing is shown below one patient.
    """
    if not noisy.sum() >= 1:
        return ()
    mean = min(max(float((ratio.values * noisy).sum() / noisy.sum()), ratio.low), ratio.high)
    tried = np.append(np.linspace(ratio.low, ratio.high, MEANS_TRIED), mean)
    away = ratio.values.reshape(1, -1) - tried[:, None]
    spread = away**2 @ (np.maximum(noisy, 0) + deviation**2).reshape(-1)
    kept = tried[(away @ noisy.reshape(-1)) ** 2 <= WITHIN**2 * spread]
    # Where even the nearest mean is spoken against, nothing is known but the bounds.
    low, high = (min(kept.min(), mean), max(kept.max(), mean)) if len(kept) else (
        ratio.low, ratio.high)
    return (Metric(name, *(ratio.shown(float(x)) for x in (mean, low, high))),)


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below >= 1 else math.nan


def _auc(counts: Doubles) -> float:
    """Return the probability that a positive scores above a negative, ties counted half."""
    negative, positive = counts
    below = np.concatenate(([0.0], np.cumsum(negative)[:-1]))
    found = _ratio(float((positive * (below + negative / 2)).sum()),
                   float(positive.sum() * negative.sum()))
    return min(max(found, 0.0), 1.0) if math.isfinite(found) else found


def _calibration(counts: Doubles) -> float:
    """Return the mean gap of predicted and observed share, weighted by patients."""
    total = counts.sum(axis=0)
    gaps = np.abs(counts[1] - CENTRES * total)
    return _ratio(float(gaps[total >= 1].sum()), float(total.sum()))
