"""Noise from coarse to fine: every level has its law, the levels form a chain, a coin is exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from scipy import stats

from mechanisms import gradual, laplace
from mechanisms.randomness import Randomness
from tests.mechanisms import reference
from tests.mechanisms.chi_square import FALSE_ALARM, p_value

DRAWS = 200_000
LEVELS = [(3.0, 1.5, 1.0, 0.4), gradual.scales_of(7.0, 12), (2.0**21, 2.0**20 * 1.1875, 2.0**20)]
each_levels = pytest.mark.parametrize("scales", LEVELS, ids=["small", "many", "large"])


@each_levels
def test_every_level_has_exactly_its_own_law_and_no_other(scales: tuple[float, ...]) -> None:
    noise = gradual.sample(scales, DRAWS, Randomness.seeded(21))
    for scale, draws in zip(scales, noise, strict=True):
        spread = laplace.deviation(scale)
        assert p_value(draws, lambda k, s=scale: reference.laplace_below(s, k), spread) > (
            FALSE_ALARM
        )
        for wrong in (0.7, 1.3):
            law = lambda k, s=scale * wrong: reference.laplace_below(s, k)  # noqa: E731
            assert p_value(draws, law, spread) < FALSE_ALARM


def test_every_level_agrees_with_the_integer_only_sampler() -> None:
    scales, slow, n = (4.0, 2.5, 1.25), Randomness.seeded(3), 6_000
    noise = gradual.sample(scales, n, Randomness.seeded(4))
    for scale, draws in zip(scales, noise, strict=True):
        other = np.array([reference.laplace(Fraction(scale), slow) for _ in range(n)])
        reach = round(8 * scale)
        counts = np.array([
            np.bincount(np.clip(x, -reach, reach) + reach, minlength=2 * reach + 1)
            for x in (draws, other)
        ])
        counts = counts[:, counts.sum(axis=0) >= 10]
        assert stats.chi2_contingency(counts).pvalue > FALSE_ALARM


@each_levels
def test_a_step_to_the_next_level_does_not_depend_on_the_finer_one(
    scales: tuple[float, ...],
) -> None:
    """The chain is Markov from fine to coarse: what level i - 1 adds to i is independent of i."""
    noise = gradual.sample(scales, DRAWS, Randomness.seeded(22))
    for coarse, fine in pairwise(noise):
        step = coarse - fine
        for one, other in ((fine, step), (np.abs(fine), np.abs(step))):
            found = stats.spearmanr(one, other)
            assert found.pvalue > FALSE_ALARM
    first, second = noise[0] - noise[1], noise[1] - noise[2]
    assert stats.spearmanr(np.abs(first), np.abs(second)).pvalue > FALSE_ALARM


@each_levels
def test_a_step_is_zero_or_a_fresh_draw_of_the_coarser_law(scales: tuple[float, ...]) -> None:
    noise = gradual.sample(scales, DRAWS, Randomness.seeded(23))
    for i, (coarse, fine) in enumerate(pairwise(scales)):
        c = stay_probability(coarse, fine)
        q = math.exp(-1 / coarse)
        zero = c + (1 - c) * (1 - q) / (1 + q)
        step = noise[i] - noise[i + 1]
        assert stats.binomtest(int((step == 0).sum()), DRAWS, zero).pvalue > FALSE_ALARM
        moved, law = step[step != 0], lambda k, s=coarse: reference.laplace_below(s, k)
        conditional = lambda k, c=law, q=q: (  # noqa: E731
            (c(k) - (1 - q) / (1 + q) * (k > 0)) / (1 - (1 - q) / (1 + q))
        )
        assert p_value(moved, conditional, laplace.deviation(coarse)) > FALSE_ALARM


def stay_probability(coarse: float, fine: float) -> float:
    """c by another formula and another library: (sinh(x/2)/sinh(y/2))^2, x = 1/coarse, ..."""
    with mpmath.workdps(60):
        ratio = mpmath.sinh(1 / (2 * mpmath.mpf(coarse))) / mpmath.sinh(1 / (2 * mpmath.mpf(fine)))
        return float(ratio**2)


@pytest.mark.parametrize(
    ("coarse", "fine"),
    [(2.0, 1.0), (10.0, 9.999), (2.0**40, 2.0**39), (1.0, 2.0**-10), (2.0**40, 2.0**-10),
     (2.0**-9, 2.0**-10), (1e6, math.nextafter(1e6, 0))],
)
def test_the_coin_has_certified_bounds(coarse: float, fine: float) -> None:
    low, high = gradual.stay_bounds(coarse, fine, 128)
    assert 0 <= low <= high
    assert high - low <= high / 2**120
    assert float(high) == pytest.approx(stay_probability(coarse, fine), rel=1e-14, abs=1e-300)
    word = gradual._stay_word(coarse, fine)
    assert 0 <= word < 2**64
    assert Fraction(word, 2**64) <= high
    assert low < Fraction(word + 1, 2**64)


class _Scripted:
    """Random bits that are given: to reach the one case in 2^64."""

    def __init__(self, words: list[int]) -> None:
        self.words = words

    def uint64(self, size: int) -> np.ndarray:
        return np.array([self.words.pop(0) for _ in range(size)], dtype=np.uint64)

    def integer_below(self, n: int) -> int:
        assert n == 2**64
        return self.words.pop(0)


def test_where_64_bits_do_not_decide_further_ones_do() -> None:
    word = gradual._stay_word(2.0, 1.0)
    low, _ = gradual.stay_bounds(2.0, 1.0, 400)
    exact = math.floor(low * 2**192)
    more, rest = (exact >> 64) & (2**64 - 1), exact & (2**64 - 1)
    for drawn, stays in [
        ([word - 1], True), ([word + 1], False), ([word, 0], True), ([word, 2**64 - 1], False),
        ([word, more - 1], True), ([word, more + 1], False), ([word, more, rest - 1], True),
        ([word, more, rest + 1], False),
    ]:
        script = _Scripted(list(drawn))
        assert gradual._coins(2.0, 1.0, 1, script).tolist() == [stays]  # type: ignore[arg-type]
        assert script.words == []


def test_as_many_bits_are_drawn_whatever_the_coins_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise is drawn for every cell at every level: the work does not tell which coins fell."""
    asked: list[tuple[float, int]] = []
    true = gradual.laplace_sample

    def watched(scale: float, size: int, randomness: Randomness) -> np.ndarray:
        asked.append((scale, size))
        return true(scale, size, randomness)

    monkeypatch.setattr(gradual, "laplace_sample", watched)
    scales = gradual.scales_of(5.0, 9)
    gradual.sample(scales, 1_000, Randomness.seeded(1))
    assert asked == [(scale, 1_000) for scale in reversed(scales)]


