"""The studies of benchmarks/training.py: real tables as governed databases, with public bounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

TABLES = Path(__file__).parents[2] / "shared" / "data"
FOLD = "('0x' || substr(sha256({key}::VARCHAR), 1, 8))::BIGINT % 5"


@dataclass(frozen=True, slots=True)
class Study:
    """A policy, a training view, and test rows that no training ever sees.

    `ceilings` are the AUC of models without privacy on the same test rows.
    """

    name: str
    policy: Path
    view: str
    label: str
    delta: float
    test: dict[str, list[Any]] = field(repr=False)
    truth: np.ndarray = field(repr=False)
    ceilings: dict[str, float]
    options: dict[str, Any] = field(default_factory=dict)


def write_policy(folder: Path, unit: str, units: int, table: str) -> Path:
    """Write a policy whose budget is large enough for every repetition."""
    path = folder / "policy.yaml"
    path.write_text(f"""discreet: 1
database: study.duckdb
ledger: study.ledger.sqlite
budget: {{epsilon: 10000, delta: 0.01}}
unit: {unit}
units: {units}
tables:
{table}""")
    return path


def logistic_auc(inputs: np.ndarray, targets: np.ndarray, test: np.ndarray, truth: np.ndarray
                 ) -> float:
    """Return the AUC of scikit-learn's logistic regression on the same encoded rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    model = LogisticRegression(max_iter=2000).fit(inputs, targets)
    return float(roc_auc_score(truth, model.decision_function(test)))


# ---- breast cancer (scikit-learn) ------------------------------------------------------------


