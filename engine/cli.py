"""The words of a command line in; an answer on standard output and an exit code out.

Standard output carries the answer and nothing else. Whatever goes wrong is told on standard
error as plain text, and the exit code says of which kind it is.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from engine.api import Engine
    from engine.budget import Budget
    from engine.result import Result
    from engine.results import Results
    from planner.plan import Plan
    from planner.workload_plan import WorkloadPlan

__all__ = ["app", "main"]

FINE, WRONG_USE, REFUSED, OVER_BUDGET, BAD_DATA, BROKEN, INTERRUPTED = 0, 2, 3, 4, 5, 6, 130

app = typer.Typer(
    name="discreet", no_args_is_help=True, rich_markup_mode=None, add_completion=False,
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
)


class WrongUse(Exception):  # noqa: N818 (it says what happened)
    """The command was given something it cannot use."""


class Format(Enum):
    """How an answer is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    MARKDOWN = "markdown"


class ShortFormat(Enum):
    """How something that is not a table is written."""

    TEXT = "text"
    JSON = "json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, or 2 to 6 as `discreet --help` lists them."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="discreet")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else WRONG_USE if end.code else FINE
    except BrokenPipeError:  # the reader has seen enough, as with `| head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (it lives until the process ends)
        return FINE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        code, text = _told(error)
        print(text, file=sys.stderr)
        return code
    return FINE


def _told(error: Exception) -> tuple[int, str]:
    """Return an exception's exit code and text; what is not known here keeps its text inside."""
    from engine.drafting import DraftError
    from engine.errors import Broken, LedgerError, OverBudget, TargetMissed
    from engine.picture import PictureError
    from engine.snapshot import SnapshotError
    from planner.policy import PolicyError
    from planner.refusal import Refused

    if isinstance(error, WrongUse | PictureError):
        return WRONG_USE, f"discreet: {error}"
    if isinstance(error, Refused | TargetMissed):
        return REFUSED, str(error)
    if isinstance(error, OverBudget):
        return OVER_BUDGET, f"over budget: {error}"
    if isinstance(error, PolicyError | SnapshotError | LedgerError | DraftError):
        return BAD_DATA, str(error)
    if isinstance(error, OSError):
        return BAD_DATA, f"{error.filename or 'a file'}: {error.strerror or 'cannot be used'}"
    if isinstance(error, Broken):
        return BROKEN, str(error)
    return BROKEN, f"{Broken.TEXT} ({type(error).__name__})"


# ---- options that several commands share --------------------------------------------------


def _amount(text: str) -> str:
    """Check that an option is a number and keep it as written, so that 0.1 is one tenth."""
    try:
        Decimal(text)
    except InvalidOperation:
        raise typer.BadParameter(f"{text!r} is not a number; write it like 0.1 or 1e-9") from None
    return text


