"""Importance: bought, bounded for one patient, and right about what tells something."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from mechanisms import gaussian
from mechanisms.randomness import Randomness
from models.encoding import Encoding
from models.importance import importance, scaled, table_shapes, with_scales
from models.run import Defaults, Settings, plan_run
from models.table import Table
from planner.training_view import Coding, Feature
from tests.models.patients import CLASSES, NUMBER, TRUTH, encoding, table

WIDTH = 8


def telling(units: int) -> Table:
    """Return patients whose first number decides the label."""
    patients = table([1] * units, WIDTH, seed=4)
    patients.targets[:] = patients.inputs[:, 0] > 0.2
    return patients


WAYS = pytest.mark.parametrize("by", ["means", "information"])


@WAYS
def test_it_finds_the_feature_that_tells(by: str) -> None:
    factors = importance(encoding(WIDTH), telling(4000), 5.0, Randomness.secure(), by)
    assert factors.argmax() == 0
    assert factors[0] > 2 * factors[1:].max()
    assert math.isclose(float(np.mean(factors**2)), 1.0)
    assert factors.min() > 0, "no feature is dropped"


@WAYS
def test_drowned_in_noise_all_features_are_alike(by: str) -> None:
    first = []
    for _ in range(12):
        factors = importance(encoding(WIDTH), telling(100), 1e5, Randomness.secure(), by)
        assert factors.max() < 12 * factors.min()
        first.append(int(factors.argmax()))
    assert set(first) != {0}


def test_one_patient_moves_the_tables_by_the_root_of_their_number(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is noised, with and without a patient of 5,000 rows, NaN among them."""
    mixed = Encoding((*encoding(3).features, Feature("ward", Coding.CHOICE, True,
                                                     values=("a", "b", "c"))), TRUTH)
    drawn: list[float] = []

    def silent(sigma: float, size: int, _: Randomness) -> np.ndarray:
        drawn.append(sigma)
        return np.zeros(size, dtype=np.int64)

    seen: list[np.ndarray] = []
    monkeypatch.setattr(gaussian, "sample", silent)
    monkeypatch.setattr("models.importance.information_gain",
                        lambda cells, *_: seen.append(cells) or 0.0)
    patients = table([1, 2, 5000], mixed.width)
    patients.inputs[3:] = np.nan
    for units in (2, 3):
        part = Table(patients.inputs[: patients.starts[units]], None,
                     patients.targets[: patients.starts[units]], patients.starts[: units + 1])
        importance(mixed, part, 2.0, Randomness.secure(), "information")
    before, after = seen[:4], seen[4:]
    moved = math.sqrt(sum(float(((a - b) ** 2).sum()) for a, b in zip(before, after, strict=True)))
    assert moved <= 2.0 == math.sqrt(4)
    assert all(sigma >= 2.0 * 2.0 for sigma in drawn)
    assert [cells.shape for cells in after] == list(table_shapes(mixed))


@pytest.mark.parametrize("poison", [0.0, math.nan, math.inf, 3e38])
@pytest.mark.parametrize("label", [TRUTH, CLASSES, NUMBER], ids=lambda f: f.name)
def test_one_patient_moves_the_means_by_one(
    label: Feature, poison: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is noised, with and without a patient of 5,000 rows that were not scaled."""
    seen: list[np.ndarray] = []

    def silent(total: np.ndarray, multiplier: float, _: Randomness) -> np.ndarray:
        assert multiplier == 2.0
        seen.append(total)
        return total

    monkeypatch.setattr("models.importance.noised", silent)
    patients = table([1, 2, 5000], WIDTH, label)
    patients.inputs[3:] = poison or patients.inputs[3:]
    patients.targets[4:] = math.nan
    for units in (2, 3):
        part = Table(patients.inputs[: patients.starts[units]], None,
                     patients.targets[: patients.starts[units]], patients.starts[: units + 1])
        factors = importance(encoding(WIDTH, label), part, 2.0, Randomness.secure())
        assert np.isfinite(factors).all()
    assert 0.01 < np.linalg.norm(seen[1] - seen[0]) <= 1


def test_factors_follow_the_noised_sums_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack: two tables with one noised answer must have one set of factors."""
    answer = np.random.default_rng(2).normal(50, 20, 2 * (WIDTH + 1))
    monkeypatch.setattr("models.importance.noised", lambda *_: answer)
    found = [importance(encoding(WIDTH), telling(units), 2.0, Randomness.secure())
             for units in (10, 4000)]
    assert np.array_equal(found[0], found[1])


def test_it_is_paid_within_the_same_epsilon() -> None:
    settings = Settings(steps=20, holdout=0.0, importance=0.2)
    plan = plan_run("logistic", encoding(WIDTH), settings,
                    Defaults(steps=1.0, learning_rate=0.1, decay=0.0), 9, 1000, Fraction(1),
                    Fraction(1, 10**5), Fraction(9))
    assert 0.99 < plan.cost.epsilon <= 1.0
    (phases,) = plan.event.branches
    assert [steps for _, _, steps in phases] == [1, 20]
    spent = [steps / z**2 for _, z, steps in phases]
    assert spent[0] / sum(spent) == pytest.approx(0.2, rel=1e-6)


def test_inputs_are_scaled_feature_by_feature() -> None:
    mixed = Encoding((Feature("a", Coding.NUMBER, True, 0.0, 1.0), Feature(
        "w", Coding.CHOICE, False, values=("x", "y", "z"))), TRUTH)
    inputs = np.ones((2, 5), dtype=np.float32)
    assert scaled(mixed, inputs, np.array([2.0, 0.5])).tolist() == [[2, 2, 0.5, 0.5, 0.5]] * 2
    patients = table([1, 1], 5)
    assert with_scales(patients, mixed, np.array([2.0, 0.5])).starts is patients.starts
