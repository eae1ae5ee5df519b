"""A bounded release in, the small question that is asked first out: which clip would suit it.

How many rows a patient has, how large the values are, or how far from an origin they lie, is bought
from the budget as noisy histograms on a geometric grid. Only their released numbers choose a clip
(adaptive.py), or how much a patient may weigh in an average (averaging.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from math import ceil, floor, log2

from planner.bind import Bound, Rows
from planner.bounding import (
    ADDITIVE,
    BoundedMeasure,
    BoundedRelease,
    Shape,
    bound,
    bound_one_row,
    is_in_one_group,
)
from planner.catalog import Catalog
from planner.domain import Domain, Type, integer, real
from planner.emit import read_by, statement_relations
from planner.expression import Call, Column, Expression, Literal, columns_of, walk
from planner.functions import make
from planner.grid import WHOLE_MAX, middle_of
from planner.narrowing import Key
from planner.refusal import Refused
from planner.relation import (
    Aggregate,
    Measure,
    Relation,
    Release,
    Scan,
    Union,
    UnitAggregate,
    UnitItem,
    Window,
    driver_of,
    rows_max,
    walk_relations,
)
from planner.uncertainty import totals_of

# Values of a real column are told apart down to its largest bound over 2^30.
OCTAVES_MAX = 30
# Beyond these a value over its largest bound is no longer a usable number.
SIZE_MIN, SIZE_MAX = 2.0**-900, 2.0**900
# Half an octave: 1, 2, 3, 4, 6, 8, 12, ... rows of a patient.
ROWS_PER_OCTAVE = 2
# The same steps for how far a patient's values lie from an origin in the mean.
DISTANCES_PER_OCTAVE = 2
# The groups of a release are counted apart up to so many: put together again, where few patients
# are in each, their noises add up.
GROUPS_APART = 16
# So many rows of a patient carry more noise than most tables' answers can bear.
ROWS_MANY = 100
_CLIPPING = frozenset({"clamp", "least", "greatest"})


class Bounds(Enum):
    """Whose bounds a question uses: the policy's, or those that a pilot chooses within them."""

    AUTO = "auto"
    DECLARED = "declared"
    RACE = "race"  # many bounds at once (race.py)
    DEFAULT = "default"  # chosen for averages, and where the policy says that its bounds are loose


def read_bounds(given: str | None) -> Bounds:
    """Return whose bounds are wanted. Raises Refused for any other word."""
    if given is None:
        return Bounds.DEFAULT
    if given not in (Bounds.AUTO.value, Bounds.DECLARED.value, Bounds.RACE.value):
        raise Refused("bounds", f"bounds must be 'auto', 'declared' or 'race', got {given!r}",
                      "bounds='auto'")
    return Bounds(given)


@dataclass(frozen=True, slots=True)
class Pilot:
    """What is asked before a release.

    `rows` counts patients by their number of rows; `sizes` counts rows by the size of a value,
    one histogram for each value. `places` gives, for each measure of the release, the histogram
    that chooses its clip, or None where it keeps its bounds. `alone` are the measures that are
    read by themselves and not only inside an average; `asked` is the caller's number of rows.

    Where all counts and sums of a release stand inside averages, `distances` takes the place of
    `sizes`: it counts patients by the mean distance of their values from an origin, one histogram
    for each of `origins` (the place of a sum, and the origin).

    `totals` counts patients by what their rows add up to, one histogram for each sum that is
    limited so (truncation.py chooses by it); `total_places` gives them, as `places` does.
    """

    rows: BoundedRelease | None
    sizes: BoundedRelease | None
    places: tuple[int | None, ...]
    alone: frozenset[int]
    asked: int | None
    distances: BoundedRelease | None = None
    origins: tuple[tuple[int, float], ...] = ()
    totals: BoundedRelease | None = None
    total_places: tuple[int | None, ...] = ()

    @property
    def limited(self) -> frozenset[int]:
        """The measures that a patient's total limits, whatever rows and clips are chosen."""
        return frozenset(i for i, place in enumerate(self.total_places) if place is not None)

    @property
    def releases(self) -> tuple[BoundedRelease, ...]:
        """The questions themselves."""
        every = (self.rows, self.sizes, self.distances, self.totals)
        return tuple(r for r in every if r is not None)


def pilot_share(pilots: tuple[Pilot, ...]) -> Fraction:
    """Return the share of a question's epsilon that goes to its pilots."""
    if not pilots:
        return Fraction(0)
    if any(p.totals is not None and p.totals.release.keys for p in pilots):
        return Fraction(3, 10)  # of each group by itself less is seen
    values = any(
        r is not None for p in pilots for r in (p.sizes, p.distances, p.totals)
    )
    return Fraction(1, 5) if values else Fraction(1, 10)


