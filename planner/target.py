"""An accuracy target in, a plan that pays only for what it needs out.

A target says how wrong an answer may be, absolutely or relative to the answer itself. Where the
width of every interval is known beforehand, the epsilon that gives it is worked out and paid like
any other. Otherwise the answer is drawn at many levels, coarse to fine, and revealed up to the
first level that is good enough, judged by what is revealed (engine/accuracy.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import ceil, isfinite

from mechanisms import gradual, laplace
from mechanisms.event import Event, GradualEvent, LaplaceEvent, ThresholdEvent
from mechanisms.loss import round_up
from mechanisms.pricing import loss_of
from planner.bind import Bound, Rows
from planner.bounded_sql import SPREAD_OUT
from planner.bounding import BoundedRelease
from planner.expression import Call, Column, Expression, Literal, columns_of, replaced
from planner.price import CELLS_MAX, Mechanism, NoisePlan, Priced, PricedRelease, price, remaining
from planner.refusal import Refused
from planner.relation import Filter, Ordered
from planner.uncertainty import (
    CONFIDENCE,
    Interval,
    confidence_of,
    derived_columns,
    noisy_columns,
    summed_width,
    totals_of,
)

Number = float | int | str | Decimal

RULE = "error-target"
LEVELS = 41  # ten doublings below the cap, four levels each
RELATIVE_MAX = Fraction(1, 2)
ABSOLUTE_MAX = Fraction(10) ** 15
CONFIDENCE_MIN, CONFIDENCE_MAX = Fraction(1, 2), Fraction(9999, 10_000)
_DIGITS = 12  # decimals of an epsilon that is worked out: those of a price


@dataclass(frozen=True, slots=True)
class Target:
    """How wrong an answer may be: `error` is a share of the answer if `is_relative`.

    It has to hold with the confidence, for each output, in at least `share` of the groups; where
    `share` is None, for the sum of each output over the groups.
    """

    error: Fraction
    is_relative: bool
    confidence: float = CONFIDENCE
    share: Fraction | None = Fraction(1)

    def words(self, grouped: bool) -> str:
        """Say the target shortly; `grouped` where the question has more than one row."""
        error = _percent(self.error) if self.is_relative else f"{float(self.error):g}"
        if self.share is None:
            where = ", for the total of the groups"
        else:
            where = (", in every group" if self.share == 1
                     else f", in {_percent(self.share)} of the groups")
        return f"± {error} at {_percent(Fraction(str(self.confidence)))}{where if grouped else ''}"


@dataclass(frozen=True, slots=True)
class Aim:
    """A question planned for a target.

    `levels` 0: `plan` is fixed in advance, and `needed` is the epsilon that meets the target,
    which `plan` has unless that is above the cap. Otherwise `plan` is the finest level.
    """

    target: Target
    cap: Fraction
    plan: NoisePlan
    levels: int
    needed: Fraction | None = None

    @property
    def grouped(self) -> bool:
        """Whether the question has groups."""
        return any(r.bounded.release.keys for r in self.plan.releases)

    @property
    def words(self) -> str:
        """Say the target shortly."""
        return self.target.words(self.grouped)

    @property
    def is_met(self) -> bool:
        """Whether a plan fixed in advance meets the target."""
        return self.needed is not None and self.needed <= self.cap


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a target: whether the answer meets it, and at which of how many levels."""

    met: bool
    level: int | None
    levels: int
    words: str


# ---- what is asked -------------------------------------------------------------------------


def read_target(
    error: Number, confidence: Number | None = None, error_for: Number | None = None
) -> Target:
    """Read a target as people write it: "5%" is relative, 50 is absolute.

    `confidence` is "95%" or 0.95; `error_for` is "all" (the default), "total", or the share of
    the groups, as "90%" or 0.9. Raises Refused for anything else.
    """
    is_relative = isinstance(error, str) and error.strip().endswith("%")
    value = _fraction("error", error, 'error="5%" or error=50')
    if is_relative and not 0 < value <= RELATIVE_MAX:
        raise Refused(RULE, f"a relative error lies above 0 and at {_percent(RELATIVE_MAX)} or "
                      f"below, got {error!r}", 'error="5%"')
    if not is_relative and not 0 < value <= ABSOLUTE_MAX:
        raise Refused(RULE, f"an error is a number above 0, got {error!r}", "error=50")
    sure = Fraction(str(CONFIDENCE))
    if confidence is not None:
        sure = _fraction("confidence", confidence, 'confidence="95%"')
        if not CONFIDENCE_MIN <= sure <= CONFIDENCE_MAX:
            raise Refused(RULE, f"confidence lies between 50% and 99.99%, got {confidence!r}",
                          'confidence="95%"')
    return Target(value, is_relative, float(sure), _share_of(error_for))


