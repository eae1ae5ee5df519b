"""The measures of one GROUP BY as they are found: values and conditions in, columns out."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlglot import exp

from planner.domain import Domain, Type, integer, real
from planner.expression import Call, Column, Expression
from planner.functions import make
from planner.narrowing import narrowed_interval
from planner.relation import Aggregate, Measure, Quantile, Relation, measure_domain
from planner.scalar import Scalars, constant, short
from planner.scope import refused


@dataclass(slots=True)
class Collector:
    """The measures of one GROUP BY as they are found; equal ones are measured once."""

    source: int
    inner: Scalars
    relation: Relation
    measures: list[Measure] = field(default_factory=list)
    places: dict[Measure, int] = field(default_factory=dict)
    quantiles: list[Quantile] = field(default_factory=list)
    derived: list[Expression] = field(default_factory=list)
    centred: list[int] = field(default_factory=list)
    totalled: bool = False  # sums of this release are added up again: their centers stay
    aggregates: list[tuple[str, bool, Expression | None, tuple[Expression, ...]]] = field(
        default_factory=list
    )

    def derive(self, expression: Expression) -> Column:
        """Return the column of a statistic computed from measures, adding it when it is new."""
        if expression not in self.derived:
            self.derived.append(expression)
        return Column(self.source, f"d{self.derived.index(expression) + 1}", expression.domain)

    def center(self, total: Column, middle: float) -> Expression:
        """Return the center of a sum: a column of the release, for it may be chosen later."""
        if self.totalled:
            return constant(middle)
        place = int(total.name[1:]) - 1
        if place not in self.centred:
            self.centred.append(place)
        return Column(self.source, f"c{place + 1}", real(middle, middle, nullable=False))

    def reading(self, quantile: Quantile) -> Column:
        """Return the column of a number read off a tree, adding it when it is new."""
        if quantile not in self.quantiles:
            self.quantiles.append(quantile)
        return Column(self.source, f"q{self.quantiles.index(quantile) + 1}", quantile.domain)

    def measure(self, measure: Measure) -> Column:
        """Return the released column of a measure, adding it when it is new."""
        place = self.places.setdefault(measure, len(self.measures))
        if place == len(self.measures):
            self.measures.append(measure)
        return Column(self.source, f"m{place + 1}", measure_domain(measure))


def count_rows(conditions: tuple[Expression, ...]) -> Measure:
    """Return the measure that counts rows on which the conditions hold."""
    return Measure(Aggregate.COUNT, None, sorted_conditions(conditions))


def sorted_conditions(conditions: tuple[Expression, ...]) -> tuple[Expression, ...]:
    """Return conditions in the one order that equal questions share."""
    if not conditions:
        return ()
    both = make("and", *conditions) if len(conditions) > 1 else conditions[0]
    return both.arguments if isinstance(both, Call) and both.function == "and" else (both,)


def count_of(value: Expression, conditions: tuple[Expression, ...]) -> Measure:
    """COUNT(x) counts rows where x is not NULL: one canonical form for both spellings."""
    if value.domain.nullable:
        conditions = (*conditions, make("not", make("is_null", value)))
    return count_rows(conditions)


def bounded_value(
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
        value = with_domain(value, kind(ends[0], ends[1], value.domain.nullable))
    return value, ends


def with_domain(value: Expression, domain: Domain) -> Expression:
    """Return a value with other bounds; they say where it will be clamped."""
    if isinstance(value, Column):
        return Column(value.source, value.name, domain, value.per_unit)
    if isinstance(value, Call):
        return Call(value.function, value.arguments, domain)
    return value
