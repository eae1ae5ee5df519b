"""Our nodes in, SQL text for DuckDB out: generated from the nodes, never from the user's text.

Every column is printed under a name that is unique in the plan ("age_3": column age of instance
3), so no alias can capture another. Only the columns that are used are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

from planner.catalog import Kind
from planner.domain import Type, Value
from planner.expression import Column, Expression, Literal, columns_of
from planner.functions import FUNCTIONS
from planner.functions.calendar import SQL_TYPES
from planner.relation import (
    RANK_NAME,
    Filter,
    How,
    Join,
    Nothing,
    Ordered,
    Relation,
    Release,
    Scan,
    Summary,
    unit_of,
    walk_relations,
)


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
        text = repr(value)
        text = text if "e" in text else f"{text}e0"  # without an exponent it would be DECIMAL
        return text if value >= 0 else f"({text})"
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.isoformat(sep=' ')}'"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    return "'" + value.replace("'", "''") + "'"


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

    def scalar(self, expression: Expression) -> str:
        """Print an expression; an ENUM becomes text, because its order is not that of text."""
        if isinstance(expression, Column):
            name = column_name(expression)
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
        return FUNCTIONS[expression.function].sql(printed, expression.arguments)

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
        return column_name(expression) if isinstance(expression, Column) else (
            self.scalar(expression)
        )

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
        if isinstance(relation, Summary):
            return self._summary(relation)
        if isinstance(relation, Ordered):
            return f"(SELECT * FROM {self.relation(relation.input)}{self.order(relation)})"
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
        by = ", ".join(str(i + 1) for i in range(len(summary.keys)))
        group = f" GROUP BY {by}" if by else ""
        inner = self.relation(summary.input)
        return f"(SELECT {', '.join(shown) or '1 AS one'} FROM {inner}{group})"

    def order(self, ordered: Ordered) -> str:
        """Print ORDER BY, LIMIT and OFFSET."""
        parts = [
            f"{self.scalar(expression)} {'DESC' if descending else 'ASC'} "
            f"NULLS {'FIRST' if nulls_first else 'LAST'}"
            for expression, descending, nulls_first in ordered.by
        ]
        text = f" ORDER BY {', '.join(parts)}" if parts else ""
        if ordered.limit is not None:
            text += f" LIMIT {ordered.limit}"
        return f"{text} OFFSET {ordered.offset}" if ordered.offset else text


def printer_for(
    relation: Relation, expressions: Iterable[Expression], extra: Iterable[Column] = ()
) -> Printer:
    """Return a printer that reads what the relation and the expressions need."""
    columns: list[Column] = list(extra)
    for expression in expressions:
        columns.extend(columns_of(expression))
    for node in statement_relations(relation):
        for expression in _read_by(node):
            columns.extend(columns_of(expression))
        if isinstance(node, Join) and node.tie:
            columns.extend((unit_of(node.left), unit_of(node.right)))
    enums = {
        (node.source, name)
        for node in walk_relations(relation) if isinstance(node, Scan) for name in node.enums
    }
    return Printer(frozenset((c.source, c.name) for c in columns), frozenset(enums))


def statement_relations(relation: Relation) -> list[Relation]:
    """Return the nodes of one statement: what lies below a Release is another statement."""
    found: list[Relation] = []
    waiting = [relation]
    while waiting:
        node = waiting.pop()
        found.append(node)
        if isinstance(node, Join):
            waiting.extend((node.left, node.right))
        elif not isinstance(node, Scan | Release | Nothing):
            waiting.append(node.input)
    return found


def _read_by(node: Relation) -> tuple[Expression, ...]:
    if isinstance(node, Filter):
        return node.conditions
    if isinstance(node, Join):
        return (*(side for pair in node.equal for side in pair), *node.conditions)
    if isinstance(node, Summary):
        values = tuple(v for _, _, v, _ in node.aggregates if v is not None)
        conditions = tuple(c for _, _, _, cs in node.aggregates for c in cs)
        return (*node.keys, *values, *conditions)
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


def outer_statement(relation: Relation, outputs: tuple[tuple[str, Expression], ...]) -> str:
    """Print post-processing: the user's SQL above the releases, outputs named c1, c2, ...

    The order is the user's; without one, rows keep the order of the key set, or are sorted, so
    that the order of rows never tells anything but released values.
    """
    tail, body = "", relation
    if isinstance(relation, Ordered):
        body = relation.input
    printer = printer_for(relation, [expression for _, expression in outputs])
    if isinstance(relation, Ordered):
        tail = printer.order(relation)
    elif any(isinstance(n, Summary | Join) for n in statement_relations(relation)):
        tail = " ORDER BY ALL"
    shown = ", ".join(
        f"{printer.scalar(expression)} AS c{i + 1}" for i, (_, expression) in enumerate(outputs)
    )
    return f"SELECT {shown} FROM {printer.relation(body)}{tail}"
