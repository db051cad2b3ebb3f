"""An evaluation as a page to look at: a folder with `index.html` and small pictures, opened from disk without a server."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from showtell.errors import ImageError, OutputError
from showtell.evaluation.evaluate import Evaluation
from showtell.evaluation.table import describe_diversity
from showtell.files import replacing, try_place, writing
from showtell.image import read_rgb

THUMBNAIL = 320  # pixels of the longer side
MAX_PHOTOS = 2000  # more would make a page that browsers open slowly; the best and the worst are kept
_BINS = 24

Photo = Callable[[str], bytes]


def write_report(evaluation: Evaluation, folder: Path, photo: Photo | None = None) -> Path:
    """Writes the page of an evaluation into `folder` and returns its path.

    `photo` gives the encoded bytes of an image by name; a photo that it does not have, or that cannot be read, is shown as a
    card without picture. Raises OutputError where the folder is a file, cannot be written or holds other things.
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
    page = Template(resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8")).substitute(
        title=escape(evaluation.name),
        about=escape("; ".join([f"{len(ranked):,} photos", *evaluation.notes, tokenizer, versions])),
        scores="".join(_row(name, *_score(evaluation, name)) for name in names),
        diversity="".join(_row(*row) for row in describe_diversity(evaluation)),
        histograms="".join(_histogram(name, [scores[name] for scores in evaluation.scores.images.values()]) for name in names),
        options="".join(f"<option{' selected' * (name == _main(names))}>{escape(name)}</option>" for name in names),
        limits=limits,
        data=json.dumps(cards, ensure_ascii=False).replace("<", "\\u003c"),  # a caption cannot close the script element
    )
    path = folder / "index.html"
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")
    return path


def prepare(folder: Path) -> None:
    """Makes the folder, and finds out before the work whether the report can be written there. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / "index.html").is_file():
            raise OutputError(f"{folder}: holds other files; give a new folder for the report")
        try_place(folder / "index.html")
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{folder}: cannot be the report's folder ({error.strerror or error})") from None


def _main(names: Sequence[str]) -> str:
    """The metric that photos are ranked by at first."""
    return "CIDEr" if "CIDEr" in names else names[-1]


def _ranked(evaluation: Evaluation) -> list[str]:
    """The images, best first."""
    images: Mapping[str, Mapping[str, float]] = evaluation.scores.images
    name = _main(list(evaluation.scores.corpus))
    return sorted(images, key=lambda image: -images[image][name])


def thumbnail(image: str, folder: Path, name: str, photo: Photo | None) -> str | None:
    """Writes a small picture of the image to `folder / name` and returns `name`; None where it cannot be read."""
    if photo is None:
        return None
    try:
        picture = read_rgb(photo(image), image)
    except ImageError:
        return None
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=80)
    (folder / name).write_bytes(data.getvalue())
    return name


def _score(evaluation: Evaluation, name: str) -> tuple[str, str]:
    interval = evaluation.intervals[name]
    return f"{evaluation.scores.corpus[name]:.1f}", f"{interval.low:.1f} to {interval.high:.1f}"


def _row(*cells: str) -> str:
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _histogram(name: str, values: Sequence[float]) -> str:
    """How many images score how much, as an SVG: 300 by 120 units, from 0 to 100 or to the highest score."""
    top = max(100.0, *values)
    counts, _ = np.histogram(values, bins=_BINS, range=(0, top))
    width, height, base = 300 / _BINS, 78, 100
    bars = "".join(
        f'<rect x="{index * width:.1f}" y="{base - size:.1f}" width="{width - 1:.1f}" height="{size:.1f}">'
        f"<title>{index * top / _BINS:.0f} to {(index + 1) * top / _BINS:.0f}: {count} photos</title></rect>"
        for index, count in enumerate(counts)
        for size in [height * count / counts.max()]
    )
    return (
        f'<svg viewBox="0 0 300 120" role="img" aria-label="Histogram of {escape(name)}"><text class="name" x="0" y="13">'
        f'{escape(name)}</text><text x="300" y="13" text-anchor="end">highest bar: {counts.max()}</text>{bars}'
        f'<line x1="0" x2="300" y1="{base}" y2="{base}"/><text x="0" y="115">0</text>'
        f'<text x="300" y="115" text-anchor="end">{top:.0f}</text></svg>'
    )
