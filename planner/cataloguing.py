"""A policy and what public tables hold in; the planner's facts about every table out."""

from __future__ import annotations

from dataclasses import dataclass

from planner.catalog import Catalog, CatalogColumn, CatalogTable, Kind, PublicRows
from planner.domain import Domain, Type, Value, finite
from planner.policy import ColumnPolicy, Policy, PolicyError, unit_route
from planner.policy_column import WHOLE_MAX
from planner.policy_text import Problem, nearest

_LISTED = frozenset({Type.TEXT, Type.INTEGER})  # what a category can be made of
_SIMPLE = {
    "boolean": Type.BOOLEAN,
    "integer": Type.INTEGER,
    "real": Type.REAL,
    "date": Type.DATE,
    "timestamp": Type.TIMESTAMP,
    "text": Type.TEXT,
    "image": Type.IMAGE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicColumn:
    """What is known of a public table's column, since its content is public.

    `values` are its distinct values without NULL, or None where they are more than 100,000.
    `rows_per_value` is the largest number of rows that share one value, where it was counted.
    """

    name: str
    type: Type
    nullable: bool = True
    low: Value | None = None
    high: Value | None = None
    values: tuple[Value, ...] | None = None
    rows_per_value: int | None = None

    @property
    def domain(self) -> Domain:
        """The domain that these facts make."""
        if self.values is not None:
            return finite(self.type, self.values, self.nullable)
        return Domain(self.type, self.nullable, self.low, self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicTable:
    """What is known of a public table."""

    name: str
    columns: tuple[PublicColumn, ...]
    rows: tuple[tuple[Value | None, ...], ...] | None = None  # distinct, where they are few

    def column(self, name: str) -> PublicColumn | None:
        """Find a column by name, ignoring case as SQL does."""
        folded = name.lower()
        return next((c for c in self.columns if c.name.lower() == folded), None)


def catalog_of(policy: Policy, public: tuple[PublicTable, ...]) -> Catalog:
    """Return the facts that binding and bounding rely on, or raise PolicyError.

    Guarantee: depends on the policy and on public tables only. Exactly one column of a table
    has the type UNIT, and it names the patient who owns the row; a second column that names a
    patient (a mother, a donor) is a KEY, since grouping by it would mix other patients' rows.
    """
    found = {table.name.lower(): table for table in public}
    referenced = _referenced(policy)
    tables = []
    for name, declared in policy.tables.items():
        if declared.public:
            tables.append(_public_table(policy, name, found))
            continue
        columns = tuple(
            CatalogColumn(
                name=column,
                domain=_domain(policy, name, column, found),
                is_enum=_is_enum(policy, name, column, found),
                referenced=(name, column) in referenced,
                loose=facts.loose,
                step=None if facts.step is None else float(facts.step),
            )
            for column, facts in declared.columns.items()
        )
        tables.append(CatalogTable(
            name, Kind.PROTECTED, columns, declared.one_row_per_unit,
            policy.rows_per_unit(name), policy.max_rows_per_unit(name),
        ))
    return Catalog(tuple(tables), policy.policy_hash, tuple(policy.views.items()))


def _public_table(policy: Policy, name: str, found: dict[str, PublicTable]) -> CatalogTable:
    table = found.get(name.lower())
    if table is None:
        raise _fault(policy, ("tables", name), "is not in the database; correct 'source'")
    columns = tuple(
        CatalogColumn(column.name, column.domain, rows_per_value=column.rows_per_value)
        for column in table.columns
    )
    rows = None
    if table.rows is not None:
        rows = PublicRows(tuple(column.name for column in table.columns), table.rows)
    return CatalogTable(name, Kind.PUBLIC, columns, public_rows=rows)


def _referenced(policy: Policy) -> frozenset[tuple[str, str]]:
    """Find the key columns that some reference names; the unit column is not one of them."""
    named = {
        policy.reference(name, column)
        for name, table in policy.tables.items() for column in table.columns
    }
    unit = (policy.unit_table, policy.unit_column)
    return frozenset(target for target in named if target is not None and target != unit)


def _domain(policy: Policy, table: str, column: str, found: dict[str, PublicTable]) -> Domain:
    facts = policy.tables[table].columns[column]
    nullable = not facts.not_null
    if _owns_row(policy, table, column):
        return Domain(Type.UNIT, nullable=False)
    if facts.kind == "key":
        return Domain(Type.KEY, nullable, key_of=f"{table}.{column}")
    if facts.kind == "references":
        target = policy.reference(table, column)
        assert target is not None, "a references column has a target"
        return Domain(Type.KEY, nullable, key_of=".".join(target))
    if facts.kind == "category":
        values = facts.values or ()
        type_ = Type.INTEGER if isinstance(values[0], int) else Type.TEXT
        return finite(type_, values, nullable)
    if facts.kind == "category_of":
        return _public_values(policy, table, column, found)
    return Domain(_SIMPLE[facts.kind], nullable, facts.low, facts.high, shape=facts.shape)


def _owns_row(policy: Policy, table: str, column: str) -> bool:
    """Say whether this column is the unit column, or the reference to it on the table's road."""
    facts = policy.tables[table].columns[column]
    if facts.kind == "unit":
        return True
    unit = (policy.unit_table, policy.unit_column)
    if policy.reference(table, column) != unit:
        return False
    route = unit_route(policy, table)
    return bool(route) and route[0].column == column


def _public_values(
    policy: Policy, table: str, column: str, found: dict[str, PublicTable]
) -> Domain:
    """Return a finite domain of the public column's values, or its range where too many."""
    facts = policy.tables[table].columns[column]
    listed = _listed(policy, table, column, found)
    nullable = not facts.not_null
    if listed.values is not None:
        other = () if facts.other is None else (_other(policy, table, column, facts, listed),)
        return finite(listed.type, (*listed.values, *other), nullable)
    if facts.other is not None:
        _other(policy, table, column, facts, listed)
    if listed.type is Type.TEXT:
        return Domain(Type.TEXT, nullable)
    ends = [end for end in (listed.low, listed.high, facts.other) if isinstance(end, int)]
    if listed.low is None or listed.high is None:
        return Domain(Type.INTEGER, nullable)
    return Domain(Type.INTEGER, nullable, min(ends), max(ends))


def _other(
    policy: Policy, table: str, column: str, facts: ColumnPolicy, listed: PublicColumn
) -> str | int:
    other = facts.other
    if listed.type is Type.TEXT and isinstance(other, str):
        return other
    if listed.type is Type.INTEGER and isinstance(other, int):
        return other
    loc = ("tables", table, "columns", column, "other")
    raise _fault(policy, loc, f"'{other}' is not {listed.type.value}, as the public column is")


def _listed(
    policy: Policy, table: str, column: str, found: dict[str, PublicTable]
) -> PublicColumn:
    loc = ("tables", table, "columns", column, "category_of")
    source = policy.category_source(table, column)
    assert source is not None, "a category_of column has a source"
    public = found.get(source[0].lower())
    if public is None:
        raise _fault(policy, ("tables", source[0]), "is not in the database; correct 'source'")
    listed = public.column(source[1])
    if listed is None:
        near = nearest(source[1], [c.name for c in public.columns])
        raise _fault(policy, loc, f"'{source[0]}' has no column '{source[1]}'; {near}")
    if listed.type not in _LISTED:
        said = f"'{'.'.join(source)}' is {listed.type.value}; a category is text or integer"
        raise _fault(policy, loc, said)
    ends = [end for end in (listed.low, listed.high) if isinstance(end, int)]
    if any(abs(end) > WHOLE_MAX for end in ends):
        said = f"'{'.'.join(source)}' holds numbers beyond 2^53; a category is smaller, or text"
        raise _fault(policy, loc, said)
    return listed


def _is_enum(policy: Policy, table: str, column: str, found: dict[str, PublicTable]) -> bool:
    if policy.tables[table].columns[column].kind not in ("category", "category_of"):
        return False
    domain = _domain(policy, table, column, found)
    return domain.type is Type.TEXT and domain.values is not None


def _fault(policy: Policy, loc: tuple[str, ...], text: str) -> PolicyError:
    source, line, path = policy.place(*loc)
    return PolicyError([Problem(source, line, path, text)])
