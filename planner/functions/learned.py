"""The arithmetic of released models: bounded inputs in, bounded scores as total SQL out.

Only planner/formula.py builds these calls; no name here is a function of the analysts'. All
weights are constants of the statement: a call reads its own row and nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from planner.domain import MOMENTS, Domain, Type, integer, real
from planner.expression import Expression, Literal
from planner.functions.arithmetic import SAFE_MAX
from planner.functions.entry import Function, Unfit, describe, double, need_numbers, number

Arguments = tuple[Expression, ...]
Printed = tuple[str, ...]
BOUND = 40.0  # beyond it a logistic function is 0 or 1 in a DOUBLE


def _constants(arguments: Arguments) -> list[float]:
    found = [a.value for a in arguments if isinstance(a, Literal)]
    values = [float(v) for v in found if isinstance(v, int | float)]
    if len(values) != len(arguments) or not all(abs(v) <= SAFE_MAX for v in values):
        raise Unfit("needs constants")
    return values


def _ends(argument: Expression) -> tuple[float, float]:
    ends = argument.domain.interval
    if ends is None or argument.domain.nullable:
        raise Unfit("needs a bounded number that is never NULL")
    return ends


# ---- inputs ---------------------------------------------------------------------------------


def _input(arguments: Arguments) -> Domain:
    need_numbers(arguments[:1])
    _, half = _constants(arguments[1:])
    if not half > 0:
        raise Unfit("needs a width above zero")
    return real(-1.0, 1.0, nullable=False)


def _input_sql(printed: Printed, arguments: Arguments) -> str:
    """Scale by declared bounds; what is missing is 0, as in models/encoding.py."""
    middle, half = _constants(arguments[1:])
    scaled = f"({number(printed[0], arguments[0])} - {double(middle)}) / {double(half)}"
    return f"LEAST(GREATEST(COALESCE({scaled}, 0e0), -1e0), 1e0)"


def _seconds(arguments: Arguments) -> Domain:
    domain = arguments[0].domain
    if domain.type not in MOMENTS or domain.low is None or domain.high is None:
        raise Unfit(f"needs a date or timestamp with bounds, got {describe(arguments[0])}")
    return real(None, None, domain.nullable)


def _bucket(arguments: Arguments) -> Domain:
    if arguments[0].domain.type is not Type.TEXT:
        raise Unfit(f"needs text, got {describe(arguments[0])}")
    (buckets,) = _constants(arguments[1:])
    return integer(0, buckets, nullable=False)


def _bucket_sql(printed: Printed, arguments: Arguments) -> str:
    digits = f"CAST('0x' || left(md5({printed[0]}), 12) AS BIGINT)"
    return f"COALESCE(1 + {digits} % {int(_constants(arguments[1:])[0])}, 0)"


# ---- scores ---------------------------------------------------------------------------------


def _weighted(arguments: Arguments) -> Domain:
    """bias + w1 x1 + w2 x2 + ...: rounding is monotone, so the ends of the sum are its bounds."""
    (low,) = _constants(arguments[:1])
    high = low
    for weight, value in zip(_constants(arguments[1::2]), arguments[2::2], strict=True):
        ends = [weight * end for end in _ends(value)]
        low, high = low + min(ends), high + max(ends)
    if not max(abs(low), abs(high)) <= SAFE_MAX:
        raise Unfit("has weights that are too large")
    return real(low, high, nullable=False)


def _weighted_sql(printed: Printed, arguments: Arguments) -> str:
    terms = [
        f"{printed[i]} * {number(printed[i + 1], arguments[i + 1])}"
        for i in range(1, len(printed), 2)
    ]
    return f"({' + '.join((printed[0], *terms))})"


def _square(arguments: Arguments) -> Domain:
    low, high = _ends(arguments[0])
    return real(0.0, max(low * low, high * high), nullable=False)


# ---- layers ---------------------------------------------------------------------------------


def logistic(score: str) -> str:
    """Print a logistic function that is total on every DOUBLE."""
    kept = f"LEAST(GREATEST({score}, {double(-BOUND)}), {double(BOUND)})"
    return f"(1e0 / (1e0 + exp(-{kept})))"


ACTIVATIONS: dict[str, tuple[Callable[[str], str], Callable[[float], float]]] = {
    "linear": (lambda z: z, lambda z: z),
    "relu": (lambda z: f"GREATEST({z}, 0e0)", lambda z: max(z, 0.0)),
    "tanh": (lambda z: f"tanh({z})", math.tanh),
    "sigmoid": (logistic, lambda z: 0.5 + 0.5 * math.tanh(z / 2)),
}
SLACK = 1e-9  # of a bound: the database adds up in an order of its own


def _layers(argument: Expression) -> list[list[Any]]:
    if not (isinstance(argument, Literal) and isinstance(argument.value, str)):
        raise Unfit("needs constants")
    found: list[list[Any]] = json.loads(argument.value)
    return found


def _network(arguments: Arguments) -> Domain:
    """Carry the ends of every value through the layers; activations never fall."""
    ends = [_ends(argument) for argument in arguments[1:]]
    for weights, biases, activation in _layers(arguments[0]):
        after = []
        for row, bias in zip(weights, biases, strict=True):
            pairs = [(w * low, w * high) for w, (low, high) in zip(row, ends, strict=True)]
            low, high = bias + sum(map(min, pairs)), bias + sum(map(max, pairs))
            size = max(abs(low), abs(high), sum(max(map(abs, pair)) for pair in pairs))
            if not size <= SAFE_MAX:
                raise Unfit("has weights that are too large")
            act = ACTIVATIONS[activation][1]
            after.append((act(low - SLACK * size), act(high + SLACK * size)))
        ends = after
    ((low, high),) = ends
    return real(low, high, nullable=False)


def _network_sql(printed: Printed, arguments: Arguments) -> str:
    """Print layer by layer: the values of one stand once, in a list that the next one names.

    list_dot_product fails on NULL and on lists of two lengths: no input can be NULL (checked by
    `_network`), and every list is written out here.
    """
    shown = (number(p, a) for p, a in zip(printed[1:], arguments[1:], strict=True))
    values = f"[{', '.join(shown)}]"
    layers = _layers(arguments[0])
    for place, (weights, biases, activation) in enumerate(layers):
        act = ACTIVATIONS[activation][0]
        units = [
            act(f"(list_dot_product([{', '.join(map(double, row))}], h{place}) + {double(bias)})")
            for row, bias in zip(weights, biases, strict=True)
        ]
        inner = f"[{', '.join(units)}]" if place < len(layers) - 1 else units[0]
        values = f"list_transform([{values}], lambda h{place}: {inner})[1]"
    return values


# ---- outcomes -------------------------------------------------------------------------------


def _probability(arguments: Arguments) -> Domain:
    _ends(arguments[0])
    return real(0.0, 1.0, nullable=False)


def _outcome(arguments: Arguments) -> Domain:
    _ends(arguments[0])
    middle, half = _constants(arguments[1:])
    return real(middle - half, middle + half, nullable=False)


def _outcome_sql(printed: Printed, arguments: Arguments) -> str:
    middle, half = _constants(arguments[1:])
    return f"(LEAST(GREATEST({printed[0]}, -1e0), 1e0) * {double(half)} + {double(middle)})"


LEARNED: tuple[Function, ...] = (
    Function("model_input", 3, 3, _input, _input_sql, strict=False),
    Function("model_seconds", 1, 1, _seconds,
             lambda p, a: f"epoch(CAST({p[0]} AS TIMESTAMP))"),
    Function("model_bucket", 2, 2, _bucket, _bucket_sql, strict=False),
    Function("model_score", 1, 20_001, _weighted, _weighted_sql, strict=False),
    Function("model_network", 2, 20_001, _network, _network_sql, strict=False),
    Function("model_square", 1, 1, _square, lambda p, a: f"pow({p[0]}, 2e0)", strict=False),
    Function("model_probability", 1, 1, _probability, lambda p, a: logistic(p[0]),
             strict=False),
    Function("model_outcome", 3, 3, _outcome, _outcome_sql, strict=False),
)