PolicyOption = Annotated[Path | None, typer.Option(
    "--policy", "-p", envvar="DISCREET_POLICY", metavar="FILE", show_default=False,
    help="The policy file; else ./discreet.yaml, or the only *.yaml here.",
)]
SqlArgument = Annotated[str | None, typer.Argument(
    metavar="SQL", show_default=False, help="One SELECT; - reads it from standard input.",
)]
SqlArguments = Annotated[list[str] | None, typer.Argument(
    metavar="SQL...", show_default=False,
    help="One SELECT, or several at one price; - reads them from standard input.",
)]
FileOption = Annotated[Path | None, typer.Option(
    "--file", "-f", metavar="FILE", show_default=False, help="Read the SELECT from a file.",
)]
EpsilonOption = Annotated[str | None, typer.Option(
    metavar="NUMBER", show_default=False, parser=_amount,
    help="What the question may cost; else the policy's default.",
)]
DeltaOption = Annotated[str | None, typer.Option(
    metavar="NUMBER", show_default=False, parser=_amount,
    help="Its delta; else the policy's default.",
)]
RowsOption = Annotated[int | None, typer.Option(
    metavar="K", show_default=False, help="How many rows of one patient may count.",
)]
BoundsOption = Annotated[str | None, typer.Option(
    "--bounds", metavar="auto|declared|race", show_default=False,
    help="auto: a share of the epsilon chooses tighter bounds; declared: the policy's; race: sums "
         "under many bounds at once.",
)]
SplitOption = Annotated[str | None, typer.Option(
    "--split", metavar="even|auto", show_default=False,
    help="auto: the epsilon goes where the relative error would be worst; even: equal shares.",
)]
ErrorOption = Annotated[str | None, typer.Option(
    "--error", metavar="NUMBER|PERCENT", show_default=False,
    help="How wrong the answer may be, as 50 or 5%; --epsilon is then the most it may cost.",
)]
ConfidenceOption = Annotated[str | None, typer.Option(
    "--confidence", metavar="PERCENT", show_default=False,
    help="How surely the error has to hold; else 95%.",
)]
ErrorForOption = Annotated[str | None, typer.Option(
    "--error-for", metavar="all|PERCENT|total", show_default=False,
    help="For which groups it has to hold: all, a share as 90%, or their total.",
)]
DialectOption = Annotated[str, typer.Option(
    "--dialect", metavar="NAME", help="The SQL it is written in: postgres, bigquery, tsql, ...",
)]
AnalystOption = Annotated[str | None, typer.Option(
    "--analyst", "-a", envvar="DISCREET_ANALYST", metavar="NAME", show_default=False,
    help="Who asks and pays, where the policy names analysts.",
)]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"discreet {version('discreet')}")
        except PackageNotFoundError:
            print("discreet (not installed)")
        raise typer.Exit


@app.callback(epilog="Exit codes: 0 fine, 2 wrong use of the command, 3 the question is refused, "
                     "4 over budget, 5 policy, data or ledger have a problem, 6 broken.")
def _discreet(
    _: Annotated[bool, typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Print the version and exit.",
    )] = False,
) -> None:
    """Differentially private SQL over patient data: answers that give no patient away.

    \b
    Try it:       discreet demo
    Begin:        discreet init hospital.duckdb
    Ask:          discreet query "SELECT sex, COUNT(*) FROM patients GROUP BY sex"
    See a price:  discreet explain "SELECT COUNT(*) FROM visits" --epsilon 0.2
    """


# ---- commands -----------------------------------------------------------------------------


@app.command()
def demo(
    folder: Annotated[Path | None, typer.Option(
        metavar="DIR", show_default=False,
        help="Where policy, ledger and chart go; else a new temporary folder.",
    )] = None,
) -> None:
    """Ask a dozen questions about 2,694 invented patients.

    Everything is computed on the spot, from a database in the OMOP format (GiBleed) that comes
    with `pip install discreet[demo]`. Afterwards ask your own questions of it.

    \b
    discreet demo
    discreet demo --folder try-it
    """
    from engine.demo import DemoError, run_demo

    try:
        run_demo(folder, _say)
    except DemoError as error:
        raise WrongUse(str(error)) from None


