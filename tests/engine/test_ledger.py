"""The ledger in one process: what it charges, refuses, remembers and hands out."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import threading
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.schema import CreateTable

from engine.errors import Broken, LedgerError, OverBudget
from engine.ledger import Ledger, Receipt
from engine.ledger_rows import COLUMNS
from engine.ledger_tables import Statements, charges_table
from mechanisms.loss import PrivacyLoss

EPSILON, DELTA = Decimal(1), Decimal("1e-6")
FACTS: dict[str, Any] = {
    "analyst": "ana",
    "quota": None,
    "events_json": '{"version": 1, "events": []}',
    "sql": "SELECT count(*) FROM visits",
    "plan_hash": "a" * 64,
    "policy_hash": "b" * 64,
    "data_version": "v1",
}


def loss(epsilon: str, delta: str = "0", rdp: str = "1000") -> PrivacyLoss:
    """A loss on rail A; the default rdp is far above rail B's cap, so that rail A decides."""
    return PrivacyLoss(Decimal(epsilon), Decimal(delta), Decimal(rdp))


def charge(ledger: Ledger, price: PrivacyLoss, **facts: Any) -> Receipt:
    return ledger.charge(price, **{**FACTS, **facts})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "clinic.ledger", EPSILON, DELTA) as opened:
        yield opened


def test_a_new_ledger_has_spent_nothing(ledger: Ledger) -> None:
    assert ledger.spent() == ledger.spent("ana") == PrivacyLoss.zero()
    assert ledger.history() == ()
    assert ledger.head()[0] == 0
    assert ledger.verify() == 0
    assert ledger.left() == ledger.filter.left(PrivacyLoss.zero())
    assert ledger.left().exact_rdp > 0


def test_a_charge_is_remembered_with_all_its_facts(ledger: Ledger, tmp_path: Path) -> None:
    receipt = charge(ledger, loss("0.25"))
    assert (receipt.seq, receipt.loss) == (1, loss("0.25"))
    assert (receipt.plan_hash, receipt.data_version) == ("a" * 64, "v1")
    with Ledger.open(tmp_path / "clinic.ledger", EPSILON, DELTA) as again:
        (row,) = again.history()
        assert again.head() == ledger.head() == (1, row.hash)
    assert (row.analyst, row.sql, row.policy_hash) == ("ana", FACTS["sql"], "b" * 64)
    assert row.events_json == FACTS["events_json"]
    assert row.time.endswith("+00:00")
    assert row.loss == row.total == row.analyst_total == loss("0.25")


def test_ten_tenths_are_exactly_one_and_not_a_hair_more_fits(ledger: Ledger) -> None:
    for _ in range(10):
        charge(ledger, loss("0.1"))
    assert ledger.spent().exact_epsilon == 1
    with pytest.raises(OverBudget, match="the global budget cannot pay"):
        charge(ledger, loss("0.000000000001"))
    assert ledger.verify() == 10


def test_over_budget_says_the_numbers_and_charges_nothing(ledger: Ledger) -> None:
    charge(ledger, loss("0.75"))
    before = ledger.head()
    with pytest.raises(OverBudget) as refusal:
        charge(ledger, loss("0.5"))
    assert refusal.value.asked == loss("0.5")
    assert refusal.value.left.exact_epsilon == Decimal("0.25")
    assert refusal.value.who == "the global budget"
    assert "epsilon 0.5" in str(refusal.value)
    assert "A release with epsilon at most 0.25 and delta at most " in str(refusal.value)
    assert ledger.head() == before
    assert str(pickle.loads(pickle.dumps(refusal.value))) == str(refusal.value)  # noqa: S301


def test_what_is_said_to_fit_does_fit(ledger: Ledger) -> None:
    charge(ledger, loss("0.333333333333"))
    left = ledger.left()
    charge(ledger, PrivacyLoss(left.exact_epsilon, Decimal(0), Decimal(1000)))
    assert ledger.spent().exact_epsilon == 1


