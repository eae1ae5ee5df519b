"""What a charge paid for can be read beside it, as it was explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Broken, Engine, api
from engine.clinic import clinic_policy, write_clinic


def test_the_plan_is_stored_beside_its_charge(tmp_path: Path) -> None:
    policy = _clinic(tmp_path)
    sql = "SELECT department, AVG(cost) AS mean FROM visits GROUP BY department"
    with Engine.open(policy) as engine:
        explained = engine.explain(sql, epsilon=0.5, bounds="declared")
        engine.query(sql, epsilon=0.5, bounds="declared")
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


def test_a_charge_whose_answer_failed_has_its_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = _clinic(tmp_path)
    with Engine.open(policy) as engine:
        monkeypatch.setattr(api, "fill", _fail)
        with pytest.raises(Broken):
            engine.query("SELECT COUNT(*) FROM visits", epsilon=0.5)
        stored = engine.plan_of(engine.history()[-1].seq)
        assert stored is not None
        assert stored["cost"]["epsilon"] == 0.5  # type: ignore[index]


def test_bounds_that_a_pilot_chose_are_stored_too(tmp_path: Path) -> None:
    policy = _clinic(tmp_path)
    with Engine.open(policy) as engine:
        result = engine.query("SELECT SUM(cost) FROM visits", epsilon=0.5, bounds="auto")
        stored = engine.plan_of(engine.history()[-1].seq)
        assert stored is not None
        assert stored["chosen"] == list(result.plan.chosen) != []


def _fail(*_: object) -> None:
    raise OSError("nothing is read today")


def _clinic(folder: Path) -> Path:
    database = write_clinic(folder / "clinic.duckdb", patients=50, labs_per_patient=0)
    policy = folder / "clinic.yaml"
    policy.write_text(clinic_policy(database))
    return policy
