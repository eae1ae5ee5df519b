"""What an answer carries besides its numbers, and what the ledger can be made to forget.

Neighbouring clinics are asked the same questions; whatever is not noise must be the same on all
of them. Then the attacks on state: a restored ledger, a crash before the answer is told, more
processes, more analysts.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

from engine import Broken, Engine, LedgerError, OverBudget, Refused, api
from engine.clinic import clinic_policy
from engine.display import as_json
from engine.execution import Exact
from engine.release import choose_keys
from mechanisms.randomness import Randomness
from planner.bounded_sql import SELECTION
from tests.engine.replay import CHANGES, open_clinic, read_cases, replayed

REFUSED = read_cases("refused")
NAMES = ("base", "without the heavy patient", "with a greedy patient", "with a dirty patient")
COUNT = "SELECT COUNT(*) FROM visits WHERE los > 3"


@pytest.fixture(scope="module")
def private(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    """Engines that charge, on the base clinic and on neighbours of it."""
    opened = {}
    for name in NAMES:
        home = tmp_path_factory.mktemp("private")
        (home / "clinic.duckdb").write_bytes(base_path.read_bytes())
        if name in CHANGES:
            with duckdb.connect(str(home / "clinic.duckdb")) as connection:
                CHANGES[name](connection)
        (home / "clinic.yaml").write_text(clinic_policy(home / "clinic.duckdb", epsilon=5.0))
        opened[name] = Engine.open(home / "clinic.yaml")
    return opened


# ---- texts, prices, budgets ----------------------------------------------------------------


def test_refusals_say_the_same_on_every_database(private: dict[str, Engine]) -> None:
    for case in REFUSED:
        said = set()
        for engine in private.values():
            with pytest.raises(Refused) as caught:
                engine.query(case.sql)
            said.add(str(caught.value))
        assert len(said) == 1, case


def test_plans_budgets_and_histories_are_the_same_on_every_database(
    private: dict[str, Engine]
) -> None:
    """Prices, what is left, what was free, when it is over, and in which words."""
    questions = (
        COUNT, "SELECT department, AVG(cost) FROM visits GROUP BY department", COUNT,
        "SELECT diagnosis, COUNT(*) FROM visits GROUP BY diagnosis",
        "SELECT COUNT(*) FROM visits WHERE cost > (SELECT AVG(cost) FROM visits)",
        "SELECT MEDIAN(cost) FROM visits", "SELECT nonsense",
    )
    seen = set()
    for engine in private.values():
        told: list[Any] = []
        for sql in questions:
            try:
                told.append(str(engine.explain(sql, epsilon=0.5)))
                result = engine.query(sql, epsilon=0.5)
                told += [result.cost, result.cached, result.columns, result.table.types,
                         str(result.plan)]
            except Refused as refusal:
                told.append(str(refusal))
        with pytest.raises(OverBudget) as caught:
            engine.query("SELECT COUNT(*) FROM labs", epsilon=4.9)
        told += [str(caught.value), str(engine.budget()), engine.budget().spent]
        told += [(c.loss, c.sql, c.analyst) for c in engine.history()]
        seen.add(repr(told))
    assert len(seen) == 1


def test_an_answer_as_json_has_the_same_keys_everywhere(private: dict[str, Engine]) -> None:
    """Nothing of a database is in an answer but its cells and their intervals."""

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shape(inner) for key, inner in value.items()
                    if key not in ("rows", "values", "intervals")}
        if isinstance(value, list):
            return [shape(inner) for inner in value]
        return value

    sql = "SELECT sex, COUNT(*) AS n FROM patients GROUP BY sex"
    assert len({repr(shape(json.loads(as_json(engine.query(sql, epsilon=0.1)))))
                for engine in private.values()}) == 1


# ---- keys and their order ------------------------------------------------------------------


def test_public_keys_come_in_one_order_and_are_all_there(clinics: dict[str, Engine]) -> None:
    for sql in ("SELECT department, COUNT(*) FROM visits GROUP BY department",
                "SELECT sex, region, COUNT(*) FROM patients GROUP BY 1, 2",
                "SELECT readmitted, AVG(cost) FROM visits GROUP BY 1"):
        keys = {tuple(row[:-1] for row in engine.query(sql, epsilon=0.5).rows)
                for engine in clinics.values()}
        assert len(keys) == 1


def test_selected_keys_are_sorted_whatever_the_order_of_rows(
    base_path: Path, tmp_path: Path
) -> None:
    def turned(c: duckdb.DuckDBPyConnection) -> None:
        c.execute("CREATE TABLE t AS SELECT * FROM visits ORDER BY visit_id DESC")
        c.execute("DROP TABLE visits; ALTER TABLE t RENAME TO visits")

    sql = "SELECT diagnosis, COUNT(*) FROM visits GROUP BY diagnosis"
    orders = []
    for name, change in (("as it was", None), ("turned", turned)):
        with open_clinic(tmp_path, name, base_path, change) as engine:
            rows = engine.query(sql, epsilon=20, delta=0.5).rows
            keys = [row[0] for row in rows]
            assert keys == sorted(keys, key=lambda key: (key is None, key))
            orders.append(keys)
    assert any(orders)


def test_a_key_that_nobody_has_is_never_shown(clinics: dict[str, Engine]) -> None:
    """However much noise there is: only present keys are drawn for."""
    run = replayed(clinics["base"], "SELECT diagnosis FROM visits WHERE los < 0 GROUP BY 1")
    (release,) = run.plan.releases
    empty = Exact(release, {SELECTION: {("nobody",): 0}})
    assert choose_keys(release, empty, Randomness.seeded(1)).keys == ()


# ---- state ---------------------------------------------------------------------------------


def _backup(policy: Path, to: Path) -> None:
    to.mkdir()
    for path in policy.parent.glob("clinic.ledger.sqlite*"):
        if path.is_file():
            shutil.copy2(path, to / path.name)


def test_a_restored_ledger_does_not_answer_again(policy: Path, tmp_path: Path) -> None:
    """Backup, ask, restore, ask again: two independent answers for the price of one."""
    Engine.open(policy).close()
    _backup(policy, tmp_path / "backup")
    with Engine.open(policy) as engine:
        engine.query(COUNT, epsilon=1)
    for path in policy.parent.glob("clinic.ledger.sqlite*"):
        if path.is_file() and "lock" not in path.name:
            path.unlink()
    for path in (tmp_path / "backup").iterdir():
        if "lock" not in path.name:
            shutil.copy2(path, policy.parent / path.name)
    with pytest.raises(LedgerError):
        Engine.open(policy)


def test_a_deleted_ledger_is_not_begun_anew(policy: Path) -> None:
    with Engine.open(policy) as engine:
        engine.query(COUNT, epsilon=1)
    for path in policy.parent.glob("clinic.ledger.sqlite*"):
        if path.is_file() and "snapshot" not in path.name:
            path.unlink()
    with pytest.raises(LedgerError):  # the witness remembers it
        Engine.open(policy)


def test_crash_and_retry_pays_for_every_draw(
    paid: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attacker who kills the engine after the noise is drawn gets no second draw for free."""

    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(api, "keep", crash)
        for tries in range(1, 4):
            with pytest.raises(Broken):
                paid.query(COUNT, epsilon=0.5)
            assert len(paid.history()) == tries
    paid.query(COUNT, epsilon=0.5)
    assert paid.budget().spent.epsilon == pytest.approx(2.0)
    with pytest.raises(OverBudget):
        paid.query("SELECT COUNT(*) FROM labs", epsilon=1.5)


