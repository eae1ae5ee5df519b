"""Counts made while a snapshot was built in; what the steward reads about the data out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class ColumnReport:
    """How often a column's raw values did not fit its declaration, over all rows read."""

    name: str
    nulls: int = 0
    failed: int = 0  # could not be read as the declared type
    not_finite: int = 0  # NaN and infinities
    low: int = 0  # raised to the lowest declared value
    high: int = 0  # lowered to the highest
    outside: int = 0  # categories that are not declared


@dataclass(frozen=True, slots=True)
class TableReport:
    """What became of a protected table's rows: read + copied - all that was dropped = kept."""

    name: str
    read: int
    no_unit: int  # dropped: no patient, or a reference that leads nowhere
    copied: int  # added: the reference leads to several patients, and each gets the row
    not_null: int  # dropped: NULL in a column declared not_null
    duplicates: int  # dropped: further rows of a patient in a table of one row per patient
    over_ceiling: int  # dropped: rows of a patient beyond max_rows_per_unit
    kept: int
    units: int
    seconds: float
    columns: tuple[ColumnReport, ...]


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    """What a snapshot's data were like. For the steward only: these are exact private counts."""

    units: int
    seconds: float
    tables: tuple[TableReport, ...]

    def table(self, name: str) -> TableReport:
        """Return the report of one protected table."""
        return next(table for table in self.tables if table.name == name)

    def __str__(self) -> str:
        lines = [
            f"Snapshot of {self.units:,} patients, built in {self.seconds:.1f} s. "
            "For the data steward only: these counts are exact."
        ]
        for table in self.tables:
            lines += ["", *_table_lines(table)]
        return "\n".join(lines)


_ROW_WORDS = {
    "no_unit": "dropped, lead to no patient",
    "copied": "copied, lead to several patients",
    "not_null": "dropped, NULL in a not_null column",
    "duplicates": "dropped, further rows of a one-row patient",
    "over_ceiling": "dropped, beyond max_rows_per_unit",
}
_COLUMN_WORDS = {
    "nulls": "NULL",
    "failed": "of the wrong type",
    "not_finite": "NaN or infinite",
    "low": "raised to the lowest value",
    "high": "lowered to the highest value",
    "outside": "outside the categories",
}


def _table_lines(table: TableReport) -> list[str]:
    lines = [
        f"{table.name}: {table.read:,} rows read, {table.kept:,} kept, "
        f"{table.units:,} patients, {table.seconds:.1f} s"
    ]
    for name, words in _ROW_WORDS.items():
        if getattr(table, name):
            lines.append(f"  {getattr(table, name):>12,}  {words}")
    for column in table.columns:
        counts = [
            f"{getattr(column, name):,} {words}"
            for name, words in _COLUMN_WORDS.items()
            if getattr(column, name)
        ]
        if counts:
            lines.append(f"  {column.name}: {', '.join(counts)}")
    return lines


def report_to_json(report: SnapshotReport) -> dict[str, Any]:
    """Return a report as plain JSON values."""
    return asdict(report)


def report_from_json(stored: Mapping[str, Any]) -> SnapshotReport:
    """Read a stored report back."""
    tables = tuple(
        TableReport(**{
            **table, "columns": tuple(ColumnReport(**column) for column in table["columns"])
        })
        for table in stored["tables"]
    )
    return SnapshotReport(stored["units"], stored["seconds"], tables)


COUNTED = tuple(field.name for field in fields(ColumnReport) if field.name != "name")
