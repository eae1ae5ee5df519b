"""Exact discrete Laplace noise: sensitivity and epsilon in, integers, errors and losses out.

The law is P(k) proportional to exp(-|k|/scale) on the integers. Below, q = exp(-1/scale).
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mechanisms.bounds import exp_bounds, float_above, log_bounds, round_up_dyadic
from mechanisms.randomness import Randomness

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SCALE_MIN, SCALE_MAX = 2.0**-30, 2.0**40
# Draws handled at once: small enough for the cache, and for memory that malloc keeps at hand.
CHUNK = 2**13
# What np.log may be wrong by, relative to 1 + |ln u|: four times the four units that numpy's
# own tests allow. The product with the scale and the conversion to float are within it too.
LOG_ERROR = 2.0**-48
_UNIFORM_BITS = 62
_LOW_BITS = np.uint64(2**63 - 1)
_ONE = np.uint64(1)


def scale_for(l1: int, epsilon: Fraction) -> float:
    """Return the smallest float scale at which a shift of at most `l1` costs at most `epsilon`.

    Guarantee: Fraction(scale) >= l1/epsilon, and shifting a vector by L1 distance at most l1
    changes no probability by more than a factor exp(l1/scale) <= exp(epsilon) (Ghosh,
    Roughgarden and Sundararajan 2009; the factors of the coordinates multiply).
    """
    check_l1(l1)
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {float(epsilon)!r}")
    return check_scale(float_above(Fraction(l1) / Fraction(epsilon)))


def check_scale(scale: float) -> float:
    """Return `scale` if noise of that scale can be drawn, refuse it otherwise."""
    if not (isinstance(scale, float) and SCALE_MIN <= scale <= SCALE_MAX):
        raise ValueError(
            f"Laplace scale must be a float from 2**-30 to 2**40, got {scale!r}; "
            "a coarser grid makes the scale, counted in grid steps, smaller"
        )
    return scale


def check_l1(l1: int) -> int:
    """Return `l1` if it is a sensitivity in grid steps, refuse it otherwise."""
    if not (type(l1) is int and l1 >= 1):
        raise ValueError(f"L1 sensitivity must be an integer >= 1, got {l1!r}")
    return l1


def sample(scale: float, size: int, randomness: Randomness) -> Int64s:
    """Return `size` independent draws.

    Guarantee: each is distributed exactly as P(k) ~ exp(-|k|/scale). G = floor(-scale ln U),
    U uniform on (0, 1), has P(G >= n) = P(U <= exp(-n/scale)) = q**n exactly; with a fair sign
    and (minus, 0) rejected this is the law (Canonne, Kamath and Steinke 2020, algorithm 2, with
    another geometric sampler). U is known to 62 bits; wherever those and the error of the
    floats leave two candidates for the floor, more bits of the same U are drawn and the floor
    is decided by certified integer arithmetic (interval refining: Haney et al. 2022).
    """
    check_scale(scale)
    if not size >= 0:
        raise ValueError(f"the number of draws cannot be negative, got {size!r}")
    drawn = np.empty(size, dtype=np.int64)
    kept_share = 1 - -math.expm1(-1 / scale) / 2
    done = 0
    while done < size:
        wanted = min(CHUNK, int((size - done) / kept_share) + 8)
        fresh = signed_geometric(scale, wanted, randomness)[: size - done]
        drawn[done : done + len(fresh)] = fresh
        done += len(fresh)
    return drawn


def signed_geometric(scale: float, tries: int, randomness: Randomness) -> Int64s:
    """Return the draws that `tries` attempts yield (an attempt fails as (minus, 0))."""
    raw = randomness.uint64(tries)
    # The top bit is the sign; the others, with the lowest set, are 2k + 1 for a uniform k of
    # 62 bits: U lies in [k, k + 1) / 2**62 and u is the middle of that cell.
    odd = raw & _LOW_BITS
    odd |= _ONE
    value = odd.view(np.int64).astype(np.float64)
    value *= 2.0**-63
    np.log(value, out=value)
    value *= -scale
    floor = np.floor(value)
    size = floor.astype(np.int64)
    for i in _undecided(value, floor, scale):
        size[i] = _floor_exactly(int(odd[i]) >> 1, scale, randomness)
    sign = raw.view(np.int64) >> 63
    size ^= sign
    size -= sign
    # Zero came from (minus, 0) exactly where the sign is -1 and the size is 0.
    failed = np.flatnonzero((size | ~sign) == 0)
    return np.delete(size, failed) if len(failed) else size


def _undecided(value: Floats, floor: Floats, scale: float) -> list[int]:
    """Return where floor(value) may differ from floor(-scale ln U).

    Guarantee: for k >= 2**low, |ln U - ln u| <= 1/(k + 1/2) <= 2**-low, and the float error
    is at most LOG_ERROR (1 + 63 ln 2) in ln u; smaller k are all returned. `low` balances the
    two shares and has no influence on the law.
    """
    low = min(_UNIFORM_BITS - 1, 32 + max(0, int(math.log2(scale))) // 2)
    width = scale * (2.0**-low + LOG_ERROR * 45)
    value_low = scale * (_UNIFORM_BITS - low) * math.log(2) * (1 - 2.0**-40)
    if width >= 0.5:
        return list(range(len(value)))
    from_half = value - floor
    from_half -= 0.5
    np.abs(from_half, out=from_half)
    unsure = from_half >= 0.5 - width
    if value.max(initial=0.0) >= value_low:
        unsure |= value >= value_low
    return np.flatnonzero(unsure).tolist()  # type: ignore[no-any-return]


def _floor_exactly(k: int, scale: float, randomness: Randomness) -> int:
    """Return floor(-scale ln U) for a U in [k, k + 1) / 2**62 whose further bits are drawn now.

    Guarantee: returns only when every U in the refined cell has this floor.
    """
    exact_scale, bits = Fraction(scale), _UNIFORM_BITS
    while True:
        k = k << 64 | randomness.integer_below(2**64)
        bits += 64
        if k == 0:
            continue
        smallest = -exact_scale * log_bounds(Fraction(k + 1, 2**bits), bits)[1]
        largest = -exact_scale * log_bounds(Fraction(k, 2**bits), bits)[0]
        if math.floor(smallest) == math.floor(largest):
            return math.floor(largest)


def quantile(scale: float, confidence: float) -> int:
    """Return the smallest h with P(|Z| <= h) >= confidence, never a smaller one.

    Guarantee: P(|Z| > h) = 2 q**(h + 1)/(1 + q), bounded with certified arithmetic.
    """
    check_scale(scale)
    check_confidence(confidence)
    missing = 1 - Fraction(confidence)
    return max(0, _steps_until(scale, missing / 2) - 1)


def tail_steps(scale: float, probability: Fraction) -> int:
    """Return the smallest m >= 0 with P(Z >= m) <= probability, never a smaller one.

    Guarantee: P(Z >= m) = q**m/(1 + q) for every m >= 0, bounded with certified arithmetic.
    """
    check_scale(scale)
    if not 0 < probability < 1:
        raise ValueError(f"a tail probability lies between 0 and 1, got {float(probability)!r}")
    return max(0, _steps_until(scale, Fraction(probability)))


def _steps_until(scale: float, tail: Fraction) -> int:
    """Return the smallest m (rounded up) with exp(-m/scale)/(1 + q) <= tail."""
    exact_scale = Fraction(scale)
    q_low = exp_bounds(-1 / exact_scale)[0] if scale > 2.0**-10 else Fraction(0)
    return math.ceil(-exact_scale * log_bounds(tail * (1 + q_low), 192)[0])


def check_confidence(confidence: float) -> float:
    """Return `confidence` if it lies strictly between 0 and 1, refuse it otherwise."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence!r}")
    return confidence


