"""Does a sample follow a law? Draws and a distribution function in, a p-value out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import stats

# Chance that a right sampler fails one test. Seeds are fixed, so a test never changes its mind.
FALSE_ALARM = 1e-6
LEAST_EXPECTED = 4


def p_value(draws: npt.NDArray[np.int64], below: Callable[[int], float], spread: float) -> float:
    """Return the chi-square p-value of `draws` against P(Z < k) = below(k).

    Cells are single integers, or about 60 equal ranges within 5 `spread` if there are more.
    """
    reach = max(3, round(5 * spread))
    edges = np.unique(np.linspace(-reach, reach, min(2 * reach + 1, 61)).round().astype(np.int64))
    cumulative = np.array([0.0, *(below(int(k)) for k in edges), 1.0])
    expected = np.diff(cumulative) * len(draws)
    cells = np.searchsorted(edges, draws, side="right")
    observed = np.bincount(cells, minlength=len(expected)).astype(float)
    observed, expected = _merge_thin_cells(observed, expected)
    return float(stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue)


def _merge_thin_cells(
    observed: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    merged: list[list[float]] = [[0.0, 0.0]]
    for seen, awaited in zip(observed, expected, strict=True):
        if merged[-1][1] >= LEAST_EXPECTED:
            merged.append([0.0, 0.0])
        merged[-1][0] += seen
        merged[-1][1] += awaited
    if len(merged) > 1 and merged[-1][1] < LEAST_EXPECTED:
        seen, awaited = merged.pop()
        merged[-1][0] += seen
        merged[-1][1] += awaited
    table = np.array(merged)
    return table[:, 0], table[:, 1]
