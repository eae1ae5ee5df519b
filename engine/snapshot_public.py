"""A public table of the source in; its copy in the snapshot and the planner's facts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from engine.database import Connection, quoted
from engine.snapshot_source import SourceTable
from engine.snapshot_sql import Raw, moment, number, raw_of, text
from planner.cataloguing import PublicColumn, PublicTable
from planner.domain import MEMBERS_MAX, Type, Value

ROWS_MAX = 20_000
CELLS_MAX = 200_000

_STORED = {
    Type.BOOLEAN: "BOOLEAN",
    Type.INTEGER: "BIGINT",
    Type.REAL: "DOUBLE",
    Type.DATE: "DATE",
    Type.TIMESTAMP: "TIMESTAMP",
    Type.TEXT: "VARCHAR",
}
_TYPES = {
    Raw.WHOLE: Type.INTEGER,
    Raw.FRACTION: Type.REAL,
    Raw.BOOLEAN: Type.BOOLEAN,
    Raw.DATE: Type.DATE,
    Raw.TIMESTAMP: Type.TIMESTAMP,
    Raw.TEXT: Type.TEXT,
    Raw.BLOB: Type.TEXT,
}


def copy_public(
    connection: Connection, name: str, source: SourceTable, target: str
) -> PublicTable:
    """Copy a public table whole into the schema `target` and return its facts.

    Its content is public, so its facts may depend on its rows. NaN and infinities become NULL;
    a type that the engine does not know is stored as its text; a column whose name begins with
    two underscores is left out, since such names are the snapshot's own.
    """
    columns = [c for c in source.columns if not c[0].startswith("__")]
    types = _types(connection, source, columns)
    selected = ", ".join(
        f"{_value(quoted(column), raw_of(type_), types[column])} AS {quoted(column)}"
        for column, type_ in columns
    )
    table = f"{target}.{quoted(name)}"
    connection.execute(f"CREATE TABLE {table} AS SELECT {selected} FROM {source.relation}")
    facts = tuple(_facts(connection, table, column, types[column]) for column, _ in columns)
    return PublicTable(name=name, columns=facts, rows=_distinct_rows(connection, table))


def _distinct_rows(connection: Connection, table: str) -> tuple[tuple[Any, ...], ...] | None:
    """Return the distinct rows of a small table: they list which values occur together."""
    rows = connection.execute(f"SELECT DISTINCT * FROM {table} LIMIT {ROWS_MAX + 1}").fetchall()
    if len(rows) > ROWS_MAX or (rows and len(rows) * len(rows[0]) > CELLS_MAX):
        return None
    return tuple(sorted(rows, key=lambda row: [(v is None, str(v)) for v in row]))


def _value(raw: str, kind: Raw, type_: Type) -> str:
    """Return the stored value; whole numbers beyond BIGINT become NULL."""
    if type_ is Type.REAL:
        return f"CASE WHEN isfinite({number(raw, kind)}) THEN {number(raw, kind)} END"
    if type_ in (Type.DATE, Type.TIMESTAMP):
        value = moment(raw, kind, type_)
        return f"CASE WHEN isfinite({value}) THEN {value} END"
    if type_ is Type.TEXT:
        return text(raw, kind)
    return f"TRY_CAST({raw} AS {_STORED[type_]})"


def _types(
    connection: Connection, source: SourceTable, columns: Sequence[tuple[str, str]]
) -> dict[str, Type]:
    """Say each column's type; where the file says none, the strictest that all its texts fit."""
    if not source.is_text:
        return {column: _TYPES[raw_of(type_)] for column, type_ in columns}
    tests = {
        Type.INTEGER: "CAST(TRY_CAST({0} AS BIGINT) AS VARCHAR) = {0}",
        Type.REAL: "TRY_CAST({0} AS DOUBLE) IS NOT NULL AND {0} NOT SIMILAR TO '0[0-9].*'",
        Type.DATE: "CAST(TRY_CAST({0} AS DATE) AS VARCHAR) = {0}",
        Type.TIMESTAMP: "TRY_CAST({0} AS TIMESTAMP) IS NOT NULL",
        Type.BOOLEAN: "lower({0}) IN ('true', 'false')",
    }
    names = [quoted(column) for column, _ in columns]
    checks = [
        f"bool_and(coalesce({test.format(name)}, false)) FILTER (WHERE {name} IS NOT NULL)"
        for name in names for test in tests.values()
    ]
    row = connection.execute(f"SELECT {', '.join(checks)} FROM {source.relation}").fetchone()
    found: dict[str, Type] = {}
    for place, (column, _) in enumerate(columns):
        fits = row[place * len(tests) : (place + 1) * len(tests)] if row else ()
        first = (type_ for type_, fit in zip(tests, fits, strict=False) if fit)
        found[column] = next(first, Type.TEXT)
    return found