def test_an_answer_that_is_not_told_is_the_answer_that_is_told_later(policy: Path) -> None:
    """Killed after it was kept and before it was told: later the same draw, not a new one."""
    with Engine.open(policy) as engine:
        first = engine.query(COUNT, epsilon=0.5)
    with Engine.open(policy) as engine:
        again = engine.query(COUNT, epsilon=0.5)
    assert again.cached
    assert again.rows == first.rows


def test_engines_side_by_side_share_one_budget_and_one_answer(policy: Path) -> None:
    """Several engines on one ledger, as several processes have them."""
    with Engine.open(policy) as one, Engine.open(policy) as two:
        first = one.query(COUNT, epsilon=2)
        assert two.query(COUNT, epsilon=2).rows == first.rows
        with pytest.raises(OverBudget):
            two.query("SELECT COUNT(*) FROM labs", epsilon=1.5)
        assert len(one.history()) == len(two.history()) == 1


def test_a_copied_policy_meets_the_same_ledger(policy: Path) -> None:
    """Another file name, other defaults and comments: the same patients, the same budget."""
    with Engine.open(policy) as engine:
        engine.query(COUNT, epsilon=2)
    other = policy.with_name("other.yaml")
    other.write_text("# a copy\n" + policy.read_text().replace("epsilon: 0.1", "epsilon: 0.2"))
    with Engine.open(other) as engine:
        assert engine.budget().spent.epsilon == pytest.approx(2)
        with pytest.raises(OverBudget):
            engine.query("SELECT COUNT(*) FROM labs", epsilon=1.5)


def test_a_larger_budget_in_the_policy_buys_nothing(policy: Path) -> None:
    with Engine.open(policy) as engine:
        engine.query(COUNT, epsilon=2)
    policy.write_text(policy.read_text().replace("epsilon: 3.0", "epsilon: 30.0"))
    with pytest.raises(LedgerError):
        Engine.open(policy)


def test_a_link_to_the_ledger_is_the_ledger(policy: Path) -> None:
    """The same file by another name must not lose its lock or its mark."""
    with Engine.open(policy) as engine:
        engine.query(COUNT, epsilon=2)
    link = policy.parent / "alias.sqlite"
    os.symlink(policy.parent / "clinic.ledger.sqlite", link)
    text = policy.read_text().replace("/clinic.ledger.sqlite", "/alias.sqlite")
    policy.with_name("alias.yaml").write_text(text)
    try:
        with Engine.open(policy.with_name("alias.yaml")) as engine:
            assert engine.budget().spent.epsilon == pytest.approx(2)
    except LedgerError:
        pass  # to refuse it is as good


@pytest.mark.parametrize("error", ["50%", "5%", "1%"])
def test_an_accuracy_target_pays_for_the_noise_that_was_revealed(error: str, paid: Engine) -> None:
    """Not for a coarser level, however early the answer stopped; another process sees the same."""
    result = paid.query("SELECT COUNT(*) FROM patients", error=error, epsilon=1)
    (release,) = result.plan.releases
    assert result.cost.epsilon >= release.l1 / release.scale * (1 - 1e-9)
    assert paid.budget().spent.epsilon == pytest.approx(result.cost.epsilon)
    assert paid.budget().spent.rdp >= result.cost.rdp


def test_a_sequence_of_targets_is_paid_level_by_level(paid: Engine) -> None:
    """An attacker who asks for more and more accuracy, and adds up what was seen."""
    spent = 0.0
    for error in ("50%", "20%", "5%", "1%"):
        result = paid.query("SELECT COUNT(*) FROM patients", error=error, epsilon=0.5)
        spent += 0 if result.cached else result.plan.releases[0].l1 / result.plan.releases[0].scale
        assert paid.budget().spent.epsilon >= spent * (1 - 1e-9)
    with pytest.raises(OverBudget):
        paid.query("SELECT COUNT(*) FROM labs", epsilon=3)
