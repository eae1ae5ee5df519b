"""A question's text in, the text without its WITH ERROR clause and what the clause says out."""

from __future__ import annotations

import re

from sqlglot import Token, TokenType, tokenize

from planner.refusal import Position, Refused

FORM = "WITH ERROR 5% [CONFIDENCE 95%] [FOR ALL GROUPS | FOR 90% OF GROUPS | FOR TOTAL]"
_HINT = re.compile(r"WITH\s+ERROR\b", re.IGNORECASE)

Options = tuple[tuple[str, str], ...]


def target_clause(sql: str, dialect: str) -> tuple[str, Options]:
    """Read a `WITH ERROR ...` at the end of the text as options of ours.

    The clause is blanked out and not cut, so that every place in the text stays where it was. It
    is found among tokens: words in texts, comments and quoted names are no clause, nor is a CTE
    named error. Raises Refused for a clause that is not in the form above, and SqlglotError for
    a text without tokens.
    """
    if _HINT.search(sql) is None:
        return sql, ()
    tokens = tokenize(sql, read=dialect)
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens.pop()
    start = _start(tokens)
    if start is None:
        return sql, ()
    clause = _Clause(sql, tokens[start + 2 :], tokens[start])
    options = clause.read()
    first, last = tokens[start].start, tokens[-1].end + 1
    blank = "".join("\n" if c == "\n" else " " for c in sql[first:last])
    return sql[:first] + blank + sql[last:], options


def _start(tokens: list[Token]) -> int | None:
    """Return where the last WITH ERROR stands that is not the beginning of a CTE."""
    for i in range(len(tokens) - 2, 0, -1):
        if _word(tokens[i]) == "WITH" and _word(tokens[i + 1]) == "ERROR":
            after = tokens[i + 2] if i + 2 < len(tokens) else None
            is_cte = after is not None and (
                _word(after) == "AS" or after.token_type is TokenType.L_PAREN
            )
            return None if is_cte else i
    return None


def _word(token: Token) -> str:
    """Return a token's word; quoted names and texts are none."""
    quoted = token.token_type in (TokenType.STRING, TokenType.IDENTIFIER)
    return "" if quoted else token.text.upper()


class _Clause:
    """Reads the tokens behind WITH ERROR, left to right."""

    def __init__(self, sql: str, tokens: list[Token], start: Token) -> None:
        self._sql = sql
        self._tokens = tokens
        self._last = start

    def read(self) -> Options:
        options = [("error", self._number())]
        if self._takes("CONFIDENCE"):
            options.append(("confidence", self._number()))
        if self._takes("FOR"):
            options.append(("error_for", self._groups()))
        if self._tokens:
            raise self._refused()
        return tuple(options)

    def _groups(self) -> str:
        if self._takes("TOTAL"):
            return "total"
        share = "all" if self._takes("ALL") else self._number()
        if share != "all" and not self._takes("OF"):
            raise self._refused()
        if not self._takes("GROUPS"):
            raise self._refused()
        return share

    def _number(self) -> str:
        if not self._tokens or self._tokens[0].token_type is not TokenType.NUMBER:
            raise self._refused()
        self._last = self._tokens.pop(0)
        number = self._last.text
        if self._takes("%") or self._takes("PERCENT"):
            return f"{number}%"
        return number

    def _takes(self, word: str) -> bool:
        if self._tokens and _word(self._tokens[0]) == word:
            self._last = self._tokens.pop(0)
            return True
        return False

    def _refused(self) -> Refused:
        token = self._tokens[0] if self._tokens else self._last
        line = self._sql.count("\n", 0, token.start) + 1
        column = token.start - self._sql.rfind("\n", 0, token.start)
        place = Position(line, column, token.end - token.start + 1)
        what = f"not {token.text[:40]!r}" if self._tokens else "more than this"
        return Refused("error-target", f"WITH ERROR takes {what} here", FORM, place, self._sql)
