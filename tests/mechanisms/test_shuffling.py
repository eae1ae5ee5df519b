"""Randomized response and shuffled rows: exact chances, and true losses below the stated ones."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from mechanisms.randomized_response import kept_chance, respond, uniform
from mechanisms.randomness import Randomness
from mechanisms.shuffling import amplified, local_for

DELTA = Fraction(1, 10**6)
FALSE_ALARM = 1e-6


@pytest.mark.parametrize("categories", [2, 3, 7])
@pytest.mark.parametrize("epsilon", [Fraction(1, 2), Fraction(3)])
def test_answers_have_the_chances_of_randomized_response(
    categories: int, epsilon: Fraction
) -> None:
    size, value = 60_000, categories - 1
    e = math.exp(epsilon)
    expected = np.full(categories, size / (e + categories - 1))
    expected[value] *= e

    def p_value(stated: Fraction) -> float:
        drawn = respond(np.full(size, value), categories, stated, Randomness.seeded(3))
        return float(stats.chisquare(np.bincount(drawn, minlength=categories), expected).pvalue)

    assert p_value(epsilon) > FALSE_ALARM
    for wrong in (Fraction(7, 10), Fraction(13, 10)):
        assert p_value(epsilon * wrong) < FALSE_ALARM
    assert kept_chance(categories, epsilon) == pytest.approx(e / (e + categories - 1))


def test_uniform_draws_are_uniform() -> None:
    drawn = uniform(7, 70_000, Randomness.seeded(1))
    assert stats.chisquare(np.bincount(drawn, minlength=7)).pvalue > FALSE_ALARM


def test_one_category_has_one_answer_and_no_other_value_passes() -> None:
    source = Randomness.seeded(1)
    assert respond(np.zeros(4, dtype=np.int64), 1, Fraction(1), source).tolist() == [0] * 4
    for wrong in (-1, 2):
        with pytest.raises(ValueError, match="no category"):
            respond(np.array([wrong]), 2, Fraction(1), source)


def true_delta(local: float, rows: int, epsilon: float) -> float:
    """The delta of `rows` shuffled answers of two categories, when one row changes: by counting.

    All others hold 0; shuffled, only the number of ones is seen.
    """
    flip = 1 / (1 + math.exp(local))
    others = stats.binom.pmf(np.arange(rows), rows - 1, flip)
    zero = np.append(others, 0) * (1 - flip) + np.insert(others, 0, 0) * flip
    one = np.append(others, 0) * flip + np.insert(others, 0, 0) * (1 - flip)
    return max(float(np.maximum(p - math.exp(epsilon) * q, 0).sum())
               for p, q in ((zero, one), (one, zero)))


@pytest.mark.parametrize("rows", [1_000, 10_000, 100_000])
@pytest.mark.parametrize("local", [Fraction(1, 2), Fraction(1), Fraction(2), Fraction(3)])
def test_the_true_loss_of_shuffled_answers_is_below_the_bound(rows: int, local: Fraction) -> None:
    epsilon = amplified(local, rows, DELTA)
    assert epsilon <= local
    assert true_delta(float(local), rows, float(epsilon)) <= float(DELTA)
    if epsilon < local:  # and the bound is within a few times what it bounds
        assert true_delta(float(local), rows, float(epsilon) / 8) > float(DELTA)


def test_where_the_theorem_does_not_hold_nothing_is_gained() -> None:
    assert amplified(Fraction(1), 20, DELTA) == 1
    assert amplified(Fraction(9), 10_000, DELTA) == 9


@pytest.mark.parametrize("rows", [50, 2_000, 10_000, 70_000])
@pytest.mark.parametrize("epsilon", [Fraction(1, 10), Fraction(1), Fraction(4)])
def test_the_local_epsilon_is_the_largest_of_that_price(rows: int, epsilon: Fraction) -> None:
    local = local_for(epsilon, rows, DELTA)
    assert amplified(local, rows, DELTA) <= epsilon <= local + Fraction(1, 2**19)
    assert amplified(local + Fraction(1, 2**18), rows, DELTA) > epsilon
