"""A bound question in, one epsilon for all of its columns out, to be divided as the answers ask.

An even share suits answers of one size. Where a count of 300 stands beside one of 20,000, the small
one needs nearly all of the epsilon for the same relative error. So all columns are drawn at many
levels, coarse to fine; each is revealed at its coarsest, and then the one whose error is worst is
refined, again and again, until the epsilon is used up (engine/split.py). What decides is revealed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from math import inf, sqrt

from mechanisms import gradual, laplace
from mechanisms.event import Event, LaplaceEvent, PureEvent, ThresholdEvent
from mechanisms.pricing import loss_of
from planner.bind import Bound
from planner.bounded_sql import SPREAD_OUT
from planner.bounding import BoundedRelease
from planner.canonical import key_of
from planner.expression import Call, Column, Expression
from planner.price import CELLS_MAX, Mechanism, NoisePlan, Priced, PricedRelease, price
from planner.refusal import Refused

RULE = "split"
# The coarsest level of a column has this part of its even share.
PILOT = Fraction(3, 20)
LEVELS_PER_OCTAVE = 8
# An answer that may be zero has no relative error: while its size is below so many noise scales it
# gets an even share at most where there are two columns, and up to two where there are many.
DISTINCT = 2.0
CLEAR_ENOUGH = 0.2
LEAST = 1e-300  # keeps a quotient finite


def read_split(given: str | None) -> bool:
    """Return whether the answers divide the epsilon. Raises Refused for any other word."""
    if given not in (None, "even", "auto"):
        raise Refused("split", f"split must be 'even' or 'auto', got {given!r}", "split='auto'")
    return given == "auto"


@dataclass(frozen=True, slots=True)
class Split:
    """A question whose epsilon is divided by its answers.

    `plan` has each column at its even share. `fine` reads the same numbers on grids that are fine
    enough for a column that gets everything; it is what a reader runs. `averages` are pairs of
    columns, (sum, count), that outputs divide, and `alone` those that something else reads.
    """

    plan: NoisePlan
    fine: NoisePlan
    averages: tuple[tuple[str, str], ...]
    alone: frozenset[str]

    @property
    def columns(self) -> dict[str, Priced]:
        """The noised columns on their fine grids, by key, each once."""
        return {c.key: c for r in self.fine.releases for c in r.measures
                if c.mechanism is not Mechanism.EXACT}

    @property
    def name(self) -> str:
        """The key under which it is kept how this very question's epsilon was divided."""
        return key_of("split", *sorted(self.columns), str(self.plan.terms.epsilon))


def split_of(
    bound: Bound, bounded: tuple[BoundedRelease, ...], epsilon: Fraction, delta: Fraction,
    order: Fraction,
) -> Split:
    """Plan a question whose epsilon its answers divide. Raises Refused where they cannot.

    Guarantee: depends on the question and public facts only.
    """
    if not bound.releases:
        raise Refused(RULE, "the question reads no patient's data: there is nothing to divide",
                      "the question without split")
    if bound.givens:
        raise Refused(RULE, "one answer is used inside another, so the errors depend on each other",
                      "ask the inner question first, and write its answer as a number")
    if any(m.measure.aggregate in SPREAD_OUT for r in bounded for m in r.measures):
        raise Refused(RULE, "medians, quantiles, modes, MIN and MAX are not refined step by step",
                      "ask for them apart, or leave out split")
    even = price(bounded, epsilon, delta, order, laplace_only=True)
    apart = price(bounded, epsilon * even.terms.columns, delta, order, laplace_only=True)
    releases = tuple(
        replace(fine, selection=plain.selection, threshold=plain.threshold)
        for fine, plain in zip(apart.releases, even.releases, strict=True)
    )
    averages, alone = _outputs_of(bound, even)
    split = Split(even, replace(apart, releases=releases, terms=even.terms), averages, alone)
    cells = sum(len(r.bounded.keys or ()) * len(r.measures) for r in even.releases)
    levels = max((len(ladder_of(split, c).scales) for c in split.columns.values()), default=0)
    if cells * levels > CELLS_MAX:
        raise Refused("too-large", f"{cells:,} noisy numbers are too many to refine step by step",
                      "GROUP BY fewer values, or leave out split")
    return split


def _outputs_of(
    bound: Bound, plan: NoisePlan
) -> tuple[tuple[tuple[str, str], ...], frozenset[str]]:
    """Return the sum and count of each average among the outputs, and what else they read."""
    found: list[tuple[str, str]] = []
    alone: set[str] = set()
    waiting: list[Expression] = [expression for _, expression in bound.rows.outputs]
    while waiting:
        node = waiting.pop()
        single = _priced(plan, node)
        if single is not None:
            alone.add(single.key)
        if not isinstance(node, Call):
            continue
        pair = [p for p in map(partial(_priced, plan), node.arguments[:2]) if p is not None]
        if node.function == "average" and len(pair) == 2:
            found.append((pair[0].key, pair[1].key))
        else:
            waiting.extend(node.arguments)
    return tuple(dict.fromkeys(found)), frozenset(alone)


def _priced(plan: NoisePlan, part: Expression) -> Priced | None:
    if not (isinstance(part, Column) and part.name.startswith("m")):
        return None
    releases = (r for r in plan.releases if r.bounded.release.source == part.source)
    release = next(releases, None)
    return None if release is None else release.measures[int(part.name[1:]) - 1]


# ---- what is paid ----------------------------------------------------------------------------


