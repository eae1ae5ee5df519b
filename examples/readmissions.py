"""A clinic of invented patients in, a small private study of readmissions out.

    python examples/readmissions.py [FOLDER]

Writes a synthetic clinic and its policy into FOLDER (default: a temporary one), asks four
questions, and shows what each costs before it is paid.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from engine import Engine, Refused
from engine.clinic import clinic_policy, write_clinic

QUESTIONS = (
    ("How many stays, and how long?",
     "SELECT department, COUNT(*) AS stays, AVG(los) AS days FROM visits GROUP BY department", 0.5),
    ("How many stays follow within 30 days of the one before?",
     """WITH stays AS (
            SELECT patient_id, visit_date - lag(visit_date) OVER (
                       PARTITION BY patient_id ORDER BY visit_date) AS days_since
            FROM visits)
        SELECT COUNT(*) AS stays, COUNT(*) FILTER (WHERE days_since <= 30) AS within_30_days
        FROM stays""", 0.5),
    ("What does the dearest tenth cost?",
     "SELECT MEDIAN(cost) AS median, QUANTILE_CONT(cost, 0.9) AS dearest_tenth FROM visits", 0.5),
    ("How many patients were never in surgery, by sex?",
     """SELECT sex, COUNT(*) AS patients FROM patients AS p
        WHERE NOT EXISTS (SELECT 1 FROM visits AS v
                          WHERE v.patient_id = p.patient_id AND v.department = 'surgery')
        GROUP BY sex""", 0.3),
)


def main(folder: Path) -> None:
    """Build the clinic, ask, and show the budget."""
    database = write_clinic(folder / "clinic.duckdb", patients=5_000, labs_per_patient=0)
    (folder / "clinic.yaml").write_text(clinic_policy(database))
    with Engine.open(folder / "clinic.yaml") as engine:
        for title, sql, epsilon in QUESTIONS:
            plan = engine.explain(sql, epsilon=epsilon)
            print(f"\n{title}  (price: epsilon {plan.cost.epsilon:g})")
            print(engine.query(sql, epsilon=epsilon))
        try:
            engine.query("SELECT patient_id, cost FROM visits")
        except Refused as refusal:
            print(f"\nShow me the rows\n{refusal}")
        print(f"\n{engine.budget()}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
