"""From Renyi divergence to (epsilon, delta) and back: exact numbers in, certified bounds out."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from mechanisms.bounds import log_bounds, round_down_dyadic


def epsilon_at(order: Fraction, divergence: Fraction, delta: Fraction) -> Fraction:
    """Return an epsilon for a Renyi divergence at `order`, never below the true one.

    Guarantee: (order, divergence)-RDP implies (epsilon, delta)-DP with
    epsilon = divergence + ln(1 - 1/a) - ln(a delta)/(a - 1)
    (Canonne, Kamath and Steinke 2020, proposition 12), if that is positive; else epsilon 0.
    """
    shrink = log_bounds(1 - 1 / order, 160)[1]
    return max(Fraction(0), divergence + shrink - log_bounds(order * delta, 160)[0] / (order - 1))


def divergence_at(order: Fraction, epsilon: Fraction, delta: Fraction) -> Fraction:
    """Return the largest Renyi divergence at `order` that `epsilon_at` allows, rounded down.

    May be negative: then this order is useless for this epsilon and delta.
    """
    shrink = log_bounds(1 - 1 / order, 160)[1]
    return epsilon - shrink + log_bounds(order * delta, 160)[0] / (order - 1)


def highest(value: Callable[[Fraction], Fraction]) -> tuple[Fraction, Fraction]:
    """Return an order a > 1 near the maximum of `value`, and the value there.

    Walks a - 1 over powers of four, then narrows by golden section. Only rationals are used,
    so every machine finds the same order. The order decides how tight a bound is, never
    whether it is valid.
    """
    grid = [Fraction(4) ** j for j in range(-6, 26)]
    values = [value(1 + distance) for distance in grid]
    top = max(range(len(grid)), key=values.__getitem__)
    low, high = grid[max(0, top - 1)], grid[min(len(grid) - 1, top + 1)]
    share = Fraction(2654435769, 2**32)
    found = (1 + grid[top], values[top])
    inner = [_between(low, high, 1 - share), _between(low, high, share)]
    inner_values = [value(1 + x) for x in inner]
    for _ in range(56):
        if inner_values[0] >= inner_values[1]:
            high = inner[1]
            inner = [_between(low, high, 1 - share), inner[0]]
            inner_values = [value(1 + inner[0]), inner_values[0]]
        else:
            low = inner[0]
            inner = [inner[1], _between(low, high, share)]
            inner_values = [inner_values[1], value(1 + inner[1])]
    for x, y in zip(inner, inner_values, strict=True):
        if y > found[1]:
            found = (1 + x, y)
    return found


def _between(low: Fraction, high: Fraction, share: Fraction) -> Fraction:
    return round_down_dyadic(low + share * (high - low), 72)
