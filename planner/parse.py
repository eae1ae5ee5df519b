"""Text in, the syntax tree of exactly one SELECT out: the door to sqlglot's parser and printer."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

import sqlglot
from sqlglot import TokenType, exp
from sqlglot.errors import SqlglotError

from planner.refusal import Position, Refused
from planner.target_text import target_clause

TEXT_MAX = 100_000  # characters; a longer question is a mistake or an attack
TEXTS_MAX = 1_000_000  # of several questions in one text
DIALECTS = frozenset({
    "duckdb", "postgres", "bigquery", "snowflake", "spark", "tsql", "databricks", "redshift",
    "mysql", "trino", "sqlite",
})
DEPTH_MAX = 150  # levels of nesting the later stages walk safely
NODES_MAX = 20_000

# The parser logs what it does not know and goes on; we refuse it instead.
logging.getLogger("sqlglot").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Parsed:
    """The user's text and its tree, which later stages only read.

    `options` are those of a SELECT WITH DIFFERENTIAL_PRIVACY clause (epsilon, delta, rows) and of
    WITH ERROR at the end (error, confidence, error_for).
    """

    sql: str
    tree: exp.Select | exp.SetOperation
    options: tuple[tuple[str, str], ...] = ()


def parse(sql: str, dialect: str = "duckdb") -> Parsed:
    """Parse one SELECT.

    Raises Refused for anything else: other statements, several statements, syntax errors, text
    that is too long or nested too deeply.
    """
    if not isinstance(sql, str):
        raise Refused("syntax", f"a question is SQL text, got {type(sql).__name__}")
    if not sql.isascii() and any("\ud800" <= c <= "\udfff" for c in sql):
        raise Refused("syntax", "the text holds half a character, which no encoding writes")
    if len(sql) > TEXT_MAX:
        raise Refused("too-large", f"the text has {len(sql):,} characters; the limit is "
                      f"{TEXT_MAX:,}", "a shorter question")
    if dialect not in DIALECTS:
        raise Refused("dialect", f"no dialect {dialect!r}", ", ".join(sorted(DIALECTS)))
    written = sql
    try:
        sql, options = _private_clause(sql)
        sql, aimed = target_clause(sql, dialect)
        options = (*options, *aimed)
        if dialect != "duckdb":
            sql = _translated(sql, dialect)
        statements = [s for s in sqlglot.parse(sql, dialect="duckdb") if s is not None]
    except RecursionError:
        raise Refused("too-large", "the text is nested too deeply",
                      f"at most {DEPTH_MAX} levels") from None
    except SqlglotError as problem:
        raise _syntax(sql, problem) from None
    if len(statements) != 1:
        raise Refused("one-statement", f"expected one SELECT, got {len(statements)} statements",
                      "ask one question at a time", None, sql)
    tree = statements[0]
    _measure(tree, sql)
    while isinstance(tree, exp.Subquery) and set(_given(tree)) == {"this"}:
        tree = tree.this
    if not isinstance(tree, exp.Select | exp.SetOperation):
        raise Refused("only-select", f"only SELECT is answered, got {_verb(sql)}",
                      "SELECT COUNT(*) FROM ...", Position(1, 1, len(_verb(sql))), sql)
    return Parsed(sql if dialect != "duckdb" else written, tree, options)


def split(sql: str, dialect: str = "duckdb") -> tuple[str, ...]:
    """Split a text into its statements, at each semicolon outside of texts and comments.

    Raises Refused for what is no text, or is too long or not made of words.
    """
    if not isinstance(sql, str):
        raise Refused("syntax", f"a question is SQL text, got {type(sql).__name__}")
    if len(sql) > TEXTS_MAX:
        raise Refused("too-large", f"the text has {len(sql):,} characters; the limit is "
                      f"{TEXTS_MAX:,}", "fewer questions at once")
    if dialect not in DIALECTS:
        raise Refused("dialect", f"no dialect {dialect!r}", ", ".join(sorted(DIALECTS)))
    try:
        tokens = sqlglot.tokenize(sql, dialect=dialect)
    except SqlglotError as problem:
        raise _syntax(sql, problem) from None
    found, start, words = [], 0, 0
    for token in tokens:
        if token.token_type is not TokenType.SEMICOLON:
            words += 1
            continue
        if words:
            found.append(sql[start : token.start].strip())
        start, words = token.end + 1, 0
    return (*found, sql[start:].strip()) if words else tuple(found)


def _translated(sql: str, dialect: str) -> str:
    """Translate a question into DuckDB's words; what has no translation is refused."""
    trees = [t for t in sqlglot.parse(sql, dialect=dialect) if t is not None]
    for tree in trees:
        _measure(tree, sql)
    return "; ".join(
        tree.sql("duckdb", unsupported_level=sqlglot.ErrorLevel.RAISE) for tree in trees
    )


