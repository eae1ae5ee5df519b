"""Encodings: bounded whatever the rows hold, the same in SQL and in `predict`."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.encoding import Encoding, Task, bucket
from planner.refusal import Refused
from planner.training_view import Coding, Feature

FEATURES = (
    Feature("age", Coding.NUMBER, True, 0.0, 120.0),
    Feature("male", Coding.TRUTH, True),
    Feature("ward", Coding.CHOICE, True, values=("a", "b", "c")),
    Feature("seen", Coding.MOMENT, False, 0.0, 86_400.0 * 365),
    Feature("text", Coding.BUCKETS, True, buckets=4),
)
LABEL = Feature("ill", Coding.TRUTH, False)
ENCODING = Encoding(FEATURES, LABEL)


@given(st.floats(), st.floats(), st.integers(-2**40, 2**40), st.floats(), st.integers(-9, 2**40))
def test_inputs_are_bounded_whatever_the_columns_hold(
    age: float, male: float, ward: int, seen: float, text: int
) -> None:
    matrix = ENCODING.matrix([[age], [male], [ward], [seen], [text]])
    assert matrix.shape == (1, ENCODING.width)
    assert np.isfinite(matrix).all()
    assert np.abs(matrix).max() <= 1


@given(st.floats())
def test_targets_are_bounded(value: float) -> None:
    for label in (LABEL, Feature("k", Coding.CHOICE, False, values=("a", "b", "c")),
                  Feature("x", Coding.NUMBER, False, -5.0, 5.0)):
        if label.coding is Coding.CHOICE and not abs(value) < 1e9:
            continue  # codes are integers
        target = Encoding(FEATURES, label).target([value])
        assert np.isfinite(target).all()
        assert -1 <= target[0] <= 2


def test_missing_values_are_zero_and_said_so() -> None:
    names = ENCODING.names
    row = ENCODING.matrix([[math.nan], [math.nan], [0], [0.0], [0]])[0]
    shown = dict(zip(names, row.tolist(), strict=True))
    assert shown["age"] == shown["male"] == 0
    assert shown["age is missing"] == shown["male is missing"] == 1
    assert not any(shown[name] for name in names if "=" in name or "#" in name)


def test_it_is_read_back_equal() -> None:
    assert Encoding.from_dict(ENCODING.to_dict()) == ENCODING


def test_the_task_follows_from_the_label() -> None:
    def task(label: Feature) -> Task:
        return Encoding(FEATURES, label).task

    assert task(LABEL) is Task.BINARY
    assert task(Feature("d", Coding.NUMBER, False, 0.0, 1.0, whole=True)) is Task.BINARY
    assert task(Feature("d", Coding.NUMBER, False, 0.0, 1.0)) is Task.REAL
    assert task(Feature("k", Coding.CHOICE, False, values=("a", "b"))) is Task.BINARY
    assert task(Feature("k", Coding.CHOICE, False, values=("a", "b", "c"))) is Task.CLASSES


def test_a_hash_is_the_same_everywhere() -> None:
    assert [bucket(text, 8) for text in ("A00.1", "", "B12")] == [3, 1, 3]


def test_a_missing_column_is_named() -> None:
    with pytest.raises(Refused, match="no column ward"):
        ENCODING.columns({"age": [1], "male": [True]})
