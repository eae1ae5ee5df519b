"""The ledger against crashes, races, damage, and files that are not what they should be."""

from __future__ import annotations

import fcntl
import os
import random
import re
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from engine import ledger as module
from engine import ledger_log, ledger_store
from engine.errors import Broken, LedgerError, OverBudget
from engine.ledger import Ledger, Receipt
from engine.ledger_rows import COLUMNS, charge_hash
from mechanisms.loss import PrivacyLoss

EPSILON, DELTA = Decimal(1), Decimal("1e-6")
AMPLE = Decimal(10**6)
FACTS: dict[str, Any] = {
    "analyst": "ana",
    "quota": None,
    "events_json": "{}",
    "sql": "SELECT count(*) FROM visits WHERE cost > 4711",
    "plan_hash": "a" * 64,
    "policy_hash": "b" * 64,
    "data_version": "v1",
}
PRICE = PrivacyLoss(Decimal("0.05"), Decimal(0), Decimal(10**7))  # rdp above any cap: rail A only


def charge(ledger: Ledger, **facts: Any) -> Receipt:
    return ledger.charge(PRICE, **{**FACTS, **facts})


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked process and return its id; exit status 0 means no exception."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def accepted(ledger: Ledger, tries: int, **facts: Any) -> int:
    paid = 0
    for _ in range(tries):
        try:
            charge(ledger, **facts)
            paid += 1
        except OverBudget:
            pass
    return paid


# --- races ---------------------------------------------------------------------------------


def test_eight_racing_processes_spend_exactly_the_budget(tmp_path: Path) -> None:
    path = tmp_path / "race"

    def spend(name: str) -> None:
        with Ledger.open(path, EPSILON, DELTA) as ledger:
            (tmp_path / name).write_text(str(accepted(ledger, 8, analyst=name)))

    # They also race to make the ledger: nobody opened it before.
    children = [in_child(lambda name=f"p{n}": spend(name)) for n in range(8)]  # type: ignore[misc]
    assert [status_of(child) for child in children] == [0] * 8
    counts = [int((tmp_path / f"p{n}").read_text()) for n in range(8)]
    assert sum(counts) == 20
    with Ledger.open(path, EPSILON, DELTA) as ledger:
        assert ledger.verify() == 20
        assert ledger.spent().exact_epsilon == 1
        for n, count in enumerate(counts):
            assert ledger.spent(f"p{n}").exact_epsilon == count * Decimal("0.05")


def test_racing_processes_respect_a_quota(tmp_path: Path) -> None:
    def spend() -> None:
        with Ledger.open(tmp_path / "x", EPSILON, DELTA) as ledger:
            accepted(ledger, 5, quota=Decimal("0.35"))

    children = [in_child(spend) for _ in range(4)]
    assert [status_of(child) for child in children] == [0] * 4
    with Ledger.open(tmp_path / "x", EPSILON, DELTA) as ledger:
        assert ledger.spent("ana").exact_epsilon == Decimal("0.35")


def test_a_ledger_that_came_through_a_fork_works_on_both_sides(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "x", EPSILON, DELTA, witness=tmp_path / "w") as ledger:
        receipt = charge(ledger)
        mine = ledger.store.session().connection

        def work() -> None:
            assert ledger.store.session().connection is not mine
            with pytest.raises(Broken):  # the parent's receipt is for the parent's one run
                ledger.redeem(receipt, plan_hash="a" * 64, data_version="v1")
            for _ in range(5):
                charge(ledger)

        children = [in_child(work) for _ in range(3)]
        for _ in range(4):
            charge(ledger)
        assert [status_of(child) for child in children] == [0] * 3
        assert ledger.verify() == 20
        assert ledger.store.session().connection is mine
        with pytest.raises(OverBudget):
            charge(ledger)
        ledger.redeem(receipt, plan_hash="a" * 64, data_version="v1")


# --- kill -9 -------------------------------------------------------------------------------


