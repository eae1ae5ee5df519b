"""Accuracy targets: what is asked, paid and told, and what hostile use gets out of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import engine.accuracy
from engine import Broken, Engine, OverBudget, Refused, TargetMissed, cli
from engine.accuracy import Question, _draw, _Drawn, _stop, judged
from engine.api import Settings
from engine.clinic import clinic_policy, write_clinic
from engine.execution import open_unpaid
from mechanisms.event import GradualEvent, from_json
from mechanisms.pricing import loss_of, revealed
from mechanisms.randomness import Randomness
from planner.target import LEVELS, is_close, is_reached, read_target
from planner.target_cost import SIZES
from tests.engine.replay import CHANGES, read_cases

ROOT = Path(__file__).parents[2]
COUNT = "SELECT COUNT(*) FROM patients"
BY_SEX = "SELECT sex, COUNT(*) AS n FROM patients GROUP BY sex"
PATIENTS = 2_000
ANALYSTS = "analysts: {ana: {epsilon: 30}, ben: {epsilon: 0.25}}\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean clinic with its snapshot, to be copied."""
    folder = tmp_path_factory.mktemp("targets")
    write_clinic(folder / "clinic.duckdb", PATIENTS, dirty=False, labs_per_patient=0)
    (folder / "clinic.yaml").write_text(
        clinic_policy("clinic.duckdb", epsilon=40.0) + ANALYSTS
    )
    Engine.open(folder / "clinic.yaml").close()
    return folder


@pytest.fixture
def policy(built: Path, tmp_path: Path) -> Path:
    """The same clinic with a ledger of its own."""
    (tmp_path / "clinic.duckdb").write_bytes((built / "clinic.duckdb").read_bytes())
    (tmp_path / "clinic.yaml").write_bytes((built / "clinic.yaml").read_bytes())
    return tmp_path / "clinic.yaml"


@pytest.fixture
def paid(policy: Path) -> Iterator[Engine]:
    with Engine.open(policy, analyst="ana") as opened:
        yield opened


# ---- what is paid -----------------------------------------------------------------------------


def test_only_the_revealed_level_is_paid_on_rail_a_and_the_reserve_on_rail_b(paid: Engine) -> None:
    result = paid.query(COUNT, error="10%", epsilon=1)
    (charge,) = paid.history()
    events = from_json(charge.events_json)
    assert isinstance(events[0], GradualEvent)
    assert result.target is not None
    assert result.target.met
    level = result.target.level
    assert level is not None
    order = paid._filter.order
    assert result.cost.exact_epsilon == loss_of(revealed(events, level), order).exact_epsilon
    assert 0.005 < result.cost.epsilon < 0.06  # 2,000 patients within 200
    assert result.cost.exact_rdp == loss_of(events, order).exact_rdp
    assert charge.loss.exact_epsilon == 1
    assert charge.cost == result.cost == paid.budget().spent == paid.budget("ana").spent
    assert paid.budget().charges == (charge,)
    low, high = result.intervals[0][0] or (0, 0)
    assert (high - low) / 2 <= 0.1 * low
    assert 1_700 < result.rows[0][0] < 2_300  # type: ignore[operator]
    assert f"level {level + 1} of {LEVELS}" in str(result)
    assert f"epsilon {result.cost.epsilon:.6g}" in str(result)
    assert paid._ledger is not None
    assert paid._ledger.verify() == 2


def test_the_text_says_the_same_as_the_call(paid: Engine) -> None:
    result = paid.query(f"{COUNT} WITH ERROR 10% CONFIDENCE 95% FOR ALL GROUPS", epsilon=1)
    assert result.target is not None
    assert result.target.met
    again = paid.query(COUNT, error="10%", confidence=0.95, error_for="all", epsilon=1)
    assert again.cached
    assert again.rows == result.rows
    written = f"{COUNT}\nWITH ERROR 90 CONFIDENCE 99% FOR TOTAL;"
    assert str(paid.explain(written).target) == str(
        paid.explain(COUNT, error=90, confidence="99%", error_for="total").target
    )
    # What the call says wins, as with epsilon.
    assert "± 7 " in str(paid.explain(written, error=7, epsilon=5))
    assert paid.explain(
        "SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (epsilon = 0.5) COUNT(*) FROM patients "
        "WITH ERROR 5%", dialect="bigquery",
    ).cost.epsilon == pytest.approx(0.5)


