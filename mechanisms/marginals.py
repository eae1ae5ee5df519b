"""Which marginals of a table of counts to measure, how exactly, and how to answer others by them.

A marginal is a set of attributes: its cells are the products of their values, and its numbers are
those of the whole table summed over all other attributes. Independent noise of one variance a cell
is isotropic, so every marginal splits into orthogonal residuals, one for each of its subsets: what
the subset tells beyond its own subsets. On each residual the measured marginals are independent
estimates with known variances; their average by inverse variance is the least-squares answer
(McKenna, Miklau, Hay and Machanavajjhala 2018, section 6.3, for the strategies; Xiao, He, Zhang and
Kifer 2023, ResidualPlanner, for the residuals).

Nothing here sees private numbers: sizes are public, and tables are already released.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import prod

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Marginal = frozenset[int]

CANDIDATES_MAX = 64
ROUNDS = 400
SHARE_MIN = 0.005  # a marginal that would get less is not measured


@dataclass(frozen=True, slots=True)
class Strategy:
    """What to measure: the share of each marginal (they sum to 1), and the cost at one unit.

    `cost` is the weighted sum of the variances of all wanted cells' marginals, in units of the
    variance that one marginal alone would have with everything.
    """

    shares: Mapping[Marginal, float]
    cost: float


@dataclass(frozen=True, slots=True)
class Measured:
    """The released cells of a marginal, axes in the order of attributes, and their variance."""

    cells: Floats
    variance: float


@dataclass(frozen=True, slots=True)
class Coefficient:
    """One wanted cell counts `count` cells of a measured marginal `factor` times each."""

    marginal: Marginal
    factor: float
    count: int


def ordered(marginals: Mapping[Marginal, object] | set[Marginal]) -> list[Marginal]:
    """Return marginals in an order that depends on nothing but themselves."""
    return sorted(marginals, key=lambda m: (len(m), sorted(m)))


def subsets(marginal: Marginal) -> list[Marginal]:
    """Return all subsets, the smallest first."""
    members = sorted(marginal)
    return [
        frozenset(chosen) for size in range(len(members) + 1)
        for chosen in combinations(members, size)
    ]


def cells_of(sizes: tuple[int, ...], marginal: Marginal) -> int:
    """Return how many cells a marginal has."""
    return prod(sizes[i] for i in marginal)


def candidates(wanted: set[Marginal], sizes: tuple[int, ...], cells_max: int) -> list[Marginal]:
    """Return the wanted marginals and their unions, as far as their cells are not too many."""
    found = set(wanted)
    while True:
        unions = {a | b for a in found for b in found} - found
        unions = {m for m in unions if cells_of(sizes, m) <= cells_max}
        if not unions:
            return ordered(found)
        if len(found) + len(unions) > CANDIDATES_MAX:
            whole = frozenset().union(*wanted)
            fits = cells_of(sizes, whole) <= cells_max
            return ordered(wanted | {whole}) if fits else ordered(wanted)
        found |= unions


def allocate(
    wanted: Mapping[Marginal, float], sizes: tuple[int, ...], among: list[Marginal],
    *, squared: bool,
) -> Strategy:
    """Choose shares that minimise the weighted sum of the variances of the wanted cells.

    A marginal with share s has cells of variance 1/s^2 (`squared`: Laplace noise, whose epsilons
    add up) or 1/s (Gaussian noise, whose rho adds up). Shares are updated by the power of their
    gains that leaves them where all gains are equal (Silvey, Titterington and Torsney 1978),
    from several starts, and the best of all rounds is kept. Depends on its arguments alone.
    """
    problem = _Problem.of(wanted, sizes, among, squared)
    best = problem.best_of([
        _start(among, lambda m: 1.0 if m in wanted else 1e-3),
        _start(among, lambda m: 1.0),
        _start(among, lambda m: 1.0 if m == among[-1] else 0.05),
        _start(among, lambda m: 1.0 if _is_maximal(m, wanted) else 0.02),
    ])
    kept = [m for m, share in zip(among, best, strict=True) if share >= SHARE_MIN]
    if len(kept) < len(among) and all(any(w <= m for m in kept) for w in wanted):
        fewer = _Problem.of(wanted, sizes, kept, squared)
        start = np.asarray([s for m, s in zip(among, best, strict=True) if m in set(kept)])
        shares = fewer.best_of([start / start.sum()])
        return Strategy(dict(zip(kept, shares.tolist(), strict=True)), fewer.cost(shares)[0])
    return Strategy(dict(zip(among, best.tolist(), strict=True)), problem.cost(best)[0])


def _start(among: list[Marginal], weight: object) -> Floats:
    found = np.asarray([weight(m) for m in among], dtype=np.float64)  # type: ignore[operator]
    return found / found.sum()  # type: ignore[no-any-return]


def _is_maximal(marginal: Marginal, wanted: Mapping[Marginal, float]) -> bool:
    return marginal in wanted and not any(marginal < other for other in wanted)


@dataclass(frozen=True, slots=True)
class _Problem:
    """The sum over residuals of `needed / precision`, where precision = reach @ precisions."""

    needed: Floats
    reach: Floats
    squared: bool

    @classmethod
    def of(
        cls, wanted: Mapping[Marginal, float], sizes: tuple[int, ...], among: list[Marginal],
        squared: bool,
    ) -> _Problem:
        weights: dict[Marginal, float] = {}
        for marginal in ordered(wanted):
            for part in subsets(marginal):
                share = wanted[marginal] * _part(part, marginal, sizes)
                weights[part] = weights.get(part, 0.0) + share
        residuals = ordered(weights)
        reach = [[_reach(part, m, sizes) for m in among] for part in residuals]
        return cls(np.asarray([weights[p] for p in residuals]), np.asarray(reach), squared)

    def cost(self, shares: Floats) -> tuple[float, Floats]:
        """Return the cost, and how much each share would lower it."""
        precision = self.reach @ (np.square(shares) if self.squared else shares)
        if not (precision > 0).all():
            return np.inf, np.zeros_like(shares)
        gains = self.reach.T @ (self.needed / np.square(precision))
        return float((self.needed / precision).sum()), gains * (2 * shares if self.squared else 1)

    def best_of(self, starts: list[Floats]) -> Floats:
        best, least = starts[0], np.inf
        for start in starts:
            shares = start
            for _ in range(ROUNDS):
                cost, gains = self.cost(shares)
                if cost < least:
                    best, least = shares, cost
                shares = shares * np.power(gains, 1 / 3 if self.squared else 1 / 2)
                if not shares.sum() > 0:
                    break
                shares = shares / shares.sum()
        return best


def _part(residual: Marginal, marginal: Marginal, sizes: tuple[int, ...]) -> float:
    """Return the variance of one cell of a marginal for each unit of a residual's variance."""
    inside = prod((sizes[i] - 1) / sizes[i] for i in residual)
    return float(inside / prod(sizes[i] for i in marginal - residual) ** 2)


