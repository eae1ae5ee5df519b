"""A policy, its snapshot's report and rows in; what the steward should look at again, out.

Bounds that are too tight or absurd, a road to the patient that drops rows, domains so small that
few patients share a value, columns that look like identifiers, a budget that protects little.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING

from engine.audit_findings import Finding, Level
from engine.database import quoted, run
from engine.snapshot_report import ColumnReport, TableReport
from planner.policy import ColumnPolicy, Policy

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from engine.snapshot import Snapshot

SECTION = "policy"
EPSILON_MUCH = 10  # beyond it a patient's bit may be guessed right 99.995 times in 100
DROPPED_SHARE = 0.01
CLAMPED_SHARE = 0.05
USED_SHARE = 0.1  # of the declared width: below, noise is ten times what it need be
DISTINCT_SHARE = 0.9  # of the patients: above, a column tells them apart
FEW_PATIENTS = 5
WIDTH_MAX = 1e9
IDENTIFIERS = re.compile(
    r"(^|_)(name|surname|first_?name|last_?name|ssn|nhs|mrn|nino|insurance|phone|mobile|fax|"
    r"e?mail|address|street|zip|postcode|postal|plz|passport|licen[cs]e|account|iban|url|ip|"
    r"birth_?date|date_?of_?birth|dob|lat|latitude|lon|longitude)(_|$)", re.IGNORECASE)


def policy_findings(policy: Policy) -> Iterator[Finding]:
    """Look at what is declared; nothing here reads a row."""
    yield from _budget_findings(policy)
    for name, table in policy.tables.items():
        for column, declared in table.columns.items():
            yield from _column_findings(f"{name}.{column}", column, declared)


def data_findings(
    policy: Policy, snapshot: Snapshot, database: DuckDBPyConnection
) -> Iterator[Finding]:
    """Compare the declarations with the rows. Private: for the steward only."""
    for table in snapshot.report.tables:
        yield from _row_findings(table)
        for column in table.columns:
            kept = max(1, table.read)
            yield from _fit_findings(f"{table.name}.{column.name}", column, kept)
        declared = policy.tables[table.name].columns
        for name, column_policy in declared.items():
            yield from _value_findings(table, name, column_policy, database)


def _budget_findings(policy: Policy) -> Iterator[Finding]:
    epsilon, delta = policy.budget.epsilon, policy.budget.delta
    if epsilon > EPSILON_MUCH:
        yield Finding(SECTION, Level.WARNING, "budget.epsilon",
                      f"{epsilon} in total: one patient's secret bit could be guessed right "
                      "almost always", "a total of 1 to 5")
    if policy.units is not None and delta * policy.units > 1:
        yield Finding(SECTION, Level.WARNING, "budget.delta",
                      f"{delta} is above one in {policy.units:,} patients: one patient's whole "
                      "record could be shown within it", f"below {1 / policy.units / 100:.0e}")
    if policy.witness is None:
        yield Finding(SECTION, Level.WARNING, "witness", "no witness is named: a restored backup "
                      "of the ledger would go unnoticed and give spent budget back",
                      "witness: a path on another disk")
    if not policy.analysts:
        yield Finding(SECTION, Level.NOTE, "analysts", "no analysts are named: the first who asks "
                      "may spend all of the budget", "analysts: {ana: {epsilon: 1.0}}")
    if policy.defaults.max_rows_per_unit < policy.defaults.rows_per_unit:
        yield Finding(SECTION, Level.NOTE, "defaults", "rows_per_unit is above max_rows_per_unit, "
                      "which decides", "a lower rows_per_unit")


def _column_findings(subject: str, name: str, declared: ColumnPolicy) -> Iterator[Finding]:
    if IDENTIFIERS.search(name) and declared.kind not in ("unit", "key", "references"):
        yield Finding(SECTION, Level.WARNING, subject, "looks like something that names a person; "
                      "analysts can pick patients out with it", "leave the column out, or make it "
                      "coarser: a region, a decade")
    low, high = declared.low, declared.high
    if isinstance(low, int | float) and isinstance(high, int | float):
        if high == low:
            yield Finding(SECTION, Level.NOTE, subject, f"both bounds are {low}: every value is "
                          "that constant", "the range that values can have")
        elif high - low > WIDTH_MAX:
            yield Finding(SECTION, Level.WARNING, subject, f"bounds {low} to {high}: a sum gets "
                          "noise of that size", "what is plausible for one row")
    if isinstance(low, date) and isinstance(high, date) and high.year - low.year > 300:
        yield Finding(SECTION, Level.WARNING, subject, f"bounds {low} to {high} are "
                      f"{high.year - low.year} years apart", "the years of the study")
    if declared.kind == "category" and declared.values is not None and len(declared.values) < 2:
        yield Finding(SECTION, Level.NOTE, subject, f"has {len(declared.values)} value: it tells "
                      "nothing", "all values that can occur")


def _row_findings(table: TableReport) -> Iterator[Finding]:
    read = max(1, table.read)
    for count, words, remedy in (
        (table.no_unit, "rows lead to no patient and are dropped",
         "check the column that refers to the patient, and unit_path"),
        (table.duplicates, "rows are further rows of a patient who may have one",
         "one_row_per_unit: false"),
        (table.over_ceiling, "rows lie beyond max_rows_per_unit and are dropped",
         "a higher max_rows_per_unit"),
        (table.not_null, "rows have NULL in a not_null column and are dropped",
         "without not_null"),
        (table.copied, "rows belong to several patients and are copied to each",
         "check whether the key that they refer to is unique"),
    ):
        if count:
            level = Level.WARNING if count / read > DROPPED_SHARE else Level.NOTE
            yield Finding(SECTION, level, table.name, f"{count:,} of {table.read:,} {words}",
                          remedy, private=True)
    if not table.kept:
        yield Finding(SECTION, Level.WARNING, table.name, "no row is left", "check the source and "
                      "the road to the patient", private=True)


def _fit_findings(subject: str, column: ColumnReport, read: int) -> Iterator[Finding]:
    for count, words, remedy in (
        (column.low, "are below the lower bound and raised to it", "a lower bound that is lower"),
        (column.high, "are above the upper bound and lowered to it", "a higher upper bound"),
        (column.outside, "are outside the categories and become NULL",
         "the missing categories, or other:"),
        (column.failed, "are not of the declared type and become NULL", "the right type"),
        (column.not_finite, "are NaN or infinite and become NULL", ""),
    ):
        if count:
            level = Level.WARNING if count / read > CLAMPED_SHARE else Level.NOTE
            yield Finding(SECTION, level, subject, f"{count:,} of {read:,} values {words}", remedy,
                          private=True)


def _value_findings(
    table: TableReport, name: str, declared: ColumnPolicy, database: DuckDBPyConnection
) -> Iterator[Finding]:
    """Look at the values themselves: how wide, how many, how rare."""
    subject, source, column = f"{table.name}.{name}", quoted(table.name), quoted(name)
    if declared.kind in ("unit", "key", "references", "image") or not table.kept:
        return
    ends = (declared.low, declared.high)
    if declared.kind in ("integer", "real") and isinstance(ends[0], int | float) and (
        isinstance(ends[1], int | float) and ends[1] > ends[0]
    ):
        ((low, high),) = run(database, f"SELECT quantile_cont({column}, 0.001), "
                             f"quantile_cont({column}, 0.999) FROM {source}").rows
        if low is not None and (high - low) / (ends[1] - ends[0]) < USED_SHARE:
            yield Finding(SECTION, Level.WARNING, subject, f"nearly all values lie between {low:g} "
                          f"and {high:g}, the bounds are {ends[0]:g} to {ends[1]:g}: noise is "
                          f"{(ends[1] - ends[0]) / max(high - low, 1e-12):.0f} times what it need "
                          "be", "tighter bounds from public knowledge, or loose: true",
                          private=True)
    if declared.kind in ("text", "integer"):
        ((distinct, units),) = run(database, f"SELECT COUNT(DISTINCT {column}), "
                                   f"COUNT(DISTINCT __u) FROM {source}").rows
        if units > 20 and distinct > DISTINCT_SHARE * units and table.units == table.kept:
            yield Finding(SECTION, Level.WARNING, subject, f"has {distinct:,} values for "
                          f"{units:,} patients: it tells them apart like a name", "leave it out, "
                          "or make it coarser", private=True)
    if declared.kind in ("category", "category_of", "boolean"):
        rows = run(database, f"SELECT COUNT(*) FROM (SELECT {column} FROM {source} WHERE {column} "
                   f"IS NOT NULL GROUP BY {column} HAVING COUNT(DISTINCT __u) < {FEW_PATIENTS})"
                   ).rows
        if rows[0][0]:
            yield Finding(SECTION, Level.NOTE, subject, f"{rows[0][0]:,} values are those of fewer "
                          f"than {FEW_PATIENTS} patients: their groups will be noise", "coarser "
                          "categories, or other:", private=True)


__all__ = ["data_findings", "policy_findings"]
