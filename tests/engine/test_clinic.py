"""The synthetic clinic: repeatable, shaped like a real one, and dirty in every declared way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from engine.clinic import DEPARTMENTS, clinic_policy, write_clinic
from planner.policy import parse_policy


def ask(path: Path, sql: str) -> Any:
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clinic") / "clinic.duckdb"
    return write_clinic(path, 20_000, dirty=False, labs_per_patient=12.5)


def test_size_and_seed_fix_every_row(tmp_path: Path) -> None:
    tables = ("patients", "visits", "labs", "regions")
    read = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        path = write_clinic(tmp_path / name, 40, seed, labs_per_patient=3)
        read.append(repr([ask(path, f"SELECT * FROM {table}") for table in tables]))
    assert read[0] == read[1]
    assert read[0] != read[2]


def test_visits_and_costs_are_skewed_as_in_a_hospital(big: Path) -> None:
    (row,) = ask(big, "SELECT avg(n), max(n), avg(CAST(n > 20 AS INTEGER)) FROM (SELECT count("
                      "visit_id) AS n FROM patients LEFT JOIN visits USING (patient_id) "
                      "GROUP BY patient_id)")  # fmt: skip
    assert 8.8 < row[0] < 9.8
    assert 150 < row[1] <= 200
    assert 0.045 < row[2] < 0.075
    (row,) = ask(big, "SELECT median(cost), avg(cost), avg(CAST(cost > 5000 AS INTEGER)), "
                      "count(DISTINCT diagnosis), count(DISTINCT department) FROM visits")
    assert 540 < row[0] < 660
    assert 1150 < row[1] < 1420
    assert 0.038 < row[2] < 0.052
    assert row[3] > 480
    assert row[4] == len(DEPARTMENTS)


def test_lab_rows_have_a_heavy_tail(big: Path) -> None:
    ((median, high),) = ask(
        big, "SELECT median(n), quantile_cont(n, 0.99) FROM (SELECT count(*) AS n FROM labs JOIN "
             "visits USING (visit_id) GROUP BY patient_id)")  # fmt: skip
    assert 11 <= median <= 14
    assert 110 < high < 200


def test_there_is_something_to_learn(big: Path) -> None:
    ((oncology, dermatology),) = ask(
        big, "SELECT avg(cost) FILTER (WHERE department = 'oncology'), avg(cost) FILTER (WHERE "
             "department = 'dermatology') FROM visits")  # fmt: skip
    assert oncology > 2 * dermatology
    ((old, young),) = ask(
        big, "SELECT avg(CAST(readmitted AS INTEGER)) FILTER (WHERE birth_year < 1950), "
             "avg(CAST(readmitted AS INTEGER)) FILTER (WHERE birth_year > 1990) "
             "FROM visits JOIN patients USING (patient_id)")  # fmt: skip
    assert old > 1.3 * young


def test_a_clean_clinic_fits_its_policy_and_a_dirty_one_misses_it_everywhere(
    big: Path, tmp_path: Path
) -> None:
    dirty = write_clinic(tmp_path / "dirty.duckdb", 2000, labs_per_patient=5)
    faults = [
        "FROM patients WHERE patient_id IS NULL",
        "FROM (SELECT patient_id FROM patients GROUP BY 1 HAVING count(*) > 1)",
        "FROM patients WHERE birth_year NOT BETWEEN 1900 AND 2026",
        "FROM patients WHERE sex NOT IN ('F', 'M') OR sex IS NULL",
        "FROM patients WHERE region NOT IN (SELECT region FROM regions) OR region IS NULL",
        "FROM visits WHERE patient_id IS NULL",
        "FROM visits ANTI JOIN patients USING (patient_id) WHERE patient_id IS NOT NULL",
        "FROM (SELECT visit_id FROM visits GROUP BY 1 HAVING count(DISTINCT patient_id) > 1)",
        "FROM (SELECT visit_id FROM visits GROUP BY 1, patient_id HAVING count(*) > 1)",
        "FROM visits WHERE isnan(cost)",
        "FROM visits WHERE isinf(cost)",
        "FROM visits WHERE cost < 0",
        "FROM visits WHERE visit_date < DATE '2015-01-01'",
        "FROM visits WHERE visit_date > DATE '2026-12-31'",
        "FROM visits WHERE department = 'unknown'",
        "FROM visits WHERE diagnosis IS NULL",
        "FROM visits WHERE los NOT BETWEEN 0 AND 60",
        "FROM labs WHERE visit_id IS NULL",
        "FROM labs ANTI JOIN visits USING (visit_id) WHERE visit_id IS NOT NULL",
        "FROM labs WHERE test = 'unknown' OR isnan(value) OR value NOT BETWEEN 0 AND 500",
    ]
    for fault in faults:
        assert ask(big, f"SELECT count(*) {fault}") == [(0,)], fault
        assert ask(dirty, f"SELECT count(*) {fault}")[0][0] > 0, fault


def test_the_policy_is_valid_and_names_its_files(tmp_path: Path) -> None:
    text = clinic_policy(tmp_path / "clinic.duckdb", epsilon=2.0)
    policy = parse_policy(text, tmp_path, "clinic.yaml")
    assert policy.database_path() == tmp_path / "clinic.duckdb"
    assert policy.ledger_url() == tmp_path / "clinic.ledger.sqlite"
    assert policy.budget.epsilon == 2


def test_an_empty_clinic_is_possible_and_nonsense_is_refused(tmp_path: Path) -> None:
    path = write_clinic(tmp_path / "clinic.duckdb", 0)
    assert ask(path, "SELECT count(*) FROM visits") == [(0,)]
    with pytest.raises(ValueError, match="must not be negative"):
        write_clinic(tmp_path / "clinic.duckdb", -1)
