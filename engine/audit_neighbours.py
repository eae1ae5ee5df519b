"""A snapshot and questions in; whether leaving one patient out moves them further than stated.

A neighbour is the snapshot as seen without one patient: views over the same file, no copy. The
ranks of everybody else's rows are what they would be without that patient (privacy.md, the
governed copy), so these views are what a snapshot without the patient would hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from engine.audit_findings import Finding, Level
from engine.audit_replay import Run, distances, run_exactly, violations
from engine.database import DatabaseFailure, open_without, quoted, run
from engine.releases import Public
from engine.snapshot import Snapshot
from mechanisms.filter import Filter
from mechanisms.randomness import Randomness
from planner.bind import Bound, bind
from planner.bounding import bound as bound_release
from planner.catalog import Kind
from planner.parse import parse
from planner.pilot import Bounds, pilots_of
from planner.policy import Policy
from planner.price import NoisePlan, price
from planner.refusal import Refused

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SECTION = "neighbours"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is audited: a policy and a snapshot of its database, with nothing to pay from."""

    policy: Policy
    snapshot: Snapshot
    database: DuckDBPyConnection = field(repr=False)
    public: Public = field(repr=False)

    def plan(self, sql: str) -> tuple[Bound, NoisePlan]:
        """Plan a question at the policy's default price, as the engine would."""
        budget, catalog = self.policy.budget, self.snapshot.catalog
        bound = bind(parse(sql, "duckdb"), catalog)
        bounded = tuple(bound_release(release, None) for release in bound.releases)
        pilots = pilots_of(bounded, bound, catalog, Bounds.DEFAULT, None)
        order = Filter.for_budget(budget.epsilon, budget.delta).order
        return bound, price(bounded, Fraction(self.policy.defaults.epsilon),
                            Fraction(self.policy.query_delta()), order, pilots=pilots)

    @property
    def tables(self) -> tuple[tuple[str, bool], ...]:
        """Every table of the snapshot, and whether its rows belong to patients."""
        return tuple((t.name, t.kind is Kind.PROTECTED) for t in self.snapshot.catalog.tables)


@dataclass(frozen=True, slots=True)
class Planned:
    """One question of the steward's file, planned."""

    sql: str
    bound: Bound
    plan: NoisePlan


def neighbour_findings(
    subject: Subject, questions: Sequence[Planned], neighbours: int
) -> Iterator[Finding]:
    """Replay every question without some patients: the heaviest, the lightest, and by chance.

    Guarantee: exact numbers stay in here; a finding names the question and the patient's place
    in the choice, not the patient.
    """
    units = chosen_units(subject, neighbours)
    if not units or not questions:
        yield Finding(SECTION, Level.NOTE, "questions", "nothing to replay: no patients or no "
                      "question was given", "-f queries.sql")
        return
    first = {q.sql: _run(q, subject.database, subject.public) for q in questions}
    worst: dict[str, float] = dict.fromkeys(first, 0.0)
    for words, unit in units:
        with closing(open_without(subject.snapshot.path, subject.tables, unit)) as database:
            for question in questions:
                sql, one = question.sql, first[question.sql]
                two = None if one is None else _run(question, database, subject.public, one)
                if one is None or two is None:
                    yield Finding(SECTION, Level.BROKEN, sql, "fails on these rows, or without "
                                  f"{words}: whether it fails may tell of a patient",
                                  "report it, with a made-up table", private=True)
                    continue
                for problem in violations(one, two):
                    yield Finding(SECTION, Level.BROKEN, sql, f"without {words}: {problem}",
                                  "report it: this breaks the promise", private=True)
                worst[sql] = max(worst[sql], _share(one, two))
    for sql, share in worst.items():
        yield Finding(SECTION, Level.FINE, sql, f"{len(units)} patients left out one by one; the "
                      f"furthest moved it by {share:.0%} of what is paid for", private=True)


def chosen_units(subject: Subject, count: int) -> list[tuple[str, int]]:
    """Return patients to leave out, each with what it was chosen for."""
    parts = " UNION ALL ".join(
        f"SELECT __u AS u FROM {quoted(name)}" for name, own in subject.tables if own)
    sql = f"SELECT u FROM ({parts}) GROUP BY u ORDER BY COUNT(*) DESC, u"
    rows = run(subject.database, sql).rows
    units = [int(row[0]) for row in rows]
    if not units:
        return []
    found = {units[0]: "the patient with the most rows"}
    found.setdefault(units[-1], "the patient with the fewest rows")
    chance = Randomness.secure()
    while len(found) < min(count, len(units)):
        found.setdefault(units[chance.integer_below(len(units))], f"a patient by chance "
                         f"({len(found) + 1})")
    return [(words, unit) for unit, words in found.items()]


def plan_questions(
    subject: Subject, questions: Sequence[str]
) -> tuple[list[Planned], list[Finding]]:
    """Plan each question; a refusal is a finding."""
    planned, refused = [], []
    for sql in dict.fromkeys(questions):
        try:
            planned.append(Planned(sql, *subject.plan(sql)))
        except Refused as refusal:
            refused.append(Finding(SECTION, Level.NOTE, sql, f"is refused: {refusal.message}",
                                   refusal.hint))
    return planned, refused


def _run(
    question: Planned, database: DuckDBPyConnection, public: Public, like: Run | None = None
) -> Run | None:
    try:
        return run_exactly(question.bound, question.plan, database, public, like)
    except DatabaseFailure:
        return None


def _share(one: Run, two: Run) -> float:
    """Return how much of its stated L1 sensitivity the column used that moved furthest."""
    shares = [
        distances(a, b)[0] / column.l1
        for (_, column, a), (_, _, b) in zip(one.vectors, two.vectors, strict=True) if column.l1
    ]
    return max(shares, default=0.0)


__all__ = ["Planned", "Subject", "chosen_units", "neighbour_findings", "plan_questions"]
