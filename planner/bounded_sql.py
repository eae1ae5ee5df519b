"""Bounded measures and their grids in, the statements that compute exact integers out.

Guarantee: each statement enforces the bound of its strategy, row by row or unit by unit, whatever
the rows hold: values are clamped to the grid's bounds after every expression, NULL counts for
nothing, and a unit's rows or groups beyond the bound are not read into any number. Only a stored
column whose own bounds are those of the measure is read as it is: the snapshot has clamped it,
and proved its bounds when it was built (engine/snapshot_build.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from math import ceil

from mechanisms.quantile_tree import LEAVES
from planner.bounding import LIMITED, BoundedMeasure, BoundedRelease, Shape, Strategy
from planner.domain import Domain, Type
from planner.emit import GivenValues, Printer, column_name, literal, printer_for
from planner.expression import Call, Column, Expression
from planner.functions.entry import number
from planner.order import ranks_of
from planner.relation import (
    Aggregate,
    Measure,
    Relation,
    Release,
    protected_scans,
    unit_of,
)

SELECTION = -1
# These give many numbers per group: the statement has one more column, the bin.
SPREAD_OUT = frozenset({Aggregate.TREE, Aggregate.HISTOGRAM})


@dataclass(frozen=True, slots=True)
class Grid:
    """The integers that stand for values: value = step * integer, low <= integer <= high."""

    step: float
    low: int
    high: int

    @property
    def largest(self) -> int:
        return max(abs(self.low), abs(self.high))


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement; its columns are the keys and then the measures in `places` (SELECTION:
    the count of units that decides which keys are shown)."""

    sql: str
    places: tuple[int, ...]


def statements(
    bounded: BoundedRelease, grids: tuple[Grid | None, ...], given: GivenValues | None = None
) -> tuple[Statement, ...]:
    """Print one statement for each strategy in use; `grids` gives the grid of each SUM.

    `given` holds released answers that the question uses further in; before they are out, their
    names are printed instead.
    """
    by_strategy: list[list[tuple[int, BoundedMeasure]]] = []
    alone: list[list[tuple[int, BoundedMeasure]]] = []
    entries = list(enumerate(bounded.measures))
    if bounded.selection is not None:
        entries.append((SELECTION, bounded.selection))
    for place, measure in entries:
        strategy = measure.strategy
        aggregate = measure.measure.aggregate
        limited = aggregate in LIMITED and strategy.shape is Shape.UNIT_CLIP
        if limited or aggregate in SPREAD_OUT:
            alone.append([(place, measure)])
        else:
            same = next((g for g in by_strategy if _equal(g[0][1].strategy, strategy)), None)
            if same is None:
                by_strategy.append([(place, measure)])
            else:
                same.append((place, measure))
    printed = []
    for group in (*by_strategy, *alone):
        strategy = group[0][1].strategy
        measures = [m.measure for _, m in group]
        chosen = [grids[place] if place != SELECTION else None for place, _ in group]
        sql = _print(bounded.release, strategy, measures, chosen, given)
        printed.append(Statement(sql, tuple(place for place, _ in group)))
    return tuple(printed)


def _equal(one: Strategy, other: Strategy) -> bool:
    return one is other or one == other


def given_sources(bounded: BoundedRelease) -> frozenset[int]:
    """Return the numbers of everything a release's statements read, given answers among them."""
    found: set[int] = set()
    for entry in (*bounded.measures, *((bounded.selection,) if bounded.selection else ())):
        weigh = (e for conditions in entry.strategy.weigh for e in conditions)
        read = (*bounded.release.keys, *_reads(entry.measure), *weigh)
        found |= {source for source, _ in printer_for(entry.strategy.relation, read).used}
    return frozenset(found)


