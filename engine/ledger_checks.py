"""A budget, a request or a row comes in; whatever a ledger must not hold is refused."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from engine.ledger_rows import AMOUNTS, Charge, charge_of, has_its_hash, sha256
from engine.ledger_settling import (
    REPEATED,
    Settlement,
    is_reservation,
    lowered,
    read_settlement,
    settled_loss,
)
from mechanisms.filter import Filter
from mechanisms.loss import DELTA_PLACES, PrivacyLoss

__all__ = ["Replay", "check_budget", "check_loss", "check_quota", "check_texts"]

# Sums of losses stay exact in PrivacyLoss's 120 digits when no loss is longer than this.
_LARGEST_EXPONENT = 30


def check_budget(epsilon_total: Decimal, delta_total: Decimal) -> None:
    """Refuse what no ledger can promise."""
    for name, value in (("epsilon_total", epsilon_total), ("delta_total", delta_total)):
        if not isinstance(value, Decimal):
            raise TypeError(f"{name} must be a Decimal, got {value!r}; Decimal('1e-6') would do")
    if not (epsilon_total.is_finite() and epsilon_total > 0):
        raise ValueError(f"epsilon_total must be above 0 and finite, got {epsilon_total}")
    if not (delta_total.is_finite() and 0 <= delta_total < 1):
        raise ValueError(f"delta_total must be at least 0 and below 1, got {delta_total}")


def check_loss(loss: PrivacyLoss) -> None:
    """Refuse what is not a loss.

    Guarantee: every loss that passes is finite, not negative, and short enough for exact sums.
    """
    amounts = (loss.exact_epsilon, loss.exact_delta, loss.exact_rdp, loss.exact_quoted_delta)
    for name, value in zip(AMOUNTS, amounts, strict=True):
        if not (isinstance(value, Decimal) and value.is_finite() and not value.is_signed()):
            raise ValueError(f"{name} of a charge must be finite and from 0 up, got {value!r}")
        exponent = value.as_tuple().exponent
        if not (
            isinstance(exponent, int)
            and -DELTA_PLACES <= exponent <= _LARGEST_EXPONENT
            and value.adjusted() <= _LARGEST_EXPONENT
        ):
            raise ValueError(
                f"{name} of a charge must have at most {DELTA_PLACES} decimals and be below "
                f"1e{_LARGEST_EXPONENT}, got {value!r}; PrivacyLoss.of rounds so"
            )


def check_quota(analyst: str, quota: Decimal | None) -> None:
    """Refuse a quota that limits nobody, or that is no amount of epsilon."""
    if quota is None:
        return
    if analyst == "":
        raise ValueError("a quota needs the name of the analyst it limits")
    if not (isinstance(quota, Decimal) and quota.is_finite() and quota >= 0):
        raise ValueError(f"the quota of {analyst} must be finite and from 0 up, got {quota!r}")


def check_texts(texts: Mapping[str, str]) -> None:
    """Refuse texts that some database would store as other texts."""
    if all(map(_is_simple, texts.values())):
        return
    for name, text in texts.items():
        _check_text(name, text)


def _is_simple(text: str) -> bool:
    return type(text) is str and text.isascii() and "\0" not in text


def _check_text(name: str, text: str) -> None:
    if not isinstance(text, str) or "\0" in text:
        raise ValueError(f"{name} of a charge must be text without zero bytes, got {text!r}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name} of a charge is not valid Unicode: {text!r}") from None


class Replay:
    """Recomputes a ledger from its facts alone, row by row.

    Guarantee: a settlement passes only if it names a reservation before it that was not settled
    yet, repeats its facts, and lowers rail A to the price of one of that reservation's own levels.
    """

    def __init__(self, rule: Filter, genesis: str) -> None:
        self.seq = 0
        self.hash = genesis
        self._filter = rule
        self._total = PrivacyLoss.zero()
        self._own: dict[str, PrivacyLoss] = {}
        self._reserved: dict[int, Charge] = {}

    def problem(self, row: tuple[Any, ...]) -> str | None:
        """Return what is wrong with the next row, or None after adding it."""
        if row[0] != self.seq + 1:
            return f"is missing: the next one found is {row[0]}"
        if not has_its_hash(row):
            return "does not match its hash"
        try:
            charge = charge_of(row)
            check_loss(charge.loss)
            settlement = read_settlement(charge.events_json)
        except (ValueError, ArithmeticError) as error:
            return f"has no valid loss: {error}"
        if charge.previous_hash != self.hash:
            return "does not continue the chain of hashes"
        if charge.sql_hash != sha256(charge.sql):
            return "has the hash of another SQL text"
        own, total = self._own.get(charge.analyst, PrivacyLoss.zero()), self._total
        if settlement is not None:
            reserved = self._reserved.get(settlement.seq)
            if reserved is None:
                return f"settles charge {settlement.seq}, which is no open reservation"
            problem = self._wrong(settlement, reserved, charge)
            if problem is not None:
                return problem
            own = lowered(own, reserved.loss, charge.loss)
            total = lowered(total, reserved.loss, charge.loss)
        else:
            own, total = own + charge.loss, total + charge.loss
        if (charge.total, charge.analyst_total) != (total, own):
            return "has sums that are not the sums of the losses"
        if settlement is None and not self._filter.admits(self._total, charge.loss):
            return "is more than the budget allows"
        if settlement is not None:
            del self._reserved[settlement.seq]
        elif is_reservation(charge.events_json):
            self._reserved[charge.seq] = charge
        self.seq, self.hash, self._total = charge.seq, charge.hash, total
        self._own[charge.analyst] = own
        return None

    def _wrong(self, settlement: Settlement, reserved: Charge, charge: Charge) -> str | None:
        """Return what is wrong between a settlement and its reservation."""
        for name in REPEATED:
            if getattr(charge, name) != getattr(reserved, name):
                return f"settles charge {settlement.seq} with another {name}"
        try:
            loss = settled_loss(
                reserved.loss, reserved.events_json, settlement.level, self._filter.order
            )
        except ValueError as error:
            return f"settles charge {settlement.seq} wrongly: {error}"
        if charge.loss != loss:
            return f"settles charge {settlement.seq} at another loss than its level's"
        return None
