"""Reservations and their settlement: only downwards, only once, durable, and in the chain."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from engine.errors import Broken, LedgerError, OverBudget
from engine.ledger import Ledger, Receipt
from engine.ledger_rows import COLUMNS, charge_hash, charge_of
from engine.ledger_settling import Settlement, is_reservation, read_settlement
from engine.ledger_tables import Statements
from mechanisms.event import Event, GradualEvent, LaplaceEvent, to_json
from mechanisms.loss import PrivacyLoss
from mechanisms.pricing import loss_of, revealed
from tests.engine.test_ledger_faults import (
    DELTA,
    EPSILON,
    _after_commit,
    _before_commit,
    edit,
    in_child,
    status_of,
)

ORDER = Fraction(22)
LEVELS = 13
RESERVED: tuple[Event, ...] = (GradualEvent(1, 2.0, LEVELS),)  # epsilon 0.5, and .0625 at level 0
FACTS: dict[str, Any] = {
    "analyst": "ana", "quota": None, "sql": "SELECT count(*) FROM visits WITH ERROR 5%",
    "plan_hash": "a" * 64, "policy_hash": "b" * 64, "data_version": "v1",
}


def price_of(events: tuple[Event, ...]) -> PrivacyLoss:
    """The price, with a divergence beyond rail B: rail A decides."""
    loss = loss_of(events, ORDER)
    return PrivacyLoss(loss.exact_epsilon, loss.exact_delta, Decimal(1000))


def reserve(ledger: Ledger, events: tuple[Event, ...] = RESERVED, **facts: Any) -> Receipt:
    return ledger.charge(price_of(events), **{**FACTS, "events_json": to_json(events), **facts})


def read(ledger: Ledger, receipt: Receipt) -> Receipt:
    ledger.redeem(receipt, plan_hash="a" * 64, data_version="v1")
    return receipt


def open_at(path: Path, **options: Any) -> Ledger:
    return Ledger.open(path, EPSILON, DELTA, **options)


def at_level(level: int) -> Decimal:
    return loss_of(revealed(RESERVED, level), ORDER).exact_epsilon


def test_a_reservation_counts_in_full_until_it_is_settled(tmp_path: Path) -> None:
    with open_at(tmp_path / "x") as ledger:
        receipt = read(ledger, reserve(ledger))
        assert ledger.spent().exact_epsilon == Decimal("0.5")
        settled = ledger.settle(receipt, 0)
        assert settled.exact_epsilon == at_level(0) == Decimal("0.0625")
        assert settled.exact_rdp == 1000  # rail B keeps the reserve
        assert ledger.spent() == ledger.spent("ana") == settled
        assert ledger.verify() == 2
    with open_at(tmp_path / "x") as again:
        assert again.spent() == settled
        (charge,) = again.history()
        assert (charge.seq, charge.loss.exact_epsilon, charge.cost) == (1, Decimal("0.5"), settled)


@pytest.mark.parametrize("level", range(LEVELS))
def test_every_level_settles_at_its_own_price(tmp_path: Path, level: int) -> None:
    with open_at(tmp_path / "x") as ledger:
        assert ledger.settle(read(ledger, reserve(ledger)), level).exact_epsilon == at_level(level)
        assert ledger.verify() == 2


def test_what_was_not_gradual_stays_charged(tmp_path: Path) -> None:
    events = (*RESERVED, LaplaceEvent(1, 10.0))
    with open_at(tmp_path / "x") as ledger:
        settled = ledger.settle(read(ledger, reserve(ledger, events)), 0)
        assert settled.exact_epsilon == Decimal("0.1625")


def test_a_settled_budget_can_be_spent_again_and_not_a_hair_more(tmp_path: Path) -> None:
    with open_at(tmp_path / "x") as ledger:
        one, two = read(ledger, reserve(ledger)), read(ledger, reserve(ledger))
        with pytest.raises(OverBudget):
            reserve(ledger)
        ledger.settle(one, 0)
        with pytest.raises(OverBudget):  # the other one still counts in full
            reserve(ledger)
        ledger.settle(two, 0)
        rest = ledger.left().exact_epsilon
        assert rest == Decimal("0.875")
        exact = PrivacyLoss(rest, Decimal(0), Decimal(1000))
        more = PrivacyLoss(rest + Decimal("1e-12"), Decimal(0), Decimal(1000))
        with pytest.raises(OverBudget):
            ledger.charge(more, events_json="{}", **FACTS)
        ledger.charge(exact, events_json="{}", **FACTS)
        assert ledger.verify() == 5


def test_a_quota_is_settled_too(tmp_path: Path) -> None:
    quota = Decimal("0.6")
    with open_at(tmp_path / "x") as ledger:
        receipt = read(ledger, reserve(ledger, quota=quota))
        with pytest.raises(OverBudget, match="analyst ana"):
            reserve(ledger, quota=quota)
        reserve(ledger, analyst="ben")
        ledger.settle(receipt, 0)
        assert ledger.spent("ana").exact_epsilon == Decimal("0.0625")
        assert ledger.spent("ben").exact_epsilon == Decimal("0.5")
        assert ledger.left("ana", quota).exact_epsilon == Decimal("0.4375")
        assert ledger.verify() == 3


def test_history_lists_charges_and_not_settlements(tmp_path: Path) -> None:
    with open_at(tmp_path / "x") as ledger:
        for name in ("ana", "ben", "ana"):
            ledger.settle(read(ledger, reserve(ledger, analyst=name)), 0)
        reserve(ledger)
        assert [c.seq for c in ledger.history()] == [1, 3, 5, 7]
        assert [c.cost.exact_epsilon for c in ledger.history()] == [
            Decimal("0.0625")] * 3 + [Decimal("0.5")]
        assert [c.seq for c in ledger.history(2)] == [5, 7]
        assert [c.seq for c in ledger.history(2, "ana")] == [5, 7]
        assert [c.seq for c in ledger.history(analyst="ben")] == [3]
        assert ledger.history(0) == ()


# --- hostile use -----------------------------------------------------------------------------


def test_only_a_redeemed_reservation_is_settled_and_once(tmp_path: Path) -> None:
    with open_at(tmp_path / "x") as ledger:
        receipt = reserve(ledger)
        with pytest.raises(Broken):  # not read yet: it could be read after it was settled
            ledger.settle(receipt, 0)
        read(ledger, receipt)
        for level in (-1, LEVELS, 1.0, True, None, "0"):
            with pytest.raises(Broken):
                ledger.settle(receipt, level)  # type: ignore[arg-type]
        ledger.settle(receipt, 5)
        for level in (5, 4, 6):
            with pytest.raises(Broken):
                ledger.settle(receipt, level)
        plain = read(ledger, reserve(ledger, (LaplaceEvent(1, 10.0),)))
        with pytest.raises(Broken):
            ledger.settle(plain, 0)
        assert ledger.spent().exact_epsilon == at_level(5) + Decimal("0.1")
        assert ledger.verify() == 3


def test_a_receipt_from_elsewhere_settles_nothing(tmp_path: Path) -> None:
    with open_at(tmp_path / "x") as ledger, open_at(tmp_path / "x") as other:
        receipt = read(ledger, reserve(ledger))
        with pytest.raises(Broken):
            other.settle(receipt, 0)
        forged = object.__new__(Receipt)
        for name in ("seq", "loss", "data_version", "plan_hash"):
            object.__setattr__(forged, name, getattr(receipt, name))
        with pytest.raises(Broken):
            ledger.settle(forged, 0)

        def in_a_fork() -> None:
            with pytest.raises(Broken):
                ledger.settle(receipt, 0)

        assert status_of(in_child(in_a_fork)) == 0
        assert ledger.spent().exact_epsilon == Decimal("0.5")
        ledger.settle(receipt, 0)


def test_a_settlement_that_is_on_disk_is_not_written_twice(tmp_path: Path) -> None:
    """As after an error that came once the commit had been made."""
    with open_at(tmp_path / "x") as ledger:
        receipt = read(ledger, reserve(ledger))
        ledger.settle(receipt, 3)
        ledger.store.session().reservations[receipt.seq] = receipt
        for level in (0, 3):
            with pytest.raises(Broken):
                ledger.settle(receipt, level)
        assert ledger.verify() == 2


def test_a_charge_cannot_pose_as_a_settlement(tmp_path: Path) -> None:
    with open_at(tmp_path / "x") as ledger:
        reserve(ledger)
        for text in (Settlement(1, 0).to_json(), '{"settles":', '{"settles":{}}'):
            with pytest.raises(ValueError, match="no settlement"):
                ledger.charge(PrivacyLoss.zero(), events_json=text, **FACTS)
        assert ledger.verify() == 1


def test_a_settlement_has_one_text() -> None:
    for settlement in (Settlement(1, 0), Settlement(2**60, 63)):
        assert read_settlement(settlement.to_json()) == settlement
        assert json.loads(settlement.to_json())["version"] == 1
        assert not is_reservation(settlement.to_json())
    assert read_settlement(to_json(RESERVED)) is None
    assert is_reservation(to_json(RESERVED))
    assert not is_reservation('{"gradual"')
    for wrong in ('{"settles":1}', '{"settles":{"level":0,"seq":1}}', '{"settles":',
                  '{"settles":{"level":true,"seq":1},"version":1}',
                  '{"settles":{"level":0, "seq":1},"version":1}'):
        with pytest.raises(ValueError, match=r"\w"):
            read_settlement(wrong)


def test_sums_never_pass_the_cap_whatever_the_order(tmp_path: Path) -> None:
    """At every moment what is settled and what is reserved together stay within the budget."""
    dice = random.Random(7)
    with open_at(tmp_path / "x") as ledger:
        flying: list[Receipt] = []
        settled = Decimal(0)
        for _ in range(150):
            if flying and dice.random() < 0.5:
                receipt = flying.pop(dice.randrange(len(flying)))
                if dice.random() < 0.2:
                    continue  # it crashed: it counts in full for ever
                level = dice.randrange(LEVELS)
                before = ledger.spent().exact_epsilon
                loss = ledger.settle(receipt, level)
                assert ledger.spent().exact_epsilon == (
                    before - Decimal("0.5") + loss.exact_epsilon
                )
            else:
                try:
                    flying.append(read(ledger, reserve(ledger)))
                except OverBudget:
                    continue
            assert settled <= ledger.spent().exact_epsilon <= EPSILON
        assert ledger.verify() > 4


def test_processes_reserve_and_settle_together(tmp_path: Path) -> None:
    def work() -> None:
        with open_at(tmp_path / "x", witness=tmp_path / "w") as ledger:
            for _ in range(6):
                try:
                    receipt = read(ledger, reserve(ledger))
                except OverBudget:
                    continue
                ledger.settle(receipt, 0)

    children = [in_child(work) for _ in range(5)]
    assert [status_of(child) for child in children] == [0] * 5
    with open_at(tmp_path / "x", witness=tmp_path / "w") as ledger:
        charges = ledger.history()
        assert all(c.settled is not None for c in charges)
        assert ledger.spent().exact_epsilon == len(charges) * Decimal("0.0625") <= EPSILON
        assert len(charges) > 4


# --- crashes -----------------------------------------------------------------------------------


def _nothing(_: Ledger) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("trap", "epsilon"),
    [(_nothing, "0.5"), (_before_commit, "0.5"), (_after_commit, "0.0625")],
)
def test_a_kill_at_each_step_of_a_settlement(
    tmp_path: Path, trap: Callable[[Ledger], None], epsilon: str
) -> None:
    path, witness = tmp_path / "x", tmp_path / "w"

    def work() -> None:
        with open_at(path, witness=witness) as ledger:
            receipt = read(ledger, reserve(ledger))
            trap(ledger)
            ledger.settle(receipt, 0)

    assert status_of(in_child(work)) == -signal.SIGKILL
    with open_at(path, witness=witness) as ledger:
        assert ledger.spent().exact_epsilon == Decimal(epsilon)
        assert ledger.spent().exact_rdp == 1000
        assert read(ledger, reserve(ledger)).seq == ledger.verify()


def test_a_failed_settlement_leaves_the_reserve_and_a_usable_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_at(tmp_path / "x") as ledger:
        receipt = read(ledger, reserve(ledger))
        with monkeypatch.context() as patch:
            patch.setattr(ledger._sql.insert, "_text", "INSERT INTO nowhere VALUES (1)")
            patch.setattr(ledger._sql.insert, "_names", ())
            with pytest.raises(LedgerError, match="nowhere"):
                ledger.settle(receipt, 0)
        assert ledger.spent().exact_epsilon == Decimal("0.5")
        assert ledger.settle(receipt, 2).exact_epsilon == at_level(2)
        assert ledger.verify() == 2


# --- damage ------------------------------------------------------------------------------------


@pytest.fixture
def settled(tmp_path: Path) -> Path:
    """A closed ledger: a plain charge, a reservation, its settlement, and a reservation."""
    with open_at(tmp_path / "x") as ledger:
        reserve(ledger, (LaplaceEvent(1, 10.0),))
        ledger.settle(read(ledger, reserve(ledger)), 4)
        reserve(ledger, (GradualEvent(1, 20.0, LEVELS),))
    return tmp_path / "x"


def rewritten(path: Path, seq: int, **values: str) -> None:
    """Change a row and give it and all later rows fitting hashes, as an attacker would."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT * FROM discreet_charges ORDER BY seq").fetchall()
    previous, changes = rows[0][-2], []
    for row in rows:
        fields = dict(zip(COLUMNS, row, strict=True))
        fields["previous_hash"] = previous
        if fields["seq"] == seq:
            fields.update(values)
        fields["hash"] = charge_hash(tuple(fields[name] for name in COLUMNS[:-1]))
        previous = fields["hash"]
        changes += [
            f"UPDATE discreet_charges SET {name} = '{fields[name]}' WHERE seq = {fields['seq']}"
            for name in COLUMNS[1:]
        ]
    edit(path, *changes)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"events_json": Settlement(1, 0).to_json()}, "no open reservation"),
        ({"events_json": Settlement(3, 0).to_json()}, "no open reservation"),
        ({"events_json": Settlement(4, 0).to_json()}, "no open reservation"),
        ({"events_json": Settlement(9, 0).to_json()}, "no open reservation"),
        ({"events_json": Settlement(2, 0).to_json()}, "another loss than its level"),
        ({"events_json": Settlement(2, LEVELS).to_json()}, "wrongly: no level"),
        ({"events_json": '{"settles":{}}'}, "no valid loss"),
        ({"events_json": "{}"}, "sums"),
        ({"epsilon": "0"}, "another loss than its level"),
        ({"rdp": "0"}, "another loss than its level"),
        ({"total_epsilon": "0.1"}, "sums"),
        ({"total_rdp": "1000"}, "sums"),
        ({"analyst_epsilon": "0.1"}, "sums"),
        ({"analyst": "ben"}, "another analyst"),
        ({"plan_hash": "c" * 64}, "another plan_hash"),
        ({"data_version": "v2"}, "another data_version"),
    ],
)
def test_a_settlement_that_lies_is_named(
    settled: Path, values: dict[str, str], problem: str
) -> None:
    with open_at(settled) as ledger:
        assert ledger.verify() == 4
    rewritten(settled, 3, **values)
    with pytest.raises(LedgerError, match=f"charge 3 .*{problem}"):
        open_at(settled)


