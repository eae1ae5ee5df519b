"""Linear predictors, from logistic to Poisson: rows by patient in, clipped gradient sums out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mechanisms.randomness import Randomness
from models.clipping import KEPT, Clip, GroupClip, weights_for
from models.encoding import Doubles, Encoding, Floats, Task, rates
from models.table import Places, Table

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LinearModel:
    """A linear predictor with an intercept; its parameters are one vector, intercepts last."""

    encoding: Encoding

    @property
    def size(self) -> int:
        """How many parameters there are."""
        return (self.encoding.width + 1) * self.encoding.outputs

    @property
    def groups(self) -> tuple[int, ...]:
        """How many parameters each layer has, in their order."""
        return (self.size,)

    def initial(self, randomness: Randomness) -> Vector:
        """Return the parameters before the first step."""
        return np.zeros(self.size)

    def shifted(self, parameters: Vector, offset: Vector) -> Vector:
        """Return the parameters that give for inputs what these give for inputs less `offset`."""
        weights = parameters.reshape(self.encoding.width + 1, self.encoding.outputs).copy()
        weights[-1] -= offset @ weights[:-1]
        return weights.reshape(-1)

    def scores(
        self, parameters: Vector, inputs: Floats | Doubles, pixels: object = None
    ) -> Doubles:
        """Return the outputs for rows: [rows, outputs]."""
        weights = parameters.reshape(self.encoding.width + 1, self.encoding.outputs)
        found = inputs @ weights[:-1].astype(inputs.dtype) + weights[-1]
        return np.asarray(found, dtype=np.float64)

    def clipped_sum(
        self, parameters: Vector, table: Table, units: Places, clip: Clip | GroupClip
    ) -> Vector:
        """Return the sum over `units` of each patient's mean gradient, clipped; votes last.

        Guarantee: adding or removing one patient moves the sum by at most 1 in L2 norm (see
        clipping.weights_for), whatever its rows hold and however many it has.
        """
        places, begins = table.rows_of(units)
        inputs = table.inputs[places]
        scores = self.scores(parameters, inputs)
        sizes = np.diff(begins)
        residuals = self._residuals(scores, table.targets[places])
        if table.weights is not None:
            residuals *= table.weights[places][:, None]
        residuals = (residuals / np.repeat(sizes, sizes)[:, None]).astype(np.float32)
        norms = np.sqrt(_squared_norms(inputs, residuals, begins))
        votes: list[float] = []
        if isinstance(clip, GroupClip):
            weights = clip.weights[0] * weights_for(norms, Clip(clip.norms[0]))
            # A norm that is not finite is below nothing.
            below = int((norms <= clip.norms[0]).sum())
            votes = [KEPT * clip.vote * (2 * below - len(norms))]
        else:
            weights = weights_for(norms, clip)
        each = np.repeat(weights, sizes)
        residuals *= each[:, None].astype(np.float32)
        if not each.all():
            residuals[each == 0] = 0.0
            inputs = np.where(each[:, None] == 0, np.float32(0), inputs)  # 0 * NaN would be NaN
        total = np.vstack([inputs.T @ residuals, residuals.sum(axis=0)])
        return np.append(total.reshape(-1).astype(np.float64), votes)

    def _residuals(self, scores: Doubles, targets: Floats) -> Doubles:
        """Return the derivative of the loss by the outputs, row by row."""
        task = self.encoding.task
        if task is Task.BINARY:
            return sigmoid(scores) - targets[:, None]
        if task is Task.REAL:
            return scores - targets[:, None]
        if task is Task.COUNT:
            return rates(scores) - targets[:, None]
        found = softmax(scores)
        found[np.arange(len(found)), targets.astype(np.int64)] -= 1.0
        return found


def _squared_norms(inputs: Floats, residuals: Floats, begins: Places) -> Doubles:
    """Return the squared norm of each patient's gradient: of the sum of x r' over its rows."""
    if len(begins) - 1 == len(inputs):  # one row each
        rows = (np.einsum("ij,ij->i", inputs, inputs) + 1) * np.einsum(
            "ij,ij->i", residuals, residuals
        )
        return np.asarray(rows, dtype=np.float64)
    found = np.zeros(len(begins) - 1)
    for k in range(residuals.shape[1]):
        gradients = np.add.reduceat(inputs * residuals[:, k : k + 1], begins[:-1], axis=0)
        intercepts = np.add.reduceat(residuals[:, k], begins[:-1])
        found += np.einsum("ij,ij->i", gradients, gradients) + intercepts**2
    return found


def sigmoid(scores: Doubles) -> Doubles:
    """Return 1/(1 + exp(-x)) without overflow."""
    found: Doubles = 0.5 * (1.0 + np.tanh(0.5 * scores))
    return found


def softmax(scores: Doubles) -> Doubles:
    """Return the probabilities of the classes, row by row."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    found: Doubles = powers / powers.sum(axis=1, keepdims=True)
    return found
