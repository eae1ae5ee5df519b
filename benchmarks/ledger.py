"""How fast is the durable budget? A folder comes in; charges and bare fsyncs per second go out.

    python -m benchmarks.ledger [--folder DIR] [--seconds 2] [--rounds 3] [--json]

A charge cannot be faster than the fsync it waits for, and charges are serial by nature: each
depends on the sum before it. So the bare fsync of a small append, by one process, is the
measure for one process and for four. Both take turns, so that a noisy disk is noisy for both.
"""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from benchmarks.common import give_out, machine, parser
from engine.ledger import Ledger
from mechanisms.loss import PrivacyLoss

BUDGET = (Decimal(10**9), Decimal("1e-6"))
PRICE = PrivacyLoss(Decimal("0.1"), Decimal("1e-15"), Decimal("0.01"), Decimal("1e-15"))
FACTS: dict[str, Any] = {
    "quota": Decimal(10**9),
    "events_json": '{"version": 1, "events": [{"kind": "laplace", "l1": 1, "scale": 10}]}',
    "sql": "SELECT department, count(*) FROM visits GROUP BY department",
    "plan_hash": "a" * 64,
    "policy_hash": "b" * 64,
    "data_version": "c" * 64,
}


def bare_fsyncs(folder: Path, seconds: float) -> list[float]:
    """Return the time of each append of 100 bytes with its fsync."""
    with open(folder / "bare", "ab", buffering=0) as file:

        def step() -> None:
            file.write(b"x" * 100)
            os.fsync(file.fileno())

        return _repeat(step, seconds)


def charges(folder: Path, analyst: str, seconds: float, witness: bool = False) -> list[float]:
    """Return the time of each charge."""
    seen = folder / "witness" if witness else None
    with Ledger.open(folder / "ledger", *BUDGET, witness=seen) as ledger:
        return _repeat(lambda: ledger.charge(PRICE, analyst=analyst, **FACTS), seconds)


def charges_of_many(folder: Path, processes: int, seconds: float) -> tuple[list[float], float]:
    """Return the times of all charges of several processes, and the charges per second."""
    context = multiprocessing.get_context("fork")
    queue: Queue[list[float]] = context.Queue()
    start = context.Barrier(processes + 1)

    def work(name: str) -> None:
        with Ledger.open(folder / "ledger", *BUDGET) as ledger:
            start.wait()
            queue.put(_repeat(lambda: ledger.charge(PRICE, analyst=name, **FACTS), seconds))

    workers = [context.Process(target=work, args=(f"p{n}",)) for n in range(processes)]
    for worker in workers:
        worker.start()
    start.wait()
    times = [one for _ in workers for one in queue.get()]
    # Every process charges without a pause, so this is the time that they all ran together.
    rate = len(times) * processes / sum(times)
    for worker in workers:
        worker.join()
    return times, rate


def measure(folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Return the median of the rounds for each of the contenders."""
    ways: dict[str, Callable[[], tuple[list[float], float]]] = {
        "bare fsync": lambda: _with_rate(bare_fsyncs(folder, seconds)),
        "charge, 1 process": lambda: _with_rate(charges(folder, "ana", seconds)),
        "charge, 4 processes": lambda: charges_of_many(folder, 4, seconds),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            some, rate = way()
            times[name] += some
            rates[name].append(rate)
    bare = statistics.median(rates["bare fsync"])
    begun = time.perf_counter()
    with Ledger.open(folder / "ledger", *BUDGET) as ledger:
        rows = ledger.head()[0]
    opened = time.perf_counter() - begun
    return {
        "machine": machine("sqlalchemy") | {"sqlite": sqlite3.sqlite_version},
        "file system": file_system(folder),
        "open and verify": {"charges": rows, "microseconds each": opened / rows * 1e6},
        "results": {
            name: {
                "per second": round(statistics.median(rates[name]), 1),
                "of bare": round(statistics.median(rates[name]) / bare, 3),
                "p50 ms": round(_quantile(times[name], 0.50) * 1e3, 3),
                "p99 ms": round(_quantile(times[name], 0.99) * 1e3, 3),
            }
            for name in ways
        },
    }


def file_system(folder: Path) -> str:
    """Return the type of the file system that a folder is on; "tmpfs" would mean no disk."""
    best = ("", "unknown")
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return best[1]
    for _, point, kind, *_ in (line.split() for line in mounts):
        if folder.resolve().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def _repeat(step: Callable[[], object], seconds: float) -> list[float]:
    times, end = [], time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        step()
        times.append(time.perf_counter() - begun)
    return times


def _with_rate(times: list[float]) -> tuple[list[float], float]:
    return times, len(times) / sum(times)


def _quantile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def table(found: dict[str, Any]) -> str:
    """Print what was found."""
    lines = [f"on {found['file system']}"]
    for name, row in found["results"].items():
        cells = " ".join(f"{key} {value:<10}" for key, value in row.items())
        lines.append(f"{name:20} {cells}")
    return "\n".join([*lines, f"open and verify: {found['open and verify']}"])


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--folder", type=Path, default=Path(), help="on the disk to be measured")
    options.add_argument("--seconds", type=float, default=2.0)
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder, prefix=".ledger-bench-") as folder:
        found = measure(Path(folder), asked.seconds, asked.rounds)
    give_out(found, asked, table(found))


if __name__ == "__main__":
    main()