def breast_cancer(folder: Path) -> Iterator[Study]:
    """Ten splits, 426 patients each; bounds are those in the data set's published description."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    data = load_breast_cancer()
    names = [name.replace(" ", "_") for name in data.feature_names]
    bounds = _described(data.DESCR, len(names))
    columns = "".join(f"      {name}: {{real: [{low}, {high}], not_null: true}}\n"
                      for name, (low, high) in zip(names, bounds, strict=True))
    for split in range(10):
        learned, held = train_test_split(
            np.arange(len(data.target)), test_size=0.25, stratify=data.target, random_state=split)
        place = folder / f"split{split}"
        place.mkdir(parents=True)
        connection = duckdb.connect(str(place / "study.duckdb"))
        frame = {name: data.data[learned, i] for i, name in enumerate(names)}
        frame |= {"patient": learned, "benign": data.target[learned] == 1}
        connection.register("given", frame)
        connection.execute("CREATE TABLE tumours AS SELECT * FROM given")
        connection.close()
        policy = write_policy(
            place, "tumours.patient", 430,
            "  tumours:\n    one_row_per_unit: true\n    columns:\n      patient: unit\n"
            f"      benign: {{boolean: true, not_null: true}}\n{columns}")
        scaled = (data.data - [b[0] for b in bounds]) / [b[1] - b[0] for b in bounds]
        yield Study(
            "breast cancer", policy, f"SELECT {', '.join(names)}, benign FROM tumours", "benign",
            1e-5, {name: data.data[held, i].tolist() for i, name in enumerate(names)},
            data.target[held],
            {"logistic": logistic_auc(scaled[learned], data.target[learned], scaled[held],
                                      data.target[held])},
        )


def _described(text: str, count: int) -> list[tuple[float, float]]:
    """Read the table of published bounds out of the description."""
    found = []
    for line in text.splitlines():
        words = line.replace(":", " ").split()
        if len(words) >= 3 and line.strip().startswith(
            ("radius", "texture", "perimeter", "area", "smoothness", "compactness", "concav",
             "symmetry", "fractal")
        ) and words[-1].replace(".", "").isdigit():
            found.append((float(words[-2]), float(words[-1])))
    if len(found) != count:
        raise ValueError("the description has another form")
    # Printed to three digits: a step of the last one more keeps every value inside.
    return [(max(0.0, low - 0.001), high + 0.01) for low, high in found]


# ---- SUPPORT: death in hospital --------------------------------------------------------------

SUPPORT_NUMBERS = {
    "age": (18, 100, 65), "num.co": (0, 10, 0), "scoma": (0, 100, 0), "meanbp": (20, 200, 85),
    "hrt": (20, 250, 80), "resp": (0, 80, 18), "temp": (32, 42, 37), "wblc": (0, 50, 9),
    "crea": (0, 15, 1.01), "sod": (100, 180, 140), "bili": (0, 30, 1.01), "alb": (0.5, 6, 3.5),
    "bun": (0, 150, 6.51), "pafi": (50, 600, 333.3), "ph": (6.8, 7.8, 7.4),
    "urine": (0, 6000, 2502), "glucose": (0, 600, 120),
}  # fmt: skip
SUPPORT_CHOICES = {
    "sex": ("female", "male"), "ca": ("no", "yes", "metastatic"),
    "dzgroup": ("ARF/MOSF w/Sepsis", "CHF", "COPD", "Cirrhosis", "Colon Cancer", "Coma",
                "Lung Cancer", "MOSF w/Malig"),
}  # fmt: skip


def support(folder: Path, useless: int = 0) -> Iterator[Study]:
    """One study; `useless` adds columns of coins that tell nothing."""
    source = TABLES / "support2" / "support2.parquet"
    if not source.exists():
        return
    place = folder / f"support{useless}"
    place.mkdir(parents=True)
    rng = np.random.default_rng(11)
    connection = duckdb.connect(str(place / "study.duckdb"))
    connection.execute(f"CREATE TABLE stays AS SELECT *, {FOLD.format(key='sno')} AS fold "
                       f"FROM '{source}' ORDER BY sno")
    count = connection.execute("SELECT COUNT(*) FROM stays").fetchone()[0]
    extra = {f"useless_{i}": rng.uniform(0, 1, count) for i in range(useless)}
    if extra:
        connection.register("given", {"key": np.arange(1, count + 1), **extra})
        connection.execute("CREATE OR REPLACE TABLE stays AS SELECT stays.*, given.* EXCLUDE (key) "
                           "FROM stays JOIN given ON stays.sno = given.key")
    columns = "".join(f"      {n}: {{real: [{a}, {b}]}}\n"
                      for n, (a, b, _) in SUPPORT_NUMBERS.items())
    columns += "".join(f"      {n}: {{category: [{', '.join(v)}]}}\n"
                       for n, v in SUPPORT_CHOICES.items())
    columns += "".join(f"      {n}: {{real: [0, 1], not_null: true}}\n" for n in extra)
    policy = write_policy(
        place, "stays.sno", 7300,
        "  stays:\n    one_row_per_unit: true\n    columns:\n      sno: unit\n"
        "      fold: {integer: [0, 4]}\n      hospdead: {integer: [0, 1], not_null: true}\n"
        "      diabetes: {integer: [0, 1], not_null: true}\n"
        f"      dementia: {{integer: [0, 1], not_null: true}}\n{columns}")
    listed = [*(f'COALESCE("{n}", {fill}) AS "{n}"' for n, (_, _, fill) in SUPPORT_NUMBERS.items()),
              *SUPPORT_CHOICES, "diabetes", "dementia", *extra]
    names = [*SUPPORT_NUMBERS, *SUPPORT_CHOICES, "diabetes", "dementia", *extra]
    rows = connection.execute(
        f"SELECT {', '.join(listed)}, hospdead FROM stays WHERE fold = 0").fetchall()
    connection.close()
    columns_of_rows = list(zip(*rows, strict=True))
    yield Study(
        "support2" if not useless else f"support2 and {useless} useless columns", policy,
        f"SELECT {', '.join(listed)}, hospdead FROM stays WHERE fold <> 0", "hospdead", 1e-5,
        dict(zip(names, map(list, columns_of_rows[:-1]), strict=True)),
        np.array(columns_of_rows[-1]),
        {"logistic": 0.767, "mlp": 0.763} if not useless else {},
    )


# ---- diabetes130: readmission within 30 days --------------------------------------------------

DIABETES_NUMBERS = {
    "age_mid": (0, 100), "time_in_hospital": (1, 14), "num_lab_procedures": (0, 100),
    "num_procedures": (0, 10), "num_medications": (0, 50), "number_outpatient": (0, 10),
    "number_emergency": (0, 10), "number_inpatient": (0, 10), "number_diagnoses": (0, 20),
}  # fmt: skip
DIABETES_CHOICES = {
    "race": ("Caucasian", "AfricanAmerican", "Hispanic", "Asian", "Other"),
    "gender": ("Female", "Male"), "max_glu_serum": ("None", "Norm", ">200", ">300"),
    "A1Cresult": ("None", "Norm", ">7", ">8"), "insulin": ("No", "Steady", "Up", "Down"),
    "metformin": ("No", "Steady", "Up", "Down"), "change": ("No", "Ch"),
    "diabetesMed": ("No", "Yes"), "admission": ("emergency", "urgent", "elective", "other"),
    "discharge": ("home", "home_health", "acute", "snf_rehab", "ama", "other"),
    "diagnosis": ("circulatory", "respiratory", "digestive", "diabetes", "injury",
                  "musculoskeletal", "genitourinary", "neoplasms", "other"),
}  # fmt: skip
_ICD = "TRY_CAST(diag_1 AS DOUBLE)"
DIABETES_SOURCE = f"""
    SELECT encounter_id, patient_nbr, readmitted = '<30' AS again,
        TRY_CAST(regexp_extract(age, '\\[(\\d+)', 1) AS INTEGER) + 5 AS age_mid,
        * EXCLUDE (encounter_id, patient_nbr, readmitted, age),
        CASE admission_type_id WHEN 1 THEN 'emergency' WHEN 2 THEN 'urgent' WHEN 3 THEN 'elective'
            ELSE 'other' END AS admission,
        CASE WHEN discharge_disposition_id = 1 THEN 'home'
            WHEN discharge_disposition_id IN (6, 8) THEN 'home_health'
            WHEN discharge_disposition_id IN (2, 5, 9, 10, 12, 15, 23, 27, 28, 29) THEN 'acute'
            WHEN discharge_disposition_id IN (3, 4, 22, 24, 30) THEN 'snf_rehab'
            WHEN discharge_disposition_id = 7 THEN 'ama' ELSE 'other' END AS discharge,
        CASE WHEN floor({_ICD}) BETWEEN 390 AND 459 OR floor({_ICD}) = 785 THEN 'circulatory'
            WHEN floor({_ICD}) BETWEEN 460 AND 519 OR floor({_ICD}) = 786 THEN 'respiratory'
            WHEN floor({_ICD}) BETWEEN 520 AND 579 OR floor({_ICD}) = 787 THEN 'digestive'
            WHEN floor({_ICD}) = 250 THEN 'diabetes'
            WHEN floor({_ICD}) BETWEEN 800 AND 999 THEN 'injury'
            WHEN floor({_ICD}) BETWEEN 710 AND 739 THEN 'musculoskeletal'
            WHEN floor({_ICD}) BETWEEN 580 AND 629 OR floor({_ICD}) = 788 THEN 'genitourinary'
            WHEN floor({_ICD}) BETWEEN 140 AND 239 THEN 'neoplasms' ELSE 'other' END AS diagnosis,
        {FOLD.format(key='patient_nbr')} AS fold
    FROM '{{source}}' WHERE discharge_disposition_id NOT IN (11, 13, 14, 19, 20, 21)
