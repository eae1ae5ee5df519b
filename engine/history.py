"""A fresh release and an earlier one of the same cells in, one more exact than either out.

Asked again at a higher epsilon, a question pays for fresh noise, and the noisy numbers that are out
already still tell something: the inverse-variance mean of both has less noise than the new ones
alone, at no cost.

Only independent noises may be combined. A fresh release is independent of everything before it;
what is kept is combined with nothing but a fresh one, and the combination is then the most exact
of what is kept. So no noise is ever counted twice. The levels of an accuracy target
(accuracy.py) share their noise: of those only the last is kept, and none is combined with another.
"""

from __future__ import annotations

from math import hypot, sqrt

from engine.release import Released
from mechanisms import combined as law
from planner.price import Mechanism

_NOISY = (Mechanism.LAPLACE, Mechanism.GAUSSIAN, Mechanism.COMBINED)
ROUNDING = sqrt(1 / 12)  # the deviation of rounding to whole steps


def combined(fresh: Released, earlier: Released | None) -> Released:
    """Return the mean of two releases of one column, weighted by their precision.

    `fresh` comes back where there is nothing to combine it with, and where rounding to the finer
    of the two grids would undo the gain.

    Guarantee: a function of two released columns and of public facts, so it is post-processing
    and costs nothing. `fresh` must have noise of its own, drawn after `earlier` was released.
    """
    if earlier is None or not _same_cells(fresh, earlier):
        return fresh
    mechanisms = (fresh.mechanism, earlier.mechanism)
    if fresh.mechanism is Mechanism.COMBINED or any(m not in _NOISY for m in mechanisms):
        return fresh
    step = min(fresh.step, earlier.step)
    one, other = fresh.deviation(), earlier.deviation()
    widest = max(fresh.units, default=1)
    deviation = hypot(law.deviation(one, other), ROUNDING * step * widest)
    if not deviation < one:
        return fresh
    weight = law.weight(one, other)
    finer = (int(fresh.step / step), int(earlier.step / step))
    values = tuple(
        law.mean(int(a) * finer[0], int(b) * finer[1], weight)
        for a, b in zip(fresh.values, earlier.values, strict=True)
    )
    return Released(fresh.keys, values, Mechanism.COMBINED, deviation / (step * widest), step,
                    units=fresh.units)


def _same_cells(fresh: Released, earlier: Released) -> bool:
    """Return whether both give one number for each of the same keys, on grids that fit."""
    ratio = max(fresh.step, earlier.step) / min(fresh.step, earlier.step)
    return (
        fresh.keys == earlier.keys and fresh.units == earlier.units
        and fresh.width == earlier.width == 1
        and len(fresh.values) == len(earlier.values) == len(fresh.keys) and ratio.is_integer()
    )
