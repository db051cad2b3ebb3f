"""The report of a data set's check: tables on a terminal, and one HTML page that opens without a server."""

import base64
from html import escape
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from showtell.data.check.check import KINDS, Check, Item
from showtell.io import pages
from showtell.io.streams import one_line

EXAMPLES = 3  # findings of a kind on the terminal
MAX_CARDS = 48  # findings of a kind on the page; all are in the JSON
MAX_PICTURES = 4  # photos of one finding
THUMBNAIL = 160  # pixels of the longer side
BINS = 20  # bars of the histogram


def print_check(check: Check, console: Console | None = None) -> None:
    """Prints the findings, the vocabulary and the captions' lengths."""
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


def write_page(check: Check, path: Path) -> None:
    """Writes the check as one HTML file, photos included. Raises OutputError where it cannot be written."""
    bars = histogram(check.lengths)
    ticks = [((place + 0.5) / len(bars), "middle", label) for place, (label, _) in enumerate(bars)]
    pages.write(
        path,
        Path(__file__).with_name("check.html"),
        title=f"Check of {escape(check.name)}",
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
        lengths=pages.histogram("Words of a caption", bars, "captions", ticks) if bars else "",
        findings="".join(_section(check, kind, items) for kind, items in check.findings.items()),
    )


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
    data = pages.thumbnail(check.photos.read, path, THUMBNAIL)
    if data is None:
        return ""
    name = escape(_short(path), quote=True)
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(data).decode()}" alt="{name}" title="{name}">'
