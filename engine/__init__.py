"""Private answers from governed tables: `from engine import Engine, Refused, OverBudget`.

Map of the folder
    api          Engine: the one visible road of a question
    snapshot     the source database to the engine's own governed copy
    ledger       the one writer of budget: ledger_opening finds or makes it, ledger_store is its
                 database, ledger_tables and ledger_rows are its words, ledger_checks what it
                 refuses, ledger_settling what lowers a reservation, ledger_witness its memory
                 elsewhere; answers keeps what was released
    accuracy     the road of a question with an accuracy target
    execution    the one reader of private rows
    training     the road of a training run; tuning of a search for settings; evaluation of
                 measuring a model, published gives released models names for SQL
    table_release  the road of a released table
    release      the one place where noise meets exact numbers
    postprocess  the rest of the user's SQL, on released tables only
    result       what an analyst holds; display and picture show it
    database     the door to DuckDB
    cli          the command `discreet`; demo and clinic are its examples
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.api import Engine
    from engine.budget import Budget
    from engine.errors import Broken, LedgerError, OverBudget, TargetMissed
    from engine.result import Result
    from engine.snapshot import SnapshotError
    from mechanisms.loss import PrivacyLoss
    from planner.plan import Plan
    from planner.policy import PolicyError
    from planner.refusal import Refused

# Heavy libraries load when a name is first used, so that `import engine` stays quick.
_HOMES = {
    "Broken": "engine.errors",
    "Budget": "engine.budget",
    "Engine": "engine.api",
    "LedgerError": "engine.errors",
    "OverBudget": "engine.errors",
    "Plan": "planner.plan",
    "PolicyError": "planner.policy",
    "PrivacyLoss": "mechanisms.loss",
    "Refused": "planner.refusal",
    "Result": "engine.result",
    "SnapshotError": "engine.snapshot",
    "TargetMissed": "engine.errors",
}

__all__ = [
    "Broken", "Budget", "Engine", "LedgerError", "OverBudget", "Plan", "PolicyError",
    "PrivacyLoss", "Refused", "Result", "SnapshotError", "TargetMissed",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)
