"""engine.tune: one charge for all runs, before a row is read; nothing tells how many they were."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

import models.tuning
from engine import Broken, Engine, OverBudget, Refused
from engine.clinic import clinic_policy
from engine.execution import RowReader
from engine.training_runs import run_folder
from mechanisms.event import RepeatedEvent, SampledGaussianEvent, from_json
from mechanisms.loss import PrivacyLoss
from mechanisms.pricing import loss_of
from mechanisms.randomness import Randomness
from mechanisms.repetition import Repetitions, epsilon_for, rdp
from models.encoding import Encoding
from models.model import Model
from models.tuning import TuningPlan, quality
from planner.training_view import Coding, Feature
from tests.engine.record import Recording, differences, searched

VIEW = "SELECT birth_year, sex, los, readmitted FROM visits JOIN patients USING (patient_id)"
FAST: dict[str, Any] = {
    "label": "readmitted", "epsilon": 1.0, "delta": 1e-6, "units": 200, "steps": 4, "holdout": 0.4,
    "candidates": [{"learning_rate": 0.1}, {"optimizer": "sgd", "importance": 0.2}],
}
NEWCOMERS = ("with a greedy patient", "with a dirty patient", "with a plain patient")


@pytest.fixture
def engine(base_path: Path, tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "clinic.duckdb").write_bytes(base_path.read_bytes())
    (tmp_path / "clinic.yaml").write_text(
        clinic_policy(tmp_path / "clinic.duckdb", epsilon=5.0, delta=1e-5))
    with Engine.open(tmp_path / "clinic.yaml") as opened:
        yield opened


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same coins in every search, and five runs in each."""
    monkeypatch.setattr(Randomness, "bytes", lambda self, size, _true=Randomness.bytes: (
        b"\x05" * size if size == 32 else _true(self, size)))
    monkeypatch.setattr(Repetitions, "sample", lambda self, randomness: 5)


# ---- money -----------------------------------------------------------------------------------


def test_a_search_is_one_charge_at_the_price_explained_before_a_row_is_read(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent: list[float] = []
    chunks = RowReader.chunks

    def watched(reader: RowReader) -> Any:
        spent.append(engine.budget().spent.epsilon)
        return chunks(reader)

    monkeypatch.setattr(RowReader, "chunks", watched)
    plan = engine.explain_tune(VIEW, **FAST)
    assert (engine.history(), spent) == ((), [])
    model = engine.tune(VIEW, **FAST)
    (charge,) = engine.history()
    assert charge.loss == plan.cost == model.cost
    assert loss_of(from_json(charge.events_json), engine._filter.order) == charge.loss
    assert 0.97 < charge.loss.epsilon <= 1.0
    assert spent
    assert min(spent) > 0.97
    assert model.tuned is not None
    assert model.tuned.choice in FAST["candidates"]
    assert model.metrics is not None


def test_a_search_over_budget_charges_nothing_and_reads_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RowReader, "chunks", lambda self: pytest.fail("read without a charge"))
    with pytest.raises(OverBudget):
        engine.tune(VIEW, **{**FAST, "epsilon": 9.0})
    assert engine.history() == ()


def test_more_runs_leave_less_for_each(base: Engine) -> None:
    plans = [base.explain_tune(VIEW, **FAST, runs=runs) for runs in (2, 10, 30, 100)]
    singles = [plan.single for plan in plans]
    assert singles == sorted(singles, reverse=True)
    assert all(0.97 < plan.cost.epsilon <= 1.0 for plan in plans)
    fewer = base.explain_tune(VIEW, **FAST, law="geometric")
    assert fewer.single < plans[1].single
    assert "a secret number, logarithmic" in str(plans[0])


def test_the_number_of_candidates_costs_nothing(base: Engine) -> None:
    few, many = ({"learning_rate": [0.1 / n for n in range(1, count)]} for count in (3, 40))
    assert base.explain_tune(VIEW, **{**FAST, "candidates": few}).cost == base.explain_tune(
        VIEW, **{**FAST, "candidates": many}).cost


@pytest.mark.parametrize("change", [{"batch": 20}, {"class_weights": True}, {"model": "mlp"}])
def test_candidates_may_differ_in_all_that_a_run_has(base: Engine, change: dict[str, Any]) -> None:
    """The price is that of the dearest at every order, and no candidate costs more alone."""
    plan = base.explain_tune(VIEW, **{**FAST, "candidates": [{}, change]})
    assert 0.9 < plan.cost.epsilon <= 1.0
    order = base._filter.order
    for run in plan.runs:
        alone = RepeatedEvent(run.event.branches, plan.event.once, plan.law.name, plan.law.gamma,
                              plan.event.delta)
        assert loss_of((alone,), order).exact_epsilon <= plan.cost.exact_epsilon
        assert loss_of((alone,), order).exact_rdp <= plan.cost.exact_rdp


