"""Our own relational nodes: frozen, named by instance; and how many rows a unit has in each.

Every protected relation carries its unit: rows of two units never meet in one row. A relation
is PUBLIC, PROTECTED or RELEASED, and only a Release turns one kind into a safer one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from planner.catalog import Kind, PublicRows
from planner.domain import Domain, Type
from planner.expression import Column, Expression

UNIT_NAME = "__u"
RANK_NAME = "__rank"


class How(Enum):
    """Join types that keep one unit to a row."""

    INNER = "inner"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Scan:
    """One use of a declared table. `row_limit` keeps rows with rank <= it, per unit;
    `one_per_key` keeps one row per unit and key of the named column."""

    source: int
    table: str
    kind: Kind
    columns: tuple[Column, ...]
    one_row: bool = False
    rows_per_unit: int = 1
    max_rows: int = 1
    row_limit: int | None = None
    one_per_key: str | None = None
    enums: tuple[str, ...] = ()
    rows_per_value: tuple[tuple[str, int], ...] = ()
    referenced: tuple[str, ...] = ()
    public_rows: PublicRows | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """The rows on which every condition is true."""

    input: Relation
    conditions: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Join:
    """Pairs of rows. `tie` adds equality of units; `equal` are the user's key equalities."""

    left: Relation
    right: Relation
    how: How
    tie: bool
    equal: tuple[tuple[Expression, Expression], ...]
    conditions: tuple[Expression, ...]


class Aggregate(Enum):
    """What a release can measure."""

    COUNT = "count"  # rows where the argument is not NULL, or all rows
    SUM = "sum"
    UNITS = "count distinct units"
    DISTINCT = "count distinct values"


@dataclass(frozen=True, slots=True)
class Measure:
    """One number per group. `conditions` is FILTER; SUM adds `argument - center`."""

    aggregate: Aggregate
    argument: Expression | None
    conditions: tuple[Expression, ...]
    center: float = 0.0


@dataclass(frozen=True, slots=True)
class Release:
    """Where protected rows become noisy numbers: groups by keys, one column per measure.

    Its own columns are named k1, k2, ... and m1, m2, ... under `source`.
    """

    source: int
    input: Relation
    keys: tuple[Expression, ...]
    measures: tuple[Measure, ...]

    def key_column(self, place: int) -> Column:
        """The released column of a key."""
        return Column(self.source, f"k{place + 1}", self.keys[place].domain)

    def measure_column(self, place: int) -> Column:
        """The released column of a measure."""
        measure = self.measures[place]
        return Column(self.source, f"m{place + 1}", measure_domain(measure))


@dataclass(frozen=True, slots=True)
class Summary:
    """A plain GROUP BY over released or public rows: post-processing, free."""

    source: int
    input: Relation
    keys: tuple[Expression, ...]
    aggregates: tuple[tuple[str, bool, Expression | None, tuple[Expression, ...]], ...]


@dataclass(frozen=True, slots=True)
class Ordered:
    """Released rows in an order, perhaps the first of them only."""

    input: Relation
    by: tuple[tuple[Expression, bool, bool], ...]  # expression, descending, nulls first
    limit: int | None
    offset: int


@dataclass(frozen=True, slots=True)
class Nothing:
    """One row without columns: a SELECT without FROM."""


Relation = Scan | Filter | Join | Release | Summary | Ordered | Nothing


def measure_domain(measure: Measure) -> Domain:
    """Noisy numbers are unbounded reals; counts are whole."""
    whole = measure.aggregate is not Aggregate.SUM
    return Domain(Type.INTEGER if whole else Type.REAL, nullable=False)


def inputs_of(relation: Relation) -> tuple[Relation, ...]:
    """Return the relations directly below."""
    if isinstance(relation, Join):
        return (relation.left, relation.right)
    if isinstance(relation, Scan | Nothing):
        return ()
    return (relation.input,)


def walk_relations(relation: Relation) -> Iterator[Relation]:
    """Yield the node and all nodes below it, left before right."""
    waiting = [relation]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(inputs_of(node)))


def kind_of(relation: Relation) -> Kind:
    """Return whose data a relation holds."""
    if isinstance(relation, Scan):
        return relation.kind
    if isinstance(relation, Release):
        return Kind.RELEASED
    if isinstance(relation, Nothing):
        return Kind.PUBLIC
    kinds = {kind_of(below) for below in inputs_of(relation)}
    for kind in (Kind.PROTECTED, Kind.RELEASED):
        if kind in kinds:
            return kind
    return Kind.PUBLIC


def unit_of(relation: Relation) -> Column:
    """Return the column that holds the unit of every row of a protected relation.

    Guarantee: it is never NULL. A left join keeps the unit of its protected left side.
    """
    if isinstance(relation, Scan):
        return unit_column(relation.source)
    if isinstance(relation, Join):
        protected_left = kind_of(relation.left) is Kind.PROTECTED
        return unit_of(relation.left if protected_left else relation.right)
    return unit_of(inputs_of(relation)[0])


def unit_column(source: int) -> Column:
    """Return the unit column of a scan."""
    return Column(source, UNIT_NAME, Domain(Type.UNIT, nullable=False), per_unit=True)


def protected_scans(relation: Relation) -> tuple[Scan, ...]:
    """Return the uses of protected tables below, in order."""
    return tuple(
        node for node in walk_relations(relation)
        if isinstance(node, Scan) and node.kind is Kind.PROTECTED
    )


