"""A policy file in; what the data owner declares, checked and frozen, out.

Guarantee: a `Policy` that exists is coherent. It has one unit column, every protected table
reaches it by one known road, every bound is finite, and every name it uses is declared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from planner.policy_check import (
    Hop,
    category_faults,
    file_faults,
    is_address,
    is_file,
    name_faults,
    number_faults,
    reference_faults,
    route_faults,
    routes,
    target,
    unit_faults,
)
from planner.policy_column import Bound, ColumnKind, ColumnPolicy, Part
from planner.policy_faults import faults_of, todo_text, touches
from planner.policy_text import (
    Fields,
    Loc,
    PolicyError,
    Problem,
    Scalar,
    Wrong,
    dotted,
    line_of,
    plain_data,
    read_fields,
    repeated_keys,
    scalars,
    shown,
)
from planner.policy_values import read_decimal, read_flag, read_whole, read_word

__all__ = [
    "AnalystQuota", "Bound", "Budget", "ColumnKind", "ColumnPolicy", "Defaults", "Hop", "Policy",
    "PolicyError", "TablePolicy", "parse_policy", "read_policy", "unit_route",
]

ROWS_MAX = 1_000_000_000

def _whole_rows(value: int) -> int:
    if not 1 <= value <= ROWS_MAX:
        raise ValueError(f"{value} is out of range; write a whole number from 1 to {ROWS_MAX}")
    return value


def _positive(value: Decimal) -> Decimal:
    if not (value.is_finite() and value > 0):
        raise ValueError(f"{value} is not positive; write a number above 0, such as 1.0")
    return value


def _share(value: Decimal) -> Decimal:
    if not (value.is_finite() and 0 <= value < 1):
        raise ValueError(f"{value} is not in [0, 1); write a small number such as 1e-6")
    return value


def _number_one(value: object) -> int:
    if isinstance(value, int | Scalar) and read_whole(value) == 1:
        return 1
    raise ValueError(f"{shown(value)} is no version that is known here; write 'discreet: 1'")


def _named(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise ValueError(f"{shown(value)} is not a mapping; write 'name: ...' lines below it")


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


Whole = Annotated[int, BeforeValidator(read_whole), AfterValidator(_whole_rows)]
Epsilon = Annotated[Decimal, BeforeValidator(read_decimal), AfterValidator(_positive)]
Delta = Annotated[Decimal, BeforeValidator(read_decimal), AfterValidator(_share)]
Flag = Annotated[bool, BeforeValidator(read_flag)]
Word = Annotated[str, BeforeValidator(read_word)]
_named_frozen = (
    BeforeValidator(_named), AfterValidator(MappingProxyType),
    PlainSerializer(lambda names: dict(names)),
)


class Budget(Part):
    """All that may ever be spent on these data."""

    epsilon: Epsilon
    delta: Delta


class Defaults(Part):
    """What a query uses when it says nothing else."""

    epsilon: Epsilon = Decimal("0.1")
    delta: Delta | None = None
    rows_per_unit: Whole = 20
    max_rows_per_unit: Whole = 1000


class AnalystQuota(Part):
    """The share of the budget that one analyst may spend: a quota, not the promise."""

    epsilon: Epsilon


class TablePolicy(Part):
    """One declared table: public, or protected with its columns."""

    public: Flag = False
    source: Word | None = None
    one_row_per_unit: Flag = False
    rows_per_unit: Whole | None = None
    max_rows_per_unit: Whole | None = None
    unit_path: Word | None = None
    columns: Annotated[Mapping[str, ColumnPolicy], *_named_frozen] = Field(
        default_factory=_nothing
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: object) -> object:
        word = data.text if isinstance(data, Scalar) else data
        if word == "public":
            return {"public": True}
        if isinstance(word, str):
            raise ValueError(f"'{word}' is no table; write 'public', or 'columns:' and its columns")
        return data

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        faults: list[tuple[Loc, str]] = []
        written = self.model_fields_set - {"public", "source"}
        if self.public:
            faults += [
                ((name,), "a public table has no such field; it has only 'source'")
                for name in sorted(written)
            ]
        elif not self.columns:
            faults.append(((), "has no columns; declare those to be used, or write 'public'"))
        if self.one_row_per_unit:
            faults += [
                ((name,), "contradicts one_row_per_unit; remove one of the two")
                for name in ("rows_per_unit", "max_rows_per_unit")
                if getattr(self, name) not in (None, 1)
            ]
        if faults:
            raise Wrong(faults)
        return self


class Policy(Part):
    """Everything the data owner declares."""

    discreet: Annotated[Literal[1], BeforeValidator(_number_one)]
    database: Word
    ledger: Word
    witness: Word | None = None
    budget: Budget
    defaults: Defaults = Defaults()
    analysts: Annotated[Mapping[str, AnalystQuota], *_named_frozen] = Field(
        default_factory=_nothing
    )
    unit: Word
    units: Whole | None = None
    tables: Annotated[Mapping[str, TablePolicy], *_named_frozen]
    views: Annotated[Mapping[str, Word], *_named_frozen] = Field(default_factory=_nothing)

    _base: Path = PrivateAttr(default=Path())
    _source: str = PrivateAttr(default="policy")
    _written: Fields | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        faults = [*file_faults(self), *number_faults(self), *name_faults(self)]
        faults += category_faults(self)
        # Each of these stands on the one before: a wrong unit makes every reference look wrong.
        for check in (unit_faults, reference_faults, route_faults):
            found = check(self)
            faults += found
            if found:
                break
        if faults:
            raise Wrong(faults)
        return self

    @property
    def base(self) -> Path:
        """The folder against which relative paths resolve."""
        return self._base

    @property
    def unit_table(self) -> str:
        """The table that holds one key per patient."""
        return self.unit.partition(".")[0]

    @property
    def unit_column(self) -> str:
        """The column that names the patient."""
        return self.unit.partition(".")[2]

    @property
    def policy_hash(self) -> str:
        """The sha256 of what the policy says; comments, order and short forms do not matter."""
        return _digest(_canonical(self))

    @property
    def data_hash(self) -> str:
        """The sha256 of only what shapes the snapshot."""
        shapes: dict[str, object] = {"discreet": self.discreet, "unit": self.unit}
        for name, table in self.tables.items():
            columns = {
                column: _canonical(declared, without=("loose", "step"))
                for column, declared in table.columns.items()
            }
            shapes[f"table {name}"] = {
                "public": table.public, "source": table.source, "columns": columns,
                "one_row_per_unit": table.one_row_per_unit,
                "max_rows_per_unit": None if table.public else self.max_rows_per_unit(name),
                "route": None if table.public else [list(hop) for hop in unit_route(self, name)],
            }
        return _digest(shapes)

    def database_path(self) -> Path:
        """Return the database: a DuckDB file, a folder, or one Parquet or CSV file."""
        return self._base / self.database

    def ledger_url(self) -> str | Path:
        """Return the ledger's file, or its PostgreSQL address as written."""
        return self.ledger if is_address(self.ledger) else self._base / self.ledger

    def witness_path(self) -> Path | None:
        """Return the file that witnesses the ledger's head, where one is declared."""
        return None if self.witness is None else self._base / self.witness

    def source_of(self, table: str) -> str | Path:
        """Return the table's name in the database, or the file that holds it."""
        source = self.tables[table].source or table
        return self._base / source if is_file(source) else source

    def query_delta(self) -> Decimal:
        """Return the delta of a query that names none."""
        stated = self.defaults.delta
        return self.budget.delta.scaleb(-3) if stated is None else stated

    def rows_per_unit(self, table: str) -> int:
        """Return how many of a unit's rows a query keeps when nothing better is known."""
        stated = self.tables[table].rows_per_unit or self.defaults.rows_per_unit
        return min(stated, self.max_rows_per_unit(table))

    def max_rows_per_unit(self, table: str) -> int:
        """Return the ceiling that the snapshot enforces."""
        declared = self.tables[table]
        if declared.one_row_per_unit:
            return 1
        return declared.max_rows_per_unit or self.defaults.max_rows_per_unit

    def reference(self, table: str, column: str) -> tuple[str, str] | None:
        """Return the (table, column) that a `references` column names, else None."""
        written = self.tables[table].columns[column].references
        if written is None:
            return None
        found = target(self, written)
        assert not isinstance(found, str), "a Policy that exists has resolvable references"
        return found

    def category_source(self, table: str, column: str) -> tuple[str, str] | None:
        """Return the public (table, column) that lists this column's values, else None."""
        written = self.tables[table].columns[column].category_of
        if written is None:
            return None
        source, _, name = written.partition(".")
        return source, name

    def place(self, *loc: str | int) -> tuple[str, int, str]:
        """Return the file, line and path of a field, for faults found after reading."""
        line = 1 if self._written is None else line_of(self._written, loc)
        return self._source, line, dotted(loc)


