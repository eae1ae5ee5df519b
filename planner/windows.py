"""Window calls in, columns computed within a patient's rows (or over released rows) out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlglot import exp

from planner.catalog import Kind
from planner.domain import Domain, Type
from planner.expression import Column, Expression
from planner.functions import Unfit
from planner.relation import Relation, Window, WindowItem, kind_of, rows_max, unit_of
from planner.scalar import Scalars, bind_scalar, short
from planner.scope import claim, refused
from planner.unit_functions import WINDOW_FUNCTIONS

NAMES: dict[type[exp.Expression], str] = {
    exp.RowNumber: "row_number", exp.Rank: "rank", exp.DenseRank: "dense_rank", exp.Lag: "lag",
    exp.Lead: "lead", exp.FirstValue: "first_value", exp.LastValue: "last_value",
    exp.Count: "count", exp.Sum: "sum", exp.Avg: "avg", exp.Min: "min", exp.Max: "max",
}
Lift = Callable[[exp.Expression, Scalars], Expression]


@dataclass(slots=True)
class WindowCollector:
    """The windows of one SELECT; equal ones are computed once.

    `lift` binds what stands inside a window: plain columns, or what a GROUP BY leaves.
    """

    source: int
    relation: Relation
    lift: Lift = bind_scalar
    items: list[WindowItem] = field(default_factory=list)

    def bind(self, node: exp.Window, scalars: Scalars) -> Expression:
        """Return the column that holds the window's value."""
        item = _item(node, self, Scalars(scalars.scope, scalars.aggregate, scalars.aliases,
                                         None, scalars.subquery))
        if item not in self.items:
            self.items.append(item)
        place = self.items.index(item)
        return Column(self.source, f"w{place + 1}", item.domain)

    def above(self, relation: Relation) -> Relation:
        """Return the relation with the windows computed on top of it."""
        return Window(self.source, relation, tuple(self.items)) if self.items else relation


def _item(node: exp.Window, collector: WindowCollector, scalars: Scalars) -> WindowItem:
    """Check one window. Over protected rows its partition must hold the patient.

    Guarantee: the partition of a window over protected rows always includes the unit (emit.py
    prints it), so a row's value is computed from its own patient's rows.
    """
    claim(node, "this", "partition_by", "order", "spec", "over")
    call = node.this
    name = NAMES.get(type(call))
    if name is None:
        raise refused("window", f"{short(call)} is not known as a window function",
                      ", ".join(sorted(WINDOW_FUNCTIONS)), node)
    function = WINDOW_FUNCTIONS[name]
    arguments = _arguments(call, collector, scalars)
    partition = _partition(node, collector, scalars)
    order = _order(node, collector, scalars)
    if function.ordered and not order:
        raise refused("window", f"{name.upper()} needs ORDER BY in its window",
                      f"{name}(...) OVER (PARTITION BY patient_id ORDER BY ...)", node)
    if not function.least <= len(arguments) <= function.most:
        raise refused("types", f"{name.upper()} takes {function.least} to {function.most} "
                      f"arguments, got {len(arguments)}", "", node)
    frame = _frame(node)
    if frame and not function.framed:
        raise refused("window", f"{name.upper()} takes no frame", f"{name}() OVER (... ORDER BY "
                      "...)", node)
    domain = _domain(name, arguments, collector.relation, node)
    return WindowItem(name, arguments, partition, order, frame, domain)


def _domain(
    name: str, arguments: tuple[Expression, ...], relation: Relation, node: exp.Expression
) -> Domain:
    if kind_of(relation) is not Kind.PROTECTED and name in ("sum", "avg"):
        return Domain(Type.REAL)  # released numbers need no bounds
    rows = rows_max(relation) if kind_of(relation) is Kind.PROTECTED else 2**31
    try:
        return WINDOW_FUNCTIONS[name].domain(arguments, rows)
    except Unfit as problem:
        raise refused("types", f"{name.upper()} {problem}", "", node) from None


def _arguments(
    call: exp.Expression, collector: WindowCollector, scalars: Scalars
) -> tuple[Expression, ...]:
    claim(call, "this", "offset", "default", "big_int")
    nodes = [call.args.get(part) for part in ("this", "offset", "default")]
    return tuple(
        collector.lift(n, scalars) for n in nodes if n is not None and not isinstance(n, exp.Star)
    )


def _partition(
    node: exp.Window, collector: WindowCollector, scalars: Scalars
) -> tuple[Expression, ...]:
    found = [collector.lift(part, scalars) for part in node.args.get("partition_by") or ()]
    if kind_of(collector.relation) is not Kind.PROTECTED:
        return tuple(found)
    unit = unit_of(collector.relation)
    own = [
        part for part in found
        if isinstance(part, Column) and (part.source, part.name) == (unit.source, unit.name)
    ]
    if not own:
        raise refused("window-across-patients", "this window would mix different patients' rows",
                      "PARTITION BY the patient key", node)
    others = tuple(part for part in found if part not in own)
    for part in others:
        if part.domain.type in (Type.UNIT, Type.IMAGE):
            raise refused("window-across-patients", f"cannot partition by {short(node)}",
                          "PARTITION BY the patient key of the first table", node)
    return others


def _order(
    node: exp.Window, collector: WindowCollector, scalars: Scalars
) -> tuple[tuple[Expression, bool, bool], ...]:
    order = node.args.get("order")
    found = []
    for entry in order.expressions if order is not None else ():
        claim(entry, "this", "desc", "nulls_first")
        value = collector.lift(entry.this, scalars)
        if value.domain.type in (Type.UNIT, Type.KEY, Type.IMAGE):
            raise refused("key-output", "keys have no order that may be used",
                          "ORDER BY a date or a number", node)
        found.append((value, bool(entry.args.get("desc")), bool(entry.args.get("nulls_first"))))
    return tuple(found)


def _frame(node: exp.Window) -> str:
    """Print a ROWS frame with constant ends; without one, SQL's default holds."""
    spec = node.args.get("spec")
    if spec is None:
        return ""
    claim(spec, "kind", "start", "start_side", "end", "end_side")
    if str(spec.args.get("kind")).upper() != "ROWS":
        raise refused("window", "only ROWS frames are answered",
                      "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW", node)
    ends = [
        _frame_end(spec.args.get(part), spec.args.get(f"{part}_side"), node)
        for part in ("start", "end")
    ]
    return f"ROWS BETWEEN {ends[0]} AND {ends[1]}"


def _frame_end(value: object, side: object, node: exp.Expression) -> str:
    where = str(side or "").upper()
    if value in (None, "CURRENT ROW"):
        return "CURRENT ROW"
    if value == "UNBOUNDED" and where in ("PRECEDING", "FOLLOWING"):
        return f"UNBOUNDED {where}"
    if isinstance(value, exp.Literal) and value.name.isdigit() and len(value.name) <= 5 and (
        where in ("PRECEDING", "FOLLOWING")
    ):
        return f"{int(value.name)} {where}"
    raise refused("window", "a frame's ends are whole constants", "3 PRECEDING", node)
