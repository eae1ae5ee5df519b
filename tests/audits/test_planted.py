"""Planted bugs still fit the code, their tests still exist, and the runner can tell.

`make audit` runs all of them (tests/audits/planted.py); here each is only looked at.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.audits.planted import PLANTED, ROOT, Planted, tried


def test_there_are_enough_and_none_has_two_names() -> None:
    assert len(PLANTED) >= 25
    assert len({p.name for p in PLANTED}) == len(PLANTED)


@pytest.mark.parametrize("planted", PLANTED, ids=lambda p: p.name)
def test_a_planted_bug_fits_the_code_and_names_tests_that_exist(
    planted: Planted, tmp_path: Path
) -> None:
    path = tmp_path / planted.file
    path.parent.mkdir(parents=True)
    path.write_text((ROOT / planted.file).read_text(encoding="utf-8"), encoding="utf-8")
    planted.apply(tmp_path)
    ast.parse(path.read_text(encoding="utf-8"))  # a bug, not a syntax error
    for test in planted.tests:
        file, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / file).read_text(encoding="utf-8")


def test_a_text_that_is_not_there_once_is_no_bug(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("a = 1\na = 1\n")
    for old in ("a = 1", "b = 1"):
        with pytest.raises(ValueError, match="times in"):
            Planted("nothing", "x.py", old, "", ()).apply(tmp_path)


def test_the_runner_tells_a_bug_from_none() -> None:
    test = "tests/mechanisms/test_loss.py::test_tenths_add_up_to_one"
    add = "_EXACT.add(self.exact_epsilon, other.exact_epsilon)"
    file = "mechanisms/loss.py"
    assert tried(Planted("a bug", file, add, "self.exact_epsilon", (test,))).caught
    assert not tried(Planted("none", file, add, f"({add})", (test,))).caught
    # What cannot even be imported, or names no test, proves nothing.
    assert not tried(Planted("broken", file, add, "1 / 0)(", (test,))).caught
    assert not tried(Planted("lost", file, add, f"({add})", (test + "x",))).caught
