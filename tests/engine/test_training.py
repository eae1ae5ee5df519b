"""engine.train from end to end: paid once, before a row is read; resumed for free; no leak."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Broken, Engine, OverBudget, Refused
from engine import training as road
from engine.clinic import clinic_policy
from engine.execution import RowReader, open_unpaid_rows
from engine.training import plan_training
from engine.training_runs import run_folder
from mechanisms.event import from_json
from mechanisms.pricing import loss_of
from models.model import Model
from models.table import gather, split_units

SIMPLE = "SELECT birth_year, sex, los, readmitted FROM visits JOIN patients USING (patient_id)"
FAST: dict[str, Any] = {"label": "readmitted", "epsilon": 1.0, "delta": 1e-6, "units": 200,
                        "steps": 10}


@pytest.fixture
def folder(base_path: Path, tmp_path: Path) -> Path:
    (tmp_path / "clinic.duckdb").write_bytes(base_path.read_bytes())
    (tmp_path / "clinic.yaml").write_text(
        clinic_policy(tmp_path / "clinic.duckdb", epsilon=5.0, delta=1e-5))
    return tmp_path


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    with Engine.open(folder / "clinic.yaml") as opened:
        yield opened


# ---- money ---------------------------------------------------------------------------------


def test_a_run_is_one_charge_at_the_price_explained(engine: Engine) -> None:
    plan = engine.explain_train(SIMPLE, **FAST)
    assert engine.history() == ()
    model = engine.train(SIMPLE, **FAST)
    (charge,) = engine.history()
    assert charge.loss == plan.cost == model.cost
    assert 0.9 < charge.loss.epsilon <= 1.0
    assert charge.sql == SIMPLE
    assert loss_of(from_json(charge.events_json), engine._filter.order) == charge.loss
    assert "noise multiplier" in str(plan)


def test_it_is_paid_before_a_row_is_read(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent: list[float] = []
    chunks = RowReader.chunks

    def watched(reader: RowReader) -> Any:
        spent.append(engine.budget().spent.epsilon)
        return chunks(reader)

    monkeypatch.setattr(RowReader, "chunks", watched)
    engine.explain_train(SIMPLE, **FAST)
    assert spent == []
    engine.train(SIMPLE, **FAST)
    assert len(spent) == 1
    assert spent[0] > 0.9


def test_a_run_over_budget_charges_nothing_and_reads_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RowReader, "chunks", lambda self: pytest.fail("read without a charge"))
    with pytest.raises(OverBudget):
        engine.train(SIMPLE, **{**FAST, "epsilon": 9.0})
    assert engine.history() == ()


def test_a_network_without_its_library_is_refused_before_it_is_paid(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ImportError("No module named 'tensorflow'")

    monkeypatch.setattr("models.tensors.tensorflow", missing)
    with pytest.raises(Refused, match="needs TensorFlow"):
        engine.train(SIMPLE, **{**FAST, "model": "mlp"})
    assert engine.history() == ()


def test_rows_are_read_against_a_receipt_only(engine: Engine) -> None:
    with pytest.raises(TypeError, match="against a receipt"):
        RowReader("SELECT 1", engine._data.database, object())
    with pytest.raises(PermissionError, match="against a receipt"):
        open_unpaid_rows("SELECT 1", engine._data.database, insecure_testing=False)


def test_what_goes_wrong_after_the_charge_says_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("could not convert string 'Anna'")

    monkeypatch.setattr("models.table.Table.rows_of", fail)
    with pytest.raises(Broken) as caught:
        engine.train(SIMPLE, **FAST)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    assert "Anna" not in str(caught.value)
    assert len(engine.history()) == 1  # and the charge stands


# ---- interruption ----------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def killed_at(step: int) -> Any:
    def progress(_: str, done: int, __: int) -> None:
        if done == step:
            raise Killed

    return progress


@pytest.mark.parametrize("step", [1, 6, 10])
def test_an_interrupted_run_goes_on_without_a_second_charge(folder: Path, step: int) -> None:
    with Engine.open(folder / "clinic.yaml") as engine, pytest.raises(Killed):
        engine.train(SIMPLE, progress=killed_at(step), **FAST)
    with Engine.open(folder / "clinic.yaml") as engine:
        (charge,) = engine.history()
        model = engine.train(SIMPLE, resume=charge.seq, **FAST)
        again = engine.train(SIMPLE, resume=charge.seq, **FAST)
        assert len(engine.history()) == 1
    assert np.array_equal(model.parameters, again.parameters)
    assert model.metrics == again.metrics


def test_where_it_was_interrupted_does_not_show(folder: Path) -> None:
    """The model is a function of the data and the run's key: no second draw of anything."""
    with Engine.open(folder / "clinic.yaml") as engine:
        with pytest.raises(Killed):
            engine.train(SIMPLE, progress=killed_at(4), **FAST)
        place = run_folder(folder, "clinic.ledger.sqlite", 1)
        key = (place.path / "key").read_bytes()
        first = engine.train(SIMPLE, resume=1, **FAST)
        # As from a backup of an earlier hour: the key is there, and nothing that came of it.
        shutil.rmtree(place.path)
        run_folder(folder, "clinic.ledger.sqlite", 1)
        (place.path / "key").write_bytes(key)
        from_the_start = engine.train(SIMPLE, resume=1, **FAST)
    assert np.array_equal(first.parameters, from_the_start.parameters)
    assert first.metrics == from_the_start.metrics