def _share_of(error_for: Number | None) -> Fraction | None:
    word = error_for.strip().lower() if isinstance(error_for, str) else error_for
    if word is None or word == "all":
        return Fraction(1)
    if word == "total":
        return None
    share = _fraction("error_for", word, 'error_for="all", "total" or "90%"')
    if not 0 < share <= 1:
        raise Refused(RULE, f"a share of the groups lies above 0% and at 100% or below, got "
                      f"{error_for!r}", 'error_for="90%"')
    return share


def _fraction(name: str, value: object, hint: str) -> Fraction:
    """Return a number exactly as it was written; "5%" is one twentieth."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise Refused(RULE, f"{name} must be a number, got {value!r}", hint)
    text = str(value).strip()
    try:
        found = Decimal(text.removesuffix("%").strip())
    except InvalidOperation:
        raise Refused(RULE, f"{name} must be a number, got {value!r}"[:200], hint) from None
    if not found.is_finite() or found.adjusted() > 20 or found.adjusted() < -60:
        raise Refused(RULE, f"{name} must be a usable number, got {value!r}"[:200], hint)
    return Fraction(found) / (100 if text.endswith("%") else 1)


def _percent(share: Fraction) -> str:
    return f"{float(share * 100):.6g} %"


# ---- how it is planned ---------------------------------------------------------------------


def aim_at(
    target: Target, bound: Bound, bounded: tuple[BoundedRelease, ...], cap: Fraction,
    delta: Fraction, order: Fraction,
) -> Aim:
    """Plan a question for a target, paying at most `cap`. Raises Refused where none can be held.

    Guarantee: depends on the question, the target and public facts only.
    """
    _check(target, bound, bounded)
    if not target.is_relative:
        plan = price(bounded, cap, delta, order)
        if _widths(bound, plan, target) is not None:
            return _fixed(target, bound, bounded, cap, delta, order)
    finest = price(bounded, cap, delta, order, laplace_only=True)
    scales = [c.scale for c in _gradual_columns(finest)]
    if not scales:  # no row can move any number of it
        return Aim(target, cap, finest, 0, Fraction(0))
    if min(scales) < gradual.SCALE_MIN:
        raise Refused("epsilon", f"epsilon {float(cap):g} is too large for an accuracy target",
                      "a smaller epsilon")
    levels = LEVELS
    while levels > 1 and max(scales) * 2.0 ** ceil(levels / 4) > laplace.SCALE_MAX:
        levels -= 1
    cells = sum(len(r.bounded.keys or ()) * len(r.measures) for r in finest.releases)
    if cells * levels > CELLS_MAX:
        raise Refused("too-large", f"{cells:,} noisy numbers are too many for an accuracy target",
                      "GROUP BY fewer values, or epsilon= in place of the target")
    return Aim(target, cap, finest, levels)


def _check(target: Target, bound: Bound, bounded: tuple[BoundedRelease, ...]) -> None:
    """Refuse a target for what has no error that can be followed level by level."""
    if not bound.releases:
        raise Refused(RULE, "the question reads no patient's data: it is answered exactly",
                      "the question without a target")
    if bound.givens:
        raise Refused(RULE, "one answer is used inside another, so the errors depend on each other",
                      "ask the inner question first, and write its answer as a number")
    if any(m.measure.aggregate in SPREAD_OUT for r in bounded for m in r.measures):
        raise Refused(RULE, "medians, quantiles, modes, MIN and MAX have no accuracy target: their "
                      "error depends on how the values lie", "epsilon=0.5 in place of the target")
    outputs = _noisy_outputs(bound)
    if not outputs:
        raise Refused(RULE, "no output has an error that is followed", "COUNT, SUM or AVG")
    if target.share is None:
        plain = all(isinstance(e, Column) for e, _ in outputs)
        if not plain or len({c.source for _, cs in outputs for c in cs}) > 1 or (
            totals_of(bound.rows.relation)
        ):
            raise Refused(RULE, "a target for the total is about COUNT and SUM, which add up",
                          'error_for="90%", a share of the groups')


def _noisy_outputs(bound: Bound) -> list[tuple[Expression, tuple[Column, ...]]]:
    """Return the outputs that have intervals, with the noisy columns each is computed from."""
    relation = bound.rows.relation
    statistics = derived_columns(relation)
    found = []
    for _, expression in bound.rows.outputs:
        whole = replaced(expression, statistics)
        columns = noisy_columns(whole, relation)
        if columns:
            found.append((whole, columns))
    return found


def _fixed(
    target: Target, bound: Bound, bounded: tuple[BoundedRelease, ...], cap: Fraction,
    delta: Fraction, order: Fraction,
) -> Aim:
    """Work out the epsilon whose intervals are as wide as the target, or a hair narrower."""
    wanted, epsilon = float(target.error), cap
    for turn in range(40):
        try:
            plan = price(bounded, epsilon, delta, order)
        except Refused:  # so exact an answer has no noise scale at all
            return Aim(target, cap, price(bounded, cap, delta, order), 0, None)
        widths = _widths(bound, plan, target) or [0.0]
        widest = max(widths)
        close = widest >= wanted * 0.995 or turn >= 12 or epsilon <= cap / 2**10
        if widest <= wanted and close:
            break
        factor = Fraction(widest / wanted) if widest > 0 else Fraction(1, 2)
        factor = min(max(factor, Fraction(1, 1024)), Fraction(1024))
        if turn >= 12:  # whole steps of a count: approach from the safe side
            factor = max(factor, Fraction(101, 100))
        epsilon = max(Fraction(round_up(epsilon * factor, _DIGITS)), cap / 2**10)
        if epsilon > 10**6:
            return Aim(target, cap, price(bounded, cap, delta, order), 0, None)
    if epsilon > cap:
        return Aim(target, cap, price(bounded, cap, delta, order), 0, epsilon)
    return Aim(target, cap, plan, 0, epsilon)


def _widths(bound: Bound, plan: NoisePlan, target: Target) -> list[float] | None:
    """Return each output's half-width if it is the same for all answers, else None."""
    if totals_of(bound.rows.relation):
        return None
    by_source = {r.bounded.release.source: r for r in plan.releases}
    found = []
    for expression, columns in _noisy_outputs(bound):
        confidence = confidence_of(len(columns), target.confidence)
        widths: dict[Column, float] = {}
        for column in columns:
            release = by_source[column.source]
            measure = release.measures[int(column.name[1:]) - 1]
            width = measure.half_width(confidence)
            if target.share is None:
                if release.bounded.keys is None:
                    return None
                width = summed_width(width, measure.deviation, len(release.bounded.keys),
                                     confidence)
            widths[column] = width
        width_of_all = _constant_width(expression, widths)
        if width_of_all is None:
            return None
        found.append(width_of_all)
    return found


