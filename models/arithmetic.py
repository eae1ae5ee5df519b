"""A trained model in, its layers as plain numbers that SQL can compute, or a refusal, out."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.bayes import BayesModel, is_indicator, number_places
from models.encoding import Encoding, Task
from models.layers import Architecture, Dense
from models.linear import LinearModel
from models.model import Model
from models.tensors import TensorNetwork
from planner.formula import WEIGHTS_MAX, Formula, Step
from planner.functions.learned import ACTIVATIONS
from planner.refusal import Refused

HINT = "a logistic, linear or naive_bayes model, or a small mlp; model.predict() takes any"


def formula_of(model: Model, name: str) -> Formula:
    """Return the model as a formula that stands in SQL under `name`.

    Raises Refused for what SQL arithmetic does not express: images, several classes,
    activations that DuckDB lacks, and models with more than WEIGHTS_MAX weights.
    """
    encoding = model.encoding
    if encoding.image is not None:
        raise Refused("model", "a model of images cannot stand in SQL", HINT)
    if encoding.task is Task.COUNT:
        raise Refused("model", f"{encoding.label.name} is a count, whose rate is an exponential; "
                      "that cannot stand in SQL", "a linear model without loss='poisson'")
    if encoding.task is Task.CLASSES:
        raise Refused("model", f"{encoding.label.name} has {encoding.outputs} classes, and in "
                      "SQL a prediction is one number",
                      "a label that is true or false: los > 3 AS long")
    if model.parameters.size > WEIGHTS_MAX:
        raise Refused("model", f"the model has {model.parameters.size:,} parameters; in SQL at "
                      f"most {WEIGHTS_MAX:,} can stand", HINT)
    steps = _steps(model)
    if model.scales is not None:  # bought importance multiplies the inputs
        factors = np.array(model.scales)[list(encoding.blocks)]
        first = tuple(_plain(np.array(row) * factors) for row in steps[0].weights)
        steps = (Step(first, steps[0].biases, steps[0].activation), *steps[1:])
    return Formula(name, encoding.features, encoding.label, steps, encoding.task is Task.BINARY,
                   squares=model.family == "naive_bayes")


def _steps(model: Model) -> tuple[Step, ...]:
    network = model.network
    if isinstance(network, LinearModel):
        return (_linear(model.parameters, model.encoding),)
    if isinstance(network, BayesModel):
        return (_bent(model.parameters, model.encoding),)
    if isinstance(network, TensorNetwork):
        return _dense(model.parameters, network.architecture)
    raise Refused("model", f"a {model.family} model cannot stand in SQL", HINT)


def _linear(parameters: Any, encoding: Encoding) -> Step:
    weights = parameters.reshape(encoding.width + 1, encoding.outputs)
    return Step(tuple(_plain(row) for row in weights[:-1].T), _plain(weights[-1]))


def _bent(parameters: Any, encoding: Encoding) -> Step:
    """Return naive Bayes; its squares are those of all inputs that are scaled, zero for some."""
    width = encoding.width
    squares = dict(zip(number_places(encoding), parameters[width:-1], strict=True))
    scaled = [squares.get(p, 0.0) for p in range(width) if not is_indicator(encoding, p)]
    return Step((_plain([*parameters[:width], *scaled]),), _plain(parameters[-1:]))


def _dense(parameters: Any, architecture: Architecture) -> tuple[Step, ...]:
    found, place = [], 0
    for layer, shape in zip(architecture.layers, architecture.shapes(), strict=False):
        if not isinstance(layer, Dense) or layer.activation not in ACTIVATIONS:
            kind = type(layer).__name__.lower()
            named = getattr(layer, "activation", "")
            raise Refused("model", f"a {kind} layer {named} cannot stand in SQL".replace("  ", " "),
                          f"dense layers with an activation of {', '.join(ACTIVATIONS)}")
        count = shape[0] * layer.units
        kernel = parameters[place : place + count].reshape(shape[0], layer.units)
        biases = parameters[place + count : place + count + layer.units]
        place += count + layer.units
        found.append(Step(tuple(_plain(column) for column in kernel.T), _plain(biases),
                          layer.activation))
    return tuple(found)


def _plain(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
