"""A reservation and the level it revealed come in; what it really cost goes out.

An accuracy-first release reserves the price of its finest level before it reads, reveals levels
from coarse to fine, and stops. What was seen up to a level costs that level's epsilon only
(mechanisms/gradual.py), so rail A may be settled at it; rail B keeps the reserve. The settlement
is a row of its own in the chain of charges: the reservation is never edited.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Context
from fractions import Fraction

from mechanisms.event import from_json
from mechanisms.loss import PrivacyLoss
from mechanisms.pricing import levels_of, loss_of, revealed

__all__ = [
    "REPEATED", "SETTLES", "Settlement", "is_reservation", "lowered", "read_settlement",
    "settled_loss",
]

# A row of the ledger whose events begin so is a settlement; no list of events does.
SETTLES = '{"settles":'
# What a settlement says again of the charge it settles.
REPEATED = ("analyst", "sql", "plan_hash", "policy_hash", "data_version")
_EXACT = Context(prec=120)


@dataclass(frozen=True, slots=True)
class Settlement:
    """That a charge revealed its levels up to this one (0: the coarsest) and no further."""

    seq: int
    level: int

    def to_json(self) -> str:
        """Return its only text, which stands in the place of a charge's events."""
        return f'{SETTLES}{{"level":{self.level},"seq":{self.seq}}},"version":1}}'


def read_settlement(text: str) -> Settlement | None:
    """Return the settlement that a row's events hold, or None for a charge's events.

    Raises ValueError for a text that begins as a settlement and is none.
    """
    if not text.startswith(SETTLES):
        return None
    try:
        found = json.loads(text)["settles"]
        settlement = Settlement(found["seq"], found["level"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("not a settlement") from error
    if not (type(settlement.seq) is int and type(settlement.level) is int) or (
        settlement.to_json() != text
    ):
        raise ValueError("the settlement is not in canonical form")
    return settlement


def is_reservation(events_json: str) -> bool:
    """Return whether a charge of these events was made to be settled later."""
    if '"gradual"' not in events_json:
        return False
    try:
        return levels_of(from_json(events_json)) > 0
    except ValueError:
        return False


def settled_loss(
    reserved: PrivacyLoss, events_json: str, level: int, order: Fraction
) -> PrivacyLoss:
    """Return what a reservation costs once it ended at a level.

    Guarantee: epsilon is that of the revealed level, computed from the reservation's own events,
    and never above what was reserved; delta and everything on rail B stay as reserved. Raises
    ValueError where the charge is no reservation, has no such level, or would grow.
    """
    epsilon = loss_of(revealed(from_json(events_json), level), order).exact_epsilon
    if not epsilon <= reserved.exact_epsilon:
        raise ValueError(f"level {level} costs {epsilon}, more than was reserved")
    return PrivacyLoss(
        epsilon, reserved.exact_delta, reserved.exact_rdp, reserved.exact_quoted_delta
    )


def lowered(total: PrivacyLoss, reserved: PrivacyLoss, settled: PrivacyLoss) -> PrivacyLoss:
    """Return a sum in which the settled loss stands in the place of the reserved one, exactly."""
    rest = _EXACT.subtract(total.exact_epsilon, reserved.exact_epsilon)
    return PrivacyLoss(
        _EXACT.add(rest, settled.exact_epsilon),
        total.exact_delta, total.exact_rdp, total.exact_quoted_delta,
    )
