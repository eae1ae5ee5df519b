"""A released model as plain numbers in, its prediction for a row as one bounded expression out.

A released model is public, so its weights are constants like those an analyst could write out:
`discreet_predict('readmit', age, sex)` is a shorthand for arithmetic that the planner knows, with
known bounds, on the columns of its own row. No code of the model runs beside private rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from planner.domain import Domain, Type, finite, real
from planner.expression import Expression, Literal, walk
from planner.feature import Coding, Feature, scaled_ends
from planner.functions import Unfit, make

WEIGHTS_MAX = 10_000  # of a model that is written out
PARTS_MAX = 50_000  # nodes of one prediction
Numbers = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One layer: for each output its weights, then the intercepts, then an activation."""

    weights: tuple[Numbers, ...]
    biases: Numbers
    activation: str = "linear"


@dataclass(frozen=True, slots=True)
class Formula:
    """A model that was published under a name: what it reads, and its layers.

    The last layer has one score: the log-odds of the label's second value, or a number that
    `label` scales back. `squares` says that the inputs are followed by the squares of those that
    are numbers. `fault` says why the model cannot be used; then there are no layers.
    """

    name: str
    features: tuple[Feature, ...] = ()
    label: Feature | None = None
    steps: tuple[Step, ...] = field(default=(), repr=False)
    is_probability: bool = True
    squares: bool = False
    fault: str = ""


def constant_number(value: float) -> Literal:
    """Return a constant as a REAL: 1.0 prints as 1e0."""
    return Literal(float(value), real(value, value, nullable=False))


def prediction(formula: Formula, arguments: Sequence[Expression]) -> Expression:
    """Return what the model predicts from these columns, one for each feature, in its order.

    Guarantee: a function of the arguments' own row; never NULL and never an error, and within
    [0, 1] or the label's bounds whatever the arguments hold. Raises Unfit where an argument's
    type is not its feature's.
    """
    if len(arguments) != len(formula.features):
        names = ", ".join(feature.name for feature in formula.features)
        raise Unfit(f"takes {len(formula.features)} columns ({names}), got {len(arguments)}")
    inputs: list[Expression] = []
    for feature, argument in zip(formula.features, arguments, strict=True):
        inputs.extend(_inputs(feature, argument))
    if formula.squares:
        inputs += [make("model_square", value) for value in inputs
                   if getattr(value, "function", "") == "model_input"]
    if sum(1 for value in inputs for _ in walk(value)) > PARTS_MAX:
        raise Unfit("grows too large with these arguments; compute them in a subquery in FROM")
    if len(formula.steps) == 1 and formula.steps[0].activation == "linear":
        (step,) = formula.steps
        score = _score(step.weights[0], step.biases[0], inputs)
    else:
        layers = [[step.weights, step.biases, step.activation] for step in formula.steps]
        score = make("model_network", _text(json.dumps(layers)), *inputs)
    if formula.is_probability or formula.label is None:
        return make("model_probability", score)
    return make("model_outcome", score, *map(constant_number, scaled_ends(formula.label)))


def _score(weights: Numbers, bias: float, values: list[Expression]) -> Expression:
    parts: list[Expression] = [constant_number(bias)]
    for weight, value in zip(weights, values, strict=True):
        if weight != 0:
            parts += [constant_number(weight), value]
    return make("model_score", *parts)


def _inputs(feature: Feature, argument: Expression) -> list[Expression]:
    """Encode one column as models/encoding.py does."""
    if feature.coding is Coding.CHOICE:
        _check(feature, argument, {type(v) for v in feature.values})
        return [_indicator(argument, value) for value in feature.values]
    if feature.coding is Coding.BUCKETS:
        bucket = make("model_bucket", argument, Literal(feature.buckets, _whole(feature.buckets)))
        return [_indicator(bucket, i + 1) for i in range(feature.buckets)]
    if feature.coding is Coding.MOMENT:
        argument = make("model_seconds", argument)
    value = make("model_input", argument, *map(constant_number, scaled_ends(feature)))
    return [value, make("is_null", argument)] if feature.nullable else [value]


def _check(feature: Feature, argument: Expression, kinds: set[type]) -> None:
    wanted = Type.TEXT if kinds == {str} else Type.INTEGER
    if argument.domain.type not in (wanted, Type.REAL if wanted is Type.INTEGER else wanted,
                                    Type.NULL):
        raise Unfit(f"needs {wanted.value} for {feature.name}, got a "
                    f"{argument.domain.type.value}")


def _indicator(argument: Expression, value: str | int) -> Expression:
    """Return 1 where the argument is this value, else 0: NULL is none of them."""
    kind = Type.TEXT if isinstance(value, str) else Type.INTEGER
    same = make("eq", argument, Literal(value, finite(kind, (value,), nullable=False)))
    return make("case", same, constant_number(1), constant_number(0))


def _text(value: str) -> Literal:
    return Literal(value, finite(Type.TEXT, (value,), nullable=False))


def _whole(value: int) -> Domain:
    return finite(Type.INTEGER, (value,), nullable=False)
