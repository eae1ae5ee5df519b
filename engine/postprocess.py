"""Released tables in, the rows asked for out: the rest of the SQL, on public things only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import TYPE_CHECKING

from engine.database import Desk, DeskTable, quoted
from engine.database import run as run_statement
from engine.readings import read
from engine.release import Released
from engine.winner import winners
from planner.bind import Rows
from planner.domain import Type, Value
from planner.emit import GivenValues, outer_statement, public_scans, release_table
from planner.expression import Column, Expression, columns_of, replaced
from planner.functions import Evaluator, NotEnumerable, evaluator
from planner.functions.calendar import SQL_TYPES
from planner.relation import Release
from planner.sign import never_negative
from planner.uncertainty import (
    CONFIDENCE,
    Interval,
    confidence_of,
    derived_columns,
    ends_of,
    interval_of,
    noisy_columns,
    noisy_nodes,
    parts_column,
    summed_width,
    totals_of,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Cell = Value | None


@dataclass(frozen=True, slots=True)
class Table:
    """The answer: names, logical types, rows, and an interval for every noisy cell.

    `never_negative` says of each column whether its exact values cannot be below zero.
    """

    columns: tuple[str, ...]
    types: tuple[Type, ...]
    rows: tuple[tuple[Cell, ...], ...]
    intervals: tuple[tuple[Interval | None, ...], ...]
    never_negative: tuple[bool, ...] = ()

    def at_least_zero(self) -> Table:
        """Return the answer with zero in place of what noise made negative, and so the intervals.

        Guarantee: a function of the released numbers, so it costs nothing. An interval that held
        the exact value still does, because that is not below zero.
        """
        def cell(value: Cell, place: int) -> Cell:
            negative = isinstance(value, int | float) and value < 0
            return 0 if negative and self.never_negative[place] else value

        def ends(interval: Interval | None, place: int) -> Interval | None:
            if interval is None or not self.never_negative[place]:
                return interval
            return max(interval[0], 0.0), max(interval[1], 0.0)

        return replace(
            self, rows=tuple(tuple(map(cell, row, range(len(row)))) for row in self.rows),
            intervals=tuple(tuple(map(ends, row, range(len(row)))) for row in self.intervals),
        )


@dataclass(frozen=True, slots=True)
class ReleasedTable:
    """All noised columns of one release over one key set."""

    source: int
    keys: tuple[tuple[Cell, ...], ...]
    measures: tuple[Released, ...]
    centers: tuple[float, ...] = ()  # of each measure; zero for what is no sum
    cuts: tuple[tuple[float, float], ...] = ()  # what clips take from each group, as estimated
    apart: frozenset[int] = frozenset()  # the measures whose keys have intervals of their own


def postprocess(
    rows: Rows, releases: tuple[Release, ...], tables: tuple[ReleasedTable, ...], desk: Desk,
    database: DuckDBPyConnection, given: GivenValues, confidence: float = CONFIDENCE,
) -> Table:
    """Run the user's SQL above the releases, and work out the interval of every noisy cell.

    Guarantee: the statement sees released tables and public tables and nothing else (the desk is
    an empty, locked database), so whatever it does is post-processing. `database` is read for
    public tables only; `given` are released answers that this statement uses as constants.
    """
    relation, outputs = rows.relation, rows.outputs
    statistics, totals = derived_columns(relation), totals_of(relation)
    # A statistic's interval follows from the measures it was computed from.
    expressions = [replaced(expression, statistics) for _, expression in outputs]
    noisy = [noisy_columns(expression, relation) for expression in expressions]
    with_ends = {(t.source, f"m{place + 1}") for t in tables for place in t.apart}
    hidden = tuple(dict.fromkeys(
        column for expression, measures in zip(expressions, noisy, strict=True) if measures
        for read_ in columns_of(expression)
        for column in (read_, *ends_of(read_), *((parts_column(read_),)
                                                 if read_.source in totals else ()),
                       *(_own_ends(read_) if (read_.source, read_.name) in with_ends else ()))
    ))
    by_source = {release.source: release for release in releases}
    loaded = {release_table(t.source): _desk_table(by_source[t.source], t, confidence)
              for t in tables}
    loaded.update(_public_tables(rows, database))
    wanted = (*outputs, *((column.name, column) for column in hidden))
    answer = desk.run(loaded, outer_statement(relation, wanted, given))
    types = tuple(expression.domain.type for _, expression in outputs)
    count = len(outputs)
    noises = [_noises(measures, tables, totals, confidence) for measures in noisy]
    nodes = [noisy_nodes(e, (n.column for n in noise))
             for e, noise in zip(expressions, noises, strict=True)]
    wrong = [any(n.is_wrong() for n in noise) for noise in noises]
    intervals = []
    for row in answer.rows:
        values: dict[Expression, Value | None] = dict(zip(hidden, row[count:], strict=True))
        intervals.append(tuple(
            _interval(cell, expression, values, noise, below, is_wrong)
            for cell, expression, noise, below, is_wrong in zip(
                row[:count], expressions, noises, nodes, wrong, strict=True)
        ))
    return Table(
        tuple(name for name, _ in outputs),
        types,
        tuple(tuple(map(_value, row[:count], types)) for row in answer.rows),
        tuple(intervals),
        tuple(never_negative(expression, releases, totals) for _, expression in outputs),
    )


@dataclass(frozen=True, slots=True)
class _Noise:
    """How wrong one noisy column can be; `parts` counts the numbers that a total adds up."""

    column: Column
    single: float
    deviation: float
    confidence: float
    parts: Column | None
    cut: tuple[float, float] = (0.0, 0.0)
    ends: tuple[Column, ...] = ()  # where keys have their own, row by row

    def is_wrong(self) -> bool:
        """Whether the column can differ from the exact one at all."""
        own = self.ends or ends_of(self.column)
        return bool(self.single or self.deviation or any(self.cut) or own)

    def widths(self, values: Mapping[Expression, Value | None]) -> tuple[float, float]:
        """Return how far the exact number can lie below and above the noisy one in one row."""
        if self.ends:
            read_ = [values.get(c) for c in (self.column, *self.ends)]
            known = [float(v) for v in read_ if isinstance(v, int | float)]
            if len(known) < len(read_):
                return inf, inf  # an outer join without a match: there is no interval
            return known[0] - known[1], known[2] - known[0]
        parts = values.get(self.parts) if self.parts is not None else 1
        count = float(parts) if isinstance(parts, int | float) else inf
        width = summed_width(self.single, self.deviation, count, self.confidence)
        below, above = (cut * count if cut else 0.0 for cut in self.cut)
        return width + below, width + above


def _noises(
    measures: tuple[Column, ...], tables: tuple[ReleasedTable, ...], totals: Mapping[int, int],
    together: float,
) -> tuple[_Noise, ...]:
    """Return the error of each measure, at the confidence that holds for all together."""
    by_source = {table.source: table for table in tables}
    confidence = confidence_of(max(len(measures), 1), together)
    found = []
    for column in measures:
        if ends_of(column):
            found.append(_Noise(column, 0.0, 0.0, confidence, None))
            continue
        table = by_source[totals.get(column.source, column.source)]
        place = int(column.name[1:]) - 1
        if place in table.apart:
            found.append(_Noise(column, 0.0, 0.0, confidence, None, ends=_own_ends(column)))
            continue
        released, cut = table.measures[place], (table.cuts[place] if table.cuts else (0.0, 0.0))
        parts = parts_column(column) if column.source in totals else None
        found.append(_Noise(column, released.half_width(confidence), released.deviation(),
                            confidence, parts, cut))
    return tuple(found)


def _own_ends(column: Column) -> tuple[Column, ...]:
    """Return the two columns that hold the ends of a measure's interval, key by key."""
    return tuple(replace(column, name=f"{column.name}_{end}") for end in ("low", "high"))


