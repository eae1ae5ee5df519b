"""The ledger and the disk: what is acknowledged is on it, and all processes write the same log."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from engine import ledger_log, ledger_store
from engine.answers import Answers
from engine.errors import LedgerError
from engine.ledger import Ledger
from engine.ledger_log import Log
from tests.engine.test_ledger_faults import AMPLE, DELTA, charge, in_child, status_of

ROOT = Path(__file__).parents[2]

# --- one log for all processes -----------------------------------------------------------------

VISIT = """
import sys
from tests.engine.test_ledger_faults import AMPLE, DELTA, charge
from engine.ledger import Ledger
with Ledger.open(sys.argv[1], AMPLE, DELTA) as ledger:
    print(charge(ledger).seq)
"""


def visit(path: Path) -> int:
    """Charge once in a process of its own, which opens the ledger and closes it again."""
    done = subprocess.run([sys.executable, "-c", VISIT, str(path)], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE, check=True)
    return int(done.stdout)


def test_a_process_that_comes_and_goes_takes_the_log_from_nobody(tmp_path: Path) -> None:
    """Whoever closes SQLite's last connection removes the write-ahead log. A file that is opened
    and closed beside a connection takes away all locks of its process (POSIX), and with them the
    sign that a connection is there: its later charges would go to a file without a name."""
    path = tmp_path / "x"
    with Ledger.open(path, AMPLE, DELTA) as ledger:
        charge(ledger)
        answers = Answers(ledger)  # a second connection of this process, as every engine has
        assert visit(path) == 2
        assert path.with_name("x-wal").exists()
        assert charge(ledger).seq == 3
        assert visit(path) == 4
        assert ledger.spent().exact_epsilon == 4 * Decimal("0.05")
        answers.close()
        assert visit(path) == 5
        assert charge(ledger).seq == 6
    with Ledger.open(path, AMPLE, DELTA) as ledger:
        assert ledger.verify() == 6


def test_a_child_whose_parent_closes_the_ledger_charges_no_more(tmp_path: Path) -> None:
    """A fork copies SQLite's memory of its locks, not the locks: when the parent closes the file
    it may take the child's log away. The child must not spend a budget of its own from then on."""
    path, go = tmp_path / "x", tmp_path / "go"
    ledger = Ledger.open(path, AMPLE, DELTA)
    charge(ledger)

    def work() -> None:
        assert charge(ledger).seq == 2
        go.touch()
        wait_until(lambda: not go.exists())
        for _ in range(2):
            with pytest.raises(LedgerError, match="Restart every process"):
                charge(ledger)

    child = in_child(work)
    wait_until(go.exists)
    ledger.close()
    assert visit(path) == 3
    go.unlink()
    assert status_of(child) == 0
    assert visit(path) == 4


def test_a_log_that_was_removed_acknowledges_nothing(tmp_path: Path) -> None:
    path, witness = tmp_path / "x", tmp_path / "w"
    with Ledger.open(path, AMPLE, DELTA, witness=witness) as ledger:
        charge(ledger)
        told = witness.read_bytes()
        path.with_name("x-wal").unlink()
        for _ in range(2):
            with pytest.raises(LedgerError, match="removed while in use"):
                charge(ledger)
        assert witness.read_bytes() == told


# --- on disk before it is told -----------------------------------------------------------------


def files(folder: Path) -> dict[str, bytes]:
    """Return what a power cut could leave at best: all bytes written by now."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.endswith("-shm")}


def charges_in(state: dict[str, bytes], folder: Path) -> int:
    """Open a ledger of these files, with its witness, and return how many charges it has."""
    folder.mkdir()
    for name, data in state.items():
        (folder / name).write_bytes(data)
    with Ledger.open(folder / "x", AMPLE, DELTA, witness=folder / "w") as ledger:
        return ledger.verify()


def test_nothing_is_acknowledged_before_its_bytes_are_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk has what was written before the last flush that ended; the witness too is told
    only what is there."""
    home, disk, acknowledged = tmp_path / "home", [{}], []
    home.mkdir()
    flush_file = ledger_log.flush_file

    def flush(file: int) -> None:
        begun = files(home)
        flush_file(file)
        disk.append(begun)

    with Ledger.open(home / "x", AMPLE, DELTA, witness=home / "w") as ledger:
        charge(ledger)
        monkeypatch.setattr(ledger_log, "flush_file", flush)

        def work(_: int) -> None:
            for _ in range(6):
                acknowledged.append((charge(ledger).seq, len(disk) - 1))

        with ThreadPoolExecutor(5) as pool:
            list(pool.map(work, range(5)))
        newest: dict[int, int] = {}
        for seq, state in acknowledged:
            newest[state] = max(seq, newest.get(state, 0))
        assert sorted(seq for seq, _ in acknowledged) == list(range(2, 32))
    for state, seq in newest.items():
        assert charges_in(disk[state], tmp_path / f"cut{state}") >= seq


