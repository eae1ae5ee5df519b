"""Bounded measures and their grids in, the statements that compute exact integers out.

Guarantee: each statement enforces the bound of its strategy, row by row or unit by unit, whatever
the rows hold: values are clamped to the grid's bounds after every expression, NULL counts for
nothing, and a unit's rows or groups beyond the bound are not read into any number. Only integers
that the snapshot holds within the bounds of the measure are read as they are: its build has
proved their bounds (engine/snapshot_build.py, planner/grid.py). Units with few rows need no sums
of their own: the build has proved how many rows of a table each unit has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from math import ceil

from mechanisms.quantile_tree import LEAVES
from planner.bounding import LIMITED, BoundedMeasure, BoundedRelease, Shape, Strategy
from planner.domain import Domain, Type
from planner.emit import GivenValues, Printer, column_name, literal, printer_for
from planner.expression import Call, Column, Expression
from planner.functions import make
from planner.functions.entry import number
from planner.grid import Grid, Stored, counted_column
from planner.order import ranks_of
from planner.relation import (
    RANK,
    ROWS_NAME,
    Aggregate,
    Filter,
    How,
    Join,
    Measure,
    Relation,
    Release,
    Scan,
    at_most,
    driver_of,
    unit_of,
    walk_relations,
)

SELECTION = -1
PRODUCT_BITS = 126  # a HUGEINT holds 127 and a sign
UNIT_ROWS_MAX = 2**32  # more rows of one unit than any statement lives to read
# Weights of patients are counted in such parts of a row, so that a cap scales finely.
WEIGHTS = 1024
# These give many numbers per group: the statement has one more column, the bin.
SPREAD_OUT = frozenset({Aggregate.TREE, Aggregate.HISTOGRAM})


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
        if limited or is_spread_out(measure):
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
        if bounded.finer:
            sql = _over_finer(bounded, strategy, measures, chosen, given)
        else:
            sql = _print(bounded.release, strategy, measures, chosen, given)
        printed.append(Statement(sql, tuple(place for place, _ in group)))
    return tuple(printed)


def is_spread_out(bounded: BoundedMeasure) -> bool:
    """Return whether a measure gives many numbers for each group."""
    return bounded.measure.aggregate in SPREAD_OUT or bounded.is_race


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
    relation = strategy.relation
    read = [*release.keys, *(e for m, grid in zip(measures, grids, strict=True)
                             for e in _columns_read(m, grid, relation))]
    read.extend(e for conditions in strategy.weigh for e in conditions)
    extra: list[Column] = [unit_of(relation)]
    if strategy.shape in (Shape.UNIT_CLIP, Shape.NORM_SCALE):
        extra.extend(_ranks(strategy))
    light = _light_rows(strategy, measures)
    if light is not None:
        extra.append(light.arguments[0])  # type: ignore[arg-type]
    printer = printer_for(relation, read, extra, given)
    if measures[0].aggregate in SPREAD_OUT:
        return _by_bins(printer, release, strategy, measures[0])
    if strategy.shape is Shape.RACE:
        return _by_race(printer, release, strategy, measures[0], grids[0])
    if strategy.shape is Shape.UNIT_TOTAL:
        return _by_totals(printer, release, strategy, measures, grids)
    if strategy.shape not in (Shape.UNIT_CLIP, Shape.NORM_SCALE):
        return _by_rows(printer, release, strategy, measures, grids)
    if measures[0].aggregate is Aggregate.DISTINCT:
        return _by_values(printer, release, strategy, measures[0])
    scaled = strategy.shape is Shape.NORM_SCALE
    each_unit = _by_scaling if scaled else _by_units
    if light is None:
        return each_unit(printer, release, strategy, measures, grids)
    few, many = Filter(relation, (light,)), Filter(relation, (make("not", light),))
    return _added_up(
        _by_rows(printer, release, replace(strategy, relation=few), measures, grids),
        each_unit(printer, release, replace(strategy, relation=many), measures, grids),
        len(release.keys), len(measures),
    )


def _light_rows(strategy: Strategy, measures: list[Measure]) -> Call | None:
    """Return the condition on which a unit's rows need no limit, being few enough themselves.

    Guarantee: the snapshot's build proved that `__n` is on each row of a unit the number of its
    rows in that table. So the condition holds on all rows of a unit or on none; where it holds,
    the unit has at most k rows in the driving table and at most `factor * k <= rows` rows here.
    Clipping and scaling would leave each of its parts as it is: `rows` values of magnitude
    `largest` at most, and at most `rows` rows that weigh. So adding up the rows of such units
    and the clipped or scaled parts of all others gives the very numbers of the strategy.
    None where that is not known, or where the relation's rows would be dear to compute twice.
    """
    relation, driver = strategy.relation, driver_of(strategy.relation)
    additive = all(m.aggregate in (Aggregate.COUNT, Aggregate.SUM) for m in measures)
    each_unit = strategy.shape in (Shape.UNIT_CLIP, Shape.NORM_SCALE) and not (
        strategy.limit_groups or strategy.caps
    )
    if driver is None or not (additive and each_unit) or len(driver.parts) != 1:
        return None
    (source, factor), = driver.parts
    if factor > strategy.rows or not _is_on_every_row(relation, source):
        return None
    return at_most(Column(source, ROWS_NAME, RANK.with_null(False)), strategy.rows // factor)


def _is_on_every_row(relation: Relation, source: int) -> bool:
    """Return whether each row of a plain relation is made of a row of that table."""
    if isinstance(relation, Filter):
        return _is_on_every_row(relation.input, source)
    if isinstance(relation, Join):
        right = relation.how is How.INNER and _is_on_every_row(relation.right, source)
        plain = all(isinstance(n, Scan | Filter | Join) for n in walk_relations(relation))
        return plain and (right or _is_on_every_row(relation.left, source))
    return isinstance(relation, Scan) and relation.source == source


def _over_finer(
    bounded: BoundedRelease, strategy: Strategy, measures: list[Measure],
    grids: list[Grid | None], given: GivenValues | None,
) -> str:
    """Print the sums, by the release's keys, of the bounded numbers of finer groups."""
    release, finer = bounded.release, bounded.finer
    inner = _print(replace(release, keys=finer), strategy, measures, grids, given)
    shown = [f"k{finer.index(key) + 1} AS k{i + 1}" for i, key in enumerate(release.keys)]
    shown += [f"CAST(SUM(m{i + 1}) AS HUGEINT) AS m{i + 1}" for i in range(len(measures))]
    return f"SELECT {', '.join(shown)} FROM ({inner}){_group_by(len(release.keys))}"


