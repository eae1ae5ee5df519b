"""Snapshot files: versions, secrets, kinds of sources, crashes, and several processes at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from engine.clinic import clinic_policy, write_clinic
from engine.database import open_governed, run
from engine.snapshot import (
    Snapshot,
    SnapshotError,
    ensure,
    load_secret,
    secret_from_seed,
)
from planner.policy import Policy, parse_policy

SECRET = secret_from_seed(7)
ROOT = Path(__file__).resolve().parents[2]


def clinic(folder: Path, patients: int = 30, seed: int = 7, **options: Any) -> Policy:
    write_clinic(folder / "clinic.duckdb", patients, seed, labs_per_patient=2, **options)
    return policy(folder)


def policy(folder: Path, database: str = "clinic.duckdb", **changes: str) -> Policy:
    text = clinic_policy(database, "clinic.ledger.sqlite")
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    return parse_policy(text, folder, "clinic.yaml")


def build(folder: Path, policy: Policy, **options: Any) -> Snapshot:
    return ensure(policy, **{"secret": SECRET, "directory": folder, **options})


def plain(snapshot: Snapshot) -> list[tuple[Any, ...]]:
    """Return the catalog with public rows, which it compares by identity, as plain tuples."""
    return [
        (replace(table, public_rows=None), rows and (rows.columns, rows.rows))
        for table in snapshot.catalog.tables
        for rows in [table.public_rows]
    ]


def contents(snapshot: Snapshot) -> dict[str, list[tuple[Any, ...]]]:
    """Read everything, keys as text, since only a typed source can say that keys are numbers."""
    governed = open_governed(snapshot.path, threads=1)
    try:
        tables = run(
            governed, "SELECT table_name FROM duckdb_tables() WHERE table_name <> '__discreet'"
        ).rows
        found = {}
        for (table,) in tables:
            columns = "COLUMNS(*)" if table != "__units" else "__seed"
            sql = f"SELECT CAST({columns} AS VARCHAR) FROM {table} ORDER BY ALL"
            found[table] = run(governed, sql.replace("__u,", "")).rows
        return found
    finally:
        governed.close()


def test_the_version_changes_with_data_and_policy_and_secret_only(tmp_path: Path) -> None:
    declared = clinic(tmp_path)
    first = build(tmp_path, declared)
    assert first.path == tmp_path / f"clinic.ledger.snapshot-{first.data_version}.duckdb"
    written = first.path.stat().st_ino
    again = build(tmp_path, declared)
    assert (again.path, again.report) == (first.path, first.report)
    assert plain(again) == plain(first)
    assert first.path.stat().st_ino == written
    budget = policy(tmp_path, budget=("epsilon: 3.0", "epsilon: 5.0"))
    assert build(tmp_path, budget).data_version == first.data_version
    bounds = policy(tmp_path, bounds=("[0, 20000]", "[0, 10000]"))
    assert build(tmp_path, bounds).data_version != first.data_version
    other = build(tmp_path, declared, secret=secret_from_seed(8))
    assert other.data_version != first.data_version
    with duckdb.connect(str(tmp_path / "clinic.duckdb")) as connection:
        connection.execute("UPDATE visits SET cost = 1.25 WHERE visit_id = 3")
    assert build(tmp_path, declared).data_version not in (first.data_version, other.data_version)
    assert len(list(tmp_path.glob("*.snapshot-*.duckdb"))) == 2


def test_rebuilding_gives_the_same_snapshot_and_insecure_ones_stand_apart(tmp_path: Path) -> None:
    declared = clinic(tmp_path)
    first = build(tmp_path, declared)
    before = contents(first)
    again = build(tmp_path, declared, rebuild=True)
    assert again.data_version == first.data_version
    assert contents(again) == before
    insecure = build(tmp_path, declared, insecure=True)
    assert insecure.path.name.startswith("clinic.ledger.insecure.snapshot-")
    assert first.path.exists()


def test_duckdb_parquet_and_text_sources_give_equal_snapshots(tmp_path: Path) -> None:
    clinic(tmp_path)
    tables = ("patients", "visits", "labs", "regions")
    with duckdb.connect(str(tmp_path / "clinic.duckdb"), read_only=True) as connection:
        for kind in ("parquet", "csv", "tsv"):
            options = "FORMAT parquet" if kind == "parquet" else "HEADER"
            options += ", DELIMITER '\t'" if kind == "tsv" else ""
            (tmp_path / kind).mkdir()
            for table in tables:
                file = tmp_path / kind / f"{table}.{kind}"
                connection.execute(f"COPY {table} TO '{file}' ({options})")
        (tmp_path / "parts" / "visits").mkdir(parents=True)
        for place, half in enumerate(("visit_id <= 40", "visit_id > 40")):
            file = tmp_path / "parts" / "visits" / f"{place}.parquet"
            connection.execute(f"COPY (FROM visits WHERE {half}) TO '{file}'")
        for table in ("patients", "labs", "regions"):
            name = f"{table}.parquet"
            os.link(tmp_path / "parquet" / name, tmp_path / "parts" / name)
    expected = build(tmp_path, policy(tmp_path))
    truth = contents(expected)  # read now: the file of this version is swept below
    assert len(truth["visits"]) > 200
    for kind in ("parquet", "csv", "tsv", "parts"):
        found = build(tmp_path, policy(tmp_path, kind))
        assert contents(found) == truth, kind
        counts = [(t.read, t.no_unit, t.kept) for t in found.report.tables]
        assert counts == [(t.read, t.no_unit, t.kept) for t in expected.report.tables]
        assert plain(found) == plain(expected)


def test_a_table_may_have_a_file_and_a_name_of_its_own(tmp_path: Path) -> None:
    declared = clinic(tmp_path)
    expected = contents(build(tmp_path, declared))
    with duckdb.connect(str(tmp_path / "clinic.duckdb")) as connection:
        connection.execute(f"COPY labs TO '{tmp_path / 'export.parquet'}'")
        connection.execute("DROP TABLE labs")
        connection.execute("ALTER TABLE visits RENAME TO stays")
    moved = policy(
        tmp_path, labs=("  labs:\n", "  labs:\n    source: export.parquet\n"),
        visits=("  visits:\n", "  visits:\n    source: stays\n"),
    )  # fmt: skip
    assert contents(build(tmp_path, moved)) == expected


BUILD = """
import os, sys, time
from pathlib import Path
from engine.snapshot import ensure, secret_from_seed
from planner.policy import read_policy
folder, wait = Path(sys.argv[1]), float(sys.argv[2])
calls = []
def progress(table, done, total):
    calls.append(table)
    if table == "visits":
        print("building", flush=True)
        time.sleep(wait)
