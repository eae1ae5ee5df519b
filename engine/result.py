"""A released table in, what an analyst holds out: numbers with intervals, a price and a picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.postprocess import Cell, Table
from mechanisms.loss import PrivacyLoss
from planner.plan import Plan
from planner.target import Outcome
from planner.uncertainty import Interval

if TYPE_CHECKING:
    import pandas
    import pyarrow
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to one question.

    `rows` are plain tuples of unrounded values; `intervals` has, for each row and column, the
    (low, high) of a noisy number at 95 % or None. `cost` is what this answer was charged:
    nothing when it was `cached`, and what its level costs when it had an accuracy `target`, of
    which `target` says what came. `is_private` is False for insecure testing only.
    """

    table: Table = field(repr=False)
    cost: PrivacyLoss
    cached: bool
    plan: Plan = field(repr=False)
    is_private: bool = True
    target: Outcome | None = None
    together: int = 1  # how many answers the cost is for: those of a batch are paid as one

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return self.table.columns

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        """The rows, as a list of tuples."""
        return list(self.table.rows)

    @property
    def intervals(self) -> list[tuple[Interval | None, ...]]:
        """The 95 % interval of every noisy cell, row by row; None for other cells.

        An interval speaks of the noise. What contribution bounding left out of the exact number
        (see `plan`) is not in it.
        """
        return list(self.table.intervals)

    def to_pandas(self) -> pandas.DataFrame:
        """The unrounded values as a DataFrame."""
        import pandas as pd

        frame = pd.DataFrame(self.rows, columns=list(self.columns))
        frame.attrs["is_private"] = self.is_private
        return frame

    def to_arrow(self) -> pyarrow.Table:
        """The unrounded values as an Arrow table."""
        import pyarrow as pa

        columns: list[Any] = [list(column) for column in zip(*self.rows, strict=True)]
        if not columns:
            columns = [[] for _ in self.columns]
        return pa.table({f"c{i}": c for i, c in enumerate(columns)}).rename_columns(
            list(self.columns)
        )

    def __len__(self) -> int:
        return len(self.table.rows)

    def __str__(self) -> str:
        from engine.display import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from engine.display import as_html

        return as_html(self)

    def plot(self, column: str | None = None) -> Figure:
        """Draw one column with its error bars (by default the first noisy one)."""
        from engine.picture import draw

        return draw(self, column)