def test_the_same_and_laxer_targets_are_free_and_tighter_ones_pay_a_whole_level(
    paid: Engine,
) -> None:
    first = paid.query(COUNT, error="5%", epsilon=1)
    assert not first.cached
    for error in ("5%", "8%", "50%"):
        again = paid.query(COUNT, error=error, epsilon=1)
        assert (again.cached, again.cost.epsilon, again.rows) == (True, 0.0, first.rows)
        assert paid.explain(COUNT, error=error, epsilon=1).cost.epsilon == 0
        other = paid.query(f"{COUNT} AS p WITH ERROR {error}", analyst="ben")
        assert other.rows == first.rows
    assert paid.explain(COUNT, error="1%", epsilon=1).cost.epsilon == 1
    tight = paid.query(COUNT, error="1%", epsilon=1)
    assert not tight.cached
    assert tight.cost.epsilon > first.cost.epsilon
    assert paid.budget().spent.exact_epsilon == (
        first.cost.exact_epsilon + tight.cost.exact_epsilon
    )
    assert paid.query(COUNT, error="5%", epsilon=1).rows == tight.rows  # the better one


def test_the_cap_is_the_usual_price_unless_the_call_names_one(paid: Engine) -> None:
    assert paid.explain(COUNT, error="5%").cost.epsilon == pytest.approx(0.1)
    result = paid.query(f"{COUNT} WHERE birth_year < 1902", error="5%")
    assert result.target is not None
    assert not result.target.met
    assert result.cost.epsilon == pytest.approx(0.1)
    assert "not within ± 5 % at 95 %, at epsilon 0.1" in result.target.words
    assert "would do" in result.target.words


# ---- absolute targets ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "error", "epsilon"),
    [
        (COUNT, 50, 1), (COUNT, "17.5", 1), (f"{BY_SEX} WITH ERROR 30", None, 1),
        ("SELECT SUM(los) AS s, COUNT(*) FROM visits", 90_000, 2),
        ("SELECT 2 * COUNT(*) - 7 AS n FROM patients", 60, 1),
        ("SELECT department, SUM(cost) FROM visits GROUP BY department", 3e6, 5),
        ("SELECT sex, COUNT(*) FROM patients GROUP BY sex WITH ERROR 60 FOR TOTAL", None, 1),
    ],
)
def test_an_absolute_target_is_priced_exactly_beforehand(
    sql: str, error: Any, epsilon: float, paid: Engine
) -> None:
    plan = paid.explain(sql, error=error, epsilon=epsilon)
    assert plan.target is not None
    assert plan.target.is_exact
    assert plan.target.is_met
    result = paid.query(sql, error=error, epsilon=epsilon, strict=True)
    assert result.cost == plan.cost
    assert result.cost.epsilon == pytest.approx(plan.target.epsilon)
    assert 0 < result.cost.epsilon < epsilon
    assert result.target is not None
    assert result.target.met
    (charge,) = paid.history()
    assert charge.settled is None
    if "TOTAL" not in sql:
        target = float(error or 30)
        widths = [(i[1] - i[0]) / 2 for row in result.intervals for i in row if i is not None]
        assert 0.9 * target <= max(widths) <= target  # and not needlessly narrow


