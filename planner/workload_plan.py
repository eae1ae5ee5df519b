"""A workload in, what it would do and cost out, for people to read before they pay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mechanisms.loss import PrivacyLoss
from planner.parse import pretty
from planner.plan import Plan, describe, label_of
from planner.price import Mechanism, PricedRelease, answer_keys
from planner.uncertainty import CONFIDENCE
from planner.workload import Workload, level_name, view_of

QUESTION_SHOWN = 72


@dataclass(frozen=True, slots=True)
class WorkloadPlan:
    """Several explained questions: free to ask, the same for every database of one policy.

    `questions` are their plans one by one; the price of each is that of all together. `releases`
    are the columns that are measured, each paid once; `shares` gives each one's share of the
    price. `cost` is what asking now would charge, `full_cost` with nothing answered before.
    """

    questions: tuple[Plan, ...]
    releases: tuple[tuple[str, float], ...]
    cost: PrivacyLoss
    full_cost: PrivacyLoss
    mechanism: str
    statements: tuple[str, ...] = field(repr=False)

    @property
    def chosen(self) -> tuple[str, ...]:
        """What pilots chose: nothing, a batch has none."""
        return ()

    @property
    def kept(self) -> bool:
        """Whether asking now would cost nothing, because everything was answered before."""
        return self.cost == PrivacyLoss.zero() != self.full_cost

    @property
    def sql(self) -> str:
        """The statements that would run on the snapshot, printed over several lines."""
        return ";\n\n".join(pretty(statement) for statement in self.statements)

    @property
    def expected_error(self) -> tuple[Mapping[str, float | None], ...]:
        """The half-width of each output's 95 % interval, question by question."""
        return tuple(plan.expected_error for plan in self.questions)

    def to_dict(self) -> dict[str, object]:
        """Return the plan as plain values, ready for JSON."""
        return {
            "questions": [plan.to_dict() for plan in self.questions],
            "releases": [{"name": name, "share": share} for name, share in self.releases],
            "mechanism": self.mechanism,
            "cost": loss_values(self.cost),
            "full_cost": loss_values(self.full_cost),
            "kept": self.kept,
            "sql": list(self.statements),
        }

    def __str__(self) -> str:
        count = len(self.questions)
        lines = [f"plan of {count} question{'s' if count > 1 else ''} at one price"]
        if not self.releases:
            lines.append("  reads no patient's data: free")
        for name, share in self.releases:
            lines.append(f"  {share:6.1%} of it to {name}")
        if self.releases:
            lines.append(f"  noise          {self.mechanism}, the better of two by predicted error")
        for number, plan in enumerate(self.questions, start=1):
            lines.append(f"  {number:>3}  {shortened(plan.question)}")
            lines.extend(f"       expected error {name}: +- {error:,.4g} (95 %)"
                         for name, error in plan.expected_error.items() if error is not None)
        lines.append(f"  price          {self.full_cost} for all together")
        if self.kept:
            lines.append("  to pay now     nothing: answered before, the same answers are given "
                         "again")
        elif self.cost != self.full_cost:
            lines.append(f"  to pay now     {self.cost} (the rest was answered before)")
        return "\n".join(lines)


def describe_workload(workload: Workload, cost: PrivacyLoss) -> WorkloadPlan:
    """Put a priced workload into words and numbers; `cost` is what asking now would charge."""
    plan = workload.plan
    questions = tuple(
        describe(one.bound, view_of(workload, number), one.sql, cost)
        for number, one in enumerate(workload.asked)
    )
    measured = dict(entry for release in plan.releases for entry in _shares(release, workload))
    statements = tuple(dict.fromkeys(s.sql for r in plan.releases for s in r.statements))
    return WorkloadPlan(questions, tuple(measured.values()), cost, plan.loss,
                        plan.terms.mechanism.value, statements)


def _shares(
    release: PricedRelease, workload: Workload
) -> list[tuple[str, tuple[str, float]]]:
    """Name the columns of a release, with their shares of the price, by their keys."""
    found = [
        (c.key, (f"{label_of(c.bounded.measure)} by {level_name(release)}: 95 % within "
         f"{c.half_width(CONFIDENCE):,.4g}", float(workload.shares[c.key])))
        for c in release.measures if c.mechanism is not Mechanism.EXACT
    ]
    if release.selection is not None:
        share = workload.shares[answer_keys(release.bounded)[-1]]
        name = f"the choice of keys by {level_name(release)}"
        found.insert(0, (release.selection.key, (name, float(share))))
    return found


def loss_values(loss: PrivacyLoss) -> dict[str, float]:
    """Return a price as plain values."""
    return {"epsilon": loss.epsilon, "delta": loss.delta, "rdp": loss.rdp}


def shortened(question: str) -> str:
    """Return a question on one line, cut where it is long."""
    line = " ".join(question.split())
    return line if len(line) <= QUESTION_SHOWN else line[: QUESTION_SHOWN - 3] + "..."
