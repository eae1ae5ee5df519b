"""A whole policy in; what does not fit together in it, with its place, out. Nothing here raises."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from planner.policy_column import FORMS
from planner.policy_text import Loc, nearest

if TYPE_CHECKING:
    from planner.policy import Policy

NAME_MAX = 128


class Hop(NamedTuple):
    """One step of the road to the unit: this table's `column` names `parent.parent_column`."""

    column: str
    parent: str
    parent_column: str


def is_address(text: str) -> bool:
    """Say whether a ledger is a PostgreSQL address."""
    return text.startswith(("postgresql://", "postgresql+psycopg://"))


def is_file(text: str) -> bool:
    """Say whether a table's source is a file rather than a name in the database."""
    return text.lower().endswith((".parquet", ".csv", ".csv.gz", ".tsv"))


def file_faults(policy: Policy) -> list[tuple[Loc, str]]:
    """Check the files and addresses; none of them is opened."""
    faults: list[tuple[Loc, str]] = []
    if "://" in policy.database:
        said = "is an address; name a DuckDB file, a folder, or a Parquet or CSV file"
        faults.append((("database",), said))
    if "://" in policy.ledger and not is_address(policy.ledger):
        faults.append((("ledger",), "is neither a file nor postgresql://; write one of the two"))
    if policy.witness is not None and "://" in policy.witness:
        faults.append((("witness",), "is an address; name a file, best on another disk"))
    names = (policy.database, policy.ledger, policy.witness)
    files = [Path(name) for name in names if name is not None]
    for place, name in ((1, "ledger"), (2, "witness")):
        if place < len(files) and files[place] in files[:place]:
            faults.append(((name,), "is the same file as another field's; name its own file"))
    return faults


def number_faults(policy: Policy) -> list[tuple[Loc, str]]:
    """Check that defaults fit into the budget, and rows under their ceilings."""
    faults: list[tuple[Loc, str]] = []
    defaults, budget = policy.defaults, policy.budget
    if "epsilon" in defaults.model_fields_set and defaults.epsilon > budget.epsilon:
        said = f"{defaults.epsilon} is more than the whole budget {budget.epsilon}; lower it"
        faults.append((("defaults", "epsilon"), said))
    if defaults.delta is not None and defaults.delta > budget.delta:
        said = f"{defaults.delta} is more than the whole budget {budget.delta}; lower it"
        faults.append((("defaults", "delta"), said))
    if defaults.rows_per_unit > defaults.max_rows_per_unit:
        faults.append((("defaults", "rows_per_unit"), _too_many(defaults.max_rows_per_unit)))
    for name, table in policy.tables.items():
        ceiling = policy.max_rows_per_unit(name)
        if table.rows_per_unit is not None and table.rows_per_unit > ceiling:
            faults.append((("tables", name, "rows_per_unit"), _too_many(ceiling)))
    return faults


def _too_many(ceiling: int) -> str:
    return f"is above max_rows_per_unit {ceiling}; lower it or raise the ceiling"


def name_faults(policy: Policy) -> list[tuple[Loc, str]]:
    """Check names: SQL ignores case, and the snapshot's own columns begin with two underscores."""
    faults = _bad_names(list(policy.analysts), ("analysts",))
    faults += _bad_names(list(policy.tables), ("tables",), ".")
    for name, table in policy.tables.items():
        faults += _bad_names(list(table.columns), ("tables", name, "columns"))
    return faults


def _bad_names(names: list[str], loc: Loc, banned: str = "") -> list[tuple[Loc, str]]:
    faults: list[tuple[Loc, str]] = []
    folded: dict[str, str] = {}
    for name in names:
        first = folded.setdefault(name.lower(), name)
        if first != name:
            said = f"is '{first}' again, since SQL ignores case; keep one of the two"
            faults.append(((*loc, name), said))
        if name.startswith("__"):
            faults.append(((*loc, name), "begins with '__', which is reserved; rename it"))
        bad = '"' in name or any(c in name for c in banned) or not name.isprintable()
        if not name.strip() or name != name.strip() or len(name) > NAME_MAX or bad:
            said = f"is no usable name; use 1 to {NAME_MAX} printable characters without quotes"
            faults.append(((*loc, name), said + (" or dots" if banned else "")))
    return faults


def unit_faults(policy: Policy) -> list[tuple[Loc, str]]:
    """Check that `unit` names the one unit column."""
    table, column = policy.unit_table, policy.unit_column
    units = [
        (name, other)
        for name, declared in policy.tables.items()
        for other, facts in declared.columns.items() if facts.kind == "unit"
    ]
    declared = policy.tables.get(table)
    if declared is None or column not in declared.columns:
        if len(units) == 1:
            said = f"'{policy.unit}' is not declared; write '{'.'.join(units[0])}'"
        elif declared is None:
            near = nearest(table, list(policy.tables))
            said = f"no table '{table}' is declared; {near}"
        else:
            near = nearest(column, list(declared.columns))
            said = f"table '{table}' declares no column '{column}'; {near}"
        return [(("unit",), said)]
    faults: list[tuple[Loc, str]] = []
    kind = declared.columns[column].kind
    if kind != "unit":
        loc: Loc = ("tables", table, "columns", column)
        faults.append((loc, f"is {kind}, but 'unit' names it; write 'unit'"))
    for name, other in units:
        if (name, other) != (table, column):
            said = f"is a second unit column; write {{references: {table}}}, or change 'unit'"
            faults.append((("tables", name, "columns", other), said))
    return faults


