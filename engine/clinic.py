"""A synthetic clinic: a size and a seed in, a DuckDB file of patients, visits and labs out.

No row comes from a real patient. The shapes are realistic: skewed costs, a heavy tail of
visits and lab values per patient, diagnoses that depend on the department, and (where asked)
the dirt of real exports. The same size and seed give the same rows, so a true answer is a plain
SQL query on the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.database import Connection, insert_columns, open_new

DEPARTMENTS = (
    "cardiology", "dermatology", "emergency", "gastroenterology", "geriatrics", "neurology",
    "oncology", "orthopaedics", "paediatrics", "psychiatry", "surgery", "urology",
)  # fmt: skip
# How much dearer than usual a stay is, as a logarithm, in the order of DEPARTMENTS.
EXPENSE = (0.35, -0.7, -0.3, -0.05, 0.2, 0.3, 0.75, 0.1, -0.45, -0.2, 0.55, -0.1)
REGIONS = (
    "central", "coast", "east", "hills", "islands", "north", "south", "west",
)  # fmt: skip
TESTS = (
    "albumin", "bilirubin", "calcium", "cholesterol", "creatinine", "glucose", "haemoglobin",
    "lactate", "magnesium", "potassium", "sodium", "urea",
)  # fmt: skip
DIAGNOSES = tuple(f"{chr(65 + i % 26)}{i // 26:02d}.{i * 7 % 10}" for i in range(500))

BLOCK = 20_000  # patients made at a time: what bounds the memory
FIRST_PATIENT = 1_000
FIRST_DAY, LAST_DAY = np.datetime64("2015-01-01"), np.datetime64("2026-12-31")
VISITS_MAX = 200
LABS_MAX = 2_500

Columns = dict[str, Any]

SCHEMA = """
CREATE TABLE patients (patient_id BIGINT, sex VARCHAR, birth_year INTEGER, region VARCHAR);
CREATE TABLE visits (visit_id BIGINT, patient_id BIGINT, visit_date DATE, department VARCHAR,
                     diagnosis VARCHAR, cost DOUBLE, los INTEGER, readmitted BOOLEAN);
CREATE TABLE labs (lab_id BIGINT, visit_id BIGINT, test VARCHAR, value DOUBLE);
CREATE TABLE regions (region VARCHAR, name VARCHAR, population BIGINT);
"""


def write_clinic(
    path: str | Path,
    patients: int = 1000,
    seed: int = 7,
    dirty: bool = True,
    *,
    labs_per_patient: float = 125.0,
) -> Path:
    """Write a clinic with that many patients; `labs_per_patient` is a median (0: no lab rows)."""
    if not patients >= 0 or not labs_per_patient >= 0:
        raise ValueError(
            f"patients ({patients}) and labs_per_patient ({labs_per_patient}) must not be negative"
        )
    path = Path(path)
    path.unlink(missing_ok=True)
    connection = open_new(path)
    try:
        connection.execute(SCHEMA)
        _write_regions(connection)
        visits = labs = 0
        for block, first in enumerate(range(0, patients, BLOCK)):
            rng = np.random.Generator(np.random.PCG64([seed, block]))
            count = min(BLOCK, patients - first)
            people = _people(rng, first, count)
            stays = _visits(rng, people, visits + 1)
            tests = _labs(rng, people, stays, labs + 1, labs_per_patient)
            visits, labs = visits + len(stays["visit_id"]), labs + len(tests["lab_id"])
            made = {"patients": people, "visits": stays, "labs": tests}
            _write(connection, _soiled(rng, made) if dirty else made)
        connection.execute("CHECKPOINT")
    finally:
        connection.close()
    return path


def clinic_policy(
    database: str | Path,
    ledger: str | Path | None = None,
    *,
    epsilon: float = 3.0,
    delta: float = 1e-6,
) -> str:
    """Return the text of a policy that fits a clinic of any size, clean or dirty."""
    database = Path(database)
    ledger = database.with_suffix(".ledger.sqlite") if ledger is None else ledger
    return f"""\
discreet: 1
database: {database}
ledger: {ledger}
budget: {{epsilon: {epsilon}, delta: {delta}}}
defaults: {{epsilon: 0.1, delta: 1.0e-9, rows_per_unit: 20, max_rows_per_unit: 200}}
unit: patients.patient_id
tables:
  patients:
    one_row_per_unit: true
    columns:
      patient_id: unit
      sex: {{category: [F, M]}}
      birth_year: {{integer: [1900, 2026]}}
      region: {{category_of: regions.region}}
  visits:
    columns:
      visit_id: key
      patient_id: {{references: patients}}
      visit_date: {{date: [2015-01-01, 2026-12-31]}}
      department: {{category: [{", ".join(DEPARTMENTS)}]}}
      diagnosis: text
      cost: {{real: [0, 20000]}}
      los: {{integer: [0, 60]}}
      readmitted: boolean
  labs:
    rows_per_unit: 200
    max_rows_per_unit: {LABS_MAX}
    columns:
      lab_id: key
      visit_id: {{references: visits}}
      test: {{category: [{", ".join(TESTS)}]}}
      value: {{real: [0, 500]}}
  regions: public
