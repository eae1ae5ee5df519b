"""A policy's text in; the frozen policy out, read as YAML 1.2 and typed by its fields."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import ValidationError

from planner.policy import (
    Budget,
    ColumnPolicy,
    Defaults,
    Policy,
    PolicyError,
    TablePolicy,
    parse_policy,
    read_policy,
    unit_route,
)

CLINIC = """\
discreet: 1
database: clinic.duckdb
ledger: clinic.ledger.sqlite        # or postgresql://...
budget: {epsilon: 3.0, delta: 1e-6}
defaults: {epsilon: 0.1, delta: 1e-9, rows_per_unit: 20, max_rows_per_unit: 1000}
analysts: {ana: {epsilon: 1.0}, ben: {epsilon: 0.5}}
unit: patients.patient_id
tables:
  patients:
    one_row_per_unit: true
    columns:
      patient_id: unit
      sex: {category: [F, M]}
      birth_year: {integer: [1900, 2026]}
      region: {category_of: regions.region}        # domain from a public table
  visits:
    columns:
      patient_id: {references: patients}
      visit_id: key
      visit_date: {date: [2015-01-01, 2026-12-31]}
      department: {category: [cardiology, oncology, emergency]}
      diagnosis: text                               # unknown keys: partition selection
      cost: {real: [0, 20000]}
  labs:
    columns:
      visit_id: {references: visits}                # unit through visits
      value: {real: [0, 500]}
  regions: public
"""


def read(text: str) -> Policy:
    return parse_policy(text, Path("/srv/clinic"), "clinic.yaml")


def column(declaration: str) -> ColumnPolicy:
    """Read one column beside the patient's own."""
    text = CLINIC.replace("sex: {category: [F, M]}", f"sex: {declaration}")
    return read(text).tables["patients"].columns["sex"]


def test_the_design_example_reads() -> None:
    policy = read(CLINIC)
    assert list(policy.tables) == ["patients", "visits", "labs", "regions"]
    assert policy.budget.epsilon == Decimal("3.0")
    assert policy.analysts["ben"].epsilon == Decimal("0.5")
    assert policy.tables["regions"].public
    assert policy.tables["patients"].columns["sex"].values == ("F", "M")
    assert policy.tables["visits"].columns["visit_date"].low == date(2015, 1, 1)
    assert policy.tables["visits"].columns["cost"].high == 20000.0


def test_budgets_are_the_decimals_that_were_written() -> None:
    budget = read(CLINIC.replace("3.0, delta: 1e-6", "0.1, delta: 3e-7")).budget
    assert (str(budget.epsilon), budget.delta) == ("0.1", Decimal(3).scaleb(-7))


def test_paths_resolve_against_the_policy_and_addresses_do_not() -> None:
    policy = read(CLINIC)
    assert policy.database_path() == Path("/srv/clinic/clinic.duckdb")
    assert policy.ledger_url() == Path("/srv/clinic/clinic.ledger.sqlite")
    address = "postgresql://budget@db/ledger"
    moved = read(CLINIC.replace("clinic.ledger.sqlite", address + "\nwitness: seen.txt"))
    assert moved.ledger_url() == address
    assert moved.witness_path() == Path("/srv/clinic/seen.txt")
    absolute = read(CLINIC.replace("clinic.duckdb", "/data/clinic.duckdb"))
    assert absolute.database_path() == Path("/data/clinic.duckdb")


def test_a_tables_source_is_a_name_or_a_file() -> None:
    policy = read(CLINIC.replace("regions: public", "regions: {public: true, source: r.parquet}"))
    assert policy.source_of("regions") == Path("/srv/clinic/r.parquet")
    assert policy.source_of("visits") == "visits"


def test_a_policy_file_is_read_beside_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "clinic.yaml"
    path.write_text("\ufeff" + CLINIC, encoding="utf-8")
    assert read_policy(path).database_path() == tmp_path / "clinic.duckdb"


def test_query_delta_is_stated_or_a_thousandth_of_the_budget() -> None:
    assert read(CLINIC).query_delta() == Decimal("1e-9")
    assert read(CLINIC.replace(" delta: 1e-9,", "")).query_delta() == Decimal("1e-9")
    assert read(CLINIC.replace(" delta: 1e-9,", "").replace("1e-6", "0")).query_delta() == 0


def test_defaults_are_filled_in() -> None:
    text = "\n".join(line for line in CLINIC.splitlines() if not line.startswith(("def", "ana")))
    policy = read(text)
    assert policy.defaults.epsilon == Decimal("0.1")
    assert (policy.rows_per_unit("visits"), policy.max_rows_per_unit("visits")) == (20, 1000)
    assert policy.rows_per_unit("patients") == policy.max_rows_per_unit("patients") == 1
    assert dict(policy.analysts) == {}


