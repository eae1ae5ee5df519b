"""README and docs: every block of code on a page runs, every link leads somewhere.

On a page, ```python blocks run in order in one namespace, ```sql statements are explained by the
engine, and each line `$ discreet ...` of a ```console block exits with 0; all of them in a folder
that holds a small synthetic clinic and its policy, clinic.yaml. Directly above a block may stand

    <!-- not run: why -->     the block is skipped, and counted as skipped
    <!-- refused: rule -->    each sql statement of the block must be refused by that rule
    <!-- exits: 3 -->         each command of the block must exit with that code
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Refused
from engine.clinic import clinic_policy, write_clinic
from planner.bind import bind
from planner.expression import Call, Expression
from planner.functions import FUNCTIONS
from planner.functions.learned import LEARNED
from planner.parse import parse
from planner.relation import Filter
from planner.scalar import HANDLERS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = ("python", "sql", "console")
MARK = re.compile(r"<!--\s*(not run|refused|exits):\s*(.+?)\s*-->")
SPAN = re.compile(r"(`+)(.+?)\1")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|(?:src|href)=\"([^\"]+)\"")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its page, the line of its first line of code, and its mark."""

    page: Path
    line: int
    language: str
    code: str
    mark: str = ""
    meant: str = ""

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page in order."""
    if not page.exists():
        return
    fence, language, start, code = "", "", 0, list[str]()
    mark: re.Match[str] | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.strip()
        if not fence:
            opened = re.match(r"(`{3,})\s*(\w*)", text)
            if opened:
                fence, language, start, code = opened[1], opened[2], number + 1, []
            else:
                mark = MARK.fullmatch(text) or (mark if not text else None)
        elif text == fence:
            kind, meant = (mark[1], mark[2]) if mark else ("", "")
            yield Block(page, start, language, "\n".join(code) + "\n", kind, meant)
            fence, mark = "", None
        else:
            code.append(line)
    assert not fence, f"{page}: the block at line {start} does not end"


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SKIPPED = [b for b in BLOCKS if b.mark == "not run"]


def runnable(language: str) -> list[Block]:
    return [b for b in BLOCKS if b.language == language and b.mark != "not run"]


def by_page(language: str) -> list[Any]:
    """Return the runnable blocks of a language, page by page, as parameters."""
    found: dict[Path, list[Block]] = {}
    for block in runnable(language):
        found.setdefault(block.page, []).append(block)
    return [pytest.param(blocks, id=page.name) for page, blocks in found.items()]


# ---- the clinic ---------------------------------------------------------------------------


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clinic")
    return write_clinic(folder / "clinic.duckdb", patients=1000, seed=7, labs_per_patient=5)


def furnish(folder: Path, database: Path) -> Path:
    """Put the clinic, its policy and an empty ledger into a folder."""
    shutil.copy(database, folder / "clinic.duckdb")
    policy = folder / "clinic.yaml"
    policy.write_text(clinic_policy(Path("clinic.duckdb"), Path("clinic.ledger.sqlite")))
    return policy


@pytest.fixture
def clinic(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, as the current one; returns the policy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return furnish(tmp_path, database)


@pytest.fixture(scope="session")
def asking(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[Engine]:
    """An engine that only explains; nothing is ever charged to it."""
    with Engine.open(furnish(tmp_path_factory.mktemp("asking"), database)) as engine:
        yield engine


# ---- blocks -------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", by_page("python"))
def test_python_runs(blocks: list[Block], clinic: Path) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        # Blank lines in front give tracebacks the line numbers of the page.
        code = compile("\n" * (block.line - 1) + block.code, str(block.page), "exec")
        exec(code, namespace)  # noqa: S102 (our own pages)


def statements_of(block: Block) -> list[str]:
    lines = [line for line in block.code.splitlines() if not line.lstrip().startswith("--")]
    return [s.strip() for s in "\n".join(lines).split(";") if s.strip()]


@pytest.mark.parametrize("block", runnable("sql"), ids=lambda b: b.place)
def test_sql_is_explained_or_refused(block: Block, asking: Engine) -> None:
    for sql in statements_of(block):
        if block.mark == "refused":
            with pytest.raises(Refused) as caught:
                asking.explain(sql)
            assert caught.value.rule == block.meant, sql
        else:
            assert asking.explain(sql).full_cost is not None, sql


def commands_of(block: Block) -> list[str]:
    joined = block.code.replace("\\\n", " ")
    return [line[2:].strip() for line in joined.splitlines() if line.startswith("$ ")]


@pytest.mark.parametrize("blocks", by_page("console"))
def test_commands_run(blocks: list[Block], clinic: Path) -> None:
    for block in blocks:
        commands = commands_of(block)
        assert commands, f"{block.place}: no line begins with '$ '"
        for command in commands:
            words = shlex.split(command)
            assert words[0] == "discreet", f"{block.place}: mark it `not run`: {command}"
            found = subprocess.run(
                [sys.executable, "-c", "import sys; from engine.cli import main; sys.exit(main())",
                 *words[1:]],
                capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=clinic.parent,
            )
            wanted = int(block.meant) if block.mark == "exits" else 0
            assert found.returncode == wanted, f"{block.place}: {command}\n{found.stderr}"


@pytest.mark.parametrize("block", SKIPPED, ids=lambda b: b.place)
def test_what_is_not_run(block: Block) -> None:
    assert block.language in RUN, "only blocks that would run need the mark"
    pytest.skip(f"{block.place}: {block.meant}")


def test_pages_have_blocks_that_run() -> None:
    assert any(b.language == "python" for b in BLOCKS)
    assert any(b.language == "sql" for b in BLOCKS)
    assert len(SKIPPED) <= len(BLOCKS) // 2, "most of what is shown should run"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"],
                         ids=lambda b: b.place)
def test_python_on_pages_is_python(block: Block) -> None:
    ast.parse(block.code)


# ---- links --------------------------------------------------------------------------------


def prose_of(page: Path) -> str:
    """Return a page without its fenced blocks and code spans, which hold no links."""
    text = re.sub(r"^ *(`{3,}).*?^ *\1 *$", "", page.read_text(encoding="utf-8"),
                  flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that mkdocs and code hosts give to a page's headings."""
    headings = re.findall(r"^#{1,6} +(.+?) *#*$", page.read_text(encoding="utf-8"), re.MULTILINE)
    found = set()
    for heading in headings:
        plain = re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading))
        found.add(re.sub(r"[\s-]+", "-", plain.strip().lower()))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert page.exists(), f"{page.name} is missing"
    for groups in LINK.findall(prose_of(page)):
        target = groups[0] or groups[1]
        if re.match(r"[a-z]+:", target):  # another site, or an address to write to
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name}: {target} does not exist"
        assert ROOT in found.parents, f"{page.name}: {target} lies outside the repository"
        if anchor:
            assert anchor in anchors_of(found), f"{page.name}: {target} names no heading"


