"""Exponential, logarithm and normal tail: exact rationals in, certified rational bounds out."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

# Everything here is integer arithmetic: no float, no libm, no library state, so the results are
# the same on every machine and in every thread, and each error bound can be checked by hand.
BITS = 128
_GUARD = 40
_LARGEST_EXPONENT = 2**16
# 100 decimals of pi, last one rounded up.
_PI_ABOVE = Fraction(
    31415926535897932384626433832795028841971693993751058209749445923078164062862089986280348253421170680,
    10**100,
)


def exp_bounds(x: Fraction, bits: int = BITS) -> tuple[Fraction, Fraction]:
    """Return `(low, high)` with `low <= exp(x) <= high` and `high/low - 1 < 2**-bits`.

    Guarantee: with x = n ln 2 + r and 0 <= r < ln 2 in fixed point of `work` bits, the Taylor
    sum of r has at most `work` terms, each off by less than 8 units (an error of one unit
    enters a term and is multiplied by r/i < 1), the dropped tail is below 8 units, and r itself
    is off by at most 1 + (|n| + 1) * err(ln 2) units, which exp at most doubles.
    """
    if not abs(x) <= _LARGEST_EXPONENT:
        raise ValueError(f"exponent {float(x)!r} is out of range: |x| must be at most 2**16")
    work = bits + _GUARD + int(abs(x)).bit_length()
    fixed = (x.numerator << work) // x.denominator
    ln2 = _ln2(work)
    n, rest = divmod(fixed, ln2)
    total, term, i = 0, 1 << work, 1
    while term:
        total += term
        term = (term * rest >> work) // i
        i += 1
    slack = 8 * work + 8 + 2 * (1 + (abs(n) + 1) * _series_error(work))
    return _dyadic(total - slack, work - n), _dyadic(total + slack, work - n)


def log_bounds(x: Fraction, bits: int = BITS) -> tuple[Fraction, Fraction]:
    """Return `(low, high)` with `low <= ln(x) <= high` and `high - low < 2**-bits`.

    Guarantee: x = m 2**shift with 1/2 < m < 2 and ln m = 2 atanh((m - 1)/(m + 1)), whose
    argument lies within 1/3; see `_atanh2` for the error of the series.
    """
    if not x > 0:
        raise ValueError(f"only a positive number has a logarithm, got {float(x)!r}")
    num, den = x.numerator, x.denominator
    shift = num.bit_length() - den.bit_length()
    work = bits + _GUARD + abs(shift).bit_length()
    if shift >= 0:
        den <<= shift
    else:
        num <<= -shift
    total = _atanh2(num - den, num + den, work) + shift * _ln2(work)
    slack = (abs(shift) + 1) * _series_error(work)
    return _dyadic(total - slack, work), _dyadic(total + slack, work)


def normal_tail_above(x: Fraction) -> Fraction:
    """Return an upper bound of P(N(0, 1) >= x), for 0 <= x <= 40, off by less than 2**-240.

    Guarantee: P = 1/2 - phi(x) (x + x^3/3 + x^5/15 + ...); the series has positive terms only,
    so stopping early, rounding every term down and using a lower bound of phi all raise P.
    """
    if not 0 <= x <= 40:
        raise ValueError(f"the normal tail is computed for 0 <= x <= 40, got {float(x)!r}")
    # The sum reaches exp(x^2/2): that many bits are lost again in the subtraction.
    work = 320 + int(x * x)
    square = (x * x).numerator * (1 << work) // (x * x).denominator
    term, total, i = (x.numerator << work) // x.denominator, 0, 1
    while term:
        total += term
        i += 2
        term = (term * square >> work) // i
    phi = exp_bounds(-x * x / 2, work)[0] * _sqrt_below(1 / (2 * _PI_ABOVE), work)
    return Fraction(1, 2) - phi * _dyadic(total, work)


def round_up_dyadic(x: Fraction, bits: int = 96) -> Fraction:
    """Return the smallest multiple of 2**-bits that is not below `x` (keeps numbers short)."""
    return Fraction(-((-x.numerator << bits) // x.denominator), 1 << bits)


def round_down_dyadic(x: Fraction, bits: int = 96) -> Fraction:
    """Return the largest multiple of 2**-bits that is not above `x`."""
    return Fraction((x.numerator << bits) // x.denominator, 1 << bits)


def float_above(x: Fraction) -> float:
    """Return the smallest float64 whose exact value is not below `x`; x must be positive."""
    try:
        nearest = x.numerator / x.denominator
    except OverflowError:
        nearest = math.inf
    if not 0 < nearest < math.inf:
        raise ValueError("the number is outside the range of float64")
    return nearest if Fraction(nearest) >= x else math.nextafter(nearest, math.inf)


def _atanh2(num: int, den: int, work: int) -> int:
    """Return 2**work * 2 atanh(num/den) for |num/den| <= 1/3, off by at most `_series_error`.

    The argument is off by one unit, each of at most work/3 + 1 terms by at most three (the
    recurrence shrinks old errors ninefold and adds two, the division by n adds one), and the
    dropped tail is below four: 2 * (1.125 + 3 * (work/3 + 1) + 4) < 2 * work + 20.
    """
    argument = (abs(num) << work) // den
    square = argument * argument >> work
    term, total, n = argument, 0, 1
    while term:
        total += term // n
        term = term * square >> work
        n += 2
    return 2 * total if num >= 0 else -2 * total


def _series_error(work: int) -> int:
    return 2 * work + 20


@lru_cache(maxsize=256)
def _ln2(work: int) -> int:
    """Return 2**work * ln 2, off by at most `_series_error(work)`: ln 2 = 2 atanh(1/3)."""
    return _atanh2(1, 3, work)


def _sqrt_below(x: Fraction, work: int) -> Fraction:
    return _dyadic(math.isqrt((x.numerator << 2 * work) // x.denominator), work)


def _dyadic(units: int, places: int) -> Fraction:
    """Return units * 2**-places."""
    return Fraction(units << -places) if places < 0 else Fraction(units, 1 << places)