def _added_up(light: str, heavy: str, keys: int, measures: int) -> str:
    """Print the sums of two statements with the same columns, group by group."""
    names = [f"k{i + 1}" for i in range(keys)]
    sums = [f"CAST(SUM(m{i + 1}) AS HUGEINT) AS m{i + 1}" for i in range(measures)]
    return (f"SELECT {', '.join((*names, *sums))} FROM ({light} UNION ALL "
            f"SELECT * FROM ({heavy})){_group_by(keys)}")


def _conditions(measure: Measure, grid: Grid | None) -> tuple[Expression, ...]:
    """Return the conditions to print: a sum of stored integers passes over NULL by itself."""
    present, argument = _only_present(measure.conditions), measure.argument
    if grid is None or grid.stored is None or present is None or not isinstance(argument, Column):
        return measure.conditions
    same = (present.source, present.name) == (argument.source, argument.name)
    return () if same else measure.conditions


def _columns_read(
    measure: Measure, grid: Grid | None, relation: Relation
) -> tuple[Expression, ...]:
    """Return the expressions whose columns a measure's aggregate reads."""
    present = _only_present(measure.conditions)
    if measure.aggregate is Aggregate.COUNT and present is not None:
        return (counted_column(present, relation),)
    if grid is not None and grid.stored is not None:
        return (grid.stored.column, *_conditions(measure, grid))
    return _reads(measure)


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
    where = _filter(printer, _conditions(measure, grid))
    argument = measure.argument
    if measure.aggregate is Aggregate.UNITS:
        return f"COUNT(DISTINCT {column_name(unit_of(relation))}){where}"
    if measure.aggregate is Aggregate.COUNT or argument is None:
        present = _only_present(measure.conditions)
        if present is None:
            return f"COUNT(*){where}"
        return f"COUNT({printer.scalar(counted_column(present, relation))})"
    if measure.aggregate is Aggregate.DISTINCT:
        return f"COUNT(DISTINCT {printer.key(argument)}){where}"
    if strategy.shape is Shape.UNBOUNDED or grid is None:
        value = number(printer.scalar(argument), argument)
        return f"SUM({value} - {literal(measure.center)}){where}"
    if grid.stored is not None:
        return _stored_sum(grid.stored, where)
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


