"""Training patients and a share of the price in, a noisy measure of each feature's worth out.

What a feature tells of the label is bought as one Gaussian release within the run, in one of two
forms: the means of the inputs in each class of the label (`by="means"`), or the information that
noisy tables of counts (feature by label) hold (`by="information"`). The first asks less of each
patient, so that it is heard at small budgets; the second sees what no mean shows. Inputs are then
multiplied by public numbers that grow with it: the same as giving useful features less noise, and
others more. The papers that adapt noise to entropy or importance take these numbers from the rows
themselves, which is a leak.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from mechanisms import gaussian
from mechanisms.randomness import Randomness
from models.clipping import KEPT
from models.descent import noised
from models.encoding import Doubles, Encoding, Floats, Task
from models.family import typical_norm
from models.table import Places, Table

BINS: Final = 4  # of a number, in equal parts of its bounds
FLOOR: Final = 0.02  # no feature is dropped: some tell something only beside others
MEANS_CLIP: Final = 0.5  # of the norm that an encoded row has by its encoding alone
MEANS_FLOOR: Final = 0.1
NULL_SHARE: Final = 1.2
REPEATS: Final = 40  # of the draw that says what a feature that tells nothing looks like
Scales = npt.NDArray[np.float64]


def table_shapes(encoding: Encoding) -> tuple[tuple[int, int], ...]:
    """Return each feature's number of bins and the number of the label's, for one table each."""
    labels = max(2, encoding.outputs) if encoding.task is not Task.REAL else BINS
    return tuple((len(places) if len(places) > 2 else BINS, labels)
                 for places in _places(encoding))


def importance(
    encoding: Encoding, table: Table, multiplier: float, randomness: Randomness,
    by: str = "means",
) -> Scales:
    """Return a factor for each feature, of root mean square 1: one Gaussian release of noise
    `multiplier` times what one patient moves, and post-processing of it.
    """
    found = _by_means if by == "means" else _by_information
    return found(encoding, table, multiplier, randomness)


def _by_means(
    encoding: Encoding, table: Table, multiplier: float, randomness: Randomness
) -> Scales:
    """Return factors that grow with how far the classes' means lie apart, less the noise's share.

    Guarantee: each patient counts by its first row only, in the sum of its own label's class:
    its inputs and a one for the count, scaled to a norm of at most 1. So one patient moves all
    sums together by at most 1 in L2 norm; they are noised together, and read no other way.
    """
    rows = table.starts[:-1]
    classes = table_shapes(encoding)[0][1]
    labels = _label_bins(encoding, table.targets[rows])
    given = np.nan_to_num(table.inputs[rows], nan=0.0, posinf=0.0, neginf=0.0).astype(np.float64)
    given = np.append(given, np.ones((len(rows), 1)), axis=1)
    bound = MEANS_CLIP * typical_norm(encoding)
    given *= (KEPT / np.maximum(np.linalg.norm(given, axis=1), bound))[:, None]
    sums = np.stack([given[labels == k].sum(axis=0) for k in range(classes)])
    noisy = noised(sums.reshape(-1), multiplier, randomness).reshape(sums.shape)
    counts = np.maximum(noisy[:, -1], 1.0)
    shares = counts / counts.sum()
    means = noisy[:, :-1] / counts[:, None]
    apart = shares @ (means - shares @ means) ** 2
    by_noise = float(np.sum(shares * (1 - shares) * (multiplier / counts) ** 2))
    gains = np.array([math.sqrt(max(float(apart[places].mean()) - by_noise, 0.0))
                      for places in _places(encoding)])
    return _factors(gains / (gains.mean() or 1.0) + MEANS_FLOOR)


def _factors(raised: Scales) -> Scales:
    """Return the roots of gains, of root mean square 1."""
    factors = np.sqrt(raised / raised.mean())
    found: Scales = factors / math.sqrt(float(np.mean(factors**2)))
    return found


def _by_information(
    encoding: Encoding, table: Table, multiplier: float, randomness: Randomness
) -> Scales:
    """Return factors that grow with the root of the mutual information, less an independent one's.

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
        gains.append(information_gain((cells + drawn).astype(np.float64), sigma, randomness))
    return _factors(np.array(gains) + FLOOR)


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


def information_gain(noisy: Doubles, sigma: float, randomness: Randomness) -> float:
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
