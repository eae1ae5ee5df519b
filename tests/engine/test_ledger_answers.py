"""Kept answers: the same question gets the same answer, and only paid answers are kept."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from engine.answers import Answers, StoredAnswer
from engine.ledger import Ledger
from mechanisms.loss import PrivacyLoss

BUDGET = (Decimal(1), Decimal("1e-6"))
KEY = "k" * 64


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "x", *BUDGET) as opened:
        for _ in range(3):
            opened.charge(
                PrivacyLoss.zero(),
                analyst="",
                quota=None,
                events_json="{}",
                sql="",
                plan_hash="",
                policy_hash="",
                data_version="v1",
            )
        yield opened


@pytest.fixture
def answers(ledger: Ledger) -> Iterator[Answers]:
    kept = Answers(ledger)
    yield kept
    kept.close()


def answer(seq: int, deviation: float = 2.0, payload: bytes = b"{}", **other: Any) -> StoredAnswer:
    fields = {"key": KEY, "data_version": "v1", **other}
    return StoredAnswer(deviation=deviation, payload=payload, charge_seq=seq, **fields)


def test_a_kept_answer_comes_back_and_survives(answers: Answers, tmp_path: Path) -> None:
    kept = answer(1, 0.1 + 0.2, b'{"n": 1}\xff\x00')
    answers.keep(kept)
    assert answers.find(KEY, "v1") == (kept,)
    assert answers.find(KEY, "v2") == answers.find("other", "v1") == ()
    with Ledger.open(tmp_path / "x", *BUDGET) as again:
        assert Answers(again).find_best(KEY, "v1", 0.1 + 0.2) == kept


def test_the_most_accurate_that_is_accurate_enough_is_found(answers: Answers) -> None:
    for seq, deviation in ((1, 3.0), (2, 1.0), (3, 2.0)):
        answers.keep(answer(seq, deviation))
    assert [kept.deviation for kept in answers.find(KEY, "v1")] == [1.0, 2.0, 3.0]
    for asked in (1.0, 2.5, math.inf):
        best = answers.find_best(KEY, "v1", asked)
        assert best is not None
        assert best.charge_seq == 2
    assert answers.find_best(KEY, "v1", math.nextafter(1.0, 0)) is None
    with pytest.raises(ValueError, match="at_most_deviation"):
        answers.find_best(KEY, "v1", math.nan)


def test_keeping_again_changes_nothing_and_the_first_charged_wins(answers: Answers) -> None:
    answers.keep(answer(2, payload=b"late"))
    answers.keep(answer(1, payload=b"first"))
    answers.keep(answer(1, payload=b"other"))
    best = answers.find_best(KEY, "v1", 2.0)
    assert best is not None
    assert best.payload == b"first"
    assert len(answers.find(KEY, "v1")) == 2


def test_only_paid_answers_are_kept(answers: Answers) -> None:
    for unpaid in (answer(4), answer(1, data_version="v2")):
        with pytest.raises(ValueError, match="charge a release before"):
            answers.keep(unpaid)
    assert answers.find(KEY, "v1") == ()


def test_a_changed_working_directory_leads_to_the_same_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    with Ledger.open("y", *BUDGET) as ledger:
        monkeypatch.chdir(elsewhere)
        kept = Answers(ledger)
        assert kept.find(KEY, "v1") == ()
        kept.close()
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("deviation", [-1.0, math.nan, math.inf])
def test_an_answer_has_a_deviation(deviation: float) -> None:
    with pytest.raises(ValueError, match="deviation"):
        answer(1, deviation)
    with pytest.raises(TypeError, match="bytes"):
        answer(1, payload="{}")  # type: ignore[arg-type]


def test_processes_keep_the_same_answers_at_once(answers: Answers, ledger: Ledger) -> None:
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for n in range(25):
                    answers.keep(answer(1 + n % 3, float(n % 3), key=f"k{n}"))
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert all(len(answers.find(f"k{n}", "v1")) == 1 for n in range(25))
    assert ledger.verify() == 3
