"""Several questions at one price: one charge, agreeing answers, honest intervals, all or none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine.releases
from engine import Engine, OverBudget, Refused
from engine.audit_epsilon import epsilon_below
from engine.batch import _recalled, answer_batch_unpaid
from engine.clinic import clinic_policy
from engine.release import Combined, from_payload, to_payload
from engine.results import Results
from mechanisms import laplace
from mechanisms.combined import CombinedNoise
from mechanisms.event import GaussianEvent, LaplaceEvent, from_json
from mechanisms.loss import PrivacyLoss
from mechanisms.randomness import Randomness
from planner.price import Mechanism
from tests.engine.record import asked_together, differences
from tests.engine.replay import read_cases

FREE = PrivacyLoss.zero()
STRANGERS = ("without the heavy patient", "with a greedy patient", "with a thief",
             "with a dirty patient")
FROM = "FROM visits JOIN patients USING (patient_id)"
LEVELS: tuple[tuple[str, ...], ...] = (
    (), ("sex",), ("department",), ("sex", "department"), ("date_trunc('year', visit_date)",),
)
NUMBERS = ("COUNT(*)", "COUNT(DISTINCT patient_id)", "SUM(cost)", "AVG(cost)")


def question(number: str, keys: tuple[str, ...]) -> str:
    shown = [*(f"{key} AS k{i}" for i, key in enumerate(keys)), f"{number} AS x"]
    grouped = f" GROUP BY {', '.join(keys)}" if keys else ""
    return f"SELECT {', '.join(shown)} {FROM}{grouped}"


DASHBOARD = tuple(question(number, keys) for number in NUMBERS for keys in LEVELS)
COUNTS = DASHBOARD[:5]
# Patients with many rows and conditions on rows: parts are scaled, at every level alike.
SCALED = tuple(sql.replace(FROM, f"{FROM} WHERE los >= 2") for sql in (COUNTS[0], COUNTS[1],
                                                                       COUNTS[3]))


def draws(engine_: Engine, sqls: Sequence[str], times: int) -> list[Results]:
    """Plan several questions once and answer them again and again, with fresh noise."""
    data = engine_._data
    workload = engine_._workload(sqls, 1, None, None, "duckdb", data)
    return [answer_batch_unpaid(workload, data.public, data.database, engine_._randomness)
            for _ in range(times)]


@pytest.fixture
def policy(base_path: Path, tmp_path: Path) -> Path:
    (tmp_path / "clinic.duckdb").write_bytes(base_path.read_bytes())
    text = clinic_policy(tmp_path / "clinic.duckdb", epsilon=900.0)
    (tmp_path / "clinic.yaml").write_text(text)
    return tmp_path / "clinic.yaml"


@pytest.fixture
def paid(policy: Path) -> Iterator[Engine]:
    with Engine.open(policy) as opened:
        yield opened


# ---- one price ----------------------------------------------------------------------------


def test_a_dashboard_is_one_charge_of_what_was_asked_and_then_free(paid: Engine) -> None:
    plan = paid.explain_many(DASHBOARD, epsilon=1)
    first = paid.query_many(DASHBOARD, epsilon=1)
    (charge,) = paid.history()
    assert len(first) == len(DASHBOARD)
    assert charge.cost.epsilon == pytest.approx(1, abs=1e-9)
    assert charge.cost.exact_epsilon <= 1
    assert first.cost == charge.cost == plan.cost == first[7].cost
    assert first.left is not None
    assert first.left.epsilon == pytest.approx(899)
    again = paid.query_many(DASHBOARD, epsilon=1)
    assert again.cached
    assert again.cost == FREE
    assert [r.rows for r in again] == [r.rows for r in first]
    assert [r.intervals for r in again] == [r.intervals for r in first]
    assert paid.explain_many(DASHBOARD, epsilon=1).kept
    assert len(paid.history()) == 1
    assert paid.plan_of(charge.seq)["questions"]  # type: ignore[index]
    assert "20 questions; price: epsilon 1" in str(first)
    assert "for all together" in str(plan)


@pytest.mark.parametrize("delta", [0, 1e-6])
def test_every_noised_column_is_paid_for(
    delta: float, paid: Engine, base: Engine
) -> None:
    """What meets noise and what the charge lists are the same columns, at the same scales."""
    seen = asked_together(base, DASHBOARD, delta=delta)
    assert not str(seen.result).startswith("failed")
    drawn = sorted((p.l1, p.public[3]) for p in seen.primitives)
    paid.query_many(DASHBOARD, epsilon=1, delta=delta)
    (charge,) = paid.history()
    events = from_json(charge.events_json)
    laplace = sorted((float(e.l1), e.scale) for e in events if isinstance(e, LaplaceEvent))
    parts = [p for e in events if isinstance(e, GaussianEvent) for p in e.parts]
    assert len(laplace) + len(parts) == len(seen.primitives) > 1
    if laplace:
        assert laplace == drawn
        assert sum(Fraction(l1) / Fraction(scale) for l1, scale in laplace) <= 1
    else:
        assert sorted(p.public[3] for p in seen.primitives) == sorted(s for _, s in parts)


@pytest.mark.parametrize("sqls", [
    ["SELECT diagnosis, COUNT(DISTINCT patient_id) FROM visits GROUP BY diagnosis"],
    ["SELECT diagnosis FROM visits GROUP BY diagnosis", COUNTS[0], COUNTS[1],
     "SELECT diagnosis, COUNT(DISTINCT patient_id), COUNT(*) FROM visits GROUP BY diagnosis"],
    [case.sql for case in read_cases("accepted")],
])
@pytest.mark.parametrize("delta", [1e-9, 1e-5])
def test_no_batch_costs_more_than_was_asked(
    sqls: list[str], delta: float, base: Engine
) -> None:
    """A choice of keys counts patients as a question may: that is two columns, paid twice."""
    workload = base._workload(sqls, 2, delta, None, "duckdb", base._data)
    loss = workload.plan.loss
    assert sum(workload.shares.values()) == 1
    assert 1.99 < loss.epsilon <= 2.000001
    assert loss.delta <= delta * (1 + 1e-9)


def test_copies_and_rewrites_are_one_answer(paid: Engine) -> None:
    """Fifty times the same question is no fifty draws."""
    derived = COUNTS[1].replace("visits", "(SELECT * FROM visits) AS v")
    named = f"WITH t AS (SELECT sex AS s {FROM}) SELECT s, COUNT(*) AS n FROM t GROUP BY 1"
    copies = [*[COUNTS[1]] * 25, *[derived] * 5, *[named] * 20]
    found = paid.query_many(copies, epsilon=0.5)
    answers = {repr(r.rows) for r in found}
    assert len(answers) == 1
    assert found.cost.epsilon == pytest.approx(0.5)
    (only,) = paid.explain_many(copies, epsilon=0.5).releases
    assert only[1] == 1


def test_questions_that_differ_in_nothing_that_matters_do_not_average_noise_away(
    base: Engine
) -> None:
    """Rewrites that are not recognised share the price: their mean is no better than one answer."""
    rewrites = [f"SELECT COUNT(*) FROM patients WHERE birth_year < {3000 + i}" for i in range(50)]
    assert len(base.explain_many(rewrites, epsilon=1).releases) == 50
    means = [np.mean([r.rows[0][0] for r in found]) for found in draws(base, rewrites, 12)]
    # One answer at epsilon 1 has the variance 1.84; fifty at a fiftieth each have 50 * 2 in mean.
    assert np.var(means) > 15


# ---- all or none --------------------------------------------------------------------------


@pytest.mark.parametrize(("bad", "rule"), [
    ("SELECT patient_id FROM patients", "bare-rows"), ("DROP TABLE visits", "only-select"),
    ("SELECT COUNT(*) FROM visits WITH ERROR 5%", "batch"), ("SELECT COUNT(* FROM x", "syntax"),
    ("SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS(epsilon=9) COUNT(*) FROM visits", "batch"),
])
def test_one_refusal_refuses_all_and_says_which(bad: str, rule: str, paid: Engine) -> None:
    with pytest.raises(Refused, match="question 2: ") as refused:
        paid.query_many([COUNTS[0], bad, COUNTS[1]], epsilon=1)
    assert refused.value.rule == rule
    assert not paid.history()
    assert not paid.query(COUNTS[0], epsilon=0.1).cached


def test_what_is_no_batch_is_refused(paid: Engine) -> None:
    for wrong in ([], "", [COUNTS[0]] * 501, "-- nothing"):
        with pytest.raises(Refused) as refused:
            paid.query_many(wrong, epsilon=1)
        assert refused.value.rule == "batch"
    for no_list in ([7], None, 7, {"SELECT 1": 2}):
        with pytest.raises(Refused):
            paid.query_many(no_list, epsilon=1)  # type: ignore[arg-type]
    for epsilon in (0, -1, math.nan, math.inf, "much"):
        with pytest.raises(Refused):
            paid.query_many(COUNTS, epsilon=epsilon)
    with pytest.raises(Refused):
        paid.query_many(COUNTS, epsilon=1, noiseless=True)
    with pytest.raises(OverBudget):
        paid.query_many(COUNTS, epsilon=10_000)
    assert not paid.history()


def test_a_text_of_several_statements_is_a_batch(paid: Engine) -> None:
    text = f"-- a; comment\n{COUNTS[0]};\n SELECT COUNT(*) AS \"a;b\" FROM patients;;"
    found = paid.query_many(text, epsilon=1)
    assert [r.columns for r in found] == [("x",), ("a;b",)]


# ---- what is kept -------------------------------------------------------------------------


def test_a_kept_single_answer_is_used_and_a_question_of_a_batch_is_free_by_itself(
    paid: Engine
) -> None:
    whole = paid.explain_many(COUNTS, epsilon=1).cost.epsilon
    paid.query(COUNTS[3], epsilon=2)
    planned = paid.explain_many(COUNTS, epsilon=1)
    assert 0 < planned.cost.epsilon < whole - 0.1
    found = paid.query_many(COUNTS, epsilon=1)
    assert found.cost == planned.cost
    # The kept answer is twice as accurate as all of the batch: so is what is put together from it.
    half = [high - low for (low, high), in ([i[-1:] for i in found[3].intervals])]
    assert max(half) < 1.1 * 2 * paid.explain(COUNTS[3], epsilon=2).expected_error["x"]  # type: ignore[operator]
    charges = len(paid.history())
    for sql, result in zip(COUNTS, found, strict=True):
        alone = paid.query(sql, epsilon=0.1)
        assert alone.cached
        assert alone.rows == result.rows
        assert alone.intervals == result.intervals
    assert len(paid.history()) == charges
    # A better answer is a new question.
    assert not paid.query(COUNTS[0], epsilon=5).cached


def test_a_kept_answer_that_was_put_together_is_never_measured_again(paid: Engine) -> None:
    """Its noise is not independent of that of the columns it came from."""
    paid.query_many(COUNTS, epsilon=1)
    data = paid._data
    workload = paid._workload(COUNTS, 0.5, None, None, "duckdb", data)
    assert data.kept is not None
    known = _recalled(workload, data.kept, data.public)
    measured = {c.key for r in workload.section(0).releases for c in r.measures}
    assert measured <= known.keys()
    assert not [key for key in measured if isinstance(known[key], Combined)]


def test_what_is_put_together_is_written_and_read_back_alike() -> None:
    noise = CombinedNoise(((2.5, 3), (0.1, 400)), 7.25, 0.5)
    one = Combined((("F",), (None,)), (1.5, -2.0), Mechanism.LAPLACE, 3.0, 1.0, noise=noise)
    assert from_payload(to_payload(one)) == one


# ---- right answers ------------------------------------------------------------------------


def alike(a: Any, b: Any) -> bool:
    if isinstance(a, int | float) and not isinstance(a, bool) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=2e-3, abs_tol=2e-3)
    return bool(a == b)


def test_every_case_in_one_batch_has_the_numbers_it_has_by_itself(base: Engine) -> None:
    """Without noise; sums are rounded to the grid of their own share."""
    sqls = [case.sql for case in read_cases("accepted")]
    many = base.query_many(sqls, epsilon=40, noiseless=True)
    assert len(many.plan.releases) < sum(len(r.plan.releases) for r in many)
    wrong = [
        sql for sql, result in zip(sqls, many, strict=True)
        for one in [base.query(sql, epsilon=0.5, noiseless=True)]
        if (one.columns, one.table.types) != (result.columns, result.table.types)
        or len(one.rows) != len(result.rows)
        or not all(map(alike, sum(one.rows, ()), sum(result.rows, ())))
    ]
    assert wrong == []


def test_nested_questions_keep_their_own_answers_apart(base: Engine, paid: Engine) -> None:
    """Two released answers under one number would be one column, paid once."""
    nested = [f"SELECT COUNT(*) FROM visits WHERE cost > (SELECT {inner} FROM visits)"
              for inner in ("AVG(cost)", "AVG(los)")]
    many = base.query_many(nested, epsilon=4, noiseless=True)
    alone = [base.query(sql, epsilon=4, noiseless=True).rows for sql in nested]
    assert [r.rows for r in many] == alone
    assert alone[0] != alone[1]
    assert len(paid.explain_many(nested, epsilon=1).releases) == 6


@pytest.mark.parametrize("delta", [0, 1e-6])
def test_totals_are_the_sums_of_their_parts(delta: float, base: Engine) -> None:
    found = dict(zip(DASHBOARD, base.query_many(DASHBOARD, epsilon=1, delta=delta), strict=True))
    for number in ("COUNT(*)", "SUM(cost)"):
        (total,), = found[question(number, ())].rows
        for keys in LEVELS[1:]:
            parts = sum(row[-1] for row in found[question(number, keys)].rows)
            assert parts == pytest.approx(total, rel=1e-9, abs=1e-6)
        by_sex = {row[0]: row[1] for row in found[question(number, ("sex",))].rows}
        for sex, value in by_sex.items():
            parts = sum(row[2] for row in found[question(number, ("sex", "department"))].rows
                        if row[0] == sex)
            assert parts == pytest.approx(value, rel=1e-9, abs=1e-6)


def test_a_rollup_agrees_with_the_questions_beside_it(base: Engine) -> None:
    rollup = (f"SELECT sex, department, COUNT(*) AS x {FROM} "
              "GROUP BY ROLLUP (sex, department)")
    both, total = base.query_many([rollup, COUNTS[0]], epsilon=1)
    grand = [row[2] for row in both.rows][-1]
    assert grand == pytest.approx(total.rows[0][0])
    found = base.query_many([rollup], epsilon=1)
    assert len(found[0].rows) == len(base.query(rollup, epsilon=1).rows)


def test_scaled_levels_add_up(base: Engine) -> None:
    plan = base.explain_many(SCALED, epsilon=1)
    assert sum(share for _, share in plan.releases) == pytest.approx(1)
    found = base.query_many(SCALED, epsilon=1)
    assert sum(row[-1] for row in found[1].rows) == pytest.approx(found[0].rows[0][0])
    assert sum(row[-1] for row in found[2].rows) == pytest.approx(found[0].rows[0][0])


def test_a_scaled_sum_is_measured_and_not_made_of_rounded_counts(base: Engine) -> None:
    by = [question(n, ("department",)).replace(FROM, f"{FROM} WHERE los >= 2")
          for n in ("SUM(cost)", "AVG(cost)", "COUNT(cost)")]
    total = by[0].replace("department AS k0, ", "").replace(" GROUP BY department", "")
    many = base.query_many([*by, total], epsilon=20, noiseless=True)
    alone = base.query(by[0], epsilon=20, noiseless=True)
    for (_, a), (_, b) in zip(many[0].rows, alone.rows, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-2)
    assert sum(row[1] for row in many[0].rows) == pytest.approx(many[3].rows[0][0], rel=1e-9)


def test_a_dashboard_is_twice_as_accurate_as_its_questions_by_themselves(base: Engine) -> None:
    plan = base.explain_many(DASHBOARD, epsilon=1)
    alone = [base.explain(sql, epsilon=Fraction(1, 20).__float__()) for sql in DASHBOARD]
    ratios = [
        together["x"] / one.expected_error["x"]  # type: ignore[operator]
        for together, one in zip(plan.expected_error, alone, strict=True)
    ]
    assert max(ratios) < 1
    assert math.sqrt(np.mean(np.square(ratios))) < 0.6
    assert all(str(line) in str(plan) for line in ("noise", "price"))


def test_intervals_of_a_batch_hold(base: Engine) -> None:
    """Cells of one dashboard are not independent, so whole draws are counted, cell by cell."""
    cube = f"SELECT sex, department, COUNT(*) AS x {FROM} GROUP BY CUBE (sex, department)"
    batch = (*COUNTS, cube, *(question(number, keys) for number in ("SUM(cost)", "AVG(cost)")
                              for keys in LEVELS[:2]))
    truth = base.query_many(batch, epsilon=1, noiseless=True)
    held: dict[int, list[float]] = {i: [] for i in range(len(batch))}
    times = 40
    for found in draws(base, batch, times):
        for i, (result, exact) in enumerate(zip(found, truth, strict=True)):
            inside = [
                ends[-1][0] <= right[-1] <= ends[-1][1]
                for ends, right in zip(result.intervals, exact.rows, strict=True)
                if ends[-1] is not None and right[-1] is not None
            ]
            held[i].append(float(np.mean(inside)))
    for i, shares in held.items():
        spread = max(float(np.std(shares)), 0.02) / math.sqrt(times)
        assert np.mean(shares) >= 0.95 - 4.9 * spread, batch[i]


def test_a_sum_made_of_an_average_has_the_noise_it_says(base: Engine) -> None:
    """SUM is center times COUNT and the sum about the center: the interval speaks of both."""
    batch = tuple(question(number, keys) for number in ("SUM(cost)", "AVG(cost)")
                  for keys in LEVELS[:2])
    plan = base.explain_many(batch, epsilon=1)
    assert len(plan.releases) < 4 * 2  # the sum is not measured
    found = draws(base, batch, 200)
    for place in (0, 1):
        values = np.array([[row[-1] for row in results[place].rows] for results in found])
        (low, high), *_ = (row[-1] for row in found[0][place].intervals)  # type: ignore[misc]
        assert np.mean(np.std(values, axis=0)) * 1.96 == pytest.approx(
            (high - low) / 2, rel=4.9 / math.sqrt(2 * len(found)))


# ---- one patient --------------------------------------------------------------------------

BATCHES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "dashboard": (DASHBOARD, {}), "with Gaussian noise": (DASHBOARD, {"delta": 1e-6}),
    "scaled": (SCALED, {}), "two rows": (COUNTS, {"rows": 2}),
    "with answers of their own": ((
        "SELECT diagnosis, COUNT(*) FROM visits GROUP BY diagnosis", COUNTS[1], COUNTS[2],
        "SELECT COUNT(*) FROM visits WHERE cost > (SELECT AVG(cost) FROM visits)",
        "SELECT MEDIAN(cost) FROM visits", "SELECT COUNT(DISTINCT diagnosis) FROM visits",
    ), {"delta": 1e-6}),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_replays_on_neighbours(name: str, clinics: dict[str, Engine]) -> None:
    """Each measured column moves by no more than stated, and the rest follows from what is out."""
    sqls, settings = BATCHES[name]
    one = asked_together(clinics["base"], sqls, **settings)
    assert not str(one.result).startswith("failed")
    assert one.primitives
    for change in STRANGERS:
        two = asked_together(clinics[change], sqls, one, **settings)
        assert list(differences(one, two)) == [], change


def test_many_cases_in_one_batch_replay_on_neighbours(clinics: dict[str, Engine]) -> None:
    themes = ("counts", "sums", "averages", "totals", "joins", "filters", "keys", "nested")
    sqls = [case.sql for case in read_cases("accepted") if case.theme in themes]
    one = asked_together(clinics["base"], sqls, epsilon=40)
    two = asked_together(clinics["with a greedy patient"], sqls, one, epsilon=40)
    assert list(differences(one, two)) == []


DRAWS = 60_000


def proven(one: Any, two: Any, shrink: float) -> float:
    """Draw every measured column on two neighbours; return the epsilon that is surely spent.

    The attacker sees all columns together, and decides by the likelihood ratio.
    """
    randomness, ratios = Randomness.seeded(11), [np.zeros(DRAWS), np.zeros(DRAWS)]
    for a, b in zip(one.primitives, two.primitives, strict=True):
        scale = a.public[3]
        for key in a.given.keys() | b.given.keys():
            ours, theirs = a.given.get(key, 0), b.given.get(key, 0)
            if ours == theirs:
                continue
            for ratio, exact in zip(ratios, (ours, theirs), strict=True):
                seen = exact + laplace.sample(scale * shrink, DRAWS, randomness)
                ratio += (np.abs(seen - theirs) - np.abs(seen - ours)) / scale
    return epsilon_below(*ratios)


def test_nobody_proves_more_from_all_answers_together_than_was_charged(
    clinics: dict[str, Engine]
) -> None:
    """Worst-case neighbours: every column moves by its whole sensitivity."""
    sqls = (COUNTS[0], COUNTS[1], "SELECT COUNT(*) FROM patients")
    one = asked_together(clinics["base"], sqls)
    two = asked_together(clinics["with a greedy patient"], sqls, one)
    apart = [sum(abs(a.given.get(k, 0) - b.given.get(k, 0)) for k in a.given.keys() | b.given)
             for a, b in zip(one.primitives, two.primitives, strict=True)]
    assert apart == [p.l1 for p in one.primitives]
    found = proven(one, two, 1.0)
    assert 0.8 <= found <= 1
    assert proven(one, two, 0.6) > 1  # noise of a smaller scale than was paid for is noticed


def test_noise_that_knows_the_rows_is_found(
    clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replay would notice a batch that reads one row more than its neighbours'."""
    true = engine.releases.Reader.run

    def doubled(self: Any, place: int, *rest: Any) -> Any:
        exact = true(self, place, *rest)
        for column in exact.columns.values():
            for key in column:
                column[key] *= 2
        return exact

    monkeypatch.setattr(engine.releases.Reader, "run", doubled)
    one = asked_together(clinics["base"], COUNTS)
    found = [p for change in STRANGERS
             for p in differences(one, asked_together(clinics[change], COUNTS, one))]
    assert found
