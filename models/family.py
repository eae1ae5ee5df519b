"""Names in, model families out: what each can learn from, and its defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import sha256

from models import wavelets
from models.descent import Network
from models.encoding import Encoding
from models.keras_model import architecture_of, is_keras
from models.layers import Architecture, Centre, Convolution, Dense, Embed, Flatten, Layer, Pool
from models.linear import LinearModel
from models.run import Defaults, Settings, is_classified
from models.tensors import TensorNetwork
from planner.refusal import Refused
from planner.training_view import Coding


@dataclass(frozen=True, slots=True)
class Family:
    """A family with the settings of one run."""

    name: str
    defaults: Defaults
    network: Network

    @property
    def described(self) -> str:
        """What a charge names the network by: its layers, and where it starts."""
        if not isinstance(self.network, TensorNetwork):
            return self.name
        start = self.network.start
        written = "" if start is None else sha256(start.tobytes()).hexdigest()
        return f"{self.network.architecture.to_list()} {written}"


def family_of(model: object, encoding: Encoding, settings: Settings) -> Family:
    """Return the network of a family for a view, or refuse what it cannot learn.

    `model` is a name of NAMES, a Keras model, or the architecture of one that was saved.
    """
    if isinstance(model, Architecture) or is_keras(model):
        if settings.embedding:
            raise Refused("model", "a network of your own has no tables", "model='mlp'")
        return _own(model, encoding)
    if not isinstance(model, str):
        raise Refused("model", f"a model is a name or a Keras model, got {type(model).__name__}",
                      ", ".join(NAMES))
    if model in ON_WAVES:
        encoding = encoding.with_waves()
    return _named(model, encoding, settings)


def _own(model: object, encoding: Encoding) -> Family:
    """Return the network of a user's own layers."""
    architecture, start = (
        (model, None) if isinstance(model, Architecture) else architecture_of(model)
    )
    image = encoding.image
    if image is None:
        wanted: tuple[int, ...] = (encoding.width,)
    else:
        _of_image(encoding, ())
        wanted = image.shape if len(image.shape) == 3 else (*image.shape, 1)
    if architecture.inputs != wanted or architecture.shapes()[-1] != (encoding.outputs,):
        raise Refused("model", f"the model maps {architecture.inputs} to "
                      f"{architecture.shapes()[-1]}, the view {wanted} to ({encoding.outputs},)",
                      "an input for each encoded column, and scores without an activation")
    last = architecture.layers[-1] if architecture.layers else None
    if not isinstance(last, Dense) or last.activation != "linear":
        raise Refused("model", "the last layer gives scores: dense, without an activation",
                      "Dense(1)")
    return Family("keras", CNN if image is not None else MLP,
                  TensorNetwork(encoding, architecture, start))


def _named(name: str, encoding: Encoding, settings: Settings) -> Family:
    if settings.embedding and name != "mlp":
        raise Refused("model", f"a {name} model has no tables", "model='mlp'")
    if name == "logistic":
        if not is_classified(encoding):
            raise Refused("model", f"{encoding.label.name} is a number, and logistic regression "
                          "predicts classes", "model='linear'")
        return Family(name, _linear(encoding), LinearModel(encoding))
    if name == "linear":
        if is_classified(encoding):
            raise Refused("model", f"{encoding.label.name} has classes, and linear regression "
                          "predicts numbers", "model='logistic'")
        return Family(name, _linear(encoding), LinearModel(encoding))
    if name == "mlp":
        return Family(name, MLP, _dense(encoding, settings))
    if name == "cnn":
        return Family(name, CNN, TensorNetwork(encoding, _of_image(encoding, (
            Centre(), Convolution(16, 5, 2, "tanh"), Convolution(32, 3, 2, "tanh"), Pool(2),
            Flatten(), Dense(encoding.outputs)))))
    if name in UNSOUND:
        raise Refused("model", f"{name} is not offered: {UNSOUND[name]}", ", ".join(NAMES))
    raise Refused("model", f"no model {name!r}", ", ".join(NAMES))


def _dense(encoding: Encoding, settings: Settings) -> TensorNetwork:
    """Return dense layers, below them a table for each category that is to be embedded."""
    layers: tuple[Layer, ...] = (
        *(Dense(n, "tanh") for n in settings.hidden), Dense(encoding.outputs))
    if settings.embedding:
        if settings.importance > 0:
            raise Refused("model", "importance scales inputs, and a table has none",
                          "importance=0, or no embedding")
        encoding, tables = encoding.with_tables(dict(settings.embedding))
        layers = (Embed(tables), *layers)
    return TensorNetwork(encoding, Architecture((encoding.width,), layers))


# diffprivlib's families: what it states does not hold for adding or removing a patient
# (tests/models/test_unsound_families.py shows it).
UNSOUND = {
    "kmeans": "diffprivlib shares its price among iterations whose number depends on the number "
              "of rows",
}
ON_WAVES = ("linear", "logistic", "mlp")  # an image becomes fixed features of itself
NAMES = ("cnn", "forest", "linear", "logistic", "mlp", "naive_bayes")
# Clipped at 1 and divided by it: gradients of rows that are fitted already stay small, which keeps
# the probabilities of a rare class where they belong (0.651 against 0.640 AUC on diabetes130).
# Momentum on small tables: 0.905 against 0.900 on halves of 430 digits at epsilon 1.
MLP = Defaults(steps=3.5, learning_rate=0.02, sgd_rate=0.1, even_share=0.3,
               small_optimizer="sgd", decay=0.0, batch=1024, clip=1.0)
CNN = Defaults(steps=3.5, learning_rate=0.005, decay=0.0, batch=1024)
CLIP_SHARE = 0.3


def _linear(encoding: Encoding) -> Defaults:
    """Return the defaults of a linear model.

    A row's gradient is residual times input. It is clipped at a share of the norm that an input
    has by its encoding alone, so that residuals below that share pass whole: normalised
    gradients would draw probabilities of a rare class towards zero.
    """
    return Defaults(steps=1.3, learning_rate=0.1, sgd_rate=0.2, even_share=0.5, decay=0.0,
                    always_full=True, clip=CLIP_SHARE * typical_norm(encoding))


def typical_norm(encoding: Encoding) -> float:
    """Return about what norm an encoded row has, by public facts: one for the intercept, one for
    each truth value and category, a third for each number, and an image's own norm."""
    square = 1.0
    for feature in encoding.features:
        binary = feature.coding is Coding.NUMBER and feature.whole and (
            feature.high - feature.low == 1
        )
        number = feature.coding in (Coding.NUMBER, Coding.MOMENT) and not binary
        square += 1 / 3 if number else 1.0
        if feature.coding is Coding.WAVES:
            square += 2 * wavelets.NORM**2 - 1
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
