"""How fast is the durable budget? A folder comes in; charges and bare flushes per second go out.

    python -m benchmarks.ledger [--folder DIR] [--seconds 0.25] [--rounds 24] [--workers 4] [--json]

A charge cannot be faster than the flush it waits for. What bare fsyncs allow is what as many
processes (or threads) reach that only append 100 bytes and flush them as the ledger does
(fdatasync; F_FULLFSYNC on macOS), each in a file of its own or all in one file. Charges depend on
one another, flushes do not: so N processes that charge in one ledger are compared with N that
flush, the faster of the two ways. Everybody takes turns of a fraction of a second in one run, in
processes that stay, so that a noisy disk or a busy machine is so for all; a ratio is the median
over the rounds of the ratio within a round. `of one bare` compares with one process that flushes,
whatever the number that charge. CPU is that of the working threads, the flush included. On a busy
machine use `chrt -r 1`: else most of each wait is for the processor, not for the disk.
"""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.common import give_out, machine, parser, target
from engine.ledger import Ledger
from engine.ledger_log import flush_file
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


BARE, CHARGE = "bare", "charge"


@dataclass(frozen=True, slots=True)
class Turn:
    """What some workers do at the same time: so many processes, with so many threads each."""

    what: str
    processes: int
    threads: int
    shared: bool = True

    def __str__(self) -> str:
        many = f"{self.processes} process" + "es" * (self.processes > 1)
        if self.threads > 1:
            many = f"{self.threads} threads"
        if self.what == CHARGE:
            return f"charge, {many}"
        alone = self.processes * self.threads == 1
        return f"bare, {many}" + ("" if alone else ", one file" if self.shared else ", own files")


def turns(workers: int) -> tuple[Turn, ...]:
    """Return the contenders, each charge after the bare flushes that it is compared with."""
    return tuple(
        Turn(what, processes, threads, shared)
        for processes, threads in ((1, 1), (workers, 1), (1, workers))
        for what, shared in ((BARE, True), (BARE, False), (CHARGE, True))
        if shared or processes * threads > 1
    )


@dataclass(frozen=True, slots=True)
class Done:
    """What one thread did in a turn: the seconds of each step, and its CPU seconds."""

    times: list[float]
    cpu: float


def work(folder: Path, number: int, orders: Connection) -> None:
    """Serve turns in one process until the order None."""
    with Ledger.open(folder / "ledger", *BUDGET) as ledger:
        orders.send("ready")
        while (order := orders.recv()) is not None:
            turn, seconds = order
            with ThreadPoolExecutor(turn.threads) as pool:
                names = [f"p{number}t{thread}" for thread in range(turn.threads)]
                steps = [step_of(turn, folder, name, ledger) for name in names]
                orders.send(list(pool.map(lambda step, s=seconds: _repeat(step, s), steps)))


def step_of(turn: Turn, folder: Path, name: str, ledger: Ledger) -> Callable[[], object]:
    """Return what one thread repeats in a turn."""
    if turn.what == CHARGE:
        return lambda: ledger.charge(PRICE, analyst=name, **FACTS)
    path = folder / ("bare" if turn.shared else f"bare-{name}")
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def append() -> None:
        os.write(file, b"x" * 100)
        flush_file(file)

    return append


def measure(folder: Path, seconds: float, rounds: int, workers: int) -> dict[str, Any]:
    """Return the median of the rounds for each of the contenders."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(workers)]
    processes = [
        context.Process(target=work, args=(folder, number, theirs))
        for number, (_, theirs) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    ours = [pipe for pipe, _ in pipes]
    for pipe in ours:
        pipe.recv()
    rates: dict[Turn, list[float]] = {turn: [] for turn in turns(workers)}
    done: dict[Turn, list[Done]] = {turn: [] for turn in rates}
    for one_round in range(rounds + 1):
        for turn in rates:
            busy = ours[: turn.processes]
            for pipe in busy:
                pipe.send((turn, seconds))
            found = [one for pipe in busy for one in pipe.recv()]
            if one_round > 0:  # the first is to warm up
                # Each thread goes on without a pause, so the sum of their rates is the rate of all.
                rates[turn].append(sum(len(one.times) / sum(one.times) for one in found))
                done[turn] += found
    for pipe in ours:
        pipe.send(None)
    for process in processes:
        process.join()
    begun = time.perf_counter()
    with Ledger.open(folder / "ledger", *BUDGET) as ledger:
        rows = ledger.head()[0]
    opened = time.perf_counter() - begun
    return {
        "machine": machine("sqlalchemy") | {"sqlite": sqlite3.sqlite_version},
        "file system": file_system(folder),
        "real-time priority": is_real_time(),
        "open and verify": {"charges": rows, "microseconds each": round(opened / rows * 1e6, 1)},
        "results": {str(turn): _row(turn, rates, done[turn]) for turn in rates},
        "targets": [
            target(f"{turn} of bare flushes", _share(turn, rates), 0.8, at_least=True)
            for turn in rates
            if turn.what == CHARGE
        ],
    }


def _row(turn: Turn, rates: dict[Turn, list[float]], done: list[Done]) -> dict[str, float]:
    times = [one for each in done for one in each.times]
    row = {
        "per second": round(statistics.median(rates[turn]), 1),
        "p50 ms": round(_quantile(times, 0.50) * 1e3, 3),
        "p99 ms": round(_quantile(times, 0.99) * 1e3, 3),
        "CPU us": round(sum(each.cpu for each in done) / len(times) * 1e6, 1),
    }
    if turn.what == BARE:
        return row
    one = rates[Turn(BARE, 1, 1)]
    of_one = [mine / bare for mine, bare in zip(rates[turn], one, strict=True)]
    return row | {
        "of bare": round(_share(turn, rates), 3),
        "of one bare": round(statistics.median(of_one), 3),
    }


def _share(turn: Turn, rates: dict[Turn, list[float]]) -> float:
    """Return a charge's rate over that of the fastest of its bare flushes, round by round."""
    same = [
        rates[other]
        for other in rates
        if other.what == BARE
        and (other.processes, other.threads) == (turn.processes, turn.threads)
    ]
    bare = [max(one_round) for one_round in zip(*same, strict=True)]
    return statistics.median(
        mine / theirs for mine, theirs in zip(rates[turn], bare, strict=True)
    )


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


def is_real_time() -> bool:
    """Return whether this process goes before others, as `chrt -r 1` makes it."""
    return hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER


def _repeat(step: Callable[[], object], seconds: float) -> Done:
    times, end, cpu = [], time.perf_counter() + seconds, time.thread_time()
    while (begun := time.perf_counter()) < end:
        step()
        times.append(time.perf_counter() - begun)
    return Done(times, time.thread_time() - cpu)


def _quantile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def table(found: dict[str, Any]) -> str:
    """Print what was found."""
    lines = [f"on {found['file system']}"]
    for name, row in found["results"].items():
        cells = " ".join(f"{key} {value:<10}" for key, value in row.items())
        lines.append(f"{name:28} {cells}")
    return "\n".join([*lines, f"open and verify: {found['open and verify']}"])


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--folder", type=Path, default=Path(), help="on the disk to be measured")
    options.add_argument("--seconds", type=float, default=0.25)
    options.add_argument("--rounds", type=int, default=24)
    options.add_argument("--workers", type=int, default=4, help="processes, or threads, at once")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder, prefix=".ledger-bench-") as folder:
        found = measure(Path(folder), asked.seconds, asked.rounds, asked.workers)
    give_out(found, asked, table(found))


if __name__ == "__main__":
    main()
