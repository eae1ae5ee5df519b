"""A few rows and a policy in; three curators who answer questions about them out.

What an attack may do is what a `Curator` offers: ask SQL, see rows or that the budget is spent,
read public prices. The attacker chooses every epsilon.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from engine import Engine, OverBudget

Rows = list[tuple[Any, ...]]
Columns = Mapping[str, Any]
HALVINGS = 40


class Kind(Enum):
    """How questions are answered."""

    EXACT = "exact answers"
    UNBUDGETED = "noise without a budget"
    DISCREET = "Discreet with its budget"


@dataclass(frozen=True, slots=True)
class Curator:
    """Answers questions about one database in one of the three ways."""

    kind: Kind
    engine: Engine
    each: float  # what a question may cost where nobody adds up

    def ask(
        self, sql: str, epsilon: float | None = None, delta: float | None = None,
        analyst: str | None = None,
    ) -> Rows | None:
        """Return the rows of an answer, or None where the budget does not pay for it."""
        if self.kind is Kind.EXACT:
            return self.engine.query(sql, epsilon=math.inf, analyst=analyst).rows
        price = self.each if epsilon is None else epsilon
        try:
            return self.engine.query(sql, epsilon=price, delta=delta, analyst=analyst).rows
        except OverBudget:
            return None

    def ask_together(
        self, texts: Sequence[str], epsilon: float, delta: float | None = None
    ) -> list[Rows] | None:
        """Return the rows of several answers at one price, or None where it is too high."""
        noiseless = {"noiseless": True} if self.kind is Kind.EXACT else {}
        try:
            found = self.engine.query_many(texts, epsilon=epsilon, delta=delta, **noiseless)
        except OverBudget:
            return None
        return [result.rows for result in found]

    def explain(self, sql: str | Sequence[str], epsilon: float, delta: float | None) -> Any:
        """Return the plan of a question, or of several at one price."""
        ask = self.engine.explain if isinstance(sql, str) else self.engine.explain_many
        return ask(sql, epsilon=epsilon, delta=delta)

    def share(
        self, sql: str | Sequence[str], times: int, delta: float | None = None, parts: int = 1
    ) -> float:
        """Return the epsilon to give `times` questions like this one, the whole budget together.

        Where there is no budget: `each` for every one of its `parts`.
        """
        if self.kind is not Kind.DISCREET:
            return self.each * parts
        left = self.engine.budget().left

        def fits(epsilon: float) -> bool:
            cost = self.explain(sql, epsilon, delta).full_cost
            return (cost.epsilon * times <= left.epsilon and cost.delta * times <= left.delta) or (
                0 < cost.rdp * times <= left.rdp)

        low, high = 0.0, 1.0
        while fits(high) and high < 1e6:
            low, high = high, 2 * high
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if fits(middle) else (low, middle)
            if high - low < 1e-4 * high:
                break
        return low


def write_table(path: Path, table: str, columns: Columns) -> None:
    """Write one table of numpy columns into a DuckDB file."""
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    with duckdb.connect(str(path)) as connection:
        connection.register("given_rows", arrays)
        connection.execute(f"CREATE TABLE {table} AS SELECT * FROM given_rows")


def policy_text(
    folder: Path, tables: str, epsilon: float = 1.0, delta: float = 1e-6, rows: int = 1,
    more: str = "",
) -> str:
    """Return a policy over `people.id` with the given declarations of tables."""
    return (
        f"discreet: 1\ndatabase: {folder}/data.duckdb\nledger: {folder}/ledger.sqlite\n"
        f"budget: {{epsilon: {epsilon!r}, delta: {delta!r}}}\n"
        f"defaults: {{epsilon: 0.1, rows_per_unit: {rows}, max_rows_per_unit: {rows}}}\n"
        f"unit: people.id\n{more}tables:\n{tables}"
    )


def one_table(columns: str) -> str:
    """Declare `people` with one row each and the given columns, one a line."""
    lines = "".join(f"      {line.strip()}\n" for line in columns.strip().splitlines())
    return f"  people:\n    one_row_per_unit: true\n    columns:\n      id: unit\n{lines}"


@contextmanager
def curator(
    kind: Kind, folder: Path, columns: Columns, declared: str, *, epsilon: float = 1.0,
    delta: float = 1e-6, each: float = 1.0, more: str = "", table: str = "people", rows: int = 1,
    also: Callable[[Path], None] | None = None,
) -> Iterator[Curator]:
    """Write one table and open a curator on it."""
    folder.mkdir(parents=True)
    write_table(folder / "data.duckdb", table, columns)
    if also is not None:
        also(folder / "data.duckdb")
    (folder / "policy.yaml").write_text(
        policy_text(folder, declared, epsilon, delta, rows, more), encoding="utf-8")
    with reopened(kind, folder, each=each) as opened:
        yield opened


@contextmanager
def reopened(kind: Kind, folder: Path, *, each: float = 1.0) -> Iterator[Curator]:
    """Open a curator on a table that is there already: a restart, or another process."""
    private = kind is Kind.DISCREET
    with Engine.open(folder / "policy.yaml", insecure_testing=not private) as engine:
        yield Curator(kind, engine, each)


def accuracy(guesses: Any, truth: Any) -> float:
    """Return the share of right guesses."""
    return float(np.mean(np.asarray(guesses) == np.asarray(truth)))


__all__ = ["Columns", "Curator", "Kind", "Rows", "accuracy", "curator", "one_table",
           "policy_text", "reopened", "write_table"]
