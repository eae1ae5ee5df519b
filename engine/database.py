"""The only door to DuckDB: paths and statements in, locked connections and Python rows out."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import duckdb

    Connection = duckdb.DuckDBPyConnection
else:
    Connection = Any

T = TypeVar("T")

FAILURE = "The database could not finish this statement; nothing more can be said about it."
DATABASE_SUFFIXES = (".duckdb", ".ddb", ".db")
DELIMITERS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t"}
FILE_SUFFIXES = (".parquet", *DELIMITERS)
SOURCE = "source"  # the name under which the steward's DuckDB file is attached


class DatabaseFailure(Exception):  # noqa: N818 - the name says whose fault it is
    """The database refused or gave up; the reason stays inside, because it may quote a row.

    Guarantee: the text is always the same, and neither __cause__ nor __context__ leads to the
    database's own message ("Could not convert string 'Anna'" would otherwise be an answer).
    """

    def __init__(self) -> None:
        super().__init__(FAILURE)


class SnapshotError(Exception):
    """The steward's database cannot become a snapshot; names files and tables, never values."""


def quoted(name: str) -> str:
    """Quote an identifier for DuckDB."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text constant for DuckDB."""
    return "'" + text.replace("'", "''") + "'"


def guarded(work: Callable[[], T]) -> T:
    """Do the work; whatever goes wrong in it becomes a DatabaseFailure without a past."""
    # Every Exception, not only duckdb.Error: converting a value to Python can fail as well.
    with suppress(Exception):
        return work()
    # Raised after the handler has ended, so that Python attaches no __context__ to it.
    raise DatabaseFailure


# --- Running statements ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What one statement returned: column names, DuckDB's type names, and the rows."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[Any, ...]] = field(repr=False)


def run(connection: Connection, sql: str, parameters: Sequence[object] = ()) -> Answer:
    """Run one SELECT on a cursor of its own and fetch every row.

    Anything but exactly one SELECT is refused here even if the caller meant it: COPY can write
    over the write-ahead log, and a temporary macro can change what abs() means.
    """

    cursor = guarded(connection.cursor)
    try:
        return _run_here(cursor, sql, parameters)
    finally:
        cursor.close()


def _run_here(cursor: Connection, sql: str, parameters: Sequence[object]) -> Answer:
    """Run one SELECT on this very cursor, which alone sees its temporary tables."""

    def work() -> Answer:
        import duckdb

        statements = duckdb.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise DatabaseFailure
        cursor.execute(statements[0], list(parameters))
        described = cursor.description or ()
        names = tuple(str(column[0]) for column in described)
        types = tuple(str(column[1]) for column in described)
        return Answer(names, types, cursor.fetchall())

    return guarded(work)


# --- The governed snapshot ------------------------------------------------------------------


def open_governed(
    path: Path, memory: str = "2GB", threads: int = 2, seconds: float | None = None
) -> Connection:
    """Open a snapshot for queries: read-only, limited, cut off from files, settings locked.

    Guarantee: through this connection no statement reads or writes a file besides the snapshot,
    loads an extension, sees a Python variable, or changes a setting. Nothing spills to disk,
    because a temporary directory would be one that COPY may write to: a query that needs more
    than `memory` fails. Connections of one process to one snapshot share the first one's limits.
    """
    return guarded(lambda: _locked(_connect(str(path), read_only=True), memory, threads, seconds))


def open_memory(memory: str = "1GB", threads: int = 1, seconds: float | None = None) -> Connection:
    """Open an empty database in memory, locked down in the same way."""
    started = {"threads": str(int(threads))}  # at once: starting threads and stopping them is slow
    return guarded(
        lambda: _locked(_connect(":memory:", settings=started), memory, threads, seconds)
    )


def _connect(
    path: str, *, read_only: bool = False, settings: Mapping[str, str] | None = None
) -> Connection:
    import duckdb

    fixed = {"python_enable_replacements": "false", "autoinstall_known_extensions": "false"}
    return duckdb.connect(path, read_only=read_only, config={**fixed, **(settings or {})})


def _locked(connection: Connection, memory: str, threads: int, seconds: float | None) -> Connection:
    """Set the limits, then cut off the outside world, then lock; this order is forced."""
    if not threads >= 1 or (seconds is not None and not seconds > 0):
        raise ValueError("limits must be positive")
    statements = [
        f"SET memory_limit = {literal(memory)}",
        f"SET threads = {int(threads)}",
        "SET temp_directory = ''",
        *([f"SET max_execution_time = {int(seconds * 1000)}"] if seconds is not None else []),
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    ]
    if _is_locked(connection):  # another connection of this process came first
        return connection
    with suppress(Exception):  # as it may do between two of these statements
        for statement in statements:
            connection.execute(statement)
    if not _is_locked(connection):
        raise DatabaseFailure
    return connection


