"""Calls of discreet_predict in a SELECT in; each with its published model noted on it, out."""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from planner.catalog import Catalog
from planner.expression import Expression
from planner.formula import Formula, prediction
from planner.scope import refused

NAME = "discreet_predict"
NOTE = "formula"
USE = "discreet_predict('name', a column for each feature)"


def note_models(select: exp.Expression, catalog: Catalog) -> None:
    """Write beside each call of discreet_predict which published model it names.

    Raises Refused where the catalog has no such model, or it cannot stand in SQL.
    """
    for node in select.find_all(exp.Anonymous):
        if str(node.this).lower() == NAME and not isinstance(node.meta.get(NOTE), Formula):
            node.meta[NOTE] = _named(node, catalog)


def _named(node: exp.Anonymous, catalog: Catalog) -> Formula:
    first = node.expressions[0] if node.expressions else None
    known = ", ".join(formula.name for formula in catalog.models) or "none is published yet"
    if not (isinstance(first, exp.Literal) and first.is_string):
        raise refused("model", "discreet_predict names a model by a constant text", USE, node)
    found = next((f for f in catalog.models if f.name == str(first.this).lower()), None)
    if found is None:
        raise refused("model", f"no published model {str(first.this)[:60]!r}", known, node)
    if found.fault:
        raise refused("model", f"the model {found.name} is not usable: {found.fault}",
                      "publish it anew under another name", node)
    return found


def bind_prediction(
    node: exp.Anonymous, bind: Callable[[exp.Expression], Expression]
) -> Expression:
    """Translate a call: its columns in the order of the features, or by their names if none."""
    formula = node.meta.get(NOTE)
    if not isinstance(formula, Formula):
        raise refused("model", "discreet_predict cannot stand here", "a subquery in FROM", node)
    given = node.expressions[1:]
    if not given:
        given = [
            exp.column(exp.to_identifier(feature.name, quoted=True))
            for feature in formula.features
        ]
    return prediction(formula, [bind(child) for child in given])
