"""Bounded releases and a wanted epsilon in, a mechanism, scale and step for every number out.

Everything here is arithmetic on public facts: the question, the policy, the wanted epsilon and
delta, and the ledger's Renyi order. Nothing reads a row, and nothing reads what is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from math import ceil, floor, isfinite, log2, prod, sqrt
from types import MappingProxyType

from mechanisms import curve, gaussian, laplace, threshold
from mechanisms.combined import NO_NOISE, CombinedNoise
from mechanisms.event import Event, GaussianEvent, LaplaceEvent, PureEvent, ThresholdEvent
from mechanisms.loss import PrivacyLoss
from mechanisms.pricing import loss_of
from mechanisms.quantile_tree import NODES
from planner.adaptive import Adapted, Ends, Histogram, adapt
from planner.averaging import adapt_averages, weights_of
from planner.bounded_sql import SELECTION, WEIGHTS, Statement, statements
from planner.bounding import BoundedMeasure, BoundedRelease, Strategy
from planner.canonical import (
    Numbering,
    expression_text,
    key_of,
    measure_text,
    numbering_of,
    relation_text,
)
from planner.functions.arithmetic import half_away
from planner.grid import GRID_MAX, Grid, stored_grid
from planner.pilot import Pilot, pilot_share
from planner.refusal import Refused
from planner.relation import Aggregate, Measure
from planner.truncation import truncated

# A step is at most the noise scale over 2^20 (DESIGN); one power more leaves room for rounding.
STEP_SHARE = 2.0**21
FINE = 2**40
CELLS_MAX = 20_000_000
NO_PILOTS: Mapping[int, Pilot] = MappingProxyType({})
NO_SHARES: Mapping[str, Fraction] = MappingProxyType({})


class Mechanism(Enum):
    """Which noise a number gets."""

    LAPLACE = "laplace"
    GAUSSIAN = "gaussian"
    EXACT = "none"


@dataclass(frozen=True, slots=True)
class Priced:
    """One noised column: exact integers on a grid plus noise on the same grid.

    `scale` is the Laplace scale or the Gaussian sigma in grid steps; `l1` and `l2_squared` are
    sensitivities in grid steps. `key` names the answer: equal keys are equal questions.
    """

    bounded: BoundedMeasure
    mechanism: Mechanism
    grid: Grid
    scale: float
    l1: int
    l2_squared: int
    key: str
    weight: Fraction = Fraction(1)  # its part of the epsilon, beside 1 for every column

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise in the column's own units."""
        if self.mechanism is Mechanism.EXACT:
            return 0.0
        laplacian = self.mechanism is Mechanism.LAPLACE
        deviation = laplace.deviation if laplacian else gaussian.deviation
        return deviation(self.scale) * self.grid.step

    def half_width(self, confidence: float) -> float:
        """Half-width of the noise's interval in the column's own units."""
        if self.mechanism is Mechanism.EXACT:
            return 0.0
        laplacian = self.mechanism is Mechanism.LAPLACE
        quantile = laplace.quantile if laplacian else gaussian.quantile
        return quantile(self.scale, confidence) * self.grid.step


@dataclass(frozen=True, slots=True)
class Derived(Priced):
    """A column that is put together from noised ones (planner/workload.py); itself it is free.

    `noise` is what it has of theirs, in its own units, and `origin` says from which.
    """

    noise: CombinedNoise = NO_NOISE
    origin: str = ""

    @property
    def deviation(self) -> float:
        return self.noise.deviation()

    def half_width(self, confidence: float) -> float:
        return self.noise.half_width(confidence)