def _print(
    release: Release, strategy: Strategy, measures: list[Measure], grids: list[Grid | None],
    given: GivenValues | None,
) -> str:
    read = [*release.keys, *(e for m in measures for e in _reads(m))]
    read.extend(e for conditions in strategy.weigh for e in conditions)
    relation = strategy.relation
    extra: list[Column] = [unit_of(relation)]
    if strategy.shape in (Shape.UNIT_CLIP, Shape.NORM_SCALE):
        extra.extend(_ranks(strategy))
    printer = printer_for(relation, read, extra, given)
    if measures[0].aggregate in SPREAD_OUT:
        return _by_bins(printer, release, strategy, measures[0])
    if strategy.shape is Shape.NORM_SCALE:
        return _by_scaling(printer, release, strategy, measures, grids)
    if strategy.shape is not Shape.UNIT_CLIP:
        return _by_rows(printer, release, strategy, measures, grids)
    if measures[0].aggregate is Aggregate.DISTINCT:
        return _by_values(printer, release, strategy, measures[0])
    return _by_units(printer, release, strategy, measures, grids)


def _reads(measure: Measure) -> tuple[Expression, ...]:
    argument = () if measure.argument is None else (measure.argument,)
    return (*argument, *measure.conditions)


def _ranks(strategy: Strategy) -> list[Column]:
    return list(ranks_of(strategy.relation))


def _by_rows(
    printer: Printer, release: Release, strategy: Strategy, measures: list[Measure],
    grids: list[Grid | None],
) -> str:
    shown = [f"{printer.key(key)} AS k{i + 1}" for i, key in enumerate(release.keys)]
    for i, (measure, grid) in enumerate(zip(measures, grids, strict=True)):
        call = _aggregate(printer, measure, grid, strategy)
        shown.append(f"{call} AS m{i + 1}")
    source = printer.relation(strategy.relation)
    return f"SELECT {', '.join(shown)} FROM {source}{_group_by(len(release.keys))}"


def _group_by(count: int) -> str:
    return f" GROUP BY {', '.join(str(i + 1) for i in range(count))}" if count else ""


def _aggregate(
    printer: Printer, measure: Measure, grid: Grid | None, strategy: Strategy
) -> str:
    relation = strategy.relation
    where = _filter(printer, measure.conditions)
    argument = measure.argument
    if measure.aggregate is Aggregate.UNITS:
        return f"COUNT(DISTINCT {column_name(unit_of(relation))}){where}"
    if measure.aggregate is Aggregate.COUNT or argument is None:
        present = _only_present(measure.conditions)
        return f"COUNT(*){where}" if present is None else f"COUNT({printer.scalar(present)})"
    if measure.aggregate is Aggregate.DISTINCT:
        return f"COUNT(DISTINCT {printer.key(argument)}){where}"
    if strategy.shape is Shape.UNBOUNDED or grid is None:
        value = number(printer.scalar(argument), argument)
        return f"SUM({value} - {literal(measure.center)}){where}"
    if isinstance(argument, Column) and _is_stored_within(argument, relation):
        present = _only_present(measure.conditions)
        where = "" if present == argument else where  # SUM passes over NULL by itself
        return f"SUM({_scaled_value(printer, measure, argument, grid)}){where}"
    return f"SUM({_grid_value(printer, measure, argument, grid)}){where}"


def _only_present(conditions: tuple[Expression, ...]) -> Column | None:
    """Return the column of "column IS NOT NULL" where that is the whole condition."""
    if len(conditions) != 1 or not isinstance(conditions[0], Call):
        return None
    outer = conditions[0]
    inner = outer.arguments[0] if outer.function == "not" else None
    if not isinstance(inner, Call) or inner.function != "is_null":
        return None
    return inner.arguments[0] if isinstance(inner.arguments[0], Column) else None


