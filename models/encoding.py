"""Columns of a training view in, a matrix of bounded numbers out: by declared facts alone.

Nothing here is learned from rows. A number is scaled by the bounds of the policy, a category
becomes one column for each declared value, a text is hashed into declared buckets, and what may
be missing gets an indicator. `predict` encodes new rows by the same lines.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from models import wavelets
from planner.refusal import Refused
from planner.training_view import Coding, Feature, scaled_ends, seconds

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Tables = tuple[tuple[int, int, int], ...]
CODED = (Coding.CHOICE, Coding.BUCKETS)
PICTURES = (Coding.IMAGE, Coding.WAVES)
LOG_RATE_MAX = math.log(4)  # of a count: twice its upper bound; beyond, its loss grows evenly


class Task(Enum):
    """What the label is, and so what a prediction is."""

    BINARY = "binary"  # a probability
    CLASSES = "classes"  # a probability for each class
    REAL = "real"  # a number within the label's bounds
    COUNT = "count"  # the rate of a count within the label's bounds: score to rate by exp


@dataclass(frozen=True, slots=True)
class Encoding:
    """How rows become inputs and targets: public facts of the view, kept with the model."""

    features: tuple[Feature, ...]
    label: Feature
    counted: bool = False  # the label is read as a count, see `with_counts`

    @property
    def task(self) -> Task:
        """What kind of label this is."""
        label = self.label
        if self.counted:
            return Task.COUNT
        if label.coding is Coding.TRUTH or self._is_zero_or_one or len(label.values) == 2:
            return Task.BINARY
        return Task.CLASSES if label.coding is Coding.CHOICE else Task.REAL

    @property
    def _is_zero_or_one(self) -> bool:
        label = self.label
        return label.coding is Coding.NUMBER and label.whole and (label.low, label.high) == (0, 1)

    @property
    def classes(self) -> tuple[str | int, ...]:
        """The label's values in the order of the probabilities; the second one is "positive"."""
        if self.label.coding is Coding.CHOICE:
            return self.label.values
        return (0, 1) if self.task is Task.BINARY else ()

    @property
    def outputs(self) -> int:
        """How many numbers the model computes for a row, before they become a prediction."""
        return len(self.classes) if self.task is Task.CLASSES else 1

    @property
    def image(self) -> Feature | None:
        """The image column, where there is one."""
        return next((f for f in self.features if f.coding is Coding.IMAGE), None)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the matrix's columns."""
        return tuple(name for feature in self.features for name in _names(feature))

    @property
    def width(self) -> int:
        """How many columns the matrix has."""
        return len(self.names)

    @property
    def blocks(self) -> tuple[int, ...]:
        """For each column of the matrix, the place of its feature."""
        return tuple(i for i, feature in enumerate(self.features) for _ in _names(feature))

    def matrix(self, columns: Sequence[Any]) -> Floats:
        """Return the inputs of rows, one column of the view after another, label excluded.

        Guarantee: every entry lies in [-1, 1] and is finite (a code to be looked up is one of its
        table's rows), whatever the columns hold: no row can make another row's gradient infinite.
        """
        rows = len(columns[0])
        filled = np.zeros((rows, self.width), dtype=np.float32)
        place = 0
        for feature, column in zip(self.features, columns, strict=True):
            width = len(_names(feature))
            if feature.coding in CODED:
                codes = np.asarray(column, dtype=np.int64)
                present = np.flatnonzero((codes >= 1) & (codes <= width))
                filled[present, place + codes[present] - 1] = 1.0
            elif feature.coding is Coding.CODE:
                codes = np.asarray(column, dtype=np.int64)
                filled[:, place] = np.where((codes >= 1) & (codes <= feature.codes), codes, 0)
            elif feature.coding is Coding.WAVES:
                filled[:, place : place + width] = wavelets.features(_images(feature, column))
            elif feature.coding is not Coding.IMAGE:
                values = np.asarray(column, dtype=np.float64)
                missing = ~np.isfinite(values)
                scaled = _scaled(feature, values)
                filled[:, place] = np.where(missing, 0.0, np.clip(scaled, -1.0, 1.0))
                if feature.nullable:
                    filled[:, place + 1] = missing
            place += width
        return filled

    def pixels(self, columns: Sequence[Any]) -> npt.NDArray[np.uint8] | None:
        """Return the images of rows as bytes; an image of another size is all zeros."""
        for feature, column in zip(self.features, columns, strict=True):
            if feature.coding is Coding.IMAGE:
                return _images(feature, column)
        return None

    def with_waves(self) -> Encoding:
        """Return the encoding with fixed features of each image in place of its pixels."""
        return replace(self, features=tuple(
            replace(f, coding=Coding.WAVES) if f.coding is Coding.IMAGE else f
            for f in self.features
        ))

    def with_counts(self) -> Encoding:
        """Return the encoding whose label is a count. Raises Refused for another label."""
        label = self.label
        if not (label.coding is Coding.NUMBER and label.whole and label.low >= 0
                and label.high > 1):
            raise Refused("model", f"{label.name} is no count: a whole number within declared "
                          "bounds from 0 up", "integer: [0, 20] in the policy, or no loss")
        return replace(self, counted=True)

    @property
    def unit(self) -> float:
        """How much of a numeric label is 1 in what a model learns: half its range, or half of a
        count's upper bound."""
        return self.label.high / 2 if self.counted else scaled_ends(self.label)[1]

    def target(self, column: Any) -> Floats:
        """Return the label: 0 or 1, the place of the class, a number scaled to [-1, 1], or a
        count scaled to [0, 2]."""
        values = np.asarray(column, dtype=np.float64)
        if self.label.coding is Coding.CHOICE:
            return np.clip(values - 1, 0, len(self.classes) - 1).astype(np.float32)
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        if self.task is Task.BINARY:
            return (values > 0.5).astype(np.float32)
        if self.counted:
            return (np.clip(values, self.label.low, self.label.high) / self.unit).astype(np.float32)
        return np.clip(_scaled(self.label, values), -1.0, 1.0).astype(np.float32)

    def unscaled(self, scores: Doubles) -> Doubles:
        """Return what scores of a number or a count predict, in its units, within its bounds."""
        if self.counted:
            return np.clip(self.unit * rates(scores), self.label.low, self.label.high)
        middle, half = scaled_ends(self.label)
        return np.clip(scores, -1.0, 1.0) * half + middle

    def with_tables(self, sizes: Mapping[str, int]) -> tuple[Encoding, Tables]:
        """Return the encoding in which the named categories are codes, and a table for each.

        A table is (column of the matrix, largest code, length of its vectors). Raises Refused
        for a name that is no category and no hashed text.
        """
        known = {f.name: f for f in self.features if f.as_viewed.coding in CODED}
        for name in sizes:
            if name not in known:
                raise Refused("model", f"{name} is no category that a table could hold",
                              ", ".join(known) or "a category, or a text with buckets")
        found = replace(self, features=tuple(
            replace(f, coding=Coding.CODE) if f.name in sizes else f for f in self.features))
        places = {self.features[block].name: place
                  for place, block in reversed(list(enumerate(found.blocks)))}
        return found, tuple((places[name], known[name].codes, size)
                            for name, size in sizes.items())

    def columns(self, rows: Any) -> list[Any]:
        """Read a table of new rows (a mapping of columns, or a data frame) as the view's columns.

        Raises Refused where a feature is missing. Values outside the declared domains are
        treated as the snapshot treats them: clamped, or missing.
        """
        found: list[Any] = []
        for feature in self.features:
            try:
                column = rows[feature.name]
            except (KeyError, IndexError, TypeError):
                raise Refused("model", f"the rows have no column {feature.name}",
                              ", ".join(f.name for f in self.features[:8])) from None
            found.append(_read(feature, list(column)))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the encoding as plain values, ready for JSON."""
        return {"features": [_plain(f) for f in self.features], "label": _plain(self.label),
                "counted": self.counted}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Encoding:
        """Read what `to_dict` wrote."""
        return cls(tuple(_feature(f) for f in fields["features"]), _feature(fields["label"]),
                   bool(fields.get("counted", False)))


def rates(scores: Doubles) -> Doubles:
    """Return the rates of scaled counts, by a log link: finite for every score."""
    found: Doubles = np.exp(np.minimum(scores, LOG_RATE_MAX))
    return found


def _names(feature: Feature) -> tuple[str, ...]:
    if feature.coding is Coding.CHOICE:
        return tuple(f"{feature.name}={value}" for value in feature.values)
    if feature.coding is Coding.BUCKETS:
        return tuple(f"{feature.name}#{i + 1}" for i in range(feature.buckets))
    if feature.coding is Coding.IMAGE:
        return ()
    if feature.coding is Coding.CODE:
        return (feature.name,)
    if feature.coding is Coding.WAVES:
        return tuple(f"{feature.name}~{i + 1}" for i in range(wavelets.width(feature.shape)))
    return (feature.name, f"{feature.name} is missing") if feature.nullable else (feature.name,)


def _images(feature: Feature, column: Any) -> npt.NDArray[np.uint8]:
    """Return the images of rows as bytes; an image of another size is all zeros."""
    size = int(np.prod(feature.shape))
    blank = bytes(size)
    joined = b"".join(b if len(b) == size else blank for b in map(bytes, column))
    shape = feature.shape if len(feature.shape) == 3 else (*feature.shape, 1)
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, *shape)


def _scaled(feature: Feature, values: Doubles) -> Doubles:
    middle, half = scaled_ends(feature)
    with np.errstate(over="ignore"):  # an infinity is clipped like any large number
        scaled: Doubles = (values - middle) / half
    return scaled


def _read(feature: Feature, values: list[Any]) -> Any:
    """Turn values that people write into what the statement would have returned."""
    feature = feature.as_viewed
    if feature.coding is Coding.CHOICE:
        places = {value: i + 1 for i, value in enumerate(feature.values)}
        return [places.get(_bare(value), 0) for value in values]
    if feature.coding is Coding.BUCKETS:
        return [0 if _is_missing(v) else bucket(str(v), feature.buckets) for v in values]
    if feature.coding in PICTURES:
        return [b"" if v is None else bytes(np.asarray(v, dtype=np.uint8).tobytes())
                if not isinstance(v, bytes) else v for v in values]
    return [_number(value) for value in values]


def bucket(text: str, buckets: int) -> int:
    """Return the bucket of a text, as the statement computes it (planner/training_view.py)."""
    digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    return 1 + int(digest[:12], 16) % buckets


def _bare(value: Any) -> Any:
    """Return the plain Python value of a numpy scalar; whole floats as integers."""
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # NaN, NaT and pandas' NA differ from themselves


def _number(value: Any) -> float:
    if _is_missing(value):
        return float("nan")
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, date | datetime):
        return seconds(value)
    if isinstance(value, str):
        try:
            return seconds(datetime.fromisoformat(value))
        except ValueError:
            return float("nan")
    return float(value)


def _plain(feature: Feature) -> dict[str, Any]:
    fields = asdict(feature)
    fields["coding"] = feature.coding.value
    return fields


def _feature(fields: Mapping[str, Any]) -> Feature:
    given = dict(fields)
    given["coding"] = Coding(given["coding"])
    given["values"] = tuple(given["values"])
    given["shape"] = tuple(given["shape"])
    return Feature(**given)
