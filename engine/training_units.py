"""A training request without a public number of patients in, one with a paid number out.

The count is a question like any other: bounded, priced, charged, and kept, so that later runs on
the same data (and a run that goes on after a crash) get the same number and pay for it no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from engine.training import plan_training
from planner.refusal import Refused

if TYPE_CHECKING:
    from engine.training import Request, Site
    from planner.policy import Policy

PAID: Final = "paid"
SHARE: Final = Fraction(1, 20)  # of the epsilon of train()
ANY: Final = 1_000  # patients, to see whether a request can be planned at all


def count_question(policy: Policy) -> str:
    """Return the question for the number of patients of a policy."""
    table, _, key = policy.unit.rpartition(".")
    return f'SELECT COUNT(DISTINCT "{key}") AS units FROM "{table}"'


def with_paid_units(
    request: Request, site: Site, ask: Callable[[str, Decimal], Any], resume: int | None = None
) -> Request:
    """Return the request with a noisy number of patients, and what is left of its epsilon.

    `ask` is the road of a question. What can be refused for other reasons is refused first; where
    a run is to go on, so is a count that was never paid on this data.

    Guarantee: `ask` charges SHARE of the epsilon before it reads, and the run is planned, priced
    and charged with the rest; it sees the released number alone. A number that is too small or
    too large changes batches, steps and the divisor, and by no patient more what one can move.
    """
    plan_training(replace(request, units=ANY), site)
    question, version = count_question(site.policy), site.snapshot.data_version
    if resume is not None and site.ledger is not None and not any(
        c.sql == question and c.data_version == version for c in site.ledger.history()
    ):
        raise Refused("model", f"charge {resume} did not pay for this run on this data",
                      "the number of the charge, and the same call")
    share = request.epsilon * SHARE
    noisy = ask(question, Decimal(share.numerator) / Decimal(share.denominator))
    return replace(request, units=max(1, round(float(noisy))),
                   epsilon=request.epsilon * (1 - SHARE))


def refuse_unpaid(units: object) -> None:
    """Refuse to explain what depends on a number that was not paid."""
    if units == PAID:
        raise Refused("model", "how many patients there are is not known before it is paid",
                      "units=1000 to explain, and units='paid' to train")
