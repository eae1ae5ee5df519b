"""What does adaptive noise gain at equal epsilon? Against constant noise and against a leak.

    python -m benchmarks.adaptive [--repetitions 40] [--data ../shared/data] [--json]

Each row asks one question with constant and with adaptive noise, seed by seed, and gives the root
mean square of the relative error (or the epsilon spent) with a 95 % interval of the difference. The
leaky form clips at the bound that is best for the raw data: it is NOT PRIVATE and stands here to
show what honesty costs. AboveThreshold over a grid of steps of 1.25 (Durfee 2023) is simulated
with float noise, to tell which way of choosing a clip is better. The heavy-tailed join needs the
OMOP tables in --data and is left out where they are absent; beside it stand the best bounds of rows
and values (leaky: no private choice of them is better) and a simulated race to the top over the
totals of patients (Dong, Fang, Yi, Tao and Machanavajjhala 2022).
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from benchmarks.common import give_out, machine, parser, target, write_clinic_apart
from engine import Engine

RAND = "SELECT SUM(visits) FROM people"
POLICY = """
discreet: 1
database: people.duckdb
ledger: ledger.sqlite
budget: {{epsilon: 1000, delta: 1e-3}}
unit: people.person
tables:
  people:
    one_row_per_unit: true
    columns:
      person: unit
      visits: {{integer: [0, {bound}], not_null: true, loose: true}}
"""
FIVE = {
    "COUNT(*)": "persons", "SUM(hlthg)": "in good health", "SUM(idp)": "with a deductible",
    "SUM(hlthf)": "in fair health", "SUM(hlthp)": "in poor health",
}
FLAGS = """
discreet: 1
database: flags.duckdb
ledger: ledger.sqlite
budget: {epsilon: 1000, delta: 1e-3}
unit: people.person
tables:
  people:
    one_row_per_unit: true
    columns:
      person: unit
      idp: {integer: [0, 1], not_null: true}
      hlthg: {integer: [0, 1], not_null: true}
      hlthf: {integer: [0, 1], not_null: true}
      hlthp: {integer: [0, 1], not_null: true}
"""
HUNDRED = "SELECT item, COUNT(DISTINCT person) FROM items GROUP BY item"
ITEMS = f"""
discreet: 1
database: items.duckdb
ledger: ledger.sqlite
budget: {{epsilon: 1000, delta: 1e-2}}
unit: people.person
tables:
  people:
    one_row_per_unit: true
    columns: {{person: unit}}
  items:
    rows_per_unit: 100
    max_rows_per_unit: 100
    columns:
      person: {{references: people}}
      item: {{category: [{", ".join(f"i{i}" for i in range(100))}], not_null: true}}
"""
JOIN = (
    "SELECT gender_concept_id, SUM(days_supply) FROM drug_exposure "
    "JOIN visit_occurrence USING (visit_occurrence_id) "
    "JOIN person ON person.person_id = drug_exposure.person_id GROUP BY gender_concept_id"
)
ROWS = (
    "SELECT person.person_id AS p, gender_concept_id AS g, days_supply AS x FROM drug_exposure "
    "JOIN visit_occurrence USING (visit_occurrence_id) "
    "JOIN person ON person.person_id = drug_exposure.person_id WHERE days_supply IS NOT NULL"
)
OMOP = """
discreet: 1
database: {database}
ledger: ledger.sqlite
budget: {{epsilon: 1000, delta: 1e-3}}
unit: person.person_id
tables:
  person:
    one_row_per_unit: true
    columns:
      person_id: unit
      gender_concept_id: {{category: [8507, 8532], not_null: true}}
  visit_occurrence:
    columns:
      visit_occurrence_id: key
      person_id: {{references: person}}
  drug_exposure:
    columns:
      person_id: {{references: person}}
      visit_occurrence_id: {{references: visit_occurrence}}
      days_supply: {{integer: [0, 20000], loose: true}}
