"""Private rows and a paid run in, noised parameters out: the one loop of private gradient descent.

What leaves a step is the noisy sum alone. Losses, gradient norms and batch sizes are never kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mechanisms import gaussian
from mechanisms.randomness import Randomness
from models.clipping import Clip, GroupClip
from models.encoding import Doubles, Encoding, Floats
from models.run import RunPlan
from models.table import Places, Table

Vector = npt.NDArray[np.float64]
CHUNK = 2_048  # patients whose gradients are computed at once
GRID_STEPS = 2.0**34  # grid steps of one standard deviation of the noise
START = 0  # the place of the run's randomness that the parameters start from


class Predictor(Protocol):
    """What predictions and metrics need of a model family."""

    @property
    def encoding(self) -> Encoding:
        """How rows become its inputs."""

    @property
    def size(self) -> int:
        """How many parameters there are."""

    def scores(
        self, parameters: Vector, inputs: Floats, pixels: npt.NDArray[np.uint8] | None
    ) -> Doubles:
        """Return the outputs for rows: [rows, outputs]."""


class Network(Protocol):
    """What the loop needs of a model family."""

    @property
    def encoding(self) -> Encoding:
        """How rows become its inputs."""

    @property
    def size(self) -> int:
        """How many parameters there are."""

    @property
    def groups(self) -> tuple[int, ...]:
        """How many parameters each layer has, in their order."""

    def initial(self, randomness: Randomness) -> Vector:
        """Return the parameters before the first step."""

    def shifted(self, parameters: Vector, offset: Vector) -> Vector:
        """Return the parameters that give for inputs what these give for inputs less `offset`."""

    def scores(
        self, parameters: Vector, inputs: Floats, pixels: npt.NDArray[np.uint8] | None
    ) -> Doubles:
        """Return the outputs for rows: [rows, outputs]."""

    def clipped_sum(
        self, parameters: Vector, table: Table, units: Places, clip: Clip | GroupClip
    ) -> Vector:
        """Return the sum of the units' mean gradients, each bounded to a norm of at most 1.

        With a GroupClip the units' votes follow, and gradient and votes together are bounded.
        """


@dataclass(slots=True)
class State:
    """Where a run stands: a function of noised sums only, so it may be written down."""

    step: int
    parameters: Vector
    first: Vector = field(repr=False)
    second: Vector = field(repr=False)
    average: Vector = field(repr=False)
    norms: Vector = field(repr=False, default_factory=lambda: np.zeros(0))  # adaptive clip norms

    @classmethod
    def start(cls, parameters: Vector) -> State:
        """Return the state before the first step."""
        zero = np.zeros_like(parameters)
        return cls(0, parameters.copy(), zero.copy(), zero.copy(), zero.copy())


Tick = Callable[[State], None]


def descend(network: Network, table: Table, run: RunPlan, key: bytes, state: State,
            tick: Tick = lambda state: None) -> State:
    """Run the steps that are left. `tick` is called after each, with what may be shown or kept.

    `key` is the run's secret: all randomness is drawn from it, so that a step done twice is the
    same step.

    Guarantee: each step is one release of run.event's training phase. A patient is in its batch
    with probability at most run.rate, independently of every other and of the data; it moves the
    sum (with its votes on the clip norm, where there are any) by at most 1 in L2 norm; the noise
    has multiplier run.multiplier_at(step); the divisor, the chunks' size and the step's
    arithmetic after the noise depend on public numbers only, and the next clip norm on what is
    noised already.
    """
    adaptive = run.adaptive
    if adaptive is not None and not len(state.norms):
        state.norms = adaptive.first()
    while state.step < run.steps:
        batch = _sampled(table.units, run.rate, Randomness.keyed(key, 2 * state.step + 1))
        clip = run.clip if adaptive is None else adaptive.clip(state.norms)
        total = np.zeros(network.size + len(state.norms))
        for first in range(0, len(batch), CHUNK):
            total += network.clipped_sum(
                state.parameters, table, batch[first : first + CHUNK], clip
            )
        noisy = noised(total, run.multiplier_at(state.step),
                       Randomness.keyed(key, 2 * state.step + 2))
        if adaptive is not None:
            noisy, state.norms = adaptive.read(noisy, state.norms, run.expected)
        _advance(state, noisy / run.expected, run)
        tick(state)
    return state


def _sampled(units: int, rate: float, randomness: Randomness) -> Places:
    """Return the patients of a step.

    Guarantee: each is taken with probability floor(rate 2^64) / 2^64, independently.
    """
    if rate == 1.0:
        return np.arange(units)
    threshold = np.uint64(math.floor(Fraction(rate) * 2**64))
    return np.flatnonzero(randomness.uint64(units) < threshold)


def noised(total: Vector, multiplier: float, randomness: Randomness) -> Vector:
    """Return a sum of L2 sensitivity 1 with Gaussian noise, on a grid of multiplier / 2^34.

    Guarantee: the sum is rounded to the grid and exact discrete Gaussian noise is added to whole
    numbers, so no bit of the sum shows beside the noise. Rounding moves the sum by at most half
    a step a coordinate, which the room left by clipping.KEPT covers.
    """
    step = 2.0 ** math.floor(math.log2(multiplier / GRID_STEPS))
    safe = np.nan_to_num(total, nan=0.0, posinf=0.0, neginf=0.0)
    whole = np.rint(np.clip(safe / step, -(2.0**61), 2.0**61)).astype(np.int64)
    # float64 holds what is left of the sum beyond 2^53 steps no finer than a step anyway.
    drawn = gaussian.sample(multiplier / step, len(total), randomness)
    found: Vector = (whole + drawn).astype(np.float64) * step
    return found


def _advance(state: State, gradient: Vector, run: RunPlan) -> None:
    """Take a step of Adam or of momentum on what is already noised: post-processing, and free."""
    step = state.step + 1
    gradient = gradient + run.decay * state.parameters
    if run.optimizer == "sgd":
        state.first = 0.9 * state.first + gradient
        state.parameters = state.parameters - run.learning_rate * state.first
    else:
        state.first = 0.9 * state.first + 0.1 * gradient
        state.second = 0.999 * state.second + 0.001 * gradient**2
        first = state.first / (1 - 0.9**step)
        second = state.second / (1 - 0.999**step)
        state.parameters = state.parameters - run.learning_rate * first / (np.sqrt(second) + 1e-8)
    # The mean of the second half of the path has less noise than its end.
    past = step - (run.steps - (run.steps + 1) // 2)
    if past >= 1:
        state.average = state.average + (state.parameters - state.average) / past
    state.step = step
