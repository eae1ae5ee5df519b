"""Linkage: names from one table, diagnoses from another, joined by sex, age and postcode.

Sweeney 2002 (quasi-identifiers) and Machanavajjhala et al. 2007 (homogeneous groups), against the
medical table as the protected one. The tables (an identified list and its 3-anonymous twin) are
not part of the project; they are looked for beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from benchmarks.attacks.curators import Kind, curator, one_table

TABLES = Path(__file__).parents[3] / "shared" / "data" / "linkage_demo"
DIAGNOSES = ("Alzheimer", "Arthritis", "COPD", "Cancer", "Depression", "Diabetes",
             "Heart Disease", "High Blood Pressure", "Osteoporosis", "Stroke")
AGES = tuple(f"{n}0-{n}9" for n in range(1, 9))
DECLARED = one_table(
    f"gender: {{category: [F, M]}}\nage: {{category: [{', '.join(AGES)}]}}\nzip: text\n"
    f"diagnosis: {{category: [{', '.join(DIAGNOSES)}], not_null: true}}"
)


def read(targets: int, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the medical table, and identified people with what is known of each; `diagnosis` is
    the answer and used for scoring only."""
    with duckdb.connect() as connection:
        medical = connection.execute(
            "SELECT ID AS id, Gender AS gender, Age AS age, Zip AS zip, Diagnosis AS diagnosis "
            f"FROM '{TABLES}/data_medical.parquet' ORDER BY ID").fetchnumpy()
        people = connection.execute(
            "SELECT d.Name, d.Gender, "
            "(d.Age // 10 * 10)::VARCHAR || '-' || (d.Age // 10 * 10 + 9), "
            "substr(lpad(d.Zip::VARCHAR, 5, '0'), 1, 3) || '**', m.Diagnosis "
            f"FROM '{TABLES}/data_demographic.parquet' d JOIN '{TABLES}/data_medical.parquet' m "
            "USING (ID) ORDER BY ID").fetchall()
    chosen = np.random.default_rng(seed).choice(len(people), targets, replace=False)
    names = ("name", "gender", "age", "zip", "diagnosis")
    return ({name: np.asarray(values, dtype=str) for name, values in medical.items()},
            [dict(zip(names, people[i], strict=True)) for i in chosen])


def linked(
    kind: Kind, folder: Path, seed: int, *, targets: int = 200, epsilon: float = 1.0,
    each: float = 1.0,
) -> dict[str, float]:
    """Return how many people's diagnoses are guessed, and how many are known for certain."""
    medical, people = read(targets, seed)
    right = certain = 0
    with curator(kind, folder, medical, DECLARED, epsilon=epsilon, each=each) as asked:
        texts = [
            "SELECT diagnosis, COUNT(*) AS n FROM people WHERE "
            f"gender = '{p['gender']}' AND age = '{p['age']}' AND zip = '{p['zip']}' "
            "GROUP BY diagnosis" for p in people
        ]
        share = asked.share(texts[0], len(texts))
        for person, text in zip(people, texts, strict=True):
            rows = sorted(asked.ask(text, share) or (), key=lambda row: -float(row[1]))
            right += bool(rows) and rows[0][0] == person["diagnosis"]
            certain += kind is Kind.EXACT and sum(float(n) > 0 for _, n in rows) == 1
    return {"right": right / targets, "certain": certain / targets}
