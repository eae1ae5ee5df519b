"""Every case file: what is accepted runs and is bounded as its file says, what is refused is not.

Facts are checked twice: planned from the catalog alone (no database exists then), and on a real
engine, where the plan must be the same and the question must run with noise.
"""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from engine import Engine, Refused
from planner.catalog import Catalog
from tests.engine.replay import EPSILON, Case, facts_of, planned, read_cases
from tests.planner.clinic import clinic_catalog

ACCEPTED, REFUSED = read_cases("accepted"), read_cases("refused")


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return clinic_catalog()


def test_there_are_many_cases_and_none_has_two_names() -> None:
    assert len(ACCEPTED) >= 120
    assert len(REFUSED) >= 60
    for cases in (ACCEPTED, REFUSED):
        names = [str(case) for case in cases]
        assert len(names) == len(set(names))
        assert all(case.facts and case.sql for case in cases)


@pytest.mark.parametrize("case", ACCEPTED, ids=str)
def test_an_accepted_case_is_bounded_as_its_file_says(case: Case, catalog: Catalog) -> None:
    bound, plan = planned(case.sql, catalog)
    assert facts_of(bound, plan, case.sql) == case.facts
    # Many columns never cost more than was asked for.
    assert Fraction(plan.loss.exact_epsilon) <= EPSILON


@pytest.mark.parametrize("case", ACCEPTED, ids=str)
def test_an_accepted_case_runs_with_noise(case: Case, catalog: Catalog, base: Engine) -> None:
    result = base.query(case.sql, epsilon=0.5, bounds="declared")
    bound, plan = planned(case.sql, catalog)
    assert result.columns == tuple(name for name, _ in bound.rows.outputs)
    assert all(len(row) == len(result.columns) for row in result.rows)
    assert all(math.isfinite(cell) for row in result.rows for cell in row
               if isinstance(cell, float))
    assert not result.is_private
    stated = [(r.l1, r.l2, r.keys, r.strategy, r.mechanism) for r in result.plan.releases]
    explained = base.explain(case.sql, epsilon=0.5, bounds="declared")
    assert stated == [(r.l1, r.l2, r.keys, r.strategy, r.mechanism) for r in explained.releases]
    assert len(stated) == sum(len(r.measures) + (r.selection is not None) for r in plan.releases)


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_a_refused_case_is_refused_by_its_rule(case: Case, catalog: Catalog) -> None:
    with pytest.raises(Refused) as caught:
        planned(case.sql, catalog)
    assert (caught.value.rule,) == case.facts
    assert caught.value.message
