"""A FROM clause in, one relation and the names it offers out: the unit is kept through joins."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from sqlglot import exp

from planner.catalog import CatalogTable, Kind
from planner.domain import Type
from planner.expression import Column, Expression, columns_of, is_per_unit, replaced, walk
from planner.functions import Unfit, make
from planner.parse import parse
from planner.refusal import Refused
from planner.relation import (
    Filter,
    Given,
    How,
    Join,
    Nothing,
    Ordered,
    Relation,
    Release,
    Scan,
    Window,
    kind_of,
    parent_key,
    rows_max,
    unit_column,
    unit_of,
    with_one_row_per_key,
)
from planner.scalar import Scalars, bind_condition, conjuncts, constant, short
from planner.scope import Named, Scope, claim, refused, resolve

if TYPE_CHECKING:
    from planner.bind import Context, Rows

PARTS_MAX = 2_000  # parts of one column of a derived table

BindQuery = Callable[[exp.Expression, "Context"], "Rows"]


def bind_from(
    select: exp.Select, context: Context, bind_query: BindQuery
) -> tuple[Relation, Scope, frozenset[int]]:
    """Bind FROM and its joins.

    The third part names the WHERE conditions (by identity) that were used to tie tables listed
    with commas; they are true already and must not be bound again.
    """
    clause = select.args.get("from_")
    if clause is None:
        if select.args.get("joins"):
            raise refused("syntax", "JOIN without FROM", "FROM a JOIN b ...", select)
        return Nothing(), Scope(()), frozenset()
    claim(clause, "this")
    relation, scope = _bind_source(clause.this, context, bind_query)
    joins = [*(clause.this.args.get("joins") or ()), *(select.args.get("joins") or ())]
    where = select.args.get("where")
    waiting = conjuncts(where.this) if where is not None else []
    used: set[int] = set()
    for join in joins:
        right, right_scope = _bind_source(join.this, context, bind_query)
        _check_names(scope, right_scope, join)
        if {kind_of(relation), kind_of(right)} == {Kind.PROTECTED, Kind.RELEASED}:
            relation, scope = given_table(relation, scope, context)
            right, right_scope = given_table(right, right_scope, context)
        if used and join.args.get("side") == "RIGHT":
            raise refused("join-type", "RIGHT JOIN after a comma join is not answered",
                          "LEFT JOIN from the table whose rows are all kept", join)
        relation, scope = _joined(join, relation, scope, right, right_scope, waiting, used)
    return relation, scope, frozenset(used)


def _check_names(left: Scope, right: Scope, node: exp.Expression) -> None:
    both = {t.lower() for t in left.tables()} & {t.lower() for t in right.tables()}
    if both:
        name = sorted(both)[0]
        raise refused("ambiguous-table", f"{name} stands twice in FROM",
                      f"{name} AS a JOIN {name} AS b", node)


def _bind_source(
    node: exp.Expression, context: Context, bind_query: BindQuery
) -> tuple[Relation, Scope]:
    if isinstance(node, exp.Table):
        return _bind_table(node, context, bind_query)
    if isinstance(node, exp.Subquery):
        claim(node, "this", "alias", "joins")
        return _derived(node.this, node.alias or "subquery", context, bind_query, node)
    raise refused("from", f"{node.key.upper()} in FROM is not answered",
                  "a table, a CTE or a subquery", node)


def _derived(
    query: exp.Expression, alias: str, context: Context, bind_query: BindQuery,
    node: exp.Expression,
) -> tuple[Relation, Scope]:
    rows = bind_query(query, context)
    names = [name.lower() for name, _ in rows.outputs]
    for name, expression in rows.outputs:
        # A CTE that uses a column twice doubles it; a chain of such CTEs would never end.
        if next(islice(walk(expression), PARTS_MAX, None), None) is not None:
            raise refused("too-large", f"{alias}.{name} has more than {PARTS_MAX:,} parts",
                          "a simpler expression", node)
    for name in names:
        if names.count(name) > 1:
            raise refused("ambiguous-column", f"{alias} has two columns {name}",
                          "rename one with AS", node)
    return rows.relation, Scope(tuple(Named(alias, n, e) for n, e in rows.outputs))


def _bind_table(
    node: exp.Table, context: Context, bind_query: BindQuery
) -> tuple[Relation, Scope]:
    if not isinstance(node.this, exp.Identifier):
        raise refused("table-function", f"{short(node)} is a table function; only declared "
                      "tables are read", "a table of the policy", node)
    claim(node, "this", "alias", "joins")
    alias_node = node.args.get("alias")
    if alias_node is not None:
        claim(alias_node, "this")
    name = node.name
    cte = context.ctes.get(name.lower())
    if cte is not None:
        outer = replace(context, ctes=cte[1])  # type: ignore[arg-type]
        return _derived(cte[0].this, node.alias or name, outer, bind_query, node)
    view = context.view(name)
    if view is not None:
        return _view(view, node.alias or name, bind_query, node)
    table = context.catalog.table(name)
    if table is None:
        known = [t.name for t in context.catalog.tables]
        known += [view for view, _ in context.catalog.views]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:8]
        raise refused("unknown-table", f"no declared table {name}", ", ".join(near), node)
    return _scan(table, node.alias or table.name, next(context.numbers))


def _view(
    view: tuple[str, Context], alias: str, bind_query: BindQuery, node: exp.Expression
) -> tuple[Relation, Scope]:
    """Bind a view of the policy: the steward's SELECT, under the same rules as everybody's."""
    sql, context = view
    try:
        return _derived(parse(sql).tree, alias, context, bind_query, node)
    except Refused as refusal:
        raise Refused(refusal.rule, f"in the policy's view {alias}: {refusal.message}",
                      refusal.hint) from None


def given_table(relation: Relation, scope: Scope, context: Context) -> tuple[Relation, Scope]:
    """Turn released rows into a public table, to be answered first; leave other rows alone."""
    if kind_of(relation) is not Kind.RELEASED:
        return relation, scope
    outputs = tuple((named.name, named.expression) for named in scope.columns)
    source = context.give(relation, outputs)
    columns = tuple(
        Column(source, f"c{i + 1}", expression.domain) for i, (_, expression) in enumerate(outputs)
    )
    keys = _unique_columns(relation, outputs)
    named = tuple(
        replace(n, expression=column) for n, column in zip(scope.columns, columns, strict=True)
    )
    return Given(source, columns, tuple(f"c{i + 1}" for i in keys)), Scope(named)


def _unique_columns(
    relation: Relation, outputs: tuple[tuple[str, Expression], ...]
) -> tuple[int, ...]:
    """Return the places of outputs that tell a release's rows apart, or none."""
    while isinstance(relation, Filter | Ordered | Window):
        relation = relation.input
    if not isinstance(relation, Release):
        return ()
    places = []
    for i in range(len(relation.keys)):
        found = [p for p, (_, e) in enumerate(outputs) if same_column(e, relation.key_column(i))]
        if not found:
            return ()
        places.append(found[0])
    return tuple(places)


