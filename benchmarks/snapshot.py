"""How long, with how much memory, is a snapshot built? Sizes in; seconds, RSS and bytes out.

    python -m benchmarks.snapshot [--visits 1000000 10000000] [--labs 0] [--threads N] [--json]
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.common import give_out, machine, parser

VISITS_PER_PATIENT = 9.24


def build_once(folder: Path, visits: int, labs: float, threads: int, answer: Connection) -> None:
    """Build one snapshot in this process and send its figures."""
    from engine.snapshot import ensure, secret_from_seed
    from planner.policy import read_policy

    before = peak_megabytes()
    started, cpu = time.perf_counter(), time.process_time()
    policy = read_policy(folder / "clinic.yaml")
    secret = secret_from_seed(7)
    snapshot = ensure(policy, secret=secret, directory=folder, threads=threads)
    built = time.perf_counter() - started
    cpu = time.process_time() - cpu
    again = time.perf_counter()
    ensure(policy, secret=secret, directory=folder, threads=threads)
    answer.send({
        "visits": snapshot.report.table("visits").read,
        "labs": snapshot.report.table("labs").read,
        "units": snapshot.report.units,
        "seconds": round(built, 2),
        "cpu_seconds": round(cpu, 2),
        "seconds_by_table": {t.name: round(t.seconds, 2) for t in snapshot.report.tables},
        "seconds_to_open_again": round(time.perf_counter() - again, 3),
        "peak_rss_mb": peak_megabytes(),
        "rss_before_mb": before,
        "source_mb": round((folder / "clinic.duckdb").stat().st_size / 2**20, 1),
        "snapshot_mb": round(snapshot.path.stat().st_size / 2**20, 1),
        "threads": threads,
    })


def write_source(folder: Path, visits: int, labs: float) -> None:
    """Write the clinic in a process of its own, whose memory does not count."""
    from engine.clinic import clinic_policy, write_clinic

    patients = round(visits / VISITS_PER_PATIENT)
    write_clinic(folder / "clinic.duckdb", patients, labs_per_patient=labs)
    (folder / "clinic.yaml").write_text(clinic_policy(folder / "clinic.duckdb"))


def peak_megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measure(visits: int, labs: float, threads: int) -> dict[str, Any]:
    """Measure one size."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="discreet-snapshot-") as name:
        folder = Path(name)
        writer = context.Process(target=write_source, args=(folder, visits, labs))
        writer.start()
        writer.join()
        ours, theirs = context.Pipe(duplex=False)
        builder = context.Process(
            target=build_once, args=(folder, visits, labs, threads, theirs)
        )
        builder.start()
        theirs.close()
        result: dict[str, Any] = ours.recv()
        builder.join()
    return result


def table(results: list[dict[str, Any]]) -> str:
    """Print what was found."""
    return "\n".join(
        f"{result['visits']:>12,} visits {result['labs']:>12,} labs  "
        f"{result['seconds']:>7.2f} s ({result['cpu_seconds']:.1f} s CPU)  "
        f"{result['peak_rss_mb']:>6,} MB RSS  {result['snapshot_mb']:>7.1f} MB file  "
        f"{result['seconds_to_open_again']:.3f} s to open again"
        for result in results
    )


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--visits", type=int, nargs="+", default=[1_000_000, 10_000_000])
    options.add_argument("--labs", type=float, default=0.0, help="median lab rows per patient")
    options.add_argument("--threads", type=int, default=min(os.cpu_count() or 1, 8))
    asked = options.parse_args()
    results = [measure(visits, asked.labs, asked.threads) for visits in asked.visits]
    give_out({"machine": machine(), "results": results}, asked, table(results))


if __name__ == "__main__":
    main()
