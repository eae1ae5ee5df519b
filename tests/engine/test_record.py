"""Record and replay of every case, of accuracy targets and of training, on the real road."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

import engine.accuracy
import engine.releases
import models.linear
from engine import Engine, OverBudget
from engine.clinic import clinic_policy
from mechanisms.randomness import Randomness
from tests.engine.record import asked, differences, record, trained
from tests.engine.replay import Case, read_cases

CASES = read_cases("accepted")
STRANGERS = ("without the heavy patient", "with a greedy patient", "with a dirty patient")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_question_replays_on_neighbours(case: Case, clinics: dict[str, Engine]) -> None:
    """With pilots where the policy calls bounds loose, and nested answers frozen."""
    one = asked(clinics["base"], case.sql)
    assert not str(one.result).startswith("failed")
    assert one.primitives or not one.statements  # no row is read for nothing
    for name in STRANGERS:
        assert list(differences(one, asked(clinics[name], case.sql, one))) == [], name


TARGETS = (
    ("SELECT COUNT(*) FROM visits", "5%"), ("SELECT SUM(cost), COUNT(*) FROM visits", "20%"),
    ("SELECT department, COUNT(*) FROM visits GROUP BY department", 25),
    ("SELECT diagnosis, COUNT(*) FROM visits GROUP BY diagnosis", 40),
    ("SELECT AVG(cost) FROM visits", "10%"),
)


@pytest.mark.parametrize(("sql", "error"), TARGETS)
def test_an_accuracy_target_replays_on_neighbours(
    sql: str, error: Any, clinics: dict[str, Engine]
) -> None:
    """Where it stops is a function of released levels: with those frozen it stops there too."""
    one = asked(clinics["base"], sql, error=error, epsilon=2)
    assert one.primitives
    for name in STRANGERS:
        two = asked(clinics[name], sql, one, error=error, epsilon=2)
        assert list(differences(one, two)) == [], name


DIVIDED = (
    "SELECT COUNT(*), SUM(cost), AVG(los) FROM visits",
    "SELECT department, COUNT(*), AVG(cost) FROM visits GROUP BY department",
    "SELECT diagnosis, COUNT(*), SUM(los) FROM visits GROUP BY diagnosis",
    "SELECT COUNT(DISTINCT patient_id), SUM(los) FILTER (WHERE readmitted) FROM visits",
    "SELECT test, COUNT(*), STDDEV(value) FROM labs JOIN visits USING (visit_id) GROUP BY test",
)


@pytest.mark.parametrize("sql", DIVIDED)
def test_a_divided_epsilon_replays_on_neighbours(sql: str, clinics: dict[str, Engine]) -> None:
    """How it is divided is a function of released levels: with those frozen it is the same."""
    settings: dict[str, Any] = {"split": "auto", "epsilon": 2, "delta": 1e-6}
    one = asked(clinics["base"], sql, **settings)
    assert {p.public[0] for p in one.primitives} - {"keys"} == {"levels"}
    for name in STRANGERS:
        assert list(differences(one, asked(clinics[name], sql, one, **settings))) == [], name


@pytest.mark.parametrize(("sql", "bounds"), [
    ("SELECT SUM(cost) FROM visits", "race"),
    ("SELECT department, SUM(cost), SUM(los) FROM visits GROUP BY department", "race"),
    ("SELECT diagnosis, SUM(cost) FROM visits GROUP BY diagnosis", "race"),
    ("SELECT SUM(cost) FROM visits", "auto"),
    ("SELECT department, SUM(cost), SUM(los) FROM visits GROUP BY department", "auto"),
    ("SELECT department, AVG(cost), AVG(los) FROM visits GROUP BY department", "auto"),
    ("SELECT COUNT(*), SUM(cost) FROM visits", "auto"),
])
def test_chosen_bounds_and_races_replay_on_neighbours(
    sql: str, bounds: str, clinics: dict[str, Engine]
) -> None:
    settings: dict[str, Any] = {"bounds": bounds, "epsilon": 2, "delta": 1e-6}
    one = asked(clinics["base"], sql, **settings)
    assert one.primitives
    for name in STRANGERS:
        assert list(differences(one, asked(clinics[name], sql, one, **settings))) == [], name


SERIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("SELECT department, COUNT(*) FROM visits GROUP BY department", {"epsilon": 0.2}),
    ("SELECT department, COUNT(*) FROM visits GROUP BY department", {"epsilon": 0.3}),  # combined
    ("SELECT COUNT(*) AS n, department FROM visits GROUP BY 2", {"epsilon": 0.3}),  # kept
    ("SELECT SUM(cost) FROM visits", {"epsilon": 0.2, "bounds": "auto"}),
    ("SELECT SUM(cost) FROM visits", {"epsilon": 0.4, "bounds": "auto"}),  # by the first pilot
    ("SELECT COUNT(*), SUM(los) FROM visits", {"epsilon": 0.3, "split": "auto"}),
    ("SELECT COUNT(*), SUM(los) FROM visits", {"epsilon": 0.3, "split": "auto"}),  # kept
    ("SELECT COUNT(*) FROM visits", {"epsilon": 1, "error": "30%"}),
    ("SELECT diagnosis, COUNT(*) FROM visits GROUP BY diagnosis", {"epsilon": 0.2}),
    ("SELECT diagnosis, COUNT(*) FROM visits GROUP BY diagnosis", {"epsilon": 0.3}),
    ("SELECT SUM(cost) FROM visits", {"epsilon": 9}),  # more than is left
)


def test_a_series_that_is_paid_replays_on_neighbours(
    clinics: dict[str, Engine], tmp_path: Path
) -> None:
    """With a ledger: what is kept, combined, charged and refused follows from what is released.

    One secret for all, so that the same rows of everybody else count.
    """

    def series(name: str) -> Any:
        home = tmp_path / name.replace(" ", "_")
        home.mkdir()
        source = clinics[name].policy.database_path()
        assert isinstance(source, Path)
        (home / "clinic.duckdb").write_bytes(source.read_bytes())
        secret = home / "clinic.ledger.sqlite.secret"
        secret.write_bytes(bytes(range(32)))
        secret.chmod(0o600)
        text = clinic_policy(home / "clinic.duckdb", epsilon=4.0)
        (home / "clinic.yaml").write_text(text)
        with Engine.open(home / "clinic.yaml") as opened:
            told = []
            for sql, settings in SERIES:
                try:
                    found = opened.query(sql, **settings)
                except OverBudget as refusal:
                    told.append(str(refusal))
                    continue
                told.append((repr(found.rows), repr(found.intervals), found.cost, found.cached,
                             str(found.plan), str(opened.budget())))
            return told

    one = record(lambda: series("base"))
    assert [told[3] for told in one.result[:-1]].count(True) == 2
    for name in STRANGERS:
        assert list(differences(one, record(lambda n=name: series(n), one))) == [], name


# ---- training ------------------------------------------------------------------------------

VIEW = "SELECT birth_year, sex, los, readmitted FROM visits JOIN patients USING (patient_id)"
RUN: dict[str, Any] = {"label": "readmitted", "epsilon": 1.0, "delta": 1e-6, "units": 40,
                       "steps": 6, "holdout": 0.0}


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same coins in every run: chance is held fixed between a recording and its replay."""
    monkeypatch.setattr(Randomness, "bytes", lambda self, size, _true=Randomness.bytes: (
        b"\x05" * size if size == 32 else _true(self, size)))


