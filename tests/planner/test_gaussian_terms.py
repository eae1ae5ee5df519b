"""Gaussian noise as the planner scales it: never dearer than asked, whatever is chosen later."""

from __future__ import annotations

from fractions import Fraction

import pytest

from mechanisms import curve, gaussian
from mechanisms.event import GaussianEvent
from mechanisms.pricing import loss_of, price
from planner.price import Mechanism, Terms, _any_part, _sigma

ORDER = Fraction(9)
each_budget = pytest.mark.parametrize(
    ("epsilon", "delta"),
    [(Fraction(e), Fraction(d)) for e in ("1/1000", "1/2", "1", "8") for d in ("1e-5", "1e-9")],
)
each_bound = pytest.mark.parametrize("curved", [True, False], ids=["curve", "rho"])


def terms(epsilon: Fraction, delta: Fraction, columns: int, curved: bool) -> Terms:
    return Terms(epsilon, columns, delta, Fraction(0), Mechanism.GAUSSIAN, curved)


@each_budget
@each_bound
def test_columns_together_cost_what_was_asked(
    epsilon: Fraction, delta: Fraction, curved: bool
) -> None:
    weights = (Fraction(1, 2), Fraction(5, 4), Fraction(5, 4))
    budget = terms(epsilon, delta, len(weights), curved)
    parts = tuple(
        (l2, _sigma(l2, budget, w)) for l2, w in zip((1, 100, 3 * 2**50), weights, strict=True)
    )
    loss = loss_of((GaussianEvent(parts, delta),), ORDER)
    assert Fraction(loss.exact_epsilon) <= epsilon
    assert Fraction(loss.exact_rdp) <= ORDER / 2 / Fraction(
        curve.multiplier_for(epsilon, delta)
    ) ** 2 + Fraction(1, 10**12)


@each_budget
@each_bound
@pytest.mark.parametrize("l2_squared", [1, 2, 100, 2**40 + 1, 2**50])
def test_what_is_charged_before_the_bounds_are_chosen_covers_them_all(
    epsilon: Fraction, delta: Fraction, curved: bool, l2_squared: int
) -> None:
    """A part that stands for one grid may be too cheap for another: the smoothing differs."""
    budget = terms(epsilon, delta, 2, curved)
    charged = price(GaussianEvent((_any_part(budget, Fraction(1)),) * 2, delta), ORDER)
    chosen = ((l2_squared, _sigma(l2_squared, budget, Fraction(1))),) * 2
    found = price(GaussianEvent(chosen, delta), ORDER)
    assert found.rdp <= charged.rdp
    assert found.epsilon <= charged.epsilon + Fraction(1, 2**80)
    assert charged.epsilon <= epsilon


def test_the_curve_needs_less_noise_than_rho() -> None:
    """A hundred counts a patient, epsilon 1, delta 1e-5: 3.79 times less than Laplace's."""
    epsilon, delta = Fraction(1), Fraction(1, 10**5)
    both = [terms(epsilon, delta, 1, curved) for curved in (True, False)]
    sigmas = [_sigma(100, budget, Fraction(1)) for budget in both]
    laplace = 100 * 2**0.5
    assert [round(laplace / s, 3) for s in sigmas] == [3.785, 3.496]
    assert gaussian.deviation(sigmas[0]) == sigmas[0]
