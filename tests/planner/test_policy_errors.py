"""Faulty policies in; for each fault its line, its place, what is wrong and what is right."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.policy import PolicyError, parse_policy, read_policy

GOOD = """\
discreet: 1
database: clinic.duckdb
ledger: clinic.sqlite
budget: {epsilon: 3.0, delta: 1e-6}
defaults: {epsilon: 0.1, rows_per_unit: 20, max_rows_per_unit: 1000}
analysts: {ana: {epsilon: 1.0}}
unit: patients.patient_id
tables:
  patients:
    columns:
      patient_id: unit
      age: {integer: [0, 120]}
  visits:
    rows_per_unit: 10
    columns:
      patient_id: {references: patients}
      visit_id: key
      cost: {real: [0, 20000]}
      region: {category_of: regions.region}
  labs:
    columns:
      visit_id: {references: visits}
      value: {real: [0, 500]}
  regions: public
"""


def faults_of(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, Path(), "p.yaml")
    return str(caught.value).splitlines()


def only_fault(before: str, after: str) -> str:
    assert GOOD.count(before) >= 1, before
    faults = faults_of(GOOD.replace(before, after, 1))
    assert len(faults) == 1, faults
    return faults[0]


FIELDS = [
    # discreet, files
    ("discreet: 1", "discreet: 2", 1, "discreet", "no version that is known"),
    ("discreet: 1\n", "", 1, "discreet", "is missing; write 'discreet: 1'"),
    ("database: clinic.duckdb\n", "", 1, "database", "is missing; write 'database:"),
    ("clinic.duckdb", "postgresql://db/x", 2, "database", "is an address; name a DuckDB file"),
    ("clinic.duckdb", "", 2, "database", "an empty value is not text"),
    ("clinic.duckdb", "[a, b]", 2, "database", "a list is not text"),
    ("clinic.sqlite", "mysql://db/x", 3, "ledger", "neither a file nor postgresql://"),
    ("clinic.sqlite", "clinic.duckdb", 3, "ledger", "the same file"),
    ("clinic.sqlite", "clinic.sqlite\nwitness: clinic.sqlite", 4, "witness", "the same file"),
    ("clinic.sqlite", "clinic.sqlite\nwitness: s3://x", 4, "witness", "name a file"),
    ("discreet: 1", "discreet: 1\nlegder: x", 2, "legder", "did you mean 'ledger'?"),
    # budget and defaults
    ("budget: {epsilon: 3.0, delta: 1e-6}\n", "", 1, "budget", "is missing; write 'budget:"),
    ("budget: {epsilon: 3.0, delta: 1e-6}", "budget: 3", 4, "budget", "fields: epsilon, delta"),
    ("epsilon: 3.0", "epsilon: 0", 4, "budget.epsilon", "0 is not positive"),
    ("epsilon: 3.0", "epsilon: -1", 4, "budget.epsilon", "-1 is not positive"),
    ("epsilon: 3.0", "epsilon: .inf", 4, "budget.epsilon", "'.inf' is not a number"),
    ("epsilon: 3.0", "epsilon: .nan", 4, "budget.epsilon", "'.nan' is not a number"),
    ("epsilon: 3.0", "epsilon: NaN", 4, "budget.epsilon", "'NaN' is not a number"),
    ("epsilon: 3.0", "epsilon: 1_000", 4, "budget.epsilon", "'1_000' is not a number"),
    ("epsilon: 3.0", "epsilon: three", 4, "budget.epsilon", "write one such as 0.5 or 1e-6"),
    ("epsilon: 3.0", "epsilon: 1e9999", 4, "budget.epsilon", "is not a number"),
    ("epsilon: 3.0, ", "", 4, "budget.epsilon", "is missing; write 'epsilon: 1.0'"),
    ("epsilon: 3.0", "epsilon: 3.0, epsilno: 1", 4, "budget.epsilno", "did you mean 'epsilon'?"),
    ("delta: 1e-6", "delta: 1", 4, "budget.delta", "1 is not in [0, 1)"),
    ("delta: 1e-6", "delta: -1e-9", 4, "budget.delta", "is not in [0, 1)"),
    ("epsilon: 0.1", "epsilon: 3.1", 5, "defaults.epsilon", "more than the whole budget 3.0"),
    ("epsilon: 0.1", "epsilon: 0.1, delta: 1e-5", 5, "defaults.delta", "whole budget"),
    ("rows_per_unit: 20", "rows_per_unit: 0", 5, "defaults.rows_per_unit", "0 is out of range"),
    ("rows_per_unit: 20", "rows_per_unit: 2.5", 5, "defaults.rows_per_unit", "not a whole number"),
    ("rows_per_unit: 20", "rows_per_unit: 1001", 5, "defaults.rows_per_unit", "above max_rows_per"),
    ("    rows_per_unit: 10", "    rows_per_unit: 1001", 14, "tables.visits.rows_", "above max_"),
    ("    rows_per_unit: 10", "    rows_per_unit: true", 14, "tables.visits.rows_", "not a whole"),
    # analysts
    ("ana: {epsilon: 1.0}", "ana: 1.0", 6, "analysts.ana", "is not a mapping; write fields: epsi"),
    ("ana: {epsilon: 1.0}", "ana: {epsilon: 0}", 6, "analysts.ana.epsilon", "0 is not positive"),
    ("ana: {epsilon: 1.0}", "ana: {epsilon: 1, delta: 0}", 6, "analysts.ana.delta", "known: eps"),
    ("analysts: {ana: {epsilon: 1.0}}", "analysts: ana", 6, "analysts", "is not a mapping"),
    ("ana: {eps", "__ana: {eps", 6, "analysts.__ana", "begins with '__'"),
    ("ana: {epsilon: 1.0}", "ana: {epsilon: 1}, Ana: {epsilon: 1}", 6, "analysts.Ana",
     "SQL ignores case"),
]
UNITS = [
    ("unit: patients.patient_id\n", "", 1, "unit", "is missing; write 'unit: patients.patient_id'"),
    ("unit: patients.patient_id", "unit: patient.patient_id", 7, "unit",
     "'patient.patient_id' is not declared; write 'patients.patient_id'"),
    ("unit: patients.patient_id", "unit: patients", 7, "unit", "write 'patients.patient_id'"),
    ("unit: patients.patient_id", "unit: patients.patientid", 7, "unit", "write 'patients.pa"),
    ("patient_id: unit", "patient_id: key", 11, "tables.patients.columns.patient_id",
     "is key, but 'unit' names it"),
    ("visit_id: key", "visit_id: unit", 17, "tables.visits.columns.visit_id",
     "is a second unit column; write {references: patients}"),
]
TABLES = [
    ("regions: public", "regions: pubic", 24, "tables.regions", "'pubic' is no table; write 'pub"),
    ("regions: public", "regions:", 24, "tables.regions", "an empty value is not a mapping"),
    ("regions: public", "regions: {public: yes}", 24, "tables.regions.public", "true or false"),
    ("regions: public", "regions: {public: true, columns: {a: text}}", 24,
     "tables.regions.columns", "a public table has no such field"),
    ("regions: public", "regions: public\n  more: {columns: {a: text}}", 25, "tables.more",
     "is neither public nor linked to the patient"),
    ("regions: public", "regions: public\n  more: {rows_per_unit: 5}", 25, "tables.more",
     "has no columns"),
    ("    rows_per_unit: 10", "    rows_per_unti: 10", 14, "tables.visits.rows_per_unti",
     "did you mean 'rows_per_unit'?"),
    ("    rows_per_unit: 10", "    rows_per_unit: 10\n    one_row_per_unit: true", 14,
     "tables.visits.rows_per_unit", "contradicts one_row_per_unit"),
    ("  regions: public", "  __regions: public\n  regions: public", 24, "tables.__regions",
     "begins with '__'"),
    ("  regions: public", "  regions: public\n  Visits: public", 25, "tables.Visits",
     "is 'visits' again, since SQL ignores case"),
    ("  regions: public", "  regions: public\n  a.b: public", 25, "tables.a.b", "no usable name"),
    ("  regions: public", "  regions: public\n  'a\"b': public", 25, 'tables.a"b', "no usable"),
    ("  regions: public", "  regions: public\n  ' x': public", 25, "tables. x", "no usable name"),
    ("cost: {real", "Visit_ID: text\n      cost: {real", 18, "tables.visits.columns.Visit_ID",
     "is 'visit_id' again"),
    ("cost: {real", "__cost: {real", 18, "tables.visits.columns.__cost", "begins with '__'"),
    ("    rows_per_unit: 10", "    unit_path: visit_id", 14, "tables.visits.unit_path",
     "'visit_id' is no references column"),
    ("  patients:\n", "  patients:\n    unit_path: age\n", 10, "tables.patients.unit_path",
     "the unit's own table"),
]
REFERENCES = [
    ("{references: visits}", "{references: visit}", 22, "tables.labs.columns.visit_id.references",
     "no table 'visit' is declared; did you mean 'visits'?"),
    ("{references: visits}", "{references: regions}", 22,
     "tables.labs.columns.visit_id.references", "is public, so it leads to no patient"),
    ("{references: visits}", "{references: visits.visitid}", 22,
     "tables.labs.columns.visit_id.references", "did you mean 'visit_id'?"),
    ("{references: visits}", "{references: visits.cost}", 22,
     "tables.labs.columns.visit_id.references", "'visits.cost' is real; refer to a unit or key"),
    ("{references: visits}", "{references: visits.patient_id}", 22,
     "tables.labs.columns.visit_id.references", "is references; refer to a unit or key column"),
    ("visit_id: key", "visit_id: text", 22, "tables.labs.columns.visit_id.references",
     "'visits' has no key column"),
    ("visit_id: key", "visit_id: key\n      bill_id: key", 23,
     "tables.labs.columns.visit_id.references", "'visits' has 2 keys; write one, as in {ref"),
    ("value: {real: [0, 500]}", "value: {references: visits}", 20, "tables.labs",
     "'visit_id' and 'value' lead to the patient equally fast"),
    ("value: {real: [0, 500]}", "value: {references: visits}", 20, "tables.labs",
     "add the one that owns the row, as in 'unit_path: visit_id'"),
    ("{category_of: regions.region}", "{category_of: regions}", 19,
     "tables.visits.columns.region.category_of", "'regions' names no column"),
    ("{category_of: regions.region}", "{category_of: region.region}", 19,
     "tables.visits.columns.region.category_of", "did you mean 'regions'?"),
    ("{category_of: regions.region}", "{category_of: patients.age}", 19,
     "tables.visits.columns.region.category_of", "is not public, so its values are private"),
]
COLUMNS = [
    ("txet", "", "'txet' is no type; did you mean 'text'?"),
    ("integer", "", "'integer' needs more; write {integer: [0, 120]}"),
    ("image", "", "'image' needs more; write {image: [28, 28, 1]}"),
    ("", "", "an empty value is no column"),
    ("[a, b]", "", "a list is no column"),
    ("{not_null: true}", "", "has no type; write exactly one"),
    ("{integer: [0, 1], text: true}", "", "has 2 types (integer, text); write exactly one"),
    ("{intger: [0, 1]}", ".intger", "did you mean 'integer'?"),
    ("{integer: [0, 1], not_nul: true}", ".not_nul", "did you mean 'not_null'?"),
    ("{integer: [0, 1], low: 3}", ".low", "is no field here"),
    ("{kind: integer, integer: [0, 1]}", ".kind", "is no field here"),
    ("{integer: [0, 1], not_null: yes}", ".not_null", "write true or false"),
    ("{integer: 5}", ".integer", "needs its lowest and highest value"),
    ("{integer: [0]}", ".integer", "needs its lowest and highest value"),
    ("{integer: [0, 1, 2]}", ".integer", "needs its lowest and highest value"),
    ("{integer: [0, x]}", ".integer[1]", "'x' is not a whole number"),
    ("{integer: [0.5, 1]}", ".integer[0]", "'0.5' is not a whole number"),
    ("{integer: [0, 9007199254740993]}", ".integer[1]", "is beyond 2^53"),
    ("{integer: [0, .inf]}", ".integer[1]", "'.inf' is not a whole number"),
    ("{integer: [null, 1]}", ".integer[0]", "an empty value is not a whole number"),
    ("{real: [2, 1]}", ".real", "the lowest value 2.0 is above the highest 1.0; swap"),
    ("{real: [.nan, 1]}", ".real[0]", "'.nan' is not a number"),
    ("{real: [0, 1e999]}", ".real[1]", "is too large; write a finite number"),
    ("{date: [2015-01-01, 2026-02-30]}", ".date[1]", "is not in the calendar"),
    ("{date: [01.02.2015, 2026-02-03]}", ".date[0]", "is not a date; write one such as"),
    ("{date: [2026-01-01, 2015-01-01]}", ".date", "is above the highest"),
    ("{timestamp: [2015-01-01T00:00:00Z, 2026-01-01]}", ".timestamp[0]", "without a zone"),
    ("{timestamp: ['2015-01-01 25:00', 2026-01-01]}", ".timestamp[0]", "not in the calendar"),
    ("{category: []}", ".category", "has no values"),
    ("{category: F}", ".category", "needs a list of values"),
    ("{category: [F, F]}", ".category[1]", "'F' stands twice"),
    ("{category: [1, 01]}", ".category[1]", 'write "01" or 1'),
    ("{category: [1, F]}", ".category", "mixes whole numbers and words"),
    ("{category: [F, 0.5]}", ".category[1]", 'quote it ("0.5")'),
    ("{category: [F, null]}", ".category[1]", "an empty value is not a category"),
    ("{category: [F, 0x1F]}", ".category[1]", "is a number but not a plain whole one"),
    ("{category: [F, [M]]}", ".category[1]", "a list is not a category"),
    ("{category: [F, M], other: 0}", ".category", "mixes whole numbers and words"),
    ("{category: [F, M], loose: true}", ".loose", "integer and real columns only"),
    ("{category: [F, M], step: 1}", ".step", "integer and real columns only"),
    ("{category_of: [regions]}", ".category_of", "a list is not text"),
    ("{text: true, other: x}", ".other", "belongs to category and category_of only"),
    ("{text: true, shape: [2, 2]}", ".shape", "belongs to images only"),
    ("{text: false}", ".text", "takes no value but true"),
    ("{text: [0, 1]}", ".text", "takes no value but true"),
    ("{real: [0, 1], step: 0}", ".step", "0 is not positive"),
    ("{real: [0, 1], step: -1}", ".step", "-1 is not positive"),
    ("{real: [0, 1], step: x}", ".step", "'x' is not a number"),
    ("{integer: [0, 1], step: 0.5}", ".step", "is not whole"),
    ("{image: true}", ".image", "needs shape"),
    ("{image: [28]}", ".image", "two or three"),
    ("{image: [0, 28]}", ".image", "has sides from 1"),
    ("{image: [a, 28]}", ".image", "'a' is not a whole number"),
]
YAML = [
    ("", 1, "is empty"),
    ("# nothing\n", 1, "is empty"),
    ("hello", 1, "holds no fields"),
    ("- a\n- b\n", 1, "holds no fields"),
    ("a: [1, 2\nb: 3\n", 2, "is not YAML"),
    ("a: 1\n\tb: 2\n", 2, "is not YAML"),
    ("a: 1\n  b: 2\n", 2, "is not YAML"),
    ("a: \x00", 1, "cannot be read"),
    ("a: &x 1\nb: *x\n", 1, "anchors and aliases are not read"),
    ("a: 1\nb: *x\n", 2, "anchors and aliases are not read"),
    ("a: 1\n<<: {b: 1}\n", 2, "merge keys are not read"),
    ("a: 1\nb: !!python/object:os.system {}\n", 2, "is not read"),
    ("a: 1\n? [x, y]\n: 2\n", 2, "a name is a word"),
    ("a: 1\n---\nb: 2\n", 2, "a second document begins"),
    ("a: " + "[" * 50 + "]" * 50, 1, "nests deeper than"),
    ("a: " + "x" * 1_000_001, 1, "at most 1000000"),
]


@pytest.mark.parametrize(
    ("before", "after", "line", "path", "said"), FIELDS + UNITS + TABLES + REFERENCES
)
def test_each_fault_has_its_line_and_remedy(
    before: str, after: str, line: int, path: str, said: str
) -> None:
    fault = only_fault(before, after)
    assert fault.startswith(f"p.yaml:{line}: {path}")
    assert said in fault


@pytest.mark.parametrize(("declaration", "below", "said"), COLUMNS)
def test_each_fault_of_a_column(declaration: str, below: str, said: str) -> None:
    fault = only_fault("{integer: [0, 120]}", declaration)
    assert fault.startswith(f"p.yaml:12: tables.patients.columns.age{below}: ")
    assert said in fault


@pytest.mark.parametrize(("text", "line", "said"), YAML)
def test_what_is_no_policy_text(text: str, line: int, said: str) -> None:
    (fault,) = faults_of(text)
    assert fault.startswith(f"p.yaml:{line}: ")
    assert said in fault


def test_a_repeated_name_has_both_lines() -> None:
    twice = GOOD.replace("      visit_id: key\n", "      visit_id: key\n      visit_id: text\n")
    (fault,) = faults_of(twice)
    assert fault == (
        "p.yaml:18: tables.visits.columns.visit_id: stands twice (first on line 17); remove one "
        "of the two"
    )


def test_faults_within_one_column_are_all_told() -> None:
    faults = faults_of(GOOD.replace(
        "{integer: [0, 120]}", "\n        integer: [a, b]\n        loos: true\n        step: x"
    ))
    assert [fault.partition(": ")[0] for fault in faults] == [
        "p.yaml:13", "p.yaml:13", "p.yaml:14", "p.yaml:15",
    ]


def test_references_in_a_circle_reach_nobody() -> None:
    circle = GOOD + """\
  a:
    columns: {a_id: key, b_id: {references: b}}
  b:
    columns: {b_id: key, a_id: {references: a}}
