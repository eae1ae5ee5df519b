"""An expression over noisy numbers in, expressions for the two ends of its interval out.

If each noisy number lies within its half-width of the exact one, the exact value of the whole
expression lies between the two ends. With j noisy numbers each half-width is taken at confidence
1 - 0.05 / j, so that all hold together with at least 95 % (Bonferroni).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.domain import Domain, Type, real
from planner.emit import HALF_WIDTH
from planner.expression import Call, Column, Expression, Literal, columns_of
from planner.functions import Unfit, make
from planner.relation import Relation, Release, walk_relations
from planner.scalar import constant

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Ends:
    """The lower and upper end of an expression, as expressions of the released table."""

    low: Expression
    high: Expression


def half_width_column(measure: Column, together: int) -> Column:
    """Return the column that holds a measure's half-width when `together` hold at once."""
    name = f"{measure.name}{HALF_WIDTH}{together}"
    return Column(measure.source, name, Domain(Type.REAL, nullable=False))


def confidence_of(together: int) -> float:
    """Return the confidence of one half-width so that `together` of them hold with 95 %."""
    return 1 - (1 - CONFIDENCE) / together


def ends_of(expression: Expression, relation: Relation) -> Ends | None:
    """Return the interval of an output, or None where it is not a noisy number.

    None also stands for expressions whose error is not followed: it is never guessed.
    """
    releases = {n.source for n in walk_relations(relation) if isinstance(n, Release)}
    noisy = tuple(
        c for c in columns_of(expression) if c.source in releases and c.name.startswith("m")
    )
    if not noisy or not expression.domain.is_number:
        return None
    try:
        return _ends(expression, frozenset(noisy), len(noisy))
    except Unfit:
        return None


def _ends(node: Expression, noisy: frozenset[Column], together: int) -> Ends | None:
    if not any(column in noisy for column in columns_of(node)):
        return Ends(node, node)
    if isinstance(node, Column):
        width = half_width_column(node, together)
        value = replace(node, domain=real(None, None, False))
        return Ends(make("sub", value, width), make("add", value, width))
    if not isinstance(node, Call):
        return None
    inner = [_ends(argument, noisy, together) for argument in node.arguments]
    if any(part is None for part in inner):
        return None
    return _combined(node, [part for part in inner if part is not None])


def _combined(node: Call, inner: list[Ends]) -> Ends | None:
    name = node.function
    if name == "average":
        return _average(node, inner)
    if name == "add":
        return Ends(make("add", inner[0].low, inner[1].low), make("add", inner[0].high,
                                                                  inner[1].high))
    if name == "sub":
        return Ends(make("sub", inner[0].low, inner[1].high), make("sub", inner[0].high,
                                                                   inner[1].low))
    if name == "neg":
        return Ends(make("neg", inner[0].high), make("neg", inner[0].low))
    if name in ("mul", "div"):
        return _corners(name, inner[0], inner[1])
    rising = name in ("floor", "ceil", "trunc", "round", "sqrt", "ln", "log10", "log2", "exp",
                      "least", "greatest", "clamp", "coalesce")
    cast = name == "cast" and node.domain.is_number
    constants = all(isinstance(a, Literal) for a in node.arguments[1:])
    if cast:
        return Ends(make(name, node.arguments[0], inner[1].low),
                    make(name, node.arguments[0], inner[1].high))
    if rising and constants:
        rest = node.arguments[1:]
        return Ends(make(name, inner[0].low, *rest), make(name, inner[0].high, *rest))
    return None


def _corners(name: str, left: Ends, right: Ends) -> Ends:
    """Ends of a product or quotient; NULL where the divisor may be zero."""
    values = [make(name, x, y) for x in (left.low, left.high) for y in (right.low, right.high)]
    low, high = make("least", *values), make("greatest", *values)
    if name == "mul":
        return Ends(low, high)
    positive = make("lt", constant(0), right.low)
    negative = make("lt", right.high, constant(0))
    sure = make("or", positive, negative)
    return Ends(make("case", sure, low, constant(None)), make("case", sure, high, constant(None)))


def _average(node: Call, inner: list[Ends]) -> Ends:
    """Ends of middle + total / rows within the value's own bounds.

    Where the number of rows may be below one, the whole declared interval is honest.
    """
    total, rows = inner[0], inner[1]
    middle, low, high = node.arguments[2], node.arguments[3], node.arguments[4]
    parts = [make("div", t, r) for t in (total.low, total.high) for r in (rows.low, rows.high)]
    sure = make("le", constant(1.0), rows.low)
    least = make("greatest", make("add", middle, make("least", *parts)), low)
    most = make("least", make("add", middle, make("greatest", *parts)), high)
    return Ends(make("case", sure, make("least", least, high), low),
                make("case", sure, make("greatest", most, low), high))
