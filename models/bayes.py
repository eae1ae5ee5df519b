"""Naive Bayes: noisy sums by class in, scores that are linear in inputs and their squares out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.encoding import CODED, Doubles, Encoding, Floats, Task
from planner.feature import Coding, Feature

Vector = npt.NDArray[np.float64]
VARIANCE_MIN = 1e-3  # of a number scaled to [-1, 1]
SMOOTHING = 1.0  # patients that each category has beforehand


def is_two(feature: Feature) -> bool:
    """Return whether a number has two values only, scaled to -1 and 1."""
    return feature.coding is Coding.TRUTH or (
        feature.coding is Coding.NUMBER and feature.whole and feature.high - feature.low == 1)


def is_indicator(encoding: Encoding, place: int) -> bool:
    """Return whether an input is 0 or 1: a value of a category, or that a number is missing."""
    block = encoding.blocks[place]
    is_second = place > 0 and encoding.blocks[place - 1] == block
    return encoding.features[block].coding in CODED or is_second


def number_places(encoding: Encoding) -> list[int]:
    """Return the places of inputs that are numbers with more than two values."""
    return [
        place for place, block in enumerate(encoding.blocks)
        if not (is_indicator(encoding, place) or is_two(encoding.features[block]))
    ]


@dataclass(frozen=True, slots=True)
class BayesModel:
    """Naive Bayes as scores linear in inputs and in the squares of numbers, intercept last."""

    encoding: Encoding

    @property
    def size(self) -> int:
        """How many parameters there are."""
        inputs = self.encoding.width + len(number_places(self.encoding))
        return (inputs + 1) * self.encoding.outputs

    def scores(
        self, parameters: Vector, inputs: Floats | Doubles, pixels: object = None
    ) -> Doubles:
        """Return the outputs for rows: [rows, outputs]."""
        weights = parameters.reshape(-1, self.encoding.outputs)
        given = np.asarray(inputs, dtype=np.float64)
        bent = np.concatenate([given, given[:, number_places(self.encoding)] ** 2], axis=1)
        found: Doubles = bent @ weights[:-1] + weights[-1]
        return found


def bayes(encoding: Encoding, numbers: list[int], table: Doubles, noise: float) -> Vector:
    """Read naive Bayes off released sums: [classes, inputs, squares of `numbers`, rows].

    Numbers are normal within a class, categories and truth values have shares with SMOOTHING
    patients beforehand. As far as `noise` (a standard deviation, in patients) drowns a class, its
    numbers are those of all classes. What is missing tells by its own share; a missing category
    tells nothing. Reads no row.
    """
    counts = np.maximum(table[:, -1], 1.0)
    weights = np.zeros((table.shape[1], len(counts)))
    weights[-1] = np.log((counts + SMOOTHING) / (counts + SMOOTHING).sum())
    for block, feature in enumerate(encoding.features):
        places = [place for place, b in enumerate(encoding.blocks) if b == block]
        if feature.coding in CODED:
            held = np.maximum(_pooled(table[:, places], counts, noise), 0.0) + SMOOTHING
            weights[places] = np.log(held / held.sum(axis=1, keepdims=True)).T
            continue
        present = counts
        if feature.nullable:
            missing = np.clip(_pooled(table[:, places[1:]], counts, noise)[:, 0], 0, counts)
            present = np.maximum(counts - missing, 1.0)
            share = (missing + SMOOTHING) / (missing + present + 2 * SMOOTHING)
            weights[places[1]] = np.log(share / (1 - share))
            weights[-1] += np.log(1 - share)
        if is_two(feature):
            mean = np.clip(_pooled(table[:, places[:1]], present, noise)[:, 0] / present, -1, 1)
            high = (1 + mean) / 2 * present + SMOOTHING
            low = (1 - mean) / 2 * present + SMOOTHING
            weights[places[0]] = 0.5 * np.log(high / low)
            constant = 0.5 * np.log(high * low / (high + low) ** 2)
        else:
            square = encoding.width + numbers.index(places[0])
            sums = _pooled(table[:, [places[0], square]], present, noise) / present[:, None]
            mean, second = np.clip(sums[:, 0], -1, 1), np.clip(sums[:, 1], 0, 1)
            variance = np.maximum(second - mean**2, VARIANCE_MIN + noise / present)
            weights[places[0]], weights[square] = mean / variance, -0.5 / variance
            constant = -0.5 * mean**2 / variance - 0.5 * np.log(variance)
        weights[-1] += constant
        if feature.nullable:  # a number that is missing tells nothing by its value
            weights[places[1]] -= constant
    if encoding.task is Task.BINARY:
        weights = weights[:, 1:] - weights[:, :1]
    found: Vector = weights.reshape(-1)
    return found


def _pooled(sums: Doubles, present: Doubles, noise: float) -> Doubles:
    """Return sums by class, drawn to what holds over all classes where the noise is large."""
    trust = (present / (present + noise))[:, None]
    overall = sums.sum(axis=0) / present.sum()
    found: Doubles = trust * sums + (1 - trust) * overall * present[:, None]
    return found
