"""EXISTS and IN with a subquery in, truth values tied to the same patient out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING

from sqlglot import exp

from planner.catalog import Kind
from planner.domain import Type, boolean
from planner.expression import Column, Expression
from planner.functions import make
from planner.joins import bind_from, check_pair, given_table, same_column
from planner.relation import (
    GIVEN_NAME,
    Filter,
    Mark,
    Nothing,
    Ordered,
    Relation,
    Release,
    Summary,
    Window,
    kind_of,
    unit_of,
)
from planner.scalar import Scalars, bind_condition, bind_scalar, conjuncts, constant
from planner.scope import Named, Scope, claim, refused

if TYPE_CHECKING:
    from planner.bind import Context, Rows

BindQuery = Callable[[exp.Expression, "Context"], "Rows"]
Pair = tuple[Expression, Expression]


@dataclass(slots=True)
class MarkCollector:
    """The EXISTS and IN tests of one SELECT, in the order they were met."""

    context: Context
    bind_query: BindQuery
    relation: Relation
    numbers: count[int]
    marks: list[Mark] = field(default_factory=list)

    def bind(self, node: exp.Expression, scalars: Scalars) -> Expression:
        """Return the truth value that stands for the test."""
        if isinstance(node, exp.Exists):
            return self._exists(node, scalars)
        if isinstance(node, exp.In):
            return self._in(node, scalars)
        return self._scalar(node)

    def above(self, relation: Relation) -> Relation:
        """Return the relation with the truth values computed on top of it."""
        for mark in self.marks:
            relation = Mark(mark.source, relation, mark.other, mark.tie, mark.equal,
                            mark.conditions)
        self.marks.clear()
        return relation

    def _scalar(self, node: exp.Expression) -> Expression:
        """A subquery of one released number: answered first, then a public constant."""
        rows = self.bind_query(node, self.context)
        kind, below = kind_of(rows.relation), rows.relation
        while isinstance(below, Filter | Ordered | Window):
            below = below.input
        single = isinstance(below, Release | Summary) and not below.keys
        if len(rows.outputs) != 1 or kind is not Kind.RELEASED or not single:
            raise refused("scalar-subquery", "a subquery used as a value must be one aggregate "
                          "over all rows", "(SELECT AVG(x) FROM ...)", node)
        source = self.context.give(rows.relation, rows.outputs)
        return Column(source, GIVEN_NAME, rows.outputs[0][1].domain.with_null(), per_unit=True)

    def _in(self, node: exp.In, scalars: Scalars) -> Expression:
        claim(node, "this", "query")
        query = node.args["query"]
        select = query.this if isinstance(query, exp.Subquery) else query
        if not isinstance(select, exp.Select):
            raise refused("subquery", "IN takes a SELECT here", "x IN (SELECT y FROM ...)", node)
        rows = self.bind_query(select, self.context)
        if len(rows.outputs) != 1:
            raise refused("subquery", "IN needs a subquery of one column",
                          "x IN (SELECT y FROM ...)", node)
        value = bind_scalar(node.this, scalars)
        scope = Scope((Named("subquery", *rows.outputs[0]),))
        other, scope = given_table(rows.relation, scope, self.context)
        pair = (value, scope.columns[0].expression)
        check_pair(*pair, node)
        mark = self._mark(other, [pair], [], node)
        if not value.domain.nullable:
            return mark
        # Of a NULL nobody knows whether it is in a list, so NOT IN does not hold for it either.
        return make("case", make("is_null", value), constant(None), mark)

    def _exists(self, node: exp.Exists, scalars: Scalars) -> Expression:
        claim(node, "this")
        select = node.this.this if isinstance(node.this, exp.Subquery) else node.this
        if not isinstance(select, exp.Select):
            raise refused("subquery", "EXISTS takes a SELECT", "EXISTS (SELECT 1 FROM ...)", node)
        for clause in ("group", "having", "order", "limit", "offset", "distinct", "with_"):
            if select.args.get(clause):
                raise refused("subquery", f"{clause.strip('_').upper()} inside EXISTS is not "
                              "answered", "key IN (SELECT key ... GROUP BY key HAVING ...)", node)
        claim(select, "expressions", "from_", "joins", "where")
        other, inner, used = bind_from(select, self.context, self.bind_query)
        other, inner = given_table(other, inner, self.context)
        both = _both(inner, scalars.scope)
        equal: list[Pair] = []
        conditions: list[Expression] = []
        where = select.args.get("where")
        for part in conjuncts(where.this) if where is not None else ():
            if id(part) in used:
                continue
            pair = _correlated(part, inner, both)
            if pair is not None:
                check_pair(*pair, part)
                equal.append(pair)
            else:
                conditions.append(bind_condition(part, Scalars(both)))
        return self._mark(other, equal, conditions, node)

    def _mark(
        self, other: Relation, equal: list[Pair], conditions: list[Expression],
        node: exp.Expression,
    ) -> Expression:
        """Add one test. Guarantee: a protected `other` is looked at for the same unit only."""
        kinds = (kind_of(self.relation), kind_of(other))
        if isinstance(self.relation, Nothing) or (
            kinds[1] is Kind.PROTECTED and kinds[0] is not Kind.PROTECTED
        ):
            raise refused("subquery", "this test would read patients' rows for no patient",
                          "SELECT COUNT(*) FROM patients WHERE EXISTS (...)", node)
        tie = kinds[1] is Kind.PROTECTED
        if tie and not any(a.domain.type in (Type.UNIT, Type.KEY) for a, _ in equal):
            raise refused("cross-patient-subquery", "this test would look at other patients' rows",
                          "add equality of the patient key inside the subquery", node)
        if tie:
            own = (unit_of(self.relation), unit_of(other))
            equal = [p for p in equal if not all(
                same_column(x, y) for x, y in zip(p, own, strict=True))]
        mark = Mark(next(self.numbers), self.relation, other, tie, tuple(equal),
                    tuple(conditions))
        for known in self.marks:
            if (known.other, known.equal, known.conditions) == (mark.other, mark.equal,
                                                                mark.conditions):
                return Column(known.source, "e1", boolean(nullable=False))
        self.marks.append(mark)
        return Column(mark.source, "e1", boolean(nullable=False))


def _both(inner: Scope, outer: Scope) -> Scope:
    """Return what the subquery sees: its own names first, as SQL has it."""
    tables = {t.lower() for t in inner.tables()}
    names = {c.name.lower() for c in inner.columns}
    return inner + Scope(tuple(
        replace(c, merged=True) if c.name.lower() in names else c
        for c in outer.columns if c.table.lower() not in tables
    ))


def _correlated(part: exp.Expression, inner: Scope, both: Scope) -> Pair | None:
    """Return (outer, inner) of an equality between the two levels, or None."""
    if not isinstance(part, exp.EQ):
        return None
    sides: list[tuple[bool, Expression]] = []
    for node in (part.this, part.expression):
        if not isinstance(node, exp.Column):
            return None
        within = bool(inner.find(node.name, node.table or None))
        sides.append((within, bind_scalar(node, Scalars(inner if within else both))))
    if sides[0][0] == sides[1][0]:
        return None
    outer, found = sorted(sides, key=lambda side: side[0])
    return outer[1], found[1]


__all__ = ["MarkCollector"]
