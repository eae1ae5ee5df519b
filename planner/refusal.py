"""Every rule by which a question is refused: reason, example that breaks it, form that passes.

A refusal depends on the question's text, the policy and released answers only, never on a
protected row, so it tells nothing about any patient.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One reason to say no. `refused` breaks it, `accepted` is the nearest form that passes."""

    name: str
    reason: str
    refused: str
    accepted: str


@dataclass(frozen=True, slots=True)
class Position:
    """Where in the user's text, counted from 1; `length` characters are underlined."""

    line: int
    column: int
    length: int = 1


class Refused(Exception):  # noqa: N818  (the public name of the product)
    """A question that is not answered, with the rule, the place and what would be accepted."""

    def __init__(
        self, rule: str, message: str, hint: str = "", position: Position | None = None,
        sql: str = "", instead: str = "",
    ) -> None:
        super().__init__(message)
        self.rule = rule
        self.message = message
        self.hint = hint
        self.position = position
        self.sql = sql
        self.instead = instead

    def located(self, sql: str, instead: str = "") -> Refused:
        """Return the same refusal carrying the user's text, so that it can underline it.

        `instead` is the nearest question that is accepted (planner/repair.py).
        """
        return Refused(self.rule, self.message, self.hint, self.position, sql, instead)

    def __str__(self) -> str:
        parts = [f"refused ({self.rule}): {self.message}"]
        if self.position is not None and self.sql:
            parts.append(underlined(self.sql, self.position))
        if self.hint:
            parts.append(f"accepted instead: {self.hint}")
        if self.instead:
            parts.append(f"{'for example' if self.hint else 'accepted instead'}: {self.instead}")
        return "\n".join(parts)


def underlined(sql: str, position: Position) -> str:
    """Return the guilty line of the text with a line of carets below it."""
    lines = sql.splitlines() or [""]
    if not 1 <= position.line <= len(lines):
        return ""
    line = lines[position.line - 1]
    label = f"  line {position.line}: "
    # A long line is cut around the place, so that one megabyte of text stays readable.
    start = max(0, position.column - 60)
    shown = line[start : start + 100]
    carets = "^" * max(1, min(position.length, 100))
    return f"{label}{shown}\n{' ' * (len(label) + position.column - 1 - start)}{carets}"


