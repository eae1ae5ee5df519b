"""A SELECT of patients' rows in; its features, its label and the one statement that reads them out.

The view is bound by the same lines as a question (planner/bind.py), so it may join, filter,
aggregate within a patient and use windows within a patient exactly as a question may. Instead of
ending in a release it ends in a training run, which is priced in models/ and paid before a row
is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.bind import Context, bind_query
from planner.bounding import check_rows, check_size
from planner.catalog import Catalog, Kind
from planner.domain import MOMENTS, Domain, Type
from planner.emit import Printer, column_name, literal, printer_for
from planner.expression import Expression
from planner.feature import Coding, Feature, scaled_ends, seconds
from planner.functions.entry import number
from planner.order import order_of
from planner.parse import parse
from planner.refusal import Refused
from planner.relation import Relation, Release, kind_of, rows_max, unit_of, walk_relations

__all__ = [
    "BUCKETS_MAX", "CHOICES_MAX", "Coding", "Feature", "TrainingView", "bind_view", "scaled_ends",
    "seconds",
]

CHOICES_MAX = 1_000  # a longer list of categories is hashed into buckets
BUCKETS_MAX = 100_000
COLUMNS_MAX = 5_000


@dataclass(frozen=True, slots=True)
class TrainingView:
    """A bound view: its relation, its columns, and how many rows of one unit may count.

    Guarantee: every row of the relation belongs to exactly one unit, named by `unit_of`; the
    view depends on the text and the catalog only.
    """

    sql: str
    relation: Relation
    outputs: tuple[Expression, ...]  # features first, the label last
    features: tuple[Feature, ...]
    label: Feature
    rows: int

    @property
    def statement(self) -> str:
        """The statement: unit, one number (or image) per feature, the label; unit by unit."""
        return _statement(self)


def bind_view(
    sql: str, catalog: Catalog, label: str, rows: int | None, *, dialect: str = "duckdb",
    buckets: Mapping[str, int] | None = None,
) -> TrainingView:
    """Bind a training view.

    `rows` is how many rows of one patient may count (None: the default of its tables); `buckets`
    hashes named text columns. Raises Refused with rule, place and hint.
    """
    parsed = parse(sql, dialect)
    context = Context(catalog)
    try:
        found = bind_query(parsed.tree, context)
    except Refused as refusal:
        raise refusal.located(sql) from None
    except RecursionError:
        raise Refused("too-large", "the view is nested too deeply", "a simpler view", None,
                      sql) from None
    _check_rows(found.relation, context, sql)
    try:
        check_size(found.relation)
        allowed = check_rows(rows, found.relation)
    except Refused as refusal:
        raise refusal.located(sql) from None
    names = [name for name, _ in found.outputs]
    folded = [name.lower() for name in names]
    twice = next((name for name in names if folded.count(name.lower()) > 1), None)
    if twice is not None:
        raise Refused("ambiguous-column", f"the view has two columns {twice}",
                      "rename one with AS", None, sql)
    if len(names) > COLUMNS_MAX:
        raise Refused("too-large", f"the view has more than {COLUMNS_MAX:,} columns",
                      "fewer columns", None, sql)
    place = next((i for i, name in enumerate(folded) if name == label.lower()), None)
    if place is None:
        raise Refused("label", f"the view has no column {label}", ", ".join(names[:8]), None, sql)
    if len(names) < 2:
        raise Refused("training-view", "the view has a label and no feature",
                      "SELECT age, sex, readmitted FROM ...", None, sql)
    given = {name.lower(): count for name, count in (buckets or {}).items()}
    strange = sorted(set(given) - {name.lower() for name in names})
    if strange:
        raise Refused("training-view", f"buckets name {strange[0]}, which is no column of the "
                      "view", ", ".join(names[:8]), None, sql)
    columns = [_feature(name, e.domain, given.get(name.lower()), sql)
               for name, e in found.outputs]
    expressions = [e for _, e in found.outputs]
    target = columns.pop(place)
    outputs = (*expressions[:place], *expressions[place + 1 :], expressions[place])
    if target.coding not in (Coding.TRUTH, Coding.CHOICE, Coding.NUMBER):
        raise Refused("label", f"{label} is a {target.coding.value} column",
                      "a boolean, a category or a bounded number", None, sql)
    return TrainingView(sql, found.relation, outputs, tuple(columns), target, allowed)


def _check_rows(relation: Relation, context: Context, sql: str) -> None:
    if kind_of(relation) is not Kind.PROTECTED:
        raise Refused("training-view", "a training view selects patients' rows, not aggregates "
                      "over patients", "SELECT age, sex, readmitted FROM ...", None, sql)
    if context.givens or any(isinstance(n, Release) for n in walk_relations(relation)):
        raise Refused("training-view", "an aggregate over patients inside a training view is not "
                      "answered", "ask for it first, and write its answer as a constant", None,
                      sql)


def _feature(name: str, domain: Domain, buckets: int | None, sql: str) -> Feature:
    kind, nullable = domain.type, domain.nullable
    if buckets is not None:
        return _bucketed(name, domain, buckets, sql)
    if kind is Type.BOOLEAN:
        return Feature(name, Coding.TRUTH, nullable)
    if kind is Type.IMAGE and domain.shape is not None:
        return Feature(name, Coding.IMAGE, nullable, shape=domain.shape)
    values = domain.values
    listed = values is not None and 1 <= len(values) <= CHOICES_MAX
    if kind is Type.TEXT and listed and values is not None:
        return Feature(name, Coding.CHOICE, nullable,
                       values=tuple(v for v in values if isinstance(v, str)))
    if kind is Type.INTEGER and listed and values is not None and len(values) > 2:
        return Feature(name, Coding.CHOICE, nullable,
                       values=tuple(v for v in values if isinstance(v, int)))
    if domain.is_number and domain.interval is not None:
        return Feature(name, Coding.NUMBER, nullable, *domain.interval,
                       whole=kind is Type.INTEGER)
    if kind in MOMENTS and domain.low is not None and domain.high is not None:
        return Feature(name, Coding.MOMENT, nullable, seconds(domain.low), seconds(domain.high))
    raise Refused("training-view", f"{name} has no domain that encodes it", _hint(name, kind),
                  None, sql)


def _bucketed(name: str, domain: Domain, buckets: int, sql: str) -> Feature:
    if domain.type is not Type.TEXT:
        raise Refused("training-view", f"{name} is no text, so it is not hashed",
                      "buckets for text columns only", None, sql)
    if type(buckets) is not int or not 2 <= buckets <= BUCKETS_MAX:
        raise Refused("training-view", f"the buckets of {name} are a whole number from 2 to "
                      f"{BUCKETS_MAX:,}, got {buckets!r}", f"buckets={{'{name}': 64}}", None, sql)
    return Feature(name, Coding.BUCKETS, domain.nullable, buckets=buckets)


def _hint(name: str, kind: Type) -> str:
    if kind in (Type.UNIT, Type.KEY):
        return "leave out keys: they name a patient or a row and predict nothing"
    if kind is Type.TEXT:
        return (f"declare its categories in the policy, or hash it: buckets={{'{name}': 64}}")
    if kind in (Type.INTEGER, Type.REAL):
        return f"CLAMP({name}, 0, 100) AS {name}"
    return "a bounded number, a date, a boolean, a category or an image"


# ---- the statement ---------------------------------------------------------------------------


def _statement(view: TrainingView) -> str:
    """Print the rows of the view, at most `rows` a unit, each unit's rows together.

    Guarantee: which rows of a unit are kept, and in which order, depends on that unit's own rows
    only: they are ordered by the secret ranks that the snapshot gave them. Rows without a label
    are left out. No column can be NULL: what is missing is NaN, code 0, or an empty image.
    """
    unit = unit_of(view.relation)
    order = order_of(view.relation)
    printer = printer_for(view.relation, view.outputs, (unit, *order))
    shown = [f"{column_name(unit)} AS u"]
    for i, (feature, expression) in enumerate(
        zip((*view.features, view.label), view.outputs, strict=True)
    ):
        shown.append(f"{_coded(printer, feature, expression)} AS c{i + 1}")
    by = ", ".join(column_name(column) for column in (unit, *order))
    text = f"SELECT {', '.join(shown)} FROM {printer.relation(view.relation)}"
    if view.outputs[-1].domain.nullable:
        text += f" WHERE {printer.scalar(view.outputs[-1])} IS NOT NULL"
    known = rows_max(view.relation)
    if known is None or known > view.rows:
        within = ", ".join(column_name(column) for column in order) or "1"
        text += (f" QUALIFY row_number() OVER (PARTITION BY {column_name(unit)} ORDER BY {within})"
                 f" <= {view.rows}")
    return f"{text} ORDER BY {by}"


def _coded(printer: Printer, feature: Feature, expression: Expression) -> str:
    """Print a column as one DOUBLE (NaN: missing), one INTEGER code (0: missing) or a BLOB."""
    text = printer.scalar(expression)
    if feature.coding is Coding.TRUTH:
        return f"COALESCE(CAST(CAST({text} AS INTEGER) AS DOUBLE), 'nan'::DOUBLE)"
    if feature.coding is Coding.NUMBER:
        return f"COALESCE({number(text, expression)}, 'nan'::DOUBLE)"
    if feature.coding is Coding.MOMENT:
        return f"COALESCE(epoch(CAST({text} AS TIMESTAMP)), 'nan'::DOUBLE)"
    if feature.coding is Coding.CHOICE:
        listed = ", ".join(literal(value) for value in feature.values)
        return f"CAST(COALESCE(list_position([{listed}], {text}), 0) AS INTEGER)"
    if feature.coding is Coding.BUCKETS:
        digits = f"CAST('0x' || left(md5({text}), 12) AS BIGINT)"
        return f"CAST(COALESCE(1 + {digits} % {feature.buckets}, 0) AS INTEGER)"
    return f"COALESCE({text}, ''::BLOB)"
