"""Candidate and reference captions out of the files that people keep them in, joined by image.

Candidates: COCO results JSON (`[{"image_id", "caption"}]`), record lines (JSONL with `path` and `caption`) or CSV with the
columns `path` (or `image`, `file_name`, `image_id`) and `caption`. References: COCO captions JSON, Karpathy's `dataset_*.json`,
Flickr8k's token file (`name.jpg#0<TAB>caption`) or data set lines (JSONL with `image` and `captions`).

Images go by their file name with its extension, without folders; COCO's integer ids become names through the references'
list of images.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from showtell.data.flickr8k import read_captions
from showtell.errors import DataError

ImageId = str | int  # a file name, or a number that the references' list of images explains
Row = TypeVar("Row")
_NAME_COLUMNS = ("path", "image", "file_name", "image_id")
_KARPATHY_SPLITS = {"val": "dev", "restval": "train"}


@dataclass(frozen=True)
class References:
    """Reference captions by file name, one or more each; `names` tells the file names of COCO ids, where the file has any."""

    captions: Mapping[str, tuple[str, ...]]
    names: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pairs:
    """Candidates and references of the same images, and how many images of either side were left out."""

    candidates: Mapping[str, str]
    references: Mapping[str, tuple[str, ...]]
    without_candidate: int
    without_reference: int


def read_candidates(path: Path) -> dict[ImageId, str]:
    """One caption for each image of a results file; the suffix says the format.

    A record of a photo that could not be captioned has no candidate. Raises DataError, which names the place, for broken JSON,
    an image named twice, a caption that is no string, ids of both kinds, a missing key or column.
    """
    captions: dict[ImageId, str] = {}
    for place, image, caption in _reader(path, {".json": _coco_results, ".jsonl": _record_lines, ".csv": _csv_rows})(path):
        if image in captions:
            raise DataError(f"{place}: {image} has a caption already; give one candidate for each image")
        if captions and type(image) is not type(first := next(iter(captions))):
            raise DataError(f"{place}: the image id {image!r} is no {type(first).__name__} like {first!r}; use one kind of id")
        captions[image] = caption
    if not captions:
        raise DataError(f"{path}: holds no candidate captions")
    return captions


def read_references(path: Path, split: str | None = None) -> References:
    """The reference captions of a file, of one split only where `split` is given and the file tells splits.

    Raises DataError, which names the place, for broken JSON, an image without captions, a caption that is no string, two
    images of one name, a missing key or a malformed line.
    """
    captions: dict[str, tuple[str, ...]] = {}
    names: dict[int, str] = {}
    for entry in _reader(path, {".json": _coco_or_karpathy, ".jsonl": _dataset_lines, ".txt": _token_lines})(path):
        if split is not None and entry.split not in (None, split):
            continue
        if not entry.captions:
            raise DataError(f"{entry.place}: {entry.name} has no reference captions; give one or more, or leave the image out")
        if entry.name in captions:
            raise DataError(f"{entry.place}: a second image is called {entry.name}; file names must tell images apart")
        captions[entry.name] = tuple(entry.captions)
        if entry.number is not None:
            names[entry.number] = entry.name
    if not captions:
        raise DataError(f"{path}: holds no reference captions" + (f" of the split {split!r}" if split else ""))
    return References(captions, names)


def join(candidates: Mapping[ImageId, str], references: References, *, partial: bool = False) -> Pairs:
    """Candidates and references of the same images, in the order of the references.

    Raises DataError, which lists some, where an image has only one of the two; `partial` scores the others then. Raises it in
    any case where no image has both.
    """
    named: dict[str, str] = {}
    unknown: list[ImageId] = []
    for image, caption in candidates.items():
        name = references.names.get(image) if isinstance(image, int) else _file_name(image)
        if name is None or name not in references.captions:
            unknown.append(image)
        elif name in named:
            raise DataError(f"two candidates are for {name}; give one for each image")
        else:
            named[name] = caption
    missing = [name for name in references.captions if name not in named]
    if not named or (not partial and (unknown or missing)):
        raise DataError(_mismatch(unknown, missing, len(candidates), references))
    return Pairs(
        candidates={name: named[name] for name in references.captions if name in named},
        references={name: texts for name, texts in references.captions.items() if name in named},
        without_candidate=len(missing),
        without_reference=len(unknown),
    )


def _mismatch(unknown: Sequence[ImageId], missing: Sequence[str], count: int, references: References) -> str:
    parts = []
    if unknown:
        parts.append(f"{len(unknown)} of {count} candidates are for images without references ({_some(unknown)})")
    if missing:
        parts.append(
            f"{len(missing)} of {len(references.captions)} images with references have no candidate ({_some(missing)})"
        )
    remedy = "score what both sides have with --partial"
    if len(unknown) == count:
        remedy = f"the references call their images {_some(list(references.names) or list(references.captions))}"
        if isinstance(unknown[0], int) and not references.names:
            remedy += "; numbers need references in COCO's format, with its list of images"
        elif isinstance(unknown[0], str) and unknown[0].isdigit():
            remedy += "; COCO's ids are numbers, not strings"
    return f"{' and '.join(parts)}; {remedy}"


def _some(names: Sequence[object]) -> str:
    return ", ".join(str(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


# --- formats of candidates: (place, image, caption) ------------------------------------------------------------------------


def _coco_results(path: Path) -> Iterator[tuple[str, ImageId, str]]:
    entries = _json(path)
    if not isinstance(entries, list):
        raise DataError(f'{path}: not a list; COCO results are [{{"image_id": ..., "caption": ...}}, ...]')
    for number, entry in enumerate(entries, start=1):
        place = f"{path}, entry {number}"
        image = _get(entry, "image_id", place)
        if isinstance(image, bool) or not isinstance(image, int | str):
            raise DataError(f"{place}: the image id {image!r} is neither a number nor a file name")
        yield place, image, _text(_get(entry, "caption", place), place)


def _record_lines(path: Path) -> Iterator[tuple[str, ImageId, str]]:
    for place, record in _json_lines(path):
        if isinstance(record, dict) and record.get("status") == "error":
            continue
        yield place, _named(record, "path", place), _text(_get(record, "caption", place), place)


def _csv_rows(path: Path) -> Iterator[tuple[str, ImageId, str]]:
    rows = csv.DictReader(io.StringIO(_content(path), newline=""))
    columns = rows.fieldnames or []
    name_column = next((column for column in _NAME_COLUMNS if column in columns), None)
    if name_column is None or "caption" not in columns:
        needed = f"`caption` and one of {', '.join(_NAME_COLUMNS)} are needed"
        raise DataError(f"{path}, line 1: the columns are {', '.join(columns) or 'none'}; {needed}")
    try:
        for row in rows:
            place = _line(path, rows.line_num)
            if row.get("status") == "error":
                continue
            image, caption = row[name_column], row["caption"]
            if not image or caption is None:
                raise DataError(f"{place}: the row is cut short; it needs a {name_column} and a caption")
            # only image_id holds COCO's numbers; a photo in `path` may well be called 42
            yield place, int(image) if name_column == "image_id" and image.isdecimal() else _file_name(image), caption
    except csv.Error as error:
        raise DataError(f"{_line(path, rows.line_num)}: not CSV ({error})") from None


# --- formats of references ----------------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    """One image's references: where they stand, the file name, and its COCO id and split where the file tells them."""

    place: str
    name: str
    captions: Sequence[str]
    number: int | None = None
    split: str | None = None


