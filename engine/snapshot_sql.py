"""One declared column and its raw type in; the total SQL that cleans, counts and hashes it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from math import prod

from engine.database import literal
from planner.catalog import CatalogColumn
from planner.domain import MOMENTS, Type, Value

INTEGER_MAX = 2**31 - 1
EXACT_MAX = 2**53  # whole numbers up to here are exact as DOUBLE
TEXT_MAX = 4_000  # characters of one free text that are kept
KEY_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")


class Raw(Enum):
    """How a raw type has to be read."""

    WHOLE = "whole"
    FRACTION = "fraction"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"
    BLOB = "blob"
    TEXT = "text"  # VARCHAR, and whatever else has a text: ENUM, UUID, TIME, lists, structs


def raw_of(type_: str) -> Raw:
    """Classify DuckDB's name of a column type."""
    if type_ in (*KEY_WHOLE, "UBIGINT", "HUGEINT"):
        return Raw.WHOLE
    if type_ in ("FLOAT", "DOUBLE") or (type_.startswith("DECIMAL") and not type_.endswith("]")):
        return Raw.FRACTION
    if type_.startswith("TIMESTAMP") and not type_.endswith("]"):
        return Raw.TIMESTAMP
    return {"BOOLEAN": Raw.BOOLEAN, "DATE": Raw.DATE, "BLOB": Raw.BLOB}.get(type_, Raw.TEXT)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the policy says of a column beyond its domain.

    `key_type` is BIGINT where every column that names the same thing is a whole number.
    `listed` selects the values of a public column too long to be listed in the domain.
    """

    key_type: str = "VARCHAR"
    other: str | int | None = None
    shape: tuple[int, ...] = ()
    listed: str | None = None


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A column's SQL: its value, what to count while reading it, and its part of the row's hash.

    Guarantee: `value` never raises, whatever the row holds; it depends on this row's raw value
    and on the policy alone; and it lies in the column's declared domain or is NULL.
    """

    name: str
    value: str
    counts: tuple[tuple[str, str], ...]  # (a field of ColumnReport, the condition to count)


def cleaned(column: CatalogColumn, raw: str, kind: Raw, plan: Plan) -> Cleaned:
    """Return the SQL for one column; `raw` is the SQL of its raw value."""
    type_ = column.domain.type
    if type_ is Type.KEY:
        counts: tuple[tuple[str, str], ...] = ()
        value = key(raw, kind, plan.key_type)
    elif type_ is Type.TEXT and not column.is_enum and plan.listed is None:
        # One endless text could exhaust the memory of every question that touches its row.
        value, counts = f"left({text(raw, kind)}, {TEXT_MAX})", ()
    elif type_ is Type.TEXT:
        value, counts = _category_text(column, text(raw, kind), raw, plan)
    elif type_ is Type.INTEGER and (column.domain.values is not None or plan.listed is not None):
        value, counts = _category_number(column, number(raw, kind), raw, plan)
    elif type_ in (Type.INTEGER, Type.REAL):
        value, counts = _bounded_number(column, number(raw, kind), raw)
    elif type_ in MOMENTS:
        value, counts = _bounded_moment(column, moment(raw, kind, type_), raw)
    elif type_ is Type.BOOLEAN:
        value = _truth(raw, kind)
        counts = (("failed", f"{raw} IS NOT NULL AND ({value}) IS NULL"),)
    else:
        assert type_ is Type.IMAGE, f"no cleaning for {type_}"
        value = f"CASE WHEN octet_length({raw}) = {prod(plan.shape)} THEN {raw} END"
        counts = (("failed", f"{raw} IS NOT NULL AND ({value}) IS NULL"),)
    return Cleaned(column.name, value, (("nulls", f"{raw} IS NULL"), *counts))


# --- Reading raw values ---------------------------------------------------------------------