WIDE = "SELECT birth_year, sex, los, diagnosis, department, cost, readmitted FROM visits JOIN " \
       "patients USING (patient_id)"
NEWCOMERS = ("with a greedy patient", "with a dirty patient", "with a plain patient")
# Every way of training, and what it meets noise with.
STEP, COUNTS = {"step"}, {"importance_by": "information"}
PATHS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "logistic": ({"model": "logistic"}, STEP),
    "classes": ({"model": "logistic", "label": "department"}, STEP),
    "linear": ({"model": "linear", "label": "cost"}, STEP),
    "batches": ({"model": "logistic", "batch": 8}, STEP),
    "momentum": ({"model": "logistic", "optimizer": "sgd"}, STEP),
    "a clip of one's own": ({"model": "linear", "label": "los", "clip": 0.1}, STEP),
    "a clip that is found": ({"model": "logistic", "clip_quantile": 0.5}, STEP),
    "less noise at the end": ({"model": "logistic", "noise_end": 0.5}, STEP),
    "few rows": ({"model": "logistic", "rows": 2}, STEP),
    "class weights": ({"model": "logistic", "class_weights": True}, STEP | {"class weights"}),
    "metrics": ({"model": "logistic", "holdout": 0.4}, STEP | {"metrics"}),
    "metrics of classes": ({"model": "logistic", "label": "sex", "holdout": 0.4},
                           STEP | {"metrics"}),
    "errors": ({"model": "linear", "label": "cost", "holdout": 0.4}, STEP | {"metrics"}),
    "importance by means": ({"model": "logistic", "importance": 0.3}, STEP | {"means"}),
    "counts": ({"model": "linear", "label": "los", "loss": "poisson", "holdout": 0.4},
               STEP | {"metrics"}),
    "means for counts": ({"model": "linear", "label": "los", "loss": "poisson", "importance": 0.3},
                         STEP | {"means"}),
    "means of many classes": ({"model": "logistic", "label": "department", "importance": 0.3},
                              STEP | {"means"}),
    "importance by counts": ({"model": "logistic", "importance": 0.3, **COUNTS},
                             STEP | {"importance"}),
    "importance for numbers": ({"model": "linear", "label": "cost", "importance": 0.3, **COUNTS},
                               STEP | {"importance"}),
    "sums": ({"model": "linear", "label": "cost", "solver": "statistics"}, {"sums"}),
    "sums of classes": ({"model": "naive_bayes", "holdout": 0.4}, {"sums", "metrics"}),
    "trees": ({"model": "forest", "trees": 3, "holdout": 0.4}, {"leaves", "metrics"}),
    "trees of a number": ({"model": "forest", "trees": 3, "label": "cost"}, {"leaves"}),
    "mlp": ({"model": "mlp"}, STEP),
    "mlp with everything": ({"model": "mlp", "batch": 8, "importance": 0.3, "holdout": 0.4,
                             "class_weights": True, "clip_quantile": 0.5, "noise_end": 0.5},
                            STEP | {"means", "class weights", "metrics"}),
}


