"""The steward's open source and a policy in; a snapshot's tables, and a report on them, out.

Guarantee (unit locality): let a table's road send each of its rows to the set of units that its
foreign keys lead to. What the snapshot stores about a unit (its rows, their values, `__rank`,
`__n`, `__key_rank_*`, which rows are dropped) is a function of the policy, the secret, the public
tables, the source's schema and *this unit's own key and rows*; only the number `__u` given to
the unit depends on who else is there, and nothing is computed from it. To refute this, look for
a step where rows of two units meet:

- columns: each value is cleaned from its own raw value (snapshot_sql.Cleaned), and how raw text
  is read is fixed before any row is seen (snapshot_source.open_source);
- the road: a join. A key that several units claim is joined to each of them, so a newcomer who
  writes another patient's visit number on his own visit gets copies of that visit's lab rows and
  takes none away. Pairs of key and unit are made distinct first, so that a visit stored twice
  does not double its lab rows;
- not_null, one_row_per_unit, max_rows_per_unit: applied to one unit's rows, after the road;
- `__n`: how many rows this unit has here, on each of them;
- ranks: the order of one unit's rows by a hash of the unit's own key and the row's own stored
  columns. Two rows tie only if all they store is equal, so it does not matter which comes first.

So the arrival of a patient whose rows lead to him (alone, or besides the owners of rows that
were there before) changes no other patient's rows. A row whose foreign key leads to another
patient *is* that patient's row, whoever wrote it: the tables hold no better evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from engine.database import Connection, literal, quoted
from engine.snapshot_public import copy_public
from engine.snapshot_report import COUNTED, ColumnReport, SnapshotReport, TableReport
from engine.snapshot_source import SnapshotError, Source, SourceTable
from engine.snapshot_sql import (
    KEY_WHOLE,
    Cleaned,
    Plan,
    Raw,
    cleaned,
    key,
    raw_of,
    row_hash,
)
from planner.catalog import Catalog, CatalogTable
from planner.cataloguing import PublicTable, catalog_of
from planner.domain import Type
from planner.functions.entry import double
from planner.grid import GRID_NAME, has_grid_column, stored_ends, stored_unit
from planner.policy import Policy, unit_route
from planner.policy_text import nearest

Progress = Callable[[str, int, int], None]

TARGET = "target"  # the name under which the snapshot under construction is attached
UNITS = "__units"
TESTS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Built:
    """What a build found out, beside the tables that it wrote."""

    public: tuple[PublicTable, ...]
    report: SnapshotReport


@dataclass(frozen=True, slots=True)
class _Build:
    """Everything that the steps of one build share; `sources` and `roads` fill up on the way."""

    connection: Connection
    source: Source
    policy: Policy
    sources: dict[str, SourceTable] = field(default_factory=dict)
    roads: dict[tuple[str, str], str] = field(default_factory=dict)

    def number(self, sql: str) -> int:
        """Run a statement that returns one number."""
        row = self.connection.execute(sql).fetchone()
        return 0 if row is None or row[0] is None else int(row[0])


def build(policy: Policy, source: Source, path: Path, secret: bytes, progress: Progress) -> Built:
    """Write every declared table into a new DuckDB file at `path`."""
    started = perf_counter()
    connection = source.connection
    build = _Build(connection, source, policy)
    connection.execute(f"ATTACH {literal(str(path))} AS {TARGET}")
    path.chmod(0o600)
    public_names = [name for name, table in policy.tables.items() if table.public]
    names = [*public_names, *(name for name in policy.tables if name not in public_names)]
    public: list[PublicTable] = []
    for done, name in enumerate(public_names):
        progress(name, done, len(names))
        public.append(copy_public(connection, name, _found(build, name), TARGET))
    catalog = catalog_of(policy, tuple(public))
    units = _write_units(build, secret)
    tables: list[TableReport] = []
    for done, name in enumerate(names[len(public) :], len(public)):
        progress(name, done, len(names))
        tables.append(_write_table(build, catalog, name))
    progress("", len(names), len(names))
    return Built(tuple(public), SnapshotReport(units, perf_counter() - started, tuple(tables)))


# --- Finding what the policy declares -------------------------------------------------------


def _found(build: _Build, name: str) -> SourceTable:
    """Find a declared table in the source, with all its declared columns."""
    if name in build.sources:
        return build.sources[name]
    wanted = build.policy.source_of(name)
    table = build.source.table(name if isinstance(wanted, Path) else wanted)
    if table is None:
        known = nearest(str(wanted), [table.name for table in build.source.tables])
        raise SnapshotError(
            f"The policy declares the table {name}, but the database holds no table {wanted}: "
            f"{known}. Correct the name, or add 'source: ...' to the table."
        )
    for column in build.policy.tables[name].columns:
        if table.column(column) is None:
            known = nearest(column, [column for column, _ in table.columns])
            raise SnapshotError(
                f"The policy declares the column {name}.{column}, but the database's table "
                f"{table.name} has none of that name: {known}."
            )
    if table.is_text and not build.policy.tables[name].public:
        table = _loaded(build, name, table)
    build.sources[name] = table
    return table


def _loaded(build: _Build, name: str, table: SourceTable) -> SourceTable:
    """Read a text file once, since the steps below scan each table several times."""
    pairs = [table.column(column) for column in build.policy.tables[name].columns]
    columns = tuple(pair for pair in pairs if pair is not None)
    relation = quoted(f"__text_{name}")
    build.connection.execute(
        f"CREATE TEMP TABLE {relation} AS SELECT {', '.join(quoted(c) for c, _ in columns)} "
        f"FROM {table.relation}"
    )
    return SourceTable(table.name, relation, columns, is_text=True)


def _raw(build: _Build, table: str, column: str, alias: str = "r") -> tuple[str, Raw]:
    """Return the SQL of a column's raw value, and how to read it."""
    found = _found(build, table).column(column)
    assert found is not None, "_found has looked for every declared column"
    return f"{alias}.{quoted(found[0])}", raw_of(found[1])


