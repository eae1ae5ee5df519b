"""Rows that are noised one by one, then shuffled: what one costs, seen without its place."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import isqrt

from mechanisms.bounds import exp_bounds, log_bounds, round_up_dyadic

LOCAL_MAX = Fraction(24)
_BITS = 20


@lru_cache(maxsize=1024)
def amplified(local: Fraction, rows: int, delta: Fraction) -> Fraction:
    """Return the epsilon at `delta` of `rows` outputs of `local`-DP randomizers in a random order.

    Guarantee: two inputs differ in one row. By theorem 3.1 of Feldman, McMillan and Talwar 2021
    ("Hiding among the clones"), where local <= ln(n / (16 ln(2/delta))), it is at most
    ln(1 + (e - 1)/(e + 1) (8 sqrt(e ln(4/delta) / n) + 8 e / n)), e = exp(local); every step is
    rounded up. Elsewhere, and where that is more, it is `local` itself.
    """
    check(local, rows, delta)
    if not local <= log_bounds(rows / (16 * log_bounds(2 / delta, 160)[1]), 160)[0]:
        return local
    e = round_up_dyadic(exp_bounds(local, 160)[1], 160)
    root = _root_above(e * log_bounds(4 / delta, 160)[1] / rows)
    bound = (e - 1) / (e + 1) * (8 * root + 8 * e / rows)
    return min(local, round_up_dyadic(log_bounds(1 + bound, 160)[1], 96))


def local_for(epsilon: Fraction, rows: int, delta: Fraction) -> Fraction:
    """Return the largest local epsilon (of 20 binary places) whose shuffled rows cost epsilon."""
    low, high = int(epsilon * 2**_BITS), int(LOCAL_MAX * 2**_BITS)
    if not low >= 1:
        raise ValueError(f"epsilon must be at least 2**-{_BITS}, got {float(epsilon):g}")
    while high - low > 1:
        middle = (low + high) // 2
        fits = amplified(Fraction(middle, 2**_BITS), rows, delta) <= epsilon
        low, high = (middle, high) if fits else (low, middle)
    return Fraction(low, 2**_BITS)


def check(local: Fraction, rows: int, delta: Fraction) -> None:
    """Refuse what no shuffled release has."""
    if not (isinstance(local, Fraction) and 0 < local <= LOCAL_MAX):
        raise ValueError(f"the local epsilon must be a Fraction above 0 and up to {LOCAL_MAX}, "
                         f"got {local!r}")
    if not (type(rows) is int and rows >= 1):
        raise ValueError(f"the number of rows must be an integer >= 1, got {rows!r}")
    if not (isinstance(delta, Fraction) and 0 < delta < 1):
        raise ValueError(f"delta must lie strictly between 0 and 1, got {delta!r}")


def _root_above(x: Fraction) -> Fraction:
    return Fraction(isqrt((x.numerator << 256) // x.denominator) + 1, 2**128)