def test_a_lost_folder_buys_no_second_model(folder: Path) -> None:
    """A restored backup from before the run: with another key the charge would buy two models."""
    with Engine.open(folder / "clinic.yaml") as engine:
        engine.train(SIMPLE, **FAST)
        shutil.rmtree(run_folder(folder, "clinic.ledger.sqlite", 1).path)
        with pytest.raises(Refused, match="folder"):
            engine.train(SIMPLE, resume=1, **FAST)
        assert len(engine.history()) == 1


@pytest.mark.parametrize("other", [
    {"steps": 11}, {"epsilon": 0.9}, {"holdout": 0.1}, {"rows": 3}, {"label": "sex"},
])
def test_a_charge_buys_its_own_run_only(engine: Engine, other: dict[str, Any]) -> None:
    engine.train(SIMPLE, **FAST)
    with pytest.raises(Refused, match="did not pay"):
        engine.train(SIMPLE, resume=1, **{**FAST, **other})
    with pytest.raises(Refused, match="did not pay"):
        engine.train(SIMPLE, resume=2, **FAST)
    assert len(engine.history()) == 1


def test_a_runs_files_are_for_their_owner(engine: Engine, folder: Path) -> None:
    with pytest.raises(Killed):
        engine.train(SIMPLE, progress=killed_at(4), **FAST)
    place = run_folder(folder, "clinic.ledger.sqlite", 1).path
    assert (place.stat().st_mode & 0o077) == 0
    assert ((place / "key").stat().st_mode & 0o077) == 0


def test_a_finished_run_leaves_no_key_to_take_its_noise_off_with(
    engine: Engine, folder: Path
) -> None:
    engine.train(SIMPLE, **FAST)
    left = {path.name for path in run_folder(folder, "clinic.ledger.sqlite", 1).path.iterdir()}
    assert left == {"model", "finished", "lock"}


# ---- the view --------------------------------------------------------------------------------


ACCEPTED = [
    "SELECT p.sex, v.cost, v.readmitted FROM visits v JOIN patients p USING (patient_id)",
    "WITH last AS (SELECT patient_id, visit_date, los, readmitted FROM visits QUALIFY ROW_NUMBER() "
    "OVER (PARTITION BY patient_id ORDER BY visit_date DESC) = 1) SELECT los, readmitted FROM last",
    "SELECT COUNT(*) AS visits, AVG(cost) AS cost, BOOL_OR(readmitted) AS readmitted FROM visits "
    "GROUP BY patient_id",
    "SELECT los, LAG(los) OVER (PARTITION BY patient_id ORDER BY visit_date) AS before, readmitted "
    "FROM visits",
    "SELECT los, region, r.population, readmitted FROM visits JOIN patients USING (patient_id) "
    "JOIN regions r USING (region)",
    "SELECT los, readmitted FROM visits UNION ALL SELECT los + 1, readmitted FROM visits",
    "SELECT los, EXISTS (SELECT 1 FROM labs l WHERE l.visit_id = v.visit_id) AS lab, readmitted "
    "FROM visits v",
]


