"""Crashes, failures and bad calls: nothing that was told is lost, and nothing is told for nothing.

Processes are really killed, budgets are really raced for, and the database really fails after the
charge. What goes wrong before the charge is one plain error and costs nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import engine.execution
from engine import Broken, Engine, LedgerError, OverBudget, PolicyError, Refused, SnapshotError
from engine.clinic import clinic_policy

ROOT = Path(__file__).parent.parent.parent
ANALYSTS = "analysts: {ana: {epsilon: 0.4}, ben: {epsilon: 90}}\n"

ASKING = """
import sys
from engine import Engine, OverBudget
engine = Engine.open(sys.argv[1])
print("ready", flush=True)
for n in range(int(sys.argv[3]), 10**9, int(sys.argv[4])):
    try:
        sql = f"SELECT COUNT(*) FROM visits WHERE cost > {n}.1"
        result = engine.query(sql, epsilon=float(sys.argv[2]))
    except OverBudget:
        print("over", flush=True)
        break
    print("told" if not result.cached else "free", n, flush=True)
"""


@pytest.fixture
def policy(base_path: Path, tmp_path: Path) -> Path:
    (tmp_path / "clinic.duckdb").write_bytes(base_path.read_bytes())
    (tmp_path / "clinic.yaml").write_text(clinic_policy(tmp_path / "clinic.duckdb", epsilon=60.0))
    return tmp_path / "clinic.yaml"


def asking(policy: Path, epsilon: float, first: int = 1, step: int = 1) -> subprocess.Popen[str]:
    """Start a process that asks one new question after another."""
    arguments = [sys.executable, "-c", ASKING, str(policy), str(epsilon), str(first), str(step)]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)


# ---- kill -9 -------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.15, 0.4, 0.7])
def test_a_killed_process_loses_no_charge(policy: Path, after: float) -> None:
    process = asking(policy, 0.001)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    first = process.stdout.readline()  # however long that takes on a busy machine
    time.sleep(after)
    os.kill(process.pid, signal.SIGKILL)
    told = [line for line in [first, *process.stdout.read().splitlines(keepends=True)]
            if line.startswith("told") and line.endswith("\n")]
    process.wait()
    assert told
    with Engine.open(policy) as again:
        charged = len(again.history())
        assert len(told) <= charged <= len(told) + 1  # at most one was in flight
        assert again.budget().spent.epsilon == pytest.approx(0.001 * charged)
        number = told[-1].split()[1]
        kept = again.query(f"SELECT COUNT(*) FROM visits WHERE cost > {number}.1", epsilon=0.001)
        assert len(again.history()) <= charged + 1
        assert kept.rows


def test_many_processes_never_exceed_one_budget(policy: Path) -> None:
    text = policy.read_text().replace("epsilon: 60.0", "epsilon: 0.5")
    policy.write_text(text)
    Engine.open(policy).close()  # builds the snapshot once
    processes = [asking(policy, 0.02, n + 1, 8) for n in range(8)]
    outputs = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    told = sum(line.startswith("told") for lines in outputs for line in lines)
    assert all(lines[-1] == "over" for lines in outputs)
    with Engine.open(policy) as again:
        assert len(again.history()) == told
        assert again.budget().spent.exact_epsilon <= Decimal("0.5") or (
            again.budget().left.exact_rdp >= 0)
        assert told >= 25  # and it was not wasted: twenty-five fit on the first rail alone


# ---- the database fails after the charge ---------------------------------------------------


@pytest.fixture
def paid(policy: Path) -> Iterator[Engine]:
    with Engine.open(policy) as opened:
        yield opened


def _chain(error: BaseException) -> str:
    """Everything a printed error could show."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None:
        parts += [str(current), repr(current), *getattr(current, "__notes__", ())]
        current = current.__cause__ or current.__context__
    return "\n".join(parts)


