"""What a question would do and cost, for people to read before they pay: text and facts out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import sqrt
from types import MappingProxyType

from mechanisms.loss import PrivacyLoss
from planner.bind import Bound
from planner.catalog import Kind
from planner.emit import outer_statement
from planner.expression import Call, Column, Expression, Literal, columns_of, walk
from planner.parse import pretty
from planner.price import Derived, Mechanism, NoisePlan, Priced, PricedRelease
from planner.relation import (
    Aggregate,
    Given,
    Mark,
    Measure,
    Release,
    Scan,
    Union,
    UnitAggregate,
    Window,
    walk_relations,
)
from planner.target_cost import TargetPlan
from planner.uncertainty import CONFIDENCE, confidence_of, totals_of

TYPICAL_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class PlannedRelease:
    """One noised column. `l1` and `l2` say how far one patient can move it, in its own units."""

    name: str
    mechanism: str
    scale: float
    step: float
    l1: float
    l2: float
    keys: str
    strategy: str
    bound: str
    half_width: float
    rejected: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """An explained question: free to ask, the same for every database of the same policy.

    `cost` is what asking now would charge, `full_cost` what it costs when nothing of it has been
    answered before. `expected_error` gives, for each output, the half-width of its 95 % interval
    (for an average: in a group of 1,000 rows), or None where the error depends on the answer.
    With `adapts`, bounds are still to be chosen from a pilot's answer, and the noise shown is that
    of the declared ones: narrower clips make it smaller, more rows of a patient larger, and the
    price stays. `chosen` says what was chosen. With `splits`, the epsilon is divided among the
    columns as their answers ask, and before that the noise shown is that of even shares.
    """

    question: str
    cost: PrivacyLoss
    full_cost: PrivacyLoss
    releases: tuple[PlannedRelease, ...]
    expected_error: Mapping[str, float | None]
    statements: tuple[str, ...] = field(repr=False)
    outer_statement: str = field(repr=False)
    groups: int | None = None
    road: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    adapts: bool = False
    splits: bool = False
    target: TargetPlan | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the plan as plain values, ready for JSON."""
        return {
            "question": self.question,
            "road": list(self.road),
            "releases": [asdict(release) for release in self.releases],
            "groups": self.groups,
            "adapts": self.adapts,
            "splits": self.splits,
            "chosen": list(self.chosen),
            "expected_error": dict(self.expected_error),
            "cost": _loss(self.cost),
            "full_cost": _loss(self.full_cost),
            "kept": self.kept,
            "sql": list(self.statements),
            "outer_sql": self.outer_statement,
            **({} if self.target is None else {"target": self.target.to_dict()}),
        }

    @property
    def sql(self) -> str:
        """The bounded statements that would run on the snapshot, printed over several lines."""
        return ";\n\n".join(pretty(statement) for statement in self.statements)

    @property
    def outer_sql(self) -> str:
        """The statement that would run on the released tables."""
        return pretty(self.outer_statement)

    @property
    def kept(self) -> bool:
        """Whether asking now would cost nothing, because everything was answered before."""
        return self.cost == PrivacyLoss.zero() != self.full_cost

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def describe(bound: Bound, priced: NoisePlan, question: str, cost: PrivacyLoss) -> Plan:
    """Put a bound and priced question into words and numbers."""
    outputs = bound.rows.outputs
    found: list[PlannedRelease] = []
    totals = totals_of(bound.rows.relation)
    for release in priced.releases:
        found.extend(_planned(release, outputs, totals))
    errors = {name: _error(expression, priced) for name, expression in outputs}
    statements = tuple(s.sql for r in priced.releases for s in r.statements)
    main = [r for r in priced.releases if r.bounded.release.source > 0]
    sizes = [None if r.bounded.keys is None else len(r.bounded.keys) for r in main]
    return Plan(
        question, cost, priced.loss, tuple(found), MappingProxyType(errors),
        statements, outer_statement(bound.rows.relation, outputs),
        sizes[0] if len(sizes) == 1 else None,
        tuple(line for release in main for line in _road(release)),
        tuple(word for release in priced.releases for word in release.words),
        any(release.pilot is not None for release in priced.releases),
    )


def _loss(loss: PrivacyLoss) -> dict[str, float]:
    return {"epsilon": loss.epsilon, "delta": loss.delta, "rdp": loss.rdp}