"""


def rand_policy(folder: Path, bound: int) -> Path:
    """Write the RAND health insurance table of statsmodels, a person for each row."""
    import statsmodels.api as sm

    visits = sm.datasets.randhie.load_pandas().data["mdvis"].to_numpy()
    with duckdb.connect(str(folder / "people.duckdb")) as c:
        c.execute("CREATE TABLE people (person INTEGER, visits INTEGER)")
        c.executemany("INSERT INTO people VALUES (?, ?)",
                      [(i, int(v)) for i, v in enumerate(visits)])
    (folder / "people.yaml").write_text(POLICY.format(bound=bound))
    return folder / "people.yaml"


def thousand(folder: Path) -> Path:
    """Write a table of 1,000 persons."""
    with duckdb.connect(str(folder / "people.duckdb")) as c:
        c.execute("CREATE TABLE people AS SELECT i AS person, 1 AS visits FROM range(1000) t(i)")
    (folder / "people.yaml").write_text(POLICY.format(bound=365))
    return folder / "people.yaml"


def relative(rows: Any, truth: dict[Any, float]) -> list[float]:
    """Return the relative error of each group that has a true answer; an empty one has none."""
    return [float(row[-1]) / truth[tuple(row[:-1])] - 1 for row in rows
            if tuple(row[:-1]) in truth]


def compared(
    policy: Path, sql: str, truth: dict[Any, float], epsilon: float, repetitions: int
) -> dict[str, Any]:
    """Ask with declared and with chosen bounds, seed by seed."""
    found: dict[str, list[float]] = {"declared": [], "auto": []}
    cells: dict[str, list[float]] = {"declared": [], "auto": []}
    chosen: list[str] = []
    covered: list[bool] = []
    for seed in range(1, repetitions + 1):
        with Engine.open(policy, insecure_testing=True, seed=seed) as engine:
            for bounds, errors in found.items():
                result = engine.query(sql, epsilon=epsilon, bounds=bounds)
                cells[bounds] += relative(result.rows, truth)
                errors.append(math.sqrt(np.mean(np.square(relative(result.rows, truth)))))
                if bounds == "auto":
                    chosen += result.plan.chosen
                    covered += [low <= truth[tuple(row[:-1])] <= high for row, ends in
                                zip(result.rows, result.intervals, strict=True)
                                if tuple(row[:-1]) in truth for low, high in [ends[-1]]]
        for old in policy.parent.glob("*insecure.snapshot*"):
            old.unlink()
    return {**_paired(found["declared"], found["auto"]), "covered": float(np.mean(covered)),
            "median": {b: float(np.median(np.abs(errors))) for b, errors in cells.items()},
            "chosen": sorted(set(chosen), key=chosen.count)[-1]}


def _paired(constant: list[float], adaptive: list[float]) -> dict[str, Any]:
    """Return both root mean squares and a 95 % interval of the mean difference."""
    apart = np.asarray(constant) - np.asarray(adaptive)
    half = 1.96 * float(np.std(apart, ddof=1)) / math.sqrt(len(apart))
    return {
        "constant": float(np.sqrt(np.mean(np.square(constant)))),
        "adaptive": float(np.sqrt(np.mean(np.square(adaptive)))),
        "difference": [float(np.mean(apart)) - half, float(np.mean(apart)) + half],
        "repetitions": len(apart),
    }


def leaky_clip(values: Any, epsilon: float) -> float:
    """Return the error of the clip that is best for the raw values. NOT PRIVATE."""
    total = float(np.sum(values))
    return min(
        math.hypot(total - float(np.minimum(values, t).sum()), math.sqrt(2) * t / epsilon) / total
        for t in range(1, int(np.max(values)) + 1)
    )


def leaky_average(patients: Any, groups: Any, values: Any, truth: dict[Any, float]) -> float:
    """Return the error of the weights that are best for the raw values, epsilon 1. NOT PRIVATE.

    The center is the mean itself and the whole epsilon goes to the answer.
    """
    _, person = np.unique(patients, return_inverse=True)
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    true, center = np.array([truth[(name,)] for name in names]), float(np.mean(values))
    rest, rows = values - center, np.bincount(person)
    parts = np.zeros((len(rows), len(names)))
    np.add.at(parts, (person, group), rest)
    apart, best = np.abs(parts).sum(axis=1), math.inf
    for most in (8, 11, 16, 22, 32, 45):
        for cap in 2.0 ** np.arange(14, 18, 0.25):
            weight = np.minimum(1, np.minimum(most / rows, cap / np.maximum(apart, 1e-9)))[person]
            count = np.bincount(group, weight)
            bias = center + np.bincount(group, weight * rest) / count - true
            noise = np.sqrt(2) * np.hypot(cap / 0.75, np.abs(true - center) * most / 0.25) / count
            best = min(best, float(np.sqrt(np.mean((np.hypot(bias, noise) / true) ** 2))))
    return best


def above_threshold(values: Any, epsilon: float, bound: float, runs: int = 3000) -> float:
    """Return the error where AboveThreshold chooses the clip with a fifth of the epsilon."""
    generator, total = np.random.default_rng(7), float(np.sum(values))
    first, second = epsilon / 5, epsilon * 4 / 5
    clips = np.append(1.25 ** np.arange(math.ceil(math.log(bound, 1.25))), bound)
    above = np.array([(values > clip).sum() for clip in clips])
    clipped = np.array([np.minimum(values, clip).sum() for clip in clips])
    limits = 1 / second + generator.laplace(0, 2 / first, runs)
    seen = above + generator.laplace(0, 2 / first, (runs, len(clips)))
    stops = np.where((seen <= limits[:, None]).any(axis=1),
                     np.argmax(seen <= limits[:, None], axis=1), len(clips) - 1)
    answers = clipped[stops] + generator.laplace(0, clips[stops] / second)
    return float(np.sqrt(np.mean((answers / total - 1) ** 2)))


def sums(folder: Path, repetitions: int) -> list[dict[str, Any]]:
    """SUM(visits) of the RAND table under the declared bound 365."""
    policy = rand_policy(folder, 365)
    with duckdb.connect(str(folder / "people.duckdb"), read_only=True) as c:
        values = c.execute("SELECT visits FROM people").fetchnumpy()["visits"]
    truth = {(): float(np.sum(values))}
    return [
        {"case": f"SUM(visits), RAND, bound 365, epsilon {epsilon:g}", "what": "relative RMSE",
         **compared(policy, RAND, truth, epsilon, repetitions),
         "AboveThreshold, simulated": above_threshold(values, epsilon, 365),
         "leaky, not private": leaky_clip(values, epsilon)}
        for epsilon in (0.1, 1.0)
    ]


def counts(folder: Path, repetitions: int) -> list[dict[str, Any]]:
    """The epsilon that a count of 1,000 within 10 % at 95 % takes."""
    policy = thousand(folder)
    spent, missed = [], 0
    with Engine.open(policy) as engine:
        for i in range(repetitions):
            sql = f"SELECT COUNT(*) FROM people WHERE visits < {i + 2}"  # a new question each
            result = engine.query(sql, epsilon=1, error="10%")
            spent.append(result.cost.epsilon)
            missed += abs(result.rows[0][0] / 1000 - 1) > 0.1
    return [{
        "case": "COUNT near 1,000 within 10 % at 95 %", "what": "epsilon spent",
        "constant": 1.0, "adaptive": float(np.mean(spent)), "missed": missed,
        "difference": [1 - float(np.mean(spent)) - 1.96 * float(np.std(spent, ddof=1))
                       / math.sqrt(len(spent)),
                       1 - float(np.mean(spent)) + 1.96 * float(np.std(spent, ddof=1))
                       / math.sqrt(len(spent))],
        "repetitions": repetitions,
    }]


def fives(folder: Path, repetitions: int) -> list[dict[str, Any]]:
    """Five aggregates of the RAND table, from 20,190 persons to 302: even shares and a split."""
    import statsmodels.api as sm

    table = sm.datasets.randhie.load_pandas().data
    flags = [table[name].astype(int).tolist() for name in ("idp", "hlthg", "hlthf", "hlthp")]
    with duckdb.connect(str(folder / "flags.duckdb")) as c:
        c.execute("CREATE TABLE people (person INTEGER, idp INTEGER, hlthg INTEGER, "
                  "hlthf INTEGER, hlthp INTEGER)")
        c.executemany("INSERT INTO people VALUES (?, ?, ?, ?, ?)",
                      list(zip(range(len(table)), *flags, strict=True)))
        sql = f"SELECT {', '.join(FIVE)} FROM people"
        truth = np.array(c.execute(sql).fetchone(), dtype=float)
    (folder / "flags.yaml").write_text(FLAGS)
    return [_divided(folder / "flags.yaml", sql, truth, epsilon, repetitions)
            for epsilon in (0.1, 1.0)]


def _divided(
    policy: Path, sql: str, truth: Any, epsilon: float, repetitions: int
) -> dict[str, Any]:
    """Compare the worst root mean square of five, and each repetition's worst of five."""
    errors: dict[str, list[Any]] = {"even": [], "auto": []}
    covered: list[bool] = []
    for seed in range(1, repetitions + 1):
        with Engine.open(policy, insecure_testing=True, seed=seed) as engine:
            for split, found in errors.items():
                result = engine.query(sql, epsilon=epsilon, split=split)
                found.append(np.array(result.rows[0], dtype=float) / truth - 1)
                if split == "auto":
                    covered += [low <= n <= high for (low, high), n in
                                zip(result.intervals[0], truth, strict=True)]
    worst = {split: [float(np.abs(e).max()) for e in found] for split, found in errors.items()}
    squares = {split: np.mean(np.square(found), axis=0) for split, found in errors.items()}
    return {
        "case": f"five aggregates, RAND, epsilon {epsilon:g}", "what": "worst relative RMSE",
        **_paired(worst["even"], worst["auto"]),
        "constant": float(np.sqrt(squares["even"].max())),
        "adaptive": float(np.sqrt(squares["auto"].max())), "covered": float(np.mean(covered)),
        "each": {words: [float(np.sqrt(squares[s][i])) for s in ("even", "auto")]
                 for i, words in enumerate(FIVE.values())},
        # The split that is best for the raw answers: each has the same relative error.
        "leaky, not private": math.sqrt(2) * float(np.sum(1 / truth)) / epsilon,
    }