def settings_of(path: str) -> dict[str, Any]:
    settings, _ = PATHS[path]
    if settings["model"] == "mlp":
        pytest.importorskip("tensorflow")
    found = {**RUN, "buckets": {"diagnosis": 8}, **settings}
    if "step" not in PATHS[path][1]:
        del found["steps"]
    return found


@pytest.mark.parametrize("path", PATHS)
def test_a_training_path_replays_on_neighbours(
    path: str, clinics: dict[str, Engine], keyed: None
) -> None:
    """Every step's sum moves by at most 1 and every table by one count; with what was noised
    frozen, the model and its metrics are the same."""
    settings = settings_of(path)
    one = trained(clinics["base"], WIDE, **settings)
    met = [primitive.public[0] for primitive in one.primitives]
    assert set(met) == PATHS[path][1]
    assert met.count("step") in (RUN["steps"], 0)
    for name in NEWCOMERS:
        found = list(differences(one, trained(clinics[name], WIDE, one, **settings)))
        assert found == [], name


def test_a_network_of_ones_own_replays_on_neighbours(
    clinics: dict[str, Engine], keyed: None
) -> None:
    pytest.importorskip("tensorflow")
    from models.tensors import tensorflow

    keras = tensorflow().keras
    width = clinics["base"].explain_train(VIEW, **RUN).encoding.width
    network = keras.Sequential([keras.Input((width,)), keras.layers.Dense(3, "relu"),
                                keras.layers.Dense(1)])
    one = trained(clinics["base"], VIEW, model=network, **RUN)
    assert len(one.primitives) == RUN["steps"]
    for name in NEWCOMERS:
        assert list(differences(one, trained(clinics[name], VIEW, one, model=network, **RUN))) == []


IMAGES = """\
discreet: 1
database: {path}
ledger: {path}.ledger.sqlite
budget: {{epsilon: 3, delta: 1.0e-6}}
defaults: {{rows_per_unit: 3, max_rows_per_unit: 3}}
unit: people.id
tables:
  people: {{columns: {{id: unit}}}}
  scans: {{columns: {{id: {{references: people}}, scan: {{image: [12, 12]}}, sick: boolean}}}}
"""


