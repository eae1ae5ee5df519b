"""An expression over noisy numbers and their half-widths in, its interval out.

If each noisy number lies within its half-width of the exact one, the exact value of the whole
expression lies in the interval (interval arithmetic). With j noisy numbers each half-width is
taken at confidence 1 - 0.05 / j, so that all hold together with at least 95 % (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from math import inf, isfinite, sqrt
from statistics import NormalDist

from planner.domain import Domain, Type, Value
from planner.expression import Call, Column, Expression, Literal, columns_of, walk
from planner.functions import FUNCTIONS, NotEnumerable, evaluate
from planner.relation import Relation, Release, Summary, walk_relations

CONFIDENCE = 0.95
Interval = tuple[float, float]
Values = Mapping[Expression, Value | None]
Widths = Mapping[Column, tuple[float, float]]  # below and above the noisy number

# Rising in the first argument when the others are constants.
RISING = frozenset({"floor", "ceil", "trunc", "round", "sqrt", "ln", "log10", "log2", "exp",
                    "least", "greatest", "clamp", "coalesce"})


def confidence_of(together: int, confidence: float = CONFIDENCE) -> float:
    """Return the confidence of one half-width so that `together` of them hold with 95 %."""
    return 1 - (1 - confidence) / together


def noisy_columns(expression: Expression, relation: Relation) -> tuple[Column, ...]:
    """Return the measures an output is computed from; none for what has no interval.

    An output that is not a number, or that reads an aggregate of noisy numbers, gets none: its
    error is not followed, and never guessed.
    """
    releases = {n.source for n in walk_relations(relation) if isinstance(n, Release)}
    releases |= set(totals_of(relation))
    columns = columns_of(expression)
    if not expression.domain.is_number or any(c.source not in releases for c in columns):
        return ()
    return tuple(c for c in columns if c.name.startswith(("m", "q")))


def derived_columns(relation: Relation) -> dict[Expression, Expression]:
    """Return each statistic's column with the formula over measures that it stands for."""
    return {
        Column(node.source, f"d{i + 1}", expression.domain): expression
        for node in walk_relations(relation) if isinstance(node, Release)
        for i, expression in enumerate(node.derived)
    }


def totals_of(relation: Relation) -> dict[int, int]:
    """Return each ROLLUP's number with that of the release whose parts it adds up."""
    return {
        node.source: node.input.source for node in walk_relations(relation)
        if isinstance(node, Summary) and node.sets and isinstance(node.input, Release)
    }


def parts_column(total: Column) -> Column:
    """Return the column that counts how many noisy numbers a total adds up."""
    return Column(total.source, "n", Domain(Type.INTEGER, nullable=False))


def summed_width(single: float, deviation: float, parts: float, confidence: float) -> float:
    """Return the half-width of a sum of equal independent noises.

    The normal tail with a tenth on top covers a sum of two or more Laplace noises, whose tail is
    heavier than normal by at most 8 % (a single one's, which is given as it is).
    """
    if parts <= 1:
        return single
    return 1.1 * NormalDist().inv_cdf(0.5 + confidence / 2) * deviation * sqrt(parts)


@lru_cache(maxsize=4096)
def ends_of(column: Column) -> tuple[Column, ...]:
    """Return the two columns that hold the ends of what is read off a tree; none for others."""
    if not column.name.startswith("q"):
        return ()
    return tuple(replace(column, name=f"{column.name}_{end}") for end in ("low", "high"))


def noisy_nodes(expression: Expression, noisy: Iterable[Column]) -> frozenset[Expression]:
    """Return the node and those below it that depend on a noisy column."""
    columns = frozenset(noisy)
    return frozenset(
        node for node in walk(expression) if not columns.isdisjoint(columns_of(node))
    )


