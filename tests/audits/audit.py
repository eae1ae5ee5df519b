"""Noise drawn twice on neighbours in, a proven lower bound on epsilon out.

The pre-noise integers of a question do not depend on chance (tests/engine/test_neighbours.py), so
they are computed once, and only the noise is drawn again and again, through engine/release.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

Samples = npt.NDArray[np.float64]
CONFIDENCE = 1 - 1e-6


def proportion_bounds(hits: int, tries: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Clopper and Pearson's one-sided bounds of a probability, each at the confidence."""
    miss = 1 - confidence
    low = 0.0 if hits == 0 else float(beta.ppf(miss, hits, tries - hits + 1))
    high = 1.0 if hits == tries else float(beta.ppf(1 - miss, hits + 1, tries - hits))
    return low, high


def epsilon_below(ours: Samples, theirs: Samples, delta: float = 0.0) -> float:
    """Return an epsilon that the mechanism surely exceeds or equals, by one threshold event.

    The event {x >= t} or {x <= t} is chosen on one half of the samples and judged on the other,
    so that choosing it well cannot flatter the bound.
    """
    half = len(ours) // 2
    best, event = -math.inf, None
    levels = np.quantile(np.concatenate([ours[:half], theirs[:half]]), np.linspace(0, 1, 201))
    for level in np.unique(levels):
        for upper in (True, False):
            hits = [_hits(part[:half], level, upper) for part in (ours, theirs)]
            for first, second in (hits, hits[::-1]):
                guess = _ratio(first, second, half, delta, 0.99)
                if guess > best:
                    best, event = guess, (level, upper, first is hits[0])
    if event is None:
        return 0.0
    level, upper, straight = event
    judged = [_hits(part[half:], level, upper) for part in (ours, theirs)]
    first, second = judged if straight else judged[::-1]
    return max(0.0, _ratio(first, second, len(ours) - half, delta, CONFIDENCE))


def _hits(samples: Samples, level: float, upper: bool) -> int:
    return int(np.count_nonzero(samples >= level if upper else samples <= level))


def _ratio(first: int, second: int, tries: int, delta: float, confidence: float) -> float:
    low = proportion_bounds(first, tries, confidence)[0]
    high = proportion_bounds(second, tries, confidence)[1]
    return math.log((low - delta) / high) if low > delta else -math.inf


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
