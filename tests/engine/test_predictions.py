"""discreet_predict: a published model in SQL says what predict says, and moves nothing further."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Engine, OverBudget, Refused
from engine import evaluation as road
from engine.clinic import clinic_policy
from engine.published import models_folder, published
from models.model import Model
from planner.expression import Call, walk
from planner.feature import Coding, Feature
from planner.formula import Formula, Step
from planner.functions.learned import LEARNED
from planner.training_view import bind_view
from tests.engine.replay import CHANGES
from tests.engine.test_neighbours import compared

VIEW = """SELECT birth_year, sex, department, diagnosis, visit_date, cost, los > 3 AS long,
                 readmitted
          FROM visits JOIN patients USING (patient_id)"""
COLUMNS = ("birth_year", "sex", "department", "diagnosis", "visit_date", "cost", "long")
CALL = "birth_year, sex, department, diagnosis, visit_date, cost, los > 3"
FROM = "FROM visits JOIN patients USING (patient_id)"
FAST: dict[str, Any] = {"label": "readmitted", "epsilon": 2.0, "delta": 1e-6, "units": 200,
                        "steps": 6, "buckets": {"diagnosis": 4}}
KINDS: dict[str, dict[str, Any]] = {
    "logistic": {"importance": 0.2}, "mlp": {"hidden": (5, 3)}, "naive_bayes": {},
}


@pytest.fixture(scope="module")
def models(base: Engine) -> dict[str, Model]:
    found = {}
    for name, how in KINDS.items():
        asked = {k: v for k, v in FAST.items() if k != "steps" or name != "naive_bayes"}
        found[name] = base.train(VIEW, **asked, model=name, **how)
    view = f"SELECT birth_year, sex, cost, los {FROM}"
    stay = {**FAST, "label": "los", "buckets": None}
    return {**found, "stay": base.train(view, **stay, model="linear")}


@pytest.fixture(scope="module")
def knowing(clinics: dict[str, Engine], models: dict[str, Model]) -> Iterator[dict[str, Engine]]:
    """The clinics, each with the same models published; as they were afterwards."""
    before = {name: engine._data for name, engine in clinics.items()}
    folders = {models_folder(e.policy.ledger_url().parent, e.policy.ledger_url().name)
               for e in clinics.values()}
    for engine in clinics.values():
        for name, model in models.items():
            engine.publish(model, name)
    yield clinics
    for name, engine in clinics.items():
        engine._data = before[name]
    for folder in folders:
        shutil.rmtree(folder)


def said(engine: Engine, sql: str) -> Any:
    """The column `p` of a view's rows, exact: on an engine for testing only."""
    view = bind_view(sql, engine.catalog, "readmitted", 200)
    rows = engine._data.database.execute(view.statement).fetchnumpy()
    return view.features[0], rows["c1"]


# ---- the same numbers ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["logistic", "mlp", "naive_bayes", "stay"])
@pytest.mark.parametrize("clinic", ["base", "with a dirty patient"])
def test_sql_says_what_predict_says(
    knowing: dict[str, Engine], models: dict[str, Model], name: str, clinic: str
) -> None:
    engine, model = knowing[clinic], models[name]
    call = "birth_year, sex, cost" if name == "stay" else CALL
    feature, found = said(engine, f"SELECT discreet_predict('{name}', {call}) AS p, "
                                  f"readmitted {FROM}")
    columns = ("birth_year", "sex", "cost") if name == "stay" else COLUMNS
    raw = engine._data.database.execute(
        f"SELECT {call} FROM visits JOIN patients USING (__u) WHERE readmitted IS NOT NULL"
    ).fetchall()
    frame = {column: [row[i] for row in raw] for i, column in enumerate(columns)}
    assert not feature.nullable
    assert (feature.low, feature.high) == ((0, 60) if name == "stay" else (0, 1))
    assert len(found) == len(raw) > 100
    assert np.allclose(np.sort(found), np.sort(model.predict(frame)),
                       atol=60e-5 if name == "stay" else 1e-5)
    assert np.std(found) > 1e-3


