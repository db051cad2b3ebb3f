"""Messages and progress on standard error, for all commands."""

from __future__ import annotations

import math
import sys
import time
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

import click

from showtell.errors import ShowtellWarning
from showtell.io.streams import one_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def show_warnings() -> None:
    """Prints showtell's warnings as single lines, like errors, without a source location."""
    plain = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, ShowtellWarning):
            tell(f"showtell: {message}")
        else:
            plain(message, category, filename, lineno, file, line)

    warnings.showwarning = show


def tell(text: str) -> None:
    """Prints a line on standard error; line breaks and control characters are escaped."""
    print(one_line(text), file=sys.stderr)


class Group(click.Group):
    """A group whose help shows the whole first sentence of each command."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, command.get_short_help_str(limit=1000)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class Console:
    """Messages and progress on standard error: a live bar on a terminal; elsewhere a line after `every` seconds of silence."""

    def __init__(self, shown: bool = True, every: float = math.inf) -> None:
        self._shown = shown and sys.stderr.isatty()
        self._every, self._spoke = every, time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._what = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def message(self, text: str) -> None:
        """Prints a line on standard error, above the bar."""
        self._spoke = time.monotonic()
        if self._bar is not None:
            self._bar.console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)
        else:
            tell(text)

    def progress(self, what: str, done: int, total: int | None, note: str = "") -> None:
        """Shows `done` of `total` steps of `what`; of a number that is not known yet where `total` is None."""
        if not self._shown:
            if time.monotonic() - self._spoke >= self._every:
                self.message(f"{what} {done}{f'/{total}' if total is not None else ''}  {note}".rstrip())
            return
        if self._bar is None:
            from rich import progress as rich_progress
            from rich.console import Console as RichConsole

            self._bar = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}"),
                rich_progress.BarColumn(),
                rich_progress.MofNCompleteColumn(),
                rich_progress.TimeRemainingColumn(),
                rich_progress.TextColumn("{task.fields[note]}"),
                console=RichConsole(stderr=True),
                transient=True,
            )
            self._bar.start()
        if self._task is None or self._what != what:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task, self._what = self._bar.add_task(what, total=total, note=note), what
        self._bar.update(self._task, completed=done, total=total, note=note)