@pytest.mark.parametrize("sql", ACCEPTED)
def test_what_a_question_may_express_a_view_may(base: Engine, sql: str) -> None:
    model = base.train(sql, **FAST)
    assert not model.is_private
    assert np.isfinite(model.parameters).all()
    assert model.cost.epsilon == 0
    assert str(model).startswith("NOT PRIVATE")


REFUSED = [
    ("SELECT AVG(cost) AS c, TRUE AS readmitted FROM visits", "training-view"),
    ("SELECT department, COUNT(*) > 3 AS readmitted FROM visits GROUP BY department",
     "training-view"),
    ("SELECT population, TRUE AS readmitted FROM regions", "training-view"),
    ("SELECT cost > (SELECT AVG(cost) FROM visits) AS dear, readmitted FROM visits",
     "training-view"),
    ("SELECT patient_id, readmitted FROM visits", "training-view"),
    ("SELECT visit_id, readmitted FROM visits", "training-view"),
    ("SELECT diagnosis, readmitted FROM visits", "training-view"),
    ("SELECT cost / los AS x, readmitted FROM visits", "training-view"),
    ("SELECT readmitted FROM visits", "training-view"),
    ("SELECT los, cost FROM visits", "label"),
    ("SELECT los, visit_date AS readmitted FROM visits", "label"),
    ("SELECT los, los AS LOS, readmitted FROM visits", "ambiguous-column"),
    ("SELECT a.los, b.readmitted FROM visits a JOIN visits b ON a.los = b.los",
     "cross-patient-join"),
    ("SELECT los, readmitted FROM visits ORDER BY cost LIMIT 10", "limit-below-release"),
    ("DELETE FROM visits", "only-select"),
    ("SELECT a.los, b.readmitted FROM visits a JOIN visits b USING (patient_id) JOIN visits c "
     "USING (patient_id)", "too-large"),
]


@pytest.mark.parametrize(("sql", "rule"), REFUSED)
def test_what_is_no_view_is_refused_and_costs_nothing(
    base: Engine, sql: str, rule: str
) -> None:
    with pytest.raises(Refused) as caught:
        base.explain_train(sql, **FAST)
    assert caught.value.rule == rule, str(caught.value)


@pytest.mark.parametrize(("change", "rule"), [
    ({"model": "oracle"}, "model"), ({"model": "linear"}, "model"), ({"model": "cnn"}, "model"),
    ({"colour": 3}, "model"), ({"units": None}, "model"), ({"units": 0}, "model"),
    ({"epsilon": 0}, "epsilon"), ({"epsilon": math.nan}, "epsilon"), ({"delta": 0}, "delta"),
    ({"epsilon": 1e-12}, "epsilon"), ({"rows": 0}, "rows"), ({"rows": 201}, "rows"),
    ({"buckets": {"los": 8}}, "training-view"), ({"buckets": {"nothing": 8}}, "training-view"),
])
def test_a_call_that_cannot_be_is_refused(
    base: Engine, change: dict[str, Any], rule: str
) -> None:
    with pytest.raises(Refused) as caught:
        base.explain_train(SIMPLE, **{**FAST, **change})
    assert caught.value.rule == rule


def table_of(engine: Engine, sql: str, rows: int, **buckets: int) -> Any:
    request = engine._request(sql, "readmitted", "logistic", 1.0, 1e-6, rows=rows, units=1000,
                              dialect="duckdb", buckets=buckets, options={})
    order = plan_training(request, engine._site())
    reader = open_unpaid_rows(order.statement, engine._data.database, insecure_testing=True)
    return order.run.encoding, gather(reader.chunks(), order.run.encoding, rows)


@pytest.mark.parametrize("rows", [1, 3, 200])
def test_a_patient_has_at_most_so_many_rows(base: Engine, rows: int) -> None:
    _, table = table_of(base, SIMPLE, rows)
    sizes = np.diff(table.starts)
    assert sizes.max() <= rows
    (everyone,) = base._data.database.execute(
        "SELECT COUNT(DISTINCT __u) FROM visits JOIN patients USING (__u) "
        "WHERE readmitted IS NOT NULL").fetchone()
    assert table.units == everyone


