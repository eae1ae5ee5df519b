"""`discreet audit`: it finds what was planted, tells nobody else, and spends nothing."""

from __future__ import annotations

import json
from contextlib import closing
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

import engine.audit_epsilon
from engine import Engine
from engine.audit import Audit, Settings, audit
from engine.audit_epsilon import epsilon_below
from engine.audit_findings import Finding, Level
from engine.audit_neighbours import Subject, chosen_units
from engine.audit_reconstruction import simulated
from engine.audit_replay import run_exactly
from engine.audit_report import as_html, as_json, as_text
from engine.cli import main
from engine.clinic import clinic_policy
from engine.database import open_without
from planner.bounding import Strategy
from tests.engine.replay import HEAVY, read_cases, replayed

QUICK = Settings(neighbours=3, draws=40_000, patients=32)
QUESTIONS = (
    "SELECT department, COUNT(*) FROM visits GROUP BY department", "SELECT SUM(cost) FROM visits",
    "SELECT diagnosis, COUNT(*) FROM visits GROUP BY 1", "SELECT MEDIAN(los) FROM visits",
    "SELECT cost FROM visits -- <script>alert(1)</script>",
)


@pytest.fixture(scope="module")
def home(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audited")
    (folder / "clinic.duckdb").write_bytes(base_path.read_bytes())
    text = clinic_policy(folder / "clinic.duckdb").replace("epsilon: 0.1", "epsilon: 1")
    (folder / "clinic.yaml").write_text(text)
    with Engine.open(folder / "clinic.yaml") as opened:
        opened.query("SELECT COUNT(*) FROM visits", epsilon=0.5)
    return folder


@pytest.fixture(scope="module")
def found(home: Path) -> Audit:
    return audit(home / "clinic.yaml", QUESTIONS, QUICK)


def said(audited: Audit, section: str, *words: str) -> list[Finding]:
    return [f for f in audited.findings if f.section == section
            and all(word in f"{f.subject} {f.words}" for word in words)]


# ---- what it finds -------------------------------------------------------------------------


def test_a_sound_engine_passes(found: Audit) -> None:
    assert found.worst is not Level.BROKEN
    assert len([f for f in said(found, "neighbours") if f.level is Level.FINE]) == 4
    assert said(found, "neighbours", "is refused")
    assert all(p.holds for p in found.proven)
    assert any(p.proven > 0.3 * p.charged for p in found.proven)  # it has power
    assert said(found, "ledger", "1 entries verified")


BAD = """\
discreet: 1
database: {folder}/bad.duckdb
ledger: {folder}/bad.sqlite
budget: {{epsilon: 40, delta: 1e-2}}
units: 5000
unit: people.id
tables:
  people:
    columns:
      id: unit
      last_name: text
      age: {{integer: [0, 5]}}
      height: {{real: [0, 1e12]}}
      ward: {{category: [a, b, c]}}
      born: {{date: [1000-01-01, 2026-12-31]}}
  stays:
    columns:
      person: {{references: people}}
      days: {{integer: [0, 10000]}}
"""


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    folder = tmp_path_factory.mktemp("bad")
    with duckdb.connect(str(folder / "bad.duckdb")) as c:
        c.execute("CREATE TABLE people AS SELECT i AS id, 'name' || i AS last_name, i % 90 AS age, "
                  "180.0 AS height, CASE WHEN i < 2 THEN 'c' WHEN i % 2 = 0 THEN 'a' ELSE 'b' END "
                  "AS ward, DATE '1950-01-01' AS born FROM range(200) t(i)")
        c.execute("CREATE TABLE stays AS SELECT i % 400 AS person, i % 9 AS days "
                  "FROM range(800) t(i)")
    (folder / "bad.yaml").write_text(BAD.format(folder=folder))
    return audit(folder / "bad.yaml", (), QUICK)


@pytest.mark.parametrize(("subject", "words", "private"), [
    ("budget.epsilon", "almost always", False), ("budget.delta", "5,000 patients", False),
    ("witness", "restored backup", False), ("people.last_name", "names a person", False),
    ("people.height", "noise of that size", False), ("people.born", "years apart", False),
    ("stays", "400 of 800 rows lead to no patient", True),
    ("people.age", "values are above the upper bound", True),
    ("people.last_name", "tells them apart", True),
    ("people.ward", "fewer than 5 patients", True),
    ("stays.days", "nearly all values lie between", True),
])
def test_what_is_wrong_with_a_policy_is_found(
    subject: str, words: str, private: bool, bad: Audit
) -> None:
    (finding,) = [f for f in said(bad, "policy", words) if f.subject == subject]
    assert finding.private is private
    assert finding.remedy
    assert finding.level in (Level.WARNING, Level.NOTE)


def test_a_budget_that_protects_little_shows_in_the_attack(found: Audit) -> None:
    assert found.attack.without_budget > 0.65
    assert found.attack.answered == found.attack.questions
    little, much = (simulated(Decimal(epsilon), Decimal("1e-6"), 64, 256)
                    for epsilon in ("0.2", "2000"))
    assert little.with_budget <= 0.5 + little.margin
    assert much.with_budget > 0.9


def test_a_halved_sensitivity_breaks_the_audit(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    true = Strategy.sensitivity

    def halved(self: Strategy, measure: Any, largest: int) -> tuple[int, int]:
        l1, l2_squared = true(self, measure, largest)
        return max(l1 // 2, 1), max(l2_squared // 4, 1)

    monkeypatch.setattr(Strategy, "sensitivity", halved)
    (home / "one.sql").write_text("SELECT COUNT(*) FROM visits;\n")
    words = ["audit", "-p", str(home / "clinic.yaml"), "-f", str(home / "one.sql"),
             "--neighbours", "3", "--draws", "1000"]
    assert main(words) == 5
    assert "L1 distance" in capsys.readouterr().out


def test_noise_that_is_too_small_breaks_the_audit(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = engine.audit_epsilon.laplace.sample
    monkeypatch.setattr(engine.audit_epsilon.laplace, "sample",
                        lambda scale, size, randomness: true(scale * 0.7, size, randomness))
    found = audit(home / "clinic.yaml", ["SELECT COUNT(*) FROM patients"],
                  Settings(3, 200_000, 8))
    assert [f for f in said(found, "noise") if f.level is Level.BROKEN]


def test_a_damaged_ledger_breaks_the_audit(home: Path, tmp_path: Path) -> None:
    for path in home.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    text = (home / "clinic.yaml").read_text().replace(str(home), str(tmp_path))
    (tmp_path / "clinic.yaml").write_text(text)
    ledger = tmp_path / "clinic.ledger.sqlite"
    data = ledger.read_bytes()
    ledger.write_bytes(data.replace(b"SELECT COUNT(*) FROM visits", b"SELECT COUNT(*) FROM labs  "))
    found = audit(tmp_path / "clinic.yaml", [QUESTIONS[0]], Settings(1, 1000, 8))
    assert [f for f in said(found, "ledger") if f.level is Level.BROKEN]


# ---- a neighbour by views is a neighbour ---------------------------------------------------


@pytest.mark.parametrize("case", read_cases("accepted")[::6], ids=str)
def test_leaving_a_patient_out_is_removing_the_patient(
    case: Any, clinics: dict[str, Engine]
) -> None:
    """Views without the heavy patient hold what a snapshot without that patient holds."""
    base, removed = clinics["base"], clinics["without the heavy patient"]
    subject = Subject(base.policy, base._data.snapshot, base._data.database, base._data.public)
    words, unit = chosen_units(subject, 1)[0]
    assert "most rows" in words
    one = replayed(base, case.sql)
    truth = replayed(removed, case.sql, like=one)
    with closing(open_without(subject.snapshot.path, subject.tables, unit)) as database:
        seen = run_exactly(truth.bound, truth.plan, database, subject.public, one)
        assert database.execute("SELECT COUNT(*) FROM visits").fetchone() != (0,)
        with pytest.raises(duckdb.Error):
            database.execute("SELECT * FROM read_text('/etc/hostname')")
    assert [v for _, _, v in seen.vectors] == [v for _, _, v in truth.vectors]
    assert HEAVY  # the patient that the clinic of that name lacks


# ---- what it leaves alone ------------------------------------------------------------------


def test_it_spends_nothing_and_leaves_no_file(home: Path, found: Audit, tmp_path: Path) -> None:
    def state() -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in home.iterdir()
                if not p.name.endswith(("wal", "shm"))}

    before = state()
    audit(home / "clinic.yaml", [QUESTIONS[0]], Settings(2, 1_000, 8))
    assert state() == before
    (tmp_path / "clinic.duckdb").write_bytes((home / "clinic.duckdb").read_bytes())
    (tmp_path / "clinic.yaml").write_text(clinic_policy(tmp_path / "clinic.duckdb"))
    fresh = audit(tmp_path / "clinic.yaml", [QUESTIONS[0]], Settings(1, 1_000, 8))
    assert said(fresh, "ledger", "none yet")
    assert {p.name for p in tmp_path.iterdir()} == {"clinic.duckdb", "clinic.yaml"}


# ---- reports -------------------------------------------------------------------------------


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)


def test_the_page_has_pictures_and_no_script(found: Audit) -> None:
    page = as_html(found)
    tags = Tags()
    tags.feed(page)
    assert tags.seen.count("svg") == 2
    assert "script" not in tags.seen
    assert "&lt;script&gt;" in page
    assert "http" not in page  # it loads nothing from elsewhere
    assert "steward only" in page


def test_text_and_json_say_for_whom_they_are(found: Audit) -> None:
    text = as_text(found)
    assert "data steward only" in text.splitlines()[1]
    assert "fine *" in text
    read = json.loads(as_json(found))
    assert read["worst"] == found.worst.value
    assert len(read["findings"]) == len(found.findings)
    assert any(f["private"] for f in read["findings"])


def test_the_command_writes_all_three(home: Path, tmp_path: Path,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", "-p", str(home / "clinic.yaml"), "--draws", "1000", "--neighbours", "1",
             "--format", "json", "--html", str(tmp_path / "a.html")]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["policy"] == str(home / "clinic.yaml")
    assert "<svg" in (tmp_path / "a.html").read_text()
    for wrong in (["--neighbours", "0"], ["--draws", "5"], ["--html", "/nowhere/a.html"]):
        assert main(["audit", "-p", str(home / "clinic.yaml"), *wrong]) == 2


def test_the_bound_on_epsilon_is_a_bound() -> None:
    """On the continuous law, where epsilon is known: below it, near it, and above a smaller one."""
    rng = np.random.default_rng(4)
    ours, theirs = rng.laplace(0, 1, 200_000), rng.laplace(1, 1, 200_000)
    assert 0.9 <= epsilon_below(ours, theirs) <= 1.0
    assert epsilon_below(ours, ours) <= 0.05
