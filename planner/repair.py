"""A refused question and the catalog in, the nearest question that is accepted out.

The search is over texts: a question is edited where its refusal points, and what is refused again
is edited again, cheapest first. Nothing is proposed that the planner has not accepted.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import count

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from planner.catalog import Catalog, Kind
from planner.domain import MOMENTS, Type
from planner.parse import parse
from planner.refusal import Position, Refused
from planner.spellings import FALLBACK

TEXT_MAX = 5_000  # characters; nobody looks for the mistake of a longer one in a rewritten text
TRIES_MAX = 40  # texts that are planned before the search gives up
READ_MAX = 12_000  # characters of them in all

# Raises Refused for what is not accepted; what it returns does not matter.
Judge = Callable[[str], object]
Edit = tuple[int, exp.Expr]  # how much of the question is lost, and what is left


def taught(
    refusal: Refused, sql: str, catalog: Catalog, judge: Judge, dialect: str = "duckdb"
) -> Refused:
    """Return a refusal with the user's text and the nearest one that is accepted.

    Where a question was translated, its places are those of the translation, which is kept.
    """
    return refusal.located(
        refusal.sql or sql, repaired(sql, refusal, catalog, judge, dialect)
    )


def repaired(sql: str, refusal: Refused, catalog: Catalog, judge: Judge, dialect: str) -> str:
    """Return the nearest question found that the judge accepts, or "" if there is none.

    Guarantee: depends on the text, the catalog and the judge, which is a planner's; no row is
    read. About TRIES_MAX texts are judged at most.
    """
    if not isinstance(sql, str) or len(sql) > TEXT_MAX or refusal.rule == "too-large":
        return ""
    plainest = _plainest(sql, catalog, judge)
    if not plainest:
        return ""  # it is not the text that is refused
    order = count()
    waiting = [(0, next(order), sql, refusal)]
    seen, read = {sql}, 0
    while waiting and len(seen) < TRIES_MAX and read < READ_MAX:
        cost, _, text, problem = heapq.heappop(waiting)
        for more, tree in _edits(text, problem, catalog, dialect):
            edited = _written(tree, dialect)
            if not edited or edited in seen or len(seen) >= TRIES_MAX:
                continue
            seen.add(edited)
            read += len(edited)
            try:
                judge(edited)
            except Refused as next_problem:
                heapq.heappush(waiting, (cost + more, next(order), edited, next_problem))
            else:
                return edited
    return plainest


def _plainest(sql: str, catalog: Catalog, judge: Judge) -> str:
    """Return a count of the first protected table that is named, or of any: the last resort."""
    names = [t.name for t in catalog.tables if t.kind is Kind.PROTECTED]
    named = sorted((n for n in names if n.lower() in sql.lower()), key=sql.lower().index)
    for name in (*named, *names)[:3]:
        text = exp.select("COUNT(*)").from_(exp.to_identifier(name)).sql("duckdb")
        try:
            judge(text)
        except Refused:
            continue
        return text
    return ""


def _written(tree: exp.Expr, dialect: str) -> str:
    """Return the text of a question, "" for one that cannot be written or reads no table."""
    if tree.find(exp.Table) is None:
        return ""
    try:
        return tree.sql(dialect)
    except (SqlglotError, ValueError, RecursionError):
        return ""


def _edits(sql: str, problem: Refused, catalog: Catalog, dialect: str) -> Iterator[Edit]:
    """Propose questions with one edit, each a tree of its own, the cheapest first."""
    try:
        tree = _read(sql, dialect)
    except (SqlglotError, RecursionError, Refused):
        return
    if problem.rule == "syntax":
        yield 1, tree
        return
    place = _Place.at(tree, problem.position, sql)
    edits = [*_by_rule(tree, problem, place, catalog), *_without(tree, place)]
    yield from sorted(edits, key=lambda edit: edit[0])


def _read(sql: str, dialect: str) -> exp.Expr:
    """Return the tree of a question; of one that is no SQL, what the parser makes of it."""
    try:
        return parse(sql, dialect).tree
    except Refused as refusal:
        found = sqlglot.parse(sql, dialect=dialect, error_level=sqlglot.ErrorLevel.IGNORE)
        selects = [t for t in found if isinstance(t, exp.Select | exp.SetOperation)]
        if not selects:
            raise refusal from None
        return selects[0]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a refusal points: the paths of the node there and of those around it, inmost first."""

    paths: tuple[tuple[tuple[str, int | None], ...], ...]

    @classmethod
    def at(cls, tree: exp.Expr, position: Position | None, sql: str) -> _Place:
        """Find the first node that was written there; nothing there means the whole question."""
        found = [] if position is None else [
            node for node in tree.walk() if node.meta.get("line") == position.line
            and node.meta["col"] - (node.meta["end"] - node.meta["start"]) == position.column
        ]
        node: exp.Expr | None = found[-1] if found else None
        if node is None:
            node = tree
        paths = []
        while node is not None:
            paths.append(_path(node))
            node = node.parent
        return cls(tuple(paths))