def test_a_neighbour_changes_nobody_elses_rows(clinics: dict[str, Engine]) -> None:
    """Which rows count, and how they are encoded, is each patient's own business."""
    def patients(engine: Engine) -> list[bytes]:
        _, table = table_of(engine, SIMPLE, 2)
        return sorted(
            table.inputs[table.starts[i] : table.starts[i + 1]].tobytes()
            + table.targets[table.starts[i] : table.starts[i + 1]].tobytes()
            for i in range(table.units)
        )

    before = patients(clinics["base"])
    for name, engine in clinics.items():
        if name == "base":
            continue
        after = patients(engine)
        lost = len(before) + len(after) - 2 * len(_common(before, after))
        assert lost <= 2, name


def _common(one: list[bytes], other: list[bytes]) -> list[bytes]:
    rest = list(other)
    found = []
    for item in one:
        if item in rest:
            rest.remove(item)
            found.append(item)
    return found


VIEW = """
    SELECT p.birth_year, p.sex, p.region, v.department, v.diagnosis, v.visit_date, v.cost,
           v.los > 3 AS long, CAST(v.los AS DOUBLE) / 7 AS weeks, v.readmitted
    FROM visits AS v JOIN patients AS p USING (patient_id)
"""


def test_sql_and_predict_encode_alike(base: Engine) -> None:
    """What the statement reads out is what the same rows give when they are handed to predict."""
    request = base._request(VIEW, "readmitted", "logistic", 1.0, 1e-6, rows=200, units=1000,
                            dialect="duckdb", buckets={"diagnosis": 8}, options={})
    order = plan_training(request, base._site())
    encoding = order.run.encoding
    reader = open_unpaid_rows(order.statement, base._data.database, insecure_testing=True)
    learned = gather(reader.chunks(), encoding, 200)
    columns = ("birth_year", "sex", "region", "department", "diagnosis", "visit_date", "cost",
               "long", "weeks", "readmitted")
    raw = base._data.database.execute("""
        SELECT p.birth_year, p.sex, p.region, v.department, v.diagnosis, v.visit_date, v.cost,
               v.los > 3, v.los / 7.0, v.readmitted
        FROM visits AS v JOIN patients AS p USING (__u)
        WHERE v.readmitted IS NOT NULL
    """).fetchall()
    frame = {name: [row[i] for row in raw] for i, name in enumerate(columns)}
    handed = encoding.matrix(encoding.columns(frame))
    assert len(handed) == len(learned.inputs)
    assert np.allclose(
        handed[np.lexsort(handed.T)], learned.inputs[np.lexsort(learned.inputs.T)], atol=1e-6
    )


# ---- the model -------------------------------------------------------------------------------


ROWS = {"birth_year": [1940, 1990, None], "sex": ["F", "M", "?"], "los": [20, 1, 5]}


def test_a_model_is_saved_and_loaded_alike(engine: Engine, tmp_path: Path) -> None:
    model = engine.train(SIMPLE, **FAST)
    again = Model.load(model.save(tmp_path / "model"))
    assert np.array_equal(model.predict(ROWS), again.predict(ROWS))
    assert (again.cost, again.metrics, again.encoding) == (model.cost, model.metrics,
                                                           model.encoding)
    assert again.card["charge"] == 1
    assert "epsilon" in again.card["privacy"]
    assert all(p.suffix in (".json", ".npy") for p in (tmp_path / "model").iterdir())


@pytest.mark.parametrize("damage", ["version", "parameters", "missing", "nan"])
def test_what_is_no_saved_model_is_refused(
    base: Engine, tmp_path: Path, damage: str
) -> None:
    place = base.train(SIMPLE, **FAST).save(tmp_path / "model")
    if damage == "version":
        text = (place / "model.json").read_text()
        (place / "model.json").write_text(text.replace('"version": 1', '"version": 2'))
    elif damage == "parameters":
        np.save(place / "parameters.npy", np.zeros(3))
    elif damage == "nan":
        parameters = np.load(place / "parameters.npy")
        np.save(place / "parameters.npy", parameters * np.nan)
    else:
        (place / "parameters.npy").unlink()
    with pytest.raises(Refused):
        Model.load(place)