def _key_type(build: _Build, named: tuple[str, str]) -> str:
    """BIGINT where every column that holds keys of `named` is whole in the source's schema."""
    policy = build.policy
    members = [named] + [
        (table, column)
        for table, declared in policy.tables.items()
        for column in declared.columns
        if policy.reference(table, column) == named
    ]
    types = [_found(build, table).column(column) for table, column in members]
    return "BIGINT" if all(t is not None and t[1] in KEY_WHOLE for t in types) else "VARCHAR"


def _key(build: _Build, table: str, column: str) -> str:
    """Return the SQL of a unit, key or references column, comparable with what it refers to."""
    raw, kind = _raw(build, table, column)
    named = build.policy.reference(table, column) or (table, column)
    return key(raw, kind, _key_type(build, named))


# --- Units and the roads to them ------------------------------------------------------------


def _write_units(build: _Build, secret: bytes) -> int:
    """Number the units and give each its own keys; "__units" keeps what queries need of them.

    A unit's `row_key` orders its rows, its `__seed` is for choosing among its groups; both are
    keyed hashes of the unit's own key, so they stay when the numbers `__u` shift.
    """
    policy = build.policy
    value = _key(build, policy.unit_table, policy.unit_column)
    build.connection.execute(
        f"CREATE TEMP TABLE {UNITS} AS SELECT k, CAST(row_number() OVER (ORDER BY k) AS INTEGER) "
        "AS u, md5(concat($1, '|rows|', k)) AS row_key, "
        "md5_number_lower(concat($1, '|groups|', k)) AS seed "
        f"FROM (SELECT DISTINCT {value} AS k FROM {_found(build, policy.unit_table).relation} r) "
        "WHERE k IS NOT NULL",
        [secret.hex()],
    )
    build.connection.execute(
        f"CREATE TABLE {TARGET}.{UNITS} AS SELECT u AS __u, seed AS __seed FROM {UNITS} ORDER BY u"
    )
    return build.number(f"SELECT count(*) FROM {UNITS}")


def _road(build: _Build, table: str) -> tuple[str, str]:
    """Return a table's own key on the road to the unit, and the relation (k, u) it leads into."""
    policy = build.policy
    route = unit_route(policy, table)
    if not route:
        return _key(build, table, policy.unit_column), UNITS
    hop = route[0]
    return _key(build, table, hop.column), _pairs(build, hop.parent, hop.parent_column)


def _pairs(build: _Build, table: str, column: str) -> str:
    """Make the distinct pairs of a referenced key and a unit that owns a row with it."""
    if (table, column) == (build.policy.unit_table, build.policy.unit_column):
        return UNITS
    if (table, column) not in build.roads:
        own, pairs = _road(build, table)
        name = f"__road_{len(build.roads)}"
        build.connection.execute(
            f"CREATE TEMP TABLE {name} AS SELECT DISTINCT {_key(build, table, column)} AS k, m.u "
            f"FROM {_found(build, table).relation} r JOIN {pairs} m ON {own} = m.k WHERE "
            f"{_key(build, table, column)} IS NOT NULL"
        )
        build.connection.execute(
            f"CREATE TEMP TABLE {name}_shared AS SELECT k, count(*) - 1 AS extra FROM {name} "
            "GROUP BY k HAVING count(*) > 1"
        )
        build.roads[table, column] = name
    return build.roads[table, column]


