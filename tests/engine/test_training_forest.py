"""The forest: what a patient moves, that splits see no row, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from engine import Engine, Refused
from engine.execution import open_unpaid_rows
from engine.training import plan_training
from mechanisms.randomness import Randomness
from models import forest
from models.forest import GRID, ForestModel, ForestPlan, grown, leaf_counts, plan_forest
from models.model import Model
from models.run import Settings
from models.table import Table, gather
from tests.engine.replay import CHANGES
from tests.models.patients import encoding, table

FROM = "FROM visits JOIN patients USING (patient_id)"
VIEW = f"SELECT birth_year, sex, cost, visit_date, department, los, readmitted {FROM}"
FAST: dict[str, Any] = {"epsilon": 1.0, "delta": 1e-6, "units": 200, "model": "forest",
                        "trees": 5, "depth": 3}


def ordered(engine: Engine, label: str, rows: int) -> Any:
    request = engine._request(VIEW, label, "forest", 1.0, 1e-6, rows=rows, units=200,
                              dialect="duckdb", buckets={}, options={"trees": 5, "depth": 3})
    return plan_training(request, engine._site())


def rows_of(engine: Engine, label: str, rows: int) -> tuple[ForestPlan, Table]:
    order = ordered(engine, label, rows)
    reader = open_unpaid_rows(order.statement, engine._data.database, insecure_testing=True)
    return order.run, gather(reader.chunks(), order.run.encoding, rows)


def moved(clinics: dict[str, Engine], label: str, rows: int, change: str,
          count: Any = leaf_counts) -> tuple[int, int]:
    run, one = rows_of(clinics["base"], label, rows)
    _, two = rows_of(clinics[change], label, rows)
    splits = run.network.drawn(Randomness.seeded(4))
    away = (count(run, splits, one) - count(run, splits, two)).reshape(-1)
    return sum(int(x) ** 2 for x in away), run.distance**2


@pytest.mark.parametrize("label", ["readmitted", "department", "los"])
@pytest.mark.parametrize("rows", [1, 200])
def test_one_patient_moves_the_leaves_no_further_than_stated(
    clinics: dict[str, Engine], label: str, rows: int
) -> None:
    found = {change: moved(clinics, label, rows, change) for change in CHANGES}
    assert any(one for one, _ in found.values())
    assert all(one <= stated for one, stated in found.values()), found


def test_the_replay_would_notice_rows_that_count_whole(clinics: dict[str, Engine]) -> None:
    def spoiled(run: ForestPlan, splits: Any, rows: Table) -> Any:
        each = Table(rows.inputs, None, rows.targets, np.arange(len(rows.targets) + 1))
        return leaf_counts(run, splits, each)

    one, stated = moved(clinics, "readmitted", 200, "with a greedy patient", spoiled)
    assert one > stated


def test_the_distance_is_reached(clinics: dict[str, Engine]) -> None:
    run, _ = rows_of(clinics["base"], "readmitted", 5)
    row = Table(np.zeros((1, run.encoding.width), np.float32), None, np.zeros(1, np.float32),
                np.array([0, 1]))
    counts = leaf_counts(run, run.network.drawn(Randomness.seeded(1)), row).astype(float)
    assert run.distance - 1 <= np.linalg.norm(counts) <= run.distance
    assert np.linalg.norm(counts) == pytest.approx(GRID * 5**0.5)


def test_splits_are_coins_and_public_bounds(base: Engine) -> None:
    run = ordered(base, "readmitted", 5).run
    made = run.network
    splits = made.drawn(Randomness.seeded(2))
    count = made.trees * made.splits
    assert set(splits[:count]) <= set(range(run.encoding.width))
    assert (np.abs(splits[count : 2 * count]) <= 1).all()
    assert not splits[2 * count :].any()
    assert len(splits) == made.size


def test_every_cell_gets_noise_of_the_stated_scale(base: Engine) -> None:
    run = ordered(base, "readmitted", 5).run
    wide = replace(run, settings=replace(run.settings, trees=16, depth=8))
    empty = Table(np.zeros((0, run.encoding.width), np.float32), None, np.zeros(0, np.float32),
                  np.zeros(1, np.int64))
    asked: list[float] = []
    patch = pytest.MonkeyPatch()
    true = forest.noised_counts
    patch.setattr(forest, "noised_counts",
                  lambda n, s, r: asked.append(s / wide.distance) or true(n, s, r))
    made = grown(wide, wide.network.drawn(Randomness.seeded(1)), empty, Randomness.seeded(2))
    patch.undo()
    assert asked == [pytest.approx(run.multiplier)]
    leaves = made[2 * 16 * 255 :]
    assert len(np.unique(leaves)) > 2_000  # no empty leaf shows that it is empty


def test_it_learns_a_rule_of_two_inputs() -> None:
    made = encoding(3)
    rng = np.random.default_rng(0)
    given = table([1] * 6_000, 3)
    inputs = rng.uniform(-1, 1, (6_000, 3)).astype(np.float32)
    targets = (inputs[:, 0] * inputs[:, 1] > 0).astype(np.float32)
    learned = Table(inputs, None, targets, given.starts)
    run = plan_forest(made, Settings(holdout=0.0), 1, 6_000, Fraction(3), Fraction(1, 10**5),
                      Fraction(9))
    assert run.held_multiplier is None
    found = grown(run, run.network.drawn(Randomness.seeded(3)), learned, Randomness.seeded(4))
    right = (run.network.scores(found, inputs)[:, 0] > 0) == (targets > 0.5)
    assert right.mean() > 0.85  # a linear model has 0.5


@pytest.mark.parametrize("label", ["readmitted", "department", "los"])
def test_it_is_trained_saved_and_loaded(base: Engine, label: str, tmp_path: Any) -> None:
    assert "5 trees of depth 3" in str(base.explain_train(VIEW, label=label, **FAST))
    model = base.train(VIEW, label=label, **FAST)
    again = Model.load(model.save(tmp_path / "model"))
    row = {name: [None] for name in ("birth_year", "sex", "cost", "visit_date", "department",
                                     "los", "readmitted")}
    assert np.isfinite(model.predict(row)).all()
    assert np.array_equal(model.predict(row), again.predict(row))
    assert isinstance(again.network, ForestModel)
    with pytest.raises(Refused):
        base.publish(model, "woods")


@pytest.mark.parametrize(("change", "told"), [
    ({"steps": 3}, "no steps"), ({"trees": 0}, "trees"), ({"depth": 99}, "depth"),
    ({"model": "logistic"}, "no trees"), ({"delta": 0}, "delta"),
])
def test_what_it_cannot_be_is_refused(base: Engine, change: dict[str, Any], told: str) -> None:
    with pytest.raises(Refused, match=told):
        base.explain_train(VIEW, label="readmitted", **{**FAST, **change})
