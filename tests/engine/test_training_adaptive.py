"""Noise that adapts in training, and images, from end to end: one charge, resumed alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from engine import Engine, Refused
from engine.clinic import clinic_policy
from mechanisms.event import from_json
from mechanisms.pricing import loss_of
from models.model import Model

SIMPLE = "SELECT birth_year, sex, los, readmitted FROM visits JOIN patients USING (patient_id)"
FAST: dict[str, Any] = {"label": "readmitted", "epsilon": 1.0, "delta": 1e-6, "units": 200,
                        "steps": 10}
ADAPTIVE: dict[str, Any] = {**FAST, "clip_quantile": 0.7, "noise_end": 0.5,
                            "class_weights": True, "importance": 0.1, "batch": 100}


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.fixture
def folder(base_path: Path, tmp_path: Path) -> Path:
    (tmp_path / "clinic.duckdb").write_bytes(base_path.read_bytes())
    (tmp_path / "clinic.yaml").write_text(
        clinic_policy(tmp_path / "clinic.duckdb", epsilon=9.0, delta=1e-5))
    return tmp_path


def test_an_adaptive_run_is_one_charge_and_goes_on_alike(folder: Path) -> None:
    shown: list[str] = []

    def progress(name: str, done: int, _: int) -> None:
        shown.append(name)
        if done == 6:
            raise Killed

    with Engine.open(folder / "clinic.yaml") as engine:
        plan = engine.explain_train(SIMPLE, **ADAPTIVE)
        with pytest.raises(Killed):
            engine.train(SIMPLE, progress=progress, **ADAPTIVE)
        (charge,) = engine.history()
        assert charge.loss == plan.cost
        assert loss_of(from_json(charge.events_json), engine._filter.order) == charge.loss
        model = engine.train(SIMPLE, resume=charge.seq, **ADAPTIVE)
        again = engine.train(SIMPLE, resume=charge.seq, **ADAPTIVE)
        with pytest.raises(Refused, match="did not pay"):
            engine.train(SIMPLE, resume=charge.seq, **{**ADAPTIVE, "clip_quantile": 0.8})
        assert len(engine.history()) == 1
    assert np.array_equal(model.parameters, again.parameters)
    for words in ("clip norm", "noise schedule", "class weights", "importance"):
        assert words in str(plan)
    # What a bar shows depends on the plan alone.
    assert shown == [f"training, epsilon {plan.epsilon_after(i):.2f} so far" for i in range(1, 7)]


def test_norms_are_kept_with_a_runs_state(folder: Path) -> None:
    """Begun again at the first norm, a resumed run would be another: two answers, one charge."""
    with Engine.open(folder / "clinic.yaml") as engine:
        def kill(_: str, done: int, __: int) -> None:
            if done == 6:
                raise Killed

        with pytest.raises(Killed):
            engine.train(SIMPLE, progress=kill, **{**FAST, "clip_quantile": 0.7})
    (state,) = folder.rglob("state.npz")
    with np.load(state) as kept:
        assert kept["norms"].shape == (1,)
        assert kept["norms"][0] > 0


# ---- images ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def xrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 patients with one to four images each: stripes across (ill) or down (well)."""
    place = tmp_path_factory.mktemp("xrays")
    rng = np.random.default_rng(5)
    with duckdb.connect(str(place / "study.duckdb")) as connection:
        connection.execute("CREATE TABLE people (person INTEGER, age INTEGER)")
        connection.execute("CREATE TABLE xrays (person INTEGER, image BLOB, ill BOOLEAN)")
        connection.execute("BEGIN")
        for person in range(200):
            connection.execute("INSERT INTO people VALUES (?, ?)", [person, 50])
            for _ in range(1 + person % 4):
                connection.execute("INSERT INTO xrays VALUES (?, ?, ?)", [
                    person, stripes(rng, person % 2 == 0).tobytes(), person % 2 == 0])
        connection.execute("COMMIT")
    (place / "policy.yaml").write_text("""discreet: 1
database: study.duckdb
ledger: study.ledger.sqlite
budget: {epsilon: 100, delta: 1e-4}
unit: people.person
units: 200
tables:
  people:
    one_row_per_unit: true
    columns:
      person: unit
      age: {integer: [0, 100], not_null: true}
  xrays:
    max_rows_per_unit: 4
    columns:
      person: {references: people}
      image: {image: [12, 12, 1], not_null: true}
      ill: {boolean: true, not_null: true}
""")
    return place / "policy.yaml"


def stripes(rng: np.random.Generator, across: bool) -> np.ndarray:
    wave = np.sin(np.arange(12) * 1.5 + rng.uniform(0, 6))[:, None] * np.ones((1, 12))
    found = 128 + 100 * (wave if across else wave.T)
    return found.astype(np.uint8)[:, :, None]


@pytest.mark.parametrize(("view", "model", "options"), [
    ("SELECT image, ill FROM xrays", "logistic", {}),
    ("SELECT image, age, ill FROM xrays JOIN people USING (person)", "mlp", {}),
    ("SELECT image, ill FROM xrays", "cnn",
     {"clip_quantile": 0.7, "clip_layers": True, "steps": 5}),
])
def test_models_of_images(xrays: Path, view: str, model: str, options: dict[str, Any],
                          tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    truth = np.arange(40) % 2 == 0
    rows = {"image": [stripes(rng, bool(ill)) for ill in truth], "age": [50] * 40}
    with Engine.open(xrays) as engine:
        found = engine.train(view, label="ill", model=model, epsilon=8.0, delta=1e-5, rows=4,
                             holdout=0.0, **options)
    scores = found.predict(rows)
    assert np.allclose(Model.load(found.save(tmp_path / "model")).predict(rows), scores)
    if model != "cnn":
        assert scores[truth].min() > scores[~truth].max()
    assert np.isfinite(scores).all()


def test_a_patient_of_several_images_costs_what_one_costs(xrays: Path) -> None:
    """Priced per image, four images of one patient would cost four times the noise."""
    view = "SELECT image, ill FROM xrays"
    with Engine.open(xrays) as engine:
        one, four = (engine.explain_train(view, label="ill", epsilon=1.0, delta=1e-5, rows=rows)
                     for rows in (1, 4))
    assert one.event == four.event
    assert one.multiplier == four.multiplier


def test_an_image_has_no_importance(xrays: Path) -> None:
    with Engine.open(xrays) as engine, pytest.raises(Refused, match="no importance to buy"):
        engine.explain_train("SELECT image, ill FROM xrays", label="ill", epsilon=1.0, delta=1e-5,
                             importance=0.1)
