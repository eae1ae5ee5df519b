"""What an audit finds: one frozen line each, and whether it tells of patients' rows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad a finding is."""

    BROKEN = "broken"  # the promise does not hold, or could not be checked
    WARNING = "warning"  # worth a change of the policy
    NOTE = "note"  # worth knowing
    FINE = "fine"  # checked, and as it should be


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. `private`: its words come from patients' rows, so only the steward may
    read them."""

    section: str
    level: Level
    subject: str
    words: str
    remedy: str = ""
    private: bool = False


__all__ = ["Finding", "Level"]
