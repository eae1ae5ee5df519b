"""engine.release_table: paid once, before a row is read; one patient changes one noised row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from scipy import stats

import models.marginal_table
import models.noised_table
from engine import Broken, Engine, OverBudget, Refused
from engine.clinic import clinic_policy
from engine.execution import RowReader
from mechanisms.event import ShuffledEvent, from_json
from mechanisms.pricing import loss_of
from mechanisms.randomness import Randomness
from models.noised_table import Attribute, gathered, padded, split_by
from planner.training_view import Coding, Feature
from tests.engine.record import Recording, differences, record

VIEW = ("SELECT birth_year, sex, los, department, visit_date, cost, readmitted FROM visits "
        "JOIN patients USING (patient_id)")
ASKED: dict[str, Any] = {"label": "readmitted", "epsilon": 1.0, "delta": 1e-6, "units": 40}
ROWS = {**ASKED, "form": "rows"}
each_form = pytest.mark.parametrize("form", ["marginals", "rows"])
NEWCOMERS = ("with a greedy patient", "with a dirty patient", "with a plain patient")


@pytest.fixture
def engine(base_path: Path, tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "clinic.duckdb").write_bytes(base_path.read_bytes())
    (tmp_path / "clinic.yaml").write_text(
        clinic_policy(tmp_path / "clinic.duckdb", epsilon=5.0, delta=1e-5))
    with Engine.open(tmp_path / "clinic.yaml") as opened:
        yield opened


# ---- money -----------------------------------------------------------------------------------


@each_form
def test_a_table_is_one_charge_at_the_price_explained_and_again_is_free(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    asked = {**ASKED, "form": form}
    spent: list[float] = []
    chunks = RowReader.chunks

    def watched(reader: RowReader) -> Any:
        spent.append(engine.budget().spent.epsilon)
        return chunks(reader)

    monkeypatch.setattr(RowReader, "chunks", watched)
    plan = engine.explain_release_table(VIEW, **asked)
    assert (engine.history(), spent) == ((), [])
    made = engine.release_table(VIEW, **asked)
    (charge,) = engine.history()
    assert charge.loss == plan.cost == made.cost
    assert loss_of(from_json(charge.events_json), engine._filter.order) == charge.loss
    assert 0.9 < charge.loss.epsilon <= 1.0
    assert min(spent) > 0.9
    again = engine.release_table(VIEW, **asked)
    assert again.cached
    assert (again.values, again.epsilons, again.cost.epsilon) == (made.values, made.epsilons, 0)
    assert len(engine.history()) == 1
    engine.release_table(VIEW, **{**asked, "epsilon": 0.9})
    assert len(engine.history()) == 2


def test_a_table_over_budget_charges_nothing_and_reads_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RowReader, "chunks", lambda self: pytest.fail("read without a charge"))
    with pytest.raises(OverBudget):
        engine.release_table(VIEW, **{**ASKED, "epsilon": 9.0})
    assert engine.history() == ()


def test_what_goes_wrong_after_the_charge_says_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("could not convert string 'Anna'")

    monkeypatch.setattr("models.noised_table.gathered", fail)
    with pytest.raises(Broken) as caught:
        engine.release_table(VIEW, **ASKED)
    assert caught.value.__context__ is None
    assert len(engine.history()) == 1


def test_shuffling_is_priced_where_rows_are_many(base: Engine) -> None:
    few, many = (base.explain_release_table(VIEW, **{**ROWS, "units": units}) for units in
                 (40, 8_000))
    assert few.local < 1 < 2.5 < many.local
    assert isinstance(many.events[-1], ShuffledEvent)
    assert many.events[-1].local == many.local
    assert "8,000 noised rows" in str(many)


# ---- what leaves -----------------------------------------------------------------------------


@each_form
@pytest.mark.parametrize("units", [10, 40])
def test_the_number_of_rows_is_public(
    clinics: dict[str, Engine], units: int, form: str
) -> None:
    for engine in clinics.values():
        table = engine.release_table(VIEW, **{**ASKED, "units": units, "form": form})
        assert len(table) == units


@each_form
def test_the_table_is_what_the_policy_allows(base: Engine, form: str) -> None:
    table = base.release_table(VIEW, **ASKED, form=form, importance=0.2)
    frame = table.to_pandas()
    assert list(frame.columns) == ["birth_year", "sex", "los", "department", "visit_date", "cost",
                                   "readmitted"]
    assert frame["birth_year"].dropna().between(1900, 2026).all()
    assert set(frame["sex"].dropna()) <= {"F", "M"}
    assert frame["visit_date"].dropna().between("2015-01-01", "2026-12-31").all()
    assert frame["readmitted"].isin([True, False]).all()
    assert str(table).startswith("NOT PRIVATE")
    assert set(table.importance) == set(table.columns) - {"readmitted"}
    even = base.release_table(VIEW, **ASKED, form=form, importance=0)
    assert even.importance == {}
    assert len(set(even.epsilons.values())) == 1
    if form == "rows":
        assert "Laplace noise" in table.noise["los"]
        assert sum(table.epsilons.values()) <= table.local * (1 + 1e-9)
        assert sum(even.epsilons.values()) == pytest.approx(even.local)


def released(engine: Engine, like: Recording | None = None, **change: Any) -> Recording:
    """Record one table: its importance, and the rows that noise is put on, from fixed coins."""
    seen: list[Counter[tuple[int, ...]]] = []
    true = models.noised_table.noised_rows

    def watched(rows: Any, epsilons: Any, *rest: Any) -> Any:
        seen.append(Counter(map(tuple, rows.tolist())))
        noisy = true(rows, epsilons, *rest)
        out = like.result[2] if like is not None else noisy
        kept.append((noisy.shape, epsilons, out))
        return out

    kept: list[Any] = []

    def run() -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(models.noised_table, "noised_rows", watched)
            patch.setattr(engine, "_randomness", Randomness.seeded(7))  # chance is held fixed
            table = engine.release_table(VIEW, **{**ROWS, **change})
        return str(table), seen[0], kept[0][2], kept[0][:2], repr(table.values)

    return record(run, like)


def unlike(one: Recording, two: Recording) -> list[str]:
    """Say where two tables differ by more than one replaced row."""
    found = [text for text in differences(one, two) if not text.startswith("with the same")]
    (text, rows, _, shape, values), (text2, rows2, _, shape2, values2) = one.result, two.result
    if (text, shape, values) != (text2, shape2, values2):
        found.append("with the same noised rows something else is shown")
    if (rows - rows2).total() > 1 or (rows2 - rows).total() > 1:
        found.append(f"{(rows - rows2).total()} rows were replaced")
    return found


@pytest.fixture
def paired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pair the coins of neighbours: those that arrive take the last dummy's place, as in the proof.

    The order of patients and their dummies is the database's, so that only the arrival differs.
    """
    monkeypatch.setattr(models.noised_table, "_shuffled", lambda count, randomness: (
        np.arange(count)))
    monkeypatch.setattr(models.noised_table.Attribute, "drawn", lambda self, count, randomness: (
        np.zeros(count, dtype=np.int64)))


