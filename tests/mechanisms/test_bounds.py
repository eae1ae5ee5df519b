"""Certified bounds enclose what mpmath computes at 500 bits, and are tight."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechanisms import bounds

exact = mpmath.mp.clone()
exact.prec = 500


def number(x: Fraction) -> mpmath.mpf:
    return exact.mpf(x.numerator) / x.denominator


def encloses(low: Fraction, high: Fraction, truth: mpmath.mpf) -> bool:
    return bool(number(low) <= truth <= number(high))


fractions = st.fractions(min_value=-3000, max_value=3000, max_denominator=10**30)
positive = st.fractions(min_value=0, max_value=10**40).filter(lambda x: x > 0)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(fractions, st.sampled_from([32, 64, 128, 256]))
def test_exp(x: Fraction, bits: int) -> None:
    low, high = bounds.exp_bounds(x, bits)
    assert encloses(low, high, exact.exp(number(x)))
    assert 0 < low <= high < low * (1 + Fraction(1, 2**bits))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(positive, st.sampled_from([32, 64, 128, 256]))
def test_log(x: Fraction, bits: int) -> None:
    low, high = bounds.log_bounds(x, bits)
    assert encloses(low, high, exact.log(number(x)))
    assert high - low < Fraction(1, 2**bits)


@pytest.mark.parametrize("x", [Fraction(0), Fraction(1), Fraction(-1), Fraction(2**14)])
def test_exp_at_special_points(x: Fraction) -> None:
    assert encloses(*bounds.exp_bounds(x), exact.exp(number(x)))


@pytest.mark.parametrize("power", [-(10**5), -1000, -1, 0, 1, 1000, 10**5])
@pytest.mark.parametrize("nudge", [Fraction(0), Fraction(1, 10**40), Fraction(-1, 10**40)])
def test_log_at_powers_of_two_and_beside_them(power: int, nudge: Fraction) -> None:
    x = Fraction(2) ** power * (1 + nudge)
    assert encloses(*bounds.log_bounds(x), exact.log(number(x)))


@pytest.mark.parametrize("x", [0, "1/1000", "1/2", 1, 3, "13/2", 12, 25, 40])
def test_normal_tail(x: int | str) -> None:
    value = Fraction(x)
    above = number(bounds.normal_tail_above(value))
    truth = exact.erfc(number(value) / exact.sqrt(2)) / 2
    assert truth <= above < truth + exact.mpf(2) ** -240


def test_pi_is_rounded_up() -> None:
    assert 0 < number(bounds._PI_ABOVE) - exact.pi < exact.mpf(10) ** -99


@pytest.mark.parametrize("x", [Fraction(1, 3), Fraction(1, 10), Fraction(2**60 + 1), Fraction(1)])
def test_float_above_is_the_next_float(x: Fraction) -> None:
    found = bounds.float_above(x)
    assert Fraction(math.nextafter(found, 0)) < x <= Fraction(found)


@pytest.mark.parametrize(
    "x", [Fraction(0), Fraction(-1), Fraction(10) ** 400, Fraction(1, 10**400)]
)
def test_float_above_refuses_what_no_float_holds(x: Fraction | int) -> None:
    with pytest.raises(ValueError, match="range of float64"):
        bounds.float_above(Fraction(x))


@pytest.mark.parametrize("x", [Fraction(1, 3), Fraction(-1, 3), Fraction(5)])
def test_dyadic_rounding_brackets(x: Fraction) -> None:
    low, high = bounds.round_down_dyadic(x, 20), bounds.round_up_dyadic(x, 20)
    assert low <= x <= high <= low + Fraction(1, 2**20)


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="out of range"):
        bounds.exp_bounds(Fraction(2**16 + 1))
    for x in (Fraction(0), Fraction(-1)):
        with pytest.raises(ValueError, match="positive"):
            bounds.log_bounds(x)
    for x in (Fraction(-1), Fraction(41)):
        with pytest.raises(ValueError, match="normal tail"):
            bounds.normal_tail_above(x)