def test_rail_b_goes_on_when_rail_a_is_used_up(ledger: Ledger) -> None:
    cheap = PrivacyLoss(Decimal("0.9"), Decimal("1e-7"), Decimal("0.01"), Decimal("1e-7"))
    for _ in range(4):
        charge(ledger, cheap)
    left = ledger.left()
    assert left.exact_epsilon == left.exact_delta == 0
    with pytest.raises(OverBudget, match="Gaussian noise with rdp at most"):
        charge(ledger, loss("0.1"))
    charge(ledger, PrivacyLoss(Decimal(9), Decimal(0), left.exact_rdp))
    with pytest.raises(OverBudget, match="no new release fits"):
        charge(ledger, loss("0.1"))
    assert ledger.verify() == 5


def test_a_rail_closed_by_its_delta_has_nothing_left(ledger: Ledger) -> None:
    delta = ledger.left().exact_delta  # all of rail A's, and more floor delta than rail B has
    charge(ledger, PrivacyLoss(Decimal("0.1"), delta, Decimal("0.01")))
    assert ledger.left().exact_rdp == 0
    assert ledger.left().exact_epsilon == Decimal("0.9")


def test_an_analyst_stops_at_the_quota_and_others_go_on(ledger: Ledger) -> None:
    quota = Decimal("0.3")
    for _ in range(3):
        charge(ledger, loss("0.1"), quota=quota)
    with pytest.raises(OverBudget, match="analyst ana cannot pay") as refusal:
        charge(ledger, loss("0.1"), quota=quota)
    assert refusal.value.left.exact_epsilon == 0
    assert ledger.left("ana", quota).exact_epsilon == 0
    charge(ledger, loss("0.1"), analyst="ben", quota=quota)
    assert ledger.spent("ana").exact_epsilon == Decimal("0.3")
    assert ledger.spent("ben").exact_epsilon == Decimal("0.1")
    assert ledger.spent().exact_epsilon == Decimal("0.4")
    assert ledger.spent("nobody") == PrivacyLoss.zero()


def test_a_quota_above_the_global_budget_buys_nothing_more(ledger: Ledger) -> None:
    charge(ledger, loss("1"), analyst="ben")
    with pytest.raises(OverBudget, match="the global budget"):
        charge(ledger, loss("0.1"), quota=Decimal(100))
    assert ledger.left("ana", Decimal(100)) == ledger.left()


def test_a_loss_of_zero_is_recorded(ledger: Ledger) -> None:
    charge(ledger, loss("1"))
    assert charge(ledger, PrivacyLoss.zero()).seq == 2
    assert ledger.spent().exact_epsilon == 1


@pytest.mark.parametrize(
    "field", ["exact_epsilon", "exact_delta", "exact_rdp", "exact_quoted_delta"]
)
@pytest.mark.parametrize(
    "value",
    ["NaN", "sNaN", "-NaN", "Infinity", "-Infinity", "-1", "-1E-12", "-0", "1E-25", "1E31", 0.1],
)
def test_what_is_no_loss_is_refused(ledger: Ledger, field: str, value: str | float) -> None:
    # Past the checks of PrivacyLoss itself: the ledger does not rely on them.
    bad = PrivacyLoss(Decimal(1), Decimal(1), Decimal(1))
    object.__setattr__(bad, field, Decimal(value) if isinstance(value, str) else value)
    with pytest.raises(ValueError, match=field.removeprefix("exact_")):
        charge(ledger, bad)
    assert ledger.head()[0] == 0


@pytest.mark.parametrize("quota", [Decimal("NaN"), Decimal(-1), Decimal("Infinity"), 0.5])
def test_a_bad_quota_is_refused(ledger: Ledger, quota: Any) -> None:
    with pytest.raises(ValueError, match="quota of ana"):
        charge(ledger, loss("0.1"), quota=quota)
    with pytest.raises(ValueError, match="needs the name"):
        charge(ledger, loss("0.1"), quota=Decimal(1), analyst="")
    assert ledger.head()[0] == 0


@pytest.mark.parametrize("text", ["a\0b", "\ud800", None, b"bytes"])
def test_text_that_would_change_on_the_way_is_refused(ledger: Ledger, text: Any) -> None:
    with pytest.raises(ValueError, match="sql of a charge"):
        charge(ledger, loss("0.1"), sql=text)
    assert ledger.head()[0] == 0