def key(raw: str, kind: Raw, key_type: str) -> str:
    """Return a key as BIGINT, or as the one text that equal keys share whatever their type."""
    return f"CAST({raw} AS BIGINT)" if key_type == "BIGINT" else text(raw, kind)


def text(raw: str, kind: Raw) -> str:
    """Return a value's text; a whole number stored as a fraction (7.0) reads as 7."""
    if kind is Raw.FRACTION:
        fraction = f"TRY_CAST({raw} AS DOUBLE)"
        whole = f"{fraction} = trunc({fraction}) AND abs({fraction}) <= {EXACT_MAX}"
        return (
            f"CASE WHEN NOT isfinite({fraction}) THEN NULL WHEN {whole} "
            f"THEN CAST(TRY_CAST({fraction} AS BIGINT) AS VARCHAR) ELSE CAST({raw} AS VARCHAR) END"
        )
    return f"TRY_CAST({raw} AS VARCHAR)"


def number(raw: str, kind: Raw) -> str:
    """Return a value as DOUBLE: exact for every number that declared bounds can keep."""
    if kind is Raw.BOOLEAN:
        return f"CAST(CAST({raw} AS INTEGER) AS DOUBLE)"
    if kind in (Raw.WHOLE, Raw.FRACTION, Raw.TEXT):
        return f"TRY_CAST({raw} AS DOUBLE)"
    return "CAST(NULL AS DOUBLE)"


def moment(raw: str, kind: Raw, type_: Type) -> str:
    """Return a value as DATE or TIMESTAMP."""
    if kind is Raw.DATE and type_ is Type.DATE:
        return raw
    name = "DATE" if type_ is Type.DATE else "TIMESTAMP"
    if kind in (Raw.DATE, Raw.TIMESTAMP, Raw.TEXT):
        return f"TRY_CAST(TRY_CAST({raw} AS TIMESTAMP) AS {name})"
    return f"CAST(NULL AS {name})"


def _truth(raw: str, kind: Raw) -> str:
    if kind is Raw.BOOLEAN:
        return raw
    if kind is Raw.TEXT:
        return f"TRY_CAST({raw} AS BOOLEAN)"
    return f"CASE {number(raw, kind)} WHEN 0 THEN false WHEN 1 THEN true END"


# --- Keeping them in their domain -----------------------------------------------------------


