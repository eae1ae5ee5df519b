"""A paid number of patients: charged as a question, kept, and harmless where it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Engine, OverBudget, Refused
from engine.clinic import clinic_policy
from engine.training_units import count_question
from mechanisms.event import from_json

SQL = "SELECT birth_year, sex, los, readmitted FROM visits JOIN patients USING (patient_id)"
PAID: dict[str, Any] = {"label": "readmitted", "epsilon": 1.0, "delta": 1e-6, "steps": 5,
                        "holdout": 0.0, "units": "paid"}


@pytest.fixture
def policy(base_path: Path, tmp_path: Path) -> Path:
    (tmp_path / "clinic.duckdb").write_bytes(base_path.read_bytes())
    (tmp_path / "clinic.yaml").write_text(
        clinic_policy(tmp_path / "clinic.duckdb", epsilon=2.4, delta=1e-5))
    return tmp_path / "clinic.yaml"


def test_a_paid_number_is_a_question_of_its_own(policy: Path) -> None:
    with Engine.open(policy) as engine:
        made = engine.train(SQL, **PAID)
        count, run = engine.history()
        assert count.sql == count_question(engine._policy)
        assert count.loss.epsilon == pytest.approx(0.05)
        assert run.loss == made.cost
        assert 0.94 < run.loss.epsilon <= 0.95
        assert engine.budget().spent.epsilon <= 1.0
        again = engine.train(SQL, resume=run.seq, **PAID)
        assert np.array_equal(again.parameters, made.parameters)
        assert len(engine.history()) == 2, "the count is kept: going on pays for nothing"
        engine.train(SQL, **PAID)
        assert len(engine.history()) == 3, "and so does not the next run"


def test_what_is_refused_is_refused_before_the_count(policy: Path) -> None:
    with Engine.open(policy) as engine:
        for wrong in ({"label": "nothing"}, {"model": "kmeans"}, {"clip": -1}, {"batch": 0}):
            with pytest.raises(Refused):
                engine.train(SQL, **{**PAID, **wrong})
        with pytest.raises(Refused, match="not known before it is paid"):
            engine.explain_train(SQL, **PAID)
        with pytest.raises(Refused, match="whole number"):
            engine.train(SQL, **{**PAID, "units": "many"})
        with pytest.raises(Refused, match="did not pay"):
            engine.train(SQL, resume=1, **PAID)
        assert not engine.history()
        with pytest.raises(OverBudget):
            engine.train(SQL, **{**PAID, "epsilon": 2.5})


@pytest.mark.parametrize("said", [-3.7, 0.0, 4_000.4])
def test_a_wrong_number_costs_no_privacy(
    policy: Path, said: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below zero, or far above: the price and how far one patient moves a sum stay."""
    from engine import training_units

    asked = training_units.with_paid_units
    monkeypatch.setattr(training_units, "with_paid_units", lambda request, site, *_: asked(
        request, site, lambda *__: said))
    with Engine.open(policy) as engine:
        made = engine.train(SQL, **PAID)
        (run,) = engine.history()
        assert run.loss.epsilon <= 0.95
        assert np.isfinite(made.parameters).all()
        (event,) = from_json(run.events_json)
        (((rate, multiplier, steps),),) = event.branches
        assert rate == 1
        assert multiplier > 1
        assert steps == 5
