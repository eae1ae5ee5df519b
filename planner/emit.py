"""Our nodes in, SQL text for DuckDB out: generated from the nodes, never from the user's text.

Every column is printed under a name that is unique in the plan ("age_3": column age of instance
3), so no alias can capture another. Only the columns that are used are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from math import isfinite

from planner.catalog import Kind
from planner.domain import Type, Value
from planner.expression import Column, Expression, Literal, columns_of
from planner.functions import FUNCTIONS
from planner.functions.calendar import SQL_TYPES
from planner.functions.entry import double
from planner.order import order_of, union_order
from planner.refusal import Refused
from planner.relation import (
    GIVEN_NAME,
    RANK_NAME,
    UNIT_NAME,
    Branch,
    Filter,
    Given,
    How,
    Join,
    Mark,
    Ordered,
    Relation,
    Release,
    Scan,
    Summary,
    Union,
    UnitAggregate,
    Window,
    inputs_of,
    kind_of,
    unit_of,
    walk_relations,
)
from planner.unit_functions import UNIT_FUNCTIONS, WINDOW_FUNCTIONS

# Total forms repeat their arguments; a formula may grow by that, but not without end.
PRINTED_MAX = 20_000


def quoted(name: str) -> str:
    """Print a name as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def column_name(column: Column) -> str:
    """Print the unique name of a column."""
    return quoted(f"{column.name}_{column.source}")


def literal(value: Value | None, kind: Type = Type.NULL) -> str:
    """Print a constant with a type that DuckDB cannot mistake."""
    if value is None:
        return f"CAST(NULL AS {SQL_TYPES.get(kind, 'VARCHAR')})"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        return str(value) if value >= 0 else f"({value})"
    if isinstance(value, float):
        return double(value)
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.isoformat(sep=' ')}'"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    return "'" + value.replace("'", "''") + "'"


def typed(value: Value | None, kind: Type) -> str:
    """Print a constant with the type of its column, so that equal columns stay equal."""
    if isinstance(value, float) and not isfinite(value):
        value = None  # what no number is, is not known
    return f"CAST({literal(value, kind)} AS {SQL_TYPES.get(kind, 'VARCHAR')})"


GivenValues = Mapping[int, tuple[tuple[Value | None, ...], ...]]


# Among the arguments of these a NULL takes the others' type; a NULL of type VARCHAR would not.
UNTYPED_NULL = frozenset({
    "case", "coalesce", "nullif", "least", "greatest", "eq", "lt", "le", "same", "in",
})


def _is_bare_null(expression: Expression) -> bool:
    return (
        isinstance(expression, Literal) and expression.value is None
        and expression.domain.type is Type.NULL
    )