def pilots_of(
    bounded: tuple[BoundedRelease, ...], bound_: Bound, catalog: Catalog, bounds: Bounds,
    rows: int | None,
) -> dict[int, Pilot]:
    """Return the pilots of a question's releases, by their source."""
    found = {r.release.source: pilot_of(r, bound_, catalog, bounds, rows) for r in bounded}
    return {source: pilot for source, pilot in found.items() if pilot is not None}


def pilot_of(
    bounded: BoundedRelease, bound_: Bound, catalog: Catalog, bounds: Bounds, rows: int | None
) -> Pilot | None:
    """Return what should be asked first, or None where the declared bounds are used.

    By default a pilot is taken where the policy marks a summed column `loose`, or lets a patient
    count with ROWS_MANY rows or more, and for averages of several rows a patient: there patients
    weigh less instead of being cut, which costs little where the bounds are tight and gains much
    where they are not. `rows` is what the caller fixed.

    Guarantee: depends on the question, the policy and the caller's words only. The pilot's own
    releases are bounded like any other (bounding.py), so their sensitivity holds.
    """
    release = bounded.release
    if bounds in (Bounds.DECLARED, Bounds.RACE):
        return None
    clipped = [
        (place, measure) for place, measure in enumerate(release.measures)
        if _is_clippable(place, measure, release)
        and (bounds is Bounds.AUTO or _is_loose(measure.argument, release.input, catalog))
    ]
    shape = _additive_strategy(bounded)
    if shape is None:
        return None
    alone = _read_alone(bound_, release.source)
    averages = _only_averages(release, alone)
    cuts = rows is None and _cuts_rows(shape) and (
        bounds is Bounds.AUTO or bool(clipped) or averages or shape.strategy.rows >= ROWS_MANY
    )
    if not (clipped or cuts):
        return None
    if cuts and averages:
        distances, origins = _distances(release)
        return Pilot(_rows(bounded, shape), None, tuple(None for _ in release.measures), alone,
                     rows, distances, origins)
    limited = frozenset[int]()
    if rows is None and shape.strategy.shape is not Shape.ONE_ROW:
        limited = _limited_by_total(release, bound_)
    rest = [(place, measure) for place, measure in clipped if place not in limited]
    sizes, places = _sizes(release, rest, rows)
    apart = is_in_one_group(release) and bounded.keys is not None and (
        2 <= len(bounded.keys) <= GROUPS_APART
    ) and not _is_added_up(bound_, release.source)
    totals, total_places = _totals(release, limited, shape.strategy.rows,
                                   bounded.keys if apart else None)
    others = any(m.aggregate in ADDITIVE for i, m in enumerate(release.measures)
                 if i not in limited)
    return Pilot(_rows(bounded, shape) if cuts and others else None, sizes, places,
                 alone - limited, rows, totals=totals, total_places=total_places)


def has_totals(bounded: BoundedRelease) -> bool:
    """Return whether all that adds up here are sums that can be limited by a patient's total.

    A count or an average beside a sum keeps both to the same rows, because people divide one by
    the other.
    """
    release = bounded.release
    additive = {place for place, m in enumerate(release.measures) if m.aggregate in ADDITIVE}
    return bool(additive) and additive == _sums_apart(release)


def _sums_apart(release: Release) -> frozenset[int]:
    """Return the sums that stand for themselves and not for a mean about a center."""
    return frozenset(
        place for place, measure in enumerate(release.measures)
        if place not in release.centred and measure.center == 0
        and _is_clippable(place, measure, release)
    )


def _limited_by_total(release: Release, bound_: Bound) -> frozenset[int]:
    """Return the sums that a patient's total limits: those that no count or mean stands beside.

    What one expression reads together, a sum over a count for instance, is left to the same rows
    of a patient: two numbers that are cut differently would make a wrong quotient.
    """
    every = (bound_.rows, *(g.rows for g in bound_.givens))
    sources = {release.source, *_is_added_up(bound_, release.source)}
    found = _sums_apart(release)
    together = [
        {int(c.name[1:]) - 1 for c in columns_of(e) if c.source in sources and c.name[0] == "m"}
        for rows in every for e in _expressions_above(rows)
    ]
    for _ in together:  # one that is left to its rows may take another with it
        for places in together:
            if not places <= found:
                found -= places
    return found


def _is_added_up(bound_: Bound, source: int) -> frozenset[int]:
    """Return the numbers of the ROLLUPs that add up a release's groups."""
    return frozenset(
        total for rows in (bound_.rows, *(g.rows for g in bound_.givens))
        for total, below in totals_of(rows.relation).items() if below == source
    )