def _is_stored_within(column: Column, relation: Relation) -> bool:
    """Return whether a column is read from the snapshot as it is, within the bounds it has here.

    Guarantee: true only for a column of a protected table whose stored bounds, which the
    snapshot's build proved, lie within the bounds that the sensitivity was computed from.
    """
    wanted = column.domain.interval
    for scan in protected_scans(relation):
        if scan.source == column.source:
            stored = next((c.domain for c in scan.columns if c.name == column.name), None)
            ends = None if stored is None or not stored.is_number else stored.interval
            return (wanted is not None and ends is not None
                    and wanted[0] <= ends[0] and ends[1] <= wanted[1])
    return False


def _scaled_value(printer: Printer, measure: Measure, argument: Expression, grid: Grid) -> str:
    """Print a value that is within its bounds as a grid integer.

    Guarantee: subtraction, multiplication by a power of two and rounding are monotone, so the
    integer lies between the rounded ends of the bounds. Its magnitude is at most grid.largest,
    whose rounding is never smaller than the database's (half_away adds a half before the floor).
    """
    value = number(printer.scalar(argument), argument)
    if measure.center:
        value = f"({value} - {literal(measure.center)})"
    return f"TRY_CAST(round({value} * {literal(1 / grid.step)}) AS BIGINT)"


def _filter(printer: Printer, conditions: tuple[Expression, ...]) -> str:
    return f" FILTER (WHERE {printer.conditions(conditions)})" if conditions else ""


def _grid_value(printer: Printer, measure: Measure, argument: Expression, grid: Grid) -> str:
    """Print a value as a grid integer: clamped as a number, rounded, clamped as an integer.

    The last clamp makes the bound hold even where everything before it went wrong. NULL must
    be told apart first, because GREATEST skips it and would count it as the lower bound.
    """
    value = number(printer.scalar(argument), argument)
    ends = argument.domain.interval
    if ends is not None:
        low, high = literal(float(ends[0])), literal(float(ends[1]))
        value = f"LEAST(GREATEST({value}, {low}), {high})"
    if measure.center:
        value = f"({value} - {literal(measure.center)})"
    scaled = f"round({value} * {literal(1 / grid.step)})"
    whole = f"LEAST(GREATEST(TRY_CAST({scaled} AS BIGINT), {grid.low}), {grid.high})"
    return f"CASE WHEN {printer.scalar(argument)} IS NOT NULL THEN {whole} END"


def _by_units(
    printer: Printer, release: Release, strategy: Strategy, measures: list[Measure],
    grids: list[Grid | None],
) -> str:
    """Add a unit's rows up per group, clip each part, and only then add units up."""
    unit = column_name(unit_of(strategy.relation))
    keys = [f"k{i + 1}" for i in range(len(release.keys))]
    inner = [f"{unit} AS u"]
    inner += [f"{printer.key(key)} AS {name}" for key, name in zip(release.keys, keys, strict=True)]
    outer = list(keys)
    for i, (measure, grid) in enumerate(zip(measures, grids, strict=True)):
        counted = measure if measure.aggregate is not Aggregate.UNITS else Measure(
            Aggregate.COUNT, None, measure.conditions
        )
        inner.append(f"{_aggregate(printer, counted, grid, strategy)} AS p{i + 1}")
        outer.append(f"SUM({_clipped(f'p{i + 1}', measure, grid, strategy.rows)}) AS m{i + 1}")
    if strategy.limit_groups:
        inner.append(f"MIN({_rank(strategy)}) AS r")
    body = (
        f"(SELECT {', '.join(inner)} FROM {printer.relation(strategy.relation)}"
        f"{_group_by(len(keys) + 1)})"
    )
    if strategy.limit_groups:
        body = _first_of_unit(body, keys, strategy.groups)
    return f"SELECT {', '.join(outer)} FROM {body}{_group_by(len(keys))}"


