"""The same question is answered once, whoever asks and however; another question never shares.

Soundness of kept answers: two columns with one key must have one exact answer on every database.
It is tested on clinics and their neighbours, with random questions and small mutations of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Engine, Refused
from engine.clinic import clinic_policy
from mechanisms.loss import PrivacyLoss
from tests.engine.questions import question
from tests.engine.replay import read_cases, replayed

ANALYSTS = "analysts: {ana: {epsilon: 400}, ben: {epsilon: 400}}\n"
FREE = PrivacyLoss.zero()


def policy_of(path: Path, **changes: str) -> str:
    """Return the clinic's policy with a large budget, two analysts and the given replacements."""
    text = clinic_policy(path, epsilon=900.0) + ANALYSTS
    for old, new in changes.items():
        text = text.replace(old.replace("_", " "), new)
    return text


@pytest.fixture
def policy(base_path: Path, tmp_path: Path) -> Path:
    (tmp_path / "clinic.duckdb").write_bytes(base_path.read_bytes())
    (tmp_path / "clinic.yaml").write_text(policy_of(tmp_path / "clinic.duckdb"))
    return tmp_path / "clinic.yaml"


@pytest.fixture
def engine(policy: Path) -> Iterator[Engine]:
    with Engine.open(policy, analyst="ana") as opened:
        yield opened


REWRITES = [
    ("SELECT COUNT(*) FROM visits", "SELECT COUNT(*) AS n FROM visits AS v"),
    ("SELECT COUNT(*) FROM visits WHERE los > 5", "SELECT COUNT(*) FROM visits WHERE NOT los <= 5"),
    ("SELECT COUNT(*) FROM visits WHERE los > 5 AND readmitted",
     "SELECT COUNT(*) FROM visits WHERE readmitted AND 5 < los"),
    ("SELECT COUNT(*) FROM visits WHERE los BETWEEN 2 AND 5",
     "SELECT COUNT(*) FROM visits WHERE los >= 2 AND los <= 5"),
    ("SELECT COUNT(*) FROM visits WHERE los = 5", "SELECT COUNT(*) FROM visits WHERE 5.0 = los"),
    ("SELECT COUNT(*) FROM visits WHERE los IN (1, 2, 3)",
     "SELECT COUNT(*) FROM visits WHERE los IN (3, 1, 2, 1)"),
    ("SELECT COUNT(*) FROM visits WHERE department IN ('surgery')",
     "SELECT COUNT(*) FROM visits WHERE department = 'surgery'"),
    ("SELECT department, COUNT(*) FROM visits GROUP BY department",
     "WITH v AS (SELECT * FROM visits) SELECT d.department AS x, COUNT(*) FROM v AS d GROUP BY 1"),
    ("SELECT AVG(cost) FROM visits WHERE los > 5",
     "SELECT AVG(c) FROM (SELECT cost AS c, los AS l FROM visits) AS t WHERE l > 5"),
    ("SELECT COUNT(*) FROM visits v JOIN patients p ON v.patient_id = p.patient_id AND "
     "p.sex = 'F' WHERE v.los > 5",
     "SELECT COUNT(*) FROM visits v JOIN patients p ON v.patient_id = p.patient_id AND "
     "v.los > 5 WHERE p.sex = 'F'"),
    ("SELECT COUNT(*) FROM visits v JOIN patients p ON v.patient_id = p.patient_id",
     "SELECT COUNT(*) FROM patients p JOIN visits v USING (patient_id)"),
    ("SELECT COUNT(*) FROM visits v JOIN patients p USING (patient_id) WHERE p.sex = 'F'",
     "SELECT COUNT(*) FROM patients p, visits v WHERE p.sex = 'F' AND p.patient_id = v.patient_id"),
    ("SELECT SUM(cost + los) FROM visits", "SELECT SUM(los + cost) FROM visits"),
    ("SELECT SUM(v.los + p.birth_year) FROM visits v JOIN patients p USING (patient_id)",
     "SELECT SUM(p.birth_year + v.los) FROM patients p JOIN visits v USING (patient_id)"),
    ("SELECT COUNT(cost) FROM visits", "SELECT COUNT(*) FROM visits WHERE cost IS NOT NULL"),
    ("SELECT COUNT(*) FILTER (WHERE readmitted) FROM visits", "SELECT COUNT_IF(readmitted) FROM "
     "visits"),
    ("SELECT department, SUM(los) FROM visits GROUP BY department",
     "SELECT department, SUM(los) AS s FROM visits GROUP BY department ORDER BY s LIMIT 20"),
    ("SELECT COUNT(*) FROM visits WHERE los > 5 OR readmitted",
     "SELECT COUNT(*) FROM visits WHERE NOT (los <= 5 AND NOT readmitted)"),
    ("SELECT COUNT(DISTINCT patient_id) FROM visits", "SELECT COUNT(DISTINCT v.patient_id) FROM "
     "visits AS v"),
    ("SELECT diagnosis, COUNT(*) FROM visits GROUP BY diagnosis",
     "SELECT v.diagnosis AS d, COUNT(*) AS n FROM visits v GROUP BY d"),
]
# Told apart although they mean the same: paid twice, which is safe.
PAID_TWICE = {"SELECT COUNT(cost) FROM visits"}


