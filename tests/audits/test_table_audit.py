"""Noised tables of two neighbours, many thousands of each: the loss they show, and that of bugs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from mechanisms.randomness import Randomness
from models.noised_table import Attribute, noised_rows, padded
from planner.training_view import Coding, Feature

PAIR = (Attribute(Feature("x", Coding.NUMBER, True, 0.0, 3.0, whole=True), 4),
        Attribute(Feature("y", Coding.TRUTH, False), 2))
SMALL, FULL = Fraction(1), 3
DRAWS = 30_000


def measured(make: Callable[[np.ndarray, Randomness], np.ndarray]) -> float:
    """Return an epsilon that a maker of tables surely exceeds: on two neighbours, over events.

    The event is chosen on one half of the draws and its chances are bounded on the other
    (Clopper and Pearson), each at FALSE_ALARM.
    """
    others = np.array([[0, 0], [0, 0]])
    seen = []
    for rows in (others, np.concatenate([others, [[3, 1]]])):
        source = Randomness.seeded(9)
        seen.append([tuple(map(tuple, make(rows, source).tolist())) for _ in range(DRAWS)])
    best = 0.0
    half = DRAWS // 2
    for one, two in (seen, seen[::-1]):
        train, trial = Counter(one[:half]), Counter(two[:half])
        chosen = max(train, key=lambda t: train[t] / (trial[t] + 5))
        high = {t for t in train if train[t] > 1.5 * (trial[t] + 2)} | {chosen}
        a = sum(t in high for t in one[half:])
        b = sum(t in high for t in two[half:])
        low = stats.beta.ppf(1e-6, a, half - a + 1) if a else 0.0
        up = stats.beta.ppf(1 - 1e-6, b + 1, half - b)
        best = max(best, math.log(low / up) if low > 0 else 0.0)
    return best


def made(rows: np.ndarray, source: Randomness, epsilon: Fraction = SMALL,
         count: int | None = FULL) -> np.ndarray:
    whole = rows if count is None else padded(rows, count, PAIR, source)
    noisy = noised_rows(whole, (epsilon / 2, epsilon / 2), PAIR, source)
    return noisy[np.lexsort(noisy.T)]  # a table is what it is in any order


@pytest.mark.audit
def test_the_measured_loss_is_below_the_stated_and_bugs_are_above() -> None:
    assert measured(made) <= float(SMALL)
    assert measured(lambda rows, source: made(rows, source, 6 * SMALL)) > float(SMALL)
    assert measured(lambda rows, source: made(rows, source, count=None)) > float(SMALL)
