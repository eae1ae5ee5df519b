"""Every rule by which a question is refused: reason, example that breaks it, form that passes.

A refusal depends on the question's text, the policy and released answers only, never on a
protected row, so it tells nothing about any patient.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One reason to say no. `refused` breaks it, `accepted` is the nearest form that passes."""

    name: str
    reason: str
    refused: str
    accepted: str


@dataclass(frozen=True, slots=True)
class Position:
    """Where in the user's text, counted from 1; `length` characters are underlined."""

    line: int
    column: int
    length: int = 1


class Refused(Exception):  # noqa: N818  (the public name of the product)
    """A question that is not answered, with the rule, the place and what would be accepted."""

    def __init__(
        self, rule: str, message: str, hint: str = "", position: Position | None = None,
        sql: str = "",
    ) -> None:
        super().__init__(message)
        self.rule = rule
        self.message = message
        self.hint = hint
        self.position = position
        self.sql = sql

    def located(self, sql: str) -> Refused:
        """Return the same refusal carrying the user's text, so that it can underline it."""
        return Refused(self.rule, self.message, self.hint, self.position, sql)

    def __str__(self) -> str:
        parts = [f"refused ({self.rule}): {self.message}"]
        if self.position is not None and self.sql:
            parts.append(underlined(self.sql, self.position))
        if self.hint:
            parts.append(f"accepted instead: {self.hint}")
        return "\n".join(parts)


def underlined(sql: str, position: Position) -> str:
    """Return the guilty line of the text with a line of carets below it."""
    lines = sql.splitlines() or [""]
    if not 1 <= position.line <= len(lines):
        return ""
    line = lines[position.line - 1]
    label = f"  line {position.line}: "
    # A long line is cut around the place, so that one megabyte of text stays readable.
    start = max(0, position.column - 60)
    shown = line[start : start + 100]
    carets = "^" * max(1, min(position.length, 100))
    return f"{label}{shown}\n{' ' * (len(label) + position.column - 1 - start)}{carets}"