def _scan(table: CatalogTable, alias: str, source: int) -> tuple[Relation, Scope]:
    """Return one use of a table and its visible columns."""
    protected = table.kind is Kind.PROTECTED
    named = []
    for column in table.columns:
        if column.domain.type is Type.UNIT:
            expression = unit_column(source)
        else:
            per_unit = protected and table.one_row_per_unit
            expression = Column(source, column.name, column.domain, per_unit)
        named.append(Named(alias, column.name, expression))
    scan = Scan(
        source, table.name, table.kind,
        tuple(n.expression for n in named if isinstance(n.expression, Column)),
        table.one_row_per_unit, table.rows_per_unit, table.max_rows_per_unit,
        enums=tuple(c.name for c in table.columns if c.is_enum),
        rows_per_value=tuple(
            (c.name, c.rows_per_value) for c in table.columns if c.rows_per_value is not None
        ),
        referenced=tuple(c.name for c in table.columns if c.referenced),
        public_rows=table.public_rows,
    )
    return scan, Scope(tuple(named))


# ---- joins --------------------------------------------------------------------------------


def _joined(
    join: exp.Join, left: Relation, left_scope: Scope, right: Relation, right_scope: Scope,
    waiting: list[exp.Expression], used: set[int],
) -> tuple[Relation, Scope]:
    claim(join, "this", "side", "kind", "on", "using")
    side, kind = str(join.args.get("side") or ""), str(join.args.get("kind") or "")
    if side not in ("", "LEFT", "RIGHT") or kind not in ("", "INNER", "OUTER", "CROSS"):
        raise refused("join-type", f"{side or kind} JOIN is not answered",
                      "JOIN or LEFT JOIN", join)
    how = How.LEFT if side else How.INNER
    swapped = side == "RIGHT"
    optional = {t.lower() for t in (left_scope if swapped else right_scope).tables()}
    equal, conditions, scope = _conditions(
        join, left_scope, right_scope, waiting, used, how, swapped
    )
    if swapped:
        left, right = right, left
        equal = [(b, a) for a, b in equal]
    kinds = (kind_of(left), kind_of(right))
    completes = how is How.LEFT and kinds == (Kind.PUBLIC, Kind.PROTECTED)
    tie = kinds == (Kind.PROTECTED, Kind.PROTECTED)
    if tie:
        equal = _tied(equal, left, right, join)
        left, right = _one_row_per_key(left, right, how, equal)
    if how is How.LEFT:
        scope = _nullable(scope, optional, right, equal, conditions, tie)
    if completes:
        how = How.INNER
    return Join(left, right, how, tie, tuple(equal), tuple(conditions), completes), scope


