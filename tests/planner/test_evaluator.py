"""An expression computed for many rows is what it is for each: `evaluator` against `evaluate`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.domain import Domain, Type
from planner.expression import Column, Expression, Literal
from planner.functions import NotEnumerable, evaluate, evaluator, make

X, Y = (Column(1, name, Domain(Type.REAL)) for name in ("m1", "m2"))
NUMBERS = st.none() | st.floats(-1e9, 1e9) | st.integers(-9, 9)
ONES = ("abs", "floor", "sqrt", "ln")
TWOS = ("add", "sub", "mul", "div", "least", "greatest", "coalesce")


def literal(value: float) -> Literal:
    return Literal(value, Domain(Type.REAL, nullable=False, low=value, high=value))


EXPRESSIONS: st.SearchStrategy[Expression] = st.recursive(
    st.sampled_from([X, Y]) | st.floats(-5, 5).map(literal),
    lambda inner: st.builds(make, st.sampled_from(ONES), inner)
    | st.builds(make, st.sampled_from(TWOS), inner, inner)
    | inner.map(lambda e: make("add", make("mul", e, e), e)),
    max_leaves=8,
)


@given(EXPRESSIONS, st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5))
def test_rows_are_computed_as_one_by_one(
    expression: Expression, rows: list[tuple[float | None, float | None]]
) -> None:
    computed = evaluator(expression, (X, Y))
    for row in rows:
        try:
            wanted = evaluate(expression, {X: row[0], Y: row[1]})
        except NotEnumerable:
            with pytest.raises(NotEnumerable):
                computed(row)
        else:
            assert computed(row) == wanted or wanted != wanted


def test_a_given_part_is_not_computed() -> None:
    part = make("add", X, Y)
    assert evaluator(make("mul", part, literal(2.0)), (part,))((7.0,)) == 14.0


def test_a_column_that_is_not_given_cannot_be_computed() -> None:
    with pytest.raises(NotEnumerable):
        evaluator(make("add", X, Y), (X,))
