"""The bounded releases of several questions in, families of columns that share their rows out.

A family is one measure over one set of bounded rows, asked by several sets of keys. Its answers are
marginals of one table of numbers, so one can be had from another, or better from several together
(mechanisms/marginals.py). What fits no family is answered by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product

from mechanisms.marginals import Marginal
from planner.bind import Bound
from planner.bounding import (
    ADDITIVE,
    BoundedMeasure,
    BoundedRelease,
    Shape,
    Strategy,
    bound,
    check_rows,
    weighed,
)
from planner.canonical import Numbering, expression_text, measure_text, numbering_of, relation_text
from planner.collector import count_of
from planner.expression import Expression, columns_of, is_per_unit, replaced
from planner.narrowing import Key, public_keys
from planner.relation import Aggregate, Given, Measure, Relation, Release, Summary, walk_relations

ATTRIBUTES_MAX = 6
# Which rows of a patient count does not depend on the keys.
BY_ROWS = frozenset({Shape.ONE_ROW, Shape.FEW_ROWS, Shape.ROW_RANK})
SCALED = frozenset({Shape.UNIT_CLIP, Shape.NORM_SCALE})
BY_ROWS_KIND = "rows"

Entry = tuple["Member", Measure, tuple[Measure, ...], "_Keys", str]


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of several: bound, and its releases with their contributions bounded."""

    sql: str
    bound: Bound
    bounded: tuple[BoundedRelease, ...]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A column that a question asks for: which question, release and measure."""

    question: int
    release: int
    measure: int


@dataclass(frozen=True, slots=True)
class Rows:
    """The relation that all families over the same rows are read from: that of the first asked."""

    source: int
    relation: Relation
    numbering: Numbering


@dataclass(slots=True)
class _Keys:
    """What anybody groups the same rows by: filled while questions are gathered."""

    rows: Rows
    attributes: dict[str, Expression] = field(default_factory=dict)
    values: dict[str, tuple[Key, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Member:
    """One column of a family: where it is asked, and the places of its keys' attributes.

    `also` are the totals that a ROLLUP or GROUPING SETS takes of it.
    """

    place: Place
    axes: tuple[int, ...]
    also: tuple[Marginal, ...] = ()

    @property
    def marginal(self) -> Marginal:
        return frozenset(self.axes)


@dataclass(frozen=True, slots=True)
class Family:
    """One measure over one set of bounded rows, by several sets of keys.

    `measures` are those of a release that asked for it, in the words of `rows`, and `measure` is
    the family's place among them: they are bounded together. Attributes are numbered alike in all
    families over the same rows.

    Guarantee: the exact numbers of a level are the sums of those of any finer level, on every
    database. Where rows of a patient are left out, the same ones are for all keys. Where a
    patient's parts are scaled, they are for the `finest` groups of the family, and every level
    adds up those.
    """

    rows: Rows
    attributes: tuple[Expression, ...]
    sizes: tuple[int, ...]
    values: tuple[tuple[Key, ...], ...]  # of each attribute, as keys of one column
    measures: tuple[Measure, ...]
    measure: int
    kind: str
    members: tuple[Member, ...]

    @property
    def finest(self) -> Marginal:
        """The groups whose parts are scaled; none where rows are left out in place of that."""
        if self.kind.startswith(BY_ROWS_KIND):
            return frozenset()
        return frozenset[int]().union(*self.wanted)

    def finer_keys(self, marginal: Marginal) -> tuple[Expression, ...]:
        """Return the keys of the finest groups, where a level adds up those."""
        return self._keys(self.finest) if self.finest > marginal else ()

    def _keys(self, marginal: Marginal) -> tuple[Expression, ...]:
        return tuple(self.attributes[i] for i in sorted(marginal))

    def keys_of(self, marginal: Marginal) -> tuple[Key, ...]:
        """List the cells of a marginal, the first attribute slowest."""
        return cells([self.values[i] for i in sorted(marginal)])

    def level(self, marginal: Marginal, allowed: int | None) -> BoundedMeasure | None:
        """Bound the measure as a release by these keys; None where that counts other rows."""
        if self.finest:
            return self._scaled(allowed)
        release = Release(self.rows.source, self.rows.relation, self._keys(marginal),
                          self.measures)
        bounded = bound(release, allowed)
        if bounded.keys != self.keys_of(marginal):
            return None
        found = bounded.measures[self.measure]
        return found if _kind(found, release) == self.kind else None

    def _scaled(self, allowed: int | None) -> BoundedMeasure:
        """Bound the measure by scaling all parts of a patient, whatever the level."""
        relation = self.rows.relation
        rows = check_rows(allowed, relation)
        additive = tuple(m for m in self.measures if m.aggregate in ADDITIVE)
        strategy = Strategy(Shape.NORM_SCALE, relation, rows, rows, weigh=weighed(additive))
        return BoundedMeasure(self.measures[self.measure], strategy)

    @property
    def wanted(self) -> frozenset[Marginal]:
        """The sets of attributes that anybody asks for, totals of a ROLLUP among them."""
        return frozenset(m for member in self.members for m in (member.marginal, *member.also))


def cells(values: list[tuple[Key, ...]]) -> tuple[Key, ...]:
    """Return every combination of values, as one key each."""
    return tuple(sum(parts, ()) for parts in product(*values))


def families_of(asked: tuple[Asked, ...], allowed: int | None) -> tuple[Family, ...]:
    """Gather the columns of all questions into families that several sets of keys share.

    Guarantee: depends on texts, policy and public tables only. Members of a family have, on every
    database, exact numbers that are marginals of the same table: the relation, the rows of a
    patient that count, the measure and its bounds agree by canonical text (canonical.py), and the
    keys' public values are full products of the attributes' own.
    """
    keys: dict[str, _Keys] = {}
    found: dict[str, list[Entry]] = {}
    for question, one in enumerate(asked):
        if one.bound.givens:
            continue  # what uses an answer of its own is answered by itself
        for place, bounded in enumerate(one.bounded):
            for name, entry in _candidates(one, Place(question, place, 0), bounded, keys):
                found.setdefault(name, []).append(entry)
    families = []
    for entries in found.values():
        _, measure, measures, shared, kind = entries[0]
        family = _family(shared, tuple(entry[0] for entry in entries), measures,
                         measures.index(measure), kind)
        if family is not None and all(family.level(m, allowed) for m in family.wanted):
            families.append(family)
    return tuple(families)


def _candidates(
    one: Asked, at: Place, bounded: BoundedRelease, keys: dict[str, _Keys]
) -> Iterator[tuple[str, Entry]]:
    """Yield the name of the family that each fitting column of a release belongs to."""
    release = bounded.release
    if bounded.keys is None or any(isinstance(n, Given) for n in walk_relations(release.input)):
        return
    own = numbering_of(release.input)
    text = relation_text(release.input, own)
    shared = keys.setdefault(text, _Keys(Rows(release.source, release.input, own)))
    axes = _axes(bounded, own, shared)
    if axes is None:
        return
    measures = tuple(_moved(measure, own, shared.rows) for measure in release.measures)
    also = _totals(one.bound, release, axes)
    for i, (entry, measure) in enumerate(zip(bounded.measures, measures, strict=True)):
        kind = _kind(entry, release)
        if kind is None:
            continue
        name = f"{text}|{kind}|{measure_text(measure, shared.rows.numbering)}"
        member = Member(replace(at, measure=i), axes, also)
        yield name, (member, measure, measures, shared, kind)


def _axes(bounded: BoundedRelease, own: Numbering, shared: _Keys) -> tuple[int, ...] | None:
    """Return which attributes the keys are, or None where their values are no full product."""
    release, found = bounded.release, []
    for key in release.keys:
        name = expression_text(key, own)
        if name not in shared.attributes:
            values = public_keys((key,), release.input)
            if values is None:
                return None
            shared.attributes[name] = _renamed(key, own, shared.rows)
            shared.values[name] = values
        found.append(name)
    if len(set(found)) < len(found) or bounded.keys != cells([shared.values[n] for n in found]):
        return None
    names = list(shared.attributes)
    return tuple(names.index(name) for name in found)


def _totals(bound_: Bound, release: Release, axes: tuple[int, ...]) -> tuple[Marginal, ...]:
    """Return the sets of attributes that totals above a release are taken by."""
    return tuple(
        frozenset(axes[i] for i in chosen)
        for node in walk_relations(bound_.rows.relation)
        if isinstance(node, Summary) and node.input == release for chosen in node.sets
    )


def _kind(entry: BoundedMeasure, release: Release) -> str | None:
    """Name what decides which rows count and how; None for what adds up over no keys."""
    strategy, aggregate = entry.strategy, entry.measure.aggregate
    if aggregate is Aggregate.UNITS:
        once = all(map(is_per_unit, release.keys)) and _counts_once(entry)
        return f"{BY_ROWS_KIND}|patients" if once else None
    if aggregate not in ADDITIVE:
        return None
    if strategy.shape in BY_ROWS:
        own = numbering_of(strategy.relation)
        return f"{BY_ROWS_KIND}|{strategy.rows}|{relation_text(strategy.relation, own)}"
    if strategy.shape in SCALED and not strategy.limit_groups:
        own = numbering_of(release.input)
        additive = tuple(m for m in release.measures if m.aggregate in ADDITIVE)
        texts = sorted(sorted(expression_text(c, own) for c in conditions)
                       for conditions in weighed(additive))
        return f"scaled|{strategy.rows}|{texts}"
    return None


def _counts_once(entry: BoundedMeasure) -> bool:
    """Return whether a patient counts once and in one group, with none of them left out."""
    strategy = entry.strategy
    return not strategy.limit_groups and (
        strategy.shape is Shape.ONE_ROW
        or (strategy.shape in (Shape.UNIT_CLIP, Shape.FEW_ROWS) and strategy.groups == 1)
    )


def _moved(measure: Measure, own: Numbering, shared: Rows) -> Measure:
    """Return a measure in the words of the shared relation."""
    argument = None if measure.argument is None else _renamed(measure.argument, own, shared)
    conditions = tuple(_renamed(c, own, shared) for c in measure.conditions)
    return replace(measure, argument=argument, conditions=conditions)


def _renamed(expression: Expression, own: Numbering, shared: Rows) -> Expression:
    """Return an expression with the numbers of the shared relation's tables.

    Guarantee: relations of one canonical text are the same up to numbers, table by table in the
    order of their numbering, so the expression has the same value on every row.
    """
    back = {place: source for source, place in shared.numbering.items()}
    moved: dict[Expression, Expression] = {
        column: replace(column, source=back[own[column.source]])
        for column in columns_of(expression)
        if back[own[column.source]] != column.source
    }
    return replaced(expression, moved)


def _family(
    keys: _Keys, members: tuple[Member, ...], measures: tuple[Measure, ...], measure: int,
    kind: str,
) -> Family | None:
    """Return the family of these columns, or None where a single set of keys is asked for.

    That one is answered as it is.
    """
    used = {axis for member in members for axis in member.axes}
    values = tuple(keys.values.values())
    family = Family(
        keys.rows, tuple(keys.attributes.values()), tuple(map(len, values)), values, measures,
        measure, kind, members,
    )
    fits = 0 < len(used) <= ATTRIBUTES_MAX and all(family.sizes[axis] for axis in used)
    return family if fits and len(family.wanted) > 1 else None


def center_parts(family: Family, others: tuple[Family, ...]) -> tuple[Family, Family] | None:
    """Return the families of (x - center) and of the rows that a sum of x is made of, if asked.

    An average asks for both: then the plain sum is free, and has less noise than by itself, since
    x - center is at most half as large. Scaled parts of a count are whole numbers, those of a sum
    are not: there the two would not be the sum exactly, and it is measured.
    """
    own = family.measures[family.measure]
    if family.finest:
        return None
    if own.aggregate is not Aggregate.SUM or own.center or own.argument is None:
        return None
    count = count_of(own.argument, own.conditions)
    centred = rows = None
    for other in others:
        if other.rows is not family.rows or other.kind != family.kind:
            continue
        measure = other.measures[other.measure]
        if measure == count:
            rows = other
        elif measure.center and replace(measure, center=0.0) == own:
            centred = other
    return None if centred is None or rows is None else (centred, rows)