def test_an_absolute_target_beyond_the_cap_is_answered_at_the_cap_or_refused_for_nothing(
    paid: Engine,
) -> None:
    with pytest.raises(Refused, match=r"takes epsilon 1, and at most 0\.1") as caught:
        paid.query(COUNT, error=3, strict=True)
    assert caught.value.rule == "error-target"
    with pytest.raises(Refused, match="no usable epsilon"):
        paid.query("SELECT SUM(cost) FROM visits", error=1e-9, strict=True)
    assert paid.history() == ()
    result = paid.query(COUNT, error=3)
    assert result.cost.epsilon == pytest.approx(0.1)
    assert result.target is not None
    assert not result.target.met
    assert "takes epsilon 1" in result.target.words
    low, high = result.intervals[0][0] or (0, 0)
    assert high - low == pytest.approx(60, abs=2)  # the honest interval of epsilon 0.1


def test_an_absolute_target_of_a_quotient_is_found_out_level_by_level(paid: Engine) -> None:
    result = paid.query("SELECT AVG(los) FROM visits", error=4, epsilon=2)
    (charge,) = paid.history()
    assert len(from_json(charge.events_json)) == 2
    assert charge.settled is not None
    assert result.target is not None
    assert result.target.met
    low, high = result.intervals[0][0] or (0, 99)
    assert high - low <= 8.001
    assert result.cost.epsilon < 2


# ---- groups -------------------------------------------------------------------------------------


def test_a_target_is_for_all_groups_a_share_of_them_or_their_total(paid: Engine) -> None:
    costs = {}
    for i, error_for in enumerate(("total", "60%", "all")):  # 2 of 3 groups: NULL is empty
        sql = f"{BY_SEX.replace('FROM patients', f'FROM patients WHERE birth_year > {1890 + i}')}"
        result = paid.query(sql, error="10%", error_for=error_for, epsilon=0.8)
        costs[error_for] = result.cost.epsilon
        assert result.target is not None
        assert result.target.met == (error_for != "all")
        rows = [(row[1], interval[1]) for row, interval in zip(
            result.rows, result.intervals, strict=True)]
        good = sum(is_close(*cell, read_target("10%")) for cell in rows)
        assert good >= {"total": 0, "60%": 2, "all": 2}[error_for]
    # Which of the two stops first is a matter of chance: their noise is drawn anew.
    assert max(costs["total"], costs["60%"]) < costs["all"] == pytest.approx(0.8)


def test_an_average_and_a_choice_of_keys_have_targets_too(paid: Engine) -> None:
    sql = "SELECT department, AVG(los) AS a FROM visits GROUP BY department"
    result = paid.query(sql, error="50%", error_for=0.3, epsilon=20)
    assert result.target is not None
    assert result.target.met
    assert result.cost.epsilon < 20
    sql = "SELECT diagnosis, COUNT(*) FROM visits GROUP BY diagnosis"
    result = paid.query(sql, error="50%", error_for="40%", epsilon=2)
    assert result.target is not None
    assert result.target.met
    assert result.cost.delta > 0
    assert 1 < result.cost.epsilon < 2  # the choice of keys costs its share whatever the level
    assert paid.query(sql, error="50%", error_for="40%", epsilon=2).cached


def test_a_filter_on_noisy_numbers_does_not_stop_early(paid: Engine) -> None:
    """At a coarse level HAVING might leave nothing, or only what happens to look exact."""
    sql = "SELECT sex, COUNT(*) AS n FROM patients GROUP BY sex HAVING COUNT(*) > 1000000"
    result = paid.query(sql, error="5%", error_for="60%", epsilon=1)
    assert result.rows == []
    assert result.cost.epsilon > 0.05
    sql = "SELECT region, COUNT(*) AS n FROM patients GROUP BY region ORDER BY n DESC LIMIT 1"
    assert paid.query(sql, error="10%", error_for="70%", epsilon=1).cost.epsilon > 0.1


# ---- missed and refused -------------------------------------------------------------------------


