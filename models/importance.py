"""Training patients and a share of the price in, a noisy measure of each feature's worth out.

What a feature tells of the label is read off noisy tables of counts (feature by label), bought as
one Gaussian release within the run. Inputs are then multiplied by public numbers that grow with
it: the same as giving useful features less noise, and others more. The papers that adapt noise to
entropy or importance take these numbers from the rows themselves, which is a leak.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from mechanisms import gaussian
from mechanisms.randomness import Randomness
from models.encoding import Doubles, Encoding, Floats, Task
from models.table import Places, Table

BINS: Final = 4  # of a number, in equal parts of its bounds
FLOOR: Final = 0.02  # no feature is dropped: some tell something only beside others
NULL_SHARE: Final = 1.2
REPEATS: Final = 40  # of the draw that says what a feature that tells nothing looks like
Scales = npt.NDArray[np.float64]


def table_shapes(encoding: Encoding) -> tuple[tuple[int, int], ...]:
    """Return each feature's number of bins and the number of the label's, for one table each."""
    labels = max(2, encoding.outputs) if encoding.task is not Task.REAL else BINS
    return tuple((len(places) if len(places) > 2 else BINS, labels)
                 for places in _places(encoding))


def importance(
    encoding: Encoding, table: Table, multiplier: float, randomness: Randomness
) -> Scales:
    """Return a factor for each feature, of root mean square 1.

    Guarantee: each patient counts by its first row only, once in the table of each of the d
    features: it moves all tables together by at most sqrt(d) in L2 norm. Every cell gets an exact
    discrete Gaussian draw of sigma multiplier * sqrt(d), rounded up. What follows is
    post-processing: the null is simulated from the noisy tables themselves.
    """
    rows = table.starts[:-1]
    shapes = table_shapes(encoding)
    sigma = float(np.nextafter(multiplier * math.sqrt(len(shapes)), np.inf))
    labels = _label_bins(encoding, table.targets[rows])
    gains = []
    for places, (bins, columns) in zip(_places(encoding), shapes, strict=True):
        cells = np.zeros((bins, columns), dtype=np.int64)
        np.add.at(cells, (_feature_bins(table.inputs[rows][:, places], bins), labels), 1)
        drawn = gaussian.sample(sigma, cells.size, randomness).reshape(cells.shape)
        gains.append(_gain((cells + drawn).astype(np.float64), sigma, randomness))
    raised = np.array(gains) + FLOOR
    factors = np.sqrt(raised / raised.mean())
    found: Scales = factors / math.sqrt(float(np.mean(factors**2)))
    return found


def scaled(encoding: Encoding, inputs: Floats, factors: Scales) -> Floats:
    """Return inputs with each feature's columns multiplied by its factor."""
    found: Floats = inputs * factors[list(encoding.blocks)].astype(np.float32)
    return found


def with_scales(table: Table, encoding: Encoding, factors: Scales) -> Table:
    """Return the table with each feature's inputs multiplied by its public factor."""
    return replace(table, inputs=scaled(encoding, table.inputs, factors))


def _places(encoding: Encoding) -> list[list[int]]:
    """Return each feature's columns in the matrix."""
    found: list[list[int]] = [[] for _ in encoding.features]
    for place, feature in enumerate(encoding.blocks):
        found[feature].append(place)
    return found


def _feature_bins(columns: Floats, bins: int) -> Places:
    """Return the bin of each row: its category, or which part of the bounds its number is in."""
    if columns.shape[1] == bins and bins > 2:
        chosen: Places = np.argmax(columns, axis=1)
        return chosen
    return _part_of_bounds(columns[:, 0], bins)


def _label_bins(encoding: Encoding, targets: Floats) -> Places:
    if encoding.task is not Task.REAL:
        labels: Places = np.nan_to_num(targets).astype(np.int64).clip(
            0, max(2, encoding.outputs) - 1)
        return labels
    return _part_of_bounds(targets, BINS)


def _part_of_bounds(values: Floats, bins: int) -> Places:
    """Return in which of `bins` equal parts of [-1, 1] each value lies; NaN counts as 0."""
    parts: Places = np.floor((np.nan_to_num(values) + 1) / 2 * bins).clip(0, bins - 1).astype(
        np.int64)
    return parts


# ---- reading information off noisy tables ------------------------------------------------------


def _gain(noisy: Doubles, sigma: float, randomness: Randomness) -> float:
    """Return the root of the mutual information, less what independent columns would show."""
    clipped = np.maximum(noisy, 0)
    total = clipped.sum()
    if total < 1:
        return 0.0
    independent = np.outer(clipped.sum(axis=1), clipped.sum(axis=0)) / total
    null = [
        _root_information(np.maximum(
            independent + np.sqrt(independent + sigma**2) * _normal(noisy.shape, randomness), 0))
        for _ in range(REPEATS)
    ]
    return max(_root_information(clipped) - NULL_SHARE * float(np.mean(null)), 0.0)


def _root_information(counts: Doubles) -> float:
    """Return the square root of the mutual information of a table, in nats."""
    total = counts.sum()
    if total <= 0:
        return 0.0
    shares = counts / total
    product = np.outer(shares.sum(axis=1), shares.sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(shares > 0, shares * np.log(shares / product), 0.0)
    return math.sqrt(max(float(terms.sum()), 0.0))


def _normal(shape: tuple[int, ...], randomness: Randomness) -> Doubles:
    """Return standard normal draws for simulations, which protect nothing."""
    count = math.prod(shape)
    uniform = (randomness.uint64(2 * count) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    radius = np.sqrt(-2 * np.log(uniform[:count] + 2.0**-54))
    drawn: Doubles = (radius * np.cos(2 * np.pi * uniform[count:])).reshape(shape)
    return drawn