def _path(node: exp.Expr) -> tuple[tuple[str, int | None], ...]:
    steps: list[tuple[str, int | None]] = []
    current = node
    while current.parent is not None:
        steps.append((str(current.arg_key), current.index))
        current = current.parent
    return tuple(reversed(steps))


def _copy_at(tree: exp.Expr, path: tuple[tuple[str, int | None], ...]) -> exp.Expr:
    """Return, in a fresh copy of the tree, the node at a path."""
    node = tree.copy()
    for name, index in path:
        value = node.args[name]
        node = value if index is None else value[index]
    return node


def _size(node: exp.Expr) -> int:
    return sum(1 for _ in node.walk())


# ---- leaving out ---------------------------------------------------------------------------


def _without(tree: exp.Expr, place: _Place) -> Iterator[Edit]:
    """Leave out what is refused, or more and more of what stands around it."""
    for path in place.paths:
        for edit in (_left_out, _unwrapped):
            node = _copy_at(tree, path)
            root, before = node.root(), _size(node.root())
            changed = edit(node, root)
            if changed is not None:
                yield 2 + before - _size(changed), changed
    for path in [_path(part) for part in _optional(tree)]:
        node = _copy_at(tree, path)
        root, before = node.root(), _size(node.root())
        node.pop()
        yield 3 + before - _size(root), root


def _left_out(node: exp.Expr, root: exp.Expr) -> exp.Expr | None:
    """Return the question without one condition, output, key, join or clause."""
    parent = node.parent
    if parent is None:
        return None
    if isinstance(parent, exp.And | exp.Or):
        parent.replace(parent.right if node.arg_key == "this" else parent.left)
    elif isinstance(parent, exp.Where | exp.Having | exp.Qualify):
        parent.pop()
    elif isinstance(parent, exp.Select | exp.Group | exp.Order | exp.With):
        several = parent.args.get(str(node.arg_key))
        if isinstance(several, list) and len(several) == 1:
            if isinstance(parent, exp.Select) and node.arg_key == "expressions":
                node.replace(exp.Count(this=exp.Star()))
            elif isinstance(parent, exp.Select):
                node.pop()
            else:
                parent.pop()
        elif node.arg_key in ("from_", "from"):
            return None
        else:
            node.pop()
    elif isinstance(node, exp.Order | exp.Limit | exp.Offset | exp.Join | exp.TableSample):
        node.pop()
    else:
        return None
    return root


def _unwrapped(node: exp.Expr, root: exp.Expr) -> exp.Expr | None:
    """Return the question with a function's first argument that names a column in its place."""
    if not isinstance(node, exp.Func | exp.Binary | exp.Unary) or node.parent is None:
        return None
    inner = [child for child in node.iter_expressions() if child.find(exp.Column) is not None]
    if not inner:
        return None
    node.replace(inner[0])
    return root


def _optional(tree: exp.Expr) -> list[exp.Expr]:
    """List what a question can do without, wherever it stands."""
    return [
        node for node in tree.walk() if node.parent is not None and isinstance(
            node, exp.Order | exp.Limit | exp.Offset | exp.Having | exp.Qualify | exp.Where)
    ]


# ---- saying it otherwise -------------------------------------------------------------------


def _by_rule(
    tree: exp.Expr, problem: Refused, place: _Place, catalog: Catalog
) -> Iterator[Edit]:
    """Propose what a rule's own remedy is."""
    for path in place.paths:
        node = _copy_at(tree, path)
        for change in _REMEDIES.get(problem.rule, ()):
            for wanted in change(node, problem, catalog):
                changed = _replaced(tree, path, wanted)
                if changed is not None:
                    yield 1, changed


def _replaced(
    tree: exp.Expr, path: tuple[tuple[str, int | None], ...], wanted: exp.Expr
) -> exp.Expr | None:
    if not path:
        return wanted.copy()
    node = _copy_at(tree, path)
    root = node.root()
    node.replace(wanted.copy())
    return root


