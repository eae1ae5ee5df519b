"""The deviations of independent noises in, that of their best weighted mean and its errors out.

Two independent noisy numbers of the same exact one are combined with weights in inverse proportion
to their variances (for instance Hartung, Knapp and Sinha 2008, section 4): no other weighted mean
has less variance.
"""

from __future__ import annotations

from math import inf, log, sqrt
from statistics import NormalDist

WEIGHT_BITS = 32
_WHOLE = 1 << WEIGHT_BITS


def deviation(one: float, other: float) -> float:
    """Return the standard deviation of the best weighted mean of two independent noises.

    Raises ValueError unless both deviations are positive and finite.
    """
    _check(one, other)
    return one / sqrt(1 + (one / other) ** 2)


def weight(one: float, other: float) -> int:
    """Return the weight of the noise of deviation `one`, in units of 2^-WEIGHT_BITS."""
    _check(one, other)
    return round(_WHOLE / (1 + (one / other) ** 2))


def mean(one: int, other: int, weight_: int) -> int:
    """Return the nearest whole number to a weighted mean, by whole numbers alone."""
    total = weight_ * one + (_WHOLE - weight_) * other
    return (total + _WHOLE // 2) >> WEIGHT_BITS


def quantile(deviation_: float, confidence: float) -> float:
    """Return h with P(|Z| <= h) at least `confidence`, for a weighted mean Z of noises.

    It is that of Laplace or of normal noise of the same deviation, whichever is larger: a mean of
    Laplace and Gaussian noises has a tail between theirs. It is no theorem for every confidence:
    tests/mechanisms/test_combined.py compares it with the exact laws.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, got {confidence!r}")
    laplacian = deviation_ / sqrt(2) * -log(1 - confidence)
    return max(laplacian, deviation_ * NormalDist().inv_cdf(0.5 + confidence / 2))


def _check(*deviations: float) -> None:
    for found in deviations:
        if not 0 < found < inf:
            raise ValueError(f"a deviation must be positive and finite, got {found!r}")
