"""What a snapshot holds, against plain truth: values, ranks, units, and every kind of dirt."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from pathlib import Path
from typing import Any

import duckdb
import pytest

from engine.clinic import clinic_policy, write_clinic
from engine.database import open_governed, run
from engine.snapshot import Snapshot, SnapshotError, ensure, secret_from_seed
from planner.policy import Policy, PolicyError, parse_policy

SECRET = secret_from_seed(7)
HEAD = """\
discreet: 1
database: data.duckdb
ledger: clinic.ledger.sqlite
budget: {epsilon: 1.0, delta: 1e-6}
defaults: {rows_per_unit: 2, max_rows_per_unit: 3}
unit: patients.patient_id
tables:
"""
PATIENTS = """\
  patients:
    one_row_per_unit: true
    columns:
      patient_id: unit
      sex: {category: [F, M]}
"""
VISITS = """\
  visits:
    columns:
      visit_id: key
      patient_id: {references: patients}
      cost: {real: [0, 100]}
"""
LABS = """\
  labs:
    columns:
      visit_id: {references: visits}
      value: {integer: [0, 9]}
"""


def policy_of(folder: Path, tables: str, database: str = "data.duckdb") -> Policy:
    text = HEAD.replace("data.duckdb", database) + tables
    return parse_policy(text, folder, "clinic.yaml")


def source(folder: Path, *statements: str) -> None:
    path = folder / "data.duckdb"
    path.unlink(missing_ok=True)
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)


def snapshot_of(folder: Path, policy: Policy, secret: bytes = SECRET, **options: Any) -> Snapshot:
    return ensure(policy, secret=secret, directory=folder, insecure=True, **options)


def rows(snapshot: Snapshot, sql: str) -> list[tuple[Any, ...]]:
    connection = open_governed(snapshot.path, threads=1)
    try:
        return run(connection, sql).rows
    finally:
        connection.close()


def column(folder: Path, raw_type: str, values: str, declared: str) -> list[Any]:
    """Clean the values of one column, in the order given; NULL ranks do not matter."""
    source(
        folder,
        "CREATE TABLE patients AS SELECT 1 AS patient_id, 'F' AS sex",
        f"CREATE TABLE v AS SELECT row_number() OVER () AS visit_id, 1 AS patient_id, "
        f"CAST(x AS {raw_type}) AS x FROM (SELECT unnest({values}) AS x)",
    )
    table = (
        "  v:\n    max_rows_per_unit: 100\n    columns:\n      visit_id: key\n"
        f"      patient_id: {{references: patients}}\n      x: {declared}\n"
    )
    snapshot = snapshot_of(folder, policy_of(folder, PATIENTS + table), rebuild=True)
    found = rows(snapshot, "SELECT CAST(visit_id AS BIGINT), x FROM v ORDER BY 1")
    return [value for _, value in found]


D = dt.date
CASTS = [
    ("DOUBLE", "[1.5, -1, 200, 'nan'::DOUBLE, 'inf'::DOUBLE, '-inf'::DOUBLE, NULL, -0.0]",
     "{real: [0, 100]}", [1.5, 0.0, 100.0, None, None, None, None, 0.0]),
    ("VARCHAR", "['1.5', ' 2 ', 'abc', '', '1e400', 'nan', '-7', '1e3']",
     "{real: [0, 100]}", [1.5, 2.0, None, None, None, None, 0.0, 100.0]),
    ("INTEGER", "[5, -5, 500, NULL]", "{real: [0, 100]}", [5.0, 0.0, 100.0, None]),
    ("DECIMAL(20,2)", "[5.25, 500.5, NULL]", "{real: [0, 100]}", [5.25, 100.0, None]),
    ("DATE", "[DATE '2020-01-01']", "{real: [0, 100]}", [None]),
    ("DOUBLE", "[1.4, 1.6, 1e300, -1e300, 'nan'::DOUBLE]", "{integer: [0, 9]}",
     [1, 2, 9, 0, None]),
    ("VARCHAR", "['7', '99999999999999999999', 'x', '3.6', '-2']", "{integer: [0, 9]}",
     [7, 9, None, 4, 0]),
    ("HUGEINT", "[7, 170141183460469231731687303715884105727]", "{integer: [0, 9]}", [7, 9]),
    ("BOOLEAN", "[true, false, NULL]", "{integer: [0, 9]}", [1, 0, None]),
    ("BIGINT", "[9007199254740992, -9007199254740992, 1]",
     "{integer: [-9007199254740992, 9007199254740992]}", [2**53, -(2**53), 1]),
    ("DATE", "[DATE '2020-05-01', DATE '1900-01-01', DATE '2200-01-01', 'infinity'::DATE, NULL]",
     "{date: [2015-01-01, 2026-12-31]}",
     [D(2020, 5, 1), D(2015, 1, 1), D(2026, 12, 31), None, None]),
    ("VARCHAR", "['2020-05-01', '2020-05-01 10:30:00', '31/12/2020', 'soon', '0001-01-01']",
     "{date: [2015-01-01, 2026-12-31]}",
     [D(2020, 5, 1), D(2020, 5, 1), None, None, D(2015, 1, 1)]),
    ("TIMESTAMP", "[TIMESTAMP '2020-05-01 10:30:00', TIMESTAMP '1900-01-01']",
     "{date: [2015-01-01, 2026-12-31]}", [D(2020, 5, 1), D(2015, 1, 1)]),
    ("BIGINT", "[20200501]", "{date: [2015-01-01, 2026-12-31]}", [None]),
    ("TIMESTAMP", "[TIMESTAMP '2020-05-01 10:30:00', 'infinity'::TIMESTAMP]",
     "{timestamp: [2015-01-01, 2026-12-31]}", [dt.datetime(2020, 5, 1, 10, 30), None]),
    ("DATE", "[DATE '2020-05-01', DATE '2000-01-01']", "{timestamp: [2015-01-01, 2026-12-31]}",
     [dt.datetime(2020, 5, 1), dt.datetime(2015, 1, 1)]),
    ("VARCHAR", "['F', 'M', 'X', 'f', NULL]", "{category: [F, M]}", ["F", "M", None, None, None]),
    ("VARCHAR", "['F', 'M', 'X', NULL]", "{category: [F, M], other: Z}", ["F", "M", "Z", None]),
    ("ENUM('M', 'X')", "['M', 'X', NULL]", "{category: [F, M]}", ["M", None, None]),
    ("DOUBLE", "[1, 2, 1.5]", "{category: ['1', '2']}", ["1", "2", None]),
    ("INTEGER", "[1, 2, 3, NULL]", "{category: [1, 2]}", [1, 2, None, None]),
    ("VARCHAR", "['1', '2.0', 'x', '7', NULL]", "{category: [1, 2], other: 9}",
     [1, 2, 9, 9, None]),
    ("VARCHAR", "['O''Hara', 'a\"b', NULL]", "{category: [\"O'Hara\", 'a\"b']}",
     ["O'Hara", 'a"b', None]),
    ("VARCHAR", "['true', 'f', 'perhaps', NULL]", "boolean", [True, False, None, None]),
    ("INTEGER", "[0, 1, 2, NULL]", "boolean", [False, True, None, None]),
    ("VARCHAR", "['I10', '', NULL]", "text", ["I10", "", None]),
    ("INTEGER[]", "[[1, 2], NULL]", "text", ["[1, 2]", None]),
    ("UUID", "['c0ffee00-0000-0000-0000-000000000001']", "key",
     ["c0ffee00-0000-0000-0000-000000000001"]),
    ("DOUBLE", "[7, 1.5, 'nan'::DOUBLE]", "key", ["7", "1.5", None]),
    ("BLOB", "['abcd'::BLOB, 'abc'::BLOB, NULL]", "{image: [2, 2]}", [b"abcd", None, None]),
]  # fmt: skip


@pytest.mark.parametrize(("raw_type", "values", "declared", "expected"), CASTS)
def test_every_value_is_cleaned_without_failing(
    tmp_path: Path, raw_type: str, values: str, declared: str, expected: list[Any]
) -> None:
    found = column(tmp_path, raw_type, values, declared)
    assert found == expected
    assert [math.copysign(1, x) for x in found if x == 0] == [1.0] * sum(x == 0 for x in found)


def test_undeclared_columns_are_not_copied_and_units_are_not_stored(tmp_path: Path) -> None:
    source(
        tmp_path,
        "CREATE TABLE patients AS SELECT 11 AS patient_id, 'F' AS sex, 'Anna' AS name",
        "CREATE TABLE visits AS SELECT 5 AS visit_id, 11 AS patient_id, 10.0 AS cost, 1 AS secret",
    )
    snapshot = snapshot_of(tmp_path, policy_of(tmp_path, PATIENTS + VISITS))
    found = rows(
        snapshot,
        "SELECT table_name, column_name, data_type FROM information_schema.columns ORDER BY ALL",
    )
    assert [row for row in found if row[0] != "__discreet"] == [
        ("__units", "__seed", "UBIGINT"),
        ("__units", "__u", "INTEGER"),
        ("patients", "__n", "INTEGER"),
        ("patients", "__rank", "INTEGER"),
        ("patients", "__u", "INTEGER"),
        ("patients", "sex", "ENUM('F', 'M')"),
        ("visits", "__grid_cost", "BIGINT"),
        ("visits", "__n", "INTEGER"),
        ("visits", "__rank", "INTEGER"),
        ("visits", "__u", "INTEGER"),
        ("visits", "cost", "DOUBLE"),
        ("visits", "visit_id", "BIGINT"),
    ]
    assert b"Anna" not in snapshot.path.read_bytes()
    assert snapshot.path.stat().st_mode & 0o077 == 0


def test_rows_without_a_unit_are_dropped_and_shared_parents_are_copied(tmp_path: Path) -> None:
    source(
        tmp_path,
        "CREATE TABLE patients AS SELECT * FROM (VALUES (1, 'F'), (2, 'M'), (NULL, 'F'), (1, 'M')) "
        "t(patient_id, sex)",
        "CREATE TABLE visits AS SELECT * FROM (VALUES (10, 1, 5.0), (10, 2, 6.0), (11, 1, 7.0), "
        "(11, 1, 7.5), (12, 9, 1.0), (13, NULL, 1.0), (NULL, 2, 8.0)) "
        "t(visit_id, patient_id, cost)",
        "CREATE TABLE labs AS SELECT * FROM (VALUES (10, 1), (11, 2), (12, 3), (NULL, 4), (99, 5)) "
        "t(visit_id, value)",
    )
    snapshot = snapshot_of(tmp_path, policy_of(tmp_path, PATIENTS + VISITS + LABS))
    assert rows(snapshot, "SELECT __u, visit_id, cost FROM visits ORDER BY ALL") == [
        (1, 10, 5.0), (1, 11, 7.0), (1, 11, 7.5), (2, 10, 6.0), (2, None, 8.0),
    ]  # fmt: skip
    # Visit 10 belongs to two patients: its lab row goes to both. Visit 11 is there twice for
    # one patient: its lab row stays one.
    assert rows(snapshot, "SELECT __u, visit_id, value FROM labs ORDER BY ALL") == [
        (1, 10, 1), (1, 11, 2), (2, 10, 1),
    ]  # fmt: skip
    shared = "SELECT visit_id, __key_rank_visit_id FROM visits ORDER BY ALL"
    assert rows(snapshot, shared) == [(10, 1), (10, 1), (11, 1), (11, 2), (None, None)]
    patients, visits, labs = snapshot.report.tables
    assert (patients.read, patients.no_unit, patients.duplicates, patients.kept) == (4, 1, 1, 2)
    assert (visits.read, visits.no_unit, visits.copied, visits.kept) == (7, 2, 0, 5)
    assert (labs.read, labs.no_unit, labs.copied, labs.kept) == (5, 3, 1, 3)
    text = str(snapshot.report)
    assert "labs: 5 rows read, 3 kept" in text
    assert "1  copied, lead to several patients" in text


def test_a_road_of_three_foreign_keys_and_of_another_parent_column(tmp_path: Path) -> None:
    tables = (
        "  patients:\n    columns:\n      patient_id: unit\n      mrn: key\n"
        "  visits:\n    columns:\n      visit_id: key\n      mrn: {references: patients.mrn}\n"
        "  orders:\n    columns:\n      order_id: key\n      visit_id: {references: visits}\n"
        "  results:\n    columns:\n      order_id: {references: orders}\n      x: text\n"
    )
    source(
        tmp_path,
        "CREATE TABLE patients AS SELECT * FROM (VALUES ('p1', 'm1'), ('p2', 'm2')) "
        "t(patient_id, mrn)",
        "CREATE TABLE visits AS SELECT * FROM (VALUES (1.0, 'm1'), (2.0, 'm2')) t(visit_id, mrn)",
        "CREATE TABLE orders AS SELECT * FROM (VALUES (7, 1), (8, 2)) t(order_id, visit_id)",
        "CREATE TABLE results AS SELECT * FROM (VALUES (7, 'a'), (8, 'b'), (9, 'c')) "
        "t(order_id, x)",
    )
    snapshot = snapshot_of(tmp_path, policy_of(tmp_path, tables))
    assert rows(snapshot, "SELECT __u, x FROM results ORDER BY ALL") == [(1, "a"), (2, "b")]


def test_not_null_drops_before_ranks_and_the_ceiling_after(tmp_path: Path) -> None:
    source(
        tmp_path,
        "CREATE TABLE patients AS SELECT 1 AS patient_id, 'F' AS sex",
        "CREATE TABLE visits AS SELECT i AS visit_id, 1 AS patient_id, CASE WHEN i % 2 = 0 THEN i "
        "END AS cost FROM range(20) t(i)",
    )
    visits = VISITS.replace("[0, 100]}", "[0, 100], not_null: true}")
    snapshot = snapshot_of(tmp_path, policy_of(tmp_path, PATIENTS + visits))
    found = rows(snapshot, "SELECT __rank, cost FROM visits ORDER BY 1")
    assert [rank for rank, _ in found] == [1, 2, 3]
    assert all(cost is not None for _, cost in found)
    report = snapshot.report.table("visits")
    assert (report.not_null, report.over_ceiling, report.kept) == (10, 7, 3)


def test_a_dirty_clinic_comes_out_as_an_independent_reading_says(tmp_path: Path) -> None:
    """Read the source row by row in Python, hash with hashlib, and compare every single row."""
    write_clinic(tmp_path / "data.duckdb", 120, seed=3, labs_per_patient=2)
    policy = parse_policy(clinic_policy("data.duckdb", "l.sqlite"), tmp_path, "clinic.yaml")
    snapshot = snapshot_of(tmp_path, policy)
    with duckdb.connect(str(tmp_path / "data.duckdb"), read_only=True) as raw:
        patients = {k for (k,) in raw.execute("SELECT patient_id FROM patients").fetchall()}
        visits = raw.execute("SELECT * FROM visits").fetchall()
    expected: dict[int, list[tuple[int, tuple[Any, ...]]]] = {}
    numbers = {key: place + 1 for place, key in enumerate(sorted(patients - {None}))}
    for row in visits:
        if row[1] in numbers:
            stored = tuple(map(clean, row, range(8)))
            expected.setdefault(numbers[row[1]], []).append((rank_hash(row[1], stored), stored))
    columns = "* EXCLUDE (__u, __rank, __n, __key_rank_visit_id, __grid_cost)"
    assert sum(len(members) > 20 for members in expected.values()) > 3
    wanted = [
        (unit, rank + 1, min(len(members), 200),
         *(value for place, value in enumerate(stored) if place != 1))
        for unit, members in expected.items()
        for rank, (_, stored) in enumerate(sorted(members, key=lambda m: m[0])[:200])
    ]  # fmt: skip
    # First the patients with few rows, then the first rows of the others, then their other rows.
    wanted.sort(key=lambda row: (row[2] > 20, row[1] > 20, row[0], row[1]))
    assert rows(snapshot, f"SELECT __u, __rank, __n, {columns} FROM visits") == wanted


def clean(value: Any, place: int) -> Any:
    departments = clinic_policy("x").split("department: {category: [")[1].split("]")[0].split(", ")
    if place == 2 and value is not None:
        return min(max(value, D(2015, 1, 1)), D(2026, 12, 31))
    if place == 3 and value not in departments:
        return None
    if place in (5, 6) and value is not None:
        top = 20000.0 if place == 5 else 60
        return min(max(value, 0), top) if math.isfinite(value) else None
    return value


def rank_hash(unit: int, row: tuple[Any, ...]) -> int:
    """The documented hash, written again: unit's key, then each column so that it reads back."""
    visit, _, day, department, diagnosis, cost, los, readmitted = row
    unit_key = hashlib.md5(f"{SECRET.hex()}|rows|{unit}".encode()).hexdigest()

    def word(value: object) -> str:
        return ":;" if value is None else f"{len(str(value).encode())}:{value};"

    def plain(value: object) -> str:
        return ";" if value is None else f"{str(value).lower()};"

    days = None if day is None else (day - D(1970, 1, 1)).days
    text = f"{unit_key};{word(visit)}{plain(days)}{word(department)}{word(diagnosis)}"
    text += f"{plain(None if cost is None else float(cost))}{plain(los)}{plain(readmitted)}"
    return int.from_bytes(hashlib.md5(text.encode()).digest()[8:], "little")