@pytest.mark.parametrize(("first", "second"), REWRITES)
def test_another_spelling_costs_nothing_and_gives_the_same_answer(
    first: str, second: str, engine: Engine
) -> None:
    one = engine.query(first, epsilon=0.5)
    two = engine.query(second, epsilon=0.5, analyst="ben")
    assert not one.cached
    if first in PAID_TWICE:
        return
    assert two.cached
    assert two.cost == FREE
    assert sorted(map(repr, one.rows)) == sorted(map(repr, two.rows))
    assert len(engine.history()) == 1


@pytest.mark.parametrize(("sql", "epsilon"), [
    ("SELECT COUNT(*) FROM visits", 0.5),  # Laplace
    ("SELECT department, COUNT(DISTINCT patient_id) FROM visits GROUP BY department", 1.0),
    ("SELECT diagnosis, COUNT(*) FROM visits GROUP BY diagnosis", 0.5),  # keys are chosen
    ("SELECT MEDIAN(cost), STDDEV(los) FROM visits", 0.5),
])
def test_every_kind_of_noise_is_paid_for(sql: str, epsilon: float, engine: Engine) -> None:
    result = engine.query(sql, epsilon=epsilon, delta=1e-7)
    assert result.cost.epsilon == pytest.approx(epsilon, rel=1e-6)
    assert engine.budget().spent == result.cost
    if "DISTINCT" in sql:
        assert {r.mechanism for r in result.plan.releases} == {"gaussian"}


def test_averaging_is_impossible_for_one_many_or_later(policy: Path) -> None:
    sql = "SELECT department, COUNT(*), AVG(cost) FROM visits GROUP BY department"
    answers = []
    for _ in range(2):
        with Engine.open(policy) as engine:
            for analyst in ("ana", "ben", "ana"):
                answers.append(engine.query(sql, epsilon=0.5, analyst=analyst).rows)
            assert len(engine.history()) == 1
            assert engine.budget().spent.epsilon == pytest.approx(0.5)
    assert all(rows == answers[0] for rows in answers)


def test_a_more_accurate_answer_serves_a_less_accurate_question(engine: Engine) -> None:
    sql = "SELECT COUNT(*) FROM visits"
    fine = engine.query(sql, epsilon=1.0)
    rough = engine.query(sql, epsilon=0.1)
    assert rough.cached
    assert (rough.rows, rough.intervals) == (fine.rows, fine.intervals)
    finer = engine.query(sql, epsilon=2.0)
    assert not finer.cached
    assert len(engine.history()) == 2


def test_a_column_is_kept_beside_its_own_choice_of_keys(engine: Engine) -> None:
    """Counts of some keys are no answer for other keys that were chosen more accurately since."""
    sql = "SELECT diagnosis, COUNT(*) FROM visits GROUP BY diagnosis"
    engine.query(sql, epsilon=20)
    keys = engine.query("SELECT diagnosis FROM visits GROUP BY diagnosis", epsilon=300)
    assert len(keys.rows) > 3
    again = engine.query(sql, epsilon=20)
    assert [row[:1] for row in again.rows] == keys.rows
    assert not again.cached
    assert again.cost.epsilon > 0


def test_parts_of_a_question_are_shared(engine: Engine) -> None:
    # By default an average alone has a pilot, and so other bounds than a count beside it.
    average = engine.query("SELECT AVG(cost) FROM visits", epsilon=1.0, bounds="declared")
    both = engine.query("SELECT AVG(cost), COUNT(cost) FROM visits", epsilon=1.0,
                        bounds="declared")
    assert both.cost == FREE
    assert both.rows[0][0] == average.rows[0][0]


@pytest.mark.parametrize("second", [
    {"rows": 3}, {"delta": 1e-7}, {}])
def test_another_number_of_rows_is_another_question(
    second: dict[str, float], engine: Engine
) -> None:
    engine.query("SELECT COUNT(*) FROM visits", epsilon=0.5)
    again = engine.query("SELECT COUNT(*) FROM visits", epsilon=0.5, **second)  # type: ignore[arg-type]
    assert again.cached is ("rows" not in second)


def test_new_data_is_another_question_and_renews_no_budget(policy: Path) -> None:
    import duckdb

    with Engine.open(policy, analyst="ana") as engine:
        engine.query("SELECT COUNT(*) FROM visits", epsilon=0.5)
        with duckdb.connect(str(policy.parent / "clinic.duckdb")) as c:
            c.execute("DELETE FROM visits WHERE visit_id = 200000")
        engine.refresh()
        again = engine.query("SELECT COUNT(*) FROM visits", epsilon=0.5)
        assert not again.cached
        assert engine.budget().spent.epsilon == pytest.approx(1.0)