"""


def diabetes(folder: Path) -> Iterator[Study]:
    """One study of 55,951 patients with up to 3 encounters each."""
    source = TABLES / "diabetes130" / "encounters.parquet"
    if not source.exists():
        return
    place = folder / "diabetes"
    place.mkdir(parents=True)
    connection = duckdb.connect(str(place / "study.duckdb"))
    connection.execute(f"CREATE TABLE encounters AS {DIABETES_SOURCE.format(source=source)}")
    connection.execute("CREATE TABLE people AS SELECT DISTINCT patient_nbr FROM encounters")
    columns = "".join(f"      {n}: {{integer: [{a}, {b}]}}\n"
                      for n, (a, b) in DIABETES_NUMBERS.items())
    columns += "".join(f"      {n}: {{category: [{', '.join(repr(x) for x in v)}]}}\n"
                       for n, v in DIABETES_CHOICES.items())
    policy = write_policy(
        place, "people.patient_nbr", 56_000,
        "  people:\n    one_row_per_unit: true\n    columns:\n      patient_nbr: unit\n"
        "  encounters:\n    max_rows_per_unit: 40\n    columns:\n"
        "      patient_nbr: {references: people}\n      encounter_id: key\n"
        "      fold: {integer: [0, 4]}\n      again: {boolean: true, not_null: true}\n"
        f"{columns}")
    names = [*DIABETES_NUMBERS, *DIABETES_CHOICES]
    listed = ", ".join(f'"{name}"' for name in names)
    rows = connection.execute(
        f"SELECT {listed}, again FROM encounters WHERE fold = 0").fetchall()
    connection.close()
    columns_of_rows = list(zip(*rows, strict=True))
    yield Study(
        "diabetes130", policy, f"SELECT {listed}, again FROM encounters WHERE fold <> 0", "again",
        1e-6, dict(zip(names, map(list, columns_of_rows[:-1]), strict=True)),
        np.array(columns_of_rows[-1]).astype(int), {"logistic": 0.656, "mlp": 0.659}, {"rows": 3},
    )


# ---- pneumonia28: chest X-rays ----------------------------------------------------------------


def pneumonia(folder: Path) -> Iterator[Study]:
    """One study of 4,708 images, each its own unit."""
    source = TABLES / "pneumonia28" / "pneumonia28.npz"
    if not source.exists():
        return
    place = folder / "pneumonia"
    place.mkdir(parents=True)
    with np.load(source) as data:
        images, labels = data["train_images"], data["train_labels"]
        test, truth = data["test_images"], data["test_labels"]
    connection = duckdb.connect(str(place / "study.duckdb"))
    connection.execute("CREATE TABLE xrays (id INTEGER, image BLOB, pneumonia BOOLEAN)")
    rows = [(i, image.tobytes(), bool(label))
            for i, (image, label) in enumerate(zip(images, labels, strict=True))]
    connection.executemany("INSERT INTO xrays VALUES (?, ?, ?)", rows)
    connection.close()
    policy = write_policy(
        place, "xrays.id", 4700,
        "  xrays:\n    one_row_per_unit: true\n    columns:\n      id: unit\n"
        "      image: {image: [28, 28, 1], not_null: true}\n"
        "      pneumonia: {boolean: true, not_null: true}\n")
    yield Study(
        "pneumonia28", policy, "SELECT image, pneumonia FROM xrays", "pneumonia", 1e-5,
        {"image": [image.tobytes() for image in test]}, truth, {"logistic": 0.924},
    )
