"""A user's own Keras model in, an architecture and its weights out, or a refusal with the reason.

Only sequences of layers that models/layers.py knows are taken: then the gradient of each patient
is known to be a function of that patient's rows alone.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from models.layers import ACTIVATIONS, Architecture, Convolution, Dense, Flatten, Layer, Pool
from planner.refusal import Refused

REASONS: Final = {
    "BatchNormalization": "it mixes patients, and remembers their means without noise",
    "SyncBatchNormalization": "it mixes patients, and remembers their means without noise",
    "Dropout": "its coins are not of the run's own key, so that an interrupted run could not go on "
               "alike",
    "GaussianNoise": "its noise is not of the run's own key",
    "Normalization": "it learns the mean of the rows it is adapted to",
    "StringLookup": "it learns its words from rows",
    "IntegerLookup": "it learns its values from rows",
    "TextVectorization": "it learns its words from rows",
    "Discretization": "it learns its bounds from rows",
    "LSTM": "its state can outlive a row", "GRU": "its state can outlive a row",
}


def is_keras(model: object) -> bool:
    """Return whether an object is a Keras model, without loading Keras."""
    return any(c.__name__ == "Model" and "keras" in c.__module__ for c in type(model).__mro__)


def architecture_of(model: Any) -> tuple[Architecture, Any]:
    """Return a model's architecture and its parameters as one vector.

    The weights it comes with are where training starts: they count as public. Raises Refused for
    layers, losses or shapes that cannot be clipped for each patient.
    """
    if not any(c.__name__ == "Sequential" for c in type(model).__mro__):
        raise Refused("model", "only a Sequential model can be clipped for each patient",
                      "keras.Sequential([...])")
    inputs = tuple(int(n) for n in model.input_shape[1:])
    layers: list[Layer] = []
    weights: list[Any] = []
    for layer in model.layers:
        known = _layer(layer)
        if known is not None:
            layers.append(known)
            weights.extend(np.asarray(w, dtype=np.float64).reshape(-1)
                           for w in layer.get_weights())
    found = Architecture(inputs, tuple(layers))
    start = np.concatenate(weights) if weights else np.zeros(0)
    if start.shape != (found.size,) or not np.isfinite(start).all():
        raise Refused("model", "the model's weights do not fit its layers, or are not finite",
                      "layers with a bias, and a built model")
    return found, start


def _layer(layer: Any) -> Layer | None:
    """Return our layer for a Keras layer; None for the one that only names the input."""
    name = type(layer).__name__
    if name == "InputLayer":
        return None
    if name in REASONS:
        raise Refused("model", f"a {name} layer cannot be trained: {REASONS[name]}",
                      "leave it out")
    config = layer.get_config()
    if getattr(layer, "stateful", False) or any(
        config.get(field) for field in ("activity_regularizer", "kernel_constraint",
                                        "bias_constraint", "kernel_regularizer",
                                        "bias_regularizer")
    ):
        raise Refused("model", f"the layer {layer.name} has a state, a constraint or a penalty",
                      "decay=0.01 in place of a penalty")
    if name == "Dense" and config["use_bias"]:
        return Dense(int(config["units"]), _activation(config))
    if name == "Conv2D" and config["use_bias"] and config["padding"] == "same":
        size, step = _square(config["kernel_size"]), _square(config["strides"])
        if config["groups"] == 1 and _square(config["dilation_rate"]) == 1:
            return Convolution(int(config["filters"]), size, step, _activation(config))
    pools = name in ("AveragePooling2D", "MaxPooling2D") and config["padding"] == "valid"
    if pools and _square(config["pool_size"]) == _square(config["strides"]):
        return Pool(_square(config["pool_size"]), "mean" if name[0] == "A" else "max")
    if name == "Flatten":
        return Flatten()
    raise Refused("model", f"a {name} layer like {layer.name} is not known here",
                  "Dense, Conv2D (padding='same'), AveragePooling2D, MaxPooling2D, Flatten, each "
                  "with a bias")


def _activation(config: dict[str, Any]) -> str:
    name = str(config["activation"])
    if name not in ACTIVATIONS:
        raise Refused("model", f"the activation {name} is not known here", ", ".join(ACTIVATIONS))
    return name


def _square(sides: Any) -> int:
    values = {int(side) for side in (sides if isinstance(sides, list | tuple) else (sides,))}
    if len(values) != 1:
        raise Refused("model", f"a layer's sides must be equal, got {tuple(sides)}", "squares")
    return values.pop()
