"""Weighted means of independent noises: their deviation, and quantiles against the exact law."""

from __future__ import annotations

import math
from random import Random
from statistics import NormalDist

import pytest

from mechanisms import combined


def test_no_other_weight_gives_less_variance() -> None:
    for one, other in ((1.0, 1.0), (3.0, 1.0), (0.1, 40.0)):
        best = combined.weight(one, other) / 2**combined.WEIGHT_BITS
        found = combined.deviation(one, other)
        assert found == pytest.approx(math.hypot(best * one, (1 - best) * other), rel=1e-6)
        for step in (-0.01, 0.01):
            weight = best + step
            assert math.hypot(weight * one, (1 - weight) * other) > found


def test_a_mean_lies_between_and_is_rounded_to_the_nearest() -> None:
    half = combined.weight(2.0, 2.0)
    assert [combined.mean(10, other, half) for other in (20, 11, -10, -20)] == [15, 11, 0, -5]
    assert combined.mean(2**80, 2**80, combined.weight(1.0, 7.0)) == 2**80


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_a_deviation_is_positive_and_finite(bad: float) -> None:
    for call in (combined.deviation, combined.weight):
        with pytest.raises(ValueError, match="positive and finite"):
            call(1.0, bad)
        with pytest.raises(ValueError, match="positive and finite"):
            call(bad, 1.0)


def _laplace_tail(x: float, scales: list[float]) -> float:
    """P(|X| > x) of a sum of independent Laplace noises with different scales, by partial
    fractions of the characteristic function."""
    found = 0.0
    for i, scale in enumerate(scales):
        factor = math.prod(scale**2 / (scale**2 - s**2) for j, s in enumerate(scales) if j != i)
        found += factor * math.exp(-x / scale)
    return found


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.925, 0.95, 0.99, 0.9999])
def test_intervals_hold_for_means_of_laplace_noises(confidence: float) -> None:
    chance = Random(3)
    for count in (2, 3, 5):
        for _ in range(100):
            scales = [math.exp(chance.uniform(-2, 2)) for _ in range(count)]
            if min(abs(math.log(a / b)) for i, a in enumerate(scales) for b in scales[:i]) < 0.05:
                continue  # the formula divides by the difference
            deviation = math.sqrt(2 * sum(s * s for s in scales))
            width = combined.quantile(deviation, confidence)
            assert _laplace_tail(width, scales) <= 1 - confidence + 1e-9


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_intervals_hold_for_means_of_laplace_and_gaussian_noise(
    confidence: float, share: float
) -> None:
    """The exact law by numerical integration; `share` of the variance is Laplace noise."""
    width = combined.quantile(1.0, confidence)
    scale, normal = math.sqrt(share / 2), NormalDist(0, math.sqrt(1 - share))

    def inside(x: float) -> float:
        return normal.cdf(width - x) - normal.cdf(-width - x)

    grid = [k / 1000 for k in range(-12_000, 12_001)]
    mass = math.fsum(inside(x) * math.exp(-abs(x) / scale) / (2 * scale) for x in grid) / 1000
    assert mass >= confidence - 1e-5


def test_a_narrower_interval_would_not_do() -> None:
    width = combined.quantile(math.sqrt(2 * (1 + 0.9**2)), 0.95)
    assert _laplace_tail(0.9 * width, [1.0, 0.9]) > 0.05
