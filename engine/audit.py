"""A policy file in; what an attacker and a careful reader would find in it, out.

A steward's command: it reads rows without noise, so what it finds of them is for the steward only,
and each finding says whether it is. It writes nothing into the source, the ledger or its budget.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from engine.audit_epsilon import Proven, proven_epsilon
from engine.audit_findings import Finding, Level
from engine.audit_neighbours import Planned, Subject, neighbour_findings, plan_questions
from engine.audit_policy import data_findings, policy_findings
from engine.audit_reconstruction import Simulated, simulated
from engine.database import open_desk, open_governed, quoted
from engine.errors import LedgerError
from engine.ledger import Ledger
from engine.releases import Public
from engine.snapshot import ensure
from mechanisms.randomness import Randomness
from planner.policy import Policy, read_policy
from planner.price import Mechanism, Priced

Progress = Callable[[str, int, int], None]
MECHANISMS_MAX = 12  # different noises that are drawn again and again
SECONDS_MAX = 600.0
PATIENTS_MOST = 256


@dataclass(frozen=True, slots=True)
class Settings:
    """How much work an audit may be."""

    neighbours: int = 5
    draws: int = 200_000
    patients: int = 128

    def __post_init__(self) -> None:
        for name, least, most in (("neighbours", 1, 10_000), ("draws", 1_000, 50_000_000),
                                  ("patients", 8, PATIENTS_MOST)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be a whole number from {least} to {most:,}, got "
                                 f"{getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found, in sections; `proven` and `attack` are for pictures."""

    policy: str
    epsilon: float
    delta: float
    findings: tuple[Finding, ...]
    proven: tuple[Proven, ...]
    attack: Simulated

    @property
    def worst(self) -> Level:
        """The worst level of all findings."""
        order = list(Level)
        return min((f.level for f in self.findings), key=order.index, default=Level.FINE)


def audit(
    path: Path, questions: Sequence[str] = (), settings: Settings | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Audit a policy, its database and its ledger; without questions, one count of each table.

    Guarantee: spends no budget and keeps no answer: the snapshot it reads is made anew in a
    temporary folder and goes with it; the ledger is opened only if there is one, and verified as
    any opening does. Raises PolicyError or SnapshotError.
    """
    chosen, step = settings or Settings(), progress or (lambda name, done, total: None)
    policy = read_policy(path)
    findings = list(policy_findings(policy))
    step("ledger", 1, 5)
    findings += _ledger_findings(policy)
    with tempfile.TemporaryDirectory(prefix="discreet-audit-") as folder:
        secret = Randomness.secure().bytes(32)
        step("snapshot", 2, 5)
        snapshot = ensure(policy, secret=secret, directory=folder, insecure=True)
        with closing(open_governed(snapshot.path, "4GB", 1, SECONDS_MAX)) as database, \
                closing(open_desk()) as desk:
            subject = Subject(policy, snapshot, database, Public(desk, database))
            findings += data_findings(policy, snapshot, database)
            asked = questions or _counts(subject)
            planned, refused = plan_questions(subject, asked)
            findings += refused
            step("neighbours", 3, 5)
            findings += neighbour_findings(subject, planned, chosen.neighbours)
            patients = min(chosen.patients, max(8, snapshot.report.units))
    step("noise", 4, 5)
    proven = _proven(planned, chosen.draws)
    findings += map(_proven_finding, proven)
    step("reconstruction", 5, 5)
    attack = simulated(policy.budget.epsilon, policy.budget.delta, patients, 4 * patients)
    findings.append(_attack_finding(attack, float(policy.budget.epsilon)))
    return Audit(str(path), float(policy.budget.epsilon), float(policy.budget.delta),
                 tuple(findings), tuple(proven), attack)


def _counts(subject: Subject) -> list[str]:
    return [f"SELECT COUNT(*) FROM {quoted(name)}" for name, own in subject.tables if own]


def _ledger_findings(policy: Policy) -> list[Finding]:
    """Replay the ledger: hashes, sums, losses, and that the budget admitted every charge."""
    where = policy.ledger_url()
    if isinstance(where, Path) and not where.exists():
        return [Finding("ledger", Level.NOTE, where.name, "there is none yet; it is made when the "
                        "policy is first opened")]
    try:
        with Ledger.open(where, policy.budget.epsilon, policy.budget.delta,
                         witness=policy.witness_path()) as ledger:
            count, spent = ledger.verify(), ledger.spent()
    except LedgerError as error:
        return [Finding("ledger", Level.BROKEN, str(where), str(error))]
    name = where.name if isinstance(where, Path) else "the ledger"
    return [Finding("ledger", Level.FINE, name, f"{count:,} entries verified: hashes, sums and "
                    f"prices are exact; spent {spent}")]


def _proven(planned: Sequence[Planned], draws: int) -> list[Proven]:
    """Audit every different noise of the questions, the noisiest first."""
    different: dict[tuple[Mechanism, float], tuple[Priced, Planned]] = {}
    for question in planned:
        for release in question.plan.releases:
            for column in (*release.measures, *([release.selection] if release.selection else [])):
                if column.mechanism is not Mechanism.EXACT:
                    ratio = round(column.scale / column.l1, 9)
                    different.setdefault((column.mechanism, ratio), (column, question))
    randomness = Randomness.secure()
    return [
        proven_epsilon(question.sql, column, question.plan.terms.delta, draws, randomness)
        for column, question in list(different.values())[:MECHANISMS_MAX]
    ]


def _proven_finding(proven: Proven) -> Finding:
    words = (f"{proven.mechanism} noise of scale {proven.scale:.4g}: from {proven.draws:,} draws "
             f"epsilon {proven.proven:.4g} is certain, and {proven.charged:.4g} is paid")
    if proven.holds:
        return Finding("noise", Level.FINE, proven.name, words)
    return Finding("noise", Level.BROKEN, proven.name, words, "report it: this breaks the promise")


def _attack_finding(attack: Simulated, epsilon: float) -> Finding:
    subject = f"{attack.patients} synthetic patients, {attack.questions:,} counts"
    words = (f"with this budget an attacker guesses {attack.with_budget:.0%} of the bits right "
             f"(a coin: 50 % ± {attack.margin:.0%}); with noise and no budget "
             f"{attack.without_budget:.0%}")
    if attack.with_budget > 0.75 + attack.margin:
        return Finding("reconstruction", Level.WARNING, subject, words,
                       f"a total well below epsilon {epsilon:g}")
    return Finding("reconstruction", Level.FINE, subject, words)


__all__ = ["Audit", "Settings", "audit"]
