"""Aggregate calls in, measures of a release (or plain aggregates of released rows) out."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlglot import exp

from planner.domain import Domain, Type, integer, real
from planner.expression import Call, Column, Expression
from planner.functions import make
from planner.narrowing import narrowed_interval
from planner.relation import Aggregate, Measure, Relation, measure_domain
from planner.scalar import Scalars, bind_condition, bind_scalar, conjuncts, constant, short
from planner.scope import claim, refused


@dataclass(slots=True)
class Collector:
    """The measures of one GROUP BY as they are found; equal ones are measured once."""

    source: int
    inner: Scalars
    relation: Relation
    measures: list[Measure] = field(default_factory=list)
    aggregates: list[tuple[str, bool, Expression | None, tuple[Expression, ...]]] = field(
        default_factory=list
    )

    def measure(self, measure: Measure) -> Column:
        """Return the released column of a measure, adding it when it is new."""
        if measure not in self.measures:
            self.measures.append(measure)
        place = self.measures.index(measure)
        return Column(self.source, f"m{place + 1}", measure_domain(measure))


def bind_measure(node: exp.Expression, collector: Collector) -> Expression:
    """Bind an aggregate over protected rows to measures and the arithmetic between them."""
    node, conditions = _filter(node, collector)
    if isinstance(node, exp.Count):
        return _count(node, conditions, collector)
    if isinstance(node, exp.CountIf):
        claim(node, "this")
        extra = bind_condition(node.this, collector.inner)
        return collector.measure(_rows((*conditions, extra)))
    if isinstance(node, exp.Sum | exp.Avg):
        return _sum(node, conditions, collector)
    name = node.sql_name() if isinstance(node, exp.Func) else node.key.upper()
    raise refused("unknown-aggregate", f"{name} is not answered over patients' rows yet",
                  "COUNT, SUM, AVG, COUNT(DISTINCT ...)", node)


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


def _rows(conditions: tuple[Expression, ...]) -> Measure:
    return Measure(Aggregate.COUNT, None, _sorted(conditions))


def _sorted(conditions: tuple[Expression, ...]) -> tuple[Expression, ...]:
    if not conditions:
        return ()
    both = make("and", *conditions) if len(conditions) > 1 else conditions[0]
    return both.arguments if isinstance(both, Call) and both.function == "and" else (both,)


def _count(
    node: exp.Count, conditions: tuple[Expression, ...], collector: Collector
) -> Expression:
    claim(node, "this", "big_int")
    inner = node.this
    if inner is None or isinstance(inner, exp.Star):
        return collector.measure(_rows(conditions))
    if not isinstance(inner, exp.Distinct):
        value = bind_scalar(inner, collector.inner)
        return collector.measure(_count_of(value, conditions))
    claim(inner, "expressions")
    if len(inner.expressions) != 1:
        raise refused("types", "COUNT(DISTINCT a, b) is not answered",
                      "COUNT(DISTINCT a || '/' || b)", node)
    value = bind_scalar(inner.expressions[0], collector.inner)
    if value.domain.type is Type.IMAGE:
        raise refused("types", "images are not counted by value", "COUNT(x)", node)
    if value.domain.nullable:
        conditions = (*conditions, make("not", make("is_null", value)))
    if value.domain.type is Type.UNIT:
        return collector.measure(Measure(Aggregate.UNITS, None, _sorted(conditions)))
    return collector.measure(Measure(Aggregate.DISTINCT, value, _sorted(conditions)))


def _count_of(value: Expression, conditions: tuple[Expression, ...]) -> Measure:
    """COUNT(x) counts rows where x is not NULL: one canonical form for both spellings."""
    if value.domain.nullable:
        conditions = (*conditions, make("not", make("is_null", value)))
    return _rows(conditions)


def _sum(
    node: exp.Sum | exp.Avg, conditions: tuple[Expression, ...], collector: Collector
) -> Expression:
    claim(node, "this")
    name = node.sql_name()
    if isinstance(node.this, exp.Distinct):
        raise refused("types", f"{name}(DISTINCT ...) is not answered",
                      f"{name} over a GROUP BY that makes values distinct", node)
    value = bind_scalar(node.this, collector.inner)
    if not (value.domain.is_number or value.domain.type is Type.BOOLEAN):
        raise refused("types", f"{name} needs numbers, {short(node.this)} is a "
                      f"{value.domain.type.value}", "COUNT(DISTINCT ...)", node)
    value, ends = _bounded(value, conditions, collector, node, name)
    if isinstance(node, exp.Sum):
        return collector.measure(Measure(Aggregate.SUM, value, _sorted(conditions)))
    middle = (ends[0] + ends[1]) / 2
    total = collector.measure(Measure(Aggregate.SUM, value, _sorted(conditions), center=middle))
    number = collector.measure(_count_of(value, conditions))
    parts = (total, number, constant(middle), constant(ends[0]), constant(ends[1]))
    return make("average", *parts)


def _bounded(
    value: Expression, conditions: tuple[Expression, ...], collector: Collector,
    node: exp.Expression, name: str,
) -> tuple[Expression, tuple[float, float]]:
    """Return the value with the tightest bounds that the text itself proves.

    The bounds only choose where the value is clamped (bounding.py), so a wrong bound would cost
    accuracy, never privacy.
    """
    ends = narrowed_interval(value, collector.relation, conditions)
    if ends is None:
        inner = short(node.this) if node.this is not None else ""
        raise refused("unbounded", f"{name} needs known bounds: {inner} can be any number",
                      f"{name}(CLAMP({inner}, 0, 1000))", node)
    current = value.domain.interval
    if current != ends:
        kind = integer if value.domain.type is Type.INTEGER else real
        value = _with_domain(value, kind(ends[0], ends[1], value.domain.nullable))
    return value, ends


def _with_domain(value: Expression, domain: Domain) -> Expression:
    if isinstance(value, Column):
        return Column(value.source, value.name, domain, value.per_unit)
    if isinstance(value, Call):
        return Call(value.function, value.arguments, domain)
    return value


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