def test_a_lower_ceiling_lowers_the_default_rows() -> None:
    policy = read(CLINIC.replace("  visits:\n", "  visits:\n    max_rows_per_unit: 7\n"))
    assert (policy.rows_per_unit("visits"), policy.max_rows_per_unit("visits")) == (7, 7)


@pytest.mark.parametrize(
    ("declaration", "facts"),
    [
        ("text", {"kind": "text"}),
        ("boolean", {"kind": "boolean"}),
        ("key", {"kind": "key"}),
        ("{boolean: true, not_null: true}", {"kind": "boolean", "not_null": True}),
        ("{integer: [0, 120], not_null: true}", {"low": 0, "high": 120, "not_null": True}),
        ("{integer: [-5, 1e3]}", {"low": -5, "high": 1000}),
        ("{real: [0, 500], loose: true, step: 0.1}",
         {"low": 0.0, "high": 500.0, "loose": True, "step": Decimal("0.1")}),
        ("{real: [-1e-3, .5]}", {"low": -0.001, "high": 0.5}),
        ("{date: [2015-01-01, 2026-12-31]}",
         {"low": date(2015, 1, 1), "high": date(2026, 12, 31)}),
        ("{timestamp: [2015-01-01, 2026-12-31]}",
         {"low": datetime(2015, 1, 1), "high": datetime(2026, 12, 31, 23, 59, 59, 999999)}),
        ("{timestamp: [2015-01-01 08:30:00, 2015-01-01T09:30]}",
         {"low": datetime(2015, 1, 1, 8, 30), "high": datetime(2015, 1, 1, 9, 30)}),
        ("{category: [8507, 8532], other: 0}", {"values": (8507, 8532, 0), "other": 0}),
        ("{category: [a, b], other: b}", {"values": ("a", "b"), "other": "b"}),
        ("{category_of: regions.region, other: none}", {"category_of": "regions.region"}),
        ("{image: [28, 28, 1]}", {"kind": "image", "shape": (28, 28, 1)}),
        ("{image: true, shape: [28, 28]}", {"kind": "image", "shape": (28, 28)}),
        ("{references: patients}", {"kind": "references", "references": "patients"}),
    ],
)
def test_every_form_of_a_column(declaration: str, facts: dict[str, object]) -> None:
    declared = column(declaration)
    for name, value in facts.items():
        found = getattr(declared, name)
        assert (found, type(found)) == (value, type(value)), name


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ("[yes, no]", ("yes", "no")),
        ("[on, off]", ("on", "off")),
        ("[true, false]", ("true", "false")),
        ("[y, n]", ("y", "n")),
        ("['1', '2']", ("1", "2")),
        ("[1, 2]", (1, 2)),
        ("[12:30, 2015-01-01]", ("12:30", "2015-01-01")),
        ("['010', 'null', '1.5', '']", ("010", "null", "1.5", "")),
        ("[I10, E11.9]", ("I10", "E11.9")),
        ("[é, 日本]", ("é", "日本")),
    ],
)
def test_categories_are_read_as_yaml_1_2(written: str, values: tuple[object, ...]) -> None:
    assert column(f"{{category: {written}}}").values == values


def test_long_lists_may_be_blocks() -> None:
    assert column("\n        category:\n          - F\n          - M").values == ("F", "M")


def test_the_route_to_the_unit() -> None:
    policy = read(CLINIC)
    assert unit_route(policy, "patients") == ()
    assert unit_route(policy, "visits") == (("patient_id", "patients", "patient_id"),)
    assert unit_route(policy, "labs") == (
        ("visit_id", "visits", "visit_id"), ("patient_id", "patients", "patient_id"),
    )


def test_a_direct_reference_beats_a_detour_whatever_the_order() -> None:
    direct = "      patient_id: {references: patients}\n"
    text = CLINIC.replace("      value: {real: [0, 500]}\n", "      value: text\n" + direct)
    assert unit_route(read(text), "labs") == (("patient_id", "patients", "patient_id"),)


def test_unit_path_says_which_patient_owns_a_row() -> None:
    births = """\
  births:
    unit_path: child_id
    columns:
      mother_id: {references: patients}
      child_id: {references: patients}
"""
    policy = read(CLINIC + births)
    assert unit_route(policy, "births") == (("child_id", "patients", "patient_id"),)


def test_references_may_circle_beside_the_route() -> None:
    earlier = "      visit_id: key\n      earlier_visit: {references: visits}\n"
    policy = read(CLINIC.replace("      visit_id: key\n", earlier))
    assert unit_route(policy, "visits") == (("patient_id", "patients", "patient_id"),)
    assert policy.reference("visits", "earlier_visit") == ("visits", "visit_id")


