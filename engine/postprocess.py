"""Released tables in, the rows asked for out: the rest of the SQL, on public things only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.database import Desk, DeskTable, quoted
from engine.database import run as run_statement
from engine.release import Released
from planner.bind import Bound
from planner.domain import Type, Value
from planner.emit import outer_statement, public_scans, release_table
from planner.expression import Column, columns_of
from planner.functions.calendar import SQL_TYPES
from planner.relation import Release
from planner.uncertainty import HALF_WIDTH, Ends, confidence_of, ends_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Cell = Value | None
Interval = tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Table:
    """The answer: names, logical types, rows, and an interval for every noisy cell."""

    columns: tuple[str, ...]
    types: tuple[Type, ...]
    rows: tuple[tuple[Cell, ...], ...]
    intervals: tuple[tuple[Interval, ...], ...]


@dataclass(frozen=True, slots=True)
class ReleasedTable:
    """All noised columns of one release over one key set."""

    source: int
    keys: tuple[tuple[Cell, ...], ...]
    measures: tuple[Released, ...]


def postprocess(
    bound: Bound, tables: tuple[ReleasedTable, ...], desk: Desk, database: DuckDBPyConnection
) -> Table:
    """Run the user's SQL above the releases, and the same SQL on both ends of each interval.

    Guarantee: the statement sees released tables and public tables and nothing else (the desk is
    an empty, locked database), so whatever it does is post-processing. `database` is read for
    public tables only.
    """
    relation, outputs = bound.rows.relation, bound.rows.outputs
    ends = [ends_of(expression, relation) for _, expression in outputs]
    wanted = [(name, expression) for name, expression in outputs]
    places: dict[int, int] = {}
    for i, end in enumerate(ends):
        if end is not None:
            places[i] = len(wanted)
            wanted.extend((("low", end.low), ("high", end.high)))
    by_source = {r.source: r for r in bound.releases}
    loaded = {
        release_table(t.source): _desk_table(by_source[t.source], t, ends) for t in tables
    }
    loaded.update(_public_tables(bound, database))
    answer = desk.run(loaded, outer_statement(relation, tuple(wanted)))
    types = tuple(expression.domain.type for _, expression in outputs)
    count = len(outputs)
    return Table(
        tuple(name for name, _ in outputs),
        types,
        tuple(tuple(map(_value, row[:count], types)) for row in answer.rows),
        tuple(_intervals(row, places, count) for row in answer.rows),
    )


def _intervals(
    row: tuple[object, ...], places: Mapping[int, int], count: int
) -> tuple[Interval, ...]:
    found: list[Interval] = [None] * count
    for output, place in places.items():
        low, high = row[place], row[place + 1]
        if isinstance(low, int | float) and isinstance(high, int | float):
            found[output] = (float(low), float(high))
    return tuple(found)


def _value(value: object, kind: Type) -> Cell:
    """Return whole numbers as int: arithmetic runs in DOUBLE."""
    if kind is Type.INTEGER and isinstance(value, float) and value.is_integer():
        return int(value)
    return value  # type: ignore[return-value]


def _desk_table(release: Release, table: ReleasedTable, ends: list[Ends | None]) -> DeskTable:
    names, types, values = [], [], []
    for i, key in enumerate(release.keys):
        names.append(f"k{i + 1}")
        types.append(SQL_TYPES.get(key.domain.type, "VARCHAR"))
        values.append([row[i] for row in table.keys])
    for i, measure in enumerate(table.measures):
        numbers = measure.numbers()
        whole = all(isinstance(n, int) and abs(n) < 2**62 for n in numbers)
        names.append(f"m{i + 1}")
        types.append("BIGINT" if whole else "DOUBLE")
        values.append(numbers)
        for together in _widths_used(release.source, i, ends):
            names.append(f"m{i + 1}{HALF_WIDTH}{together}")
            types.append("DOUBLE")
            values.append([measure.half_width(confidence_of(together))] * len(numbers))
    if not names:
        names, types, values = ["one"], ["BIGINT"], [[1] * len(table.keys)]
    return DeskTable(tuple(names), tuple(types), tuple(values))


def _widths_used(source: int, place: int, ends: list[Ends | None]) -> list[int]:
    prefix = f"m{place + 1}{HALF_WIDTH}"
    found = set()
    for end in ends:
        for side in (end.low, end.high) if end is not None else ():
            for column in columns_of(side):
                if column.source == source and column.name.startswith(prefix):
                    found.add(int(column.name.removeprefix(prefix)))
    return sorted(found)


def _public_tables(bound: Bound, database: DuckDBPyConnection) -> dict[str, DeskTable]:
    """Copy the public tables that the outer SQL reads onto the desk."""
    loaded = {}
    for scan in public_scans(bound.rows.relation):
        columns = [c for c in scan.columns if isinstance(c, Column)]
        names = tuple(c.name for c in columns)
        shown = ", ".join(quoted(name) for name in names)
        answer = run_statement(database, f"SELECT {shown} FROM {quoted(scan.table)}")
        types = tuple(SQL_TYPES.get(c.domain.type, "VARCHAR") for c in columns)
        loaded[scan.table] = DeskTable(names, types, tuple(zip(*answer.rows, strict=True)) or (
            tuple(() for _ in names)
        ))
    return loaded


def is_public(bound: Bound) -> bool:
    """Return whether a question reads no patient's data at all."""
    return not bound.releases