def _by_scaling(
    printer: Printer, release: Release, strategy: Strategy, measures: list[Measure],
    grids: list[Grid | None],
) -> str:
    """Scale down the parts of units with many rows; the few such units are treated apart.

    A sum's part p becomes p * rows // n, toward zero. The parts of a count are cut from the
    running total, so that they stay whole and add up to at most `rows`.
    """
    unit = column_name(unit_of(strategy.relation))
    keys = [f"k{i + 1}" for i in range(len(release.keys))]
    shown = [f"{unit} AS u"]
    shown += [f"{printer.key(key)} AS {name}" for key, name in zip(release.keys, keys, strict=True)]
    either = " OR ".join(f"({printer.conditions(conditions)})" for conditions in strategy.weigh)
    down = list(keys)
    for i, (measure, grid) in enumerate(zip(measures, grids, strict=True)):
        part = f"p{i + 1}"
        shown.append(f"COALESCE({_aggregate(printer, measure, grid, strategy)}, 0) AS {part}")
        down.append(f"{_scaled(part, measure, strategy.rows, keys)} AS {part}")
    shown.append((f"COUNT(*) FILTER (WHERE {either})" if either else "COUNT(*)") + " AS n")
    shown.append(f"MIN({_rank(strategy)}) AS r")
    parts = (f"SELECT {', '.join(shown)} FROM {printer.relation(strategy.relation)}"
             f"{_group_by(len(keys) + 1)}")
    heavy = f"SELECT u, SUM(n) AS total FROM __parts GROUP BY u HAVING SUM(n) > {strategy.rows}"
    listed = ", ".join((*keys, *(f"p{i + 1}" for i in range(len(measures)))))
    sums = (f"CAST(SUM(p{i + 1}) AS HUGEINT) AS m{i + 1}" for i in range(len(measures)))
    both = (f"SELECT {listed} FROM __parts ANTI JOIN __heavy USING (u) UNION ALL "
            f"SELECT {', '.join(down)} FROM __parts JOIN __heavy USING (u)")
    return (f"WITH __parts AS MATERIALIZED ({parts}), __heavy AS MATERIALIZED ({heavy}) "
            f"SELECT {', '.join((*keys, *sums))} FROM ({both}){_group_by(len(keys))}")


def _scaled(part: str, measure: Measure, rows: int, keys: list[str]) -> str:
    if measure.aggregate is not Aggregate.COUNT:
        return f"({part} * {rows}) // total"
    order = ", ".join(("r", *keys))
    running = f"SUM({part}) OVER (PARTITION BY u ORDER BY {order} ROWS UNBOUNDED PRECEDING)"
    return f"({running} * {rows}) // total - (({running} - {part}) * {rows}) // total"


def _clipped(part: str, measure: Measure, grid: Grid | None, rows: int) -> str:
    """Print the clip of one unit's part of one group."""
    if measure.aggregate is Aggregate.UNITS:
        low, high = 0, 1
    elif grid is None:
        low, high = 0, rows
    else:
        low, high = rows * min(grid.low, 0), rows * max(grid.high, 0)
    return f"LEAST(GREATEST(COALESCE({part}, 0), {low}), {high})"


def _first_of_unit(body: str, order: Iterable[str], count: int) -> str:
    """Keep `count` lines of each unit, in the secret random order of its own rows.

    Guarantee: which lines of a unit are kept depends on that unit's rows only.
    """
    by = ", ".join(("r", *order))
    return (f"(SELECT * FROM {body} QUALIFY row_number() OVER (PARTITION BY u ORDER BY {by}) "
            f"<= {count})")


def _rank(strategy: Strategy) -> str:
    """Print a number that orders a unit's joined rows by the ranks of their parts."""
    ranks = [f"COALESCE(CAST({column_name(c)} AS DOUBLE), 0)" for c in _ranks(strategy)]
    if not ranks:
        return "0"  # a per-patient computation carries no ranks: its keys alone decide
    text = ranks[0]
    for rank in ranks[1:]:
        text = f"({text} * 1048576 + {rank})"
    return text