# --- One protected table --------------------------------------------------------------------


def _write_table(build: _Build, catalog: Catalog, name: str) -> TableReport:
    started = perf_counter()
    table = catalog.table(name)
    assert table is not None, "the catalog holds every declared table"
    stored = [column.name for column in table.columns if _is_stored(table, column.name)]
    columns = tuple(_cleaned(build, table, column) for column in stored)
    own, pairs = _road(build, name)
    relation = f"{_found(build, name).relation} r JOIN {pairs} m ON {own} = m.k"
    declared = build.policy.tables[name].columns
    keep = [column for column in columns if declared[column.name].not_null]
    _count_rows(build, table, relation, keep)
    _create(build, table, columns, relation, keep)
    _check(build, table)
    _check_bounds(build, table)
    for column in table.columns:
        if column.referenced:
            _rank_keys(build, name, column.name)
    read, reports = _count_columns(build, name, columns)
    copied = 0
    if pairs != UNITS:
        shared = f"{_found(build, name).relation} r JOIN {pairs}_shared s ON {own} = s.k"
        copied = build.number(f"SELECT sum(extra) FROM {shared}")
    ceiling = table.max_rows_per_unit
    row = build.connection.execute(
        f"SELECT sum(pairs), sum(n), sum(least(n, {ceiling})), count(*) FILTER (WHERE n > 0) "
        "FROM __starts"
    ).fetchone()
    owned, left, kept, units = (int(number or 0) for number in row or ())
    return TableReport(
        name=name, read=read, no_unit=read - (owned - copied), copied=copied,
        not_null=owned - left, duplicates=left - kept if table.one_row_per_unit else 0,
        over_ceiling=0 if table.one_row_per_unit else left - kept, kept=kept, units=units,
        seconds=perf_counter() - started, columns=reports,
    )  # fmt: skip


def _is_stored(table: CatalogTable, name: str) -> bool:
    """Every declared column but the unit itself, which is stored as "__u"."""
    column = table.column(name)
    return column is not None and column.domain.type is not Type.UNIT


def _cleaned(build: _Build, table: CatalogTable, name: str) -> Cleaned:
    column = table.column(name)
    assert column is not None, "asked for by the table's own list"
    declared = build.policy.tables[table.name].columns[name]
    raw, kind = _raw(build, table.name, name)
    type_ = column.domain.type
    if type_ is Type.IMAGE and kind is not Raw.BLOB:
        raise SnapshotError(
            f"The column {table.name}.{name} is declared as an image, but the database holds no "
            "BLOB there. Store each image as one byte per pixel and channel, row by row."
        )
    named = build.policy.reference(table.name, name) or (table.name, name)
    listed = None
    public = build.policy.category_source(table.name, name)
    if public is not None and column.domain.values is None:
        listed = (
            f"SELECT {quoted(public[1])} FROM {TARGET}.{quoted(public[0])} "
            f"WHERE {quoted(public[1])} IS NOT NULL"
        )
    plan = Plan(
        key_type=_key_type(build, named) if type_ is Type.KEY else "VARCHAR",
        other=declared.other, shape=declared.shape or (), listed=listed,
    )  # fmt: skip
    return cleaned(column, raw, kind, plan)


def _count_rows(
    build: _Build, table: CatalogTable, relation: str, keep: list[Cleaned]
) -> None:
    """Count each unit's rows, and where its block of rows begins in the table's order.

    Units with more rows than queries count by default come last. So most of a table needs no
    look at its ranks: the database knows for each block of rows that none is above the limit.
    """
    kept = " AND ".join(f"({column.value}) IS NOT NULL" for column in keep) or "true"
    most, few = table.max_rows_per_unit, table.rows_per_unit
    build.connection.execute(
        "CREATE OR REPLACE TEMP TABLE __starts AS "
        "SELECT *, CAST(sum(n) OVER (ORDER BY heavy, u) - n AS BIGINT) AS start FROM ("
        f"SELECT u, n, pairs, row_key, least(n, {most}) > {few} AS heavy FROM ("
        f"SELECT m.u, count(*) FILTER (WHERE {kept}) AS n, count(*) AS pairs FROM {relation} "
        f"GROUP BY m.u) JOIN {UNITS} USING (u))"
    )


