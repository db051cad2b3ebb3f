"""A check shown to people: tables on a terminal, and one page that opens without a server."""

import base64
import io
import json
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text

from showtell.data.check.check import KINDS, Check, Item
from showtell.errors import ImageError
from showtell.files import replacing, writing
from showtell.image import read_rgb
from showtell.io.streams import one_line

EXAMPLES = 3  # findings of a kind on the terminal
MAX_CARDS = 48  # findings of a kind on the page; all are in the JSON
MAX_PICTURES = 4  # photos of one finding
THUMBNAIL = 160  # pixels of the longer side
BINS = 20  # bars of the histogram


def print_check(check: Check, console: Console | None = None) -> None:
    """Prints what was found, the vocabulary and the captions' lengths."""
    console = console or Console(highlight=False)
    console.print(Text(one_line(f"{check.name}: {_describe(check)}")))
    if check.findings:
        table = Table("finding", "count", "such as", title="Findings", title_justify="left", box=None, pad_edge=False)
        table.columns[1].justify = "right"
        for kind, items in check.findings.items():
            shown = [_short(item.text) for item in items[:EXAMPLES]] + ["..."] * (len(items) > EXAMPLES)
            # An empty line between findings reads better than a frame around each.
            table.add_row(Text(f"{kind}\n  {KINDS[kind]}\n"), f"{len(items):,}", Text("\n".join(shown) + "\n"))
        console.print(table)
    else:
        console.print("Nothing wrong was found.\n")
    table = Table("seen at least", "words", "of train", "of dev and test", title="Vocabulary", title_justify="left", box=None)
    for column in table.columns:
        column.justify = "right"
    for row in check.vocabulary:
        others = "" if row.others is None else f"{row.others:.2%}"
        table.add_row(f"{row.min_count} times", f"{row.words:,}", f"{row.train:.2%}", others)
    console.print(table)
    table = Table("words", "captions", "", title="\nCaption lengths", title_justify="left", box=None)
    table.columns[0].justify = table.columns[1].justify = "right"
    bars = histogram(check.lengths)
    highest = max((count for _, count in bars), default=1)
    for label, count in bars:
        table.add_row(label, f"{count:,}", "█" * round(40 * count / highest))
    console.print(table)


def write_json(check: Check, path: Path) -> None:
    """Writes all of it as JSON; paths that are not UTF-8 keep their bytes as escapes. Raises OutputError."""
    _write(path, to_json(check))


def to_json(check: Check) -> str:
    """All of it as JSON text."""
    return json.dumps(check.to_json(), indent=2)


def write_page(check: Check, path: Path) -> None:
    """Writes all of it as one HTML file, photos included. Raises OutputError where it cannot be written."""
    page = Template(resources.files(__package__).joinpath("check.html").read_text(encoding="utf-8")).substitute(
        title=escape(check.name),
        about=escape(_describe(check)),
        summary="".join(
            f'<tr><td><a href="#{kind}">{escape(KINDS[kind])}</a></td><td>{len(items):,}</td></tr>'
            for kind, items in check.findings.items()
        )
        or "<tr><td>Nothing wrong was found.</td></tr>",
        vocabulary="".join(
            f"<tr><td>{row.min_count}</td><td>{row.words:,}</td><td>{row.train:.2%}</td>"
            f"<td>{'' if row.others is None else f'{row.others:.2%}'}</td></tr>"
            for row in check.vocabulary
        ),
        lengths=_svg(histogram(check.lengths)),
        findings="".join(_section(check, kind, items) for kind, items in check.findings.items()),
    )
    _write(path, page)


def _write(path: Path, text: str) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")


def histogram(lengths: dict[int, int]) -> list[tuple[str, int]]:
    """Captions by number of words, in at most BINS bars."""
    if not lengths:
        return []
    width = max(lengths) // BINS + 1
    counts = [0] * (max(lengths) // width + 1)
    for length, count in lengths.items():
        counts[length // width] += count
    labels = [
        str(place * width) if width == 1 else f"{place * width}-{(place + 1) * width - 1}" for place in range(len(counts))
    ]
    first = next(place for place, count in enumerate(counts) if count)
    return list(zip(labels, counts, strict=True))[first:]


def _describe(check: Check) -> str:
    photos = ", ".join(f"{count:,} {split}" for split, count in check.splits.items())
    return f"{sum(check.splits.values()):,} photos ({photos}), {check.captions:,} captions"


def _short(text: str, length: int = 100) -> str:
    text = one_line(text)
    return text if len(text) <= length else text[: length - 3] + "..."


def _section(check: Check, kind: str, items: list[Item]) -> str:
    cards = "".join(
        f'<article class="card"><div class="pictures">{"".join(_picture(check, path) for path in item.photos[:MAX_PICTURES])}'
        f"</div><p>{escape(_short(item.text, 400))}</p></article>"
        for item in items[:MAX_CARDS]
    )
    more = f'<p class="soft">and {len(items) - MAX_CARDS:,} more</p>' if len(items) > MAX_CARDS else ""
    heading = f'<h2 id="{kind}">{escape(KINDS[kind])} <span class="soft">{len(items):,}</span></h2>'
    return f'{heading}<div class="grid">{cards}</div>{more}'


def _picture(check: Check, path: str) -> str:
    try:
        picture = read_rgb(check.photos.read(path), path)
    except ImageError:
        return ""
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=75)
    name = escape(_short(path), quote=True)
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}" alt="{name}" title="{name}">'


def _svg(bars: list[tuple[str, int]]) -> str:
    """The histogram as an SVG of 600 by 160 units."""
    if not bars:
        return ""
    width, height, base = 600 / len(bars), 110, 130
    highest = max(count for _, count in bars)
    drawn = "".join(
        f'<rect x="{place * width:.1f}" y="{base - size:.1f}" width="{width - 2:.1f}" height="{size:.1f}">'
        f"<title>{label} words: {count:,} captions</title></rect>"
        f'<text x="{(place + 0.5) * width:.1f}" y="{base + 14}" text-anchor="middle">{label}</text>'
        for place, (label, count) in enumerate(bars)
        for size in [height * count / highest]
    )
    return (
        f'<svg viewBox="0 0 600 160" role="img" aria-label="Captions by number of words">{drawn}'
        f'<line x1="0" x2="600" y1="{base}" y2="{base}"/>'
        f'<text x="600" y="12" text-anchor="end">highest bar: {highest:,}</text></svg>'
    )
