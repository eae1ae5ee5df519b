"""Cases and small clinics in, exact pre-noise vectors and their distance between neighbours out.

Two databases are neighbours when one has one patient more, with all of that patient's rows. The
replay takes the plan of a question, runs its statements on both, and compares the exact integers
of every measure with the sensitivity that the plan states: no noise, no tolerance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import duckdb

from engine import Engine
from engine.api import Settings
from engine.audit_replay import Run, flat, public_part, run_exactly, violations
from engine.clinic import DEPARTMENTS, REGIONS, TESTS, clinic_policy, write_clinic
from planner.bind import Bound, bind
from planner.bounding import bound as bound_release
from planner.catalog import Catalog
from planner.parse import parse
from planner.pilot import Bounds
from planner.plan import Plan, describe
from planner.price import NoisePlan, price

CASES = Path(__file__).parent.parent / "cases"
EPSILON, DELTA, ORDER = Fraction(1, 2), Fraction(1, 10**9), Fraction(22)
HEAVY, LIGHT, EMPTY = 5_000, 5_001, 5_002  # patients with many visits, with one, with none
HOSTILE = 9_000


# ---- cases --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One statement of a case file and what its comment lines say of it."""

    theme: str
    name: str
    sql: str
    facts: tuple[str, ...]
    notes: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.theme}: {self.name}"


def read_cases(kind: str) -> list[Case]:
    """Read tests/cases/<kind>/*.sql.

    A case is a comment line with its name, the statement, a comment line `-- = fact` for each
    noised column (`-- ! rule` for a refusal), and notes such as `-- oracle: why it differs`.
    """
    found = []
    for path in sorted((CASES / kind).glob("*.sql")):
        for block in path.read_text().split("\n\n"):
            lines = [line for line in block.splitlines() if line.strip()]
            if lines and not lines[0].startswith("---"):
                found.append(_case(path.stem, lines))
    return found


def _case(theme: str, lines: list[str]) -> Case:
    name = lines[0].removeprefix("-- ")
    sql = "\n".join(line for line in lines if not line.startswith("--")).rstrip(";")
    said = [line[3:] for line in lines[1:] if line.startswith("-- ")]
    facts = tuple(line[2:] for line in said if line[:2] in ("= ", "! "))
    notes = dict(line.split(": ", 1) for line in said if line[:2] not in ("= ", "! "))
    return Case(theme, name, sql, facts, notes)


def facts_of(bound: Bound, plan: NoisePlan, sql: str) -> tuple[str, ...]:
    """Say what a plan does, in one line for each noised column."""
    described = describe(bound, plan, sql, plan.loss)
    sizes = []
    for release in plan.releases:
        keys = release.bounded.keys
        size = "selected" if keys is None else f"public {len(keys)}"
        sizes += [size] * (len(release.measures) + (release.selection is not None))
    return tuple(
        f"{r.name}: {r.strategy}, l1 {r.l1:.6g}, keys {size}, {r.mechanism}"
        for r, size in zip(described.releases, sizes, strict=True)
    ) or ("free",)


def planned(sql: str, catalog: Catalog, rows: int | None = None) -> tuple[Bound, NoisePlan]:
    """Plan a question from the catalog alone: no database is at hand here."""
    bound = bind(parse(sql), catalog)
    releases = tuple(bound_release(release, rows) for release in bound.releases)
    return bound, price(releases, EPSILON, DELTA, ORDER)


# ---- clinics ------------------------------------------------------------------------------


