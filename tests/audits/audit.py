"""Samples in, whether they follow the exact law of discrete Laplace noise out.

The pre-noise integers of a question do not depend on chance (tests/engine/test_neighbours.py), so
they are computed once, and only the noise is drawn again and again, through engine/release.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]


def laplace_law(scale: float, reach: int) -> Samples:
    """Return P(Z = z) for z in -reach..reach, P ~ exp(-|z| / scale), tails put at the ends."""
    ratio = math.exp(-1 / scale)
    z = np.abs(np.arange(-reach, reach + 1))
    law = (1 - ratio) / (1 + ratio) * ratio**z
    tail = ratio ** (reach + 1) / (1 + ratio)
    law[0] += tail
    law[-1] += tail
    return law


def chi_square_p(values: Any, law: Samples, reach: int) -> float:
    """Return the p-value of whole samples against a law on -reach..reach, sparse cells joined."""
    from scipy.stats import chi2

    clipped = np.clip(np.asarray(values), -reach, reach) + reach
    seen = np.bincount(clipped, minlength=2 * reach + 1).astype(float)
    wanted = law * len(values)
    cells: list[tuple[float, float]] = []
    have, want = 0.0, 0.0
    for s, w in zip(seen, wanted, strict=True):
        have, want = have + s, want + w
        if want >= 10:
            cells.append((have, want))
            have, want = 0.0, 0.0
    if want > 0 and cells:
        cells[-1] = (cells[-1][0] + have, cells[-1][1] + want)
    statistic = sum((s - w) ** 2 / w for s, w in cells)
    return float(chi2.sf(statistic, len(cells) - 1))