def test_any_other_text_comes_back_as_it_was(ledger: Ledger) -> None:
    sql = "SELECT 'Zoë ☂ 😀 \u2028 \\ \"'' \r\n\t' -- ; DROP TABLE discreet_charges"
    charge(ledger, loss("0.1"), sql=sql, analyst="Zoë '; --")
    assert ledger.history()[0].sql == sql
    assert ledger.spent("Zoë '; --").exact_epsilon == Decimal("0.1")
    assert ledger.verify() == 1


def test_history_gives_the_newest_oldest_first(ledger: Ledger) -> None:
    for name in ("ana", "ben", "ana", "", "ana"):
        charge(ledger, loss("0.1"), analyst=name)
    assert [row.seq for row in ledger.history()] == [1, 2, 3, 4, 5]
    assert [row.seq for row in ledger.history(2)] == [4, 5]
    assert [row.seq for row in ledger.history(2, "ana")] == [3, 5]
    assert [row.seq for row in ledger.history(analyst="")] == [4]
    assert ledger.history(0) == ()
    with pytest.raises(ValueError, match="limit"):
        ledger.history(-1)


def test_a_receipt_cannot_be_forged_or_copied(ledger: Ledger) -> None:
    facts = {"seq": 1, "loss": loss("0"), "data_version": "v1", "plan_hash": "a" * 64}
    with pytest.raises(TypeError):
        Receipt(**facts)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Ledger\.charge only"):
        Receipt(**facts, made_by=object())  # type: ignore[arg-type]
    receipt = charge(ledger, loss("0.1"))
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(receipt, plan_hash="c" * 64)  # type: ignore[call-arg]
    for copying in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied"):
            copying(receipt)
    with pytest.raises(dataclasses.FrozenInstanceError):
        receipt.seq = 2  # type: ignore[misc]


def test_a_receipt_pays_for_one_run_of_what_was_charged(ledger: Ledger) -> None:
    receipt = charge(ledger, loss("0.1"))
    for plan, data in (("c" * 64, "v1"), ("a" * 64, "v2")):
        with pytest.raises(Broken):
            ledger.redeem(receipt, plan_hash=plan, data_version=data)
    ledger.redeem(receipt, plan_hash="a" * 64, data_version="v1")
    with pytest.raises(Broken):
        ledger.redeem(receipt, plan_hash="a" * 64, data_version="v1")


def test_a_receipt_made_behind_the_ledgers_back_buys_nothing(ledger: Ledger) -> None:
    receipt = charge(ledger, loss("0.1"))
    forged = object.__new__(Receipt)
    for field in dataclasses.fields(Receipt):
        object.__setattr__(forged, field.name, getattr(receipt, field.name))
    with pytest.raises(Broken):
        ledger.redeem(forged, plan_hash="a" * 64, data_version="v1")


def test_only_one_of_many_threads_redeems(ledger: Ledger) -> None:
    receipt = charge(ledger, loss("0.1"))
    redeemed = []

    def redeem() -> None:
        try:
            ledger.redeem(receipt, plan_hash="a" * 64, data_version="v1")
            redeemed.append(1)
        except Broken:
            pass

    _run_threads([redeem] * 8)
    assert len(redeemed) == 1


def test_threads_share_a_ledger(ledger: Ledger) -> None:
    outcomes: list[bool] = []

    def spend() -> None:
        for _ in range(10):
            try:
                charge(ledger, loss("0.05"))
                outcomes.append(True)
            except OverBudget:
                outcomes.append(False)
            ledger.spent()

    _run_threads([spend] * 6)
    assert (outcomes.count(True), outcomes.count(False)) == (20, 40)
    assert ledger.verify() == 20


def test_two_ledgers_on_one_file_in_one_process_agree(ledger: Ledger, tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "clinic.ledger", EPSILON, DELTA) as other:
        for turn in range(20):
            charge((ledger, other)[turn % 2], loss("0.05"))
        for one in (ledger, other):
            with pytest.raises(OverBudget):
                charge(one, loss("0.05"))