def _totals(
    release: Release, limited: frozenset[int], rows: int, apart: tuple[Key, ...] | None
) -> tuple[BoundedRelease | None, tuple[int | None, ...]]:
    """Count patients by the octave of what the magnitudes of their rows add up to.

    The largest octave ends at what the declared bounds let a patient count. Where a patient's
    rows are all in one group, the groups are counted `apart`.

    Guarantee: rows are added up within a patient first, so a patient is one row here and in at
    most one bin of each histogram.
    """
    source = _own_source(release, 1)
    found: list[int | None] = [None] * len(release.measures)
    items: list[UnitItem] = []
    counted: list[Measure] = []
    for place, measure in enumerate(release.measures):
        value = measure.argument
        if place not in limited or value is None:
            continue
        top = rows * max(map(abs, value.domain.interval or (0.0, 0.0)))
        whole = value.domain.type is Type.INTEGER and top < WHOLE_MAX
        domain = integer(0, int(top), nullable=True) if whole else real(0.0, float(top), True)
        item = UnitItem("sum", (make("abs", value),), measure.conditions, domain)
        if item not in items:
            items.append(item)
            total = Column(source, f"m{len(items)}", domain, per_unit=True)
            counted.append(Measure(Aggregate.HISTOGRAM, size_of(total), _present(total, ())))
        found[place] = items.index(item)
    if not items:
        return None, tuple(found)
    groups = () if apart is None else release.keys
    unit = UnitAggregate(source, release.input, groups, tuple(items))
    keys = tuple(Column(source, f"k{i + 1}", key.domain, per_unit=True)
                 for i, key in enumerate(groups))
    asked = Release(_own_source(release, 0), unit, keys, tuple(counted))
    return bound_one_row(asked, ((),) if apart is None else apart), tuple(found)


def _read_alone(bound_: Bound, source: int) -> frozenset[int]:
    """Return the measures of a release that something other than an average reads."""
    found: set[int] = set()
    waiting = [e for rows in (bound_.rows, *(g.rows for g in bound_.givens))
               for e in _expressions_above(rows)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Column) and node.source == source and node.name.startswith("m"):
            found.add(int(node.name[1:]) - 1)
        elif isinstance(node, Call) and node.function != "average":
            waiting.extend(node.arguments)
    return frozenset(found)


def _expressions_above(rows: Rows) -> list[Expression]:
    """Return every expression of the outer SQL: outputs, and what nodes above releases read."""
    found = [expression for _, expression in rows.outputs]
    for node in statement_relations(rows.relation):
        if not isinstance(node, Release):
            found.extend(read_by(node))
    return found


def _additive_strategy(bounded: BoundedRelease) -> BoundedMeasure | None:
    return next((m for m in bounded.measures if m.measure.aggregate in ADDITIVE), None)


def _only_averages(release: Release, alone: frozenset[int]) -> bool:
    """Return whether every count and sum of a release is read inside an average only.

    Then a patient's rows may weigh less: sum and count shrink alike, and the quotient stays.
    """
    additive = [(i, m) for i, m in enumerate(release.measures) if m.aggregate in ADDITIVE]
    return bool(release.centred) and all(
        i not in alone and (m.aggregate is Aggregate.COUNT or (
            i in release.centred and _is_clippable(i, m, release)))
        for i, m in additive
    )


def _is_clippable(place: int, measure: Measure, release: Release) -> bool:
    """Return whether other bounds of a sum change nothing but the sum itself.

    A statistic's moments belong together, and a sum about a center needs to say which.
    """
    if measure.aggregate is not Aggregate.SUM or measure.argument is None:
        return False
    ends = measure.argument.domain.interval
    if ends is None or ends[0] == ends[1] or not measure.argument.domain.is_number:
        return False
    if not SIZE_MIN < max(abs(ends[0]), abs(ends[1])) < SIZE_MAX:
        return False
    own = f"m{place + 1}"
    if any(column.name == own for e in release.derived for column in columns_of(e)):
        return False
    return measure.center == 0 or place in release.centred


