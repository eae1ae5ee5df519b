"""YAML text in; a tree of scalars kept as written, each with its line, out.

The text is read as YAML 1.2: `1e-6` is a number, `yes`, `no`, `on` and `off` are words, and a
date stays text until its column's type reads it. A scalar is typed only where a field asks for
a type, so a budget of `3.0` never passes through a binary float. Anchors, aliases, tags and
merge keys are refused: a policy says everything where it stands, for the reader's sake.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import yaml

TEXT_MAX = 1_000_000  # characters of a policy file
DEPTH_MAX = 12  # a policy nests tables, columns, bounds: never deeper than this

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TODO = "TODO"  # what a drafted policy leaves for the steward

Step = str | int
Loc = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a policy: where it stands, what is wrong, what would be right."""

    source: str
    line: int
    path: str
    text: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}: "
        return f"{place}{self.path}: {self.text}" if self.path else f"{place}{self.text}"


class PolicyError(Exception):
    """A policy that cannot be used; the message lists every fault, one a line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(set(problems), key=lambda p: (p.line, p.path, p.text)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Wrong(ValueError):  # noqa: N818 (it never leaves the policy files)
    """Faults found inside one part of a policy, each with its place below that part."""

    def __init__(self, faults: Sequence[tuple[Loc, str]]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(text for _, text in self.faults))


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as written. `plain` says that it was neither quoted nor a block of text."""

    text: str
    line: int
    plain: bool = True

    @property
    def is_null(self) -> bool:
        """Say whether YAML reads this as null."""
        return self.plain and self.text in _NULLS

    @property
    def is_todo(self) -> bool:
        """Say whether this is a place that the steward has still to fill."""
        return self.plain and self.text == _TODO

    def __str__(self) -> str:
        return f"'{clipped(self.text)}'"


@dataclass(frozen=True, slots=True)
class Items:
    """A YAML sequence."""

    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Fields:
    """A YAML mapping; keys are text and stand in order, repeated ones are reported elsewhere."""

    entries: tuple[tuple[Scalar, Node], ...]
    line: int

    def get(self, name: str) -> tuple[Scalar, Node] | None:
        """Find the first entry of that name."""
        return next((entry for entry in self.entries if entry[0].text == name), None)


Node = Scalar | Items | Fields


def read_fields(text: str, source: str) -> Fields:
    """Read one YAML document that is a mapping, or raise PolicyError."""
    if len(text) > TEXT_MAX:
        raise _fault(source, 1, f"has {len(text)} characters; a policy has at most {TEXT_MAX}")
    try:
        node = _Reader(text, source).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        said = error.problem or error.context or "cannot be read"
        text = f"is not YAML: {said}; check brackets, indents and quotes"
        raise _fault(source, line, text) from None
    except yaml.YAMLError:
        raise _fault(source, 1, "is not YAML: it holds a character that cannot be read") from None
    if not isinstance(node, Fields):
        raise _fault(source, node.line, "holds no fields; a policy opens with 'discreet: 1'")
    return node


class _Reader:
    """Turns the parser's events into nodes."""

    def __init__(self, text: str, source: str) -> None:
        self._source = source
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)

    def document(self) -> Node:
        next(self._events)  # the stream's start
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise _fault(self._source, 1, "is empty; a policy opens with 'discreet: 1'")
        node = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            self._refuse(event, "a second document begins; a file holds one policy")
        return node

    def _node(self, event: yaml.Event, depth: int) -> Node:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            self._refuse(event, "anchors and aliases are not read; write the value out")
        if event.tag is not None:
            self._refuse(event, f"the tag {event.tag} is not read; write the value without it")
        if depth > DEPTH_MAX:
            self._refuse(event, f"nests deeper than {DEPTH_MAX} levels; no field does")
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(event.value, line, event.style in (None, ""))
        if isinstance(event, yaml.SequenceStartEvent):
            return Items(tuple(self._items(depth)), line)
        return Fields(tuple(self._entries(depth)), line)

    def _items(self, depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _entries(self, depth: int) -> Iterator[tuple[Scalar, Node]]:
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, Scalar):
                self._refuse(event, "a list or mapping stands as a name; a name is a word")
            elif key.plain and key.text == "<<":
                self._refuse(event, "merge keys are not read; write the fields out")
            else:
                yield key, self._node(next(self._events), depth + 1)

    def _refuse(self, event: yaml.Event, text: str) -> None:
        raise _fault(self._source, event.start_mark.line + 1, text)


def _fault(source: str, line: int, text: str) -> PolicyError:
    return PolicyError([Problem(source, line, "", text)])


def plain_data(node: Node) -> object:
    """Return dictionaries, lists and scalars: what the policy's models are filled from."""
    if isinstance(node, Fields):
        kept: dict[str, object] = {}
        for key, value in node.entries:
            kept.setdefault(key.text, plain_data(value))
        return kept
    if isinstance(node, Items):
        return [plain_data(item) for item in node.items]
    return None if node.is_null else node


def scalars(node: Node, loc: Loc = ()) -> Iterator[tuple[Loc, Scalar]]:
    """Yield every value with its place."""
    if isinstance(node, Fields):
        for key, value in node.entries:
            yield from scalars(value, (*loc, key.text))
    elif isinstance(node, Items):
        for place, item in enumerate(node.items):
            yield from scalars(item, (*loc, place))
    else:
        yield loc, node


def repeated_keys(node: Node, loc: Loc = ()) -> Iterator[tuple[Loc, int, int]]:
    """Yield each repeated name's place, its line, and the line where it first stood."""
    if isinstance(node, Fields):
        first: dict[str, int] = {}
        for key, value in node.entries:
            if key.text in first:
                yield (*loc, key.text), key.line, first[key.text]
            first.setdefault(key.text, key.line)
            yield from repeated_keys(value, (*loc, key.text))
    elif isinstance(node, Items):
        for place, item in enumerate(node.items):
            yield from repeated_keys(item, (*loc, place))


def line_of(root: Node, loc: Loc) -> int:
    """Return the line of a place, or of the nearest place around it that was written."""
    node, line = root, root.line
    for step in loc:
        if isinstance(node, Fields) and isinstance(step, str):
            entry = node.get(step)
            if entry is None:
                break
            line, node = entry[0].line, entry[1]
        elif isinstance(node, Items) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            line = node.line
        else:
            break
    return line


def dotted(loc: Loc) -> str:
    """Print a place as `tables.visits.columns.cost.real[1]`."""
    return "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in loc).lstrip(".")


def shown(value: object) -> str:
    """Print a value for an error text, shortened."""
    if value is None:
        return "an empty value"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return str(value) if isinstance(value, Scalar) else f"'{clipped(str(value))}'"


def clipped(text: str) -> str:
    """Shorten text for a message and hide line breaks."""
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= 60 else one_line[:57] + "..."


def nearest(word: str, known: Sequence[str]) -> str:
    """Return "did you mean 'x'?" or a list of what is known."""
    folded = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), list(folded), n=1, cutoff=0.6)
    if close:
        return f"did you mean '{folded[close[0]]}'?"
    return f"known: {', '.join(known)}" if known else "none is known"
