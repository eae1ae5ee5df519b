"""The only door to DuckDB: paths and statements in, locked connections and Python rows out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
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


class DatabaseFailure(Exception):  # noqa: N818 - the name says whose fault it is
    """The database refused or gave up; the reason stays inside, because it may quote a row.

    Guarantee: the text is always the same, and neither __cause__ nor __context__ leads to the
    database's own message ("Could not convert string 'Anna'" would otherwise be an answer).
    """

    def __init__(self) -> None:
        super().__init__(FAILURE)


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


def stream(connection: Connection, sql: str, rows: int) -> Iterator[tuple[Any, ...]]:
    """Run one SELECT and yield its columns as numpy arrays, about `rows` rows at a time.

    Blobs come as arrays of bytes objects. The columns must not hold NULL.
    """
    cursor = guarded(connection.cursor)
    try:
        guarded(lambda: _start(cursor, sql))
        while batch := guarded(lambda: _batch(cursor, rows)):
            yield batch
    finally:
        cursor.close()


def _start(cursor: Connection, sql: str) -> None:
    import duckdb

    statements = duckdb.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise DatabaseFailure
    cursor.execute(statements[0])


def _batch(cursor: Connection, rows: int) -> tuple[Any, ...]:
    """Return the next rows as columns, or nothing. DuckDB hands them out in vectors of 2,048."""
    frame = cursor.fetch_df_chunk(max(1, rows // 2048))
    return tuple(frame[name].to_numpy() for name in frame.columns) if len(frame) else ()


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


def open_without(
    path: Path, tables: Iterable[tuple[str, bool]], unit: int, memory: str = "4GB",
) -> Connection:
    """Open a snapshot as it looks without one patient: views over the same file, locked down.

    `tables` are all of its tables, each with whether its rows belong to patients. For audits.
    """

    def work() -> Connection:
        connection = _connect(":memory:")
        connection.execute(f"ATTACH {literal(str(path))} AS seen (READ_ONLY)")
        for name, is_protected in tables:
            where = f" WHERE __u <> {int(unit)}" if is_protected else ""
            connection.execute(f"CREATE VIEW {quoted(name)} AS SELECT * FROM "
                               f"seen.{quoted(name)}{where}")
        return _locked(connection, memory, 1, None)

    return guarded(work)


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
    limit = None if seconds is None else max(1, int(seconds * 1000))  # 0 would mean: no limit
    statements = [
        f"SET memory_limit = {literal(memory)}",
        f"SET threads = {int(threads)}",
        "SET temp_directory = ''",
        # GLOBAL: without it the limit would hold for this connection and for none of its cursors.
        *([f"SET GLOBAL max_execution_time = {limit}"] if limit is not None else []),
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


# --- Reading the steward's own files --------------------------------------------------------


def open_unlocked(database: Path | None = None) -> Connection:
    """Open the steward's database read-only, or one in memory, to read schemas for the steward.

    It may read files and has no limits: not for an analyst's statements. No extension is loaded.
    """
    offline = {"autoload_known_extensions": "false"}
    return guarded(
        lambda: _connect(
            ":memory:" if database is None else str(database),
            read_only=database is not None,
            settings=offline,
        )
    )


# --- Writing a database of one's own --------------------------------------------------------


def open_new(path: Path) -> Connection:
    """Open a database for writing: synthetic data and snapshots under construction only."""
    return _connect(str(path))


def open_scratch(settings: Mapping[str, str]) -> Connection:
    """Open an empty database in memory for the building of a snapshot; it may read files."""
    return _connect(":memory:", settings=settings)


def insert_columns(connection: Connection, sql: str, columns: Mapping[str, Any]) -> None:
    """Run an INSERT whose FROM names `given`: numpy arrays of one length, one per column."""
    connection.register("given", dict(columns))
    try:
        connection.execute(sql)
    finally:
        connection.unregister("given")