def deviation(scale: float) -> float:
    """Return the standard deviation, sqrt(2 q)/(1 - q)."""
    check_scale(scale)
    return math.sqrt(2) * math.exp(-0.5 / scale) / -math.expm1(-1 / scale)


def rdp(l1: int, scale: float, order: Fraction | float) -> Fraction:
    """Return an upper bound of the Renyi divergence at `order` for shifts of L1 size <= l1.

    Guarantee: the vector is epsilon-DP with epsilon = l1/scale (see `scale_for`); the rest is
    `pure_rdp`. For l1 = 1 (a count) the bound is attained. The formula for continuous Laplace
    would be too small there.
    """
    return pure_rdp(Fraction(check_l1(l1)) / Fraction(check_scale(scale)), order)


@lru_cache(maxsize=4096)
def pure_rdp(epsilon: Fraction, order: Fraction | float) -> Fraction:
    """Return an upper bound of the Renyi divergence of any epsilon-DP mechanism, rounded up.

    Guarantee: any pair of distributions within exp(+-epsilon) of one another is a
    post-processing of randomized response (Kairouz, Oh and Viswanath 2015), whose divergence
    at order a is
    (ln(exp(a e) + exp((1 - a) e)) - ln(1 + exp(e)))/(a - 1)
    = e + (ln(1 + exp(-(2a - 1) e)) - ln(1 + exp(-e)))/(a - 1).
    It is never above min(e, a e^2/2) (Bun and Steinke 2016, proposition 3.3), which caps the
    rounding.
    """
    order = check_order(order)
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {float(epsilon)!r}")
    simple = min(epsilon, order * epsilon * epsilon / 2)
    # Beyond this the curve is epsilon up to 1e-14, and the exponentials would be long numbers.
    if epsilon > 32 or (2 * order - 1) * epsilon > 2**16:
        return round_up_dyadic(simple)
    over = log_bounds(1 + exp_bounds(-(2 * order - 1) * epsilon)[1])[1]
    under = log_bounds(1 + exp_bounds(-epsilon)[0])[0]
    return round_up_dyadic(min(simple, epsilon + (over - under) / (order - 1)))


def check_order(order: Fraction | float) -> Fraction:
    """Return the Renyi order as a fraction if it is above 1, refuse it otherwise."""
    if not 1 < order < math.inf:
        raise ValueError(f"a Renyi order must be a finite number above 1, got {order!r}")
    return Fraction(order)


def check_log() -> None:
    """Refuse to go on where np.log is less accurate than `sample` relies on.

    Guarantee: this is a spot check of the library in use against certified bounds, at points
    over the whole range and in both the vector and the remainder loops of numpy.
    """
    points = np.array([(2 * k + 1) * 2.0**-63 for k in _spread_cells()])
    for u, found in zip(points.tolist(), np.log(points).tolist(), strict=True):
        low, high = log_bounds(Fraction(u), 64)
        allowed = Fraction(LOG_ERROR) / 4 * (1 - low)
        if not low - allowed <= Fraction(found) <= high + allowed:
            raise RuntimeError(f"np.log({u!r}) = {found!r} is too inexact for exact noise")


def _spread_cells() -> list[int]:
    """Return cells k near 2**0 ... 2**62 and a few dozen near 2**62, where ln u is near 0."""
    powers = [(2**j) * 7 // 5 for j in range(61)]
    return powers + [2**62 - 1 - 3**j for j in range(1, 39)]


check_log()
