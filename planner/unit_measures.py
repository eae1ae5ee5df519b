"""Aggregate calls within a patient in, items of a per-patient aggregate out."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlglot import exp

from planner.domain import Type
from planner.expression import Column, Expression
from planner.functions import Unfit, make
from planner.quantiles import reading_of
from planner.relation import Reading, Relation, UnitItem, rows_max
from planner.scalar import Scalars, bind_condition, bind_scalar, conjuncts, constant, short
from planner.scope import claim, refused
from planner.unit_functions import UNIT_FUNCTIONS

NAMES: dict[type[exp.Expression], str] = {
    exp.Count: "count", exp.Sum: "sum", exp.Avg: "avg", exp.Min: "min", exp.Max: "max",
    exp.LogicalAnd: "bool_and", exp.LogicalOr: "bool_or", exp.Median: "median",
    exp.Stddev: "stddev_samp",
    exp.StddevSamp: "stddev_samp", exp.StddevPop: "stddev_pop", exp.Variance: "var_samp",
    exp.VariancePop: "var_pop", exp.CountIf: "count",
}


@dataclass(slots=True)
class UnitCollector:
    """The aggregates of one GROUP BY patient, as they are found; equal ones are one."""

    source: int
    inner: Scalars
    relation: Relation
    per_unit: bool
    items: list[UnitItem] = field(default_factory=list)

    def bind(self, node: exp.Expression) -> Expression:
        """Bind an aggregate over one patient's rows."""
        item = _item(node, self)
        if item not in self.items:
            self.items.append(item)
        place = self.items.index(item)
        return Column(self.source, f"m{place + 1}", item.domain, self.per_unit)


def _item(node: exp.Expression, collector: UnitCollector) -> UnitItem:
    scalars = collector.inner
    conditions: tuple[Expression, ...] = ()
    if isinstance(node, exp.Filter):
        claim(node, "this", "expression")
        conditions = tuple(
            bind_condition(part, scalars) for part in conjuncts(node.expression.this)
        )
        node = node.this
    value, share = _split(node)
    name = "quantile" if share is not None else NAMES.get(type(node))
    if name is None:
        raise refused("unknown-aggregate", f"{short(node)} is not answered within a patient",
                      ", ".join(sorted(UNIT_FUNCTIONS)).upper(), node)
    if isinstance(node, exp.CountIf):
        conditions = (*conditions, bind_condition(node.this, scalars))
        value = None
    if isinstance(value, exp.Distinct):
        claim(value, "expressions")
        if name != "count" or len(value.expressions) != 1:
            raise refused("types", f"{short(node)} is not answered within a patient",
                          "COUNT(DISTINCT x)", node)
        name, value = "distinct", value.expressions[0]
    arguments = () if value is None or isinstance(value, exp.Star) else (
        bind_scalar(value, scalars),
    )
    if share is not None:
        arguments = (*arguments, constant(share))
    if name == "count" and arguments and not arguments[0].domain.nullable:
        arguments = ()
    if name == "count" and arguments and arguments[0].domain.type in (Type.UNIT, Type.KEY):
        conditions = (*conditions, make("not", make("is_null", arguments[0])))
        arguments = ()
    try:
        domain = UNIT_FUNCTIONS[name].domain(arguments, rows_max(collector.relation))
    except Unfit as problem:
        raise refused("types", f"{short(node)} {problem}", "", node) from None
    return UnitItem(name, arguments, conditions, domain)


def _split(node: exp.Expression) -> tuple[exp.Expression | None, float | None]:
    """Return what is aggregated and the share of a quantile."""
    found = reading_of(node)
    if found is not None and found[1][0][0] is Reading.QUANTILE and (
        not isinstance(node, exp.Median)
    ):
        return found[0], found[1][0][1]
    claim(node, "this", "big_int")
    return node.this, None