def test_a_second_settlement_of_one_charge_is_named(settled: Path) -> None:
    with closing(sqlite3.connect(settled)) as connection:
        row = connection.execute("SELECT * FROM discreet_charges WHERE seq = 3").fetchone()
        last = connection.execute("SELECT * FROM discreet_charges WHERE seq = 4").fetchone()
    fields = dict(zip(COLUMNS, row, strict=True)) | {"seq": 5, "previous_hash": last[-1]}
    fields["hash"] = charge_hash(tuple(fields[name] for name in COLUMNS[:-1]))
    shown = ", ".join(f"'{fields[name]}'" if name != "seq" else "5" for name in COLUMNS)
    edit(settled, f"INSERT INTO discreet_charges VALUES ({shown})")
    with pytest.raises(LedgerError, match="charge 5 settles charge 2, which is no open"):
        open_at(settled)


def test_a_backup_from_before_a_settlement_is_behind_its_witness(tmp_path: Path) -> None:
    path, witness = tmp_path / "x", tmp_path / "w"
    with open_at(path, witness=witness) as ledger:
        receipt = read(ledger, reserve(ledger))
    shutil.copy(path, tmp_path / "backup")
    with open_at(path, witness=witness) as ledger:
        receipt = read(ledger, reserve(ledger))
        ledger.settle(receipt, 0)
    shutil.copy(tmp_path / "backup", path)
    with pytest.raises(LedgerError, match="older charges"):
        open_at(path, witness=witness)


def test_a_settlement_repeats_what_it_settles(settled: Path) -> None:
    with closing(sqlite3.connect(settled)) as connection:
        rows = connection.execute("SELECT * FROM discreet_charges ORDER BY seq").fetchall()
    _, reserved, settlement, _ = map(charge_of, rows)
    assert settlement.sql == reserved.sql
    assert settlement.loss.exact_epsilon == at_level(4)
    assert settlement.total.exact_epsilon == Decimal("0.1") + at_level(4)
    assert settlement.previous_hash == reserved.hash


@pytest.mark.parametrize("dialect", [PGDialect, PGDialect_psycopg])
def test_the_same_statements_fit_postgresql(dialect: Any) -> None:
    statements = Statements(dialect())
    for name in ("newest", "charges_of", "settlements"):
        statement = getattr(statements, name)
        assert statement._names is None
        assert "LIKE %(events_json_1)s" in statement._text
        assert "|| '%%'" in statement._text
        assert statement._constants["events_json_1"] == '{"settles":'
    assert "NOT LIKE" in statements.newest._text