def test_the_report_counts_every_kind_of_dirt(tmp_path: Path) -> None:
    write_clinic(tmp_path / "data.duckdb", 400, labs_per_patient=10)
    policy = parse_policy(clinic_policy("data.duckdb", "l.sqlite"), tmp_path, "clinic.yaml")
    report = snapshot_of(tmp_path, policy).report
    with duckdb.connect(str(tmp_path / "data.duckdb"), read_only=True) as raw:
        (truth,) = raw.execute(
            "SELECT count(*) FILTER (WHERE NOT isfinite(cost)), count(*) FILTER (WHERE cost < 0 "
            "AND isfinite(cost)), count(*) FILTER (WHERE cost > 20000 AND isfinite(cost)), count(*)"
            " FILTER (WHERE department = 'unknown'), count(*) FILTER (WHERE patient_id IS NULL OR "
            "patient_id NOT IN (SELECT patient_id FROM patients WHERE patient_id IS NOT NULL)), "
            "count(*) FROM visits"
        ).fetchall()
    visits = report.table("visits")
    named = {column.name: column for column in visits.columns}
    assert truth == (
        named["cost"].not_finite, named["cost"].low, named["cost"].high,
        named["department"].outside, visits.no_unit, visits.read,
    )  # fmt: skip
    assert min(truth) > 0
    assert report.table("patients").duplicates > 0
    assert report.table("labs").no_unit > 0


