"""A schema in; a policy's guesses by name out, and TODO where only the steward can know."""

from __future__ import annotations

import re

from engine.drafting_schema import SourceColumn, SourceTable
from engine.drafting_words import is_name, plural, singular, word

_UNIT_TABLES = (
    "person", "patient", "subject", "member", "beneficiary", "participant", "demographic",
)
_UNIT_COLUMNS = (
    "person_id", "patient_id", "subject_id", "patient_nbr", "pid", "patientid", "patient",
    "member_id", "participant_id", "beneficiary_id", "desynpuf_id", "subjectid", "mrn",
)
_IDENTIFIERS = re.compile(
    r"(^|_)(first|last|middle|maiden|full)?_?name$|address|street|phone|e?mail|(^|_)ssn($|_)"
    r"|passport|licen[cs]e|(^|_)drivers($|_)|(^|_)zip($|_)|latitude|longitude|(^|_)lat$|(^|_)lon$"
)
_TYPES = {
    **dict.fromkeys(("DATE",), "{date: TODO}"),
    **dict.fromkeys(("FLOAT", "DOUBLE", "DECIMAL"), "{real: TODO}"),
    **dict.fromkeys(("VARCHAR", "UUID", "CHAR", "TEXT"), "text"),
    **dict.fromkeys(
        ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT",
         "UINTEGER", "UBIGINT", "UHUGEINT", "BIGNUM"),
        "{integer: TODO}",
    ),
    "BOOLEAN": "boolean",
    "ENUM": "{category: TODO}",
}
_HINTS = {
    "{integer: TODO}": "[lowest, highest] from public knowledge",
    "{real: TODO}": "[lowest, highest] from public knowledge",
    "{date: TODO}": "[first, last], as in [2015-01-01, 2026-12-31]",
    "{timestamp: TODO}": "[first, last], as in [2015-01-01, 2026-12-31]",
    "{category: TODO}": "every value, as in [F, M]",
    "text": "or {category: [...]} where the values are publicly known",
}


