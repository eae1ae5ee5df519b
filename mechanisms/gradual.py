"""Discrete Laplace noise revealed from coarse to fine: scales in, one draw for each level out.

Each level follows the discrete Laplace law of its own scale exactly, and every coarser level is
the finer one plus further noise. So whoever sees the levels 1 to i, coarse to fine, has seen no
more than level i and what chance made of it: epsilon is that of level i, however many were seen.

Koufogiannis, Han and Pappas ("Gradual release of sensitive data under differential privacy", 2015)
give this for the continuous law, Ligett, Neel, Roth, Waggoner and Wu ("Accuracy first", 2017) use
it to stop at an accuracy. On the integers it holds exactly, with another coin.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mechanisms.bounds import exp_bounds
from mechanisms.laplace import Int64s, check_scale
from mechanisms.laplace import sample as laplace_sample
from mechanisms.randomness import Randomness

LEVELS_MAX = 64
# Below this the exponentials of 1/scale are numbers too long to compute with.
SCALE_MIN = 2.0**-10
# Four levels to a doubling of the scale, near 2**(k/4) and short enough to multiply alike
# everywhere. Ledgers name levels by their number, so these never change.
_QUARTERS = (1.0, 1.1875, 1.4140625, 1.6875)
_COIN_BITS = 64


def scales_of(finest: float, levels: int) -> tuple[float, ...]:
    """Return the scales of `levels` levels from coarse to fine; the last one is `finest`.

    Guarantee: a function of public numbers, with exact or correctly rounded products only.
    """
    if not (type(levels) is int and 1 <= levels <= LEVELS_MAX):
        raise ValueError(f"levels must be a whole number from 1 to {LEVELS_MAX}, got {levels!r}")
    if not check_scale(finest) >= SCALE_MIN:
        raise ValueError(f"a level's scale must be at least 2**-10, got {finest!r}")
    coarse = range(levels - 1, -1, -1)
    return check_scales(tuple(finest * (_QUARTERS[k % 4] * 2.0 ** (k // 4)) for k in coarse))


def check_scales(scales: tuple[float, ...]) -> tuple[float, ...]:
    """Return `scales` if they are levels from coarse to fine, refuse them otherwise."""
    if not (isinstance(scales, tuple) and scales):
        raise ValueError(f"levels must be a tuple of scales, got {scales!r}")
    for scale in scales:
        if not check_scale(scale) >= SCALE_MIN:
            raise ValueError(f"a level's scale must be at least 2**-10, got {scale!r}")
    if not all(coarse > fine for coarse, fine in pairwise(scales)):
        raise ValueError(f"scales must decrease, from coarse to fine, got {scales!r}")
    return scales


def sample(scales: tuple[float, ...], size: int, randomness: Randomness) -> Int64s:
    """Return noise of shape (levels, size): row i is that of level i, coarse to fine.

    Guarantee: row i alone is `size` independent draws of exactly the discrete Laplace law of
    scales[i]. Row i is row i + 1 plus noise that does not depend on it: with a = exp(-1/coarse)
    and b = exp(-1/fine), DL(a) = DL(b) + (0 with probability c, else another DL(a)) for
    c = b (1 - a)^2 / (a (1 - b)^2). For, the law has the characteristic function
    phi_a(t) = (1 - a)^2 / (1 - 2 a cos t + a^2), and phi_a / phi_b = c + (1 - c) phi_a: both sides
    times (1 - 2 a cos t + a^2) are linear in cos t, with the same slope by the choice of c and
    the same value at t = 0. So the rows form a Markov chain from fine to coarse: given row i, the
    rows above it follow from chance alone. Every cell is drawn afresh at every level, whatever
    its coin says, so that the time does not tell the coins.
    """
    check_scales(scales)
    noise = np.empty((len(scales), size), dtype=np.int64)
    noise[-1] = laplace_sample(scales[-1], size, randomness)
    for level in range(len(scales) - 2, -1, -1):
        stays = _coins(scales[level], scales[level + 1], size, randomness)
        fresh = laplace_sample(scales[level], size, randomness)
        noise[level] = noise[level + 1] + fresh * ~stays
    return noise


def stay_bounds(coarse: float, fine: float, bits: int) -> tuple[Fraction, Fraction]:
    """Return certified bounds of c, about 2**-bits apart relative to c.

    Guarantee: a scale is the exact value of its float. 1/scale is at least 2**-40, so that
    1 - exp(-1/scale) loses at most 41 bits, twice over.
    """
    one, other = 1 / Fraction(coarse), 1 / Fraction(fine)
    more = bits + 96
    ratio = exp_bounds(one - other, more)
    a, b = exp_bounds(-one, more), exp_bounds(-other, more)
    low = ratio[0] * ((1 - a[1]) / (1 - b[0])) ** 2
    high = ratio[1] * ((1 - a[0]) / (1 - b[1])) ** 2
    return low, high


@lru_cache(maxsize=4096)
def _stay_word(coarse: float, fine: float) -> int:
    """Return floor(c 2**64), certified."""
    bits = 128
    while True:
        low, high = stay_bounds(coarse, fine, bits)
        word = math.floor(low * (1 << _COIN_BITS))
        if word == math.floor(high * (1 << _COIN_BITS)):
            return word
        bits *= 2


def _coins(
    coarse: float, fine: float, size: int, randomness: Randomness
) -> npt.NDArray[np.bool_]:
    """Return `size` independent coins that are True with probability exactly c.

    Guarantee: a coin is U < c for a uniform U in [0, 1). 64 bits of U decide unless they are
    those of c; then more bits of the same U are drawn until certified bounds of c decide.
    """
    word = np.uint64(_stay_word(coarse, fine))
    drawn = randomness.uint64(size)
    stays = drawn < word
    for i in np.flatnonzero(drawn == word).tolist():
        stays[i] = _stays_exactly(int(drawn[i]), coarse, fine, randomness)
    return stays


def _stays_exactly(k: int, coarse: float, fine: float, randomness: Randomness) -> bool:
    """Return U < c for a U in [k, k + 1) / 2**64 whose further bits are drawn now."""
    bits = _COIN_BITS
    while True:
        k = k << 64 | randomness.integer_below(2**64)
        bits += 64
        low, high = stay_bounds(coarse, fine, 2 * bits)
        if Fraction(k + 1, 2**bits) <= low:
            return True
        if Fraction(k, 2**bits) >= high:
            return False
