"""The shape of the repository: doors, directions, names, sizes. Reads source, runs little of it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("mechanisms", "planner", "models", "engine")  # imports point from right to left

TOP_LEVEL = frozenset({
    "pyproject.toml", "README.md", "engine", "planner", "mechanisms", "models", "tests",
    "benchmarks", "docs", "examples", "Makefile", ".ci", "CHANGELOG.md", "LICENSE",
    "constraints.txt", ".gitignore",
})

# Who may load a library, as file names or patterns of them; annotations load nothing.
DOORS: dict[str, tuple[str, ...]] = {
    "cryptography": ("mechanisms/randomness.py",),
    "diffprivlib": (),
    "dp_accounting": ("mechanisms/sampled.py",),
    "duckdb": ("engine/database.py",),
    "keras": (),
    "matplotlib": ("engine/picture.py", "models/picture.py"),
    "pandas": ("engine/result.py", "models/noised_table.py",),
    "pyarrow": ("engine/result.py",),
    "sklearn": (),
    "sqlalchemy": ("engine/ledger_store.py", "engine/ledger_tables.py", "engine/answers.py"),
    "sqlglot": tuple(
        f"planner/{name}.py" for name in (
            "bind", "collector", "joins", "measures", "moments", "parse", "predictions",
            "quantiles", "repair", "scalar", "scope", "spellings", "subqueries", "target_text",
            "totals", "unit_measures", "windows",
        )
    ),
    "tensorflow": ("models/tensors.py",),
    "tensorflow_privacy": (),
    "tf_keras": (),
    "torch": (),
    "yaml": ("planner/policy_text.py",),
}
# What can be predicted. Keys and names come from `secrets`, noise from mechanisms/randomness.py.
PREDICTABLE = ("random", "numpy.random")
PREDICTABLE_ALLOWED = ("engine/clinic.py",)  # makes synthetic patients

# `import engine` must not load these.
HEAVY = (
    "duckdb", "matplotlib", "numpy", "pandas", "pyarrow", "scipy", "sqlalchemy", "sqlglot",
    "tensorflow",
)
CATCH_ALL = frozenset({"utils", "util", "helpers", "helper", "base", "manager", "common", "misc"})
FILE_LINES_MAX, FUNCTION_LINES_MAX = 700, 80

SOURCES = sorted(
    path for package in PACKAGES for path in (ROOT / package).rglob("*.py")
)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def loaded(node: ast.AST) -> Iterator[str]:
    """Yield the dotted names that running this code imports, at any depth."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from loaded(ast.Module([other], []))
        elif isinstance(child, ast.Import):
            yield from (name.name for name in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute here"
            yield from (f"{child.module}.{name.name}" for name in child.names)
        else:
            yield from loaded(child)


def is_of(name: str, library: str) -> bool:
    return name == library or name.startswith(f"{library}.")


by_file = pytest.mark.parametrize("path", SOURCES, ids=relative)


def test_there_is_something_to_check() -> None:
    assert {relative(path).partition("/")[0] for path in SOURCES} == set(PACKAGES)


# ---- imports ------------------------------------------------------------------------------


@by_file
def test_each_library_has_its_doors(path: Path) -> None:
    for name in loaded(tree_of(path)):
        for library, doors in DOORS.items():
            if is_of(name, library):
                assert any(path.match(door) for door in doors), (
                    f"{library} is loaded in {', '.join(doors) or 'no file'} only"
                )


@pytest.mark.parametrize("library", [name for name, doors in DOORS.items() if doors])
def test_every_door_is_used(library: str) -> None:
    using = [p for p in SOURCES if any(is_of(name, library) for name in loaded(tree_of(p)))]
    assert not [door for door in DOORS[library] if not any(p.match(door) for p in using)]


@by_file
def test_imports_point_down(path: Path) -> None:
    height = PACKAGES.index(relative(path).partition("/")[0])
    for name in loaded(tree_of(path)):
        package = name.partition(".")[0]
        assert package not in ("tests", "benchmarks", "examples")
        if package in PACKAGES:
            assert PACKAGES.index(package) <= height, f"{name} lies above this file"


@by_file
def test_nothing_random_can_be_predicted(path: Path) -> None:
    tree = tree_of(path)
    drawn = any(is_of(name, source) for name in loaded(tree) for source in PREDICTABLE) or any(
        isinstance(node, ast.Attribute) and ast.unparse(node) in ("np.random", "numpy.random")
        for node in ast.walk(tree)
    )
    assert drawn == (relative(path) in PREDICTABLE_ALLOWED)


def test_engine_is_quick_to_import() -> None:
    code = (
        "import sys, engine; "
        f"print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == []


def test_the_ledgers_database_loads_with_the_first_ledger() -> None:
    code = "import sys; from engine import Engine; print('sqlalchemy' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["False"]


def test_all_of_engine_is_what_it_exports() -> None:
    import engine

    assert engine.__all__ == sorted(engine.__all__)
    assert engine.__all__ == list(engine._HOMES)
    for name in engine.__all__:
        assert getattr(engine, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = engine.nothing_of_that_name


@pytest.mark.parametrize("name", ["Engine", "OverBudget", "Refused"])
def test_the_promised_names_are_there(name: str) -> None:
    import engine

    assert name in engine.__all__


# ---- names and words ----------------------------------------------------------------------


def test_top_level_holds_only_what_is_agreed() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True,
    )
    if listed.returncode or not listed.stdout:
        pytest.skip("not a git checkout")
    found = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    assert found <= TOP_LEVEL


@by_file
def test_names_say_what_is_inside(path: Path) -> None:
    parts = {part for name in path.relative_to(ROOT).with_suffix("").parts
             for part in name.split("_")}
    assert not parts & CATCH_ALL


@by_file
def test_a_file_opens_with_a_sentence(path: Path) -> None:
    docstring = ast.get_docstring(tree_of(path))
    assert docstring, "a module begins with what comes in and what goes out"
    first = docstring.partition("\n\n")[0]
    # The map of a folder ends its sentence with a period or leads to the list below.
    assert first.rstrip().endswith((".", ":", "`")), first


@by_file
def test_what_is_public_is_explained(path: Path) -> None:
    silent = [
        node.name for node in tree_of(path).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        and not node.name.startswith("_") and ast.get_docstring(node) is None
    ]
    assert not silent


@by_file
def test_nothing_is_called_simple(path: Path) -> None:
    text = path.read_text(encoding="utf-8").lower()
    assert "simply" not in text
    assert "obviously" not in text


# ---- sizes --------------------------------------------------------------------------------


def function_lengths() -> list[tuple[int, str]]:
    return sorted(
        (
            (node.end_lineno - node.lineno + 1, f"{relative(path)}: {node.name}")
            for path in SOURCES for node in ast.walk(tree_of(path))
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None
        ),
        reverse=True,
    )


def test_functions_fit_on_a_screen() -> None:
    longest = function_lengths()
    print("longest functions:", *(f"{size:4} {name}" for size, name in longest[:8]), sep="\n  ")
    assert not [name for size, name in longest if size > FUNCTION_LINES_MAX]


def test_files_are_short() -> None:
    sizes = sorted(
        ((len(path.read_text(encoding="utf-8").splitlines()), relative(path)) for path in SOURCES),
        reverse=True,
    )
    print("longest files:", *(f"{size:4} {name}" for size, name in sizes[:8]), sep="\n  ")
    assert not [name for size, name in sizes if size > FILE_LINES_MAX]
