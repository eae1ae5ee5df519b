"""An output of a question in, whether its exact value can be below zero out.

Noise makes a small count negative now and then. Whoever prefers counts that look like counts can
have them: which numbers cannot be negative follows from the question and the policy.
"""

from __future__ import annotations

from collections.abc import Mapping

from planner.expression import Column, Expression
from planner.relation import Aggregate, Measure, Release

_COUNTS = frozenset({Aggregate.COUNT, Aggregate.UNITS, Aggregate.DISTINCT})


def never_negative(
    output: Expression, releases: tuple[Release, ...], totals: Mapping[int, int]
) -> bool:
    """Return whether an output is a count, or a sum of values that are never below zero.

    `totals` maps a ROLLUP's number to the release that it adds up. What is computed from counts
    and sums (a mean, a quotient, a difference) is left as it is.
    """
    if not isinstance(output, Column) or not output.name.startswith("m"):
        return False
    source = totals.get(output.source, output.source)
    release = next((r for r in releases if r.source == source), None)
    if release is None:
        return False
    place = int(output.name[1:]) - 1
    return place not in release.centred and _is_count_or_positive(release.measures[place])


def _is_count_or_positive(measure: Measure) -> bool:
    if measure.aggregate in _COUNTS:
        return True
    ends = None if measure.argument is None else measure.argument.domain.interval
    return (
        measure.aggregate is Aggregate.SUM and measure.center == 0
        and ends is not None and ends[0] >= 0
    )