def base_clinic(path: Path) -> Path:
    """Write a clean clinic with a heavy, a light and an empty patient, and with NULLs in it."""
    write_clinic(path, patients=25, seed=11, dirty=False, labs_per_patient=6)
    with duckdb.connect(str(path)) as c:
        c.execute("UPDATE visits SET cost = least(cost, 20000)")
        for column, every in (("department", 17), ("cost", 13), ("los", 19), ("diagnosis", 23),
                              ("visit_date", 29), ("readmitted", 31)):
            c.execute(f"UPDATE visits SET {column} = NULL WHERE visit_id % {every} = 0")
        c.execute("UPDATE patients SET sex = NULL WHERE patient_id % 7 = 0")
        c.execute("UPDATE patients SET region = NULL WHERE patient_id % 11 = 0")
        c.execute("UPDATE labs SET value = NULL WHERE lab_id % 9 = 0")
        c.execute(
            f"INSERT INTO patients VALUES ({HEAVY}, 'F', 1950, 'north'), "
            f"({LIGHT}, 'M', 1990, NULL), ({EMPTY}, NULL, NULL, 'south')"
        )
        c.execute(
            f"INSERT INTO visits SELECT 100000 + i, {HEAVY}, DATE '2026-12-31' - i::INTEGER, "
            f"{_pick(DEPARTMENTS, 'i')}, 'Z' || i % 9, 20000 - i, i % 61, i % 2 = 0 "
            "FROM range(70) t(i)"
        )
        c.execute(
            f"INSERT INTO labs SELECT 100000 + i, 100000 + i % 60, {_pick(TESTS, 'i')}, 500 "
            "FROM range(300) t(i)"
        )
        c.execute(f"INSERT INTO visits VALUES (200000, {LIGHT}, DATE '2016-02-29', 'surgery', "
                  "'A00.0', 20000, 60, true)")
    return path


def _pick(words: tuple[str, ...], index: str) -> str:
    return f"([{', '.join(repr(w) for w in words)}])[{index} % {len(words)} + 1]"


def without(c: duckdb.DuckDBPyConnection, patient: int) -> None:
    """Remove one patient with all rows; a lab row of a visit number that others use as well
    stays, because it is theirs too."""
    c.execute(
        "DELETE FROM labs WHERE visit_id IN (SELECT visit_id FROM visits GROUP BY visit_id "
        f"HAVING bool_and(patient_id = {patient}))"
    )
    c.execute(f"DELETE FROM visits WHERE patient_id = {patient}")
    c.execute(f"DELETE FROM patients WHERE patient_id = {patient}")


def greedy(c: duckdb.DuckDBPyConnection) -> None:
    """A patient beyond every ceiling: all departments and tests, everything at its highest."""
    p = HOSTILE
    c.execute(f"INSERT INTO patients SELECT {p}, 'F', 2026, 'north' FROM range(3)")
    c.execute(
        f"INSERT INTO visits SELECT 900000 + i, {p}, DATE '2015-01-01' + (i * 20)::INTEGER, "
        f"{_pick(DEPARTMENTS, 'i')}, 'H' || i, 20000, 60, true FROM range(230) t(i)"
    )
    c.execute(f"INSERT INTO labs SELECT 900000 + i, 900000 + i % 200, {_pick(TESTS, 'i')}, 500 "
              "FROM range(2600) t(i)")


def thief(c: duckdb.DuckDBPyConnection) -> None:
    """A patient who writes other patients' visit numbers, and one number many times."""
    p = HOSTILE
    c.execute(f"INSERT INTO patients VALUES ({p}, 'M', 1900, 'coast')")
    c.execute(f"INSERT INTO visits SELECT visit_id, {p}, visit_date, 'surgery', diagnosis, 20000, "
              f"60, false FROM visits WHERE patient_id <> {p} AND visit_id % 2 = 0 LIMIT 60")
    c.execute(f"INSERT INTO visits SELECT 100001, {p}, DATE '2020-02-29', "
              f"{_pick(DEPARTMENTS, 'i')}, 'T', 20000, 60, i % 2 = 0 FROM range(40) t(i)")
    c.execute("INSERT INTO labs SELECT 910000 + i, 910001, 'urea', 500 FROM range(40) t(i)")
    c.execute(f"INSERT INTO visits SELECT 910001, {p}, NULL, {_pick(DEPARTMENTS, 'i')}, NULL, "
              "20000, NULL, NULL FROM range(40) t(i)")


