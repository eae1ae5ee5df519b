"""Every class of question, drawn 100,000 times on the worst neighbours: nobody proves more than
was charged.

Each primitive of a question is recorded on one database and replayed on its neighbour
(tests/engine/record.py); then its noise is drawn again and again on both, and the attacker scores
all numbers of the transcript together by the likelihood ratio. Where the noise is Laplace's and the
patient moves one number as far as stated, nine tenths of the charge are proven, so the audit has
power; where several numbers share the charge, the same takes more runs.

Accuracy targets have an audit of their own (test_gradual_release.py), and so has the whole way from
a pilot to the answer under the bounds that it chose (test_adaptive_likelihood.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from engine import Engine
from engine.api import Settings
from engine.audit_epsilon import epsilon_below
from engine.execution import open_unpaid
from engine.split import Drawn, draw, refined
from mechanisms import gaussian, gradual, laplace
from mechanisms.randomness import Randomness
from planner.price import Mechanism
from planner.split import Split, reserved
from tests.audits.audit import Samples
from tests.audits.conftest import Figure
from tests.engine.record import Recording, asked, asked_together

DRAWS, LONG = 100_000, 1_000_000
EPSILON = 2.0
CELLS_MOST = 400  # differing cells that are drawn; the others only make the attack weaker
GREEDY, HEAVY = "with a greedy patient", "without the heavy patient"


@dataclass(frozen=True, slots=True)
class Class:
    """A class of questions: one of them, how it is asked, and the least share of the charge that
    DRAWS runs must prove."""

    sql: str | tuple[str, ...]
    least: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    change: str = GREEDY


BY = "SELECT department, {} FROM visits GROUP BY department"
GAUSSIAN, DECLARED = {"delta": 1e-6}, {"bounds": "declared"}
ONE, FEW = 0.9, 0.8  # where one number moves as far as stated, or a few do that share the charge
CLASSES = {
    "COUNT": Class("SELECT COUNT(*) FROM visits", ONE),
    "COUNT of values": Class("SELECT COUNT(los) FROM visits", ONE),
    "COUNT by groups": Class("SELECT sex, COUNT(*) FROM patients GROUP BY sex", ONE),
    "COUNT DISTINCT by groups, Gaussian": Class(
        "SELECT los, COUNT(DISTINCT patient_id) FROM visits GROUP BY los", settings=GAUSSIAN,
        change=HEAVY),
    "COUNT DISTINCT of patients": Class("SELECT COUNT(DISTINCT patient_id) FROM visits", ONE),
    "COUNT DISTINCT of values": Class("SELECT COUNT(DISTINCT diagnosis) FROM visits",
                                      settings=GAUSSIAN),
    "SUM": Class("SELECT SUM(cost) FROM visits", ONE),
    "SUM by groups": Class(BY.format("SUM(cost)")),
    "AVG": Class("SELECT AVG(cost) FROM visits", FEW, DECLARED),
    "AVG by groups": Class(BY.format("AVG(cost)")),
    "STDDEV": Class("SELECT STDDEV(cost) FROM visits", FEW),
    "CORR": Class("SELECT CORR(cost, los) FROM visits"),
    "MEDIAN": Class("SELECT MEDIAN(cost) FROM visits", FEW),
    "QUANTILE": Class(BY.format("QUANTILE_CONT(cost, 0.9)")),
    "MIN and MAX": Class("SELECT MIN(cost), MAX(cost) FROM visits", FEW),
    "MODE": Class("SELECT MODE(department) FROM visits"),
    "chosen keys": Class("SELECT diagnosis, COUNT(*) FROM visits GROUP BY diagnosis",
                         settings=GAUSSIAN),
    "a total for each patient": Class(
        "SELECT SUM(LEAST(c, 10)) FROM (SELECT patient_id, COUNT(*) AS c FROM visits "
        "GROUP BY patient_id) AS t", ONE),
    "JOIN": Class("SELECT COUNT(*) FROM visits JOIN labs USING (visit_id)"),
    "EXISTS": Class("SELECT COUNT(*) FROM patients p WHERE EXISTS (SELECT 1 FROM visits v "
                    "WHERE v.patient_id = p.patient_id)", ONE),
    "window": Class("SELECT COUNT(*) FROM (SELECT patient_id, ROW_NUMBER() OVER (PARTITION BY "
                    "patient_id ORDER BY visit_date) AS n FROM visits) AS t WHERE n = 1", ONE),
    "ROLLUP": Class("SELECT department, COUNT(*) FROM visits GROUP BY ROLLUP (department)"),
    "answer inside an answer": Class(
        "SELECT COUNT(*) FROM visits WHERE cost > (SELECT AVG(cost) FROM visits)", FEW,
        DECLARED),
    "clips that are chosen": Class(BY.format("SUM(cost)"), settings={"bounds": "auto"}),
    "averages that are chosen": Class("SELECT AVG(cost) FROM visits",
                                      settings={"bounds": "auto"}),
    "race to the top": Class("SELECT SUM(cost) FROM visits", settings={"bounds": "race"}),
    "batch": Class(("SELECT COUNT(*) FROM visits", "SELECT COUNT(*) FROM patients",
                    "SELECT SUM(cost) FROM visits"), FEW),
    "batch, Gaussian": Class((BY.format("COUNT(*), SUM(cost)"), "SELECT COUNT(*) FROM patients",
                              "SELECT sex, COUNT(*) FROM patients GROUP BY sex"),
                             settings=GAUSSIAN),
}


def recorded(
    clinics: dict[str, Engine], one: Class
) -> tuple[Recording, Recording, float, float]:
    """Run a question on both neighbours; return what was met and the charged epsilon and delta."""
    settings: dict[str, Any] = {"epsilon": EPSILON, "delta": 0.0, **one.settings}
    if isinstance(one.sql, str):
        ours = asked(clinics["base"], one.sql, **settings)
        theirs = asked(clinics[one.change], one.sql, ours, **settings)
        cost = clinics["base"].explain(one.sql, **settings).full_cost
    else:
        ours = asked_together(clinics["base"], one.sql, **settings)
        theirs = asked_together(clinics[one.change], one.sql, ours, **settings)
        cost = clinics["base"].explain_many(one.sql, **settings).full_cost
    assert ours.primitives
    assert not str(ours.result).startswith("failed")
    return ours, theirs, float(cost.epsilon), float(cost.exact_delta)


def differing(ours: Recording, theirs: Recording) -> list[tuple[Any, float, float]]:
    """Return mechanism, scale and distance of all cells in which the two databases differ.

    Of columns over chosen keys only the keys that were shown count: others are not there.
    """
    found = []
    for a, b in zip(ours.primitives, theirs.primitives, strict=True):
        _, _, mechanism, scale, *_ = a.public
        if mechanism is Mechanism.EXACT:
            continue
        apart = [b.given.get(k, 0) - a.given.get(k, 0) for k in a.given.keys() | b.given.keys()]
        found += [(mechanism, scale, float(x)) for x in apart if x]
    return sorted(found, key=lambda cell: -abs(cell[2]) / cell[1])[:CELLS_MOST]


def proven(cells: list[tuple[Any, float, float]], delta: float, shrink: float = 1.0,
           draws: int = DRAWS) -> float:
    """Draw all differing cells on both sides; return what the likelihood ratio proves."""
    chance, scores = Randomness.secure(), np.zeros((2, draws))
    for mechanism, scale, apart in cells:
        law = laplace if mechanism is Mechanism.LAPLACE else gaussian
        for side, moved in enumerate((0.0, apart)):
            seen = law.sample(scale, draws, chance) * shrink + moved
            if law is laplace:
                scores[side] += (np.abs(seen) - np.abs(seen - apart)) / scale
            else:
                scores[side] += (seen**2 - (seen - apart) ** 2) / (2 * scale**2)
    return epsilon_below(*scores, delta=delta)


def audited(
    name: str, clinics: dict[str, Engine], draws: int, figure: Figure
) -> tuple[float, float]:
    """Return the proven and the charged epsilon of a class; the first must not be above."""
    ours, theirs, charged, delta = recorded(clinics, CLASSES[name])
    cells = differing(ours, theirs)
    assert cells, "the neighbours do not differ in this question"
    found = proven(cells, delta, draws=draws)
    figure(f"epsilon proven by {draws:,} runs on either side: {name}",
           {"charged": round(charged, 4), "proven": round(found, 4)})
    assert found <= charged
    return found, charged


@pytest.mark.parametrize("name", CLASSES)
def test_nobody_proves_more_than_was_charged_for_any_class(
    name: str, clinics: dict[str, Engine], figure: Figure
) -> None:
    found, charged = audited(name, clinics, DRAWS, figure)
    assert found >= CLASSES[name].least * charged


@pytest.mark.audit
@pytest.mark.parametrize("name", CLASSES)
def test_nobody_proves_more_than_was_charged_for_any_class_at_length(
    name: str, clinics: dict[str, Engine], figure: Figure
) -> None:
    found, charged = audited(name, clinics, LONG, figure)
    if CLASSES[name].least:
        assert found >= 0.9 * charged


@pytest.mark.parametrize("name", ["COUNT", "AVG", "batch"])
def test_noise_that_is_too_small_is_found(name: str, clinics: dict[str, Engine]) -> None:
    ours, theirs, charged, delta = recorded(clinics, CLASSES[name])
    assert proven(differing(ours, theirs), delta, shrink=0.7) > charged


# ---- one epsilon, divided by the answers ---------------------------------------------------

DIVIDED = ("SELECT COUNT(*), SUM(cost) FROM visits", "SELECT COUNT(*), AVG(cost) FROM visits")
BLOCK = 2_000


def drawn(engine: Engine, sql: str) -> tuple[Split, Drawn]:
    """Read the columns of a divided question."""
    data = engine._data
    question = engine._divided(sql, Settings(EPSILON, 1e-6, split=True), data)
    reader = open_unpaid(reserved(question.split, frozenset()), data.database,
                         insecure_testing=True)
    return question.split, draw(question.split, {}, reader, Randomness.seeded(1))


def played(split: Split, ours: Drawn, theirs: Drawn, runs: int, shrink: float) -> Samples:
    """Divide the epsilon again and again on one side; score each transcript.

    What was revealed on the way follows from each column's last level, by coins that no row
    moves; so the attacker looks at the last numbers, and at how the epsilon was divided.
    """
    chance, found = Randomness.secure(), []
    for start in range(0, runs, BLOCK):
        noise = {key: gradual.sample(c.ladder.scales, len(c.keys) * BLOCK, chance)
                 for key, c in ours.cells.items()}
        for i in range(min(BLOCK, runs - start)):
            own = {key: noise[key][:, i * len(c.keys) : (i + 1) * len(c.keys)]
                   for key, c in ours.cells.items()}
            cells = {key: replace(c, noise=np.round(own[key] * shrink).astype(np.int64))
                     for key, c in ours.cells.items()}
            levels = refined(split, Drawn({}, cells))
            found.append(sum(score(c, levels[key], theirs.cells[key].exact)
                             for key, c in cells.items()))
    return np.array(found)


def score(cells: Any, level: int, others: tuple[int, ...]) -> float:
    """Return the log of how much likelier a column's last numbers are on its own side."""
    apart = np.array(others) - np.array(cells.exact)
    seen = cells.noise[level]
    return float((np.abs(seen - apart) - np.abs(seen)).sum() / cells.ladder.scales[level])


