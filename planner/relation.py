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
from planner.expression import Call, Column, Expression, Literal

UNIT_NAME = "__u"
GIVEN_NAME = "__given"  # the column that stands for a released number used as a constant
RANK_NAME = "__rank"
ROWS_NAME = "__n"  # how many rows the unit has in this table, on each of them
RANK = Domain(Type.INTEGER, nullable=True)


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
    """Pairs of rows. `tie` adds equality of units; `equal` are the user's key equalities.

    `completes` marks an inner join that the user wrote as public LEFT JOIN protected: rows of
    the public side without a patient are not rows here, but groups of the public key set.
    """

    left: Relation
    right: Relation
    how: How
    tie: bool
    equal: tuple[tuple[Expression, Expression], ...]
    conditions: tuple[Expression, ...]
    completes: bool = False


class Aggregate(Enum):
    """What a release can measure."""

    COUNT = "count"  # rows where the argument is not NULL, or all rows
    SUM = "sum"
    UNITS = "count distinct units"
    DISTINCT = "count distinct values"
    TREE = "counts of a tree over the bounds"  # gives quantiles
    HISTOGRAM = "count of each value"  # gives the mode


@dataclass(frozen=True, slots=True)
class Measure:
    """One number per group. `conditions` is FILTER; SUM adds `argument - center`."""

    aggregate: Aggregate
    argument: Expression | None
    conditions: tuple[Expression, ...]
    center: float = 0.0


class Reading(Enum):
    """What is read off the noisy counts of a tree or histogram."""

    QUANTILE = "quantile"
    LEAST = "min"
    GREATEST = "max"
    MODE = "mode"


@dataclass(frozen=True, slots=True)
class Quantile:
    """A number read off a TREE or HISTOGRAM measure; it is post-processing, so it is free.

    Its column is named q1, q2, ... in the order of the release's `quantiles`.
    """

    place: int
    reading: Reading
    share: float
    domain: Domain


@dataclass(frozen=True, slots=True)
class Release:
    """Where protected rows become noisy numbers: groups by keys, one column per measure.

    Its own columns are named k1, ... (keys), m1, ... (measures), q1, ... (read off trees),
    d1, ... (statistics computed from measures) and c1, ... (the center of each sum) under
    `source`. `centred` lists the sums that are only read together with their center.
    """

    source: int
    input: Relation
    keys: tuple[Expression, ...]
    measures: tuple[Measure, ...]
    quantiles: tuple[Quantile, ...] = ()
    derived: tuple[Expression, ...] = ()
    centred: tuple[int, ...] = ()

    def key_column(self, place: int) -> Column:
        """The released column of a key."""
        return Column(self.source, f"k{place + 1}", self.keys[place].domain)

    def measure_column(self, place: int) -> Column:
        """The released column of a measure."""
        measure = self.measures[place]
        return Column(self.source, f"m{place + 1}", measure_domain(measure))


@dataclass(frozen=True, slots=True)
class UnitItem:
    """One aggregate over the rows of one unit; `function` is an entry of unit_functions.py."""

    function: str
    arguments: tuple[Expression, ...]
    conditions: tuple[Expression, ...]
    domain: Domain


@dataclass(frozen=True, slots=True)
class UnitAggregate:
    """One row per unit and keys: a computation within each patient, so still protected.

    Its columns are k1, ... and m1, ... under `source`, and the unit.
    """

    source: int
    input: Relation
    keys: tuple[Expression, ...]
    items: tuple[UnitItem, ...]


@dataclass(frozen=True, slots=True)
class WindowItem:
    """One window function. Over protected rows the unit is always part of the partition."""

    function: str
    arguments: tuple[Expression, ...]
    partition: tuple[Expression, ...]
    order: tuple[tuple[Expression, bool, bool], ...]
    frame: str
    domain: Domain


