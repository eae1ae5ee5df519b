"""Whole numbers in, the same with Gaussian noise of a fine grid out: what runs are priced for.

A run is priced as if its noise were continuous (mechanisms/sampled.py). Noise on whole numbers
alone is not: near a sigma of 1 its delta is up to three times that of the normal law. So counts
get noise on a grid of 2^34 steps a sigma, as gradients do.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from mechanisms import gaussian
from mechanisms.randomness import Randomness
from models.encoding import Doubles

GRID_BITS: Final = 34
WHOLE_MAX: Final = 2**60  # of what is added to noise in 64 bits


def noised_counts(
    counts: npt.NDArray[np.int64], sigma: float, randomness: Randomness
) -> Doubles:
    """Return whole numbers with Gaussian noise of `sigma`, in an array of the same shape.

    Guarantee: exact discrete Gaussian noise on a grid of at least 2^34 steps a sigma, each number
    a whole number of steps. Numbers too large for 64 bits are cut at a fixed end, which moves
    neighbours no further apart.
    """
    steps = 2 ** max(0, math.ceil(GRID_BITS - math.log2(sigma)))
    end = WHOLE_MAX // steps
    whole = np.clip(counts, -end, end) * steps
    drawn = gaussian.sample(sigma * steps, counts.size, randomness).reshape(counts.shape)
    found: Doubles = (whole + drawn).astype(np.float64) / steps
    return found


__all__ = ["GRID_BITS", "noised_counts"]