def _constant_width(node: Expression, widths: Mapping[Column, float]) -> float | None:
    """Return the half-width of a sum of noisy numbers times constants; None for other formulas."""
    if not any(column in widths for column in columns_of(node)):
        return 0.0
    if isinstance(node, Column):
        return widths[node]
    if not isinstance(node, Call):
        return None
    if node.function == "cast":
        return _constant_width(node.arguments[1], widths) if node.domain.is_number else None
    inner = [_constant_width(argument, widths) for argument in node.arguments]
    known = [width for width in inner if width is not None]
    if len(known) < len(inner):
        return None
    if node.function in ("add", "sub", "neg"):
        return sum(known)
    last = node.arguments[-1]
    if node.function in ("mul", "div") and isinstance(last, Literal):
        by = float(last.value) if isinstance(last.value, int | float) else 0.0
        if by and isfinite(by):
            return known[0] * abs(by) if node.function == "mul" else known[0] / abs(by)
    return None


# ---- levels ----------------------------------------------------------------------------------


def at_level(plan: NoisePlan, levels: int, level: int) -> NoisePlan:
    """Return the plan whose columns have the noise of a level (0: the coarsest)."""
    releases = tuple(
        replace(release, measures=tuple(_coarser(m, levels, level) for m in release.measures))
        for release in plan.releases
    )
    return replace(plan, releases=releases)


