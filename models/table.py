"""Streamed rows of a training view in, compact arrays of them by patient out. Private."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from mechanisms.randomness import Randomness
from models.encoding import Encoding, Floats

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Table:
    """The encoded rows of all patients. Private: it has no text form and never leaves.

    Patient i has the rows from `starts[i]` up to `starts[i + 1]`. `weights`, where there are any,
    multiply each row's loss: public numbers by the row's own label.
    """

    inputs: Floats = field(repr=False)
    pixels: npt.NDArray[np.uint8] | None = field(repr=False)
    targets: Floats = field(repr=False)
    starts: Places = field(repr=False)
    weights: Floats | None = field(repr=False, default=None)

    @property
    def units(self) -> int:
        """How many patients there are: a private number."""
        return len(self.starts) - 1

    def rows_of(self, units: Places) -> tuple[Places | slice, Places]:
        """Return the rows of some patients, one patient's after another's, and where each starts.

        `units` are places of patients, in any order; neighbours in a row need no copy.
        """
        if len(units) and np.array_equal(units, np.arange(units[0], units[0] + len(units))):
            begins = self.starts[units[0] : units[0] + len(units) + 1]
            return slice(int(begins[0]), int(begins[-1])), begins - begins[0]
        first = self.starts[units]
        sizes = self.starts[units + 1] - first
        begins = np.zeros(len(units) + 1, dtype=np.int64)
        np.cumsum(sizes, out=begins[1:])
        places = np.arange(begins[-1], dtype=np.int64) + np.repeat(first - begins[:-1], sizes)
        return places, begins


def gather(chunks: Iterable[tuple[Any, ...]], encoding: Encoding, rows_max: int) -> Table:
    """Encode streamed rows chunk by chunk: the raw columns are never held all at once.

    Each chunk has the unit first, then the features, then the label; rows come unit by unit.

    Guarantee: no patient has more than `rows_max` rows in the result, whatever the statement
    gave; the rest are left out.
    """
    inputs, pixels, targets, owners = [], [], [], []
    for unit, *columns, label in chunks:
        inputs.append(encoding.matrix(columns))
        images = encoding.pixels(columns)
        if images is not None:
            pixels.append(images)
        targets.append(encoding.target(label))
        owners.append(np.asarray(unit, dtype=np.int64))
    if not owners:
        empty = np.zeros((0, encoding.width), dtype=np.float32)
        return Table(empty, None, np.zeros(0, np.float32), np.zeros(1, np.int64))
    owner = np.concatenate(owners)
    change = np.flatnonzero(owner[1:] != owner[:-1]) + 1
    starts = np.concatenate(([0], change, [len(owner)])).astype(np.int64)
    table = Table(
        _joined(inputs), _joined(pixels) if pixels else None, _joined(targets), starts
    )
    if len(np.unique(owner[starts[:-1]])) != table.units:
        raise ValueError("a patient's rows do not stand together")
    return table if np.diff(starts).max() <= rows_max else _cut(table, rows_max)


def _joined(parts: list[Any]) -> Any:
    """Concatenate, letting go of the parts."""
    whole = np.concatenate(parts) if len(parts) > 1 else parts[0]
    parts.clear()
    return whole


def _cut(table: Table, rows_max: int) -> Table:
    sizes = np.diff(table.starts)
    within = np.arange(len(table.targets)) - np.repeat(table.starts[:-1], sizes)
    kept = within < rows_max
    starts = np.concatenate(([0], np.cumsum(np.minimum(sizes, rows_max))))
    pixels = None if table.pixels is None else table.pixels[kept]
    weights = None if table.weights is None else table.weights[kept]
    return Table(table.inputs[kept], pixels, table.targets[kept], starts, weights)


def chosen(table: Table, units: Places) -> Table:
    """Return the table of some patients only."""
    places, begins = table.rows_of(units)
    pixels = None if table.pixels is None else table.pixels[places]
    weights = None if table.weights is None else table.weights[places]
    return Table(table.inputs[places], pixels, table.targets[places], begins, weights)


def split_units(units: int, share: float, randomness: Randomness) -> tuple[Places, Places]:
    """Return training and held-out patients: a coin for each, which depends on no data."""
    if share == 0:
        return np.arange(units), np.arange(0)
    threshold = np.uint64(int(Fraction(share) * 2**64))
    out = randomness.uint64(units) < threshold
    return np.flatnonzero(~out), np.flatnonzero(out)
