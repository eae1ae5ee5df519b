"""What values an expression can take: declared facts in, bounds and finite sets out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import Enum
from math import inf, isfinite

# A finite set larger than this is not enumerated: it is treated as unbounded in number.
MEMBERS_MAX = 100_000


class Type(Enum):
    """The logical types of the engine."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    REAL = "real"
    TEXT = "text"
    DATE = "date"
    TIMESTAMP = "timestamp"
    UNIT = "unit"  # names the patient: joins, per-patient grouping and counting only
    KEY = "key"  # names a row: joins and counting only
    IMAGE = "image"
    NULL = "null"  # the bare NULL literal


Value = bool | int | float | str | date | datetime
NUMBERS = frozenset({Type.INTEGER, Type.REAL})
MOMENTS = frozenset({Type.DATE, Type.TIMESTAMP})


@dataclass(frozen=True, slots=True)
class Domain:
    """A closed interval, a finite set, or neither, and whether NULL can occur.

    `low` and `high` are numbers, dates or timestamps (None: unbounded on that side).
    `values` is a finite set in its natural order, without NULL. `key_of` names what a KEY
    identifies, as "table.column": two keys may be compared only when it is the same. `shape`
    is that of an image: its sides and channels, one byte each.
    """

    type: Type
    nullable: bool = True
    low: Value | None = None
    high: Value | None = None
    values: tuple[Value, ...] | None = None
    key_of: str | None = None
    shape: tuple[int, ...] | None = None

    @property
    def is_number(self) -> bool:
        return self.type in NUMBERS

    @property
    def interval(self) -> tuple[float, float] | None:
        """The closed numeric interval, or None where the domain is not a bounded number."""
        if self.type is Type.BOOLEAN:
            return (0.0, 1.0)
        if not self.is_number or self.low is None or self.high is None:
            return None
        low, high = float(self.low), float(self.high)  # type: ignore[arg-type]
        return (low, high) if isfinite(low) and isfinite(high) and low <= high else None

    def members(self) -> tuple[Value, ...] | None:
        """Every value but NULL in order, or None where there are too many or unknown ones."""
        if self.values is not None:
            return self.values if len(self.values) <= MEMBERS_MAX else None
        if self.type is Type.BOOLEAN:
            return (False, True)
        if self.low is None or self.high is None:
            return None
        if self.type is Type.INTEGER:
            low, high = int(self.low), int(self.high)  # type: ignore[arg-type]
            return tuple(range(low, high + 1)) if high - low < MEMBERS_MAX else None
        if self.type is Type.DATE:
            low_day, high_day = self.low, self.high
            if not isinstance(low_day, date) or not isinstance(high_day, date):
                return None
            days = (high_day - low_day).days
            if not 0 <= days < MEMBERS_MAX:
                return None
            return tuple(low_day + timedelta(days=day) for day in range(days + 1))
        return None

    def with_null(self, nullable: bool = True) -> Domain:
        """The same domain with or without NULL."""
        return replace(self, nullable=nullable)


def boolean(nullable: bool) -> Domain:
    """Return the domain of a truth value."""
    return Domain(Type.BOOLEAN, nullable)


def integer(low: float | None, high: float | None, nullable: bool) -> Domain:
    """Return an integer interval; an infinite or missing end means unbounded."""
    return Domain(Type.INTEGER, nullable, _whole(low), _whole(high))


def real(low: float | None, high: float | None, nullable: bool) -> Domain:
    """Return a real interval; an infinite or missing end means unbounded."""
    return Domain(Type.REAL, nullable, _finite(low), _finite(high))


def finite(type_: Type, values: Iterable[Value], nullable: bool) -> Domain:
    """Return a finite set, sorted and without repeats; numbers and moments get their ends."""
    kept = tuple(sorted(set(values)))
    ordered = type_ in NUMBERS or type_ in MOMENTS
    low, high = (kept[0], kept[-1]) if kept and ordered else (None, None)
    return Domain(type_, nullable, low, high, kept)


def text(nullable: bool) -> Domain:
    """Return the domain of free text: unknown values, so its keys need partition selection."""
    return Domain(Type.TEXT, nullable)


def _finite(end: float | None) -> float | None:
    return float(end) if end is not None and -inf < end < inf else None


def _whole(end: float | None) -> int | None:
    return int(end) if end is not None and -inf < end < inf else None