@dataclass(frozen=True, slots=True)
class Printer:
    """Prints one statement: which columns it reads, and which of them are stored as ENUM."""

    used: frozenset[tuple[int, str]]
    enums: frozenset[tuple[int, str]]
    given: GivenValues = field(default_factory=dict)

    def scalar(self, expression: Expression) -> str:
        """Print an expression; an ENUM becomes text, because its order is not that of text."""
        if isinstance(expression, Column):
            name = column_name(expression)
            if expression.name == GIVEN_NAME:
                return self._constant(expression)
            is_enum = (expression.source, expression.name) in self.enums
            return f"CAST({name} AS VARCHAR)" if is_enum else name
        if isinstance(expression, Literal):
            return literal(expression.value, expression.domain.type)
        if expression.function in ("eq", "in", "is_null"):
            raw = self._enum_test(expression.function, expression.arguments)
            if raw is not None:
                return raw
        bare = expression.function in UNTYPED_NULL
        printed = tuple(
            "NULL" if bare and _is_bare_null(argument) else self.scalar(argument)
            for argument in expression.arguments
        )
        text = FUNCTIONS[expression.function].sql(printed, expression.arguments)
        if len(text) > max(PRINTED_MAX, 1.5 * sum(map(len, printed))):
            raise Refused("too-large", "the question grows too large when it is made total",
                          "fewer divisions inside divisions")
        return text

    def _constant(self, column: Column) -> str:
        """Print a released number: its value once it is out, its name before."""
        rows = self.given.get(column.source)
        if rows is None:
            return column_name(column)
        return typed(rows[0][0] if rows else None, column.domain.type)

    def _enum_test(self, function: str, arguments: tuple[Expression, ...]) -> str | None:
        """Print equality of an ENUM with constants on its codes, which is much faster."""
        column = next((a for a in arguments if isinstance(a, Column)), None)
        place = next((i for i, a in enumerate(arguments) if a is column), 0)
        rest = (*arguments[:place], *arguments[place + 1 :])
        if column is None or (column.source, column.name) not in self.enums:
            return None
        if not all(isinstance(a, Literal) and isinstance(a.value, str) for a in rest):
            return None
        values = set(column.domain.values or ())
        if not all(isinstance(a, Literal) and a.value in values for a in rest):
            return None
        ordered = (column, *rest)
        printed = (column_name(column), *(self.scalar(a) for a in rest))
        return FUNCTIONS[function].sql(printed, ordered)

    def key(self, expression: Expression) -> str:
        """Print a group key: a bare ENUM is grouped by its code."""
        if isinstance(expression, Column) and expression.name != GIVEN_NAME and (
            expression.domain.type is not Type.REAL
        ):
            return column_name(expression)
        printed = self.scalar(expression)
        # 0.0 and -0.0 are one group, shown as whichever the database met first: make it one value.
        return f"({printed} + 0e0)" if expression.domain.type is Type.REAL else printed

    def conditions(self, conditions: Iterable[Expression]) -> str:
        """Print conditions that must all hold."""
        return " AND ".join(self.scalar(condition) for condition in conditions)

    def relation(self, relation: Relation) -> str:
        """Print a relation as something that can stand after FROM."""
        if isinstance(relation, Scan):
            return self._scan(relation)
        if isinstance(relation, Filter):
            inner = self.relation(relation.input)
            return f"(SELECT * FROM {inner} WHERE {self.conditions(relation.conditions)})"
        if isinstance(relation, Join):
            return self._join(relation)
        if isinstance(relation, Release):
            return self._released(relation)
        if isinstance(relation, UnitAggregate):
            return self._unit_aggregate(relation)
        if isinstance(relation, Window):
            return self._window(relation)
        if isinstance(relation, Mark):
            return self._mark(relation)
        if isinstance(relation, Union):
            return self._union(relation)
        if isinstance(relation, Summary):
            return self._summary(relation)
        if isinstance(relation, Ordered):
            return f"(SELECT * FROM {self.relation(relation.input)}{self.order(relation)})"
        if isinstance(relation, Given):
            return self._given(relation)
        return "(SELECT 1 AS one)"

    def _scan(self, scan: Scan) -> str:
        names = sorted(name for source, name in self.used if source == scan.source)
        shown = [f"{quoted(n)} AS {quoted(f'{n}_{scan.source}')}" for n in names] or ["1 AS one"]
        limits = []
        if scan.row_limit is not None:
            limits.append(f"{quoted(RANK_NAME)} <= {scan.row_limit}")
        if scan.one_per_key is not None:
            limits.append(f"{quoted(f'__key_rank_{scan.one_per_key}')} = 1")
        where = f" WHERE {' AND '.join(limits)}" if limits else ""
        return f"(SELECT {', '.join(shown)} FROM {quoted(scan.table)}{where})"

    def _given(self, node: Given) -> str:
        """Print a released table as constants, so that it can stand beside protected rows."""
        shown = [f"c{i + 1} AS {column_name(c)}" for i, c in enumerate(node.columns)]
        names = ", ".join(f"c{i + 1}" for i in range(len(node.columns)))
        rows = self.given.get(node.source)
        if rows is None:
            return f"(SELECT {', '.join(shown)} FROM {quoted(f'released_{node.source}')})"
        kinds = [column.domain.type for column in node.columns]
        listed = ", ".join(
            f"({', '.join(typed(v, k) for v, k in zip(row, kinds, strict=True))})" for row in rows
        )
        if not rows:
            nothing = ", ".join(f"{literal(None, k)} AS c{i + 1}" for i, k in enumerate(kinds))
            return f"(SELECT {', '.join(shown)} FROM (SELECT {nothing}) WHERE FALSE)"
        return f"(SELECT {', '.join(shown)} FROM (VALUES {listed}) AS given({names}))"

    def _join(self, join: Join) -> str:
        on = []
        if join.tie:
            pair = unit_of(join.left), unit_of(join.right)
            on.append(f"{column_name(pair[0])} = {column_name(pair[1])}")
        on.extend(f"{self.scalar(a)} = {self.scalar(b)}" for a, b in join.equal)
        on.extend(self.scalar(condition) for condition in join.conditions)
        left, right = self.relation(join.left), self.relation(join.right)
        if not on:
            return f"(SELECT * FROM {left} CROSS JOIN {right})"
        word = "LEFT JOIN" if join.how is How.LEFT else "JOIN"
        return f"(SELECT * FROM {left} {word} {right} ON {' AND '.join(on)})"

    def _released(self, release: Release) -> str:
        names = sorted(name for source, name in self.used if source == release.source)
        shown = [f"{quoted(n)} AS {quoted(f'{n}_{release.source}')}" for n in names]
        table = quoted(release_table(release.source))
        return f"(SELECT {', '.join(shown) or '1 AS one'} FROM {table})"

    def _unit_aggregate(self, node: UnitAggregate) -> str:
        unit = column_name(unit_of(node.input))
        shown = [f"{unit} AS {quoted(f'{UNIT_NAME}_{node.source}')}"]
        for i, key in enumerate(node.keys):
            shown.append(f"{self.scalar(key)} AS {quoted(f'k{i + 1}_{node.source}')}")
        for i, item in enumerate(node.items):
            printed = tuple(self.scalar(argument) for argument in item.arguments)
            where = self.conditions(item.conditions)
            call = UNIT_FUNCTIONS[item.function].sql(printed, item.arguments, where)
            shown.append(f"{call} AS {quoted(f'm{i + 1}_{node.source}')}")
        by = ", ".join(str(i + 1) for i in range(1 + len(node.keys)))
        return f"(SELECT {', '.join(shown)} FROM {self.relation(node.input)} GROUP BY {by})"

    def _window(self, node: Window) -> str:
        protected = kind_of(node.input) is Kind.PROTECTED
        unit = (unit_of(node.input),) if protected else ()
        ties = order_of(node.input) if protected else ()
        shown = ["*"]
        for i, item in enumerate(node.items):
            function = WINDOW_FUNCTIONS[item.function]
            parts = [*(column_name(c) for c in unit), *(self.scalar(p) for p in item.partition)]
            by = [self._ordering(*entry) for entry in item.order]
            if function.breaks_ties(item.frame):
                by.extend(column_name(column) for column in ties)
            over = f"PARTITION BY {', '.join(parts)}" if parts else ""
            over += f" ORDER BY {', '.join(by)}" if by else ""
            printed = tuple(self.scalar(argument) for argument in item.arguments)
            over = f"({over} {item.frame})"
            call = function.sql(printed, item.arguments, over) if protected else (
                f"{item.function}({', '.join(printed) or function.nothing}) OVER {over}"
            )
            shown.append(f"{call} AS {quoted(f'w{i + 1}_{node.source}')}")
        return f"(SELECT {', '.join(shown)} FROM {self.relation(node.input)})"

    def _mark(self, node: Mark) -> str:
        on = []
        if node.tie:
            pair = unit_of(node.input), unit_of(node.other)
            on.append(f"{column_name(pair[0])} = {column_name(pair[1])}")
        on.extend(f"{self.scalar(a)} = {self.scalar(b)}" for a, b in node.equal)
        on.extend(self.scalar(condition) for condition in node.conditions)
        where = f" WHERE {' AND '.join(on)}" if on else ""
        exists = f"EXISTS (SELECT 1 FROM {self.relation(node.other)}{where})"
        return (f"(SELECT *, {exists} AS {quoted(f'e1_{node.source}')} "
                f"FROM {self.relation(node.input)})")

    def _union(self, node: Union) -> str:
        branches = [self._branch(node, i, branch) for i, branch in enumerate(node.branches)]
        return f"({' UNION ALL '.join(branches)})"

    def _branch(self, node: Union, place: int, branch: Branch) -> str:
        shown = []
        if kind_of(branch.relation) is Kind.PROTECTED:
            unit = column_name(unit_of(branch.relation))
            shown.append(f"{unit} AS {quoted(f'{UNIT_NAME}_{node.source}')}")
            order = [str(place), *(f"CAST({column_name(c)} AS VARCHAR)"
                                   for c in order_of(branch.relation))]
            for i in range(union_order(node)):
                value = order[i] if i < len(order) else "''"
                shown.append(f"CAST({value} AS VARCHAR) AS {quoted(f'o{i + 1}_{node.source}')}")
        for i, (output, domain) in enumerate(zip(branch.outputs, node.domains, strict=True)):
            text = self.scalar(output)
            if domain.type in SQL_TYPES:
                text = f"TRY_CAST({text} AS {SQL_TYPES[domain.type]})"
            shown.append(f"{text} AS {quoted(f'c{i + 1}_{node.source}')}")
        return f"SELECT {', '.join(shown)} FROM {self.relation(branch.relation)}"

    def _ordering(self, expression: Expression, descending: bool, nulls_first: bool) -> str:
        return (f"{self.scalar(expression)} {'DESC' if descending else 'ASC'} "
                f"NULLS {'FIRST' if nulls_first else 'LAST'}")

    def _summary(self, summary: Summary) -> str:
        shown = [
            f"{self.scalar(key)} AS {quoted(f'k{i + 1}_{summary.source}')}"
            for i, key in enumerate(summary.keys)
        ]
        for i, (name, distinct, value, conditions) in enumerate(summary.aggregates):
            inner = "*" if value is None else self.scalar(value)
            call = f"{name}({'DISTINCT ' if distinct else ''}{inner})"
            if conditions:
                call += f" FILTER (WHERE {self.conditions(conditions)})"
            shown.append(f"{call} AS {quoted(f'm{i + 1}_{summary.source}')}")
        if summary.sets:
            for i, key in enumerate(summary.keys):
                grouping = f"GROUPING({self.scalar(key)})"
                shown.append(f"{grouping} AS {quoted(f'g{i + 1}_{summary.source}')}")
            shown.append(f"COUNT(*) AS {quoted(f'n_{summary.source}')}")
        group = self._grouping(summary)
        inner = self.relation(summary.input)
        return f"(SELECT {', '.join(shown) or '1 AS one'} FROM {inner}{group})"

    def _grouping(self, summary: Summary) -> str:
        if summary.sets:
            sets = (", ".join(self.scalar(summary.keys[i]) for i in s) for s in summary.sets)
            return f" GROUP BY GROUPING SETS ({', '.join(f'({s})' for s in sets)})"
        by = ", ".join(str(i + 1) for i in range(len(summary.keys)))
        return f" GROUP BY {by}" if by else ""

    def order(self, ordered: Ordered) -> str:
        """Print ORDER BY, LIMIT and OFFSET."""
        parts = [self._ordering(*entry) for entry in ordered.by]
        text = f" ORDER BY {', '.join(parts)}" if parts else ""
        if ordered.limit is not None:
            text += f" LIMIT {ordered.limit}"
        return f"{text} OFFSET {ordered.offset}" if ordered.offset else text


