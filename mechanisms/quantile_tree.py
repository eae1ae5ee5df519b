"""Noisy counts of a tree over an interval in, quantiles and their intervals out.

The tree has LEVELS levels below its root; each node has BRANCHING children. Each row counts once
on every level, so one row moves the whole vector by LEVELS in L1 norm. All that happens here is
post-processing of the noisy vector: quantiles asked later cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np
import numpy.typing as npt

BRANCHING: Final = 16
LEVELS: Final = 3
LEAVES: Final = BRANCHING**LEVELS
NODES: Final = sum(BRANCHING**level for level in range(1, LEVELS + 1))
_WIDTHS: Final = tuple(BRANCHING**level for level in range(1, LEVELS + 1))
# A prefix of the leaves is at most this many nodes: BRANCHING - 1 on each level.
_PREFIX_NODES: Final = (BRANCHING - 1) * LEVELS

Floats = npt.NDArray[np.float64]


def node_counts(leaves: Mapping[int, int]) -> npt.NDArray[np.int64]:
    """Return the exact counts of all nodes, top level first, from the counts of the leaves.

    Guarantee: adding a row to one leaf adds 1 to exactly one node of each level.
    """
    flat = np.zeros(LEAVES, dtype=np.int64)
    for leaf, count in leaves.items():
        if not 0 <= leaf < LEAVES:
            raise ValueError(f"a leaf lies in 0..{LEAVES - 1}, got {leaf!r}")
        flat[leaf] += count
    levels = [flat.reshape(width, -1).sum(axis=1) for width in _WIDTHS]
    return np.concatenate(levels)


def consistent(noisy: Floats) -> Floats:
    """Return leaf estimates that agree with every level, of least squared error.

    Hay, Rastogi, Miklau, Suciu 2010 (Boosting the accuracy of differentially private histograms
    through consistency, section 4): weighted averages upwards, then differences downwards.
    """
    if noisy.shape != (NODES,):
        raise ValueError(f"a tree has {NODES} nodes, got {noisy.shape}")
    levels = np.split(noisy, np.cumsum(_WIDTHS)[:-1])
    upward = [levels[-1]]
    for height in range(1, LEVELS):
        own = levels[LEVELS - 1 - height]
        children = upward[0].reshape(-1, BRANCHING).sum(axis=1)
        size = BRANCHING ** (height + 1)
        weight = (size - BRANCHING**height) / (size - 1)
        upward.insert(0, weight * own + (1 - weight) * children)
    final = upward[0]
    for below in upward[1:]:
        groups = below.reshape(-1, BRANCHING)
        gap = (final - groups.sum(axis=1)) / BRANCHING
        final = (groups + gap[:, None]).reshape(-1)
    return final


@dataclass(frozen=True, slots=True)
class Distribution:
    """A noisy distribution function over the leaves; `deviation` is that of one node's noise."""

    cumulated: Floats
    deviation: float

    @staticmethod
    def of(noisy: Floats, deviation: float) -> Distribution:
        """Build the distribution function: rising, so that quantiles keep their order."""
        sums = np.cumsum(consistent(noisy))
        rising = np.maximum.accumulate(sums)
        falling = np.minimum.accumulate(sums[::-1])[::-1]
        return Distribution((rising + falling) / 2, deviation)

    @property
    def total(self) -> float:
        """The noisy number of rows."""
        return float(self.cumulated[-1])

    def position(self, share: float) -> float:
        """Return where a share of the rows lies below, in leaves from 0 to LEAVES."""
        target = min(max(share, 0.0), 1.0) * self.total
        leaf = min(int(np.searchsorted(self.cumulated, target, side="left")), LEAVES - 1)
        before = float(self.cumulated[leaf - 1]) if leaf else 0.0
        inside = float(self.cumulated[leaf]) - before
        return leaf + (min(max((target - before) / inside, 0.0), 1.0) if inside > 0 else 0.0)

    def extreme_share(self) -> float:
        """Return the share of rows that noise alone can make appear beyond the last row."""
        return min(0.5, self.rank_error() / max(self.total, 1.0))

    def rank_error(self) -> float:
        """Return a bound at about 95 % on the error of a cumulated count (normal tail)."""
        return 1.96 * self.deviation * sqrt(_PREFIX_NODES)

    def interval(self, share: float) -> tuple[float, float]:
        """Return positions between which the quantile lies, at about 95 %."""
        slack = self.rank_error() / max(self.total, 1.0)
        return self.position(share - slack), self.position(share + slack)