"""


def _write_regions(connection: Connection) -> None:
    rows = {"code": np.arange(len(REGIONS)), "population": 150_000 * (1 + np.arange(len(REGIONS)))}
    insert_columns(
        connection,
        f"INSERT INTO regions SELECT {_picked(REGIONS)}, 'Region of ' || {_picked(REGIONS)}, "
        "population FROM given",
        rows,
    )


def _people(rng: np.random.Generator, first: int, count: int) -> Columns:
    """Make patients: a stable number, a code for sex and region, a year, and frailty (hidden)."""
    age = np.clip(rng.gamma(6.0, 8.5, count), 0, 100)
    return {
        "patient_id": FIRST_PATIENT + 3 * np.arange(first, first + count, dtype=np.int64),
        "sex": (rng.random(count) < 0.47).astype(np.int32),
        "birth_year": (2026 - age).astype(np.int32),
        "region": rng.choice(len(REGIONS), count, p=_zipf(len(REGIONS), 0.6)).astype(np.int32),
        "frailty": rng.normal(0, 1, count),
    }


def _visits(rng: np.random.Generator, people: Columns, first_id: int) -> Columns:
    """Make visits: about 9.3 a patient, 6 % of patients with more than 20, at most 200."""
    patients = len(people["patient_id"])
    number = np.rint(rng.lognormal(2.03, 0.63, patients) + 0.35 * people["frailty"])
    number[rng.random(patients) < 0.03] = 0
    heavy = rng.random(patients) < 0.002
    number[heavy] = rng.integers(60, VISITS_MAX + 1, int(heavy.sum()))
    owner = np.repeat(np.arange(patients), np.clip(number, 0, VISITS_MAX).astype(np.int64))
    count, age = len(owner), 2026 - people["birth_year"][owner]
    frailty = people["frailty"][owner]
    department = rng.choice(len(DEPARTMENTS), count, p=_zipf(len(DEPARTMENTS), 0.5))
    rank = rng.choice(len(DIAGNOSES), count, p=_zipf(len(DIAGNOSES), 1.1))
    own = rng.random(count) < 0.5  # half of the diagnoses are typical of the department
    effect = np.array(EXPENSE)[department]
    severity = 0.012 * (age - 51) + 0.35 * frailty + effect
    cost = np.round(np.exp(6.38 + severity + rng.normal(0, 1.06, count)), 2)
    los = np.clip(rng.poisson(np.exp(0.6 + 0.45 * severity)), 0, 60)
    days = int((LAST_DAY - FIRST_DAY).astype(int)) + 1
    chance = 1 / (1 + np.exp(2.2 - 0.9 * severity - 0.05 * los))
    return {
        "visit_id": first_id + np.arange(count, dtype=np.int64),
        "patient_id": people["patient_id"][owner],
        "day": np.floor(days * rng.random(count) ** 0.8).astype(np.int32),
        "department": department.astype(np.int32),
        "diagnosis": ((rank + own * department * 41) % len(DIAGNOSES)).astype(np.int32),
        "cost": cost,
        "los": los.astype(np.int32),
        "readmitted": rng.random(count) < chance,
        "owner": owner,
    }


def _labs(
    rng: np.random.Generator, people: Columns, visits: Columns, first_id: int, median: float
) -> Columns:
    """Make lab values on the patients' visits: median `median`, 99 % below 12 times as many."""
    patients = len(people["patient_id"])
    number = np.minimum(np.floor(median * rng.lognormal(0, 1.068, patients)), LABS_MAX)
    starts = np.searchsorted(visits["owner"], np.arange(patients))
    own = np.searchsorted(visits["owner"], np.arange(patients), side="right") - starts
    number[own == 0] = 0
    owner = np.repeat(np.arange(patients), number.astype(np.int64))
    count = len(owner)
    visit = starts[owner] + np.floor(own[owner] * rng.random(count)).astype(np.int64)
    test = rng.choice(len(TESTS), count, p=_zipf(len(TESTS), 0.7))
    level = np.linspace(30, 180, len(TESTS))[test] * (1 + 0.1 * people["frailty"][owner])
    return {
        "lab_id": first_id + np.arange(count, dtype=np.int64),
        "visit_id": visits["visit_id"][visit],
        "test": test.astype(np.int32),
        "value": np.round(np.clip(level * rng.lognormal(0, 0.25, count), 0, 500), 1),
    }


def _zipf(count: int, power: float) -> Any:
    weights = 1.0 / np.arange(1, count + 1) ** power
    return weights / weights.sum()


# --- Dirt -----------------------------------------------------------------------------------

