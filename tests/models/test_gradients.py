"""Clipped sums: equal to a jacobian's, and moved by one patient by at most one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mechanisms.randomness import Randomness
from models.clipping import KEPT, SOFTENING, Clip, weights_for
from models.descent import Network, Vector
from models.encoding import Encoding
from models.layers import Architecture, Centre, Convolution, Dense, Embed, Flatten, Pool
from models.linear import LinearModel
from models.table import Table
from models.tensors import TensorNetwork, _forward_of, _losses, tensorflow
from planner.training_view import Coding, Feature
from tests.models.patients import CLASSES, COUNT, NUMBER, TRUTH, encoding, table

SIZES = [1, 1, 3, 8, 2, 5, 1, 17, 1, 4]
CLIPS = [Clip(), Clip(0.3), Clip(1e6)]


def outputs_of(label: Feature) -> int:
    return 3 if label is CLASSES else 1


def dense(label: Feature) -> tuple[TensorNetwork, Table]:
    layers = (Dense(9, "tanh"), Dense(6, "relu"), Dense(outputs_of(label)))
    return (TensorNetwork(encoding(5, label), Architecture((5,), layers)),
            table(SIZES, 5, label))


def convolutional(label: Feature) -> tuple[TensorNetwork, Table]:
    layers = (Centre(), Convolution(3, 3, 2, "tanh"), Convolution(4, 3, 1, "softplus"), Pool(2),
              Flatten(), Dense(outputs_of(label)))
    return (TensorNetwork(encoding(0, label), Architecture((9, 9, 2), layers)),
            table(SIZES, 0, label, image=(9, 9, 2)))


def embedded(label: Feature) -> tuple[TensorNetwork, Table]:
    """Five numbers and two categories of four and of six values, in few of which rows agree."""
    choices = (Feature("c", Coding.CHOICE, True, values=("a", "b", "c", "d")),
               Feature("h", Coding.BUCKETS, True, buckets=6))
    made = encoding(5, label)
    whole = replace(made, features=(*made.features[:2], *choices, *made.features[2:]))
    coded, tables = whole.with_tables({"h": 3, "c": 2})
    layers = (Embed(tables), Dense(6, "tanh"), Dense(outputs_of(label)))
    rows = table(SIZES, 7, label)
    rng = np.random.default_rng(8)
    rows.inputs[:, 2] = rng.integers(0, 5, len(rows.inputs))
    rows.inputs[:, 3] = rng.integers(0, 7, len(rows.inputs))
    return TensorNetwork(coded, Architecture((7,), layers)), rows


def linear(label: Feature) -> tuple[Network, Table]:
    return LinearModel(encoding(5, label)), table(SIZES, 5, label)


def parameters_of(network: Network) -> Vector:
    drawn = Randomness.seeded(3).uint64(network.size).astype(np.float64) * 2.0**-64 - 0.5
    return network.initial(Randomness.seeded(1)) + 0.3 * drawn


def gradients(network: Network, parameters: Vector, rows: Table) -> np.ndarray:
    """Return each patient's mean gradient, by TensorFlow's own differentiation of each loss."""
    tf = tensorflow()
    if isinstance(network, LinearModel):
        width, outputs = network.encoding.width, network.encoding.outputs
        architecture = Architecture((width,), (Dense(outputs),))
        whole = TensorNetwork(network.encoding, architecture)
    else:
        assert isinstance(network, TensorNetwork)
        whole = network
    forward = _forward_of(whole.architecture)
    found = []
    for unit in range(rows.units):
        own = slice(int(rows.starts[unit]), int(rows.starts[unit + 1]))
        pixels = None if rows.pixels is None else rows.pixels[own]
        given = whole._inputs(rows.inputs[own], pixels)
        variable = tf.Variable(parameters.astype(np.float32))
        with tf.GradientTape() as tape:
            losses = _losses(network.encoding.task, forward(variable, given), rows.targets[own])
            loss = tf.reduce_mean(losses)
        found.append(tape.gradient(loss, variable).numpy().astype(np.float64))
    return np.stack(found)


def clipped(gradient: np.ndarray, clip: Clip) -> np.ndarray:
    norm = float(np.linalg.norm(gradient))
    return gradient * KEPT / (norm + SOFTENING if clip.norm is None else max(norm, clip.norm))


@pytest.mark.parametrize("make", [linear, dense, embedded, convolutional],
                         ids=lambda m: m.__name__)
@pytest.mark.parametrize("label", [TRUTH, CLASSES, NUMBER, COUNT], ids=lambda f: f.name)
def test_the_sum_is_that_of_each_patients_own_gradient(make: Any, label: Feature) -> None:
    network, rows = make(label)
    parameters = parameters_of(network)
    each = gradients(network, parameters, rows)
    for clip in CLIPS:
        wanted = sum(clipped(gradient, clip) for gradient in each)
        found = network.clipped_sum(parameters, rows, np.arange(rows.units), clip)
        assert np.linalg.norm(found - wanted) <= 1e-6 * np.linalg.norm(wanted)


def test_row_level_clipping_is_noticed() -> None:
    """The planted bug: rows clipped each for itself. One patient of 17 rows then moves 17."""
    network, rows = linear(TRUTH)
    parameters = parameters_of(network)
    apart = Table(rows.inputs, None, rows.targets, np.arange(len(rows.targets) + 1))
    wrong = network.clipped_sum(parameters, apart, np.arange(apart.units), Clip())
    right = network.clipped_sum(parameters, rows, np.arange(rows.units), Clip())
    assert np.linalg.norm(wrong - right) > 0.1


class Attack:
    """Rows of one patient that try to move more than one."""

    @staticmethod
    def nan(rows: Table) -> None:
        rows.inputs[rows.starts[3] :] = np.nan

    @staticmethod
    def infinite(rows: Table) -> None:
        rows.inputs[rows.starts[3]] = np.inf

    @staticmethod
    def huge(rows: Table) -> None:
        rows.inputs[rows.starts[3]] = 3e38

    @staticmethod
    def opposed(rows: Table) -> None:
        rows.inputs[rows.starts[3] :] *= -1e10

    @staticmethod
    def labelled_nan(rows: Table) -> None:
        rows.targets[rows.starts[3] :] = np.nan


@pytest.mark.parametrize("attack", ["nan", "infinite", "huge", "opposed", "labelled_nan"])
@pytest.mark.parametrize("many", [1, 7, 5000])
@pytest.mark.parametrize("make", [linear, dense, embedded], ids=lambda m: m.__name__)
def test_one_patient_moves_the_sum_by_at_most_one(make: Any, many: int, attack: str) -> None:
    network, given = make(TRUTH)
    rows = table([1, 2, 4, many], given.inputs.shape[1])
    getattr(Attack, attack)(rows)
    parameters = parameters_of(network)
    for clip in CLIPS:
        with np.errstate(all="ignore"):
            with_it = network.clipped_sum(parameters, rows, np.arange(4), clip)
            without = network.clipped_sum(parameters, rows, np.arange(3), clip)
        assert np.isfinite(with_it).all()
        assert np.linalg.norm(with_it - without) <= 1


@pytest.mark.parametrize("many", [1, 300])
def test_one_patient_with_many_images_moves_the_sum_by_at_most_one(many: int) -> None:
    network, _ = convolutional(TRUTH)
    rows = table([1, 2, many], 0, image=(9, 9, 2))
    parameters = 100 * parameters_of(network)
    for clip in CLIPS:
        with_it = network.clipped_sum(parameters, rows, np.arange(3), clip)
        without = network.clipped_sum(parameters, rows, np.arange(2), clip)
        assert np.linalg.norm(with_it - without) <= 1


def test_a_patient_of_several_images_counts_as_one() -> None:
    """The same images as one patient each move the sum further: the unit decides, not the row."""
    network, rows = convolutional(TRUTH)
    parameters = parameters_of(network)
    units = np.arange(rows.units)
    total = network.clipped_sum(parameters, rows, units, Clip())
    apart = replace(rows, starts=np.arange(len(rows.targets) + 1))
    single = network.clipped_sum(parameters, apart, np.arange(apart.units), Clip())
    assert np.linalg.norm(total) <= rows.units < np.linalg.norm(single) + rows.units
    assert not np.allclose(total, single)


def test_repeating_a_patients_rows_changes_nothing() -> None:
    network, _ = dense(TRUTH)
    rows = table([3, 3], 5)
    twice = Table(np.concatenate([rows.inputs[:3]] * 2 + [rows.inputs[3:]] * 2), None,
                  np.concatenate([rows.targets[:3]] * 2 + [rows.targets[3:]] * 2),
                  np.array([0, 6, 12]))
    parameters = parameters_of(network)
    one, two = (network.clipped_sum(parameters, t, np.arange(2), Clip()) for t in (rows, twice))
    assert np.allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("clip", CLIPS, ids=str)
def test_weights_keep_every_norm_below_one(clip: Clip) -> None:
    norms = np.array([0.0, 1e-300, 1e-3, 0.3, 1.0, 1e6, 1e38, 1e300, np.inf, np.nan])
    weights = weights_for(norms, clip)
    finite = np.isfinite(norms)
    assert (weights[finite] * norms[finite] < 1).all()
    assert (weights[~finite] == 0).all()


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan"), float("inf")])
def test_a_clip_norm_is_positive(norm: float) -> None:
    with pytest.raises(ValueError, match="clip norm"):
        Clip(norm)


def test_no_patients_give_zero() -> None:
    for make in (linear, dense):
        network, rows = make(TRUTH)
        found = network.clipped_sum(parameters_of(network), rows, np.arange(0), Clip())
        assert found.shape == (network.size,)
        assert not found.any()


def test_encodings_of_tests_are_encodings() -> None:
    assert isinstance(encoding(3), Encoding)


@pytest.mark.parametrize("patients", [1, 3, 40])
def test_patients_of_many_rows_are_not_filled_up(
    patients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filled up to 32 patients of 5,000 rows, a step would hold gigabytes of products of rows."""
    seen: list[int] = []
    part = TensorNetwork._part

    def watched(self: TensorNetwork, parameters: Vector, rows: Table, units: Any, width: int,
                most: int, clip: Clip) -> Vector:
        seen.append(width * most)
        return part(self, parameters, rows, units, width, most, clip)

    monkeypatch.setattr(TensorNetwork, "_part", watched)
    network, _ = dense(TRUTH)
    for sizes in ([2000] * min(patients, 3), [1] * patients, [300] * patients):
        rows = table(sizes, 5)
        network.clipped_sum(parameters_of(network), rows, np.arange(rows.units), Clip())
    assert max(seen) <= 2048
