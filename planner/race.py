"""Bounded releases of sums in, the same sums under many truncations at once out.

In a race to the top (Dong, Fang, Yi, Tao and Machanavajjhala 2022, "R2T") a sum of values from zero
on is answered under truncations of a patient's total that double from one to the next, all in one
pass over the data, each with noise of its own size. The narrow ones have little noise and lose
much, the wide ones lose nothing and have much noise. None of them is above the true sum, so the
largest answer that is left when each is fined its noise is hardly ever above it either
(engine/winner.py).
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log2

from planner.bind import Bound
from planner.bounding import ADDITIVE, BoundedMeasure, BoundedRelease, by_race
from planner.domain import Type
from planner.pilot import has_totals
from planner.refusal import Refused
from planner.relation import Measure
from planner.truncation import limited_to
from planner.uncertainty import totals_of

TRUNCATIONS_MAX = 20


def raced(bounded: tuple[BoundedRelease, ...], bound: Bound) -> tuple[BoundedRelease, ...]:
    """Let the sums of a question race.

    The widest truncation is what the declared bounds let a patient count.

    Guarantee: a function of the question, the policy and the caller's words. Each sum gets the
    strategy `by_race`, whose sensitivity holds for the SQL it prints; what is no sum is unchanged.
    Raises Refused where there is no sum to race, or where it can be negative.
    """
    if totals_of(bound.rows.relation) or any(totals_of(g.rows.relation) for g in bound.givens):
        raise _refused("the totals of a ROLLUP cannot be added up from winners")
    if not any(map(has_totals, bounded)):
        raise _refused("the question has no sums, or has counts or averages beside them")
    return tuple(_raced(r) if has_totals(r) else r for r in bounded)


def _raced(bounded: BoundedRelease) -> BoundedRelease:
    measures = tuple(
        _racing(m, bounded) if m.measure.aggregate in ADDITIVE else m for m in bounded.measures
    )
    release = replace(bounded.release, measures=tuple(m.measure for m in measures))
    return replace(bounded, release=release, measures=measures)


def _racing(before: BoundedMeasure, bounded: BoundedRelease) -> BoundedMeasure:
    argument = before.measure.argument
    ends = None if argument is None else argument.domain.interval
    if argument is None or ends is None or ends[0] < 0:
        raise _refused("a sum that can fall when a patient comes has no lower bound to race for")
    rows = max(before.strategy.rows, 1)
    measure: Measure = limited_to(before.measure, rows * ends[1])
    whole = argument.domain.type is Type.INTEGER
    count = TRUNCATIONS_MAX
    if whole and ends[1] > 0:
        count = max(2, min(count, ceil(log2(rows * ends[1])) + 1))
    return BoundedMeasure(measure, by_race(bounded.release, count), before.rejected)


def _refused(why: str) -> Refused:
    return Refused("bounds", f"{why}: there is no race to the top", "bounds='auto'")