@pytest.mark.parametrize("by", ["means", "information"])
def test_one_patient_replaces_one_row(
    clinics: dict[str, Engine], paired: None, by: str
) -> None:
    one = released(clinics["base"], importance_by=by)
    assert one.primitives
    for name in NEWCOMERS:
        assert unlike(one, released(clinics[name], one, importance_by=by)) == [], name


def test_two_rows_of_a_patient_are_found(
    clinics: dict[str, Engine], paired: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug: all rows of a patient are released."""
    def everything(chunks: Any, attributes: Any) -> Any:
        return np.concatenate([
            np.stack([a.read(c) for a, c in zip(attributes, columns, strict=True)], axis=1)
            for _, *columns in chunks])

    asked = {"units": 1_000, "importance": 0}
    monkeypatch.setattr(models.noised_table, "gathered", everything)
    monkeypatch.setattr("planner.training_view.rows_max", lambda relation: 1)
    one = released(clinics["base"], **asked)
    found = [text for name in NEWCOMERS
             for text in unlike(one, released(clinics[name], one, **asked))]
    assert any("rows were replaced" in text for text in found)


def test_a_number_of_rows_from_the_data_is_found(
    clinics: dict[str, Engine], paired: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug: no dummies."""
    monkeypatch.setattr(models.noised_table, "padded", lambda rows, *_: rows)
    one = released(clinics["base"])
    found = [text for name in NEWCOMERS for text in unlike(one, released(clinics[name], one))]
    assert any("something else" in text for text in found)


# ---- rows drawn from noisy counts --------------------------------------------------------------


def drawn(engine: Engine, like: Recording | None = None, **change: Any) -> Recording:
    """Record one table of drawn rows; its result is all that an analyst holds."""

    def run() -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "_randomness", Randomness.seeded(7))  # chance is held fixed
            table = engine.release_table(VIEW, **{**ASKED, **change})
        return str(table), table.values, dict(table.importance)

    return record(run, like)


