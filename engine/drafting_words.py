"""Names from a database in; names, plurals and comment lines as YAML takes them out."""

from __future__ import annotations

import json
import re

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_PLAIN = frozenset({"null", "true", "false", "todo", "yes", "no", "on", "off"})


def is_name(name: str) -> bool:
    """Say whether a policy can use this name."""
    usable = name.isprintable() and '"' not in name and name == name.strip()
    return usable and bool(name) and len(name) <= 128 and not name.startswith("__")


def word(text: str, *, todo: bool = False) -> str:
    """Quote a name where YAML would read it as something else."""
    if todo and text == "TODO":
        return text
    parts = re.split(r"[./]", text)
    if all(_PLAIN_NAME.fullmatch(part) for part in parts if part) and not (
        text.lower() in _NOT_PLAIN or not text.strip("./")
    ):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def plural(noun: str) -> str:
    """Return `bodies` for `body`, `visits` for `visit`."""
    return noun[:-1] + "ies" if noun.endswith("y") else noun + "s"


def singular(noun: str) -> str:
    """Return `body` for `Bodies`, `visit` for `visits`."""
    lower = noun.lower()
    if lower.endswith("ies"):
        return lower[:-3] + "y"
    return lower[:-1] if lower.endswith("s") and not lower.endswith("ss") else lower


def wrapped(lead: str, names: list[str], later: str) -> list[str]:
    """Lay out names in comment lines of at most 100 characters."""
    lines, line = [], lead
    for name in names:
        if len(line) + len(name) + 2 > 100 and line != lead:
            lines.append(line.rstrip(" "))
            line = later
        line += name + ("" if name == names[-1] else ", ")
    return [*lines, line]
