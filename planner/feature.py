"""A column of a training view: public facts in, how it becomes numbers out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from enum import Enum
from math import isfinite

from planner.domain import Value


class Coding(Enum):
    """How a column of the view becomes numbers."""

    NUMBER = "number"  # scaled by its bounds
    TRUTH = "truth"
    MOMENT = "moment"  # seconds since 1970, scaled by its bounds
    CHOICE = "choice"  # one of the declared values
    BUCKETS = "buckets"  # a text hashed into a declared number of buckets
    IMAGE = "image"
    WAVES = "waves"  # an image as fixed features of its edges (models/wavelets.py)
    CODE = "code"  # the place of a value or bucket, looked up in a learned table


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the view: public facts that encode it, the same here and in `predict`.

    `low` and `high` are finite for NUMBER, TRUTH and MOMENT. `values` are the choices in order;
    `buckets` counts them where a text is hashed. `nullable` adds an indicator where NULL is not
    one of the choices.
    """

    name: str
    coding: Coding
    nullable: bool
    low: float = 0.0
    high: float = 1.0
    values: tuple[str | int, ...] = ()
    buckets: int = 0
    shape: tuple[int, ...] = ()
    whole: bool = False

    @property
    def codes(self) -> int:
        """How many codes a category or a hashed text has, besides 0 for what is missing."""
        return self.buckets or len(self.values)

    @property
    def as_viewed(self) -> Feature:
        """The feature as the view has it, where a model looks its codes up."""
        if self.coding is not Coding.CODE:
            return self
        return replace(self, coding=Coding.BUCKETS if self.buckets else Coding.CHOICE)


def seconds(value: Value) -> float:
    """Return a date or timestamp as seconds since 1970."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC).timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    return float(value)


def scaled_ends(feature: Feature) -> tuple[float, float]:
    """Return the middle and half the width of a feature's bounds; a width of 0 counts as 1."""
    middle, half = (feature.low + feature.high) / 2, (feature.high - feature.low) / 2
    return middle, half if half > 0 and isfinite(half) else 1.0