def _interval(
    cell: object, expression: Expression, values: Mapping[Expression, Value | None],
    noise: tuple[_Noise, ...], below: frozenset[Expression], is_wrong: bool,
) -> Interval | None:
    """Return the interval of one cell; that of a number without noise is the number."""
    if not noise:
        return None
    if is_wrong:
        return interval_of(expression, values, {n.column: n.widths(values) for n in noise}, below)
    is_number = isinstance(cell, int | float) and not isinstance(cell, bool) and isfinite(cell)
    return (float(cell), float(cell)) if is_number else None  # type: ignore[arg-type]


def _value(value: object, kind: Type) -> Cell:
    """Return whole numbers as int: arithmetic runs in DOUBLE."""
    if kind is Type.INTEGER and isinstance(value, float) and value.is_integer():
        return int(value)
    return value  # type: ignore[return-value]


def _desk_table(release: Release, table: ReleasedTable, confidence: float) -> DeskTable:
    names: list[str] = []
    types: list[str] = []
    values: list[Sequence[object]] = []
    for i, key in enumerate(release.keys):
        names.append(f"k{i + 1}")
        types.append(SQL_TYPES.get(key.domain.type, "VARCHAR"))
        values.append([row[i] for row in table.keys])
    for i, measure in enumerate(table.measures):
        if measure.width != 1:
            continue  # a tree's counts are read, not shown
        numbers = measure.numbers()
        whole = all(isinstance(n, int) and abs(n) < 2**62 for n in numbers)
        names.append(f"m{i + 1}")
        types.append("BIGINT" if whole else "DOUBLE")
        values.append(numbers)
    for place in release.centred:
        names.append(f"c{place + 1}")
        types.append("DOUBLE")
        values.append([table.centers[place]] * len(table.keys))
    for name, kind, column in (*_apart(table, confidence), *_readings(release, table),
                               *_statistics(release, table)):
        names.append(name)
        types.append(kind)
        values.append(column)
    if not names:
        names, types, values = ["one"], ["BIGINT"], [[1] * len(table.keys)]
    return DeskTable(tuple(names), tuple(types), tuple(values))


