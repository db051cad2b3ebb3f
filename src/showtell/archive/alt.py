"""Alternative text for a site: images in HTML, Markdown and notebooks that have none, and files with captions put in.

Only text that is missing is added. An image is left alone where it has any `alt` attribute: `alt=""` says that it is
decoration (HTML Standard, section 4.8.4.4). So it is with `aria-label`, `aria-labelledby`, `aria-hidden="true"` and the roles
`none` and `presentation`. Markdown has no attribute to leave out, so `![](dog.jpg)` counts as an image without text.
"""

import base64
import html
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from showtell.archive.members import member
from showtell.errors import DataError, OutputError
from showtell.files import replacing
from showtell.image import NamedPhoto, walk

HTML, MARKDOWN, NOTEBOOK = (".html", ".htm", ".xhtml"), (".md", ".markdown"), ".ipynb"
_CODE = re.compile(
    r"^(?P<fence> {0,3}(`{3,}|~{3,})).*?(?:^ {0,3}\2[`~]*[ \t]*$|\Z)|(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)|<!--.*?-->",
    re.DOTALL | re.MULTILINE,
)
_TARGET = r"(?P<target><[^<>\n]*>|[^\s()<>]+(?:\([^\s()]*\)[^\s()]*)*)"
_INLINE = re.compile(rf"(?<!\\)!\[(?P<text>\s*)\]\(\s*{_TARGET}(?:\s+(?:\"[^\"]*\"|'[^']*'))?\s*\)")
_REFERENCE = re.compile(r"(?<!\\)!\[(?P<text>\s*)\]\[(?P<label>[^\[\]\n]+)\]")
_DEFINITION = re.compile(rf"^ {{0,3}}\[(?P<label>[^\[\]\n]+)\]:\s*{_TARGET}", re.MULTILINE)
_ITEM = re.compile(r" {0,3}([-*+]|\d{1,9}[.)])\s")
_SPECIAL = re.compile(r"([\\`*_\[\]<>&])")


@dataclass(frozen=True, slots=True)
class _Gap:
    """A place for alternative text: it replaces the characters from `begin` to `end`, written by `quote`."""

    begin: int
    end: int
    target: str
    quote: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Image:
    """An image without alternative text, to be captioned: its name, and a path or the file within a notebook."""

    name: str
    source: str | NamedPhoto


@dataclass(slots=True)
class Document:
    """A file with images that lack alternative text."""

    path: Path
    before: str
    images: Sequence[Image]
    fill: Callable[[Mapping[str, str]], str]

    def with_captions(self, captions: Mapping[str, str]) -> str:
        """The text with the captions put in, by the names of images; images without one stay as they are."""
        return self.fill(captions)

    def write(self, text: str) -> None:
        """Replaces the file. Raises OutputError where it changed since it was read."""
        if _read(self.path) != self.before:
            raise OutputError(f"{self.path}: changed while its images were captioned; run again")
        with replacing(self.path) as temporary:
            temporary.write_bytes(text.encode("utf-8", "surrogateescape"))


@dataclass(slots=True)
class Site:
    """The documents below a folder; `skipped` counts images without text that are not captioned, by reason."""

    folder: Path
    skipped: Counter[str] = field(default_factory=Counter)

    def documents(self) -> Iterator[Document]:
        """The documents with images that lack alternative text, sorted. Raises DataError for a folder that is not there."""
        if not self.folder.is_dir():
            raise DataError(f"{self.folder}: no such folder; give the folder of a site")
        for name in walk(self.folder):
            suffix = Path(name).suffix.lower()
            if "node_modules" in Path(name).parts or suffix not in (*HTML, *MARKDOWN, NOTEBOOK):
                continue
            path = self.folder / name
            try:
                text = _read(path)
            except OSError as error:
                self.skipped[f"files that cannot be read ({error.strerror})"] += 1
                continue
            document = self._notebook(path, text) if suffix == NOTEBOOK else self._text(path, text, suffix)
            if document is not None:
                yield document

    def _text(self, path: Path, text: str, suffix: str) -> Document | None:
        gaps = list(_gaps_of_html(text)) if suffix in HTML else list(_gaps_of_markdown(text))
        images = self._images(path, gaps, {})

        def fill(captions: Mapping[str, str]) -> str:
            return _filled(text, gaps, images, captions)

        known = [image for image in images if image]
        return Document(path, text, known, fill) if known else None

    def _notebook(self, path: Path, text: str) -> Document | None:
        try:
            notebook = json.loads(text)
            cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
        except (ValueError, KeyError, TypeError, RecursionError):
            self.skipped["files that are no notebooks"] += 1
            return None
        places: list[tuple[Any, str, list[_Gap], list[Image | None]]] = []
        for number, cell in enumerate(cells):
            source = cell.get("source", "")
            joined = source if isinstance(source, str) else "".join(source)
            gaps = list(_gaps_of_markdown(joined))
            if gaps:
                places.append((cell, joined, gaps, self._images(path, gaps, cell.get("attachments") or {}, f"{path}#{number}")))
        known = [image for _, _, _, images in places for image in images if image]
        if not known:
            return None
        dump = next((dump for dump in _DUMPS if dump(notebook) == text), None)
        if dump is None:
            self.skipped["images of notebooks that would be laid out anew; save them with Jupyter first"] += len(known)
            return None

        def fill(captions: Mapping[str, str]) -> str:
            for cell, joined, gaps, images in places:
                filled = _filled(joined, gaps, images, captions)
                cell["source"] = filled if isinstance(cell["source"], str) else filled.splitlines(keepends=True)
            return dump(notebook)

        return Document(path, text, known, fill)

    def _images(self, path: Path, gaps: Sequence[_Gap], attachments: Mapping[str, Any], cell: str = "") -> list[Image | None]:
        return [self._image(path, gap.target, attachments, cell) for gap in gaps]

    def _image(self, path: Path, target: str, attachments: Mapping[str, Any], cell: str) -> Image | None:
        """The image that a document's address means, or None, counted, where it is not on this disk."""
        if target.startswith("attachment:"):
            name = unquote(target.removeprefix("attachment:"))
            data = next(iter((attachments.get(name) or {}).values()), None)
            if isinstance(data, str):
                called = f"{cell}/{name}"
                return Image(called, member(called, lambda: _decoded(data)))
        try:
            address = urlsplit(target)
        except ValueError:
            self.skipped["images with broken addresses"] += 1
            return None
        if address.scheme or address.netloc:
            self.skipped["images on other servers or within the page"] += 1
            return None
        name = unquote(address.path)
        file = self.folder / name.lstrip("/") if name.startswith("/") else path.parent / name
        try:
            if name and file.is_file():
                return Image(str(file), str(file))
        except (OSError, ValueError):
            pass
        self.skipped["images that are not there"] += 1
        return None