def test_kill_minus_nine_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path, witness = tmp_path / "x", tmp_path / "w"
    Ledger.open(path, AMPLE, DELTA, witness=witness).close()
    dice, known = random.Random(11), 0
    for turn in range(24):
        reading, writing = os.pipe()

        def work(to: int = writing) -> None:
            with Ledger.open(path, AMPLE, DELTA, witness=witness) as ledger:
                while True:
                    os.write(to, b"%d\n" % charge(ledger).seq)

        child = in_child(work)
        os.close(writing)
        # Every second time it is killed only once it charges: a busy machine opens slowly.
        begun = os.read(reading, 4096) if turn % 2 else b""
        time.sleep(dice.uniform(0.0, 0.12))
        os.kill(child, signal.SIGKILL)
        assert status_of(child) == -signal.SIGKILL
        with open(reading, "rb") as pipe:
            acknowledged = [int(line) for line in (begun + pipe.read()).splitlines()]
        with Ledger.open(path, AMPLE, DELTA, witness=witness) as ledger:
            found = ledger.verify()
        newest = acknowledged[-1] if acknowledged else known
        assert acknowledged == list(range(known + 1, newest + 1))
        assert newest <= found <= newest + 1
        known = found
    assert known >= 12


class _Killer:
    """Stands in for the ledger's INSERT: runs it, then kills the process before the commit."""

    def __init__(self, statement: ledger_store.Statement) -> None:
        self._statement = statement

    def add(self, cursor: Any, row: Any) -> None:
        self._statement.add(cursor, row)
        _die()


def _die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before_commit(ledger: Ledger) -> None:
    ledger._sql.insert = _Killer(ledger._sql.insert)  # type: ignore[assignment]


def _after_commit(_: Ledger) -> None:
    ledger_log.flush_file = _die


def _after_flush(ledger: Ledger) -> None:
    ledger._tell_witness = _die  # type: ignore[method-assign]


def _after_witness(_: Ledger) -> None:
    module.Receipt = _die  # type: ignore[misc,assignment]


@pytest.mark.parametrize(
    ("trap", "stands"),
    [(_before_commit, 0), (_after_commit, 1), (_after_flush, 1), (_after_witness, 1)],
)
def test_a_kill_at_each_step_of_a_charge(
    tmp_path: Path, trap: Callable[[Ledger], None], stands: int
) -> None:
    path, witness = tmp_path / "x", tmp_path / "w"
    with Ledger.open(path, EPSILON, DELTA, witness=witness) as ledger:
        charge(ledger)

    def work() -> None:
        with Ledger.open(path, EPSILON, DELTA, witness=witness) as ledger:
            trap(ledger)
            charge(ledger)

    assert status_of(in_child(work)) == -signal.SIGKILL
    with Ledger.open(path, EPSILON, DELTA, witness=witness) as ledger:
        assert ledger.verify() == 1 + stands
        assert charge(ledger).seq == 2 + stands


def test_a_kill_while_the_ledger_is_made_leaves_none_or_a_whole_one(tmp_path: Path) -> None:
    dice = random.Random(5)
    for turn in range(12):
        path = tmp_path / f"x{turn}"
        child = in_child(lambda path=path: Ledger.open(path, EPSILON, DELTA).close())  # type: ignore[misc]
        time.sleep(dice.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with Ledger.open(path, EPSILON, DELTA) as ledger:
            assert charge(ledger).seq == 1


def test_a_failed_charge_gives_no_receipt_and_leaves_the_ledger_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger.open(tmp_path / "x", EPSILON, DELTA, witness=tmp_path / "w") as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "_tell_witness", _full_disk)
            with pytest.raises(LedgerError, match="No space left"):
                charge(ledger)
        with monkeypatch.context() as patch:
            patch.setattr(ledger._sql.insert, "_text", "INSERT INTO nowhere VALUES (1)")
            patch.setattr(ledger._sql.insert, "_names", ())
            with pytest.raises(LedgerError, match="nowhere"):
                charge(ledger)
        assert charge(ledger).seq == 2  # the first one stands: it was committed
        assert ledger.verify() == 2


def _full_disk(*_: Any) -> None:
    raise OSError(28, "No space left on device")


# --- damage --------------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A closed ledger of nine charges, by two analysts."""
    path = tmp_path / "x"
    with Ledger.open(path, EPSILON, DELTA) as ledger:
        for n in range(9):
            charge(ledger, analyst=("ana", "ben")[n % 2], sql=f"SELECT {n} AS marker{n}")
    return path


