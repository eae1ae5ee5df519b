"""Several questions in, one plan of noise for all of them out: what to measure, and how exactly.

A question by itself measures what it asks for. Several questions share: a total is the sum of its
parts, so few levels of each family (families.py) are measured, at shares of the epsilon that make
the predicted error of all answers together least, and every answer is their least-squares
combination (mechanisms/marginals.py): totals and parts agree. What fits no family is measured by
itself, with its own share.

Everything here is arithmetic on public facts; combining released numbers is post-processing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import floor, sqrt

from mechanisms.combined import CombinedNoise, added
from mechanisms.marginals import (
    Marginal,
    Strategy,
    allocate,
    candidates,
    coefficients,
    ordered,
)
from planner.bounding import BoundedMeasure, BoundedRelease
from planner.canonical import key_of
from planner.expression import Call, Column, Expression, columns_of
from planner.families import Asked, Family, Place, center_parts, families_of
from planner.price import (
    Derived,
    Mechanism,
    NoisePlan,
    Priced,
    PricedRelease,
    Terms,
    answer_keys,
    gaussian_terms,
    is_constant,
    largest_of,
    multiplier,
    numbers_of,
    priced_by_shares,
)
from planner.refusal import Refused
from planner.relation import Release

CELLS_MAX = 50_000  # cells of a level that nobody asked for
CELLS_TOTAL = 20_000_000  # noisy numbers of all questions together
PARTS = 2**16  # shares are whole numbers of these


@dataclass(frozen=True, slots=True)
class Levels:
    """A family and the columns that are measured for it, by their keys."""

    family: Family
    columns: Mapping[Marginal, str]

    def noise(self, wanted: Marginal, noises: Mapping[str, CombinedNoise]) -> CombinedNoise:
        """Return the noise of one wanted cell, from that of a cell of each column."""
        variances = {m: noises[key].deviation() ** 2 for m, key in self.columns.items()}
        return added(
            noises[self.columns[c.marginal]].times(c.factor, c.count)
            for c in coefficients(wanted, self.family.sizes, variances)
        )


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one asked column is answered: a sum of (levels, factor) by the same keys.

    `key` names the answer as if the column were asked by itself.
    """

    parts: tuple[tuple[int, float], ...]
    axes: tuple[int, ...]
    key: str

    @property
    def marginal(self) -> Marginal:
        return frozenset(self.axes)


@dataclass(frozen=True, slots=True)
class Workload:
    """Several questions under one plan.

    The plan's releases are first those that families measure, then what each question measures by
    itself; `sections` says which are whose, the families' first.
    """

    asked: tuple[Asked, ...]
    plan: NoisePlan
    sections: tuple[tuple[int, int], ...]
    levels: tuple[Levels, ...]
    recipes: Mapping[Place, Recipe]
    shares: Mapping[str, Fraction]

    @property
    def text(self) -> str:
        """All questions in one text, as the ledger keeps it."""
        return ";\n".join(one.sql for one in self.asked)

    def section(self, number: int) -> NoisePlan:
        """Return the plan with one section's releases only: 0 is the families'."""
        start, stop = self.sections[number]
        return replace(self.plan, releases=self.plan.releases[start:stop])


def plan_workload(
    asked: tuple[Asked, ...], epsilon: Fraction, delta: Fraction, order: Fraction,
    rows: int | None,
) -> Workload:
    """Choose what to measure for several questions, and share one epsilon and delta among it.

    Laplace and Gaussian noise are both worked out, and the one with the less predicted error is
    taken: the sum over all asked columns of the variance, relative to what the column would have
    with everything. Depends on public facts only.

    Guarantee: the plan measures each column once and costs at most (epsilon, delta); see
    `priced_by_shares`. Raises Refused where delta is needed and is zero.
    """
    families = families_of(asked, rows)
    joint = _Joint.of(families)
    covered = {m.place for family in families for m in family.members}
    alone = tuple(_alone(one, question, covered) for question, one in enumerate(asked))
    budget = _budget([r for releases in alone for r in releases], epsilon, delta)
    kinds = [budget]
    if budget.delta > 0:
        wanted = [m for one in asked for r in one.bounded for m in r.measures]
        smooth = gaussian_terms(wanted, replace(budget, columns=max(len(wanted), 1)))
        kinds.append(replace(smooth, columns=1))
    best = min((_tried(joint, alone, kind, rows) for kind in kinds), key=lambda t: t.error)
    releases = (*best.measured, *(r for own in alone for r in own))
    if (numbers := sum(map(numbers_of, releases))) > CELLS_TOTAL:
        raise Refused("too-large", f"these questions have {numbers:,} noisy numbers together; the "
                      f"limit is {CELLS_TOTAL:,}", "fewer questions at once")
    terms = replace(best.terms, columns=max(len(best.shares), 1))
    plan = priced_by_shares(releases, best.shares, terms, order)
    ends = [len(best.measured)]
    for own in alone:
        ends.append(ends[-1] + len(own))
    sections = ((0, ends[0]), *pairwise(ends))
    return Workload(asked, plan, sections, best.levels, _recipes(asked, joint), best.shares)