def _reach(residual: Marginal, marginal: Marginal, sizes: tuple[int, ...]) -> float:
    """Return a measured marginal's precision on a residual, at precision 1 of its cells."""
    if not residual <= marginal:
        return 0.0
    return 1 / float(prod(sizes[i] for i in marginal - residual))


def _weights(
    residual: Marginal, sizes: tuple[int, ...], variances: Mapping[Marginal, float]
) -> dict[Marginal, float]:
    """Return how much each measured marginal counts for a residual: by inverse variance."""
    exact = [m for m in ordered(variances) if residual <= m and variances[m] == 0]
    if exact:
        return {exact[0]: 1.0}
    found = {
        m: _reach(residual, m, sizes) / variances[m] for m in ordered(variances) if residual <= m
    }
    total = sum(found.values())
    if not total > 0:
        raise ValueError(f"no measured marginal covers {sorted(residual)}")
    return {m: weight / total for m, weight in found.items()}


def combined(
    wanted: Marginal, sizes: tuple[int, ...], measured: Mapping[Marginal, Measured]
) -> Floats:
    """Return the least-squares answer of a marginal, axes in the order of attributes.

    Answers of different marginals from the same measurements agree: each is a sum of the same
    residuals, so summing a finer one over an attribute gives the coarser one (up to rounding of
    floats). Unbiased, whatever the variances. Raises ValueError where nothing covers `wanted`.
    """
    axes = sorted(wanted)
    variances = {m: table.variance for m, table in measured.items()}
    answer = np.zeros([sizes[i] for i in axes])
    for residual in subsets(wanted):
        weights = _weights(residual, sizes, variances)
        estimate = sum(
            weight * _residual(measured[m].cells, m, residual) for m, weight in weights.items()
        )
        shape = [sizes[i] if i in residual else 1 for i in axes]
        spread = prod(sizes[i] for i in wanted - residual)
        answer = answer + np.reshape(np.asarray(estimate), shape) / spread
    return np.asarray(answer, dtype=np.float64)


def _residual(cells: Floats, marginal: Marginal, residual: Marginal) -> Floats:
    """Sum the cells over all other attributes; take off the mean along each of the residual's."""
    axes = sorted(marginal)
    found = cells.sum(axis=tuple(axes.index(i) for i in marginal - residual))
    for axis in range(len(residual)):
        found = found - found.mean(axis=axis, keepdims=True)
    return np.asarray(found, dtype=np.float64)


def coefficients(
    wanted: Marginal, sizes: tuple[int, ...], variances: Mapping[Marginal, float]
) -> tuple[Coefficient, ...]:
    """Return what one cell of `combined` adds up; by symmetry it is the same for every cell.

    A cell of a measured marginal counts by the attributes on which it agrees with the wanted one.
    """
    found: list[Coefficient] = []
    weights = {part: _weights(part, sizes, variances) for part in subsets(wanted)}
    for marginal in ordered(variances):
        shared = wanted & marginal
        for agreed in subsets(shared):
            factor = 0.0
            for residual in subsets(shared):
                signs = prod(
                    (1 - 1 / sizes[i]) if i in agreed else -1 / sizes[i] for i in residual
                )
                spread = prod(sizes[i] for i in wanted - residual)
                factor += weights[residual].get(marginal, 0.0) * signs / spread
            count = prod(sizes[i] - 1 for i in shared - agreed) * cells_of(
                sizes, marginal - wanted
            )
            if factor and count:
                found.append(Coefficient(marginal, float(factor), int(count)))
    return tuple(found)
