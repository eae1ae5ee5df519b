"""What the planner may know of the tables: a policy and public tables in, frozen facts out.

Nothing here depends on a protected row. Public tables' contents are public, so their values,
their bounds and how often a value repeats are facts as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from planner.domain import Domain, Value
from planner.formula import Formula


class Kind(Enum):
    """Whose data a relation holds."""

    PUBLIC = "public"  # no unit's data
    PROTECTED = "protected"  # every row belongs to exactly one unit
    RELEASED = "released"  # already noised, and paid for


@dataclass(frozen=True, slots=True)
class CatalogColumn:
    """One declared column.

    `is_enum` says that the snapshot stores the column as an ENUM of `domain.values`.
    `rows_per_value` (public tables) is the largest number of rows that share one value.
    `referenced` says that some foreign key points here, so the snapshot numbers the rows of
    a unit that share this key in "__key_rank_<name>" (1, 2, ...).
    `loose` and `step` are the policy's hints for adaptive bounds and for the noise grid.
    """

    name: str
    domain: Domain
    is_enum: bool = False
    rows_per_value: int | None = None
    referenced: bool = False
    loose: bool = False
    step: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PublicRows:
    """The distinct rows of a small public table. Compared by identity, because it is large."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Value | None, ...], ...]


@dataclass(frozen=True, slots=True)
class CatalogTable:
    """One declared table and how many rows a unit can have in it.

    Guarantee: in the snapshot no unit has more than `max_rows_per_unit` rows in a protected
    table, nor more than one where `one_row_per_unit` is true.
    """

    name: str
    kind: Kind
    columns: tuple[CatalogColumn, ...]
    one_row_per_unit: bool = False
    rows_per_unit: int = 20
    max_rows_per_unit: int = 1000
    public_rows: PublicRows | None = None

    def column(self, name: str) -> CatalogColumn | None:
        """Find a column by name, ignoring case as SQL does."""
        folded = name.lower()
        return next((c for c in self.columns if c.name.lower() == folded), None)


@dataclass(frozen=True, slots=True)
class Catalog:
    """All declared tables, views of the policy, and models that were published."""

    tables: tuple[CatalogTable, ...]
    policy_hash: str
    views: tuple[tuple[str, str], ...] = ()  # name and SELECT; each sees those before it
    models: tuple[Formula, ...] = ()

    def table(self, name: str) -> CatalogTable | None:
        """Find a table by name, ignoring case as SQL does."""
        folded = name.lower()
        return next((t for t in self.tables if t.name.lower() == folded), None)