@pytest.mark.parametrize("problem", [
    RuntimeError("Could not convert string 'Anna Meyer' to INT64"), MemoryError("Anna Meyer"),
    ValueError("Anna Meyer"), RecursionError("Anna Meyer"), KeyError("Anna Meyer"),
    StopIteration("Anna Meyer"),
])
@pytest.mark.parametrize("where", ["run_statement", "statements"])
def test_a_failure_after_the_charge_says_one_fixed_text(
    problem: Exception, where: str, paid: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise problem

    sql = "SELECT department, COUNT(*) FROM visits GROUP BY department"
    with monkeypatch.context() as patch:
        patch.setattr(engine.execution, where, fail)
        with pytest.raises(Broken) as caught:
            paid.query(sql, epsilon=0.1)
    assert str(caught.value) == Broken.TEXT
    assert "Anna" not in _chain(caught.value)
    assert len(paid.history()) == 1  # the charge stands
    again = paid.query(sql, epsilon=0.1)  # and the engine is still usable
    assert not again.cached
    assert len(paid.history()) == 2


def test_a_failure_of_the_database_itself_quotes_no_row(
    paid: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = engine.execution.run_statement

    def failing(connection: Any, sql: str, *rest: Any) -> Any:
        return true(connection, "SELECT CAST(diagnosis AS INTEGER) FROM visits", *rest)

    with monkeypatch.context() as patch:
        patch.setattr(engine.execution, "run_statement", failing)
        with pytest.raises(Broken) as caught:
            paid.query("SELECT COUNT(*) FROM visits", epsilon=0.1)
    said = _chain(caught.value)
    assert "Z0" not in said
    assert "convert" not in said.lower()


# ---- nothing is charged for what is not answered --------------------------------------------

COUNT = "SELECT COUNT(*) FROM visits"


@pytest.mark.parametrize(("settings", "rule"), [
    ({"epsilon": float("nan")}, "epsilon"), ({"epsilon": -1}, "epsilon"),
    ({"epsilon": 0}, "epsilon"), ({"epsilon": True}, "epsilon"), ({"epsilon": "x"}, "epsilon"),
    ({"epsilon": "nan"}, "epsilon"), ({"epsilon": Decimal("Infinity")}, "epsilon"),
    ({"epsilon": float("inf")}, "testing"), ({"epsilon": float("-inf")}, "epsilon"),
    ({"epsilon": [1]}, "epsilon"), ({"epsilon": 1e-70}, "epsilon"), ({"epsilon": 1e300}, "epsilon"),
    ({"epsilon": 1e-50}, None), ({"epsilon": 9e6}, None), ({"epsilon": 1e-12}, None),
    ({"delta": float("nan")}, "delta"), ({"delta": -1e-9}, "delta"), ({"delta": 1}, "delta"),
    ({"delta": True}, "delta"), ({"delta": 2}, "delta"), ({"delta": 1e-60}, None),
    ({"delta": 0.999}, None),
    ({"rows": 0}, "rows"), ({"rows": -1}, "rows"), ({"rows": 10**9}, "rows"),
    ({"rows": True}, "rows"), ({"rows": 2.5}, "rows"), ({"rows": "3"}, "rows"),
    ({"noiseless": True}, "testing"),
])
@pytest.mark.parametrize("sql", [COUNT, "SELECT diagnosis, SUM(cost) FROM visits GROUP BY 1",
                                 "SELECT visit_date, COUNT(*) FROM visits GROUP BY 1"])
def test_a_bad_setting_is_one_plain_refusal(
    settings: dict[str, Any], rule: str | None, sql: str, paid: Engine
) -> None:
    """Where `rule` is None the setting is extreme, not wrong: an answer or a plain refusal."""
    refusal: Exception | None = None
    try:
        paid.query(sql, **{"epsilon": 0.1, **settings})
    except (Refused, OverBudget) as problem:
        refusal = problem
    if rule is not None:
        assert getattr(refusal, "rule", None) == rule
    assert len(paid.history()) == (refusal is None)


@pytest.mark.parametrize("sql", [
    "SELECT * FROM visits", "DROP TABLE visits", "", "SELECT", "SELECT COUNT(*) FROM nowhere",
    "SELECT SUM(cost / los) FROM visits", "SELECT COUNT(*) FROM visits WHERE los > 'x'", "\x00",
    "SELECT COUNT(*) FROM visits WHERE diagnosis = '\ud800'",
    "SELECT STDDEV(CLAMP(cost * 1.0e200, -1.0e200, 1.0e200)) FROM visits",
    "SELECT CORR(CLAMP(cost * 1.0e200, 0, 1.0e200), CLAMP(los * 1.0e200, 0, 1.0e200)) FROM visits",
    "SELECT SUM(CLAMP(cost, 0, 4.0e-324)) FROM visits",
    "SELECT visit_date, readmitted, MEDIAN(cost) FROM visits GROUP BY 1, 2",
    None, 5, b"SELECT 1", "(" * 5000,
])
def test_a_bad_text_is_one_plain_refusal(sql: Any, paid: Engine) -> None:
    with pytest.raises((Refused, OverBudget)):
        paid.query(sql, epsilon=0.1)
    assert paid.history() == ()


def test_over_budget_charges_nothing(policy: Path) -> None:
    policy.write_text(policy.read_text() + ANALYSTS)
    with Engine.open(policy) as opened:
        opened.query(COUNT, epsilon=0.3, analyst="ana")
        with pytest.raises(OverBudget):
            opened.query("SELECT COUNT(*) FROM labs", epsilon=0.2, analyst="ana")
        with pytest.raises(OverBudget):
            opened.query("SELECT COUNT(*) FROM labs", epsilon=100, analyst="ben")
        assert len(opened.history()) == 1
        assert opened.query(COUNT, epsilon=0.3, analyst="ben").cached  # kept answers stay free


@pytest.mark.parametrize("analyst", ["eve", "", "ANA", None, "ana'; --"])
def test_an_unknown_analyst_asks_nothing(analyst: str | None, policy: Path) -> None:
    policy.write_text(policy.read_text() + ANALYSTS)
    with Engine.open(policy) as opened:
        with pytest.raises(Refused) as caught:
            opened.query(COUNT, epsilon=0.1, analyst=analyst)
        assert caught.value.rule == "analyst"
        assert opened.history() == ()


# ---- opening -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "", "discreet: 1", "[]", "discreet: 2\n", "\x00", "discreet: 1\ntables: {}\n", "{", "a: *b",
])
def test_a_broken_policy_is_one_plain_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(PolicyError):
        Engine.open(tmp_path / "p.yaml")
    with pytest.raises(PolicyError):
        Engine.open(tmp_path / "missing.yaml")


def test_a_missing_database_is_one_plain_error(policy: Path) -> None:
    (policy.parent / "clinic.duckdb").unlink()
    with pytest.raises(SnapshotError, match="does not exist"):
        Engine.open(policy)


def test_a_ledger_that_cannot_be_written_is_one_plain_error(policy: Path) -> None:
    (policy.parent / "file").write_text("not a folder")
    text = policy.read_text().replace(
        f"ledger: {policy.parent}/clinic.ledger.sqlite", f"ledger: {policy.parent}/file/l.sqlite")
    policy.write_text(text)
    with pytest.raises((LedgerError, SnapshotError, PolicyError)):
        Engine.open(policy)


def test_a_ledger_that_is_no_ledger_is_one_plain_error(policy: Path) -> None:
    (policy.parent / "clinic.ledger.sqlite").write_text("this is not SQLite" * 100)
    with pytest.raises(LedgerError):
        Engine.open(policy)