def target(policy: Policy, written: str) -> tuple[str, str] | str:
    """Resolve a reference to (table, column), or say what is wrong with it."""
    table, dot, column = written.partition(".")
    declared = policy.tables.get(table)
    if declared is None:
        return f"no table '{table}' is declared; {nearest(table, list(policy.tables))}"
    if declared.public:
        return f"'{table}' is public, so it leads to no patient; use category_of for its values"
    if dot:
        facts = declared.columns.get(column)
        if facts is None:
            near = nearest(column, list(declared.columns))
            return f"'{table}' declares no column '{column}'; {near}"
        if facts.kind not in ("unit", "key"):
            return f"'{written}' is {facts.kind}; refer to a unit or key column"
        return table, column
    if table == policy.unit_table:
        return table, policy.unit_column
    keys = [name for name, facts in declared.columns.items() if facts.kind == "key"]
    if len(keys) == 1:
        return table, keys[0]
    if keys:
        return f"'{table}' has {len(keys)} keys; write one, as in {{references: {table}.{keys[0]}}}"
    return f"'{table}' has no key column; declare one there as 'key'"


def reference_faults(policy: Policy) -> list[tuple[Loc, str]]:
    """Check that every reference, and every `unit_path`, names what is declared."""
    faults: list[tuple[Loc, str]] = []
    for name, table in policy.tables.items():
        for column, facts in table.columns.items():
            if facts.references is not None:
                found = target(policy, facts.references)
                if isinstance(found, str):
                    loc: Loc = ("tables", name, "columns", column, "references")
                    faults.append((loc, found))
        if table.unit_path is not None:
            roads = [c for c, facts in table.columns.items() if facts.references is not None]
            if name == policy.unit_table:
                said = "this is the unit's own table; remove it"
                faults.append((("tables", name, "unit_path"), said))
            elif table.unit_path not in roads:
                near = nearest(table.unit_path, roads)
                said = f"'{table.unit_path}' is no references column; {near}"
                faults.append((("tables", name, "unit_path"), said))
    return faults


def category_faults(policy: Policy) -> list[tuple[Loc, str]]:
    """Check that a category's values come from a public table."""
    faults: list[tuple[Loc, str]] = []
    public = [name for name, table in policy.tables.items() if table.public]
    for name, table in policy.tables.items():
        for column, facts in table.columns.items():
            if facts.category_of is None:
                continue
            source, _, listed = facts.category_of.partition(".")
            loc: Loc = ("tables", name, "columns", column, "category_of")
            if not listed:
                said = f"'{source}' names no column; write {FORMS['category_of']}"
                faults.append((loc, said))
            elif source not in policy.tables:
                said = f"no table '{source}' is declared; {nearest(source, public)}"
                faults.append((loc, said))
            elif source not in public:
                said = f"'{source}' is not public, so its values are private; list them here"
                faults.append((loc, f"{said}: {FORMS['category']}"))
    return faults


def routes(policy: Policy) -> tuple[dict[str, tuple[Hop, ...]], list[tuple[Loc, str]]]:
    """Find each protected table's road to the unit, level by level, and what stands in the way.

    The shortest road wins, so a column that names the patient directly beats any detour. Two
    equally short roads may name different patients (a mother and her child): the steward says
    which one owns the row.
    """
    routes: dict[str, tuple[Hop, ...]] = {policy.unit_table: ()}
    faults: list[tuple[Loc, str]] = []
    while True:
        found: dict[str, tuple[Hop, ...]] = {}
        for name, table in policy.tables.items():
            if name in routes or table.public:
                continue
            hops = [hop for hop in _hops(policy, name) if hop.parent in routes]
            if len(hops) > 1:
                listed = " and ".join(f"'{hop.column}'" for hop in hops)
                said = f"{listed} lead to the patient equally fast, and may name different patients"
                remedy = f"add the one that owns the row, as in 'unit_path: {hops[0].column}'"
                faults.append((("tables", name), f"{said}; {remedy}"))
            if hops:
                found[name] = (hops[0], *routes[hops[0].parent])
        if not found:
            break
        routes.update(found)
    for name, table in policy.tables.items():
        if not table.public and name not in routes:
            faults.append((("tables", name), _lost(policy, name)))
    return routes, faults


def route_faults(policy: Policy) -> list[tuple[Loc, str]]:
    """Check that every protected table reaches the unit by one road."""
    return routes(policy)[1]


def _hops(policy: Policy, table: str) -> list[Hop]:
    """List the references that may carry this table to the unit."""
    declared = policy.tables[table]
    hops: list[Hop] = []
    for column in declared.columns:
        found = policy.reference(table, column)
        if found is not None and declared.unit_path in (None, column):
            hops.append(Hop(column, *found))
    return hops


def _lost(policy: Policy, table: str) -> str:
    parents = [hop.parent for hop in _hops(policy, table)]
    if parents:
        said = f"its references ({', '.join(parents)}) never reach '{policy.unit}'"
    else:
        said = "is neither public nor linked to the patient"
    link = f"{{references: {policy.unit_table}}}"
    return f"{said}; write {link} at the column that names the patient, or 'public' for the table"
