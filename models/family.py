"""Names in, model families out: what each can learn from, and its defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.descent import Network
from models.encoding import Encoding, Task
from models.layers import Architecture, Centre, Convolution, Dense, Flatten, Layer, Pool
from models.linear import LinearModel
from models.run import Defaults, Settings
from models.tensors import TensorNetwork
from planner.refusal import Refused
from planner.training_view import Coding


@dataclass(frozen=True, slots=True)
class Family:
    """A family with the settings of one run."""

    name: str
    defaults: Defaults
    network: Network


def family_of(name: str, encoding: Encoding, settings: Settings) -> Family:
    """Return the network of a family for a view, or refuse what it cannot learn."""
    if name == "logistic":
        if encoding.task is Task.REAL:
            raise Refused("model", f"{encoding.label.name} is a number, and logistic regression "
                          "predicts classes", "model='linear'")
        if encoding.image is not None:
            return Family(name, PIXELS, TensorNetwork(encoding, _of_image(encoding, (
                Centre(), Pool(2), Flatten(), Dense(encoding.outputs)))))
        return Family(name, _linear(encoding), LinearModel(encoding))
    if name == "linear":
        if encoding.task is not Task.REAL:
            raise Refused("model", f"{encoding.label.name} has classes, and linear regression "
                          "predicts numbers", "model='logistic'")
        _no_image(name, encoding)
        return Family(name, _linear(encoding), LinearModel(encoding))
    if name == "mlp":
        _no_image(name, encoding)
        layers = (*(Dense(n, "tanh") for n in settings.hidden), Dense(encoding.outputs))
        return Family(name, MLP, TensorNetwork(encoding, Architecture((encoding.width,), layers)))
    if name == "cnn":
        return Family(name, CNN, TensorNetwork(encoding, _of_image(encoding, (
            Centre(), Convolution(16, 5, 2, "tanh"), Convolution(32, 3, 2, "tanh"), Pool(2),
            Flatten(), Dense(encoding.outputs)))))
    raise Refused("model", f"no model {name!r}", ", ".join(NAMES))


NAMES = ("cnn", "linear", "logistic", "mlp")
MLP = Defaults(steps=300, small_steps=100, learning_rate=0.02, decay=0.0, batch=1024)
CNN = Defaults(steps=300, small_steps=100, learning_rate=0.005, decay=0.0, batch=1024)
PIXELS = Defaults(steps=100, small_steps=30, learning_rate=0.03, decay=0.0, always_full=True,
                  clip=1.0)
CLIP_SHARE = 0.3


def _linear(encoding: Encoding) -> Defaults:
    """Return the defaults of a linear model.

    A row's gradient is residual times input. It is clipped at a share of the norm that an input
    has by its encoding alone, so that residuals below that share pass whole: normalised
    gradients would draw probabilities of a rare class towards zero.
    """
    return Defaults(steps=100, small_steps=30, learning_rate=0.1, decay=0.0, always_full=True,
                    clip=CLIP_SHARE * typical_norm(encoding))


def typical_norm(encoding: Encoding) -> float:
    """Return about what norm an encoded row has, by public facts: one for the intercept, one for
    each truth value and category, a third for each number."""
    square = 1.0
    for feature in encoding.features:
        binary = feature.coding is Coding.NUMBER and feature.whole and (
            feature.high - feature.low == 1
        )
        number = feature.coding in (Coding.NUMBER, Coding.MOMENT) and not binary
        square += 1 / 3 if number else 1.0
    return math.sqrt(square)


def _of_image(encoding: Encoding, layers: tuple[Layer, ...]) -> Architecture:
    """Return a network over the view's one image; each image is first centred by itself."""
    image = encoding.image
    if image is None:
        raise Refused("model", "a cnn model needs an image column", "model='mlp'")
    if len(encoding.features) > 1:
        raise Refused("model", "a model of images takes the image and no other feature",
                      "SELECT image, label FROM ...")
    shape = image.shape if len(image.shape) == 3 else (*image.shape, 1)
    return Architecture(shape, layers)


def _no_image(name: str, encoding: Encoding) -> None:
    if encoding.image is not None:
        raise Refused("model", f"a {name} model takes no image", "model='cnn'")