def _other_columns(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    if not isinstance(node, exp.Column):
        return
    names = [column.name for table in catalog.tables for column in table.columns]
    near = get_close_matches(node.name.lower(), [name.lower() for name in names], 2, 0.6)
    hinted = [name.strip() for name in problem.hint.split(",")] if problem.hint else []
    for name in dict.fromkeys((*(h for h in hinted if h in near), *near)):
        yield exp.column(name, table=node.table or None)


def _qualified(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    if isinstance(node, exp.Column):
        for owner in problem.hint.split(","):
            table, _, name = owner.strip().partition(".")
            yield exp.column(name, table=table)


def _other_tables(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    if isinstance(node, exp.Table):
        names = [table.name for table in catalog.tables]
        for name in get_close_matches(node.name, names, 2, 0.5):
            yield exp.alias_(exp.table_(name), node.alias or node.name, table=True)


def _unqualified(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    if isinstance(node, exp.Table) and catalog.table(node.name) is not None:
        yield exp.alias_(exp.table_(node.name), node.alias or None, table=True)


def _named_apart(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    if isinstance(node, exp.Table):
        yield exp.alias_(exp.table_(node.name), f"{node.name}_2", table=True)


def _listed_functions(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    """The hint of an unknown function is SQL, where there is one."""
    if isinstance(node, exp.Func) and problem.hint not in ("", FALLBACK):
        try:
            yield sqlglot.parse_one(problem.hint, dialect="duckdb")
        except SqlglotError:
            return


def _other_aggregates(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    if isinstance(node, exp.Func):
        columns = list(node.find_all(exp.Column))[:1]
        for column in columns:
            yield exp.Avg(this=column.copy())
            yield exp.Anonymous(this="MODE", expressions=[column.copy()])
            yield exp.Count(this=column.copy())


def _clamped(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    if isinstance(node, exp.AggFunc) and isinstance(node.this, exp.Expr):
        bounded = node.copy()
        bounded.this.replace(exp.Anonymous(this="CLAMP", expressions=[
            node.this.copy(), exp.Literal.number(0), exp.Literal.number(100)]))
        yield bounded


def _grouped(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    """A bare column becomes a key, or is averaged."""
    if isinstance(node, exp.Select):
        bare = [
            output.unalias() for output in node.selects
            if output.find(exp.AggFunc) is None and output.find(exp.Column) is not None
        ]
        if bare:
            keyed = node.copy()
            known = keyed.args.get("group")
            keys = list(known.expressions) if known else []
            yield keyed.group_by(*[*keys, *(b.copy() for b in bare if b not in keys)],
                                 append=False, copy=False)
            if all(isinstance(o, exp.Star) or o.find(exp.AggFunc) is None for o in node.selects):
                yield keyed.copy().select(exp.Count(this=exp.Star()), copy=False)
    elif isinstance(node, exp.Column) and not isinstance(node.parent, exp.Func):
        yield exp.Avg(this=node.copy())


def _counted(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    """Bare rows are counted."""
    if isinstance(node, exp.Select):
        counted = node.copy()
        counted.set("expressions", [exp.Count(this=exp.Star())])
        for clause in ("order", "limit", "offset", "distinct", "group"):
            counted.set(clause, None)
        yield counted


def _averaged(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    """Rows in place of one value become their average."""
    for select in node.find_all(exp.Select):
        if len(select.selects) == 1 and isinstance(select.selects[0], exp.Column):
            wanted = node.copy()
            column = next(s for s in wanted.find_all(exp.Select) if s == select).selects[0]
            column.replace(exp.Avg(this=column.copy()))
            yield wanted


def _left_join(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    if isinstance(node, exp.Join):
        for side in ("LEFT", None) if node.args.get("side") == "FULL" else (None, "LEFT"):
            other = node.copy()
            for part in ("side", "kind", "method"):
                other.set(part, None)
            other.set("side", side)
            yield other


def _unit_of(catalog: Catalog) -> list[str]:
    """List the names by which tables call the patient, the most usual first."""
    names = [
        column.name for table in catalog.tables if table.kind is Kind.PROTECTED
        for column in table.columns if column.domain.type is Type.UNIT
    ]
    return sorted(dict.fromkeys(names), key=names.count, reverse=True)


def _tied(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    """Join by the patient."""
    if isinstance(node, exp.Join):
        for name in _unit_of(catalog)[:2]:
            tied = node.copy()
            tied.set("on", None)
            tied.set("kind", None)
            tied.set("method", None)
            tied.set("using", [exp.to_identifier(name)])
            yield tied


def _unit_counted(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    """Rows that may have no patient are not counted, patients are."""
    if isinstance(node, exp.Select):
        for name in _unit_of(catalog)[:2]:
            counted = node.copy()
            stars = [c for c in counted.find_all(exp.Count) if isinstance(c.this, exp.Star)]
            for star in stars:
                star.set("this", exp.column(name))
            if stars:
                yield counted


def _once_more(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    """What is said of each patient is said of all: patients counted, or numbers averaged."""
    units = {name.lower() for name in _unit_of(catalog)}
    if not isinstance(node, exp.Select):
        return
    unit = next((o for o in node.selects if o.unalias().name.lower() in units
                 and isinstance(o.unalias(), exp.Column)), None)
    if unit is None:
        return
    inner = node.copy()
    for clause in ("order", "limit", "offset", "having"):
        inner.set(clause, None)
    others = [o for o in inner.selects if o.find(exp.AggFunc) is not None]
    for number, output in enumerate(others):
        if not output.alias:
            output.replace(exp.alias_(output.copy(), f"n{number + 1}" if number else "n"))
    if others:
        yield exp.select(f"AVG({(others[0].alias or 'n')})").from_(inner.subquery("t"))
    elif node.args.get("distinct"):
        inner.set("distinct", None)
        inner.set("expressions", [exp.Count(this=exp.Distinct(
            expressions=[unit.unalias().copy()]))])
        yield inner


def _tied_inside(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    """Tie a subquery to the patient outside: ... IN (SELECT patient ...)."""
    if isinstance(node, exp.Exists) and isinstance(node.this, exp.Select):
        for name in _unit_of(catalog)[:2]:
            inner = node.this.copy()
            inner.set("expressions", [exp.column(name)])
            yield exp.In(this=exp.column(name), query=exp.Subquery(this=inner))


def _by_patient(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    """Keep a window within the patient, and give it an order where it has none."""
    if isinstance(node, exp.Window):
        for name in _unit_of(catalog)[:2]:
            kept = node.copy()
            kept.set("partition_by", [exp.column(name), *node.args.get("partition_by", [])])
            yield kept


def _ordered(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    """Order a window by a date, or by a number."""
    if not isinstance(node, exp.Window):
        return
    select = node.find_ancestor(exp.Select)
    named = [] if select is None else [
        catalog.table(table.name) for table in select.find_all(exp.Table)
    ]
    columns = [column for table in named if table is not None for column in table.columns]
    dates = [c for c in columns if c.domain.type in MOMENTS]
    numbers = [c for c in columns if c.domain.is_number]
    for column in (*dates, *numbers)[:2]:
        kept = node.copy()
        kept.set("order", exp.Order(expressions=[exp.Ordered(this=exp.column(column.name))]))
        yield kept


def _one_argument(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    if isinstance(node, exp.Func) and node.args.get("expressions") and node.args.get("this"):
        fewer = node.copy()
        fewer.set("expressions", None)
        yield fewer


def _all_kept(node: exp.Expr, problem: Refused, catalog: Catalog) -> Iterator[exp.Expr]:
    if isinstance(node, exp.SetOperation):
        left, right = _side(node.left, "a"), _side(node.right, "b")
        unit = next((n for n in _unit_of(catalog) if _gives(node.left, n)
                     and _gives(node.right, n)), None)
        if isinstance(node, exp.Intersect) and unit:
            yield exp.select(exp.column(unit, "a")).from_(left).join(right, using=[unit])
        elif isinstance(node, exp.Except) and unit:
            inner = exp.select("1").from_(right).where(
                exp.EQ(this=exp.column(unit, "b"), expression=exp.column(unit, "a")))
            yield exp.select(exp.column(unit, "a")).from_(left).where(
                exp.Not(this=exp.Exists(this=inner)))
        yield exp.Union(**{**node.copy().args, "distinct": False})


def _side(query: exp.Expr, name: str) -> exp.Subquery:
    return exp.Subquery(this=query.copy(), alias=exp.TableAlias(this=exp.to_identifier(name)))


def _gives(query: exp.Expr, name: str) -> bool:
    return isinstance(query, exp.Query) and query.named_selects == [name]


Remedy = Callable[[exp.Expr, Refused, Catalog], Iterator[exp.Expr]]
_REMEDIES: dict[str, tuple[Remedy, ...]] = {
    "unknown-column": (_other_columns,),
    "ambiguous-column": (_qualified,),
    "unknown-table": (_other_tables,),
    "ambiguous-table": (_named_apart,),
    "unknown-function": (_listed_functions,),
    "unknown-aggregate": (_other_aggregates,),
    "types": (_other_aggregates,),
    "unbounded": (_clamped,),
    "bare-column": (_grouped,),
    "bare-rows": (_grouped, _counted),
    "scalar-subquery": (_averaged,),
    "group-by-patient": (_once_more,),
    "key-output": (_once_more, _ordered),
    "join-type": (_left_join,),
    "outer-join": (_unit_counted, _left_join),
    "unknown-clause": (_one_argument, _unqualified),
    "window": (_ordered,),
    "cross-patient-join": (_tied,),
    "cross-patient-subquery": (_tied_inside,),
    "window-across-patients": (_by_patient,),
    "set-operation": (_all_kept,),
}

__all__ = ["TEXT_MAX", "Judge", "repaired", "taught"]
