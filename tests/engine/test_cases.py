"""Every case file: what is accepted runs and is bounded as its file says, what is refused is not.

Facts are checked twice: planned from the catalog alone (no database exists then), and on a real
engine, where the plan must be the same and the question must run with noise.
"""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from engine import Engine, Refused
from mechanisms.event import GaussianEvent, LaplaceEvent, ThresholdEvent
from mechanisms.pricing import loss_of
from planner.bind import bind
from planner.bounding import bound as bound_release
from planner.catalog import Catalog
from planner.parse import parse
from planner.price import Mechanism, price
from tests.engine.replay import DELTA, EPSILON, ORDER, Case, facts_of, planned, read_cases
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


@pytest.mark.parametrize("case", ACCEPTED, ids=str)
@pytest.mark.parametrize("delta", [DELTA, Fraction(1, 1000)])
def test_every_noised_column_is_paid_for(case: Case, delta: Fraction, catalog: Catalog) -> None:
    """Each column's noise is in an event at its own sensitivity and scale, each choice of keys
    has its delta there, and the events are what the plan charges."""
    bound = bind(parse(case.sql), catalog)
    bounded = tuple(bound_release(release, None) for release in bound.releases)
    plan = price(bounded, EPSILON, delta, ORDER)
    laplace = {(e.l1, e.scale) for e in plan.events if isinstance(e, LaplaceEvent)}
    gaussian = [part for e in plan.events if isinstance(e, GaussianEvent) for part in e.parts]
    thresholds = [e for e in plan.events if isinstance(e, ThresholdEvent)]
    columns = {c.key: c for r in plan.releases
               for c in (*r.measures, *([r.selection] if r.selection else []))
               if c.mechanism is not Mechanism.EXACT}
    for column in columns.values():
        if column.mechanism is Mechanism.LAPLACE:
            assert (column.l1, column.scale) in laplace
        else:
            assert (column.l2_squared, column.scale) in gaussian
    noises = [e for e in plan.events if isinstance(e, LaplaceEvent)]
    assert len(noises) + len(gaussian) == len(columns)
    chosen = {r.selection.key for r in plan.releases if r.selection}
    assert len(thresholds) == len(chosen)
    assert plan.loss == loss_of(plan.events, ORDER)


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_a_refused_case_is_refused_by_its_rule(case: Case, catalog: Catalog) -> None:
    with pytest.raises(Refused) as caught:
        planned(case.sql, catalog)
    assert (caught.value.rule,) == case.facts
    assert caught.value.message
