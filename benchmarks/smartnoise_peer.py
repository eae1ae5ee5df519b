"""The peer's half of benchmarks/smartnoise.py, run by path in SmartNoise's own environment.

It reads a job as JSON from stdin and prints its results as JSON; it imports nothing of Discreet.
"""

import importlib.metadata
import json
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import duckdb
import yaml
from snsql import Privacy
from snsql.metadata import Metadata
from snsql.sql.private_reader import PrivateReader
from snsql.sql.reader.postgres import PostgresReader

warnings.filterwarnings("ignore")


class DuckDBReader(PostgresReader):
    """SmartNoise knows no DuckDB, but DuckDB runs the text it writes for PostgreSQL."""

    def execute(self, query: str, *ignore: object, accuracy: bool = False) -> list[Any]:
        cursor = self.conn.cursor()
        cursor.execute(str(query))
        names = tuple(column[0] for column in cursor.description or ())
        return [names, *cursor.fetchall()]


def connect(job: dict[str, Any]) -> Any:
    """Load the exported tables into memory, with as many threads as Discreet has."""
    connection = duckdb.connect(config={"threads": job["threads"]})
    connection.execute("CREATE SCHEMA public")
    for table, path in job["tables"].items():
        connection.execute(f"CREATE TABLE public.{table} AS SELECT * FROM read_parquet('{path}')")
    return connection


def metadata(job: dict[str, Any]) -> Any:
    """Return what the policy says, in SmartNoise's words: 20 rows of a patient count."""
    tables = {
        name: {
            "max_ids": job["rows"], "censor_dims": False, "clamp_counts": False,
            "patient_id": {"type": "int", "private_id": True}, **columns,
        }
        for name, columns in job["columns"].items()
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"clinic": {"PUBLIC": tables}}, file)
        file.flush()
        return Metadata.from_file(file.name)


def cpu_ms(step: Callable[[], object]) -> float:
    """Return the CPU milliseconds of one step."""
    begun = time.process_time_ns()
    step()
    return (time.process_time_ns() - begun) / 1e6


def ask(connection: Any, facts: Any, job: dict[str, Any], sql: str) -> dict[str, Any]:
    """Ask one question; its columns together cost the epsilon of the job."""
    try:
        one = PrivateReader(DuckDBReader(conn=connection), facts, Privacy(epsilon=1.0, delta=1e-6))
        cost = one.get_privacy_cost(sql)[0]
        share = job["epsilon"] / cost
        reader = PrivateReader(
            DuckDBReader(conn=connection), facts, Privacy(epsilon=share, delta=1e-6)
        )
        times = [cpu_ms(lambda: reader.execute(sql)) for _ in range(job["repetitions"] + 1)][1:]
        answers = [reader.execute(sql)[1:] for _ in range(job["answers"])]
    except Exception as error:  # whatever it is that it cannot do
        return {"cannot": f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"}
    bare = [cpu_ms(lambda: connection.execute(sql).fetchall())
            for _ in range(job["repetitions"] + 1)][1:]
    return {
        "ms": statistics.median(times), "plain ms": statistics.median(bare),
        "epsilon if 1 is asked for": cost, "answers": answers,
    }  # fmt: skip


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Ask every question of the job."""
    connection, facts = connect(job), metadata(job)
    packages = ("smartnoise-sql", "opendp", "duckdb", "pandas")
    return {
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "questions": {name: ask(connection, facts, job, sql)
                      for name, sql in job["questions"].items()},
        "peak RSS MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip


json.dump(run(json.load(sys.stdin)), sys.stdout, default=float)