def test_levels_are_public_and_decrease() -> None:
    scales = gradual.scales_of(10.0, 41)
    assert len(scales) == 41
    assert (scales[0], scales[-5], scales[-1]) == (10_240.0, 20.0, 10.0)
    for coarse, fine in pairwise(scales):
        assert 1.18 < coarse / fine < 1.2
    assert gradual.scales_of(10.0, 1) == (10.0,)


def test_no_cells_and_one_level_are_fine() -> None:
    assert gradual.sample((2.0, 1.0), 0, Randomness.seeded(1)).shape == (2, 0)
    only = gradual.sample((2.0,), 50_000, Randomness.seeded(1))[0]
    assert p_value(only, lambda k: reference.laplace_below(2.0, k), 3.0) > FALSE_ALARM


@pytest.mark.parametrize(
    "scales", [(), (1.0, 1.0), (1.0, 2.0), (2.0, 0.0), (2.0, -1.0), (float("nan"), 1.0),
               (float("inf"), 1.0), (2, 1), [2.0, 1.0], (1.0, 2.0**-11), None],
)
def test_what_are_no_levels_is_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must"):
        gradual.sample(scales, 1, Randomness.seeded(1))


# ---- the law of a whole path, exactly -----------------------------------------------------------

REACH = 60
COARSE, FINE = 4.0, 2.0


def paths(count: int, stops: Callable[[int, int], bool]) -> dict[tuple[int, ...], float]:
    """Return P(path) for two levels of one count: (y,) where it stopped at the coarse one."""
    c = stay_probability(COARSE, FINE)
    mass = [
        {z: reference.laplace_below(scale, z + 1) - reference.laplace_below(scale, z)
         for z in range(-2 * REACH, 2 * REACH + 1)}
        for scale in (COARSE, FINE)
    ]
    found: dict[tuple[int, ...], float] = {}
    for fine in range(count - REACH, count + REACH + 1):
        for coarse in range(fine - REACH, fine + REACH + 1):
            step = (1 - c) * mass[0][coarse - fine] + c * (coarse == fine)
            path = (coarse,) if stops(coarse, fine) else (coarse, fine)
            found[path] = found.get(path, 0.0) + mass[1][fine - count] * step
    return found


def loss(one: float, other: float) -> float:
    return abs(math.log(one / other))


def test_every_path_costs_the_level_where_it_ends_and_no_more() -> None:
    """Ex-post privacy by enumeration: the ratio on neighbours is bounded path by path."""
    ours, theirs = (paths(count, lambda coarse, _: coarse >= 3) for count in (0, 1))
    price = {1: 1 / COARSE, 2: 1 / FINE}
    worst = {1: 0.0, 2: 0.0}
    for path, probability in ours.items():
        if max(map(abs, path)) <= 20:  # what the truncation cuts is far from here
            worst[len(path)] = max(worst[len(path)], loss(probability, theirs[path]))
    for length, epsilon in price.items():
        assert worst[length] <= epsilon * (1 + 1e-4)
        assert worst[length] >= epsilon * 0.99


def test_two_settled_releases_cost_what_both_realised_and_a_peek_costs_more() -> None:
    """The second is asked where the settled price of the first leaves room: the filter's rule.

    Stopping at the coarse level because of what the finer one says is a leak, and is found.
    """
    honest, peeking = (
        [paths(count, rule) for count in (0, 1)]
        for rule in (lambda coarse, _: coarse >= 3, lambda _, fine: fine >= 3)
    )
    cap = 1 / COARSE + 1 / FINE
    for ours, theirs in (honest, peeking):
        worst = 0.0
        for first in ours:
            # After a coarse stop there is room for a second one; after the fine level there is not.
            if len(first) == 1 and abs(first[0]) <= 15:
                worst = max(worst, *(
                    loss(ours[first] * ours[second], theirs[first] * theirs[second])
                    for second in ours if max(map(abs, second)) <= 15
                ))
        assert (worst <= cap * (1 + 1e-4)) == (ours is honest[0])
