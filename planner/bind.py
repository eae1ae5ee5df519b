"""A parsed SELECT and the catalog in, our own relational nodes out: which rows are whose.

Every relation is public, protected or released. Rows become numbers only in a Release; what is
above it is post-processing. A node of the syntax tree that no line here claims is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

from sqlglot import exp

from planner.catalog import Catalog, Kind
from planner.domain import Type
from planner.expression import Column, Expression, Literal, columns_of, replaced
from planner.functions import make
from planner.joins import bind_from
from planner.measures import Collector, bind_measure, bind_summary
from planner.parse import Parsed
from planner.refusal import Refused
from planner.relation import (
    Filter,
    Ordered,
    Relation,
    Release,
    Summary,
    kind_of,
    walk_relations,
)
from planner.scalar import (
    AGGREGATES,
    Scalars,
    bind_condition,
    bind_scalar,
    conjuncts,
    short,
)
from planner.scope import Scope, claim, refused


@dataclass(frozen=True, slots=True)
class Rows:
    """The result of one SELECT: a relation and what each output column is in it."""

    relation: Relation
    outputs: tuple[tuple[str, Expression], ...]


@dataclass(frozen=True, slots=True)
class Bound:
    """A whole question: its released or public rows, and every release below them."""

    rows: Rows
    releases: tuple[Release, ...]


@dataclass(frozen=True, slots=True)
class Context:
    """What one binding shares: the catalog, fresh numbers, and the CTEs in view."""

    catalog: Catalog
    numbers: count[int] = field(default_factory=lambda: count(1))
    ctes: Mapping[str, tuple[exp.CTE, Mapping[str, object]]] = field(default_factory=dict)


def bind(parsed: Parsed, catalog: Catalog) -> Bound:
    """Bind a question.

    Guarantee: every protected Scan in the result lies below a Release, so no row reaches a
    result except as a measured and noised group. Depends on the text and the catalog only.
    Raises Refused with rule, place and hint.
    """
    try:
        rows = bind_select(parsed.tree, Context(catalog))
        if kind_of(rows.relation) is Kind.PROTECTED:
            raise refused("bare-rows", "this would show patients' rows",
                          "aggregate them: SELECT COUNT(*) FROM ... GROUP BY ...", parsed.tree)
        for name, expression in rows.outputs:
            if expression.domain.type in (Type.UNIT, Type.KEY, Type.IMAGE):
                raise refused("key-output", f"{name} names a patient or a row",
                              "COUNT(DISTINCT ...)", parsed.tree)
    except Refused as refusal:
        raise refusal.located(parsed.sql) from None
    except RecursionError:
        raise Refused("too-large", "the question is nested too deeply", "a simpler question",
                      None, parsed.sql) from None
    found = {r.source: r for r in walk_relations(rows.relation) if isinstance(r, Release)}
    return Bound(rows, tuple(found.values()))


def bind_select(select: exp.Select, context: Context) -> Rows:
    """Bind one SELECT at any depth."""
    claim(select, "expressions", "from_", "joins", "where", "group", "having", "order", "limit",
          "offset", "distinct", "with_")
    context = _with_ctes(select, context)
    relation, scope, used = bind_from(select, context, bind_select)
    relation = _filtered(select, relation, scope, used)
    items = _items(select, scope)
    aggregated = bool(select.args.get("group")) or bool(select.args.get("having")) or any(
        _has_aggregate(node) for _, node in items
    )
    if aggregated:
        return _bind_aggregated(select, relation, scope, items, context)
    return _bind_rows(select, relation, scope, items, context)


def _with_ctes(select: exp.Select, context: Context) -> Context:
    clause = select.args.get("with_")
    if clause is None:
        return context
    claim(clause, "expressions")
    ctes: dict[str, tuple[exp.CTE, Mapping[str, object]]] = dict(context.ctes)
    for cte in clause.expressions:
        claim(cte, "this", "alias")
        if cte.args["alias"].args.get("columns"):
            raise refused("unknown-clause", "column names after a CTE's name are not answered",
                          "name the columns in its SELECT list", cte)
        # Each CTE sees the ones before it, never itself: recursion is refused as unknown.
        ctes[cte.alias.lower()] = (cte, dict(ctes))
    return replace(context, ctes=ctes)


def _filtered(
    select: exp.Select, relation: Relation, scope: Scope, used: frozenset[int]
) -> Relation:
    where = select.args.get("where")
    if where is None:
        return relation
    scalars = Scalars(scope)
    conditions: list[Expression] = []
    for part in conjuncts(where.this):
        if id(part) in used:  # it ties tables listed with commas already
            continue
        conditions.append(bind_condition(part, scalars))
    return filtered(relation, conditions)


def filtered(relation: Relation, conditions: list[Expression]) -> Relation:
    """Return the relation where all conditions hold, in one node."""
    if not conditions:
        return relation
    if isinstance(relation, Filter):
        conditions = [*relation.conditions, *conditions]
        relation = relation.input
    both = make("and", *conditions) if len(conditions) > 1 else conditions[0]
    flat = both.arguments if getattr(both, "function", "") == "and" else (both,)  # type: ignore[union-attr]
    return Filter(relation, tuple(flat))


def _items(select: exp.Select, scope: Scope) -> list[tuple[str, exp.Expression]]:
    """Return the SELECT list as names and nodes, stars expanded."""
    items: list[tuple[str, exp.Expression]] = []
    for node in select.expressions:
        if isinstance(node, exp.Star) or (
            isinstance(node, exp.Column) and isinstance(node.this, exp.Star)
        ):
            items.extend(_star(node, scope))
        elif isinstance(node, exp.Alias):
            claim(node, "this", "alias")
            items.append((node.alias, node.this))
        elif isinstance(node, exp.Column):
            items.append((node.name, node))
        else:
            items.append((node.sql("duckdb").lower() if len(str(node)) < 200 else "column", node))
    if not items:
        raise refused("syntax", "the SELECT list is empty", "SELECT COUNT(*) FROM ...", select)
    return items


def _star(node: exp.Expression, scope: Scope) -> list[tuple[str, exp.Expression]]:
    star = node.this if isinstance(node, exp.Column) else node
    claim(star, "except_")
    table = node.table.lower() if isinstance(node, exp.Column) else None
    hidden = {c.name.lower() for c in star.args.get("except_") or ()}
    found = [
        c for c in scope.columns
        if (table is None and not c.merged) or (table is not None and c.table.lower() == table)
    ]
    if not found:
        raise refused("unknown-table", "nothing stands behind the star", "a column name", node)
    return [
        (c.name, exp.column(exp.to_identifier(c.name, quoted=True),
                            exp.to_identifier(c.table, quoted=True)))
        for c in found if c.name.lower() not in hidden
    ]


def _has_aggregate(node: exp.Expression) -> bool:
    return any(
        isinstance(found, (*AGGREGATES, exp.Filter, exp.WithinGroup))
        and not isinstance(found.parent, exp.Window)
        for found in node.walk(prune=lambda n: isinstance(n, exp.Query | exp.Window))
    )


# ---- without aggregates -------------------------------------------------------------------


def _bind_rows(
    select: exp.Select, relation: Relation, scope: Scope,
    items: list[tuple[str, exp.Expression]], context: Context,
) -> Rows:
    outputs = tuple((name, bind_scalar(node, Scalars(scope))) for name, node in items)
    distinct = select.args.get("distinct")
    if distinct is not None:
        claim(distinct)
        relation, outputs = _distinct(select, relation, outputs, context)
    if kind_of(relation) is Kind.PROTECTED:
        for clause in ("order", "limit", "offset"):
            if select.args.get(clause):
                raise refused("limit-below-release", f"{clause.upper()} over patients' rows "
                              "would pick single rows", "aggregate first, then order and limit",
                              select.args[clause])
        return Rows(relation, outputs)
    aliases = tuple(outputs)
    return Rows(_ordered(select, relation, Scalars(scope, None, aliases), outputs), outputs)


def _distinct(
    select: exp.Select, relation: Relation, outputs: tuple[tuple[str, Expression], ...],
    context: Context,
) -> tuple[Relation, tuple[tuple[str, Expression], ...]]:
    """DISTINCT is GROUP BY all outputs: across patients a release of keys."""
    keys = tuple(expression for _, expression in outputs)
    _check_keys(keys, kind_of(relation), select)
    source = next(context.numbers)
    if kind_of(relation) is Kind.PROTECTED:
        release = Release(source, relation, keys, ())
        return release, tuple(
            (name, release.key_column(i)) for i, (name, _) in enumerate(outputs)
        )
    return Summary(source, relation, keys, ()), tuple(
        (name, Column(source, f"k{i + 1}", e.domain)) for i, (name, e) in enumerate(outputs)
    )


def _ordered(
    select: exp.Select, relation: Relation, scalars: Scalars,
    outputs: tuple[tuple[str, Expression], ...],
) -> Relation:
    order, limit, offset = (select.args.get(part) for part in ("order", "limit", "offset"))
    if order is None and limit is None and offset is None:
        return relation
    by: list[tuple[Expression, bool, bool]] = []
    for node in order.expressions if order is not None else ():
        claim(node, "this", "desc", "nulls_first")
        expression = _ordinal(node.this, outputs)
        if expression is None:
            expression = bind_scalar(node.this, scalars)
        by.append((expression, bool(node.args.get("desc")), bool(node.args.get("nulls_first"))))
    return Ordered(relation, tuple(by), _whole(limit), _whole(offset) or 0)


def _ordinal(
    node: exp.Expression, outputs: tuple[tuple[str, Expression], ...]
) -> Expression | None:
    """Return the output a number or ALL points at, or None for an expression."""
    if not (isinstance(node, exp.Literal) and not node.is_string):
        return None
    if not node.name.isdigit() or not 1 <= int(node.name) <= len(outputs):
        raise refused("unknown-column", f"there is no output number {node.name}",
                      f"1 to {len(outputs)}", node)
    return outputs[int(node.name) - 1][1]


def _whole(node: exp.Expression | None) -> int | None:
    if node is None:
        return None
    claim(node, "expression")
    value = node.expression
    if not (isinstance(value, exp.Literal) and value.name.isdigit() and len(value.name) < 10):
        raise refused("types", f"{node.key.upper()} needs a whole constant", "LIMIT 10", node)
    return int(value.name)


# ---- with aggregates ----------------------------------------------------------------------


def _bind_aggregated(
    select: exp.Select, relation: Relation, scope: Scope,
    items: list[tuple[str, exp.Expression]], context: Context,
) -> Rows:
    kind = kind_of(relation)
    keys = _group_keys(select, scope, items)
    _check_keys(keys, kind, select)
    collector = Collector(next(context.numbers), scope, relation)
    measure = bind_measure if kind is Kind.PROTECTED else bind_summary
    scalars = Scalars(scope, lambda node: measure(node, collector))
    key_columns = {
        key: Column(collector.source, f"k{i + 1}", key.domain) for i, key in enumerate(keys)
    }

    def above(node: exp.Expression, aliases: tuple[tuple[str, Expression], ...]) -> Expression:
        bound = bind_scalar(node, replace(scalars, aliases=aliases))
        return _above(replaced(bound, key_columns), node, collector.source)

    outputs = tuple((name, above(node, ())) for name, node in items)
    having = select.args.get("having")
    conditions = [
        above(part, outputs) for part in (conjuncts(having.this) if having is not None else ())
    ]
    by = _order_above(select, outputs, above)
    result: Relation
    if kind is Kind.PROTECTED:
        result = Release(collector.source, relation, keys, tuple(collector.measures))
    else:
        result = Summary(collector.source, relation, keys, tuple(collector.aggregates))
    result = filtered(result, conditions)
    limit, offset = (_whole(select.args.get(part)) for part in ("limit", "offset"))
    if by or limit is not None or offset is not None:
        result = Ordered(result, by, limit, offset or 0)
    if select.args.get("distinct"):
        claim(select.args["distinct"])
        result, outputs = _distinct(select, result, outputs, context)
    return Rows(result, outputs)


def _order_above(
    select: exp.Select, outputs: tuple[tuple[str, Expression], ...],
    above: Callable[[exp.Expression, tuple[tuple[str, Expression], ...]], Expression],
) -> tuple[tuple[Expression, bool, bool], ...]:
    order = select.args.get("order")
    by: list[tuple[Expression, bool, bool]] = []
    for node in order.expressions if order is not None else ():
        claim(node, "this", "desc", "nulls_first")
        expression = _ordinal(node.this, outputs)
        if expression is None:
            expression = above(node.this, outputs)
        by.append((expression, bool(node.args.get("desc")), bool(node.args.get("nulls_first"))))
    return tuple(by)


def _group_keys(
    select: exp.Select, scope: Scope, items: list[tuple[str, exp.Expression]]
) -> tuple[Expression, ...]:
    group = select.args.get("group")
    if group is None:
        return ()
    claim(group, "expressions", "all")
    nodes = list(group.expressions)
    if group.args.get("all"):
        nodes = [node for _, node in items if not _has_aggregate(node)]
    keys: list[Expression] = []
    for node in nodes:
        if isinstance(node, exp.Cube | exp.Rollup | exp.GroupingSets):
            raise refused("grouping-sets", f"{node.key.upper()} is not answered yet",
                          "one GROUP BY per level", node)
        keys.append(bind_scalar(_grouped(node, scope, items), Scalars(scope)))
    return tuple(dict.fromkeys(key for key in keys if not isinstance(key, Literal)))


def _grouped(
    node: exp.Expression, scope: Scope, items: list[tuple[str, exp.Expression]]
) -> exp.Expression:
    """Follow GROUP BY 1 and GROUP BY alias to the SELECT list; a real column wins."""
    if isinstance(node, exp.Literal) and not node.is_string and node.name.isdigit():
        if not 1 <= int(node.name) <= len(items):
            raise refused("unknown-column", f"there is no output number {node.name}",
                          f"1 to {len(items)}", node)
        node = items[int(node.name) - 1][1]
    elif isinstance(node, exp.Column) and not node.table and not scope.find(node.name, None):
        for name, item in items:
            if name.lower() == node.name.lower():
                node = item
                break
    if _has_aggregate(node):
        raise refused("aggregate-place", f"cannot group by an aggregate: {short(node)}",
                      "group by columns, filter aggregates in HAVING", node)
    return node


def _check_keys(keys: tuple[Expression, ...], kind: Kind, node: exp.Expression) -> None:
    if kind is not Kind.PROTECTED:
        return
    for key in keys:
        if key.domain.type is Type.UNIT:
            raise refused("group-by-patient", "grouping by the patient gives one row each",
                          "group by a column that many patients share, or COUNT(DISTINCT ...)",
                          node.args.get("group") or node)
        if key.domain.type in (Type.KEY, Type.IMAGE):
            raise refused("key-output", "grouping by a row's key would show single rows",
                          "group by a column that many patients share",
                          node.args.get("group") or node)


def _above(expression: Expression, node: exp.Expression, source: int) -> Expression:
    """Check that an expression above a GROUP BY reads keys and aggregates only."""
    for column in columns_of(expression):
        if column.source != source:
            raise refused("bare-column", f"{column.name} is neither grouped nor aggregated",
                          f"add it to GROUP BY, or aggregate it: in {short(node)}", node)
    return expression


__all__ = ["Bound", "Context", "Rows", "bind", "bind_select"]