# A code that stands for NULL, and one for a word that no policy knows.
NULL, UNKNOWN = -1, -2
NULL_ID = -1  # keys: becomes NULL when written
NAN = -2e300  # stands for NaN, which DuckDB would read as NULL
NOBODY = 10**15  # a key that no parent row has
NULL_DAY, LONG_AGO, FAR_AHEAD = -1_000_000, -40_000, 27_000  # days counted from FIRST_DAY


# What is wrong with which share of the rows.
DIRT: tuple[tuple[str, str, float, float], ...] = (
    ("patients", "sex", 0.004, NULL),
    ("patients", "sex", 0.002, UNKNOWN),
    ("patients", "region", 0.004, NULL),
    ("patients", "region", 0.002, UNKNOWN),
    ("patients", "birth_year", 0.003, NULL),
    ("patients", "birth_year", 0.001, 1850),
    ("patients", "birth_year", 0.001, 2150),
    ("visits", "patient_id", 0.003, NULL_ID),
    ("visits", "patient_id", 0.005, NOBODY),
    ("visits", "day", 0.005, NULL_DAY),
    ("visits", "day", 0.001, LONG_AGO),
    ("visits", "day", 0.001, FAR_AHEAD),
    ("visits", "department", 0.005, NULL),
    ("visits", "department", 0.002, UNKNOWN),
    ("visits", "diagnosis", 0.01, NULL),
    ("visits", "cost", 0.001, NAN),
    ("visits", "cost", 0.0005, np.inf),
    ("visits", "cost", 0.0005, -np.inf),
    ("visits", "cost", 0.001, -50.0),
    ("visits", "cost", 0.001, 1e9),
    ("visits", "los", 0.002, -3),
    ("visits", "los", 0.002, 900),
    ("labs", "visit_id", 0.001, NULL_ID),
    ("labs", "visit_id", 0.003, NOBODY),
    ("labs", "test", 0.002, UNKNOWN),
    ("labs", "value", 0.002, NAN),
    ("labs", "value", 0.001, -1.0),
    ("labs", "value", 0.001, 1e4),
)


def _soiled(rng: np.random.Generator, made: Mapping[str, Columns]) -> dict[str, Columns]:
    """Spread the dirt of real exports, a row or more of each kind per block."""
    soiled = {name: {c: v.copy() for c, v in table.items()} for name, table in made.items()}
    for table, column, rate, value in DIRT:
        values = soiled[table][column]
        values[_some(rng, len(values), rate)] = value
    for table, rate in (("patients", 0.002), ("visits", 0.002), ("labs", 0.001)):
        soiled[table] = _repeated(rng, soiled[table], rate)
    _share_visits(rng, soiled["visits"], 0.0005)
    people = soiled["patients"]["patient_id"]
    people[_some(rng, len(people), 0.0005)] = NULL_ID
    return soiled


def _some(rng: np.random.Generator, count: int, rate: float) -> Any:
    return rng.integers(0, count, max(1, round(rate * count))) if count else np.zeros(0, np.int64)


def _repeated(rng: np.random.Generator, table: Columns, rate: float) -> Columns:
    count = len(next(iter(table.values())))
    rows = np.concatenate([np.arange(count), _some(rng, count, rate)])
    return {name: values[rows] for name, values in table.items()}


def _share_visits(rng: np.random.Generator, visits: Columns, rate: float) -> None:
    """Give some visits the number of another patient's visit."""
    count = len(visits["visit_id"])
    thieves = _some(rng, count, rate)
    visits["visit_id"][thieves] = visits["visit_id"][(thieves + count // 2) % max(count, 1)]


# --- Writing --------------------------------------------------------------------------------


def _picked(words: tuple[str, ...], column: str = "code") -> str:
    """Return SQL that turns a code into its word: NULL and an unknown word have own codes."""
    listed = ", ".join(f"'{word}'" for word in words)
    return (
        f"CASE {column} WHEN {NULL} THEN NULL WHEN {UNKNOWN} THEN 'unknown' "
        f"ELSE ([{listed}])[{column} + 1] END"
    )


def _write(connection: Connection, made: Mapping[str, Columns]) -> None:
    identity = f"NULLIF(patient_id, {NULL_ID})"
    number = f"CASE WHEN {{0}} = {NAN} THEN CAST('nan' AS DOUBLE) ELSE {{0}} END"
    day = f"CASE WHEN day <> {NULL_DAY} THEN DATE '{FIRST_DAY}' + day END"
    selects = {
        "patients": f"{identity}, {_picked(('F', 'M'), 'sex')}, NULLIF(birth_year, {NULL}), "
        f"{_picked(REGIONS, 'region')}",
        "visits": f"visit_id, {identity}, {day}, {_picked(DEPARTMENTS, 'department')}, "
        f"{_picked(DIAGNOSES, 'diagnosis')}, {number.format('cost')}, los, readmitted",
        "labs": f"lab_id, NULLIF(visit_id, {NULL_ID}), {_picked(TESTS, 'test')}, "
        f"{number.format('value')}",
    }
    for table, select in selects.items():
        insert_columns(connection, f"INSERT INTO {table} SELECT {select} FROM given", made[table])