@app.command()
def init(
    database: Annotated[Path, typer.Argument(
        help="A DuckDB file, a folder of Parquet or CSV files, or one such file.",
    )],
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", metavar="FILE", show_default=False,
        help="The policy to write; else the database's name with .yaml. - prints it.",
    )] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Draft a policy for a database.

    The draft is made of table and column names and types: no row is read. A database in the
    OMOP Common Data Model gets a complete one.

    \b
    discreet init hospital.duckdb
    discreet init exports/ -o hospital.yaml
    """
    from engine.drafting import draft_policy

    if str(output) == "-":
        return _say(draft_policy(database).rstrip("\n"))
    path = output or Path(f"{database.resolve().name.split('.')[0]}.yaml")
    if path.exists() and not force:
        raise WrongUse(f"{path} is there already; choose another with -o, or overwrite it with "
                       "--force")
    # A policy names its database as seen from its own folder.
    beside = path.resolve().parent == Path.cwd().resolve()
    text = draft_policy(database if beside else database.resolve())
    _write(path, text)
    left = sum("TODO" in line.partition("#")[0] for line in text.splitlines())
    todo = f"{left} places marked TODO are for you to complete" if left else "read it through"
    return _say(f"{path}: a draft of a policy; {todo}.\nThen: discreet budget -p {path}")


@app.command()
def query(
    sql: SqlArguments = None, file: FileOption = None, policy: PolicyOption = None,
    epsilon: EpsilonOption = None, delta: DeltaOption = None, rows: RowsOption = None,
    analyst: AnalystOption = None, dialect: DialectOption = "duckdb",
    error: ErrorOption = None, confidence: ConfidenceOption = None,
    error_for: ErrorForOption = None, bounds: BoundsOption = None, split: SplitOption = None,
    strict: Annotated[bool, typer.Option(
        "--strict", help="Refuse an answer that misses --error (read in vain, it is charged).",
    )] = False,
    nonnegative: Annotated[bool, typer.Option(
        "--nonnegative", help="Show 0 where noise made a count or sum negative (biases totals).",
    )] = False,
    form: Annotated[Format, typer.Option(
        "--format", help="csv and json are unrounded, with both ends of every interval.",
    )] = Format.TABLE,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", metavar="FILE", show_default=False,
        help="Write the answer there instead of printing it.",
    )] = None,
    plot: Annotated[Path | None, typer.Option(
        metavar="FILE.png", show_default=False, help="Draw the first noisy column too.",
    )] = None,
) -> None:
    """Answer one SELECT, or several at one price, and charge it to the budget.

    \b
    discreet query "SELECT sex, COUNT(*) AS n FROM patients GROUP BY sex"
    discreet query -p clinic.yaml -f stays.sql --epsilon 0.5 --format csv > stays.csv
    echo "SELECT COUNT(*) FROM visits" | discreet query - --analyst ana --plot visits.png
    discreet query "SELECT COUNT(*) FROM visits" --error 5%
    discreet query -f dashboard.sql --epsilon 1
    """
    statements = _statements(sql, file, dialect)
    _check_targets(output, plot)  # before anything is paid
    alone: dict[str, Any] = {
        "error": error, "confidence": confidence, "error_for": error_for, "bounds": bounds,
        "split": split,
    }
    if len(statements) > 1:
        _check_alone({**alone, "strict": strict or None, "plot": plot})
    with _opened(policy, analyst) as engine:
        if len(statements) > 1:
            many = engine.query_many(statements, epsilon=epsilon, delta=delta, rows=rows,
                                     dialect=dialect)
            return _give(_formatted_many(many, form), output)
        result = engine.query(statements[0], epsilon=epsilon, delta=delta, rows=rows,
                              dialect=dialect, strict=strict, nonnegative=nonnegative, **alone)
    _give(_formatted(result, form), output)
    if plot is not None:
        _save(result, plot)
    return None


@app.command()
def explain(
    sql: SqlArguments = None, file: FileOption = None, policy: PolicyOption = None,
    epsilon: EpsilonOption = None, delta: DeltaOption = None, rows: RowsOption = None,
    dialect: DialectOption = "duckdb", error: ErrorOption = None,
    confidence: ConfidenceOption = None, error_for: ErrorForOption = None,
    bounds: BoundsOption = None, split: SplitOption = None,
    form: Annotated[ShortFormat, typer.Option("--format")] = ShortFormat.TEXT,
    show_sql: Annotated[bool, typer.Option(
        "--sql", help="Show the SQL that would run as well.",
    )] = False,
) -> None:
    """Say what a question, or several at one price, would do and cost.

    It is free, no row is read, and the answer is the same for every database of this policy.

    \b
    discreet explain "SELECT AVG(cost) FROM visits" --epsilon 0.2
    discreet explain -f stays.sql --sql
    """
    statements = _statements(sql, file, dialect)
    alone: dict[str, Any] = {
        "error": error, "confidence": confidence, "error_for": error_for, "bounds": bounds,
        "split": split,
    }
    if len(statements) > 1:
        _check_alone(alone)
    with _opened(policy, None) as engine:
        if len(statements) > 1:
            many = engine.explain_many(statements, epsilon=epsilon, delta=delta, rows=rows,
                                       dialect=dialect)
            return _say(_explained_many(many, form, show_sql))
        plan = engine.explain(statements[0], epsilon=epsilon, delta=delta, rows=rows,
                              dialect=dialect, **alone)
    return _say(_explained(plan, form, show_sql))


@app.command()
def train(
    sql: SqlArgument = None, file: FileOption = None, policy: PolicyOption = None,
    label: Annotated[str, typer.Option("--label", "-l", help="The column to predict.")] = "",
    model: Annotated[str, typer.Option(
        "--model", "-m", help="logistic, linear, mlp or cnn.",
    )] = "logistic",
    epsilon: EpsilonOption = None, delta: DeltaOption = None, rows: RowsOption = None,
    units: Annotated[int | None, typer.Option(
        "--units", help="A public number of patients; else the policy's.",
    )] = None,
    save: Annotated[Path | None, typer.Option(
        "--save", "-s", help="The folder to write the model into.",
    )] = None,
    analyst: AnalystOption = None, dialect: DialectOption = "duckdb",
    explain_only: Annotated[bool, typer.Option(
        "--explain", help="Say what the run would do and cost, and stop.",
    )] = False,
    resume: Annotated[int | None, typer.Option(
        "--resume", help="The charge of an interrupted run: it goes on, and nothing is charged.",
    )] = None,
) -> None:
    """Train a model on the rows of a SELECT, and write it into a folder.

    \b
    discreet train "SELECT sex, los, readmitted FROM visits JOIN patients USING (patient_id)"
        --label readmitted --epsilon 1 --units 1000 --save readmit
    """
    from engine.progress import progress_bar

    statement = _statement(sql, file)
    if not label:
        raise WrongUse("name the column to predict: --label readmitted")
    if save is None and not explain_only:
        raise WrongUse("name the folder for the model: --save readmit (or --explain)")
    if save is not None and save.exists() and not save.is_dir():
        raise WrongUse(f"{save} is there and is no folder")
    with _opened(policy, analyst) as engine:
        asked: dict[str, Any] = {
            "label": label, "model": model, "epsilon": epsilon, "delta": delta, "rows": rows,
            "units": units, "dialect": dialect,
        }
        if explain_only:
            _say(str(engine.explain_train(statement, **asked)))
            return
        with progress_bar("training") as progress:
            made = engine.train(statement, progress=progress, resume=resume, **asked)
    if save is not None:
        made.save(save)
    _say(str(made))


@app.command()
def budget(
    policy: PolicyOption = None, analyst: AnalystOption = None,
    history: Annotated[bool, typer.Option("--history", help="List every charge too.")] = False,
    form: Annotated[ShortFormat, typer.Option("--format")] = ShortFormat.TEXT,
) -> None:
    """Show what is spent and left.

    Of the whole budget, or of one analyst's share of it.

    \b
    discreet budget
    discreet budget --analyst ana --history
    """
    with _opened(policy, None) as engine:
        found = engine.budget(analyst)
    _say(_budget_json(found, history) if form is ShortFormat.JSON else _budget_text(found, history))


@app.command()
def refresh(policy: PolicyOption = None) -> None:
    """Read the database anew, for the data steward.

    The report on its rows has exact counts: it is not for analysts. New data never renew the
    budget.

    \b
    discreet refresh -p clinic.yaml
    """
    from engine.progress import progress_bar

    with _opened(policy, None) as engine:
        with progress_bar("reading") as progress:
            version = engine.refresh(progress)
        _say(f"data version {version}\n{engine.report}")


@app.command()
def audit(
    policy: PolicyOption = None,
    file: Annotated[Path | None, typer.Option(
        "--file", "-f", metavar="FILE", show_default=False,
        help="Questions to replay, each ended by ; at the end of a line.",
    )] = None,
    form: Annotated[ShortFormat, typer.Option("--format")] = ShortFormat.TEXT,
    html: Annotated[Path | None, typer.Option(
        metavar="FILE.html", show_default=False, help="Write a page with pictures too.",
    )] = None,
    neighbours: Annotated[int, typer.Option(
        metavar="N", help="How many patients to leave out, one by one.",
    )] = 5,
    draws: Annotated[int, typer.Option(
        metavar="N", help="How often to draw each noise.",
    )] = 200_000,
) -> None:
    """Attack your own policy and database, for the data steward.

    Looks for bounds that do not fit, rows that lead to no patient and columns that name people;
    replays questions without single patients; measures the noise; verifies the ledger; and lets
    an attacker loose on synthetic patients under your budget. It spends nothing. Its findings
    come from rows without noise: they are not for analysts. Ends with 5 where something is broken.

    \b
    discreet audit -p clinic.yaml
    discreet audit -p clinic.yaml -f questions.sql --html audit.html
    """
    from engine.audit import Settings
    from engine.audit import audit as audited
    from engine.audit_findings import Level
    from engine.audit_report import as_html, as_json, as_text
    from engine.progress import progress_bar

    _check_targets(html, None)
    questions = [] if file is None else _questions(_statement(None, file))
    try:
        settings = Settings(neighbours=neighbours, draws=draws)
    except ValueError as error:
        raise WrongUse(str(error)) from None
    with progress_bar("auditing") as progress:
        found = audited(_find_policy(policy), questions, settings, progress)
    if html is not None:
        _write(html, as_html(found))
    _say(as_json(found) if form is ShortFormat.JSON else as_text(found))
    if found.worst is Level.BROKEN:
        raise typer.Exit(BAD_DATA)


# ---- input --------------------------------------------------------------------------------


def _questions(text: str) -> list[str]:
    """Split a file into its questions, at each ; that ends a line."""
    parts = re.split(r";[ \t]*(?:\n|$)", text)
    return [part.strip() for part in parts if part.strip()]



def _find_policy(named: Path | None) -> Path:
    if named is not None:
        return named
    usual = Path("discreet.yaml")
    if usual.is_file():
        return usual
    found = sorted(path for path in Path().glob("*.yaml") if path.is_file())
    if len(found) == 1:
        return found[0]
    why = "there is no *.yaml here" if not found else f"here are {', '.join(map(str, found[:5]))}"
    raise WrongUse(f"which policy? {why}; name one with -p FILE or DISCREET_POLICY "
                   "(`discreet init` drafts one)")


@contextmanager
def _opened(policy: Path | None, analyst: str | None) -> Iterator[Engine]:
    """Open the engine, with a bar while its snapshot is built."""
    path = _find_policy(policy)
    from engine.api import Engine
    from engine.progress import progress_bar

    with progress_bar("reading the database") as progress:
        engine = Engine.open(path, analyst=analyst, progress=progress)
    with engine:
        yield engine


def _statement(sql: str | None, file: Path | None) -> str:
    """Return the SQL from the one place that was named."""
    if (sql is None) == (file is None):
        raise WrongUse('give the SELECT once: "SELECT ...", -f FILE, or - for standard input')
    if sql is not None and sql != "-":
        return sql
    try:
        if sql == "-" or str(file) == "-":
            return sys.stdin.read()
        return Path(str(file)).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise WrongUse(f"{file or 'standard input'} is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise WrongUse(f"{file} cannot be read: {error.strerror}") from None


def _statements(sql: list[str] | None, file: Path | None, dialect: str) -> tuple[str, ...]:
    """Return the statements from the one place that was named; each text may hold several."""
    from planner.parse import split

    if sql and len(sql) > 1:
        if file is not None or "-" in sql:
            raise WrongUse("give SELECTs as arguments, with -f FILE or with -, one of the three")
        texts = sql
    else:
        texts = [_statement(sql[0] if sql else None, file)]
    # A text that cannot be read, or holds nothing, is told of by the question's own road.
    found = tuple(part for text in texts for part in split(text, dialect))
    return found or tuple(texts)


def _check_alone(given: dict[str, Any]) -> None:
    """Refuse, before anything is paid, what belongs to one question by itself."""
    for name, value in given.items():
        if value is not None:
            raise WrongUse(f"--{name.replace('_', '-')} belongs to one question; several have one "
                           "price and no options of their own")


def _check_targets(output: Path | None, plot: Path | None) -> None:
    """Refuse, before anything is paid, an answer that could not be written."""
    for path in (output, plot):
        if path is not None and not path.resolve().parent.is_dir():
            raise WrongUse(f"{path} cannot be written: its folder does not exist")
        if path is not None and path.is_dir():
            raise WrongUse(f"{path} cannot be written: it is a folder; name a file")
    if plot is not None:
        from engine.picture import need_matplotlib

        need_matplotlib()
        if plot.suffix.lower() not in (".png", ".svg", ".pdf"):
            raise WrongUse(f"{plot} is no picture's name; end it with .png, .svg or .pdf")


# ---- output -------------------------------------------------------------------------------


def _say(text: str) -> None:
    """Print an answer; a terminal that lacks a sign gets its ASCII form."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "+-").encode(encoding, "backslashreplace").decode(encoding)
    print(text, flush=True)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WrongUse(f"{path} cannot be written: {error.strerror}") from None


