"""Whatever is counted in a run gets noise of a fine grid, in every family and beside it."""

from __future__ import annotations

from typing import Any

import pytest

from engine import Engine
from mechanisms import gaussian
from mechanisms.randomness import Randomness

VIEW = ("SELECT birth_year, sex, department, cost, readmitted FROM visits "
        "JOIN patients USING (patient_id)")
HOW: dict[str, Any] = {"label": "readmitted", "epsilon": 2.0, "delta": 1e-6, "units": 200,
                       "holdout": 0.3}
RUNS = {
    "logistic": {"steps": 5, "class_weights": True, "importance": 0.2},
    "logistic by information": {"steps": 5, "importance": 0.2, "importance_by": "information"},
    "naive_bayes": {}, "forest": {},
}


@pytest.fixture
def sigmas(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    drawn: list[float] = []
    true = gaussian.sample

    def watched(sigma: float, size: int, randomness: Randomness) -> object:
        drawn.append(sigma)
        return true(sigma, size, randomness)

    monkeypatch.setattr(gaussian, "sample", watched)
    return drawn


@pytest.mark.parametrize("name", RUNS)
def test_every_draw_of_a_run_is_on_a_fine_grid(
    name: str, base: Engine, sigmas: list[float]
) -> None:
    base.train(VIEW, model=name.split(" ")[0], **HOW, **RUNS[name])
    assert len(sigmas) > 1
    assert min(sigmas) >= 2.0**33


def test_sums_of_one_statement_and_metrics_are_on_a_fine_grid(
    base: Engine, sigmas: list[float]
) -> None:
    view = VIEW.replace("readmitted FROM", "los FROM")
    model = base.train(view, model="linear", solver="statistics", **{**HOW, "label": "los"})
    base.evaluate(model, view, epsilon=1.0, delta=1e-6)
    assert len(sigmas) >= 3
    assert min(sigmas) >= 2.0**33


def test_a_table_by_information_is_on_a_fine_grid(base: Engine, sigmas: list[float]) -> None:
    base.release_table(VIEW, label="readmitted", epsilon=8.0, delta=1e-6, units=200, form="rows",
                       importance=0.5, importance_by="information")
    assert sigmas
    assert min(sigmas) >= 2.0**33
