"""Converts data sets to JSON lines, COCO captions JSON or WebDataset tars; `data.read` reads all three.

    {"image": "../photos/dog.jpg", "captions": ["A dog runs."], "split": "train"}      JSON lines

JSON lines and COCO name the photos by paths from their own folder; tars hold copies of them.
"""

import contextlib
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from showtell.data.dataset import Dataset
from showtell.errors import ImageError, OptionError, OutputError
from showtell.files import json_text, new_folder, replacing, writing
from showtell.image import SUFFIXES
from showtell.progress import Progress, silent
from showtell.types import Sample

Format = Literal["jsonl", "coco", "webdataset"]
SHARD = 1000  # most samples of a tar
_SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".json": "coco", ".tar": "webdataset", "": "webdataset"}


def format_of(destination: Path) -> Format:
    """The format that a destination's suffix means. Raises OptionError for another suffix."""
    if (suffix := destination.suffix.lower()) not in _SUFFIXES:
        raise OptionError(
            f"{destination}: the suffix {destination.suffix!r} is of no format; end it with .jsonl, .json (COCO), .tar or "
            f"nothing (a folder of tars), or name the format: {', '.join(get_args(Format))}"
        )
    return _SUFFIXES[suffix]


def convert(
    dataset: Dataset,
    destination: Path,
    format: Format | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> list[str]:
    """Writes the samples to `destination`, whose suffix decides the format unless `format` does.

    The destination appears when it is complete. Returns a line for each photo that could not be copied into a tar. Raises
    OutputError where the destination already exists (`overwrite` replaces a file) or cannot be written.
    """
    format = format or format_of(destination)
    if format == "webdataset" and destination.suffix.lower() != ".tar":
        with new_folder(destination) as shards:
            return _write_shards(dataset, shards, progress)
    if destination.is_dir():
        raise OutputError(f"{destination}: already exists and is a folder; give another file")
    if destination.exists() and not overwrite:
        raise OutputError(f"{destination}: already exists; give another file or --overwrite")
    with writing(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        with replacing(destination) as temporary:
            if format == "webdataset":
                return list(_write_tar(dataset, temporary, list(enumerate(dataset.samples)), progress))
            lines = _jsonl(dataset, destination) if format == "jsonl" else [_coco(dataset, destination)]
            with open(temporary, "w", encoding="utf-8", newline="\n") as file:
                file.writelines(json_text(line) + "\n" for line in lines)
    return []


def _jsonl(dataset: Dataset, destination: Path) -> Iterator[dict[str, Any]]:
    for sample in dataset.samples:
        yield {"image": _path(dataset, sample, destination), "captions": list(sample.captions), "split": sample.split}


def _coco(dataset: Dataset, destination: Path) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for key, sample in enumerate(dataset.samples, start=1):
        split = {"split": sample.split} if sample.split else {}
        images.append({"id": key, "file_name": _path(dataset, sample, destination), **split})
        for caption in sample.captions:
            annotations.append({"id": len(annotations) + 1, "image_id": key, "caption": caption})
    return {"info": {"description": dataset.name}, "licenses": [], "images": images, "annotations": annotations}


def _path(dataset: Dataset, sample: Sample, destination: Path) -> str:
    """The photo's path from the destination's folder. A link keeps its name; links above it are followed."""
    place = dataset.photos.place(sample.image)
    assert place is not None  # samples have their photos
    path: str | Path = place.file.parent.resolve() / place.file.name
    with contextlib.suppress(ValueError):  # there is no relative path between drives of Windows
        path = os.path.relpath(path, destination.parent.resolve())
    return (Path(path) / (place.member or "")).as_posix()


def _write_shards(dataset: Dataset, folder: Path, progress: Progress) -> list[str]:
    """Writes tars of at most SHARD samples, each of one split and named after it; returns the photos that failed."""
    failed: list[str] = []
    numbered = list(enumerate(dataset.samples))
    for split in ("train", "dev", "test", None):
        samples = [(number, sample) for number, sample in numbered if sample.split == split]
        for start in range(0, len(samples), SHARD):
            name = f"{split}-{start // SHARD:05}.tar" if split else f"{start // SHARD:05}.tar"
            failed += _write_tar(dataset, folder / name, samples[start : start + SHARD], progress)
    return failed


def _write_tar(dataset: Dataset, path: Path, samples: Sequence[tuple[int, Sample]], progress: Progress) -> Iterator[str]:
    with tarfile.open(path, "w") as tar:
        for number, sample in samples:
            progress("converting", number + 1, len(dataset.samples))
            try:
                photo = dataset.photos.read(sample.image)
            except ImageError as error:
                yield str(error)
                continue
            key = f"{number:09}"
            suffix = suffix if (suffix := Path(sample.image).suffix.lower()) in SUFFIXES else ".jpg"
            about = {
                "key": key,
                "status": "success",
                "image": sample.image,
                "caption": sample.captions[0],
                "captions": list(sample.captions),
                "split": sample.split,
            }
            _add(tar, f"{key}{suffix}", photo)
            _add(tar, f"{key}.txt", sample.captions[0].encode("utf-8", "replace"))
            _add(tar, f"{key}.json", json_text(about).encode("utf-8"))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # no times or owners: equal data sets give equal tars
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