def constant(value: Value) -> str:
    """Write a policy's value as SQL of the column's own type."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return f"TIMESTAMP {literal(value.isoformat(sep=' '))}"
    if isinstance(value, date):
        return f"DATE {literal(value.isoformat())}"
    if isinstance(value, str):
        return literal(value)
    return f"CAST('{float(value)!r}' AS DOUBLE)"


def _bounded(value: str, column: CatalogColumn) -> str:
    """Clamp a value that is known not to be NULL (LEAST and GREATEST would skip a NULL)."""
    low, high = column.domain.low, column.domain.high
    inner = value if high is None else f"least({value}, {constant(high)})"
    return inner if low is None else f"greatest({inner}, {constant(low)})"


def _outside(value: str, column: CatalogColumn) -> tuple[tuple[str, str], ...]:
    low, high = column.domain.low, column.domain.high
    finite = f"isfinite({value})"
    counts = []
    if low is not None:
        counts.append(("low", f"{finite} AND {value} < {constant(low)}"))
    if high is not None:
        counts.append(("high", f"{finite} AND {value} > {constant(high)}"))
    return tuple(counts)


def _bounded_number(
    column: CatalogColumn, value: str, raw: str
) -> tuple[str, tuple[tuple[str, str], ...]]:
    clamped = _bounded(value, column)
    if column.domain.type is Type.INTEGER:
        result = f"CAST(round({clamped}) AS {_whole_type(column)})"
    else:
        result = f"{clamped} + CAST('0' AS DOUBLE)"  # -0.0 becomes 0.0: equal values, equal hash
    counts = (
        ("failed", f"{raw} IS NOT NULL AND {value} IS NULL"),
        ("not_finite", f"NOT isfinite({value})"),
        *_outside(value, column),
    )
    return f"CASE WHEN isfinite({value}) THEN {result} END", counts


def _bounded_moment(
    column: CatalogColumn, value: str, raw: str
) -> tuple[str, tuple[tuple[str, str], ...]]:
    counts = (
        ("failed", f"{raw} IS NOT NULL AND {value} IS NULL"),
        ("not_finite", f"NOT isfinite({value})"),
        *_outside(value, column),
    )
    return f"CASE WHEN isfinite({value}) THEN {_bounded(value, column)} END", counts


def _whole_type(column: CatalogColumn) -> str:
    ends = (column.domain.low, column.domain.high)
    small = all(isinstance(end, int) and -INTEGER_MAX <= end <= INTEGER_MAX for end in ends)
    return "INTEGER" if small else "BIGINT"


def _category_text(
    column: CatalogColumn, value: str, raw: str, plan: Plan
) -> tuple[str, tuple[tuple[str, str], ...]]:
    if column.is_enum:
        type_ = enum_type(column)
        known = f"TRY_CAST({value} AS {type_})"
        outside = f"{raw} IS NOT NULL AND {known} IS NULL"
    else:
        type_ = "VARCHAR"
        known = f"CASE WHEN {value} IN ({plan.listed}) THEN {value} END"
        outside = f"{raw} IS NOT NULL AND {value} NOT IN ({plan.listed})"
    return _or_other(known, raw, type_, plan), (("outside", outside),)


def _category_number(
    column: CatalogColumn, value: str, raw: str, plan: Plan
) -> tuple[str, tuple[tuple[str, str], ...]]:
    type_ = _whole_type(column)
    listed = plan.listed or ", ".join(constant(v) for v in column.domain.values or ())
    known = f"CASE WHEN {value} IN ({listed}) THEN TRY_CAST({value} AS {type_}) END"
    outside = f"{raw} IS NOT NULL AND coalesce({value} NOT IN ({listed}), true)"
    return _or_other(known, raw, type_, plan), (("outside", outside),)


def _or_other(known: str, raw: str, type_: str, plan: Plan) -> str:
    """Put what is outside the domain under `other`, where there is one; a NULL stays NULL."""
    if plan.other is None:
        return known
    other = literal(plan.other) if isinstance(plan.other, str) else str(plan.other)
    return f"CASE WHEN {raw} IS NOT NULL THEN coalesce({known}, CAST({other} AS {type_})) END"


def enum_type(column: CatalogColumn) -> str:
    """Return the ENUM of a category's values, in the catalog's order."""
    return f"ENUM({', '.join(literal(str(value)) for value in column.domain.values or ())})"


# --- The row's hash -------------------------------------------------------------------------


def row_hash(unit_key: str, columns: Sequence[tuple[str, Type]]) -> str:
    """Return the SQL of a row's 64-bit keyed hash, from cleaned columns and its unit's own key.

    Guarantee: the hash's input is one text that can be read back column by column (a text is
    preceded by its length, a number is followed by a semicolon, NULL is empty), so two rows of
    a unit have the same input only if everything stored about them is the same. It contains
    nothing about other rows: no unit number, no row number, no position.
    """
    parts = [unit_key, "';'"]
    for sql, type_ in columns:
        if type_ in (Type.TEXT, Type.KEY):
            word = f"CAST({sql} AS VARCHAR)"
            parts += [f"strlen({word})", "':'", word, "';'"]
        elif type_ is Type.DATE:
            parts += [f"({sql} - DATE '1970-01-01')", "';'"]
        elif type_ is Type.TIMESTAMP:
            parts += [f"epoch_us({sql})", "';'"]
        elif type_ is Type.IMAGE:
            parts += [f"md5({sql})", "';'"]
        else:
            parts += [sql, "';'"]
    return f"md5_number_lower(concat({', '.join(parts)}))"