def _is_locked(connection: Connection) -> bool:
    names = "current_setting('lock_configuration'), current_setting('enable_external_access')"
    row = connection.execute(f"SELECT {names}").fetchone()
    return row == (True, False)


# --- The desk -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeskTable:
    """A released table: column names, DuckDB's type names, and one sequence per column."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    values: tuple[Sequence[object], ...] = field(repr=False)


class Desk:
    """An empty, locked database in memory, on which released tables are post-processed.

    Guarantee: a statement sees the tables given with it and nothing else: no protected row, no
    file, no table of another statement. Each statement has a cursor of its own, whose temporary
    tables end with it. Safe to use from several threads.
    """

    def __init__(self, memory: str = "1GB", threads: int = 1, seconds: float | None = 60) -> None:
        self._connection = open_memory(memory, threads, seconds)

    def run(
        self, tables: Mapping[str, DeskTable], sql: str, parameters: Sequence[object] = ()
    ) -> Answer:
        """Load the tables, run one SELECT over them, forget them."""
        cursor = self._connection.cursor()
        try:
            guarded(lambda: _load(cursor, tables))
            return _run_here(cursor, sql, parameters)
        finally:
            cursor.close()

    def close(self) -> None:
        """Give the memory back."""
        self._connection.close()


def open_desk(memory: str = "1GB", threads: int = 1, seconds: float | None = 60) -> Desk:
    """Open the desk for released tables; keep it open, a statement then takes 1 to 2 ms."""
    return Desk(memory, threads, seconds)


def _load(cursor: Connection, tables: Mapping[str, DeskTable]) -> None:
    """Create temporary tables from parameters: no value ever becomes part of a statement."""
    for name, table in tables.items():
        columns = (
            f"unnest(CAST(? AS {type_}[])) AS {quoted(column)}"
            for column, type_ in zip(table.columns, table.types, strict=True)
        )
        values = [list(column) for column in table.values]
        if len({len(column) for column in values}) > 1:
            raise ValueError("columns differ in length")
        cursor.execute(f"CREATE TEMP TABLE {quoted(name)} AS SELECT {', '.join(columns)}", values)


# --- Writing a database of one's own --------------------------------------------------------


def open_new(path: Path) -> Connection:
    """Open a database for writing: synthetic data and snapshots under construction only."""
    return _connect(str(path))


def insert_columns(connection: Connection, sql: str, columns: Mapping[str, Any]) -> None:
    """Run an INSERT whose FROM names `given`: numpy arrays of one length, one per column."""
    connection.register("given", dict(columns))
    try:
        connection.execute(sql)
    finally:
        connection.unregister("given")


# --- The steward's database -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A table of the source: what to write after FROM, and its columns' names and types.

    `is_text` says that every column is text because the file says no types.
    """

    name: str
    relation: str
    columns: tuple[tuple[str, str], ...]
    is_text: bool = False

    def column(self, name: str) -> tuple[str, str] | None:
        """Find a column's exact name and type, ignoring case as SQL does."""
        folded = name.lower()
        return next((c for c in self.columns if c[0].lower() == folded), None)


@dataclass(frozen=True, slots=True)
class Source:
    """An open source: the connection that can read it, and its tables."""

    connection: Connection
    tables: tuple[SourceTable, ...]

    def table(self, name: str) -> SourceTable | None:
        """Find a table, ignoring case as SQL does."""
        folded = name.lower()
        return next((t for t in self.tables if t.name.lower() == folded), None)


def source_files(location: Path) -> dict[str, tuple[Path, ...]]:
    """List the files of a source by table; a DuckDB file and its log stand under ''."""
    if not location.exists():
        raise SnapshotError(
            f"The database {location} does not exist. The policy's `database` must name a DuckDB "
            "file, a Parquet or CSV file, or a folder of them."
        )
    if location.is_dir():
        return _folder(location)
    if _suffix(location) in DATABASE_SUFFIXES:
        log = location.with_name(location.name + ".wal")
        return {"": (location, log) if log.exists() else (location,)}
    if _suffix(location):
        return {_stem(location): (location,)}
    raise SnapshotError(
        f"The database {location} is of no kind that can be read. Accepted: a folder, or a file "
        f"ending in {', '.join((*DATABASE_SUFFIXES, *FILE_SUFFIXES))}."
    )