def test_predictions_take_frames_and_mappings(base: Engine) -> None:
    import pandas as pd

    model = base.train(SIMPLE, **FAST)
    assert np.allclose(model.predict(pd.DataFrame(ROWS)), model.predict(ROWS))
    assert ((model.predict(ROWS) > 0) & (model.predict(ROWS) < 1)).all()


@pytest.mark.parametrize(("label", "model", "shape"), [
    ("department", "logistic", (3, 12)), ("los", "linear", (3,)), ("department", "mlp", (3, 12)),
    ("los", "mlp", (3,)),
])
def test_labels_of_every_kind(
    base: Engine, label: str, model: str, shape: tuple[int, ...]
) -> None:
    sql = f"SELECT birth_year, sex, {label} FROM visits JOIN patients USING (patient_id)"
    found = base.train(sql, **{**FAST, "label": label, "model": model})
    predicted = found.predict(ROWS)
    assert predicted.shape == shape
    if label == "los":
        assert ((predicted >= 0) & (predicted <= 60)).all()
    else:
        assert np.allclose(predicted.sum(axis=1), 1)


@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_counts_are_trained_measured_drawn_and_kept(
    base: Engine, tmp_path: Path, model: str
) -> None:
    if model == "mlp":
        pytest.importorskip("tensorflow")
    sql = "SELECT birth_year, sex, los FROM visits JOIN patients USING (patient_id)"
    how = {**FAST, "label": "los", "model": model, "loss": "poisson", "holdout": 0.3}
    found = base.train(sql, **how)
    predicted = found.predict(ROWS)
    assert ((predicted >= 0) & (predicted <= 60)).all()
    again = Model.load(found.save(tmp_path / "model"))
    assert np.array_equal(again.predict(ROWS), predicted)
    assert {m.name for m in found.evaluate(base, sql, epsilon=0.5, delta=1e-6).metrics} <= {
        "rmse", "bias"}
    if found.metrics is not None and found.metrics.metrics:
        assert found.plot().axes
    with pytest.raises(Refused, match="is a count"):
        base.publish(found, f"stay_{model}")


@pytest.mark.parametrize(("change", "told"), [
    ({"label": "readmitted", "model": "logistic"}, "is no count"),
    ({"label": "los", "model": "logistic"}, "predicts classes"),
    ({"label": "los", "model": "linear", "loss": "mean"}, "loss cannot be"),
    ({"label": "los", "model": "linear", "class_weights": True}, "without classes"),
    ({"label": "los", "model": "linear", "solver": "statistics", "steps": None}, "has no loss"),
    ({"label": "los", "model": "forest", "steps": None}, "has no loss"),
])
def test_what_counts_cannot_be_is_refused(
    base: Engine, change: dict[str, Any], told: str
) -> None:
    with pytest.raises(Refused, match=told):
        base.explain_train(SIMPLE, **{**FAST, "loss": "poisson", **change})


def test_importance_is_bought_published_and_kept(base: Engine, tmp_path: Path) -> None:
    model = base.train(SIMPLE, **{**FAST, "importance": 0.2})
    assert set(model.importance) == {"birth_year", "sex", "los"}
    again = Model.load(model.save(tmp_path / "model"))
    assert again.importance == model.importance
    assert np.array_equal(again.predict(ROWS), model.predict(ROWS))
    assert "importance" in str(base.explain_train(SIMPLE, **{**FAST, "importance": 0.2}))


def test_an_own_keras_model_is_trained_saved_and_loaded(base: Engine, tmp_path: Path) -> None:
    from models.tensors import tensorflow

    keras = tensorflow().keras
    width = base.explain_train(SIMPLE, **FAST).encoding.width
    own = keras.Sequential([keras.Input((width,)), keras.layers.Dense(3, "relu"),
                            keras.layers.Dense(1)])
    before = [w.copy() for w in own.get_weights()]
    model = base.train(SIMPLE, **{**FAST, "model": own})
    assert all(np.array_equal(a, b) for a, b in zip(before, own.get_weights(), strict=True))
    again = Model.load(model.save(tmp_path / "model"))
    assert np.array_equal(again.predict(ROWS), model.predict(ROWS))