def test_a_log_has_its_name_on_disk_before_anything_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes of a file whose folder's entry a power cut takes away are lost as well."""
    home, named = tmp_path / "home", set[str]()
    home.mkdir()
    flush_folder = ledger_log.flush_folder

    def flush(folder: Path) -> None:
        begun = {path.name for path in folder.iterdir()}
        flush_folder(folder)
        named.update(begun)

    monkeypatch.setattr(ledger_log, "flush_folder", flush)
    with Ledger.open(home / "x", AMPLE, DELTA) as ledger:
        charge(ledger)
        assert {"x", "x-wal"} <= named


def test_the_lock_is_free_while_the_disk_is_waited_for_and_threads_share_a_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, flushes = threading.Event(), []

    def flush(_: int) -> None:
        flushes.append(1)
        assert go_on.wait(20)

    with Ledger.open(tmp_path / "x", AMPLE, DELTA) as ledger, ThreadPoolExecutor(4) as pool:
        monkeypatch.setattr(ledger_log, "flush_file", flush)
        waiting = [pool.submit(charge, ledger) for _ in range(4)]
        wait_until(lambda: ledger.head()[0] == 4)
        assert not any(one.done() for one in waiting)
        assert len(flushes) == 1
        go_on.set()
        assert sorted(one.result().seq for one in waiting) == [1, 2, 3, 4]
        assert len(flushes) == 2  # the three who came later needed one for all


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_what_another_process_has_not_flushed_is_not_told_to_the_witness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, witness = tmp_path / "x", tmp_path / "w"
    with Ledger.open(path, AMPLE, DELTA) as other:
        monkeypatch.setattr(ledger_log, "flush_file", disk_fails)
        with pytest.raises(LedgerError, match="Input/output"):
            charge(other)
        with pytest.raises(LedgerError, match="Input/output"):
            Ledger.open(path, AMPLE, DELTA, witness=witness)
        assert not witness.exists()


# --- a disk that fails -------------------------------------------------------------------------


def disk_fails(_: int) -> None:
    raise OSError(5, os.strerror(5))


def test_a_failed_flush_acknowledges_nobody_until_all_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, witness = tmp_path / "x", tmp_path / "w"
    monkeypatch.setattr(ledger_store, "LOCK_SECONDS", 0.1)
    with Ledger.open(path, AMPLE, DELTA, witness=witness) as ledger:
        charge(ledger)
        told = witness.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(ledger_log, "flush_file", disk_fails)
            with pytest.raises(LedgerError, match="Input/output error"):
                charge(ledger)
        with closing(sqlite3.connect(path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM discreet_charges").fetchall()
            with pytest.raises(LedgerError, match="did not take an earlier charge"):
                charge(ledger)
        assert witness.read_bytes() == told
        assert charge(ledger).seq == 3
        assert ledger.verify() == 3
        alone = tmp_path / "alone"  # the database file has, without a log, what was in doubt
        alone.write_bytes(path.read_bytes())
        with closing(sqlite3.connect(alone)) as reader:
            assert reader.execute("SELECT max(seq) FROM discreet_charges").fetchone() == (2,)


def test_who_waited_for_a_flush_that_failed_is_not_acknowledged_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux tells of a failed write once, and forgets the bytes: the next flush succeeds."""
    path = tmp_path / "log"
    path.write_bytes(b"x")
    log = Log(path)
    log.written = 1
    log.flush(1)
    log.written = 3
    with monkeypatch.context() as patch:
        patch.setattr(ledger_log, "flush_file", disk_fails)
        with pytest.raises(OSError, match="Input/output"):
            log.flush(2)
    for commit in (1, 2, 3):
        with pytest.raises(OSError, match="did not take"):
            log.flush(commit)
    log.begun_anew()
    log.flush(3)
    log.close()
    with pytest.raises(OSError, match="did not take"):
        log.flush(3)