def _alone(
    one: Asked, question: int, covered: set[Place]
) -> tuple[BoundedRelease, ...]:
    """Return a question's releases with only those measures that no family answers."""
    found = []
    for place, bounded in enumerate(one.bounded):
        left = [i for i in range(len(bounded.measures))
                if Place(question, place, i) not in covered]
        if not left and bounded.selection is None and bounded.measures:
            continue
        measures = tuple(bounded.measures[i] for i in left)
        release = bounded.release
        if len(left) < len(bounded.measures):
            release = replace(release, measures=tuple(release.measures[i] for i in left),
                              quantiles=(), derived=(), centred=())
        found.append(replace(bounded, release=release, measures=measures))
    return tuple(found)


def _budget(alone: list[BoundedRelease], epsilon: Fraction, delta: Fraction) -> Terms:
    """Return the terms of a column that gets everything; selections take half of delta."""
    selections = sum(r.selection is not None for r in alone)
    tail = delta / (2 * selections) if selections else Fraction(0)
    return Terms(epsilon, 1, delta / 2 if selections else delta, tail)


# ---- what to measure ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Joint:
    """The families that are measured, how much each of their levels is wanted, and sums of two.

    `sums` gives, for a family that is not measured, the two whose sum it is, with their factors.
    """

    families: tuple[Family, ...]
    weights: tuple[Mapping[Marginal, float], ...]
    members: tuple[tuple[Family, tuple[tuple[int, float], ...]], ...]

    @classmethod
    def of(cls, families: tuple[Family, ...]) -> _Joint:
        parts = {i: center_parts(family, families) for i, family in enumerate(families)}
        measured = [i for i in range(len(families)) if parts[i] is None]
        place = {id(families[i]): n for n, i in enumerate(measured)}
        weights = [dict.fromkeys(ordered(set(families[i].wanted)), 1.0) for i in measured]
        members: list[tuple[Family, tuple[tuple[int, float], ...]]] = []
        for i, family in enumerate(families):
            found = parts[i]
            if found is None:
                members.append((family, ((place[id(family)], 1.0),)))
                continue
            center = found[0].measures[found[0].measure].center
            factors = ((place[id(found[0])], 1.0), (place[id(found[1])], center))
            members.append((family, factors))
            whole = _magnitude(family)
            for (number, factor), part in zip(factors, found, strict=True):
                share = (factor * _magnitude(part) / whole) ** 2 if whole else 0.0
                for m in ordered(set(family.wanted)):
                    weights[number][m] = weights[number].get(m, 0.0) + share
        return cls(tuple(families[i] for i in measured), tuple(weights), tuple(members))


def _magnitude(family: Family) -> float:
    """Return how far one row moves the family's measure."""
    return largest_of(family.measures[family.measure])


@dataclass(frozen=True, slots=True)
class _Tried:
    """What would be measured under one mechanism, with the predicted error."""

    terms: Terms
    measured: tuple[BoundedRelease, ...]
    levels: tuple[Levels, ...]
    shares: Mapping[str, Fraction]
    error: float