def proven_divided(
    clinics: dict[str, Engine], sql: str, runs: int, shrink: float = 1.0
) -> tuple[float, float]:
    """Return what the transcripts of a divided question prove, and the charge."""
    split, ours = drawn(clinics["base"], sql)
    _, theirs = drawn(clinics[GREEDY], sql)
    found = epsilon_below(played(split, ours, theirs, runs, shrink),
                          -played(split, theirs, ours, runs, shrink))
    return found, float(reserved(split, frozenset()).loss.epsilon)


def test_a_divided_epsilon_proves_no_more_than_was_charged(clinics: dict[str, Engine]) -> None:
    found, charged = proven_divided(clinics, DIVIDED[0], 500)
    assert charged == pytest.approx(EPSILON)
    assert found <= charged
    assert proven_divided(clinics, DIVIDED[0], 500, shrink=0.3)[0] > charged


@pytest.mark.audit
@pytest.mark.parametrize("sql", DIVIDED)
def test_a_divided_epsilon_proves_no_more_than_was_charged_at_length(
    sql: str, clinics: dict[str, Engine], figure: Figure
) -> None:
    found, charged = proven_divided(clinics, sql, DRAWS)
    figure(f"epsilon proven by {DRAWS:,} runs on either side: divided, {sql}",
           {"charged": round(charged, 4), "proven": round(found, 4)})
    assert 0.8 * charged <= found <= charged
