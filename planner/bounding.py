"""A bound release in, bounded measures out: what limits each patient, and by how much that moves.

The same object prints the SQL that bounds a patient's contribution and computes the sensitivity,
so the two cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from math import floor

from mechanisms.quantile_tree import LEVELS
from planner.expression import Call, Column, Expression, is_per_unit
from planner.functions import make
from planner.narrowing import Key, facts_of, key_count, public_keys
from planner.refusal import Refused
from planner.relation import (
    Aggregate,
    Driver,
    Join,
    Measure,
    Relation,
    Release,
    driver_of,
    limited,
    row_scans,
    rows_at_worst,
    rows_max,
    walk_relations,
    without_cuts,
)

# What a patient's rows add up to.
ADDITIVE = frozenset({Aggregate.COUNT, Aggregate.SUM})
# What cannot be clipped after adding up: a unit's rows (or values) are cut off instead.
LIMITED = frozenset({Aggregate.DISTINCT, Aggregate.TREE, Aggregate.HISTOGRAM})
# Rows that joins may make of one patient.
ROWS_AT_WORST = 2_000_000
ROWS_DEFAULT = 20
# A quantile needs the shape of a distribution, not its size: fewer rows of a patient, less noise.
QUANTILE_ROWS = 8


class Shape(Enum):
    """How a patient's contribution is limited."""

    ONE_ROW = "one row per patient"
    FEW_ROWS = "few rows per patient"
    ROW_RANK = "row rank"
    UNIT_CLIP = "per-patient clip"
    NORM_SCALE = "norm scaling"
    UNIT_TOTAL = "per-patient total"
    RACE = "race to the top"
    UNBOUNDED = "no bound (testing only)"


