"""Integer-only samplers and exact laws: what the fast samplers are compared with.

No float takes part in a draw. Canonne, Kamath and Steinke, "The Discrete Gaussian for
Differential Privacy" (2020): algorithms 1 (coin with probability exp(-x)), 2 (discrete Laplace)
and 3 (discrete Gaussian). Slow, short, and to be read beside the paper.
"""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath

from mechanisms.randomness import Randomness


def coin_exp_minus(x: Fraction, randomness: Randomness) -> bool:
    """Return True with probability exp(-x), for x >= 0 (algorithm 1)."""
    while x > 1:
        if not coin_exp_minus(Fraction(1), randomness):
            return False
        x -= 1
    k = 1
    while randomness.bernoulli(x / k):
        k += 1
    return k % 2 == 1


def laplace(scale: Fraction, randomness: Randomness) -> int:
    """Return a draw of P(k) ~ exp(-|k|/scale) (algorithm 2, with scale = t/s)."""
    t, s = scale.numerator, scale.denominator
    while True:
        low = randomness.integer_below(t)
        if not coin_exp_minus(Fraction(low, t), randomness):
            continue
        high = 0
        while coin_exp_minus(Fraction(1), randomness):
            high += 1
        size = (low + t * high) // s
        negative = randomness.bernoulli(Fraction(1, 2))
        if not (negative and size == 0):
            return -size if negative else size


def gaussian(sigma: Fraction, randomness: Randomness) -> int:
    """Return a draw of P(k) ~ exp(-k^2/(2 sigma^2)) (algorithm 3)."""
    t = math.floor(sigma) + 1
    while True:
        y = laplace(Fraction(t), randomness)
        exponent = (abs(y) - sigma**2 / t) ** 2 / (2 * sigma**2)
        if coin_exp_minus(exponent, randomness):
            return y


def laplace_below(scale: float, k: int) -> float:
    """Return P(Z < k) under the discrete Laplace law."""
    q = mpmath.exp(-1 / mpmath.mpf(scale))
    if k <= 0:
        return float(q ** (1 - k) / (1 + q))
    return float(1 - q**k / (1 + q))


def gaussian_below(sigma: float, k: int) -> float:
    """Return P(Z < k) under the discrete Gaussian law (the normal law where that is exact)."""
    if sigma > 200:
        # The midpoint rule: the relative error is below (k/sigma)^2/sigma^2.
        return float(mpmath.ncdf((k - mpmath.mpf(0.5)) / sigma))
    reach = 40 + math.ceil(15 * sigma)
    weights = {j: math.exp(-0.5 * (j / sigma) ** 2) for j in range(-reach, reach + 1)}
    return math.fsum(w for j, w in weights.items() if j < k) / math.fsum(weights.values())
