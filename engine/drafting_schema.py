"""A database's path in; its tables' names, columns, types and declared keys out: no row."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from engine.database import Connection, DatabaseFailure, open_unlocked, run

TABLE_FILES = (".parquet", ".csv", ".csv.gz", ".tsv")
_COLUMNS_MAX = 20_000


class DraftError(Exception):
    """The database's schema cannot be read; the message says why and what would be."""


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A column as the database declares it."""

    name: str
    type: str  # the head of the type's name only: "DECIMAL", "ENUM", never its members


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A table as the database declares it."""

    name: str
    source: str | None  # where the database calls it something else
    columns: tuple[SourceColumn, ...]
    primary_key: tuple[str, ...] = ()
    foreign_keys: tuple[tuple[str, str, str], ...] = ()  # column, table, its column

    def column(self, name: str) -> SourceColumn | None:
        """Find a column by name, ignoring case as SQL does."""
        return next((c for c in self.columns if c.name.lower() == name.lower()), None)


def read_schema(database: Path) -> tuple[SourceTable, ...]:
    """Return the tables of a DuckDB file, of a folder of Parquet or CSV files, or of one file."""
    if not database.exists():
        raise DraftError(f"{database} does not exist; name a DuckDB file, a folder or a file")
    try:
        if database.is_dir() or database.name.lower().endswith(TABLE_FILES):
            with open_unlocked() as connection:
                return _file_tables(connection, database)
        with open_unlocked(database) as connection:
            return _database_tables(connection)
    except DatabaseFailure:
        said = "cannot be read as a DuckDB file (or is in use), Parquet or CSV"
        raise DraftError(f"{database} {said}; close other programs, or check the file") from None


def _file_tables(connection: Connection, database: Path) -> tuple[SourceTable, ...]:
    found = [database] if database.is_file() else sorted(database.iterdir())
    tables = [
        _file_table(connection, path) for path in found if path.name.lower().endswith(TABLE_FILES)
    ]
    names = [table.name.lower() for table in tables]
    for table in tables:
        if names.count(table.name.lower()) > 1:
            raise DraftError(f"{database} holds two files named '{table.name}'; keep one of them")
    return tuple(tables)


def _file_table(connection: Connection, path: Path) -> SourceTable:
    lower = path.name.lower()
    suffix = next(suffix for suffix in TABLE_FILES if lower.endswith(suffix))
    is_parquet = suffix == ".parquet"
    reader = "read_parquet(?)" if is_parquet else "read_csv(?, header = true)"
    rows = run(connection, f"DESCRIBE SELECT * FROM {reader}", [str(path)]).rows
    names = [str(row[0]) for row in rows]
    if not is_parquet and not all(re.match(r"[A-Za-z_]", name) for name in names):
        # What looks like a value is not repeated here.
        raise DraftError(f"{path.name} has no header line; a CSV file opens with column names")
    columns = tuple(SourceColumn(str(name), _head_of(str(type_))) for name, type_, *_ in rows)
    return SourceTable(path.name[: -len(suffix)], None, columns)


def _database_tables(connection: Connection) -> tuple[SourceTable, ...]:
    rows = run(
        connection,
        "SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() "
        "WHERE NOT internal AND database_name = current_database() "
        f"ORDER BY schema_name, table_name, column_index LIMIT {_COLUMNS_MAX}",
    ).rows
    keys = run(
        connection,
        "SELECT schema_name, table_name, constraint_type, constraint_column_names, "
        "referenced_table, referenced_column_names FROM duckdb_constraints() "
        "WHERE database_name = current_database() "
        "AND constraint_type IN ('PRIMARY KEY', 'FOREIGN KEY')",
    ).rows
    columns: dict[tuple[str, str], list[SourceColumn]] = {}
    for schema, table, name, type_ in rows:
        columns.setdefault((schema, table), []).append(SourceColumn(name, _head_of(type_)))
    tables = []
    for (schema, table), kept in columns.items():
        here = [key[2:] for key in keys if key[:2] == (schema, table)]
        primary = next((tuple(names) for kind, names, *_ in here if kind == "PRIMARY KEY"), ())
        foreign = tuple(
            (names[0], to, to_names[0])
            for kind, names, to, to_names in here if kind == "FOREIGN KEY" and len(names) == 1
        )
        source = None if schema == "main" else f"{schema}.{table}"
        is_repeated = sum(other.lower() == table.lower() for _, other in columns) > 1
        name = f"{schema}_{table}" if is_repeated and source is not None else table
        tables.append(SourceTable(name, source, tuple(kept), primary, foreign))
    return tuple(tables)


def _head_of(type_: str) -> str:
    if type_.endswith("]"):
        return "LIST"
    return re.split(r"[( ]", type_.upper(), maxsplit=1)[0]
