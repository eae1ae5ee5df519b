"""Importance: bought, bounded for one patient, and right about what tells something."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from mechanisms import gaussian
from mechanisms.randomness import Randomness
from models.encoding import Encoding
from models.family import family_of, typical_norm
from models.importance import (
    Findings,
    importance,
    scaled,
    table_shapes,
    with_findings,
    with_scales,
)
from models.run import Defaults, Settings, plan_run
from models.table import Table
from planner.training_view import Coding, Feature
from tests.models.patients import CLASSES, COUNT, NUMBER, TRUTH, encoding, table

WIDTH = 8


def telling(units: int) -> Table:
    """Return patients whose first number decides the label."""
    patients = table([1] * units, WIDTH, seed=4)
    patients.targets[:] = patients.inputs[:, 0] > 0.2
    return patients


WAYS = pytest.mark.parametrize("by", ["means", "information"])


def found_of(patients: Table, multiplier: float, by: str = "means", label: Feature = TRUTH
             ) -> Findings:
    return importance(encoding(patients.inputs.shape[1], label), patients, multiplier,
                      Randomness.secure(), 2 * multiplier if by == "means" else None)


@WAYS
def test_it_finds_the_feature_that_tells(by: str) -> None:
    found = found_of(telling(4000), 5.0, by)
    assert found.worth.argmax() == 0
    assert found.worth[0] > 2 * found.worth[1:].max()
    assert (found.worth >= 0).all()
    assert found.scales.min() > 0, "no feature is dropped"


def test_worth_is_the_correlation_where_noise_is_small() -> None:
    patients = telling(4000)
    found = found_of(patients, 0.5)
    true = abs(np.corrcoef(patients.inputs[:, 0], patients.targets)[0, 1])
    assert found.worth[0] == pytest.approx(true, abs=0.05)
    assert found.centres == pytest.approx(patients.inputs.mean(axis=0), abs=0.05)
    share = patients.targets.mean()
    assert found.start(encoding(WIDTH)) == pytest.approx([np.log(share / (1 - share))], abs=0.15)


def test_scaled_rows_have_the_norm_that_clips_were_made_for() -> None:
    """However narrow a column is, and however far from the middle of its bounds it lies."""
    patients = telling(4000)
    patients.inputs[:, 1] = 0.8 + 0.15 * patients.inputs[:, 1]
    found = found_of(patients, 0.5)
    seen = with_findings(patients, encoding(WIDTH), found).inputs
    assert np.sqrt((seen**2).sum(axis=1).mean() + 1) == pytest.approx(
        typical_norm(encoding(WIDTH)), rel=0.1)
    assert abs(seen.mean(axis=0)).max() < 0.1 * seen.std(axis=0).max()


@WAYS
def test_drowned_in_noise_all_features_are_alike(by: str) -> None:
    first = []
    for _ in range(12):
        found = found_of(telling(100), 1e5, by)
        assert found.scales.max() < 12 * found.scales.min()
        assert (abs(found.centres) <= 1).all()
        assert (abs(found.start(encoding(WIDTH))) < 3).all()
        first.append(int(found.scales.argmax()))
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
        importance(mixed, part, 2.0, Randomness.secure())
    before, after = seen[:4], seen[4:]
    moved = math.sqrt(sum(float(((a - b) ** 2).sum()) for a, b in zip(before, after, strict=True)))
    assert moved <= 2.0 == math.sqrt(4)
    assert all(sigma >= 2.0 * 2.0 for sigma in drawn)
    assert [cells.shape for cells in after] == list(table_shapes(mixed))


@pytest.mark.parametrize("poison", [0.0, math.nan, math.inf, 3e38])
@pytest.mark.parametrize("label", [TRUTH, CLASSES, NUMBER, COUNT], ids=lambda f: f.name)
def test_one_patient_moves_the_means_by_one(
    label: Feature, poison: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is noised in each release, with and without a patient of 5,000 rows that were not
    scaled; what was released before is the same on both sides."""
    seen: list[np.ndarray] = []
    released: list[np.ndarray] = []

    def frozen(total: np.ndarray, multiplier: float, _: Randomness) -> np.ndarray:
        assert multiplier == (4.0 if len(seen) % 3 == 0 else 2.0)
        seen.append(total)
        if len(seen) <= 3:
            released.append(total + np.random.default_rng(len(seen)).normal(0, 0.2, total.shape))
        return released[(len(seen) - 1) % 3]

    monkeypatch.setattr("models.importance.noised", frozen)
    patients = table([1, 2, 5000], WIDTH, label)
    patients.inputs[3:] = poison or patients.inputs[3:]
    patients.targets[4:] = math.nan
    found = []
    for units in (2, 3):
        part = Table(patients.inputs[: patients.starts[units]], None,
                     patients.targets[: patients.starts[units]], patients.starts[: units + 1])
        found.append(found_of(part, 2.0, label=label))
        assert np.isfinite(with_findings(part, encoding(WIDTH, label), found[-1]).inputs[:3]).all()
    assert len(seen) == 6
    for before, after in zip(seen[:3], seen[3:], strict=True):
        assert 0.01 < np.linalg.norm(after - before) <= 1
    for name in ("worth", "scales", "centres", "odds"):  # they follow what was released alone
        assert np.array_equal(getattr(found[0], name), getattr(found[1], name))


def test_it_is_paid_within_the_same_epsilon() -> None:
    settings = Settings(steps=20, holdout=0.0, importance=0.2)
    plan = plan_run("logistic", encoding(WIDTH), settings,
                    Defaults(steps=1.0, learning_rate=0.1, decay=0.0), 9, 1000, Fraction(1),
                    Fraction(1, 10**5), Fraction(9))
    assert 0.99 < plan.cost.epsilon <= 1.0
    (phases,) = plan.event.branches
    assert [steps for _, _, steps in phases] == [2, 1, 20]
    spent = [steps / z**2 for _, z, steps in phases]
    assert sum(spent[:2]) / sum(spent) == pytest.approx(0.2, rel=1e-6)
    assert (plan.importance_multiplier, plan.centres_multiplier) == (phases[0][1], phases[1][1])


def test_inputs_are_scaled_feature_by_feature() -> None:
    mixed = Encoding((Feature("a", Coding.NUMBER, True, 0.0, 1.0), Feature(
        "w", Coding.CHOICE, False, values=("x", "y", "z"))), TRUTH)
    inputs = np.ones((2, 5), dtype=np.float32)
    assert scaled(mixed, inputs, np.array([2.0, 0.5])).tolist() == [[2, 2, 0.5, 0.5, 0.5]] * 2
    patients = table([1, 1], 5)
    assert with_scales(patients, mixed, np.array([2.0, 0.5])).starts is patients.starts


@pytest.mark.parametrize(("name", "label"), [
    ("logistic", TRUTH), ("logistic", CLASSES), ("linear", NUMBER), ("linear", COUNT),
    ("mlp", CLASSES)])
def test_a_centred_model_is_told_for_inputs_as_they_are(name: str, label: Feature) -> None:
    if name == "mlp":
        pytest.importorskip("tensorflow")
    network = family_of(name, encoding(WIDTH, label), Settings()).network
    rng = np.random.default_rng(3)
    parameters, offset = rng.normal(0, 1, network.size), rng.normal(0, 1, WIDTH)
    inputs = rng.uniform(-1, 1, (20, WIDTH)).astype(np.float32)
    assert network.scores(network.shifted(parameters, offset), inputs, None) == pytest.approx(
        network.scores(parameters, inputs - offset.astype(np.float32), None), abs=1e-4)
