"""Functions that are not on the list: the refusal's hint is SQL that is accepted."""

from __future__ import annotations

import pytest

from planner.bind import bind
from planner.parse import parse
from planner.refusal import Refused
from planner.spellings import FALLBACK, NEAREST
from tests.planner.clinic import clinic_catalog

CATALOG = clinic_catalog()
ARGUMENTS = {"date_bin": "INTERVAL 1 MONTH, visit_date",
             "time_bucket": "INTERVAL 1 MONTH, visit_date",
             "split_part": "diagnosis, '.', 1", "split": "diagnosis, '.'",
             "regexp_extract": "diagnosis, 'A'", "initcap": "diagnosis", "cbrt": "cost",
             "current_date": "", "today": "", "now": "", "getdate": "", "current_timestamp": ""}
FORMATTED = ("time_to_str", "strftime", "to_char", "format_date", "date_format")


def _refusal(expression: str) -> Refused:
    with pytest.raises(Refused) as found:
        bind(parse(f"SELECT COUNT(*) FROM visits WHERE ({expression}) IS NULL"), CATALOG)
    return found.value


def _call(name: str) -> str:
    inside = ARGUMENTS.get(name, "visit_date, '%Y-%m'" if name in FORMATTED else "visit_date")
    return f"{name}({inside})" if inside or name not in ("current_date",) else name


@pytest.mark.parametrize("name", sorted(NEAREST))
def test_what_is_nearly_meant_is_accepted(name: str) -> None:
    refusal = _refusal(_call(name))
    assert refusal.rule == "unknown-function"
    assert refusal.hint != FALLBACK
    bind(parse(f"SELECT COUNT(*) FROM visits WHERE ({refusal.hint}) IS NULL"), CATALOG)


@pytest.mark.parametrize(("written", "meant"), [
    ("ceeil(cost)", "CEIL(cost)"), ("lenght(diagnosis)", "LENGTH(diagnosis)"),
    ("coalesc(los, 3)", "COALESCE(los, 3)"), ("clamb(cost, 0, 5)", "CLAMP(cost, 0, 5)"),
])
def test_a_name_that_is_nearly_written_is_suggested(written: str, meant: str) -> None:
    refusal = _refusal(written)
    assert refusal.hint == meant
    bind(parse(f"SELECT COUNT(*) FROM visits WHERE ({meant}) IS NULL"), CATALOG)


@pytest.mark.parametrize("unheard", ["soundex(diagnosis)", "median_of(los)", "xyz()"])
def test_nothing_is_suggested_for_what_is_like_nothing(unheard: str) -> None:
    assert _refusal(unheard).hint == FALLBACK
