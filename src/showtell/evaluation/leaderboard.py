"""Several captioners on one data set: a table of scores, speed and size, and a page of the photos where they differ most."""

import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from html import escape
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from showtell.captioners import open_captioner
from showtell.data import read as read_dataset
from showtell.evaluation.evaluate import Comparison, Evaluation, compare
from showtell.evaluation.report import prepare, thumbnail
from showtell.evaluation.run import Run, caption_split
from showtell.evaluation.table import Table, print_tables, with_interval
from showtell.files import writing
from showtell.io import pages
from showtell.types import Split

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = 200  # photos of the page
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """Captions of a split by one captioner, and what they took."""

    run: Run
    seconds: float  # from the first photo to the last caption, without loading the model
    memory: int | None  # peak of the process, in bytes; None where the system does not tell, as Windows
    size: int | None  # of the model, in bytes; None where it is on a server


@dataclass(frozen=True)
class Entry:
    """A row of the leaderboard; `against` compares it with the first row, which has none."""

    evaluation: Evaluation
    measured: Measured
    against: Comparison | None = None

    def to_json(self) -> dict[str, Any]:
        """The object that `showtell evaluate --json` writes."""
        seconds, photos = self.measured.seconds, len(self.measured.run.candidates) + len(self.measured.run.failed)
        return {
            **self.evaluation.to_json(),
            "photos_per_second": round(photos / seconds, 2),
            "peak_memory_mb": self.measured.memory and round(self.measured.memory / 1e6),
            "size_mb": self.measured.size and round(self.measured.size / 1e6, 1),
            "failed": len(self.measured.run.failed),
            **({} if self.against is None else {"p": {n: d.p_value for n, d in self.against.differences.items()}}),
        }


def apart(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What `work` returns or raises in a process of its own, so that no captioner's memory counts for another."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work, *arguments, **named).result()


def measure(
    captioner: Mapping[str, Any],
    search: Mapping[str, Any],
    data: Path,
    reading: Mapping[str, Any],
    split: Split,
    batch_size: int,
) -> Measured:
    """Captions a split. `captioner` are arguments of `open_captioner`, `reading` of `data.read`. Raises what these raise."""
    opened = open_captioner(**captioner)
    dataset = read_dataset(data, **reading)
    style = search.get("style") or (dataset.name if dataset.name in opened.styles else None)
    options = opened.options(**{**search, "style": style})
    begun = time.perf_counter()
    run = caption_split(opened, dataset, split, options, batch_size=batch_size)
    return Measured(run, time.perf_counter() - begun, _peak_memory(), opened.size)


def _peak_memory() -> int | None:
    with contextlib.suppress(ImportError):
        import resource  # POSIX alone has it

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    return None


def ranked(entries: Sequence[tuple[Evaluation, Measured]]) -> list[Entry]:
    """The rows, each after the first compared with the first by a paired test, where both caption the same images."""
    (first, measured), *others = entries
    rows = [Entry(first, measured)]
    for evaluation, each in others:
        same = list(evaluation.candidates) == list(first.candidates)
        rows.append(Entry(evaluation, each, compare(first, evaluation) if same else None))
    return rows


def print_leaderboard(name: str, entries: Sequence[Entry], console: "Console | None" = None) -> None:
    """Prints a row for each captioner; to standard output by default."""
    notes = dict.fromkeys(note for entry in entries for note in entry.evaluation.notes)
    print_tables([f"{name}: {len(entries[0].evaluation.candidates)} images"], [_table(entries)], console, list(notes))


def _table(entries: Sequence[Entry]) -> Table:
    """A row for each captioner. p is of the paired test against the first row."""
    main = _main(entries)
    metrics = list(entries[0].evaluation.scores.corpus)
    rows = []
    for entry in entries:
        figures = entry.to_json()
        p = "" if entry.against is None else f"{entry.against.differences[main].p_value:.3f}"
        scores = [with_interval(entry.evaluation, metric) for metric in metrics]
        sizes = ["" if figures[key] is None else f"{figures[key]:,.0f}" for key in ("peak_memory_mb", "size_mb")]
        cost = [f"{figures['photos_per_second']:.1f}", *sizes, str(figures["failed"] or "")]
        rows.append((entry.evaluation.name, *scores, p, *cost))
    return Table(("captioner", *metrics, f"p ({main})", "photos/s", "memory, MB", "model, MB", "failed"), rows)


def write_leaderboard(name: str, entries: Sequence[Entry], folder: Path, photo: Callable[[str], bytes]) -> Path:
    """Writes a page with the table and the photos whose scores differ most, and returns its path.

    `photo` gives a photo's encoded bytes by name. Raises OutputError where the folder cannot be written or holds other files.
    """
    prepare(folder)
    with writing(folder):
        (folder / "photos").mkdir(exist_ok=True)
    main = _main(entries)
    images = [image for image in entries[0].evaluation.candidates if all(image in e.evaluation.candidates for e in entries)]
    scores = np.array([[entry.evaluation.scores.images[image][main] for image in images] for entry in entries])
    order = np.argsort(-scores.std(0), kind="stable")[:SHOWN]
    cards = []
    for number, place in enumerate(map(int, order), start=1):
        image = images[place]
        picture = thumbnail(image, folder, f"photos/{number:05}.jpg", photo)
        shown = f'<img src="{escape(picture)}" alt="" loading="lazy">' if picture else '<div class="none">no picture</div>'
        captions = "".join(
            f"<dt>{escape(entry.evaluation.name)} <span>{scores[row][place]:.0f}</span></dt>"
            f"<dd>{escape(entry.evaluation.candidates[image])}</dd>"
            for row, entry in enumerate(entries)
        )
        references = "".join(f"<li>{escape(text)}</li>" for text in entries[0].evaluation.references[image])
        cards.append(
            f'<article class="card"><h3>{escape(image)}</h3>{shown}<dl>{captions}</dl>'
            f"<details><summary>References</summary><ul>{references}</ul></details></article>"
        )
    header, rows = _table(entries)
    notes = dict.fromkeys(note for entry in entries for note in entry.evaluation.notes)
    path = folder / "index.html"
    pages.write(
        path,
        Path(__file__).with_name("leaderboard.html"),
        title=escape(name),
        about=escape("; ".join([f"{len(entries[0].evaluation.candidates):,} photos", *notes])),
        header="".join(f"<th scope=col>{escape(cell)}</th>" for cell in header),
        rows="".join(
            f"<tr><th scope=row>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
            for first, *cells in rows
        ),
        metric=escape(main),
        cards="".join(cards),
        count=f"{len(cards):,}",
    )
    return path


def _main(entries: Sequence[Entry]) -> str:
    """The metric of the paired test and of the page."""
    metrics = list(entries[0].evaluation.scores.corpus)
    return "CIDEr" if "CIDEr" in metrics else metrics[-1]


def to_json(sets: Mapping[str, Sequence[Entry]]) -> dict[str, Any]:
    """The object that `showtell evaluate --json` writes for several models."""
    return {"sets": {name: [entry.to_json() for entry in entries] for name, entries in sets.items()}}
