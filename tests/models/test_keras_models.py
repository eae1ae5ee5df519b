"""A user's own Keras model: taken as it is, or refused with the reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.clipping import Clip
from models.family import family_of
from models.keras_model import architecture_of
from models.run import Settings
from models.tensors import TensorNetwork, tensorflow
from planner.refusal import Refused
from planner.training_view import Coding, Feature
from tests.models.patients import TRUTH, encoding, table


def keras() -> Any:
    return tensorflow().keras


def sequential(*layers: Any, inputs: tuple[int, ...] = (4,)) -> Any:
    return keras().Sequential([keras().Input(inputs), *layers])


def test_it_gives_the_scores_that_keras_gives() -> None:
    layers = keras().layers
    model = sequential(layers.Dense(5, "gelu"), layers.Dense(3, "elu"), layers.Dense(1))
    network = family_of(model, encoding(4), Settings()).network
    rows = table([1] * 9, 4)
    found = network.scores(network.initial(None), rows.inputs)  # type: ignore[arg-type]
    assert np.allclose(found, model.predict(rows.inputs, verbose=0), atol=1e-5)


def test_images_too() -> None:
    layers = keras().layers
    model = sequential(
        layers.Conv2D(3, 3, 2, "same", activation="relu"), layers.MaxPooling2D(2),
        layers.Flatten(), layers.Dense(1), inputs=(9, 9, 2),
    )
    architecture, start = architecture_of(model)
    rows = table([1] * 5, 0, image=(9, 9, 2))
    network = TensorNetwork(encoding(0), architecture, start)
    assert rows.pixels is not None
    given = rows.pixels.astype(np.float32) / 127.5 - 1
    assert np.allclose(network.scores(start, rows.inputs, rows.pixels),
                       model.predict(given, verbose=0), atol=1e-5)


REFUSED = {
    "BatchNormalization": lambda k: [k.BatchNormalization(), k.Dense(1)],
    "Dropout": lambda k: [k.Dropout(0.5), k.Dense(1)],
    "GaussianNoise": lambda k: [k.GaussianNoise(0.1), k.Dense(1)],
    "LayerNormalization": lambda k: [k.LayerNormalization(), k.Dense(1)],
    "Lambda": lambda k: [k.Lambda(lambda x: x - tensorflow().reduce_mean(x)), k.Dense(1)],
    "penalty": lambda k: [k.Dense(1, kernel_regularizer="l2")],
    "constraint": lambda k: [k.Dense(1, kernel_constraint="unit_norm")],
    "without a bias": lambda k: [k.Dense(1, use_bias=False)],
    "activation": lambda k: [k.Dense(1, "sigmoid")],
    "softmax": lambda k: [k.Dense(4, "softmax"), k.Dense(1)],
    "outputs": lambda k: [k.Dense(2)],
}


@pytest.mark.parametrize("layers", REFUSED)
def test_what_cannot_be_clipped_is_refused(layers: str) -> None:
    model = sequential(*REFUSED[layers](keras().layers))
    with pytest.raises(Refused) as caught:
        family_of(model, encoding(4), Settings())
    assert caught.value.rule == "model"
    assert caught.value.hint


def test_a_graph_of_layers_is_refused() -> None:
    given = keras().Input((4,))
    model = keras().Model(given, keras().layers.Dense(1)(given))
    with pytest.raises(Refused, match="Sequential"):
        family_of(model, encoding(4), Settings())


def test_a_model_for_other_inputs_is_refused() -> None:
    model = sequential(keras().layers.Dense(1), inputs=(7,))
    with pytest.raises(Refused, match="maps"):
        family_of(model, encoding(4), Settings())
    image = Feature("scan", Coding.IMAGE, False, shape=(8, 8))
    from models.encoding import Encoding

    with pytest.raises(Refused, match="maps"):
        family_of(model, Encoding((image,), TRUTH), Settings())


def test_weights_that_are_no_numbers_are_refused() -> None:
    model = sequential(keras().layers.Dense(1))
    model.set_weights([np.full((4, 1), np.nan), np.zeros(1)])
    with pytest.raises(Refused, match="not finite"):
        family_of(model, encoding(4), Settings())


def test_a_charge_names_the_start_as_well() -> None:
    one, other = (family_of(sequential(keras().layers.Dense(1)), encoding(4), Settings())
                  for _ in range(2))
    assert one.described != other.described


# ---- tensorflow-privacy as a witness ------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 4])
def test_norms_are_those_of_tensorflow_privacy(rows: int) -> None:
    """Its fast gradient clipping, asserted to be on: every trained layer is in its registry."""
    tf = tensorflow()
    from tensorflow_privacy.privacy.fast_gradient_clipping import (
        clip_grads,
        gradient_clipping_utils,
        layer_registry,
    )

    layers = keras().layers
    model = sequential(layers.Dense(6, "tanh"), layers.Dense(1))
    registry = layer_registry.make_default_layer_registry()
    assert gradient_clipping_utils.all_trainable_layers_are_registered(model, registry)
    patients = table([rows] * 6, 4)
    theirs = clip_grads.compute_gradient_norms(
        model, registry, tf.constant(patients.inputs), tf.constant(patients.targets[:, None]),
        per_example_loss_fn=lambda y, scores, _: tf.nn.sigmoid_cross_entropy_with_logits(
            y, scores)[:, 0],
        num_microbatches=None if rows == 1 else 6,
    ).numpy()
    architecture, start = architecture_of(model)
    network = TensorNetwork(encoding(4), architecture, start)
    for unit in range(6):
        ours = network.clipped_sum(start, patients, np.array([unit]), Clip(1e-9))
        huge = network.clipped_sum(start, patients, np.array([unit]), Clip(1e9))
        assert np.linalg.norm(ours) == pytest.approx(1, abs=0.003)
        assert np.linalg.norm(huge) * 1e9 == pytest.approx(theirs[unit], rel=0.003)
