"""Candidate and reference captions out of the files that people keep them in, joined by image.

Candidates: COCO results JSON (`[{"image_id", "caption"}]`), record lines (JSONL with `path` and `caption`) or CSV with the
columns `path` (or `image`, `file_name`, `image_id`) and `caption`. References: COCO captions JSON, Karpathy's `dataset_*.json`,
Flickr8k's token file (`name.jpg#0<TAB>caption`) or data set lines (JSONL with `image` and `captions`).

Images go by their file name with its extension, without folders; COCO's integer ids become names through the references'
list of images.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from showtell.data import parsing
from showtell.data.entries import Entry, coco_or_karpathy, dataset_lines, token_lines
from showtell.data.parsing import file_name
from showtell.errors import DataError

ImageId = str | int  # a file name, or a number that the references' list of images explains
Row = TypeVar("Row")
_NAME_COLUMNS = ("path", "image", "file_name", "image_id")


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
    for entry in _reader(path, {".json": _json_references, ".jsonl": dataset_lines, ".txt": token_lines})(path):
        if split is not None and entry.split not in (None, split):
            continue
        name = file_name(entry.name)
        if not entry.captions:
            raise DataError(f"{entry.place}: {name} has no reference captions; give one or more, or leave the image out")
        if name in captions:
            raise DataError(f"{entry.place}: a second image is called {name}; file names must tell images apart")
        captions[name] = tuple(entry.captions)
        if entry.number is not None:
            names[entry.number] = name
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
        name = references.names.get(image) if isinstance(image, int) else file_name(image)
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
    entries = parsing.read_json(path)
    if not isinstance(entries, list):
        raise DataError(f'{path}: not a list; COCO results are [{{"image_id": ..., "caption": ...}}, ...]')
    for number, entry in enumerate(entries, start=1):
        place = f"{path}, entry {number}"
        image = parsing.get(entry, "image_id", place)
        if isinstance(image, bool) or not isinstance(image, int | str):
            raise DataError(f"{place}: the image id {image!r} is neither a number nor a file name")
        yield place, image, parsing.text(parsing.get(entry, "caption", place), place)


def _record_lines(path: Path) -> Iterator[tuple[str, ImageId, str]]:
    for place, record in parsing.json_lines(path):
        if isinstance(record, dict) and record.get("status") == "error":
            continue
        yield place, _named(record, "path", place), parsing.text(parsing.get(record, "caption", place), place)


def _csv_rows(path: Path) -> Iterator[tuple[str, ImageId, str]]:
    rows = parsing.csv_rows(path)
    columns = next(rows, (1, []))[1]
    name_column = next((column for column in _NAME_COLUMNS if column in columns), None)
    if name_column is None or "caption" not in columns:
        needed = f"`caption` and one of {', '.join(_NAME_COLUMNS)} are needed"
        raise DataError(f"{path}, line 1: the columns are {', '.join(columns) or 'none'}; {needed}")
    for number, cells in rows:
        row = dict(zip(columns, cells, strict=False))
        place = parsing.line(path, number)
        if row.get("status") == "error":
            continue
        image, caption = row[name_column], row.get("caption")
        if not image or caption is None:
            raise DataError(f"{place}: the row is cut short; it needs a {name_column} and a caption")
        # only image_id holds COCO's numbers; a photo in `path` may well be called 42
        yield place, int(image) if name_column == "image_id" and image.isdecimal() else file_name(image), caption


# --- files and values ------------------------------------------------------------------------------------------------------


def _json_references(path: Path) -> Iterator[Entry]:
    return coco_or_karpathy(path, parsing.read_json(path))


def _reader(path: Path, readers: Mapping[str, Callable[[Path], Iterator[Row]]]) -> Callable[[Path], Iterator[Row]]:
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: cannot tell the format from the suffix {path.suffix!r}; name the file {', '.join(readers)}")
    return reader


def _named(entry: Any, key: str, place: str) -> str:
    return file_name(parsing.text(parsing.get(entry, key, place), place, key))
