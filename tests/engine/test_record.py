"""Record and replay of every case, of accuracy targets and of training, on the real road."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import engine.accuracy
import engine.releases
import models.linear
from engine import Engine
from mechanisms.randomness import Randomness
from tests.engine.record import asked, differences, trained
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


# ---- training ------------------------------------------------------------------------------

VIEW = "SELECT birth_year, sex, los, readmitted FROM visits JOIN patients USING (patient_id)"
RUN: dict[str, Any] = {"label": "readmitted", "epsilon": 1.0, "delta": 1e-6, "units": 40,
                       "steps": 6, "holdout": 0.0}


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same coins in every run: chance is held fixed between a recording and its replay."""
    monkeypatch.setattr(Randomness, "bytes", lambda self, size, _true=Randomness.bytes: (
        b"\x05" * size if size == 32 else _true(self, size)))


@pytest.mark.parametrize("model", ["logistic", "mlp"])
@pytest.mark.parametrize("name", ["with a greedy patient", "with a dirty patient",
                                  "with a plain patient"])
def test_a_training_run_replays_on_neighbours(
    model: str, name: str, clinics: dict[str, Engine], keyed: None
) -> None:
    """Every step's sum moves by at most 1; with the noised sums frozen the model is the same."""
    if model == "mlp":
        pytest.importorskip("tensorflow")
    one = trained(clinics["base"], VIEW, model=model, **RUN)
    assert len(one.primitives) == RUN["steps"]
    assert list(differences(one, trained(clinics[name], VIEW, one, model=model, **RUN))) == []


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