def printer_for(
    relation: Relation, expressions: Iterable[Expression], extra: Iterable[Column] = (),
    given: GivenValues | None = None,
) -> Printer:
    """Return a printer that reads what the relation and the expressions need."""
    columns: list[Column] = list(extra)
    for expression in expressions:
        columns.extend(columns_of(expression))
    for node in statement_relations(relation):
        for expression in read_by(node):
            columns.extend(columns_of(expression))
        columns.extend(_hidden(node))
    enums = {
        (node.source, name)
        for node in walk_relations(relation) if isinstance(node, Scan) for name in node.enums
    }
    used = frozenset((c.source, c.name) for c in columns)
    return Printer(used, frozenset(enums), given or {})


def statement_relations(relation: Relation) -> list[Relation]:
    """Return the nodes of one statement: what lies below a Release is another statement."""
    found: list[Relation] = []
    waiting = [relation]
    while waiting:
        node = waiting.pop()
        found.append(node)
        if not isinstance(node, Release):
            waiting.extend(inputs_of(node))
    return found


def _hidden(node: Relation) -> tuple[Column, ...]:
    """Return the columns that a node needs besides those its expressions read."""
    if isinstance(node, Join) and node.tie:
        return (unit_of(node.left), unit_of(node.right))
    if isinstance(node, Mark) and node.tie:
        return (unit_of(node.input), unit_of(node.other))
    if isinstance(node, UnitAggregate):
        return (unit_of(node.input),)
    if isinstance(node, Window) and kind_of(node.input) is Kind.PROTECTED:
        return (unit_of(node.input), *order_of(node.input))
    if isinstance(node, Union):
        protected = [b.relation for b in node.branches if kind_of(b.relation) is Kind.PROTECTED]
        return tuple(c for r in protected for c in (unit_of(r), *order_of(r)))
    return ()