def edit(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for name in [
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        ]:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)


def test_rows_cannot_be_edited_by_accident(full: Path) -> None:
    with closing(sqlite3.connect(full)) as connection:
        for statement in (
            "UPDATE discreet_charges SET epsilon = '0'",
            "DELETE FROM discreet_charges",
            "UPDATE discreet_ledger SET epsilon_total = '9'",
            "DELETE FROM discreet_ledger",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="never edited"):
                connection.execute(statement)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_changed_value_is_named(full: Path, column: str) -> None:
    value = 40 if column == "seq" else "'0.0'"
    with Ledger.open(full, EPSILON, DELTA) as ledger:
        edit(full, f"UPDATE discreet_charges SET {column} = {value} WHERE seq = 4")
        with pytest.raises(LedgerError, match=r"charge 4 "):
            ledger.verify()
    with pytest.raises(LedgerError, match=r"charge 4 "):
        Ledger.open(full, EPSILON, DELTA)


def test_one_changed_byte_in_the_file_is_named(full: Path) -> None:
    raw = full.read_bytes()
    assert raw.count(b"marker6") == 1
    full.write_bytes(raw.replace(b"marker6", b"marker5"))
    with pytest.raises(LedgerError, match="charge 7 does not match its hash"):
        Ledger.open(full, EPSILON, DELTA)


def test_any_changed_byte_is_refused_or_harmless(full: Path, tmp_path: Path) -> None:
    raw, dice, copy = full.read_bytes(), random.Random(3), tmp_path / "copy"
    refused = 0
    for _ in range(60):
        place = dice.randrange(len(raw))
        changed = bytearray(raw)
        changed[place] ^= 1 << dice.randrange(8)
        copy.write_bytes(changed)
        try:
            with Ledger.open(copy, EPSILON, DELTA) as ledger:
                assert ledger.spent().exact_epsilon == Decimal("0.45")
                assert ledger.spent("ben").exact_epsilon == Decimal("0.2")
        except LedgerError:
            refused += 1
    assert refused > 5


@pytest.mark.parametrize("column", COLUMNS[1:])
def test_text_that_became_bytes_is_named(full: Path, column: str) -> None:
    with Ledger.open(full, EPSILON, DELTA) as ledger:
        edit(
            full,
            f"UPDATE discreet_charges SET {column} = CAST({column} AS BLOB) WHERE seq = 9",
        )
        for use in (lambda: charge(ledger), ledger.spent, ledger.history, ledger.verify):
            with pytest.raises(LedgerError, match="charge 9 does not match its hash"):
                use()
    with pytest.raises(LedgerError, match="charge 9 does not match its hash"):
        Ledger.open(full, EPSILON, DELTA)


@pytest.mark.parametrize("rows", ["seq = 1", "seq = 5", "seq IN (2, 7)"])
def test_a_missing_row_is_named(full: Path, rows: str) -> None:
    edit(full, f"DELETE FROM discreet_charges WHERE {rows}")
    first = (re.search(r"\d", rows) or pytest.fail("no number"))[0]
    with pytest.raises(LedgerError, match=f"charge {first} is missing"):
        Ledger.open(full, EPSILON, DELTA)


