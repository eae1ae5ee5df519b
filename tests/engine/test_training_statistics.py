"""Models of one noisy vector: what a patient moves, what is fitted, and what it is worth."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine import Engine, Refused
from engine.training import plan_training
from engine.training_statistics import fit_statistics
from mechanisms.randomness import Randomness
from models.bayes import BayesModel, bayes, number_places
from models.statistics import StatisticsPlan, fitted, released
from models.table import gather
from planner.sufficient import ROUNDING, coin, products_statement
from tests.engine.replay import CHANGES
from tests.models.patients import encoding

FROM = "FROM visits JOIN patients USING (patient_id)"
LINEAR = f"SELECT birth_year, sex, cost, department, readmitted, visit_date, los {FROM}"
BAYES = f"SELECT birth_year, sex, cost, los, visit_date, los > 3 AS long, readmitted {FROM}"
CLASSES = f"SELECT birth_year, sex, cost, diagnosis, department {FROM}"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": (LINEAR, {"label": "los", "model": "linear", "solver": "statistics"}),
    "bayes": (BAYES, {"label": "readmitted", "model": "naive_bayes"}),
    "classes": (CLASSES, {"label": "department", "model": "naive_bayes",
                          "buckets": {"diagnosis": 4}}),
}
FAST: dict[str, Any] = {"epsilon": 1.0, "delta": 1e-6, "units": 200}


def ordered(engine: Engine, name: str, rows: int | None = None) -> Any:
    sql, how = CASES[name]
    named = {key: value for key, value in how.items() if key in ("label", "model", "buckets")}
    options = {key: value for key, value in how.items() if key not in named}
    request = engine._request(sql, named["label"], named["model"], 1.0, 1e-6, rows=rows, units=200,
                              dialect="duckdb", buckets=named.get("buckets", {}), options=options)
    return plan_training(request, engine._site())


def sums_of(engine: Engine, statement: str) -> list[int]:
    (row,) = engine._data.database.execute(statement).fetchall()
    return [int(value) for value in row]


@pytest.fixture
def noiseless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mechanisms.gaussian.sample",
                        lambda sigma, n, randomness: np.zeros(n, dtype=np.int64))


# ---- what a patient moves --------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rows", [None, 1, 200])
def test_one_patient_moves_the_sums_no_further_than_stated(
    clinics: dict[str, Engine], name: str, rows: int | None
) -> None:
    """In whole numbers and without tolerance, over every neighbour of the clinic."""
    order = ordered(clinics["base"], name, rows)
    base = sums_of(clinics["base"], order.statement)
    assert any(base)
    for change in CHANGES:
        moved = [a - b for a, b in zip(base, sums_of(clinics[change], order.statement),
                                       strict=True)]
        assert sum(m * m for m in moved) <= order.run.distance**2, change


@pytest.mark.parametrize("name", ["linear", "bayes"])
def test_the_replay_would_notice_a_patient_who_is_not_averaged(
    clinics: dict[str, Engine], name: str
) -> None:
    order = ordered(clinics["base"], name, 200)
    spoiled = order.statement.replace("e0 / n", "e0 / 1")
    assert spoiled != order.statement
    base = sums_of(clinics["base"], spoiled)
    moved = [a - b for a, b in zip(base, sums_of(clinics["with a greedy patient"], spoiled),
                                   strict=True)]
    assert sum(m * m for m in moved) > order.run.distance**2


@pytest.mark.parametrize("name", CASES)
def test_the_stated_distance_is_that_of_the_worst_row(
    clinics: dict[str, Engine], name: str
) -> None:
    """By numbers of our own: random rows with all inputs at their ends."""
    run = ordered(clinics["base"], name).run
    products, rng = run.products, np.random.default_rng(3)
    worst = 0.0
    for _ in range(300):
        z = encoded_row(run, rng)
        if products.clip is not None:
            z = z * math.sqrt(min(1.0, products.clip / float(z @ z)))
        vector = np.array([z[i] * z[j] for i, j in products.pairs])
        worst = max(worst, float(vector @ vector))
    assert worst <= products.reach * (1 + 1e-12)
    assert worst > 0.5 * products.reach
    assert run.distance >= products.grid * math.sqrt(products.reach) * (1 + ROUNDING)
    assert run.distance < products.grid * math.sqrt(products.reach) * 1.001


def encoded_row(run: StatisticsPlan, rng: np.random.Generator) -> Any:
    """A row that policies allow: one value for each category, a number or its absence."""
    inputs = []
    for block, feature in enumerate(run.encoding.features):
        width = run.encoding.blocks.count(block)
        row = np.zeros(width)
        if feature.values or feature.buckets:
            row[rng.integers(width)] = 1
        elif width == 2 and rng.random() < 0.2:
            row[1] = 1
        else:
            row[0] = rng.choice([-1, 1])
        inputs.append(row)
    x = np.concatenate(inputs)
    if run.family == "linear":
        return np.concatenate([x, [1, rng.choice([-1, 1])]])
    classes = np.zeros(len(run.encoding.classes))
    classes[rng.integers(len(classes))] = 1
    return np.concatenate([x, x[number_places(run.encoding)] ** 2, [1], classes])


def test_noise_has_the_stated_scale(base: Engine) -> None:
    run = ordered(base, "bayes").run
    many = replace(run, products=replace(run.products, pairs=((0, 0),) * 20_000))
    drawn = released(many, np.zeros(20_000, dtype=np.int64), Randomness.seeded(1))
    ratio = np.std(drawn * run.products.grid) / (run.multiplier * run.distance)
    assert 0.97 < ratio < 1.03
    with pytest.raises(ValueError, match="not those of the plan"):
        released(run, np.zeros(3, dtype=np.int64), Randomness.seeded(1))


def test_coins_split_the_patients_and_no_patient(base: Engine) -> None:
    key = bytes(range(32))
    database = base._data.database
    counted = {
        held: database.execute(
            f"SELECT COUNT(*) FROM range(20000) AS t(u) WHERE {coin(key, 0.2, held)}"
        ).fetchone()[0] for held in (True, False)
    }
    assert counted[True] + counted[False] == 20_000
    assert 3_700 < counted[True] < 4_300
    other = database.execute(
        f"SELECT COUNT(*) FROM range(20000) AS t(u) WHERE {coin(key, 0.2, True)} AND "
        f"{coin(bytes(32), 0.2, True)}").fetchone()[0]
    assert 600 < other < 1_000


def test_sums_of_the_two_branches_are_those_of_all(base: Engine) -> None:
    order = ordered(base, "linear")
    key = bytes(32)
    parts = [sums_of(base, products_statement(order.view, order.run.products, coin(key, 0.3, h)))
             for h in (True, False)]
    assert [a + b for a, b in zip(*parts, strict=True)] == sums_of(base, order.statement)


def test_what_is_held_out_is_not_learned_from(base: Engine, noiseless: None) -> None:
    from engine.execution import open_unpaid_rows

    order = ordered(base, "bayes")
    reader = open_unpaid_rows(order.statement, base._data.database, insecure_testing=True)
    key = bytes(32)
    _, metrics = fit_statistics(order.view, order.run, reader, key)
    (held,) = base._data.database.execute(
        f"SELECT COUNT(DISTINCT u) FROM ({order.view.statement}) AS v "
        f"WHERE {coin(key, 0.2, True)}").fetchone()
    assert metrics is not None
    assert np.array(metrics.counts).sum() == held


# ---- what is fitted --------------------------------------------------------------------------


def exact_rows(engine: Engine, order: Any) -> Any:
    from engine.execution import open_unpaid_rows

    reader = open_unpaid_rows(order.view.statement, engine._data.database, insecure_testing=True)
    table = gather(reader.chunks(), order.run.encoding, order.view.rows)
    sizes = np.diff(table.starts)
    return table.inputs.astype(float), table.targets.astype(float), 1 / np.repeat(sizes, sizes)


def test_without_noise_it_is_weighted_least_squares(base: Engine) -> None:
    order = ordered(base, "linear")
    quiet = replace(order.run, multiplier=1e-9)
    sums = np.array(sums_of(base, order.statement)) / order.run.products.grid
    found = fitted(quiet, sums)
    x, y, weights = exact_rows(base, order)
    z = np.column_stack([x, np.ones(len(x)), y])
    weights = weights * np.minimum(1, order.run.products.clip / (z * z).sum(axis=1))
    root = np.sqrt(weights)[:, None]
    expected, *_ = np.linalg.lstsq(z[:, :-1] * root, z[:, -1] * root[:, 0], rcond=None)
    # Compare what is predicted: categories and the intercept say the same thing twice.
    assert np.allclose(z[:, :-1] @ found, z[:, :-1] @ expected, atol=2e-3)


def test_without_noise_naive_bayes_has_the_classes_own_moments(base: Engine) -> None:
    order = ordered(base, "bayes")
    run = order.run
    sums = np.array(sums_of(base, order.statement)) / run.products.grid
    x, y, weights = exact_rows(base, order)
    columns = np.column_stack([x, x[:, number_places(run.encoding)] ** 2, np.ones(len(x))])
    expected = [weights[y == c] @ columns[y == c] for c in (0, 1)]
    assert np.allclose(sums.reshape(2, -1), expected, atol=1e-3)


def test_naive_bayes_is_the_textbook_formula() -> None:
    found = encoding(2)
    rng = np.random.default_rng(5)
    y = rng.integers(0, 2, 4_000)
    x = np.clip(rng.normal(0.2 * (2 * y[:, None] - 1), [0.3, 0.2], (4_000, 2)), -1, 1)
    table = np.array([[*x[y == c].sum(0), *(x[y == c] ** 2).sum(0), (y == c).sum()]
                      for c in (0, 1)])
    scores = BayesModel(found).scores(bayes(found, [0, 1], table, 1e-9), x)[:, 0]

    def density(c: int) -> Any:
        mean, deviation = x[y == c].mean(0), x[y == c].std(0)
        return (-0.5 * ((x - mean) / deviation) ** 2 - np.log(deviation)).sum(1)

    expected = density(1) - density(0) + math.log((y == 1).sum() / (y == 0).sum())
    assert np.allclose(scores, expected, atol=0.02)


def test_noise_that_drowns_a_class_leaves_what_holds_for_all() -> None:
    found = encoding(1)
    table = np.array([[300.0, 150.0, 1000.0], [9.0, -4.0, 2.0]])
    weights = bayes(found, [0], table, 1e6)
    scores = BayesModel(found).scores(weights, np.array([[-1.0], [0.0], [1.0]]))[:, 0]
    assert np.ptp(scores) < 0.1


# ---- end to end ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_it_is_planned_and_trained(base: Engine, name: str) -> None:
    sql, how = CASES[name]
    plan = base.explain_train(sql, **FAST, **how)
    assert 0.9 < plan.cost.epsilon <= 1
    assert "sums" in str(plan)
    model = base.train(sql, **FAST, **how)
    assert np.isfinite(model.parameters).all()
    row = {f.name: [None, None] for f in model.encoding.features}
    assert np.isfinite(model.predict(row)).all()


@pytest.mark.parametrize(("name", "change", "told"), [
    ("bayes", {"steps": 5}, "no steps"), ("bayes", {"importance": 0.1}, "no importance"),
    ("bayes", {"label": "cost"}, "number"), ("linear", {"label": "readmitted"}, "classes"),
    ("linear", {"solver": "magic"}, "solver"), ("linear", {"delta": 0}, "delta"),
    ("classes", {"buckets": {"diagnosis": 900}}, "at most 3,000"),
])
def test_what_it_cannot_be_is_refused(
    base: Engine, name: str, change: dict[str, Any], told: str
) -> None:
    sql, how = CASES[name]
    with pytest.raises(Refused, match=told):
        base.explain_train(sql, **{**FAST, **how, **change})