def reserved(split: Split, kept: frozenset[str]) -> NoisePlan:
    """Return the plan to read, with the facts to charge: one epsilon for all that is not kept.

    Guarantee: its loss covers every division of that epsilon (engine/split.py), and the choice
    of keys at its own even share.
    """
    share = split.plan.terms.share
    events: dict[str, Event] = {}
    tails: dict[str, Event] = {}
    for release in split.plan.releases:
        chosen = release.selection
        if chosen is not None and chosen.key not in kept:
            events[chosen.key] = LaplaceEvent(chosen.l1, chosen.scale)
            tails[chosen.key] = ThresholdEvent(split.plan.tail)
    due = split.columns.keys() - kept
    whole = (PureEvent(share * len(due)),) if due else ()
    listed = (*whole, *events.values(), *tails.values())
    return replace(split.fine, events=listed, loss=loss_of(listed, split.plan.order))


@dataclass(frozen=True, slots=True)
class Ladder:
    """A column's noise scales from coarse to fine, in steps of its grid, and their epsilons."""

    scales: tuple[float, ...]
    costs: tuple[Fraction, ...]


def ladder_of(split: Split, column: Priced) -> Ladder:
    """Return the levels of a column: from PILOT of an even share up to all there is.

    Guarantee: a function of public numbers. Each cost is l1 / scale, exactly, which is the
    epsilon of that scale (laplace.scale_for); the first is at most PILOT of an even share.
    """
    coarsest = split.plan.terms.share * PILOT
    scales, finest = [column.scale], column.scale
    while Fraction(column.l1) / Fraction(scales[-1]) > coarsest:
        scales.append(finest * 2.0 ** (len(scales) / LEVELS_PER_OCTAVE))
    if not (finest >= gradual.SCALE_MIN and scales[-1] <= laplace.SCALE_MAX):
        raise Refused("epsilon", f"epsilon {float(split.plan.terms.epsilon):g} is too small or too "
                      "large to be divided", "an epsilon between 0.001 and 10")
    scales.reverse()
    return Ladder(tuple(scales), tuple(Fraction(column.l1) / Fraction(s) for s in scales))


# ---- how it is divided -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What is revealed of a column: its typical size as far as noise lets tell, and its noise.

    `size` is the median magnitude of its numbers less one noise scale: a coarse number that only
    looks large must not keep its column from being refined.
    """

    size: float
    deviation: float


def errors_of(
    split: Split, seen: Mapping[str, Seen], centers: Mapping[str, float]
) -> dict[str, float]:
    """Predict the worst relative error that each column has a part in.

    Numbers below one noise scale count as one: noise cannot tell them apart. A sum and a count
    that make an average err with the distance of the mean from the center.

    Guarantee: a function of revealed numbers and public facts.
    """
    found = {key: one.deviation / max(one.size, one.deviation / sqrt(2), LEAST)
             for key, one in seen.items()}
    parts: dict[str, float] = {}
    for total, count in split.averages:
        if total not in seen or count not in seen:
            continue
        rows = max(seen[count].size, seen[count].deviation, LEAST)
        apart = seen[total].size / rows
        size = rows * max(abs(centers[total]) - apart, apart, LEAST)
        for key, error in ((total, seen[total].deviation / size),
                           (count, seen[count].deviation * apart / size)):
            parts[key] = max(parts.get(key, 0.0), error)
    return {key: max(parts[key], error if key in split.alone else 0.0) if key in parts else error
            for key, error in found.items()}


def next_column(
    ladders: Mapping[str, Ladder], errors: Mapping[str, float], levels: Mapping[str, int],
    left: Fraction, share: Fraction,
) -> str | None:
    """Return the column to refine: the one with the worst error that may still be refined.

    Columns that may be zero come first up to an even share, those that got least before the
    others; beyond that they wait until all others are CLEAR_ENOUGH.

    Guarantee: a function of revealed numbers and public facts; what it returns costs no more
    than is `left`.
    """
    most = share * (2 - Fraction(2, max(len(ladders), 2)))
    best, worst = None, (0, -inf)
    for key, ladder in ladders.items():
        level = levels[key]
        if level + 1 >= len(ladder.costs):
            continue
        now, finer = ladder.costs[level], ladder.costs[level + 1]
        unclear = errors[key] > sqrt(2) / DISTINCT
        need = (0, errors[key])
        if unclear:
            need = (1, -float(now / share)) if finer <= share else (0, CLEAR_ENOUGH)
        if need > worst and finer - now <= left and not (unclear and finer > most):
            best, worst = key, need
    return best


def divided(split: Split, scales: Mapping[str, float]) -> NoisePlan:
    """Return the plan whose columns have these scales on their fine grids, and the others an
    even share.

    Guarantee: only scales and grids differ from `split.plan`; it names what was paid for.
    """
    def column(plain: Priced, fine: Priced) -> Priced:
        return replace(fine, scale=scales[fine.key]) if fine.key in scales else plain

    def release(plain: PricedRelease, fine: PricedRelease) -> PricedRelease:
        measures = tuple(map(column, plain.measures, fine.measures))
        return replace(plain, measures=measures, grids=tuple(m.grid for m in measures),
                       statements=fine.statements, words=_words(split, measures, scales))

    pairs = zip(split.plan.releases, split.fine.releases, strict=True)
    return replace(split.plan, releases=tuple(release(*pair) for pair in pairs))


def _words(
    split: Split, measures: tuple[Priced, ...], scales: Mapping[str, float]
) -> tuple[str, ...]:
    """Say how much of the epsilon each column got."""
    costs = [f"{c.l1 / c.scale:.3g}" for c in measures if c.key in scales]
    if not costs:
        return ()
    share = float(split.plan.terms.share)
    return (f"the epsilon is divided as {', '.join(costs)} (even: {share:.3g} each)",)


__all__ = [
    "Ladder", "Seen", "Split", "divided", "errors_of", "ladder_of", "next_column", "reserved",
    "split_of",
]
