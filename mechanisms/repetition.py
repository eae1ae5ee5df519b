"""The best of a random number of runs: the loss of one run in, the loss of the best of them out.

A mechanism is run K times with fresh randomness, and the output that is largest in a fixed order is
released; all others, and K, are forgotten. K is drawn from a public law. How much that costs does
not depend on how many outputs there could be, and little on how many runs there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from mechanisms.bounds import log_bounds, round_up_dyadic
from mechanisms.conversion import epsilon_at
from mechanisms.randomness import Randomness

MEAN_MAX: Final = 100
GAMMA_BITS: Final = 40
RISES: Final = 3
ORDERS: Final = (*map(Fraction, ("5/4", "3/2", "7/4")), *map(Fraction, (
    *(2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 18, 20, 22, 24, 28, 32),
    *(36, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256),
)))
LAWS: Final = {"logarithmic": 0, "geometric": 1}
Curve = Callable[[Fraction], Fraction]


@dataclass(frozen=True, slots=True)
class Repetitions:
    """The law of K, one of the truncated negative binomial family (LAWS).

    For k from 1 up P(K = k) is gamma (1 - gamma)^(k - 1) where it is "geometric" (eta = 1), and
    (1 - gamma)^k / (k ln(1/gamma)) where it is "logarithmic" (eta = 0).
    """

    name: str
    gamma: Fraction

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name in LAWS):
            raise ValueError(f"the law must be logarithmic or geometric, got {self.name!r}")
        if not (isinstance(self.gamma, Fraction) and Fraction(1, 2**20) <= self.gamma < 1):
            raise ValueError(f"gamma must lie between 2**-20 and 1, got {self.gamma!r}")

    @classmethod
    def of_mean(cls, name: str, mean: float) -> Repetitions:
        """Return the law with about this expectation, above 1 and at most MEAN_MAX."""
        if not 1 < mean <= MEAN_MAX:
            raise ValueError(f"the expected number of runs must lie above 1 and up to {MEAN_MAX}, "
                             f"got {mean!r}")
        if name not in LAWS:
            raise ValueError(f"the law must be logarithmic or geometric, got {name!r}")
        low, high = 2.0**-20, 1 - 2.0**-20
        while high - low > 2.0**-GAMMA_BITS:
            middle = (low + high) / 2
            low, high = (low, middle) if _mean(LAWS[name], middle) < mean else (middle, high)
        return cls(name, Fraction(round(low * 2**GAMMA_BITS), 2**GAMMA_BITS))

    @property
    def eta(self) -> int:
        """The shape parameter of the family."""
        return LAWS[self.name]

    @property
    def mean(self) -> float:
        """The expectation of K."""
        return _mean(self.eta, float(self.gamma))

    @property
    def log_mean(self) -> Fraction:
        """The logarithm of the expectation, rounded up."""
        if self.eta == 1:
            return log_bounds(1 / self.gamma, 160)[1]
        return log_bounds((1 / self.gamma - 1) / log_bounds(1 / self.gamma, 160)[0], 160)[1]

    def sample(self, randomness: Randomness) -> int:
        """Draw K. Private: a release whose K is known as well costs up to K times a single run.

        Guarantee: exactly of the law. A geometric draw k that is kept with probability 1/k has
        probability proportional to (1 - gamma)^(k - 1) / k, the logarithmic law.
        """
        while True:
            drawn = 1
            while not randomness.bernoulli(self.gamma):
                drawn += 1
            if self.eta == 1 or randomness.bernoulli(Fraction(1, drawn)):
                return drawn


def _mean(eta: int, gamma: float) -> float:
    return 1 / gamma if eta == 1 else (1 / gamma - 1) / math.log(1 / gamma)


def rdp(curve: Curve, law: Repetitions, order: Fraction) -> Fraction:
    """Return the Renyi divergence at `order` of the best of K runs, rounded up.

    `curve` gives an upper bound of a single run's divergence at an order, in both directions.

    Guarantee: Papernot and Steinke 2022, theorem 2: at order a it is at most
    e(a) + (1 + eta) (1 - 1/b) e(b) + (1 + eta) ln(1/gamma) / b + ln(E K) / (a - 1)
    for every order b >= 1. Which b is tried decides how tight that is, never whether it holds. A
    divergence grows with its order, so the bound of a higher order holds as well.
    """
    extra, log_mean = _extra(curve, law), law.log_mean
    tried = (order, *(a for a in ORDERS if a > order))
    return round_up_dyadic(extra + _least(curve(a) + log_mean / (a - 1) for a in tried), 160)


def epsilon_for(curve: Curve, law: Repetitions, delta: Fraction) -> Fraction:
    """Return an epsilon at `delta` of the best of K runs, rounded up."""
    extra, log_mean = _extra(curve, law), law.log_mean
    return round_up_dyadic(_least(
        epsilon_at(a, extra + curve(a) + log_mean / (a - 1), delta) for a in ORDERS))


def _extra(curve: Curve, law: Repetitions) -> Fraction:
    """Return the part that does not depend on the order."""
    log_gamma = log_bounds(1 / law.gamma, 160)[1]
    return (1 + law.eta) * _least((1 - 1 / b) * curve(b) + log_gamma / b for b in ORDERS)


def _least(bounds: Iterator[Fraction]) -> Fraction:
    """Return the least of bounds that fall and then rise: high orders take long to compute."""
    best, worse = next(bounds), 0
    for found in bounds:
        best, worse = (found, 0) if found < best else (best, worse + 1)
        if worse == RISES:
            break
    return best

