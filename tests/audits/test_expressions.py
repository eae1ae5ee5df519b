"""One million pairs of an expression and an extreme value: none raises, none leaves its domain.

    python -m pytest -m audit tests/audits/test_expressions.py

Expressions are every function of the allow-list over each other, up to three deep; rows hold every
extreme value of every type, alone and together. Each is computed by DuckDB as the planner prints
it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from random import Random

import pytest

from engine import Engine, Refused
from planner.bind import Bound, bind
from planner.domain import Type
from planner.parse import parse
from tests.engine.people import SPELLINGS, check_claims, nested, open_people

pytestmark = pytest.mark.audit

PAIRS = 1_000_000
KIND_OF = {Type.BOOLEAN: "truth", Type.INTEGER: "number", Type.REAL: "number", Type.DATE: "date",
           Type.TIMESTAMP: "moment", Type.TEXT: "text"}


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    opened = open_people(tmp_path_factory.mktemp("people") / "extreme", True, mixed=300)
    yield opened
    opened.close()


def _bound(expression: str, people: Engine) -> Bound | None:
    try:
        sql = f"SELECT {expression} AS x, COUNT(*) FROM people GROUP BY x"
        return bind(parse(sql), people.catalog)
    except Refused:
        return None


def test_no_expression_raises_or_leaves_its_domain_on_any_value(people: Engine) -> None:
    kinds: dict[str, list[str]] = defaultdict(list)
    for spelling in SPELLINGS:
        bound = _bound(spelling, people)
        if bound is not None and bound.releases[0].keys:
            kinds[KIND_OF[bound.releases[0].keys[0].domain.type]].append(spelling)
    r, pairs, seen = Random(20), 0, set[str]()
    while pairs < PAIRS:
        expression = nested(r, kinds, r.choice(SPELLINGS), r.randrange(1, 4))
        bound = None if expression in seen else _bound(expression, people)
        seen.add(expression)
        for release in () if bound is None else bound.releases:
            try:
                pairs += check_claims(people, release)
            except Exception as error:
                raise AssertionError(f"{expression}: {error}") from error