def _coarser(column: Priced, levels: int, level: int) -> Priced:
    if column.mechanism is Mechanism.EXACT:
        return column
    return replace(column, scale=gradual.scales_of(column.scale, levels)[level])


def reservation(plan: NoisePlan, levels: int, kept: frozenset[str]) -> NoisePlan:
    """Return the finest plan with the facts of a reservation: what is not kept, level by level.

    The choice of keys is no part of the levels: it is paid at its own price.

    Guarantee: costs what `remaining` says of the finest level, on both rails, until it is settled.
    """
    events: dict[str, Event] = {}
    tails: dict[str, Event] = {}
    for release in plan.releases:
        for column in release.measures:
            if column.mechanism is not Mechanism.EXACT and column.key not in kept:
                events[column.key] = GradualEvent(column.l1, column.scale, levels)
        chosen = release.selection
        if chosen is not None and chosen.key not in kept:
            events[chosen.key] = LaplaceEvent(chosen.l1, chosen.scale)
            tails[chosen.key] = ThresholdEvent(plan.tail)
    listed = (*events.values(), *tails.values())
    loss = loss_of(listed, plan.order)
    if loss != remaining(plan, kept).loss:
        raise ValueError("a reservation must cost what its finest level costs")
    return replace(plan, events=listed, loss=loss)


def _gradual_columns(plan: NoisePlan) -> list[Priced]:
    return [m for r in plan.releases for m in r.measures if m.mechanism is not Mechanism.EXACT]


# ---- is it good enough? ----------------------------------------------------------------------

Cell = tuple[object, Interval | None]


def unfiltered(rows: Rows) -> Rows:
    """Return the rows without what picks some of them: a target is about all groups.

    HAVING, ORDER BY and LIMIT see noisy numbers; at a coarse level they might leave a few groups
    that happen to look exact.
    """
    relation = rows.relation
    while isinstance(relation, Filter | Ordered):
        relation = relation.input
    return Rows(relation, rows.outputs)


def is_close(value: object, interval: Interval | None, target: Target) -> bool:
    """Return whether a released number is as exact as the target asks.

    For a relative target every number of the interval must be: the half-width is at most the
    error times the smallest magnitude in it. So an interval that reaches zero is never enough.
    """
    if interval is None or isinstance(value, bool) or not isinstance(value, int | float):
        return False
    width = max(value - interval[0], interval[1] - value)
    if not 0 <= width < float("inf"):
        return False
    if not target.is_relative:
        return width <= target.error
    smallest = 0.0 if interval[0] <= 0 <= interval[1] else min(map(abs, interval))
    return width <= float(target.error) * smallest


def is_reached(rows: Sequence[Sequence[Cell]], target: Target) -> bool:
    """Return whether enough rows of released numbers are as exact as the target asks."""
    share = Fraction(1) if target.share is None else target.share
    good = sum(all(is_close(*cell, target) for cell in row) for row in rows)
    return good >= ceil(share * len(rows))


def shortfall(rows: Sequence[Sequence[Cell]], target: Target) -> float | None:
    """Return by which factor the intervals are too wide; None where no factor can be told."""
    share = Fraction(1) if target.share is None else target.share
    found = sorted(max((_factor(*cell, target) for cell in row), default=0.0) for row in rows)
    if not found:
        return None
    worst = found[ceil(share * len(found)) - 1]
    return worst if isfinite(worst) else None


def _factor(value: object, interval: Interval | None, target: Target) -> float:
    if interval is None or isinstance(value, bool) or not isinstance(value, int | float):
        return float("inf")
    width = max(value - interval[0], interval[1] - value)
    if not target.is_relative:
        return width / float(target.error)
    if interval[0] <= 0 <= interval[1]:
        return float("inf")
    error = float(target.error)
    return width * (1 + error) / (error * abs(value))


def release_of(plan: NoisePlan, column: Column) -> tuple[PricedRelease, Priced]:
    """Return the release and the measure that a released column comes from."""
    release = next(r for r in plan.releases if r.bounded.release.source == column.source)
    return release, release.measures[int(column.name[1:]) - 1]