def _tried(
    joint: _Joint, alone: tuple[tuple[BoundedRelease, ...], ...], budget: Terms, rows: int | None
) -> _Tried:
    """Share the budget among families and single columns so that the summed error is least.

    A block whose error is c at share 1 has c/s^2 (Laplace) or c/s (Gaussian) at share s: the sum
    is least for shares in proportion to the third or the second root of c.
    """
    squared = budget.mechanism is Mechanism.LAPLACE
    power = 3 if squared else 2
    chosen = [_strategy(f, w, rows, squared) for f, w in
              zip(joint.families, joint.weights, strict=True)]
    measured, levels = _releases(joint.families, chosen)
    weights: dict[str, float] = {}
    total = 0.0
    for own, (strategy, level) in zip(levels, chosen, strict=True):
        sample = next(iter(level.values()))
        if is_constant(sample):
            continue
        block = (strategy.cost * _ratio(sample, budget)) ** (1 / power)
        total += block
        for m in ordered(strategy.shares):
            weights[own.columns[m]] = block * strategy.shares[m]
    for release in (r for own in alone for r in own):
        names = answer_keys(release)
        columns = [*release.measures, *([release.selection] if release.selection else [])]
        for name, column in zip(names, columns, strict=False):
            if name not in weights and not is_constant(column):
                weights[name] = _ratio(column, budget) ** (1 / power)
                total += weights[name]
    return _Tried(budget, measured, levels, _shares(weights), total**power)


def _ratio(column: BoundedMeasure, budget: Terms) -> float:
    """Return a column's variance with everything, relative to that of Laplace noise."""
    if budget.mechanism is Mechanism.LAPLACE:
        return 1.0
    l1, l2_squared = column.strategy.sensitivity(column.measure, 1)
    return multiplier(budget) ** 2 * l2_squared / (2 * l1**2) * float(budget.epsilon) ** 2


def _shares(weights: Mapping[str, float]) -> dict[str, Fraction]:
    """Turn weights into fractions that add up to one exactly, none of them zero."""
    if not weights:
        return {}
    parts, total = max(PARTS, 16 * len(weights)), sum(weights.values())
    found = {name: max(1, floor(parts * weight / total)) for name, weight in weights.items()}
    largest = max(found, key=lambda name: (found[name], name))
    found[largest] += parts - sum(found.values())
    return {name: Fraction(count, parts) for name, count in found.items()}


Chosen = tuple[Strategy, Mapping[Marginal, BoundedMeasure]]


def _strategy(
    family: Family, weights: Mapping[Marginal, float], rows: int | None, squared: bool
) -> Chosen:
    """Choose the levels of a family and their shares, with the measure bounded at each."""
    among = candidates(set(weights), family.sizes, CELLS_MAX)
    while True:
        strategy = allocate(weights, family.sizes, among, squared=squared)
        levels = {m: family.level(m, rows) for m in ordered(strategy.shares)}
        bad = [m for m, level in levels.items() if level is None]
        if not bad:
            return strategy, {m: level for m, level in levels.items() if level is not None}
        among = [m for m in among if m not in bad]


def _releases(
    families: tuple[Family, ...], chosen: list[Chosen]
) -> tuple[tuple[BoundedRelease, ...], tuple[Levels, ...]]:
    """Put the columns of all families that share rows and keys into one release each."""
    together: dict[tuple[object, ...], list[tuple[int, Marginal]]] = {}
    for number, (family, (_, level)) in enumerate(zip(families, chosen, strict=True)):
        for m in level:
            place = (id(family.rows), m, family.finer_keys(m))
            together.setdefault(place, []).append((number, m))
    columns: list[dict[Marginal, str]] = [{} for _ in families]
    releases = []
    for entries in together.values():
        first, marginal = entries[0]
        family = families[first]
        measures = tuple(chosen[number][1][m] for number, m in entries)
        keys = tuple(family.attributes[i] for i in sorted(marginal))
        finer = family.finer_keys(marginal)
        release = Release(family.rows.source, family.rows.relation, keys,
                          tuple(m.measure for m in measures))
        releases.append(BoundedRelease(release, family.keys_of(marginal), measures, None,
                                       finer))
        for (number, m), name in zip(entries, answer_keys(releases[-1]), strict=True):
            columns[number][m] = name
    return tuple(releases), tuple(map(Levels, families, columns))


# ---- how to answer by it ----------------------------------------------------------------


