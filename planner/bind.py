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
from planner.collector import Collector
from planner.domain import Type
from planner.expression import Column, Expression, Literal, columns_of, is_per_unit, replaced
from planner.functions import Unfit, make
from planner.functions.logic import united
from planner.joins import bind_from, same_column
from planner.measures import bind_measure, bind_summary
from planner.parse import Parsed
from planner.predictions import note_models
from planner.refusal import Refused
from planner.relation import (
    GIVEN_NAME,
    Aggregate,
    Branch,
    Filter,
    Given,
    Join,
    Measure,
    Ordered,
    Relation,
    Release,
    Scan,
    Summary,
    Union,
    UnitAggregate,
    kind_of,
    unit_column,
    unit_of,
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
from planner.subqueries import MarkCollector
from planner.totals import Totals, grouping_sets
from planner.unit_measures import UnitCollector
from planner.windows import WindowCollector

Items = list[tuple[str, exp.Expression]]
Outputs = tuple[tuple[str, Expression], ...]
Above = Callable[[exp.Expression, Outputs], Expression]


@dataclass(frozen=True, slots=True)
class Rows:
    """The result of one SELECT: a relation and what each output column is in it."""

    relation: Relation
    outputs: Outputs


@dataclass(frozen=True, slots=True)
class Bound:
    """A whole question: its released or public rows, and every release below them."""

    rows: Rows
    releases: tuple[Release, ...]
    givens: tuple[GivenRows, ...] = ()


@dataclass(frozen=True, slots=True)
class GivenRows:
    """A released answer that the question uses further in, under the number `source`."""

    source: int
    rows: Rows


@dataclass(frozen=True, slots=True)
class Context:
    """What one binding shares: the catalog, fresh numbers, and the CTEs in view."""

    catalog: Catalog
    numbers: count[int] = field(default_factory=lambda: count(1))
    ctes: Mapping[str, tuple[exp.CTE, Mapping[str, object]]] = field(default_factory=dict)
    givens: list[GivenRows] = field(default_factory=list)

    def view(self, name: str) -> tuple[str, Context] | None:
        """Find a view of the policy; it sees the views before it, and no CTE of the question."""
        for place, (known, sql) in enumerate(self.catalog.views):
            if known.lower() == name.lower():
                catalog = replace(self.catalog, views=self.catalog.views[:place])
                return sql, replace(self, catalog=catalog, ctes={})
        return None

    def give(self, relation: Relation, outputs: Outputs) -> int:
        """Note that a released answer is used further in; returns its number."""
        rows = Rows(relation, outputs)
        for known in self.givens:
            if known.rows == rows:
                return known.source
        source = next(self.numbers)
        self.givens.append(GivenRows(source, rows))
        return source


def bind(parsed: Parsed, catalog: Catalog, first: int = 1) -> Bound:
    """Bind a question; its relations are numbered from `first` on.

    Guarantee: every protected Scan in the result lies below a Release, so no row reaches a
    result except as a measured and noised group. Depends on the text and the catalog only.
    Raises Refused with rule, place and hint.
    """
    context = Context(catalog, count(first))
    try:
        rows = bind_query(parsed.tree, context)
        _check_outermost(rows, parsed.tree)
    except Refused as refusal:
        raise refusal.located(parsed.sql) from None
    except RecursionError:
        raise Refused("too-large", "the question is nested too deeply", "a simpler question",
                      None, parsed.sql) from None
    # A given answer is complete before the ones that use it: that is their order here.
    roots = [*(given.rows.relation for given in context.givens), rows.relation]
    found = {
        node.source: node for root in roots for node in walk_relations(root)
        if isinstance(node, Release)
    }
    return Bound(rows, tuple(found.values()), tuple(context.givens))


def _check_outermost(rows: Rows, tree: exp.Expression) -> None:
    """Only released and public rows may leave, and no column that names a patient or a row."""
    if kind_of(rows.relation) is Kind.PROTECTED:
        below = rows.relation
        while isinstance(below, Filter):
            below = below.input
        if isinstance(below, UnitAggregate):
            raise refused("group-by-patient", "grouping by the patient gives one row each",
                          "aggregate once more: SELECT AVG(n) FROM (SELECT ... GROUP BY "
                          "patient) AS t", tree)
        raise refused("bare-rows", "this would show patients' rows",
                      "aggregate them: SELECT COUNT(*) FROM ... GROUP BY ...", tree)
    for name, expression in rows.outputs:
        if expression.domain.type in (Type.UNIT, Type.KEY, Type.IMAGE):
            raise refused("key-output", f"{name} names a patient or a row",
                          "COUNT(DISTINCT ...)", tree)


def bind_query(query: exp.Expression, context: Context) -> Rows:
    """Bind a SELECT or a UNION ALL of them, at any depth."""
    while isinstance(query, exp.Subquery):
        claim(query, "this")
        query = query.this
    if isinstance(query, exp.SetOperation):
        return _bind_union(query, context)
    if not isinstance(query, exp.Select):
        raise refused("from", f"{query.key.upper()} is not answered", "a SELECT", query)
    return bind_select(query, context)


def bind_select(select: exp.Select, context: Context) -> Rows:
    """Bind one SELECT at any depth."""
    claim(select, "expressions", "from_", "joins", "where", "group", "having", "order", "limit",
          "offset", "distinct", "with_", "qualify")
    note_models(select, context.catalog)
    context = _with_ctes(select, context)
    relation, scope, used = bind_from(select, context, bind_query)
    marks = MarkCollector(context, bind_query, relation, context.numbers)
    scalars = Scalars(scope, subquery=marks.bind)
    conditions = _conditions(select, scalars, used)
    relation = filtered(marks.above(relation), conditions)
    items = _items(select, scope)
    aggregated = bool(select.args.get("group")) or bool(select.args.get("having")) or any(
        _has_aggregate(node) for _, node in items
    )
    part = _Part(select, relation, scope, items, context, marks)
    return _bind_aggregated(part) if aggregated else _bind_rows(part)


@dataclass(frozen=True, slots=True)
class _Part:
    """One SELECT whose FROM and WHERE are bound."""

    select: exp.Select
    relation: Relation
    scope: Scope
    items: Items
    context: Context
    marks: MarkCollector

    @property
    def kind(self) -> Kind:
        return kind_of(self.relation)

    @property
    def scalars(self) -> Scalars:
        return Scalars(self.scope, subquery=self.marks.bind)


def _with_ctes(node: exp.Expression, context: Context) -> Context:
    clause = node.args.get("with_")
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


def _conditions(
    select: exp.Select, scalars: Scalars, used: frozenset[int]
) -> list[Expression]:
    where = select.args.get("where")
    # Conditions in `used` tie tables listed with commas already.
    return [
        bind_condition(part, scalars)
        for part in (conjuncts(where.this) if where is not None else ()) if id(part) not in used
    ]


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


def _items(select: exp.Select, scope: Scope) -> Items:
    """Return the SELECT list as names and nodes, stars expanded."""
    items: Items = []
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


def _star(node: exp.Expression, scope: Scope) -> Items:
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
        for found in node.walk(prune=lambda n: isinstance(n, exp.Query))
    )


