"""Norms of patients' gradients in, the weights that bound each patient's part of the sum out."""

from __future__ import annotations

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