def _create(
    build: _Build, table: CatalogTable, columns: tuple[Cleaned, ...], relation: str,
    keep: list[Cleaned],
) -> None:  # fmt: skip
    """Write the table in the order of `_place`, with one sort for order and ranks.

    The place of a row in the sorted order minus the place where its unit begins is its rank;
    `_check` proves that it came out that way.
    """
    names = [quoted(column.name) for column in columns]
    types = [_type(table, column.name) for column in columns]
    values = "".join(f", {c.value} AS {n}" for c, n in zip(columns, names, strict=True))
    kept = " AND ".join(f"{quoted(column.name)} IS NOT NULL" for column in keep) or "true"
    ranks = "".join(
        f", CASE WHEN {quoted(column.name)} IS NOT NULL THEN 1 END AS {_key_rank(column.name)}"
        for column in table.columns if column.referenced
    )  # fmt: skip
    listed = "".join(f", {name}" for name in names)
    integers = "".join(
        f", TRY_CAST(round({quoted(name)} * {double(1 / unit)}) AS BIGINT) AS {_grid_column(name)}"
        for name, unit in _units_of(table).items()
    )
    few, most = table.rows_per_unit, table.max_rows_per_unit
    build.connection.execute(
        f"CREATE TABLE {TARGET}.{quoted(table.name)} AS WITH ranked AS MATERIALIZED ("
        f"SELECT __u, __n{listed}, CAST(row_number() OVER () - __start AS INTEGER) AS __rank FROM ("
        f"SELECT __u, __n, __start{listed} FROM ("
        f"SELECT s.u AS __u, CAST(least(s.n, {most}) AS INTEGER) AS __n, "
        f"s.start AS __start, s.heavy AS __heavy, s.row_key AS __row_key{values} "
        f"FROM {relation} JOIN __starts s ON s.u = m.u) WHERE {kept} ORDER BY __heavy, __u, "
        f"{row_hash('__row_key', list(zip(names, types, strict=True)))})) "
        f"SELECT __u, __rank, __n{ranks}{listed}{integers} FROM ("
        f"SELECT * FROM ranked WHERE __rank <= {min(few, most)} UNION ALL "
        f"SELECT * FROM ranked WHERE __rank > {few} AND __rank <= {most})"
    )


def _place(table: CatalogTable) -> str:
    """Print what the rows of a table are sorted by: units with few rows, then the first rows of
    the others, then their further rows.

    So the database knows for each block of rows but one or two whether a limit of the ranks
    holds on all of it, and need not look at them.
    """
    few = table.rows_per_unit
    return f"CAST(__n > {few} AS INTEGER) + CAST(__rank > {few} AS INTEGER), __u, __rank"


def _units_of(table: CatalogTable) -> dict[str, float]:
    """Return the columns beside which integers are kept, and the unit of each one's integers."""
    units = {
        c.name: stored_unit(c.domain) for c in table.columns
        if has_grid_column(c.domain) and _is_stored(table, c.name)
    }
    return {name: unit for name, unit in units.items() if unit is not None}


def _grid_column(column: str) -> str:
    return quoted(GRID_NAME.format(column))


def _type(table: CatalogTable, name: str) -> Type:
    column = table.column(name)
    assert column is not None, "asked for by the table's own list"
    return column.domain.type


def _key_rank(column: str) -> str:
    return quoted(f"__key_rank_{column}")


def _check(build: _Build, table: CatalogTable) -> None:
    """Prove the bounds that every price rests on.

    Guarantee: each unit's rows have the ranks 1, 2, 3, ..., and each says in `__n` how many they
    are. So `__rank <= k` holds on at most k rows of a unit, and `__n <= k` either on all rows of
    a unit, which are at most k, or on none.

    Rows ascend strictly in their order, so no two of a unit have the same rank and `__n`; all of
    a unit's rows have the same `__n`; their ranks go from 1 to it, and so many they are.
    """
    stored, columns = f"{TARGET}.{quoted(table.name)}", ("__u", "__rank", "__n")
    known = " AND ".join(f"{column} IS NOT NULL" for column in columns)
    wrong = build.number(
        f"SELECT count(*) FROM (SELECT place, lag(place) OVER () AS before, {known} AS known FROM "
        f"(SELECT row({_place(table)}) AS place, {', '.join(columns)} FROM {stored})) "
        "WHERE NOT (known AND (before IS NULL OR place > before))"
    ) + build.number(
        f"SELECT count(*) FROM (SELECT 1 FROM {stored} GROUP BY __u HAVING NOT (min(__n) = "
        "max(__n) AND min(__rank) = 1 AND max(__rank) = max(__n) AND count(*) = max(__n)))"
    )
    if wrong:
        raise SnapshotError(
            f"The rows of {table.name} did not come out in the order of their ranks, so the "
            "snapshot would not bound a patient's rows. This is a fault of Discreet; please "
            "report it."
        )