def _give(text: str, output: Path | None) -> None:
    """Print an answer, or write it where it was asked for."""
    if output is None:
        _say(text)
    else:
        _write(output, text + "\n")


def _save(result: Result, path: Path) -> None:
    from engine.picture import draw

    figure = draw(result)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise WrongUse(f"{path} cannot be written: {error.strerror}") from None


def _formatted(result: Result, form: Format) -> str:
    from engine import display

    if form is Format.CSV:
        return display.as_csv(result)
    if form is Format.JSON:
        return display.as_json(result)
    if form is Format.MARKDOWN:
        return display.as_markdown(result)
    return display.as_text(result, limit=None)


def _formatted_many(results: Results, form: Format) -> str:
    from engine import display

    if form is Format.CSV:
        return display.many_as_csv(results)
    if form is Format.JSON:
        return display.many_as_json(results)
    if form is Format.MARKDOWN:
        return display.many_as_markdown(results)
    return display.many_as_text(results, limit=None)


def _explained_many(plan: WorkloadPlan, form: ShortFormat, show_sql: bool) -> str:
    if form is ShortFormat.JSON:
        found = plan.to_dict()
        return json.dumps(found, indent=2, ensure_ascii=False)
    sql = ["-- on the patients' tables, inside the engine", plan.sql] if show_sql else []
    return "\n\n".join([str(plan), *sql])


