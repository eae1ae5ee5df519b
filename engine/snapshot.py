"""A policy and a secret in; the engine's own read-only, cleaned copy of the steward's data out.

Files: `<ledger>.snapshot-<data version>.duckdb` beside the ledger, readable by the owner only.
A build works in a folder of its own and ends with one rename, so that a snapshot is there
either whole or not at all; one process builds, the others wait for it and use the result.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.database import DatabaseFailure, open_governed, run
from engine.snapshot_build import TARGET, Built, Progress, build
from engine.snapshot_public import public_from_json, public_to_json
from engine.snapshot_report import SnapshotReport, report_from_json, report_to_json
from engine.snapshot_source import SnapshotError, open_source, source_files
from planner.catalog import Catalog
from planner.cataloguing import catalog_of
from planner.policy import Policy, PolicyError


def folder_of(policy: Policy) -> Path:
    """Return where snapshots lie: beside the ledger, or beside the policy for a ledger URL."""
    where = policy.ledger_url()
    return where.parent if isinstance(where, Path) else policy.base


def stem_of(policy: Policy) -> str:
    """Return what the names of all files of one ledger begin with."""
    where = policy.ledger_url()
    return where.name if isinstance(where, Path) else "ledger"

__all__ = ["Snapshot", "SnapshotError", "ensure", "load_secret", "secret_from_seed"]

FORMAT = 3  # raised whenever the same source would give another snapshot, or one proved further
SECRET_BYTES = 32
KEPT = 2  # snapshots that stay: this one, and the one that other processes may still be using
LARGE_BYTES = 32 * 2**20  # files from here on are not hashed again while they stay the same
SETTLED_SECONDS = 2  # a younger file may change again without its time stamp changing


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A finished snapshot: where it is, what the planner may know of it, and which data it holds.

    `report` is for the steward only.
    """

    path: Path
    catalog: Catalog
    data_version: str
    report: SnapshotReport


def ensure(
    policy: Policy,
    *,
    secret: bytes,
    directory: str | Path,
    insecure: bool = False,
    progress: Progress | None = None,
    rebuild: bool = False,
    memory: str = "2GB",
    threads: int | None = None,
) -> Snapshot:
    """Return the snapshot of the policy's database as it is now, building it where needed.

    Guarantee: `data_version` is a keyed hash (HMAC-SHA256 under `secret`) of the sources' bytes
    and of what the policy says about data: it can be shown to anybody, since without the secret
    nobody can test a guess about the data against it. Snapshots for insecure testing have files
    of their own, so that none is ever taken for a governed one.
    """
    if not len(secret) >= SECRET_BYTES:
        raise SnapshotError(f"The secret has {len(secret)} bytes; it needs {SECRET_BYTES}.")
    place = _Place(Path(directory), f"{_ledger_name(policy)}{'.insecure' if insecure else ''}")
    place.directory.mkdir(parents=True, exist_ok=True)
    files = _files(policy)
    version, hashes = _version(policy, secret, files, _known_hashes(place, files))
    path = place.file(version)
    found = None if rebuild else _opened(path, policy, version)
    if found is not None:
        return found
    with _lock(place):
        # Whoever waited for the lock finds that the work is done.
        found = None if rebuild else _opened(path, policy, version)
        if found is None:
            limits = (memory, threads or _threads(files))
            facts = {"data_version": version, "files": hashes}
            stored = _build(policy, secret, files, place, path, facts, limits, progress, insecure)
            found = _snapshot(path, policy, stored)
        _sweep(place, path)
    return found


def _threads(files: Files) -> int:
    """One thread for small data: starting more takes longer than the work."""
    small = sum(_stamp(path)[0] for paths in files.values() for path in paths) < LARGE_BYTES
    return 1 if small else min(os.cpu_count() or 1, 8)


# --- The secret -----------------------------------------------------------------------------