@pytest.mark.parametrize("change", [
    {}, {"importance": 0.2}, {"importance": 0.2, "importance_by": "information"},
    {"label": "department", "importance": 0.1}, {"label": "los"},
])
def test_counts_replay_on_neighbours(clinics: dict[str, Engine], change: dict[str, Any]) -> None:
    """Each patient is once in one cell of each table; with the noisy counts frozen nothing else of
    the patients reaches the drawn rows."""
    one = drawn(clinics["base"], **change)
    assert [p.public[0] for p in one.primitives].count("counts") == 7
    for name in NEWCOMERS:
        assert list(differences(one, drawn(clinics[name], one, **change))) == [], name


def test_all_counts_together_cost_what_was_charged(base: Engine) -> None:
    """The sum of 1/sigma^2 of all that met noise, importance included, is that of the charge."""
    for change in ({}, {"importance": 0.5}, {"importance": 0.2}):
        plan = base.explain_release_table(VIEW, **ASKED, **change)
        found = drawn(base, **change)
        seen = sum(1 / Fraction(p.public[-1]) ** 2 for p in found.primitives)
        (event,) = plan.events
        stated = sum(1 / Fraction(sigma) ** 2 for _, sigma in event.parts)
        assert float(seen / stated) == pytest.approx(1, abs=1e-6)
        assert seen <= stated
        assert 0.95 < plan.cost.epsilon <= 1.0


def test_rows_counted_twice_are_found(
    clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = models.marginal_table.np.add.at

    class Twice:
        at = staticmethod(lambda cells, places, _: true(cells, places, 2))

    monkeypatch.setattr(models.marginal_table.np, "add", Twice)
    one = drawn(clinics["base"], importance=0)
    found = [text for name in NEWCOMERS
             for text in differences(one, drawn(clinics[name], one, importance=0))]
    assert any("squared L2" in text for text in found)


def test_drawn_rows_look_like_the_patients(tmp_path: Path) -> None:
    path = tmp_path / "d.duckdb"
    with duckdb.connect(str(path)) as c:
        c.execute("CREATE TABLE people AS SELECT i AS id, (i * 7919) % 100 AS x, i % 4 = 0 AS z, "
                  "(i * 7919) % 100 > 69 AS y FROM range(4000) t(i)")
    (tmp_path / "p.yaml").write_text(
        f"discreet: 1\ndatabase: {path}\nledger: {path}.sqlite\nunits: 4000\n"
        "budget: {epsilon: 5, delta: 1.0e-5}\nunit: people.id\ntables:\n  people:\n"
        "    one_row_per_unit: true\n"
        "    columns: {id: unit, x: {integer: [0, 99]}, z: boolean, y: boolean}\n")
    with Engine.open(tmp_path / "p.yaml", insecure_testing=True, seed=1) as engine:
        frame = engine.release_table("SELECT x, z, y FROM people", label="y",
                                     epsilon=2.0).to_pandas()
    told = frame.dropna()
    assert len(told) > 3_900
    assert 0.27 < told["y"].mean() < 0.33
    assert 0.21 < told["z"].astype(bool).mean() < 0.29
    assert told.loc[told["y"].astype(bool), "x"].quantile(0.05) >= 60
    assert (told["x"] > 69).corr(told["y"].astype(bool)) > 0.85


@pytest.mark.parametrize(("noisy", "found"), [
    ([5.0, -1.0, 3.0], [4.5, 0.0, 2.5]), ([4.0, 6.0], [4.0, 6.0]), ([-3.0, 1.0, 0.5], [1, 1, 1]),
])
def test_counts_are_projected(noisy: list[float], found: list[float]) -> None:
    assert models.marginal_table.projected(np.array(noisy)).tolist() == found


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 61, 127])
def test_a_value_is_drawn_within_its_own_bin(size: int) -> None:
    attribute = Attribute(Feature("x", Coding.NUMBER, True, 0.0, size - 1.0, whole=True), size)
    places = models.marginal_table._places(attribute, np.arange(-1, size))
    assert places.max() < models.marginal_table.bins(attribute)
    assert places[0] == min(16, size)
    again = models.marginal_table._within(attribute, places, Randomness.seeded(1))
    assert (models.marginal_table._places(attribute, again) == places).all()


