"""Command lines in; answers on standard output, words on standard error and exit codes out."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine import cli
from engine.clinic import clinic_policy, write_clinic
from engine.errors import Broken

ROOT = Path(__file__).parents[2]
BY_SEX = "SELECT sex, COUNT(*) AS n FROM patients GROUP BY sex"


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """A small clinic: a folder with its database and one policy, and plenty of budget."""
    folder = tmp_path_factory.mktemp("clinic")
    write_clinic(folder / "clinic.duckdb", 200, labs_per_patient=2)
    (folder / "clinic.yaml").write_text(clinic_policy(folder / "clinic.duckdb", epsilon=40.0))
    return folder


@pytest.fixture
def run(clinic, capsys, monkeypatch):
    """Run one command inside the clinic's folder and return (code, output, errors)."""
    monkeypatch.chdir(clinic)
    monkeypatch.delenv("DISCREET_POLICY", raising=False)
    monkeypatch.delenv("DISCREET_ANALYST", raising=False)

    def command(*words, given=None):
        if given is not None:
            monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        code = cli.main([str(word) for word in words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return command


# ---- answers ------------------------------------------------------------------------------


def test_a_question_prints_its_answer_and_nothing_else(run):
    code, out, err = run("query", BY_SEX)
    assert (code, err) == (0, "")
    assert re.match(r"sex +n\n---- ", out)
    assert "price: epsilon 0.1" in out
    assert "free: answered before" in run("query", BY_SEX)[1]


def test_csv_and_json_parse_back(run):
    code, out, err = run("query", BY_SEX, "--format", "csv", "--epsilon", "0.2")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, err) == (0, "")
    assert [row["sex"] for row in rows] == ["F", "M", ""]
    assert all(float(r["n_low"]) <= float(r["n"]) <= float(r["n_high"]) for r in rows)
    found = json.loads(run("query", BY_SEX, "--format", "json", "--epsilon", "0.2")[1])
    assert [row["n"] for row in found["rows"]] == [int(row["n"]) for row in rows]
    assert found["cached"] is True


def test_markdown_is_a_table(run):
    assert run("query", BY_SEX, "--format", "markdown")[1].startswith("| sex | n |\n| --- | ---: |")


def test_sql_comes_from_an_argument_a_file_or_standard_input(run, clinic):
    (clinic / "q.sql").write_text(BY_SEX)
    first = run("query", BY_SEX, "--format", "csv")[1]
    assert run("query", "-f", "q.sql", "--format", "csv")[1] == first
    assert run("query", "-", "--format", "csv", given=BY_SEX)[1] == first


def test_several_questions_have_one_price(run, clinic):
    total = "SELECT COUNT(*) AS n FROM patients"
    (clinic / "dashboard.sql").write_text(f"-- two of them; really\n{BY_SEX};\n{total};\n")
    before = json.loads(run("budget", "--format", "json")[1])
    told = run("explain", BY_SEX, total, "--epsilon", "0.5")[1]
    assert "epsilon 0.5, delta 0" in told
    code, out, err = run("query", "-f", "dashboard.sql", "--epsilon", "0.5")
    assert (code, err) == (0, "")
    assert "price: epsilon 0.5 for all 2 together" in out
    assert "2 questions; price: epsilon 0.5 together; left: " in out
    after = json.loads(run("budget", "--format", "json")[1])
    assert after["charges"] == before["charges"] + 1
    assert after["spent"]["epsilon"] - before["spent"]["epsilon"] == pytest.approx(0.5)
    found = json.loads(run("query", f"{BY_SEX}; {total}", "--epsilon", "0.5", "--format",
                           "json")[1])
    assert found["cached"] is True
    parts = sum(row["n"] for row in found["results"][0]["rows"])
    assert found["results"][1]["rows"][0]["n"] == pytest.approx(parts)
    tables = run("query", BY_SEX, total, "--epsilon", "0.5", "--format", "csv")[1].split("\n\n")
    assert [t.splitlines()[0] for t in tables] == ["sex,n,n_low,n_high", "n,n_low,n_high"]
    pages = run("query", BY_SEX, total, "--epsilon", "0.5", "--format", "markdown")[1]
    assert pages.count("###") == 2
    told = json.loads(run("explain", BY_SEX, total, "--epsilon", "0.5", "--format", "json")[1])
    assert told["kept"] is True
    assert run("budget", "--format", "json")[1] == json.dumps(after, indent=2) + "\n"


def test_output_and_plot_are_written(run, tmp_path):
    pytest.importorskip("matplotlib")
    code, out, err = run("query", BY_SEX, "-o", tmp_path / "n.csv", "--format", "csv",
                         "--plot", tmp_path / "n.png")
    assert (code, out, err) == (0, "", "")
    assert (tmp_path / "n.csv").read_text().startswith("sex,n,n_low,n_high\n")
    assert (tmp_path / "n.png").read_bytes().startswith(b"\x89PNG")


def test_explain_is_free_and_can_show_the_sql(run):
    before = run("budget")[1]
    code, out, _ = run("explain", "SELECT AVG(los) AS stay FROM visits", "--epsilon", "0.7")
    assert code == 0
    assert "epsilon 0.7" in out
    assert "FROM" not in out
    assert "FROM" in run("explain", BY_SEX, "--sql")[1]
    found = json.loads(run("explain", BY_SEX, "--format", "json", "--sql")[1])
    assert found["releases"][0]["keys"] == "public"
    assert "SELECT" in found["sql"]
    assert run("budget")[1] == before


def test_budget_lists_the_charges(run):
    run("query", "SELECT COUNT(*) FROM visits", "--epsilon", "0.3")
    code, out, err = run("budget", "--history")
    assert (code, err) == (0, "")
    assert "SELECT COUNT(*) FROM visits" in out
    found = json.loads(run("budget", "--history", "--format", "json")[1])
    assert found["charges"] == len(found["history"])
    assert sum(c["cost"]["epsilon"] for c in found["history"]) == pytest.approx(
        found["spent"]["epsilon"]
    )


def test_refresh_reports_to_the_steward(run):
    code, out, err = run("refresh")
    assert (code, err) == (0, "")
    assert out.startswith("data version ")
    assert "patients: " in out


def test_init_drafts_and_does_not_overwrite(run, clinic, tmp_path):
    policy = tmp_path / "draft.yaml"
    code, out, err = run("init", clinic / "clinic.duckdb", "-o", policy)
    assert (code, err) == (0, "")
    assert "TODO" in out
    assert "discreet: 1" in policy.read_text()
    policy.write_text("mine")
    code, out, err = run("init", clinic / "clinic.duckdb", "-o", policy)
    assert (code, out) == (2, "")
    assert "--force" in err
    assert policy.read_text() == "mine"
    assert run("init", clinic / "clinic.duckdb", "-o", policy, "--force")[0] == 0
    assert policy.read_text() != "mine"
    assert "discreet: 1" in run("init", "clinic.duckdb", "-o", "-")[1]


# ---- which policy -------------------------------------------------------------------------


def test_the_policy_is_found_or_asked_for(run, clinic, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run_in(tmp_path, run, "budget", monkeypatch)
    assert (code, out) == (2, "")
    assert "which policy?" in err
    monkeypatch.setenv("DISCREET_POLICY", str(clinic / "clinic.yaml"))
    assert run_in(tmp_path, run, "budget", monkeypatch)[0] == 0
    monkeypatch.delenv("DISCREET_POLICY")
    (tmp_path / "a.yaml").write_text("")
    (tmp_path / "b.yaml").write_text("")
    assert "a.yaml, b.yaml" in run_in(tmp_path, run, "budget", monkeypatch)[2]
    (tmp_path / "discreet.yaml").write_text((clinic / "clinic.yaml").read_text())
    assert run_in(tmp_path, run, "budget", monkeypatch)[0] == 0


def run_in(folder, run, word, monkeypatch):
    monkeypatch.chdir(folder)
    return run(word)


# ---- what goes wrong ----------------------------------------------------------------------


@pytest.mark.parametrize(("words", "code", "said"), [
    (["query"], 2, "give the SELECT once"),
    (["query", BY_SEX, "-f", "q.sql"], 2, "give the SELECT once"),
    (["query", "-f", "nowhere.sql"], 2, "nowhere.sql cannot be read"),
    (["query", BY_SEX, "--epsilon", "much"], 2, "'much' is not a number"),
    (["query", BY_SEX, "--format", "xml"], 2, "xml"),
    (["query", BY_SEX, "-o", "nowhere/a.csv"], 2, "its folder does not exist"),
    (["query", BY_SEX, "--plot", "a.doc"], 2, "end it with .png"),
    (["quary", BY_SEX], 2, "quary"),
    (["query", "SELECT patient_id FROM patients"], 3, "refused ("),
    (["query", BY_SEX + "; DROP TABLE visits"], 3, "refused (only-select): question 2"),
    (["query", BY_SEX, "SELECT COUNT(*) FROM visits", "--error", "5%"], 2, "--error belongs to"),
    (["query", BY_SEX, "-"], 2, "one of the three"),
    (["query", BY_SEX, "--epsilon", "-1"], 3, "refused (epsilon)"),
    (["query", BY_SEX, "--epsilon", "inf"], 3, "refused (epsilon)"),
    (["explain", "SELECT nothing FROM nowhere"], 3, "refused ("),
    (["query", "SELECT COUNT(*) FROM labs", "--epsilon", "90"], 4, "over budget: "),
    (["query", BY_SEX, "-p", "nowhere.yaml"], 5, "nowhere.yaml"),
    (["init", "nowhere.duckdb"], 5, "nowhere.duckdb does not exist"),
])
def test_each_kind_of_failure_has_its_exit_code(run, words, code, said):
    before = run("budget", "--format", "json")[1]
    found, out, err = run(*words)
    assert (found, out) == (code, "")
    assert said in err
    assert "Traceback" not in err
    assert run("budget", "--format", "json")[1] == before


def test_a_policy_with_faults_and_a_missing_database_are_the_stewards(run, tmp_path, clinic):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("discreet: 1\nbudget: {epsilon: -1, delta: 0}\n")
    code, out, err = run("budget", "-p", wrong)
    assert (code, out) == (5, "")
    assert "wrong.yaml" in err
    away = tmp_path / "away.yaml"
    away.write_text(clinic_policy(tmp_path / "away.duckdb"))
    assert run("budget", "-p", away)[0] == 5


@pytest.mark.parametrize("error", [Broken(), ValueError("row 17: Jane Doe")])
def test_a_bug_keeps_its_text_inside(run, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(cli, "_formatted", fail)
    code, out, err = run("query", BY_SEX)
    assert (code, out) == (6, "")
    assert "bug of Discreet" in err
    assert "Jane" not in err


def test_a_picture_is_refused_before_anything_is_paid(run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    before = run("budget", "--format", "json")[1]
    code, _, err = run("query", BY_SEX, "--epsilon", "0.9", "--plot", "a.png")
    assert code == 2
    assert "pip install discreet[demo]" in err
    assert run("budget", "--format", "json")[1] == before


def test_analysts_are_asked_for_and_charged(run, clinic):
    text = (clinic / "clinic.yaml").read_text().replace("clinic.ledger", "named.ledger")
    named = clinic / "named.yml"  # not *.yaml: the clinic keeps one policy
    named.write_text(text.replace("\nunit:", "\nanalysts: {ana: {epsilon: 0.5}}\nunit:", 1))
    assert "ana" in run("query", BY_SEX, "-p", named)[2]
    assert run("query", BY_SEX, "-p", named, "--analyst", "ana")[0] == 0
    assert run("query", BY_SEX, "-p", named, "--analyst", "eve")[0] == 3
    assert "the budget of ana" in run("budget", "-p", named, "--analyst", "ana")[1]
    over = run("query", "SELECT COUNT(*) FROM visits", "-p", named, "-a", "ana", "--epsilon", "1")
    assert over[0] == 4


# ---- as a process -------------------------------------------------------------------------


def process(folder, *words, encoding="utf-8"):
    return subprocess.run(
        [sys.executable, "-m", "engine", *map(str, words)], cwd=folder, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
        timeout=60, check=False,
    )


def test_the_module_runs_as_a_command(clinic):
    done = process(clinic, "query", BY_SEX, "--format", "csv")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"sex,n,n_low,n_high\n")
    done = process(clinic, "query", "SELECT patient_id FROM patients")
    assert (done.returncode, done.stdout) == (3, b"")


def test_an_old_terminal_gets_plain_signs(clinic):
    done = process(clinic, "query", BY_SEX, encoding="ascii")
    assert done.returncode == 0
    assert b"+- " in done.stdout


def test_help_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    for name in ("demo", "init", "query", "explain", "budget", "refresh", "Exit codes"):
        assert name in out
    for name in ("demo", "init", "query", "explain", "budget", "refresh"):
        code, out, _ = run(name, "--help")
        assert code == 0
        assert f"discreet {name}" in out.partition("\n")[2]
    assert run("--version")[1].startswith("discreet ")


def test_importing_the_package_stays_light():
    code = (
        "import sys, engine; heavy = {'pandas', 'matplotlib', 'rich', 'typer', 'duckdb'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    assert done.stdout.strip() == "[]"


# ---- train --------------------------------------------------------------------------------

VIEW = "SELECT sex, los, readmitted FROM visits JOIN patients USING (patient_id)"
TRAIN = ("train", VIEW, "--label", "readmitted", "--epsilon", "1", "--units", "200")


def test_train_writes_a_model_and_charges_once(run, clinic):
    code, out, _ = run(*TRAIN, "--save", "readmit")
    assert code == 0
    assert "logistic model for readmitted" in out
    written = clinic / "readmit" / "model.json"
    resumed = run(*TRAIN, "--save", "again", "--resume",
                  str(json.loads(written.read_text())["card"]["charge"]))
    assert resumed[0] == 0
    first, second = ((clinic / name / "parameters.npy").read_bytes()
                     for name in ("readmit", "again"))
    assert first == second


def test_train_explains_without_a_charge(run):
    before = run("budget", "--format", "json")[1]
    code, out, _ = run(*TRAIN, "--explain")
    assert code == 0
    assert "noise multiplier" in out
    assert run("budget", "--format", "json")[1] == before


@pytest.mark.parametrize(("words", "code"), [
    (("train", VIEW, "--epsilon", "1", "--units", "200", "--save", "x"), 2),  # no label
    (TRAIN, 2),  # no folder
    ((*TRAIN, "--save", "clinic.yaml"), 2),  # a file
    ((*TRAIN, "--save", "x", "--model", "oracle"), 3),
    ((*TRAIN[:-2], "--save", "x"), 3),  # no public number of patients
    (("train", VIEW, "-l", "readmitted", "--epsilon", "99", "--units", "200", "-s", "x"), 4),
])
def test_train_says_what_is_wrong_before_it_pays(run, words, code):
    assert run(*words)[0] == code
