"""The steps of a long work in; a bar on a terminal's standard error, or nothing, out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Progress", "progress_bar"]

Progress = Callable[[str, int, int], None]


@contextmanager
def progress_bar(title: str) -> Iterator[Progress | None]:
    """Give a callable(step, done, total) that draws a bar, or None where nobody would see it.

    The bar appears with the first step, so that work which needs none shows none, and it is
    wiped away at the end.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn(title), BarColumn(), TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(), TextColumn("{task.description}"),
        console=Console(stderr=True), transient=True,
    )
    task = bar.add_task("", total=None)

    def step(name: str, done: int, total: int) -> None:
        bar.start()
        bar.update(task, description=name, completed=done, total=total)

    try:
        yield step
    finally:
        bar.stop()
