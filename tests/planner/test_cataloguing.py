"""A policy and public facts in; what the planner may rely on out."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from planner.catalog import Catalog, CatalogColumn, Kind
from planner.cataloguing import PublicColumn, PublicTable, catalog_of
from planner.domain import Domain, Type
from planner.policy import PolicyError, parse_policy

CLINIC = """\
discreet: 1
database: clinic.duckdb
ledger: clinic.sqlite
budget: {epsilon: 3.0, delta: 1e-6}
unit: patients.patient_id
tables:
  patients:
    one_row_per_unit: true
    columns:
      patient_id: unit
      mother_id: {references: patients}
      hospital_number: key
      sex: {category: [M, F], not_null: true}
      gender: {category: [8532, 8507], other: 0}
      smoker: {boolean: true, not_null: true}
      age: {integer: [0, 120], loose: true, step: 5}
      region: {category_of: regions.region, other: elsewhere}
      area: {category_of: regions.area_code}
      scan: {image: [28, 28]}
  visits:
    rows_per_unit: 30
    max_rows_per_unit: 40
    columns:
      patient_id: {references: patients}
      visit_id: {key: true, not_null: true}
      day: {date: [2015-01-01, 2026-12-31]}
      note: text
  labs:
    columns:
      visit_id: {references: visits}
      value: {real: [0, 500], not_null: true}
  letters:
    columns:
      hospital_number: {references: patients.hospital_number}
      sent: boolean
  regions: public
