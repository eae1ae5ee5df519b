"""Every function on every extreme value: no error, nothing outside the stated domain.

One patient with extreme values is the only difference between two databases. Whatever the
planner accepts must run on both, with the same columns, types and price; what it computes must
lie in the domain the planner claims; and a public key list must hold every key that occurs.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Engine, Refused
from planner.bind import bind
from planner.expression import Call, walk
from planner.functions import FUNCTIONS
from planner.functions.learned import LEARNED
from planner.parse import parse
from planner.pilot import Bounds
from tests.engine.people import SPELLINGS, check_claims, open_people
from tests.engine.questions import PATIENTS, VISITS, question, scalar
from tests.engine.replay import Run, public_part, replayed, violations


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Engine]]:
    """An engine on ordinary rows, and one on the same with an extreme patient more."""
    folder = tmp_path_factory.mktemp("people")
    pair = open_people(folder / "plain", False), open_people(folder / "extreme", True)
    yield pair
    for engine in pair:
        engine.close()


# ---- what is claimed of an expression ------------------------------------------------------


def check(plain: Engine, extreme: Engine, sql: str) -> None:
    """Check one accepted question with at most one key on both databases."""
    one = replayed(plain, sql)
    two = replayed(extreme, sql, like=one)
    assert public_part(one) == public_part(two)
    for engine in (plain, extreme):
        for release in one.bound.releases:
            check_claims(engine, release)
    answers = [engine.query(sql, epsilon=0.5) for engine in (plain, extreme)]
    assert answers[0].columns == answers[1].columns
    assert answers[0].table.types == answers[1].table.types


@pytest.mark.parametrize("expression", SPELLINGS)
def test_a_function_is_total_and_stays_in_its_domain(
    expression: str, people: tuple[Engine, Engine]
) -> None:
    plain, extreme = people
    for sql in (
        f"SELECT {expression} AS x, COUNT(*) FROM people GROUP BY x",
        f"SELECT COUNT(*) FROM people WHERE ({expression}) IS NULL",
        f"SELECT COUNT(DISTINCT {expression}) FROM people",
        f"SELECT SUM(CLAMP({expression}, -7, 1.0e6)), AVG(CLAMP({expression}, 0, 3)) FROM people",
        f"SELECT SUM({expression}) FROM people",
        f"SELECT AVG(x) FROM (SELECT id, MAX({expression}) AS x FROM people GROUP BY id) AS t",
    ):
        try:
            plain.explain(sql, epsilon=0.5)
        except Refused:
            continue
        check(plain, extreme, sql)


def test_the_spellings_use_every_function_of_the_list(people: tuple[Engine, Engine]) -> None:
    catalog = people[0].catalog
    used: set[str] = set()
    for expression in SPELLINGS:
        try:
            sql = f"SELECT COUNT(*) FROM people WHERE ({expression}) IS NULL"
            bound = bind(parse(sql), catalog)
        except Refused:
            continue
        for release in bound.releases:
            conditions = [*release.input.conditions] if hasattr(release.input, "conditions") else []
            used |= {n.function for c in conditions for n in walk(c) if isinstance(n, Call)}
    # Arithmetic above a release; and published models, which test_predictions.py strains.
    others = {"average", "from_two_rows"} | {entry.name for entry in LEARNED}
    assert set(FUNCTIONS) - used <= others


# ---- random expressions and questions ------------------------------------------------------

BOTH = [(f"v.{n}", k) for n, k in VISITS.items()] + [(f"p.{n}", k) for n, k in PATIENTS.items()]
SEEDS = st.integers(0, 2**32)


@settings(max_examples=60)
@given(SEEDS, st.sampled_from(["number", "text", "truth", "date"]))
def test_random_expressions_never_fail_and_stay_in_their_domains(
    clinics: dict[str, Engine], seed: int, kind: str
) -> None:
    expression = scalar(Random(seed), BOTH, kind, 4)
    sql = (f"SELECT {expression} AS x, COUNT(*) FROM visits v JOIN patients p USING (patient_id) "
           "GROUP BY x")
    try:
        clinics["base"].explain(sql, epsilon=0.5)
    except Refused:
        return
    check(clinics["base"], clinics["with a dirty patient"], sql)


@settings(max_examples=40)
@given(SEEDS, st.sampled_from(["with a greedy patient", "with a thief", "with a dirty patient",
                               "without the heavy patient"]),
       st.sampled_from([Bounds.DECLARED, Bounds.AUTO]))
def test_random_questions_keep_their_sensitivity(
    clinics: dict[str, Engine], seed: int, change: str, bounds: Bounds
) -> None:
    sql = question(Random(seed))
    try:
        one: Run = replayed(clinics["base"], sql, bounds=bounds)
    except Refused:
        return
    assert list(violations(one, replayed(clinics[change], sql, like=one, bounds=bounds))) == []
