"""Scores as tables for the terminal."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from showtell.evaluation.evaluate import Comparison, Evaluation
from showtell.io.streams import one_line

if TYPE_CHECKING:
    from rich.console import Console


def print_evaluation(evaluation: Evaluation, console: "Console | None" = None) -> None:
    """Prints corpus scores with their 95% intervals, and how varied the captions are; to standard output by default."""
    rows = [
        (name, f"{value:.1f}", f"{evaluation.intervals[name].low:.1f} - {evaluation.intervals[name].high:.1f}")
        for name, value in evaluation.scores.corpus.items()
    ]
    scores = Table(("metric", "score", "95% interval"), rows)
    tables = [scores, Table(("diversity", ""), describe_diversity(evaluation))]
    print_tables([_title(evaluation)], tables, console, evaluation.notes)


def print_evaluations(evaluations: Mapping[str, Evaluation], console: "Console | None" = None) -> None:
    """Prints a row of corpus scores and 95% intervals for each set of images, and how varied the captions of each are."""
    found = list(evaluations.values())
    rows = [
        (name, *(with_interval(evaluation, metric) for metric in evaluation.scores.corpus))
        for name, evaluation in evaluations.items()
    ]
    scores = Table(("set", *found[0].scores.corpus), rows)
    described = [dict(describe_diversity(evaluation)) for evaluation in found]
    figures = dict.fromkeys(itertools.chain(*described))  # not all sets have training captions
    diversity = [(figure, *(column.get(figure, "") for column in described)) for figure in figures]
    notes = [f"{name}: {note}" for name, evaluation in evaluations.items() for note in evaluation.notes]
    print_tables(list(map(_title, found)), [scores, Table(("diversity", *evaluations), diversity)], console, notes)


def with_interval(evaluation: Evaluation, metric: str) -> str:
    """A corpus score, and its 95% interval on a second line."""
    interval = evaluation.intervals[metric]
    return f"{evaluation.scores.corpus[metric]:.1f}\n{interval.low:.1f}-{interval.high:.1f}"


def print_comparison(comparison: Comparison, console: "Console | None" = None) -> None:
    """Prints both sets' scores, their differences with 95% intervals, and the p-values of the paired test."""
    rows = [
        (
            name,
            f"{found.first:.1f}",
            f"{found.second:.1f}",
            f"{found.difference:+.1f}",
            f"{found.interval.low:+.1f} to {found.interval.high:+.1f}",
            f"{found.p_value:.3f}",
        )
        for name, found in comparison.differences.items()
    ]
    header = ("metric", comparison.first.name, comparison.second.name, "difference", "95% interval", "p")
    print_tables([f"{len(comparison.first.candidates)} images"], [Table(header, rows)], console, comparison.first.notes)


def describe_diversity(evaluation: Evaluation) -> list[tuple[str, str]]:
    """How varied the captions are, as (what, how much) for people to read."""
    found = evaluation.scores.diversity
    rows = [
        ("length", f"{found.mean_length:.1f} words, {found.length_ratio:.2f} of the references'"),
        ("vocabulary", f"{found.vocabulary} words, {found.vocabulary_use:.1%} of the references' used"),
        ("distinct", f"{found.distinct:.1%}"),
        ("two words twice", f"{found.repeated:.1%}"),
        ("breaks off", f"{found.unfinished:.1%}"),
        ("says a thing twice", f"{found.said_twice:.1%}"),
        ("- around and", f"{found.around_and:.1%}"),
        ("- in a row", f"{found.doubled:.1%}"),
        ("- a word again", f"{found.word_twice:.1%}"),
        ("false people", f"{found.false_people:.1%}"),
        ("false dogs", f"{found.false_dogs:.1%}"),
    ]
    return rows if found.unseen is None else [*rows, ("never seen in training", f"{found.unseen:.1%}")]


def _title(evaluation: Evaluation) -> str:
    left_out = [
        f"{count} {what} left out"
        for count, what in (
            (evaluation.without_candidate, "without a candidate"),
            (evaluation.without_reference, "without references"),
        )
        if count
    ]
    return ", ".join([f"{evaluation.name}: {len(evaluation.candidates)} images", *left_out])


class Table(NamedTuple):
    """Column names and rows of text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def print_tables(titles: Sequence[str], tables: Sequence[Table], console: "Console | None", notes: Sequence[str]) -> None:
    """Prints titles, tables and notes; to standard output by default."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, 160)  # a file or a pipe holds whole numbers
    for title in titles:
        console.print(Text(one_line(title), style="bold"))
    for header, rows in tables:
        table = RichTable(box=None, pad_edge=False)
        for index, column in enumerate(header):
            table.add_column(Text(one_line(column)), justify="left" if index == 0 or len(header) == 2 else "right")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
    for note in notes:
        console.print(Text(f"note: {note}"))
