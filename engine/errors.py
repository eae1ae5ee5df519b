"""What can go wrong, told to people: names and numbers in, one plain message each out."""

from __future__ import annotations

from decimal import Context

from mechanisms.loss import PrivacyLoss

__all__ = ["GLOBAL_BUDGET", "Broken", "LedgerError", "OverBudget", "TargetMissed"]

GLOBAL_BUDGET = "the global budget"
_EXACT = Context(prec=200)


class OverBudget(Exception):  # noqa: N818 - the public name says what happened
    """The privacy budget cannot pay for what was asked; nothing was charged and nothing was read.

    Guarantee: the message is made of prices, of sums of prices and of an analyst's name. None of
    them depends on private rows, so a refusal is the same on any two databases.
    """

    def __init__(self, asked: PrivacyLoss, left: PrivacyLoss, who: str) -> None:
        super().__init__(asked, left, who)
        self.asked = asked
        self.left = left
        self.who = who

    def __str__(self) -> str:
        return (
            f"{self.who} cannot pay for this: it costs {self.asked}, and left are {self.left}. "
            f"{self._what_would_fit()}"
        )

    def _what_would_fit(self) -> str:
        epsilon, delta, rdp = (
            str(amount.normalize(_EXACT))
            for amount in (self.left.exact_epsilon, self.left.exact_delta, self.left.exact_rdp)
        )
        if self.left.exact_epsilon > 0:
            return f"A release with epsilon at most {epsilon} and delta at most {delta} would fit."
        if self.left.exact_rdp > 0 and self.who == GLOBAL_BUDGET:
            return f"Gaussian noise with rdp at most {rdp} would fit."
        return "Answers already given stay free; no new release fits."


class Broken(Exception):  # noqa: N818 - the public name says what happened
    """Discreet has a bug. Raise it `from None`: a cause may quote private rows.

    Guarantee: the text is fixed, and the exception takes nothing that could vary with the data.
    """

    TEXT = (
        "Discreet failed on this request, which is a bug of Discreet and not of the request. "
        "If it was charged, the charge stands. Please tell the data steward when it happened."
    )

    def __init__(self) -> None:
        super().__init__(self.TEXT)


class TargetMissed(Exception):  # noqa: N818 - the public name says what happened
    """An answer was not as exact as `strict=True` demands; it was read, so it is charged.

    Guarantee: made of the released answer and of public facts. That it was missed is a part of
    that answer, which costs `cost` and is kept: asked without `strict` it is given for nothing.
    """

    def __init__(self, cost: PrivacyLoss, words: str) -> None:
        super().__init__(cost, words)
        self.cost = cost
        self.words = words

    def __str__(self) -> str:
        return (f"{self.words}. That showed in the answer, so it is charged ({self.cost}); "
                "without strict the same answer is free now.")


class LedgerError(Exception):
    """The ledger cannot be used: where it is, what is wrong, and what to do about it.

    It speaks to the data steward, about files and charges only; nothing private is near it.
    """

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        super().__init__(where, problem, remedy)
        self.where = where
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"ledger {self.where}: {self.problem}. {self.remedy}"
