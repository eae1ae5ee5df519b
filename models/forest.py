"""A forest whose splits are coins: settings in, a priced plan and a fit from one noisy vector out.

No split looks at a row: columns and thresholds are drawn from public bounds, so that only the
counts in the leaves are private, and they are one release (random decision trees: Fan et al. 2003;
private: Jagannathan et al. 2012). A patient is in one leaf of every tree.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from mechanisms.event import SampledGaussianEvent
from mechanisms.loss import PrivacyLoss
from mechanisms.pricing import loss_of
from mechanisms.randomness import Randomness
from models.bayes import is_indicator, is_two
from models.counts import noised_counts
from models.encoding import Doubles, Encoding, Floats, Task
from models.run import Settings
from models.statistics import branches_for, refuse_unused
from models.table import Table
from planner.refusal import Refused

Vector = npt.NDArray[np.float64]
TREES, DEPTH_MAX = 32, 8
GRID = 2**20
PATIENTS_A_LEAF = 4.0  # times the noise on it, as the public number of patients has it
PROBABILITY_MIN = 1e-3


@dataclass(frozen=True, slots=True)
class ForestModel:
    """Trees of one depth: columns and thresholds of the splits, then the values of the leaves.

    The splits of a tree are in the order of a heap; a row goes right where its input is above.
    """

    encoding: Encoding
    trees: int
    depth: int

    @property
    def splits(self) -> int:
        """How many splits a tree has."""
        return (1 << self.depth) - 1

    @property
    def size(self) -> int:
        """How many parameters there are."""
        return self.trees * (2 * self.splits + (self.splits + 1) * self.encoding.outputs)

    def drawn(self, randomness: Randomness) -> Vector:
        """Return splits from coins and public bounds alone; leaves are zero."""
        count = self.trees * self.splits
        places = np.array([
            i for block in range(len(self.encoding.features))
            for i, b in enumerate(self.encoding.blocks) if b == block
        ])
        blocks = randomness.uint64(count) % np.uint64(len(self.encoding.features))
        within = randomness.uint64(count)
        uniform = (randomness.uint64(count) >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1
        columns, thresholds = np.zeros(count), np.zeros(count)
        for n in range(count):
            own = [p for p in places if self.encoding.blocks[p] == int(blocks[n])]
            place = int(own[int(within[n]) % len(own)])
            columns[n] = place
            feature = self.encoding.features[int(blocks[n])]
            thresholds[n] = 0.5 if is_indicator(self.encoding, place) else (
                0.0 if is_two(feature) else uniform[n])
        leaves = np.zeros(self.trees * (self.splits + 1) * self.encoding.outputs)
        return np.concatenate([columns, thresholds, leaves])

    def leaves_of(self, parameters: Vector, inputs: Floats | Doubles, tree: int) -> Any:
        """Return the leaf of each row in one tree."""
        first, count = tree * self.splits, self.trees * self.splits
        columns = parameters[first : first + self.splits].astype(np.int64)
        thresholds = parameters[count + first : count + first + self.splits]
        node = np.zeros(len(inputs), dtype=np.int64)
        for _ in range(self.depth):
            right = inputs[np.arange(len(inputs)), columns[node]] > thresholds[node]
            node = 2 * node + 1 + right
        return node - self.splits

    def scores(
        self, parameters: Vector, inputs: Floats | Doubles, pixels: object = None
    ) -> Doubles:
        """Return log-odds, logarithms of probabilities, or scaled values: [rows, outputs]."""
        values = parameters[2 * self.trees * self.splits :].reshape(
            self.trees, self.splits + 1, self.encoding.outputs)
        total = np.zeros((len(inputs), self.encoding.outputs))
        for tree in range(self.trees):
            total += values[tree][self.leaves_of(parameters, inputs, tree)]
        mean: Doubles = total / self.trees
        if self.encoding.task is Task.REAL:
            return mean
        mean = np.clip(mean, PROBABILITY_MIN, 1 - PROBABILITY_MIN)
        return np.log(mean / (1 - mean)) if self.encoding.task is Task.BINARY else np.log(mean)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestPlan:
    """A forest before it is paid. `distance` is how far a patient moves all counts, in steps of
    1/GRID of a patient; trees and depth are in the settings."""

    family: str
    encoding: Encoding
    settings: Settings
    units: int
    rows: int
    multiplier: float
    held_multiplier: float | None
    event: SampledGaussianEvent
    cost: PrivacyLoss

    @property
    def network(self) -> ForestModel:
        """The forest that the fitted parameters fill."""
        return forest_of(self.encoding, self.settings)

    @property
    def distance(self) -> int:
        """How far one patient moves all counts, in L2 norm.

        Guarantee: in each tree the parts of a patient's rows add up to at most GRID over cells
        that are not negative, so to a norm of at most GRID; a number's sum beside the count moves
        as far again, and by half a step of rounding for each row.
        """
        trees = self.network.trees
        if self.encoding.task is not Task.REAL:
            return math.isqrt(trees * GRID**2) + 1
        return math.isqrt(trees * (GRID**2 + (GRID + self.rows) ** 2)) + 1

    @property
    def sigma(self) -> float:
        """The noise on each count, in steps."""
        return float(np.nextafter(self.multiplier * self.distance, np.inf))

    def facts(self) -> dict[str, Any]:
        """Return all of it as plain values: what is hashed, kept and shown."""
        return {
            "family": self.family, "units": self.units, "multiplier": self.multiplier,
            "held_multiplier": self.held_multiplier, "distance": self.distance,
            "rows": self.rows, "settings": asdict(self.settings),
            "encoding": self.encoding.to_dict(),
        }

    def card_facts(self) -> dict[str, Any]:
        """Return what the model's card says of the run."""
        return {"trees": self.network.trees, "depth": self.network.depth,
                "noise multiplier": self.multiplier}

    def __str__(self) -> str:
        return "\n".join([
            f"a forest of {self.network.trees} trees of depth {self.network.depth} for "
            f"{self.encoding.label.name}, splits drawn without the data",
            f"  cost              {self.cost}",
            f"  noise             {self.sigma / GRID:.4g} patients on each leaf, of about "
            f"{self.units / 2**self.network.depth:.4g}",
        ])


