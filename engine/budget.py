"""What was paid out of a budget in, what is spent and left out: public, by prices alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mechanisms.loss import PrivacyLoss

if TYPE_CHECKING:
    from engine.ledger import Charge


@dataclass(frozen=True, slots=True)
class Budget:
    """What is spent and left, on both rails; `charges` are the paid questions behind it."""

    spent: PrivacyLoss
    left: PrivacyLoss
    charges: tuple[Charge, ...] = field(repr=False)
    analyst: str | None
    typical_epsilon: float

    def __str__(self) -> str:
        who = "the budget" if self.analyst is None else f"the budget of {self.analyst}"
        count = int(self.left.epsilon / self.typical_epsilon + 1e-9)
        return (
            f"{who}\n"
            f"  spent   {self.spent}   ({len(self.charges)} charges)\n"
            f"  left    {self.left}\n"
            f"  enough for {count} more questions at epsilon {self.typical_epsilon:g}"
        )
