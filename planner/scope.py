"""Names in, expressions out: what each name in view stands for, and refusals with a place."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from sqlglot import exp

from planner.expression import Expression
from planner.refusal import Position, Refused


@dataclass(frozen=True, slots=True)
class Named:
    """One visible column. `merged` ones (the right side of USING) need their table's name."""

    table: str
    name: str
    expression: Expression
    merged: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """The columns a SELECT can see, in order."""

    columns: tuple[Named, ...]

    def __add__(self, other: Scope) -> Scope:
        return Scope((*self.columns, *other.columns))

    def find(self, name: str, table: str | None) -> tuple[Named, ...]:
        """Return every visible column of that name."""
        name = name.lower()
        if table is not None:
            table = table.lower()
            return tuple(
                c for c in self.columns if c.name.lower() == name and c.table.lower() == table
            )
        return tuple(c for c in self.columns if c.name.lower() == name and not c.merged)

    def tables(self) -> tuple[str, ...]:
        """Return the names of the tables in view."""
        return tuple(dict.fromkeys(c.table for c in self.columns))

    def hiding(self, name: str) -> Scope:
        """Return the scope with a column visible under its table's name only."""
        return Scope(tuple(
            replace(c, merged=True) if c.name.lower() == name.lower() else c
            for c in self.columns
        ))


def resolve(scope: Scope, node: exp.Column) -> Expression:
    """Return what a column name stands for; unknown and ambiguous names are refused."""
    claim(node, "this", "table")
    name, table = node.name, node.table or None
    found = scope.find(name, table)
    if len(found) == 1:
        return found[0].expression
    if len(found) > 1:
        owners = ", ".join(f"{c.table}.{name}" for c in found)
        raise refused("ambiguous-column", f"{name} is in several tables", f"{owners}", node)
    if table is not None and table.lower() not in {t.lower() for t in scope.tables()}:
        raise refused("unknown-table", f"no table {table} in this FROM",
                      f"one of {', '.join(scope.tables()) or 'none'}", node)
    names = list(dict.fromkeys(c.name for c in scope.columns))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names[:8]
    raise refused("unknown-column", f"no declared column {name}", ", ".join(near), node)


def claim(node: exp.Expression, *known: str) -> None:
    """Refuse a node that carries any part this line of bind does not know."""
    for name, value in node.args.items():
        if name not in known and value:
            label = node.key.upper() if node.key != "select" else "SELECT"
            raise refused("unknown-clause", f"{name.strip('_').upper().replace('_', ' ')} in "
                          f"{label} is not answered", "leave it out", node)


def refused(rule: str, message: str, hint: str = "", node: exp.Expression | None = None) -> Refused:
    """Build a refusal that points at the node."""
    refusal = Refused(rule, message, hint)
    refusal.position = place(node) if node is not None else None
    return refusal


def place(node: exp.Expression) -> Position | None:
    """Return where a node begins: its own place, or the first place found in it or around it."""
    current: exp.Expression | None = node
    while current is not None and not (current is not node and isinstance(current, exp.Select)):
        metas = [current.meta] if "start" in current.meta else [
            found.meta for found in current.walk() if "start" in found.meta
        ]
        if metas:
            meta = min(metas, key=lambda m: int(m["start"]))
            width = int(meta["end"]) - int(meta["start"]) + 1
            return Position(int(meta["line"]), max(int(meta["col"]) - width + 1, 1), width)
        current = current.parent if isinstance(current.parent, exp.Expression) else None
    return None
