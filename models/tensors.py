"""The door to TensorFlow: an architecture and parameters in, scores and clipped gradient sums out.

One forward pass, one backward pass to what goes into each activation; the norm of a patient's
gradient follows from a layer's inputs and those errors without forming it (Goodfellow 2015; Li
et al. 2022, "ghost norm"), for convolutions from the small gradient of each filter.
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mechanisms.randomness import Randomness
from models.clipping import KEPT, SOFTENING, Clip, GroupClip
from models.embedding import TablesPart, looked_up
from models.encoding import LOG_RATE_MAX, Doubles, Encoding, Floats, Task
from models.layers import Architecture, Centre, Convolution, Dense, Embed, Flatten, Layer
from models.table import Places, Table

Vector = npt.NDArray[np.float64]
ROWS_AT_ONCE = 2_048
FILLED_TO = 32  # so that few shapes occur
PATCHES_MAX = 2**25  # numbers in the patches of one convolution at once


@lru_cache(maxsize=1)
def tensorflow() -> Any:
    """Load TensorFlow with Keras 2, which tensorflow-privacy needs, and without its noise."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.skip_tf_privacy_import = True  # type: ignore[attr-defined]
    import tensorflow

    return tensorflow


@dataclass(frozen=True, slots=True)
class TensorNetwork:
    """A network of layers whose parameters are one vector, layer by layer, kernel before bias."""

    encoding: Encoding
    architecture: Architecture
    start: Vector | None = field(default=None, repr=False, compare=False)

    @property
    def size(self) -> int:
        """How many parameters there are."""
        return self.architecture.size

    @property
    def groups(self) -> tuple[int, ...]:
        """How many parameters each layer has, in their order."""
        counts = (sum(map(math.prod, pair)) for pair in self.architecture.parameter_shapes())
        return tuple(count for count in counts if count)

    def initial(self, randomness: Randomness) -> Vector:
        """Return the parameters before the first step."""
        found: Vector = self.architecture.initial(randomness) if self.start is None else self.start
        return found

    def shifted(self, parameters: Vector, offset: Vector) -> Vector:
        """Return the parameters that give for inputs what these give for inputs less `offset`.

        The first layer with parameters must see the inputs themselves, as dense layers do.
        """
        ((kernel, biases), *_) = (p for p in self.architecture.parameter_shapes() if p)
        count = math.prod(kernel)
        if kernel != (len(offset), *biases):
            raise ValueError("the first layer does not see the inputs")
        found = parameters.copy()
        found[count : count + biases[0]] -= offset @ parameters[:count].reshape(kernel)
        return found

    def scores(
        self, parameters: Vector, inputs: Floats, pixels: npt.NDArray[np.uint8] | None = None
    ) -> Doubles:
        """Return the outputs for rows: [rows, outputs]."""
        given = self._inputs(inputs, pixels)
        flat = parameters.astype(np.float32)
        parts = [
            np.asarray(_forward_of(self.architecture)(flat, part), dtype=np.float64)
            for part in _padded_parts(given, ROWS_AT_ONCE)
        ]
        return np.concatenate(parts)[: len(given)] if parts else np.zeros((0, self._outputs))

    @property
    def _outputs(self) -> int:
        return self.architecture.shapes()[-1][0]

    def _inputs(self, inputs: Floats, pixels: npt.NDArray[np.uint8] | None) -> Floats:
        """Return what the first layer sees: the matrix, or images with values from -1 to 1."""
        if len(self.architecture.inputs) == 1:
            return inputs
        if pixels is None:
            raise ValueError("the network needs images")
        return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)

    def clipped_sum(
        self, parameters: Vector, table: Table, units: Places, clip: Clip | GroupClip
    ) -> Vector:
        """Return the sum over `units` of each patient's mean gradient, clipped; votes last.

        Patients are taken together with others that have about as many rows, and filled up with
        empty rows of weight zero to a multiple of FILLED_TO patients, or to as many as fit.

        Guarantee: adding or removing one patient moves the sum by at most 1 in L2 norm: its part
        is its own mean gradient times a weight that keeps it below 1, or exactly zero where that
        gradient is not finite.
        """
        sizes = table.starts[units + 1] - table.starts[units]
        width = 1 << np.ceil(np.log2(np.maximum(sizes, 1))).astype(np.int64)
        votes = len(clip.norms) if isinstance(clip, GroupClip) else 0
        total = np.zeros(self.size + votes)
        for rows in np.unique(width).tolist():
            group = units[width == rows]
            most = max(1, self._rows_at_once() // rows)
            for first in range(0, len(group), most):
                part = group[first : first + most]
                places = min(most, -(-len(part) // FILLED_TO) * FILLED_TO)
                total += self._part(parameters, table, part, rows, places, clip)
        return total

    def _rows_at_once(self) -> int:
        """Return how many rows fit: the patches of a convolution are the largest thing held."""
        widest = 1
        shapes = self.architecture.shapes()
        for i, layer in enumerate(self.architecture.layers):
            if isinstance(layer, Convolution):
                height, width, _ = shapes[i + 1]
                widest = max(widest, height * width * layer.size**2 * shapes[i][2])
        return int(max(32, min(ROWS_AT_ONCE, PATCHES_MAX // widest)))

    def _part(
        self, parameters: Vector, table: Table, units: Places, rows: int, most: int,
        clip: Clip | GroupClip,
    ) -> Vector:
        places, begins = table.rows_of(units)
        sizes = np.diff(begins)
        at = np.repeat(np.arange(len(units)) * rows - begins[:-1], sizes) + np.arange(begins[-1])
        pixels = None if table.pixels is None else table.pixels[places]
        given = self._inputs(table.inputs[places], pixels)
        filled = np.zeros((most * rows, *given.shape[1:]), dtype=np.float32)
        filled[at] = given
        targets = np.zeros(most * rows, dtype=np.float32)
        targets[at] = table.targets[places]
        shares = np.zeros(most * rows, dtype=np.float32)  # 1 / rows of the patient, 0 for none
        shares[at] = np.repeat(1.0 / np.maximum(sizes, 1), sizes)
        present = np.arange(most) < len(units)
        if table.weights is not None:
            shares[at] *= table.weights[places]
        given_to_step = parameters.astype(np.float32), filled, targets, shares
        if isinstance(clip, Clip):
            step = _step_of(self.architecture, self.encoding.task, rows, 0)
            norm = np.float32(0.0 if clip.norm is None else clip.norm)
            return np.asarray(step(*given_to_step, present, norm, norm), dtype=np.float64)
        step = _step_of(self.architecture, self.encoding.task, rows, len(clip.norms))
        found = np.asarray(step(*given_to_step, present, np.array(clip.norms, np.float32),
                                np.array(clip.weights, np.float32)), dtype=np.float64)
        found[self.size :] *= KEPT * clip.vote  # whole numbers until here
        return found


def _padded_parts(given: Floats, size: int) -> list[Floats]:
    """Cut rows into parts of one size, the last filled up with zeros."""
    parts = [given[first : first + size] for first in range(0, len(given), size)]
    if parts and len(parts) > 1 and len(parts[-1]) < size:
        last = np.zeros((size, *given.shape[1:]), dtype=np.float32)
        last[: len(parts[-1])] = parts[-1]
        parts[-1] = last
    return parts


# ---- the passes ------------------------------------------------------------------------------


def _unpacked(architecture: Architecture, flat: Any) -> list[list[Any]]:
    """Cut the vector into each layer's kernel and bias."""
    tf = tensorflow()
    found, place = [], 0
    for pair in architecture.parameter_shapes():
        tensors = []
        for shape in pair:
            count = math.prod(shape)
            tensors.append(tf.reshape(flat[place : place + count], shape))
            place += count
        found.append(tensors)
    return found


def _raw(layer: Layer, weights: list[Any], given: Any) -> Any:
    """Return what a layer computes before its activation."""
    tf = tensorflow()
    if isinstance(layer, Dense):
        return given @ weights[0] + weights[1]
    if isinstance(layer, Convolution):
        return tf.nn.conv2d(given, weights[0], layer.stride, "SAME") + weights[1]
    if isinstance(layer, Flatten):
        return tf.reshape(given, (tf.shape(given)[0], math.prod(given.shape[1:])))
    if isinstance(layer, Centre):
        mean, variance = tf.nn.moments(given, axes=[1, 2, 3], keepdims=True)
        return (given - mean) * tf.math.rsqrt(variance + 1e-3)
    if isinstance(layer, Embed):
        return looked_up(tf, layer, weights, given)
    pool = tf.nn.avg_pool2d if layer.kind == "mean" else tf.nn.max_pool2d
    return pool(given, layer.size, layer.size, "VALID")


def _activated(layer: Layer, raw: Any) -> Any:
    tf = tensorflow()
    name = getattr(layer, "activation", "linear")
    if name == "linear":
        return raw
    named = {"tanh": tf.math.tanh, "sigmoid": tf.math.sigmoid, "softplus": tf.math.softplus}
    return named[name](raw) if name in named else getattr(tf.nn, name)(raw)


@lru_cache(maxsize=32)
def _forward_of(architecture: Architecture) -> Any:
    tf = tensorflow()

    @tf.function(reduce_retracing=True, autograph=False)  # type: ignore[untyped-decorator]
    def forward(flat: Any, given: Any) -> Any:
        for layer, weights in zip(architecture.layers, _unpacked(architecture, flat), strict=True):
            given = _activated(layer, _raw(layer, weights, given))
        return given

    return forward


@lru_cache(maxsize=128)
def _step_of(architecture: Architecture, task: Task, rows: int, groups: int) -> Any:
    """Return the compiled sum of clipped gradients for patients of `rows` rows each.

    `groups` is 0 for one norm without votes, 1 for all parameters in one group, else how many
    layers have parameters. Places of a batch where no patient is `present` have no vote.
    """
    tf = tensorflow()

    @tf.function(reduce_retracing=True, autograph=False)  # type: ignore[untyped-decorator]
    def step(flat: Any, given: Any, targets: Any, shares: Any, present: Any, clip: Any,
             portions: Any) -> Any:
        inputs, raws = [], []
        layers = list(zip(architecture.layers, _unpacked(architecture, flat), strict=True))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for layer, weights in layers:
                raw = _raw(layer, weights, given)
                if weights:
                    tape.watch(raw)
                    inputs.append(given)
                    raws.append(raw)
                given = _activated(layer, raw)
            loss = tf.reduce_sum(_losses(task, given, targets) * shares)
        errors = tape.gradient(loss, raws)
        trained = [layer for layer, weights in layers if weights]
        parts = [
            _part_of(layer, x, error, rows)
            for layer, x, error in zip(trained, inputs, errors, strict=True)
        ]
        squares = [part.squared_norm() for part in parts]
        norms = tf.sqrt(tf.add_n(squares))
        finite = tf.math.is_finite(norms)
        if groups == 0:
            safe = tf.where(finite, norms, tf.ones_like(norms))
            bounded = tf.where(clip > 0, tf.maximum(safe, clip), safe + SOFTENING)
            each = [tf.where(finite, KEPT / bounded, tf.zeros_like(safe))] * len(parts)
            votes = list[Any]()
        else:
            grouped = [norms] if groups == 1 else [tf.sqrt(square) for square in squares]
            each, votes = [], []
            for i, own in enumerate(grouped):
                safe = tf.where(finite, own, tf.ones_like(own))
                each.append(tf.where(finite, portions[i] * KEPT / tf.maximum(safe, clip[i]),
                                     tf.zeros_like(safe)))
                signs = tf.where(finite & (own <= clip[i]), 1.0, -1.0)
                votes.append(tf.reduce_sum(tf.where(present, signs, 0.0)))
            each = each * len(parts) if groups == 1 else each
        sums = [tensor for part, weights in zip(parts, each, strict=True)
                for tensor in part.weighted_sum(weights)]
        return tf.concat([tf.reshape(tensor, [-1]) for tensor in [*sums, *votes]], axis=0)

    return step


def _losses(task: Task, scores: Any, targets: Any) -> Any:
    """Return each row's loss."""
    tf = tensorflow()
    if task is Task.BINARY:
        return tf.nn.sigmoid_cross_entropy_with_logits(targets, scores[:, 0])
    if task is Task.CLASSES:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(targets, tf.int32), scores)
    if task is Task.COUNT:  # rate - count * log rate; even beyond the largest rate
        score = scores[:, 0]
        beyond = math.exp(LOG_RATE_MAX) * tf.nn.relu(score - LOG_RATE_MAX)
        return tf.exp(tf.minimum(score, LOG_RATE_MAX)) + beyond - targets * score
    return 0.5 * tf.square(scores[:, 0] - targets)


@dataclass(frozen=True, slots=True)
class _DensePart:
    """One dense layer: the rows' inputs [n, in] and errors [n, out], `rows` to a patient."""

    given: Any
    errors: Any
    rows: int

    def squared_norm(self) -> Any:
        """Return each patient's squared norm: of the sum over its rows of input times error."""
        tf = tensorflow()
        if self.rows == 1:
            inputs = tf.reduce_sum(tf.square(self.given), axis=1) + 1
            return inputs * tf.reduce_sum(tf.square(self.errors), axis=1)
        inputs = tf.reshape(self.given, (-1, self.rows, self.given.shape[-1]))
        errors = tf.reshape(self.errors, (-1, self.rows, self.errors.shape[-1]))
        products = (tf.matmul(inputs, inputs, transpose_b=True) + 1) * tf.matmul(
            errors, errors, transpose_b=True
        )
        return tf.maximum(tf.reduce_sum(products, axis=[1, 2]), 0)

    def weighted_sum(self, weights: Any) -> list[Any]:
        """Return the sum of the patients' gradients times their weights; weight 0 is exact."""
        tf = tensorflow()
        each = tf.repeat(weights, self.rows)[:, None]
        errors = tf.where(each > 0, self.errors * each, tf.zeros_like(self.errors))
        given = tf.where(each > 0, self.given, tf.zeros_like(self.given))
        return [tf.matmul(given, errors, transpose_a=True), tf.reduce_sum(errors, axis=0)]


@dataclass(frozen=True, slots=True)
class _FilterPart:
    """One convolution: each patient's own gradient of the filters, which are few."""

    kernels: Any  # [patients, size * size * in, out]
    biases: Any  # [patients, out]
    shape: tuple[int, ...]

    def squared_norm(self) -> Any:
        """Return each patient's squared norm."""
        tf = tensorflow()
        return tf.reduce_sum(tf.square(self.kernels), axis=[1, 2]) + tf.reduce_sum(
            tf.square(self.biases), axis=1
        )

    def weighted_sum(self, weights: Any) -> list[Any]:
        """Return the sum of the patients' gradients times their weights; weight 0 is exact."""
        tf = tensorflow()
        used = weights > 0
        kernels = tf.where(used[:, None, None], self.kernels, tf.zeros_like(self.kernels))
        biases = tf.where(used[:, None], self.biases, tf.zeros_like(self.biases))
        total = tf.tensordot(weights, kernels, axes=1)
        return [tf.reshape(total, self.shape), tf.tensordot(weights, biases, axes=1)]


Part = _DensePart | _FilterPart | TablesPart


def _part_of(layer: Layer, given: Any, errors: Any, rows: int) -> Part:
    tf = tensorflow()
    if isinstance(layer, Embed):
        return TablesPart(tf, layer, given, errors, rows)
    if isinstance(layer, Dense):
        return _DensePart(given, errors, rows)
    if not isinstance(layer, Convolution):
        raise TypeError(f"{layer} has no parameters")
    size, step, depth = layer.size, layer.stride, given.shape[-1]
    patches = tf.image.extract_patches(
        given, [1, size, size, 1], [1, step, step, 1], [1, 1, 1, 1], "SAME"
    )
    places = math.prod(patches.shape[1:3])
    patches = tf.reshape(patches, (-1, rows * places, size * size * depth))
    flat = tf.reshape(errors, (-1, rows * places, layer.filters))
    kernels = tf.matmul(patches, flat, transpose_a=True)
    return _FilterPart(kernels, tf.reduce_sum(flat, axis=1), (size, size, depth, layer.filters))