def read_by(node: Relation) -> tuple[Expression, ...]:
    """Return the expressions that a node itself reads."""
    if isinstance(node, Filter):
        return node.conditions
    if isinstance(node, Join):
        return (*(side for pair in node.equal for side in pair), *node.conditions)
    if isinstance(node, Summary):
        values = tuple(v for _, _, v, _ in node.aggregates if v is not None)
        conditions = tuple(c for _, _, _, cs in node.aggregates for c in cs)
        return (*node.keys, *values, *conditions)
    if isinstance(node, UnitAggregate):
        parts = tuple(e for item in node.items for e in (*item.arguments, *item.conditions))
        return (*node.keys, *parts)
    if isinstance(node, Window):
        return tuple(
            e for item in node.items
            for e in (*item.arguments, *item.partition, *(entry[0] for entry in item.order))
        )
    if isinstance(node, Mark):
        return (*(side for pair in node.equal for side in pair), *node.conditions)
    if isinstance(node, Union):
        return tuple(e for branch in node.branches for e in branch.outputs)
    if isinstance(node, Ordered):
        return tuple(expression for expression, _, _ in node.by)
    return ()


def release_table(source: int) -> str:
    """Name the table that holds a release's noisy answers on the desk."""
    return f"release_{source}"


def public_scans(relation: Relation) -> tuple[Scan, ...]:
    """Return the public tables that post-processing reads."""
    return tuple(
        node for node in statement_relations(relation)
        if isinstance(node, Scan) and node.kind is Kind.PUBLIC
    )


def outer_statement(
    relation: Relation, outputs: tuple[tuple[str, Expression], ...],
    given: GivenValues | None = None,
) -> str:
    """Print post-processing: the user's SQL above the releases, outputs named c1, c2, ...

    The order is the user's; without one, rows keep the order of the key set, or are sorted, so
    that the order of rows never tells anything but released values.
    """
    tail, body = "", relation
    if isinstance(relation, Ordered):
        body = relation.input
    printer = printer_for(relation, [expression for _, expression in outputs], (), given)
    if isinstance(relation, Ordered):
        tail = printer.order(relation)
    elif any(isinstance(n, Summary | Join | Union | Window) for n in
             statement_relations(relation)):
        tail = " ORDER BY ALL"
    shown = ", ".join(
        f"{printer.scalar(expression)} AS c{i + 1}" for i, (_, expression) in enumerate(outputs)
    )
    return f"SELECT {shown} FROM {printer.relation(body)}{tail}"
