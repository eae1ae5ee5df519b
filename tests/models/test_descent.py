"""The loop: who is in a batch, what is divided by, and how much noise there is."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binomtest, chi2

from mechanisms.randomness import Randomness
from models.descent import State, _sampled, descend, noised
from models.linear import LinearModel
from models.run import Defaults, RunPlan, Settings, plan_run
from models.table import Table, chosen
from planner.refusal import Refused
from tests.models.patients import encoding, table

FALSE_ALARM = 1e-6
KEY = bytes(range(32))
WIDTH = 6
NETWORK = LinearModel(encoding(WIDTH))


def run(steps: int = 5, batch: int | None = None, epsilon: int = 1, units: int = 1000) -> RunPlan:
    settings = Settings(steps=steps, batch=batch, holdout=0.0)
    defaults = Defaults(steps=1.0, learning_rate=0.1, decay=0.0)
    return plan_run("logistic", NETWORK.encoding, settings, defaults, NETWORK.size, units,
                    Fraction(epsilon), Fraction(1, 10**5), Fraction(9))


def start() -> State:
    return State.start(NETWORK.initial(Randomness.seeded(0)))


def scale_p_value(values: np.ndarray, sigma: float) -> float:
    statistic = float(((values / sigma) ** 2).sum())
    return 2 * min(chi2.cdf(statistic, len(values)), chi2.sf(statistic, len(values)))


@pytest.mark.parametrize("multiplier", [0.4, 3.0, 57.0])
def test_the_noise_has_its_scale_and_no_other(multiplier: float) -> None:
    drawn = noised(np.zeros(20_000), multiplier, Randomness.secure())
    assert scale_p_value(drawn, multiplier) > FALSE_ALARM
    for wrong in (0.7, 1.3):
        assert scale_p_value(drawn, wrong * multiplier) < FALSE_ALARM


def test_noise_lies_on_a_grid_with_the_sum() -> None:
    """Whatever the low bits of the sum, they do not show."""
    multiplier = 3.0
    step = 2.0 ** math.floor(math.log2(multiplier / 2.0**34))
    total = np.array([0.1, 1 / 3, math.pi, -1e-12, 1000.123456789])
    noisy = noised(total, multiplier, Randomness.secure())
    assert (noisy / step == np.rint(noisy / step)).all()


def test_a_sum_that_is_no_number_is_noise() -> None:
    noisy = noised(np.array([math.nan, math.inf, -math.inf]), 3.0, Randomness.secure())
    assert np.isfinite(noisy).all()


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
def test_patients_are_sampled_independently_at_the_rate(rate: float) -> None:
    randomness = Randomness.secure()
    units, repeats = 2000, 50
    taken = np.zeros((repeats, units), dtype=bool)
    for i in range(repeats):
        taken[i, _sampled(units, rate, randomness)] = True
    assert binomtest(int(taken.sum()), taken.size, rate).pvalue > FALSE_ALARM
    assert binomtest(int(taken.sum()), taken.size, min(1.0, rate * 1.5)).pvalue < FALSE_ALARM
    # Batches of a fixed size (shuffling) would have no spread at all.
    spread = taken.sum(axis=1).var(ddof=1) / (units * rate * (1 - rate)) * (repeats - 1)
    assert min(chi2.cdf(spread, repeats - 1), chi2.sf(spread, repeats - 1)) > FALSE_ALARM


def test_rate_one_takes_everybody() -> None:
    assert _sampled(7, 1.0, Randomness.secure()).tolist() == list(range(7))


def test_the_sum_is_divided_by_the_expected_batch() -> None:
    """Divided by the real one, a single patient and 64 copies of it would give one update."""
    plan = replace(run(steps=1), multiplier=1e-2)
    one = table([1], WIDTH)
    many = Table(np.repeat(one.inputs, 64, 0), None, np.repeat(one.targets, 64),
                 np.arange(65))
    first, second = (descend(NETWORK, t, plan, KEY, start()).first for t in (one, many))
    assert np.linalg.norm(second) > 30 * np.linalg.norm(first)


def test_a_batch_without_patients_is_noise() -> None:
    plan = run(steps=3)
    empty = Table(np.zeros((0, WIDTH), np.float32), None, np.zeros(0, np.float32), np.zeros(1, int))
    state = descend(NETWORK, empty, plan, KEY, start())
    assert np.isfinite(state.average).all()
    assert state.average.any()


def test_a_step_done_twice_is_the_same_step() -> None:
    plan = run(steps=6, batch=300)
    patients = table([2] * 1000, WIDTH)
    whole = descend(NETWORK, patients, plan, KEY, start())
    kept: list[State] = []

    def stop(state: State) -> None:
        kept.append(replace(state))
        if state.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        descend(NETWORK, patients, plan, KEY, start(), stop)
    again = descend(NETWORK, patients, plan, KEY, kept[2])
    assert np.array_equal(again.average, whole.average)
    other = descend(NETWORK, patients, plan, bytes(32), start())
    assert not np.array_equal(other.average, whole.average)


def test_it_learns() -> None:
    patients = table([1] * 1000, WIDTH, seed=5)
    patients.targets[:] = patients.inputs[:, 0] > 0
    state = descend(NETWORK, patients, run(steps=40, epsilon=3), KEY, start())
    scores = NETWORK.scores(state.average, patients.inputs)[:, 0]
    assert ((scores > 0) == patients.targets).mean() > 0.75


def test_the_price_is_within_epsilon_on_both_kinds_of_batch() -> None:
    for batch in (None, 100):
        plan = run(steps=20, batch=batch)
        assert 0.99 < plan.cost.epsilon <= 1.0
        assert plan.rate == (1.0 if batch is None else 0.1)


def test_held_out_patients_never_raise_the_price() -> None:
    settings = Settings(steps=20, holdout=0.25)
    plan = plan_run("logistic", NETWORK.encoding, settings,
                    Defaults(steps=1.0, learning_rate=0.1, decay=0.0), NETWORK.size, 1000,
                    Fraction(1), Fraction(1, 10**5), Fraction(9))
    alone = run(steps=20)
    assert plan.cost.exact_epsilon <= alone.cost.exact_epsilon
    assert plan.cost.exact_rdp <= alone.cost.exact_rdp
    assert len(plan.event.branches) == 2


@pytest.mark.parametrize("bad", [
    {"steps": 0}, {"steps": 2.5}, {"steps": True}, {"batch": 0}, {"holdout": 0.95},
    {"holdout": float("nan")}, {"clip": 0.0}, {"clip": float("nan")}, {"learning_rate": -1.0},
    {"decay": 1.0}, {"optimizer": "lion"}, {"optimizer": 1},
    {"hidden": (0,)}, {"hidden": [3]}, {"hidden": (1,) * 9}, {"steps": "7"},
])
def test_a_setting_out_of_range_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(Refused, match="cannot be"):
        Settings(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_both_optimizers_learn_at_one_price(optimizer: str) -> None:
    """What is done with a noised sum costs nothing, and is done with the noised sum alone."""
    patients = table([1] * 1000, WIDTH, seed=5)
    patients.targets[:] = patients.inputs[:, 0] > 0
    settings = Settings(steps=40, holdout=0.0, optimizer=optimizer)
    plan = plan_run("logistic", NETWORK.encoding, settings,
                    Defaults(steps=1.0, learning_rate=0.1, decay=0.0), NETWORK.size, 1000,
                    Fraction(3), Fraction(1, 10**5), Fraction(9))
    assert plan.optimizer == optimizer
    assert plan.cost == run(steps=40, epsilon=3).cost
    state = descend(NETWORK, patients, plan, KEY, start())
    scores = NETWORK.scores(state.average, patients.inputs)[:, 0]
    assert ((scores > 0) == patients.targets).mean() > 0.75


def test_momentum_is_the_default_where_importance_is_bought() -> None:
    defaults = Defaults(steps=1.0, learning_rate=0.1, decay=0.0)
    plans = [
        plan_run("logistic", NETWORK.encoding, Settings(steps=5, holdout=0.0, **given), defaults,
                 NETWORK.size, 1000, Fraction(1), Fraction(1, 10**5), Fraction(9))
        for given in ({}, {"importance": 0.2}, {"importance": 0.2, "optimizer": "adam"})
    ]
    assert [(p.optimizer, p.learning_rate) for p in plans] == [
        ("adam", 0.1), ("sgd", defaults.sgd_rate), ("adam", 0.1)]


def test_a_choice_of_patients_keeps_their_rows() -> None:
    patients = table([3, 1, 2, 5], WIDTH)
    part = chosen(patients, np.array([3, 1]))
    assert part.starts.tolist() == [0, 5, 6]
    assert np.array_equal(part.inputs[:5], patients.inputs[6:])
    assert np.array_equal(part.targets[5:], patients.targets[3:4])