def test_a_missed_relative_target_is_charged_and_then_free(paid: Engine) -> None:
    with pytest.raises(TargetMissed, match="charged") as caught:
        paid.query(BY_SEX, error="5%", epsilon=0.4, strict=True)
    assert "FOR 90% OF GROUPS" in str(caught.value)
    assert caught.value.cost.epsilon == pytest.approx(0.4)
    assert paid.budget().spent.epsilon == pytest.approx(0.4)
    result = paid.query(BY_SEX, error="5%", epsilon=0.4)
    assert result.cached
    assert result.target is not None
    assert not result.target.met
    with pytest.raises(TargetMissed):  # still missed, and free
        paid.query(BY_SEX, error="5%", epsilon=0.4, strict=True)
    assert len(paid.history()) == 1


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT MEDIAN(cost) FROM visits", "medians"),
        ("SELECT COUNT(*) FROM visits WHERE cost > (SELECT AVG(cost) FROM visits)", "inside"),
        ("SELECT DISTINCT diagnosis FROM visits", "no output"),
        ("SELECT COUNT(*) FROM regions", "answered exactly"),
        ("SELECT AVG(los) FROM visits WITH ERROR 5% FOR TOTAL", "add up"),
    ],
)
def test_what_has_no_target_is_refused_with_a_way_out(
    sql: str, words: str, paid: Engine
) -> None:
    settings = {} if "WITH ERROR" in sql else {"error": "5%"}
    with pytest.raises(Refused, match=words) as caught:
        paid.query(sql, **settings)  # type: ignore[arg-type]
    assert caught.value.rule == "error-target"
    assert caught.value.hint
    assert paid.history() == ()


# ---- explain ------------------------------------------------------------------------------------


def test_explain_says_what_answers_of_several_sizes_will_cost(paid: Engine) -> None:
    plan = paid.explain(f"{COUNT} WITH ERROR 10%", epsilon=1)
    assert plan.target is not None
    assert not plan.target.is_exact
    (sizes,) = plan.target.costs.values()
    assert tuple(sizes) == SIZES
    costs = [cost for cost in sizes.values() if cost is not None]
    assert costs == sorted(costs, reverse=True)
    assert 0.03 <= sizes[1_000] <= 0.042
    assert sizes[10] is None
    assert "1,000: 0.0" in str(plan)
    assert json.loads(json.dumps(plan.to_dict()))["target"]["costs"]
    # The table is of noiseless answers; the real ones come close.
    paying = [paid.query(f"{COUNT} WHERE birth_year > {1880 + n}", error="10%", epsilon=1).cost
              for n in range(6)]
    assert np.mean([c.epsilon for c in paying]) == pytest.approx(
        sizes[1_000] / 2, rel=0.6)  # type: ignore[operator]
    average = paid.explain("SELECT AVG(los) AS a FROM visits", error="20%", epsilon=8).target
    assert average is not None
    assert average.costs["a"][10_000] is not None
    quotient = paid.explain("SELECT COUNT(*) / SUM(los) AS q FROM visits", error="5%").target
    assert quotient is not None
    assert quotient.costs == {}  # it depends on more than the answer