@dataclass(frozen=True, slots=True)
class Window:
    """The rows of the input with columns w1, w2, ... computed within a unit's rows."""

    source: int
    input: Relation
    items: tuple[WindowItem, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """The rows of the input with a truth value e1: has it a match in `other`?

    Where `other` is protected, only rows of the same unit match (`tie`).
    """

    source: int
    input: Relation
    other: Relation
    tie: bool
    equal: tuple[tuple[Expression, Expression], ...]
    conditions: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """One part of a UNION ALL and what its columns are."""

    relation: Relation
    outputs: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Union:
    """UNION ALL: the rows of all branches, with columns c1, c2, ... under `source`."""

    source: int
    branches: tuple[Branch, ...]
    domains: tuple[Domain, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """A released answer used further in: from here on a public table.

    Its columns are c1, ... under `source`; `unique` ones tell its rows apart.
    """

    source: int
    columns: tuple[Column, ...]
    unique: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """A plain GROUP BY over released or public rows: post-processing, free."""

    source: int
    input: Relation
    keys: tuple[Expression, ...]
    aggregates: tuple[tuple[str, bool, Expression | None, tuple[Expression, ...]], ...]
    sets: tuple[tuple[int, ...], ...] = ()  # GROUPING SETS, as places of keys


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


Relation = (
    Scan | Filter | Join | Release | UnitAggregate | Window | Mark | Union | Given | Summary
    | Ordered | Nothing
)


def measure_domain(measure: Measure) -> Domain:
    """Noisy numbers are unbounded reals; counts are whole."""
    whole = measure.aggregate is not Aggregate.SUM
    return Domain(Type.INTEGER if whole else Type.REAL, nullable=False)


def inputs_of(relation: Relation) -> tuple[Relation, ...]:
    """Return the relations directly below."""
    if isinstance(relation, Join):
        return (relation.left, relation.right)
    if isinstance(relation, Scan | Given | Nothing):
        return ()
    if isinstance(relation, Mark):
        return (relation.input, relation.other)
    if isinstance(relation, Union):
        return tuple(branch.relation for branch in relation.branches)
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
    if isinstance(relation, Given | Nothing):
        return Kind.PUBLIC
    if isinstance(relation, Mark):
        return kind_of(relation.input)
    kinds = {kind_of(below) for below in inputs_of(relation)}
    for kind in (Kind.PROTECTED, Kind.RELEASED):
        if kind in kinds:
            return kind
    return Kind.PUBLIC


def unit_of(relation: Relation) -> Column:
    """Return the column that holds the unit of every row of a protected relation.

    Guarantee: it is never NULL. A left join keeps the unit of its protected left side.
    """
    if isinstance(relation, Scan | UnitAggregate | Union):
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


def row_scans(relation: Relation) -> tuple[Scan, ...]:
    """Return the protected tables whose rows a relation's rows are made of.

    A table that is only asked whether it holds a match gives no rows.
    """
    if isinstance(relation, Scan):
        return (relation,) if relation.kind is Kind.PROTECTED else ()
    below = (relation.input,) if isinstance(relation, Mark) else inputs_of(relation)
    return tuple(scan for node in below for scan in row_scans(node))


def rows_max(relation: Relation) -> int | None:
    """Return how many rows a unit can have at most, by the snapshot's ceilings alone.

    Guarantee: no unit has more rows than that on any database the snapshot can hold. None
    means that no bound is known. A left join gives at least one row for each row on its left.
    """
    if isinstance(relation, Scan):
        return rows_max_of_scan(relation)
    if isinstance(relation, Filter):
        return _rows_max_of_filter(relation)
    if isinstance(relation, Window | Mark):
        return rows_max(relation.input)
    if isinstance(relation, UnitAggregate):
        return _least_known(rows_max(relation.input), _combinations(relation))
    if isinstance(relation, Union):
        counts = [rows_max(branch.relation) for branch in relation.branches]
        return None if None in counts else sum(n for n in counts if n is not None)
    if isinstance(relation, Join):
        return _rows_max_of_join(relation)
    return None


def _least_known(*counts: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    return min(known) if known else None


def _combinations(relation: UnitAggregate) -> int | None:
    """Return how many different keys a unit can have, where every key is a stored column.

    Only columns of the snapshot count: it holds no value outside their declared domains.
    """
    stored = {node.source for node in walk_relations(relation) if isinstance(node, Scan)}
    total = 1
    for key in relation.keys:
        members = key.domain.members() if isinstance(key, Column) and key.source in stored else None
        if members is None:
            return None
        total *= len(members) + 1
    return total


def _rows_max_of_filter(relation: Filter) -> int | None:
    """A filter keeps at most c rows of a unit where it keeps row numbers up to c.

    ROW_NUMBER over the unit's rows gives each row another number, whatever the order.
    """
    numbered = {
        (node.source, f"w{i + 1}")
        for node in walk_relations(relation.input) if isinstance(node, Window)
        and _reaches(relation.input, node)
        for i, item in enumerate(node.items)
        if item.function == "row_number" and not item.partition
    }
    kept = [rows_max(relation.input)]
    for condition in relation.conditions:
        kept.append(_largest_number(condition, numbered))
    return _least_known(*kept)


def _reaches(relation: Relation, window: Window) -> bool:
    """Return whether the rows of a relation are rows of the window, none of them repeated."""
    while isinstance(relation, Filter | Mark | Window):
        if relation is window:
            return True
        relation = relation.input
    return False


def _largest_number(condition: Expression, numbered: set[tuple[int, str]]) -> int | None:
    if not isinstance(condition, Call) or condition.function not in ("eq", "le", "lt"):
        return None
    left, right = condition.arguments
    if condition.function == "eq" and isinstance(left, Literal):
        left, right = right, left
    if not isinstance(left, Column) or (left.source, left.name) not in numbered:
        return None
    if not isinstance(right, Literal) or isinstance(right.value, bool):
        return None
    if not isinstance(right.value, int) or right.value < 1:
        return None
    if condition.function == "eq":
        return 1
    return right.value - 1 if condition.function == "lt" and right.value > 1 else right.value


def _rows_max_of_join(join: Join) -> int | None:
    left, right = rows_max(join.left), rows_max(join.right)
    kinds = (kind_of(join.left), kind_of(join.right))
    if kinds == (Kind.PROTECTED, Kind.PROTECTED):
        if has_one_row_per_key(join.right, [b for _, b in join.equal]):
            return left
        if join.how is How.INNER and has_one_row_per_key(join.left, [a for a, _ in join.equal]):
            return right
        return None if left is None or right is None else left * max(right, 1)
    if kinds == (Kind.PROTECTED, Kind.PUBLIC):
        fan_out = _fan_out(join.right, [(b, a) for a, b in join.equal])
        return None if left is None or fan_out is None else left * max(fan_out, 1)
    if kinds == (Kind.PUBLIC, Kind.PROTECTED) and join.how is How.INNER:
        fan_out = _fan_out(join.left, list(join.equal))
        return None if right is None or fan_out is None else right * max(fan_out, 1)
    return None


def rows_max_of_scan(scan: Scan) -> int:
    """Return the ceiling of one table."""
    return 1 if scan.one_row else scan.max_rows


@dataclass(frozen=True, slots=True)
class Driver:
    """The scans whose rows bound a relation's rows, each with a factor.

    Guarantee: if a unit has at most k rows in each scan of `parts`, then it has at most
    `factor * max(k, 1)` rows in the relation, where `factor` is the sum of the parts' factors.
    """

    parts: tuple[tuple[int, int], ...]

    @property
    def factor(self) -> int:
        """How many rows of the relation one row in each driving scan can make."""
        return sum(factor for _, factor in self.parts)


def driver_of(relation: Relation) -> Driver | None:
    """Find the driving scans of a relation, or None where rows multiply without a bound.

    A per-patient aggregate has none: it must see all rows below the ceiling.
    """
    if isinstance(relation, Scan):
        return Driver(((relation.source, 1),))
    if isinstance(relation, Window):
        inside = walk_relations(relation.input)
        carried = not any(isinstance(node, Union) for node in inside)
        return driver_of(relation.input) if carried else None  # a union shows no ranks
    if isinstance(relation, Filter | Mark):
        return driver_of(relation.input)
    if isinstance(relation, Join):
        return _driver_of_join(relation)
    if isinstance(relation, Union):
        found = [driver_of(branch.relation) for branch in relation.branches]
        parts: list[tuple[int, int]] = []
        for driver in found:
            if driver is None:
                return None
            parts.extend(driver.parts)
        return Driver(tuple(parts))
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
    if has_one_row_per_key(join.right, [b for _, b in join.equal]):
        return driver_of(join.left)
    if join.how is How.INNER and has_one_row_per_key(join.left, [a for a, _ in join.equal]):
        return driver_of(join.right)
    return None


def parent_key(side: Relation, keys: list[Expression]) -> str | None:
    """Return the column where the side is one table joined on its own referenced key."""
    scan = side.input if isinstance(side, Filter) else side
    if not isinstance(scan, Scan):
        return None
    for key in keys:
        if isinstance(key, Column) and key.source == scan.source and key.name in scan.referenced:
            return key.name
    return None


def has_one_row_per_key(side: Relation, keys: list[Expression]) -> bool:
    """Return whether the side is one table that keeps one row per unit and joined key."""
    scan = side.input if isinstance(side, Filter) else side
    return isinstance(scan, Scan) and scan.one_per_key is not None and any(
        isinstance(key, Column) and key.source == scan.source and key.name == scan.one_per_key
        for key in keys
    )


def with_one_row_per_key(side: Relation, column: str) -> Relation:
    """Return the side with one row per unit and key: a key names one row."""
    if isinstance(side, Filter):
        return replace(side, input=with_one_row_per_key(side.input, column))
    return replace(side, one_per_key=column) if isinstance(side, Scan) else side


def without_cuts(relation: Relation) -> Relation:
    """Return the relation with every row of every table: for the correctness oracle in tests."""
    if isinstance(relation, Scan):
        return replace(relation, one_per_key=None, row_limit=None)
    if isinstance(relation, Join):
        return replace(relation, left=without_cuts(relation.left),
                       right=without_cuts(relation.right))
    if isinstance(relation, Mark):
        return replace(relation, input=without_cuts(relation.input),
                       other=without_cuts(relation.other))
    if isinstance(relation, Union):
        return replace(relation, branches=tuple(
            replace(branch, relation=without_cuts(branch.relation))
            for branch in relation.branches
        ))
    if isinstance(relation, Filter | UnitAggregate | Window):
        return replace(relation, input=without_cuts(relation.input))
    return relation


# Where public rows of an unknown number meet a patient's row, this many are assumed.
PUBLIC_ROWS = 1_000


def rows_at_worst(relation: Relation) -> int:
    """Return how many rows a join can make of one patient: what a question may cost to run.

    It decides refusals only; where a public side has no known fan-out, a number is assumed.
    """
    known = rows_max(relation)
    if known is not None:
        return known
    if isinstance(relation, Join):
        return rows_at_worst(relation.left) * max(rows_at_worst(relation.right), 1)
    below = inputs_of(relation)
    if isinstance(relation, Union):
        return sum(map(rows_at_worst, below))
    if kind_of(relation) is not Kind.PROTECTED or not below:
        rows = relation.public_rows if isinstance(relation, Scan) else None
        return len(rows.rows) if rows is not None else PUBLIC_ROWS
    return rows_at_worst(below[0])


def _times(driver: Driver | None, fan_out: int | None) -> Driver | None:
    if driver is None or fan_out is None:
        return None
    many = max(fan_out, 1)
    return replace(driver, parts=tuple((s, factor * many) for s, factor in driver.parts))


def _fan_out(public: Relation, pairs: list[tuple[Expression, Expression]]) -> int | None:
    """Return how many public rows share one join key at most: a public fact.

    Only a key of the other side's own type counts: compared as DOUBLE, whole numbers beyond 2^53
    that differ become equal.
    """
    keys = [key for key, other in pairs if key.domain.type is other.domain.type]
    scan = public.input if isinstance(public, Filter) else public
    if isinstance(scan, Given):
        names = {key.name for key in keys if isinstance(key, Column)
                 and key.source == scan.source}
        return 1 if scan.unique and set(scan.unique) <= names else None
    if not isinstance(scan, Scan):
        return None
    known = dict(scan.rows_per_value)
    found = [
        known[key.name] for key in keys
        if isinstance(key, Column) and key.source == scan.source and key.name in known
    ]
    return min(found) if found else None


def limited(relation: Relation, driver: Driver, rows: int) -> Relation:
    """Return the relation with its driving scans limited to `rows` rows a unit.

    Guarantee: a unit has at most `driver.factor * rows` rows in the result (rows >= 1). Windows
    are computed before the limit, so that a row's neighbours are what the user meant.
    """
    if isinstance(relation, Scan):
        sources = {source for source, _ in driver.parts}
        if relation.source in sources and rows < rows_max_of_scan(relation):
            relation = replace(relation, row_limit=rows)
        return relation
    if isinstance(relation, Filter | Mark):
        return replace(relation, input=limited(relation.input, driver, rows))
    if isinstance(relation, Join):
        return replace(
            relation,
            left=limited(relation.left, driver, rows),
            right=limited(relation.right, driver, rows),
        )
    if isinstance(relation, Union):
        return replace(relation, branches=tuple(
            replace(branch, relation=limited(branch.relation, driver, rows))
            for branch in relation.branches
        ))
    if isinstance(relation, Window):
        return _limited_above(relation, driver, rows)
    return relation


def _limited_above(window: Window, driver: Driver, rows: int) -> Relation:
    """Limit by the ranks that the driving scans' rows carry through the window."""
    scans = {scan.source: scan for scan in protected_scans(window)}
    conditions: list[Expression] = []
    for source, _ in driver.parts:
        if source in scans and rows < rows_max_of_scan(scans[source]):
            conditions.append(at_most(Column(source, RANK_NAME, RANK), rows))
    return Filter(window, tuple(conditions)) if conditions else window


def at_most(column: Column, rows: int) -> Call:
    """Return the condition that a number which is never NULL is at most `rows`."""
    limit = Literal(rows, Domain(Type.INTEGER, False, rows, rows))
    return Call("le", (column, limit), Domain(Type.BOOLEAN, nullable=False))
