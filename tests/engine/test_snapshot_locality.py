"""One patient's arrival changes nobody else's rows: snapshots with and without him, compared."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.database import open_governed, run
from engine.snapshot import ensure, secret_from_seed
from planner.policy import parse_policy

POLICY = """\
discreet: 1
database: data.duckdb
ledger: clinic.ledger.sqlite
budget: {epsilon: 1.0, delta: 1e-6}
defaults: {rows_per_unit: 2, max_rows_per_unit: 3}
unit: patients.patient_id
tables:
  patients:
    one_row_per_unit: true
    columns:
      patient_id: unit
      sex: {category: [F, M]}
  visits:
    columns:
      visit_id: key
      patient_id: {references: patients}
      cost: {real: [0, 100]}
      note: text
  labs:
    columns:
      visit_id: {references: visits}
      value: {integer: [0, 9], not_null: true}
"""
SCHEMA = {
    "patients": "patient_id VARCHAR, sex VARCHAR",
    "visits": "visit_id INTEGER, patient_id VARCHAR, cost DOUBLE, note VARCHAR",
    "labs": "visit_id INTEGER, value INTEGER",
}
Tables = dict[str, list[tuple[Any, ...]]]
ByUnit = dict[str, tuple[list[tuple[Any, ...]], ...]]

people = st.sampled_from(["a", "b", "c", "a|rows|b", "10", None])
visits = st.sampled_from([1, 2, 3, 4, None])
notes = st.sampled_from(["", "x", "1;", ":x;", "3:x;y", None])
costs = st.sampled_from([0.0, 1.0, 1.5, -3.0, 1e9, float("nan"), None])
values = st.sampled_from([0, 1, 2, 99, None])
clinics = st.fixed_dictionaries({
    "patients": st.lists(st.tuples(people, st.sampled_from(["F", "M", "?"])), max_size=6),
    "visits": st.lists(st.tuples(visits, people, costs, notes), max_size=10),
    "labs": st.lists(st.tuples(visits, values), max_size=10),
})
# A hostile patient sorts before, between or after the others, and may claim any visit number.
newcomers = st.tuples(
    st.sampled_from(["", "A", "aa", "b|", "zz"]),
    st.fixed_dictionaries({
        "patients": st.lists(st.sampled_from(["F", "M", "?"]), min_size=1, max_size=3),
        "visits": st.lists(st.tuples(visits, costs, notes), max_size=8),
        "labs": st.lists(st.tuples(st.sampled_from([100, 101]), values), max_size=6),
    }),
)


def with_newcomer(clinic: Tables, name: str, rows: dict[str, list[Any]]) -> Tables:
    """Add a patient: his own rows, and lab rows on visits that only he has (100, 101)."""
    mine = [*rows["visits"], (100, 1.0, "x"), (101, 2.0, "y")]
    return {
        "patients": [*((name, sex) for sex in rows["patients"]), *clinic["patients"]],
        "visits": [*clinic["visits"], *((visit, name, cost, note) for visit, cost, note in mine)],
        "labs": [*rows["labs"], *clinic["labs"]],
    }


def build(tables: Tables, seed: int = 7) -> ByUnit:
    """Build a snapshot and return what it stores about each unit, by the unit's own key."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with duckdb.connect(str(folder / "data.duckdb")) as connection:
            for table, columns in SCHEMA.items():
                connection.execute(f"CREATE TABLE {table} ({columns})")
                if tables[table]:
                    places = ", ".join("?" * len(tables[table][0]))
                    connection.executemany(f"INSERT INTO {table} VALUES ({places})", tables[table])
        policy = parse_policy(POLICY, folder, "clinic.yaml")
        secret = secret_from_seed(seed)
        snapshot = ensure(policy, secret=secret, directory=folder, insecure=True)
        governed = open_governed(snapshot.path, threads=1)
        try:
            read = {
                table: run(governed, f"SELECT * FROM {table} ORDER BY ALL").rows
                for table in ("__units", *SCHEMA)
            }
        finally:
            governed.close()
    keys = sorted({row[0] for row in tables["patients"]} - {None}, key=str.encode)
    return {
        key: tuple([row[1:] for row in rows if row[0] == place] for rows in read.values())
        for place, key in enumerate(keys, start=1)
    }


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(clinic=clinics, newcomer=newcomers)
def test_a_hostile_newcomer_changes_no_other_patients_rows(
    clinic: Tables, newcomer: tuple[str, dict[str, list[Any]]]
) -> None:
    before = build(clinic)
    after = build(with_newcomer(clinic, *newcomer))
    assert set(after) == {*before, newcomer[0]}
    for key, rows in before.items():
        assert after[key] == rows


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(clinic=clinics, data=st.data())
def test_the_order_of_rows_in_the_source_does_not_matter(
    clinic: Tables, data: st.DataObject
) -> None:
    shuffled = {table: data.draw(st.permutations(rows)) for table, rows in clinic.items()}
    assert build(shuffled) == build(clinic)


def many(people: str, count: int) -> Tables:
    """Give each patient the same visits."""
    return {
        "patients": [(name, "F") for name in people],
        "visits": [(i, p, float(i), "x") for p in people for i in range(count)],
        "labs": [],
    }


def kept(unit: Sequence[list[tuple[Any, ...]]]) -> list[int]:
    """Return the numbers of the visits that a unit keeps, in the order of their ranks."""
    return [row[3] for row in unit[2]]


def test_the_secret_fixes_the_ranks_and_another_secret_gives_others() -> None:
    clinic = many("ab", 12)
    first, same, other = build(clinic, 1), build(clinic, 1), build(clinic, 2)
    assert first == same
    assert kept(first["a"]) != kept(other["a"])


def test_every_row_is_kept_about_equally_often() -> None:
    """With a ceiling of 3, each of 6 visits survives with half of 250 patients, independently.

    So the order is each patient's own: one order for all would keep the same 3 visits for all.
    """
    built = build(many("".join(chr(0x100 + i) for i in range(250)), 6))
    counts = [0] * 6
    for unit in built.values():
        for visit in kept(unit):
            counts[visit] += 1
    assert sum(counts) == 750
    assert min(counts) >= 85  # five standard deviations of 7.9
    assert max(counts) <= 165
