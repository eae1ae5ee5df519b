"""The noisy truncations of a race in, for each group the winner and an interval out.

Every number here is released, so this is post-processing. The argument (Dong, Fang, Yi, Tao and
Machanavajjhala 2022, section 5): a truncated sum of values from zero on is at most the true sum, so
with a confidence shared among the truncations no answer less its noise is above it. The widest one
takes nothing off but what the declared bounds do, so the true sum is hardly ever above that answer
plus its noise. Unlike the interval under a clip that a pilot chose, this one needs no guess of what
the clip takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from engine.release import Released
from planner.price import NoisePlan

Winner = tuple[float, float, float]  # the number, and the ends of its interval


def winners(released: Released, confidence: float) -> list[Winner]:
    """Return the winner of each key and the ends that hold the sum with `confidence`.

    The number shown is that of the truncation which is largest when its noise is taken off, as
    it was released. Half of what may go wrong is left to each end.
    """
    return [
        _winner(released, vector, confidence)[:3] for vector in _vectors(released)
    ]


def winning(released: Released, confidence: float) -> list[int]:
    """Return for each key which truncation won, the narrowest being 0."""
    return [_winner(released, vector, confidence)[3] for vector in _vectors(released)]


def named_winners(
    plan: NoisePlan, known: Mapping[str, Released], confidence: float
) -> NoisePlan:
    """Return the plan with the truncations that won, in words, beside each race."""
    return replace(plan, releases=tuple(
        replace(release, words=tuple(dict.fromkeys(
            word for column in release.measures
            if column.bounded.is_race and column.key in known
            for word in _words(known[column.key], column.bounded.measure.argument, confidence)
        ))) if any(c.bounded.is_race for c in release.measures) else release
        for release in plan.releases
    ))


def _winner(
    released: Released, vector: tuple[int | float, ...], confidence: float
) -> tuple[float, float, float, int]:
    missing, count = 1 - confidence, len(vector)
    fine = released.half_width(1 - missing / count)
    wide = released.half_width(1 - missing)
    fined = [(2**j * (n * released.step - fine), j) for j, n in enumerate(vector)]
    low, best = max(fined)
    value = max(2**best * vector[best] * released.step, 0.0)  # zero is in the race, for nothing
    high = 2 ** (count - 1) * (vector[-1] * released.step + wide)
    return value, min(max(low, 0.0), value), max(high, value), best


def _vectors(released: Released) -> list[tuple[int | float, ...]]:
    width = released.width
    return [released.values[i * width : (i + 1) * width] for i in range(len(released.keys))]


def _words(released: Released, argument: object, confidence: float) -> list[str]:
    name = getattr(argument, "name", "a value")
    found = sorted(set(winning(released, confidence)))
    ends = getattr(getattr(argument, "domain", None), "interval", None) or (0.0, 0.0)
    clips = [ends[1] / 2 ** (released.width - 1 - j) for j in found]
    shown = f"{clips[0]:,.6g}" if len(clips) == 1 else f"{clips[0]:,.6g} to {clips[-1]:,.6g}"
    return [f"the race for {name} was won by a patient's total of {shown}"] if found else []