_CLAUSE = re.compile(r"\A(\s*SELECT)\s+WITH\s+DIFFERENTIAL_PRIVACY(?:\s+OPTIONS\s*\(([^()]*)\))?",
                     re.IGNORECASE)
# How ZetaSQL names what we call otherwise; the patient is the policy's business, not the text's.
_OPTIONS = {
    "epsilon": "epsilon", "delta": "delta", "max_rows_contributed": "rows",
    "max_groups_contributed": "rows", "privacy_unit_column": "",
}


def _private_clause(sql: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Read SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (...) as options of ours.

    The clause is blanked out and not cut, so that every place in the text stays where it was.
    """
    match = _CLAUSE.match(sql)
    if match is None:
        return sql, ()
    options: list[tuple[str, str]] = []
    for part in filter(None, (p.strip() for p in (match.group(2) or "").split(","))):
        name, _, value = (word.strip() for word in part.partition("="))
        ours = _OPTIONS.get(name.lower())
        if ours is None:
            raise Refused("unknown-clause", f"no option {name[:40]}",
                          ", ".join(sorted(_OPTIONS)), None, sql)
        if ours:
            options.append((ours, value))
    start, end = match.end(1), match.end(0)
    blank = "".join("\n" if c == "\n" else " " for c in sql[start:end])
    return sql[:start] + blank + sql[end:], tuple(options)


def _given(node: exp.Expr) -> list[str]:
    return [name for name, value in node.args.items() if value]


def _verb(sql: str) -> str:
    words = sql.split()
    return words[0].upper()[:40] if words else "nothing"


def _measure(tree: exp.Expr, sql: str) -> None:
    """Refuse trees that later stages could not walk, without recursion."""
    waiting = [(tree, 1)]
    nodes = 0
    while waiting:
        node, depth = waiting.pop()
        nodes += 1
        if nodes > NODES_MAX or depth > DEPTH_MAX:
            limit = f"{NODES_MAX:,} parts" if nodes > NODES_MAX else f"{DEPTH_MAX} levels"
            raise Refused("too-large", f"the question exceeds {limit}", "a simpler question")
        # A chain of ANDs is deep in the tree but flat in meaning: it is flattened later.
        chain = isinstance(node, exp.And | exp.Or)
        for child in node.iter_expressions():
            same = chain and isinstance(child, type(node))
            waiting.append((child, depth if same else depth + 1))


def _syntax(sql: str, problem: SqlglotError) -> Refused:
    errors = getattr(problem, "errors", None) or [{}]
    first = errors[0]
    line, column = first.get("line"), first.get("col")
    text = str(first.get("description") or "the text cannot be read as SQL").split("\n")[0]
    text = text.replace("<class 'sqlglot.expressions.", "").replace("'>", "")
    position = None
    if isinstance(line, int) and isinstance(column, int):
        width = len(str(first.get("highlight") or " "))
        position = Position(line, max(column - width + 1, 1), width)
    return Refused("syntax", f"syntax error: {text}", "", position, sql)


def pretty(sql: str) -> str:
    """Print generated SQL over several lines, for people."""
    try:
        return sqlglot.transpile(sql, read="duckdb", write="duckdb", pretty=True)[0]
    except (SqlglotError, RecursionError):
        return sql