def rehash(path: Path, seq: int, **values: str) -> None:
    """Change a row and give it and all later rows matching hashes, as an attacker would."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT * FROM discreet_charges ORDER BY seq").fetchall()
    names, previous, changes = COLUMNS, "", []
    for row in rows:
        fields = dict(zip(names, row, strict=True))
        if fields["seq"] == seq:
            fields.update(values)
        if fields["seq"] > seq and "previous_hash" not in values:
            fields["previous_hash"] = previous
        fields["hash"] = charge_hash(tuple(fields[name] for name in names[:-1]))
        previous = fields["hash"]
        changes += [
            f"UPDATE discreet_charges SET {name} = '{fields[name]}' WHERE seq = {fields['seq']}"
            for name in names[1:]
        ]
    edit(path, *changes)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"total_epsilon": "0.01"}, "sums"),
        ({"analyst_rdp": "0"}, "sums"),
        ({"epsilon": "0.04"}, "sums"),
        ({"epsilon": "-1"}, "no valid loss"),
        ({"epsilon": "NaN"}, "no valid loss"),
        ({"epsilon": "zero"}, "no valid loss"),
        ({"sql": "SELECT 1"}, "another SQL text"),
        ({"previous_hash": "0" * 64}, "chain"),
        (
            {"epsilon": "2", "total_epsilon": "2.1", "analyst_epsilon": "2.05"},
            "more than the budget",
        ),
    ],
)
def test_a_change_with_matching_hashes_is_named(
    full: Path, values: dict[str, str], problem: str
) -> None:
    rehash(full, 3, **values)
    with pytest.raises(LedgerError, match=f"charge 3 .*{problem}"):
        Ledger.open(full, EPSILON, DELTA)


def test_a_damaged_row_decides_nothing(full: Path) -> None:
    with Ledger.open(full, EPSILON, DELTA) as ledger:
        edit(full, "UPDATE discreet_charges SET total_epsilon = '0' WHERE seq = 9")
        with pytest.raises(LedgerError, match="charge 9"):
            charge(ledger)
        with pytest.raises(LedgerError, match="charge 9"):
            ledger.spent()


@pytest.mark.parametrize("column", COLUMNS[1:])
def test_a_row_damaged_after_it_was_written_here_decides_nothing(full: Path, column: str) -> None:
    """The ledger does not hash its own last row again, but compares it with what it wrote."""
    with Ledger.open(full, EPSILON, DELTA) as ledger:
        charge(ledger)
        assert charge(ledger).seq == 11
        edit(full, f"UPDATE discreet_charges SET {column} = {column} || '0' WHERE seq = 11")
        with pytest.raises(LedgerError, match="charge 11"):
            charge(ledger)


@pytest.mark.parametrize(
    "change", ["epsilon_total = '1.0'", "filter_json = '{}'", "genesis = ''", "format = 2"]
)
def test_a_changed_budget_in_the_file_is_refused(full: Path, change: str) -> None:
    edit(full, f"UPDATE discreet_ledger SET {change}")
    with pytest.raises(LedgerError, match="first row"):
        Ledger.open(full, EPSILON, DELTA)


@pytest.mark.parametrize("column", ["ledger_id", "epsilon_total", "filter_json", "genesis"])
def test_a_first_row_that_became_bytes_is_refused(full: Path, column: str) -> None:
    with Ledger.open(full, EPSILON, DELTA) as ledger:
        edit(full, f"UPDATE discreet_ledger SET {column} = CAST({column} AS BLOB)")
        with pytest.raises(LedgerError, match="first row"):
            ledger.verify()
    with pytest.raises(LedgerError, match="first row"):
        Ledger.open(full, EPSILON, DELTA)


def test_a_first_row_that_vanishes_while_open_is_named(full: Path) -> None:
    with Ledger.open(full, EPSILON, DELTA) as ledger:
        edit(full, "DELETE FROM discreet_ledger")
        with pytest.raises(LedgerError, match="first row"):
            ledger.verify()


# --- another budget, backups, the witness ----------------------------------------------------


@pytest.mark.parametrize(("epsilon", "delta"), [("2", "1e-6"), ("0.5", "1e-6"), ("1", "1e-5")])
def test_another_budget_is_refused_and_both_are_shown(full: Path, epsilon: str, delta: str) -> None:
    with pytest.raises(LedgerError, match="new deployment") as refusal:
        Ledger.open(full, Decimal(epsilon), Decimal(delta))
    assert f"epsilon {epsilon}, delta {Decimal(delta)}" in str(refusal.value)
    assert "epsilon 1, delta 0.000001" in str(refusal.value)
    Ledger.open(full, Decimal("1.000"), Decimal("0.0000010")).close()  # the same numbers


@pytest.fixture
def witnessed(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A ledger of three charges, its witness, and a backup taken after the first charge."""
    path, witness, backup = tmp_path / "x", tmp_path / "w", tmp_path / "backup"
    with Ledger.open(path, EPSILON, DELTA, witness=witness) as ledger:
        charge(ledger)
    shutil.copy(path, backup)
    with Ledger.open(path, EPSILON, DELTA, witness=witness) as ledger:
        charge(ledger)
        charge(ledger)
    return path, witness, backup


