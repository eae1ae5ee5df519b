"""Every refusal comes with a question that is accepted: the nearest one that was found."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Engine, Refused
from planner.refusal import RULES, Rule
from planner.repair import TEXT_MAX
from tests.engine.questions import question
from tests.engine.replay import Case, read_cases

# What is asked -> what is proposed: the very repairs that people would make themselves.
NEAREST = {
    "SELECT AVG(costs) FROM visits": "SELECT AVG(cost) FROM visits",
    "SELECT COUNT(*) FROM visit": "SELECT COUNT(*) FROM visits AS visit",
    "SELECT department, AVG(cost) FROM visits":
        "SELECT department, AVG(cost) FROM visits GROUP BY department",
    "SELECT * FROM patients": "SELECT COUNT(*) FROM patients",
    "SELECT cost FROM visits WHERE cost > 19000":
        "SELECT AVG(cost) FROM visits WHERE cost > 19000",
    "SELECT SUM(cost / los) FROM visits": "SELECT SUM(CLAMP(cost / los, 0, 100)) FROM visits",
    "SELECT LIST(cost) FROM visits": "SELECT AVG(cost) FROM visits",
    "SELECT COUNT(* FROM visits": "SELECT COUNT(*) FROM visits",
    "SELECT COUNT(*) FROM visits WHERE random() < 0.5 AND los > 3":
        "SELECT COUNT(*) FROM visits WHERE los > 3",
    "SELECT COUNT(*) FROM patients a JOIN patients b ON a.region = b.region":
        "SELECT COUNT(*) FROM patients AS a JOIN patients AS b USING (patient_id)",
    "SELECT COUNT(*) FROM patients FULL JOIN visits USING (patient_id)":
        "SELECT COUNT(*) FROM patients LEFT JOIN visits USING (patient_id)",
    "SELECT COUNT(*) FROM patients WHERE EXISTS (SELECT 1 FROM visits WHERE cost > 100)":
        "SELECT COUNT(*) FROM patients WHERE patient_id IN (SELECT patient_id FROM visits "
        "WHERE cost > 100)",
    "SELECT DISTINCT patient_id FROM visits": "SELECT COUNT(DISTINCT patient_id) FROM visits",
    "SELECT patient_id, COUNT(*) FROM visits GROUP BY patient_id":
        "SELECT AVG(n) FROM (SELECT patient_id, COUNT(*) AS n FROM visits GROUP BY patient_id) "
        "AS t",
    "SELECT COUNT(*) FROM (SELECT ROW_NUMBER() OVER (PARTITION BY patient_id) AS n FROM visits) "
    "AS t WHERE n = 1":
        "SELECT COUNT(*) FROM (SELECT ROW_NUMBER() OVER (PARTITION BY patient_id ORDER BY "
        "visit_date) AS n FROM visits) AS t WHERE n = 1",
    "SELECT patient_id FROM patients EXCEPT SELECT patient_id FROM visits":
        "SELECT COUNT(*) FROM (SELECT patient_id FROM patients) AS a WHERE NOT EXISTS(SELECT 1 "
        "FROM (SELECT patient_id FROM visits) AS b WHERE b.patient_id = a.patient_id)",
    "DROP TABLE visits": "SELECT COUNT(*) FROM visits",
}


def refusal_of(engine: Engine, sql: str, **how: str) -> Refused:
    with pytest.raises(Refused) as caught:
        engine.explain(sql, **how)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("sql", NEAREST)
def test_the_nearest_question_is_proposed(base: Engine, sql: str) -> None:
    refusal = refusal_of(base, sql)
    assert refusal.instead == NEAREST[sql]
    assert str(refusal).endswith(refusal.instead)


@pytest.mark.parametrize("case", read_cases("refused"), ids=str)
def test_a_refused_case_comes_with_an_accepted_question(case: Case, base: Engine) -> None:
    refusal = refusal_of(base, case.sql)
    if refusal.rule == "too-large":
        assert refusal.hint
        assert not refusal.instead
        return
    base.explain(refusal.instead)  # and is not refused


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_comes_with_an_accepted_question(rule: Rule, base: Engine) -> None:
    refusal = refusal_of(base, rule.refused)
    if rule.name not in ("too-large", "dialect"):
        base.explain(refusal.instead)  # and is not refused


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_a_broken_random_question_comes_with_an_accepted_one(
    base: Engine, seed: int, where: int
) -> None:
    """One word of a random question is replaced by one that nobody knows."""
    words = question(Random(seed)).split(" ")
    words[where % len(words)] = "zzyzx"
    sql = " ".join(words)
    try:
        base.explain(sql)
    except Refused as refusal:
        if len(sql) <= TEXT_MAX and refusal.rule != "too-large":
            base.explain(refusal.instead)  # and is not refused


def test_a_refused_setting_is_not_blamed_on_the_text(base: Engine) -> None:
    with pytest.raises(Refused) as caught:
        base.explain("SELECT COUNT(*) FROM visits", epsilon=-1)
    assert caught.value.instead == ""
    assert caught.value.hint == "epsilon=0.1"


def test_a_proposal_speaks_the_dialect_it_was_asked_in(base: Engine) -> None:
    asked = "SELECT TOP 3 department, COUNT(*) FROM visits WHERE price > 5 GROUP BY department"
    refusal = refusal_of(base, asked, dialect="tsql")
    assert refusal.instead.startswith("SELECT TOP 3")
    assert base.explain(refusal.instead, dialect="tsql").releases
    shown, carets = str(refusal).splitlines()[1:3]  # the place is that in what is shown
    assert shown[carets.index("^") :].startswith("price")


def test_a_batch_says_which_question_and_what_instead(base: Engine) -> None:
    with pytest.raises(Refused, match="question 2") as caught:
        base.explain_many(["SELECT COUNT(*) FROM visits", "SELECT AVG(costs) FROM visits"])
    assert caught.value.instead == "SELECT AVG(cost) FROM visits"
