"""Training patients and a share of the price in, a weight for each class from noisy counts out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mechanisms.randomness import Randomness
from models.counts import noised_counts
from models.encoding import Doubles, Encoding
from models.table import Table

WEIGHT_MAX = 10.0


def class_weights(
    encoding: Encoding, table: Table, multiplier: float, randomness: Randomness
) -> Doubles:
    """Return a weight for each class: all patients over the classes' number over its own patients.

    Guarantee: each patient counts once, by its first row's class, so adding or removing one
    changes one count by one; every count gets a Gaussian draw of sigma `multiplier` (counts.py).
    The weights are post-processing, between 1/WEIGHT_MAX and WEIGHT_MAX.
    """
    classes = max(2, encoding.outputs)
    labels = np.nan_to_num(table.targets[table.starts[:-1]]).astype(np.int64).clip(0, classes - 1)
    counts = np.bincount(labels, minlength=classes).astype(np.int64)
    noisy = noised_counts(counts, multiplier, randomness)
    safe = np.maximum(noisy, 1.0)
    found: Doubles = np.clip(safe.sum() / (classes * safe), 1 / WEIGHT_MAX, WEIGHT_MAX)
    return found


def with_class_weights(
    table: Table, encoding: Encoding, multiplier: float, randomness: Randomness
) -> Table:
    """Return the table with each row's loss weighed by its own class: a public number."""
    weights = class_weights(encoding, table, multiplier, randomness).astype(np.float32)
    labels = np.nan_to_num(table.targets).astype(np.int64).clip(0, len(weights) - 1)
    return replace(table, weights=weights[labels])