def _decoded(data: str) -> Any:
    return io.BytesIO(base64.b64decode(data))


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")


def _filled(text: str, gaps: Sequence[_Gap], images: Sequence[Image | None], captions: Mapping[str, str]) -> str:
    parts, at = [], 0
    for gap, image in sorted(zip(gaps, images, strict=True), key=lambda pair: pair[0].begin):
        if image and (caption := captions.get(image.name)):
            parts += [text[at : gap.begin], gap.quote(caption)]
            at = gap.end
    return "".join([*parts, text[at:]])


def _gaps_of_html(text: str) -> Iterator[_Gap]:
    parser = _Images(text)
    parser.feed(text)
    parser.close()
    yield from parser.gaps


class _Images(HTMLParser):
    """Collects the `img` elements without alternative text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.gaps: list[_Gap] = []
        self._lines = [0, *itertools.accumulate(len(line) + 1 for line in text.split("\n"))]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        named = any(name in values for name in ("alt", "aria-label", "aria-labelledby", ":alt", "v-bind:alt"))
        hidden = values.get("aria-hidden") == "true" or values.get("role") in ("none", "presentation")
        source = values.get("src")
        if tag == "img" and not named and not hidden and source:
            line, column = self.getpos()
            at = self._lines[line - 1] + column + len("<img")
            self.gaps.append(_Gap(at, at, source.strip(), lambda caption: f' alt="{html.escape(caption)}"'))


def _gaps_of_markdown(text: str) -> Iterator[_Gap]:
    text = "".join(_blank(line) if is_code else line for line, is_code in _lines(text))
    text = _CODE.sub(lambda match: _blank(match[0]), text)
    definitions = {_label(match["label"]): match["target"] for match in reversed(list(_DEFINITION.finditer(text)))}
    inline = [(match, match["target"]) for match in _INLINE.finditer(text)]
    referring = [(match, definitions.get(_label(match["label"]))) for match in _REFERENCE.finditer(text)]
    for match, target in (*inline, *referring):
        if target:
            yield _Gap(
                match.start("text"), match.end("text"), target.strip("<>"), lambda caption: _SPECIAL.sub(r"\\\1", caption)
            )
    yield from _gaps_of_html(text)


def _blank(text: str) -> str:
    """Blanks instead of the text, so that places behind it stay the same."""
    return re.sub(r"[^\n]", " ", text)


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """The lines, and whether each is indented code: four blanks after an empty line, outside a list."""
    after_blank, in_list, in_code = True, False, False
    for line in text.splitlines(keepends=True):
        blank, indented = not line.strip(), line.startswith(("    ", "\t"))
        in_code = indented and not in_list and (in_code or after_blank)
        if _ITEM.match(line):
            in_list = True
        elif after_blank and not blank and not line[0].isspace():
            in_list = False
        yield line, in_code
        after_blank = blank or in_code


def _label(text: str) -> str:
    return " ".join(text.casefold().split())


def _dump(indent: int | None, ascii_: bool, end: str) -> Callable[[Any], str]:
    return lambda value: json.dumps(value, indent=indent, ensure_ascii=ascii_) + end


_DUMPS = [_dump(*how) for how in itertools.product((1, 2, 4, None), (False, True), ("\n", ""))]