def test_other_policy_bounds_are_another_question(policy: Path) -> None:
    with Engine.open(policy, analyst="ana") as engine:
        engine.query("SELECT SUM(cost) FROM visits", epsilon=0.5)
    text = policy.read_text().replace("cost: {real: [0, 20000]}", "cost: {real: [0, 10000]}")
    policy.write_text(text)
    with Engine.open(policy, analyst="ana") as engine:
        assert not engine.query("SELECT SUM(cost) FROM visits", epsilon=0.5).cached


# ---- no two different questions share a key ------------------------------------------------

SWAPS = (
    ("<=", "<"), ("<", "<="), (">=", ">"), (">", ">="), (" AND ", " OR "), (" OR ", " AND "),
    ("v.cost", "v.los"), ("v.los", "v.cost"), ("v.", "w."), ("p.sex", "p.region"), ("LEFT JOIN",
    "JOIN"), ("JOIN", "LEFT JOIN"), ("COUNT(*)", "COUNT(v.cost)"), ("SUM(", "AVG("), ("NOT ", ""),
    ("LEFT(", "RIGHT("), ("FLOOR", "CEIL"), ("ABS(", "-("), ("'surgery'", "'urology'"), ("'F'",
    "'M'"), ("TRUE", "FALSE"), ("month", "year"), ("RANK", "DENSE_RANK"), ("MAX(", "MIN("),
    ("NOT IN", "IN"), (" WHERE ", " WHERE v.los > 2 AND "),
    ("<= 3", "<= 2"), ("0.5", "0.25"), ("COALESCE", "NULLIF"), ("t.c0", "t.c1"), ("t.c1", "t.c2"),
    ("//", "/"), ("%", "//"), ("c0", "c1"), ("IS NULL", "IS NOT NULL"), ("UPPER", "LOWER"),
)


def mutated(r: Random, sql: str) -> str:
    """Return the question with one small change, which may or may not change its meaning."""
    fitting = [(old, new) for old, new in SWAPS if old in sql]
    if r.random() < 0.3 or not fitting:
        numbers = list(re.finditer(r"(?<![\w'.])\d+(?![\w'.])", sql))
        if numbers:
            found = r.choice(numbers)
            return f"{sql[:found.start()]}{int(found.group()) + 1}{sql[found.end():]}"
    if not fitting:
        return sql
    old, new = r.choice(fitting)
    places = [m.start() for m in re.finditer(re.escape(old), sql)]
    place = r.choice(places)
    return sql[:place] + new + sql[place + len(old):]


def fingerprint(clinics: dict[str, Engine], sql: str) -> dict[str, str]:
    """Return each column's key (with its grid and what was given) and its exact answers."""
    found: dict[str, list[str]] = {}
    for engine in clinics.values():
        run = replayed(engine, sql)
        for _, column, vector in run.vectors:
            exact = sorted((repr(key), n) for key, n in vector.items() if n)
            name = f"{column.key}|{column.grid}|{run.given!r}"
            found.setdefault(name, []).append(repr(exact))
    return {name: "|".join(parts) for name, parts in found.items()}


def test_no_two_accepted_cases_share_a_key_and_differ(clinics: dict[str, Engine]) -> None:
    some = {name: clinics[name] for name in ("base", "with a dirty patient", "with a thief")}
    seen: dict[str, tuple[str, str]] = {}
    for case in read_cases("accepted"):
        for key, exact in fingerprint(some, case.sql).items():
            sql, before = seen.setdefault(key, (case.sql, exact))
            assert before == exact, f"one key, two answers:\n{sql}\n{case.sql}"


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_no_mutation_of_a_question_shares_its_key_and_differs(
    clinics: dict[str, Engine], seed: int
) -> None:
    r = Random(seed)
    some = {name: clinics[name] for name in ("base", "with a dirty patient")}
    sql = question(r)
    seen: dict[str, tuple[str, str]] = {}
    for text in (sql, mutated(r, sql), mutated(r, mutated(r, sql))):
        try:
            found = fingerprint(some, text)
        except Refused:
            continue
        for key, exact in found.items():
            first, before = seen.setdefault(key, (text, exact))
            assert before == exact, f"one key, two answers:\n{first}\n{text}"


def test_a_released_table_and_a_union_are_told_apart(base: Engine) -> None:
    """Was a real bug: numbers of given answers and of other instances could be the same."""
    given_table = "(SELECT department AS d, COUNT(*) AS n FROM visits GROUP BY department) AS g"
    for parts in range(2, 9):
        union = " UNION ALL ".join(["SELECT department AS d, los AS n, patient_id FROM visits"]
                                   * parts)
        text = (f"SELECT COUNT(*) FROM visits v JOIN {given_table} ON v.department = g.d "
                f"JOIN ({union}) AS u ON u.patient_id = v.patient_id WHERE ")
        keys = {
            replayed(base, text + condition).vectors[-1][1].key
            for condition in ("u.n > 5", "g.n > 5")
        }
        assert len(keys) == 2
