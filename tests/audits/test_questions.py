"""100,000 random questions: each is answered as plain DuckDB answers it, or refused for nothing.

    python -m pytest -m audit tests/audits/test_questions.py

A refusal names a rule, says nothing of the database, and charges nothing; whatever else is raised
is a fault. About a tenth of a second of CPU a question, on every core there is.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pytest

from engine import Engine, Refused
from tests.engine.oracle import MACROS, differences, plainly
from tests.engine.questions import question
from tests.engine.replay import open_clinic

pytestmark = pytest.mark.audit

QUESTIONS = 100_000
AT_ONCE = 500


@contextmanager
def _opened(folder: Path) -> Iterator[tuple[Engine, Engine, Any]]:
    """Open the clinic for testing, the same with a ledger, and the steward's file in DuckDB."""
    with open_clinic(folder, "base", None, None) as base:
        policy = folder / "base" / "clinic.yaml"
        copy = folder / "plain.duckdb"
        copy.write_bytes((folder / "base" / "clinic.duckdb").read_bytes())
        with Engine.open(policy) as paid, duckdb.connect(str(copy)) as plain:
            plain.execute("SET threads = 1")
            for macro in MACROS:
                plain.execute(macro)
            yield base, paid, plain


def fate(base: Engine, paid: Engine, plain: Any, sql: str) -> str:
    """Return what became of a question: "equal", "refused", or what is wrong."""
    try:
        said = plainly(sql)
        plain.execute(said)
        works = True
    except duckdb.Error:
        works = False
    try:
        if not works:
            base.query(sql, epsilon=math.inf)
            return "answered"
        found = differences(base, plain, sql, said)
        return "equal" if not found else f"differs: {found[:2]}"
    except Refused as refusal:
        return _refused_by_both(refusal, paid, sql)
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"


def _refused_by_both(refusal: Refused, paid: Engine, sql: str) -> str:
    if not refusal.rule or "duckdb" in str(refusal).lower() or "Error:" in str(refusal):
        return f"a refusal that says {str(refusal)[:200]}"
    try:
        paid.query(sql)
    except Refused as again:
        return "refused" if again.rule == refusal.rule else f"refused by {again.rule} as well"
    except Exception as error:
        return f"raised {type(error).__name__} with a ledger: {error}"
    return f"refused by {refusal.rule}, answered with a ledger"


def _many(seeds: range) -> tuple[Counter[str], list[str]]:
    fates: Counter[str] = Counter()
    wrong = []
    with TemporaryDirectory() as folder, _opened(Path(folder)) as (base, paid, plain):
        for seed in seeds:
            sql = question(Random(seed))
            found = fate(base, paid, plain, sql)
            if found in ("equal", "refused", "answered"):
                fates[found] += 1
            else:
                wrong.append(f"seed {seed}: {found}\n{sql}")
        if paid.budget().charges:
            wrong.append(f"seeds {seeds}: refusals were charged")
    return fates, wrong


def test_every_question_equals_plain_duckdb_or_is_refused() -> None:
    parts = [range(i, min(i + AT_ONCE, QUESTIONS)) for i in range(0, QUESTIONS, AT_ONCE)]
    fates: Counter[str] = Counter()
    wrong: list[str] = []
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for some, faults in pool.map(_many, parts):
            fates.update(some)
            wrong.extend(faults)
    print(dict(fates))
    assert wrong == []
    assert sum(fates.values()) == QUESTIONS
    assert fates["equal"] > 0.8 * QUESTIONS  # a generator that is always refused tests nothing
