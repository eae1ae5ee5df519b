"""A loss adds exactly, rounds up once, and is refused where it is no loss."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechanisms.loss import PrivacyLoss, round_down, round_up

small = st.fractions(min_value=0, max_value=10, max_denominator=10**40)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(small, st.sampled_from([0, 12, 24]))
def test_rounding_brackets(value: Fraction, places: int) -> None:
    low, high = round_down(value, places), round_up(value, places)
    assert Fraction(low) <= value <= Fraction(high) < value + Fraction(1, 10**places)
    assert Fraction(high) - Fraction(low) in (0, Fraction(1, 10**places))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(small, small, small)
def test_a_loss_is_never_below_what_it_stands_for(
    epsilon: Fraction, floor: Fraction, quoted: Fraction
) -> None:
    loss = PrivacyLoss.of(epsilon, floor + quoted, epsilon, quoted)
    assert Fraction(loss.exact_epsilon) >= epsilon
    assert Fraction(loss.exact_delta) >= floor + quoted
    assert Fraction(loss.exact_rdp) >= epsilon
    assert Fraction(loss.exact_floor_delta) >= floor


def test_tenths_add_up_to_one() -> None:
    tenth = PrivacyLoss.of(Fraction(1, 10), Fraction(0), Fraction(1, 100))
    assert PrivacyLoss.total([tenth] * 10).exact_epsilon == 1


def test_addition_keeps_the_parts_of_delta_apart() -> None:
    one = PrivacyLoss.of(Fraction(1), Fraction("3e-9"), Fraction(1), Fraction("1e-9"))
    both = one + one
    assert (both.exact_delta, both.exact_quoted_delta) == (Decimal("6e-9"), Decimal("2e-9"))
    assert both.exact_floor_delta == Decimal("4e-9")
    assert one + PrivacyLoss.zero() == one


def test_without_a_quoted_part_rail_b_pays_all_of_delta() -> None:
    assert PrivacyLoss(Decimal(1), Decimal("1e-9"), Decimal(1)).exact_floor_delta == Decimal("1e-9")


@pytest.mark.parametrize("field", range(4))
@pytest.mark.parametrize("bad", [Decimal("NaN"), Decimal("Infinity"), Decimal("-1e-9"), 1.0, None])
def test_only_finite_decimals_of_at_least_zero(field: int, bad: object) -> None:
    values: list[object] = [Decimal(1)] * 4
    values[field] = bad
    with pytest.raises(ValueError, match="finite decimal >= 0"):
        PrivacyLoss(*values)  # type: ignore[arg-type]


def test_quoted_delta_is_a_part_of_delta() -> None:
    with pytest.raises(ValueError, match="part of delta"):
        PrivacyLoss(Decimal(1), Decimal("1e-9"), Decimal(1), Decimal("2e-9"))


def test_a_negative_loss_would_give_budget_back() -> None:
    with pytest.raises(ValueError, match="negative"):
        PrivacyLoss.of(Fraction(-1), Fraction(0), Fraction(0))


def test_reads_well() -> None:
    loss = PrivacyLoss.of(Fraction(1, 2), Fraction(1, 10**9), Fraction(1, 4))
    assert str(loss) == "epsilon 0.5, delta 1e-09, rdp 0.25"