def _recipes(asked: tuple[Asked, ...], joint: _Joint) -> dict[Place, Recipe]:
    found = {}
    for family, parts in joint.members:
        for member in family.members:
            place = member.place
            names = answer_keys(asked[place.question].bounded[place.release])
            found[place] = Recipe(parts, member.axes, names[place.measure])
    return found


def noise_of(column: Priced) -> CombinedNoise:
    """Return the noise of one cell of a column, in its own units."""
    return noise_at(column.mechanism, column.scale, column.grid.step)


def noise_at(mechanism: Mechanism, scale: float, step: float) -> CombinedNoise:
    """Return the noise of a mechanism, in the units of a grid of that step."""
    if mechanism is Mechanism.EXACT:
        return CombinedNoise()
    if mechanism is Mechanism.LAPLACE:
        return CombinedNoise(((scale * step, 1),), 0.0, step)
    return CombinedNoise((), (scale * step) ** 2, step)


def noise_by(
    recipe: Recipe, levels: tuple[Levels, ...], noises: Mapping[str, CombinedNoise]
) -> CombinedNoise:
    """Return the noise of one cell of a recipe's answer, from that of the measured columns."""
    return added(
        levels[number].noise(recipe.marginal, noises).times(factor)
        for number, factor in recipe.parts
    )


def view_of(workload: Workload, question: int) -> NoisePlan:
    """Return one question's releases as they are answered: with columns put together.

    It is for finishing and describing; nothing is measured by it.
    """
    measured = workload.section(0).releases
    own = {r.bounded.release.source: r for r in workload.section(question + 1).releases}
    noises = {c.key: noise_of(c) for r in measured for c in r.measures}
    one = workload.asked[question]
    releases = []
    for place, bounded in enumerate(one.bounded):
        alone = own.get(bounded.release.source)
        left = iter(alone.measures if alone is not None else ())
        columns: list[Priced] = []
        used: list[PricedRelease] = [] if alone is None else [alone]
        for i, entry in enumerate(bounded.measures):
            recipe = workload.recipes.get(Place(question, place, i))
            if recipe is None:
                columns.append(next(left))
                continue
            parts = _sources(workload, recipe)
            columns.append(_derived(entry, recipe, workload, noises, parts))
            used += [r for r in parts if r not in used]
        statements = tuple(s for r in used for s in r.statements)
        releases.append(PricedRelease(
            bounded, tuple(columns), alone.selection if alone else None,
            alone.threshold if alone else None, tuple(c.grid for c in columns), statements,
        ))
    return replace(workload.plan, releases=tuple(releases))


def _sources(workload: Workload, recipe: Recipe) -> list[PricedRelease]:
    """Return the measured releases that an answer is put together from."""
    names = {name for number, _ in recipe.parts
             for name in workload.levels[number].columns.values()}
    return [r for r in workload.section(0).releases if any(c.key in names for c in r.measures)]


def _derived(
    entry: BoundedMeasure, recipe: Recipe, workload: Workload,
    noises: Mapping[str, CombinedNoise], parts: list[PricedRelease],
) -> Derived:
    names = [name for number, _ in recipe.parts
             for name in workload.levels[number].columns.values()]
    sample = next(c for r in parts for c in r.measures if c.key in names)
    noise = noise_by(recipe, workload.levels, noises)
    scale = noise.deviation() / (sqrt(2) if sample.mechanism is Mechanism.LAPLACE else 1.0)
    l1, l2_squared = entry.strategy.sensitivity(entry.measure, sample.grid.largest)
    key = key_of("put together", recipe.key, *sorted(names))
    origin = ", ".join(dict.fromkeys(level_name(r) for r in parts))
    grid = replace(sample.grid, stored=None)
    return Derived(entry, sample.mechanism, grid, scale / grid.step, l1, l2_squared, key,
                   noise=noise, origin=origin)


def level_name(release: PricedRelease) -> str:
    """Name a measured level by its keys, for people."""
    keys = [words_of(key) for key in release.bounded.release.keys]
    return " x ".join(keys) if keys else "total"


def words_of(key: Expression) -> str:
    """Name a key by the columns it reads."""
    names = ", ".join(dict.fromkeys(column.name for column in columns_of(key)))
    return names if isinstance(key, Column) else f"{key.function}({names})" if (
        isinstance(key, Call)) else "a constant"