def _is_loose(argument: Expression | None, relation: Relation, catalog: Catalog) -> bool:
    """Return whether a value's bounds are those of a column that the policy marks `loose`.

    A value that the question itself clips, or narrows by a condition, has the user's bounds.
    """
    if argument is None or any(
        isinstance(node, Call) and node.function in _CLIPPING for node in walk(argument)
    ):
        return False
    nodes = {
        node.source: node for node in walk_relations(relation)
        if isinstance(node, Scan | UnitAggregate | Window | Union)
    }
    waiting, seen = list(columns_of(argument)), set[tuple[int, str]]()
    while waiting:
        column = waiting.pop()
        if (column.source, column.name) in seen:
            continue
        seen.add((column.source, column.name))
        node = nodes.get(column.source)
        if isinstance(node, Scan):
            table = catalog.table(node.table)
            found = None if table is None else table.column(column.name)
            if found is not None and found.loose and (
                column is not argument or column.domain.interval == found.domain.interval
            ):
                return True
        elif node is not None:
            waiting.extend(_behind(node, column))
    return False


def _behind(node: Relation, column: Column) -> list[Column]:
    """Return the columns that a computed column is made of."""
    place = int(column.name[1:]) - 1 if column.name[1:].isdigit() else -1
    if isinstance(node, Union):
        found = [b.outputs[place] for b in node.branches if 0 <= place < len(b.outputs)]
    elif isinstance(node, UnitAggregate) and column.name.startswith("k"):
        found = list(node.keys[place : place + 1])
    elif isinstance(node, UnitAggregate | Window):
        item = node.items[place : place + 1]
        found = list(item[0].arguments) if item else []
    else:
        found = []
    return [c for expression in found for c in columns_of(expression)]


def _cuts_rows(measure: BoundedMeasure) -> bool:
    """Return whether another number of rows a patient could suit the strategy better."""
    strategy = measure.strategy
    if strategy.shape in (Shape.NORM_SCALE, Shape.UNIT_CLIP):
        return True
    if strategy.shape is not Shape.ROW_RANK:
        return False
    driver = driver_of(strategy.relation)
    return driver is not None and driver.factor == 1


def _rows(bounded: BoundedRelease, shape: BoundedMeasure) -> BoundedRelease:
    """Count patients by the number of rows that the release would count, in half octaves.

    Guarantee: the rows of a patient are counted first, so a patient is one row here, in one bin.
    """
    relation = bounded.release.input
    most = rows_max(relation)
    weigh = shape.strategy.weigh
    either = tuple(_all(conditions) for conditions in weigh)
    conditions = () if not either else (make("or", *either) if len(either) > 1 else either[0],)
    source = _own_source(bounded.release, 1)
    domain = integer(0, most if most is not None else 2**OCTAVES_MAX, nullable=False)
    unit = UnitAggregate(source, relation, (), (UnitItem("count", (), conditions, domain),))
    number = Column(source, "m1", domain, per_unit=True)
    argument = make("ceil", make("mul", make("log2", make("greatest", number, _real(0.5))),
                                 _real(float(ROWS_PER_OCTAVE))))
    counted = Measure(Aggregate.HISTOGRAM, argument, ())
    return bound(Release(_own_source(bounded.release, 2), unit, (), (counted,)), None)


def _distances(release: Release) -> tuple[BoundedRelease, tuple[tuple[int, float], ...]]:
    """Count patients by the mean distance of their values from an origin, in half octaves.

    Origins are the bound nearest to zero, where skewed values crowd, and the middle.

    Guarantee: a patient's values are added up first, exactly (unit_functions.exact_sum), so a
    patient is one row here and in at most one bin of each histogram.
    """
    source = _own_source(release, 0)
    items: list[UnitItem] = []
    counted: list[Measure] = []
    origins: list[tuple[int, float]] = []
    for place in release.centred:
        measure = release.measures[place]
        if measure.argument is None:
            continue
        for origin in origins_of(measure.argument.domain):
            distance = make("abs", make("sub", measure.argument, _real(origin)))
            domain = real(0.0, farthest(measure.argument.domain, origin), nullable=True)
            conditions = (*measure.conditions, *_present(measure.argument, measure.conditions))
            items.append(UnitItem("avg", (distance,), conditions, domain))
            mean = Column(source, f"m{len(items)}", domain, per_unit=True)
            counted.append(Measure(Aggregate.HISTOGRAM, size_of(mean, DISTANCES_PER_OCTAVE),
                                   _present(mean, ())))
            origins.append((place, origin))
    unit = UnitAggregate(source, release.input, (), tuple(items))
    asked = Release(_own_source(release, 3), unit, (), tuple(counted))
    return bound(asked, None), tuple(origins)


def origins_of(domain: Domain) -> tuple[float, ...]:
    """Return the points from which distances are taken, each once."""
    low, high = domain.interval or (0.0, 0.0)
    nearest = min(max(0.0, float(low)), float(high))
    return tuple(dict.fromkeys((nearest, middle_of((low, high), domain.type))))


