"""Parts of HTML pages that open from disk without a server: the page, its thumbnails and its histograms."""

import io
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from string import Template

from PIL import Image

from showtell.errors import ImageError
from showtell.files import replacing
from showtell.image import read_rgb


def write(path: Path, template: Path, *, title: str, **parts: str) -> None:
    """Writes a page. Raises OutputError.

    `template` has what follows the head that all pages share (page.html and page.css), with $names for `title` and `parts`.
    """
    head, style = (Path(__file__).with_name(f"page.{suffix}").read_text(encoding="utf-8") for suffix in ("html", "css"))
    rest = Template(template.read_text(encoding="utf-8")).substitute(parts, title=title)
    with replacing(path) as temporary:
        temporary.write_text(Template(head).substitute(title=title, style=style, rest=rest), "utf-8", "replace")


def thumbnail(read: Callable[[str], bytes], name: str, side: int) -> bytes | None:
    """A photo as a JPEG of at most `side` pixels on its longer side, or None where it cannot be read."""
    try:
        picture = read_rgb(read(name), name)
    except ImageError:
        return None
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=80)
    return data.getvalue()


def histogram(
    title: str, bars: Sequence[tuple[str, int]], unit: str, ticks: Sequence[tuple[float, str, str]], width: int = 600
) -> str:
    """An SVG, `width` by 120 units. `bars` are labels and counts of `unit`; `ticks` are x from 0 to 1, SVG's anchor, label."""
    step, highest = width / len(bars), max(count for _, count in bars)
    drawn = "".join(
        f'<rect x="{place * step:.1f}" y="{100 - size:.1f}" width="{step - 1:.1f}" height="{size:.1f}">'
        f"<title>{escape(label)}: {count:,} {unit}</title></rect>"
        for place, (label, count) in enumerate(bars)
        for size in [78 * count / highest]
    )
    labels = "".join(
        f'<text x="{width * x:.1f}" y="115" text-anchor="{anchor}">{escape(label)}</text>' for x, anchor, label in ticks
    )
    return (
        f'<svg viewBox="0 0 {width} 120" role="img" aria-label="Histogram of {escape(title)}">'
        f'<text class="name" x="0" y="13">{escape(title)}</text>'
        f'<text x="{width}" y="13" text-anchor="end">highest bar: {highest:,}</text>'
        f'{drawn}<line x1="0" x2="{width}" y1="100" y2="100"/>{labels}</svg>'
    )
