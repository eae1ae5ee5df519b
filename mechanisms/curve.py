"""The privacy curve of Gaussian noise: shifts and sigmas in, a certified epsilon at a delta out.

The normal law's curve is known exactly (Balle and Wang 2018, theorem 8), and it is that of any
number of coordinates: only the length of the shift counts, in units of sigma. Our noise is the
discrete Gaussian, for which no such formula is known in several coordinates. But up to a factor
nobody can see, it is normal noise of a slightly smaller variance, rounded at random:

Lemma. Let sigma^2 > s = SMOOTHING, and let f be an integer. Draw X from N(f, sigma^2 - s), and
then Y from the integers with probability proportional to g(Y - X), g(u) = exp(-u^2/(2 s)). The
probabilities that Y and f + Z take any value, Z being discrete Gaussian of that sigma, differ by
a factor between (1 - t)/(1 + t) and 1 + t, where t = TAU bounds 2 sum_{j >= 1} exp(-2 pi^2 s j^2).

Proof. By Poisson summation the sum over integers k of g(k - x) is sqrt(2 pi s) times a number
in [1 - t, 1 + t], for every real x. So P(Y = y) is the integral over x of
phi(x - f; sigma^2 - s) g(y - x) / sqrt(2 pi s), which is phi(y - f; sigma^2), divided by a number
in [1 - t, 1 + t]: phi(u; v) is the normal density of variance v, and variances add. Likewise
P(f + Z = y) is phi(y - f; sigma^2) divided by a number in [1, 1 + t], as sigma^2 >= s.

The second draw does not depend on f: it is a post-processing of normal noise.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Final

from mechanisms import gaussian
from mechanisms.bounds import (
    exp_bounds,
    float_above,
    log_bounds,
    normal_tail_above,
    round_down_dyadic,
    round_up_dyadic,
)

SMOOTHING: Final = 4
# 333/106 is below pi.
_ALIAS: Final = exp_bounds(-2 * Fraction(333, 106) ** 2 * SMOOTHING)[1]
TAU: Final = 2 * _ALIAS / (1 - _ALIAS)
# The parts that `multiplier_for` leaves room for; more of them cost 2e-19 of epsilon each.
PARTS_PLANNED: Final = 2**12
EPSILON_MAX: Final = 64
_DELTA_MIN: Final = Fraction(1, 2**160)
_TAIL_ERROR: Final = Fraction(1, 2**240)
_STEPS = 60


def delta_above(shift: Fraction, epsilon: Fraction) -> Fraction:
    """Return an upper bound of the delta at `epsilon` of normal noise, `shift` in sigmas.

    Guarantee: delta = Phi(shift/2 - epsilon/shift) - exp(epsilon) Phi(-shift/2 - epsilon/shift)
    (Balle and Wang 2018, theorem 8), for a vector with independent normal noise whose mean moves
    by `shift` in L2 norm, each coordinate divided by its sigma; a shorter one has less. The first
    term is rounded up, the second down, to well within 2**-140.
    """
    if not (shift > 0 and 0 <= epsilon <= EPSILON_MAX):
        raise ValueError(
            f"a shift above 0 and an epsilon from 0 to {EPSILON_MAX} are needed, got "
            f"{float(shift)!r} and {float(epsilon)!r}"
        )
    middle, far = shift / 2 - epsilon / shift, shift / 2 + epsilon / shift
    if middle > 0:
        first = 1 - _tail_below(middle)
    else:
        first = normal_tail_above(min(round_down_dyadic(-middle, 256), Fraction(40)))
    return round_up_dyadic(first - exp_bounds(epsilon, 256)[0] * _tail_below(far), 320)


def epsilon_of(parts: tuple[tuple[int, float], ...], delta: Fraction) -> Fraction:
    """Return the epsilon at `delta` of a joint release of parts (squared L2 sensitivity, sigma).

    Guarantee: never below the true epsilon of discrete Gaussian noise, where no part has more
    than gaussian.DRAWS_MAX numbers; also where each part may be chosen by earlier ones. It is
    the smaller of two bounds. One is by Renyi divergence (gaussian.epsilon_for). For the other,
    fix two neighbours. Replace the noise of each number on which they differ (of every part at
    most DRAWS_MAX, together m) by that of the lemma, variance sigma^2 - SMOOTHING; the others
    have noise that depends on no data. Then all is a post-processing of normal noise whose mean
    moves by mu, mu^2 being at most the sum of l2_squared / (sigma^2 - SMOOTHING): (e, d)-DP with
    d = delta_above(mu, e). (Parts chosen one after another compose the same: Dong, Roth and Su
    2022, corollary 3.3.) By the lemma, probabilities of transcripts P under the true noise and P'
    under the replaced one have P <= (1 + t)^m P' and P' <= ((1 + t)/(1 - t))^m P on either
    neighbour. So P(S) <= exp(e + 4 m t) Q(S) + exp(m t) d for true ones, since t <= 1/2.
    """
    gaussian.check_delta(delta)
    by_order = gaussian.epsilon_for(gaussian.rho(parts), delta)
    if any(Fraction(sigma) ** 2 <= SMOOTHING for _, sigma in parts):
        return by_order
    squared = sum(
        (Fraction(l2) / (Fraction(sigma) ** 2 - SMOOTHING) for l2, sigma in parts), Fraction(0)
    )
    by_curve = _least_epsilon(_root_above(squared), len(parts), delta, by_order)
    return min(by_order, by_curve)


@lru_cache(maxsize=4096)
def multiplier_for(epsilon: Fraction, delta: Fraction) -> float:
    """Return the smallest z (rounded up) such that sigma^2 = z^2 l2^2 + SMOOTHING is enough.

    Guarantee: a joint release of at most PARTS_PLANNED parts, whose l2_squared / (sigma^2 -
    SMOOTHING) add up to at most 1/z^2, is (epsilon, delta)-DP: the z returned is rounded up from
    one of which `delta_above` says so, with the slack that `epsilon_of` adds; or it is that of
    gaussian.multiplier_for, where rho alone says so. The search decides only how small z is. The
    last factor, 1 + 2**-47, leaves room for a caller's float roundings.
    """
    by_order = gaussian.multiplier_for(epsilon, delta)
    bend = _bend(PARTS_PLANNED)
    least = epsilon - 4 * bend
    if not (epsilon > 2**20 * bend and epsilon <= EPSILON_MAX and delta >= _DELTA_MIN):
        return by_order
    wanted = delta / (1 + 2 * bend)
    shift = round_down_dyadic(1 / Fraction(by_order), 160)
    allowed = Fraction(0)
    for _ in range(_STEPS):
        found = delta_above(shift, least)
        if found <= wanted:
            allowed = max(allowed, shift)
        # d delta / d shift is the normal density at shift/2 - epsilon/shift.
        middle = round_down_dyadic(shift / 2 - least / shift, 96)
        slope = exp_bounds(-middle * middle / 2)[0] * Fraction(2, 5)
        step = _log_gap(wanted, found) * found / slope
        shift = min(2 * shift, max(shift / 2, round_down_dyadic(shift + step, 160)))
        if abs(step) < shift / 2**72:
            break
    if not allowed > 1 / Fraction(by_order):
        return by_order
    return float_above(Fraction(float_above(1 / allowed)) * (1 + Fraction(1, 2**47)))


@lru_cache(maxsize=4096)
def _least_epsilon(shift: Fraction, parts: int, delta: Fraction, start: Fraction) -> Fraction:
    """Return about the least epsilon, at most `start`, that the normal curve allows.

    Guarantee: `start`, or an epsilon of which `delta_above` says that it is enough, with the
    slack of `epsilon_of`. ln(delta) is concave in epsilon, so Newton's method on it comes down
    from `start` without passing the least one; nothing depends on that.
    """
    bend = _bend(parts)
    if not (0 < start <= EPSILON_MAX and bend < 1 and delta >= _DELTA_MIN):
        return start
    wanted = delta / (1 + 2 * bend)
    if delta_above(shift, Fraction(0)) <= wanted:
        return min(start, round_up_dyadic(4 * bend))
    least, epsilon = start, start
    for _ in range(_STEPS):
        found = delta_above(shift, epsilon)
        if found <= wanted:
            least = min(least, epsilon)
        elif epsilon == start:
            break  # the smoothing costs more here than the curve gains
        far = _tail_below(shift / 2 + epsilon / shift)
        slope = exp_bounds(epsilon)[0] * far
        if not (slope > 0 and found > 0):
            break
        step = _log_gap(wanted, found) * found / slope
        # Where the curve is flat a step may lead past what is known to be enough.
        beyond = epsilon - step > least
        tried = (epsilon + least) / 2 if beyond else max(epsilon / 2, epsilon - step)
        epsilon = round_up_dyadic(tried, 96)
        if abs(step) < Fraction(1, 2**88):
            break
    return min(start, round_up_dyadic(least + 4 * bend))


def _bend(parts: int) -> Fraction:
    """Return m t of `epsilon_of`."""
    return parts * gaussian.DRAWS_MAX * TAU


def _log_gap(wanted: Fraction, found: Fraction) -> Fraction:
    return log_bounds(round_up_dyadic(wanted / found, 256), 128)[0]


def _tail_below(x: Fraction) -> Fraction:
    """Return a lower bound of P(N(0, 1) >= x), for x >= 0."""
    x = round_up_dyadic(x, 256)
    return max(Fraction(0), normal_tail_above(x) - _TAIL_ERROR) if x <= 40 else Fraction(0)


def _root_above(square: Fraction) -> Fraction:
    """Return a number above the root of a positive number, by less than 2**-128 of it."""
    small = square.denominator.bit_length() - square.numerator.bit_length()
    places = 160 + max(0, small)
    return Fraction(math.isqrt(math.ceil(square * 4**places)) + 1, 2**places)