@dataclass(frozen=True, slots=True)
class Cap:
    """The largest L1 norm that the parts of one sum can have for one unit.

    It is `share` (at most 1) of what the strategy's rows could give at the value's bounds.
    """

    measure: Measure
    share: Fraction

    def words(self, rows: int) -> str:
        """Say the cap in the value's own unit."""
        argument, center = self.measure.argument, self.measure.center
        low, high = (0.0, 0.0) if argument is None else argument.domain.interval or (0.0, 0.0)
        most = float(self.share) * rows * max(abs(low - center), abs(high - center))
        name = argument.name if isinstance(argument, Column) else "a value"
        return f"whose {name} lies further than {most:,.6g} from {center:,.6g} in all"


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to bound contributions.

    ONE_ROW, FEW_ROWS, ROW_RANK: a unit has at most `rows` rows in `relation`, so in at most
    `groups` groups. UNIT_CLIP: rows are first summed per unit and group; each part is clipped to
    what `rows` rows could give, and only `groups` groups of a unit are kept. `limit_groups`
    says that groups must be cut off, because the keys do not bound their number. NORM_SCALE: the
    parts of a unit with n > `rows` rows are all scaled by `rows` / n, toward zero; n counts the
    rows on which one of the `weigh` conditions holds (each a conjunction). With `caps`, they are
    scaled further down where the parts of a sum would still have an L1 norm above its cap.
    UNIT_TOTAL: a unit's parts of a sum are scaled, toward zero, so that their magnitudes add up to
    no more than the largest value; `rows` is 1, because all of a unit's rows together count like
    one value. RACE: the same for `rows` truncations at once, the widest at the largest value and
    each other one half as wide as the next; each is counted in its own units, `largest` of them.
    With `shifts` a total is limited group by group: a group's unit is 2^shift steps, and a unit's
    parts, each in the units of its group, add up to at most `largest`.
    """

    shape: Shape
    relation: Relation
    rows: int
    groups: int
    limit_groups: bool = False
    weigh: tuple[tuple[Expression, ...], ...] = ()
    shifts: tuple[tuple[Key, int], ...] = ()
    caps: tuple[Cap, ...] = ()

    @property
    def truncations(self) -> int:
        """From how many totals, each twice as large as the next, a limit is taken."""
        if self.shape is Shape.RACE:
            return self.rows
        return max((shift for _, shift in self.shifts), default=0) + 1

    def cap_of(self, measure: Measure, largest: int) -> int | None:
        """Return the cap of a sum in grid steps, or None where it has none."""
        share = next((cap.share for cap in self.caps if cap.measure == measure), None)
        return None if share is None else max(floor(share * self.rows * largest), 1)

    def sensitivity(self, measure: Measure, largest: int) -> tuple[int, int]:
        """Return (L1, squared L2): how far one unit can move the vector of all groups.

        `largest` is the largest magnitude of one row's value on the grid (1 for counts).

        Guarantee: for databases that differ in one unit, with all of its rows, the measure's
        vector over any fixed key set differs by at most L1 in L1 norm and by at most the root
        of the second number in L2 norm. By rows: a unit adds at most `rows` values of magnitude
        `largest`, at worst all in one group. A count of units moves by at most 1 in each of at
        most `groups` groups. By clipping: each of at most `groups` parts lies within
        `rows * largest`. A count of distinct values moves by at most the unit's rows. By scaling:
        the parts of n rows have an L1 norm of at most n * largest, so scaled ones of at most
        `rows * largest`, and at most the cap; the L2 norm is never above the L1 norm. By
        totals: the parts of a unit have an L1 norm of at most `largest`, which is that of one
        row. In a race that holds for each of `rows` truncations, which are all released.
        """
        cap = self.cap_of(measure, largest)
        if cap is not None:
            return cap, cap**2
        if self.shape is Shape.UNIT_CLIP and measure.aggregate in LIMITED:
            return self._by_rows(measure, 1)  # the SQL keeps `rows` rows or values of a unit
        if measure.aggregate is Aggregate.UNITS:
            return self.groups, self.groups
        if self.shape is Shape.RACE:
            return self.rows * largest, self.rows * largest**2
        if self.shape is Shape.UNIT_CLIP:
            part = self.rows * largest
            return self.groups * part, self.groups * part**2
        return self._by_rows(measure, largest)

    def _by_rows(self, measure: Measure, largest: int) -> tuple[int, int]:
        """Sensitivity where a unit has at most `rows` rows or values, over all groups.

        In a tree each row counts once on every level, so a unit moves each level by `rows`.
        """
        total = self.rows * largest
        levels = LEVELS if measure.aggregate is Aggregate.TREE else 1
        return levels * total, levels * total**2

    def words(self) -> str:
        """Say the bound in words, for explain."""
        if self.shape is Shape.ONE_ROW:
            return "a patient has one row here"
        if self.shape is Shape.FEW_ROWS:
            return f"a patient has at most {self.rows} rows here, by the question itself"
        if self.shape is Shape.ROW_RANK:
            return f"at most {self.rows} rows of a patient count, chosen at random"
        if self.shape is Shape.UNBOUNDED:
            return "nothing is bounded: testing only"
        if self.caps:
            return (f"all rows count; those of a patient with more than {self.rows}, or "
                    f"{' or '.join(cap.words(self.rows) for cap in self.caps)}, are scaled down "
                    "together")
        if self.shape is Shape.NORM_SCALE:
            return (f"all rows count; those of a patient with more than {self.rows} are scaled "
                    f"down together to the weight of {self.rows}")
        if self.shifts:
            return ("a patient's rows are added up first; a larger total is scaled down to the "
                    "clip of its group, and a group's noise is that of its clip")
        if self.shape is Shape.UNIT_TOTAL:
            return ("a patient's rows are added up first, over all groups; a larger total is "
                    "scaled down to the clip")
        if self.shape is Shape.RACE:
            return (f"a patient's rows are added up first, over all groups, and scaled down to "
                    f"each of {self.rows} totals, from the widest by halves; the noise is that of "
                    "the widest, and halves with them")
        cut = ", chosen at random" if self.limit_groups else ""
        return (f"a patient's rows are added up first; at most {self.groups} groups{cut}, "
                f"each clipped to what {self.rows} rows can give")


@dataclass(frozen=True, slots=True)
class BoundedMeasure:
    """A measure with the strategy that bounds it, and why the others were not taken."""

    measure: Measure
    strategy: Strategy
    rejected: tuple[tuple[Shape, str], ...] = ()

    @property
    def is_race(self) -> bool:
        """Whether it is answered under many truncations at once (race.py)."""
        return self.strategy.shape is Shape.RACE


@dataclass(frozen=True, slots=True)
class BoundedRelease:
    """A release whose every measure is bounded. `keys` None: chosen privately.

    `selection` is then the bounded count of units that decides which keys are shown. With
    `finer`, keys that hold the release's own, patients' parts are scaled group by group of those
    and then added up: every level of a batch so adds up exactly (planner/families.py).

    Guarantee: with `finer` all strategies are NORM_SCALE, whose L1 bound over the finer groups is
    one over any sums of them, and whose L2 bound is that L1 bound.
    """

    release: Release
    keys: tuple[Key, ...] | None
    measures: tuple[BoundedMeasure, ...]
    selection: BoundedMeasure | None
    finer: tuple[Expression, ...] = ()

    def __post_init__(self) -> None:
        scaled = all(m.strategy.shape is Shape.NORM_SCALE for m in self.measures)
        if self.finer and not (scaled and set(self.release.keys) < set(self.finer)):
            raise ValueError("only parts that are scaled by norm add up over finer groups")


def bound(release: Release, rows: int | None, unbounded: bool = False) -> BoundedRelease:
    """Choose a bounding strategy for each measure.

    Guarantee: every measure gets a strategy whose sensitivity holds for the SQL it prints
    (bounded_sql.py). The choice reads the question, the policy and public tables only.
    Raises Refused where rows is not a whole number in range.
    """
    relation = release.input
    check_size(relation)
    keys = public_keys(release.keys, relation)
    additive = tuple(
        m for m in release.measures if m.aggregate in ADDITIVE
    )
    # Counts and sums of one release share one strategy, worked out once.
    shared = None if unbounded or not additive else _choose(
        additive[0], release, keys, rows, additive
    )

    def bounded(measure: Measure) -> BoundedMeasure:
        if unbounded:
            return BoundedMeasure(measure, _unbounded(relation))
        is_additive = measure.aggregate in ADDITIVE
        chosen = shared if is_additive and shared is not None else _choose(
            measure, release, keys, rows, additive
        )
        return BoundedMeasure(measure, chosen, _rejected(measure, release, chosen))

    measures = tuple(map(bounded, release.measures))
    selection = bounded(Measure(Aggregate.UNITS, None, ())) if keys is None else None
    return BoundedRelease(release, keys, measures, selection)


def by_total(release: Release, shifts: tuple[tuple[Key, int], ...] = ()) -> Strategy:
    """Return the strategy that limits what all of a patient's rows add up to.

    Whatever its rows and groups, a patient counts as much of a sum as one value of the measure's
    domain. For the same noise no limit on rows and values keeps more of a sum of one sign.
    `shifts` gives groups limits of their own, in powers of two of the narrowest.
    """
    return Strategy(Shape.UNIT_TOTAL, release.input, 1, 1, shifts=shifts)


def is_in_one_group(release: Release) -> bool:
    """Return whether the keys put all rows of a patient into one group."""
    return bool(release.keys) and all(map(is_per_unit, release.keys))


def bound_one_row(release: Release, keys: tuple[Key, ...] | None) -> BoundedRelease:
    """Bound the measures of a release in which a patient has one row at most.

    Guarantee: the caller knows that: rows are added up within a patient and keys on which the
    patient's rows agree (`is_in_one_group`).
    """
    strategy = Strategy(Shape.ONE_ROW, release.input, 1, 1)
    measures = tuple(BoundedMeasure(m, strategy) for m in release.measures)
    return BoundedRelease(release, keys, measures, None)


def by_race(release: Release, truncations: int) -> Strategy:
    """Return the strategy that limits a patient's total in so many ways at once."""
    return Strategy(Shape.RACE, release.input, truncations, 1)