def _by_values(
    printer: Printer, release: Release, strategy: Strategy, measure: Measure
) -> str:
    """Count distinct values, of which at most `rows` per unit are looked at."""
    unit = column_name(unit_of(strategy.relation))
    keys = [f"k{i + 1}" for i in range(len(release.keys))]
    inner = [f"{unit} AS u"]
    inner += [f"{printer.key(key)} AS {name}" for key, name in zip(release.keys, keys, strict=True)]
    value = measure.argument
    inner.append(f"{printer.key(value) if value is not None else unit} AS v")
    inner.append(f"MIN({_rank(strategy)}) AS r")
    where = f" WHERE {printer.conditions(measure.conditions)}" if measure.conditions else ""
    body = (
        f"(SELECT {', '.join(inner)} FROM {printer.relation(strategy.relation)}{where}"
        f"{_group_by(len(keys) + 2)})"
    )
    body = _first_of_unit(body, (*keys, "v"), strategy.rows)
    shown = ", ".join((*keys, "COUNT(DISTINCT v) AS m1"))
    return f"SELECT {shown} FROM {body}{_group_by(len(keys))}"


def _by_bins(printer: Printer, release: Release, strategy: Strategy, measure: Measure) -> str:
    """Count rows per group and bin; with UNIT_CLIP only `rows` of a unit's rows are read."""
    unit = column_name(unit_of(strategy.relation))
    keys = [f"k{i + 1}" for i in range(len(release.keys))]
    inner = [f"{printer.key(key)} AS {name}" for key, name in zip(release.keys, keys, strict=True)]
    exact = strategy.shape is Shape.UNBOUNDED and measure.argument is not None
    bin_ = printer.scalar(measure.argument) if exact else _bin(printer, measure)  # type: ignore[arg-type]
    inner.append(f"{bin_} AS b")
    where = f" WHERE {printer.conditions(measure.conditions)}" if measure.conditions else ""
    source = printer.relation(strategy.relation)
    body = f"(SELECT {', '.join(inner)} FROM {source}{where})"
    if strategy.shape is Shape.UNIT_CLIP:
        inner += [f"{unit} AS u", f"{_rank(strategy)} AS r"]
        body = _first_of_unit(f"(SELECT {', '.join(inner)} FROM {source}{where})",
                              (*keys, "b"), strategy.rows)
    shown = ", ".join((*keys, "b", "COUNT(*) AS m1"))
    return f"SELECT {shown} FROM {body}{_group_by(len(keys) + 1)}"


def _bin(printer: Printer, measure: Measure) -> str:
    """Print the leaf of a tree that a value falls into, or the value itself for a histogram."""
    argument = measure.argument
    if argument is None:
        return "0"
    if measure.aggregate is Aggregate.HISTOGRAM:
        return printer.key(argument)
    low, width = leaf_scale(argument.domain)
    if argument.domain.type is Type.DATE:
        value = f"CAST(date_diff('day', {literal(argument.domain.low)}, " \
                f"{printer.scalar(argument)}) AS DOUBLE)"
    else:
        value = f"({number(printer.scalar(argument), argument)} - {literal(low)})"
    leaf = f"TRY_CAST(floor({value} / {literal(width)}) AS BIGINT)"
    return f"LEAST(GREATEST({leaf}, 0), {LEAVES - 1})"


def leaf_scale(domain: Domain) -> tuple[float, float]:
    """Return the lower end of a tree's interval and the width of one leaf (days for dates).

    Whole numbers and days get a whole width, so that a leaf holds whole values.
    """
    if domain.type is Type.DATE:
        if not isinstance(domain.low, date) or not isinstance(domain.high, date):
            raise ValueError("a tree over dates needs bounds")
        days = (domain.high - domain.low).days + 1
        return 0.0, float(max(1, ceil(days / LEAVES)))
    ends = domain.interval
    if ends is None:
        raise ValueError("a tree needs bounds")
    if domain.type is Type.INTEGER:
        return float(ends[0]), float(max(1, ceil((ends[1] - ends[0] + 1) / LEAVES)))
    return float(ends[0]), max((ends[1] - ends[0]) / LEAVES, 1e-300)
