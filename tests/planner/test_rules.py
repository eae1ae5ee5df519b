"""Every rule refuses its own example, says where and what instead, and accepts the other form."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest

from planner.bind import Bound, bind
from planner.bounding import bound
from planner.catalog import Catalog
from planner.parse import parse
from planner.price import price
from planner.refusal import (
    CALL_RULES,
    RULES,
    Position,
    Refused,
    Rule,
    rules_page,
    underlined,
)
from tests.planner.clinic import clinic_catalog


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return clinic_catalog()


def planned(sql: str, catalog: Catalog) -> Bound:
    """Take a text down the whole public part of the road."""
    found = bind(parse(sql), catalog)
    releases = tuple(bound(release, None) for release in found.releases)
    price(releases, Fraction(1, 2), Fraction(1, 10**9), Fraction(22))
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_refuses_its_example(rule: Rule, catalog: Catalog) -> None:
    with pytest.raises(Refused) as caught:
        planned(rule.refused, catalog)
    assert caught.value.rule == rule.name
    assert caught.value.message


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_accepts_its_other_form(rule: Rule, catalog: Catalog) -> None:
    assert planned(rule.accepted, catalog).releases


def test_every_rule_in_the_code_is_listed() -> None:
    listed = {rule.name for rule in RULES} | {name for name, _ in CALL_RULES}
    used = set()
    for folder in ("planner", "engine"):
        for path in Path(folder).rglob("*.py"):
            used |= set(re.findall(r'[rR]efused\(\s*"([a-z-]+)"', path.read_text()))
    assert used == listed


def test_a_refusal_underlines_the_guilty_name(catalog: Catalog) -> None:
    with pytest.raises(Refused) as caught:
        planned("SELECT COUNT(*)\nFROM visits\nWHERE price > 5", catalog)
    lines = str(caught.value).splitlines()
    shown = next(i for i, line in enumerate(lines) if "WHERE price" in line)
    start = lines[shown].index("price")
    assert lines[shown + 1].index("^") == start
    assert lines[shown + 1].strip() == "^^^^^"


def test_a_long_line_is_cut_around_the_place() -> None:
    sql = "x" * 5_000 + "guilty" + "y" * 5_000
    shown, carets = underlined(sql, Position(1, 5_001, 6)).splitlines()
    assert len(shown) < 200
    assert shown[carets.index("^") :].startswith("guilty")


def test_the_reference_lists_the_rules_as_they_are() -> None:
    page = Path("docs/sql.md").read_text()
    assert rules_page() in page, "run `python -m planner.refusal` and put its output there"


HOSTILE = [
    "SET privacy = false", "PRAGMA database_list", "CALL pragma_version()", "ATTACH 'x.db'",
    "COPY visits TO 'out.csv'", "INSTALL httpfs", "SELECT * FROM 'visits.csv'",
    "SELECT * FROM query('SELECT 1')", "SELECT COUNT(*) FROM visits, LATERAL (SELECT 1)",
    "SELECT EXISTS (SELECT 1 FROM patients WHERE sex = 'F')",
    "SELECT 'north' IN (SELECT region FROM patients GROUP BY 1)",
    "SELECT current_setting('memory_limit')", "SELECT COUNT(*) FROM visits WHERE random() < 0.5",
    "SELECT getvariable('x')", "SELECT ANY_VALUE(diagnosis) FROM visits",
    "SELECT LIST(cost) FROM visits", "SELECT FIRST(cost) FROM visits",
    "SELECT ARG_MAX(diagnosis, cost) FROM visits", "SELECT HISTOGRAM(cost) FROM visits",
    "SELECT rowid FROM visits",
    "SELECT COUNT(*) FROM visits USING SAMPLE 3", "SELECT COUNT(*) FROM visits LIMIT 10%",
    "SELECT COUNT(*) FROM visits WHERE regexp_matches(diagnosis, diagnosis)",
    "SELECT COUNT(*) FROM visits WHERE diagnosis LIKE department",
    "SELECT SUM(cost) OVER () FROM visits", "SELECT COUNT(*) FROM visits FOR UPDATE",
    "SELECT COLUMNS('c.*') FROM visits",
    "SELECT (SELECT cost FROM visits)", "SELECT COUNT(*) FROM visits WHERE ?",
    "WITH RECURSIVE r AS (SELECT 1 AS x) SELECT COUNT(*) FROM r",
    "SELECT COUNT(*) FROM main.visits", "SELECT COUNT(*) FROM visits NATURAL JOIN patients",
    "SELECT COUNT(*) FROM visits WHERE visit_id = 4711", "SELECT SUM(visit_id) FROM visits",
    "SELECT COUNT(*) FROM visits WHERE patient_id + 1 = 5", "SELECT COUNT(*) FROM visits WHERE "
    "CAST(patient_id AS VARCHAR) LIKE '1%'", "SELECT COUNT(DISTINCT patient_id + 1) FROM visits",
    "SELECT MIN(visit_id) FROM visits", "SELECT __u FROM visits", "SELECT __rank FROM visits",
    "SELECT COUNT(*) FROM visits WHERE __u = 5", "SELECT repeat('x', 1000000000)",
    "SELECT COUNT(*) FROM range(10)", "SELECT COUNT(*) FROM visits ORDER BY cost",
    "SELECT COUNT(*) FROM visits GROUP BY visit_id", "", ";", "SELECT", "nonsense",
]


@pytest.mark.parametrize("sql", HOSTILE)
def test_hostile_or_broken_texts_are_refused_plainly(sql: str, catalog: Catalog) -> None:
    with pytest.raises(Refused) as caught:
        planned(sql, catalog)
    assert "Traceback" not in str(caught.value)


def test_constants_alone_read_nothing(catalog: Catalog) -> None:
    assert planned("SELECT 1 + 1 AS two", catalog).releases == ()