_FIELDS: Mapping[object, list[str]] = MappingProxyType({
    "": list(Policy.model_fields),
    "budget": list(Budget.model_fields),
    "defaults": list(Defaults.model_fields),
    "analysts": list(AnalystQuota.model_fields),
    "tables": list(TablePolicy.model_fields),
})


def read_policy(path: str | Path) -> Policy:
    """Read a policy file, or raise PolicyError with every fault in it."""
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        said = f"cannot be read ({error.strerror}); name a policy file"
        raise PolicyError([Problem(str(path), 1, "", said)]) from None
    except UnicodeDecodeError:
        raise PolicyError([Problem(str(path), 1, "", "is not UTF-8; save it as UTF-8")]) from None
    return parse_policy(text, path.resolve().parent, str(path))


def parse_policy(text: str, base: Path, source: str) -> Policy:
    """Read a policy's text, or raise PolicyError with every fault in it."""
    root = read_fields(text, source)
    faults = [
        (line, loc, f"stands twice (first on line {first}); remove one of the two")
        for loc, line, first in repeated_keys(root)
    ]
    todo = [loc for loc, scalar in scalars(root) if scalar.is_todo]
    faults += [(line_of(root, loc), loc, todo_text(loc)) for loc in todo]
    policy = None
    try:
        policy = Policy.model_validate(plain_data(root))
    except ValidationError as error:
        found = [fault for details in error.errors() for fault in faults_of(details, _FIELDS)]
        # What is still to be written is told once, by the steward's own mark.
        found = [f for f in found if not any(touches(f[0], loc) for loc in todo)]
        faults += [(line_of(root, loc), loc, said) for loc, said in found]
    if policy is None or faults:
        raise PolicyError([Problem(source, line, dotted(loc), t) for line, loc, t in faults])
    policy._base, policy._source, policy._written = Path(base), source, root
    return policy


def unit_route(policy: Policy, table: str) -> tuple[Hop, ...]:
    """Return the foreign keys from a protected table to the unit's table (its own: none)."""
    return routes(policy)[0][table]


# Hashes.


def _canonical(part: object, without: tuple[str, ...] = ()) -> object:
    """Return what a part says as plain JSON: absent fields are left out, categories sorted."""
    if isinstance(part, BaseModel):
        return {
            name: _canonical(sorted(value) if name == "values" else value)
            for name in type(part).model_fields
            if name not in without and (value := getattr(part, name)) is not None
        }
    if isinstance(part, Mapping):
        return {name: _canonical(value) for name, value in part.items()}
    if isinstance(part, list | tuple):
        return [_canonical(value) for value in part]
    if isinstance(part, Decimal):
        return f"{part.normalize():f}"
    return part.isoformat() if isinstance(part, date) else part


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