# ---- what leaves -----------------------------------------------------------------------------


def test_a_search_replays_on_neighbours(clinics: dict[str, Engine], keyed: None) -> None:
    """Every sum and every score moves by at most 1; with what was noised frozen, all that leaves
    is the same."""
    one = searched(clinics["base"], VIEW, **FAST)
    met = [primitive.public[0] for primitive in one.primitives]
    assert met.count("score") == 5
    assert met.count("metrics") == 1
    assert met[-1] == "metrics"
    for name in NEWCOMERS:
        assert list(differences(one, searched(clinics[name], VIEW, one, **FAST))) == [], name


CHOOSERS = {**FAST, "holdout": 0.9}


def all_choose(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let nearly every patient choose, newcomers among them."""
    monkeypatch.setattr(models.tuning, "CHOOSING", 0.999)
    return CHOOSERS


def covered(found: Recording, plan: TuningPlan, cost: PrivacyLoss, order: Fraction) -> bool:
    """Whether a price covers what was seen to meet noise, worked out from the noise alone."""
    runs: list[list[float]] = [[]]
    scores: list[float] = []
    for primitive in found.primitives:
        name, multiplier = primitive.public[0], primitive.public[2]
        if name == "score":
            scores.append(multiplier)
            runs.append([])
        elif name != "metrics":
            runs[-1].append(multiplier)
    loud = max(sum(1 / Fraction(z) ** 2 for z in run) for run in runs)
    loud = max(loud, max(1 / Fraction(z) ** 2 for z in scores))

    def curve(a: Fraction) -> Fraction:
        return a * loud / 2

    epsilon = float(epsilon_for(curve, plan.law, plan.event.delta))
    return epsilon <= cost.epsilon + 1e-9 and float(rdp(curve, plan.law, order)) <= cost.rdp + 1e-9


def test_the_charge_covers_the_best_of_all_runs(base: Engine, keyed: None) -> None:
    plan, order = base.explain_tune(VIEW, **FAST), base._filter.order
    found = searched(base, VIEW, **FAST)
    assert covered(found, plan, plan.cost, order)
    single = loss_of((SampledGaussianEvent(plan.event.branches, plan.event.delta),), order)
    assert single.epsilon < 0.7 * plan.cost.epsilon
    assert not covered(found, plan, single, order)  # the planted bug: one run is charged


def test_a_score_that_one_patient_moves_too_far_is_found(
    clinics: dict[str, Engine], keyed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models.tuning, "quality", lambda encoding, scores, targets: (
        8 * quality(encoding, scores, targets)))
    one = searched(clinics["base"], VIEW, **all_choose(monkeypatch))
    found = [problem for name in NEWCOMERS
             for problem in differences(one, searched(clinics[name], VIEW, one, **CHOOSERS))]
    assert any("squared L2" in problem for problem in found)


def test_the_choice_follows_from_what_is_released(
    clinics: dict[str, Engine], keyed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = searched(clinics["base"], VIEW, **all_choose(monkeypatch))
    for name in NEWCOMERS:
        assert list(differences(one, searched(clinics[name], VIEW, one, **CHOOSERS))) == [], name


def test_nothing_tells_how_many_runs_there_were(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the number beside the answer the price would be that of all runs."""
    traces = []
    for count in (1, 9):
        monkeypatch.setattr(Repetitions, "sample", lambda self, randomness, n=count: n)
        shown: list[tuple[str, int, int]] = []
        model = engine.tune(VIEW, progress=lambda *step, to=shown: to.append(step),
                            **{**FAST, "candidates": [{}]})
        seq = engine.history()[-1].seq
        folder = run_folder(tmp_path, "clinic.ledger.sqlite", seq).path
        files = sorted((str(p.relative_to(folder)), p.stat().st_size if p.suffix == ".npy" else 0)
                       for p in folder.rglob("*"))
        facts = sorted(model.card.facts)
        assert model.tuned is not None
        traces.append((shown, files, facts, model.tuned.runs, model.tuned.deviation,
                       model.parameters.shape, engine.history()[-1].events_json))
    assert traces[0] == traces[1]


def test_a_card_does_not_tell_how_long_a_search_took(
    base: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The charge says when it began; beside the end, that would tell about how many runs it had."""
    first: list[datetime] = []
    true = models.tuning.score

    def slow(*given: Any) -> float:
        first.append(datetime.now(UTC))
        time.sleep(1.1 if len(first) == 1 else 0)
        return true(*given)

    monkeypatch.setattr(models.tuning, "score", slow)
    model = base.tune(VIEW, **FAST)
    assert datetime.fromisoformat(model.card["trained"]) <= first[0]


def test_what_goes_wrong_after_the_charge_says_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("could not convert string 'Anna'")

    monkeypatch.setattr("models.tuning.score", fail)
    with pytest.raises(Broken) as caught:
        engine.tune(VIEW, **FAST)
    assert caught.value.__context__ is None
    assert len(engine.history()) == 1


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def test_an_interrupted_search_ends_in_the_same_model_without_a_second_charge(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("models.tuning.score", kill)
        with pytest.raises(Killed):
            engine.tune(VIEW, **FAST)
    (charge,) = engine.history()
    with pytest.raises(Refused, match="did not pay"):
        engine.tune(VIEW, resume=charge.seq, **{**FAST, "steps": 5})
    seen: list[tuple[Any, ...]] = []
    true = models.tuning.score

    def watched(*given: Any) -> float:
        # The intercept of a kept model takes the inputs' centre in.
        seen.append((given[1][:-1].tobytes(), found := true(*given)))
        return found

    monkeypatch.setattr("models.tuning.score", watched)
    model = engine.tune(VIEW, resume=charge.seq, **FAST)
    assert model.parameters[:-1].tobytes() == max(seen, key=lambda run: run[1])[0]
    again = engine.tune(VIEW, resume=charge.seq, **FAST)
    assert np.array_equal(model.parameters, again.parameters)
    assert (model.metrics, model.tuned) == (again.metrics, again.tuned)
    assert len(engine.history()) == 1
    place = run_folder(engine.policy.base, "clinic.ledger.sqlite", 1).path
    assert {p.name for p in place.iterdir()} == {"model", "finished", "lock"}


# ---- quality ---------------------------------------------------------------------------------


def test_the_better_settings_are_chosen_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "d.duckdb"
    with duckdb.connect(str(path)) as c:
        c.execute("CREATE TABLE people AS SELECT i AS id, (i * 7919) % 100 AS x, "
                  "(i * 7919) % 100 > 49 AS y FROM range(3000) t(i)")
    (tmp_path / "p.yaml").write_text(
        f"discreet: 1\ndatabase: {path}\nledger: {path}.sqlite\nunits: 3000\n"
        "budget: {epsilon: 5, delta: 1.0e-5}\nunit: people.id\ntables:\n  people:\n"
        "    one_row_per_unit: true\n"
        "    columns: {id: unit, x: {integer: [0, 99]}, y: boolean}\n")
    monkeypatch.setattr(Repetitions, "sample", lambda self, randomness: 8)
    with Engine.open(tmp_path / "p.yaml", insecure_testing=True, seed=1) as engine:
        model = engine.tune("SELECT x, y FROM people", label="y", epsilon=3.0, holdout=0.4,
                            steps=60, candidates={"learning_rate": [1e-6, 1e-5, 0.3, 1e-4]})
    assert model.tuned is not None
    assert model.tuned.choice == {"learning_rate": 0.3}
    assert model.metrics is not None
    assert model.metrics["auc"] > 0.9
    assert 0.2 < model.tuned.score < 1.1
    loaded = Model.load(model.save(tmp_path / "m"))
    assert loaded.tuned == model.tuned
    assert str(loaded) == str(model)


@pytest.mark.parametrize("label", [
    Feature("y", Coding.TRUTH, False), Feature("y", Coding.CHOICE, False, values=("a", "b", "c")),
    Feature("y", Coding.NUMBER, False, 0.0, 9.0),
])
def test_qualities_lie_between_zero_and_one(label: Feature) -> None:
    encoding = Encoding((Feature("x", Coding.TRUTH, False),), label)
    scores = np.array([[s] * encoding.outputs for s in (0.0, 1.0, -9.0, np.inf, -np.inf, np.nan)])
    for target in (0.0, 1.0, -1.0):
        found = quality(encoding, scores, np.full(len(scores), target, dtype=np.float32))
        assert ((found >= 0) & (found <= 1)).all()


# ---- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "words"), [
    ({"candidates": []}, "1 to 256 candidates"), ({"candidates": 3}, "a list of settings"),
    ({"candidates": {"steps": 3}}, "no list of values"),
    ({"candidates": {"learning_rate": [0.1] * 300}}, "1 to 256"),
    ({"candidates": [{"epsilon": 2}]}, "share the view"),
    ({"candidates": [{"colour": 2}]}, "no setting colour"),
    ({"candidates": [{"model": "naive_bayes"}], "steps": None}, "models that descend"),
    ({"runs": 1}, "above 1"), ({"runs": 1000}, "up to 100"), ({"runs": True}, "above 1"),
    ({"law": "poisson"}, "no law"), ({"holdout": 0.0}, "needs held-out patients"),
    ({"epsilon": 1e-9}, "no noise up to"), ({"delta": 0}, "delta above zero"),
])
def test_what_cannot_be_searched_is_refused(
    base: Engine, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(Refused, match=words) as caught:
        base.explain_tune(VIEW, **{**FAST, **change})
    assert caught.value.hint