class Draft:
    """The guesses about one schema."""

    def __init__(self, tables: tuple[SourceTable, ...]) -> None:
        self._tables = tables
        self._unit = self._find_unit()
        self._keys = {table.name: self._find_key(table) for table in tables}

    def text(self) -> str:
        unit = "TODO" if self._unit is None else ".".join(self._unit)
        why = "   # table.column that names the patient" if self._unit is None else ""
        lines = [f"unit: {word(unit, todo=True)}{why}", "tables:"]
        linked = self._linked()
        for table in self._tables:
            if not is_name(table.name) or "." in table.name:
                lines.append(f"  # a table is left out: {word(table.name)} cannot be its name")
                continue
            lines += self._table_lines(table, table.name in linked)
        return "\n".join(lines) + "\n"

    def _find_unit(self) -> tuple[str, str] | None:
        for name in _UNIT_TABLES:
            for table in self._tables:
                if table.name.lower() in (name, plural(name)):
                    column = self._unit_column_of(table)
                    if column is not None:
                        return table.name, column
        holders = [
            (table.name, column.name)
            for table in self._tables for column in table.columns
            if column.name.lower() in _UNIT_COLUMNS
        ]
        return holders[0] if len(holders) == 1 else None

    def _unit_column_of(self, table: SourceTable) -> str | None:
        if len(table.primary_key) == 1:
            return table.primary_key[0]
        own = f"{singular(table.name)}_id"
        for name in (own, *_UNIT_COLUMNS, "id"):
            column = table.column(name)
            if column is not None:
                return column.name
        return None

    def _find_key(self, table: SourceTable) -> str | None:
        if self._unit is not None and table.name == self._unit[0]:
            return self._unit[1]
        if len(table.primary_key) == 1:
            foreign = {column for column, *_ in table.foreign_keys}
            return None if table.primary_key[0] in foreign else table.primary_key[0]
        for name in (f"{singular(table.name)}_id", f"{table.name}_id", "id"):
            column = table.column(name)
            if column is not None:
                return column.name
        return None

    def _parent(self, table: SourceTable, column: SourceColumn) -> str | None:
        """Guess which table's key a column holds."""
        for name, to, to_name in table.foreign_keys:
            if name.lower() == column.name.lower() and self._keys.get(to) == to_name:
                return to
        lower = column.name.lower()
        if self._keys[table.name] == column.name:
            return None
        for other in self._tables:
            key = self._keys[other.name]
            if other.name == table.name or key is None:
                continue
            named = {f"{singular(other.name)}_id", f"{other.name.lower()}_id"}
            if lower in named or (lower == key.lower() and lower != "id"):
                return other.name
        if self._unit is not None and table.name != self._unit[0] and lower in _UNIT_COLUMNS:
            return self._unit[0]
        return None

    def _parents(self, table: SourceTable) -> list[tuple[str, str]]:
        found = [(column.name, self._parent(table, column)) for column in table.columns]
        return [(column, parent) for column, parent in found if parent is not None]

    def _linked(self) -> set[str]:
        """Find the tables that reach the unit by the guessed references."""
        linked = set() if self._unit is None else {self._unit[0]}
        while True:
            more = {
                table.name for table in self._tables
                if table.name not in linked
                and any(parent in linked for _, parent in self._parents(table))
            }
            if not more:
                return linked
            linked |= more

    def _table_lines(self, table: SourceTable, is_linked: bool) -> list[str]:
        name = word(table.name)
        columns = [self._column_line(table, column) for column in table.columns]
        if not is_linked and self._unit is not None:
            asked = f"  {name}: TODO   # public, or these columns and a reference to the patient:"
            return [asked, *("#" + line for line in ["    columns:", *columns])]
        lines = [f"  {name}:"]
        if table.source is not None:
            lines.append(f"    source: {word(table.source)}")
        if self._unit is not None and table.name == self._unit[0] and self._one_row(table):
            lines.append("    one_row_per_unit: true   # else one row is kept for each patient")
        direct = [column for column, parent in self._parents(table)
                  if self._unit is not None and parent == self._unit[0]]
        if len(direct) > 1 and table.name != (self._unit or ("", ""))[0]:
            hint = f"the column of the patient who owns the row: {', '.join(map(word, direct))}"
            lines.append(f"    unit_path: TODO   # {hint}")
        lines.append("    columns:")
        return lines + columns

    def _one_row(self, table: SourceTable) -> bool:
        named = {n for name in _UNIT_TABLES for n in (name, plural(name))}
        assert self._unit is not None
        return table.primary_key == (self._unit[1],) or table.name.lower() in named

    def _column_line(self, table: SourceTable, column: SourceColumn) -> str:
        name = word(column.name)
        if not is_name(column.name):
            return f"      # a column is left out: {name} cannot be its name"
        if (table.name, column.name) == self._unit:
            return f"      {name}: unit"
        parent = self._parent(table, column)
        if parent is not None:
            return f"      {name}: {{references: {word(parent)}}}"
        if self._unit is None and column.name.lower() in _UNIT_COLUMNS:
            return f"      {name}: TODO   # unit, or {{references: the patients' table}}"
        own = (f"{singular(table.name)}_id", f"{table.name.lower()}_id")
        if self._keys[table.name] == column.name or column.name.lower() in own:
            return f"      {name}: key"
        is_moment = column.type.startswith("TIMESTAMP")
        declared = "{timestamp: TODO}" if is_moment else _TYPES.get(column.type)
        if declared is None:
            return f"      # {name}: left out, no type of the policy holds {column.type}"
        if column.name.lower().endswith("_id"):
            hint = "left out: another table's key, or a code: then {category: [...]}"
            return f"      # {name}: key   # {hint}"
        if _IDENTIFIERS.search(column.name.lower()):
            return f"      # {name}: {declared}   # left out: looks like an identifier"
        asked = f"   # {_HINTS[declared]}" if declared in _HINTS else ""
        return f"      {name}: {declared}{asked}"