@pytest.mark.parametrize("page", [p for p in PAGES if p.exists()], ids=lambda p: p.name)
def test_named_files_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:\.ci|[a-z]+)/[\w/.]*\.(?:py|yaml|toml)|[a-z]+/)`", text):
        assert (ROOT / name).exists(), f"{page.name}: {name} does not exist"


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "docs/web/mkdocs.yml").read_text(encoding="utf-8")
    assert {page.name for page in PAGES[1:]} == set(re.findall(r"(\S+\.md)$", menu, re.MULTILINE))


def test_the_site_builds(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict",
         "--config-file", str(ROOT / "docs/web/mkdocs.yml"), "--site-dir", str(tmp_path / "site")],
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "site/index.html").exists()


# ---- the SQL reference is complete --------------------------------------------------------


def section(page: Path, title: str) -> str:
    """Return the text of one section of a page, its subsections included."""
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(title)}$(.*?)(?=^##? |\Z)", text,
                      re.DOTALL | re.MULTILINE)
    assert found, f"{page.name} has no section {title}"
    return found[2]


def examples_of(page: Path, title: str) -> list[str]:
    """Return the code spans in the first column of a section's tables."""
    rows = re.findall(r"^\| (.+?) (?<!\\)\|", section(page, title), re.MULTILINE)
    return [span.replace("\\|", "|") for row in rows for _, span in SPAN.findall(row)]


SQL_PAGE = ROOT / "docs/sql.md"


def parts_of(expression: Expression) -> Iterator[Expression]:
    yield expression
    for argument in expression.arguments if isinstance(expression, Call) else ():
        yield from parts_of(argument)


def test_every_function_is_in_the_reference(asking: Engine) -> None:
    """Each example works, and together they use every function and every node that binds."""
    functions: set[str] = set()
    nodes: set[type] = set()
    examples = examples_of(SQL_PAGE, "Functions")
    for example in examples:
        parsed = parse(
            "SELECT COUNT(*) FROM visits JOIN patients USING (patient_id) "
            f"WHERE ({example}) IS NOT NULL"
        )
        nodes |= {type(node) for node in parsed.tree.walk()}
        (release,) = bind(parsed, asking.catalog).releases
        assert isinstance(release.input, Filter)
        functions |= {
            part.function for condition in release.input.conditions
            for part in parts_of(condition) if isinstance(part, Call)
        }
    # AVG is an aggregate; `average` is how its two noisy halves are put together. What a published
    # model is made of has one name for analysts: discreet_predict (docs/training.md).
    written_out = {entry.name for entry in LEARNED}
    assert set(FUNCTIONS) - functions - written_out == {"average", "from_two_rows"}
    assert set(HANDLERS) - nodes == set()
    assert len(examples) == len(set(examples))


def test_every_aggregate_in_the_reference_is_answered(asking: Engine) -> None:
    examples = examples_of(SQL_PAGE, "Aggregates over patients' rows")
    assert examples
    for example in examples:
        assert asking.explain(f"SELECT {example} FROM visits").releases, example


def test_every_aggregate_within_a_patient_is_answered(asking: Engine) -> None:
    examples = examples_of(SQL_PAGE, "Within a patient")
    assert examples
    for example in examples:
        inner = f"SELECT patient_id, {example} AS x FROM visits GROUP BY patient_id"
        plan = asking.explain(f"SELECT COUNT(x) FROM ({inner}) AS t")
        assert len(plan.releases) == 1, example


def test_every_aggregate_above_is_answered(asking: Engine) -> None:
    examples = examples_of(SQL_PAGE, "Aggregates above a release")
    assert examples
    for example in examples:
        inner = "SELECT department, COUNT(*) AS n FROM visits GROUP BY department"
        plan = asking.explain(f"SELECT {example} FROM ({inner}) AS t")
        assert len(plan.releases) == 1, example