# ---- without aggregates -------------------------------------------------------------------


def _bind_rows(part: _Part) -> Rows:
    select, context = part.select, part.context
    windows = WindowCollector(next(context.numbers), part.relation)
    scalars = replace(part.scalars, window=windows.bind)
    outputs = tuple((name, bind_scalar(node, scalars)) for name, node in part.items)
    qualify = select.args.get("qualify")
    chosen = [
        bind_condition(node, replace(scalars, aliases=outputs))
        for node in (conjuncts(qualify.this) if qualify is not None else ())
    ]
    relation = filtered(windows.above(part.marks.above(part.relation)), chosen)
    distinct = select.args.get("distinct")
    if distinct is not None or windows.items:
        _refuse_completed(part.relation, select)
    if distinct is not None:
        claim(distinct)
        relation, outputs = _distinct(select, relation, outputs, context)
    if kind_of(relation) is Kind.PROTECTED:
        _refuse_order(select)
        return Rows(relation, outputs)
    by = _order(select, outputs, lambda node, aliases: bind_scalar(
        node, Scalars(part.scope, None, aliases)))
    return Rows(_ordered(select, relation, by), outputs)


def _refuse_order(select: exp.Select) -> None:
    for clause in ("order", "limit", "offset"):
        if select.args.get(clause):
            raise refused("limit-below-release", f"{clause.upper()} over patients' rows "
                          "would pick single rows", "aggregate first, then order and limit",
                          select.args[clause])