def _stored_sum(stored: Stored, where: str) -> str:
    """Print a sum of stored integers; the center is taken off once, for all rows that count.

    Guarantee: both aggregates skip the same rows, those where the integer is NULL, so each other
    row adds `integer * multiple - center`. A CASE without a match keeps NULL.
    """
    name, (low, high) = column_name(stored.column), stored.ends
    clamps = "" if low is None else f" WHEN {name} < {low} THEN {low}"
    clamps += "" if high is None else f" WHEN {name} > {high} THEN {high}"
    value = f"CASE{clamps} ELSE {name} END" if clamps else name
    total = f"SUM({value}){where}"
    if stored.multiple != 1:
        total = f"{total} * {stored.multiple}"
    if stored.center:
        total = f"{total} - CAST(COUNT({name}){where} AS HUGEINT) * {stored.center}"
    return total


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
    running total, so that they stay whole and add up to at most `rows`. With caps n is a weight:
    the number of rows, or what would bring a sum's L1 norm to its cap if that is more, and a
    count counts parts of rows, so that it shrinks as its sum does.
    """
    unit = column_name(unit_of(strategy.relation))
    keys = [f"k{i + 1}" for i in range(len(release.keys))]
    shown = [f"{unit} AS u"]
    shown += [f"{printer.key(key)} AS {name}" for key, name in zip(release.keys, keys, strict=True)]
    either = " OR ".join(f"({printer.conditions(conditions)})" for conditions in strategy.weigh)
    down = list(keys)
    allowed = strategy.rows * (WEIGHTS if strategy.caps else 1)
    weights = [f"SUM(n) * {WEIGHTS}" if strategy.caps else "SUM(n)"]
    for i, (measure, grid) in enumerate(zip(measures, grids, strict=True)):
        part = f"p{i + 1}"
        cap = None if grid is None else strategy.cap_of(measure, grid.largest)
        if cap is not None:
            weights.append(f"(CAST(SUM(ABS({part})) AS HUGEINT) * {allowed} + {cap - 1}) // {cap}")
        whole = 1 if grid is None or measure.aggregate is not Aggregate.COUNT else grid.largest
        times = f" * {whole}" if whole != 1 else ""
        call = _aggregate(printer, measure, grid, strategy)
        shown.append(f"COALESCE({call}, 0){times} AS {part}")
        down.append(f"{_scaled(part, measure, strategy, keys)} AS {part}")
    shown.append((f"COUNT(*) FILTER (WHERE {either})" if either else "COUNT(*)") + " AS n")
    shown.append(f"MIN({_rank(strategy)}) AS r")
    parts = (f"SELECT {', '.join(shown)} FROM {printer.relation(strategy.relation)}"
             f"{_group_by(len(keys) + 1)}")
    total = weights[0] if len(weights) == 1 else f"GREATEST({', '.join(weights)})"
    heavy = f"SELECT u, {total} AS total FROM __parts GROUP BY u HAVING {total} > {allowed}"
    listed = ", ".join((*keys, *(f"p{i + 1}" for i in range(len(measures)))))
    sums = (f"CAST(SUM(p{i + 1}) AS HUGEINT) AS m{i + 1}" for i in range(len(measures)))
    both = (f"SELECT {listed} FROM __parts ANTI JOIN __heavy USING (u) UNION ALL "
            f"SELECT {', '.join(down)} FROM __parts JOIN __heavy USING (u)")
    return (f"WITH __parts AS MATERIALIZED ({parts}), __heavy AS MATERIALIZED ({heavy}) "
            f"SELECT {', '.join((*keys, *sums))} FROM ({both}){_group_by(len(keys))}")


def _scaled(part: str, measure: Measure, strategy: Strategy, keys: list[str]) -> str:
    rows = strategy.rows
    if strategy.caps:
        return f"(CAST({part} AS HUGEINT) * {rows * WEIGHTS}) // total"
    if measure.aggregate is not Aggregate.COUNT:
        return f"({part} * {rows}) // total"
    order = ", ".join(("r", *keys))
    running = f"SUM({part}) OVER (PARTITION BY u ORDER BY {order} ROWS UNBOUNDED PRECEDING)"
    return f"({running} * {rows}) // total - (({running} - {part}) * {rows}) // total"


def _by_totals(
    printer: Printer, release: Release, strategy: Strategy, measures: list[Measure],
    grids: list[Grid | None],
) -> str:
    """Scale down the parts of units whose magnitudes add up to more than one largest value.

    Guarantee: the parts of a unit depend on that unit's rows only, and the magnitudes of what
    is kept of them add up to at most `grid.largest`, in whatever units each group is told.
    """
    unit = column_name(unit_of(strategy.relation))
    keys = [f"k{i + 1}" for i in range(len(release.keys))]
    shown = [f"{unit} AS u"]
    shown += [f"{printer.key(key)} AS {name}" for key, name in zip(release.keys, keys, strict=True)]
    listed, sums = ["*"], list(keys)
    for i, (measure, grid) in enumerate(zip(measures, grids, strict=True)):
        part, total = f"p{i + 1}", f"n{i + 1}"
        read = grid if grid is None or not strategy.shifts else (
            race_grid(grid, strategy.truncations)
        )
        added = f"COALESCE({_aggregate(printer, measure, read, strategy)}, 0)"
        if strategy.shifts:
            added = f"{added} // {_unit_of_group(printer, release, strategy)}"
        shown.append(f"{added} AS {part}")
        listed.append(f"SUM(ABS({part})) OVER (PARTITION BY u) AS {total}")
        kept = _shared(part, total, 0 if grid is None else grid.largest)
        sums.append(f"CAST(SUM({kept}) AS HUGEINT) AS m{i + 1}")
    parts = (f"SELECT {', '.join(shown)} FROM {printer.relation(strategy.relation)}"
             f"{_group_by(len(keys) + 1)}")
    return (f"SELECT {', '.join(sums)} FROM (SELECT {', '.join(listed)} FROM ({parts})) "
            f"{_group_by(len(keys))}")


def _by_race(
    printer: Printer, release: Release, strategy: Strategy, measure: Measure, grid: Grid | None,
) -> str:
    """Scale the parts of each unit down to every truncation of its total, in one pass.

    Rows are added up on a grid as fine as the narrowest truncation needs; truncation j is told in
    2^j of its steps, in which all truncations are equally wide.

    Guarantee: as for `_by_totals`, for each truncation: the magnitudes of a unit's parts add up
    to at most `grid.largest * 2^j` fine steps, so to at most `grid.largest` of 2^j of them.
    """
    if grid is None:
        raise ValueError("a race needs a grid")
    unit = column_name(unit_of(strategy.relation))
    keys = [f"k{i + 1}" for i in range(len(release.keys))]
    finest = race_grid(grid, strategy.rows)
    shown = [f"{unit} AS u"]
    shown += [f"{printer.key(key)} AS {name}" for key, name in zip(release.keys, keys, strict=True)]
    shown.append(f"COALESCE({_aggregate(printer, measure, finest, strategy)}, 0) AS p")
    parts = (f"SELECT {', '.join(shown)} FROM {printer.relation(strategy.relation)}"
             f"{_group_by(len(keys) + 1)}")
    each = []
    for j in range(strategy.rows):
        kept = _shared("p", "n", grid.largest * 2**j)
        each.append(f"COALESCE(CAST(SUM(({kept}) // {2**j}) AS HUGEINT), 0) AS t{j}")
    sums = (f"SELECT {', '.join((*keys, *each))} FROM (SELECT *, SUM(ABS(p)) OVER "
            f"(PARTITION BY u) AS n FROM ({parts})){_group_by(len(keys))}")
    numbered = " UNION ALL ".join(
        f"SELECT {', '.join((*keys, f'{j} AS b', f't{j} AS m1'))} FROM __sums"
        for j in range(strategy.rows)
    )
    return f"WITH __sums AS MATERIALIZED ({sums}) {numbered}"


def race_grid(grid: Grid, truncations: int) -> Grid:
    """Return the grid of the narrowest truncation; `grid` is that of the widest."""
    finer = 2 ** (truncations - 1)
    return Grid(grid.step / finer, grid.low * finer, grid.high * finer)


def _unit_of_group(printer: Printer, release: Release, strategy: Strategy) -> str:
    """Print how many steps make one unit of a row's group; what is no group has the widest."""
    cases = []
    for values, shift in strategy.shifts:
        equal = " AND ".join(
            f"{printer.key(key)} IS NULL" if value is None else
            f"{printer.key(key)} IS NOT DISTINCT FROM {literal(value)}"
            for key, value in zip(release.keys, values, strict=True)
        )
        cases.append(f"WHEN {equal} THEN {2**shift}")
    widest = 2 ** (strategy.truncations - 1)
    return f"ANY_VALUE(CASE {' '.join(cases)} ELSE {widest} END)"


def _shared(part: str, total: str, most: int) -> str:
    """Print a part's share of `most`, toward zero, where the unit's total is larger.

    Guarantee: |result| <= most * |part| / total, so the results of a unit add up to at most
    `most`; no product is beyond what a HUGEINT holds. Parts and totals are at most `most` for
    each row. Where their product with `most` could be too large, both lose the same number of
    bits, the part downward and the total upward, which makes the share smaller.
    """
    spare = max(0, (UNIT_ROWS_MAX * most * most).bit_length() - PRODUCT_BITS)
    if spare:
        coarse = 2**spare
        share = f"({part} // {coarse}) * {most} // ({total} // {coarse} + 1)"
    else:
        share = f"({part} * {most}) // {total}"
    return f"CASE WHEN {total} > {most} THEN {share} ELSE {part} END"


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