def forest_of(encoding: Encoding, settings: Settings) -> ForestModel:
    """Return the forest of settings that a plan has completed."""
    return ForestModel(encoding, settings.trees or TREES, settings.depth or 1)


def plan_forest(
    encoding: Encoding, settings: Settings, rows: int, units: int, epsilon: Fraction,
    delta: Fraction, order: Fraction,
) -> ForestPlan:
    """Choose trees and depth from public facts, and the noise from epsilon.

    Guarantee: one Gaussian release, fixed before a row is read; held-out patients are told by a
    coin that depends on no data.
    """
    if encoding.image is not None:
        raise Refused("model", "a forest takes no image", "model='cnn'")
    refuse_unused("a forest", settings)
    event, multiplier, held = branches_for(settings.holdout, epsilon, delta, order)
    trees = settings.trees or TREES
    leaf = PATIENTS_A_LEAF * multiplier * math.sqrt(trees)
    depth = settings.depth or max(1, min(DEPTH_MAX, round(math.log2(max(2.0, units / leaf)))))
    return ForestPlan(
        family="forest", encoding=encoding, settings=replace(settings, trees=trees, depth=depth),
        units=units, rows=rows, multiplier=multiplier, held_multiplier=held, event=event,
        cost=loss_of((event,), order),
    )


def leaf_counts(plan: ForestPlan, splits: Vector, table: Table) -> npt.NDArray[np.int64]:
    """Return exact counts in steps: [trees, leaves, classes], or rows and sums of a number.

    Guarantee: adding or removing one patient moves them by at most plan.distance in L2 norm: a row
    counts GRID over the number of its patient's rows, rounded down.
    """
    forest, encoding = plan.network, plan.encoding
    sizes = np.diff(table.starts)
    parts = np.repeat(GRID // np.maximum(sizes, 1), sizes).astype(np.int64)
    width = 2 if encoding.task is Task.REAL else len(encoding.classes)
    cells = np.zeros((forest.trees, forest.splits + 1, width), dtype=np.int64)
    for tree in range(forest.trees):
        leaf = forest.leaves_of(splits, table.inputs, tree)
        if encoding.task is Task.REAL:
            np.add.at(cells[tree], (leaf, 0), parts)
            sums = np.rint(parts * table.targets.astype(np.float64)).astype(np.int64)
            np.add.at(cells[tree], (leaf, 1), sums)
        else:
            np.add.at(cells[tree], (leaf, table.targets.astype(np.int64)), parts)
    return cells


def grown(plan: ForestPlan, splits: Vector, table: Table, randomness: Randomness) -> Vector:
    """Return the splits with leaves from noisy counts.

    Guarantee: Gaussian noise of plan.sigma (counts.py) on every cell, empty or not; what follows is
    post-processing.
    """
    cells = leaf_counts(plan, splits, table)
    values = _leaf_values(plan, noised_counts(cells, plan.sigma, randomness) / GRID)
    found: Vector = np.concatenate(
        [splits[: 2 * plan.network.trees * plan.network.splits], values.reshape(-1)])
    return found


def _leaf_values(plan: ForestPlan, noisy: Doubles) -> Doubles:
    """Return each leaf's value, drawn to that of all leaves by as many patients as the noise is.

    A leaf that holds fewer than the noise says nothing of its own.
    """
    noise = plan.sigma / GRID
    overall = noisy.sum(axis=(0, 1))
    if plan.encoding.task is Task.REAL:
        mean = np.clip(overall[1] / max(overall[0], 1.0), -1, 1)
        rows = np.maximum(noisy[..., 0], 0)
        values = np.clip((noisy[..., 1] + noise * mean) / (rows + noise), -1, 1)
        return np.asarray(values)[..., None]
    shares = np.maximum(overall, 1e-9) / np.maximum(overall, 1e-9).sum()
    held = np.maximum(noisy, 0)
    values = (held + noise * shares) / (held.sum(axis=-1, keepdims=True) + noise)
    return np.asarray(values[..., 1:] if plan.encoding.task is Task.BINARY else values)
