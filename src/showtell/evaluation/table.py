"""Prints scores as tables on the terminal."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from showtell.evaluation.evaluate import Comparison, Evaluation
from showtell.io.streams import one_line

if TYPE_CHECKING:
    from rich.console import Console


def print_evaluation(evaluation: Evaluation, console: "Console | None" = None) -> None:
    """Prints corpus scores with their 95% intervals, and the captions' diversity; to standard output by default."""
    rows = [
        (name, f"{value:.1f}", f"{evaluation.intervals[name].low:.1f} - {evaluation.intervals[name].high:.1f}")
        for name, value in evaluation.scores.corpus.items()
    ]
    tables = [Table(("metric", "score", "95% interval"), rows), Table(("diversity", ""), describe_diversity(evaluation))]
    print_tables([_title(evaluation)], tables, console, evaluation.notes)


def print_evaluations(evaluations: Mapping[str, Evaluation], console: "Console | None" = None) -> None:
    """Prints a row of corpus scores and 95% intervals for each set of images, and the diversity of its captions."""
    rows = [
        (name, *(with_interval(evaluation, metric) for metric in evaluation.scores.corpus))
        for name, evaluation in evaluations.items()
    ]
    metrics = next(iter(evaluations.values())).scores.corpus
    columns = [dict(describe_diversity(evaluation)) for evaluation in evaluations.values()]
    figures = dict.fromkeys(itertools.chain(*columns))  # not all sets have training captions
    diversity = [(figure, *(column.get(figure, "") for column in columns)) for figure in figures]
    tables = [Table(("set", *metrics), rows), Table(("diversity", *evaluations), diversity)]
    notes = [f"{name}: {note}" for name, evaluation in evaluations.items() for note in evaluation.notes]
    print_tables(list(map(_title, evaluations.values())), tables, console, notes)


def with_interval(evaluation: Evaluation, metric: str) -> str:
    """A corpus score, and its 95% interval on a second line."""
    interval = evaluation.intervals[metric]
    return f"{evaluation.scores.corpus[metric]:.1f}\n{interval.low:.1f}-{interval.high:.1f}"


def print_comparison(comparison: Comparison, console: "Console | None" = None) -> None:
    """Prints both sets' scores, their differences with 95% intervals, and the p-values of the paired test."""
    rows = [
        (
            name,
            f"{test.first:.1f}",
            f"{test.second:.1f}",
            f"{test.difference:+.1f}",
            f"{test.interval.low:+.1f} to {test.interval.high:+.1f}",
            f"{test.p_value:.3f}",
        )
        for name, test in comparison.differences.items()
    ]
    header = ("metric", comparison.first.name, comparison.second.name, "difference", "95% interval", "p")
    print_tables([f"{len(comparison.first.candidates)} images"], [Table(header, rows)], console, comparison.first.notes)


def describe_diversity(evaluation: Evaluation) -> list[tuple[str, str]]:
    """The captions' diversity as names and values for people to read."""
    figures = evaluation.scores.diversity
    shares = {
        "distinct": figures.distinct,
        "repeated bigram": figures.repeated_bigram,
        "incomplete": figures.incomplete,
        "repetition": figures.repetition,
        "- around 'and'": figures.around_and,
        "- doubled word": figures.doubled_word,
        "- repeated word": figures.repeated_word,
        "false people": figures.false_people,
        "false dogs": figures.false_dogs,
        "never seen in training": figures.unseen,
    }
    return [
        ("length", f"{figures.mean_length:.1f} words, {figures.length_ratio:.2f} of the references'"),
        ("vocabulary", f"{figures.vocabulary} words, {figures.vocabulary_use:.1%} of the references' used"),
        *((name, f"{share:.1%}") for name, share in shares.items() if share is not None),
    ]


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
        console.width = max(console.width, 160)  # so that no number is cut in a file or a pipe
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
