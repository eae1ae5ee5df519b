"""The privacy bugs of other systems, one test for each row that touches questions and answers.

Numbers are those of docs/known-privacy-bugs (research note of the same name): what broke there,
and the test it must pass here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import duckdb
import pytest

from engine import Engine, Refused
from engine.clinic import clinic_policy
from engine.database import run
from mechanisms import gaussian, laplace
from planner.catalog import Catalog
from planner.emit import printer_for
from planner.price import Mechanism
from planner.relation import unit_of
from tests.engine.replay import CHANGES, HEAVY, open_clinic, planned, replayed, violations
from tests.planner.clinic import clinic_catalog


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return clinic_catalog()


@pytest.fixture
def paid(base_path: Path, tmp_path: Path) -> Iterator[Engine]:
    """An engine that charges, on a copy of the base clinic."""
    (tmp_path / "clinic.duckdb").write_bytes(base_path.read_bytes())
    (tmp_path / "clinic.yaml").write_text(clinic_policy(tmp_path / "clinic.duckdb", epsilon=90.0))
    with Engine.open(tmp_path / "clinic.yaml") as engine:
        yield engine


def rule(sql: str, catalog: Catalog) -> str:
    with pytest.raises(Refused) as caught:
        planned(sql, catalog)
    return caught.value.rule


def exact(engine: Engine, sql: str, **settings: int) -> list[tuple[object, ...]]:
    return engine.query(sql, epsilon=0.5, noiseless=True, **settings).rows


# ---- 1. the analyser misses part of the query ----------------------------------------------


def test_1_a_redefined_group_column_keeps_no_old_bound(
    catalog: Catalog, clinics: dict[str, Engine]
) -> None:
    """At most one row per patient and department, then another column under the same name."""
    limited = ("SELECT patient_id, department, cost FROM visits QUALIFY ROW_NUMBER() OVER "
               "(PARTITION BY patient_id, department ORDER BY visit_date) = 1")
    sql = (f"WITH one AS ({limited}), same AS (SELECT patient_id, 'all' AS department FROM one) "
           "SELECT department, COUNT(*) FROM same GROUP BY department")
    _, plan = planned(sql, catalog)
    (measure,) = plan.releases[0].measures
    assert measure.l1 >= 13  # twelve departments and NULL, now all in one group
    one = replayed(clinics["base"], sql)
    for change in CHANGES:
        assert list(violations(one, replayed(clinics[change], sql, like=one))) == []


def test_2_exists_in_the_select_list_is_refused(catalog: Catalog) -> None:
    assert rule("SELECT EXISTS (SELECT 1 FROM patients WHERE region = 'north')",
                catalog) == "subquery"
    assert rule("SELECT EXISTS (SELECT 1 FROM patients) FROM regions", catalog) == "subquery"


def test_3_in_a_subquery_is_refused(catalog: Catalog) -> None:
    assert rule("SELECT 'north' IN (SELECT region FROM patients GROUP BY 1)", catalog) == "subquery"
    assert rule("SELECT region IN (SELECT region FROM patients) FROM regions",
                catalog) == "subquery"


@pytest.mark.parametrize("altered", [
    "patient_id + 1", "-patient_id", "patient_id // 2", "COALESCE(patient_id, 0)",
    "CAST(patient_id AS VARCHAR)", "CASE WHEN los > 3 THEN patient_id END", "patient_id % 2",
])
def test_4_an_altered_patient_is_no_patient(altered: str, catalog: Catalog) -> None:
    assert rule(f"SELECT COUNT(DISTINCT m) FROM (SELECT {altered} AS m FROM visits) AS t",
                catalog) == "types"


def test_6_a_join_of_two_patients_is_refused(catalog: Catalog) -> None:
    for on in ("a.region = b.region", "a.sex = b.sex AND a.birth_year = b.birth_year",
               "a.patient_id = b.patient_id OR TRUE", "TRUE", "a.birth_year < b.birth_year"):
        with pytest.raises(Refused):
            planned(f"SELECT COUNT(*) FROM patients a JOIN patients b ON {on}", catalog)


@pytest.mark.parametrize("sql", [
    "SELECT birth_year FROM patients", "SELECT * FROM patients", "SELECT DISTINCT patient_id, "
    "birth_year FROM patients", "SELECT patient_id, COUNT(*) FROM visits GROUP BY patient_id",
    "SELECT cost, LAG(cost) OVER (PARTITION BY patient_id ORDER BY visit_date) FROM visits",
    "SELECT birth_year FROM patients UNION ALL SELECT los FROM visits",
    "SELECT population, (SELECT birth_year FROM patients) FROM regions",
])
def test_7_no_road_returns_rows(sql: str, catalog: Catalog) -> None:
    with pytest.raises(Refused):
        planned(sql, catalog)


@pytest.mark.parametrize("sql", [
    "SELECT COUNT(*) FROM addresses", "SELECT COUNT(*) FROM visits JOIN addresses USING "
    "(patient_id)", "SELECT COUNT(*) FROM __units", "SELECT COUNT(*) FROM __discreet",
    "SELECT COUNT(*) FROM duckdb_tables", "SELECT secret FROM visits",
])
def test_8_what_is_not_declared_does_not_exist(sql: str, catalog: Catalog) -> None:
    assert rule(sql, catalog) in ("unknown-table", "unknown-column")


def test_9_a_bare_column_beside_an_aggregate_is_refused(catalog: Catalog) -> None:
    assert rule("SELECT readmitted, AVG(cost) FROM visits", catalog) == "bare-column"
    assert rule("SELECT department, AVG(cost) FROM visits GROUP BY readmitted",
                catalog) == "bare-column"


def test_10_rows_without_a_patient_are_nobodys(base_path: Path, tmp_path: Path) -> None:
    """A NULL patient id and a NULL group key in one question; LEFT and INNER keep their kinds."""

    def orphans(c: duckdb.DuckDBPyConnection) -> None:
        c.execute("INSERT INTO visits VALUES (777, NULL, NULL, NULL, 'lost', 1, 1, true), "
                  "(778, 123456, NULL, NULL, 'lost', 1, 1, true)")
        c.execute("INSERT INTO patients VALUES (NULL, 'F', 1950, NULL)")

    clean = open_clinic(tmp_path, "clean", base_path, None)
    dirty = open_clinic(tmp_path, "orphans", base_path, orphans)
    for sql in ("SELECT department, COUNT(*) FROM visits GROUP BY department",
                "SELECT COUNT(*) FROM patients LEFT JOIN visits USING (patient_id)",
                "SELECT COUNT(*) FROM visits WHERE diagnosis = 'lost'",
                "SELECT COUNT(DISTINCT patient_id) FROM visits"):
        assert exact(clean, sql) == exact(dirty, sql)
    clean.close()
    dirty.close()


# ---- 2. no noise, or the wrong noise -------------------------------------------------------


def test_11_a_sum_without_bounds_is_refused(catalog: Catalog) -> None:
    for inner in ("cost / los", "LENGTH(diagnosis)", "CAST(diagnosis AS DOUBLE)",
                  "EXP(EXP(cost) * EXP(cost))", "GREATEST(cost / los, 0)", "POW(los, los)"):
        assert rule(f"SELECT SUM({inner}) FROM visits", catalog) == "unbounded"


def test_12_bounds_of_zero_answer_the_constant(paid: Engine) -> None:
    result = paid.query("SELECT SUM(0 * los), SUM(CLAMP(cost, 0, 0)) FROM visits", epsilon=0.5)
    assert result.rows == [(0, 0)]
    assert paid.history() == ()
    for row in result.intervals:
        assert all(i is None or all(math.isfinite(end) for end in i) for i in row)


def test_13_equal_bounds_give_no_nan_and_no_exact_data(paid: Engine) -> None:
    # At this epsilon the noisy count is above zero but once in far more than 1e6 runs; at 0.5 it
    # was not, about once in ten, and an average over nobody is NULL.
    result = paid.query("SELECT SUM(CLAMP(los, 3, 3)), AVG(CLAMP(los, 3, 3)), AVG(CLAMP(los, 0, 0))"
                        " FROM visits", epsilon=40)
    total, mean, zero = result.rows[0]
    assert (mean, zero) == (3.0, 0.0)  # known without looking
    assert math.isfinite(float(total))  # type: ignore[arg-type]
    by_name = {r.name: r for r in result.plan.releases}
    assert by_name["sum(clamp(los, 3, 3))"].mechanism == "laplace"


def test_14_the_sensitivity_of_an_average_ignores_how_many_rows_there_are(
    clinics: dict[str, Engine]
) -> None:
    stated = {
        tuple((r.l1, r.l2, r.scale, r.step) for r in engine.explain(
            "SELECT AVG(cost) FROM visits", epsilon=0.5).releases)
        for engine in clinics.values()
    }
    assert len(stated) == 1


@pytest.mark.parametrize("epsilon", [0.5, 1, 2, 8])
def test_15_16_gaussian_noise_is_calibrated_by_its_exact_delta(
    epsilon: float, base: Engine
) -> None:
    sql = "SELECT visit_date, COUNT(DISTINCT patient_id) FROM visits GROUP BY visit_date"
    plan = base.explain(sql, epsilon=epsilon, delta=1e-6, rows=100)
    assert plan.releases[0].mechanism == "gaussian"
    assert plan.cost.epsilon <= epsilon * (1 + 1e-12)
    assert plan.cost.delta <= 1e-6
    # The analytic formula of Balle and Wang, computed here on its own.
    sigma = plan.releases[0].scale / plan.releases[0].l2
    phi = lambda x: math.erfc(-x / math.sqrt(2)) / 2  # noqa: E731
    delta = phi(0.5 / sigma - epsilon * sigma) - math.exp(epsilon) * phi(-0.5 / sigma - epsilon *
                                                                        sigma)
    assert delta <= 1e-6


def test_17_groups_of_equal_counts_get_independent_noise(base: Engine) -> None:
    result = base.query("SELECT los, COUNT(*) FROM visits WHERE 1 = 0 GROUP BY los", epsilon=0.5)
    assert len({row[1] for row in result.rows}) > 20  # 62 equal zeros


def test_18_noise_cannot_be_repeated_and_no_seed_is_taken(base_path: Path, tmp_path: Path) -> None:
    values = []
    for n in range(2):
        home = tmp_path / str(n)
        home.mkdir()
        (home / "clinic.duckdb").write_bytes(base_path.read_bytes())
        (home / "clinic.yaml").write_text(clinic_policy(home / "clinic.duckdb"))
        with Engine.open(home / "clinic.yaml") as engine:
            # Counts of patients: the exact numbers do not depend on each ledger's secret.
            values.append([engine.query(f"SELECT COUNT(*) FROM patients WHERE birth_year > {year}",
                                        epsilon=0.1).rows for year in range(1950, 1962)])
        with pytest.raises(Refused) as caught:
            Engine.open(home / "clinic.yaml", seed=7)
        assert caught.value.rule == "testing"
    assert values[0] != values[1]


def test_19_every_noised_number_has_discrete_noise_on_a_grid(base: Engine) -> None:
    for sql in ("SELECT SUM(cost), AVG(cost), COUNT(*) FROM visits",
                "SELECT diagnosis, SUM(cost) FROM visits GROUP BY 1"):
        for release in base.explain(sql, epsilon=0.5).releases:
            assert release.mechanism in ("laplace", "gaussian")
            assert math.log2(release.step).is_integer()
            assert release.step <= max(release.scale / 2**20, 1)


def test_20_the_stated_sensitivity_does_not_follow_a_patients_fan_out(
    clinics: dict[str, Engine]
) -> None:
    sql = "SELECT COUNT(*) FROM visits JOIN labs USING (visit_id)"
    stated = {
        engine.explain(sql, epsilon=0.5, delta=0).releases[0].l1 for engine in clinics.values()
    }
    assert len(stated) == 1


@pytest.mark.parametrize("sql", [
    "SET threads = 1", "SET seed = 1", "PRAGMA enable_profiling", "RESET ALL", "CALL x()",
    "SET VARIABLE epsilon = 100", "RESET epsilon", "PRAGMA dp_off", "CHECKPOINT", "LOAD httpfs",
])
def test_21_no_statement_changes_a_setting(sql: str, catalog: Catalog) -> None:
    assert rule(sql, catalog) in ("only-select", "syntax")


def test_22_the_number_of_rows_is_noised_and_charged(paid: Engine) -> None:
    first = paid.query("SELECT COUNT(*) FROM patients", epsilon=0.5)
    assert first.cost.epsilon == pytest.approx(0.5)
    assert first.plan.releases[0].mechanism == "laplace"


def test_5_23_filters_above_read_noisy_numbers_only(base: Engine) -> None:
    """HAVING and an outer WHERE leave the private part of the plan as it is."""
    plain = base.explain("SELECT department, COUNT(*) AS n FROM visits GROUP BY 1", epsilon=0.5)
    having = base.explain("SELECT department, COUNT(*) AS n FROM visits GROUP BY 1 "
                          "HAVING COUNT(*) > 20", epsilon=0.5)
    outer = base.explain("SELECT * FROM (SELECT department, COUNT(*) AS n FROM visits GROUP BY 1) "
                         "AS t WHERE n > 20", epsilon=0.5)
    assert plain.sql == having.sql == outer.sql or (
        plain.releases[0].l1 == having.releases[0].l1 == outer.releases[0].l1
        and "20" not in having.sql and "20" not in outer.sql.replace("<= 20", "")
    )
    kept = set()
    for _ in range(40):  # groups come and go with the noise alone
        rows = base.query("SELECT department, COUNT(*) AS n FROM visits GROUP BY 1 "
                          "HAVING COUNT(*) > 20", epsilon=0.5).rows
        kept.add(len(rows))
        assert all(row[1] > 20 for row in rows)  # type: ignore[operator]
    assert len(kept) > 1


# ---- 3. groups, thresholds, bounding -------------------------------------------------------


def test_24_a_patient_in_very_many_groups_is_in_few_of_them(clinics: dict[str, Engine]) -> None:
    sql = "SELECT diagnosis, COUNT(*) FROM visits GROUP BY diagnosis"
    one = replayed(clinics["base"], sql)
    two = replayed(clinics["with a greedy patient"], sql, like=one)
    new = [key for key, n in two.vectors[-1][2].items() if re.fullmatch(r"H\d+", str(key[0])) and n]
    assert 0 < len(new) <= 20
    (release,) = two.plan.releases
    selection = release.selection
    assert selection is not None
    groups = selection.bounded.strategy.groups
    assert groups == 20
    # Each key alone is shown with probability at most delta / groups.
    laplacian = selection.mechanism is Mechanism.LAPLACE
    tail = laplace.tail_steps if laplacian else gaussian.tail_steps
    assert release.threshold == 1 + tail(selection.scale, two.plan.tail / groups)


def test_26_distinct_values_shared_with_others(clinics: dict[str, Engine]) -> None:
    sql = ("SELECT department, COUNT(DISTINCT test) FROM labs JOIN visits USING (visit_id) "
           "GROUP BY department")
    one = replayed(clinics["base"], sql)
    for change in CHANGES:
        assert list(violations(one, replayed(clinics[change], sql, like=one))) == []


def test_31_which_rows_count_depends_on_the_secret_and_the_patients_own_rows(
    clinics: dict[str, Engine]
) -> None:
    sql = "SELECT COUNT(*) FILTER (WHERE cost > 19980) FROM visits"

    def kept(name: str) -> list[tuple[object, ...]]:
        return run(
            clinics[name]._data.database,
            'SELECT v.visit_id, v."__rank" FROM visits v JOIN visits w ON v.__u = w.__u AND '
            "w.visit_id = 100005 WHERE v.visit_id >= 100000 AND v.visit_id < 100070 "
            "AND v.cost > 19000 ORDER BY ALL",
        ).rows

    assert len(kept("base")) == 70
    for other in ("with a plain patient", "without the first patient", "with a dirty patient"):
        assert kept(other) == kept("base")
    assert exact(clinics["base"], sql, rows=3)[0][0] >= 0  # type: ignore[operator]


@pytest.mark.xfail(strict=True, reason="the snapshot writes ENUM() for a category without values")
def test_32_an_empty_list_of_keys_gives_no_rows_and_no_error(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "c.duckdb")) as c:
        c.execute("CREATE TABLE p (id INT, code VARCHAR); INSERT INTO p VALUES (1, 'a'), (2, 'b')")
        c.execute("CREATE TABLE codes (code VARCHAR)")
    (tmp_path / "c.yaml").write_text(
        f"discreet: 1\ndatabase: {tmp_path}/c.duckdb\nledger: {tmp_path}/c.sqlite\n"
        "budget: {epsilon: 3, delta: 1.0e-6}\nunit: p.id\ntables:\n  p:\n    columns:\n"
        "      id: unit\n      code: {category_of: codes.code, not_null: true}\n  codes: public\n"
    )
    with Engine.open(tmp_path / "c.yaml", insecure_testing=True, seed=7) as engine:
        for sql in ("SELECT code, COUNT(*) FROM p GROUP BY code", "SELECT DISTINCT code FROM p",
                    "SELECT c.code, COUNT(*) FROM p JOIN codes c ON p.code = c.code GROUP BY 1"):
            assert engine.query(sql, epsilon=0.5).rows == []


# ---- 4. accounting -------------------------------------------------------------------------


def test_35_rescaling_a_column_leaves_the_noise_multiplier_alone(base: Engine) -> None:
    ratios = set()
    for factor in ("1", "1000", "0.001"):
        (release,) = base.explain(f"SELECT SUM({factor} * cost) FROM visits",
                                  epsilon=0.5).releases
        ratios.add(round(release.scale / release.l1, 6))
    assert ratios == {2.0}


def test_36_the_charge_comes_first_and_stays(
    paid: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import engine.execution

    order = []
    true = paid._ledger.charge  # type: ignore[union-attr]

    def charge(*args: object, **named: object) -> object:
        order.append("charge")
        return true(*args, **named)  # type: ignore[arg-type]

    def read(*_: object) -> object:
        order.append("read")
        raise RuntimeError("a row: Anna")

    monkeypatch.setattr(type(paid._ledger), "charge", lambda self, *a, **k: charge(*a, **k))
    monkeypatch.setattr(engine.execution, "run_statement", read)
    with pytest.raises(Exception, match="Discreet failed"):
        paid.query("SELECT COUNT(*) FROM visits", epsilon=0.5)
    assert order == ["charge", "read"]
    assert len(paid.history()) == 1


def test_37_another_view_of_the_same_patients_has_the_same_budget(paid: Engine) -> None:
    paid.query("SELECT COUNT(*) FROM visits WHERE los > 1", epsilon=1)
    left = paid.budget().left.epsilon
    paid.query("WITH fresh AS (SELECT * FROM visits) SELECT COUNT(*) FROM fresh AS f WHERE los > 2",
               epsilon=1)
    assert paid.budget().left.epsilon == pytest.approx(left - 1)


# ---- 5. numbers ----------------------------------------------------------------------------


def test_38_a_median_has_the_same_status_on_any_number_of_rows(clinics: dict[str, Engine]) -> None:
    sql = ("SELECT AVG(m) FROM (SELECT patient_id, MEDIAN(los) AS m FROM visits GROUP BY "
           "patient_id) AS t")
    for engine in clinics.values():
        assert len(engine.query(sql, epsilon=0.5).rows) == 1


def test_39_sums_do_not_depend_on_the_order_of_rows(base_path: Path, tmp_path: Path) -> None:
    def shuffled(c: duckdb.DuckDBPyConnection) -> None:
        for table in ("patients", "visits", "labs"):
            c.execute(f"CREATE TABLE t AS SELECT * FROM {table} ORDER BY hash({table}::VARCHAR)")
            c.execute(f"DROP TABLE {table}; ALTER TABLE t RENAME TO {table}")

    one = open_clinic(tmp_path, "one", base_path, None)
    two = open_clinic(tmp_path, "two", base_path, shuffled)
    for sql in ("SELECT SUM(cost * 0.1) FROM visits", "SELECT AVG(value / 3) FROM labs",
                "SELECT AVG(s) FROM (SELECT patient_id, SUM(cost * 0.1) AS s FROM visits GROUP BY "
                "patient_id) AS t"):
        assert replayed(one, sql).vectors == replayed(two, sql).vectors
    one.close()
    two.close()


def test_40_sums_beyond_32_and_64_bits_are_exact(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "c.duckdb")) as c:
        c.execute("CREATE TABLE p AS SELECT i AS id, 9000000000000000 AS x FROM range(3000) t(i)")
    (tmp_path / "c.yaml").write_text(
        f"discreet: 1\ndatabase: {tmp_path}/c.duckdb\nledger: {tmp_path}/c.sqlite\n"
        "budget: {epsilon: 3, delta: 1.0e-6}\nunit: p.id\ntables:\n  p:\n"
        "    one_row_per_unit: true\n    columns:\n      id: unit\n"
        "      x: {integer: [0, 9007199254740992]}\n"
    )
    with Engine.open(tmp_path / "c.yaml", insecure_testing=True, seed=7) as engine:
        for sql in ("SELECT SUM(x) FROM p", "SELECT SUM(x * 1000) FROM p"):
            (found,) = exact(engine, sql)
            wanted = 9e15 * 3000 * (1000 if "*" in sql else 1)
            assert wanted > 2**63
            assert float(found[0]) == pytest.approx(wanted, rel=1e-6)  # type: ignore[arg-type]


def test_41_spreads_within_a_patient_are_finite_and_not_negative(
    clinics: dict[str, Engine]
) -> None:
    for call in ("STDDEV(cost)", "VAR_POP(cost)", "STDDEV_POP(los)", "VARIANCE(cost)"):
        across = clinics["base"].query(f"SELECT {call} FROM visits", epsilon=1e-3).rows[0][0]
        assert across is None or 0 <= across < math.inf  # type: ignore[operator]
        sql = (f"SELECT COUNT(*) FROM (SELECT patient_id, {call} AS x FROM visits GROUP BY 1) AS t "
               "WHERE x < 0")
        for engine in clinics.values():
            assert exact(engine, sql) == [(0,)]


def test_42_43_counts_of_a_column_and_of_rows_are_each_right(base: Engine) -> None:
    sql = "SELECT COUNT(*), COUNT(cost), COUNT(department), COUNT(diagnosis) FROM visits"
    found = base.query(sql, epsilon=math.inf).rows[0]
    assert len(set(found)) == 4
    assert found[0] == max(found)  # type: ignore[type-var]
    bounded = replayed(base, sql)
    assert len({column.key for _, column, _ in bounded.vectors}) == 4


def test_44_extract_keeps_its_part(base: Engine, base_path: Path, tmp_path: Path) -> None:
    (tmp_path / "c.duckdb").write_bytes(base_path.read_bytes())
    for part in ("year", "month", "dow", "week", "quarter", "doy"):
        sql = f"SELECT EXTRACT({part} FROM visit_date) AS x, COUNT(*) AS n FROM visits GROUP BY x"
        with duckdb.connect(str(tmp_path / "c.duckdb"), read_only=True) as c:
            wanted = set(c.execute(sql).fetchall())
        found = set(base.query(f"{sql} HAVING n > 0", epsilon=math.inf).rows)
        assert found == wanted


# ---- 6. the database below -----------------------------------------------------------------


@pytest.mark.parametrize("on", [
    "p.birth_year IS NOT DISTINCT FROM v.los", "p.sex IS NOT DISTINCT FROM v.department",
    "v.los > 3 OR p.sex IS NULL", "v.readmitted IS NOT DISTINCT FROM (p.sex = 'F')",
])
def test_46_rows_a_patient_are_bounded_after_a_left_join(
    on: str, clinics: dict[str, Engine]
) -> None:
    """The bound is counted again on what the database really returned for the join."""
    sql = (f"SELECT COUNT(*) FROM patients p LEFT JOIN visits v ON p.patient_id = v.patient_id "
           f"AND ({on})")
    for engine in clinics.values():
        (measure,) = replayed(engine, sql).plan.releases[0].bounded.measures
        strategy = measure.strategy
        unit = unit_of(strategy.relation)
        printer = printer_for(strategy.relation, [], [unit])
        name = f'"{unit.name}_{unit.source}"'
        source = printer.relation(strategy.relation)
        rows = run(engine._data.database, f"SELECT COUNT(*) FROM {source} GROUP BY {name}").rows
        assert max(row[0] for row in rows) <= strategy.rows


# ---- 7. observed while measuring -----------------------------------------------------------


def test_7a_count_distinct_keeps_its_meaning(base: Engine) -> None:
    found = base.query("SELECT COUNT(DISTINCT los), COUNT(los) FROM visits", epsilon=math.inf).rows
    assert found[0][0] != found[0][1]
    assert found[0][0] <= 61  # type: ignore[operator]


@pytest.mark.parametrize("seed", range(12))
def test_7b_the_events_of_many_columns_never_cost_more_than_asked(
    seed: int, base: Engine
) -> None:
    r = Random(seed)
    calls = ["SUM(cost)", "AVG(cost)", "COUNT(*)", "AVG(los)", "COUNT(DISTINCT diagnosis)",
             "COUNT(DISTINCT patient_id)", "SUM(los) FILTER (WHERE readmitted)"]
    sql = f"SELECT {', '.join(r.sample(calls, r.randrange(2, 7)))} FROM visits"
    if seed % 3 == 0:
        sql = sql.replace("SELECT", "SELECT diagnosis,") + " GROUP BY diagnosis"
    epsilon = r.choice([0.1, 0.5, 1, 3])
    cost = base.explain(sql, epsilon=epsilon, delta=1e-6).full_cost
    assert cost.epsilon <= epsilon * (1 + 1e-12)
    assert cost.delta <= 1e-6


def test_7f_one_nan_row_changes_neither_status_nor_shape(
    base: Engine, base_path: Path, tmp_path: Path
) -> None:
    def add(c: duckdb.DuckDBPyConnection) -> None:
        c.execute(f"INSERT INTO visits VALUES (999, {HEAVY}, NULL, 'surgery', 'x', 'nan'::DOUBLE, "
                  "1, true)")

    other = open_clinic(tmp_path, "nan", base_path, add)
    for sql in ("SELECT SUM(cost), AVG(cost) FROM visits", "SELECT AVG(m) FROM (SELECT patient_id, "
                "MAX(cost) AS m FROM visits GROUP BY patient_id) AS t"):
        one, two = base.query(sql, epsilon=0.5), other.query(sql, epsilon=0.5)
        assert one.table.types == two.table.types
        assert all(math.isfinite(float(x)) for x in two.rows[0])  # type: ignore[arg-type]
    other.close()


def test_a_public_number_beyond_2_to_the_53_multiplies_no_rows(tmp_path: Path) -> None:
    """Was a real bug: whole numbers that differ can be equal as DOUBLE, and fan a row out."""
    with duckdb.connect(str(tmp_path / "c.duckdb")) as c:
        c.execute("CREATE TABLE p (id INT, x DOUBLE); INSERT INTO p VALUES (1, 9007199254740992)")
        c.execute("CREATE TABLE codes AS SELECT 9007199254740992 + i AS code FROM range(2) t(i)")
    (tmp_path / "c.yaml").write_text(
        f"discreet: 1\ndatabase: {tmp_path}/c.duckdb\nledger: {tmp_path}/c.sqlite\n"
        "budget: {epsilon: 3, delta: 1.0e-6}\nunit: p.id\ntables:\n  p:\n"
        "    one_row_per_unit: true\n    columns:\n      id: unit\n"
        "      x: {real: [0, 1.0e+17]}\n  codes: public\n"
    )
    with Engine.open(tmp_path / "c.yaml", insecure_testing=True, seed=7) as engine:
        run_ = replayed(engine, "SELECT COUNT(*) FROM p JOIN codes c ON p.x = c.code")
        ((_, column, vector),) = run_.vectors
        assert sum(vector.values()) <= column.l1
