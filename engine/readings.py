"""The noisy counts of a tree or histogram in, quantiles, extremes and modes with intervals out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np

from engine.release import Released
from mechanisms import gaussian, laplace
from mechanisms.quantile_tree import LEAVES, Distribution
from planner.bounded_sql import leaf_scale
from planner.domain import Domain, Type, Value
from planner.price import Mechanism
from planner.relation import Measure, Quantile, Reading

Read = tuple[Value | None, Value | None, Value | None]  # value, low, high
ROWS_LEAST = 1.0  # below this noisy number of rows there is nothing to read


@dataclass(frozen=True, slots=True)
class _Scale:
    """How positions in leaves become values."""

    domain: Domain
    low: float
    width: float

    def value(self, position: float, round_down: bool) -> Value:
        """Return the value at a position; whole numbers and days are whole."""
        whole = self.domain.type in (Type.INTEGER, Type.DATE)
        place = min(max(position, 0.0), float(LEAVES))
        if whole and round_down:
            place = min(float(int(place)), LEAVES - 1.0)
        found = self.low + place * self.width
        if self.domain.type is Type.DATE and isinstance(self.domain.low, date):
            day = self.domain.low + timedelta(days=int(found))
            last = self.domain.high
            return min(day, last) if isinstance(last, date) else day
        ends = self.domain.interval
        if ends is not None:
            found = min(max(found, ends[0]), ends[1])
        return int(found) if self.domain.type is Type.INTEGER else found


def read(released: Released, measure: Measure, quantiles: tuple[Quantile, ...]) -> list[list[Read]]:
    """Read every quantile of one measure for every key: a list for each quantile.

    Guarantee: uses released numbers and public bounds only, so it is post-processing. Quantiles
    of one tree keep their order, because they are read off one rising function.
    """
    if released.width == 0:  # unbounded testing: the values themselves, not counts
        return [[_exact(values, q) for values in released.exact] for q in quantiles]
    return [
        [_read_one(vector, released, measure, q) for vector in _vectors(released)]
        for q in quantiles
    ]


def _vectors(released: Released) -> list[tuple[int | float, ...]]:
    width = released.width
    return [released.values[i : i + width] for i in range(0, len(released.values), width)] or []


def _read_one(
    vector: tuple[int | float, ...], released: Released, measure: Measure, quantile: Quantile
) -> Read:
    if measure.argument is None:
        return None, None, None
    if quantile.reading is Reading.MODE:
        members = measure.argument.domain.members() or ()
        if not members or max(vector) < ROWS_LEAST:
            return None, None, None
        return members[int(np.argmax(vector))], None, None
    domain = measure.argument.domain
    low, width = leaf_scale(domain)
    scale = _Scale(domain, low, width)
    tree = Distribution.of(np.asarray(vector, dtype=np.float64), _deviation(released))
    everything: Read = (None, scale.value(0.0, True), scale.value(LEAVES, True))
    if tree.total < ROWS_LEAST:
        return everything
    share = quantile.share
    if quantile.reading is Reading.LEAST:
        share = tree.extreme_share()
    if quantile.reading is Reading.GREATEST:
        share = 1 - tree.extreme_share()
    ends = tree.interval(share)
    if quantile.reading is Reading.LEAST:
        ends = (0.0, ends[1])
    if quantile.reading is Reading.GREATEST:
        ends = (ends[0], float(LEAVES))
    return (
        scale.value(tree.position(share), True), scale.value(ends[0], True),
        scale.value(ends[1], True),
    )


def _deviation(released: Released) -> float:
    if released.mechanism is Mechanism.EXACT:
        return 0.0
    laplacian = released.mechanism is Mechanism.LAPLACE
    return (laplace.deviation if laplacian else gaussian.deviation)(released.scale)


def _exact(values: Mapping[Any, int], quantile: Quantile) -> Read:
    """Read off the exact values themselves: insecure testing only."""
    known = sorted((v, n) for v, n in values.items() if v is not None)
    if not known:
        return None, None, None
    if quantile.reading is Reading.MODE:
        best = max(known, key=lambda pair: pair[1])[0]
        return best, best, best
    if quantile.reading is not Reading.QUANTILE:
        end = known[0][0] if quantile.reading is Reading.LEAST else known[-1][0]
        return end, end, end
    total = sum(n for _, n in known)
    place = quantile.share * (total - 1)
    below, above = _at(known, int(place)), _at(known, min(int(place) + 1, total - 1))
    if isinstance(below, date):
        return below, below, below
    found = below + (above - below) * (place - int(place))
    return found, found, found


def _at(known: list[tuple[Any, int]], index: int) -> Any:
    for value, count in known:
        if index < count:
            return value
        index -= count
    return known[-1][0]


__all__ = ["Read", "read"]
