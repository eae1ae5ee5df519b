"""Aggregate calls in, measures of a release (or plain aggregates of released rows) out."""

from __future__ import annotations

from sqlglot import exp

from planner.collector import (
    Collector,
    bounded_value,
    count_of,
    count_rows,
    sorted_conditions,
    with_domain,
)
from planner.domain import Domain, Type, integer, real
from planner.expression import Column, Expression
from planner.functions import make
from planner.grid import middle_of
from planner.moments import MOMENTS, bind_moment
from planner.narrowing import narrowed_interval
from planner.quantiles import mode_argument, reading_domain, reading_of, tree_argument
from planner.relation import Aggregate, Measure, Quantile, Reading
from planner.scalar import bind_condition, bind_scalar, conjuncts, constant, short
from planner.scope import claim, refused


def bind_measure(node: exp.Expression, collector: Collector) -> Expression:
    """Bind an aggregate over protected rows to measures and the arithmetic between them."""
    node, conditions = _filter(node, collector)
    if isinstance(node, exp.Count):
        return _count(node, conditions, collector)
    if isinstance(node, exp.CountIf):
        claim(node, "this")
        extra = bind_condition(node.this, collector.inner)
        return collector.measure(count_rows((*conditions, extra)))
    if isinstance(node, exp.ApproxDistinct):
        claim(node, "this")
        return _distinct(node.this, conditions, collector, node)
    if isinstance(node, exp.Sum | exp.Avg):
        return _sum(node, conditions, collector)
    if isinstance(node, MOMENTS):
        return bind_moment(node, conditions, collector)
    found = reading_of(node)
    if found is not None:
        return _reading(node, found, conditions, collector)
    name = node.sql_name() if isinstance(node, exp.Func) else node.key.upper()
    raise refused("unknown-aggregate", f"{name} is not answered over patients' rows yet",
                  "COUNT, SUM, AVG, MEDIAN, QUANTILE_CONT, MIN, MAX, MODE, STDDEV, CORR", node)


def _reading(
    node: exp.Expression, found: tuple[exp.Expression, tuple[tuple[Reading, float], ...]],
    conditions: tuple[Expression, ...], collector: Collector,
) -> Expression:
    """Bind a quantile, MIN, MAX or MODE: one tree serves all quantiles of a value."""
    inner, ((reading, share),) = found
    if isinstance(inner, exp.Distinct):
        raise refused("types", "DISTINCT is not answered here", "leave out DISTINCT", node)
    value = bind_scalar(inner, collector.inner)
    name = node.sql_name() if isinstance(node, exp.Func) else "a quantile"
    if reading is Reading.MODE:
        aggregate = mode_argument(value, node)
    else:
        ends = narrowed_interval(value, collector.relation, conditions) if (
            value.domain.is_number) else None
        aggregate = tree_argument(value, ends, name, node)
        if ends is not None and value.domain.interval != ends:
            kind = integer if value.domain.type is Type.INTEGER else real
            value = with_domain(value, kind(ends[0], ends[1], value.domain.nullable))
    if value.domain.nullable:
        conditions = (*conditions, make("not", make("is_null", value)))
    measure = Measure(aggregate, value, sorted_conditions(conditions))
    place = int(collector.measure(measure).name[1:]) - 1
    return collector.reading(Quantile(place, reading, share, reading_domain(value, reading)))


def _filter(
    node: exp.Expression, collector: Collector
) -> tuple[exp.Expression, tuple[Expression, ...]]:
    """Split FILTER (WHERE ...) from the aggregate it belongs to."""
    if not isinstance(node, exp.Filter):
        return node, ()
    claim(node, "this", "expression")
    parts = [
        bind_condition(part, collector.inner) for part in conjuncts(node.expression.this)
    ]
    return node.this, tuple(parts)


def _count(
    node: exp.Count, conditions: tuple[Expression, ...], collector: Collector
) -> Expression:
    claim(node, "this", "big_int")
    inner = node.this
    if inner is None or isinstance(inner, exp.Star):
        return collector.measure(count_rows(conditions))
    if not isinstance(inner, exp.Distinct):
        inner, conditions = _unwrapped(inner, conditions, collector)
        value = bind_scalar(inner, collector.inner)
        return collector.measure(count_of(value, conditions))
    claim(inner, "expressions")
    if len(inner.expressions) != 1:
        raise refused("types", "COUNT(DISTINCT a, b) is not answered",
                      "COUNT(DISTINCT a || '/' || b)", node)
    return _distinct(inner.expressions[0], conditions, collector, node)