def test_the_command_line_has_targets(
    policy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISCREET_ANALYST", "ana")
    usual = ["-p", str(policy)]
    assert cli.main(["query", COUNT, *usual, "--error", "5%", "--epsilon", "1"]) == 0
    assert "within ± 5 % at 95 %: level" in capsys.readouterr().out
    assert cli.main(["query", COUNT, *usual, "--error", "5%", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["target"]["met"] is True
    assert cli.main(["explain", COUNT, *usual, "--error", "50", "--confidence", "99%"]) == 0
    assert "± 50 at 99 %" in capsys.readouterr().out
    assert cli.main(["query", COUNT, *usual, "--error", "1", "--strict"]) == cli.REFUSED
    by_sex = ["query", BY_SEX, *usual, "--error", "5%", "--error-for", "all"]
    assert cli.main([*by_sex, "--strict"]) == cli.REFUSED
    assert "charged" in capsys.readouterr().err
    assert cli.main(["budget", *usual, "--history"]) == 0
    told = capsys.readouterr().out
    assert "(2 charges)" in told
    assert "epsilon 0.1\n" in told


# ---- hostile use --------------------------------------------------------------------------------

NO_TARGETS = [
    float("nan"), float("inf"), -float("inf"), -1, 0, -0.0, "-5%", "0%", "NaN%", "inf%", "51%",
    "1e9%", "%", "", "five", True, [5], b"5%", "5%%", "5 5", "1e999999999", "9" * 10_000,
    Decimal("NaN"), 1e300, "٥%x",
]


@pytest.mark.parametrize("error", NO_TARGETS, ids=repr)
def test_what_is_no_error_is_refused_and_free(error: Any, paid: Engine) -> None:
    with pytest.raises(Refused) as caught:
        paid.query(COUNT, error=error)
    assert caught.value.rule == "error-target"
    assert len(str(caught.value)) < 1_000
    assert paid.history() == ()


@pytest.mark.parametrize("bad", [*NO_TARGETS[:5], "101%", 95, 1, "100%", "half", [], True])
def test_what_is_no_confidence_or_share_is_refused_and_free(bad: Any, paid: Engine) -> None:
    for settings in ({"confidence": bad}, {"error_for": bad}):
        if settings == {"error_for": 1} or settings == {"error_for": "100%"}:
            continue  # all of the groups
        with pytest.raises(Refused) as caught:
            paid.query(COUNT, error="5%", **settings)
        assert caught.value.rule == "error-target"
        with pytest.raises(Refused):
            paid.query(COUNT, **settings)  # without an error
    assert paid.history() == ()


def test_extreme_but_valid_targets_cost_the_cap_or_the_least_and_no_more(paid: Engine) -> None:
    tiny = paid.query(f"{COUNT} WHERE birth_year > 1", error="1e-9%", epsilon=0.2)
    assert tiny.target is not None
    assert not tiny.target.met
    assert tiny.cost.epsilon == pytest.approx(0.2)
    tiny = paid.query(f"{COUNT} WHERE birth_year > 2", error=1e-9, epsilon=0.2)
    assert tiny.cost.epsilon == pytest.approx(0.2)
    huge = paid.query(f"{COUNT} WHERE birth_year > 3", error=1e12, epsilon=0.2)
    assert huge.cost.epsilon == pytest.approx(0.2 / 2**10)  # ten doublings below the cap
    for sql in (COUNT, "SELECT SUM(cost), COUNT(*) FROM visits"):
        assert paid.explain(sql, error=1e15, epsilon=0.2).cost.epsilon < 0.001


def test_thousands_of_targets_on_one_question_pay_for_every_new_number(policy: Path) -> None:
    """Targets as an attack: each fresh number is charged at its own level, all within the quota."""
    dice, seen, asked = Random(5), {}, 0
    with Engine.open(policy, analyst="ben") as ben:
        spent = Decimal(0)
        for _ in range(300):
            relative = dice.random() < 0.8
            error = f"{dice.uniform(0.2, 50):.3f}%" if relative else dice.randint(20, 400)
            try:
                result = ben.query(COUNT, error=error, epsilon=dice.choice([0.01, 0.05, 0.1]))
            except OverBudget:
                continue
            asked += 1
            number = result.rows[0][0]
            if result.cached:
                assert number in seen
                assert result.cost.epsilon == 0
            else:
                spent += result.cost.exact_epsilon
                assert result.cost.epsilon > 0
            seen[number] = result.cost
        assert ben.budget("ben").spent.exact_epsilon == spent <= Decimal("0.25")
        assert asked > 50
        assert len(ben.history()) == sum(c.settled is not None or c.loss.epsilon > 0
                                         for c in ben.history()) < 60
        assert ben._ledger is not None
        ben._ledger.verify()


# ---- the stop rule sees released numbers only ---------------------------------------------------


def asked(engine: Engine, sql: str, **settings: Any) -> Question:
    chosen = replace(Settings(), **{"epsilon": 1, "error": "10%", **settings})
    bound, _, aim = engine._aimed(sql, chosen, engine._data)
    assert aim is not None
    return Question(sql, bound, aim, engine._data.public, engine._data.database)


def drawn_for(question: Question, seed: int) -> _Drawn:
    reader = open_unpaid(question.aim.plan, question.database, insecure_testing=True)
    return _draw(question.aim.plan, {}, reader, question.aim.levels, Randomness.seeded(seed))


PATHS = [
    (COUNT, {}), ("SELECT COUNT(*) FROM visits", {"error": "20%"}),
    (BY_SEX, {"error_for": "60%", "error": "50%"}), (BY_SEX, {"error_for": "total"}),
    ("SELECT AVG(los) AS a, COUNT(*) FROM visits", {"error": "50%", "epsilon": 4}),
    ("SELECT diagnosis, COUNT(*) FROM visits GROUP BY 1", {"error": "50%", "error_for": 0.2,
                                                           "epsilon": 90}),
]


@pytest.mark.parametrize(("sql", "settings"), PATHS)
def test_the_level_is_a_function_of_what_is_revealed_and_of_no_finer_level(
    sql: str, settings: dict[str, Any], base: Engine
) -> None:
    """Replay on a neighbour: other exact numbers, and noise under which the same is revealed."""
    question, dice = asked(base, sql, **settings), np.random.default_rng(3)
    levels = set()
    for seed in range(12):
        drawn = drawn_for(question, seed)
        level = _stop(question, drawn)
        levels.add(level)
        cells = {}
        for key, column in drawn.cells.items():
            apart = dice.integers(-50, 50, len(column.keys))
            noise = column.noise + apart
            noise[level + 1 :] = dice.integers(-10**9, 10**9, noise[level + 1 :].shape)
            exact = tuple(n - int(d) for n, d in zip(column.exact, apart, strict=True))
            cells[key] = replace(column, exact=exact, noise=noise)
        neighbour = replace(drawn, cells=cells)
        assert _stop(question, neighbour) == level
        assert neighbour.at(level) == drawn.at(level)
        assert judged(question, neighbour.at(level)) == judged(question, drawn.at(level))
    assert levels <= set(range(question.aim.levels))


def test_the_replay_finds_a_stop_rule_that_looks_at_exact_numbers(
    base: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaky(question: Question, drawn: _Drawn) -> int:
        (column,) = drawn.cells.values()
        return sum(column.exact) % question.aim.levels

    question = asked(base, COUNT)
    drawn = drawn_for(question, 1)
    ((key, column),) = drawn.cells.items()
    shifted = replace(column, exact=tuple(n - 1 for n in column.exact), noise=column.noise + 1)
    neighbour = replace(drawn, cells={key: shifted})
    assert _stop(question, neighbour) == _stop(question, drawn)
    assert leaky(question, neighbour) != leaky(question, drawn)


@pytest.mark.parametrize(("sql", "settings"), PATHS)
def test_the_plan_of_a_target_is_the_same_on_all_neighbours(
    sql: str, settings: dict[str, Any], clinics: dict[str, Engine]
) -> None:
    chosen = {"epsilon": 1, "error": "10%", **settings}
    texts = {str(clinic.explain(sql, **chosen)) for clinic in clinics.values()}
    plans = {asked(clinic, sql, **settings).aim.plan.plan_hash for clinic in clinics.values()}
    assert (len(texts), len(plans)) == (1, 1)
    assert set(CHANGES) < set(clinics)


def test_every_accepted_question_has_a_target_or_a_refusal(base: Engine) -> None:
    answered = 0
    for case in read_cases("accepted")[::4]:
        try:
            result = base.query(f"{case.sql} WITH ERROR 40% FOR 50% OF GROUPS", epsilon=0.5)
        except Refused as refusal:
            assert refusal.rule == "error-target", case  # noqa: PT017
            continue
        assert result.target is not None
        assert result.plan.target is None
        answered += 1
    assert answered > 40


@pytest.mark.parametrize(
    "sql", [COUNT, BY_SEX, "SELECT sex, region, COUNT(*), COUNT(DISTINCT patient_id) FROM "
            "patients GROUP BY 1, 2 HAVING COUNT(*) > 3 ORDER BY 3 DESC LIMIT 2",
            "SELECT SUM(cost) AS s, department FROM visits GROUP BY department"],
)
def test_plain_numbers_are_judged_as_the_desk_shows_them(
    sql: str, base: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = asked(base, sql, confidence="90%", epsilon=5)
    drawn = drawn_for(question, 2)
    direct = [judged(question, drawn.at(level)) for level in (0, 20, 40)]
    monkeypatch.setattr(engine.accuracy, "_plain_cells", lambda *_: None)
    assert [judged(question, drawn.at(level)) for level in (0, 20, 40)] == direct
    assert len(direct[0]) > 1 or sql == COUNT


def test_a_released_level_is_what_its_plan_says(base: Engine) -> None:
    for seed in range(8):
        question = asked(base, "SELECT SUM(los) FROM visits", epsilon=5, error="50%")
        drawn = drawn_for(question, seed)
        level = _stop(question, drawn)
        known = drawn.at(level)
        assert is_reached(judged(question, known), question.aim.target) or (
            level == question.aim.levels - 1
        )
        for coarser in range(level):
            assert not is_reached(judged(question, drawn.at(coarser)), question.aim.target)


# ---- crashes ------------------------------------------------------------------------------------

DYING = """
import os, signal, sys
import engine.accuracy, engine.ledger
from engine import Engine
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
where = sys.argv[2]
if where == "drawing":
    engine.accuracy._draw = die
elif where == "settling":
    engine.ledger.Ledger.settle = die
elif where == "finishing":
    engine.accuracy._result = die
Engine.open(sys.argv[1], analyst="ana").query(sys.argv[3], error="10%", epsilon=0.5)
"""


@pytest.mark.parametrize(
    ("where", "settled", "free"),
    [("drawing", False, False), ("settling", False, True), ("finishing", True, True)],
)
def test_kill_minus_nine_between_reserve_and_settlement_keeps_the_reserve(
    policy: Path, where: str, settled: bool, free: bool
) -> None:
    words = [sys.executable, "-c", DYING, str(policy), where, COUNT]
    died = subprocess.run(words, cwd=ROOT, capture_output=True, check=False, timeout=120)
    assert died.returncode == -9
    with Engine.open(policy, analyst="ana") as again:
        (charge,) = again.history()
        assert charge.loss.epsilon == pytest.approx(0.5)
        assert (charge.settled is not None) == settled
        spent = again.budget().spent
        assert spent == charge.cost
        assert (spent.epsilon < 0.1) == settled
        result = again.query(COUNT, error="10%", epsilon=0.5)
        assert result.cached == free  # an answer that was kept was under its reserve
        assert again.budget().spent.epsilon == pytest.approx(spent.epsilon + result.cost.epsilon)


def test_a_settlement_that_fails_keeps_the_reserve_and_the_answer(
    paid: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OSError(28, "No space left; row 4711 of Anna")

    with monkeypatch.context() as patch:
        patch.setattr(engine.accuracy.Ledger, "settle", fails)
        with pytest.raises(Broken) as caught:
            paid.query(COUNT, error="10%", epsilon=0.5)
    assert str(caught.value) == Broken.TEXT
    assert caught.value.__context__ is None
    assert paid.budget().spent.epsilon == pytest.approx(0.5)
    assert paid.query(COUNT, error="10%", epsilon=0.5).cached


def test_what_is_private_has_no_text(base: Engine) -> None:
    drawn = drawn_for(asked(base, COUNT), 1)
    for shown in (repr(drawn), *map(repr, drawn.cells.values())):
        assert "noise=" not in shown
        assert "exact=" not in shown