def _coco_or_karpathy(path: Path) -> Iterator[_Entry]:
    value = _json(path)
    images = value.get("images") if isinstance(value, dict) else None
    if not isinstance(images, list):
        raise DataError(f"{path}: has no list `images`; COCO's and Karpathy's reference files have one")
    return _coco(path, images, value["annotations"]) if "annotations" in value else _karpathy(path, images)


def _coco(path: Path, images: list[Any], annotations: Any) -> Iterator[_Entry]:
    if not isinstance(annotations, list):
        raise DataError(f"{path}: `annotations` is no list; COCO's holds an object for each caption")
    entries: dict[int, _Entry] = {}
    captions: dict[int, list[str]] = {}
    for number, image in enumerate(images, start=1):
        place = f"{path}, image {number}"
        key = _number(_get(image, "id", place), place)
        if key in entries:
            raise DataError(f"{place}: the id {key} is taken by an image before it; ids must differ")
        captions[key] = []
        entries[key] = _Entry(place, _named(image, "file_name", place), captions[key], number=key)
    for number, annotation in enumerate(annotations, start=1):
        place = f"{path}, annotation {number}"
        key = _number(_get(annotation, "image_id", place), place)
        if key not in captions:
            raise DataError(f"{place}: the image id {key} is not in the list `images`; add it there")
        captions[key].append(_text(_get(annotation, "caption", place), place))
    yield from entries.values()