def bound_averages(
    bounded: BoundedRelease, release: Release, rows: int, caps: tuple[Cap, ...]
) -> BoundedRelease:
    """Return a release whose averages weigh a patient's rows as `rows` and the caps allow.

    `release` is that of `bounded` with other centers; what is no count and no sum is kept.

    Guarantee: as `bound`. All counts and sums share the one strategy whose sensitivity is stated,
    so that a patient's sum and count are scaled alike.
    """
    additive = tuple(m for m in release.measures if m.aggregate in ADDITIVE)
    allowed = check_rows(rows, release.input)
    strategy = Strategy(Shape.NORM_SCALE, release.input, allowed, allowed,
                        weigh=weighed(additive), caps=caps)
    measures = tuple(
        BoundedMeasure(measure, strategy, _rejected(measure, release, strategy))
        if measure.aggregate in ADDITIVE else before
        for before, measure in zip(bounded.measures, release.measures, strict=True)
    )
    return BoundedRelease(release, bounded.keys, measures, bounded.selection)


def _unbounded(relation: Relation) -> Strategy:
    return Strategy(Shape.UNBOUNDED, without_cuts(relation), 0, 0)


def check_size(relation: Relation) -> None:
    """Refuse joins that could make so many rows of one patient that he alone exhausts them.

    Whether and when a question fails would otherwise tell of the patient with the most rows.
    """
    for node in walk_relations(relation):
        if isinstance(node, Join) and rows_at_worst(node) > ROWS_AT_WORST:
            raise Refused("too-large", f"this join could make {rows_at_worst(node):,} rows of one "
                          f"patient; the limit is {ROWS_AT_WORST:,}",
                          "join along the declared keys, or GROUP BY the patient first")