def test_a_truncated_ledger_is_behind_its_witness(witnessed: tuple[Path, Path, Path]) -> None:
    path, witness, _ = witnessed
    edit(path, "DELETE FROM discreet_charges WHERE seq = 3")
    with pytest.raises(LedgerError, match="charge 3") as refusal:
        Ledger.open(path, EPSILON, DELTA, witness=witness)
    assert str(witness) in str(refusal.value)
    assert "counts as spent" in str(refusal.value)


def test_a_restored_backup_is_behind_its_witness(witnessed: tuple[Path, Path, Path]) -> None:
    path, witness, backup = witnessed
    shutil.copy(backup, path)
    with pytest.raises(LedgerError, match="older charges"):
        Ledger.open(path, EPSILON, DELTA, witness=witness)


def test_a_backup_that_was_spent_again_does_not_match_the_witness(
    witnessed: tuple[Path, Path, Path],
) -> None:
    path, witness, backup = witnessed
    shutil.copy(backup, path)
    with Ledger.open(path, EPSILON, DELTA) as ledger:
        assert accepted(ledger, 5) == 5
    with pytest.raises(LedgerError, match="charge 3"):
        Ledger.open(path, EPSILON, DELTA, witness=witness)


def test_a_ledger_put_back_in_time_while_in_use_is_refused(
    witnessed: tuple[Path, Path, Path],
) -> None:
    path, witness, backup = witnessed
    with Ledger.open(path, EPSILON, DELTA, witness=witness) as ledger:
        charge(ledger)
        os.replace(backup, path)
        for use in (lambda: charge(ledger), ledger.spent, ledger.verify):
            with pytest.raises(LedgerError, match="replaced while in use"):
                use()
    with Ledger.open(path, EPSILON, DELTA) as ledger:
        charge(ledger)
        seq = ledger.head()[0]
        edit(path, f"DELETE FROM discreet_charges WHERE seq = {seq}")
        with pytest.raises(LedgerError, match="was in it and now is not"):
            charge(ledger)


def _uses(ledger: Ledger) -> tuple[Callable[[], object], ...]:
    return (
        lambda: charge(ledger),
        lambda: charge(ledger, quota=Decimal(0)),  # refused for what was lost, not for the quota
        ledger.spent,
        lambda: ledger.spent("ana"),
        lambda: ledger.spent("nobody"),
        ledger.left,
        ledger.history,
        lambda: ledger.history(1, "ana"),
        lambda: ledger.history(0),
        ledger.head,
        ledger.verify,
    )


@pytest.mark.parametrize("lost", [(3,), (2, 3), (1, 2, 3)])
@pytest.mark.parametrize("is_witnessed", [True, False])
def test_what_was_there_at_opening_cannot_be_forgotten(
    witnessed: tuple[Path, Path, Path], lost: tuple[int, ...], is_witnessed: bool
) -> None:
    path, witness, _ = witnessed
    told = witness.read_bytes()
    with Ledger.open(path, EPSILON, DELTA, witness=witness if is_witnessed else None) as ledger:
        edit(path, *(f"DELETE FROM discreet_charges WHERE seq = {seq}" for seq in lost))
        for use in _uses(ledger):
            with pytest.raises(LedgerError, match="charge 3 was in it and now is not"):
                use()
    assert set(witness.read_bytes().split()) == set(told.split())
    with pytest.raises(LedgerError, match="saw charge 3 as"):
        Ledger.open(path, EPSILON, DELTA, witness=witness)


def test_a_backup_copied_over_the_ledger_in_use_is_refused(
    witnessed: tuple[Path, Path, Path],
) -> None:
    path, witness, backup = witnessed
    with Ledger.open(path, EPSILON, DELTA, witness=witness) as ledger:
        file = path.stat().st_ino
        shutil.copy(backup, path)
        assert path.stat().st_ino == file
        told = witness.read_bytes()

        def work() -> None:  # on a connection of its own, without the former pages in its memory
            for use in _uses(ledger):
                with pytest.raises(LedgerError, match="charge 3 was in it and now is not"):
                    use()

        assert status_of(in_child(work)) == 0
        assert witness.read_bytes() == told
        with suppress(LedgerError):
            assert charge(ledger).seq == 4  # SQLite may still have all that was there