def _explained(plan: Plan, form: ShortFormat, show_sql: bool) -> str:
    from engine.display import plan_json

    if form is ShortFormat.JSON:
        return json.dumps(plan_json(plan, show_sql), indent=2, ensure_ascii=False)
    if not show_sql:
        return str(plan)
    parts = [str(plan)]
    if plan.sql:
        parts += ["-- on the patients' tables, inside the engine", plan.sql]
    return "\n\n".join([*parts, "-- on released and public tables", plan.outer_sql])


def _budget_text(budget: Budget, history: bool) -> str:
    from engine.display import price_words, printable

    lines = [str(budget)]
    for charge in budget.charges if history else ():
        who = f" {charge.analyst}" if charge.analyst else ""
        question = printable(" ".join(charge.sql.split()))
        lines += [f"{charge.time[:19]}{who}  {price_words(charge.cost)}", f"    {question}"]
    return "\n".join(lines)


def _budget_json(budget: Budget, history: bool) -> str:
    from engine.display import loss_json

    found: dict[str, Any] = {
        "analyst": budget.analyst,
        "spent": loss_json(budget.spent),
        "left": loss_json(budget.left),
        "typical_epsilon": budget.typical_epsilon,
        "charges": len(budget.charges),
    }
    if history:
        found["history"] = [
            {"time": c.time, "analyst": c.analyst, "cost": loss_json(c.cost), "sql": c.sql,
             "data_version": c.data_version}
            for c in budget.charges
        ]
    return json.dumps(found, indent=2, ensure_ascii=False)
