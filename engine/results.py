"""The answers to several questions that were paid as one, as a sequence of results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, overload

from mechanisms.loss import PrivacyLoss
from planner.workload_plan import WorkloadPlan

if TYPE_CHECKING:
    from engine.result import Result


@dataclass(frozen=True, slots=True)
class Results(Sequence["Result"]):
    """One result for each question, in the order they were asked.

    `cost` is what all of them were charged together: nothing when everything was `cached`. `left`
    is what the budget (the analyst's, where the policy names analysts) has left afterwards.
    """

    results: tuple[Result, ...] = field(repr=False)
    cost: PrivacyLoss
    cached: bool
    plan: WorkloadPlan = field(repr=False)
    left: PrivacyLoss | None = None
    is_private: bool = True

    def __len__(self) -> int:
        return len(self.results)

    @overload
    def __getitem__(self, place: int) -> Result: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Result, ...]: ...

    def __getitem__(self, place: int | slice) -> Result | tuple[Result, ...]:
        return self.results[place]

    def __str__(self) -> str:
        from engine.display import many_as_text

        return many_as_text(self)

    def _repr_html_(self) -> str:
        from engine.display import many_as_html

        return many_as_html(self)