def _karpathy(path: Path, images: list[Any]) -> Iterator[_Entry]:
    for number, image in enumerate(images, start=1):
        place = f"{path}, image {number}"
        name = _named(image, "filename", place)
        texts = [_text(_get(sentence, "raw", place), place) for sentence in _list(image, "sentences", place)]
        key = _number(image["cocoid"], place) if "cocoid" in image else None
        yield _Entry(place, name, texts, key, _KARPATHY_SPLITS.get(image.get("split"), image.get("split")))


def _dataset_lines(path: Path) -> Iterator[_Entry]:
    for place, entry in _json_lines(path):
        name = _named(entry, "image", place)
        texts = [_text(text, place) for text in _list(entry, "captions", place)]
        yield _Entry(place, name, texts, split=entry.get("split"))


def _token_lines(path: Path) -> Iterator[_Entry]:
    return (_Entry(str(path), name, captions) for name, captions in read_captions(path).items())


# --- files, lines and values -----------------------------------------------------------------------------------------------


def _reader(path: Path, readers: Mapping[str, Callable[[Path], Iterator[Row]]]) -> Callable[[Path], Iterator[Row]]:
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: cannot tell the format from the suffix {path.suffix!r}; name the file {', '.join(readers)}")
    return reader


def _content(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; convert the file") from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Each line that is not blank, by its number."""
    for number, line in enumerate(_content(path).split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in _lines(path):
        yield _line(path, number), _parse(path, line, number)


def _json(path: Path) -> Any:
    return _parse(path, _content(path), 1)


def _parse(path: Path, text: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{_line(path, first_line + error.lineno - 1)}, column {error.colno}"
        raise DataError(f"{place}: broken JSON ({error.msg})") from None
    except RecursionError:
        raise DataError(f"{_line(path, first_line)}: JSON nested too deeply to be captions") from None


def _line(path: Path, number: int) -> str:
    return f"{path}, line {number}"


def _get(entry: Any, key: str, place: str) -> Any:
    if not isinstance(entry, dict):
        raise DataError(f"{place}: {str(entry)[:60]!r} is no JSON object")
    if key not in entry:
        raise DataError(f"{place}: `{key}` is missing; the keys are {', '.join(entry) or 'none'}")
    return entry[key]


def _text(value: Any, place: str, what: str = "caption") -> str:
    if not isinstance(value, str):
        raise DataError(f"{place}: the {what} {value!r} is of type {type(value).__name__}; it must be a string")
    return value


def _list(entry: Any, key: str, place: str) -> list[Any]:
    value = _get(entry, key, place)
    if not isinstance(value, list):
        raise DataError(f"{place}: `{key}` is {value!r}; it must be a list")
    return value


def _number(value: Any, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(
            f"{place}: the image id {value!r} is of type {type(value).__name__}; in these files ids are whole numbers"
        )
    return value


def _named(entry: Any, key: str, place: str) -> str:
    return _file_name(_text(_get(entry, key, place), place, key))


def _file_name(path: str) -> str:
    return re.split(r"[/\\]", path)[-1]