def farthest(domain: Domain, origin: float) -> float:
    """Return the largest distance of a value from a point."""
    low, high = domain.interval or (0.0, 0.0)
    return max(abs(low - origin), abs(high - origin))


def rows_of_bin(bin_: int) -> int:
    """Return the most rows that a patient in this bin has."""
    return floor(2.0 ** (bin_ / ROWS_PER_OCTAVE) + 1e-9) if bin_ >= 0 else 0


def _sizes(
    release: Release, clipped: list[tuple[int, Measure]], rows: int | None
) -> tuple[BoundedRelease | None, tuple[int | None, ...]]:
    """Count rows by the size of each clipped value, in octaves below its largest bound.

    Guarantee: a row is in one bin of each histogram; how many rows of a patient count is bounded
    as for any histogram (bounding.py). Values that are NULL are in none.
    """
    places: list[int | None] = [None] * len(release.measures)
    counted: list[Measure] = []
    for place, measure in clipped:
        if measure.argument is None:
            continue
        histogram = Measure(
            Aggregate.HISTOGRAM, size_of(measure.argument),
            (*measure.conditions, *_present(measure.argument, measure.conditions)),
        )
        if histogram not in counted:
            counted.append(histogram)
        places[place] = counted.index(histogram)
    if not counted:
        return None, tuple(places)
    asked = Release(_own_source(release, 3), release.input, (), tuple(counted))
    return bound(asked, rows), tuple(places)


def size_of(value: Expression, steps: int = 1) -> Expression:
    """Return the octave of a value's magnitude, or its step of `steps`, with a sign if it has two.

    Bin b > 0 holds the magnitudes up to top * 2^((b-1)/steps-octaves) that bin b - 1 does not
    hold; bin -b holds their negatives. `ends_of_bin` says the same in numbers.
    """
    top, octaves = octaves_of(value.domain)
    share = make("mul", make("abs", value), _real(1 / top))
    logarithm = make("log2", make("greatest", share, _real(2.0**-octaves)))
    if steps != 1:
        logarithm = make("mul", logarithm, _real(float(steps)))
    octave, bins = make("ceil", logarithm), octaves * steps
    number = make("add", make("clamp", octave, _whole(-bins), _whole(0)), _whole(bins + 1))
    ends = value.domain.interval or (0.0, 0.0)
    return number if ends[0] >= 0 else make("mul", make("sign", value), number)


def octaves_of(domain: Domain) -> tuple[float, int]:
    """Return the largest magnitude of a value and how many octaves below it are told apart."""
    ends = domain.interval
    if ends is None:
        raise ValueError("a histogram of sizes needs bounds")
    top = max(abs(ends[0]), abs(ends[1]))
    if domain.type is not Type.INTEGER:
        return top, OCTAVES_MAX
    return top, (min(OCTAVES_MAX, max(1, ceil(log2(top)))) if top > 1 else 1)


def ends_of_bin(bin_: int, domain: Domain, steps: int = 1) -> tuple[float, float]:
    """Return the values that a bin of sizes holds, as a closed interval."""
    top, octaves = octaves_of(domain)
    size = abs(bin_)
    high = top * 2.0 ** ((size - 1) / steps - octaves) if size else 0.0
    low = high * 2.0 ** (-1 / steps) if size > 1 else 0.0
    return (low, high) if bin_ >= 0 else (-high, -low)


def distances_of_bin(measure: Measure) -> Callable[[int], float]:
    """Return the middle of each bin of a histogram that `_distances` made."""
    argument = measure.argument
    mean = () if argument is None else columns_of(argument)

    def middle(bin_: int) -> float:
        return sum(ends_of_bin(bin_, mean[0].domain, DISTANCES_PER_OCTAVE)) / 2

    return middle


def _present(value: Expression, conditions: tuple[Expression, ...]) -> tuple[Expression, ...]:
    present = make("not", make("is_null", value))
    return () if not value.domain.nullable or present in conditions else (present,)


def _all(conditions: tuple[Expression, ...]) -> Expression:
    return make("and", *conditions) if len(conditions) > 1 else conditions[0]


def _own_source(release: Release, place: int) -> int:
    """Number the pilot's own relations apart from those of every question."""
    return -(release.source * 4 + place)


def _real(value: float) -> Literal:
    return Literal(value, real(value, value, nullable=False))


def _whole(value: int) -> Literal:
    return Literal(value, integer(value, value, nullable=False))


__all__ = [
    "Bounds", "Pilot", "distances_of_bin", "ends_of_bin", "farthest", "pilot_of", "pilot_share",
    "pilots_of", "rows_of_bin", "size_of",
]
