"""Training patients and a share of the price in, a noisy measure of each feature's worth out.

What a feature tells of the label is bought within the run, in one of two forms: the means of the
inputs in each class of the label (`by="means"`), or the information that noisy tables of counts
(feature by label) hold (`by="information"`). The first asks less of each patient, so that it is
heard at small budgets; the second sees what no mean shows. Inputs are then multiplied by public
numbers that grow with it: the same as giving useful features less noise, and others more. The
papers that adapt noise to entropy or importance take these numbers from the rows themselves,
which is a leak.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from mechanisms.randomness import Randomness
from models.clipping import KEPT
from models.counts import noised_counts
from models.descent import noised
from models.encoding import Doubles, Encoding, Floats, Task
from models.family import typical_norm
from models.run import is_classified
from models.table import Places, Table

BINS: Final = 4  # of a number, in equal parts of its bounds
COUNT_EDGES: Final = (0.25, 0.5, 1.0)  # of a count: an eighth of its bound, a fourth, a half
FLOOR: Final = 0.02  # no feature is dropped: some tell something only beside others
CENTRED_NORM: Final = 0.7  # of what is left of a row's usual norm once the centre is taken off
# A feature that was told from noise is raised by up to 1 more than these. Both were chosen on adult
# and diabetes130, not on the table that benchmarks/training.py measures importance on.
ROUND_FLOOR: Final = 1.0  # of the second release: what was not seen yet may be seen then
MEANS_FLOOR: Final = 0.1
AT_ONCE_NORM: Final = 0.5  # of a row's usual norm, where all is asked in one release
VARIANCE_MIN: Final = 0.01  # of an input: what varies less is not raised further
NULL_SHARE: Final = 1.2
REPEATS: Final = 40  # of the draw that says what a feature that tells nothing looks like
Scales = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Findings:
    """What was released of the features; all of it is public.

    Of each feature `worth` is what it was found to tell and `scales` what its inputs are
    multiplied by; `centres` is taken off each column of the matrix before. `odds` are the
    logarithms of the classes' shares, where they were asked.
    """

    worth: Scales
    scales: Scales
    centres: Scales
    odds: Scales | None = None

    def offset(self, encoding: Encoding) -> Scales:
        """Return what the scaled inputs lack: the scaled centre."""
        found: Scales = self.centres * self.scales[list(encoding.blocks)]
        return found

    def start(self, encoding: Encoding) -> Scales:
        """Return the scores that a model of centred inputs starts with, one for each output."""
        if self.odds is None or not is_classified(encoding):
            return np.zeros(encoding.outputs)
        odds = self.odds[1:] - self.odds[0] if encoding.task is Task.BINARY else self.odds
        return np.asarray(odds, dtype=np.float64)


def table_shapes(encoding: Encoding) -> tuple[tuple[int, int], ...]:
    """Return each feature's number of bins and the number of the label's, for one table each."""
    labels = max(2, encoding.outputs) if is_classified(encoding) else BINS
    return tuple((len(places) if len(places) > 2 else BINS, labels)
                 for places in _places(encoding))


def importance(
    encoding: Encoding, table: Table, multiplier: float, randomness: Randomness,
    centres_multiplier: float | None = None,
) -> Findings:
    """Return what features tell of the label, from noise of `multiplier` times one patient's part.

    With `centres_multiplier` it is measured by the means of classes: that release is made, and
    run.MEANS_ROUNDS of `multiplier`. Without, by the information in tables of counts: one.
    """
    if centres_multiplier is None:
        return _by_information(encoding, table, multiplier, randomness)
    return _by_means(encoding, table, centres_multiplier, multiplier, randomness)


def _by_means(
    encoding: Encoding, table: Table, centres_multiplier: float, multiplier: float,
    randomness: Randomness,
) -> Findings:
    """Return what the means of classes tell, beside the noise and beside the inputs' own spread.

    The first release finds the middle of all inputs. Seen from there rows are short, and the
    means of the classes have less noise by as much. They are asked twice: the second time each
    input is multiplied by what the first time told, so that noise goes where nothing was found.

    Guarantee: each patient counts by its first row only, once in each of the three releases,
    whose sums it moves by at most 1 in L2 norm, whatever was released before; they are noised,
    and the rows are read no other way.
    """
    rows = table.starts[:-1]
    classes = table_shapes(encoding)[0][1]
    labels = _label_bins(encoding, table.targets[rows])
    given = np.nan_to_num(table.inputs[rows], nan=0.0, posinf=0.0, neginf=0.0).astype(np.float64)
    ones = np.ones((len(rows), 1))
    typical = typical_norm(encoding)
    total = noised(_bounded(np.hstack([given, ones]), typical).sum(axis=0), centres_multiplier,
                   randomness)
    centre = _told(total[:-1], centres_multiplier) / max(float(total[-1]), centres_multiplier)
    centre = np.clip(centre, -1, 1)
    away = given - centre
    left = CENTRED_NORM * math.sqrt(max(typical**2 - float(centre @ centre), 1.0))
    sums, squares = _class_sums(away, away**2, labels, classes, left, multiplier, randomness)
    first = _Means.of(sums, squares, multiplier * left)
    raised, size = _raised(encoding, first, ROUND_FLOOR)
    lengths = raised[list(encoding.blocks)]
    norm = CENTRED_NORM * math.sqrt(size + 1)
    sums, _ = _class_sums(away * lengths, away[:, :0], labels, classes, norm, multiplier,
                          randomness)
    return _findings(encoding, centre, first.beside(sums, multiplier * norm, lengths))


def _class_sums(
    vectors: Doubles, beside: Doubles, labels: Places, classes: int, norm: float,
    multiplier: float, randomness: Randomness,
) -> tuple[Doubles, Doubles]:
    """Return noisy sums of each class's vectors, ended by its count, and those of `beside`.

    Guarantee: one release. A patient is in the sums of one class, and in those of `beside`, with
    one row that is shortened to `norm` as a whole; so over `norm` it moves all of them together
    by at most 1.
    """
    width = vectors.shape[1] + 1
    parts = _bounded(np.hstack([vectors, np.ones((len(vectors), 1)), beside]), norm)
    sums = np.zeros((classes, width))
    for k in range(classes):
        sums[k] = parts[labels == k, :width].sum(axis=0)
    noisy = norm * noised(np.append(sums.reshape(-1), parts[:, width:].sum(axis=0)), multiplier,
                          randomness)
    return noisy[: sums.size].reshape(sums.shape), noisy[sums.size :]


def _bounded(vectors: Doubles, norm: float) -> Doubles:
    """Return each row over `norm`, shortened where it is longer.

    Guarantee: no row of the result has an L2 norm above KEPT < 1.
    """
    found: Doubles = vectors * (KEPT / np.maximum(np.linalg.norm(vectors, axis=1), norm))[:, None]
    return found


def _told(noisy: Doubles, noise: float) -> Doubles:
    """Return a noisy vector, shrunk to zero by as much of it as is noise (James and Stein)."""
    square = float(noisy @ noisy)
    found: Doubles = noisy * max(0.0, 1 - len(noisy) * noise**2 / square if square > 0 else 0.0)
    return found


@dataclass(frozen=True, slots=True)
class _Means:
    """Released means: of each class [classes, inputs], its count, the inputs' variances, and the
    deviation of the noise on a class's sum of each input. All in patients and inputs' units."""

    means: Doubles
    counts: Scales
    spread: Scales
    noise: Scales

    @classmethod
    def of(cls, sums: Doubles, squares: Scales, noise: float) -> _Means:
        """Read sums of inputs, counts and squares, each with that noise."""
        counts = np.maximum(sums[:, -1], noise)  # fewer than that are not told from none
        means = sums[:, :-1] / counts[:, None]
        middle = counts @ means / counts.sum()
        least = max(VARIANCE_MIN, noise / float(counts.sum()))
        spread = np.maximum(squares / counts.sum() - middle**2, least)
        return cls(means, counts, spread, np.full(len(spread), noise))

    def beside(self, sums: Doubles, noise: float, lengths: Scales) -> _Means:
        """Return these and the means of a second release, of inputs times `lengths`."""
        counts = np.maximum(sums[:, -1], noise)
        means = sums[:, :-1] / counts[:, None] / lengths
        trust = self.noise**-2.0, (noise / lengths) ** -2.0
        joint = (self.means * trust[0] + means * trust[1]) / (trust[0] + trust[1])
        return _Means(joint, (self.counts + counts) / 2, self.spread,
                      (trust[0] + trust[1]) ** -0.5)

    def apart(self) -> tuple[Scales, Scales]:
        """Return how far the classes lie apart in each input (a variance), and how far they would
        by noise and by chance alone."""
        shares = self.counts / self.counts.sum()
        seen = shares @ (self.means - shares @ self.means) ** 2
        by_noise = self.noise**2 * float(np.sum(shares * (1 - shares) / self.counts**2))
        by_chance = (len(self.counts) - 1) * self.spread / self.counts.sum()
        return np.asarray(seen, dtype=np.float64), by_noise + by_chance


def _raised(encoding: Encoding, seen: _Means, floor: float) -> tuple[Scales, float]:
    """Return what each feature's inputs are multiplied by, and the mean square of a row so scaled.

    The signal's share of what is seen (Wiener's weight, 1 - noise / seen) says how much a feature
    is raised; over its deviation, so that features that tell as much are learned as fast.
    """
    apart, noise = seen.apart()
    raised, size = [], 0.0
    for places in _places(encoding):
        found, chance = float(apart[places].sum()), float(noise[places].sum())
        weight = floor + (max(0.0, 1 - chance / found) if found > 0 else 0.0)
        raised.append(math.sqrt(weight / float(seen.spread[places].mean())))
        size += weight * len(places)
    return np.array(raised), size


def _findings(encoding: Encoding, centre: Scales, seen: _Means) -> Findings:
    """Read worths, scales and centres off released means.

    All features together are scaled to the norm that a row has by its encoding, for which clip
    norms and learning rates were made.
    """
    apart, noise = seen.apart()
    worth = [
        math.sqrt(min(max(float((apart - noise)[places].sum()), 0.0)
                      / float(seen.spread[places].sum()), 1.0))
        for places in _places(encoding)
    ]
    raised, size = _raised(encoding, seen, MEANS_FLOOR)
    total, count = seen.counts @ seen.means, float(seen.counts.sum())
    beside = _told(total, float(seen.noise.max()) * math.sqrt(len(seen.counts))) / count
    safe = seen.counts + float(seen.noise.min())
    return Findings(
        np.array(worth), raised * typical_norm(encoding) / math.sqrt(size + 1),
        np.clip(centre + beside, -1, 1), np.log(safe / safe.sum()))


def _factors(raised: Scales) -> Scales:
    """Return the roots of gains, of root mean square 1."""
    factors = np.sqrt(raised / raised.mean())
    found: Scales = factors / math.sqrt(float(np.mean(factors**2)))
    return found


def importance_at_once(
    encoding: Encoding, table: Table, multiplier: float, randomness: Randomness, by: str
) -> Scales:
    """Return a factor for each feature, of root mean square 1: one Gaussian release of noise
    `multiplier` times what one patient moves, and post-processing of it.

    Guarantee: of the means, each patient counts by its first row only, in the sum of its own
    label's class: its inputs and a one for the count, scaled to a norm of at most 1. So one
    patient moves all sums together by at most 1 in L2 norm; they are noised together, and read
    no other way. Of the information, see `_by_information`.
    """
    if by != "means":
        return _by_information(encoding, table, multiplier, randomness).scales
    classes = table_shapes(encoding)[0][1]
    rows = table.starts[:-1]
    labels = _label_bins(encoding, table.targets[rows])
    given = np.nan_to_num(table.inputs[rows], nan=0.0, posinf=0.0, neginf=0.0).astype(np.float64)
    parts = _bounded(np.hstack([given, np.ones((len(rows), 1))]),
                     AT_ONCE_NORM * typical_norm(encoding))
    sums = np.stack([parts[labels == k].sum(axis=0) for k in range(classes)])
    noisy = noised(sums.reshape(-1), multiplier, randomness).reshape(sums.shape)
    counts = np.maximum(noisy[:, -1], 1.0)
    shares = counts / counts.sum()
    means = noisy[:, :-1] / counts[:, None]
    apart = shares @ (means - shares @ means) ** 2
    by_noise = float(np.sum(shares * (1 - shares) * (multiplier / counts) ** 2))
    gains = np.array([math.sqrt(max(float(apart[places].mean()) - by_noise, 0.0))
                      for places in _places(encoding)])
    return _factors(gains / (gains.mean() or 1.0) + MEANS_FLOOR)


def _by_information(
    encoding: Encoding, table: Table, multiplier: float, randomness: Randomness
) -> Findings:
    """Return factors that grow with the root of the mutual information, less an independent one's.

    Guarantee: each patient counts by its first row only, once in the table of each of the d
    features: it moves all tables together by at most sqrt(d) in L2 norm. Every cell gets a
    Gaussian draw of sigma multiplier * sqrt(d), rounded up (counts.py). What follows is
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
        gains.append(information_gain(noised_counts(cells, sigma, randomness), sigma, randomness))
    return Findings(np.array(gains), _factors(np.array(gains) + FLOOR),
                    np.zeros(encoding.width))


def scaled(encoding: Encoding, inputs: Floats, factors: Scales) -> Floats:
    """Return inputs with each feature's columns multiplied by its factor."""
    found: Floats = inputs * factors[list(encoding.blocks)].astype(np.float32)
    return found


def with_scales(table: Table, encoding: Encoding, factors: Scales) -> Table:
    """Return the table with each feature's inputs multiplied by its public factor."""
    return replace(table, inputs=scaled(encoding, table.inputs, factors))


def with_findings(table: Table, encoding: Encoding, found: Findings) -> Table:
    """Return the table as a run sees it: centred, and each feature multiplied by its factor."""
    inputs = scaled(encoding, table.inputs, found.scales)
    return replace(table, inputs=inputs - found.offset(encoding).astype(np.float32))


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
    if encoding.task is Task.COUNT:
        return np.digitize(targets, COUNT_EDGES).astype(np.int64)
    if is_classified(encoding):
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