# ---- noise of one attribute -------------------------------------------------------------------


@pytest.mark.parametrize("feature", [
    Feature("x", Coding.NUMBER, False, 0.0, 5.0, whole=True),
    Feature("x", Coding.NUMBER, True, 0.0, 5.0, whole=True),
    Feature("x", Coding.TRUTH, True), Feature("x", Coding.TRUTH, False),
    Feature("x", Coding.CHOICE, True, values=("a", "b")),
    Feature("x", Coding.MOMENT, False, 0.0, 5.0 * 86_400),
])
def test_no_two_values_of_a_row_can_be_told_apart_further_than_stated(feature: Feature) -> None:
    attribute, epsilon, size = Attribute.of(feature), Fraction(1), 40_000
    ends = [0, attribute.size - 1] + ([-1] if attribute.is_number and feature.nullable else [])
    laws = []
    for value in ends:
        drawn = attribute.noised(np.full(size, value), epsilon, Randomness.seeded(4))
        laws.append(np.bincount(drawn + 1, minlength=attribute.size + 1))
    worst = 0.0
    for one in laws:
        for two in laws:
            for a, b in zip(one, two, strict=True):
                low = stats.beta.ppf(1e-7, a, size - a + 1) if a else 0.0
                up = stats.beta.ppf(1 - 1e-7, b + 1, size - b)
                worst = max(worst, math.log(low / up) if low > 0 else 0.0)
    assert worst <= 1
    assert worst > 0.5  # and the noise is no larger than it must be


@pytest.mark.parametrize("feature", [
    Feature("x", Coding.NUMBER, True, -2.0, 3.0), Feature("x", Coding.NUMBER, False, 0.0, 0.0),
    Feature("x", Coding.NUMBER, True, 0.0, 9.0, whole=True), Feature("x", Coding.TRUTH, True),
    Feature("x", Coding.MOMENT, True, 0.0, 86_400.0 * 400),
    Feature("x", Coding.CHOICE, True, values=("a", "b")), Feature("x", Coding.CHOICE, False,
                                                                  values=("a", "b")),
])
def test_any_column_is_read_into_its_domain_and_shown_within_it(feature: Feature) -> None:
    attribute = Attribute.of(feature)
    if feature.coding is Coding.CHOICE:
        column = np.array([-5, 0, 1, 2, 3, 2**40])
    else:
        column = np.array([np.nan, np.inf, -np.inf, 1e308, -1e308, 0.0, 1.0, feature.high])
    steps = attribute.read(column)
    assert ((steps >= -1) & (steps < attribute.size)).all()
    assert (steps >= 0).all() or (attribute.is_number and feature.nullable)
    noisy = attribute.noised(steps, Fraction(20), Randomness.seeded(1))
    for value in attribute.shown(noisy):
        assert value is None or isinstance(value, str) or feature.low <= value <= feature.high


def test_with_little_noise_values_are_the_patients_own() -> None:
    attribute = Attribute.of(Feature("x", Coding.NUMBER, False, 0.0, 60.0, whole=True))
    steps = attribute.read(np.array([0.0, 7.0, 60.0]))
    assert attribute.shown(attribute.noised(steps, Fraction(2_000), Randomness.seeded(1))) == [
        0, 7, 60]


def test_shares_follow_importance_and_never_sum_to_more() -> None:
    for scales in (np.array([0.1, 2.0, 1.0]), np.full(500, 1.0), np.array([1e-9, 1e9])):
        parts = split_by(scales, len(scales) + 1, Fraction(3))
        assert sum(parts) <= 3
        assert sum(parts) > 2.99
        assert all(part > 0 for part in parts)
        assert parts[-1] == max(parts)
    assert sorted(split_by(np.array([0.1, 2.0, 1.0]), 4, Fraction(3))[:3]) == [
        split_by(np.array([0.1, 2.0, 1.0]), 4, Fraction(3))[i] for i in (0, 2, 1)]