def dirty(c: duckdb.DuckDBPyConnection) -> None:
    """A patient of NaN, infinities, NULLs, unknown words, dates out of range, huge numbers."""
    p = HOSTILE
    c.execute(f"INSERT INTO patients VALUES ({p}, 'unknown', -2147483648, NULL), "
              f"({p}, NULL, 2147483647, 'Atlantis')")
    extremes = ["'nan'", "'inf'", "'-inf'", "1e308", "-1e308", "-0.0", "5e-324", "NULL", "-5"]
    for i in range(60):
        x = extremes[i % len(extremes)]
        day = ("DATE '1000-01-01'", "DATE '9999-12-31'", "NULL", "DATE 'infinity'",
               "DATE '2016-02-29'")[i % 5]
        department = ("'alchemy'", "''", "NULL", "'surgery'", "'SURGERY'")[i % 5]
        text = ("''", "NULL", "'5000000-01-01'", "'nan'", "'\U0001f9ec'", "repeat('A', 5000)",
                "'1e400'", "chr(0)", "'5881580-07-10'")[i % 9]
        los = ("2147483647", "-2147483648", "NULL", "0")[i % 4]
        c.execute(f"INSERT INTO visits VALUES ({920000 + i}, {p}, {day}, {department}, {text}, "
                  f"CAST({x} AS DOUBLE), {los}, {('true', 'false', 'NULL')[i % 3]})")
        c.execute(f"INSERT INTO labs VALUES ({920000 + i}, {920000 + i % 3}, 'mercury', "
                  f"CAST({x} AS DOUBLE))")
    c.execute(f"INSERT INTO visits VALUES (NULL, {p}, NULL, NULL, NULL, NULL, NULL, NULL)")


def plain(c: duckdb.DuckDBPyConnection) -> None:
    """A patient with one ordinary visit and the lowest values."""
    c.execute(f"INSERT INTO patients VALUES ({HOSTILE}, 'F', 1900, 'west')")
    c.execute(f"INSERT INTO visits VALUES (930000, {HOSTILE}, DATE '2015-01-01', 'urology', "
              "'A00.0', 0, 0, false)")
    c.execute("INSERT INTO labs VALUES (930000, 930000, 'urea', 0)")


Change = Callable[[duckdb.DuckDBPyConnection], None]
CHANGES: dict[str, Change] = {
    "without the heavy patient": lambda c: without(c, HEAVY),
    "without the light patient": lambda c: without(c, LIGHT),
    "without the empty patient": lambda c: without(c, EMPTY),
    "without the first patient": lambda c: without(c, 1_000),
    "with a greedy patient": greedy,
    "with a thief": thief,
    "with a dirty patient": dirty,
    "with a plain patient": plain,
}


def open_clinic(folder: Path, name: str, source: Path | None, change: Change | None,
                policy: Callable[[str], str] = lambda text: text) -> Engine:
    """Copy a clinic, change it, and open an engine for insecure testing on it."""
    home = folder / name.replace(" ", "_")
    home.mkdir()
    path = home / "clinic.duckdb"
    if source is None:
        base_clinic(path)
    else:
        path.write_bytes(source.read_bytes())
    if change is not None:
        with duckdb.connect(str(path)) as c:
            change(c)
    (home / "clinic.yaml").write_text(policy(clinic_policy(path)))
    return Engine.open(home / "clinic.yaml", insecure_testing=True, seed=7)


# ---- replay -------------------------------------------------------------------------------

def replayed(engine: Engine, sql: str, rows: int | None = None, like: Run | None = None,
             bounds: Bounds = Bounds.DECLARED, epsilon: float = 0.5) -> Run:
    """Run the statements that this epsilon would run, and keep what noise would be added to."""
    settings = Settings(epsilon, None, rows, bounds=bounds)
    bound, plan = engine._plan(sql, settings, engine._data)
    return run_exactly(bound, plan, engine._data.database, engine._data.public, like)


def as_facts(plan: Plan) -> str:
    """A plan's releases as text, for messages."""
    return "; ".join(f"{r.name} {r.strategy} l1={r.l1:g} {r.keys} {r.mechanism}"
                     for r in plan.releases)


__all__ = [
    "CASES", "CHANGES", "DELTA", "EPSILON", "HEAVY", "ORDER", "REGIONS", "Case", "Run", "as_facts",
    "facts_of", "flat", "open_clinic", "planned", "public_part", "read_cases", "replayed",
    "violations",
]
