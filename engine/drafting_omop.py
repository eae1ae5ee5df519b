"""A schema in; for an OMOP database, the lines of the shipped model that apply to it, out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files

from engine.drafting_schema import SourceTable
from engine.drafting_words import word, wrapped


def is_omop(tables: tuple[SourceTable, ...]) -> bool:
    """Recognise the OMOP Common Data Model by its persons and its events."""
    by_name = {table.name.lower(): table for table in tables}
    person = by_name.get("person")
    if person is None or person.column("person_id") is None:
        return False
    events = {"visit_occurrence", "condition_occurrence", "drug_exposure", "measurement",
              "observation", "observation_period", "procedure_occurrence"}
    return person.column("gender_concept_id") is not None or bool(events & set(by_name))


def draft_omop(tables: tuple[SourceTable, ...]) -> str:
    """Return the policy's unit and tables; nothing in it is left to complete."""
    model = _omop_model()
    there = {table.name.lower(): table for table in tables}
    # A table counts only with the columns that carry it: GiBleed's empty tables lost theirs.
    kept: set[str] = set()
    for name, part in model.items():
        if name in there and part.fits(there[name], kept):
            kept.add(name)
    lines = [f"unit: {word(there['person'].name)}.person_id", "tables:"]
    for name, part in model.items():
        if name in kept:
            lines += part.lines_for(there[name], there, kept)
    rest = sorted(table.name for table in tables if table.name.lower() not in kept)
    if rest:
        lines += [
            "# Tables left out: their columns are not those of the model, or they are neither the",
            "# vocabulary's nor linked to a person (location, provider and care_site are public",
            "# only where you say so):",
            *wrapped("#   ", [word(name) for name in rest], "#   "),
        ]
    lines += [
        "# The vocabulary counts as public. If its tables were cut down to the concepts that occur",
        "# in these data, that cut tells about patients: load the full vocabulary instead.",
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class _OmopTable:
    """One table of the shipped model, kept as lines so that comments survive."""

    name: str
    is_public: bool
    options: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]  # name, the rest of its line

    def fits(self, table: SourceTable, kept: set[str]) -> bool:
        """Say whether the column is there that makes it this table, and links it to a person."""
        if self.is_public:
            return table.column(_VOCABULARY_MARKS[self.name]) is not None
        parent, column = ("note", "note_id") if self.name == "note_nlp" else ("person", "person_id")
        is_linked = self.name == parent or parent in kept
        return is_linked and table.column(column) is not None

    def lines_for(
        self, table: SourceTable, there: dict[str, SourceTable], kept: set[str]
    ) -> list[str]:
        """Print the table with those of its columns that this database has."""
        name = word(table.name)
        source = [] if table.source is None else [f"    source: {word(table.source)}"]
        if self.is_public:
            return [f"  {name}:", "    public: true", *source] if source else [f"  {name}: public"]
        lines = [f"  {name}:", *source, *self.options, "    columns:"]
        for column, rest in self.columns:
            declared = _for_this_database(rest, there, kept)
            if declared is not None and table.column(column) is not None:
                lines.append(f"      {column}: {declared}")
        known = {column for column, _ in self.columns}
        rest_names = [c.name.lower() for c in table.columns if c.name.lower() not in known]
        if rest_names:
            words = [word(name) for name in rest_names]
            lines += wrapped("      # left out: ", words, "      #   ")
        return lines


_VOCABULARY_MARKS = {
    "concept": "concept_id",
    "concept_ancestor": "ancestor_concept_id",
    "concept_class": "concept_class_id",
    "concept_relationship": "concept_id_1",
    "concept_synonym": "concept_synonym_name",
    "domain": "domain_id",
    "drug_strength": "drug_concept_id",
    "relationship": "relationship_id",
    "vocabulary": "vocabulary_id",
}


def _for_this_database(rest: str, there: dict[str, SourceTable], kept: set[str]) -> str | None:
    """Adapt one declaration: the table it refers to may be missing, or be spelled otherwise."""
    match = re.match(r"\{(references|category_of): (\w+)", rest)
    if match is None:
        return rest
    kind, table = match.groups()
    if table in kept:
        return rest.replace(f"{kind}: {table}", f"{kind}: {there[table].name}", 1)
    return None if kind == "references" else "{integer: [0, 2147483647]}  # a concept's id"


def _omop_model() -> dict[str, _OmopTable]:
    text = files("engine").joinpath("policies/cdm.yaml").read_text(encoding="utf-8")
    model: dict[str, _OmopTable] = {}
    for block in re.split(r"(?m)^  (?=\w)", text.partition("\ntables:\n")[2])[1:]:
        first, *rest = block.rstrip().splitlines()
        name, _, rest_of_line = first.partition(":")
        options = tuple(line for line in rest if re.match(r"    (?!columns:)\w", line))
        columns = tuple(
            (column.strip(), declared.strip())
            for column, _, declared in (
                line.partition(":") for line in rest if line.startswith("      ")
            )
        )
        model[name] = _OmopTable(name, rest_of_line.strip() == "public", options, columns)
    return model