def check_rows(rows: int | None, relation: Relation) -> int:
    """Return how many rows of a unit may count: the caller's number, or the tables' default."""
    scans = row_scans(relation)
    # Where each table has one row a patient, any number of rows is as good as one.
    ceiling = max((s.max_rows for s in scans if not s.one_row), default=ROWS_AT_WORST)
    if rows is None:
        several = [s.rows_per_unit for s in scans if not s.one_row]
        # One row a patient, multiplied by a public table: then the table's number says nothing.
        default = max(several, default=1 if rows_max(relation) == 1 else ROWS_DEFAULT)
        return min(default, ceiling)
    if isinstance(rows, bool) or not isinstance(rows, int) or not 1 <= rows <= ceiling:
        raise Refused("rows", f"rows must be a whole number from 1 to {ceiling}, got {rows!r}",
                      f"rows={min(20, ceiling)}")
    return rows


def _choose(
    measure: Measure, release: Release, keys: tuple[Key, ...] | None, rows: int | None,
    additive: tuple[Measure, ...],
) -> Strategy:
    """Take the valid strategy with the least noise, and among equals the cheapest to run.

    Counts and sums of one release are bounded alike: people divide them by each other, and a
    quotient of differently cut numbers would be wrong for patients with many rows.
    """
    relation = release.input
    allowed = check_rows(rows, relation)
    if rows is None and measure.aggregate in (Aggregate.TREE, Aggregate.HISTOGRAM):
        allowed = min(allowed, QUANTILE_ROWS)
    most = rows_max(relation)
    groups = _groups_touched(release, keys)
    if most == 1:
        return Strategy(Shape.ONE_ROW, relation, 1, 1)
    if most is not None and most <= allowed:
        return Strategy(Shape.FEW_ROWS, relation, most, min(most, groups or most))
    if measure.aggregate is Aggregate.UNITS and groups is not None and groups <= allowed:
        # Counting each patient once per group needs no row to be dropped.
        return Strategy(Shape.UNIT_CLIP, relation, 1, groups)
    # A limit by rank also counts rows that the question does not ask for: with conditions on
    # rows it would throw away most of what it should keep, so a patient's rows are added up.
    is_additive = measure.aggregate in ADDITIVE
    together = additive if is_additive else (measure,)
    driver = None if _has_row_conditions(together, relation) else driver_of(relation)
    if driver is not None:
        return _by_rank(relation, driver, allowed, most, groups)
    if measure.aggregate is Aggregate.UNITS:
        return Strategy(Shape.UNIT_CLIP, relation, 1, allowed, limit_groups=True)
    if measure.aggregate in LIMITED:
        return Strategy(Shape.UNIT_CLIP, relation, allowed, allowed)
    if len(additive) > 1 or groups != 1:
        return Strategy(Shape.NORM_SCALE, relation, allowed, allowed, weigh=weighed(additive))
    return Strategy(Shape.UNIT_CLIP, relation, allowed, 1)