def test_every_patient_beyond_the_rows_is_as_likely_left_out() -> None:
    rows, source = np.arange(6)[:, None], Randomness.seeded(2)
    attributes = (Attribute.of(Feature("x", Coding.NUMBER, False, 0.0, 9.0, whole=True)),)
    kept = Counter(int(x) for _ in range(4_000) for x in padded(rows, 2, attributes, source)[:, 0])
    assert stats.chisquare([kept[i] for i in range(6)]).pvalue > 1e-6
    first = Counter(int(padded(rows, 6, attributes, source)[0, 0]) for _ in range(4_000))
    assert stats.chisquare([first[i] for i in range(6)]).pvalue > 1e-6


def test_patients_stand_anywhere_among_dummies() -> None:
    """In the order of arrival, patients before dummies, the first dummy would tell how many."""
    attributes = (Attribute.of(Feature("x", Coding.NUMBER, False, 0.0, 9.0, whole=True)),)
    rows, source = np.full((2, 1), 99), Randomness.seeded(2)
    found = sum(padded(rows, 5, attributes, source)[:, 0] == 99 for _ in range(4_000))
    assert stats.chisquare(found).pvalue > 1e-6
    assert sum(found) == 2 * 4_000


def test_one_row_a_patient_whatever_the_statement_gives() -> None:
    attributes = (Attribute.of(Feature("x", Coding.TRUTH, False)),)
    chunks = [(np.array([1, 1, 2]), np.array([0.0, 1.0, 1.0])), (np.array([2, 3]),
                                                                np.array([0.0, 0.0]))]
    assert gathered(iter(chunks), attributes)[:, 0].tolist() == [0, 1, 0]
    assert gathered(iter([]), attributes).shape == (0, 1)


# ---- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(("sql", "change", "words"), [
    ("SELECT diagnosis, readmitted FROM visits", {}, "no domain"),
    ("SELECT diagnosis, readmitted FROM visits", {"buckets": {"diagnosis": 9}}, "no setting buck"),
    ("SELECT patient_id, readmitted FROM visits", {}, "no domain"),
    ("SELECT COUNT(*) AS n, TRUE AS readmitted FROM visits", {}, "patients' rows"),
    (VIEW, {"label": "nothing"}, "no column nothing"), (VIEW, {"units": None}, "public number"),
    (VIEW, {"rows": 4}, "no setting rows"), (VIEW, {"steps": 4}, "no setting steps"),
    (VIEW, {"model": "mlp"}, "no setting model"),
    (VIEW, {"importance": 0.9}, "importance cannot"), (VIEW, {"importance": "x"}, "importance"),
    (VIEW, {"importance_by": "x"}, "importance_by"), (VIEW, {"delta": 0}, "delta above zero"),
    (VIEW, {"epsilon": 1e-3, "form": "rows"}, "no table has this price"),
    (VIEW, {"epsilon": 0}, "above zero"), (VIEW, {"form": "x"}, "form cannot"),
    (VIEW, {"delta": 0, "form": "rows"}, "delta above zero"),
    (VIEW, {"units": 10**6}, "too large"),
])
def test_what_cannot_be_a_table_is_refused(
    base: Engine, sql: str, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(Refused, match=words) as caught:
        base.explain_release_table(sql, **{**ASKED, **change})
    assert caught.value.hint


def test_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.duckdb"
    with duckdb.connect(str(path)) as c:
        c.execute("CREATE TABLE people (id BIGINT, scan BLOB, y BOOLEAN)")
    (tmp_path / "p.yaml").write_text(
        f"discreet: 1\ndatabase: {path}\nledger: {path}.sqlite\nunits: 30\n"
        "budget: {epsilon: 5, delta: 1.0e-5}\nunit: people.id\ntables:\n  people:\n"
        "    columns: {id: unit, scan: {image: [2, 2]}, y: boolean}\n")
    with Engine.open(tmp_path / "p.yaml", insecure_testing=True) as engine, pytest.raises(
            Refused, match="scan cannot be released"):
        engine.explain_release_table("SELECT scan, y FROM people", label="y")
