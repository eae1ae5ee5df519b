"""Norms of patients' gradients in, the weights that bound each patient's part of the sum out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from models.encoding import Doubles

# Room for float rounding in sums: a part is kept below 1 by more than a sum of 2**13 float32
# numbers of that size can be off.
KEPT = 1 - 2.0**-9
SOFTENING = 0.01


@dataclass(frozen=True, slots=True)
class Clip:
    """How a gradient g of norm n is bounded; its part of the sum has a norm of at most 1.

    Normalised (the default): g/(n + softening), the AUTO-S of Bu et al. 2023: no norm to tune.
    With a `norm` C: g/max(n, C), the usual clipping divided by C.
    """

    norm: float | None = None

    def __post_init__(self) -> None:
        if self.norm is not None and not 0 < self.norm < float("inf"):
            raise ValueError(f"the clip norm must be a positive number, got {self.norm!r}")


@dataclass(frozen=True, slots=True)
class GroupClip:
    """How a gradient is bounded group by group of parameters (a layer each, or all in one).

    Group g's part is its gradient over max(its norm, norms[g]), times weights[g]. Beside it a
    patient votes, +vote where its norm in that group is at most norms[g], -vote where not.

    Guarantee: a patient's parts and votes together have a norm of at most 1: the squares of
    weights and votes add up to at most 1, which is checked here.
    """

    norms: tuple[float, ...]
    weights: tuple[float, ...]
    vote: float

    def __post_init__(self) -> None:
        if not (self.norms and len(self.norms) == len(self.weights)
                and all(0 < x < math.inf for x in (*self.norms, *self.weights, self.vote))):
            raise ValueError(f"clip norms, weights and votes must be positive, got {self!r}")
        square = math.fsum(w * w for w in self.weights) + len(self.norms) * self.vote**2
        if not square <= 1 + 1e-9:
            raise ValueError(f"the squares of weights and votes add up to {square:g}, above 1")


def weights_for(norms: Doubles, clip: Clip) -> Doubles:
    """Return the factor of each patient's gradient.

    Guarantee: weight times norm is below 1 for every finite norm >= 0; where a norm is not
    finite the weight is 0, and the caller puts exact zeros in place of that gradient.
    """
    finite = np.isfinite(norms)
    safe = np.where(finite, norms, 1.0)
    weights = KEPT / (safe + SOFTENING) if clip.norm is None else KEPT / np.maximum(safe, clip.norm)
    found: Doubles = np.where(finite, weights, 0.0)
    return found
