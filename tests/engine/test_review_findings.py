"""What independent reviews found, each as the query that showed it."""

from __future__ import annotations

import math
from pathlib import Path

import duckdb
import pytest

from engine import Engine, Refused
from engine.clinic import clinic_policy, write_clinic


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("findings")
    write_clinic(folder / "clinic.duckdb", patients=60, seed=3, dirty=False, labs_per_patient=0)
    (folder / "clinic.yaml").write_text(clinic_policy(folder / "clinic.duckdb"))
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return Engine.open(folder / "clinic.yaml", insecure_testing=True, seed=7)


def test_a_constant_on_the_optional_side_is_not_per_patient(engine: Engine) -> None:
    # Some of a patient's visits match and others do not: he is in two groups.
    plan = engine.explain(
        "SELECT t.one, COUNT(DISTINCT v.patient_id) AS n FROM visits AS v LEFT JOIN "
        "(SELECT patient_id, 1 AS one FROM patients) AS t "
        "ON v.patient_id = t.patient_id AND v.los > 5 GROUP BY t.one", epsilon=0.5,
    )
    assert plan.releases[0].l1 >= 2


def test_equal_zeros_are_shown_as_one(engine: Engine) -> None:
    # Which of 0.0 and -0.0 the database met first would be one patient's bit.
    for sql in (
        "SELECT (5000 - cost) * 0.0 AS k, COUNT(*) AS n FROM visits GROUP BY 1",
        "SELECT CAST((5000 - cost) * 0.0 AS VARCHAR) AS k, COUNT(*) AS n FROM visits GROUP BY 1",
    ):
        for key, _ in engine.query(sql, epsilon=1, rows=1, noiseless=True).rows:
            assert key is None or key in ("0.0", "0") or math.copysign(1, float(key)) == 1


def test_joins_that_explode_for_one_patient_are_refused(engine: Engine) -> None:
    joins = " ".join(f"JOIN visits AS v{i} USING (patient_id)" for i in range(1, 5))
    with pytest.raises(Refused) as caught:
        engine.explain(f"SELECT COUNT(*) FROM visits AS v0 {joins}", epsilon=1)
    assert caught.value.rule == "too-large"


def test_a_repeated_key_does_not_multiply_a_patients_rows(tmp_path: Path) -> None:
    database = write_clinic(tmp_path / "clinic.duckdb", patients=20, seed=3, dirty=False,
                            labs_per_patient=3)
    with duckdb.connect(str(database)) as connection:
        before = connection.execute(
            "SELECT COUNT(*) FROM labs JOIN visits USING (visit_id)"
        ).fetchone()
        connection.execute("INSERT INTO visits SELECT * FROM visits")
    (tmp_path / "clinic.yaml").write_text(clinic_policy(database))
    engine = Engine.open(tmp_path / "clinic.yaml", insecure_testing=True, seed=7)
    sql = "SELECT COUNT(*) AS n FROM labs JOIN visits USING (visit_id) JOIN patients AS p " \
          "ON visits.patient_id = p.patient_id"
    assert engine.query(sql, epsilon=1, rows=2000, noiseless=True).rows == [before]
    # Without bounds it is plain SQL.
    assert engine.query(sql, epsilon=math.inf).rows[0][0] > before[0]  # type: ignore[index]


def test_windows_over_a_union_and_given_keys_are_answered(engine: Engine) -> None:
    for sql in (
        "SELECT COUNT(*) FROM (SELECT ROW_NUMBER() OVER (PARTITION BY patient_id ORDER BY d) AS n "
        "FROM (SELECT patient_id, visit_date AS d FROM visits UNION ALL SELECT patient_id, "
        "visit_date FROM visits) AS u) AS t WHERE n > 2",
        "SELECT (SELECT COUNT(*) FROM visits) AS visits, COUNT(*) AS n FROM patients GROUP BY 1",
    ):
        assert engine.query(sql, epsilon=5, delta=1e-6).columns


def test_a_refresh_during_a_question_changes_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The plan was priced for one version of the data; it must not run on another.
    database = write_clinic(tmp_path / "clinic.duckdb", patients=30, seed=3, dirty=False,
                            labs_per_patient=0)
    (tmp_path / "clinic.yaml").write_text(clinic_policy(database))
    engine = Engine.open(tmp_path / "clinic.yaml")
    before = engine._data.snapshot.data_version
    charge = Engine._charge

    def refreshed(self: Engine, *arguments: object) -> object:
        with duckdb.connect(str(database)) as connection:
            for _ in range(50):
                connection.execute("INSERT INTO regions SELECT DISTINCT * FROM regions")
        self.refresh()
        return charge(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "_charge", refreshed)
    sql = ("SELECT COUNT(*) AS n FROM patients AS p JOIN regions AS r ON p.region = r.region")
    result = engine.query(sql, epsilon=1)
    assert engine._data.snapshot.data_version != before
    assert engine.history()[-1].data_version == before
    assert abs(int(str(result.rows[0][0])) - 30) < 30  # not fifty times as many


def test_the_steward_report_is_not_for_analysts(folder: Path) -> None:
    asked = Engine.open(folder / "clinic.yaml", insecure_testing=True, seed=7, analyst="ana")
    with pytest.raises(Refused):
        _ = asked.report
