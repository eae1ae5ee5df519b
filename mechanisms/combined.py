"""Weighted sums of independent noises: what they add up in, deviation and quantiles out.

An answer put together from several released numbers has the noise of all of them. Nothing here is
drawn: the numbers are released already.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from mechanisms.laplace import check_confidence

# The inversion's grid, in standard deviations: its sum repeats after 2 pi / STEP of them.
STEP, POINTS = 0.02, 10_000
MARGIN = 1.005  # what rounding and the grid may be wrong by
ALIKE = 1e-12  # parts that are smaller, relatively, are left out


@dataclass(frozen=True, slots=True)
class CombinedNoise:
    """Independent Laplace noises (scale, how many) and the variance of all Gaussian ones.

    `step` is the coarsest grid that one of them lives on: intervals are wider by half of it.
    """

    laplace: tuple[tuple[float, int], ...] = ()
    normal: float = 0.0
    step: float = 0.0

    def __post_init__(self) -> None:
        scales = all(0 < scale < math.inf and count >= 1 for scale, count in self.laplace)
        if not (scales and 0 <= self.normal < math.inf):
            raise ValueError(f"no noise has scales {self.laplace!r} and variance {self.normal!r}")

    def deviation(self) -> float:
        """Return the standard deviation."""
        return math.sqrt(self.normal + sum(2 * b * b * n for b, n in self.laplace))

    def half_width(self, confidence: float) -> float:
        """Return h with P(|noise| <= h) >= confidence.

        Source: Gil-Pelaez 1951: P(|X| <= h) = (2/pi) * integral of sin(h t)/t times the
        characteristic function, here by midpoints and bisection. Continuous Laplace noise stands
        for the discrete one, whose variance is smaller.
        """
        check_confidence(confidence)
        deviation = self.deviation()
        if not self.laplace:
            return NormalDist().inv_cdf(0.5 + confidence / 2) * deviation + self.step / 2
        parts = tuple(
            (b / deviation, n) for b, n in self.laplace if b * b * n > ALIKE * deviation**2
        )
        quantile = _quantile(parts, self.normal / deviation**2, confidence)
        return MARGIN * deviation * quantile + self.step / 2

    def times(self, factor: float, count: int = 1) -> CombinedNoise:
        """Return the sum of so many independent noises like this one, each times a factor."""
        if not factor:
            return CombinedNoise()
        return CombinedNoise(
            tuple((abs(factor) * b, n * count) for b, n in self.laplace),
            factor * factor * self.normal * count, abs(factor) * self.step,
        )


NO_NOISE = CombinedNoise()


def added(noises: Iterable[CombinedNoise]) -> CombinedNoise:
    """Return the sum of independent noises."""
    together = tuple(noises)
    return CombinedNoise(
        tuple(part for noise in together for part in noise.laplace),
        math.fsum(noise.normal for noise in together),
        max((noise.step for noise in together), default=0.0),
    )


@lru_cache(maxsize=4096)
def _quantile(parts: tuple[tuple[float, int], ...], normal: float, confidence: float) -> float:
    """Return the quantile of a sum of deviation 1."""
    t = (np.arange(POINTS) + 0.5) * STEP
    logs = -0.5 * normal * np.square(t)
    for scale, count in parts:
        logs -= count * np.log1p(np.square(scale * t))
    density = np.exp(logs) / t * (2 / math.pi * STEP)
    low, high = 0.0, 60.0
    for _ in range(32):
        middle = (low + high) / 2
        if float(density @ np.sin(middle * t)) < confidence:
            low = middle
        else:
            high = middle
    return high
