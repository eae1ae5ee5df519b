"""Power cuts at any byte and kill -9 at any moment: no acknowledged charge is ever lost, and no
answer was told without its charge.

A power cut leaves of a file what was flushed and any part of what was written after it. The
ledger's write-ahead log is cut at every kind of place before, between and after a charge's commit
and its flush, torn or followed by garbage, and opened again.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from engine import Engine, Refused, ledger_log
from engine.clinic import clinic_policy, write_clinic
from engine.errors import LedgerError
from engine.ledger import Ledger
from tests.audits.conftest import Figure
from tests.engine.test_ledger_faults import AMPLE, DELTA, charge

ROOT = Path(__file__).parents[2]
CHARGES = 40


@dataclass(frozen=True, slots=True)
class Point:
    """The ledger's files at one moment, and how many charges the disk surely had then."""

    files: dict[str, bytes]
    durable: int


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> list[Point]:
    """For each charge: its beginning; its commit, not flushed yet; its flush, not told yet. The
    files are those that the disk has at the next point at the latest, and in between any part."""
    folder = tmp_path_factory.mktemp("points")
    found: list[Point] = []

    def note(durable: int) -> None:
        found.append(Point({p.name: p.read_bytes() for p in folder.iterdir()
                            if not p.name.endswith("-shm")}, durable))

    flush_file = ledger_log.flush_file
    with (
        pytest.MonkeyPatch.context() as patch,
        Ledger.open(folder / "x", AMPLE, DELTA, witness=folder / "w") as ledger,
    ):
        for done in range(CHARGES):

            def flush(file: int, done: int = done) -> None:
                note(done)
                flush_file(file)
                note(done + 1)

            patch.setattr(ledger_log, "flush_file", flush)
            note(done)
            charge(ledger)
        note(CHARGES)
    assert len(found) == 3 * CHARGES + 1
    return found


def cut(before: dict[str, bytes], after: dict[str, bytes], dice: random.Random) -> dict[str, bytes]:
    """Return what a power cut between two acknowledgements could leave."""
    left = dict(before)
    for name, old in before.items():
        new = after[name]
        if new == old:
            continue
        if new.startswith(old):
            whole = dice.random() < 0.25
            reach = len(new) if whole else len(old) + dice.randrange(len(new) - len(old) + 1)
            more = new[len(old) : reach]
            if not whole and dice.random() < 0.3:  # blocks may reach the disk out of order
                more = bytes(len(more))[: dice.randrange(len(more) + 1)] + more[len(more) // 2 :]
            if dice.random() < 0.2:
                more += dice.randbytes(dice.randrange(600))
            left[name] = old + more
        elif name.endswith("wal"):
            left[name] = dice.choice((old, new))
    return left


def crashes(points: list[Point], folder: Path, count: int, seed: int) -> Iterator[int]:
    """Open the ledger, with its witness, after so many power cuts; yield how many charges each
    kept beyond what was surely on disk."""
    dice = random.Random(seed)
    for _ in range(count):
        place = dice.randrange(len(points) - 1)
        home = folder / "crashed"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        for name, data in cut(points[place].files, points[place + 1].files, dice).items():
            (home / name).write_bytes(data)
        with Ledger.open(home / "x", AMPLE, DELTA, witness=home / "w") as ledger:
            kept = ledger.verify()
            assert ledger.spent().exact_epsilon == kept * Decimal("0.05")
            charge(ledger)  # and it goes on
            assert ledger.verify() == kept + 1
        yield kept - points[place].durable


def test_a_power_cut_at_any_byte_loses_no_acknowledged_charge(
    points: list[Point], tmp_path: Path
) -> None:
    more = list(crashes(points, tmp_path, 90, seed=1))
    assert set(more) <= {0, 1}
    assert len(set(more)) == 2  # both sides of the commit were met


@pytest.mark.audit
def test_ten_thousand_power_cuts(
    points: list[Point], tmp_path: Path, figure: Figure
) -> None:
    more = list(crashes(points, tmp_path, 10_000, seed=2))
    figure("power cuts", {"crashes": len(more), "acknowledged charges lost": more.count(-1),
                          "charges kept that were not acknowledged": more.count(1)})
    assert len(more) == 10_000
    assert set(more) == {0, 1}


def test_a_power_cut_between_commit_and_flush_leaves_the_witness_behind(
    points: list[Point],
) -> None:
    for begun, committed, flushed, told in zip(
        points[:-1:3], points[1::3], points[2::3], points[3::3], strict=True
    ):
        assert begun.files["x-wal"] != committed.files["x-wal"] == flushed.files["x-wal"]
        assert begun.files["w"] == committed.files["w"] == flushed.files["w"] != told.files["w"]


def test_a_cut_that_loses_a_charge_would_be_seen(points: list[Point], tmp_path: Path) -> None:
    """The test's own power: a log cut below what was flushed has fewer charges, and is refused
    by a witness that was told of them."""
    home = tmp_path / "lost"
    home.mkdir()
    for name, data in points[60].files.items():
        (home / name).write_bytes(points[57].files[name] if name.endswith("-wal") else data)
    with Ledger.open(home / "x", AMPLE, DELTA) as ledger:
        assert ledger.verify() == 19
    with pytest.raises(LedgerError, match="saw charge 20 as"):
        Ledger.open(home / "x", AMPLE, DELTA, witness=home / "w")


# ---- kill -9, of a whole engine ------------------------------------------------------------

ASKING = """
import sys
from engine import Engine
engine = Engine.open(sys.argv[1])
print("ready", flush=True)
for n in range(int(sys.argv[2]), 10**9):
    result = engine.query(f"SELECT COUNT(*) FROM visits WHERE cost > {n}.1", epsilon=0.001)
    print(n, result.rows[0][0], flush=True)
"""


def killed(policy: Path, first: int, after: float) -> list[tuple[int, int]]:
    """Ask from `first` on, kill the process after a while, and return what was told."""
    process = subprocess.Popen([sys.executable, "-c", ASKING, str(policy), str(first)], cwd=ROOT,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(after)
    os.kill(process.pid, signal.SIGKILL)
    lines = process.stdout.read().splitlines(keepends=True)
    process.wait()
    told = [line.split() for line in lines if line.endswith("\n")]
    return [(int(n), int(answer)) for n, answer in told]


@pytest.mark.audit
def test_two_hundred_kills_lose_no_charge_and_change_no_answer(
    tmp_path: Path, figure: Figure
) -> None:
    write_clinic(tmp_path / "clinic.duckdb", 30, seed=3, dirty=False, labs_per_patient=0)
    policy = tmp_path / "clinic.yaml"
    policy.write_text(clinic_policy(tmp_path / "clinic.duckdb", epsilon=1000.0))
    Engine.open(policy).close()
    dice, known, first, answers = random.Random(7), 0, 1, 0
    for _ in range(200):
        told = killed(policy, first, dice.uniform(0.0, 0.25))
        with Engine.open(policy) as engine:
            charged, answers = len(engine.history()), answers + len(told)
            assert known + len(told) <= charged <= known + len(told) + 1  # one was in flight
            for n, answer in told[-2:]:  # what was told is kept, and told again
                again = engine.query(f"SELECT COUNT(*) FROM visits WHERE cost > {n}.1",
                                     epsilon=0.001)
                assert again.cached
                assert again.rows == [(answer,)]
            known, first = charged, (told[-1][0] if told else first) + 2
            with pytest.raises(Refused):
                engine.query("SELECT cost FROM visits")
    assert known > 200
    figure("kill -9 of a whole engine", {"kills": 200, "answers told": answers,
                                         "charges on disk": known, "answers without a charge": 0})