"""
REGIONS = PublicTable(name="Regions", columns=(
    PublicColumn(name="Region", type=Type.TEXT, nullable=False, values=("south", "north")),
    PublicColumn(name="area_code", type=Type.INTEGER, low=1, high=9, rows_per_value=4),
    PublicColumn(name="share", type=Type.REAL, low=0.0, high=1.0),
))


def catalog(text: str = CLINIC, *public: PublicTable) -> Catalog:
    policy = parse_policy(text, Path(), "p.yaml")
    return catalog_of(policy, public or (REGIONS,))


def column(table: str, name: str, text: str = CLINIC) -> CatalogColumn:
    found = catalog(text).table(table)
    assert found is not None
    kept = found.column(name)
    assert kept is not None
    return kept


@pytest.mark.parametrize(
    ("table", "name", "domain"),
    [
        ("patients", "patient_id", Domain(Type.UNIT, False)),
        ("visits", "patient_id", Domain(Type.UNIT, False)),
        ("visits", "visit_id", Domain(Type.KEY, False, key_of="visits.visit_id")),
        ("labs", "visit_id", Domain(Type.KEY, True, key_of="visits.visit_id")),
        ("patients", "hospital_number", Domain(Type.KEY, key_of="patients.hospital_number")),
        ("letters", "hospital_number", Domain(Type.KEY, key_of="patients.hospital_number")),
        ("patients", "sex", Domain(Type.TEXT, False, values=("F", "M"))),
        ("patients", "gender", Domain(Type.INTEGER, True, 0, 8532, (0, 8507, 8532))),
        ("patients", "smoker", Domain(Type.BOOLEAN, False)),
        ("patients", "age", Domain(Type.INTEGER, True, 0, 120)),
        ("patients", "region", Domain(Type.TEXT, values=("elsewhere", "north", "south"))),
        ("patients", "area", Domain(Type.INTEGER, True, 1, 9)),
        ("patients", "scan", Domain(Type.IMAGE, shape=(28, 28))),
        ("visits", "day", Domain(Type.DATE, True, date(2015, 1, 1), date(2026, 12, 31))),
        ("visits", "note", Domain(Type.TEXT)),
        ("labs", "value", Domain(Type.REAL, False, 0.0, 500.0)),
        ("regions", "region", Domain(Type.TEXT, False, values=("north", "south"))),
        ("regions", "share", Domain(Type.REAL, True, 0.0, 1.0)),
    ],
)
def test_domains(table: str, name: str, domain: Domain) -> None:
    assert column(table, name).domain == domain


def test_a_second_patient_in_a_row_is_a_key_and_not_the_unit() -> None:
    """Grouping by a mother would gather rows of several units: it is not a per-unit grouping."""
    assert column("patients", "mother_id").domain == Domain(
        Type.KEY, True, key_of="patients.patient_id"
    )
    detour = CLINIC.replace(
        "  labs:\n    columns:\n",
        "  labs:\n    unit_path: visit_id\n    columns:\n"
        "      patient_id: {references: patients}\n",
    )
    assert column("labs", "patient_id", detour).domain.type is Type.KEY


def test_at_most_one_column_of_a_table_names_its_unit() -> None:
    for table in catalog().tables:
        assert sum(c.domain.type is Type.UNIT for c in table.columns) <= 1


def test_only_text_with_known_values_is_an_enum() -> None:
    enums = {(t.name, c.name) for t in catalog().tables for c in t.columns if c.is_enum}
    assert enums == {("patients", "sex"), ("patients", "region")}


def test_only_keys_that_something_refers_to_are_referenced() -> None:
    referenced = {(t.name, c.name) for t in catalog().tables for c in t.columns if c.referenced}
    assert referenced == {("visits", "visit_id"), ("patients", "hospital_number")}


def test_rows_and_kinds_of_tables() -> None:
    facts = {
        t.name: (t.kind, t.one_row_per_unit, t.rows_per_unit, t.max_rows_per_unit)
        for t in catalog().tables
    }
    assert facts == {
        "patients": (Kind.PROTECTED, True, 1, 1),
        "visits": (Kind.PROTECTED, False, 30, 40),
        "labs": (Kind.PROTECTED, False, 20, 1000),
        "letters": (Kind.PROTECTED, False, 20, 1000),
        "regions": (Kind.PUBLIC, False, 20, 1000),
    }


def test_hints_and_public_counts_are_carried() -> None:
    age = column("patients", "age")
    assert (age.loose, age.step) == (True, 5.0)
    assert column("regions", "area_code").rows_per_value == 4


def test_the_catalog_names_its_policy() -> None:
    policy = parse_policy(CLINIC, Path(), "p.yaml")
    assert catalog().policy_hash == policy.policy_hash


def test_undeclared_public_tables_stay_out() -> None:
    more = PublicTable(name="staff", columns=())
    assert catalog(CLINIC, REGIONS, more).table("staff") is None


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("regions.region", "regions.regoin", "p.yaml:17: tables.patients.columns.region."
         "category_of: 'regions' has no column 'regoin'; did you mean 'Region'?"),
        ("regions.area_code", "regions.share", "p.yaml:18: tables.patients.columns.area."
         "category_of: 'regions.share' is real; a category is text or integer"),
        ("other: elsewhere", "other: 0", "p.yaml:17: tables.patients.columns.region.other: "
         "'0' is not text, as the public column is"),
        ("regions.area_code}", "regions.area_code, other: x}", "p.yaml:18: tables.patients."
         "columns.area.other: 'x' is not integer, as the public column is"),
    ],
)
def test_public_facts_that_do_not_fit(before: str, after: str, fault: str) -> None:
    with pytest.raises(PolicyError) as caught:
        catalog(CLINIC.replace(before, after))
    assert str(caught.value) == fault


def test_a_public_table_that_is_not_there() -> None:
    policy = parse_policy(CLINIC, Path(), "p.yaml")
    with pytest.raises(PolicyError, match=r"p\.yaml:36: tables\.regions: is not in the database"):
        catalog_of(policy, ())


def test_an_other_widens_a_range_that_is_too_long_to_list() -> None:
    wider = CLINIC.replace("regions.area_code}", "regions.area_code, other: 0}")
    assert column("patients", "area", wider).domain == Domain(Type.INTEGER, True, 0, 9)
