"""Counts in runs: their noise has the privacy that runs are priced for, which whole steps have not.

Found by a reader: noise on whole numbers was priced as continuous noise, and near a sigma of 1 its
delta was up to three times the one charged.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from mechanisms.randomness import Randomness
from mechanisms.sampled import epsilon_for, multiplier_for
from models.counts import GRID_BITS, noised_counts

FALSE_ALARM = 1e-6
PRICES = [(Fraction(1), Fraction(1, 10**5)), (Fraction(3), Fraction(1, 10**6)),
          (Fraction(8), Fraction(1, 10**6))]


def true_delta(sigma: float, steps: int, epsilon: float) -> float:
    """Return the exact delta of discrete Gaussian noise of so many steps a count, moved by one."""
    at = np.arange(-int(40 * sigma * steps), int(40 * sigma * steps) + 1)
    weights = np.exp(-((at / (sigma * steps)) ** 2) / 2)
    weights /= math.fsum(weights)
    away = np.concatenate([np.zeros(steps), weights[:-steps]])
    return math.fsum(np.maximum(weights - math.exp(epsilon) * away, 0.0))


@pytest.mark.parametrize(("epsilon", "delta"), PRICES)
def test_whole_steps_cost_more_than_a_run_is_charged_and_fine_ones_do_not(
    epsilon: Fraction, delta: Fraction
) -> None:
    sigma = multiplier_for(lambda z: ((1.0, z, 1),), epsilon, delta)
    charged = float(epsilon_for(((1.0, sigma, 1),), delta))
    assert true_delta(sigma, 1, charged) > 1.02 * delta
    # The curve of noise on a grid tends to the normal one from above, by the square of the step.
    coarse, fine = (true_delta(sigma, steps, charged) / float(delta) for steps in (64, 512))
    assert coarse < 1.01
    assert fine < 1.0


@pytest.mark.parametrize("sigma", [0.3, 1.0, 7.3, 2.0**20, 2.0**36])
def test_the_grid_is_fine_and_the_noise_has_its_sigma(
    sigma: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mechanisms import gaussian

    drawn: list[float] = []
    true = gaussian.sample

    def watched(scale: float, size: int, randomness: Randomness) -> object:
        drawn.append(scale)
        return true(scale, size, randomness)

    monkeypatch.setattr(gaussian, "sample", watched)
    counts = np.full((100, 100), 1000, dtype=np.int64)
    noise = (noised_counts(counts, sigma, Randomness.secure()) - 1000) / sigma
    assert drawn[0] >= 2.0**GRID_BITS
    assert stats.kstest(noise.reshape(-1), "norm").pvalue > FALSE_ALARM
    for wrong in (0.7, 1.3):
        assert stats.kstest(noise.reshape(-1) / wrong, "norm").pvalue < FALSE_ALARM


def test_numbers_beyond_64_bits_are_cut() -> None:
    counts = np.array([2**62, -(2**62), 5], dtype=np.int64)
    noisy = noised_counts(counts, 1.0, Randomness.secure())
    assert noisy[0] > 2**25
    assert noisy[1] < -(2**25)
    assert abs(noisy[2] - 5) < 60