def test_a_run_shows_steps_and_nothing_of_the_rows(base: Engine) -> None:
    """Progress has the step and the number of steps; a model has no loss, norm or row count."""
    seen: list[tuple[Any, ...]] = []
    model = base.train(SIMPLE, progress=lambda *told: seen.append(told), **FAST)
    assert [told[1:] for told in seen] == [(step, 10) for step in range(1, 11)]
    plan = base.explain_train(SIMPLE, **FAST)
    assert [told[0] for told in seen] == [
        f"training, epsilon {plan.epsilon_after(step):.2f} so far" for step in range(1, 11)
    ]  # a price, and so known beforehand
    assert not {"loss", "norm", "rows", "history"} & set(dir(model))


def test_tables_and_readers_have_no_text_form(base: Engine) -> None:
    encoding, table = table_of(base, SIMPLE, 2)
    assert "array" not in repr(table)
    assert str(table.units) not in repr(table)
    assert encoding is not None


def test_the_split_is_by_patient_and_by_coins(base: Engine) -> None:
    from mechanisms.randomness import Randomness

    training, held = split_units(10_000, 0.2, Randomness.keyed(bytes(32), road.SPLIT))
    assert sorted([*training, *held]) == list(range(10_000))
    assert 1_700 < len(held) < 2_300
    none = split_units(5, 0.0, Randomness.secure())
    assert (len(none[0]), len(none[1])) == (5, 0)


# ---- learned tables --------------------------------------------------------------------------


TABLES: dict[str, Any] = {"model": "mlp", "embedding": {"diagnosis": 3, "department": 2},
                          "buckets": {"diagnosis": 500}}
CODED = ("SELECT birth_year, department, diagnosis, los, readmitted "
         "FROM visits JOIN patients USING (patient_id)")


def test_a_model_with_tables_is_trained_saved_and_measured(base: Engine, tmp_path: Path) -> None:
    model = base.train(CODED, **{**FAST, **TABLES})
    assert model.parameters.size > 501 * 3 + 13 * 2
    again = Model.load(model.save(tmp_path / "model"))
    rows = {"birth_year": [1940, 1990, None], "department": ["oncology", "?", None],
            "diagnosis": ["A00.0", "Z9", None], "los": [20, 1, 5]}
    assert np.array_equal(model.predict(rows), again.predict(rows))
    assert len(np.unique(model.predict(rows))) == 3
    assert len(again.evaluate(base, CODED, epsilon=1.0).counts) == 2
    with pytest.raises(Refused, match="embed layer"):
        base.publish(model, "tables")


def test_codes_are_those_of_the_statement(base: Engine) -> None:
    request = base._request(CODED, "readmitted", "mlp", 1.0, 1e-6, rows=200, units=1000,
                            dialect="duckdb", buckets=TABLES["buckets"],
                            options={"embedding": TABLES["embedding"]})
    order = plan_training(request, base._site())
    encoding = order.run.encoding
    reader = open_unpaid_rows(order.statement, base._data.database, insecure_testing=True)
    learned = gather(reader.chunks(), encoding, 200)
    raw = base._data.database.execute(
        "SELECT p.birth_year, v.department, v.diagnosis, v.los FROM visits AS v "
        "JOIN patients AS p USING (__u) WHERE v.readmitted IS NOT NULL").fetchall()
    names = ("birth_year", "department", "diagnosis", "los")
    handed = encoding.matrix(encoding.columns(
        {name: [row[i] for row in raw] for i, name in enumerate(names)}))
    assert np.allclose(handed[np.lexsort(handed.T)],
                       learned.inputs[np.lexsort(learned.inputs.T)], atol=1e-6)
    places = {name: i for i, name in enumerate(encoding.names)}
    assert handed[:, places["diagnosis"]].max() > 100
    assert handed[:, places["department"]].max() == 12


@pytest.mark.parametrize(("change", "told"), [
    ({"model": "logistic"}, "no tables"), ({"embedding": {"los": 3}}, "no category"),
    ({"embedding": {"diagnosis": 0}}, "embedding cannot be"), ({"importance": 0.1}, "importance"),
    ({"embedding": {"nothing": 3}}, "no category"), ({"model": "naive_bayes"}, "no steps"),
])
def test_tables_that_cannot_be_are_refused(
    base: Engine, change: dict[str, Any], told: str
) -> None:
    with pytest.raises(Refused, match=told):
        base.explain_train(CODED, **{**FAST, **TABLES, **change})
