"""The steward's files in; a connection that reads them as tables, with their columns, out."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.database import Connection, literal, open_scratch, quoted

DATABASE_SUFFIXES = (".duckdb", ".ddb", ".db")
DELIMITERS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t"}
FILE_SUFFIXES = (".parquet", *DELIMITERS)
SOURCE = "source"  # the name under which the steward's DuckDB file is attached


class SnapshotError(Exception):
    """The steward's database cannot become a snapshot; names files and tables, never values."""


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
    connection = open_scratch(limits)
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
