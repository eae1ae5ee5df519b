"""Random questions: a source of choices in, SQL out that uses most of what the planner knows.

The texts need not be sensible; the planner accepts or refuses them, and what it accepts must
hold its promises.
"""

from __future__ import annotations

from random import Random

# Relations with the columns they offer: name -> kind.
VISITS = {"department": "text", "diagnosis": "text", "cost": "number", "los": "number",
          "readmitted": "truth", "visit_date": "date"}
PATIENTS = {"sex": "text", "region": "text", "birth_year": "number"}
LABS = {"test": "text", "value": "number"}
UNIT = "patient_id"


def _columns(alias: str, columns: dict[str, str]) -> list[tuple[str, str]]:
    return [(f"{alias}.{name}", kind) for name, kind in columns.items()]


def scalar(r: Random, columns: list[tuple[str, str]], kind: str, depth: int = 2) -> str:
    """Return an expression of a kind over the given columns."""
    own = [name for name, found in columns if found == kind]
    if depth <= 0 or r.random() < 0.35:
        return r.choice(own) if own else _constant(r, kind)
    sub = lambda wanted: scalar(r, columns, wanted, depth - 1)  # noqa: E731
    if kind == "number":
        return r.choice([
            lambda: f"({sub('number')} + {sub('number')})",
            lambda: f"({sub('number')} * {r.choice(['2', '-1', '0.5'])})",
            lambda: f"FLOOR({sub('number')} / {r.choice(['7', '1000', '-3'])})",
            lambda: f"({sub('number')} % {r.choice(['5', '7', '-3'])})",
            lambda: f"({sub('number')} // {r.choice(['5', '10', '-3'])})",
            lambda: f"CLAMP({sub('number')}, -5, 50)",
            lambda: f"ABS({sub('number')})",
            lambda: f"COALESCE({sub('number')}, 3)",
            lambda: f"CASE WHEN {sub('truth')} THEN {sub('number')} END",
            lambda: f"CASE WHEN {sub('truth')} THEN {sub('number')} ELSE 1.5 END",
            lambda: f"LENGTH({sub('text')})",
            lambda: f"YEAR({sub('date')})",
            lambda: f"ROUND({sub('number')}, {r.choice(['0', '1', '-2'])})",
            lambda: f"NULLIF({sub('number')}, 2)",
            lambda: f"GREATEST({sub('number')}, 2)",
            lambda: f"SQRT({sub('number')})",
        ])()
    if kind == "text":
        return r.choice([
            lambda: f"LEFT({sub('text')}, 2)",
            lambda: f"UPPER({sub('text')})",
            lambda: f"({sub('text')} || {sub('text')})",
            lambda: f"COALESCE({sub('text')}, 'none')",
            lambda: f"CASE WHEN {sub('truth')} THEN 'yes' WHEN {sub('truth')} THEN 'no' END",
            lambda: f"SUBSTR({sub('text')}, {r.choice(['1', '-2', '0'])}, 3)",
            lambda: f"REPLACE({sub('text')}, 'a', 'bb')",
            lambda: f"CAST({sub('truth')} AS VARCHAR)",
        ])()
    if kind == "truth":
        return r.choice([
            lambda: f"({sub('number')} {r.choice(['<', '<=', '>', '>=', '='])} {sub('number')})",
            lambda: f"({sub('number')} > {r.choice(['3', '500', '0'])})",
            lambda: f"({sub('text')} = {_constant(r, 'text')})",
            lambda: f"({sub('text')} LIKE '%a%')",
            lambda: f"({sub('truth')} AND {sub('truth')})",
            lambda: f"({sub('truth')} OR {sub('truth')})",
            lambda: f"(NOT {sub('truth')})",
            lambda: f"({sub(r.choice(['number', 'text', 'date']))} IS NULL)",
            lambda: f"({sub('date')} >= DATE '2020-02-29')",
            lambda: f"({sub('number')} IN (1, 2, 60))",
            lambda: f"({sub('text')} IS NOT DISTINCT FROM {sub('text')})",
        ])()
    return r.choice([
        lambda: f"DATE_TRUNC('{r.choice(['month', 'year', 'week'])}', {sub('date')})",
        lambda: f"({sub('date')} + INTERVAL 30 DAY)",
        lambda: f"CASE WHEN {sub('truth')} THEN {sub('date')} END",
    ])()


def _constant(r: Random, kind: str) -> str:
    return {
        "number": r.choice(["0", "1", "-2", "7.5", "60"]),
        "text": r.choice(["'surgery'", "'F'", "'north'", "''", "'A00.0'"]),
        "truth": r.choice(["TRUE", "FALSE"]),
        "date": r.choice(["DATE '2016-02-29'", "DATE '2026-12-31'"]),
    }[kind]


