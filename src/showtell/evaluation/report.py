"""The report of an evaluation: a folder with `index.html` and thumbnails that opens from disk without a server."""

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from showtell.errors import OutputError
from showtell.evaluation.evaluate import Evaluation
from showtell.evaluation.table import describe_diversity
from showtell.files import try_place, writing
from showtell.io import pages

THUMBNAIL = 320  # pixels of the longer side
MAX_PHOTOS = 2000  # more would make a page that browsers open slowly; the best and the worst are kept
_BINS = 24


def write_report(evaluation: Evaluation, folder: Path, photo: Callable[[str], bytes] | None = None) -> Path:
    """Writes the report of an evaluation into `folder` and returns the page's path.

    `photo` returns the encoded bytes of an image by name, or raises ImageError; such an image has no thumbnail. Raises
    OutputError where the folder is a file, cannot be written or holds other files.
    """
    prepare(folder)
    with writing(folder):
        (folder / "photos").mkdir(exist_ok=True)
    ranked = _ranked(evaluation)
    kept = ranked if len(ranked) <= MAX_PHOTOS else ranked[: MAX_PHOTOS // 2] + ranked[-MAX_PHOTOS // 2 :]
    cards = [
        {
            "image": image,
            "picture": thumbnail(image, folder, f"photos/{number:05}.jpg", photo),
            "candidate": evaluation.candidates[image],
            "references": list(evaluation.references[image]),
            "scores": {name: round(value, 1) for name, value in evaluation.scores.images[image].items()},
        }
        for number, image in enumerate(kept, start=1)
    ]
    names = list(evaluation.scores.corpus)
    limits = (
        "" if len(kept) == len(ranked) else f"The best and the worst {len(kept) // 2:,} of {len(ranked):,} photos are here."
    )
    tokenizer = f"tokenizer {evaluation.scores.tokenizer}"
    versions = ", ".join(f"{name} {version}" for name, version in evaluation.scores.versions.items())
    path = folder / "index.html"
    pages.write(
        path,
        Path(__file__).with_name("report.html"),
        title=escape(evaluation.name),
        about=escape("; ".join([f"{len(ranked):,} photos", *evaluation.notes, tokenizer, versions])),
        scores="".join(_row(name, *_score(evaluation, name)) for name in names),
        diversity="".join(_row(*row) for row in describe_diversity(evaluation)),
        histograms="".join(_histogram(name, [scores[name] for scores in evaluation.scores.images.values()]) for name in names),
        options="".join(f"<option{' selected' * (name == _main(names))}>{escape(name)}</option>" for name in names),
        limits=limits,
        data=json.dumps(cards, ensure_ascii=False).replace("<", "\\u003c"),  # a caption cannot close the script element
    )
    return path


def prepare(folder: Path) -> None:
    """Makes the folder of a report, and checks that the report can be written there. Raises OutputError."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / "index.html").is_file():
            raise OutputError(f"{folder}: holds other files; give a new folder for the report")
    try_place(folder / "index.html")


def _main(names: Sequence[str]) -> str:
    """The metric that ranks the photos when the page opens."""
    return "CIDEr" if "CIDEr" in names else names[-1]


def _ranked(evaluation: Evaluation) -> list[str]:
    """The images, best first."""
    images: Mapping[str, Mapping[str, float]] = evaluation.scores.images
    name = _main(list(evaluation.scores.corpus))
    return sorted(images, key=lambda image: -images[image][name])


def thumbnail(image: str, folder: Path, name: str, photo: Callable[[str], bytes] | None) -> str | None:
    """Writes a small picture of the image to `folder / name` and returns `name`; None where it cannot be read."""
    data = pages.thumbnail(photo, image, THUMBNAIL) if photo else None
    if data is None:
        return None
    (folder / name).write_bytes(data)
    return name


def _score(evaluation: Evaluation, name: str) -> tuple[str, str]:
    interval = evaluation.intervals[name]
    return f"{evaluation.scores.corpus[name]:.1f}", f"{interval.low:.1f} to {interval.high:.1f}"


def _row(*cells: str) -> str:
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _histogram(name: str, values: Sequence[float]) -> str:
    """Images by score as an SVG, from 0 to 100 or to the highest score."""
    top = max(100.0, *values)
    counts, edges = np.histogram(values, bins=_BINS, range=(0, top))
    bars = [(f"{edges[i]:.0f} to {edges[i + 1]:.0f}", count) for i, count in enumerate(counts.tolist())]
    return pages.histogram(name, bars, "photos", [(0, "start", "0"), (1, "end", f"{top:.0f}")], width=300)