def _distinct(
    select: exp.Select, relation: Relation, outputs: Outputs, context: Context
) -> tuple[Relation, Outputs]:
    """DISTINCT is GROUP BY all outputs: with the patient within each, else a release of keys."""
    keys = tuple(dict.fromkeys(expression for _, expression in outputs))
    source = next(context.numbers)
    kind = kind_of(relation)
    if kind is Kind.PROTECTED and _own_unit(keys, relation):
        others = _other_keys(keys, relation, select)
        columns = _unit_key_columns(keys, others, relation, source)
        return UnitAggregate(source, relation, others, ()), tuple(
            (name, columns[expression]) for name, expression in outputs
        )
    _check_keys(keys, kind, select)
    grouped = Release(source, relation, keys, ()) if kind is Kind.PROTECTED else Summary(
        source, relation, keys, ()
    )
    return grouped, tuple(
        (name, Column(source, f"k{keys.index(e) + 1}", e.domain)) for name, e in outputs
    )


def _order(
    select: exp.Select, outputs: Outputs, read: Above
) -> tuple[tuple[Expression, bool, bool], ...]:
    order = select.args.get("order")
    by: list[tuple[Expression, bool, bool]] = []
    for node in order.expressions if order is not None else ():
        claim(node, "this", "desc", "nulls_first")
        expression = _ordinal(node.this, outputs)
        if expression is None:
            expression = read(node.this, outputs)
        by.append((expression, bool(node.args.get("desc")), bool(node.args.get("nulls_first"))))
    return tuple(by)


def _ordered(
    select: exp.Expression, relation: Relation, by: tuple[tuple[Expression, bool, bool], ...]
) -> Relation:
    limit, offset = (_whole(select.args.get(part)) for part in ("limit", "offset"))
    if not by and limit is None and offset is None:
        return relation
    return Ordered(relation, by, limit, offset or 0)


def _ordinal(node: exp.Expression, outputs: Outputs) -> Expression | None:
    """Return the output a number points at, or None for an expression."""
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


def _bind_aggregated(part: _Part) -> Rows:
    keys, sets = _group_keys(part)
    if part.kind is Kind.PROTECTED and _own_unit(keys, part.relation):
        if sets:
            raise refused("grouping-sets", "sets of groups do not mix with the patient",
                          "GROUP BY the patient first, ROLLUP in the outer SELECT", part.select)
        return _bind_per_unit(part, keys)
    _check_keys(keys, part.kind, part.select)
    completed = _completed(part.relation)
    if completed:
        _check_completed_keys(keys, part)
    collector = Collector(next(part.context.numbers), part.scalars, part.relation)
    measure = bind_measure if part.kind is Kind.PROTECTED else bind_summary
    columns: dict[Expression, Expression] = {
        key: Column(collector.source, f"k{i + 1}", key.domain) for i, key in enumerate(keys)
    }

    def grouped(below: Relation) -> Relation:
        if completed:
            _check_completed_measures(collector.measures, part)
        if part.kind is Kind.PROTECTED:
            return Release(collector.source, below, keys, tuple(collector.measures),
                           tuple(collector.quantiles), tuple(collector.derived),
                           tuple(collector.centred))
        return Summary(collector.source, below, keys, tuple(collector.aggregates))

    if sets and part.kind is Kind.PROTECTED:
        collector.totalled = True
        totals = Totals(next(part.context.numbers), collector, keys, sets)
        return _above_groups(part, totals.columns(), totals.source, totals.bind, totals.above,
                             totals.grouping)
    if sets:
        raise refused("grouping-sets", "sets of groups over released rows are not answered",
                      "one GROUP BY per level", part.select)
    return _above_groups(part, columns, collector.source,
                         lambda node: measure(node, collector), grouped)


