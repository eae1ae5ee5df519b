"""What a charge paid for can be read beside it, as it was explained."""

from __future__ import annotations

from pathlib import Path

from engine import Engine
from engine.clinic import clinic_policy, write_clinic


def test_the_plan_is_stored_beside_its_charge(tmp_path: Path) -> None:
    database = write_clinic(tmp_path / "clinic.duckdb", patients=50, labs_per_patient=0)
    policy = tmp_path / "clinic.yaml"
    policy.write_text(clinic_policy(database))
    sql = "SELECT department, AVG(cost) AS mean FROM visits GROUP BY department"
    with Engine.open(policy) as engine:
        explained = engine.explain(sql, epsilon=0.5)
        engine.query(sql, epsilon=0.5)
        seq = engine.history()[-1].seq
        stored = engine.plan_of(seq)
        assert stored is not None
        releases = stored["releases"]
        assert isinstance(releases, list)
        assert [r["name"] for r in releases] == ["mean.sum", "mean.count"]
        assert [r["l1"] for r in releases] == [r.l1 for r in explained.releases]
        assert stored["cost"]["epsilon"] == 0.5  # type: ignore[index]
        assert engine.plan_of(seq + 1) is None
    with Engine.open(policy) as again:
        assert again.plan_of(seq) == stored
