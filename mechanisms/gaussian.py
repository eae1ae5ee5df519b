"""Exact discrete Gaussian noise: sensitivity and (epsilon, delta) in, integers and losses out.

The law is P(k) proportional to exp(-k^2/(2 sigma^2)) on the integers. A release may noise
several columns at once with different sigmas: rho below is that of the whole vector.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mechanisms import laplace
from mechanisms.bounds import (
    exp_bounds,
    float_above,
    normal_tail_above,
    round_down_dyadic,
    round_up_dyadic,
)
from mechanisms.conversion import divergence_at, epsilon_at, highest
from mechanisms.randomness import Randomness

Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

SIGMA_MIN, SIGMA_MAX = 2.0**-20, 2.0**39
# What the float acceptance probability may be wrong by; its error is below 2**-48.
_ACCEPT_MARGIN = 2.0**-40
# sigma above which tails come from the continuous law (see `_tail_above`).
_SUMMED_SIGMA = 128
_FIXED = 384
# No memory holds more numbers, and `curve` proves its bound for no more of them.
DRAWS_MAX = 2**48
# The least tail probability that quantiles and thresholds are computed for.
TAIL_MIN = Fraction(1, 2**160)


def rho(parts: tuple[tuple[int, float], ...]) -> Fraction:
    """Return the zCDP of a joint release of parts (squared L2 sensitivity, sigma), exactly.

    Guarantee: shifting each part by an integer vector of squared norm at most l2_squared has
    Renyi divergence at most a * rho at every order a > 1 (Canonne, Kamath and Steinke 2020,
    proposition 5 for one coordinate; independent coordinates add).
    """
    if not parts:
        raise ValueError("a Gaussian release must have at least one part (l2_squared, sigma)")
    total = Fraction(0)
    for l2_squared, sigma in parts:
        if not (type(l2_squared) is int and l2_squared >= 1):
            raise ValueError(f"squared L2 sensitivity must be an integer >= 1, got {l2_squared!r}")
        total += Fraction(l2_squared) / (2 * Fraction(check_sigma(sigma)) ** 2)
    return total


def check_sigma(sigma: float) -> float:
    """Return `sigma` if noise of that sigma can be drawn, refuse it otherwise."""
    if not (isinstance(sigma, float) and SIGMA_MIN <= sigma <= SIGMA_MAX):
        raise ValueError(
            f"Gaussian sigma must be a float from 2**-20 to 2**39, got {sigma!r}; "
            "a coarser grid makes sigma, counted in grid steps, smaller"
        )
    return sigma


def check_delta(delta: Fraction) -> Fraction:
    """Return `delta` if a Gaussian can be quoted at it, refuse it otherwise."""
    if not 0 < delta < 1:
        raise ValueError(f"delta of a Gaussian must lie strictly between 0 and 1, got {delta!r}")
    return Fraction(delta)


@lru_cache(maxsize=4096)
def epsilon_for(rho: Fraction, delta: Fraction) -> Fraction:
    """Return the epsilon at `delta` of a rho-zCDP release, rounded up.

    Guarantee: rho-zCDP is (a, a rho)-RDP at every order a > 1, so the conversion is valid at
    whichever order is tried; the search for the best one needs no guarantee. The sharper sum
    over the tail of the univariate law is not valid here: the shift may be spread over several
    coordinates.
    """
    check_delta(delta)
    if not rho >= 0:
        raise ValueError(f"rho cannot be negative, got {float(rho)!r}")
    best = highest(lambda order: -epsilon_at(order, order * rho, delta))
    return round_up_dyadic(-best[1])


@lru_cache(maxsize=4096)
def multiplier_for(epsilon: Fraction, delta: Fraction) -> float:
    """Return the smallest z (rounded up) such that sigma = z * l2 is (epsilon, delta)-DP.

    Guarantee: with rho = 1/(2 z^2), `epsilon_for(rho, delta)` is at most epsilon: the order
    found gives a rho that is certainly allowed, and z is rounded up from it. The search decides
    only how small z is. The last factor, 1 + 2**-47, leaves room for the few float roundings of
    a caller that multiplies z by square roots; it costs nothing that could be measured.
    """
    check_delta(delta)
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {float(epsilon)!r}")
    _, allowed = highest(lambda order: divergence_at(order, epsilon, delta) / order)
    if not allowed > 0:
        raise ValueError(f"no Gaussian noise reaches epsilon {float(epsilon)!r} at this delta")
    squared = 1 / (2 * round_down_dyadic(allowed, 256))
    z = float_above(Fraction(math.isqrt(math.ceil(squared * 2**256)) + 1, 2**128))
    return float_above(Fraction(z) * (1 + Fraction(1, 2**47)))


def sample(sigma: float, size: int, randomness: Randomness) -> Int64s:
    """Return `size` independent draws.

    Guarantee: each is distributed exactly as P(k) ~ exp(-k^2/(2 sigma^2)): Y from the exact
    discrete Laplace of scale t = floor(sigma) + 1 is kept with probability
    exp(-(|Y| - sigma^2/t)^2/(2 sigma^2)) (Canonne, Kamath and Steinke 2020, algorithm 3). The
    coin compares a uniform U with that number; where floats cannot tell, more bits of the same
    U are drawn and certified arithmetic decides.
    """
    check_sigma(sigma)
    if not 0 <= size <= DRAWS_MAX:
        raise ValueError(f"draws cannot be negative, nor more than 2**48, got {size!r}")
    drawn = np.empty(size, dtype=np.int64)
    done = 0
    while done < size:
        wanted = min(laplace.CHUNK, (size - done) * 3 // 2 + 8)
        fresh = _kept_proposals(sigma, wanted, randomness)[: size - done]
        drawn[done : done + len(fresh)] = fresh
        done += len(fresh)
    return drawn


def _kept_proposals(sigma: float, tries: int, randomness: Randomness) -> Int64s:
    steps = math.floor(sigma) + 1
    proposal = laplace.signed_geometric(float(steps), tries, randomness)
    raw = randomness.uint64(len(proposal))
    gap = _float_gap(proposal, raw, sigma, steps)
    keep = gap > 0
    np.abs(gap, out=gap)
    for i in np.flatnonzero(gap <= _ACCEPT_MARGIN).tolist():
        keep[i] = _accept_exactly(int(proposal[i]), int(raw[i]) >> 2, sigma, steps, randomness)
    return proposal[keep]


def _float_gap(proposal: Int64s, raw: Uint64s, sigma: float, steps: int) -> Floats:
    """Return acceptance probability minus U, in floats, off by less than 2**-45.

    With d = |Y| - sigma^2/t and e = d^2/(2 sigma^2), rounding moves d by at most sigma 2**-51
    and so exp(-e) by at most (sqrt(2 e) + e) exp(-e) 2**-50, besides np.exp's own few units;
    U is the middle of a cell of width 2**-62.
    """
    gap = np.abs(proposal).astype(np.float64)
    gap -= sigma * sigma / steps
    np.square(gap, out=gap)
    gap *= -0.5 / (sigma * sigma)
    np.exp(gap, out=gap)
    odd = raw >> np.uint64(1)
    odd |= np.uint64(1)
    uniform = odd.view(np.int64).astype(np.float64)
    uniform *= 2.0**-63
    gap -= uniform
    return gap


def _accept_exactly(y: int, k: int, sigma: float, steps: int, randomness: Randomness) -> bool:
    """Decide U < exp(-e) for a U in [k, k + 1) / 2**62 whose further bits are drawn now.

    Guarantee: answers only when every U in the refined cell gives this answer.
    """
    square = Fraction(sigma) ** 2
    exponent = (abs(y) - square / steps) ** 2 / (2 * square)
    bits = 62
    while True:
        k = k << 64 | randomness.integer_below(2**64)
        bits += 64
        if exponent > bits:
            # exp(-e) < 2**-bits: above it unless all bits so far are zero.
            if k > 0:
                return False
            continue
        low, high = exp_bounds(-exponent, bits)
        if Fraction(k + 1, 2**bits) <= low:
            return True
        if Fraction(k, 2**bits) >= high:
            return False


def quantile(sigma: float, confidence: float) -> int:
    """Return the smallest h with P(|Z| <= h) >= confidence, rounded up where unsure.

    Guarantee: never smaller than the true h; see `tail_steps`.
    """
    laplace.check_confidence(confidence)
    return tail_steps(sigma, (1 - Fraction(confidence)) / 2) - 1


@lru_cache(maxsize=4096)
def tail_steps(sigma: float, probability: Fraction) -> int:
    """Return the smallest m >= 1 with P(Z >= m) <= probability, rounded up where unsure.

    Guarantee: the tail at the returned m is certified; see `_tail_above`.
    """
    check_sigma(sigma)
    if not TAIL_MIN <= probability <= Fraction(1, 2):
        raise ValueError(
            f"a tail probability must lie between 2**-160 and 1/2, got {float(probability)!r}"
        )
    steps = _guess_steps(sigma, float(probability))
    while not _tail_above(sigma, steps) <= probability:
        steps += 1
    while steps > 1 and _tail_above(sigma, steps - 1) <= probability:
        steps -= 1
    return steps


def _guess_steps(sigma: float, probability: float) -> int:
    """Return about how many steps leave `probability`, from the continuous law, in floats."""
    low, high = 0.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        if math.erfc(middle / math.sqrt(2)) / 2 > probability:
            low = middle
        else:
            high = middle
    return max(1, math.ceil(high * sigma + 0.5))


def _tail_above(sigma: float, m: int) -> Fraction:
    """Return an upper bound of P(Z >= m), for m >= 1.

    Guarantee, sigma > 128: with f(k) = exp(-k^2/(2 sigma^2)), its sum C over the integers is at
    least sigma sqrt(2 pi) and exceeds it by a factor below 1 + 2**-1000 (Poisson summation).
    Beyond sigma f is convex, so f(k) is at most its mean over [k - 1/2, k + 1/2]: the tail is at
    most that of the normal law from m - 1/2. Below sigma f is concave, f(k) at least that mean,
    and the same holds for 1/2 minus the sum from 0 to m - 1. For smaller sigma the sum is taken
    term by term.
    """
    if sigma <= _SUMMED_SIGMA:
        tails = _summed_tails(max(sigma, 2.0**-8))
        return tails[min(m, len(tails) - 1)]
    distance = (m - Fraction(1, 2)) / Fraction(sigma)
    # Beyond 40 sigma the tail is below exp(-800); more cannot be asked (TAIL_MIN).
    return normal_tail_above(min(distance, Fraction(40))) + Fraction(1, 2**200)


@lru_cache(maxsize=32)
def _summed_tails(sigma: float) -> tuple[Fraction, ...]:
    """Return upper bounds of P(Z >= m) for m = 0, 1, ... until they are below 2**-300.

    Guarantee: f(k + 1) = f(k) g(k) and g(k + 1) = g(k) exp(-1/sigma^2); both run twice in fixed
    point, once rounded up for the tail and once down for the normaliser. The tail beyond the
    last term is at most a geometric series of ratio g. A sigma below 2**-8 is raised to it by
    the caller, which only makes the tail larger.
    """
    square, one = Fraction(sigma) ** 2, 1 << _FIXED
    (g_low, g_up), (h_low, h_up) = (
        (math.floor(low * one), math.ceil(high * one))
        for low, high in (exp_bounds(-1 / (2 * square), _FIXED), exp_bounds(-1 / square, _FIXED))
    )
    low, up, normaliser, terms = one, one, one, [one]
    while up >> (_FIXED - 330):
        low, up = low * g_low >> _FIXED, -(-up * g_up >> _FIXED)
        g_low, g_up = g_low * h_low >> _FIXED, -(-g_up * h_up >> _FIXED)
        normaliser += 2 * low
        terms.append(up)
    tail = -(-up * g_up // (one - g_up))
    tails = []
    for term in reversed(terms):
        tail += term
        tails.append(round_up_dyadic(Fraction(tail, normaliser), _FIXED))
    return tuple(reversed(tails))


def deviation(sigma: float) -> float:
    """Return the standard deviation; it is below sigma, noticeably so only for small sigma."""
    check_sigma(sigma)
    if sigma > 4:
        return sigma
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(1, 64)]
    squares = math.fsum(2 * k * k * w for k, w in enumerate(weights, start=1))
    return math.sqrt(squares / (1 + 2 * math.fsum(weights)))