def _completed(relation: Relation) -> bool:
    """Return whether the rows come from a public table LEFT JOIN a protected one."""
    return kind_of(relation) is Kind.PROTECTED and any(
        isinstance(node, Join) and node.completes for node in walk_relations(relation)
    )


def _check_completed_keys(keys: tuple[Expression, ...], part: _Part) -> None:
    """Groups must come from the public side: it alone says which there are."""
    public = {
        node.source for node in walk_relations(part.relation)
        if isinstance(node, Scan | Given) and kind_of(node) is Kind.PUBLIC
    }
    for key in keys:
        if not keys or any(column.source not in public for column in columns_of(key)):
            raise refused("outer-join", "the outer side is public, so only its columns can group",
                          "GROUP BY columns of the public table, or an inner JOIN", part.select)
    if not keys:
        raise refused("outer-join", "without groups the outer side adds nothing but itself",
                      "an inner JOIN", part.select)


def _check_completed_measures(measures: list[Measure], part: _Part) -> None:
    """COUNT(*) would count a public row without a patient as one."""
    for measure in measures:
        if measure.aggregate is Aggregate.COUNT and not measure.conditions:
            raise refused("outer-join", "COUNT(*) would count a row without a patient as one",
                          "COUNT of a column of the patients' table", part.select)


def _refuse_completed(relation: Relation, node: exp.Expression) -> None:
    if _completed(relation):
        raise refused("outer-join", "a public table on the outer side has rows without a patient",
                      "an inner JOIN, or aggregate with GROUP BY the public table's columns", node)


def _bind_per_unit(part: _Part, keys: tuple[Expression, ...]) -> Rows:
    """GROUP BY with the patient: one row per patient and key, still protected."""
    _refuse_completed(part.relation, part.select)
    source = next(part.context.numbers)
    others = _other_keys(keys, part.relation, part.select)
    columns = _unit_key_columns(keys, others, part.relation, source)
    collector = UnitCollector(source, part.scalars, part.relation, per_unit=not others)
    _refuse_order(part.select)
    return _above_groups(
        part, columns, source, collector.bind,
        lambda below: UnitAggregate(source, below, others, tuple(collector.items)),
    )


def _above_groups(
    part: _Part, columns: Mapping[Expression, Expression], source: int,
    aggregate: Callable[[exp.Expression], Expression], grouped: Callable[[Relation], Relation],
    grouping: Callable[[exp.Grouping, Scalars], Expression] | None = None,
) -> Rows:
    """Bind what stands above a GROUP BY: outputs, HAVING, windows, QUALIFY, order and limit."""
    select, context = part.select, part.context

    def above(node: exp.Expression, scalars: Scalars) -> Expression:
        return _above(replaced(bind_scalar(node, scalars), columns), node, source, windows.source)

    # Windows are bound before the groups exist; only the kind of what is below matters to them.
    placeholder = grouped(part.relation)
    windows = WindowCollector(next(context.numbers), placeholder, above)
    scalars = replace(part.scalars, aggregate=aggregate, window=windows.bind, grouping=grouping)

    def read(node: exp.Expression, aliases: Outputs) -> Expression:
        return above(node, replace(scalars, aliases=aliases))

    outputs = tuple((name, read(node, ())) for name, node in part.items)
    having, qualify = select.args.get("having"), select.args.get("qualify")
    conditions = [read(n, outputs) for n in (conjuncts(having.this) if having else ())]
    chosen = [read(n, outputs) for n in (conjuncts(qualify.this) if qualify else ())]
    by = _order(select, outputs, read)
    relation = filtered(grouped(part.marks.above(part.relation)), conditions)
    relation = filtered(windows.above(relation), chosen)
    if kind_of(relation) is not Kind.PROTECTED:
        relation = _ordered(select, relation, by)
    if select.args.get("distinct"):
        claim(select.args["distinct"])
        relation, outputs = _distinct(select, relation, outputs, context)
    return Rows(relation, outputs)