def _check_bounds(build: _Build, table: CatalogTable) -> None:
    """Prove what lets a query add up stored integers without clamping them again.

    Guarantee: every stored number lies within the bounds the planner knows, and so does every
    integer that stands for one; it is the nearest integer, and NULL on the same rows. NaN is
    above every number in DuckDB, so it fails as well.
    """
    for name, test in _bound_tests(table):
        row = build.connection.execute(
            f"SELECT {test} FROM {TARGET}.{quoted(table.name)}"
        ).fetchone()
        if row is None or row[0] is not True:
            raise SnapshotError(
                f"The column {table.name}.{name} came out with numbers beyond its bounds. This is "
                "a fault of Discreet; please report it."
            )


def _bound_tests(table: CatalogTable) -> list[tuple[str, str]]:
    """Return a test over all rows for each bounded column of numbers."""
    units, found = _units_of(table), []
    for column in table.columns:
        bounds = column.domain.interval
        if bounds is None or not (column.domain.is_number and _is_stored(table, column.name)):
            continue
        value, (low, high) = quoted(column.name), bounds
        within = f"min({value}) >= {double(low)} AND max({value}) <= {double(high)}"
        parts = [f"coalesce({within}, true)"]
        ends = stored_ends(column.domain)
        if column.name in units and ends is not None:
            kept, unit = _grid_column(column.name), units[column.name]
            parts += [
                f"coalesce(min({kept}) >= {ends[0]} AND max({kept}) <= {ends[1]}, true)",
                f"count(*) FILTER (WHERE ({kept} IS NULL) <> ({value} IS NULL)) = 0",
                f"coalesce(max(abs({value} * {double(1 / unit)} - {kept})) <= 0.5, true)",
            ]
        found.append((column.name, " AND ".join(parts)))
    return found


def _rank_keys(build: _Build, name: str, column: str) -> None:
    """Number the rows of a unit that share one key; all others have the rank 1 already."""
    table, value, rank = f"{TARGET}.{quoted(name)}", quoted(column), _key_rank(column)
    build.connection.execute(
        f"CREATE OR REPLACE TEMP TABLE __shared AS SELECT __u AS u, __rank AS rank, "
        f"row_number() OVER (PARTITION BY __u, {value} ORDER BY __rank) AS place FROM {table} "
        f"WHERE (__u, {value}) IN (SELECT (__u, {value}) FROM {table} WHERE {value} IS NOT NULL "
        f"GROUP BY __u, {value} HAVING count(*) > 1)"
    )
    if build.number("SELECT count(*) FROM __shared"):
        build.connection.execute(
            f"UPDATE {table} SET {rank} = place FROM __shared s "
            "WHERE __u = s.u AND __rank = s.rank AND s.place > 1"
        )


def _count_columns(
    build: _Build, name: str, columns: tuple[Cleaned, ...]
) -> tuple[int, tuple[ColumnReport, ...]]:
    """Count rows and misfits, a hundred tests in one pass: planning them grows faster than that."""
    tests = [condition for column in columns for _, condition in column.counts]
    counts: list[int] = []
    for start in range(0, max(len(tests), 1), TESTS_AT_ONCE):
        some = tests[start : start + TESTS_AT_ONCE]
        inner = ", ".join(f"({test}) AS c{place}" for place, test in enumerate(some)) or "1"
        outer = "".join(f", count(*) FILTER (WHERE c{place})" for place in range(len(some)))
        row = build.connection.execute(
            f"SELECT count(*){outer} FROM (SELECT {inner} FROM {_found(build, name).relation} r)"
        ).fetchone()
        assert row is not None, "an aggregate returns one row"
        counts[:1] = [int(row[0])]
        counts.extend(int(number) for number in row[1:])
    numbers = iter(counts[1:])
    reports = []
    for column in columns:
        counted = {what: next(numbers) for what, _ in column.counts}
        assert counted.keys() <= set(COUNTED), "every count has a place in the report"
        reports.append(ColumnReport(column.name, **counted))
    return counts[0], tuple(reports)