def hundreds(folder: Path, repetitions: int) -> list[dict[str, Any]]:
    """A hundred counts to which a patient gives one each: Laplace, and what the planner takes."""
    with duckdb.connect(str(folder / "items.duckdb")) as c:
        c.execute("CREATE TABLE people AS SELECT i AS person FROM range(400) t(i)")
        c.execute("CREATE TABLE items AS SELECT person, 'i' || j AS item FROM people, "
                  "range(100) t(j)")
    (folder / "items.yaml").write_text(ITEMS)
    errors: dict[float, list[float]] = {0.0: [], 1e-5: []}
    taken = ""
    for seed in range(1, repetitions + 1):
        with Engine.open(folder / "items.yaml", insecure_testing=True, seed=seed) as engine:
            for delta, found in errors.items():
                result = engine.query(HUNDRED, epsilon=1, delta=delta)
                wrong = [float(row[1]) - 400 for row in result.rows]
                found.append(math.sqrt(np.mean(np.square(wrong))))
                taken = result.plan.releases[0].mechanism
    return [{"case": "100 counts a patient, epsilon 1, delta 1e-5", "what": "RMSE of the noise",
             **_paired(errors[0.0], errors[1e-5]), "chosen": taken}]


def joins(folder: Path, data: Path, repetitions: int) -> list[dict[str, Any]]:
    """A grouped sum with a heavy tail over a join of three OMOP tables."""
    source = data / "omop1k"
    if not source.is_dir():
        return []
    (folder / "omop.yaml").write_text(OMOP.format(database=source.resolve()))
    with duckdb.connect() as c:
        for table in ("person", "visit_occurrence", "drug_exposure"):
            c.execute(f"CREATE VIEW {table} AS FROM '{source / table}.parquet'")
        truth = {(row[0],): float(row[1]) for row in c.execute(JOIN).fetchall()}
        found = c.execute(ROWS).fetchnumpy()
    rows = {name: np.asarray(column, dtype=float) for name, column in found.items()}
    return [{"case": "SUM(days_supply) by sex over three OMOP tables, epsilon 1",
             "what": "relative RMSE",
             **compared(folder / "omop.yaml", JOIN, truth, 1.0, repetitions),
             "leaky, not private": leaky_total(rows, 1.0),
             "rows and values, leaky, not private": leaky_rows(rows, 1.0),
             "race to the top, simulated": race(rows, 1.0, 400_000.0)}]