def _group_keys(
    part: _Part,
) -> tuple[tuple[Expression, ...], tuple[tuple[Expression, ...], ...]]:
    """Return the keys of the finest groups, and the sets of keys where several were asked."""
    group = part.select.args.get("group")
    if group is None:
        return (), ()
    claim(group, "expressions", "all")
    nodes = list(group.expressions)
    if group.args.get("all"):
        nodes = [node for _, node in part.items if not _has_aggregate(node)]

    def key(node: exp.Expression) -> Expression:
        return bind_scalar(_grouped(node, part.scope, part.items), part.scalars)

    sets = [()] if not nodes else grouping_sets(nodes, key)
    keys = tuple(dict.fromkeys(
        k for chosen in sets for k in chosen if not isinstance(k, Literal)
    ))
    return keys, tuple(sets) if len(sets) > 1 else ()


def _grouped(node: exp.Expression, scope: Scope, items: Items) -> exp.Expression:
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


def _own_unit(keys: tuple[Expression, ...], relation: Relation) -> bool:
    """Return whether the keys hold the relation's own unit, so that groups lie within patients."""
    return any(same_column(key, unit_of(relation)) for key in keys)


def _other_keys(
    keys: tuple[Expression, ...], relation: Relation, node: exp.Expression
) -> tuple[Expression, ...]:
    others = tuple(key for key in keys if not same_column(key, unit_of(relation)))
    for key in others:
        if key.domain.type in (Type.UNIT, Type.IMAGE):
            raise refused("key-output", "this key may be missing for some of a patient's rows",
                          "group by the patient key of the outer side of the join", node)
    return others


def _unit_key_columns(
    keys: tuple[Expression, ...], others: tuple[Expression, ...], relation: Relation, source: int
) -> dict[Expression, Expression]:
    columns: dict[Expression, Expression] = {
        key: Column(source, f"k{i + 1}", key.domain, is_per_unit(key))
        for i, key in enumerate(others)
    }
    for key in keys:
        if same_column(key, unit_of(relation)):
            columns[key] = unit_column(source)
    return columns


def _check_keys(keys: tuple[Expression, ...], kind: Kind, node: exp.Expression) -> None:
    if kind is not Kind.PROTECTED:
        return
    for key in keys:
        if key.domain.type in (Type.UNIT, Type.KEY, Type.IMAGE):
            raise refused("key-output", "grouping by a key would show single rows",
                          "group by a column that many patients share",
                          node.args.get("group") or node)


def _above(
    expression: Expression, node: exp.Expression, source: int, windows: int
) -> Expression:
    """Check that an expression above a GROUP BY reads keys, aggregates and windows only."""
    for column in columns_of(expression):
        if column.source not in (source, windows) and column.name != GIVEN_NAME:
            raise refused("bare-column", f"{column.name} is neither grouped nor aggregated",
                          f"add it to GROUP BY, or aggregate it: in {short(node)}", node)
    return expression


# ---- UNION ALL ----------------------------------------------------------------------------


