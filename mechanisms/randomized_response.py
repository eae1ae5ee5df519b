"""Categories in, categories out: each is kept with a chance that epsilon gives, else drawn anew."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mechanisms.bounds import exp_bounds
from mechanisms.randomness import Randomness

Int64s = npt.NDArray[np.int64]


def respond(
    values: Int64s, categories: int, epsilon: Fraction, randomness: Randomness
) -> Int64s:
    """Return one answer for each value from 0 to categories - 1 (Warner 1965; Kairouz 2014).

    Guarantee: a value is kept with chance g = floor(g* 2^64) / 2^64, g* = (e - 1)/(e + k - 1)
    for an e not above exp(epsilon), and else replaced by a uniform one. So no two values give
    any answer with chances further apart than a factor e; answers are independent.
    """
    if categories < 2:
        return np.zeros_like(values)
    if not (len(values) == 0 or 0 <= values.min() <= values.max() < categories):
        raise ValueError("a value is no category")
    keeps = randomness.uint64(len(values)) < np.uint64(_threshold(categories, epsilon))
    return np.where(keeps, values, uniform(categories, len(values), randomness))


def kept_chance(categories: int, epsilon: Fraction) -> float:
    """Return with what chance an answer is the true value: a public number."""
    if categories < 2:
        return 1.0
    kept = _threshold(categories, epsilon) / 2**64
    return kept + (1 - kept) / categories


def uniform(below: int, size: int, randomness: Randomness) -> Int64s:
    """Return uniform integers from 0 to below - 1, exactly: draws beyond a multiple are redrawn."""
    limit = 2**64 // below * below
    drawn = randomness.uint64(size).copy()
    if limit < 2**64:
        while len(beyond := np.flatnonzero(drawn >= np.uint64(limit))):
            drawn[beyond] = randomness.uint64(len(beyond))
    return (drawn % np.uint64(below)).astype(np.int64)


@lru_cache(maxsize=1024)
def _threshold(categories: int, epsilon: Fraction) -> int:
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {float(epsilon)!r}")
    e = exp_bounds(epsilon, 160)[0]
    kept = (e - 1) / (e + categories - 1)
    return kept.numerator * 2**64 // kept.denominator
