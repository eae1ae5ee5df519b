"""A database's schema in; a policy in YAML for the steward to complete out.

Guarantee: the draft is made of table and column names, column types and declared keys, and of
what is publicly known of the OMOP Common Data Model. No row is read; even the members of an
ENUM type are left out, since they were values once. (A CSV file has no schema: its first line
gives the names, and its types are guessed from rows, of which only the types reach the draft.)
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from engine.drafting_guess import Draft
from engine.drafting_omop import draft_omop, is_omop
from engine.drafting_schema import DraftError, read_schema
from engine.drafting_words import word

__all__ = ["DraftError", "demo_policy", "draft_policy"]

_HEAD = """\
# Draft of a policy, made from names and types alone: no row was read.
# Complete it from public knowledge (forms, code lists, physiology), never from the data: a bound
# taken from the data gives the patient away who set it. What is not declared cannot be asked.
discreet: 1
database: {database}
ledger: {ledger}
# witness: another-disk/{witness}   # a second place that notices a restored ledger
budget: {{epsilon: 3.0, delta: 1e-6}}   # all that may ever be spent on these data
defaults: {{epsilon: 0.1, rows_per_unit: 20, max_rows_per_unit: 1000}}
# analysts: {{ana: {{epsilon: 1.0}}, ben: {{epsilon: 0.5}}}}   # quotas below the budget
"""


def draft_policy(database: Path) -> str:
    """Return a policy's text for a DuckDB file, a folder of Parquet or CSV files, or one file.

    Every place marked TODO has to be completed; reading the policy before that names each of
    them with its line. A draft for an OMOP database has none.
    """
    database = Path(database)
    tables = read_schema(database)
    if not tables:
        raise DraftError(f"{database} holds no table; name a database with patient data")
    stem = database.name.split(".")[0] or "data"
    head = _HEAD.format(
        database=word(database.as_posix()), ledger=word(f"{stem}.ledger.sqlite"),
        witness=f"{stem}.witness",
    )
    body = draft_omop(tables) if is_omop(tables) else Draft(tables).text()
    return head + body


def demo_policy(database: Path, ledger: Path) -> str:
    """Return the shipped OMOP policy for this database and ledger."""
    text = files("engine").joinpath("policies/omop.yaml").read_text(encoding="utf-8")
    for field, path in (("database", database), ("ledger", ledger)):
        before, _, after = text.partition(f"\n{field}: ")
        rest = after.partition("\n")[2]
        text = f"{before}\n{field}: {word(Path(path).as_posix())}\n{rest}"
    return text