def _bind_union(query: exp.SetOperation, context: Context) -> Rows:
    """UNION ALL keeps every row with its patient; UNION of released rows drops repeats."""
    if not isinstance(query, exp.Union):
        raise refused("set-operation", f"{query.key.upper()} is not answered",
                      "a JOIN, EXISTS or NOT EXISTS", query)
    claim(query, "this", "expression", "distinct", "with_", "order", "limit", "offset")
    context = _with_ctes(query, context)
    parts = [bind_query(side, context) for side in _branches(query)]
    width = len(parts[0].outputs)
    if any(len(part.outputs) != width for part in parts):
        raise refused("set-operation", "the parts of a UNION need the same number of columns",
                      "name the same columns in each part", query)
    kinds = {kind_of(part.relation) for part in parts}
    if Kind.PROTECTED in kinds and len(kinds) > 1:
        raise refused("set-operation", "patients' rows and released or public rows do not mix",
                      "aggregate each part, then UNION ALL", query)
    if Kind.PROTECTED in kinds and query.args.get("distinct"):
        raise refused("set-operation", "UNION would drop equal rows across patients",
                      "UNION ALL", query)
    rows = _united(parts, next(context.numbers), query)
    return _finished_union(query, rows, context)


def _branches(query: exp.SetOperation) -> list[exp.Expression]:
    """Flatten a chain of the same UNION, without recursion."""
    found: list[exp.Expression] = []
    waiting: list[exp.Expression] = [query]
    while waiting:
        node = waiting.pop()
        same = isinstance(node, exp.Union) and (
            bool(node.args.get("distinct")) == bool(query.args.get("distinct"))
        ) and (node is query or not node.args.get("with_"))
        if isinstance(node, exp.Union) and same:
            waiting.extend((node.expression, node.this))
        else:
            found.append(node)
    return found


def _united(parts: list[Rows], source: int, query: exp.Expression) -> Rows:
    domains = []
    for i, (name, _) in enumerate(parts[0].outputs):
        values = tuple(part.outputs[i][1] for part in parts)
        kinds = {value.domain.type for value in values}
        try:
            if kinds & {Type.UNIT, Type.KEY}:
                domains.append(_united_keys(values))
            else:
                domains.append(united(values, any(v.domain.nullable for v in values)))
        except Unfit as problem:
            raise refused("types", f"UNION of {name} {problem}", "", query) from None
    branches = tuple(Branch(p.relation, tuple(e for _, e in p.outputs)) for p in parts)
    outputs = []
    for i, (name, _) in enumerate(parts[0].outputs):
        owns = all(
            kind_of(b.relation) is Kind.PROTECTED and same_column(b.outputs[i],
                                                                  unit_of(b.relation))
            for b in branches
        )
        column = unit_column(source) if owns else Column(source, f"c{i + 1}", domains[i])
        outputs.append((name, column))
    return Rows(Union(source, branches, tuple(domains)), tuple(outputs))


def _united_keys(values: tuple[Expression, ...]):  # type: ignore[no-untyped-def]
    first = values[0].domain
    if any(v.domain.type is not first.type or v.domain.key_of != first.key_of for v in values):
        raise Unfit("needs the same key in every part")
    return first.with_null(any(v.domain.nullable for v in values))


def _finished_union(query: exp.SetOperation, rows: Rows, context: Context) -> Rows:
    relation, outputs = rows.relation, rows.outputs
    if kind_of(relation) is Kind.PROTECTED:
        _refuse_order(query)  # type: ignore[arg-type]
        return rows
    if query.args.get("distinct"):
        relation, outputs = _distinct(query, relation, outputs, context)  # type: ignore[arg-type]
    by = _order(query, outputs, lambda node, aliases: bind_scalar(  # type: ignore[arg-type]
        node, Scalars(Scope(()), None, aliases)))
    return Rows(_ordered(query, relation, by), outputs)


__all__ = ["Bound", "Context", "Rows", "bind", "bind_query", "bind_select"]
