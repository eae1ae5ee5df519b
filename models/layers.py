"""What a network is made of: frozen layers, their shapes and parameters; no TensorFlow here.

A network is a sequence of these. What is not among them cannot be trained: batch normalisation
mixes patients, a state would remember them, and a layer whose gradient is not known here could
not be clipped for each patient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from mechanisms.randomness import Randomness
from planner.refusal import Refused

ACTIVATIONS: Final = ("linear", "relu", "tanh", "sigmoid", "elu", "gelu", "selu", "softplus")
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Dense:
    """Units that see every input."""

    units: int
    activation: str = "linear"


@dataclass(frozen=True, slots=True)
class Convolution:
    """Square filters over an image, padded to the same size, every `stride` pixels."""

    filters: int
    size: int
    stride: int = 1
    activation: str = "linear"


@dataclass(frozen=True, slots=True)
class Pool:
    """The mean or the maximum over squares of pixels."""

    size: int
    kind: str = "mean"


@dataclass(frozen=True, slots=True)
class Flatten:
    """An image as one row of numbers."""


@dataclass(frozen=True, slots=True)
class Centre:
    """Each image minus its own mean, over its own deviation: within one row, so it is allowed."""


@dataclass(frozen=True, slots=True)
class Embed:
    """A vector for each code of some inputs, (column, largest code, length of the vector) each.

    Code 0, what is missing, has a vector too. Inputs that are no codes are passed through, first.
    """

    tables: tuple[tuple[int, int, int], ...]


Layer = Dense | Convolution | Pool | Flatten | Centre | Embed
_KINDS: Final[Mapping[str, type[Layer]]] = {
    "dense": Dense, "convolution": Convolution, "pool": Pool, "flatten": Flatten,
    "centre": Centre, "embed": Embed,
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """A sequence of layers over inputs of one shape; the last one gives the scores."""

    inputs: Shape
    layers: tuple[Layer, ...]

    def shapes(self) -> tuple[Shape, ...]:
        """Return the shape that goes into each layer, and last the one that comes out."""
        found = [self.inputs]
        for layer in self.layers:
            found.append(_shape_after(layer, found[-1]))
        return tuple(found)

    def parameter_shapes(self) -> tuple[tuple[Shape, ...], ...]:
        """Return the shapes of each layer's parameters: kernel and bias, or none."""
        return tuple(
            _parameters(layer, shape)
            for layer, shape in zip(self.layers, self.shapes(), strict=False)
        )

    @property
    def size(self) -> int:
        """How many parameters there are."""
        return sum(math.prod(shape) for pair in self.parameter_shapes() for shape in pair)

    @property
    def is_dense(self) -> bool:
        """Whether every layer with parameters is dense."""
        return not any(isinstance(layer, Convolution) for layer in self.layers)

    def to_list(self) -> list[Any]:
        """Return plain values, ready for JSON."""
        names = {kind: name for name, kind in _KINDS.items()}
        return [list(self.inputs), [[names[type(x)], asdict(x)] for x in self.layers]]

    @classmethod
    def from_list(cls, written: list[Any]) -> Architecture:
        """Read what `to_list` wrote."""
        inputs, layers = written
        return cls(tuple(inputs), tuple(
            _KINDS[kind](**{name: _frozen(value) for name, value in fields.items()})
            for kind, fields in layers
        ))

    def initial(self, randomness: Randomness) -> Any:
        """Return Glorot-uniform kernels and zero biases, drawn from public coins."""
        import numpy as np

        parts = []
        for pair in self.parameter_shapes():
            for shape in pair:
                count = math.prod(shape)
                if len(shape) == 1:
                    parts.append(np.zeros(count))
                    continue
                reach = math.prod(shape[:-2])
                limit = math.sqrt(6 / (reach * (shape[-2] + shape[-1])))
                drawn = (randomness.uint64(count) >> np.uint64(11)).astype(np.float64)
                parts.append((drawn * 2.0**-52 - 1) * limit)
        return np.concatenate(parts)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _shape_after(layer: Layer, shape: Shape) -> Shape:
    if isinstance(layer, Embed):
        return (shape[0] - len(layer.tables) + sum(size for _, _, size in layer.tables),)
    if isinstance(layer, Dense):
        if len(shape) != 1:
            raise Refused("model", "a dense layer needs one row of numbers", "Flatten() before it")
        return (layer.units,)
    if isinstance(layer, Flatten):
        return (math.prod(shape),)
    if isinstance(layer, Centre):
        return shape
    if len(shape) != 3:
        raise Refused("model", "this layer needs an image", "a view with an image column")
    height, width, channels = shape
    if isinstance(layer, Convolution):
        step = layer.stride
        return (-(-height // step), -(-width // step), layer.filters)
    return (height // layer.size, width // layer.size, channels)


def _parameters(layer: Layer, shape: Shape) -> tuple[Shape, ...]:
    if isinstance(layer, Dense):
        return (shape[0], layer.units), (layer.units,)
    if isinstance(layer, Convolution):
        return (layer.size, layer.size, shape[2], layer.filters), (layer.filters,)
    if isinstance(layer, Embed):
        return tuple((count + 1, size) for _, count, size in layer.tables)
    return ()
