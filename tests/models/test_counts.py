"""Counts: a log link that is bounded for one patient, and rates that are right."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from mechanisms.randomness import Randomness
from models.clipping import Clip
from models.descent import State, descend
from models.encoding import Encoding, rates
from models.family import family_of
from models.run import Settings, plan_run
from models.table import Table
from planner.refusal import Refused
from planner.training_view import Coding, Feature
from tests.models.patients import CLASSES, COUNT, NUMBER, TRUTH, encoding, table

WIDTH = 3


def test_a_count_is_scaled_by_its_bound_and_predicted_within_it() -> None:
    made = encoding(WIDTH, COUNT)
    assert made.target([0, 3, 20, 500, -4, math.nan]).tolist() == pytest.approx(
        [0, 0.3, 2, 2, 0, 0])
    assert made.unscaled(np.array([math.log(0.3), -1e9, 1e9, math.inf])).tolist() == pytest.approx(
        [3, 0, 20, 20])
    assert Encoding.from_dict(made.to_dict()) == made


@pytest.mark.parametrize("label", [
    TRUTH, CLASSES, NUMBER, Feature("change", Coding.NUMBER, False, -5.0, 5.0, whole=True),
    Feature("ill", Coding.NUMBER, False, 0.0, 1.0, whole=True),
], ids=lambda f: f"{f.name} {f.low:g}")
def test_what_is_no_count_is_refused(label: Feature) -> None:
    with pytest.raises(Refused, match="is no count"):
        Encoding(encoding(WIDTH).features, label).with_counts()


@pytest.mark.parametrize("name", ["linear", "mlp"])
@pytest.mark.parametrize("score", [-1e4, 0.0, 1e4, 1e30])
def test_no_score_moves_the_sum_further_than_one(name: str, score: float) -> None:
    """exp of a large score would be infinite: its gradient must stay, and stay bounded."""
    if name == "mlp":
        pytest.importorskip("tensorflow")
    network = family_of(name, encoding(WIDTH, COUNT), Settings()).network
    parameters = np.zeros(network.size)
    parameters[-1] = score
    patients = table([1, 2, 50], WIDTH, COUNT)
    for clip in (Clip(), Clip(0.5)):
        sums = [network.clipped_sum(parameters, patients, np.arange(n), clip) for n in (2, 3)]
        assert np.isfinite(sums[1]).all()
        assert 0 < np.linalg.norm(sums[1] - sums[0]) <= 1
    if score > 0:
        assert sums[1][-1] > 0, "a rate that is too large is learned down"


@pytest.mark.parametrize(("name", "settings"), [
    ("linear", {}), ("linear", {"importance": 0.2}), ("mlp", {})])
def test_rates_are_learned(name: str, settings: dict[str, Any]) -> None:
    """Patients whose rate is exp(0.4 + x0): nearer to it than the best that is the same for all."""
    if name == "mlp":
        pytest.importorskip("tensorflow")
    rng = np.random.default_rng(8)
    inputs = rng.uniform(-1, 1, (4000, WIDTH)).astype(np.float32)
    true = np.exp(0.4 + inputs[:, 0])
    made = encoding(WIDTH, COUNT)
    patients = Table(inputs, None, made.target(rng.poisson(true)), np.arange(4001))
    family = family_of(name, made, Settings(**settings))
    run = plan_run(name, made, Settings(holdout=0.0), family.defaults, family.network.size, 4000,
                   Fraction(3), Fraction(1, 10**5), Fraction(9))
    state = descend(family.network, patients, run, bytes(32),
                    State.start(family.network.initial(Randomness.seeded(1))))
    found = made.unscaled(family.network.scores(state.average, inputs, None)[:, 0])
    wrong, even = (math.sqrt(np.mean((x - true) ** 2)) for x in (found, true.mean()))
    assert wrong < 0.6 * even
    assert found.mean() == pytest.approx(true.mean(), rel=0.15)


def test_rates_are_finite_for_any_score() -> None:
    assert np.isfinite(rates(np.array([-np.inf, -1e300, 1e300, np.inf]))).all()