@dataclass(frozen=True, slots=True)
class PricedRelease:
    """One release with its noise. `threshold` decides which selected keys are shown.

    With a `pilot` its bounds are still to be chosen, from the pilot's released answer; after
    that `cut` estimates what the clips take, and `words` say what was chosen (adaptive.py).
    """

    bounded: BoundedRelease
    measures: tuple[Priced, ...]
    selection: Priced | None
    threshold: int | None
    grids: tuple[Grid | None, ...]
    statements: tuple[Statement, ...]
    pilot: Pilot | None = None
    cut: tuple[Ends, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """How one question's epsilon and delta are shared among its noised columns.

    `columns` is how many columns like this one the budget would last for. `curve` tells by which
    of its two bounds Gaussian noise is scaled: the normal curve (mechanisms/curve.py), or rho.
    """

    epsilon: Fraction
    columns: int | Fraction
    delta: Fraction  # for Gaussian noise
    tail: Fraction  # for each partition selection
    mechanism: Mechanism = Mechanism.LAPLACE
    curve: bool = False

    @property
    def share(self) -> Fraction:
        return self.epsilon / self.columns

    def part(self, share: Fraction) -> Terms:
        """Return the terms of a column that gets this share of the whole."""
        return replace(self, columns=1 / share)


NOTHING = Terms(Fraction(0), 1, Fraction(0), Fraction(0), Mechanism.EXACT)


@dataclass(frozen=True, slots=True)
class NoisePlan:
    """What a question costs and how its noise is drawn. `events` are the facts a charge keeps."""

    releases: tuple[PricedRelease, ...]
    events: tuple[Event, ...]
    loss: PrivacyLoss
    order: Fraction
    terms: Terms

    @property
    def tail(self) -> Fraction:
        """The delta of each partition selection."""
        return self.terms.tail

    @property
    def plan_hash(self) -> str:
        """Name exactly what is paid for: the statements and the noise on them."""
        parts = [f"{s.sql}|{s.places}" for r in self.releases for s in r.statements]
        parts += [repr(event) for event in self.events]
        return key_of(*parts)


def price(
    bounded: tuple[BoundedRelease, ...], epsilon: Fraction, delta: Fraction, order: Fraction,
    *, laplace_only: bool = False, pilots: Mapping[int, Pilot] = NO_PILOTS,
) -> NoisePlan:
    """Choose mechanisms and scales for a question's releases and add up the loss.

    The epsilon is shared evenly among noised columns. Laplace and Gaussian noise are both
    worked out; the one with the smaller error over all columns is taken, or Laplace alone. A
    release with a pilot (by its source) leaves a share of the epsilon to it.

    Guarantee: releasing every column with its noise, and the keys whose noisy count of units
    reaches the threshold, costs at most `loss` on either rail; the sum of epsilons never exceeds
    `epsilon`. Raises Refused where delta is needed and is zero.
    """
    if not epsilon > 0:
        raise Refused("epsilon", f"epsilon must be a positive number, got {float(epsilon)!r}",
                      "epsilon=0.1")
    wanted = [
        (r, place, m) for r in bounded for place, m in _columns(r) if not is_constant(m)
    ]
    selections = sum(r.selection is not None for r in bounded)
    if selections and not delta > 0:
        raise Refused("delta", "choosing among unknown keys needs a delta above zero",
                      "declare the column's categories in the policy, or give delta=1e-9")
    tail = delta / (2 * selections) if selections else Fraction(0)
    first = pilot_share(tuple(pilots.values()))
    budget = Terms(epsilon * (1 - first), max(len(wanted), 1),
                   delta / 2 if selections else delta, tail)
    if not laplace_only:
        budget = _better([m for _, _, m in wanted], budget)
    asked_first = _price_pilots(pilots, epsilon * first)
    releases = tuple(
        entry for r in bounded for entry in (
            *asked_first.get(r.release.source, ()),
            _price_piloted(r, budget, pilots.get(r.release.source)),
        )
    )
    return _added_up(releases, budget, order, frozenset())


def priced_by_shares(
    releases: tuple[BoundedRelease, ...], shares: Mapping[str, Fraction], budget: Terms,
    order: Fraction,
) -> NoisePlan:
    """Price releases whose columns get unequal shares, by the keys of `answer_keys`.

    Guarantee: as for `price`. A column with share s costs at most s of the epsilon (Laplace) or
    of the joint Gaussian's squared shift, equal keys are one column, and the shares add up to at
    most 1. Raises ValueError where they do not.
    """
    if not (sum(shares.values()) <= 1 and all(share > 0 for share in shares.values())):
        raise ValueError(f"shares must be above 0 and add up to at most 1, got {shares!r}")
    priced = tuple(_price_release(r, budget, shares=shares) for r in releases)
    return _added_up(priced, budget, order, frozenset())


def is_constant(bounded: BoundedMeasure) -> bool:
    """Return whether a measure is zero on every database: no row can move it."""
    return largest_of(bounded.measure) == 0


def _price_pilots(
    pilots: Mapping[int, Pilot], epsilon: Fraction
) -> dict[int, tuple[PricedRelease, ...]]:
    """Share an epsilon evenly among all histograms of all pilots; they get Laplace noise."""
    histograms = sum(len(r.measures) for p in pilots.values() for r in p.releases)
    terms = Terms(epsilon, max(histograms, 1), Fraction(0), Fraction(0))
    return {
        source: tuple(_price_release(r, terms) for r in pilot.releases)
        for source, pilot in pilots.items()
    }


def adapted(
    plan: NoisePlan, release: PricedRelease, answers: Mapping[str, tuple[float, ...]]
) -> PricedRelease:
    """Return a release under the bounds that its pilot's released answers suggest.

    `answers` are released columns by key. The release itself is returned where it has no pilot,
    or the pilot is not answered yet.

    Guarantee: depends on public facts and released answers only. Every column of the result
    costs at most what the plan charges for the columns of a release with a pilot: each Laplace
    column is DP at its weight's share of the epsilon by laplace.scale_for, and each Gaussian one
    costs at most the part of its event (_any_part), whatever its bounds. The weights are public.
    """
    pilot = release.pilot
    if pilot is None:
        return release
    first = {r.bounded.release.source: r for r in plan.releases}
    asked = [first[r.release.source] for r in pilot.releases]
    if any(column.key not in answers for r in asked for column in r.measures):
        return release
    seen = {
        r.bounded.release.source: tuple(_histograms(c, answers[c.key]) for c in r.measures)
        for r in asked
    }
    rows = None if pilot.rows is None else seen[pilot.rows.release.source][0][0]
    noises = tuple(column.deviation / sqrt(2) for column in release.measures)
    if pilot.distances is not None and rows is not None:
        distances = tuple(groups[0] for groups in seen[pilot.distances.release.source])
        found = adapt_averages(release.bounded, pilot, rows, distances, noises)
        return _as_chosen(found, plan, pilot)
    sizes = () if pilot.sizes is None else (
        tuple(groups[0] for groups in seen[pilot.sizes.release.source])
    )
    found = adapt(release.bounded, pilot, rows, sizes, noises)
    if pilot.totals is not None:
        found = truncated(found, pilot, seen[pilot.totals.release.source], noises)
    return _as_chosen(found, plan, pilot)


def _as_chosen(found: Adapted, plan: NoisePlan, pilot: Pilot) -> PricedRelease:
    weights = weights_of(found.bounded, pilot)
    priced = _price_release(found.bounded, plan.terms, weights)
    return replace(priced, cut=found.cut, words=found.words)


def _histograms(column: Priced, counts: tuple[float, ...]) -> tuple[Histogram, ...]:
    """Return a released histogram for each group, with what its bins stand for."""
    argument = column.bounded.measure.argument
    members = () if argument is None else argument.domain.members() or ()
    width = len(members)
    if not width or len(counts) % width:
        raise ValueError("a histogram has one count for each bin")
    return tuple(
        Histogram(
            tuple((bin_, n) for bin_, n in zip(members, counts[i : i + width], strict=True)
                  if isinstance(bin_, int)),
            column.scale,
        )
        for i in range(0, len(counts), width)
    )


def remaining(plan: NoisePlan, kept: frozenset[str]) -> NoisePlan:
    """Return the plan with only those columns to pay that are not among the kept answers.

    Guarantee: a kept answer is a released value, so giving it again costs nothing; the loss of
    the others is that of the same mechanisms without the kept columns, never more than before.
    """
    return _added_up(plan.releases, plan.terms, plan.order, kept)


def exact(bounded: tuple[BoundedRelease, ...], order: Fraction) -> NoisePlan:
    """Return a plan without noise and without bounds, for the correctness oracle in tests."""
    releases = tuple(
        PricedRelease(
            r, tuple(map(_without_noise, r.measures, answer_keys(r))),
            None if r.selection is None else _without_noise(r.selection, answer_keys(r)[-1]), 0,
            tuple(None for _ in r.measures), statements(r, tuple(None for _ in r.measures)),
        )
        for r in bounded
    )
    return NoisePlan(releases, (), PrivacyLoss.zero(), order, NOTHING)


def _columns(release: BoundedRelease) -> list[tuple[int, BoundedMeasure]]:
    found = list(enumerate(release.measures))
    return found if release.selection is None else [*found, (SELECTION, release.selection)]


def largest_of(measure: Measure) -> float:
    """Return how far one row can move a measure, in its own units."""
    if measure.aggregate is not Aggregate.SUM or measure.argument is None:
        return 1.0
    low, high = measure.argument.domain.interval or (0.0, 0.0)
    return max(abs(low - measure.center), abs(high - measure.center))


def _better(measures: list[BoundedMeasure], budget: Terms) -> Terms:
    """Compare the two noises by the geometric mean of their deviations over all columns."""
    if not budget.delta > 0 or not measures:
        return budget
    smooth = gaussian_terms(measures, budget)
    ratio = prod(
        sqrt(2) * l1 * float(1 / budget.share) / sqrt(_variance(l2_squared, measure, smooth))
        for measure, (l1, l2_squared) in (
            (m, m.strategy.sensitivity(m.measure, 1)) for m in measures
        )
    ) ** (1 / len(measures))
    return smooth if ratio > 1 else budget


def gaussian_terms(measures: list[BoundedMeasure], budget: Terms) -> Terms:
    """Return terms with Gaussian noise, by the bound that needs less of it over all columns."""
    by_curve, by_rho = (
        replace(budget, mechanism=Mechanism.GAUSSIAN, curve=curved) for curved in (True, False)
    )
    ratio = prod(
        _variance(l2_squared, measure, by_curve) / _variance(l2_squared, measure, by_rho)
        for measure, l2_squared in (
            (m, m.strategy.sensitivity(m.measure, 1)[1]) for m in measures if not is_constant(m)
        )
    )
    return by_curve if ratio < 1 else by_rho


def _variance(l2_squared: int, bounded: BoundedMeasure, budget: Terms) -> float:
    """Predict the variance of a column of Gaussian noise that one unit moves by this."""
    # Sums and parts of a row are on fine grids, on which the curve's smoothing is nothing.
    fine = bounded.measure.aggregate is Aggregate.SUM or bounded.strategy.caps
    added = curve.SMOOTHING if budget.curve and not fine else 0
    return multiplier(budget) ** 2 * float(budget.columns) * l2_squared + added


def multiplier(budget: Terms) -> float:
    """Return the sigma of a Gaussian release of the whole budget that one unit moves by 1."""
    scaled = curve.multiplier_for if budget.curve else gaussian.multiplier_for
    return scaled(budget.epsilon, budget.delta)


def _price_piloted(
    release: BoundedRelease, budget: Terms, pilot: Pilot | None
) -> PricedRelease:
    return replace(_price_release(release, budget, weights_of(release, pilot)), pilot=pilot)


def _price_release(
    release: BoundedRelease, budget: Terms, weights: tuple[Fraction, ...] = (),
    shares: Mapping[str, Fraction] = NO_SHARES,
) -> PricedRelease:
    """Price a release; columns without a share of their own get the budget's.

    Each column has its part of the epsilon; the `weights` add up to their number.
    """
    _check_cells(release)
    names = answer_keys(release)

    def terms(name: str) -> Terms:
        return budget.part(shares[name]) if name in shares else budget

    measures = tuple(
        _price_measure(m, name, terms(name), weights[i] if weights else Fraction(1))
        for i, (m, name) in enumerate(zip(release.measures, names, strict=False))
    )
    selection, tau = None, None
    if release.selection is not None:
        selection = _price_measure(release.selection, names[-1], terms(names[-1]))
        tau = _threshold(selection, budget)
    grids = tuple(m.grid for m in measures)
    return PricedRelease(release, measures, selection, tau, grids, statements(release, grids))


def _check_cells(release: BoundedRelease) -> None:
    """Refuse more noisy numbers than the memory holds; the number of groups here is public."""
    for bounded in release.measures:
        if _width(bounded) * len(release.keys or ()) > CELLS_MAX:
            raise Refused("too-large", f"{len(release.keys or ()):,} groups of {_width(bounded):,} "
                          "counts each are too many", "GROUP BY fewer values")


def numbers_of(release: BoundedRelease) -> int:
    """Return how many noisy numbers a release has; 0 where its groups are not public."""
    return sum(map(_width, release.measures)) * len(release.keys or ())


def _width(bounded: BoundedMeasure) -> int:
    """Return how many noisy numbers a measure has for each group."""
    argument = bounded.measure.argument
    if bounded.measure.aggregate is Aggregate.TREE:
        return int(NODES)
    if bounded.measure.aggregate is Aggregate.HISTOGRAM and argument is not None:
        return len(argument.domain.members() or ())
    return 1


def _price_measure(
    bounded: BoundedMeasure, key: str, budget: Terms, weight: Fraction = Fraction(1)
) -> Priced:
    mechanism = budget.mechanism
    grid = _grid(bounded, budget, weight)
    l1, l2_squared = bounded.strategy.sensitivity(bounded.measure, grid.largest)
    if l1 == 0:
        return Priced(bounded, Mechanism.EXACT, grid, 0.0, 0, 0, key)
    if mechanism is Mechanism.LAPLACE:
        scale = laplace.scale_for(l1, budget.share * weight)
    else:
        scale = _sigma(l2_squared, budget, weight)
    if not (isfinite(scale) and l1 < GRID_MAX):
        raise Refused("epsilon", f"epsilon {float(budget.epsilon):g} is too small or too large "
                      "for this question", "an epsilon between 0.001 and 10")
    return Priced(bounded, mechanism, grid, scale, l1, l2_squared, key, weight)


def _sigma(l2_squared: int, budget: Terms, weight: Fraction) -> float:
    """Return the smallest sigma that leaves the other columns of a joint Gaussian their part.

    sigma^2 >= unit^2 * l2^2 (+ SMOOTHING) and unit^2 >= multiplier^2 * columns / weight, each
    rounded up: the l2^2 / sigma^2, or l2^2 / (sigma^2 - SMOOTHING) on the normal curve, of all
    columns are together at most 1 / multiplier^2, for their weights add up to their number.
    """
    added = curve.SMOOTHING if budget.curve else 0
    return _root(Fraction(_unit_sigma(budget, weight)) ** 2 * l2_squared + added)


def _unit_sigma(budget: Terms, weight: Fraction) -> float:
    """Return the sigma of a column that one unit moves by 1, without smoothing."""
    return _root(Fraction(multiplier(budget)) ** 2 * budget.columns / weight)


def _any_part(budget: Terms, weight: Fraction) -> tuple[int, float]:
    """Return a part of a joint Gaussian that costs at least that of `_sigma` for every l2.

    Its l2^2 / sigma^2 is 1 / unit^2, which is what theirs are at most. With rho, sigma = unit l2:
    the curve, where it says less, says most for l2 = 1. On the curve theirs are at most
    1 / unit^2 after smoothing; this one's are a little more, by less than 2**-60 of it, for it
    stands for about the finest grid that sigmas have.
    """
    unit = _unit_sigma(budget, weight)
    if not budget.curve:
        return 1, unit
    finer = 2.0 ** max(0, min(36, 37 - ceil(log2(unit))))
    return int(finer) ** 2, unit * finer


def _root(square: Fraction) -> float:
    """Return a float whose square is at least this."""
    root = sqrt(float(square))
    while Fraction(root) ** 2 < square:
        root *= 1 + 2.0**-52
    return root


def _grid(bounded: BoundedMeasure, budget: Terms, weight: Fraction) -> Grid:
    """Return the grid of a column: whole numbers for counts, a fine power of two for sums.

    Where the snapshot holds a column's integers, the grid is theirs, or a finer one.
    """
    measure = bounded.measure
    if measure.aggregate is Aggregate.COUNT and bounded.strategy.caps:
        return Grid(1 / WEIGHTS, 0, WEIGHTS)  # parts of a row
    if measure.aggregate is not Aggregate.SUM or measure.argument is None:
        return Grid(1.0, 0, 1)
    largest = largest_of(bounded.measure)
    if largest == 0:
        return Grid(1.0, 0, 0)
    # A cap can be less than one value: a fine grid tells how much less.
    l1, l2_squared = bounded.strategy.sensitivity(measure, FINE)
    if budget.mechanism is Mechanism.LAPLACE:
        scale = largest * (l1 / FINE) * float(1 / (budget.share * weight))
    else:
        columns = float(budget.columns / weight)
        scale = largest * multiplier(budget) * sqrt(columns * (l2_squared / FINE**2))
    if not STEP_SHARE * 2.0**-1000 < scale < float("inf"):
        raise Refused("epsilon", f"epsilon {float(budget.epsilon):g} gives no usable noise scale",
                      "an epsilon between 0.001 and 10")
    step = 2.0 ** floor(log2(scale / STEP_SHARE))
    # Rows are read on a finer grid than the stored one where there are several limits.
    stored = None if bounded.strategy.truncations > 1 else stored_grid(
        measure.argument, bounded.strategy.relation, measure.center, step, scale
    )
    if stored is not None:
        return stored
    low, high = measure.argument.domain.interval or (0.0, 0.0)
    ends = [half_away((end - measure.center) * (1 / step)) for end in (low, high)]
    if not any(ends):
        raise Refused("epsilon", f"epsilon {float(budget.epsilon):g} is too small: the noise would "
                      "drown every value", "an epsilon between 0.001 and 10")
    if not all(abs(end) < GRID_MAX for end in ends):
        raise Refused("epsilon", f"epsilon {float(budget.epsilon):g} is too large for these "
                      "bounds", "a smaller epsilon")
    return Grid(step, int(ends[0]), int(ends[1]))


def _threshold(selection: Priced, budget: Terms) -> int:
    """Return the noisy count of units from which on a key is shown."""
    groups = selection.bounded.strategy.groups
    per_key = threshold.delta_per_key(budget.tail, groups)
    if per_key < gaussian.TAIL_MIN:
        raise Refused("delta", "delta is too small to choose among unknown keys", "delta=1e-9")
    if selection.mechanism is Mechanism.LAPLACE:
        return threshold.laplace_threshold(selection.scale, per_key)
    return threshold.gaussian_threshold(selection.scale, per_key)


def answer_keys(release: BoundedRelease) -> tuple[str, ...]:
    """Name the noised columns of a release, the choice of keys last, whatever words asked.

    What columns under one strategy have in common is written once: there may be a thousand. The
    choice of keys is told apart from a count of the same patients: each has noise of its own.
    """
    common: dict[int, tuple[Numbering, str]] = {}
    names = []
    for place, bounded in _columns(release):
        strategy = id(bounded.strategy)
        if strategy not in common:
            common[strategy] = _common_text(release, bounded.strategy)
        numbering, text = common[strategy]
        name = key_of(text, measure_text(bounded.measure, numbering))
        names.append(key_of("selection", name) if place == SELECTION else name)
    return tuple(names)


def _common_text(release: BoundedRelease, strategy: Strategy) -> tuple[Numbering, str]:
    """Return what the columns of one release under one strategy have in common."""
    numbering = numbering_of(strategy.relation)
    keys = [expression_text(key, numbering) for key in release.release.keys]
    weigh = sorted(
        ",".join(sorted(expression_text(c, numbering) for c in conditions))
        for conditions in strategy.weigh
    )
    shape = (f"{strategy.shape.value}|{strategy.rows}|{strategy.groups}|{strategy.limit_groups}"
             f"|{weigh}")
    keys += [f"of {expression_text(key, numbering)}" for key in release.finer]
    listed = "selected" if release.keys is None else key_of(repr(release.keys))
    if strategy.shifts:
        shape += f"|{strategy.shifts!r}"
    if strategy.caps:
        shape += f"|{[(measure_text(c.measure, numbering), str(c.share)) for c in strategy.caps]}"
    text = key_of(relation_text(strategy.relation, numbering), ";".join(keys), listed, shape)
    return numbering, text


def _added_up(
    releases: tuple[PricedRelease, ...], terms: Terms, order: Fraction, kept: frozenset[str],
) -> NoisePlan:
    """List the facts to charge, each noised column once however often it is used.

    A column whose bounds are still to be chosen is charged by what every choice keeps to, and
    for its own release alone: an equal column elsewhere may be bounded otherwise in the end.
    """
    paid: dict[str, Event | tuple[int, float]] = {}
    tails: set[str] = set()
    for release in releases:
        columns = [*release.measures, *([release.selection] if release.selection else [])]
        adapts = release.pilot is not None
        own = f"{release.bounded.release.source}:" if adapts else ""
        known = frozenset[str]() if adapts else kept
        for column in columns:
            if column.mechanism is not Mechanism.EXACT and column.key not in known:
                paid.setdefault(own + column.key, _fact(column, adapts, terms))
        if release.selection is not None and release.selection.key not in known:
            tails.add(own + release.selection.key)
    events = [fact for fact in paid.values() if not isinstance(fact, tuple)]
    parts = tuple(fact for fact in paid.values() if isinstance(fact, tuple))
    if parts:
        events.append(GaussianEvent(parts, terms.delta))
    events.extend(ThresholdEvent(terms.tail) for _ in tails)
    return NoisePlan(releases, tuple(events), loss_of(tuple(events), order), order, terms)


def _fact(column: Priced, adapts: bool, terms: Terms) -> Event | tuple[int, float]:
    """Return the fact that pays for a column: an event, or its part of the joint Gaussian."""
    if column.mechanism is Mechanism.LAPLACE:
        return PureEvent(terms.share * column.weight) if adapts else (
            LaplaceEvent(column.l1, column.scale)
        )
    return _any_part(terms, column.weight) if adapts else (column.l2_squared, column.scale)


def _without_noise(bounded: BoundedMeasure, key: str) -> Priced:
    return Priced(bounded, Mechanism.EXACT, Grid(1.0, 0, 0), 0.0, 0, 0, key)
