"""The best of a random number of runs: its law, its price against a reference, its loss exactly."""

from __future__ import annotations

import math
from fractions import Fraction

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import rdp_privacy_accountant

from mechanisms.event import RepeatedEvent
from mechanisms.pricing import price
from mechanisms.randomness import Randomness
from mechanisms.repetition import LAWS, ORDERS, Repetitions, epsilon_for, rdp
from mechanisms.sampled import rdp as rdp_of
from tests.mechanisms.chi_square import FALSE_ALARM, p_value

DELTA = Fraction(1, 10**5)
# Full batches of 60 steps at epsilon 1 and 3, with the noise of the published comparison.
SINGLE = {1: 28.9 / math.sqrt(60), 3: 10.8 / math.sqrt(60)}


def event(multiplier: float, mean: float, name: str = "logarithmic") -> RepeatedEvent:
    law = Repetitions.of_mean(name, mean)
    return RepeatedEvent((((1.0, multiplier, 1),),), ((1.0, 100.0, 1),), name, law.gamma, DELTA)


@pytest.mark.parametrize(("single", "mean", "published"), [(1, 10, 1.91), (1, 30, 2.10),
                                                           (3, 10, 5.26)])
def test_published_prices_are_those_of_the_logarithmic_law(
    single: int, mean: float, published: float
) -> None:
    found = float(price(event(SINGLE[single], mean), Fraction(22)).epsilon)
    assert found == pytest.approx(published, rel=4e-3)


@pytest.mark.parametrize("name", ["logarithmic", "geometric"])
@pytest.mark.parametrize("phase", [(1.0, 3.7, 1), (0.03125, 1.0, 300)])
@pytest.mark.parametrize("mean", [2.0, 10.0, 30.0])
def test_divergences_agree_with_the_reference(
    name: str, phase: tuple[float, float, int], mean: float
) -> None:
    rate, multiplier, steps = phase
    orders = [float(a) for a in ORDERS if a <= 128]
    accountant = rdp_privacy_accountant.RdpAccountant(orders)
    step = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(multiplier))
    accountant.compose(dp_accounting.dp_event.RepeatAndSelectDpEvent(
        dp_accounting.SelfComposedDpEvent(step, steps), mean, LAWS[name]))
    law = Repetitions.of_mean(name, mean)
    for order in (4, 10, 22):
        ours = float(rdp(lambda a: rdp_of((phase,), a), law, Fraction(order)))
        reference = min(x for a, x in zip(orders, accountant.rdp, strict=True) if a >= order)
        assert reference * (1 - 1e-6) <= ours  # between whole orders we take a chord
        assert ours == pytest.approx(reference, rel=2e-2)


@pytest.mark.parametrize("name", ["logarithmic", "geometric"])
def test_more_runs_never_cost_less_and_always_more_than_one(name: str) -> None:
    single = float(price(event(SINGLE[1], 1.01, name), Fraction(9)).epsilon)
    found = [price(event(SINGLE[1], mean, name), Fraction(9)) for mean in (1.01, 2, 5, 10, 30, 100)]
    assert [p.epsilon for p in found] == sorted(p.epsilon for p in found)
    assert [p.rdp for p in found] == sorted(p.rdp for p in found)
    assert all(float(p.epsilon) >= single > 1.09 for p in found)


@pytest.mark.parametrize("name", ["logarithmic", "geometric"])
def test_the_number_of_runs_has_its_law(name: str) -> None:
    law = Repetitions.of_mean(name, 4.0)
    gamma, source = float(law.gamma), Randomness.seeded(5)
    k = np.arange(1, 400)
    weights = gamma * (1 - gamma) ** (k - 1)
    if not law.eta:
        weights = (1 - gamma) ** k / (k * -math.log(gamma))

    def below(at: int) -> float:
        return float(weights[k < at].sum())

    def drawn(from_law: Repetitions) -> np.ndarray:
        return np.array([from_law.sample(source) for _ in range(4_000)])

    assert p_value(drawn(law), below, 4.0) > FALSE_ALARM
    assert math.exp(law.log_mean) == pytest.approx(4.0, rel=1e-6)
    for wrong in (0.7, 1.3):
        assert p_value(drawn(Repetitions.of_mean(name, 4.0 * wrong)), below, 4.0) < FALSE_ALARM


def best_of(outputs: np.ndarray, law: Repetitions) -> np.ndarray:
    """Return the exact law of the best of K draws, of outputs in increasing order."""
    below = np.concatenate(([0.0], np.cumsum(outputs)))
    gamma = float(law.gamma)
    rest = 1 - (1 - gamma) * below
    reached = gamma * below / rest if law.eta else -np.log(rest) / -math.log(gamma)
    return np.diff(reached)


@pytest.mark.parametrize("name", ["logarithmic", "geometric"])
@pytest.mark.parametrize("epsilon", [0.2, 1.0])
def test_the_true_loss_of_randomized_response_is_below_the_bound(name: str, epsilon: float) -> None:
    """Everything is computed: one run says 0 or 1, the best of K says 1 if any does."""
    law = Repetitions.of_mean(name, 10.0)
    odds = 1 / (1 + math.exp(epsilon))
    yes, no = np.array([odds, 1 - odds]), np.array([1 - odds, odds])

    def curve(a: Fraction) -> Fraction:
        order = float(a)
        terms = yes**order * no ** (1 - order)
        return Fraction(math.log(float(terms.sum())) / (order - 1) + 1e-12)

    worst = 0.0
    for order in (2.0, 10.0, 22.0):
        bound = float(rdp(curve, law, Fraction(order)))
        for p, q in ((yes, no), (no, yes)):
            one, two = best_of(p, law), best_of(q, law)
            true = math.log(float((one**order * two ** (1 - order)).sum())) / (order - 1)
            assert true <= bound
            worst = max(worst, true / float(curve(Fraction(order))))
    assert worst > 1.2  # charging a single run, the planted bug, is caught here


def test_a_known_number_of_runs_is_not_covered() -> None:
    """With K beside the answer the loss has no bound: why neither K nor its traces are shown."""
    law = Repetitions.of_mean("geometric", 10.0)
    odds = 1 / (1 + math.e)
    bound = float(epsilon_for(lambda a: min(Fraction(1), a / 2), law, DELTA))
    runs = 60
    none_said_yes = runs * (math.log(1 - odds) - math.log(odds))
    assert none_said_yes > 10 * bound


@pytest.mark.parametrize(("name", "mean"), [
    ("logarithmic", 1.0), ("logarithmic", 101), ("geometric", math.nan), ("poisson", 10),
    ("logarithmic", 0),
])
def test_what_is_no_law_is_refused(name: str, mean: float) -> None:
    with pytest.raises(ValueError, match="must"):
        Repetitions.of_mean(name, mean)