"""
    faults = faults_of(circle)
    assert [fault.partition(": ")[0] for fault in faults] == ["p.yaml:25", "p.yaml:27"]
    assert "its references (b) never reach 'patients.patient_id'" in faults[0]


def test_two_references_to_patients_ask_for_the_owner() -> None:
    births = GOOD + """\
  births:
    columns:
      mother_id: {references: patients}
      child_id: {references: patients}
"""
    (fault,) = faults_of(births)
    assert fault.startswith("p.yaml:25: tables.births: 'mother_id' and 'child_id' lead to the pat")


def test_what_is_still_to_be_written_is_told_once_each() -> None:
    undone = (
        GOOD.replace("[0, 120]", "TODO").replace("regions: public", "regions: TODO")
        .replace("[0, 500]", "[0, TODO]").replace("unit: patients.patient_id", "unit: TODO")
    )
    faults = faults_of(undone)
    assert [fault.split(": ")[:2] for fault in faults] == [
        ["p.yaml:7", "unit"],
        ["p.yaml:12", "tables.patients.columns.age.integer"],
        ["p.yaml:23", "tables.labs.columns.value.real[1]"],
        ["p.yaml:24", "tables.regions"],
    ]
    assert all("is still TODO; write" in fault for fault in faults)


def test_a_quoted_todo_is_a_word() -> None:
    parse_policy(GOOD.replace("{integer: [0, 120]}", "{category: ['TODO', done]}"), Path(), "p")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        read_policy(tmp_path / "none.yaml")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: é".encode("latin-1"))
    with pytest.raises(PolicyError, match="is not UTF-8"):
        read_policy(latin)


@given(
    st.integers(0, len(GOOD)), st.integers(0, 40),
    st.text("[]{}:,-#&*!|>'\" \n\t0aT~.é", max_size=6),
)
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_policy_or_a_policy_error(start: int, length: int, put: str) -> None:
    with contextlib.suppress(PolicyError):
        parse_policy(GOOD[:start] + put + GOOD[start + length:], Path(), "p.yaml")
