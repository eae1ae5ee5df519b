"""What is wrong with a policy, as pydantic or a draft's TODO says it, in; our words for it out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from planner.policy_text import Loc, Wrong, nearest

_TODO_HINTS: Mapping[str, str] = MappingProxyType({
    "unit": "write 'table.column', the column that names the patient",
    "unit_path": "write the references column that leads to the patient who owns the row",
    "references": "write the table whose key this is, as in {references: visits}",
    "category": "write every value the column may take, as in [F, M], from public knowledge",
    "integer": "write [lowest, highest] from public knowledge, never from the data: [0, 120]",
    "real": "write [lowest, highest] from public knowledge, never from the data: [0, 500]",
    "date": "write [first, last] from public knowledge: [2015-01-01, 2026-12-31]",
    "timestamp": "write [first, last] from public knowledge: [2015-01-01, 2026-12-31]",
    "image": "write its sides and channels, as in [28, 28, 1]",
})
_EXAMPLES: Mapping[str, str] = MappingProxyType({
    "discreet": "'discreet: 1'",
    "database": "'database: clinic.duckdb'",
    "ledger": "'ledger: clinic.ledger.sqlite'",
    "budget": "'budget: {epsilon: 3.0, delta: 1e-6}'",
    "epsilon": "'epsilon: 1.0'",
    "delta": "'delta: 1e-6'",
    "unit": "'unit: patients.patient_id'",
    "tables": "'tables:' and the tables below it",
})


def todo_text(loc: Loc) -> str:
    """Say what to write in a place that a draft left open."""
    if loc[:-1] == ("tables",):
        return "is still TODO; write 'public', or its columns with a reference to the patient"
    if len(loc) > 1 and loc[-2] == "columns":
        return "is still TODO; write the column's type, such as text or {integer: [0, 120]}"
    kind = next((str(step) for step in reversed(loc) if step in _TODO_HINTS), "")
    return f"is still TODO; {_TODO_HINTS.get(kind, 'write its value')}"


def touches(loc: Loc, todo: Loc) -> bool:
    """Say whether a fault comes from an open place: at it, below it, or of the column around it."""
    shorter = min(len(loc), len(todo))
    return loc[:shorter] == todo[:shorter] and len(loc) >= min(len(todo), 4)


def faults_of(
    details: Mapping[str, Any], fields: Mapping[object, list[str]]
) -> list[tuple[Loc, str]]:
    """Turn one of pydantic's errors into our words. `fields` lists what may stand in each part."""
    loc: Loc = tuple(details["loc"])
    error = details.get("ctx", {}).get("error")
    if isinstance(error, Wrong):
        return [((*loc, *inner), text) for inner, text in error.faults]
    if error is not None:
        return [(loc, str(error))]
    if details["type"] == "missing":
        return [(loc, f"is missing; write {_EXAMPLES.get(str(loc[-1]), 'it')}")]
    if details["type"] == "extra_forbidden":
        part = loc[0] if len(loc) > 1 else ""
        return [(loc, f"is no field here; {nearest(str(loc[-1]), fields[part])}")]
    return [(loc, f"{details['msg']}; see the policy reference")]
