"""A relation in, the columns that order its rows within one unit out."""

from __future__ import annotations

from planner.catalog import Kind
from planner.expression import Column
from planner.relation import (
    RANK,
    RANK_NAME,
    Filter,
    Given,
    Join,
    Mark,
    Ordered,
    Relation,
    Scan,
    Summary,
    Union,
    UnitAggregate,
    Window,
)


def order_of(relation: Relation) -> tuple[Column, ...]:
    """Return columns that order a unit's rows completely, but for rows that are all alike.

    Guarantee: the order depends on the unit's own rows and on public rows only. Used to break
    ties, so that no answer depends on how the database happens to order equal rows.
    """
    if isinstance(relation, Scan):
        if relation.kind is Kind.PROTECTED:
            return () if relation.one_row else (Column(relation.source, RANK_NAME, RANK),)
        return relation.columns
    if isinstance(relation, Given):
        return relation.columns
    if isinstance(relation, Join):
        return (*order_of(relation.left), *order_of(relation.right))
    if isinstance(relation, UnitAggregate):
        return tuple(
            Column(relation.source, f"k{i + 1}", key.domain)
            for i, key in enumerate(relation.keys)
        )
    if isinstance(relation, Union):
        return tuple(
            Column(relation.source, f"o{i + 1}", RANK) for i in range(union_order(relation))
        )
    if isinstance(relation, Filter | Window | Mark | Ordered):
        return order_of(relation.input)
    if isinstance(relation, Summary):  # of public rows, which its keys tell apart
        return tuple(
            Column(relation.source, f"k{i + 1}", key.domain)
            for i, key in enumerate(relation.keys)
        )
    return ()


def union_order(union: Union) -> int:
    """Return how many columns order the rows of a union: its branch, and each branch's own."""
    return 1 + max(len(order_of(branch.relation)) for branch in union.branches)


def ranks_of(relation: Relation) -> tuple[Column, ...]:
    """Return the secret random ranks that a relation's rows carry."""
    if isinstance(relation, Scan):
        protected = relation.kind is Kind.PROTECTED and not relation.one_row
        return (Column(relation.source, RANK_NAME, RANK),) if protected else ()
    if isinstance(relation, Join):
        return (*ranks_of(relation.left), *ranks_of(relation.right))
    if isinstance(relation, Filter | Window | Mark):
        return ranks_of(relation.input)
    return ()
