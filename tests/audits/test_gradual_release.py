"""The level and the answer together: what an attacker proves of them is below the level's price.

A count of N or N + 1 patients is released with an accuracy target, through the samplers and the
stop rule that releases use. The attacker sees the level at which it stopped and the number there.
Ex-post privacy says more than the cap: at every level, the ratio of probabilities is at most the
exponential of *that level's* epsilon.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest

from engine.audit_epsilon import proportion_bounds
from mechanisms import gradual, laplace
from mechanisms.randomness import Randomness
from planner.target import Target, is_close
from planner.uncertainty import CONFIDENCE

FAST, LONG = 150_000, 1_500_000
COUNT, LEVELS, CAP = 12, 25, 2.0
TARGET = Target(Fraction(1, 2), is_relative=True)
SCALES = gradual.scales_of(1 / CAP, LEVELS)
WIDTHS = [laplace.quantile(scale, CONFIDENCE) for scale in SCALES]

Ints = npt.NDArray[np.int64]
Stop = Callable[[int, Ints], Ints]


def good_enough() -> npt.NDArray[np.bool_]:
    """The stop rule as a table: [level, released number + reach]."""
    table = np.zeros((LEVELS, 2 * REACH + 1), dtype=np.bool_)
    for level, width in enumerate(WIDTHS):
        for y in range(-REACH, REACH + 1):
            table[level, y + REACH] = is_close(y, (y - width, y + width), TARGET)
    return table


REACH = 400


def honest(count: int, shown: Ints) -> Ints:
    """Stop at the first released number that is exact enough."""
    table = good_enough()
    close = np.stack([
        table[level, np.clip(shown[level], -REACH, REACH) + REACH] for level in range(LEVELS)
    ])
    close[-1] = True
    return close.argmax(axis=0)


def leaky(count: int, shown: Ints) -> Ints:
    """A planted bug: stop where the *exact* count would be exact enough."""
    level = next(i for i, width in enumerate(WIDTHS)
                 if is_close(count, (count - width, count + width), TARGET))
    return np.full(shown.shape[1], level + (count % 2))


def seen(count: int, draws: int, seed: int, stop: Stop, shrink: float = 1.0) -> tuple[Ints, Ints]:
    """Return the level and the released number of many independent questions."""
    scales = tuple(scale * shrink for scale in SCALES)
    levels, numbers, randomness = [], [], Randomness.seeded(seed)
    for _ in range(0, draws, 50_000):
        shown = count + gradual.sample(scales, 50_000, randomness)
        level = stop(count, shown)
        levels.append(level)
        numbers.append(shown[level, np.arange(shown.shape[1])])
    return np.concatenate(levels), np.concatenate(numbers)


def proven(draws: int, stop: Stop, shrink: float = 1.0) -> Iterator[tuple[int, float]]:
    """Yield each level with an epsilon that is surely exceeded there.

    For each level an event {stopped here, number >= t or <= t} is chosen on one half of the
    draws and judged on the other.
    """
    ours, theirs = (seen(COUNT + n, draws, 31 + n, stop, shrink) for n in (0, 1))
    half = len(ours[0]) // 2
    for level in range(LEVELS):
        best = (-math.inf, 0, True, True)
        for t in range(-5, 60):
            for upper in (True, False):
                hits = [_hits(part, slice(0, half), level, t, upper) for part in (ours, theirs)]
                for straight in (True, False):
                    one, other = hits if straight else hits[::-1]
                    best = max(best, (_ratio(one, other, half, 0.99), t, upper, straight))
        _, t, upper, straight = best
        hits = [_hits(part, slice(half, None), level, t, upper) for part in (ours, theirs)]
        one, other = hits if straight else hits[::-1]
        yield level, _ratio(one, other, len(ours[0]) - half, 1 - 1e-6 / LEVELS)


def _hits(part: tuple[Ints, Ints], which: slice, level: int, t: int, upper: bool) -> int:
    levels, numbers = part[0][which], part[1][which]
    inside = numbers >= t if upper else numbers <= t
    return int(np.count_nonzero((levels == level) & inside))


def _ratio(one: int, other: int, tries: int, confidence: float) -> float:
    low = proportion_bounds(one, tries, confidence)[0]
    high = proportion_bounds(other, tries, confidence)[1]
    return math.log(low / high) if low > 0 else -math.inf


def exceeded(draws: int, stop: Stop, shrink: float = 1.0) -> list[tuple[int, float]]:
    return [(level, epsilon) for level, epsilon in proven(draws, stop, shrink)
            if epsilon > 1 / SCALES[level]]


def test_no_level_tells_more_than_it_costs() -> None:
    assert exceeded(FAST, honest) == []


@pytest.mark.audit
def test_no_level_tells_more_than_it_costs_at_length() -> None:
    found = list(proven(LONG, honest))
    assert [(level, e) for level, e in found if e > 1 / SCALES[level]] == []
    # An audit that finds nothing proves nothing: it comes near the price where it stops often.
    assert max(e * SCALES[level] for level, e in found) > 0.7


def test_the_audit_has_power() -> None:
    assert max(e * SCALES[level] for level, e in proven(FAST, honest)) > 0.5


def test_a_stop_rule_that_looks_at_the_exact_count_is_caught() -> None:
    assert exceeded(FAST, leaky)


def test_noise_smaller_than_paid_for_is_caught() -> None:
    assert exceeded(FAST, honest, shrink=0.5)
