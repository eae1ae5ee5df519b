"""Laws that both noises obey."""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from mechanisms import gaussian, laplace
from mechanisms.randomness import Randomness

FALSE_ALARM = 1e-6
SCALES = [0.3, 1.0, 7.5, 1000.0, 2.0**20]
CONFIDENCES = [0.5, 0.9, 0.95, 0.99, 0.999]
each_noise = pytest.mark.parametrize("noise", [laplace, gaussian], ids=lambda m: m.__name__)
each_scale = pytest.mark.parametrize("scale", SCALES)


@each_noise
@each_scale
def test_error_bars_hold_as_often_as_they_say(noise: ModuleType, scale: float) -> None:
    sizes = np.abs(noise.sample(scale, 100_000, Randomness.seeded(1)))
    for confidence in CONFIDENCES:
        inside = int((sizes <= noise.quantile(scale, confidence)).sum())
        test = stats.binomtest(inside, len(sizes), confidence, alternative="less")
        assert test.pvalue > FALSE_ALARM


@each_noise
@each_scale
def test_error_bars_grow_with_confidence(noise: ModuleType, scale: float) -> None:
    bars = [noise.quantile(scale, c) for c in CONFIDENCES]
    assert bars == sorted(bars)


@each_noise
def test_error_grows_with_the_scale(noise: ModuleType) -> None:
    for small, large in pairwise(SCALES):
        assert noise.deviation(small) < noise.deviation(large)
        assert noise.quantile(small, 0.95) <= noise.quantile(large, 0.95)


@each_noise
@each_scale
def test_deviation_is_that_of_the_draws(noise: ModuleType, scale: float) -> None:
    draws = noise.sample(scale, 400_000, Randomness.seeded(2)).astype(float)
    assert np.sqrt(np.mean(draws**2)) == pytest.approx(noise.deviation(scale), rel=0.05)


@each_noise
@each_scale
def test_both_signs_are_equally_likely(noise: ModuleType, scale: float) -> None:
    draws = noise.sample(scale, 100_000, Randomness.seeded(3))
    above, below = int((draws > 0).sum()), int((draws < 0).sum())
    assert stats.binomtest(above, above + below, 0.5).pvalue > FALSE_ALARM


@each_noise
def test_draws_are_independent_of_their_neighbours(noise: ModuleType) -> None:
    draws = noise.sample(1000.0, 200_000, Randomness.seeded(4))
    for lag in (1, 2, 8):
        assert abs(stats.spearmanr(draws[:-lag], draws[lag:]).statistic) < 0.012


@each_noise
def test_a_seed_repeats_and_security_does_not(noise: ModuleType) -> None:
    again = [noise.sample(1000.0, 50, Randomness.seeded(5)).tolist() for _ in range(2)]
    assert again[0] == again[1]
    fresh = [noise.sample(1000.0, 50, Randomness.secure()).tolist() for _ in range(2)]
    assert fresh[0] != fresh[1]


@each_noise
def test_equal_answers_get_different_noise(noise: ModuleType) -> None:
    draws = noise.sample(2.0**30, 1_000, Randomness.secure())
    assert len(set(draws.tolist())) > 990
