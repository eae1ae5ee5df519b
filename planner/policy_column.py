"""One column as written in, the frozen facts about it out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from math import isfinite
from types import MappingProxyType
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from planner.policy_text import Loc, Scalar, Wrong, nearest, shown
from planner.policy_values import (
    read_category,
    read_date,
    read_decimal,
    read_flag,
    read_timestamp,
    read_whole,
    read_word,
)

WHOLE_MAX = 2**53  # whole numbers up to here are exact as binary floats too
CATEGORIES_MAX = 100_000
SIDE_MAX = 4096  # pixels along one side of an image, or its channels

ColumnKind = Literal[
    "unit", "key", "references", "category", "category_of", "boolean", "integer", "real", "date",
    "timestamp", "text", "image",
]
Bound = int | float | datetime | date

# How each kind is written: the remedy in most messages.
FORMS: Mapping[str, str] = MappingProxyType({
    "unit": "unit",
    "key": "key",
    "references": "{references: visits}",
    "category": "{category: [F, M]}",
    "category_of": "{category_of: regions.region}",
    "boolean": "boolean",
    "integer": "{integer: [0, 120]}",
    "real": "{real: [0, 500]}",
    "date": "{date: [2015-01-01, 2026-12-31]}",
    "timestamp": "{timestamp: [2015-01-01, 2026-12-31]}",
    "text": "text",
    "image": "{image: [28, 28, 1]}",
})
_PLAIN = ("unit", "key", "boolean", "text")  # kinds that need nothing beside their name
_BOUNDED: Mapping[str, type] = MappingProxyType(
    {"integer": int, "real": float, "date": date, "timestamp": datetime}
)


class Part(BaseModel):
    """What all parts share: nothing unknown, nothing converted by guess, nothing changed later."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _only_mappings(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            raise ValueError(
                f"{shown(data)} is not a mapping; write fields: {', '.join(cls.model_fields)}"
            )
        return data


class ColumnPolicy(Part):
    """One declared column.

    `values` of a category contain its `other`. `references` and `category_of` are as written;
    `Policy.reference` and `Policy.category_source` resolve them.
    """

    kind: ColumnKind
    low: Bound | None = None
    high: Bound | None = None
    values: tuple[str, ...] | tuple[int, ...] | None = None
    references: str | None = None
    category_of: str | None = None
    not_null: bool = False
    loose: bool = False
    step: Decimal | None = None
    other: str | int | None = None
    shape: tuple[int, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, data: object) -> object:
        if isinstance(data, Mapping) and isinstance(data.get("kind"), str):
            return data  # built in Python, in the model's own words
        return _column_fields(data)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        faults = [*_argument_faults(self), *_option_faults(self)]
        if faults:
            raise Wrong(faults)
        return self


def _shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{shown(value)} is no shape; write its sides, as in [28, 28, 1]")
    return tuple(read_whole(side) for side in value)


_OPTIONS: Mapping[str, Callable[[object], object]] = MappingProxyType({
    "not_null": read_flag, "loose": read_flag, "step": read_decimal, "other": read_category,
    "shape": _shape,
})


def _column_fields(data: object) -> dict[str, object]:
    """Turn a column as written into the model's fields, or raise every fault at once."""
    if isinstance(data, Scalar | str):
        word = data if isinstance(data, str) else data.text
        if word in _PLAIN:
            return {"kind": word}
        if word in FORMS:
            raise ValueError(f"'{word}' needs more; write {FORMS[word]}")
        raise ValueError(f"'{word}' is no type; {nearest(word, list(FORMS))}")
    if not isinstance(data, Mapping):
        raise ValueError(f"{shown(data)} is no column; write a type such as {FORMS['integer']}")
    kinds = [name for name in data if name in FORMS]
    faults: list[tuple[Loc, str]] = [
        ((name,), f"is no field here; {nearest(name, [*FORMS, *_OPTIONS])}")
        for name in data if name not in FORMS and name not in _OPTIONS
    ]
    fields: dict[str, object] = {}
    if len(kinds) == 1:
        fields = _argument(kinds[0], data[kinds[0]], faults)
    elif kinds or not faults:
        said = f"has {len(kinds)} types ({', '.join(kinds)})" if kinds else "has no type"
        faults.append(((), f"{said}; write exactly one, such as {FORMS['integer']}"))
    for name, read in _OPTIONS.items():
        if name in data:
            _collect(fields, name, (name,), partial(read, data[name]), faults)
    if faults:
        raise Wrong(faults)
    _complete_values(fields)
    return fields


def _complete_values(fields: dict[str, object]) -> None:
    values, other = fields.get("values"), fields.get("other")
    if not isinstance(values, tuple):
        return
    if other is not None and other not in values:
        values = fields["values"] = (*values, other)
    if len({type(value) for value in values}) > 1:
        said = "mixes whole numbers and words; quote the numbers if the column is text"
        raise Wrong([(("category",), said)])


def _collect(
    fields: dict[str, object], name: str, loc: Loc, read: Callable[[], object],
    faults: list[tuple[Loc, str]],
) -> None:
    try:
        fields[name] = read()
    except ValueError as error:
        faults.append((loc, str(error)))


