"""A fresh release and an earlier one of the same cells in, one more exact than either out.

Asked again at a higher epsilon, a question pays for fresh noise, and the noisy numbers that are out
already still tell something: the inverse-variance mean of both has less noise than the new ones
alone, at no cost (for instance Hartung, Knapp and Sinha 2008, section 4).

Only independent noises may be combined. A fresh release is independent of everything before it;
what is kept is combined with nothing but a fresh one, and the combination is then the most exact
of what is kept. So no noise is ever counted twice. The levels of an accuracy target
(accuracy.py) share their noise: of those only the last is kept, and none is combined with another.
"""

from __future__ import annotations

from dataclasses import replace

from engine.release import Combined, Released
from mechanisms.combined import CombinedNoise, added
from planner.price import Mechanism


def combined(fresh: Released, earlier: Released | None) -> Released:
    """Return the mean of two releases of one column, weighted by their precision.

    `fresh` comes back where there is nothing to combine it with, and where rounding of counts
    would undo the gain.

    Guarantee: a function of two released columns and of public facts, so it is post-processing
    and costs nothing. `fresh` must have noise of its own, drawn after `earlier` was released.
    """
    if earlier is None or isinstance(fresh, Combined) or not _same_cells(fresh, earlier):
        return fresh
    one, other = fresh.deviation(), earlier.deviation()
    if not (one > 0 and other > 0):
        return fresh
    weight = 1 / (1 + (one / other) ** 2)
    noise = added((noise_of(fresh).times(weight), noise_of(earlier).times(1 - weight)))
    means: tuple[int | float, ...] = tuple(
        weight * a + (1 - weight) * b
        for a, b in zip(fresh.numbers(), earlier.numbers(), strict=True)
    )
    if fresh.step == 1.0:  # counts stay whole; rounding is wrong by half of one at most
        means, noise = tuple(map(round, means)), replace(noise, step=1.0)
    if not noise.half_width(0.95) < fresh.half_width(0.95):
        return fresh
    return Combined(fresh.keys, means, fresh.mechanism, fresh.scale, 1.0, noise=noise)


def noise_of(released: Released) -> CombinedNoise:
    """Return the noise of a column, in its own units."""
    if isinstance(released, Combined):
        return released.noise
    if released.mechanism is Mechanism.LAPLACE:
        return CombinedNoise(((released.scale * released.step, 1),), 0.0, released.step)
    if released.mechanism is Mechanism.GAUSSIAN:
        return CombinedNoise((), (released.scale * released.step) ** 2, released.step)
    return CombinedNoise()


def _same_cells(fresh: Released, earlier: Released) -> bool:
    """Return whether both give one number of one unit for each of the same keys."""
    return (
        fresh.keys == earlier.keys and fresh.width == earlier.width == 1
        and not (fresh.units or earlier.units)
        and len(fresh.values) == len(earlier.values) == len(fresh.keys)
    )
