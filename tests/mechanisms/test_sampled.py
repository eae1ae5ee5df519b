"""Prices of training runs: against dp_accounting, against closed forms, and never below either."""

from __future__ import annotations

import math
from fractions import Fraction

import dp_accounting
import pytest
from scipy.stats import norm

from mechanisms.event import Phase, SampledGaussianEvent
from mechanisms.pricing import price
from mechanisms.sampled import epsilon_for, multiplier_for, rdp

DELTA = Fraction(1, 10**5)
RUNS: list[tuple[Phase, ...]] = [
    ((1.0, 20.0, 30),),
    ((0.0256, 2.09, 390),),
    ((0.1, 1.675, 100),),
    ((0.009, 0.79, 1000),),
    ((0.035, 2.5, 300), (1.0, 30.0, 1)),
]


def reference(phases: tuple[Phase, ...], order: float) -> float:
    accountant = dp_accounting.rdp.RdpAccountant(orders=[order])
    for rate, multiplier, steps in phases:
        event = dp_accounting.GaussianDpEvent(multiplier)
        if rate < 1:
            event = dp_accounting.PoissonSampledDpEvent(rate, event)
        accountant.compose(event, steps)
    return float(accountant._rdp[0])


@pytest.mark.parametrize("phases", RUNS, ids=str)
@pytest.mark.parametrize("order", [2, 4, 9, 22])
def test_divergence_is_that_of_dp_accounting(phases: tuple[Phase, ...], order: int) -> None:
    assert float(rdp(phases, Fraction(order))) == pytest.approx(reference(phases, order), rel=1e-6)


@pytest.mark.parametrize("phases", RUNS, ids=str)
@pytest.mark.parametrize("order", [Fraction(3, 2), Fraction(5, 2), Fraction(25, 2)])
def test_between_whole_orders_it_is_never_below(phases: tuple[Phase, ...], order: Fraction) -> None:
    exact = reference(phases, float(order))
    assert exact * (1 - 1e-9) <= float(rdp(phases, order)) <= exact * (2.1 if order < 2 else 1.2)


def test_a_full_batch_has_the_exact_curve_of_one_gaussian() -> None:
    """delta(epsilon) of a Gaussian of multiplier z / sqrt(T) (Balle and Wang 2018, theorem 8)."""
    multiplier, steps = 20.0, 30
    mu = math.sqrt(steps) / multiplier
    epsilon = float(epsilon_for(((1.0, multiplier, steps),), DELTA))
    delta = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
    assert 0.98 * float(DELTA) < delta <= float(DELTA)


@pytest.mark.parametrize("phases", RUNS, ids=str)
def test_epsilon_is_close_to_a_much_finer_distribution(phases: tuple[Phase, ...]) -> None:
    accountant = dp_accounting.pld.PLDAccountant(value_discretization_interval=5e-5)
    for rate, multiplier, steps in phases:
        event = dp_accounting.GaussianDpEvent(multiplier)
        accountant.compose(
            dp_accounting.PoissonSampledDpEvent(rate, event) if rate < 1 else event, steps
        )
    exact = accountant.get_epsilon(float(DELTA))
    assert exact <= float(epsilon_for(phases, DELTA)) <= exact * 1.005


def test_it_is_below_what_renyi_orders_give() -> None:
    from mechanisms.conversion import epsilon_at

    phases = RUNS[1]
    by_orders = min(epsilon_at(Fraction(a), rdp(phases, Fraction(a)), DELTA) for a in range(2, 60))
    assert epsilon_for(phases, DELTA) < by_orders


@pytest.mark.parametrize("epsilon", [Fraction(3, 10), Fraction(1), Fraction(3)])
@pytest.mark.parametrize(("rate", "steps"), [(1.0, 20), (0.05, 200)])
def test_the_multiplier_found_is_within_epsilon_and_hardly_above(
    rate: float, steps: int, epsilon: Fraction
) -> None:
    z = multiplier_for(lambda m: ((rate, m, steps),), epsilon, DELTA)
    assert epsilon_for(((rate, z, steps),), DELTA) <= epsilon
    assert epsilon_for(((rate, z * 0.99, steps),), DELTA) > epsilon


def test_of_two_branches_the_dearer_is_paid() -> None:
    training: tuple[Phase, ...] = ((0.05, 1.5, 100),)
    held: tuple[Phase, ...] = ((1.0, 3.0, 1),)
    both = price(SampledGaussianEvent((training, held), DELTA), Fraction(9))
    alone = [price(SampledGaussianEvent((b,), DELTA), Fraction(9)) for b in (training, held)]
    assert both.epsilon == max(p.epsilon for p in alone)
    assert both.rdp == max(p.rdp for p in alone)


def test_a_branch_hidden_by_a_coin_costs_no_more_than_the_dearer() -> None:
    """The mixture itself, in one dimension: hockey-stick divergence of a half-and-half coin."""
    import numpy as np

    x = np.linspace(-60, 60, 4001)
    a, b = np.meshgrid(norm.pdf(x, 0, 2.0), norm.pdf(x, 0, 3.0), indexing="ij")
    without = a * b
    first, second = norm.pdf(x, 1, 2.0)[:, None] * b, a * norm.pdf(x, 1, 3.0)[None, :]
    mixed = (first + second) / 2
    for epsilon in (0.1, 0.5, 1.0):
        def stick(p: np.ndarray, q: np.ndarray) -> float:
            return float(np.maximum(p - math.exp(epsilon) * q, 0).sum())  # noqa: B023

        assert stick(mixed, without) <= max(stick(first, without), stick(second, without)) + 1e-12
        assert stick(without, mixed) <= max(stick(without, first), stick(without, second)) + 1e-12


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0, 1.5])
def test_no_rate_or_multiplier_that_is_none(bad: float) -> None:
    for phase in ((bad, 1.0, 1), (0.5, bad if bad != 1.5 else math.nan, 1)):
        with pytest.raises(ValueError, match="branches must"):
            SampledGaussianEvent(((phase,),), DELTA)