def _argument(kind: str, value: object, faults: list[tuple[Loc, str]]) -> dict[str, object]:
    """Read what stands behind the type's name."""
    fields: dict[str, object] = {"kind": kind}
    loc: Loc = (kind,)
    if kind in _BOUNDED:
        if not isinstance(value, list | tuple) or len(value) != 2:
            faults.append((loc, f"needs its lowest and highest value; write {FORMS[kind]}"))
            return fields
        _collect(fields, "low", (kind, 0), lambda: _bound(kind, value[0], last=False), faults)
        _collect(fields, "high", (kind, 1), lambda: _bound(kind, value[1], last=True), faults)
    elif kind == "category":
        if not isinstance(value, list | tuple):
            faults.append((loc, f"needs a list of values; write {FORMS[kind]}"))
            return fields
        read: dict[str, object] = {}
        for place, item in enumerate(value):
            _collect(read, str(place), (kind, place), partial(read_category, item), faults)
        fields["values"] = tuple(read.values())
    elif kind in ("references", "category_of"):
        _collect(fields, kind, loc, lambda: read_word(value), faults)
    elif kind == "image" and isinstance(value, list | tuple):
        _collect(fields, "shape", loc, lambda: _shape(value), faults)
    elif not (value is True or (isinstance(value, Scalar) and value.text == "true")):
        faults.append((loc, f"takes no value but true; write {{{kind}: true}} or {FORMS[kind]}"))
    return fields


def _bound(kind: str, value: object, *, last: bool) -> Bound:
    if kind == "integer":
        return read_whole(value)
    if kind == "real":
        return float(read_decimal(value))
    if kind == "date":
        return read_date(value)
    return read_timestamp(value, end_of_day=last)


def _argument_faults(column: ColumnPolicy) -> list[tuple[Loc, str]]:
    kind, form = column.kind, FORMS[column.kind]
    given = {"values": column.values, "references": column.references, "shape": column.shape,
             "category_of": column.category_of, "low": column.low, "high": column.high}
    wanted = {"category": {"values"}, "image": {"shape"}}.get(kind, {kind} & set(given))
    if kind in _BOUNDED:
        wanted = {"low", "high"}
    has = {name for name, value in given.items() if value is not None}
    if has != wanted:
        if "shape" in has - wanted:
            return [(("shape",), "belongs to images only; remove it")]
        return [((kind,), f"needs {', '.join(sorted(wanted)) or 'nothing more'}; write {form}")]
    if kind in _BOUNDED:
        return _bound_faults(column)
    if kind == "category":
        return _value_faults(column.values or (), form)
    if kind == "image" and not (
        len(column.shape or ()) in (2, 3) and all(1 <= s <= SIDE_MAX for s in column.shape or ())
    ):
        return [((kind,), f"has sides from 1 to {SIDE_MAX}, two or three; write {form}")]
    return []


def _bound_faults(column: ColumnPolicy) -> list[tuple[Loc, str]]:
    kind, ends = column.kind, (column.low, column.high)
    faults: list[tuple[Loc, str]] = []
    for place, end in enumerate(ends):
        if type(end) is not _BOUNDED[kind]:
            faults.append(((kind, place), f"'{end}' is no {kind}; write {FORMS[kind]}"))
        elif isinstance(end, float) and not isfinite(end):
            faults.append(((kind, place), "is too large; write a finite number"))
        elif isinstance(end, int) and not -WHOLE_MAX <= end <= WHOLE_MAX:
            faults.append(((kind, place), f"{end} is beyond 2^53; lower it, or use real"))
    if not faults and not column.low <= column.high:  # type: ignore[operator]
        said = f"the lowest value {ends[0]} is above the highest {ends[1]}; swap them"
        faults.append(((kind,), said))
    return faults


def _value_faults(
    values: tuple[str, ...] | tuple[int, ...], form: str
) -> list[tuple[Loc, str]]:
    loc: Loc = ("category",)
    if not values:
        return [(loc, f"has no values; write every value the column may take, as in {form}")]
    if len(values) > CATEGORIES_MAX:
        said = f"has {len(values)} values, at most {CATEGORIES_MAX}; use category_of or text"
        return [(loc, said)]
    faults: list[tuple[Loc, str]] = []
    seen: set[object] = set()
    for place, value in enumerate(values):
        if value in seen:
            faults.append((("category", place), f"'{value}' stands twice; remove one"))
        seen.add(value)
        if isinstance(value, int) and not -WHOLE_MAX <= value <= WHOLE_MAX:
            faults.append((("category", place), f"{value} is beyond 2^53; use words"))
    return faults


def _option_faults(column: ColumnPolicy) -> list[tuple[Loc, str]]:
    faults: list[tuple[Loc, str]] = []
    is_number = column.kind in ("integer", "real")
    if column.loose and not is_number:
        faults.append((("loose",), "belongs to integer and real columns only; remove it"))
    if column.step is not None:
        if not is_number:
            faults.append((("step",), "belongs to integer and real columns only; remove it"))
        elif not 0 < float(column.step) < float("inf"):
            faults.append((("step",), f"{column.step} is not positive; write one such as 0.1"))
        elif column.kind == "integer" and column.step != int(column.step):
            said = f"{column.step} is not whole, but the column is; write one such as 10"
            faults.append((("step",), said))
    if column.other is not None:
        if column.kind not in ("category", "category_of"):
            faults.append((("other",), "belongs to category and category_of only; remove it"))
        elif column.values is not None and column.other not in column.values:
            faults.append((("other",), "is not among the values; add it to them"))
    return faults