def _unwrapped(
    inner: exp.Expression, conditions: tuple[Expression, ...], collector: Collector,
    zero: bool = False,
) -> tuple[exp.Expression, tuple[Expression, ...]]:
    """Read COUNT(CASE WHEN c THEN x END) as COUNT(x) FILTER (WHERE c), one form for both.

    With `zero` (sums), ELSE 0 adds nothing either.
    """
    if not isinstance(inner, exp.Case | exp.If):
        return inner, conditions
    branches = inner.args.get("ifs") if isinstance(inner, exp.Case) else [inner]
    other = inner.args.get("default" if isinstance(inner, exp.Case) else "false")
    if (inner.args.get("ifs") and inner.this is not None) or len(branches or ()) != 1:
        return inner, conditions
    nothing = isinstance(other, exp.Null) or (
        zero and isinstance(other, exp.Literal) and other.name in ("0", "0.0")
    )
    if other is not None and not nothing:
        return inner, conditions
    branch = branches[0]  # type: ignore[index]
    value = branch.args["true"]
    if not isinstance(value, exp.Column | exp.Literal):
        return inner, conditions
    return value, (*conditions, bind_condition(branch.this, collector.inner))


def _distinct(
    inner: exp.Expression, conditions: tuple[Expression, ...], collector: Collector,
    node: exp.Expression,
) -> Expression:
    inner, conditions = _unwrapped(inner, conditions, collector)
    value = bind_scalar(inner, collector.inner)
    if value.domain.type is Type.IMAGE:
        raise refused("types", "images are not counted by value", "COUNT(x)", node)
    if value.domain.nullable:
        conditions = (*conditions, make("not", make("is_null", value)))
    if value.domain.type is Type.UNIT:
        return collector.measure(Measure(Aggregate.UNITS, None, sorted_conditions(conditions)))
    return collector.measure(Measure(Aggregate.DISTINCT, value, sorted_conditions(conditions)))


def _sum(
    node: exp.Sum | exp.Avg, conditions: tuple[Expression, ...], collector: Collector
) -> Expression:
    claim(node, "this")
    name = node.sql_name()
    if isinstance(node.this, exp.Distinct):
        raise refused("types", f"{name}(DISTINCT ...) is not answered",
                      f"{name} over a GROUP BY that makes values distinct", node)
    inner = node.this
    if isinstance(node, exp.Sum):
        inner, conditions = _unwrapped(inner, conditions, collector, zero=True)
    value = bind_scalar(inner, collector.inner)
    if not (value.domain.is_number or value.domain.type is Type.BOOLEAN):
        raise refused("types", f"{name} needs numbers, {short(node.this)} is a "
                      f"{value.domain.type.value}", "COUNT(DISTINCT ...)", node)
    value, ends = bounded_value(value, conditions, collector, node, name)
    if isinstance(node, exp.Sum):
        return collector.measure(Measure(Aggregate.SUM, value, sorted_conditions(conditions)))
    middle = middle_of(ends, value.domain.type)
    total = collector.measure(
        Measure(Aggregate.SUM, value, sorted_conditions(conditions), center=middle)
    )
    number = collector.measure(count_of(value, conditions))
    center = collector.center(total, middle)
    parts = (total, number, center, constant(ends[0]), constant(ends[1]))
    return make("average", *parts)


# Aggregates of released or public rows: plain SQL on numbers that are already out.
PLAIN: dict[type[exp.Expression], str] = {
    exp.Count: "COUNT", exp.Sum: "SUM", exp.Avg: "AVG", exp.Min: "MIN", exp.Max: "MAX",
    exp.Median: "MEDIAN", exp.Stddev: "STDDEV", exp.StddevSamp: "STDDEV_SAMP",
    exp.StddevPop: "STDDEV_POP", exp.Variance: "VAR_SAMP", exp.VariancePop: "VAR_POP",
}


def bind_summary(node: exp.Expression, collector: Collector) -> Expression:
    """Bind an aggregate over released or public rows."""
    node, conditions = _filter(node, collector)
    name = PLAIN.get(type(node))
    if name is None:
        raise refused("unknown-aggregate", f"{short(node)} is not answered here",
                      "COUNT, SUM, AVG, MIN, MAX, MEDIAN, STDDEV, VARIANCE", node)
    claim(node, "this", "big_int")
    inner = node.this
    distinct = isinstance(inner, exp.Distinct)
    if distinct:
        claim(inner, "expressions")
        inner = inner.expressions[0]
    star = inner is None or isinstance(inner, exp.Star)
    value = None if star else bind_scalar(inner, collector.inner)
    if value is not None and name not in ("COUNT", "MIN", "MAX") and not (
        value.domain.is_number or value.domain.type is Type.BOOLEAN
    ):
        raise refused("types", f"{name} needs numbers", "COUNT, MIN or MAX", node)
    entry = (name, distinct, value, conditions)
    if entry not in collector.aggregates:
        collector.aggregates.append(entry)
    place = collector.aggregates.index(entry)
    domain = Domain(Type.INTEGER, False) if name == "COUNT" else (
        value.domain.with_null() if name in ("MIN", "MAX") and value is not None
        else Domain(Type.REAL, True)
    )
    return Column(collector.source, f"m{place + 1}", domain)


__all__ = ["Collector", "bind_measure", "bind_summary"]