def test_a_network_over_images_replays_on_neighbours(tmp_path: Path, keyed: None) -> None:
    pytest.importorskip("tensorflow")
    engines = []
    for patients in (12, 13):  # the last one has three images, the others one each
        path = tmp_path / f"{patients}.duckdb"
        with duckdb.connect(str(path)) as c:
            c.execute(f"CREATE TABLE people AS SELECT i AS id FROM range({patients}) t(i)")
            c.execute("CREATE TABLE scans (id BIGINT, scan BLOB, sick BOOLEAN)")
            dice = np.random.default_rng(1)
            for unit in range(patients):
                for _ in range(3 if unit == 12 else 1):
                    pixels = dice.integers(0, 256, 144, dtype=np.uint8)
                    c.execute("INSERT INTO scans VALUES (?, ?, ?)",
                              [unit, pixels.tobytes(), bool(pixels[0] > 127)])
        (tmp_path / f"{patients}.yaml").write_text(IMAGES.format(path=path))
        engines.append(Engine.open(tmp_path / f"{patients}.yaml", insecure_testing=True, seed=3))
    run = {**RUN, "label": "sick", "model": "cnn", "holdout": 0.4, "steps": 3}
    one = trained(engines[0], "SELECT scan, sick FROM scans", **run)
    assert [p.public[0] for p in one.primitives] == ["step"] * 3 + ["metrics"]
    assert list(differences(one, trained(engines[1], "SELECT scan, sick FROM scans", one, **run))
                ) == []
    for opened in engines:
        opened.close()


# ---- power ---------------------------------------------------------------------------------


def caught(clinics: dict[str, Engine], sql: str, **settings: Any) -> list[str]:
    one = asked(clinics["base"], sql, **settings)
    return [problem for name in STRANGERS
            for problem in differences(one, asked(clinics[name], sql, one, **settings))]


COUNT = "SELECT department, COUNT(*) FROM visits GROUP BY department"


def test_keys_from_the_data_are_found(
    clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = "SELECT los, COUNT(*) FROM visits GROUP BY los"
    assert caught(clinics, sql) == []
    true = engine.releases.Reader.run
    seen: dict[int, Any] = {}

    def run(self: Any, place: int, *rest: Any) -> Any:
        seen[place] = true(self, place, *rest)
        return seen[place]

    monkeypatch.setattr(engine.releases.Reader, "run", run)
    keys = engine.releases.keys_of
    monkeypatch.setattr(engine.releases, "keys_of", lambda release, known: tuple(
        k for k in keys(release, known) if k in seen[0].columns[0]))
    assert caught(clinics, sql)


def test_a_second_look_that_depends_on_a_row_is_found(
    clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry when a group is small: control flow that a row decides."""
    true = engine.releases.Reader.run
    rows = clinics["base"].query(COUNT, epsilon=0.5, noiseless=True).rows
    total = sum(int(n) for _, n in rows)  # type: ignore[call-overload]

    def run(self: Any, place: int, *rest: Any) -> Any:
        exact = true(self, place, *rest)
        if sum(exact.columns[0].values()) < total:
            exact = true(self, place, *rest)
        return exact

    assert caught(clinics, COUNT) == []
    monkeypatch.setattr(engine.releases.Reader, "run", run)
    assert "other statements were run" in caught(clinics, COUNT)


def test_a_number_that_goes_around_the_noise_is_found(
    clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = Engine._test

    def leaking(self: Engine, *rest: Any, **named: Any) -> Any:
        result = true(self, *rest, **named)
        total = self._data.database.execute("SELECT COUNT(*) FROM visits").fetchone()
        table = replace(result.table, columns=(f"department {total}", *result.columns[1:]))
        return replace(result, table=table)

    monkeypatch.setattr(Engine, "_test", leaking)
    assert any("the result" in problem for problem in caught(clinics, COUNT))


def test_a_stop_decided_by_exact_numbers_is_found(
    clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(question: Any, drawn: Any) -> int:
        return int(question.database.execute("SELECT COUNT(*) FROM visits").fetchone()[0]) % 7

    sql = "SELECT COUNT(*) FROM patients"
    assert caught(clinics, sql, error="5%", epsilon=2) == []
    monkeypatch.setattr(engine.accuracy, "_stop", stop)
    assert caught(clinics, sql, error="5%", epsilon=2)


def test_clipping_by_row_is_found(
    clinics: dict[str, Engine], keyed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loose(norms: Any, clip: Any) -> Any:
        return norms * 0 + 1.5

    monkeypatch.setattr(models.linear, "weights_for", loose)
    found: list[str] = []
    one = trained(clinics["base"], VIEW, model="logistic", **RUN)
    for name in ("with a greedy patient", "with a plain patient"):
        found += differences(one, trained(clinics[name], VIEW, one, model="logistic", **RUN))
    assert any("squared L2" in problem for problem in found)