def test_broken_has_one_fixed_text() -> None:
    assert str(Broken()) == Broken.TEXT
    with pytest.raises(TypeError):
        Broken("a row of the table")  # type: ignore[call-arg]


def test_a_closed_ledger_says_so(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "x", EPSILON, DELTA)
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        charge(ledger, loss("0.1"))


@pytest.mark.parametrize(
    ("epsilon", "delta"), [("0", "0.1"), ("-1", "0"), ("NaN", "0"), ("Infinity", "0"), ("1", "1")]
)
def test_a_budget_that_is_none_is_refused(tmp_path: Path, epsilon: str, delta: str) -> None:
    with pytest.raises(ValueError, match="_total must be"):
        Ledger.open(tmp_path / "x", Decimal(epsilon), Decimal(delta))
    assert not (tmp_path / "x").exists()


amounts = st.builds(
    lambda epsilon, delta, rdp, share: PrivacyLoss.of(epsilon, delta, rdp, delta * share),
    st.fractions(0, Fraction(1, 3), max_denominator=10**6),
    st.one_of(st.just(Fraction(0)), st.fractions(0, Fraction(1, 10**6), max_denominator=10**9)),
    st.fractions(0, 3, max_denominator=10**6),
    st.fractions(0, 1, max_denominator=10),
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(amounts, st.sampled_from(["", "ana", "ben"]), st.booleans()), max_size=20)
)
def test_sums_are_exact_and_every_prefix_is_admitted(
    asked: list[tuple[PrivacyLoss, str, bool]],
) -> None:
    with TemporaryDirectory() as folder, Ledger.open(Path(folder) / "x", EPSILON, DELTA) as ledger:
        paid: list[tuple[PrivacyLoss, str]] = []
        for price, analyst, limited in asked:
            before = PrivacyLoss.total(p for p, _ in paid)
            own = PrivacyLoss.total(p for p, who in paid if who == analyst)
            quota = Decimal("0.4") if limited and analyst else None
            fits = ledger.filter.admits(before, price) and (
                quota is None or (own + price).exact_epsilon <= quota
            )
            try:
                charge(ledger, price, analyst=analyst, quota=quota)
            except OverBudget:
                assert not fits
            else:
                assert fits
                paid.append((price, analyst))
            assert ledger.spent() == PrivacyLoss.total(p for p, _ in paid)
            assert ledger.spent(analyst) == PrivacyLoss.total(
                p for p, who in paid if who == analyst
            )
        rows = ledger.history()
        assert [(row.loss, row.analyst) for row in rows] == paid
        before = PrivacyLoss.zero()
        for row in rows:
            assert ledger.filter.admits(before, row.loss)
            before = row.total
        assert ledger.verify() == len(paid)


def _run_threads(tasks: list[Any]) -> None:
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_the_same_statements_fit_postgresql() -> None:
    dialect = PGDialect()  # type: ignore[no-untyped-call]
    statements = Statements(dialect)
    for statement in vars(statements).values():
        assert statement._names is None  # PostgreSQL's drivers take names
    assert statements.insert._order == COLUMNS
    assert "FOR UPDATE" in statements.lock._text
    assert "%(analyst)s" in statements.newest_of._text
    assert "seq BIGINT NOT NULL" in str(CreateTable(charges_table).compile(dialect=dialect))


def test_a_psycopg_statement_has_room_for_every_number() -> None:
    statements = Statements(PGDialect_psycopg())  # type: ignore[no-untyped-call]
    for name in ("newest", "newest_of", "after"):
        text = getattr(statements, name)._text
        assert "%(most)s::BIGINT" in text  # history() without a limit asks for 2**62 rows
        assert "INTEGER" not in text


def test_threads_read_while_others_charge(ledger: Ledger) -> None:
    """No reader takes a head for an older one than another thread has seen meanwhile."""
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(150):
                ledger.spent()
                ledger.history(1, "ana")
                ledger.verify()
        except BaseException as failure:
            failures.append(failure)

    def spend() -> None:
        for _ in range(100):
            charge(ledger, loss("0.001"))

    _run_threads([read, spend, read])
    assert not failures
