"""Metrics: read off noisy counts that one patient moves by one cell."""

from __future__ import annotations

import numpy as np
import pytest

from mechanisms.randomness import Randomness
from models.descent import Vector
from models.evaluation import BINS, Evaluation, _cells, evaluate
from models.linear import LinearModel
from models.table import Table
from planner.training_view import Feature
from tests.models.patients import CLASSES, COUNT, NUMBER, TRUTH, encoding, table

WIDTH = 3


def measured(label: Feature, patients: Table, parameters: Vector, sigma: float) -> Evaluation:
    network = LinearModel(encoding(WIDTH, label))
    return evaluate(network, parameters, patients, np.arange(patients.units), sigma,
                    Randomness.secure())


def parameters(outputs: int = 1) -> Vector:
    return np.linspace(-2, 3, (WIDTH + 1) * outputs)


def roc_auc(scores: np.ndarray, targets: np.ndarray) -> float:
    positive, negative = scores[targets == 1], scores[targets == 0]
    above = (positive[:, None] > negative[None, :]) + 0.5 * (positive[:, None] == negative)
    return float(above.mean())


def test_binary_metrics_are_those_of_the_scores() -> None:
    patients = table([1] * 20_000, WIDTH, seed=2)
    scores = patients.inputs @ parameters()[:-1] + parameters()[-1]
    patients.targets[:] = np.random.default_rng(1).random(len(scores)) < 1 / (1 + np.exp(-scores))
    found = measured(TRUTH, patients, parameters(), 3.0)
    assert found["auc"] == pytest.approx(roc_auc(scores, patients.targets), abs=0.01)
    assert found["accuracy"] == pytest.approx(
        ((scores > 0) == patients.targets).mean(), abs=0.01)
    assert found["calibration_error"] < 0.03
    assert found["positive_share"] == pytest.approx(patients.targets.mean(), abs=0.01)
    for metric in found.metrics:
        assert metric.low <= metric.value <= metric.high


def test_classes_and_numbers_have_theirs() -> None:
    patients = table([1] * 5000, WIDTH, CLASSES, seed=3)
    scores = np.hstack([patients.inputs, np.ones((5000, 1))]) @ parameters(3).reshape(4, 3)
    patients.targets[:] = scores.argmax(axis=1)
    assert measured(CLASSES, patients, parameters(3), 2.0)["accuracy"] > 0.98
    patients = table([1] * 5000, WIDTH, NUMBER, seed=3)
    network_parameters = np.zeros(WIDTH + 1)
    rmse = measured(NUMBER, patients, network_parameters, 2.0)["rmse"]
    assert rmse == pytest.approx(30 * np.sqrt((patients.targets**2).mean()), rel=0.05)


@pytest.mark.parametrize("label", [TRUTH, CLASSES, NUMBER, COUNT], ids=lambda f: f.name)
def test_one_patient_is_one_cell_whatever_its_rows(label: Feature) -> None:
    """Noise of a thousandth leaves the counts: they differ by one, in one cell."""
    outputs = 3 if label is CLASSES else 1
    patients = table([1, 2, 3, 5000], WIDTH, label)
    patients.inputs[6:] = np.nan
    network = LinearModel(encoding(WIDTH, label))

    def counts(units: int) -> np.ndarray:
        found = evaluate(network, parameters(outputs), patients, np.arange(units), 2.0**-10,
                         Randomness.secure())
        return np.array(found.counts)

    moved = counts(4) - counts(3)
    assert np.abs(moved).sum() == 1


def test_every_cell_gets_noise() -> None:
    empty = Table(np.zeros((0, WIDTH), np.float32), None, np.zeros(0, np.float32), np.zeros(1, int))
    counts = np.array(measured(TRUTH, empty, parameters(), 50.0).counts)
    assert counts.shape == (2, BINS)
    assert (counts != 0).mean() > 0.9


def test_cells_are_within_bounds_for_any_score() -> None:
    for label, outputs in ((TRUTH, 1), (CLASSES, 3), (NUMBER, 1), (COUNT, 1)):
        scores = np.full((4, outputs), 1.0) * np.array([[np.nan], [np.inf], [-np.inf], [1e300]])
        rows, columns = _cells(encoding(WIDTH, label), scores, np.zeros(4, np.float32))
        assert rows.min() >= 0
        assert columns.min() >= 0


@pytest.mark.parametrize("label", [TRUTH, CLASSES, NUMBER, COUNT], ids=lambda f: f.name)
def test_intervals_of_few_patients_cover_the_truth(label: Feature) -> None:
    """30 patients beside noise of 8: once a negative sum of squares gave an error of 0 to 0.

    120 draws; one in twenty may miss. The seed is fixed, and what is said of the errors of
    30 patients is true of 60,000 like them.
    """
    patients = table([1] * 60_000, WIDTH, label, seed=5)
    weights = parameters(3 if label is CLASSES else 1) / 4
    network = LinearModel(encoding(WIDTH, label))
    whole = measured(label, patients, weights, 0.01)
    missed, shown = {}, {}
    for seed in range(120):
        few = np.arange(30 * seed, 30 * seed + 30)
        found = evaluate(network, weights, patients, few, 8.0, Randomness.keyed(bytes(32), seed))
        for metric in found.metrics:
            assert metric.low <= metric.value <= metric.high
            if metric.name in ("rmse", "bias", "accuracy", "positive_share"):
                assert metric.high > metric.low
                shown[metric.name] = shown.get(metric.name, 0) + 1
                missed[metric.name] = missed.get(metric.name, 0) + (
                    not metric.low <= whole[metric.name] <= metric.high)
    assert shown
    for name, count in shown.items():
        assert missed[name] < 0.09 * count, name


def test_intervals_narrow_with_patients() -> None:
    patients = table([1] * 20_000, WIDTH, NUMBER, seed=5)
    found = measured(NUMBER, patients, parameters() / 4, 3.0)
    for metric in found.metrics:
        assert metric.high - metric.low < 1


def test_it_is_read_back_equal() -> None:
    found = measured(TRUTH, table([1] * 100, WIDTH), parameters(), 2.0)
    assert Evaluation.from_dict(found.to_dict()) == found
