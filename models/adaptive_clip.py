"""Noised votes in, the next step's clip norms out: clipping at a private quantile.

Each patient says with one bit, within the step's own noise, whether its gradient is below the
clip norm; the norm then moves towards a quantile of the gradients (Andrew et al. 2021, algorithm
1). With a norm for each layer the noise is shared out by what is expected to matter (He et al.
2022): sigma_g^2 ~ C_g / sqrt(d_g) at the same total.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.clipping import KEPT, GroupClip

Vector = npt.NDArray[np.float64]
PACE = 0.2  # of the norms, per step, as in the paper
REACH = 1e4  # how far a norm may move from where it starts, either way
VOTES_MAX = 0.1  # of a step's divergence


@dataclass(frozen=True, slots=True)
class AdaptiveClip:
    """How clip norms follow a quantile of the gradients' norms; public, fixed beforehand.

    `groups` are the parameters of each group; `start` is the norm of all together at the first
    step; `votes` is the share of each step's divergence that the votes take.
    """

    quantile: float
    groups: tuple[int, ...]
    start: float
    votes: float

    @classmethod
    def of(cls, quantile: float, groups: tuple[int, ...], start: float, multiplier: float,
           expected: float) -> AdaptiveClip:
        """Share the noise: votes get a deviation of a twentieth of the expected batch.

        That is sigma_b = expected / 20 of the paper, each vote counting one half.
        """
        share = (10 * multiplier / expected) ** 2
        return cls(quantile, groups, start, min(VOTES_MAX, max(share, 1e-6)))

    def first(self) -> Vector:
        """Return the norms of the first step."""
        return np.full(len(self.groups), self.start / math.sqrt(len(self.groups)))

    def clip(self, norms: Vector) -> GroupClip:
        """Return the clip of a step.

        Guarantee: it depends on public settings and on norms, which are noised already.
        """
        squares = norms * np.sqrt(np.array(self.groups, dtype=np.float64))
        weights = np.sqrt((1 - self.votes) * squares / squares.sum())
        return GroupClip(tuple(norms.tolist()), tuple(weights.tolist()),
                         math.sqrt(self.votes / len(self.groups)))

    def read(self, noisy: Vector, norms: Vector, expected: float) -> tuple[Vector, Vector]:
        """Return a step's noisy gradient (over the norm of the norms), and the next norms.

        Guarantee: post-processing of one noised sum.
        """
        size = sum(self.groups)
        clip = self.clip(norms)
        factors = norms / np.array(clip.weights) / np.linalg.norm(norms)
        gradient = noisy[:size] * np.repeat(factors, self.groups)
        below = np.clip((noisy[size:] / (KEPT * clip.vote * expected) + 1) / 2, 0, 1)
        moved = norms * np.exp(-PACE * (below - self.quantile))
        first = self.first()
        return gradient, np.clip(moved, first / REACH, first * REACH)