def _conditions(
    join: exp.Join, left: Scope, right: Scope, waiting: list[exp.Expression], used: set[int],
    how: How, swapped: bool,
) -> tuple[list[tuple[Expression, Expression]], list[Expression], Scope]:
    """Split ON, USING or the WHERE of a comma join into key equalities and conditions."""
    equal: list[tuple[Expression, Expression]] = []
    conditions: list[Expression] = []
    scope = left + right
    if join.args.get("using"):
        for name in join.args["using"]:
            column = exp.column(name.this if isinstance(name, exp.Column) else name.copy())
            pair = (resolve(left, column), resolve(right, column))
            check_pair(*pair, join)
            equal.append(pair)
            # The merged column is that of the side whose rows are all kept.
            if swapped:
                left = left.hiding(column.name)
            else:
                right = right.hiding(column.name)
        return equal, conditions, left + right
    on = join.args.get("on")
    parts = conjuncts(on) if on is not None else waiting
    for part in parts:
        pair_found = _pair(part, left, right)
        if pair_found is not None:
            check_pair(*pair_found, part)
            equal.append(pair_found)
            used.add(id(part))
        elif on is not None:
            conditions.append(bind_condition(part, Scalars(scope)))
    if on is None and how is How.LEFT:
        raise refused("join-type", "an outer join needs ON or USING", "LEFT JOIN b USING (key)",
                      join)
    return equal, conditions, scope


def _pair(
    part: exp.Expression, left: Scope, right: Scope
) -> tuple[Expression, Expression] | None:
    """Return the two columns of `a.x = b.y` as (left, right), or None for anything else."""
    if not isinstance(part, exp.EQ):
        return None
    sides = []
    for node in (part.this, part.expression):
        if not isinstance(node, exp.Column):
            return None
        table = node.table or None
        found = [s for s in (left, right) if s.find(node.name, table)]
        if len(found) != 1:
            return None
        sides.append((found[0] is right, resolve(found[0], node)))
    if sides[0][0] == sides[1][0]:
        return None
    first, second = sorted(sides, key=lambda s: s[0])
    return first[1], second[1]


