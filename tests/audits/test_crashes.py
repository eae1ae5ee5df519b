"""Power cuts at any byte and kill -9 at any moment: no acknowledged charge is ever lost, and no
answer was told without its charge.

A power cut leaves of a file what was fsynced and any part of what was written after it. The
ledger's write-ahead log is cut at every kind of place between two acknowledged charges, torn or
followed by garbage, and opened again.
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
from decimal import Decimal
from pathlib import Path

import pytest

from engine import Engine, Refused
from engine.clinic import clinic_policy, write_clinic
from engine.ledger import Ledger
from tests.audits.conftest import Figure
from tests.engine.test_ledger_faults import AMPLE, DELTA, charge

ROOT = Path(__file__).parents[2]
CHARGES = 40


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, bytes]]:
    """The ledger's files after each acknowledged charge, of which every byte is on disk."""
    folder = tmp_path_factory.mktemp("states")
    found = []
    with Ledger.open(folder / "x", AMPLE, DELTA, witness=folder / "w") as ledger:
        for _ in range(CHARGES):
            found.append({p.name: p.read_bytes() for p in folder.iterdir()
                          if not p.name.endswith("-shm")})
            charge(ledger)
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


def crashes(states: list[dict[str, bytes]], folder: Path, count: int, seed: int) -> Iterator[int]:
    """Open the ledger after so many power cuts; yield how many charges each kept beyond what was
    acknowledged."""
    dice = random.Random(seed)
    for _ in range(count):
        place = dice.randrange(len(states) - 1)  # so many charges are acknowledged
        home = folder / "crashed"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        for name, data in cut(states[place], states[place + 1], dice).items():
            (home / name).write_bytes(data)
        with Ledger.open(home / "x", AMPLE, DELTA) as ledger:
            kept = ledger.verify()
            assert ledger.spent().exact_epsilon == kept * Decimal("0.05")
            charge(ledger)  # and it goes on
            assert ledger.verify() == kept + 1
        yield kept - place


def test_a_power_cut_at_any_byte_loses_no_acknowledged_charge(
    states: list[dict[str, bytes]], tmp_path: Path
) -> None:
    more = list(crashes(states, tmp_path, 120, seed=1))
    assert set(more) <= {0, 1}
    assert len(set(more)) == 2  # both sides of the commit were met


@pytest.mark.audit
def test_ten_thousand_power_cuts(
    states: list[dict[str, bytes]], tmp_path: Path, figure: Figure
) -> None:
    more = list(crashes(states, tmp_path, 10_000, seed=2))
    figure("power cuts", {"crashes": len(more), "acknowledged charges lost": more.count(-1),
                          "charges kept that were not acknowledged": more.count(1)})
    assert len(more) == 10_000
    assert set(more) == {0, 1}


def test_a_cut_that_loses_a_charge_would_be_seen(
    states: list[dict[str, bytes]], tmp_path: Path
) -> None:
    """The test's own power: a log cut below what was acknowledged has fewer charges."""
    home = tmp_path / "lost"
    home.mkdir()
    for name, data in states[20].items():
        (home / name).write_bytes(states[19][name] if name.endswith("-wal") else data)
    with Ledger.open(home / "x", AMPLE, DELTA) as ledger:
        assert ledger.verify() == 19


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
