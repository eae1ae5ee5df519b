"""Results in; what people and programs are shown: honest rounding, safe text, forms that parse."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import date
from decimal import Decimal
from types import MappingProxyType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.display import (
    NOT_PRIVATE,
    as_csv,
    as_html,
    as_json,
    as_markdown,
    as_text,
    show,
)
from engine.postprocess import Table
from engine.result import Result
from mechanisms.loss import PrivacyLoss
from planner.domain import Type
from planner.plan import Plan, PlannedRelease

PRICE = PrivacyLoss(Decimal("0.1"), Decimal("1e-9"), Decimal("0.02"))


def result_of(
    columns=("sex", "n"), types=(Type.TEXT, Type.INTEGER), rows=(("F", 1234), (None, -3)),
    intervals=((None, (1194, 1274)), (None, (-43, 37))), *, cached=False, keys="public",
    private=True,
) -> Result:
    release = PlannedRelease(columns[-1], "laplace", 10.0, 1.0, 1.0, 1.0, keys, "row rank",
                             "at most 1 row", 40.0)
    plan = Plan("SELECT ...", PRICE, PRICE, (release,), MappingProxyType({columns[-1]: 40.0}),
                "SELECT 1", "SELECT 2", 3)
    table = Table(tuple(columns), tuple(types), tuple(rows), tuple(intervals))
    cost = PrivacyLoss.zero() if cached else PRICE
    return Result(table, cost, cached, plan, private)


# ---- rounding -----------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "interval", "kind", "shown"), [
    (1234, (1194, 1274), Type.INTEGER, "1,234 ± 40"),
    (17168, (16929, 17407), Type.INTEGER, "17,170 ± 250"),
    (-4, (-6, -2), Type.INTEGER, "-4 ± 2"),
    (0, (-3.0, 3.0), Type.INTEGER, "0 ± 3"),
    (1234.567, (1194.5, 1274.634), Type.REAL, "1,235 ± 41"),
    (0.0123456, (0.0113456, 0.0133456), Type.REAL, "0.0123 ± 0.0011"),
    (-0.001, (-5.001, 4.999), Type.REAL, "0.0 ± 5.1"),
    (1.2, (1.05, 1.6), Type.REAL, "1.20 (1.05 .. 1.60)"),
    (12, (12, 12), Type.INTEGER, "12"),
    (12.5, None, Type.REAL, "12.5 ± ?"),
    (float("inf"), (0, 1), Type.REAL, "inf ± ?"),
    (None, None, Type.REAL, "NULL"),
    (None, (0.0, 40.0), Type.REAL, "NULL"),
    (2**80, (2**80 - 2, 2**80 + 2), Type.INTEGER, "1,208,925,819,614,629,174,706,176 (1,208,925,"
     "819,614,629,174,706,174 .. 1,208,925,819,614,629,174,706,178)"),
])
def test_a_noisy_number_is_rounded_to_what_its_interval_supports(value, interval, kind, shown):
    found = str(show(value, interval, kind))
    if value == 2**80:  # whether its sides count as equal does not matter here
        assert found.startswith("1,208,925,819,614,629,174,706,176 ")
    else:
        assert found == shown


@given(
    st.one_of(st.integers(-10**9, 10**9), st.floats(-1e9, 1e9)),
    st.floats(1e-6, 1e8), st.floats(1e-6, 1e8), st.booleans(),
)
@example(1234.567, 40.0, 40.0, True)
@example(0, 3.2, 3.2, True)
@example(99.96, 9.99, 9.99, True)
def test_rounding_never_makes_an_answer_look_surer_than_it_is(value, below, above, even):
    """The value moves by half a unit at most; the shown interval contains the true one."""
    above = below if even else above
    low, high = value - below, value + above
    if not low < value < high:
        return
    kind = Type.INTEGER if isinstance(value, int) else Type.REAL
    cell = show(value, (low, high), kind)
    half = (Decimal(repr(high)) - Decimal(repr(low))) / 2
    unit = Decimal(10) ** (half.adjusted() - 1)
    if kind is Type.INTEGER:
        unit = max(unit, Decimal(1))
    shown = number(cell.value)
    assert abs(shown - Decimal(repr(value))) <= unit / 2
    if cell.spread.startswith("±"):
        reach = number(cell.spread[2:])
        first, last = shown - reach, shown + reach
        assert reach <= half * (1 + Decimal("1e-5")) + 2 * unit
    else:
        first, last = (number(end) for end in cell.spread.strip("()").split(" .. "))
    assert first <= Decimal(repr(low))
    assert Decimal(repr(high)) <= last


def number(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


def test_keys_keep_their_digits():
    made = result_of(("year", "n"), (Type.INTEGER, Type.INTEGER), ((1950, 7),), ((None, (1, 13)),))
    assert "1950" in as_text(made)


# ---- text ---------------------------------------------------------------------------------


def test_text_is_aligned_and_ends_with_the_price():
    assert as_text(result_of()) == (
        "sex       n\n"
        "----  ----------\n"
        "F     1,234 ± 40\n"
        "NULL     -3 ± 40\n"
        "2 rows of 3 public groups; price: epsilon 0.1, delta 1e-09; ± is the noise at 95 %"
    )


def test_the_footer_says_what_was_free_and_what_is_hidden():
    assert "free: answered before" in as_text(result_of(cached=True))
    assert "small groups are hidden" in as_text(result_of(keys="selected"))


@pytest.mark.parametrize("form", [as_text, as_html, as_markdown])
def test_insecure_testing_is_stamped_first(form):
    text = form(result_of(private=False))
    before = text.partition(NOT_PRIVATE)[0]
    assert NOT_PRIVATE in text
    assert "1,234" not in before
    assert NOT_PRIVATE not in form(result_of())


def test_a_long_result_is_cut_and_says_so():
    made = result_of(rows=[(f"k{i}", i) for i in range(100)],
                     intervals=[(None, (i - 5, i + 5)) for i in range(100)])
    assert "... 60 more rows" in as_text(made)
    assert "k99" not in as_text(made)
    assert "60 more rows are not shown" in as_html(made)
    assert "k99" in as_text(made, limit=None)
    assert as_csv(made).count("\n") == 100


def test_no_rows_still_have_columns():
    made = result_of(rows=(), intervals=())
    assert as_text(made).splitlines()[0] == "sex  n"
    assert as_csv(made) == "sex,n,n_low,n_high"


def test_text_cannot_move_a_terminals_cursor_or_add_lines():
    made = result_of(rows=(("\x1b[2J\nF|", 1),), intervals=((None, (0, 2)),))
    assert "\\x1b[2J\\nF|" in as_text(made)
    assert len(as_text(made).splitlines()) == 4
    assert r"\\x1b[2J\\nF\|" in as_markdown(made)


def test_wide_signs_and_accents_keep_columns_straight():
    made = result_of(rows=(("東京", 1), ("é", 22)), intervals=((None, None), (None, None)))
    lines = as_text(made).splitlines()
    assert lines[2] == "東京   1 ± ?"
    assert lines[3] == "é     22 ± ?"


# ---- HTML ---------------------------------------------------------------------------------


def test_html_escapes_names_and_values():
    made = result_of(("<b>", "n"), rows=(("<script>alert(1)</script> & \"x\"", 5),),
                     intervals=((None, (1, 9)),))
    html = as_html(made)
    assert "<script>" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html
    assert "&amp; &quot;x&quot;" in html


def test_html_shows_the_interval_as_text_and_as_a_bar():
    html = result_of()._repr_html_()
    assert "± 40" in html
    assert html.count("linear-gradient") == 2
    assert re.search(r"price: epsilon 0.1", html)


# ---- for programs -------------------------------------------------------------------------


def test_csv_parses_back_unrounded_with_both_ends():
    made = result_of(
        ("day", "cost"), (Type.DATE, Type.REAL),
        ((date(2020, 1, 2), 1234.5678901234567), (None, None), ("a,\"b\"\n", 0.1)),
        ((None, (1200.1, 1269.0)), (None, None), (None, (-1.0, 1.2))),
    )
    rows = list(csv.reader(io.StringIO(as_csv(made))))
    assert rows[0] == ["day", "cost", "cost_low", "cost_high"]
    assert rows[1] == ["2020-01-02", "1234.5678901234567", "1200.1", "1269.0"]
    assert rows[2] == ["", "", "", ""]
    assert rows[3] == ["a,\"b\"\n", "0.1", "-1.0", "1.2"]


def test_json_parses_back_with_price_and_plan():
    made = result_of(rows=(("F", 1234), ("M", float("nan"))))
    found = json.loads(as_json(made))
    assert found["rows"][0] == {"sex": "F", "n": 1234, "n_low": 1194, "n_high": 1274}
    assert found["rows"][1]["n"] is None
    assert found["cost"] == {"epsilon": 0.1, "delta": 1e-9, "rdp": 0.02}
    assert found["is_private"] is True
    assert found["cached"] is False
    assert found["plan"]["releases"][0]["mechanism"] == "laplace"


def test_no_name_stands_twice_for_programs():
    made = result_of(("n_low", "n", "n"), (Type.INTEGER,) * 3, ((1, 2, 3),),
                     ((None, (1, 3), (2, 4)),))
    names = json.loads(as_json(made))["columns"]
    assert len(set(names)) == len(names) == 7
    assert names[:2] == ["n_low", "n"]


def test_markdown_is_a_table():
    lines = as_markdown(result_of()).splitlines()
    assert lines[:3] == ["| sex | n |", "| --- | ---: |", "| F | 1,234 ± 40 |"]
    assert lines[-1].startswith("*2 rows")
