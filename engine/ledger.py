"""The durable budget: a priced request comes in; its receipt goes out when the charge is on disk.

One database file (or one PostgreSQL database) holds the filter that decides, every charge ever
made, and the kept answers (`engine.answers`). Rows are only ever added. Each charge carries the
running sums and the hash of the row before it, so a decision reads two rows and `verify` can
replay everything. A charge that reserved more than it came to cost is settled by a new row
(engine/ledger_settling.py), never by an edit.

**The budget is for ever.** The filter is stored when the ledger is made and never changes: what
was spent under one budget was promised to the patients under it, and no later wish of a data
steward can take that back. A new budget means a new deployment, over new patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, replace
from decimal import Context, Decimal
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from engine.errors import GLOBAL_BUDGET, Broken, LedgerError, OverBudget
from engine.ledger_checks import Replay, check_budget, check_loss, check_quota, check_texts
from engine.ledger_opening import Identity, find_or_make, stored_filter
from engine.ledger_rows import (
    ANALYST,
    Charge,
    analyst_total_of,
    charge_of,
    has_its_hash,
    is_whole_first_row,
    row_of,
    total_of,
)
from engine.ledger_settling import (
    REPEATED,
    SETTLES,
    Settlement,
    is_reservation,
    lowered,
    read_settlement,
    settled_loss,
)
from engine.ledger_store import Session, Statement, Store, resolved
from engine.ledger_tables import Statements
from engine.ledger_witness import Witness
from mechanisms.filter import Filter
from mechanisms.loss import PrivacyLoss

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPICursor

__all__ = ["Charge", "Ledger", "Receipt"]

VERIFY_ROWS = 1000

_MADE_BY_CHARGE = object()
_EXACT = Context(prec=200)


@dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True)
class Receipt:
    """Proof that a charge is on disk, for one run of one plan on one data version.

    Guarantee: only `Ledger.charge` makes one, after its commit; it cannot be constructed, copied
    by `dataclasses.replace` or pickled elsewhere, and `Ledger.redeem` takes each one once.
    """

    seq: int
    loss: PrivacyLoss
    data_version: str
    plan_hash: str
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _MADE_BY_CHARGE:
            raise TypeError("a Receipt is made by Ledger.charge only; charge the plan to get one")

    def __reduce_ex__(self, protocol: object) -> str | tuple[Any, ...]:
        raise TypeError("a Receipt cannot be copied or pickled; it pays for one run, here")


class Ledger:
    """The one writer of the budget.

    Guarantee: whatever `charge` has acknowledged, less what `settle` has lowered, taken together
    is admitted by the stored filter, over all threads, processes and restarts that use this
    database; and it stays recorded through any crash. Until a reservation is settled, and where
    it never is, it counts in full.
    """

    def __init__(
        self, store: Store, sql: Statements, identity: Identity, rule: Filter, witness: Path | None
    ) -> None:
        self._store = store
        self._sql = sql
        self._identity = identity
        self._filter = rule
        self._witness = (
            None if witness is None else Witness(witness, identity.ledger_id, store.where)
        )
        # The newest charge ever met here: changed only under the session's lock, never backwards.
        self._seen = (0, identity.genesis)
        # The charge last written from here, and its sums: read back unchanged, it need be neither
        # hashed nor parsed again.
        self._written: tuple[Any, ...] = ()
        self._total = self._own_total = PrivacyLoss.zero()

    @classmethod
    def open(
        cls,
        where: str | Path,
        epsilon_total: Decimal,
        delta_total: Decimal,
        *,
        witness: str | Path | None = None,
    ) -> Ledger:
        """Open the ledger at a path or database URL, or make it if nothing is there.

        Everything is verified first. Raises LedgerError, naming the path, the problem and the
        remedy, when the file cannot be used, was made for another budget, does not verify, or is
        behind its `witness`: a small file elsewhere that remembers the newest charge. Put the
        witness where a restored backup of the ledger does not overwrite it. It is appended to
        without an fsync of its own, so a power cut may leave it some charges late, never early.
        At a database URL, dropped tables too are noticed by the witness only: without one, a new
        ledger is made in their place.

        Guarantee: the rule that decides is the one stored when the ledger was made. A changed
        budget in the policy is an error, never a new rule: see the top of this file.
        """
        check_budget(epsilon_total, delta_total)
        elsewhere = None if witness is None else resolved(witness)
        store = Store(where, durable=True)
        try:
            sql = Statements(store.dialect)
            identity = find_or_make(store, sql, epsilon_total, delta_total)
            rule = stored_filter(store, identity)
            ledger = cls(store, sql, identity, rule, elsewhere)
            ledger.verify()
            ledger._meet_witness()
        except BaseException:
            store.close()
            raise
        return ledger

    @property
    def filter(self) -> Filter:
        """The stopping rule, fixed when the ledger was made; prices need its order."""
        return self._filter

    @property
    def store(self) -> Store:
        """Where the ledger lives, for `engine.answers`."""
        return self._store

    def charge(
        self,
        loss: PrivacyLoss,
        *,
        analyst: str,
        quota: Decimal | None,
        events_json: str,
        sql: str,
        plan_hash: str,
        policy_hash: str,
        data_version: str,
    ) -> Receipt:
        """Pay for a plan before it reads anything; `analyst` is "" when the policy names none.

        `quota` caps the analyst's own sum of epsilon, below the global budget. A zero loss is
        admitted and recorded like any other.

        Raises OverBudget (nothing is charged), ValueError for a loss that is no loss, and
        LedgerError when the database fails: then the charge may stand or not, and nothing may run.

        Guarantee: a receipt is returned only after the commit is fsynced, and the sums that the
        filter saw when it decided are those of all charges committed before it: reading,
        deciding and inserting are one transaction under the database's write lock. Nothing is
        decided on a ledger that lost a charge which was met here or which the witness saw last.
        """
        check_loss(loss)
        check_quota(analyst, quota)
        facts = {
            "analyst": analyst,
            "events_json": events_json,
            "sql": sql,
            "plan_hash": plan_hash,
            "policy_hash": policy_hash,
            "data_version": data_version,
        }
        check_texts(facts)
        if events_json.startswith(SETTLES):
            raise ValueError("a charge is no settlement; Ledger.settle writes those")
        with self._store.alone() as session:
            with session.transaction() as cursor:
                row, total, own_total = self._decide(cursor, loss, quota, facts)
                self._sql.insert.add(cursor, row)
            self._seen = (row[0], row[-1])
            self._written, self._total, self._own_total = row, total, own_total
            commit = session.written
        self._acknowledge(session, commit, row)
        receipt = Receipt(
            seq=row[0],
            loss=loss,
            data_version=data_version,
            plan_hash=plan_hash,
            made_by=_MADE_BY_CHARGE,
        )
        session.receipts[receipt.seq] = receipt
        return receipt

    def redeem(self, receipt: Receipt, *, plan_hash: str, data_version: str) -> None:
        """Use a receipt up; execution calls this before it reads any private row.

        Guarantee: returns at most once for each charge, in the process that charged it, and only
        for the plan and the data version that were paid. Anything else is Broken: running a paid
        plan twice with fresh noise would be a second loss for one payment.
        """
        session = self._store.session()
        with session.lock:
            known = session.receipts.get(receipt.seq)
            if known is not receipt or (receipt.plan_hash, receipt.data_version) != (
                plan_hash,
                data_version,
            ):
                raise Broken
            del session.receipts[receipt.seq]
            session.reservations[receipt.seq] = receipt

    def settle(self, receipt: Receipt, level: int) -> PrivacyLoss:
        """Lower a reservation to the level that was revealed (0: the coarsest); return its cost.

        Call it before the answer leaves, with the level the answer stopped at. Raises Broken for
        a receipt that is not redeemed, not from here, settled before or no reservation, and
        LedgerError when the database fails: then it is settled or counts in full, and
        the answer may leave either way.

        Guarantee: rail A gets the price of that level, computed from the events that were
        charged, in one transaction under the database's write lock; rail B keeps the reserve. It
        happens at most once for each charge, and never raises a sum.
        """
        with self._store.alone() as session:
            if session.reservations.get(receipt.seq) is not receipt:
                raise Broken
            with session.transaction() as cursor:
                row, loss = self._settled(cursor, receipt, level)
                self._sql.insert.add(cursor, row)
            del session.reservations[receipt.seq]
            self._seen = (row[0], row[-1])
            commit = session.written
        self._acknowledge(session, commit, row)
        return loss

    def spent(self, analyst: str | None = None) -> PrivacyLoss:
        """Return what was spent by everybody, or by one analyst."""
        if analyst is None:
            return total_of(self._rows(self._sql.head, {}))
        return analyst_total_of(self._rows(self._sql.newest_of, {"analyst": analyst, "most": 1}))

    def left(self, analyst: str | None = None, quota: Decimal | None = None) -> PrivacyLoss:
        """Return what is left for everybody, or for one analyst under that quota."""
        left = self._left(self.spent())
        if analyst is None or quota is None:
            return left
        check_quota(analyst, quota)
        return _under_quota(left, self.spent(analyst), quota)

    def history(self, limit: int | None = None, analyst: str | None = None) -> tuple[Charge, ...]:
        """Return the newest `limit` charges (all by default), oldest first, as settled by now."""
        if limit is not None and not limit >= 0:
            raise ValueError(f"limit must be 0 or more, got {limit!r}")
        most = 2**62 if limit is None else limit
        if analyst is None:
            rows = self._rows(self._sql.newest, {"most": most})
        else:
            rows = self._rows(self._sql.charges_of, {"most": most, "analyst": analyst})
        charges = tuple(charge_of(row) for row in reversed(rows))
        if not any(is_reservation(charge.events_json) for charge in charges):
            return charges
        settled: dict[int, PrivacyLoss] = {}
        for row in self._rows(self._sql.settlements, {"after": charges[0].seq}):
            found = charge_of(row)
            settlement = read_settlement(found.events_json)
            if settlement is not None:
                settled[settlement.seq] = found.loss
        return tuple(replace(charge, settled=settled.get(charge.seq)) for charge in charges)

    def head(self) -> tuple[int, str]:
        """Return the number and the hash of the newest charge; (0, genesis) before the first."""
        return self._head_of(self._rows(self._sql.head, {}))

    def verify(self) -> int:
        """Replay the ledger and return how many charges it has.

        Guarantee: passes only if the filter is the stored one, the charges are numbered without
        gaps, every hash, every sum and every loss is exact, and the filter admits every prefix.
        Raises LedgerError that names the first charge for which this fails. Newest charges that
        are missing altogether are noticed if they were met here before; else by the witness only.
        """
        replay = Replay(self._filter, self._identity.genesis)
        first = self._store.read(self._sql.identity, {})
        if self._genesis_in(first) != self._identity.genesis:
            raise self._damaged("its first row, which holds the budget, is missing or was changed")
        while rows := self._rows_after(replay.seq):
            for row in rows:
                problem = replay.problem(row)
                if problem is not None:
                    raise self._damaged(f"charge {replay.seq + 1} {problem}")
        self._store.check_pages()
        session = self._store.session()
        with session.lock, self._store.plain_errors, session.reading() as cursor:
            self._recall(cursor, (replay.seq, replay.hash))
        return replay.seq

    def close(self) -> None:
        """Close this process's connection."""
        try:
            if self._witness is not None:
                with self._store.plain_errors:
                    self._witness.flush()
        finally:
            self._store.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _decide(
        self, cursor: DBAPICursor, loss: PrivacyLoss, quota: Decimal | None, facts: dict[str, str]
    ) -> tuple[tuple[Any, ...], PrivacyLoss, PrivacyLoss]:
        """Return the row to insert, and both sums after it, or raise OverBudget; runs under the
        write lock.

        Guarantee: nothing else in the program decides whether a loss may be spent.
        """
        if not self._store.is_sqlite:
            self._sql.lock.rows(cursor, {})
        head, mine = self._newest_two(cursor, facts["analyst"])
        seq, previous_hash = self._head_of(head)
        self._recall(cursor, (seq, previous_hash))
        self._ask_witness(cursor)
        spent = self._total if self._is_written(head) else total_of(head)
        own = self._own_total if self._is_written(mine) else analyst_total_of(mine)
        total, own_total = spent + loss, own + loss
        if not self._filter.holds(total):
            raise OverBudget(loss, self._left(spent), GLOBAL_BUDGET)
        if quota is not None and not own_total.exact_epsilon <= quota:
            left = _under_quota(self._left(spent), own, quota)
            raise OverBudget(loss, left, f"analyst {facts['analyst']}")
        return row_of((seq, previous_hash), facts, loss, total, own_total), total, own_total

    def _settled(
        self, cursor: DBAPICursor, receipt: Receipt, level: int
    ) -> tuple[tuple[Any, ...], PrivacyLoss]:
        """Return the row that settles a reservation, and its loss; runs under the write lock.

        Guarantee: what is lowered is the reservation as it stands in the ledger, with its own
        hash, and no row after it has settled it.
        """
        if not self._store.is_sqlite:
            self._sql.lock.rows(cursor, {})
        rows = self._sound(self._sql.row.rows(cursor, {"seq": receipt.seq}))
        if not rows:
            raise self._behind(f"charge {receipt.seq} was in it and now is not")
        charge = charge_of(rows[0])
        head, mine = self._newest_two(cursor, charge.analyst)
        newest = self._head_of(head)
        self._recall(cursor, newest)
        self._ask_witness(cursor)
        later = self._sound(self._sql.settlements.rows(cursor, {"after": charge.seq}))
        settled = [read_settlement(charge_of(row).events_json) for row in later]
        if any(found is None or found.seq == charge.seq for found in settled):
            raise Broken
        if not is_reservation(charge.events_json):
            raise Broken
        try:
            loss = settled_loss(charge.loss, charge.events_json, level, self._filter.order)
        except ValueError:
            raise Broken from None
        facts = {name: getattr(charge, name) for name in REPEATED}
        facts["events_json"] = Settlement(charge.seq, level).to_json()
        total = lowered(total_of(head), charge.loss, loss)
        own_total = lowered(analyst_total_of(mine), charge.loss, loss)
        return row_of(newest, facts, loss, total, own_total), loss

    def _left(self, spent: PrivacyLoss) -> PrivacyLoss:
        """Return what the open rails have left; a closed rail has nothing, whatever its sums."""
        left = self._filter.left(spent)
        if not self._filter.rail_a_holds(spent):
            left = PrivacyLoss(Decimal(0), Decimal(0), left.exact_rdp)
        if not self._filter.rail_b_holds(spent):
            left = PrivacyLoss(left.exact_epsilon, left.exact_delta, Decimal(0))
        return left

    def _newest_two(
        self, cursor: DBAPICursor, analyst: str
    ) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """Return the newest row of all and of the analyst, each as a list of none or one."""
        head = self._sound(self._sql.head.rows(cursor, {}))
        if head and head[0][ANALYST] == analyst:
            return head, head
        return head, self._sound(
            self._sql.newest_of.rows(cursor, {"analyst": analyst, "most": 1})
        )

    def _is_written(self, rows: list[tuple[Any, ...]]) -> bool:
        return bool(rows) and rows[0] is self._written

    def _rows(self, statement: Statement, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a SELECT, from a ledger that has lost nothing met before."""
        session = self._store.session()
        with session.lock, self._store.plain_errors, session.reading() as cursor:
            rows = self._sound(statement.rows(cursor, values))
            head = self._sound(self._sql.head.rows(cursor, {}))
            self._recall(cursor, self._head_of(head))
        return rows

    def _rows_after(self, seq: int) -> list[tuple[Any, ...]]:
        rows = self._store.read(self._sql.after, {"after": seq, "most": VERIFY_ROWS})
        return [tuple(row) for row in rows]

    def _sound(self, rows: list[Any]) -> list[tuple[Any, ...]]:
        """Return the rows if each still has its own hash: no decision rests on a damaged row.

        The row that was hashed here when it was written passes if it is the same to the letter,
        and comes out as `_written` itself.
        """
        sound = []
        for found in rows:
            row = tuple(found)
            if row == self._written:
                sound.append(self._written)
            elif has_its_hash(row):
                sound.append(row)
            else:
                raise self._damaged(f"charge {row[0]} does not match its hash")
        return sound

    def _head_of(self, head: list[tuple[Any, ...]]) -> tuple[int, str]:
        return (head[0][0], head[0][-1]) if head else (0, self._identity.genesis)

    def _damaged(self, problem: str) -> LedgerError:
        return LedgerError(
            self._store.where,
            problem,
            "The file was changed from outside or the disk is failing: restore the newest backup "
            "that verifies, and open it with its witness.",
        )

    def _behind(self, problem: str) -> LedgerError:
        return LedgerError(
            self._store.where,
            f"older charges than were already made: {problem}",
            "A restored backup would forget spent budget: bring back the newest ledger. If it is "
            "lost, these patients' budget counts as spent.",
        )

    def _recall(self, cursor: DBAPICursor, head: tuple[int, str]) -> None:
        """Refuse a ledger without the newest charge met here before, then remember the head.

        Runs under the session's lock, so that no thread takes another's progress for a loss.
        """
        if head == self._seen:
            return
        seq, digest = self._seen
        if self._hash_at(cursor, seq) != digest:
            raise self._behind(f"charge {seq} was in it and now is not")
        if head[0] > seq:
            self._seen = head

    def _ask_witness(self, cursor: DBAPICursor) -> None:
        """Refuse a ledger without the highest charge that the witness saw."""
        if self._witness is None:
            return
        for seq, digest in self._witness.highest():
            if (seq, digest) != self._seen and self._hash_at(cursor, seq) != digest:
                saw = f"saw charge {seq} as {digest[:12]}..."
                raise self._behind(f"its witness {self._witness.path} {saw}")

    def _hash_at(self, cursor: DBAPICursor, seq: int) -> str | None:
        """Return the hash of a charge that is in the ledger; before the first it is the genesis."""
        if seq == 0:
            return self._genesis_in(self._sql.identity.rows(cursor, {}))
        rows = self._sql.at.rows(cursor, {"seq": seq})
        return rows[0][0] if rows else None

    def _genesis_in(self, rows: list[Any]) -> str | None:
        return rows[0][7] if len(rows) == 1 and is_whole_first_row(rows[0]) else None

    def _meet_witness(self) -> None:
        """Compare with the witness, then tell it the head.

        Guarantee: passes only if the highest charge that the witness saw is in this ledger.
        """
        if self._witness is None:
            return
        with self._store.alone() as session, session.reading() as cursor:
            self._ask_witness(cursor)
            head = self._head_of(self._sound(self._sql.head.rows(cursor, {})))
            self._recall(cursor, head)
            session.flush(session.written + 1)  # the head may be another's, not on disk yet
            self._tell_witness(*head)

    def _acknowledge(self, session: Session, commit: int, row: tuple[Any, ...]) -> None:
        """Wait until a committed row is on disk, then tell the witness; others go on meanwhile.

        Guarantee: the witness is never early, and who returns from here may be told.
        """
        with self._store.plain_errors:
            session.flush(commit)
            self._tell_witness(row[0], row[-1])

    def _tell_witness(self, seq: int, digest: str) -> None:
        """Append a row that is on disk to the witness."""
        if self._witness is not None:
            self._witness.tell(seq, digest)


def _under_quota(left: PrivacyLoss, own: PrivacyLoss, quota: Decimal) -> PrivacyLoss:
    """Return what an analyst may still spend: the global rest, with epsilon cut to the quota."""
    rest = max(Decimal(0), _EXACT.subtract(quota, own.exact_epsilon))
    return PrivacyLoss(min(left.exact_epsilon, rest), left.exact_delta, left.exact_rdp)
