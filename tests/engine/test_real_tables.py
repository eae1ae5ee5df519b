"""Real and realistic patient tables: true answers where nothing is bounded, useful ones with noise.

The tables are not part of the project. They are looked for beside it, and each test is skipped by
name where they are missing.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from engine import Engine
from engine.drafting import draft_policy

TABLES = Path(__file__).parents[3] / "shared" / "data"


def _folder(name: str) -> Path:
    folder = TABLES / name
    if not folder.is_dir():
        pytest.skip(f"the tables of {name} are not beside the project")
    return folder


@pytest.fixture(scope="module")
def omop(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """1,130 synthetic patients in the OMOP model, under the policy that `init` drafts."""
    folder = tmp_path_factory.mktemp("omop")
    text = draft_policy(_folder("omop1k"))
    lines = [
        f"database: {TABLES / 'omop1k'}" if line.startswith("database:") else line
        for line in text.splitlines()
    ]
    (folder / "omop.yaml").write_text("\n".join(lines))
    return Engine.open(folder / "omop.yaml", insecure_testing=True, seed=7)


OMOP_TRUTH = [
    ("SELECT COUNT(*) FROM person", [(1130,)]),
    ("SELECT gender_concept_id AS g, COUNT(*) FROM person GROUP BY 1 HAVING COUNT(*) > 0 "
     "ORDER BY 1", [(8507, 572), (8532, 558)]),
    ("SELECT COUNT(*), COUNT(DISTINCT person_id) FROM measurement", [(199514, 1120)]),
    ("SELECT COUNT(*) FROM death JOIN person USING (person_id) WHERE gender_concept_id = 8532",
     [(70,)]),
    ("SELECT COUNT(DISTINCT v.person_id) FROM visit_occurrence AS v JOIN procedure_occurrence AS x "
     "ON x.visit_occurrence_id = v.visit_occurrence_id WHERE v.visit_concept_id = 9201", [(117,)]),
    ("SELECT c.concept_name, COUNT(DISTINCT o.person_id) AS persons FROM condition_occurrence AS o "
     "JOIN concept AS c ON c.concept_id = o.condition_concept_id WHERE o.condition_concept_id <> 0 "
     "GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 3",
     [("Viral sinusitis", 711), ("Acute viral pharyngitis", 488), ("Acute bronchitis", 442)]),
]


@pytest.mark.parametrize(("sql", "truth"), OMOP_TRUTH)
def test_omop_answers_are_true_without_bounds(
    omop: Engine, sql: str, truth: list[tuple[object, ...]]
) -> None:
    rows_max = 1000
    found = omop.query(sql, epsilon=math.inf).rows
    if "measurement" in sql:  # 21 persons have more rows than the policy's ceiling
        assert found[0][1] == truth[0][1]
        assert truth[0][0] * 0.9 < found[0][0] <= truth[0][0]  # type: ignore[operator]
        assert rows_max == 1000
    else:
        assert found == truth


def test_omop_answers_are_useful_with_noise(omop: Engine) -> None:
    result = omop.query("SELECT gender_concept_id, COUNT(*) AS n FROM person GROUP BY 1", epsilon=1)
    counts = {row[0]: row[1] for row in result.rows}
    # Laplace noise of scale 1: beyond 20 with probability below 1e-8.
    assert abs(counts[8507] - 572) < 20
    assert abs(counts[8532] - 558) < 20


DIABETES = """\
discreet: 1
database: {folder}
ledger: diabetes.ledger.sqlite
budget: {{epsilon: 3.0, delta: 1e-6}}
defaults: {{rows_per_unit: 10, max_rows_per_unit: 40}}
unit: patients.patient_nbr
tables:
  patients:
    source: encounters
    one_row_per_unit: true
    columns:
      patient_nbr: unit
  encounters:
    columns:
      patient_nbr: {{references: patients}}
      gender: {{category: [Female, Male]}}
      age: {{category: ["[0-10)", "[10-20)", "[20-30)", "[30-40)", "[40-50)", "[50-60)",
                        "[60-70)", "[70-80)", "[80-90)", "[90-100)"]}}
      time_in_hospital: {{integer: [1, 14]}}
      num_medications: {{integer: [0, 100]}}
      A1Cresult: {{category: ["None", Norm, ">7", ">8"]}}
      readmitted: {{category: ["NO", "<30", ">30"]}}
"""


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Ten years of real encounters of diabetic patients; two tables read from one file."""
    folder = tmp_path_factory.mktemp("diabetes")
    (folder / "diabetes.yaml").write_text(DIABETES.format(folder=_folder("diabetes130")))
    return Engine.open(folder / "diabetes.yaml", insecure_testing=True, seed=7)


def test_encounters_answer_as_published(diabetes: Engine) -> None:
    def truth(sql: str) -> list[tuple[object, ...]]:
        return diabetes.query(sql, epsilon=math.inf).rows

    assert truth("SELECT COUNT(*), COUNT(DISTINCT patient_nbr) FROM encounters") == [
        (101766, 71518)
    ]
    assert truth("SELECT readmitted, COUNT(*) FROM encounters GROUP BY 1 HAVING COUNT(*) > 0 "
                 "ORDER BY 1") == [("<30", 11357), (">30", 35545), ("NO", 54864)]
    (mean, days), = truth("SELECT AVG(time_in_hospital), SUM(time_in_hospital) FROM encounters")
    assert (round(float(mean), 5), days) == (4.39599, 447362)  # type: ignore[arg-type]
    assert truth("SELECT SUM(LEAST(num_medications, 50)) FROM encounters") == [(1627434,)]
    assert truth("SELECT SUM(LEAST(k, 3)) FROM (SELECT patient_nbr, COUNT(*) AS k FROM encounters "
                 "GROUP BY 1) AS t") == [(94630,)]


def test_rows_of_a_patient_are_bounded_as_counted_by_hand(diabetes: Engine) -> None:
    # What 1, 3 or 10 rows of each patient leave is known from plain SQL on the raw table.
    for rows, kept in ((1, 71518), (3, 94630), (10, 101299)):
        result = diabetes.query("SELECT COUNT(*) AS n FROM encounters", epsilon=1, rows=rows,
                                noiseless=True)
        assert result.rows == [(kept,)]


def test_encounters_with_noise_are_close(diabetes: Engine) -> None:
    result = diabetes.query(
        "SELECT A1Cresult, COUNT(*) AS n FROM encounters WHERE A1Cresult IS NOT NULL GROUP BY 1",
        epsilon=1,
    )
    counts = dict(result.rows)
    assert counts["None"] == pytest.approx(84748, rel=0.02)
    assert counts[">8"] == pytest.approx(8216, rel=0.05)