def _road(release: PricedRelease) -> list[str]:
    """Say what is read, whose it is, and what the groups are."""
    lines = []
    for node in walk_relations(release.bounded.release.input):
        if isinstance(node, Scan):
            rows = "one row a patient" if node.one_row else (
                f"at most {node.max_rows:,} rows a patient"
            )
            whose = rows if node.kind is Kind.PROTECTED else "no patient's data"
            lines.append(f"{node.table}: {node.kind.value}, {whose}")
        elif isinstance(node, UnitAggregate):
            lines.append("grouped by patient: protected, a computation within each patient")
        elif isinstance(node, Window):
            lines.append("windows within each patient: protected")
        elif isinstance(node, Mark):
            lines.append("EXISTS within each patient: protected")
        elif isinstance(node, Union):
            lines.append(f"UNION ALL of {len(node.branches)} parts: protected")
        elif isinstance(node, Given):
            lines.append("a released answer: public from here on")
    keys = release.bounded.keys
    if release.bounded.release.keys:
        count = "chosen privately" if keys is None else f"{len(keys):,}, known in public"
        lines.append(f"groups: {count}")
    return lines


def _planned(
    release: PricedRelease, outputs: tuple[tuple[str, Expression], ...],
    totals: Mapping[int, int],
) -> list[PlannedRelease]:
    keys = "public" if release.bounded.keys is not None else "selected"
    if release.bounded.release.source < 0:
        return [planned_column(
            f"pilot: {_histogram_of(m.bounded.measure, release.bounded.release)}", m, keys)
            for m in release.measures]
    names = measure_names(release.bounded.release, outputs, totals)
    found = [planned_column(names[i], m, keys) for i, m in enumerate(release.measures)]
    if release.selection is not None:
        found.insert(0, planned_column("choice of keys", release.selection, keys))
    return found


def _histogram_of(measure: Measure, release: Release) -> str:
    """Say what a pilot counts: patients by rows, totals or distances, or rows by values' sizes."""
    columns = () if measure.argument is None else columns_of(measure.argument)
    own = [column.name for column in columns if column.source > 0]
    if own:
        return f"sizes of {', '.join(own)}"
    asked, place = release.input, int(columns[0].name[1:]) - 1 if columns else 0
    if not isinstance(asked, UnitAggregate) or asked.items[place].function == "count":
        return "rows of a patient"
    (distance,) = asked.items[place].arguments
    values = ", ".join(c.name for c in columns_of(distance)) or "a value"
    if asked.items[place].function == "sum":
        return f"totals of {values}"
    origins = [n.value for n in walk(distance) if isinstance(n, Literal)]
    return f"mean distance of a patient's {values} from {origins[-1]:g}"


def planned_column(name: str, priced: Priced, keys: str) -> PlannedRelease:
    """Put one noised column into words and numbers."""
    step, words = priced.grid.step, priced.bounded.strategy.words()
    if isinstance(priced, Derived):
        words += f"; put together from what is measured by {priced.origin}"
    return PlannedRelease(
        name, priced.mechanism.value, priced.scale * step, step, priced.l1 * step,
        sqrt(priced.l2_squared) * step, keys, priced.bounded.strategy.shape.value,
        words, priced.half_width(CONFIDENCE),
        tuple((shape.value, why) for shape, why in priced.bounded.rejected),
    )


def measure_names(
    release: Release, outputs: tuple[tuple[str, Expression], ...],
    totals: Mapping[int, int] | None = None,
) -> tuple[str, ...]:
    """Name each measure by the output that shows it, or by what it measures.

    `totals` maps a ROLLUP's number to the release that it adds up.
    """
    names: dict[str, str] = {}
    own = {release.source, *(t for t, below in (totals or {}).items() if below == release.source)}
    for name, expression in outputs:
        if isinstance(expression, Column) and expression.source in own:
            names.setdefault(expression.name, name)
        if isinstance(expression, Call) and expression.function == "average":
            for part, argument in zip(("sum", "count"), expression.arguments, strict=False):
                if isinstance(argument, Column) and argument.source in own:
                    names.setdefault(argument.name, f"{name}.{part}")
    for name, expression in outputs:
        for column in columns_of(expression):
            if column.source in own:
                _name_parts(names, name, column, release)
    return tuple(
        names.get(f"m{i + 1}", f"{label_of(m)}, part {i + 1}")
        for i, m in enumerate(release.measures)
    )


