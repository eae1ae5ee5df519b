"""Noise drawn twice on neighbours in, a proven lower bound on its epsilon out.

A mechanism that is paid with epsilon must never be provably worse. The bound is Clopper and
Pearson's on one threshold event, chosen on some of the draws and judged on the others, so that
choosing it well cannot flatter it. It has power: with a million draws it proves nearly all of a
Laplace mechanism's epsilon, so noise that is a tenth too small is caught.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from mechanisms import curve, gaussian, laplace
from mechanisms.randomness import Randomness
from planner.price import Mechanism, Priced

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Samples = npt.NDArray[np.float64]

CONFIDENCE = 1 - 1e-6
LEVELS = 201  # thresholds that are tried


@dataclass(frozen=True, slots=True)
class Proven:
    """What was proven of one noised column: `proven` must not exceed `charged`."""

    name: str
    mechanism: str
    scale: float
    charged: float
    delta: float
    proven: float
    draws: int

    @property
    def holds(self) -> bool:
        """Whether the noise is at least as strong as what is paid for it."""
        return self.proven <= self.charged


def proven_epsilon(
    name: str, column: Priced, delta: Fraction, draws: int, randomness: Randomness
) -> Proven:
    """Audit one column's mechanism at its scale, on vectors that its sensitivity allows.

    The worst neighbours differ by the whole L1 sensitivity in one cell (Gaussian noise: by the
    whole L2 sensitivity). `delta` is that of the Gaussian's price.
    """
    import numpy as np

    if column.mechanism is Mechanism.LAPLACE:
        apart, charged, allowed = column.l1, Fraction(column.l1) / Fraction(column.scale), 0.0
        drawn = [laplace.sample(column.scale, draws, randomness) for _ in range(2)]
    else:
        apart = math.isqrt(column.l2_squared)
        charged = curve.epsilon_of(((column.l2_squared, column.scale),), delta)
        allowed = float(delta)
        drawn = [gaussian.sample(column.scale, draws, randomness) for _ in range(2)]
    ours = np.asarray(drawn[0], dtype=np.float64)
    theirs = np.asarray(drawn[1], dtype=np.float64) + apart
    found = epsilon_below(ours, theirs, allowed)
    return Proven(name, column.mechanism.value, column.scale, float(charged), allowed, found, draws)


def proportion_bounds(hits: int, tries: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Clopper and Pearson's one-sided bounds of a probability, each at the confidence."""
    from scipy.stats import beta

    miss = 1 - confidence
    low = 0.0 if hits == 0 else float(beta.ppf(miss, hits, tries - hits + 1))
    high = 1.0 if hits == tries else float(beta.ppf(1 - miss, hits + 1, tries - hits))
    return low, high


def epsilon_below(
    ours: Samples, theirs: Samples, delta: float = 0.0, confidence: float = CONFIDENCE
) -> float:
    """Return an epsilon that the mechanism surely exceeds or equals, by one threshold event.

    The event {x >= t} or {x <= t} is chosen on a quarter of the samples and judged on the rest.
    """
    import numpy as np

    few = len(ours) // 4
    best, event = -math.inf, None
    levels = np.quantile(np.concatenate([ours[:few], theirs[:few]]), np.linspace(0, 1, LEVELS))
    for level in np.unique(levels):
        for upper in (True, False):
            hits = [_hits(part[:few], level, upper) for part in (ours, theirs)]
            for first, second in (hits, hits[::-1]):
                guess = _ratio(first, second, few, delta, confidence)
                if guess > best:
                    best, event = guess, (level, upper, first is hits[0])
    if event is None:
        return 0.0
    level, upper, straight = event
    judged = [_hits(part[few:], level, upper) for part in (ours, theirs)]
    first, second = judged if straight else judged[::-1]
    return max(0.0, _ratio(first, second, len(ours) - few, delta, confidence))


def _hits(samples: Samples, level: float, upper: bool) -> int:
    import numpy as np

    return int(np.count_nonzero(samples >= level if upper else samples <= level))


def _ratio(first: int, second: int, tries: int, delta: float, confidence: float) -> float:
    low = proportion_bounds(first, tries, confidence)[0]
    high = proportion_bounds(second, tries, confidence)[1]
    return math.log((low - delta) / high) if low > delta else -math.inf