def _apart(
    table: ReleasedTable, confidence: float
) -> list[tuple[str, str, Sequence[object]]]:
    """Return the columns m1_low, m1_high of each measure whose keys have intervals of their own,
    and m1 where it is the winner of a race; all of them hold together."""
    found: list[tuple[str, str, Sequence[object]]] = []
    each = confidence_of(max(len(table.measures), 1), confidence)
    for place in sorted(table.apart):
        name, measure = f"m{place + 1}", table.measures[place]
        if measure.width != 1:
            rows = winners(measure, each)
            found.append((name, "DOUBLE", [row[0] for row in rows]))
        else:
            rows = _by_units(measure, table.cuts[place] if table.cuts else (0.0, 0.0), each)
        found.append((f"{name}_low", "DOUBLE", [row[1] for row in rows]))
        found.append((f"{name}_high", "DOUBLE", [row[2] for row in rows]))
    return found


def _by_units(
    released: Released, cut: tuple[float, float], confidence: float
) -> list[tuple[float, float, float]]:
    """Return each key's number and the ends of its interval.

    `cut` is what clips take from a group in the mean; a group with a wide clip has more of it.
    """
    mean = sum(released.units) / max(len(released.units), 1)
    rows = zip(released.numbers(), released.half_widths(confidence), released.units, strict=True)
    return [(float(n), n - width - cut[0] * unit / mean, n + width + cut[1] * unit / mean)
            for n, width, unit in rows]


def _readings(
    release: Release, table: ReleasedTable
) -> list[tuple[str, str, Sequence[object]]]:
    """Return the columns q1, q1_low, q1_high, ... read off trees and histograms."""
    found: list[tuple[str, str, Sequence[object]]] = []
    for i, quantile in enumerate(release.quantiles):
        (column,) = read(table.measures[quantile.place], release.measures[quantile.place],
                         (quantile,))
        kind = SQL_TYPES.get(quantile.domain.type, "VARCHAR")
        for j, suffix in enumerate(("", "_low", "_high")):
            found.append((f"q{i + 1}{suffix}", kind, [entry[j] for entry in column]))
    return found


def _statistics(
    release: Release, table: ReleasedTable
) -> list[tuple[str, str, Sequence[object]]]:
    """Return the columns d1, ... computed from measures, row by row.

    They are computed here and not in SQL, where a formula of fractions of fractions would grow
    exponentially as text.
    """
    numbers = {
        release.measure_column(i): measure.numbers()
        for i, measure in enumerate(table.measures) if measure.width == 1
    }
    rows = list(zip(*numbers.values(), strict=True)) or [()] * len(table.keys)
    found: list[tuple[str, str, Sequence[object]]] = []
    for i, expression in enumerate(release.derived):
        computed = evaluator(expression, tuple(numbers))
        found.append((f"d{i + 1}", "DOUBLE", [_evaluated(computed, row) for row in rows]))
    return found


def _evaluated(computed: Evaluator, row: Sequence[Value | None]) -> Value | None:
    try:
        return computed(row)
    except NotEnumerable:
        return None  # a result beyond any double


def _public_tables(rows: Rows, database: DuckDBPyConnection) -> dict[str, DeskTable]:
    """Copy the public tables that the outer SQL reads onto the desk."""
    loaded = {}
    for scan in public_scans(rows.relation):
        columns = [c for c in scan.columns if isinstance(c, Column)]
        names = tuple(c.name for c in columns)
        shown = ", ".join(quoted(name) for name in names)
        answer = run_statement(database, f"SELECT {shown} FROM {quoted(scan.table)}")
        types = tuple(SQL_TYPES.get(c.domain.type, "VARCHAR") for c in columns)
        loaded[scan.table] = DeskTable(names, types, tuple(zip(*answer.rows, strict=True)) or (
            tuple(() for _ in names)
        ))
    return loaded
