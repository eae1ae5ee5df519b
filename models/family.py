"""Names in, model families out: what each can learn from, and its defaults."""

from __future__ import annotations

from dataclasses import dataclass

from models.descent import Network
from models.encoding import Encoding, Task
from models.linear import LinearModel
from models.run import Defaults, Settings
from planner.refusal import Refused


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
        _no_image(name, encoding)
        return Family(name, LINEAR, LinearModel(encoding))
    if name == "linear":
        if encoding.task is not Task.REAL:
            raise Refused("model", f"{encoding.label.name} has classes, and linear regression "
                          "predicts numbers", "model='logistic'")
        _no_image(name, encoding)
        return Family(name, LINEAR, LinearModel(encoding))
    raise Refused("model", f"no model {name!r}", ", ".join(NAMES))


NAMES = ("linear", "logistic")
LINEAR = Defaults(steps=40, learning_rate=0.1, decay=0.0, always_full=True)


def _no_image(name: str, encoding: Encoding) -> None:
    if encoding.image is not None:
        raise Refused("model", f"a {name} model takes no image", "model='cnn'")