def test_public_tables_are_copied_whole_with_their_facts(tmp_path: Path) -> None:
    source(
        tmp_path,
        "CREATE TABLE patients AS SELECT 1 AS patient_id, 'b' AS place",
        "CREATE TABLE places AS SELECT * FROM (VALUES "
        "('b', 2, 1.5::DOUBLE, DATE '2020-01-01', [1]), ('a', 1, 'nan'::DOUBLE, NULL, [2]), "
        "('a', 3, 'inf'::DOUBLE, DATE '2021-01-01', NULL)) "
        "t(place, beds, size, since, list)",
    )
    tables = (
        "  patients:\n    columns:\n      patient_id: unit\n"
        "      place: {category_of: places.place}\n  places: public\n"
    )
    snapshot = snapshot_of(tmp_path, policy_of(tmp_path, tables))
    assert rows(snapshot, "SELECT * FROM places ORDER BY beds") == [
        ("a", 1, None, None, "[2]"),
        ("b", 2, 1.5, D(2020, 1, 1), "[1]"),
        ("a", 3, None, D(2021, 1, 1), None),
    ]
    table = snapshot.catalog.table("places")
    assert table is not None
    facts = {c.name: c for c in table.columns}
    assert facts["place"].domain.values == ("a", "b")
    assert facts["place"].rows_per_value == 2
    assert (facts["beds"].domain.low, facts["beds"].domain.high) == (1, 3)
    assert facts["since"].domain.nullable
    assert not facts["beds"].domain.nullable
    patients = snapshot.catalog.table("patients")
    assert patients is not None
    assert patients.columns[1].domain.values == ("a", "b")
    # Opened again, the facts come from the snapshot's own metadata.
    again = snapshot_of(tmp_path, policy_of(tmp_path, tables))
    found = again.catalog.table("places")
    assert found is not None
    assert found.columns == table.columns
    assert found.public_rows is not None
    assert table.public_rows is not None
    assert found.public_rows.rows == table.public_rows.rows