def _by_group(rows: dict[str, Any], values: Any) -> list[Any]:
    """Return the patients' totals of `values`, group by group."""
    found = []
    for group in np.unique(rows["g"]):
        here = rows["g"] == group
        _, unit = np.unique(rows["p"][here], return_inverse=True)
        found.append(np.bincount(unit, values[here]))
    return found


def _over_groups(truths: list[float], answers: list[float], noise: float) -> float:
    """Return the root mean square of the relative error, for noise of one deviation."""
    squares = [((answer - truth) ** 2 + noise**2) / truth**2
               for truth, answer in zip(truths, answers, strict=True)]
    return math.sqrt(float(np.mean(squares)))


def leaky_total(rows: dict[str, Any], epsilon: float) -> float:
    """Return the error of the best clip of a patient's total for the raw values. NOT PRIVATE."""
    totals = _by_group(rows, rows["x"])
    truths = [float(t.sum()) for t in totals]
    return min(
        _over_groups(truths, [float(np.minimum(t, clip).sum()) for t in totals],
                     math.sqrt(2) * clip / epsilon)
        for clip in np.geomspace(100, 400_000, 200)
    )


def leaky_rows(rows: dict[str, Any], epsilon: float) -> float:
    """Return the error of the best bounds of rows and of values, taken together. NOT PRIVATE.

    A patient with more rows counts with the share that is allowed of them.
    """
    truths = [float(t.sum()) for t in _by_group(rows, rows["x"])]
    counts = _by_group(rows, np.ones_like(rows["x"]))
    best = math.inf
    for clip in np.geomspace(50, 20_000, 60):
        clipped = _by_group(rows, np.minimum(rows["x"], clip))
        for most in (1, 2, 5, 10, 20, 35, 50, 75, 100, 161):
            answers = [float((v * np.minimum(1, most / n)).sum())
                       for v, n in zip(clipped, counts, strict=True)]
            best = min(best, _over_groups(truths, answers, math.sqrt(2) * clip * most / epsilon))
    return best