def relation(r: Random, depth: int = 2) -> tuple[str, list[tuple[str, str]], str | None]:
    """Return FROM's text, the columns it offers, and the name of its patient key."""
    v, p, l = _columns("v", VISITS), _columns("p", PATIENTS), _columns("l", LABS)  # noqa: E741
    on = scalar(r, v + p, "truth", 1)
    choices = [
        ("visits v", v, "v.patient_id"),
        ("patients p", p, "p.patient_id"),
        ("labs l", l, None),
        ("visits v JOIN patients p USING (patient_id)", v + p, "v.patient_id"),
        ("patients p LEFT JOIN visits v ON p.patient_id = v.patient_id", v + p, "p.patient_id"),
        (f"patients p LEFT JOIN visits v ON p.patient_id = v.patient_id AND {on}", v + p,
         "p.patient_id"),
        (f"visits v LEFT JOIN patients p ON v.patient_id = p.patient_id AND {on}", v + p,
         "v.patient_id"),
        ("labs l JOIN visits v USING (visit_id)", l + v, "v.patient_id"),
        ("visits v LEFT JOIN labs l USING (visit_id)", l + v, "v.patient_id"),
        ("labs l JOIN visits v USING (visit_id) JOIN patients p USING (patient_id)", l + v + p,
         "v.patient_id"),
        ("visits v JOIN visits w USING (patient_id)", v + _columns("w", VISITS), "v.patient_id"),
        ("visits v JOIN visits w ON v.visit_id = w.visit_id", v + _columns("w", VISITS),
         "v.patient_id"),
        ("patients p JOIN regions g ON p.region = g.region",
         [*p, ("g.name", "text"), ("g.population", "number")], "p.patient_id"),
        ("visits v JOIN patients p USING (patient_id) LEFT JOIN regions g ON p.region = g.region",
         [*v, *p, ("g.name", "text"), ("g.population", "number")], "v.patient_id"),
    ]
    if depth > 0:
        choices += [_derived(r, depth) for _ in range(8)]
    return r.choice(choices)


def _derived(r: Random, depth: int) -> tuple[str, list[tuple[str, str]], str | None]:
    inner, columns, unit = relation(r, depth - 1)
    where = f" WHERE {scalar(r, columns, 'truth', 1)}" if r.random() < 0.4 else ""
    kinds = [r.choice(["number", "text", "truth"]) for _ in range(3)]
    shown = [f"{scalar(r, columns, kind, 1)} AS c{i}" for i, kind in enumerate(kinds)]
    offered = [(f"t.c{i}", kind) for i, kind in enumerate(kinds)]
    if unit is None:
        return f"(SELECT {', '.join(shown)} FROM {inner}{where}) AS t", offered, None
    number = scalar(r, columns, "number", 1)
    which = r.randrange(6)
    if which == 0:
        return (f"(SELECT {unit} AS pid, {', '.join(shown)} FROM {inner}{where}) AS t", offered,
                "t.pid")
    if which == 1:
        call = r.choice([f"MAX({number})", "COUNT(*)", f"MEDIAN(CLAMP({number}, 0, 100))",
                         f"AVG(CLAMP({number}, 0, 100))", f"SUM(CLAMP({number}, 0, 9))",
                         f"COUNT(DISTINCT {scalar(r, columns, 'text', 1)})"])
        having = " HAVING COUNT(*) > 2" if r.random() < 0.3 else ""
        key = scalar(r, columns, "text", 1)
        if r.random() < 0.5:
            return (f"(SELECT {unit} AS pid, {call} AS c0 FROM {inner}{where} GROUP BY {unit}"
                    f"{having}) AS t", [("t.c0", "number")], "t.pid")
        return (f"(SELECT {unit} AS pid, {key} AS c1, {call} AS c0 FROM {inner}{where} GROUP BY "
                f"{unit}, c1{having}) AS t", [("t.c0", "number"), ("t.c1", "text")], "t.pid")
    if which == 2:
        window = r.choice(["ROW_NUMBER()", "RANK()", "DENSE_RANK()", f"LAG({number})",
                           f"FIRST_VALUE({number})", "COUNT(*)", f"SUM(CLAMP({number}, 0, 9))",
                           f"MIN({number})"])
        by = scalar(r, columns, r.choice(["number", "date", "text"]), 1)
        if not window.startswith(("RANK", "DENSE", "COUNT", "SUM", "MIN")):
            by += f", {_all(columns)}"
        part = f", {scalar(r, columns, 'text', 1)}" if r.random() < 0.3 else ""
        return (f"(SELECT {unit} AS pid, {', '.join(shown)}, {window} OVER (PARTITION BY {unit}"
                f"{part} ORDER BY {by}) AS w FROM {inner}{where}) AS t",
                [*offered, ("t.w", "number")], "t.pid")
    if which == 3:
        second, more, other = relation(r, 0)
        if other is None:
            second, more, other = "patients p", _columns("p", PATIENTS), "p.patient_id"
        same = [f"{scalar(r, more, kind, 1)} AS c{i}" for i, kind in enumerate(kinds)]
        return (f"(SELECT {unit} AS pid, {', '.join(shown)} FROM {inner} UNION ALL SELECT {other} "
                f"AS pid, {', '.join(same)} FROM {second}) AS t", offered, "t.pid")
    if which == 4:
        test = r.choice([
            f"EXISTS (SELECT 1 FROM visits x WHERE x.patient_id = {unit} AND x.los > 5)",
            f"{unit} IN (SELECT patient_id FROM visits WHERE cost > 1000)",
            f"{unit} NOT IN (SELECT x.patient_id FROM labs y JOIN visits x USING (visit_id))",
            f"EXISTS (SELECT 1 FROM visits x JOIN labs y USING (visit_id) "
            f"WHERE x.patient_id = {unit} AND y.value > {scalar(r, columns, 'number', 1)})",
        ])
        return (f"(SELECT {unit} AS pid, {', '.join(shown)} FROM {inner} WHERE {test}) AS t",
                offered, "t.pid")
    rank = f"ROW_NUMBER() OVER (PARTITION BY {unit} ORDER BY {number}, {_all(columns)})"
    return (f"(SELECT {unit} AS pid, {', '.join(shown)} FROM {inner}{where} "
            f"QUALIFY {rank} {r.choice(['<= 3', '= 1', '< 2'])}) AS t", offered, "t.pid")