def test_without_columns_they_are_found_by_name(knowing: dict[str, Engine]) -> None:
    named = said(knowing["base"], f"SELECT discreet_predict('stay') AS p, readmitted {FROM}")
    listed = said(knowing["base"], "SELECT discreet_predict('STAY', birth_year, sex, cost) AS p, "
                                   f"readmitted {FROM}")
    assert np.array_equal(np.sort(named[1]), np.sort(listed[1]))


FEATURES = (
    Feature("n", Coding.NUMBER, True, -5.0, 5.0), Feature("t", Coding.TRUTH, False),
    Feature("c", Coding.CHOICE, True, values=("cardiology", "urology")),
    Feature("d", Coding.MOMENT, True, 0.0, 1e9), Feature("h", Coding.BUCKETS, True, buckets=3),
)
HOSTILE = (
    "1e300 * los * 1e300", "los / 0", "-1e300 * cost", "NULL", "CAST(NULL AS DOUBLE)", "cost",
    "los > 3",
)


@pytest.mark.parametrize("first", HOSTILE)
@pytest.mark.parametrize("weight", [1.0, -1e140, 1e-320])
def test_no_argument_and_no_weight_makes_it_fail(
    clinics: dict[str, Engine], first: str, weight: float
) -> None:
    """Whatever stands in it, a prediction is a number in its bounds: it never raises."""
    width = 10
    steps = (
        Step(((weight,) * width, (-weight,) * width), (0.0, weight), "relu"),
        Step(((1.0, -1.0), (weight, 1.0)), (0.0, 1.0), "tanh"),
        Step(((weight, -weight),), (weight,)),
    )
    engine = clinics["with a dirty patient"]
    formula = Formula("odd", FEATURES, None, steps)
    catalog = replace(engine.catalog, models=(formula,))
    sql = (f"SELECT discreet_predict('odd', {first}, readmitted, department, visit_date, diagnosis)"
           f" AS p, readmitted {FROM}")
    view = bind_view(sql, catalog, "readmitted", 200)
    found = engine._data.database.execute(view.statement).fetchnumpy()["c1"]
    assert np.isfinite(found).all()
    assert ((found >= 0) & (found <= 1)).all()
    used = {n.function for e in view.outputs for n in walk(e) if isinstance(n, Call)}
    assert used >= {"model_input", "model_bucket", "model_seconds", "model_network"}


def test_squares_are_of_the_numbers(clinics: dict[str, Engine]) -> None:
    formula = Formula("bent", FEATURES[:2], None, (Step(((0, 0, 0, 1.0, 2.0),), (0.5,)),),
                      squares=True)
    catalog = replace(clinics["base"].catalog, models=(formula,))
    view = bind_view(f"SELECT discreet_predict('bent', los, readmitted) AS p, los, readmitted "
                     f"{FROM}", catalog, "readmitted", 200)
    rows = clinics["base"]._data.database.execute(view.statement).fetchnumpy()
    scaled = np.nan_to_num(np.clip(rows["c2"] / 5, -1, 1))
    expected = 1 / (1 + np.exp(-(0.5 + scaled**2 + 2)))
    assert np.allclose(rows["c1"], expected, atol=1e-12)
    assert {entry.name for entry in LEARNED} >= {"model_square"}


# ---- privacy ---------------------------------------------------------------------------------


QUESTIONS = (
    f"SELECT AVG(discreet_predict('logistic', {CALL})) AS risk {FROM}",
    f"SELECT discreet_predict('logistic', {CALL}) > 0.2 AS high, COUNT(*) AS n {FROM} GROUP BY 1",
    f"SELECT department, SUM(discreet_predict('mlp', {CALL})) AS s {FROM} GROUP BY department",
    f"SELECT floor(discreet_predict('stay') / 10) AS tens, COUNT(DISTINCT patient_id) AS n {FROM} "
    "GROUP BY 1",
    "SELECT AVG(worst) AS w FROM (SELECT patient_id, MAX(discreet_predict('stay', birth_year, sex, "
    f"cost)) AS worst {FROM} GROUP BY patient_id) AS t",
)


@pytest.mark.parametrize("sql", QUESTIONS)
def test_one_patient_moves_a_prediction_no_further_than_stated(
    knowing: dict[str, Engine], sql: str
) -> None:
    found = {change: wrong for change in CHANGES
             if (wrong := compared(knowing["base"], knowing[change], sql, None))}
    assert found == {}