def interval_of(
    expression: Expression, values: Values, widths: Widths, noisy: frozenset[Expression]
) -> Interval | None:
    """Return the closed interval of an expression for one row, or None where it is not known.

    `values` gives every column of the expression, `widths` how far the exact number can lie
    below and above each noisy one; `noisy` are the expression's noisy nodes, found once for all
    rows.
    """
    try:
        found = _interval(expression, values, widths, noisy)
    except NotEnumerable:
        return None
    if found is None or not (isfinite(found[0]) and isfinite(found[1])):
        return None
    return found


def _interval(
    node: Expression, values: Values, widths: Widths, noisy: frozenset[Expression]
) -> Interval | None:
    if node not in noisy:
        value = evaluate(node, values)
        if not isinstance(value, int | float):
            return None
        return (float(value), float(value))
    if isinstance(node, Column) and ends_of(node):
        low, high = (values.get(end) for end in ends_of(node))
        known = isinstance(low, int | float) and isinstance(high, int | float)
        return (float(low), float(high)) if known else None  # type: ignore[arg-type]
    if isinstance(node, Column):
        value = values[node]
        if not isinstance(value, int | float):
            return None
        below, above = widths[node]
        return (value - below, value + above)
    if not isinstance(node, Call):
        return None
    if node.function == "cast":
        inside = node.arguments[1] if node.domain.is_number else None
        return None if inside is None else _interval(inside, values, widths, noisy)
    constants = all(isinstance(a, Literal) for a in node.arguments[1:])
    if node.function in RISING and constants:
        return _risen(node, values, widths, noisy)
    if node.function == "from_two_rows":
        return _from_two_rows(node, values, widths, noisy)
    inner = [_interval(argument, values, widths, noisy) for argument in node.arguments]
    ends = [end for end in inner if end is not None]
    return _combined(node.function, ends) if len(ends) == len(inner) else None


def _from_two_rows(
    node: Call, values: Values, widths: Widths, noisy: frozenset[Expression]
) -> Interval | None:
    """Ends of a statistic that needs two rows: with fewer, all it can be, or unknown."""
    rows, value = (_interval(argument, values, widths, noisy) for argument in node.arguments)
    return value if rows is not None and rows[0] >= 2 else node.domain.interval


def _risen(
    node: Call, values: Values, widths: Widths, noisy: frozenset[Expression]
) -> Interval | None:
    inside = _interval(node.arguments[0], values, widths, noisy)
    python = FUNCTIONS[node.function].python
    if inside is None or python is None:
        return None
    rest = [a.value for a in node.arguments[1:] if isinstance(a, Literal)]
    try:
        low, high = (python(end, *rest) for end in inside)
    except (ArithmeticError, ValueError):
        return None
    if not (isinstance(low, int | float) and isinstance(high, int | float)):
        return None
    return (float(low), float(high))


def _combined(name: str, ends: list[Interval]) -> Interval | None:
    if name == "add":
        return (ends[0][0] + ends[1][0], ends[0][1] + ends[1][1])
    if name == "sub":
        return (ends[0][0] - ends[1][1], ends[0][1] - ends[1][0])
    if name == "neg":
        return (-ends[0][1], -ends[0][0])
    if name == "mul":
        corners = [x * y for x in ends[0] for y in ends[1]]
        return (min(corners), max(corners))
    if name == "div":
        return _quotient(ends[0], ends[1])
    if name == "average":
        return _average(ends)
    return None


def _quotient(top: Interval, bottom: Interval) -> Interval | None:
    if bottom[0] <= 0 <= bottom[1]:
        return None
    corners = [x / y for x in top for y in bottom]
    return (min(corners), max(corners))


def _average(ends: list[Interval]) -> Interval:
    """Ends of middle + total / rows within the value's own bounds.

    Where there may be less than one row, the whole declared interval is honest.
    """
    total, rows, (middle, _), (low, _), (high, _) = ends
    if not rows[0] >= 1:
        return (low, high)
    mean = _quotient(total, rows) or (-inf, inf)
    least, most = middle + mean[0], middle + mean[1]
    return (min(max(least, low), high), max(min(most, high), low))