def _all(columns: list[tuple[str, str]]) -> str:
    """Name every column: rows that tie in all of them are alike, so that no order matters."""
    return ", ".join(name for name, _ in columns)


def question(r: Random) -> str:
    """Return a SELECT with aggregates over patients' rows."""
    text, columns, unit = relation(r)
    keys = [scalar(r, columns, r.choice(["text", "truth", "number", "date"]), r.randrange(3))
            for _ in range(r.choice([0, 0, 1, 1, 2]))]
    calls = []
    for _ in range(r.choice([1, 1, 2, 3])):
        number = scalar(r, columns, "number", 2)
        call = r.choice([
            "COUNT(*)", f"COUNT({number})", f"SUM({number})", f"SUM(CLAMP({number}, -3, 40))",
            f"AVG(CLAMP({number}, 0, 40))", f"AVG({number})",
            f"COUNT(DISTINCT {scalar(r, columns, r.choice(['text', 'number']), 1)})",
            f"COUNT(DISTINCT {unit})" if unit else "COUNT(*)",
            f"MEDIAN(CLAMP({number}, 0, 40))", f"MAX(CLAMP({number}, 0, 40))", f"MIN({number})",
            f"QUANTILE_CONT(CLAMP({number}, -5, 9), 0.9)", f"MODE(CLAMP(FLOOR({number}), 0, 9))",
            f"STDDEV(CLAMP({number}, 0, 9))", f"VAR_POP(CLAMP({number}, 0, 9))",
            f"CORR(CLAMP({number}, 0, 9), CLAMP({scalar(r, columns, 'number', 1)}, 0, 5))",
            f"REGR_SLOPE(CLAMP({number}, 0, 9), CLAMP({scalar(r, columns, 'number', 1)}, 0, 5))",
        ])
        if r.random() < 0.25:
            call += f" FILTER (WHERE {scalar(r, columns, 'truth', 1)})"
        calls.append(call)
    where = ""
    if r.random() < 0.5:
        where = f" WHERE {scalar(r, columns, 'truth', 2)}"
    if r.random() < 0.1:
        mean = r.choice(["AVG(cost)", "MEDIAN(cost)", "COUNT(*)", "STDDEV(cost)"])
        where += f"{' AND' if where else ' WHERE'} {scalar(r, columns, 'number', 1)} < " \
                 f"(SELECT {mean} FROM visits)"
    if r.random() < 0.08:
        text += " CROSS JOIN (SELECT department AS d, COUNT(*) AS n FROM visits GROUP BY 1) AS g"
        columns = [*columns, ("g.d", "text"), ("g.n", "number")]
        keys = [scalar(r, columns, "text", 1)]
    shown = ", ".join(f"{part} AS x{i}" for i, part in enumerate((*keys, *calls)))
    by = f" GROUP BY {', '.join(str(i + 1) for i in range(len(keys)))}" if keys else ""
    return f"SELECT {shown} FROM {text}{where}{by}"


__all__ = ["question", "relation", "scalar"]