# Every rule, in the order of the road. Tests check that each refused text is refused by its rule
# and each accepted text is accepted, on the synthetic clinic.
RULES: tuple[Rule, ...] = (
    Rule("syntax", "The text is not SQL.",
         "SELECT COUNT(* FROM visits", "SELECT COUNT(*) FROM visits"),
    Rule("one-statement", "One question is one statement.",
         "SELECT COUNT(*) FROM visits; SELECT COUNT(*) FROM labs",
         "SELECT COUNT(*) FROM visits"),
    Rule("only-select", "Only SELECT reads; everything else could change settings or data.",
         "DROP TABLE visits", "SELECT COUNT(*) FROM visits"),
    Rule("set-operation", "UNION ALL keeps each row with its patient; nothing else does.",
         "SELECT COUNT(*) FROM (SELECT sex FROM patients UNION SELECT department FROM visits) AS t",
         "SELECT COUNT(*) FROM (SELECT sex FROM patients UNION ALL SELECT department FROM visits) "
         "AS t"),
    Rule("too-large", "Text, depth and size have limits, so that planning stays quick.",
         "SELECT COUNT(*) FROM visits WHERE " + "(" * 200 + "cost > 1" + ")" * 200,
         "SELECT COUNT(*) FROM visits WHERE cost > 1"),
    Rule("unknown-clause", "A part of the statement is not known to the planner, so it is refused.",
         "SELECT COUNT(*) FROM visits TABLESAMPLE 10%", "SELECT COUNT(*) FROM visits"),
    Rule("from", "FROM takes tables of the policy, CTEs and subqueries.",
         "SELECT COUNT(*) FROM (VALUES (1)) AS t(x)", "SELECT COUNT(*) FROM visits"),
    Rule("table-function", "Table functions read files, settings or metadata.",
         "SELECT COUNT(*) FROM read_csv('visits.csv')", "SELECT COUNT(*) FROM visits"),
    Rule("unknown-table", "Only tables that the policy declares exist.",
         "SELECT COUNT(*) FROM duckdb_settings", "SELECT COUNT(*) FROM visits"),
    Rule("ambiguous-table", "Two tables of one FROM need different names.",
         "SELECT COUNT(*) FROM visits JOIN visits USING (patient_id)",
         "SELECT COUNT(*) FROM visits AS a JOIN visits AS b USING (patient_id)"),
    Rule("unknown-column", "Only columns that the policy declares exist.",
         "SELECT AVG(price) FROM visits", "SELECT AVG(cost) FROM visits"),
    Rule("ambiguous-column", "The name stands in several tables.",
         "SELECT COUNT(*) FROM visits AS a JOIN visits AS b USING (patient_id) WHERE cost > 5",
         "SELECT COUNT(*) FROM visits AS a JOIN visits AS b USING (patient_id) WHERE a.cost > 5"),
    Rule("unknown-function", "Only functions of the list exist; each is total on every value.",
         "SELECT COUNT(*) FROM visits WHERE error(diagnosis)",
         "SELECT COUNT(*) FROM visits WHERE diagnosis LIKE 'A%'"),
    Rule("types", "A function got values it is not defined for.",
         "SELECT SUM(department) FROM visits", "SELECT SUM(cost) FROM visits"),
    Rule("subquery", "A subquery stands in FROM, in IN or EXISTS, or is one number.",
         "SELECT EXISTS (SELECT 1 FROM patients WHERE sex = 'F')",
         "SELECT COUNT(*) FROM patients WHERE EXISTS (SELECT 1 FROM visits WHERE "
         "visits.patient_id = patients.patient_id AND cost > 100)"),
    Rule("scalar-subquery", "A subquery used as a value must be one aggregate over all rows.",
         "SELECT COUNT(*) FROM visits WHERE cost > (SELECT cost FROM visits)",
         "SELECT COUNT(*) FROM visits WHERE cost > (SELECT AVG(cost) FROM visits)"),
    Rule("cross-patient-subquery", "The test would look at other patients' rows.",
         "SELECT COUNT(*) FROM patients WHERE EXISTS (SELECT 1 FROM visits WHERE cost > 100)",
         "SELECT COUNT(*) FROM patients WHERE patient_id IN (SELECT patient_id FROM visits WHERE "
         "cost > 100)"),
    Rule("window", "A window function has a known name, an order where it needs one, and no more.",
         "SELECT COUNT(*) FROM (SELECT ROW_NUMBER() OVER (PARTITION BY patient_id) AS n "
         "FROM visits) AS t WHERE n = 1",
         "SELECT COUNT(*) FROM (SELECT ROW_NUMBER() OVER (PARTITION BY patient_id ORDER BY "
         "visit_date) AS n FROM visits) AS t WHERE n = 1"),
    Rule("window-across-patients", "The window would mix different patients' rows.",
         "SELECT COUNT(*) FROM (SELECT LAG(cost) OVER (ORDER BY visit_date) AS c FROM visits) AS t",
         "SELECT COUNT(*) FROM (SELECT LAG(cost) OVER (PARTITION BY patient_id ORDER BY "
         "visit_date) AS c FROM visits) AS t WHERE c > 100"),
    Rule("key-comparison", "Keys compare only with the same key of another table.",
         "SELECT COUNT(*) FROM labs JOIN visits ON labs.lab_id = visits.visit_id",
         "SELECT COUNT(*) FROM labs JOIN visits ON labs.visit_id = visits.visit_id"),
    Rule("cross-patient-join", "The join would put two patients into one row.",
         "SELECT COUNT(*) FROM visits AS a JOIN visits AS b ON a.department = b.department",
         "SELECT COUNT(*) FROM visits AS a JOIN visits AS b ON a.patient_id = b.patient_id"),
    Rule("join-type", "Inner and left (or right) joins keep one patient to a row.",
         "SELECT COUNT(*) FROM patients FULL JOIN visits USING (patient_id)",
         "SELECT COUNT(*) FROM patients LEFT JOIN visits USING (patient_id)"),
    Rule("outer-join", "Rows of an outer public table have no patient; its groups are kept.",
         "SELECT r.region, COUNT(*) FROM regions AS r LEFT JOIN patients AS p "
         "ON r.region = p.region GROUP BY r.region",
         "SELECT r.region, COUNT(p.patient_id) FROM regions AS r LEFT JOIN patients AS p "
         "ON r.region = p.region GROUP BY r.region"),
    Rule("bare-rows", "Patients' rows are never shown, only aggregates of them.",
         "SELECT sex, birth_year FROM patients",
         "SELECT sex, COUNT(*) FROM patients GROUP BY sex"),
    Rule("bare-column", "A column beside an aggregate must be grouped or aggregated.",
         "SELECT department, AVG(cost) FROM visits",
         "SELECT department, AVG(cost) FROM visits GROUP BY department"),
    Rule("aggregate-place", "Aggregates stand in the SELECT list, HAVING and ORDER BY.",
         "SELECT COUNT(*) FROM visits WHERE COUNT(*) > 5",
         "SELECT department, COUNT(*) FROM visits GROUP BY department HAVING COUNT(*) > 5"),
    Rule("unknown-aggregate", "Only the listed aggregates have a bounded sensitivity here.",
         "SELECT STRING_AGG(diagnosis, ',') FROM visits", "SELECT COUNT(DISTINCT diagnosis) "
         "FROM visits"),
    Rule("unbounded", "SUM and AVG need bounds, or one patient could move them without limit.",
         "SELECT SUM(cost / los) FROM visits",
         "SELECT SUM(CLAMP(cost / los, 0, 20000)) FROM visits"),
    Rule("group-by-patient", "One group per patient is a row per patient.",
         "SELECT patient_id, COUNT(*) FROM visits GROUP BY patient_id",
         "SELECT AVG(n) FROM (SELECT patient_id, COUNT(*) AS n FROM visits GROUP BY patient_id) "
         "AS t"),
    Rule("key-output", "Keys name patients and rows; they are never shown.",
         "SELECT visit_id, COUNT(*) FROM visits GROUP BY visit_id",
         "SELECT COUNT(DISTINCT visit_id) FROM visits"),
    Rule("limit-below-release", "ORDER BY and LIMIT over patients' rows pick single rows.",
         "SELECT COUNT(*) FROM (SELECT cost FROM visits ORDER BY cost LIMIT 10) AS t",
         "SELECT department, COUNT(*) AS n FROM visits GROUP BY department ORDER BY n LIMIT 10"),
    Rule("grouping-sets", "Totals of several sets of groups are sums of the finest groups.",
         "SELECT department, COUNT(DISTINCT patient_id) FROM visits GROUP BY ROLLUP (department)",
         "SELECT department, COUNT(*), AVG(cost) FROM visits GROUP BY ROLLUP (department)"),
    Rule("error-target", "An accuracy target is a number or a percentage, for numbers whose error "
         "is followed.",
         "SELECT COUNT(*) FROM visits WITH ERROR small",
         "SELECT COUNT(*) FROM visits WITH ERROR 5%"),
)