def test_a_backup_that_was_spent_again_is_refused_by_who_saw_more(
    witnessed: tuple[Path, Path, Path],
) -> None:
    path, _, backup = witnessed
    with Ledger.open(path, EPSILON, DELTA) as ledger:
        shutil.copy(backup, path)
        with Ledger.open(path, EPSILON, DELTA) as other:
            assert accepted(other, 4) == 4  # now the charges 2 to 5, of which 3 is another one
        for use in _uses(ledger):
            with pytest.raises(LedgerError, match="charge 3 was in it and now is not"):
                use()


@pytest.mark.parametrize(
    "sight",
    [
        Ledger.spent,
        lambda ledger: ledger.spent("nobody"),
        Ledger.history,
        lambda ledger: ledger.history(0, "nobody"),
        Ledger.head,
        Ledger.verify,
        charge,
    ],
)
def test_charges_of_other_processes_are_remembered(
    witnessed: tuple[Path, Path, Path], sight: Callable[[Ledger], object]
) -> None:
    path, _, _ = witnessed
    with Ledger.open(path, EPSILON, DELTA) as ledger:
        with Ledger.open(path, EPSILON, DELTA) as other:
            charge(other)
        sight(ledger)
        seq = ledger.head()[0]
        edit(path, f"DELETE FROM discreet_charges WHERE seq = {seq}")
        with pytest.raises(LedgerError, match=f"charge {seq} was in it and now is not"):
            charge(ledger)


def test_a_charge_asks_the_witness_first(witnessed: tuple[Path, Path, Path]) -> None:
    path, witness, _ = witnessed
    with (
        Ledger.open(path, EPSILON, DELTA, witness=witness) as ledger,
        Ledger.open(path, EPSILON, DELTA, witness=witness) as other,
    ):
        seq = charge(other).seq  # which `ledger` never saw, but its witness did
        edit(path, f"DELETE FROM discreet_charges WHERE seq = {seq}")
        for _ in range(2):
            with pytest.raises(LedgerError, match=f"saw charge {seq} as"):
                charge(ledger)
        assert ledger.head()[0] == seq - 1


def test_the_highest_charge_that_the_witness_saw_counts(
    witnessed: tuple[Path, Path, Path],
) -> None:
    path, witness, backup = witnessed
    told = witness.read_bytes()
    shutil.copy(backup, path)
    with Ledger.open(path, EPSILON, DELTA) as ledger:
        charge(ledger)
        seq, digest = ledger.head()
        name = told.split()[0].decode()
    assert seq == 2
    filler = b"\n" + b"x" * 4096 + b"\n"
    for newer in (b"", filler, filler * 300):
        witness.write_bytes(told + newer + f"\n{name} {seq} {digest}\n".encode())
        with pytest.raises(LedgerError, match="saw charge 3 as"):
            Ledger.open(path, EPSILON, DELTA, witness=witness)
    with Ledger.open(path, EPSILON, DELTA) as ledger:
        charge(ledger)
        seq, digest = ledger.head()
    assert seq == 3  # a witness that saw two different charges 3 is right about one that is lost
    witness.write_bytes(told + f"\n{name} {seq} {digest}\n".encode())
    with pytest.raises(LedgerError, match="saw charge 3 as"):
        Ledger.open(path, EPSILON, DELTA, witness=witness)


def test_a_witness_put_back_or_lost_in_use_makes_nothing_forgotten(
    witnessed: tuple[Path, Path, Path],
) -> None:
    path, witness, _ = witnessed
    with Ledger.open(path, EPSILON, DELTA, witness=witness) as ledger:
        older = witness.read_bytes()
        charge(ledger)
        witness.write_bytes(older)
        assert charge(ledger).seq == 5
        witness.unlink()
        assert charge(ledger).seq == 6
        os.replace(shutil.copy(witness, witness.with_name("copy")), witness)
        assert charge(ledger).seq == 7
        assert witness.read_text().endswith(" {} {}\n".format(*ledger.head()))
        with open(witness, "a") as file:
            file.write("\n" + "0" * 32 + " 1 " + "0" * 64 + "\n")
        with pytest.raises(LedgerError, match="belongs to another ledger"):
            charge(ledger)
        assert ledger.head()[0] == 7