MISTAKES = [
    ("CREATE TABLE patient AS SELECT 1 AS patient_id, 'F' AS sex", "did you mean 'patient'"),
    ("CREATE TABLE patients AS SELECT 1 AS patient_id, 'F' AS sexe", "did you mean 'sexe'"),
]


@pytest.mark.parametrize(("statement", "said"), MISTAKES)
def test_what_is_missing_is_named_with_what_is_near(
    tmp_path: Path, statement: str, said: str
) -> None:
    source(tmp_path, statement)
    with pytest.raises(SnapshotError, match=said):
        snapshot_of(tmp_path, policy_of(tmp_path, PATIENTS))


def test_missing_and_unusable_databases_are_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="does not exist"):
        snapshot_of(tmp_path, policy_of(tmp_path, PATIENTS))
    (tmp_path / "data.duckdb").write_bytes(b"nothing of the kind, patient Anna Karenina" * 100)
    with pytest.raises(SnapshotError, match="cannot be opened") as caught:
        snapshot_of(tmp_path, policy_of(tmp_path, PATIENTS))
    assert "Anna" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_broken_text_row_stops_the_build_without_being_quoted(tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "patients.csv").write_text("patient_id,sex\n1,F\n2,Anna,Karenina,x\n")
    with pytest.raises(SnapshotError, match="could not be turned into a snapshot") as caught:
        snapshot_of(tmp_path, policy_of(tmp_path, PATIENTS, "csv"))
    assert "Anna" not in str(caught.value)
    assert caught.value.__context__ is None


def test_public_numbers_that_a_float_cannot_tell_apart_are_no_category(tmp_path: Path) -> None:
    source(
        tmp_path, "CREATE TABLE patients AS SELECT 1 AS patient_id, 'F' AS sex",
        "CREATE TABLE m AS SELECT unnest([9223372036854775807, 9007199254740993, 5]) AS id",
        "CREATE TABLE g AS SELECT 1 AS patient_id, 9223372036854775807 AS code",
    )  # fmt: skip
    tables = (
        PATIENTS + "  g:\n    columns:\n      patient_id: {references: patients}\n"
        "      code: {category_of: m.id}\n  m: public\n"
    )
    with pytest.raises(PolicyError, match=r"m\.id.* holds numbers beyond 2\^53"):
        snapshot_of(tmp_path, policy_of(tmp_path, tables))