@contextmanager
def open_source(
    files: Mapping[str, tuple[Path, ...]], memory: str, threads: int, spill: Path
) -> Iterator[Source]:
    """Open the steward's files for building a snapshot; closed at the end of the block.

    A text file is read with every column as text and with a fixed dialect: a dialect or a type
    guessed from the rows would let one patient's row change how all others are read.
    """
    limits = {"memory_limit": memory, "threads": str(int(threads)), "temp_directory": str(spill)}
    connection = _connect(":memory:", settings=limits)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        tables = [_file_table(connection, name, paths) for name, paths in files.items() if name]
        if "" in files:
            tables += _attached(connection, files[""][0])
        yield Source(connection, tuple(tables))
    finally:
        connection.close()


def _attached(connection: Connection, location: Path) -> list[SourceTable]:
    try:
        connection.execute(f"ATTACH {literal(str(location))} AS {SOURCE} (READ_ONLY)")
        found = connection.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE database_name "
            f"= {literal(SOURCE)} AND schema_name = 'main' ORDER BY table_name, column_index"
        ).fetchall()
    except Exception:
        found = None
    if found is None:
        raise SnapshotError(
            f"The database {location} cannot be opened for reading: either it is not a DuckDB 2 "
            "file, or somebody has it open for writing. Close that connection and try again."
        )
    columns: dict[str, list[tuple[str, str]]] = {}
    for table, column, type_ in found:
        columns.setdefault(table, []).append((column, type_))
    return [
        SourceTable(name, f"{SOURCE}.main.{quoted(name)}", tuple(pairs))
        for name, pairs in columns.items()
    ]


def _file_table(connection: Connection, name: str, files: tuple[Path, ...]) -> SourceTable:
    paths = "[" + ", ".join(literal(str(path)) for path in files) + "]"
    suffix = _suffix(files[0])
    if suffix == ".parquet":
        relation = f"read_parquet({paths})"
    else:
        columns = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in _header(files))
        relation = (
            f"read_csv({paths}, auto_detect = false, header = true, delim = "
            f"{literal(DELIMITERS[suffix])}, quote = '\"', escape = '\"', nullstr = '', "
            f"columns = {{{columns}}})"
        )
    try:
        described = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    except Exception:
        described = None
    if described is None:
        raise SnapshotError(
            f"The table {name} cannot be read from {files[0]}. Parquet files must be whole; text "
            "files need a header line, double quotes, and one separator throughout."
        )
    columns_found = tuple((str(row[0]), str(row[1])) for row in described)
    return SourceTable(name, relation, columns_found, is_text=suffix != ".parquet")


def _header(files: tuple[Path, ...]) -> list[str]:
    """Read the column names of a text table, which all its files must share."""
    headers = []
    for path in files:
        opener = gzip.open if path.name.lower().endswith(".gz") else open
        with opener(path, "rt", encoding="utf-8-sig", newline="") as lines:
            headers.append(next(csv.reader(lines, delimiter=DELIMITERS[_suffix(path)]), []))
    if not headers[0] or any(header != headers[0] for header in headers):
        raise SnapshotError(
            f"The text files of {_stem(files[0])} need one and the same header line; "
            f"{files[0]} begins with {len(headers[0])} columns."
        )
    return headers[0]


def _folder(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Group a folder's files into tables: visits.parquet, or visits/ with its parts."""
    groups: dict[str, tuple[Path, ...]] = {}
    for entry in sorted(folder.iterdir()):
        parts = tuple(sorted(entry.iterdir())) if entry.is_dir() else (entry,)
        files = tuple(part for part in parts if _suffix(part) in FILE_SUFFIXES)
        name = entry.name if entry.is_dir() else _stem(entry)
        if not files:
            continue
        if name.lower() in {known.lower() for known in groups}:
            raise SnapshotError(f"The folder {folder} holds the table {name} twice; keep one.")
        if len({_suffix(file) for file in files}) > 1:
            raise SnapshotError(f"The folder {entry} mixes kinds of files; keep one kind.")
        groups[name] = files
    if not groups:
        raise SnapshotError(
            f"The folder {folder} holds no table. Accepted: files ending in "
            f"{', '.join(FILE_SUFFIXES)}, or one folder of them per table."
        )
    return groups


def _suffix(path: Path) -> str:
    """Return the known suffix of a file, or ''."""
    name = path.name.lower()
    known = (*DATABASE_SUFFIXES, *FILE_SUFFIXES)
    return next((s for s in sorted(known, key=len, reverse=True) if name.endswith(s)), "")


def _stem(path: Path) -> str:
    return path.name[: len(path.name) - len(_suffix(path))]
