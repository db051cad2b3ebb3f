"""Data sets written anew: our JSON lines, COCO captions JSON, or WebDataset tars.

    {"image": "../photos/dog.jpg", "captions": ["A dog runs."], "split": "train"}      JSON lines

JSON lines and COCO name the photos, by paths from their own folder; tars hold copies. `data.read` reads all three.
"""

import contextlib
import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from showtell.data.dataset import Dataset
from showtell.errors import ImageError, OptionError, OutputError
from showtell.files import json_text, replacing, sync, writing
from showtell.image import SUFFIXES
from showtell.types import Sample

Format = Literal["jsonl", "coco", "webdataset"]
SHARD = 1000  # samples of a tar at most
_SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".json": "coco", ".tar": "webdataset", "": "webdataset"}

Progress = Callable[[int, int], None]


def format_of(destination: Path) -> Format:
    """The format that a destination's suffix means. Raises OptionError for another suffix."""
    found = _SUFFIXES.get(destination.suffix.lower())
    if found is None:
        raise OptionError(
            f"{destination}: the suffix {destination.suffix!r} is of no format; end it with .jsonl, .json (COCO), .tar or "
            f"nothing (a folder of tars), or name the format: {', '.join(get_args(Format))}"
        )
    return found


def convert(
    dataset: Dataset,
    destination: Path,
    format: Format | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[str]:
    """Writes the samples to `destination`, whose suffix says the format unless one is given.

    The destination appears when it is whole. Returns why photos could not be copied into tars, one line each. Raises
    OutputError where the destination is there already (a file may be overwritten) or cannot be written.
    """
    format = format or format_of(destination)
    folder = format == "webdataset" and destination.suffix.lower() != ".tar"
    if destination.exists() and (folder or destination.is_dir() or not overwrite):
        remedy = "give a new folder" if folder or destination.is_dir() else "give another file or --overwrite"
        raise OutputError(f"{destination}: is there already; {remedy}")
    with writing(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        if folder:
            return _write_folder(dataset, destination, progress)
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
    """The photo's path from the destination's folder. A link keeps its own name; links above it are followed."""
    place = dataset.photos.place(sample.image)
    assert place is not None  # samples have their photos
    path: str | Path = place.file.parent.resolve() / place.file.name
    with contextlib.suppress(ValueError):  # no path leads from one drive of Windows to another
        path = os.path.relpath(path, destination.parent.resolve())
    return (Path(path) / (place.member or "")).as_posix()


def _write_folder(dataset: Dataset, destination: Path, progress: Progress | None) -> list[str]:
    """Tars of at most SHARD samples, each of one split and named after it."""
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix=f".{destination.name}.", dir=destination.parent) as temporary:
        folder = Path(temporary) / destination.name
        folder.mkdir()
        numbered = list(enumerate(dataset.samples))
        for split in ("train", "dev", "test", None):
            samples = [(number, sample) for number, sample in numbered if sample.split == split]
            for start in range(0, len(samples), SHARD):
                name = f"{split}-{start // SHARD:05}.tar" if split else f"{start // SHARD:05}.tar"
                failed += _write_tar(dataset, folder / name, samples[start : start + SHARD], progress)
                sync(folder / name)
        folder.replace(destination)
        sync(destination.parent)
    return failed


def _write_tar(dataset: Dataset, path: Path, samples: Sequence[tuple[int, Sample]], progress: Progress | None) -> Iterator[str]:
    with tarfile.open(path, "w") as tar:
        for number, sample in samples:
            if progress:
                progress(number + 1, len(dataset.samples))
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
    member = tarfile.TarInfo(name)  # no times or owners: equal data sets make equal tars
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