def load_secret(path: str | Path) -> bytes:
    """Read the secret of this ledger's snapshots, making it on first use: 32 random bytes.

    The file appears whole or not at all, for its owner only, and is never overwritten: of two
    processes that make one at the same moment, both use the first one's.
    """
    path = Path(path)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(SECRET_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(name, path)
        finally:
            os.unlink(name)
        _sync_directory(path.parent)
    if path.stat().st_mode & 0o077:
        raise SnapshotError(f"The secret {path} is open to others; run: chmod 600 {path}")
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise SnapshotError(
            f"The secret {path} has {len(secret)} bytes instead of {SECRET_BYTES}. Restore it from "
            "a backup; a new one gives new row ranks and a new data version."
        )
    return secret


def secret_from_seed(seed: int) -> bytes:
    """Return a secret anybody can compute: for insecure testing only."""
    return hashlib.sha256(b"discreet insecure testing:" + str(int(seed)).encode()).digest()


# --- Which data -----------------------------------------------------------------------------

Files = Mapping[str, tuple[Path, ...]]
Hashes = dict[str, tuple[list[int], str]]  # path: (what the file system says of it, sha256)


def _files(policy: Policy) -> Files:
    """List the files that the declared tables come from, by table ('' for a DuckDB file)."""
    sources = {name: policy.source_of(name) for name in policy.tables}
    own = {name: source for name, source in sources.items() if isinstance(source, Path)}
    wanted = {str(source).lower() for name, source in sources.items() if name not in own}
    files: dict[str, tuple[Path, ...]] = {}
    if wanted:
        found = source_files(policy.database_path())
        files = {name: paths for name, paths in found.items() if not name or name.lower() in wanted}
        # Nothing declared is there: let the build name the first missing table.
        files = files or found
    for name, path in own.items():
        files[name] = next(iter(source_files(path).values()))
    return files


def _version(
    policy: Policy, secret: bytes, files: Files, known: Hashes
) -> tuple[str, Hashes]:
    """Return the data version, and the hash of each file for the next time."""
    hashes: Hashes = {}
    contents: list[tuple[str, list[str]]] = []
    for table, paths in sorted(files.items()):
        for path in paths:
            hashes[str(path)] = _hashed(path, known)
        contents.append((table, [hashes[str(path)][1] for path in paths]))
    text = json.dumps([FORMAT, policy.data_hash, contents])
    keyed = hmac.new(secret, b"data version|" + text.encode(), hashlib.sha256)
    return keyed.hexdigest()[:16], {
        name: stamp for name, stamp in hashes.items() if _is_settled(stamp[0])
    }


def _hashed(path: Path, known: Hashes) -> tuple[list[int], str]:
    """Hash a file's bytes, or take the hash of an earlier time if nothing about it changed."""
    stamp = _stamp(path)
    if str(path) in known and known[str(path)][0] == stamp:
        return known[str(path)]
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SnapshotError(f"The file {path} cannot be read: {error.strerror}.") from None
    return stamp, digest


def _stamp(path: Path) -> list[int]:
    try:
        facts = path.stat()
    except OSError as error:
        raise SnapshotError(f"The file {path} cannot be read: {error.strerror}.") from None
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]


def _is_settled(stamp: list[int]) -> bool:
    return time.time() - max(stamp[1], stamp[2]) / 1e9 > SETTLED_SECONDS


# --- Where ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """The folder and the common beginning of the file names of one ledger's snapshots."""

    directory: Path
    name: str

    def file(self, version: str) -> Path:
        return self.directory / f"{self.name}.snapshot-{version}.duckdb"

    def newest_first(self) -> list[Path]:
        """List the snapshots; one that another process has just removed does not count."""
        aged = []
        for path in self.directory.glob(f"{self.name}.snapshot-*.duckdb"):
            with suppress(OSError):
                aged.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(aged, reverse=True)]


def _ledger_name(policy: Policy) -> str:
    """Return what the snapshot's file name begins with, from the ledger's file or address."""
    ledger = policy.ledger_url()
    if isinstance(ledger, Path):
        return ledger.stem if ledger.suffix in (".sqlite", ".db") else ledger.name
    last = ledger.partition("?")[0].rstrip("/").rpartition("/")[2]
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in last) or "ledger"


