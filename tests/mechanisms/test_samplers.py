"""The fast samplers follow exactly the laws they name, at every scale, and no neighbouring law."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import reference
from chi_square import FALSE_ALARM, p_value
from scipy import stats

from mechanisms import gaussian, laplace
from mechanisms.bounds import exp_bounds, log_bounds
from mechanisms.laplace import Int64s
from mechanisms.randomness import Randomness

SCALES = [0.3, 1.0, 10.0, 1000.0, 2.0**20]
DRAWS = 400_000


@dataclass(frozen=True)
class Law:
    name: str
    sample: Callable[[float, int, Randomness], Int64s]
    below: Callable[[float, int], float]
    deviation: Callable[[float], float]
    reference: Callable[[Fraction, Randomness], int]


LAWS = [
    Law("laplace", laplace.sample, reference.laplace_below, laplace.deviation, reference.laplace),
    Law(
        "gaussian",
        gaussian.sample,
        reference.gaussian_below,
        gaussian.deviation,
        reference.gaussian,
    ),
]
each_law = pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
each_scale = pytest.mark.parametrize("scale", SCALES)


@each_law
@each_scale
def test_accepts_the_true_scale_and_rejects_its_neighbours(law: Law, scale: float) -> None:
    draws = law.sample(scale, DRAWS, Randomness.seeded(1))
    spread = max(1.0, law.deviation(scale))
    assert p_value(draws, lambda k: law.below(scale, k), spread) > FALSE_ALARM
    for wrong in (0.7 * scale, 1.3 * scale):
        assert p_value(draws, lambda k, s=wrong: law.below(s, k), spread) < 1e-20


@each_law
@pytest.mark.parametrize("scale", [0.3, 1.0, 10.0, 1000.0])
def test_agrees_with_the_integer_reference(law: Law, scale: float) -> None:
    slow = Randomness.seeded(2)
    slow_draws = np.array([law.reference(Fraction(scale), slow) for _ in range(4_000)])
    fast_draws = law.sample(scale, 100_000, Randomness.seeded(3))
    spread = max(1.0, law.deviation(scale))
    assert p_value(slow_draws, lambda k: law.below(scale, k), spread) > FALSE_ALARM
    edges = np.quantile(fast_draws, np.linspace(0.02, 0.98, 25)).round()
    cells = [np.searchsorted(np.unique(edges), d, side="right") for d in (slow_draws, fast_draws)]
    width = 1 + max(int(c.max()) for c in cells)
    table = np.array([np.bincount(c, minlength=width) for c in cells])
    table = table[:, table.sum(axis=0) > 0]
    assert stats.chi2_contingency(table).pvalue > FALSE_ALARM


@each_law
def test_low_bits_of_large_draws_are_uniform(law: Law) -> None:
    draws = law.sample(2.0**20, DRAWS, Randomness.seeded(4))
    assert stats.chisquare(np.bincount(draws & 255, minlength=256)).pvalue > FALSE_ALARM


@each_law
def test_large_scales_have_the_right_spread_and_never_overflow(law: Law) -> None:
    draws = law.sample(2.0**36, 20_000, Randomness.seeded(5))
    assert draws.dtype == np.int64
    mean_square = float(np.mean(draws.astype(float) ** 2))
    assert 0.9 < mean_square / law.deviation(2.0**36) ** 2 < 1.1
    assert len(np.unique(draws)) > 19_990


@each_law
def test_the_very_largest_scale_still_works(law: Law) -> None:
    largest = laplace.SCALE_MAX if law.name == "laplace" else gaussian.SIGMA_MAX
    draws = law.sample(largest, 300, Randomness.seeded(6))
    assert 0.5 < np.std(draws) / law.deviation(largest) < 2


@each_law
@pytest.mark.parametrize("scale", [2.0**-20, 1e-3, 0.02])
def test_tiny_scales_give_zero(law: Law, scale: float) -> None:
    assert not law.sample(scale, 10_000, Randomness.seeded(7)).any()


@each_law
@pytest.mark.parametrize("size", [0, 1, 2, 7, 2**14 - 1, 2**14 + 1, 50_000])
def test_gives_as_many_as_asked(law: Law, size: int) -> None:
    assert law.sample(3.0, size, Randomness.seeded(8)).shape == (size,)


@each_law
def test_single_draws_follow_the_law_too(law: Law) -> None:
    source = Randomness.seeded(9)
    draws = np.concatenate([law.sample(1.0, 1, source) for _ in range(20_000)])
    assert p_value(draws, lambda k: law.below(1.0, k), 2.0) > FALSE_ALARM


@each_law
@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), 2.0**41, 1, True, "1"])
def test_refuses_a_scale_that_is_none(law: Law, bad: object) -> None:
    with pytest.raises(ValueError, match="must be a float from"):
        law.sample(bad, 1, Randomness.seeded(0))  # type: ignore[arg-type]


@each_law
def test_refuses_a_negative_number_of_draws(law: Law) -> None:
    with pytest.raises(ValueError, match="negative"):
        law.sample(1.0, -1, Randomness.seeded(0))


class _Scripted(Randomness):
    """Gives the 64-bit words it was made with, then those of a seed."""

    def __init__(self, words: list[int]) -> None:
        rest = Randomness.seeded(10)
        super().__init__(lambda: rest.bytes(48), is_secure=False)
        self.words = words

    def uint64(self, size: int) -> np.ndarray:
        given, self.words = self.words[:size], self.words[size:]
        return np.concatenate([np.array(given, dtype=np.uint64), super().uint64(size - len(given))])


@pytest.mark.parametrize("scale", [0.3, 1.0, 1000.0, 2.0**20, 2.0**33])
def test_floor_is_right_beside_every_boundary(scale: float) -> None:
    """Cells that straddle exp(-n/scale) are where floats go wrong: compare with arithmetic."""
    words = []
    for n in [1, 2, 3, 10, int(scale) + 1, 3 * int(scale) + 1]:
        # The cell of exp(-n/scale), and its neighbours on both sides.
        cell = int(np.exp(-n / scale) * 2.0**62)
        words += [2 * (cell + d) for d in (-3000, -1, 0, 1, 3000) if 0 < cell + d < 2**62]
    found = laplace.signed_geometric(scale, len(words), _Scripted(list(words)))
    for word, size in zip(words, found.tolist(), strict=True):
        k = word >> 1
        low = -Fraction(scale) * log_bounds(Fraction(k + 1, 2**62), 200)[1]
        high = -Fraction(scale) * log_bounds(Fraction(k, 2**62), 200)[0]
        assert low.__floor__() <= size <= high.__floor__()


def test_the_smallest_uniforms_are_refined_not_truncated() -> None:
    """k = 0 means U < 2**-62, so the draw is at least 62 ln 2 scales and has no upper end."""
    sizes = laplace.signed_geometric(10.0, 500, _Scripted([0] * 500))
    assert sizes.min() >= 429
    assert len(np.unique(sizes)) > 20


@pytest.mark.parametrize("sigma", [1.5, 2.3, 2.7])
def test_coin_is_right_beside_its_boundary(sigma: float) -> None:
    """Proposals of 2, 3 and 4 and a U in cells that a float cannot tell from the boundary."""
    steps = int(sigma) + 1
    proposals, cells, expected = [], [], []
    for y in (2, 3, 4):
        first = int(np.exp(-(y + 0.5) / steps) * 2.0**62) << 1
        exponent = (y - Fraction(sigma) ** 2 / steps) ** 2 / (2 * Fraction(sigma) ** 2)
        boundary = int(exp_bounds(-exponent, 200)[0] * 2**62)
        for offset in (-40, -3, -1, 1, 3, 40):
            proposals.append(first)
            cells.append((boundary + offset) << 2)
            expected += [y] if offset < 0 else []
    found = gaussian._kept_proposals(sigma, len(proposals), _Scripted(proposals + cells))
    assert found.tolist() == expected


def test_exact_fallbacks_follow_the_law() -> None:
    """Every draw through the slow path: a seed may need it once in millions otherwise."""
    source = Randomness.seeded(11)
    cells = Randomness.seeded(12)
    geometric = np.array(
        [laplace._floor_exactly(cells.integer_below(2**62), 3.0, source) for _ in range(8_000)]
    )
    assert p_value(geometric, lambda k: 1 - np.exp(-max(k, 0) / 3.0), 4.0) > FALSE_ALARM
    kept = [
        gaussian._accept_exactly(2, cells.integer_below(2**62), 1.5, 2, source)
        for _ in range(8_000)
    ]
    truth = np.exp(-((2 - 1.5**2 / 2) ** 2) / (2 * 1.5**2))
    assert stats.binomtest(sum(kept), len(kept), truth).pvalue > FALSE_ALARM


def test_the_logarithm_of_this_machine_is_accurate_enough() -> None:
    laplace.check_log()
    points = Randomness.seeded(13).uint64(3_000) | np.uint64(1)
    uniform = points.astype(np.float64) * 2.0**-64
    for u, found in zip(uniform.tolist(), np.log(uniform).tolist(), strict=True):
        low, high = log_bounds(Fraction(u), 80)
        error = max(abs(Fraction(found) - low), abs(Fraction(found) - high))
        assert error <= Fraction(laplace.LOG_ERROR) / 4 * (1 - low)


def test_an_inaccurate_logarithm_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    rough = np.log
    monkeypatch.setattr(np, "log", lambda x: rough(x) * (1 + 1e-13))
    with pytest.raises(RuntimeError, match="too inexact"):
        laplace.check_log()