snapshot = ensure(
    read_policy(folder / "clinic.yaml"), secret=secret_from_seed(7), directory=folder,
    progress=progress,
)
print(len(calls), snapshot.data_version, flush=True)
"""


def start(folder: Path, wait: float) -> subprocess.Popen[str]:
    text = clinic_policy("clinic.duckdb", "clinic.ledger.sqlite")
    (folder / "clinic.yaml").write_text(text)
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(folder), str(wait)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_a_killed_build_leaves_the_old_snapshot_and_is_swept(tmp_path: Path) -> None:
    first = build(tmp_path, clinic(tmp_path))
    before = contents(first)
    declared = clinic(tmp_path, seed=8)
    builder = start(tmp_path, 60)
    assert builder.stdout is not None
    assert builder.stdout.readline() == "building\n"
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    assert len(list(tmp_path.glob("*.snapshot-building-*"))) == 1
    assert list(tmp_path.glob("*.snapshot-*.duckdb")) == [first.path]
    assert contents(first) == before
    second = build(tmp_path, declared)
    assert second.data_version != first.data_version
    assert not list(tmp_path.glob("*.snapshot-building-*"))


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path: Path) -> None:
    clinic(tmp_path)
    builders = [start(tmp_path, 1), start(tmp_path, 1)]
    said = [builder.communicate()[0].split() for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert sorted(words[-2] for words in said) == ["0", "5"]
    assert len({words[-1] for words in said}) == 1


def test_a_damaged_snapshot_is_built_again(tmp_path: Path) -> None:
    declared = clinic(tmp_path)
    first = build(tmp_path, declared)
    before = contents(first)
    first.path.write_bytes(first.path.read_bytes()[:10_000])
    assert contents(build(tmp_path, declared)) == before


def test_a_source_that_changes_during_the_build_is_refused(tmp_path: Path) -> None:
    declared = clinic(tmp_path)

    def meddle(table: str, done: int, total: int) -> None:
        if table == "visits":
            os.utime(tmp_path / "clinic.duckdb", (1, 1))

    with pytest.raises(SnapshotError, match="changed while"):
        build(tmp_path, declared, progress=meddle)
    assert not list(tmp_path.glob("*.snapshot-*.duckdb"))


def test_progress_names_every_table_once_and_ends(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    build(tmp_path, clinic(tmp_path), progress=lambda *call: calls.append(call))
    assert calls == [
        ("regions", 0, 4), ("patients", 1, 4), ("visits", 2, 4), ("labs", 3, 4), ("", 4, 4),
    ]  # fmt: skip


def test_the_secret_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "clinic.ledger.secret"
    secret = load_secret(path)
    assert len(secret) == 32
    assert load_secret(path) == secret
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
    path.chmod(0o644)
    with pytest.raises(SnapshotError, match="chmod 600"):
        load_secret(path)
    path.chmod(0o600)
    path.write_bytes(secret[:8])
    with pytest.raises(SnapshotError, match="8 bytes instead of 32"):
        load_secret(path)


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="needs 32"):
        build(tmp_path, clinic(tmp_path), secret=b"short")