def rows_max(relation: Relation) -> int | None:
    """Return how many rows a unit can have at most, by the snapshot's ceilings alone.

    Guarantee: no unit has more rows than that on any database the snapshot can hold. None
    means that no bound is known.
    """
    if isinstance(relation, Scan):
        return 1 if relation.one_row else relation.max_rows
    if isinstance(relation, Filter):
        return rows_max(relation.input)
    if isinstance(relation, Join):
        driver = driver_of(relation)
        if driver is not None and not driver.ones:
            scan = next(s for s in protected_scans(relation) if s.source == driver.source)
            return rows_max_of_scan(scan) * driver.factor
        left, right = (rows_max(side) for side in (relation.left, relation.right))
        kinds = (kind_of(relation.left), kind_of(relation.right))
        if kinds == (Kind.PROTECTED, Kind.PROTECTED) and left is not None and right is not None:
            return left * max(right, 1)
        return None
    return None


def rows_max_of_scan(scan: Scan) -> int:
    """Return the ceiling of one table."""
    return 1 if scan.one_row else scan.max_rows


@dataclass(frozen=True, slots=True)
class Driver:
    """The scan whose rows bound a relation's rows.

    Guarantee: if a unit has at most k rows in scan `source`, and the scans in `ones` keep one
    row per unit and key, then it has at most `factor * max(k, 1)` rows in the relation.
    """

    source: int
    factor: int
    ones: tuple[tuple[int, str], ...] = ()


def driver_of(relation: Relation) -> Driver | None:
    """Find the driving scan of a relation, or None where rows multiply without a bound."""
    if isinstance(relation, Scan):
        return Driver(relation.source, 1)
    if isinstance(relation, Filter):
        return driver_of(relation.input)
    if isinstance(relation, Join):
        return _driver_of_join(relation)
    return None


def _driver_of_join(join: Join) -> Driver | None:
    left_kind, right_kind = kind_of(join.left), kind_of(join.right)
    if (left_kind, right_kind) == (Kind.PROTECTED, Kind.PROTECTED):
        return _driver_of_protected(join)
    if left_kind is Kind.PROTECTED and right_kind is Kind.PUBLIC:
        return _times(driver_of(join.left), _fan_out(join.right, [(b, a) for a, b in join.equal]))
    if left_kind is Kind.PUBLIC and right_kind is Kind.PROTECTED and join.how is How.INNER:
        return _times(driver_of(join.right), _fan_out(join.left, list(join.equal)))
    return None


def _driver_of_protected(join: Join) -> Driver | None:
    """One side has at most one row for each row of the other: that other side drives."""
    if rows_max(join.right) == 1:
        return driver_of(join.left)
    if rows_max(join.left) == 1:
        return driver_of(join.right)
    parent = _parent_key(join.right, [b for _, b in join.equal])
    if parent is not None:
        return _with_one(driver_of(join.left), parent)
    parent = _parent_key(join.left, [a for a, _ in join.equal])
    if parent is not None and join.how is How.INNER:
        return _with_one(driver_of(join.right), parent)
    return None


def _parent_key(side: Relation, keys: list[Expression]) -> tuple[int, str] | None:
    """Return (scan, column) where the side is one table joined on its own referenced key."""
    scan = side.input if isinstance(side, Filter) else side
    if not isinstance(scan, Scan):
        return None
    for key in keys:
        own = isinstance(key, Column) and key.source == scan.source
        if own and key.name in scan.referenced:  # type: ignore[union-attr]
            return (scan.source, key.name)  # type: ignore[union-attr]
    return None


def _with_one(driver: Driver | None, parent: tuple[int, str]) -> Driver | None:
    return None if driver is None else replace(driver, ones=(*driver.ones, parent))


def _times(driver: Driver | None, fan_out: int | None) -> Driver | None:
    if driver is None or fan_out is None:
        return None
    return replace(driver, factor=driver.factor * max(fan_out, 1))


def _fan_out(public: Relation, pairs: list[tuple[Expression, Expression]]) -> int | None:
    """Return how many public rows share one join key at most: a public fact.

    Only a key of the other side's own type counts: compared as DOUBLE, whole numbers beyond 2^53
    that differ become equal.
    """
    keys = [key for key, other in pairs if key.domain.type is other.domain.type]
    scan = public.input if isinstance(public, Filter) else public
    if not isinstance(scan, Scan):
        return None
    known = dict(scan.rows_per_value)
    found = [
        known[key.name] for key in keys
        if isinstance(key, Column) and key.source == scan.source and key.name in known
    ]
    return min(found) if found else None


def limited(relation: Relation, driver: Driver, rows: int) -> Relation:
    """Return the relation with its driving scan limited to `rows` rows a unit.

    Guarantee: a unit has at most `driver.factor * rows` rows in the result (rows >= 1).
    """
    if isinstance(relation, Scan):
        if relation.source == driver.source and rows < rows_max_of_scan(relation):
            relation = replace(relation, row_limit=rows)
        for source, column in driver.ones:
            if relation.source == source:
                relation = replace(relation, one_per_key=column)
        return relation
    if isinstance(relation, Filter):
        return replace(relation, input=limited(relation.input, driver, rows))
    if isinstance(relation, Join):
        return replace(
            relation,
            left=limited(relation.left, driver, rows),
            right=limited(relation.right, driver, rows),
        )
    return relation
