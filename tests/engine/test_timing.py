"""Time slots: whatever happens inside ends at a whole number of them. No clock is read here."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

import engine.timing
from engine import Broken, Engine, Refused
from engine.clinic import clinic_policy
from engine.timing import check_slot, whole_slots


class Clock:
    """A clock that moves when it is told to, and when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(engine.timing, "time", made)
    return made


@pytest.mark.parametrize(("took", "ends"), [
    (0.0, 0.5), (0.001, 0.5), (0.4999, 0.5), (0.5, 0.5), (0.5001, 1.0), (7.3, 7.5),
])
@pytest.mark.parametrize("error", [None, Refused("rows", "no"), Broken(), KeyboardInterrupt()])
def test_work_ends_at_a_whole_number_of_slots(
    took: float, ends: float, error: BaseException | None, clock: Clock
) -> None:
    expected = nullcontext() if error is None else pytest.raises(type(error))
    with expected, whole_slots(0.5):
        clock.now += took
        if error is not None:
            raise error
    assert clock.now == pytest.approx(100 + ends)


def test_without_a_slot_nobody_waits(clock: Clock) -> None:
    with whole_slots(None):
        clock.now += 0.25
    assert clock.now == 100.25


def test_every_end_of_a_question_is_held_back(
    base_path: Path, tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "clinic.duckdb").write_bytes(base_path.read_bytes())
    (tmp_path / "clinic.yaml").write_text(clinic_policy(tmp_path / "clinic.duckdb"))
    with Engine.open(tmp_path / "clinic.yaml", time_slot=2) as opened:
        for sql in ("SELECT COUNT(*) FROM visits", "SELECT COUNT(*) FROM visits", "SELECT nothing"):
            before = clock.now
            try:
                opened.query(sql)
            except Refused:
                assert "nothing" in sql
            assert clock.now == before + 2
        before = clock.now
        opened.explain("SELECT COUNT(*) FROM labs")  # reads no row
        assert clock.now == before


@pytest.mark.parametrize("slot", [0, -1, float("nan"), float("inf"), True, "1", 1e9])
def test_what_is_no_slot_is_refused(slot: object) -> None:
    with pytest.raises(ValueError, match="time_slot"):
        check_slot(slot)  # type: ignore[arg-type]
