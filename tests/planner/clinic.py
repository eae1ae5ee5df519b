"""The synthetic clinic's catalog, for planner tests that need no data."""

from __future__ import annotations

from pathlib import Path

from engine.clinic import REGIONS, clinic_policy
from planner.catalog import Catalog
from planner.cataloguing import PublicColumn, PublicTable, catalog_of
from planner.domain import Type
from planner.policy import parse_policy

REGION_TABLE = PublicTable(
    name="regions",
    columns=(
        PublicColumn(name="region", type=Type.TEXT, nullable=False, low=None, high=None,
                     values=tuple(REGIONS), rows_per_value=1),
        PublicColumn(name="name", type=Type.TEXT, nullable=False, low=None, high=None,
                     values=tuple(f"Region of {r}" for r in REGIONS), rows_per_value=1),
        PublicColumn(name="population", type=Type.INTEGER, nullable=False, low=150_000,
                     high=1_200_000, values=None, rows_per_value=1),
    ),
    rows=tuple(
        (region, f"Region of {region}", 150_000 * (place + 1))
        for place, region in enumerate(REGIONS)
    ),
)


def clinic_catalog() -> Catalog:
    """Return the catalog of the clinic's policy."""
    policy = parse_policy(clinic_policy("clinic.duckdb"), Path(), "clinic.yaml")
    return catalog_of(policy, (REGION_TABLE,))