# Rules about the call rather than the text.
CALL_RULES: tuple[tuple[str, str], ...] = (
    ("analyst", "The policy names its analysts; a question comes from one of them."),
    ("epsilon", "Epsilon is a positive number, and infinite in insecure testing only."),
    ("delta", "Delta lies in [0, 1); choosing among unknown keys needs it above zero."),
    ("bounds", "bounds= is 'auto' (chosen privately) or 'declared' (the policy's)."),
    ("split", "split= is 'even' or 'auto': counts, sums and averages are refined as they ask for."),
    ("rows", "The rows of a patient that may count are a whole number up to the ceiling."),
    ("batch", "A batch has 1 to 500 questions at one price: no accuracy target or epsilon in one."),
    ("dialect", "A question is written in DuckDB's SQL or in one of the listed dialects."),
    ("training-view", "A training view is a SELECT of patients' rows, each column with a domain."),
    ("label", "The label is one output of the training view with a finite or bounded domain."),
    ("model", "A model is one of the named families, with settings it knows."),
    ("testing", "Seeds and exact numbers are for engines opened with insecure_testing."),
)


def rules_page() -> str:
    """Print all rules as the section of the SQL reference that lists them."""
    lines = ["| rule | why | refused | accepted |", "|---|---|---|---|"]
    for rule in RULES:
        cells = (rule.refused, rule.accepted)
        shown = (f"`{c if len(c) <= 160 else c[:70] + ' ... ' + c[-70:]}`" for c in cells)
        escaped = " | ".join(cell.replace("|", "\\|") for cell in shown)
        lines.append(f"| `{rule.name}` | {rule.reason} | {escaped} |")
    lines += ["", "Rules about the call rather than the text:", "", "| rule | why |", "|---|---|"]
    lines += [f"| `{name}` | {reason} |" for name, reason in CALL_RULES]
    return "\n".join(lines)


if __name__ == "__main__":
    print(rules_page())