def _name_parts(names: dict[str, str], name: str, column: Column, release: Release) -> None:
    """Name the measures behind a quantile, a statistic or a part of a formula."""
    kind, place = column.name[:1], column.name[1:]
    if not place.isdigit():
        return
    if kind == "q":
        names.setdefault(f"m{release.quantiles[int(place) - 1].place + 1}", f"{name}.counts")
    elif kind == "d":
        for i, measure in enumerate(columns_of(release.derived[int(place) - 1])):
            names.setdefault(measure.name, f"{name}.{i + 1}")
    elif kind == "m":
        label = label_of(release.measures[int(place) - 1])
        names.setdefault(column.name, f"{name}: {label}")


def label_of(measure: object) -> str:
    """Name a measure by what it measures."""
    aggregate = getattr(measure, "aggregate", None)
    argument = getattr(measure, "argument", None)
    inner = argument.name if isinstance(argument, Column) else "expression"
    if aggregate is Aggregate.SUM:
        return f"sum({inner})"
    if aggregate is Aggregate.DISTINCT:
        return f"count(distinct {inner})"
    return "count(distinct patient)" if aggregate is Aggregate.UNITS else "count"


def _error(expression: Expression, priced: NoisePlan) -> float | None:
    for release in priced.releases:
        source = release.bounded.release.source
        if isinstance(expression, Column) and expression.source == source:
            if expression.name.startswith("m"):
                if release.measures[int(expression.name[1:]) - 1].bounded.is_race:
                    return None  # which truncation wins depends on the answer
                return release.measures[int(expression.name[1:]) - 1].half_width(CONFIDENCE)
            return None
        if isinstance(expression, Call) and expression.function == "average":
            total = expression.arguments[0]
            if isinstance(total, Column) and total.source == source:
                measure = release.measures[int(total.name[1:]) - 1]
                return measure.half_width(confidence_of(2)) / TYPICAL_ROWS
    return None


def _lines(plan: Plan) -> list[str]:
    lines = ["plan"]
    if not plan.releases:
        lines.append("  reads no patient's data: free")
    lines.extend(f"  reads          {line}" for line in plan.road if not line.startswith("groups"))
    for release in plan.releases:
        lines.append(f"  {release.name}")
        lines.append(f"    bounded by   {release.strategy}: {release.bound}")
        lines.extend(f"    not taken    {shape}: {why}" for shape, why in release.rejected
                     if shape != "few rows per patient")
        lines.append(f"    one patient  moves it by at most {release.l1:,.6g} "
                     f"(L2 {release.l2:,.6g})")
        if release.mechanism == Mechanism.EXACT.value:
            lines.append("    noise        none: no row can move it")
        else:
            lines.append(f"    noise        {release.mechanism}, scale {release.scale:,.6g}, on "
                         f"a grid of {release.step:g}; 95 % within {release.half_width:,.4g}")
    keys = {release.keys for release in plan.releases}
    if "selected" in keys:
        lines.append("  groups         chosen privately: small groups are not shown")
    elif plan.groups is not None and plan.groups > 1:
        lines.append(f"  groups         {plan.groups:,} public ones, each answered, empty or not")
    for name, error in plan.expected_error.items():
        if error is not None:
            lines.append(f"  expected error {name}: +- {error:,.4g} (95 %)")
    if plan.adapts:
        lines.append("  bounds         chosen from the pilot's answer, at this price; the noise "
                     "above is that of the declared ones")
    if plan.splits and not plan.chosen:
        lines.append("  split          columns are revealed coarsely, then refined where the error "
                     "is worst, at this price; the noise above is that of even shares")
    lines.extend(f"  chosen         {word}" for word in plan.chosen)
    lines.extend([] if plan.target is None else plan.target.lines())
    lines.append(f"  price          {plan.full_cost}")
    if plan.kept:
        lines.append("  to pay now     nothing: answered before, the same answer is given again")
    elif plan.cost != plan.full_cost:
        lines.append(f"  to pay now     {plan.cost} (the rest was answered before)")
    return lines


__all__ = ["Plan", "PlannedRelease", "describe", "measure_names"]