def test_references_may_name_a_column() -> None:
    policy = read(CLINIC.replace("{references: visits}", "{references: visits.visit_id}"))
    assert policy.reference("labs", "visit_id") == ("visits", "visit_id")
    assert policy.category_source("patients", "region") == ("regions", "region")


def test_comments_order_and_short_forms_do_not_change_the_hash() -> None:
    policy = read(CLINIC)
    same = (
        CLINIC.replace("budget: {epsilon: 3.0, delta: 1e-6}\n", "")
        .replace("[F, M]", "[M,   F]")
        .replace("# or postgresql://...", "# here")
        .replace("regions: public", "regions: {public: true}")
    ) + "budget:\n  delta: 0.0000010\n  epsilon: 3\n"
    assert read(same).policy_hash == policy.policy_hash
    assert len(policy.policy_hash) == 64


@pytest.mark.parametrize(
    ("before", "after", "shapes_the_snapshot"),
    [
        ("epsilon: 3.0", "epsilon: 3.5", False),
        ("ana: {epsilon: 1.0}", "ana: {epsilon: 1.1}", False),
        ("rows_per_unit: 20", "rows_per_unit: 21", False),
        ("cost: {real: [0, 20000]}", "cost: {real: [0, 20000], loose: true}", False),
        ("cost: {real: [0, 20000]}", "cost: {real: [0, 20000], step: 5}", False),
        ("cost: {real: [0, 20000]}", "cost: {real: [0, 20001]}", True),
        ("cost: {real: [0, 20000]}", "cost: {integer: [0, 20000]}", True),
        ("[F, M]", "[F, M, X]", True),
        ("max_rows_per_unit: 1000", "max_rows_per_unit: 1001", True),
        ("one_row_per_unit: true", "one_row_per_unit: false", True),
        ("diagnosis: text", "diagnosis: {text: true, not_null: true}", True),
        ("regions: public", "regions: {public: true, source: areas}", True),
    ],
)
def test_what_each_hash_covers(before: str, after: str, shapes_the_snapshot: bool) -> None:
    old, new = read(CLINIC), read(CLINIC.replace(before, after, 1))
    assert old.policy_hash != new.policy_hash
    assert (old.data_hash != new.data_hash) is shapes_the_snapshot


def test_a_policy_cannot_be_changed() -> None:
    policy = read(CLINIC)
    with pytest.raises(ValidationError):
        policy.budget.epsilon = Decimal(9)  # type: ignore[misc]
    with pytest.raises(TypeError):
        policy.tables["more"] = policy.tables["visits"]  # type: ignore[index]


def test_a_policy_built_in_python_is_checked_too() -> None:
    again = Policy.model_validate(read(CLINIC).model_dump(exclude_defaults=True))
    assert again.policy_hash == read(CLINIC).policy_hash
    with pytest.raises(ValidationError):
        ColumnPolicy(kind="integer", low=3, high=float("nan"))
    with pytest.raises(ValidationError):
        ColumnPolicy(kind="real", low=0.0, high=float("inf"))


def test_places_are_known_after_reading() -> None:
    place = read(CLINIC).place("tables", "labs", "columns", "value")
    assert place == ("clinic.yaml", 27, "tables.labs.columns.value")


def test_every_error_is_told_at_once_in_order_of_lines() -> None:
    text = CLINIC.replace("3.0", "-3").replace("[1900, 2026]", "[2026, 1900]").replace("key", "kye")
    with pytest.raises(PolicyError) as caught:
        read(text)
    assert str(caught.value).splitlines() == [
        "clinic.yaml:4: budget.epsilon: -3 is not positive; write a number above 0, such as 1.0",
        "clinic.yaml:14: tables.patients.columns.birth_year.integer: the lowest value 2026 is "
        "above the highest 1900; swap them",
        "clinic.yaml:19: tables.visits.columns.visit_id: 'kye' is no type; did you mean 'key'?",
    ]


def test_the_reference_pages_example_reads() -> None:
    page = Path(__file__).parents[2] / "docs" / "policy.md"
    example = page.read_text().partition("<!-- example -->\n```yaml\n")[2].partition("```")[0]
    policy = read(example)
    kinds = {c.kind for table in policy.tables.values() for c in table.columns.values()}
    page_kinds = {"unit", "key", "references", "category", "category_of", "boolean", "integer",
                  "real", "date", "timestamp", "text", "image"}
    assert kinds == page_kinds, "the example shows every type"
    assert unit_route(policy, "births") == (("child_id", "patients", "patient_id"),)


def test_the_reference_page_names_every_field() -> None:
    page = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
    models = (Policy, TablePolicy, Budget, Defaults)
    for name in {field for model in models for field in model.model_fields} - {"public"}:
        assert f"`{name}`" in page or f"{{{name}" in page or f", {name}}}" in page, name