def test_a_witness_that_lags_or_was_torn_is_fine(witnessed: tuple[Path, Path, Path]) -> None:
    path, witness, _ = witnessed
    lines = witness.read_bytes().rstrip().split(b"\n")
    witness.write_bytes(b"\n".join(lines[:-2]) + b"\n" + lines[-1][:50])
    with Ledger.open(path, EPSILON, DELTA, witness=witness) as ledger:
        assert charge(ledger).seq == 4
        seq, digest = ledger.head()
    assert witness.read_text().endswith(f" {seq} {digest}\n")
    witness.unlink()
    Ledger.open(path, EPSILON, DELTA, witness=witness).close()
    assert f" {seq} {digest}\n" in witness.read_text()


def test_a_witness_of_another_ledger_or_of_nothing_is_refused(
    witnessed: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    path, witness, _ = witnessed
    with pytest.raises(LedgerError, match="belongs to another ledger"):
        Ledger.open(tmp_path / "other", EPSILON, DELTA, witness=witness)
    witness.write_text("what?\n")
    with pytest.raises(LedgerError, match="nothing readable"):
        Ledger.open(path, EPSILON, DELTA, witness=witness)


def test_a_ledger_that_is_gone_is_not_made_anew(full: Path, tmp_path: Path) -> None:
    raw = full.read_bytes()
    full.unlink()
    for _ in range(2):
        with pytest.raises(LedgerError, match="is gone"):
            Ledger.open(full, EPSILON, DELTA)
    full.write_bytes(b"")
    with pytest.raises(LedgerError, match="is gone"):
        Ledger.open(full, EPSILON, DELTA)
    Ledger.open(tmp_path / "y", EPSILON, DELTA).close()
    shutil.copy(tmp_path / "y", full)
    with pytest.raises(LedgerError, match="another ledger was here"):
        Ledger.open(full, EPSILON, DELTA)
    full.write_bytes(raw)
    Ledger.open(full, EPSILON, DELTA).close()


# --- files that are not what they should be ---------------------------------------------------


def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("these are notes, and long enough to be read as a header of a file\n" * 99)
    with pytest.raises(LedgerError, match=r"notes\.txt: the file is not a database"):
        Ledger.open(text, EPSILON, DELTA)
    assert text.read_text().startswith("these are notes")
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("CREATE TABLE patients (id)")
    with pytest.raises(LedgerError, match=r"tables of its own \(patients\)"):
        Ledger.open(other, EPSILON, DELTA)


def test_a_half_file_is_refused(full: Path) -> None:
    raw = full.read_bytes()
    for part in (17, 200, 4096, len(raw) // 2, len(raw) - 4096):
        full.write_bytes(raw[:part])
        with pytest.raises(LedgerError):
            Ledger.open(full, EPSILON, DELTA)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing/x", "folder .*missing does not exist"),
        ("", "it is a folder"),
        (":memory:", "in memory would forget"),
    ],
)
def test_a_place_that_cannot_be_is_named(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(LedgerError, match=problem):
        Ledger.open(tmp_path / name, EPSILON, DELTA)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("nonsense://x", "no driver"),
        ("sqlite://", "a folder|in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_a_url_that_cannot_be_is_named(url: str, problem: str) -> None:
    with pytest.raises(LedgerError, match=problem):
        Ledger.open(url, EPSILON, DELTA)


def test_a_sqlite_url_names_the_same_ledger_as_its_path(full: Path) -> None:
    with Ledger.open(f"sqlite:///{full}", EPSILON, DELTA) as ledger:
        assert ledger.head()[0] == 9


def test_a_witness_without_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="No such file"):
        Ledger.open(tmp_path / "x", EPSILON, DELTA, witness=tmp_path / "no" / "w")


def test_a_path_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for bad in (tmp_path / "nul\0", tmp_path / "loop", tmp_path / "loop" / "x", "n" * 300):
        with pytest.raises(LedgerError, match=r"nul|loop|nnn"):
            Ledger.open(bad, EPSILON, DELTA)
        with pytest.raises(LedgerError, match=r"nul|loop|nnn"):
            Ledger.open(tmp_path / "good", EPSILON, DELTA, witness=bad)
    with pytest.raises(LedgerError, match="null byte"):
        Ledger.open(f"sqlite:///{tmp_path}/nul\0", EPSILON, DELTA)


def test_a_changed_working_directory_leads_to_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for where in ("x", "sqlite:///y"):
        monkeypatch.chdir(tmp_path)
        with Ledger.open(where, EPSILON, DELTA, witness="w" + where[-1]) as ledger:
            monkeypatch.chdir(elsewhere)

            def work(ledger: Ledger = ledger) -> None:
                charge(ledger)  # on a connection of its own
                assert ledger.head()[0] == 1

            assert status_of(in_child(work)) == 0
            assert charge(ledger).seq == 2
            assert ledger.store.location == tmp_path / where[-1]
    assert list(elsewhere.iterdir()) == []


def test_a_failing_witness_does_not_keep_the_store_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.open(tmp_path / "x", EPSILON, DELTA, witness=tmp_path / "w")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full_disk)
        with pytest.raises(LedgerError, match="No space left"):
            ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        ledger.head()