def check_pair(left: Expression, right: Expression, node: exp.Expression) -> None:
    """Keys compare with keys of the same thing; values with values."""
    kinds = (left.domain.type, right.domain.type)
    named = {Type.UNIT, Type.KEY} & set(kinds)
    if not named:
        try:
            make("eq", left, right)
        except Unfit as problem:
            raise refused("types", f"{short(node)} {problem}", "", node) from None
        return
    if kinds[0] is not kinds[1] or left.domain.key_of != right.domain.key_of:
        raise refused("key-comparison", "a key may only be compared with the same key of another "
                      "table", "the columns that the policy ties with references", node)


def _tied(
    equal: list[tuple[Expression, Expression]], left: Relation, right: Relation, join: exp.Join
) -> list[tuple[Expression, Expression]]:
    """Check that the join keeps to one unit, and drop what the engine's own tie says already.

    Guarantee: an inner or left join of two protected relations is answered only when the text
    equates their unit keys or a declared key; the engine adds equality of units in any case, so
    no row ever holds data of two patients.
    """
    if not any(a.domain.type in (Type.UNIT, Type.KEY) for a, _ in equal):
        raise refused("cross-patient-join", "this join would pair different patients",
                      "add equality of the patient key: USING (patient_id)", join)
    own = (unit_of(left), unit_of(right))
    return [
        pair for pair in equal
        if not all(same_column(x, y) for x, y in zip(pair, own, strict=True))
    ]


def _one_row_per_key(
    left: Relation, right: Relation, how: How, equal: list[tuple[Expression, Expression]]
) -> tuple[Relation, Relation]:
    """Keep one row of a unit per key on the side whose key the other side refers to.

    A key names one row. Where it is repeated in the data, one row is kept by the keyed hash, so
    that a join along declared keys never multiplies a patient's rows.
    """
    if 1 in (rows_max(left), rows_max(right)):
        return left, right
    column = parent_key(right, [b for _, b in equal])
    if column is not None:
        return left, with_one_row_per_key(right, column)
    column = parent_key(left, [a for a, _ in equal])
    if column is not None and how is How.INNER:
        return with_one_row_per_key(left, column), right
    return left, right


def same_column(found: Expression, column: Column) -> bool:
    """Return whether an expression is that very column."""
    return (
        isinstance(found, Column) and found.source == column.source
        and found.name == column.name
    )


def _nullable(
    scope: Scope, tables: set[str], right: Relation, equal: list[tuple[Expression, Expression]],
    conditions: list[Expression], tie: bool,
) -> Scope:
    """Make everything the optional side offers NULL where nothing matched."""
    present = _presence(right, equal, tie)
    # A condition on one of a unit's rows can leave some of them unmatched: then the unit's rows
    # no longer agree on what the optional side holds.
    agree = tie and all(map(is_per_unit, (*(e for pair in equal for e in pair), *conditions)))
    if present is not None and not agree:  # then whether a row is matched differs between rows
        present = _of_single_rows(present)

    def optional(named: Named) -> Expression:
        expression = named.expression
        if not agree:
            expression = _of_single_rows(expression)
        if isinstance(expression, Column):
            return replace(expression, domain=expression.domain.with_null())
        if present is None:
            raise Refused("outer-join", f"{named.name} is computed on the optional side",
                          "compute it outside the joined subquery")
        return make("case", present, expression, constant(None))

    return Scope(tuple(
        replace(n, expression=optional(n)) if n.table.lower() in tables else n
        for n in scope.columns
    ))


def _of_single_rows(expression: Expression) -> Expression:
    """Return the expression over columns that no longer speak for all rows of a unit."""
    return replaced(expression, {
        c: replace(c, per_unit=False) for c in columns_of(expression)
    })


def _presence(
    right: Relation, equal: list[tuple[Expression, Expression]], tie: bool
) -> Expression | None:
    """Return a condition that is true on matched rows and false on the others."""
    if tie:
        return make("not", make("is_null", unit_of(right)))
    key = next((b for _, b in equal if isinstance(b, Column)), None)
    return None if key is None else make("not", make("is_null", key))


__all__ = ["bind_from", "check_pair", "given_table", "same_column"]