def _facts(connection: Connection, table: str, column: str, type_: Type) -> PublicColumn:
    name = quoted(column)
    row = connection.execute(
        f"SELECT count(*), max(n), min(v), max(v), (SELECT count(*) - count({name}) FROM {table}) "
        f"FROM (SELECT {name} AS v, count(*) AS n FROM {table} WHERE {name} IS NOT NULL GROUP BY v)"
    ).fetchone()
    assert row is not None, "an aggregate returns one row"
    distinct, most, low, high, nulls = row
    values = None
    if distinct <= MEMBERS_MAX:
        rows = connection.execute(
            f"SELECT DISTINCT {name} FROM {table} WHERE {name} IS NOT NULL ORDER BY 1"
        ).fetchall()
        values = tuple(row[0] for row in rows)
    ordered = type_ not in (Type.TEXT, Type.BOOLEAN)
    return PublicColumn(
        name=column, type=type_, nullable=nulls > 0, low=low if ordered else None,
        high=high if ordered else None, values=values, rows_per_value=most,
    )  # fmt: skip


# --- Keeping the facts with the snapshot ----------------------------------------------------


def public_to_json(tables: Sequence[PublicTable]) -> list[dict[str, Any]]:
    """Return public facts as plain JSON values."""
    return [
        {
            "name": table.name,
            "columns": [
                {
                    "name": column.name, "type": column.type.value, "nullable": column.nullable,
                    "low": _plain(column.low), "high": _plain(column.high),
                    "values": None if column.values is None else [*map(_plain, column.values)],
                    "rows_per_value": column.rows_per_value,
                }
                for column in table.columns
            ],
            "rows": None if table.rows is None else [[*map(_plain, row)] for row in table.rows],
        }
        for table in tables
    ]  # fmt: skip


def public_from_json(stored: Sequence[Mapping[str, Any]]) -> tuple[PublicTable, ...]:
    """Read stored public facts back."""
    return tuple(
        PublicTable(
            name=table["name"], columns=tuple(_column(column) for column in table["columns"]),
            rows=_rows(table),
        )
        for table in stored
    )


def _rows(stored: Mapping[str, Any]) -> tuple[tuple[Any, ...], ...] | None:
    if stored["rows"] is None:
        return None
    types = [Type(column["type"]) for column in stored["columns"]]
    return tuple(tuple(map(_typed, row, types)) for row in stored["rows"])


def _column(stored: Mapping[str, Any]) -> PublicColumn:
    type_, values = Type(stored["type"]), stored["values"]
    return PublicColumn(
        name=stored["name"], type=type_, nullable=stored["nullable"],
        low=_typed(stored["low"], type_), high=_typed(stored["high"], type_),
        values=None if values is None else tuple(_typed(v, type_) for v in values),
        rows_per_value=stored["rows_per_value"],
    )  # fmt: skip


def _plain(value: Value | None) -> bool | int | float | str | None:
    return value.isoformat() if isinstance(value, date) else value


def _typed(value: Any, type_: Type) -> Any:
    if value is None:
        return None
    if type_ is Type.TIMESTAMP:
        return datetime.fromisoformat(value)
    return date.fromisoformat(value) if type_ is Type.DATE else value