def test_the_mark_in_the_lock_file_is_on_disk_before_the_ledger_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[int, bytes] = {}
    path, lock = tmp_path / "x", tmp_path / "x.lock"

    def fsync(file: int) -> None:
        synced[os.fstat(file).st_ino] = lock.read_bytes() if lock.exists() else b""

    monkeypatch.setattr(os, "fsync", fsync)
    Ledger.open(path, EPSILON, DELTA).close()
    assert len(lock.read_bytes()) == 32
    for known in (lock, tmp_path):  # the mark itself, and the folder's entry for it
        assert synced[known.stat().st_ino] == lock.read_bytes()


@pytest.mark.parametrize(
    ("locked", "problem"), [("folder", "cannot be written"), ("file", "read-only for this user")]
)
def test_a_place_without_write_permission_is_named(locked: str, problem: str) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "x"
        Ledger.open(path, EPSILON, DELTA).close()
        os.chmod(path, 0o444 if locked == "file" else 0o666)
        os.chmod(folder, 0o555 if locked == "folder" else 0o777)

        def work() -> None:
            if os.geteuid() == 0:  # permissions do not bind root
                os.setgid(65534)
                os.setuid(65534)
            with pytest.raises(LedgerError, match=problem):
                Ledger.open(path, EPSILON, DELTA)

        assert status_of(in_child(work)) == 0
    finally:
        os.chmod(folder, 0o777)
        shutil.rmtree(folder)


def test_a_folder_that_cannot_be_searched_is_named() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "in").mkdir()
        os.chmod(folder, 0o000)

        def work() -> None:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            with pytest.raises(LedgerError, match="Permission denied"):
                Ledger.open(folder / "in" / "x", EPSILON, DELTA)

        assert status_of(in_child(work)) == 0
    finally:
        os.chmod(folder, 0o777)
        shutil.rmtree(folder)


def test_a_lock_that_is_never_given_back_is_named(
    full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_store, "LOCK_SECONDS", 0.1)
    with Ledger.open(full, EPSILON, DELTA) as ledger:
        with open(ledger_store.lock_path(full)) as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            for use in (lambda: charge(ledger), lambda: Ledger.open(full, EPSILON, DELTA)):
                with pytest.raises(LedgerError, match=r"x\.lock.* is held by another process"):
                    use()
        for _ in range(3):  # and those who gave up do not keep it
            charge(ledger)
        assert ledger.head()[0] == 12


def test_a_writer_that_never_ends_is_named(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_store, "LOCK_SECONDS", 0.1)
    with Ledger.open(full, EPSILON, DELTA) as ledger, closing(sqlite3.connect(full)) as browser:
        browser.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="Another program holds the file"):
            charge(ledger)
        browser.rollback()
        charge(ledger)