def race(rows: dict[str, Any], epsilon: float, bound: float, runs: int = 2000) -> float:
    """Return the error of the race to the top over clips 2^j of a patient's total.

    Each of L clips has noise for an L-th of the epsilon and is fined so much that its answer is
    hardly ever above the truth; the largest is kept.
    """
    generator, miss = np.random.default_rng(7), 0.1
    clips = 2.0 ** np.arange(1, math.ceil(math.log2(bound)) + 1)
    count, squares = len(clips), []
    for totals in _by_group(rows, rows["x"]):
        clipped = np.minimum(totals[:, None], clips).sum(axis=0)
        noise = generator.laplace(0, 1, (runs, count)) - math.log(count / miss)
        answers = np.maximum((clipped + noise * count * clips / epsilon).max(axis=1), 0)
        squares.append((answers / totals.sum() - 1) ** 2)
    return float(np.sqrt(np.mean(squares)))


CLINIC = {
    "COUNT(*)": "SELECT COUNT(*) FROM visits",
    "SUM(cost)": "SELECT SUM(cost) FROM visits",
    "COUNT(*) by department": "SELECT department, COUNT(*) FROM visits GROUP BY department",
    "AVG(cost) by department": "SELECT department, AVG(cost) FROM visits GROUP BY department",
}