@contextmanager
def _lock(place: _Place) -> Iterator[None]:
    """Hold the right to build; the system gives it back when a process dies."""
    handle = os.open(place.directory / f"{place.name}.snapshot.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sweep(place: _Place, current: Path) -> None:
    """Remove what killed builds left, and all but the newest snapshots; under the lock only."""
    for folder in place.directory.glob(f"{place.name}.snapshot-building-*"):
        shutil.rmtree(folder, ignore_errors=True)
    others = [path for path in place.newest_first() if path != current]
    for path in others[KEPT - 1 :]:
        path.unlink(missing_ok=True)  # a process that has it open keeps its data


# --- Building and opening -------------------------------------------------------------------


def _build(
    policy: Policy, secret: bytes, files: Files, place: _Place, path: Path,
    facts: dict[str, Any], limits: tuple[str, int], progress: Progress | None, insecure: bool,
) -> dict[str, Any]:  # fmt: skip
    """Build in a folder of its own, put the file in its place at one stroke, return its facts."""
    folder = Path(tempfile.mkdtemp(dir=place.directory, prefix=f"{place.name}.snapshot-building-"))
    new = folder / path.name
    before = [_stamp(file) for paths in files.values() for file in paths]
    try:
        stored = _write(policy, secret, files, new, facts, limits, progress)
        if before != [_stamp(file) for paths in files.values() for file in paths]:
            raise SnapshotError(
                "The database changed while the snapshot was built. Build again when it rests."
            )
        if not insecure:  # tests build thousands, and lose nothing with the power
            _sync(new)
        os.replace(new, path)
        if not insecure:
            _sync_directory(place.directory)
        return stored
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(
    policy: Policy, secret: bytes, files: Files, new: Path, facts: dict[str, Any],
    limits: tuple[str, int], progress: Progress | None,
) -> dict[str, Any]:  # fmt: skip
    """Write the file; whatever DuckDB says of a failure stays inside, for it may quote rows."""
    failure = "Exception"
    try:
        with open_source(files, *limits, spill=new.parent / "spill") as source:
            built = build(policy, source, new, secret, progress or (lambda *_: None))
            stored = _metadata(built, facts, policy)
            source.connection.execute(
                f"CREATE TABLE {TARGET}.__discreet AS SELECT unnest(CAST(? AS VARCHAR[])) AS name, "
                "unnest(CAST(? AS VARCHAR[])) AS content",
                [list(stored), [json.dumps(content) for content in stored.values()]],
            )
            source.connection.execute(f"CHECKPOINT {TARGET}")
            source.connection.execute(f"DETACH {TARGET}")
        return stored
    except (SnapshotError, PolicyError, AssertionError, KeyboardInterrupt):
        raise
    except Exception as error:
        failure = type(error).__name__
    remedy = (
        "Give it more memory." if failure == "OutOfMemoryException"
        else "Check that every file is whole, of one shape throughout, and in UTF-8."
    )  # fmt: skip
    raise SnapshotError(
        f"The database could not be turned into a snapshot (DuckDB: {failure}). {remedy}"
    )


def _metadata(built: Built, facts: Mapping[str, Any], policy: Policy) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "data_hash": policy.data_hash,
        "public": public_to_json(built.public),
        "report": report_to_json(built.report),
        **facts,
    }


def _stored(path: Path) -> dict[str, Any]:
    """Read a snapshot's own facts; {} where there is none, or none that can be read."""
    if not path.exists():
        return {}
    try:
        connection = open_governed(path)
        try:
            rows = run(connection, "SELECT name, content FROM __discreet").rows
        finally:
            connection.close()
        return {name: json.loads(content) for name, content in rows}
    except (DatabaseFailure, ValueError):
        return {}


def _known_hashes(place: _Place, files: Files) -> Hashes:
    """Return what the newest snapshot knows of its sources, where that is worth opening it."""
    if all(_stamp(path)[0] < LARGE_BYTES for paths in files.values() for path in paths):
        return {}
    for path in place.newest_first():
        stored = _stored(path)
        if stored.get("format") == FORMAT:
            return {name: (stamp, digest) for name, (stamp, digest) in stored["files"].items()}
    return {}


def _opened(path: Path, policy: Policy, version: str) -> Snapshot | None:
    """Open a finished snapshot, or return None where it is missing or of another make."""
    stored = _stored(path)
    if (stored.get("format"), stored.get("data_version")) != (FORMAT, version):
        return None
    with suppress(OSError):
        os.utime(path)  # in use: not the one to be swept
    return _snapshot(path, policy, stored)


def _snapshot(path: Path, policy: Policy, stored: Mapping[str, Any]) -> Snapshot:
    catalog = catalog_of(policy, public_from_json(stored["public"]))
    report = report_from_json(stored["report"])
    return Snapshot(path, catalog, stored["data_version"], report)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