def weighed(additive: tuple[Measure, ...]) -> tuple[tuple[Expression, ...], ...]:
    """Return the conditions under which some measure of the release counts a row."""
    found = []
    for measure in additive:
        conditions = measure.conditions
        if measure.aggregate is Aggregate.SUM and measure.argument is not None and (
            measure.argument.domain.nullable
        ):
            conditions = (*conditions, make("not", make("is_null", measure.argument)))
        found.append(conditions)
    # A row that counts without a condition makes every other condition superfluous.
    return () if () in found else tuple(dict.fromkeys(found))


def _rejected(
    measure: Measure, release: Release, chosen: Strategy
) -> tuple[tuple[Shape, str], ...]:
    """Say of each other strategy why it was not taken: from public facts, like the choice."""
    relation = release.input
    most = rows_max(relation)
    many = "no bound on the rows of a patient" if most is None else f"up to {most:,} rows"
    reasons = {
        Shape.ONE_ROW: f"a patient can have {many} here",
        Shape.FEW_ROWS: f"a patient can have {many} here",
        Shape.ROW_RANK: "conditions pick among a patient's rows; a random sample would miss them",
        Shape.UNIT_CLIP: "the same noise, and grouping by patient takes longer to run",
        Shape.NORM_SCALE: "the same noise, and grouping by patient takes longer to run",
    }
    if driver_of(relation) is None:
        reasons[Shape.ROW_RANK] = "the join multiplies rows without a bound by one table's rows"
    if chosen.shape in (Shape.ONE_ROW, Shape.FEW_ROWS):
        reasons = dict.fromkeys(reasons, "nothing needs to be cut: the bound holds by itself")
    elif measure.aggregate is Aggregate.UNITS:
        reasons[Shape.NORM_SCALE] = "a patient counts once in a group, whole or not at all"
        reasons[Shape.ROW_RANK] = "counting each patient once per group drops no row"
    elif measure.aggregate in LIMITED:
        reasons[Shape.NORM_SCALE] = "distinct values and quantiles have no parts to scale"
    elif chosen.shape is Shape.NORM_SCALE:
        reasons[Shape.UNIT_CLIP] = "clipping sum and count, or group by group, would bias them"
    elif chosen.shape is Shape.UNIT_CLIP:
        reasons[Shape.NORM_SCALE] = "a sum of one group keeps more when only its total is clipped"
    return tuple((shape, why) for shape, why in reasons.items() if shape is not chosen.shape)


def _has_row_conditions(measures: tuple[Measure, ...], relation: Relation) -> bool:
    """Return whether conditions tell one row of a patient from another, for all measures."""

    def picks(condition: Expression) -> bool:
        return not is_per_unit(condition) and not _only_drops_null(condition)

    return any(map(picks, facts_of(relation))) or all(
        any(map(picks, measure.conditions)) for measure in measures
    )


def _only_drops_null(condition: Expression) -> bool:
    inner = condition.arguments[0] if isinstance(condition, Call) else None
    return (
        isinstance(condition, Call) and condition.function == "not"
        and isinstance(inner, Call) and inner.function == "is_null"
    )


def _by_rank(
    relation: Relation, driver: Driver, allowed: int, most: int | None, groups: int | None
) -> Strategy:
    total = allowed * driver.factor
    if most is not None:
        total = min(total, most)
    touched = total if groups is None else min(groups, total)
    return Strategy(Shape.ROW_RANK, limited(relation, driver, allowed), total, touched)


def _groups_touched(release: Release, keys: tuple[Key, ...] | None) -> int | None:
    """Return in how many groups one unit can be at most, by the keys alone, or None.

    Guarantee: a key on which a unit's rows agree puts it in one group; any other key in as many
    as it has public values, because groups outside the public key set are never answered.
    Where keys are selected privately nothing holds them to a list, so only the first is used.
    """
    groups = 1
    for key in release.keys:
        if is_per_unit(key):
            continue
        values = key_count(key, release.input) if keys is not None else None
        if values is None:
            return None
        groups *= max(values, 1)
    return groups
