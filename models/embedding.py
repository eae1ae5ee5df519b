"""Tables of learned vectors for categories with many values: codes in, vectors and norms out.

What a table learns of a patient is a sum of the errors at the rows that look a value up; its norm
follows from which rows look up the same value, without forming the gradient of the whole table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.layers import Embed


@dataclass(frozen=True, slots=True)
class TablesPart:
    """All tables of a network: the rows' inputs [n, in] and errors [n, out], `rows` to a patient.

    The places of codes and vectors are those of `looked_up`: what is passed through comes first.
    `tf` is TensorFlow, whose door is models/tensors.py.
    """

    tf: Any
    layer: Embed
    given: Any
    errors: Any
    rows: int

    def _tables(self) -> list[tuple[Any, Any, int]]:
        """Return each table's codes [n], errors [n, size], and how many rows it has."""
        place = int(self.given.shape[-1]) - len(self.layer.tables)
        found = []
        for column, count, size in self.layer.tables:
            codes = _codes(self.tf, self.given[:, column], count)
            found.append((codes, self.errors[:, place : place + size], count + 1))
            place += size
        return found

    def squared_norm(self) -> Any:
        """Return each patient's squared norm: over pairs of its rows with one code, the products
        of their errors."""
        tf = self.tf
        total = tf.zeros((tf.shape(self.given)[0] // self.rows,))
        for codes, errors, _ in self._tables():
            if self.rows == 1:
                total += tf.reduce_sum(tf.square(errors), axis=1)
                continue
            own = tf.reshape(codes, (-1, self.rows))
            each = tf.reshape(errors, (-1, self.rows, errors.shape[-1]))
            alike = tf.cast(own[:, :, None] == own[:, None, :], errors.dtype)
            products = alike * tf.matmul(each, each, transpose_b=True)
            total += tf.maximum(tf.reduce_sum(products, axis=[1, 2]), 0)
        return total

    def weighted_sum(self, weights: Any) -> list[Any]:
        """Return the sum of the patients' gradients times their weights; weight 0 is exact."""
        tf = self.tf
        each = tf.repeat(weights, self.rows)[:, None]
        found = []
        for codes, errors, count in self._tables():
            kept = tf.where(each > 0, errors * each, tf.zeros_like(errors))
            found.append(tf.math.unsorted_segment_sum(kept, codes, count))
        return found


def looked_up(tf: Any, layer: Embed, weights: list[Any], given: Any) -> Any:
    """Return the inputs that are no codes, and then the vector of each code."""
    coded = {column for column, _, _ in layer.tables}
    plain = [i for i in range(given.shape[-1]) if i not in coded]
    parts = [tf.gather(given, plain, axis=1)]
    for (column, count, _), table in zip(layer.tables, weights, strict=True):
        parts.append(tf.gather(table, _codes(tf, given[:, column], count)))
    return tf.concat(parts, axis=1)


def _codes(tf: Any, column: Any, count: int) -> Any:
    """Return codes that every table has: no row can make a look-up fail."""
    return tf.clip_by_value(tf.cast(column, tf.int32), 0, count)