def test_a_question_with_a_model_is_charged_like_any_other(
    models: dict[str, Model], tmp_path: Path, base_path: Path
) -> None:
    with opened(tmp_path, base_path) as engine:
        engine.publish(replace(models["stay"], is_private=True), "stay")
        assert engine.history() == ()  # a name costs nothing
        sql = f"SELECT AVG(discreet_predict('stay')) AS a {FROM}"
        # So few patients may not be told from none where they weigh less to carry less noise.
        first = engine.query(sql, epsilon=0.5, bounds="declared")
        again = engine.query(sql.replace("AS a", "AS b"), epsilon=0.5, bounds="declared")
        assert len(engine.history()) == 1
        assert again.cached
        assert 0 <= first.rows[0][0] <= 60


# ---- names -----------------------------------------------------------------------------------


def opened(folder: Path, source: Path) -> Engine:
    if not (folder / "clinic.yaml").exists():
        (folder / "clinic.duckdb").write_bytes(source.read_bytes())
        (folder / "clinic.yaml").write_text(
            clinic_policy(folder / "clinic.duckdb", epsilon=5.0, delta=1e-5))
    return Engine.open(folder / "clinic.yaml")


def test_a_name_is_kept_and_checked(
    models: dict[str, Model], tmp_path: Path, base_path: Path
) -> None:
    one, other = (replace(models[n], is_private=True) for n in ("logistic", "mlp"))
    with opened(tmp_path, base_path) as engine:
        engine.publish(one, "risk")
        engine.publish(one, "risk")
        with pytest.raises(Refused, match="another model"):
            engine.publish(other, "risk")
        with pytest.raises(Refused, match="without privacy"):
            engine.publish(models["mlp"], "test_model")
    with opened(tmp_path, base_path) as engine:
        sql = f"SELECT AVG(discreet_predict('risk', {CALL})) AS a {FROM}"
        engine.explain(sql, epsilon=0.5)
        saved = tmp_path / "clinic.ledger.sqlite.models" / "risk" / "model.json"
        text = json.loads(saved.read_text())
        text["settings"]["steps"] = 7
        saved.write_text(json.dumps(text))
        engine.refresh()
        with pytest.raises(Refused, match="not usable"):
            engine.query(sql, epsilon=0.5)
        engine.query("SELECT COUNT(*) FROM visits", epsilon=0.1)


@pytest.mark.parametrize("name", ["", "Risk", "a b", "../up", "a" * 64, "1st", None])
def test_a_name_is_a_word(knowing: dict[str, Engine], models: dict[str, Model], name: Any) -> None:
    with pytest.raises(Refused, match="small letters"):
        knowing["base"].publish(models["stay"], name)


def test_what_sql_cannot_express_is_not_published(base: Engine, tmp_path: Path) -> None:
    view = f"SELECT birth_year, department {FROM}"
    classes = base.train(view, **{**FAST, "label": "department", "buckets": None})
    wide = base.train(VIEW, **FAST, model="mlp", hidden=(400,))
    with pytest.raises(Refused, match="classes"):
        base.publish(classes, "kind")
    with pytest.raises(Refused, match="parameters"):
        base.publish(wide, "wide")
    from models.tensors import tensorflow

    keras = tensorflow().keras
    width = base.explain_train(VIEW, **FAST).encoding.width
    own = keras.Sequential([keras.Input((width,)), keras.layers.Dense(3, "gelu"),
                            keras.layers.Dense(1)])
    with pytest.raises(Refused, match="dense layers with"):
        base.publish(base.train(VIEW, **FAST, model=own), "own")
    assert published(models_folder(tmp_path, "nothing")) == ()


@pytest.mark.parametrize(("call", "told"), [
    ("discreet_predict('nobody')", "no published model"),
    ("discreet_predict()", "constant text"),
    ("discreet_predict(sex)", "constant text"),
    ("discreet_predict('stay', sex)", "takes 3 columns"),
    ("discreet_predict('stay', sex, sex, cost)", "needs numbers"),
    ("discreet_predict('stay', birth_year, birth_year, cost)", "needs text"),
    ("discreet_predict('stay', birth_year, sex, patient_id)", "patient key"),
    ("discreet_predict('logistic', birth_year, sex, department, diagnosis, cost, cost, los > 3)",
     "needs a date"),
    ("discreet_predict('logistic', birth_year, sex, department, cost, visit_date, cost, los > 3)",
     "needs text"),
    ("model_score(1.0)", "not on the list"),
    ("model_input(cost, 1.0, 2.0)", "not on the list"),
])
def test_calls_that_cannot_be_are_refused(
    knowing: dict[str, Engine], call: str, told: str
) -> None:
    with pytest.raises(Refused, match=told):
        knowing["base"].explain(f"SELECT AVG({call}) AS a {FROM}", epsilon=0.5)


