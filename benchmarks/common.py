"""What all benchmarks share: CPU time, clinics, the machine, and how results are given out.

The machine is shared, so CPU time of this process (all of its threads) is measured, not the
clock; and ratios are taken between steps that take turns within one run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

VISITS_PER_PATIENT = 9.3


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the one option that every benchmark has."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", action="store_true", help="print JSON in place of the table")
    return made


def target(what: str, found: float, limit: float, *, at_least: bool = False) -> dict[str, Any]:
    """Return one target as JSON holds it: what, how much was found, and whether that is enough."""
    met = found >= limit if at_least else found <= limit
    return {"what": what, "found": round(found, 4), "limit": limit, "met": bool(met)}


def give_out(document: Mapping[str, Any], asked: argparse.Namespace, table: str) -> None:
    """Print the table, or JSON; say on stderr which targets were missed.

    A missed target is a result, not a failure: the run ends with exit code 0 all the same.
    """
    print(json.dumps(document, indent=2) if asked.json else table)
    for entry in document.get("targets", ()):
        words = f"{entry['what']}: {entry['found']:g} (target {entry['limit']:g})"
        if not entry["met"]:
            print(f"MISSED  {words}", file=sys.stderr)
        elif not asked.json:
            print(f"met     {words}")


def cpu_ms(step: Callable[[], object]) -> float:
    """Return the CPU milliseconds that one step takes, in all threads of this process."""
    started = time.process_time_ns()
    step()
    return (time.process_time_ns() - started) / 1e6


def in_turns(
    steps: Sequence[Callable[[], object]], repetitions: int, warm: int = 1
) -> list[list[float]]:
    """Return the CPU milliseconds of each step's repetitions; the steps take turns."""
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(warm + repetitions):
        for step, found in zip(steps, times, strict=True):
            spent = cpu_ms(step)
            if turn >= warm:
                found.append(spent)
    return times


def median(numbers: Sequence[float]) -> float:
    """Return the median to three digits behind the point."""
    return round(statistics.median(numbers), 3)


def write_clinic_apart(folder: Path, visits: int, dirty: bool) -> Path:
    """Write a clinic and its policy in a process of its own, whose memory is given back."""
    context = multiprocessing.get_context("spawn")
    patients = max(1, round(visits / VISITS_PER_PATIENT))
    writer = context.Process(target=_write, args=(folder, patients, dirty))
    writer.start()
    writer.join()
    if writer.exitcode:
        raise RuntimeError("the clinic could not be written")
    return folder / "clinic.yaml"


def _write(folder: Path, patients: int, dirty: bool) -> None:
    from engine.clinic import clinic_policy, write_clinic

    folder.mkdir(parents=True, exist_ok=True)
    write_clinic(folder / "clinic.duckdb", patients, dirty=dirty, labs_per_patient=0)
    # A budget large enough for every repetition: the noise is that of the epsilon asked for.
    policy = clinic_policy(folder / "clinic.duckdb", epsilon=1000.0)
    (folder / "clinic.yaml").write_text(policy)


def machine(*packages: str) -> dict[str, Any]:
    """Return what a reader needs to judge the numbers, with versions of DuckDB and others."""
    versions = {"python": platform.python_version()}
    for package in dict.fromkeys(("duckdb", "numpy", "sqlglot", *packages)):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "processor": processor(),
        "cores": os.cpu_count() or 0,
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "versions": versions,
    }


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