def clinics(folder: Path, repetitions: int) -> list[dict[str, Any]]:
    """Questions over 100,000 visits of the synthetic clinic, epsilon 1.

    The true sum is that of the policy: costs beyond their declared bound count as the bound.
    """
    policy = write_clinic_apart(folder, 100_000, dirty=False)
    with duckdb.connect(str(folder / "clinic.duckdb"), read_only=True) as c:
        truths = {name: {tuple(row[:-1]): float(row[-1]) for row in c.execute(
            sql.replace("SUM(cost)", "SUM(least(cost, 20000))")).fetchall()}
            for name, sql in CLINIC.items()}
        rows = c.execute("SELECT patient_id, department, least(cost, 20000) AS cost FROM visits "
                         "WHERE cost IS NOT NULL").fetchnumpy()
    found = [{"case": f"{name}, 100,000 visits, epsilon 1", "what": "relative RMSE",
              **compared(policy, sql, truths[name], 1.0, repetitions)}
             for name, sql in CLINIC.items()]
    found[-1]["leaky, not private"] = leaky_average(
        rows["patient_id"], rows["department"], rows["cost"], truths["AVG(cost) by department"]
    )
    return found


def table(document: dict[str, Any]) -> str:
    """Print what was found."""
    lines = [f"{'':56}{'constant':>10}{'adaptive':>10}   95 % of the difference"]
    for row in document["results"]:
        low, high = row["difference"]
        lines.append(f"{row['case']:56}{row['constant']:10.4f}{row['adaptive']:10.4f}   "
                     f"[{low:.4f}, {high:.4f}]  {row['what']}")
        for name in ("AboveThreshold, simulated", "race to the top, simulated",
                     "rows and values, leaky, not private", "leaky, not private"):
            if name in row:
                lines.append(f"   {name:53}{'':10}{row[name]:10.4f}")
        for name, (even, divided) in row.get("each", {}).items():
            lines.append(f"   {name:53}{even:10.4f}{divided:10.4f}")
        if "median" in row:
            medians = row["median"]
            lines.append(f"   {'median of the absolute relative error':53}"
                         f"{medians['declared']:10.4f}{medians['auto']:10.4f}")
            lines.append(f"   {'intervals that hold the truth':53}{'':10}{row['covered']:10.1%}")
    return "\n".join(lines)


def targets(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hold the rows against the figures of the research notes."""
    limits = {"COUNT near": 0.040, "RAND, bound 365, epsilon 0.1": 0.045,
              "RAND, bound 365, epsilon 1": 0.0052, "five aggregates, RAND, epsilon 0.1": 0.144,
              "five aggregates, RAND, epsilon 1": 0.009}
    found = [
        target(row["case"], row["adaptive"], limit) for row in results
        for name, limit in limits.items() if row["case"].endswith(name)
        or (row["case"].startswith(name) and "COUNT" in name)
    ]
    found += [
        target(row["case"] + ", times smaller than Laplace", row["constant"] / row["adaptive"],
               3.8, at_least=True)
        for row in results if row["case"].startswith("100 counts")
    ]
    found += [
        target(row["case"] + ", median", row["median"]["auto"], 0.03)
        for row in results if row["case"].startswith("AVG(cost) by department")
    ]
    return found + [
        target(row["case"] + ", share of the constant error", row["adaptive"] / row["constant"],
               1 / 3)
        for row in results if "OMOP" in row["case"]
    ]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--repetitions", type=int, default=40)
    options.add_argument("--data", type=Path, default=Path("../shared/data"))
    asked = options.parse_args()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="discreet-adaptive-") as name:
        for part in ("sums", "counts", "fives", "hundreds", "joins", "clinics"):
            (Path(name) / part).mkdir()
        results += sums(Path(name) / "sums", asked.repetitions)
        results += counts(Path(name) / "counts", asked.repetitions)
        results += fives(Path(name) / "fives", asked.repetitions)
        results += hundreds(Path(name) / "hundreds", min(asked.repetitions, 20))
        results += joins(Path(name) / "joins", asked.data, asked.repetitions)
        results += clinics(Path(name) / "clinics", min(asked.repetitions, 20))
    document = {"machine": machine("statsmodels"), "results": results,
                "targets": targets(results)}
    give_out(document, asked, table(document))


if __name__ == "__main__":
    main()