def test_weights_that_could_overflow_are_refused(clinics: dict[str, Engine]) -> None:
    steps = (Step(((1e200,),), (0.0,), "relu"), Step(((1e200,),), (0.0,)))
    catalog = replace(clinics["base"].catalog,
                      models=(Formula("loud", FEATURES[1:2], None, steps),))
    with pytest.raises(Refused, match="too large"):
        bind_view(f"SELECT discreet_predict('loud', readmitted) AS p, readmitted {FROM}", catalog,
                  "readmitted", 1)


# ---- measuring -------------------------------------------------------------------------------


def test_measuring_a_model_is_paid_and_says_what_counts_say(
    models: dict[str, Model], tmp_path: Path, base_path: Path
) -> None:
    with opened(tmp_path, base_path) as engine:
        found = models["logistic"].evaluate(engine, VIEW, epsilon=0.5)
        (charge,) = engine.history()
        assert 0.4 < charge.loss.epsilon <= 0.5
        assert found.deviation > 1
        with pytest.raises(OverBudget):
            models["logistic"].evaluate(engine, VIEW, epsilon=6.0)
        with pytest.raises(Refused, match="differ in cost"):
            models["logistic"].evaluate(engine, VIEW.replace("cost", "cost + 1 AS cost"),
                                        epsilon=0.1)
        assert len(engine.history()) == 1


def test_measuring_counts_each_patient_once(
    clinics: dict[str, Engine], models: dict[str, Model]
) -> None:
    def counts(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr("mechanisms.gaussian.sample",
                          lambda sigma, n, randomness: np.zeros(n, dtype=np.int64))
            site = engine._site()
            planned = road.plan_evaluation(models["logistic"], VIEW, site, Fraction(1),
                                           Fraction(1, 10**6), "duckdb")
            return np.array(road.evaluate_paid(planned, site, "", None).counts)

    patch = pytest.MonkeyPatch()
    base = counts(clinics["base"], patch)
    (everyone,) = clinics["base"]._data.database.execute(
        "SELECT COUNT(DISTINCT __u) FROM visits WHERE readmitted IS NOT NULL").fetchone()
    assert base.sum() == everyone
    for name, engine in clinics.items():
        moved = np.abs(counts(engine, patch) - base)
        assert moved.sum() <= 1, name


# ---- the picture and the card ------------------------------------------------------------------


def test_a_model_is_drawn_from_what_is_public(models: dict[str, Model]) -> None:
    pytest.importorskip("matplotlib")
    assert len(models["logistic"].plot().axes) == 2
    assert len(models["mlp"].plot().axes) == 1
    assert len(models["stay"].plot().axes) == 2
    assert "NOT PRIVATE" in str(models["stay"].plot()._suptitle.get_text())
    with pytest.raises(Refused, match="nothing to draw"):
        replace(models["mlp"], metrics=None).plot()


def test_coefficients_give_the_scores(models: dict[str, Model]) -> None:
    model = models["logistic"]
    found = model.coefficients
    row = {name: [None] for name in COLUMNS}
    missing = sum(w for name, w in found.items() if name.endswith("is missing"))
    probability = 1 / (1 + math.exp(-(found["intercept"] + missing)))
    assert float(model.predict(row)[0]) == pytest.approx(probability, abs=1e-6)
    assert models["mlp"].coefficients == {}


def test_a_card_says_what_must_be_known(models: dict[str, Model]) -> None:
    card = models["stay"].card
    wanted = {"data version", "policy", "epsilon", "delta", "unit", "rows a patient", "metrics",
              "intended use", "training view", "charge"}
    assert wanted <= set(card.facts)
    assert card["metrics"] == str(models["stay"].metrics)  # few are held out: noise may hide all
